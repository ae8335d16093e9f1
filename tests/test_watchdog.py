"""The watchdog: what is wrong with a microphone stands after a while, and goes after a while."""

import re

import numpy as np
import pytest

from conftest import RATE, hum
from nearfar import audio
from nearfar.audio import Clip
from nearfar.embedding.facts import BandLevels
from nearfar.live.rules.watchdog import CHECK_EVERY, OFF, Watchdog

PROFILE = BandLevels.total([BandLevels.of(hum(i)) for i in range(6)])


def hear(dog: Watchdog, clip: Clip) -> set[str]:
    return set(dog.check(clip, audio.problems(clip)))


def broken(kind: str, seed: int = 0) -> Clip:
    clip = hum(seed)
    near, far = clip.near.copy(), clip.far.copy()
    if kind == "silent":
        near[:] = 0
    if kind == "stuck":
        near[200:] = near[200]
    if kind == "clipped":
        near = np.clip(near * 40, -1, 1)
    if kind == "one_cable":
        far = near.copy()
    if kind == "gap":
        near[1000:4000] = near[1000]
    if kind == "level of near":
        near = near / 30
    return Clip(near, far, RATE)


@pytest.mark.parametrize("kind", ["silent", "stuck"])
def test_a_dead_microphone_stands_at_once_and_goes_after_some_good_windows(kind):
    dog = Watchdog(PROFILE)
    assert not hear(dog, hum(0))
    assert len(hear(dog, broken(kind))) == 1
    for i in range(OFF - 1):
        assert hear(dog, hum(i))
    assert not hear(dog, hum(9))


@pytest.mark.parametrize("kind", ["clipped", "one_cable", "gap"])
def test_a_warning_has_to_last(kind):
    dog = Watchdog(PROFILE)
    for i in range(5):  # now and then is no trouble
        assert kind not in hear(dog, broken(kind, i))
        for j in range(OFF):
            hear(dog, hum(j))
    hear(dog, broken(kind))
    assert kind in hear(dog, broken(kind, 1))


def test_a_level_that_has_changed_is_noticed_with_its_channel_and_direction():
    dog = Watchdog(PROFILE)
    said: dict[str, str] = {}
    for i in range(2 * CHECK_EVERY):
        said = dict(dog.check(broken("level of near", i), []))
    assert list(said) == ["level of near"] and re.search("(29|30) dB quieter", said["level of near"])  # a thirtieth
    for i in range(2 * CHECK_EVERY):
        said = dict(dog.check(hum(i), []))
    assert not said
