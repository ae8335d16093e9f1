"""Access to the server: tokens, sessions, host names, origins, and what a browser may do with its pages.

    Authorization: Bearer TOKEN        programs
    Cookie: nearfar=EXPIRY.MAC         browsers, after /login; MAC = HMAC-SHA256(TOKEN, EXPIRY), hex

A server bound to 127.0.0.1 or ::1 needs no token. Bound to another address, it needs one for every path but OPEN.
A web page of another site can make a browser send requests, and that browser runs inside the plant. Three checks stop
such requests, with and without a token: `Host` must be an address or a known name of this server (against DNS
rebinding); `Origin` of a request that changes something must be the same host (against forged forms); the cookie is
HttpOnly and SameSite=Strict. Nothing here reads a clock: the caller passes `now` in seconds since 1970.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nearfar.live.server.errors import HttpError

COOKIE = "nearfar"
SESSION_S = 12 * 3600.0  # one shift
SHORTEST_TOKEN = 16
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/healthz", "/readyz", "/login", "/static/")  # these tell nothing about a machine
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Access:
    """The rules of one server: its token ("" if only this computer can reach it) and its host names."""

    token: str = ""
    hosts: frozenset[str] = frozenset({"localhost"})

    def check(self, method: str, path: str, headers: Mapping[str, str], now: float) -> HttpError | None:
        """The reason to refuse a request, or None; `headers` have lower-case names."""
        host = headers.get("host", "")
        if not self.answers_to(host):
            hint = f"{host[:80]!r} is not a name of this server; use its address, or start it with --allow-host NAME"
            return HttpError(421, "wrong_host", hint)
        if method not in SAFE and not _same_origin(headers.get("origin"), headers.get("sec-fetch-site"), host):
            return HttpError(403, "wrong_origin", "a page of another site tried to change something here")
        if not self.token or any(path == p or (p.endswith("/") and path.startswith(p)) for p in OPEN):
            return None
        if self.has_token(headers.get("authorization", "")) or self.has_session(headers.get("cookie", ""), now):
            return None
        hint = "this server has a token: log in at /login, or send Authorization: Bearer TOKEN"
        return HttpError(401, "no_token", hint)

    def answers_to(self, host: str) -> bool:
        """Whether a Host header is valid here. An address always is, because only names can be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return bool(host) and _name_of(host) in self.hosts
        return True

    def is_token(self, token: str) -> bool:
        """Whether this is the token; compared in constant time."""
        return bool(self.token) and hmac.compare_digest(_digest(token), _digest(self.token))

    def has_token(self, authorization: str) -> bool:
        """Whether an Authorization header has the token."""
        kind, _, token = authorization.partition(" ")
        return kind.lower() == "bearer" and self.is_token(token.strip())

    def has_session(self, cookies: str, now: float) -> bool:
        """Whether a Cookie header has a session of this server that has not expired."""
        for part in cookies.split(";"):
            name, _, value = part.strip().partition("=")
            expiry, _, mac = value.partition(".")
            if name == COOKIE and expiry.isdecimal() and len(expiry) < 16:
                return hmac.compare_digest(mac.encode(), self._mac(expiry).encode()) and now < int(expiry)
        return False

    def cookie(self, now: float, *, secure: bool) -> str:
        """The Set-Cookie header of a new session."""
        expiry = str(int(now + SESSION_S))
        rest = f"Path=/; Max-Age={int(SESSION_S)}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
        return f"{COOKIE}={expiry}.{self._mac(expiry)}; {rest}"

    def _mac(self, expiry: str) -> str:
        return hmac.new(self.token.encode(), b"session " + expiry.encode(), hashlib.sha256).hexdigest()


def is_local(host: str) -> bool:
    """Whether only this computer can reach a server bound to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def access(host: str, token: str, allowed: Iterable[str] = ()) -> Access:
    """The rules for a server bound to `host`; ValueError if it needs a token and has none."""
    if not is_local(host) and not token:
        raise ValueError(f"--host {host} can be reached from other computers, so it needs a token: --token-file FILE")
    own = {"localhost", host, *allowed} | (set() if is_local(host) else {socket.gethostname(), socket.getfqdn()})
    return Access(token, frozenset(name.lower().rstrip(".") for name in own))


def read_token(path: str | os.PathLike[str]) -> str:
    """The token in a file. A missing file is made, with a new token, readable by its owner alone.

    ValueError if others can read the file, or if the token is short.
    """
    path = Path(path)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by other users; forbid that with: chmod 600 {path}") from None
        token = path.read_text(encoding="utf-8").strip()
        if len(token) < SHORTEST_TOKEN:
            what = f"has a token of {len(token)} characters, and at least {SHORTEST_TOKEN} are needed"
            raise ValueError(f"{path} {what}; delete the file, and a new one is made") from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(token + "\n")
    return token


def local_path(path: str) -> str:
    """`path` if it is a page of this server, else "/": a login must not lead to another site."""
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if good and not urlsplit(path).netloc else "/"


def _same_origin(origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Whether a request comes from a page of this host, or from a program, which sends neither header."""
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
