"""A stream of blocks -> windows, and the last minute of it for the audio of events. A window never spans a gap.

    samples   (C, N) float32, full scale = 1; row 0 is near, row 1 (if there) far         t0, t1   s since 1970, UTC

`Windower` takes blocks as they come and gives windows of `window_s` every `hop_s`. Where a block does not follow the
last one (a gap, another rate), the window that was under way is dropped, and the next one begins after the gap.
Within a run samples are counted, never timed: clocks of sound cards and computers differ, and `SampleClock` follows
both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nearfar.audio import Clip
from nearfar.support.check import Array, number

LEAD = 1e-3  # of the difference between samples counted and the clock, per block
FAR_OFF_S = 5.0  # a difference above this is no drift: a file that is read faster than it was recorded, or a backlog;
SET_S = 120.0  # one that stays the same for so long: the clock was set, or the computer slept
LATE_S = 0.5  # clocks of streams jitter: less than this is no gap, unless the source says so


@dataclass(frozen=True, eq=False)
class Block:
    """Samples as a source gives them; `gap`: something is missing before them."""

    t0: float
    samples: Array
    rate: int
    gap: bool = False
    name: str = ""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples.shape[1] / self.rate

    @property
    def t1(self) -> float:
        """When it ends."""
        return self.t0 + self.seconds


@dataclass(frozen=True, eq=False)
class Window(Block):
    """A block as long as the detector listens; the last `fresh` samples were not in the window before (None: all).

    `missing_s`: as in `Clip`, of a file.
    """

    fresh: int | None = None
    missing_s: float = 0.0

    @property
    def clip(self) -> Clip:
        """The window as a recording. ValueError if it holds NaN."""
        far = self.samples[1] if len(self.samples) > 1 else None
        name = self.name or f"{self.t0:.3f}"
        return Clip(self.samples[0], far, self.rate, name, missing_s=self.missing_s)

    def level_dbfs(self, channel: int) -> float | None:
        """RMS of a channel in dB of full scale, offset removed; None if there is no such channel."""
        if channel >= len(self.samples):
            return None
        rms = float(np.std(self.samples[channel], dtype=np.float64))
        return float(20 * np.log10(max(rms, 1e-7))) if np.isfinite(rms) else None


class SampleClock:
    """When samples were heard: counted from the first, and led gently to the clock while they come in real time.

    Where the clock was set meanwhile, the count begins anew by it.
    """

    def __init__(self, clock: Callable[[], float], rate: int) -> None:
        self.clock, self.rate = clock, rate
        self._end: float | None = None
        self._off, self._off_s = 0.0, 0.0  # how far off the clock was, and for how many seconds of sound

    def stamp(self, samples: int, *, gap: bool = False) -> float:
        """The time of the first of so many samples that have just come in."""
        seconds = samples / self.rate
        start = self.clock() - seconds
        if self._end is not None and not gap and not self._set(late := start - self._end, seconds):
            start = self._end + (LEAD * late if abs(late) < FAR_OFF_S else 0.0)
        self._end = start + seconds
        return start

    def _set(self, late: float, seconds: float) -> bool:
        """Whether the clock has been elsewhere for long, by the same difference."""
        if abs(late) < FAR_OFF_S or abs(late - self._off) > FAR_OFF_S:
            self._off, self._off_s = late, 0.0
        self._off_s += seconds
        return abs(late) >= FAR_OFF_S and self._off_s > SET_S


class Windower:
    """Blocks in, windows out."""

    def __init__(self, window_s: float, hop_s: float | None = None) -> None:
        self.window_s = number("window_s", window_s, above=0)
        self.hop_s = number("hop_s", window_s / 2 if hop_s is None else hop_s, above=0)
        self._parts: list[Array] = []
        self._held = 0  # samples in _parts
        self._rate = self._channels = 0
        self._t0 = 0.0
        self._gap = self._used = False

    def put(self, block: Block) -> Iterator[Window]:
        """The windows that this block completes."""
        if not self._follows(block):
            self._begin(block)
        self._t0 = block.t0 - self._held / self._rate
        self._parts.append(block.samples)
        self._held += block.samples.shape[1]
        size, hop = round(self.window_s * self._rate), max(1, round(self.hop_s * self._rate))
        while self._held >= size:
            held = np.concatenate(self._parts, axis=1)
            fresh = hop if self._used and hop < size else None
            yield Window(self._t0, held[:, :size].copy(), self._rate, self._gap, block.name, fresh)
            self._parts, self._held = [held[:, hop:]], held.shape[1] - hop
            self._t0 += hop / self._rate
            self._gap, self._used = False, True

    def _follows(self, block: Block) -> bool:
        if not self._rate:
            return False
        end = self._t0 + self._held / self._rate
        same = (block.rate, len(block.samples)) == (self._rate, self._channels)
        return same and not block.gap and abs(block.t0 - end) < LATE_S

    def _begin(self, block: Block) -> None:
        self._gap = bool(self._rate) or block.gap
        self._rate, self._channels, self._t0 = block.rate, len(block.samples), block.t0
        self._parts, self._held, self._used = [], 0, False


class RingBuffer:
    """The last `seconds` that were heard, in runs without gaps."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = number("seconds", seconds, above=0)
        self._pieces: list[tuple[int, Block]] = []  # (number of the run, what was new)
        self._run = 0

    def add(self, window: Window) -> None:
        """Keep what is new in a window; windows come in order and may overlap."""
        fresh = window.samples.shape[1] if window.fresh is None else window.fresh
        new = Block(window.t1 - fresh / window.rate, window.samples[:, -fresh:], window.rate)
        if self._pieces:
            last = self._pieces[-1][1]
            same = (window.rate, len(window.samples)) == (last.rate, len(last.samples))
            if window.gap or not same or abs(new.t0 - last.t1) > LATE_S:
                self._run, new = self._run + 1, window
        self._pieces.append((self._run, replace(new, samples=new.samples.copy())))
        held = sum(piece.seconds for _, piece in self._pieces)
        while len(self._pieces) > 1 and held - self._pieces[0][1].seconds >= self.seconds:
            held -= self._pieces.pop(0)[1].seconds

    def cut(self, at: float, before: float, after: float) -> Block | None:
        """The unbroken audio around `at`, from `before` s earlier to `after` s later; None if it is forgotten."""
        runs = [run for run, piece in self._pieces if piece.t0 - 1e-3 <= at < piece.t1]
        if not runs:
            return None
        pieces = [piece for run, piece in self._pieces if run == runs[-1]]
        whole, rate, start = np.concatenate([p.samples for p in pieces], axis=1), pieces[0].rate, pieces[0].t0
        first = max(0, round((at - before - start) * rate))
        last = max(first + 1, round((at + after - start) * rate))
        return Block(start + first / rate, whole[:, first:last], rate)
