"""Groups of normals: Ward clusters as the formula has them, who is related, and what is left out for a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from nearfar import Detector, load
from nearfar.audio import Clip
from nearfar.demo import synth
from nearfar.detector import calibration, odd
from nearfar.detector.calibration import Backing, clusters, follows, groups, related
from nearfar.detector.odd import unlike_the_others
from nearfar.detector.system import PValue


def bands(n, d, seed=0, kinds=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(kinds, d))[rng.integers(kinds, size=n)] * 5 + rng.normal(size=(n, d))


def naive_clusters(x, count, axes):
    c = x - x.mean(axis=0)
    deviation = c.std(axis=0)
    c = c / np.maximum(deviation, 0.1 * np.median(deviation))
    values, vectors = np.linalg.eigh(c.T @ c)
    return fcluster(linkage(c @ vectors[:, np.argsort(-values)[:axes]], "ward"), count, "maxclust")


def same(labels):
    return labels[:, None] == labels


@pytest.mark.parametrize("shape", [(30, 12), (12, 40), (100, 64)])
def test_clusters_are_ward_s_of_the_principal_components(shape):
    x = bands(*shape) * np.geomspace(0.01, 100, shape[1])
    np.testing.assert_array_equal(same(clusters(x, 6, 5)), same(naive_clusters(x, 6, 5)))


@pytest.mark.filterwarnings("error")
def test_equal_points_give_no_warning_of_scipy():
    assert len(clusters(np.zeros((4, 6)), 2, 4)) == 4


def test_the_number_of_groups_is_bounded_and_a_third_of_the_clips_at_most():
    assert groups(bands(7, 5))[:, 0].max() == 2
    assert groups(bands(20, 5, kinds=20))[:, 0].max() == 6
    found = groups(bands(400, 20, kinds=40), bands(400, 20, 1, kinds=40))
    assert found.shape == (400, 2)
    assert found.min() == 1
    assert found.max(axis=0).tolist() == [10, 10]
    assert (groups(bands(3, 5))[:, 1] == 0).all()


def test_a_noise_s_level_makes_no_group():
    noise = bands(40, 16, kinds=3)
    louder = noise + np.random.default_rng(1).normal(0, 30, (40, 1))
    np.testing.assert_array_equal(groups(noise, louder)[:, 1], groups(noise, noise)[:, 1])


def test_many_clips_are_clustered_by_a_sample_and_join_the_nearest_cluster(monkeypatch):
    rng = np.random.default_rng(0)
    kind = rng.integers(5, size=900)
    x = 20 * rng.normal(size=(5, 8))[kind] + rng.normal(size=(900, 8))
    whole = clusters(x, 5, 6)
    monkeypatch.setattr(calibration, "MOST", 100)
    np.testing.assert_array_equal(same(clusters(x, 5, 6)), same(whole))
    np.testing.assert_array_equal(same(whole), same(kind))
    np.testing.assert_array_equal(clusters(x, 5, 6), clusters(x, 5, 6))


def test_the_sample_is_even():
    sample = calibration._even_sample(777, 50)
    assert len(set(sample)) == 50
    assert (np.abs(sample - (np.arange(50) + 0.5) * 777 / 50) <= 777 / 100 + 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.integers(0, 9999))
def test_related_is_same_group_or_recording_or_session(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (n, 2))
    files = [None if v == 0 else f"{v}.wav" for v in rng.integers(0, 8, n)]
    sessions = [None if v == 0 else int(v) for v in rng.integers(0, 8, n)]

    def by_rule(heard):
        return np.array(
            [
                [
                    i == j
                    or (heard and any(labels[i, c] == labels[j, c] != 0 for c in (0, 1)))
                    or (files[i] is not None and files[i] == files[j])
                    or (sessions[i] is not None and sessions[i] == sessions[j])
                    for j in range(n)
                ]
                for i in range(n)
            ]
        )

    want = next((r for r in (by_rule(True), by_rule(False)) if (n - r.sum(axis=1)).min() >= 2), np.eye(n, dtype=bool))
    np.testing.assert_array_equal(related(labels, files, sessions), want)


def test_clips_of_sessions_are_related_and_unrelated_ones_are_not():
    for seed in range(5):
        alone = np.random.default_rng(seed).normal(size=(300, 40)) * np.geomspace(1, 10, 40)
        sessions = np.repeat(np.random.default_rng([seed, 1]).normal(size=(10, 40)), 30, axis=0)
        assert calibration.are_related(alone + 5 * sessions)
    found = [calibration.are_related(np.random.default_rng(s).normal(size=(120, 40))) for s in range(20)]
    assert sum(found) <= 6  # about one in six by chance
    assert calibration.are_related(np.ones((5, 4)))


def test_only_related_normals_have_a_margin(tmp_path):
    machine = synth.machine("fan", np.random.default_rng(0))
    clips = [Clip(*synth.render(machine, np.random.default_rng([1, i]), 1.0), name=str(i)) for i in range(60)]
    detector = Detector("logmel-floor").fit(clips)
    assert detector.fitted.safety == 1
    assert detector.threshold.value == pytest.approx(PValue(detector.train_values).score_at(0.05))
    assert load(detector.save(tmp_path / "m")).fitted.safety == 1
    bursts = [replace(clip, near=clip.near * (1 + 3 * (i % 5))) for i, clip in enumerate(clips)]
    detector = Detector("logmel-floor").fit(bursts)
    assert detector.fitted.safety == 2
    assert detector.threshold.value == pytest.approx(PValue(detector.train_values).score_at(0.025))
    assert load(detector.save(tmp_path / "m")).fitted.safety == 2


def test_groups_that_leave_too_few_leave_each_clip_alone():
    np.testing.assert_array_equal(related(np.array([[1, 1]] * 5)), np.eye(5, dtype=bool))
    coinciding = groups(np.ones((6, 4)), np.ones((6, 4)))
    np.testing.assert_array_equal(related(coinciding), np.eye(6, dtype=bool))
    two_files = related(np.array([[1, 1]] * 5), recordings=[0, 0, 1, 1, 1])  # the files alone leave two
    np.testing.assert_array_equal(two_files, same(np.array([0, 0, 1, 1, 1])))


def test_levels_follow_the_noise_as_their_correlation_says():
    rng = np.random.default_rng(0)
    noise, own = rng.normal(size=(50, 9)), rng.normal(size=(50, 9))
    assert follows(noise * 3 + 7, noise) == pytest.approx(1)
    assert follows(-noise, noise) == pytest.approx(-1)
    x = noise + own
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (x, noise))
    want = np.median([np.corrcoef(a[:, f], b[:, f])[0, 1] for f in range(9)])
    assert follows(x, noise) == pytest.approx(want)
    assert follows(np.zeros((5, 3)), rng.normal(size=(5, 3))) == 0


@pytest.mark.parametrize(
    ("backing", "text", "warning"),
    [
        (Backing(40, 40, 5), "40 recordings, of 5 sessions", ""),
        (Backing(40, 8, 3), "40 clips cut from 8 recordings, of 3 sessions", "3 sessions hardly show how"),
        (Backing(40, 40, 4), "40 recordings, of 4 sessions", "4 sessions hardly show how"),
        (Backing(40, 2, 0), "40 clips cut from 2 recordings; no name, folder", "2 recordings cannot show how"),
        (Backing(40, 40, 2), "40 recordings, of 2 sessions", "2 sessions cannot show how"),
        (Backing(40, 40, 0), "40 recordings; no name, folder or time tells their sessions", "If all of this was"),
    ],
)
def test_what_stands_behind_the_normals_is_told(backing: Backing, text: str, warning: str) -> None:
    assert str(backing).startswith(text)
    assert backing.warning.startswith(warning) and bool(backing.warning) == bool(warning)


# --- faults among the normals ----------------------------------------------------------------------------------------


def test_normals_unlike_the_others_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    steady, other = np.exp(rng.normal(size=50)), rng.normal(size=50)
    steady[7], other[30], other[31] = 1e3, 9.0, 8.0

    def excess(x):
        return (x - np.median(x)) / (1.4826 * np.median(np.abs(x - np.median(x))))

    z = np.maximum(excess(np.log(steady)), excess(other))
    want = [(i, pytest.approx(z[i])) for i in np.argsort(-z) if z[i] > 3.5]
    assert unlike_the_others([steady, other]) == want
    assert {i for i, _ in want} >= {7, 30, 31}


def test_a_tenth_of_the_normals_is_named_at_most():
    x = np.r_[np.linspace(1, 2, 30), 1e3 + np.arange(9)]
    assert [i for i, _ in unlike_the_others([x])] == [38, 37, 36]
    assert [i for i, _ in unlike_the_others([x[20:32]])] == [11]
    assert unlike_the_others([np.ones(9)]) == []


def clips(count, fault=None, seed=0):
    machine = synth.machine("gearbox", np.random.default_rng(3))
    return [
        Clip(
            *synth.render(machine, np.random.default_rng([seed, i]), 2.0, fault=fault, severity=1), name=f"{fault} {i}"
        )
        for i in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_faults_among_the_normals_are_named_and_without_them_the_fault_is_heard(count):
    normals = [*clips(40 - count), *clips(count, "tooth", 1)]
    faults = clips(10, "tooth", 2)
    detector = Detector().fit(normals)
    assert sum(bool(s.anomalous) for s in detector.score(faults)) <= 2
    named = [detector.normals[i].name for i, _ in detector.unlike_the_others()]
    assert sum("tooth" in name for name in named) == count  # two of one kind hide each other from leave-one-out
    detector = Detector().fit([clip for clip in normals if "tooth" not in clip.name])
    assert not any("tooth" in detector.normals[i].name for i, _ in detector.unlike_the_others())
    assert all(s.anomalous for s in detector.score(faults))


def test_normals_that_deafen_are_measured_by_a_detector_of_the_others():
    rng = np.random.default_rng(0)

    def clip(i, whistle=0.0):
        t = np.arange(16_000) / 16_000
        x = rng.normal(0, 0.01, 16_000).cumsum() * 0.02 + rng.normal(0, 0.01, 16_000) + whistle * np.sin(2e4 * t)
        return Clip(x.astype(np.float32), None, 16_000, f"clip {i}")

    clips = [clip(i, 0.02 if i in (4, 9) else 0) for i in range(26)]
    detector = Detector("logmel-floor").fit(clips)
    found = detector.deafening()
    assert found is not None and sorted(found.indices) == [4, 9] and found.threshold == detector.threshold.value
    named = dict(detector.unlike_the_others())
    assert list(named)[:2] in ([4, 9], [9, 4]) and min(named[4], named[9]) > odd.DEAFENING
    rest = Detector("logmel-floor").fit([c for i, c in enumerate(clips) if i not in (4, 9)])
    assert found.threshold_without == pytest.approx(rest.threshold.value)
    assert found.scores == pytest.approx([rest.score_clip(clips[i]).score for i in found.indices])
    assert all(not detector.score_clip(clips[i]).anomalous for i in found.indices)
    assert rest.deafening() is None


def test_what_stands_out_in_one_feature():
    x = np.random.default_rng(3).normal(size=(30, 50))
    x[[3, 8], 7] += 40
    found = odd.standing_out(x)
    above = x - np.median(x, axis=0)
    mad = 1.4826 * np.median(np.abs(above), axis=0)
    assert found == pytest.approx((above / mad).max(axis=1))
    assert set(np.flatnonzero(found > odd.STANDS_OUT)) == {3, 8}
