"""The report's tables computed here: the same numbers as evaluation gives, kept, and honest about what is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from datasets import dev_2020, dev_2022, evaluation_set, tree
from fake_encoders import write_ced_tiny
from nearfar.challenge import evaluate as bench
from nearfar.challenge.data.layout import read
from nearfar.challenge.evaluate import ScoreCache, UnitScores, evaluate, fuse_units
from nearfar.challenge.pages import published, tables
from nearfar.challenge.pages.paper import latex, reproduction_tables
from nearfar.challenge.pages.tables import Reproduction, Run, reproduce, table_3
from nearfar.challenge.pages.words import columns_of
from nearfar.detector import Detector
from nearfar.embedding.store import Store
from nearfar.encoders import loading
from nearfar.metrics import harmonic_mean
from nearfar.recipe import BASELINE, FUSION, TABLE_3, Fusion, Recipe
from test_cli import nearfar

SEVEN = list(published.TABLE_5)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("seven"), [name for m in SEVEN for name in dev_2022(m)])


@pytest.fixture
def without_networks(monkeypatch: pytest.MonkeyPatch) -> Fusion:
    """The report's systems with log-mel in place of their networks."""
    plain: dict[str, Any] = {"encoder": "logmel", "low": None, "spike": None}  # decibels are all above EAT's spike
    rows = {name: replace(recipe, **plain) for name, recipe in TABLE_3.items()}
    fusion = Fusion(tuple((weight, replace(cast(Recipe, system), **plain)) for weight, system in FUSION.parts))
    monkeypatch.setattr(tables, "TABLE_3", rows)
    monkeypatch.setattr(tables, "FUSION", fusion)
    return fusion


def test_a_fusion_of_kept_scores_is_the_detector_of_the_fusion(seven, tmp_path):
    parts = (
        (0.5, Recipe(pooling="rdp", alpha=9)),
        (0.3, Recipe(view="sfsoft_a05f07", method="ldn", density_k=2, pooling="gem")),
        (0.2, Recipe(view="absdif_0.5", metric="euclidean", normalize=False)),
    )
    unit = read(seven, only=["fan"]).units[0]
    runs = ScoreCache(tmp_path)
    kept = [(w, next(s for _, s in runs.scores(f"part{i}", recipe, [unit]))) for i, (w, recipe) in enumerate(parts)]
    together = fuse_units(kept)
    detector = Detector(Fusion(parts)).fit([r.path for r in unit.train], [bool(r.is_target) for r in unit.train])
    want = {s.name: s.value for s in detector.score([r.path for r in unit.test])}
    assert together.test == pytest.approx(want, rel=1e-5, abs=1e-5)
    assert list(together.train.values()) == pytest.approx(list(detector.train_values), rel=1e-5, abs=1e-5)
    assert np.std(list(together.train.values())) == pytest.approx(1, abs=1e-6)


def test_a_fusion_holds_the_clips_that_all_parts_could_use():
    one = UnitScores({"a": 0.0, "b": 1.0, "c": 5.0}, {"x": 1.0, "y": 2.0})
    other = UnitScores({"a": -1.0, "b": 3.0}, {"y": 0.0}, [("c", "too short"), ("x", "too short")])
    together = fuse_units([(0.5, one), (0.5, other)])
    assert set(together.train) == {"a", "b"} and set(together.test) == {"y"}
    assert together.failures == other.failures


