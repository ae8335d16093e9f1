"""The command `setup`: the steps of the wizard in a terminal, with and without somebody who types."""

import json
import shutil
import threading
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile

from commands import nearfar
from conftest import RATE, hum, write_wav
from nearfar.detector import Detector, load
from nearfar.live.build import build_plant
from nearfar.live.setup.collection import Collections
from plants import sound
from test_doctor import healthy
from test_doctor import hum as machine

command = import_module("nearfar.cli.setup")  # in `cli` its name is that of the command


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def state(home: Path, id: str = "Pump-3") -> dict:
    return json.loads((home / "recordings" / id / "collection.json").read_text())


def job_states(home: Path) -> list[tuple[str, str]]:
    return [(job["kind"], job["state"]) for job in json.loads((home / "history" / "jobs.json").read_text())]


def test_a_folder_becomes_a_machine_in_one_command(home, dozen, tmp_path):
    (tmp_path / "in").mkdir()
    code, out, _ = nearfar("setup", "Pump 3", "--folder", dozen, "--source", tmp_path / "in", "--yes")
    assert code == 0 and "12 of 12 recordings can be used" in out and "8 more recordings and 2 more sessions" in out
    assert "Fitted        Behind it: 12 recordings" in out and "\nPromise       " in out
    assert out.endswith("Live          Pump 3 is watched while this runs: nearfar\n")
    fitted, by_hand = load(home / "models" / "Pump-3"), Detector(threads=1).fit(dozen)
    assert fitted.threshold == by_hand.threshold and (fitted.train_values == by_hand.train_values).all()
    added = json.loads((home / "history" / "machines.json").read_text())["Pump-3"]["table"]
    assert added["name"] == "Pump 3" and added["source"] == [str(tmp_path / "in")]
    again = nearfar("setup", "Pump-3", "--yes")  # it is live: nothing is fitted again unasked
    assert again[0] == 0 and "nearfar setup 'Pump 3' --fit" in again[1] and len(job_states(home)) == 2
    assert nearfar("setup", "Pump-3", "--fit")[0] == 0 and len(list((home / "models").iterdir())) == 2


def test_what_only_people_can_decide_ends_it_and_options_decide_it(home, tmp_path):
    folder, t = healthy(tmp_path, 24), np.arange(RATE)[:, None] / RATE
    for i, hz in enumerate((3000, 3050)):  # faults that would make a detector deaf to their like
        tone = 0.02 * np.sin(2 * np.pi * hz * t) * [1, 0.1]
        soundfile.write(folder / f"odd {i}.wav", machine(99 + i) + tone, RATE)
    code, _, err = nearfar("setup", "Pump 3", "--folder", folder, "--yes")
    assert code == 2 and "listen first: odd" in err and "nearfar setup 'Pump 3' --without FILE" in err
    assert not (home / "models").exists()
    code, _, err = nearfar("setup", "Pump 3", "--without", "even*")
    assert code == 2 and "no recording is called 'even*'" in err
    code, _, _ = nearfar("setup", "--keep", "odd*", "--no-fit", "--session", "Monday=odd 0.wav")
    assert code == 0 and set(state(home)["kept"]) == {"odd 0.wav", "odd 1.wav"}
    assert state(home)["sessions"] == {"odd 0.wav": "Monday"} and not (home / "models").exists()
    code, out, _ = nearfar("setup", "--without", "odd*", "--no-fit")  # the only one under way
    assert code == 0 and "24 of 24" in out and set(state(home)["left_out"]) == {"odd 0.wav", "odd 1.wav"}


def test_two_groups_are_a_question_and_names_answer_it(home, tmp_path):
    for i in range(6):
        write_wav(tmp_path / "n" / f"a{i}.wav", hum(i, seconds=1.0))
        write_wav(tmp_path / "n" / f"b{i}.wav", hum(i + 20, seconds=3.0))
    code, _, err = nearfar("setup", "Pump 3", "--folder", tmp_path / "n", "--yes")
    assert code == 2 and ("two groups by " in err or "listen first" in err)
    named = ("--session", "full load=a*", "--session", "half load=b*", "--keep", "*")
    code, _, _ = nearfar("setup", *named, "--no-fit")
    assert code == 0 and set(state(home)["sessions"].values()) == {"full load", "half load"}


def answered(monkeypatch, *arguments: object, answers: str):
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    return nearfar(*arguments, given=answers.encode())


def test_somebody_who_types_needs_no_option(home, dozen, tmp_path, monkeypatch):
    shutil.copytree(dozen, tmp_path / "n")
    write_wav(tmp_path / "n" / "odd.wav", hum(50, fault="hiss", seconds=1.0))
    monkeypatch.setattr(command, "list_devices", lambda: None)
    answers = f"Pump 3\n{tmp_path / 'n'}\n\ny\nno\n3\ny\n"  # name, folder, nothing watched, go on, (what?,) 3, fit
    code, out, _ = answered(monkeypatch, "setup", answers=answers)
    assert code == 0 and "Listen to these. Which are not normal?" in out and "Pump 3 scores what is sent" in out
    assert list(state(home)["left_out"]) == ["odd.wav"] and len(load(home / "models" / "Pump-3").normals) == 12
    assert [kind for kind, _ in job_states(home)] == ["doctor", "doctor", "fit"]


