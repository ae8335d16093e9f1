"""Sources: folders, ffmpeg, pipes, microphones and pairs, with real files, processes and servers."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from conftest import RATE, hum, write_wav
from nearfar import audio
from nearfar.errors import AudioError
from nearfar.live.sources import aligned, folder, streams
from nearfar.live.sources.open import StreamSource, open_source
from nearfar.live.sources.windows import SourceOptions

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
NOISE = np.random.default_rng(0).normal(0, 0.1, (2, 8 * RATE)).astype(np.float32)


def listening(**changes) -> SourceOptions:
    plain = {"window_s": 2.0, "hop_s": 1.0, "rate": RATE, "clock": time.time, "report": lambda name, error: None}
    return SourceOptions(**{**plain, **changes})


def collect(source, seconds=60.0, until=None) -> list:
    """Windows of a source until it ends, `until(windows)` holds, or the time is up."""
    stop, got = threading.Event(), []
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    for window in source.windows(stop):
        got += [window] if window is not None else []
        if until is not None and until(got):
            stop.set()
    timer.cancel()
    return got


@pytest.fixture
def wav(tmp_path) -> Path:
    soundfile.write(tmp_path / "noise.wav", NOISE.T, RATE, subtype="PCM_16")
    return tmp_path / "noise.wav"


@needs_ffmpeg
def test_a_file_through_ffmpeg_is_the_file_in_windows(wav):
    got = collect(open_source([str(wav)], listening()))
    clip = audio.read(wav)
    assert len(got) == 7 and not any(w.gap for w in got)
    for i, window in enumerate(got):
        assert np.array_equal(window.samples[0], clip.near[i * RATE : (i + 2) * RATE])  # 16 bits pass exactly
        assert np.array_equal(window.samples[1], clip.far[i * RATE : (i + 2) * RATE])


@needs_ffmpeg
def test_ffmpeg_picks_the_channels_that_were_asked_for(tmp_path):
    four = np.stack([0.1 * (i + 1) * NOISE[0] for i in range(4)])
    soundfile.write(tmp_path / "four.wav", four.T, RATE, subtype="FLOAT")
    got = collect(open_source([str(tmp_path / "four.wav")], listening(near=3, far=2)))
    assert np.allclose(got[0].samples, four[[3, 2], : 2 * RATE], atol=1e-6)


@needs_ffmpeg
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
@pytest.mark.parametrize(("near", "far"), [(0, 1), (0, None), (2, 0)])
def test_ffmpeg_mixes_no_channels(tmp_path, channels, near, far):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, (4 * RATE, channels)), RATE, subtype="FLOAT")
    if (channels == 1 and near) or max(near, far or 0) >= channels > 1:
        source = open_source([str(path)], listening(near=near, far=far))
        assert not collect(source, until=lambda _: source.problem) and "was asked for" in source.problem
        return
    want = list(audio.windows(path, near=near, far=far, length_s=2.0, whole_s=1.0))
    got = collect(open_source([str(path)], listening(near=near, far=far, hop_s=2.0)))
    assert len(got) == len(want) == 2
    for window, clip in zip(got, want, strict=True):
        assert np.array_equal(window.samples, [clip.near] if clip.far is None else [clip.near, clip.far])
        assert window.level_dbfs(0) == pytest.approx(-20, abs=0.2)


@needs_ffmpeg
@pytest.mark.parametrize("channels", [2, 3, 4, 5, 6, 7, 8])
def test_the_channels_of_an_ogg_file_have_the_numbers_that_ffmpeg_gives_them(tmp_path, channels):
    path, time_s = tmp_path / "x.ogg", np.arange(RATE) / RATE
    tones = np.stack([0.1 * np.sin(2 * np.pi * 500 * (i + 1) * time_s) for i in range(channels)], axis=1)
    soundfile.write(path, tones, RATE, format="OGG", subtype="VORBIS")
    decode = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", path, "-f", "f32le", "-"]
    known = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, "<f4").reshape(-1, channels)
    for near in range(channels):
        clip = audio.read(path, near=near, far=0)
        length = min(len(known), len(clip.near))
        assert np.allclose(clip.near[:length], known[:length, near], atol=1e-3)
        assert np.allclose(clip.far[:length], known[:length, 0], atol=1e-3)


@needs_ffmpeg
def test_each_of_a_pair_is_one_channel_as_it_is(tmp_path):
    for channels in (1, 2):
        path = tmp_path / f"{channels}.wav"
        soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, (3 * RATE, channels)), RATE, subtype="FLOAT")
        stop, feed = threading.Event(), streams.Ffmpeg(str(path), RATE, channels=1)
        got = np.concatenate([chunk[0] for chunk in feed.chunks(stop) if chunk is not None], axis=1)
        assert np.array_equal(got, [audio.read(path).near])


@needs_ffmpeg
def test_ffmpeg_says_what_is_wrong_without_the_password(tmp_path):
    feed = streams.Ffmpeg("http://anna:secret@127.0.0.1:9/x", RATE, first_wait_s=0.1)
    collect(StreamSource(feed, 2.0, 1.0, time.time), until=lambda _: feed.restarts)
    assert feed.restarts >= 1 and "refused" in feed.problem and "secret" not in feed.problem
    assert "@ 0x" not in feed.problem  # an address differs each time, so that the same problem would look new


class _Broken(http.server.BaseHTTPRequestHandler):
    """Sends three seconds of sound and breaks off, each time it is asked; the second time it refuses."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        if type(self).asked == 2:
            self.send_error(503)
            return
        self.send_response(200)
        self.end_headers()
        whole = (Path(self.server.folder) / "noise.wav").read_bytes()
        self.wfile.write(whole[: 44 + 3 * RATE * 4])

    def log_message(self, *_):
        pass


