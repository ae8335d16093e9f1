"""The demo data set: its form, its physics, and that it cannot be solved by level alone."""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nearfar import backend, demo, encoders, enhance, metrics, pooling
from nearfar.demo import room, synth
from nearfar.demo.waves import RATE, crossings, impulses, shape, turning

FORM = re.compile(
    r"section_00_(source|target)_(train|test)_(normal|anomaly)_\d{4}_spd_(\d)_load_(\d)\.wav",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "set"
    return demo.make_dataset(folder, machines=4, train=6, test=9, seconds=1)


# ---- form ------------------------------------------------------------------------------------------------------------


def test_the_folder_has_the_challenges_form(small: Path) -> None:
    assert sorted(p.name for p in small.iterdir()) == ["demo.json", "fan", "fan2", "gearbox", "valve"]
    for machine in ("fan", "gearbox", "valve", "fan2"):
        found = sorted(small.glob(f"{machine}/*/*.wav"))
        assert len(found) == 15 and all(FORM.fullmatch(p.name) for p in found)
        assert all(f"_{p.parent.name}_" in p.name for p in found)
        train = [p.name for p in found if p.parent.name == "train"]
        assert len(train) == 6 and all("_normal_" in n for n in train) and sum("_target_" in n for n in train) == 2
        test = [FORM.fullmatch(p.name).group(1, 3) for p in found if p.parent.name == "test"]  # type: ignore[union-attr]
        assert {k: test.count(k) for k in set(test)} == {
            ("source", "normal"): 3,
            ("source", "anomaly"): 2,
            ("target", "normal"): 2,
            ("target", "anomaly"): 2,
        }
        rows = list(csv.reader((small / machine / "attributes_00.csv").open()))
        assert rows[0] == ["file_name", "d1p", "d1v", "d2p", "d2v"]
        assert sorted(small / r[0] for r in rows[1:]) == found
        assert all(r[0].endswith(f"_{r[1]}_{r[2]}_{r[3]}_{r[4]}.wav") for r in rows[1:])
        info = soundfile.info(found[0])
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 2, 16_000, "PCM_16")


def test_the_challenges_proportions() -> None:
    assert demo._counts(1000, 200) == (990, 10, 50, 50, 50, 50)
    assert demo._counts(60, 40) == (58, 2, 10, 10, 10, 10)


