"""The default without weights: which microphones it uses, which window, and that it says so."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from nearfar.audio import Clip
from nearfar.detector import default
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


def views(system: System) -> list[str]:
    assert isinstance(system, Watch)
    return [recipe.view for recipe in leaves(system)]


def test_one_channel_is_heard_alone() -> None:
    system, why = default.choose_recipe([Clip(clip.near, None, RATE) for clip in clips(False)])
    assert views(system) == ["near_only", "near_only"]
    assert "one channel" in why


def test_some_recordings_without_far_mean_near_alone() -> None:
    mixed = [Clip(clip.near, clip.far if i else None, RATE) for i, clip in enumerate(clips(False))]
    system, why = default.choose_recipe(mixed)
    assert views(system) == ["near_only", "near_only"]
    assert "1 of 9 recordings has one channel" in why


@pytest.mark.parametrize("gain", [1.0, -0.3])
def test_one_cable_on_both_channels(gain: float) -> None:
    system, why = default.choose_recipe([Clip(clip.near, gain * clip.near, RATE) for clip in clips(False)])
    assert views(system) == ["near_only", "near_only"]
    assert "same signal" in why


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
    system, why = default.choose_recipe([Clip(clip.near, far[: len(clip.near)], RATE) for clip in clips(False)])
    assert views(system) == ["near_only", "near_only"]
    assert f"{what} in 9 of 9" in why


def test_far_in_the_room_is_subtracted_and_the_figures_are_told() -> None:
    system, why = default.choose_recipe(clips(False))
    assert views(system) == ["w1i_4096", "w1i_4096"]
    assert "Both microphones are used" in why
    assert f"{np.median([default.direct_sound_ratio(c.near, c.far) for c in clips(False)]):.0%} of what" in why  # type: ignore[arg-type]
    assert "0.26 s" in why and "3 s" in why


def test_far_beside_the_machine_is_not_subtracted() -> None:
    system, why = default.choose_recipe(clips(True))
    assert views(system) == ["near_only", "near_only"]
    assert "hears the machine itself" in why and "limit" in why


def test_one_direct_sound_on_both_microphones_is_not_subtracted() -> None:
    beside = []
    for seed in range(9):
        rng = np.random.default_rng(seed)
        machine = np.convolve(rng.normal(size=3 * RATE), echoes(1, 0, 2.0))[: 3 * RATE]
        far = np.roll(machine, 5) + 0.5 * rng.normal(size=3 * RATE)
        beside.append(Clip(0.02 * (machine + 0.5 * rng.normal(size=3 * RATE)), 0.02 * far, RATE))
    system, why = default.choose_recipe(beside)
    assert views(system) == ["near_only", "near_only"]
    assert "hears the machine itself" in why


@pytest.mark.parametrize("far_beside", [False, True])
def test_the_far_microphones_gain_does_not_matter(far_beside: bool) -> None:
    quieter = [Clip(clip.near, 0.05 * np.asarray(clip.far), RATE) for clip in clips(far_beside)]
    assert default.choose_recipe(quieter) == default.choose_recipe(clips(far_beside))


def test_a_sound_that_far_hears_first_is_not_the_machine() -> None:
    far = np.random.default_rng(0).normal(size=RATE)
    assert default.direct_sound_ratio(np.roll(far, 100), far) == 0
    assert default.direct_sound_ratio(np.roll(far, -100), far) > 0.8
    assert default.direct_sound_ratio(np.zeros(RATE), far) == 0


@pytest.mark.slow
def test_the_shortest_recording_decides_the_window() -> None:
    long = list(clips(False, 11.0)[:4])
    assert views(default.choose_recipe(long)[0]) == ["w1i_16384", "w1i_8192"]
    assert views(default.choose_recipe([*long, clips(False, 0.6)[0]])[0]) == ["w1i_1024", "w1i_1024"]


def test_other_rates_are_judged_at_the_rate_of_the_subtraction() -> None:
    as_48k = [Clip(np.repeat(c.near, 3), np.repeat(c.far, 3), 48_000) for c in clips(False)]  # type: ignore[arg-type]
    assert views(default.choose_recipe(as_48k)[0]) == ["w1i_4096", "w1i_4096"]


def test_few_normals_are_set_apart_by_the_count_of_all() -> None:
    few, why = default.choose_recipe(clips(False)[:3], count=40)
    many, _ = default.choose_recipe(clips(False)[:3], count=1000)
    assert [recipe.shrinkage for recipe in leaves(few)] == [0.03, 0.1]
    assert [recipe.shrinkage for recipe in leaves(many)] == [0.1, 0.1]
    assert "few" in why


def test_deterministic_and_storable() -> None:
    system, why = default.choose_recipe(clips(False))
    assert (system, why) == default.choose_recipe(clips(False))
    assert isinstance(system, Watch)
    assert from_json(system.to_json()) == system


def test_tiny_and_no_clips() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 1700))
    assert views(default.choose_recipe([Clip(noise[0], noise[1], RATE)])[0])
    with pytest.raises(ValueError, match="none"):
        default.choose_recipe([])
