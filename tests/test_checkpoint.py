"""Weights files: read without running anything of theirs, matched key by key, and refused in words."""

import argparse
import json
import pickle
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from fake_encoders import ced_tiny
from nearfar import encoders

torch = pytest.importorskip("torch")

from nearfar.encoders import beats, checkpoint, layouts, subbands, weights  # noqa: E402
from nearfar.encoders.transformers import EAT, M2D  # noqa: E402


@pytest.fixture
def published(ced_tiny_weights):
    return ced_tiny_weights


@pytest.fixture(scope="module")
def wave():
    return np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32)


def saved(path, tensors):
    save_file(tensors, path)
    return path


def torch_tensors():
    return {layouts.plain(key): torch.from_numpy(np.asarray(value)) for key, value in ced_tiny().items()}


def refused(path, *words, name="ced-tiny"):
    with pytest.raises(ValueError) as error:
        encoders.load(name, path)
    for word in (path.name, *words):
        assert word in str(error.value), f"{word!r} is not in: {error.value}"


def test_a_missing_an_unknown_and_a_misshapen_key_are_named(tmp_path):
    tensors = ced_tiny()
    del tensors["encoder.blocks.3.norm2.bias"]
    tensors["encoder.blocks.4.surprise"] = np.zeros(3, np.float32)
    tensors["encoder.norm.weight"] = np.zeros(191, np.float32)
    refused(
        saved(tmp_path / "odd.safetensors", tensors),
        "missing keys: blocks.3.norm2.bias",
        "unknown keys: blocks.4.surprise",
        "norm.weight is (191,), not (192,)",
    )


def test_a_file_of_another_size_is_named_with_both_sizes(published):
    refused(published, "ced-base has 12 blocks of width 768", "12 of width 192", "is it ced-tiny?", name="ced-base")


def test_a_file_of_another_network_is_refused(published):
    refused(published, "no 'cfg'", name="beats")
    refused(published, "missing keys: audio_embedding_layer.bias", name="openl3")


def test_another_depth_of_eat_is_named_with_both(tmp_path):
    tensors = {k: np.zeros(s, np.float32) for k, s in layouts.EAT.keys(EAT).items() if not k.startswith("blocks.11.")}
    refused(saved(tmp_path / "eat.safetensors", tensors), "12 blocks", "11 of width 768", name="eat-as2m")


def test_a_cfg_that_is_not_of_these_tensors_is_refused(tmp_path):
    small = beats.Config(2, 32, 64, 4, 16, conv_pos=8, conv_pos_groups=2)
    model = {key: torch.zeros(shape) for key, shape in beats.published_keys(small).items()}
    path = tmp_path / "beats.pt"
    torch.save({"cfg": vars(small) | {"encoder_layers": 3}, "model": model}, path)
    refused(path, "3 layers of width 32", "2 layers of width 32", name="beats")
    torch.save({"cfg": vars(small) | {"deep_norm": False}, "model": model}, path)
    refused(path, "deep_norm = False, not True", name="beats")
    torch.save({"cfg": {}, "model": model}, path)
    refused(path, "no encoder_layers", name="beats")


