"""What a set-point promises: between windows that are alike and windows that have nothing in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import hum
from nearfar.detector import Detector, load
from nearfar.live.alarm import WEEK_S, Alarm, per_week, rate_for
from nearfar.live.machine import open_machine
from nearfar.live.setpoint import (
    expected_alarms,
    first_rate,
    how_often,
    independent_per_week,
    rarest_rate,
)
from plants import configured, count_alarms, plant_of, windows


@given(st.floats(1e-9, 1.0), st.floats(0.1, 60), st.integers(1, 9))
def test_windows_that_have_nothing_in_common_alarm_no_more_how_often(rate, hop_s, on_delay):
    assert independent_per_week(rate, hop_s, on_delay) <= per_week(rate, hop_s, on_delay) * (1 + 1e-9)


@pytest.mark.parametrize("rate, on_delay", [(0.3, 3), (0.1, 2), (0.05, 1)])
def test_the_figure_for_independent_windows_is_what_an_alarm_makes_of_them(rate, on_delay):
    values = np.random.default_rng(0).random(400_000)
    raised, run = 0, 0  # the alarm's runs by hand, each beginning anew after it was raised
    for over in values < rate:
        run = run + 1 if over else 0
        if run == on_delay:
            raised, run = raised + 1, 0
    assert raised * WEEK_S / len(values) == pytest.approx(independent_per_week(rate, 1.0, on_delay), rel=0.05)
    once_cleared = Alarm(1 - rate, deadband=0.0, on_delay=on_delay, off_delay=1)
    assert count_alarms(values, 1 - rate, once_cleared)[0] <= raised  # one that stands is not raised again


def test_few_normals_get_what_they_can_show_and_many_the_promise():
    assert first_rate(30, 5.0, 3) == pytest.approx(1 / 31) == rarest_rate(30)
    assert first_rate(100_000, 5.0, 3) == pytest.approx(rate_for(7, 5.0, 3))


@pytest.fixture(scope="module")
def unchosen(tmp_path_factory):
    return Detector(threads=1).fit([hum(i) for i in range(12)]).save(tmp_path_factory.mktemp("unchosen") / "pump3")


def test_a_stream_begins_with_what_the_normals_can_show_and_the_folder_keeps_its_own(unchosen):
    own, machine = load(unchosen), open_machine("pump", configured(unchosen, streamed=True))
    assert machine.detector.threshold.rate == pytest.approx(1 / 13)
    assert machine.alarm.on >= own.train_values.max() > own.threshold.value
    assert (
        machine.alarm.on
        < open_machine("pump", configured(unchosen, streamed=True, false_alarms_per_week=7)).alarm.on - 3
    )
    assert open_machine("pump", configured(unchosen)).alarm.on == own.threshold.value
    assert load(unchosen).false_alarm_rate is None


def test_growing_and_undoing_keep_a_stream_at_its_set_point_and_the_folder_unchosen(unchosen, tmp_path):
    import shutil

    model = shutil.copytree(unchosen, tmp_path / "pump3")
    plant, _, _ = plant_of(model, tmp_path / "h", streamed=True)
    before = plant.machines["pump"].alarm.on
    added = plant.operator.add_normals("pump", [windows([""])[0].clip], "source", "anna")
    assert plant.machines["pump"].detector.threshold.rate == pytest.approx(1 / 14)
    assert load(model).false_alarm_rate is None
    plant.operator.undo(added.id, "anna")
    assert plant.machines["pump"].alarm.on == before


def test_what_a_person_sets_goes_before_what_was_asked_for_and_undo_brings_that_back(unchosen, tmp_path):
    import shutil

    model = shutil.copytree(unchosen, tmp_path / "pump3")
    plant, _, _ = plant_of(model, tmp_path / "h", streamed=True, false_alarms_per_week=10)
    before = plant.machines["pump"].alarm.on
    change = plant.operator.change_set_point("pump", value=9.0, who="anna")
    assert plant.machines["pump"].alarm.on == 9.0
    plant.operator.undo(change.id, "anna")
    assert plant.machines["pump"].alarm.on == before
    assert plant.machines["pump"].false_alarms_per_week == pytest.approx(10)


def test_the_words_say_the_range_and_what_the_normals_cannot_show(unchosen):
    machine = open_machine("pump", configured(unchosen, hop_s=1.0, streamed=True))
    alarm, expect = machine.expected_alarms()
    assert alarm.startswith(f"alarm when 3 windows in a row each score above {machine.alarm.on:.1f}; the most unusual")
    assert "12 normals scores" in alarm and "between " in expect and " a day (if they always come in a row)" in expect
    rare = open_machine("pump", configured(unchosen, streamed=True, false_alarms_per_week=1))
    assert "rarer than 12 normals can show" in rare.expected_alarms()[-1]
    assert len(expected_alarms(rare.detector, machine.detector.threshold, 1.0, 1)) == 2


@pytest.mark.parametrize(
    "a_week, said",
    [(6503, "929 a day"), (7, "7 a week"), (0.5, "1 in 2 weeks"), (0.05, "1 in 4.6 months"), (1e-9, "less than 1 in")],
)
def test_how_often(a_week, said):
    assert how_often(a_week).startswith(said)
