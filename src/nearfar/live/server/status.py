"""Is the server alive and ready, what does it measure, and what happens right now.

/healthz   it answers                            open to anybody who reaches the port; says nothing else
/readyz    it can score and record               the same
/metrics   for Prometheus                        needs the token where there is one (`authorization` in its config)
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse, StreamingResponse

from nearfar.live.server import schemas
from nearfar.live.server.limits import COME_BACK_S, Refused
from nearfar.live.server.security import Refusal
from nearfar.live.server.serializers import state
from nearfar.live.server.service import ERRORS, Here

Responses = dict[int | str, dict[str, Any]]

router = APIRouter(tags=["server"], responses=ERRORS)
NOT_READY: Responses = {503: {"model": schemas.Ready, "description": "It answers, but cannot record what it hears."}}
EVENTS: Responses = {
    200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
TEXT: Responses = {200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/healthz")
def alive() -> schemas.Ready:
    """The process answers."""
    return schemas.Ready(status="ok")


@router.get("/readyz", responses=NOT_READY)
def ready(here: Here) -> Response:
    """The process scores and records."""
    good = not here.plant.history.problem
    return JSONResponse({"status": "ok" if good else "not ready"}, 200 if good else 503)


@router.get("/metrics", response_class=Response, responses=TEXT)
def metrics(here: Here) -> Response:
    """Prometheus text format."""
    if here.metrics is None:
        raise Refused(Refusal(501, "no_metrics", "metrics need an extra: pip install 'nearfar[serve]'"))
    return Response(here.metrics(), media_type="text/plain; version=0.0.4")


@router.get("/v1/health")
def health(here: Here) -> schemas.ServerHealth:
    """The server and its microphones."""
    plant = here.plant
    held, free = here.disk()
    problems = [text for text in [plant.history.problem, *here.troubles(), *(s.problem for s in plant.sinks)] if text]
    return schemas.ServerHealth(
        version=version("nearfar"),
        started=here.started,
        problems=problems,
        machines=[state(plant, id) for id in plant.machines],
        windows=here.stream.windows,
        dropped=here.dropped(),
        history_bytes=held,
        free_bytes=free,
        uploads_now=here.door.came,
        decoders_replaced=here.decoder.replaced,
        listeners=here.stream.listeners,
    )


@router.get("/v1/stream", response_class=StreamingResponse, responses=EVENTS)
async def stream(here: Here, last_event_id: Annotated[str | None, Header(max_length=100)] = None) -> Response:
    """`score`, `state`, `event`, `audit` as they happen; goes on after Last-Event-ID, or says `resync`: ask anew."""
    if here.stream.listeners >= here.limits.listeners:
        text = f"{here.limits.listeners} pages look on already; close one"
        raise Refused(Refusal(503, "busy", text, COME_BACK_S))
    return StreamingResponse(here.stream.listen(last_event_id), media_type="text/event-stream")
