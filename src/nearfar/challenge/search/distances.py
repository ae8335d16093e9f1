"""Clips known by the distances between them: one distance matrix serves every metric, k, density and domain.

    parts    {name: (n, D) float32}   unit vectors of near, far, their difference, enhanced ...; zero rows allowed
    squared  (n, N) float32           squared distances of all n clips to the first N, the normals; to itself inf

A view is a weighted concatenation of unit vectors, so its squared distance is a weighted sum of theirs: n_bf is
(near + b^2 far) / (1 + b^2). On unit vectors cosine and Euclidean distance both follow from it: s / 2 and sqrt(s).
The products are taken in float64; pairs nearer than TINY are then measured directly, so duplicates are at 0.

`Known` stands in for the vectors in `methods`: it makes the bank that they search, with one sorted list of neighbours
per set of clips. Memory: 4 n N bytes for each part and view, and twice that as float64 while a part is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from nearfar.bank import Block, entries_below, kth_upper_bound, pad_ragged
from nearfar.ldn import RHO_FLOOR, DensityBank
from nearfar.support.check import Array, unit

TINY = 1e-7  # squared distance of unit vectors below which a product has lost too many digits
SLAB = 1024  # features of one piece of a product, which is all that is copied to float64
LISTED = 21  # neighbours in a list: the largest k of the search, and one more to take a clip out
BLOCK = 64  # rows of the matrix that are calibrated at a time: they stay in the cache
PARTS: dict[str, dict[str, float]] = {  # view -> weight of each part in its squared distance (eq. 2-5)
    "near_only": {"near": 1},
    "n_0.5f": {"near": 1, "far": 0.25},
    "n_f": {"near": 1, "far": 1},
    "absdif_1": {"near": 1, "far": 1, "diff": 1},
    "absdif_0.5": {"near": 1, "far": 1, "diff": 0.25},
    "far_only": {"far": 1},
    "residual_0.5": {"residual": 1},
}
MADE: dict[str, Callable[[Array, Array], Array]] = {  # parts that are made of the two microphones' vectors
    "diff": lambda near, far: unit(np.abs(near - far)),
    "residual": lambda near, far: unit(near - np.float32(0.5) * far),
}


def weights_of(view: str) -> dict[str, float]:
    """{part: weight} of a view; a waveform that takes near's place is a part of its own."""
    return PARTS.get(view, {view: 1})


def part(name: str, pooled: Mapping[str, Array]) -> Array:
    """The unit vectors (n, D) of a part from those of the waveforms."""
    return MADE[name](pooled["near"], pooled["far"]) if name in MADE else pooled[name]


def squared_distances(x: Array, count: int) -> Array:
    """(n, N) float32 from unit vectors x (n, D) to the first `count`; a clip to itself is infinitely far."""
    n = len(x)
    inner = np.zeros((n, count))
    for at in range(0, x.shape[1], SLAB):
        piece = x[:, at : at + SLAB].astype(np.float64)
        bank = piece[:count]
        inner[:count] += bank @ bank.T  # one triangle of it, mirrored
        inner[count:] += piece[count:] @ bank.T
    norms = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    inner *= -2
    inner += norms[:, None]
    inner += norms[:count]
    own = np.arange(count)
    inner[own, own] = np.inf
    row, column = np.nonzero(inner < TINY)
    for at in range(0, len(row), SLAB):
        r, c = row[at : at + SLAB], column[at : at + SLAB]
        apart = x[r].astype(np.float64) - x[c]
        inner[r, c] = np.einsum("pd,pd->p", apart, apart)
    return inner.astype(np.float32)


def combine(weights: Mapping[str, float], squared: Mapping[str, Array], present: Mapping[str, Array]) -> Array:
    """Squared distances of a view from its parts'; `present` (n,) says which clips' part is not a zero vector."""
    names = list(weights)
    count = squared[names[0]].shape[1]
    length = np.sum([w * present[name] for name, w in weights.items()], axis=0)  # squared, before the last L2 norm
    total = squared[names[0]] * np.float32(weights[names[0]])
    for name in names[1:]:
        total += squared[name] * np.float32(weights[name])
    if (length == length[0]).all() and length[0] > 0:
        total *= np.float32(1 / length[0])
        return total
    c = np.sqrt(length)
    there, safe = c > 0, np.where(c > 0, c, 1)
    ratio = np.where(there[:count], c[:, None] / safe[:count], 0) + np.where(
        there[:, None], c[:count] / safe[:, None], 0
    )
    with np.errstate(invalid="ignore"):  # infinity to itself times nothing
        total *= np.outer(there / safe, (there / safe)[:count])
    # vectors of other lengths: |a/x - b/y|^2 = |a - b|^2 / xy + 2 - x/y - y/x
    total += (np.add.outer(there.astype(float), there[:count]) - ratio).astype(np.float32)
    result: Array = np.maximum(total, 0)
    result[np.arange(count), np.arange(count)] = np.inf
    return result


