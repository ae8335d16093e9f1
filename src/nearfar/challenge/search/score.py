"""All configurations of one setting, scored from the pooled vectors of its waveforms (report 2.2, 2.3 and 2.7).

    pooled   {waveform: (n, D)}   unit vectors of the N normals, then of the clips to score; (n, F, D) for "beam";
                                  arrays, or tensors on a device, where the distances are then computed
    scores   leave-one-out scores (N,) and scores (M,) of each configuration, float32, as `Backend` gives them

Methods that distances decide go through `distances`; a Gaussian and whitening need the vectors and go through
`backend.fit`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from nearfar.backend import ALTERED_BANKS, FITS, BackendConfig, beam_score, build_method, fit
from nearfar.challenge.search.distances import Precomputed, combine, part, squared_distances, weights_of
from nearfar.challenge.search.records import QUANTILES, STATISTICS, Results, TestSet
from nearfar.challenge.search.space import parts_of
from nearfar.detector.review import is_flat
from nearfar.fusion import fuse
from nearfar.metrics import Ranking, machine_values, spearman
from nearfar.recipe import COMPOSITE, Recipe
from nearfar.support.arrays import like, namespace, on_host
from nearfar.support.check import Array
from nearfar.views import compose

VECTORS_ONLY = ("mahalanobis", "pca", "zmin", *ALTERED_BANKS, "as_is")  # methods that distances alone do not decide
WEIGHTS = [weight for _, weight in COMPOSITE]  # eq. 13
Scores = tuple[Array, Array]  # leave-one-out (N,), queries (M,)
Key = TypeVar("Key")
ByConfiguration = dict[tuple[str, BackendConfig], Scores]
ByView = dict[str, tuple[Array, Array]]  # the normals' distances (N,) to two halves of the bank


def score_setting(
    recipes: Sequence[Recipe],
    pooled: Mapping[str, Array],
    is_target: Array,
    test_set: TestSet,
    attributes: Array | None = None,
) -> Results:
    """Results of configurations that share a setting, from the unit vectors (n, D) of each waveform.

    The n clips are the machine's normals with domains `is_target` and `attributes`, its test clips, and other machines'
    normals.
    """
    tests = len(test_set.test)
    if not recipes:
        return Results([], np.zeros((0, 3)), np.zeros((0, len(STATISTICS))), np.zeros((0, tests), np.float32))
    scores, stable = score_all(recipes, pooled, is_target, attributes)
    train = np.stack([own for own, _ in scores])
    queries = np.stack([new for _, new in scores])
    numbers = np.full((len(recipes), 3), np.nan)
    if test_set.labelled:
        numbers = machine_values(queries[:, :tests], *test_set.labels)
    statistics = _statistics(train, queries[:, tests:], is_target, np.array([stable[r.view] for r in recipes]))
    return Results(recipes, numbers, statistics, queries[:, :tests])


def score_all(
    recipes: Sequence[Recipe], pooled: Mapping[str, Array], is_target: Array, attributes: Array | None = None
) -> tuple[list[Scores], dict[str, float]]:
    """(leave-one-out scores (N,), scores (M,)) float32 of each configuration, for unit vectors (N + M, D).

    The second value is, for each view, the rank correlation of the normals' distances to two halves of the bank.
    """
    wanted: dict[str, dict[BackendConfig, None]] = {}
    configurations = [(parts_of(recipe.view), recipe.backend) for recipe in recipes]
    for parts, backend in configurations:
        for view in parts:
            wanted.setdefault(view, {})[backend] = None
    attributes = np.zeros(len(is_target), str) if attributes is None else attributes
    scores, halves = _score_bands(wanted, pooled, is_target, attributes)
    views = {recipe.view for recipe in recipes}
    stable = {view: spearman(*_fused_halves([halves[part] for part in parts_of(view)])) for view in views}
    return [_fused([scores[part, backend] for part in parts]) for parts, backend in configurations], stable


def _score_bands(
    wanted: Mapping[str, Iterable[BackendConfig]], pooled: Mapping[str, Array], is_target: Array, attributes: Array
) -> tuple[ByConfiguration, ByView]:
    """`_score` of vectors (n, D); of "beam" vectors (n, F, D) the means over the bands."""
    some = next(iter(pooled.values()))
    if some.ndim == 2:
        return _score(wanted, pooled, is_target, attributes)
    each = ({name: 1 * x[:, f] for name, x in pooled.items()} for f in range(some.shape[1]))
    bands = [_score(wanted, band, is_target, attributes) for band in each]
    scores, halves = zip(*bands, strict=True)
    return _mean_over(scores), _mean_over(halves)


def _score(
    wanted: Mapping[str, Iterable[BackendConfig]], pooled: Mapping[str, Array], is_target: Array, attributes: Array
) -> tuple[ByConfiguration, ByView]:
    """Scores of every wanted view and back end, and for each view the distances to two halves of the bank."""
    matrices, count = Matrices(pooled, len(is_target)), len(is_target)
    scores: ByConfiguration = {}
    halves: ByView = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one domain, or a small one: a note of the search reports it
        for view, backends in wanted.items():
            by_metric = matrices.of_view(view)
            halves[view] = to_halves(by_metric["euclidean"][0].squared[:count], is_target)
            for config in backends:
                if config.method in (*VECTORS_ONLY, *FITS) or config.whiten:
                    z = on_host(pooled[view] if view in pooled else compose(view, pooled["near"], pooled.get("far")))
                    backend = fit(z[:count], is_target, attributes=attributes.tolist(), **vars(config))
                    scores[view, config] = backend.train_scores, backend.score(z[count:])
                else:
                    normals, queries = by_metric[config.metric]
                    method = build_method(normals, is_target, config, attributes)
                    own, new = method.leave_one_out(), method.score(queries)
                    scores[view, config] = own.astype(np.float32), new.astype(np.float32)
    return scores, halves


def to_halves(squared: Array, is_target: Array) -> tuple[Array, Array]:
    """Distances (N,), (N,) of the normals to the nearest other normal in each half of the bank.

    The second half is every other clip of a domain. `squared` (N, N) as in `distances`, inf to itself. An empty half is
    infinitely far.
    """
    second = np.zeros(len(is_target), bool)
    for domain in (False, True):
        second[np.flatnonzero(is_target == domain)[1::2]] = True
    xp = namespace(squared)
    first, other = (xp.amin(xp.where(like(squared, half), squared, np.inf), axis=1) for half in (~second, second))
    return np.sqrt(on_host(first)), np.sqrt(on_host(other))


def flat_views(recipes: Sequence[Recipe], pooled: Mapping[str, Array], count: int) -> set[str]:
    """The views, of those that the recipes are made of, whose vectors are the same for all `count` normals."""
    parts: dict[str, bool] = {}
    flat = set()
    for view in dict.fromkeys(view for recipe in recipes for view in parts_of(recipe.view)):
        for name in weights_of(view):
            if name not in parts:
                parts[name] = is_flat(part(name, {key: x[:count] for key, x in pooled.items()}))
        if all(parts[name] for name in weights_of(view)):
            flat.add(view)
    return flat


class Matrices:
    """Squared distances of a setting's parts and views; a part is measured when the first view needs it."""

    def __init__(self, pooled: Mapping[str, Array], count: int) -> None:
        self.pooled, self.count = pooled, count
        self._squared: dict[str, Array] = {}
        self._present: dict[str, Array] = {}

    def of_view(self, view: str) -> dict[str, tuple[Precomputed, Precomputed]]:
        """{metric: the normals and the queries, by their distances in a view}; the same for both, but for zero vectors.

        The cosine of a zero vector and another one is 0, as of two unit vectors with the squared distance 2.
        """
        weights = weights_of(view)
        for name in weights:
            if name not in self._squared:
                x = part(name, self.pooled)
                self._present[name] = on_host(namespace(x).einsum("nd,nd->n", x, x)) > 0.5
                self._squared[name] = squared_distances(x, self.count)
        matrix = combine(weights, self._squared, self._present)
        both = {"euclidean": self._clips(matrix)}
        zero = ~np.any([self._present[name] for name in weights], axis=0)
        if zero.any():
            unlike = like(matrix, zero[:, None] != zero[: self.count])
            matrix = namespace(matrix).where(unlike, 2, matrix)
        return {**both, "cosine": self._clips(matrix) if zero.any() else both["euclidean"]}

    def _clips(self, matrix: Array) -> tuple[Precomputed, Precomputed]:
        rows = np.arange(len(matrix))
        clips = Precomputed(matrix, rows)
        return clips[rows[: self.count]], clips[rows[self.count :]]


