"""BEATs: a transformer whose attention depends on the distance between two tokens (report section 2.4).

    waveform (B, N) at 16 kHz -> Kaldi fbank (povey) -> 16 x 16 patches -> grid (B, T, 8, 768), T = frames // 16

Every layer adds a bias to its attention: layer 0's table at the distance in the flattened sequence (time, then
frequency), times a gate that each query computes. The file states the configuration.

OpenBEATs is this network, trained anew: its files state a mean and a deviation of their own, and hold two constant
tensors for padding masks.

Source: Chen et al. 2023, "BEATs"; Bharadwaj et al. 2025, "OpenBEATs"; the published checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

from nearfar.encoders import checkpoint, frontend
from nearfar.encoders.checkpoint import Checkpoint
from nearfar.encoders.table import TABLE
from nearfar.encoders.vit import Linear

MEAN, STD = 15.41663, 6.55582
LEVEL = 2.0**15  # the network was trained on 16-bit integers
PATCH = 16  # frames, and bands
BANDS = 128
LARGEST_SIZE = 1 << 20  # no size in a cfg is near it
SHORTEST = frontend.KALDI_FRAME + (PATCH - 1) * frontend.HOP  # samples that give one patch
SUPPORTED: dict[str, Any] = {  # the settings that this file implements
    "activation_fn": "gelu",
    "deep_norm": True,
    "layer_norm_first": False,
    "gru_rel_pos": True,
    "relative_position_embedding": True,
    "input_patch_size": PATCH,
    "conv_bias": False,
}
OPEN_ONLY = {"patch_embedding_pad.weight": (1, 1, PATCH, PATCH), "raw2fbank_pad.weight": (1, 1, frontend.KALDI_FRAME)}
DROPPED = (r"predictor\.", r"encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight$")


@dataclass(frozen=True)
class Config:
    """Sizes of a BEATs network, under the names that its files use."""

    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    embed_dim: int = 512
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    fbank_mean: float = MEAN
    fbank_std: float = STD


SIZES = [field.name for field in fields(Config) if isinstance(field.default, int)]
NORMALISATION = {"fbank_mean": MEAN, "fbank_std": STD}  # of files that do not state theirs


class Beats(nn.Module):
    """The network; see the module."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        self.patch = Linear(PATCH * PATCH, config.embed_dim, bias=False)
        self.patch_norm, self.widen = nn.LayerNorm(config.embed_dim), Linear(config.embed_dim, width)
        self.near = nn.Conv1d(
            width, width, config.conv_pos, padding=config.conv_pos // 2, groups=config.conv_pos_groups
        )
        self.norm = nn.LayerNorm(width)
        table = torch.empty(config.num_buckets, config.encoder_attention_heads)
        # from_pretrained draws no random numbers: on the meta device they would import torch's compiler.
        self.distance = nn.Embedding.from_pretrained(table)  # type: ignore[no-untyped-call]
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.encoder_layers))

    def forward(self, spectrogram: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Grids (B, T, F, D) after the layers numbered `layers`; `spectrogram` (B, frames, 128) is normalised."""
        batch, rows, columns = len(spectrogram), spectrogram.shape[1] // PATCH, BANDS // PATCH
        patches = spectrogram[:, : rows * PATCH].reshape(batch, rows, PATCH, columns, PATCH).transpose(2, 3)
        x = self.widen(self.patch_norm(self.patch(patches.reshape(batch, rows * columns, PATCH * PATCH))))
        x = self.norm(x + gelu(self.near(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2))
        bias = self.distance(self.buckets(x.shape[1])).permute(2, 0, 1).contiguous()  # (heads, L, L)
        grids = {}
        for number, layer in enumerate(self.layers[: max(layers)], start=1):
            x = layer(x, bias)
            if number in layers:
                grids[number] = x.reshape(batch, rows, columns, -1)
        return [grids[number] for number in layers]

    def buckets(self, length: int) -> Tensor:
        """Row of the table for each (query, key), (L, L): a row per distance when near, logarithmic steps when far."""
        half = self.config.num_buckets // 2
        exact = half // 2
        at = torch.arange(length, device=self.distance.weight.device)
        apart = at[None] - at[:, None]
        far = torch.log(apart.abs().clamp_min(1).float() / exact) / torch.log(
            torch.tensor(self.config.max_distance / exact)
        )
        coarse = (exact + (far * (half - exact)).long()).clamp_max(half - 1)
        return torch.where(apart.abs() < exact, apart.abs(), coarse) + half * (apart > 0)


class Layer(nn.Module):
    """Post-norm layer with scaled residuals; each query gates the bias of its attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.residual = (2 * config.encoder_layers) ** 0.25
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.gate = nn.Linear(width // self.heads, 8)
        self.gate_scale = nn.Parameter(torch.empty(self.heads))
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1 = Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = Linear(config.encoder_ffn_embed_dim, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, L, D), (heads, L, L) -> (B, L, D)
        x = self.attention_norm(self.attention(x, bias).add_(x, alpha=self.residual))
        return self.norm(self.fc2(gelu(self.fc1(x))).add_(x, alpha=self.residual))

    def attention(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a, b = self.gate(q).reshape(*q.shape[:-1], 2, 4).sum(-1).sigmoid().unbind(-1)  # each (B, heads, L)
        gate = a * (b * self.gate_scale[:, None] - 1) + 2
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=gate[..., None] * bias)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class BeatsNetwork:
    """BEATs behind its front end."""

    def __init__(self, module: Beats) -> None:
        self.module, self.dim, self.depth = module, module.config.encoder_embed_dim, module.config.encoder_layers

    def grids(self, waves: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Waveforms (B, N) at 16 kHz -> grids (B, T, 8, D); silence is appended to a clip shorter than a patch."""
        return self.module(self.spectrogram(waves), layers)

    def spectrogram(self, waves: Tensor) -> Tensor:
        """(B, N) -> (B, frames, 128), normalised."""
        waves, config = pad(waves, (0, max(0, SHORTEST - waves.shape[-1]))), self.module.config
        return (frontend.kaldi_fbank(waves * LEVEL, "povey") - config.fbank_mean) / (2 * config.fbank_std)


def read(name: str, path: str | Path) -> tuple[BeatsNetwork, dict[str, Any]]:
    """The network from its published or converted file, and its configuration; ValueError names what does not fit."""
    file = checkpoint.read(path)
    stored = checkpoint.configuration(file, name, SIZES, NORMALISATION)
    config = configuration(file) if stored is None else Config(**stored)
    if config.encoder_embed_dim != TABLE[name].dim:
        raise ValueError(
            f"{name} has layers of width {TABLE[name].dim}, but those of {file} are {config.encoder_embed_dim}"
        )
    with torch.device("meta"):
        module = Beats(config)
    if file.converted:
        checkpoint.restore(file, module)
    else:
        wanted = published_keys(config) | (OPEN_ONLY if name.startswith("openbeats") else {})
        found = checkpoint.match(file, file.tensors, wanted, DROPPED)
        checkpoint.fill(module, canonical(config, found))
    return BeatsNetwork(module), asdict(config)


def configuration(file: Checkpoint) -> Config:
    """The sizes that the file's "cfg" states. Raises ValueError for sizes or settings that are not implemented."""
    cfg = file.rest.get("cfg")
    if not isinstance(cfg, Mapping):
        raise ValueError(f"{file} holds no 'cfg', as every BEATs file does: is it another network's?")
    odd = [f"{key} = {cfg[key]!r}, not {value!r}" for key, value in SUPPORTED.items() if cfg.get(key, value) != value]
    missing = [f"no {name}" for name in SIZES if not (isinstance(cfg.get(name), int) and 0 < cfg[name] < LARGEST_SIZE)]
    stated = {name: cfg.get(name, value) for name, value in NORMALISATION.items()}
    odd += [f"{name} = {v!r}, not a number" for name, v in stated.items() if not isinstance(v, int | float)]
    if odd or missing:
        raise ValueError(f"the cfg of {file} is not one of BEATs: {'; '.join(odd + missing)}")
    config = Config(**{name: cfg[name] for name in SIZES}, **stated)
    layers = [key for key in file.tensors if re.fullmatch(r"encoder\.layers\.\d+\.fc1\.weight", key)]
    width = file.tensors.get("encoder.layer_norm.weight", torch.empty(0)).numel()
    if (len(layers), width) != (config.encoder_layers, config.encoder_embed_dim):
        raise ValueError(
            f"the cfg of {file} states {config.encoder_layers} layers of width {config.encoder_embed_dim}, "
            f"but its tensors are {len(layers)} layers of width {width}"
        )
    return config


def published_keys(config: Config) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published file, without what is dropped."""
    d, small = config.encoder_embed_dim, config.embed_dim
    hidden, heads = config.encoder_ffn_embed_dim, config.encoder_attention_heads
    linear = {"post_extract_proj": (d, small), "layer_norm": (small,), "encoder.layer_norm": (d,)}
    keys: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (small, 1, PATCH, PATCH)}
    for i in range(config.encoder_layers):
        at = f"encoder.layers.{i}"
        linear |= {f"{at}.self_attn.{part}_proj": (d, d) for part in ("q", "k", "v", "out")}
        linear |= {f"{at}.self_attn_layer_norm": (d,), f"{at}.final_layer_norm": (d,)}
        linear |= {f"{at}.fc1": (hidden, d), f"{at}.fc2": (d, hidden), f"{at}.self_attn.grep_linear": (8, d // heads)}
        keys[f"{at}.self_attn.grep_a"] = (1, heads, 1, 1)
    keys["encoder.layers.0.self_attn.relative_attention_bias.weight"] = (config.num_buckets, heads)
    keys["encoder.pos_conv.0.weight_g"] = (1, 1, config.conv_pos)
    keys["encoder.pos_conv.0.weight_v"] = (d, d // config.conv_pos_groups, config.conv_pos)
    keys["encoder.pos_conv.0.bias"] = (d,)
    for key, shape in linear.items():
        keys |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    return keys


OUR_NAMES = {  # published name -> name here
    "post_extract_proj": "widen",
    "layer_norm": "patch_norm",
    "encoder.layer_norm": "norm",
    "self_attn_layer_norm": "attention_norm",
    "final_layer_norm": "norm",
    "self_attn.out_proj": "out",
    "self_attn.grep_linear": "gate",
    "fc1": "fc1",
    "fc2": "fc2",
}


def canonical(config: Config, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `Beats` from those of a published file; the weight norm of the convolution is folded in."""
    v = found["encoder.pos_conv.0.weight_v"].double()
    norm = v.square().sum((0, 1), keepdim=True).sqrt()
    out = {
        "patch.weight": found["patch_embedding.weight"].flatten(1),
        "near.weight": (found["encoder.pos_conv.0.weight_g"] * v / norm).float(),
        "near.bias": found["encoder.pos_conv.0.bias"],
        "distance.weight": found["encoder.layers.0.self_attn.relative_attention_bias.weight"],
    }
    for i in range(config.encoder_layers):
        at = f"encoder.layers.{i}.self_attn"
        out[f"layers.{i}.gate_scale"] = found[f"{at}.grep_a"].flatten()
        for kind in ("weight", "bias"):
            out[f"layers.{i}.qkv.{kind}"] = torch.cat([found[f"{at}.{part}_proj.{kind}"] for part in "qkv"])
    for key, value in found.items():
        part, _, kind = re.sub(r"^encoder\.layers\.\d+\.", "", key).rpartition(".")
        if part in OUR_NAMES:
            number = re.match(r"encoder\.(layers\.\d+\.)", key)
            out[f"{number[1] if number else ''}{OUR_NAMES[part]}.{kind}"] = value
    return out