class Harm:
    def __reduce__(self):
        return (print, ("harm was done",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_wants_to_run_code_is_refused_and_runs_none(tmp_path, capsys, zipped):
    path = tmp_path / "harm.pt"
    torch.save({"model": {}, "more": Harm()}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "code")
    path.write_bytes(pickle.dumps(Harm()))
    refused(path)
    assert "harm" not in capsys.readouterr().out


def test_damaged_files_are_refused_in_words(tmp_path, published):
    whole = published.read_bytes()
    for name, content, word in (
        ("cut.safetensors", whole[: len(whole) // 2], "cut short"),
        ("header.safetensors", whole[:100], "cut short"),
        ("empty.safetensors", b"", "no weights file"),
        ("page.safetensors", b"<!DOCTYPE html><html>sign in</html>", "HTML page"),
        ("hostile.safetensors", (1 << 62).to_bytes(8, "little") + b"{" + b" " * 80, "damaged"),
        ("text.pt", b"hello, these are no weights at all", "no weights file"),
        ("cut.pt", b"PK\x03\x04" + b"\0" * 200, "cannot be read"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, word)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        encoders.load("ced-tiny", tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_that_was_cut_is_refused_wherever_it_was_cut(tmp_path, zipped):
    path = tmp_path / "whole.pt"
    torch.save({"model": torch_tensors()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in (4, 70, 5_000, len(whole) // 2, len(whole) - 1_000, len(whole) - 5):
        path.write_bytes(whole[:size])
        refused(path, "cut short")


def test_numbers_that_were_rounded_to_whole_ones_are_no_weights(tmp_path):
    tensors = ced_tiny()
    tensors["encoder.blocks.0.mlp.fc1.weight"] = (tensors["encoder.blocks.0.mlp.fc1.weight"] * 100).astype(np.int8)
    refused(saved(tmp_path / "int8.safetensors", tensors), "not floating point: blocks.0.mlp.fc1.weight is torch.int8")


def test_a_shape_that_the_file_cannot_fill_is_refused_before_memory_is_asked_for(tmp_path):
    """One stored number, repeated without end, would be any shape that a network wants."""
    keys = layouts.M2D.keys(M2D) | {"pos_embed": (1, 1 + 5 * 10**9, 768)}
    path = tmp_path / "trap.pth"
    torch.save({"model": {key: torch.zeros(1).expand(shape) for key, shape in keys.items()}}, path)
    refused(path, "is damaged or malicious", "more than the file holds", name="m2d-clap")


def test_a_dict_within_itself_is_refused(tmp_path):
    state = {}
    state["again"] = state
    torch.save({"model": state}, tmp_path / "endless.pt")
    refused(tmp_path / "endless.pt", "cannot be read")


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"family": "ced"}'])
def test_a_converted_file_that_does_not_say_its_configuration_is_refused(tmp_path, config):
    path = tmp_path / "ours.safetensors"
    about = {"format": checkpoint.FORMAT, "encoder": "ced-tiny", "config": config}
    save_file(ced_tiny(), path, metadata=about)
    refused(path, "convert the published file again")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_file_of_zenodo_is_the_file_of_hugging_face(tmp_path, published, wave, zipped, wrapped):
    """Plain or below "model", in a zip or a pickle of old."""
    tensors = {key.replace("init_bn.", "init_bn.1."): value for key, value in torch_tensors().items()}
    tensors["front_end.0.mel_scale.fb"] = torch.zeros(257, 64)
    path = tmp_path / "audiotransformer.pt"
    top = {"model": tensors, "args": argparse.Namespace(lr=1)} if wrapped else tensors
    torch.save(top, path, _use_new_zipfile_serialization=zipped)
    assert np.array_equal(encoders.load("ced-tiny", path).grid(wave), encoders.load("ced-tiny", published).grid(wave))


def test_training_settings_of_fairseq_are_read_as_empty_shells(tmp_path, published, wave, monkeypatch):
    """Such a file names classes of omegaconf, which is not installed where it is read."""
    module = types.ModuleType("omegaconf.dictconfig")
    module.DictConfig = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    settings = module.DictConfig()
    settings.content = {"lr": 1e-4}
    path = tmp_path / "fairseq.pt"
    torch.save({"cfg": settings, "model": torch_tensors()}, path)
    monkeypatch.undo()
    assert "omegaconf" not in sys.modules
    assert np.array_equal(encoders.load("ced-tiny", path).grid(wave), encoders.load("ced-tiny", published).grid(wave))


def test_a_converted_file_says_what_it_is_and_gives_the_same(tmp_path, published, wave):
    path = checkpoint.convert("ced-tiny", published, tmp_path / "ours.safetensors")
    file = checkpoint.read(path)
    assert file.converted["encoder"] == "ced-tiny" and file.converted["source"] == published.name
    assert len(file.converted["source_sha256"]) == 64 and json.loads(file.converted["config"])["family"] == "ced"
    assert np.array_equal(encoders.load("ced-tiny", path).grid(wave), encoders.load("ced-tiny", published).grid(wave))
    refused(path, "ced-tiny", name="ced-mini")
    refused(path, name="dasheng")


def test_a_converted_file_counts_as_its_source_and_not_as_another_network(tmp_path, published):
    path = checkpoint.convert("ced-tiny", published, tmp_path / "ours.safetensors")
    assert encoders.load("ced-tiny", path).weights_hash == encoders.load("ced-tiny", published).weights_hash
    for name in ("beats", "openl3"):
        refused(path, f"holds ced-tiny, not {name}", name=name)


@pytest.fixture(scope="module")
def fisher():
    shape = subbands.SIZES["fisher-tiny"]
    rng = np.random.default_rng(0)
    keys = layouts.FISHER.keys(shape)
    tensors = {key: 0.1 * rng.normal(size=size).astype(np.float32) for key, size in keys.items()}
    return {f"fisher.{key}": value for key, value in tensors.items()}


@pytest.mark.slow
def test_one_fisher_file_serves_every_sampling_rate(fisher, tmp_path, wave):
    path = saved(tmp_path / "fisher.safetensors", fisher)
    assert weights.guess(path) == "fisher-tiny"
    for name, columns in (("fisher-tiny", 12), ("fisher-tiny-44k", 30), ("fisher-tiny-48k", 36)):
        encoder = encoders.load(name, path)
        second = np.resize(wave, (1, encoder.sample_rate))
        assert encoder.grid(second)[0].shape == (6, columns, 192)
    with pytest.raises(ValueError, match="1600 samples is too short for FISHER: at least 2800"):
        encoders.load("fisher-tiny", path).grid(wave[:, :1600])


def test_of_a_table_of_positions_the_first_rows_are_used_and_a_shorter_one_is_refused(fisher, tmp_path, wave):
    table = "fisher.fixed_positional_encoder.positions"
    longer = fisher | {table: np.concatenate([fisher[table], np.ones((1, 9, 192), np.float32)], axis=1)}
    short, long = (
        encoders.load("fisher-tiny", saved(tmp_path / f"{i}.safetensors", t)) for i, t in enumerate((fisher, longer))
    )
    np.testing.assert_array_equal(short.grid(wave), long.grid(wave))
    cut = saved(tmp_path / "cut.safetensors", fisher | {table: fisher[table][:, :383]})
    refused(cut, "positions is (1, 383, 192), not (1, 384, 192)", name="fisher-tiny")


def test_openbeats_is_told_from_beats_and_takes_the_normalisation_of_its_file(tmp_path):
    config = beats.Config(1, 768, 64, 4, 16, conv_pos=8, conv_pos_groups=2)
    cfg = vars(config) | {"fbank_mean": 15.0, "fbank_std": 6.0}
    tensors = {k: torch.zeros(size) for k, size in (beats.published_keys(config) | beats.OPEN_ONLY).items()}
    path = tmp_path / "epoch_latest.pt"
    torch.save({"cfg": cfg, "model": tensors}, path)
    network, stored = beats.read("openbeats-base", path)
    assert (stored["fbank_mean"], stored["fbank_std"]) == (15.0, 6.0)
    silence = torch.zeros(1, 4000)
    plain = (network.spectrogram(silence) * 12 + 15 - beats.MEAN) / (2 * beats.STD)
    torch.testing.assert_close(beats.BeatsNetwork(beats.Beats(replace(config))).spectrogram(silence), plain)
    refused(path, "patch_embedding_pad.weight", name="beats")
    refused(path, "layers of width 1024", name="openbeats-large")
    torch.save({"cfg": cfg | {"fbank_std": "wide"}, "model": tensors}, path)
    refused(path, "fbank_std = 'wide', not a number", name="openbeats-base")
