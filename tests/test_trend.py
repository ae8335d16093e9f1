"""A slow rise is warned of days before the alarm; noise, days and nights, and steps are not."""

import numpy as np
import pytest

from nearfar.live.rules.trend import HOUR_S, HOURS, Ramp, Trend, theil_sen

ON = 4.0


def warnings(levels, spread=0.5, seed=0, per_hour=6) -> list[tuple[int, Ramp]]:
    """(hour, ramp) of each hour of `levels` at which a rise is plain."""
    rng, trend, found = np.random.default_rng(seed), Trend(), []
    for hour, level in enumerate(levels):
        for k in range(per_hour):
            at = hour * HOUR_S + k * HOUR_S / per_hour
            if trend.update(level + spread * rng.normal(), at) and (ramp := trend.ramp(ON)):
                found.append((hour, ramp))
    return found


def day_and_night(hours: int, by: float) -> np.ndarray:
    return by * np.sin(2 * np.pi * np.arange(hours) / 24)


@pytest.mark.parametrize("per_day, flat_h, before_h", [(1.0, 120, 30), (0.4, 0, 24), (2.0, 120, 12), (0.5, 120, 60)])
def test_a_ramp_is_warned_of_before_it_alarms_at_about_the_right_time(per_day, flat_h, before_h):
    hours = flat_h + int(3.4 / per_day * 24)  # where the loudest tenth of the windows reaches the set-point
    levels = np.maximum(0, np.arange(hours) - flat_h) * per_day / 24 + day_and_night(hours, 0.4)
    found = warnings(levels)
    first, _ = found[0]
    assert flat_h < first <= hours - before_h
    _, ramp = found[-1]
    assert ramp.per_day == pytest.approx(per_day, rel=0.35) and abs(ramp.alarm_at / HOUR_S - hours) < 24
    assert f"rising for {ramp.hours} h" in ramp.text() and "at this rate it alarms on " in ramp.text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_noise_days_and_weekends_are_no_ramp(seed):
    rng, hours = np.random.default_rng(seed), 40 * 24
    slow = np.zeros(hours)
    for i in range(1, hours):
        slow[i] = 0.9 * slow[i - 1] + 0.436 * 0.15 * rng.normal()
    weekend = 0.6 * ((np.arange(hours) // 24) % 7 >= 5)
    assert not warnings(slow + day_and_night(hours, 0.8) + weekend, seed=seed, per_hour=4)


@pytest.mark.parametrize("at", [60, 100, 131, 144, 200])
def test_a_step_is_no_ramp(at):
    levels = np.where(np.arange(300) < at, 0.0, 2.0) + day_and_night(300, 0.4)
    assert not warnings(levels, per_hour=4)


def test_a_fall_is_no_rise_and_little_is_kept():
    assert not warnings(3 - np.arange(200) / 72)
    trend = Trend()
    for hour in range(2 * HOURS):
        trend.update(0.0, hour * HOUR_S)
    assert len(trend._hours) == HOURS


def test_theil_sen_is_the_median_of_all_slopes():
    x = np.array([0.0, 1.0, 2.0, 4.0])
    assert theil_sen(x, np.array([0.0, 2.0, 4.0, 100.0])) == pytest.approx(np.median([2, 2, 25, 2, 98 / 3, 48]))
