"""Score-level fusion: systems are aligned by their training normals, then averaged (report section 2.8, eq. 17-18).

    a_j = (s_j - mu_j) / (sigma_j + eps)     mu_j, sigma_j: of system j's scores of the training normals    eq. 17
    s = sum_j weight_j a_j                                                                                 eq. 18

Conventions
    parts     [(train_scores (N,), scores (M,)), ...]   one pair per system
    weights   one per system, >= 0, summing to 1
    The result (M,) is float32, in standard deviations of the training normals.
    Training scores must be leave-one-out (`Backend.train_scores`). Scored against a bank that holds it, a training clip
    is its own nearest neighbour, and mu and sigma are meaningless.

>>> fuse([([1, 2, 3], [2, 5]), ([10, 20, 30], [20, 20])], weights=[0.5, 0.5]).round(2).tolist()
[0.0, 1.840000033378601]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, flags

EPS = 1e-12


def statistics(train_scores: ArrayLike, is_target: ArrayLike | None = None) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of training scores (N,), eq. 17.

    With `is_target` (N,) both domains have the same weight, so that 990 source clips do not outvote 10 target clips.
    """
    s = finite("train_scores", train_scores, ndim=1).astype(np.float64)
    if not len(s):
        raise ValueError("train_scores is empty: it needs the scores of the training normals")
    weights = np.full(len(s), 1 / len(s))
    if is_target is not None:
        target = flags("is_target", is_target, len(s))
        if target.any() and not target.all():
            weights = np.where(target, 0.5 / target.sum(), 0.5 / (~target).sum())
    mu = float(weights @ s)
    return mu, float(np.sqrt(weights @ (s - mu) ** 2))


def align(train_scores: ArrayLike, scores: ArrayLike, is_target: ArrayLike | None = None) -> Array:
    """Scores (M,) in standard deviations of the training normals: (s - mu) / (sigma + eps). Source: eq. 17."""
    return in_sigmas(finite("scores", scores, ndim=1), *statistics(train_scores, is_target))


def in_sigmas(scores: ArrayLike, mu: Array | float, sigma: Array | float) -> Array:
    """(s - mu) / (sigma + eps) in float64. eps grows with mu, so a system without spread is finite at any scale."""
    out: Array = (np.asarray(scores, np.float64) - mu) / divisor(mu, sigma)
    return out


def divisor(mu: Array | float, sigma: Array | float) -> Array:
    """sigma + eps of `in_sigmas`."""
    return np.asarray(sigma + EPS * np.maximum(1, np.abs(mu)))


def fuse(
    parts: Sequence[tuple[ArrayLike, ArrayLike]], weights: Sequence[float], is_target: ArrayLike | None = None
) -> Array:
    """Weighted sum of aligned scores. Source: eq. 18.

        parts       [(train_scores (N,), scores (M,)), ...]: of each system, leave-one-out scores and those to fuse
        weights     one per system, >= 0, summing to 1
        is_target   (N,) bool, domains of the training normals; with them both weigh the same in the alignment

    Returns fused scores (M,) float32, in standard deviations of the training normals.
    """
    return weighted_sum([align(train, scores, is_target) for train, scores in parts], weights)


def weighted_sum(aligned: Sequence[Array], weights: Sequence[float]) -> Array:
    """The sum of eq. 18, (M,) float32, of aligned scores (M,), one array for each of `weights`."""
    lam = check_weights(weights, len(aligned))
    if len({len(a) for a in aligned}) > 1:
        raise ValueError(f"every part must score the same clips; the parts hold {[len(a) for a in aligned]} scores")
    return np.asarray(np.tensordot(lam, np.stack(aligned), axes=1), np.float32)


def check_weights(weights: Sequence[float], count: int) -> Array:
    """`weights` as an array. ValueError unless there are `count` of them, >= 0, summing to 1."""
    lam = finite("weights", np.asarray(weights, np.float64), ndim=1)
    if len(lam) != count or not count:
        raise ValueError(f"there are {count} parts but {len(lam)} weights; give one weight for each part")
    if (lam < 0).any() or abs(lam.sum() - 1) > 1e-6:
        raise ValueError(f"weights must be >= 0 and sum to 1, not {[float(w) for w in lam]} (sum {lam.sum():g})")
    return lam
