"""The memory bank is exact nearest-neighbour search, whatever the geometry."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

import oracles
from nearfar import backend
from nearfar import bank as bank_module
from nearfar.bank import METRICS, Bank, MappedBank, coreset, entries_below, kth_upper_bound

rng = np.random.default_rng(0)


def clusters(apart, spread=1.0, *, count=3, each=30, width=24):
    """Tight clusters far apart: in float32 products the distances inside a cluster drown in rounding."""
    centres = np.random.default_rng(1).normal(size=(count, width)) * apart
    return np.repeat(centres, each, axis=0) + np.random.default_rng(2).normal(size=(count * each, width)) * spread


GEOMETRIES = {
    "plain": rng.normal(size=(60, 24)),
    "large norms": rng.normal(size=(60, 24)) * 1e4,
    "tiny norms": rng.normal(size=(60, 24)) * 1e-6,
    "far from the origin": rng.normal(size=(60, 24)) + 1e4,
    "two clusters": clusters(1e3),
    "two clusters, far apart": clusters(1e5),
    "duplicates": rng.normal(size=(15, 24))[rng.integers(0, 15, 60)],
    "a grid full of ties": rng.integers(0, 2, (60, 5)).astype(float),
    "one outlier": np.r_[rng.normal(size=(59, 24)), 1e6 * np.ones((1, 24))],
    "one feature": rng.normal(size=(40, 1)),
    "two clips": rng.normal(size=(2, 3)),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_distances_are_brute_force_distances(name, metric):
    z = GEOMETRIES[name]
    q = np.concatenate([z[::7] + 0.1 * np.abs(z).mean() * rng.normal(size=z[::7].shape), z[:5]])
    d, i = Bank(z, metric).nearest(q, 4)
    want = np.array([oracles.distances(row, z, metric) for row in q])
    k = d.shape[1]
    np.testing.assert_allclose(d, np.sort(want, axis=1)[:, :k], rtol=1e-9, atol=1e-14 * np.abs(z).max())
    np.testing.assert_allclose(np.take_along_axis(want, i, 1), d, rtol=1e-9, atol=1e-14 * np.abs(z).max())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_members_are_compared_with_all_others_and_never_with_themselves(name, metric):
    z = GEOMETRIES[name]
    d, i = Bank(z, metric).nearest(None, 5)
    assert (i != np.arange(len(z))[:, None]).all()
    for row in range(len(z)):
        want = np.sort(np.delete(oracles.distances(z[row], z, metric), row))[:5]
        np.testing.assert_allclose(d[row], want, rtol=1e-9, atol=1e-14 * np.abs(z).max())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_copy_of_a_member_is_at_distance_zero(name, metric, kind):
    z = GEOMETRIES[name].astype(kind)
    np.testing.assert_array_equal(Bank(z, metric).nearest(z.copy(), 1)[0], 0)


@pytest.mark.parametrize("metric", METRICS)
def test_it_agrees_with_scikit_learn(metric):
    z, q = rng.normal(size=(200, 16)), rng.normal(size=(30, 16))
    d, i = Bank(z, metric).nearest(q, 7)
    want, index = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(z).kneighbors(q)
    np.testing.assert_allclose(d, want, rtol=1e-9)
    np.testing.assert_array_equal(i, index)


def test_cosine_knows_no_length_and_is_half_the_squared_euclidean_of_unit_vectors():
    z, q = rng.normal(size=(40, 8)), rng.normal(size=(6, 8))
    cosine, order = Bank(z, "cosine").nearest(q, 5)
    for a, b in ((1e-9, 1e9), (1e5, 1)):
        lengths = rng.uniform(0.5, 2, (40, 1))
        np.testing.assert_allclose(Bank(a * z * lengths, "cosine").nearest(b * q, 5)[0], cosine, rtol=1e-12)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (z, q)]
    euclidean, same = Bank(unit[0], "euclidean").nearest(unit[1], 5)
    np.testing.assert_array_equal(order, same)  # so k = 1 raw ranks alike
    np.testing.assert_allclose(cosine, euclidean**2 / 2, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_zero_vector_is_at_cosine_distance_one_from_everything_but_its_copies(dtype):
    z = np.array([[1.0, 0], [0, 0], [0, -3], [0, 0]], dtype)
    bank = Bank(z, "cosine")
    d, index = bank.nearest(np.array([[0, 0], [2, 0]], dtype), 4)
    np.testing.assert_array_equal(d, [[0, 0, 1, 1], [0, 1, 1, 1]])
    np.testing.assert_array_equal(index, [[1, 3, 0, 2], [0, 1, 2, 3]])
    np.testing.assert_array_equal(bank.distances(z), [[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0]])
    np.testing.assert_array_equal(bank.nearest(None, 1)[0].ravel(), [1, 0, 1, 0])
    np.testing.assert_array_equal(Bank(z[:1], "cosine").nearest(z, 1)[0].ravel(), [0, 1, 1, 1])


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lower_index_however_many_there_are(metric):
    z = np.tile(rng.normal(size=(2, 6)), (20, 1))
    _, i = Bank(z, metric).nearest(z[:2], 6)
    np.testing.assert_array_equal(i, [np.arange(0, 12, 2), np.arange(1, 13, 2)])
    _, own = Bank(z, metric).nearest(None, 3)
    np.testing.assert_array_equal(own[:3], [[2, 4, 6], [3, 5, 7], [0, 4, 6]])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(GEOMETRIES)), st.sampled_from(METRICS), st.data())
def test_a_query_s_neighbours_do_not_depend_on_its_batch(name, metric, data):
    z = GEOMETRIES[name].astype(np.float32)
    q = np.concatenate([z[:8], z[:8] + np.abs(z).mean()])
    bank = Bank(z, metric)
    whole = bank.nearest(q, 3)
    batch = data.draw(st.lists(st.integers(0, len(q) - 1), min_size=1, max_size=5))
    for together, part in zip(whole, bank.nearest(q[batch], 3), strict=True):
        np.testing.assert_array_equal(together[batch], part)


def test_many_blocks_give_what_one_block_gives(monkeypatch):
    z = clusters(1e4).astype(np.float32)
    whole = Bank(z, "euclidean").nearest(None, 3)
    monkeypatch.setattr(bank_module, "BLOCK", 1)
    monkeypatch.setattr(bank_module, "ROWS", 7)
    monkeypatch.setattr(bank_module, "CACHE", 100)
    for a, b in zip(whole, Bank(z, "euclidean").nearest(None, 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_k_beyond_the_bank_is_clipped():
    z = rng.normal(size=(4, 3))
    assert Bank(z).nearest(z, 99)[0].shape == (4, 4)
    assert Bank(z).nearest(None, 99)[0].shape == (4, 3)
    assert Bank(z[:1]).nearest(None, 1)[0].shape == (1, 0)
    assert Bank(z).nearest(z[:0], 2)[0].shape == (0, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 300), st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**31))
def test_the_bound_is_reached_by_k_entries_and_pairs_are_all_that_reach_it(rows, columns, k, levels, seed):
    values = np.random.default_rng(seed).integers(0, 10**levels, (rows, columns)).astype(np.float32)
    bound = kth_upper_bound(values, min(k, columns))
    row, column = entries_below(values, bound)
    assert (np.bincount(row, minlength=rows) >= min(k, columns)).all()
    np.testing.assert_array_equal(np.stack([row, column]), np.nonzero(values <= bound[:, None]))


def test_an_empty_bank_and_queries_of_another_width_are_refused():
    with pytest.raises(ValueError, match="the bank is empty"):
        Bank(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="length 2, the bank vectors of length 3"):
        Bank(np.ones((2, 3))).nearest(np.ones((1, 2)), 1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mapped_bank_gives_the_same_bits(name, metric, kind, monkeypatch):
    monkeypatch.setattr(bank_module, "BLOCK", 1 << 9)  # pieces of a few members
    monkeypatch.setattr(MappedBank, "fewest_rows", 3)
    z = GEOMETRIES[name].astype(kind)
    q = np.concatenate([z[:7], z[:7] + np.abs(z).mean().astype(kind)])
    mapped, whole = MappedBank(z, metric), Bank(z, metric)
    for queries, k in ((q, 4), (None, 5)):
        for found, wanted in zip(mapped.nearest(queries, k), whole.nearest(queries, k), strict=True):
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(mapped.distances(q), whole.distances(q))


def test_a_large_bank_is_mapped_and_every_method_scores_the_same(monkeypatch):
    z, q = rng.normal(size=(2, 90, 16)).astype(np.float32)
    is_target = np.arange(90) > 80
    for method in ("raw", "ldn", "varmin", "domain_z", "dldn"):
        small = backend.fit(z, is_target, method=method)
        with monkeypatch.context() as patch:
            patch.setattr(bank_module, "LARGE", 5)
            large = backend.fit(z, is_target, method=method)
            np.testing.assert_array_equal(large.score(q), small.score(q))
            np.testing.assert_array_equal(large.train_scores, small.train_scores)


def test_a_coreset_covers_within_twice_the_best_radius():
    z = rng.normal(size=(12, 2))
    best = min(
        np.min([oracles.distances(z[list(kept)][i], z, "euclidean") for i in range(3)], axis=0).max()
        for kept in combinations(range(12), 3)
    )
    found = coreset(z, 3, metric="euclidean")
    assert len(set(found.kept)) == 3 and best <= found.radius <= 2 * best  # Gonzalez 1985
    reach = np.min([oracles.distances(z[i], z, "euclidean") for i in found.kept], axis=0)
    left_out = np.delete(reach, found.kept)
    assert found.radius == pytest.approx(left_out.max()) and found.mean == pytest.approx(left_out.mean())


def test_a_coreset_of_shards_has_the_asked_size_and_the_seed_decides(monkeypatch):
    monkeypatch.setattr(bank_module, "SHARD", 30)
    z = np.concatenate([rng.normal(size=(99, 80)), rng.normal(size=(1, 80)) + 50])
    for keep in (1, 7, 50, 99):
        found = coreset(z, keep, seed=1)
        assert len(found.kept) == keep == len(set(found.kept))
    assert 99 in coreset(z, 20, metric="euclidean").kept  # the one far off
    np.testing.assert_array_equal(coreset(z, 20, seed=3).kept, coreset(z, 20, seed=3).kept)
    assert not np.array_equal(coreset(z, 20, seed=3).kept, coreset(z, 20, seed=4).kept)
    everything = coreset(z, 100)
    assert len(everything.kept) == 100 and everything.radius == 0
    duplicates = np.zeros((10, 3))
    assert len(set(coreset(duplicates, 6).kept)) == 6