class Precomputed:
    """Some of the clips of a matrix of squared distances (n, N): what `methods` takes instead of vectors."""

    def __init__(self, squared: Array, rows: Array, shared: dict[Any, Any] | None = None) -> None:
        self.squared, self.rows = squared, rows
        self._shared = {} if shared is None else shared  # lists and banks that other methods of the view use too

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Array) -> Precomputed:
        return Precomputed(self.squared, self.rows[rows], self._shared)

    @cached_property
    def key(self) -> bytes:
        """Which clips these are."""
        return self.rows.tobytes()

    def bank(self, metric: str) -> PrecomputedBank:
        """These clips as a memory bank."""
        return self.once(("bank", metric, self.key), lambda: PrecomputedBank(self, metric))

    def density(self, metric: str, **switches: Any) -> DensityBank:
        """These clips as a bank calibrated by density."""
        key = ("density", metric, self.key, *sorted(switches.items()))
        return self.once(key, lambda: PrecomputedDensity(self, metric, **switches))

    def block(self, queries: Precomputed) -> Array:
        """Squared distances (M, N') of queries to these clips."""

        def cut() -> Array:
            whole = len(self) == self.squared.shape[1]
            return self.squared if whole else np.ascontiguousarray(self.squared[:, self.rows])

        columns: Array = self.once(("columns", self.key), cut)
        first, count = int(queries.rows[0]), len(queries)
        if np.array_equal(queries.rows, np.arange(first, first + count)):
            return columns[first : first + count]
        rows: Array = self.once(("block", self.key, queries.key), lambda: columns[queries.rows])
        return rows

    def listed(self, queries: Precomputed, k: int) -> tuple[Array, Array]:
        """Squared distances (M, k) ascending and columns of the k nearest of these clips, itself left out."""
        length = min(max(k, LISTED), len(self) - (queries.key == self.key))
        squared, index = self.once(
            ("list", self.key, queries.key, length), lambda: _sorted(self.block(queries), length)
        )
        return squared[:, :k], index[:, :k]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made the first time that any method of the view asks for it."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


class PrecomputedBank:
    """`bank.Bank` over clips known by their distances: the same questions, answered from sorted lists."""

    def __init__(self, known: Precomputed, metric: str) -> None:
        self.known, self.metric = known, metric

    def __len__(self) -> int:
        return len(self.known)

    def points(self, q: Precomputed | None) -> Precomputed:
        """Queries as the bank compares them: as they are."""
        return self.known if q is None else q

    def nearest(self, q: Precomputed | None, k: int) -> tuple[Array, Array]:
        """As `Bank.nearest`."""
        return self.search(self.points(q), k, exclude_self=q is None)

    def search(self, points: Precomputed, k: int, *, exclude_self: bool) -> tuple[Array, Array]:
        """As `Bank.search`."""
        known, k = self.known, min(k, len(self) - exclude_self)
        distance, index = known.once(
            ("distances", self.metric, known.key, points.key, k > LISTED and k), lambda: self._listed(points, k)
        )
        return distance[:, :k], index[:, :k]

    def blocks(self, points: Precomputed, *, exclude_self: bool) -> Iterator[Block]:
        """As `Bank.blocks`: one block without rounding errors; the distance of a clip to itself is infinite anyway."""
        if len(points):
            yield slice(0, len(points)), self.known.block(points).copy(), np.zeros(len(points))

    def exact(self, points: Precomputed, row: Array, index: Array) -> Array:
        """As `Bank.exact`."""
        return self._distance(self.known.block(points)[row, index])

    def _listed(self, points: Precomputed, k: int) -> tuple[Array, Array]:
        squared, index = self.known.listed(points, max(k, LISTED))
        return self._distance(squared), index

    def _distance(self, squared: Array) -> Array:
        s = squared.astype(np.float64)
        return s / 2 if self.metric == "cosine" else np.sqrt(s)


