"""bfloat16 from the command line to the saved detector: remembered, and never mixed with float32 in a store."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import nearfar
from fake_encoders import write_ced_tiny
from nearfar.cli import app
from nearfar.library import load_encoders
from nearfar.live.machine import open_machine
from nearfar.recipe import Recipe

pytest.importorskip("torch")


def test_a_detector_remembers_the_precision_it_was_fitted_in(tmp_path, normals, fresh):
    weights, recipe = write_ced_tiny(tmp_path), Recipe(encoder="ced-tiny")
    detector = nearfar.Detector(recipe, weights, precision="bf16").fit(normals[:8])
    exact = nearfar.Detector(recipe, weights).fit(normals[:8])
    scores = [s.value for s in detector.score(fresh[:3])]
    assert not np.array_equal(scores, [s.value for s in exact.score(fresh[:3])])
    model = detector.save(tmp_path / "model")
    assert [s.value for s in nearfar.load(model, weights).score(fresh[:3])] == scores
    served = open_machine("pump", model, weights=weights).detector  # with networks that machines share
    assert [s.value for s in served.score(fresh[:3])] == scores
    settings = json.loads((model / "detector.json").read_text())
    network = settings["encoders"]["ced-tiny"]
    assert network["precision"] == "bf16" and len(network["weights_sha256"]) == 64
    network["weights_sha256"] += ":" + network.pop("precision")  # as they were written at first
    (model / "detector.json").write_text(json.dumps(settings))
    assert [s.value for s in nearfar.load(model, weights).score(fresh[:3])] == scores


def test_fit_takes_a_precision(tmp_path, normals_folder):
    weights, model = write_ced_tiny(tmp_path), tmp_path / "m"
    (tmp_path / "ced.json").write_text(Recipe(encoder="ced-tiny").to_json())
    options = ["--recipe", str(tmp_path / "ced.json"), "--weights", str(weights), "-o", str(model)]
    done = CliRunner().invoke(app, ["fit", str(normals_folder), *options, "--precision", "bf16"])
    assert done.exit_code == 0, done.output
    assert nearfar.load(model, weights).encoders["ced-tiny"].precision == "bf16"
    done = CliRunner().invoke(app, ["fit", str(normals_folder), *options, "--precision", "bf17"])
    assert done.exit_code == 2 and "bf17" in done.output


def test_a_store_keeps_both_apart(tmp_path, normals_folder):
    weights, store = write_ced_tiny(tmp_path), tmp_path / "store"

    def embed(precision):
        options = ["--encoder", "ced-tiny", "--weights", str(weights), "--store", str(store), "--waveform", "near"]
        done = CliRunner().invoke(app, ["embed", str(normals_folder), *options, "--precision", precision, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert embed("float32")["were_there"] == 0
    assert embed("bf16")["were_there"] == 0
    assert embed("bf16")["were_there"] == 30


def test_only_networks_have_a_precision(tmp_path):
    mixed = load_encoders(["logmel", "ced-tiny"], {"ced-tiny": write_ced_tiny(tmp_path)}, precision="bf16")
    assert mixed["ced-tiny"].weights_hash.endswith(":bf16")
    with pytest.raises(ValueError, match="bf17"):
        load_encoders(["ced-tiny"], write_ced_tiny(tmp_path), precision="bf17")
