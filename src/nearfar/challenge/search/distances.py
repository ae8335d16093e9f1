"""Normals and queries given by the distances between them: one matrix serves every metric, k, density and domain.

    parts     {name: (n, D) float32}   unit vectors of near, far, their difference, enhanced ...; zero rows are allowed
    squared   (n, N) float32           squared distances of all n clips to the first N, the normals; inf to itself

A view is a weighted concatenation of unit vectors, so its squared distance is a weighted sum of theirs: n_bf is
(near + b^2 far) / (1 + b^2). On unit vectors cosine and Euclidean distance both follow from it: s / 2 and sqrt(s).
The products are taken in float64; pairs nearer than TINY are then measured directly, so duplicates are at 0.

`Precomputed` takes the place of vectors in `backend.build_method` (scikit-learn's word for a metric whose distances are
given). It makes the banks that the methods search, with one sorted list of neighbours per pair of sets of clips.

The parts and the matrices are arrays, or tensors on a device: what takes n N D or n N steps is done there. Lists of
neighbours, densities and scores, which take n K steps, are numpy's.
Memory: 4 n N bytes for each part and view, and twice that as float64 while a part is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from nearfar.bank import Block, entries_below, kth_upper_bound, pad_ragged
from nearfar.ldn import RHO_FLOOR, DensityBank
from nearfar.support.arrays import fill_diagonal, like, namespace, new, on_host, take
from nearfar.support.check import Array
from nearfar.views import compose, parameter, unit

TINY = 1e-7  # squared distance of unit vectors below which the product loses too many digits
SLAB = 1024  # features of one piece of a product: only the piece is copied to float64
LISTED = 21  # neighbours in a list: the largest k of the search, and one more for leaving a clip out
ROWS = 64  # rows of the matrix that are calibrated at a time: they stay in the processor's cache
DIFFERENCE = "|near - far|"  # the part unit(|near - far|); no view of the user can have this name


def weights_of(view: str) -> dict[str, float]:
    """{part: weight in the squared distance} of a view (eq. 2-5); one that is no sum of parts is its own only part."""
    family, value = parameter(view) or ("", 1.0)
    if family == "n_<beta>f":
        return {"near": 1, "far": value**2}
    if family == "absdif_<gamma>":
        return {"near": 1, "far": 1, DIFFERENCE: value**2}
    return {{"near_only": "near", "far_only": "far"}.get(view, view): 1}


def part(name: str, pooled: Mapping[str, Array]) -> Array:
    """The unit vectors (n, D) of a part from those of the waveforms."""
    if name == DIFFERENCE:
        return unit(abs(pooled["near"] - pooled["far"]))
    if name in pooled:
        return pooled[name]
    near = pooled["near"]
    vectors: Array = namespace(near).asarray(compose(name, near, pooled["far"]), dtype=near.dtype)
    return vectors


def squared_distances(x: Array, count: int) -> Array:
    """(n, N) float32 from unit vectors x (n, D) to the first N = `count` of them; inf from a clip to itself."""
    xp, n = namespace(x), len(x)
    inner = xp.asarray(new(x, (n, count)), dtype=xp.float64)
    norms = inner[:, 0] * 0
    for at in range(0, x.shape[1], SLAB):
        piece = xp.asarray(x[:, at : at + SLAB], dtype=xp.float64)
        bank = piece[:count]
        inner[:count] += bank @ bank.T  # symmetric: BLAS computes one triangle
        inner[count:] += piece[count:] @ bank.T
        norms += xp.einsum("nd,nd->n", piece, piece)
    inner *= -2
    inner += norms[:, None]
    inner += norms[:count]
    fill_diagonal(inner[:count], np.inf)
    row, column = xp.where(inner < TINY)
    for at in range(0, len(row), SLAB):
        r, c = row[at : at + SLAB], column[at : at + SLAB]
        apart = xp.asarray(x[r], dtype=xp.float64) - x[c]
        inner[r, c] = xp.einsum("pd,pd->p", apart, apart)
    squared: Array = xp.asarray(inner, dtype=xp.float32)
    return squared


def combine(weights: Mapping[str, float], squared: Mapping[str, Array], present: Mapping[str, Array]) -> Array:
    """Squared distances of a view from its parts'; `present` (n,), of numpy, says whose part is not a zero vector."""
    names = list(weights)
    count = squared[names[0]].shape[1]
    length = np.sum([w * present[name] for name, w in weights.items()], axis=0)  # squared, before the last L2 norm
    total = squared[names[0]] * float(weights[names[0]])
    for name in names[1:]:
        total += squared[name] * float(weights[name])
    if (length == length[0]).all() and length[0] > 0:
        total *= float(1 / length[0])
        return total
    c = np.sqrt(length)
    there, safe = c > 0, np.where(c > 0, c, 1)
    ratio = np.where(there[:count], c[:, None] / safe[:count], 0) + np.where(
        there[:, None], c[:count] / safe[:, None], 0
    )
    with np.errstate(invalid="ignore"):  # inf * 0 on the diagonal, which is set below
        total *= like(total, np.outer(there / safe, (there / safe)[:count]))
    # vectors of other lengths: |a/x - b/y|^2 = |a - b|^2 / xy + 2 - x/y - y/x
    total += like(total, (np.add.outer(there.astype(float), there[:count]) - ratio).astype(np.float32))
    result: Array = namespace(total).clip(total, 0, None)
    fill_diagonal(result[:count], np.inf)
    return result