class PrecomputedDensity(DensityBank):
    """`DensityBank` with a shortcut where the nearest calibrated member decides alone (ratio form, k = 1).

    One pass takes min d / rho^e with the densities of the whole bank. Leaving clip i out can only raise rho of those
    that have i among their nearest, so their corrected ratios, K per clip, are taken beside it and the smaller counts.
    """

    def score(self, q: Any, *, exponent: float | None = None, fallback_density: Array | None = None) -> Array:
        """As `DensityBank.score`."""
        if len(self) == 1 or exponent is not None:
            return super().score(q, exponent=exponent, fallback_density=fallback_density)
        score = self._lowest if self._direct else super().score
        return np.asarray(self._known.once(self._key("score", q), lambda: score(q)))

    def leave_one_out(self, *, exponent: Array | None = None) -> Array:
        """As `DensityBank.leave_one_out`."""
        if exponent is not None:
            return super().leave_one_out(exponent=exponent)
        exact = self._lowest_without if len(self) > 1 and self._direct else super().leave_one_out
        return np.asarray(self._known.once(self._key("leave one out", self._known), exact))

    def mean_density_excluding(self) -> Array:
        """As `DensityBank.mean_density_excluding`."""
        return np.asarray(self._known.once(self._key("mean density", self._known), super().mean_density_excluding))

    @property
    def _known(self) -> Precomputed:
        known: Precomputed = self.index.known  # type: ignore[attr-defined]
        return known

    def _key(self, what: str, q: Precomputed) -> tuple[Any, ...]:
        density = (self.index.metric, self.density_k, self.summed, self.fallback_density)
        score = (self.k, self.raw_selection, self.ratio, float(self.exponent))
        return (what, self._known.key, q.key, *density, *score)

    @cached_property
    def _direct(self) -> bool:
        if self.k > 1 or not self.ratio or self.raw_selection or np.any(np.asarray(self.exponent) <= 0):
            return False
        if self.densities.distances.shape[1] <= self.density_k:  # K is clipped: taking a clip out can lower a density
            return False
        highest = self._without_each[:, 0].sum() / (len(self) - 1)  # no mean density is above it
        return bool(self.densities.rho.min() > RHO_FLOOR * highest)  # no density stands on the floor

    @cached_property
    def _without_each(self) -> Array:
        """rho (N, K) of each member without each of its K nearest."""
        distances = self.densities.distances
        total = distances.sum(axis=1, keepdims=True) - distances[:, : self.density_k]
        return np.asarray(total if self.summed else total / self.density_k)

    def _lowest(self, q: Precomputed) -> Array:
        rho, unit_rho = self.densities.rho, self.densities.mean
        squared = self.index.metric == "euclidean"  # then d / rho^e is the root of s / rho^2e
        weights = ((unit_rho / rho) ** (float(self.exponent) * (2 if squared else 1))).astype(np.float32)
        block = self._known.block(q)
        lowest, buffer = np.empty(len(block), np.float32), np.empty((BLOCK, len(self)), np.float32)
        for at in range(0, len(block), BLOCK):
            rows = block[at : at + BLOCK]
            np.multiply(rows, weights, out=buffer[: len(rows)]).min(axis=1, out=lowest[at : at + BLOCK])
        low = lowest.astype(np.float64)
        scores: Array = (np.sqrt(low) if squared else low / 2) / unit_rho ** float(self.exponent)
        return scores

    def _lowest_without(self) -> Array:
        scores = self._lowest(self._known)
        corrected = self.densities.distances[:, : self.density_k] / self._without_each ** float(self.exponent)
        np.minimum.at(scores, self.densities.nearest[:, : self.density_k].ravel(), corrected.ravel())
        return scores


def _sorted(block: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each row, ascending, and their columns; ties go to the lower column."""
    row, column = entries_below(block, kth_upper_bound(block, k))
    listed = pad_ragged(row, block[row, column], len(block))
    order = np.argsort(listed, axis=1, kind="stable")[:, :k]
    squared = np.take_along_axis(listed, order, axis=1).astype(block.dtype)
    return squared, column[np.searchsorted(row, np.arange(len(block)))[:, None] + order]
