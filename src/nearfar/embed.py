"""A clip -> one vector per recipe: waveform, frames, preprocessing, pooling, view (report sections 2.3-2.6).

Every shared step is done once per clip: recipes that need the same waveform share its encoder pass, whatever their
pooling or view. Every clip is embedded alone, so its vectors depend on nothing but the clip.

Waveforms: near, far, and what `enhance` makes of the pair. Enhancement runs at 16 kHz, so an n_fft counts samples of
1/16,000 s at every rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nearfar import enhance, pooling
from nearfar.audio import Clip, resample
from nearfar.check import Array
from nearfar.encoders import Encoder, as_frames
from nearfar.frames import suppress
from nearfar.recipe import SOFT_MASKS, Recipe
from nearfar.views import VIEWS, compose, needs_far

ENHANCE_RATE = 16_000


def embed(clip: Clip, recipes: Sequence[Recipe], encoders: Mapping[str, Encoder]) -> list[Array]:
    """One vector (D,) float32 per recipe; `encoders` holds the encoders by name.

    Raises ValueError naming the clip and the view if a view needs the far channel and the clip has none.
    """
    return Grids(clip, recipes, encoders).vectors()


class Grids:
    """A clip after its encoder passes, to be pooled whole or with a moment left out."""

    def __init__(self, clip: Clip, recipes: Sequence[Recipe], encoders: Mapping[str, Encoder]) -> None:
        self.recipes = recipes
        waves: dict[tuple[str, int], Array] = {}
        self._grids: dict[tuple[str, str], Array] = {}  # (waveform, encoder) -> (T, F, D)
        for recipe in recipes:
            encoder = encoders[recipe.encoder]
            for name in waveforms_of(recipe.view):
                if name != "near" and clip.far is None:
                    raise ValueError(
                        f"{clip.name}: has 1 channel but view {recipe.view!r} needs near and far. "
                        "Did you mean view='near_only'?"
                    )
                if (name, recipe.encoder) not in self._grids:
                    key = (name, encoder.sample_rate)
                    waves[key] = waves[key] if key in waves else waveform(clip, *key)
                    self._grids[name, recipe.encoder] = encoder.grid([waves[key]])[0]

    def vectors(self, without: tuple[float, float] | None = None) -> list[Array]:
        """One vector (D,) per recipe; `without` (start, stop), as shares of the clip, leaves those frames out."""
        vectors = []
        for recipe in self.recipes:
            _, view = waveform_of(recipe.view)
            pooled = [
                _pool(_left(self._grids[name, recipe.encoder], without), recipe) for name in waveforms_of(recipe.view)
            ]
            vectors.append(compose(view, *pooled, normalize=recipe.normalize).astype(np.float32))
        return vectors


def waveforms_of(view: str) -> tuple[str, ...]:
    """Names of the waveforms that a recipe's view listens to."""
    near, pooled = waveform_of(view)
    return (near, "far") if needs_far(pooled) else (near,)


def waveform_of(view: str) -> tuple[str, str]:
    """(name of the waveform that takes near's place, view of the pooled embeddings) of a recipe's view."""
    return ("near", view) if view in VIEWS else (view, "near_only")


def waveform(clip: Clip, name: str, rate: int) -> Array:
    """The waveform (N,) of a clip at `rate` Hz: "near", "far", "enh_a03f05", "w1_16384" (plain), "w1w_16384"."""
    if name in ("near", "far"):
        wave = clip.near if name == "near" else clip.far
        assert wave is not None
        return resample(wave, clip.rate, rate)
    pair = clip.at(ENHANCE_RATE)
    assert pair.far is not None
    kind, _, setting = name.partition("_")
    if kind == "enh":
        alpha, floor = SOFT_MASKS[setting]
        wave = enhance.soft_mask(pair.near, pair.far, alpha=alpha, floor=floor)
    else:
        wave = enhance.leakage_subtract(pair.near, pair.far, n_fft=int(setting), weighted=kind == "w1w")
    return resample(wave, ENHANCE_RATE, rate)


def _left(grid: Array, without: tuple[float, float] | None) -> Array:  # (T, F, D) -> (T', F, D), T' >= 1
    if without is None:
        return grid
    at = (np.arange(len(grid)) + 0.5) / len(grid)
    keep = (at < without[0]) | (at >= without[1])
    return grid[keep] if keep.any() else grid


def _pool(grid: Array, recipe: Recipe) -> Array:  # (T, F, D) -> (D',)
    frames = as_frames(grid, recipe.freq)
    if recipe.freq == "bands":
        frames = np.moveaxis(frames, -2, 0)  # each frequency row is pooled by its own weights
    if recipe.low is not None or recipe.spike is not None:
        frames = suppress(frames, recipe.low, recipe.spike)
    pooled: Array = pooling.pool(frames, recipe.pooling, p=recipe.p, alpha=recipe.alpha)
    return pooled.ravel()
