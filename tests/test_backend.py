"""Back ends against brute force, their exact leave-one-out against refitting, and the pitfalls of each formula."""

from __future__ import annotations

import inspect
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from nearfar.backend import METHODS, BackendConfig, build, fit
from nearfar.bank import Bank
from nearfar.gaussian import PrincipalSubspace
from nearfar.ldn import DensityBank, exits

pytestmark = pytest.mark.filterwarnings("ignore:method .* compares two domains", "ignore:a domain has fewer")
DOMAIN_AWARE = ("domain_z", "dldn", "dbldn")

# Every method with each of the switches it listens to.
CASES = {
    "raw": {"method": "raw"},
    "raw k3 euclidean": {"method": "raw", "k": 3, "metric": "euclidean"},
    "raw k99": {"method": "raw", "k": 99},
    "ldn": {"method": "ldn"},
    "ldn K1": {"method": "ldn", "density_k": 1},
    "ldn K2 k3 euclidean": {"method": "ldn", "density_k": 2, "k": 3, "metric": "euclidean"},
    "ldn K3 sum": {"method": "ldn", "density_k": 3, "density_agg": "sum"},
    "ldn K2 raw neighbours": {"method": "ldn", "density_k": 2, "k": 2, "neighbour_selection": "raw"},
    "ldn K2 difference": {"method": "ldn", "density_k": 2, "form": "difference", "metric": "euclidean"},
    "ldn K2 difference raw neighbours": {
        "method": "ldn", "density_k": 2, "k": 2, "form": "difference", "neighbour_selection": "raw"
    },
    "ldn exponent 0.5": {"method": "ldn", "density_k": 2, "exponent": 0.5},
    "ldn exponent 0": {"method": "ldn", "density_k": 2, "exponent": 0},
    "ldn whitened": {"method": "ldn", "density_k": 2, "whiten": True, "metric": "euclidean"},
    "raw whitened cosine": {"method": "raw", "whiten": True},
    "domain_z": {"method": "domain_z"},
    "domain_z own sigma k2": {"method": "domain_z", "z_sigma": "own", "k": 2, "metric": "euclidean"},
    "domain_z whitened": {"method": "domain_z", "whiten": True, "metric": "euclidean"},
    "dldn": {"method": "dldn"},
    "dldn genrep2025": {
        "method": "dldn", "density_agg": "sum", "density_k_source": 5, "density_k_target": 2, "metric": "euclidean"
    },
    "dldn K1 k2": {"method": "dldn", "density_k": 1, "k": 2},
    "dbldn": {"method": "dbldn", "metric": "euclidean"},
    "dbldn weight 0.8 K2": {"method": "dbldn", "weight": 0.8, "density_k": 2},
    "varmin": {"method": "varmin"},
    "varmin K1 euclidean": {"method": "varmin", "density_k": 1, "metric": "euclidean"},
    "varmin K2 k2 whitened": {"method": "varmin", "density_k": 2, "k": 2, "whiten": True, "metric": "euclidean"},
    "mahalanobis": {"method": "mahalanobis"},
    "mahalanobis 0.1": {"method": "mahalanobis", "shrinkage": 0.1},
    "mahalanobis standardized": {"method": "mahalanobis", "standardize": True},
    "mahalanobis 0.1 standardized": {"method": "mahalanobis", "shrinkage": 0.1, "standardize": True},
    "mahalanobis whitened": {"method": "mahalanobis", "shrinkage": 0.2, "whiten": True},
    "ldn auto": {"method": "ldn", "density_k": "auto", "metric": "euclidean"},
    "ldn auto difference k2": {"method": "ldn", "density_k": "auto", "form": "difference", "k": 2},
    "dldn auto": {"method": "dldn", "density_k": "auto"},
    "varmin auto": {"method": "varmin", "density_k": "auto", "metric": "euclidean"},
    "pca": {"method": "pca"},
    "pca 0.5": {"method": "pca", "components": 0.5},
    "pca 2": {"method": "pca", "components": 2},
    "pca whitened": {"method": "pca", "components": 0.7, "whiten": True},
    "zmin": {"method": "zmin"},
    "zmin K2 euclidean": {"method": "zmin", "density_k": 2, "metric": "euclidean", "components": 0.8},
    "kmeans": {"method": "kmeans", "clusters": 3},
    "kmeans euclidean k2": {"method": "kmeans", "clusters": 3, "metric": "euclidean", "k": 2},
    "smote": {"method": "smote", "metric": "euclidean"},
    "smote cosine seed 3": {"method": "smote", "seed": 3},
    "memmixup": {"method": "memmixup", "metric": "euclidean"},
    "memmixup cosine": {"method": "memmixup"},
    "memmixup k3": {"method": "memmixup", "k": 3},
    "as_is": {"method": "as_is"},
    "as_is whitened": {"method": "as_is", "whiten": True},
}  # fmt: skip


