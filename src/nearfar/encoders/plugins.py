"""An encoder of the user: any object with `sample_rate`, `dim` and `grid(waves)` or `frames(waves)`.

    sample_rate, dim   Hz, and the number of features D
    grid(waves)        waves (1, N) float32 -> (1, T, F, D) or a list of one (T, F, D)
    frames(waves)      waves (1, N) float32 -> (1, T, D) or a list of one (T, D), where there is no `grid`
                       numbers of numpy or torch, on any device and with gradients or not, all of them finite
    weights_hash       optional: text that changes whenever the outputs do; without it no store keeps them, and no later
                       process takes over results of a search
    licence            optional

Waves come one at a time, so that a clip's grid depends on the clip alone, and never from two threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nearfar.encoders.table import TABLE, Entry, Frames, as_list, device_class
from nearfar.support.arrays import on_host
from nearfar.support.check import Array, finite, integer
from nearfar.support.plugins import Plugins, accepted


@runtime_checkable
class MakesGrids(Protocol):
    """An encoder of the user that gives grids."""

    sample_rate: int
    dim: int

    def grid(self, waves: Any) -> Any: ...


@runtime_checkable
class MakesFrames(Protocol):
    """An encoder of the user that gives frames."""

    sample_rate: int
    dim: int

    def frames(self, waves: Any) -> Any: ...


Load = Callable[..., MakesGrids | MakesFrames]
ENTRY = Entry(__name__, 0, 0, "not stated", 0, None, "plug-in", bf16=False)
PLUGINS = Plugins("encoder", "nearfar.register_encoder", TABLE, lambda _: ENTRY)
LOADS: dict[str, Load] = {}


def register_encoder(name: str, load: Load) -> None:
    """Add an encoder to recipes: `load(weights=None, device="cpu")` gives an object as the module describes.

        name   what recipes call it; an earlier encoder of that name that you registered is replaced
        load   function or class, called when the encoder is first needed; `weights` is the file or folder that the user
               gave for it. It may leave out arguments that it has no use for

    ValueError for the name of an encoder of nearfar.
    """
    PLUGINS.register(name, load)
    LOADS[name] = load


def name_of_encoder(given: Any) -> Any:
    """The name of an encoder that is an object, or of its `load`, which is registered if it is not yet.

    Anything else is returned as it is.
    """
    is_object = isinstance(given, MakesGrids | MakesFrames) and not isinstance(given, type)
    if not is_object and not callable(given):
        return given
    name = PLUGINS.registered(given)
    LOADS.setdefault(name, (lambda: given) if is_object else given)
    return name


class PluginEncoder(Frames):
    """An object of the user as an `Encoder`."""

    batches = False

    def __init__(self, name: str, made: MakesGrids | MakesFrames, device: str = "cpu") -> None:
        if not isinstance(made, MakesGrids | MakesFrames):
            raise ValueError(
                f"encoder {name!r} is a {type(made).__name__}: sample_rate, dim and grid(waves) or frames(waves) needed"
            )
        self.name, self.made, self.device, self._lock = name, made, device, threading.Lock()
        self.sample_rate = integer(f"sample_rate of encoder {name!r}", made.sample_rate)
        self.dim = integer(f"dim of encoder {name!r}", made.dim)
        self.licence = str(getattr(made, "licence", "not stated"))
        given, kind = str(getattr(made, "weights_hash", "")).replace(":", "-"), device_class(device)
        self.weights_hash = given if kind == "cpu" or not given else f"{given}:{kind}"

    def grid(self, waves: Any, layer: Any = None) -> Any:
        """(B, N) -> (B, T, F, D), a list of 1-D arrays -> a list of (T, F, D); F = 1 where the object gives frames."""
        if layer is not None:
            raise ValueError(f"encoder {self.name!r} has no layers to choose from, so layer={layer!r} does not exist")
        each, stacked = as_list(waves)
        grids = [self._one(wave) for wave in each]
        return np.stack(grids) if stacked and grids else grids

    def _one(self, wave: Array) -> Array:
        makes_grids, wave = isinstance(self.made, MakesGrids), wave.astype(np.float32)[None]
        with self._lock:
            made = self.made.grid(wave) if isinstance(self.made, MakesGrids) else self.made.frames(wave)
        found = on_host(finite(f"the output of encoder {self.name!r}", made[0])).astype(np.float32, copy=False)
        if not found.size:
            seconds = wave.shape[1] / self.sample_rate
            raise ValueError(
                f"encoder {self.name!r} gives no frame for a wave of {seconds:.3g} s: is it too short for it?"
            )
        grid = found if makes_grids else found[:, None] if found.ndim == 2 else found
        if grid.ndim != 3 or grid.shape[-1] != self.dim:
            wanted = f"T, F, {self.dim}" if makes_grids else f"T, {self.dim}"
            raise ValueError(
                f"encoder {self.name!r} gives {found.shape} for a wave, and ({wanted}) is expected: of waves (1, N) an "
                f"array (1, {wanted}), or a list of one ({wanted})"
            )
        return grid


def load(name: str, weights: Any, device: str = "cpu") -> PluginEncoder:
    """The encoder of the user that is registered as `name`."""
    make = LOADS[name]
    return PluginEncoder(name, make(**accepted(make, {"weights": weights, "device": device})), device)


def source_hash(name: str, weights: Any) -> str:
    """`weights_hash` of an encoder of the user, which is loaded for it."""
    return load(name, weights).weights_hash
