"""Temporal pooling: the frames of a clip -> one vector (report section 2.6, eq. 14-16).

    mean      sum_t x_t / T
    gem       (sum_t max(0, x_t)^p / T)^(1/p)                                                          eq. 14
    rdp       sum_t w_t x_t,  w_t ~ (1 + d_t)^alpha,  d_t = |x_t - mean| / max_t |x_t - mean|          eq. 15
    rdp_gem   (sum_t w_t max(0, x_t)^p)^(1/p)                                                          eq. 16
    quantile, peak, mean_std   for frames in decibels (the log-mel front end): a steady fault changes the lowest
              quarter and the mean power of a band; a knock changes the distance of the maximum from the mean

Conventions
    frames (..., T, D)   T frames in order of time, D features. Results are (..., D); quantile, mean_std: (..., 2 D)
    The order of the frames does not matter to any pooling.
    gem uses max(0, x): a clip whose frames are all negative pools to zero, by design.

>>> frames = np.array([[1.0, 0], [1, 0], [4, 0]])
>>> mean(frames).tolist(), gem(frames, p=1).tolist()
([2.0, 0.0], [2.0, 0.0])
>>> rdp(frames, alpha=1).round(2).tolist()  # weights 0.3, 0.3, 0.4
[2.2, 0.0]

References: [14] Wilkinghoff et al. 2026 (RDP, RDP+GeM); [15] Radenovic et al. 2018 (GeM).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, choose, finite, number

EPS = 1e-12


def mean(frames: ArrayLike) -> Array:
    """Mean over time of frames (..., T, D): (..., D)."""
    return pool(frames, "mean")


def gem(frames: ArrayLike, p: float = 3) -> Array:
    """Generalised mean with exponent p > 0 of the non-negative part of frames (..., T, D): (..., D). Source: eq. 14."""
    return pool(frames, "gem", p=p)


def rdp(frames: ArrayLike, alpha: float = 20) -> Array:
    """Relative deviation pooling of frames (..., T, D): (..., D); alpha >= 0, and 0 is the mean. Source: eq. 15."""
    return pool(frames, "rdp", alpha=alpha)


def rdp_gem(frames: ArrayLike, alpha: float = 1, p: float = 3) -> Array:
    """Generalised mean of frames (..., T, D) with the weights of `rdp`: (..., D); alpha >= 0, p > 0. Source: eq. 16."""
    return pool(frames, "rdp_gem", alpha=alpha, p=p)


def quantile(frames: ArrayLike, q: float = 0.25) -> Array:
    """The q quantile over time and the mean power of frames (..., T, D) in dB, both in dB: (..., 2 D)."""
    return _quantile(_frames(frames), number("q", q, low=0, high=1))


def peak(frames: ArrayLike) -> Array:
    """Maximum over time minus the mean of frames (..., T, D): (..., D)."""
    return pool(frames, "peak")


def mean_std(frames: ArrayLike) -> Array:
    """Mean and standard deviation over time of frames (..., T, D): (..., 2 D)."""
    return pool(frames, "mean_std")


def _mean(x: Array) -> Array:
    return x.mean(axis=-2, dtype=np.float64).astype(x.dtype)


def _gem(x: Array, p: float) -> Array:
    return _power_mean(x, np.full(x.shape[:-1], 1 / x.shape[-2], x.dtype), p)


def _rdp(x: Array, alpha: float) -> Array:
    return np.einsum("...t,...td->...d", deviation_weights(x, alpha), x)


def _quantile(x: Array, q: float) -> Array:
    top = x.max(axis=-2, keepdims=True)
    power = top[..., 0, :] + 10 * np.log10(np.mean(10 ** ((x - top) / 10), axis=-2))
    return np.concatenate([np.quantile(x, q, axis=-2).astype(x.dtype), power], axis=-1)


# The poolings of float arrays that are checked already, with the settings p and alpha.
POOLINGS: dict[str, Callable[[Array, float, float], Array]] = {
    "mean": lambda x, p, alpha: _mean(x),
    "gem": lambda x, p, alpha: _gem(x, p),
    "rdp": lambda x, p, alpha: _rdp(x, alpha),
    "rdp_gem": lambda x, p, alpha: _power_mean(x, deviation_weights(x, alpha), p),
    "quantile": lambda x, p, alpha: _quantile(x, 0.25),
    "peak": lambda x, p, alpha: x.max(axis=-2) - x.mean(axis=-2),
    "mean_std": lambda x, p, alpha: np.concatenate([x.mean(axis=-2), x.std(axis=-2)], axis=-1),
}


def pool(frames: ArrayLike, kind: str, *, p: float = 3, alpha: float = 1) -> Array:
    """Pool by name.

    Parameters
    ----------
    frames : (..., T, D)
        Frames of a clip in order of time.
    kind : "mean" | "gem" | "rdp" | "rdp_gem" | "quantile" | "peak" | "mean_std"
        See the module.
    p : float > 0
        Exponent of gem and rdp_gem.
    alpha : float >= 0
        Exponent of the weights of rdp and rdp_gem.

    Returns
    -------
    (..., D), of "quantile" and "mean_std" (..., 2 D)
        The pooled vector.
    """
    rule = choose("pooling", kind, POOLINGS)
    return rule(_frames(frames), number("p", p, above=0), number("alpha", alpha, low=0))


def deviation_weights(frames: Array, alpha: float) -> Array:
    """Weights w_t (..., T) of frames (..., T, D); those of a clip sum to 1. Source: eq. 15."""
    return emphasis(deviations(frames), alpha).astype(frames.dtype)


def deviations(frames: Array) -> Array:
    """Relative deviations d_t (..., T) of frames (..., T, D) from the clip's mean, at most 1. Source: eq. 15."""
    difference = frames - frames.mean(axis=-2, keepdims=True, dtype=np.float64)
    largest = np.abs(difference).max(axis=(-2, -1), keepdims=True, initial=np.finfo(np.float64).tiny)
    d = np.linalg.norm(difference / largest, axis=-1) * largest[..., 0]  # (..., T), without overflow
    relative: Array = d / (d.max(axis=-1, keepdims=True) + EPS)
    return relative


def emphasis(deviations: Array, alpha: float) -> Array:
    """Weights (..., T) of frames by their relative deviations (..., T). Source: eq. 15."""
    w = ((1 + deviations) / (1 + deviations.max(axis=-1, keepdims=True))) ** alpha
    weights: Array = w / w.sum(axis=-1, keepdims=True)
    return weights


def _power_mean(x: Array, weights: Array, p: float) -> Array:
    # Each feature is scaled to a maximum of 1 first, because x ** 9 could under- or overflow in float32.
    x = np.maximum(x, 0)
    top = x.max(axis=-2, keepdims=True)
    ratio = x / np.where(top > 0, top, 1)
    power = np.einsum("...t,...td->...d", weights, ratio**p)
    return np.minimum(power, 1) ** (1 / p) * top[..., 0, :]  # the weights may sum to more than 1 by rounding


def _frames(frames: ArrayLike) -> Array:
    x = finite("frames", frames)
    if x.ndim < 2 or x.shape[-2] == 0:
        raise ValueError(f"frames must have axes (..., T, D) with at least one frame, not shape {x.shape}")
    return x
