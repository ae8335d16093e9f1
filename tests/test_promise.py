"""What a set-point promises: between windows that are alike and windows that have nothing in common."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import hum
from nearfar.detector import Detector, load
from nearfar.detector.system import from_normals, resolution_of
from nearfar.live.machine import open_machine
from nearfar.live.rules.alarm import WEEK_S, Alarm
from nearfar.live.rules.rhythm import Listening, Rhythm, all_day
from nearfar.live.rules.setpoint import (
    consequences,
    expected_alarms,
    first_rate,
    how_often,
    independent_per_week,
    rarest_rate,
    wish_text,
)
from plants import configured, count_alarms, plant_of, windows


@given(st.floats(1e-9, 1.0), st.floats(0.1, 60), st.integers(1, 9))
def test_windows_that_have_nothing_in_common_alarm_no_more_how_often(rate, hop_s, on_delay):
    rhythm = all_day(2 * hop_s, hop_s, on_delay)
    assert independent_per_week(rate, rhythm) <= rhythm.per_week(rate) * (1 + 1e-9)


@pytest.mark.parametrize("rate, on_delay", [(0.3, 3), (0.1, 2), (0.05, 1)])
def test_the_figure_for_independent_windows_is_what_an_alarm_makes_of_them(rate, on_delay):
    values = np.random.default_rng(0).random(400_000)
    raised, run = 0, 0  # the alarm's runs by hand, each beginning anew after it was raised
    for over in values < rate:
        run = run + 1 if over else 0
        if run == on_delay:
            raised, run = raised + 1, 0
    rhythm = all_day(1.0, 1.0, on_delay)
    assert raised * WEEK_S / len(values) == pytest.approx(independent_per_week(rate, rhythm), rel=0.05)
    once_cleared = Alarm(1 - rate, deadband=0.0, on_delay=on_delay, off_delay=1)
    assert count_alarms(values, 1 - rate, once_cleared)[0] <= raised  # one that stands is not raised again


def test_few_normals_get_what_they_can_show_and_many_the_promise():
    rhythm = all_day(10.0, 5.0, 3)
    assert first_rate(30, rhythm) == pytest.approx(1 / 31) == rarest_rate(30)
    assert first_rate(100_000, rhythm) == pytest.approx(rhythm.rate_for(7)) == pytest.approx(1 / 8640)


@given(st.floats(0.01, 100), st.floats(0.5, 30), st.integers(1, 5))
def test_rates_and_alarms_a_week_are_each_others_inverse(alarms, hop_s, on_delay):
    rhythm = all_day(2 * hop_s, hop_s, on_delay)
    rate = rhythm.rate_for(alarms)
    assert rhythm.per_week(rate) == pytest.approx(alarms)
    assert rate * WEEK_S / hop_s / on_delay <= alarms * (1 + 1e-9)  # the bound of windows in a row


def test_a_day_has_as_many_occasions_as_clips_or_as_alarms_can_be_made_of_windows():
    assert all_day(10.0).occasions_per_day == 8640 == all_day(10.0, 5.0, 3).occasions_per_day
    assert all_day(10.0, 5.0, 1).occasions_per_day == 17_280
    assert all_day(10.0).text() == "8,640 clips of 10 s a day, if it is heard all day"


def test_a_machine_heard_72_times_a_day_has_72_occasions():
    week = Listening(504, 504 * 2.0, 0.0, 503 * 1200.0)
    rhythm = week.rhythm(2.0, 3)
    assert rhythm.occasions_per_day == pytest.approx(72) and rhythm.rate_for(7) == pytest.approx(1 / 72)
    assert rhythm.text() == "72 clips of 2 s a day, as it was heard in the last 7 days"
    assert Listening(30, 60.0, 0.0, 3600.0).rhythm(2.0, 3) is None


def test_a_wish_beyond_the_normals_is_kept_and_its_consequence_is_said():
    scores = np.sort(np.random.default_rng(0).normal(size=136))
    rhythm = all_day(10.0)
    point = from_normals(scores, rhythm.rate_for(7))
    first, second = consequences(resolution_of(scores, point), rhythm)
    assert point.rate == pytest.approx(1 / 8640)  # no silent floor
    assert first.startswith("one false alarm a day (1 in 8,640 clips) lies beyond what 136 normals can show: the set")
    assert f"{point.value:.1f}, {point.value / scores[-1]:.2g} times as high as your loudest normal" in first
    assert "the lowest rate that they can show is 1 in 137 (63 a day of 10 s clips), at set-point " in second
    assert not consequences(resolution_of(scores, from_normals(scores, 0.05)), rhythm)
    seldom = Rhythm(72, 72, 10.0, 3, "as it was heard")
    assert not consequences(resolution_of(scores, from_normals(scores, seldom.rate_for(7))), seldom)


@pytest.mark.parametrize(
    "a_week, said",
    [(7, "one false alarm a day"), (14, "2 false alarms a day"), (1, "one false alarm a week"),
     (3, "3 false alarms a week"), (0.5, "one false alarm in 2 weeks")],
)  # fmt: skip
def test_a_wish_in_words(a_week, said):
    assert wish_text(a_week) == said


@pytest.fixture(scope="module")
def unchosen(tmp_path_factory):
    return Detector(threads=1).fit([hum(i) for i in range(12)]).save(tmp_path_factory.mktemp("unchosen") / "pump3")


def test_a_stream_begins_with_what_the_normals_can_show_and_the_folder_keeps_its_own(unchosen):
    own, machine = load(unchosen), open_machine("pump", configured(unchosen, streamed=True))
    assert machine.detector.threshold.rate == pytest.approx(1 / 13)
    assert machine.alarm.on >= max(own.train_values.max(), own.threshold.value)
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
    alarm, expect, rhythm, none = machine.expected_alarms()
    assert none.startswith("faint changes that last raise no alarm yet: that needs normals of 3 sessions or more")
    sessions = [f"2026-03-0{1 + i % 3}" for i in range(12)]
    machine.detector.members = replace(machine.detector.members, sessions=sessions)
    machine.use_detector(machine.detector)
    assert machine.expected_alarms()[2].startswith("alarm, too") and len(machine.expected_alarms()) == 4
    assert rhythm.startswith("counted for 43,200 clips of 2 s a day")
    assert alarm.startswith(f"alarm when 3 windows in a row each score above {machine.alarm.on:.1f}; the most unusual")
    assert "12 normals scores" in alarm and "between " in expect and " a day (if they always come in a row)" in expect
    rare = open_machine("pump", configured(unchosen, streamed=True, false_alarms_per_week=1))
    assert "lies beyond what 12 normals can show" in rare.expected_alarms()[-3]
    assert len(expected_alarms(rare.detector, machine.detector.threshold, all_day(2.0))) == 3


@pytest.mark.parametrize(
    "a_week, said",
    [(6503, "929 a day"), (7, "7 a week"), (0.5, "1 in 2 weeks"), (0.05, "1 in 4.6 months"), (1e-9, "less than 1 in")],
)
def test_how_often(a_week, said):
    assert how_often(a_week).startswith(said)
