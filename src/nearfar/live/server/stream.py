"""Server-sent events: the messages of the plant, for open pages.

    id: RUN-NUMBER        a page that reconnects sends the last id that it has, and continues from there
    event: score | state | event | audit | job | microphone, data: JSON
    event: resync         some messages are lost, request everything again

All pages share one ring of messages. A page that is slow, or was away for longer than the ring reaches back, gets
`resync`. So memory depends neither on the number of pages nor on their speed, and no page can delay the plant.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from nearfar.live.language import ENGLISH, reader, translated
from nearfar.live.machine import Machine
from nearfar.live.server.errors import COME_BACK_S, HttpError
from nearfar.live.server.schemas import MachineState, Schema, Window
from nearfar.live.sinks.messages import CLOSE_S, EVENT, SCORE, EventMessage, Message, ScoreMessage

RING = 2000  # messages in the ring
QUIET_S = 15.0  # without messages, a comment is sent, so that proxies keep the connection
LIFE_S = 3600.0  # of a connection; the page then reconnects, and its session is checked again
RECONNECT_MS = 2000


@dataclass(frozen=True)
class Sent:
    """One message in the ring, written once in each language that a page has asked for."""

    id: str
    kind: str
    data: Schema | dict[str, Any]
    written: dict[str, bytes] = field(default_factory=dict)

    def text(self, language: str) -> bytes:
        """The message as it is sent."""
        if language not in self.written:
            data = self.data
            if isinstance(data, Schema):
                before = reader.set(language)
                data = data.model_dump(mode="json")
                reader.reset(before)
            elif "text" in data:
                data = {**data, "text": translated(data["text"], language)}
            body = json.dumps(data, allow_nan=False, separators=(",", ":"))
            self.written[language] = f"id: {self.id}\nevent: {self.kind}\ndata: {body}\n\n".encode()
        return self.written[language]


class Stream:
    """A sink of the plant that passes its messages on to pages; `state(machine)` is its state, and
    `describe(machine)` the body of a `state` message.

    `run` tells one start of the server from the next; `listeners` is the number of pages that follow.
    """

    name = "dashboard"
    problem = ""

    def __init__(self, run: str, state: Callable[[str], str], describe: Callable[[str], MachineState]) -> None:
        self.run, self.state, self.describe = run, state, describe
        self.count, self.windows, self.listeners, self.closed = 0, 0, 0, False
        self._ring: deque[tuple[int, Sent]] = deque(maxlen=RING)
        self._sent_states: dict[str, str] = {}  # the state of each machine in its last `state` message
        self._lock = threading.Lock()
        self._wakeups: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def put(self, message: Message) -> None:
        """Pass on a message of the plant."""
        if isinstance(message, ScoreMessage):
            self.windows += 1
            self.send(SCORE, Window.of(message.record))
            self._state(message.machine, again=False)
        elif isinstance(message, EventMessage):
            event = {k: v for k, v in asdict(message.event).items() if not k.startswith("audio")}
            self.send(EVENT, {"what": message.what, **event})
        else:
            self._state(message.machine)

    def send(self, kind: str, data: Schema | dict[str, Any]) -> None:
        """Send a message to all pages; returns at once, from any thread."""
        with self._lock:
            self.count += 1
            self._ring.append((self.count, Sent(f"{self.run}-{self.count}", kind, data)))
        self._wake()

    def add_machine(self, machine: Machine, at: float) -> None:
        """Have all pages request everything again."""
        self.send("resync", {})

    def remove_machine(self, id: str) -> None:
        """Have all pages request everything again."""
        self._sent_states.pop(id, None)
        self.send("resync", {})

    def close(self, wait_s: float = CLOSE_S) -> None:
        """End all connections."""
        self.closed = True
        self._wake()

    @contextmanager
    def place(self, most: int) -> Iterator[None]:
        """A place among the `most` pages that follow; HttpError 503 if all are taken. For the event loop's thread."""
        if self.listeners >= most:
            text = f"{most} pages already follow the live events; close one of them"
            raise HttpError(503, "busy", text, COME_BACK_S)
        self.listeners += 1
        try:
            yield
        finally:
            self.listeners -= 1

    async def listen(self, last_id: str | None, language: str = ENGLISH) -> AsyncIterator[bytes]:
        """The messages after `last_id` (None: from now on), in the reader's language, until LIFE_S have passed."""
        loop, wakeup = asyncio.get_running_loop(), asyncio.Event()
        self._wakeups.add((loop, wakeup))
        until, seen = loop.time() + LIFE_S, self._place(last_id)
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode()
            while not self.closed and loop.time() < until:
                wakeup.clear()
                seen, sent = self._after(seen)
                for each in sent:
                    yield each.text(language)
                try:
                    await asyncio.wait_for(wakeup.wait(), QUIET_S)
                except asyncio.TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._wakeups.discard((loop, wakeup))

    def _state(self, machine: str, *, again: bool = True) -> None:
        """Send the state of a machine; unless `again`, only if it differs from the one sent last."""
        state = self.state(machine)
        if again or self._sent_states.get(machine) != state:
            self._sent_states[machine] = state
            self.send("state", self.describe(machine))

    def _place(self, last_id: str | None) -> int:
        run, _, number = (last_id or "").rpartition("-")
        if run == self.run and number.isdecimal() and int(number) <= self.count:
            return int(number)
        return self.count if not last_id else -1

    def _after(self, seen: int) -> tuple[int, list[Sent]]:
        with self._lock:
            oldest = self._ring[0][0] if self._ring else self.count + 1
            if seen < oldest - 1:
                return self.count, [Sent(f"{self.run}-{self.count}", "resync", {})]
            return self.count, [sent for number, sent in self._ring if number > seen]

    def _wake(self) -> None:
        for loop, wakeup in list(self._wakeups):
            try:
                loop.call_soon_threadsafe(wakeup.set)
            except RuntimeError:  # the event loop has ended
                self._wakeups.discard((loop, wakeup))
