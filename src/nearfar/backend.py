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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nearfar.bank import METRICS, Bank, bank_of
from nearfar.gaussian import Gaussian
from nearfar.ldn import DensityBank, VarMinBank, density_of
from nearfar.support.check import Array, finite, flags, number, one_of, switch, whole
from nearfar.support.threads import map_in_order, threads

# Every choice of a back end, as data: the switches of `backend.fit` (report section 2.7; Table 2).

METHODS = ("raw", "ldn", "domain_z", "dldn", "dbldn", "varmin", "mahalanobis")
DOMAIN_AWARE = ("domain_z", "dldn", "dbldn")
DENSITY_K = {"ldn": 16, "dldn": 16, "dbldn": 16, "varmin": 4}  # used where density_k is None ([12]; VarMin: K = 4)
DENSITY_K_TARGET = 9  # [12]: all the other targets
CHOICES = {
    "density_agg": ("mean", "sum"),
    "neighbour_selection": ("normalized", "raw"),
    "form": ("ratio", "difference"),
    "z_sigma": ("target", "own"),
}


@dataclass(frozen=True)
class BackendConfig:
    """Every choice of a back end; names and defaults as in `fit`."""

    method: str = "raw"
    metric: str = "cosine"
    k: int = 1
    density_k: int | None = None
    density_k_source: int | None = None
    density_k_target: int | None = None
    density_agg: str = "mean"
    neighbour_selection: str = "normalized"
    form: str = "ratio"
    exponent: float = 1.0
    z_sigma: str = "target"
    weight: float = 0.5
    shrinkage: float | str = "ledoit_wolf"
    standardize: bool = False
    whiten: bool = False
    ignore_domains: bool = False

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        one_of("metric", self.metric, METRICS)
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        number("weight", self.weight, low=0, high=1)
        number("exponent", self.exponent)
        if self.shrinkage != "ledoit_wolf":
            number("shrinkage", self.shrinkage, low=0, high=1)  # type: ignore[arg-type]
        for name in ("standardize", "whiten", "ignore_domains"):
            switch(name, getattr(self, name))
        for name in ("k", "density_k", "density_k_source", "density_k_target"):
            if name == "k" or getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name)))

    def density(self, domain: str = "") -> dict[str, Any]:
        """Keyword arguments of the `DensityBank` of a domain ("source", "target") or of all clips ("")."""
        own = {"source": self.density_k_source, "target": self.density_k_target}.get(domain)
        default = DENSITY_K_TARGET if domain == "target" else DENSITY_K.get(self.method, 1)
        return {
            "k": self.k,
            "density_k": own or self.density_k or default,
            "density_agg": self.density_agg,
            "neighbour_selection": self.neighbour_selection,
            "form": self.form,
            "exponent": self.exponent,
        }


# The methods behind `backend.fit`: one bank, two banks calibrated by density or by their own distances, Gaussians.
#
# Each is made from z (N, D), is_target (N,) and `BackendConfig`, scores vectors (M, D) -> (M,) float64, and scores its
# own training vectors exactly as if it had been made without each. A domain that is not there is left out of the
# comparison;
# one with too few clips for a spread of its own borrows the other's.
#

FEW = 3  # a domain with fewer clips has no spread of its own


class Method(Protocol):
    """What a method has to do: score vectors, and score its own training vectors as if fitted without each."""

    def score(self, q: Any) -> Array: ...
    def leave_one_out(self) -> Array: ...


class OneBank:
    """raw, ldn and varmin: one bank, domains do not matter."""

    def __init__(self, z: Any, is_target: Array, switches: BackendConfig) -> None:
        arguments = switches.density()
        if switches.method == "raw":
            arguments |= {"density_k": 1, "exponent": 0.0, "form": "ratio"}
        if switches.method == "varmin":
            self.bank: DensityBank = VarMinBank(z, switches.metric, k=switches.k, density_k=arguments["density_k"])
        else:
            self.bank = density_of(z, switches.metric, **arguments)

    def score(self, q: Any) -> Array:
        return self.bank.score(q)

    def leave_one_out(self) -> Array:
        return self.bank.leave_one_out()


class TwoBanks:
    """Shared by the domain-aware methods: the normals, and which of them are of either domain."""

    def __init__(self, z: Any, is_target: Array) -> None:
        self.z = z
        self.rows = [np.flatnonzero(~is_target), np.flatnonzero(is_target)]

    def present(self) -> list[int]:
        return [d for d in (0, 1) if len(self.rows[d])]


