"""Is the machine, or its surroundings, changing slowly? The median normal score of each day, and a proposal.

    baseline   median of the first BASE days      now   median of the last RECENT days
    creeping   now - baseline > CREEPS, and the days rise more often than they fall (Kendall's tau > TAU)

Proposes to add recent normals as a new domain, and never does so by itself: a slow fault looks the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

BASE, RECENT, FEWEST_DAYS = 5, 3, 8
FEWEST_WINDOWS = 20  # in a day that counts
CREEPS = 0.5  # standard deviations of the normals
TAU = 0.3

Day = tuple[float, float, int]  # start (s since 1970), median score, windows


@dataclass(frozen=True)
class Drift:
    """The days that count, where they began and are now (None: too few days), and whether they creep."""

    days: tuple[Day, ...]
    baseline: float | None = None
    now: float | None = None
    creeping: bool = False

    def text(self, model: str, samples: str) -> str:
        """What to do, in words; `samples` is a folder of recent normal windows."""
        if self.baseline is None or self.now is None:
            heard = "1 day has" if len(self.days) == 1 else f"{len(self.days) or 'no'} days have"
            return f"{heard} been heard; {FEWEST_DAYS} are needed to see a trend."
        trend = f"the median normal score was {self.baseline:+.2f} and is {self.now:+.2f} standard deviations"
        if not self.creeping:
            return f"No trend: {trend}."
        return (
            f"Creeping: {trend}. If the machine is well, listen to the recordings in {samples} and add them as a new "
            f"domain: nearfar add {model} {samples} --domain target"
        )


def look(days: Sequence[Day]) -> Drift:
    """The drift over days, oldest first (`history.medians`); days with few windows do not count."""
    kept = tuple(day for day in days if day[2] >= FEWEST_WINDOWS)
    if len(kept) < FEWEST_DAYS:
        return Drift(kept)
    values = [value for _, value, _ in kept]
    baseline, now = median(values[:BASE]), median(values[-RECENT:])
    signs = [(b > a) - (b < a) for a, b in combinations(values, 2)]
    return Drift(kept, baseline, now, now - baseline > CREEPS and sum(signs) / len(signs) > TAU)
