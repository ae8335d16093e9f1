"""The lamp "unusual": when it is lit, what it makes, and what the answer "fine" changes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import nearfar
from conftest import write_wav
from nearfar.audio import Clip
from nearfar.cli.output import print_scores
from nearfar.cli.terminal import Failures
from nearfar.detector import Detector, load
from nearfar.live.rules.lamp import Lamp
from nearfar.live.server.serializers import audit_entries, machine_state
from nearfar.live.sinks.prometheus import Metrics
from nearfar.live.sinks.terminal import sentence
from nearfar.live.sources.windows import Window
from nearfar.score import Score
from plants import T0, plant_of


def lamp_after(flags: list[bool | None], n: int = 720, overlap: float = 2.0) -> Lamp:
    lamp = Lamp(n, overlap)
    for flag in flags:
        lamp.update(flag)
    return lamp


@pytest.mark.parametrize(
    ("n", "overlap", "share", "lights_at"),
    [
        (720, 2.0, 0.05, 107),  # 72 + 3 sqrt(720 x 0.1 x 0.9 x 2) = 106.15
        (40, 1.0, 0.05, 10),  # 4 + 3 sqrt(40 x 0.1 x 0.9) = 9.69
        (720, 2.0, 1e-6, 3),  # never fewer windows than the alarm asks for
        (40, 1.0, 0.5, 41),  # a session that is known explains everything
    ],
)
def test_the_lamp_is_lit_by_more_than_a_known_session_explains(n, overlap, share, lights_at):
    assert Lamp(n, overlap, share=share).lights_at == lights_at


def test_the_lamp_is_lit_and_goes_out_at_two_counts():
    lamp = lamp_after([True] * 106)
    assert not lamp.lit
    lamp.update(None)  # a window that cannot be judged changes nothing
    assert not lamp.lit and lamp.count == 106
    lamp.update(True)
    assert lamp.lit and "107 of the last 107 windows are unusual, at most 72 of 720 are expected" in lamp.text()
    for _ in range(720 - 107 + 34):
        lamp.update(False)
    assert lamp.lit and lamp.count == 73
    lamp.update(False)
    assert not lamp.lit and lamp.count == 72


@pytest.mark.slow
def test_a_known_session_lights_it_hardly_ever_and_a_new_one_soon():
    rng = np.random.default_rng(0)
    quiet = [lamp_after(list(rng.random(3000) < 0.065)) for _ in range(20)]
    assert not any(lamp.lit for lamp in quiet)
    new = lamp_after(list(rng.random(500) < 0.31))  # 42 minutes of windows of 10 s, every 5 s
    assert new.lit


@given(st.lists(st.sampled_from([True, False, None]), max_size=200))
def test_the_count_is_that_of_the_last_judged_windows(flags):
    lamp = lamp_after(flags, n=25, overlap=1.0)
    judged = [flag for flag in flags if flag is not None][-25:]
    assert lamp.count == sum(judged) and len(lamp.recent) == len(judged)
    assert not lamp.lit or lamp.count > lamp.explained


HZ = 16_000


def hiss(i: int, level: float) -> np.ndarray:
    """Two channels, two seconds: noise of a level of its own, as a session has it."""
    rng = np.random.default_rng(i)
    return (level * 0.05 * rng.standard_normal((2, 2 * HZ))).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Fitted on 30 clips; the alarm stands far above what the tests play, so only the lamp can be lit."""
    detector = Detector(threads=1).fit([(hiss(i, 1.0)[0], hiss(i, 1.0)[1], HZ) for i in range(30)])
    detector.set_threshold(value=1e6)
    return detector.save(tmp_path_factory.mktemp("lamp") / "pump3")


@pytest.fixture
def plant(model, tmp_path):
    made, sink, clock = plant_of(Path(shutil.copytree(model, tmp_path / "pump3")), tmp_path / "history")
    made.machines["pump"].lamp.n = 10  # instead of an hour
    yield made, sink, clock
    made.close()
    made.history.close()


def listen(plant, level: float, windows: int, start: float, seed: int = 100) -> float:
    for i in range(windows):
        plant.process_window("pump", Window(start + 2 * i, hiss(seed + i, level), HZ))
    return start + 2.0 * windows


