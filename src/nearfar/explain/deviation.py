"""Where a clip differs: how far each moment and band is from the normals, and the patch that stands out.

    Map     decibels above usual and standard deviations, (T, 128) on the frames and bands of `encoders.logmel`
    Patch   frames start:stop, bands low:high, louder (+1) or quieter (-1)

Maps of a clip: "near" and "far" against the profile of the normals, whatever the encoder; and "machine", the near
microphone with the far one's sound taken away, where the detector listens to that and its bank holds band levels.

A patch is a moment if somewhere its smoothed deviation is more than twice that of the clip as a whole, else it is the
whole clip. It reaches, in time and in frequency, to where the deviation has fallen to half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter

from nearfar.audio import Clip
from nearfar.embedding.band_levels import CHANNELS, BandLevels, frames
from nearfar.embedding.vectors import waveform, waveform_of
from nearfar.encoders.logmel import BANDS, HOP, RATE, log_mel
from nearfar.encoders.mel import htk_hz, htk_mel
from nearfar.recipe import Recipe
from nearfar.support.check import Array

SCALES = ((7, 3), (1, 15))  # frames x bands that are averaged: a sound that lasts, a knock
LEAST_SPREAD_DB = 1.0
STANDS_OUT = 2.0  # a moment deviates this much more than the whole clip, ...
LOUDER = 1.5  # faults add sound: what is quieter has to differ so much more to be named first
ALSO = 1.0  # standard deviations that a band needs to be counted in by its decibels
MARGIN = 1.0  # ... and by so many standard deviations more, which chance does not reach
REPEATS, REACH = 3, 0.5  # so many moments over so much of the clip are one thing that happens again and again
LEVELS = {"mean": slice(0, BANDS), "mean_std": slice(0, BANDS), "quantile": slice(BANDS, 2 * BANDS)}  # poolings in dB


@dataclass(frozen=True)
class DeviationMap:
    """A clip's `level` (T, 128) in dB, its deviation from the normals `db` and `z`; of "near", "far" or "machine".

    `wave` names the waveform (`embed.waveform`).
    """

    of: str
    wave: str
    level: Array
    db: Array
    z: Array
    level_db: float = 0.0  # what has been taken off: how much louder the clip as a whole is

    @property
    def shift(self) -> float:
        """How unusual the clip's loudness is as a whole, in standard deviations."""
        return float(np.median(self.z.mean(axis=0)))

    def levelled(self) -> DeviationMap:
        """The map of a clip that is as loud as usual: what differs beside its loudness."""
        spread = np.divide(self.db, self.z, out=np.ones_like(self.db), where=self.z != 0)
        level = float(np.median(self.db.mean(axis=0)))
        return replace(self, db=self.db - level, z=self.z - level / spread, level_db=level)


@dataclass(frozen=True)
class Region:
    """What stands out; `strength` in standard deviations, how many `times`, and which frames (T,) show it."""

    start: int
    stop: int
    low: int
    high: int
    sign: int
    strength: float
    times: int
    shown: Array

    @property
    def whole(self) -> bool:
        """True if it is there all the time."""
        return self.start == 0 and self.stop == len(self.shown)

    def mean(self, values: Array) -> float:
        """Mean of a map's values (T, 128) where the patch shows."""
        return float(values[self.shown, self.low : self.high].mean())


def maps(clip: Clip, profile: BandLevels, leaves: Sequence[tuple[Recipe, Array]]) -> list[DeviationMap]:
    """The maps of a clip; `leaves` are the detector's recipes with their normals' vectors (N, D)."""
    found = []
    for channel in CHANNELS:
        if channel in profile.sums and getattr(clip, channel) is not None:
            found.append(_map(channel, channel, frames(clip, channel), *profile.usual(channel)))
    for recipe, z in leaves:
        wave, _ = waveform_of(recipe.view)
        bands = LEVELS.get(recipe.pooling)
        if wave == "near" or recipe.encoder != "logmel" or bands is None or recipe.normalize or not found:
            continue
        level, levels = log_mel(waveform(clip, wave, RATE)), z.reshape(len(z), -1)[:, bands].astype(np.float64)
        within = level.std(axis=0)  # the bank knows how clips differ; the clip knows how its frames do
        found.append(_map("machine", wave, level, levels.mean(axis=0), np.hypot(levels.std(axis=0), within)))
        break
    return found


