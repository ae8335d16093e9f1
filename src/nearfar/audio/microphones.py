"""Do the microphones work, and are they connected as they should be? Decided by the samples of one recording.

    near, far   (N,) float32, full scale = 1; far is None for a mono recording
    rate        Hz

A dead microphone must never pass for a normal machine, so a recording without usable sound is a `fatal` problem:
silence, only the last bits of the converter, only mains hum, one value most of the time, saturation. Other problems are
warnings. The levels of dead wires differ by 60 dB; hence the limits apply to the signal without offset, hum and rumble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nearfar.support.check import Array

SILENT_RMS = 3e-5  # -90 dB of full scale: one step of 16 bits
SATURATED = 0.2  # share of samples at the extremes above which a recording cannot be judged
CLIPPED = 1e-4  # share at full scale above which clipping is worth a warning
BEYOND_FULL_SCALE = 4.0  # floats of a mixing desk may exceed full scale, by 12 dB at most
GAP_S = 0.02  # one value for longer than this is a gap
GONE = 0.5  # share of gaps above which a recording cannot be judged
DEAD_LEVELS, COARSE_LEVELS = 8, 32  # different values: nothing but the converter's last bits; too few
DEAD_SPAN = 0.05  # between the smallest and largest of DEAD_LEVELS values: more is a square wave, not a dead wire
RUMBLE_HZ = 100.0  # below it wind and handling are louder than most machines
SAME = 1e-3  # share of near's power that far does not explain, below which both are one microphone
WEAKER_DB = 6.0  # near below far by more than this is worth a question
MAINS_HZ = (50, 60)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a recording. `fatal`: it cannot be judged; else it is a warning."""

    kind: str  # silent stuck saturated | full_scale clipped coarse gap offset one_cable swapped incomplete short
    text: str
    fatal: bool = False
    channel: str = ""  # "near", "far", or "" for the pair


def problems(near: Array, far: Array | None, rate: int) -> list[Problem]:
    """What is wrong with a recording, fatal problems first; empty if all is well."""
    found = _of_one("near", near, rate)
    if far is not None:
        found += _of_one("far", far, rate)
        if not any(p.fatal for p in found):
            found += _of_both(near, far, rate)
    return sorted(found, key=lambda p: not p.fatal)


def balance_db(near: Array, far: Array, rate: int) -> float:
    """How much louder near is than far above RUMBLE_HZ, in dB."""
    power_near, power_far, _ = _powers(near, far, rate)
    return _db(power_near**0.5) - _db(power_far**0.5)


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


def _of_one(name: str, samples: Array, rate: int) -> list[Problem]:
    channel = _Channel.of(samples, rate)
    dead = _dead(channel, rate)
    if dead is not None:
        return [Problem(dead[0], f"the {name} microphone {dead[1]}", fatal=True, channel=name)]
    found = []
    largest, at_extremes = max(channel.high, -channel.low), channel.at_low + channel.at_high
    if largest > BEYOND_FULL_SCALE:
        text = (
            f"the {name} microphone reaches {largest:.3g} times full scale: are these whole numbers stored as floats?"
        )
        found.append(Problem("full_scale", text, channel=name))
    if largest >= 0.999 and at_extremes > CLIPPED:
        text = f"the {name} microphone clips ({at_extremes:.2%} of samples at full scale): lower its gain"
        found.append(Problem("clipped", text, channel=name))
    if channel.levels <= COARSE_LEVELS:
        text = f"the {name} microphone uses {channel.levels} different values only: is its gain far too low?"
        found.append(Problem("coarse", text, channel=name))
    if gone := sum(stop - start for start, stop in channel.gaps) / rate:
        text = f"the {name} microphone drops out for {gone:.2g} s: loose cable, or samples lost on the way?"
        if len(channel.gaps) == 1 and channel.gaps[0][0] == 0:
            text = f"the {name} microphone is cut out for the first {gone:.2g} s: was the recorder still starting?"
        found.append(Problem("gap", text, channel=name))
    offset = float(channel.x.mean())
    wander = float(np.std([part.mean() for part in np.array_split(channel.x, 8)]))  # a gust of wind is no offset
    if abs(offset) > max(0.02 * largest, 1e-3, 0.2 * channel.rms, 10 * wander):
        text = f"the {name} channel has a constant offset of {offset:+.3f}: sound card fault?"
        found.append(Problem("offset", text, channel=name))
    return found


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
    if 1 - cross**2 / (power_near * power_far) < SAME:
        return [Problem("one_cable", "near and far carry the same signal: one microphone on both channels?")]
    weaker = 10 * float(np.log10(power_far / power_near))
    if weaker > WEAKER_DB:
        return [Problem("swapped", f"near is {weaker:.0f} dB weaker than far: are the microphones swapped?")]
    return []


def _spectra(x: Array, rate: int) -> tuple[Array, Array]:
    """Frequencies (F,) and spectra (..., T, F) of x (..., N), a row per second, |.|^2 summing to the power.

    Blackman-Harris window.
    """
    from scipy import fft

    n = min(rate, x.shape[-1])
    turn = 2 * np.pi * np.arange(n) / n
    window = 0.35875 - 0.48829 * np.cos(turn) + 0.14128 * np.cos(2 * turn) - 0.01168 * np.cos(3 * turn)
    whole = x[..., : x.shape[-1] // n * n] - x.mean(axis=-1, keepdims=True)
    rows = whole.reshape(*x.shape[:-1], -1, n) * window.astype(x.dtype)
    return fft.rfftfreq(n, 1 / rate), fft.rfft(rows) * np.sqrt(2 / (n * (window**2).sum()))


def _powers(near: Array, far: Array, rate: int) -> tuple[float, float, float]:
    """Power of near, of far, and of one in the other, above RUMBLE_HZ."""
    hz, spectra = _spectra(np.stack([near, far]), rate)
    n, f = spectra[..., hz >= min(RUMBLE_HZ, rate / 8)]
    each = [float((a.real * b.real + a.imag * b.imag).sum()) / len(n) for a, b in ((n, n), (f, f), (n, f))]
    return each[0], each[1], each[2]


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
