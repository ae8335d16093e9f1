"""EAT, SSLAM, CED, M2D-CLAP and Dasheng: one trunk, told apart by data (report section 2.4).

A `Family` says how a clip becomes a spectrogram and its chunks, and how a published file's keys map to the trunk's.

    family   front end                chunks of frames, each with positions from 0
    eat      Kaldi fbank, hanning     one, padded to 1024 frames or a multiple of 16; rows of padding alone are dropped
    ced      HTK mel, decibels        1012, the rest unpadded, dropped below one patch
    m2d      Slaney mel, log          as the file says (1001), the end padded to whole patches
    dasheng  HTK mel, decibels        1008, the rest unpadded; patches of 4 frames over all bands: F = 1

Sources: the published files and front ends of EAT, SSLAM, CED, M2D and Dasheng; chunks as in their own inference code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.encoders import checkpoint, frontend
from nearfar.encoders.checkpoint import Checkpoint
from nearfar.encoders.frozen import Frozen
from nearfar.encoders.vit import Shape, Trunk

EAT_MEAN, EAT_DOUBLE_STD, EAT_FRAMES = -4.268, 2 * 4.569, 1024
M2D_STATS = (-7.1, 4.2)  # files before 2025 do not store theirs
BATCH_NORM_EPS = 1e-5

EAT = Shape(768, 12, cls=1, post_norm=True)
CED = Shape(768, 12, bands=64, rows=63)
M2D = Shape(768, 12, bands=80, rows=62, cls=1)
DASHENG = Shape(768, 12, patch=(4, 64), bands=64, rows=252)
LARGE = replace(EAT, width=1024, depth=24)

NETWORKS = {  # name -> family and shape
    "eat-large": ("eat", LARGE),
    "eat-large-as2m": ("eat", LARGE),
    "eat-as2m": ("eat", EAT),
    "eat-base": ("eat", EAT),
    "sslam": ("eat", EAT),
    "sslam-as2m": ("eat", EAT),
    "ced-base": ("ced", CED),
    "ced-small": ("ced", replace(CED, width=384)),
    "ced-mini": ("ced", replace(CED, width=256)),
    "ced-tiny": ("ced", replace(CED, width=192)),
    "m2d-clap": ("m2d", M2D),
    "dasheng": ("dasheng", DASHENG),
    "dasheng-0.6b": ("dasheng", replace(DASHENG, width=1280, depth=32, heads=16)),
    "dasheng-1.2b": ("dasheng", replace(DASHENG, width=1536, depth=40, heads=24)),
}


class Transformer:
    """A trunk and its family's way from waveforms to chunks of spectrogram; see the module."""

    def __init__(self, family: str, trunk: Trunk, chunk: int) -> None:
        self.family, self.module, self.chunk = family, trunk, chunk
        self.dim, self.depth = trunk.shape.width, trunk.shape.depth

    def grids(self, waves: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Waveforms (B, N) at 16 kHz -> grids (B, T, F, D) after the blocks numbered `layers`."""
        pieces, rows = self.chunks(waves)
        parts = [self.module(piece, layers) for piece in pieces]
        return [torch.cat([part[j] for part in parts], dim=1)[:, :rows] for j in range(len(layers))]

    def chunks(self, waves: Tensor) -> tuple[list[Tensor], int]:
        """Normalised spectrograms (B, frames, bands) to run one after the other, and how many rows they give."""
        patch = self.module.shape.patch[0]
        spectrogram = FRONT_ENDS[self.family](waves)
        frames = spectrogram.shape[1]
        if self.family == "eat":
            padded = max(EAT_FRAMES, -(-frames // patch) * patch)
            whole = self.module.normalised(pad(spectrogram, (0, 0, 0, padded - frames)))
            return [whole], -(-frames // patch)
        whole = self.module.normalised(spectrogram)
        if self.family == "m2d":
            whole = pad(whole, (0, 0, 0, -(frames % self.chunk) % patch))
        pieces = [piece for piece in whole.split(self.chunk, dim=1) if piece.shape[1] >= patch]
        return pieces, sum(piece.shape[1] // patch for piece in pieces)


def _eat_fbank(waves: Tensor) -> Tensor:
    return frontend.kaldi_fbank(waves - waves.mean(-1, keepdim=True), "hanning")


def _ced_mel(waves: Tensor) -> Tensor:
    """Decibels of at least one patch: a shorter clip is followed by silence."""
    return frontend.mel_db(pad(waves, (0, max(0, 15 * frontend.HOP - waves.shape[-1]))))


FRONT_ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "eat": _eat_fbank,
    "ced": _ced_mel,
    "dasheng": frontend.mel_db,
    "m2d": frontend.log_mel,
}


def load(name: str, weights: Any, *, device: str = "cpu", threads: int | None = None) -> Frozen:
    """The encoder `name` from its published or converted file; ValueError names every key that does not fit."""
    network, _ = read(name, weights)
    return Frozen(name, network, Path(weights), device=device, threads=threads)


def read(name: str, path: str | Path) -> tuple[Transformer, dict[str, Any]]:
    """The network `name` from a file, and the configuration that a converted file has to remember."""
    family, shape = NETWORKS[name]
    file = checkpoint.read(path)
    if file.converted:
        config = json.loads(file.converted["config"])
        if config["family"] != family:
            raise ValueError(f"{file} holds {file.converted['encoder']}, not {name}")
        chunk, shape = config["chunk"], replace(shape, rows=config["rows"])
        fitting = {key: tuple(value.shape) for key, value in _empty(shape).state_dict().items()}
        tensors = checkpoint.match(file, file.tensors, fitting, ())
    else:
        keys = {rename(key): value for key, value in file.tensors.items()}
        _check_size(name, file, keys, shape)
        shape, chunk = _rows(family, shape, file, keys)
        wanted = {published: size for published, size in published_keys(family, shape).items()}
        if "norm_stats" not in keys:
            wanted.pop("norm_stats", None)
        tensors = canonical(family, shape, checkpoint.match(file, keys, wanted, DROPPED[family]))
    trunk = _empty(shape)
    checkpoint.fill(trunk, tensors)
    return Transformer(family, trunk, chunk), {"family": family, "chunk": chunk, "rows": shape.rows, **asdict(shape)}


def rename(key: str) -> str:
    """A key of any published layout as the plain one: prefixes off, EAT's fairseq names as in its safetensors."""
    key = re.sub(r"^(module\.ar\.runtime\.backbone|backbone|model|encoder)\.", "", key)
    key = key.removeprefix("modality_encoders.IMAGE.").replace("context_encoder.norm.", "pre_norm.")
    return key.replace("init_bn.1.", "init_bn.")


DROPPED = {  # what a file may hold beside the encoder: classifiers, decoders, teachers, the front end's own tables
    "eat": (r"fc_norm\.", r"head\.", r"decoder\.", r"_ema/"),
    "ced": (r"outputlayer\.", r"front_end\.", r"init_bn\.num_batches_tracked$"),
    "dasheng": (r"outputlayer\.", r"front_end\.", r"init_bn\.num_batches_tracked$"),
    "m2d": (r"audio_proj\.", r"text_encoder\.", r"text_proj\.", r"decoder_", r"mask_token$", r"logit_scale$", r"head\."),
}


def published_keys(family: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published file of the family, as `rename` gives them."""
    d, (time, band) = shape.width, shape.patch
    kernel = (d, 1, time, band) if family == "eat" else (d, 1, band, time)
    keys: dict[str, tuple[int, ...]] = {}
    for i in range(shape.depth):
        for part, size in BLOCK.items():
            keys[f"blocks.{i}.{part}.weight"] = tuple(n * d for n in size)
            keys[f"blocks.{i}.{part}.bias"] = (size[0] * d,)
    own: dict[str, tuple[int, ...]]
    if family == "eat":
        own = {"extra_tokens": (1, 1, d), "fixed_positional_encoder.positions": (1, shape.rows * shape.columns, d)}
        return keys | own | _linear("local_encoder.proj", kernel) | _linear("pre_norm", (d,))
    if family == "m2d":
        own = {"cls_token": (1, 1, d), "pos_embed": (1, 1 + shape.rows * shape.columns, d), "norm_stats": (2,)}
    else:
        own = {"time_pos_embed": (1, d, 1, shape.rows), "freq_pos_embed": (1, d, shape.columns, 1)}
        own |= {f"init_bn.{part}": (shape.bands,) for part in ("weight", "bias", "running_mean", "running_var")}
    return keys | own | _linear("patch_embed.proj", kernel) | _linear("norm", (d,))


BLOCK = {"norm1": (1,), "attn.qkv": (3, 1), "attn.proj": (1, 1), "norm2": (1,), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}


def _linear(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def canonical(family: str, shape: Shape, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trunk's tensors from a published file's: patches and positions in the order of time, then frequency."""
    out = {
        re.sub(r"\.(attn|mlp)\.", ".", key): value for key, value in found.items() if re.match(r"(blocks|norm)\.", key)
    }
    rows, columns, bands = shape.rows, shape.columns, shape.bands
    if family == "eat":
        kernel, bias = found["local_encoder.proj.weight"][:, 0], found["local_encoder.proj.bias"]
        out["positions"] = found["fixed_positional_encoder.positions"].reshape(rows, columns, -1)
        out["cls"] = found["extra_tokens"][0]
        out["shift"], out["scale"] = torch.full((bands,), EAT_MEAN), torch.full((bands,), 1 / EAT_DOUBLE_STD)
        out |= {f"embed_norm.{part}": found[f"pre_norm.{part}"] for part in ("weight", "bias")}
    else:
        kernel, bias = found["patch_embed.proj.weight"][:, 0].transpose(1, 2), found["patch_embed.proj.bias"]
    if family == "m2d":
        table = found["pos_embed"][0]
        out["positions"] = table[1:].reshape(columns, rows, -1).transpose(0, 1)
        out["cls"] = found["cls_token"][0] + table[:1]
        mean, std = found.get("norm_stats", torch.tensor(M2D_STATS))
        out["shift"], out["scale"] = mean.repeat(bands), (1 / std).repeat(bands)
    if family in ("ced", "dasheng"):
        out["positions"] = (found["time_pos_embed"] + found["freq_pos_embed"])[0].permute(2, 1, 0)
        out["cls"] = torch.empty(0, shape.width)
        scale = found["init_bn.weight"] / (found["init_bn.running_var"] + BATCH_NORM_EPS).sqrt()
        out["shift"], out["scale"] = found["init_bn.running_mean"] - found["init_bn.bias"] / scale, scale
    out["patch.weight"], out["patch.bias"] = kernel.flatten(1), bias
    return {key: value.contiguous() for key, value in out.items()}


def _empty(shape: Shape) -> Trunk:
    with torch.device("meta"):
        return Trunk(shape)


def _check_size(name: str, file: Checkpoint, keys: Mapping[str, Tensor], shape: Shape) -> None:
    """A file of another size is named as such, before a hundred shapes are listed."""
    blocks = {int(found[1]) for key in keys if (found := re.match(r"blocks\.(\d+)\.norm1\.weight$", key))}
    width = next((len(keys[key]) for key in keys if re.match(r"blocks\.\d+\.norm1\.weight$", key)), None)
    if blocks and (len(blocks), width) != (shape.depth, shape.width):
        likely = [n for n, (_, s) in NETWORKS.items() if (s.depth, s.width) == (len(blocks), width)]
        raise ValueError(
            f"{name} has {shape.depth} blocks of width {shape.width}, but {file} has {len(blocks)} of width {width}"
            + (f": is it {' or '.join(likely)}?" if likely else "")
        )


def _rows(family: str, shape: Shape, file: Checkpoint, keys: Mapping[str, Tensor]) -> tuple[Shape, int]:
    """The shape with as many time rows as the file has positions for, and the frames of a chunk."""
    time = shape.patch[0]
    if family == "m2d" and "pos_embed" in keys:
        shape = replace(shape, rows=(keys["pos_embed"].shape[1] - 1) // shape.columns)
        sizes = getattr(file.rest.get("args"), "input_size", None) or re.findall(r"-80x(\d+)p16", str(file.path))
        frames = int(sizes[-1]) if sizes else {62: 1001, 38: 608}.get(shape.rows, shape.rows * time)
        if frames // time != shape.rows:
            raise ValueError(f"{file} has positions for {shape.rows} rows, but says it hears {frames} frames")
        return shape, frames
    return shape, {"ced": 1012, "dasheng": 1008}.get(family, 0)
