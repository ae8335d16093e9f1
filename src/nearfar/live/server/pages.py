"""The dashboard: one HTML page for five screens, each with its own address, and the login."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from nearfar.live.server.security import COOKIE, local_path
from nearfar.live.server.service import Service, ServiceDep

STATIC = Path(__file__).parents[1] / "static"
SCREENS = ("/", "/machine/{id}", "/event/{id}", "/model/{id}", "/health")
WRONG = '<p class="panel trouble" role="alert">This is not the token of this server.</p>'
PAGE_HEADERS = {"referrer-policy": "same-origin"}  # with no-referrer, forms would be sent without their origin

router = APIRouter(include_in_schema=False)


def page(service: Service, status: int = 200) -> HTMLResponse:
    """The HTML of every screen; its scripts request the content."""
    text = (STATIC / "page.html").read_text(encoding="utf-8")
    if service.access.token:
        text = text.replace('<html lang="en">', '<html lang="en" data-session="1">')
    return HTMLResponse(text, status, PAGE_HEADERS)


def screen(service: ServiceDep) -> Response:
    """One of SCREENS."""
    return page(service)


for address in SCREENS:
    router.add_api_route(address, screen)


@router.get("/login")
def login_page(service: ServiceDep, next: str = "/") -> Response:
    """The form for the token."""
    return _login(local_path(next)) if service.access.token else RedirectResponse("/", 303)


@router.post("/login")
async def login(service: ServiceDep, request: Request) -> Response:
    """Start a session, if the token is right."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    to = local_path(form.get("next", ["/"])[0])
    if not service.access.is_token(form.get("token", [""])[0]):
        return _login(to, wrong=True)
    answer = RedirectResponse(to, 303)
    answer.headers["set-cookie"] = service.access.cookie(service.clock(), secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout() -> Response:
    """End the session."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _login(to: str, *, wrong: bool = False) -> Response:
    text = (STATIC / "login.html").read_text(encoding="utf-8")
    text = text.replace("<!-- message -->", WRONG if wrong else "")
    text = text.replace('name="next" value="/"', f'name="next" value="{html.escape(to)}"')
    return HTMLResponse(text, 401 if wrong else 200, PAGE_HEADERS)
