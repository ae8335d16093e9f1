"""Audio encoders of Hugging Face, with a small network of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nearfar
from conftest import hum
from nearfar.encoders import hash_of, load
from nearfar.recipe import Recipe

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("wav2vec2")
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_kernel=(10, 3), conv_stride=(80, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(made)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(made)
    return made


def test_frames_are_the_hidden_states_of_the_layer(folder: Path):
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    encoder = load("huggingface", folder)
    assert (encoder.sample_rate, encoder.dim) == (RATE, 16)
    waves = np.random.default_rng(0).normal(0, 0.1, (2, RATE)).astype(np.float32)
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    given = extractor(waves[1], sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        made = model(**given, output_hidden_states=True)
    last, second = encoder.grid(list(waves), layer=[None, 2])
    assert np.array_equal(last[1][:, 0], made.last_hidden_state[0].numpy())
    assert np.array_equal(second[1][:, 0], made.hidden_states[2][0].numpy())
    assert encoder.grid(waves).shape == (2, *last[0].shape) and encoder.frames(waves).ndim == 3
    with pytest.raises(ValueError, match="has layers 1 to 3"):
        encoder.grid(waves, layer=4)


def test_it_works_in_a_detector_and_its_weights_are_known(folder: Path, tmp_path: Path):
    clips = [hum(i, seconds=0.5) for i in range(6)]
    recipe = Recipe(encoder="huggingface", layer=2, view="n_f", pooling="rdp")
    detector = nearfar.Detector(recipe, folder, calibration="clips").fit(clips)
    assert detector.weights_known["huggingface"].sha256 == hash_of("huggingface", folder)
    detector.save(tmp_path / "model")
    again = nearfar.load(tmp_path / "model", folder)
    assert again.score([hum(9, seconds=0.5)])[0].score == detector.score([hum(9, seconds=0.5)])[0].score
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    with pytest.raises(ValueError, match="other weights of huggingface"):
        nearfar.load(tmp_path / "model", folder).score([hum(9, seconds=0.5)])


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="--weights FOLDER"):
        load("huggingface")
    with pytest.raises(FileNotFoundError, match=r"lacks config.json and preprocessor_config.json"):
        load("huggingface", tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"lacks \*.safetensors"):
        hash_of("huggingface", tmp_path)


def test_code_of_a_folder_does_not_run(folder: Path, tmp_path: Path):
    import json
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="no audio encoder that transformers can load by itself"):
        load("huggingface", copy)
    assert not (tmp_path / "ran").exists()