class Precomputed:
    """Some clips of a matrix of squared distances (n, N), by their rows; as a bank, by their columns too.

    What one method of a view computes from the matrix is kept for the others (`once`).
    """

    def __init__(self, squared: Array, rows: Array, kept: dict[Any, Any] | None = None) -> None:
        self.squared, self.rows = squared, rows
        self._kept = {} if kept is None else kept

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Array) -> Precomputed:
        return Precomputed(self.squared, self.rows[rows], self._kept)

    @cached_property
    def key(self) -> bytes:
        """Identifies the clips."""
        return self.rows.tobytes()

    def bank(self, metric: str) -> PrecomputedBank:
        """These clips as a memory bank."""
        return self.once(("bank", metric, self.key), lambda: PrecomputedBank(self, metric))

    def density(self, metric: str, **settings: Any) -> PrecomputedDensity:
        """These clips as a bank calibrated by density."""
        key = ("density", metric, self.key, *sorted(settings.items()))
        return self.once(key, lambda: PrecomputedDensity(self, metric, **settings))

    def block(self, queries: Precomputed) -> Array:
        """Squared distances (M, N') of queries to these clips."""

        def columns_of_bank() -> Array:
            whole = len(self) == self.squared.shape[1]
            return self.squared if whole else take(self.squared, self.rows, 1)

        columns: Array = self.once(("columns", self.key), columns_of_bank)
        first, count = int(queries.rows[0]), len(queries)
        if np.array_equal(queries.rows, np.arange(first, first + count)):
            return columns[first : first + count]
        rows: Array = self.once(("block", self.key, queries.key), lambda: take(columns, queries.rows, 0))
        return rows

    def host_block(self, queries: Precomputed) -> Array:
        """`block` as a numpy array."""
        block: Array = self.once(("on the host", self.key, queries.key), lambda: on_host(self.block(queries)))
        return block

    def listed(self, queries: Precomputed, k: int) -> tuple[Array, Array]:
        """Squared distances (M, k) ascending and columns (M, k) of the k nearest other clips."""
        length = min(max(k, LISTED), len(self) - (queries.key == self.key))
        key = ("list", self.key, queries.key, length)
        squared, index = self.once(key, lambda: _sorted(self.block(queries), length))
        return squared[:, :k], index[:, :k]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value of `make`, computed the first time that a method of the view asks for `key`."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


class PrecomputedBank:
    """`bank.NeighbourIndex` over clips given by their distances: it answers from sorted lists."""

    def __init__(self, members: Precomputed, metric: str) -> None:
        self.members, self.metric = members, metric

    def __len__(self) -> int:
        return len(self.members)

    def points(self, q: Precomputed | None) -> Precomputed:
        """The queries themselves; None gives the members."""
        return self.members if q is None else q

    def nearest(self, q: Precomputed | None, k: int) -> tuple[Array, Array]:
        """As `Bank.nearest`."""
        return self.search(self.points(q), k, exclude_self=q is None)

    def search(self, points: Precomputed, k: int, *, exclude_self: bool) -> tuple[Array, Array]:
        """As `Bank.search`."""
        k = min(k, len(self) - exclude_self)
        key = ("distances", self.metric, self.members.key, points.key, k > LISTED and k)
        distance, index = self.members.once(key, lambda: self._listed(points, k))
        return distance[:, :k], index[:, :k]

    def blocks(self, points: Precomputed, *, exclude_self: bool) -> Iterator[Block]:
        """As `Bank.blocks`: one block without rounding errors; the distance of a clip to itself is infinite anyway."""
        if len(points):
            yield slice(0, len(points)), self.members.host_block(points).copy(), np.zeros(len(points))

    def exact(self, points: Precomputed, row: Array, index: Array) -> Array:
        """As `Bank.exact`."""
        return self._distance(self.members.host_block(points)[row, index])

    def _listed(self, points: Precomputed, k: int) -> tuple[Array, Array]:
        squared, index = self.members.listed(points, max(k, LISTED))
        return self._distance(squared), index

    def _distance(self, squared: Array) -> Array:
        s = squared.astype(np.float64)
        return s / 2 if self.metric == "cosine" else np.sqrt(s)


