"""Approximate neighbours: where the index names all members, the scores are those of the exact back ends."""

import numpy as np
import pytest

from nearfar.backend import fit
from nearfar.metrics import auc
from nearfar.recipe import Recipe

pytest.importorskip("faiss")

from nearfar import approximate

rng = np.random.default_rng(0)


def embeddings(count, width=32, inner=6):
    onto = np.random.default_rng(1).normal(size=(inner, width))
    return (rng.normal(size=(count, inner)) @ onto + 0.1 * rng.normal(size=(count, width))).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("settings", [{}, {"k": 3}, {"density_k": 4}, {"density_k": 2, "k": 2, "exponent": 0.5}])
def test_with_all_members_named_the_scores_are_exact(metric, settings):
    z, q = embeddings(60), embeddings(9)
    z[7] = z[3]  # a copy is the nearest of its twin
    method = "ldn" if "density_k" in settings else "raw"
    exact = fit(z, method=method, metric=metric, **settings)
    found = approximate.ivf(z, np.zeros(60, bool), metric=metric, **settings)
    np.testing.assert_allclose(found.score(q), exact.score(q), rtol=1e-5)
    alone = np.delete(np.arange(60), [3, 7])  # of twins, LDN floors the density
    np.testing.assert_allclose(found.train_scores[alone], exact.train_scores[alone], rtol=1e-5)


@pytest.mark.parametrize("name", ["ivf", "ivf_pq"])
def test_most_neighbours_are_found_and_anomalies_stay_apart(name):
    z, q = embeddings(12_000), embeddings(200)
    q[100:] += 0.3 * rng.normal(size=(100, 32)).astype(np.float32)
    found = fit(z, method=name)
    exact = fit(z)
    labels = np.arange(200) >= 100
    assert found._method.fitted.recall(q[:100], 1) > {"ivf": 0.95, "ivf_pq": 0.8}[name]
    assert abs(auc(found.score(q), labels) - auc(exact.score(q), labels)) < 0.02
    again = fit(z, method=name)
    np.testing.assert_array_equal(found.score(q), again.score(q))


def test_a_recipe_takes_it_by_name_or_itself():
    assert Recipe(method=approximate.ivf).method == "ivf" == Recipe(method="ivf").method
