"""Waveform enhancement with the far microphone as a reference (report section 2.3, method 4, eq. 6-11).

    near, far  (..., N)   waveforms of one rate
    returns    (..., N)   same length and dtype, and worked out in it

Two ways to take out of the near channel what the far channel explains through one transfer function per clip, H(f):

- `soft_mask`, the report's: near's spectrum is attenuated where H F is strong; the near phase is kept.
- `leakage_subtract`: N - H F, complex. H can only be as long as the window, so the window has to be about as long as
  the room's response. `weighted=True` estimates H where the machine is quiet (weights = 1 / residual power).

STFT: periodic Hann, centred, mirrored edges, H over the whole clip. Every eps is relative to the mean power of what it
stands beside, so scaling a clip scales the result and nothing else. A silent far channel leaves near unchanged.

References: report eq. 6-11; W1 of kasahart/asd-experiments (complex subtraction).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from nearfar.support.check import Array, finite, integer, number

EPS, TINY = 1e-10, 1e-37  # TINY: float32 has hardly less
LONGEST, SHORTEST = 32_768, 256
NEIGHBOURS = 9  # bins over which the residual power is smoothed before it becomes a weight
RESIDUAL_FLOOR = 1e-3  # of the bin's mean residual: no frame weighs more than a thousand average ones


def soft_mask(
    near: ArrayLike, far: ArrayLike, *, alpha: float, floor: float, n_fft: int = 1024, hop: int = 256
) -> Array:
    """Attenuate near where the far channel's leakage is strong, (..., N) -> (..., N). Source: eq. 6-11.

    `alpha` in [0, 1] is the strength, `floor` in [0, 1] the smallest factor. Raises ValueError out of range.
    """
    return soft_masks(near, far, [(alpha, floor)], n_fft=n_fft, hop=hop)[0]


def soft_masks(
    near: ArrayLike, far: ArrayLike, settings: Sequence[tuple[float, float]], *, n_fft: int = 1024, hop: int = 256
) -> list[Array]:
    """`soft_mask` for each (alpha, floor), (..., N) each and to the same bits: all before the masks is done once."""
    for alpha, floor in settings:
        number("alpha", alpha, low=0, high=1)
        number("floor", floor, low=0, high=1)

    def masked(n: Array, f: Array) -> list[Array]:
        p = _transfer(n, f) * f  # eq. 6, 7
        power = _power(n)
        r = _power(p) / (power + _eps(power))  # eq. 8
        leaked = r / (1 + r)
        return [np.clip(1 - alpha * leaked, floor, 1) * n for alpha, floor in settings]  # eq. 9, 10

    return _through_stft(near, far, masked, n_fft, hop)


def leakage_subtract(
    near: ArrayLike, far: ArrayLike, *, n_fft: int = 1024, hop: int | None = None, weighted: bool = False
) -> Array:
    """Near minus its part that the far channel explains, N - H F, (..., N) -> (..., N).

    n_fft from 256 to 32,768; `hop` is n_fft / 2, or n_fft / 4 when weighted. The result is limited to twice near's
    peak. Source: W1 (n_fft 1024); weighted: least squares with weights 1 / (residual power), one pass.
    """
    n_fft = integer("n_fft", n_fft, low=SHORTEST)
    hop = hop if hop is not None else n_fft // 4 if weighted else n_fft // 2

    def subtract(n: Array, f: Array) -> list[Array]:
        rest = n - _transfer(n, f) * f
        if weighted:
            r = _smooth_bins(_power(rest))
            level = r.mean(axis=-2, keepdims=True)
            # Weights of about 1 in every bin: only their proportions matter.
            rest = n - _transfer(n, f, level / np.maximum(r + RESIDUAL_FLOOR * level, TINY)) * f
        return [rest]

    return _through_stft(near, far, subtract, n_fft, hop)[0]


def longest_window(samples: int) -> int:
    """The longest power of two n_fft <= 16,384 that gives `samples` at least 32 frames at hop n_fft / 4."""
    n_fft = 16_384
    while n_fft > SHORTEST and 1 + samples // (n_fft // 4) < 32:
        n_fft //= 2
    return n_fft


def _transfer(n: Array, f: Array, weights: Array | None = None) -> Array:
    # eq. 6, spectra (..., frames, bins) -> (..., 1, bins)
    weighted = f if weights is None else weights * f
    total = (weighted.real * f.real + weighted.imag * f.imag).sum(axis=-2, keepdims=True)
    h: Array = (n * np.conj(weighted)).sum(axis=-2, keepdims=True) / (total + _eps(total))
    return h


def _power(spectrum: Array) -> Array:
    return spectrum.real**2 + spectrum.imag**2


def _eps(power: Array) -> Array:
    # Relative to the clip's mean power (over bins and frames); TINY keeps 0 / 0 of a silent clip at 0.
    floor: Array = EPS * power.mean(axis=(-2, -1), keepdims=True) + TINY
    return floor


def _smooth_bins(power: Array) -> Array:
    # Mean over the 9 neighbouring bins, fewer at the two ends.
    half, bins = NEIGHBOURS // 2, power.shape[-1]
    zeros = np.zeros((*power.shape[:-1], 1))
    total = np.concatenate([zeros, np.cumsum(power, axis=-1, dtype=np.float64)], axis=-1)
    total = np.concatenate(
        [total[..., :1].repeat(half, axis=-1), total, total[..., -1:].repeat(half, axis=-1)], axis=-1
    )
    count = np.minimum(np.arange(bins) + half + 1, bins) - np.maximum(np.arange(bins) - half, 0)
    mean: Array = (total[..., NEIGHBOURS:] - total[..., :-NEIGHBOURS]) / count
    return np.maximum(mean, 0).astype(power.dtype)


def _through_stft(
    near: ArrayLike, far: ArrayLike, change: Callable[[Array, Array], list[Array]], n_fft: int, hop: int
) -> list[Array]:
    # Spectra of near and far -> changed spectra of near -> waveforms.
    x, y = finite("near", near), finite("far", far)
    n_fft, hop = integer("n_fft", n_fft, low=SHORTEST), integer("hop", hop)
    number("n_fft", n_fft, high=LONGEST)
    number("hop", hop, high=n_fft // 2)
    if x.shape != y.shape:
        raise ValueError(f"near and far must have the same shape, not {x.shape} and {y.shape}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError("near holds no samples")
    dtype = x.dtype
    scale, scale_far = _peak(x), _peak(y)  # the microphones' own gains drop out before anything is squared
    window = (np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2).astype(dtype)  # periodic Hann
    n, f = _stft(x / scale, window, hop), _stft(y / scale_far, window, hop)
    limit = 2 * np.abs(x).max(axis=-1, keepdims=True)
    silent = ~y.any(axis=-1, keepdims=True)
    outs = [_istft(spectrum, window, hop, x.shape[-1]) * scale for spectrum in change(n, f)]
    return [np.where(silent, x, np.clip(out, -limit, limit)).astype(dtype) for out in outs]


def _peak(x: Array) -> Array:
    peak = np.abs(x).max(axis=-1, keepdims=True)
    return np.where(peak > 0, peak, 1)


def _stft(x: Array, window: Array, hop: int) -> Array:  # (..., N) -> (..., frames, bins)
    pad = len(window) // 2
    mode = "reflect" if x.shape[-1] > 1 else "edge"
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(pad, pad)], mode=mode)  # type: ignore[call-overload]
    rest = -(x.shape[-1] - len(window)) % hop  # zeros, so that the last samples are inside a frame too
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, rest)])
    frames = np.lib.stride_tricks.sliding_window_view(x, len(window), axis=-1)[..., ::hop, :]
    return np.asarray(fft.rfft(frames * window, axis=-1))


def _istft(spectrum: Array, window: Array, hop: int, length: int) -> Array:  # (..., frames, bins) -> (..., N)
    # Least squares (window twice, divided by the sum of squared windows); the mirrored edges are cut off again.
    frames = fft.irfft(spectrum, n=len(window), axis=-1) * window
    norm = _overlapped(np.broadcast_to(window**2, frames.shape[-2:]), hop)
    keep = slice(len(window) // 2, len(window) // 2 + length)
    return _overlapped(frames, hop)[..., keep] / norm[keep]


def _overlapped(frames: Array, hop: int) -> Array:  # (..., frames, n_fft) -> (..., N), frame t added from t hop on
    *lead, count, n_fft = frames.shape
    out = np.zeros((*lead, count + -(-n_fft // hop) - 1, hop), frames.dtype)
    for start in reversed(range(0, n_fft, hop)):  # a hop of every frame at once; each sample gets its frames in order
        part = frames[..., start : start + hop]
        out[..., start // hop : start // hop + count, : part.shape[-1]] += part
    return out.reshape(*lead, -1)
