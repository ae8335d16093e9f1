"""A frozen network as an encoder: the `Encoder` protocol over torch, for every network of Table 1.

On a CPU clips run one by one, as a batch is no faster there: a clip's grid has the same bits in every list of clips. On
a GPU clips of one length run together, as many as its free memory holds, and a grid may differ by rounding: the batch
size chooses the kernels. While the GPU computes a batch, the next one is copied to it and the last one's grids are
copied back, through pinned memory. Products and convolutions are float32 unless the precision is "tf32".
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
from nearfar.encoders.table import CLS, TABLE, Frames, Layer, as_list
from nearfar.encoders.vit import ClassTokens, Linear
from nearfar.support.check import Array

MEMORY_SHARE = 0.7  # of a GPU's free memory that a batch may take
MOST = 256  # waves of a batch
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


class FrozenEncoder(Frames):
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
        batch: int | None = None,
    ) -> None:
        entry = TABLE[name]
        self.name, self.network, self.weights_path = name, network, Path(path)
        self.sample_rate, self.licence, self.dim = entry.sample_rate, entry.licence, network.dim
        self.place, self.threads, self.precision = torch_device(device), threads, precision
        self.batch, self._fits = batch, dict[int, int]()  # samples of a wave -> waves that fit
        if precision == "bf16":
            for layer in network.module.modules():
                if isinstance(layer, Linear):
                    layer.bfloat16()
        network.module.to(self.place)
        _keep_freed_memory()

    @property
    def device(self) -> str:
        """Where the network is, as torch names it."""
        return str(self.place)

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the published file, also where a converted one was read, and what `loading.WeightsId` adds."""
        how = [self.precision] * (self.precision != "float32") + [self.place.type] * (self.place.type != "cpu")
        return ":".join([source_hash(self.weights_path), *how])

    def grid(self, waves: Any, layer: Layer | Sequence[Layer] = None) -> Any:
        """(B, N) -> (B, T, F, D), or a list of 1-D arrays -> a list of (T, F, D): the tokens of the last block.

        `layer` chooses another block, from 1 to the depth (-1 is the last); several blocks give a list of results.
        "cls", or "cls6" after block 6: the class tokens (chunks, F, D), if the network has them, in place of the grid.
        Raises ValueError for a wave shorter than 0.1 s, a layer that does not exist, and a grid that is not finite.
        """
        wave_list, stacked = as_list(waves)
        for i, wave in enumerate(wave_list):
            if len(wave) < SHORTEST_S * self.sample_rate:
                raise ValueError(
                    f"waves[{i}] holds {len(wave)} samples, less than {SHORTEST_S} s at {self.sample_rate} Hz: "
                    "was it recorded at another rate, or cut?"
                )
        several = isinstance(layer, Sequence) and not isinstance(layer, str)
        asked: Any = layer if several else [layer]
        layers = [self._layer(number) for number in asked]
        with _torch_threads(self.threads):
            found = self._grids(wave_list, layers)
        for i, (_, is_finite) in enumerate(found):
            if not is_finite:
                raise ValueError(
                    f"{self.name} makes NaN or infinity of waves[{i}], whose largest sample is "
                    f"{np.abs(wave_list[i]).max():.3g}: is full scale 1 there, and is {self.weights_path} undamaged?"
                )
        by_layer = ([grids[j] for grids, _ in found] for j in range(len(layers)))
        out: list[Any] = [np.stack(grids) if stacked and grids else grids for grids in by_layer]
        return out if several else out[0]

    def _grids(self, waves: list[Array], layers: list[int]) -> list[tuple[list[Array], bool]]:
        """For each wave a grid per layer, and whether they are finite, which a GPU sees at once."""
        if self.place.type != "cpu":
            return self._in_batches(waves, layers, Copies(self.place))
        with _parallel_map(len(waves)) as parallel_map:
            return list(parallel_map(lambda wave: self._alone(wave, layers), waves))

    def _alone(self, wave: Array, layers: list[int]) -> tuple[list[Array], bool]:
        """`_grids` of a wave on the CPU."""
        short = len(wave) < ONE_THREAD_S * self.sample_rate
        with torch.inference_mode(), _torch_threads(1 if short else None):  # both hold for the calling thread alone
            batch = torch.from_numpy(wave[None].astype(np.float32, copy=False))
            grids = self.network.grids(batch, layers)
            return [grid[0].numpy() for grid in grids], all(bool(grid.isfinite().all()) for grid in grids)

    def _in_batches(self, waves: list[Array], layers: list[int], copies: Copies) -> list[tuple[list[Array], bool]]:
        """`_grids` of waves of which those of one length run together; copies and products overlap."""
        out: list[tuple[list[Array], bool]] = [([], True) for _ in waves]
        before: tuple[list[int], list[Callable[[], Array]]] = [], []

        def finish(batch: list[int], coming: list[Callable[[], Array]]) -> None:
            *grids, is_finite = [wait() for wait in coming] or [np.ones(0)]
            for row, i in enumerate(batch):
                out[i] = [grid[row] for grid in grids], bool(is_finite[row])

        with torch.inference_mode(), rounded_factors(self.precision == "tf32"):
            order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
            for length, same in groupby(order, key=lambda i: len(waves[i])):
                left = list(same)
                size = self.batch or self._fitting(length, layers, copies)
                for low in range(0, len(left), size):
                    batch = left[low : low + size]
                    sent = copies.send(np.stack([waves[i] for i in batch]).astype(np.float32, copy=False))
                    grids = self.network.grids(sent, layers)
                    is_finite = torch.stack([grid.isfinite().flatten(1).all(dim=1) for grid in grids]).all(dim=0)
                    coming = [copies.fetch(values) for values in (*grids, is_finite)]
                    finish(*before)  # while this batch is being computed
                    before = batch, coming
            finish(*before)
        return out

    def _fitting(self, length: int, layers: list[int], copies: Copies) -> int:
        """How many waves of this length fit into the free memory, by what one of them takes."""
        if length not in self._fits:
            silence = copies.send(np.zeros((1, length), np.float32))
            need, free = copies.memory_of(lambda: self.network.grids(silence, layers))
            self._fits[length] = waves_that_fit(need, free)
        return self._fits[length]

    def _layer(self, number: Any) -> int:
        depth, of_cls = self.network.depth, isinstance(number, str) and number.startswith(CLS)
        block = number[len(CLS) :] if of_cls else number
        chosen = depth if block in (None, -1, "") else int(block) if of_cls and block.isdecimal() else block
        if not isinstance(chosen, int) or not 1 <= chosen <= depth:
            raise ValueError(f"{self.name} has layers 1 to {depth}, so layer={number!r} does not exist")
        if of_cls and not TABLE[self.name].class_tokens:
            raise ValueError(f"{self.name} has no class tokens, so layer={number!r} does not exist")
        return ClassTokens(chosen) if of_cls else chosen


