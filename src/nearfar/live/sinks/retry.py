"""A thread that delivers messages one after the other, so that whoever sends never waits.

`deliver` raises OSError if it could not (the message is tried again after 1, 2, 4 ... 60 s) and anything else if it
never will (the message is dropped and counted). Of more than `limit` messages that wait, the oldest are dropped and
counted. With an `outbox` what waits survives the process, and what an earlier one left is delivered first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from nearfar.live.history.history import Outbox
from nearfar.live.records import Message

LIMIT = 10_000
LONGEST_WAIT_S = 60.0


class RetryQueue:
    """Delivers `Message`s to one place; `problem` says why that does not work at present."""

    def __init__(
        self,
        name: str,
        deliver: Callable[[Message], None],
        outbox: Outbox | None = None,
        *,
        limit: int = LIMIT,
        first_wait_s: float = 1.0,
    ) -> None:
        self.name, self.problem, self.dropped = name, "", 0
        self._deliver, self._outbox, self._limit, self._first_wait_s = deliver, outbox, limit, first_wait_s
        self._waiting: deque[Message] = deque(outbox.waiting() if outbox else ())
        self._change = threading.Condition()
        self._closing = self._hurrying = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Take a message; with an outbox, of its kinds only."""
        if self._outbox and message.kind not in self._outbox.kinds:
            return
        with self._change:
            self._waiting.append(message)
            excess = self._waiting.popleft() if len(self._waiting) > self._limit else None
            self._change.notify_all()
        if excess:
            self._done(excess, dropped=True)

    def hurry(self) -> None:
        """Try again at once: what was in the way may be gone."""
        with self._change:
            self._hurrying = True
            self._change.notify_all()

    def close(self, wait_s: float = 5.0) -> None:
        """Deliver what waits, for `wait_s` at most, and stop."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(wait_s)
        self._outbox = None  # the history closes next: what is delivered later will be sent again

    def _run(self) -> None:
        wait = self._first_wait_s
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                message, dropped = self._waiting[0], False
            try:
                self._deliver(message)
                self.problem, wait = "", self._first_wait_s
            except OSError as error:
                self.problem = f"{self.name}: {error}"
                with self._change:
                    if self._closing:
                        return
                    self._change.wait_for(lambda: self._closing or self._hurrying, timeout=wait)
                    wait = self._first_wait_s if self._hurrying else min(2 * wait, LONGEST_WAIT_S)
                    self._hurrying = False
                continue
            except Exception as error:  # this one never gets through; the next may
                self.problem = f"{self.name}: {type(error).__name__}: {error}; given up"
                dropped = True
            with self._change:
                there = bool(self._waiting) and self._waiting[0] is message  # it may have been dropped meanwhile
                if there:
                    self._waiting.popleft()
            if there:
                self._done(message, dropped=dropped)

    def _done(self, message: Message, *, dropped: bool) -> None:
        self.dropped += dropped
        if outbox := self._outbox:
            outbox.taken(message)
