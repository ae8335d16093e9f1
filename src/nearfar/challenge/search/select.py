"""Choosing a configuration, and what the choice is worth (the best of thousands on one test set is partly luck).

    best          highest official score on the data at hand, which are the data it was chosen on
    nested        the official score of numbers that each machine takes from the configuration best on all the others
    optimism      best - nested
    interval      95 % bootstrap of the chosen configuration, clips drawn by machine, label and domain
    procedure     95 % bootstrap of choosing among the `TOP` best on the drawn clips, scored on the clips left out
    label-free    rules that use normals alone, each with its rank correlation and its regret (best - its pick)

Rules are averaged over machines, and a higher value is better. A configuration is blind if it gives all normals of one
machine the same score: it comes last by every rule, and no correlation counts it.

    pseudo        AUC of the normals' leave-one-out scores against other machines' normals
    calibration   - |mean of source - mean of target| / sd of the leave-one-out scores
    tail          - (q99 - q50) / (q50 - q05): no normal stands out
    together      mean rank by these three: the order without labels
    stable        rank correlation of the normals' distances to two halves of the bank
    zmin          chooses no back end: the minimum over all of them of the scores in standard deviations of the
                  normals, at the setting and view that `together` picks (arXiv 2606.19269)

`pseudo`, `calibration` and `tail` each measure one thing that the official score punishes, and miss the others: other
machines are easier to tell apart than faults, and a blind configuration is calibrated and has no tail. So their mean
rank decides. `stable` is reported and does not decide: docs/decisions.md gives the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np

from nearfar.challenge.search.records import Records
from nearfar.challenge.search.space import Setting
from nearfar.metrics import Interval, Ranking, draws, harmonic_mean, harmonic_means, machine_values, spearman
from nearfar.recipe import Recipe
from nearfar.support.check import Array, integer

DECIDING = ("pseudo", "calibration", "tail")  # rules that make up "together"
TOP = 100  # configurations that a bootstrap of the procedure chooses among


@dataclass(frozen=True)
class Rule:
    """A label-free rule: the row it picks, its score, Spearman's correlation with the labelled ranking, its regret.

    `parts` is the number of configurations that it combines: 1, but for zmin, which ranks none. Without labels, score,
    correlation and regret are NaN.
    """

    row: int
    overall: float
    spearman: float
    regret: float
    parts: int = 1


@dataclass(frozen=True)
class Selection:
    """The best row with what it is worth; numbers in [0, 1], NaN where there is only one machine."""

    tried: int
    row: int
    best: float
    nested: float
    interval: Interval
    procedure: Interval
    rules: Mapping[str, Rule]

    @property
    def optimism(self) -> float:
        """How much of the best score the choice itself has made."""
        return self.best - self.nested

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        intervals = {"interval": astuple(self.interval), "procedure": astuple(self.procedure)}
        return asdict(self) | intervals | {"optimism": self.optimism}


def select(records: Records, *, rounds: int = 200, seed: int = 0) -> Selection:
    """The best configuration by labels and what it is worth; ValueError without labels."""
    if not records.labelled:
        raise ValueError("not every test clip is labelled, so there is no best by labels: choose label-free")
    row = int(np.nanargmax(records.overall))
    interval, procedure = bootstrap(records, row, rounds=rounds, seed=seed)
    nested = leave_one_machine_out(records.numbers)
    return Selection(len(records), row, float(records.overall[row]), nested, interval, procedure, label_free(records))


def leave_one_machine_out(numbers: Array) -> float:
    """Official score of held-out numbers: each machine's from the configuration that is best on the other machines.

    `numbers` (C, machines, 3); NaN for one machine, because no other is left to choose on.
    """
    configurations, machines, _ = numbers.shape
    if machines < 2:
        return float("nan")
    held_out = []
    for m in range(machines):
        others = np.delete(numbers, m, axis=1).reshape(configurations, -1)
        held_out.append(numbers[int(np.nanargmax(harmonic_means(others, axis=1))), m])
    return harmonic_mean(held_out)


def label_free(records: Records) -> dict[str, Rule]:
    """What each rule picks, and how well it agrees with the labels if there are any."""
    scores = _rule_scores(records)
    rules = {name: _rule(score, records.overall) for name, score in scores.items()}
    order = next((scores[name] for name in ("together", *RULES) if name in scores), None)
    return rules if order is None else {**rules, **_zmin(records, order)}


def _zmin(records: Records, order: Array) -> dict[str, Rule]:
    """Z-MIN over the back ends that share encoder, setting and view with the best by `order`; {} if it is alone."""
    pick = int(np.argmax(order))
    same = _place(records.recipes[pick])
    rows = [i for i, recipe in enumerate(records.recipes) if _place(recipe) == same and np.isfinite(order[i])]
    if len(rows) < 2:
        return {}
    overall = float("nan")
    if records.labelled:
        lowest = {machine: records.aligned(rows, machine).min(axis=0) for machine in records.machines}
        sets = records.test_sets.items()
        overall = harmonic_mean([machine_values(lowest[name][None], *each.labels)[0] for name, each in sets])
    regret = float(records.overall.max() - overall)
    return {"zmin": Rule(pick, overall, float("nan"), regret, len(rows))}


def _place(recipe: Recipe) -> tuple[str, Setting, str]:
    return recipe.encoder, Setting.of(recipe), recipe.view


def label_free_score(records: Records) -> Array:
    """The score (C,) of each configuration by the rules together, or by the first rule that applies; high is good."""
    scores = _rule_scores(records)
    return next(scores[name] for name in ("together", *RULES) if name in scores)


def _rule_scores(records: Records) -> dict[str, Array]:
    """Scores (C,) by each rule that gives every configuration a finite value; -inf for a blind configuration."""
    from scipy.stats import rankdata

    mean, sd = records.statistic("mean"), records.statistic("sd")
    blind = (sd <= 1e-6 * np.abs(mean)).any(axis=1) | ~(sd > 0).all(axis=1)
    by_rule = {name: rule(records) for name, rule in RULES.items()}
    scores = {name: np.where(blind, -np.inf, score) for name, score in by_rule.items() if np.isfinite(score).all()}
    ranks = [rankdata(scores[name]) for name in DECIDING if name in scores]
    if len(ranks) > 1:
        scores["together"] = np.where(blind, -np.inf, np.mean(ranks, axis=0))
    return scores


def bootstrap(records: Records, row: int, *, rounds: int, seed: int) -> tuple[Interval, Interval]:
    """Intervals of the configuration at `row` and of the procedure that chooses one; see the module."""
    integer("rounds", rounds)
    rng = np.random.default_rng(seed)
    order = np.argsort(-np.nan_to_num(records.overall))[:TOP]
    rows = np.r_[row, order]
    rankings = [Ranking(records.scores[machine][rows]) for machine in records.machines]
    labels = [test_set.labels for test_set in records.test_sets.values()]
    counts = [draws(rng, is_anomaly, is_target, rounds) for is_anomaly, is_target in labels]
    own, held_out_score = np.empty(rounds), np.empty(rounds)
    for i in range(rounds):
        drawn = _overall(rankings, labels, [each[i] for each in counts])
        own[i] = drawn[0]
        best = 1 + int(np.nanargmax(drawn[1:]))
        held_out_score[i] = _overall(rankings, labels, [each[i] == 0 for each in counts])[best]
    return Interval.of(own), Interval.of(held_out_score)


def _overall(rankings: Sequence[Ranking], labels: Sequence[tuple[Array, Array]], counts: Sequence[Array]) -> Array:
    """Official scores (C,) of configurations, each clip counted as often as `counts` says for its machine."""
    numbers = [r.values(*label, count) for r, label, count in zip(rankings, labels, counts, strict=True)]
    return harmonic_means(np.concatenate(numbers, axis=1), axis=1)


def _rule(score: Array, overall: Array) -> Rule:
    row = int(np.argmax(score))
    if np.isnan(overall).any():
        return Rule(row, float("nan"), float("nan"), float("nan"))
    not_blind = np.isfinite(score)  # blind ones are last by any rule and low by labels: false agreement
    agreement = spearman(score[not_blind], overall[not_blind]) if not_blind.any() else 0.0
    return Rule(row, float(overall[row]), agreement, float(overall.max() - overall[row]))


def _calibration(records: Records) -> Array:
    apart = np.abs(records.statistic("source_mean") - records.statistic("target_mean"))
    return np.asarray(-(apart / np.maximum(records.statistic("sd"), 1e-12)).mean(axis=1))


RULES: dict[str, Callable[[Records], Array]] = {
    "pseudo": lambda records: np.asarray(records.statistic("pseudo_auc").mean(axis=1)),
    "calibration": _calibration,
    "tail": lambda records: np.asarray(-records.statistic("tail").mean(axis=1)),
    "stable": lambda records: np.asarray(records.statistic("stable").mean(axis=1)),
}
