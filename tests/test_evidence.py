"""Known faults, put in by hand: is the explanation right about when, which pitch, how much and which microphone?"""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nearfar import Clip, Detector, Fusion, Recipe, Watch
from nearfar.embedding.embedder import Origin
from nearfar.embedding.vectors import embed
from nearfar.explain import deviation
from nearfar.explain.deviation import find_region, hz_of, seconds_of
from nearfar.explain.evidence import find_span, neighbours
from nearfar.explain.wording import Explanation

RATE, SECONDS = 16_000, 6.0
N = int(RATE * SECONDS)
STEADY = Recipe(pooling="quantile", normalize=False, method="mahalanobis", shrinkage=0.1, standardize=True)
TRANSIENT = replace(STEADY, pooling="peak")
RESIDUAL = {"view": "w1w_4096"}
SYSTEMS = {
    "floor": Recipe(pooling="mean_std", method="mahalanobis", normalize=False),
    "neighbours": Recipe(pooling="rdp", method="ldn", view="n_f"),
    "fusion": Fusion(((0.5, STEADY), (0.5, Recipe(pooling="gem")))),
    "watch": Watch((("steady", 0.5, STEADY), ("transient", 0.5, TRANSIENT))),
    "machine": Watch(
        (("steady", 0.5, replace(STEADY, **RESIDUAL)), ("transient", 0.5, replace(TRANSIENT, **RESIDUAL)))
    ),
}


for pooling in ("quiet", "power"):
    cleaned = replace(STEADY, encoder="logmel-4096", view="w1w_16384", pooling=pooling)
    bursts = replace(STEADY, view="w1w_16384", pooling="burst")
    SYSTEMS[f"4096 {pooling}"] = Watch((("clean", 0.5, cleaned), ("burst", 0.5, bursts)))


def machine(seed, *, mono=False):
    """A hum with harmonics at the machine, a room that both microphones hear."""
    rng = np.random.default_rng(seed)
    t = np.arange(N) / RATE
    speed = 100 * rng.uniform(0.97, 1.03)
    hum = sum(np.sin(2 * np.pi * speed * k * t + rng.uniform(0, 6)) / k for k in range(1, 8))
    room = rng.normal(size=N) * 0.02
    level = rng.uniform(0.9, 1.1)
    near = level * (0.02 * hum + room + 0.01 * rng.normal(size=N))
    far = level * (0.004 * hum + room + 0.005 * rng.normal(size=N))
    return Clip(near.astype("f4"), None if mono else far.astype("f4"), RATE, f"n{seed}")


def band_noise(rng, low, high):
    spectrum = np.fft.rfft(rng.normal(size=N))
    hz = np.fft.rfftfreq(N, 1 / RATE)
    noise = np.fft.irfft(np.where((hz >= low) & (hz <= high), spectrum, 0), N)
    return noise / noise.std()


def tone(start, stop, hz=3000.0, level=0.05):
    t = np.arange(N) / RATE
    return level * np.sin(2 * np.pi * hz * t) * ((t >= start) & (t < stop))


def knocks(rng, times, level=0.6):
    out = np.zeros(N)
    for at in times:
        i, n = int(at * RATE), int(0.02 * RATE)
        out[i : i + n] += level * rng.normal(size=n) * np.exp(-np.arange(n) / (0.004 * RATE))
    return out


def with_fault(clip, near=0.0, far=None):
    far_wave = clip.far if far is None or clip.far is None else (clip.far + far).astype("f4")
    return replace(clip, near=(clip.near + near).astype("f4"), far=far_wave, name="fault")


