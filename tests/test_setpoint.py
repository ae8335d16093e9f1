"""A set-point measured on what was heard keeps its promise on what comes next, also of windows that hang together."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.rules.alarm import WEEK_S, Alarm
from nearfar.live.rules.setpoint import MOST_IN_ALARM, measure
from plants import count_alarms

HOP = 60.0
WEEK = int(WEEK_S / HOP)


def heard(values, start=0.0):
    return [
        ScoreRecord("pump", start + HOP * i, start + HOP * (i + 1), float(v), 3.0, False, 0.5)
        for i, v in enumerate(values)
    ]


def walk(seed: int, n: int, memory: float) -> np.ndarray:
    """Scores with memory: each depends on the one before."""
    rng = np.random.default_rng(seed)
    noise, out = rng.normal(size=n), np.zeros(n)
    for i in range(1, n):
        out[i] = memory * out[i - 1] + np.sqrt(1 - memory**2) * noise[i]
    return out


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.95])
def test_the_promise_holds_for_the_weeks_after(memory):
    after = []
    for seed in range(8):
        values = walk(seed, 5 * WEEK, memory)
        found = measure(heard(values[:WEEK]), [], 6.0, Alarm(3.0))
        assert found.alarms <= 3 and found.weeks == pytest.approx(1)
        after.append(count_alarms(values[WEEK:], found.value, Alarm(3.0))[0] / 4)
    assert np.mean(after) <= 6.0 and np.mean(np.array(after) <= 6.0) >= 0.6


def test_windows_that_hang_together_need_a_higher_set_point():
    free, tied = (measure(heard(walk(0, 2 * WEEK, m)), [], 2.0, Alarm(3.0)).value for m in (0.0, 0.95))
    assert free < 2.0 < tied  # independent windows: three in a row are rare enough well below three deviations


def test_the_lowest_that_keeps_the_promise_is_found():
    values = walk(1, 2 * WEEK, 0.5)
    found = measure(heard(values), [], 3.0, Alarm(3.0))
    assert found.alarms == 3 and count_alarms(values, found.value - 0.05, Alarm(3.0))[0] > found.alarms


@pytest.mark.parametrize("seed", range(3))
def test_scores_that_spread_less_than_the_deadband_get_a_set_point_above_nearly_all(seed):
    """Far below all scores one alarm never clears: it counts as one, but it stands all the time."""
    values = np.random.default_rng(seed).normal(0.5, 0.1, 4 * WEEK)
    found = measure(heard(values), [], 1.0, Alarm(3.0))
    assert found.value > 0.5 and np.mean(values > found.value) < 0.25
    assert found.in_alarm <= MOST_IN_ALARM
    count, windows = count_alarms(values, found.value, Alarm(3.0))
    assert (count, windows / len(values)) == (found.alarms, found.in_alarm)
    never_cleared = count_alarms(values, -1.0, Alarm(3.0))
    assert never_cleared == (1, len(values) - 2)


def test_one_very_low_score_changes_nothing():
    values = walk(3, 4 * WEEK, 0.5)
    plain = measure(heard(values), [], 1.0, Alarm(3.0))
    values[100] = -30
    assert measure(heard(values), [], 1.0, Alarm(3.0)).value == plain.value


def test_every_higher_set_point_keeps_the_promise_too():
    values = walk(4, 2 * WEEK, 0.9)
    found = measure(heard(values), [], 3.0, Alarm(3.0))
    higher = np.linspace(found.value, values.max(), 30)
    assert max(count_alarms(values, on, Alarm(3.0))[0] for on in higher) <= 3


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-8, 8), min_size=1, max_size=60),
    st.builds(Alarm, st.just(0.0), st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 3),
)
def test_it_counts_as_the_alarm_does(values, alarm, allowed):
    weeks = len(values) / WEEK
    rate = (allowed + 1 + np.sqrt(allowed + 1)) / weeks
    with mock.patch("nearfar.live.rules.setpoint.MOST_IN_ALARM", 1.0):
        found = measure(heard(values), [], rate, alarm)
    count, windows = count_alarms(values, found.value, alarm)
    assert (found.alarms, found.in_alarm * len(values)) == (count, pytest.approx(windows))
    steps = np.arange(-9, 9) + 0.0
    assert all(count_alarms(values, on, alarm)[0] <= allowed for on in steps[steps >= found.value])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=60), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_some_of_the_last_windows_are_never_counted_too_low(values, on_delay, more, allowed):
    alarm = Alarm(0.0, 1.0, on_delay, 2, within=on_delay + more)
    rate = (allowed + 1 + np.sqrt(allowed + 1)) / (len(values) / WEEK)
    found = measure(heard(values), [], rate, alarm)
    assert count_alarms(values, found.value, alarm)[0] <= found.alarms <= allowed


def test_too_few_weeks_promise_nothing():
    found = measure(heard(walk(0, WEEK // 2, 0.0)), [], 1.0, Alarm(3.0))
    assert found.value is None and found.needed_weeks == 2 and found.weeks == pytest.approx(0.5)
    assert measure([], [], 1.0, Alarm(3.0)).value is None


def test_what_was_called_a_fault_does_not_count():
    values = walk(2, 2 * WEEK, 0.0)
    values[5000:5200] = 50
    fault = Event(1, "pump", "alarm", 5003 * HOP, 5200 * HOP, verdict="fault")
    assert measure(heard(values), [], 1.1, Alarm(3.0)).value == pytest.approx(50, abs=1e-6)
    assert measure(heard(values), [fault], 1.1, Alarm(3.0)).value < 4
