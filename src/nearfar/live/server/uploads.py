"""Recordings that are sent to the server: scored, explained, or added to the normals of a machine.

    wait for a slot (`limits.UploadSlots`) -> receive -> decode (`decode`) -> score, explain or add -> answer

The body is written to a temporary file as it arrives. It can be

    multipart/form-data, field `file`            curl -F file=@0815.wav
    audio/wav, audio/flac, audio/ogg             curl --data-binary @0815.wav -H 'Content-Type: audio/wav'
    application/octet-stream with ?pcm=s16le&rate=16000&channels=2     raw samples, interleaved, near first
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from nearfar.audio import Clip
from nearfar.live.machine import Machine
from nearfar.live.server import schemas
from nearfar.live.server.decode import HEADER, display_name, wav_header
from nearfar.live.server.errors import HttpError
from nearfar.live.server.playback import nearest_clips
from nearfar.live.server.serializers import audit_entry, explanation, recording_score
from nearfar.live.server.service import ERRORS, CallerDep, MachineDep, Service, ServiceDep
from nearfar.score import severity, worst_window
from nearfar.support.words import plural

Value = TypeVar("Value")
FORM = "multipart/form-data"
MOST_PARTS, LONGEST_HEADER = 100, 8192  # of a form
BINARY = {"type": "string", "format": "binary"}
KINDS = ("audio/wav", "audio/x-wav", "audio/flac", "audio/ogg", "audio/mpeg", "application/octet-stream")
BODY = {
    "requestBody": {
        "required": True,
        "description": "A WAV, FLAC, OGG or MP3 file, as the field `file` of a form or as the body itself; or raw "
        "samples with `pcm`, `rate` and `channels`. Near is the first channel and far the second, unless the model "
        "says otherwise.",
        "content": {
            FORM: {"schema": {"type": "object", "required": ["file"], "properties": {"file": BINARY}}},
            **{kind: {"schema": BINARY} for kind in KINDS},
        },
    }
}

router = APIRouter(prefix="/v1/machines/{id}", tags=["recordings"], responses=ERRORS)


@dataclass(frozen=True)
class BodyFormat:
    """What the query says about the body."""

    name: Annotated[str, Query(max_length=300, description="The name in the answer; a form has the file's name.")] = ""
    pcm: Annotated[Literal["s16le", "f32le"] | None, Query(description="The body is raw samples of this type.")] = None
    rate: Annotated[int, Query(ge=1000, le=384_000, description="Sample rate of raw samples in Hz.")] = 16_000
    channels: Annotated[int, Query(ge=1, le=16, description="Channels of raw samples, interleaved.")] = 2


FormatDep = Annotated[BodyFormat, Depends()]


@dataclass(frozen=True)
class Upload:
    """A received recording: a temporary file of the server, and the sender's name for it."""

    path: Path
    name: str

    def clips(self, service: Service, machine: Machine) -> Iterator[Clip]:
        """The windows of the recording, decoded in a process of its own, one at a time."""
        detector = machine.detector
        return service.decoder.clips(
            self.path,
            self.name,
            near=detector.near,
            far=detector.far,
            window_s=detector.window_s,
            whole_s=detector.whole_s,
        )

    def counted(self, service: Service, machine: Machine) -> tuple[Iterator[Clip], float]:
        """The windows, and the seconds of all of them; a long recording is decoded twice for that."""
        clips = self.clips(service, machine)
        first = [clip for clip in (next(clips, None), next(clips, None)) if clip is not None]
        if len(first) < 2:
            return iter(first), sum(clip.seconds for clip in first)
        return self.clips(service, machine), sum(clip.seconds for clip in chain(first, clips))


@router.post("/score", operation_id="scoreRecording", openapi_extra=BODY)
async def score(
    service: ServiceDep, request: Request, machine: MachineDep, body_format: FormatDep, who: CallerDep
) -> schemas.RecordingScore:
    """Score a recording; the result is the same, bit for bit, as that of `nearfar score`.

    A machine without a source hears it: its windows come into the history, and raise alarms. For a machine with a
    source the audit keeps the result.
    """
    id = machine.id

    def work(upload: Upload) -> schemas.RecordingScore:
        scores = list(service.plant.hear(id, *upload.counted(service, machine), name=upload.name))
        answer = recording_score(id, scores, worst_window(scores, upload.name))
        if machine.streamed:
            about = {"file": upload.name, "score": answer.score, "status": answer.status}
            service.broadcast(service.plant.operator.audit(who, id, "score", **about))
        return answer

    return await on_upload(service, request, body_format, work)


