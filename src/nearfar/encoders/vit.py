"""One transformer over patches of a spectrogram: the trunk of EAT, SSLAM, CED, M2D, Dasheng, FISHER and ECHO.

    spectrogram (B, frames, bands) -> patches -> tokens + positions -> blocks -> grid (B, T, F, D)

The networks differ in their `Shape` and in their tensors. Tokens are in the order of time, then frequency, also where
the published code has another order: attention gives the same if the positions have the same order.
This file does not read audio or weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


@dataclass(frozen=True)
class Shape:
    """Sizes of a trunk. `patch`: (frames, bands); `rows`: time rows of the table of positions; `cls`: class tokens."""

    width: int
    depth: int
    patch: tuple[int, int] = (16, 16)
    bands: int = 128
    rows: int = 768
    cls: int = 0
    post_norm: bool = False  # norms after each sum: EAT, FISHER, ECHO
    embed_norm: bool = False  # a norm after the embedding, and none after the last block: EAT, FISHER
    heads: int = 0  # 0: one for every 64 features

    @property
    def columns(self) -> int:
        """F, the tokens of one time row."""
        return self.bands // self.patch[1]


class ClassTokens(int):
    """The number of a block, for its class tokens (B, 1, C, D); a plain number is for its grid."""


class Linear(nn.Linear):
    """A linear layer that computes in the type of its weights, float32 or bfloat16, and returns the type of its input.

    Public torch: a private oneDNN operator with a fused GELU was no faster (docs/decisions.md).
    """

    def forward(self, x: Tensor) -> Tensor:  # (..., inputs) -> (..., outputs)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Trunk(nn.Module):
    """The transformer of a shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.scale, self.offset = (nn.Parameter(torch.empty(shape.bands)) for _ in range(2))  # of the spectrogram
        self.patch = Linear(shape.patch[0] * shape.patch[1], width)
        self.positions = nn.Parameter(torch.empty(shape.rows, shape.columns, width))
        self.cls = nn.Parameter(torch.empty(shape.cls, width))
        self.embed_norm = nn.LayerNorm(width, eps=1e-6) if shape.embed_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.Identity() if shape.embed_norm else nn.LayerNorm(width, eps=1e-6)

    def normalised(self, spectrogram: Tensor) -> Tensor:
        """The spectrogram (..., frames, bands), scaled and shifted per band."""
        return spectrogram * self.scale + self.offset

    def forward(self, spectrogram: Tensor, layers: Sequence[int], place: Tensor | None = None) -> list[Tensor]:
        """Grids (B, T, F, D), or `ClassTokens`, after the blocks numbered `layers` (from 1).

        Each goes through the final norm if there is one.

        `spectrogram` (B, frames, bands) is normalised; frames beyond the last whole patch are dropped. `place` (B, D)
        is added to all tokens of an item, the class tokens too.
        """
        (time, band), columns = self.shape.patch, self.shape.columns
        batch, rows = len(spectrogram), spectrogram.shape[1] // time
        patches = spectrogram[:, : rows * time].reshape(batch, rows, time, columns, band).transpose(2, 3)
        tokens = self.patch(patches.reshape(batch, rows * columns, time * band))
        tokens = tokens + self.positions[:rows].flatten(0, 1)
        tokens = torch.cat([self.cls.expand(batch, -1, -1), tokens], dim=1)
        tokens = self.embed_norm(tokens if place is None else tokens + place[:, None])
        made, cls = {}, self.shape.cls
        for number, block in enumerate(self.blocks[: max(layers)], start=1):
            tokens = block(tokens)
            if number in layers:
                made[number] = self.norm(tokens)
        return [
            made[n][:, None, :cls] if isinstance(n, ClassTokens) else made[n][:, cls:].reshape(batch, rows, columns, -1)
            for n in layers
        ]


class Block(nn.Module):
    """Self-attention and a perceptron of four times the width, each with its residual and its norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.post_norm, self.heads = shape.post_norm, shape.heads or width // 64
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = Linear(width, 3 * width), Linear(width, width)
        self.fc1, self.fc2 = Linear(width, 4 * width), Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        if self.post_norm:
            x = self.norm1(self.attention(x).add_(x))
            return self.norm2(self.perceptron(x).add_(x))
        x = self.attention(self.norm1(x)).add_(x)
        return self.perceptron(self.norm2(x)).add_(x)

    def attention(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width))

    def perceptron(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))
