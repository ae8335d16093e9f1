"""Temporal pooling: the frames of a clip -> one vector (report section 2.6, eq. 14-16).

    frames   (..., T, D)   T frames in time order, D features
    returns  (..., D); `quantile` returns (..., 2 D)

No pooling here looks at frame order, so permuting T changes nothing.
GeM is defined on max(0, x): a clip whose frames are all negative pools to zero, by design.
`quantile` and `peak` are for frames in decibels (the log-mel front end): a steady fault moves the quiet quarter and the
mean power of a band; a knock moves the maximum away from the mean and nothing else.

References: [14] Wilkinghoff et al. 2026 (RDP, RDP+GeM); [15] Radenovic et al. 2018 (GeM).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, choose, finite, number

EPS = 1e-12


def mean(frames: ArrayLike) -> Array:
    """Mean over time, (..., T, D) -> (..., D)."""
    x = _frames(frames)
    return x.mean(axis=-2, dtype=np.float64).astype(x.dtype)


def gem(frames: ArrayLike, p: float = 3) -> Array:
    """Generalised mean of the non-negative part, (..., T, D) -> (..., D); p > 0. Source: eq. 14."""
    x = _frames(frames)
    return _power_mean(x, np.full(x.shape[:-1], 1 / x.shape[-2], x.dtype), p)


def rdp(frames: ArrayLike, alpha: float = 20) -> Array:
    """Relative deviation pooling, (..., T, D) -> (..., D); alpha >= 0, 0 is the mean. Source: eq. 15."""
    x = _frames(frames)
    return np.einsum("...t,...td->...d", deviation_weights(x, alpha), x)


def rdp_gem(frames: ArrayLike, alpha: float = 1, p: float = 3) -> Array:
    """Generalised mean with the weights of relative deviation pooling, (..., T, D) -> (..., D). Source: eq. 16."""
    x = _frames(frames)
    return _power_mean(x, deviation_weights(x, alpha), p)


def quantile(frames: ArrayLike, q: float = 0.25) -> Array:
    """Per band the `q` quantile over time and the mean power, both in dB: (..., T, D) in dB -> (..., 2 D)."""
    x = _frames(frames)
    number("q", q, low=0, high=1)
    top = x.max(axis=-2, keepdims=True)
    power = top[..., 0, :] + 10 * np.log10(np.mean(10 ** ((x - top) / 10), axis=-2))
    return np.concatenate([np.quantile(x, q, axis=-2).astype(x.dtype), power], axis=-1)


def peak(frames: ArrayLike) -> Array:
    """Maximum over time minus the mean, (..., T, D) -> (..., D): what stands out for a moment."""
    x = _frames(frames)
    return x.max(axis=-2) - x.mean(axis=-2)


def mean_std(frames: ArrayLike) -> Array:
    """Mean and standard deviation over time, (..., T, D) -> (..., 2 D)."""
    x = _frames(frames)
    return np.concatenate([x.mean(axis=-2), x.std(axis=-2)], axis=-1)


POOLINGS: dict[str, Callable[[Array, float, float], Array]] = {
    "mean": lambda x, p, alpha: mean(x),
    "gem": lambda x, p, alpha: gem(x, p),
    "rdp": lambda x, p, alpha: rdp(x, alpha),
    "rdp_gem": lambda x, p, alpha: rdp_gem(x, alpha, p),
    "quantile": lambda x, p, alpha: quantile(x),
    "peak": lambda x, p, alpha: peak(x),
    "mean_std": lambda x, p, alpha: mean_std(x),
}


def pool(frames: ArrayLike, kind: str, *, p: float = 3, alpha: float = 1) -> Array:
    """Pool by name (see `POOLINGS`); `p` and `alpha` are used by the kinds that have them."""
    return choose("pooling", kind, POOLINGS)(_frames(frames), p, alpha)


def deviation_weights(frames: Array, alpha: float) -> Array:
    """w_t of eq. 15 from frames (..., T, D): (..., T), each clip's weights sum to 1."""
    return emphasis(deviations(frames), alpha).astype(frames.dtype)


def deviations(frames: Array) -> Array:
    """Relative deviation of every frame (..., T, D) from the mean of the clip, (..., T), at most 1. Source: eq. 15."""
    apart = frames - frames.mean(axis=-2, keepdims=True, dtype=np.float64)
    top = np.abs(apart).max(axis=(-2, -1), keepdims=True, initial=np.finfo(np.float64).tiny)
    d = np.linalg.norm(apart / top, axis=-1) * top[..., 0]  # (..., T), without overflow
    relative: Array = d / (d.max(axis=-1, keepdims=True) + EPS)
    return relative


def emphasis(deviations: Array, alpha: float) -> Array:
    """Weights (..., T) of frames by their relative deviations (..., T). Source: eq. 15."""
    number("alpha", alpha, low=0)
    w = ((1 + deviations) / (1 + deviations.max(axis=-1, keepdims=True))) ** alpha
    weights: Array = w / w.sum(axis=-1, keepdims=True)
    return weights


def _power_mean(x: Array, weights: Array, p: float) -> Array:
    # Homogeneous, so each feature is scaled to a maximum of 1 first: x ** 9 in float32 would under- or overflow.
    number("p", p, above=0)
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
