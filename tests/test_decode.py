"""Decoding of recordings from outside: the same clips as from disk, or an error, within limits of memory and time."""

import io
import os
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from conftest import RATE, hum, write_wav
from nearfar import audio
from nearfar.errors import AudioError
from nearfar.live.server.decode import HEADER, Bounds, Decoder, _Worker, display_name, wav_header

BOUNDS = Bounds(seconds=60, wall_s=60, memory_bytes=256 << 20)


@pytest.fixture(scope="module")
def decoder():
    made = Decoder(BOUNDS, workers=1)
    yield made
    made.close()


def clips(decoder, path, name="a.wav", near=0, far=1, window_s=10.0):
    return list(decoder.clips(path, name, near=near, far=far, window_s=window_s))


@pytest.mark.parametrize("kind", [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("seconds", [3, 33])
def test_the_clips_are_those_of_the_file_bit_for_bit(decoder, tmp_path, kind, seconds):
    clip = hum(1, seconds=seconds)
    path = tmp_path / "x"
    soundfile.write(path, np.stack([clip.near, clip.far], axis=1), RATE, format=kind[0], subtype=kind[1])
    want, got = list(audio.windows(path)), clips(decoder, path, "../a/b.wav")
    assert len(got) == len(want) == (1 if seconds == 3 else 3)
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a.near, b.near) and np.array_equal(a.far, b.far) and a.rate == b.rate
        assert a.name == b.name.replace("x", "b.wav", 1)


def test_channels_and_mono(decoder, tmp_path):
    clip = hum(1)
    path = write_wav(tmp_path / "a.wav", clip)
    swapped = clips(decoder, path, near=1, far=0)[0]
    assert np.array_equal(swapped.near, clips(decoder, path)[0].far)
    assert clips(decoder, write_wav(tmp_path / "m.wav", hum(2, far=False)))[0].far is None
    with pytest.raises(AudioError, match=r"^a\.wav: has channels 0 to 1"):
        clips(decoder, path, far=4)


@pytest.mark.parametrize(("kind", "dtype"), [("s16le", "<i2"), ("f32le", "<f4")])
def test_raw_samples_are_what_the_same_samples_in_a_file_are(decoder, tmp_path, kind, dtype):
    clip = hum(3)
    stereo = np.stack([clip.near, clip.far], axis=1)
    raw = (np.round(stereo * 32767) if dtype == "<i2" else stereo).astype(dtype)
    body = raw.tobytes()
    (tmp_path / "raw").write_bytes(wav_header(kind, RATE, 2, len(body)) + body)
    soundfile.write(tmp_path / "a.wav", raw, RATE, subtype="PCM_16" if dtype == "<i2" else "FLOAT")
    got, want = clips(decoder, tmp_path / "raw")[0], audio.read(tmp_path / "a.wav")
    assert np.array_equal(got.near, want.near) and np.array_equal(got.far, want.far)
    assert len(wav_header(kind, RATE, 2, 8)) == HEADER


@pytest.mark.parametrize("size", [0, 1, 7])
def test_raw_samples_that_do_not_come_out_even_are_refused(size):
    with pytest.raises(AudioError, match="whole number of samples"):
        wav_header("f32le", RATE, 2, size)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("a.wav", "a.wav"), ("../../etc/passwd", "passwd"), ("C:\\x\\b.wav", "b.wav"), ("", "recording"),
     ("/", "recording"), ("a\x00\n\u202eb.wav", "ab.wav"), ("x" * 500, "x" * 120)],
)  # fmt: skip
def test_names_are_shown_and_never_paths(name, safe):
    assert display_name(name) == safe


def test_a_long_recording_is_refused_before_it_is_decoded(decoder, tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((RATE * 90, 2), np.int16), RATE, format="FLAC")
    with pytest.raises(AudioError, match="longer than 1 min") as caught:
        clips(decoder, path)
    assert caught.value.kind == "too_long"


def test_a_header_that_does_not_know_its_length_is_counted_while_decoding(decoder, tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).integers(-9, 9, (RATE * 90, 1), np.int16), RATE, format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the number of samples in STREAMINFO
    path.write_bytes(bytes(data))
    assert audio.header(path).seconds == float("inf")
    with pytest.raises(AudioError, match="longer than 1 min"):
        clips(decoder, path)


def test_a_small_file_of_many_samples_is_refused_and_one_below_the_limit_is_read_window_by_window(tmp_path):
    few = Decoder(Bounds(samples=96_000 * 2 * 60, memory_bytes=64 << 20), workers=1)
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((96_000 * 61, 2), np.int16), 96_000)
    with pytest.raises(AudioError, match=r"^a\.flac: holds more than 11\.52 million samples") as caught:
        clips(few, path, "a.flac")
    assert caught.value.kind == "too_long" and path.stat().st_size < 100_000
    soundfile.write(path, np.zeros((96_000 * 60, 2), np.int16), 96_000)
    reading = few.clips(path, "a.flac", near=0, far=1, window_s=10.0)
    assert next(reading).seconds == 10 and sum(clip.seconds for clip in reading) == 50
    few.close()


