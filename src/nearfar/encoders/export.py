"""Any network of Table 1 as one ONNX file, from waveform to grid, with the manifest that `exported` reads.

    waves (1, N) -> front end -> rows (1, n, bands) -> loop over pieces: network -> grid (1, T, F, D)

torch exports front end and network, each with one axis of free length. The chunks of the transformers and the windows
of OpenL3 are a loop in ONNX around the network. Mean removal, pre-emphasis, window and Fourier transform of a frame are
linear: together they are one convolution, and its kernel is their result for the unit vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from nearfar.encoders import beats, frontend, openl3, subbands
from nearfar.encoders import load as load_encoder
from nearfar.encoders.frozen import SHORTEST_S
from nearfar.encoders.onnxfile import ENDLESS, Integer, Plan, build
from nearfar.encoders.table import TABLE
from nearfar.encoders.transformers import EAT_FRAMES, FAMILIES, Transformer
from nearfar.support.files import atomic_write, hash_file

LARGEST = 1_900_000_000  # bytes: an ONNX file is one message, of less than 2 GiB
CPU = torch.device("cpu")


class Front(nn.Module):
    """Waves (1, N) -> rows (1, n, bands): `before`, the power spectrum of frames, mel bands, `after`."""

    def __init__(
        self,
        linear: Callable[[Tensor], Tensor],
        frame: int,
        hop: int,
        bank: Tensor | None,
        before: Callable[[Tensor], Tensor],
        after: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        spectrum = linear(torch.eye(frame, dtype=torch.float64))  # (frame, bins)
        self.kernel = _constant(torch.cat([spectrum.real, spectrum.imag], dim=1).T[:, None])
        self.bank = _constant(torch.eye(spectrum.shape[1]) if bank is None else bank)
        self.hop, self.before, self.after = hop, before, after

    def forward(self, waves: Tensor) -> Tensor:
        real, imaginary = conv1d(self.before(waves)[:, None], self.kernel, stride=self.hop).chunk(2, dim=1)
        return self.after((real * real + imaginary * imaginary).transpose(1, 2) @ self.bank)


class Part(nn.Module):
    """A function of a tensor as a module, which torch can export; `modules` are the networks that it uses."""

    def __init__(self, function: Callable[[Tensor], Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.modules_used = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def export(name: str, weights: Any, target: str | Path) -> Path:
    """Write encoder `name` to the ONNX file `target` and a manifest beside it; returns the manifest's path.

    Raises ImportError without the extra `onnx`, ValueError for a network that is too large for one file.
    """
    target = Path(target)
    encoder: Any = load_encoder(name, weights)
    if isinstance(encoder.network, subbands.SubBands):
        raise ValueError(f"{name} cannot be exported: its sub-bands are no part of the ONNX plan. Use it with torch")
    plan = plan_of(encoder.network)
    content = build(plan, encoder.dim)
    if len(content) > LARGEST:
        raise ValueError(f"{name} takes {len(content):,} bytes, more than an ONNX file can hold")
    atomic_write(target, content)
    manifest = {
        "network": target.name,
        "sample_rate": encoder.sample_rate,
        "shortest": plan.shortest,
        "input": "waves",
        "output": "grid",
        "layout": "BTFD",
        "sha256": hash_file(target),
        "licence": TABLE[name].licence,
    }
    return atomic_write(target.with_suffix(".json"), json.dumps(manifest, indent=2) + "\n")


def plan_of(network: Any) -> Plan:
    """The plan of `FrozenEncoder.network`."""
    if isinstance(network, Transformer):
        return _transformer(network)
    return _beats(network) if isinstance(network, beats.BeatsNetwork) else _openl3(network)


def _transformer(network: Transformer) -> Plan:
    trunk, chunk = network.module, network.chunk
    time, bands = trunk.shape.patch[0], trunk.shape.bands
    family = next(name for name, family in FAMILIES.items() if family is network.family)
    shortest = round(SHORTEST_S * frontend.RATE)
    if family == "eat":
        front = _kaldi(
            "hanning",
            lambda waves: waves - waves.mean(-1, keepdim=True),
            lambda energies: pad(frontend.floored_log(energies), (0, 0, 0, EAT_FRAMES)),
        )
    elif family == "m2d":
        zero = float(-trunk.offset[0] / trunk.scale[0])  # becomes 0 in the normalisation
        front = _centred(
            400, "slaney", 80, lambda mel: pad((mel + frontend.LOG_FLOOR).log(), (0, 0, 0, 16), value=zero)
        )
    else:
        front = _centred(512, "htk", 64, frontend.floored_db)
        shortest = max(shortest, 15 * frontend.HOP if family == "ced" else 0)

    def counts(n: Integer) -> tuple[Integer, Integer, Integer]:
        end = rows = n
        if family == "eat":  # the front appends EAT_FRAMES zero frames
            rows = (n - EAT_FRAMES + 15) // 16
            end = (rows * 16).at_least(EAT_FRAMES)
        elif family == "m2d":  # the front appends 16 zero frames
            frames = n - 16
            end = frames + (16 - frames % chunk % 16) % 16
        return end, (end + (chunk - time)) // chunk, rows

    body = Part(lambda x: trunk(trunk.normalised(x), [trunk.shape.depth])[0], trunk)
    return Plan(front, body, (1, 4 * time, bands), chunk, chunk, counts, shortest)


def _beats(network: beats.BeatsNetwork) -> Plan:
    config = network.module.config

    def normalised(fbank: Tensor) -> Tensor:
        return (frontend.floored_log(fbank) - config.fbank_mean) / (2 * config.fbank_std)

    front = _kaldi("povey", lambda waves: waves * beats.LEVEL, normalised)
    body = Part(lambda x: network.module(x, [network.depth])[0], network.module)
    return Plan(front, body, (1, 4 * beats.PATCH, beats.BANDS), ENDLESS, 1, lambda n: (n, 1, n), beats.SHORTEST)


def _openl3(network: openl3.OpenL3Network) -> Plan:
    basis = network.module.basis
    size, edge = (512, 0) if basis is None else (2048, frontend.OPENL3_EDGE)

    def counts(n: Integer) -> tuple[Integer, Integer, Integer]:
        beyond = n - (2 * openl3.CENTRE + openl3.RATE)  # samples after the first window
        return n, (beyond + (openl3.HOP - 1)) // openl3.HOP + 1, n

    spectrum = Front(
        frontend.hann_spectrum, size, frontend.OPENL3_HOP, basis, partial(pad, pad=(edge, edge)), frontend.below_peak_db
    )
    body = Part(lambda window: network.module(spectrum(window))[:, None, None], spectrum, network.module)
    front = Part(lambda waves: pad(waves, (openl3.CENTRE, openl3.RATE)))
    return Plan(front, body, (1, openl3.RATE), openl3.RATE, openl3.HOP, counts, openl3.CENTRE)


def _kaldi(window: str, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> Front:
    bank = frontend.mel("kaldi", 512, 128, CPU)
    linear = partial(frontend.kaldi_spectrum, window=window)
    return Front(linear, frontend.KALDI_FRAME, frontend.HOP, bank, before, after)


def _centred(size: int, kind: str, bands: int, after: Callable[[Tensor], Tensor]) -> Front:
    bank, mirrored = frontend.mel(kind, size, bands, CPU), partial(pad, pad=(size // 2, size // 2), mode="reflect")
    return Front(frontend.hann_spectrum, size, frontend.HOP, bank, mirrored, after)


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone().float().contiguous(), requires_grad=False)
