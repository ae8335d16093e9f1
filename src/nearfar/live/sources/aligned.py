"""Near and far from two streams of their own, aligned by what both hear.

    lag = argmax over |tau| <= REACH_S of the generalised cross-correlation with phase transform (GCC-PHAT)

Two streams start at different times and their clocks differ by parts in a million. The lag is found from the first
LOOK_S seconds and looked at again every EVERY_S; its slope is the drift (reported, ppm). Streams that have come apart
by more than APART_S are cut again, which is a gap: samples are never glued. Without a clear peak they stay as they are,
and `problem` says so.

Reference: Knapp and Carter 1976.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from nearfar.live.sources.streams import CHUNK_S, POLL_S, Chunk, SampleStream
from nearfar.support.check import Array

REACH_S, LOOK_S, EVERY_S = 3.0, 10.0, 60.0
APART_S = 0.01
CLEAR = 8.0  # the peak over the root mean square of the correlation
LONGEST_S = 60.0  # of one stream without the other


def lag(near: Array, far: Array, rate: int, reach_s: float = REACH_S) -> tuple[float, float]:
    """How much later (s) far hears what near hears, and how clear that is (peak over RMS); arrays (N,)."""
    from scipy import fft

    n = fft.next_fast_len(2 * len(near), real=True)
    cross = np.conj(fft.rfft(near, n)) * fft.rfft(far, n)
    size = np.abs(cross)
    response = fft.irfft(cross / np.maximum(size, 1e-6 * size.max(initial=1e-30)), n)
    reach = min(round(reach_s * rate), len(near) - 1)
    around = np.r_[response[-reach:], response[: reach + 1]]
    top = int(np.argmax(np.abs(around)))
    return (top - reach) / rate, float(np.abs(around[top]) / max(np.sqrt(np.mean(around**2)), 1e-30))


class AlignedPair:
    """Two one-channel feeds as one of two channels."""

    def __init__(self, near: SampleStream, far: SampleStream) -> None:
        if near.rate != far.rate:
            raise ValueError(f"near comes at {near.rate} Hz and far at {far.rate} Hz: give both one rate")
        self.near, self.far, self.rate = near, far, near.rate
        self._doubt = self._drift = ""
        self._begin()

    @property
    def problem(self) -> str:
        """What is wrong with either stream, or with their alignment."""
        return "; ".join(p for p in (self.near.problem, self.far.problem, self._doubt, self._drift) if p)

    def chunks(self, stop: threading.Event) -> Iterator[Chunk | None]:
        """See `Feed`; ends when either stream does."""
        feeds = self.near.chunks(stop), self.far.chunks(stop)
        for pieces in zip(*feeds, strict=False):
            for i, (own, other) in enumerate((pieces, pieces[::-1])):
                late = self._meanwhile(feeds[i]) if own is not None and other is None else ()
                for piece in (own, *late):
                    self._take(i, piece)
            yield self._give()

    def _meanwhile(self, feed: Iterator[Chunk | None]) -> Iterator[Chunk | None]:
        """What else one stream has while the other is waited for: unread, it would be late for good."""
        left = round((POLL_S + CHUNK_S) * self.rate)
        for piece in feed:
            yield piece
            left -= 0 if piece is None else piece[0].shape[1]
            if piece is None or left <= 0:
                return

    def _begin(self, gap: bool = False) -> None:
        """Nothing is held, and nothing known of the lag."""
        self._held = [np.zeros((1, 0), np.float32) for _ in range(2)]
        self._skip = [0, 0]  # samples that only the earlier stream has
        self._tail = np.zeros((2, 0), np.float32)  # of what was given, to look at
        self._aligned, self._gap = False, gap
        self._given = self._since = 0

    def _take(self, i: int, piece: Chunk | None) -> None:
        if piece is None:
            return
        samples, gap = piece[0][:1], piece[1]
        if gap:
            self._begin(gap=True)
        skip = min(self._skip[i], samples.shape[1])
        self._skip[i] -= skip
        self._held[i] = np.concatenate([self._held[i], samples[:, skip:]], axis=1)
        if self._held[i].shape[1] > LONGEST_S * self.rate:  # the other one is silent
            self._begin(gap=True)

    def _give(self) -> Chunk | None:
        ready, look = min(h.shape[1] for h in self._held), round(LOOK_S * self.rate)
        if not self._aligned:
            if ready >= look:
                self._look(np.concatenate([h[:, :look] for h in self._held]))
                self._aligned = True
            return None
        if not ready:
            return None
        out = np.concatenate([h[:, :ready] for h in self._held])
        self._held = [h[:, ready:] for h in self._held]
        gap, self._gap = self._gap, False
        self._given, self._since = self._given + ready, self._since + ready
        self._tail = np.concatenate([self._tail, out], axis=1)[:, -look:]
        if self._since >= EVERY_S * self.rate:
            self._look(self._tail)
        return out, gap

    def _look(self, both: Array) -> None:
        """Find the lag; cut the streams apart if it is too large, else report the drift since they were cut."""
        self._since = 0
        found, clear = lag(both[0], both[1], self.rate)
        self._doubt = "" if clear >= CLEAR else "near and far have no sound in common to be aligned by"
        if clear < CLEAR:
            return
        if self._aligned and abs(found) > APART_S:
            drift = f"{1e6 * found * self.rate / self._given:+.0f} s in a million against near's"
            self._drift = f"far's clock drifts by {drift}, so the two are cut and aligned anew again and again"
        if not self._aligned or abs(found) > APART_S:
            late = 1 if found > 0 else 0
            skip = round(abs(found) * self.rate)
            self._skip[late] += max(0, skip - self._held[late].shape[1])
            self._held[late] = self._held[late][:, skip:]
            self._gap = self._gap or self._aligned
            self._given = 0
