"""The smallest alarm that does not chatter: set-point, deadband, on-delay, off-delay, shelving, acknowledgement.

    raise    `on_delay` of the last `within` judged windows above `on`    (in a row, if `within` = `on_delay`),
             or too loud (`loudness`)
             or evidence that adds up over windows (`evidence`)
    clear    `off_delay` windows in a row below `off` <= `on`, and no such evidence
    anew     while an alarm stands, `on_delay` of the last `within` judged windows are of another kind (a watch crossed
             its set-point that did not in the first SETTLE windows of the alarm), or TWICE as far as those were

Each time that an alarm is raised anew, its kinds grow or its distance doubles, so this happens a few times at most.

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
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from nearfar.live.rules.evidence import Evidence
from nearfar.support.check import integer, number

NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED = "normal", "unacknowledged alarm", "acknowledged alarm"
RETURNED, SHELVED = "returned unacknowledged", "shelved"
STATES = (NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED, RETURNED, SHELVED)
IN_ALARM = (UNACKNOWLEDGED, ACKNOWLEDGED)  # the states in which an alarm stands
RAISED, ANEW, CLEARED = "raised", "raised anew", "cleared"
SETTLE = 10  # windows after an alarm is raised that show of what kind it is, and how far it goes
TWICE = 2.0
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
    far: float = -math.inf  # highest score of the alarm that stands, of its first windows
    kinds: frozenset[str] = frozenset()  # the watches that crossed their set-point in these
    new_kinds: frozenset[str] = frozenset()  # those that came on top when the alarm was raised anew last
    settling: int = 0  # windows that still belong to these
    beyond: deque[tuple[float, bool, frozenset[str]]] = field(default_factory=deque)  # score, farther, new kinds

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

    def update(
        self, value: float | None, at: float, p: float | None = None, kinds: Iterable[str] = (), loud: bool = False
    ) -> str:
        """Take the score of a window (None: it cannot be judged), its time, its p, and the watches that crossed.

        `loud`: it is too loud, which counts as above the set-point whatever its score.
        Returns RAISED, ANEW, CLEARED or "".
        """
        if value is not None:
            lasting = self.evidence is not None and p is not None and self.evidence.update(p)
            if self.condition:
                self.run = self.run + 1 if value < self.off and not lasting and not loud else 0
                if self.run >= self.off_delay:
                    self.condition, self.run = False, 0
            else:
                self.above.append(loud or value > self.on)
                if len(self.above) > self.within:
                    self.above.popleft()
                plain = sum(self.above) >= self.on_delay
                if plain or lasting:
                    self.condition, self.faint = True, not plain
                    self.above.clear()  # a window counts for one alarm only
        if self.standing and not self.condition:
            self.standing = False
            return CLEARED
        if self.condition and not self.standing and not self.suppressed(at):
            self.standing, self.acknowledged = True, False
            self.far, self.kinds, self.settling = -math.inf if value is None else value, frozenset(kinds), SETTLE
            self.beyond.clear()
            return RAISED
        if self.standing and value is not None and not self.suppressed(at) and self._is_new(value, frozenset(kinds)):
            self.acknowledged = False
            return ANEW
        return ""

    def _is_new(self, value: float, kinds: frozenset[str]) -> bool:
        """Take a window of the alarm that stands; whether another fault has come on top, by the rule above."""
        if self.settling:
            self.settling -= 1
            self.far, self.kinds = max(self.far, value), self.kinds | kinds
            return False
        farther = value > max(TWICE * self.far, self.far + 1, self.on)
        self.beyond.append((value, farther, kinds - self.kinds if value > self.on else frozenset()))
        if len(self.beyond) > self.within:
            self.beyond.popleft()
        found = Counter(kind for _, _, new in self.beyond for kind in new)
        lasting = frozenset(kind for kind, count in found.items() if count >= self.on_delay)
        if sum(farther for _, farther, _ in self.beyond) < self.on_delay and not lasting:
            return False
        self.far = max(self.far, *(score for score, _, _ in self.beyond))
        self.kinds, self.new_kinds = self.kinds | found.keys(), lasting
        self.settling = SETTLE
        self.beyond.clear()
        return True

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