def test_another_session_lights_the_lamp_on_every_surface(plant):
    plant, sink, clock = plant
    metrics = Metrics(["pump"])
    plant.sinks.append(metrics)
    plant.reporter.sinks = plant.sinks
    clock.now = end = listen(plant, 1.3, 10, T0)
    rows = plant.history.scores("pump", 0, 1e10)
    assert all(row.unusual and row.anomalous is False and row.status == "unusual" for row in rows)
    state = machine_state(plant, "pump")
    assert state.state == "unusual" and state.unusual_stands and state.window.unusual
    (event,) = plant.history.events(kind="unusual")
    lights_at = plant.machines["pump"].lamp.lights_at
    assert event.started == T0 + 2 * lights_at and event.ended is None and state.unusual_event_id == event.id
    assert event.threshold == state.unusual_threshold == plant.machines["pump"].detector.unusual_threshold
    assert f"{lights_at} of the last {lights_at} windows are unusual" in event.text and event.audio
    assert sink.values("score", "unusual") == [True] * 10
    assert sink.values("score", "unusual_stands") == [False] * (lights_at - 1) + [True] * (11 - lights_at)
    assert sink.values("state", "unusual_stands") == [True] and sink.values("state", "state") == ["normal"]
    text = metrics.text().decode()
    assert 'nearfar_unusual{machine="pump"} 1.0' in text
    assert 'nearfar_windows_total{machine="pump",result="unusual"} 10.0' in text
    assert 'nearfar_events_total{kind="unusual",machine="pump"} 1.0' in text
    (raised,) = [m for m in sink.messages if m.kind == "event"]
    assert "  UNUSUAL  " in sentence(raised)
    listen(plant, 1.0, 20, end)
    assert plant.history.events(kind="unusual")[0].ended and not plant.machines["pump"].lamp.lit
    assert machine_state(plant, "pump").state == "normal" and sink.values("state", "unusual_stands") == [True, False]


def test_fine_adds_the_unusual_windows_and_the_lamp_goes_out(plant):
    plant, _, clock = plant
    clock.now = end = listen(plant, 1.3, 10, T0)
    machine, (event,) = plant.machines["pump"], plant.history.events(kind="unusual")
    before, was = len(machine.detector.normals), machine.detector.unusual_threshold
    audit = plant.operator.mark_fine(event.id, "Anna")
    now = machine.detector.unusual_threshold
    assert len(machine.detector.normals) == before + len(audit.detail["files"]) > before + 1
    assert (audit.detail["unusual_was"], audit.detail["unusual"]) == (was, now) and was != now
    assert f"unusual above {now:.2f}, before {was:.2f}" in audit_entries(plant, "pump")[0].text
    assert not machine.lamp.lit and plant.history.event(event.id).verdict == "fine"
    listen(plant, 1.3, 1, end, seed=500)
    assert plant.history.event(event.id).ended == end + 2
    plant.operator.undo(audit.id, "Anna")
    assert len(machine.detector.normals) == before and math.isclose(machine.detector.unusual_threshold, was)


def test_windows_while_shelved_or_in_alarm_do_not_count(plant):
    plant, _, clock = plant
    clock.now = T0
    plant.operator.shelve("pump", 1.0, "Anna")
    end = listen(plant, 1.3, 12, T0)
    assert plant.machines["pump"].lamp.count == 0 and not plant.history.events()
    plant.operator.unshelve("pump", "Anna")
    plant.machines["pump"].alarm.on = 0.0  # everything is an alarm
    listen(plant, 1.3, 12, end)
    assert [event.kind for event in plant.history.events()] == ["alarm"]
    assert plant.machines["pump"].lamp.count == plant.machines["pump"].alarm.on_delay - 1


def scored(name: str, status: str) -> tuple[str, Score]:
    flags = {"normal": (False, False), "unusual": (False, True), "ANOMALOUS": (True, True)}[status]
    return name, Score(name, 2.0, 3.0, flags[0], ["a.wav"], 0.1, unusual=flags[1], unusual_threshold=1.5)


def test_score_names_the_command_that_adds_unusual_recordings(capsys):
    few = [scored(f"{i}.wav", "normal") for i in range(27)] + [scored(f"u{i}.wav", "unusual") for i in range(3)]
    print_scores(few, Failures(), "pump 3")
    out = capsys.readouterr().out
    assert "30 scored, 0 anomalous, 3 unusual" in out and "nearfar add" not in out  # as promised: one in ten
    print_scores([*few[1:], scored("x.wav", "ANOMALOUS")], Failures(), "pump 3")
    assert "nearfar add" not in capsys.readouterr().out
    print_scores(few[2:], Failures(), "pump 3")
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "3 recordings are unusual: another session, or the beginning of a fault? Listen; those that are fine: " in out
    )
    assert out.endswith("nearfar add 'pump 3' FILES") and " unusual a.wav" in out


def test_add_says_how_both_set_points_changed(model, tmp_path):
    model = Path(shutil.copytree(model, tmp_path / "pump3"))
    before = load(model)
    before.set_threshold(rate=0.05)
    before.save(model)
    for i in range(4):
        write_wav(tmp_path / "new" / f"{i}.wav", Clip(*hiss(300 + i, 1.3), HZ))
    code, out, err = nearfar("add", model, tmp_path / "new")
    now = load(model)
    words = f"Changed unusual above {before.unusual_threshold:.2f} before, {now.unusual_threshold:.2f} now; "
    words += f"alarm above {before.threshold.value:.2f} before, {now.threshold.value:.2f} now"
    assert code == 0 and words in " ".join(out.split()), out + err


def test_an_explanation_has_the_word_of_the_score(model):
    detector = load(model)
    for level, word, start in ((1.0, "normal", "Sounds like"), (1.3, "unusual", "No single moment")):
        explained = detector.explain(Clip(*hiss(900, level), HZ))
        assert explained.verdict().startswith(f"{word}: ") and explained.unusual is (word == "unusual")
        assert explained.sentence().startswith(start) or explained.clear
