"""What is wrong with a recording: do its microphones work, and was it recorded as the normals of a detector were?

A dead microphone must never pass for a normal machine, so a recording without usable sound is a `fatal` problem. All
other problems are warnings, but for a band that is missing.

By the samples alone (`problems`):

    silent, stuck, saturated              fatal: nothing but the last bits of the converter or mains hum; one value most
                                          of the time; samples at the extremes
    miscoded                              fatal: whole numbers whose bytes are in another order, or sign turned
    full_scale, clipped, coarse, gap, offset   of one channel
    one_cable, swapped                    of the pair: one signal on both channels; near weaker than far
    incomplete                            the file is cut short, or holds more than its header says

The levels of dead wires differ by 60 dB, so these limits apply to the signal without offset, hum and rumble.

Beside the normals (`UsualSetup.problems`):

    exchanged      near - far by band, projected on that of the normals, is -1 instead of 1, or the delay has the
                   opposite sign: the microphones may be swapped
    open, hum      far is far below all normals, or its lowest band far above the others: its input may be open
    level          near is far above or below all normals: another gain, or samples in another scale
    missing_band   fatal: the highest bands end in a step that no normal has (a filter or a codec on the way), or the
                   sampling rate is too low for them
    weak_band      the same, where the highest bands are only weaker than in all normals
    rate, codec    another sampling rate, or a lossy codec that no normal has
    short          less than half as long as the normals

Two microphones side by side differ neither in level nor in delay; then nothing tells which is which. A bound is the
extreme of the normals, moved out by its distance to the next normal: what the extreme one itself needs when it is left
out.

Conventions
    near, far (N,)   float32, full scale = 1; far is None for a mono recording         rate   Hz
    row (ROW,)       how a clip was recorded: levels of near by band, levels of far, delay, clear
    levels           dB of full scale in BANDS bands of about a sixth of an octave from 39 Hz on; FLOOR where the rate
                     is too low, and at far where there is none
    delay            samples at 16 kHz by which near follows far, at the highest peak of the smoothed coherence
                     transform
    clear            energy of that peak, relative to the mean over all delays

>>> hum = 0.1 * np.sin(np.arange(16_000) / 5).astype(np.float32)
>>> [problem.kind for problem in problems(Clip(hum, np.zeros_like(hum)))]
['silent']

Reference: Carter et al. 1973 (smoothed coherence transform).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from nearfar.audio.clip import PCM, UNKNOWN_S, Clip
from nearfar.support.check import Array, finite, integer, number

SILENT_RMS = 3e-5  # -90 dB of full scale: one step of 16 bits
SATURATED = 0.2  # share of samples at the extremes above which a recording cannot be judged
CLIPPED = 1e-4  # share at full scale above which clipping is worth a warning
BEYOND_FULL_SCALE = 4.0  # floats of a mixing desk may exceed full scale, by 12 dB at most
GAP_S = 0.02  # one value for longer than this is a gap
GONE = 0.5  # share of gaps above which a recording cannot be judged
DEAD_LEVELS, COARSE_LEVELS = 8, 32  # different values: nothing but the converter's last bits; too few
DEAD_SPAN = 0.05  # between the smallest and largest of DEAD_LEVELS values: more is a square wave, not a dead wire
RUMBLE_HZ = 100.0  # below it wind and handling are louder than most machines
SAME_SIGNAL = 1e-3  # share of near's power that far does not explain, below which both are one microphone
LOUD_RMS = 0.3  # from which on the samples are read in another coding as well
QUIETER = 0.5  # another coding is the right one if the RMS then falls below this share
AT_EXTREMES = 0.05  # share of samples at the two extremes; a loud recording above it is clipped
WEAKER_DB = 6.0  # near below far by more than this is worth a question
MAINS_HZ = (50, 60)
INCOMPLETE = "incomplete"
MISSING_S = 0.05  # a file that lacks more than this of what its header promises is cut short

# problems that do not keep a clip from its score
SETUP_KINDS = ("exchanged", "open", "hum", "level", "weak_band", "rate", "codec")
SPECTRUM_S, MOST_SPECTRA = 0.128, 32  # of a spectrum; of a clip, evenly spread
EDGES = np.unique(np.round(np.r_[5, np.geomspace(9, 1024, 36), np.geomspace(1024, 3072, 9)]).astype(int))  # bins; the
# first band holds the mains, and one ends at 8 kHz
BANDS = len(EDGES) - 1
ROW = 2 * BANDS + 2
DELAY, CLARITY = -2, -1  # columns of a row
TOP_HZ = EDGES[1:] / SPECTRUM_S
DELAY_RATE, LENGTH = 16_000, 2048  # Hz and samples of the coherence transform
LOWEST = int(EDGES[4])  # bin from which on it is taken: below are rumble and mains
MAX_DELAY = 320  # samples: 20 ms
FLOOR = -200.0  # dB
FEWEST = 5  # normals that tell what is usual
LEVEL_DB = 15.0  # near beyond all normals: healthy sessions stay below
LOST = 15.0, 12.0  # dB: highest bands below all normals, and the step at their edge, of a band that is missing
WEAK, MOST_WEAK = (5.0, 6.0), 3  # the same of a band that is only weak, and most of the highest bands that it has
OPEN_DB, HUM_DB = 20.0, 15.0  # far below all normals; its lowest band above all normals, beside the other bands
UNLIKE_DB = 2.0  # RMS over bands of near - far from which on the two microphones can be told apart by their levels
AHEAD, SAME_DELAY = 16, 5  # samples: least delay that tells the microphones apart; largest difference of equal delays
CLEAR = 20.0  # least `clear` of a peak that is believed
SURE = 0.35  # least projection that tells the microphones apart
MOST = 0.8  # least share of the normals that the projection must tell apart


@dataclass(frozen=True)
class Problem:
    """Something wrong with a recording. `fatal`: it cannot be judged; else it is a warning."""

    kind: str  # see the module
    text: str
    fatal: bool = False
    channel: str = ""  # "near", "far", or "" for the pair


def problems(clip: Clip) -> list[Problem]:
    """What is wrong with a recording by its own samples, fatal problems first; empty if all is well."""
    found = _of_one("near", clip.near, clip.rate)
    if clip.far is not None:
        found += _of_one("far", clip.far, clip.rate)
        if not any(p.fatal for p in found):
            found += _of_both(clip.near, clip.far, clip.rate)
    found.sort(key=lambda p: not p.fatal)
    return [*found, *incomplete(clip)] if clip.missing_s else found


def incomplete(clip: Clip) -> list[Problem]:
    """That the file of the clip is cut short, or holds more than its header says, or nothing."""
    if abs(clip.missing_s) <= MISSING_S:
        return []
    if clip.missing_s < 0:
        less = f"the file's header says {-clip.missing_s:.3g} s less than the file holds, and these were not heard"
        return [Problem(INCOMPLETE, f"{less}: did the recorder stop before closing it?")]
    last = "end" if clip.missing_s == UNKNOWN_S else f"last {clip.missing_s:.3g} s"
    return [Problem(INCOMPLETE, f"the file lacks its {last}: was the recording, or the copying of it, cut off?")]


def balance_db(near: Array, far: Array, rate: int) -> float:
    """How much louder near is than far above RUMBLE_HZ, in dB."""
    power_near, power_far, _ = _powers(near, far, rate)
    return _db(power_near**0.5) - _db(power_far**0.5)


@dataclass(frozen=True)
class RecordingChecks:
    """The checks of a detector: what is wrong with a recording, as far as its recipes depend on it.

    setup          how the normals were recorded
    window_s       length of the normals, s
    highest_rate   Hz: its encoders hear up to half of it
    needs_far      whether a recipe needs the far channel; exchanged microphones matter to near as well
    """

    setup: UsualSetup
    window_s: float
    highest_rate: int
    needs_far: bool

    def problems(self, clip: Clip) -> list[Problem]:
        """What is wrong with a clip."""
        row = partial(row_of, clip)
        return self.relevant(problems(clip), clip.seconds, clip.rate, clip.codec, clip.far is not None, row)

    def relevant(
        self, found: list[Problem], seconds: float, rate: int, codec: str, has_far: bool, row: Callable[[], Array]
    ) -> list[Problem]:
        """Those of a clip's own problems that matter, and what its length and its `row()` add."""
        if self.setup.pair:  # which knows more
            found = [p for p in found if p.kind != "swapped"]
        if not self.needs_far:
            found = [p for p in found if p.channel == "near" or p.kind == INCOMPLETE]
        if seconds < self.window_s / 2:
            lengths = f"it lasts {seconds:.3g} s where the normals last {self.window_s:.3g} s"
            found = [*found, Problem("short", f"{lengths}: too short to be compared?")]
        if any(p.fatal for p in found):
            return found
        return found + self.setup.problems(
            row(), rate, codec, self.highest_rate, has_far=has_far, needs_far=self.needs_far
        )


