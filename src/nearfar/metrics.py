"""The challenge's official metrics (report section 3, eq. 19; DCASE Task 2 since 2023).

For one machine and domain d:

    AUC_d   P(score of an anomaly of EITHER domain > score of a normal of domain d), ties count one half
    pAUC    area under the ROC up to false-positive rate 0.1, all clips, McClish standardised: chance is 0.5
    Omega   harmonic mean of AUC_source, AUC_target and pAUC                                              eq. 19

The official score is the harmonic mean of the 3 M numbers of M machines. Anomalies of both domains enter both AUCs
because one threshold has to serve both domains; a metric that keeps them apart is not comparable.

Conventions
    Scores (N,) are finite, one per clip, and higher is more anomalous; labels (N,) are True for an anomaly and for a
    clip of the target domain. Both kinds, normal and anomalous, must be there.
    Every metric lies in [0, 1]. A domain without normal clips has AUC NaN, and NaN does not enter a harmonic mean.
    The ROC is a straight line between two thresholds, so clips with equal scores make a slope, as in scikit-learn.
    A bootstrap draws clips with replacement within each label and domain: a clip drawn twice counts twice.

>>> scores, is_anomaly = [0.1, 0.4, 0.2, 0.9], [False, False, True, True]
>>> result = machine(scores, is_anomaly, is_target=[False, True, False, True])
>>> result.auc_source, result.auc_target, auc(scores, is_anomaly)
(1.0, 0.5, 0.75)
>>> round(overall({"fan": result}), 3) == round(result.omega, 3)
True
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, flags, integer, number

MAX_FPR = 0.1
EPS = float(np.finfo(np.float64).eps)
METRICS = ("auc_source", "auc_target", "pauc")
ENTRIES = 1 << 20  # scores that are sorted at a time


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

    def to_dict(self) -> dict[str, float | None]:
        """{name: value} of the three numbers and omega for JSON; None for NaN."""
        return _plain({**vars(self), "omega": self.omega})


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> Interval:
        """The middle 95 % of values, without those that are NaN; (NaN, NaN) if none is left."""
        values = values[~np.isnan(values)]
        return cls(*np.quantile(values, [0.025, 0.975]).tolist()) if len(values) else cls(float("nan"), float("nan"))

    def to_dict(self) -> dict[str, float | None]:
        """The ends for JSON; None for NaN."""
        return _plain(vars(self))


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(number) else number for name, number in numbers.items()}


def auc(scores: ArrayLike, is_anomaly: ArrayLike) -> float:
    """Area under the ROC curve: the share of (anomaly, normal) pairs in the right order, ties one half."""
    s, a = _labelled(scores, is_anomaly)
    return float(Ranking(s[None]).auc(~a, a)[0])


def partial_auc(scores: ArrayLike, is_anomaly: ArrayLike, max_fpr: float = MAX_FPR) -> float:
    """Area under the ROC up to a false-positive rate in (0, 1], McClish standardised to chance 0.5 and best 1."""
    number("max_fpr", max_fpr, above=0, high=1)
    s, a = _labelled(scores, is_anomaly)
    return float(Ranking(s[None]).partial_auc(~a, a, max_fpr)[0])


def roc_points(scores: ArrayLike, is_anomaly: ArrayLike) -> tuple[Array, Array]:
    """False-positive rates and true-positive rates of the ROC from (0, 0) to (1, 1), one point per distinct score."""
    s, a = _labelled(scores, is_anomaly)
    curve = Ranking(s[None]).curve(~a, a)
    points = curve.is_last[0]
    return np.r_[0, curve.fpr[0, points]], np.r_[0, curve.tpr[0, points]]


def machine(scores: ArrayLike, is_anomaly: ArrayLike, is_target: ArrayLike) -> MachineResult:
    """The official numbers of one machine.

    scores       (N,) one score per test clip
    is_anomaly   (N,) True for an anomalous clip; both kinds must be there
    is_target    (N,) True for a clip of the target domain; a domain without normal clips has AUC NaN
    """
    s, a = _labelled(scores, is_anomaly)
    return MachineResult(*machine_values(s[None], a, flags("is_target", is_target, len(s)))[0].tolist())


def overall(results: Mapping[str, MachineResult], *, arithmetic: bool = False) -> float:
    """The official score of a data set.

    results      {machine: MachineResult}, at least one
    arithmetic   take the arithmetic mean of the 3 M numbers, as in 2020, instead of the harmonic mean
    """
    if not results:
        raise ValueError("an overall score needs a machine, and there are no machines")
    values = [value for result in results.values() for value in result]
    return float(np.nanmean(values)) if arithmetic else harmonic_mean(values)


def harmonic_mean(values: ArrayLike) -> float:
    """Harmonic mean of the values that are not NaN; NaN if none is left."""
    v = np.asarray(values, np.float64)
    return float(harmonic_means(v[~np.isnan(v)], axis=0))


def harmonic_means(values: ArrayLike, axis: int) -> Array:
    """Harmonic means over an axis of the values that are not NaN; NaN where none is left.

    Each value counts as at least 2.2e-16, the spacing of float64 at 1, so that a 0 does not divide.
    """
    v = np.asarray(values, np.float64)
    present = ~np.isnan(v)
    total = np.where(present, 1 / np.where(present, np.maximum(v, EPS), 1), 0).sum(axis=axis)
    return np.divide(present.sum(axis=axis), total, out=np.full(np.shape(total), np.nan), where=total > 0)


def bootstrap(
    machines: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    *,
    rounds: int = 1000,
    seed: int = 0,
    arithmetic: bool = False,
) -> tuple[dict[str, dict[str, Interval]], Interval]:
    """Stratified bootstrap: ({machine: {metric: interval}}, interval of the overall score).

    machines     {machine: (scores (N,), is_anomaly (N,), is_target (N,))}
    rounds       how many test sets are drawn, each with as many clips of every label and domain as there are
    seed         of the draws: the same seed gives the same intervals
    arithmetic   as in `overall`
    """
    integer("rounds", rounds)
    rng = np.random.default_rng(seed)
    intervals, everything = {}, []
    for name, (scores, is_anomaly, is_target) in machines.items():
        s, a = _labelled(scores, is_anomaly)
        t = flags("is_target", is_target, len(s))
        values = machine_values(s[None], a, t, draws(rng, a, t, rounds))
        columns = dict(zip((*METRICS, "omega"), [*values.T, harmonic_means(values, axis=1)], strict=True))
        intervals[name] = {metric: Interval.of(column) for metric, column in columns.items()}
        everything += list(values.T)
    return intervals, Interval.of(np.nanmean(everything, axis=0) if arithmetic else harmonic_means(everything, axis=0))


@dataclass(frozen=True)
class Decisions:
    """Precision, recall and F1 of the alarms on some clips, each in [0, 1]; 0 where nothing is divided by nothing."""

    precision: float
    recall: float
    f1: float


def decisions(is_alarm: ArrayLike, is_anomaly: ArrayLike, is_target: ArrayLike) -> dict[str, Decisions]:
    """{"source": ..., "target": ...}: decisions on each domain's own normals and anomalies; only domains with clips.

    is_alarm     (N,) True where the system says anomalous
    is_anomaly   (N,) and is_target (N,), the labels
    """
    alarm = np.asarray(is_alarm)
    d, a, t = (
        flags(name, values, len(alarm))
        for name, values in (("is_alarm", is_alarm), ("is_anomaly", is_anomaly), ("is_target", is_target))
    )
    out = {}
    for name, here in (("source", ~t), ("target", t)):
        if here.any():
            hits, alarms, anomalies = (int((x & here).sum()) for x in (d & a, d, a))
            precision, recall = hits / max(alarms, 1), hits / max(anomalies, 1)
            out[name] = Decisions(precision, recall, 2 * hits / max(alarms + anomalies, 1))
    return out


@dataclass(frozen=True)
class Comparison:
    """System A against B on the same clips.

    difference   official score of A minus that of B
    interval     95 % of the paired bootstrap
    a_better     share of the draws in which A is better; a tie is half a draw
    """

    difference: float
    interval: Interval
    a_better: float


def compare(
    machines: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]], *, rounds: int = 1000, seed: int = 0
) -> Comparison:
    """Paired bootstrap of two systems: each draw of the clips counts for both, so what the clips share cancels.

    machines     {machine: (scores of A (N,), scores of B (N,), is_anomaly (N,), is_target (N,))}
    rounds       how many test sets are drawn, as in `bootstrap`
    seed         of the draws
    """
    integer("rounds", rounds)
    if not machines:
        raise ValueError("a comparison needs a machine, and there are no machines")
    rng = np.random.default_rng(seed)
    numbers: list[list[Array]] = [[], []]  # of A and B, for each machine (1 + rounds, 3): all clips, then the draws
    for a_scores, b_scores, is_anomaly, is_target in machines.values():
        _, anomalous = _labelled(a_scores, is_anomaly)
        target = flags("is_target", is_target, len(anomalous))
        counts = np.concatenate([np.ones((1, len(target)), int), draws(rng, anomalous, target, rounds)])
        for mine, scores in zip(numbers, (a_scores, b_scores), strict=True):
            s, _ = _labelled(scores, is_anomaly)
            mine.append(machine_values(s[None], anomalous, target, counts))
    a, b = (harmonic_means(np.concatenate(each, axis=1), axis=1) for each in numbers)
    drawn = (a - b)[1:]
    better = float(np.mean((drawn > 0) + (drawn == 0) / 2))
    return Comparison(float(a[0] - b[0]), Interval.of(drawn), better)


def draws(rng: np.random.Generator, is_anomaly: Array, is_target: Array, rounds: int) -> Array:
    """How often each clip is drawn in each round (rounds, M), with replacement within its label and domain."""
    clips = len(is_anomaly)
    offsets = clips * np.arange(rounds)[:, None]
    counts = np.zeros(rounds * clips, int)
    for anomalous in (False, True):
        for target in (False, True):
            stratum = np.flatnonzero((is_anomaly == anomalous) & (is_target == target))
            if len(stratum):
                drawn = stratum[rng.integers(0, len(stratum), (rounds, len(stratum)))]
                counts += np.bincount((offsets + drawn).ravel(), minlength=len(counts))
    return counts.reshape(rounds, clips)


def machine_values(scores: Array, is_anomaly: Array, is_target: Array, counts: Array | None = None) -> Array:
    """AUC source, AUC target and pAUC (C, 3) of many score vectors, or of one under many draws of its clips.

    scores       (C, M) one row per system, or (1, M) with `counts` (C, M)
    is_anomaly   (M,) and is_target (M,), the labels of the clips
    counts       how often each clip counts: (M,), or a row for each draw; None for once
    """
    rows = len(scores) if counts is None or counts.ndim == 1 else len(counts)
    step = max(1, ENTRIES // scores.shape[1])
    out = np.empty((rows, 3))
    for at in range(0, rows, step):
        some = slice(at, at + step)
        ranking = Ranking(scores[some] if len(scores) > 1 else scores)
        drawn = counts if counts is None or counts.ndim == 1 else counts[some]
        out[some] = ranking.values(is_anomaly, is_target, drawn)
    return out


class Ranking:
    """Score vectors (C, M) of the same clips, sorted once for any labels and any draw of the clips.

    Weights say how often a clip counts: (M,) for all rows, or (R, M) where the ranking has one row. A method that takes
    the weights of the normals and of the anomalies returns one number per row.
    """

    def __init__(self, scores: Array) -> None:
        self.order = np.argsort(-scores, axis=1)  # from the highest score down
        ranked = np.take_along_axis(scores, self.order, axis=1)
        is_first = np.ones(scores.shape, bool)
        is_first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        self.is_last = np.ones(scores.shape, bool)
        self.is_last[:, :-1] = is_first[:, 1:]
        at = np.arange(scores.shape[1])
        # where the group of clips with the same score begins and ends
        self.first = np.maximum.accumulate(np.where(is_first, at, 0), axis=1)
        self.last = np.minimum.accumulate(np.where(self.is_last, at, len(at))[:, ::-1], axis=1)[:, ::-1]

    def values(self, is_anomaly: Array, is_target: Array, counts: Array | None = None) -> Array:
        """AUC source, AUC target and pAUC (C, 3); NaN for a domain without normals or where no anomaly counts."""
        weights = np.ones(len(is_anomaly)) if counts is None else counts
        anomalous = weights * is_anomaly
        aucs = [self.auc(weights * (~is_anomaly & (is_target == target)), anomalous) for target in (False, True)]
        return np.stack([*aucs, self.partial_auc(weights * ~is_anomaly, anomalous)], axis=1)

    def auc(self, normal: Array, anomalous: Array) -> Array:
        """The share of (anomaly, normal) pairs in the right order; a tie is half a pair."""
        normal, anomalous = self._ranked(normal), self._ranked(anomalous)
        hits = np.cumsum(anomalous, axis=1)
        above, reached = self._at(hits - anomalous, self.first), self._at(hits, self.last)
        wins, possible = (normal * (above + reached)).sum(axis=1), 2 * normal.sum(axis=1) * hits[:, -1]
        return np.divide(wins, possible, out=np.full(len(wins), np.nan), where=possible > 0)

    def curve(self, normal: Array, anomalous: Array) -> Curve:
        """The ROC at every clip, from the highest score down."""
        normal, anomalous = self._ranked(normal), self._ranked(anomalous)
        seen, hits = np.cumsum(normal, axis=1), np.cumsum(anomalous, axis=1)
        above = self._at(hits - anomalous, self.first)
        n, a = seen[:, -1:], hits[:, -1:]
        with np.errstate(invalid="ignore"):
            fpr, tpr, tpr_above = (1 - (total - x) / total for total, x in ((n, seen), (a, hits), (a, above)))
        steps = self.is_last & (seen > self._at(seen - normal, self.first))
        return Curve(fpr, tpr, tpr_above, self.is_last, steps)

    def partial_auc(self, normal: Array, anomalous: Array, max_fpr: float = MAX_FPR) -> Array:
        """Area under the ROC up to `max_fpr`, McClish standardised."""
        curve = self.curve(normal, anomalous)
        # The curve moves to the right in steps: `inside` of them end at or before max_fpr, the next one is cut there.
        inside = (curve.steps & (curve.fpr <= max_fpr) & (curve.fpr < 1)).sum(axis=1)
        area = np.full(len(inside), np.nan)
        possible = ~np.isnan(curve.fpr[:, -1]) & ~np.isnan(curve.tpr[:, -1])
        for count in np.unique(inside[possible]):
            rows = np.flatnonzero(possible & (inside == count))
            area[rows] = curve.area(rows, int(count), max_fpr)
        lowest, highest = max_fpr**2 / 2, max_fpr
        return np.asarray((1 + (area - lowest) / (highest - lowest)) / 2)

    def _ranked(self, weights: Array) -> Array:
        return np.take_along_axis(np.atleast_2d(weights).astype(np.float64), self.order, axis=1)

    @staticmethod
    def _at(values: Array, index: Array) -> Array:
        return np.take_along_axis(values, index, axis=1)


@dataclass(frozen=True)
class Curve:
    """ROCs (C, M) as the threshold falls from clip to clip; rates are final at the last clip of a score (`is_last`)."""

    fpr: Array
    tpr: Array
    tpr_above: Array  # of the clips with higher scores alone
    is_last: Array
    steps: Array  # the last clip of a score that at least one normal has

    def area(self, rows: Array, count: int, max_fpr: float) -> Array:
        """Areas up to `max_fpr` of rows that have `count` whole steps before it."""
        steps = self.steps[rows]
        steps &= np.cumsum(steps, axis=1) <= count + 1
        fpr, tpr, tpr_above = (x[rows][steps].reshape(len(rows), -1) for x in (self.fpr, self.tpr, self.tpr_above))
        fpr, tpr = (np.concatenate([np.zeros((len(rows), 1)), x], axis=1) for x in (fpr, tpr))
        start, width = fpr[:, -2:-1], fpr[:, -1:] - fpr[:, -2:-1]
        end = (tpr[:, -1:] - tpr_above[:, -1:]) / width * (max_fpr - start) + tpr_above[:, -1:]
        # a score of normals is reached by a step up, and passed along a slope
        x = np.concatenate([np.repeat(fpr[:, :-1], 2, axis=1), np.full((len(rows), 1), max_fpr)], axis=1)
        y = np.concatenate([np.stack([tpr[:, :-1], tpr_above], axis=2).reshape(len(rows), -1), end], axis=1)
        return np.asarray((np.diff(x)[:, None] @ (y[:, 1:] + y[:, :-1])[:, :, None])[:, 0, 0] / 2)


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of a (N,) and b (N,); 0 if all values of one of them are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(np.stack([a, b]), axis=1)
    return 0.0 if (ranks.std(axis=1) == 0).any() else float(np.corrcoef(ranks)[0, 1])


def _labelled(scores: ArrayLike, is_anomaly: ArrayLike) -> tuple[Array, Array]:
    s = finite("scores", scores, ndim=1).astype(np.float64)
    a = flags("is_anomaly", is_anomaly, len(s))
    if a.all() or not a.any():
        kind = "normal" if a.all() else "anomalous"
        raise ValueError(f"there are no {kind} clips among the {len(s)}: AUC compares normal with anomalous ones")
    return s, a
