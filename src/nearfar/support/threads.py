"""Threads: ours on whole items, with one BLAS thread each, or BLAS threads inside one large product; never both.

BLAS threads inside our own threads wait for each other (ten times slower on a busy machine), and the last bit of a
product depends on the number of BLAS threads.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from itertools import islice
from threading import RLock, Thread
from time import monotonic
from typing import Any, ClassVar, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


class single_threaded_blas(AbstractContextManager[None]):
    """A context in which BLAS uses one thread. Contexts may nest and overlap; the last to end restores the threads."""

    _lock: ClassVar = RLock()  # the garbage collector may end a context within another's beginning
    _open: ClassVar[int] = 0
    _before: ClassVar[dict[str, tuple[Any, int]]] = {}  # path of a library -> it, and its number of threads outside

    def __enter__(self) -> None:
        shared = single_threaded_blas
        with self._lock:
            shared._open += 1
            for library in _blas(len(sys.modules)):
                shared._before.setdefault(library.filepath, (library, library.get_num_threads()))
                library.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        shared = single_threaded_blas
        with self._lock:
            shared._open -= 1
            if not shared._open:
                for library, count in shared._before.values():
                    library.set_num_threads(count)
                shared._before.clear()


def threads() -> int:
    """Number of threads that a BLAS product uses now: 1 inside `single_threaded_blas`."""
    return max((library.get_num_threads() for library in _blas(len(sys.modules))), default=1)


def map_in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None, *, ahead: int = 1
) -> Generator[Result]:
    """`map(work, items)` in `threads` threads (None: one per core), each with one BLAS thread.

    Results come in the order of the items; an item's exception is raised in its place. At most `ahead` items per
    thread are begun before their turn, so memory stays bounded. When the consumer stops, items not begun are dropped.
    """
    workers = threads or os.cpu_count() or 1
    rest = iter(items)
    with single_threaded_blas():
        if workers == 1:
            yield from map(work, rest)
            return
        with pool_of_threads(workers) as pool:
            waiting: deque[Future[Result]] = deque()
            while True:
                waiting += [pool.submit(work, item) for item in islice(rest, (1 + ahead) * workers - len(waiting))]
                if not waiting:
                    return
                yield waiting.popleft().result()


@contextmanager
def pool_of_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool for a generator, with one BLAS thread in each thread; what has not begun at the end is dropped.

    The end waits for what is running, but not where the generator is closed: the garbage collector does so in any
    thread, also in one of the pool that holds what another thread of the pool waits for.
    """
    pool = ThreadPoolExecutor(workers, initializer=_one_blas_thread_here)
    wait = True
    try:
        yield pool
    except GeneratorExit:
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def all_within(wait_s: float, works: Iterable[Callable[[], object]]) -> None:
    """Do all works side by side, and wait `wait_s` for them at most; a work that hangs does not keep the process."""
    until = monotonic() + wait_s
    running = [Thread(target=work, daemon=True) for work in works]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(max(0.0, until - monotonic()))


def _one_blas_thread_here() -> None:
    """What the main thread sets does not reach a BLAS that is threaded by OpenMP, as faiss brings one.

    A thread that begins when its map has ended leaves BLAS alone: other kinds have one number for all threads.
    """
    with single_threaded_blas._lock:
        for library in _blas(len(sys.modules)) if single_threaded_blas._open else ():
            library.set_num_threads(1)


@lru_cache(maxsize=1)
def _blas(modules: int) -> list[Any]:
    # Looking for libraries takes about 1 ms: done again only after an import, which is what loads a BLAS.
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]
