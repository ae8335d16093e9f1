"""Rhythm as an encoder: how strongly a clip ticks, and how far its weakest beat falls short. No weights, no torch.

    grid (1, 1, 2)   [S, miss] of the whole clip
    S                height of the first strong peak of the onsets' autocorrelation: 1 exact repetition, about 0 none
    miss             (median beat - weakest beat) / (median beat - median of the clip): 0 no beat falls short, 1 one is
                     silent

1. level (T, 24): dB of power in 24 bands from 125 Hz to 8 kHz, every 5 ms (n_fft 512, hop 80, symmetric Hann, mirrored
   edges); 0.1 % of the band's mean power is added, so that silence is not infinitely far below.
2. rise (T, 24): max(0, level(t + 2) - level(t - 2)); onset (T,): its mean over the bands.
3. period: of the local maxima of the autocorrelation of the smoothed onset between 0.12 and 1.6 s (at most a third of
   the clip), the first that has 0.8 of the highest; S is its value. It is refined at 2, 4 and 8 periods.
4. beats: followed through the onset from the offset with the most onset under its comb. Their median rise over 7 frames
   is a template; beats are followed again through its match with the rise, and the first and the last are left out.

A stroke that is missing changes miss alone: neither the spectrum nor the loudest moment of the clip differs. A clip too
short for a period or without one has S = miss = 0; with fewer than 5 beats miss is 0. miss measures a distance itself,
so the back end method `as_is` suits this encoder.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import maximum_filter1d

from nearfar.encoders.logmel import RATE, SignalEncoder, band_edges, framed
from nearfar.support.check import Array

N_FFT, HOP = 512, 80
FRAMES_PER_S = RATE // HOP
BANDS, LOWEST_BIN = 24, 4
QUIETEST = 1e-3  # share of a band's mean power that is added to its power
SHORTEST_S, LONGEST_S = 0.12, 1.6  # of the period
FIRST_OF = 0.8  # a shorter period is taken if its peak has this share of the highest
SPAN = range(-2, 5)  # frames of a beat's template
FEWEST_BEATS = 5
BLOCK = 128  # frames


def load(name: str) -> SignalEncoder:
    """The rhythm encoder."""
    return SignalEncoder(name, 2, _grid)


@dataclass(frozen=True)
class Stroke:
    """The weakest beat of a clip.

    at_s      when it was due, in s from the start
    every_s   usual time from beat to beat
    strength  as a share of the usual beat's: 0 is silent
    """

    at_s: float
    every_s: float
    strength: float


def rhythm(wave: Array) -> tuple[float, float]:
    """(N,) at 16 kHz -> (S, miss)."""
    strength, beats, _, rest = _followed(wave)
    return strength, _short(beats, rest) if len(beats) else 0.0


def weakest_stroke(wave: Array) -> Stroke | None:
    """The beat of a wave (N,) at 16 kHz that `rhythm` measures; None if it follows none."""
    _, beats, at, rest = _followed(wave)
    if not len(beats):
        return None
    weakest, others = int(beats.argmin()), np.delete(np.arange(len(beats)), beats.argmin())
    every, start = np.polyfit(others, at[others], 1)  # the largest value beside a silent beat may lie anywhere
    return Stroke(
        float(start + weakest * every) / FRAMES_PER_S, float(every) / FRAMES_PER_S, max(0.0, 1 - _short(beats, rest))
    )


def _grid(wave: Array) -> Array:
    return np.array(rhythm(wave), np.float32)[None, None]


def _short(beats: Array, rest: float) -> float:
    """miss, of the beats and the median of the clip."""
    middle = float(np.median(beats))
    return float((middle - beats.min()) / (middle - rest + 1e-3))


def _followed(wave: Array) -> tuple[float, Array, Array, float]:
    """S, the strengths and frames of the beats (none if they are too few), and the median of the clip."""
    none = np.zeros(0)
    rise = _rise(_levels(wave))
    onset = rise.mean(axis=1)
    found = _period(onset)
    if found is None:
        return 0.0, none, none, 0.0
    lag, strength = found
    period = _refined(onset, lag)
    strengths, at = _beats(onset, period)
    if len(strengths) < FEWEST_BEATS:
        return strength, none, none, 0.0
    template = np.median(rise[(at[:, None] + np.array(SPAN)).clip(0, len(rise) - 1)], axis=0)
    padded = np.pad(rise, ((-SPAN[0], SPAN[-1]), (0, 0)))
    match = sum(padded[k : k + len(rise)] @ row for k, row in enumerate(template)) / ((template**2).sum() + 1e-9)
    beats, at = _beats(match, period)
    inner = slice(1, -1) if len(beats) > FEWEST_BEATS else slice(None)
    return strength, beats[inner], at[inner], float(np.median(match))


def _levels(wave: Array) -> Array:
    """(N,) -> (T, 24) dB."""
    frames, edges = framed(wave, N_FFT, HOP), band_edges(LOWEST_BIN, N_FFT, BANDS)
    window = np.hanning(N_FFT).astype(np.float32)
    sums = []
    for first in range(0, len(frames), BLOCK):  # small enough for the processor's cache
        spectrum = fft.rfft(frames[first : first + BLOCK] * window, axis=-1)
        sums.append(np.add.reduceat(spectrum.real**2 + spectrum.imag**2, edges[:-1], axis=1))
    power = np.concatenate(sums) / np.diff(edges)
    decibels: Array = 10 * np.log10(power + QUIETEST * power.mean(axis=0) + 1e-12)
    return decibels


def _rise(level: Array) -> Array:
    """(T, 24) -> (T, 24): increase in dB over 4 frames, 0 in the two frames at each end."""
    rise = np.zeros_like(level)
    rise[2:-2] = np.maximum(level[4:] - level[:-4], 0)
    return rise


def _autocorrelation(x: Array) -> Array:
    power = np.abs(fft.rfft(x - x.mean(), 2 * len(x))) ** 2
    return np.asarray(fft.irfft(power)[: len(x)])


def _period(onset: Array) -> tuple[int, float] | None:
    """The period in frames and the autocorrelation there; None if there is no positive peak."""
    kernel, n = np.hanning(11), len(onset)
    first, last = round(SHORTEST_S * FRAMES_PER_S), min(round(LONGEST_S * FRAMES_PER_S), n // 3)
    if last - first < 3:
        return None
    r = _autocorrelation(np.convolve(onset, kernel / kernel.sum(), "same"))
    part = (r / (r[0] + 1e-12) * n / (n - np.arange(n)))[first:last]
    tops = np.flatnonzero((part[1:-1] >= part[:-2]) & (part[1:-1] > part[2:])) + 1
    if not len(tops) or part[tops].max() <= 0:
        return None
    lag = int(tops[part[tops] > FIRST_OF * part[tops].max()][0])
    return first + lag, float(part[lag])


def _refined(onset: Array, period: float) -> float:
    """The period to a fraction of a frame, from the autocorrelation at 2, 4 and 8 periods."""
    r = _autocorrelation(np.convolve(onset, np.hanning(7) / 3, "same"))
    for k in (2, 4, 8):
        centre, width = round(period * k), max(2, int(0.04 * period))
        if centre + width >= 0.7 * len(onset):
            break
        period = (centre - width + int(r[centre - width : centre + width + 1].argmax())) / k
    return period


def _beats(onset: Array, period: float) -> tuple[Array, Array]:
    """Strengths and frames of the beats.

    A beat is the largest value within 8 % of a period of where it is due. Where the next one is due moves by 0.3 of the
    difference, if the beat exceeds 0.6 of the median so far. The first is due at the offset whose comb has the largest
    mean of the onset's running maximum (over 3 % of a period to either side).
    """
    n = len(onset)
    wide = maximum_filter1d(onset, 2 * max(1, int(0.03 * period)) + 1)
    comb = np.arange(round(period))[:, None] + period * np.arange(int((n - 1) // period))
    due = float(wide[np.round(comb).astype(int).clip(0, n - 1)].mean(axis=1).argmax())
    half = max(2, int(0.08 * period))
    values, ordered, at = list[float](), list[float](), list[int]()
    while due < n - half - 1:
        start = max(0, round(due) - half)
        i = start + int(onset[start : round(due) + half + 1].argmax())
        values.append(float(onset[i]))
        insort(ordered, values[-1])
        at.append(i)
        count = len(ordered)
        if count > 1 and values[-1] > 0.6 * (ordered[(count - 1) // 2] + ordered[count // 2]) / 2:
            due += 0.3 * (i - due)
        due += period
    return np.array(values), np.array(at)
