"""Published files of the trunk's networks: which keys they hold, and what each is to the trunk.

A `Layout` is a pair of functions and a list. `keys` says what a file of a given shape must hold, `trunk` turns it into
the trunk's tensors (patches and positions in the order of time, then frequency), `dropped` are patterns of what a file
may hold beside it: classifiers, decoders, teachers, text encoders, the front end's own tables. One layout serves the
Hugging Face, fairseq, Zenodo and GitHub forms of a file: they differ in prefixes, which `plain` takes off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nearfar.encoders.vit import Shape

Shapes = dict[str, tuple[int, ...]]
Tensors = Mapping[str, Tensor]

EAT_MEAN, EAT_DOUBLE_STD = -4.268, 2 * 4.569
FISHER_MEAN, FISHER_DOUBLE_STD = -3.017344307886898, 2 * 2.1531635155379805
ECHO_MEAN, ECHO_DOUBLE_STD = -5.874158, 2 * 5.223174
M2D_STATS = (-7.1, 4.2)  # files before 2025 do not store theirs
BATCH_NORM_EPS = 1e-5
BLOCK = {"norm1": (1,), "attn.qkv": (3, 1), "attn.proj": (1, 1), "norm2": (1,), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
ECHO_BLOCK = {"norm1": (1,), "self_attn.out_proj": (1, 1), "norm2": (1,), "linear1": (4, 1), "linear2": (1, 4)}
ECHO_NAMES = {"self_attn.out_proj": "proj", "linear1": "fc1", "linear2": "fc2"}  # published name -> the trunk's


@dataclass(frozen=True)
class Layout:
    """See the module. Keys in `optional` may be missing; of `longest` {key: rows} only the first rows are used."""

    keys: Callable[[Shape], Shapes]
    trunk: Callable[[Shape, Tensors], dict[str, Tensor]]
    dropped: tuple[str, ...]
    optional: tuple[str, ...] = ()
    longest: Mapping[str, int] = field(default_factory=dict)


def plain(key: str) -> str:
    """A key without the prefixes of its file, EAT's fairseq names as in its safetensors."""
    key = re.sub(r"^(module\.ar\.runtime\.backbone|backbone|model|fisher|encoder)\.", "", key.removeprefix("encoder/"))
    key = key.removeprefix("modality_encoders.IMAGE.").replace("context_encoder.norm.", "pre_norm.")
    return key.replace("init_bn.1.", "init_bn.")


def _eat_keys(shape: Shape) -> Shapes:
    d, (time, band) = shape.width, shape.patch
    return {
        **_blocks(shape),
        **_pair("local_encoder.proj", (d, 1, time, band)),
        **_pair("pre_norm", (d,)),
        "extra_tokens": (1, 1, d),
        "fixed_positional_encoder.positions": (1, shape.rows * shape.columns, d),
    }


def _eat_trunk(shape: Shape, found: Tensors) -> dict[str, Tensor]:
    return {
        **_plain_blocks(found),
        "patch.weight": found["local_encoder.proj.weight"].flatten(1),
        "patch.bias": found["local_encoder.proj.bias"],
        "embed_norm.weight": found["pre_norm.weight"],
        "embed_norm.bias": found["pre_norm.bias"],
        "positions": found["fixed_positional_encoder.positions"].reshape(shape.rows, shape.columns, -1),
        "cls": found["extra_tokens"][0],
        **_constant_scale(shape, EAT_MEAN, EAT_DOUBLE_STD),
    }


def _fisher_trunk(shape: Shape, found: Tensors) -> dict[str, Tensor]:
    return _eat_trunk(shape, found) | _constant_scale(shape, FISHER_MEAN, FISHER_DOUBLE_STD)


def _echo_keys(shape: Shape) -> Shapes:
    d, keys = shape.width, _blocks(shape, "layers", ECHO_BLOCK)
    for i in range(shape.depth):
        at = f"layers.{i}.self_attn.in_proj_"
        keys |= {f"{at}weight": (3 * d, d), f"{at}bias": (3 * d,)}
    return {**keys, **_patch_and_norm(shape), "cls_token": (1, 1, d), "pos_embed": (1, 1 + shape.rows, d)}


def _echo_trunk(shape: Shape, found: Tensors) -> dict[str, Tensor]:
    blocks = {}
    for key, value in found.items():
        part, dot, kind = key.replace("self_attn.in_proj_", "qkv.").rpartition(".")
        if part.startswith("layers."):
            at, _, name = part.removeprefix("layers.").partition(".")
            blocks[f"blocks.{at}.{ECHO_NAMES.get(name, name)}{dot}{kind}"] = value
    return {
        **blocks,
        **_patch_and_norm_trunk(found),
        "positions": found["pos_embed"][0, 1:, None],  # row 0 is the class token's: zeros, never added
        "cls": found["cls_token"][0],
        **_constant_scale(shape, ECHO_MEAN, ECHO_DOUBLE_STD),
    }


