"""The health of a source: which state it is in after what, and when that is a problem."""

import math

import pytest

from nearfar.live.rules.health import ENDED, FAILED, HEARING, NONE, QUIET, STALE, SourceHealth
from nearfar.live.sources.streams import Pace


def started(silence_s: float = 30.0, **options: bool) -> SourceHealth:
    health = SourceHealth(silence_s, quiet_s=6.0)
    health.start(100.0, **options)
    return health


def test_without_a_source_nothing_is_missing():
    health = SourceHealth(30.0)
    assert health.state(1e9) == NONE and not health.problem(1e9)


def test_a_stream_is_heard_then_quiet_then_stale_and_heard_again():
    health = started()
    assert [health.state(100 + s) for s in (0, 29, 30)] == [QUIET, QUIET, STALE]
    health.on_window(130.0)
    assert [health.state(130 + s) for s in (0, 6, 7, 29.9, 30, 1e6)] == [HEARING, HEARING, QUIET, QUIET, STALE, STALE]
    assert not health.problem(159.9) and health.problem(160.0).startswith("no sound has come for 30 s: is the source")


def test_a_live_source_that_ends_is_a_problem_after_a_silence_and_a_file_is_none():
    for may_end in (False, True):
        health = started(may_end=may_end)
        health.on_window(110.0)
        health.on_end()
        assert health.state(111.0) == health.state(1e6) == ENDED and not health.problem(139.0)
        assert bool(health.problem(140.0)) is not may_end


def test_a_failed_source_waits_longer_each_time_and_is_a_problem_until_a_window_comes():
    health, now, waits = started(), 100.0, []
    for _ in range(8):
        waits.append(health.on_failure(now, "unplugged"))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert health.state(now) == FAILED and "as its source fails: unplugged; it is tried again" in health.problem(now)
    health.on_window(now)
    assert health.state(now) == HEARING and not health.problem(now)
    assert health.on_failure(now + 61, "unplugged again") == 1  # it worked for a minute


def test_a_folder_without_a_limit_is_never_stale():
    health = SourceHealth(math.inf, quiet_s=86_400)
    health.start(0.0)
    health.on_window(1.0)
    assert health.state(86_000) == HEARING and health.state(90_000) == QUIET and not health.problem(1e9)


@pytest.mark.parametrize("speed, ahead", [(0.9, False), (1.0, False), (1.001, False), (1.1, True), (50, True)])
def test_a_stream_is_ahead_of_its_time_only_if_it_comes_faster_than_real_time(speed, ahead):
    pace = Pace()
    assert any(pace.is_ahead(0.25, 0.25 * i / speed) for i in range(5000)) == ahead


def test_a_live_stream_that_catches_up_after_it_was_held_up_is_still_live():
    pace, now = Pace(), 0.0
    for _ in range(100):
        now += 0.25
        assert not pace.is_ahead(0.25, now)
    now += 20
    assert not any(pace.is_ahead(0.25, now) for _ in range(80))
