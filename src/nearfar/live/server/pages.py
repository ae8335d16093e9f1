"""The dashboard: one HTML page for all screens, each with its own address, and the login."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from nearfar.live.server.security import COOKIE, local_path
from nearfar.live.server.service import Service, ServiceDep

STATIC = Path(__file__).parents[1] / "static"
SCREENS = ("/", "/machine/{id}", "/event/{id}", "/model/{id}", "/health", "/guide", "/setup", "/setup/{id}")
WRONG = '<p class="panel trouble" role="alert">This is not the token of this server.</p>'
PAGE_HEADERS = {"referrer-policy": "same-origin"}  # with no-referrer, forms would be sent without their origin

router = APIRouter(include_in_schema=False)


def page(service: Service, status: int = 200) -> HTMLResponse:
    """The HTML of every screen; its scripts request the content."""
    session = ' data-session="1"' if service.access.tokens else ""
    text = _template("page.html", service.access.root)
    text = text.replace('<html lang="en"', f'<html lang="en" data-root="{service.access.root}"{session}')
    return HTMLResponse(text, status, PAGE_HEADERS)


def screen(service: ServiceDep) -> Response:
    """One of SCREENS."""
    return page(service)


for address in SCREENS:
    router.add_api_route(address, screen)


@router.get("/login")
def login_page(service: ServiceDep, next: str = "/") -> Response:
    """The form for the token."""
    root = service.access.root
    return _login(root, local_path(next, root)) if service.access.tokens else RedirectResponse(f"{root}/", 303)


@router.post("/login")
async def login(service: ServiceDep, request: Request) -> Response:
    """Start a session, if the token is right."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    access = service.access
    to, token = local_path(form.get("next", ["/"])[0], access.root), access.token(form.get("token", [""])[0])
    if token is None:
        service.refusals.note(request.client.host if request.client else "", "wrong token at /login")
        return _login(access.root, to, wrong=True)
    answer = RedirectResponse(to, 303)
    answer.headers["set-cookie"] = access.cookie(token, service.clock(), secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout(service: ServiceDep) -> Response:
    """End the session."""
    answer = RedirectResponse(f"{service.access.root}/login", 303)
    answer.delete_cookie(COOKIE, path=f"{service.access.root}/", httponly=True, samesite="strict")
    return answer


def _template(name: str, root: str) -> str:
    """A page whose links begin at `root`."""
    text = (STATIC / name).read_text(encoding="utf-8")
    return re.sub(r'(href|src|action)="/', rf'\1="{root}/', text)


def _login(root: str, to: str, *, wrong: bool = False) -> Response:
    text = _template("login.html", root)
    text = text.replace("<!-- message -->", WRONG if wrong else "")
    text = text.replace('name="next" value="/"', f'name="next" value="{html.escape(to)}"')
    return HTMLResponse(text, 401 if wrong else 200, PAGE_HEADERS)
