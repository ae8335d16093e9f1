"""The calendar of maintenance: times in which machines are heard, marked and not judged."""

from __future__ import annotations

from fastapi import APIRouter

from nearfar.live.server import schemas
from nearfar.live.server.service import ERRORS, By, CallerDep, Id, ServiceDep

router = APIRouter(prefix="/v1/maintenance", tags=["maintenance"], responses=ERRORS)


@router.get("", operation_id="listMaintenance")
def listed(service: ServiceDep) -> schemas.MaintenanceList:
    """All times of maintenance; those with the id 0 stand in plant.toml."""
    return schemas.MaintenanceList(maintenance=[schemas.Maintenance.of(e) for e in service.plant.calendar.entries])


@router.post("", operation_id="addMaintenance")
def add(service: ServiceDep, by: By, body: schemas.NewMaintenance) -> schemas.Maintenance:
    """Add a time of maintenance, once or every week; audited for each machine."""
    entry = service.plant.add_maintenance(body.when, body.machines, body.why, by(body.who))
    return schemas.Maintenance.of(entry)


@router.delete("/{id}", operation_id="deleteMaintenance")
def delete(service: ServiceDep, id: Id, who: CallerDep) -> schemas.Maintenance:
    """Remove a time of maintenance that was added; audited for each machine."""
    return schemas.Maintenance.of(service.plant.remove_maintenance(id, who))
