"""Limits of the server (requests per second, bytes per request, uploads at once), and the guard that applies them.

    rate     a bucket of `burst` requests for each address, refilled at `per_s`
    size     checked by Content-Length before the body is read, or by counting a body without that header
    uploads  `at_once` are read and scored; `waiting` wait, their bodies unread; more get 503 and a Retry-After
    time     `body_s` for a body to arrive, from when it is first read, and `idle_s` for its next piece; then 408

`RequestGuard` handles every request before the application: it finds out who asks and in which language, applies the
rate limit, `security`, and the size limit. It answers HEAD, compresses text, adds the security headers to every answer,
and logs a failure of the application with the request that caused it.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nearfar.live.language import asked_for, reader
from nearfar.live.server.errors import COME_BACK_S, HttpError
from nearfar.live.server.security import HEADERS, Access
from nearfar.support.buckets import Buckets

LOG = logging.getLogger("nearfar.server")
MIB = 1 << 20
SHORTEST_GZIP = 1000  # bytes
SMALL = 64 << 10  # the most bytes of a request without a recording

Message = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Any]


@dataclass(frozen=True)
class Limits:
    """The limits; `logins` counts attempts per minute."""

    per_s: float = 100.0
    burst: int = 400
    logins: int = 10
    upload_bytes: int = 64 * MIB
    at_once: int = 8
    waiting: int = 256
    body_s: float = 60.0  # time for a body to arrive
    idle_s: float = 10.0  # time for the next piece of it
    listeners: int = 64


class Refusals:
    """Logins that were refused: counted in all, and logged a few times a minute for each address."""

    def __init__(
        self, on_refused: Callable[[], None] = lambda: None, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.count, self.on_refused, self.steady = 0, on_refused, steady
        self._lines = Buckets(1 / 60, 5)

    def note(self, address: str, why: str) -> None:
        """A login or a token was refused."""
        self.count += 1
        self.on_refused()
        if not self._lines.take(address, self.steady()):
            LOG.warning("refused a login from %s: %s (%d refused since the start)", address or "?", why, self.count)


class UploadSlots:
    """The places for uploads: `at_once` are worked on, `waiting` wait; further ones are refused."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self.most, self.in_use = at_once + waiting, 0
        self._working = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place, and keep it while an upload is read, decoded and scored; HttpError 503 if all are taken."""
        if self.in_use >= self.most:
            text = f"the server already has {self.most} recordings to work on; send this one again later"
            raise HttpError(503, "busy", text, COME_BACK_S)
        self.in_use += 1
        try:
            async with self._working:
                yield
        finally:
            self.in_use -= 1


class RequestGuard:
    """ASGI middleware around the application: checks requests, adds headers to answers, logs failures."""

    def __init__(
        self,
        app: Callable[..., Any],
        access: Access,
        limits: Limits,
        refusals: Refusals | None = None,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.access, self.limits, self.clock, self.steady = app, access, limits, clock, steady
        self.refusals = refusals or Refusals(steady=steady)
        self.requests = Buckets(limits.per_s, limits.burst)
        self.logins = Buckets(limits.logins / 60, limits.logins)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _joined(scope["headers"])
        if news := self.access.reread():
            LOG.warning("%s", news)
        scope, path = self._scope(scope, headers)
        reader.set(language := asked_for(headers))  # each request has a context of its own
        request_id = secrets.token_hex(4)
        send = _with_headers(send, request_id, language, cached=path.startswith("/static/"))
        if scope["method"] == "HEAD":
            scope["method"], send = "GET", _without_body(send)
        elif _takes_gzip(headers.get("accept-encoding", "")):
            send = _compressed(send)
        refusal = self._check(scope, path, headers)
        if refusal is not None:
            await answer(send, refusal, login=f"{self.access.root}/login" if _wants_page(scope, headers) else "")
            return
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, *_bounded(receive, send_noted, self._most(path), self.limits))
        except HttpError as error:
            if begun:
                raise
            await answer(send, error)
        except Exception as failure:
            LOG.error("request %s failed: %s %r", request_id, scope["method"], scope["path"], exc_info=failure)
            if begun:
                raise  # the connection is closed: half an answer cannot be taken back
            text = f"the server failed at this request; its log says why (request {request_id})"
            await answer(send, HttpError(500, "failed", text))

    def _scope(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> tuple[dict[str, Any], str]:
        """The request as its client sent it, through a proxy or not, and its path below the root of this server."""
        root, path = self.access.root, scope["path"]
        if path == root or path.startswith(f"{root}/"):  # the proxy has not taken it away
            path = path[len(root) :] or "/"
        peer, port = scope.get("client") or ("", 0)
        address, scheme = self.access.client(peer, headers)
        token = self.access.token_of(headers, self.clock())
        changed = {
            "path": root + path,
            "root_path": root,
            "client": (address, port),
            "scheme": scheme or scope.get("scheme", "http"),
            "token": token.name if token else "",
        }
        return {**scope, **changed}, path

    def _check(self, scope: dict[str, Any], path: str, headers: dict[str, str]) -> HttpError | None:
        """The reason to refuse a request, or None."""
        address, method = scope["client"][0], scope["method"]
        sender = _sender(address)
        wait = self.requests.take(sender, self.steady())
        if not wait and path == "/login" and method == "POST":
            wait = self.logins.take(sender, self.steady())
            if wait:
                self.refusals.note(address, "too many attempts at /login")
        if wait:
            return HttpError(429, "too_many", "too many requests from this address; wait and send it again", wait)
        error = self.access.check(method, path, headers, self.clock())
        if error is not None and error.status == 401 and headers.get("authorization"):
            self.refusals.note(address, "wrong token")
        if error is None and headers.get("content-encoding", "identity").lower() != "identity":
            return HttpError(415, "encoded", "the body is compressed; send it as it is, without Content-Encoding")
        if error is None and _length(headers) > self._most(path):
            return too_large(self._most(path))
        return error

    def _most(self, path: str) -> int:
        return self.limits.upload_bytes if path.endswith(("/score", "/explain", "/add", "/recordings")) else SMALL


def _bounded(receive: Receive, send: Send, most: int, limits: Limits) -> tuple[Receive, Send]:
    """`receive` and `send` of a request whose body has at most `most` bytes and arrives in time.

    Otherwise `receive` raises, and the answer is 413 or 408 whatever `send` is given.
    """
    size, until, complete = 0, math.inf, False
    refusal: HttpError | None = None

    async def bounded() -> Any:
        nonlocal size, until, complete, refusal
        if complete:  # what follows is the end of the connection
            return await receive()
        loop = asyncio.get_running_loop()
        until = min(until, loop.time() + limits.body_s)
        wait = min(until - loop.time(), limits.idle_s)
        try:
            message = await asyncio.wait_for(receive(), wait)
        except asyncio.TimeoutError:
            still, late = f"the body stood still for {wait:g} s", f"the body did not arrive within {limits.body_s:g} s"
            refusal = HttpError(408, "too_slow", still if wait == limits.idle_s else late)
            raise refusal from None
        size += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if size > most:
            refusal = too_large(most)
            raise refusal
        return message

    async def sending(message: Message) -> None:
        if refusal is None:
            await send(message)
        elif message["type"] == "http.response.start":
            await answer(send, refusal)

    return bounded, sending


def too_large(most: int) -> HttpError:
    """The error for a body beyond `most` bytes."""
    limit = f"{most / MIB:g} MiB" if most >= MIB else f"{most >> 10} KiB"
    return HttpError(413, "too_large", f"the request is larger than {limit}; send a shorter recording")


async def answer(send: Send, error: HttpError, *, login: str = "") -> None:
    """Send an error as JSON. A browser that asks for a page without a session is sent to `login` instead."""
    status, body = error.status, json.dumps(error.body).encode()
    headers = {"content-type": "application/json", **error.headers}
    if status == 401 and login:
        status, body, headers = 303, b"", {"location": login}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _sender(address: str) -> str:
    """Whose requests are counted together: an address, or the 64 bits of IPv6 that one network has all to itself."""
    try:
        known = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return address if known.ipv4_mapped else known.exploded[:19]


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of a request by their lower-case names; one that comes twice is a list (RFC 9110, 5.3)."""
    headers: dict[str, str] = {}
    for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs):
        between = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{between}{value}" if name in headers else value
    return headers


