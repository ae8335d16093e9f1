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
from typing import TYPE_CHECKING

from nearfar.live.alarm import RAISED, WEEK_S, Alarm, per_week, rate_for
from nearfar.live.records import FAULT, Event, Scored
from nearfar.support.check import number
from nearfar.threshold import BY_HAND, Threshold, from_normals

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
            judged.append(s.score)
    return judged, total


# What a set-point promises of a healthy machine that is heard all the time, and which one to begin with.
#
#     p   share of healthy windows above it      w   windows a week      n   on-delay, windows in a row
#
#     at most      p w / n                         whatever windows have in common (see `alarm`)
#     independent  w p^n (1 - p) / (1 - p^n)       if windows had nothing in common: a run of n begins so often
#
# N normals can show no p rarer than 1 / (N + 1). Where 7 alarms a week "at most" would need one, the set-point that
# keeps them lies far out on an estimated tail and misses faults; then p = 1 / (N + 1) is what to begin with: n
# windows in
# a row that are each more unusual than every normal.
#
# Reference: Feller 1968, XIII.7 (success runs).
#

if TYPE_CHECKING:
    from nearfar.detector import Detector

PER_WEEK = 7.0  # false alarms, at most, where the normals can show them


def set_point(detector: Detector, hop_s: float, on_delay: int) -> Threshold:
    """The set-point of a detector that listens all the time: its own if somebody chose it, else the first one."""
    if detector.false_alarm_rate is not None or detector.threshold.method == BY_HAND:
        return detector.threshold
    rate = first_rate(len(detector.normals), hop_s, on_delay)
    point = from_normals(detector.train_values, rate, detector.method)
    if rate > backed(len(detector.normals)):
        return point
    return replace(point, value=max(point.value, float(detector.train_values.max())))  # above every normal


def first_rate(normals: int, hop_s: float, on_delay: int) -> float:
    """The share of healthy windows above the set-point of a machine for which nobody has chosen one."""
    return max(rate_for(PER_WEEK, hop_s, on_delay), backed(normals))


def backed(normals: int) -> float:
    """The rarest share of healthy windows that so many normals can show."""
    return 1 / (normals + 1)


def independent_per_week(rate: float, hop_s: float, on_delay: int) -> float:
    """False alarms a week if healthy windows had nothing in common; never more than `per_week`."""
    if rate >= 1:
        return per_week(rate, hop_s, on_delay)
    runs: float = rate**on_delay * (1 - rate) / (1 - rate**on_delay)
    return runs * WEEK_S / hop_s


def in_words(detector: Detector, point: Threshold, hop_s: float, on_delay: int) -> list[str]:
    """A set-point, and what to expect of a healthy machine: a sentence a line."""
    most, least = per_week(point.rate, hop_s, on_delay), independent_per_week(point.rate, hop_s, on_delay)
    normals, odd = len(detector.normals), float(detector.train_values.max())
    above = f"above {point.value:.1f}; the most unusual of its {normals} normals scores {odd:.1f}"
    if on_delay == 1:
        lines = [f"alarm when a window scores {above}", f"of a healthy machine expect at most {often(most)}"]
    else:
        lines = [
            f"alarm when {on_delay} windows in a row each score {above}",
            f"of a healthy machine expect between {often(least)} (if its unusual windows come as chance has it) and "
            f"{often(most)} (if they always come in a row)",
        ]
    if point.rate < 0.999 * backed(normals):
        lines.append(f"that is rarer than {normals} normals can show: an estimate, and faint faults may stay below it")
    return lines


MEASURED = "for a measured figure: more normals, or after some days nearfar history set-point"


def often(a_week: float) -> str:
    """A number of false alarms a week as people say it."""
    if a_week >= 14:
        return f"{_round(a_week / 7)} a day"
    if a_week >= 0.95:
        return f"{_round(a_week)} a week"
    weeks = 1 / max(a_week, 1e-6)
    if weeks < 9:
        return f"1 in {_round(weeks)} weeks"
    if weeks < 104:
        return f"1 in {_round(weeks / 4.345)} months"
    years = weeks / 52.18
    return f"1 in {_round(years)} years" if years < 100 else "less than 1 in 100 years"


def _round(x: float) -> str:
    return f"{x:,.0f}" if x >= 9.95 else f"{x:.2g}"
