"""Recipes of networks from recordings to evidence, with random weights: every row of Table 3, the fusion, layers."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

import nearfar
from conftest import RATE, hum, shared, write_wav
from nearfar import encoders
from nearfar.audio import Clip
from nearfar.challenge.evaluate import evaluate
from nearfar.detector import Detector
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import embed
from nearfar.explain.pages import explanation_page
from nearfar.recipe import FUSION, TABLE_3, Fusion, Recipe, from_json

pytest.importorskip("torch")

NAME = "ced-tiny"
SYSTEMS = {name: replace(row, encoder=NAME) for name, row in TABLE_3.items()}
SYSTEMS["fusion"] = Fusion(tuple((w, replace(row, encoder=NAME)) for w, row in FUSION.parts))
SYSTEMS["layers"] = Fusion(tuple((0.5, Recipe(encoder=NAME, layer=n, view="n_f", method="dldn")) for n in (4, None)))
SYSTEMS["bands"] = Recipe(encoder=NAME, freq="bands", pooling="rdp", alpha=16, view="absdif_1", method="domain_z")
SYSTEMS["beam"] = Recipe(encoder=NAME, freq="beam", pooling="rdp", alpha=4, view="n_f", method="varmin")


@pytest.fixture(scope="module")
def weights(ced_tiny_weights):
    return ced_tiny_weights


def values(detector, clips):
    return [s.value for s in detector.score(clips)]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_of_the_report_fits_scores_explains_saves_and_loads(normals, weights, tmp_path, name):
    detector = Detector(SYSTEMS[name], weights).fit(normals[:14], np.arange(14) >= 10)
    clips = [hum(1000), hum(1001, fault="hiss"), hum(1002, fault="knock")]
    scores = values(detector, clips)
    assert np.isfinite(scores).all() and scores[1] > scores[0]
    assert scores == [values(detector, [clip])[0] for clip in clips]
    again = nearfar.load(detector.save(tmp_path / "model"), weights)
    assert values(again, clips) == scores and again.recipes == detector.recipes
    explanation = again.explain(clips[1])
    assert explanation.score == scores[1]
    assert 2_000 < explanation.low_hz < explanation.high_hz < 6_000 and explanation.change_db > 3
    assert explanation.microphone == "near" and explanation.nearest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eat-large", "dasheng", "sslam"])
def test_a_fault_of_a_moment_is_placed_in_time_and_pitch(normals, weights, name):
    detector = Detector(SYSTEMS[name], weights).fit([hum(i, seconds=6) for i in range(14)])
    n = 6 * RATE
    quiet, t = hum(50, seconds=6), np.arange(n) / RATE
    burst = np.where((t > 3.5) & (t < 4.2), np.sin(2 * np.pi * 3000 * t), 0) * 0.05
    explanation = detector.explain(Clip(quiet.near + burst, quiet.far, RATE))
    assert not explanation.throughout and explanation.microphone == "near"
    assert explanation.without < 0.8 * explanation.score, "without those frames of the network it is less unusual"
    assert abs(explanation.start_s - 3.5) < 0.4 and abs(explanation.end_s - 4.2) < 0.4
    assert explanation.low_hz < 3000 < explanation.high_hz < 4000
    assert "3.5" in explanation_page(explanation)


def test_a_leaf_is_the_network_s_frames_pooled_composed_and_scored_alone(normals, weights):
    row = SYSTEMS["beats"]
    detector = Detector(row, weights).fit(normals[:12])
    encoder = encoders.load(NAME, weights)
    want = np.stack([embed(clip, [row], {NAME: encoder})[0] for clip in normals[:12]])
    np.testing.assert_array_equal(detector.backends[0].z, want)
    tokens = {
        channel: encoder.grid([getattr(normals[0], channel)])[0].reshape(-1, 4 * 192) for channel in ("near", "far")
    }
    z = {}
    for channel, x in tokens.items():
        d = np.linalg.norm(x - x.mean(axis=0), axis=1)
        w = (1 + d / d.max()) ** row.alpha
        z[channel] = w @ x / w.sum()
        z[channel] /= np.linalg.norm(z[channel])
    pair = np.r_[z["near"], 0.5 * z["far"]]
    np.testing.assert_allclose(want[0], pair / np.linalg.norm(pair), atol=1e-5)


def test_a_layer_is_that_layer(normals, weights):
    encoder = encoders.load(NAME, weights)
    found = {
        n: embed(normals[0], [Recipe(encoder=NAME, layer=n, normalize=False)], {NAME: encoder})[0]
        for n in (None, 3, 12)
    }
    third = encoder.grid([normals[0].near], layer=3)[0]
    np.testing.assert_allclose(found[3], third.reshape(len(third), -1).mean(axis=0), rtol=1e-4, atol=1e-5)
    assert np.array_equal(found[None], found[12]) and not np.allclose(found[None], found[3])
    with pytest.raises(ValueError, match="layers 1 to 12"):
        Detector(Recipe(encoder=NAME, layer=13), weights).fit(normals[:4])


def test_a_recipe_keeps_its_layer_as_json_and_refuses_what_has_none():
    row = Recipe(encoder="beats", layer=7)
    assert from_json(row.to_json()) == row and json.loads(row.to_json())["layer"] == 7
    assert from_json('{"recipe": 1, "encoder": "beats"}').layer is None
    for encoder, layer in (("logmel", 1), ("exported", 2), ("beats", 0), ("beats", 1.5), ("beats", "last")):
        with pytest.raises(ValueError, match="layer"):
            Recipe(encoder=encoder, layer=layer)


def test_evaluate_hears_a_network(weights, tmp_path):
    for i in range(10):
        write_wav(tmp_path / f"d/pump/train/section_00_source_train_normal_{i:04d}_x.wav", hum(i))
    for i in range(4):
        for domain in ("source", "target"):
            for label, fault in (("normal", ""), ("anomaly", "hiss")):
                name = f"section_00_{domain}_test_{label}_{i:04d}_x.wav"
                write_wav(tmp_path / "d/pump/test" / name, hum(100 + i + 50 * (domain == "target"), fault=fault))
    evaluation = evaluate(tmp_path / "d", SYSTEMS["eat-as2m"], weights, rounds=10)
    assert evaluation.overall > 0.9
    detector = evaluation.machines[0].detector
    assert [s.value for s in evaluation.machines[0].scores] == values(
        detector, [r.path for r in evaluation.machines[0].recordings]
    )


@pytest.mark.slow
def test_a_base_network_at_full_size_hears_a_real_motor(tmp_path, monkeypatch):
    data, golden = shared("data", "dcase2026-form", "bldcMotor"), shared("golden")
    monkeypatch.syspath_prepend(golden)
    make, form = import_module("fake_weights"), import_module("write_checkpoint")
    manifest = json.loads((golden / "manifests" / "eat-as2m.json").read_text())
    path = form.write_checkpoint(manifest, make.fake_checkpoint(manifest, seed=1), tmp_path)
    train, test = sorted(data.glob("train/*")), sorted(data.glob("test/*"))
    normal, anomaly = ([p for p in test if f"_{label}_" in p.name][::8][:2] for label in ("normal", "anomaly"))
    detector = Detector(TABLE_3["eat-as2m"], path, store=Store(tmp_path / "store", "float32")).fit(train[:6])
    scores = values(detector, normal + anomaly)
    again = nearfar.load(detector.save(tmp_path / "model"), path)
    assert np.isfinite(scores).all() and values(again, anomaly) == scores[2:]
    explanation = detector.explain(anomaly[0])
    assert explanation.score == scores[2] and explanation.nearest[0].name in {p.name for p in train}
