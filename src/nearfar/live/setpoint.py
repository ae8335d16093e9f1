"""A set-point from what was heard: how many alarms would it have made on the days that are on record?

    alarms a week <= (m + sqrt(m)) / weeks, m = n + 1         n: alarms of `Alarm` on the recorded windows

The normals that a detector was fitted on say little about one window in 10,000, and nothing of how windows hang
together; some days of listening say both. A set-point just below which the next alarm waits makes n + 1 of them on
average in as many weeks again; with a standard deviation on top, five in six plants have fewer. Sound that people
called a fault is left out. Even with no alarm at all, a promise of so many a week takes two over so many weeks of
listening.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nearfar.check import number
from nearfar.live.alarm import RAISED, WEEK_S, Alarm
from nearfar.live.rows import FAULT, Event, Scored

BEFORE_FAULT_S = 3600.0  # a fault does not begin when it is noticed
STEPS = 40


@dataclass(frozen=True)
class Measured:
    """A set-point `value` that made `alarms` alarms in `weeks` of listening; None if there were too few weeks."""

    value: float | None
    alarms: int
    weeks: float
    needed_weeks: float


def measure(scores: Iterable[Scored], events: Sequence[Event], false_alarms_per_week: float, alarm: Alarm) -> Measured:
    """The lowest set-point that would have kept the promise on these windows, with the delays of `alarm`."""
    number("false alarms per week", false_alarms_per_week, above=0)
    faults = [(e.started - BEFORE_FAULT_S, e.ended) for e in events if e.verdict == FAULT]
    heard = (s for s in scores if not any(a <= s.t0 and (b is None or s.t0 <= b) for a, b in faults))
    judged, listened_s = _gathered(heard)
    weeks = listened_s / WEEK_S
    most = false_alarms_per_week * weeks  # m + sqrt(m)
    allowed = (math.sqrt(most + 0.25) - 0.5) ** 2 - 1 + 1e-9
    if allowed < 0 or not judged:
        return Measured(None, 0, weeks, 2 / false_alarms_per_week)
    low, high = min(judged), max(judged)  # above the highest there is no alarm
    for _ in range(STEPS):
        middle = (low + high) / 2
        if alarms(judged, middle, alarm) <= allowed:
            high = middle
        else:
            low = middle
    return Measured(high, alarms(judged, high, alarm), weeks, 2 / false_alarms_per_week)


def alarms(values: Sequence[float], on: float, alarm: Alarm) -> int:
    """How many alarms these windows make, one after the other, with a set-point and the delays of `alarm`."""
    fresh = replace(alarm, on=on, condition=False, standing=False, acknowledged=True, run=0)
    return sum(fresh.update(value, 0.0) == RAISED for value in values)


def _gathered(heard: Iterable[Scored]) -> tuple[Sequence[float], float]:
    """(values of windows that were judged, seconds that were listened to: windows overlap, with gaps between them)."""
    judged, total, end = array("d"), 0.0, float("-inf")
    for s in heard:
        total += max(0.0, s.t1 - max(s.t0, end))
        end = max(end, s.t1)
        if s.anomalous is not None:
            judged.append(s.value)
    return judged, total
