"""Fitting machines on folders of this computer: a job with progress that can be cancelled."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request

from nearfar.live.fitting import FitJob, Fitting
from nearfar.live.server import schemas
from nearfar.live.server.errors import HttpError
from nearfar.live.server.service import ERRORS, Service, ServiceDep, caller_name
from nearfar.support.words import shown

router = APIRouter(prefix="/v1", tags=["machines"], responses=ERRORS)
NOT_HERE = "machines are fitted at the computer that runs nearfar, started as `nearfar`; elsewhere, use nearfar fit"


@router.post("/machines", operation_id="fitMachine", status_code=202)
def fit(service: ServiceDep, request: Request, body: schemas.NewFit) -> schemas.Job:
    """Begin to fit a machine on a folder of this computer. It becomes live when the job is done, and not before."""
    folder, who = Path(body.folder.strip().strip('"')).expanduser(), caller_name(request, body.who)
    return _job(_fitting(service).start(body.id, folder, who, name=body.name.strip(), source=body.source.strip()))


@router.get("/jobs", operation_id="listJobs")
def jobs(service: ServiceDep) -> schemas.Jobs:
    """The jobs since the start, the newest first."""
    found = service.fitting.jobs() if service.fitting is not None else []
    return schemas.Jobs(possible=service.can_fit, jobs=[_job(job) for job in found])


@router.get("/jobs/{id}", operation_id="getJob")
def job(service: ServiceDep, id: int) -> schemas.Job:
    """How far a job is."""
    return _job(_fitting(service).job(id))


@router.delete("/jobs/{id}", operation_id="cancelJob")
def cancel(service: ServiceDep, id: int) -> schemas.Job:
    """Cancel a job; nothing of it is kept."""
    return _job(_fitting(service).cancel(id))


def _fitting(service: Service) -> Fitting:
    if service.fitting is None or not service.can_fit:
        raise HttpError(403, "not_here", NOT_HERE)
    return service.fitting


def _job(job: FitJob) -> schemas.Job:
    return schemas.Job(
        id=job.id,
        machine=job.machine,
        name=job.name,
        folder=shown(job.folder),
        state=job.state,
        done=job.done,
        total=job.total,
        what=job.what,
        notes=list(job.notes),
    )
