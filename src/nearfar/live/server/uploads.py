"""Recordings that are sent to us: scored, explained, or added to the normals, by the same path as everything else.

The body is read only when it is its turn (`limits.Door`), straight to a file of ours, decoded in a bounded process
(`decode`), and scored window by window. What is sent can be

    multipart/form-data, field `file`            curl -F file=@0815.wav
    audio/wav, audio/flac, audio/ogg             curl --data-binary @0815.wav -H 'Content-Type: audio/wav'
    application/octet-stream with ?pcm=s16le&rate=16000&channels=2     raw samples, interleaved, near first
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import UploadFile

from nearfar.audio import Clip, incomplete
from nearfar.live.machine import Machine
from nearfar.live.server import schemas
from nearfar.live.server.decode import HEADER, shown, wav_header
from nearfar.live.server.limits import Refused
from nearfar.live.server.playback import gain_db, normal_clip
from nearfar.live.server.security import Refusal
from nearfar.live.server.serializers import entry, explained, recording_score
from nearfar.live.server.service import ERRORS, Here, Service, answers, name_of
from nearfar.score import Score
from nearfar.support.words import join_sentences, plural

BINARY = {"type": "string", "format": "binary"}
FORM = {"type": "object", "required": ["file"], "properties": {"file": BINARY}}
KINDS = ("audio/wav", "audio/x-wav", "audio/flac", "audio/ogg", "audio/mpeg", "application/octet-stream")
BODY = {
    "requestBody": {
        "required": True,
        "description": "A WAV, FLAC, OGG or MP3 file, as a form's field `file` or as the body itself; or raw samples "
        "with `pcm`, `rate` and `channels`. Near is the first channel, far the second, if the model does not differ.",
        "content": {"multipart/form-data": {"schema": FORM}, **{kind: {"schema": BINARY} for kind in KINDS}},
    }
}
Answer = TypeVar("Answer")

router = APIRouter(prefix="/v1/machines/{id}", tags=["recordings"], responses=ERRORS)


@dataclass(frozen=True)
class Sent:
    """How a body is to be read."""

    name: Annotated[str, Query(max_length=300, description="Shown beside the score; a form names its file itself.")] = (
        ""
    )
    pcm: Annotated[Literal["s16le", "f32le"] | None, Query(description="The body is raw samples of this kind.")] = None
    rate: Annotated[int, Query(ge=1000, le=384_000, description="Hz, of raw samples.")] = 16_000
    channels: Annotated[int, Query(ge=1, le=16, description="Of raw samples, interleaved.")] = 2


How = Annotated[Sent, Depends()]


@router.post("/score", openapi_extra=BODY)
async def score(here: Here, request: Request, id: str, how: How) -> schemas.RecordingScore:
    """The score of a recording: the same, bit for bit, as `nearfar score` gives. Nothing is recorded."""
    machine = here.machine(id)

    def work(clips: list[Clip]) -> schemas.RecordingScore:
        scores = machine.detector.score(clips)
        return recording_score(id, scores, scores[_worst(scores)])

    return await _worked_on(here, request, machine, how, work)


@router.post("/explain", openapi_extra=BODY)
async def explain(here: Here, request: Request, id: str, how: How) -> schemas.Explanation:
    """Where and why a recording differs from the normals; of a long one, its most unusual window."""
    machine = here.machine(id)

    def work(clips: list[Clip]) -> schemas.Explanation:
        clip = clips[0] if len(clips) == 1 else clips[_worst(machine.detector.score(clips))]
        found = machine.detector.explain(clip)
        similar = {n.name for n in found.nearest}
        normals = [n for n in machine.detector.normals if n.name in similar]
        there = {n.name: c for n in normals if (c := normal_clip(n, machine.detector))}
        playable = {name: name in there for name in similar}
        return explained(found, id, playable, gain_db([found.clip, *there.values()]))

    return await _worked_on(here, request, machine, how, work)


@router.post("/add", openapi_extra=BODY)
async def add(
    here: Here,
    request: Request,
    id: str,
    how: How,
    domain: Annotated[
        Literal["source", "target"], Query(description="source: as before; target: another way to run.")
    ] = "source",
    who: schemas.Who = "",
) -> schemas.Added:
    """A recording into the machine's normals, without fitting the others again; audited, and can be undone."""
    machine, by = here.machine(id), name_of(request, who)

    def work(clips: list[Clip]) -> schemas.Added:
        audit = here.told(here.plant.operator.add_normals(id, clips, domain, by))
        count = len(audit.detail["files"])
        text = f"{plural(count, 'recording')} added to the normals of {machine.name}."
        cut = [p.text for c in clips for p in incomplete(c)]
        normals, note = len(machine.detector.normals), join_sentences(filter(None, [entry(audit).note, *cut]))
        return schemas.Added(added=count, normals=normals, audit_id=audit.id, message=text, note=note)

    return await _worked_on(here, request, machine, how, work)


async def _worked_on(
    here: Service, request: Request, machine: Machine, how: Sent, work: Callable[[list[Clip]], Answer]
) -> Answer:
    """Wait for the turn, take the body, decode it, and do the work in a thread."""
    if how.pcm is None and not _kind(request).startswith(("audio/", "multipart/form-data")):
        text = "send a file as multipart/form-data or audio/wav, or raw samples with ?pcm=s16le&rate=16000&channels=2"
        raise Refused(Refusal(415, "wrong_kind", text))
    async with here.door.pass_through(), _body(here, request, how) as (path, name):
        detector = machine.detector

        def all_of_it() -> Answer:
            with answers():
                near, far, window_s = detector.near, detector.far, detector.window_s
                return work(here.decoder.clips(path, name, near=near, far=far, window_s=window_s))

        return await asyncio.get_running_loop().run_in_executor(here.workers, all_of_it)


@asynccontextmanager
async def _body(here: Service, request: Request, how: Sent) -> AsyncIterator[tuple[Path, str]]:
    """(a file of ours with what was sent, the sender's name for it); the file goes when the work is done."""
    handle, place = tempfile.mkstemp(prefix="nearfar-")  # for this user alone; systems clean up folders that rest
    path = Path(place)
    try:
        with os.fdopen(handle, "wb") as file:
            if how.pcm:
                file.seek(HEADER)
            try:
                name = await asyncio.wait_for(_receive(request, file), here.limits.body_s)
            except asyncio.TimeoutError:
                text = f"the recording did not arrive within {here.limits.body_s:g} s"
                raise Refused(Refusal(408, "too_slow", text)) from None
            if how.pcm:
                with answers():
                    header = wav_header(how.pcm, how.rate, how.channels, max(0, file.tell() - HEADER))
                file.seek(0)
                file.write(header)
        yield path, shown(how.name or name)
    finally:
        path.unlink(missing_ok=True)


async def _receive(request: Request, file: Any) -> str:
    """The body into `file`; returns the name that a form gives, or ""."""
    if not _kind(request).startswith("multipart/form-data"):
        async for chunk in request.stream():
            file.write(chunk)
        return ""
    async with request.form(max_files=1, max_fields=4) as form:
        sent = form.get("file")
        if not isinstance(sent, UploadFile):
            raise Refused(Refusal(422, "no_file", "the form has no file; its field must be called `file`"))
        await asyncio.to_thread(shutil.copyfileobj, sent.file, file)
        return sent.filename or ""


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _worst(scores: list[Score]) -> int:
    return max(range(len(scores)), key=lambda i: (scores[i].anomalous is not None, scores[i].score))
