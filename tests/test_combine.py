"""A watch of parts that are given: what it promises, and that normals are measured like everything else."""

import numpy as np
import pytest

from nearfar.detector.system import PValue, build, from_normals
from nearfar.recipe import Recipe, Watch


def watching(parts, combine="rarest", weight=0.5):
    system = Watch(tuple((name, weight, Recipe()) for name in ("steady", "transient")), combine)
    return build(system, iter(parts), iter(parts))


def test_a_normal_is_as_rare_as_a_fresh_clip_with_its_scores():
    parts = np.random.default_rng(0).normal(size=(2, 30))
    watch = watching(parts)
    np.testing.assert_array_equal(watch.combine(iter(parts))[0], watch.own)


@pytest.mark.parametrize("normals", [20, 60])
@pytest.mark.parametrize("rate", [0.1, 0.05])
def test_about_as_many_fresh_clips_alarm_as_promised(normals, rate):
    rng, came = np.random.default_rng(1), []
    for _ in range(600):
        parts, fresh = rng.gamma(4.0, size=(2, normals)), rng.gamma(4.0, size=(2, 400))
        watch = watching(parts)
        came.append(np.mean(watch.combine(iter(fresh))[0] > from_normals(watch.own, rate).value))
    assert 0.9 * rate < np.mean(came) < 1.2 * rate


def test_the_root_sum_adds_what_each_part_finds_rare():
    rng = np.random.default_rng(2)
    parts, fresh = rng.normal(size=(2, 40)), rng.normal(size=(2, 9)) + 1
    found, each = watching(parts, "root_sum", 0.7).combine(iter(fresh))
    logs = [0.7 * PValue(own).log_p(q) for own, q in zip(parts, fresh, strict=True)]
    np.testing.assert_allclose(found, np.sqrt(logs[0] ** 2 + logs[1] ** 2), rtol=1e-12)
    np.testing.assert_allclose(each["steady"], -logs[0] / np.log(10), rtol=1e-12)
    assert (found >= np.max(np.abs(logs), axis=0)).all()
