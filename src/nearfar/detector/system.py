"""A fitted system: back ends put together as a Recipe, Fusion or Watch says (report section 2.8).

    scores   one (M,) array per leaf of the system, in the order of `recipe.leaves`; higher is more anomalous
    lone     (N,) leave-one-out scores of the normals: the unit of a score, and the alignment of a fusion
    own      (N,) scores of the normals without their relatives (`detector.calibration`), or `lone`: all p-values
    combine(scores) (M,), higher is more anomalous

A watch turns each part's score into the share p of normals that reach it, and combines these as `recipe.Watch` says.
Whichever part is rarest is what was heard.
The scores that p and the statistics of a fusion are taken from include each normal's own: normals and new clips go
through the same function, so a set-point from the normals holds for new clips (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from nearfar import threshold
from nearfar.backend import Backend, fit
from nearfar.fusion import divisor, in_sigmas, statistics, weighted_sum
from nearfar.recipe import RAREST, Recipe, System, Watch, dominant_recipe, leaves
from nearfar.support.check import Array
from nearfar.threshold import PValue, Threshold

NEAREST = 3  # normals that are named beside a score
ROUNDING = 1e-6  # scores that differ by less than this share of the highest are equal
OF_COPIES = 1e-3  # standard deviation where all normals are at distance 0 from each other


@dataclass(frozen=True)
class Scored:
    """What a fitted system finds for one clip.

    value        standard deviations of the normals' scores above their mean
    p            share of normal clips expected to reach the value
    part_scores  of a fusion or watch, by name
    distances    (3,) to the nearest normals, by the leaf that counts most in the value
    nearest      (3,) their indices
    blank        whether a vector of the clip is zero throughout
    """

    value: float
    p: float
    part_scores: Mapping[str, float]
    distances: Array
    nearest: Array
    blank: bool = False


class FittedSystem:
    """The back ends of a system, combined and aligned by the scores of the normals.

    own, lone      (N,) per leaf, see the module
    groups         (N, 2) of the normals if `own` was measured without relatives, else (0, 2)
    safety         clips of a new session that exceed a score, for each normal that does so by `own`
    train_values   (N,) the normals' combined `own` scores in standard deviations
    lone_values    (N,) their combined `lone` scores in standard deviations
    """

    def __init__(
        self,
        system: System,
        backends: Sequence[Backend],
        own: Sequence[Array],
        lone: Sequence[Array],
        groups: Array,
        safety: float,
    ) -> None:
        self.system, self.backends, self.own, self.lone = system, backends, own, lone
        self.groups, self.safety = groups, safety
        self.combined = build(system, iter(own), iter(lone))
        self.mu, self.sigma = unit_of(self.combined.lone)
        self.train_values = in_sigmas(self.combined.own, self.mu, self.sigma)
        self.lone_values = in_sigmas(self.combined.lone, self.mu, self.sigma)
        self._divisor = float(divisor(self.mu, self.sigma))
        self.tail = PValue(self.train_values)
        self._leaf = None if isinstance(system, Watch) else dominant_recipe(system, {})  # of a watch, the clip decides

    def score(self, vectors: Sequence[Array]) -> Scored:
        """The score of one clip from a vector (D,) per leaf."""
        leaves = [b.score_with_nearest(v[None], NEAREST) for b, v in zip(self.backends, vectors, strict=True)]
        combined, parts = self.combined.combine(iter([scores for scores, _, _ in leaves]))
        value = (float(combined[0]) - self.mu) / self._divisor
        part_scores = {name: float(part[0]) for name, part in parts.items()}
        leaf = dominant_recipe(self.system, part_scores) if self._leaf is None else self._leaf
        _, distances, nearest = leaves[leaf]
        blank = any(not vector.any() for vector in vectors)
        return Scored(value, self.rate_at(value), part_scores, distances[0], nearest[0], blank)

    def threshold_for(self, rate: float, method: str) -> Threshold:
        """The set-point above which a share `rate` of normal clips is expected, with groups also in a new session."""
        read = threshold.share(rate, len(self.train_values), self.safety)
        return replace(threshold.from_normals(self.train_values, read, method), rate=rate)

    def rate_at(self, value: float) -> float:
        """The share of normal clips expected above a score; the inverse of `threshold_for`."""
        p = float(np.exp(self.tail.log_p_unchecked(np.array([value]))[0]))
        return threshold.promised(p, len(self.train_values), self.safety)

    def triggers(self, part_scores: Mapping[str, float], threshold: float) -> tuple[str, ...]:
        """The parts of a watch whose score exceeds the `threshold`, rarest first; if none does, the rarest."""
        if not isinstance(self.system, Watch):
            return ()
        limit = (threshold * self.sigma + self.mu) / np.log(10)  # the unit of the part scores
        order = sorted(part_scores, key=lambda name: -part_scores[name])
        return tuple([name for name in order if part_scores[name] > limit] or order[:1])


def fit_system(
    system: System,
    banks: Sequence[Array],
    is_target: Array,
    groups: Array,
    related: Array | None,
    safety: float = 1.0,
) -> FittedSystem:
    """A system fitted on a bank (N, D) of normals per leaf.

    `related` (N, N) says which normals are left out together; None: each normal alone. `groups` (N, 2) and `safety` are
    kept.
    """
    pairs = zip(banks, leaves(system), strict=True)
    backends = [fit(z, is_target, **vars(recipe.backend)) for z, recipe in pairs]
    if related is None:
        scores = [b.train_scores for b in backends]
        return FittedSystem(system, backends, scores, scores, groups, safety)
    alone = np.eye(len(related), dtype=bool)
    # A Gaussian of standardized features keeps the scale of all normals in both, so that the two compare.
    lone = [b.scores_excluding(alone) if b.config.standardize else b.train_scores for b in backends]
    return FittedSystem(system, backends, [b.scores_excluding(related) for b in backends], lone, groups, safety)


def unit_of(lone: Array) -> tuple[float, float]:
    """Mean and standard deviation of the normals' leave-one-out scores (N,), the latter at least `least_spread`.

    Where all scores are 0, as those of copies are, the standard deviation is `OF_COPIES`.
    """
    mu, sigma = statistics(lone)
    return mu, max(sigma, least_spread(lone)) or OF_COPIES


def least_spread(lone: Array) -> float:
    """The smallest standard deviation that N leave-one-out scores can show: |mean| / (N - 1)^2, of equal ones |mean|.

    The scores of two normals are always equal, and those of three or four may be by chance (docs/decisions.md).
    """
    mean, highest = abs(float(lone.mean())), float(np.abs(lone).max())
    return mean if np.ptp(lone) <= ROUNDING * highest else mean / (len(lone) - 1) ** 2


class Fitted(Protocol):
    """A recipe, fusion or watch on fitted back ends; `own` and `lone` (N,) are its normals' combined scores."""

    @property
    def own(self) -> Array: ...
    @property
    def lone(self) -> Array: ...
    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]: ...


