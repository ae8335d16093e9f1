"""Memory bank: the nearest normal recordings of a query, exactly (report section 2.2, eq. 1).

    euclidean   delta(q, r) = |q - r|
    cosine      delta(q, r) = 1 - cos(q, r) = |q/|q| - r/|r||^2 / 2

The search is a blocked matrix product in float32 on vectors centred on the bank. The product gives an upper bound on
the k-th distance; every member that rounding could have put on the wrong side of this bound is then measured directly
in the vectors' own precision. So no array of N x M x D numbers exists, and the result is that of brute force.
`distances` is this brute force: for one clip it is as fast as the search.

Above LARGE members the bank is a `MappedBank`: the product runs over a 16-bit copy on disk, whose rounding is added
to the bound, so its results are those of `Bank` to the last bit. `coreset` chooses members that stand for all.

Conventions
    z (N, D)   embeddings of the normals, the members of the bank; N >= 1
    q (M, D)   queries
    Distances are float64. Ties go to the member with the lower index. k is clipped to N.
    A copy of a member is at distance 0. A distance does not depend on the other queries of the batch.
    A zero vector has no direction: its cosine distance is 1 (cos = 0), but 0 to another zero vector, which is a copy.
    Nothing here knows audio, domains or thresholds.

>>> bank = Bank([[0, 1], [3, 1], [0, 5]], metric="euclidean")
>>> distance, index = bank.nearest([[0, 2]], k=2)
>>> distance.tolist(), index.tolist()
([[1.0, 3.0]], [[0, 2]])
>>> bank.nearest(None, k=1)[1].ravel().tolist()  # each member's nearest other member
[1, 0, 0]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, integer, one_of
from nearfar.views import unit

METRICS = ("cosine", "euclidean")
BLOCK = 1 << 23  # entries of one block of the distance matrix: 32 MiB
ROWS = 256  # fewest rows of a block, whatever the size of the bank
LARGE = 300_000  # members; a larger bank is a `MappedBank`
MAPPED_ROWS = 128  # fewest rows of a block of a `MappedBank`
SHARD = 20_000  # members among which `coreset` chooses at once
PROJECTED = 64  # dimensions in which `coreset` measures
SAMPLE = 2_000  # members left out by which `coreset` tells its cost
CACHE = 1 << 18  # entries of one piece of the direct distances: the piece should stay in the processor's cache

Block = tuple[slice, Array, Array]  # rows of the queries, squared distances (rows, N) float32, rounding error (rows,)


class NeighbourIndex(Protocol):
    """What a method needs of a bank; `Bank` explains each function and computes it from vectors."""

    @property
    def metric(self) -> str: ...
    def __len__(self) -> int: ...
    def points(self, q: Any) -> Any: ...
    def nearest(self, q: Any, k: int) -> tuple[Array, Array]: ...
    def search(self, points: Any, k: int, *, exclude_self: bool) -> tuple[Array, Array]: ...
    def blocks(self, points: Any, *, exclude_self: bool) -> Iterator[Block]: ...
    def exact(self, points: Any, row: Array, index: Array) -> Array: ...


class PrecomputedNormals(Protocol):
    """Normals given by the distances between them instead of by vectors: they make their own bank."""

    def __len__(self) -> int: ...
    def bank(self, metric: str) -> NeighbourIndex: ...


class Bank:
    """The members z (N, D) of a bank and the search for the nearest of them.

    Raises ValueError if z is empty or not finite, or if the metric is unknown.
    """

    fewest_rows = ROWS

    def __init__(self, z: ArrayLike, metric: str = "cosine") -> None:
        self.metric = one_of("metric", metric, METRICS)
        z = finite("z", z, ndim=2)
        if not len(z) or not z.shape[1]:
            raise ValueError(f"the bank is empty: z has shape {z.shape}")
        self.width = z.shape[1]  # D
        self._hold(z)

    def _hold(self, z: Array) -> None:
        """Keep the members, and what the products need of them."""
        self._points = unit(z) if self.metric == "cosine" else z
        self._zero = ~self._points.any(axis=1) if self.metric == "cosine" else np.zeros(len(z), bool)
        self._centre = self._points.mean(axis=0, dtype=np.float64).astype(self._points.dtype)
        centred = (self._points - self._centre).astype(np.float32)
        # |q - r|^2 as one product: [q, 1, |q|^2] . [-2 r, |r|^2, 1]
        squares = np.einsum("nd,nd->n", centred, centred)[:, None]
        self._factors = np.concatenate([-2 * centred, squares, np.ones_like(squares)], axis=1)
        self._largest_square = float(squares.max())  # squared distance of the outermost member from the centre
        self._rounded = 0.0  # largest distance between a member and the copy of it that the product uses

    def __len__(self) -> int:
        return len(self._points)

    def nearest(self, q: ArrayLike | None, k: int) -> tuple[Array, Array]:
        """The k nearest members of each query: distances (M, k) float64, ascending, and indices (M, k).

        q   (M, D) queries. None: the members themselves, each without itself (leave-one-out). A member is left out by
            index, so a copy of it stays its neighbour; k is then clipped to N - 1
        k   number of neighbours, >= 1; clipped to N
        """
        k = integer("k", k)
        if q is None:
            return self.search(self._points, k, exclude_self=True)
        q = finite("q", q, ndim=2)
        if q.shape[1] != self.width:
            raise ValueError(f"q holds vectors of length {q.shape[1]}, the bank vectors of length {self.width}")
        return self.search(self.points(q), k, exclude_self=False)

    def points(self, q: Array | None) -> Array:
        """Checked queries (M, D) as the bank compares them: at unit length for cosine. None gives the members."""
        if q is None:
            return self._points
        return unit(q) if self.metric == "cosine" else q

    def distances(self, q: Array) -> Array:
        """Distances (M, N) float64 of checked queries (M, D) to all members, by subtraction: for one or a few queries.

        The distances are those of `nearest`, to the last bit.
        """
        points, members = self.points(q), self._points
        squared = np.empty((len(points), len(members)))
        step = max(1, CACHE // self.width)
        buffer = np.empty((min(step, len(members)), self.width), members.dtype)
        for start in range(0, len(members), step):
            piece = slice(start, start + step)
            difference = buffer[: len(members[piece])]
            for point, row in zip(points, squared, strict=True):
                np.subtract(members[piece], point, out=difference, casting="same_kind")
                row[piece] = np.einsum("pd,pd->p", difference, difference)
        if (other := self._one_is_zero(points)) is not None:
            squared[other] = 2
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)

    def search(self, points: Array, k: int, *, exclude_self: bool) -> tuple[Array, Array]:
        """`nearest` for the result of `points`: to scale a vector to length 1 twice would change its last bits."""
        k = min(k, len(self) - exclude_self)
        distance, index = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
        if not k:
            return distance, index
        for rows, squared, error in self.blocks(points, exclude_self=exclude_self):
            # At least k true distances are <= bound + error, so a member whose approximate distance exceeds
            # bound + 2 error is not among the k nearest.
            row, near = entries_below(squared, kth_upper_bound(squared, k) + 2 * error)
            exact = pad_ragged(row, self.exact(points[rows], row, near), len(squared))
            order = np.argsort(exact, axis=1, kind="stable")[:, :k]
            distance[rows] = np.take_along_axis(exact, order, axis=1)
            index[rows] = near[np.searchsorted(row, np.arange(len(squared)))[:, None] + order]
        return distance, index

    def blocks(self, points: Array, *, exclude_self: bool) -> Iterator[Block]:
        """Approximate squared Euclidean distances of `points` to the members, one block of rows after the other.

        Yields (rows, squared, error): `squared` (rows, N) float32 serves to choose candidates, not as a result. Its
        values are wrong by up to `error` (rows,) and may be below 0. The caller may change `squared`, but the next
        block overwrites it. With `exclude_self`, `points` are the members and the distance of each to itself is inf.
        """
        # Rounding of a float32 sum of `width` terms, as a share of (|q| + |r|)^2, with room to spare
        rounding = np.finfo(np.float32).eps * (8 + np.sqrt(self.width))
        step = max(1, min(max(self.fewest_rows, BLOCK // len(self)), len(points)))
        # The two buffers are allocated once: fresh memory for every block costs as much as a pass over it.
        left, squared = np.empty((step, self.width + 2), np.float32), np.empty((step, len(self)), np.float32)
        for start in range(0, len(points), step):
            rows = slice(start, min(start + step, len(points)))
            count = rows.stop - start
            centred, squares = left[:count, :-2], left[:count, -1]
            np.subtract(points[rows], self._centre, out=centred, casting="same_kind")
            left[:, -2] = 1
            np.einsum("md,md->m", centred, centred, out=squares)
            block = self._product(left[:count], squared[:count])
            if (other := self._one_is_zero(points[rows])) is not None:
                block[other] = 2
            if exclude_self:
                block[np.arange(count), np.arange(start, rows.stop)] = np.inf
            reach = np.sqrt(squares.astype(np.float64)) + np.sqrt(self._largest_square)
            yield rows, block, rounding * reach**2 + self._rounded * (2 * reach + self._rounded)

    def _product(self, left: Array, out: Array) -> Array:
        """Squared distances (M, N) of the queries, given as `left` (M, D + 2), to the members; written to `out`."""
        return np.matmul(left, self._factors.T, out=out)

    def exact(self, points: Array, row: Array, index: Array) -> Array:
        """Distances (P,) float64 of points[row] to the members at `index`, by subtraction; row and index are (P,)."""
        squared = np.empty(len(row))
        step = max(1, CACHE // self.width)
        shape = min(step, len(row)), self.width
        members, queries = np.empty(shape, self._points.dtype), np.empty(shape, points.dtype)
        for start in range(0, len(row), step):
            piece = slice(start, start + step)
            difference = members[: len(row[piece])]
            # mode="clip" because numpy buffers the output of the other modes; no index is out of range
            self._points.take(index[piece], axis=0, out=difference, mode="clip")
            difference -= points.take(row[piece], axis=0, out=queries[: len(difference)], mode="clip")
            squared[piece] = np.einsum("pd,pd->p", difference, difference)
        if (other := self._one_is_zero(points)) is not None:
            squared[other[row, index]] = 2
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)

    def _one_is_zero(self, points: Array) -> Array | None:
        """Which pairs (M, N) of points and members are a zero vector and another; None if there are none.

        Their squared distance is that of any two unit vectors with cos = 0, which is 2, and not |r|^2 = 1.
        """
        if self.metric != "cosine":
            return None
        zero = np.logical_not(points.any(axis=1))
        if not (zero.any() or self._zero.any()):
            return None
        return np.not_equal(zero[:, None], self._zero)


class MappedBank(Bank):
    """A `Bank` whose members lie in scratch files, 6 bytes a number: memory holds one block of distances."""

    fewest_rows = MAPPED_ROWS

    def _hold(self, z: Array) -> None:
        step = max(1, BLOCK // self.width)
        pieces = [slice(start, start + step) for start in range(0, len(z), step)]
        self._points, self._short = _scratch(z.shape, z.dtype), _scratch(z.shape, np.dtype(np.int16))
        self._zero, self._squares = np.zeros(len(z), bool), np.empty(len(z), np.float32)
        total, peak = np.zeros(self.width), 0.0
        for piece in pieces:
            points = unit(z[piece]) if self.metric == "cosine" else z[piece]
            if self.metric == "cosine":
                self._zero[piece] = ~points.any(axis=1)
            self._points[piece] = points
            total += points.sum(axis=0, dtype=np.float64)
            peak = max(peak, float(np.abs(points).max()))
        self._centre = (total / len(z)).astype(z.dtype)
        self._scale = np.float32(2 * peak / 32_767 or 1)  # fixed point: numpy reads it four times as fast as float16
        self._rounded = 0.0
        for piece in pieces:
            centred = (self._points[piece] - self._centre).astype(np.float32)
            self._short[piece] = np.rint(centred / self._scale)
            kept = self._short[piece] * self._scale
            self._squares[piece] = np.einsum("nd,nd->n", kept, kept)
            centred -= kept
            self._rounded = max(self._rounded, 1.001 * float(np.sqrt(np.einsum("nd,nd->n", centred, centred).max())))
        self._largest_square = float(self._squares.max())

    def _product(self, left: Array, out: Array) -> Array:
        step = max(1, (BLOCK >> 2) // self.width)
        factors = np.empty((min(step, len(self)), self.width + 2), np.float32)
        factors[:, -1] = 1
        left = np.concatenate([left[:, :-2] * (-2 * self._scale), left[:, -2:]], axis=1)
        for start in range(0, len(self), step):
            piece = slice(start, start + step)
            part = factors[: len(self._squares[piece])]
            part[:, :-2] = self._short[piece]
            part[:, -2] = self._squares[piece]
            out[:, piece] = left @ part.T
        return out


def _scratch(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array in a file without a name in the folder for temporary files; the file goes with the array."""
    return np.memmap(tempfile.TemporaryFile(), dtype, "w+", shape=shape)


