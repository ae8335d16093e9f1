"""Official metrics (report section 3, eq. 19) against scikit-learn, definitions, and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hmean
from sklearn.metrics import roc_auc_score

import oracles
from nearfar import metrics
from nearfar.metrics import (
    MachineResult,
    Ranking,
    auc,
    bootstrap,
    draws,
    harmonic_mean,
    harmonic_means,
    machine,
    machine_values,
    overall,
    partial_auc,
    roc_points,
)

# Table 5 of the report: AUC_s, AUC_t, pAUC in percent.
TABLE_5 = {
    "ToyCarEmu": {"MAHALA": (69.49, 66.62, 53.47), "MSE": (69.62, 61.20, 55.89), "Ours": (66.70, 69.82, 50.11)},
    "ToyCar": {"MAHALA": (77.28, 53.17, 58.25), "MSE": (75.62, 37.87, 54.03), "Ours": (80.98, 79.72, 62.11)},
    "bearingEmu": {"MAHALA": (65.92, 62.28, 60.42), "MSE": (62.34, 59.56, 59.85), "Ours": (63.18, 63.88, 61.26)},
    "fan": {"MAHALA": (60.00, 45.09, 52.29), "MSE": (61.45, 46.94, 53.33), "Ours": (59.70, 49.88, 51.37)},
    "gearboxEmu": {"MAHALA": (74.48, 52.74, 53.97), "MSE": (68.23, 49.78, 52.94), "Ours": (72.12, 48.30, 52.89)},
    "sliderEmu": {"MAHALA": (66.36, 49.18, 50.36), "MSE": (67.25, 45.05, 50.38), "Ours": (73.54, 61.32, 56.84)},
    "valveEmu": {"MAHALA": (56.60, 56.50, 50.20), "MSE": (67.74, 68.78, 55.08), "Ours": (84.48, 87.26, 79.53)},
}


@st.composite
def labelled(draw):
    """Scores of a test set, with as many ties as the levels allow, and its labels."""
    n = draw(st.integers(4, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([2, 5, 30, 10**6]))
    scores = rng.integers(0, levels, n) / levels
    anomaly = rng.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    target = rng.random(n) < draw(st.sampled_from([0.1, 0.5]))
    anomaly[:2], target[2:4], anomaly[2:4] = True, [True, False], False  # at least one of each
    return scores, anomaly, target


@settings(max_examples=60, deadline=None)
@given(labelled())
def test_auc_and_partial_auc_are_scikit_learn_s_ties_included(test):
    scores, anomaly, _ = test
    assert auc(scores, anomaly) == pytest.approx(roc_auc_score(anomaly, scores), abs=1e-12)
    assert auc(scores, anomaly) == pytest.approx(oracles.auc(scores, anomaly), abs=1e-12)
    for max_fpr in (0.1, 0.05, 0.37, 0.999):
        want = roc_auc_score(anomaly, scores, max_fpr=max_fpr)
        assert partial_auc(scores, anomaly, max_fpr) == pytest.approx(want, abs=1e-12)
    assert partial_auc(scores, anomaly, 1) == pytest.approx(auc(scores, anomaly), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(labelled())
def test_a_machine_s_numbers_are_the_challenge_s(test):
    scores, anomaly, target = test
    result = machine(scores, anomaly, target)
    for domain, value in ((False, result.auc_source), (True, result.auc_target)):
        keep = anomaly | (target == domain)  # anomalies of both domains against the normals of one
        assert value == pytest.approx(roc_auc_score(anomaly[keep], scores[keep]), abs=1e-12)
    assert result.pauc == pytest.approx(roc_auc_score(anomaly, scores, max_fpr=0.1), abs=1e-12)
    assert result.omega == pytest.approx(3 / sum(1 / max(v, 2.3e-16) for v in result), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(labelled(), st.randoms(use_true_random=False))
def test_the_order_of_the_clips_and_any_rising_function_of_the_scores_change_nothing(test, random):
    scores, anomaly, target = test
    order = list(range(len(scores)))
    random.shuffle(order)
    want = machine(scores, anomaly, target)
    assert machine(scores[order], anomaly[order], target[order]) == want
    assert machine(np.exp(3 * scores) - 7, anomaly, target) == want


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 30, 10_000]), st.integers(6, 60))
def test_metrics_of_many_are_those_of_each(seed, levels, count):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (5, count)).astype(np.float32)  # few levels: many ties
    anomalous, target = rng.random(count) < 0.5, rng.random(count) < rng.choice([0, 0.3])
    anomalous[:2] = True, False
    found = machine_values(scores, anomalous, target)
    alone = [machine(s, anomalous, target) for s in scores]
    np.testing.assert_array_equal(found, [list(result) for result in alone])
    assert list(harmonic_means(found, axis=1)) == [result.omega for result in alone]


def test_counts_stand_for_repeated_clips():
    rng = np.random.default_rng(0)
    scores, counts = rng.integers(0, 9, (3, 20)).astype(float), rng.integers(0, 3, 20)
    anomalous, target = np.arange(20) % 2 == 0, np.arange(20) % 3 == 0
    drawn = np.repeat(np.arange(20), counts)
    expected = machine_values(scores[:, drawn], anomalous[drawn], target[drawn])
    np.testing.assert_array_equal(machine_values(scores, anomalous, target, counts), expected)
    many = machine_values(scores[:1], anomalous, target, np.stack([counts, np.ones(20, int)]))
    np.testing.assert_array_equal(many, [expected[0], machine_values(scores[:1], anomalous, target)[0]])


def test_draws_without_one_kind_of_clip_have_no_metric():
    scores, anomalous = np.array([[0.0, 1, 2, 3]]), np.array([False, False, True, True])
    for counts in ([0, 0, 1, 1], [1, 1, 0, 0]):
        assert np.isnan(Ranking(scores).values(anomalous, np.zeros(4, bool), np.array(counts))).all()


def test_every_draw_has_as_many_clips_of_each_label_and_domain_as_there_are():
    rng = np.random.default_rng(0)
    anomalous, target = rng.random(50) < 0.4, rng.random(50) < 0.2
    counts = draws(rng, anomalous, target, 30)
    for stratum in (a & t for a in (anomalous, ~anomalous) for t in (target, ~target)):
        assert (counts[:, stratum].sum(axis=1) == stratum.sum()).all()
    assert len({tuple(row) for row in counts}) == 30


@settings(max_examples=40, deadline=None)
@given(labelled())
def test_the_curve_has_a_point_for_every_distinct_score_and_the_area_of_the_auc(test):
    scores, anomaly, _ = test
    fpr, tpr = roc_points(scores, anomaly)
    assert len(fpr) == 1 + len(np.unique(scores)) and (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.diff(fpr) @ (tpr[1:] + tpr[:-1]) / 2 == pytest.approx(auc(scores, anomaly), abs=1e-12)


def test_the_table_of_the_report_gives_its_scores():
    for system, official in (("Ours", 63.41), ("MSE", 56.66), ("MAHALA", 57.66)):
        results = {name: MachineResult(*(v / 100 for v in rows[system])) for name, rows in TABLE_5.items()}
        assert round(100 * overall(results), 2) == official
        assert overall(results) == pytest.approx(hmean([r.omega for r in results.values()]))


def test_chance_is_one_half_and_perfection_one():
    anomaly, target = np.arange(200) % 2 == 0, np.arange(200) % 4 < 2
    assert list(machine(np.zeros(200), anomaly, target)) == pytest.approx([0.5, 0.5, 0.5])
    assert list(machine(anomaly * 1.0, anomaly, target)) == [1, 1, 1]
    worst = machine(-1.0 * anomaly, anomaly, target)
    assert worst.auc_source == worst.auc_target == 0
    assert worst.pauc == pytest.approx(roc_auc_score(anomaly, -1.0 * anomaly, max_fpr=0.1))
    assert 0 < worst.omega < 1e-15  # a zero does not divide


def test_same_domain_anomalies_only_would_be_another_number():
    scores = np.array([0.0, 1, 2, 3])
    anomaly, target = np.array([False, True, False, True]), np.array([False, False, True, True])
    result = machine(scores, anomaly, target)
    assert (result.auc_source, result.auc_target) == (1.0, 0.5)


def test_a_domain_without_normals_has_no_auc_and_does_not_enter_the_mean():
    scores, anomaly = np.array([0.0, 1, 2, 3]), np.array([False, False, True, True])
    result = machine(scores, anomaly, np.zeros(4, bool))
    assert np.isnan(result.auc_target) and result.omega == 1
    assert overall({"fan": result}) == 1


def test_the_harmonic_mean_is_scipy_s():
    values = np.random.default_rng(0).uniform(0.1, 1, 21)
    assert harmonic_mean(values) == pytest.approx(hmean(values), rel=1e-12)
    assert harmonic_mean([0.5, np.nan]) == 0.5
    with pytest.raises(ValueError, match="no machines"):
        overall({})


def test_the_bootstrap_surrounds_the_value_is_repeatable_and_narrows():
    rng = np.random.default_rng(0)

    def of(n):
        anomaly, target = np.arange(n) % 2 == 0, np.arange(n) % 4 < 2
        return rng.normal(size=n) + anomaly, anomaly, target

    small, large = of(80), of(2000)
    (per, total), value = bootstrap({"fan": small}, rounds=300, seed=1), machine(*small)
    assert bootstrap({"fan": small}, rounds=300, seed=1) == (per, total)
    for key in ("auc_source", "auc_target", "pauc", "omega"):
        assert per["fan"][key].low <= getattr(value, key) <= per["fan"][key].high
    assert (per["fan"]["omega"].low, per["fan"]["omega"].high) == (total.low, total.high)
    wide, narrow = (bootstrap({"fan": clips}, rounds=100)[1] for clips in (small, large))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_the_bootstrap_s_rounds_are_scored_as_the_test_set_is():
    scores, anomaly, target = np.array([0.0, 1, 2, 3]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    per, total = bootstrap({"fan": (scores, anomaly, target)}, rounds=20)  # one clip of each kind: all rounds are alike
    want = machine(scores, anomaly, target)
    assert (per["fan"]["pauc"].low, per["fan"]["pauc"].high) == pytest.approx((want.pauc, want.pauc))
    assert total.low == pytest.approx(want.omega)


def test_decisions_count_each_domain_by_itself():
    alarm = [True, True, False, False, True, False]
    anomaly = [True, False, True, False, True, True]
    target = [False, False, False, False, True, True]
    got = metrics.decisions(alarm, anomaly, target)
    assert got["source"] == metrics.Decisions(1 / 2, 1 / 2, 1 / 2)
    assert got["target"] == metrics.Decisions(1.0, 1 / 2, 2 / 3)
    assert metrics.decisions([False, False], [True, False], [False, False]) == {"source": metrics.Decisions(0, 0, 0)}


def test_a_paired_bootstrap_draws_the_same_clips_for_both():
    rng = np.random.default_rng(0)
    anomalous, target = np.arange(80) % 2 == 0, np.arange(80) % 4 < 2
    shared = rng.normal(size=80) + anomalous
    a, b = shared + 0.3 * anomalous, shared
    both = {"fan": (a, b, anomalous, target), "pump": (a[::-1], b[::-1], anomalous[::-1], target[::-1])}
    got = metrics.compare(both, rounds=200)
    results = [{m: metrics.machine(v[i], *v[2:]) for m, v in both.items()} for i in (0, 1)]
    assert got.difference == pytest.approx(metrics.overall(results[0]) - metrics.overall(results[1]))
    assert got.interval.low > 0 and got.a_better > 0.99
    swapped = metrics.compare({m: (v[1], v[0], *v[2:]) for m, v in both.items()}, rounds=200)
    assert swapped.interval.low == pytest.approx(-got.interval.high) and swapped.difference == -got.difference
    same = metrics.compare({"fan": (a, a, anomalous, target)}, rounds=20)
    assert (same.difference, same.interval.low, same.interval.high, same.a_better) == (0, 0, 0, 0.5)
    alone = [metrics.bootstrap({m: (v[i], *v[2:]) for m, v in both.items()}, rounds=200)[1] for i in (0, 1)]
    assert got.interval.high - got.interval.low < (alone[0].high - alone[0].low) / 2
