"""A network of one's own: small ONNX files made here, and YAMNet where it is on this machine."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import hum, shared
from nearfar.encoders import load

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)


def write_network(folder, nodes, *, shape, out="y", **manifest):
    """An ONNX file with the input x of `shape`, and its manifest."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [name], **attributes) for op, inputs, name, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(out, kind, None)],
        [onnx.numpy_helper.from_array(np.array(shape_of, np.int64), key) for key, shape_of in SHAPES.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    path = folder / "net.json"
    path.write_text(json.dumps({"network": "net.onnx", "sample_rate": 1000, **manifest}))
    return path


SHAPES = {"2x3x4": [1, 2, 3, 4], "rows": [1, -1, 10]}
SAME = [("Identity", ["x"], "y", {})]
FOLDED = [("Reshape", ["x", "2x3x4"], "y", {})]
WHOLE = [("Reshape", ["x", "rows"], "y", {})]


def test_windows_start_every_hop_and_the_last_ends_with_the_clip(tmp_path):
    encoder = load("exported", write_network(tmp_path, SAME, shape=[1, 24], window=24, hop=10, licence="mine"))
    assert (encoder.dim, encoder.sample_rate, encoder.licence, encoder.name) == (24, 1000, "mine", "exported")
    wave = RNG.normal(size=57).astype(np.float32)
    grid = encoder.grid([wave])[0]
    assert grid.shape == (5, 1, 24)
    for row, start in zip(grid, (0, 10, 20, 30, 33), strict=True):
        assert np.array_equal(row[0], wave[start : start + 24])
    assert len(encoder.grid([wave[:54]])[0]) == 4  # nothing is left over
    short = encoder.grid([wave[:5]])[0]
    assert np.array_equal(short[0, 0], np.pad(wave[:5], (0, 19)))


@pytest.mark.parametrize(("layout", "shape"), [("BTFD", (2, 3, 4)), ("BFTD", (3, 2, 4)), ("BDTF", (3, 4, 2))])
def test_the_layout_says_which_axis_is_which(tmp_path, layout, shape):
    path = write_network(tmp_path, FOLDED, shape=[24], window=24, hop=24, layout=layout, scale=2)
    wave = RNG.normal(size=48).astype(np.float32)
    grid = load("exported", path).grid(wave[None])[0]
    wanted = [2 * w.reshape(2, 3, 4).transpose([layout[1:].index(a) for a in "TFD"]) for w in (wave[:24], wave[24:])]
    assert grid.shape == (2 * shape[0], *shape[1:])
    assert np.array_equal(grid, np.concatenate(wanted))


def test_whole_clips_go_in_whole_and_depend_on_nothing_else(tmp_path):
    encoder = load("exported", write_network(tmp_path, WHOLE, shape=[1, "n"], layout="BTD", shortest=20))
    waves = [RNG.normal(size=n).astype(np.float32) for n in (50, 10, 200)]
    grids = encoder.grid(waves)
    assert [len(g) for g in grids] == [5, 2, 20]
    for wave, grid in zip(waves, grids, strict=True):
        assert np.array_equal(encoder.grid([wave])[0], grid)
        assert np.array_equal(encoder.frames([wave])[0], grid[:, 0])
    with pytest.raises(ValueError, match=r"net\.onnx does not take 55 samples as 'x'"):
        encoder.grid([np.zeros(55, np.float32)])


def test_the_hash_is_over_network_and_manifest(tmp_path):
    settings = {"shape": [1, 24], "window": 24, "hop": 12}
    first = load("exported", write_network(tmp_path, SAME, **settings)).weights_hash
    assert load("exported", tmp_path / "net.json").weights_hash == first
    assert load("exported", write_network(tmp_path, SAME, **settings | {"hop": 13})).weights_hash != first
    digest = hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    load("exported", write_network(tmp_path, SAME, **settings, sha256=digest.upper()))
    with pytest.raises(ValueError, match="another version"):
        load("exported", write_network(tmp_path, SAME, **settings, sha256="0" * 64))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "../net.onnx"}, "in the manifest's folder"),
        ({"network": "/etc/passwd"}, "in the manifest's folder"),
        ({"network": "..\\net.onnx"}, "in the manifest's folder"),
        ({"network": "C:\\net.onnx"}, "in the manifest's folder"),
        ({"network": 3}, "must be text"),
        ({"window": 10**12}, "window must be a whole number >= 1 and <= 60000"),
        ({"hop": 1}, "hop must be a whole number >= 10 and <= 24"),
        ({"hop": 25}, "hop must be a whole number >= 10 and <= 24"),
        ({"hop": None}, "both, or neither"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": "16000"}, "sample_rate must be"),
        ({"scale": float("nan")}, "scale"),
        ({"layout": "TTD"}, "layout"),
        ({"layout": "BT"}, "layout"),
        ({"layout": "BTD"}, "has shape"),
        ({"layout": "TD", "window": 24}, None),
        ({"windows": 24}, "unknown keys windows; known are network"),
        ({"output": "embedding"}, "no output tensors 'embedding'; choose one of: y"),
        ({"input": "wave"}, "no input tensors 'wave'; choose one of: x"),
        ({"network": "other.onnx"}, "there is no"),
    ],
)
def test_a_manifest_is_checked_before_anything_runs(tmp_path, settings, words):
    path = write_network(tmp_path, SAME, shape=[1, 24], **({"window": 24, "hop": 12} | settings))
    if words is None:
        assert load("exported", path).dim == 24
        return
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load("exported", path)
    assert words in str(caught.value) and "net." in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"network": "net.onnx"}', "\x00", " " * 70_000])
