"""Pieces of work in threads: they come back in order, and BLAS has one thread inside each."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nearfar.support.threads import parallel_map, single_threaded_blas, threads


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


def test_pieces_come_back_in_order_and_each_has_one_thread_for_its_products():
    assert parallel_map(lambda piece: (piece, threads()), range(9)) == [(piece, 1) for piece in range(9)]
    assert threads() == 2
    with single_threaded_blas():  # in the thread that asks
        assert parallel_map(lambda _: threading.get_ident(), range(3)) == [threading.get_ident()] * 3


def test_an_error_in_a_piece_reaches_the_caller_and_the_threads_are_given_back():
    def work(piece):
        return np.ones(3) @ np.ones(piece)

    with pytest.raises(ValueError, match="size 4"):
        parallel_map(work, [3, 3, 4, 3])
    assert threads() == 2


def test_contexts_that_overlap_in_threads_all_hold_and_the_last_gives_the_threads_back():
    first = single_threaded_blas()
    with single_threaded_blas():
        first.__exit__(None, None, None)
        assert threads() == 1
    assert threads() == 2


def test_a_thread_that_blas_does_not_obey_gets_its_pieces_done_and_changes_nothing():
    done = []
    thread = threading.Thread(target=lambda: done.extend(parallel_map(lambda piece: piece, range(4))))
    thread.start()
    thread.join()
    assert done == [0, 1, 2, 3]
    assert threads() == 2
