"""The alarm: delays, deadband, shelving, and the words of ISA-18.2."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.live.rules.alarm import ANEW, CLEARED, RAISED, SETTLE, STATES, Alarm

SCORES = st.lists(st.one_of(st.none(), st.floats(0, 6)), max_size=120)
DELAYS = st.integers(1, 5)


def run(alarm: Alarm, scores: list, start: int = 0) -> list[str]:
    return [alarm.update(s, float(start + i)) for i, s in enumerate(scores)]


def test_the_example_of_the_sheet():
    alarm, standing = Alarm(on=3, deadband=1), []
    for i, score in enumerate([1, 4, 1, 4, 4, 4, 2.5, 1, 1, 1, 1, 1]):
        alarm.update(score, float(i))
        standing.append(alarm.standing)
    assert standing == [False] * 5 + [True] * 6 + [False]


@given(SCORES, DELAYS, DELAYS)
def test_an_alarm_is_raised_and_cleared_by_runs_of_judged_windows_and_by_nothing_else(scores, on_delay, off_delay):
    alarm = Alarm(3.0, 1.0, on_delay, off_delay)
    judged: list[float] = []
    last = -math.inf  # judged windows when the last change was made
    for i, score in enumerate(scores):
        change = alarm.update(score, float(i))
        if score is None:
            assert not change  # what cannot be judged neither raises nor clears
            continue
        judged.append(score)
        if change == RAISED:
            assert all(s > 3 for s in judged[-on_delay:]) and len(judged) >= on_delay
            assert len(judged) - last >= on_delay  # never faster than the delay
        if change == CLEARED:
            assert all(s < 2 for s in judged[-off_delay:])
            assert len(judged) - last >= off_delay
        last = len(judged) if change else last


@given(SCORES, DELAYS)
def test_windows_that_cannot_be_judged_change_nothing_at_all(scores, on_delay):
    with_none, without = Alarm(3.0, 1.0, on_delay, 2), Alarm(3.0, 1.0, on_delay, 2)
    assert [c for c in run(with_none, scores) if c] == [
        c for c in run(without, [s for s in scores if s is not None]) if c
    ]


@given(SCORES)
def test_raised_and_cleared_take_turns(scores):
    changes = [c for c in run(Alarm(3.0, 0.5, 2, 2), scores) if c]
    assert changes == [RAISED, CLEARED] * (len(changes) // 2) + [RAISED] * (len(changes) % 2)


@given(SCORES, st.floats(0, 60))
def test_a_shelved_alarm_raises_nothing_and_follows_its_condition(scores, until):
    free, shelved = Alarm(3.0, 1.0), Alarm(3.0, 1.0)
    shelved.shelve(until)
    for i, score in enumerate(scores):
        free.update(score, float(i))
        change = shelved.update(score, float(i))
        assert shelved.condition == free.condition
        if i < until:
            assert change != RAISED and shelved.state(float(i)) == "shelved"
        else:
            assert shelved.standing == shelved.condition  # what stands when the time is up is raised


@given(SCORES, st.data())
def test_every_state_is_one_of_the_words(scores, data):
    alarm = Alarm(3.0, 1.0, 1, 1)
    for i, score in enumerate(scores):
        alarm.update(score, float(i))
        if data.draw(st.booleans()):
            alarm.acknowledge()
        assert alarm.state(float(i)) in STATES


def test_the_words():
    alarm = Alarm(3.0, 1.0, 1, 1)
    words = [alarm.state(0)]
    for score, answer in ((5, False), (5, True), (1, False), (5, False), (1, False), (1, True)):
        alarm.update(score, 0)
        if answer:
            alarm.acknowledge()
        words.append(alarm.state(0))
    assert words == [
        "normal",
        "unacknowledged alarm",
        "acknowledged alarm",
        "normal",
        "unacknowledged alarm",
        "returned unacknowledged",
        "normal",
    ]


@given(SCORES, DELAYS, st.integers(0, 4))
def test_an_alarm_needs_some_of_the_last_windows(scores, on_delay, more):
    """By hand: the windows since the alarm was last cleared, of the last `within` at least `on_delay` above."""
    alarm, since, raised = Alarm(3.0, 1.0, on_delay, 1, within=on_delay + more), [], 0
    for i, score in enumerate(scores):
        change = alarm.update(score, float(i))
        if score is None:
            assert not change
            continue
        if not (alarm.standing and change != RAISED) and change != CLEARED:
            since.append(score)
            assert (change == RAISED) == (sum(s > 3 for s in since[-on_delay - more :]) >= on_delay)
        raised += change == RAISED
        if change:
            since = []
    assert raised <= sum(s > 3 for s in scores if s is not None) / on_delay


@given(SCORES, DELAYS)
def test_no_run_of_windows_makes_more_alarms_than_the_promise_allows(scores, on_delay):
    """The bound that `Rhythm.rate_for` rests on, for any correlation: alarms <= crossings / on_delay."""
    judged = [s for s in scores if s is not None]
    raised = run(Alarm(3.0, 1.0, on_delay, 1), judged).count(RAISED)
    assert raised <= sum(s > 3 for s in judged) / on_delay


@pytest.mark.parametrize(
    "bad",
    [
        {"on": math.nan},
        {"on": 1, "deadband": -1},
        {"on": 1, "on_delay": 0},
        {"on": 1, "off_delay": 1.5},
        {"on": 1, "within": 2},
    ],
)
def test_nonsense_is_refused(bad):
    with pytest.raises(ValueError):
        Alarm(**bad)


def in_alarm(**options):
    """An alarm at 3 that stands since its first windows, which went up to 5 by "steady"."""
    alarm = Alarm(3.0, **options)
    for at in range(3 + SETTLE):
        alarm.update(5.0 if at == 4 else 4.0, at, kinds=("steady",))
    assert alarm.standing and (alarm.far, alarm.kinds) == (5.0, {"steady"})
    alarm.acknowledge()
    return alarm


def changes(alarm, scores, kinds=("steady",), at=100.0):
    return [alarm.update(score, at + i, kinds=kinds) for i, score in enumerate(scores)]


def test_a_fault_twice_as_far_raises_a_standing_alarm_anew_once():
    alarm = in_alarm()
    assert changes(alarm, [9.9] * 30) == [""] * 30  # farther, not twice
    assert changes(alarm, [10.1] * 40) == ["", "", ANEW, *[""] * 37]
    assert alarm.state(0.0) == "unacknowledged alarm" and alarm.new_kinds == frozenset()
    assert changes(alarm, [20.3] * 20).count(ANEW) == 1
    assert changes(alarm, [0.0] * 5)[-1] == CLEARED


def test_a_fault_of_another_kind_raises_a_standing_alarm_anew_once():
    alarm = in_alarm()
    assert changes(alarm, [4.0] * 2, ("burst", "steady")) == ["", ""]
    assert changes(alarm, [4.0] * 3) == [""] * 3  # it did not last
    assert changes(alarm, [4.0] * 30, ("burst", "steady")) == ["", "", ANEW, *[""] * 27]
    assert alarm.new_kinds == {"burst"} and not alarm.acknowledged
    assert changes(alarm, [2.9] * 4, ("rhythm",)) == [""] * 4  # below the set-point, nothing has crossed


def test_x_of_y_holds_for_what_comes_on_top():
    alarm = in_alarm(on_delay=3, within=6)
    assert changes(alarm, [11.0, 4.0, 11.0, 4.0, 11.0]) == ["", "", "", "", ANEW]


def test_a_loud_fault_on_top_of_a_faint_one_is_raised_from_the_set_point_on():
    alarm = Alarm(9.0)
    alarm.condition = alarm.standing = alarm.faint = True
    alarm.far = 2.0
    assert changes(alarm, [8.9] * 5) == [""] * 5 and changes(alarm, [9.1] * 3) == ["", "", ANEW]


def test_nothing_is_raised_anew_while_it_is_shelved():
    alarm = in_alarm()
    alarm.shelve(200.0)
    assert changes(alarm, [11.0] * 5) == [""] * 5
    assert changes(alarm, [11.0] * 5, at=200.0).count(ANEW) == 1


@given(
    st.lists(st.tuples(st.floats(-5, 500), st.sets(st.sampled_from("abcd"), max_size=3)), max_size=300),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_standing_alarm_is_raised_anew_a_few_times_at_most(windows, on_delay, more):
    alarm, since, most = Alarm(3.0, on_delay=on_delay, within=on_delay + more), 0, 0.0
    for i, (score, kinds) in enumerate(windows):
        change = alarm.update(score, float(i), kinds=kinds)
        since = 0 if change == RAISED else since + (change == ANEW)
        most = score if change == RAISED else max(most, score)
        assert change != ANEW or alarm.standing
        assert since <= 4 + math.log2(max(most, 1.0)) + 3  # each kind once, and each doubling once
