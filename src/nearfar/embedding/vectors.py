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

from nearfar import enhance
from nearfar.audio import CHANNELS, Clip, resample
from nearfar.encoders import CLS, FREQS, Encoder, EncoderDescription, Layer, Layers
from nearfar.errors import AudioError
from nearfar.frames import suppress
from nearfar.pooling import POOLINGS
from nearfar.recipe import BEAM, Recipe, parse_view
from nearfar.support.arrays import Place, on_host, place
from nearfar.support.check import Array, finite
from nearfar.views import composed

ENHANCE_RATE = 16_000
FRAMES = FREQS | {CLS: FREQS["concat"]}  # a grid as frames, by the `freq` of a recipe
POOLED = ("low", "spike", "pooling", "alpha", "p", "freq")  # the fields of a recipe that turn a grid into a vector


class EncoderInput(NamedTuple):
    """A waveform, the encoder that it goes through, and the layer whose output is taken (None: the final one).

    Of a tuple of layers, the average of their outputs is taken.

    `waveform` is a name as `recipe.View.waveforms` gives it. `pooled` is "" for the grid, or the settings (JSON) by
    which the frames of the grid are pooled.
    """

    waveform: str
    encoder: str
    layer: Layers = None
    pooled: str = ""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers whose outputs are averaged."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    @property
    def grid(self) -> EncoderInput:
        """The input whose grid is pooled here; itself if nothing is pooled."""
        return self._replace(pooled="")


def embed(clip: Clip, recipes: Sequence[Recipe], encoders: Mapping[str, Encoder]) -> list[Array]:
    """One vector (D,) float32 per recipe; `encoders` holds the encoders by name.

    Raises ValueError naming the clip and the view if a view needs the far channel and the clip has none.
    """
    check_channels(clip, recipes)
    inputs = [i for recipe in recipes for i in grids_of(recipe)]
    waves = waveforms_for(clip, inputs, encoders)  # near, far, enhanced, at the encoders' rates
    (grids,) = encode([waves], encoders)
    return vectors(recipes, grids)  # preprocessed, pooled and composed


@cache
def inputs_of(recipe: Recipe) -> tuple[EncoderInput, ...]:
    """The pooled inputs of a recipe, one per waveform of its view, and those of the recipes appended to it."""
    if recipe.plus:
        return tuple(i for part in recipe.parts for i in inputs_of(part))
    settings = json.dumps({name: getattr(recipe, name) for name in POOLED})
    waveforms = recipe.parsed_view.waveforms
    return tuple(EncoderInput(name, recipe.encoder, layer_of(recipe.outputs), settings) for name in waveforms)


def layer_of(outputs: tuple[Layer, ...]) -> Layers:
    """The `layer` of an input that averages these outputs."""
    return outputs if len(outputs) > 1 else outputs[0]


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
    clip: Clip, inputs: Iterable[EncoderInput], encoders: Mapping[str, EncoderDescription]
) -> dict[EncoderInput, Array]:
    """The waveform (N,) of each input at the rate of its encoder, enhanced on the encoder's device."""
    inputs = list(inputs)
    out: dict[EncoderInput, Array] = {}
    for device in dict.fromkeys(encoders[i.encoder].device for i in inputs):
        mine = [i for i in inputs if encoders[i.encoder].device == device]
        keys = {i: (i.waveform, encoders[i.encoder].sample_rate) for i in mine}
        made = waveforms(clip, keys.values(), device)
        out |= {i: made[key] for i, key in keys.items()}
    return out


def encode(
    clips: Sequence[Mapping[EncoderInput, Array]], encoders: Mapping[str, Encoder]
) -> list[dict[EncoderInput, Array]]:
    """The waveforms of several clips, by input -> their grids (T, F, D), by input: one call of each encoder for all."""
    out: list[dict[EncoderInput, Array]] = [{} for _ in clips]
    for name in dict.fromkeys(i.encoder for clip in clips for i in clip):
        mine = [(at, i, i.layers) for at, clip in enumerate(clips) for i in clip if i.encoder == name]
        waves = {(at, i.waveform): clips[at][i] for at, i, _ in mine}
        layers = list(dict.fromkeys(layer for _, _, own in mine for layer in own))
        encoder, batch = encoders[name], list(waves.values())
        each = [encoder.grid(batch)] if layers == [None] else encoder.grid(batch, layer=layers)
        grids = {layer: dict(zip(waves, found, strict=True)) for layer, found in zip(layers, each, strict=True)}
        for at, i, own in mine:
            each = [grids[layer][at, i.waveform] for layer in own]
            out[at][i] = each[0] if len(each) == 1 else np.mean(each, axis=0)
    return out


def vectors(
    recipes: Sequence[Recipe], found: Mapping[EncoderInput, Array], without: tuple[float, float] | None = None
) -> list[Array]:
    """One vector (D,), or (F, D) for "beam", per recipe from the grids, or pooled embeddings, of its inputs.

    `without` (start, stop), as shares of the clip, leaves those frames of the grids out.
    """
    out = []
    for recipe in recipes:
        each = [_vector(part, found, without) for part in recipe.parts]
        out.append(np.concatenate(each) if recipe.plus else each[0])
    return out


