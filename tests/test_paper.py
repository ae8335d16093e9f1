"""Tables of a paper, the comparison of two systems, and the decisions by domain."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

from commands import nearfar
from nearfar import metrics
from nearfar.challenge.evaluate import compare_evaluations, evaluate
from nearfar.challenge.pages import map as maps
from nearfar.challenge.pages import paper
from nearfar.recipe import BASELINE, Recipe

TABLE = ("A & B", ("machine_1", "score"), [["fan 100%", "61.20 [50.00, 70.10]"], ["a|b\\c", "-3.10"]])


def test_latex_has_booktabs_rules_escapes_and_right_aligned_numbers():
    text = paper.latex(TABLE)
    assert r"RDP($\alpha$=20) & 1.00 \\" in paper.latex(("A", ("a", "b"), [["RDP(α=20)", "1.00"]]))
    assert r"\begin{tabular}{lr}" in text and r"\caption{A \& B}" in text
    assert r"machine\_1 & score \\" in text and r"fan 100\% & 61.20 [50.00, 70.10] \\" in text
    assert r"a\textbar{}b\textbackslash{}c & -3.10 \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_markdown_and_csv_keep_every_cell():
    lines = paper.markdown(TABLE).splitlines()
    assert lines[:2] == ["| machine_1 | score |", "| --- | --- |"] and lines[3] == "| a\\|b\\c | -3.10 |"
    rows = list(csv.reader(paper.as_csv(TABLE).splitlines()))
    assert rows == [list(TABLE[1]), TABLE[2][0], ["a|b\\c", "-3.10"]]
    assert paper.as_csv(("x", ("a",), [["=1+1"]])) == "a\n'=1+1\n"


@pytest.fixture(scope="module")
def evaluations(demo_set):
    return [evaluate(demo_set, recipe, rounds=20) for recipe in (BASELINE, Recipe())]


def test_two_systems_are_compared_clip_by_clip_on_the_same_draws(evaluations):
    a, b = evaluations
    got = compare_evaluations(a, b, rounds=50)
    assert got.difference == pytest.approx(a.overall - b.overall)
    assert got.interval.low <= got.difference <= got.interval.high
    assert compare_evaluations(a, a, rounds=5).difference == 0


def test_decisions_are_those_of_the_set_point(evaluations):
    for m in evaluations[0].machines:
        for name, target in (("source", False), ("target", True)):
            mine = [
                (s.anomalous, r.is_anomaly)
                for s, r in zip(m.scores, m.recordings, strict=True)
                if r.is_target is target
            ]
            hits = sum(bool(alarm and odd) for alarm, odd in mine)
            alarms, anomalies = sum(bool(alarm) for alarm, _ in mine), sum(bool(odd) for _, odd in mine)
            got = m.decisions[name]
            assert (got.precision, got.recall) == (hits / max(alarms, 1), hits / anomalies)
            assert got.f1 == pytest.approx(2 * hits / (alarms + anomalies))


def test_evaluate_writes_tables_figures_and_the_comparison(demo_set, tmp_path):
    arguments = ("--recipe", "logmel-floor", "--against", "logmel-floor", "--rounds", 5, "--tables", tmp_path, "--json")
    code, out, err = nearfar("evaluate", demo_set, *arguments)
    assert code == 0, err
    done = json.loads(out)
    assert done["against"]["difference"] == 0 and done["against"]["a_better"] == 0.5
    machine, values = next(iter(done["machines"].items()))
    assert set(values["decisions"]) == {"source", "target"}
    rows = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8")))
    assert [row["machine"] for row in rows] == [*done["machines"], "official score"]
    assert rows[0]["AUC source"].startswith(f"{100 * values['result']['auc_source']:.2f} [")
    assert re.search(r"logmel-floor & 0\.00 \[0\.00, 0\.00\] & 50\.00", (tmp_path / "comparison.tex").read_text())
    assert "| precision | recall | F1 |" in (tmp_path / "decisions.md").read_text()
    decided = {(row["machine"], row["domain"]): row for row in csv.DictReader((tmp_path / "decisions.csv").open())}
    recalls = [100 * values["decisions"]["target"]["recall"] for values in done["machines"].values()]
    assert len(decided) == 2 * len(recalls) + 4
    assert float(decided["arithmetic mean", "target"]["recall"]) == pytest.approx(np.mean(recalls), abs=0.01)
    lowest = metrics.harmonic_mean([recall / 100 for recall in recalls])
    assert float(decided["harmonic mean", "target"]["recall"]) == pytest.approx(100 * lowest, abs=0.01)
    assert (tmp_path / f"roc-{machine}.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (tmp_path / f"roc-{machine}.svg").read_bytes()
    assert (tmp_path / "results.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "results.svg").exists()


def test_search_and_reproduce_write_tables(demo_set, tmp_path):
    chosen = ("--encoder", "logmel", "--views", "near_only", "--poolings", "mean", "--methods", "raw", "--rounds", 5)
    code, _, err = nearfar("search", demo_set, *chosen, "-o", tmp_path / "search", "--tables", tmp_path / "s")
    assert code == 0, err
    worth = (tmp_path / "s" / "what-the-best-one-is-worth.csv").read_text()
    assert (
        "Nested" in worth
        and "Optimism" in worth
        and "logmel" in (tmp_path / "s" / "best-configurations.md").read_text()
    )
    effects = sorted(p.name for p in (tmp_path / "s").glob("effect-*"))
    assert effects == ["effect-back-end.pdf", "effect-back-end.svg"]
    by_machine = list(csv.DictReader((tmp_path / "s" / "by-machine.csv").open(encoding="utf-8")))
    numbers = [1 / float(row[name]) for row in by_machine for name in ("AUC source", "AUC target", "pAUC")]
    best = float(re.search(r"Best,([\d.]+)", worth)[1])
    assert len(by_machine) == 2 and len(numbers) / sum(numbers) == pytest.approx(best, abs=0.02)
    code, _, err = nearfar("fuse", demo_set, tmp_path / "search", "--tables", tmp_path / "f")
    assert code == 0, err
    rows = dict(csv.reader((tmp_path / "f" / "worth-of-the-fusion.csv").open(encoding="utf-8")))
    assert float(rows["Optimism"]) == pytest.approx(float(rows["Fusion"]) - float(rows["Nested"]), abs=0.02)
    weights = list(csv.DictReader((tmp_path / "f" / "weights-of-the-fusion.csv").open(encoding="utf-8")))
    assert sum(float(row["weight"]) for row in weights) == pytest.approx(1, abs=0.03)
    code, _, err = nearfar("reproduce", demo_set, "--results", tmp_path / "runs", "--tables", tmp_path / "r")
    assert code == 0, err
    assert {p.stem for p in (tmp_path / "r").glob("*.tex")} == {"table-3", "table-4", "table-5"}
    assert r"score, report" in (tmp_path / "r" / "table-3.tex").read_text()
    (logmel,) = [row for row in csv.DictReader((tmp_path / "r" / "table-3.csv").open()) if row["encoder"] == "logmel"]
    here, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", logmel["score, here"]).groups())
    assert low < here < high


def test_intervals_are_left_out_where_there_is_no_number():
    assert (
        paper._number(float("nan")) == "" and paper._number(0.5, metrics.Interval(0.4, 0.6)) == "50.00 [40.00, 60.00]"
    )


def test_pca_is_that_of_the_covariance_and_ignores_what_does_not_vary():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 6)) * [9, 5, 1, 1, 0.5, 0.1] + 100
    points, shares = maps.pca(z.astype(np.float32))
    values, axes = np.linalg.eigh(np.cov(z.T, bias=True))
    wanted = (z - z.mean(axis=0)) @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(wanted), atol=1e-3)
    np.testing.assert_allclose(shares, values[[-1, -2]] / values.sum(), rtol=1e-4)
    flat, none = maps.pca(np.ones((3, 4)))
    assert not flat.any() and not none.any()
    line, first = maps.pca(np.array([[0.0], [1], [5]]))
    assert line[:, 1].tolist() == [0, 0, 0] and first.tolist() == [1, 0]


def test_vectors_are_drawn_as_maps_of_each_machine(demo_set, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "umap", lambda z: None)  # as without the extra
    page, figures = tmp_path / "map.html", tmp_path / "figures"
    drawn = ("--page", page, "--figures", figures)
    code, _, err = nearfar("vectors", demo_set, "--recipe", "logmel-floor", "-o", tmp_path / "x.npz", *drawn)
    assert code == 0, err
    text = page.read_text(encoding="utf-8")
    arrays = np.load(tmp_path / "x.npz")
    for machine in set(arrays["machines"].tolist()):
        assert f"{machine}: PCA of 28 clips; the axes hold" in text
        assert (figures / f"map-{machine}-pca.pdf").read_bytes().startswith(b"%PDF")
        svg = (figures / f"map-{machine}-pca.svg").read_bytes()
        assert b"<svg" in svg and b"<dc:date>" not in svg
    of = maps.kinds(arrays)
    assert of.count("anomaly") == (arrays["labels"] == "anomaly").sum() > 0 and "target normal" in of
    assert text.count("<figure>") == 2 and "6 anomaly" in text


@pytest.mark.slow
def test_umap_keeps_groups_apart_and_draws_what_pca_draws(demo_set, tmp_path):
    pytest.importorskip("umap", reason="the extra umap is not installed")
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.normal(size=(25, 16)), rng.normal(size=(25, 16)) + 6]).astype(np.float32)
    assert maps.umap(groups[:4]) is None, "too few"
    points = maps.umap(groups)
    assert points is not None and points.shape == (50, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(points, maps.umap(groups))
    nearest = (np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(50)).argmin(axis=1)
    assert ((nearest < 25) == (np.arange(50) < 25)).all()
    for few in (rng.normal(size=(5, 4)), np.ones((9, 4)), np.repeat(rng.normal(size=(2, 4)), 6, axis=0)):
        made = maps.umap(few.astype(np.float32))
        assert made is not None and made.shape == (len(few), 2) and np.isfinite(made).all()
    page, figures = tmp_path / "map.html", tmp_path / "figures"
    drawn = ("--page", page, "--figures", figures)
    code, _, err = nearfar("vectors", demo_set, "--recipe", "logmel-floor", "-o", tmp_path / "x.npz", *drawn)
    assert code == 0 and "Warning" not in err, err
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 4 and text.count("UMAP, seed 0; distances between groups mean nothing.") >= 2
    assert {p.stem.rpartition("-")[2] for p in figures.glob("*.pdf")} == {"pca", "umap"}
