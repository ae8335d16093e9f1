"""The report of the plant, as a page to read, print and forward, or as an Excel workbook."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from nearfar.live.language import asked_for
from nearfar.live.report.file import report_file
from nearfar.live.server import schemas
from nearfar.live.server.errors import HttpError
from nearfar.live.server.serializers import next_report
from nearfar.live.server.service import ERRORS, ServiceDep, Time, caller_name

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
    request: Request,
    span: Annotated[Literal["day", "week"], Query(description="The last 24 hours or 7 days.")] = "day",
    until: Time = None,
    machine: Annotated[str | None, Query(max_length=100, description="Only this machine, by its id.")] = None,
    form: Annotated[Literal["html", "xlsx"], Query(alias="format", description="A page or a workbook.")] = "html",
) -> Response:
    """What alarmed, what people said of it, the trend, the microphones' health, and what is promised and came.

    In the language of the request, else in that of the plant.
    """
    plant = service.plant
    language = asked_for(request.headers, plant.language)
    end = service.clock() if until is None else until
    title, only = ("", ()) if machine is None else (service.plant.machines[machine].name, (machine,))
    machines = plant.machines.values()
    try:
        _, name, content = report_file(
            plant.history, machines, end, span, form, title=title, only=only, language=language
        )
    except ImportError as error:
        raise HttpError(501, "not_installed", str(error)) from None
    headers = {"content-language": language}
    if form == "html":
        headers |= {"content-disposition": f'inline; filename="{name}"', "content-security-policy": POLICY}
        return Response(content, media_type="text/html", headers=headers)
    headers |= {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=XLSX, headers=headers)


@router.put("/v1/report/schedule", operation_id="scheduleReport")
def schedule(service: ServiceDep, request: Request, body: schemas.NewReport) -> schemas.NextReport:
    """Set the report that comes by itself, from now on; audited, and kept when the server starts again."""
    table = body.model_dump(exclude={"who"})
    return next_report(service.reports.put(table, caller_name(request, body.who)), set_here=True)


@router.delete("/v1/report/schedule", operation_id="endReports")
def end(service: ServiceDep, request: Request, who: schemas.Who = "") -> schemas.NextReport:
    """Take back the report that was set here; audited."""
    return next_report(service.reports.remove(caller_name(request, who)), set_here=False)