@pytest.fixture(scope="module")
def detectors():
    normals = [machine(i) for i in range(16)]
    return {name: Detector(system, threads=1).fit(normals) for name, system in SYSTEMS.items()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_tone_burst_at_the_machine(detectors, name):
    e = detectors[name].explain(with_fault(machine(99), tone(2.0, 3.0)))
    assert e.anomalous and e.clear and not e.throughout
    assert e.start_s == pytest.approx(2.0, abs=0.15) and e.end_s == pytest.approx(3.0, abs=0.15)
    assert 2600 < e.low_hz < 3000 < e.high_hz < 3400
    assert e.microphone == "near" and e.change_db > 10 and abs(e.far_db) < 4
    assert "near microphone" in e.sentence() and "more than usual" in e.sentence() and "tone" in e.sentence()


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_tone_burst_at_the_far_microphone_alone(detectors, name):
    e = detectors[name].explain(with_fault(machine(98), 0.0, tone(2.0, 3.0)))
    assert e.microphone == "far" and e.clear and e.far_db > 10
    assert e.start_s == pytest.approx(2.0, abs=0.15) and e.end_s == pytest.approx(3.0, abs=0.15)
    assert 2600 < e.low_hz < 3000 < e.high_hz < 3400
    assert any("look around the machine" in line for line in e.lines())


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_steady_hiss_is_there_throughout(detectors, name):
    hiss = 0.03 * band_noise(np.random.default_rng(1), 4000, 6000)
    e = detectors[name].explain(with_fault(machine(97), hiss))
    assert e.throughout and (e.start_s, e.end_s) == (0, SECONDS) and e.without is None
    assert 3700 < e.low_hz < 4300 and 5600 < e.high_hz < 6400
    assert e.microphone == "near" and e.change_db > 5
    assert e.sentence().startswith("Throughout the recording the near") and "hiss" in e.sentence()


@pytest.mark.parametrize("name", ["floor", "watch", "machine"])
def test_both_microphones(detectors, name):
    sound = tone(1.0, 2.5, 3000.0)
    e = detectors[name].explain(with_fault(machine(96), sound, sound))
    assert e.microphone == "both" and "both microphones hear" in e.sentence().lower()
    assert e.start_s == pytest.approx(1.0, abs=0.15) and e.end_s == pytest.approx(2.5, abs=0.15)
    assert any("equally" in line for line in e.lines())


@pytest.mark.parametrize("name", ["floor", "watch", "machine"])
def test_a_knock_is_short(detectors, name):
    e = detectors[name].explain(with_fault(machine(95), knocks(np.random.default_rng(2), [4.0])))
    assert abs(e.start_s - 4.0) < 0.15 and e.end_s - e.start_s < 0.3
    assert e.microphone == "near" and "like a knock" in e.sentence()
    assert e.without < e.score / 2


def test_knocks_that_come_again_and_again(detectors):
    e = detectors["watch"].explain(with_fault(machine(94), knocks(np.random.default_rng(2), np.arange(0.5, 6, 0.7))))
    assert e.throughout and e.times == 8 and "8 times" in e.sentence()


def test_something_missing_is_quieter(detectors):
    clip = machine(93)
    spectrum = np.fft.rfft(clip.near)
    hz = np.fft.rfftfreq(N, 1 / RATE)
    spectrum[(hz > 2000) & (hz < 3500)] *= 0.1
    e = detectors["floor"].explain(replace(clip, near=np.fft.irfft(spectrum, N).astype("f4")))
    assert e.throughout and e.change_db < -10 and "less than usual" in e.sentence()
    assert 1700 < e.low_hz < 2300 and 3200 < e.high_hz < 3800


def test_a_weak_sound_under_the_rooms_noise_shows_once_the_far_sound_is_taken_away():
    def noisy(seed, fault=0.0):
        rng = np.random.default_rng(seed)
        clip = machine(seed)
        room = np.convolve(rng.normal(size=N), [0.1 * rng.uniform(0.3, 3)])
        return Clip((clip.near + room + fault).astype("f4"), (clip.far + room).astype("f4"), RATE, f"n{seed}")

    detector = Detector(SYSTEMS["machine"], threads=1).fit([noisy(i) for i in range(16)])
    e = detector.explain(noisy(50, 0.02 * band_noise(np.random.default_rng(1), 4000, 6000)))
    assert e.anomalous and e.microphone == "near" and 3600 < e.low_hz < 4400 and 5500 < e.high_hz < 6500
    assert e.isolated and "taken away" in e.sentence()


def test_a_normal_clip_is_called_normal(detectors):
    e = detectors["watch"].explain(machine(60))
    assert e.anomalous is False and e.sentence().startswith("Sounds like the normal recordings")
    assert e.without is None or e.lines()[0].startswith("normal")


def test_the_score_and_neighbours_are_those_of_score(detectors):
    clip = with_fault(machine(99), tone(2.0, 3.0))
    for detector in detectors.values():
        score, e = detector.score([clip])[0], detector.explain(clip)
        assert (e.name, e.score, e.threshold, e.anomalous, e.p) == (
            score.name,
            score.score,
            score.threshold,
            score.anomalous,
            score.p,
        )
        assert [n.name for n in e.nearest] == score.nearest and all(n.distance >= 0 for n in e.nearest)


def test_mono_works_and_names_no_channel():
    detector = Detector(SYSTEMS["watch"], threads=1).fit([machine(i, mono=True) for i in range(12)])
    e = detector.explain(with_fault(machine(99, mono=True), tone(2.0, 3.0)))
    assert e.microphone == "near" and e.far_db is None and "the microphone hears" in e.sentence()
    assert e.start_s == pytest.approx(2.0, abs=0.15)


def test_a_dead_microphone_says_why(detectors):
    e = detectors["watch"].explain(replace(machine(1), near=np.zeros(N, "f4")))
    assert e.anomalous is None and "silent" in e.sentence() and "cannot be judged" in e.sentence()
    assert e.nearest == () and e.timeline == () and len(e.lines()) == 1
    json.dumps(e.to_dict(), allow_nan=False)


def test_of_a_long_file_the_worst_window_is_explained(tmp_path):
    detector = Detector(SYSTEMS["watch"], threads=1).fit([machine(i) for i in range(12)])
    clips = [machine(200 + i) for i in range(6)]
    clips[3] = with_fault(clips[3], tone(2.0, 3.0))
    clips[1] = replace(clips[1], near=np.zeros(N, "f4"))
    samples = np.concatenate([np.stack([c.near, c.far], axis=1) for c in clips])
    soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="FLOAT")
    e = detector.explain(tmp_path / "long.wav")
    assert e.name == "long.wav@18s" and e.offset_s == 18
    assert e.start_s == pytest.approx(20.0, abs=0.15) and e.end_s == pytest.approx(21.0, abs=0.15)
    assert any("1 of 6 windows cannot be judged" in line for line in e.lines())
    assert 18 <= e.timeline[0][0] < e.timeline[-1][0] <= 24


