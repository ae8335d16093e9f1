"""The calendar of maintenance: times in which machines are heard, marked and not judged."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from nearfar.live.calendar import Maintenance
from nearfar.live.server import schemas
from nearfar.live.server.service import ERRORS, ServiceDep, caller_name

router = APIRouter(prefix="/v1/maintenance", tags=["maintenance"], responses=ERRORS)


@router.get("", operation_id="listMaintenance")
def listed(service: ServiceDep) -> schemas.MaintenanceList:
    """All times of maintenance; those with the id 0 stand in plant.toml."""
    return schemas.MaintenanceList(maintenance=[_shown(entry) for entry in service.plant.calendar.entries])


@router.post("", operation_id="addMaintenance")
def add(service: ServiceDep, request: Request, body: schemas.NewMaintenance) -> schemas.Maintenance:
    """Add a time of maintenance, once or every week; audited for each machine."""
    entry = service.plant.add_maintenance(body.when, body.machines, body.why, caller_name(request, body.who))
    return _shown(entry)


@router.delete("/{id}", operation_id="deleteMaintenance")
def delete(
    service: ServiceDep, request: Request, id: Annotated[int, Path(ge=1, le=2**53)], who: schemas.Who = ""
) -> schemas.Maintenance:
    """Remove a time of maintenance that was added; audited for each machine."""
    return _shown(service.plant.remove_maintenance(id, caller_name(request, who)))


def _shown(entry: Maintenance) -> schemas.Maintenance:
    return schemas.Maintenance(id=entry.id, when=entry.when, machines=list(entry.machines), why=entry.why)
