"""Memory bank: which normal recordings are nearest, exactly (report section 2.2, eq. 1).

    z  (N, D)   embeddings of the normals      q  (M, D)   queries
    euclidean   delta = |q - r|                cosine      delta = 1 - cos(q, r) = |q/|q| - r/|r||^2 / 2

The search is a blocked matrix product in float32 on vectors centred on the bank. It bounds the k-th distance; of every
member that rounding could have put on the wrong side of the bound, the distance is then taken directly. So no
N x M x D array ever exists, a duplicate is at distance 0, and a distance does not depend on the other queries of
the batch. Knows nothing of audio, domains or thresholds.
A zero vector has no direction: by the formula above its cosine distance is 0 to another one, 0.5 to everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, one_of, unit, whole

METRICS = ("cosine", "euclidean")
BLOCK, ROWS = 1 << 23, 256  # entries of one block of the distance matrix (32 MiB), but at least so many rows
CACHE = 1 << 18  # entries of one piece of the direct distances: it should stay in the cache


class Bank:
    """Normal embeddings (N, D) and the question 'who is near?'. Raises ValueError if empty or not finite."""

    def __init__(self, z: ArrayLike, metric: str = "cosine") -> None:
        one_of("metric", metric, METRICS)
        self.metric = metric
        z = finite("z", z, ndim=2)
        if not len(z) or not z.shape[1]:
            raise ValueError(f"the bank is empty: z has shape {z.shape}")
        self._points = unit(z) if metric == "cosine" else z
        self._centre = self._points.mean(axis=0, dtype=np.float64).astype(self._points.dtype)
        centred = (self._points - self._centre).astype(np.float32)
        # |q - r|^2 as one product: [q, 1, |q|^2] . [-2 r, |r|^2, 1]
        squares = np.einsum("nd,nd->n", centred, centred)[:, None]
        self._left = np.concatenate([-2 * centred, squares, np.ones_like(squares)], axis=1)
        self.scale = float(squares.max())  # the largest squared distance from the centre

    def __len__(self) -> int:
        return len(self._points)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return int(self._points.shape[1])

    def nearest(self, q: ArrayLike | None, k: int) -> tuple[Array, Array]:
        """Distances (M, k) ascending in float64 and indices (M, k) of the k nearest; k is clipped to the bank.

        Ties go to the lower index. `q` None asks for the members themselves, each without itself (leave-one-out,
        by index: a duplicate of a member stays its neighbour), with k clipped to N - 1.
        """
        return self.search(self.points(q), k, members=q is None)

    def search(self, points: Array, k: int, *, members: bool) -> tuple[Array, Array]:
        """`nearest` for points as `points` gives them: a vector scaled to unit length twice is no longer the same."""
        k = min(whole("k", k), len(self) - members)
        distance, index = np.empty((len(points), k)), np.empty((len(points), k), np.int64)

        def work(rows: slice, squared: Array, slack: Array) -> None:
            # k of them are within bound + slack, so whatever looks farther than another slack is not among the nearest
            row, near = pairs(squared, kth_upper_bound(squared, k) + 2 * slack)
            exact = pad_ragged(row, self.exact(points[rows], row, near), len(squared))
            order = np.argsort(exact, axis=1, kind="stable")[:, :k]
            distance[rows] = np.take_along_axis(exact, order, axis=1)
            index[rows] = near[np.searchsorted(row, np.arange(len(squared)))[:, None] + order]

        if k:
            self.each_block(points, work, members=members)
        return distance, index

    def points(self, q: ArrayLike | None) -> Array:
        """Queries (M, D) as the bank compares them (unit length for cosine); None gives the members themselves."""
        if q is None:
            return self._points
        q = finite("q", q, ndim=2)
        if q.shape[1] != self.width:
            raise ValueError(f"q holds vectors of length {q.shape[1]}, the bank vectors of length {self.width}")
        return unit(q) if self.metric == "cosine" else q

    def each_block(self, points: Array, work: Callable[[slice, Array, Array], None], *, members: bool) -> None:
        """Squared Euclidean distances of `points` to the bank a block at a time.

        `work` gets rows, (len(rows), N) float32 to change but not to keep, and slack. The distances are good for
        choosing candidates, not as values: cancellation can take them below 0, and they are off by up to `slack`
        (len(rows),).
        With `members` a point's distance to itself is infinite.
        """
        rounding = np.finfo(np.float32).eps * (8 + np.sqrt(self.width))
        step = max(1, min(max(ROWS, BLOCK // len(self)), len(points)))
        # Made once, not for every block: fresh memory costs as much as a pass over it.
        left, squared = np.empty((step, self.width + 2), np.float32), np.empty((step, len(self)), np.float32)
        for start in range(0, len(points), step):
            rows = slice(start, min(start + step, len(points)))
            count = rows.stop - start
            centred, squares = left[:count, :-2], left[:count, -1]
            np.subtract(points[rows], self._centre, out=centred, casting="same_kind")
            left[:, -2] = 1
            np.einsum("md,md->m", centred, centred, out=squares)
            block = np.matmul(left[:count], self._left.T, out=squared[:count])
            if members:
                block[np.arange(count), np.arange(start, rows.stop)] = np.inf
            work(rows, block, rounding * (np.sqrt(squares.astype(np.float64)) + np.sqrt(self.scale)) ** 2)

    def exact(self, points: Array, row: Array, index: Array) -> Array:
        """Distances (P,) of points[row] to the members at `index`, taken directly; both (P,)."""
        squared = np.empty(len(row))
        step = max(1, CACHE // self.width)
        shape = min(step, len(row)), self.width
        ours, theirs = np.empty(shape, self._points.dtype), np.empty(shape, points.dtype)
        for start in range(0, len(row), step):
            some = slice(start, start + step)
            apart = ours[: len(row[some])]
            # "clip", as numpy copies the output of other modes once more; no index is out of range
            self._points.take(index[some], axis=0, out=apart, mode="clip")
            apart -= points.take(row[some], axis=0, out=theirs[: len(apart)], mode="clip")
            squared[some] = np.einsum("pd,pd->p", apart, apart)
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)


def bank_of(z: Any, metric: str) -> Bank:
    """The bank of normals z: vectors (N, D), or clips that know the distances between them and make their own."""
    bank: Bank = z.bank(metric) if hasattr(z, "bank") else Bank(z, metric)
    return bank


def pad_ragged(row: Array, values: Array, rows: int) -> Array:
    """Values (P,) of pairs as a table, a line for each of the rows that `row` (P,) rises through, filled with inf."""
    at = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    table = np.full((rows, at.max() + 1), np.inf)
    table[row, at] = values
    return table


def kth_upper_bound(values: Array, k: int) -> Array:
    """A bound (M,) on the k-th smallest entry of each row of (M, N); hardly more than k entries reach it.

    The row is cut into interleaved chunks; the bound is the k-th smallest of the chunks' minima.
    """
    if k == 1:  # one pass, which reads and writes nothing else
        return np.asarray(values.min(axis=1))
    lowest = values
    while lowest.shape[1] >= 2 * int(np.sqrt(k * values.shape[1])) and lowest.shape[1] >= 2 * k:
        half = lowest.shape[1] // 2  # of an odd number the last is a chunk too few, which only makes the bound wider
        lowest = np.minimum(lowest[:, :half], lowest[:, half : 2 * half])
    bound: Array = np.partition(lowest, k - 1, axis=1)[:, k - 1]
    return bound


def pairs(values: Array, limit: Array) -> tuple[Array, Array]:
    """Rows and columns (P,) of the entries of (M, N) up to their row's limit (M,), in order."""
    row, column = np.divmod(np.flatnonzero(values <= limit[:, None].astype(values.dtype)), values.shape[1])
    return row, column
