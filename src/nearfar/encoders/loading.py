"""Load encoders by name, and identify their weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.encoders import PRECISIONS, TABLE, Encoder, EncoderDescription, device_class, hash_of, load
from nearfar.encoders.table import NetworkOptions
from nearfar.errors import MissingPlugin
from nearfar.support.check import one_of
from nearfar.support.plugins import PROCESS

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class WeightsId:
    """The identity of an encoder's weights.

    sha256      of their file, "" without a file
    precision   that they run in
    device      class of the device that they run on. Outputs on two devices differ in their last bits, so a store keeps
                them apart; they are the same weights all the same
    """

    sha256: str = ""
    precision: str = "float32"
    device: str = field(default="cpu", compare=False)

    def __str__(self) -> str:
        """The identity as stores keep it: the SHA-256; ":bf16" or ":tf32", and ":cuda" follow if so."""
        how = [self.precision] * (self.precision != "float32") + [self.device] * (self.device != "cpu")
        return ":".join([self.sha256, *how])

    @classmethod
    def parse(cls, text: str) -> WeightsId:
        """The identity that `str` gives as text."""
        sha256, *how = text.split(":")
        device = "cuda" if "cuda" in how else "cpu"
        (precision,) = [each for each in how if each != device] or ["float32"]
        return cls(sha256, one_of("precision", precision, PRECISIONS), device)


def load_encoders(
    names: Iterable[str],
    weights: Any = None,
    known: Mapping[str, WeightsId] | None = None,
    **networks: Unpack[NetworkOptions],
) -> dict[str, Encoder]:
    """Encoders by name.

    weights    a file or folder for all encoders that need weights, or {name: file or folder}
    known      {name: the weights that the file must have, and the precision they run in}
    networks   as of `load`; the precision is for networks that `known` does not name

    Raises ValueError naming both hashes if a file holds other weights.
    """
    given, known, precision = files_of(names, weights), known or {}, networks.get("precision", "float32")
    encoders = {}
    for name in names:
        own_precision = _precision_of(name, precision)
        if own_precision != precision and TABLE[name].has_weights:
            warnings.warn(f"{name} has no linear layers that could run in {precision}: it stays as it is", stacklevel=2)
        if name in known:
            own_precision = known[name].precision
        own: NetworkOptions = {**networks, "precision": own_precision}
        encoders[name] = load(name, given.get(name), **own)
    for name, wanted in known.items():
        found = weights_of(encoders[name]) if name in encoders else wanted
        if found != wanted:
            raise ValueError(
                f"this detector was fitted with other weights of {name}: SHA-256 {wanted}, and the file that was given "
                f"now has {found}. Give the first file, or fit again"
            )
    return encoders


def weights_in(
    names: Iterable[str], weights: Any = None, precision: str = "float32", device: str = "cpu"
) -> dict[str, WeightsId]:
    """`weights_of` each encoder, from the files alone: nothing is loaded. Raises as `load` does."""
    given, kind = files_of(names, weights), device_class(device)
    found = {name: hash_of(name, given.get(name)) for name in names}
    return {
        name: WeightsId(sha256, _precision_of(name, precision), kind if _uses_device(name) else "cpu")
        for name, sha256 in found.items()
    }


def weights_of(encoder: EncoderDescription) -> WeightsId:
    """The identity of an encoder's weights; empty if it has none."""
    return WeightsId.parse(encoder.weights_hash)


def is_nameless(encoder: str, weights: WeightsId) -> bool:
    """Whether an encoder is a plug-in without a `weights_hash`: nothing tells whether its outputs have changed."""
    return TABLE[encoder].weights == "plug-in" and not weights.sha256


def identity(encoder: str, weights: WeightsId) -> str:
    """`weights` as text; of a nameless encoder one that holds in this process alone."""
    return f"of process {PROCESS}" if is_nameless(encoder, weights) else str(weights)


def _uses_device(name: str) -> bool:
    return TABLE[name].weights in ("published", "folder", "plug-in")


def _precision_of(name: str, asked: str) -> str:
    one_of("precision", asked, PRECISIONS)
    return asked if asked in TABLE[name].precisions else "float32"


def with_weights(encoders: Iterable[str]) -> list[str]:
    """Those of `encoders` that need weights, each once, in order of name."""
    return sorted({name for name in encoders if name not in TABLE or TABLE[name].has_weights})


def unused(weights: Any, encoders: Iterable[str]) -> str:
    """Warning text if none of `encoders` would use some of `weights` (a file, a folder or {name: file}), else ""."""
    needed = with_weights(encoders)
    spare = sorted(weights.keys() - needed) if isinstance(weights, Mapping) else []
    if not needed and isinstance(weights, PathLike) and not Path(weights).is_dir():
        spare = [str(weights)]
    if not spare:
        return ""
    what = (
        f"the weights of {', '.join(needed)} are" if needed else "this recipe has no network with weights, so none are"
    )
    return f"{', '.join(spare)} would not be used: {what} needed here"


def full_paths(weights: Any) -> Any:
    """`weights` with full paths, for a process in another folder."""
    if isinstance(weights, Mapping):
        return {name: str(Path(file).resolve()) for name, file in weights.items()}
    return None if weights is None else str(Path(weights).resolve())


def files_of(names: Iterable[str], weights: Any) -> Mapping[str, Any]:
    """`weights` as {name: file or folder}; one file or folder stands for every encoder that needs weights."""
    names = list(names)
    for name in names:
        if name not in TABLE:  # a recipe that another process made
            raise MissingPlugin(
                f"the encoder {name!r} is not registered in this process: each process registers its plug-ins, by "
                "nearfar.register_encoder in a module that it imports"
            )
    return weights if isinstance(weights, Mapping) else {n: weights for n in names if TABLE[n].has_weights}