class PrecomputedDensity(DensityBank):
    """A `DensityBank` whose scores are kept, with a shortcut where the nearest calibrated member alone decides.

    The shortcut (ratio form, k = 1) takes min d / rho^e with the densities of the whole bank in one pass. Leaving a
    clip out can only raise the rho of members that have it among their K nearest: their corrected ratios, K per clip,
    are computed too, and the smaller counts.
    """

    def __init__(self, members: Precomputed, metric: str, **settings: Any) -> None:
        super().__init__(members, metric, **settings)
        self.members = members

    def score(self, q: Any, *, fallback_density: Array | None = None) -> Array:
        """As `DensityBank.score`."""
        if len(self) == 1:
            return super().score(q, fallback_density=fallback_density)
        score = self._lowest if self._nearest_decides else super().score
        return np.asarray(self.members.once(self._key("score", q), lambda: score(q)))

    def leave_one_out(self) -> Array:
        """As `DensityBank.leave_one_out`."""
        exact = self._lowest_excluding if len(self) > 1 and self._nearest_decides else super().leave_one_out
        return np.asarray(self.members.once(self._key("leave one out", self.members), exact))

    def mean_density_excluding(self) -> Array:
        """As `DensityBank.mean_density_excluding`."""
        key = self._key("mean density", self.members)
        return np.asarray(self.members.once(key, super().mean_density_excluding))

    def _key(self, what: str, q: Precomputed) -> tuple[Any, ...]:
        density = (self.index.metric, self.density_k, self.summed, self.auto, self.fallback_density)
        score = (self.k, self.raw_selection, self.ratio, float(self.exponent))
        return (what, self.members.key, q.key, *density, *score)

    @cached_property
    def _nearest_decides(self) -> bool:
        if self.k > 1 or not self.ratio or self.raw_selection or self.exponent <= 0:
            return False
        if self.auto or self.densities.distances.shape[1] <= self.density_k:  # taking a clip out can lower a density
            return False
        highest = self._rho_excluding[:, 0].sum() / (len(self) - 1)  # an upper bound on the mean density without a clip
        return bool(self.densities.rho.min() > RHO_FLOOR * highest)  # the floor changes no density

    @cached_property
    def _rho_excluding(self) -> Array:
        """rho (N, K) of each member without each of its K nearest."""
        distances = self.densities.distances
        total = distances.sum(axis=1, keepdims=True) - distances[:, : self.density_k]
        return np.asarray(total if self.summed else total / self.density_k)

    def _lowest(self, q: Precomputed) -> Array:
        """min d / rho^e (M,), a few rows of the matrix at a time."""
        rho, unit_rho, exponent = self.densities.rho, self.densities.mean, float(self.exponent)
        squared = self.index.metric == "euclidean"  # then d / rho^e is the root of s / rho^2e
        weights = ((unit_rho / rho) ** (exponent * (2 if squared else 1))).astype(np.float32)
        low = _lowest_product(self.members.block(q), weights).astype(np.float64)
        scores: Array = (np.sqrt(low) if squared else low / 2) / unit_rho**exponent
        return scores

    def _lowest_excluding(self) -> Array:
        """The same for each member against the others."""
        scores = self._lowest(self.members)
        k = self.density_k
        corrected = self.densities.distances[:, :k] / self._rho_excluding ** float(self.exponent)
        np.minimum.at(scores, self.densities.nearest[:, :k].ravel(), corrected.ravel())
        return scores


def _lowest_product(block: Array, weights: Array) -> Array:
    """The smallest of weights (N,) times a row, (M,), for each row of a block (M, N); of numpy."""
    if is_torch_array(block):
        return on_host(namespace(block).amin(block * like(block, weights), axis=1))
    lowest, buffer = np.empty(len(block), np.float32), np.empty((ROWS, len(weights)), np.float32)
    for at in range(0, len(block), ROWS):
        rows = block[at : at + ROWS]
        np.multiply(rows, weights, out=buffer[: len(rows)]).min(axis=1, out=lowest[at : at + ROWS])
    return lowest


def _sorted(block: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each row, ascending, and their columns, of numpy; ties go to the lower column."""
    if is_torch_array(block):
        values, places = namespace(block).sort(block, dim=1, stable=True)
        return on_host(values[:, :k]), on_host(places[:, :k])
    row, column = entries_below(block, kth_upper_bound(block, k))
    listed = pad_ragged(row, block[row, column], len(block))
    order = np.argsort(listed, axis=1, kind="stable")[:, :k]
    squared = np.take_along_axis(listed, order, axis=1).astype(block.dtype)
    return squared, column[np.searchsorted(row, np.arange(len(block)))[:, None] + order]
