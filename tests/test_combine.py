"""A watch of parts that are given: what it promises, and that normals are measured like everything else."""

from dataclasses import dataclass

import numpy as np
import pytest

from nearfar.detector.system import FittedWatch
from nearfar.support.check import Array
from nearfar.threshold import from_normals


@dataclass(frozen=True)
class Given:
    """A part whose scores are what it is given."""

    train: Array

    def combine(self, scores):
        return next(scores), {}


def watching(parts):
    return FittedWatch(["steady", "transient"], [0.5, 0.5], [Given(part) for part in parts])


def test_a_normal_is_as_rare_as_a_fresh_clip_with_its_scores():
    parts = np.random.default_rng(0).normal(size=(2, 30))
    watch = watching(parts)
    np.testing.assert_array_equal(watch.combine(iter(parts))[0], watch.train)


@pytest.mark.parametrize("normals", [20, 60])
@pytest.mark.parametrize("rate", [0.1, 0.05])
def test_about_as_many_fresh_clips_alarm_as_promised(normals, rate):
    rng, came = np.random.default_rng(1), []
    for _ in range(600):
        parts, fresh = rng.gamma(4.0, size=(2, normals)), rng.gamma(4.0, size=(2, 400))
        watch = watching(parts)
        came.append(np.mean(watch.combine(iter(fresh))[0] > from_normals(watch.train, rate).value))
    assert 0.9 * rate < np.mean(came) < 1.2 * rate
