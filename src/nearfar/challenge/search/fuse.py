"""Search for the weights of a score-level fusion (report 2.8, eq. 17-18).

    scores    {machine: (S, M)}   test scores of S systems, aligned by the exact leave-one-out scores of their normals
    weights   (S,)                >= 0, sum 1, in steps of 0.05

Equal weights need no labels and are the default of a fusion. The search starts from the best of: equal weights, every
system alone, and the report's weights if all five of its encoders are there. It moves weight from one system to another
while the official score grows. It uses labels, so the nested score is reported too: each machine is scored with weights
that were chosen on the other machines, starting without the report's weights, which were chosen on all machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nearfar.challenge.search.records import Records
from nearfar.challenge.search.select import label_free_score
from nearfar.metrics import harmonic_mean, harmonic_means, machine_values
from nearfar.recipe import FUSION, Fusion, Recipe, as_data, leaves
from nearfar.support.check import Array, integer

STEP, MOVES = 20, (1, 2, 4, 8)  # weights are multiples of 1 / STEP; steps that one move may carry

ScoresAndLabels = tuple[Array, tuple[Array, Array]]  # aligned test scores (S, M); is_anomaly (M,) and is_target (M,)


@dataclass(frozen=True)
class Fused:
    """A fusion: its weights, official scores in [0, 1] (NaN without labels), and the number of weightings tried."""

    recipes: Sequence[Recipe]
    weights: Sequence[float]
    overall: float
    nested: float
    equal: float
    single: float  # of the best system alone
    tried: int

    @property
    def system(self) -> Fusion:
        """The fusion as a recipe; systems without weight are left out."""
        parts = [(w, r) for w, r in zip(self.weights, self.recipes, strict=True) if w > 0]
        return Fusion(tuple(parts))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        numbers = {k: getattr(self, k) for k in ("overall", "nested", "equal", "single", "tried")}
        numbers |= {"optimism": self.overall - self.nested}
        return {k: None if np.isnan(v) else v for k, v in numbers.items()} | {"system": as_data(self.system)}


def fuse(records: Records, rows: Sequence[int], *, search: bool = True) -> Fused:
    """Weights for the systems `rows` of a search; equal ones without labels or without `search`."""
    if not rows:
        raise ValueError("a fusion needs at least one system")
    recipes = [records.recipes[row] for row in rows]
    equal = np.full(len(rows), 1 / len(rows))
    if not records.labelled:
        nan = float("nan")
        return Fused(recipes, equal.tolist(), nan, nan, nan, nan, 1)
    tables = {m: (records.aligned(rows, m), test_set.labels) for m, test_set in records.test_sets.items()}
    equal_score = float(_overall(equal[None], tables)[0])
    single = float(np.nanmax(records.overall[list(rows)]))
    if not search:
        return Fused(recipes, equal.tolist(), equal_score, equal_score, equal_score, single, 1)
    starts = [equal, *np.eye(len(rows))]
    weights, score, tried = hill_climb(tables, [*starts, *_published(recipes)])
    return Fused(recipes, weights.tolist(), score, _nested(tables, starts), equal_score, single, tried)


def hill_climb(tables: Mapping[str, ScoresAndLabels], starts: Sequence[Array]) -> tuple[Array, float, int]:
    """(weights, official score, number of weightings tried) of the local optimum that moves of weight reach."""
    scores = _overall(np.stack(starts), tables)
    best, tried = int(np.nanargmax(scores)), len(starts)
    weights, score = starts[best], float(scores[best])
    units = _rounded(weights)  # equal weights may lie between the grid's points: moves start from the nearest
    while len(units) > 1:
        moves = _moves(units)
        scores = _overall(moves / STEP, tables)
        tried += len(moves)
        at = int(np.nanargmax(scores))
        if scores[at] <= score:
            break
        units, weights, score = moves[at], moves[at] / STEP, float(scores[at])
    return weights, score, tried


def candidates(records: Records, top: int) -> list[int]:
    """Rows to fuse: the `top` best among the best of each encoder and view; without labels by the label-free score."""
    integer("top", top)
    if records.labelled:
        order = np.argsort(-np.nan_to_num(records.overall), kind="stable")
    else:
        order = np.argsort(-label_free_score(records), kind="stable")
    seen: dict[tuple[str, str], int] = {}
    for row in order:
        seen.setdefault((records.recipes[row].encoder, records.recipes[row].view), int(row))
    return list(seen.values())[:top]


def layers(records: Records) -> list[int]:
    """Rows of one configuration at all of its layers: of the one with the highest mean label-free score.

    With equal weights the fusion of these rows uses no labels. Raises ValueError if the search tried one layer alone.
    """
    score = label_free_score(records)
    rows: dict[Recipe, list[int]] = {}
    for row, recipe in enumerate(records.recipes):
        rows.setdefault(replace(recipe, layer=None), []).append(row)
    several = [each for each in rows.values() if len(each) > 1]
    if not several:
        raise ValueError("this search tried one layer alone; give `nearfar search` several: --layer 4 --layer final")
    return max(several, key=lambda each: float(score[each].mean()))


def _nested(tables: Mapping[str, ScoresAndLabels], starts: Sequence[Array]) -> float:
    if len(tables) < 2:
        return float("nan")
    held_out = []
    for machine in tables:
        weights, _, _ = hill_climb({m: t for m, t in tables.items() if m != machine}, starts)
        held_out.append(_values(weights[None], *tables[machine])[0])
    return harmonic_mean(held_out)


def _overall(weights: Array, tables: Mapping[str, ScoresAndLabels]) -> Array:
    return harmonic_means(np.concatenate([_values(weights, *table) for table in tables.values()], axis=1), axis=1)


def _values(weights: Array, scores: Array, labels: tuple[Array, Array]) -> Array:
    return machine_values(weights @ scores, *labels)


def _moves(units: Array) -> Array:
    """Every way to carry 1, 2, 4 or 8 steps of weight from one system to another."""
    out = []
    for giver in np.flatnonzero(units):
        for taker in range(len(units)):
            for step in {min(step, int(units[giver])) for step in MOVES} if taker != giver else ():
                moved = units.copy()
                moved[giver] -= step
                moved[taker] += step
                out.append(moved)
    return np.stack(out)


def _rounded(weights: Array) -> Array:
    """Weights in whole steps that sum to STEP: the steps left after rounding down go to the largest remainders."""
    units = np.floor(weights * STEP + 1e-9).astype(int)
    for at in np.argsort(units - weights * STEP, kind="stable")[: STEP - units.sum()]:
        units[at] += 1
    return units


def _published(recipes: Sequence[Recipe]) -> list[Array]:
    """The report's weights, if each of its five encoders is among the systems (the first of each counts)."""
    report = {next(iter(leaves(part))).encoder: weight for weight, part in FUSION.parts}
    names = [recipe.encoder for recipe in recipes]
    if not set(report) <= set(names):
        return []
    weights = np.zeros(len(recipes))
    for name, weight in report.items():
        weights[names.index(name)] = weight
    return [weights]
