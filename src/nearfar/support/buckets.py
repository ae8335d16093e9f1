"""Token buckets: how often something may happen, for each of many keys; no clock is read."""

from __future__ import annotations

from collections import OrderedDict

KEYS = 4096  # whose buckets are kept


class Buckets:
    """Token buckets by key; the least recently used are dropped."""

    def __init__(self, per_s: float, burst: float) -> None:
        self.per_s, self.burst = per_s, burst
        self.levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Take one token of `key`: 0.0 if there was one, else the seconds until there is one."""
        level, at = self.levels.pop(key, (self.burst, now))
        level = min(self.burst, level + max(0.0, now - at) * self.per_s)
        wait = 0.0 if level >= 1 else (1 - level) / self.per_s
        self.levels[key] = (level if wait else level - 1, now)
        if len(self.levels) > KEYS:
            self.levels.popitem(last=False)
        return wait
