"""Work in threads: results come in order, and BLAS has one thread inside each."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import nearfar
from conftest import hum
from nearfar.support.threads import map_in_order, single_threaded_blas, threads


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_and_each_item_has_one_thread_for_its_products(workers):
    def work(item):
        time.sleep(0.002 * (item % 3 == 0))
        return item, threads()

    assert list(map_in_order(work, iter(range(9)), workers)) == [(item, 1) for item in range(9)]
    assert threads() == 2


def test_a_blas_that_is_threaded_by_openmp_has_one_thread_inside_each_too():
    pytest.importorskip("faiss")
    assert set(map_in_order(lambda _: threads(), range(5), 2)) == {1}


def test_one_thread_works_in_the_thread_of_the_caller():
    assert list(map_in_order(lambda _: threading.get_ident(), range(3), 1)) == [threading.get_ident()] * 3


def test_an_error_of_an_item_comes_in_its_place_and_the_threads_are_given_back():
    results = map_in_order(lambda item: np.ones(3) @ np.ones(item), [3, 3, 4, 3], 2)
    assert (next(results), next(results)) == (3, 3)
    with pytest.raises(ValueError, match="size 4"):
        next(results)
    assert threads() == 2


def test_only_a_bounded_number_of_items_is_begun_and_none_after_the_consumer_stops():
    begun = []
    results = map_in_order(lambda item: begun.append(item) or item, iter(range(1000)), 2, ahead=3)
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert len(begun) <= 2 + (1 + 3) * 2
    assert threads() == 2


def test_contexts_that_overlap_in_threads_all_hold_and_the_last_gives_the_threads_back():
    first = single_threaded_blas()
    assert threads() == 2  # it acts when it is entered
    first.__enter__()
    with single_threaded_blas():
        first.__exit__(None, None, None)
        assert threads() == 1
    assert threads() == 2


def test_a_library_that_is_loaded_inside_a_context_is_limited_by_the_next_and_restored(monkeypatch):
    class Library:
        filepath, count = "late.so", 7

        def get_num_threads(self):
            return self.count

        def set_num_threads(self, count):
            self.count = count

    late = Library()
    with single_threaded_blas():
        monkeypatch.setattr("nearfar.support.threads._blas", lambda modules: [late])
        with single_threaded_blas():
            assert late.count == 1
        assert late.count == 1
    assert late.count == 7
    monkeypatch.undo()
    assert threads() == 2


def test_contexts_of_many_threads_leave_the_threads_as_they_were():
    seen = set()

    def many():
        for _ in range(200):
            with single_threaded_blas():
                seen.add(threads())

    with single_threaded_blas():  # BLAS obeys the thread that loaded it
        workers = [threading.Thread(target=many) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert seen == {1}
    assert threads() == 2


def test_a_thread_that_blas_does_not_obey_gets_its_items_done_and_changes_nothing():
    done = []
    thread = threading.Thread(target=lambda: done.extend(map_in_order(lambda item: item, range(4), 2)))
    thread.start()
    thread.join()
    assert done == [0, 1, 2, 3]
    assert threads() == 2


def test_a_map_that_is_closed_in_one_of_its_own_threads_does_not_wait_for_the_others():
    taken, closed = threading.Event(), threading.Event()

    def work(item):
        if item == 1:
            taken.wait(20)
            results.close()  # as the garbage collector does, in whatever thread it runs
            closed.set()
        elif item == 2:
            closed.wait(20)  # a thread of the pool that needs what item 1 holds
        return item

    results = map_in_order(work, range(9), 3)
    assert next(results) == 0
    taken.set()
    assert closed.wait(20)


def test_an_error_ends_the_map_of_the_recordings_at_once(tmp_path):
    clips = nearfar.Detector("logmel-floor").fit([hum(i, seconds=0.5) for i in range(6)])
    before = threads()
    with pytest.raises(FileNotFoundError) as error:
        clips.score([hum(7, seconds=0.5), *[tmp_path / f"{i}.wav" for i in range(9)]])
    assert threads() == before, "while the error, and with it the map, is kept"
    assert "0.wav" in str(error.value)
