"""bfloat16 from the command line to the saved detector: remembered, and never mixed with float32 in a store."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import nearfar
from conftest import write_wav
from nearfar.cli import app
from nearfar.demo import make_dataset
from nearfar.encoders import loading
from nearfar.encoders.loading import load_encoders
from nearfar.live.machine import open_machine
from nearfar.recipe import Recipe
from plants import configured

pytest.importorskip("torch")


def test_a_detector_remembers_the_precision_it_was_fitted_in(ced_tiny_weights, tmp_path, normals, fresh):
    weights, recipe = ced_tiny_weights, Recipe(encoder="ced-tiny")
    detector = nearfar.Detector(recipe, weights, precision="bf16").fit(normals[:8])
    exact = nearfar.Detector(recipe, weights).fit(normals[:8])
    scores = [s.value for s in detector.score(fresh[:3])]
    assert not np.array_equal(scores, [s.value for s in exact.score(fresh[:3])])
    model = detector.save(tmp_path / "model")
    assert [s.value for s in nearfar.load(model, weights).score(fresh[:3])] == scores
    served = open_machine("pump", configured(model, weights=weights)).detector  # with networks that machines share
    assert [s.value for s in served.score(fresh[:3])] == scores
    settings = json.loads((model / "detector.json").read_text())
    network = settings["encoders"]["ced-tiny"]
    assert network["precision"] == "bf16" and len(network["weights_sha256"]) == 64
    network["weights_sha256"] += ":" + network.pop("precision")  # as they were written at first
    (model / "detector.json").write_text(json.dumps(settings))
    assert [s.value for s in nearfar.load(model, weights).score(fresh[:3])] == scores


def test_fit_takes_a_precision(ced_tiny_weights, tmp_path, normals_folder):
    weights, model = ced_tiny_weights, tmp_path / "m"
    (tmp_path / "ced.json").write_text(Recipe(encoder="ced-tiny").to_json())
    options = ["--recipe", str(tmp_path / "ced.json"), "--weights", str(weights), "-o", str(model)]
    done = CliRunner().invoke(app, ["fit", str(normals_folder), *options, "--precision", "bf16"])
    assert done.exit_code == 0, done.output
    assert nearfar.load(model, weights).encoders["ced-tiny"].precision == "bf16"
    done = CliRunner().invoke(app, ["fit", str(normals_folder), *options, "--force", "--precision", "bf17"])
    assert done.exit_code == 2 and "bf17" in done.output


def test_a_store_keeps_both_apart(ced_tiny_weights, tmp_path, normals):
    weights, store = ced_tiny_weights, tmp_path / "store"
    for clip in normals[:6]:
        write_wav(tmp_path / "clips" / clip.name, clip)

    def embed(precision):
        options = ["--encoder", "ced-tiny", "--weights", str(weights), "--store", str(store), "--waveform", "near"]
        done = CliRunner().invoke(app, ["embed", str(tmp_path / "clips"), *options, "--precision", precision, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert embed("float32")["were_there"] == 0
    assert embed("bf16")["were_there"] == 0
    assert embed("bf16")["were_there"] == 6


def test_only_networks_have_a_precision(ced_tiny_weights, tmp_path):
    mixed = load_encoders(["logmel", "ced-tiny"], {"ced-tiny": ced_tiny_weights}, precision="bf16")
    assert mixed["ced-tiny"].weights_hash.endswith(":bf16")
    with pytest.raises(ValueError, match="bf17"):
        load_encoders(["ced-tiny"], ced_tiny_weights, precision="bf17")


@pytest.mark.slow
def test_every_command_that_runs_networks_takes_a_precision(ced_tiny_weights, tmp_path, monkeypatch):
    data = make_dataset(tmp_path / "data", machines=1, train=8, test=4, seconds=1.0)
    monkeypatch.setenv("NEARFAR_WEIGHTS", str(tmp_path / "none"))
    weights, recipe, asked = ced_tiny_weights, tmp_path / "ced.json", []
    recipe.write_text(Recipe(encoder="ced-tiny").to_json())
    plain = loading.load
    monkeypatch.setattr(loading, "load", lambda *a, **more: asked.append(more["precision"]) or plain(*a, **more))

    def run(command, *options, precision):
        options = ("--weights", f"ced-tiny={weights}", "--precision", precision, *options)
        return CliRunner().invoke(app, [command, str(data), *map(str, options)])

    for command, options in {
        "evaluate": ["--recipe", recipe, "--rounds", 1],
        "submit": ["--recipe", recipe, "-o", tmp_path / "out"],
        "fuse": ["--systems", recipe],
        "search": ["--encoder", "ced-tiny", "--views", "near_only", "--poolings", "mean", "-o", tmp_path / "search"],
        "reproduce": ["--recipe", recipe, "--results", tmp_path / "kept"],
    }.items():
        asked.clear()
        done = run(command, *options, precision="bf16")
        assert done.exit_code == 0, done.output
        assert "bf16" in asked, command
        done = run(command, *options, precision="bf17")
        assert done.exit_code == 2 and "bf17" in done.output, command
    assert run("reproduce", "--recipe", recipe, "--results", tmp_path / "kept", precision="float32").exit_code == 0
    assert len(list((tmp_path / "kept").glob("ced-*.json"))) == 2, "what bf16 gave is not taken for float32"


def test_a_network_without_linear_layers_stays_as_it_is_and_spoils_no_fusion(monkeypatch):
    asked = {}
    monkeypatch.setattr(loading, "load", lambda name, *_, precision, **__: asked.update({name: precision}))
    with pytest.warns(UserWarning, match="openl3 has no linear layers"):
        load_encoders(["openl3", "dasheng", "logmel"], precision="bf16")
    assert asked == {"openl3": "float32", "dasheng": "bf16", "logmel": "float32"}
