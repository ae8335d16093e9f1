"""Normals looked over before a fit: vectors that do not vary, two groups, and too few of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nearfar
from conftest import hum
from nearfar.detector import review
from nearfar.detector.review import by_sound, splits
from nearfar.detector.system import PValue, from_normals, least_spread, unit_of
from nearfar.embedding.facts import BandLevels
from nearfar.recipe import Fusion, Recipe

CLIPS = [hum(i, seconds=0.5) for i in range(6)]
FRESH = [hum(1000 + i, seconds=0.5) for i in range(3)]


def bands(n: int, seed: int, offset: float = 0.0, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Near and far (n, 128) of one machine; another seed of `offset` dB is another place."""
    rng, place = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    near, far = offset * place.standard_normal((2, 1, 128)) - 60
    level = rng.normal(0, 4, (n, 1))
    return near + level + rng.normal(0, spread, (n, 128)), far + level + rng.normal(0, spread, (n, 128))


def test_two_places_are_two_groups_whatever_the_levels_and_the_order() -> None:
    (near, far), (other, other_far) = bands(9, 0, 3.0), bands(5, 1, 3.0)
    order = np.random.default_rng(0).permutation(14)
    members = by_sound(np.concatenate([near, other])[order], np.concatenate([far, other_far])[order])
    assert members is not None
    np.testing.assert_array_equal(members, order >= 9)
    alone = by_sound(np.concatenate([near, other])[order], None)
    np.testing.assert_array_equal(alone, order >= 9)


@pytest.mark.parametrize("seed", range(4))
def test_one_machine_is_one_group(seed: int) -> None:
    near, far = bands(20, seed, 3.0)
    assert by_sound(near, far) is None and by_sound(near, None) is None
    speeds = np.zeros(128)
    speeds[:40] = 8  # a change of speed moves the low bands of near, and hardly far
    faster = near + speeds * (np.arange(20) % 2)[:, None]
    assert by_sound(faster, far) is None and by_sound(faster, None) is None


def test_a_group_has_three_recordings_and_a_tenth_of_all() -> None:
    for first, second, found in ((9, 2, False), (9, 3, True), (40, 3, False), (40, 5, True)):
        pairs = zip(bands(first, 0, 3.0), bands(second, 1, 3.0), strict=True)
        near, far = (np.concatenate(pair) for pair in pairs)
        assert (by_sound(near, far) is not None) is found


def test_many_recordings_are_cut_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = (np.concatenate(pair) for pair in zip(bands(40, 0, 3.0), bands(20, 1, 3.0), strict=True))
    monkeypatch.setattr(review, "MOST", 25)
    np.testing.assert_array_equal(by_sound(near, far), np.arange(60) >= 40)


def test_groups_by_rate_channels_and_length() -> None:
    near, far = bands(12, 0)
    eight = [False] * 8 + [True] * 4
    found = splits([16_000] * 8 + [48_000] * 4, [2] * 8 + [1] * 4, [10.0, 9.5] * 4 + [2.0] * 4, near, far)
    assert [split.kind for split in found] == ["rate", "channels", "length"]
    assert [split.values for split in found] == [
        ("16,000 Hz", "48,000 Hz"),
        ("2 channels", "1 channel"),
        ("9.75 s", "2 s"),
    ]
    for split in found:
        np.testing.assert_array_equal(split.members, eight)
    names = [f"{i}.wav" for i in range(12)]
    assert found[0].files(names) == (names[:8], names[8:])
    assert found[0].text(names) == (
        "the normals fall into two groups by rate, 8 recordings of 16,000 Hz (0.wav, 1.wav, 2.wav, 5 more) and "
        "4 recordings of 48,000 Hz (8.wav, 9.wav, 10.wav, 1 more): another recorder or setting?"
    )


def test_lengths_that_run_on_or_are_cut_into_windows_are_one_group() -> None:
    near, far = bands(12, 0)
    for seconds in (list(np.geomspace(2, 9, 12)), [10.0] * 6 + [600.0] * 6, [10.0] * 10 + [2.0] * 2):
        assert splits([16_000] * 12, [2] * 12, seconds, near, far) == []


def test_sound_that_shows_the_groups_of_the_rate_is_not_said_twice() -> None:
    near, far = (np.concatenate(pair) for pair in zip(bands(9, 0, 3.0), bands(5, 1, 3.0), strict=True))
    kinds = [s.kind for s in splits([16_000] * 9 + [8000] * 5, [2] * 14, [5.0] * 14, near, far)]
    assert kinds == ["rate"]
    assert [s.kind for s in splits([16_000] * 14, [2] * 14, [5.0] * 14, near, far)] == ["sound"]


