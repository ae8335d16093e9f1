"""Marginal effects of a search: the choice that decides the score has all of its variance, the others none."""

import itertools

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from nearfar.challenge.pages.effects import effects, search_page
from nearfar.challenge.pages.words import CHOICES, describe
from nearfar.recipe import Recipe

GRID = [
    Recipe(encoder="beats", view=view, low=low, spike=spike, pooling=pooling, alpha=9, p=3, method="ldn", density_k=k)
    for view, (low, spike), pooling, k in itertools.product(
        ("near_only", "n_f"), ((None, None), (0.1, 0.3)), ("mean", "gem", "rdp_gem"), (1, 5)
    )
]


def test_a_choice_that_decides_has_all_the_variance_and_one_that_does_not_matter_none():
    scores = [60.0 if r.view == "n_f" else 50.0 for r in GRID]
    found = {e.choice: e for e in effects(GRID, scores)}
    assert set(found) == {"view", "preprocessing", "pooling", "back end"}, "what was not varied has no effect"
    assert found["view"].share == pytest.approx(1) and next(iter(found)) == "view"
    assert all(found[c].share == pytest.approx(0) for c in ("preprocessing", "pooling", "back end"))
    assert [(g.value, g.median, g.count) for g in found["view"].groups] == [("n_f", 60, 12), ("near_only", 50, 12)]


def test_groups_hold_the_right_configurations_and_two_additive_effects_share_the_variance():
    rng = np.random.default_rng(0)
    scores = [50 + 2.0 * (r.view == "n_f") + 1.0 * (r.low is None) for r in GRID]
    found = {e.choice: e for e in effects(GRID, scores)}
    assert found["view"].share == pytest.approx(0.8) and found["preprocessing"].share == pytest.approx(0.2)
    noisy = rng.normal(size=len(GRID))
    for effect in effects(GRID, noisy):
        assert sum(g.count for g in effect.groups) == len(GRID)
        assert max(g.best for g in effect.groups) == pytest.approx(noisy.max())
        assert all(g.low <= g.median <= g.high <= g.best for g in effect.groups)
    pooling = next(e for e in effects(GRID, noisy) if e.choice == "pooling")
    assert {g.value for g in pooling.groups} == {"mean", "gem p=3", "rdp_gem alpha=9 p=3"}


def test_the_page_shows_every_choice_that_was_varied_and_leaves_out_what_has_no_score():
    scores = np.r_[np.arange(24), np.nan] / 100
    page = search_page([*GRID, GRID[0]], scores, "nearfar search <x>")
    assert "Which choice matters" in page and "nearfar search &lt;x&gt;" in page
    assert page.count("<figure>") == 4 and "24 configurations, 0.0 to 23.0 percent" in page
    assert "% of the variance" in page and page.count("data:image/png") == 8
    assert "<figure>" not in search_page(GRID[:1], np.array([0.5]), "one")
    for scores in ([], [1.0]):
        with pytest.raises(ValueError, match="one score each"):
            effects(GRID[: 2 * len(scores)], scores)


def test_without_labels_the_page_holds_the_tables_alone():
    unlabelled = np.full(len(GRID), np.nan)
    tables = [("What rules pick <here>", ("rule", "score"), [("a & b", "55.0")])]
    page = search_page(GRID, unlabelled, "x", tables)
    assert "What rules pick &lt;here&gt;" in page and "a &amp; b" in page and "have no labels" in page
    assert "<figure>" not in page
    with pytest.raises(ValueError, match="have no labels"):
        search_page(GRID, unlabelled, "x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "raw", "k": 5}, "raw, cosine, k=5"),
        ({"method": "ldn", "metric": "euclidean", "k": 1, "density_k": 3}, "ldn, euclidean, k=3"),
        ({"method": "ldn", "k": 1, "density_k": 4, "exponent": 0.5}, "ldn, cosine, k=4, exponent 0.5"),
        ({"method": "ldn", "k": 2, "density_k": 4}, "ldn, cosine, k=4, query k=2"),
        ({"method": "dldn"}, "dldn, cosine"),
        ({"method": "mahalanobis", "ignore_domains": True}, "mahalanobis, ignore_domains"),
    ],
)
def test_back_ends_are_named_as_in_table_2(fields, words):
    assert CHOICES["back end"](Recipe(**fields)) == words


def test_a_recipe_in_one_line_leaves_out_what_is_usual():
    assert describe(Recipe()) == "logmel, near_only, mean, raw, cosine, k=1"
    words = "eat-large, layer 7, n_f, mean, low 0.15, spike 0.3, rdp_gem alpha=9 p=3, ldn, cosine, k=3"
    choices = {"encoder": "eat-large", "layer": 7, "view": "n_f", "freq": "mean", "low": 0.15, "spike": 0.3}
    assert describe(Recipe(**choices, pooling="rdp_gem", alpha=9, method="ldn", density_k=3)) == words
