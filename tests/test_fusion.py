"""Score-level fusion (report 2.8, eq. 17-18)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from nearfar.backend import fit
from nearfar.fusion import align, check_weights, fuse, statistics
from nearfar.recipe import FUSION

rng = np.random.default_rng(0)
PARTS = [(rng.normal(m, s, 50), rng.normal(m + s, s, 20)) for m, s in ((0, 1), (1e-4, 1e-6), (500, 3))]


def test_fusion_is_equations_17_and_18():
    weights = [0.5, 0.3, 0.2]
    np.testing.assert_allclose(fuse(PARTS, weights), oracles.fuse(PARTS, weights), rtol=1e-5)
    assert fuse(PARTS, weights).dtype == np.float32
    for i in range(3):
        np.testing.assert_allclose(fuse(PARTS, np.eye(3)[i]), align(*PARTS[i]), rtol=1e-6)


def test_aligned_training_scores_have_mean_0_and_deviation_1():
    for train, _ in PARTS:
        aligned = align(train, train)
        assert abs(aligned.mean()) < 1e-6 and aligned.std() == pytest.approx(1, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_a_system_s_own_units_do_not_matter(scale, offset):
    (train, scores), other, _ = PARTS
    moved = (scale * train + offset, scale * scores + offset)
    np.testing.assert_allclose(
        fuse([moved, other], [0.4, 0.6]), fuse([PARTS[0], other], [0.4, 0.6]), rtol=1e-4, atol=1e-5
    )


def test_a_system_without_spread_stays_finite_and_silent():
    for constant in (0.0, 3.0, -1e6):
        aligned = align(np.full(9, constant), [constant, constant])
        np.testing.assert_array_equal(aligned, 0)
        assert np.isfinite(align(np.full(9, constant), [constant + 1])).all()


def test_domains_can_be_balanced():
    scores, is_target = np.r_[np.zeros(990), np.ones(10)], np.arange(1000) >= 990
    assert statistics(scores)[0] == pytest.approx(0.01)
    assert statistics(scores, is_target) == pytest.approx((0.5, 0.5))
    assert statistics(scores, np.zeros(1000, bool)) == pytest.approx(statistics(scores))


def test_scores_do_not_depend_on_the_batch():
    together = fuse(PARTS, [0.5, 0.3, 0.2])
    for i in range(20):
        alone = fuse([(train, scores[i : i + 1]) for train, scores in PARTS], [0.5, 0.3, 0.2])
        np.testing.assert_array_equal(alone, together[i : i + 1])


def test_weights_are_counted_and_must_sum_to_one():
    np.testing.assert_allclose(check_weights([w for w, _ in FUSION.parts], 5), [0.55, 0.2, 0.05, 0.05, 0.15])
    check_weights([1 / 3] * 3, 3)
    for bad in ([0.5, 0.4], [1.2, -0.2], [1.0], []):
        with pytest.raises(ValueError, match="weight"):
            check_weights(bad, 2)


def test_training_scores_that_see_themselves_would_make_fusion_meaningless():
    z, q = rng.normal(size=(80, 6)), rng.normal(size=(10, 6))
    backend = fit(z)
    assert statistics(backend.score(z)) == (0, 0)  # every clip is its own nearest neighbour
    fair = align(backend.train_scores, backend.score(q))
    assert np.abs(fair).max() < 10
