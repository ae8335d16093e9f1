"""Filling the store on a Ray cluster: the functions of `embedding.fill.embed_shard` as a Ray Data pipeline.

    recordings -> _Prepare (tasks, any processor): hash, decode, enhance
               -> Embedder (actors, one GPU each if the cluster has GPUs): networks, and the store (a shared disk)

Each step is idempotent: Ray repeats the steps of a killed worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from nearfar.embedding.batches import run_batch
from nearfar.embedding.cache import CachedEncoders, EmbeddingCache, PendingClip
from nearfar.embedding.embedder import Skip, batch_of
from nearfar.embedding.fill import Done, Order, finish, prepare
from nearfar.embedding.store import Store
from nearfar.encoders.loading import weights_of
from nearfar.errors import StoreError
from nearfar.support.progress import Progress
from nearfar.support.threads import single_threaded_blas

NOTHING = PendingClip("", None, {}, {})
BLOCKS = 1000  # most blocks that the recordings are divided into


@dataclass(frozen=True)
class Description:
    """The properties of an encoder that `_Prepare` needs: tasks get them instead of the network."""

    sample_rate: int
    weights_hash: str


def embed_on_ray(
    paths: Sequence[Path],
    order: Order,
    *,
    grids: CachedEncoders | None = None,
    actors: int | None = None,
    skip: Skip | None = None,
    progress: Progress | None = None,
) -> Done:
    """As `embed_shard`, on the cluster that Ray is connected to or a local one; `actors` processes hold the encoders.

    Raises ImportError if Ray is not installed; otherwise as `embed_shard`.
    """
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise ImportError("the engine ray needs Ray: pip install 'nearfar[ray]'") from error

    if not paths:
        return Done()
    order = _with_full_paths(order)
    source = grids or order.cached_encoders()
    described = {n: Description(e.sample_rate, str(weights_of(e))) for n, e in source.encoders.items()}
    with _connected(ray):
        gpus = int(ray.cluster_resources().get("GPU", 0)) if order.device != "cpu" else 0
        rows = (
            ray.data.from_items(
                [{"at": at, "path": str(Path(path).resolve())} for at, path in enumerate(paths)],
                override_num_blocks=max(1, min(len(paths), BLOCKS)),
            )
            .flat_map(_Prepare(order, described))
            .map_batches(
                Embedder,
                fn_constructor_args=(order,),
                batch_size=batch_of(order.inputs, order.threads or 1),
                compute=ray.data.ActorPoolStrategy(size=actors or gpus or 1),
                num_gpus=1 if gpus else 0,
                num_cpus=0 if gpus else 1,
            )
        )
        return _collect(rows.iter_rows(), paths, skip, progress)


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """The cluster that Ray is connected to, or a local one until the end of the block."""
    local = not ray.is_initialized()
    if local:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
    finally:
        if local:
            ray.shutdown()


def _with_full_paths(order: Order) -> Order:
    """The order with full paths: the workers' current folders are others."""
    weights = order.weights
    if isinstance(weights, Mapping):
        weights = {name: str(Path(file).resolve()) for name, file in weights.items()}
    elif weights is not None:
        weights = str(Path(weights).resolve())
    return replace(order, store=str(Path(order.store).resolve()), weights=weights)


class _Prepare:
    """A row with a path -> a row per pending clip, then one with an empty clip: a path has at least one row."""

    def __init__(self, order: Order, described: Mapping[str, Description]) -> None:
        self.order, self.described = order, described

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        order = self.order
        cache = EmbeddingCache(self.described, Store(order.store, order.dtype), near=order.near, far=order.far)
        try:
            with single_threaded_blas():
                for pending in prepare(row["path"], order, cache):
                    yield {"at": row["at"], "pending": pending, "error": ""}
            yield {"at": row["at"], "pending": NOTHING, "error": ""}
        except (ValueError, OSError) as error:
            yield {"at": row["at"], "pending": NOTHING, "error": str(error)}


class Embedder:
    """An actor that loads the encoders once: a batch of pending clips -> their grids in the store."""

    def __init__(self, order: Order) -> None:
        self.order, self.source = order, order.cached_encoders()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns at, pending, error -> columns at, written, error, full."""
        pending = list(batch["pending"])
        rows = list(map(self._row, pending, run_batch(self.source.encode, pending), map(str, batch["error"])))
        columns = dict(zip(("written", "error", "full"), map(list, zip(*rows, strict=True)), strict=True))
        return {"at": batch["at"], **columns}

    def _row(self, pending: PendingClip, grids: Any, error: str) -> tuple[int, str, bool]:
        try:
            if isinstance(grids, Exception):
                raise grids
            return finish(pending, grids, self.order, self.source.cache), error, False
        except (ValueError, OSError) as problem:
            return 0, str(problem), isinstance(problem, StoreError)


def _collect(rows: Any, paths: Sequence[Path], skip: Skip | None, progress: Progress | None) -> Done:
    done = Done()
    written, errors = dict.fromkeys(range(len(paths)), 0), {}
    seen: set[int] = set()
    for row in rows:
        if row["full"]:
            raise StoreError(row["error"])
        at = row["at"]
        written[at] += row["written"]
        if row["error"]:
            errors[at] = row["error"]
        seen.add(at)
        if progress:
            progress(len(seen), len(paths))
    for at, error in sorted(errors.items()):
        done.failed.append((str(paths[at]), error))
        if skip:
            skip(str(paths[at]), ValueError(error))
    done.recordings = len(paths) - len(errors)
    done.there = sum(written[at] == 0 for at in written if at not in errors)
    return done
