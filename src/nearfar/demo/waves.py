"""Building blocks of machine sounds: wandering factors, turning shafts, tones, impulse trains and spectral shapes.

n        samples at RATE; every wave is (n,) float32, every shape (n // 2 + 1,) on the grid of an n-point real FFT
turning  revolutions of a shaft over time, from which tones, sidebands and impacts of a machine follow
shapes   have mean square 1 over the bins, so that white noise of RMS 1 keeps its RMS
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft

from nearfar.support.check import Array

RATE = 16_000
OCTAVES = np.log2(31.25) + np.arange(9)  # knots of every spectral curve: 31.25 Hz to 8 kHz

Curve = tuple[float, ...]


def white(rng: np.random.Generator, n: int) -> Array:
    """White noise (n,) of RMS 1."""
    return rng.standard_normal(n, np.float32)


def wander(rng: np.random.Generator, n: int, depth: float, *, hz: float = 1.0) -> Array:
    """A slow random factor (n,) around 1 with standard deviation `depth` at its knots, `hz` knots a second."""
    knots = int(n / RATE * hz) + 2
    values = 1 + depth * rng.standard_normal(knots)
    return np.asarray(np.interp(np.arange(n) * (hz / RATE), np.arange(knots), values), np.float32)


def turning(rng: np.random.Generator, n: int, hz: float, depth: float) -> Array:
    """Revolutions (n,) float64 of a shaft at `hz`, from a random angle, with a speed that wanders by `depth`."""
    return rng.random() + np.cumsum(wander(rng, n, depth), dtype=np.float64) * (hz / RATE)


def harmonics(turns: Array, order: float, amplitudes: tuple[complex, ...] | Array) -> Array:
    """Real part of sum_k a_k exp(2 pi i k order turns), k = 1, 2, ...: (n,) float32."""
    angle = order * turns
    angle -= np.floor(angle)
    angle = (2 * np.pi * angle).astype(np.float32)
    z = np.empty(len(angle), np.complex64)
    z.real, z.imag = np.cos(angle), np.sin(angle)
    out = np.full(len(z), amplitudes[-1], np.complex64)
    for a in reversed(amplitudes[:-1]):  # Horner
        out *= z
        out += np.complex64(a)
    return np.asarray((out * z).real)


def crossings(turns: Array, per_turn: float, slip: float, rng: np.random.Generator) -> Array:
    """Times in samples of `per_turn` events a turn; each interval slips by a relative standard deviation `slip`."""
    first, last = turns[0] * per_turn, turns[-1] * per_turn
    count = int((last - first) * (1 + 4 * slip)) + 2
    events = (
        np.ceil(first) - 1 + np.cumsum(1 + slip * rng.standard_normal(count))
        if slip
        else np.ceil(first) + np.arange(count)
    )
    events = events[(events >= first) & (events <= last)]
    return np.interp(events / per_turn, turns, np.arange(len(turns)))


def impulses(n: int, times: Array, strengths: Array) -> Array:
    """Impulses at fractional `times` in samples -> (n,) float32; times outside the wave are ignored."""
    inside = (times >= 0) & (times < n - 1)
    at, part = times[inside].astype(int), times[inside] % 1
    wave = np.bincount(at, strengths[inside] * (1 - part), n) + np.bincount(at + 1, strengths[inside] * part, n)
    return np.asarray(wave, np.float32)


@lru_cache(maxsize=8)
def resonance(resonance: tuple[float, float], n: int) -> Array:
    """Transfer function (bins,) of a mode (Hz, decay time in s), mean square 1."""
    hz, decay = resonance
    ratio = fft.rfftfreq(n, 1 / RATE) / hz
    h = 1j * ratio / (1 - ratio**2 + 1j * ratio / (np.pi * hz * decay))
    return np.asarray(h / np.sqrt((np.abs(h) ** 2).mean()), np.complex64)


def draw_curve(rng: np.random.Generator, slope: float, spread: float) -> Curve:
    """Decibels at OCTAVES: `slope` dB an octave and a random deviation of `spread` dB."""
    return tuple((slope * np.arange(len(OCTAVES)) + rng.normal(0, spread, len(OCTAVES))).tolist())


@lru_cache(maxsize=64)
def shape(curve: Curve, n: int) -> Array:
    """A curve as factors (bins,) float32 with mean square 1: white noise of RMS 1 keeps its RMS."""
    octave = np.log2(np.maximum(fft.rfftfreq(n, 1 / RATE), 1.0))
    gain = 10 ** (np.interp(octave, OCTAVES, curve) / 20)
    return np.asarray(gain / np.sqrt((gain**2).mean()), np.float32)
