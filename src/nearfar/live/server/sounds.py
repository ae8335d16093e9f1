"""Sounds and pictures of events and of normals, by number; a browser may ask for a part of a sound, to jump in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import FileResponse, Response

from nearfar.audio import Clip
from nearfar.embedding.embedder import Origin
from nearfar.live.server import schemas
from nearfar.live.server.events import Id
from nearfar.live.server.limits import Refused
from nearfar.live.server.playback import MOST_DB, normal_clip, wav
from nearfar.live.server.security import Refusal
from nearfar.live.server.service import ERRORS, Here, Service, answers

router = APIRouter(prefix="/v1", tags=["sounds"], responses=ERRORS)
Gain = Annotated[int, Query(ge=-MOST_DB, le=MOST_DB, description="Played so many dB louder.")]
Part = Annotated[str | None, Header(alias="range", include_in_schema=False)]
KEPT = {"cache-control": "private, max-age=600"}


def _body(kind: str) -> dict[int | str, dict[str, object]]:
    return {200: {"description": kind, "content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/events/{id}/spectrogram.png", response_class=Response, responses=_body("image/png"))
def spectrogram(here: Here, id: Id, dark: bool = False) -> Response:
    """Pitch over time at the event's peak, with what differs outlined, above a normal recording."""
    found = here.watched(id)
    try:
        with answers():
            return Response(here.looks.picture(found, dark=dark), media_type="image/png", headers=KEPT)
    except ImportError as error:
        raise Refused(Refusal(501, "no_pictures", str(error))) from None


@router.get("/events/{id}/audio/both.flac", response_class=Response, responses=_body("audio/flac"))
def everything(here: Here, id: Id) -> Response:
    """All that was kept of an event, both channels, as recorded."""
    found = here.event(id)
    path = here.plant.history.event_audio.path(found.audio)
    if path is None:
        raise Refused(Refusal(404, "not_found", f"the sound of event {id} is not kept (any more)"))
    return FileResponse(path, media_type="audio/flac", filename=f"{found.machine}-event-{found.id}.flac")


@router.get("/events/{id}/audio/{channel}", response_class=Response, responses=_body("audio/wav"))
def event_sound(
    here: Here, id: Id, channel: schemas.Channel, gain_db: Gain = 0, whole: bool = False, part: Part = None
) -> Response:
    """One channel of an event: the window at its peak, or with `whole` all that was kept."""
    found = here.watched(id)
    with answers():
        return _played(here.looks.clip(found, whole=whole), channel, gain_db, part)


@router.get("/events/{id}/nearest/{place}/{channel}", response_class=Response, responses=_body("audio/wav"))
def nearest_sound(
    here: Here,
    id: Id,
    place: Annotated[int, Path(ge=1, le=3, description="1 is the most alike.")],
    channel: schemas.Channel,
    gain_db: Gain = 0,
    part: Part = None,
) -> Response:
    """One channel of a normal that is most like an event."""
    found = here.watched(id)
    with answers():
        normals = here.looks.nearest(found)
    return _normal(here, found.machine, normals[place - 1 : place], channel, gain_db, part)


@router.get("/machines/{id}/normals/{index}/{channel}", response_class=Response, responses=_body("audio/wav"))
def normal_sound(
    here: Here,
    id: str,
    index: Annotated[int, Path(ge=0, le=2**31)],
    channel: schemas.Channel,
    gain_db: Gain = 0,
    part: Part = None,
) -> Response:
    """One channel of a normal, by its place among the normals."""
    normals = here.machine(id).detector.normals
    return _normal(here, id, normals[index : index + 1], channel, gain_db, part)


def _normal(
    here: Service, machine: str, found: Sequence[Origin], channel: str, gain_db: int, part: str | None
) -> Response:
    clip = normal_clip(found[0], here.machine(machine).detector) if found else None
    if clip is None:
        raise Refused(Refusal(404, "not_found", "there is no such normal, or its recording is no longer on disk"))
    return _played(clip, channel, gain_db, part)


def _played(clip: Clip, channel: str, gain_db: int, part: str | None) -> Response:
    wave = clip.near if channel == "near" else clip.far
    if wave is None:
        raise Refused(Refusal(404, "not_found", "this recording has one channel: near"))
    body = wav(wave, clip.rate, gain_db)
    headers = KEPT | {"accept-ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d{1,12})-(\d{0,12})", part or "")
    if not wanted:
        return Response(body, media_type="audio/wav", headers=headers)
    first, last = int(wanted[1]), min(int(wanted[2] or len(body) - 1), len(body) - 1)
    if first > last:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{len(body)}"})
    headers["content-range"] = f"bytes {first}-{last}/{len(body)}"
    return Response(body[first : last + 1], 206, headers, media_type="audio/wav")
