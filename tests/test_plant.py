"""The plant: one scoring path, alarms with audio, verdicts that change the bank and undo that restores it exactly."""

import hashlib
import math
import threading
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import soundfile

import nearfar
from conftest import RATE, hum
from nearfar.audio import Problem
from nearfar.errors import BadInput, Conflict, NearfarError, NotFound
from nearfar.live.operator import CHANGES, normal_keys
from nearfar.live.rules.evidence import Evidence
from nearfar.live.server.serializers import machine_state
from nearfar.live.sources.windows import Window
from nearfar.score import Score
from plants import T0, Clock, fitted, plant_of, sound, windows

FAULTY = ["", "", ""] + ["hiss"] * 4 + [""] * 8


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("model") / "pump3", [hum(i) for i in range(30)])


@pytest.fixture
def model(original, tmp_path):
    import shutil

    return Path(shutil.copytree(original, tmp_path / "pump3"))


@pytest.fixture
def plant(model, tmp_path):
    made, _, _ = plant_of(model, tmp_path / "history")
    yield made
    made.close()
    made.history.close()


def listen(plant, faults, start=T0, machine="pump"):
    for window in windows(faults, start):
        plant.process_window(machine, window)
    return start + 2.0 * len(faults)


def score(plant, clip, machine="pump"):
    return plant.machines[machine].detector.score([clip])[0]


def state(plant, machine="pump"):
    return plant.machines[machine].alarm.state(plant.clock())


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_a_window_has_the_score_of_the_same_samples_in_a_file_bit_for_bit(plant, model, tmp_path):
    for i, fault in enumerate(("", "hiss", "knock")):
        samples = np.round(sound(100 + i, fault) * 32768) / 32768
        soundfile.write(tmp_path / "x.wav", samples.T, 16_000, subtype="PCM_16")
        from_file = nearfar.load(model).score([tmp_path / "x.wav"])[0]
        window = windows([""])[0].__class__(T0 + 2 * i, samples.astype(np.float32), 16_000)
        live = plant.process_window("pump", window)
        assert live.score == from_file.score and live.p == from_file.p and live.anomalous == from_file.anomalous
        assert score(plant, window.clip).score == from_file.score


def test_a_fault_becomes_one_event_with_its_audio(plant):
    listen(plant, FAULTY)
    (event,) = plant.history.events()
    assert event.kind == "alarm" and event.machine == "pump"
    assert event.started == T0 + 12 and event.ended == T0 + 24  # the 3rd window that crosses; the 5th that does not
    rows = plant.history.scores("pump", 0, 1e10)
    assert len(rows) == 15 and event.peak_score == max(r.score for r in rows)
    path = plant.history.event_audio.path(event.audio)
    audio, rate = soundfile.read(path, always_2d=True)
    assert event.audio_t0 == T0 and len(audio) / rate >= event.peak_t0 + 2 + 15 - T0
    peak = windows(FAULTY)[round((event.peak_t0 - T0) / 2)].samples
    first = round((event.peak_t0 - event.audio_t0) * rate)
    assert np.abs(audio[first : first + peak.shape[1]].T - peak).max() < 1e-6


def test_what_is_told_and_when(model, tmp_path):
    plant, sink, clock = plant_of(model, tmp_path / "h")
    end = listen(plant, FAULTY)
    assert sink.values("event", "what") == ["raised", "cleared"]
    assert sink.values("state", "state") == ["unacknowledged alarm", "returned unacknowledged"]
    assert len(sink.values("score", "score")) == len(FAULTY)
    clock.now = end
    plant.operator.acknowledge(plant.history.events()[0].id, "anna")
    assert sink.values("state", "state")[-1] == "normal" and state(plant) == "normal"
    assert plant.history.audit()[0].who == "anna" and plant.history.events()[0].acknowledged == end
    for message in sink.messages:
        assert message.json()
    plant.close()


def test_a_dead_microphone_is_health_and_never_normal(plant):
    listen(plant, ["", "", "dead", "dead", "dead", "dead", "", "", "", ""])
    (event,) = plant.history.events()
    assert event.kind == "health" and "silent" in event.text and event.started == T0 + 6 and event.ended == T0 + 18
    rows = plant.history.scores("pump", 0, 1e10)
    assert [r.anomalous is None for r in rows] == [False] * 2 + [True] * 4 + [False] * 4
    assert not plant.machines["pump"].watchdog.standing


def test_windows_of_noise_numbers_are_survived(plant):
    bad = windows([""])[0]
    bad.samples[0, 5] = np.nan
    row = plant.process_window("pump", bad)
    assert row.anomalous is None and "nan" in row.problem
    assert plant.history.events()[0].kind == "health"


