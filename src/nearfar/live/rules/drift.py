"""Does the machine, or its surroundings, change slowly? A test of the median normal score of each day, and advice.

    baseline   median of the first BASE days      now   median of the last RECENT days
    creeping   now - baseline > RISE, and Kendall's tau of the days > TAU: most pairs of days rise

If the score creeps, the advice is to add recent normals as a new domain. Nothing is added automatically, because a slow
fault looks the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from nearfar.support.words import plural

BASE, RECENT, FEWEST_DAYS = 5, 3, 8
FEWEST_WINDOWS = 20  # a day with fewer windows is ignored
RISE = 0.5  # in standard deviations of the normals
TAU = 0.3

Day = tuple[float, float, int]  # start (s since 1970), median score, windows


@dataclass(frozen=True)
class Drift:
    """The days used, the first and the recent level (None: too few days), and whether the score creeps."""

    days: tuple[Day, ...]
    baseline: float | None = None
    now: float | None = None
    creeping: bool = False

    def text(self, model: str, samples: str) -> str:
        """The result and the advice in words; `samples` is a folder of recent normal windows."""
        if self.baseline is None or self.now is None:
            return f"{plural(len(self.days), 'day')} with enough windows; a trend needs {FEWEST_DAYS}."
        trend = f"the median normal score was {self.baseline:+.2f} and is {self.now:+.2f} standard deviations"
        if not self.creeping:
            return f"No trend: {trend}."
        return (
            f"Creeping: {trend}. If the machine is well, listen to the recordings in {samples} and add them as a new "
            f"domain (nearfar add {model} {samples} --domain target)"
        )


def find_drift(days: Sequence[Day]) -> Drift:
    """The drift over days, oldest first (`History.daily_medians`); days with few windows are ignored."""
    kept = tuple(day for day in days if day[2] >= FEWEST_WINDOWS)
    if len(kept) < FEWEST_DAYS:
        return Drift(kept)
    values = [value for _, value, _ in kept]
    baseline, now = median(values[:BASE]), median(values[-RECENT:])
    signs = [(b > a) - (b < a) for a, b in combinations(values, 2)]
    return Drift(kept, baseline, now, now - baseline > RISE and sum(signs) / len(signs) > TAU)
