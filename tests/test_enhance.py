"""Waveform enhancement (report eq. 6-11, leakage subtraction) against the equations, and its promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from nearfar.enhance import leakage_subtract, longest_window, soft_mask, soft_masks
from nearfar.recipe import SOFT_MASKS

WAYS = {
    "a03f05": lambda near, far: soft_mask(near, far, alpha=0.3, floor=0.5),
    "a05f07": lambda near, far: soft_mask(near, far, alpha=0.5, floor=0.7),
    "a1f0": lambda near, far: soft_mask(near, far, alpha=1, floor=0, n_fft=256, hop=100),
    "w1": leakage_subtract,
    "w1 256": lambda near, far: leakage_subtract(near, far, n_fft=256),
    "w1w": lambda near, far: leakage_subtract(near, far, n_fft=512, weighted=True),
    "w1w 4096": lambda near, far: leakage_subtract(near, far, n_fft=4096, weighted=True),
}


def pair(length, seed=0):
    """A machine near the near microphone, and noise that both hear, the near one late and filtered."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=length + 8)
    machine = np.sin(0.05 * np.arange(length)) * (1 + 0.3 * np.sin(0.001 * np.arange(length)))
    return 0.1 * (machine + 0.5 * noise[:length] + 0.3 * noise[3 : length + 3]), 0.1 * noise[8:]


@pytest.mark.parametrize("length", [2048, 4001])
@pytest.mark.parametrize("mask", SOFT_MASKS)
def test_the_soft_mask_is_equations_6_to_11(mask, length):
    alpha, floor = SOFT_MASKS[mask]
    near, far = pair(length)
    np.testing.assert_allclose(
        soft_mask(near, far, alpha=alpha, floor=floor), oracles.soft_mask(near, far, alpha, floor), atol=1e-10
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_masks_that_are_made_together_are_those_made_alone_to_the_last_bit(kind):
    near, far = (x.astype(kind) for x in pair(9001))
    settings = [*SOFT_MASKS.values(), (1, 0)]
    for (alpha, floor), mask in zip(settings, soft_masks(near, far, settings), strict=True):
        np.testing.assert_array_equal(mask, soft_mask(near, far, alpha=alpha, floor=floor))


@pytest.mark.parametrize(
    ("n_fft", "hop", "weighted"), [(1024, 512, False), (512, 128, True), (256, 128, False), (300, 100, True)]
)
def test_leakage_subtraction_is_its_definition(n_fft, hop, weighted):
    near, far = pair(3001)
    got = leakage_subtract(near, far, n_fft=n_fft, hop=hop, weighted=weighted)
    np.testing.assert_allclose(got, oracles.leakage_subtract(near, far, n_fft, hop, weighted), atol=1e-9)


def test_the_hop_is_half_a_window_and_a_quarter_if_weighted():
    near, far = pair(3000)
    np.testing.assert_array_equal(leakage_subtract(near, far), leakage_subtract(near, far, hop=512))
    weighted = leakage_subtract(near, far, weighted=True)
    np.testing.assert_array_equal(weighted, leakage_subtract(near, far, hop=256, weighted=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [1, 2, 3, 255, 1000, 1024, 1025, 5003])
def test_length_and_kind_of_number_are_kept_and_the_result_is_finite_and_bounded(way, length):
    for kind in (np.float32, np.float64):
        near, far = (x.astype(kind) for x in pair(length))
        out = WAYS[way](near, far)
        assert out.shape == near.shape and out.dtype == kind
        assert np.isfinite(out).all()
        assert np.abs(out).max() <= 2 * np.abs(near).max()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(WAYS)), st.sampled_from([1e-4, 0.3, 1e3]), st.integers(700, 3000))
def test_louder_in_is_louder_out_and_nothing_else(way, c, length):
    near, far = pair(length)
    np.testing.assert_allclose(WAYS[way](c * near, c * far), c * WAYS[way](near, far), atol=1e-9 * c)
    near32, far32 = near.astype(np.float32), far.astype(np.float32)
    out = WAYS[way](np.float32(c) * near32, np.float32(c) * far32)
    np.testing.assert_allclose(out, c * WAYS[way](near32, far32), atol=1e-5 * c)