def build(system: System, own: Iterator[Array], lone: Iterator[Array]) -> Fitted:
    """The fitted form of `system`; `own` and `lone` come by its leaves, in the order of `recipe.leaves`."""
    if isinstance(system, Recipe):
        expanded = system.expand()
        return FittedRecipe(next(own), next(lone)) if expanded is system else build(expanded, own, lone)
    children = [build(part[-1], own, lone) for part in system.parts]
    if isinstance(system, Watch):
        return FittedWatch(system, children)
    return FittedFusion([weight for weight, _ in system.parts], children)


@dataclass(frozen=True)
class FittedRecipe:
    """One back end."""

    own: Array
    lone: Array

    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """The leaf's own scores (M,); a leaf has no parts."""
        return next(scores), {}


@dataclass(frozen=True)
class FittedFusion:
    """Aligned and averaged parts (eq. 17-18); a part is reported in standard deviations of its normals."""

    weights: list[float]
    children: list[Fitted]

    @cached_property
    def _units(self) -> list[tuple[float, float]]:
        return [unit_of(child.lone) for child in self.children]

    @cached_property
    def own(self) -> Array:
        """Fused scores (N,) of the normals without their relatives."""
        return weighted_sum(self._aligned([child.own for child in self.children]), self.weights)

    @cached_property
    def lone(self) -> Array:
        """Fused leave-one-out scores (N,)."""
        return weighted_sum(self._aligned([child.lone for child in self.children]), self.weights)

    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Fused scores (M,) and each part's aligned scores by number."""
        aligned = self._aligned([child.combine(scores)[0] for child in self.children])
        return weighted_sum(aligned, self.weights), {str(i): part for i, part in enumerate(aligned, start=1)}

    def _aligned(self, scores: Sequence[Array]) -> list[Array]:
        return [in_sigmas(s, *unit) for s, unit in zip(scores, self._units, strict=True)]


@dataclass(frozen=True)
class FittedWatch:
    """Parts combined by their p-values; a part is reported as -log10 of its p, weighted as in the combination."""

    system: Watch
    children: list[Fitted]

    @cached_property
    def _tails(self) -> list[PValue]:
        return [PValue(child.own, least_spread(child.lone) or None) for child in self.children]

    @cached_property
    def own(self) -> Array:
        """Combined rarity (N,) of the normals without their relatives."""
        return self._combined(self._rarity([child.own for child in self.children]))

    @cached_property
    def lone(self) -> Array:
        """Combined rarity (N,) of the normals' leave-one-out scores."""
        return self._combined(self._rarity([child.lone for child in self.children]))

    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Combined rarity (M,), and every part's by name."""
        rarity = self._rarity([child.combine(scores)[0] for child in self.children])
        names = [name for name, _, _ in self.system.parts]
        return self._combined(rarity), dict(zip(names, rarity / np.log(10), strict=True))

    def _rarity(self, scores: list[Array]) -> Array:  # of the parts (M,) -> (parts, M)
        rarity = np.stack([-tail.log_p(s) for tail, s in zip(self._tails, scores, strict=True)])
        weights = np.array([[weight] for _, weight, _ in self.system.parts])
        return rarity + np.log(weights) if self.system.combine == RAREST else weights * rarity

    def _combined(self, rarity: Array) -> Array:  # (parts, M) -> (M,)
        return rarity.max(axis=0) if self.system.combine == RAREST else np.sqrt((rarity**2).sum(axis=0))
