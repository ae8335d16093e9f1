"""Where a clip differs: the deviation of each frame and band from the normals, and the region that stands out.

    DeviationMap   decibels above usual and standard deviations, (T, 128) on the frames and bands of `encoders.logmel`
    Region         frames start:stop, bands low:high, louder (+1) or quieter (-1)

A clip has up to three maps. "near" and "far" compare the microphones with the band levels of the normals, for every
encoder. "machine" compares near without the far sound; it exists if a recipe of the detector uses that waveform and
its bank holds band levels. There the frames of the clip are moved so that their own level, pooled as the recipe pools,
deviates from the normals as the recipe's vector does, whatever its window. Levels of "quiet" lie below most frames: the
median frame takes their place.

A region is a moment if its largest smoothed deviation is more than twice that of the clip as a whole; otherwise it is
the whole clip. In time and in frequency it ends where the deviation has fallen to half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter

from nearfar.audio import CHANNELS, Clip
from nearfar.embedding.facts import BandLevels, log_mel_frames
from nearfar.embedding.vectors import pool, waveform
from nearfar.encoders.logmel import BANDS, FRAMING, HOP, RATE, log_mel
from nearfar.encoders.mel import htk_hz, htk_mel
from nearfar.recipe import Recipe
from nearfar.support.check import Array

SCALES = ((7, 3), (1, 15))  # frames x bands of the smoothing windows: for a sound that lasts, for a knock
LEAST_SPREAD_DB = 1.0
STANDS_OUT, MARGIN = 2.0, 1.0  # a moment deviates by this factor and this many standard deviations more than the clip
LOUDER = 1.5  # faults add sound: a quieter region needs a deviation larger by this factor to be named first
ALSO = 1.0  # fewest standard deviations of a band that joins a region by its change in decibels
QUARTILES = 1.349  # between the quartiles of a Gaussian, in standard deviations
REPEATS, REACH = 3, 0.5  # this many moments over this share of the clip are one sound that repeats
LEVELS = {  # where the pooled log-mel spectra hold the level of each band in dB
    **dict.fromkeys(("mean", "mean_std", "quiet", "power"), slice(0, BANDS)),
    "quantile": slice(BANDS, 2 * BANDS),
}


@dataclass(frozen=True)
class DeviationMap:
    """A clip's `level` (T, 128) in dB and its deviation from the normals: `db` in dB, `z` in standard deviations.

    `sound` is "near", "far" or "machine"; `wave` names the waveform (`embedding.vectors.waveform`).
    """

    sound: str
    wave: str
    level: Array
    db: Array
    z: Array
    level_db: float = 0.0  # loudness of the clip above usual that `levelled` has subtracted

    @property
    def shift(self) -> float:
        """Deviation of the clip's loudness as a whole, in standard deviations."""
        return float(np.median(self.z.mean(axis=0)))

    def levelled(self) -> DeviationMap:
        """The map with the clip's loudness above usual subtracted."""
        spread = np.divide(self.db, self.z, out=np.ones_like(self.db), where=self.z != 0)
        louder_db = float(np.median(self.db.mean(axis=0)))
        return replace(self, db=self.db - louder_db, z=self.z - louder_db / spread, level_db=louder_db)


@dataclass(frozen=True)
class Region:
    """A part of a map that stands out by `strength` standard deviations.

    `times` counts its repetitions; `shown` (T,) bool marks the frames that show it.
    """

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
        """True if the region spans all frames of the clip."""
        return self.start == 0 and self.stop == len(self.shown)

    def mean(self, values: Array) -> float:
        """Mean of a map's values (T, 128) over the region."""
        return float(values[self.shown, self.low : self.high].mean())


