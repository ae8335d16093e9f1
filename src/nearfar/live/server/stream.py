"""Server-sent events: what the plant tells, for pages that look on.

    id: RUN-NUMBER        a page that comes back says the last id it saw, and goes on from there
    event: score | state | event | audit, data: JSON        resync: "you missed some, ask for everything again"

One ring of messages for everybody: a page that is slow or was away longer than the ring remembers gets `resync`, so
memory depends neither on how many look on nor on how slowly they read. Nobody who looks on can hold up the plant.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from nearfar.live.messages import EVENT, SCORE, EventMessage, Message, ScoreMessage

REMEMBERED = 2000  # messages in the ring
QUIET_S = 15.0  # after which a comment keeps proxies from closing
LIFE_S = 3600.0  # then the page comes back by itself, and its session is looked at again
AGAIN_MS = 2000


class Stream:
    """A sink for the plant, and its messages for whoever listens; `describe(machine)` is what `state` says."""

    name = "dashboard"
    problem = ""

    def __init__(self, run: str) -> None:
        self.run, self.count, self.windows, self.closed = run, 0, 0, False
        self.describe: Callable[[str], dict[str, Any]] | None = None
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)
        self._said: dict[str, str] = {}  # the state of each machine that was told last
        self._lock = threading.Lock()
        self._bells: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def listeners(self) -> int:
        """How many pages look on."""
        return len(self._bells)

    def put(self, message: Message) -> None:
        """Take a message of the plant."""
        if isinstance(message, ScoreMessage):
            self.windows += 1
            self.tell(SCORE, asdict(message.record))
            self._state(message.machine, again=False)
        elif isinstance(message, EventMessage):
            event = {k: v for k, v in asdict(message.event).items() if not k.startswith("audio")}
            self.tell(EVENT, {"what": message.what, **event})
        else:
            self._state(message.machine)

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Send something to everybody; from any thread, at once."""
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        with self._lock:
            self.count += 1
            self._ring.append((self.count, f"id: {self.run}-{self.count}\nevent: {kind}\ndata: {text}\n\n".encode()))
        self._ring_bells()

    def close(self) -> None:
        """Let everybody go."""
        self.closed = True
        self._ring_bells()

    async def listen(self, last_id: str | None) -> AsyncIterator[bytes]:
        """What was told after `last_id` (None: from now on), for ever, or for LIFE_S."""
        loop, bell = asyncio.get_running_loop(), asyncio.Event()
        self._bells.add((loop, bell))
        until, seen = loop.time() + LIFE_S, self._place(last_id)
        try:
            yield f"retry: {AGAIN_MS}\n\n".encode()
            while not self.closed and loop.time() < until:
                bell.clear()
                seen, parts = self._after(seen)
                for part in parts:
                    yield part
                try:
                    await asyncio.wait_for(bell.wait(), QUIET_S)
                except asyncio.TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._bells.discard((loop, bell))

    def _state(self, machine: str, *, again: bool = True) -> None:
        """Tell how a machine is; unless `again`, only if it is called something else than last time."""
        if self.describe is None:
            return
        now = self.describe(machine)
        if again or self._said.get(machine) != now["state"]:
            self._said[machine] = now["state"]
            self.tell("state", now)

    def _place(self, last_id: str | None) -> int:
        run, _, number = (last_id or "").rpartition("-")
        if run == self.run and number.isdecimal() and int(number) <= self.count:
            return int(number)
        return self.count if not last_id else -1

    def _after(self, seen: int) -> tuple[int, list[bytes]]:
        with self._lock:
            oldest = self._ring[0][0] if self._ring else self.count + 1
            if seen < oldest - 1:
                return self.count, [f"id: {self.run}-{self.count}\nevent: resync\ndata: {{}}\n\n".encode()]
            return self.count, [part for number, part in self._ring if number > seen]

    def _ring_bells(self) -> None:
        for loop, bell in list(self._bells):
            try:
                loop.call_soon_threadsafe(bell.set)
            except RuntimeError:  # that loop has ended
                self._bells.discard((loop, bell))