def test_a_clip_depends_on_nothing_but_the_seed_and_its_number(small: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    other = demo.make_dataset(
        tmp_path, machines=1, train=4, test=14, seconds=1, workers=2, progress=lambda *a: seen.append(a)
    )
    names = {p.name: p for p in other.rglob("*.wav")}
    shared = [p for p in small.glob("fan/*/*.wav") if p.name in names]
    assert len(shared) == 4 + 9
    assert all(p.read_bytes() == names[p.name].read_bytes() for p in shared)
    assert seen == [(i + 1, 18) for i in range(18)]
    p = demo.plan(0, 2, 0)
    assert not np.array_equal(
        demo.make_clip(demo.draw_machine(0), p, 0, 1), demo.make_clip(demo.draw_machine(0), p, 0, 1, seed=1)
    )


def test_an_earlier_set_is_replaced_and_nothing_else_is_touched(tmp_path: Path) -> None:
    demo.make_dataset(tmp_path, machines=2, train=5, test=4, seconds=1)
    (tmp_path / "fan/train/.section_00_source_train_normal_0000_spd_1_load_1.wav.k3_x9aqz").touch()  # a killed run's
    demo.make_dataset(tmp_path, machines=1, train=4, test=4, seconds=1)
    assert len(list(tmp_path.rglob("*.wav"))) == 8 and not (tmp_path / "gearbox").exists()
    assert not list(tmp_path.rglob("*.k3_x9aqz"))
    (tmp_path / "fan/train/mine.wav").touch()
    with pytest.raises(FileExistsError, match=r"mine\.wav"):
        demo.make_dataset(tmp_path, machines=1, train=4, test=4, seconds=1)
    assert len(list(tmp_path.rglob("*.wav"))) == 9


def test_a_folder_in_the_same_form_that_is_not_ours_is_refused(small: Path, tmp_path: Path) -> None:
    clip = next(small.glob("fan/train/*.wav"))
    (tmp_path / "fan/train").mkdir(parents=True)
    (tmp_path / "fan/train" / clip.name).write_bytes(clip.read_bytes())
    with pytest.raises(FileExistsError, match=r"no demo\.json"):
        demo.make_dataset(tmp_path, seconds=1)
    with pytest.raises(FileExistsError, match="is a file"):
        demo.make_dataset(clip, seconds=1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("machines", 0), ("train", 3), ("test", 3), ("seconds", 0.5), ("seconds", np.nan), ("seed", -1), ("workers", 0)],
)
def test_a_wrong_number_is_refused_before_anything_is_written(tmp_path: Path, argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{argument} must be .*"):
        demo.make_dataset(tmp_path / "new", **{argument: value})  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


# ---- physics ---------------------------------------------------------------------------------------------------------


def test_direct_sound_arrives_on_time_at_one_over_distance() -> None:
    n, distance = 8192, 2.0
    hall = room.Room((30.0, 30.0, 30.0), 0.4, 0.4)
    h = room.spectrum(hall, (15, 15, 15), (15 + distance, 15, 15), np.random.default_rng(0), rate=RATE, n=n)
    wave = np.fft.irfft(h, n)
    delay = distance / room.SPEED_OF_SOUND * RATE
    assert abs(np.argmax(wave) - delay) <= 1
    band = np.abs(np.fft.rfft(wave[: int(delay) + 40], n)[200:3000])  # before the first reflection
    assert np.allclose(band, 1 / distance, rtol=0.05)


def test_the_room_decays_by_60_db_in_its_reverberation_time() -> None:
    t60, n = 0.5, 16_384
    h = room.spectrum(
        room.Room((9.0, 7.0, 4.0), t60, t60), (2, 2, 1), (6, 5, 2), np.random.default_rng(0), rate=RATE, n=n
    )
    left = 10 * np.log10(np.cumsum(np.fft.irfft(h, n)[::-1] ** 2)[::-1])  # Schroeder's backward integral
    left -= left[0]
    t5, t25 = (np.argmax(left < level) / RATE for level in (-5, -25))
    assert 3 * (t25 - t5) == pytest.approx(t60, rel=0.25)


def test_impacts_come_at_the_defect_frequency() -> None:
    rng = np.random.default_rng(0)
    turns = turning(rng, 5 * RATE, 20.0, 0.0)
    times = crossings(turns, 3.6, 0.01, rng)
    assert len(times) == pytest.approx(5 * 20 * 3.6, abs=6)
    assert np.diff(times).mean() == pytest.approx(RATE / 72, rel=0.01)
    assert np.diff(times).std() == pytest.approx(0.01 * RATE / 72, rel=0.3)
    assert impulses(100, np.array([3.25, 99.9, -1]), np.array([4.0, 1, 1]))[:6].tolist() == [0, 0, 0, 3, 1, 0]


def added(kind: str, fault: str, seconds: float = 4.0) -> tuple[synth.Machine, np.ndarray]:
    """What a fault adds to near: the difference between the clip with and without it."""
    m = synth.machine(kind, np.random.default_rng(3))
    with_fault = synth.render(m, np.random.default_rng(5), seconds, fault=fault, severity=1)[0]
    return m, with_fault - synth.render(m, np.random.default_rng(5), seconds)[0]


def envelope_peak(wave: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(wave.astype(float) ** 2))
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    inside = (hz > low) & (hz < high)
    return float(hz[inside][np.argmax(power[inside])])


def test_a_bearing_defect_beats_at_its_frequency_and_rings_at_the_resonance() -> None:
    m, wave = added("fan", "bearing")
    assert envelope_peak(wave, 1.5 * m.hz, 6 * m.hz) == pytest.approx(m.defect * m.hz, rel=0.02)
    power = np.abs(np.fft.rfft(wave)) ** 2
    centre = (power * np.fft.rfftfreq(len(wave), 1 / RATE)).sum() / power.sum()
    assert centre == pytest.approx(m.resonance[0], rel=0.35)


def test_a_broken_tooth_strikes_once_a_turn_of_one_shaft() -> None:
    m, wave = added("gearbox", "tooth")
    found = envelope_peak(wave, 5, 1.5 * m.hz)
    assert min(abs(found / m.hz - 1), abs(found / (m.hz * m.teeth[0] / m.teeth[1]) - 1)) < 0.03


def test_imbalance_is_strongest_at_the_shaft_frequency() -> None:
    m, wave = added("fan", "imbalance")
    power = np.abs(np.fft.rfft(wave)) ** 2
    assert np.argmax(power) / len(wave) * RATE == pytest.approx(m.hz, rel=0.03)


def test_a_leak_does_not_stop_and_a_sticking_valve_changes_strokes_only() -> None:
    def unsteady(fault: str) -> float:
        blocks = added("valve", fault)[1].reshape(-1, 800).std(axis=1)
        return float(blocks.std() / blocks.mean())

    assert unsteady("leak") < 0.15 < 0.5 < unsteady("sticking")


def test_far_is_later_and_hears_the_machine_less() -> None:
    for kind in synth.KINDS:
        m = synth.machine(kind, np.random.default_rng(1))
        near, far = synth._paths(m, 32_768)["machine"]
        assert (np.abs(near) ** 2).mean() > 2 * (np.abs(far) ** 2).mean()
        assert 2.5 < np.linalg.norm(np.subtract(m.mics[1], m.places[0])) < 4


def test_shapes_keep_the_level_of_white_noise() -> None:
    gain = shape(tuple(np.linspace(0, -30, 9).tolist()), 4096)
    assert (gain**2).mean() == pytest.approx(1, rel=1e-5) and gain[200] > gain[1000]


def test_rendering_is_pure_and_refuses_what_it_cannot_do() -> None:
    m = synth.machine("valve", np.random.default_rng(0))
    a, b = (np.stack(synth.render(m, np.random.default_rng(1), 0.7)) for _ in range(2))
    assert np.array_equal(a, b) and a.shape == (2, 11_200) and a.dtype == np.float32
    for wrong, message in (
        ({"fault": "imbalance"}, "unknown fault of a valve 'imbalance'; choose one of: leak, sticking"),
        ({"severity": 1.5}, "severity must be >= 0 and <= 1"),
        ({"speed": 3}, "speed must be >= 0.5 and <= 2"),
        ({"domain": "both"}, "unknown domain"),
        ({"seconds": 0.1}, "seconds must be"),
    ):
        with pytest.raises(ValueError, match=message):
            synth.render(m, np.random.default_rng(1), **({"seconds": 1.0} | wrong))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="machine kind"):
        synth.machine("pump", np.random.default_rng(0))


