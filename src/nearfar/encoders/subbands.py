"""FISHER and ECHO: one trunk for every sub-band of a spectrum, made for machines at any sampling rate.

    waveform (B, N) -> log magnitudes (B, frames, bins) -> sub-bands of 4 kHz or 1.25 kHz -> grid (B, T, F, D)

    family   bins of a band   an incomplete last band         columns F   chunks, each with positions from 0
    fisher   100              dropped; alone: zeros above     6 a band    1024 frames, the last one dropped below 16
    echo     32               zeros below its bins            1 a band    2000 frames, zeros to whole patches

Each band is a sequence of its own. FISHER does not tell the network which band it has; ECHO adds the band's place
between 0 and half the sampling rate to all of its tokens. A higher rate adds bands and so columns: the rate is part of
the encoder's name (16 kHz without a suffix). The zeros stand for the mean: they are appended after the normalisation.
Sources: Fan et al. 2025, "FISHER"; Zhang et al. 2025, "ECHO"; the inference code of their authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.encoders import frontend, layouts
from nearfar.encoders.layouts import Layout
from nearfar.encoders.table import TABLE
from nearfar.encoders.transformers import read_trunk
from nearfar.encoders.vit import Shape, Trunk

PLACE_SCALE = 25  # of ECHO's frequency positions


@dataclass(frozen=True)
class Family:
    """See the module. `used`: how many of the first bins of a band the patches cover; `eps`: below the logarithm."""

    layout: Layout
    band: int
    used: int
    chunk: int
    eps: float


FAMILIES = {"fisher": Family(layouts.FISHER, 100, 96, 1024, 1e-10), "echo": Family(layouts.ECHO, 32, 32, 2000, 1e-9)}
FISHER = Shape(384, 12, bands=96, rows=64, cls=1, post_norm=True, embed_norm=True)
ECHO = Shape(384, 12, patch=(16, 32), bands=32, rows=125, cls=1, post_norm=True)
SIZES = {
    "fisher-tiny": replace(FISHER, width=192),
    "fisher-mini": replace(FISHER, width=256),
    "fisher-small": FISHER,
    "echo-small": ECHO,
}


class SubBands:
    """A trunk behind a front end that cuts the spectrum at `rate` Hz into bands."""

    def __init__(self, family: str, trunk: Trunk, rate: int) -> None:
        self.family, self.is_fisher, self.module, self.rate = FAMILIES[family], family == "fisher", trunk, rate
        self.dim, self.depth = trunk.shape.width, trunk.shape.depth

    def grids(self, waves: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Waveforms (B, N) -> grids (B, T, F, D) after the blocks numbered `layers`; low frequencies first."""
        spectrum = self.spectrum(waves)
        bands = self.bands(spectrum)
        batch, count = bands.shape[:2]
        place = None if self.is_fisher else self.places(spectrum.shape[2], waves.device).repeat(batch, 1)
        chunks = [c for c in torch.split(bands.flatten(0, 1), self.family.chunk, dim=1) if c.shape[1] >= 16]
        parts = [self.module(chunk, layers, place) for chunk in chunks]
        whole = [torch.cat([part[j] for part in parts], dim=1) for j in range(len(layers))]
        return [x.reshape(batch, count, *x.shape[1:]).transpose(1, 2).flatten(2, 3) for x in whole]

    def spectrum(self, waves: Tensor) -> Tensor:
        """(B, N) -> (B, frames, bins), normalised. ValueError for a clip shorter than a patch."""
        shortest = 25 * self.rate // 1000 + 15 * (10 * self.rate // 1000)
        if self.is_fisher and waves.shape[-1] < shortest:
            raise ValueError(f"a clip of {waves.shape[-1]} samples is too short for FISHER: at least {shortest} needed")
        spectrum = frontend.log_spectrum(waves, self.rate, self.family.eps)
        return spectrum * self.module.scale[0] + self.module.offset[0]

    def bands(self, spectrum: Tensor) -> Tensor:
        """(B, frames, bins) -> (B, bands, frames, bins of a band that are used), frames as the module says."""
        (_, frames, bins), band = spectrum.shape, self.family.band
        if self.is_fisher:
            spectrum = pad(spectrum, (0, max(0, band - bins)))[..., : max(1, bins // band) * band]
        else:
            whole, rest = bins - bins % band, [spectrum[..., bins - bins % band :]] * (bins % band > 0)
            rest = [pad(last, (band - bins % band, 0)) for last in rest]
            spectrum = pad(torch.cat([spectrum[..., :whole], *rest], -1), (0, 0, 0, -frames % 16))
        return spectrum.reshape(*spectrum.shape[:2], -1, band).transpose(1, 2)[..., : self.family.used]

    def places(self, bins: int, device: torch.device) -> Tensor:
        """(bands, D): ECHO's positions of the bands of `bins` frequencies, sine and cosine by turns."""
        first = torch.arange(0, bins, self.family.band, dtype=torch.float64)
        last = (first + self.family.band - 1).clamp_max(bins - 1)
        centre = (first + last) / (25 * self.rate // 1000)  # over half the rate
        omega = 10_000 ** (-torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        angle = PLACE_SCALE * centre[:, None] * omega
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float().to(device)


def size_of(name: str) -> str:
    """The network of an encoder: its name without the sampling rate."""
    return next(size for size in SIZES if name.startswith(size))


def read(name: str, path: str | Path) -> tuple[SubBands, dict[str, Any]]:
    """The network `name` from its published or converted file, and its configuration; ValueError if it does not fit."""
    size = size_of(name)
    family = size.partition("-")[0]
    kind = FAMILIES[family]
    trunk, config = read_trunk(size, path, family, SIZES, kind.layout, kind.chunk)
    return SubBands(family, trunk, TABLE[name].sample_rate), config
