"""Temporal pooling: the frames of a clip -> one vector (report section 2.6, eq. 14-16).

    mean      sum_t x_t / T
    gem       (sum_t max(0, x_t)^p / T)^(1/p)                                                          eq. 14
    rdp       sum_t w_t x_t,  w_t ~ (1 + d_t)^alpha,  d_t = |x_t - mean| / max_t |x_t - mean|          eq. 15
    rdp_gem   (sum_t w_t max(0, x_t)^p)^(1/p)                                                          eq. 16

For frames in decibels (log-mel); P_t = 10^(x_t / 10) is the power of frame t:

    quiet     10 log10 of the 25 % quantile over t of P_t, interpolated between powers: what sounds all the time
    power     10 log10 (sum_t P_t / T): what sounds on average
    burst     max_t b_t - mean_t b_t,  b_t = 10 log10 (mean of P_t / mean_s P_s over 4 neighbouring features): knocks,
              whatever the level of a band
    quantile  the 25 % quantile over t of x_t, then power
    peak      max_t x_t - mean_t x_t
    mean_std  mean and standard deviation over t of x_t

Conventions
    frames (..., T, D)   T frames in order of time, D features: an array or a tensor.
                         Results are (..., D); quantile, mean_std: (..., 2 D);
                         burst: (..., ceil(D / 4)), the last group may have fewer features
    burst leaves out the first and the last min(8, ceil((T - 1) / 8)) frames, where a window reaches over the end of the
    clip, but at least one frame is left. Its b_t is at least -130 dB.
    Beyond that the order of the frames does not matter to any pooling.
    gem uses max(0, x): a clip whose frames are all negative pools to zero, by design.

`register_pooling` adds poolings of your own.

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

from nearfar.support.arrays import like, namespace, new, on_host, ranked
from nearfar.support.check import Array, choose, finite, number
from nearfar.support.plugins import Plugins

Rule = Callable[[Array, float, float], Array]

EPS = 1e-12
QUIET = 0.25  # quantile over time
EDGE = 8  # most frames that burst leaves out at either end, and the share 1 / EDGE of the clip that it leaves out there
GROUP = 4  # neighbouring features that burst averages
RELATIVE_FLOOR = 1e-13  # of a power relative to its mean over time


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


def quiet(frames: ArrayLike) -> Array:
    """The 25 % quantile over time of the power of frames (..., T, D) in dB, in dB: (..., D)."""
    return pool(frames, "quiet")


def power(frames: ArrayLike) -> Array:
    """The mean over time of the power of frames (..., T, D) in dB, in dB: (..., D)."""
    return pool(frames, "power")


def burst(frames: ArrayLike) -> Array:
    """How far the loudest frame stands above the mean, in dB, of frames (..., T, D) in dB: (..., ceil(D / 4))."""
    return pool(frames, "burst")


def peak(frames: ArrayLike) -> Array:
    """Maximum over time minus the mean of frames (..., T, D): (..., D)."""
    return pool(frames, "peak")


def mean_std(frames: ArrayLike) -> Array:
    """Mean and standard deviation over time of frames (..., T, D): (..., 2 D)."""
    return pool(frames, "mean_std")


def _mean(x: Array) -> Array:
    xp = namespace(x)
    mean: Array = xp.asarray(x.mean(axis=-2, dtype=xp.float64), dtype=x.dtype)
    return mean


def _gem(x: Array, p: float) -> Array:
    return _power_mean(x, new(x, x.shape[:-1], 1 / x.shape[-2]), p)


def _rdp(x: Array, alpha: float) -> Array:
    pooled: Array = namespace(x).einsum("...t,...td->...d", deviation_weights(x, alpha), x)
    return pooled


def _quantile(x: Array, q: float) -> Array:
    xp = namespace(x)
    both: Array = xp.concatenate([xp.asarray(xp.quantile(x, q, axis=-2), dtype=x.dtype), _power(x)], axis=-1)
    return both


def _power(x: Array) -> Array:
    xp = namespace(x)
    top = xp.amax(x, axis=-2, keepdims=True)
    decibels: Array = top[..., 0, :] + 10 * xp.log10((10 ** ((x - top) / 10)).mean(axis=-2))
    return decibels


def _quiet(x: Array) -> Array:
    lower, share = divmod(QUIET * (x.shape[-2] - 1), 1)
    at = [int(lower), min(int(lower) + 1, x.shape[-2] - 1)]
    xp = namespace(x)
    both = xp.asarray(ranked(x, at), dtype=xp.float64)
    low, high = both[..., 0, :], both[..., 1, :]
    # (1 - share) P_low + share P_high, relative to P_high so that no power overflows
    decibels = high + 10 * xp.log10((1 - share) * 10 ** ((low - high) / 10) + share) if share else low
    quiet: Array = xp.asarray(decibels, dtype=x.dtype)
    return quiet


def _burst(x: Array) -> Array:
    frames, features = x.shape[-2:]
    edge = min(EDGE, -(-(frames - 1) // EDGE), (frames - 1) // 2)
    xp = namespace(x)
    inside = xp.asarray(x[..., edge : frames - edge, :], dtype=xp.float64)
    relative = 10 ** ((inside - xp.amax(inside, axis=-2, keepdims=True)) / 10)
    relative /= relative.mean(axis=-2, keepdims=True)
    grouped, whole = 1 * relative[..., ::GROUP], features // GROUP
    for i in range(1, GROUP):  # the last group may have fewer features
        each = relative[..., i::GROUP]
        grouped[..., : each.shape[-1]] += each
    grouped[..., :whole] /= GROUP
    grouped[..., whole:] /= max(1, features - GROUP * whole)
    level = 10 * xp.log10(xp.clip(grouped, RELATIVE_FLOOR, None))
    burst: Array = xp.asarray(xp.amax(level, axis=-2) - level.mean(axis=-2), dtype=x.dtype)
    return burst


def _peak(x: Array) -> Array:
    peak: Array = namespace(x).amax(x, axis=-2) - x.mean(axis=-2)
    return peak


def _mean_std(x: Array) -> Array:
    xp, mean = namespace(x), x.mean(axis=-2, keepdims=True)
    both: Array = xp.concatenate([mean[..., 0, :], xp.sqrt(((x - mean) ** 2).mean(axis=-2))], axis=-1)
    return both


# The poolings of float arrays that are checked already, with the settings p and alpha.
POOLINGS: dict[str, Rule] = {
    "mean": lambda x, p, alpha: _mean(x),
    "gem": lambda x, p, alpha: _gem(x, p),
    "rdp": lambda x, p, alpha: _rdp(x, alpha),
    "rdp_gem": lambda x, p, alpha: _power_mean(x, deviation_weights(x, alpha), p),
    "quiet": lambda x, p, alpha: _quiet(x),
    "power": lambda x, p, alpha: _power(x),
    "burst": lambda x, p, alpha: _burst(x),
    "quantile": lambda x, p, alpha: _quantile(x, QUIET),
    "peak": lambda x, p, alpha: _peak(x),
    "mean_std": lambda x, p, alpha: _mean_std(x),
}


def register_pooling(name: str, pooling: Callable[[Array], Array]) -> None:
    """Add a pooling to recipes: `pooling(frames)` makes a vector (D',) of the frames (T, D) of a clip.

    ValueError for the name of a pooling of nearfar.
    """
    PLUGINS.register(name, pooling)


def _clipwise(pooling: Callable[[Array], Array]) -> Rule:
    """A pooling of (T, D) as one of (..., T, D)."""

    def rule(x: Array, p: float, alpha: float) -> Array:
        each = on_host(x).reshape(-1, *x.shape[-2:])
        made = np.stack([on_host(finite("the result of a pooling", pooling(frames), ndim=1)) for frames in each])
        pooled: Array = namespace(x).asarray(like(x, made.reshape(*x.shape[:-2], -1)), dtype=x.dtype)
        return pooled

    return rule


PLUGINS = Plugins("pooling", "nearfar.register_pooling", POOLINGS, _clipwise)


def pool(frames: ArrayLike, kind: str, *, p: float = 3, alpha: float = 1) -> Array:
    """Pool by name.

        frames   (..., T, D) of a clip in order of time
        kind     "mean" | "gem" | "rdp" | "rdp_gem" | "quiet" | "power" | "burst" | "quantile" | "peak" | "mean_std"
        p        > 0, exponent of gem and rdp_gem
        alpha    >= 0, exponent of the weights of rdp and rdp_gem

    Returns the pooled vector (..., length(kind, D)).
    """
    rule = choose("pooling", kind, POOLINGS)
    return rule(_frames(frames), number("p", p, above=0), number("alpha", alpha, low=0))


def length(kind: str, features: int) -> int:
    """Length of the vector that frames with `features` features are pooled to."""
    if kind in PLUGINS.paths:
        return len(POOLINGS[kind](np.ones((2, features), np.float32), 3.0, 1.0))
    if kind == "burst":
        return -(-features // GROUP)
    return 2 * features if kind in ("quantile", "mean_std") else features


def deviation_weights(frames: Array, alpha: float) -> Array:
    """Weights w_t (..., T) of frames (..., T, D); those of a clip sum to 1. Source: eq. 15."""
    weights: Array = namespace(frames).asarray(emphasis(deviations(frames), alpha), dtype=frames.dtype)
    return weights


def deviations(frames: Array) -> Array:
    """Relative deviations d_t (..., T) of frames (..., T, D) from the clip's mean, at most 1. Source: eq. 15."""
    xp = namespace(frames)
    difference = frames - frames.mean(axis=-2, keepdims=True, dtype=xp.float64)
    largest = xp.clip(xp.amax(abs(difference), axis=(-2, -1), keepdims=True), np.finfo(np.float64).tiny, None)
    scaled = difference / largest
    d = xp.sqrt((scaled * scaled).sum(axis=-1)) * largest[..., 0]  # (..., T), without overflow
    relative: Array = d / (xp.amax(d, axis=-1, keepdims=True) + EPS)
    return relative


def emphasis(deviations: Array, alpha: float) -> Array:
    """Weights (..., T) of frames by their relative deviations (..., T). Source: eq. 15."""
    w = ((1 + deviations) / (1 + namespace(deviations).amax(deviations, axis=-1, keepdims=True))) ** alpha
    weights: Array = w / w.sum(axis=-1, keepdims=True)
    return weights


def _power_mean(x: Array, weights: Array, p: float) -> Array:
    # Each feature is scaled to a maximum of 1 first, because x ** 9 could under- or overflow in float32.
    xp = namespace(x)
    x = xp.clip(x, 0, None)
    top = xp.amax(x, axis=-2, keepdims=True)
    ratio = x / xp.where(top > 0, top, 1)
    power = xp.einsum("...t,...td->...d", weights, ratio**p)
    pooled: Array = xp.clip(power, None, 1) ** (1 / p) * top[..., 0, :]  # rounded weights may sum to more than 1
    return pooled


def _frames(frames: ArrayLike) -> Array:
    x = finite("frames", frames)
    if x.ndim < 2 or x.shape[-2] == 0:
        raise ValueError(f"frames must have axes (..., T, D) with at least one frame, not shape {x.shape}")
    return x
