"""A clip -> one vector per recipe: waveform, frames, preprocessing, pooling, view (report sections 2.3-2.6).

    waveform   near, far, and what `enhance` makes of the pair, which happens at 16 kHz: an n_fft counts 1/16,000 s
    grid       (T, F, D): what an encoder gives for a waveform; a `EncoderInput` says which waveform, encoder and layer
    vector     (D',): grids with their frames preprocessed and pooled, composed by the recipe's view; "beam": (F, D')

Every shared step is done once per clip: recipes that need the same waveform share its encoder pass, whatever their
pooling or view. A clip's grids and vectors depend on nothing but the clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from nearfar import enhance, pooling
from nearfar.audio import Clip, resample
from nearfar.encoders import Described, Encoder, as_frames
from nearfar.errors import AudioError
from nearfar.frames import suppress
from nearfar.recipe import BEAM, SOFT_MASKS, Recipe
from nearfar.support.check import Array
from nearfar.views import VIEWS, compose, needs_far

ENHANCE_RATE = 16_000
CHANNELS = ("near", "far")  # waveforms as they were recorded; the others are made of the pair
POOLED = ("low", "spike", "pooling", "alpha", "p", "freq")  # the fields of a recipe that turn a grid into a vector


class EncoderInput(NamedTuple):
    """A waveform's way through an encoder, up to a layer (None: the final one); `pooled`: the settings, or "" (grid).

    Waveforms: "near", "far", "enh_a03f05", "w1_16384" (plain), "w1w_16384" (weighted), "w1i_16384" (its inside), ...
    """

    waveform: str
    encoder: str
    layer: int | None = None
    pooled: str = ""

    @property
    def grid(self) -> EncoderInput:
        """The pass whose frames are pooled here; itself if none are."""
        return self._replace(pooled="")


def embed(clip: Clip, recipes: Sequence[Recipe], encoders: Mapping[str, Encoder]) -> list[Array]:
    """One vector (D,) float32 per recipe; `encoders` holds the encoders by name.

    Raises ValueError naming the clip and the view if a view needs the far channel and the clip has none.
    """
    check_channels(clip, recipes)
    waves = waves_of(clip, [p for recipe in recipes for p in inputs_of(recipe)], encoders)
    return vectors(recipes, run([waves], encoders)[0])


def inputs_of(recipe: Recipe, *, pooled: bool = False) -> tuple[EncoderInput, ...]:
    """The passes that a recipe needs, one per waveform that its view listens to; pooled by its settings or as grids."""
    by = json.dumps({name: getattr(recipe, name) for name in POOLED}) if pooled else ""
    return tuple(EncoderInput(name, recipe.encoder, recipe.layer, by) for name in waveforms_of(recipe.view))


def check_channels(clip: Clip, recipes: Iterable[Recipe]) -> None:
    """AudioError naming clip and view if a recipe needs the far channel and the clip has none."""
    for view in [recipe.view for recipe in recipes if recipe.needs_far and clip.far is None]:
        raise AudioError(
            f"{clip.name}: has 1 channel, and both near and far are needed (view {view!r}): recorded in mono? To "
            "listen to one microphone alone, fit with --far -1, or a recipe of view near_only",
            "channel",
        )


def waves_of(
    clip: Clip, passes: Iterable[EncoderInput], encoders: Mapping[str, Described]
) -> dict[EncoderInput, Array]:
    """The waveform (N,) that goes in for each pass; those of one rate share it."""
    keys = {p: (p.waveform, encoders[p.encoder].sample_rate) for p in passes}
    made = waveforms(clip, keys.values())
    return {p: made[key] for p, key in keys.items()}


def run(
    clips: Sequence[Mapping[EncoderInput, Array]], encoders: Mapping[str, Encoder]
) -> list[dict[EncoderInput, Array]]:
    """The waveforms of several clips, by pass -> their grids (T, F, D), by pass: one call of each encoder for all."""
    out: list[dict[EncoderInput, Array]] = [{} for _ in clips]
    for name in dict.fromkeys(p.encoder for clip in clips for p in clip):
        mine = [(i, p) for i, clip in enumerate(clips) for p in clip if p.encoder == name]
        waves = {(i, p.waveform): clips[i][p] for i, p in mine}
        layers = list(dict.fromkeys(p.layer for _, p in mine))
        encoder, batch = encoders[name], list(waves.values())
        each = [encoder.grid(batch)] if layers == [None] else encoder.grid(batch, layer=layers)
        grids = {layer: dict(zip(waves, found, strict=True)) for layer, found in zip(layers, each, strict=True)}
        for i, p in mine:
            out[i][p] = grids[p.layer][i, p.waveform]
    return out


def vectors(
    recipes: Sequence[Recipe], found: Mapping[EncoderInput, Array], without: tuple[float, float] | None = None
) -> list[Array]:
    """One vector (D,), or (F, D) for "beam", per recipe from its passes, as grids or pooled already.

    `without` (start, stop), as shares of the clip, leaves those frames of the grids out.
    """
    out = []
    for recipe in recipes:
        _, view = waveform_of(recipe.view)
        pooled = [
            found[vector] if vector in found else pool(_left(found[vector.grid], without), recipe)
            for vector in inputs_of(recipe, pooled=True)
        ]
        out.append(compose(view, *pooled, normalize=recipe.normalize).astype(np.float32))
    return out


def pool(grid: Array, recipe: Recipe) -> Array:
    """A grid (T, F, D) -> its frames, preprocessed and pooled as the recipe says, (D',), or (F, D') for "beam"."""
    each = recipe.freq in ("bands", BEAM)  # each frequency row is pooled by its own weights
    frames = np.moveaxis(grid, -2, 0) if each else as_frames(grid, recipe.freq)
    if recipe.low is not None or recipe.spike is not None:
        frames = suppress(frames, recipe.low, recipe.spike)
    pooled: Array = pooling.pool(frames, recipe.pooling, p=recipe.p, alpha=recipe.alpha)
    return pooled if recipe.freq == BEAM else pooled.ravel()


def waveforms_of(view: str) -> tuple[str, ...]:
    """Names of the waveforms that a recipe's view listens to."""
    near, pooled = waveform_of(view)
    return (near, "far") if needs_far(pooled) else (near,)


