"""The published numbers: Table 5 gives the official scores, Table 4 its arithmetic means, and the remarks are true."""

import numpy as np
import pytest

from nearfar import recipe
from nearfar.challenge.pages import published
from nearfar.challenge.pages.published import MAHALA, MSE, OURS, TABLE_3, TABLE_4, TABLE_5
from nearfar.metrics import harmonic_mean


@pytest.mark.parametrize(("system", "score"), [(OURS, 63.41), (MSE, 56.66), (MAHALA, 57.66)])
def test_table_5_gives_the_official_scores(system, score):
    assert round(published.official(system), 2) == score


@pytest.mark.parametrize("system", [OURS, MSE, MAHALA])
def test_table_4_holds_arithmetic_means_of_table_5_and_a_harmonic_score(system):
    columns = np.array([rows[system] for rows in TABLE_5.values()])
    printed = TABLE_4[system]
    means = columns.mean(axis=0)
    assert (printed.auc_source, printed.auc_target, printed.pauc) == pytest.approx(tuple(means), abs=0.0051)
    assert abs(means[0] - harmonic_mean(columns[:, 0])) > 0.2, "the two means can be told apart"


def test_the_scores_of_the_baselines_in_table_4_follow_from_nothing():
    for system in (MSE, MAHALA):
        columns = np.array([rows[system] for rows in TABLE_5.values()])
        readings = [
            harmonic_mean(columns),
            columns.mean(),
            np.mean([harmonic_mean(row) for row in columns]),
            harmonic_mean(columns.mean(axis=0)),
            harmonic_mean(columns.mean(axis=1)),
            harmonic_mean([getattr(TABLE_4[system], k) for k in ("auc_source", "auc_target", "pauc")]),
        ]
        assert min(abs(r - TABLE_4[system].score) for r in readings) > 0.2
    said = " ".join(published.REMARKS)
    for number in (TABLE_4[MSE].score, TABLE_4[MAHALA].score, 56.66, 57.66, TABLE_3["beats"].score):
        assert f"{number:.2f}" in said
    assert TABLE_3["beats"].score < published.official(MAHALA)


def test_table_3_is_the_recipes_of_the_same_names():
    assert set(TABLE_3) == set(recipe.TABLE_3)
    for name, row in TABLE_3.items():
        made = recipe.TABLE_3[name]
        assert made.view == row.view and made.metric.startswith(row.backend[:3].lower())
        assert (made.method == "ldn") == row.backend.endswith("LDN")
        assert f"k={made.density_k or made.k} " in row.backend
    assert max(row.score for row in TABLE_3.values()) == TABLE_4["eat-large"].score


def test_every_published_system_has_a_number_and_a_source():
    for system in published.SYSTEMS:
        assert system.source and (system.dev or system.eval)
        assert all(value is None or 50 < value < 75 for value in (system.dev, system.eval))
    assert len({system.name for system in published.SYSTEMS}) == len(published.SYSTEMS)