def maps(clip: Clip, band_levels: BandLevels, leaves: Sequence[tuple[Recipe, Array]]) -> list[DeviationMap]:
    """The maps of a clip; `leaves` are the detector's recipes with the vectors (N, D) of their normals."""
    found = []
    for channel in CHANNELS:
        if channel in band_levels.sums and getattr(clip, channel) is not None:
            found.append(_map(channel, channel, log_mel_frames(clip, channel), *band_levels.usual(channel)))
    for recipe, z in leaves:
        view, bands = recipe.parsed_view, LEVELS.get(recipe.pooling)
        if view.waveform == "near" or view.kind == "noise" or recipe.normalize or not found:
            continue
        if recipe.encoder not in FRAMING or bands is None:
            continue
        heard, levels = waveform(clip, view.waveform, RATE), z.reshape(len(z), -1)[:, bands].astype(np.float64)
        level = log_mel(heard)
        grids = [log_mel(heard, *FRAMING[recipe.encoder])[:, None], level[:, None]]
        pooled, own = (x.ravel()[bands] for x in pool(grids, recipe))
        if recipe.pooling == "quiet":
            own = np.median(level, axis=0)
        # Between the normals, and between frames of the clip; by quartiles, so that a moment does not widen it.
        low, high = np.quantile(level, [0.25, 0.75], axis=0)
        spread = np.hypot(levels.std(axis=0), (high - low) / QUARTILES)
        found.append(_map("machine", view.waveform, level, levels.mean(axis=0) + own - pooled, spread))
        break
    return found


def find_region(z: Array, db: Array, within: tuple[int, int] | None = None) -> Region:
    """The region of a map's z and db (T, 128) that stands out; `within` (start, stop) frames if the moment is known."""
    steady = _smooth(z.mean(axis=0)[None], (1, 3))[0]
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
        return _region(z, db, np.ones(len(z), bool), f, sign, flat, 0, len(z), 1)
    sign = 1 if peak > 0 else -1
    shown = best[:, f] * sign >= strength / 2
    rough = _region(z, db, _run(shown, t), f, sign, strength, 0, len(z), 1)
    scale = (SCALES[0][0] if best is smooth[0] else 1, 1)
    over_time = _smooth(z[:, rough.low : rough.high].mean(axis=1)[:, None], scale)[:, 0] * sign
    t = max(range(max(0, t - 2), min(len(z), t + 3)), key=lambda i: float(over_time[i]))
    shown = over_time >= over_time[t] / 2
    runs = _runs(shown)
    if not within and len(runs) >= REPEATS and runs[-1][1] - runs[0][0] > REACH * len(z):
        return replace(rough, start=0, stop=len(z), shown=shown, times=len(runs))
    moment = _run(shown, t)
    start, stop = _runs(moment)[0]
    return _region(z, db, moment, f, sign, strength, start, stop, 1)


def hz_of(low: int, high: int) -> tuple[float, float]:
    """The edges in Hz of bands low:high, halfway between band centres."""
    edges = htk_hz((np.array([low, high]) + 0.5) / (BANDS + 1) * htk_mel(RATE / 2))
    return float(edges[0]) if low else 0.0, float(edges[1]) if high < BANDS else RATE / 2


def band_of(hz: float) -> float:
    """The position of a frequency on the axis of bands, 0 to BANDS; the inverse of `hz_of`."""
    at = htk_mel(hz) / htk_mel(RATE / 2) * (BANDS + 1) - 0.5
    return float(min(max(at, 0.0), BANDS))


def seconds_of(start: int, stop: int, seconds: float) -> tuple[float, float]:
    """The span in seconds of frames start:stop; a frame stands for half a hop on each side of its centre."""
    return max(0.0, (start - 0.5) * HOP / RATE), min(seconds, (stop - 0.5) * HOP / RATE)


def _map(sound: str, wave: str, level: Array, mean: Array, spread: Array) -> DeviationMap:
    db = level - mean
    return DeviationMap(
        sound, wave, level, db.astype(np.float32), (db / np.maximum(spread, LEAST_SPREAD_DB)).astype(np.float32)
    )


def _region(
    z: Array, db: Array, shown: Array, f: int, sign: int, strength: float, start: int, stop: int, times: int
) -> Region:
    # From the peak near f, the bands that deviate by at least half of the peak, in z or in dB; gaps of one band are
    # bridged. Both measures count: bands differ in their spread, and a machine that falls silent does so in all bands.
    deviation, change = (_smooth(x[shown].mean(axis=0)[None], (1, 3))[0] * sign for x in (z, db))
    f = max(range(max(0, f - 7), min(BANDS, f + 8)), key=lambda i: float(deviation[i]))
    enough = (deviation >= deviation[f] / 2) | ((change >= change[f] / 2) & (deviation >= ALSO))
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
    # A mask of the run of True that contains t; gaps of one frame are bridged.
    bridged = mask.copy()
    bridged[1:-1] |= mask[:-2] & mask[2:]
    out = np.zeros(len(mask), bool)
    for start, stop in _runs(bridged):
        if start <= t < stop:
            out[start:stop] = True
    out[t] = True
    return out
