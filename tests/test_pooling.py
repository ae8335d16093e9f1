"""Temporal pooling (report 2.6, eq. 14-16) against the equations, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import oracles
from nearfar.pooling import (
    POOLINGS,
    burst,
    deviation_weights,
    gem,
    length,
    mean,
    mean_std,
    peak,
    pool,
    power,
    quantile,
    quiet,
    rdp,
    rdp_gem,
)

values = st.floats(-10, 10).map(lambda v: round(v, 3))
clips = st.tuples(st.integers(1, 7), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=values)
)
several = settings(max_examples=40, deadline=None)
x = np.random.default_rng(0).normal(size=(2, 3, 7, 5))


@several
@given(clips, st.sampled_from([1, 3, 9]), st.sampled_from([0, 1, 9, 16, 19, 20]))
def test_every_pooling_of_the_report_is_its_equation(x, p, alpha):
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(mean(x), sum(x) / len(x), **close)
    np.testing.assert_allclose(gem(x, p), oracles.gem(x, p), **close)
    np.testing.assert_allclose(rdp(x, alpha), oracles.rdp(x, alpha), **close)
    np.testing.assert_allclose(rdp_gem(x, alpha, p), oracles.rdp_gem(x, alpha, p), **close)


@pytest.mark.parametrize("kind", POOLINGS)
def test_leading_axes_are_clips_pooled_one_by_one(kind):
    together = pool(x, kind, alpha=9, p=3)
    for i in np.ndindex(x.shape[:2]):
        np.testing.assert_allclose(together[i], pool(x[i], kind, alpha=9, p=3), rtol=1e-12)


@several
@given(clips, st.sampled_from(sorted(POOLINGS)), st.randoms(use_true_random=False))
def test_the_order_of_the_frames_does_not_matter(x, kind, random):
    order = list(range(len(x)))
    random.shuffle(order)
    if kind == "burst":  # of the frames that it does not leave out
        edge = 1 if len(x) > 2 else 0
        order = [*range(edge), *(i for i in order if edge <= i < len(x) - edge), *range(len(x) - edge, len(x))]
    np.testing.assert_allclose(pool(x[order], kind, alpha=9), pool(x, kind, alpha=9), rtol=1e-9, atol=1e-9)


@several
@given(clips, st.sampled_from(["mean", "gem", "rdp", "rdp_gem"]), st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_a_scale_of_the_frames_is_a_scale_of_the_pool(x, kind, c):
    if np.ptp(x) > 0.01:  # else the eps of eq. 15 is all there is
        np.testing.assert_allclose(pool(c * x, kind, alpha=9), c * pool(x, kind, alpha=9), rtol=1e-6, atol=1e-7 * c)


@several
@given(clips, st.floats(-5, 5))
def test_a_shift_of_the_frames_is_a_shift_of_mean_and_rdp(x, b):
    for kind in ("mean", "rdp"):
        np.testing.assert_allclose(pool(x + b, kind, alpha=9), pool(x, kind, alpha=9) + b, rtol=1e-6, atol=1e-6)


def test_identities_between_the_poolings():
    np.testing.assert_allclose(rdp(x, alpha=0), mean(x))
    np.testing.assert_allclose(rdp_gem(x, alpha=0, p=3), gem(x, p=3))
    np.testing.assert_allclose(gem(np.abs(x), p=1), mean(np.abs(x)))
    np.testing.assert_allclose(rdp_gem(np.abs(x), alpha=9, p=1), rdp(np.abs(x), alpha=9))
    np.testing.assert_allclose(gem(x, p=2000), np.maximum(x, 0).max(axis=-2), rtol=2e-3)
    assert not np.allclose(gem(x, p=1), mean(x))  # p = 1 clamps negatives, so it is not the mean


def test_constant_frames_and_a_single_frame_pool_to_themselves():
    constant = np.full((6, 3), 0.7, np.float32)
    for kind in ("mean", "gem", "rdp", "rdp_gem"):
        np.testing.assert_allclose(pool(constant, kind, alpha=20), 0.7, rtol=1e-6)
        np.testing.assert_allclose(pool(np.abs(x[0, 0, :1]), kind, alpha=20), np.abs(x[0, 0, 0]), rtol=1e-12)
    np.testing.assert_allclose(deviation_weights(np.ones((4, 2)), 20), 0.25)


def test_weights_sum_to_one_and_grow_with_the_deviation():
    w = deviation_weights(x, 9)
    np.testing.assert_allclose(w.sum(axis=-1), 1)
    d = np.linalg.norm(x - x.mean(axis=-2, keepdims=True), axis=-1)
    np.testing.assert_array_equal(np.argsort(w, axis=-1), np.argsort(d, axis=-1))
    assert np.isfinite(deviation_weights(x.astype(np.float32), 1000)).all()  # 2 ** 1000 is not a float32


@pytest.mark.parametrize("size", [1e-30, 1e-5, 1, 1e5, 1e30])
def test_powers_neither_underflow_nor_overflow_in_float32(size):
    frames = (np.abs(x[0, 0]) * size).astype(np.float32)
    for p in (9, 10):
        np.testing.assert_allclose(gem(frames, p), oracles.gem(frames, p), rtol=1e-5)
    assert gem(frames, 9).dtype == np.float32


def test_a_feature_that_is_never_positive_pools_to_zero_and_a_spike_is_not_lost():
    frames = np.zeros((4, 2), np.float32)
    frames[:, 1] = -1
    np.testing.assert_array_equal(gem(frames, 9), [0, 0])
    np.testing.assert_array_equal(rdp_gem(frames, 20, 3), [0, 0])
    assert gem(np.array([[0], [0], [0], [16]], np.float32), 3) == pytest.approx(16 / 4 ** (1 / 3))


def test_gem_never_exceeds_the_maximum_even_for_a_tiny_p():
    assert (gem(x, 1e-9) <= np.maximum(x, 0).max(axis=-2)).all()


def test_decibel_poolings_are_what_they_say():
    frames = x[0, 0] * 20
    quiet, power = np.split(quantile(frames), 2)
    np.testing.assert_allclose(quiet, np.quantile(frames, 0.25, axis=0))
    np.testing.assert_allclose(power, 10 * np.log10(np.mean(10 ** (frames / 10), axis=0)))
    np.testing.assert_allclose(peak(frames), frames.max(axis=0) - frames.mean(axis=0))
    np.testing.assert_allclose(mean_std(frames), np.r_[frames.mean(axis=0), frames.std(axis=0)])


@several
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 9)).flatmap(lambda shape: arrays(np.float64, shape, elements=values))
)
def test_poolings_of_power_are_their_equations(x):
    x = 12 * x  # decibels
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(quiet(x), oracles.quiet(x), **close)
    np.testing.assert_allclose(power(x), oracles.power(x), **close)
    np.testing.assert_allclose(burst(x), oracles.burst(x), **close)
    for kind in POOLINGS:
        assert pool(x, kind).shape == (length(kind, x.shape[1]),)


@several
@given(clips, st.floats(-40, 40))
def test_a_louder_clip_has_more_power_and_the_same_bursts(x, decibels):
    for kind in ("quiet", "power"):
        np.testing.assert_allclose(pool(x + decibels, kind), pool(x, kind) + decibels, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(burst(x + decibels), burst(x), rtol=1e-9, atol=1e-9)


def test_a_knock_is_a_burst_in_its_bands_and_hardly_anything_else():
    frames = np.zeros((101, 8))
    frames[50, :4] = 20  # one of the 85 frames that are left
    assert burst(frames) == pytest.approx([20 * 84 / 85, 0])
    np.testing.assert_array_equal(quiet(frames), 0)
    assert power(frames)[:4] == pytest.approx(10 * np.log10((100 + 100) / 101))
    frames[[7, -8]] = 60  # at the ends, where the window is filled up with a mirror image
    assert burst(frames) == pytest.approx([20 * 84 / 85, 0])


@pytest.mark.parametrize("level", [-1e30, -1e4, 0, 1e4, 1e30])
def test_powers_in_decibels_neither_underflow_nor_overflow(level):
    frames = (level * np.linspace(0.5, 1, 40)[:, None] * np.ones(5)).astype(np.float32)
    for kind in ("quiet", "power", "burst"):
        assert np.isfinite(pool(frames, kind)).all()


def test_a_clip_without_frames_is_refused():
    for shape in ((0, 4), (4,), ()):
        with pytest.raises(ValueError, match="at least one frame"):
            mean(np.zeros(shape))
