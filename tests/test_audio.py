"""Reading: every format alike, damaged files named, long files in bounded memory, dead microphones found."""

from __future__ import annotations

import errno
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import hum, shared, write_wav
from nearfar import audio
from nearfar.audio import Clip, problems
from nearfar.audio.checks import balance_db
from nearfar.errors import AudioError

RATE = 16_000


def noise(seconds: float = 1.0, channels: int = 2, rms: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, rms, (int(seconds * RATE), channels)).clip(-0.98, 0.98)


def kinds(near: np.ndarray, far: np.ndarray | None = None, rate: int = RATE) -> dict[str, bool]:
    return {p.kind: p.fatal for p in audio.problems(Clip(near, far, rate))}


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        ("wav", "PCM_U8", 2**-7),
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "PCM_32", 1e-7),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 2**-15),
        ("flac", "PCM_24", 2**-23),
        ("aiff", "PCM_16", 2**-15),
    ],
)
def test_every_lossless_format_reads_alike(tmp_path: Path, suffix: str, subtype: str, error: float) -> None:
    x = noise()
    soundfile.write(tmp_path / f"a.{suffix}", x, RATE, subtype=subtype)
    clip = audio.read(tmp_path / f"a.{suffix}")
    assert clip.far is not None and clip.near.dtype == np.float32 and clip.rate == RATE
    assert np.abs(clip.near - x[:, 0]).max() <= error and np.abs(clip.far - x[:, 1]).max() <= error


def test_lossy_formats_and_rf64_read(tmp_path: Path) -> None:
    t = np.arange(RATE) / RATE
    x = np.stack([0.5 * np.sin(2 * np.pi * 440 * t), 0.2 * np.sin(2 * np.pi * 1000 * t)], axis=1)
    soundfile.write(tmp_path / "a.ogg", x, RATE)
    soundfile.write(tmp_path / "b.wav", x, RATE, format="RF64")
    soundfile.write(tmp_path / "c.mp3", x, RATE)
    soundfile.write(tmp_path / "d.opus", x, RATE, format="OGG", subtype="OPUS")
    for name in ("a.ogg", "c.mp3", "d.opus"):
        assert np.abs(np.fft.rfft(audio.read(tmp_path / name).near)).argmax() * RATE / len(x) == pytest.approx(
            440, abs=2
        )
    for name, error in (("a.ogg", 0.05), ("b.wav", 1e-4)):
        assert np.abs(audio.read(tmp_path / name).near - x[:, 0]).max() < error


def test_channels_are_picked_by_number(tmp_path: Path) -> None:
    x = noise(channels=8)
    soundfile.write(tmp_path / "array.wav", x, RATE, subtype="FLOAT")
    clip = audio.read(tmp_path / "array.wav", near=5, far=2)
    assert clip.far is not None
    assert np.array_equal(clip.near, x[:, 5].astype(np.float32)) and np.array_equal(
        clip.far, x[:, 2].astype(np.float32)
    )
    assert audio.read(tmp_path / "array.wav", near=3, far=None).far is None
    with pytest.raises(AudioError, match=r"array.wav: has channels 0 to 7, so --far 8 does not exist"):
        audio.read(tmp_path / "array.wav", far=8)