def _fused(parts: Sequence[Scores]) -> Scores:
    """The scores of a composite from those of its parts (eq. 13); of a single part its own."""
    if len(parts) == 1:
        return parts[0]
    both = fuse([(own, np.concatenate([own, new])) for own, new in parts], WEIGHTS)
    count = len(parts[0][0])
    return both[:count], both[count:]


def _fused_halves(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Distances to the two halves of a composite: those of its parts, fused as scores are."""
    if len(parts) == 1:
        return parts[0]
    first, second = (fuse([(half, half) for half in each], WEIGHTS) for each in zip(*parts, strict=True))
    return first, second


def _mean_over(bands: Sequence[Mapping[Key, tuple[Array, Array]]]) -> dict[Key, tuple[Array, Array]]:
    """For each key the means of both arrays over the bands, float32."""
    out = {}
    for key in bands[0]:
        first, second = (
            beam_score(each).astype(np.float32) for each in zip(*(band[key] for band in bands), strict=True)
        )
        out[key] = first, second
    return out


def _statistics(train: Array, pseudo: Array, is_target: Array, stable: Array) -> Array:
    """(C, len(STATISTICS)) of leave-one-out scores (C, N) and scores of other machines' normals (C, P)."""
    s = train.astype(np.float64)
    q = dict(zip(QUANTILES, np.quantile(s, list(QUANTILES.values()), axis=1), strict=True))
    absent = np.full(len(s), np.nan)
    domains = [s[:, is_target == d].mean(axis=1) if (is_target == d).any() else absent for d in (False, True)]
    auc = absent
    if pseudo.shape[1]:
        both = np.concatenate([train, pseudo], axis=1)
        is_pseudo = np.arange(both.shape[1]) >= train.shape[1]
        auc = Ranking(both).auc(~is_pseudo, is_pseudo)
    tail = (q["q99"] - q["q50"]) / np.maximum(q["q50"] - q["q05"], 1e-12)
    return np.stack([s.mean(axis=1), s.std(axis=1), *q.values(), *domains, auc, tail, stable], axis=1)
