"""Blocks of samples -> windows, and a buffer of the last minute for the audio of events. No window spans a gap.

    samples   (C, N) float32, full scale = 1; row 0 is near, row 1 (if present) far       t0, t1   s since 1970, UTC

`Windower` turns blocks into windows of `window_s` every `hop_s`. Where a block does not follow the last one (a gap,
another rate), the incomplete window is dropped, and the next window begins after the gap. `Starts` dates recordings.
`SampleClock` dates the blocks of a stream: it counts samples and corrects the count slowly towards the clock, since the
clocks of sound cards and computers differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nearfar.audio import LONG_S, Clip
from nearfar.support.check import Array, number

CORRECTION = 1e-3  # share of the difference between count and clock that is corrected per block
LARGEST_DRIFT_S = 5.0  # a larger difference is not drift, but a file that is read fast, or a backlog
CLOCK_SET_S = 120.0  # a large difference that stays the same this long: the clock was set, or the computer slept
MOST = 96_000  # values a second of a buffer: two channels at 48 kHz
APART_S = 0.01  # between the windows of two recordings; those of one follow each other without a gap
KNOWN = 1000  # recordings
JITTER_S = 0.5  # a block may be this late without a gap, unless the source reports one
Report = Callable[[str, Exception], None]  # called with the name of a file that cannot be read, and why


@dataclass(frozen=True)
class SourceOptions:
    """How the sources of a machine are read."""

    window_s: float
    hop_s: float
    rate: int
    clock: Callable[[], float]
    report: Report
    whole_s: float = LONG_S  # of a folder: a file up to this length is one window
    near: int = 0
    far: int | None = 1
    ledger: Path | None = None  # of a folder: the file that lists the processed files
    once: bool = False  # of a folder: process the present files, then stop
    channels: int = 2  # of raw PCM: 2 are near and far, 1 is near alone
    form: str = "f32le"  # of raw PCM
    options: tuple[str, ...] = ()  # for ffmpeg, before -i
    poll_s: float = 2.0
    settle_s: float = 3.0


@dataclass(frozen=True, eq=False)
class SampleBlock:
    """Consecutive samples of a source; `gap`: samples are missing before them."""

    t0: float
    samples: Array
    rate: int
    gap: bool = False
    name: str = ""

    @property
    def seconds(self) -> float:
        """Length of the block."""
        return self.samples.shape[1] / self.rate

    @property
    def t1(self) -> float:
        """End of the block."""
        return self.t0 + self.seconds


@dataclass(frozen=True, eq=False)
class Window(SampleBlock):
    """A block of the detector's window length; its last `fresh` samples were not in the window before (None: all).

    `missing_s`, `codec`: see `Clip`.
    """

    fresh: int | None = None
    missing_s: float = 0.0
    codec: str = ""

    @property
    def clip(self) -> Clip:
        """The window as a clip. ValueError if it contains NaN."""
        far = self.samples[1] if len(self.samples) > 1 else None
        name = self.name or f"{self.t0:.3f}"
        return Clip(self.samples[0], far, self.rate, name, missing_s=self.missing_s, codec=self.codec)

    def level_dbfs(self, channel: int) -> float | None:
        """RMS of a channel in dB of full scale, without its offset; None if there is no such channel."""
        if channel >= len(self.samples):
            return None
        rms = float(np.std(self.samples[channel], dtype=np.float64))
        return float(20 * np.log10(max(rms, 1e-7))) if np.isfinite(rms) else None


class Starts:
    """When recordings of a machine begin: where they overlap, no two of their windows begin together.

    Files that were copied together have one time, and recordings may be sent faster than they were made; a window is
    found by the time of its beginning. The last KNOWN recordings are remembered.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, str]] = deque(maxlen=KNOWN)  # beginning, end, name

    def of(self, name: str, end: float, seconds: float, window_s: float) -> float:
        """The beginning of a recording that ends at `end`, or as little earlier as is needed."""
        starts = end - seconds - APART_S * np.arange(max(1, min(KNOWN, int(window_s / APART_S))))
        free = np.ones(len(starts), bool)
        for t0, t1, other in self._recent:
            if t0 < end - APART_S and end - seconds < t1 - APART_S:
                behind = (starts - t0) % window_s
                free &= np.minimum(behind, window_s - behind) > 0.75 * APART_S
            if other == name:  # it would go on with the other one
                free &= (abs(starts - t1) > 0.75 * APART_S) & (abs(starts + seconds - t0) > 0.75 * APART_S)
        start = float(starts[np.argmax(free)])
        self._recent.append((start, start + seconds, name))
        return start


