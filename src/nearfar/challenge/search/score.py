"""All configurations of one setting, scored from the pooled vectors of its waveforms (report 2.2, 2.3 and 2.7).

    pooled   {waveform: (n, D)}   unit vectors: N normals, then the clips to score; (n, F, D) for "beam"
    scored   leave-one-out scores (N,) and scores (M,) of each configuration, float32, as `Backend` gives them

What distances alone decide goes through `distances`; a Gaussian and whitening want the vectors and take `backend.fit`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nearfar.backend import BackendConfig, build_method, fit, mean_of
from nearfar.challenge.search import distances
from nearfar.challenge.search.records import QUANTILES, Results, TestSet
from nearfar.challenge.search.space import parts_of
from nearfar.fusion import fuse
from nearfar.metrics import Ranking, machine_values, spearman
from nearfar.recipe import COMPOSITE, Recipe
from nearfar.support.check import Array
from nearfar.views import VIEWS, compose

VECTORS_ONLY = ("mahalanobis",)  # methods that distances alone do not decide
WEIGHTS = [weight for _, weight in COMPOSITE]  # eq. 13
Scored = tuple[Array, Array]
Done = dict[tuple[str, BackendConfig | None], Scored]  # by view and back end; None: distances to two halves of the bank


def score_setting(
    recipes: Sequence[Recipe], pooled: Mapping[str, Array], is_target: Array, test_set: TestSet
) -> Results:
    """Results of configurations that share a setting, from the unit vectors (n, D) of each waveform.

    The n clips are the machine's normals with domains `is_target`, its test clips, and other machines' normals.
    """
    tests = len(test_set.test)
    scored, stable = score_all(recipes, pooled, is_target)
    train = np.stack([own for own, _ in scored])
    queries = np.stack([scores for _, scores in scored])
    numbers = np.full((len(recipes), 3), np.nan)
    if test_set.labelled:
        numbers = machine_values(queries[:, :tests], *test_set.labels)
    statistics = _statistics(train, queries[:, tests:], is_target, np.array([stable[r.view] for r in recipes]))
    return Results(recipes, numbers, statistics, queries[:, :tests])


def score_all(
    recipes: Sequence[Recipe], pooled: Mapping[str, Array], is_target: Array
) -> tuple[list[Scored], dict[str, float]]:
    """(leave-one-out scores (N,), scores (M,)) float32 of each configuration, for unit vectors (N + M, D).

    Beside them, for each view, the rank correlation of the normals' distances to two halves of the bank.
    """
    wanted = [(recipe.view, recipe.backend) for recipe in recipes]
    done = _each_view(wanted, pooled, is_target)
    stable = {view: spearman(*_halves(view, done)) for view in {view for view, _ in wanted}}
    return [_finished(*each, done) for each in wanted], stable


def _each_view(wanted: Sequence[tuple[str, BackendConfig]], pooled: Mapping[str, Array], is_target: Array) -> Done:
    """Scores of every view that is a part of one that is wanted, of "beam" the means of its bands'."""
    backends: dict[str, dict[BackendConfig, None]] = {}
    for whole, switches in wanted:
        for view in parts_of(whole):
            backends.setdefault(view, {})[switches] = None
    some = next(iter(pooled.values()))
    if some.ndim == 2:
        return _score(backends, pooled, is_target)
    bands = [
        _score(backends, {name: np.ascontiguousarray(x[:, f]) for name, x in pooled.items()}, is_target)
        for f in range(some.shape[1])
    ]
    return {key: _mean([band[key] for band in bands]) for key in bands[0]}


def _score(wanted: Mapping[str, Iterable[BackendConfig]], pooled: Mapping[str, Array], is_target: Array) -> Done:
    matrices, count = Matrices(pooled, len(is_target)), len(is_target)
    done: Done = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one domain, or a small one: said once for the whole search
        for view, backends in wanted.items():
            normals, queries = matrices.known(view)
            done[view, None] = to_halves(normals.squared[:count], is_target)
            for s in backends:
                if s.method in VECTORS_ONLY or s.whiten:
                    z = _composed(view, pooled)
                    backend = fit(z[:count], is_target, **vars(s))
                    done[view, s] = backend.train_scores, backend.score(z[count:])
                else:
                    method = build_method(normals, is_target, s)
                    own, scores = method.leave_one_out(), method.score(queries)
                    done[view, s] = own.astype(np.float32), scores.astype(np.float32)
    return done


