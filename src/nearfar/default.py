"""The default without weights (provisional)."""

from __future__ import annotations

from collections.abc import Sequence

from nearfar.audio import Clip
from nearfar.enhance import longest_window
from nearfar.recipe import Recipe, System, Watch


def choose(clips: Sequence[Clip], count: int | None = None) -> tuple[System, str]:
    n = longest_window(min(int(c.seconds * 16000) for c in clips))
    view = f"w1w_{n}" if all(c.far is not None for c in clips) else "near_only"
    common = dict(view=view, normalize=False, method="mahalanobis", shrinkage=0.1, standardize=True)
    return Watch((("steady", 0.5, Recipe(pooling="quantile", **common)), ("transient", 0.5, Recipe(pooling="peak", **common)))), view
