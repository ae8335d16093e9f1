"""The smallest alarm that does not chatter: set-point, deadband, on-delay, off-delay, shelving, acknowledgement.

    raise    `on_delay` of the last `within` judged windows above `on`    (in a row, if `within` = `on_delay`)
             or evidence that adds up over windows (`evidence`)
    clear    `off_delay` windows in a row below `off` <= `on`, and no such evidence

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
from collections import deque
from dataclasses import dataclass, field

from nearfar.live.evidence import Evidence
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
    within: int = 0  # 0: the same as `on_delay`, windows in a row
    evidence: Evidence | None = None
    condition: bool = False  # whether the scores, with the delays, are above the set-point
    standing: bool = False  # whether an alarm was raised and not cleared
    acknowledged: bool = True
    above: deque[bool] = field(default_factory=deque)  # the last `within` windows: whether each is above `on`
    run: int = 0  # windows in a row below `off`
    faint: bool = False  # the condition began by evidence, not by windows above the set-point
    shelved_until: float = -math.inf

    def __post_init__(self) -> None:
        number("the set-point", self.on)
        number("deadband", self.deadband, low=0)
        integer("on_delay", self.on_delay)
        integer("off_delay", self.off_delay)
        self.within = integer("within", self.within or self.on_delay)
        if self.within < self.on_delay:
            raise ValueError(f"within must be at least on_delay ({self.on_delay} windows), not {self.within}")

    def fresh(self, on: float) -> Alarm:
        """An alarm with this deadband and these delays and another set-point, in its first state."""
        evidence = self.evidence and self.evidence.fresh()
        return Alarm(on, self.deadband, self.on_delay, self.off_delay, self.within, evidence)

    @property
    def pending(self) -> bool:
        """Whether windows above the set-point are counted that may yet raise an alarm."""
        return any(self.above) if self.within > self.on_delay else bool(self.above) and self.above[-1]

    @property
    def off(self) -> float:
        """The alarm is cleared below this score."""
        return self.on - self.deadband

    def update(self, value: float | None, at: float, p: float | None = None) -> str:
        """Take the score of a window (None: it cannot be judged), its time and its p; "raised", "cleared" or ""."""
        if value is not None:
            lasting = self.evidence is not None and p is not None and self.evidence.update(p)
            if self.condition:
                self.run = self.run + 1 if value < self.off and not lasting else 0
                if self.run >= self.off_delay:
                    self.condition, self.run = False, 0
            else:
                self.above.append(value > self.on)
                if len(self.above) > self.within:
                    self.above.popleft()
                loud = sum(self.above) >= self.on_delay
                if loud or lasting:
                    self.condition, self.faint = True, not loud
                    self.above.clear()  # a window counts for one alarm only
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
