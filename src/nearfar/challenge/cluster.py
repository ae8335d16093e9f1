"""Work on a Ray cluster with a shared disk: filling the store, and the jobs of a search.

`embed_on_ray` has the functions of `embedding.fill.embed_shard` as a Ray Data pipeline:

    recordings -> _Prepare (tasks, any processor): hash, decode, enhance
               -> Embedder (actors, one GPU each if the cluster has GPUs): networks, and the store (a shared disk)

`map_on_ray` runs functions as tasks, one GPU each if the cluster has GPUs. Each step and each task is idempotent: Ray
repeats those of a killed worker. Workers import the plug-ins that are used, and register them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from nearfar.backend import register_backend
from nearfar.embedding.batches import run_batch
from nearfar.embedding.cache import CachedEncoders, EmbeddingCache, PendingClip
from nearfar.embedding.embedder import Skip, batch_of
from nearfar.embedding.fill import Done, Order, finish, prepare
from nearfar.embedding.store import Store
from nearfar.encoders import register_encoder
from nearfar.encoders.loading import full_paths, weights_of
from nearfar.errors import StoreError
from nearfar.pooling import register_pooling
from nearfar.recipe import PLUGINS
from nearfar.support.plugins import Importable
from nearfar.support.progress import Progress
from nearfar.support.threads import single_threaded_blas
from nearfar.views import register_view

Result = TypeVar("Result")
NOTHING = PendingClip("", None, {}, {})
BLOCKS = 1000  # most blocks that the recordings are divided into
REGISTER: dict[str, Callable[[str, Any], None]] = {
    "encoder": register_encoder,
    "view": register_view,
    "pooling": register_pooling,
    "method": register_backend,
}
Used = tuple[tuple[str, str, Importable], ...]  # field of a recipe, name, where it is imported


@dataclass(frozen=True)
class Description:
    """The properties of an encoder that `_Prepare` needs: tasks get them instead of the network."""

    sample_rate: int
    weights_hash: str
    device: str = "cpu"  # of `_Prepare`, which has no GPU


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
    ray = _ray()
    if not paths:
        return Done()
    order = replace(order, store=str(Path(order.store).resolve()), weights=full_paths(order.weights))
    source = grids or order.cached_encoders()
    described = {n: Description(e.sample_rate, str(weights_of(e))) for n, e in source.encoders.items()}
    pooled = [part for recipe in order.pooled for part in recipe.parts]
    names = {field: [getattr(part, field) for part in pooled] for field in REGISTER}
    plugins = importables(names | {"encoder": list(source.encoders)})
    with _connected(ray):
        gpus, cpus = _gpus(ray, order.device != "cpu"), int(ray.cluster_resources().get("CPU", 1))
        if not gpus:  # a processor is left for `_Prepare`, which feeds the actors
            actors = min(actors or 1, max(1, cpus - 1))
        rows = (
            ray.data.from_items(
                [{"at": at, "path": str(Path(path).resolve())} for at, path in enumerate(paths)],
                override_num_blocks=max(1, min(len(paths), BLOCKS)),
            )
            .flat_map(_Prepare(order, described, plugins))
            .map_batches(
                Embedder,
                fn_constructor_args=(order, plugins),
                batch_size=batch_of(order.inputs, order.threads or 1, source.encoders),
                compute=ray.data.ActorPoolStrategy(size=actors or gpus or 1),
                num_gpus=1 if gpus else 0,
                num_cpus=0 if gpus or cpus < 2 else 1,
            )
        )
        return _collect(rows.iter_rows(), paths, skip, progress)


def map_on_ray(
    works: Sequence[Callable[[], Result]],
    names: Mapping[str, Iterable[str]],
    *,
    on_gpu: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """The result of each work, in order, on the cluster that Ray is connected to or a local one.

    `names` are those that the works use, by field of a recipe: plug-ins among them are registered in the workers.
    Raises ImportError if Ray is not installed; the first ValueError or OSError of a work, when all others are done.
    """
    ray = _ray()
    plugins = importables(names)
    with _connected(ray):
        task = ray.remote(num_cpus=1, num_gpus=1 if _gpus(ray, on_gpu) else 0)(_outcome)
        running = {task.remote(plugins, work): at for at, work in enumerate(works)}
        outcomes: dict[int, Any] = {}
        while len(outcomes) < len(works):
            ready, _ = ray.wait([each for each, at in running.items() if at not in outcomes])
            outcomes |= {running[each]: ray.get(each) for each in ready}
            if progress:
                progress(len(outcomes), len(works))
    found = [outcomes[at] for at in range(len(works))]
    for each in found:
        if isinstance(each, Exception):
            raise each
    return found


def _outcome(plugins: Used, work: Callable[[], Result]) -> Result | Exception:
    """The result of a work in a worker, or its ValueError or OSError."""
    _register(plugins)
    try:
        return work()
    except (ValueError, OSError) as error:
        return error


def importables(names: Mapping[str, Iterable[str]]) -> Used:
    """The plug-ins among names by field of a recipe. ValueError for one that another process cannot import."""
    return tuple(
        (field, name, PLUGINS[field].importable(name))
        for field, each in names.items()
        for name in dict.fromkeys(each)
        if name in PLUGINS[field].paths
    )


@lru_cache(maxsize=1)
def _register(plugins: Used) -> None:
    for field, name, importable in plugins:
        REGISTER[field](name, importable.load())


def _ray() -> Any:
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError as error:
        raise ImportError('the engine ray needs Ray: pip install "nearfar[ray]"') from error


def _gpus(ray: Any, wanted: bool) -> int:
    return int(ray.cluster_resources().get("GPU", 0)) if wanted else 0


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


class _Prepare:
    """A row with a path -> a row per pending clip, then one with an empty clip: a path has at least one row."""

    def __init__(self, order: Order, described: Mapping[str, Description], plugins: Used) -> None:
        self.order, self.described, self.plugins = order, described, plugins

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        _register(self.plugins)
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

    def __init__(self, order: Order, plugins: Used) -> None:
        _register(plugins)
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
            return finish(pending, grids, self.order, self.source), error, False
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
