"""Encoders, poolings, views and back ends of the user: registered by name, or given as they are."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import nearfar
from commands import nearfar as run
from conftest import hum, write_wav
from nearfar import backend, pooling, recipe, views
from nearfar.challenge import evaluate as bench
from nearfar.challenge.data.layout import read as read_layout
from nearfar.challenge.search import run as searching
from nearfar.challenge.search.records import read as read_records
from nearfar.challenge.search.space import space
from nearfar.challenge.search.space import space as space_by_name
from nearfar.embedding.store import Store
from nearfar.encoders import plugins
from nearfar.errors import MissingPlugin
from nearfar.recipe import PLUGINS, Recipe, from_json, parse_view, with_settings

pytestmark = pytest.mark.usefixtures("forget_plugins")
ROOT = Path(__file__).resolve().parents[1]


class Bands:
    """Loudness of 65 bands, a frame every 32 ms."""

    sample_rate, dim = 16_000, 65

    def frames(self, waves):
        return [np.log1p(abs(np.fft.rfft(w[: len(w) // 512 * 512].reshape(-1, 512)))[:, ::4][:, :65]) for w in waves]


class Grids(Bands):
    """The same as a grid of 5 rows."""

    dim = 13
    weights_hash = "a:1"

    def grid(self, waves):
        return np.stack([f.reshape(-1, 5, 13) for f in self.frames(waves)])


class Nearest:
    """Distance to the nearest normal."""

    def __init__(self, z, is_target, k=1, **options):
        self.z, self.k, self.options = z, k, options

    def score(self, q):
        return np.sort(np.linalg.norm(q[:, None] - self.z, axis=-1), axis=1)[:, : self.k].mean(axis=1)

    @property
    def train_scores(self):
        d = np.linalg.norm(self.z[:, None] - self.z, axis=-1)
        return np.sort(d, axis=1)[:, 1 : self.k + 1].mean(axis=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for machine in ("fan", "pump"):
        for i in range(6):
            domain = "target" if i == 5 else "source"
            write_wav(
                tmp_path / f"data/{machine}/train/section_00_{domain}_train_normal_{i:04d}.wav", hum(i, seconds=0.5)
            )
        for i, label in enumerate(["normal", "anomaly"] * 4):
            domain = "source" if i < 4 else "target"
            clip = hum(50 + i, fault="hiss" if label == "anomaly" else "", seconds=0.5)
            write_wav(tmp_path / f"data/{machine}/test/section_00_{domain}_test_{label}_{i:04d}.wav", clip)
    return tmp_path / "data"


def test_an_object_works_as_an_encoder_in_a_recipe_and_a_detector():
    encoder = Bands()
    made = Recipe(encoder=encoder, method="raw", metric="euclidean", normalize=False, view="near_only")
    assert made.encoder == "test_plugins.Bands" and from_json(made.to_json()) == made
    assert Recipe(encoder=encoder, method="raw", metric="euclidean", normalize=False) == made, "the same object"
    assert Recipe(encoder=Bands()).encoder == "test_plugins.Bands-2", "another object has another name"
    clips = [hum(i) for i in range(8)]
    detector = nearfar.Detector(made, calibration="clips").fit(clips[:6])
    vector = encoder.frames([clips[7].near])[0].mean(axis=0)
    normals = np.stack([encoder.frames([c.near])[0].mean(axis=0) for c in clips[:6]])
    distance = np.linalg.norm(normals - vector, axis=1).min()
    lone = np.array([np.delete(np.linalg.norm(normals - z, axis=1), i).min() for i, z in enumerate(normals)])
    assert detector.score([clips[7]])[0].score == pytest.approx((distance - lone.mean()) / lone.std(), rel=1e-3)


def test_grids_frames_and_what_is_neither():
    encoder = plugins.PluginEncoder("g", Grids())
    waves = np.random.default_rng(0).normal(size=(2, 4096)).astype(np.float32)
    assert encoder.grid(waves).shape == (2, 8, 5, 13) and encoder.frames(waves, "concat").shape == (2, 8, 65)
    assert encoder.weights_hash == "a-1" and not encoder.batches
    assert plugins.PluginEncoder("f", Bands()).grid(list(waves))[1].shape == (8, 1, 65)
    one = encoder.grid([waves[0], waves[1, :1024]])
    assert [g.shape[0] for g in one] == [8, 2] and np.array_equal(one[0], encoder.grid(waves[:1])[0])

    class Wrong(Bands):
        dim = 64

    with pytest.raises(ValueError, match=r"'w' gives \(8, 65\) for a wave, and \(T, 64\) is expected: .* \(1, T, 64\)"):
        plugins.PluginEncoder("w", Wrong()).grid(waves)
    with pytest.raises(ValueError, match=r"'f' gives no frame for a wave of 0\.0187 s"):
        plugins.PluginEncoder("f", Bands()).grid([waves[0, :300]])
    with pytest.raises(ValueError, match="no layers"):
        encoder.grid(waves, layer=1)
    with pytest.raises(ValueError, match="sample_rate, dim and grid"):
        plugins.PluginEncoder("n", object())
    with pytest.raises(ValueError, match="no layers"):
        Recipe(encoder=Bands(), layer=3)
    with pytest.raises(ValueError, match="unknown encoder 3"):
        Recipe(encoder=3)


def test_a_name_of_nearfar_s_own_is_refused_and_an_own_name_is_replaced():
    for register, taken in (
        (nearfar.register_encoder, "beats"),
        (nearfar.register_backend, "ldn"),
        (nearfar.register_pooling, "rdp"),
        (nearfar.register_view, "n_f"),
    ):
        with pytest.raises(ValueError, match="register yours under another name"):
            register(taken, Bands)
        with pytest.raises(ValueError, match="letters, digits"):
            register("a/b", Bands)
    nearfar.register_encoder("mine", Bands)
    nearfar.register_encoder("mine", lambda weights=None, device="cpu": Grids())
    assert nearfar.encoders.load("mine").dim == 13


def test_pooling_view_and_back_end_as_functions():
    def peak(frames):
        return frames.max(axis=0)

    def difference(near, far):
        return near - far

    made = Recipe(encoder=Bands(), pooling=peak, view=difference, method=Nearest, k=2, metric="euclidean")
    twin = Recipe(encoder=made.encoder, pooling="mean", view="residual_1", method="raw", k=2, metric="euclidean")
    clips = [hum(i) for i in range(8)]
    x = np.random.default_rng(1).normal(size=(3, 9, 4)).astype(np.float32)
    assert np.array_equal(pooling.pool(x, made.pooling), x.max(axis=1)) and pooling.length(made.pooling, 7) == 7
    near, far = x[:, 0], x[:, 1]
    assert np.allclose(views.compose(made.view, near, far), views.compose("residual_1", near, far), atol=1e-6)
    own = nearfar.Detector(made, calibration="clips").fit(clips[:6]).score(clips[6:])
    same = nearfar.Detector(with_settings(twin, {"pooling": made.pooling}), calibration="clips").fit(clips[:6])
    assert np.allclose([s.score for s in own], [s.score for s in same.score(clips[6:])], rtol=1e-3)
    beam = nearfar.Detector(with_settings(made, {"freq": "beam"}), calibration="groups").fit(clips[:6])
    assert np.isfinite(beam.score(clips[6:])[0].score)


def test_a_back_end_gets_the_options_that_its_signature_names_and_its_scores_are_checked():
    nearfar.register_backend("nearest", Nearest)
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(20, 5)), rng.normal(size=(4, 5))
    fitted = backend.fit(z, method="nearest", k=3, density_k=5)
    plain = backend.fit(z, method="raw", k=3, metric="euclidean")
    assert np.allclose(fitted.score(q), plain.score(q), rtol=1e-5)
    assert np.allclose(fitted.train_scores, plain.train_scores, rtol=1e-5)
    related = np.eye(20, dtype=bool)
    related[:4, :4] = True
    assert np.allclose(fitted.scores_excluding(related), plain.scores_excluding(related), rtol=1e-5)
    white = backend.fit(z, method="nearest", whiten=True), backend.fit(z, metric="euclidean", whiten=True)
    assert np.allclose(white[0].train_scores, white[1].train_scores, rtol=1e-4)

    def strict(z, is_target, density_k):
        assert density_k == 5
        return Nearest(z, is_target)

    assert np.allclose(backend.fit(z, method=backend.PLUGINS.name_of(strict), density_k=5).score(z), 0, atol=1e-6)

    class Bad(Nearest):
        train_scores = np.full(20, np.nan)

        def score(self, q):
            return np.zeros(3)

    bad = backend.fit(z, method=backend.PLUGINS.name_of(Bad))
    with pytest.raises(ValueError, match=r"'test_plugins.test_.*Bad' have shape"):
        bad.score(q)
    with pytest.raises(ValueError, match="train_scores of the back end"):
        _ = bad.train_scores


def test_a_saved_detector_names_the_import_path_and_needs_the_plug_in(tmp_path: Path):
    nearfar.register_encoder("bands", Bands)
    clips = [hum(i) for i in range(6)]
    detector = nearfar.Detector(Recipe(encoder="bands", method=Nearest), calibration="clips").fit(clips)
    before = detector.score([hum(9)])[0].score
    detector.save(tmp_path / "model")
    named = json.loads((tmp_path / "model/detector.json").read_text())["plugins"]
    assert named == {
        "encoder": {"bands": "test_plugins:Bands"},
        "method": {"test_plugins.Nearest": "test_plugins:Nearest"},
    }
    assert nearfar.load(tmp_path / "model").score([hum(9)])[0].score == before
    del PLUGINS["encoder"].paths["bands"], PLUGINS["encoder"].table["bands"], PLUGINS["encoder"]._given["bands"]
    with pytest.raises(MissingPlugin, match=r"model: the encoder 'bands' is a plug-in, test_plugins:Bands, and is not"):
        nearfar.load(tmp_path / "model")


def test_plug_ins_are_evaluated_searched_and_fused_with_the_same_scores(data: Path, tmp_path: Path):
    nearfar.register_encoder("bands", Bands)
    nearfar.register_backend("nearest", Nearest)
    nearfar.register_pooling("top", lambda frames: frames.max(axis=0))
    chosen = space(views=("near_only", "n_0.25f", "n_f"), poolings=("top", "mean"), methods=("nearest", "raw"))
    found = searching.search(data, [Bands()], tmp_path / "other", space(views=("near_only",), poolings=("mean",)))
    assert found.records.recipes[0].encoder == "test_plugins.Bands"
    records = searching.search(data, ["bands"], tmp_path / "search", chosen).records
    assert not (tmp_path / "search" / "grids").exists(), "no store keeps what has no weights_hash"
    for view in ("n_0.25f", "near_only"):
        one = Recipe(encoder="bands", view=view, pooling="top", method="nearest", metric="euclidean")
        row = list(records.recipes).index(one)
        result = bench.evaluate(data, one, rounds=1)
        assert records.overall[row] == pytest.approx(result.overall)
        detector = result.machines[0].detector
        scores = records.aligned([row], "fan")[0]
        assert np.allclose(scores, [s.score for s in result.machines[0].scores], rtol=1e-3, atol=1e-3)
        assert detector.recipes[0].pooling == "top"
    nearfar.register_view("diff", lambda near, far: near - 0.5 * far)  # also a word of the search
    own = space(views=["diff"], poolings=["mean"], methods=["raw"])
    twin = space(views=["residual_0.5"], poolings=["mean"], methods=["raw"], extended=True)
    both = [searching.search(data, ["bands"], tmp_path / name, s).records for name, s in (("own", own), ("twin", twin))]
    for row, made in enumerate(both[0].recipes):
        same = list(both[1].recipes).index(with_settings(made, {"view": "residual_0.5"}))
        assert np.allclose(both[0].aligned([row], "fan"), both[1].aligned([same], "fan"), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="'near' is a waveform"):
        nearfar.register_view("near", lambda near, far: near)
    with pytest.raises(ValueError, match="unknown method of the search 'mahalanobos'"):
        space_by_name(methods=("mahalanobos",))


def test_a_search_takes_plug_ins_as_they_are():
    def peak(frames):
        return frames.max(axis=0)

    def difference(near, far):
        return near - far

    names = space(views=[difference, "n_f"], poolings=[peak], methods=[Nearest, "raw"]).names()
    assert names == {
        "view": {views.PLUGINS.name_of(difference), "n_f"},
        "pooling": {pooling.PLUGINS.name_of(peak)},
        "method": {backend.PLUGINS.name_of(Nearest), "raw"},
    }
    with pytest.raises(ValueError, match="unknown pooling of the search 'peak'"):
        space(poolings=["peak"])


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for i in range(8):
        write_wav(tmp_path / f"normals/monday_{i}.wav", hum(i))
        write_wav(tmp_path / f"today/0{i}00.wav", hum(20 + i, fault="hiss" if i == 7 else ""))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "register" in block or "encoder=" in block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 13
    inside = {"__name__": "bands"}
    exec(code, inside)
    scores = inside["detector"].score("today")
    assert max(scores, key=lambda s: s.score).name == "0700.wav"


def test_the_command_line_takes_plug_ins(data: Path, tmp_path: Path):
    page = (ROOT / "docs/tutorials/researcher.md").read_text()
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "register_encoder" in b]
    (tmp_path / "bands.py").write_text(code)
    try:
        options = ["--recipe", "bands", "--set", "view=n_0.25f", "--json"]
        code, out, err = run("--plugin", "bands.py", "evaluate", data, *options, cwd=tmp_path)
    finally:
        sys.modules.pop("bands", None)
    assert code == 0, err
    assert set(json.loads(out)["machines"]) == {"fan", "pump"}
    code, out, err = run("--plugin", "bunds.py", "recipe", "beats", cwd=tmp_path)
    assert code == 2 and "--plugin bunds.py: there is no such module" in err


@pytest.mark.parametrize(
    ("name", "family", "value"),
    [("n_0.25f", "n_<beta>f", 0.25), ("n_f", "n_<beta>f", 1), ("absdif_2", "absdif_<gamma>", 2)],
)
def test_views_with_a_number(name: str, family: str, value: float):
    assert views.parameter(name) == (family, value)
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(2, 5, 3))
    n, f = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (near, far))
    d = abs(n - f) / np.linalg.norm(n - f, axis=1, keepdims=True)
    whole = [n, value * f] if family.startswith("n_") else [n, f, value * d]
    z = np.concatenate(whole, axis=1)
    assert np.allclose(views.compose(name, near, far), z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-6)
    assert from_json(Recipe(view=name).to_json()).view == name


def test_views_of_soft_masks_with_any_alpha_and_floor():
    view = parse_view("sfsoft_a07f03")
    assert (view.alpha, view.floor, view.waveforms) == (0.7, 0.3, ("near", "enh_a07f03", "far"))
    assert parse_view("enh_a025f10").alpha == 0.25 and parse_view("enh_a025f10").floor == 1.0
    assert [leaf.view for leaf in recipe.leaves(Recipe(view="sfsoft_a07f03"))] == ["near_only", "enh_a07f03", "n_f"]
    with pytest.raises(ValueError, match="alpha of view 'enh_a20f03' must be"):
        Recipe(view="enh_a20f03")
    for wrong in ("n_f0.5", "absdif_", "n_-1f", "n_<beta>f", "enh_a3f5"):
        with pytest.raises(ValueError, match="view"):
            Recipe(view=wrong)


def test_the_recipe_command_prints_a_recipe_for_every_encoder_and_sets_keys():
    for name in nearfar.encoders.names():
        code, out, _ = run("recipe", name)
        assert code == 0 and from_json(out).encoder == name
    code, out, _ = run("recipe", "beats", "--set", "k=3", "--set", "view=absdif_2", "--set", "low=0.1")
    made = from_json(out)
    assert code == 0 and (made.k, made.view, made.low, made.density_k) == (3, "absdif_2", 0.1, 3)
    code, out, _ = run("recipe", "fusion", "--set", "metric=euclidean")
    assert code == 0 and {leaf.metric for leaf in recipe.leaves(from_json(out))} == {"euclidean"}
    for given, message in (("k", "give KEY=VALUE"), ("q=1", "unknown recipe keys"), ("k=none", "whole number")):
        code, _, err = run("recipe", "beats", "--set", given)
        assert code == 2 and message in err, err
    code, _, err = run("evaluate", "nowhere", "--recipe", "default", "--set", "k=2")
    assert code == 2 and "chosen by the normals" in err
    code, out, err = run("recipe", "default")
    assert code == 0 and from_json(out) == recipe.of_encoder("logmel") and "lets the normals choose" in err


def test_vectors_are_written_for_numpy_with_exact_leave_one_out(data: Path, tmp_path: Path):
    code, _, err = run("vectors", data, "--recipe", "logmel-floor", "--set", "method=ldn", "-o", tmp_path / "x.npz")
    assert code == 0, err
    x = np.load(tmp_path / "x.npz", allow_pickle=False)
    assert x["vectors"].shape == (2 * 14, 256) and x["vectors"].dtype == np.float32
    assert set(x["machines"]) == {"fan", "pump"} and sorted(set(x["labels"])) == ["anomaly", "normal"]
    train = (x["splits"] == "train") & (x["machines"] == "pump")
    assert train.sum() == 6 and np.isnan(x["train_scores"][x["splits"] == "test"]).all()
    chosen = from_json(run("recipe", "logmel-floor", "--set", "method=ldn")[1])
    detector = nearfar.Detector(chosen, calibration="clips").fit(data / "pump", copies=True)
    assert [n.name for n in detector.normals] == list(x["names"][train])
    assert np.array_equal(detector.backends[0].z, x["vectors"][train])
    assert np.allclose(detector.backends[0].train_scores, x["train_scores"][train], rtol=1e-6)
    assert (x["domains"][train] == "target").sum() == 1
    code, _, err = run("vectors", data, "-o", tmp_path / "y.npz")
    assert code == 2 and "name one with --recipe" in err


def test_a_wrong_device_is_one_line(data: Path, tmp_path: Path, ced_tiny_weights: Path):
    (tmp_path / "my.json").write_text(Recipe().to_json())
    for command in (["evaluate", data], ["search", data], ["fuse", data, "--systems", tmp_path / "my.json"]):
        encoder = ["--encoder", "logmel"] if command[0] == "search" else []
        code, _, err = run(*command, *encoder, "--device", "gpu")
        assert code == 2 and "device 'gpu' is none of cpu, cuda and cuda:N" in err and "Traceback" not in err
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        options = [
            "--recipe",
            "ced-tiny",
            "--weights",
            ced_tiny_weights,
            "--device",
            "cuda:1",
            "--set",
            "view=near_only",
        ]
        code, _, err = run("evaluate", data, *options)
        assert code == 2 and "device 'cuda:1' cannot be used here" in err and len(err.strip().splitlines()) <= 3


def test_outputs_of_another_device_are_kept_apart_and_are_the_same_weights():
    from nearfar.encoders.loading import WeightsId

    for text in ("", "ab", "ab:bf16", "ab:cuda", "ab:bf16:cuda"):
        assert str(WeightsId.parse(text)) == text
    assert WeightsId.parse("ab:cuda") == WeightsId("ab") and str(WeightsId.parse("ab:cuda")) != "ab"
    nearfar.register_encoder("grids", Grids)
    assert nearfar.encoders.load("grids", device="cuda:0").weights_hash == "a-1:cuda"


class Tensors:
    """Loudness of 8 parts of a wave, and their sum, by torch: with a gradient, in the precision `dtype`."""

    sample_rate, dim, dtype = 16_000, 9, "float32"

    def frames(self, waves):
        import torch

        layer = torch.nn.Linear(8, 9)
        with torch.no_grad():
            layer.weight.copy_(torch.cat([torch.eye(8), torch.ones(1, 8)]))
            layer.bias.zero_()
        x = torch.as_tensor(waves)[:, : waves.shape[1] // 8 * 8].reshape(1, 8, -1).abs().mean(-1)[:, None]
        return layer(x).to(getattr(torch, self.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_what_a_plug_in_gives_may_be_tensors_with_gradients(dtype: str):
    torch = pytest.importorskip("torch")
    encoder = Tensors()
    encoder.dtype = dtype
    wave = np.random.default_rng(0).normal(size=(1, 805)).astype(np.float32)
    parts = abs(wave[0, :800].reshape(8, 100)).mean(axis=1)
    (grid,) = plugins.PluginEncoder("t", encoder).grid([wave[0]])
    assert grid.dtype == np.float32 and isinstance(grid, np.ndarray)
    assert np.allclose(grid, [[[*parts, parts.sum()]]], rtol=1e-2 if dtype == "bfloat16" else 1e-5)
    factor = torch.ones(1, requires_grad=True)
    x = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)
    name = pooling.PLUGINS.name_of(lambda frames: torch.as_tensor(frames).amax(0) * factor)
    assert np.array_equal(pooling.pool(x, name), x.max(axis=1))
    view = views.PLUGINS.name_of(lambda near, far: (torch.as_tensor(near) + torch.as_tensor(far)) * factor)
    both = x[:, 0] / np.linalg.norm(x[:, 0], axis=1)[:, None] + x[:, 1] / np.linalg.norm(x[:, 1], axis=1)[:, None]
    assert np.allclose(views.compose(view, x[:, 0], x[:, 1]), both / np.linalg.norm(both, axis=1)[:, None], atol=1e-6)

    class Sums:
        def __init__(self, z, is_target):
            self.train_scores = torch.as_tensor(z).sum(1) * factor

        def score(self, q):
            return torch.as_tensor(q).sum(1) * factor

    fitted = backend.fit(x[:, 0], method=backend.PLUGINS.name_of(Sums))
    assert np.allclose(fitted.train_scores, x[:, 0].sum(axis=1)) and isinstance(fitted.score(x[:, 1]), np.ndarray)
    with pytest.raises(ValueError, match="holds nan at index"):
        plugins.finite("x", torch.tensor([np.nan], requires_grad=True))


def test_a_back_end_without_leave_one_out_is_refused_with_what_it_needs():
    class Half:
        def __init__(self, z, is_target):
            self.mean = z.mean(axis=0)

        def score(self, q):
            return np.linalg.norm(q - self.mean, axis=1)

    with pytest.raises(ValueError, match=r"Half without train_scores: .* fitted without it; without a formula"):
        backend.fit(np.eye(5), method=backend.PLUGINS.name_of(Half))

    def nothing(z, is_target):
        return None

    with pytest.raises(ValueError, match="NoneType without score and train_scores"):
        backend.fit(np.eye(5), method=backend.PLUGINS.name_of(nothing))


def test_a_store_leaves_out_an_encoder_without_weights_hash_and_keeps_the_others(data: Path, tmp_path: Path):
    nearfar.register_encoder("bands", Bands)
    nearfar.register_encoder("grids", Grids)
    both = recipe.Fusion(((0.5, Recipe(encoder="bands")), (0.5, Recipe(encoder="grids"))))
    store = Store(tmp_path / "store")
    plain = bench.evaluate(data, both, rounds=1)
    for _ in range(2):
        kept = bench.evaluate(data, both, rounds=1, store=store)
        assert [[s.score for s in m.scores] for m in kept.machines] == [
            [s.score for s in m.scores] for m in plain.machines
        ]
    kept_files = list(tmp_path.glob("store/*/*.safetensors"))
    assert len(kept_files) == 14, "a grid of each recording (both machines have the same), by `grids` alone"
    chosen = space(views=("near_only",), poolings=("mean",), methods=("raw",))
    searching.search(data, ["bands"], tmp_path / "search", chosen, store=store)
    code, _, err = run("embed", data, "--encoder", "bands", "--store", tmp_path / "embedded")
    assert code == 2 and "give it the attribute weights_hash" in err and len(err.strip().splitlines()) == 1


def test_vectors_of_one_number_are_refused_with_their_cause():
    class Level:
        sample_rate, dim = 16_000, 1

        def frames(self, waves):
            return [[[float(np.log(abs(w).mean()))]] for w in waves]

    clips = [hum(i) for i in range(6)]
    one = Recipe(encoder=Level(), metric="euclidean")
    with pytest.raises(ValueError, match=r"a single number becomes 1 or -1 .*--set normalize=false"):
        nearfar.Detector(one).fit(clips)
    detector = nearfar.Detector(with_settings(one, {"normalize": False}), calibration="clips").fit(clips[:5])
    levels = [float(np.log(abs(c.near).mean())) for c in clips]
    lone = np.array([min(abs(a - b) for j, b in enumerate(levels[:5]) if j != i) for i, a in enumerate(levels[:5])])
    nearest = min(abs(levels[5] - level) for level in levels[:5])
    assert detector.score([clips[5]])[0].score == pytest.approx((nearest - lone.mean()) / lone.std(), rel=1e-3)


def register_from(file: Path, code: str) -> None:
    """Write a module of plug-ins and import it, as `nearfar --plugin` does in a new process."""
    file.write_text(code)
    sys.modules.pop(file.stem, None)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    exec(compile(code, str(file), "exec"), module.__dict__)


CODE = """
import nearfar
from test_plugins import Nearest
def top(frames):
    return frames.{function}(axis=0)
