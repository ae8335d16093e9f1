"""The three stages: order, errors, batches and bounds, with stages whose every step is counted."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.embedding.batches import AHEAD, map_batched


def run(sources, *, workers=2, batch=3, work=None, prepare=None):
    pairs = list(
        map_batched(
            sources,
            prepare or (lambda n: iter([(n, i) for i in range(n)])),
            work or (lambda pieces: [10 * n + i for n, i in pieces]),
            lambda piece, outcome: (piece, outcome),
            workers=workers,
            batch=batch,
        )
    )
    assert [source for source, _ in pairs] == list(sources)
    return [outcome for _, outcome in pairs]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4), st.integers(1, 9))
def test_every_source_gives_its_pieces_in_order_whatever_the_workers_and_batches(sources, workers, batch):
    want = [[((n, i), 10 * n + i) for i in range(n)] for n in sources]
    assert run(sources, workers=workers, batch=batch) == want


def test_a_batch_holds_one_piece_of_each_source_and_as_many_as_allowed():
    batches = []

    def work(pieces):
        batches.append([n for n, _ in pieces])
        return [0] * len(pieces)

    run([1] * 12, work=work, batch=4)
    assert sum(map(len, batches)) == 12 and max(map(len, batches)) == 4
    batches.clear()
    run([7], work=work, batch=4)
    assert batches == [[7]] * 7


def test_an_error_is_the_outcome_of_its_source_alone():
    def prepare(n):
        if n == 3:
            raise OSError("gone")
        for i in range(2):
            if n == 5 and i == 1:
                raise ValueError("cut short")
            yield n, i

    def work(pieces):
        if any(n == 7 for n, _ in pieces):
            raise ValueError("too short for the network")
        return [n for n, _ in pieces]

    outcomes = run(range(9), prepare=prepare, work=work)
    assert [str(o) for o in outcomes if isinstance(o, Exception)] == ["gone", "cut short", "too short for the network"]
    assert [isinstance(o, Exception) for o in outcomes] == [n in (3, 5, 7) for n in range(9)]


def test_a_fault_of_the_programme_stops_everything():
    with pytest.raises(ZeroDivisionError):
        run([1, 2], work=lambda pieces: [1 // 0 for _ in pieces])


def test_few_sources_are_under_way_and_none_is_begun_after_the_reader_has_left():
    begun, lock = [], threading.Lock()

    def prepare(n):
        with lock:
            begun.append(n)
        yield n, 0

    results = map_batched(
        range(10_000), prepare, lambda pieces: [0] * len(pieces), lambda piece, _: piece, workers=2, batch=3
    )
    for _ in range(5):
        next(results)
    assert len(begun) <= 5 + 2 * (AHEAD * 2 + 2 * 3)
    results.close()
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count
