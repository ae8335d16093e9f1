"""The lamp "unusual": lit while more of the last windows are unusual than a session that is known explains.

    n      the windows of an hour of sound; of a folder, FILES recordings
    light  more than 2 p n + 3 sqrt(2 p (1 - 2 p) n o) of the last n windows are unusual, and at least `fewest`
    out    at most 2 p n of them are

p is the share that is promised for a session that is known. Up to 1.9 p were measured there, so 2 p is the most that
such a session explains. o is the length of a window / hop: neighbours that share sound are unusual together.

Pure and clock-free, as `alarm`: judged windows are counted. Windows during a standing alarm, and while the machine is
shelved, are not given to it, so it keeps its state meanwhile. Other normals, or another set-point of unusual windows,
make a new lamp that is out; so does a restart.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

HOUR_S = 3600.0
FILES = 40
TIMES = 2.0  # the promised share: what a session that is known explains
SPREADS = 3.0  # standard deviations of the count above that


@dataclass
class Lamp:
    """The lamp of one machine: `n` windows, their `overlap` (length / hop), the promised `share`; starts out."""

    n: int
    overlap: float = 1.0
    fewest: int = 3
    share: float = 0.05
    lit: bool = False
    recent: deque[bool] = field(default_factory=deque)  # the last n judged windows: whether each is unusual

    def fresh(self) -> Lamp:
        """The same lamp before its first window."""
        return Lamp(self.n, self.overlap, self.fewest, self.share)

    @property
    def explained(self) -> float:
        """The most unusual windows that a session that is known explains."""
        return min(1.0, TIMES * self.share) * self.n

    @property
    def lights_at(self) -> int:
        """The number of unusual windows that lights the lamp."""
        spread = math.sqrt(self.explained * (1 - self.explained / self.n) * self.overlap)
        return max(self.fewest, math.floor(self.explained + SPREADS * spread) + 1)

    @property
    def count(self) -> int:
        """The unusual windows among the last n."""
        return sum(self.recent)

    def update(self, unusual: bool | None) -> None:
        """Take a window; None, which could not be judged, changes nothing."""
        if unusual is None:
            return
        self.recent.append(unusual)
        if len(self.recent) > self.n:
            self.recent.popleft()
        self.lit = self.count > self.explained if self.lit else self.count >= self.lights_at

    def text(self) -> str:
        """What was counted, and what it may be."""
        seen, expected = f"{self.count} of the last {len(self.recent)}", f"{self.explained:.0f} of {self.n}"
        return (
            f"{seen} windows are unusual, at most {expected} are expected: another session, or the beginning of a "
            "fault? Listen"
        )