def normals(count, targets=0, width=5, seed=0):
    rng = np.random.default_rng(seed)
    is_target = np.arange(count) >= count - targets
    z = rng.normal(size=(count, width)) + 1
    return z + 1.5 * is_target[:, None], rng.permutation(is_target)


def repeated(count, distinct, targets):
    z, is_target = normals(count, targets)
    return z[np.arange(count) % distinct], is_target


BANKS = {
    "no target clips": normals(11),
    "one target clip": normals(10, 1),
    "two target clips": normals(10, 2),
    "three target clips": normals(10, 3),
    "five target clips": normals(12, 5),
    "target clips only": (normals(8)[0], np.ones(8, bool)),
    "two clips of each": normals(4, 2),
    "one clip of each": normals(2, 1),
    "two clips": normals(2),
    "three clips": normals(3),
    "three clips, one target": normals(3, 1),
    "wider than many": normals(7, 3, width=20),
    "duplicates": repeated(12, 5, 4),
    "all duplicates but one": (np.r_[np.repeat(normals(1)[0], 6, axis=0), normals(2)[0][1:]], np.arange(7) < 2),
    "all duplicates": (np.full((7, 4), 0.1), np.arange(7) < 3),
    "silence": (np.zeros((6, 4)), np.arange(6) < 3),
    "one clip is zero": (np.r_[normals(7)[0], np.zeros((1, 5))], np.arange(8) % 2 == 0),
    "two far clusters": (normals(10)[0] + 1e3 * (np.arange(10) % 2)[:, None], np.arange(10) % 2 == 0),
}


# A zero vector is at 0.5 from every clip, to rounding, and these look up the density of its nearest: a coin toss.
TIES = [(case, "one clip is zero") for case in ("ldn K2 raw neighbours", "ldn K2 difference raw neighbours", "varmin")]


def oracle_of(case):
    case = dict(case)
    return {"whitened": case.pop("whiten", False), **case}


def agree(got, want):
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=3e-5, atol=2e-6 * max(1e-3, float(np.median(np.abs(want)))))


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_definition(case, bank):
    z, is_target = BANKS[bank]
    queries = np.concatenate([z[:2], z[:3] + 0.3, np.random.default_rng(5).normal(size=(2, z.shape[1])) * 3])
    got = fit(z, is_target, **CASES[case]).score(queries)
    assert got.dtype == np.float32 and got.shape == (len(queries),)
    if (case, bank) not in TIES:
        agree(got, [oracles.score(q, z, is_target, **oracle_of(CASES[case])) for q in queries])


@pytest.mark.parametrize("case", CASES)
def test_bands_are_scored_one_by_one_and_averaged(case):
    z, is_target = normals(12, 5, width=12)
    z, q = z.reshape(12, 3, 4), np.random.default_rng(5).normal(size=(4, 3, 4)) + 1
    backend, oracle = fit(z, is_target, **CASES[case]), oracle_of(CASES[case])
    each = [[oracles.score(x[f], z[:, f], is_target, **oracle) for f in range(3)] for x in q]
    agree(backend.score(q), np.mean(each, axis=1))
    own = [oracles.leave_one_out(z[:, f], is_target, **oracle) for f in range(3)]
    agree(backend.train_scores, np.mean(own, axis=0))
    one = fit(z[:, :1], is_target, **CASES[case])
    np.testing.assert_array_equal(one.score(q[:, :1]), fit(z[:, 0], is_target, **CASES[case]).score(q[:, 0]))
    assert (backend.nearest(z, 1)[1][:, 0] == np.arange(12)).all()
    with pytest.raises(ValueError, match="length 2 x 4, the back end was fitted on 3 x 4"):
        backend.score(q[:, :2])


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("case", CASES)
def test_train_scores_are_what_refitting_without_each_clip_gives(case, bank):
    z, is_target = BANKS[bank]
    got = fit(z, is_target, **CASES[case]).train_scores
    keep = ~np.eye(len(z), dtype=bool)
    config = BackendConfig(**CASES[case])
    refitted = [build(z[keep[i]], is_target[keep[i]], config).score(z[i : i + 1])[0] for i in range(len(z))]
    agree(got, refitted)
    if (case, bank) not in TIES:
        agree(got, oracles.leave_one_out(z, is_target, **oracle_of(CASES[case])))


