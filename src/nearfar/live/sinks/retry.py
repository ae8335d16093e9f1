"""A thread that delivers messages one after the other, so that the sender never waits.

If `deliver` raises OSError, the message is tried again after 1, 2, 4 ... 60 s; after `Later`, when that says;
after any other exception it is dropped and counted. If more than `limit` messages wait, the oldest are dropped and
counted. With a `mailbox` waiting messages survive the process, and those of an earlier process are delivered first.
An attempt that takes longer than `attempt_s` is an OSError too; it goes on in its own thread, and there is no other one
before it ends.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait

from nearfar.live.history.outbox import Mailbox
from nearfar.live.sinks.messages import CLOSE_S, Message

LIMIT = 10_000
LONGEST_WAIT_S = 60.0


class Later(Exception):
    """Raised by `deliver`: the message is to wait for some seconds, which is no problem."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"in {seconds:.0f} s")
        self.seconds = seconds


class RetryQueue:
    """Delivers `Message`s to one place; `problem` says why that does not work at present."""

    def __init__(
        self,
        name: str,
        deliver: Callable[[Message], None],
        mailbox: Mailbox | None = None,
        *,
        label: str = "",
        limit: int = LIMIT,
        first_wait_s: float = 1.0,
        attempt_s: float = math.inf,
    ) -> None:
        self.name, self.label = name, label or name  # the label is what people call it
        self.problem, self.dropped = "", 0
        self._deliver, self._mailbox, self._limit, self._first_wait_s = deliver, mailbox, limit, first_wait_s
        self._attempt_s = attempt_s
        self._attempt: tuple[Message, Future[None]] | None = None  # the one that has no result yet
        self._waiting: deque[Message] = deque(mailbox.waiting() if mailbox else ())
        self._change = threading.Condition()
        self._closing = self._hurry = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Take a message; with a mailbox, only of its kinds."""
        if self._mailbox and message.kind not in self._mailbox.kinds:
            return
        with self._change:
            self._waiting.append(message)
            excess = self._waiting.popleft() if len(self._waiting) > self._limit else None
            self._change.notify_all()
        if excess:
            self._done(excess, dropped=True)

    def keeps(self, kind: str) -> bool:
        """Whether messages of this kind wait in its mailbox."""
        return self._mailbox is not None and kind in self._mailbox.kinds

    def forget(self, machine: str) -> None:
        """Drop the messages of a machine that wait."""
        with self._change:
            self._waiting = deque(message for message in self._waiting if message.machine != machine)

    def is_wanted(self, message: Message) -> bool:
        """Whether a message that is being delivered has not been forgotten meanwhile."""
        with self._change:
            return bool(self._waiting) and self._waiting[0] is message

    def retry_now(self) -> None:
        """Try again at once: the receiver may be back."""
        with self._change:
            self._hurry = True
            self._change.notify_all()

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Deliver the waiting messages, for `wait_s` at most, and stop."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(wait_s)
        self._mailbox = None  # the history closes next: a message delivered from here on is sent again after a restart

    def _run(self) -> None:
        wait = self._first_wait_s
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                message, dropped = self._waiting[0], False
            try:
                self._try(message)
                self.problem, wait = "", self._first_wait_s
            except Later as later:
                self.problem = ""
                with self._change:
                    if self._change.wait_for(lambda: self._closing, timeout=min(later.seconds, LONGEST_WAIT_S)):
                        return
                continue
            except OSError as error:
                self.problem = f"{self.label}: {error}"
                with self._change:
                    if self._closing:
                        return
                    self._change.wait_for(lambda: self._closing or self._hurry, timeout=wait)
                    wait = self._first_wait_s if self._hurry else min(2 * wait, LONGEST_WAIT_S)
                    self._hurry = False
                continue
            except Exception as error:  # this message can never be delivered; the next may
                self.problem = f"{self.label}: {type(error).__name__}: {error}; dropped"
                dropped = True
            with self._change:
                still_first = self.is_wanted(message)
                if still_first:
                    self._waiting.popleft()
            if still_first:
                self._done(message, dropped=dropped)

    def _try(self, message: Message) -> None:
        """Deliver a message in `attempt_s`, or raise OSError."""
        if math.isinf(self._attempt_s):
            self._deliver(message)
            return
        if self._attempt is None or (self._attempt[0] is not message and self._attempt[1].done()):
            self._attempt = message, Future()
            threading.Thread(target=_work, args=(self._attempt[1], self._deliver, message), daemon=True).start()
        of, attempt = self._attempt
        if not wait([attempt], self._attempt_s).done or of is not message:
            raise OSError(f"no whole answer within {self._attempt_s:g} s")
        self._attempt = None
        attempt.result()

    def _done(self, message: Message, *, dropped: bool) -> None:
        with self._change:
            self.dropped += dropped
        if mailbox := self._mailbox:
            mailbox.forget(message)


def _work(attempt: Future[None], deliver: Callable[[Message], None], message: Message) -> None:
    try:
        deliver(message)
        attempt.set_result(None)
    except Exception as error:
        attempt.set_exception(error)