def row_of(clip: Clip) -> Array:
    """The row (ROW,) float32 of a clip, from at most MOST_SPECTRA pieces of it."""
    from scipy import fft

    channels = [clip.near] if clip.far is None else [clip.near, clip.far]
    window = _hann(round(SPECTRUM_S * clip.rate))
    n = len(window)
    count = max(1, len(clip.near) // n)
    starts = n * np.unique(np.linspace(0, count - 1, min(count, MOST_SPECTRA)).astype(int))
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

    def problems(
        self, row: Array, rate: int, codec: str, highest_rate: int, *, has_far: bool, needs_far: bool
    ) -> list[Problem]:
        """How a clip was recorded otherwise than the normals, by its row; encoders hear up to half of `highest_rate`.

        Far alone is looked at only if it is needed; exchanged microphones matter to near as well.
        """
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
        if -1 / SURE < share < -SURE and not (clear and abs(delay - self.delay) < SAME_DELAY):
            side = np.sign(self.balance @ np.abs(self.balance))
            where = side * self.balance >= (side * self.balance).max() / 2
            now, usual = float(balance[where].mean()), float(self.balance[where].mean())
            return f"near is {_than(now)} than far, and {_than(usual)} in the normals: are the microphones swapped?"
        if clear and abs(delay + self.delay) < SAME_DELAY and share < SURE:
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
        for (lost, step), most in ((LOST, len(below) // 2), (WEAK, MOST_WEAK)):
            count = int(np.argmax(np.append(below[::-1] <= lost, True)))
            if not 0 < count <= most or below[-count] - below[-count - 2] < step:
                continue
            edge = np.flatnonzero(heard)[-count]
            band = f"{TOP_HZ[edge - 1] / 1000:.1f} to {TOP_HZ[heard].max() / 1000:.1f} kHz"
            cause = "MP3, OGG or a filter on the way? Record as the normals were"
            if lost == WEAK[0]:
                text = f"{band} are {below[-count:].min():.0f} dB below all normals, with an edge: {cause}"
                return [Problem("weak_band", text, channel="near")]
            text = f"it lacks {band}, which all normals have: {cause}"
            return [Problem("missing_band", text, fatal=True, channel="near")]
        return []

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; empty arrays are left out."""
        arrays = {name: getattr(self, name) for name in SHAPES}
        plain = {name: x.tolist() for name, x in arrays.items() if x.size and len(self.usual)}
        bands = {"bands_hz": np.round(EDGES / SPECTRUM_S).tolist()} if plain else {}
        known = {"rates": sorted(self.rates), "codecs": sorted(self.codecs), "pair": self.pair}
        return {**known, "delay": self.delay, "hum": self.hum, **bands, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UsualSetup:
        """The set-up of the data of `to_dict`. ValueError, KeyError or TypeError for other data."""
        rates = frozenset(integer("rates", rate) for rate in data["rates"])
        known = cls(rates, frozenset(str(codec) for codec in data["codecs"]))
        if data.get("bands_hz") != np.round(EDGES / SPECTRUM_S).tolist():  # of a version with other bands
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


def _apart(rows: Array) -> dict[str, Any]:
    """`balance` and `delay` of rows (N, ROW) with two channels, where most of them tell the microphones apart."""
    each = rows[:, :BANDS] - rows[:, BANDS : 2 * BANDS]
    balance = _rounded(np.median(each, axis=0))
    heard = rows[:, :BANDS].min(axis=0) > FLOOR
    differs = bool(np.sqrt(np.mean(balance[heard] ** 2)) > UNLIKE_DB)
    differs = differs and bool(np.mean(np.abs(each @ balance) > SURE * (balance @ balance)) >= MOST)
    delays = rows[rows[:, CLARITY] >= CLEAR, DELAY]
    usual = int(np.median(delays)) if len(delays) > len(rows) / 2 else 0
    same, opposite = np.abs(delays - usual) < SAME_DELAY, np.abs(delays + usual) < SAME_DELAY
    clear = abs(usual) >= AHEAD and np.mean(same) > 0.5 and np.mean(same | opposite) >= MOST
    return {"balance": balance if differs else np.zeros(0), "delay": usual if clear else 0}


def _least(x: Array) -> Array:
    """The least of x (N, ...), lower by its distance to the next."""
    lowest, second = np.partition(x, 1, axis=0)[:2]
    return np.asarray(2 * lowest - second)


def _rounded(x: Array) -> Array:
    return np.round(x.astype(np.float64), 1)


def _than(db: float) -> str:
    return f"{abs(db):.0f} dB {'louder' if db > 0 else 'quieter'}"


SHAPES = {"usual": (BANDS,), "lowest": (2, BANDS), "shape": (2, BANDS), "level": (2,), "balance": (BANDS,)}


class _Channel(NamedTuple):
    """The samples (N,) float64 of a channel, and what the checks look at.

    low, high, rms   smallest and largest value, and the standard deviation
    at_low, at_high  share of samples at the smallest and at the largest value
    levels           number of different values among some 16,000 samples spread over x
    step             (N-1,) differences between neighbours
    gaps             (start, stop) of each stretch of one value longer than GAP_S
    """

    x: Array
    low: float
    high: float
    rms: float
    at_low: float
    at_high: float
    levels: int
    step: Array
    gaps: list[tuple[int, int]]

    @classmethod
    def of(cls, x: Array, rate: int) -> _Channel:
        x = x.astype(np.float64)
        low, high = float(x.min()), float(x.max())
        edge = 1e-3 * (high - low)
        at_low, at_high = float(np.mean(x <= low + edge)), float(np.mean(x >= high - edge))
        levels = len(np.unique(x[:: max(1, len(x) // 16_384)]))
        step = np.diff(x)
        runs = np.flatnonzero(np.diff(np.r_[False, step == 0, False])).reshape(-1, 2)  # quiet PCM has thousands
        gaps = [(int(a), int(b) + 1) for a, b in runs[runs[:, 1] - runs[:, 0] > GAP_S * rate]]
        return cls(x, low, high, float(x.std()), at_low, at_high, levels, step, gaps)


SIDES = {"near": "the near", "far": "the far"}


def _of_one(name: str, samples: Array, rate: int) -> list[Problem]:
    channel, side = _Channel.of(samples, rate), SIDES[name]
    dead = _miscoded(channel) or _dead(channel, rate)
    if dead is not None:
        return [Problem(dead[0], f"{side} microphone {dead[1]}", fatal=True, channel=name)]
    found = []
    largest, at_extremes = max(channel.high, -channel.low), channel.at_low + channel.at_high
    if largest > BEYOND_FULL_SCALE:
        text = f"{side} microphone reaches {largest:.3g} times full scale: are these whole numbers stored as floats?"
        found.append(Problem("full_scale", text, channel=name))
    if largest >= 0.999 and at_extremes > CLIPPED:
        text = f"{side} microphone clips ({at_extremes:.2%} of samples at full scale): lower its gain"
        found.append(Problem("clipped", text, channel=name))
    if channel.levels <= COARSE_LEVELS:
        text = f"{side} microphone uses {channel.levels} different values only: is its gain far too low?"
        found.append(Problem("coarse", text, channel=name))
    if gone := sum(stop - start for start, stop in channel.gaps) / rate:
        text = f"{side} microphone drops out for {gone:.2g} s: loose cable, or samples lost on the way?"
        if len(channel.gaps) == 1 and channel.gaps[0][0] == 0:
            text = f"{side} microphone is cut out for the first {gone:.2g} s: was the recorder still starting?"
        found.append(Problem("gap", text, channel=name))
    offset = float(channel.x.mean())
    wander = float(np.std([part.mean() for part in np.array_split(channel.x, 8)]))  # a gust of wind is no offset
    if abs(offset) > max(0.02 * largest, 1e-3, 0.2 * channel.rms, 10 * wander):
        text = f"{side} channel has a constant offset of {offset:+.3f}: sound card fault?"
        found.append(Problem("offset", text, channel=name))
    return found


def _miscoded(channel: _Channel) -> tuple[str, str] | None:
    """(kind, what is wrong) where whole numbers are sound only with another order of bytes or another sign, else None.

    Sound with swapped bytes, or with its sign bit turned, is noise at full scale. Clipped sound can be quieter in
    another reading too, but it rests at its extremes, or crosses zero without a jump of half the scale.
    """
    x = channel.x
    if channel.rms < LOUD_RMS or np.mean((x == channel.low) | (x == channel.high)) > AT_EXTREMES:
        return None
    for bits in (16, 24):
        half = 2 ** (bits - 1)
        if (x[:256] * half % 1).any():  # told at once, nearly always
            continue
        whole = np.rint(x * half).astype(np.int64)
        if not np.array_equal(whole, x * half):
            continue
        raw = whole & (2 * half - 1)
        swapped = _signed(sum(((raw >> s) & 0xFF) << (bits - 8 - s) for s in range(0, bits, 8)), half)
        if float(np.std(swapped)) < QUIETER * channel.rms:
            return "miscoded", "has its bytes in the wrong order: big-endian, or one byte off? Export it again"
        turned = _signed(raw ^ half, half)
        rms, crossings = float(np.std(turned)), np.abs(channel.step[x[1:] * x[:-1] < 0])
        near_zero = np.mean(np.abs(turned) < rms / 4)  # 0.2 of noise, 0.1 of a tone
        if rms < QUIETER * channel.rms and near_zero > 0.1 and len(crossings) and np.mean(crossings > 1) > 0.9:
            return "miscoded", "has the sign of its samples turned, as unsigned ones are: export it again"
        return None
    return None


def _signed(raw: Array, half: int) -> Array:
    """Whole numbers of two's complement in [0, 2 half) -> [-1, 1)."""
    return np.where(raw >= half, raw - 2 * half, raw) / half


def _dead(channel: _Channel, rate: int) -> tuple[str, str] | None:
    """(kind, what it does) of a channel that carries no sound, else None."""
    x, rms, at_extremes = channel.x, channel.rms, channel.at_low + channel.at_high
    if rms < SILENT_RMS:
        return "silent", f"is silent ({f'{_db(rms):.0f} dB' if rms else 'one value'}): dead, muted or unplugged?"
    if channel.high - channel.low < DEAD_SPAN and channel.levels <= DEAD_LEVELS:
        return "silent", f"moves between {channel.levels} values only: unplugged, or its gain far too low?"
    saturated = "saturated", f"is saturated ({at_extremes:.0%} of samples): lower its gain"
    if min(channel.at_low, channel.at_high) > SATURATED / 4 and at_extremes > SATURATED:
        return saturated  # before "stuck": a square wave rests on both rails
    held = float(np.mean(channel.step == 0))
    frozen = sum(stop - start for start, stop in channel.gaps) / len(x)
    if held > 0.9 or frozen > GONE:
        return "stuck", f"holds one value for {max(held, frozen):.0%} of the time: cable or driver?"
    if at_extremes > SATURATED:
        return saturated
    steepness = float(np.sqrt(np.mean(channel.step**2)))
    mostly_low = steepness < 2 * np.pi * 3 * MAINS_HZ[0] / rate * rms  # spares most channels the spectrum
    if mostly_low and (mains := _only_hum(x, rate)):
        return "silent", f"hears mains hum ({mains} Hz) and nothing else: unplugged?"
    return None


def _of_both(near: Array, far: Array, rate: int) -> list[Problem]:
    power_near, power_far, cross = _powers(near, far, rate)
    if min(power_near, power_far) <= SILENT_RMS**2:
        return []
    if 1 - cross**2 / (power_near * power_far) < SAME_SIGNAL:
        return [Problem("one_cable", "near and far carry the same signal: one microphone on both channels?")]
    weaker = 10 * float(np.log10(power_far / power_near))
    if weaker > WEAKER_DB:
        return [Problem("swapped", f"near is {weaker:.0f} dB weaker than far: are the microphones swapped?")]
    return []


def _spectra(x: Array, rate: int) -> tuple[Array, Array]:
    """Frequencies (F,) and spectra (..., T, F) of x (..., N), a row per second, |.|^2 summing to the power."""
    from scipy import fft

    n = min(rate, x.shape[-1])
    whole = x[..., : x.shape[-1] // n * n] - x.mean(axis=-1, keepdims=True)
    rows = whole.reshape(*x.shape[:-1], -1, n) * _blackman_harris(n).astype(x.dtype)
    return fft.rfftfreq(n, 1 / rate), fft.rfft(rows)


@lru_cache(maxsize=8)
def _blackman_harris(n: int) -> Array:
    """Blackman-Harris window (n,), scaled as `_spectra` says."""
    turn = 2 * np.pi * np.arange(n) / n
    window = 0.35875 - 0.48829 * np.cos(turn) + 0.14128 * np.cos(2 * turn) - 0.01168 * np.cos(3 * turn)
    return np.asarray(window * np.sqrt(2 / (n * (window**2).sum())))


def _powers(near: Array, far: Array, rate: int) -> tuple[float, float, float]:
    """Power of near, of far, and of one in the other, above RUMBLE_HZ."""
    hz, spectra = _spectra(np.stack([near, far]), rate)
    above = spectra[..., np.searchsorted(hz, min(RUMBLE_HZ, rate / 8)) :]
    parts = np.stack([above.real, above.imag], axis=1).reshape(2, -1)
    products = parts @ parts.T / above.shape[1]
    return float(products[0, 0]), float(products[1, 1]), float(products[0, 1])


def _only_hum(x: Array, rate: int) -> int:
    """The mains frequency if x, of a second or more, holds its hum and silence beside it, else 0."""
    if len(x) < rate:
        return 0
    hz, spectra = _spectra(x, rate)
    power = np.mean(np.abs(spectra) ** 2, axis=0)
    for mains in MAINS_HZ:
        line = np.abs(hz - mains * np.maximum(np.round(hz / mains), 1)) <= 4.5
        hum = power[line & (hz < 2.5 * mains)].sum()
        if power[~line & (hz > 20)].sum() < (2 * SILENT_RMS) ** 2 < hum and hum > power[hz > 20].sum() / 2:
            return mains
    return 0


def _db(rms: float) -> float:
    return float(20 * np.log10(max(rms, 1e-10)))


@lru_cache(maxsize=8)
def _hann(n: int) -> Array:
    """Hann window (n,) float32, scaled so that |rfft|^2 sums to the power."""
    window = np.hanning(n)
    return np.asarray(window * np.sqrt(2 / (n * (window**2).sum())), np.float32)
