"""The shrunk Gaussian against scikit-learn, brute force, and refitting without each clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

import oracles
from nearfar import gaussian as gaussian_module
from nearfar.gaussian import Gaussian

SHAPES = [(30, 4), (12, 12), (8, 25), (3, 5), (2, 3)]
SETTINGS = [(s, z) for s in ("ledoit_wolf", 0.0, 0.1, 1.0) for z in (False, True)]


def clips(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize("shape", SHAPES)
def test_shrinkage_and_distance_are_ledoit_and_wolf_s(shape):
    x, q = clips(*shape), clips(5, shape[1], seed=1)
    gaussian, reference = Gaussian(x), LedoitWolf().fit(x)
    if shape[0] > 2:
        rho = ledoit_wolf_shrinkage(x)
        assert 1 - gaussian.weight == pytest.approx(rho, abs=1e-10) == oracles.ledoit_wolf_shrinkage(x)
        np.testing.assert_allclose(gaussian.distance(q), np.sqrt(reference.mahalanobis(q)), rtol=1e-6)
    np.testing.assert_allclose(gaussian.distance(q), [oracles.mahalanobis(row, x) for row in q], rtol=1e-6)


@pytest.mark.parametrize(("shrinkage", "standardize"), SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_those_of_the_formula(shape, shrinkage, standardize):
    x, q = clips(*shape), clips(4, shape[1], seed=1)
    got = Gaussian(x, shrinkage=shrinkage, standardize=standardize).distance(q)
    want = [oracles.mahalanobis(row, x, shrinkage, standardize) for row in q]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(("shrinkage", "standardize"), SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_leave_one_out_is_refitting(shape, shrinkage, standardize):
    x = clips(*shape)
    got = Gaussian(x, shrinkage=shrinkage, standardize=standardize).leave_one_out()
    want = [
        Gaussian(np.delete(x, i, axis=0), shrinkage=shrinkage, standardize=standardize).distance(x[i : i + 1])[0]
        for i in range(len(x))
    ]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("steps", [60, 1])
@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", 0.0, 0.03])
def test_leave_one_out_of_standardized_features_is_refitting_whatever_they_are(shrinkage, steps, monkeypatch):
    x = clips(40, 90) * np.geomspace(1e-3, 1e3, 90)
    x[:, 7] = 5.0  # a silent band
    x[3, 11] += 1e4  # one clip apart in one feature
    x[:, 12] = x[0, 12]
    x[5, 12] += 1  # ... and one in which all others coincide
    x[9] = x[10]
    monkeypatch.setattr(gaussian_module, "ROWS", 16)
    monkeypatch.setattr(gaussian_module, "STEPS", steps)  # too few: the clip is refitted
    got = Gaussian(x, shrinkage=shrinkage, standardize=True).leave_one_out()
    each = [Gaussian(np.delete(x, i, axis=0), shrinkage=shrinkage, standardize=True) for i in range(len(x))]
    want = [others.distance(x[i : i + 1])[0] for i, others in enumerate(each)]
    np.testing.assert_allclose(got, want, rtol=1e-7)


@pytest.mark.parametrize(("shrinkage", "standardize"), SETTINGS)
@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e4, 0.0])
def test_clips_that_all_coincide_give_the_euclidean_distance(value, shrinkage, standardize):
    x = np.full((7, 5), value)  # 0.1 seven times has a mean that is not 0.1
    gaussian = Gaussian(x, shrinkage=shrinkage, standardize=standardize)
    np.testing.assert_allclose(gaussian.distance(x[:1] + 1), [np.sqrt(5)], rtol=1e-9)
    np.testing.assert_array_equal(gaussian.leave_one_out(), 0)
    np.testing.assert_array_equal(gaussian.whiten(x), 0)


@pytest.mark.parametrize(("shrinkage", "standardize"), SETTINGS)
def test_one_clip_apart_from_coinciding_others_is_measured_by_euclid(shrinkage, standardize):
    x = np.full((7, 5), 0.1)
    x[3] += 2
    got = Gaussian(x, shrinkage=shrinkage, standardize=standardize).leave_one_out()
    assert got[3] == pytest.approx(2 * np.sqrt(5))
    assert np.isfinite(got).all()


def test_whitening_makes_the_shrunk_covariance_the_identity():
    x = clips(40, 6)
    gaussian = Gaussian(x)
    w = gaussian.whiten(np.eye(6)) - gaussian.whiten(np.zeros((1, 6)))
    _, _, a = oracles.gaussian(x)
    np.testing.assert_allclose(w.T @ a @ w, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(gaussian.whiten(x), oracles.whiten(x, x), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(gaussian.whiten(x), axis=1), gaussian.distance(x), rtol=1e-9)


@pytest.mark.parametrize("shape", [(9, 4), (6, 15), (3, 5), (2, 3)])
def test_whitening_without_a_clip_has_the_distances_of_a_refitted_whitening(shape):
    x = clips(*shape)
    gaussian = Gaussian(x)
    for i in range(len(x)):
        got, want = gaussian.whiten_excluding(i), Gaussian(np.delete(x, i, axis=0)).whiten(x)
        np.testing.assert_allclose(got @ got.T, want @ want.T, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-6, 1e-2, 1e4]), st.sampled_from(SETTINGS))
def test_distances_do_not_depend_on_the_unit_of_the_features(seed, scale, setting):
    x, q = clips(12, 5, seed), clips(3, 5, seed + 1)
    shrinkage, standardize = setting
    one = Gaussian(x, shrinkage=shrinkage, standardize=standardize)
    other = Gaussian(scale * x, shrinkage=shrinkage, standardize=standardize)
    np.testing.assert_allclose(other.distance(scale * q), one.distance(q), rtol=1e-6)
    np.testing.assert_allclose(other.leave_one_out(), one.leave_one_out(), rtol=1e-6)


def test_standardized_features_may_have_any_unit_each():
    x, q = clips(20, 5), clips(3, 5, 1)
    units = np.array([1e-3, 1, 1e3, 10, 0.1])
    one, other = (Gaussian(v, shrinkage=0.1, standardize=True) for v in (x / x.std(axis=0), x / x.std(axis=0) * 7))
    np.testing.assert_allclose(one.distance(q), other.distance(q * 7), rtol=1e-9)
    still = x * units
    still[:, 2] = 5.0  # a feature that never moved is held to a tenth of the typical deviation
    assert np.isfinite(Gaussian(still, shrinkage=0.1, standardize=True).distance(q * units)).all()


def test_an_unknown_shrinkage_is_refused():
    for bad in ("oas", -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="shrinkage"):
            Gaussian(clips(5, 2), shrinkage=bad)


def naive_excluding(x, related, shrinkage, standardize):
    """The Gaussian of the rest, written from the equation, in features divided by the scale of all clips."""
    y = x / oracles.gaussian(x, 0.5, standardize)[1]
    return np.array([oracles.mahalanobis(y[i], y[~related[i]], shrinkage) for i in range(len(x))])


def by_labels(n, count, seed, kinds=1):
    rng = np.random.default_rng(seed)
    related = np.eye(n, dtype=bool)
    for labels in rng.integers(0, count, (kinds, n)):
        related |= labels[:, None] == labels
    related[(~related).sum(axis=1) == 0] = np.eye(n, dtype=bool)[(~related).sum(axis=1) == 0]
    return related


@pytest.mark.parametrize(("shrinkage", "standardize"), SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kinds", [0, 1, 2])
def test_leaving_relatives_out_is_refitting_on_the_rest(shape, shrinkage, standardize, kinds):
    x, related = clips(*shape), by_labels(shape[0], 4, 1, kinds)
    got = Gaussian(x, shrinkage=shrinkage, standardize=standardize).excluding(related)
    tolerance = 1e-6 if shrinkage == 0 or standardize else 1e-9  # the oracle's own system is close to singular at 0
    np.testing.assert_allclose(got, naive_excluding(x, related, shrinkage, standardize), rtol=tolerance)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(3, 40),
    st.integers(1, 50),
    st.integers(0, 9999),
    st.sampled_from([0.01, 0.1, 0.3, 0.9, 1.0, "ledoit_wolf"]),
    st.booleans(),
    st.sampled_from(["plain", "duplicates", "flat", "apart"]),
)
def test_leaving_any_relatives_out_is_refitting_on_the_rest(n, d, seed, shrinkage, standardize, kind):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(1, 30, d)
    if kind == "duplicates":
        x = x[rng.integers(0, max(n // 2, 2), n)]
    if kind == "flat":
        x[:, : d // 2] = 3.0
    if kind == "apart":
        x[0] += 1e3
    related = by_labels(n, int(rng.integers(2, 8)), seed, int(rng.integers(0, 3)))
    got = Gaussian(x, shrinkage=shrinkage, standardize=standardize).excluding(related)
    # Ledoit and Wolf's rho may be its floor of 1e-6, where the oracle's own system is close to singular. Of one feature
    # it is 0 / 0: rounding decides between the floor and 1.
    tolerance = (1e-6 if d == 1 or kind == "apart" else 1e-8) if shrinkage == "ledoit_wolf" else 1e-9
    want = naive_excluding(x, related, shrinkage, standardize)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=1e-9)


def test_leaving_each_clip_out_alone_is_leave_one_out():
    for shrinkage in ("ledoit_wolf", 0.1):
        gaussian = Gaussian(clips(20, 30), shrinkage=shrinkage)
        np.testing.assert_array_equal(gaussian.excluding(np.eye(20, dtype=bool)), gaussian.leave_one_out())


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", 0.0, 0.1, 1.0])
def test_a_rest_that_coincides_or_is_one_clip_is_measured_by_euclid(shrinkage):
    x = clips(9, 6)
    x[4:] = 0.1
    related = np.zeros((9, 9), bool)
    related[:4, :4] = related[4:, 4:] = True
    got = Gaussian(x, shrinkage=shrinkage).excluding(related)
    np.testing.assert_allclose(got[:4], np.linalg.norm(x[:4] - 0.1, axis=1), rtol=1e-9)
    np.testing.assert_allclose(got[4:], naive_excluding(x, related, shrinkage, False)[4:], rtol=1e-6)
    one_left = np.ones((9, 9), bool)
    one_left[np.arange(9), (np.arange(9) + 5) % 9] = False
    got = Gaussian(x, shrinkage=shrinkage).excluding(one_left)
    np.testing.assert_allclose(got, np.linalg.norm(x - np.roll(x, -5, axis=0), axis=1), rtol=1e-9)


def test_relatives_that_are_no_relation_are_refused():
    gaussian = Gaussian(clips(4, 3), shrinkage=0.1)
    for bad in (np.zeros((4, 4), bool), np.eye(3, dtype=bool), np.eye(4), np.ones((4, 4), bool)):
        with pytest.raises(ValueError, match="related"):
            gaussian.excluding(bad)
