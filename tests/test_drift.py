"""Drift: a slow rise is told from noise, and a proposal made, never more."""

import numpy as np
import pytest

from nearfar.live.rules.drift import find_drift

DAY = 86_400.0


def days(values, windows=500):
    return [(i * DAY, float(v), windows) for i, v in enumerate(values)]


def test_noise_is_no_trend_and_a_slow_rise_is():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.2, 30)
    assert sum(find_drift(days(rng.normal(0, 0.2, 30))).creeping for _ in range(200)) == 0
    assert find_drift(days(noise + np.linspace(0, 2, 30))).creeping
    assert not find_drift(days(noise - np.linspace(0, 2, 30))).creeping  # more normal than ever is no trouble


def test_one_odd_day_is_no_trend():
    values = np.zeros(20)
    values[-1] = 9
    assert not find_drift(days(values)).creeping


def test_days_with_few_windows_do_not_count_and_few_days_say_so():
    assert find_drift(days(np.linspace(0, 3, 20), windows=5)).baseline is None
    drift = find_drift(days([0, 1, 2]))
    assert "3 days with enough windows" in drift.text("pump3", "samples")


def test_the_proposal_is_a_command_to_type():
    drift = find_drift(days(np.linspace(0, 2, 12)))
    assert drift.baseline == pytest.approx(0.3636, abs=1e-3) and drift.now == pytest.approx(1.818, abs=1e-3)
    assert "nearfar add pump3 h/samples/pump --domain target" in drift.text("pump3", "h/samples/pump")