@pytest.mark.parametrize("case", CASES)
def test_train_scores_do_not_depend_on_the_order_of_the_rows(case):
    z, is_target = BANKS["five target clips"]
    order = np.random.default_rng(1).permutation(len(z))
    scores = fit(z, is_target, **CASES[case]).train_scores
    np.testing.assert_allclose(fit(z[order], is_target[order], **CASES[case]).train_scores, scores[order], rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.booleans(), st.integers(0, 99), st.data())
def test_a_score_is_the_same_to_the_last_bit_whatever_else_is_in_the_batch(case, wide, seed, data):
    z, is_target = normals(40, 8, width=300 if wide else 6, seed=seed)
    queries = np.concatenate([normals(6, width=z.shape[1], seed=seed + 1)[0], z[:3]]).astype(np.float32)
    backend = fit(z.astype(np.float32), is_target, **CASES[case])
    together = backend.score(queries)
    batch = data.draw(st.lists(st.integers(0, len(queries) - 1), min_size=1, max_size=9))
    np.testing.assert_array_equal(backend.score(queries[batch]), together[batch])


@pytest.mark.parametrize("scale", [1e-6, 1e4])
@pytest.mark.parametrize("bank", ["five target clips", "duplicates"])
@pytest.mark.parametrize("case", [c for c in CASES if CASES[c]["method"] in ("ldn", "dldn", "dbldn", "domain_z")])
def test_calibrated_scores_do_not_depend_on_the_scale_of_the_embeddings(case, bank, scale):
    switches = {**CASES[case], "form": "ratio", "exponent": 1.0}
    z, is_target = BANKS[bank]
    q = z[:4] + 0.3
    one, other = fit(z, is_target, **switches), fit(z * scale, is_target, **switches)
    agree(other.score(q * scale), one.score(q))
    agree(other.train_scores, one.train_scores)


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c].get("metric") is None and not CASES[c].get("whiten")])
def test_cosine_scores_do_not_depend_on_the_length_of_any_embedding(case):
    if CASES[case]["method"] in ("mahalanobis", "pca", "zmin", "as_is"):  # not by a metric
        return
    z, is_target = BANKS["five target clips"]
    q, rng = z[:4] + 0.3, np.random.default_rng(0)
    lengths, others = 10 ** rng.uniform(-6, 6, (len(z), 1)), 10 ** rng.uniform(-6, 6, (len(q), 1))
    one, other = fit(z, is_target, **CASES[case]), fit(z * lengths, is_target, **CASES[case])
    agree(other.score(q * others), one.score(q))
    agree(other.train_scores, one.train_scores)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e4])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("method", ["raw", "ldn", "dldn"])
def test_a_copy_of_a_normal_scores_zero_even_among_near_duplicates(method, metric, scale):
    rng = np.random.default_rng(0)
    z = (np.repeat(rng.normal(size=(4, 64)), 12, axis=0) + 1e-3 * rng.normal(size=(48, 64))).astype(np.float32)
    z = np.r_[z, z[:6]] * np.float32(scale)
    scores = fit(z, np.arange(54) % 5 == 0, method=method, metric=metric, density_k=2).score(z)
    np.testing.assert_array_equal(scores, 0)


def test_tight_clusters_far_apart_are_scored_by_their_own_neighbours():
    rng = np.random.default_rng(0)
    z = np.repeat(rng.normal(size=(2, 32)), 25, axis=0) * 1e4 + rng.normal(size=(50, 32))
    q = z[::10] + 0.1 * rng.normal(size=(5, 32))
    for case in ("raw k3 euclidean", "ldn K2 k3 euclidean", "ldn K2 difference", "varmin K1 euclidean"):
        backend = fit(z, **CASES[case])
        agree(backend.score(q), [oracles.score(x, z, **CASES[case]) for x in q])
        agree(backend.train_scores, oracles.leave_one_out(z, **CASES[case]))


# --- leave-one-out and what goes wrong without it --------------------------------------------------------------------