def to_halves(squared: Array, is_target: Array) -> Scored:
    """Distances of the normals (N,) to the nearest other one of each half of the bank: every other clip of a domain.

    `squared` (N, N) as in `distances`, infinite to itself. A half that is empty is infinitely far.
    """
    second = np.zeros(len(is_target), bool)
    for domain in (False, True):
        second[np.flatnonzero(is_target == domain)[1::2]] = True
    nearest = [squared[:, half].min(axis=1, initial=np.inf) for half in (~second, second)]
    return np.sqrt(nearest[0]), np.sqrt(nearest[1])


class Matrices:
    """Squared distances of a setting's parts and views; a part is measured when the first view wants it."""

    def __init__(self, pooled: Mapping[str, Array], count: int) -> None:
        self.pooled, self.count = pooled, count
        self._squared: dict[str, Array] = {}
        self._present: dict[str, Array] = {}

    def known(self, view: str) -> tuple[distances.Precomputed, distances.Precomputed]:
        """The normals and the queries as a view sees them."""
        weights = distances.weights_of(view)
        for name in weights:
            if name not in self._squared:
                x = distances.part(name, self.pooled)
                self._present[name] = np.einsum("nd,nd->n", x, x) > 0.5
                self._squared[name] = distances.squared_distances(x, self.count)
        matrix = distances.combine(weights, self._squared, self._present)
        everything = distances.Precomputed(matrix, np.arange(len(matrix)))
        rows = everything.rows
        return everything[rows[: self.count]], everything[rows[self.count :]]


def _composed(view: str, pooled: Mapping[str, Array]) -> Array:
    return compose(view, pooled["near"], pooled.get("far")) if view in VIEWS else pooled[view]


def _finished(view: str, switches: BackendConfig, done: Done) -> Scored:
    parts = [done[part, switches] for part in parts_of(view)]
    if len(parts) == 1:
        return parts[0]
    both = fuse([(own, np.concatenate([own, scores])) for own, scores in parts], WEIGHTS)
    count = len(parts[0][0])
    return both[:count], both[count:]


def _halves(view: str, done: Done) -> Scored:
    """The normals' distances (N,) to either half of the bank; of a composite its parts', fused as scores are."""
    parts = [done[part, None] for part in parts_of(view)]
    if len(parts) == 1:
        return parts[0]
    first, second = (fuse([(half, half) for half in each], WEIGHTS) for each in zip(*parts, strict=True))
    return first, second


def _mean(bands: Sequence[Scored]) -> Scored:
    own, scores = (mean_of(each).astype(np.float32) for each in zip(*bands, strict=True))
    return own, scores


def _statistics(train: Array, pseudo: Array, is_target: Array, stable: Array) -> Array:
    """(C, len(STATISTICS)) of leave-one-out scores (C, N) and scores of other machines' normals (C, P)."""
    s = train.astype(np.float64)
    q = dict(zip(QUANTILES, np.quantile(s, list(QUANTILES.values()), axis=1), strict=True))
    nothing = np.full(len(s), np.nan)
    domains = [s[:, is_target == d].mean(axis=1) if (is_target == d).any() else nothing for d in (False, True)]
    auc = nothing
    if pseudo.shape[1]:
        both = np.concatenate([train, pseudo], axis=1)
        is_pseudo = np.arange(both.shape[1]) >= train.shape[1]
        auc = Ranking(both).auc(~is_pseudo, is_pseudo)
    tail = (q["q99"] - q["q50"]) / np.maximum(q["q50"] - q["q05"], 1e-12)
    return np.stack([s.mean(axis=1), s.std(axis=1), *q.values(), *domains, auc, tail, stable], axis=1)
