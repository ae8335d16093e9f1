"""Recordings -> the store: every waveform goes through every network once, however often a run is interrupted.

`embed_shard` is idempotent: it computes only what the store lacks. A run that was stopped or killed is resumed by the
same call, and any scheduler can call it with any part of the recordings, several at once (Dask:
`bag.map_partitions(embed_shard, order)`, Spark: inside `mapInPandas`). Worker threads hash, decode and enhance
recordings while the networks run on others.
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
from nearfar.embedding.batches import map_batched
from nearfar.embedding.cache import CachedEncoders, EmbeddingCache, PendingClip
from nearfar.embedding.embedder import Skip, batch_of
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import EncoderInput, inputs_of, pool
from nearfar.encoders import CLS, Layers
from nearfar.encoders.loading import load_encoders
from nearfar.errors import StoreError
from nearfar.recipe import SOFT_MASKS, WAVE_VIEWS, Recipe, parse_view
from nearfar.support.check import Array, integer, one_of
from nearfar.support.progress import Progress
from nearfar.support.threads import single_threaded_blas

WAVEFORMS = (*audio.CHANNELS, *(view for view in WAVE_VIEWS if not view.startswith("sfsoft_")), "enh_a<alpha>f<floor>")
REPORT = (*audio.CHANNELS, *(f"enh_{mask}" for mask in SOFT_MASKS))  # the waveforms of the report's seven input methods
SAMPLE = 32  # recordings that are looked up in the store to estimate how many are there
TRIES = 10  # recordings that are tried before the forecast gives up


@dataclass(frozen=True)
class Order:
    """What to keep of every recording, as plain data that travels to other processes.

    encoders, waveforms, layers   keep the grid of each waveform by each encoder at each layer (None: the final one)
    pooled                        or keep only the pooled embeddings of these recipes
    weights                       a file, or {encoder: file}
    dtype                         of a new store
    """

    store: str
    encoders: tuple[str, ...] = ()
    waveforms: tuple[str, ...] = REPORT
    layers: tuple[Layers, ...] = (None,)
    pooled: tuple[Recipe, ...] = ()
    weights: Any = None
    near: int = 0
    far: int | None = 1
    dtype: str | None = None
    device: str = "cpu"
    threads: int | None = None
    precision: str = "float32"
    batch: int | None = None

    def __post_init__(self) -> None:
        if bool(self.encoders) == bool(self.pooled):
            raise ValueError("give the encoders whose grids are to be kept, or recipes to keep their vectors alone")
        for name in self.waveforms:
            if parse_view(name).waveforms != (name,):
                one_of("waveform", name, WAVEFORMS)
        for name in self.encoders:
            for layer in self.layers:  # a recipe raises for what does not exist
                for one in layer if isinstance(layer, tuple) else (layer,):
                    Recipe(encoder=name, freq=CLS) if isinstance(one, str) else Recipe(encoder=name, layer=one)

    @cached_property
    def inputs(self) -> list[EncoderInput]:
        """The encoder inputs whose grids, or pooled embeddings, are kept of a clip."""
        if self.pooled:
            return list(dict.fromkeys(i for recipe in self.pooled for i in inputs_of(recipe)))
        return [EncoderInput(w, name, layer) for name in self.encoders for layer in self.layers for w in self.waveforms]

    def cached_encoders(self) -> CachedEncoders:
        """The encoders, loaded, and the store, opened."""
        names = sorted({i.encoder for i in self.inputs})
        encoders = load_encoders(
            names, self.weights, device=self.device, threads=self.threads, precision=self.precision, batch=self.batch
        )
        made = CachedEncoders(encoders, Store(self.store, self.dtype), near=self.near, far=self.far, must_keep=True)
        for each in self.inputs:
            made.key("", None, each)  # ValueError for an encoder that no store can keep
        return made


@dataclass
class Done:
    """The result of a run.

    recordings   number of those whose arrays are all in the store
    there        number of those that were complete before the run
    failed       (path, reason) of the others
    """

    recordings: int = 0
    there: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def embed_shard(
    paths: Sequence[str | os.PathLike[str]],
    order: Order,
    *,
    grids: CachedEncoders | None = None,
    skip: Skip | None = None,
    progress: Progress | None = None,
) -> Done:
    """Compute and store the arrays of an order that the store lacks; `grids` is `order.cached_encoders()` if given.

    A recording that cannot be used is reported to `skip(name, error)` and counted. StoreError if the disk is full.
    """
    encoders = grids or order.cached_encoders()
    workers = order.threads or os.cpu_count() or 1
    done = Done()
    with single_threaded_blas():
        outcomes = map_batched(
            paths,
            lambda path: prepare(path, order, encoders),
            encoders.encode,
            lambda pending, new: finish(pending, new, order, encoders),
            workers=workers,
            batch=batch_of(order.inputs, workers, encoders.encoders),
        )
        for count, (path, outcome) in enumerate(outcomes, start=1):
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


def prepare(path: str | os.PathLike[str], order: Order, cache: EmbeddingCache) -> Iterator[PendingClip]:
    """The clips of a recording of which the store lacks something, one at a time."""
    assert cache.store is not None
    source = cache.store.hash_of(path)
    if cache.has(source, None, order.inputs):
        return
    for clip in audio.windows(path, near=order.near, far=order.far):
        missing = [i for i in order.inputs if not cache.has(source, clip.window, [i])]
        if missing:
            yield cache.prepare(clip, source, missing)


def finish(pending: PendingClip, new: Mapping[EncoderInput, Array], order: Order, cache: EmbeddingCache) -> int:
    """Write a clip's new grids, or the pooled embeddings if the order has recipes; returns the number of arrays."""
    if order.pooled:
        grids = {**pending.found, **new}
        recipe_of = {i: recipe for recipe in order.pooled for i in inputs_of(recipe)}
        new = {i: pool([grids[i.grid]], recipe)[0] for i, recipe in recipe_of.items() if i.grid in grids}
    cache.keep(pending, new)
    return len(new)


