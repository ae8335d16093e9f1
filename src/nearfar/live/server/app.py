"""The server: REST, dashboard and metrics over one plant (FastAPI). Each part is a file of its own.

    /  /machine/{id}  /event/{id}  /model/{id}  /health       the dashboard        /v1/...      the API
    /healthz  /readyz  /metrics                               for other systems    /openapi.json

Every error has one shape, `{"error": code, "message": sentence, "status": number}`.
"""

from __future__ import annotations

import mimetypes
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from nearfar.live.plant import Plant
from nearfar.live.server.decode import Decoder
from nearfar.live.server.limits import Limits, Refused, RequestGuard, error_of
from nearfar.live.server.security import Access, Refusal

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import Response

ABOUT = """Scores of machines' sounds, alarms, and what people say of them.

Scores are in standard deviations of a machine's normal recordings; higher is more anomalous. Times are seconds since
1970 (UTC). Send `Authorization: Bearer TOKEN` where the server has a token. Errors: `{error, message, status}`."""
NEEDED = "a server needs fastapi, an extra: pip install 'nearfar[serve]'"
CODES = {404: "not_found", 405: "wrong_method"}


def make_app(
    plant: Plant,
    access: Access | None = None,
    *,
    limits: Limits | None = None,
    decoder: Decoder | None = None,
    metrics: Callable[[], bytes] | None = None,
    dropped: Callable[[], int] | None = None,
    troubles: Callable[[], list[str]] | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The ASGI application over a plant. `access` without a token is for this computer alone (see `security`).

    `metrics()` is the text for Prometheus, `dropped()` the number of windows that were not scored in time, `troubles()`
    why nothing comes from sources. Raises ImportError without the extra `serve`.
    """
    try:
        import python_multipart  # noqa: F401
        from fastapi import FastAPI
        from fastapi.staticfiles import StaticFiles
    except ImportError:
        raise ImportError(NEEDED) from None
    from importlib.metadata import version

    from nearfar.live.server import events, machines, pages, sounds, status, uploads
    from nearfar.live.server.service import Service
    from nearfar.live.server.stream import Stream

    access, limits = access or Access(), limits or Limits()
    service = Service(plant, access, limits, decoder or Decoder(), Stream(f"{clock():.0f}"), clock, metrics)
    service.dropped, service.troubles = dropped or service.dropped, troubles or service.troubles

    app = FastAPI(
        title="nearfar", version=version("nearfar"), description=ABOUT, docs_url=None, redoc_url=None, lifespan=_life
    )
    app.state.service = service
    for part in (status, machines, uploads, events, sounds, pages):
        app.include_router(part.router)
    mimetypes.add_type("text/javascript", ".js")  # Windows may say text/plain, which browsers then refuse
    app.mount("/static", StaticFiles(directory=pages.STATIC))
    _errors(app)
    app.add_middleware(RequestGuard, access=access, limits=limits, clock=clock)
    return app


@asynccontextmanager
async def _life(app: Any) -> AsyncIterator[None]:
    yield
    app.state.service.close()


def _errors(app: FastAPI) -> None:
    """One shape for all errors; a page that is not there is one for people."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    from nearfar.live.server.pages import page

    async def refused(_: Request, error: Any) -> Response:
        return _answer(error.refusal)

    async def gone(_: Request, error: Any) -> Response:  # nobody reads it, but it is no fault of ours for the log
        return _answer(Refusal(400, "gone", "the sender has gone before all of it had come"))

    async def invalid(_: Request, error: Any) -> Response:
        said = [f"{'.'.join(str(p) for p in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in error.errors()[:5]]
        return _answer(Refusal(422, "invalid", "; ".join(said)))

    async def http(request: Request, error: Any) -> Response:
        code = error.status_code
        if code == 404 and "text/html" in request.headers.get("accept", "") and request.method == "GET":
            return page(request.app.state.service, 404)
        return _answer(Refusal(code, CODES.get(code, "bad_request"), str(error.detail)), error.headers)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _answer(refusal: Refusal, headers: Any = None) -> Response:
    from fastapi.responses import JSONResponse

    retry = {} if refusal.retry_after_s is None else {"retry-after": str(max(1, round(refusal.retry_after_s)))}
    return JSONResponse(error_of(refusal), refusal.status, {**(headers or {}), **retry})