def sphere(count, seed):
    z = np.random.default_rng(seed).normal(size=(count, 32))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_leave_one_out_has_no_floor_at_one_and_matches_fresh_normals():
    z, fresh = sphere(400, 0), sphere(2000, 1)
    backend = fit(z, method="ldn", metric="euclidean", density_k=1)
    d = np.linalg.norm(z[:, None] - z[None], axis=-1)
    np.fill_diagonal(d, np.inf)
    cheap = (d / d.min(axis=1)).min(axis=1)  # densities that still count the clip that was left out
    assert cheap.min() >= 1 and np.mean(cheap < 1 + 1e-9) > 0.5
    exact, new = backend.train_scores, backend.score(fresh)
    assert exact.min() < 0.9 and np.mean(exact > 1) < 0.6
    assert abs(exact.mean() - new.mean()) < 0.01 and abs(exact.std() / new.std() - 1) < 0.15
    assert cheap.std() < exact.std() / 2  # so the cheap way would double the weight of this system in eq. 18


def test_a_training_clip_is_not_its_own_neighbour_but_its_copy_is():
    z = np.random.default_rng(0).normal(size=(9, 4))
    assert (fit(z).train_scores > 1e-3).all()
    doubled = fit(np.r_[z, z])
    np.testing.assert_array_equal(doubled.train_scores, 0)


# --- identities between methods --------------------------------------------------------------------------------------

Z, TARGET = normals(40, 10, width=8)
Q = normals(25, width=8, seed=9)[0]
UNIT, UNIT_Q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (Z, Q))


def ranking(scores):
    return np.argsort(scores, kind="stable")


def test_on_unit_vectors_raw_nearest_neighbour_ranks_alike_by_cosine_and_euclidean():
    for switches in ({"method": "raw"}, {"method": "ldn", "density_k": 1}):
        cosine, euclidean = (fit(UNIT, metric=m, **switches).score(UNIT_Q) for m in ("cosine", "euclidean"))
        np.testing.assert_array_equal(ranking(cosine), ranking(euclidean))
        power = euclidean**2 / 2 if switches["method"] == "raw" else euclidean**2
        np.testing.assert_allclose(cosine, power, rtol=1e-5)
    cosine, euclidean = (
        fit(UNIT, method="ldn", density_k=5, k=5, metric=m).score(UNIT_Q) for m in ("cosine", "euclidean")
    )
    assert not np.allclose(cosine, euclidean**2, rtol=1e-3)  # means of squares are not squares of means


def test_exponent_0_is_raw_and_exponent_1_is_ldn():
    for metric in ("cosine", "euclidean"):
        raw = fit(Z, metric=metric, k=3)
        family = fit(Z, method="ldn", metric=metric, k=3, exponent=0)
        np.testing.assert_array_equal(family.score(Q), raw.score(Q))
        np.testing.assert_array_equal(family.train_scores, raw.train_scores)
        np.testing.assert_array_equal(
            fit(Z, method="ldn", exponent=1.0, metric=metric).score(Q), fit(Z, method="ldn", metric=metric).score(Q)
        )


def test_ldn_by_the_sum_is_ldn_by_the_mean_divided_by_k():
    mean, total = (fit(Z, method="ldn", density_k=7, density_agg=agg) for agg in ("mean", "sum"))
    np.testing.assert_allclose(total.score(Q), mean.score(Q) / 7, rtol=1e-6)
    np.testing.assert_allclose(total.train_scores, mean.train_scores / 7, rtol=1e-6)


def test_dldn_by_the_sum_favours_the_source_by_its_larger_k():
    source = fit(Z[~TARGET], method="ldn", density_k=16).score(Q)
    target = fit(Z[TARGET], method="ldn", density_k=9).score(Q)
    np.testing.assert_allclose(fit(Z, TARGET, method="dldn").score(Q), np.minimum(source, target), rtol=1e-6)
    by_sum = fit(Z, TARGET, method="dldn", density_agg="sum").score(Q)
    np.testing.assert_allclose(by_sum, np.minimum(source / 16, target / 9), rtol=1e-6)