def test_a_mono_file_has_no_far(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", noise(channels=1), RATE)
    assert audio.read(tmp_path / "mono.wav").far is None
    with pytest.raises(AudioError, match="has one channel, 0, so --near 1"):
        audio.read(tmp_path / "mono.wav", near=1)


def test_unusable_files_are_named_with_a_likely_cause(tmp_path: Path) -> None:
    def written(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    soundfile.write(tmp_path / "whole.flac", noise(2), RATE)
    soundfile.write(tmp_path / "whole.wav", noise(2), RATE)
    flac, wav = (tmp_path / "whole.flac").read_bytes(), bytearray((tmp_path / "whole.wav").read_bytes())
    data = wav.find(b"data")
    wav[data + 4 : data + 8] = struct.pack("<I", 0)
    bad = noise()
    bad[7, 1] = np.inf
    soundfile.write(tmp_path / "nan.wav", bad, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", noise(0), RATE)
    soundfile.write(tmp_path / "blink.wav", noise(0.01), RATE)
    cases = [
        (written("zero.wav", b""), "empty", "0 bytes"),
        (written("text.wav", b"not audio" * 100), "unreadable", "is it a WAV"),
        (written("head.wav", bytes(wav[:30])), "unreadable", "complete"),
        (written("cut.flac", flac[:100]), "unreadable", "complete"),
        (written("crashed.wav", bytes(wav)), "empty", "did the recorder stop"),
        (tmp_path / "none.wav", "empty", "holds no samples"),
        (tmp_path / "nan.wav", "nan", "NaN or infinite"),
        (tmp_path / "blink.wav", "too_short", "at least 0.1 s"),
    ]
    for path, kind, words in cases:
        with pytest.raises(AudioError, match=words) as caught:
            audio.read(path)
        assert caught.value.kind == kind and str(caught.value).startswith(path.name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        audio.read(tmp_path / "nowhere.wav")


def test_a_cut_off_wav_is_read_as_far_as_it_goes_and_says_what_is_missing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(4), RATE, subtype="PCM_16")
    whole = (tmp_path / "a.wav").read_bytes()
    assert audio.read(tmp_path / "a.wav").missing_s == 0
    (tmp_path / "a.wav").write_bytes(whole[: 44 + RATE * 4 * 3])
    clip = audio.read(tmp_path / "a.wav")
    assert clip.seconds == pytest.approx(3) and clip.missing_s == pytest.approx(1)
    assert [p.text.partition(":")[0] for p in audio.problems(clip)] == ["the file lacks its last 1 s"]
    assert audio.read(tmp_path / "a.wav", frames=RATE).missing_s == 0  # a part of it lacks nothing


def test_of_the_windows_of_a_cut_off_file_the_first_says_so(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(60), RATE, subtype="PCM_16")
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[: 44 + RATE * 4 * 45])
    found = [[p.kind for p in audio.problems(clip)] for clip in audio.windows(tmp_path / "a.wav")]
    assert found == [[audio.INCOMPLETE], [], [], [], []]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_from_a_pipe_has_no_length_and_is_whole_all_the_same(tmp_path: Path, size: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2), RATE)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    assert audio.read(tmp_path / "a.wav").seconds == 2 and audio.read(tmp_path / "a.wav").missing_s == 0


@pytest.mark.parametrize("seconds", [2, 20, 40])
@pytest.mark.parametrize("total", [0, (1 << 36) - 1])
def test_a_flac_whose_header_lies_about_its_length_is_read_to_its_end(tmp_path: Path, seconds: int, total: int) -> None:
    x = noise(seconds)
    soundfile.write(tmp_path / "a.flac", x, RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] = (data[21] & 0xF0) | (total >> 32)
    data[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    (tmp_path / "a.flac").write_bytes(data)
    clips = list(audio.windows(tmp_path / "a.flac"))
    assert np.allclose(np.concatenate([c.near for c in clips]), x[:, 0], atol=2**-15)
    assert [c.window is None for c in clips] == ([True] if seconds <= 30 else [False] * 4)
    assert audio.header(tmp_path / "a.flac").seconds == np.inf


def test_no_samples_at_all_are_a_value_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1), RATE)
    with pytest.raises(ValueError, match="frames is 0"):
        audio.read(tmp_path / "a.wav", frames=0)


def test_long_files_come_as_windows_that_together_are_the_file(tmp_path: Path) -> None:
    x = noise(47)
    soundfile.write(tmp_path / "long.wav", x, RATE, subtype="FLOAT")
    clips = list(audio.windows(tmp_path / "long.wav"))
    assert [c.name for c in clips] == [f"long.wav@{s}s" for s in (0, 10, 20, 30, 40)]
    assert np.array_equal(np.concatenate([c.near for c in clips]), x[:, 0].astype(np.float32))
    later = list(audio.windows(tmp_path / "long.wav", first=3))
    assert [c.name for c in later] == [c.name for c in clips[3:]] and np.array_equal(later[1].near, clips[4].near)
    soundfile.write(tmp_path / "long.wav", x[: 44 * RATE], RATE)
    assert len(list(audio.windows(tmp_path / "long.wav"))) == audio.count_windows(tmp_path / "long.wav") == 4
    soundfile.write(tmp_path / "short.wav", x[: 30 * RATE], RATE)
    assert [c.name for c in audio.windows(tmp_path / "short.wav")] == ["short.wav"]
    assert audio.count_windows(tmp_path / "short.wav") == 1


