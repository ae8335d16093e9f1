"""The server of one plant: API, dashboard and metrics (FastAPI). Each group of routes is a file of its own.

    /  /machine/{id}  /event/{id}  /model/{id}  /health       the dashboard        /v1/...      the API
    /healthz  /readyz  /metrics                               for other systems    /openapi.json

Errors: see `errors`.
"""

from __future__ import annotations

import mimetypes
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nearfar.live.plant import Plant
from nearfar.live.server.decode import Decoder
from nearfar.live.server.errors import PLANT_ERRORS, HttpError, http_error
from nearfar.live.server.limits import LOG, Limits, RequestGuard
from nearfar.live.server.security import Access

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import Response

    from nearfar.live.monitor import Monitor
    from nearfar.live.roster import Roster
    from nearfar.live.sinks.prometheus import Metrics

ABOUT = """Anomaly scores of machine sounds, alarms, and what people answer to them.

Scores are in standard deviations of a machine's normal recordings; higher is more anomalous. Times are seconds since
1970 (UTC), and beside them in ISO 8601; queries take both. Send `Authorization: Bearer TOKEN` if the server has a
token. Errors: `{code, message, status}`. Texts for people are in the language of `Accept-Language`, else in English."""
NEEDS_FASTAPI = 'a server needs fastapi, an extra: pip install "nearfar[serve]"'
OPEN_PATHS = ("/healthz", "/readyz")
CODES = {404: "not_found", 405: "wrong_method"}


def make_app(
    plant: Plant,
    access: Access | None = None,
    *,
    limits: Limits | None = None,
    decoder: Decoder | None = None,
    metrics: Metrics | None = None,
    monitor: Monitor | None = None,
    roster: Roster | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The ASGI application over a plant. `access` without a token is for this computer alone (see `security`).

    `metrics` are the numbers for Prometheus. `monitor` knows why sources give no sound. `roster` adds and removes
    machines; without it the plant stays as it is.
    Raises ImportError without the extra `serve`.
    """
    try:
        import python_multipart  # noqa: F401
        from fastapi import FastAPI
        from fastapi.staticfiles import StaticFiles
    except ImportError:
        raise ImportError(NEEDS_FASTAPI) from None
    from nearfar.live.server import (
        channels,
        events,
        machines,
        maintenance,
        pages,
        reports,
        setup,
        sounds,
        status,
        uploads,
    )
    from nearfar.live.server.service import Service

    access, limits = access or Access(), limits or Limits()
    app = FastAPI(
        title="nearfar",
        version=version("nearfar"),
        description=ABOUT,
        docs_url=None,
        servers=[{"url": access.root or "/"}],
        redoc_url=None,
        lifespan=_lifespan,
    )
    service = app.state.service = Service(
        plant, access, limits, decoder or Decoder(), clock=clock, metrics=metrics, monitor=monitor, roster=roster
    )
    for part in (status, setup, machines, uploads, events, sounds, channels, maintenance, reports, pages):
        app.include_router(part.router)
    mimetypes.add_type("text/javascript", ".js")  # Windows may say text/plain, which browsers then refuse
    app.mount("/static", StaticFiles(directory=pages.STATIC))
    _describe_access(app, access)
    _answer_errors(app)
    app.add_middleware(RequestGuard, access=access, limits=limits, refusals=service.refusals, clock=clock)
    return app


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    yield
    app.state.service.close()


def _describe_access(app: FastAPI, access: Access) -> None:
    """Name the bearer token in the OpenAPI document, and the calls that need none; without tokens it is optional."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}] if access.tokens else [{}, {"token": []}]
        for path in OPEN_PATHS:
            document["paths"][path]["get"]["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _answer_errors(app: FastAPI) -> None:
    """Give all errors one body; a browser gets a page instead of a bare 404."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    from nearfar.live.server.pages import page

    def answer(error: HttpError, headers: Any = None) -> Response:
        return JSONResponse(error.body, error.status, {**(headers or {}), **error.headers})

    async def refused(_: Request, error: Any) -> Response:
        return answer(error)

    async def failed_in_plant(request: Request, error: Any) -> Response:
        if isinstance(error, OSError):
            LOG.error("%s %r could not use the disk: %s", request.method, request.url.path, error)
        return answer(http_error(error))

    async def disconnected(_: Request, error: Any) -> Response:  # nobody reads it, but it keeps the log clean
        return answer(HttpError(400, "gone", "the connection ended before the whole request had arrived"))

    async def invalid(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        is_json = "json" in request.headers.get("content-type", "").lower()
        if first["loc"] == ("body",) and first["type"] != "missing" and not is_json:
            return answer(HttpError(415, "wrong_kind", "send the body as JSON, with Content-Type: application/json"))
        texts = [f"{'.'.join(str(p) for p in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in error.errors()[:5]]
        return answer(HttpError(422, "invalid", "; ".join(texts)))

    async def http(request: Request, error: Any) -> Response:
        code, text = error.status_code, str(error.detail)
        if code == 404 and "text/html" in request.headers.get("accept", "") and request.method == "GET":
            return page(request.app.state.service, request, 404)
        if code == 404 and text == "Not Found":
            text = f"there is nothing at {request.url.path!r}; what there is: {request.scope['root_path']}/openapi.json"
        headers = dict(error.headers or {})
        if code == 405:
            headers = {"allow": _methods(request, headers.get("Allow", "GET"))}
        return answer(HttpError(code, CODES.get(code, "bad_request"), text), headers)

    own = {HttpError: refused, ClientDisconnect: disconnected, RequestValidationError: invalid, HTTPException: http}
    for kind, handler in {**dict.fromkeys(PLANT_ERRORS, failed_in_plant), **own}.items():
        app.add_exception_handler(kind, handler)


def _methods(request: Request, known: str) -> str:
    """The methods that the API has at the address of a request, HEAD with GET; else those that are `known`."""
    path = request.scope["path"].removeprefix(request.scope["root_path"]).split("/")
    found: set[str] = set()
    for template, calls in request.app.openapi()["paths"].items():
        parts = template.split("/")
        if len(parts) == len(path) and all(a == b or a[:1] == "{" for a, b in zip(parts, path, strict=True)):
            found |= {method.upper() for method in calls}
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found)) or known
