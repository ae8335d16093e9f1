"""Stretches of normals: found where the order tells them, and left out together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.audio.checks import ROW
from nearfar.detector.members import Members
from nearfar.detector.stretches import _clusters, _neighbours, stretches
from nearfar.embedding.embedder import Origin
from nearfar.embedding.facts import GroupFeatures


def days(seed: int, sessions: int, recordings: int, pieces: int, apart: float = 3.0) -> np.ndarray:
    """Levels of pieces of recordings of sessions: each recording and each session differs from the others."""
    rng = np.random.default_rng(seed)
    day = apart * np.repeat(rng.normal(size=(sessions, 12)), recordings * pieces, axis=0)
    recording = np.repeat(rng.normal(size=(sessions * recordings, 12)), pieces, axis=0) * (pieces > 1)
    return day + recording + (0.1 if pieces > 1 else 1) * rng.normal(size=day.shape)


@pytest.mark.parametrize(("sessions", "recordings", "pieces"), [(3, 7, 1), (10, 20, 1), (3, 12, 3), (8, 8, 3)])
def test_sessions_are_found_whether_recordings_are_whole_or_cut(sessions, recordings, pieces):
    for seed in range(3):
        found = stretches(days(seed, sessions, recordings, pieces, apart=6.0))
        whole = np.repeat(np.arange(sessions), recordings * pieces)
        for name in np.unique(whole):  # no session is cut
            assert len(np.unique(found[whole == name])) == 1
        assert found.max() > 1 and (np.diff(found) >= 0).all() and found[0] == 1


def test_where_the_order_tells_nothing_there_are_none():
    assert sum(stretches(np.random.default_rng(seed).normal(size=(60, 12))).any() for seed in range(20)) <= 1
    shuffled = days(0, 3, 20, 1)[np.random.default_rng(0).permutation(60)]
    assert not stretches(shuffled).any()
    assert not stretches(np.ones((50, 4))).any()
    assert not stretches(days(0, 2, 2, 1)).any()  # too few


def test_recordings_of_one_session_are_no_more_than_recordings():
    found = stretches(days(1, 1, 20, 3))
    recording = np.repeat(np.arange(20), 3)
    assert found.max() >= 15
    assert all(len(np.unique(found[recording == name])) == 1 for name in range(20))


@given(st.integers(0, 100), st.floats(0.01, 100), st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_the_unit_and_the_level_of_a_band_do_not_matter(seed, factor, shift):
    levels = days(seed, 4, 6, 1)
    other = levels.copy()
    other[:, 3] = factor * other[:, 3] + shift
    middle = np.median(levels.std(axis=0))
    if factor * levels[:, 3].std() > 0.2 * middle:  # else its scale is the floor
        np.testing.assert_array_equal(stretches(levels), stretches(other))


def plain_merges(points: np.ndarray) -> list[tuple[int, float]]:
    """Ward's criterion from its definition: the scatter of the union less that of both."""

    def scatter(rows: list[int]) -> float:
        return float(((points[rows] - points[rows].mean(axis=0)) ** 2).sum())

    clusters, merged = [[i] for i in range(len(points))], []
    while len(clusters) > 1:
        costs = [scatter(a + b) - scatter(a) - scatter(b) for a, b in pairwise(clusters)]
        k = int(np.argmin(costs))
        merged.append((clusters[k + 1][0], costs[k]))
        clusters[k : k + 2] = [clusters[k] + clusters[k + 1]]
    return merged


@pytest.mark.parametrize("n", [2, 3, 9, 40])
def test_neighbours_are_merged_as_ward_says_and_cut_where_the_index_is_highest(n):
    points = np.random.default_rng(n).normal(size=(n, 5))
    merged = _neighbours(points)
    want = plain_merges(points)
    assert merged[:, 0].tolist() == [first for first, _ in want]
    np.testing.assert_allclose(merged[:, 1], [scatter for _, scatter in want])
    if n < 9:
        return
    total, index = sum(s for _, s in want), {}
    for count in range(2, n // 2 + 1):
        within = sum(s for _, s in want[: n - count])
        index[count] = (total - within) / (count - 1) / (within / (n - count))
    assert _clusters(merged, n) == max(index, key=index.__getitem__)


def members(levels: np.ndarray, names: list[str]) -> Members:
    """Normals with these levels; all of one machine group and without noise groups."""
    rows = np.zeros((len(levels), ROW), np.float32)
    rows[:, : levels.shape[1]] = levels
    rng = np.random.default_rng(0)
    features = [GroupFeatures(rng.normal(size=8).astype(np.float32), np.zeros(0, np.float32)) for _ in levels]
    origins = [Origin(name, name, name, 2.0) for name in names]
    return Members(origins, np.zeros(len(levels), bool), [""] * len(levels), features, rows)


def test_stretches_are_left_out_together_in_the_order_of_the_counted_names():
    levels = days(0, 3, 7, 1)
    counted = [f"/x/clip {i}.wav" for i in range(21)]
    alike = np.equal.outer(np.repeat(range(3), 7), np.repeat(range(3), 7))
    heard = members(levels, counted)
    _, related, _ = heard.grouped()
    assert related[alike].all()
    by_name = sorted(range(21), key=counted.__getitem__)  # 0, 1, 10, 11, ...
    _, sorted_related, _ = heard[by_name].grouped()
    np.testing.assert_array_equal(sorted_related, related[np.ix_(by_name, by_name)])
    known = replace(heard, sessions=["a", "b", "c"] * 7)
    assert not known.grouped()[1][alike].all()
    assert not replace(heard, setup_rows=heard.setup_rows[:0]).grouped()[1][alike].all()