@pytest.mark.parametrize("seconds", [30, 30.1, 34.9, 35, 45.1, 60])
def test_the_header_knows_how_many_windows_a_file_has(tmp_path: Path, seconds: float) -> None:
    soundfile.write(tmp_path / "a.wav", noise(seconds), RATE)
    for length_s in (10.0, 3.3):
        count = len(list(audio.windows(tmp_path / "a.wav", length_s=length_s)))
        assert audio.count_windows(tmp_path / "a.wav", length_s=length_s) == count


def test_the_memory_of_windows_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        path = tmp_path / f"{seconds}.wav"
        block = noise(10).astype(np.float32)
        with soundfile.SoundFile(path, "w", 48_000, 2, "PCM_16") as file:
            for _ in range(3 * seconds // 10):
                file.write(block)
        tracemalloc.start()
        for clip in audio.windows(path):
            audio.problems(clip)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(40)
    short, long = peak(40), peak(160)
    assert long < 1.1 * short and long < 60e6


@pytest.mark.parametrize(("rate", "to"), [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (22_050, 48_000)])
def test_resampling_keeps_a_tone_and_the_length(rate: int, to: int) -> None:
    tone = [0.5 * np.sin(2 * np.pi * 1000 * np.arange(r) / r).astype(np.float32) for r in (rate, to)]
    clip = Clip(tone[0], tone[0], rate).at(to)
    assert clip.rate == to and abs(len(clip.near) - to) <= 1 and clip.far is not None
    middle = slice(to // 10, -to // 10)
    assert np.abs(clip.near[middle] - tone[1][middle]).max() < 1e-3


def test_resampling_lets_nothing_fold_back() -> None:
    high = np.sin(2 * np.pi * 11_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(audio.resample(high, 48_000, 16_000)[1600:-1600]).max() < 1e-4


def test_clips_come_from_paths_clips_and_arrays(tmp_path: Path) -> None:
    x = noise()
    soundfile.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), (x[:, 0], x[:, 1], RATE), (x.T, RATE), ((*x.T,), RATE)):
        clip = audio.as_clip(source)
        assert clip.far is not None and np.allclose(clip.far, x[:, 1]) and audio.as_clip(clip) is clip
    assert audio.as_clip((x[:, 0], RATE)).far is None
    with pytest.raises(ValueError, match=r"a clip is a path"):
        audio.as_clip(3)
    with pytest.raises(ValueError, match="they must agree"):
        Clip(x[:, 0], x[:-1, 1])
    with pytest.raises(ValueError, match=r"near channel of 'clip' holds whole numbers \(int16\)"):
        audio.as_clip(((1000 * x[:, 0]).astype(np.int16), RATE))
    with pytest.raises(ValueError, match=r"near channel of 'clip' holds nan"):
        Clip(np.where(np.arange(RATE) == 5, np.nan, x[:, 0]))


def test_a_healthy_recording_raises_nothing_at_any_level() -> None:
    x = noise(3)
    for gain in (0.01, 1, 4):
        assert not kinds(gain * x[:, 0], gain * 0.9 * x[:, 1])


def test_what_leaves_nothing_to_hear_is_fatal() -> None:
    n, rng = 3 * RATE, np.random.default_rng(1)
    t = np.arange(n) / RATE
    x = noise(3)[:, 0]
    hum = sum(a * np.sin(2 * np.pi * 50.02 * k * t) for k, a in ((1, 0.02), (2, 0.004), (3, 0.006), (9, 0.001)))
    dead = {
        "digital zeros": (np.zeros(n), "silent"),
        "a constant": (np.full(n, 0.4), "silent"),
        "a constant and converter noise": (0.4 + rng.normal(0, 1e-5, n), "silent"),
        "the last bit of 16": (rng.integers(-1, 2, n) / 2**15, "silent"),
        "the last bits of 8": (rng.integers(-2, 3, n) / 2**7, "silent"),
        "mains hum in 16 bits": (np.round(hum * 2**15) / 2**15, "silent"),
        "60 Hz hum over converter noise": (0.1 * np.sin(2 * np.pi * 60 * t) + rng.normal(0, 2e-5, n), "silent"),
        "zeros for two thirds": (np.where(t < 1, x, 0), "stuck"),
        "many short dropouts": (np.where(t % 0.1 < 0.06, 0, x), "stuck"),
        "a value in twenty is new": (np.repeat(x[: n // 20], 20), "stuck"),
        "overdriven": (np.clip(30 * x, -1, 1), "saturated"),
        "overdriven before a gain of a tenth": (np.clip(3 * x, -0.1, 0.1), "saturated"),
        "a square wave": (np.sign(np.sin(2 * np.pi * 100 * t + 0.1)), "saturated"),
    }
    for what, (wave, kind) in dead.items():
        assert kinds(wave).get(kind) is True, what
        assert kinds(x, wave).get(kind) is True, f"{what} at far"


def test_sound_beside_hum_offset_or_pauses_is_sound() -> None:
    n = 3 * RATE
    t = np.arange(n) / RATE
    x = noise(3)[:, 0]
    hum = 0.1 * np.sin(2 * np.pi * 50 * t)
    strokes = np.where(t % 1 < 0.05, x, 1e-3 * x)  # a valve: quiet but alive between its strokes
    alive = {"hum": hum + 1e-3 * x, "a tone": 0.1 * np.sin(2 * np.pi * 440 * t), "strokes": strokes}
    alive["one knock over hum"] = hum + np.where((t > 0.2) & (t < 0.25), x, 0)
    for what, wave in alive.items():
        assert not kinds(wave), what


def test_what_can_still_be_heard_is_a_warning() -> None:
    t = np.arange(3 * RATE) / RATE
    x = noise(3)[:, 0]
    gust = 0.5 * np.exp(-(((t - 1) / 0.5) ** 2))
    assert kinds(np.clip(4 * x, -1, 1)) == {"clipped": False}
    assert kinds(np.where((t > 1) & (t < 1.3), 0, x)) == {"gap": False}
    assert kinds(x + 0.3) == {"offset": False}
    assert kinds(np.round(x * 30) / 30) == {"coarse": False}
    assert not kinds(0.1 * x + gust)  # wind pushes the mean away, yet it is no constant offset
    start = audio.problems(Clip(np.where(t < 0.2, 0, x), None, RATE))
    assert "first 0.2 s" in start[0].text


def test_the_pair_is_compared_where_machines_are_heard() -> None:
    n = 3 * RATE
    t = np.arange(n) / RATE
    x, y = noise(3).T
    wind = 0.5 * np.sin(2 * np.pi * 7 * t)
    assert kinds(x, 0.3 * x + 1e-3 * y) == {"one_cable": False}
    assert kinds(x, -x) == {"one_cable": False}
    assert not kinds(0.1 * x + wind, 0.1 * y + wind)  # the same wind on both is not the same microphone
    assert kinds(0.2 * x, y) == {"swapped": False}
    assert not kinds(0.2 * x, 0.2 * y + wind)  # windy at far: not swapped
    assert balance_db((2 * x).astype(np.float32), x.astype(np.float32), RATE) == pytest.approx(6.02, abs=0.01)
    assert kinds(np.zeros(n), y) == {"silent": True}  # and not "swapped" beside it


def test_short_clips_of_any_rate_are_judged() -> None:
    rng = np.random.default_rng(2)
    for rate in (200, 8_000, 192_000):
        for seconds in (0.1, 0.99, 1.5):
            x = rng.normal(0, 0.1, (2, int(np.ceil(seconds * rate))))
            assert set(kinds(x[0], x[1], rate)) <= {"coarse"}


def test_real_recordings_raise_no_fatal_problem_and_few_warnings() -> None:
    found: dict[str, list[str]] = {}
    bldc = sorted(shared("data", "dcase2026-form").glob("*/*/*.wav"))
    mimii = sorted(shared("data", "mimii-8ch").glob("*.flac"))
    for path in bldc[::3] + mimii + sorted(shared("data", "bldc-48k").glob("*.wav")):
        clip = audio.read(path, far=4 if path in mimii else 1)
        problems = audio.problems(clip)
        assert not any(p.fatal for p in problems), path
        found |= {path.name: [p.kind for p in problems]} if problems else {}
    assert not any("one_cable" in kinds for kinds in found.values())
    assert not any(path.name in found for path in mimii)
    assert len(found) < 0.25 * (len(bldc[::3]) + len(mimii) + 9)


def test_a_file_that_this_user_may_not_read_is_not_called_damaged(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.wav").write_text("what a library may not open")
    refuse_to_open(monkeypatch, PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(AudioError, match=r"a\.wav: may not be opened by this user"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_file_that_its_share_does_not_give_is_neither_damaged_nor_cut(tmp_path: Path, monkeypatch, kept: float):
    """libsndfile takes what cannot be read for the end of the file."""
    path = write_wav(tmp_path / "a.wav", hum(3))
    whole = path.read_bytes()
    path.write_bytes(whole[: round(kept * len(whole))])
    refuse_to_open(monkeypatch, OSError(errno.ESTALE, "Stale file handle"))
    with pytest.raises(AudioError, match=r"a\.wav: cannot be read \(Stale file handle\)") as raised:
        audio.read(path)
    assert raised.value.code == "disk"
    with pytest.raises(AudioError, match="Stale file handle"):
        list(audio.windows(path, length_s=0.5, whole_s=0.5))


def refuse_to_open(monkeypatch, error: OSError) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refused)


@pytest.mark.parametrize("level", [0.003, 0.05, 0.2])
@pytest.mark.parametrize(("bits", "wrong", "what"), [
    (16, lambda v: v.astype("<i2").byteswap().astype(int), "bytes in the wrong order"),
    (16, lambda v: np.frombuffer(v.astype("<i2").tobytes()[1:-1], "<i2").astype(int), "bytes in the wrong order"),
    (24, lambda v: ((v & 255) << 16 | v & 65280 | v >> 16 & 255) - ((v & 128) << 17), "bytes in the wrong order"),
    (16, lambda v: v - 32768 * np.where(v < 0, -1, 1), "sign of its samples turned"),
    (24, lambda v: v - 2**23 * np.where(v < 0, -1, 1), "sign of its samples turned"),
])  # fmt: skip
def test_samples_in_another_order_or_sign_are_called_so(level, bits, wrong, what):
    clip = hum(5)
    for sound in (clip.near, np.random.default_rng(0).standard_normal(RATE)):
        half = 2 ** (bits - 1)
        whole = np.round(sound / np.std(sound) * level * half).clip(-half, half - 1).astype(int)
        found = problems(Clip(np.asarray(wrong(whole) / half, np.float32), None, RATE))
        assert [p.kind for p in found] == ["miscoded"] and found[0].fatal and what in found[0].text


@pytest.mark.parametrize("drive", [0.5, 2.0, 10.0, 1000.0])
@pytest.mark.parametrize("sound", ["sine", "noise", "hum"])
@pytest.mark.parametrize("top", [0.9, 1.0])
def test_loud_and_clipped_samples_are_not_called_miscoded(drive, sound, top):
    t = np.arange(RATE) / RATE
    rng = np.random.default_rng(1)
    waves = {"sine": np.sin(2 * np.pi * 97 * t), "noise": rng.standard_normal(RATE), "hum": hum(5).near[:RATE] * 10}
    x = np.clip(drive * waves[sound], -top, top) + 0.01 * (top < 1) * rng.standard_normal(RATE)
    whole = np.round(x * 32767).astype(np.float32) / 32768
    assert "miscoded" not in {p.kind for p in problems(Clip(whole, None, RATE))}
