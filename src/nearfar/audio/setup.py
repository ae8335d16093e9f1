"""How recordings were made, by their own sound, and whether a new one was made as the normals of a detector were.

    row (ROW,)   of a clip: levels of near by band, levels of far, delay, clear
    levels       dB of full scale in BANDS bands of about a sixth of an octave from 39 Hz on; FLOOR where the rate is
                 too low, and at far where there is none
    delay        samples at 16 kHz by which near follows far, at the highest peak of the smoothed coherence transform
    clear        energy of that peak, relative to the mean over all delays

What `UsualSetup.problems` finds:

    exchanged      near - far by band, projected on that of the normals, is -1 instead of 1, or the delay has the
                   opposite sign: the microphones may be swapped
    open, hum      far is far below all normals, or its lowest band far above the others: its input may be open
    level          near is far above or below all normals: another gain, or samples in another scale
    missing_band   the highest bands end in a step that no normal has: a filter or a codec on the way
    rate, codec    another sampling rate, or a lossy codec that no normal has

Two microphones side by side differ neither in level nor in delay; then nothing tells which is which. A bound is the
extreme of the normals, moved out by its distance to the next normal: what the extreme one itself needs when it is left
out.

Reference: Carter et al. 1973 (smoothed coherence transform).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from nearfar.audio.clip import PCM, Clip
from nearfar.audio.microphones import Problem
from nearfar.support.check import Array, finite, integer, number

KINDS = ("exchanged", "open", "hum", "level", "rate", "codec")  # of the problems that do not keep a clip from its score
WINDOW_S, MOST_WINDOWS = 0.128, 32  # of a spectrum; of a clip, evenly spread
EDGES = np.unique(np.round(np.r_[5, np.geomspace(9, 1024, 36), np.geomspace(1024, 3072, 9)]).astype(int))  # bins; the
# first band holds the mains, and one ends at 8 kHz
BANDS = len(EDGES) - 1
ROW = 2 * BANDS + 2
DELAY, CLARITY = -2, -1  # columns of a row
TOP_HZ = EDGES[1:] / WINDOW_S
DELAY_RATE, LENGTH = 16_000, 2048  # Hz and samples of the coherence transform
LOWEST = int(EDGES[4])  # bin from which on it is taken: below are rumble and mains
MAX_DELAY = 320  # samples: 20 ms
FLOOR = -200.0  # dB
FEWEST = 5  # normals that tell what is usual
LEVEL_DB = 15.0  # near beyond all normals: healthy sessions stay below
LOST_DB, STEP_DB = 15.0, 12.0  # highest bands below all normals; the step at their edge
OPEN_DB, HUM_DB = 20.0, 15.0  # far below all normals; its lowest band above all normals, beside the other bands
UNLIKE_DB = 2.0  # RMS over bands of near - far from which on the two microphones can be told apart by their levels
AHEAD, SAME = 16, 5  # samples: least delay that tells the microphones apart, most difference of two equal delays
CLEAR = 20.0  # least `clear` of a peak that is believed
SURE, MOST = 0.35, 0.8  # projection from which on levels tell; share of normals that are told apart, so that others are


def row_of(clip: Clip) -> Array:
    """The row (ROW,) float32 of a clip, from at most MOST_WINDOWS pieces of it."""
    from scipy import fft

    channels = [clip.near] if clip.far is None else [clip.near, clip.far]
    window = _window(round(WINDOW_S * clip.rate))
    n = len(window)
    count = max(1, len(clip.near) // n)
    starts = n * np.unique(np.linspace(0, count - 1, min(count, MOST_WINDOWS)).astype(int))
    x = np.zeros((len(channels), len(starts), n), np.float32)
    for pieces, channel in zip(x, channels, strict=True):
        for piece, start in zip(pieces, starts, strict=True):
            samples = channel[start : start + n]
            piece[: len(samples)] = samples
    spectra = fft.rfft(x * window)[..., : EDGES[-1] + 1]
    power = (spectra.real**2 + spectra.imag**2).mean(axis=1)
    padded = np.pad(power, ((0, 0), (0, EDGES[-1] + 1 - power.shape[1])))
    levels = np.full((2, BANDS), FLOOR)
    levels[: len(channels)] = 10 * np.log10(np.maximum(np.add.reduceat(padded, EDGES, axis=1)[:, :-1], 1e-20))
    levels[:, clip.rate / 2 < TOP_HZ] = FLOOR
    delay, clear = 0, 0.0
    if len(channels) == 2:
        top = LENGTH // 2 + 1
        cross = np.einsum("tf,tf->f", spectra[0, :, :top], spectra[1, :, :top].conj())
        product = np.sqrt(power[0, :top] * power[1, :top])
        coherence = np.where(product > 0, cross / np.where(product > 0, product, 1), 0)
        coherence[:LOWEST] = 0
        response = np.roll(fft.irfft(coherence, LENGTH) ** 2, MAX_DELAY)[: 2 * MAX_DELAY + 1]
        peak = int(np.argmax(response))
        delay, clear = peak - MAX_DELAY, float(response[peak] / max(response.mean(), 1e-30))
    return np.append(levels, (delay, clear)).astype(np.float32)


def stored(codec: str) -> str:
    """How a file with this codec keeps its sound, in words."""
    return "without loss" if codec in ("", PCM) else f"with loss ({codec})"


@dataclass(frozen=True, eq=False)
class UsualSetup:
    """The set-up that the normals of a detector share; see the module. Levels in dB, delays in samples at 16 kHz.

    rates, codecs   of the normals, as far as they are known
    usual           (BANDS,) median of near; empty with fewer than FEWEST normals, as is all that follows
    lowest          (2, BANDS) least of each band of near and far
    shape           (2, BANDS) the same, once each normal is brought to the level of `usual`
    level           (2,) of near, mean over the bands: of the quietest and of the loudest normal
    balance         (BANDS,) median of near - far; empty if that does not tell the microphones apart
    delay           the usual one, or 0 if it does not tell the microphones apart
    hum             how far far's lowest band lies above the median of its bands, at most
    pair            whether all normals have a far channel
    """

    rates: frozenset[int] = frozenset()
    codecs: frozenset[str] = frozenset()
    usual: Array = field(default_factory=lambda: np.zeros(0))
    lowest: Array = field(default_factory=lambda: np.zeros((2, 0)))
    shape: Array = field(default_factory=lambda: np.zeros((2, 0)))
    level: Array = field(default_factory=lambda: np.zeros(2))
    balance: Array = field(default_factory=lambda: np.zeros(0))
    delay: int = 0
    hum: float = 0.0
    pair: bool = False

    @classmethod
    def of(cls, rows: Array, rates: Iterable[int], codecs: Iterable[str]) -> UsualSetup:
        """What the rows (N, ROW) of the normals share, those with exchanged microphones left out."""
        known = cls(frozenset(rates), frozenset(codecs))
        if len(rows) < FEWEST:
            return known
        if pair := bool((rows[:, BANDS] > FLOOR).all()):
            first = replace(known, **_apart(rows))
            rows = rows[[not first.exchanged(row) for row in rows]]
            known = replace(known, **_apart(rows))
        levels = rows[:, : 2 * BANDS].reshape(-1, 2, BANDS)
        heard = levels[:, 0].min(axis=0) > FLOOR
        usual = np.median(levels[:, 0], axis=0)
        offset = np.median((levels[:, 0] - usual)[:, heard], axis=1)
        level = levels[:, 0][:, heard].mean(axis=1)
        hum = levels[:, 1, 0] - np.median(levels[:, 1][:, heard], axis=1)
        return replace(
            known,
            usual=_rounded(usual),
            lowest=_rounded(_least(levels)),
            shape=_rounded(_least(levels - offset[:, None, None])),
            level=_rounded(np.array([_least(level), -_least(-level)])),
            hum=round(float(-_least(-hum)), 1),
            pair=pair,
        )

    def problems(self, clip: Clip, highest_rate: int, *, needs_far: bool) -> list[Problem]:
        """How the making of a clip differs from that of the normals; encoders hear up to half of `highest_rate` (Hz).

        Far alone is looked at only if it is needed; exchanged microphones matter to near as well.
        """
        has_far = clip.far is not None
        return self.problems_of(row_of(clip), clip.rate, clip.codec, highest_rate, has_far=has_far, needs_far=needs_far)

    def problems_of(
        self, row: Array, rate: int, codec: str, highest_rate: int, *, has_far: bool, needs_far: bool
    ) -> list[Problem]:
        """`problems` of a clip of which the row, the rate, the codec and the channels are known."""
        found = []
        if self.rates and rate not in self.rates:
            found += self._rate(rate, highest_rate)
        if codec and self.codecs and codec not in self.codecs:
            found += self._codec(codec)
        if not len(self.usual):
            return found
        levels = row[: 2 * BANDS].reshape(2, BANDS)
        heard = (levels[0] > FLOOR) & (self.usual > FLOOR)
        if rate not in self.rates:  # another rate, another filter at half of it
            heard &= 0.45 * min(rate, *self.rates) >= TOP_HZ
        if self.pair and has_far:
            text = self.exchanged(row)
            found += [Problem("exchanged", text)] if text else self._far(levels, heard) if needs_far else []
        return found + self._near(levels, heard, highest_rate)

    def exchanged(self, row: Array) -> str:
        """Why near and far of a row (ROW,) seem to be exchanged, or ""."""
        if row[BANDS] <= FLOOR:
            return ""
        balance = row[:BANDS] - row[BANDS : 2 * BANDS]
        share = float(balance @ self.balance / (self.balance @ self.balance)) if len(self.balance) else 0.0
        delay, clear = float(row[DELAY]), self.delay != 0 and row[CLARITY] >= CLEAR
        if -1 / SURE < share < -SURE and not (clear and abs(delay - self.delay) < SAME):
            side = np.sign(self.balance @ np.abs(self.balance))
            where = side * self.balance >= (side * self.balance).max() / 2
            now, usual = float(balance[where].mean()), float(self.balance[where].mean())
            return f"near is {_than(now)} than far, and {_than(usual)} in the normals: are the microphones swapped?"
        if clear and abs(delay + self.delay) < SAME and share < SURE:
            first = ("far", "near") if self.delay < 0 else ("near", "far")
            ms = 1000 * abs(delay) / DELAY_RATE
            return (
                f"{first[0]} hears the same sound {ms:.1f} ms before {first[1]}, and in the normals {first[1]} hears "
                "it first: are the microphones swapped?"
            )
        return ""

    def _rate(self, rate: int, highest: int) -> list[Problem]:
        """Rates above `highest` are alike: recordings are resampled down to it."""
        if any(min(rate, usual) > highest for usual in self.rates):
            return []
        usual = " and ".join(f"{each:,}" for each in sorted(self.rates))
        found = [Problem("rate", f"recorded at {rate:,} Hz, the normals at {usual} Hz: that alone can raise a score")]
        if rate < (needed := min(*self.rates, highest)):
            lacks = f"lacks {rate / 2000:g} to {needed / 2000:g} kHz, which all normals have"
            text = f"recorded at {rate:,} Hz, so it {lacks}: record at {needed:,} Hz or more"
            found.append(Problem("missing_band", text, fatal=True))
        return found

    def _codec(self, codec: str) -> list[Problem]:
        usual = " and ".join(stored(each) for each in sorted(self.codecs))
        return [Problem("codec", f"stored {stored(codec)}, the normals {usual}: that alone can raise a score")]

    def _far(self, levels: Array, heard: Array) -> list[Problem]:
        near, far = levels[:, heard]
        below = float(np.median(self.lowest[1, heard] - far)) - max(0.0, float(self.level[0] - near.mean()))
        if below > OPEN_DB:
            text = f"far is {below:.0f} dB below all normals: is its microphone unplugged, or its gain turned down?"
            return [Problem("open", text, channel="far")]
        hum = float(levels[1, 0] - np.median(far)) - self.hum
        if hum > HUM_DB:
            text = f"far hears 40 to 70 Hz {hum:.0f} dB louder than in any normal: mains hum of an open input, or wind?"
            return [Problem("hum", text, channel="far")]
        return []

    def _near(self, levels: Array, heard: Array, highest_rate: int) -> list[Problem]:
        """A step at the edge tells a filter from a machine that has become quieter in its highest bands."""
        level = float(levels[0, heard].mean())
        off = max(level - self.level[1], self.level[0] - level)
        if off > LEVEL_DB:
            where = "above" if level > self.level[1] else "below"
            text = f"near is {off:.0f} dB {where} all normals: another gain, or samples in another scale?"
            return [Problem("level", text, channel="near")]
        heard = heard & (highest_rate / 2 >= TOP_HZ)
        offset = np.median((levels[0] - self.usual)[heard])
        below = (self.shape[0] + offset - levels[0])[heard]
        count = int(np.argmax(np.append(below[::-1] <= LOST_DB, True)))
        if not 0 < count <= len(below) / 2 or below[-count] - below[-count - 2] < STEP_DB:
            return []
        edge = np.flatnonzero(heard)[-count]
        band = f"{TOP_HZ[edge - 1] / 1000:.1f} to {TOP_HZ[heard].max() / 1000:.1f} kHz"
        text = f"it lacks {band}, which all normals have: MP3, OGG or a filter on the way? Record as the normals were"
        return [Problem("missing_band", text, fatal=True, channel="near")]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what there is none of is left out."""
        arrays = {name: getattr(self, name) for name in SHAPES}
        plain = {name: x.tolist() for name, x in arrays.items() if x.size and len(self.usual)}
        bands = {"bands_hz": np.round(EDGES / WINDOW_S).tolist()} if plain else {}
        known = {"rates": sorted(self.rates), "codecs": sorted(self.codecs), "pair": self.pair}
        return {**known, "delay": self.delay, "hum": self.hum, **bands, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UsualSetup:
        """The set-up that `to_dict` gave. ValueError, KeyError or TypeError if it is none."""
        rates = frozenset(integer("rates", rate) for rate in data["rates"])
        known = cls(rates, frozenset(str(codec) for codec in data["codecs"]))
        if data.get("bands_hz") != np.round(EDGES / WINDOW_S).tolist():  # of a version with other bands
            return known
        arrays: dict[str, Any] = {
            name: finite(name, data[name], ndim=len(shape))
            for name, shape in SHAPES.items()
            if name in data or name != "balance"
        }
        for name, x in arrays.items():
            if x.shape != SHAPES[name]:
                raise ValueError(f"{name} has the shape {x.shape}, expected {SHAPES[name]}")
        delay, hum = integer("delay", data["delay"], low=-MAX_DELAY), number("hum", data["hum"])
        return replace(known, **arrays, delay=delay, hum=hum, pair=bool(data["pair"]))


@lru_cache(maxsize=8)
def _window(n: int) -> Array:
    """Hann window (n,) float32, scaled so that |rfft|^2 sums to the power."""
    window = np.hanning(n)
    return np.asarray(window * np.sqrt(2 / (n * (window**2).sum())), np.float32)


def _apart(rows: Array) -> dict[str, Any]:
    """`balance` and `delay` of rows (N, ROW) with two channels, where most of them tell the microphones apart."""
    each = rows[:, :BANDS] - rows[:, BANDS : 2 * BANDS]
    balance = _rounded(np.median(each, axis=0))
    heard = rows[:, :BANDS].min(axis=0) > FLOOR
    told = bool(np.sqrt(np.mean(balance[heard] ** 2)) > UNLIKE_DB)
    told = told and bool(np.mean(np.abs(each @ balance) > SURE * (balance @ balance)) >= MOST)
    delays = rows[rows[:, CLARITY] >= CLEAR, DELAY]
    usual = int(np.median(delays)) if len(delays) > len(rows) / 2 else 0
    same, opposite = np.abs(delays - usual) < SAME, np.abs(delays + usual) < SAME
    clear = abs(usual) >= AHEAD and np.mean(same) > 0.5 and np.mean(same | opposite) >= MOST
    return {"balance": balance if told else np.zeros(0), "delay": usual if clear else 0}


def _least(x: Array) -> Array:
    """The least of x (N, ...), lower by its distance to the next."""
    lowest, second = np.partition(x, 1, axis=0)[:2]
    return np.asarray(2 * lowest - second)


def _rounded(x: Array) -> Array:
    return np.round(x.astype(np.float64), 1)


def _than(db: float) -> str:
    return f"{abs(db):.0f} dB {'louder' if db > 0 else 'quieter'}"


SHAPES = {"usual": (BANDS,), "lowest": (2, BANDS), "shape": (2, BANDS), "level": (2,), "balance": (BANDS,)}
