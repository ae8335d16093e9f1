"""The table of frozen encoders: waveforms in, tokens on a time x frequency grid out (report section 2.4, Table 1).

    waves   (B, N) mono float32 at `Encoder.sample_rate`, or a list of 1-D arrays of different lengths
    grid    (B, T, F, D) or a list of (T, F, D)

`logmel` needs no weights. The other names are the report's; each is loaded from its published file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nearfar.check import Array, choose, one_of

FREQS = ("concat", "mean", "bands")


@dataclass(frozen=True)
class Entry:
    """A row of the table: the module that builds the encoder ("" if this version cannot), rate, width and licence."""

    module: str
    sample_rate: int
    dim: int
    licence: str


TABLE = {
    "logmel": Entry("nearfar.encoders.logmel", 16_000, 128, "Apache-2.0, no weights"),
    "eat-large": Entry("", 16_000, 1024, "MIT"),
    "eat-as2m": Entry("", 16_000, 768, "MIT"),
    "beats": Entry("", 16_000, 768, "MIT"),
    "ced-base": Entry("", 16_000, 768, "Apache-2.0"),
    "m2d-clap": Entry("", 16_000, 768, "NTT, evaluation only"),
    "sslam": Entry("", 16_000, 768, "MIT"),
    "openl3": Entry("", 48_000, 512, "weights CC-BY-4.0"),
    "dasheng": Entry("", 16_000, 768, "Apache-2.0"),
}


class Encoder(Protocol):
    """What every encoder offers."""

    sample_rate: int
    dim: int
    licence: str

    def grid(self, waves: Any) -> Any:
        """(B, N) -> (B, T, F, D); a list of 1-D arrays -> a list of (T, F, D)."""
        ...

    def frames(self, waves: Any, freq: str = "concat") -> Any:
        """The grid as frames: "concat" (B, T, F D), "mean" (B, T, D) or "bands" (B, T, F, D)."""
        ...


def names() -> tuple[str, ...]:
    """Names of all encoders, those of Table 1 in its order after `logmel`."""
    return tuple(TABLE)


def load(name: str, weights: Any = None, *, device: str = "cpu", threads: int | None = None) -> Encoder:
    """The encoder `name`, with the weights file of that name if it needs one. Raises ValueError for unknown names."""
    from importlib import import_module

    entry = choose("encoder", name, TABLE)
    if not entry.module:
        raise ValueError(
            f"encoder {name!r} is in the report's Table 1, but this version cannot run it yet; choose one of: "
            + ", ".join(n for n, e in TABLE.items() if e.module)
        )
    encoder: Encoder = import_module(entry.module).load(name, weights, device=device, threads=threads)
    return encoder


def as_frames(grid: Any, freq: str) -> Any:
    """A grid (..., T, F, D), or a list of them, as frames; see `Encoder.frames`."""
    one_of("freq", freq, FREQS)
    if isinstance(grid, list):
        return [as_frames(g, freq) for g in grid]
    if freq == "mean":
        return grid.mean(axis=-2)
    return grid.reshape(*grid.shape[:-2], -1) if freq == "concat" else grid


def each_wave(waves: Any) -> tuple[list[Array], bool]:
    """The waves as a list of 1-D float32 arrays, and whether they came as one array (B, N)."""
    from nearfar.check import finite

    stacked = isinstance(waves, np.ndarray)
    if stacked and waves.ndim != 2:
        raise ValueError(f"waves must be (B, N) or a list of 1-D arrays, not an array of shape {waves.shape}")
    return [finite(f"waves[{i}]", wave, ndim=1) for i, wave in enumerate(waves)], stacked