def test_fit_asks_about_two_machines_and_not_about_two_domains() -> None:
    normals = [hum(i, seconds=0.5) for i in range(5)] + [hum(i, seconds=0.5, fault="hiss") for i in range(5, 10)]
    mono = [nearfar.Clip(clip.near, None, clip.rate, clip.name) for clip in normals]
    detector = nearfar.Detector(Recipe())
    with pytest.warns(UserWarning, match=r"two groups by sound, 5 recordings .* another machine"):
        detector.fit(mono)
    assert len(detector.remarks) == 1 and "nearfar doctor" in detector.remarks[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.fit(mono, [False] * 5 + [True] * 5)
    assert detector.remarks == []


def test_add_says_that_the_new_recordings_are_unlike_the_bank(tmp_path) -> None:
    detector = nearfar.Detector(Recipe()).fit([hum(i, seconds=0.5) for i in range(8)])
    with pytest.warns(UserWarning, match="of 4 of these, 4 would be an alarm"):
        detector.add([hum(i, seconds=0.5, fault="hiss") for i in range(20, 24)])
    assert len(detector.remarks) == 1 and "another machine?" in detector.remarks[0]
    assert nearfar.load(detector.save(tmp_path / "m")).remarks == detector.remarks == detector.doubts[:1]
    detector.add([hum(30, seconds=0.5)])
    assert detector.remarks == []


def test_vectors_that_are_the_same_for_different_recordings_are_refused() -> None:
    levels = [BandLevels.of(clip) for clip in CLIPS]
    varied = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    same = np.ones((6, 4), np.float32) + 1e-7 * varied
    recipe = Recipe()
    review.check_vectors([recipe], [varied], levels)
    review.check_vectors([recipe], [same], levels[:1] * 6)  # six copies of one recording
    review.check_vectors([Recipe(encoder="rhythm", method="as_is")], [same], levels)
    with pytest.raises(ValueError, match="logmel gives the same vector for all 6 recordings, though they differ"):
        review.check_vectors([recipe, recipe], [varied, same], levels)
    with pytest.raises(ValueError, match=r"ced-tiny gives a vector of zeros .* damaged or cut off: .* --pull"):
        review.check_vectors([Recipe(encoder="ced-tiny")], [0 * same], levels)


def test_a_recipe_that_leaves_nothing_of_the_sound_is_refused_by_fit_and_by_add() -> None:
    with pytest.raises(ValueError, match=r"a vector of zeros .* the recipe leaves nothing of the sound \(low 1000"):
        nearfar.Detector(Recipe(low=1000.0)).fit(CLIPS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8), st.floats(1e-6, 1e6))
def test_the_unit_of_few_normals_is_floored_and_scales_with_the_scores(values: list[float], scale: float) -> None:
    lone = np.array(values)
    mu, sigma = unit_of(lone)
    assert mu == pytest.approx(lone.mean()) and sigma >= lone.mean() / (len(lone) - 1) ** 2 * (1 - 1e-9)
    assert sigma == pytest.approx(max(lone.std(), least_spread(lone)))
    assert unit_of(scale * lone) == pytest.approx((scale * mu, scale * sigma))


def test_the_unit_of_many_normals_is_their_standard_deviation() -> None:
    lone = np.random.default_rng(0).gamma(20, 0.05, 60)
    assert unit_of(lone) == (pytest.approx(lone.mean()), pytest.approx(lone.std()))
    assert unit_of(np.zeros(5)) == (0, 1e-3) and unit_of(np.full(2, 0.3)) == (pytest.approx(0.3), pytest.approx(0.3))


def test_the_excess_of_equal_scores_has_a_floor() -> None:
    assert from_normals(np.zeros(2), 1 / 3).value == pytest.approx(1.0)  # (k + 1)^(1 / k) - 1 = 1 excess, k = 1
    assert PValue(np.zeros(2), least=0.5).excess == 0.5 and PValue([0.0, 1, 2], least=5).excess == 5


SYSTEMS = {
    "default": None,
    "raw": Recipe(),
    "euclidean": Recipe(metric="euclidean", normalize=False),
    "ldn": Recipe(method="ldn"),
    "varmin": Recipe(method="varmin"),
    "domain_z": Recipe(method="domain_z"),
    "zmin": Recipe(method="zmin"),
    "mahalanobis": Recipe(method="mahalanobis"),
    "whitened": Recipe(whiten=True),
    "fusion": Fusion(((0.5, Recipe()), (0.5, Recipe(method="ldn")))),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_normals_give_sensible_numbers(name: str, count: int) -> None:
    detector = nearfar.Detector(SYSTEMS[name])
    fewest = {"ldn": 3, "fusion": 3, "domain_z": 4, "zmin": 4, "mahalanobis": 4, "whitened": 4}.get(name, 2)
    if count < fewest:
        with pytest.raises(ValueError, match=f"needs at least {fewest} usable normal recordings, not {count}"):
            detector.fit(CLIPS[:count])
        return
    detector.fit(CLIPS[:count])
    scores = np.array([score.score for score in detector.score(FRESH)])
    assert np.isfinite(scores).all() and np.abs(scores).max() < 1e3
    assert 0.1 < detector.threshold.value < 10 and detector.unusual_threshold > 0.1
    assert detector.remarks[-1].startswith(f"{count} normals can promise nothing")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["default", "raw", "varmin"])
@pytest.mark.parametrize("count", [2, 6])
def test_copies_of_one_recording_give_finite_numbers(name: str, count: int) -> None:
    detector = nearfar.Detector(SYSTEMS[name]).fit(CLIPS[:1] * count, copies=True)
    scores = np.array([score.score for score in detector.score([*CLIPS[:1], *FRESH])])
    assert np.isfinite(scores).all() and np.abs(scores).max() < 1e3 and (scores[1:] > scores[0]).all()


def test_groups_by_codec_and_by_level():
    rng = np.random.default_rng(0)
    near = rng.normal(-50, 1, (14, 32))
    near[9:] -= 46
    facts = [16_000] * 14, [2] * 14, [5.0] * 14
    (level,) = splits(*facts, near, None)
    assert level.kind == "level" and level.members.tolist() == [False] * 9 + [True] * 5
    assert level.values == ("the usual level", "46 dB less")
    near[9:] += 46
    assert splits(*facts, near, None) == []
    (codec,) = splits(*facts, near, None, ["PCM"] * 9 + ["MP3"] * 5)
    assert codec.kind == "codec" and codec.values == ("without loss", "with loss (MP3)")
    spread = np.linspace(-90, -30, 14)[:, None] + np.zeros((14, 32))
    assert splits(*facts, spread, None) == []
