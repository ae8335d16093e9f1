"""Any network of Table 1 as one ONNX file, from waveform to grid, with the manifest that `exported` reads.

    waves (1, N) -> front end -> rows (1, n, bands) -> loop over pieces: network -> grid (1, T, F, D)

Front end and network are exported by torch, each with one axis of free length; the chunks of the transformers and the
windows of OpenL3 are a loop in ONNX around the network. Mean, pre-emphasis, window and Fourier transform of a frame are
linear, so together they are one convolution: its kernel is what they make of the unit vectors.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from nearfar.atomic import write
from nearfar.check import Array
from nearfar.encoders import TABLE, beats, frontend, openl3
from nearfar.encoders import load as load_encoder
from nearfar.encoders.frozen import SHORTEST_S
from nearfar.encoders.transformers import FAMILIES, Transformer
from nearfar.hashes import of_file

OPSET = 18
LARGEST = 1_900_000_000  # bytes: an ONNX file is one message, of less than 2 GiB
OPERATORS = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "%": "Mod", "max": "Max"}
EAT_LEAST = 1024  # frames
ENDLESS = 1 << 40


class Front(nn.Module):
    """Waves (1, N) -> rows (1, n, bands): `before`, the power spectrum of frames, mel bands, `after`."""

    def __init__(
        self,
        linear: Callable[[Array], Array],
        frame: int,
        hop: int,
        bank: Array | None,
        before: Callable[[Tensor], Tensor],
        after: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        spectrum = linear(np.eye(frame))  # (frame, bins)
        self.kernel = _fixed(np.concatenate([spectrum.real, spectrum.imag], axis=1).T[:, None])
        self.bank = nn.Parameter(torch.eye(spectrum.shape[1]) if bank is None else _fixed(bank), requires_grad=False)
        self.hop, self.before, self.after = hop, before, after

    def forward(self, waves: Tensor) -> Tensor:
        real, imaginary = conv1d(self.before(waves)[:, None], self.kernel, stride=self.hop).chunk(2, dim=1)
        return self.after((real * real + imaginary * imaginary).transpose(1, 2) @ self.bank)


class Part(nn.Module):
    """A function of a tensor that uses a network, in the form that torch exports."""

    def __init__(self, function: Callable[[Tensor], Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.modules_used = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@dataclass(frozen=True)
class Plan:
    """How front end and body become one graph; piece i is rows i * `stride` to i * `stride` + `size`, none from `end`.

    `sums` are lines "name = a + b" in whole numbers, from n, that define `end`, `count` of pieces and `rows`, the most
    that T may be. `piece` is the shape of an example; its axis 1 is free unless it is all of `size`.
    """

    front: nn.Module
    body: nn.Module
    piece: tuple[int, ...]
    size: int
    stride: int
    sums: tuple[str, ...]
    shortest: int


def export(name: str, weights: Any, target: str | Path) -> Path:
    """Write encoder `name` with its weights file to the ONNX file `target`, and a manifest beside it; the manifest.

    Raises ImportError without the extra `onnx`, ValueError for a network that is too large for one file.
    """
    target = Path(target)
    encoder: Any = load_encoder(name, weights)
    plan = plan_of(encoder.network)
    content = build(plan, encoder.dim)
    if len(content) > LARGEST:
        raise ValueError(f"{name} takes {len(content):,} bytes, more than an ONNX file can hold")
    write(target, content)
    manifest = {
        "network": target.name,
        "sample_rate": encoder.sample_rate,
        "shortest": plan.shortest,
        "input": "waves",
        "output": "grid",
        "layout": "BTFD",
        "sha256": of_file(target),
        "licence": TABLE[name].licence,
    }
    return write(target.with_suffix(".json"), json.dumps(manifest, indent=2) + "\n")


def plan_of(network: Any) -> Plan:
    """The plan of a network as `Frozen` holds it."""
    if isinstance(network, Transformer):
        return _transformer(network)
    return _beats(network) if isinstance(network, beats.Spectral) else _openl3(network)


def _transformer(network: Transformer) -> Plan:
    trunk, chunk = network.module, network.chunk
    time, bands = trunk.shape.patch[0], trunk.shape.bands
    family = next(name for name, family in FAMILIES.items() if family is network.family)
    front, sums = _kaldi("hanning", _from_its_mean, _eat_rows), ("end = n + 0", "rows = n + 0")
    shortest = round(SHORTEST_S * frontend.RATE)
    if family == "eat":
        up = ("frames = n - 1024", "above = frames + 15", "rows = above / 16", "whole = rows * 16")
        sums = (*up, "end = whole max 1024")
    elif family == "m2d":
        nothing = float(-trunk.offset[0] / trunk.scale[0])  # what the network hears as 0
        front = _centred(
            400, "slaney", 80, 50, lambda mel: pad((mel + frontend.LOG_FLOOR).log(), (0, 0, 0, 16), value=nothing)
        )
        rest = ("frames = n - 16", f"rest = frames % {chunk}", "less = 0 - rest", "more = less % 16")
        sums = (*rest, "end = frames + more", "rows = n + 0")
    else:
        front = _centred(512, "htk", 64, 0, _decibels)
        shortest = max(shortest, 15 * frontend.HOP if family == "ced" else 0)
    counted = (f"over = end + {chunk - time}", f"count = over / {chunk}")
    body = Part(lambda x: trunk(trunk.normalised(x), [trunk.shape.depth])[0], trunk)
    return Plan(front, body, (1, 4 * time, bands), chunk, chunk, (*sums, *counted), shortest)


def _beats(network: beats.Spectral) -> Plan:
    def normalised(fbank: Tensor) -> Tensor:
        return (_log(fbank) - beats.MEAN) / beats.DOUBLE_STD

    front = _kaldi("povey", lambda waves: waves * beats.LEVEL, normalised)
    body = Part(lambda x: network.module(x, [network.depth])[0], network.module)
    sums = ("end = n + 0", "rows = n + 0", "count = n / n")
    return Plan(front, body, (1, 4 * beats.PATCH, beats.BANDS), ENDLESS, 1, sums, beats.SHORTEST)


def _openl3(network: openl3.Windowed) -> Plan:
    basis = network.module.basis
    size, edge = (512, 0) if basis is None else (2048, 982)

    def decibels(power: Tensor) -> Tensor:
        db = 10 * power.sqrt().clamp_min(1e-10).log10()
        return (db - db.amax((-2, -1), keepdim=True)).clamp_min(-80)

    bank = None if basis is None else basis.numpy()
    spectrum = Front(_hann(size), size, 242, bank, lambda waves: pad(waves, (edge, edge)), decibels)
    body = Part(lambda window: network.module(spectrum(window))[:, None, None], spectrum, network.module)
    front = Part(lambda waves: pad(waves, (openl3.CENTRE, openl3.RATE)))
    rest = f"rest = n - {2 * openl3.CENTRE + openl3.RATE}"
    sums = (rest, f"up = rest + {openl3.HOP - 1}", f"more = up / {openl3.HOP}", "count = more + 1")
    sums = (*sums, "end = n + 0", "rows = n + 0")
    return Plan(front, body, (1, openl3.RATE), openl3.RATE, openl3.HOP, sums, openl3.CENTRE)


def _kaldi(window: str, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> Front:
    shape = np.hanning(frontend.KALDI_FRAME) ** {"hanning": 1.0, "povey": 0.85}[window]

    def linear(frames: Array) -> Array:
        frames = frames - frames.mean(-1, keepdims=True)
        earlier = np.concatenate([frames[..., :1], frames[..., :-1]], -1)
        return np.fft.rfft((frames - 0.97 * earlier) * shape, 512)

    bank = frontend.mel_bank("kaldi", frontend.RATE, 512, 128, low=20)
    return Front(linear, frontend.KALDI_FRAME, frontend.HOP, bank, before, after)


def _centred(size: int, kind: str, bands: int, low: float, after: Callable[[Tensor], Tensor]) -> Front:
    def mirrored(waves: Tensor) -> Tensor:
        return pad(waves, (size // 2, size // 2), mode="reflect")

    bank = frontend.mel_bank(kind, frontend.RATE, size, bands, low=low)
    return Front(_hann(size), size, frontend.HOP, bank, mirrored, after)


def _hann(size: int) -> Callable[[Array], Array]:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return lambda frames: np.fft.rfft(frames * window)


def _from_its_mean(waves: Tensor) -> Tensor:
    return waves - waves.mean(-1, keepdim=True)


def _log(energies: Tensor) -> Tensor:
    return energies.clamp_min(frontend.LOG_FLOOR).log()


def _eat_rows(energies: Tensor) -> Tensor:
    return pad(_log(energies), (0, 0, 0, EAT_LEAST))  # zeros, as many as may be needed: `end` says how many are


def _decibels(power: Tensor) -> Tensor:
    db = 10 * power.clamp_min(1e-10).log10()
    return torch.maximum(db, db.amax((-2, -1), keepdim=True) - 120)


def _fixed(values: Array) -> Tensor:
    return nn.Parameter(torch.from_numpy(values.astype(np.float32)), requires_grad=False)


def build(plan: Plan, dim: int) -> bytes:
    """The ONNX file of a plan: input "waves" (1, N), output "grid" (1, T, F, D), N and T free."""
    try:
        import onnx
        from onnx import TensorProto, compose, helper
    except ImportError:
        raise ImportError("exporting needs onnx and onnxscript: pip install 'nearfar[onnx]'") from None
    limits = None if plan.piece[1] == plan.size else (16, plan.size if plan.size < ENDLESS else None)
    front = compose.add_prefix(_exported(plan.front, (1, max(plan.shortest, 8000)), (plan.shortest, None)), "front/")
    body = compose.add_prefix(_exported(plan.body, plan.piece, limits), "body/")
    constants: dict[str, Any] = {}

    def whole(value: int) -> str:
        constants[f"whole/{value}"] = helper.make_tensor(f"whole/{value}", TensorProto.INT64, [1], [value])
        return f"whole/{value}"

    def node(kind: str, *inputs: str, to: str, **attributes: Any) -> Any:
        return helper.make_node(kind, list(inputs), [to], **attributes)

    def summed(line: str) -> Any:
        name, _, first, sign, second = line.split()
        operands = [whole(int(word)) if word.isdigit() else word for word in (first, second)]
        return node(OPERATORS[sign], *operands, to=name)

    (piece_in,), (grid_out,) = body.graph.input, body.graph.output
    columns = grid_out.type.tensor_type.shape.dim[2].dim_value
    grids = [1, None, columns, dim]
    constants["none"] = helper.make_tensor("none", TensorProto.FLOAT, [1, 0, columns, dim], [])
    constants["true"] = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    loop = helper.make_graph(
        [
            node("Mul", "i", whole(plan.stride), to="start"),
            node("Add", "start", whole(plan.size), to="far"),
            node("Min", "far", "end", to="stop"),
            node("Slice", front.graph.output[0].name, "start", "stop", whole(1), to=piece_in.name),
            *body.graph.node,
            node("Concat", "so far", grid_out.name, to="so far, and this", axis=1),
            node("Identity", "go on", to="go on again"),
        ],
        "piece",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so far", TensorProto.FLOAT, grids),
        ],
        [
            helper.make_tensor_value_info("go on again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so far, and this", TensorProto.FLOAT, grids),
        ],
    )
    nodes = [
        node("Identity", "waves", to=front.graph.input[0].name),
        *front.graph.node,
        node("Shape", front.graph.output[0].name, to="n", start=1, end=2),
        *(summed(line) for line in plan.sums),
        node("Loop", "count", "true", "none", to="all", body=loop),
        node("Slice", "all", whole(0), "rows", whole(1), to="grid"),
    ]
    graph = helper.make_graph(
        nodes,
        "nearfar",
        [helper.make_tensor_value_info("waves", TensorProto.FLOAT, [1, "samples"])],
        [helper.make_tensor_value_info("grid", TensorProto.FLOAT, [1, "T", columns, dim])],
        [*front.graph.initializer, *body.graph.initializer, *constants.values()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _exported(module: nn.Module, shape: tuple[int, ...], limits: tuple[int, int | None] | None) -> Any:
    """An ONNX model of a module, the input's axis 1 free within `limits`, or fixed without."""
    free = ({1: torch.export.Dim("free", min=limits[0], max=limits[1])},) if limits else None
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            (torch.randn(shape),),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=free,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says to its own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