class Coreset(NamedTuple):
    """Members that stand for a larger bank.

    kept (K,) are their indices, ascending. radius and mean are the largest and the mean distance of a member that is
    left out to the nearest of them, over at most SAMPLE members.
    """

    kept: Array
    radius: float
    mean: float


def coreset(z: ArrayLike, keep: int, *, metric: str = "cosine", seed: int = 0) -> Coreset:
    """`keep` of the vectors z (N, D) that cover all: each is the farthest from those chosen before it.

    Above SHARD vectors, drawn shards choose their shares by themselves; above PROJECTED dimensions, distances are those
    of a random projection. The same seed gives the same members. Sources: Gonzalez 1985; Malkomes et al. 2015 (shards);
    Roth et al. 2022 (as a bank of normals).

    >>> coreset([[0.0], [0.1], [5.0], [9.0]], 2, metric="euclidean").kept.tolist()
    [0, 3]
    """
    z, keep = finite("z", z, ndim=2), integer("keep", keep)
    if keep >= len(z):
        return Coreset(np.arange(len(z)), 0.0, 0.0)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(z)) if len(z) > SHARD else np.arange(len(z))
    shards = np.array_split(order, -(-len(z) // SHARD))
    ends = np.cumsum([0, *map(len, shards)]) * keep // len(z)
    onto = rng.normal(size=(z.shape[1], PROJECTED)) if z.shape[1] > PROJECTED else np.eye(z.shape[1])
    chosen = []
    for shard, count in zip(shards, np.diff(ends), strict=True):
        points = unit(z[shard]) if metric == "cosine" else z[shard]
        chosen.append(shard[_farthest(points @ onto.astype(z.dtype), int(count))])
    kept = np.sort(np.concatenate(chosen))
    left_out = np.setdiff1d(np.arange(len(z)), kept)
    left_out = rng.choice(left_out, min(SAMPLE, len(left_out)), replace=False)
    distances = bank_of_vectors(z[kept], metric).nearest(z[left_out], 1)[0]
    return Coreset(kept, float(distances.max()), float(distances.mean()))


def _farthest(x: Array, count: int) -> Array:
    """Indices (count,) of rows of x: the first row, then always the one that is farthest from all before."""
    chosen, squares = np.zeros(count, int), np.einsum("nd,nd->n", x, x)
    reach = np.full(len(x), np.inf)
    for i in range(1, count):
        last = chosen[i - 1]
        np.minimum(reach, squares - 2 * (x @ x[last]) + squares[last], out=reach)
        reach[last] = -np.inf
        chosen[i] = int(reach.argmax())
    return chosen


class KnownNeighbours(Bank):
    """Some members of a larger bank, whose nearest others are found in sorted lists of all.

    order (N, N - 1)   the others of each of all members, nearest first        rows (n,)   these members
    """

    def __init__(self, z: Array, metric: str, distances: Array, order: Array, rows: Array) -> None:
        super().__init__(z[rows], metric)
        self._lists, self._rows = (distances, order), rows

    def nearest(self, q: ArrayLike | None, k: int) -> tuple[Array, Array]:
        """As `Bank.nearest`; ties go to the member with the lower index, too."""
        if q is not None:
            return super().nearest(q, k)
        distances, order = self._lists
        k = min(integer("k", k), len(self) - 1)
        place = np.full(len(distances), -1)
        place[self._rows] = np.arange(len(self))
        found, todo, length = np.empty((len(self), k), np.int64), np.arange(len(self)), 2 * k + 32
        while len(todo):  # lists in which too many are no members of this bank are read further
            listed = place[order[self._rows[todo], :length]]
            there = listed >= 0
            enough = there.sum(axis=1) >= k
            first = there[enough] & (np.cumsum(there[enough], axis=1) <= k)
            found[todo[enough]] = listed[enough][first].reshape(-1, k)
            todo, length = todo[~enough], 4 * length
        return distances[self._rows[:, None], self._rows[found]], found


def bank_of(z: Array | PrecomputedNormals, metric: str) -> NeighbourIndex:
    """The bank of normals z, given as vectors (N, D) or by the distances between them."""
    return bank_of_vectors(z, metric) if isinstance(z, np.ndarray) else z.bank(metric)


def bank_of_vectors(z: Array, metric: str) -> Bank:
    """The bank of vectors (N, D): in memory, or above LARGE members in scratch files."""
    return (MappedBank if len(z) > LARGE else Bank)(z, metric)


def pad_ragged(row: Array, values: Array, rows: int) -> Array:
    """Ragged (row, value) pairs -> a dense table (rows, longest), padded with inf; `row` (P,) is ascending."""
    column = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    table = np.full((rows, column.max() + 1), np.inf)
    table[row, column] = values
    return table


def kth_upper_bound(values: Array, k: int) -> Array:
    """An upper bound (M,) on the k-th smallest entry of each row of `values` (M, N); few more than k entries reach it.

    The row is cut into interleaved chunks. The bound is the k-th smallest of the chunks' minima.
    """
    if k == 1:  # a single pass that writes no intermediate array
        return np.asarray(values.min(axis=1))
    lowest = values
    while lowest.shape[1] >= 2 * int(np.sqrt(k * values.shape[1])) and lowest.shape[1] >= 2 * k:
        half = lowest.shape[1] // 2  # an odd last column is dropped, which can only raise the bound
        lowest = np.minimum(lowest[:, :half], lowest[:, half : 2 * half])
    bound: Array = np.partition(lowest, k - 1, axis=1)[:, k - 1]
    return bound


def entries_below(values: Array, limit: Array) -> tuple[Array, Array]:
    """Rows and columns, each (P,), of the entries of `values` (M, N) that are <= their row's limit (M,), row by row."""
    row, column = np.divmod(np.flatnonzero(values <= limit[:, None].astype(values.dtype)), values.shape[1])
    return row, column
