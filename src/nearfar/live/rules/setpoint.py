"""Set-points of a machine under watch all the time: the first one, the alarms to expect, and a measured one.

The first set-point.   p: share of healthy windows above it      w: windows a week      n: on-delay, windows in a row

    alarms a week, at most          `rhythm`                     however the scores of neighbouring windows depend
    alarms a week, if independent   w p^n (1 - p) / (1 - p^n)    success runs of length n (Feller)

N normals can show no p rarer than 1 / (N + 1). Where PER_WEEK alarms "at most" would need a rarer p, that set-point
would lie on an extrapolated tail and miss faults. The first set-point then has p = 1 / (N + 1): an alarm needs n
windows in a row that are each more unusual than every normal.

A measured set-point.  `measure` replays recorded windows through the alarm:

    alarms a week <= (m + sqrt(m)) / weeks, m = n + 1            n: alarms in the recorded weeks

The next alarm may wait just below the set-point, hence n + 1; the square root is one standard deviation of a Poisson
count. With n = 0 a promise of r alarms a week needs 2 / r weeks of windows.

Reference: Feller 1968, XIII.7 (success runs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nearfar.detector.system import BY_HAND, Resolution, Threshold, resolution_of
from nearfar.live.history.records import FAULT, Event, ScoreRecord
from nearfar.live.rules.alarm import WEEK_S, Alarm
from nearfar.live.rules.rhythm import Rhythm, count_text
from nearfar.support.check import Array, number

if TYPE_CHECKING:
    from nearfar.detector import Detector

PER_WEEK = 7.0  # most false alarms a week of the first set-point, where the normals can show so few
MOST_RATE = 0.5  # of healthy windows above a set-point, where more false alarms are allowed than there are windows
BEFORE_FAULT_S = 3600.0  # windows this long before a fault are left out: it began before people noticed it
MOST_IN_ALARM = 0.01  # share of the windows during which an alarm may stand
STEP = 0.01  # between set-points that are tried, in the score's unit
MORE = "for a measured figure: more normals, or after some days nearfar history set-point"


def set_point(detector: Detector, rhythm: Rhythm) -> Threshold:
    """The set-point of a detector for a machine under watch: its own if somebody chose one, else the first one."""
    if detector.false_alarm_rate is not None or detector.threshold.method == BY_HAND:
        return detector.threshold
    rate = first_rate(len(detector.normals), rhythm)
    point = detector.threshold_for(rate)
    if rate > rarest_rate(len(detector.normals)):
        return point
    return replace(point, value=max(point.value, float(detector.train_values.max())))  # above every normal


def first_rate(normals: int, rhythm: Rhythm) -> float:
    """The share of healthy windows above the first set-point."""
    return max(min(PER_WEEK / rhythm.per_week(1.0), MOST_RATE), rarest_rate(normals))


def rarest_rate(normals: int) -> float:
    """The rarest share of healthy windows that this many normals can show."""
    return 1 / (normals + 1)


def independent_per_week(rate: float, rhythm: Rhythm) -> float:
    """False alarms a week if the scores of windows were independent; never more than `Rhythm.per_week`."""
    n, windows = rhythm.on_delay, 7 * rhythm.windows_per_day
    if rate >= 1:
        return windows / n
    runs: float = rate**n * (1 - rate) / (1 - rate**n)
    return min(runs * windows, rhythm.per_week(rate))


def expected_alarms(detector: Detector, point: Threshold, rhythm: Rhythm, alarm: Alarm | None = None) -> list[str]:
    """A set-point, and the false alarms to expect of a healthy machine, as sentences."""
    most, least = rhythm.per_week(point.rate), independent_per_week(point.rate, rhythm)
    shown = resolution_of(detector.train_values, point, detector.method)
    above = f"above {point.value:.1f}; the most unusual of its {shown.normals} normals scores {shown.loudest:.1f}"
    if rhythm.on_delay == 1:
        lines = [f"alarm when a window scores {above}", f"of a healthy machine expect at most {how_often(most)}"]
    else:
        lines = [
            f"alarm when {rhythm.on_delay} windows in a row each score {above}",
            f"of a healthy machine expect between {how_often(least)} (if unusual windows come independently) and "
            f"{how_often(most)} (if they always come in a row)",
        ]
    if alarm is not None and alarm.within > alarm.on_delay:
        lines = [
            f"alarm when {alarm.on_delay} of {alarm.within} windows score {above}",
            f"of a healthy machine expect at most {how_often(most)}",
        ]
    if alarm is not None and alarm.evidence is not None:
        lines.append("alarm, too, when window after window is a little unusual for some minutes")
    return [*lines, f"counted for {rhythm.text()}", *consequences(shown, rhythm)]


def unusual_text(detector: Detector) -> str:
    """The set-point of unusual recordings, and how many to expect of a healthy machine, as a sentence."""
    if detector.unusual_threshold >= detector.threshold.value:
        return "no recording is called unusual below the alarm: both set-points are the same"
    return (
        f"unusual above {detector.unusual_threshold:.2f}: about {100 * detector.unusual_rate:.3g} of 100 healthy "
        "recordings of a known session, many more of a new one; listen, and add those that are fine"
    )


def consequences(shown: Resolution, rhythm: Rhythm) -> list[str]:
    """What it means that a set-point lies beyond what the normals can show, as sentences; [] if it does not."""
    if not shown.beyond:
        return []
    rate, unit = shown.threshold.rate, rhythm.unit
    share = f"1 in {1 / max(rate, 1e-12):,.0f} {unit}"
    times = f"{shown.times_loudest:.2g} times as high as" if shown.times_loudest else "above"
    return [
        f"{wish_text(rhythm.per_week(rate))} ({share}) lies beyond what {shown.normals} normals can show: "
        f"the set-point is {shown.threshold.value:.1f}, {times} your loudest normal ({shown.loudest:.1f}), "
        "so faint faults may stay below it",
        f"the lowest rate that they can show is 1 in {1 / shown.lowest_rate:,.0f} "
        f"({count_text(rhythm.per_week(shown.lowest_rate) / 7)} a day of {rhythm.clip_seconds:.3g} s {unit}), "
        f"at set-point {shown.lowest_value:.1f}; more normals can show less",
    ]


def wish_text(a_week: float) -> str:
    """A number of false alarms a week as the subject of a sentence."""
    for unit, per_week in (("a day", 7.0), ("a week", 1.0)):
        if a_week > 1.005 * per_week:
            return f"{count_text(a_week / per_week)} false alarms {unit}"
        if a_week > 0.995 * per_week:
            return f"one false alarm {unit}"
    often = how_often(a_week)
    return f"one false alarm {often.removeprefix('1 ')}" if often.startswith("1 in") else f"{often} false alarms"


def how_often(a_week: float) -> str:
    """A number of false alarms a week in a readable unit of time."""
    if a_week >= 14:
        return f"{count_text(a_week / 7)} a day"
    if a_week >= 0.95:
        return f"{count_text(a_week)} a week"
    weeks = 1 / max(a_week, 1e-6)
    if weeks < 9:
        return f"1 in {count_text(weeks)} weeks"
    if weeks < 104:
        return f"1 in {count_text(weeks / 4.345)} months"
    years = weeks / 52.18
    return f"1 in {count_text(years)} years" if years < 100 else "less than 1 in 100 years"


@dataclass(frozen=True)
class Measured:
    """A set-point `value` that made `alarms` alarms in `weeks` of recorded windows, for a share `in_alarm` of the time.

    None if there are fewer weeks than `needed_weeks`.
    """

    value: float | None
    alarms: int
    weeks: float
    needed_weeks: float
    in_alarm: float = 0.0


def measure(
    scores: Iterable[ScoreRecord], events: Sequence[Event], false_alarms_per_week: float, alarm: Alarm
) -> Measured:
    """The lowest set-point such that it, and every higher one, keeps the promise on the recorded windows.

    Parameters
    ----------
    scores
        Recorded windows of one machine, oldest first. Windows around events with the verdict "fault" are left out.
    events
        The machine's events.
    false_alarms_per_week
        Most alarms a week; in addition an alarm may stand for MOST_IN_ALARM of the windows.
    alarm
        Its deadband and delays are used.

    The number of alarms does not rise steadily as the set-point falls: far below the scores one alarm is raised and
    never cleared. The search therefore starts at the highest score and stops at the first set-point that breaks the
    promise.
    """
    number("false alarms per week", false_alarms_per_week, above=0)
    faults = [(e.started - BEFORE_FAULT_S, e.ended) for e in events if e.verdict == FAULT]
    healthy = (s for s in scores if not any(a <= s.t0 and (b is None or s.t0 <= b) for a, b in faults))
    values, seconds = _judged(healthy)
    weeks, needed = seconds / WEEK_S, 2 / false_alarms_per_week
    most = false_alarms_per_week * weeks  # = m + sqrt(m)
    allowed = (math.sqrt(most + 0.25) - 0.5) ** 2 - 1 + 1e-9
    if allowed < 0 or not len(values):
        return Measured(None, 0, weeks, needed)
    run_minima = _nth_highest(values, alarm.on_delay, alarm.within)  # above the set-point, an alarm is raised
    run_maxima = _sliding(values, alarm.off_delay, np.maximum)  # and cleared where this is below set-point - deadband
    point = found_at = float(values.max())
    found = Measured(point, 0, weeks, needed)
    # only below one of `run_minima` can a lower set-point raise another alarm: the next such set-point
    while (point := float(np.max(run_minima, where=run_minima <= point, initial=-math.inf))) > -math.inf:
        count, windows = _replay(run_minima, run_maxima, point, point - alarm.deadband)
        # set-points from `point` up to the previous one raise at the same windows, and the higher clear more easily:
        # the most alarms are made just below the previous one
        higher = float(np.nextafter(found_at, -math.inf))
        count_above, _ = _replay(run_minima, run_maxima, higher, higher - alarm.deadband)
        if max(count, count_above) > allowed or windows > MOST_IN_ALARM * len(values):
            break
        found, found_at = Measured(point, count, weeks, needed, windows / len(values)), point
        point -= STEP
    return found


def _replay(run_minima: Array, run_maxima: Array, on: float, off: float) -> tuple[int, int]:
    """(alarms, windows in alarm): `run_minima` above `on` raises an alarm, `run_maxima` below `off` clears it."""
    raised, cleared = np.flatnonzero(run_minima > on), np.flatnonzero(run_maxima < off)
    count = windows = at = 0
    while (i := int(np.searchsorted(raised, at))) < len(raised):
        start = int(raised[i])
        j = int(np.searchsorted(cleared, start, side="right"))  # some of the last windows may be high, the newest low
        at = int(cleared[j]) if j < len(cleared) else len(run_minima)
        count, windows = count + 1, windows + at - start
    return count, windows


def _nth_highest(values: Array, n: int, within: int) -> Array:
    """The n-th highest of each `within` values in a row, at the last of them; of fewer at the start, NaN before n."""
    if within == n:
        return _sliding(values, n, np.minimum)
    padded = np.concatenate([np.full(within - 1, -np.inf), values])
    out = np.partition(np.lib.stride_tricks.sliding_window_view(padded, within), within - n, axis=1)[:, within - n]
    out[: n - 1] = np.nan
    return out


def _sliding(values: Array, length: int, extreme: np.ufunc) -> Array:
    """The minimum or maximum of each `length` values in a row, at the last of them; NaN before there are enough."""
    out = np.full(len(values), np.nan)
    if len(values) >= length:
        out[length - 1 :] = extreme.reduce(np.lib.stride_tricks.sliding_window_view(values, length), axis=1)
    return out


def _judged(scores: Iterable[ScoreRecord]) -> tuple[Array, float]:
    """(scores (N,) of the judged windows, seconds that the windows cover: they overlap, and have gaps between them)."""
    covered, end = 0.0, -math.inf

    def judged() -> Iterable[float]:
        nonlocal covered, end
        for s in scores:
            covered += max(0.0, s.t1 - max(s.t0, end))
            end = max(end, s.t1)
            if s.anomalous is not None:
                yield s.score

    values = np.fromiter(judged(), np.float64)
    return values, covered
