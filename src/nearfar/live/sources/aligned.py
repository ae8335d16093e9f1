"""Near and far from two separate streams, aligned by the sound that is in both.

    lag = argmax over |tau| <= REACH_S of the generalised cross-correlation with phase transform (GCC-PHAT)

Two streams start at different times, and their clocks differ by parts in a million. The lag is estimated from the first
LOOK_S seconds and again every EVERY_S seconds. If it has grown beyond APART_S, the later stream is cut, which is a gap:
samples are never joined across a cut. `problem` reports the drift, and a correlation without a clear peak, after which
the streams stay as they are.

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
LONGEST_S = 60.0  # of samples of one stream while the other gives none


def lag(near: Array, far: Array, rate: int, reach_s: float = REACH_S) -> tuple[float, float]:
    """The delay (s) of `far` (N,) after `near` (N,), and its clarity (peak over RMS of the correlation)."""
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
    """Two streams of one channel as one stream of two channels."""

    def __init__(self, near: SampleStream, far: SampleStream) -> None:
        if near.rate != far.rate:
            raise ValueError(f"near comes at {near.rate} Hz and far at {far.rate} Hz: give both one rate")
        self.near, self.far, self.rate = near, far, near.rate
        self._unclear = self._drift = ""
        self._restart()

    @property
    def finite(self) -> bool:
        """Whether both streams are files."""
        return self.near.finite and self.far.finite

    @property
    def is_ahead(self) -> bool:
        """Whether both streams come faster than real time."""
        return self.near.is_ahead and self.far.is_ahead

    @property
    def problem(self) -> str:
        """The problems of either stream and of their alignment, or ""."""
        return "; ".join(p for p in (self.near.problem, self.far.problem, self._unclear, self._drift) if p)

    def chunks(self, stop: threading.Event) -> Iterator[Chunk | None]:
        """See `SampleStream`; ends when either stream does."""
        self._restart(gap=self._gap)
        streams = self.near.chunks(stop), self.far.chunks(stop)
        for pieces in zip(*streams, strict=False):
            for i, (own, other) in enumerate((pieces, pieces[::-1])):
                more = self._read_ahead(streams[i]) if own is not None and other is None else ()
                for piece in (own, *more):
                    self._put(i, piece)
            yield self._aligned_chunk()

    def _read_ahead(self, stream: Iterator[Chunk | None]) -> Iterator[Chunk | None]:
        """More chunks of one stream while the other gives none; unread chunks would delay the stream from then on."""
        left = round((POLL_S + CHUNK_S) * self.rate)
        for piece in stream:
            yield piece
            left -= 0 if piece is None else piece[0].shape[1]
            if piece is None or left <= 0:
                return

    def _restart(self, gap: bool = False) -> None:
        """Drop all samples; the lag must be estimated again."""
        self._waiting = [np.zeros((1, 0), np.float32) for _ in range(2)]
        self._skip = [0, 0]  # samples of each stream that are still to be cut
        self._tail = np.zeros((2, 0), np.float32)  # the last aligned samples, to estimate the lag from
        self._aligned, self._gap = False, gap
        self._since_cut = self._since_estimate = 0  # samples since then

    def _put(self, i: int, piece: Chunk | None) -> None:
        if piece is None:
            return
        samples, gap = piece[0][:1], piece[1]
        if gap:
            self._restart(gap=True)
        skip = min(self._skip[i], samples.shape[1])
        self._skip[i] -= skip
        self._waiting[i] = np.concatenate([self._waiting[i], samples[:, skip:]], axis=1)
        if self._waiting[i].shape[1] > LONGEST_S * self.rate:  # the other stream gives nothing
            self._restart(gap=True)

    def _aligned_chunk(self) -> Chunk | None:
        ready, look = min(h.shape[1] for h in self._waiting), round(LOOK_S * self.rate)
        if not self._aligned:
            if ready >= look:
                self._estimate_lag(np.concatenate([h[:, :look] for h in self._waiting]))
                self._aligned = True
            return None
        if not ready:
            return None
        out = np.concatenate([h[:, :ready] for h in self._waiting])
        self._waiting = [h[:, ready:] for h in self._waiting]
        gap, self._gap = self._gap, False
        self._since_cut, self._since_estimate = self._since_cut + ready, self._since_estimate + ready
        self._tail = np.concatenate([self._tail, out], axis=1)[:, -look:]
        if self._since_estimate >= EVERY_S * self.rate:
            self._estimate_lag(self._tail)
        return out, gap

    def _estimate_lag(self, both: Array) -> None:
        """Estimate the lag of `both` (2, N); at first, or if it is too large, cut the later stream."""
        self._since_estimate = 0
        found, clear = lag(both[0], both[1], self.rate)
        self._unclear = "" if clear >= CLEAR else "near and far have no sound in common, so they cannot be aligned"
        if clear < CLEAR:
            return
        if self._aligned and abs(found) > APART_S:
            ppm = f"{1e6 * found * self.rate / self._since_cut:+.0f} parts in a million"
            self._drift = (
                f"the clocks of near and far differ by {ppm}, so the two streams are cut and aligned repeatedly"
            )
        if not self._aligned or abs(found) > APART_S:
            late = 1 if found > 0 else 0
            skip = round(abs(found) * self.rate)
            self._skip[late] += max(0, skip - self._waiting[late].shape[1])
            self._waiting[late] = self._waiting[late][:, skip:]
            self._gap = self._gap or self._aligned
            self._since_cut = 0