nearfar.register_pooling("top", top)
nearfar.register_backend("nearest", Nearest)
"""


def test_results_are_computed_anew_when_the_code_of_a_plug_in_has_changed(data: Path, tmp_path: Path):
    from nearfar.challenge.evaluate import ScoreCache

    def searched() -> float:
        chosen = space(views=("near_only",), poolings=("top", "mean"), methods=("raw",))
        records = searching.search(data, ["logmel"], tmp_path / "search", chosen).records
        return {r.pooling: records.overall[i] for i, r in enumerate(records.recipes) if r.k == 1}

    def cached() -> list[float]:
        cache = ScoreCache(tmp_path / "scores")
        return [list(s.test.values()) for _, s in cache.scores("mine", Recipe(pooling="top"), read_layout(data).units)]

    register_from(tmp_path / "mine.py", CODE.format(function="max"))
    first, scores = searched(), cached()
    begun = {path: path.stat().st_mtime_ns for path in tmp_path.glob("search/logmel/fan/*.safetensors")}
    assert searched() == first and cached() == scores
    assert begun == {path: path.stat().st_mtime_ns for path in begun}, "nothing was computed again"
    register_from(tmp_path / "mine.py", CODE.format(function="min"))
    second = searched()
    evaluated = bench.evaluate(data, Recipe(pooling="top", method="raw"), rounds=1).overall
    assert second["top"] == pytest.approx(evaluated) and second["mean"] == first["mean"]
    assert cached() != scores
    assert [p.name for p, time in begun.items() if p.stat().st_mtime_ns != time], "the files of `top` were written anew"
    assert [p.name for p, time in begun.items() if p.stat().st_mtime_ns == time], "those of `mean` were not"


def test_results_of_plug_ins_that_are_not_here_are_left_out_with_a_warning(data: Path, tmp_path: Path):
    nearfar.register_encoder("grids", Grids)
    nearfar.register_backend("nearest", Nearest)
    chosen = space(views=("near_only",), poolings=("mean",), methods=("nearest", "raw"))
    for encoder in ("grids", "logmel"):
        searching.search(data, [encoder], tmp_path, chosen)
    both = read_records(tmp_path)
    for kind, name in (("encoder", "grids"), ("method", "nearest")):
        plugin = PLUGINS[kind]
        del plugin.table[name], plugin.paths[name], plugin._given[name]
    with pytest.warns(UserWarning, match="results of grids, nearest are left out: plug-ins that are not registered"):
        left = read_records(tmp_path)
    rows = [i for i, r in enumerate(both.recipes) if r.encoder == "logmel" and r.method == "raw"]
    assert list(left.recipes) == [both.recipes[i] for i in rows]
    assert np.array_equal(left.numbers, both.numbers[rows])
    nearfar.register_backend("nearest", Nearest)
    with pytest.warns(UserWarning, match="results of grids are left out"):
        assert [r for r in both.recipes if r.encoder == "logmel"] == list(read_records(tmp_path).recipes)


def test_an_encoder_without_weights_hash_is_searched_anew_by_another_process(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    nearfar.register_encoder("bands", Bands)
    chosen = space(views=("near_only",), poolings=("mean",), methods=("raw",))

    def searched() -> searching.Searched:
        return searching.search(data, ["bands"], tmp_path, chosen)

    first = searched()
    assert any("bands has no weights_hash" in note for note in first.notes)
    monkeypatch.setattr(Bands, "frames", lambda self, waves: [np.ones((3, 65)) * abs(w).max() for w in waves])
    assert np.array_equal(searched().records.numbers, first.records.numbers), "the same process takes what is there"
    monkeypatch.setattr("nearfar.encoders.loading.PROCESS", "another")
    with pytest.raises(ValueError, match="refused"):  # vectors of the new code are all the same
        searched()


def test_the_version_of_a_plug_in(tmp_path: Path):
    from nearfar.support.plugins import PROCESS, version_of

    assert version_of(Nearest) == version_of(Bands) == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    assert version_of(Nearest(np.eye(3), None)) == version_of(lambda x: tmp_path) == PROCESS
    assert version_of(len) == ""
    inside: dict[str, object] = {}
    exec("def f(x):\n    return x", inside)
    assert version_of(inside["f"]) == PROCESS, "no source to be had"


def test_a_recipe_of_another_process_names_the_encoder_that_is_not_registered_here():
    made = pickle.dumps(Recipe(encoder=Bands()))
    plugin = PLUGINS["encoder"]
    del plugin.table["test_plugins.Bands"], plugin.paths["test_plugins.Bands"], plugin._given["test_plugins.Bands"]
    with pytest.raises(MissingPlugin, match=r"'test_plugins.Bands' is not registered in this process"):
        nearfar.Detector(pickle.loads(made)).fit([hum(i) for i in range(4)])


def test_words_of_the_extended_search_are_named_and_several_methods_of_one_group_are_told_apart(tmp_path: Path):
    for given in ({"methods": ["pca"]}, {"methods": ["smote"]}, {"views": ["far_only"]}, {"poolings": ["quiet"]}):
        with pytest.raises(ValueError, match="belongs to the extended search: --extended"):
            space(**given)
    smote = space(extended=True, methods=["smote"])
    assert smote.names()["method"] == {"smote"} and len(smote) == 1
    every = space(extended=True, methods=["altered"])
    assert every.names()["method"] == {"kmeans", "smote", "memmixup"} and len(every) == 3
    assert space(methods=["ldn"]) == space(methods=["ldn"], extended=False)
    code, _, err = run("recipe", "bands")
    assert code == 2 and "nearfar --plugin MODULE" in err and err.count("eat-large,") == 1
    code, _, err = run("fuse", tmp_path, "--systems", "logmel")
    assert code == 2 and "logmel lets the normals choose" in err


def test_an_error_that_every_recording_has_is_told_once(data: Path):
    class Deep(Bands):
        def frames(self, waves):
            raise ValueError("there are 2 blocks, so block 7 does not exist")

    with pytest.raises(ValueError, match=r"^fan: none of its normals can be used: there are 2 blocks"):
        bench.evaluate(data, Recipe(encoder=Deep()), rounds=1)


def test_one_frame_has_no_burst_and_the_pooling_is_named_as_the_cause():
    class Whole:
        sample_rate, dim = 48_000, 4

        def frames(self, waves):
            return [np.log(1e-9 + abs(np.fft.rfft(w))[:8000].reshape(4, -1).mean(axis=1))[None] for w in waves]

    clips, encoder = [hum(i) for i in range(6)], Whole()
    with pytest.raises(
        ValueError, match=r"zeros .* cause: the recipe leaves nothing .*pooling burst.*, or the encoder"
    ):
        nearfar.Detector(Recipe(encoder=encoder, pooling="burst")).fit(clips)
    scores = [
        nearfar.Detector(Recipe(encoder=encoder, pooling=kind, p=1), calibration="clips").fit(clips).score([hum(9)])
        for kind in ("mean", "rdp")
    ]
    assert scores[0][0].score == pytest.approx(scores[1][0].score, rel=1e-5), "one frame is its own mean"


@pytest.mark.parametrize("name", ["exported", "huggingface"])
def test_a_search_with_a_network_of_one_s_own_asks_for_its_file(data: Path, tmp_path: Path, name: str):
    code, _, err = run("search", data, "--encoder", name, "-o", tmp_path / "search")
    assert code == 2 and re.search(r"give its (manifest|folder), --weights", err) and "Traceback" not in err
