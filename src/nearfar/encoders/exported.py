"""A network of your own as an encoder: an ONNX or LiteRT file, and a JSON manifest that describes its tensors.

    {"network": "yamnet.tflite", "sample_rate": 16000, "window": 15600, "hop": 7800,
     "output": "global_average_pooling2d/Mean", "layout": "BD", "licence": "Apache-2.0"}

    network       path of the file, relative to the manifest's folder
    sample_rate   in Hz; recordings are resampled to it
    window, hop   samples of the network's input, and between the starts of two inputs; without them: whole clips
    shortest      least samples, for a network that takes whole clips; silence is appended to a shorter clip
    input         name of the input tensor; default: the first
    output        name of the output tensor, or of an inner tensor; default: the first output
    layout        one letter for each axis of that tensor: T time, F frequency, D features, B any axis of size 1
    scale         the network's full scale: 1, or 32768 for 16-bit integers
    sha256        of the network file; default: it is not checked
    licence       of the network

A clip is cut into windows that start every `hop` samples; the last window is moved back to end with the clip. Silence
is appended to a clip shorter than a window. T of the grid is the number of windows times the T of each.
Every clip runs alone on one core, so its grid depends on the clip only. No torch is needed.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from nearfar.encoders.table import Frames, as_list
from nearfar.support.check import Array, integer, number
from nearfar.support.files import sha256_of
from nearfar.support.words import listed

RATES = (1_000, 384_000)  # Hz
LONGEST_WINDOW_S = 60.0  # longer windows and shorter hops would fill the memory
SHORTEST_HOP_S = 0.01
AXES = "BTFD"
LARGEST_MANIFEST = 1 << 16  # bytes

Run = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The keys of a manifest; see the module."""

    network: str
    sample_rate: int
    window: int | None = None
    hop: int | None = None
    shortest: int = 1
    input: str | None = None
    output: str | None = None
    layout: str | None = None
    scale: float = 1.0
    sha256: str | None = None
    licence: str = "not stated"

    def __post_init__(self) -> None:
        low, high = RATES
        integer("sample_rate", self.sample_rate, low=low, high=high)
        if (self.window is None) != (self.hop is None):
            raise ValueError("window and hop are given both, or neither where the network takes whole clips")
        if self.window is not None and self.hop is not None:
            integer("window", self.window, high=LONGEST_WINDOW_S * self.sample_rate)
            integer("hop", self.hop, low=SHORTEST_HOP_S * self.sample_rate, high=self.window)
        integer("shortest", self.shortest, high=LONGEST_WINDOW_S * self.sample_rate)
        number("scale", self.scale, above=0)
        for name in ("network", "input", "output", "layout", "sha256", "licence"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        parts = [*PurePosixPath(self.network).parts, *PureWindowsPath(self.network).parts]
        if not parts or ".." in parts or Path(self.network).is_absolute() or PureWindowsPath(self.network).anchor:
            raise ValueError(f"network must be a file in the manifest's folder, not {self.network!r}")
        axes = self.layout
        if axes is not None and (
            not set(axes) <= set(AXES) or any(axes.count(a) > 1 for a in "TFD") or "D" not in axes
        ):
            raise ValueError(f"layout is a letter per axis: T, F and B as they are there, D once; not {axes!r}")


def source_hash(path: str | Path) -> str:
    """SHA-256 of the two hashes of the manifest at `path` and of its network."""
    _, network = _manifest_and_network(path)
    return hashlib.sha256((sha256_of(network) + sha256_of(path)).encode()).hexdigest()


def read(path: str | Path | None) -> Manifest:
    """The manifest at `path`. Raises FileNotFoundError, or ValueError naming the file, the key and what is allowed."""
    if path is None:
        raise ValueError("encoder 'exported' is a network of your own: give its manifest, --weights MANIFEST.json")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no manifest {path}")
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("it is too large; is it the network's file?")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(f"expected an object, found a {type(data).__name__}")
        known = [f.name for f in fields(Manifest)]
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
        if missing := [key for key in ("network", "sample_rate") if key not in data]:
            raise ValueError(f"it lacks {' and '.join(missing)}")
        return Manifest(**data)
    except ValueError as error:  # also of text that is not JSON
        raise ValueError(f"{path} is no manifest of a network: {error}") from None


def _manifest_and_network(path: Any) -> tuple[Manifest, Path]:
    """The manifest at `path`, and the file of its network. Raises as `read`, and FileNotFoundError without network."""
    manifest = read(path)
    network = Path(path).parent / manifest.network
    if not network.is_file():
        raise FileNotFoundError(f"{path} names the network {manifest.network}, and there is no {network}")
    return manifest, network


def load(name: str, weights: Any, device: str = "cpu") -> Exported:
    """The network of the manifest `weights`, on the CPU with one core a clip, whatever the `device`."""
    manifest, network = _manifest_and_network(weights)
    path = Path(weights)
    if manifest.sha256 and (found := sha256_of(network)) != manifest.sha256.lower():
        raise ValueError(f"{network} has SHA-256 {found}, {path.name} says {manifest.sha256}: is it another version?")
    runner = _litert if network.suffix in (".tflite", ".litert") else _onnx
    return Exported(name, manifest, path, runner(network, manifest))


class Exported(Frames):
    """An encoder around a network's file; `weights_hash` is over network and manifest."""

    batches, device = False, "cpu"

    def __init__(self, name: str, manifest: Manifest, path: Path, run: Run) -> None:
        self.name, self.manifest, self.weights_path, self._run = name, manifest, path, run
        self.sample_rate, self.licence = manifest.sample_rate, manifest.licence
        probe = np.zeros(manifest.window or max(manifest.shortest, manifest.sample_rate), np.float32)
        self.dim = int(self._grid_of(probe).shape[-1])

    @cached_property
    def weights_hash(self) -> str:
        """The hash of network and manifest; see `source_hash`."""
        return source_hash(self.weights_path)

    def grid(self, waves: Any, layer: Any = None) -> Any:
        """(B, N) -> (B, T, F, D), or a list of 1-D arrays -> a list of (T, F, D)."""
        if layer is not None:
            raise ValueError(f"{self.manifest.network} gives one output, so layer={layer!r} does not exist")
        wave_list, stacked = as_list(waves)
        grids = []
        for i, wave in enumerate(wave_list):
            if not len(wave):
                raise ValueError(f"waves[{i}] holds no samples")
            grid = np.concatenate([self._grid_of(part) for part in parts(wave, self.manifest)])
            if not np.isfinite(grid).all():
                raise ValueError(f"{self.manifest.network} makes NaN or infinity of waves[{i}]: is `scale` right?")
            grids.append(grid)
        return np.stack(grids) if stacked and grids else grids

    def _grid_of(self, part: Array) -> Array:
        out = self._run((part * np.float32(self.manifest.scale)).astype(np.float32))
        return as_grid(out, self.manifest)


def parts(wave: Array, manifest: Manifest) -> list[Array]:
    """A wave (N,) -> the pieces (n,) that the network takes, in order."""
    size = manifest.window or max(manifest.shortest, len(wave))
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    last = len(wave) - size
    starts = [*range(0, last, manifest.hop or size), last]
    return [wave[start : start + size] for start in starts]


def as_grid(out: Array, manifest: Manifest) -> Array:
    """The network's output as a grid (T, F, D) float32, by the letters of `layout`."""
    layout = manifest.layout or {1: "D", 2: "BD"}.get(out.ndim)
    shape = f"{manifest.output or 'the output'} of {manifest.network} has shape {out.shape}"
    if layout is None or len(layout) != out.ndim:
        raise ValueError(f"{shape}: layout must be {out.ndim} letters, such as {'BTFD'[-out.ndim :]}, not {layout!r}")
    if any(axis == "B" and size != 1 for axis, size in zip(layout, out.shape, strict=True)):
        raise ValueError(f"{shape}, but layout {layout!r} needs size 1 where it has B")
    kept = [axis for axis in layout if axis != "B"]
    grid = out.reshape([size for axis, size in zip(layout, out.shape, strict=True) if axis != "B"])
    grid = grid.transpose([kept.index(axis) for axis in "TFD" if axis in kept])
    for at, axis in enumerate("TFD"):
        if axis not in kept:
            grid = np.expand_dims(grid, at)
    return np.ascontiguousarray(grid, np.float32)


def _onnx(network: Path, manifest: Manifest) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(f'{network.name} needs onnxruntime: pip install "nearfar[onnx]"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{network} is damaged, or not an ONNX file: {error}") from None
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    name = _named("input", manifest.input, list(inputs), network)
    output = _named("output", manifest.output, [tensor.name for tensor in session.get_outputs()], network)
    rank = len(inputs[name].shape)

    def run(part: Array) -> Array:
        try:
            return session.run([output], {name: part.reshape([1] * (rank - 1) + [-1])})[0]
        except Exception as error:
            raise ValueError(f"{network.name} does not take {len(part)} samples as {name!r}: {error}") from None

    return run


class _Interpreter(threading.local):
    """An interpreter for each thread, because it works on one clip at a time."""

    interpreter: Any = None


def _litert(network: Path, manifest: Manifest) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise ImportError(f'{network.name} needs ai-edge-litert: pip install "nearfar[litert]"') from None

    def interpreter(*, all_tensors: bool) -> Any:
        """No delegates: their kernels depend on the processor, and so would the rounding of 8-bit networks."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the memory of inner tensors
            made = Interpreter(
                str(network),
                num_threads=1,
                experimental_preserve_all_tensors=all_tensors,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
        made.allocate_tensors()
        return made

    try:
        plain = interpreter(all_tensors=False)
    except Exception as error:
        raise ValueError(f"{network} is damaged, or not a LiteRT file: {error}") from None
    inputs = {tensor["name"]: tensor for tensor in plain.get_input_details()}
    outputs = [tensor["name"] for tensor in plain.get_output_details()]
    inner = [tensor["name"] for tensor in plain.get_tensor_details() if tensor["name"] not in outputs]
    name = _named("input", manifest.input, list(inputs), network)
    output = _named("output", manifest.output, [*outputs, *inner], network)
    at = {tensor["name"]: tensor["index"] for tensor in plain.get_tensor_details()}
    rank = len(inputs[name]["shape"])
    own = _Interpreter()

    def run(part: Array) -> Array:
        if own.interpreter is None:
            own.interpreter = interpreter(all_tensors=output not in outputs)
        try:
            own.interpreter.set_tensor(at[name], part.reshape([1] * (rank - 1) + [-1]))
            own.interpreter.invoke()
            return np.array(own.interpreter.get_tensor(at[output]))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{network.name} does not take {len(part)} samples as {name!r}: {error}") from None

    return run


def _named(what: str, asked: str | None, there: list[str], network: Path) -> str:
    """The tensor `asked` for, by its whole name or the end of one of its aliases; the first tensor for None."""
    if asked is None:
        return there[0]
    aliases = [name.split(";") for name in there]
    ways: tuple[Callable[[list[str]], bool], ...] = (
        lambda names: ";".join(names) == asked,
        lambda names: f"/{names[0]}".endswith(f"/{asked}"),
        lambda names: any(f"/{name}".endswith(f"/{asked}") for name in names),
    )
    fits = next((found for way in ways if (found := [";".join(names) for names in aliases if way(names)])), [])
    if len(fits) == 1:
        return fits[0]
    shown = listed([name.split(";")[0] for name in (fits or there)], 12)
    raise ValueError(f"{network.name} has {len(fits) or 'no'} {what} tensors {asked!r}; choose one of: {shown}")
