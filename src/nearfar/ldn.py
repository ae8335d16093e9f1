"""One memory bank whose distances are calibrated by local density (report section 2.2; [12], [13]).

    rho(r)   mean distance of bank member r to its K nearest other members ("sum": K times that)
    ratio         s(q) = mean of the k smallest over r of  d(q, r) / rho(r)^exponent       exponent 1: LDN, 0: raw kNN
    difference    s(q) = mean of the k smallest over r of  d(q, r) - exponent rho(r)

The minimum is taken after the calibration (`neighbour_selection="normalized"`): the member that wins need not be the
nearest one. "raw" takes the k nearest by d and then d_mean / rho_mean^exponent.

Leave-one-out is exact. Scoring member i against the others with densities that still count i gives every ratio a floor
at 1 for K = 1, so rho is corrected for every r that has i among its K nearest (S_r: sorted distances of r):

    rho_-i(r) = (sum(S_r[1..K+1]) - d(r, i)) / K    if i is one of them, else rho(r);    K clipped to N - 2

Duplicates make rho 0, so rho is at least RHO_FLOOR times the mean rho of the bank (1 if all members coincide).
A bank of one has no density of its own: it takes `lone`.

References: [12] GenRep 2025, eq. 4 (sum); [13] Wilkinghoff et al. 2025 (ratio, mean); VarMin: Matsumoto et al. 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from nearfar.bank import bank_of, kth_upper_bound, pad_ragged, pairs
from nearfar.support.check import Array, number, one_of, whole

# An attribute that is worked out when it is first asked for, by as many threads at once as there are objects.
#
# `functools.cached_property` lets one thread at a time work, whatever the object (before Python 3.12).
#

Value = TypeVar("Value")


class lazy(Generic[Value]):
    """Decorates a method without arguments; its value then lies in the object under the method's name."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        value = self.make(instance)
        instance.__dict__[self.name] = value
        return value


RHO_FLOOR = 1e-6
PIECE = 1 << 17  # pairs whose densities are looked up at a time: each needs a list of K + 1 distances


