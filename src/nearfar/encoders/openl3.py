"""OpenL3: a convolutional network over one-second windows (report section 2.4).

    waveform (B, N) at 48 kHz -> windows of 48,000 every 4,800 samples -> grid (B, T, 1, 512 or 6144)

Windows are centred: half a second of silence is put before the clip, and its end is padded to whole hops. Every batch
norm after a convolution is folded into the convolution. Embeddings are flattened as in Keras, channels last.
Source: Cramer et al. 2019, "Look, listen, and learn more", in the form of the torchopenl3 files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from nearfar.encoders import checkpoint, frontend
from nearfar.encoders.checkpoint import Checkpoint
from nearfar.encoders.table import TABLE

RATE = 48_000
HOP = RATE // 10
CENTRE = RATE // 2  # zeros before the clip
CHANNELS = (1, 64, 64, 128, 128, 256, 256, 512, 512)  # before the first convolution, then after each
POOLED_AFTER = (2, 4, 6)
WINDOWS = 8  # windows of a batch on a CPU: the activations of a convolution stay small enough for the cache
GPU_WINDOWS = 512  # on a GPU: a convolution that fills it
EPS = 1e-3  # of the batch norms
REPRESENTATIONS = {"mel128": 128, "mel256": 256, "linear": 257}  # bands
LAST_POOL = {  # (representation, embedding size) -> size of the last max pooling over (bands, frames)
    ("mel128", 512): (16, 24),
    ("mel128", 6144): (4, 8),
    ("mel256", 512): (32, 24),
    ("mel256", 6144): (8, 8),
    ("linear", 512): (32, 24),
    ("linear", 6144): (8, 8),
}
DROPPED = (r"speclayer\.dft_(real|imag)_kernels$", r"batch_normalization_\d\.num_batches_tracked$")


class OpenL3(nn.Module):
    """The network: spectrograms of windows (B, bands, frames) -> embeddings (B, dim)."""

    def __init__(self, representation: str, dim: int) -> None:
        super().__init__()
        bands = REPRESENTATIONS[representation]
        self.last_pool = LAST_POOL[representation, dim]
        self.basis = nn.Parameter(torch.empty(1025, bands)) if representation != "linear" else None
        self.scale, self.offset = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(CHANNELS))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, frames, bands) in decibels -> (B, dim)."""
        x = (spectrogram.transpose(1, 2) * self.scale + self.offset)[:, None]
        x = x.contiguous(memory_format=torch.channels_last)
        for number, convolution in enumerate(self.convolutions, start=1):
            x = convolution(x)
            if number in POOLED_AFTER:
                x = max_pool2d(x, 2)  # before the relu: same result, a quarter of the work
            if number < len(self.convolutions):
                x = relu(x, inplace=True)
        return max_pool2d(x, self.last_pool).permute(0, 2, 3, 1).flatten(1)


