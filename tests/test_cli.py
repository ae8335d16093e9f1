"""The commands, as a user types them: results on stdout, everything else on stderr, exit codes as promised."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from commands import nearfar
from conftest import RATE, hum, shared, write_wav
from nearfar import audio, cli, load
from nearfar.cli import terminal
from nearfar.detector import Detector
from nearfar.detector.folder import read_card

COMMAND = [sys.executable, "-m", "nearfar"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, normals_folder):
    folder = tmp_path_factory.mktemp("cli") / "pump3"
    code, out, err = nearfar("fit", normals_folder, "-o", folder)
    assert code == 0, err
    assert "listen to these: are they really normal?" in out and "1 false alarm in 20" in out
    return folder


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    folder = tmp_path_factory.mktemp("today")
    write_wav(folder / "good.wav", hum(500))
    write_wav(folder / "hiss.wav", hum(501, fault="hiss"))
    return folder


def test_python_fits_a_folder_as_the_command_does(model, normals_folder, tmp_path):
    made = Detector().fit(normals_folder).save(tmp_path / "made")
    assert {p.name: p.read_bytes() for p in made.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}


def test_python_leaves_out_copies_as_the_command_does(tmp_path):
    folder = tmp_path / "twice"
    for i in range(20):
        for copy in "ab":
            write_wav(folder / f"{i:02}{copy}.wav", hum(i))
    code, _, err = nearfar("fit", folder, "-o", tmp_path / "model")
    assert code == 0 and "it is the same recording as 00a.wav" in err
    with pytest.warns(UserWarning, match="it is the same recording as 00a.wav"):
        detector = Detector().fit(folder)
    made = detector.save(tmp_path / "made")
    assert {p.name: p.read_bytes() for p in made.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()
    }
    assert len(detector.normals) == 20 and sum(bool(s.anomalous) for s in detector.score(folder)) <= 2


def test_every_command_s_help_opens_with_an_example():
    code, out, _ = nearfar("--help")
    assert code == 0
    for command in ("demo", "doctor", "fit", "score", "explain", "add", "threshold", "evaluate", "reproduce", "submit"):
        assert command in out
        code, text, _ = nearfar(command, "--help")
        assert code == 0
        body = text.split("\n\n", 1)[1]
        assert body.strip().startswith(f"Example: nearfar {command}")


def test_score_prints_a_row_per_recording_and_writes_csv(model, today, tmp_path):
    code, out, err = nearfar("score", model, today, "--csv", tmp_path / "scores.csv")
    assert code == 0, err
    assert "2 scored, 1 anomalous; score and threshold are in standard deviations" in out
    rows = {r["file"]: r for r in csv.DictReader((tmp_path / "scores.csv").open())}
    assert rows["hiss.wav"]["anomalous"] == "1" and rows["good.wav"]["anomalous"] == "0"
    assert rows["good.wav"]["nearest"].startswith("normal_")
    assert list(rows["good.wav"])[:6] == ["file", "score", "threshold", "anomalous", "nearest", "status"]
    assert rows["good.wav"]["unusual"] in ("0", "1") and rows["hiss.wav"]["unusual"] == "1"


def test_json_is_one_document_on_stdout_and_equals_the_library(model, today):
    import nearfar as library

    code, out, _ = nearfar("score", model, today, "--json")
    assert code == 0
    rows = {row["file"]: row for row in json.loads(out)["scores"]}
    detector = library.load(model)
    assert rows["hiss.wav"]["score"] == detector.score([today / "hiss.wav"])[0].value


def test_fail_on_alarm_is_exit_1(model, today):
    assert nearfar("score", model, today, "--fail-on-alarm")[0] == 1
    assert nearfar("score", model, today / "good.wav", "--fail-on-alarm")[0] == 0


def test_a_silent_recording_cannot_be_judged_and_fails_on_alarm(model, tmp_path):
    from nearfar.audio import Clip

    write_wav(tmp_path / "dead.wav", Clip(np.zeros(32_000), np.zeros(32_000)))
    code, out, err = nearfar("score", model, tmp_path, "--fail-on-alarm")
    assert code == 1 and "cannot judge" in out and "silent" in err
    assert nearfar("score", model, tmp_path)[0] == 0


def test_a_corrupt_recording_is_reported_and_the_others_are_scored(model, today, tmp_path):
    for name in ("good.wav", "hiss.wav"):
        (tmp_path / name).write_bytes((today / name).read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x00\x00nonsense")
    (tmp_path / "empty.wav").touch()
    code, out, err = nearfar("score", model, tmp_path)
    assert code == 2 and "2 scored" in out and "2 could not be used" in out
    assert "broken.wav" in err and "empty.wav" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nowhere", "."], "nowhere is not a detector"),
        (["score", ".", "nowhere"], "comes first, then the recordings"),
        (["fit", "nowhere", "-o", "m"], "nowhere"),
        (["fit", ".", "-o", "m"], "no recordings"),
        (["fit"], "Missing"),
        (["threshold", "nowhere"], "not a detector"),
        (["evaluate", "nowhere"], "nowhere"),
        (["nonsense"], "No such command"),
        (["fit", ".", "-o", "m", "--recipe", "best"], "choose one of"),
        (["evaluate", ".", "--threads", "0"], "--threads"),
    ],
)
def test_bad_usage_is_exit_2_with_a_reason_and_no_traceback(arguments, message, tmp_path):
    code, out, err = nearfar(*arguments, cwd=tmp_path)
    assert code == 2 and message in err and "Traceback" not in err and not out


def test_threshold_shows_and_changes_the_set_point(model, tmp_path):
    model = shutil.copytree(model, tmp_path / "pump3")  # the others read it
    code, out, _ = nearfar("threshold", model, "--json")
    before = json.loads(out)
    assert code == 0 and before["normals"] == 30 and len(before["choices"]) >= 5
    code, out, err = nearfar("threshold", model, "--false-alarms-per-day", 1)
    assert code == 0 and "Set-point changed" in out and "lies beyond what 30 normals can show" in out, err
    assert json.loads(nearfar("threshold", model, "--json")[1])["threshold"] > before["threshold"]
    assert nearfar("threshold", model, "--rate", before["rate"])[0] == 0
    assert nearfar("threshold", model, "--false-alarm-rate", 2)[0] == 2


def test_adding_another_machine_is_said_and_so_are_few_normals(tmp_path):
    for i in range(6):
        write_wav(tmp_path / "a" / f"a{i}.wav", hum(i))
        write_wav(tmp_path / "b" / f"b{i}.wav", hum(i + 50, fault="hiss"))
        write_wav(tmp_path / "c" / f"c{i}.wav", hum(i + 80))
    code, out, err = nearfar("fit", "a", "-o", "m", cwd=tmp_path)
    assert code == 0 and "6 recordings are few: record 20 or more" in out
    code, _, err = nearfar("add", "m", "c", cwd=tmp_path)
    assert code == 0 and "another machine" not in err
    code, _, err = nearfar("add", "m", "b", cwd=tmp_path)
    assert code == 0 and "note: of 6 of these, 6 would be an alarm" in err and "or another machine?" in err


def test_add_puts_more_normals_into_the_bank(tmp_path, normals_folder):
    first, more = tmp_path / "first", tmp_path / "more"
    for i in range(12):
        write_wav(first / f"{i}.wav", hum(i))
    for i in range(20, 24):
        write_wav(more / f"{i}.wav", hum(i))
    assert nearfar("fit", first, "-o", tmp_path / "m")[0] == 0
    code, out, err = nearfar("add", tmp_path / "m", more, "--domain", "target")
    assert code == 0 and "16 normal recordings (12 source, 4 target)" in out, err
    code, _, err = nearfar("add", tmp_path / "m", more)
    assert code == 2 and "in the bank already" in err


def test_copies_are_not_fitted_on(tmp_path):
    for i in range(8):
        write_wav(tmp_path / "n" / f"{i}.wav", hum(i))
    write_wav(tmp_path / "n" / "z.wav", hum(3))
    code, out, err = nearfar("fit", tmp_path / "n", "-o", tmp_path / "m")
    assert code == 0 and "left out: z.wav: cannot serve as a normal: it is the same recording as 3.wav" in err
    assert "8 normal recordings" in out and "Left out      1 recording" in out


def test_recordings_that_are_all_anomalous_may_be_of_another_machine(model, tmp_path):
    for i in range(5):
        write_wav(tmp_path / "t" / f"{i}.wav", hum(i + 600, fault="hiss"))
    assert "all 5 that can be judged are anomalous" in nearfar("score", model, tmp_path / "t")[2]
    write_wav(tmp_path / "t" / "good.wav", hum(500))
    assert "that can be judged" not in nearfar("score", model, tmp_path / "t")[2]


def test_the_same_work_again_takes_its_own_time(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    tell = terminal._Lines()
    for start in (0, 1000):
        for done in range(1, 41):
            clock[0] = start + 10 * (done - 1)
            tell(done, 40, "listening")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "listening: 4 of 40, 4 min left" and said[:10] == said[10:]


def test_names_that_say_anomalous_are_not_fitted_on(tmp_path):
    for i in range(8):
        write_wav(tmp_path / "n" / f"section_00_source_train_normal_{i:04d}_x.wav", hum(i))
    write_wav(tmp_path / "n" / "section_00_source_train_anomaly_0001_x.wav", hum(9, fault="hiss"))
    code, out, err = nearfar("fit", tmp_path / "n", "-o", tmp_path / "m")
    assert code == 0 and "Fitted on     8 normal" in out and "anomal" in err


def test_an_error_in_nearfar_itself_is_not_taken_for_an_alarm(monkeypatch, capsys, model, today):
    monkeypatch.setattr("nearfar.detector.Detector.iter_scores", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["nearfar", "score", str(model), str(today)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 70 and "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RecursionError("x"), 2, "nested too deeply"),
        (MemoryError(), 2, "memory of this computer"),
        (KeyError("x"), 70, "KeyError"),
        (BrokenPipeError(32, "Broken pipe"), 2, "Broken pipe"),
        (KeyboardInterrupt(), 130, "stopped"),
        (ValueError("wrong"), 2, "nearfar: wrong"),
    ],
)
def test_no_error_ends_with_the_exit_code_of_an_alarm(monkeypatch, capsys, model, today, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("nearfar.detector.Detector.iter_scores", fail)
    monkeypatch.setattr(sys, "argv", ["nearfar", "score", str(model), str(today), "--fail-on-alarm"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code and said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nosuch"], ["score"], ["score", "--nosuch"]])
def test_wrong_usage_is_exit_2_and_the_version_is_exit_0(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["nearfar", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "Usage" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["nearfar", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("nearfar ")


@pytest.mark.parametrize("file", ["recipe.json", "detector.json"])
@pytest.mark.parametrize("depth", [400, 100_000])
def test_a_nested_file_is_exit_2_and_a_sentence(model, today, tmp_path, file, depth):
    text = '{"fusion":1,"parts":[{"weight":1,"system":' * depth + "{}" + "}]}" * depth
    (tmp_path / "deep.json").write_text(text)
    code, _, err = nearfar("fit", today, "-o", tmp_path / "m", "--recipe", tmp_path / "deep.json")
    assert code == 2 and "nested too deeply" in err
    damaged = shutil.copytree(model, tmp_path / "damaged")
    (damaged / file).write_text(text)
    code, _, err = nearfar("score", damaged, today)
    assert code == 2 and "damaged" in err and "Traceback" not in err


def test_fitting_onto_a_detector_is_refused_and_with_force_the_old_one_is_kept(model, normals_folder, tmp_path):
    there = shutil.copytree(model, tmp_path / "m")
    before = (there / "detector.json").read_bytes()
    code, _, err = nearfar("fit", normals_folder, "-o", there)
    assert code == 2 and "holds a detector already" in err and (there / "detector.json").read_bytes() == before
    for kept in ("m.old", "m.old-2"):
        code, _, err = nearfar("fit", normals_folder, "-o", there, "--force", "--false-alarm-rate", "0.2")
        assert code == 0 and kept in err
    assert (tmp_path / "m.old" / "detector.json").read_bytes() == before
    assert (there / "detector.json").read_bytes() != before


def test_a_link_out_of_a_detector_is_not_followed(model, today, tmp_path):
    linked = shutil.copytree(model, tmp_path / "m")
    (tmp_path / "secret").write_text("secret")
    for file in ("card.md", "normals.csv", "recipe.json"):
        whole = (linked / file).read_bytes()
        (linked / file).unlink()
        (linked / file).symlink_to(tmp_path / "secret")
        code, out, err = nearfar("score", linked, today)
        assert code == 2 and f"{file} is a link to" in err and "secret\n" not in out
        assert read_card(linked) == "" or file != "card.md"
        (linked / file).unlink()
        (linked / file).write_bytes(whole)
    assert read_card(linked).startswith("# What this detector is")


def test_a_recording_longer_than_the_normals_is_one_row_with_its_worst_window(model, tmp_path):
    four = [hum(seed) for seed in (3, 4, 5, 6)]
    faulty = [*four[:2], hum(5, fault="hiss"), four[3]]
    for name, each in (("a.wav", four), ("b.wav", faulty)):
        pair = [np.concatenate([getattr(clip, channel) for clip in each]) for channel in ("near", "far")]
        write_wav(tmp_path / "r" / name, audio.Clip(*pair, RATE))
    code, out, _ = nearfar("score", model, tmp_path / "r", "--json")
    a, b = json.loads(out)["scores"]
    assert (code, a["file"], b["file"]) == (0, "a.wav", "b.wav") and not a["anomalous"] and b["anomalous"]
    assert "the highest of 4 windows, 4s from the start" in b["warnings"]
    _, out, _ = nearfar("score", model, tmp_path / "r", "--windows", "--json")
    rows = json.loads(out)["scores"]
    assert [row["file"] for row in rows] == [f"{file}@{at}s" for file in ("a.wav", "b.wav") for at in (0, 2, 4, 6)]
    assert max(row["score"] for row in rows[4:]) == b["score"] == rows[6]["score"]
    detector = load(model)
    whole = [detector.score(source) for source in (tmp_path / "r" / "b.wav", audio.read(tmp_path / "r" / "b.wav"))]
    assert [s.score for s in whole[0]] == [s.score for s in whole[1]] == [row["score"] for row in rows[4:]]


def test_a_console_that_lacks_a_letter_shows_another_in_its_place(model, tmp_path):
    write_wav(tmp_path / "r" / "机器.wav", hum(3))
    done = subprocess.run(
        [*COMMAND, "score", model, tmp_path / "r"],
        capture_output=True,
        env=os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0 and b"??.wav" in done.stdout


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    clip = hum(0, seconds=10)
    for i in range(60):
        path = write_wav(tmp_path / "n" / f"{i}.wav", replace(clip, near=clip.near * (1 - i / 1000)))
        for more in range(20):  # so that it is not done when Ctrl-C comes late
            os.link(path, path.with_name(f"{i}_{more}.wav"))
    process = subprocess.Popen(
        [*COMMAND, "fit", tmp_path / "n", "-o", tmp_path / "m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have told us to ignore it
    )
    assert any("listening" in line for line in iter(process.stderr.readline, ""))  # copies are left out before
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["n"]


def test_demo_runs_from_nothing_to_a_report_page(tmp_path):
    code, out, err = nearfar(
        "demo", tmp_path / "d", "--machines", 1, "--train", 12, "--test", 8, "--seconds", 4, cwd=tmp_path
    )
    assert code == 0, err
    assert "Official score" in out and "A day of it   1 machine, " in out
    page = (tmp_path / "d" / "report.html").read_text()
    assert (tmp_path / "d" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert page.startswith("<!doctype html>") and "http://" not in page.replace("http://www.w3.org", "")
    assert "1 machine, " in page and "Promised: at most" in page and 'href="researcher.html"' in page
    assert "Official score" in (tmp_path / "d" / "researcher.html").read_text()
    machine = next((tmp_path / "d" / "models").iterdir())
    assert load(machine).calibration == "groups"  # as a plant would fit it; the evaluation has exact leave-one-out
    code, out, err = nearfar("report", tmp_path / "d" / "history", "--machine", machine.name, "-o", tmp_path / "r.html")
    assert code == 0 and f"<h2>{machine.name}</h2>" in (tmp_path / "r.html").read_text(), err
    assert nearfar("report", tmp_path / "d" / "history", "--machine", "x")[0] == 2
    file = next((tmp_path / "d" / "data" / machine.name / "test").glob("*anomaly*"))
    code, out, err = nearfar("explain", machine, file, "--json")
    assert code == 0, err
    assert json.loads(out)["nearest"]


def test_evaluate_on_real_recordings():
    data = shared("data", "dcase2026-form")
    code, out, err = nearfar("evaluate", data, "--recipe", "logmel-floor", "--rounds", 50, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["machines"]["bldcMotor"]["result"]["auc_source"] > 0.9
    low, high = result["interval"]["low"], result["interval"]["high"]
    assert low <= result["overall"] <= high


def test_doctor_says_what_is_wrong_and_exits_2(tmp_path, today):
    (tmp_path / "good.wav").write_bytes((today / "good.wav").read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"nonsense")
    code, out, _ = nearfar("doctor", tmp_path)
    assert code == 2 and "broken.wav" in out
    code, out, _ = nearfar("doctor", tmp_path, "--json")
    assert code == 2 and json.loads(out)
    assert nearfar("doctor", today)[0] == 0


def test_imports_are_quick_to_begin_with():
    code = "import sys, nearfar; print([m for m in ('numpy', 'scipy', 'torch', 'rich') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_time_is_not_wasted_on_help():
    # Not a limit on seconds: what makes help slow is importing arrays and audio, so they must not be there.
    code = "import sys; sys.argv = ['nearfar', '--help']\nfrom nearfar.cli import app\n"
    code += "try: app()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('numpy', 'scipy', 'soundfile', 'matplotlib', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")


def test_a_recording_that_is_cut_short_is_used_and_said_by_all(tmp_path):
    for i in range(10):
        write_wav(tmp_path / "normals" / f"{i}.wav", hum(i))
    for i in range(2):
        write_wav(tmp_path / "more" / f"{i}.wav", hum(20 + i))
    for path in (tmp_path / "normals" / "3.wav", tmp_path / "more" / "0.wav", tmp_path / "more" / "1.wav"):
        path.write_bytes(path.read_bytes()[:-32_000])
    cut = "the file lacks its last 0.5 s: was the recording, or the copying of it, cut off?"
    near_only = ("--recipe", "logmel-floor")  # which listens to near alone, and is told all the same
    code, out, err = nearfar("fit", "normals", "-o", "m", *near_only, cwd=tmp_path)
    assert code == 0 and "Fitted on     10 normal" in out and f"note: 3.wav: {cut}\n" in err
    code, out, err = nearfar("score", "m", "normals", "--csv", "s.csv", "--json", cwd=tmp_path)
    assert code == 0, err
    assert [s["warnings"] for s in json.loads(out)["scores"] if s["warnings"]] == [[cut]]
    rows = {row["file"]: row["warnings"] for row in csv.DictReader((tmp_path / "s.csv").open())}
    assert rows["3.wav"] == cut and rows["4.wav"] == ""
    code, out, err = nearfar("score", "m", "normals/3.wav", cwd=tmp_path)
    assert code == 0 and f"3.wav: {cut}\n" in err
    code, out, err = nearfar("explain", "m", "normals/3.wav", "--page", "p.html", cwd=tmp_path)
    assert code == 0 and f"Note: {cut}\n" in out, err
    code, out, err = nearfar("add", "m", "more", cwd=tmp_path)
    assert code == 0 and f"note: 0.wav: {cut} (1 more remark of this kind: see nearfar doctor)\n" in err
    assert f"3.wav: {cut.partition(':')[0]}\n" in nearfar("doctor", "normals", cwd=tmp_path)[1]


def test_a_recording_much_shorter_than_the_normals_is_said(model, tmp_path):
    write_wav(tmp_path / "short.wav", hum(500, seconds=0.5))
    code, _, err = nearfar("score", model, tmp_path)
    assert code == 0 and "short.wav: it lasts 0.5 s where the normals last 2 s: too short to be compared?\n" in err


def test_a_place_that_cannot_take_the_detector_is_said_before_anything_is_heard(normals_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    code, _, err = nearfar("fit", normals_folder, "-o", "mine", cwd=tmp_path)
    assert (
        code == 2 and err == "nearfar: mine exists and is not a detector; choose another name or remove it yourself\n"
    )


def test_scores_are_said_before_they_are_written(model, today, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = nearfar("score", model, today, "--csv", tmp_path / "file" / "s.csv")
    assert code == 2 and "2 scored, 1 anomalous" in out and "is a file, not a folder" in err


def test_a_reader_who_leaves_changes_neither_the_work_nor_its_exit_code(model, today, tmp_path):
    for file, code, option in (("good.wav", 0, "--json"), ("good.wav", 0, "--csv=s.csv"), ("hiss.wav", 1, "--json")):
        process = subprocess.Popen(
            [*COMMAND, "score", model, today / file, "--fail-on-alarm", option],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.close()
        _, err = process.communicate(timeout=120)
        assert process.returncode == code and not err
    assert (tmp_path / "s.csv").is_file()


def test_commands_to_copy_hold_names_with_spaces(normals_folder, tmp_path):
    code, out, _ = nearfar("fit", normals_folder, "-o", "Pumpe 3 (Süd)", cwd=tmp_path)
    assert code == 0 and "Next          nearfar score 'Pumpe 3 (Süd)' RECORDINGS\n" in out


def test_a_folder_where_one_recording_is_expected_is_said(model, tmp_path):
    code, _, err = nearfar("explain", model, tmp_path)
    assert code == 2 and f"{tmp_path} is a folder, and one recording is expected here" in err


def test_prose_is_broken_between_words_on_a_terminal_alone(monkeypatch, capsys):
    from nearfar.cli import terminal

    words = "Method        the far microphone hears the machine itself\n  in --two-words"
    terminal.echo_wrapped(words)
    assert capsys.readouterr().out == words + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    terminal.echo_wrapped(words)
    assert capsys.readouterr().out.splitlines() == [
        "Method        the far microphone hears",
        "              the machine itself",
        "  in --two-words",
    ]


def test_a_normal_unlike_the_others_is_named_and_can_be_left_out(normals_folder, tmp_path):
    folder = shutil.copytree(normals_folder, tmp_path / "normals")
    write_wav(folder / "grinding.wav", hum(77, fault="hiss"))
    code, out, _ = nearfar("fit", folder, "-o", tmp_path / "m")
    assert (
        code == 0 and "unlike all others" in out.split("grinding.wav  (")[1].split("\n")[0] and "--without FILE" in out
    )
    listed = (tmp_path / "m" / "card.md").read_text(encoding="utf-8").split("# Normals to listen to")[1]
    assert "unlike all others" in listed.split("- grinding.wav (")[1].split("\n")[0]
    code, out, _ = nearfar("fit", folder, "-o", tmp_path / "n", "--without", "grinding.wav")
    assert code == 0 and "grinding" not in out
    code, _, err = nearfar("fit", folder, "-o", tmp_path / "o", "--without", "griding.wav")
    assert code == 2 and "similar names: grinding.wav" in err


@pytest.mark.parametrize("options", [["--csv"], ["--page"], ["--picture"]])
def test_no_command_writes_over_a_recording_or_a_detector(model, tmp_path, options):
    recording = write_wav(tmp_path / "r" / "a.wav", hum(3))
    (tmp_path / "link.csv").symlink_to(recording)
    known = {path: path.read_bytes() for path in (recording, model / "normals.csv")}
    command = "score" if options == ["--csv"] else "explain"
    for target in (*known, tmp_path / "link.csv"):
        code, _, err = nearfar(command, model, recording, *options, target)
        assert code == 2 and "would be lost: give another name" in " ".join(err.replace("│", " ").split())
    assert {path: path.read_bytes() for path in known} == known
