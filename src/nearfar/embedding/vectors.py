"""One clip -> one vector per recipe: waveform, grid, preprocessing, pooling, view (report sections 2.3-2.6).

    waveform   (N,): near, far, or one that `enhance` makes of the pair at 16 kHz (an n_fft counts samples at 16 kHz)
    grid       (T, F, D): what an encoder gives for a waveform
    pooled     (D',): the frames of a grid, preprocessed and pooled; (F, D') for "beam"
    vector     (D'',): pooled embeddings, composed by the recipe's view

Recipes that need the same waveform share its pass through the encoder, whatever their pooling or view. A clip's grids
and vectors depend on nothing but the clip.
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
from nearfar.recipe import BEAM, Recipe, parse_view
from nearfar.support.check import Array
from nearfar.views import compose

ENHANCE_RATE = 16_000
CHANNELS = ("near", "far")  # waveforms as recorded; all others are made of the pair
POOLED = ("low", "spike", "pooling", "alpha", "p", "freq")  # the fields of a recipe that turn a grid into a vector


class EncoderInput(NamedTuple):
    """A waveform, the encoder that it goes through, and the layer whose output is taken (None: the final one).

    `waveform` is a name as `recipe.View.waveforms` gives it. `pooled` is "" for the grid, or the settings (JSON) by
    which the frames of the grid are pooled.
    """

    waveform: str
    encoder: str
    layer: int | None = None
    pooled: str = ""

    @property
    def grid(self) -> EncoderInput:
        """The input whose grid is pooled here; itself if nothing is pooled."""
        return self._replace(pooled="")


def embed(clip: Clip, recipes: Sequence[Recipe], encoders: Mapping[str, Encoder]) -> list[Array]:
    """One vector (D,) float32 per recipe; `encoders` holds the encoders by name.

    Raises ValueError naming the clip and the view if a view needs the far channel and the clip has none.
    """
    check_channels(clip, recipes)
    waves = waveforms_for(clip, [i for recipe in recipes for i in grids_of(recipe)], encoders)
    return vectors(recipes, encode([waves], encoders)[0])


@cache
def inputs_of(recipe: Recipe) -> tuple[EncoderInput, ...]:
    """The pooled inputs of a recipe, one per waveform of its view."""
    settings = json.dumps({name: getattr(recipe, name) for name in POOLED})
    waveforms = recipe.parsed_view.waveforms
    return tuple(EncoderInput(name, recipe.encoder, recipe.layer, settings) for name in waveforms)


@cache
def grids_of(recipe: Recipe) -> tuple[EncoderInput, ...]:
    """The inputs whose grids `inputs_of` a recipe are pooled from, in the same order."""
    return tuple(i.grid for i in inputs_of(recipe))


def check_channels(clip: Clip, recipes: Iterable[Recipe]) -> None:
    """AudioError naming clip and view if a recipe needs the far channel and the clip has none."""
    if clip.far is not None:
        return
    for recipe in recipes:
        if recipe.needs_far:
            raise AudioError(
                f"{clip.name}: has 1 channel, and both near and far are needed (view {recipe.view!r}): recorded in "
                "mono? To listen to one microphone alone, fit with --far -1, or a recipe of view near_only",
                "channel",
            )


def waveforms_for(
    clip: Clip, inputs: Iterable[EncoderInput], encoders: Mapping[str, Described]
) -> dict[EncoderInput, Array]:
    """The waveform (N,) of each input at the rate of its encoder."""
    keys = {i: (i.waveform, encoders[i.encoder].sample_rate) for i in inputs}
    made = waveforms(clip, keys.values())
    return {i: made[key] for i, key in keys.items()}


def encode(
    clips: Sequence[Mapping[EncoderInput, Array]], encoders: Mapping[str, Encoder]
) -> list[dict[EncoderInput, Array]]:
    """The waveforms of several clips, by input -> their grids (T, F, D), by input: one call of each encoder for all."""
    out: list[dict[EncoderInput, Array]] = [{} for _ in clips]
    for name in dict.fromkeys(i.encoder for clip in clips for i in clip):
        mine = [(at, i) for at, clip in enumerate(clips) for i in clip if i.encoder == name]
        waves = {(at, i.waveform): clips[at][i] for at, i in mine}
        layers = list(dict.fromkeys(i.layer for _, i in mine))
        encoder, batch = encoders[name], list(waves.values())
        each = [encoder.grid(batch)] if layers == [None] else encoder.grid(batch, layer=layers)
        grids = {layer: dict(zip(waves, found, strict=True)) for layer, found in zip(layers, each, strict=True)}
        for at, i in mine:
            out[at][i] = grids[i.layer][at, i.waveform]
    return out


def vectors(
    recipes: Sequence[Recipe],
    found: Mapping[EncoderInput, Array],
    without: tuple[float, float] | None = None,
) -> list[Array]:
    """One vector (D,), or (F, D) for "beam", per recipe from the grids, or pooled embeddings, of its inputs.

    `without` (start, stop), as shares of the clip, leaves those frames of the grids out.
    """
    out = []
    for recipe in recipes:
        pooled = []
        for pooled_input, grid_input in zip(inputs_of(recipe), grids_of(recipe), strict=True):
            if pooled_input in found:
                pooled.append(found[pooled_input])
            else:
                grid = found[grid_input]
                pooled.append(pool(grid if without is None else _without(grid, without), recipe))
        composed = compose(recipe.parsed_view.pooled, *pooled, normalize=recipe.normalize)
        out.append(composed.astype(np.float32))
    return out


def pool(grid: Array, recipe: Recipe) -> Array:
    """A grid (T, F, D) -> its frames, preprocessed and pooled as the recipe says, (D',), or (F, D') for "beam"."""
    each = recipe.freq in ("bands", BEAM)  # each frequency row is pooled by its own weights
    frames = np.moveaxis(grid, -2, 0) if each else as_frames(grid, recipe.freq)
    if recipe.low is not None or recipe.spike is not None:
        frames = suppress(frames, recipe.low, recipe.spike)
    pooled: Array = pooling.pool(frames, recipe.pooling, p=recipe.p, alpha=recipe.alpha)
    return pooled if recipe.freq == BEAM else pooled.ravel()


def waveform(clip: Clip, name: str, rate: int) -> Array:
    """The waveform (N,) of a clip at `rate` Hz; `name` is "near", "far", or the name of an enhanced waveform."""
    return waveforms(clip, [(name, rate)])[name, rate]


def waveforms(clip: Clip, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Array]:
    """Several waveforms of a clip, by (name, rate in Hz); each is resampled and enhanced once."""
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
    views = [parse_view(name) for name in names]
    masks = {v.name: (v.alpha, v.floor) for v in views if v.alpha is not None and v.floor is not None}
    made = dict(zip(masks, enhance.soft_masks(near, far, [*masks.values()]) if masks else [], strict=True))
    for view in views:
        if view.n_fft is not None:
            cleaned = enhance.leakage_subtract(near, far, n_fft=view.n_fft, weighted=view.kind != "w1")
            made[view.name] = _mirror_ends(cleaned, view.n_fft // 4) if view.kind == "w1i" else cleaned
    return made


def _mirror_ends(x: Array, count: int) -> Array:
    """x (N,) with `count` samples at either end replaced by a mirror image of the samples next to them.

    Beyond the ends of a clip the STFT mirrors both microphones, but no room filtered the mirrored sound: more noise is
    left there than anywhere else.
    """
    count = min(count, len(x) // 8)
    return np.pad(x[count : len(x) - count], count, mode="reflect")


def _without(grid: Array, span: tuple[float, float]) -> Array:  # (T, F, D) -> (T', F, D), T' >= 1
    at = (np.arange(len(grid)) + 0.5) / len(grid)
    keep = (at < span[0]) | (at >= span[1])
    return grid[keep] if keep.any() else grid
