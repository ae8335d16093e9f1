"""Local density normalisation: distances to one memory bank, calibrated by its local densities (report section 2.2).

    rho(r)       density of member r: mean distance to its K nearest other members ("sum": K times that)
    ratio        s(q) = mean of the k smallest over r of  d(q, r) / rho(r)^exponent        exponent 1: LDN, 0: raw kNN
    difference   s(q) = mean of the k smallest over r of  d(q, r) - exponent rho(r)
    VarMin       the difference form with the exponent that minimises the variance of the members' own scores
    auto         K of each member by cluster exit: its K_MAX nearest are cut where their distances jump

Cluster exit looks at the ratios of one member's ascending distances S, k = 1 ... K_MAX - 1, and averages neighbours:

    r_k = S_k / S_k+1,   R_k = (r_k + r_k+1) / 2
    K   = the first k with R_k below the 4 % quantile of R; without one K_MAX - 2; at least FEWEST

The paper also falls back to two neighbours in sparse regions, below a threshold that its abstract does not give. Here
two neighbours are the least everywhere. S_k / S_k+1 is 1 where both are 0.

The minimum is taken after the calibration (`neighbour_selection="normalized"`): the member that wins need not be the
nearest one. "raw" takes the k nearest members by d, and then mean d / (mean rho)^exponent of them.

Leave-one-out is exact. If member i were scored against the others with densities that still count i, every ratio for
K = 1 would be at least 1. So rho is corrected for each member r that has i among its K nearest (S_r: the ascending
distances of r to the others):

    rho_-i(r) = (sum(S_r[1..K+1]) - d(r, i)) / K    if i is among the K nearest of r, else rho(r)

Conventions
    z (N, D)   members        q (M, D)   queries        scores (M,) float64; higher is more anomalous
    K (`density_k`) is clipped to N - 1, and to N - 2 where one member is left out; k is clipped to N.
    Copies of a member make rho 0. So rho is at least RHO_FLOOR times the mean rho of the bank, and 1 if all coincide.
    A bank of one member has no density of its own: its density is `fallback_density`.

>>> bank = DensityBank(np.array([[0.0], [1], [10], [14]]), "euclidean", density_k=1)
>>> bank.densities.rho.tolist()
[1.0, 1.0, 4.0, 4.0]
>>> bank.score(np.array([[2.0], [12]])).tolist()  # d / rho: 1 / 1 and 2 / 4
[1.0, 0.5]
>>> bank.leave_one_out().round(2).tolist()  # without member 0 the density of member 1 is 9
[0.11, 0.1, 0.31, 0.44]

References: [12] GenRep 2025, eq. 4 (sum); [13] Wilkinghoff et al. 2025 (ratio, mean); VarMin: Matsumoto et al. 2025;
cluster exit: Wilkinghoff et al. 2026, arXiv 2602.18777.
`tests/oracles.py` has the same formulas in twenty lines, without speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nearfar.bank import (
    Bank,
    KnownNeighbours,
    NeighbourIndex,
    PrecomputedNormals,
    bank_of,
    entries_below,
    kth_upper_bound,
    pad_ragged,
)
from nearfar.support.check import Array, integer, number, one_of

RHO_FLOOR = 1e-6
AUTO = "auto"  # density_k by cluster exit
K_MAX = 64  # neighbours that cluster exit looks at
FEWEST = 2  # fewest neighbours that it leaves
EXIT_QUANTILE = 0.04  # of a member's ratios: a lower one is an exit
PIECE = 1 << 17  # densities that are looked up at a time: each needs a list of K + 1 distances


@dataclass(frozen=True)
class Densities:
    """Local densities of the N members of a bank, and what they are without one of the members.

    distances, nearest   (N, K + 1), or (N, N - 1) in a small bank: distances of each member to its nearest others,
                         ascending, and the indices of these others
    rho                  (N,) densities, before the floor
    mean                 mean of rho
    floored              (N,) densities, after the floor
    density_k, summed    K, and whether a density is the sum of the K distances or their mean
    auto                 whether each member has a K of its own, by cluster exit; density_k is then the most
    fallback             density of a member without others
    """

    distances: Array
    nearest: Array
    rho: Array
    mean: float
    floored: Array
    density_k: int
    summed: bool
    auto: bool
    fallback: float

    @classmethod
    def of(cls, index: NeighbourIndex, density_k: int, summed: bool, auto: bool, fallback: float) -> Densities:
        """The densities of all members of `index`."""
        if len(index) == 1:
            distances, nearest, rho = np.empty((1, 0)), np.empty((1, 0), int), np.array([fallback])
        else:
            distances, nearest = index.nearest(None, density_k + 1)
            rho = _density(distances[:, :density_k], summed, auto)
        mean = float(rho.mean())
        return cls(distances, nearest, rho, mean, _floored(rho, mean), density_k, summed, auto, fallback)

    def excluding(self, r: Array, i: Array) -> Array:
        """rho_-i(r): the densities of members `r` in the bank without member `i`; both broadcast to one shape."""
        r, i = np.broadcast_arrays(r, i)
        k, (n, listed) = self.density_k, self.distances.shape
        hit = self.nearest[r, :k] == i[..., None]
        left = k if listed > k else n - 2  # neighbours of r without i: the next one takes its place, if there is one
        if left == 0:
            return np.full(r.shape, self.fallback)
        if self.auto:
            out, (at, place) = self.rho[r], np.nonzero(hit.reshape(-1, hit.shape[-1]))
            for start in range(0, len(at), PIECE // K_MAX):
                piece = slice(start, start + PIECE // K_MAX)
                lists = self.distances[r.ravel()[at[piece]]]
                kept = np.arange(lists.shape[1]) != place[piece, None]
                out.ravel()[at[piece]] = _density(lists[kept].reshape(len(lists), -1)[:, :left], self.summed, auto=True)
            return out
        total = self.distances[r].sum(axis=-1) - (self.distances[r, :k] * hit).sum(axis=-1)
        changed = total if self.summed else total / left
        return np.where(hit.any(axis=-1), changed, self.rho[r])

    def mean_excluding(self) -> Array:
        """Mean density (N,) of the bank without each of its members."""
        n = len(self.rho)
        if n < 2:
            return np.array([self.fallback])
        total = self.rho.sum() - self.rho
        r = np.repeat(np.arange(n), self.density_k)
        i = self.nearest[:, : self.density_k].ravel()
        np.add.at(total, i, self.excluding(r, i) - self.rho[r])
        for out in np.flatnonzero(total < 1e-9 * self.rho.sum()):  # cancellation: take the sum again from its terms
            others = np.delete(np.arange(n), out)
            total[out] = self.excluding(others, np.full(n - 1, out)).sum()
        return np.maximum(total, 0) / (n - 1)


@dataclass(frozen=True)
class _Queries:
    """Points to score, and the exponent of each.

    With `exclude_self` the points are the members, each scored against the others; `mean_density` is then the mean
    density of the bank without the member. Without it `mean_density` is empty.
    """

    points: Any  # (M, D)
    exponent: Array  # (M,)
    mean_density: Array  # (M,)
    exclude_self: bool


class DensityBank:
    """Scores against one bank z, calibrated by the bank's local densities; see the module for the formulas.

    z is vectors (N, D), or normals given by the distances between them. The keyword arguments are those of
    `backend.fit`; `fallback_density` is the density of a member that has no other member beside it.
    """

    def __init__(
        self,
        z: Array | PrecomputedNormals,
        metric: str,
        *,
        k: int = 1,
        density_k: int | str = 16,
        density_agg: str = "mean",
        neighbour_selection: str = "normalized",
        form: str = "ratio",
        exponent: float = 1.0,
        fallback_density: float = 1.0,
    ) -> None:
        one_of("neighbour_selection", neighbour_selection, ("normalized", "raw"))
        one_of("form", form, ("ratio", "difference"))
        one_of("density_agg", density_agg, ("mean", "sum"))
        self.index = bank_of(z, metric)
        self.k = integer("k", k)
        self.auto = density_k == AUTO
        most = K_MAX if density_k == AUTO else integer("density_k", density_k)  # type: ignore[arg-type]
        self.density_k = min(most, max(len(self.index) - 1, 1))
        self.summed = density_agg == "sum"
        self.raw_selection, self.ratio = neighbour_selection == "raw", form == "ratio"
        self.exponent, self.fallback_density = number("exponent", exponent), fallback_density
        self._densities: Densities | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def densities(self) -> Densities:
        """The members' densities, computed at the first use: raw kNN never needs them."""
        if self._densities is None:  # no lock: two threads would compute the same values
            self._densities = Densities.of(self.index, self.density_k, self.summed, self.auto, self.fallback_density)
        return self._densities

    def score(self, q: Any, *, fallback_density: Array | None = None) -> Array:
        """Scores (M,) of queries (M, D); `fallback_density` (M,) replaces that of a bank of one, query by query."""
        points = self.index.points(q)
        if fallback_density is not None and len(self) == 1:
            d = self.index.exact(points, np.arange(len(points)), np.zeros(len(points), int))
            return self._calibrate(d, _floored(fallback_density, fallback_density), self.exponent)
        each = np.full(len(points), self.exponent, np.float64)
        return self._score(_Queries(points, each, np.empty(0), exclude_self=False))

    def score_distances(self, distances: Array) -> Array:
        """`score` (M,) from the distances (M, N) of the queries to all members, to the last bit."""
        if not self.exponent:  # raw kNN
            return np.asarray(np.sort(distances, axis=1)[:, : self.k].mean(axis=1))
        rho, exponents = self.densities.floored, np.full(distances.shape[1], self.exponent, np.float64)
        if self.raw_selection:
            nearest = np.argsort(distances, axis=1, kind="stable")[:, : self.k]
            d = np.take_along_axis(distances, nearest, axis=1).mean(axis=1)
            return self._calibrate(d, rho[nearest].mean(axis=1), exponents[:1])
        scores = self._calibrate(distances, rho, exponents)
        return np.asarray(np.sort(scores, axis=1)[:, : self.k].mean(axis=1))

    def leave_one_out(self) -> Array:
        """Scores (N,) of the members, each as if the bank had been made without it; inf for a bank of one."""
        n = len(self)
        if n == 1:
            return np.array([np.inf])
        each = self.exponents_excluding()
        mean = self.mean_density_excluding() if each.any() else np.full(n, np.nan)
        return self._score(_Queries(self.index.points(None), each, mean, exclude_self=True))

    def exponents_excluding(self) -> Array:
        """Exponent (N,) of the bank without each of its members."""
        return np.full(len(self), self.exponent, np.float64)

    def mean_density_excluding(self) -> Array:
        """Mean density (N,) of the bank without each of its members."""
        return self.densities.mean_excluding()

    # How the k smallest calibrated distances are found without calibrating all M x N of them in float64:
    #
    # 1. `_rank_proxy` turns a block of approximate squared distances into float32 proxies of the calibrated distances.
    #    The rounding error of a distance is subtracted first, so a proxy never overestimates.
    # 2. At least k proxies of a row are <= `limit`. Their members are scored exactly. The k-th best of these scores is
    #    an upper bound on the k-th best score of the row.
    # 3. `_candidate_bound` turns this upper bound into a proxy: a member with a larger proxy has a larger score. All
    #    members up to it are scored exactly, and among them are the k best.

    def _score(self, queries: _Queries) -> Array:
        points, exclude_self = queries.points, queries.exclude_self
        k = min(self.k, len(self) - exclude_self)
        if not queries.exponent.any():  # raw kNN
            return np.asarray(self.index.search(points, k, exclude_self=exclude_self)[0].mean(axis=1))
        if self.raw_selection:
            d, found = self.index.search(points, k, exclude_self=exclude_self)
            row = np.broadcast_to(np.arange(len(points))[:, None], found.shape)
            rho = self._density_for(queries, row, found).mean(axis=1)
            return self._calibrate(d.mean(axis=1), rho, queries.exponent)
        out = np.empty(len(points))
        for block, squared, error in self.index.blocks(points, exclude_self=exclude_self):
            rows = np.arange(block.start, block.stop)
            squared -= error[:, None]
            proxy = self._rank_proxy(queries, rows, squared)
            limit = kth_upper_bound(proxy, k)
            best = self._score_candidates(queries, rows, proxy, limit, k)
            bound = self._candidate_bound(best[:, -1], queries.exponent[rows])
            out[block] = self._score_candidates(queries, rows, proxy, np.maximum(limit, bound), k).mean(axis=1)
        return out

    def _score_candidates(self, queries: _Queries, rows: Array, proxy: Array, limit: Array, k: int) -> Array:
        """The k smallest exact scores (len(rows), k), ascending, among the members whose proxy is <= `limit`."""
        row, found = entries_below(proxy, limit)
        scores = self.index.exact(queries.points[rows[0] : rows[-1] + 1], row, found)
        for start in range(0, len(row), PIECE):
            piece = slice(start, start + PIECE)
            query = rows[row[piece]]
            rho = self._density_for(queries, query, found[piece])
            scores[piece] = self._calibrate(scores[piece], rho, queries.exponent[query])
        return np.sort(pad_ragged(row, scores, len(rows)), axis=1)[:, :k]

    def _density_for(self, queries: _Queries, query: Array, member: Array) -> Array:
        """Floored densities of members as these queries see them; query, member and result have one shape."""
        if not queries.exclude_self:
            return np.asarray(self.densities.floored[member])
        return _floored(self.densities.excluding(member, query), queries.mean_density[query])

    def _rank_proxy(self, queries: _Queries, rows: Array, squared: Array) -> Array:
        """Float32 proxies (len(rows), N) of the calibrated distances, used only to pick candidates.

        Overwrites `squared`. In the ratio form, proxies are squared (euclidean) and in units of the mean density, so
        that float32 is wide enough at every scale of the embeddings.
        """
        member = row = np.empty(0, int)
        if queries.exclude_self:  # the entries whose density changes because the query itself is left out
            member, row = self._members_counting(rows)
            row = row - rows[0]
        np.maximum(squared, 0, out=squared)
        mean, old = self.densities.mean, self.densities.floored
        new = _floored(self.densities.excluding(member, rows[row]), mean) if len(member) else np.empty(0)
        changed = squared[row, member]
        if self.ratio:
            unit, power = self._units()
            exponent = -float(queries.exponent[0]) * power
            squared *= np.minimum((old / unit) ** exponent / unit**power, 1e30).astype(np.float32)
            squared[row, member] = changed * np.minimum((new / unit) ** exponent / unit**power, 1e30)
            return squared
        euclidean = self.index.metric == "euclidean"
        d = np.sqrt(squared, out=squared) if euclidean else np.divide(squared, 2, out=squared)
        changed = d[row, member]
        exponents = queries.exponent[rows]
        shared = exponents[:, None] if queries.exclude_self else queries.exponent[0]
        d -= (shared * old).astype(np.float32)
        d[row, member] = changed - exponents[row] * new
        return d

    def _candidate_bound(self, scores: Array, exponent: Array) -> Array:
        """The largest proxy (M,) of a member that could still score below `scores` (M,), with float32's error added."""
        if not self.ratio:
            largest = max(float(self.densities.rho.max()), 1.0)
            return np.asarray(scores + 1e-6 * (np.abs(scores) + np.abs(exponent) * largest))
        unit, power = self._units()
        proxy = (scores * unit ** (float(exponent[0]) - 1)) ** power * (1 if self.index.metric == "euclidean" else 2)
        return np.where(scores > 0, proxy * (1 + 1e-5), -np.inf)  # no score is below 0

    def _units(self) -> tuple[float, int]:
        """Mean density (1 if it is 0), and the power of a density that matches a squared distance."""
        return self.densities.mean or 1.0, 2 if self.index.metric == "euclidean" else 1

    def _members_counting(self, rows: Array) -> tuple[Array, Array]:
        """Pairs (member, row), both (P,): each of `rows` is among the K nearest of the member."""
        nearest = self.densities.nearest[:, : self.density_k]
        member, column = np.nonzero((nearest >= rows[0]) & (nearest <= rows[-1]))
        return member, nearest[member, column]

    def _calibrate(self, d: Array, rho: Array, exponent: float | Array) -> Array:
        scores: Array = d / rho**exponent if self.ratio else d - exponent * rho
        return scores