@router.post("/explain", operation_id="explainRecording", openapi_extra=BODY)
async def explain(
    service: ServiceDep, request: Request, machine: MachineDep, body_format: FormatDep
) -> schemas.Explanation:
    """Explain where and why a recording differs from the normals; of a long one, its most unusual window."""

    def work(upload: Upload) -> schemas.Explanation:
        detector = machine.detector
        scored = ((detector.score_clip(clip), clip) for clip in upload.clips(service, machine))
        explained = detector.explain(max(scored, key=lambda pair: severity(pair[0]))[1])
        return explanation(explained, machine.id, nearest_clips(explained, detector))

    return await on_upload(service, request, body_format, work)


@router.post("/add", operation_id="addNormals", openapi_extra=BODY)
async def add(
    service: ServiceDep,
    request: Request,
    machine: MachineDep,
    body_format: FormatDep,
    who: CallerDep,
    domain: Annotated[
        Literal["source", "target"], Query(description="source: the usual operating mode; target: a new one.")
    ] = "source",
) -> schemas.Added:
    """Add a recording to the normals of a machine, without fitting the others again; audited, and can be undone."""

    def work(upload: Upload) -> schemas.Added:
        clips = list(upload.clips(service, machine))
        audit = service.plant.operator.add_normals(machine.id, clips, domain, who)
        service.broadcast(audit)
        count = len(audit.detail["files"])
        return schemas.Added(
            added=count,
            normals=len(machine.detector.normals),
            audit_id=audit.id,
            message=f"{plural(count, 'recording')} added to the normals of {machine.name}.",
            note=audit_entry(audit).note,
        )

    return await on_upload(service, request, body_format, work)


async def on_upload(
    service: Service, request: Request, body_format: BodyFormat, work: Callable[[Upload], Value]
) -> Value:
    """Wait for a slot, receive the body, and do the work on it in a worker thread; the file is then deleted."""
    if body_format.pcm is None and not _content_type(request).startswith(("audio/", FORM)):
        text = f"send a file as {FORM} or audio/wav, or raw samples with ?pcm=s16le&rate=16000&channels=2"
        raise HttpError(415, "wrong_kind", text)
    async with service.slots.slot():
        handle, name = tempfile.mkstemp(prefix="nearfar-")  # readable by this user alone
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                form_name = await _receive(request, body_format, file)
            return await service.run(work, Upload(path, display_name(body_format.name or form_name)))
        finally:
            path.unlink(missing_ok=True)


async def _receive(request: Request, body_format: BodyFormat, file: IO[bytes]) -> str:
    """Write the body to `file`, raw samples after a WAV header; returns the name that a form gives, or ""."""
    if body_format.pcm:
        file.seek(HEADER)
    form = _FormFile(request.headers["content-type"], file) if _content_type(request) == FORM else None

    async for chunk in request.stream():
        (file if form is None else form).write(chunk)
    name = "" if form is None else form.end()
    if body_format.pcm:
        header = wav_header(body_format.pcm, body_format.rate, body_format.channels, max(0, file.tell() - HEADER))
        file.seek(0)
        file.write(header)
    return name


class _FormFile:
    """Writes the field `file` of a multipart form to `out` while the form arrives; other fields are skipped."""

    def __init__(self, content_type: str, out: IO[bytes]) -> None:
        self.out, self.name = out, ""
        self._has_file = self._in_file = self._complete = False
        self._header, self._value, self._parts = b"", b"", 0
        try:
            self._parser = MultipartParser(
                parse_options_header(content_type)[1].get(b"boundary", b""),
                {
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise HttpError(400, "bad_form", f"the form cannot be read: {error}") from None

    def write(self, chunk: bytes) -> None:
        """Parse a piece of the form."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise HttpError(400, "bad_form", f"the form cannot be read: {error}") from None
        if len(self._header) + len(self._value) > LONGEST_HEADER:
            raise HttpError(400, "bad_form", f"a header of the form has more than {LONGEST_HEADER:,} bytes")

    def end(self) -> str:
        """Check that the form was complete and had a file (else HttpError); returns the name of the file."""
        if not self._complete:
            raise HttpError(400, "bad_form", "the form is cut off: its closing boundary is missing")
        if not self._has_file:
            raise HttpError(422, "no_file", "the form has no file; its field must be called `file`")
        return self.name

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            if options.get(b"name") == b"file" and b"filename" in options:
                if self._has_file:
                    raise HttpError(400, "bad_form", "the form has two files; send each in a request of its own")
                self._has_file = self._in_file = True
                self.name = options[b"filename"].decode("utf-8", "replace")
        self._header, self._value = b"", b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.out.write(data[start:end])

    def _on_part_end(self) -> None:
        self._in_file = False
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise HttpError(400, "bad_form", f"the form has more than {MOST_PARTS} fields; it needs one, `file`")

    def _on_end(self) -> None:
        self._complete = True


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
