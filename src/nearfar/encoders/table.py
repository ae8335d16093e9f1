"""The table of frozen encoders, and what all of them share (report section 2.4, Table 1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np

from nearfar.support.check import Array, choose, finite

FREQS: dict[str, Callable[[Any], Any]] = {  # a grid (..., T, F, D) as frames, by name
    "concat": lambda grid: grid.reshape(*grid.shape[:-2], -1),
    "mean": lambda grid: grid.mean(axis=-2),
    "bands": lambda grid: grid,
}
PRECISIONS = ("float32", "tf32", "bf16")
CLS = "cls"  # as a layer: the class tokens after the last block; "cls6": after block 6
Layer = int | str | None  # what an encoder gives: the grid after a block (None: the last), or its class tokens
Layers = Layer | tuple[Layer, ...]  # of several, the average is taken
DEVICE = re.compile(r"(cpu|cuda)(:\d{1,3})?")
OURS = "Apache-2.0, no weights"
OPENBEATS = "CC-BY-4.0: as the pages of the fine-tuned OpenBEATs say; those of these files were not seen"
EVALUATION_ONLY = "NTT Software License Agreement for Evaluation: internal, non-commercial evaluation only"


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    module         builds the encoder
    parameters     trained numbers without classifier and fixed positions; None for the user's own network
    weights        "none", "published" (a file of `sources.SOURCES`), "own" (the manifest of the user's network),
                   "folder" (a model of Hugging Face) or "plug-in" (what the encoder of the user takes, see `plugins`)
    bf16           whether the network has linear layers, which can run in bfloat16
    class_tokens   whether the network has class tokens, which a recipe with freq "cls" pools in place of the grid
    precisions     those that the network can run in
    """

    module: str
    sample_rate: int
    dim: int
    licence: str
    frames_per_s: float
    parameters: int | None
    weights: str = "published"
    bf16: bool = True
    class_tokens: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether the encoder needs a weights file, or may take one."""
        return self.weights != "none"

    @property
    def precisions(self) -> tuple[str, ...]:
        """ "float32" for all; "tf32" for networks of nearfar; "bf16" for those with linear layers."""
        return PRECISIONS[:1] if self.weights != "published" else PRECISIONS if self.bf16 else PRECISIONS[:2]

    @property
    def has_layers(self) -> bool:
        """Whether a recipe can choose a layer."""
        return self.weights in ("published", "folder")


def _vit(dim: int, licence: str, frames_per_s: float, parameters: int, *, cls: bool = False) -> Entry:
    return Entry("nearfar.encoders.transformers", 16_000, dim, licence, frames_per_s, parameters, class_tokens=cls)


def _beats(dim: int = 768, licence: str = "MIT", parameters: int = 90_311_792) -> Entry:
    return Entry("nearfar.encoders.beats", 16_000, dim, licence, 6.25, parameters)


def _openl3(dim: int = 512) -> Entry:
    return Entry("nearfar.encoders.openl3", 48_000, dim, "CC-BY-4.0 (weights of OpenL3)", 10, 4_687_042, bf16=False)


def _logmel(frames_per_s: float) -> Entry:
    return Entry("nearfar.encoders.logmel", 16_000, 128, OURS, frames_per_s, 0, "none", bf16=False)


TABLE = {
    "logmel": _logmel(31.25),
    # Table 1 of the report
    "eat-large": _vit(1024, "MIT", 6.25, 302_575_616, cls=True),
    "eat-as2m": _vit(768, "MIT", 6.25, 85_254_144, cls=True),
    "beats": _beats(),
    "ced-base": _vit(768, "Apache-2.0", 6.25, 85_304_960),
    "m2d-clap": _vit(768, EVALUATION_ONLY, 6.25, 85_254_144, cls=True),
    "sslam": _vit(768, "MIT", 6.25, 85_254_144, cls=True),
    "openl3": _openl3(),
    "dasheng": _vit(768, "Apache-2.0", 25, 85_447_808),
    # other windows of the log-mel spectrum
    "logmel-4096": _logmel(7.8125),
    "logmel-4096-4096": _logmel(3.90625),
    # one frame a clip; frames per second stand for clips of 10 s
    "rhythm": Entry("nearfar.encoders.rhythm", 16_000, 2, OURS, 0.1, 0, "none", bf16=False),
    "modulation": Entry("nearfar.encoders.modulation", 16_000, 8, OURS, 0.1, 0, "none", bf16=False),
    # other sizes and training stages of the same networks
    "eat-base": _vit(768, "MIT", 6.25, 85_254_144, cls=True),
    "eat-large-as2m": _vit(1024, "MIT", 6.25, 302_575_616, cls=True),
    "sslam-as2m": _vit(768, "MIT", 6.25, 85_254_144, cls=True),
    "beats-iter3": _beats(),
    "beats-as2m-cpt1": _beats(),
    "beats-as2m-cpt2": _beats(),
    "ced-tiny": _vit(192, "Apache-2.0", 6.25, 5_401_088),
    "ced-mini": _vit(256, "Apache-2.0", 6.25, 9_560_704),
    "ced-small": _vit(384, "Apache-2.0", 6.25, 21_418_880),
    "dasheng-0.6b": _vit(1280, "Apache-2.0", 25, 630_000_000),
    "dasheng-1.2b": _vit(1536, "Apache-2.0", 25, 1_130_000_000),
    **{
        f"openl3-{bands}-{content}-{dim}": _openl3(dim)
        for bands in ("mel128", "mel256", "linear")
        for content in ("env", "music")
        for dim in (512, 6144)
    },
    # made for machines, at the rate of the recordings: 16 kHz, and others by name
    **{
        f"{name}{suffix}": Entry("nearfar.encoders.subbands", rate, dim, "MIT", 6.25, parameters, class_tokens=True)
        for name, dim, parameters in (
            ("fisher-tiny", 192, 5_388_288),
            ("fisher-mini", 256, 9_543_680),
            ("fisher-small", 384, 21_393_408),
            ("echo-small", 384, 21_491_712),
        )
        for suffix, rate in (("", 16_000), ("-44k", 44_100), ("-48k", 48_000))
    },
    "openbeats-base": _beats(licence=OPENBEATS),
    "openbeats-large": _beats(1024, OPENBEATS, 311_376_576),
    "huggingface": Entry("nearfar.encoders.huggingface", 16_000, 0, "of the model", 0, None, "folder", bf16=False),
    "exported": Entry("nearfar.encoders.exported", 16_000, 0, "of the file", 0, None, "own", bf16=False),
}


GFLOP: dict[str, float] = {  # of a network for a clip of 10 s, counted from its architecture by tools/gflop.py
    "eat-large": 336, "eat-as2m": 97.1, "eat-base": 97.1, "eat-large-as2m": 336, "sslam": 97.1, "sslam-as2m": 97.1,
    "beats": 98.7, "beats-iter3": 98.7, "beats-as2m-cpt1": 98.7, "beats-as2m-cpt2": 98.7,
    "openbeats-base": 98.7, "openbeats-large": 333, "m2d-clap": 56.5,
    "ced-base": 44.5, "ced-small": 11.7, "ced-mini": 5.5, "ced-tiny": 3.26,
    "dasheng": 44.9, "dasheng-0.6b": 325, "dasheng-1.2b": 582,
    "fisher-tiny": 10.6, "fisher-tiny-44k": 26.4, "fisher-tiny-48k": 31.7,
    "fisher-mini": 17.6, "fisher-mini-44k": 44, "fisher-mini-48k": 52.8,
    "fisher-small": 37, "fisher-small-44k": 92.4, "fisher-small-48k": 111,
    "echo-small": 19.7, "echo-small-44k": 50.7, "echo-small-48k": 53.5, "openl3": 984,
    **{
        f"openl3-{bands}-{content}-{dim}": count
        for bands, count in (("mel128", 984), ("mel256", 1970), ("linear", 1950))
        for content in ("env", "music")
        for dim in (512, 6144)
    },
}  # fmt: skip


class NetworkOptions(TypedDict, total=False):
    """How networks run: keyword arguments of `encoders.load`, which explains them."""

    device: str
    threads: int | None
    precision: str
    batch: int | None


class EncoderDescription(Protocol):
    """What is needed to prepare the input of an encoder, and to say which weights it has ("" if it has none)."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def weights_hash(self) -> str: ...

    @property
    def device(self) -> str:
        """Where it computes: "cpu", or a device of torch. Its waveforms are enhanced there too."""
        ...


