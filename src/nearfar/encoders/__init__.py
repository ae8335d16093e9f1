"""Frozen encoders: waveforms -> tokens on a time x frequency grid (report section 2.4, Table 1).

    waves   (B, N) mono float32 at `Encoder.sample_rate`, or a list of 1-D arrays of different lengths
    grid    (B, T, F, D) or a list of (T, F, D)

`logmel`, its variants, `rhythm` and `modulation` need no weights, and `exported` is a network of the user. The other
encoders are loaded from published files.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from nearfar.encoders.plugins import name_of_encoder, register_encoder, source_hash
from nearfar.encoders.table import (
    CLS,
    EVALUATION_ONLY,
    FREQS,
    GFLOP,
    PRECISIONS,
    TABLE,
    Encoder,
    EncoderDescription,
    Layer,
    Layers,
    as_frames,
    device_class,
    names,
    needing_torch,
)
from nearfar.support.check import choose, integer, one_of

__all__ = [
    "CLS",
    "EVALUATION_ONLY",
    "FREQS",
    "GFLOP",
    "PRECISIONS",
    "TABLE",
    "Encoder",
    "EncoderDescription",
    "Layer",
    "Layers",
    "as_frames",
    "device_class",
    "hash_of",
    "load",
    "name_of_encoder",
    "names",
    "register_encoder",
]


def load(
    name: str,
    weights: Any = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
    batch: int | None = None,
) -> Encoder:
    """The encoder `name`, with its weights: a file, a folder of weights, or None for the user's own folder.

    `precision="bf16"` runs the linear layers of a transformer in bfloat16: faster on a processor with instructions for
    it, less exact (benchmarks/results/precision.md). `precision="tf32"` lets an NVIDIA GPU round the factors of
    products and convolutions to 11 bits; "float32" never does. The grid is float32.
    `batch` is the number of waves that a GPU computes together; None: as many as its free memory holds.
    Nothing is downloaded. Raises ValueError for unknown names and files of other networks, FileNotFoundError with the
    ways to get the weights, ImportError with the package to install.
    """
    entry = choose("encoder", name, TABLE)
    kind = device_class(device)
    one_of("precision", precision, PRECISIONS)
    if precision not in entry.precisions:
        raise ValueError(f"encoder {name!r} has no linear layers, so precision={precision!r} changes nothing in it")
    if precision == "tf32" and kind == "cpu":
        raise ValueError("precision 'tf32' is a mode of NVIDIA GPUs, and the device is 'cpu': give --device cuda")
    for what, count in (("threads", threads), ("batch", batch)):
        if count is not None:
            integer(what, count)
    if weights is not None and not entry.has_weights:
        raise ValueError(f"encoder {name!r} has no weights, so weights={weights!r} has no use")
    weights = _weights_file(name, weights)
    if entry.licence == EVALUATION_ONLY:
        warnings.warn(f"the weights of {name} are for evaluation only: {EVALUATION_ONLY}", stacklevel=2)
    module = _module(entry.module, name)
    if entry.weights == "published":
        from nearfar.encoders.frozen import FrozenEncoder

        network, _ = module.read(name, weights)
        return FrozenEncoder(name, network, weights, device=device, threads=threads, precision=precision, batch=batch)
    encoder: Encoder = module.load(name, weights, device) if entry.has_weights else module.load(name)
    return encoder


def hash_of(name: str, weights: Any = None) -> str:
    """`weights_hash` of the encoder that `load` would give in float32, from its files alone; "" without weights.

    Raises as `load` does where the files are not there.
    """
    file = _weights_file(name, weights)
    entry = TABLE[name]
    if not entry.has_weights:
        return ""
    if entry.weights == "plug-in":
        return source_hash(name, file)
    module = entry.module if entry.weights in ("own", "folder") else "nearfar.encoders.checkpoint"
    return str(_module(module, name).source_hash(file))


def _weights_file(name: str, weights: Any) -> Any:
    """`weights`, if it is a file; for a folder or None the encoder's file in that folder or in the user's own."""
    published = choose("encoder", name, TABLE).weights == "published"
    if published and (weights is None or Path(weights).is_dir()):
        from nearfar.encoders.weights import find

        return find(name, weights)
    return weights


def _module(path: str, encoder: str) -> Any:
    with needing_torch(f"encoder {encoder!r}"):
        return import_module(path)
