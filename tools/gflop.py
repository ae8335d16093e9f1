"""GFLOP of each network for a clip of 10 s: its products and convolutions, front end included.

    python tools/gflop.py        prints the table GFLOP of src/nearfar/encoders/table.py

Counted by torch's flop counter on the meta device: no weights are needed and nothing is computed. A multiplication and
an addition are two operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nearfar.encoders import TABLE, beats, openl3, subbands, transformers
from nearfar.encoders.sources import SOURCES

CLIP_S = 10


def gflop(name: str) -> float:
    """GFLOP of encoder `name` for a clip."""
    meta = torch.device("meta")
    with meta:
        network = empty_network(name)
    wave = torch.empty(1, CLIP_S * TABLE[name].sample_rate, device=meta)
    # Attention as plain products: the counter does not know the fused one of a CPU.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network.grids(wave, [network.depth])
    return float(counter.get_total_flops()) / 1e9


def empty_network(name: str) -> Any:
    """The network of encoder `name` without numbers."""
    entry = TABLE[name]
    if entry.module == beats.__name__:
        large = beats.Config(24, 1024, 4096, 16) if entry.dim == 1024 else beats.Config()
        return beats.BeatsNetwork(beats.Beats(large))
    if entry.module == openl3.__name__:
        _, bands, _, dim = ("openl3-mel128-env-512" if name == "openl3" else name).split("-")
        return openl3.OpenL3Network(openl3.OpenL3(bands, int(dim)), int(dim))
    if entry.module == subbands.__name__:
        size = subbands.size_of(name)
        return subbands.SubBands(size.partition("-")[0], transformers.empty(subbands.SIZES[size]), entry.sample_rate)
    family_name, shape = transformers.NETWORKS[name]
    family = transformers.FAMILIES[family_name]
    return transformers.Transformer(family, transformers.empty(shape), family.chunk)


if __name__ == "__main__":
    for encoder in SOURCES:
        print(f'    "{encoder}": {gflop(encoder):.3g},')
