"""A fitted system: back ends put together as a Recipe, Fusion or Watch says (report section 2.8).

    vectors  one (M, D) array per leaf of the system, in the order of `recipe.leaves`
    train    (N,) leave-one-out scores of the normals         score(vectors) (M,), higher is more anomalous

A watch turns each part's score into the share p of normals that reach it and takes the rarest, each part weighing by
its share w of the false-alarm budget: s = max_j (log w_j - log p_j). Whichever part is rarest is what was heard.
The scores that p and the statistics of a fusion are taken from are leave-one-out and include each normal's own: normals
and new clips go through the same function, so a set-point from the normals holds for new clips (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from nearfar.backend import Backend
from nearfar.fusion import align, fuse
from nearfar.recipe import Recipe, System, Watch
from nearfar.support.check import Array
from nearfar.threshold import PValue


class Fitted(Protocol):
    """A fitted system: its normals' scores, scores of new vectors, and what each part of it says."""

    @property
    def train(self) -> Array: ...
    def score(self, vectors: Iterator[Array]) -> tuple[Array, dict[str, Array]]: ...


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

    def score(self, vectors: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Scores (M,); a leaf has no parts."""
        return self.backend.score(next(vectors)), {}


@dataclass(frozen=True)
class FittedFusion:
    """Aligned and averaged parts (eq. 17-18); a part is reported in standard deviations of its normals."""

    weights: list[float]
    children: list[Fitted]

    @cached_property
    def train(self) -> Array:
        """Fused leave-one-out scores (N,)."""
        return fuse([(child.train, child.train) for child in self.children], self.weights)

    def score(self, vectors: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Fused scores (M,) and each part's aligned scores by number."""
        scores = [child.score(vectors)[0] for child in self.children]
        parts = {str(i + 1): align(c.train, s) for i, (c, s) in enumerate(zip(self.children, scores, strict=True))}
        return fuse([(c.train, s) for c, s in zip(self.children, scores, strict=True)], self.weights), parts


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

    def score(self, vectors: Iterator[Array]) -> tuple[Array, dict[str, Array]]:
        """Rarity (M,) of the rarest part, and every part's by name."""
        combined = self._combined([child.score(vectors)[0] for child in self.children])
        return combined.max(axis=0), dict(zip(self.names, combined / np.log(10), strict=True))

    def _combined(self, scores: list[Array]) -> Array:  # of the parts (M,) -> (parts, M)
        rarity = [-tail.log_p(s) for tail, s in zip(self._tails, scores, strict=True)]
        return np.stack(rarity) + np.log(self.shares)[:, None]
