"""Views (report 2.3, eq. 2-5) against the equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from nearfar.views import VIEWS, compose, needs_far, unit

rng = np.random.default_rng(0)
near, far = rng.normal(size=(2, 4, 6))
WIDTH = {"near_only": 1, "far_only": 1, "residual_0.5": 1, "n_0.5f": 2, "n_f": 2, "absdif_1": 3, "absdif_0.5": 3}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_its_equation_and_has_unit_length(view):
    got = compose(view, near, far)
    assert got.shape == (4, 6 * WIDTH[view])
    np.testing.assert_allclose(got, [oracles.view(view, n, f) for n, f in zip(near, far, strict=True)], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(VIEWS)), st.sampled_from([1e-20, 1e-4, 3, 1e10]), st.sampled_from([1e-20, 0.1, 1e10]))
def test_the_lengths_of_the_two_embeddings_do_not_matter(view, a, b):
    np.testing.assert_allclose(compose(view, a * near, b * far), compose(view, near, far), rtol=1e-9, atol=1e-12)


def test_the_far_share_of_the_squared_distance_is_beta_squared_over_one_plus_it():
    for view, beta in (("n_0.5f", 0.5), ("n_f", 1.0)):
        z = compose(view, near, far)
        np.testing.assert_allclose((z[:, 6:] ** 2).sum(axis=1), beta**2 / (1 + beta**2))


def test_alike_microphones_have_no_difference_and_a_silent_one_no_direction():
    for view in ("absdif_1", "absdif_0.5"):
        z = compose(view, near, 2 * near)
        np.testing.assert_allclose(z[:, 12:], 0, atol=1e-12)
        np.testing.assert_allclose(z[:, :12], compose("n_f", near, near), rtol=1e-12)
    np.testing.assert_allclose(compose("n_f", near, 0 * far)[:, :6], compose("near_only", near))
    assert not compose("near_only", 0 * near).any()


def test_a_view_that_needs_far_says_so_and_near_only_does_not():
    assert [view for view in VIEWS if not needs_far(view)] == ["near_only"]
    np.testing.assert_array_equal(compose("near_only", near), compose("near_only", near, far))
    with pytest.raises(ValueError, match="'n_f' needs the far channel"):
        compose("n_f", near)
    with pytest.raises(ValueError, match="same shape"):
        compose("n_f", near, far[:3])


def test_features_whose_size_carries_meaning_keep_it():
    np.testing.assert_array_equal(
        compose("n_0.5f", near, far, normalize=False), np.concatenate([near, far / 2], axis=1)
    )
    np.testing.assert_array_equal(compose("near_only", near, normalize=False), near)


def test_float32_stays_float32():
    for view in VIEWS:
        assert compose(view, near.astype(np.float32), far.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("length", [1, 768, 12_288])
def test_each_channel_is_scaled_as_if_it_were_alone_to_the_last_bit(length):
    near, far = np.random.default_rng(0).normal(size=(2, length)).astype(np.float32)
    np.testing.assert_array_equal(compose("n_f", near, far), unit(np.concatenate([unit(near), unit(far)])))


def test_unit_makes_length_one_at_every_size_and_leaves_zero_at_zero():
    v = rng.normal(size=(3, 8))
    for size in (1e-200, 1e-6, 1, 1e200):
        np.testing.assert_allclose(np.linalg.norm(unit(v * size), axis=-1), 1, rtol=1e-12)
    assert not unit(np.zeros((2, 3))).any()
