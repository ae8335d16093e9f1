"""Connections of the server: how many are open, and how long a client may keep one waiting.

    no whole headers after HEADER_S     closed
    an answer that is not read          closed after STALLED_S, and so is a refused body that does not end
    more than `most` are open           the one that has waited longest for its request is closed for the new one;
                                        if all have requests under way, the new one is closed
    handshakes of TLS                   a quarter of `most` beside the others; further ones are closed (not on Windows)

Every connection needs a file handle, as do sources, decoders and the history: `most_connections` leaves them half.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 1024
HEADER_S = 10.0
STALLED_S = 60.0


def most_connections() -> int:
    """Half of the file handles that this process may open, at most MOST."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST // 2
    handles = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if handles == resource.RLIM_INFINITY else max(8, min(MOST, handles // 2))


class BoundedListener(socket.socket):
    """A listening socket, made from one that is open, that closes new connections while too many are open."""

    def __init__(self, listening: socket.socket, most: int) -> None:
        super().__init__(fileno=listening.detach())
        self.most = most + most // 4
        self._accepted: set[socket.socket] = set()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; ConnectionAbortedError, which asyncio passes over, if too many are open."""
        connection, address = super().accept()
        if len(self._accepted) >= self.most:
            self._accepted = {accepted for accepted in self._accepted if accepted.fileno() >= 0}
        if len(self._accepted) >= self.most:
            connection.close()
            raise ConnectionAbortedError
        self._accepted.add(connection)
        return connection, address


class BoundedConfig(uvicorn.Config):
    """Settings of uvicorn for an application, with the bounds of its connections."""

    def __init__(self, app: Any, *, most: int, header_s: float = HEADER_S, **options: Any) -> None:
        super().__init__(app, http=BoundedProtocol, loop="asyncio", ws="none", **options)
        self.most, self.header_s = most, header_s


class BoundedProtocol(H11Protocol):
    """One connection of a server with a `BoundedConfig`."""

    config: BoundedConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, or close it."""
        self.waiting_since: float | None = None  # None while a request is under way
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._update()
        opened = [c for c in self.connections if isinstance(c, BoundedProtocol) and not c.transport.is_closing()]
        if len(opened) > self.config.most:
            waiting = [c for c in opened if c.waiting_since is not None]
            min(waiting, key=lambda c: c.waiting_since or 0.0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its timers."""
        super().connection_lost(exc)
        for timer in (self._deadline, self._stall):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    def _update(self) -> None:
        """Start the deadline when the connection begins to wait for a request, stop it when the headers are there."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.waiting_since = None
            if self._deadline is not None:
                self._deadline.cancel()
        elif self.waiting_since is None:
            self.waiting_since = self.loop.time()
            late = self.conn.their_state is h11.SEND_BODY  # the rest of a body that was refused is read and dropped
            self._deadline = self.loop.call_later(STALLED_S if late else self.config.header_s, self.transport.abort)