class VarMinBank(DensityBank):
    """The difference form with the exponent alpha that minimises the variance of the members' own scores.

    alpha = Cov(u, v) / Var(v), with u the distance of a member to its nearest other member and v that member's rho.
    alpha is 0 if Var(v) is at most 1e-12, or at most 1e-12 of the squared mean of v (rounding).
    """

    def __init__(self, z: Array | PrecomputedNormals, metric: str, *, k: int = 1, density_k: int | str = 4) -> None:
        super().__init__(z, metric, k=k, density_k=density_k, form="difference")
        n = len(self)
        alphas = _variance_minimising(self.densities) if n > 1 else np.zeros(1)
        self.exponent = float(alphas[0])
        self._alphas_excluding = alphas[1:] if n > 2 else np.zeros(n)  # one member left: no variance to minimise

    def exponents_excluding(self) -> Array:
        """alpha (N,) of the bank without each of its members."""
        return self._alphas_excluding


def _variance_minimising(densities: Densities) -> Array:
    """alpha of the whole bank, then of the bank without each member: (1 + N,).

    alpha follows from five sums over the members y, one row of `terms` each:

        count    sum 1     u    sum u(y)     v    sum v(y)     uv    sum u(y) v(y)     vv    sum v(y)^2

    The sums without a member x are those of all members, less the term of x, plus the change of the other terms. The
    term of y changes if x is the nearest of y (then u and v are those of the second nearest), or if x is among the K
    nearest of y's nearest (then v is another density).
    """
    rho, distances, nearest = densities.rho, densities.distances, densities.nearest
    n, k = len(rho), densities.density_k
    u, v = distances[:, 0], rho[nearest[:, 0]]
    mean_u, mean_v = u.mean(), v.mean()  # subtracted from all terms, against cancellation
    terms = _moments(u - mean_u, v - mean_v)
    total = np.repeat(terms.sum(axis=1, keepdims=True), 1 + n, axis=1)
    if n > 2:
        total[:, 1:] -= terms
        first, second = nearest[:, 0], nearest[:, 1]
        changed = _moments(distances[:, 1] - mean_u, densities.excluding(second, first) - mean_v)
        np.add.at(total.T, 1 + first, (changed - terms).T)
        x, y = nearest[first, :k], np.arange(n)
        pair = np.flatnonzero((x != y[:, None]).ravel())
        x, y, first = x.ravel()[pair], np.repeat(y, k)[pair], np.repeat(first, k)[pair]
        changed = _moments(u[y] - mean_u, densities.excluding(first, x) - mean_v)
        np.add.at(total.T, 1 + x, (changed - terms[:, y]).T)
    count, su, sv, suv, svv = total
    count = np.maximum(count, 1)
    covariance, variance = suv / count - su * sv / count**2, svv / count - (sv / count) ** 2
    least = 1e-12 * np.maximum(1, (sv / count + mean_v) ** 2)
    return np.where(variance > least, covariance / np.maximum(variance, least), 0)