@dataclass(frozen=True)
class Forecast:
    """What a run will need on the disk.

    bytes    that it will add, about
    free     bytes that are free
    shapes   of the arrays of a clip
    made     recordings that were put into the store for this forecast, 1 or 0
    """

    bytes: int
    free: int
    shapes: tuple[tuple[int, ...], ...]
    made: int

    @property
    def fits(self) -> bool:
        """Whether there is room for the run."""
        return self.bytes < self.free


def forecast(paths: Sequence[Path], order: Order, grids: CachedEncoders) -> Forecast | None:
    """What the run will need, by its first recording, which is computed and kept; None if none can be read."""
    store = grids.store
    assert store is not None
    for path in paths[:TRIES]:
        done = embed_shard([path], order, grids=grids)
        if done.recordings:
            break
    else:
        return None
    source = store.hash_of(path)
    window = next(audio.windows(path, near=order.near, far=order.far)).window
    keys = [grids.key(source, window, i) for i in order.inputs]
    window_bytes = sum(store.path(key).stat().st_size for key in keys)
    shapes = {array.shape for key in keys if (array := store.read(key)) is not None}
    share = 1.0 if window is None else window[1] / max(1, round(audio.header(path).seconds * audio.header(path).rate))
    sample = paths[:: max(1, len(paths) // SAMPLE)]
    absent = sum(not _is_stored(p, order, grids) for p in sample) / len(sample)
    recordings = sum(p.stat().st_size for p in paths) / max(1, path.stat().st_size)  # of the first one's size
    free = shutil.disk_usage(store.folder).free
    return Forecast(round(window_bytes / share * recordings * absent), free, tuple(sorted(shapes)), 1 - done.there)


def in_shard(name: str, shard: tuple[int, int]) -> bool:
    """Whether the recording of that name is in part i of n, (i, n), counted from 1; it is in exactly one.

    By the name's hash, so a recording stays where it is when others come and go.
    """
    i, n = integer("the shard", shard[0]), integer("the number of shards", shard[1])
    if i > n:
        raise ValueError(f"there is no shard {i} of {n}: shards are counted from 1")
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % n == i - 1


def _is_stored(path: Path, order: Order, cache: EmbeddingCache) -> bool:
    """Whether the store holds a recording, by its first window; True if it cannot be read, as it then needs no room."""
    try:
        clip = next(audio.windows(path, near=order.near, far=order.far))
        return cache.store is None or cache.has(cache.store.hash_of(path), clip.window, order.inputs)
    except (ValueError, OSError):
        return True
