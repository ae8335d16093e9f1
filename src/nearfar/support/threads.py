"""Who works in threads: BLAS inside a large product, or we on pieces with one BLAS thread each.

Our own threads each work on a clip or a piece of a matrix; BLAS threads inside them would only wait for each other (ten
times slower on a busy machine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


class single_threaded_blas(AbstractContextManager[None]):
    """A context, from when it is made, in which BLAS works with one thread; the last one to end gives back the others.

    Several threads of ours may be in one each: were each to restore what it met, the others would lose theirs.
    """

    _lock, _limits = Lock(), list[Any]()  # of the contexts that are open; the first knows what was before

    def __init__(self) -> None:
        with self._lock:
            self._limits.append(_controller().limit(limits=1, user_api="blas"))

    def __exit__(self, *error: object) -> None:
        with self._lock:
            limit = self._limits.pop()
            if not self._limits:
                limit.restore_original_limits()


def threads() -> int:
    """How many threads a BLAS product uses now: 1 inside `single_threaded_blas`."""
    return max((blas["num_threads"] for blas in _controller().info() if blas["user_api"] == "blas"), default=1)


def parallel_map(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """[work(piece) for each piece], in as many threads as a BLAS product would use, each with one BLAS thread."""
    workers = min(threads(), len(pieces))
    if workers > 1:
        with single_threaded_blas(), ThreadPoolExecutor(workers) as pool:
            if threads() == 1:  # BLAS obeys one thread of the process: if it is not this one, it stays as it is
                return list(pool.map(work, pieces))
    return [work(piece) for piece in pieces]
