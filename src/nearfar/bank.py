"""Memory bank: which normal recordings are nearest, exactly (report section 2.2, eq. 1).

    z  (N, D)   embeddings of the normals      q  (M, D)   queries
    euclidean   delta = |q - r|                cosine      delta = 1 - cos(q, r) = |q/|q| - r/|r||^2 / 2

The search is a blocked matrix product in float32 on vectors centred on the bank, which names a few candidates; their
distances are then taken directly, and where rounding could hide a nearer member, everything within its reach is. So
no N x M x D array ever exists, a duplicate is at distance 0, and a distance does not depend on the other queries of
the batch. Knows nothing of audio, domains or thresholds.
A zero vector has no direction: by the formula above its cosine distance is 0 to another one, 0.5 to everything else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from nearfar.check import Array, finite, one_of, unit, whole

METRICS = ("cosine", "euclidean")
BLOCK, ROWS = 1 << 24, 256  # entries of one block of the distance matrix (64 MiB), but at least so many rows
SPARE = 2  # candidates beyond k that are measured exactly: float32 may misplace neighbours that nearly tie
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
        self._centre = self._points.mean(axis=0, dtype=np.float64)
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
        for rows, squared, slack in self.blocks(points, members=members):
            found = smallest(squared, min(k + SPARE, len(self) - members))
            exact = self.exact(points[rows], found)
            order = np.lexsort((found, exact), axis=1)[:, :k]
            distance[rows], index[rows] = (np.take_along_axis(a, order, axis=1) for a in (exact, found))
            if found.shape[1] == len(self) - members:
                continue
            farthest = distance[rows, -1]
            reach = (2 * farthest if self.metric == "cosine" else farthest**2) + slack
            for row in np.flatnonzero(np.take_along_axis(squared, found[:, -1:], axis=1)[:, 0] <= reach):
                near = np.flatnonzero(squared[row] <= reach[row])
                at = rows.start + row
                exact = self.exact(points[at : at + 1], near[None])[0]
                order = np.lexsort((near, exact))[:k]
                distance[at], index[at] = exact[order], near[order]
        return distance, index

    def points(self, q: ArrayLike | None) -> Array:
        """Queries (M, D) as the bank compares them (unit length for cosine); None gives the members themselves."""
        if q is None:
            return self._points
        q = finite("q", q, ndim=2)
        if q.shape[1] != self.width:
            raise ValueError(f"q holds vectors of length {q.shape[1]}, the bank vectors of length {self.width}")
        return unit(q) if self.metric == "cosine" else q

    def blocks(self, points: Array, *, members: bool) -> Iterator[tuple[slice, Array, Array]]:
        """Squared Euclidean distances of `points` to the bank a block at a time: rows, (len(rows), N) float32, slack.

        Good for choosing candidates, not as values: cancellation can take them below 0, and they are off by up to
        `slack` (len(rows),). With `members` a point's distance to itself is infinite.
        """
        rounding = np.finfo(np.float32).eps * (8 + np.sqrt(self.width))
        step = max(ROWS, BLOCK // len(self))
        for start in range(0, len(points), step):
            rows = slice(start, min(start + step, len(points)))
            centred = (points[rows] - self._centre).astype(np.float32)
            squares = np.einsum("md,md->m", centred, centred)[:, None]
            squared = np.concatenate([centred, np.ones_like(squares), squares], axis=1) @ self._left.T
            if members:
                squared[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf
            yield rows, squared, rounding * (np.sqrt(squares[:, 0].astype(np.float64)) + np.sqrt(self.scale)) ** 2

    def exact(self, points: Array, index: Array) -> Array:
        """Distances (M, k) of points (M, D) to the members at `index` (M, k), taken directly."""
        squared = np.empty(index.shape)
        step = max(1, CACHE // (index.shape[1] * self.width))
        for start in range(0, len(points), step):
            rows = slice(start, start + step)
            apart = self._points[index[rows]]  # (rows, k, D), a copy
            apart -= points[rows, None, :]
            squared[rows] = np.einsum("mkd,mkd->mk", apart, apart)
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)


def smallest(values: Array, k: int) -> Array:
    """Columns (M, k) of the k smallest entries of each row of (M, N), ascending; ties go to the lower column.

    The row is cut into interleaved chunks. The k-th smallest of the chunks' minima bounds the k-th smallest entry, and
    hardly more than k entries lie below it: one pass finds them, and only they are sorted.
    """
    rows, columns = values.shape
    size = int(np.sqrt(columns / k))
    if size < 3:
        return np.argsort(values, axis=1, kind="stable")[:, :k]
    count = columns // size
    lowest = values[:, : size * count].reshape(rows, size, count).min(axis=1)
    bound = np.partition(lowest, k - 1, axis=1)[:, k - 1 : k]
    flat = np.flatnonzero(values <= bound)
    row, column = np.divmod(flat, columns)
    crowded = np.flatnonzero(np.bincount(row, minlength=rows) > size * k)  # rows full of ties
    if len(crowded):
        lonely = ~np.isin(row, crowded)
        flat, row, column = flat[lonely], row[lonely], column[lonely]
    order = np.lexsort((values.ravel()[flat], row))  # stable, so equal values stay in column order
    first = np.searchsorted(row, np.arange(rows))
    first[crowded] = 0
    found = column[order[first[:, None] + np.arange(k)]] if len(flat) else np.empty((rows, k), np.int64)
    if len(crowded):
        found[crowded] = np.argsort(values[crowded], axis=1, kind="stable")[:, :k]
    return found