def test_the_evidence_survives_save_and_load(tmp_path):
    import nearfar

    detector = Detector(SYSTEMS["watch"], threads=1).fit([machine(i) for i in range(12)])
    clip = with_fault(machine(99), tone(2.0, 3.0))
    before, after = detector.explain(clip), nearfar.load(detector.save(tmp_path / "m"), threads=1).explain(clip)
    assert (before.start_s, before.low_hz, before.microphone) == (after.start_s, after.low_hz, after.microphone)
    assert before.change_db == pytest.approx(after.change_db, abs=1e-3)


def test_to_dict_is_json_and_leaves_the_sound_out(detectors):
    e = detectors["watch"].explain(with_fault(machine(99), tone(2.0, 3.0)))
    data = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert data["microphone"] == "near" and data["sentence"] == e.sentence() and "clip" not in data
    assert max(v for _, v in data["timeline"]) > 10


def test_a_recording_of_an_eighth_of_a_second(detectors):
    clip = machine(5)
    short = Clip(clip.near[:2000], clip.far[:2000], RATE, "short")
    e = detectors["floor"].explain(short)
    assert isinstance(e, Explanation) and 0 <= e.start_s < e.end_s <= short.seconds and e.lines()


def test_chance_makes_no_moment():
    for seed in range(20):
        z = np.random.default_rng(seed).normal(size=(300, 128))
        region = find_region(z + 0.3, z + 0.3)
        assert region.whole and region.sign == 1 and region.strength < 1
    z[100:140, 40:60] += 4
    region = find_region(z, 5 * z)
    assert abs(region.start - 100) <= 2 and abs(region.stop - 140) <= 2 and abs(region.low - 40) <= 1
    assert abs(region.high - 60) <= 1


def test_leaving_out_finds_the_piece_that_matters():
    def score(span):  # the score is 10 unless the part around 0.5 is gone
        return 10.0 * (1 - max(0.0, min(span[1], 0.6) - max(span[0], 0.4)) / 0.2)

    start, stop = find_span(10.0, 8.0, score)
    assert start == pytest.approx(0.4) and stop == pytest.approx(0.6)
    assert find_span(10.0, 8.0, lambda span: 9.5) is None and find_span(0.5, 8.0, score) is None


