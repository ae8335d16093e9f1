"""Access to the server: tokens, sessions, host names, origins, proxies, and what a browser may do with its pages.

    Authorization: Bearer TOKEN        programs
    Cookie: nearfar=EXPIRY.MAC         browsers, after /login; MAC = HMAC-SHA256(TOKEN, EXPIRY), hex

A server bound to 127.0.0.1 or ::1 needs no token. Bound to another address, or behind a proxy, it needs one for every
path but OPEN. A token may have the name of who has it, which the audit shows, and may be one that only reads.
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
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nearfar.live.server.errors import HttpError
from nearfar.support.words import plural

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
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
}


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Token:
    """A secret, the name of who has it, and whether it can only read."""

    secret: str
    name: str = ""
    read_only: bool = False


@dataclass
class Access:
    """The rules of one server: its tokens (none if only this computer can reach it) and its host names.

    `root` is the path that a proxy serves it at, "" or such as "/hall2"; `proxies` are those whose X-Forwarded headers
    count. `file` holds the tokens; what changes there counts from the next request on.
    """

    tokens: tuple[Token, ...] = ()
    hosts: frozenset[str] = frozenset({"localhost"})
    root: str = ""
    proxies: tuple[Network, ...] = ()
    file: Path | None = None

    def __post_init__(self) -> None:
        self._seen = _stamp(self.file)

    def reread(self) -> str:
        """Take the tokens of the file if it has changed; returns a line for the log, or ""."""
        if self.file is None or (stamp := _stamp(self.file)) == self._seen:
            return ""
        self._seen = stamp
        if not stamp:
            return f"{self.file} has gone; its tokens go on until there is another"
        try:
            self.tokens = read_tokens(self.file)
        except (ValueError, OSError) as error:
            return f"the tokens of before go on: {error}"
        return f"the tokens in {self.file} have changed: {plural(len(self.tokens), 'token')} from now on"

    def check(self, method: str, path: str, headers: Mapping[str, str], now: float) -> HttpError | None:
        """The reason to refuse a request, or None; `headers` have lower-case names."""
        host = headers.get("host", "")
        if not self.answers_to(host):
            hint = f"{host[:80]!r} is not a name of this server; use its address, or start it with --allow-host NAME"
            return HttpError(421, "wrong_host", hint)
        origin = headers.get("origin")
        if method not in SAFE and not _same_origin(origin, headers.get("sec-fetch-site"), host):
            hint = "a page of another site tried to change something here"
            if origin:
                hint += (
                    f" (Origin {origin[:80]!r}, Host {host[:80]!r}; a proxy must pass the Host on, in nginx $http_host)"
                )
            return HttpError(403, "wrong_origin", hint)
        if not self.tokens or any(path == p or (p.endswith("/") and path.startswith(p)) for p in OPEN):
            return None
        token = self.token_of(headers, now)
        if token is None:
            hint = "this server has a token: log in at /login, or send Authorization: Bearer TOKEN"
            return HttpError(401, "no_token", hint)
        if token.read_only and method not in SAFE and path != "/logout":
            return HttpError(403, "read_only", f"the token {token.name!r} can only read")
        return None

    def token_of(self, headers: Mapping[str, str], now: float) -> Token | None:
        """The token that a request has, by its Authorization or by its session."""
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and (token := self.token(secret.strip())):
            return token
        return self._session_token(headers.get("cookie", ""), now)

    def client(self, peer: str, headers: Mapping[str, str]) -> tuple[str, str]:
        """(address, scheme) of a request: those that a trusted proxy states, else the peer and ""."""
        if not self._is_proxy(peer):
            return peer, ""
        address = peer
        for stated in reversed(headers.get("x-forwarded-for", "").split(",")):
            try:
                address = str(ipaddress.ip_address(stated.strip()))
            except ValueError:
                break
            if not self._is_proxy(address):
                break
        scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        return address, scheme if scheme in ("http", "https") else ""

    def answers_to(self, host: str) -> bool:
        """Whether a Host header is valid here. An address always is, because only names can be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return bool(host) and _name_of(host) in self.hosts
        return True

    def token(self, secret: str) -> Token | None:
        """The token with this secret; each is compared in constant time."""
        found = [t for t in self.tokens if hmac.compare_digest(_digest(secret), _digest(t.secret))]
        return found[0] if found else None

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ipaddress.ip_address(address) in network for network in self.proxies)
        except ValueError:
            return False

    def _session_token(self, cookies: str, now: float) -> Token | None:
        """The token of the session in a Cookie header that has not expired."""
        for part in cookies.split(";"):
            name, _, value = part.strip().partition("=")
            expiry, _, mac = value.partition(".")
            if name == COOKIE and expiry.isdecimal() and len(expiry) < 16 and now < int(expiry):
                found = [t for t in self.tokens if hmac.compare_digest(mac.encode(), _mac(t, expiry).encode())]
                return found[0] if found else None
        return None

    def cookie(self, token: Token, now: float, *, secure: bool) -> str:
        """The Set-Cookie header of a new session of a token."""
        expiry = str(int(now + SESSION_S))
        rest = f"Path={self.root}/; Max-Age={int(SESSION_S)}; HttpOnly; SameSite=Strict" + (
            "; Secure" if secure else ""
        )
        return f"{COOKIE}={expiry}.{_mac(token, expiry)}; {rest}"