class Encoder(EncoderDescription, Protocol):
    """An encoder that is loaded."""

    sample_rate: int
    dim: int
    licence: str
    batches: bool  # whether `grid` spreads a list of waves over the processors itself, so that callers collect them

    def grid(self, waves: Any, layer: Any = None) -> Any:
        """(B, N) -> (B, T, F, D); a list of 1-D arrays -> a list of (T, F, D).

        `layer`: the number of a block, None for the last, "cls" for class tokens; a list gives a list of results.
        """
        ...

    def frames(self, waves: Any, freq: str = "concat") -> Any:
        """The grid as frames: "concat" (B, T, F D), "mean" (B, T, D) or "bands" (B, T, F, D)."""
        ...


class Frames:
    """What every encoder of nearfar makes of its grid."""

    def grid(self, waves: Any, layer: Any = None) -> Any:
        """As `Encoder.grid`."""
        raise NotImplementedError

    def frames(self, waves: Any, freq: str = "concat") -> Any:
        """The grid as frames: "concat" (B, T, F D), "mean" (B, T, D) or "bands" (B, T, F, D)."""
        return as_frames(self.grid(waves), freq)


def names() -> tuple[str, ...]:
    """Names of all encoders, those of Table 1 in its order after `logmel`, then the extras."""
    return tuple(TABLE)


@contextmanager
def needing_torch(what: str) -> Iterator[None]:
    """Turn the error of a missing torch into an ImportError that names the package to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f'{what} needs torch: pip install "nearfar[torch]"') from None


def device_class(device: str) -> str:
    """ "cpu" or "cuda". ValueError for what names no device."""
    found = DEVICE.fullmatch(device) if isinstance(device, str) else None
    if found is None:
        raise ValueError(f"device {device!r} is none of cpu, cuda and cuda:N, such as cuda:0")
    return found[1]


def as_frames(grid: Any, freq: str) -> Any:
    """A grid (..., T, F, D), or a list of them, as frames; see `Encoder.frames`."""
    rule = choose("freq", freq, FREQS)
    return [rule(g) for g in grid] if isinstance(grid, list) else rule(grid)


def as_list(waves: Any) -> tuple[list[Array], bool]:
    """Waves (B, N) or a list of 1-D arrays -> a checked list of 1-D arrays, and whether they were one array (B, N)."""
    stacked = isinstance(waves, np.ndarray)
    if stacked and waves.ndim != 2:
        raise ValueError(f"waves must be (B, N) or a list of 1-D arrays, not an array of shape {waves.shape}")
    return [finite(f"waves[{i}]", wave, ndim=1) for i, wave in enumerate(waves)], stacked