def test_dbldn_goes_from_one_bank_to_the_other_with_its_weight():
    scores = [fit(Z, TARGET, method="dbldn", weight=w).score(Q) for w in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(scores[3], fit(Z[~TARGET], method="ldn", density_k=16).score(Q), rtol=1e-6)
    np.testing.assert_allclose(scores[0], fit(Z[TARGET], method="ldn", density_k=9).score(Q), rtol=1e-6)
    np.testing.assert_allclose(scores[1], 0.75 * scores[0] + 0.25 * scores[3], rtol=1e-5)
    np.testing.assert_array_equal(fit(Z, TARGET, method="dbldn").score(Q), scores[2])


def test_genrep_s_z_score_ranks_by_the_difference_to_the_domain_s_mean_alone():
    got = fit(Z, TARGET, method="domain_z", metric="euclidean").score(Q)
    banks = [Z[~TARGET], Z[TARGET]]
    (mu_s, _), (mu_t, sigma_t) = (oracles.domain_statistics(bank, "euclidean", 1) for bank in banks)
    least = np.array(
        [min(oracles.knn(q, b, "euclidean", 1) - m for b, m in zip(banks, (mu_s, mu_t), strict=True)) for q in Q]
    )
    np.testing.assert_array_equal(ranking(got), ranking(least))
    np.testing.assert_allclose(got, least / sigma_t, rtol=1e-4, atol=1e-5)
    own = fit(Z, TARGET, method="domain_z", metric="euclidean", z_sigma="own").score(Q)
    assert not np.allclose(got, own)


def test_two_gaussians_give_the_smaller_distance():
    parts = [fit(Z[keep], method="mahalanobis").score(Q) for keep in (TARGET, ~TARGET)]
    np.testing.assert_allclose(fit(Z, TARGET, method="mahalanobis").score(Q), np.minimum(*parts), rtol=1e-6)


def test_whitened_euclidean_distance_is_the_gaussian_s_distance_between_two_clips():
    backend = fit(Z, whiten=True, metric="euclidean")
    _, _, a = oracles.gaussian(Z)
    want = [min(np.sqrt((q - r) @ np.linalg.solve(a, q - r)) for r in Z) for q in Q]
    np.testing.assert_allclose(backend.score(Q), want, rtol=1e-5)


# --- domains ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
def test_missing_or_tiny_domains_are_announced_by_the_methods_that_compare_domains(method):
    for is_target, message in (
        (None, "there is one"),
        (np.ones(40, bool), "there is one"),
        (np.arange(40) < 2, "fewer"),
    ):
        if method in DOMAIN_AWARE:
            with pytest.warns(UserWarning, match=message):
                fit(Z, is_target, method=method)
        else:
            fit(Z, is_target, method=method)
    fit(Z, TARGET, method=method)


def test_without_domains_the_dual_methods_are_their_single_bank_method():
    ldn = fit(Z, method="ldn", density_k=16)
    for method in ("dldn", "dbldn"):
        np.testing.assert_array_equal(fit(Z, method=method).score(Q), ldn.score(Q))
        np.testing.assert_array_equal(fit(Z, method=method).train_scores, ldn.train_scores)
    z = fit(Z, method="domain_z").score(Q)
    np.testing.assert_array_equal(ranking(z), ranking(fit(Z).score(Q)))


def test_domains_do_not_matter_to_the_methods_of_one_bank():
    for method in ("raw", "ldn", "varmin"):
        np.testing.assert_array_equal(fit(Z, TARGET, method=method).score(Q), fit(Z, method=method).score(Q))


def test_domains_may_be_given_as_ones_and_zeros():
    for kind in (int, float, list):
        flags = list(TARGET) if kind is list else TARGET.astype(kind)
        np.testing.assert_array_equal(fit(Z, flags, method="dldn").score(Q), fit(Z, TARGET, method="dldn").score(Q))


# --- the object ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c]["method"] != "as_is"])  # which measures no distance
def test_the_farther_from_the_normals_the_higher_the_score(case):
    z, is_target = normals(60, 12, width=8)
    rng = np.random.default_rng(2)
    direction = rng.normal(size=8) * [1, -1, 1, -1, 1, -1, 1, -1]
    near, far = fit(z, is_target, **CASES[case]).score(np.stack([1.001 * z[0], z[0] + 40 * direction]))
    assert far > near


def test_a_caller_who_reuses_the_array_does_not_change_the_bank():
    z = Z.copy()
    backend = fit(z, metric="euclidean")
    before = backend.score(Q)
    z[:] = 0
    np.testing.assert_array_equal(backend.score(Q), before)
    assert backend.train_scores.min() > 0


def test_nearest_names_the_normals_by_plain_distance():
    for whiten in (False, True):
        distance, index = fit(Z, whiten=whiten, metric="euclidean", method="ldn").nearest(Z[3:5], 2)
        np.testing.assert_array_equal(index[:, 0], [3, 4])
        np.testing.assert_allclose(distance[:, 0], 0, atol=1e-9)
    assert fit(Z).nearest(Q, 99)[0].shape == (25, 40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_one_pass_gives_the_score_and_the_neighbours_of_two_to_the_last_bit(case, dtype):
    for z, target in ((Z, TARGET), (Z, None), (Z[:3], TARGET[-3:]), (np.r_[Z[:6], Z[:6]], None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backend = fit(z.astype(dtype), target, **CASES[case])
        for q in (Q.astype(dtype), Q[:1].astype(np.float32), z[:2].astype(dtype)):
            score, distance, index = backend.score_with_nearest(q, 5)
            np.testing.assert_array_equal(score, backend.score(q))
            for one_pass, search in zip((distance, index), backend.nearest(q, 5), strict=True):
                np.testing.assert_array_equal(one_pass, search)


def test_one_pass_over_bands_gives_their_score_and_their_neighbours():
    backend = fit(Z.reshape(-1, 2, 4), method="ldn", density_k=2)
    score, _, index = backend.score_with_nearest(Q.reshape(-1, 2, 4), 3)
    np.testing.assert_array_equal(score, backend.score(Q.reshape(-1, 2, 4)))
    np.testing.assert_array_equal(index, backend.nearest(Q.reshape(-1, 2, 4), 3)[1])
    with pytest.raises(ValueError, match="length 4 x 2"):
        backend.score_with_nearest(np.ones((1, 4, 2)))


def test_no_queries_give_no_scores():
    for case in CASES.values():
        assert fit(Z, TARGET, **case).score(np.zeros((0, 8))).shape == (0,)


def test_whole_numbers_may_come_as_floats_as_json_has_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            a, b = (fit(Z, TARGET, method=method, k=k, density_k=k) for k in (3, 3.0))
            np.testing.assert_array_equal(a.train_scores, b.train_scores)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(CASES)))
def test_no_bank_however_odd_gives_anything_but_finite_scores(seed, case):
    rng = np.random.default_rng(seed)
    n, d = rng.integers(2, 9), rng.integers(1, 6)
    z = rng.integers(0, 3, (n, d)) * 10.0 ** rng.integers(-6, 5)
    backend = fit(z, rng.random(n) < rng.choice([0, 0.3, 0.7]), **CASES[case])
    assert np.isfinite(backend.train_scores).all()
    assert np.isfinite(backend.score(np.r_[z, z + 1, 1e6 * (z + 1)])).all()


def test_a_gaussian_can_ignore_the_domains() -> None:
    rng = np.random.default_rng(4)
    z, target, q = rng.normal(size=(20, 6)), np.arange(20) >= 14, rng.normal(size=(5, 6))
    apart = fit(z, target, method="mahalanobis")
    together = fit(z, target, method="mahalanobis", ignore_domains=True)
    plain = fit(z, method="mahalanobis")
    assert np.array_equal(together.score(q), plain.score(q)) and not np.allclose(apart.score(q), plain.score(q))
    assert np.array_equal(together.train_scores, plain.train_scores)


def test_fit_has_the_names_and_defaults_of_the_config():
    given = {name: p.default for name, p in inspect.signature(fit).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert given.pop("train_scores") is given.pop("attributes") is None
    assert given == {f.name: f.default for f in fields(BackendConfig)}
    with pytest.raises(TypeError, match="neighbors"):
        fit(Z, neighbors=3)


def test_train_scores_that_are_given_are_not_computed_again():
    known = np.arange(40, dtype=np.float32)
    backend = fit(Z, method="ldn", train_scores=known)
    np.testing.assert_array_equal(backend.train_scores, known)
    np.testing.assert_array_equal(backend.score(Q), fit(Z, method="ldn").score(Q))
    with pytest.raises(ValueError, match="train_scores holds 3 scores for 40 normals"):
        fit(Z, train_scores=known[:3])
    with pytest.raises(ValueError, match="train_scores holds nan"):
        fit(Z, train_scores=np.full(40, np.nan))


def test_a_fitted_back_end_cannot_be_changed():
    backend = fit(Z)
    with pytest.raises(FrozenInstanceError):
        backend.z = Z
    with pytest.raises(FrozenInstanceError):
        backend.config.k = 3


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["varmin", "ldn", "dldn", "domain_z"])
def test_threads_of_one_back_end_never_see_each_other_s_leave_one_out(case):
    backend = fit(Z, TARGET, **CASES[case])
    scores, own = backend.score(Q), backend.train_scores
    started = threading.Barrier(4)

    def score(leave_one_out):
        started.wait(60)
        return [(backend._method.leave_one_out() if leave_one_out else backend.score(Q)) for _ in range(40)]

    with ThreadPoolExecutor(4) as pool:
        for leave_one_out, results in zip([True, False] * 2, pool.map(score, [True, False] * 2), strict=True):
            for result in results:
                np.testing.assert_array_equal(result.astype(np.float32), own if leave_one_out else scores)


def test_two_banks_compute_their_densities_at_the_same_time(monkeypatch):
    both, search = threading.Barrier(2), Bank.nearest

    def nearest(self, q, k):
        both.wait(60)
        return search(self, q, k)

    monkeypatch.setattr(Bank, "nearest", nearest)
    banks = [DensityBank(z, "euclidean") for z in (Z, Z + 1)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda bank: bank.densities, banks)
    assert first is not second and [bank.densities for bank in banks] == [first, second], "computed once each"


# --- without relatives -----------------------------------------------------------------------------------------------


def relation(n, kinds, seed):
    rng = np.random.default_rng(seed)
    related = np.eye(n, dtype=bool)
    for labels in rng.integers(0, max(2, n // 3), (kinds, n)):
        related |= labels[:, None] == labels
    related[related.all(axis=1)] = np.eye(n, dtype=bool)[related.all(axis=1)]
    return related


def refitted_without(z, is_target, config, related):
    """By refitting; a Gaussian of standardized features that are not whitened keeps the scale of all normals."""
    out = []
    for i, row in enumerate(related):
        y, keep, c = z, ~row, config
        if c.method == "mahalanobis" and c.standardize and not c.whiten:
            y, c = standardized_like_all(z, is_target, keep, c), replace(c, standardize=False)
        out.append(build(y[keep], is_target[keep], c).score(y[i : i + 1])[0])
    return np.array(out)


def standardized_like_all(z, is_target, keep, config):
    assert config.ignore_domains or min(is_target.sum(), (~is_target).sum()) < 3
    deviation = z.std(axis=0)
    floor = 0.1 * np.median(deviation)
    return z / np.maximum(deviation, floor if floor > 0 else deviation.max() or 1.0)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.sampled_from(sorted(BANKS)), st.integers(0, 2), st.integers(0, 99))
def test_scores_without_relatives_are_those_of_refitting(case, bank, kinds, seed):
    z, is_target = BANKS[bank]
    config = BackendConfig(**CASES[case])
    if config.standardize:
        is_target = np.zeros(len(z), bool)
    related = relation(len(z), kinds, seed)
    backend = build(z, is_target, config)
    got = backend.scores_excluding(related)
    assert got.dtype == np.float32
    if (case, bank) not in TIES:
        agree(got, refitted_without(z, is_target, config, related))


@pytest.mark.parametrize("case", CASES)
def test_scores_without_themselves_alone_are_the_train_scores(case):
    z, is_target = BANKS["five target clips"]
    backend = fit(z, is_target, **CASES[case])
    got, want = backend.scores_excluding(np.eye(len(z), dtype=bool)), backend.train_scores
    if CASES[case].get("standardize"):
        assert not np.array_equal(got, want)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("case", CASES)
def test_scores_without_relatives_do_not_depend_on_the_order_of_the_rows(case):
    z, is_target = normals(20, 7)
    related, order = relation(20, 2, 0), np.random.default_rng(1).permutation(20)
    scores = fit(z, is_target, **CASES[case]).scores_excluding(related)
    shuffled = fit(z[order], is_target[order], **CASES[case]).scores_excluding(related[np.ix_(order, order)])
    np.testing.assert_allclose(shuffled, scores[order], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bands_without_relatives(case):
    z, is_target = normals(12, 5, width=12)
    z, related = z.reshape(12, 3, 4), relation(12, 2, 0)
    each = [fit(z[:, f], is_target, **CASES[case]).scores_excluding(related) for f in range(3)]
    agree(fit(z, is_target, **CASES[case]).scores_excluding(related), np.mean(each, axis=0))


@pytest.mark.parametrize("case", CASES)
def test_one_normal_that_is_left_gives_a_score_and_none_is_an_error(case):
    z, is_target = normals(6, 3)
    related = np.ones((6, 6), bool)
    related[np.arange(6), np.arange(6)[::-1]] = False
    assert np.isfinite(fit(z, is_target, **CASES[case]).scores_excluding(related)).all()
    with pytest.raises(ValueError, match="clip 0 is related to all 6 clips"):
        fit(z, is_target, **CASES[case]).scores_excluding(np.ones((6, 6), bool))


def test_a_clip_without_the_other_normals_of_its_domain_and_two_gaussians():
    z, is_target = normals(30, 12, width=4)
    related = np.eye(30, dtype=bool) | (is_target[:, None] & is_target)
    for standardize in (False, True):
        backend = fit(z, is_target, method="mahalanobis", shrinkage=0.1, standardize=standardize)
        got = backend.scores_excluding(related)
        scale = oracles.gaussian(z, 0.1, standardize)[1]
        rest = z[~is_target]
        want = [oracles.mahalanobis(q / scale, rest / scale, 0.1) for q in z[is_target]]
        agree(got[is_target], want)
        pairs = relation(30, 1, 3)
        scales = [oracles.gaussian(z[d], 0.1, standardize)[1] for d in (~is_target, is_target)]
        for i, score in enumerate(backend.scores_excluding(pairs)):
            rests = [z[~pairs[i] & d] for d in (~is_target, is_target)]
            if len(rests[0]) >= 3 <= len(rests[1]) and (standardize or pairs[i].sum() > 1):
                want = min(oracles.mahalanobis(z[i] / s, r / s, 0.1) for r, s in zip(rests, scales, strict=True))
                agree(score, want)


# --- the principal subspace and cluster exit at size -----------------------------------------------------------------


@pytest.mark.parametrize("components", [0.5, 0.95, 0.999, 3, 20, 10**6])
@pytest.mark.parametrize(("count", "width"), [(60, 20), (40, 90)])
def test_the_subspace_without_a_clip_needs_no_refit(count, width, components):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(count, width)) * np.exp(-np.arange(width) / 8)) @ rng.normal(size=(width, width))
    x[:5] = x[5:10]
    want = [PrincipalSubspace(np.delete(x, i, 0), components).score(x[[i]])[0] for i in range(count)]
    np.testing.assert_allclose(PrincipalSubspace(x, components).leave_one_out(), want, rtol=1e-6, atol=1e-12)


def test_cluster_exit_cuts_at_the_first_jump_and_keeps_two():
    jump = np.r_[np.linspace(1, 1.2, 9), np.linspace(3, 3.2, 40)]  # nine neighbours, then another cluster
    alone = np.r_[1.0, np.linspace(5, 5.5, 30)]
    even = np.ones(20)
    assert [int(exits(d[None])[0]) for d in (jump, alone, even, even[:2])] == [8, 2, 18, 2]


def test_cluster_exit_looks_at_no_more_than_64_neighbours():
    z = normals(90, width=3)[0]
    for switches in ({"method": "ldn", "density_k": "auto"}, {"method": "varmin", "density_k": "auto"}):
        backend = fit(z, metric="euclidean", **switches)
        agree(backend.score(z[:4] + 0.2), [oracles.score(q, z, metric="euclidean", **switches) for q in z[:4] + 0.2])
        rest = np.delete(np.arange(90), 7)
        agree(backend.train_scores[[7]], fit(z[rest], metric="euclidean", **switches).score(z[[7]]))


def test_a_space_of_one_axis_measures_the_distance_from_the_mean():
    z = np.array([[0.0], [2.0], [7.0]])
    np.testing.assert_allclose(fit(z, method="pca").score([[5.0]]), [2.0])


@pytest.mark.parametrize("method", ["pca", "zmin", "kmeans", "smote", "memmixup"])
def test_new_methods_are_scored_without_relatives_by_a_refit(method):
    z, is_target = BANKS["five target clips"]
    related = np.eye(12, dtype=bool) | (np.arange(12)[:, None] // 2 == np.arange(12) // 2)
    backend = fit(z, is_target, method=method, clusters=3)
    rest = np.arange(2, 12)
    want = fit(z[rest], is_target[rest], method=method, clusters=3).score(z[:2])
    np.testing.assert_array_equal(backend.scores_excluding(related)[:2], want)


@pytest.mark.parametrize(
    "wrong", [{"components": 0}, {"components": 1.0}, {"components": 1.5}, {"clusters": 0}, {"seed": -1}]
)
def test_options_of_the_new_methods_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fit(Z, method="pca", **wrong)
    with pytest.raises(ValueError, match="density_k"):
        fit(Z, method="ldn", density_k="most")
