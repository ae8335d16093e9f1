"""All configurations of one setting, scored from the pooled vectors of its waveforms (report 2.2, 2.3 and 2.7).

    pooled   {waveform: (n, D)}   unit vectors: N normals, then the clips to score
    scored   leave-one-out scores (N,) and scores (M,) of each configuration, float32, as `Backend` gives them

What distances alone decide goes through `distances`; a Gaussian and whitening want the vectors and take `backend.fit`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from nearfar.backend import fit
from nearfar.challenge import distances
from nearfar.challenge.ranking import machine_values
from nearfar.challenge.records import QUANTILES, Clips, Part
from nearfar.challenge.space import parts_of
from nearfar.check import Array
from nearfar.fusion import fuse
from nearfar.methods import METHODS
from nearfar.recipe import COMPOSITE, Recipe
from nearfar.switches import Switches
from nearfar.views import VIEWS, compose

VECTORS_ONLY = ("mahalanobis",)  # methods that distances alone do not decide
Scored = tuple[Array, Array]


def score_setting(recipes: Sequence[Recipe], pooled: Mapping[str, Array], is_target: Array, clips: Clips) -> Part:
    """Results of configurations that share a setting, from the unit vectors (n, D) of each waveform.

    The n clips are the machine's normals with domains `is_target`, its test clips, and other machines' normals.
    """
    tests = len(clips.test)
    scored = score_all(recipes, pooled, is_target)
    train = np.stack([own for own, _ in scored])
    queries = np.stack([scores for _, scores in scored])
    numbers = np.full((len(recipes), 3), np.nan)
    if clips.labelled:
        labels = np.array(clips.is_anomaly, bool), np.array(clips.is_target, bool)
        numbers = machine_values(queries[:, :tests], *labels)
    return Part(recipes, numbers, _statistics(train, queries[:, tests:], is_target), queries[:, :tests])


def score_all(recipes: Sequence[Recipe], pooled: Mapping[str, Array], is_target: Array) -> list[Scored]:
    """(leave-one-out scores (N,), scores (M,)) float32 of each configuration, for unit vectors (N + M, D)."""
    wanted: dict[str, dict[Switches, None]] = {}
    for recipe in recipes:
        for view in parts_of(recipe.view):
            wanted.setdefault(view, {})[recipe.switches] = None
    matrices = Matrices(pooled, len(is_target))
    done: dict[tuple[str, Switches], Scored] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one domain, or a small one: said once for the whole search
        for view, backends in wanted.items():
            plain = [s for s in backends if s.method not in VECTORS_ONLY and not s.whiten]
            normals, queries = matrices.known(view) if plain else (None, None)
            for s in plain:
                method = METHODS[s.method](normals, is_target, s)
                done[view, s] = (
                    method.leave_one_out().astype(np.float32),
                    method.score(queries).astype(np.float32),
                )
            for s in (s for s in backends if s not in plain):
                z = _composed(view, pooled)
                backend = fit(z[: len(is_target)], is_target, **vars(s))
                done[view, s] = backend.train_scores, backend.score(z[len(is_target) :])
    return [_finished(recipe, done) for recipe in recipes]


class Matrices:
    """Squared distances of a setting's parts and views; a part is measured when the first view wants it."""

    def __init__(self, pooled: Mapping[str, Array], count: int) -> None:
        self.pooled, self.count = pooled, count
        self._squared: dict[str, Array] = {}
        self._present: dict[str, Array] = {}

    def known(self, view: str) -> tuple[distances.Known, distances.Known]:
        """The normals and the queries as a view sees them."""
        weights = distances.weights_of(view)
        for name in weights:
            if name not in self._squared:
                x = distances.part(name, self.pooled)
                self._present[name] = np.einsum("nd,nd->n", x, x) > 0.5
                self._squared[name] = distances.squared_distances(x, self.count)
        matrix = distances.combine(weights, self._squared, self._present)
        everything = distances.Known(matrix, np.arange(len(matrix)))
        rows = everything.rows
        return everything[rows[: self.count]], everything[rows[self.count :]]


def _composed(view: str, pooled: Mapping[str, Array]) -> Array:
    return compose(view, pooled["near"], pooled.get("far")) if view in VIEWS else pooled[view]


def _finished(recipe: Recipe, done: Mapping[tuple[str, Switches], Scored]) -> Scored:
    views = parts_of(recipe.view)
    parts = [done[view, recipe.switches] for view in views]
    if len(parts) == 1:
        return parts[0]
    weights = [weight for _, weight in COMPOSITE]  # eq. 13
    return fuse([(own, own) for own, _ in parts], weights), fuse(parts, weights)


def _statistics(train: Array, pseudo: Array, is_target: Array) -> Array:
    """(C, len(STATISTICS)) of leave-one-out scores (C, N) and scores of other machines' normals (C, P)."""
    s = train.astype(np.float64)
    q = dict(zip(QUANTILES, np.quantile(s, list(QUANTILES.values()), axis=1), strict=True))
    nothing = np.full(len(s), np.nan)
    domains = [s[:, is_target == d].mean(axis=1) if (is_target == d).any() else nothing for d in (False, True)]
    auc = nothing
    if pseudo.shape[1]:
        both = np.concatenate([train, pseudo], axis=1)
        anomalous = np.arange(both.shape[1]) >= train.shape[1]
        auc = machine_values(both, anomalous, np.zeros(both.shape[1], bool))[:, 0]
    tail = (q["q99"] - q["q50"]) / np.maximum(q["q50"] - q["q05"], 1e-12)
    return np.stack([s.mean(axis=1), s.std(axis=1), *q.values(), *domains, auc, tail], axis=1)
