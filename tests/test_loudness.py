"""The plain loudness alarm: quiet for normals, raised by sound that is far louder, whatever the model thinks of it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import hum
from nearfar.audio import Clip
from nearfar.embedding.facts import BandLevels, log_mel_frames
from nearfar.live.rules.alarm import RAISED, Alarm
from nearfar.live.rules.loudness import LOUD, MOST_DB, Loudness
from plants import plant_of, windows


def dbfs(x):
    return float(20 * np.log10(max(np.std(x, dtype=np.float64), 1e-7)))


def heard(clip):
    """A clip and the level of its near, as a window has them."""
    return clip, dbfs(clip.near)


@given(
    st.floats(20, 7900), st.floats(0, 1.9), st.floats(0.001, 2), st.floats(0, 1), st.sampled_from([16_000, 48_000]),
    st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_sound_has_more_in_its_bands_than_the_bound_says(hz, start, length, noise, rate, seed):
    t = np.arange(2 * rate) / rate
    burst = np.sin(2 * np.pi * hz * t) * ((t >= start) & (t < start + length))
    x = (0.3 * burst + 0.1 * noise * np.random.default_rng(seed).normal(size=len(t))).astype(np.float32)
    x -= x.mean()
    if np.std(x) > 1e-4:
        bands = log_mel_frames(Clip(x, None, rate, "x"), "near").mean(axis=0)
        assert 10 * np.log10(np.sum(10 ** (bands.astype(float) / 10))) <= dbfs(x) + MOST_DB


def test_the_limit_is_the_formula_and_a_gain_crosses_it_where_it_says():
    normals = [hum(i) for i in range(10)]
    levels = BandLevels.total([BandLevels.of(clip) for clip in normals])
    mean, spread = levels.usual("near")
    loudness = Loudness(levels, 10.0)
    total = sum(10 ** ((m + 2 * s) / 10) for m, s in zip(mean, spread, strict=True))
    assert loudness.limit_db == pytest.approx(10 * np.log10(total) + 10)
    assert not any(loudness.is_over(*heard(hum(100 + i))) for i in range(20))
    louder = [hum(100 + i, level=0.1 * 10 ** (30 / 20)) for i in range(5)]
    assert all(loudness.is_over(*heard(clip)) for clip in louder)
    assert not any(Loudness(levels, 0.0).is_over(*heard(clip)) for clip in louder)


def test_loud_windows_raise_and_hold_an_alarm_like_high_scores():
    alarm = Alarm(3.0, on_delay=3, off_delay=2)
    assert [alarm.update(0.0, 0, loud=True) for _ in range(3)] == ["", "", RAISED]
    assert [alarm.update(0.0, 0, loud=loud) for loud in (False, True, False, False)] == ["", "", "", "cleared"]


def test_an_alarm_of_loudness_says_so(pump_model, tmp_path):
    plant, _, _ = plant_of(pump_model, tmp_path)
    machine = plant.machines["pump"]
    assert machine.loud_db == 10.0
    machine.detector.set_threshold(value=1e6)  # the model never alarms
    machine.use_detector(machine.detector)
    for window in windows([""] * 6):
        plant.process_window("pump", replace(window, samples=np.clip(window.samples * 30, -1, 1)))
    (event,) = plant.history.events(kind="alarm")
    assert (LOUD in event.triggered_by and event.text.startswith("far louder than all its normals: near is at −")) or (
        event.text.startswith("far louder than all its normals: near is at -")
    )
    plant.history.close()
