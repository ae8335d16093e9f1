"""A frozen network as an encoder: the `Encoder` protocol over torch, for every network of Table 1.

Clips run one by one on a CPU, where a batch gains nothing: a clip's grid is the same to the last bit in any company. On
a GPU clips of one length run together, and it is the same but for rounding: kernels are chosen by the size of a batch.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.encoders import TABLE, as_frames, each_wave
from nearfar.encoders.checkpoint import source_hash
from nearfar.encoders.vit import Linear
from nearfar.support.check import Array

GPU_BATCH = 16
SHORTEST_S = 0.1
ONE_THREAD_S = 1.0  # below, a product has so few rows that BLAS may split its sums: bits would depend on the threads
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt


class Network(Protocol):
    """What a family of networks offers: a torch module, and waveforms (B, N) -> a grid (B, T, F, D) per layer."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def dim(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def grids(self, waves: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Grids (B, T, F, D) after the blocks numbered `layers`, from 1."""
        ...


class Frozen:
    """An encoder around a network; `weights_path` and `weights_hash` (SHA-256 of the file) say which."""

    def __init__(self, name: str, network: Network, path: Path, *, device: str, threads: int | None) -> None:
        entry = TABLE[name]
        self.name, self.network, self.weights_path = name, network, Path(path)
        self.sample_rate, self.licence, self.dim = entry.sample_rate, entry.licence, network.dim
        self.device, self.threads, self.precision = _device(device), threads, "float32"
        network.module.to(self.device)
        _keep_memory()

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the published file, also where a converted one was read; with ":bf16" if that is the precision."""
        return source_hash(self.weights_path) + ("" if self.precision == "float32" else f":{self.precision}")

    def to_bf16(self) -> None:
        """From now on run the linear layers in bfloat16. Raises ValueError for a network that has none."""
        layers = [layer for layer in self.network.module.modules() if isinstance(layer, Linear)]
        if not layers:
            raise ValueError(f"{self.name} has no linear layers, so precision='bf16' changes nothing in it")
        for layer in layers:
            layer.bfloat16()
        self.precision = "bf16"

    def grid(self, waves: Any, layer: int | Sequence[int] | None = None) -> Any:
        """(B, N) -> (B, T, F, D), or a list of 1-D arrays -> a list of (T, F, D): the tokens of the final layer.

        `layer` chooses another block's output, from 1 to the depth (-1 is the last); several give a list of grids.
        Raises ValueError for a wave shorter than 0.1 s, a layer that does not exist, and a grid that is not finite.
        """
        each, stacked = each_wave(waves)
        for i, wave in enumerate(each):
            if len(wave) < SHORTEST_S * self.sample_rate:
                raise ValueError(
                    f"waves[{i}] holds {len(wave)} samples, less than {SHORTEST_S} s at {self.sample_rate} Hz: "
                    "was it recorded at another rate, or cut?"
                )
        single = layer is None or np.ndim(layer) == 0
        asked = [layer] if single else list(layer)  # type: ignore[arg-type]
        numbers = [self._layer(number) for number in asked]
        with _threads(self.threads):
            found = self._each(each, numbers)  # per wave, per layer
        for i, grids in enumerate(found):
            if not all(np.isfinite(grid).all() for grid in grids):
                raise ValueError(
                    f"{self.name} makes NaN or infinity of waves[{i}], whose largest sample is "
                    f"{np.abs(each[i]).max():.3g}: is full scale 1 there, and is {self.weights_path} undamaged?"
                )
        by_layer = ([grids[j] for grids in found] for j in range(len(asked)))
        out: list[Any] = [np.stack(grids) if stacked and each else grids for grids in by_layer]
        return out[0] if single else out

    def frames(self, waves: Any, freq: str = "concat") -> Any:
        """The grid as frames: "concat" (B, T, F D), "mean" (B, T, D) or "bands" (B, T, F, D)."""
        return as_frames(self.grid(waves), freq)

    def _each(self, waves: list[Array], layers: list[int]) -> list[list[Array]]:
        """Per wave, a grid per layer."""
        lengths = sorted({len(wave) for wave in waves})
        alike = [[i for i, wave in enumerate(waves) if len(wave) == length] for length in lengths]
        size = 1 if self.device.type == "cpu" else GPU_BATCH
        batches = [rows[low : low + size] for rows in alike for low in range(0, len(rows), size)]
        out: list[list[Array]] = [[] for _ in waves]
        with _workers(len(batches) if size == 1 else 1) as each:
            grids_of = each(lambda rows: self._batch([waves[i] for i in rows], layers), batches)
            for rows, grids in zip(batches, grids_of, strict=True):
                for at, i in enumerate(rows):
                    out[i] = [grid[at] for grid in grids]
        return out

    def _batch(self, waves: list[Array], layers: list[int]) -> list[Array]:
        """Waves of one length -> a grid (B, T, F, D) per layer."""
        short = len(waves[0]) < ONE_THREAD_S * self.sample_rate
        with torch.inference_mode(), _threads(1 if short else None):  # both are a thread's own
            batch = torch.from_numpy(np.stack(waves).astype(np.float32, copy=False)).to(self.device)
            return [grid.cpu().numpy() for grid in self.network.grids(batch, layers)]

    def _layer(self, number: Any) -> int:
        depth = self.network.depth
        chosen = depth if number in (None, -1) else number
        if not isinstance(chosen, int) or not 1 <= chosen <= depth:
            raise ValueError(f"{self.name} has layers 1 to {depth}, so layer={number!r} does not exist")
        return chosen


def _device(name: str) -> torch.device:
    """The device, or a ValueError if this machine or this build of torch has none of that name."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try 'cpu'") from None
    return device


def _keep_memory() -> None:
    """Tell glibc to keep what a pass frees for the next one: fresh pages cost a tenth to a quarter of a pass."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Torch's own threads, set for the while; None leaves them as the caller has set them."""
    before = torch.get_num_threads()
    if count in (None, before):  # nothing is set that another thread might be setting as well
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over as many jobs side by side as torch has threads: two clips on a core each beat one clip on two."""
    count = min(jobs, torch.get_num_threads())
    if count < 2:
        yield map
        return
    with _threads(1), ThreadPoolExecutor(count) as pool:
        yield pool.map
