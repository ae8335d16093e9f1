"""Machines that are set up in the browser: their recordings, the microphones, and the jobs `doctor` and `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from nearfar.audio import Clip
from nearfar.errors import BadInput, NotFound
from nearfar.live.history.archive import gain_db
from nearfar.live.roster import check_sources
from nearfar.live.server import schemas
from nearfar.live.server.errors import HttpError
from nearfar.live.server.service import ERRORS, By, Service, ServiceDep
from nearfar.live.server.sounds import Playing, PlayingDep, file_route, sound
from nearfar.live.server.uploads import BODY, FormatDep, Upload, on_upload
from nearfar.live.setup.collection import Collection
from nearfar.live.setup.preparation import DOCTOR, FIT
from nearfar.live.sources.devices import devices
from nearfar.live.sources.streams import hide
from nearfar.support.files import expanded
from nearfar.support.words import shown

router = APIRouter(prefix="/v1", tags=["setup"], responses=ERRORS)
NOT_HERE = (
    "folders are named at the computer that runs nearfar, started as `nearfar`; elsewhere, drop files on the page"
)
File = Annotated[str, Query(max_length=1000, description="The recording, as the collection names it.")]


@router.get("/collections", operation_id="listCollections")
def collections(service: ServiceDep) -> schemas.Collections:
    """The machines that are set up here, and whether this server sets up machines."""
    made = service.preparation
    if made is None:
        return schemas.Collections(possible=False, here=False, collections=[])
    found = [_described(schemas.CollectionBrief, service, collection) for collection in made.collections.all()]
    return schemas.Collections(possible=True, here=made.here, collections=found)


@router.post("/machines", operation_id="createMachine", status_code=201)
def create(service: ServiceDep, body: schemas.NewCollection) -> schemas.Collection:
    """Begin to set up a machine: it has no recordings yet, and is live once it is fitted."""
    made = service.setup.create(body.id, body.name.strip())
    return collection(service, made.id)


@router.get("/machines/{id}/recordings", operation_id="getCollection")
def collection(service: ServiceDep, id: str) -> schemas.Collection:
    """The normal recordings of a machine that is set up, what doctor found in them, and what is under way."""
    setup = service.setup
    made = setup.collections.get(id)
    recordings = setup.collections.recordings(id)
    known = setup.collections.sessions(id, recordings)
    files = [
        schemas.Recording(
            file=r.name, session=session, left_out_by=made.left_out.get(r.name, ""), kept_by=made.kept.get(r.name, "")
        )
        for r, session in zip(recordings, known, strict=True)
    ]
    return _described(
        schemas.Collection,
        service,
        made,
        folder=shown(setup.collections.folder(id)),
        files=files,
        findings=setup.collections.findings(id),
        job=setup.jobs.of(id),
        microphone=setup.microphones.session(id),
        tested=setup.collections.test(id).is_file(),
    )


@router.put("/machines/{id}/recordings", operation_id="changeCollection")
def change(service: ServiceDep, by: By, id: str, body: schemas.CollectionChange) -> schemas.Collection:
    """Say where the recordings come from, throw some out or take them in again, or name their session."""
    setup, given = service.setup, body.model_dump(exclude_none=True, exclude={"who", "files", "keep", "session"})
    if given.get("folder"):
        if not setup.here:
            raise HttpError(403, "not_here", NOT_HERE)
        given["folder"] = str(expanded(given["folder"].strip().strip('"')))
    if "source" in given:
        given["source"] = tuple(name.strip() for name in given["source"] if name.strip())
        if not setup.here:
            check_sources(given["source"])
    if given:
        setup.collections.change(id, **given)
    if body.files:
        who = by(body.who)
        setup.collections.mark(id, body.files, who, keep=body.keep, session=body.session)
    return collection(service, id)


@router.post("/machines/{id}/recordings", operation_id="addRecording", openapi_extra=BODY)
async def add(
    service: ServiceDep,
    request: Request,
    id: str,
    body_format: FormatDep,
    test: Annotated[bool, Query(description="A test of the microphones: kept as the last test alone.")] = False,
) -> schemas.Taken:
    """Add a recording to those that a machine will be fitted on; it is written anew as FLAC, and is checked first."""
    setup = service.setup
    made = setup.collections.get(id)

    def work(upload: Upload) -> schemas.Taken:
        clips = _clips(service, made, upload.path, upload.name)
        return schemas.Taken.of(setup.collections.add(id, upload.name, clips, test=test))

    return await on_upload(service, request, body_format, work)


@file_route(router, "/machines/{id}/recordings/{channel}", "getRecordingSound")
def recording_sound(service: ServiceDep, id: str, play: PlayingDep, file: File) -> Response:
    """One channel of a recording, its first window if it is long."""
    setup = service.setup
    paths = {r.name: r.path for r in setup.collections.recordings(id)}
    if file not in paths:
        raise NotFound(f"there is no recording {file!r}")
    return _played(service, setup.collections.get(id), paths[file], file, play)


@file_route(router, "/machines/{id}/test/{channel}", "getTestSound")
def test_sound(service: ServiceDep, id: str, play: PlayingDep) -> Response:
    """One channel of the last test of the microphones."""
    made = service.setup.collections.get(id)
    path = service.setup.collections.test(id)
    if not path.is_file():
        raise NotFound(f"the microphones of {made.name} were not tested yet")
    return _played(service, made, path, "test", play)


@router.get("/microphones", operation_id="listMicrophones")
def microphones(service: ServiceDep) -> schemas.Microphones:
    """The microphones of the server's computer, as names of sources."""
    service.setup  # noqa: B018  403 where no machine is set up
    try:
        found = devices()
    except FileNotFoundError as error:
        return schemas.Microphones(devices=[], problem=str(error))
    return schemas.Microphones(devices=[schemas.Device.of(d) for d in found], problem="")