@needs_ffmpeg
def test_a_stream_that_breaks_is_taken_up_again_with_a_gap_between(wav):
    _Broken.asked = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        server.folder = wav.parent
        threading.Thread(target=server.serve_forever, daemon=True).start()
        feed = streams.Ffmpeg(f"http://127.0.0.1:{server.server_port}/noise.wav", RATE, first_wait_s=0.1)
        got = collect(StreamSource(feed, 2.0, 1.0, time.time), until=lambda got: len(got) >= 4)
        server.shutdown()
    assert [w.gap for w in got[:4]] == [False, False, True, False] and feed.restarts == 2
    clip = audio.read(wav)
    for i, window in enumerate(got[:4]):  # 0 s, 1 s; and from the beginning again
        assert np.array_equal(window.samples[0], clip.near[i % 2 * RATE : (i % 2 + 2) * RATE])


def test_a_stream_that_stays_silent_is_started_again(tmp_path):
    silent = tmp_path / "ffmpeg"  # stands for a camera that accepts and never sends
    silent.write_text("#!/bin/sh\necho frozen >&2\nexec sleep 60\n")
    silent.chmod(0o755)
    feed = streams.Ffmpeg("rtsp://127.0.0.1/x", RATE, stall_s=1.0, first_wait_s=0.1)
    old = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}:{old}"
    try:
        collect(StreamSource(feed, 2.0, 1.0, time.time), until=lambda _: "frozen" in feed.problem)
    finally:
        os.environ["PATH"] = old
    assert feed.restarts >= 1 and "no sound for 1 s" in feed.problem and "frozen" in feed.problem


