"""The price of another set-point, counted on what was heard."""

import pytest

from nearfar.cli.history import machine_of
from nearfar.live.history.history import History
from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.rules.alarm import Alarm
from nearfar.live.rules.price import Price, price_of

HOP, DAY = 60.0, 86_400.0


@pytest.fixture
def history(tmp_path):
    """Ten days with a window a minute: score 1, and six alarms that peak at 4, 5, 6, 7, 8, 9 for ten minutes each."""
    with_scores = History(tmp_path / "h")
    alarms = {(2 * day + 1) * DAY / 2: 4.0 + day for day in range(6)}  # the last 3.5 days in the last week
    for minute in range(int(6 * DAY / HOP)):
        t = minute * HOP
        score = next((peak for start, peak in alarms.items() if start <= t < start + 10 * HOP), 1.0)
        with_scores.record_score(ScoreRecord("pump", t, t + HOP, score, 3.0, score > 3, 0.5))
    for start, peak in alarms.items():
        verdict = "fault" if peak in (5.0, 9.0) else ""
        begun = start + 3 * HOP
        with_scores.record_event(
            Event(0, "pump", "alarm", begun, begun + 12 * HOP, peak, start, 3.0, verdict=verdict)
        )  # fmt: skip
    yield with_scores
    with_scores.close()


@pytest.mark.parametrize("value, kept, heard", [(3.0, 6, 2), (6.5, 3, 1), (12.0, 0, 0)])
def test_alarms_and_faults_are_counted_at_the_new_set_point(history, value, kept, heard):
    assert price_of(history, "pump", value, Alarm(3.0)) == Price(value, 6, kept, 0, 2, heard)


def test_an_unusual_sound_that_was_no_fine_one_is_a_fault_to_hear(history):
    for verdict in ("fault", "fine", ""):
        history.record_event(Event(0, "pump", "unusual", 2 * DAY, 2 * DAY + 60, 2.0, 0.0, 1.5, verdict=verdict))
    found = price_of(history, "pump", 3.0, Alarm(3.0))
    assert (found.alarms, found.faults, found.heard) == (6, 3, 2)


def test_a_lower_set_point_adds_alarms_and_older_faults_count(history):
    assert price_of(history, "pump", 0.5, Alarm(3.0)).added == 0  # one alarm that never clears is all of them
    for minute in range(int(20 * DAY / HOP), int(21 * DAY / HOP)):  # a quiet week later: only the faults are left
        score = 2.5 if minute % 100 < 5 else 1.0
        history.record_score(ScoreRecord("pump", minute * HOP, (minute + 1) * HOP, score, 3.0, False, 0.5))
    later = price_of(history, "pump", 6.5, Alarm(3.0))
    assert (later.alarms, later.faults, later.heard) == (0, 2, 1)
    assert price_of(history, "pump", 2.0, Alarm(3.0)).added == 15  # of 15 bursts of five windows


def test_the_words():
    assert (
        Price(9.0, 59, 0, 0, 3, 1).text()
        == "of your 59 alarms of last week 0 would alarm; of 3 confirmed faults 1 would"
    )
    assert Price(9.0, 1, 0, 0, 1, 0).text() == (
        "your one alarm of last week would not alarm; the one confirmed fault would not alarm"
    )
    assert Price(9.0, 0, 0, 2, 0, 0).text() == (
        "there was no alarm last week, and 2 that were not raised; no fault is confirmed yet"
    )


def test_the_machine_is_the_one_with_the_name_of_the_model_or_the_only_one(history):
    assert machine_of(history, "", "other") == "pump"
    history.record_score(ScoreRecord("fan", 0.0, 1.0, 1.0, 3.0, False, 0.5))
    assert machine_of(history, "", "fan") == "fan" and machine_of(history, "pump", "fan") == "pump"
    for asked, message in (("", "choose one with --machine: fan, pump"), ("mill", "there are: fan, pump")):
        with pytest.raises(ValueError, match=message):
            machine_of(history, asked, "other")