def test_nothing_for_a_while_is_health_on_one_clock(model, tmp_path):
    steady = Clock(100.0)
    plant, sink, clock = plant_of(model, tmp_path / "h", steady=steady, silence_s=30.0)
    machine = plant.machines["pump"]
    end = listen(plant, ["", ""])
    machine.source_health.start(steady.now)

    def check(seconds: float, at: float) -> None:
        steady.now, clock.now = 100.0 + seconds, at
        plant.check_source("pump")

    check(29, end + 29)
    assert not plant.history.events()
    check(40, end + 40)
    check(50, end + 50)
    (event,) = plant.history.events()
    assert event.kind == "health" and event.started == end + 40
    assert machine.health == {"source stale": "no sound has come for 40 s: is the source, or the network, down?"}
    assert machine_state(plant, "pump").state == "no sound"
    machine.source_health.on_window(steady.now)
    check(60, end - 3600)  # the clock has been set back an hour meanwhile
    listen(plant, [""], end - 3600)
    (event,) = plant.history.events()
    assert event.ended == end + 60 and not machine.health and machine_state(plant, "pump").state == "normal"
    assert [(m.health, m.at) for m in sink.messages if m.kind == "health"] == [("problem", end + 40), ("ok", end + 60)]


def test_a_silence_that_a_killed_process_left_open_lasts_until_the_next_start(model, tmp_path):
    steady = Clock(0.0)
    plant, _, clock = plant_of(model, tmp_path / "h", steady=steady, silence_s=30.0)
    listen(plant, [""])
    plant.machines["pump"].source_health.start(0.0)
    clock.now, steady.now = T0 + 100, 40.0
    plant.check_source("pump")
    plant.history.close()
    plant, _, clock = plant_of(model, tmp_path / "h", clock=Clock(T0 + 500))
    plant.end_interrupted_events()
    (event,) = plant.history.events()
    assert (event.started, event.ended, event.interrupted) == (T0 + 100, T0 + 500, True)
    plant.history.close()


def test_shelving_keeps_the_record_and_raises_when_it_ends(model, tmp_path):
    plant, sink, clock = plant_of(model, tmp_path / "h")
    plant.operator.shelve("pump", 20 / 3600, "anna")
    listen(plant, ["hiss"] * 12)
    assert sink.values("state", "state") == ["shelved", "unacknowledged alarm"]
    (event,) = plant.history.events()
    assert event.started == T0 + 20 and len(plant.history.scores("pump", 0, 1e10)) == 12
    with pytest.raises(ValueError, match="hours"):
        plant.operator.shelve("pump", -1, "anna")
    clock.now = T0 + 24
    plant.operator.shelve("pump", 8, "anna")
    assert state(plant_of(model, tmp_path / "h")[0]) == "shelved"  # after a restart too
    plant.operator.unshelve("pump", "anna")
    assert state(plant_of(model, tmp_path / "h")[0]) == "normal"
    assert [a.action for a in plant.history.audit()] == ["unshelve", "shelve", "shelve"]
    plant.close()


def test_fine_goes_into_the_bank_and_undo_restores_every_byte(plant, model):
    listen(plant, FAULTY)
    before, scores = digests(model), [score(plant, hum(s, fault="hiss")).score for s in range(3)]
    event = plant.history.events()[0]
    audit = plant.operator.mark_fine(event.id, "anna")
    machine = plant.machines["pump"]
    assert len(machine.detector.normals) > 31 and digests(model) != before
    learned = [score(plant, hum(s, fault="hiss")).score for s in range(3)]
    assert np.mean(learned) < np.mean(scores) / 2
    assert all(Path(n.path).is_file() for n in machine.detector.normals[30:])  # they can be played as normals
    assert plant.history.event(event.id).verdict == "fine" and machine.alarm.acknowledged
    assert nearfar.load(model).score([hum(5)])[0].score == score(plant, hum(5)).score
    with pytest.raises(ValueError, match="fine already"):
        plant.operator.mark_fine(event.id, "anna")
    plant.operator.undo(audit.id, "bert")
    assert digests(model) == before
    assert [score(plant, hum(s, fault="hiss")).score for s in range(3)] == scores
    assert plant.history.event(event.id).verdict == ""
    assert [a.action for a in plant.history.audit()] == ["undo", "fine"]
    with pytest.raises(ValueError, match="undone already"):
        plant.operator.undo(audit.id, "bert")
    plant.operator.mark_fault(event.id, "bert")
    assert plant.history.event(event.id).verdict == "fault"


