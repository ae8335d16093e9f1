"""Events: what happened, why, and what people say it was; and the audit of what they did."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request

from nearfar.live.server import schemas
from nearfar.live.server.machines import Time
from nearfar.live.server.playback import gain_db, normal_clip
from nearfar.live.server.serializers import audits, entry, explained, happening
from nearfar.live.server.service import ERRORS, Here, answers, name_of

router = APIRouter(prefix="/v1", tags=["events"], responses=ERRORS)
Id = Annotated[int, Path(ge=1, le=2**53)]
Before = Annotated[int | None, Query(ge=1, le=2**53, description="Only what is older than this id.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Name = Annotated[str | None, Query(max_length=100)]
TRAIL = 500  # audit entries of a machine among which those of one event are looked for


@router.get("/events")
def events(
    here: Here,
    machine: Name = None,
    kind: Literal["alarm", "health"] | None = None,
    since: Time = None,
    until: Time = None,
    before_id: Before = None,
    limit: Limit = 100,
) -> schemas.Events:
    """Events, newest first."""
    found = here.plant.history.events(machine, since=since, until=until, kind=kind, limit=limit, before_id=before_id)
    return schemas.Events(events=[happening(here.plant, e) for e in found])


@router.get("/events/{id}")
def event(here: Here, id: Id) -> schemas.Event:
    """One event, with what people did about it."""
    found = here.event(id)
    trail = [a for a in audits(here.plant, found.machine, limit=TRAIL) if a.event_id == id]
    return happening(here.plant, found, trail)


@router.get("/events/{id}/explanation")
def explanation(here: Here, id: Id) -> schemas.Explanation:
    """Where and why it differs from the normals, and those to play beside it."""
    found = here.watched(id)
    with answers():
        looked = here.looks.explanation(found)
        normals = {n.name: n for n in here.looks.nearest(found)}
    detector = here.plant.machines[found.machine].detector
    clips = {name: normal_clip(n, detector) for name, n in normals.items()}
    playable = {n.name: clips.get(n.name) is not None for n in looked.nearest}
    return explained(looked, found.machine, playable, gain_db([looked.clip, *clips.values()]))


@router.post("/events/{id}/acknowledge")
def acknowledge(here: Here, request: Request, id: Id, body: schemas.ByWhom) -> schemas.Event:
    """Somebody has seen it and looks after it."""
    here.watched(id)
    with answers():
        here.plant.operator.acknowledge(id, name_of(request, body.who))
    return event(here, id)


@router.post("/events/{id}/feedback")
def feedback(here: Here, request: Request, id: Id, body: schemas.Feedback) -> schemas.Done:
    """What it was: "fine" puts its sound into the normals, "fault" notes a real fault. "fine" can be undone."""
    found, who, operator = here.watched(id), name_of(request, body.who), here.plant.operator
    with answers():
        audit = here.told((operator.mark_fine if body.verdict == "fine" else operator.mark_fault)(id, who))
    name = here.plant.machines[found.machine].name
    text = f"Noted as a real fault of {name}."
    if body.verdict == "fine":
        text = f"Added to the normals of {name}: {entry(audit).text}. It can be taken back."
    return schemas.Done(message=text, audit_id=audit.id, note=entry(audit).note)


@router.get("/audit", tags=["audit"])
def audit(here: Here, machine: Name = None, before_id: Before = None, limit: Limit = 100) -> schemas.Audits:
    """Who did what: feedback, set-points, shelving, normals added; newest first."""
    return schemas.Audits(audit=audits(here.plant, machine, limit=limit, before_id=before_id))


@router.post("/audit/{id}/undo", tags=["audit"])
def undo(here: Here, request: Request, id: Id, body: schemas.ByWhom) -> schemas.Done:
    """Bring back the model as it was before a change, byte for byte; the newest change first."""
    with answers():
        if not here.plant.history.audit(id=id, limit=1):
            raise KeyError(f"there is no audit entry {id}")
        done = here.told(here.plant.operator.undo(id, name_of(request, body.who)))
    return schemas.Done(message=f"The model of {done.machine} is what it was.", audit_id=done.id)
