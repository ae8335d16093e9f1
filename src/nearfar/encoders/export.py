"""Any network of Table 1 as one ONNX file, from waveform to grid, with the manifest that `exported` reads.

    waves (1, N) -> front end -> rows (1, n, bands) -> loop over pieces: network -> grid (1, T, F, D)

Front end and network are exported by torch, each with one axis of free length; the chunks of the transformers and the
windows of OpenL3 are a loop in ONNX around the network. Mean, pre-emphasis, window and Fourier transform of a frame are
linear, so together they are one convolution: its kernel is what they make of the unit vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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
from nearfar.encoders.onnxfile import ENDLESS, Plan, build
from nearfar.encoders.transformers import FAMILIES, Transformer
from nearfar.hashes import of_file

LARGEST = 1_900_000_000  # bytes: an ONNX file is one message, of less than 2 GiB
EAT_LEAST = 1024  # frames


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
    front = _kaldi("hanning", _from_its_mean, _eat_rows)
    sums: tuple[str, ...] = ("end = n + 0", "rows = n + 0")
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
    sums = (
        f"rest = n - {2 * openl3.CENTRE + openl3.RATE}",
        f"up = rest + {openl3.HOP - 1}",
        f"more = up / {openl3.HOP}",
        "count = more + 1",
        "end = n + 0",
        "rows = n + 0",
    )
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
