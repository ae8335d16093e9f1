"""The report's run from data to submission, as the script in runs/ does it, on made-up machines and random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from datasets import evaluation_set, tree
from fake_encoders import write_ced_tiny
from nearfar.challenge.submission import check
from nearfar.demo import make_dataset
from nearfar.recipe import Recipe, from_json

SCRIPT = Path(__file__).resolve().parents[1] / "runs" / "dcase2026.sh"
STEPS = "data weights embed evaluate search fuse reproduce submit"


@pytest.mark.slow
def test_the_run_of_the_report_goes_from_end_to_end(tmp_path):
    dev = make_dataset(tmp_path / "dev", machines=1, train=6, test=8, seconds=1)
    evaluation = tree(tmp_path / "eval", evaluation_set("Sander"))
    write_ced_tiny(tmp_path / "weights")
    recipe = tmp_path / "tiny.json"
    recipe.write_text(Recipe(encoder="ced-tiny", view="sfsoft_a05f07", pooling="rdp_gem", freq="mean").to_json())
    settings = {
        "DEV": dev,
        "EVAL": evaluation,
        "WEIGHTS": tmp_path / "weights",
        "ENCODERS": "logmel ced-tiny",
        "RECIPES": recipe,
        "SUBMIT": recipe,
        "SEARCH": "--views near_only --views n_f --poolings mean --methods raw --rounds 10",
        "STEPS": STEPS,
        "NEARFAR": f"{sys.executable} -m nearfar",
    }
    out = tmp_path / "out"
    command, environment = ["bash", SCRIPT, out], os.environ | {k: str(v) for k, v in settings.items()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line[3:] for line in done.stdout.splitlines() if line.startswith("== ")] == STEPS.split()
    said = json.loads((out / "tiny.json").read_text())
    assert set(said["machines"]) == {"fan"} and 0 <= said["overall"] <= 1
    assert "ROC of fan" in (out / "tiny.html").read_text()
    assert from_json((out / "fusion.json").read_text()), "a recipe to evaluate and submit"
    assert "Which choice matters" in (out / "search.html").read_text()
    assert "Table 5: per machine" in (out / "reproduce.txt").read_text() and (out / "reproduce.html").is_file()
    table = (out / "paper" / "table-4.csv").read_text()
    assert "\ntiny," in table and "\nfusion.json," in table, "the fusion that was found is in the tables"
    assert check(out / "submission", evaluation) == []
    kept = {p: p.stat().st_mtime_ns for p in (out / "store").rglob("*.safetensors")}
    assert kept, "the networks' work is kept"
    environment["STEPS"] = "embed reproduce"
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in (out / "store").rglob("*.safetensors")} == kept
