"""EAT, SSLAM, CED, M2D-CLAP and Dasheng: one trunk (report section 2.4), each behind the front end of its family.

A `Family` has the front end, the rules for padding and chunks, and the layout of the published files.

    family   front end            padded with zeros                       chunks, each with positions from 0
    eat      Kaldi fbank          to 1024 frames or whole patches         12,288 frames
    ced      HTK mel, decibels    -                                       1012; the last one is dropped below 16
    m2d      Slaney mel, log      at the end, to whole patches            1001, or as the file states
    dasheng  HTK mel, decibels    -                                       1008; patches of 4 frames, all bands: F = 1

Rows that hold only padding are dropped. Sources: the inference code that its authors published for each network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.encoders import checkpoint, frontend, layouts
from nearfar.encoders.checkpoint import Checkpoint
from nearfar.encoders.layouts import Layout
from nearfar.encoders.vit import Shape, Trunk

EAT_FRAMES = 1024  # shorter spectrograms are padded to this length
M2D_FRAMES = {62: 1001, 38: 608}  # rows of positions -> frames of a chunk, for files that do not state it


@dataclass(frozen=True)
class Family:
    """See the module. `before`, `after`: (frames, frames of a chunk) -> zero frames to append before the normalisation
    of the spectrogram, and after it."""

    front_end: Callable[[Tensor], Tensor]  # (B, N) -> (B, frames, bands)
    layout: Layout
    chunk: int
    before: Callable[[int, int], int] = lambda frames, chunk: 0
    after: Callable[[int, int], int] = lambda frames, chunk: 0


def _eat_fbank(waves: Tensor) -> Tensor:
    return frontend.kaldi_fbank(frontend.without_mean(waves), "hanning")


def _eat_padding(frames: int, chunk: int) -> int:
    return max(EAT_FRAMES, -(-frames // 16) * 16) - frames


def _at_least_a_patch(waves: Tensor) -> Tensor:
    """Decibels of at least 16 frames; silence is appended to a shorter clip."""
    return frontend.mel_db(pad(waves, (0, max(0, 15 * frontend.HOP - waves.shape[-1]))))


FAMILIES = {
    "eat": Family(_eat_fbank, layouts.EAT, 12_288, before=_eat_padding),
    "ced": Family(_at_least_a_patch, layouts.CED, 1012),
    "m2d": Family(frontend.log_mel, layouts.M2D, 1001, after=lambda frames, chunk: -(frames % chunk) % 16),
    "dasheng": Family(frontend.mel_db, layouts.CED, 1008),
}

EAT = Shape(768, 12, cls=1, post_norm=True, embed_norm=True)
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
    """A trunk behind the front end and the chunks of its family."""

    def __init__(self, family: Family, trunk: Trunk, chunk: int) -> None:
        self.family, self.module, self.chunk = family, trunk, chunk
        self.dim, self.depth = trunk.shape.width, trunk.shape.depth

    def grids(self, waves: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Waveforms (B, N) at 16 kHz -> grids (B, T, F, D) after the blocks numbered `layers`."""
        spectrogram = self.family.front_end(waves)
        rows = -(-spectrogram.shape[1] // self.module.shape.patch[0])
        parts = [self.module(chunk, layers) for chunk in self.chunks(spectrogram)]
        return [torch.cat([part[j] for part in parts], dim=1)[:, :rows] for j in range(len(layers))]

    def chunks(self, spectrogram: Tensor) -> list[Tensor]:
        """The spectrogram (B, frames, bands), normalised, padded and cut into chunks."""
        frames = spectrogram.shape[1]
        padded = pad(spectrogram, (0, 0, 0, self.family.before(frames, self.chunk)))
        whole = pad(self.module.normalised(padded), (0, 0, 0, self.family.after(frames, self.chunk)))
        patch = self.module.shape.patch[0]
        return [chunk for chunk in torch.split(whole, self.chunk, dim=1) if chunk.shape[1] >= patch]


def read(name: str, path: str | Path) -> tuple[Transformer, dict[str, Any]]:
    """The network `name` from its published or converted file, and its configuration; ValueError if it does not fit."""
    family_name, _ = NETWORKS[name]
    family = FAMILIES[family_name]
    sizes = {n: s for n, (_, s) in NETWORKS.items()}
    trunk, config = read_trunk(name, path, family_name, sizes, family.layout, family.chunk)
    return Transformer(family, trunk, config["chunk"]), config


def read_trunk(
    name: str, path: str | Path, family: str, sizes: Mapping[str, Shape], layout: Layout, chunk: int
) -> tuple[Trunk, dict[str, Any]]:
    """The trunk of network `name` from a file, and {family, chunk, rows} as a converted file stores them.

    `sizes` are the shapes of all networks of the module, `chunk` the frames of a chunk unless the file states them.
    """
    file, shape = checkpoint.read(path), sizes[name]
    keys = {layouts.plain(key): value for key, value in file.tensors.items()}
    keys |= {key: keys[key][:, :rows] for key, rows in layout.longest.items() if key in keys and keys[key].ndim > 1}
    _check_size(name, file, keys, sizes)
    stored = checkpoint.configuration(file, name, ("family", "chunk", "rows"))
    if stored is not None:
        config = stored
        if config["family"] != family:
            raise ValueError(f"{file} holds {file.converted['encoder']}, not {name}")
        trunk = empty(replace(shape, rows=config["rows"]))
        checkpoint.restore(file, trunk)
    else:
        if family == "m2d":
            shape, chunk = _stated_size(shape, chunk, file, keys)
        wanted = {key: size for key, size in layout.keys(shape).items() if key in keys or key not in layout.optional}
        found = checkpoint.match(file, keys, wanted, layout.dropped)
        trunk, config = empty(shape), {"family": family, "chunk": chunk, "rows": shape.rows}
        checkpoint.fill(trunk, layout.trunk(shape, found))
    return trunk, config


def empty(shape: Shape) -> Trunk:
    """A trunk on the meta device, without numbers."""
    with torch.device("meta"):
        return Trunk(shape)


def _check_size(name: str, file: Checkpoint, keys: Mapping[str, Tensor], sizes: Mapping[str, Shape]) -> None:
    """ValueError for a network of another size, in place of a list of a hundred shapes that differ."""
    blocks = {key: value for key, value in keys.items() if re.fullmatch(r"(blocks|layers)\.\d+\.norm1\.weight", key)}
    shape = sizes[name]
    found = (len(blocks), next((norm.numel() for norm in blocks.values()), 0))
    if blocks and found != (shape.depth, shape.width):
        likely = [n for n, s in sizes.items() if (s.depth, s.width) == found]
        raise ValueError(
            f"{name} has {shape.depth} blocks of width {shape.width}, but {file} has {found[0]} of width {found[1]}"
            + (f": is it {' or '.join(likely)}?" if likely else "")
        )


def _stated_size(shape: Shape, chunk: int, file: Checkpoint, keys: Mapping[str, Tensor]) -> tuple[Shape, int]:
    """The shape with the file's number of rows, and the frames of a chunk: M2D's files differ in both."""
    if "pos_embed" not in keys or keys["pos_embed"].ndim != 3:
        return shape, chunk
    rows = (keys["pos_embed"].shape[1] - 1) // shape.columns
    stated = getattr(file.rest.get("args"), "input_size", None)
    if not (stated and isinstance(stated, list | tuple)):
        stated = re.findall(r"-80x(\d+)p16", str(file.path))
    frames = int(stated[-1]) if stated else M2D_FRAMES.get(rows, rows * shape.patch[0])
    if not rows or frames // shape.patch[0] != rows:
        raise ValueError(f"{file} has positions for {rows} rows, but states chunks of {frames} frames")
    return replace(shape, rows=rows), frames
