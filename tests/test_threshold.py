"""Set-points from normals alone: the tail's formula, its inverse, and the false-alarm rate it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nearfar.detector.system import THRESHOLD_METHODS, PValue, Threshold, from_normals, rate_of

rng = np.random.default_rng(0)
scores_of = st.integers(2, 40).flatmap(
    lambda n: arrays(np.float64, n, elements=st.floats(-100, 100).map(lambda v: round(v, 2)))
)
KINDS = {
    "exponential": (lambda rng, size: rng.exponential(size=size), lambda t: np.exp(-np.maximum(t, 0))),
    "normal": (lambda rng, size: rng.normal(size=size), lambda t: stats.norm.sf(t)),
}


def test_within_the_normals_it_is_the_conformal_p_value_and_above_the_predictive_tail():
    for n, k in ((2, 1), (3, 1), (10, 5), (30, 10), (100, 10), (300, 30)):
        s = np.sort(rng.normal(size=n))
        tail = PValue(s)
        assert tail.k == k
        for i in range(n - k):
            assert np.exp(tail.log_p([s[i]])[0]) == pytest.approx((n - i) / (n + 1))
        u, b = s[n - k - 1], np.mean(s[n - k :] - s[n - k - 1])
        for x in (0.1, 1, 30):
            want = (k + 1) / (n + 1) * (1 + x / (k * b)) ** -k
            assert np.exp(tail.log_p([u + x])[0]) == pytest.approx(want)


@settings(max_examples=80, deadline=None)
@given(scores_of)
def test_a_higher_score_is_always_less_likely(scores):
    spread = max(scores.std(), 1e-3)
    grid = np.unique(np.r_[scores, np.linspace(scores.min() - 5 * spread, scores.max() + 20 * spread, 100)])
    grid = grid[np.r_[True, np.diff(grid) > 1e-7 * max(1, np.abs(grid).max())]]
    log_p = PValue(scores).log_p(grid)
    assert (np.diff(log_p) < 0).all()
    assert (log_p < 0).all() and np.isfinite(log_p).all()


@settings(max_examples=80, deadline=None)
@given(scores_of, st.floats(1e-12, 0.999))
def test_the_set_point_is_the_score_with_that_probability(scores, p):
    tail = PValue(scores)
    assert tail.log_p([tail.score_at(p)])[0] == pytest.approx(np.log(p), rel=1e-5, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(scores_of, st.sampled_from([0.01, 0.1, 0.5]), st.sampled_from([0.01, 1000.0]), st.floats(-50, 50))
def test_the_set_point_moves_with_the_unit_of_the_scores(scores, p, scale, offset):
    if scores.std() < 1e-2:
        return  # without spread, what counts as far is relative to the scores' own size
    one, other = PValue(scores).score_at(p), PValue(scale * scores + offset).score_at(p)
    assert other == pytest.approx(scale * one + offset, rel=1e-6, abs=1e-6 * scale * (1 + abs(one)))


def test_p_values_do_not_depend_on_the_batch_or_on_the_order_of_the_normals():
    s, new = rng.normal(size=25), rng.normal(size=9) * 3
    together = PValue(s).log_p(new)
    np.testing.assert_array_equal([PValue(s[::-1]).log_p([v])[0] for v in new], together)


@pytest.mark.parametrize("count", [2, 3, 10, 30, 100])
@pytest.mark.parametrize("rate", [0.1, 0.02])
def test_fresh_exponential_normals_alarm_exactly_as_often_as_promised(count, rate):
    draw, exceed = KINDS["exponential"]
    sample = draw(np.random.default_rng(1), (1500, count))
    share = exceed(np.array([from_normals(row, rate).value for row in sample]))
    if rate >= 1 / (count + 1) or count >= 10:
        error = share.std() / np.sqrt(len(share))
        assert abs(share.mean() - rate) < max(4 * error, 0.05 * rate)
    else:
        assert share.mean() < 1.3 * rate


@pytest.mark.parametrize("count", [10, 30, 100])
@pytest.mark.parametrize("rate", [0.1, 0.02])
def test_fresh_gaussian_normals_alarm_no_more_often_than_promised(count, rate):
    draw, exceed = KINDS["normal"]
    sample = draw(np.random.default_rng(2), (1000, count))
    share = exceed(np.array([from_normals(row, rate).value for row in sample]))
    assert 0.15 * rate < share.mean() < 1.1 * rate


def test_the_empirical_quantile_of_few_normals_is_bolder_than_the_tail():
    sample = np.random.default_rng(3).exponential(size=(1000, 10))
    share = {
        m: np.mean(np.exp([-from_normals(row, 0.02, m).value for row in sample])) for m in ("conformal", "quantile")
    }
    assert share["quantile"] > 4 * 0.02 and share["conformal"] < 1.2 * 0.02


def test_gamma_is_the_baseline_s_rule():
    s = rng.gamma(3, 2, 400)
    want = stats.gamma.ppf(0.9, *stats.gamma.fit(s))
    assert from_normals(s, 0.1, "gamma").value == pytest.approx(want, rel=1e-9)
    assert np.mean(rng.gamma(3, 2, 20_000) > want) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("method", THRESHOLD_METHODS)
@pytest.mark.parametrize("kind", ["below zero", "around zero", "ties", "all alike", "all zero", "one outlier", "few"])
def test_every_method_gives_a_set_point_among_or_just_above_odd_scores(method, kind):
    s = {
        "below zero": rng.normal(-5, 1, 60),
        "around zero": rng.normal(0, 1, 60),
        "ties": rng.integers(0, 3, 60).astype(float),
        "all alike": np.full(60, 1.94),
        "all zero": np.zeros(60),
        "one outlier": np.r_[rng.normal(size=59), 1e6],
        "few": np.array([1.0, 2.0]),
    }[kind]
    point = from_normals(s, 0.1, method)
    assert point.method == method and point.rate == 0.1
    assert np.isfinite(point.value) and s.min() <= point.value <= s.max() + 20 * s.std() + 1e-3
    if method == "quantile":
        assert point.value == np.quantile(s, 0.9)


@pytest.mark.parametrize("method", THRESHOLD_METHODS)
def test_rarer_alarms_need_a_higher_set_point(method):
    s = rng.gamma(3, 2, 80)
    values = [from_normals(s, rate, method).value for rate in (0.5, 0.2, 0.1, 0.01, 0.001)]
    assert values == sorted(values)


def test_rates_and_alarms_per_day_are_one_thing():
    assert rate_of(1, 10) == pytest.approx(1 / 8640)
    assert Threshold(0.0, rate_of(3.5, 12), "gamma").false_alarms_per_day(12) == pytest.approx(3.5)
