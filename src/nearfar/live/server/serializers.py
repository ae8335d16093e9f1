"""Rows of the history and objects of the method as schemas of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request

from nearfar.audio import Clip
from nearfar.explain import wording
from nearfar.explain.wording import Explanation
from nearfar.live.history.archive import MOST_DB, alike_db, gain_db
from nearfar.live.history.recordings import HeardRecording
from nearfar.live.history.records import ALARM, UNUSUAL, Audit, Event, Note, ScoreRecord, iso_time
from nearfar.live.operator import CHANGES
from nearfar.live.plant import Plant
from nearfar.live.report.schedule import SCHEDULED
from nearfar.live.roster import ADDED, REPLACED
from nearfar.live.server import schemas
from nearfar.live.setup.jobs import Job
from nearfar.live.setup.microphones import Session
from nearfar.live.setup.recording import Taken
from nearfar.live.sources.streams import hide
from nearfar.score import Score
from nearfar.support.words import plural, shown

QUIETEST_DB = -200.0  # of a level
SAME_IN_EXPLANATION = (
    *(
        "score",
        "threshold",
        "anomalous",
        "unusual",
        "p",
        "clear",
        "throughout",
        "start_s",
        "end_s",
        "low_hz",
        "high_hz",
    ),
    *("change_db", "microphone", "problem"),
)


def window(record: ScoreRecord) -> schemas.Window:
    """The score of a window."""
    return schemas.Window(**asdict(record), t0_iso=iso_time(record.t0), t1_iso=iso_time(record.t1))


def next_page(request: Request, more: bool, **changes: object) -> str | None:
    """The address of this request with other values of its query, if there is `more`."""
    query = urlencode({**request.query_params, **changes})
    return f"{request.scope['path']}?{query}" if more else None


def machine_state(plant: Plant, id: str) -> schemas.MachineState:
    """The state of a machine now."""
    machine, recorder, now = plant.machines[id], plant.recorders[id], plant.clock()
    alarm, last, detector = machine.alarm, machine.last, machine.detector
    event, unusual = recorder.newest(ALARM), recorder.newest(UNUSUAL)
    return schemas.MachineState(
        id=id,
        name=machine.name,
        site=machine.site,
        state=plant.state(id),
        source=machine.source_health.state(plant.steady()),
        score=None if last is None or last.anomalous is None else last.score,
        window=None if last is None else window(last),
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
        false_alarms_per_week=machine.false_alarms_per_week,
        clip_seconds=detector.window_s,
        normals=len(detector.normals),
    )


def note(note: Note) -> schemas.Note:
    """A note on the time line."""
    at, text = note.at, note.text
    return schemas.Note(id=note.id, at=at, at_iso=iso_time(at), text=text, who=note.who, event=note.event)


def event_with_audit(
    plant: Plant, event: Event, audit: Sequence[schemas.AuditEntry] = (), *, label: str = ""
) -> schemas.Event:
    """An event, with the entries about it in the audit, and what people call it."""
    fields = asdict(event)
    has_audio = plant.history.event_audio.path(str(fields.pop("audio"))) is not None
    fields.pop("audio_t0")
    machine = plant.machines.get(event.machine)
    name = machine.name if machine else event.machine  # the plant may no longer have the machine
    fields |= {f"{name}_iso": _iso(fields[name]) for name in ("started", "ended", "acknowledged")}
    link = plant.reporter.link(event)
    peak = plant.history.score_at(event.machine, event.peak_t0)
    file = "" if peak is None else peak.file
    return schemas.Event(**fields, name=name, url=link, has_audio=has_audio, file=file, label=label, audit=list(audit))


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso_time(seconds)


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
    return schemas.AuditEntry(
        id=audit.id,
        at=audit.at,
        at_iso=iso_time(audit.at),
        who=audit.who,
        machine=audit.machine,
        action=audit.action,
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


def heard(recording: HeardRecording, share: float, *, playable: bool) -> schemas.HeardRecording:
    """A recording that was heard; `share` of its windows are unusual by chance."""
    fields = {field.name: getattr(recording, field.name) for field in dataclass_fields(recording)}
    spans = [schemas.Span(**asdict(span)) for span in fields.pop("spans")]
    expected = round(share * recording.judged, 1)
    return schemas.HeardRecording(
        **fields, t0_iso=iso_time(recording.t0), expected=expected, spans=spans, playable=playable
    )


def recording_score(machine: str, scores: Sequence[Score], worst: Score) -> schemas.RecordingScore:
    """The scores of the windows of a recording; `worst` stands for the recording."""
    windows = [schemas.ClipScore(**_score_fields(score)) for score in scores]
    return schemas.RecordingScore(**_score_fields(worst), machine=machine, windows=windows)


def explanation(e: Explanation, machine: str, normals: Mapping[str, Clip | None]) -> schemas.Explanation:
    """An explanation; `normals` are the sounds of its nearest normals by name, None where the file is gone."""
    elsewhere = (e.verdict(), wording.difference(e), wording.most_similar(e) if e.nearest else "")
    lines = [line for line in e.lines() if line not in elsewhere]
    similar = [clip for clip in normals.values() if clip is not None]
    gain = min(gain_db([e.clip]), *(gain_db([clip]) - alike_db(0, e.clip, clip) for clip in similar), MOST_DB)
    return schemas.Explanation(
        **{name: getattr(e, name) for name in SAME_IN_EXPLANATION},
        machine=machine,
        file=e.name,
        what=wording.difference(e),
        sentence=e.sentence(),
        lines=lines,
        warnings=list(e.warnings),
        nearest=[
            schemas.Neighbour(
                name=n.name,
                distance=n.distance,
                playable=normals.get(n.name) is not None,
                gain_db=alike_db(gain, e.clip, normals.get(n.name)),
            )
            for n in e.nearest
        ],
        channels=["near"] if e.clip is None or e.clip.far is None else ["near", "far"],
        gain_db=gain,
    )


def _score_fields(score: Score) -> dict[str, Any]:
    """The fields of a score: the columns of the table that the command line prints."""
    names = schemas.ClipScore.model_fields.keys() - {"file"}
    return {"file": score.name, **{name: getattr(score, name) for name in names}}


def job(job: Job) -> schemas.Job:
    """A job."""
    return schemas.Job(**{name: getattr(job, name) for name in schemas.Job.model_fields})


def session(session: Session) -> schemas.Session:
    """A session of the microphones."""
    return schemas.Session(
        machine=session.machine,
        state=session.state,
        count=session.count,
        taken=session.taken,
        levels=_levels(session.levels),
        last=None if session.last is None else taken(session.last),
        problem=hide(session.problem),
    )


def taken(taken: Taken) -> schemas.Taken:
    """A recording that was made or refused."""
    name = "" if taken.file is None else shown(taken.file.name)
    return schemas.Taken(file=name, levels=_levels(taken.levels), problems=list(taken.problems))


def _levels(levels: Sequence[float]) -> list[float]:
    """Levels in dB; JSON has no infinity."""
    return [round(max(level, QUIETEST_DB), 1) for level in levels]
