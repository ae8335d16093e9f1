"""The challenge's official metrics (report section 3, eq. 19; DCASE Task 2 since 2023).

For one machine and domain d:

    AUC_d   P(score of an anomaly of EITHER domain > score of a normal of domain d), ties count one half
    pAUC    area under the ROC up to false-positive rate 0.1, all clips, McClish standardised: chance is 0.5
    Omega   harmonic mean of AUC_source, AUC_target and pAUC                                              eq. 19

The official score is the harmonic mean of the 3 M numbers of M machines. Anomalies of both domains enter both AUCs
because one threshold has to serve both domains; a metric that keeps them apart is not comparable. All in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, flags, number, whole

MAX_FPR = 0.1
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class MachineResult:
    """The three official numbers of one machine, each in [0, 1]; NaN for a domain without normal test clips."""

    auc_source: float
    auc_target: float
    pauc: float

    @property
    def omega(self) -> float:
        """Harmonic mean of the numbers that exist (eq. 19)."""
        return harmonic_mean(list(self))

    def __iter__(self) -> Iterator[float]:
        return iter((self.auc_source, self.auc_target, self.pauc))


def auc(scores: ArrayLike, is_anomaly: ArrayLike) -> float:
    """Area under the ROC curve: the share of (anomaly, normal) pairs in the right order, ties one half."""
    s, a = _labelled(scores, is_anomaly)
    return float(_auc(np.sort(s[~a])[None], np.sort(s[a])[None])[0])


def partial_auc(scores: ArrayLike, is_anomaly: ArrayLike, max_fpr: float = MAX_FPR) -> float:
    """Area under the ROC up to `max_fpr`, McClish standardised to chance 0.5 and best 1."""
    number("max_fpr", max_fpr, above=0, high=1)
    s, a = _labelled(scores, is_anomaly)
    return float(_partial_auc(np.sort(s[~a])[None], np.sort(s[a])[None], max_fpr)[0])


def machine(scores: ArrayLike, is_anomaly: ArrayLike, is_target: ArrayLike) -> MachineResult:
    """The official numbers of one machine from clips' scores (N,) and labels (N,), (N,).

    Raises ValueError without anomalies or without normals. A domain without normal clips has AUC NaN.
    """
    s, a = _labelled(scores, is_anomaly)
    t = flags("is_target", is_target, len(s))
    values = _machine_values(s[~a][None], t[~a][None], s[a][None])
    return MachineResult(*(float(v[0]) for v in values))


def overall(results: Mapping[str, MachineResult], *, arithmetic: bool = False) -> float:
    """The official score: harmonic mean of the 3 M numbers of {machine: MachineResult} (arithmetic: as in 2020)."""
    if not results:
        raise ValueError("there are no machines to take an overall score of")
    values = [value for result in results.values() for value in result]
    return float(np.nanmean(values)) if arithmetic else harmonic_mean(values)


def harmonic_mean(values: ArrayLike) -> float:
    """Harmonic mean of the values that are not NaN, each at least the smallest float (a 0 does not divide)."""
    v = np.asarray(values, np.float64)
    v = np.maximum(v[~np.isnan(v)], EPS)
    return float(len(v) / np.sum(1 / v)) if len(v) else float("nan")


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval."""

    low: float
    high: float


def bootstrap(
    machines: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    *,
    rounds: int = 1000,
    seed: int = 0,
    arithmetic: bool = False,
) -> tuple[dict[str, dict[str, Interval]], Interval]:
    """Stratified bootstrap: ({machine: {metric: interval}}, interval of the overall score).

    `machines` maps a name to (scores, is_anomaly, is_target). Clips are drawn with replacement within each machine,
    label and domain, so that every round has the composition of the test set.
    """
    whole("rounds", rounds)
    rng = np.random.default_rng(seed)
    intervals, everything = {}, []
    for name, (scores, is_anomaly, is_target) in machines.items():
        s, a = _labelled(scores, is_anomaly)
        t = flags("is_target", is_target, len(s))
        normal = [_draw(rng, s[~a & (t == d)], rounds) for d in (False, True)]
        domains = np.concatenate([np.full(n.shape, d) for d, n in zip((False, True), normal, strict=True)], axis=1)
        anomalous = np.concatenate([_draw(rng, s[a & (t == d)], rounds) for d in (False, True)], axis=1)
        values = _machine_values(np.concatenate(normal, axis=1), domains, anomalous)
        everything += values
        omega = _harmonic(values)
        intervals[name] = {
            key: _interval(v)
            for key, v in zip(("auc_source", "auc_target", "pauc", "omega"), [*values, omega], strict=True)
        }
    return intervals, _interval(np.nanmean(everything, axis=0) if arithmetic else _harmonic(everything))


