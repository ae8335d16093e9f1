"""The plain loudness alarm: quiet for normals, raised by sound that is far louder, whatever the model thinks of it."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import hum
from nearfar.embedding.band_levels import BandLevels
from nearfar.live.alarm import RAISED, Alarm
from nearfar.live.loudness import LOUD, Loudness
from plants import plant_of, windows


def test_the_limit_is_the_formula_and_a_gain_crosses_it_where_it_says():
    normals = [hum(i) for i in range(10)]
    levels = BandLevels.total([BandLevels.of(clip) for clip in normals])
    mean, spread = levels.usual("near")
    loudness = Loudness(levels, 10.0)
    total = sum(10 ** ((m + 2 * s) / 10) for m, s in zip(mean, spread, strict=True))
    assert loudness.limit_db == pytest.approx(10 * np.log10(total) + 10)
    assert not any(loudness.is_over(hum(100 + i)) for i in range(20))
    louder = [hum(100 + i, level=0.1 * 10 ** (30 / 20)) for i in range(5)]
    assert all(loudness.is_over(clip) for clip in louder)
    assert not any(Loudness(levels, 0.0).is_over(clip) for clip in louder)


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
