"""Waveform enhancement with the far microphone as a reference (report section 2.3, method 4, eq. 6-11).

N and F are the spectra (STFT) of near and far. One transfer function H(f) per clip predicts the part of N that comes
from the surroundings, H F (eq. 6, 7). Two functions remove this leakage from near:

    soft_mask          N -> max(1 - alpha r / (1 + r), floor) N  with r = |H F|^2 / |N|^2: the phase of near is kept
    leakage_subtract   N -> N - H F, complex. H cannot be longer than the window, so the window should be about as long
                       as the room's response. `weighted=True` estimates H where the machine is quiet: the frames are
                       weighted by 1 / (power of N - H F)

Conventions
    near, far (..., N)   waveforms of one rate, arrays or tensors; the result has the same shape and dtype
    The STFT has a periodic Hann window, centred frames and mirrored edges. H is estimated over the whole clip.
    Every eps is relative to the mean power of the term it is added to: a clip c times as loud gives c times the result.
    A silent far channel leaves near unchanged. The result is at most twice as large as the peak of near.

>>> far = np.random.default_rng(0).normal(size=16000)
>>> near = 0.5 * far  # nothing but leakage
>>> bool(np.abs(leakage_subtract(near, far)).max() < 1e-6)
True
>>> bool((leakage_subtract(near, np.zeros(16000)) == near).all())
True

References: report eq. 6-11; W1 of kasahart/asd-experiments (complex subtraction).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.arrays import irfft, like, moving_mean, namespace, new, rfft, windows
from nearfar.support.check import Array, finite, integer, number

EPS = 1e-10  # share of the mean power that is added to a denominator
TINY = 1e-37  # keeps 0 / 0 at 0; close to the smallest float32
SHORTEST, LONGEST = 256, 32_768  # n_fft
MASK_STFT = 1024, 256  # n_fft and hop of the report's soft mask
NEIGHBOURS = 9  # bins over which the residual power is smoothed before it becomes a weight
RESIDUAL_FLOOR = 1e-3  # share of a bin's mean residual power: bounds the weight of a frame at 1000 times the average


def soft_mask(
    near: ArrayLike, far: ArrayLike, *, alpha: float, floor: float, n_fft: int = MASK_STFT[0], hop: int = MASK_STFT[1]
) -> Array:
    """Attenuate near where the leakage from far is strong. Source: eq. 6-11.

        near, far    (..., N) waveforms of one rate
        alpha        in [0, 1], strength of the attenuation; 0 leaves near unchanged
        floor        in [0, 1], smallest factor that a bin is multiplied by
        n_fft, hop   window, 256 to 32,768, and step of the STFT in samples; hop <= n_fft / 2

    Returns the enhanced near channel (..., N).
    """
    return soft_masks(near, far, [(alpha, floor)], n_fft=n_fft, hop=hop)[0]


def soft_masks(
    near: ArrayLike,
    far: ArrayLike,
    settings: Sequence[tuple[float, float]],
    *,
    n_fft: int = MASK_STFT[0],
    hop: int = MASK_STFT[1],
) -> list[Array]:
    """`soft_mask` for each pair (alpha, floor): the same arrays (..., N), but the spectra are computed once."""
    for alpha, floor in settings:
        number("alpha", alpha, low=0, high=1)
        number("floor", floor, low=0, high=1)

    def masked(n: Array, f: Array) -> list[Array]:
        p = _transfer(*_spectral_products(n, f)) * f  # eq. 6, 7
        power = _power(n)
        r = _power(p) / (power + _eps(power))  # eq. 8
        leaked = r / (1 + r)
        xp = namespace(n)
        return [xp.clip(1 - alpha * leaked, floor, 1) * n for alpha, floor in settings]  # eq. 9, 10

    return _through_stft(near, far, masked, n_fft, hop)


def leakage_subtract(
    near: ArrayLike, far: ArrayLike, *, n_fft: int = 1024, hop: int | None = None, weighted: bool = False
) -> Array:
    """Subtract from near the part that far predicts, N - H F. Source: W1 (with n_fft 1024).

        near, far   (..., N) waveforms of one rate
        n_fft       window of the STFT in samples, 256 to 32,768
        hop         step in samples, at most n_fft / 2; None: n_fft / 2, or n_fft / 4 if weighted
        weighted    whether H is estimated a second time, by least squares with weights 1 / (residual power)

    Returns near (..., N) without its leakage, limited to twice its peak.
    """
    n_fft = integer("n_fft", n_fft, low=SHORTEST)
    hop = hop if hop is not None else n_fft // 4 if weighted else n_fft // 2

    def subtract(n: Array, f: Array) -> list[Array]:
        cross, power = _spectral_products(n, f)
        rest = -_transfer(cross, power) * f
        rest += n
        if weighted:
            r = _smooth_bins(_power(rest))
            level = r.mean(axis=-2, keepdims=True)
            # Scaled to about 1 in every bin: only the proportions of the weights matter.
            weights = (level + TINY) / namespace(r).clip(r + RESIDUAL_FLOOR * level, TINY, None)
            cross *= weights
            power *= weights
            rest = -_transfer(cross, power) * f
            rest += n
        return [rest]

    return _through_stft(near, far, subtract, n_fft, hop)[0]


def longest_window(samples: int) -> int:
    """The longest power of two n_fft <= 16,384 that gives `samples` at least 8 frames at hop n_fft / 4."""
    n_fft = 16_384
    while n_fft > SHORTEST and 1 + samples // (n_fft // 4) < 8:
        n_fft //= 2
    return n_fft


def _spectral_products(n: Array, f: Array) -> tuple[Array, Array]:
    # N conj F and |F|^2
    return n * namespace(n).conj(f), _power(f)


def _transfer(cross: Array, power: Array) -> Array:
    # eq. 6, (..., frames, bins) -> (..., 1, bins)
    total = power.sum(axis=-2, keepdims=True)
    h: Array = cross.sum(axis=-2, keepdims=True) / (total + _eps(total))
    return h


def _power(spectrum: Array) -> Array:
    return spectrum.real**2 + spectrum.imag**2


def _eps(power: Array) -> Array:
    # A share of the clip's mean power over bins and frames.
    floor: Array = EPS * power.mean(axis=(-2, -1), keepdims=True) + TINY
    return floor


def _smooth_bins(power: Array) -> Array:
    # Mean over the NEIGHBOURS bins around each bin; over fewer at the two ends.
    half, bins = NEIGHBOURS // 2, power.shape[-1]
    count = np.minimum(np.arange(bins) + half + 1, bins) - np.maximum(np.arange(bins) - half, 0)
    mean = moving_mean(power, NEIGHBOURS) * namespace(power).asarray(like(power, NEIGHBOURS / count), dtype=power.dtype)
    smooth: Array = namespace(power).clip(mean, 0, None)
    return smooth


def _through_stft(
    near: ArrayLike, far: ArrayLike, change: Callable[[Array, Array], list[Array]], n_fft: int, hop: int
) -> list[Array]:
    # Spectra of near and far -> changed spectra of near -> waveforms.
    x, y = finite("near", near), finite("far", far)
    n_fft = integer("n_fft", n_fft, low=SHORTEST, high=LONGEST)
    hop = integer("hop", hop, high=n_fft // 2)
    if x.shape != y.shape:
        raise ValueError(f"near and far must have the same shape, not {x.shape} and {y.shape}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError("near holds no samples")
    xp = namespace(x)
    scale, scale_far = _peak(x), _peak(y)  # each channel at peak 1, so that squares neither overflow nor vanish
    window = xp.asarray(like(x, np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2), dtype=x.dtype)  # periodic Hann
    n, f = _stft(x / scale, window, hop), _stft(y / scale_far, window, hop)
    limit = 2 * xp.amax(abs(x), axis=-1, keepdims=True)
    silent = ~y.any(axis=-1, keepdims=True)
    outs = [_istft(spectrum, window, hop, x.shape[-1]) * scale for spectrum in change(n, f)]
    return [xp.asarray(xp.where(silent, x, xp.clip(out, -limit, limit)), dtype=x.dtype) for out in outs]


def _peak(x: Array) -> Array:
    xp = namespace(x)
    peak = xp.amax(abs(x), axis=-1, keepdims=True)
    scale: Array = xp.where(peak > 0, peak, 1)
    return scale


def _stft(x: Array, window: Array, hop: int) -> Array:  # (..., N) -> (..., frames, bins)
    pad, length = len(window) // 2, x.shape[-1]
    mirrored = np.pad(np.arange(length), pad, mode="reflect" if length > 1 else "edge")
    first, last = (x[..., like(x, at)] for at in (mirrored[:pad], mirrored[pad + length :]))
    rest = new(x, (*x.shape[:-1], -(length + 2 * pad - len(window)) % hop))  # zeros: a frame covers the last samples
    x = namespace(x).concatenate([first, x, last, rest], axis=-1)
    spectrum: Array = rfft(windows(x, len(window), hop) * window)
    return spectrum


def _istft(spectrum: Array, window: Array, hop: int, length: int) -> Array:  # (..., frames, bins) -> (..., N)
    # Least squares: windowed again, divided by the sum of the squared windows. The mirrored edges are cut off.
    frames = irfft(spectrum, len(window))
    frames *= window
    norm = _overlapped(namespace(window).broadcast_to(window**2, frames.shape[-2:]), hop)
    keep = slice(len(window) // 2, len(window) // 2 + length)
    return _overlapped(frames, hop)[..., keep] / norm[keep]


def _overlapped(frames: Array, hop: int) -> Array:
    # (..., frames, n_fft) -> (..., N): the sum of the frames, frame t beginning at sample t hop.
    *lead, count, n_fft = frames.shape
    out = new(frames, (*lead, count + -(-n_fft // hop) - 1, hop))
    # One hop of all frames at a time. In reversed order each sample receives its frames in the order of time.
    for start in reversed(range(0, n_fft, hop)):
        part = frames[..., start : start + hop]
        out[..., start // hop : start // hop + count, : part.shape[-1]] += part
    return out.reshape(*lead, -1)
