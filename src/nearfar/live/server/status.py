"""Whether the server is alive and ready, its metrics, its health, and the stream of live events.

/healthz   the process answers            needs no token, gives nothing else
/readyz    it can score and record        the same
/metrics   for Prometheus                 needs the token if there is one (`authorization` in Prometheus' config)
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nearfar.live.language import reader
from nearfar.live.server import schemas
from nearfar.live.server.errors import COME_BACK_S, HttpError
from nearfar.live.server.serializers import machine_state, next_report
from nearfar.live.server.service import ERRORS, Service, ServiceDep

Responses = dict[int | str, dict[str, Any]]

router = APIRouter(tags=["server"], responses=ERRORS)
EVENTS: Responses = {
    200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
UNBUFFERED = {"x-accel-buffering": "no"}  # nginx would keep events back until some kilobytes have come
TEXT: Responses = {200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/healthz", operation_id="isAlive")
def alive() -> schemas.Ready:
    """The process answers."""
    return schemas.Ready(status="ok")


@router.get("/readyz", operation_id="isReady")
def ready(service: ServiceDep) -> schemas.Ready:
    """The process can score and record."""
    if service.plant.history.problem:
        raise HttpError(503, "not_ready", "scores cannot be recorded; /v1/health says why", COME_BACK_S)
    return schemas.Ready(status="ok")


@router.get("/metrics", operation_id="getMetrics", response_class=Response, responses=TEXT)
def metrics(service: ServiceDep) -> Response:
    """Metrics in the Prometheus text format."""
    if service.metrics is None:
        raise HttpError(501, "no_metrics", 'metrics need an extra: pip install "nearfar[serve]"')
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/health", operation_id="getHealth")
def health(service: ServiceDep) -> schemas.ServerHealth:
    """The server and its microphones."""
    plant, monitor = service.plant, service.monitor
    size, free = service.disk()
    of_sources = [] if monitor is None else monitor.problems()
    problems = [plant.history.problem, *of_sources, *(sink.problem for sink in plant.sinks)]
    return schemas.ServerHealth(
        version=version("nearfar"),
        started=service.started,
        problems=[text for text in problems if text],
        machines=[machine_state(plant, id) for id in plant.machines],
        windows=service.stream.windows,
        dropped=0 if monitor is None else monitor.dropped,
        history_bytes=size,
        free_bytes=free,
        uploads_now=service.slots.in_use,
        decoders_replaced=service.decoder.replaced,
        listeners=service.stream.listeners,
        report=None if plant.reports is None else next_report(plant.reports, set_here=service.reports.is_set),
    )


@router.get("/v1/stream", operation_id="followEvents", response_class=StreamingResponse, responses=EVENTS)
async def stream(service: ServiceDep, last_event_id: Annotated[str | None, Header(max_length=100)] = None) -> Response:
    """`score`, `state`, `event` and `audit` messages as they happen, from Last-Event-ID on.

    `resync` means that some messages are lost: request everything again.
    """
    return EventStream(service, last_event_id)


class EventStream(StreamingResponse):
    """The live events after `last_id`; has a place among the pages that follow while it is sent."""

    def __init__(self, service: Service, last_id: str | None) -> None:
        events = service.stream.listen(last_id, reader.get())
        super().__init__(events, media_type="text/event-stream", headers=UNBUFFERED)
        self.place = service.stream.place(service.limits.listeners)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        with self.place:
            await super().__call__(scope, receive, send)
