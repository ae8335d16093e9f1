"""Recordings -> the store: every pass once, whatever happens in between.

`embed_shard` is one idempotent function: what is in the store already is not computed again, so a run that was stopped
or killed is resumed by starting it again, and any scheduler can call it with any part of the recordings, several at
once (Dask: `bag.map_partitions(embed_shard, order)`, Spark: inside `mapInPandas`). Recordings are hashed, decoded and
enhanced by workers while the networks work on others; each waveform goes through each network once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from nearfar import audio
from nearfar.embedding.batches import stream
from nearfar.embedding.cache import CacheReader, EmbeddingCache, PendingClip
from nearfar.embedding.embedder import Skip, batch_of
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import CHANNELS, EncoderInput, inputs_of, pool
from nearfar.encoders.loading import load_encoders
from nearfar.errors import StoreError
from nearfar.recipe import SOFT_MASKS, WAVE_VIEWS, Recipe
from nearfar.support.check import Array, integer, one_of
from nearfar.support.files import sha256_of
from nearfar.support.progress import Progress
from nearfar.support.threads import single_threaded_blas

WAVEFORMS = (*CHANNELS, *(view for view in WAVE_VIEWS if not view.startswith("sfsoft_")))
REPORT = (*CHANNELS, *(f"enh_{mask}" for mask in SOFT_MASKS))  # what the report's seven input methods are made of
SAMPLE = 32  # recordings that are looked at to tell how many are in the store already
TRIES = 10  # unreadable recordings in a row before the size is left unsaid


@dataclass(frozen=True)
class Order:
    """What to keep of every recording, as plain data that travels to other processes.

    Grids of each waveform by each encoder at each layer (None: the final one), or, with `pooled`, the vectors of those
    recipes alone. `weights`: a file, or {encoder: file}; `dtype` of a new store.
    """

    store: str
    encoders: tuple[str, ...] = ()
    waveforms: tuple[str, ...] = REPORT
    layers: tuple[int | None, ...] = (None,)
    pooled: tuple[Recipe, ...] = ()
    weights: Any = None
    near: int = 0
    far: int | None = 1
    dtype: str | None = None
    device: str = "cpu"
    threads: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        if bool(self.encoders) == bool(self.pooled):
            raise ValueError("give the encoders whose grids are to be kept, or recipes to keep their vectors alone")
        for name in self.waveforms:
            one_of("waveform", name, WAVEFORMS)
        for name in self.encoders:
            for layer in self.layers:
                Recipe(encoder=name, layer=layer)  # raises for what does not exist

    @cached_property
    def passes(self) -> list[EncoderInput]:
        """What is kept of a clip."""
        if self.pooled:
            return list(dict.fromkeys(p for recipe in self.pooled for p in inputs_of(recipe, pooled=True)))
        return [EncoderInput(w, name, layer) for name in self.encoders for layer in self.layers for w in self.waveforms]

    def library(self) -> EmbeddingCache:
        """The store, opened, and the encoders, loaded."""
        names = sorted({p.encoder for p in self.passes})
        encoders = load_encoders(
            names, self.weights, device=self.device, threads=self.threads, precision=self.precision
        )
        return EmbeddingCache(encoders, Store(self.store, self.dtype), near=self.near, far=self.far, must_keep=True)


@dataclass
class Done:
    """What a run did: recordings that are in the store whole, how many of them were there before, and the others."""

    recordings: int = 0
    there: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def embed_shard(
    paths: Sequence[str | os.PathLike[str]],
    order: Order,
    *,
    library: EmbeddingCache | None = None,
    skip: Skip | None = None,
    progress: Progress | None = None,
) -> Done:
    """Put into the store what is ordered of these recordings and not there yet; `library` as `order.library()` gives.

    A recording that cannot be used is reported to `skip(name, error)` and counted. StoreError if the disk is full.
    """
    library = library or order.library()
    workers = order.threads or os.cpu_count() or 1
    done = Done()
    with single_threaded_blas():
        outcomes = stream(
            paths,
            lambda path: begin(path, order, library),
            library.run,
            lambda request, grids: finish(request, grids, order, library),
            workers=workers,
            batch=batch_of(order.passes, workers),
        )
        for count, (path, outcome) in enumerate(zip(paths, outcomes, strict=True), start=1):
            if isinstance(outcome, StoreError):
                raise outcome
            if isinstance(outcome, Exception):
                done.failed.append((str(path), str(outcome)))
                if skip:
                    skip(str(path), outcome)
            else:
                done.recordings += 1
                done.there += not outcome
            if progress:
                progress(count, len(paths))
    return done


def begin(path: str | os.PathLike[str], order: Order, library: CacheReader) -> Iterator[PendingClip]:
    """What is lacking of a recording, a clip at a time; nothing if all is in the store."""
    source = sha256_of(path)
    if library.has(source, None, order.passes):
        return
    for clip in audio.windows(path, near=order.near, far=order.far):
        missing = [p for p in order.passes if not library.has(source, clip.window, [p])]
        if missing:
            yield library.begin(clip, source, missing)


def finish(request: PendingClip, new: Mapping[EncoderInput, Array], order: Order, library: EmbeddingCache) -> int:
    """Write what was ordered of a clip, its new grids or their pooled vectors; how many were written."""
    if order.pooled:
        grids = {**request.found, **new}
        by_pass = {p: recipe for recipe in order.pooled for p in inputs_of(recipe, pooled=True)}
        new = {p: pool(grids[p.grid], recipe) for p, recipe in by_pass.items() if p.grid in grids}
    library.keep(request, new)
    return len(new)


@dataclass(frozen=True)
class Forecast:
    """What a run will add to the disk, in bytes and about, of what is free; what a clip's grids look like.

    `made`: recordings that were put into the store to find out, 1 or 0.
    """

    bytes: int
    free: int
    shapes: tuple[tuple[int, ...], ...]
    made: int

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.bytes < self.free


def forecast(paths: Sequence[Path], order: Order, library: EmbeddingCache) -> Forecast | None:
    """What the run will take on disk, by its first recording, which is computed and kept; None if none can be read."""
    store = library.store
    assert store is not None
    for path in paths[:TRIES]:
        done = embed_shard([path], order, library=library)
        if done.recordings:
            break
    else:
        return None
    source = sha256_of(path)
    window = next(audio.windows(path, near=order.near, far=order.far)).window
    keys = [library.key(source, window, p) for p in order.passes]
    one = sum(store.path(key).stat().st_size for key in keys)
    shapes = {grid.shape for key in keys if (grid := store.read(key)) is not None}
    share = 1.0 if window is None else window[1] / max(1, round(audio.header(path).seconds * audio.header(path).rate))
    sample = paths[:: max(1, len(paths) // SAMPLE)]
    absent = sum(not _is_there(p, order, library) for p in sample) / len(sample)
    total = sum(p.stat().st_size for p in paths) / max(1, path.stat().st_size)  # recordings like the first
    free = shutil.disk_usage(store.folder).free
    return Forecast(round(one / share * total * absent), free, tuple(sorted(shapes)), 1 - done.there)


def in_shard(name: str, shard: tuple[int, int]) -> bool:
    """Whether the recording of that name is in part i of n, (i, n), counted from 1; it is in exactly one.

    By the name's hash, so a recording stays where it is when others come and go.
    """
    i, n = integer("the shard", shard[0]), integer("the number of shards", shard[1])
    if i > n:
        raise ValueError(f"there is no shard {i} of {n}: shards are counted from 1")
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % n == i - 1


def _is_there(path: Path, order: Order, library: EmbeddingCache) -> bool:
    """Whether a recording is in the store, by its first window; one that cannot be read needs no room."""
    try:
        clip = next(audio.windows(path, near=order.near, far=order.far))
        return library.has(sha256_of(path), clip.window, order.passes)
    except (ValueError, OSError):
        return True