# ---- hard to cheat ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_level_is_planned_alike_for_normal_and_anomalous_clips(seed: int) -> None:
    for index in range(3):
        plans = [demo.plan(index, s, i, seed=seed) for s in range(2, 6) for i in range(15)]
        levels = [p.level_db for p in plans]
        assert 0.4 < metrics.auc(levels, [p.fault is not None for p in plans]) < 0.6
        assert max(abs(v - demo.LEVEL_DB) for v in levels) <= demo.LEVEL_RANGE_DB
        severities = [p.severity for p in plans if p.fault]
        assert 0 <= min(severities) < 0.2 and 0.8 < max(severities) < 1
        assert {p.fault for p in plans} == {None, *synth.FAULTS[synth.KINDS[index]]}


@pytest.fixture(scope="module")
def heard() -> dict[str, tuple[np.ndarray, dict[str, float]]]:
    """Per machine the peaks of its test clips and the AUC of simple detectors, on clips of 5 s."""
    encoder, out = encoders.load("logmel"), {}
    for index, name in enumerate(demo.names(3)):
        subject = demo.draw_machine(index)
        plans = [demo.plan(index, s, i) for s, n in enumerate(demo._counts(50, 40)) for i in range(n)]
        clips = np.stack([demo.make_clip(subject, p, index, 5.0) for p in plans]) / np.float32(32768)
        truth = [p.fault is not None for p in plans[50:]]
        waves = {"near": clips[..., 0]}
        if name == "gearbox":
            subtract = partial(enhance.leakage_subtract, n_fft=16_384, weighted=True)
            waves["cleaned"] = np.stack([subtract(c[:, 0], c[:, 1]) for c in clips])
        aucs = {"level": metrics.auc(np.log(waves["near"][50:].std(axis=1)), truth)}
        for what, wave in waves.items():
            z = pooling.mean_std(encoder.frames(wave))
            aucs[what] = metrics.auc(backend.fit(z[:50], method="mahalanobis").score(z[50:]), truth)
        out[name] = (np.abs(clips).max(axis=(1, 2)), aucs)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", synth.KINDS)
def test_level_alone_says_nothing_and_near_alone_says_something(
    heard: dict[str, tuple[np.ndarray, dict[str, float]]], name: str
) -> None:
    peaks, aucs = heard[name]
    assert peaks.max() < 1
    assert 0.4 < aucs["level"] < 0.6
    assert 0.6 < aucs["near"] < 0.95


@pytest.mark.slow
def test_the_far_microphone_helps_where_faults_are_broadband(
    heard: dict[str, tuple[np.ndarray, dict[str, float]]],
) -> None:
    _, aucs = heard["gearbox"]
    assert aucs["cleaned"] > aucs["near"] - 0.02


def test_a_full_disk_is_said_with_the_file(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        demo.make_dataset(small_disk / "set", machines=1, train=6, test=6, seconds=1)
    assert str(small_disk) in str(caught.value.filename)
