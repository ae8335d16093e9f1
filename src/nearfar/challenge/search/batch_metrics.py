"""The official metrics of many score vectors at once: the same numbers as `metrics.machine`, without a loop over them.

    scores   (C, M)   one row per configuration        counts  (M,)  how often a clip is drawn (bootstrap), or None
    returns  (C, 3)   AUC source, AUC target, pAUC; NaN for a domain without normal clips

A row is sorted once. Groups of equal scores are walked from the highest down: c normals and t anomalies of n and a take
the ROC along a straight line from (x, y) to (x + c/n, y + t/a).
"""

from __future__ import annotations

import numpy as np

from nearfar.metrics import EPS, MAX_FPR
from nearfar.support.check import Array

ENTRIES = 1 << 20  # scores that are sorted at a time


def machine_values(scores: Array, is_anomaly: Array, is_target: Array, counts: Array | None = None) -> Array:
    """(C, 3) of score vectors (C, M) with labels (M,), (M,)."""
    step = max(1, ENTRIES // scores.shape[1])
    pieces = [
        Ranking(scores[at : at + step]).values(is_anomaly, is_target, counts) for at in range(0, len(scores), step)
    ]
    return np.concatenate(pieces) if pieces else np.empty((0, 3))


class Ranking:
    """Rows of scores (C, M), sorted once for any number of draws of the clips."""

    def __init__(self, scores: Array) -> None:
        self.order = np.argsort(-scores, axis=1)
        ranked = np.take_along_axis(scores, self.order, axis=1)
        new = np.ones(scores.shape, bool)
        new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        at = np.arange(scores.shape[1])
        self.first = np.maximum.accumulate(np.where(new, at, 0), axis=1)  # where the group of equal scores begins
        last = np.ones(scores.shape, bool)
        last[:, :-1] = new[:, 1:]
        self.last = np.minimum.accumulate(np.where(last, at, len(at))[:, ::-1], axis=1)[:, ::-1]

    def values(self, is_anomaly: Array, is_target: Array, counts: Array | None = None) -> Array:
        """(C, 3) for labels (M,) of the clips, each counted `counts` (M,) times."""
        drawn = np.ones(len(is_anomaly)) if counts is None else counts.astype(np.float64)
        anomalous = (drawn * is_anomaly)[self.order]
        hits = np.cumsum(anomalous, axis=1)
        above = np.take_along_axis(hits - anomalous, self.first, axis=1)  # anomalies above each clip's group
        reached = np.take_along_axis(hits, self.last, axis=1)  # and those above it or in it
        total = hits[:, -1:]
        out = np.full((len(self.order), 3), np.nan)
        for column, target in enumerate((False, True)):
            normal = (drawn * (~is_anomaly & (is_target == target)))[self.order]
            count = normal.sum(axis=1)
            wins = (normal * (above + reached)).sum(axis=1)
            np.divide(wins, 2 * count * total[:, 0], out=out[:, column], where=count > 0)
        out[:, 2] = self._partial((drawn * ~is_anomaly)[self.order], above, reached, total)
        return out

    def _partial(self, normal: Array, above: Array, reached: Array, total: Array) -> Array:
        seen = np.cumsum(normal, axis=1)
        n = seen[:, -1:]
        start = np.take_along_axis(seen - normal, self.first, axis=1) / n
        width = np.take_along_axis(seen, self.last, axis=1) / n - start
        inside = np.clip(MAX_FPR - start, 0, width)
        slope = np.divide(reached - above, width * total, out=np.zeros_like(width), where=width > 0)
        area = above / total * inside + slope * inside**2 / 2
        is_first = self.first == np.arange(self.first.shape[1])
        lowest = MAX_FPR**2 / 2
        partial: Array = (1 + ((area * is_first).sum(axis=1) - lowest) / (MAX_FPR - lowest)) / 2
        return partial


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of a (n,) and b (n,); 0 if one of them is flat."""
    from scipy.stats import rankdata

    ranks = rankdata(np.stack([a, b]), axis=1)
    return 0.0 if (ranks.std(axis=1) == 0).any() else float(np.corrcoef(ranks)[0, 1])


def harmonic(values: Array) -> Array:
    """Harmonic mean (C,) over the other axes of (C, ...), of what is not NaN: Omega, or the overall score."""
    v = np.maximum(values.reshape(len(values), -1), EPS)
    there = ~np.isnan(v)
    total = np.where(there, 1 / np.where(there, v, 1), 0).sum(axis=1)
    return np.divide(there.sum(axis=1), total, out=np.full(len(v), np.nan), where=total > 0)
