"""Stretches: normals that were recorded one after the other and sound alike, as those of one session do.

Names, folders and times often tell no session, but files are numbered in the order in which they were recorded. The
levels of the bands at both microphones (`audio.checks.row_of`), each scaled, are a point for each normal. Along the
AXES first principal axes each coordinate is divided by the fourth root of its variance: a gain shifts all bands and
would hide everything else, and if all axes counted alike, chance would.

1. Does the order tell anything? It does if the sum of squares of the steps from point to point is smaller than in each
   of ORDERS random orders.
2. If so: Ward clusters of neighbours, as many as give the highest index of Calinski and Harabasz (scatter between
   clusters to scatter within, each per degree of freedom), at most one for two points. Each is asked 1 again.
3. The means of the clusters are points too: once more from 1. So pieces of a recording become recordings, and these
   become sessions.

Conventions
    levels (N, D)   dB, in the order of recording     labels (N,)   int from 1, or 0 for all: the order tells nothing

>>> rng = np.random.default_rng(0)
>>> days = np.repeat(rng.normal(size=(3, 8)), 5, axis=0)
>>> stretches(3 * days + rng.normal(size=(15, 8))).tolist()
[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]
>>> int(stretches(rng.normal(size=(15, 8))).max())
0

References: von Neumann 1941 (mean square successive difference); Calinski and Harabasz 1974.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np

from nearfar.gaussian import scale_of
from nearfar.support.check import Array

AXES = 20
ROUNDS = 2  # pieces to recordings, recordings to sessions; a third makes two or three stretches of ten sessions
ORDERS = 199  # random orders: one in 200 is smoother than all of them by chance
FEWEST = 6  # points: fewer have fewer than ORDERS orders
FLAT = 1e-12  # share of the scatter below which what is left within clusters is rounding


def stretches(levels: Array) -> Array:
    """The stretch (N,) of each normal from its levels (N, D); see the module."""
    x = levels - levels.mean(axis=0)
    axes, deviations, _ = np.linalg.svd(x / scale_of(x.std(axis=0)), full_matrices=False)
    points = axes[:, :AXES] * np.sqrt(deviations[:AXES])
    labels, place = np.zeros(len(levels), int), np.arange(len(levels))  # place: of each normal among the points
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        parts = _split(points, rng)
        if len(parts) == 1:
            break
        place = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[place]
        labels = place + 1
        points = np.stack([part.mean(axis=0) for part in parts])
    return labels


def _split(points: Array, rng: np.random.Generator) -> list[Array]:
    """Points (N, D), cut into clusters of neighbours until the order within each tells nothing."""
    if len(points) < FEWEST or not _in_order(points, rng):
        return [points]
    merged = _neighbours(points)
    starts = np.sort(merged[len(merged) + 1 - _clusters(merged, len(points)) :, 0].astype(int))
    return [part for cluster in np.split(points, starts) for part in _split(cluster, rng)]


def _in_order(points: Array, rng: np.random.Generator) -> bool:
    """Whether each of ORDERS random orders of points (N, D) has larger steps."""

    def steps(ordered: Array) -> float:
        return float((np.diff(ordered, axis=0) ** 2).sum())

    own = steps(points)
    return all(steps(points[rng.permutation(len(points))]) > own for _ in range(ORDERS))


def _neighbours(points: Array) -> Array:
    """Ward's merges of neighbouring clusters (N - 1, 2), in order: the first point of the later one, the scatter."""
    n = len(points)
    mean, size = points.copy(), np.ones(n)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))
    changed = [0] * n  # merges into the cluster that begins at each point; -1: it is part of an earlier one

    def merge(a: int, b: int) -> tuple[float, int, int, int, int]:
        gap = mean[a] - mean[b]
        return float(size[a] * size[b] / (size[a] + size[b]) * (gap @ gap)), a, b, changed[a], changed[b]

    waiting = [merge(i, i + 1) for i in range(n - 1)]
    heapify(waiting)
    merged = []
    while waiting:
        scatter, a, b, of_a, of_b = heappop(waiting)
        if (changed[a], changed[b]) != (of_a, of_b):
            continue
        merged.append((b, scatter))
        mean[a] = (size[a] * mean[a] + size[b] * mean[b]) / (size[a] + size[b])
        size[a] += size[b]
        changed[a], changed[b], after[a] = changed[a] + 1, -1, after[b]
        if after[a] < n:
            before[after[a]] = a
            heappush(waiting, merge(a, after[a]))
        if before[a] >= 0:
            heappush(waiting, merge(before[a], a))
    return np.array(merged)


def _clusters(merged: Array, n: int) -> int:
    """The number of clusters of n points with the highest index of Calinski and Harabasz, from 2 to n / 2."""
    count = np.arange(2, n // 2 + 1)
    within = np.r_[0, merged[:, 1].cumsum()][n - count]
    total = merged[:, 1].sum()
    index = (total - within) / (count - 1) / np.maximum(within / (n - count), FLAT * total)
    return int(count[index.argmax()])