def _takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip, by its Accept-Encoding: "gzip;q=0" refuses it."""
    for part in accepted.lower().split(","):
        name, _, weight = part.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or not weight
    return False


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0


def _wants_page(scope: dict[str, Any], headers: dict[str, str]) -> bool:
    return scope["method"] == "GET" and "text/html" in headers.get("accept", "")


def _with_headers(send: Send, request_id: str, language: str, *, cached: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            own = HEADERS | {"cache-control": "no-cache" if cached else "no-store", "x-request-id": request_id}
            own |= {} if cached else {"content-language": language}
            new = [(k.encode(), v.encode()) for k, v in own.items() if k.encode() not in present]
            message["headers"] = [*message["headers"], *new]
        await send(message)

    return sending


def _without_body(send: Send) -> Send:
    """The answer to HEAD: the headers of GET, and the end of the answer with the first piece of its body."""
    ended = False

    async def sending(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})

    return sending


def _compressed(send: Send) -> Send:
    """The answer as gzip if it is text of some length in one piece; sounds, parts of sounds and streams stay as is."""
    start: Message | None = None

    async def sending(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"").partition(b";")[0]
            text = kind.startswith(b"text/") or kind == b"application/json"
            if message["status"] == 200 and text and kind != b"text/event-stream":
                start = message
                return
        elif start is not None:
            head, start, body = start, None, message.get("body", b"")
            head["headers"] = [*head["headers"], (b"vary", b"accept-encoding")]
            if len(body) >= SHORTEST_GZIP and not message.get("more_body", False):
                body = gzip.compress(body, 1, mtime=0)
                kept = [(k, v) for k, v in head["headers"] if k.lower() not in (b"content-length", b"accept-ranges")]
                own = [(b"content-encoding", b"gzip"), (b"content-length", str(len(body)).encode())]
                head["headers"] = [*kept, *own]
            await send(head)
            message = {**message, "body": body}
        await send(message)

    return sending