@pytest.mark.parametrize("way", WAYS)
def test_the_far_microphone_s_own_gain_drops_out(way):
    near, far = pair(3000)
    for gain in (1e-6, 0.1, -1, 1e6):
        np.testing.assert_allclose(WAYS[way](near, gain * far), WAYS[way](near, far), atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_a_silent_far_channel_leaves_near_as_it_is_and_a_silent_near_stays_silent(way):
    near, far = (x.astype(np.float32) for x in pair(3001))
    np.testing.assert_array_equal(WAYS[way](near, 0 * far), near)
    np.testing.assert_array_equal(WAYS[way](0 * near, far), 0 * near)


@pytest.mark.parametrize("way", WAYS)
def test_clips_of_a_batch_do_not_know_of_each_other(way):
    near, far = np.stack([pair(2500, seed) for seed in range(4)], axis=1)
    far[2] = 0
    near[1] *= 1e-4
    together = WAYS[way](near.reshape(2, 2, -1), far.reshape(2, 2, -1)).reshape(4, -1)
    for i in range(4):
        np.testing.assert_allclose(together[i], WAYS[way](near[i], far[i]), atol=1e-12)


def test_a_far_channel_that_is_near_itself_gives_the_factor_one_minus_half_alpha():
    near, _ = pair(4000)
    for (alpha, floor), factor in (((0.3, 0.5), 0.85), ((0.5, 0.7), 0.75)):
        np.testing.assert_allclose(soft_mask(near, near, alpha=alpha, floor=floor), factor * near, atol=1e-7)
    for weighted in (False, True):
        assert np.abs(leakage_subtract(near, near, weighted=weighted)).max() < 1e-6


def test_the_floor_of_the_mild_mask_is_never_reached_and_that_of_the_stronger_one_is():
    near, far = pair(4000)
    near += far * 5
    mild = [soft_mask(near, far, alpha=0.3, floor=floor) for floor in (0.0, 0.5, 0.7)]
    np.testing.assert_array_equal(mild[0], mild[1])
    np.testing.assert_allclose(mild[0], mild[2], atol=1e-15)
    strong = [soft_mask(near, far, alpha=0.5, floor=floor) for floor in (0.0, 0.7)]
    assert np.abs(strong[0] - strong[1]).max() > 1e-3


def test_alpha_0_changes_nothing():
    near, far = pair(3003)
    np.testing.assert_allclose(soft_mask(near, far, alpha=0, floor=0.5), near, atol=1e-12)
    np.testing.assert_allclose(soft_mask(near, far, alpha=1, floor=1), near, atol=1e-12)


def test_subtraction_takes_out_what_far_explains_and_weights_spare_the_machine():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=64_000)
    machine = np.zeros(64_000)
    machine[20_000:30_000] = 6 * rng.normal(size=10_000)  # loud for a moment: plain least squares listens to it
    leak = np.convolve(noise, [0.9, 0.5, -0.4, 0.2])[:64_000]
    left = {
        weighted: np.mean((leakage_subtract(machine + leak, noise, n_fft=512, weighted=weighted) - machine) ** 2)
        for weighted in (False, True)
    }
    assert left[False] < 0.2 * np.mean(leak**2)
    assert left[True] < 0.5 * left[False]


def test_a_tone_in_a_single_bin_and_extreme_contrast_stay_finite():
    t = np.arange(8192)
    near, far = np.sin(2 * np.pi * 32 * t / 1024), np.zeros(8192)
    far[4000] = 1e-30
    for way in WAYS.values():
        for other in (far, near, 1e-300 * near, np.r_[near[1:], 0]):
            out = way(near, other)
            assert np.isfinite(out).all() and np.abs(out).max() <= 2


def test_the_longest_window_leaves_eight_frames_to_a_clip():
    assert longest_window(10 * 16_000) == 16_384
    assert longest_window(1) == 256
    windows = [longest_window(n) for n in range(1000, 200_000, 1000)]
    assert windows == sorted(windows)


def test_a_wave_without_samples_is_refused():
    for empty in (np.zeros(0), np.zeros((2, 0)), np.float64(1)):
        with pytest.raises(ValueError, match="near holds no samples"):
            leakage_subtract(empty, empty)


def test_what_the_subtraction_heaps_up_is_limited_to_twice_the_peak():
    # H turns the click into noise; the same noise backwards in far then becomes a click of all of its energy.
    noise = np.sign(np.random.default_rng(0).normal(size=512)).astype(np.float32)
    near, far = np.zeros((2, 16_384), np.float32)
    near[4000:4512], far[4000], far[10_000:10_512] = noise, 1, noise[::-1] / 512**0.5
    out = leakage_subtract(near, far)
    assert np.abs(out).max() == 2 * np.abs(near).max()
