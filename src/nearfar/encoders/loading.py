"""Encoders loaded by name, and what identifies their weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from nearfar.encoders import PRECISIONS, TABLE, Described, Encoder, hash_of, load
from nearfar.support.check import one_of


def load_encoders(
    names: Iterable[str],
    weights: Any = None,
    known: Mapping[str, str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
) -> dict[str, Encoder]:
    """Encoders by name; `weights` is a file for those that need one, or {name: file}; `known`: hashes to insist on.

    `precision` is that of the networks that have one, where a known hash does not say another.
    Raises ValueError naming both hashes if a file holds other weights than are known.
    """
    given, known = files_of(names, weights), known or {}
    encoders = {}
    for name in names:
        of = _precision_of(name, precision)
        if of != precision and TABLE[name].has_weights:
            warnings.warn(f"{name} has no linear layers that could run in {precision}: it stays as it is", stacklevel=2)
        of = ("bf16" if known[name].endswith(":bf16") else "float32") if name in known else of
        encoders[name] = load(name, given.get(name), device=device, threads=threads, precision=of)
    for name, digest in known.items():
        found = weights_of(encoders[name]) if name in encoders else digest
        if found != digest:
            raise ValueError(
                f"this detector was fitted with other weights of {name}: SHA-256 {digest}, and the file that was given "
                f"now has {found}. Give the first file, or fit again"
            )
    return encoders


def hashes_of(names: Iterable[str], weights: Any = None, precision: str = "float32") -> dict[str, str]:
    """What `weights_of` each encoder will say, told from the files: nothing is loaded. Raises as `load` does."""
    given = files_of(names, weights)
    suffix = {name: "" if _precision_of(name, precision) == "float32" else f":{precision}" for name in names}
    return {name: hash_of(name, given.get(name)) + suffix[name] for name in names}


def weights_of(encoder: Described) -> str:
    """What an encoder's numbers come from: the hash of its weights file, HASH:bf16 in that precision, or ""."""
    weights: str = getattr(encoder, "weights_hash", "")
    return weights


def _precision_of(name: str, asked: str) -> str:
    one_of("precision", asked, PRECISIONS)
    return asked if TABLE[name].bf16 else "float32"


def with_weights(encoders: Iterable[str]) -> list[str]:
    """Those of `encoders` that need weights, each once, in order of name."""
    return sorted({name for name in encoders if name not in TABLE or TABLE[name].has_weights})


def unused(weights: Any, encoders: Iterable[str]) -> str:
    """What of `weights` (a file, a folder or {name: file}) none of `encoders` would use, and what they need, or ""."""
    needed = with_weights(encoders)
    spare = sorted(weights.keys() - needed) if isinstance(weights, Mapping) else []
    if not needed and isinstance(weights, PathLike) and not Path(weights).is_dir():
        spare = [str(weights)]
    if not spare:
        return ""
    what = f"the weights of {', '.join(needed)} are" if needed else "log-mel has no weights, so none are"
    return f"{', '.join(spare)} would not be used: {what} needed here"


def files_of(names: Iterable[str], weights: Any) -> Mapping[str, Any]:
    """{name: file or folder} of weights that may be one for all encoders that have any."""
    return weights if isinstance(weights, Mapping) else {n: weights for n in names if TABLE[n].has_weights}