class SampleClock:
    """The times of samples: counted from the first, and corrected slowly towards the clock.

    After the clock was set, the count restarts at the clock.
    """

    def __init__(self, clock: Callable[[], float], rate: int) -> None:
        self.clock, self.rate = clock, rate
        self._end: float | None = None
        self._large, self._large_s = 0.0, 0.0  # the last large difference, and the seconds of sound it has lasted

    def stamp(self, samples: int, *, gap: bool = False) -> float:
        """The time of the first of `samples` samples that have just arrived."""
        seconds = samples / self.rate
        start = self.clock() - seconds
        if self._end is not None and not gap and not self._was_set(late := start - self._end, seconds):
            start = self._end + (CORRECTION * late if abs(late) < LARGEST_DRIFT_S else 0.0)
        self._end = start + seconds
        return start

    def _was_set(self, late: float, seconds: float) -> bool:
        """Whether the clock has differed from the count by the same large amount for long enough."""
        if abs(late) < LARGEST_DRIFT_S or abs(late - self._large) > LARGEST_DRIFT_S:
            self._large, self._large_s = late, 0.0
        self._large_s += seconds
        return abs(late) >= LARGEST_DRIFT_S and self._large_s > CLOCK_SET_S


class Windower:
    """Turns blocks into windows."""

    def __init__(self, window_s: float, hop_s: float | None = None) -> None:
        self.window_s = number("window_s", window_s, above=0)
        self.hop_s = number("hop_s", window_s / 2 if hop_s is None else hop_s, above=0)
        self._parts: list[Array] = []
        self._count = 0  # samples in _parts
        self._rate = self._channels = 0
        self._t0 = 0.0
        self._gap = self._used = False

    @property
    def begun(self) -> bool:
        """Whether there was a block."""
        return bool(self._rate)

    def put(self, block: SampleBlock) -> Iterator[Window]:
        """The windows that a block completes."""
        if not self._follows(block):
            self._begin(block)
        self._t0 = block.t0 - self._count / self._rate
        self._parts.append(block.samples)
        self._count += block.samples.shape[1]
        size, hop = round(self.window_s * self._rate), max(1, round(self.hop_s * self._rate))
        while self._count >= size:
            joined = np.concatenate(self._parts, axis=1)
            fresh = hop if self._used and hop < size else None
            yield Window(self._t0, joined[:, :size].copy(), self._rate, self._gap, block.name, fresh)
            self._parts, self._count = [joined[:, hop:]], joined.shape[1] - hop
            self._t0 += hop / self._rate
            self._gap, self._used = False, True

    def _follows(self, block: SampleBlock) -> bool:
        if not self._rate:
            return False
        end = self._t0 + self._count / self._rate
        same = (block.rate, len(block.samples)) == (self._rate, self._channels)
        return same and not block.gap and abs(block.t0 - end) < JITTER_S

    def _begin(self, block: SampleBlock) -> None:
        self._gap = bool(self._rate) or block.gap
        self._rate, self._channels, self._t0 = block.rate, len(block.samples), block.t0
        self._parts, self._count, self._used = [], 0, False


class RingBuffer:
    """The last `seconds` of a stream, in runs without gaps; less at high sampling rates: MOST values a second."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = number("seconds", seconds, above=0)
        self._pieces: list[tuple[int, SampleBlock]] = []  # (number of the run, new samples of a window)
        self._run = 0

    def add(self, window: Window) -> None:
        """Keep the new samples of a window; windows come in order and may overlap."""
        fresh = window.samples.shape[1] if window.fresh is None else window.fresh
        new = SampleBlock(window.t1 - fresh / window.rate, window.samples[:, -fresh:], window.rate)
        if self._pieces:
            last = self._pieces[-1][1]
            same = (window.rate, len(window.samples)) == (last.rate, len(last.samples))
            if window.gap or not same or abs(new.t0 - last.t1) > JITTER_S:
                self._run, new = self._run + 1, window
        self._pieces.append((self._run, replace(new, samples=new.samples.copy())))
        seconds = sum(piece.seconds for _, piece in self._pieces)
        values = sum(piece.samples.size for _, piece in self._pieces)
        while len(self._pieces) > 1:
            oldest = self._pieces[0][1]
            if seconds - oldest.seconds < self.seconds and values <= self.seconds * MOST:
                break
            del self._pieces[0]
            seconds, values = seconds - oldest.seconds, values - oldest.samples.size

    def cut(self, at: float, before: float, after: float) -> SampleBlock | None:
        """Gapless audio from `before` s before `at` to `after` s after it; None if `at` is not in the buffer."""
        runs = [
            run for run, piece in self._pieces if abs(piece.t0 - at) < 1e-3
        ]  # recordings that were sent may overlap
        runs = runs or [run for run, piece in self._pieces if piece.t0 <= at < piece.t1]
        if not runs:
            return None
        pieces = [piece for run, piece in self._pieces if run == runs[-1]]
        whole, rate, start = np.concatenate([p.samples for p in pieces], axis=1), pieces[0].rate, pieces[0].t0
        first = max(0, round((at - before - start) * rate))
        last = max(first + 1, round((at + after - start) * rate))
        return SampleBlock(start + first / rate, whole[:, first:last], rate)