def _labelled(scores: ArrayLike, is_anomaly: ArrayLike) -> tuple[Array, Array]:
    s = finite("scores", scores, ndim=1).astype(np.float64)
    a = flags("is_anomaly", is_anomaly, len(s))
    if a.all() or not a.any():
        kind = "normal" if a.all() else "anomalous"
        raise ValueError(f"there are no {kind} clips among the {len(s)}: AUC compares normal with anomalous ones")
    return s, a


def _machine_values(normal: Array, domains: Array, anomalous: Array) -> list[Array]:
    # Rows are bootstrap rounds; `domains` holds the same composition in every row.
    anomalous = np.sort(anomalous, axis=1)
    out = []
    for d in (False, True):
        columns = domains[0] == d
        mine = np.sort(normal[:, columns], axis=1)
        out.append(_auc(mine, anomalous) if columns.any() else np.full(len(normal), np.nan))
    return [*out, _partial_auc(np.sort(normal, axis=1), anomalous, MAX_FPR)]


def _auc(normal: Array, anomalous: Array) -> Array:
    # Both sorted along axis 1. For each normal: anomalies above it, plus half of those that tie.
    wins = np.empty(len(normal))
    for i, (n, a) in enumerate(zip(normal, anomalous, strict=True)):
        wins[i] = 2 * a.size * n.size - (np.searchsorted(a, n, "left") + np.searchsorted(a, n, "right")).sum()
    return np.asarray(wins / (2 * normal.shape[1] * anomalous.shape[1]))


def _partial_auc(normal: Array, anomalous: Array, max_fpr: float) -> Array:
    # The ROC is a straight line between thresholds, so ties become slopes, as in scikit-learn.
    lowest, highest = max_fpr**2 / 2, max_fpr
    out = np.empty(len(normal))
    for i, (n, a) in enumerate(zip(normal, anomalous, strict=True)):
        thresholds = np.unique(n)[::-1]
        fpr = np.r_[0, 1 - np.searchsorted(n, thresholds, "left") / n.size]
        tpr_above = 1 - np.searchsorted(a, thresholds, "right") / a.size  # on reaching a normal's score: a step up
        tpr_at = 1 - np.searchsorted(a, thresholds, "left") / a.size  # after it, ties included
        x = np.r_[0, np.repeat(fpr, 2)[1:-1]]
        y = np.r_[0, np.stack([tpr_above, tpr_at], axis=1).ravel()]
        keep = x <= max_fpr
        end = np.interp(max_fpr, *_last_before(x, y, max_fpr))
        xs, ys = np.r_[x[keep], max_fpr], np.r_[y[keep], end]
        area = float(np.diff(xs) @ (ys[1:] + ys[:-1]) / 2)
        out[i] = (1 + (area - lowest) / (highest - lowest)) / 2
    return out


def _last_before(x: Array, y: Array, limit: float) -> tuple[Array, Array]:
    stop = int(np.searchsorted(x, limit, "right"))
    points = slice(stop - 1, min(stop + 1, len(x)))
    return x[points], y[points]


def _draw(rng: np.random.Generator, values: Array, rounds: int) -> Array:
    return values[rng.integers(0, len(values), (rounds, len(values)))] if len(values) else np.empty((rounds, 0))


def _harmonic(rows: list[Array]) -> Array:
    v = np.maximum(np.stack(rows), EPS)  # NaN rows (a missing domain) drop out of both sums
    return np.asarray((~np.isnan(v)).sum(axis=0) / np.nansum(1 / v, axis=0))


def _interval(values: Array) -> Interval:
    if np.isnan(values).all():
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
