"""From rows of the history and objects of the method to the shapes of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nearfar.explain import wording
from nearfar.explain.wording import Explanation
from nearfar.live.operator import standing_changes
from nearfar.live.plant import Plant
from nearfar.live.records import Audit, Event
from nearfar.live.server import schemas
from nearfar.score import Score
from nearfar.support.words import plural


def state(plant: Plant, id: str) -> schemas.MachineState:
    """A machine as the API shows it."""
    machine, now = plant.machines[id], plant.state(id)
    last, word, ailments = machine.last, now.state, list(machine.watchdog.standing.values())
    deaf = "no samples" in machine.watchdog.standing or (last is not None and last.anomalous is None)
    if word == "normal" and (deaf or last is None):
        word = "no sound" if deaf else "waiting"
    return schemas.MachineState(
        id=id,
        name=machine.name,
        site=machine.site,
        state=word,
        score=last,
        last_heard=now.last_heard,
        health=ailments,
        shelved_until=now.shelved_until,
        event_id=now.event,
        threshold=now.threshold,
        false_alarms_per_week=now.false_alarms_per_week,
        clip_seconds=now.window_s,
        normals=now.normals,
    )


def happening(plant: Plant, event: Event, audit: list[schemas.AuditEntry] | None = None) -> schemas.Event:
    """An event as the API shows it."""
    kept = asdict(event)
    has_audio = plant.history.event_audio.path(str(kept.pop("audio"))) is not None
    kept.pop("audio_t0")
    machine = plant.machines.get(event.machine)
    name = machine.name if machine else event.machine  # a machine of earlier days
    return schemas.Event(**kept, name=name, has_audio=has_audio, audit=audit or [])


def entry(audit: Audit, standing: Sequence[int] | None = None) -> schemas.AuditEntry:
    """An audit entry as the API shows it; `standing`: the changes that are not undone, newest first."""
    detail, text = audit.detail, ""
    if audit.action == "set-point":
        text = f"from {detail['was']:.2f} to {detail['value']:.2f}"
    elif audit.action == "shelve":
        text = f"for {detail['hours']:g} h"
    elif "files" in detail:
        text = plural(len(detail["files"]), "recording")
    return schemas.AuditEntry(
        id=audit.id,
        at=audit.at,
        who=audit.who,
        machine=audit.machine,
        action=audit.action,
        text=text,
        event_id=detail.get("event"),
        note=detail.get("note", "") if standing is None or audit.id in standing else "",
        can_undo=standing is not None and audit.id in standing[:1],
    )


def audits(
    plant: Plant, machine: str | None, *, limit: int = 50, before_id: int | None = None
) -> list[schemas.AuditEntry]:
    """Audit entries, newest first."""
    rows = plant.history.audit(machine, limit=limit, before_id=before_id)
    standing = {m: standing_changes(plant.history, m) for m in {row.machine for row in rows}}
    return [entry(row, standing[row.machine]) for row in rows]


def recording_score(machine: str, scores: Sequence[Score], worst: Score) -> schemas.RecordingScore:
    """The scores of a recording's windows as the API shows them; `worst` stands for the recording."""
    windows = [schemas.WindowScore(**window_fields(score)) for score in scores]
    return schemas.RecordingScore(**window_fields(worst), machine=machine, windows=windows)


def window_fields(score: Score) -> dict[str, Any]:
    """The fields that every score has: the columns of the command line's table."""
    return {
        "file": score.name,
        "score": score.score,
        "threshold": score.threshold,
        "anomalous": score.anomalous,
        "status": score.status,
        "p": score.p,
        "triggered_by": score.triggered_by,
        "nearest": list(score.nearest),
        "problem": score.problem,
        "warnings": list(score.warnings),
    }


def explained(e: Explanation, machine: str, playable: Mapping[str, bool], gain_db: int) -> schemas.Explanation:
    """An explanation as the API shows it; `playable` says which normals are still on disk."""
    said = (wording.verdict(e), wording.what(e))
    lines = [line for line in e.lines() if line not in said and not (e.nearest and line == wording.alike(e))]
    kept = {name: getattr(e, name) for name in KEPT}
    return schemas.Explanation(
        **kept,
        machine=machine,
        file=e.name,
        what=wording.what(e),
        sentence=e.sentence(),
        lines=lines,
        warnings=list(e.warnings),
        nearest=[schemas.Neighbour(name=n.name, distance=n.distance, playable=playable[n.name]) for n in e.nearest],
        channels=["near"] if e.clip is None or e.clip.far is None else ["near", "far"],
        gain_db=gain_db,
    )


KEPT = (
    *("score", "threshold", "anomalous", "p", "clear", "throughout", "start_s", "end_s", "low_hz", "high_hz"),
    *("change_db", "microphone", "problem"),
)