def test_a_recording_that_is_left_half_read_does_not_reach_the_next_one(tmp_path):
    decoder = Decoder(BOUNDS, workers=1)
    long = write_wav(tmp_path / "l.wav", hum(1, seconds=40))
    half = decoder.clips(long, "l.wav", near=0, far=1, window_s=10.0)
    assert next(half).name == "l.wav@0s"
    half.close()
    assert [clip.name for clip in clips(decoder, write_wav(tmp_path / "s.wav", hum(1)), "s.wav")] == ["s.wav"]
    decoder.close()


@pytest.mark.parametrize(("rate", "channels", "said"), [(100, 1, "rate of 100 Hz"), (RATE, 17, "17 channels")])
def test_what_is_no_microphone_is_refused(decoder, tmp_path, rate, channels, said):
    soundfile.write(tmp_path / "a.wav", np.zeros((3000, channels), np.float32), rate)
    with pytest.raises(AudioError, match=said):
        clips(decoder, tmp_path / "a.wav")


def test_too_much_memory_is_an_error_and_the_next_recording_goes_through(tmp_path):
    small = Decoder(Bounds(memory_bytes=8 << 20), workers=1)
    long, short = tmp_path / "l.wav", write_wav(tmp_path / "s.wav", hum(1))
    soundfile.write(long, np.zeros((29 * 192_000, 2), np.int16), 192_000)
    with pytest.raises(AudioError, match=r"^l\.wav: .*(memory|crashed|took more than)"):
        clips(small, long, "l.wav")
    assert len(clips(small, short)) == 1
    small.close()


def test_too_much_time_is_an_error_and_a_new_worker_takes_over(tmp_path):
    path = write_wav(tmp_path / "s.wav", hum(1))
    slow = Decoder(Bounds(wall_s=0.05), workers=1)
    worker = _Worker(slow.bounds)
    slow._idle.get()
    slow._idle.put(worker)
    os.kill(worker.process.pid, signal.SIGSTOP)  # it decodes for ever
    with pytest.raises(AudioError, match="took more than"):
        clips(slow, path)
    assert slow.replaced == 1 and not worker.alive
    slow.bounds = BOUNDS
    assert len(clips(slow, path)) == 1
    slow.close()


def test_a_worker_that_dies_is_replaced(decoder, tmp_path):
    path = write_wav(tmp_path / "a.wav", hum(1))
    first = clips(decoder, path)[0]
    worker = decoder._idle.get()
    worker.process.kill()
    worker.process.join()
    decoder._idle.put(worker)
    assert np.array_equal(clips(decoder, path)[0].near, first.near)


def _file(kind: str) -> bytes:
    out = io.BytesIO()
    clip = hum(5, seconds=0.5)
    soundfile.write(out, np.stack([clip.near, clip.far], axis=1), RATE, format=kind, subtype="PCM_16")
    return out.getvalue()


FILES = {"wav": _file("WAV"), "flac": _file("FLAC")}
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]
change = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, 200), st.integers(0, 255)),
    st.tuples(st.just("word"), st.integers(0, 60), st.sampled_from(NUMBERS)),
    st.tuples(st.just("cut"), st.integers(0, 4000), st.just(0)),
    st.tuples(st.just("double"), st.integers(0, 100), st.integers(1, 64)),
    st.tuples(st.just("anywhere"), st.integers(0, 15_000), st.integers(0, 255)),
)


def mutated(data: bytes, changes) -> bytes:
    out = bytearray(data)
    for kind, at, value in changes:
        if kind == "word":
            out[at : at + 4] = struct.pack("<I" if at % 2 else ">I", value)
        elif kind == "cut":
            del out[at:]
        elif kind == "double":
            out[at:at] = out[at : at + value]
        elif at < len(out):
            out[at] = value
    return bytes(out)


@pytest.mark.slow
@seed(20261124)
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(FILES)), st.lists(change, min_size=1, max_size=6))
def test_damaged_headers_give_samples_or_one_clean_error_in_bounded_memory_and_time(
    decoder, tmp_path_factory, kind, changes
):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    path.write_bytes(mutated(FILES[kind], changes))
    start = time.monotonic()
    try:
        got = clips(decoder, path, f"sent.{kind}")
    except AudioError as error:
        assert str(error).startswith(f"sent.{kind}: ") and "fuzz" not in str(error)
    else:
        assert got and all(np.isfinite(c.near).all() for c in got) and sum(c.seconds for c in got) <= BOUNDS.seconds
    assert time.monotonic() - start < 2 * BOUNDS.wall_s  # a bound that is promised, not a speed
    assert decoder.replaced <= 2  # libsndfile survives them; were it not so, a worker dies and not the server
    peak = next((int(line.split()[1]) for line in _status(decoder) if line.startswith("VmHWM")), 0)
    assert peak * 1024 < BOUNDS.memory_bytes + (200 << 20)


def _status(decoder):
    worker = decoder._idle.get()
    decoder._idle.put(worker)
    path = Path(f"/proc/{worker.process.pid}/status") if worker else Path("/none")
    return path.read_text().splitlines() if path.is_file() else []
