"""Rows of the history and objects of the method as schemas of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from fastapi import Request

from nearfar.audio import Clip
from nearfar.explain import wording
from nearfar.explain.wording import Explanation
from nearfar.live.history.archive import MOST_DB, alike_db, gain_db
from nearfar.live.history.records import ALARM, UNUSUAL, Audit, Event, iso_time
from nearfar.live.operator import CHANGES
from nearfar.live.plant import Plant
from nearfar.live.report.schedule import SCHEDULED, ScheduledReports
from nearfar.live.roster import ADDED, REPLACED
from nearfar.live.server import schemas
from nearfar.score import Score
from nearfar.support.words import plural


def next_page(request: Request, more: bool, **changes: object) -> str | None:
    """The address of this request with other values of its query, if there is `more`."""
    query = urlencode({**request.query_params, **changes})
    return f"{request.scope['path']}?{query}" if more else None


def machine_state(plant: Plant, id: str) -> schemas.MachineState:
    """The state of a machine now."""
    machine, recorder, now = plant.machines[id], plant.recorders[id], plant.clock()
    alarm, last, detector = machine.alarm, machine.last, machine.detector
    event, unusual = recorder.newest(ALARM), recorder.newest(UNUSUAL)
    return schemas.MachineState.of(
        machine,
        state=plant.state(id),
        source=machine.source_health.state(plant.steady()),
        score=None if last is None or last.anomalous is None else last.score,
        window=last,
        last_heard=None if last is None else last.t1,
        last_heard_iso=None if last is None else iso_time(last.t1),
        health=list(machine.health.values()),
        shelved_until=alarm.shelved_until if alarm.suppressed(now) else None,
        event_id=None if event is None else event.id,
        unusual_stands=machine.lamp.lit,
        unusual_text=machine.lamp.text() if machine.lamp.lit else "",
        unusual_event_id=None if unusual is None else unusual.id,
        unusual_threshold=detector.unusual_threshold,
        trend=None if machine.ramp is None else schemas.SlowRise(**machine.ramp.plain()),
        threshold=detector.threshold.value,
        clip_seconds=detector.window_s,
        normals=len(detector.normals),
    )


def event_with_audit(
    plant: Plant, event: Event, audit: Sequence[schemas.AuditEntry] = (), *, label: str = ""
) -> schemas.Event:
    """An event, with the entries about it in the audit, and what people call it."""
    machine = plant.machines.get(event.machine)
    peak = plant.history.score_at(event.machine, event.peak_t0)
    return schemas.Event.of(
        event,
        name=machine.name if machine else event.machine,  # the plant may no longer have the machine
        url=plant.reporter.link(event),
        has_audio=plant.history.event_audio.path(event.audio) is not None,
        file="" if peak is None else peak.file,
        label=label,
        audit=audit,
    )


def audit_entry(audit: Audit, standing: Sequence[int] | None = None) -> schemas.AuditEntry:
    """An audit entry; `standing` are the ids of the changes of the model that are not undone, newest first."""
    detail, text = audit.detail, ""
    if audit.action == "set-point":
        text = f"from {detail['was']:.2f} to {detail['value']:.2f}"
    elif audit.action == "reload":
        text = f"{detail['normals']} normals, set-point {detail['value']:.2f}"
    elif audit.action in (ADDED, REPLACED):
        text = ", ".join([Path(detail["model"]).name, *detail["source"]])
    elif audit.action == SCHEDULED:
        text = f"of the {detail['span']}" if "span" in detail else "from now on"
    elif "when" in detail:
        text = ", ".join(filter(None, [detail["when"], detail["why"]]))
    elif audit.action == "shelve":
        text = f"for {detail['hours']:g} h"
    elif audit.action == "score":
        text = f"{detail['file']}: {detail['score']:.1f}, {detail['status'].lower()}"
    elif "normals" in detail and audit.action in ("remove", "tag"):
        names = detail["normals"]
        text = names[0] if len(names) == 1 else plural(len(names), "recording")
        if audit.action == "tag":
            session = detail["session"]
            text += f", session {session}" if session else ", of no session"
    elif "files" in detail:
        text = plural(len(detail["files"]), "recording")
        if "unusual" in detail:
            text += f"; unusual above {detail['unusual']:.2f}, before {detail['unusual_was']:.2f}"
    text = "; ".join(filter(None, [detail.get("fault", ""), text, detail.get("said", "")]))
    return schemas.AuditEntry.of(
        audit,
        text=text,
        event_id=detail.get("event"),
        note=detail.get("note", "") if standing is None or audit.id in standing else "",
        can_undo=standing is not None and audit.id in standing[:1],
    )


def audit_entries(
    plant: Plant, machine: str | None, *, limit: int = 50, before_id: int | None = None
) -> list[schemas.AuditEntry]:
    """Audit entries of a machine, or of all with None; newest first."""
    rows = plant.history.audit(machine, limit=limit, before_id=before_id)
    standing = {m: plant.history.standing_changes(m, CHANGES) for m in {row.machine for row in rows}}
    return [audit_entry(row, standing[row.machine]) for row in rows]


def recording_score(machine: str, scores: Sequence[Score], worst: Score) -> schemas.RecordingScore:
    """The scores of the windows of a recording; `worst` stands for the recording."""
    windows = [schemas.ClipScore.of(score, file=score.name) for score in scores]
    return schemas.RecordingScore.of(worst, file=worst.name, machine=machine, windows=windows)


def explanation(e: Explanation, machine: str, normals: Mapping[str, Clip | None]) -> schemas.Explanation:
    """An explanation; `normals` are the sounds of its nearest normals by name, None where the file is gone."""
    elsewhere = (e.verdict(), wording.difference(e), wording.most_similar(e) if e.nearest else "")
    lines = [line for line in e.lines() if line not in elsewhere]
    similar = [clip for clip in normals.values() if clip is not None]
    gain = min(gain_db([e.clip]), *(gain_db([clip]) - alike_db(0, e.clip, clip) for clip in similar), MOST_DB)
    return schemas.Explanation.of(
        e,
        machine=machine,
        file=e.name,
        what=wording.difference(e),
        sentence=e.sentence(),
        lines=lines,
        nearest=[
            schemas.Neighbour.of(n, playable=clip is not None, gain_db=alike_db(gain, e.clip, clip))
            for n, clip in ((n, normals.get(n.name)) for n in e.nearest)
        ],
        channels=["near"] if e.clip is None or e.clip.far is None else ["near", "far"],
        gain_db=gain,
    )


def next_report(reports: ScheduledReports, *, set_here: bool) -> schemas.NextReport:
    """The report that comes next; `set_here`: the API may change it."""
    c = reports.config
    return schemas.NextReport.of(c, next=reports.next, span=c.every, to=reports.places, set_here=set_here)
