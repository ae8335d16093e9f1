"""The smallest alarm that does not chatter: set-point, deadband, on-delay, off-delay, shelving, acknowledgement.

    raise    `on_delay` judged windows in a row above `on`           clear    `off_delay` in a row below `off` <= `on`

Pure and clock-free: windows are counted, and where time matters (shelving) the time is an argument. A window that
cannot be judged has the score None: it neither raises nor clears, and does not break a run. The states are those of
ISA-18.2:

    state                     meaning                                                  reported when it is entered by
    normal                    no alarm
    unacknowledged alarm      raised, not yet acknowledged                             raised
    acknowledged alarm        raised and acknowledged
    returned unacknowledged   cleared before anybody acknowledged                      cleared
    shelved                   nothing is raised until a time; the condition is followed all the same

How many false alarms a set-point makes is in `rhythm` (the most) and `setpoint` (the fewest).

Reference: ANSI/ISA-18.2-2016, basic alarm design.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearfar.support.check import integer, number

NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED = "normal", "unacknowledged alarm", "acknowledged alarm"
RETURNED, SHELVED = "returned unacknowledged", "shelved"
STATES = (NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED, RETURNED, SHELVED)
IN_ALARM = (UNACKNOWLEDGED, ACKNOWLEDGED)  # the states in which an alarm stands
RAISED, CLEARED = "raised", "cleared"
WEEK_S = 7 * 86_400.0


@dataclass
class Alarm:
    """One alarm; `on` and `deadband` in the score's unit, delays in windows. Starts normal and not shelved."""

    on: float
    deadband: float = 0.5
    on_delay: int = 3
    off_delay: int = 5
    condition: bool = False  # whether the scores, with the delays, are above the set-point
    standing: bool = False  # whether an alarm was raised and not cleared
    acknowledged: bool = True
    run: int = 0  # windows in a row across the limit that counts now
    shelved_until: float = -math.inf

    def __post_init__(self) -> None:
        number("the set-point", self.on)
        number("deadband", self.deadband, low=0)
        integer("on_delay", self.on_delay)
        integer("off_delay", self.off_delay)

    def fresh(self, on: float) -> Alarm:
        """An alarm with this deadband and these delays and another set-point, in its first state."""
        return Alarm(on, self.deadband, self.on_delay, self.off_delay)

    @property
    def off(self) -> float:
        """The alarm is cleared below this score."""
        return self.on - self.deadband

    def update(self, value: float | None, at: float) -> str:
        """Take the score of a window (None: it cannot be judged) and its time; returns "raised", "cleared" or ""."""
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
        """Whether the machine is shelved at this time, so that nothing is raised."""
        return at < self.shelved_until

    def acknowledge(self) -> None:
        """Note that somebody has seen the alarm."""
        self.acknowledged = True

    def shelve(self, until: float) -> None:
        """Raise nothing until a time (-inf ends the shelving). This acknowledges an alarm that stands."""
        self.shelved_until = until
        self.acknowledged = True

    def state(self, at: float) -> str:
        """One of STATES."""
        if self.suppressed(at):
            return SHELVED
        if self.standing:
            return ACKNOWLEDGED if self.acknowledged else UNACKNOWLEDGED
        return NORMAL if self.acknowledged else RETURNED