class DensityBank:
    """Scores against one bank z (N, D), calibrated by the bank's local densities; see the module for the formulas."""

    def __init__(
        self,
        z: Any,
        metric: str,
        *,
        k: int = 1,
        density_k: int = 16,
        density_agg: str = "mean",
        neighbour_selection: str = "normalized",
        form: str = "ratio",
        exponent: float = 1.0,
        lone: float = 1.0,
    ) -> None:
        one_of("neighbour_selection", neighbour_selection, ("normalized", "raw"))
        one_of("form", form, ("ratio", "difference"))
        one_of("density_agg", density_agg, ("mean", "sum"))
        self.bank = bank_of(z, metric)
        self.k = whole("k", k)
        self.raw_selection, self.ratio = neighbour_selection == "raw", form == "ratio"
        self.exponent: float | Array = number("exponent", exponent)
        self.summed, self.lone = density_agg == "sum", lone
        self.density_k = min(whole("density_k", density_k), max(len(self.bank) - 1, 1))

    @lazy
    def _nearest(self) -> tuple[Array, Array]:  # sorted lists S_r, one longer than a density needs
        if len(self) == 1:
            return np.empty((1, 0)), np.empty((1, 0), int)
        return self.bank.nearest(None, self.density_k + 1)

    @property
    def d(self) -> Array:
        """Distances (N, <= K + 1) of each member to its nearest others, ascending."""
        return self._nearest[0]

    @property
    def i(self) -> Array:
        """The nearest others themselves, (N, <= K + 1)."""
        return self._nearest[1]

    @lazy
    def rho(self) -> Array:
        """Local densities (N,) of the members."""
        if len(self) == 1:
            return np.array([self.lone])
        listed = self.d[:, : self.density_k]
        density: Array = listed.sum(axis=1) if self.summed else listed.mean(axis=1)
        return density

    def __len__(self) -> int:
        return len(self.bank)

    @lazy
    def typical(self) -> float:
        """Mean density of the bank."""
        return float(self.rho.mean())

    def score(self, q: Array, lone: Array | None = None) -> Array:
        """Scores (M,) of queries (M, D) in float64; `lone` (M,) replaces the density of a bank of one."""
        points = self.bank.points(q)
        if lone is not None and len(self) == 1:
            d = self.bank.exact(points, np.arange(len(points)), np.zeros(len(points), int))
            return self._calibrate(d, _floored(lone, lone), self.exponent)
        return self._score(points, members=False)

    def leave_one_out(self) -> Array:
        """Scores (N,) of the members, each as if the bank had been made without it; infinite for a bank of one."""
        if len(self) == 1:
            return np.array([np.inf])
        return self._score(self.bank.points(None), members=True)

    def without(self, r: Array, i: Array) -> Array:
        """rho_-i(r): densities of members `r` in the bank without member `i`; both broadcast to one shape."""
        r, i = np.broadcast_arrays(r, i)
        k, (n, listed) = self.density_k, self.d.shape
        hit = self.i[r, :k] == i[..., None]
        left = k if listed > k else n - 2
        if left == 0:
            return np.full(r.shape, self.lone)
        total = self.d[r].sum(axis=-1) - (self.d[r, :k] * hit).sum(axis=-1)
        changed = total if self.summed else total / left
        return np.where(hit.any(axis=-1), changed, self.rho[r])

    def typical_without(self) -> Array:
        """Mean density (N,) of the bank without each of its members."""
        n = len(self)
        if n < 2:
            return np.array([self.lone])
        total = self.rho.sum() - self.rho
        r = np.repeat(np.arange(n), self.density_k)
        i = self.i[:, : self.density_k].ravel()
        np.add.at(total, i, self.without(r, i) - self.rho[r])
        for out in np.flatnonzero(total < 1e-9 * self.rho.sum()):  # what is left may be rounding: take it anew
            others = np.delete(np.arange(n), out)
            total[out] = self.without(others, np.full(n - 1, out)).sum()
        return np.maximum(total, 0) / (n - 1)

    def _score(self, points: Array, *, members: bool) -> Array:
        k = min(self.k, len(self) - members)
        if not np.any(self.exponent):  # raw: no densities needed
            return np.asarray(self.bank.search(points, k, members=members)[0].mean(axis=1))
        rho = self.rho
        typical = self.typical_without() if members else np.full(len(points), self.typical)
        exponent = np.broadcast_to(np.asarray(self.exponent, np.float64), (len(points),))

        def densities(rows: Array, found: Array) -> Array:  # members' densities for the queries `rows`, one shape
            values = self.without(found, rows) if members else rho[found]
            return _floored(values, typical[rows])

        if self.raw_selection:
            d, found = self.bank.search(points, k, members=members)
            rho_mean = densities(np.broadcast_to(np.arange(len(points))[:, None], found.shape), found).mean(axis=1)
            return self._calibrate(d.mean(axis=1), rho_mean, exponent)
        out = np.empty(len(points))

        def work(block: slice, squared: Array, slack: Array) -> None:
            rows = np.arange(block.start, block.stop)
            squared -= slack[:, None]  # no larger than they are, so that a key too large to win cannot win
            keys = self._keys(squared, rows, rho, exponent, members=members)

            def best(limit: Array) -> Array:  # (M, k) smallest scores among the members with keys up to `limit`
                row, found = pairs(keys, limit)
                scores = self.bank.exact(points[block], row, found)
                for start in range(0, len(row), PIECE):
                    some = slice(start, start + PIECE)
                    q = rows[row[some]]
                    scores[some] = self._calibrate(scores[some], densities(q, found[some]), exponent[q])
                return np.sort(pad_ragged(row, scores, len(rows)), axis=1)[:, :k]

            limit = kth_upper_bound(keys, k)
            reach = self._reach(best(limit)[:, -1], exponent[rows], rho)
            out[block] = best(np.maximum(limit, reach)).mean(axis=1)

        self.bank.each_block(points, work, members=members)
        return out

    def _keys(self, squared: Array, rows: Array, rho: Array, exponent: Array, *, members: bool) -> Array:
        """Something that orders the members as their scores do, good to float32; changes `squared` in place."""
        r = row = np.empty(0, int)
        if members:  # pairs (row, r) where row is among the nearest of r: there r's density is another
            r, row = self._watched_by(rows)
            row = row - rows[0]
        np.maximum(squared, 0, out=squared)
        new = _floored(self.without(r, rows[row]), self.typical) if len(r) else np.empty(0)
        old = _floored(rho, self.typical)
        watched = squared[row, r]
        if self.ratio:  # in units of the typical density, so that float32 is wide enough at every scale
            unit, scale = self._units()
            power = -float(exponent[0]) * scale
            squared *= np.minimum((old / unit) ** power / unit**scale, 1e30).astype(np.float32)
            squared[row, r] = watched * np.minimum((new / unit) ** power / unit**scale, 1e30)
        else:
            d = np.sqrt(squared, out=squared) if self.bank.metric == "euclidean" else np.divide(squared, 2, out=squared)
            watched = d[row, r]
            d -= (exponent[rows, None] * old).astype(np.float32) if members else (exponent[0] * old).astype(np.float32)
            d[row, r] = watched - exponent[rows][row] * new
        return squared

    def _reach(self, scores: Array, exponent: Array, rho: Array) -> Array:
        """The keys of `scores`, and what float32 may add to them: members with smaller keys may score lower."""
        if not self.ratio:
            return np.asarray(scores + 1e-6 * (np.abs(scores) + np.abs(exponent) * max(float(rho.max()), 1.0)))
        unit, scale = self._units()
        key = (scores * unit ** (float(exponent[0]) - 1)) ** scale * (1 if self.bank.metric == "euclidean" else 2)
        return np.where(scores > 0, key * (1 + 1e-5), -np.inf)  # nothing is below 0

    def _units(self) -> tuple[float, int]:
        """Typical density (1 if there is none), and the power of it that a squared distance counts in."""
        return self.typical or 1.0, 2 if self.bank.metric == "euclidean" else 1

    def _watched_by(self, rows: Array) -> tuple[Array, Array]:
        nearest = self.i[:, : self.density_k]
        inside = (nearest >= rows[0]) & (nearest <= rows[-1])
        r, column = np.nonzero(inside)
        return r, nearest[r, column]

    def _calibrate(self, d: Array, rho: Array, exponent: float | Array) -> Array:
        scores: Array = d / rho**exponent if self.ratio else d - exponent * rho
        return scores


