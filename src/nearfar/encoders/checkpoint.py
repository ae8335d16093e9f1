"""Files of weights, as published: read without running any code of theirs, and matched key by key.

    safetensors                    Hugging Face, and what `convert` writes
    torch zip or legacy pickle     fairseq .pt, Zenodo dicts, GitHub .pth, torchopenl3 .pth.tar

A network says which keys it wants and which it drops; anything else in the file, anything missing and any other shape
is an error that lists it. So a surprise in a file is never a silently wrong embedding.
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

from nearfar.support.check import choose
from nearfar.support.files import atomic_write, sha256_of

FORMAT = "nearfar-weights-1"
INERT = ("omegaconf.", "fairseq.", "typing.", "collections.", "enum.")  # training settings: read as empty shells


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors by key, what else it holds, and the metadata of a file that `convert` has written (or {})."""

    path: Path
    tensors: dict[str, Tensor]
    rest: dict[str, Any]
    converted: dict[str, str]

    def __str__(self) -> str:
        return self.path.name


def read(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, memory-mapped where its format allows.

    Raises FileNotFoundError, or ValueError naming the file if it is none of the formats or wants to run code.
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


def configuration(file: Checkpoint, encoder: str, names: Sequence[str]) -> dict[str, Any] | None:
    """What a converted file remembers of its network, by these names, None of a published one.

    Raises ValueError if it is another family's, or does not say.
    """
    from nearfar.encoders import TABLE

    if not file.converted:
        return None
    of = file.converted.get("encoder")
    if of not in TABLE or TABLE[of].module != TABLE[encoder].module:
        raise ValueError(f"{file} holds {of}, not {encoder}")
    try:
        config = json.loads(file.converted["config"])
        return {name: config[name] for name in names}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{file}: what it says of {of} is damaged; convert the published file again") from None


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
    """The tensors that are `wanted` (key -> shape); of the others each must match a `dropped` pattern from its start.

    Raises ValueError listing the keys that are missing, unknown, of another shape, or not of real numbers (quantised).
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
    unreal = [f"{key} is {value.dtype}" for key, value in there.items() if not value.is_floating_point()]
    faults = [
        f"{what}: {', '.join(found[:20])}{f' and {len(found) - 20} more' if len(found) > 20 else ''}"
        for what, found in (
            ("missing keys", missing),
            ("unknown keys", unknown),
            ("other shapes", odd),
            ("no real numbers", unreal),
        )
        if found
    ]
    if faults:
        raise ValueError(f"{checkpoint} does not hold this network. {'; '.join(faults)}")
    return {key: tensors[key].float() for key in wanted}


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an empty module (on the meta device) its tensors, without copying them."""
    module.load_state_dict({key: value.contiguous() for key, value in tensors.items()}, strict=True, assign=True)
    module.requires_grad_(False).eval()


def restore(checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    """Fill an empty module from a file that `save` has written."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    fill(module, match(checkpoint, checkpoint.tensors, wanted, ()))


def convert(encoder: str, source: str | Path, target: str | Path) -> Path:
    """Write a published file of `encoder` once more as safetensors, in our own order: it loads faster.

    Its metadata name the encoder, its configuration and the source with its hash. Raises ValueError as loading does.
    """
    from importlib import import_module

    from nearfar.encoders import TABLE

    network, config = import_module(choose("encoder", encoder, TABLE).module).read(encoder, source)
    return save(target, network.module.state_dict(), encoder=encoder, config=config, source=Path(source))


def save(
    path: str | Path, tensors: Mapping[str, Tensor], *, encoder: str, config: Mapping[str, Any], source: Path
) -> Path:
    """Write the tensors as one safetensors file that names encoder, configuration and the hash of its source."""
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
        if value.numel() * value.element_size() > size:  # of few stored numbers that are repeated
            raise ValueError(f"{path} is damaged, or a trap: {key} is {tuple(value.shape)}, more than the file holds")
    rest = {key: value for key, value in top.items() if state is not top and key != "model"}
    return Checkpoint(path, tensors, rest, {})


def _flat(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors by key; those of a dict stored under a key get "key/" before their own."""
    for key, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")


class _Shell:
    """Stands in for a class of training settings; keeps what it is given and runs nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextlib.contextmanager
def _inert_classes(path: Path, zipped: bool) -> Iterator[None]:
    """Lets `torch.load` pass the settings that published files carry beside the tensors; other classes stay refused."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    shells: list[Any] = [(_Shell, name) for name in names if name.startswith(INERT)]
    with torch.serialization.safe_globals([argparse.Namespace, *shells]):
        yield
