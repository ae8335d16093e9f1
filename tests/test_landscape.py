"""Marginal effects of a search: the choice that decides the score has all of its variance, the others none."""

import csv
import itertools

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from nearfar.challenge.pages.effects import CHOICES, effects, landscape, read, search_page

GRID = [
    {"encoder": "beats", "view": view, "low": low, "spike": spike, "pooling": pooling, "alpha": 9, "p": 3,
     "method": "ldn", "metric": "cosine", "k": 1, "density_k": k}
    for view, (low, spike), pooling, k in itertools.product(
        ("near_only", "n_f"), ((None, None), (0.1, 0.3)), ("mean", "gem", "rdp_gem"), (1, 5)
    )
]  # fmt: skip


def test_a_choice_that_decides_has_all_the_variance_and_one_that_does_not_matter_none():
    scores = [60.0 if r["view"] == "n_f" else 50.0 for r in GRID]
    found = {e.choice: e for e in effects(GRID, scores)}
    assert set(found) == {"view", "preprocessing", "pooling", "back end"}, "what was not varied has no effect"
    assert found["view"].share == pytest.approx(1) and next(iter(found)) == "view"
    assert all(found[c].share == pytest.approx(0) for c in ("preprocessing", "pooling", "back end"))
    assert [(g.value, g.median, g.count) for g in found["view"].groups] == [("n_f", 60, 12), ("near_only", 50, 12)]


def test_groups_hold_the_right_configurations_and_two_additive_effects_share_the_variance():
    rng = np.random.default_rng(0)
    scores = [50 + 2.0 * (r["view"] == "n_f") + 1.0 * (r["low"] is None) for r in GRID]
    found = {e.choice: e for e in effects(GRID, scores)}
    assert found["view"].share == pytest.approx(0.8) and found["preprocessing"].share == pytest.approx(0.2)
    noisy = rng.normal(size=len(GRID))
    for effect in effects(GRID, noisy):
        assert sum(g.count for g in effect.groups) == len(GRID)
        assert max(g.best for g in effect.groups) == pytest.approx(noisy.max())
        assert all(g.low <= g.median <= g.high <= g.best for g in effect.groups)
    pooling = next(e for e in effects(GRID, noisy) if e.choice == "pooling")
    assert {g.value for g in pooling.groups} == {"mean", "gem p=3", "rdp_gem α=9 p=3"}


def test_the_section_names_what_was_varied_and_refuses_what_does_not_fit():
    page = landscape(GRID, np.arange(len(GRID)))
    assert page.count("<figure>") == 4 and "24 configurations" in page
    assert "% of the variance" in page and page.count("data:image/png") == 8
    assert "<figure>" not in landscape(GRID[:1], [50.0])
    for scores in ([], [1.0]):
        with pytest.raises(ValueError, match="each needs one"):
            effects(GRID[: 2 * len(scores)], scores)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"method": "raw", "metric": "cosine", "k": 5, "density_k": None}, "raw, cosine, k=5"),
        ({"method": "ldn", "metric": "euclidean", "k": 1, "density_k": 3}, "ldn, euclidean, k=3"),
        ({"method": "ldn", "metric": "x", "k": "1", "density_k": "4", "exponent": "0.5"}, "ldn, x, k=4, exponent 0.5"),
        ({"method": "dldn", "metric": "cosine", "k": 1, "density_k": None}, "dldn, cosine"),
        ({"method": "mahalanobis", "metric": "cosine", "ignore_domains": True}, "mahalanobis, ignore_domains"),
    ],
)  # fmt: skip
def test_back_ends_are_named_as_in_table_2(record, words):
    assert CHOICES["back end"](record) == words


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_the_table_of_a_search_is_read_in_either_form(tmp_path, end):
    rows = [{**r, "overall": 0.5 + 0.01 * i, "fan.omega": 0.5} for i, r in enumerate(GRID)] + [
        {**GRID[0], "overall": None}
    ]
    if end == "csv":
        with (tmp_path / "configurations.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            pyarrow.Table.from_pylist(rows), tmp_path / "configurations.parquet"
        )
    records, scores = read(tmp_path)
    assert scores == pytest.approx([50 + i for i in range(len(GRID))])
    assert effects(records, scores) == effects(GRID, scores), "text and numbers are read alike"
    assert "Which choice matters" in search_page(tmp_path, "nearfar search")


def test_a_search_without_its_table_or_without_labels_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="has the search come to its end"):
        read(tmp_path)
    (tmp_path / "configurations.csv").write_text("view,overall\nnear_only,\nn_f,nan\n")
    with pytest.raises(ValueError, match="have no labels"):
        read(tmp_path)
