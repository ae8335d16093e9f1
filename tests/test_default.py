"""The default without weights: which microphones it uses, which window, and that it says so."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from nearfar.audio import Clip
from nearfar.detector import default
from nearfar.embedding.embedder import ClipEmbedder, EmbeddedClip, Origin
from nearfar.embedding.facts import GroupFeatures
from nearfar.encoders.loading import load_encoders
from nearfar.explain.wording import TRIGGERS, noticed
from nearfar.recipe import System, Watch, from_json, leaves
from nearfar.support.check import Array

RATE = 16_000


def echoes(seed: int, delay: int, direct: float) -> Array:
    """A room's impulse response: one direct sound after `delay` samples and 150 ms of decaying echoes."""
    rng = np.random.default_rng(seed)
    response = np.zeros(4800)
    response[delay] = direct
    tail = np.exp(-np.arange(4800 - delay - 100) / 800)
    response[delay + 100 :] += 0.03 * rng.normal(size=len(tail)) * tail
    return response


def pair(seed: int, *, far_beside: bool, seconds: float = 3.0) -> Clip:
    """A humming and hissing machine near the one microphone, noise of varying level somewhere in the room."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    t = np.arange(n) / RATE
    machine = sum(np.sin(2 * np.pi * 90 * k * t + k) / k for k in range(1, 12)) + rng.normal(size=n)
    noise = rng.normal(size=n) * 10 ** (rng.uniform(-0.5, 0.4))
    to_far = echoes(2, 30, 1.0) if far_beside else echoes(3, 150, 0.05)

    def through(x: Array, response: Array) -> Array:
        return np.asarray(np.convolve(x, response)[:n])

    near = through(machine, echoes(1, 30, 1.0)) + through(noise, echoes(4, 250, 0.1))
    far = through(machine, to_far if far_beside else 0.3 * to_far) + through(noise, echoes(5, 120, 0.1))
    return Clip(0.02 * near, 0.02 * far, RATE)


@cache
def clips(far_beside: bool, seconds: float = 3.0) -> tuple[Clip, ...]:
    return tuple(pair(seed, far_beside=far_beside, seconds=seconds) for seed in range(9))


def choose(recordings: Sequence[Clip]) -> tuple[Watch, str]:
    """The default of these normals, as a detector chooses it."""
    features, why = default.features(recordings)
    encoders = load_encoders([recipe.encoder for recipe in features.values()])
    reader = ClipEmbedder(0, 1, 10.0, list(features.values()), encoders, groups=True)
    normals, _ = reader.embed_normals(recordings, np.zeros(len(recordings), bool), set(), None, None, copies=True)
    system, why, normals = default.choose_system(features, normals, why)
    assert [len(clip.vectors) for clip in normals] == [len(list(leaves(system)))] * len(normals)
    return system, why


def view(recordings: Sequence[Clip]) -> str:
    """The view that all features after the cleaning have; "near_only" without a cleaning."""
    features, _ = default.features(recordings)
    views = {recipe.view for name, recipe in features.items() if name not in ("near", "modulation", "rhythm")}
    assert {features[name].view for name in ("near", "modulation", "rhythm")} == {"near_only"} and len(views) == 1
    return views.pop()


def names(system: System) -> list[str]:
    assert isinstance(system, Watch)
    return [name for name, _, _ in system.parts]


def test_one_channel_is_heard_alone() -> None:
    mono = [Clip(clip.near, None, RATE) for clip in clips(False)]
    system, why = choose(mono)
    assert view(mono) == "near_only" and names(system) == ["near", "burst"]
    assert [weight for _, weight, _ in system.parts] == [1, 1]
    assert "one channel" in why


def test_some_recordings_without_far_mean_near_alone() -> None:
    mixed = [Clip(clip.near, clip.far if i else None, RATE) for i, clip in enumerate(clips(False))]
    assert view(mixed) == "near_only"
    assert "1 of 9 recordings has one channel" in default.features(mixed)[1]


@pytest.mark.parametrize("gain", [1.0, -0.3])
def test_one_cable_on_both_channels(gain: float) -> None:
    copied = [Clip(clip.near, gain * clip.near, RATE) for clip in clips(False)]
    assert view(copied) == "near_only"
    assert "same signal" in default.features(copied)[1]


TIME = np.arange(4 * RATE) / RATE
DEAD = {
    "zeros": (0 * TIME, "silent"),
    "last bits": (np.random.default_rng(0).integers(-2, 3, len(TIME)) / 32768, "silent"),
    "mains hum": (0.01 * np.sin(2 * np.pi * 50 * TIME), "silent"),
    "one value": (np.where(TIME < 0.01, 0, 0.1), "stuck"),
}


@pytest.mark.parametrize("kind", DEAD)
def test_a_far_microphone_that_is_dead_or_unplugged_is_not_used(kind: str) -> None:
    far, what = DEAD[kind]
    dead = [Clip(clip.near, far[: len(clip.near)], RATE) for clip in clips(False)]
    assert view(dead) == "near_only"
    assert f"{what} in 9 of 9" in default.features(dead)[1]


def test_far_in_the_room_is_subtracted_and_the_figures_are_told() -> None:
    system, why = choose(clips(False))
    assert view(clips(False)) == "w1w_16384" and names(system) == ["clean", "near", "burst"]
    assert [weight for _, weight, _ in system.parts] == [1, 0.7, 1]
    assert "Both microphones are used" in why
    peaks = [default.coherent_peak(c.near, np.asarray(c.far)) for c in clips(False)]
    assert f"{default.direct_sound_ratio(peaks):.0%} of what" in why
    assert "1 s, as the shortest recording lasts 3 s" in why


def test_far_beside_the_machine_is_not_subtracted() -> None:
    system, why = choose(clips(True))
    assert view(clips(True)) == "near_only" and names(system) == ["near", "burst"]
    assert "hears the machine itself" in why and "limit" in why


def test_one_direct_sound_on_both_microphones_is_not_subtracted() -> None:
    beside = []
    for seed in range(9):
        rng = np.random.default_rng(seed)
        machine = np.convolve(rng.normal(size=3 * RATE), echoes(1, 0, 2.0))[: 3 * RATE]
        far = np.roll(machine, 5) + 0.5 * rng.normal(size=3 * RATE)
        beside.append(Clip(0.02 * (machine + 0.5 * rng.normal(size=3 * RATE)), 0.02 * far, RATE))
    assert view(beside) == "near_only"
    assert "hears the machine itself" in default.features(beside)[1]


@pytest.mark.parametrize("far_beside", [False, True])
def test_the_far_microphones_gain_does_not_matter(far_beside: bool) -> None:
    quieter = [Clip(clip.near, 0.05 * np.asarray(clip.far), RATE) for clip in clips(far_beside)]
    assert choose(quieter) == choose(clips(far_beside))


def test_a_sound_that_far_hears_first_is_not_the_machine() -> None:
    far = np.random.default_rng(0).normal(size=RATE)
    assert default.direct_sound_ratio([default.coherent_peak(np.roll(far, 100), far)]) == 0
    assert default.direct_sound_ratio([default.coherent_peak(np.roll(far, -100), far)]) > 0.8
    assert default.direct_sound_ratio([default.coherent_peak(np.zeros(RATE), far)]) == 0


@pytest.mark.slow
def test_far_a_heads_width_from_near_is_not_subtracted_though_the_noise_hides_the_machine() -> None:
    def recording(seed: int, apart: int) -> Clip:
        """A machine and noises from four places; sound takes up to `apart` samples from one microphone to the other."""
        rng = np.random.default_rng(seed)
        places = [(int(rng.integers(-apart, apart + 1)), 0.3 + 0.2 * k) for k in range(5)]
        near, far = 2.5 * rng.normal(size=(2, 3 * RATE))
        for k, (delay, level) in enumerate(places):
            sound = np.convolve(rng.normal(size=3 * RATE), echoes(10 + k, 20, 0.3))[: 3 * RATE]
            near, far = near + level * sound, far + level * np.roll(sound, delay)
        return Clip(0.02 * near, 0.02 * far, RATE)

    beside = [recording(seed, 8) for seed in range(12)]
    peaks = [default.coherent_peak(c.near, np.asarray(c.far)) for c in beside]
    assert default.direct_sound_ratio(peaks) < default.MAX_DIRECT
    assert view(beside) == "near_only"
    assert "within 21 cm of the near one" in default.features(beside)[1]
    assert view([recording(seed, 160) for seed in range(12)]) == "w1w_16384"


def test_the_shortest_recording_decides_the_window() -> None:
    assert view(clips(False, 2.0)) == "w1w_16384"
    assert view([*clips(False), clips(False, 0.6)[0]]) == "w1w_4096"


def test_other_rates_are_judged_at_the_rate_of_the_subtraction() -> None:
    assert view([Clip(np.repeat(c.near, 3), np.repeat(c.far, 3), 48_000) for c in clips(False)]) == "w1w_16384"  # type: ignore[arg-type]


def test_the_mean_power_is_left_out_where_it_follows_the_noise() -> None:
    rng = np.random.default_rng(0)
    noise, machine = rng.normal(size=(2, 40, 128))

    def chosen(loud: Array, quiet: Array) -> int:
        features, _ = default.features(clips(False))
        values = {"near": machine, "burst": machine[:, :32], "rhythm": machine[:, :2] * 0, "quiet": quiet}
        values |= {"modulation": machine[:, :96], "loud": loud, "mean": machine}
        normals = [
            EmbeddedClip(Origin(str(i), "", "", 3.0), [values[n][i] for n in features], [], RATE, features=each)
            for i, each in enumerate(GroupFeatures(machine[j], noise[j]) for j in range(40))
        ]
        return len(default.choose_system(features, normals, "")[2][0].vectors[0])

    assert chosen(loud=noise, quiet=machine) == 128
    assert chosen(loud=machine, quiet=machine) == 256
    assert chosen(loud=noise, quiet=noise) == 256


def test_a_machine_that_ticks_gets_a_watch_of_its_rhythm() -> None:
    ticking = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        wave = 0.01 * rng.normal(size=6 * RATE)
        for at in range(2000 + 100 * seed, len(wave) - 200, RATE // 2):
            wave[at : at + 80] += rng.normal(size=80) * np.exp(-np.arange(80) / 15)
        ticking.append(Clip(0.1 * wave, None, RATE))
    system, why = choose(ticking)
    assert names(system) == ["near", "burst", "rhythm"] and "missing strokes" in why
    assert names(choose([*ticking[:3], *clips(False)[:3]])[0]) == ["near", "burst"]


@pytest.mark.parametrize(
    ("count", "ticks", "far_beside", "expected"),
    [
        (30, 0.0, False, {"clean": 1.0, "near": 0.7, "burst": 1.0}),
        (31, 0.0, False, {"clean": 0.96, "near": 0.69, "burst": 1.0, "modulation": 0.06}),
        (35, 0.0, True, {"near": 0.8, "burst": 1.0, "modulation": 0.3}),
        (40, 0.0, False, {"clean": 0.6, "near": 0.6, "burst": 1.0, "modulation": 0.6}),
        (60, 0.0, False, {"clean": 0.6, "near": 0.6, "burst": 1.0, "modulation": 0.6}),
        (60, 0.0, True, {"near": 0.6, "burst": 1.0, "modulation": 0.6}),
        (60, 0.9, True, {"near": 1.0, "burst": 1.0, "rhythm": 1.0}),
    ],
)
def test_swings_are_watched_from_enough_normals_of_a_machine_that_does_not_tick(
    count: int, ticks: float, far_beside: bool, expected: dict[str, float]
) -> None:
    features, why = default.features(clips(far_beside))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, 128))
    vectors = {name: np.full((count, 2), ticks) if name == "rhythm" else noise for name in features}
    normals = [
        EmbeddedClip(Origin(str(i), "", "", 3.0), [vectors[n][i] for n in features], [], RATE, features=each)
        for i, each in enumerate(GroupFeatures(x, x) for x in noise)
    ]
    system, why, _ = default.choose_system(features, normals, why)
    assert isinstance(system, Watch)
    assert {name: weight for name, weight, _ in system.parts} == pytest.approx(expected)
    assert ("and of how its level swings" in why) == ("modulation" in expected)


def test_every_part_has_words_for_a_plant() -> None:
    parts = {*default.SHRINKAGE, "rhythm"}
    assert parts <= TRIGGERS.keys()
    assert noticed(["clean"]) == "its sound without the room"
    assert noticed(["clean", "burst", "mine"]) == "its sound without the room, sudden knocks and mine"


def test_deterministic_and_storable() -> None:
    system, why = choose(clips(False))
    assert (system, why) == choose(clips(False))
    assert from_json(system.to_json()) == system


def test_tiny_and_no_clips() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 1700))
    assert view([Clip(noise[0], noise[1], RATE)])
    with pytest.raises(ValueError, match="none"):
        default.features([])
