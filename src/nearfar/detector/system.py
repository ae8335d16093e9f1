"""A fitted system: back ends put together as a Recipe, Fusion or Watch says (report section 2.8).

    scores   one (M,) array per leaf of the system, in the order of `recipe.leaves`; higher is more anomalous
    train    (N,) leave-one-out scores of the normals         combine(scores) (M,), higher is more anomalous

A watch turns each part's score into the share p of normals that reach it and takes the rarest, each part weighing by
its share w of the false-alarm budget: s = max_j (log w_j - log p_j). Whichever part is rarest is what was heard.
The scores that p and the statistics of a fusion are taken from are leave-one-out and include each normal's own: normals
and new clips go through the same function, so a set-point from the normals holds for new clips (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from nearfar.backend import Backend
from nearfar.fusion import align, divisor, fuse, in_sigmas, statistics
from nearfar.recipe import Recipe, System, Watch, dominant_recipe
from nearfar.support.check import Array
from nearfar.threshold import PValue

NEAREST = 3  # normals that are named beside a score


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
    """The back ends of a system, combined and aligned by the scores of the normals."""

    def __init__(self, system: System, backends: Sequence[Backend]) -> None:
        self.system, self.backends = system, backends
        self.combined = build(system, iter(backends))
        self.mu, self.sigma = statistics(self.combined.train)
        self.train_values = in_sigmas(self.combined.train, self.mu, self.sigma)  # (N,) of the normals
        self._divisor = float(divisor(self.mu, self.sigma))
        self.tail = PValue(self.train_values)
        self._leaf = None if isinstance(system, Watch) else dominant_recipe(system, {})  # of a watch, the clip decides

    def score(self, vectors: Sequence[Array]) -> Scored:
        """The score of one clip from a vector (D,) per leaf."""
        leaves = [b.score_with_nearest(v[None], NEAREST) for b, v in zip(self.backends, vectors, strict=True)]
        combined, parts = self.combined.combine(iter([scores for scores, _, _ in leaves]))
        value = (float(combined[0]) - self.mu) / self._divisor
        p = float(np.exp(self.tail.log_p_unchecked(np.array([value]))[0]))
        part_scores = {name: float(part[0]) for name, part in parts.items()}
        leaf = dominant_recipe(self.system, part_scores) if self._leaf is None else self._leaf
        _, distances, nearest = leaves[leaf]
        blank = any(not vector.any() for vector in vectors)
        return Scored(value, p, part_scores, distances[0], nearest[0], blank)

    def triggers(self, part_scores: Mapping[str, float], threshold: float) -> tuple[str, ...]:
        """The parts of a watch whose score exceeds the `threshold`, rarest first; if none does, the rarest."""
        if not isinstance(self.system, Watch):
            return ()
        limit = (threshold * self.sigma + self.mu) / np.log(10)  # the unit of the part scores
        order = sorted(part_scores, key=lambda name: -part_scores[name])
        return tuple([name for name in order if part_scores[name] > limit] or order[:1])


class Fitted(Protocol):
    """A recipe, fusion or watch on fitted back ends."""

    @property
    def train(self) -> Array: ...
    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]: ...


def build(system: System, backends: Iterator[Backend]) -> Fitted:
    """The fitted form of `system`; `backends` are its leaves' back ends in the order of `recipe.leaves`."""
    if isinstance(system, Recipe):
        expanded = system.expand()
        return FittedRecipe(next(backends)) if expanded is system else build(expanded, backends)
    children = [build(part[-1], backends) for part in system.parts]
    if isinstance(system, Watch):
        return FittedWatch([name for name, _, _ in system.parts], [share for _, share, _ in system.parts], children)
    return FittedFusion([weight for weight, _ in system.parts], children)


@dataclass(frozen=True)
class FittedRecipe:
    """One back end."""

    backend: Backend

    @property
    def train(self) -> Array:
        """Leave-one-out scores (N,) of the normals."""
        return self.backend.train_scores

    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """The leaf's own scores (M,); a leaf has no parts."""
        return next(scores), {}


@dataclass(frozen=True)
class FittedFusion:
    """Aligned and averaged parts (eq. 17-18); a part is reported in standard deviations of its normals."""

    weights: list[float]
    children: list[Fitted]

    @cached_property
    def train(self) -> Array:
        """Fused leave-one-out scores (N,)."""
        return fuse([(child.train, child.train) for child in self.children], self.weights)

    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Fused scores (M,) and each part's aligned scores by number."""
        pairs = [(child.train, child.combine(scores)[0]) for child in self.children]
        return fuse(pairs, self.weights), {str(i + 1): align(*pair) for i, pair in enumerate(pairs)}


@dataclass(frozen=True)
class FittedWatch:
    """Parts under one false-alarm budget; a part is reported as -log10 of its budgeted p."""

    names: list[str]
    shares: list[float]
    children: list[Fitted]

    @cached_property
    def _tails(self) -> list[PValue]:
        return [PValue(child.train) for child in self.children]

    @cached_property
    def train(self) -> Array:
        """Rarity (N,) of each normal's leave-one-out scores."""
        return self._combined([child.train for child in self.children]).max(axis=0)

    def combine(self, scores: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Rarity (M,) of the rarest part, and every part's by name."""
        combined = self._combined([child.combine(scores)[0] for child in self.children])
        return combined.max(axis=0), dict(zip(self.names, combined / np.log(10), strict=True))

    def _combined(self, scores: list[Array]) -> Array:  # of the parts (M,) -> (parts, M)
        rarity = [-tail.log_p(s) for tail, s in zip(self._tails, scores, strict=True)]
        return np.stack(rarity) + np.log(self.shares)[:, None]
