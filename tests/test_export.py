"""Networks as ONNX files: each gives what the torch network gives, for every length of a clip."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import torch  # noqa: E402

import test_networks as small  # noqa: E402
from nearfar.encoders import beats, checkpoint, export, layouts, load, onnxfile, openl3  # noqa: E402
from nearfar.encoders.mel import mel_bank  # noqa: E402
from nearfar.encoders.transformers import DASHENG, EAT, M2D  # noqa: E402


def eat():
    shape = small.small(EAT, 80)
    return small.transformer("eat", shape, small.fake(layouts.EAT.keys(shape)), 1280), 16_000


def m2d():
    shape = small.small(M2D, 6)
    p = small.fake(layouts.M2D.keys(shape)) | {"norm_stats": np.array([-6.0, 3.5], np.float32)}
    return small.transformer("m2d", shape, p, 101), 16_000


def dasheng():
    shape = small.small(DASHENG, 9)
    return small.transformer("dasheng", shape, small.fake(layouts.CED.keys(shape)), 36), 16_000


def little_beats():
    config = beats.Config(2, 32, 64, 4, 16, conv_pos=8, conv_pos_groups=2, num_buckets=20, max_distance=60)
    with torch.device("meta"):
        module = beats.Beats(config)
    checkpoint.fill(module, beats.canonical(config, small.tensors(small.fake(beats.published_keys(config)))))
    return beats.BeatsNetwork(module), 16_000


def little_openl3(representation="mel128"):
    p = small.fake(openl3.published_keys(representation))
    p["batch_normalization_1.running_mean"] -= 19
    if representation != "linear":
        p["speclayer.mel_basis"] = mel_bank("htk-area", 48_000, 2048, 128).T.astype(np.float32)
    with torch.device("meta"):
        module = openl3.OpenL3(representation, 512)
    checkpoint.fill(module, openl3.canonical(small.tensors(p)))
    return openl3.OpenL3Network(module, 512), 48_000


def linear_openl3():
    return little_openl3("linear")


@pytest.mark.slow
@pytest.mark.parametrize("make", [eat, m2d, dasheng, little_beats, little_openl3, linear_openl3])
def test_a_file_gives_what_the_network_gives(make):
    network, rate = make()
    plan = export.plan_of(network)
    session = onnxruntime.InferenceSession(onnxfile.build(plan, network.dim))
    for seconds in (0.1, 0.5, 1.0, 1.31, 10.3 if rate == 16_000 else 1.5):
        waves = small.wave(seconds, rate)
        padded = np.pad(waves, ((0, 0), (0, max(0, plan.shortest - waves.shape[1]))))
        found = session.run(None, {"waves": padded})[0][0]
        wanted = small.grids(network, waves)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-3 * wanted.std()


@pytest.fixture(scope="module")
def ced(ced_tiny_weights, tmp_path_factory):
    """(weights file, manifest) of CED-tiny at its full size."""
    return ced_tiny_weights, export.export("ced-tiny", ced_tiny_weights, tmp_path_factory.mktemp("export") / "ced.onnx")


@pytest.mark.slow
def test_ced_tiny_runs_without_torch_and_ranks_clips_alike(ced):
    weights, manifest = ced
    torch_one, onnx_one = load("ced-tiny", weights), load("exported", manifest)
    assert (onnx_one.dim, onnx_one.sample_rate, onnx_one.licence) == (192, 16_000, "Apache-2.0")
    clips = [small.wave(seconds)[0] * level for seconds, level in ((0.1, 1), (2, 0.01), (10, 1), (10.14, 1), (12, 0.5))]
    clips += [np.zeros(16_000, np.float32)]
    wanted, found = torch_one.grid(clips), onnx_one.grid(clips)
    for a, b in zip(wanted, found, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-3 * a.std()
    order = [
        np.argsort([np.linalg.norm(g.mean((0, 1)) - grids[2].mean((0, 1))) for g in grids]) for grids in (wanted, found)
    ]
    assert np.array_equal(*order)


def test_a_network_that_is_too_large_for_a_file_is_refused(ced_tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", 1000)
    monkeypatch.setattr(export, "build", lambda plan, dim: bytes(1001))  # it takes half a minute
    with pytest.raises(ValueError, match="more than an ONNX file can hold"):
        export.export("ced-tiny", ced_tiny_weights, tmp_path / "ced.onnx")
    assert not list(tmp_path.iterdir())
