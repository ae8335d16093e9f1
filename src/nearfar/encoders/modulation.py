"""Modulation as an encoder: how strongly and how fast the level of each band swings. No weights, no torch.

    grid (1, 12, 8)   12 bands, 8 modulation bands, of the whole clip: decibels above FLOOR_DB

1. level (frames, 12): natural logarithm of the power in 12 bands from 190 Hz to 8 kHz, relative to the band's mean over
   the clip, 500 frames a second (n_fft 256, hop 32, periodic Hann, mirrored edges); QUIETEST is added to the relative
   power, so that silence is not infinitely far below.
2. swing (12, 251): squared amplitude of the level's Fourier components at 0, 1, ... 250 Hz, mean over segments of a
   second, one every half second; each segment has its mean taken off and a Hann window.
3. For each of 8 modulation bands from 2 to 200 Hz, at equal ratios, the largest of its swings in decibels. A line of
   a shaft or of a defect stands out of its band; its mean would hide it.

Damaged bearings, teeth and blades, cavitation and looseness make the sound swell at the rate of a shaft or a defect.
The level of a band and its colour have no effect: a recording of another day, another place of the microphone and
another gain change a spectrum more than its modulation. A clip shorter than a segment is continued by its mirror image.

Reference: Randall and Antoni, Rolling element bearing diagnostics (2011): envelope spectrum.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from scipy import fft

from nearfar.encoders.logmel import RATE, SignalEncoder, band_edges, framed
from nearfar.support.check import Array

N_FFT, HOP = 256, 32
FRAMES_PER_S = RATE // HOP
BANDS, LOWEST_BIN = 12, 3
MODULATIONS, SLOWEST_HZ, FASTEST_HZ = 8, 2.0, 200.0
SEGMENT_S = 1
QUIETEST = 1e-3
FLOOR_DB = -90.0
BLOCK = 256  # frames


def load(name: str) -> SignalEncoder:
    """The modulation encoder."""
    return SignalEncoder(name, MODULATIONS, _grid)


def modulation(wave: Array) -> Array:
    """(N,) at 16 kHz -> (12, 8) decibels above FLOOR_DB, float32."""
    level = _level(wave)
    length = FRAMES_PER_S * SEGMENT_S
    if len(level) < length:
        level = np.pad(level, ((0, length - len(level)), (0, 0)), mode="symmetric")
    segments = np.lib.stride_tricks.sliding_window_view(level, length, axis=0)[:: length // 2]  # (T, 12, length)
    window = np.hanning(length).astype(np.float32)
    spectrum = fft.rfft((segments - segments.mean(axis=-1, keepdims=True)) * window, axis=-1)
    swing = (spectrum.real**2 + spectrum.imag**2).mean(axis=0) * (2 / window.sum()) ** 2
    largest = np.stack([swing[..., first:end].max(axis=-1) for first, end in _modulation_bands()], axis=-1)
    decibels = 10 * np.log10(np.maximum(largest, 10 ** (FLOOR_DB / 10)))
    return np.asarray(decibels - FLOOR_DB, np.float32)


def _grid(wave: Array) -> Array:
    return modulation(wave)[None]


def _level(wave: Array) -> Array:
    """(N,) -> (frames, 12)"""
    frames = framed(wave, N_FFT, HOP)
    window = (np.sin(np.pi * np.arange(N_FFT) / N_FFT) ** 2).astype(np.float32)
    power = np.empty((len(frames), BANDS), np.float32)
    for first in range(0, len(frames), BLOCK):  # small enough for the processor's cache
        parts = fft.rfft(frames[first : first + BLOCK] * window, axis=-1).view(np.float32)  # real, imaginary, by turns
        power[first : first + BLOCK] = parts**2 @ _bank()
    mean = power.mean(axis=0)
    return np.log(power / np.where(mean > 0, mean, 1) + np.float32(QUIETEST))


@cache
def _bank() -> Array:
    """Squared real and imaginary parts of the bins, by turns -> the power of the bands: (258, 12) of 0 and 1."""
    edges = band_edges(LOWEST_BIN, N_FFT, BANDS)
    bins = np.arange(N_FFT // 2 + 1).repeat(2)[:, None]
    return ((edges[:-1] <= bins) & (bins < edges[1:])).astype(np.float32)


@cache
def _modulation_bands() -> list[tuple[int, int]]:
    """First bin and the bin after the last, of each modulation band; a bin is 1 / SEGMENT_S Hz wide."""
    edges = np.geomspace(SLOWEST_HZ, FASTEST_HZ, MODULATIONS + 1) * SEGMENT_S
    return [(int(np.floor(a + 1e-9)), int(np.ceil(b - 1e-9))) for a, b in pairwise(edges)]
