"""Mel scales and mel filterbanks, in float64 and without torch: the only place where they are written.

    htk_mel, htk_hz          mel = 2595 log10(1 + f / 700)
    slaney_mel, slaney_hz    linear below 1 kHz (3 mel for every 200 Hz), logarithmic above (27 mel for a factor of 6.4)
    triangles                power at some frequencies -> bands: (F,) frequencies, (bands + 2,) edges -> (F, bands)
    mel_bank                 the filterbanks of the networks' front ends

Frequencies are in Hz; a scale may be a number or an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.support.check import Array

LOWEST_HZ = {"slaney": 50.0, "kaldi": 20.0}  # first edge of the bank; 0 for the other kinds


def htk_mel(hz: Any) -> Any:
    """Frequency in Hz -> HTK mel."""
    return 2595 * np.log10(1 + hz / 700)


def htk_hz(mel: Any) -> Any:
    """HTK mel -> frequency in Hz."""
    return 700 * (10 ** (mel / 2595) - 1)


def slaney_mel(hz: Any) -> Any:
    """Frequency in Hz -> Slaney mel."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def slaney_hz(mel: Any) -> Any:
    """Slaney mel -> frequency in Hz."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def triangles(at: Array, left: Array, centre: Array, right: Array) -> Array:
    """Weights (F, bands) of frequencies `at` (F,): 1 at a band's `centre` (bands,), 0 outside `left` to `right`."""
    at = at[:, None]
    return np.maximum(0, np.minimum((at - left) / (centre - left), (right - at) / (right - centre)))


def mel_bank(kind: str, rate: int, n_fft: int, bands: int) -> Array:
    """Filterbank (1 + n_fft // 2, bands) up to rate / 2.

    "htk": HTK mel, peak 1. "htk-area": HTK mel, area 1. "slaney": Slaney mel from 50 Hz, area 1. "kaldi": from 20 Hz,
    triangles drawn in mel space (mel = 1127 ln(1 + f / 700), which is HTK's), 0 at the Nyquist bin.
    """
    to_mel, to_hz = (slaney_mel, slaney_hz) if kind == "slaney" else (htk_mel, htk_hz)
    mels = np.linspace(to_mel(LOWEST_HZ.get(kind, 0.0)), to_mel(rate / 2), bands + 2)
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    edges, at = (mels, htk_mel(bins)) if kind == "kaldi" else (to_hz(mels), bins)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bank = triangles(at, left, centre, right)
    if kind == "kaldi":
        bank[-1] = 0
    return bank * 2 / (right - left) if kind in ("slaney", "htk-area") else bank