@router.post("/machines/{id}/microphone", operation_id="useMicrophone", status_code=202)
def use_microphone(service: ServiceDep, id: str, body: schemas.UseMicrophone) -> schemas.Session:
    """Listen to the microphones of the server's computer: levels alone, a test, or recordings; `microphone` messages
    of the stream tell how it goes on."""
    setup = service.setup
    made = setup.collections.get(id)
    if not made.source:
        raise BadInput(f"choose the microphone of {made.name} first")
    try:
        session = setup.microphones.start(
            id,
            made.source,
            setup.collections.folder(id),
            mono=made.mono,
            seconds=body.seconds,
            count=0 if body.what == "levels" else body.count,
            every_s=body.every_s,
            test=setup.collections.test(id) if body.what == "test" else None,
        )
    except (ImportError, ValueError, FileNotFoundError) as error:
        raise BadInput(hide(str(error))) from None
    return schemas.Session.of(session)


@router.delete("/machines/{id}/microphone", operation_id="stopMicrophone")
def stop_microphone(service: ServiceDep, id: str) -> schemas.Session:
    """Stop the microphones; what was recorded stays."""
    session = service.setup.microphones.stop(id)
    if session is None:
        raise NotFound(f"no microphone was in use for {id!r}")
    return schemas.Session.of(session)


@router.post("/machines/{id}/doctor", operation_id="checkRecordings", status_code=202)
def doctor(service: ServiceDep, by: By, id: str, body: schemas.ByWhom) -> schemas.Job:
    """Check the recordings as `nearfar doctor` does: a job; what was found is in the collection."""
    return schemas.Job.of(service.setup.start(DOCTOR, id, by(body.who)))


@router.post("/machines/{id}/fit", operation_id="fitMachine", status_code=202)
def fit(service: ServiceDep, by: By, id: str, body: schemas.ByWhom) -> schemas.Job:
    """Fit a machine on its recordings: a job. It is live when the job is done, and not before; a machine that is live
    already keeps its old detector beside the new one."""
    return schemas.Job.of(service.setup.start(FIT, id, by(body.who)))


@router.get("/jobs", operation_id="listJobs")
def jobs(service: ServiceDep) -> schemas.Jobs:
    """The jobs that are remembered, the newest first."""
    made = service.preparation
    return schemas.Jobs(jobs=[] if made is None else [schemas.Job.of(job) for job in made.jobs.all()])


@router.get("/jobs/{id}", operation_id="getJob")
def job(service: ServiceDep, id: int) -> schemas.Job:
    """How far a job is; `job` messages of the stream tell the same."""
    return schemas.Job.of(service.setup.jobs.job(id))


@router.delete("/jobs/{id}", operation_id="cancelJob")
def cancel(service: ServiceDep, id: int) -> schemas.Job:
    """Cancel a job; nothing of it is kept."""
    return schemas.Job.of(service.setup.jobs.cancel(id))


@router.post("/jobs/{id}/resume", operation_id="resumeJob", status_code=202)
def resume(service: ServiceDep, id: int) -> schemas.Job:
    """Begin a job again that was interrupted, has failed or was cancelled."""
    return schemas.Job.of(service.setup.jobs.resume(id))


def _described(body: type[schemas.Body], service: Service, made: Collection, **more: Any) -> schemas.Body:
    """A collection as a body of this kind, with what `more` says of it."""
    stock = service.setup.collections.stock(made.id)
    counts = {"recordings": stock.recordings, "sessions": stock.sessions, "left_out": len(made.left_out)}
    return body.of(made, **counts, missing=stock.missing, live=made.id in service.plant.machines, **more)


def _clips(service: Service, made: Collection, path: Path, name: str) -> Any:
    """The windows of a file, decoded in a process of its own, one at a time."""
    return service.decoder.clips(path, name, near=0, far=None if made.mono else 1, window_s=30.0)


def _played(service: Service, made: Collection, path: Path, name: str, play: Playing) -> Response:
    """A channel of a file, as loud as it can be unless `play` says how loud."""
    clips = iter(_clips(service, made, path, name))
    clip: Clip = next(clips)
    next(clips, None)  # lets the decoder end with a file of one window
    return sound(clip, play, play.gain_db or gain_db([clip]))
