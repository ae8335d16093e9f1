"""Calibration by groups on a real motor: groups, distances, set-points and scores, computed once by other code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import SHARED
from nearfar import Detector, load
from nearfar.detector.calibration import follows
from nearfar.recipe import Recipe, Watch

EXPECTED = json.loads((Path(__file__).parent / "golden" / "hearing-bldc-motor.json").read_text(encoding="utf-8"))
MOTOR = SHARED / "data" / "dcase2026-form" / "bldcMotor"
pytestmark = pytest.mark.skipif(not MOTOR.is_dir(), reason="the recordings of the motor are not on this machine")
NORMALS = sorted((MOTOR / "train").glob("*.wav"))
GAUSSIAN = {"normalize": False, "method": "mahalanobis", "standardize": True, "ignore_domains": True}
STEADY = Recipe(encoder="logmel-4096", view="w1w_16384", pooling="quiet", shrinkage=0.1, **GAUSSIAN)
BURST = Recipe(view="w1w_16384", pooling="burst", shrinkage=0.3, **GAUSSIAN)
WATCH = Watch((("steady", 1, STEADY), ("transient", 1, BURST)), combine="root_sum")


@pytest.fixture(scope="module")
def watching():
    return Detector(WATCH).fit(NORMALS)


def natural(detector, values):
    """Scores in natural units instead of standard deviations."""
    return np.asarray(values) * detector.fitted.sigma + detector.fitted.mu


def test_relatives_are_those_of_the_formulas(watching):
    labels = watching.groups
    related = [np.flatnonzero((row == labels).any(axis=1)).tolist() for row in labels]
    assert related == EXPECTED["related"]
    assert watching.sessions == [""] * 30


def test_distances_and_combined_scores_of_the_normals(watching):
    fitted = watching.fitted
    for own, name in zip(fitted.own, ("steady", "transient"), strict=True):
        np.testing.assert_allclose(own, EXPECTED["own"][name], atol=2e-5)
    np.testing.assert_allclose(natural(watching, fitted.train_values), EXPECTED["train"], atol=2e-5)
    np.testing.assert_allclose(natural(watching, fitted.lone_values), EXPECTED["unusual"], atol=2e-5)


def test_set_points_of_both_lamps(watching, tmp_path):
    detector = load(watching.save(tmp_path / "motor"))
    for rate in (0.01, 0.05, 0.1):
        detector.set_threshold(rate=rate)
        found = {"alarm": detector.threshold.value, "unusual": detector.unusual_threshold}
        for lamp, value in found.items():
            assert natural(detector, value) == pytest.approx(EXPECTED["set_points"][lamp][str(rate)], abs=2e-5)


def test_scores_of_new_clips_and_of_each_watch(watching):
    for score in watching.score(sorted((MOTOR / "test").glob("*.wav"))[::4]):
        whole, *parts = EXPECTED["scores"][score.name]
        assert natural(watching, score.score) == pytest.approx(whole, abs=5e-4)
        assert np.array(list(score.part_scores.values())) * np.log(10) == pytest.approx(parts, abs=5e-4)


@pytest.mark.slow
def test_the_gate_of_the_mean_power_is_that_of_the_formulas():
    quiet = replace(STEADY, method="raw", shrinkage="ledoit_wolf", standardize=False, ignore_domains=False)
    noise = replace(quiet, encoder="logmel-4096-4096", view="noise_16384", pooling="power")
    banks = [
        Detector(r, calibration="clips").fit(NORMALS).backends[0].z
        for r in (quiet, replace(quiet, pooling="power"), noise)
    ]
    found = follows(banks[1], banks[2]) - follows(banks[0], banks[2])
    assert found == pytest.approx(EXPECTED["gate_difference"], abs=1e-5)


@pytest.mark.slow
def test_the_default_hears_the_faults_of_the_motor_and_no_healthy_clip():
    detector = Detector().fit(NORMALS)
    assert natural(detector, detector.threshold.value) == pytest.approx(
        EXPECTED["near_only"]["set_point_0.05"], abs=2e-5
    )
    alarms, unusual = {"anomaly": 0, "normal": 0}, {"anomaly": 0, "normal": 0}
    for score in detector.score(sorted((MOTOR / "test").glob("*.wav"))):
        assert natural(detector, score.score) == pytest.approx(EXPECTED["near_only"]["scores"][score.name], abs=5e-4)
        label = "anomaly" if "anomaly" in score.name else "normal"
        alarms[label] += bool(score.anomalous)
        unusual[label] += bool(score.unusual)
    assert alarms == {"anomaly": 48, "normal": 0}
    assert unusual == {"anomaly": 59, "normal": 1}
