"""Who may talk to the server: tokens, sessions, hosts, origins, and what a browser may do with our pages.

    Authorization: Bearer TOKEN        programs
    Cookie: nearfar=EXPIRY.MAC         browsers, after /login; MAC = HMAC-SHA256(TOKEN, EXPIRY), hex

Bound to this computer alone (127.0.0.1, ::1) no token is needed; bound to anything else, everything but OPEN needs it.
A web page from elsewhere can make a browser talk to us, and that browser stands inside the plant. Three checks stop it,
with a token or without: `Host` is an address or a name that is ours (DNS rebinding), `Origin` of what changes something
is that same host (forged forms), and the cookie is HttpOnly and SameSite=Strict. Nothing here looks at a clock: `now`
is seconds since 1970, given by the caller.
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

COOKIE = "nearfar"
SESSION_S = 12 * 3600.0  # a shift
SHORTEST_TOKEN = 16
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/healthz", "/readyz", "/login", "/static/")  # neither tells anything about a machine
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
class Refusal:
    """Why a request is turned away: HTTP status, a code for programs, a sentence for people."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Access:
    """The rules of one server: its token ("" if only this computer can reach it) and the names it answers to."""

    token: str = ""
    hosts: frozenset[str] = frozenset({"localhost"})

    def refuse(self, method: str, path: str, headers: Mapping[str, str], now: float) -> Refusal | None:
        """The reason not to answer a request, or None; `headers` have lower-case names."""
        host = headers.get("host", "")
        if not self.answers_to(host):
            hint = f"this server is not called {host[:80]!r}; use its address, or start it with --allow-host NAME"
            return Refusal(421, "wrong_host", hint)
        if method not in SAFE and not _same_origin(headers.get("origin"), headers.get("sec-fetch-site"), host):
            return Refusal(403, "wrong_origin", "a page of another site tried to change something here; it was refused")
        if not self.token or any(path == p or (p.endswith("/") and path.startswith(p)) for p in OPEN):
            return None
        if self.bearer(headers.get("authorization", "")) or self.session(headers.get("cookie", ""), now):
            return None
        return Refusal(
            401, "no_token", "this server has a token: log in at /login, or send Authorization: Bearer TOKEN"
        )

    def answers_to(self, host: str) -> bool:
        """Is a Host header one of ours? A bare address always is: only names can be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return bool(host) and _name_of(host) in self.hosts
        return True

    def right(self, token: str) -> bool:
        """Is this the token? In constant time."""
        return bool(self.token) and hmac.compare_digest(_digest(token), _digest(self.token))

    def bearer(self, authorization: str) -> bool:
        """Does an Authorization header carry the token?"""
        kind, _, token = authorization.partition(" ")
        return kind.lower() == "bearer" and self.right(token.strip())

    def session(self, cookies: str, now: float) -> bool:
        """Does a Cookie header carry a session that we gave and that has not run out?"""
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
    """Can only this computer reach a server bound to `host`?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def access(host: str, token: str, allowed: Iterable[str] = ()) -> Access:
    """The rules for a server bound to `host`; ValueError where a token is needed and there is none."""
    if not is_local(host) and not token:
        raise ValueError(f"--host {host} can be reached from other computers, so a token is needed: --token-file FILE")
    own = {"localhost", host, *allowed} | (set() if is_local(host) else {socket.gethostname(), socket.getfqdn()})
    return Access(token, frozenset(name.lower().rstrip(".") for name in own))


def read_token(path: str | os.PathLike[str]) -> str:
    """The token in a file, which is made, readable by its owner alone, if it is not there.

    ValueError if others can read the file or the token is short.
    """
    path = Path(path)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by others; make it yours alone: chmod 600 {path}") from None
        token = path.read_text(encoding="utf-8").strip()
        if len(token) < SHORTEST_TOKEN:
            what = f"holds a token of {len(token)} characters and {SHORTEST_TOKEN} are the least"
            raise ValueError(f"{path} {what}; remove the file to have a new one made") from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(token + "\n")
    return token


def local_path(path: str) -> str:
    """`path` if it leads to a page of this server, else "/": a login must not send people elsewhere."""
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if good and not urlsplit(path).netloc else "/"


def _same_origin(origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Programs send neither header; every browser names the origin of what changes something."""
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
