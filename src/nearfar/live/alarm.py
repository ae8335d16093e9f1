"""The smallest alarm that does not chatter: set-point, deadband, on-delay, off-delay, shelving, acknowledgement.

    raise    `on_delay` judged windows in a row above `on`           clear    `off_delay` in a row below `off` <= `on`

Pure and clock-free: it counts windows, and where time matters (shelving) the time is passed in. A window that cannot be
judged is None: it neither raises nor clears, and does not break a run. The words are those of ISA-18.2:

    state                     meant                                      heard as
    normal                    no alarm
    unacknowledged alarm      raised, nobody has answered                raised
    acknowledged alarm        raised, somebody has
    returned unacknowledged   cleared before anybody answered            cleared
    shelved                   put aside until a time: nothing is raised, the condition is still followed

How many false alarms a set-point makes: every raise uses up `on_delay` windows above it that no other raise can use, so

    alarms a week <= p * windows a week / on_delay          p: share of healthy windows above the set-point

whatever the correlation of windows, which overlap by half. p^on_delay would be bolder, and true of independent windows
only. Hence `rate_for` promises "at most".

Reference: ANSI/ISA-18.2-2016, basic alarm design.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearfar.support.check import number, whole

NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED = "normal", "unacknowledged alarm", "acknowledged alarm"
RETURNED, SHELVED = "returned unacknowledged", "shelved"
STATES = (NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED, RETURNED, SHELVED)
RAISED, CLEARED = "raised", "cleared"
WEEK_S = 7 * 86_400.0


@dataclass
class Alarm:
    """One alarm; `on` and `deadband` in the score's unit, delays in windows. Starts normal and in service."""

    on: float
    deadband: float = 0.5
    on_delay: int = 3
    off_delay: int = 5
    condition: bool = False  # what the windows say, delays applied
    standing: bool = False  # what has been announced and not cleared
    acknowledged: bool = True
    run: int = 0
    shelved_until: float = -math.inf

    def __post_init__(self) -> None:
        number("the set-point", self.on)
        number("deadband", self.deadband, low=0)
        whole("on_delay", self.on_delay)
        whole("off_delay", self.off_delay)

    @property
    def off(self) -> float:
        """Cleared below this."""
        return self.on - self.deadband

    def update(self, value: float | None, at: float) -> str:
        """One window: its score, or None if it cannot be judged, and the time. Returns "raised", "cleared" or ""."""
        if value is not None:
            crossing = value < self.off if self.condition else value > self.on
            self.run = self.run + 1 if crossing else 0
            if self.run >= (self.off_delay if self.condition else self.on_delay):
                self.condition, self.run = not self.condition, 0
        if self.standing and not self.condition:
            self.standing = False
            return CLEARED
        if self.condition and not self.standing and not self.suppressed(at):
            self.standing, self.acknowledged = True, False
            return RAISED
        return ""

    def suppressed(self, at: float) -> bool:
        """Whether nothing may be raised at this time."""
        return at < self.shelved_until

    def acknowledge(self) -> None:
        """Somebody has seen it."""
        self.acknowledged = True

    def shelve(self, until: float) -> None:
        """Put aside until a time; -inf takes it from the shelf. What stands is thereby answered."""
        self.shelved_until = until
        self.acknowledged = True

    def state(self, at: float) -> str:
        """One of STATES."""
        if self.suppressed(at):
            return SHELVED
        if self.standing:
            return ACKNOWLEDGED if self.acknowledged else UNACKNOWLEDGED
        return NORMAL if self.acknowledged else RETURNED


def rate_for(false_alarms_per_week: float, hop_s: float, on_delay: int) -> float:
    """Share of healthy windows that may lie above the set-point for at most so many alarms a week; a window a hop."""
    most = WEEK_S / number("hop_s", hop_s, above=0) / whole("on_delay", on_delay)
    return number("false alarms per week", false_alarms_per_week, above=0, below=most) / most


def per_week(rate: float, hop_s: float, on_delay: int) -> float:
    """At most so many false alarms a week, if a share `rate` of healthy windows lies above the set-point."""
    return rate * WEEK_S / number("hop_s", hop_s, above=0) / whole("on_delay", on_delay)
