"""A thread that delivers messages one after the other, so that whoever sends never waits.

`deliver` raises OSError if it could not (the message is tried again after 1, 2, 4 ... 60 s) and anything else if it
never will (the message is dropped and counted). Of more than `limit` messages that wait, the oldest are dropped and
counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from nearfar.live.message import Message

LIMIT = 10_000
LONGEST_WAIT_S = 60.0


class Courier:
    """Delivers `Message`s to one place; `problem` says why that does not work at present."""

    def __init__(
        self, name: str, deliver: Callable[[Message], None], *, limit: int = LIMIT, first_wait_s: float = 1.0
    ) -> None:
        self.name, self.problem, self.dropped = name, "", 0
        self._deliver, self._limit, self._first_wait_s = deliver, limit, first_wait_s
        self._waiting: deque[Message] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Take a message."""
        with self._change:
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(message)
            self._change.notify_all()

    def close(self, wait_s: float = 5.0) -> None:
        """Deliver what waits, for `wait_s` at most, and stop."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(wait_s)

    def _run(self) -> None:
        wait = self._first_wait_s
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                message = self._waiting[0]
            try:
                self._deliver(message)
                self.problem, wait = "", self._first_wait_s
            except OSError as error:
                self.problem = f"{self.name}: {error}"
                with self._change:
                    if self._closing:
                        return
                    self._change.wait_for(lambda: self._closing, timeout=wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
                continue
            except Exception as error:  # this one never gets through; the next may
                self.problem = f"{self.name}: {type(error).__name__}: {error}"
                self.dropped += 1
            with self._change:
                if self._waiting and self._waiting[0] is message:  # it may have been dropped meanwhile
                    self._waiting.popleft()
