"""How recordings are made, on pairs whose levels and delay are known, and what a new one has that no normal has."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from conftest import RATE, write_wav
from nearfar import Detector, load
from nearfar.audio import Clip, read
from nearfar.audio.checks import (
    BANDS,
    CLARITY,
    CLEAR,
    DELAY,
    EDGES,
    FLOOR,
    SPECTRUM_S,
    TOP_HZ,
    Problem,
    UsualSetup,
    row_of,
)
from nearfar.live.rules.watchdog import OFF, ON, Watchdog
from nearfar.live.sources.windows import Window

NORMALS = 12


def pair(seed: int, *, delay: int = 40, far_db: float = -8.0, seconds: float = 4.0, rate: int = RATE) -> Clip:
    """A machine at near that far hears `delay` samples later and `far_db` louder, with noise of its own at each."""
    rng = np.random.default_rng(seed)
    n, most = round(seconds * rate), abs(delay)
    machine = rng.normal(size=n + 2 * most)
    own = rng.normal(size=(2, n)) * 10 ** (rng.uniform(-12, -9, size=(2, 1)) / 20)
    near, far = machine[most : most + n] + own[0], machine[most - delay : most - delay + n] + own[1]
    gain = 0.05 * 10 ** (rng.uniform(-2, 2) / 20)
    return Clip((gain * near).astype(np.float32), (gain * 10 ** (far_db / 20) * far).astype(np.float32), rate)


def usual(**options) -> UsualSetup:
    return UsualSetup.of(np.stack([row_of(pair(i, **options)) for i in range(NORMALS)]), [RATE], ["PCM"])


def swapped(clip: Clip) -> Clip:
    assert clip.far is not None
    return replace(clip, near=clip.far, far=clip.near)


def found(setup: UsualSetup, clip: Clip, rate: int = RATE, *, needs_far: bool = True) -> list[Problem]:
    has_far = clip.far is not None
    return setup.problems(row_of(clip), clip.rate, clip.codec, rate, has_far=has_far, needs_far=needs_far)


def kinds(setup: UsualSetup, clip: Clip, rate: int = RATE) -> set[str]:
    return {p.kind for p in found(setup, clip, rate)}


def text(setup: UsualSetup, clip: Clip) -> str:
    (problem,) = found(setup, clip)
    return problem.text


def open_input(clip: Clip, hum: float, noise: float) -> Clip:
    """The clip with a far input that nothing is plugged into: hum of 50 Hz and its harmonics, and hiss."""
    t = np.arange(len(clip.near)) / clip.rate
    mains = sum(np.sin(2 * np.pi * 50 * k * t + k) / k**1.5 for k in (1, 2, 3, 5))
    far = hum * mains + noise * np.random.default_rng(0).normal(size=len(t))
    return replace(clip, far=far.astype(np.float32))


def low_passed(clip: Clip, hz: float) -> Clip:
    """The clip through a steep filter, then stored with 16 bits, as after an upsampling or a codec."""
    taps = signal.firwin(401, hz, fs=clip.rate)
    both = [np.round(32768 * signal.fftconvolve(x, taps, "same")) / 32768 for x in (clip.near, clip.far)]
    return replace(clip, near=both[0].astype(np.float32), far=both[1].astype(np.float32))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_level_of_a_band_is_the_power_in_it(rate):
    x = np.random.default_rng(0).normal(0, 0.1, 60 * rate).astype(np.float32)
    levels = row_of(Clip(x, None, rate))[:BANDS]
    heard = rate / 2 >= TOP_HZ
    width = np.diff(EDGES) / SPECTRUM_S  # white noise of power 0.01 fills rate / 2
    expected = 10 * np.log10(0.01 * width / (rate / 2))
    np.testing.assert_allclose(levels[heard], expected[heard], atol=2.5)  # 32 windows of some bins each
    assert abs(np.mean((levels - expected)[heard])) < 0.3
    assert (levels[~heard] == FLOOR).all() and (row_of(Clip(x, None, rate))[BANDS : 2 * BANDS] == FLOOR).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(-300, 300), st.integers(0, 3))
def test_the_delay_is_that_of_the_common_sound(delay, seed):
    row = row_of(pair(seed, delay=delay))
    assert row[DELAY] == -delay and row[CLARITY] > CLEAR


def test_sounds_without_anything_in_common_have_no_clear_delay():
    for seed in range(20):
        near, far = np.random.default_rng(seed).normal(0, 0.1, (2, 4 * RATE)).astype(np.float32)
        assert row_of(Clip(near, far, RATE))[CLARITY] < CLEAR


def test_exchanged_microphones_are_told_by_level_and_by_order():
    by_level, by_order = usual(delay=0), usual(far_db=0.0)
    assert len(by_level.balance) and not by_level.delay and by_order.delay == -40 and not len(by_order.balance)
    for seed in range(100, 130):
        assert not found(by_level, pair(seed, delay=0))
        assert not found(by_order, pair(seed, far_db=0.0))
        said = text(by_level, swapped(pair(seed, delay=0)))
        assert said == "near is 8 dB quieter than far, and 8 dB louder in the normals: are the microphones swapped?"
        assert text(by_order, swapped(pair(seed, far_db=0.0))) == (
            "far hears the same sound 2.5 ms before near, and in the normals near hears it first: are the microphones "
            "swapped?"
        )


def test_microphones_side_by_side_give_no_remark():
    setup = usual(delay=3, far_db=-0.5)
    assert not setup.delay and not len(setup.balance)
    for seed in range(100, 120):
        clip = pair(seed, delay=3, far_db=-0.5)
        assert not kinds(setup, clip) and not kinds(setup, swapped(clip))


def test_a_few_normals_with_exchanged_microphones_do_not_hide_the_others():
    rows = np.stack([row_of(swapped(pair(i)) if i % 4 == 0 else pair(i)) for i in range(NORMALS)])
    setup = UsualSetup.of(rows, [RATE], [])
    assert [bool(setup.exchanged(row)) for row in rows] == [i % 4 == 0 for i in range(NORMALS)]
    half = np.stack([row_of(swapped(pair(i)) if i % 2 == 0 else pair(i)) for i in range(NORMALS)])
    assert not any(UsualSetup.of(half, [RATE], []).exchanged(row) for row in half)


@pytest.mark.parametrize("hum, noise, kind", [(0.01, 1e-4, "open"), (0.1, 1e-3, "open"), (0.3, 5e-3, "hum")])
def test_an_open_far_input_is_told(hum, noise, kind):
    setup = usual()
    for seed in range(100, 105):
        assert kinds(setup, open_input(pair(seed), hum, noise)) == {kind}
    assert not found(setup, open_input(pair(100), hum, noise), needs_far=False)


def test_a_level_far_from_all_normals_is_told_once():
    setup, clip = usual(), pair(100)
    quiet = replace(clip, near=clip.near / 256, far=clip.far / 256)  # 24 bits at the wrong end of 32
    assert text(setup, quiet).startswith("near is 4") and "below all normals" in text(setup, quiet)
    loud = replace(clip, near=clip.near * 32768, far=clip.far * 32768)
    assert "above all normals" in text(setup, loud)
    for gain in (0.2, 5):  # another gain, by 14 dB
        assert not kinds(setup, replace(clip, near=gain * clip.near, far=gain * clip.far))


@pytest.mark.parametrize("hz", [3000, 4000, 6000])
def test_a_band_that_a_filter_took_away_cannot_be_judged(hz):
    setup = usual()
    (problem,) = found(setup, low_passed(pair(100), hz))
    assert problem.kind == "missing_band" and problem.fatal
    low, high = (float(word) for word in problem.text.split(" kHz")[0].removeprefix("it lacks ").split(" to "))
    assert low == pytest.approx(hz / 1000, rel=0.25) and high == 8.0
    assert not kinds(setup, low_passed(pair(100), hz), rate=4000)  # an encoder that does not hear that band


def test_a_filter_near_the_edge_is_told_and_the_clip_is_judged():
    (problem,) = found(usual(), low_passed(pair(100), 7200))
    assert problem.kind == "weak_band" and not problem.fatal and "8.0 kHz are " in problem.text


def test_a_machine_that_hums_more_softly_is_judged():
    setup, clip = usual(), pair(100)
    slope = signal.firwin2(65, [0, 0.1, 1], [1, 1, 0.1])  # 20 dB less at the top, without a step
    soft = replace(clip, near=signal.fftconvolve(clip.near, slope, "same").astype(np.float32))
    assert not kinds(setup, soft)


def test_a_codec_that_no_normal_has_is_told():
    clip = replace(pair(100), codec="MP3")
    assert text(usual(), clip) == "stored with loss (MP3), the normals without loss: that alone can raise a score"
    lossy = UsualSetup(frozenset(), frozenset(["MP3"]))
    assert not kinds(lossy, clip) and kinds(lossy, replace(clip, codec="PCM")) == {"codec"}
    assert not kinds(lossy, replace(clip, codec="")) and not kinds(UsualSetup(), clip)


@pytest.mark.parametrize(
    "name, subtype, codec",
    [("a.wav", "PCM_24", "PCM"), ("a.flac", "PCM_16", "PCM"), ("a.wav", "FLOAT", "PCM"), ("a.wav", "ULAW", "ULAW")]
    + [("a.ogg", "VORBIS", "Vorbis"), ("a.ogg", "OPUS", "Opus"), ("a.mp3", "MPEG_LAYER_III", "MP3")],
)
def test_a_clip_knows_the_codec_of_its_file(tmp_path, name, subtype, codec):
    soundfile.write(tmp_path / name, 0.1 * np.random.default_rng(0).normal(size=(48_000, 2)), 48_000, subtype=subtype)
    assert read(tmp_path / name).codec == codec


def test_few_normals_and_no_far_tell_less():
    few = UsualSetup.of(np.stack([row_of(pair(i)) for i in range(4)]), [RATE], ["PCM"])
    assert not len(few.usual) and not kinds(few, swapped(pair(100)))
    mono = UsualSetup.of(np.stack([row_of(replace(pair(i), far=None)) for i in range(NORMALS)]), [RATE], [])
    assert not mono.pair and not kinds(mono, pair(100)) and not kinds(mono, swapped(pair(100)))
    assert kinds(mono, replace(pair(100), near=pair(100).near / 300)) == {"level"}


def test_plain_data_gives_the_same_set_up():
    for setup in (usual(), usual(delay=0), UsualSetup(), UsualSetup(frozenset([16_000]), frozenset(["MP3"]))):
        again = UsualSetup.from_dict(json.loads(json.dumps(setup.to_dict())))
        assert again.to_dict() == setup.to_dict()
        for clip in (pair(100), swapped(pair(100)), open_input(pair(100), 0.1, 1e-3), low_passed(pair(100), 4000)):
            assert found(again, clip) == found(setup, clip, needs_far=True)
    plain = usual().to_dict()
    assert not len(UsualSetup.from_dict({**plain, "bands_hz": [1, 2]}).usual)  # of a version with other bands
    for damage in ({"usual": [1.0]}, {"level": None}, {"hum": "loud"}, {"delay": 1.5}, {"rates": ["x"]}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            UsualSetup.from_dict({**plain, **damage})


def test_it_takes_a_millisecond():
    setup, clip = usual(), pair(0, seconds=10)
    found(setup, clip)
    times = []
    for _ in range(30):
        start = time.thread_time()
        found(setup, clip)
        times.append(time.thread_time() - start)
    assert min(times) < 2e-3  # about 1 ms of a processor


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("setup")
    files = [write_wav(folder / "normals" / f"{i:02d}.wav", pair(i)) for i in range(NORMALS)]
    Detector().fit(files).save(folder / "model")
    return folder / "model"


def test_a_score_says_what_is_otherwise(model, tmp_path):
    detector = load(model)
    healthy = write_wav(tmp_path / "healthy.wav", pair(100))
    other = write_wav(tmp_path / "swapped.wav", swapped(pair(100)))
    lost = write_wav(tmp_path / "lost.wav", low_passed(pair(100), 4000))
    mp3 = tmp_path / "lossy.mp3"
    soundfile.write(mp3, np.stack([pair(100).near, pair(100).far], axis=1), RATE)
    scores = {s.name: s for s in detector.score([healthy, other, lost, mp3])}
    assert not scores["healthy.wav"].codes and not scores["healthy.wav"].warnings
    assert scores["swapped.wav"].codes == ("exchanged",) and "swapped?" in scores["swapped.wav"].warnings[0]
    assert scores["swapped.wav"].anomalous is not None
    assert scores["lost.wav"].anomalous is None and "missing_band" in scores["lost.wav"].codes
    assert "codec" in scores["lossy.mp3"].codes
    assert [s.codes for s in detector.score_file(other)] == [("exchanged",)] == [detector.score_clip(read(other)).codes]


def test_the_folder_says_it_in_json_and_old_folders_have_none(model, tmp_path):
    detector = load(model)
    kept = json.loads((model / "detector.json").read_text())["setup"]
    assert kept["rates"] == [RATE] and kept["codecs"] == ["PCM"] and len(kept["bands_hz"]) == BANDS + 1
    assert kept["delay"] == -40 and np.median(kept["balance"]) == pytest.approx(8, abs=1)
    old = tmp_path / "old"
    detector.save(old)
    facts = json.loads((old / "detector.json").read_text())
    del facts["setup"]
    (old / "detector.json").write_text(json.dumps(facts))
    from safetensors.numpy import load_file, save_file

    arrays = load_file(old / "bank.safetensors")
    del arrays["setup"]
    save_file(arrays, old / "bank.safetensors")
    before = load(old)
    clip = swapped(pair(100))
    assert not before.score_clip(clip).codes and before.score_clip(clip).score == detector.score_clip(clip).score
    before.add([pair(200)]).save(old)  # which alone tells nothing of the others
    assert not load(old).score_clip(clip).codes


def test_added_normals_move_the_bounds(model, tmp_path):
    quiet = [replace(pair(i), near=pair(i).near / 300, far=pair(i).far / 300) for i in range(200, 203)]
    detector = load(model)
    assert "level" in detector.score_clip(quiet[0]).codes
    detector.add(quiet[1:]).save(tmp_path / "more")
    assert "level" not in load(tmp_path / "more").score_clip(quiet[0]).codes


def test_exchanged_normals_are_named_at_the_fit():
    with pytest.warns(UserWarning, match=r"in 2 normals near and far seem to be exchanged.*\(clip 3, clip 7\)"):
        clips = [replace(swapped(pair(i)) if i in (3, 7) else pair(i), name=f"clip {i}") for i in range(NORMALS)]
        detector = Detector().fit(clips)
    assert detector.score_clip(swapped(pair(100))).codes == ("exchanged",)


def test_exchanged_microphones_are_health_in_the_monitor(model):
    detector = load(model)
    dog = Watchdog(detector.band_levels)

    def hear(clip: Clip) -> set[str]:
        return {kind for kind in dog.check(clip, detector.embed_clip(clip).problems) if "level" not in kind}

    for i in range(ON - 1):
        assert not hear(swapped(pair(100 + i)))
    assert hear(swapped(pair(110))) == {"exchanged"}
    for i in range(OFF):
        said = hear(pair(120 + i))
    assert not said


def test_what_is_added_is_told_where_it_was_recorded_otherwise(model, tmp_path):
    detector = load(model)
    with pytest.warns(UserWarning, match=r"a\.wav: near is 8 dB quieter than far.*\(1 more remark of this kind"):
        detector.add(
            [write_wav(tmp_path / f"{name}.wav", swapped(pair(seed))) for seed, name in ((300, "a"), (301, "b"))]
        )


@pytest.mark.parametrize("action", ["alarm", "add"])
def test_the_plant_says_it_beside_an_alarm_and_beside_what_is_added(model, tmp_path, action):
    from plants import plant_of

    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    plant, sink, clock = plant_of(copy, tmp_path / "history")
    said = "near is 8 dB quieter than far"
    if action == "add":
        audit = plant.operator.add_normals("pump", [swapped(pair(300))], "source", "me")
        assert said.removeprefix("near ") in audit.detail["note"]
    else:
        for i in range(6):
            clock.now += 4
            clip = swapped(pair(300 + i))
            plant.process_window("pump", Window(clock.now, np.stack([clip.near, clip.far]), RATE))
        events = [message.body()["event"] for message in sink.messages if message.kind == "event"]
        assert {e["kind"] for e in events if said in e["text"]} == {"alarm", "health"}
    plant.history.close()


def test_the_same_sound_in_another_container_is_a_copy(model, tmp_path):
    files = [write_wav(tmp_path / f"{i:02d}.wav", pair(i)) for i in range(NORMALS)]
    copies = [tmp_path / f"{i:02d}.flac" for i in range(NORMALS)]
    for file, copy in zip(files, copies, strict=True):
        soundfile.write(copy, *soundfile.read(file, dtype="int16"))
    with pytest.warns(UserWarning, match=r"it is the same recording as 00\.wav \(11 more duplicates left out\)"):
        detector = Detector().fit([*files, *copies])
    assert len(detector.normals) == NORMALS
    with pytest.raises(ValueError, match="it is in the bank already"):
        load(model).add(copies[:1])
    assert len(load(model).add(copies[:1], copies=True).normals) == NORMALS + 1


def test_explain_takes_one_recording(model):
    clips = [pair(400), pair(401)]
    with pytest.raises(ValueError, match="explain takes one recording, and 2 were given"):
        load(model).explain(clips)
    with pytest.raises(ValueError, match="explain takes one recording, and 0 were given"):
        load(model).explain(iter(()))
    assert load(model).explain(clips[:1]).name == load(model).explain(clips[0]).name