def test_two_who_call_an_event_fine_at_once_put_it_into_the_bank_once(plant, model):
    listen(plant, FAULTY)
    event, said = plant.history.events()[0], []

    def call_fine(who):
        try:
            said.append(plant.operator.mark_fine(event.id, who).action)
        except ValueError as error:
            said.append(str(error))

    with plant.machines["pump"].lock:  # both have asked before either is served
        people = [threading.Thread(target=call_fine, args=(who,)) for who in ("anna", "bert")]
        for each in people:
            each.start()
        time.sleep(0.2)
    for each in people:
        each.join()
    assert sorted(said)[1] == "fine" and "fine already" in sorted(said)[0]
    assert all(Path(n.path).is_file() for n in plant.machines["pump"].detector.normals[30:])


def test_a_change_that_the_disk_has_no_room_for_is_none(plant, model, monkeypatch):
    before = digests(model)

    def failing(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nearfar.detector.Detector.save", failing)
    plant.machines["pump"].configured_per_week = 2.0
    with pytest.raises(OSError, match="No space"):
        plant.operator.change_set_point("pump", value=7.5, who="anna")
    assert plant.machines["pump"].configured_per_week == 2.0  # the change failed, so the configuration still counts
    assert digests(model) == before and plant.history.standing_changes("pump", CHANGES) == []
    assert plant.machines["pump"].detector.threshold.value == 6.0 and not list(
        (plant.history.folder / "undo" / "pump").iterdir()
    )


def test_only_a_wrong_value_is_the_callers_fault(plant, monkeypatch):
    for wrong in ({"value": float("nan")}, {"false_alarms_per_week": 0}, {"value": 1, "false_alarms_per_week": 1}, {}):
        with pytest.raises(BadInput):
            plant.operator.change_set_point("pump", who="anna", **wrong)

    def fault(*_, **__):
        raise ValueError("shapes do not match")

    monkeypatch.setattr("nearfar.detector.Detector.set_threshold", fault)
    with pytest.raises(ValueError, match="shapes do not match") as raised:
        plant.operator.change_set_point("pump", value=7.5, who="anna")
    assert not isinstance(raised.value, NearfarError)


def test_what_is_undone_is_kept_no_longer_and_normals_of_one_name_keep_their_files(plant):
    first = plant.operator.add_normals("pump", [hum(300)], "source", "anna")
    with pytest.raises(ValueError, match="in the bank already"):
        plant.operator.add_normals("pump", [hum(300)], "source", "anna")
    files = plant.machines["pump"].detector.normals[30:]
    assert len(files) == 1 and Path(files[0].path).is_file()
    plant.operator.undo(first.id, "anna")
    assert not list((plant.history.folder / "undo" / "pump").iterdir())


def test_changes_are_undone_from_the_newest(plant, model):
    before = digests(model)
    first = plant.operator.add_normals("pump", [hum(200), hum(201)], "target", "anna")
    between = digests(model)
    second = plant.operator.change_set_point("pump", false_alarms_per_week=10, who="anna")
    assert plant.machines["pump"].false_alarms_per_week == pytest.approx(10)
    assert plant.machines["pump"].alarm.on == score(plant, hum(1)).threshold == nearfar.load(model).threshold.value
    with pytest.raises(ValueError, match=f"newest first, which is entry {second.id}"):
        plant.operator.undo(first.id, "anna")
    plant.operator.undo(second.id, "anna")
    assert digests(model) == between
    plant.operator.undo(first.id, "anna")
    assert digests(model) == before
    with pytest.raises(NotFound, match="no audit entry 999"):
        plant.operator.undo(999, "anna")
    with pytest.raises(Conflict, match="did not change the model"):
        plant.operator.undo(plant.operator.shelve("pump", 1, "anna").id, "anna")


def test_a_set_point_by_hand_survives_new_normals(plant):
    plant.operator.change_set_point("pump", value=7.5, who="anna")
    plant.operator.add_normals("pump", [hum(300)], "source", "anna")
    assert plant.machines["pump"].detector.threshold.value == 7.5


def test_machines_share_one_encoder_and_answer_to_their_names(model, tmp_path):
    plant, _, _ = plant_of(model, tmp_path / "h", "pump", "fan")
    encoders = [m.detector.encoders["logmel"] for m in plant.machines.values()]
    assert encoders[0] is encoders[1]
    with pytest.raises(NotFound, match=r"no machine 'x'; there are: pump, fan"):
        plant.process_window("x", windows([""])[0])
    plant.close()


@pytest.mark.parametrize("name", ["../x", "", "a b", "a/b", "x" * 65])
def test_names_never_become_paths(model, tmp_path, name):
    with pytest.raises(ValueError, match="machine id"):
        plant_of(model, tmp_path / "h", name)


def test_events_left_open_by_a_killed_process_end_where_it_stopped_listening(model, tmp_path):
    plant, _, _ = plant_of(model, tmp_path / "h")
    listen(plant, ["hiss"] * 4)
    again, sink, _ = plant_of(model, tmp_path / "h")
    again.end_interrupted_events()
    assert sink.values("event", "what") == ["cleared"]
    (event,) = again.history.events()
    assert event.ended == T0 + 8 and event.interrupted
    plant.close()
    again.close()


def test_an_alarm_waits_for_its_answer_over_a_restart(model, tmp_path):
    plant, _, _ = plant_of(model, tmp_path / "h")
    end = listen(plant, FAULTY)
    again, sink, _ = plant_of(model, tmp_path / "h")
    assert state(again) == state(plant) == "returned unacknowledged"
    listen(again, [""], end)
    assert sink.values("state", "state") == ["returned unacknowledged"]
    again.operator.acknowledge(1, "anna")
    assert state(again) == state(plant_of(model, tmp_path / "h")[0]) == "normal"
    for each in (plant, again):
        each.close()


def test_what_was_left_open_for_long_ends_at_the_very_last_window(model, tmp_path):
    plant, _, _ = plant_of(model, tmp_path / "h")
    end = listen(plant, ["hiss"] * 4 + ["knock"] + ["hiss"] * 36)
    again, _, _ = plant_of(model, tmp_path / "h")
    again.end_interrupted_events()
    assert again.history.events()[0].ended == end
    plant.close()
    again.close()


def test_an_event_has_the_audio_of_its_peak_at_every_moment(plant):
    for i, window in enumerate(windows(["hiss"] * 12)):
        plant.process_window("pump", window)
        for event in plant.history.events():
            path = plant.history.event_audio.path(event.audio)
            assert event.audio_t0 <= event.peak_t0 <= event.audio_t0 + soundfile.info(path).duration - 2, i


def test_a_disk_that_is_full_for_the_audio_does_not_stop_the_alarm(plant, monkeypatch):
    put, full = plant.history.event_audio.save, [True]

    def failing(*arguments):
        if full[0]:
            raise OSError(28, "No space left on device")
        put(*arguments)

    monkeypatch.setattr(plant.history.event_audio, "save", failing)
    end = listen(plant, ["hiss"] * 4 + [""] * 12)
    assert plant.history.events()[0].audio == ""
    full[0] = False
    listen(plant, [""] * 10, end)
    assert plant.history.event_audio.path(plant.history.events()[0].audio)


def give(plant, monkeypatch, rows, start=T0, apart=2.0, problems=()):
    """Let the pump have windows with these scores, (score, p, triggered_by), and with these problems."""
    given = iter(rows)

    def score_window(detector, window):
        value, p, triggers = next(given)
        on = plant.machines["pump"].alarm.on
        return Score("", value, on, value > on, [], p, triggers), None, list(problems)

    monkeypatch.setattr("nearfar.live.plant.score_window", score_window)
    samples = sound(1).astype(np.float32)
    for i in range(len(rows)):
        plant.process_window("pump", Window(start + apart * i, samples, RATE))


def test_an_alarm_says_in_words_what_was_heard_and_what_to_check_first(model, tmp_path, monkeypatch):
    plant, _, _ = plant_of(model, tmp_path / "history")
    high = (1.2 * plant.machines["pump"].alarm.on, 1e-4, ("clean", "rhythm"))
    give(plant, monkeypatch, [(0.0, 0.5, ())] * 3 + [high] * 4, problems=[Problem("swapped", "are they swapped?")])
    (event,) = plant.history.events("pump")
    heard = "sounds unlike its normals, noticed in its sound without the room and its rhythm"
    assert event.text == f"{heard}; check first: are they swapped?"


def test_a_fault_on_top_of_an_alarm_is_an_event_of_its_own_linked_to_the_first(model, tmp_path, monkeypatch):
    plant, sink, _ = plant_of(model, tmp_path / "history")
    on = plant.machines["pump"].alarm.on
    steady, burst = (1.2 * on, 1e-4, ("steady",)), (1.2 * on, 1e-4, ("burst", "steady"))
    give(plant, monkeypatch, [(0.0, 0.5, ())] * 3 + [steady] * 20)
    plant.operator.acknowledge(1, "anna")
    assert plant.machines["pump"].alarm.state(T0) == "acknowledged alarm"
    give(plant, monkeypatch, [burst] * 16, start=T0 + 46)
    assert plant.machines["pump"].alarm.state(T0) == "unacknowledged alarm"
    second, first = plant.history.events("pump")
    assert (first.on_top_of, first.ended, second.on_top_of, second.ended) == (None, None, 1, None)
    assert second.text == "sounds unlike its normals in another way too, noticed in sudden knocks, while event 1 stands"
    assert second.triggered_by == ("burst", "steady") and second.started == T0 + 52
    give(plant, monkeypatch, [(2.5 * on, 1e-6, ("steady",))] * 14, start=T0 + 78)
    third = plant.history.events("pump")[0]
    assert third.on_top_of == 1 and third.text.endswith("twice as much as before, while event 1 stands")
    assert all(plant.history.event_audio.path(e.audio) for e in plant.history.events("pump"))
    give(plant, monkeypatch, [(0.0, 0.5, ())] * 6, start=T0 + 106)
    assert [e.ended for e in plant.history.events("pump")] == [T0 + 116] * 3
    said = [(m.what, m.event.id, m.event.on_top_of) for m in sink.messages if m.kind == "event"]
    told = [("raised", 1, None), ("acknowledged", 1, None), ("raised", 2, 1), ("raised", 3, 1)]
    assert said == [*told, ("cleared", 3, 1), ("cleared", 2, 1), ("cleared", 1, None)]
    give(plant, monkeypatch, [steady] * 4, start=T0 + 118)
    assert plant.history.events("pump")[0].on_top_of is None  # a new alarm


def test_a_faint_change_that_lasts_becomes_an_alarm_below_the_set_point(model, tmp_path, monkeypatch):
    plant, sink, _ = plant_of(model, tmp_path / "history", streamed=True)
    alarm = plant.machines["pump"].alarm
    alarm.evidence = Evidence(0.3, 8.0)
    give(plant, monkeypatch, [(0.0, 0.5, ())] * 20 + [(0.6 * alarm.on, 0.02, ("steady",))] * 30)
    (event,) = plant.history.events("pump")
    assert event.text.startswith("faintly unlike its normals for a while") and event.threshold > event.peak_score
    z = NormalDist().inv_cdf(0.98) - 0.3  # 2 z - 2 = 1.5 a window by the largest shift
    assert event.started == T0 + 2 * (20 + math.floor(8 / max(d * z - d * d / 2 for d in (0.5, 1, 2))) + 1)
    assert sink.values("event", "what") == ["raised"]


def test_a_slow_rise_becomes_an_event_and_is_told(model, tmp_path, monkeypatch):
    plant, sink, _ = plant_of(model, tmp_path / "history")
    on = plant.machines["pump"].alarm.on
    hours = np.arange(13 * 24)
    level = 0.05 * np.random.default_rng(0).normal(size=len(hours)) + np.maximum(0, hours - 8 * 24) / 24 * on / 8
    give(plant, monkeypatch, [(float(x), 0.5, ()) for x in level], apart=3600.0)
    (event,) = plant.history.events("pump")
    assert event.kind == "trend" and event.ended is None and "at this rate it alarms on" in event.text
    reaches = T0 + 3600 * (8 * 24 + 8 * 24)
    assert abs(plant.machines["pump"].ramp.alarm_at - reaches) < 24 * 3600
    assert sink.values("event", "what") == ["raised"]
    scores = [m for m in sink.messages if m.kind == "score"]
    assert scores[0].body()["trend"] is None
    assert scores[-1].body()["trend"]["text"] == event.text == plant.machines["pump"].ramp.text()


def test_normals_are_taken_out_and_get_sessions_and_undo_restores_every_byte(plant, model):
    machine = plant.machines["pump"]
    before = digests(machine.model)
    keys = normal_keys(machine.detector.normals)
    audit = plant.operator.remove_normals("pump", keys[3:5], "Anna")
    assert len(machine.detector.normals) == len(keys) - 2 and len(audit.detail["normals"]) == 2
    with pytest.raises(NotFound, match="changed meanwhile"):
        plant.operator.tag_normals("pump", [keys[3]], "Monday", "Anna")
    plant.operator.undo(audit.id, "Anna")
    assert digests(machine.model) == before
    tagged = plant.operator.tag_normals("pump", keys[:4], "Monday", "Anna")
    assert machine.detector.sessions[:5] == ["Monday"] * 4 + [""]
    assert nearfar.load(machine.model).sessions == machine.detector.sessions
    plant.operator.undo(tagged.id, "Anna")
    assert digests(machine.model) == before
    with pytest.raises(Conflict, match="at least"):
        plant.operator.remove_normals("pump", keys[1:], "Anna")
    assert digests(machine.model) == before