class DualDensity(TwoBanks):
    """dldn and dbldn."""

    def __init__(self, z: Any, is_target: Array, switches: BackendConfig) -> None:
        super().__init__(z, is_target)
        names = ("source", "target")
        self.weights = (switches.weight, 1 - switches.weight) if switches.method == "dbldn" else None
        self.banks: dict[int, DensityBank] = {}
        for d in sorted(self.present(), key=lambda d: -len(self.rows[d])):  # a lone clip borrows from the larger bank
            lone = max((b.typical for b in self.banks.values()), default=1.0)
            self.banks[d] = density_of(z[self.rows[d]], switches.metric, lone=lone, **switches.density(names[d]))
        first, *second = self.banks.values()
        if second and len(second[0]) > 1:  # of two domains with two clips each, the first is the smaller without a clip
            first.lone = second[0].typical

    def score(self, q: Any) -> Array:
        return self._combine({d: bank.score(q) for d, bank in self.banks.items()})

    def leave_one_out(self) -> Array:
        out = np.empty(len(self.z))
        for d, bank in self.banks.items():
            own = {d: bank.leave_one_out()}
            for other, there in self.banks.items():
                if other != d:
                    own[other] = there.score(self.z[self.rows[d]], lone=bank.typical_without())
            out[self.rows[d]] = self._combine(own)
        return out

    def _combine(self, scores: dict[int, Array]) -> Array:
        both = np.stack([scores.get(d, np.full(len(next(iter(scores.values()))), np.inf)) for d in (0, 1)])
        lowest: Array = both.min(axis=0)
        if self.weights is None:
            return lowest
        missing = np.isinf(both).any(axis=0)
        return np.where(missing, lowest, self.weights[0] * both[0] + self.weights[1] * np.where(missing, 0, both[1]))


class DomainZ(TwoBanks):
    """domain_z: kNN distance to each domain's bank, in standard deviations of that domain's own distances."""

    def __init__(self, z: Any, is_target: Array, switches: BackendConfig) -> None:
        super().__init__(z, is_target)
        self.k, self.own_sigma = switches.k, switches.z_sigma == "own"
        self.banks = {d: bank_of(z[self.rows[d]], switches.metric) for d in self.present()}
        self.own = {d: OwnDistances(bank, self.k) for d, bank in self.banks.items()}

    def score(self, q: Any) -> Array:
        distances = {d: bank.nearest(q, self.k)[0].mean(axis=1) for d, bank in self.banks.items()}
        return self._combine(distances, {d: own.statistics() for d, own in self.own.items()})

    def leave_one_out(self) -> Array:
        out = np.empty(len(self.z))
        for d in self.banks:
            q = self.z[self.rows[d]]
            distances = {o: bank.nearest(q, self.k)[0].mean(axis=1) for o, bank in self.banks.items() if o != d}
            statistics = {o: own.statistics() for o, own in self.own.items() if o != d}
            if len(q) > 1:
                distances[d] = self.own[d].distance
                statistics[d] = self.own[d].statistics_without()
            out[self.rows[d]] = self._combine(distances, statistics)
        return out

    def _combine(self, distances: dict[int, Array], statistics: dict[int, tuple[Array, Array]]) -> Array:
        if len(distances) == 2:
            (mu_s, sigma_s), (mu_t, sigma_t) = statistics[0], statistics[1]
            mu = [_borrow(mu_s, mu_t, 0.0), _borrow(mu_t, mu_s, 0.0)]
            sigma = [_borrow(sigma_s, sigma_t, 1.0), _borrow(sigma_t, sigma_s, 1.0)]
            if not self.own_sigma:
                sigma[0] = sigma[1]
        else:
            d = next(iter(distances))
            alone = _borrow(statistics[d][0], np.nan, 0.0), _borrow(statistics[d][1], np.nan, 1.0)
            mu, sigma = [alone[0]] * 2, [alone[1]] * 2
        scores = [(distances[d] - mu[d]) / _positive(sigma[d], mu[d]) for d in distances]
        return np.asarray(np.min(np.stack(scores), axis=0))