def _stamp(file: Path | None) -> tuple[int, int, int] | tuple[()]:
    """Inode, size and time of a file, which change when it is written; () without a file."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        status = None
    return () if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


def _mac(token: Token, expiry: str) -> str:
    return hmac.new(token.secret.encode(), b"session " + expiry.encode(), hashlib.sha256).hexdigest()


def is_local(host: str) -> bool:
    """Whether only this computer can reach a server bound to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def access(
    host: str,
    tokens: Iterable[Token],
    allowed: Iterable[str] = (),
    *,
    root: str = "",
    proxies: Iterable[str] = (),
    file: Path | None = None,
) -> Access:
    """The rules for a server bound to `host`; ValueError if it needs a token and has none, or for a wrong value."""
    tokens, trusted = tuple(tokens), tuple(_network(proxy) for proxy in proxies)
    if not tokens and (trusted or not is_local(host)):
        why = (
            "--trusted-proxy lets other computers in"
            if trusted
            else f"--host {host} can be reached from other computers"
        )
        raise ValueError(f"{why}, so a token is needed: --token-file FILE")
    root = root.rstrip("/")
    if root and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", root):
        raise ValueError(f"--root-path must be a path such as /hall2, not {root!r}")
    own = {"localhost", host, *allowed} | (set() if is_local(host) else {socket.gethostname(), socket.getfqdn()})
    return Access(tokens, frozenset(name.lower().rstrip(".") for name in own), root, trusted, file)


def read_tokens(path: str | os.PathLike[str]) -> tuple[Token, ...]:
    """The tokens in a file, one a line: `SECRET`, `NAME SECRET`, or `NAME read SECRET` for one that can only read.

    A missing file is made, with a new token, readable by its owner alone. ValueError if others can read the file, or if
    a line is wrong.
    """
    path = Path(path)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by other users; forbid that with: chmod 600 {path}") from None
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        tokens = tuple(_token(f"{path}, line {number},", line) for number, line in lines if _is_written(line))
        if not tokens:
            raise ValueError(f"{path} has no token; delete the file, and a new one is made") from None
        return tokens
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(token + "\n")
    return (Token(token),)


def _is_written(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _token(place: str, line: str) -> Token:
    *head, secret = line.split()
    if len(secret) < SHORTEST_TOKEN:
        what = f"has a token of {len(secret)} characters, and at least {SHORTEST_TOKEN} are needed"
        raise ValueError(f"{place} {what}; a good one is printed by: openssl rand -hex 32")
    if len(head) > 2 or head[1:] not in ([], ["read"]):
        raise ValueError(f"{place} must be SECRET, NAME SECRET or NAME read SECRET")
    return Token(secret, head[0] if head else "", head[1:] == ["read"])


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"--trusted-proxy must be an address such as 10.0.0.5 or 10.0.0.0/24: {error}") from None


def local_path(path: str, root: str = "") -> str:
    """`path` if it is a page of this server, else its first page: a login must not lead to another site."""
    good = path.startswith(f"{root}/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if good and not urlsplit(path).netloc else f"{root}/"


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