class VarMinBank(DensityBank):
    """LDN's difference form with the exponent that minimises the variance of the members' own scores.

    alpha = Cov(u, v) / Var(v) with u = d(z, nearest other member), v = rho(that member); 0 if Var(v) <= 1e-12, or if
    it is rounding, 1e-12 of the squared mean.
    """

    def __init__(self, z: Any, metric: str, *, k: int = 1, density_k: int = 4, lone: float = 1.0) -> None:
        super().__init__(z, metric, k=k, density_k=density_k, form="difference", lone=lone)
        self.alpha = float(self._alphas()[0]) if len(self) > 1 else 0.0
        self.exponent = self.alpha

    def leave_one_out(self) -> Array:
        if len(self) < 3:
            self.exponent = 0.0  # the bank that is left has one member and no variance
        else:
            self.exponent = self._alphas()[1:]
        try:
            return super().leave_one_out()
        finally:
            self.exponent = self.alpha

    def _alphas(self) -> Array:
        """alpha of the whole bank, then of the bank without each member: (1 + N,)."""
        n, k = len(self), self.density_k
        u, v = self.d[:, 0], self.rho[self.i[:, 0]]
        terms = _moments(u - u.mean(), v - v.mean())  # (5, N): count, u, v, uv, vv
        total = np.repeat(terms.sum(axis=1, keepdims=True), 1 + n, axis=1)
        if n > 2:
            total[:, 1:] -= terms
            y = np.arange(n)
            first, second = self.i[:, 0], self.i[:, 1]
            # Without z, a member y changes if z was its nearest, or if z was among the nearest of its nearest.
            lost = _moments(self.d[:, 1] - u.mean(), self.without(second, first) - v.mean())
            np.add.at(total.T, 1 + first, (lost - terms).T)
            z = self.i[first, :k]
            pair = np.flatnonzero((z != y[:, None]).ravel())
            y, z, first = np.repeat(y, k)[pair], z.ravel()[pair], np.repeat(first, k)[pair]
            moved = _moments(u[y] - u.mean(), self.without(first, z) - v.mean())
            np.add.at(total.T, 1 + z, (moved - terms[:, y]).T)
        count, su, sv, suv, svv = total
        count = np.maximum(count, 1)
        covariance, variance = suv / count - su * sv / count**2, svv / count - (sv / count) ** 2
        least = 1e-12 * np.maximum(1, (sv / count + v.mean()) ** 2)
        return np.where(variance > least, covariance / np.maximum(variance, least), 0)


def density_of(z: Any, metric: str, **switches: Any) -> DensityBank:
    """The calibrated bank of normals z: vectors (N, D), or clips that know their distances and make their own."""
    bank: DensityBank = z.density(metric, **switches) if hasattr(z, "density") else DensityBank(z, metric, **switches)
    return bank


def _moments(u: Array, v: Array) -> Array:
    return np.stack([np.ones_like(u), u, v, u * v, v * v])


def _floored(rho: Array, typical: float | Array) -> Array:
    # Where all members coincide there is no density to speak of: 1, and the distance stands alone.
    return np.where(np.asarray(typical) > 0, np.maximum(rho, RHO_FLOOR * np.asarray(typical)), 1.0)