class Copies:
    """Copies to a GPU and back through pinned memory, on streams of their own, so that they overlap with products."""

    def __init__(self, place: torch.device) -> None:
        self.place = place
        self._up, self._down = (torch.cuda.Stream(place) for _ in range(2))  # type: ignore[no-untyped-call]

    def send(self, values: Array) -> Tensor:
        """An array on the GPU, ready for the current stream."""
        pinned = torch.from_numpy(values).pin_memory()
        now = torch.cuda.current_stream(self.place)
        with torch.cuda.stream(self._up):
            there = pinned.to(self.place, non_blocking=True)
        now.wait_stream(self._up)
        there.record_stream(now)
        return there

    def fetch(self, values: Tensor) -> Callable[[], Array]:
        """Begin to copy a tensor back; the function waits for it."""
        self._down.wait_stream(torch.cuda.current_stream(self.place))
        with torch.cuda.stream(self._down):
            pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            pinned.copy_(values, non_blocking=True)
            done = self._down.record_event()
        values.record_stream(self._down)

        def wait() -> Array:
            done.synchronize()
            array: Array = pinned.numpy()
            return array

        return wait

    def memory_of(self, work: Callable[[], Any]) -> tuple[int, int]:
        """(bytes that a work takes at its peak, bytes that are free for it)."""
        torch.cuda.synchronize(self.place)
        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_allocated(self.place)
        work()
        peak = torch.cuda.max_memory_allocated(self.place) - before
        return peak, free_memory(self.place)


def free_memory(place: torch.device) -> int:
    """Bytes of a GPU that torch can still use: those that are free, and those that it keeps for itself."""
    kept = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return int(torch.cuda.mem_get_info(place)[0]) + kept


def waves_that_fit(need: int, free: int) -> int:
    """Waves of a batch, of which each needs `need` bytes of `free`: at least 1, at most MOST."""
    return int(min(MOST, max(1, MEMORY_SHARE * free // max(1, need))))


@contextlib.contextmanager
def rounded_factors(allowed: bool) -> Iterator[None]:
    """Whether NVIDIA GPUs may round the factors of float32 products and convolutions to TF32, inside the block.

    torch itself allows it for convolutions.
    """
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


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
