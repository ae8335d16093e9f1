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
    waves, grids = {}, {}
    vectors = []
    for recipe in recipes:
        near, view = waveform_of(recipe.view)
        encoder = encoders[recipe.encoder]
        pooled = []
        for name in (near, "far") if needs_far(view) else (near,):
            if (name != "near") and clip.far is None:
                raise ValueError(
                    f"{clip.name}: has 1 channel but view {recipe.view!r} needs near and far. Did you mean view='near_only'?"
                )
            key = (name, recipe.encoder)
            if key not in grids:
                wave = waves.setdefault((name, encoder.sample_rate), None)
                wave = waveform(clip, name, encoder.sample_rate) if wave is None else wave
                grids[key] = encoder.grid([wave])[0]
            pooled.append(_pool(grids[key], recipe))
        vectors.append(compose(view, *pooled, normalize=recipe.normalize).astype(np.float32))
    return vectors


def waveform_of(view: str) -> tuple[str, str]:
    """(name of the waveform that takes near's place, view of the pooled embeddings) of a recipe's view."""
    return ("near", view) if view in VIEWS else (view, "near_only")


def waveform(clip: Clip, name: str, rate: int) -> Array:
    """The waveform (N,) of a clip at `rate` Hz: "near", "far", "enh_a03f05", "w1_16384" (plain), "w1w_16384" (weighted)."""
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


def _pool(grid: Array, recipe: Recipe) -> Array:  # (T, F, D) -> (D',)
    frames = as_frames(grid, recipe.freq)
    if recipe.freq == "bands":
        frames = np.moveaxis(frames, -2, 0)  # each frequency row is pooled by its own weights
    if recipe.low is not None or recipe.spike is not None:
        frames = suppress(frames, recipe.low, recipe.spike)
    pooled: Array = pooling.pool(frames, recipe.pooling, p=recipe.p, alpha=recipe.alpha)
    return pooled.ravel()
