"""The report of the plant, as a page to read, print and forward, or as an Excel workbook."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from nearfar.live.report.gather import SPANS, Expected, plant_report
from nearfar.live.report.pages import report_page
from nearfar.live.report.workbook import report_workbook
from nearfar.live.server.errors import HttpError
from nearfar.live.server.queries import Time
from nearfar.live.server.service import ERRORS, ServiceDep
from nearfar.support.times import local_time

router = APIRouter(tags=["server"], responses=ERRORS)
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report, as a file.",
        "content": {
            "text/html": {"schema": {"type": "string"}},
            XLSX: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/v1/report", operation_id="getReport", response_class=Response, responses=CONTENT)
def report(
    service: ServiceDep,
    span: Annotated[Literal["day", "week"], Query(description="The last 24 hours or 7 days.")] = "day",
    until: Time = None,
    machine: Annotated[str | None, Query(max_length=100, description="Only this machine, by its id.")] = None,
    form: Annotated[Literal["html", "xlsx"], Query(alias="format", description="A page or a workbook.")] = "html",
) -> Response:
    """What alarmed, what people said of it, the trend, the microphones' health, and what is promised and came."""
    plant = service.plant
    machines = plant.machines.values()
    expected = {m.id: Expected(m.name, m.false_alarms_per_week) for m in machines}
    end = service.clock() if until is None else until
    title = "Plant" if machine is None else service.machine(machine).name
    made = plant_report(plant.history, end, SPANS[span], title=title, expected=expected, only=machine)
    name = f"nearfar-{machine or 'plant'}-{span}-{local_time(end):%Y-%m-%d}.{form}"
    try:
        content = report_page(made) if form == "html" else report_workbook(made)
    except ImportError as error:
        raise HttpError(501, "not_installed", str(error)) from None
    if form == "html":
        headers = {"content-disposition": f'inline; filename="{name}"', "content-security-policy": POLICY}
        return Response(content, media_type="text/html", headers=headers)
    return Response(content, media_type=XLSX, headers={"content-disposition": f'attachment; filename="{name}"'})
