"""Evidence adds up as its equation says, keeps the promise on windows that depend, and finds faint faults that last."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.detector.system import PValue
from nearfar.live.rules.alarm import CLEARED, RAISED, Alarm
from nearfar.live.rules.evidence import HIGHEST_Z, LOWEST_Z, SHIFTS, Evidence, design

DAY = 17_280  # windows of 10 s, one every 5 s


def machine(seed: int, n: int, memory: float = 0.0, shift: float = 0.0) -> np.ndarray:
    """Scores (n,) of windows that overlap by half, of a machine whose sound has a memory."""
    rng = np.random.default_rng(seed)
    half, e = np.zeros(n + 1), rng.normal(size=n + 1)
    for i in range(1, n + 1):
        half[i] = memory * half[i - 1] + np.sqrt(1 - memory**2) * e[i]
    windows = half[:-1] + half[1:]
    return windows / np.sqrt(2 + 2 * memory) + shift


def of(normals: np.ndarray, windows: float = 10.0 * DAY, sessions: int = 8) -> tuple[PValue, Evidence]:
    """The evidence of normals that were recorded in sessions of the same length."""
    tail = PValue(normals)
    names = [f"day {i * sessions // len(normals)}" for i in range(len(normals))]
    found = design(np.exp(tail.log_p(normals)), names, 2, windows)
    assert found is not None
    return tail, found


def in_sessions(seed: int, sessions: int, each: int, apart: float) -> np.ndarray:
    """Normals of sessions whose means differ by the standard deviation `apart`."""
    shifts = apart * np.random.default_rng([seed, 1]).normal(size=sessions)
    return np.concatenate([machine(seed * 100 + i, 2 * each)[::2] + shift for i, shift in enumerate(shifts)])


@given(st.lists(st.floats(1e-6, 1.0), max_size=60))
def test_the_sums_are_those_of_the_equation(ps):
    evidence, sums = Evidence(0.3, 8.0), [0.0] * len(SHIFTS)
    for p in ps:
        evidence.update(p)
        z = NormalDist().inv_cdf(min(1 - p, 1 - 1e-12)) if p < 1 else LOWEST_Z
        z = min(max(z, LOWEST_Z), HIGHEST_Z) - 0.3
        sums = [min(max(0.0, s + d * z - d * d / 2), 1.25 * 8.0) for s, d in zip(sums, SHIFTS, strict=True)]
        assert evidence.value == pytest.approx(max(sums))


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_the_promise_holds_for_windows_that_depend(memory):
    """One alarm in ten days is allowed: over ten machines of a day each, about one."""
    alarms = 0
    for seed in range(10):
        tail, evidence = of(machine(seed, 2 * 100, memory)[::2])
        for p in np.exp(tail.log_p(machine(1000 + seed, DAY // 5, memory))):
            if evidence.update(p):
                alarms, evidence = alarms + 1, evidence.fresh()
    assert alarms <= 1


@pytest.mark.parametrize("normals, shift, most", [(136, 1.0, 120), (136, 2.0, 40), (30, 2.0, 100), (10, 3.0, 120)])
def test_a_faint_fault_that_lasts_is_found_in_minutes(normals, shift, most):
    delays = []
    for seed in range(5):
        tail, evidence = of(machine(seed, 2 * normals)[::2], sessions=3 if normals < 30 else 8)
        faulty = np.exp(tail.log_p(machine(500 + seed, 1000, shift=shift)))
        delays.append(next((i for i, p in enumerate(faulty, 1) if evidence.update(p)), 1000))
    assert np.median(delays) <= most


def test_one_loud_window_is_no_evidence_and_what_has_added_up_goes_again():
    _, evidence = of(machine(0, 100))
    assert not evidence.update(0.0) and evidence.value < 0.6 * evidence.limit
    while not evidence.update(0.02):
        pass
    assert sum(evidence.update(0.02) for _ in range(1000)) == 1000
    healthy = [evidence.update(p) for p in np.random.default_rng(0).random(200)]
    assert not any(healthy[60:]) and evidence.value < 0.5 * evidence.limit


def test_the_allowance_is_that_of_the_equation():
    normals = in_sessions(3, 5, 20, 0.8)
    tail, evidence = of(normals, sessions=5)
    z = np.array([NormalDist().inv_cdf(1 - p) for p in np.exp(tail.log_p(normals))])
    means = np.clip(z, LOWEST_Z, HIGHEST_Z).reshape(5, 20).mean(axis=1)
    t = 2.1318  # 95 % quantile of Student's t with 4 degrees of freedom
    assert evidence.allowance == pytest.approx(t * np.std(means, ddof=1) * np.sqrt(1 + 1 / 5), rel=1e-4)


def test_normals_of_too_few_sessions_show_nothing_that_adds_up():
    normals = machine(0, 100)
    p = np.exp(PValue(normals).log_p(normals))
    assert design(p, ["a"] * 50 + ["b"] * 50, 2, DAY) is None and design(p, [""] * 100, 2, DAY) is None
    assert design(p, [*("abc" * 33), ""], 2, DAY) is not None
    assert design(p[:6], list("abcabc"), 2, DAY) is None


@pytest.mark.slow
@pytest.mark.parametrize("sessions", [3, 10])
def test_a_new_healthy_session_raises_no_more_than_was_promised(sessions):
    """Sessions differ by half a standard deviation; 5 % of the new ones may alarm, of 40 about two."""
    alarmed = 0
    for seed in range(40):
        tail, evidence = of(in_sessions(seed, sessions, 20, 0.5), sessions=sessions)
        shift = 0.5 * np.random.default_rng([seed, 2]).normal()
        new = np.exp(tail.log_p(machine(9000 + seed, 1500, shift=shift)))
        alarmed += any(evidence.update(p) for p in new)
    assert alarmed <= 4


def test_an_alarm_by_evidence_is_raised_below_the_set_point_and_clears_when_the_fault_is_over():
    tail, evidence = of(machine(0, 272)[::2])
    alarm = Alarm(9.0, evidence=evidence)
    scores = np.r_[machine(7, 300), machine(8, 300, shift=2.0), machine(9, 300)]
    changes = [
        alarm.update(s, float(i), p) for i, (s, p) in enumerate(zip(scores, np.exp(tail.log_p(scores)), strict=True))
    ]
    raised, cleared = changes.index(RAISED), changes.index(CLEARED)
    assert changes.count(RAISED) == 1 and 300 < raised < 360 and 600 < cleared < 700
    assert alarm.faint and scores.max() < 9.0
