"""The methods behind `backend.fit`: one bank, two banks calibrated by density or by their own distances, Gaussians.

Each is made from z (N, D), is_target (N,) and `Switches`, scores vectors (M, D) -> (M,) float64, and scores its own
training vectors exactly as if it had been made without each. A domain that is not there is left out of the comparison;
one with too few clips for a spread of its own borrows the other's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from nearfar.bank import Bank, bank_of
from nearfar.check import Array
from nearfar.density import DensityBank, VarMinBank, density_of
from nearfar.gaussian import Gaussian
from nearfar.switches import Switches

FEW = 3  # a domain with fewer clips has no spread of its own


class Method(Protocol):
    """What a method has to do: score vectors, and score its own training vectors as if fitted without each."""

    def score(self, q: Any) -> Array: ...
    def leave_one_out(self) -> Array: ...


class OneBank:
    """raw, ldn and varmin: one bank, domains do not matter."""

    def __init__(self, z: Any, is_target: Array, switches: Switches) -> None:
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

    def __init__(self, z: Any, is_target: Array, switches: Switches) -> None:
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

    def __init__(self, z: Any, is_target: Array, switches: Switches) -> None:
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

    def __init__(self, z: Any, is_target: Array, switches: Switches) -> None:
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


METHODS: dict[str, Callable[[Any, Array, Switches], Method]] = {
    "raw": OneBank,
    "ldn": OneBank,
    "domain_z": DomainZ,
    "dldn": DualDensity,
    "dbldn": DualDensity,
    "varmin": OneBank,
    "mahalanobis": Mahalanobis,
}
