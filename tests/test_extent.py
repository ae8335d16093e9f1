"""Whether a file holds the sound that its header promises, for every container that is read."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import RATE
from nearfar import audio
from nearfar.audio.clip import UNKNOWN_S, missing_s
from nearfar.errors import AudioError

SECONDS = 5
BY_BYTES = [  # container, subtype, byte order
    ("WAV", "PCM_16", "LITTLE"),
    ("WAV", "PCM_24", "BIG"),  # RIFX
    ("WAV", "ULAW", None),
    ("WAV", "MS_ADPCM", None),
    ("WAVEX", "FLOAT", None),
    ("RF64", "PCM_16", None),
    ("W64", "PCM_16", None),
    ("AIFF", "PCM_16", None),
    ("AIFF", "FLOAT", None),
    ("AU", "PCM_16", "BIG"),
    ("AU", "PCM_16", "LITTLE"),
    ("VOC", "PCM_16", None),
    ("NIST", "PCM_16", None),
    ("FLAC", "PCM_16", None),
    ("MP3", "MPEG_LAYER_III", None),
]
BY_PAGES = [("OGG", "VORBIS", None), ("OGG", "OPUS", None)]


def written(path: Path, kind: tuple[str, str, str | None], seconds: float = SECONDS) -> bytes:
    noise = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * RATE), 2))
    soundfile.write(path, noise, RATE, format=kind[0], subtype=kind[1], endian=kind[2])
    return path.read_bytes()


@pytest.mark.parametrize("kind", BY_BYTES + BY_PAGES, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_short_is_heard_and_called_incomplete(tmp_path, kind, share):
    path = tmp_path / "a"
    whole = written(path, kind)
    assert abs(audio.read(path).missing_s) < 0.02
    path.write_bytes(whole[: int(share * len(whole))])
    clip = audio.read(path)
    if kind in BY_PAGES:
        assert clip.missing_s == UNKNOWN_S
    else:
        assert clip.seconds + clip.missing_s == pytest.approx(SECONDS, rel=0.04)
    (found,) = [problem for problem in audio.problems(clip) if problem.kind == "incomplete"]
    assert not found.fatal and "cut off" in found.text


@pytest.mark.parametrize("kind", BY_BYTES + BY_PAGES, ids=str)
def test_a_long_file_that_is_cut_short_says_so_in_its_first_window(tmp_path, kind):
    path = tmp_path / "a"
    whole = written(path, kind, 12)
    assert {abs(clip.missing_s) < 0.02 for clip in audio.windows(path, length_s=2, whole_s=5)} == {True}
    path.write_bytes(whole[: int(0.6 * len(whole))])
    first, *others = audio.windows(path, length_s=2, whole_s=5)
    assert first.missing_s > 3 and not any(clip.missing_s for clip in others)
    assert 5 <= first.seconds + sum(clip.seconds for clip in others) <= 8


def test_a_header_that_says_less_than_the_file_holds_is_told(tmp_path):
    cases = [
        ("WAV", None, b"data", "<I", 4),
        ("WAV", "BIG", b"data", ">I", 4),
        ("RF64", None, b"ds64", "<Q", 16),
        ("AIFF", None, b"SSND", ">I", 4),
        ("CAF", None, b"data", ">Q", 4),
        ("AU", "BIG", b".snd", ">I", 8),
    ]
    for container, order, name, form, offset in cases:
        path = tmp_path / "a"
        data = bytearray(written(path, (container, "PCM_16", order)))
        at = data.find(name) + offset
        struct.pack_into(form, data, at, struct.unpack_from(form, data, at)[0] // 5 // 8 * 8)
        path.write_bytes(data)
        clip = audio.read(path)
        assert clip.seconds == pytest.approx(1, rel=0.02) and clip.missing_s == pytest.approx(-4, rel=0.02), container
        (found,) = audio.problems(clip)
        assert found.kind == "incomplete" and "says 4 s less than the file holds" in found.text


def test_chunks_and_tags_behind_the_sound_are_no_sound(tmp_path):
    path = tmp_path / "a"
    wav = written(path, ("WAV", "PCM_16", None))
    path.write_bytes(wav + b"LIST" + struct.pack("<I", 50_001) + b"INFO" + bytes(49_998) + b"id3 " + bytes(4))
    assert audio.read(path).missing_s == 0
    mp3 = written(path, ("MP3", "MPEG_LAYER_III", None))
    path.write_bytes(mp3 + b"TAG" + bytes(125))
    assert audio.read(path).missing_s == 0
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 8, 0]) + bytes(1024)
    path.write_bytes(tag + mp3)
    assert missing_s(path, 5.0) == 0
    path.write_bytes(tag + mp3[: len(mp3) // 2])
    assert missing_s(path, 5.0) == UNKNOWN_S


def test_sizes_that_a_pipe_leaves_open_promise_nothing(tmp_path):
    path = tmp_path / "a"
    for container, name, offset in (("WAV", b"data", 4), ("AU", b".snd", 8)):
        data = bytearray(written(path, (container, "PCM_16", "BIG" if container == "AU" else None)))
        at = data.find(name) + offset
        data[at : at + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(data)
        assert audio.read(path).missing_s == 0


def test_a_header_that_is_cut_off_before_its_own_end_promises_nothing(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(written(path, ("NIST", "PCM_16", None), 0.3)[:12])
    assert missing_s(path, 1.0) == 0


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_bytes_give_a_number_or_an_audio_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a"
    kind = data.draw(st.sampled_from(BY_BYTES + BY_PAGES))
    whole = bytearray(written(path, kind, 0.3))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, min(200, len(whole) - 1)), st.integers(0, 255)))):
        whole[at] = byte
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert isinstance(missing_s(path, 1.0), float)
    try:
        clip = audio.read(path)
    except AudioError as error:
        assert error.kind in ("unreadable", "empty", "too_short", "too_long", "nan", "channel", "rate", "level")
    else:
        assert np.isfinite(clip.near).all()


@pytest.mark.parametrize("rate", [10, 100, 400_000])
def test_a_rate_that_no_microphone_has_is_refused_at_once_on_every_path(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((50_000, 2)), rate)
    said = rf"a rate of {rate:,} Hz is out of range; 1,000 to 384,000 Hz are allowed"
    for hear in (
        lambda: audio.read(path),
        lambda: next(audio.windows(path)),
        lambda: audio.header(path),
        lambda: audio.as_clip((np.zeros(rate), rate)),
    ):
        with pytest.raises(AudioError, match=said) as caught:
            hear()
        assert caught.value.kind == "rate"


@pytest.mark.parametrize("rate", [16_000.9, float("nan"), "16000", 0, -16_000])
def test_a_rate_that_is_no_whole_number_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        audio.as_clip((np.zeros(16_000, np.float32), rate))
    with pytest.raises(ValueError, match="rate"):
        audio.Clip(np.zeros(16_000, np.float32), rate=rate)


@pytest.mark.parametrize("form", ["AVR", "IRCAM", "MAT5", "PAF", "SVX"])
def test_formats_that_may_be_cut_unseen_are_refused_whatever_their_name(tmp_path, form):
    soundfile.write(tmp_path / "x.wav", np.zeros(RATE), RATE, format=form, subtype="PCM_16")
    with pytest.raises(AudioError, match=f"x.wav: holds {form}, of which nobody can tell whether it is whole"):
        audio.read(tmp_path / "x.wav")
