"""One BLAS thread for many small products.

Our own threads each work on a clip; BLAS threads inside them would only wait for each other (ten times slower on a busy
machine). Large products, as in the memory bank, keep all threads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """A context in which BLAS works with one thread; the number of threads is restored afterwards."""
    limit: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limit
