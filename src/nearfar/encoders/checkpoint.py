"""Published files of weights: read without running code from the file, and matched key by key.

    safetensors                    Hugging Face, and the files that `convert` writes
    torch zip or legacy pickle     fairseq .pt, Zenodo dicts, GitHub .pth, torchopenl3 .pth.tar

A network states which keys it needs and which it ignores. Any other key, a missing key or another shape is an error
that lists the keys: a file that differs from the published ones never gives a wrong embedding silently.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from nearfar.encoders.table import TABLE
from nearfar.support.check import choose
from nearfar.support.files import atomic_write, sha256_of
from nearfar.support.words import listed

FORMAT = "nearfar-weights-1"
# Modules of training settings: their objects are read as empty shells
INERT = ("omegaconf.", "fairseq.", "typing.", "collections.", "enum.")


@dataclass(frozen=True)
class Checkpoint:
    """A file: `tensors` by key, its other entries (`rest`), the metadata of a file that `convert` wrote (or {})."""

    path: Path
    tensors: dict[str, Tensor]
    rest: dict[str, Any]
    converted: dict[str, str]

    def __str__(self) -> str:
        return self.path.name


def read(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, memory-mapped where its format allows.

    Raises FileNotFoundError, or ValueError if it has another format or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    with path.open("rb") as file:
        head = file.read(64)
    if head[8:9] == b"{":
        return _safetensors(path)
    if head[:2] != b"PK" and head[:1] != b"\x80":
        kind = "an HTML page: was it downloaded without signing in?" if head.lstrip()[:1] == b"<" else "neither"
        raise ValueError(f"{path} is no weights file: expected safetensors or a torch file, found {kind}")
    return _torch(path, zipped=head[:2] == b"PK")


def zero_tensors(path: str | Path) -> tuple[list[str], int]:
    """The keys of a file's tensors of two numbers or more that are zero throughout, and the number of such tensors."""
    tensors = {key: value for key, value in read(path).tensors.items() if value.numel() > 1}
    return [key for key, value in tensors.items() if not value.any()], len(tensors)


def configuration(
    file: Checkpoint, encoder: str, names: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The entries `names` of the configuration in a converted file, and those of `defaults`; None for a published file.

    Raises ValueError for a file of another family, and for a damaged configuration.
    """
    if not file.converted:
        return None
    found = file.converted.get("encoder")
    if found not in TABLE or TABLE[found].module != TABLE[encoder].module:
        raise ValueError(f"{file} holds {found}, not {encoder}")
    try:
        config = json.loads(file.converted["config"])
        return {name: config[name] for name in names} | {n: config.get(n, v) for n, v in (defaults or {}).items()}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{file}: its configuration of {found} is damaged; convert the published file again") from None


def source_hash(path: str | Path) -> str:
    """SHA-256 of the published file: of `path` itself, or of the file that it was converted from."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("format") == FORMAT:
            return str(metadata["source_sha256"])
    return sha256_of(path)


def match(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], dropped: Sequence[str]
) -> dict[str, Tensor]:
    """The tensors `wanted` (key -> shape), as float32; every other key must match the start of a pattern in `dropped`.

    Raises ValueError listing the keys that are missing, unknown, of another shape, or of integers (quantised).
    """
    keys = set(tensors)
    missing = sorted(set(wanted) - keys)
    unknown = sorted(k for k in keys - set(wanted) if not any(re.match(pattern, k) for pattern in dropped))
    there = {key: tensors[key] for key in wanted if key in keys}
    odd = [
        f"{key} is {tuple(value.shape)}, not {tuple(wanted[key])}"
        for key, value in there.items()
        if tuple(value.shape) != tuple(wanted[key])
    ]
    integers = [f"{key} is {value.dtype}" for key, value in there.items() if not value.is_floating_point()]
    faults = {"missing keys": missing, "unknown keys": unknown, "other shapes": odd, "not floating point": integers}
    if any(faults.values()):
        what = "; ".join(f"{what}: {listed(keys, 20)}" for what, keys in faults.items() if keys)
        raise ValueError(f"{checkpoint} does not hold this network. {what}")
    return {key: tensors[key].float() for key in wanted}


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a module on the meta device, without copying them."""
    module.load_state_dict({key: value.contiguous() for key, value in tensors.items()}, strict=True, assign=True)
    module.requires_grad_(False).eval()


def restore(checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    """Fill a module on the meta device from a file that `save` wrote."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    fill(module, match(checkpoint, checkpoint.tensors, wanted, ()))


def convert(encoder: str, source: str | Path, target: str | Path) -> Path:
    """Write a published file of `encoder` as safetensors with the tensors of the network here, which load faster.

    Raises ValueError as loading does.
    """
    from importlib import import_module

    network, config = import_module(choose("encoder", encoder, TABLE).module).read(encoder, source)
    return save(target, network.module.state_dict(), encoder=encoder, config=config, source=Path(source))


def save(
    path: str | Path, tensors: Mapping[str, Tensor], *, encoder: str, config: Mapping[str, Any], source: Path
) -> Path:
    """Write tensors as safetensors; the metadata hold encoder, configuration, and name and hash of the source."""
    metadata = {
        "format": FORMAT,
        "encoder": encoder,
        "config": json.dumps(dict(config), sort_keys=True),
        "source": source.name,
        "source_sha256": sha256_of(source),
    }
    return atomic_write(path, to_bytes({key: value.contiguous() for key, value in tensors.items()}, metadata))


def _safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error
    return Checkpoint(path, tensors, {}, dict(metadata) if metadata.get("format") == FORMAT else {})


def _torch(path: Path, *, zipped: bool) -> Checkpoint:
    try:
        with _inert_classes(path, zipped):
            top = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        state = top["model"] if isinstance(top, Mapping) and isinstance(top.get("model"), Mapping) else top
        tensors = dict(_flat(state)) if isinstance(state, Mapping) else {}
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as weights alone (cut short, or it holds code): {reason}") from error
    if not isinstance(top, Mapping):
        raise ValueError(f"{path} holds a {type(top).__name__}, not a dict of tensors")
    size = path.stat().st_size
    for key, value in tensors.items():
        if value.numel() * value.element_size() > size:  # expanded from a few stored numbers
            raise ValueError(f"{path} is damaged or malicious: {key} is {tuple(value.shape)}, more than the file holds")
    rest = {key: value for key, value in top.items() if state is not top and key != "model"}
    return Checkpoint(path, tensors, rest, {})


def _flat(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors by key; a dict under a key adds "key/" before its own keys."""
    for key, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")


class _Shell:
    """Stands in for a class of training settings: takes any arguments, keeps nothing, runs nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextlib.contextmanager
def _inert_classes(path: Path, zipped: bool) -> Iterator[None]:
    """Let `torch.load` read the training settings in published files; every other class is refused."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    shells: list[Any] = [(_Shell, name) for name in names if name.startswith(INERT)]
    with torch.serialization.safe_globals([argparse.Namespace, *shells]):
        yield