def test_what_is_no_manifest_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"net\.json is no manifest"):
        load("exported", path)


def test_what_is_no_network_is_an_error_that_names_it(tmp_path):
    path = write_network(tmp_path, SAME, shape=[1, 24], window=24, hop=12)
    (tmp_path / "net.onnx").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"net\.onnx is damaged, or not an ONNX file"):
        load("exported", path)
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "net.tflite").write_bytes(b"<html>" * 100)
    path.write_text(path.read_text().replace("net.onnx", "net.tflite"))
    with pytest.raises(ValueError, match=r"net\.tflite is damaged, or not a LiteRT file"):
        load("exported", path)
    with pytest.raises(ValueError, match="give its manifest"):
        load("exported")


def test_nan_from_a_network_is_an_error(tmp_path):
    encoder = load("exported", write_network(tmp_path, [("Log", ["x"], "y", {})], shape=[1, 24], window=24, hop=12))
    with pytest.raises(ValueError, match="makes NaN or infinity of waves"):
        encoder.grid([-np.ones(24, np.float32)])


@pytest.fixture
def yamnet(tmp_path):
    pytest.importorskip("ai_edge_litert")
    shutil.copy(shared("weights", "yamnet.tflite"), tmp_path / "yamnet.tflite")
    path = tmp_path / "yamnet.json"
    manifest = {"network": "yamnet.tflite", "sample_rate": 16000, "window": 15600, "hop": 7800}
    path.write_text(json.dumps(manifest | {"output": "global_average_pooling2d/Mean", "licence": "Apache-2.0"}))
    return path


def test_an_inner_tensor_of_yamnet_is_the_mean_of_the_layer_before_it(yamnet):
    """8-bit kernels round ties differently, and a tie moves an embedding by a tenth: so no other kernels judge here."""
    wave = np.concatenate([hum(1).near, hum(2, fault="hiss").near]).astype(np.float32)[:31_200]
    encoder = load("exported", yamnet)
    assert encoder.dim == 1024
    grid = encoder.grid([wave])[0]
    assert grid.shape == (3, 1, 1024) and (grid >= 0).all() and 0.7 < (grid == 0).mean() < 0.99
    text = yamnet.read_text()
    before = "layer14/pointwise_conv/relu/Relu"
    yamnet.write_text(json.dumps(json.loads(text) | {"output": before, "layout": "BTFD"}))
    cells = load("exported", yamnet).grid([wave])[0]
    assert cells.shape == (9, 2, 1024)  # three time rows a window
    np.testing.assert_allclose(cells.reshape(3, 6, 1024).mean(1), grid[:, 0], atol=1e-5)
    yamnet.write_text(text.replace("average_pooling2d/Mean", "average"))
    with pytest.raises(ValueError, match="no output tensors 'global_average'; choose one of: Identity, "):
        load("exported", yamnet)


@pytest.mark.slow
def test_the_whole_detector_hears_real_recordings_with_yamnet(yamnet, tmp_path):
    data = shared("data", "dcase2026-form")
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"recipe": 1, "encoder": "exported", "pooling": "mean", "method": "raw", "metric": "cosine"}')
    with_yamnet = ["--weights", yamnet]

    def nearfar(*arguments):
        command = [sys.executable, "-m", "nearfar", *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    result = nearfar("evaluate", data, "--recipe", recipe, *with_yamnet, "--rounds", 20)
    assert result["overall"] > 0.9
    machine, model = data / "bldcMotor", tmp_path / "motor"
    nearfar("fit", machine / "train", "-o", model, "--recipe", recipe, *with_yamnet)
    faulty = sorted((machine / "test").glob("*anomaly*"))[:4]
    rows = nearfar("score", model, *faulty, *with_yamnet)["scores"]
    assert all(row["unusual"] for row in rows)  # of the session of the normals
    assert nearfar("explain", model, faulty[0], *with_yamnet)["score"] == pytest.approx(rows[0]["score"], abs=1e-3)


def test_no_torch_is_needed(tmp_path):
    path = write_network(tmp_path, SAME, shape=[1, 24], window=24, hop=12)
    code = (
        "import sys; import numpy as np; from nearfar.encoders import load; "
        f"print(load('exported', {str(path)!r}).grid(np.ones((1, 60), np.float32)).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 4, 1, 24) False\n", done.stderr