def test_edges_of_bands_and_frames():
    assert hz_of(0, 128) == (0.0, 8000.0) and hz_of(60, 61)[0] == pytest.approx(hz_of(59, 60)[1])
    assert seconds_of(0, 10, 0.2) == (0.0, 0.2)


def test_neighbours_know_where_in_a_long_file_they_are():
    normals = [Origin("a.wav@20s", "/x/a.wav", "1", 10.0), Origin("user@site.wav", "/x/user@site.wav", "2", 6.0)]
    assert [n.start_s for n in neighbours([0.1, 0.2], normals)] == [20.0, 0.0]


@pytest.mark.parametrize("gain_db", [-6, 6])
def test_a_change_of_loudness_does_not_hide_the_fault(detectors, gain_db):
    clip = with_fault(machine(92), 0.03 * band_noise(np.random.default_rng(1), 4000, 6000))
    gain = np.float32(10 ** (gain_db / 20))
    e = detectors["floor"].explain(replace(clip, near=clip.near * gain, far=clip.far * gain))
    assert e.change_db > 5 and 3700 < e.low_hz < 4300 and 5600 < e.high_hz < 6400 and e.microphone == "near"
    assert e.level_db == pytest.approx(gain_db, abs=1.5) and any("allowed for" in line for line in e.lines())


def test_loudness_alone_is_the_difference_if_there_is_no_other(detectors):
    clip = machine(91)
    e = detectors["floor"].explain(replace(clip, near=clip.near * 10, far=clip.far * 10))
    assert e.microphone == "both" and e.change_db == pytest.approx(20, abs=2) and "at all pitches" in e.sentence()


def test_what_was_taken_out_of_near_and_bursts_and_rhythms_make_no_map_of_the_machine():
    parts = {
        "noise": replace(STEADY, encoder="logmel-4096", view="noise_16384", pooling="power"),
        "burst": replace(STEADY, view="w1w_16384", pooling="burst"),
        "rhythm": Recipe(encoder="rhythm", method="as_is", metric="euclidean", normalize=False),
    }
    system = Watch(tuple((name, 1 / 3, recipe) for name, recipe in parts.items()))
    detector = Detector(system, threads=1).fit([machine(i) for i in range(8)])
    clip = with_fault(machine(99), tone(2.0, 3.0))
    leaves = [(recipe, backend.z) for recipe, backend in zip(detector.recipes, detector.backends, strict=True)]
    assert [m.sound for m in deviation.maps(clip, detector.band_levels, leaves)] == ["near", "far"]
    e = detector.explain(clip)
    assert e.microphone == "near" and 2600 < e.low_hz < 3000 < e.high_hz < 3400 and not e.isolated


@pytest.mark.parametrize("pooling", ["mean", "quiet", "power", "quantile"])
@pytest.mark.parametrize("encoder", ["logmel", "logmel-4096"])
def test_a_map_of_the_machine_differs_from_the_normals_as_the_vectors_of_the_recipe_do(encoder, pooling):
    recipe = replace(STEADY, encoder=encoder, view="w1w_4096", pooling=pooling)
    detector = Detector(recipe, threads=1).fit([machine(i) for i in range(6)])
    (backend,) = detector.backends
    louder = with_fault(machine(70), 0.03 * band_noise(np.random.default_rng(1), 4000, 6000))
    shown = deviation.maps(louder, detector.band_levels, [(recipe, backend.z)])[-1]
    assert shown.sound == "machine" and shown.db.shape[1] == 128
    vector = embed(louder, [recipe], detector.encoders)[0]
    at = slice(128, 256) if pooling == "quantile" else slice(0, 128)
    wanted = (vector - backend.z.mean(axis=0))[at]
    usual_frame = np.median(shown.db, axis=0)
    assert np.abs(usual_frame - wanted).mean() < 3, "frames of noise lie below the mean of their power"
    inside = slice(int(deviation.band_of(4300)), int(deviation.band_of(5700)))
    assert wanted[inside].mean() > 5 and usual_frame[inside].mean() == pytest.approx(wanted[inside].mean(), abs=3)
