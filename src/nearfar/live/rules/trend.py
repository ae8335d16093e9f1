"""Is the healthy score rising slowly, and when will it reach the set-point? A warning days before the alarm.

    hour     median and 90 % quantile of the healthy scores of an hour
    profile  what the hours of the day have in common: median over days of (hour - mean of the 24 h around it)
    rise     over the last L hours (LENGTHS), without the profile, in SEGMENTS equal parts: each part is higher than the
             one before, none by more than LARGEST of the whole rise (a step is no ramp), and the whole rise is at
             least RISE and NOISE times the spread of such parts before
    slope    Theil and Sen: the median slope of all pairs of hours
    alarm at the time at which the 90 % quantile of an hour reaches the set-point at this slope

Without a profile (less than four days) only rises of two days and more count, so that a day and a night are no ramp.
Clock-free, and at most HOURS hours are kept.

Reference: Sen 1968 (Theil-Sen slope).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from nearfar.live.history.records import iso_time
from nearfar.support.check import Array
from nearfar.support.times import utc_time

HOUR_S = 3600.0
HOURS = 14 * 24
MOST_SCORES = 2000  # of an hour
LENGTHS = (240, 168, 120, 72, 48, 36, 24)  # hours; the longest rise is reported
SEGMENTS = 6
LARGEST = 0.4
RISE = 1.0  # in the score's unit
NOISE = 8.0
COVERED = 0.6  # of the hours must have scores
WITHIN_H = 14 * 24.0  # an alarm further away is no warning
FEWEST_OF_A_DAY = 20  # hours with scores
PROFILE_H, NO_PROFILE_H = 96, 48


@dataclass(frozen=True)
class Ramp:
    """A plain rise: for how many hours, its slope in the score's unit per day, and when it reaches the set-point."""

    hours: int
    per_day: float
    alarm_at: float

    def text(self) -> str:
        """The warning as a sentence without its full stop."""
        day = utc_time(self.alarm_at)
        return (
            f"the healthy score has been rising for {self.hours} h, by {self.per_day:.2g} a day; "
            f"at this rate it alarms on {day:%a %Y-%m-%d}, about {day:%H:00} UTC"
        )

    def plain(self) -> dict[str, Any]:
        """The rise as plain data, with the time in ISO 8601 too and the sentence."""
        return {**asdict(self), "alarm_at_iso": iso_time(self.alarm_at), "text": self.text()}


class Trend:
    """The hours of one machine; `update` with every healthy window, oldest first."""

    def __init__(self) -> None:
        self._hours: deque[tuple[int, float, float]] = deque(maxlen=HOURS)  # hour, median, 90 % quantile
        self._hour, self._scores = -1, list[float]()

    def update(self, score: float, at: float) -> bool:
        """Take the score of a healthy window and its time; True if an hour is complete, so that `ramp` may change."""
        hour, complete = int(at // HOUR_S), False
        if hour > self._hour:
            if complete := bool(self._scores):
                high = float(np.quantile(self._scores, 0.9))
                self._hours.append((self._hour, median(self._scores), high))
            self._hour, self._scores = hour, []
        if hour == self._hour and len(self._scores) < MOST_SCORES:
            self._scores.append(score)
        return complete

    def ramp(self, on: float) -> Ramp | None:
        """The rise that is plain, if it reaches the set-point `on` soon."""
        if len(self._hours) < SEGMENTS:
            return None
        hours, values, high = (np.array(column, np.float64) for column in zip(*self._hours, strict=True))
        profile = _profile(hours, values)
        level = values if profile is None else values - profile[hours.astype(int) % 24]
        for length in LENGTHS:
            if profile is None and length < NO_PROFILE_H:
                break
            recent = hours > hours[-1] - length
            if recent.sum() < COVERED * length or not _rises(hours, level, length):
                continue
            slope = theil_sen(hours[recent], level[recent])
            now = float(np.median(level[recent] + slope * (hours[-1] - hours[recent])))
            left = on - now - float(np.median((high - values)[recent][-24:]))
            if slope > 0 and left < slope * WITHIN_H:
                return Ramp(length, 24 * slope, HOUR_S * (float(hours[-1]) + 1 + max(left / slope, 0.0)))
        return None


def theil_sen(x: Array, y: Array) -> float:
    """The median slope of all pairs of points (x, y), each (N,), N >= 2."""
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


def _profile(hours: Array, values: Array) -> Array | None:
    """The profile (24,) of a day, or None if there are too few days."""
    first, last = int(hours[0]), int(hours[-1])
    if last - first < PROFILE_H:
        return None
    every = np.full(last - first + 1, math.nan)
    every[hours.astype(int) - first] = values
    around = np.lib.stride_tricks.sliding_window_view(every, 24)  # the 24 h from 12 h before each hour on
    known = np.isfinite(around).sum(axis=1)
    mean = np.nansum(around, axis=1) / np.maximum(known, 1)
    apart = np.where(known >= FEWEST_OF_A_DAY, every[12 : 12 + len(around)] - mean, math.nan)
    days = [apart[(first + 12 + np.arange(len(apart))) % 24 == hour] for hour in range(24)]
    if any(np.isfinite(day).sum() < 2 for day in days):
        return None
    return np.array([np.nanmedian(day) for day in days])


def _parts(hours: Array, level: Array, first: float, length: float) -> Array:
    """The median level of each of SEGMENTS equal parts of [first, first + length); NaN where there are no hours."""
    part = np.floor((hours - first) / (length / SEGMENTS))
    return np.array([np.median(level[part == i]) if (part == i).any() else math.nan for i in range(SEGMENTS)])


def _rises(hours: Array, level: Array, length: int) -> bool:
    first = hours[-1] + 1 - length
    steps = np.diff(_parts(hours, level, first, length))
    total = float(steps.sum())
    if not (steps > 0).all() or total < RISE or steps.max() > LARGEST * total:  # NaN: not
        return False
    before = []
    while first - length >= hours[0]:
        first -= length
        before += list(np.diff(_parts(hours, level, first, length)))
    if not before:  # the spread of the hours around the rise itself
        recent = hours > hours[-1] - length
        around = level[recent] - theil_sen(hours[recent], level[recent]) * hours[recent]
        spread = float(np.median(np.abs(around - np.median(around))))
    else:
        spread = float(np.nanmedian(np.abs(before)))
    return total > NOISE * 1.4826 * spread
