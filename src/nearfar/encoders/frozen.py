"""A frozen network as an encoder: the `Encoder` protocol over torch, for every network of Table 1.

On a CPU clips run one by one, as a batch is no faster there: a clip's grid has the same bits in every list of clips. On
a GPU clips of one length run together, and a grid may differ by rounding: the batch size chooses the kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.encoders.checkpoint import source_hash
from nearfar.encoders.table import TABLE, as_frames, as_list
from nearfar.encoders.vit import Linear
from nearfar.support.check import Array

GPU_BATCH = 16
SHORTEST_S = 0.1
ONE_THREAD_S = 1.0  # shorter clips use one thread: BLAS splits sums of few rows, and bits would depend on the threads
M_TRIM_THRESHOLD = -1  # numbers of mallopt's settings
M_MMAP_THRESHOLD = -3


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


class FrozenEncoder:
    """A network as an encoder; `weights_path` and `weights_hash` (SHA-256 of the file) identify its weights."""

    batches = True

    def __init__(
        self,
        name: str,
        network: Network,
        path: str | Path,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        entry = TABLE[name]
        self.name, self.network, self.weights_path = name, network, Path(path)
        self.sample_rate, self.licence, self.dim = entry.sample_rate, entry.licence, network.dim
        self.device, self.threads, self.precision = torch_device(device), threads, precision
        if precision == "bf16":
            for layer in network.module.modules():
                if isinstance(layer, Linear):
                    layer.bfloat16()
        network.module.to(self.device)
        _keep_freed_memory()

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the published file, also where a converted one was read; ":bf16" and ":cuda" follow if so."""
        how = [self.precision] * (self.precision != "float32") + [self.device.type] * (self.device.type != "cpu")
        return ":".join([source_hash(self.weights_path), *how])

    def grid(self, waves: Any, layer: int | Sequence[int | None] | None = None) -> Any:
        """(B, N) -> (B, T, F, D), or a list of 1-D arrays -> a list of (T, F, D): the tokens of the last block.

        `layer` chooses another block, from 1 to the depth (-1 is the last); several blocks give a list of results.
        Raises ValueError for a wave shorter than 0.1 s, a layer that does not exist, and a grid that is not finite.
        """
        wave_list, stacked = as_list(waves)
        for i, wave in enumerate(wave_list):
            if len(wave) < SHORTEST_S * self.sample_rate:
                raise ValueError(
                    f"waves[{i}] holds {len(wave)} samples, less than {SHORTEST_S} s at {self.sample_rate} Hz: "
                    "was it recorded at another rate, or cut?"
                )
        several = isinstance(layer, Sequence)
        layers = [self._layer(number) for number in (layer if isinstance(layer, Sequence) else [layer])]
        with _torch_threads(self.threads):
            grids_of_waves = self._grids(wave_list, layers)
        for i, grids in enumerate(grids_of_waves):
            if not all(np.isfinite(grid).all() for grid in grids):
                raise ValueError(
                    f"{self.name} makes NaN or infinity of waves[{i}], whose largest sample is "
                    f"{np.abs(wave_list[i]).max():.3g}: is full scale 1 there, and is {self.weights_path} undamaged?"
                )
        by_layer = ([grids[j] for grids in grids_of_waves] for j in range(len(layers)))
        out: list[Any] = [np.stack(grids) if stacked and grids else grids for grids in by_layer]
        return out if several else out[0]

    def frames(self, waves: Any, freq: str = "concat") -> Any:
        """The grid as frames: "concat" (B, T, F D), "mean" (B, T, D) or "bands" (B, T, F, D)."""
        return as_frames(self.grid(waves), freq)

    def _grids(self, waves: list[Array], layers: list[int]) -> list[list[Array]]:
        """For each wave a grid per layer. Waves of one length form batches: one wave on a CPU, GPU_BATCH on a GPU."""
        size = 1 if self.device.type == "cpu" else GPU_BATCH
        order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
        batches = [
            same[low : low + size]
            for same in (list(group) for _, group in groupby(order, key=lambda i: len(waves[i])))
            for low in range(0, len(same), size)
        ]
        out: list[list[Array]] = [[] for _ in waves]
        with _parallel_map(len(batches) if size == 1 else 1) as parallel_map:
            results = parallel_map(lambda batch: self._run([waves[i] for i in batch], layers), batches)
            for batch, grids in zip(batches, results, strict=True):
                for row, i in enumerate(batch):
                    out[i] = [grid[row] for grid in grids]
        return out

    def _run(self, waves: list[Array], layers: list[int]) -> list[Array]:
        """Waves of one length -> a grid (B, T, F, D) per layer."""
        short = len(waves[0]) < ONE_THREAD_S * self.sample_rate
        with torch.inference_mode(), _torch_threads(1 if short else None):  # both hold for the calling thread alone
            batch = torch.from_numpy(np.stack(waves).astype(np.float32, copy=False)).to(self.device)
            return [grid.cpu().numpy() for grid in self.network.grids(batch, layers)]

    def _layer(self, number: Any) -> int:
        depth = self.network.depth
        chosen = depth if number in (None, -1) else number
        if not isinstance(chosen, int) or not 1 <= chosen <= depth:
            raise ValueError(f"{self.name} has layers 1 to {depth}, so layer={number!r} does not exist")
        return chosen


def torch_device(name: str) -> torch.device:
    """The device, or a ValueError if this machine or this build of torch has none of that name."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try 'cpu'") from None
    return device


def _keep_freed_memory() -> None:
    """Tell glibc to keep the memory that a clip frees for the next clip, which saves the time for new pages."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextlib.contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of torch's threads inside the block; None leaves it."""
    before = torch.get_num_threads()
    if count in (None, before):  # do not set what another thread may be setting at the same time
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _parallel_map(items: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` with one thread per torch thread, at most one per item: two clips on a core each beat one clip on two."""
    count = min(items, torch.get_num_threads())
    if count < 2:
        yield map
        return
    with _torch_threads(1), ThreadPoolExecutor(count) as pool:
        yield pool.map
