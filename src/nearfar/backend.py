"""Back ends: embeddings of the normals in, a score for every new embedding out (report sections 2.2 and 2.7).

    z (N, D) normals, is_target (N,) or None     q (M, D)     scores (M,), higher is more anomalous
    z (N, F, D), q (M, F, D): each of F frequency bands has a back end of its own, and the score is their mean (BEAM)

    raw          mean distance to the k nearest normals                                                     eq. 1
    ldn          min_r d / rho(r): distance over local density, one bank                                    [13]
    domain_z     min over domains of (d_k - mu) / sigma, statistics of the domain's own leave-one-out d_k   [12] eq. 3
    dldn         min over domains of that domain's LDN                                                      [12] eq. 5
    dbldn        w LDN_source + (1 - w) LDN_target: our reading of "weighted DB-LDN", which no source defines
    varmin       min_r d - alpha rho(r), alpha from the normals' own scores                    Matsumoto et al. 2025
    mahalanobis  distance from a Gaussian with shrunk covariance; with domains the smaller of the two

`Backend.train_scores` are what `score` would give each normal if everything here had been fitted without it.
The domain-aware methods take an absent domain as absent: one bank is left, with a warning.
BEAM calibrates within each band, before the mean: a band's nearest normal is the one that is nearest after calibration.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nearfar.bank import Bank
from nearfar.blas import side_by_side
from nearfar.check import Array, finite, flags
from nearfar.gaussian import Gaussian
from nearfar.methods import FEW, METHODS, Mahalanobis, Method
from nearfar.switches import DOMAIN_AWARE, Switches


def fit(z: ArrayLike, is_target: ArrayLike | None = None, **switches: Any) -> Backend:
    """Fit a back end on normals z (N, D) or, band by band, (N, F, D), N >= 2, with domains is_target (N,) or None.

    method  "raw" | "ldn" | "domain_z" | "dldn" | "dbldn" | "varmin" | "mahalanobis"
    metric  "cosine" (1 - cos) | "euclidean"
    k       neighbours of a query (1); clipped to the bank
    density_k, density_k_source, density_k_target  neighbours that make a density (16; VarMin 4; target bank 9)
    density_agg  "mean" | "sum" (GenRep 2025)          neighbour_selection  "normalized" | "raw"
    form  "ratio" | "difference"                       exponent  of the density: 0 is raw, 1 is LDN
    z_sigma  "target" (both domains by the target's sigma, GenRep 2025) | "own"
    weight   of the source domain in "dbldn" (0.5)     whiten  Ledoit-Wolf whitening before the bank (False)
    shrinkage  of the Gaussian: "ledoit_wolf" or a number    standardize  features first (False)
    ignore_domains  one Gaussian for "mahalanobis", whatever is_target says (False)

    Raises ValueError for arrays that are not finite, unknown names and numbers out of range.
    """
    unknown = set(switches) - set(Switches.__dataclass_fields__)
    if unknown:
        raise ValueError(f"unknown switches {sorted(unknown)}; known: {', '.join(Switches.__dataclass_fields__)}")
    z = finite("z", z)
    if z.ndim not in (2, 3) or len(z) < 2 or not z[0].size:
        raise ValueError(f"a back end needs at least 2 normal clips, and z has shape {z.shape}")
    target = np.zeros(len(z), bool)
    if is_target is not None:
        target = flags("is_target", is_target, len(z))
    chosen = Switches(**switches)
    if chosen.method in DOMAIN_AWARE and not (target.any() and not target.all()):
        warnings.warn(
            f"method {chosen.method!r} compares two domains and there is one: it works as one bank", stacklevel=2
        )
    elif chosen.method in DOMAIN_AWARE and min(target.sum(), (~target).sum()) < FEW:
        warnings.warn(f"a domain has fewer than {FEW} clips: it borrows the other domain's spread", stacklevel=2)
    return Backend(z.copy(), target, chosen)  # a caller who reuses the array must not change the bank


@dataclass(frozen=True)
class Backend:
    """A fitted back end. `z` (N, D) or (N, F, D) are the normals as given; nothing here knows audio or thresholds."""

    z: Array
    is_target: Array
    switches: Switches
    _gaussian: Gaussian | None = field(init=False, repr=False, default=None)
    _method: Method = field(init=False, repr=False)

    def __post_init__(self) -> None:
        z = self.z
        if z.ndim == 3:
            object.__setattr__(self, "_method", Beam(z, self.is_target, self.switches))
            return
        if self.switches.whiten:
            object.__setattr__(self, "_gaussian", Gaussian(z))
            z = self._whitened(z)
        object.__setattr__(self, "_method", METHODS[self.switches.method](z, self.is_target, self.switches))

    def score(self, q: ArrayLike) -> Array:
        """Scores (M,) of queries (M, D) or (M, F, D). Raises ValueError for NaN, infinity or another shape."""
        q = finite("q", q, ndim=self.z.ndim)
        if q.shape[1:] != self.z.shape[1:]:
            length, fitted = (" x ".join(map(str, x.shape[1:])) for x in (q, self.z))
            raise ValueError(f"q holds vectors of length {length}, the back end was fitted on {fitted}")
        return self._method.score(self._whitened(q)).astype(np.float32)

    @cached_property
    def train_scores(self) -> Array:
        """Exact leave-one-out scores (N,) of the normals: everything is as if fitted without the clip."""
        scores = self._method.leave_one_out() if self._gaussian is None else self._refit_each(self._gaussian)
        return scores.astype(np.float32)

    def nearest(self, q: ArrayLike, k: int = 3) -> tuple[Array, Array]:
        """Distances (M, k) and indices (M, k) of the nearest normals by plain distance: what to listen to beside q.

        Of bands, by the distance over all of them.
        """
        return self._bank.nearest(self._seen(finite("q", q, ndim=self.z.ndim)), k)

    @cached_property
    def _bank(self) -> Bank:
        metric = "euclidean" if isinstance(self._method, Mahalanobis) else self.switches.metric
        return Bank(self._seen(self.z), metric)

    def _seen(self, q: Array) -> Array:
        # As the method sees it: a Gaussian measures in its own axes.
        q = self._whitened(q.reshape(len(q), -1))
        return self._method.parts[0].whiten(q) if isinstance(self._method, Mahalanobis) else q

    def _whitened(self, q: Array) -> Array:
        return q if self._gaussian is None else self._gaussian.whiten(q)

    def _refit_each(self, gaussian: Gaussian) -> Array:
        # Whitening changes with every clip that is left out, and all distances with it.
        def one(i: int) -> float:
            keep = np.arange(len(self.z)) != i
            if self.switches.method == "mahalanobis":  # features matter one by one: not in rotated axes
                others = Backend(self.z[keep], self.is_target[keep], self.switches)
                return float(others.score(self.z[i : i + 1])[0])
            y = gaussian.whiten_without(i).astype(np.float32)
            method = METHODS[self.switches.method](y[keep], self.is_target[keep], self.switches)
            return float(method.score(y[i : i + 1])[0])

        return np.array(side_by_side(one, range(len(self.z))))


class Beam:
    """A back end for each band of z (N, F, D); the score is the mean of theirs, and so is the exact leave-one-out."""

    def __init__(self, z: Array, is_target: Array, switches: Switches) -> None:
        self.bands = [Backend(np.ascontiguousarray(band), is_target, switches) for band in np.moveaxis(z, 1, 0)]

    def score(self, q: Array) -> Array:
        return mean_of([band.score(q[:, f]) for f, band in enumerate(self.bands)])

    def leave_one_out(self) -> Array:
        return mean_of([band.train_scores for band in self.bands])


def mean_of(bands: Sequence[Array]) -> Array:
    """The score (M,) of BEAM, float64, from the scores of each band."""
    return np.asarray(np.mean(np.stack(bands), axis=0, dtype=np.float64))