def find(z: Array, db: Array, within: tuple[int, int] | None = None) -> Region:
    """The patch of a map's z and db (T, 128) that stands out; `within` frames start, stop, if the moment is known."""
    total = z.mean(axis=0)
    steady = _smooth(total[None], (1, 3))[0]
    inside = slice(*within) if within else slice(None)
    smooth = [_smooth(z, scale) for scale in SCALES]
    best = max(smooth, key=lambda s: float(_size(s[inside]).max()))
    t, f = divmod(int(_size(best[inside]).argmax()), z.shape[1])
    t += within[0] if within else 0
    peak = float(best[t, f])
    strength, flat = abs(peak), float(np.abs(steady).max())
    if not within and strength < STANDS_OUT * flat + MARGIN:
        f = int(_size(steady).argmax())
        flat = abs(float(steady[f]))
        sign = 1 if steady[f] > 0 else -1
        return _patch(z, db, np.ones(len(z), bool), f, sign, flat, 0, len(z), 1)
    sign = 1 if peak > 0 else -1
    shown = best[:, f] * sign >= strength / 2
    rough = _patch(z, db, _run(shown, t), f, sign, strength, 0, len(z), 1)
    scale = (SCALES[0][0] if best is smooth[0] else 1, 1)
    course = _smooth(z[:, rough.low : rough.high].mean(axis=1)[:, None], scale)[:, 0] * sign
    t = max(range(max(0, t - 2), min(len(z), t + 3)), key=lambda i: float(course[i]))
    shown = course >= course[t] / 2
    runs = _runs(shown)
    if not within and len(runs) >= REPEATS and runs[-1][1] - runs[0][0] > REACH * len(z):
        return replace(rough, start=0, stop=len(z), shown=shown, times=len(runs))
    mine = _run(shown, t)
    start, stop = _runs(mine)[0]
    return _patch(z, db, mine, f, sign, strength, start, stop, 1)


def hz_of(low: int, high: int) -> tuple[float, float]:
    """The edges in Hz of bands low:high, halfway between band centres."""
    edges = htk_hz((np.array([low, high]) + 0.5) / (BANDS + 1) * htk_mel(RATE / 2))
    return float(edges[0]) if low else 0.0, float(edges[1]) if high < BANDS else RATE / 2


def band_of(hz: float) -> float:
    """Where a frequency lies on the axis of bands, 0 to BANDS; the inverse of `hz_of`."""
    at = htk_mel(hz) / htk_mel(RATE / 2) * (BANDS + 1) - 0.5
    return float(min(max(at, 0.0), BANDS))


def seconds_of(start: int, stop: int, seconds: float) -> tuple[float, float]:
    """The span in seconds of frames start:stop; a frame speaks for half a hop to each side of its centre."""
    return max(0.0, (start - 0.5) * HOP / RATE), min(seconds, (stop - 0.5) * HOP / RATE)


def _map(of: str, wave: str, level: Array, mean: Array, spread: Array) -> DeviationMap:
    db = level - mean
    return DeviationMap(
        of, wave, level, db.astype(np.float32), (db / np.maximum(spread, LEAST_SPREAD_DB)).astype(np.float32)
    )


def _patch(
    z: Array, db: Array, shown: Array, f: int, sign: int, strength: float, start: int, stop: int, times: int
) -> Region:
    # The bands around f that deviate at least half as much as the one that deviates most, one gap forgiven; by either
    # measure, as usual bands differ in spread and a machine that falls silent does so in all of them.
    profile, change = (_smooth(x[shown].mean(axis=0)[None], (1, 3))[0] * sign for x in (z, db))
    f = max(range(max(0, f - 7), min(BANDS, f + 8)), key=lambda i: float(profile[i]))
    enough = (profile >= profile[f] / 2) | ((change >= change[f] / 2) & (profile >= ALSO))
    low, high = f, f + 1
    while low > 0 and (enough[low - 1] or (low > 1 and enough[low - 2])):
        low -= 1
    while high < BANDS and (enough[high] or (high + 1 < BANDS and enough[high + 1])):
        high += 1
    return Region(start, stop, low, high, sign, strength, times, shown)


def _size(z: Array) -> Array:
    size: Array = np.where(z > 0, z, -z / LOUDER)
    return size


def _smooth(x: Array, size: tuple[int, int]) -> Array:
    size = (min(size[0], len(x)), size[1])
    smooth: Array = uniform_filter(x.astype(np.float64), size=size, mode="reflect")
    return smooth


def _runs(mask: Array) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _run(mask: Array, t: int) -> Array:
    # The run of True that holds t, alone; gaps of one frame are bridged.
    bridged = mask.copy()
    bridged[1:-1] |= mask[:-2] & mask[2:]
    out = np.zeros(len(mask), bool)
    for start, stop in _runs(bridged):
        if start <= t < stop:
            out[start:stop] = True
    out[t] = True
    return out
