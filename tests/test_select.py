"""Metrics of many configurations at once, honest selection and fusion, on tables whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nearfar import metrics
from nearfar.backend import BackendConfig
from nearfar.challenge.search import fuse, select
from nearfar.challenge.search.records import STATISTICS, Records, TestSet, read, write_table
from nearfar.recipe import FUSION, TABLE_3, Recipe


def table(configurations=400, machines=7, clips=60, signal=(), seed=0):
    """Scores that are noise, except for the configurations in `signal`, which hear every anomaly a little."""
    rng = np.random.default_rng(seed)
    anomalous, target = np.arange(clips) % 2 == 0, np.arange(clips) % 4 < 2
    labels = TestSet([], [str(i) for i in range(clips)], [bool(a) for a in anomalous], [bool(t) for t in target])
    names = [f"m{i}" for i in range(machines)]
    scores = {}
    for name in names:
        s = rng.normal(size=(configurations, clips)).astype(np.float32)
        s[list(signal)] += 1.0 * anomalous
        scores[name] = s
    numbers = np.stack([metrics.machine_values(scores[m], anomalous, target) for m in names], axis=1)
    statistics = rng.uniform(0.1, 1, (configurations, machines, len(STATISTICS)))
    statistics[:, :, :2] = 0, 1
    recipes = [Recipe(view="near_only", alpha=float(i)) for i in range(configurations)]
    return Records(recipes, dict.fromkeys(names, labels), numbers, statistics, scores)


def test_what_is_best_by_luck_alone_is_chance_when_nested_and_optimistic_when_not():
    found = [select.select(table(seed=seed), rounds=20) for seed in range(6)]
    assert np.mean([s.best for s in found]) > 0.53
    assert np.mean([s.nested for s in found]) == pytest.approx(0.5, abs=0.015)
    assert np.mean([s.optimism for s in found]) > 0.03
    assert np.mean([(s.procedure.low + s.procedure.high) / 2 for s in found]) < np.mean([s.best for s in found])


def test_what_is_really_best_is_chosen_and_keeps_its_score():
    found = select.select(table(signal=[17]), rounds=20)
    assert found.row == 17 and found.optimism == pytest.approx(0, abs=1e-12)
    assert found.interval.low < found.best < found.interval.high


def test_label_free_rules_say_how_well_they_agree():
    records = table(machines=2)
    records.statistics[:, :, STATISTICS.index("pseudo_auc")] = records.overall[:, None]  # a rule that knows
    rules = select.label_free(records)
    assert rules["pseudo"].spearman == pytest.approx(1) and rules["pseudo"].regret == 0
    assert abs(rules["tail"].spearman) < 0.3 and rules["tail"].regret > 0
    records.statistics[rules["pseudo"].row, 0, STATISTICS.index("sd")] = 0  # it hears nothing: never picked
    assert select.label_free(records)["pseudo"].row != rules["pseudo"].row


def test_zmin_takes_the_smallest_aligned_score_of_all_back_ends_of_the_picked_view():
    records = table(configurations=5, machines=2, signal=[1, 2])
    records.statistics[:, :, :2] = np.random.default_rng(1).uniform(1, 2, (5, 2, 2))
    back_ends = [{"method": "raw"}, {"method": "ldn"}, {"method": "pca"}]
    recipes = [Recipe(**switches) for switches in back_ends] + [Recipe(view="n_f"), Recipe(view="n_f", method="ldn")]
    records = replace(records, recipes=recipes)
    rule = select.label_free(records)["zmin"]
    rows = [0, 1, 2] if rule.row < 3 else [3, 4]
    assert rule.parts == len(rows) and rule.row == select.label_free(records)["together"].row
    results = {}
    for m, name in enumerate(records.machines):
        mean, sd = records.statistics[:, m, 0], records.statistics[:, m, 1]
        lowest = np.min([(records.scores[name][i] - mean[i]) / sd[i] for i in rows], axis=0)
        results[name] = metrics.machine(lowest, *records.test_sets[name].labels)
    assert rule.overall == pytest.approx(metrics.overall(results))
    assert rule.regret == pytest.approx(records.overall.max() - rule.overall) and np.isnan(rule.spearman)


def test_stability_is_told_and_does_not_decide():
    records = table(machines=2)
    rules, order = select.label_free(records), select.label_free_score(records)
    records.statistics[:, :, STATISTICS.index("stable")] *= -1
    assert select.label_free(records)["stable"].spearman == pytest.approx(-rules["stable"].spearman)
    np.testing.assert_array_equal(select.label_free_score(records), order)
    records.statistics[:, :, STATISTICS.index("tail")] *= -1
    assert (select.label_free_score(records) != order).any()


def test_what_hears_nothing_comes_last_and_counts_for_no_rule():
    records = table(machines=1)
    deaf = np.arange(len(records)) % 2 == 0
    records.statistics[deaf, 0, STATISTICS.index("sd")] = 0
    records.numbers[deaf] = 0  # any rule that puts them last would agree with the labels
    assert all(abs(rule.spearman) < 0.3 for rule in select.label_free(records).values())
    assert set(np.argsort(select.label_free_score(records))[: deaf.sum()]) == set(np.flatnonzero(deaf))


def test_without_labels_there_is_no_best():
    records = table(configurations=3, machines=1, clips=4)
    blind = TestSet([], ["0"] * 4, [None] * 4, [None] * 4)
    unlabelled = Records(records.recipes, {"m0": blind}, np.full((3, 1, 3), np.nan), records.statistics, records.scores)
    with pytest.raises(ValueError, match="not every test clip is labelled"):
        select.select(unlabelled)
    assert np.isnan(select.label_free(unlabelled)["tail"].spearman)
    assert fuse.fuse(unlabelled, [0, 1]).weights == [0.5, 0.5]


def test_fusion_gives_weight_to_what_hears_and_none_to_noise():
    fused = fuse.fuse(table(configurations=6, signal=[1, 4]), range(6))
    assert sum(fused.weights) == pytest.approx(1) and fused.weights[1] + fused.weights[4] >= 0.75
    assert fused.overall >= max(fused.equal, fused.single) and fused.nested <= fused.overall
    assert fused.tried > 6 and {w for w, _ in fused.system.parts} == {w for w in fused.weights if w}
    assert all(round(w * 20) == pytest.approx(w * 20) for w in fused.weights)


def test_fusion_of_noise_is_optimistic():
    found = [fuse.fuse(table(configurations=8, seed=seed), range(8)) for seed in range(4)]
    assert np.mean([f.overall - f.nested for f in found]) > 0.02


def test_fused_scores_are_those_of_the_fusion_module():
    rng = np.random.default_rng(0)
    train = rng.normal(5, 2, (2, 40))
    records = table(configurations=2, machines=1)
    records.statistics[:, 0, :2] = np.stack([train.mean(axis=1), train.std(axis=1)], axis=1)
    from nearfar import fusion

    expected = fusion.fuse([(train[i], records.scores["m0"][i]) for i in (0, 1)], [0.3, 0.7])
    np.testing.assert_allclose(np.array([0.3, 0.7]) @ records.aligned([0, 1], "m0"), expected, rtol=1e-5)


def test_the_reports_weights_are_a_candidate_where_its_encoders_are():
    assert not fuse._published([TABLE_3["beats"]])
    names = ["beats", "openl3", "eat-large", "dasheng", "sslam", "eat-as2m"]
    weights = fuse._published([TABLE_3[name] for name in names])[0]
    assert dict(zip(names, weights, strict=True)) == {
        "beats": 0,
        **{part.encoder: weight for weight, part in FUSION.parts},
    }


def test_nested_weights_do_not_begin_from_the_reports_which_have_seen_the_machine():
    weights = np.array([weight for weight, _ in FUSION.parts])[:, None]
    for seed in range(6):
        records = table(configurations=5, machines=3, signal=range(5), seed=seed)
        for scores in records.scores.values():
            scores[:] = scores / np.sqrt(weights)  # so that the report's weights are a good start
        known = [replace(r, encoder=part.encoder) for r, (_, part) in zip(records.recipes, FUSION.parts, strict=True)]
        assert fuse.fuse(replace(records, recipes=known), range(5)).nested == fuse.fuse(records, range(5)).nested


def test_a_folder_without_records_says_what_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="nearfar search DATA -o"):
        read(tmp_path)


def test_the_table_has_a_row_per_configuration_as_parquet_or_csv(tmp_path, monkeypatch):
    import csv
    import sys

    records = table(configurations=4, machines=2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    rows = list(csv.DictReader(write_table(records, tmp_path).open(encoding="utf-8")))
    assert len(rows) == 4 and float(rows[2]["overall"]) == pytest.approx(records.overall[2])
    assert float(rows[1]["m1.auc_target"]) == pytest.approx(records.numbers[1, 1, 1]) and rows[0]["view"] == "near_only"
    assert BackendConfig().method == rows[0]["method"]


def test_a_column_of_the_table_may_hold_numbers_and_words(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    records = table(configurations=4, machines=1)
    chosen = [{"layer": (3, 6), "density_k": "auto"}, {"layer": 3, "density_k": 5}, {}, {"k": 3}]
    recipes = [Recipe(encoder="beats", method="ldn", **each) for each in chosen]
    rows = parquet.read_table(write_table(replace(records, recipes=recipes), tmp_path)).to_pylist()
    assert [row["layer"] for row in rows] == ["3+6", "3", None, None]
    assert [row["density_k"] for row in rows] == ["auto", "5", None, None]
    assert [row["k"] for row in rows] == [1, 1, 1, 3], "numbers alone stay numbers"
