"""The dashboard: one page for five screens, each with its own address, and the login. Everything is in this package."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from nearfar.live.server.security import COOKIE, local_path
from nearfar.live.server.service import Here, Service

STATIC = Path(__file__).parents[1] / "static"
SCREENS = ("/", "/machine/{id}", "/event/{id}", "/model/{id}", "/health")
WRONG = '<p class="panel trouble" role="alert">That is not the token of this server.</p>'
SENT = {"referrer-policy": "same-origin"}  # with no-referrer a form would not say which origin it comes from

router = APIRouter(include_in_schema=False)


def page(here: Service, status: int = 200) -> HTMLResponse:
    """The shell of every screen; what it shows it asks for."""
    text = (STATIC / "page.html").read_text(encoding="utf-8")
    if here.access.token:
        text = text.replace('<html lang="en">', '<html lang="en" data-session="1">')
    return HTMLResponse(text, status, SENT)


def screen(here: Here) -> Response:
    """One of SCREENS."""
    return page(here)


for address in SCREENS:
    router.add_api_route(address, screen)


@router.get("/login")
def login_page(here: Here, next: str = "/") -> Response:
    """Where a browser gives the token."""
    return _login(local_path(next)) if here.access.token else RedirectResponse("/", 303)


@router.post("/login")
async def login(here: Here, request: Request) -> Response:
    """A session for the right token."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    to = local_path(form.get("next", ["/"])[0])
    if not here.access.right(form.get("token", [""])[0]):
        return _login(to, wrong=True)
    answer = RedirectResponse(to, 303)
    answer.headers["set-cookie"] = here.access.cookie(here.clock(), secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout() -> Response:
    """The end of a session."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _login(to: str, *, wrong: bool = False) -> Response:
    text = (STATIC / "login.html").read_text(encoding="utf-8")
    text = text.replace("<!-- message -->", WRONG if wrong else "")
    text = text.replace('name="next" value="/"', f'name="next" value="{html.escape(to)}"')
    return HTMLResponse(text, 401 if wrong else 200, SENT)
