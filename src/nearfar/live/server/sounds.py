"""Sounds and pictures of events and normals. A browser may request a part of a sound, so that people can seek in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import FileResponse, Response

from nearfar.audio import Clip
from nearfar.detector import Detector
from nearfar.embedding.embedder import Origin
from nearfar.errors import NotFound
from nearfar.live.history.archive import MOST_DB, wav
from nearfar.live.history.records import Event
from nearfar.live.language import reader
from nearfar.live.server import schemas
from nearfar.live.server.errors import HttpError
from nearfar.live.server.playback import normal_clip
from nearfar.live.server.service import ERRORS, EventDep, Id, MachineDep, Service, ServiceDep

router = APIRouter(prefix="/v1", tags=["sounds"], responses=ERRORS)
Gain = Annotated[int, Query(ge=-MOST_DB, le=MOST_DB, description="Gain in dB.")]
Range = Annotated[str | None, Header(alias="range", include_in_schema=False)]
CACHED = {"cache-control": "private, max-age=600"}


@dataclass(frozen=True)
class Playing:
    """Which channel is played, how loud, and which bytes of it a browser asks for."""

    channel: schemas.Channel
    gain_db: Gain = 0
    part: Range = None


PlayingDep = Annotated[Playing, Depends()]
Route = Callable[[Callable[..., Response]], Callable[..., Response]]


def file_route(router: APIRouter, path: str, operation_id: str, kind: str = "audio/wav") -> Route:
    """The route of a file of this kind."""
    content = {"description": kind, "content": {kind: {"schema": {"type": "string", "format": "binary"}}}}
    return router.get(path, operation_id=operation_id, response_class=Response, responses={200: content})


@file_route(router, "/events/{id}/spectrogram.png", "getSpectrogram", "image/png")
def spectrogram(service: ServiceDep, event: EventDep, dark: bool = False) -> Response:
    """The spectrogram at the peak of an event, the deviation outlined, above that of a normal recording."""
    return _picture(service, "spectrogram", event, dark)


@file_route(router, "/events/{id}/change.png", "getChange", "image/png")
def change(service: ServiceDep, event: EventDep, dark: bool = False) -> Response:
    """How the sound at the peak of an event differs from usual, over time and pitch."""
    try:
        return _picture(service, "change", event, dark)
    except ValueError as error:
        raise NotFound(str(error)) from None


@file_route(router, "/events/{id}/audio/both.flac", "getEventRecording", "audio/flac")
def event_recording(service: ServiceDep, id: Id) -> Response:
    """The whole recording of an event, both channels."""
    event = service.plant.history.event(id)
    path = service.explanations.recording(event)
    return FileResponse(path, media_type="audio/flac", filename=f"{event.machine}-event-{event.id}.flac")


@file_route(router, "/events/{id}/audio/{channel}", "getEventSound")
def event_sound(service: ServiceDep, event: EventDep, play: PlayingDep, whole: bool = False) -> Response:
    """One channel of an event: the window at its peak, or with `whole` the whole recording."""
    return sound(service.explanations.clip(event, whole=whole), play)


@file_route(router, "/events/{id}/nearest/{place}/{channel}", "getNearestSound")
def nearest_sound(
    service: ServiceDep,
    event: EventDep,
    place: Annotated[int, Path(ge=1, le=3, description="1 is the most similar.")],
    play: PlayingDep,
) -> Response:
    """One channel of a normal recording that is similar to an event."""
    normals = service.explanations.nearest(event)
    return _normal_sound(service.plant.machines[event.machine].detector, normals[place - 1 : place], play)


@file_route(router, "/machines/{id}/normals/{index}/{channel}", "getNormalSound")
def normal_sound(machine: MachineDep, index: Annotated[int, Path(ge=0, le=2**31)], play: PlayingDep) -> Response:
    """One channel of a normal recording, by its position among the normals."""
    return _normal_sound(machine.detector, machine.detector.normals[index : index + 1], play)


def _picture(service: Service, kind: str, event: Event, dark: bool) -> Response:
    try:
        made = service.explanations.picture(kind, event, dark=dark, language=reader.get())
    except ImportError as error:
        raise HttpError(501, "no_pictures", str(error)) from None
    return Response(made, media_type="image/png", headers=CACHED | {"vary": "accept-language, cookie"})


def _normal_sound(detector: Detector, normals: Sequence[Origin], play: Playing) -> Response:
    clip = normal_clip(normals[0], detector) if normals else None
    if clip is None:
        raise NotFound("there is no such normal recording, or its file no longer exists")
    return sound(clip, play)


def sound(clip: Clip, play: Playing, gain_db: int | None = None) -> Response:
    """A channel of a clip as WAV, or the bytes that a Range header requests; `gain_db` replaces that of `play`."""
    wave = clip.near if play.channel == "near" else clip.far
    if wave is None:
        raise NotFound("this recording has one channel: near")
    body = wav(wave, clip.rate, play.gain_db if gain_db is None else gain_db)
    headers = CACHED | {"accept-ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d{1,12})-(\d{0,12})", play.part or "")
    if not wanted:
        return Response(body, media_type="audio/wav", headers=headers)
    first, last = int(wanted[1]), min(int(wanted[2] or len(body) - 1), len(body) - 1)
    if first > last:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{len(body)}"})
    headers["content-range"] = f"bytes {first}-{last}/{len(body)}"
    return Response(body[first : last + 1], 206, headers, media_type="audio/wav")
