"""The dashboard: one HTML page for all screens, each with its own address, and the login.

Both are templates: `{{section.name}}` is a text of texts/LANGUAGE/pages.json, which the scripts of the page get whole.
The reader's language is that of a cookie, which `?language=de` sets, else that of the browser.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from nearfar.live.language import COOKIE as LANGUAGE_COOKIE
from nearfar.live.language import catalogue, languages, reader
from nearfar.live.server.security import COOKIE, local_path
from nearfar.live.server.service import Service, ServiceDep

STATIC = Path(__file__).parents[1] / "static"
SCREENS = ("/", "/machine/{id}", "/event/{id}", "/model/{id}", "/health", "/guide", "/setup", "/setup/{id}")
PAGE_HEADERS = {"referrer-policy": "same-origin"}  # with no-referrer, forms would be sent without their origin
YEAR_S = 365 * 86400

router = APIRouter(include_in_schema=False)


def page(service: Service, request: Request, status: int = 200) -> Response:
    """The HTML of every screen; its scripts request the content."""
    texts = json.dumps(catalogue("pages", reader.get()), ensure_ascii=False, separators=(",", ":"))
    session = ' data-session="1"' if service.access.tokens else ""
    return _page("page.html", service, request, status, texts=texts.replace("<", "\\u003c"), session=session)


def screen(service: ServiceDep, request: Request) -> Response:
    """One of SCREENS."""
    return page(service, request)


for address in SCREENS:
    router.add_api_route(address, screen)


@router.get("/login")
def login_page(service: ServiceDep, request: Request, next: str = "/") -> Response:
    """The form for the token."""
    root = service.access.root
    if not service.access.tokens:
        return RedirectResponse(f"{root}/", 303)
    return _page("login.html", service, request, next=local_path(next, root), message="")


@router.post("/login")
async def login(service: ServiceDep, request: Request) -> Response:
    """Start a session, if the token is right."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    access = service.access
    to, token = local_path(form.get("next", ["/"])[0], access.root), access.token(form.get("token", [""])[0])
    if token is None:
        service.refusals.note(request.client.host if request.client else "", "wrong token at /login")
        wrong = html.escape(catalogue("pages", reader.get())["login"]["wrong"])
        message = f'<p class="panel trouble" role="alert">{wrong}</p>'
        return _page("login.html", service, request, 401, next=to, message=message)
    answer = RedirectResponse(to, 303)
    answer.headers["set-cookie"] = access.cookie(token, service.clock(), secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout(service: ServiceDep) -> Response:
    """End the session."""
    answer = RedirectResponse(f"{service.access.root}/login", 303)
    answer.delete_cookie(COOKIE, path=f"{service.access.root}/", httponly=True, samesite="strict")
    return answer


def _page(
    name: str, service: Service, request: Request, status: int = 200, *, next: str = "", **parts: str
) -> Response:
    """A template with `parts` in the reader's language, or the way to itself once another one was chosen."""
    root, language = service.access.root, reader.get()
    path = local_path(request.scope["path"], root)
    query = {"next": next} if next else {}
    chosen = request.query_params.get("language", "")
    if chosen in languages():
        again = f"?{urlencode(query)}" if query else ""
        answer = RedirectResponse(path + again, 303)
        answer.set_cookie(LANGUAGE_COOKIE, chosen, YEAR_S, path=f"{root}/", httponly=True, samesite="lax")
        return answer
    links = []
    for each in languages():
        address = html.escape(f"{path}?{urlencode({**query, 'language': each})}")
        current = ' aria-current="true"' if each == language else ""
        own_name = html.escape(catalogue("pages", each)["language"]["name"])
        links.append(f'<a href="{address}" lang="{each}" hreflang="{each}"{current}>{own_name}</a>')
    parts |= {"root": root, "next": html.escape(next), "language": language, "languages": " ".join(links)}

    def part(found: re.Match[str]) -> str:
        section, _, key = found[1].partition(".")
        return html.escape(catalogue("pages", language)[section][key]) if key else parts[section]

    text = (STATIC / name).read_text(encoding="utf-8")
    text = re.sub(r'(href|src|action)="/', rf'\1="{root}/', text)  # the links of the template begin at the root
    return HTMLResponse(re.sub(r"\{\{([\w.]+)\}\}", part, text), status, PAGE_HEADERS)
