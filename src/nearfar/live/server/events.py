"""Events with their explanations and verdicts, and the audit of what people did."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request

from nearfar.live.server import schemas
from nearfar.live.server.playback import nearest_clips
from nearfar.live.server.serializers import audit_entries, audit_entry, event_with_audit, next_page
from nearfar.live.server.serializers import explanation as explanation_of
from nearfar.live.server.service import ERRORS, Before, By, EventDep, Id, Limit, MachineDep, Name, ServiceDep, Time

router = APIRouter(prefix="/v1", tags=["events"], responses=ERRORS)
NOBODY = schemas.ByWhom()
MOST_AUDITS = 500  # newest audit entries of a machine that are searched for those of an event


@router.get("/events", operation_id="listEvents")
def events(
    service: ServiceDep,
    request: Request,
    machine: Name = None,
    kind: schemas.EventKind | None = None,
    since: Time = None,
    until: Time = None,
    before_id: Before = None,
    limit: Limit = 100,
) -> schemas.Events:
    """Events, newest first."""
    found = service.plant.history.events(machine, since=since, until=until, kind=kind, limit=limit, before_id=before_id)
    following = next_page(request, len(found) == limit, before_id=found[-1].id if found else None)
    labels = _labels(service, {event.machine for event in found})
    listed = [event_with_audit(service.plant, event, label=labels.get(event.id, "")) for event in found]
    return schemas.Events(events=listed, next=following)


@router.get("/events/{id}", operation_id="getEvent")
def event(service: ServiceDep, id: Id) -> schemas.Event:
    """One event, with what people did about it."""
    found = service.plant.history.event(id)
    audit = [a for a in audit_entries(service.plant, found.machine, limit=MOST_AUDITS) if a.event_id == id]
    return event_with_audit(service.plant, found, audit, label=_labels(service, [found.machine]).get(id, ""))


@router.get("/events/{id}/explanation", operation_id="explainEvent")
def explanation(service: ServiceDep, event: EventDep) -> schemas.Explanation:
    """Where and why the sound of an event differs from the normals, and the most similar normals."""
    explained = service.explanations.explanation(event)
    detector = service.plant.machines[event.machine].detector
    return explanation_of(explained, event.machine, nearest_clips(explained, detector))


@router.post("/events/{id}/acknowledge", operation_id="acknowledgeEvent")
def acknowledge(service: ServiceDep, by: By, known: EventDep, body: schemas.ByWhom = NOBODY) -> schemas.Event:
    """Record that somebody has seen the event and looks after it."""
    service.plant.operator.acknowledge(known.id, by(body.who))
    return event(service, known.id)


@router.post("/events/{id}/feedback", operation_id="answerEvent")
def feedback(service: ServiceDep, by: By, event: EventDep, body: schemas.Feedback) -> schemas.Done:
    """Record what the event was. "fine" adds its sound to the normals and can be undone; "fault" is a real fault."""
    machine, operator = service.plant.machines[event.machine], service.plant.operator
    who, said = by(body.who), body.said.strip()
    if body.verdict == "fault":
        audit = operator.mark_fault(event.id, who, fault=body.fault.strip(), said=said)
        return service.done(audit, f"Recorded as a real fault of {machine.name}.")
    audit = operator.mark_fine(event.id, who, said=said)
    entry = audit_entry(audit)
    text = f"Added to the normals of {machine.name}: {entry.text}. It can be taken back."
    return service.done(audit, text, entry.note)


@router.put("/events/{id}/label", operation_id="nameEvent")
def name_event(service: ServiceDep, by: By, known: EventDep, body: schemas.NewText) -> schemas.Event:
    """Say what the event is called in lists and on the time line; audited."""
    service.broadcast(service.plant.operator.name_event(known.id, body.text.strip(), by(body.who)))
    return event(service, known.id)


@router.get("/machines/{id}/notes", operation_id="listNotes", tags=["notes"])
def notes(service: ServiceDep, machine: MachineDep, since: Time = None, until: Time = None) -> schemas.Notes:
    """What people wrote on the time line of a machine, in [since, until); the names of events are among it."""
    found = service.plant.history.notes(machine.id)
    inside = [n for n in found if (since is None or n.at >= since) and (until is None or n.at < until)]
    return schemas.Notes(notes=[schemas.Note.of(n) for n in inside])


@router.post("/machines/{id}/notes", operation_id="writeNote", tags=["notes"], status_code=201)
def write_note(service: ServiceDep, by: By, machine: MachineDep, body: schemas.NewNote) -> schemas.Notes:
    """Write a note on the time line of a machine, such as a repair; audited. All notes are the answer."""
    at = service.clock() if body.at is None else body.at
    who = by(body.who)
    service.broadcast(service.plant.operator.write_note(machine.id, body.text.strip(), who, at=at))
    return notes(service, machine)


@router.put("/machines/{id}/notes/{note}", operation_id="changeNote", tags=["notes"])
def change_note(service: ServiceDep, by: By, machine: MachineDep, note: Id, body: schemas.NewText) -> schemas.Notes:
    """Change the text of a note, or delete it; audited. All notes are the answer."""
    who = by(body.who)
    service.broadcast(service.plant.operator.change_note(machine.id, note, body.text.strip(), who))
    return notes(service, machine)


def _labels(service: ServiceDep, machines: Iterable[str]) -> dict[int, str]:
    """What people call the events of machines, by their ids."""
    notes = (note for machine in machines for note in service.plant.history.notes(machine))
    return {note.event: note.text for note in notes if note.event is not None}


@router.get("/audit", operation_id="listAudit", tags=["audit"])
def audit(
    service: ServiceDep, request: Request, machine: Name = None, before_id: Before = None, limit: Limit = 100
) -> schemas.Audits:
    """Who did what: verdicts, set-points, shelving, added normals; newest first."""
    found = audit_entries(service.plant, machine, limit=limit, before_id=before_id)
    following = next_page(request, len(found) == limit, before_id=found[-1].id if found else None)
    return schemas.Audits(audit=found, next=following)


@router.post("/audit/{id}/undo", operation_id="undoChange", tags=["audit"])
def undo(service: ServiceDep, by: By, id: Id, body: schemas.ByWhom = NOBODY) -> schemas.Done:
    """Bring back the model from before a change, byte for byte; only the newest change can be undone."""
    done = service.plant.operator.undo(id, by(body.who))
    return service.done(done, f"The model of {done.machine} is as it was before.")