class DensityNormals(PrecomputedNormals, Protocol):
    """Normals given by the distances between them: they make their own calibrated bank too."""

    def density(self, metric: str, **settings: Any) -> DensityBank: ...


class KnownNormals:
    """Normals z (N, D) with the distances between all of them, (N, N), of which `rows` are used."""

    def __init__(self, z: Array, distances: Array, order: Array, rows: Array) -> None:
        self.z, self.distances, self.order, self.rows = z, distances, order, rows

    @classmethod
    def of(cls, z: Array, metric: str) -> KnownNormals:
        """All normals; N^2 numbers of 12 bytes."""
        distances = Bank(z, metric).distances(z)
        others = distances.copy()
        np.fill_diagonal(others, np.inf)
        order = np.argsort(others, axis=1, kind="stable")[:, :-1].astype(np.int32)
        return cls(z, distances, order, np.arange(len(z)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Array) -> KnownNormals:
        return KnownNormals(self.z, self.distances, self.order, self.rows[rows])

    def bank(self, metric: str) -> KnownNeighbours:
        """These normals as a bank; the metric is that of the distances."""
        return KnownNeighbours(self.z, metric, self.distances, self.order, self.rows)

    def density(self, metric: str, **settings: Any) -> DensityBank:
        """These normals as a bank calibrated by density."""
        return DensityBank(self, metric, **settings)


def density_bank_of(z: Array | DensityNormals, metric: str, **settings: Any) -> DensityBank:
    """The bank of normals z, calibrated by density, with the keyword arguments of `DensityBank`."""
    return DensityBank(z, metric, **settings) if isinstance(z, np.ndarray) else z.density(metric, **settings)


def exits(listed: Array) -> Array:
    """Neighbours (P,) that cluster exit keeps of ascending distances (P, K); see the module."""
    count, k = listed.shape
    if k <= FEWEST:
        return np.full(count, k)
    ratio = np.divide(listed[:, :-1], listed[:, 1:], out=np.ones((count, k - 1)), where=listed[:, 1:] > 0)
    smooth = (ratio[:, :-1] + ratio[:, 1:]) / 2  # (P, K - 2)
    below = smooth < np.quantile(smooth, EXIT_QUANTILE, axis=1, keepdims=True)
    return np.maximum(np.where(below.any(axis=1), below.argmax(axis=1) + 1, k - 2), FEWEST)


def _density(listed: Array, summed: bool, auto: bool) -> Array:
    """Densities (P,) of members whose K nearest others are at the ascending distances `listed` (P, K)."""
    if auto:
        kept = exits(listed)
        total = np.where(np.arange(listed.shape[1]) < kept[:, None], listed, 0).sum(axis=1)
        return np.asarray(total if summed else total / kept)
    return np.asarray(listed.sum(axis=1) if summed else listed.mean(axis=1))


def _moments(u: Array, v: Array) -> Array:  # (N,), (N,) -> (5, N)
    return np.stack([np.ones_like(u), u, v, u * v, v * v])


def _floored(rho: Array, mean: float | Array) -> Array:
    # Where all members coincide the mean is 0 and no density exists: 1 leaves the distance as it is.
    return np.where(np.asarray(mean) > 0, np.maximum(rho, RHO_FLOOR * np.asarray(mean)), 1.0)
