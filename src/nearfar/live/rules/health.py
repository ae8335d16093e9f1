"""Is sound coming? The state of a machine's source, from what the source did and when.

    none      the machine has no source: it scores what is sent to it
    hearing   a window came in the last `quiet_s`
    quiet     no window for longer, or none since the start
    stale     no window for `silence_s`                            a problem
    ended     the source has no more sound                         a problem after `silence_s`, if it should not end
    failed    the source raised an error, and is tried again       a problem after `silence_s`

A window makes every state `hearing`. A failed source is tried again after 1, 2, 4 ... 60 s. No clock is read: `now` is
the time of a clock that is never set, the same for all calls.
"""

from __future__ import annotations

import math

NONE, HEARING, QUIET, STALE, ENDED, FAILED = "none", "hearing", "quiet", "stale", "ended", "failed"
STATES = (NONE, HEARING, QUIET, STALE, ENDED, FAILED)
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class SourceHealth:
    """The state of one source; `start` begins it, and without it there is no source."""

    def __init__(self, silence_s: float = math.inf, quiet_s: float = math.inf) -> None:
        self.silence_s, self.quiet_s = silence_s, min(quiet_s, silence_s)
        self._last: float | None = None  # when the newest window came, or the start; None: there is no source
        self._attempt = -math.inf  # when the source was opened
        self._wait_s = 0.0  # the last wait between two attempts
        self._heard = self._may_end = False
        self.over = ""  # ENDED, FAILED, or "" while windows may come
        self._why = ""

    def start(self, now: float, *, may_end: bool = False) -> None:
        """The source is opened; `may_end`: its end is no problem, as it is a file."""
        self._last = self._attempt = now
        self._heard, self._may_end, self.over = False, may_end, ""

    def on_window(self, now: float) -> None:
        """A window has come."""
        self._last, self._heard, self.over = now, True, ""

    def on_end(self) -> None:
        """The source gives no more sound."""
        self.over = ENDED

    def on_failure(self, now: float, why: str) -> float:
        """The source has raised an error; returns the seconds after which it is to be opened again."""
        if now - self._attempt > LONGEST_WAIT_S:  # it worked for a while
            self._wait_s = 0.0
        self._wait_s = min(2 * self._wait_s or FIRST_WAIT_S, LONGEST_WAIT_S)
        self.over, self._why, self._attempt = FAILED, why, now + self._wait_s
        return self._wait_s

    def silent_s(self, now: float) -> float:
        """How long no window came."""
        return 0.0 if self._last is None else max(0.0, now - self._last)

    def state(self, now: float) -> str:
        """One of STATES."""
        silent_s = self.silent_s(now)
        if self._last is None or self.over:
            return self.over or NONE
        if silent_s >= self.silence_s:
            return STALE
        return HEARING if self._heard and silent_s <= self.quiet_s else QUIET

    def problem(self, now: float) -> str:
        """Why no sound comes, once that has lasted `silence_s`; else ""."""
        state, silent_s = self.state(now), self.silent_s(now)
        if silent_s < self.silence_s or (state == ENDED and self._may_end):
            return ""
        if state == FAILED:
            return f"no sound has come for {silent_s:.0f} s, as its source fails: {self._why}; it is tried again"
        if state == ENDED:
            return f"no sound has come for {silent_s:.0f} s, as its source has ended: has what feeds it stopped?"
        return f"no sound has come for {silent_s:.0f} s: is the source, or the network, down?"