class OwnDistances:
    """Leave-one-out kNN distances of a bank's members: their mean and spread, whole and without each member."""

    def __init__(self, bank: Bank, k: int) -> None:
        self.n = len(bank)
        self.d: Array = np.empty((1, 0))
        self.i: Array = np.empty((1, 0), int)
        if self.n > 1:
            self.d, self.i = bank.nearest(None, k + 1)
        self.k = min(k, self.n - 1)
        self.distance = self.d[:, : self.k].mean(axis=1) if self.n > 1 else np.array([np.nan])

    def statistics(self) -> tuple[Array, Array]:
        mu = self.distance.mean()
        return mu, np.asarray(self.distance.std() if self.n >= FEW else np.nan)

    def statistics_without(self) -> tuple[Array, Array]:
        """mu (N,) and sigma (N,) of the bank without each member; NaN where too few are left."""
        n, listed = self.n, self.d.shape[1]
        left = self.k if listed > self.k else n - 2
        if left == 0:  # one member would be left, without a distance of its own
            return np.full(n, np.nan), np.full(n, np.nan)
        centre = self.distance.mean()
        base = self.distance - centre
        i = self.i[:, : self.k]
        anew = (self.d.sum(axis=1, keepdims=True) - self.d[:, : self.k]) / left
        changed = anew - centre
        first, second = base.sum() - base, (base**2).sum() - base**2
        np.add.at(first, i, changed - base[:, None])
        np.add.at(second, i, changed**2 - base[:, None] ** 2)
        mean = first / (n - 1)
        mu, sigma = centre + mean, np.sqrt(np.maximum(second / (n - 1) - mean**2, 0))
        for out in np.flatnonzero(np.minimum(mu, sigma) < 1e-6 * centre):  # may be rounding: take it anew
            hit = i == out
            each = np.delete(np.where(hit.any(axis=1), (anew * hit).sum(axis=1), self.distance), out)
            mu[out], sigma[out] = each.mean(), each.std()
        return mu, sigma if n - 1 >= FEW else np.full(n, np.nan)


class Mahalanobis(TwoBanks):
    """One Gaussian, or the smaller distance of two domains'; a domain with fewer than 3 clips joins the other."""

    def __init__(self, z: Any, is_target: Array, switches: BackendConfig) -> None:
        super().__init__(z, is_target)
        self.make: Callable[[Array], Gaussian] = lambda x: Gaussian(
            x, shrinkage=switches.shrinkage, standardize=switches.standardize
        )
        self.two = min(len(r) for r in self.rows) >= FEW and not switches.ignore_domains
        self.parts = [self.make(z[rows]) for rows in self.rows] if self.two else [self.make(z)]

    def score(self, q: Any) -> Array:
        return np.asarray(np.min([part.distance(q) for part in self.parts], axis=0))

    def leave_one_out(self) -> Array:
        if not self.two:
            return self.parts[0].leave_one_out()
        out = np.empty(len(self.z))
        joined = self.make(self.z).leave_one_out() if min(len(r) for r in self.rows) == FEW else None
        for d, rows in enumerate(self.rows):
            if joined is not None and len(rows) == FEW:
                out[rows] = joined[rows]
            else:
                out[rows] = np.minimum(self.parts[d].leave_one_out(), self.parts[1 - d].distance(self.z[rows]))
        return out


def _borrow(mine: Array, others: Array | float, default: float) -> Array:
    value = np.where(np.isnan(mine), others, mine)
    return np.where(np.isnan(value), default, value)


def _positive(sigma: Array, mu: Array) -> Array:
    floor = 1e-6 * np.abs(mu)
    return np.maximum(sigma, np.where(floor > 0, floor, 1e-6))


BUILDERS: dict[str, Callable[[Any, Array, BackendConfig], Method]] = {
    "raw": OneBank,
    "ldn": OneBank,
    "domain_z": DomainZ,
    "dldn": DualDensity,
    "dbldn": DualDensity,
    "varmin": OneBank,
    "mahalanobis": Mahalanobis,
}


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
    unknown = set(switches) - set(BackendConfig.__dataclass_fields__)
    if unknown:
        raise ValueError(f"unknown switches {sorted(unknown)}; known: {', '.join(BackendConfig.__dataclass_fields__)}")
    z = finite("z", z)
    if z.ndim not in (2, 3) or len(z) < 2 or not z[0].size:
        raise ValueError(f"a back end needs at least 2 normal clips, and z has shape {z.shape}")
    target = np.zeros(len(z), bool)
    if is_target is not None:
        target = flags("is_target", is_target, len(z))
    chosen = BackendConfig(**switches)
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
    switches: BackendConfig
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
        object.__setattr__(self, "_method", BUILDERS[self.switches.method](z, self.is_target, self.switches))

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
            method = BUILDERS[self.switches.method](y[keep], self.is_target[keep], self.switches)
            return float(method.score(y[i : i + 1])[0])

        return np.array(list(map_in_order(one, range(len(self.z)), threads())))


class Beam:
    """A back end for each band of z (N, F, D); the score is the mean of theirs, and so is the exact leave-one-out."""

    def __init__(self, z: Array, is_target: Array, switches: BackendConfig) -> None:
        self.bands = [Backend(np.ascontiguousarray(band), is_target, switches) for band in np.moveaxis(z, 1, 0)]

    def score(self, q: Array) -> Array:
        return mean_of([band.score(q[:, f]) for f, band in enumerate(self.bands)])

    def leave_one_out(self) -> Array:
        return mean_of([band.train_scores for band in self.bands])


def mean_of(bands: Sequence[Array]) -> Array:
    """The score (M,) of BEAM, float64, from the scores of each band."""
    return np.asarray(np.mean(np.stack(bands), axis=0, dtype=np.float64))