def test_a_name_and_a_place_are_asked_for_by_options_where_nobody_types(home):
    code, _, err = nearfar("setup")
    assert code == 2 and "which machine?" in err
    code, _, err = nearfar("setup", "Pump 3")
    assert code == 2 and "--folder FOLDER, --source mic" in err
    code, _, err = nearfar("setup", "Pump 3", "--source", home)
    assert code == 2 and "name the one of its normals too" in err
    code, _, err = nearfar("setup", "Pump 3", "--folder", home / "none")
    assert code == 2 and "there is no folder" in err


def test_a_running_server_keeps_the_command_out(home, dozen):
    config = command.read_home()
    with closing(build_plant(config, clock=time.time, warn=print, report=print, idle=True)):
        code, _, err = nearfar("setup", "Pump 3", "--folder", dozen)
    assert code == 2 and "in use by a running `nearfar serve`" in err
    assert nearfar("setup", "Pump 3", "--folder", dozen, "--no-fit")[0] == 0


def test_ctrl_c_during_a_job_keeps_nothing_of_it_and_the_next_run_does_it(home, dozen, monkeypatch):
    assert nearfar("setup", "Pump 3", "--folder", dozen, "--no-fit")[0] == 0
    fit, sleep, pressed = Detector.fit, time.sleep, []

    def slow(self, *arguments, progress, **options):
        while True:
            progress(1, 12)
            time.sleep(0.01)

    def press(seconds):  # Ctrl-C reaches the main thread alone
        if not pressed and threading.current_thread() is threading.main_thread():
            pressed.append(seconds)
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(Detector, "fit", slow)
    monkeypatch.setattr(command, "LOOK_S", 0.01)
    monkeypatch.setattr(command.time, "sleep", press)
    assert nearfar("setup", "--yes")[0] == 130
    assert job_states(home)[-1] == ("fit", "cancelled") and not (home / "models").exists()
    monkeypatch.undo()
    monkeypatch.setenv("NEARFAR_HOME", str(home))
    assert Detector.fit is fit and nearfar("setup", "--yes")[0] == 0 and (home / "models" / "Pump-3").is_dir()


def test_a_job_that_a_killed_run_left_behind_is_done_and_not_begun_twice(home, dozen):
    assert nearfar("setup", "Pump 3", "--folder", dozen, "--no-fit")[0] == 0
    file = home / "history" / "jobs.json"
    jobs = json.loads(file.read_text())
    file.write_text(json.dumps([*jobs, {**jobs[0], "id": 2, "kind": "fit", "state": "working", "starts": 1}]))
    code, out, _ = nearfar("setup", "--yes")
    assert code == 0 and "scores what is sent" in out and job_states(home) == [("doctor", "done"), ("fit", "done")]


def test_a_job_that_fails_says_why(home, dozen, monkeypatch):
    def broken(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Detector, "fit", broken)
    code, _, err = nearfar("setup", "Pump 3", "--folder", dozen, "--yes")
    assert code == 2 and "No space left" in err and job_states(home)[-1] == ("fit", "failed")


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_a_stream_is_recorded_up_to_what_is_missing(home, tmp_path):
    soundfile.write(tmp_path / "line.wav", sound(3, seconds=8.5).T, RATE)
    asked = ("setup", "Pump 3", "--source", tmp_path / "line.wav", "--seconds", 1, "--rate", RATE, "--no-fit", "--yes")
    code, out, _ = nearfar(*asked, "--count", 5)
    assert code == 0 and "   5 of 5 " in out and "15 more recordings and 2 more sessions" in out
    code, out, _ = nearfar(*asked)  # eight more, of fifteen that are missing: then the stream ends
    assert "of 15 " in out and Collections(home / "recordings").stock("Pump-3").recordings == 13
    taken = soundfile.read(sorted((home / "recordings" / "Pump-3" / "normals").iterdir())[0], dtype="float32")[0]
    assert np.abs(taken - soundfile.read(tmp_path / "line.wav", dtype="float32")[0][:RATE]).max() < 1e-4


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_ctrl_c_while_recording_keeps_what_is_there_and_pauses(home, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "line.wav", sound(3, seconds=8.5).T, RATE)
    record_from = command.record_from

    def interrupted(names, folder, takes, count, stop, **options):
        done = record_from(names, folder, takes, 2, stop, **options)
        stop.set()
        return done

    monkeypatch.setattr(command, "record_from", interrupted)
    code, out, _ = nearfar("setup", "Pump 3", "--source", tmp_path / "line.wav", "--seconds", 1, "--rate", RATE)
    assert code == 0 and "Paused" in out and "Go on: nearfar setup 'Pump 3'" in out
    assert (
        Collections(home / "recordings").stock("Pump-3").recordings == 2
        and not (home / "history" / "jobs.json").exists()
    )