def waveform_of(view: str) -> tuple[str, str]:
    """(name of the waveform that takes near's place, view of the pooled embeddings) of a recipe's view."""
    return ("near", view) if view in VIEWS else (view, "near_only")


def waveform(clip: Clip, name: str, rate: int) -> Array:
    """The waveform (N,) of a clip at `rate` Hz: "near", "far", "enh_a03f05", "w1w_16384", ... (see `EncoderInput`)."""
    return waveforms(clip, [(name, rate)])[name, rate]


def waveforms(clip: Clip, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Array]:
    """Several waveforms of a clip, by (name, rate in Hz); resampling and enhancement that they share happen once."""
    wanted = set(wanted)
    names = {name for name, _ in wanted}
    if clip.far is None and names - {"near"}:
        raise ValueError(f"{clip.name}: has 1 channel, and the waveform {min(names - {'near'})!r} needs near and far")

    @cache
    def recorded(channel: str, rate: int) -> Array:
        return resample(getattr(clip, channel), clip.rate, rate)

    made: dict[str, Array] = {}
    if others := sorted(names - {*CHANNELS}):
        made = _enhanced(recorded("near", ENHANCE_RATE), recorded("far", ENHANCE_RATE), others)
    return {
        (name, rate): resample(made[name], ENHANCE_RATE, rate) if name in made else recorded(name, rate)
        for name, rate in wanted
    }


def _enhanced(near: Array, far: Array, names: Sequence[str]) -> dict[str, Array]:
    """Waveforms (N,) made of the pair (N,), all at `ENHANCE_RATE`, by name."""
    masks = {name: SOFT_MASKS[name.removeprefix("enh_")] for name in names if name.startswith("enh_")}
    made = dict(zip(masks, enhance.soft_masks(near, far, [*masks.values()]) if masks else [], strict=True))
    for name in names:
        if name not in masks:
            kind, _, n_fft = name.partition("_")
            cleaned = enhance.leakage_subtract(near, far, n_fft=int(n_fft), weighted=kind != "w1")
            made[name] = _inside(cleaned, int(n_fft) // 4) if kind == "w1i" else cleaned
    return made


def _inside(x: Array, count: int) -> Array:
    """x (N,) with `count` samples at either end replaced by their neighbours', mirrored.

    Beyond a clip's ends the STFT mirrors both microphones, and mirrored sound has come through no room: there 3 to 5 dB
    more of the noise are left, in most clips the loudest moment of all.
    """
    count = min(count, len(x) // 8)
    return np.pad(x[count : len(x) - count], count, mode="reflect")


def _left(grid: Array, without: tuple[float, float] | None) -> Array:  # (T, F, D) -> (T', F, D), T' >= 1
    if without is None:
        return grid
    at = (np.arange(len(grid)) + 0.5) / len(grid)
    keep = (at < without[0]) | (at >= without[1])
    return grid[keep] if keep.any() else grid
