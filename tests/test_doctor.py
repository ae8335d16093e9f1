"""The look before fitting: each fault put into a folder is found, named, explained; the rest goes through."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from conftest import shared
from nearfar import doctor
from nearfar.doctor.report import ADVICE, Report

RATE = 16_000
JARGON = re.compile(r"\b(AUC|embedding|outlier|anomaly score|model|feature|leave-one-out|Mahalanobis|batch)\b", re.I)


def hum(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A machine: coloured noise, near and far, a little different each time."""
    rng = np.random.default_rng(seed)
    x = signal.lfilter([1], [1, -0.9], rng.normal(0, 0.02, (int(seconds * RATE), 2)), axis=0)
    return x * [1, 0.5] * 10 ** (rng.normal(0, 0.5) / 20)


def healthy(folder: Path, n: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        soundfile.write(folder / f"ok_{i:02d}.wav", hum(i), RATE)
    return folder


def kinds(report: Report) -> dict[str, set[str]]:
    return {f.file: {p.kind for p in f.problems} for f in report.files if f.problems}


def test_a_healthy_folder_is_ready(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    progress = lambda done, total, *_: seen.append((done, total))  # noqa: E731
    report = doctor.check_recordings(healthy(tmp_path, 20), progress=progress)
    assert report.ok and report.usable == 20 and not kinds(report) and not report.notes
    assert report.verdict == "Ready to fit: all 20 recordings can be used."
    assert seen == [(i + 1, 20) for i in range(20)]
    assert report.lines()[0] == "20 recordings: 0:20 min in all, 1 s each, 16,000 Hz, 2 channels"
    assert len(report.outliers) == 3 and all(f.near_minus_far_db == pytest.approx(6, abs=1.5) for f in report.files)


def test_every_fault_is_found_and_the_rest_goes_through(tmp_path: Path) -> None:
    healthy(tmp_path)
    x = hum(50)
    nan = x.copy()
    nan[9] = np.nan
    t = np.arange(len(x))[:, None]

    def write(name: str, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
        soundfile.write(tmp_path / f"{name}.wav", samples, rate, subtype=subtype)

    write("silent", np.c_[x[:, 0], 0 * x[:, 1]])
    write("stuck", np.where(t > 6000, 0.1, x))
    write("saturated", np.clip(x * 300, -1, 1))
    write("clipped", np.clip(x * 8, -1, 1))
    write("nan", nan, subtype="FLOAT")
    write("too_short", x[:100])
    write("gap", np.where((t > 3000) & (t < 4000), 0, x))
    write("offset", x + 0.4)
    write("one_cable", x[:, [0, 0]])
    write("miscoded", np.round(x * 32767).astype("<i2").byteswap().astype("<i2"))
    write("swapped", x[:, ::-1] * [0.5, 1])
    write("odd_rate", x, 22_050)
    write("odd_channels", x[:, :1])
    write("odd_length", x[:8000])
    write("incomplete", hum(51))
    (tmp_path / "incomplete.wav").write_bytes((tmp_path / "incomplete.wav").read_bytes()[:40_000])
    soundfile.write(tmp_path / "z_duplicate.flac", soundfile.read(tmp_path / "ok_03.wav")[0], RATE)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "unreadable.wav").write_text("not a recording")
    (tmp_path / "._ok_00.wav").write_text("left by another system")

    report = doctor.check_recordings(tmp_path)
    found = kinds(report)
    for kind in set(ADVICE) - {"channel", "coarse", "disk", "exchanged", "duplicate", "odd_length"}:
        assert kind in found.pop(f"{kind}.wav"), kind
    assert found == {"z_duplicate.flac": {"duplicate"}, "odd_length.wav": {"odd_length"}}
    unusable = {f.file for f in report.files if not f.usable}
    samples = ["silent", "stuck", "saturated", "miscoded", "nan"]
    assert unusable == {f"{k}.wav" for k in [*samples, "too_short", "empty", "unreadable"]}
    assert not report.ok and report.verdict == "Fix these first: 8 of 30 recordings cannot be used. The other 22 can."
    assert next(f.copy_of for f in report.files if f.file == "z_duplicate.flac") == "ok_03.wav"
    text = str(report)
    assert all(name in text for name in unusable) and "1 recording repeats another" in text
    assert not JARGON.search(text), JARGON.findall(text)


def test_the_report_is_json(tmp_path: Path) -> None:
    healthy(tmp_path, 9)
    (tmp_path / "bad.wav").touch()
    data = json.loads(json.dumps(doctor.check_recordings(tmp_path).to_dict()))
    assert data["ok"] is False and data["recordings"] == 10 and data["usable"] == 9 and len(data["listen_to"]) == 3
    bad = next(f for f in data["files"] if f["file"] == "bad.wav")
    assert bad["problems"][0] | {"text": ""} == {"kind": "empty", "text": "", "fatal": True, "channel": ""}


def test_the_one_that_sounds_otherwise_is_first_to_listen_to(tmp_path: Path) -> None:
    healthy(tmp_path, 15)
    whistle = hum(99) + 0.05 * np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE)[:, None]
    soundfile.write(tmp_path / "a_whistle.wav", whistle, RATE)
    report = doctor.check_recordings(tmp_path)
    assert (
        report.outliers[0].file == "a_whistle.wav"
        and report.outliers[0].robust_z > 5
        and report.outliers[0].compared == 16
    )
    assert "a_whistle.wav: UNLIKE THE OTHERS" in str(report)


def test_faults_among_the_normals_that_would_deafen_are_not_ready(tmp_path: Path) -> None:
    healthy(tmp_path, 24)
    t = np.arange(RATE)[:, None] / RATE
    for i, hz in enumerate((3000, 3050)):
        soundfile.write(tmp_path / f"bad {i}.wav", hum(99 + i) + 0.02 * np.sin(2 * np.pi * hz * t) * [1, 0.1], RATE)
    report = doctor.check_recordings(tmp_path)
    assert not report.ok and report.verdict.startswith("Not ready: 2 recordings would make the detector deaf")
    assert "--without 'bad 0.wav'" in report.verdict and "--without 'bad 1.wav'" in report.verdict
    (deaf,) = report.deaf
    assert set(deaf.files) == {"bad 0.wav", "bad 1.wav"} and min(deaf.scores) > deaf.set_point_without
    assert f"set-point {deaf.set_point_without:.2f}" in str(report) and f"{deaf.set_point:.2f}" in str(report)
    assert not JARGON.search(str(report)), JARGON.findall(str(report))
    assert report.to_dict()["deafening"][0]["files"] == deaf.files
    for name in deaf.files:
        (tmp_path / name).unlink()
    report = doctor.check_recordings(tmp_path)
    assert report.ok and not report.deaf


def test_few_recordings_are_not_compared(tmp_path: Path) -> None:
    report = doctor.check_recordings(healthy(tmp_path, 7))
    assert report.outliers == [] and report.ok and "8 are needed" in str(report) and "are few" in str(report)
    (tmp_path / "one").mkdir()
    soundfile.write(tmp_path / "one" / "a.wav", hum(0), RATE)
    one = doctor.check_recordings(tmp_path / "one")
    assert one.verdict.startswith("Not ready") and not one.ok


def test_a_far_microphone_that_is_dead_everywhere_is_said_as_fit_would(tmp_path: Path) -> None:
    for i in range(9):
        soundfile.write(tmp_path / f"{i}.wav", hum(i) * [1, 0], RATE)
    report = doctor.check_recordings(tmp_path)
    assert not report.ok and "far microphone is dead in 9 of 9 recordings" in str(report) and "--far -1" in str(report)
    assert doctor.check_recordings(tmp_path, far=None).ok


def test_swapped_microphones_are_said_once_for_all(tmp_path: Path) -> None:
    healthy(tmp_path)
    report = doctor.check_recordings(tmp_path, near=1, far=0)
    assert not kinds(report) and sum("weaker than far in 12 of 12" in note for note in report.notes) == 1


def test_plugs_that_were_swapped_for_one_recording_are_heard_by_who_is_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(10):
        machine, room = rng.standard_normal((2, RATE + 80))
        near, far = machine[80:] + 0.1 * room[:-80], 0.5 * machine[:-80] + room[80:]
        pair = (near, far) if i != 4 else (far, near)
        soundfile.write(tmp_path / f"{i}.wav", 0.05 * np.stack(pair, axis=1), RATE)
    report = doctor.check_recordings(tmp_path)
    assert kinds(report) == {"4.wav": {"exchanged"}}
    assert "4.wav: far hears the same sound 5.0 ms before near, and in most recordings near hears it first" in str(
        report
    )
    assert not report.ok and report.verdict.endswith("or leave them out: nearfar fit ... --without 4.wav")
    for i in range(5):  # as many one way as the other: nobody can tell which is right
        x = soundfile.read(tmp_path / f"{i}.wav")[0]
        soundfile.write(tmp_path / f"{i}.wav", x[:, ::-1] if i != 4 else x, RATE)
    assert "exchanged" not in {kind for found in kinds(doctor.check_recordings(tmp_path)).values() for kind in found}


def test_a_channel_that_is_not_there_is_said_with_the_option_to_change(tmp_path: Path) -> None:
    report = doctor.check_recordings(healthy(tmp_path, 3), far=4)
    assert report.usable == 0 and "3 recordings lack a channel: check --near and --far" in str(report)


def test_each_machine_has_its_own_odd_ones(tmp_path: Path) -> None:
    for k, machine in enumerate(("fan", "pump")):
        for i in range(10):
            path = tmp_path / machine / "train" / f"section_00_source_train_normal_{i:04d}_x.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = 0.05 * np.sin(2 * np.pi * (500 + 1500 * k) * np.arange(RATE) / RATE)[:, None]
            soundfile.write(path, hum(100 * k + i) + tone, RATE)
    (tmp_path / "pump" / "test").mkdir()
    soundfile.write(tmp_path / "pump/test/section_00_source_test_anomaly_0000_x.wav", hum(7) * 3, RATE)
    report = doctor.check_recordings(tmp_path)
    assert [o.machine for o in report.outliers] == ["fan"] * 3 + ["pump"] * 3
    assert all(o.compared == 10 and "train" in o.file for o in report.outliers)
    assert "21 recordings of 2 machines" in str(report)


@pytest.mark.slow
def test_a_long_file_is_heard_in_windows_of_bounded_memory(tmp_path: Path) -> None:
    def peak(minutes: int) -> tuple[int, Report]:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
            for i in range(minutes):
                x = hum(i, 60)
                if i == 1:
                    x[: 25 * RATE] = 0
                file.write(x)
        tracemalloc.start()
        report = doctor.check_recordings(path)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result, report

    peak(2)
    (short, report), (long, _) = peak(2), peak(6)
    assert long < 1.1 * short
    (checked,) = report.files
    assert checked.usable and checked.seconds == 120
    assert report.verdict == "Ready to fit: the recording can be used, and is worth a look first."
    assert report.ok and checked.clips == 10 and report.lines()[0].startswith("1 recording: 2:00 min in all, 2:00 min")
    silent = next(p for p in checked.problems if p.kind == "silent")
    assert (
        not silent.fatal
        and "each microphone is silent (one value) in 2 of 12 windows of 10 s, from 1:00 min" in silent.text
    )
    assert report.outliers[0].at_s == 80  # half of this window is gone
    assert "at 1:20 min" in str(report)


@pytest.mark.parametrize(("folder", "far"), [("mimii-8ch", 4), ("bldc-48k", 1)])
def test_real_recordings_can_be_used(folder: str, far: int) -> None:
    report = doctor.check_recordings(shared("data", folder), far=far)
    assert report.ok and len(report.outliers) == 3 and not JARGON.search(str(report).replace("-o MODEL", ""))


def test_a_long_file_that_is_cut_short_is_said_once_and_not_of_its_windows(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", hum(0, 60), RATE)
    (tmp_path / "long.wav").write_bytes((tmp_path / "long.wav").read_bytes()[: 44 + RATE * 4 * 45])
    text = str(doctor.check_recordings(tmp_path))
    assert "1 recording is incomplete" in text and "long.wav: the file lacks its last 15 s\n" in text


def test_two_groups_are_listed_and_asked_about(tmp_path: Path) -> None:
    healthy(tmp_path, 12)
    for i in range(8):
        tone = 0.05 * np.sin(2 * np.pi * np.outer(np.arange(RATE) / RATE, 1000 * np.arange(1, 8))).sum(axis=1)
        soundfile.write(tmp_path / f"pump_{i}.wav", hum(100 + i) + np.c_[tone, 0 * tone], RATE)
        soundfile.write(tmp_path / f"slow_{i}.wav", signal.resample(hum(200 + i), 8000), 8000)
    report = doctor.check_recordings(tmp_path)
    (rate,) = report.two_groups
    assert (rate.kind, rate.values) == ("rate", ("16,000 Hz", "8,000 Hz"))
    assert rate.files[1] == [f"slow_{i}.wav" for i in range(8)] and not kinds(report)
    assert report.ok and report.verdict.startswith("One question first: do all 28 recordings belong together?")
    assert "Two groups by rate" in str(report) and "8 recordings of 8,000 Hz" in str(report)
    assert report.to_dict()["two_groups"][0]["files"][1] == rate.files[1]


def test_another_place_of_the_microphones_is_a_group_by_sound(tmp_path: Path) -> None:
    healthy(tmp_path, 12)
    for i in range(8):
        near, far = hum(100 + i).T
        pair = np.c_[signal.lfilter([1, 0.95], [1], near), signal.lfilter([1, -0.9], [1], far)]
        soundfile.write(tmp_path / f"pump_{i}.wav", pair * [1, 2], RATE)
    (sound,) = doctor.check_recordings(tmp_path).two_groups
    assert sound.kind == "sound" and sound.files[1] == [f"pump_{i}.wav" for i in range(8)]


def test_what_a_fit_leaves_out_and_machines_in_the_names_are_said(tmp_path: Path) -> None:
    for i in range(22):
        soundfile.write(tmp_path / f"fan_normal_{i:04d}.wav", hum(i), RATE)
    for i in range(2):
        soundfile.write(tmp_path / f"fan_anomaly_{i:04d}.wav", hum(100 + i), RATE)
    report = doctor.check_recordings(tmp_path)
    assert (
        report.verdict == "Ready to fit: 22 of 24 recordings are taken, without 2 named as faults."
        and report.clips == 22
    )
    for i in range(2):
        soundfile.write(tmp_path / f"pump_normal_{i:04d}.wav", hum(200 + i), RATE)
    report = doctor.check_recordings(tmp_path)
    assert [(g.kind, g.values, len(g.files[1])) for g in report.two_groups] == [("name", ("fan", "pump"), 2)]
    assert report.verdict.startswith("One question first") and "Two groups by name: another machine?" in str(report)


def test_ready_is_not_said_of_recordings_that_can_promise_nothing(tmp_path: Path) -> None:
    for i in range(5):
        soundfile.write(tmp_path / f"{i}.wav", hum(i), RATE)
    assert doctor.check_recordings(tmp_path).verdict.startswith("Too few for an alarm that can be trusted")
