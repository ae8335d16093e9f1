"""How much anyone may ask of the server: requests a second, bytes a request, uploads at once; and the gate in front.

    rate     a bucket of `burst` requests for each address, filled again at `per_s`
    size     by Content-Length before a byte of the body is read, by counting where there is none
    uploads  `at_once` are read and scored, `waiting` wait unread (their senders feel it), more are told to come back

`RequestGuard` stands in front of every request: it asks `security` first, then these, and puts the headers on every
answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nearfar.live.server.security import HEADERS, Access, Refusal

MIB = 1 << 20
SMALL = 64 << 10  # bytes of a request that is no recording
ADDRESSES = 4096  # whose buckets are remembered
COME_BACK_S = 5.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Any]


@dataclass(frozen=True)
class Limits:
    """What is allowed; `logins` are tries a minute."""

    per_s: float = 100.0
    burst: int = 400
    logins: int = 10
    upload_bytes: int = 64 * MIB
    at_once: int = 8
    waiting: int = 256
    body_s: float = 60.0  # for a body to arrive
    listeners: int = 64


class Buckets:
    """Token buckets by key; the least recently seen are forgotten."""

    def __init__(self, per_s: float, burst: float) -> None:
        self.per_s, self.burst = per_s, burst
        self.held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """0 if `key` may go on, else the seconds until it may."""
        level, at = self.held.pop(key, (self.burst, now))
        level = min(self.burst, level + max(0.0, now - at) * self.per_s)
        wait = 0.0 if level >= 1 else (1 - level) / self.per_s
        self.held[key] = (level if wait else level - 1, now)
        if len(self.held) > ADDRESSES:
            self.held.popitem(last=False)
        return wait


class UploadSlots:
    """Where uploads wait: so many inside, so many before it, the others are turned away."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self.most, self.came = at_once + waiting, 0
        self._inside = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def pass_through(self) -> AsyncIterator[None]:
        """Inside, one upload is read, decoded and scored. Raises Refused beyond the limit."""
        if self.came >= self.most:
            text = f"{self.most} recordings are being worked on or waiting already; send this one again"
            raise Refused(Refusal(503, "busy", text, COME_BACK_S))
        self.came += 1
        try:
            async with self._inside:
                yield
        finally:
            self.came -= 1


class Refused(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class RequestGuard:
    """ASGI middleware: every request passes it, every answer carries its headers."""

    def __init__(
        self,
        app: Callable[..., Any],
        access: Access,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.access, self.limits, self.clock, self.steady = app, access, limits, clock, steady
        self.requests = Buckets(limits.per_s, limits.burst)
        self.logins = Buckets(limits.logins / 60, limits.logins)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        send = _with_headers(send, cached=scope["path"].startswith("/static/"))
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await answer(send, refusal, page=_wants_page(scope, headers))
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, *_counted(receive, noting, self._most(scope["path"])))
        except Exception:
            if not begun:
                await answer(send, Refusal(500, "failed", "the server failed at this; its log says why"))
            raise  # to the log

    def _refuse(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> Refusal | None:
        who, path, method = (scope.get("client") or ("",))[0], scope["path"], scope["method"]
        wait = self.requests.take(who, self.steady())
        if not wait and path == "/login" and method == "POST":
            wait = self.logins.take(who, self.steady())
        if wait:
            return Refusal(429, "too_many", "too many requests from this address; wait and send it again", wait)
        refusal = self.access.refuse(method, path, headers, self.clock())
        if refusal is None and _length(headers) > self._most(path):
            return too_large(self._most(path))
        return refusal

    def _most(self, path: str) -> int:
        return self.limits.upload_bytes if path.endswith(("/score", "/explain", "/add")) else SMALL


def _counted(receive: Receive, send: Send, most: int) -> tuple[Receive, Send]:
    """A body that is not announced is counted; beyond `most` bytes the answer is 413, whatever the application says."""
    seen = 0

    async def counted() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise Refused(too_large(most))
        return message

    async def sending(message: Message) -> None:
        if seen <= most:
            await send(message)
        elif message["type"] == "http.response.start":
            await answer(send, too_large(most))

    return counted, sending


def too_large(most: int) -> Refusal:
    """The answer to a body beyond `most` bytes."""
    said = f"{most / MIB:g} MiB" if most >= MIB else f"{most >> 10} KiB"
    return Refusal(413, "too_large", f"the request is larger than {said}; send a shorter recording")


async def answer(send: Send, refusal: Refusal, *, page: bool = False) -> None:
    """Send a refusal as JSON; who wants a page and lacks a session is led to the login instead."""
    headers = [(b"content-type", b"application/json")]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(refusal.retry_after_s))).encode()))
    status, body = refusal.status, json.dumps(error_of(refusal)).encode()
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
        if page:
            status, body, headers = 303, b"", [(b"location", b"/login")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_of(refusal: Refusal) -> dict[str, Any]:
    """The one shape of errors."""
    return {"error": refusal.code, "message": refusal.message, "status": refusal.status}


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0


def _wants_page(scope: MutableMapping[str, Any], headers: dict[str, str]) -> bool:
    return scope["method"] == "GET" and "text/html" in headers.get("accept", "")


def _with_headers(send: Send, *, cached: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            own = HEADERS | {"cache-control": "no-cache" if cached else "no-store"}
            new = [(k.encode(), v.encode()) for k, v in own.items() if k.encode() not in there]
            message["headers"] = [*message["headers"], *new]
        await send(message)

    return sending
