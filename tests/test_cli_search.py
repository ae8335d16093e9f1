"""nearfar search and fuse as their user meets them: recordings in, an honest table out; stopped and resumed."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from fake_encoders import write_ced_tiny
from nearfar.audio.recordings import parse
from nearfar.challenge.evaluate import evaluate
from nearfar.challenge.search import records
from nearfar.challenge.search import run as search_run
from nearfar.cli import app
from nearfar.recipe import Fusion, Recipe, from_json

RUN = CliRunner()
FEW = ["--poolings", "mean", "--poolings", "gem", "--views", "near_only", "--views", "n_f", "--views", "sfsoft_a03f05"]


@pytest.fixture(scope="module")
def data(demo_set):
    return demo_set


def run(*arguments, code=0):
    result = RUN.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run("search", data, "--encoder", "logmel", "-o", out, *FEW, "--rounds", 20)


def test_a_search_says_how_many_it_tried_and_what_the_best_is_worth(searched):
    out, result = searched
    found = records.read(out)
    count = len(found)
    assert [count + len(found.refused[machine]) for machine in found.machines] == 2 * [3 * 6 * 4 * 26]
    assert "refused, as all normals have the same vector" in result.stderr
    assert f"{count:,} on 2 machines" in result.stdout and "Nested" in result.stdout and "Optimism" in result.stdout
    assert "labels of these very test clips" in result.stdout and "pseudo" in result.stdout
    assert (out / "configurations.parquet").exists()
    assert isinstance(from_json((out / "best.json").read_text()), Recipe)


def test_the_best_recipe_scores_the_same_under_evaluate(searched, data):
    out, _ = searched
    found = records.read(out)
    told = json.loads(run("evaluate", data, "--recipe", out / "best.json", "--rounds", 1, "--json").stdout)
    assert told["overall"] == pytest.approx(np.nanmax(found.overall), abs=1e-9)


def test_fuse_takes_a_search_and_says_that_it_used_labels(searched, data, tmp_path):
    out, _ = searched
    result = run("fuse", data, "--systems", out, "--top", 3, "-o", tmp_path / "fusion.json")
    assert "Weightings tried" in result.stdout and "labels" in result.stdout
    assert isinstance(from_json((tmp_path / "fusion.json").read_text()), Fusion)
    told = json.loads(run("fuse", data, "--from-search", out, "--top", 3, "--json").stdout)
    evaluated = run("evaluate", data, "--recipe", tmp_path / "fusion.json", "--rounds", 1, "--json").stdout
    assert told["overall"] == pytest.approx(json.loads(evaluated)["overall"], abs=1e-6)
    assert told["tried"] > 3 and told["overall"] >= told["single"]


def test_the_page_says_what_the_best_is_worth_and_one_machine_cannot_say_it(data, tmp_path):
    few = ["--views", "near_only", "--poolings", "mean", "--rounds", 3]
    page = tmp_path / "page.html"
    one = [data, "--encoder", "logmel", "-o", tmp_path / "one", *few, "--machine", "fan", "--page", page]
    out = run("search", *one).stdout
    assert "Nested                 -  not possible with one machine" in out and "expect the nested score" not in out
    fused = run("fuse", data, "--systems", tmp_path / "one").stdout
    assert "Nested             -  not possible with one machine" in fused and "expect the nested score" not in fused
    text = page.read_text()
    assert all(words in text for words in ("What the best one is worth", "not possible with one machine", "pick"))
    assert "Which choice matters" in text
    said = run("fuse", data, "--systems", tmp_path / "one", "--machine", "pump", code=2).stderr
    assert "no machine pump in the search" in said and "it has fan" in said
    equal = run("fuse", data, "--systems", tmp_path / "one", "--top", 2, "--equal").stdout
    assert "systems were chosen with the labels" in equal


def test_fuse_takes_recipes_from_files(data, tmp_path):
    for name, recipe in (("a", Recipe()), ("b", Recipe(view="n_f", method="ldn", density_k=3))):
        (tmp_path / f"{name}.json").write_text(recipe.to_json())
    told = json.loads(run("fuse", data, "--systems", tmp_path / "a.json", tmp_path / "b.json", "--json").stdout)
    assert {p["system"]["view"] for p in told["system"]["parts"]} <= {"near_only", "n_f"}
    assert "one folder of a search, or recipes" in run("fuse", data, code=2).stderr
    (tmp_path / "net.json").write_text(Recipe(encoder="ced-tiny").to_json())  # has no weights here: not yet looked for
    said = run("fuse", data, "--systems", tmp_path / "net.json", "logmel-floor", code=2).stderr
    assert "only recipes with normalised embeddings" in said and "mean_std" in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_where_it_was(data, tmp_path, monkeypatch, searched):
    calls = []
    score_setting = search_run.score_setting

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return score_setting(*arguments)

    monkeypatch.setattr(search_run, "score_setting", stopped)
    run("search", data, "--encoder", "logmel", "-o", tmp_path, *FEW, "--threads", 1, code=130)
    assert not list(tmp_path.glob("**/.*")), "a draft was left behind"
    parts = {p: p.stat().st_mtime_ns for p in tmp_path.glob("**/*.safetensors")}
    assert 0 < len(parts) < 24
    before = len(calls)
    run("search", data, "--encoder", "logmel", "-o", tmp_path, *FEW, "--rounds", 5)
    assert len(calls) - before == 48 - len(parts)
    assert all(p.stat().st_mtime_ns == then for p, then in parts.items())
    again, whole = records.read(tmp_path), records.read(searched[0])
    assert set(again.recipes) == set(whole.recipes) and sorted(again.overall) == sorted(whole.overall)
    monkeypatch.setattr(search_run, "load_encoders", lambda *_, **__: pytest.fail("there is nothing left to listen to"))
    run("search", data, "--encoder", "logmel", "-o", tmp_path, *FEW, "--rounds", 5)


@pytest.mark.slow
def test_other_channels_weights_or_recordings_are_not_taken_for_those_that_were_recorded(data, tmp_path):
    pytest.importorskip("torch")
    few = ["--poolings", "mean", "--views", "near_only", "--rounds", 2]
    mine = shutil.copytree(data, tmp_path / "data")

    def scores(*options):
        run("search", mine, *options, "-o", tmp_path / "out", *few)
        found = records.read(tmp_path / "out", [options[1]])
        return np.concatenate([found.scores[m] for m in found.machines])

    log = scores("--encoder", "logmel")
    assert (scores("--encoder", "logmel", "--seed", 5) == log).all()
    assert (scores("--encoder", "logmel", "--near", 1, "--far", 0) != log).any()
    for path in (mine / "fan" / "test").iterdir():
        soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=(16_000, 2)), 16_000)
    assert (scores("--encoder", "logmel") != log).any()
    net = ["--encoder", "ced-tiny", "--weights"]
    first, other = (scores(*net, write_ced_tiny(tmp_path / str(seed), seed)) for seed in (0, 1))
    assert (first != other).any()


def test_one_microphone_leaves_the_views_that_need_one(data, tmp_path):
    run("search", data, "--encoder", "logmel", "-o", tmp_path / "out", "--poolings", "mean", "--far", -1, "--rounds", 5)
    assert {r.view for r in records.read(tmp_path / "out").recipes} == {"near_only"}
    mono = tmp_path / "mono"
    for path in data.glob("**/*.wav"):
        target = mono / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        x, rate = soundfile.read(path)
        soundfile.write(target, x[:, 0], rate)
    result = run("search", mono, "--encoder", "logmel", "-o", tmp_path / "m", "--poolings", "mean", "--rounds", 5)
    assert "no far microphone" in result.stderr and "skipped" in result.stderr


def test_without_labels_the_rules_rank(data, tmp_path):
    blind = tmp_path / "blind"
    for path in data.glob("**/*.wav"):
        name = path.name
        if path.parent.name == "test":
            name = f"section_00_{len(list((blind / path.relative_to(data)).parent.glob('*'))):04}.wav"
        target = blind / path.relative_to(data).parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    out = tmp_path / "out"
    result = run(
        "search", blind, "--encoder", "logmel", "-o", out, "--poolings", "mean", "--views", "near_only", "--json"
    )
    told = json.loads(result.stdout)
    assert told["selection"] is None and not told["uses_labels"] and "label-free" in result.stderr
    assert "together" in told["rules"] and told["best"][0]["overall"] is None
    assert json.loads(run("fuse", blind, "--systems", out, "--json").stdout)["overall"] is None


def test_beam_is_searched_and_scores_the_same_under_evaluate(data, tmp_path):
    out = tmp_path / "out"
    found = run("search", data, "--encoder", "logmel", "-o", out, "--freq", "beam", "--poolings", "mean",
                "--views", "n_f", "--rounds", 5, "--json")  # fmt: skip
    best = json.loads(found.stdout)["best"][0]
    assert best["freq"] == "beam" and "stable" in json.loads(found.stdout)["rules"]
    told = json.loads(run("evaluate", data, "--recipe", out / "best.json", "--rounds", 1, "--json").stdout)
    assert told["overall"] == pytest.approx(best["overall"], abs=1e-9)
    assert "beam, cls, concat, mean" in run("search", data, "--encoder", "logmel", "--freq", "rows", code=2).stderr


@pytest.mark.slow
def test_layers_of_a_network_are_averaged_without_labels(data, tmp_path):
    pytest.importorskip("torch")
    out, weights = tmp_path / "out", write_ced_tiny(tmp_path / "weights")
    few = ["--encoder", "ced-tiny", "--weights", weights, "--poolings", "mean", "--views", "near_only", "--rounds", 2]
    run("search", data, *few, "-o", out, "--layer", 4, "--layer", "final")
    run("fuse", data, "--systems", out, "--layers", "--equal", "-o", tmp_path / "fusion.json")
    fusion = from_json((tmp_path / "fusion.json").read_text())
    assert [(w, r.layer) for w, r in fusion.parts] == [(0.5, 4), (0.5, None)]
    assert replace(fusion.parts[0][1], layer=None) == fusion.parts[1][1]
    told = json.loads(run("fuse", data, "--systems", out, "--layers", "--equal", "--json").stdout)
    scored = run("evaluate", data, "--recipe", tmp_path / "fusion.json", "--weights", weights, "--rounds", 1, "--json")
    assert json.loads(scored.stdout)["overall"] == pytest.approx(told["overall"], abs=1e-6)
    run("search", data, *few, "-o", tmp_path / "sum", "--layer", "3+4", "--layer", 4, "--methods", "raw")
    assert {r.layer for r in records.read(tmp_path / "sum").recipes} == {(3, 4), 4}
    assert "several such as 6+9, or final" in run("search", data, *few, "--layer", "last", code=2).stderr
    assert "has no layers" in run("search", data, "--encoder", "logmel", "--layer", 2, code=2).stderr
    alone = run("search", data, *few[:2], "--weights", weights, "-o", tmp_path / "no", "--layer", 99, code=2).stderr
    assert "99" in alone


def test_a_setting_holds_for_every_configuration_of_a_search_and_every_recipe_of_a_fusion(data, tmp_path):
    few = ["--encoder", "logmel", "--views", "near_only", "--poolings", "mean", "--methods", "domain_z", "--rounds", 2]
    run("search", data, *few, "-o", tmp_path / "s", "--set", "z_sigma=own", "--set", "low=null", "--set", "spike=null")
    found = records.read(tmp_path / "s")
    assert {r.z_sigma for r in found.recipes} == {"own"} and len(found) == 2, "two metrics; the thresholds are one"
    own = replace(Recipe(method="domain_z"), z_sigma="own", metric=found.recipes[0].metric)
    told = evaluate(data, own, rounds=1)
    assert told.overall == pytest.approx(found.overall[list(found.recipes).index(own)], abs=1e-9)
    for wrong, why in (("encoder=beats", "from --encoder"), ("z_sigma=mine", "choose one of"), ("k", "KEY=VALUE")):
        assert why in run("search", data, *few, "--set", wrong, code=2).stderr
    for name, recipe in (("a", Recipe()), ("b", Recipe(view="n_f"))):
        (tmp_path / f"{name}.json").write_text(recipe.to_json())
    pair = ["--systems", tmp_path / "a.json", tmp_path / "b.json"]
    told = json.loads(run("fuse", data, *pair, "--set", "k=3", "--equal", "--json").stdout)
    assert [p["system"]["k"] for p in told["system"]["parts"]] == [3, 3]
    assert "give --set to that search" in run("fuse", data, tmp_path / "s", "--set", "k=3", code=2).stderr
    said = run("embed", data, "--encoder", "logmel", "--store", tmp_path / "st", "--set", "k=3", code=2).stderr
    assert "--set changes the recipes of --pooled" in said


def test_the_scores_of_evaluate_have_what_is_known_of_each_clip(data, tmp_path):
    run("evaluate", data, "--recipe", "logmel-floor", "--rounds", 1, "--csv", tmp_path / "c.csv")
    rows = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8")))
    for row in rows:
        machine, name = row["file"].split("/")
        facts = parse(name)
        assert (row["machine"], row["section"], row["attributes"]) == (machine, "00", facts.attributes)
        assert row["domain"] == ("target" if facts.is_target else "source")
        assert row["label"] == ("anomaly" if facts.is_anomaly else "normal")
    assert {row["label"] for row in rows} == {"anomaly", "normal"} and all(row["attributes"] for row in rows)


def test_layers_need_a_search_that_has_several(searched, data):
    assert "one layer alone" in run("fuse", data, "--systems", searched[0], "--layers", code=2).stderr
    assert "the folder of one" in run("fuse", data, "--systems", "logmel-floor", "--layers", code=2).stderr


def test_what_is_not_in_the_space_is_named(data, tmp_path):
    assert "choose one of" in run("search", data, "--encoder", "logmel", "--views", "nearly", code=2).stderr
    assert "unknown encoder" in run("search", data, "--encoder", "logmol", code=2).stderr


def test_searches_of_two_encoders_stand_side_by_side_and_other_machines_are_refused(data, tmp_path):
    few = ["--poolings", "mean", "--views", "near_only", "--methods", "raw", "--rounds", 5]
    out = tmp_path / "out"
    run("search", data, "--encoder", "logmel", "-o", out, *few)
    (first,) = out.glob("configurations.*")
    before = (first.read_bytes(), (out / "best.json").read_bytes())
    run("search", data, "--encoder", "logmel-4096", "-o", out, *few)
    encoders = {recipe.encoder for recipe in records.read(out).recipes}
    assert encoders == {"logmel", "logmel-4096"} and len(first.read_bytes()) > len(before[0])
    kept = first.read_bytes()
    refused = run("search", data, "--encoder", "logmel", "-o", out, *few, "--machine", "fan", code=2)
    assert "holds a search of" in refused.stderr + refused.stdout and first.read_bytes() == kept


def test_a_search_has_a_bank_for_each_section_as_evaluate_has(data, tmp_path):
    machine = next(p for p in sorted(data.iterdir()) if (p / "train").is_dir())
    for split in ("train", "test"):
        (tmp_path / "d" / "fan" / split).mkdir(parents=True)
        for path in sorted((machine / split).glob("*.wav")):
            for section in ("00", "01"):
                name = path.name.replace("section_00", f"section_{section}")
                (tmp_path / "d" / "fan" / split / name).write_bytes(path.read_bytes())
    few = ["--poolings", "mean", "--views", "near_only", "--methods", "raw", "--rounds", 5]
    run("search", tmp_path / "d", "--encoder", "logmel", "-o", tmp_path / "out", *few)
    found = records.read(tmp_path / "out")
    assert found.machines == ["fan section 00", "fan section 01"]
    best = int(np.argmax(found.overall))  # some recipes take out all that differs, and a detector refuses them
    wanted = evaluate(tmp_path / "d", found.recipes[best], rounds=2)
    assert [m.name for m in wanted.machines] == found.machines
    assert float(found.overall[best]) == pytest.approx(wanted.overall, abs=1e-9)


def test_data_of_a_year_with_other_rules_are_refused_by_the_search(data, tmp_path):
    source = next(data.rglob("*.wav"))
    for name in ("train/normal_id_00_0", "train/normal_id_00_1", "test/normal_id_00_2", "test/anomaly_id_00_0"):
        path = tmp_path / "d" / "fan" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
    refused = run("search", tmp_path / "d", "--encoder", "logmel", "-o", tmp_path / "out", code=2)
    assert "follows the rules of 2020" in refused.stderr


@pytest.fixture(scope="module")
def unlabelled(data, tmp_path_factory):
    """The data set as an evaluation set, whose file names tell nothing, and the folder of its ground truth."""
    blind, truth = tmp_path_factory.mktemp("blind"), tmp_path_factory.mktemp("truth")
    for machine in sorted(path for path in data.iterdir() if path.is_dir()):
        shutil.copytree(machine / "train", blind / machine.name / "train")
        (blind / machine.name / "test").mkdir()
        rows = {"ground_truth_data": [], "ground_truth_domain": []}
        for number, path in enumerate(sorted((machine / "test").glob("*.wav"))):
            facts = parse(path.name)
            name = f"section_00_{number:04d}.wav"
            shutil.copy(path, blind / machine.name / "test" / name)
            rows["ground_truth_data"].append(f"{name},{int(facts.is_anomaly)}")
            rows["ground_truth_domain"].append(f"{name},{int(facts.is_target)}")
        for about, lines in rows.items():
            (truth / about).mkdir(exist_ok=True)
            (truth / about / f"ground_truth_{machine.name}_section_00_test.csv").write_text("\n".join(lines))
    return blind, truth


def test_ground_truth_gives_search_and_fuse_the_scores_of_labelled_names(data, unlabelled, tmp_path):
    blind, truth = unlabelled
    few = ["--encoder", "logmel", "--views", "near_only", "--poolings", "mean", "--rounds", 3, "--json"]
    expected = json.loads(run("search", data, *few, "-o", tmp_path / "a").stdout)
    found = json.loads(run("search", blind, *few, "-o", tmp_path / "b", "--truth", truth).stdout)
    assert found["uses_labels"] and found["best"] == expected["best"] and found["best"][0]["overall"] > 0
    without = json.loads(run("search", blind, *few, "-o", tmp_path / "c").stdout)
    assert not without["uses_labels"] and without["best"][0]["overall"] is None
    for name in ("raw", "ldn"):
        (tmp_path / f"{name}.json").write_text(Recipe(method=name).to_json())
    systems = ["--systems", tmp_path / "raw.json", "--systems", tmp_path / "ldn.json", "--json"]
    fused = json.loads(run("fuse", data, *systems).stdout)
    assert json.loads(run("fuse", blind, *systems, "--truth", truth).stdout)["overall"] == fused["overall"] > 0
    said = run("fuse", blind, "--systems", tmp_path / "b", "--truth", truth, code=2).stderr
    assert "give --truth to nearfar search" in said
    one = truth / "ground_truth_data" / "ground_truth_fan_section_00_test.csv"
    assert "no ground truth" in run("search", blind, *few, "-o", tmp_path / "d", "--truth", tmp_path, code=2).stderr
    lines = one.read_text().splitlines()
    (tmp_path / one.name).write_text("\n".join(lines[1:]))
    said = run("search", blind, *few, "-o", tmp_path / "e", "--truth", tmp_path / one.name, code=2).stderr
    assert "1 test files without a row: section_00_0000.wav" in said


def test_a_search_leaves_out_methods_that_evaluate_refuses_for_so_few_normals(data, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(data / "fan", few / "fan")
    for path in sorted(few.glob("fan/train/*.wav"))[2:]:
        path.unlink()
    chosen = ["--views", "near_only", "--poolings", "mean"]
    found = run("search", few, "--encoder", "logmel", "-o", tmp_path / "out", *chosen, "--rounds", 1)
    assert "fan has 2 normals" in found.stderr
    recorded = records.read(tmp_path / "out")
    assert {r.method for r in recorded.recipes} == {"raw"}, "LDN needs 3 normals, domain Z 4"
    told = json.loads(run("evaluate", few, "--recipe", tmp_path / "out/best.json", "--rounds", 1, "--json").stdout)
    assert told["overall"] == pytest.approx(np.nanmax(recorded.overall), abs=1e-9)
    for method in ("ldn", "domain_z"):
        with pytest.raises(ValueError, match="needs at least"):
            evaluate(few, Recipe(method=method), rounds=1)
