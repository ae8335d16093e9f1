"""Choosing a configuration, and what the choice is worth (the best of thousands on one test set is partly luck).

    best          highest official score on the data at hand, which chose it
    nested        choose on all machines but one, take its numbers; official score of the 3 M numbers so taken
    optimism      best - nested
    interval      95 % bootstrap of the chosen configuration, clips drawn by machine, label and domain
    procedure     95 % of what choosing gives on new clips: choose among the `TOP` best on a draw, score what is left
    label-free    rules that see normals alone, each with its rank correlation and its regret (best - what it picks)

Rules, each higher for a better configuration, averaged over machines (one whose normals all score alike comes last, and
does not count in the correlation: that it hears nothing is no rule's merit):

    pseudo        AUC of the normals' leave-one-out scores against other machines' normals
    calibration   - |mean of source - mean of target| / sd of the leave-one-out scores
    tail          - (q99 - q50) / (q50 - q05): no normal stands out
    together      mean rank by these three: the order without labels
    stable        rank correlation of the normals' distances to two halves of the bank

Each of the three sees one thing that the official score punishes and is blind to the others: other machines are easier
to tell than faults, a deaf system is calibrated and has no tail. Their mean rank needs all of them, so it decides. A
system is stable too when it hears well how one normal differs from another, which is no fault: on synthetic machines
the rule ran against the labels (-0.1 and -0.4; together +0.4 and +0.3, but chosen on the same sets), so it is told and
does not decide. How many standard deviations other machines' normals lie above ours, in place of `pseudo`, which is 1
for many, was tried on three sets: together +0.6 for +0.5 on one, no better on another, worse on the third.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nearfar.challenge.search.batch_metrics import Ranking, harmonic, spearman
from nearfar.challenge.search.records import Clips, Records
from nearfar.support.check import Array, whole

DECIDING = ("pseudo", "calibration", "tail")  # rules that make up "together"
TOP = 100  # configurations that a bootstrap of the procedure chooses among


@dataclass(frozen=True)
class Rule:
    """A label-free rule: the row it picks, its score, Spearman's correlation with the labelled ranking, its regret.

    Without labels, score, correlation and regret are NaN.
    """

    row: int
    overall: float
    spearman: float
    regret: float


@dataclass(frozen=True)
class Selection:
    """The best row with what it is worth; numbers in [0, 1], NaN where one machine is all there is."""

    tried: int
    row: int
    best: float
    nested: float
    interval: tuple[float, float]
    procedure: tuple[float, float]
    rules: Mapping[str, Rule]

    @property
    def optimism(self) -> float:
        """How much of the best score the choice itself has made."""
        return self.best - self.nested

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"optimism": self.optimism}


def select(records: Records, *, rounds: int = 200, seed: int = 0) -> Selection:
    """The honest table of a search with labels; ValueError without."""
    if not records.labelled:
        raise ValueError("not every test clip is labelled, so there is no best by labels: choose label-free")
    row = int(np.nanargmax(records.overall))
    own, procedure = bootstrap(records, row, rounds=rounds, seed=seed)
    return Selection(
        len(records), row, float(records.overall[row]), nested(records.numbers), own, procedure, label_free(records)
    )


def nested(numbers: Array) -> float:
    """Official score of held-out numbers: each machine's from the configuration that is best on the others.

    `numbers` (C, machines, 3); NaN for one machine, which leaves nothing to choose on.
    """
    machines = numbers.shape[1]
    if machines < 2:
        return float("nan")
    chosen = [int(np.nanargmax(harmonic(np.delete(numbers, m, axis=1)))) for m in range(machines)]
    return float(harmonic(np.stack([numbers[row, m] for m, row in enumerate(chosen)])[None])[0])


def label_free(records: Records) -> dict[str, Rule]:
    """What each rule picks, and how well it agrees with the labels if there are any."""
    return {name: _rule(mark, records.overall) for name, mark in _marks(records).items()}


def marks(records: Records) -> Array:
    """What the rules together, or the only one that can be taken, say of each configuration (C,): higher is better."""
    each = _marks(records)
    return next(each[name] for name in ("together", *RULES) if name in each)


def _marks(records: Records) -> dict[str, Array]:
    each = {name: rule(records) for name, rule in RULES.items()}
    mean, sd = records.statistic("mean"), records.statistic("sd")
    blind = (sd <= 1e-6 * np.abs(mean)).any(axis=1) | ~(sd > 0).all(axis=1)
    each = {name: np.where(blind, -np.inf, mark) for name, mark in each.items() if np.isfinite(mark).all()}
    ranks = [_ranks(each[name]) for name in DECIDING if name in each]
    if len(ranks) > 1:
        each["together"] = np.where(blind, -np.inf, np.mean(ranks, axis=0))
    return each


def bootstrap(records: Records, row: int, *, rounds: int, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of a configuration and of the procedure; see the module."""
    whole("rounds", rounds)
    rng = np.random.default_rng(seed)
    order = np.argsort(-np.nan_to_num(records.overall))[:TOP]
    rows = np.r_[row, order]
    tables = [(Ranking(records.scores[m][rows]), *_labels(clips)) for m, clips in records.clips.items()]
    own, fresh = np.empty(rounds), np.empty(rounds)
    for i in range(rounds):
        draws = [_draw(rng, anomalous, target) for _, anomalous, target in tables]
        drawn = _overall(tables, draws)
        own[i] = drawn[0]
        best = 1 + int(np.nanargmax(drawn[1:]))
        fresh[i] = _overall(tables, [(draw == 0).astype(float) for draw in draws])[best]
    return _middle(own), _middle(fresh)


def _overall(tables: Sequence[tuple[Ranking, Array, Array]], draws: Sequence[Array]) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may leave a domain out
        each = [table.values(a, t, draw) for (table, a, t), draw in zip(tables, draws, strict=True)]
        return harmonic(np.stack(each, axis=1))


def _draw(rng: np.random.Generator, anomalous: Array, target: Array) -> Array:
    counts = np.zeros(len(anomalous))
    for a in (False, True):
        for t in (False, True):
            stratum = np.flatnonzero((anomalous == a) & (target == t))
            if len(stratum):
                counts += np.bincount(rng.choice(stratum, len(stratum)), minlength=len(counts))
    return counts


def _labels(clips: Clips) -> tuple[Array, Array]:
    return np.array(clips.is_anomaly, bool), np.array(clips.is_target, bool)


def _middle(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _rule(mark: Array, overall: Array) -> Rule:
    row = int(np.argmax(mark))
    if np.isnan(overall).any():
        return Rule(row, float("nan"), float("nan"), float("nan"))
    hears = np.isfinite(mark)  # what hears nothing is known without a rule, and would agree with any of them
    agreement = spearman(mark[hears], overall[hears]) if hears.any() else 0.0
    return Rule(row, float(overall[row]), agreement, float(overall.max() - overall[row]))


def _ranks(values: Array) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values))


def _calibration(records: Records) -> Array:
    apart = np.abs(records.statistic("source_mean") - records.statistic("target_mean"))
    return np.asarray(-(apart / np.maximum(records.statistic("sd"), 1e-12)).mean(axis=1))


RULES: dict[str, Callable[[Records], Array]] = {
    "pseudo": lambda records: np.asarray(records.statistic("pseudo_auc").mean(axis=1)),
    "calibration": _calibration,
    "tail": lambda records: np.asarray(-records.statistic("tail").mean(axis=1)),
    "stable": lambda records: np.asarray(records.statistic("stable").mean(axis=1)),
}