@pytest.mark.slow
def test_all_three_tables_on_the_report_s_machines(seven, tmp_path, without_networks):
    done = reproduce(read(seven), ScoreCache(tmp_path), {"logmel": None})
    three, four, five = done.tables
    assert done.notes == [], done.notes
    assert all(not run.why_not for run in done.runs.values()), [run.why_not for run in done.runs.values()]
    for row, (name, said) in zip(three.rows, published.TABLE_3.items(), strict=False):
        here = 100 * evaluate(seven, tables.TABLE_3[name], rounds=1).overall if name in ("beats", "eat-large") else None
        (cell,) = row.cells
        assert row.heads[0] == said.title and cell.report == said.score
        assert here is None or cell.here == pytest.approx(here, abs=1e-9)
        assert cell.difference == pytest.approx(cell.here - said.score)
    assert three.rows[-1].heads[0] == "logmel" and three.rows[-1].cells[0].report is None
    whole = evaluate(seven, without_networks, rounds=1)
    by_name = {m.name: m.result for m in whole.machines}
    ours = {row.heads[0]: row for row in five.rows if row.heads[1] == "Ours"}
    assert set(ours) == set(SEVEN)
    for machine, row in ours.items():
        assert [c.here for c in row.cells] == pytest.approx([100 * v for v in by_name[machine]], abs=1e-9)
        assert [c.report for c in row.cells] == list(published.TABLE_5[machine]["Ours"])
    mse, mahala, eat, fusion, *others = four.rows
    assert [row.heads[0] for row in others] == [r.heads[0] for r in three.rows if r.heads[0] != "EAT-large"]
    assert [row.cells[3].here for row in others] == [r.cells[0].here for r in three.rows if r.heads[0] != "EAT-large"]
    assert all(cell.report is None for row in others for cell in row.cells)
    assert "organisers" in mse.note and "organisers" in mahala.note and not eat.note and not fusion.note
    assert all(c.here is None and c.difference is None for c in mse.cells + mahala.cells)
    values = np.array([[100 * v for v in r] for r in by_name.values()])
    assert [c.here for c in fusion.cells[:3]] == pytest.approx(values.mean(axis=0))
    assert fusion.cells[3].here == pytest.approx(harmonic_mean(values))
    assert [m.partition(" (")[2] for m in four.metrics] == ["arithmetic)"] * 3 + ["harmonic)"]
    json.dumps(done.to_dict(), allow_nan=False)


def test_what_was_scored_is_not_scored_again_until_something_changes(seven, tmp_path, monkeypatch):
    found = read(seven, only=["fan", "ToyCar"])
    ran: list[str] = []
    plain = bench.evaluate_unit
    monkeypatch.setattr(bench, "evaluate_unit", lambda unit, *rest: ran.append(unit.name) or plain(unit, *rest))

    def again(recipe: Recipe = BASELINE, **options) -> dict:
        ran.clear()
        runs = ScoreCache(tmp_path / "kept", **options)
        units = read(seven, only=["fan", "ToyCar"]).units
        return {u.name: s for u, s in runs.scores("x", recipe, units)}

    first = again()
    assert ran == ["ToyCar", "fan"] and again() == first and ran == []
    again(replace(BASELINE, pooling="mean"))
    assert ran == ["ToyCar", "fan"], "another recipe"
    again(near=1, far=0)
    assert ran == ["ToyCar", "fan"], "other channels"
    again(store=Store(tmp_path / "store", "float16"))
    assert ran == ["ToyCar", "fan"], "rounded grids"
    clip = found.units[1].test[0].path
    content = clip.read_bytes()
    clip.write_bytes(content + b"\0\0")
    again()
    assert ran == ["fan"], "another file"
    kept = sorted((tmp_path / "kept").glob("x-ToyCar-*.json"))
    for file in kept:
        file.write_text(file.read_text()[:40])
    again()
    assert ran == ["ToyCar"], "a damaged file is as none"
    clip.write_bytes(content)


def test_a_stopped_run_goes_on_from_the_machine_where_it_stopped(seven, tmp_path, monkeypatch):
    units = read(seven, only=["fan", "ToyCar"]).units
    plain, ran = bench.evaluate_unit, []

    def stop_at_fan(unit, *rest):
        ran.append(unit.name)
        if unit.name == "fan" and len(ran) < 3:
            raise KeyboardInterrupt
        return plain(unit, *rest)

    monkeypatch.setattr(bench, "evaluate_unit", stop_at_fan)
    with pytest.raises(KeyboardInterrupt):
        list(ScoreCache(tmp_path).scores("x", BASELINE, units))
    assert len(list(ScoreCache(tmp_path).scores("x", BASELINE, units))) == 2 and ran == [
        "ToyCar",
        "fan",
        "fan",
    ]