@pytest.mark.parametrize("form, kind, scale", [("f32le", "<f4", 1), ("s16le", "<i2", 32768)])
def test_raw_samples_on_a_pipe(form, kind, scale):
    samples = np.round(NOISE * 32768) / 32768
    code = "import sys, time; d = sys.stdin.buffer.read(); o = sys.stdout.buffer\n" + (
        "for i in range(0, len(d), 50001): o.write(d[i:i + 50001]); o.flush()"  # pieces that end amid a sample
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    threading.Thread(
        target=lambda: (child.stdin.write((samples.T * scale).astype(kind).tobytes()), child.stdin.close())
    ).start()
    got = collect(StreamSource(streams.Pcm(child.stdout, RATE, 2, form), 2.0, 1.0, time.time))
    child.wait()
    assert len(got) == 7 and np.array_equal(got[3].samples, samples[:, 3 * RATE : 5 * RATE].astype(np.float32))


def test_files_are_heard_once_complete_in_order_and_once(tmp_path):
    inbox, ledger = tmp_path / "in", tmp_path / "ledger"
    for i in range(3):
        os.utime(write_wav(inbox / f"{2 - i}.wav", hum(i)), (1000 + 10 * i, 1000 + 10 * i))
    how = listening(ledger=ledger, once=True)
    got = collect(open_source([str(inbox)], how))
    assert [w.name for w in got] == ["2.wav", "1.wav", "0.wav"] and [w.t1 for w in got] == [1000, 1010, 1020]
    assert np.array_equal(got[0].samples[0], audio.read(inbox / "2.wav").near) and all(w.gap for w in got)
    assert collect(open_source([str(inbox)], how)) == []  # after a restart
    write_wav(inbox / "new.wav", hum(7))
    write_wav(inbox / "0.wav", hum(8))  # written anew
    assert sorted(w.name for w in collect(open_source([str(inbox)], how))) == ["0.wav", "new.wav"]


def test_files_that_the_recorder_has_removed_are_forgotten_and_those_that_are_there_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MANY", 3)
    inbox, ledger = tmp_path / "in", tmp_path / "ledger"
    how = listening(ledger=ledger, once=True)
    write_wav(inbox / "stays.wav", hum(0))
    for i in range(8):
        write_wav(inbox / f"{i}.wav", hum(i + 1))
        assert len(collect(open_source([str(inbox)], how))) == (2 if i == 0 else 1)
        (inbox / f"{i}.wav").unlink()
    assert len(ledger.read_text().splitlines()) <= 5 and "stays.wav" in ledger.read_text()
    (inbox / "stays.wav").rename(tmp_path / "stays.wav")  # an empty folder may be a share that is away
    before = ledger.read_text()
    assert collect(open_source([str(inbox)], how)) == [] and ledger.read_text() == before
    (tmp_path / "stays.wav").rename(inbox / "stays.wav")
    assert collect(open_source([str(inbox)], how)) == []


def test_a_file_whose_name_is_no_utf_8_is_heard_and_its_name_shown_escaped(tmp_path):
    inbox, ledger, failed = tmp_path / "in", tmp_path / "ledger", []
    os.utime(write_wav(inbox / "a.wav", hum(1)), (1000, 1000))
    (inbox / "a.wav").rename(os.fsdecode(os.fsencode(inbox) + b"/Pr\xfcfung.wav"))
    write_wav(inbox / "b.wav", hum(2))
    how = listening(ledger=ledger, once=True, report=lambda name, error: failed.append(name))
    assert [w.name for w in collect(open_source([str(inbox)], how))] == [r"Pr\xfcfung.wav", "b.wav"]
    assert not failed and b"\xfc" in ledger.read_bytes()
    assert collect(open_source([str(inbox)], how)) == [] and not failed


def test_a_folder_that_is_gone_is_said(tmp_path):
    inbox = tmp_path / "in"
    inbox.mkdir()
    source = open_source([str(inbox)], listening(poll_s=0.05))
    inbox.rmdir()
    assert collect(source, until=lambda _: source.problem) == [] and str(inbox) in source.problem
    inbox.mkdir()
    assert collect(source, until=lambda _: not source.problem) == [] and source.problem == ""


def test_sound_that_a_watched_folder_cannot_read_is_said(tmp_path):
    write_wav(tmp_path / "a.wav", hum(1))
    (tmp_path / "memo.m4a").write_bytes(b"phone")
    source = open_source([str(tmp_path)], listening(once=True))
    assert len(collect(source)) == 1 and "memo.m4a is skipped; nearfar reads WAV" in source.problem


def test_files_wait_for_no_clock_and_are_never_from_the_future(tmp_path):
    inbox, clock = tmp_path / "in", iter(range(10**6, 0, -1))  # it goes backwards
    os.utime(write_wav(inbox / "a.wav", hum(1)), (4e9, 4e9))
    how = listening(poll_s=0.05, settle_s=0.2, clock=lambda: float(next(clock)))
    (window,) = collect(open_source([str(inbox)], how), until=bool)
    assert window.t1 <= 1e6


def test_a_long_file_is_stopped_in_the_middle_and_heard_again(tmp_path):
    write_wav(tmp_path / "in" / "long.wav", hum(1, seconds=31))
    how, stop = listening(ledger=tmp_path / "ledger", once=True), threading.Event()
    windows = open_source([str(tmp_path / "in")], how).windows(stop)
    assert next(windows).name.startswith("long.wav")
    stop.set()
    assert list(windows) == []
    assert len(collect(open_source([str(tmp_path / "in")], how))) > 10


def test_half_a_file_is_waited_for(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(folder, "monotonic", lambda: now[0])
    inbox = tmp_path / "in"
    inbox.mkdir()
    write_wav(tmp_path / "x.wav", hum(1))
    content = (tmp_path / "x.wav").read_bytes()
    failed: list[str] = []
    how = listening(poll_s=0.001, settle_s=0.5, report=lambda name, error: failed.append(name))
    heard = open_source([str(inbox)], how).windows(threading.Event())
    with (inbox / "x.wav").open("wb") as file:
        for i in range(0, len(content), len(content) // 8 + 1):
            file.write(content[i : i + len(content) // 8 + 1])
            file.flush()
            now[0] += 0.4
            assert next(heard) is None
    now[0] += 0.4
    assert next(heard) is None
    now[0] += 0.2
    window = next(heard)
    assert not failed and len(window.samples[0]) == 2 * RATE and next(heard) is None


@pytest.mark.parametrize("error", [AudioError("cannot be read", "disk"), OSError(5, "Input/output error")])
def test_a_file_that_its_share_does_not_give_waits_and_the_others_go_through(tmp_path, monkeypatch, error):
    for name in "abc":
        write_wav(tmp_path / "in" / f"{name}.wav", hum(3))
    stop, failed, gone, real = threading.Event(), [], [True], audio.windows

    def windows(path, **how):
        if gone[0] and path.name == "b.wav":
            raise error
        return real(path, **how)

    monkeypatch.setattr(audio, "windows", windows)
    how = listening(ledger=tmp_path / "ledger", settle_s=0, poll_s=0, report=lambda name, error: failed.append(name))
    source = open_source([str(tmp_path / "in")], how)
    got = source.windows(stop)
    assert [window and window.name for window in (next(got), next(got), next(got))] == ["a.wav", "c.wav", None]
    assert next(got) is None and source.problem == str(error)  # tried again
    gone[0] = False
    assert next(got).name == "b.wav"
    assert next(got) is None and next(got) is None and source.problem == "" and not failed


def test_what_a_share_does_not_give_is_left_out_of_one_run_and_not_of_the_next(tmp_path, monkeypatch):
    write_wav(tmp_path / "in" / "a.wav", hum(3))
    failed, how = [], {"ledger": tmp_path / "ledger", "once": True, "report": lambda name, error: failed.append(name)}
    with monkeypatch.context() as patch:
        patch.setattr(audio, "windows", lambda *_, **__: (_ for _ in ()).throw(AudioError("gone", "disk")))
        assert collect(open_source([str(tmp_path / "in")], listening(**how))) == [] and failed == ["a.wav"]
    assert len(collect(open_source([str(tmp_path / "in")], listening(**how)))) == 1 and failed == ["a.wav"]


@pytest.mark.skipif(os.name == "nt", reason="no such names on Windows")
@pytest.mark.parametrize("name", ["two\nlines.wav", "tab\t.wav", os.fsdecode(b"\xff.wav"), "cr\r.wav"])
def test_a_file_of_any_name_is_heard_once_across_restarts(tmp_path, name):
    write_wav(tmp_path / "in" / "a.wav", hum(3)).rename(tmp_path / "in" / name)
    how = listening(ledger=tmp_path / "ledger", once=True)
    assert [len(collect(open_source([str(tmp_path / "in")], how))) for _ in range(2)] == [1, 0]


def test_a_corrupt_file_is_reported_once_and_the_others_go_through(tmp_path):
    write_wav(tmp_path / "a.wav", hum(1))
    (tmp_path / "b.wav").write_bytes(b"RIFF nonsense")
    (tmp_path / ".c.wav").write_bytes(b"hidden")
    failed: list[tuple[str, str]] = []
    how = listening(once=True, ledger=tmp_path / "ledger", report=lambda n, e: failed.append((n, str(e))))
    assert [w.name for w in collect(open_source([str(tmp_path)], how))] == ["a.wav"]
    assert [name for name, _ in failed] == ["b.wav"] and "cannot be read" in failed[0][1]
    collect(open_source([str(tmp_path)], how))
    assert len(failed) == 1


def test_a_long_file_gives_the_clips_that_score_takes(tmp_path):
    write_wav(tmp_path / "long.wav", hum(1, seconds=31))
    got = collect(open_source([str(tmp_path)], listening(once=True)))
    want = list(audio.windows(tmp_path / "long.wav", length_s=2.0))
    assert [w.name for w in got] == [c.name for c in want]
    assert all(np.array_equal(w.samples[0], c.near) for w, c in zip(got, want, strict=True))
    assert [w.gap for w in got] == [True] + [False] * (len(want) - 1)


@pytest.mark.parametrize("name, error", [("nowhere/at/all", "no such source"), ("http//typo", "no such source")])
def test_sources_that_do_not_exist_are_refused(name, error):
    with pytest.raises(FileNotFoundError, match=error):
        open_source([name], listening())


def test_the_microphone_counts_what_it_lost(monkeypatch):
    class Input:
        """Calls back three times with a sound card's samples; the second time it had lost some."""

        def __init__(self, callback, blocksize, channels, **_):
            self.callback, self.shape = callback, (blocksize, channels)

        def __enter__(self):
            for i in range(3):
                data = np.full(self.shape, 0.1 * (i + 1), np.float32)
                self.callback(data, self.shape[0], None, SimpleNamespace(input_overflow=i == 1))

        def __exit__(self, *_):
            pass

    fake = SimpleNamespace(InputStream=Input, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    stop, got = threading.Event(), []
    for chunk in streams.Microphone(None, RATE).chunks(stop):
        if chunk is None:
            stop.set()
        else:
            got.append(chunk)
    assert [gap for _, gap in got] == [False, True, False] and got[2][0].shape == (2, RATE // 4)


def test_chunks_that_a_slow_reader_drops_leave_a_gap(monkeypatch):
    class Input:
        """Calls back twice as often as chunks can wait, before the first is read."""

        def __init__(self, callback, blocksize, channels, **_):
            self.callback, self.shape = callback, (blocksize, channels)

        def __enter__(self):
            for i in range(2 * streams.AHEAD):
                data = np.full(self.shape, i, np.float32)
                self.callback(data, self.shape[0], None, SimpleNamespace(input_overflow=False))

        def __exit__(self, *_):
            pass

    fake = SimpleNamespace(InputStream=Input, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    stop, got = threading.Event(), []
    for chunk in streams.Microphone(None, RATE).chunks(stop):
        if chunk is None:
            stop.set()
        else:
            got.append((chunk[0][0, 0], chunk[1]))
    assert got[0] == (streams.AHEAD, True) and len(got) == streams.AHEAD
    assert not any(gap for _, gap in got[1:])


def test_without_sounddevice_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ImportError, match=r"nearfar\[mic\]"):
        open_source(["mic"], listening())


class Wave:
    """A feed of one channel from an array."""

    rate, problem = RATE, ""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples

    def chunks(self, stop):
        for i in range(0, len(self.samples), RATE // 4):
            yield self.samples[None, i : i + RATE // 4], False


@pytest.mark.parametrize("late", [-1.7, -0.01, 0.0, 0.3, 2.0])
def test_two_streams_are_aligned_by_what_both_hear(late):
    rng = np.random.default_rng(1)
    room = rng.normal(0, 1, 40 * RATE).astype(np.float32)
    shift = round(late * RATE)
    near = room[3 * RATE :][: 30 * RATE] + rng.normal(0, 0.7, 30 * RATE).astype(np.float32)
    far = room[3 * RATE - shift :][: 30 * RATE] + rng.normal(0, 0.7, 30 * RATE).astype(np.float32)
    both = aligned.AlignedPair(Wave(near), Wave(far))
    out = np.concatenate([c[0] for c in both.chunks(threading.Event()) if c is not None], axis=1)
    found, clear = aligned.lag(out[0, : 10 * RATE], out[1, : 10 * RATE], RATE)
    assert abs(found) <= 1 / RATE and clear > aligned.CLEAR and out.shape[1] > 25 * RATE


def test_drift_between_two_streams_is_reported_and_cut_never_glued(monkeypatch):
    monkeypatch.setattr(aligned, "EVERY_S", 20.0)
    rng = np.random.default_rng(2)
    room = rng.normal(0, 1, 200 * RATE).astype(np.float32)
    at = np.arange(180 * RATE) * (1 - 200e-6)  # far's clock is 200 ppm fast: it hears everything later and later
    far = np.interp(at, np.arange(len(room)), room).astype(np.float32)
    both = aligned.AlignedPair(Wave(room[: len(far)]), Wave(far))
    chunks = [c for c in both.chunks(threading.Event()) if c is not None]
    drift = re.search(r"differ by ([+-]\d+) parts in a million", both.problem)
    assert drift and float(drift[1]) == pytest.approx(200, rel=0.2)
    gaps = sum(gap for _, gap in chunks)
    assert 1 <= gaps <= 4
    tail = np.concatenate([c[0] for c in chunks], axis=1)[:, -5 * RATE :]
    assert abs(aligned.lag(tail[0], tail[1], RATE)[0]) < 0.015


class Live:
    """A stream of `room` in small pieces, there from `begins` on, read in a time of its own: a wait makes it later."""

    rate, problem = RATE, ""

    def __init__(self, room: np.ndarray, time_s: list[float], begins: float = 0.0) -> None:
        self.room, self.time_s, self.begins = room, time_s, begins

    def chunks(self, stop):
        at, piece = self.begins, 0.1
        while (at + piece) * RATE < len(self.room):
            if self.time_s[0] < self.begins:
                self.time_s[0] += streams.POLL_S
                yield None
                continue
            self.time_s[0] = max(self.time_s[0], at + piece)  # it may have waited for us
            yield self.room[None, round(at * RATE) : round((at + piece) * RATE)], at == self.begins > 0
            at += piece


@pytest.mark.parametrize("first", [0, 1])
def test_a_stream_is_not_late_because_the_other_was_away(first):
    room, time_s = np.random.default_rng(4).normal(0, 1, 120 * RATE).astype(np.float32), [0.0]
    streams = [Live(room, time_s), Live(room, time_s, begins=50.0)]
    both = aligned.AlignedPair(*streams[:: 1 - 2 * first])
    out = [c[0] for c in both.chunks(threading.Event()) if c is not None]
    tail = np.concatenate(out, axis=1)[:, -10 * RATE :]
    assert np.array_equal(*tail) and not both.problem


def test_streams_without_anything_in_common_say_so():
    rng = np.random.default_rng(3)
    both = aligned.AlignedPair(*(Wave(rng.normal(0, 1, 15 * RATE).astype(np.float32)) for _ in range(2)))
    chunks = [c for c in both.chunks(threading.Event()) if c is not None]
    assert chunks and "no sound in common" in both.problem


def test_a_watched_folder_passes_over_what_a_search_passes_over_and_says_which_links_it_does_not_follow(tmp_path):
    for name in ("in/a.wav", "in/.versions/b.wav", "in/__MACOSX/c.wav", "elsewhere/d.wav"):
        write_wav(tmp_path / name, hum(1))
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    source = open_source([str(tmp_path / "in")], listening(once=True))
    assert [w.name for w in collect(source)] == ["a.wav"] and "more is skipped: links to folders" in source.problem