def _vector(recipe: Recipe, found: Mapping[EncoderInput, Array], without: tuple[float, float] | None) -> Array:
    inputs = inputs_of(recipe)
    grids = {i: found[grid] for i, grid in zip(inputs, grids_of(recipe), strict=True) if i not in found}
    if without is not None:
        grids = {i: _without(grid, without) for i, grid in grids.items()}
    pooled = dict(zip(grids, pool(list(grids.values()), recipe), strict=True))
    each = [pooled[i] if i in pooled else found[i] for i in inputs]
    far = each[1] if len(each) > 1 else None
    vector = composed(parse_view(recipe.view).pooled, each[0], far, normalize=recipe.normalize).astype(np.float32)
    return vector if np.isfinite(vector).all() else finite(f"the vector of encoder {recipe.encoder!r}", vector)


def pool(grids: Sequence[Array], recipe: Recipe) -> list[Array]:
    """Grids (T, F, D) -> their frames, preprocessed and pooled as the recipe says: (D',), or (F, D') for "beam"."""
    is_ready = all(grid.dtype == np.float32 and np.isfinite(grid).all() for grid in grids)
    grids = grids if is_ready else [finite(f"the grid of encoder {recipe.encoder!r}", grid) for grid in grids]
    if recipe.freq in ("bands", BEAM):  # each frequency row is pooled by its own weights
        frames = [np.moveaxis(grid, -2, 0) for grid in grids]
    else:
        frames = [FRAMES[recipe.freq](grid) for grid in grids]
    if recipe.low is not None or recipe.spike is not None:
        frames = [suppress(x, recipe.low, recipe.spike) for x in frames]
    pooled = [POOLINGS[recipe.pooling](x, recipe.p, recipe.alpha) for x in frames]
    return pooled if recipe.freq == BEAM else [x.ravel() for x in pooled]


def waveform(clip: Clip, name: str, rate: int) -> Array:
    """The waveform (N,) of a clip at `rate` Hz; `name` is "near", "far", or the name of an enhanced waveform."""
    return waveforms(clip, [(name, rate)])[name, rate]


def waveforms(clip: Clip, wanted: Iterable[tuple[str, int]], device: Place = "cpu") -> dict[tuple[str, int], Array]:
    """Several waveforms of a clip, by (name, rate in Hz); each is resampled and, on the device, enhanced once."""
    wanted = dict.fromkeys(wanted)
    names = {name for name, _ in wanted}
    if clip.far is None and names - {"near"}:
        raise ValueError(f"{clip.name}: has 1 channel, and the waveform {min(names - {'near'})!r} needs near and far")

    enhanced = sorted(names - {*CHANNELS})
    sources = dict.fromkeys([*wanted, *((channel, ENHANCE_RATE) for channel in CHANNELS if enhanced)])
    waves = {
        (name, rate): getattr(clip, name) if rate == clip.rate else resample(getattr(clip, name), clip.rate, rate)
        for name, rate in sources
        if name in CHANNELS
    }
    if enhanced:
        made = _enhanced(waves["near", ENHANCE_RATE], waves["far", ENHANCE_RATE], enhanced, device)
        waves |= {
            (name, rate): made[name] if rate == ENHANCE_RATE else resample(made[name], ENHANCE_RATE, rate)
            for name, rate in wanted
            if name in made
        }
    return {key: waves[key] for key in wanted}


def _enhanced(near: Array, far: Array, names: Sequence[str], device: Place) -> dict[str, Array]:
    """Waveforms (N,) made of the pair (N,), all at `ENHANCE_RATE`, by name."""
    views = [parse_view(name) for name in names]
    pair = place(near, device), place(far, device)
    made: dict[str, Array] = {}
    for n_fft, hop in dict.fromkeys(v.stft for v in views if v.stft):
        masks = {v.name: (v.alpha or 0.0, v.floor or 0.0) for v in views if v.stft == (n_fft, hop)}
        waves = enhance.soft_masks(*pair, [*masks.values()], n_fft=n_fft, hop=hop)
        made |= zip(masks, map(on_host, waves), strict=True)
    subtractions = [(v.name, v.kind, v.n_fft) for v in views if v.n_fft is not None]
    cleaned = {
        (n_fft, weighted): on_host(enhance.leakage_subtract(*pair, n_fft=n_fft, weighted=weighted))
        for n_fft, weighted in {(n_fft, kind != "w1") for _, kind, n_fft in subtractions}
    }
    for name, kind, n_fft in subtractions:
        wave = cleaned[n_fft, kind != "w1"]
        made[name] = near - wave if kind == "noise" else _mirror_ends(wave, n_fft // 4) if kind == "w1i" else wave
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