class OpenL3Network:
    """OpenL3 over the windows of a clip; it counts as one layer."""

    depth = 1

    def __init__(self, module: OpenL3, dim: int) -> None:
        self.module, self.dim = module, dim

    def grids(self, waves: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Waveforms (B, N) at 48 kHz -> [grid (B, T, 1, dim)]."""
        windows = self.windows(waves)
        size = WINDOWS if waves.device.type == "cpu" else GPU_WINDOWS
        rows = [self.module(self.spectrogram(batch)) for batch in torch.split(windows.flatten(0, 1), size)]
        return [torch.cat(rows).reshape(*windows.shape[:2], 1, self.dim)] * len(layers)

    def windows(self, waves: Tensor) -> Tensor:
        """(B, N) -> (B, T, 48000)."""
        count = 1 + max(0, -(-(waves.shape[-1] + CENTRE - RATE) // HOP))
        end = RATE + (count - 1) * HOP - CENTRE - waves.shape[-1]
        return pad(waves, (CENTRE, end)).unfold(-1, RATE, HOP)

    def spectrogram(self, windows: Tensor) -> Tensor:
        """(..., 48000) -> (..., frames, bands) in decibels below each window's maximum."""
        return frontend.window_db(windows, self.module.basis)


def read(name: str, path: str | Path) -> tuple[OpenL3Network, dict[str, Any]]:
    """The network from its published or converted file, and its configuration; ValueError names what does not fit."""
    file = checkpoint.read(path)
    config = checkpoint.configuration(file, name, ("representation", "content", "dim")) or configuration(name, file)
    variant = f"openl3-{config['representation']}-{config['content']}-{config['dim']}"
    if name not in ("openl3", variant) or variant not in TABLE:
        raise ValueError(f"{file} holds {variant}, not {name}")
    with torch.device("meta"):
        module = OpenL3(config["representation"], config["dim"])
    if file.converted:
        checkpoint.restore(file, module)
    else:
        _check_kernels(file)
        found = checkpoint.match(file, file.tensors, published_keys(config["representation"]), DROPPED)
        checkpoint.fill(module, canonical(found))
    return OpenL3Network(module, config["dim"]), config


def configuration(name: str, file: Checkpoint) -> dict[str, Any]:
    """Representation from the filterbank in the file; content and size from the name of the file, or of the encoder."""
    basis = file.tensors.get("speclayer.mel_basis")
    representation = "linear" if basis is None else f"mel{basis.shape[:1].numel()}"
    stated = re.search(r"_(env|music)_(512|6144)\b", file.path.name)
    asked = re.search(r"-(env|music)-(512|6144)$", name)
    content, dim = stated.groups() if stated else asked.groups() if asked else ("env", "512")
    if representation not in REPRESENTATIONS:
        raise ValueError(f"{file} has a filterbank of {representation[3:]} bands, OpenL3 has 128 or 256")
    return {"representation": representation, "content": content, "dim": int(dim)}


def published_keys(representation: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published file, without what is dropped."""
    keys: dict[str, tuple[int, ...]] = {}
    for i, (a, b) in enumerate(itertools.pairwise(CHANNELS), start=1):
        layer = f"conv2d_{i}" if i < 8 else "audio_embedding_layer"
        keys |= {f"{layer}.weight": (b, a, 3, 3), f"{layer}.bias": (b,)}
        keys |= {f"batch_normalization_{i}.{part}": (a,) for part in ("weight", "bias", "running_mean", "running_var")}
    if representation != "linear":
        keys["speclayer.mel_basis"] = (REPRESENTATIONS[representation], 1025)
    return keys


def canonical(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `OpenL3` from a published file's: batch norm i + 1 is folded into convolution i, in float64."""
    wide = {key: value.double() for key, value in found.items()}

    def affine(i: int) -> tuple[Tensor, Tensor]:  # y = x * gain + offset
        weight, bias, mean, var = (
            wide[f"batch_normalization_{i}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = weight / (var + EPS).sqrt()
        return gain, bias - mean * gain

    gain, offset = affine(1)
    out = {"scale": gain, "offset": offset}
    for i in range(1, 9):
        layer = f"conv2d_{i}" if i < 8 else "audio_embedding_layer"
        weight, bias = wide[f"{layer}.weight"], wide[f"{layer}.bias"]
        if i < 8:
            gain, offset = affine(i + 1)
            weight, bias = weight * gain[:, None, None, None], bias * gain + offset
        out |= {f"convolutions.{i - 1}.weight": weight, f"convolutions.{i - 1}.bias": bias}
    if "speclayer.mel_basis" in wide:
        out["basis"] = wide["speclayer.mel_basis"].T
    return {key: value.float() for key, value in out.items()}


def _check_kernels(file: Checkpoint) -> None:
    """ValueError if the DFT kernels of the file are not those of the FFT and window of `frontend`."""
    for part, sign in (("real", 1), ("imag", -1)):
        kernels = file.tensors.get(f"speclayer.dft_{part}_kernels")
        if kernels is None:
            continue
        size = 2048 if "speclayer.mel_basis" in file.tensors else 512
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        angle = 2 * np.pi / size * (np.arange(size // 2 + 1)[:, None] * np.arange(size) % size)
        wanted = window * (np.cos(angle) if part == "real" else sign * np.sin(angle))
        same = kernels.shape == (len(wanted), 1, size)
        apart = float(np.abs(kernels[:, 0].numpy() - wanted).max()) if same else np.inf
        if not apart <= 1e-3:
            raise ValueError(
                f"{file}: speclayer.dft_{part}_kernels are not those of a periodic Hann window ({apart:.1g})"
            )
