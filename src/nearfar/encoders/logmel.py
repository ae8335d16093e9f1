"""Log-mel spectrum as an encoder: no weights, no torch.

    128 bands, HTK mel scale, 0 to 8 kHz, at 16 kHz; periodic Hann, centred, mirrored edges
    value = 10 log10(power of the band) in decibels above FLOOR_DB: a full-scale sine is near 130, digital silence is 0

    logmel             n_fft 1024, hop 512 (32 ms): follows what changes in time
    logmel-4096        n_fft 4096, hop 2048 (128 ms): resolves steady tones in the low bands
    logmel-4096-4096   the same without overlap: half the frames, enough for a mean over time

The level is not normalised: a clip that is 6 dB louder has values 6 dB higher in every band above the floor, because a
machine that becomes louder may be faulty. Values are >= 0, as the report's poolings need. The grid has one frequency
row, so every `freq` gives frames (T, 128).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from scipy import fft

from nearfar.encoders.mel import htk_hz, htk_mel, triangles
from nearfar.encoders.table import OURS, Frames, as_list
from nearfar.support.check import Array

RATE = 16_000
N_FFT = 1024
HOP = N_FFT // 2
BANDS = 128
FLOOR_DB = -130.0
FRAMING = {"logmel": (N_FFT, HOP), "logmel-4096": (4096, 2048), "logmel-4096-4096": (4096, 4096)}  # n_fft, hop


class SignalEncoder(Frames):
    """An encoder without weights: `measure` turns a wave (N,) at 16 kHz into its grid (T, F, D)."""

    sample_rate, licence = RATE, OURS
    batches, weights_hash, device = False, "", "cpu"

    def __init__(self, name: str, dim: int, measure: Callable[[Array], Array]) -> None:
        self.name, self.dim, self.measure = name, dim, measure

    def grid(self, waves: Any, layer: Any = None) -> Any:
        """(B, N) -> (B, T, F, D), a list of 1-D arrays -> a list of (T, F, D)."""
        if layer is not None:
            raise ValueError(f"{self.name} has no layers, so layer={layer!r} does not exist")
        stacked = isinstance(waves, np.ndarray)
        ready = not stacked and all(isinstance(w, np.ndarray) and w.dtype == np.float32 and w.ndim == 1 for w in waves)
        if not (ready and all(np.isfinite(w).all() for w in waves)):
            waves, _ = as_list(waves)  # converts the waves, or raises a ValueError
        grids = [self.measure(wave) for wave in waves]
        return np.stack(grids) if stacked and grids else grids


def load(name: str) -> SignalEncoder:
    """The log-mel encoder called `name` in `FRAMING`."""
    n_fft, hop = FRAMING[name]
    return SignalEncoder(name, BANDS, partial(_grid, n_fft=n_fft, hop=hop))


def log_mel(wave: Array, n_fft: int = N_FFT, hop: int = HOP) -> Array:
    """(N,) at 16 kHz -> (T, 128) decibels above FLOOR_DB, float32; T = 1 + N // hop, also below one window."""
    window, bank = _window_and_bank(n_fft)
    spectrum = fft.rfft(framed(wave, n_fft, hop) * window, axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2) @ bank
    floor = np.float32(10 ** (FLOOR_DB / 10))
    return (10 * np.log10(np.maximum(power, floor)) - FLOOR_DB).astype(np.float32)


def framed(wave: Array, n_fft: int, hop: int) -> Array:
    """(N,) -> frames (1 + N // hop, n_fft) float32 around every `hop`-th sample; the edges are mirrored."""
    if not len(wave):
        raise ValueError("a wave holds no samples")
    mode: Any = "reflect" if len(wave) > 1 else "edge"
    padded = np.pad(wave.astype(np.float32), n_fft // 2, mode=mode)
    return np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]


def band_edges(lowest: int, n_fft: int, bands: int) -> Array:
    """The first bins (bands + 1,) of `bands` of equal ratio from bin `lowest` on; the last band has the last bin."""
    edges = np.round(np.geomspace(lowest, n_fft // 2, bands + 1)).astype(int)
    edges[-1] += 1
    return edges


def _grid(wave: Array, n_fft: int, hop: int) -> Array:  # a function, because other processes get detectors by pickle
    return log_mel(wave, n_fft, hop)[:, None]


@cache
def _window_and_bank(n_fft: int) -> tuple[Array, Array]:
    """Window (n_fft,) and mel bank (1 + n_fft / 2, 128): triangles that sum to 1, a full sine is near 0 dB."""
    window = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
    edges = htk_hz(np.linspace(0, htk_mel(RATE / 2), BANDS + 2))
    # Each triangle reaches one bin to either side: the lowest ones are narrower and would hold no bin.
    width = RATE / n_fft
    centre = edges[1:-1]
    left, right = np.minimum(edges[:-2], centre - width), np.maximum(edges[2:], centre + width)
    bank = triangles(np.linspace(0, RATE / 2, n_fft // 2 + 1), left, centre, right)
    bank /= bank.sum(axis=0)
    return window.astype(np.float32), (bank * (2 / window.sum()) ** 2).astype(np.float32)
