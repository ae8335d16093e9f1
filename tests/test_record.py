"""Guided recording of normals: from a file through ffmpeg, and from windows that are given."""

import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

import commands
from conftest import RATE
from nearfar.live.setup.recording import Stock, check, record, stock
from nearfar.live.sources.devices import Device, parse
from nearfar.live.sources.open import open_source
from nearfar.live.sources.streams import Ffmpeg
from nearfar.live.sources.windows import SourceOptions, Window
from plants import T0, sound


class Given:
    """A source of these windows; `stop_after` windows the reader is stopped, as by Ctrl-C."""

    live, finite, problem = True, True, ""

    def __init__(self, windows: list[Window | None], stop_after: int = 10**6) -> None:
        self.given, self.stop_after = windows, stop_after

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        for i, window in enumerate(self.given):
            if i == self.stop_after:
                stop.set()
            yield window


def window(i: int, samples: np.ndarray | None = None, t0: float = T0) -> Window:
    samples = sound(i, seconds=1.0) if samples is None else samples
    return Window(t0 + i, samples.astype(np.float32), RATE)


def test_recordings_are_the_samples_and_are_named_by_their_time(tmp_path):
    windows = [window(0), None, window(1), window(2)]
    taken = list(record(Given(windows), tmp_path, threading.Event(), count=2))
    assert taken[1] is None and len(taken) == 3
    files = sorted(tmp_path.iterdir())
    assert files == [taken[0].file, taken[2].file] and files[0].name.startswith("2027-01-1")
    samples, rate = soundfile.read(files[0], dtype="float32")
    assert rate == RATE and np.abs(samples.T - windows[0].samples).max() < 1e-6


def test_one_recording_per_span_and_none_is_overwritten(tmp_path):
    taken = list(record(Given([window(i) for i in range(10)]), tmp_path, threading.Event(), count=99, every_s=4))
    assert len(taken) == len(list(tmp_path.iterdir())) == 3  # at 0, 4 and 8 s
    again = list(record(Given([window(0)]), tmp_path, threading.Event(), count=1))
    assert again[0].file.name.endswith("_1.flac") and len(list(tmp_path.iterdir())) == 4


def test_a_stop_keeps_what_is_there_and_begins_nothing(tmp_path):
    taken = list(record(Given([window(i) for i in range(9)], stop_after=3), tmp_path, threading.Event(), count=9))
    assert len(taken) == 3 and not list(tmp_path.glob(".*"))


NEAR = sound(1, seconds=1.0)[0]
NOISE = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "says", "kept"),
    [
        (np.stack([0.1 * NOISE, 0.05 * np.roll(NOISE, 40)]), "", True),
        (np.stack([NOISE * 2e-4, 0.05 * NOISE]), "near is too quiet (-74 dB", True),
        (np.stack([np.clip(0.5 * NOISE, -1, 1), 0.05 * NOISE]), "clip", True),
        (np.stack([NEAR, NEAR]), "one", True),
        (np.stack([0.1 * NOISE, 0 * NOISE]), "far", False),
        (np.stack([0.1 * NOISE, np.full(RATE, np.nan)]), "", False),
    ],
)
def test_a_window_is_checked(samples, says, kept, tmp_path):
    (taken,) = record(Given([window(0, samples)]), tmp_path, threading.Event(), count=1)
    assert says in "; ".join(taken.problems) and bool(taken.file) == kept == bool(list(tmp_path.iterdir()))
    assert check(window(0, samples))[0].problems == taken.problems


def test_levels_are_those_of_the_channels():
    quiet, _ = check(window(0, np.stack([0.1 * NOISE, 0.01 * NOISE])))
    assert quiet.levels == pytest.approx((-20.0, -40.0), abs=0.1) and quiet.text() == "near −20 dB, far −40 dB"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Stock(0, 0), "20 more recordings and 3 more sessions, each on another day"),
        (Stock(19, 3), "missing: 1 more recording, at"),
        (Stock(40, 2), "missing: 1 more session, each on another day, at"),
        (Stock(20, 3), ""),
    ],
)
def test_what_is_missing_is_said(found, says):
    assert says in found.missing if says else not found.missing


def test_the_folder_is_the_state_over_days(tmp_path):
    for day in range(3):
        windows = [window(i, t0=T0 + 86_400 * day) for i in range(2)]
        list(record(Given(windows), tmp_path, threading.Event(), count=2))
        assert stock(tmp_path) == Stock(2 * (day + 1), day + 1)


LINUX = "Auto-detected sources for pulse:\n* alsa_input.usb-1 [USB Audio] (none)\n  sink.monitor [Monitor] (none)\n"
ALSA = (
    "Auto-detected sources for alsa:\n  null [Discard all samples] (none)\n  speexrate [Rate Converter] (none)\n"
    "  hw:1,0 [UMC202HD] (none)\n"
)
WINDOWS = '[dshow @ 01] "Camera" (video)\n[dshow @ 01] "Mikrofon (USB)" (audio)\n[dshow @ 01]   Alternative name "x"\n'
MAC = (
    "[AVF @ 0x1] AVFoundation video devices:\n[AVF @ 0x1] [0] Camera\n"
    "[AVF @ 0x1] AVFoundation audio devices:\n[AVF @ 0x1] [0] Built-in Microphone\n"
)


@pytest.mark.parametrize(
    ("text", "command", "expected"),
    [
        (LINUX, ["-sources", "pulse"], Device("pulse:alsa_input.usb-1", "USB Audio")),
        (ALSA, ["-sources", "alsa"], Device("alsa:hw:1,0", "UMC202HD")),
        (WINDOWS, ["-f", "dshow"], Device("dshow:audio=Mikrofon (USB)", "Mikrofon (USB)")),
        (MAC, ["-f", "avfoundation"], Device("avfoundation::0", "Built-in Microphone")),
    ],
)
def test_devices_are_read_from_what_ffmpeg_prints(text, command, expected):
    assert parse(text, command) == [expected]
    settings = SourceOptions(1.0, 1.0, 48_000, lambda: 0.0, lambda *_: None)
    stream = open_source([expected.source], settings).stream
    kind, _, device = expected.source.partition(":")
    assert isinstance(stream, Ffmpeg) and stream.url == device and stream.options == ("-f", kind)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_the_command_records_a_file_and_continues(tmp_path):
    soundfile.write(tmp_path / "line.wav", sound(3, seconds=8.5).T, RATE)
    asked = ("record", "--near", tmp_path / "line.wav", "-o", tmp_path / "n", "--seconds", 2, "--rate", RATE)
    code, out, _ = commands.nearfar(*asked, "--count", 3)
    assert code == 0 and len(list((tmp_path / "n").iterdir())) == 3
    assert "   3 of 3 " in out and "Recorded      3; " in out and "17 more recordings and 2 more sessions" in out
    code, out, _ = commands.nearfar(*asked, "--count", 9)  # four whole recordings, then the file ends
    assert code == 0 and len(list((tmp_path / "n").iterdir())) == 7 and "Continued" in out
    code, _, err = commands.nearfar("record")
    assert code == 2 and "nearfar record -o normals/" in err


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_a_dead_microphone_ends_the_command(tmp_path):
    soundfile.write(tmp_path / "dead.wav", np.zeros((8 * RATE, 2)), RATE)
    code, _, err = commands.nearfar("record", "--near", tmp_path / "dead.wav", "-o", tmp_path / "n", "--seconds", 1)
    assert code == 2 and "3 recordings in a row could not be used" in err and not (tmp_path / "n").exists()