def _ced_keys(shape: Shape) -> Shapes:
    d = shape.width
    return {
        **_patched(shape),
        "time_pos_embed": (1, d, 1, shape.rows),
        "freq_pos_embed": (1, d, shape.columns, 1),
        **{f"init_bn.{part}": (shape.bands,) for part in ("weight", "bias", "running_mean", "running_var")},
    }


def _ced_trunk(shape: Shape, found: Tensors) -> dict[str, Tensor]:
    scale = found["init_bn.weight"] / (found["init_bn.running_var"] + BATCH_NORM_EPS).sqrt()
    return {
        **_patched_trunk(found),
        "positions": (found["time_pos_embed"] + found["freq_pos_embed"])[0].permute(2, 1, 0),
        "cls": torch.empty(0, shape.width),
        "scale": scale,
        "offset": found["init_bn.bias"] - found["init_bn.running_mean"] * scale,
    }


def _m2d_keys(shape: Shape) -> Shapes:
    d, positions = shape.width, 1 + shape.rows * shape.columns
    return {**_patched(shape), "cls_token": (1, 1, d), "pos_embed": (1, positions, d), "norm_stats": (2,)}


def _m2d_trunk(shape: Shape, found: Tensors) -> dict[str, Tensor]:
    table = found["pos_embed"][0]  # the class token's position, then frequency by frequency
    mean, std = found.get("norm_stats", torch.tensor(M2D_STATS))
    return {
        **_patched_trunk(found),
        "positions": table[1:].reshape(shape.columns, shape.rows, -1).transpose(0, 1),
        "cls": found["cls_token"][0] + table[:1],
        "scale": (1 / std).repeat(shape.bands),
        "offset": (-mean / std).repeat(shape.bands),
    }


def _blocks(shape: Shape, at: str = "blocks", parts: Mapping[str, tuple[int, ...]] = BLOCK) -> Shapes:
    keys = Shapes()
    for i in range(shape.depth):
        for part, size in parts.items():
            keys |= _pair(f"{at}.{i}.{part}", tuple(n * shape.width for n in size))
    return keys


def _patched(shape: Shape) -> Shapes:
    return {**_blocks(shape), **_patch_and_norm(shape)}


def _patch_and_norm(shape: Shape) -> Shapes:  # patches as (bands, frames)
    d, (time, band) = shape.width, shape.patch
    return {**_pair("patch_embed.proj", (d, 1, band, time)), **_pair("norm", (d,))}


def _pair(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _plain_blocks(found: Tensors) -> dict[str, Tensor]:
    return {re.sub(r"\.(attn|mlp)\.", ".", key): value for key, value in found.items() if key.startswith("blocks.")}


def _patched_trunk(found: Tensors) -> dict[str, Tensor]:
    return {**_plain_blocks(found), **_patch_and_norm_trunk(found)}


def _patch_and_norm_trunk(found: Tensors) -> dict[str, Tensor]:
    return {
        "patch.weight": found["patch_embed.proj.weight"][:, 0].transpose(1, 2).flatten(1),
        "patch.bias": found["patch_embed.proj.bias"],
        "norm.weight": found["norm.weight"],
        "norm.bias": found["norm.bias"],
    }


def _constant_scale(shape: Shape, mean: float, double_std: float) -> dict[str, Tensor]:
    scale, offset = (torch.full((shape.bands,), value) for value in (1 / double_std, -mean / double_std))
    return {"scale": scale, "offset": offset}


_CLASSIFIER = (r"outputlayer\.", r"front_end\.", r"init_bn\.num_batches_tracked$")

EAT = Layout(_eat_keys, _eat_trunk, (r"fc_norm\.", r"head\.", r"decoder\.", r"_ema/"))
# A token takes the row of its number, so that of a longer table (published: 6400 rows) the first ones are all.
FISHER = Layout(_eat_keys, _fisher_trunk, (), longest={"fixed_positional_encoder.positions": 384})
ECHO = Layout(_echo_keys, _echo_trunk, (r"decoder[./]", r"optimizer/"))
CED = Layout(_ced_keys, _ced_trunk, _CLASSIFIER)
M2D = Layout(
    _m2d_keys,
    _m2d_trunk,
    (r"audio_proj\.", r"text_encoder\.", r"text_proj\.", r"decoder_", r"mask_token$", r"logit_scale$", r"head\."),
    optional=("norm_stats",),
)