def test_other_machines_a_small_network_and_no_weights_for_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_WEIGHTS", str(tmp_path / "none"))
    data = tree(tmp_path / "d", dev_2022("pump") + dev_2022("fan") + evaluation_set("Sander"))
    recipe = tmp_path / "tiny.json"
    recipe.write_text(Recipe(encoder="ced-tiny", pooling="rdp_gem", freq="mean").to_json())
    weights = write_ced_tiny(tmp_path)
    arguments = (
        "reproduce",
        data,
        "--recipe",
        recipe,
        "--weights",
        f"ced-tiny={weights}",
        "--results",
        tmp_path / "kept",
    )
    code, out, err = nearfar(*arguments)
    assert code == 0, err
    assert "EAT-large" in out and "weights are not here" in out and "best fusion: needs EAT-large" in out
    assert "averages and scores do not compare" in err
    assert "+/-" not in out, "nothing compares, so there is no column of differences"
    words = r"near_only, mean +rdp_gem alpha=1 p=3 +raw, cosine, k=1"
    assert [len(re.findall(rf"^tiny +{each}- +\d", out, re.M)) for each in (f"{words} +", "")] == [1, 1], "Tables 3, 4"
    with monkeypatch.context() as patch:
        refuse = lambda name, *_, **__: pytest.fail(f"{name} is loaded though its scores are kept")  # noqa: E731
        patch.setattr(loading, "load", refuse)
        said = json.loads(nearfar(*arguments, "--json")[1])
    overall = 100 * evaluate(data, from_file(recipe), weights, rounds=1).overall
    assert said["systems"]["tiny"]["score"] == pytest.approx(overall, abs=1e-9)
    assert (tmp_path / "fusion.json").write_text(Recipe().to_json())  # as `nearfar fuse -o fusion.json` names it
    again = json.loads(nearfar(*arguments, "--recipe", tmp_path / "fusion.json", "--json")[1])
    assert {"tiny", "fusion.json"} <= set(again["systems"])
    assert set(said["systems"]["tiny"]["machines"]) == {"pump", "fan"}, "Sander has no labels"
    three, _, five = said["tables"]
    assert [r["encoder"] for r in three["rows"]][-2:] == ["logmel", "tiny"]
    assert all(r["score"]["difference"] is None for r in three["rows"])
    assert {(r["machine"], r["system"]) for r in five["rows"][-4:]} >= {("pump", "logmel"), ("pump", "tiny")}


def test_a_network_is_loaded_once_for_all_machines(tmp_path, monkeypatch):
    data, weights = tree(tmp_path / "d", dev_2022("pump") + dev_2022("fan")), write_ced_tiny(tmp_path)
    plain, loaded = loading.load, []
    monkeypatch.setattr(loading, "load", lambda name, *rest, **more: loaded.append(name) or plain(name, *rest, **more))
    recipe = Recipe(encoder="ced-tiny", freq="mean")
    evaluate(data, recipe, weights, rounds=1)
    assert loaded == ["ced-tiny"]


def from_file(path: Path) -> Recipe:
    return Recipe.from_json(path.read_text())


def test_a_machine_that_fails_and_one_clip_that_fails_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_WEIGHTS", str(tmp_path / "none"))
    data = tree(tmp_path / "d", dev_2022("pump") + dev_2022("fan"))
    for file in (data / "pump/train").iterdir():
        file.write_bytes(b"nothing")
    next((data / "fan/test").iterdir()).write_bytes(b"nothing")
    code, out, err = nearfar("reproduce", data, "--results", tmp_path / "kept")
    assert code == 2 and "logmel: left out: pump" in err and "fan" in out
    page = tmp_path / "p.html"
    assert nearfar("reproduce", data, "--machine", "pump", "--results", tmp_path / "kept", "--page", page)[0] == 2
    assert "and complete?</p>" in page.read_text()  # the reason is a question, and ends once
    with pytest.raises(ValueError, match="other rules than those of 2020"):
        reproduce(read(tree(tmp_path / "old", dev_2020("fan"))), ScoreCache(tmp_path / "kept"))


def test_further_systems_have_their_input_pooling_and_back_end_in_table_3():
    mine = Recipe(view="n_f", low=0.1, pooling="gem", p=9, method="ldn", density_k=4)
    runs = {
        "beats": Run("BEATs"),
        "mine": Run("mine", words=columns_of(mine)),
        "both": Run("both", words=columns_of(Fusion(((0.5, mine), (0.5, Recipe()))))),
        "logmel": Run("logmel", words=columns_of(None)),
    }
    found = table_3(runs)
    assert [row.heads for row in found.rows] == [
        ("BEATs", "n_0.5f", "RDP(α=19)", "Cos k=3 LDN"),
        ("mine", "n_f, low 0.1", "gem p=9", "ldn, cosine, k=4"),
        ("both", "2 systems", "", ""),
        ("logmel", "chosen by the normals", "", ""),
    ]
    written = reproduction_tables(Reproduction([found], runs))
    assert all(latex(table).isascii() for table in written)
