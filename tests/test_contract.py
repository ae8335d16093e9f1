"""The public contract as an outsider reads it: names, keywords, shapes, dtypes, and the rules that hold everywhere."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import nearfar
from conftest import hum, write_wav
from nearfar import backend, encoders, enhance, frames, fusion, metrics, pooling, recipe, views
from nearfar.cli import app
from nearfar.demo import make_dataset

VIEWS = ("near_only", "n_0.5f", "n_f", "absdif_1", "absdif_0.5", "far_only", "residual_0.5")
METHODS = ("raw", "ldn", "domain_z", "dldn", "dbldn", "varmin", "mahalanobis", "as_is")
POOLINGS = ("mean", "gem", "rdp", "rdp_gem")
RNG = np.random.default_rng(0)
GRID = np.abs(RNG.normal(size=(2, 9, 6))).astype(np.float32)
BANK, IS_TARGET = RNG.normal(size=(24, 6)).astype(np.float32), np.arange(24) >= 18
NEAR, FAR = (0.1 * RNG.normal(size=(2, 5000))).astype(np.float32)


def spoilt(x, value=np.nan):
    x = np.array(x)
    x.flat[1] = value
    return x


@pytest.mark.parametrize("kind", POOLINGS)
def test_frames_are_suppressed_and_pooled(kind):
    before = GRID.copy()
    kept = frames.suppress(GRID, low=0.1, spike=0.3)
    assert kept.shape == GRID.shape and kept.dtype == np.float32
    assert (kept[GRID < 0.1] == 0).all() and np.allclose(kept[GRID > 0.3], np.tanh(GRID[GRID > 0.3]))
    vector = pooling.pool(GRID, kind, p=3, alpha=1)
    assert vector.shape == (2, 6) and vector.dtype == np.float32 and (before == GRID).all()
    own = {"mean": {}, "gem": {"p": 3}, "rdp": {"alpha": 1}, "rdp_gem": {"alpha": 1, "p": 3}}[kind]
    assert (getattr(pooling, kind)(GRID, **own) == vector).all()


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_composed_to_unit_length(view):
    near, far = GRID[:, 0], GRID[:, 1]
    z = views.compose(view, near, far)
    assert len(z) == 2 and z.dtype == np.float32 and np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    assert np.allclose(z, views.compose(view, 7 * near, 0.1 * far), atol=1e-5), "any norm in"
    if view == "near_only":
        assert (views.compose(view, near) == z).all()
    else:
        with pytest.raises(ValueError, match=view):
            views.compose(view, near)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_a_back_end_scores_as_if_fitted_without_the_clip(method, metric, k):
    options = {"method": method, "metric": metric, "k": k, "density_k": 3 if "ldn" in method else None}
    bank = backend.fit(BANK, IS_TARGET, **options)
    assert bank.score(BANK[:5]).shape == (5,) and bank.train_scores.shape == (24,)
    assert np.isfinite(bank.train_scores).all()
    for i in (0, 20):
        rest = np.arange(24) != i
        alone = backend.fit(BANK[rest], IS_TARGET[rest], **options).score(BANK[i : i + 1])
        np.testing.assert_allclose(bank.train_scores[i], alone[0], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_a_duplicate_of_a_bank_member_is_at_distance_0(metric, scale):
    bank = scale * (BANK + 5)  # far from the origin, where a difference of squares is least exact
    fitted = backend.fit(bank, method="raw", metric=metric)
    assert np.abs(fitted.score(bank)).max() <= 2e-6 * max(1, scale)
    assert (fitted.score(BANK[::-1] + 90) > 0).all()


def test_a_fusion_aligns_by_the_normals_and_adds():
    train, scores = RNG.normal(3, 2, size=24), RNG.normal(3, 2, size=5)
    parts = [(train, scores), (10 * train - 4, 10 * scores - 4)]
    fused = fusion.fuse(parts, [0.3, 0.7])
    np.testing.assert_allclose(fused, (scores - train.mean()) / train.std(), rtol=1e-5)


def test_the_official_score_is_the_harmonic_mean_of_all():
    result = metrics.machine(RNG.normal(size=40), np.arange(40) % 2 == 0, np.arange(40) % 4 > 1)
    three = np.array([result.auc_source, result.auc_target, result.pauc])
    assert ((three >= 0) & (three <= 1)).all() and result.omega == pytest.approx(3 / (1 / three).sum())
    assert metrics.overall({"fan": result, "pump": result}) == pytest.approx(result.omega)


@pytest.mark.parametrize(
    "call, argument",
    [
        (lambda: frames.suppress(spoilt(GRID)), "frames"),
        (lambda: pooling.mean(spoilt(GRID)), "frames"),
        (lambda: pooling.gem(spoilt(GRID, np.inf)), "frames"),
        (lambda: pooling.rdp(spoilt(GRID)), "frames"),
        (lambda: pooling.rdp_gem(spoilt(GRID)), "frames"),
        (lambda: pooling.pool(spoilt(GRID), "mean"), "frames"),
        (lambda: views.compose("n_f", spoilt(BANK), BANK), "near"),
        (lambda: views.compose("n_f", BANK, spoilt(BANK)), "far"),
        (lambda: enhance.soft_mask(spoilt(NEAR), FAR, alpha=0.3, floor=0.5), "near"),
        (lambda: enhance.leakage_subtract(NEAR, spoilt(FAR)), "far"),
        (lambda: backend.fit(spoilt(BANK)), "z"),
        (lambda: backend.fit(BANK).score(spoilt(BANK)), "q"),
        (lambda: fusion.fuse([(BANK[:, 0], spoilt(BANK[:, 0]))], [1]), "scores"),
        (lambda: fusion.fuse([(spoilt(BANK[:, 0]), BANK[:, 0])], [1]), "scores"),
        (lambda: metrics.machine(spoilt(BANK[:, 0]), IS_TARGET, IS_TARGET), "scores"),
        (lambda: encoders.load("logmel").grid(spoilt(NEAR[None])), "waves"),
        (lambda: nearfar.Detector(nearfar.Recipe()).fit([(spoilt(NEAR), FAR, 16_000)]), "near"),
    ],
)
def test_nan_is_a_value_error_that_names_the_argument(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: pooling.gem(GRID, p=0), "p must be"),
        (lambda: pooling.rdp(GRID, alpha=-1), "alpha must be"),
        (lambda: pooling.pool(GRID, "max"), "choose one of"),
        (lambda: views.compose("nearly", BANK, BANK), "choose one of"),
        (lambda: enhance.soft_mask(NEAR, FAR, alpha=0.3, floor=1.1), "floor must be"),
        (lambda: enhance.leakage_subtract(NEAR, FAR, n_fft=128), "n_fft"),
        (lambda: backend.fit(BANK, k=0), "k must be"),
        (lambda: backend.fit(BANK, method="lof"), "choose one of"),
        (lambda: backend.fit(BANK, metric="l1"), "choose one of"),
        (lambda: backend.fit(BANK, IS_TARGET[:5]), "is_target"),
        (lambda: fusion.fuse([(BANK[:, 0], BANK[:, 1])] * 2, [0.5, 0.6]), "sum to 1"),
        (lambda: fusion.fuse([(BANK[:, 0], BANK[:, 1])] * 2, [1.5, -0.5]), "weight"),
        (lambda: encoders.load("resnet"), "choose one of"),
        (lambda: encoders.load("logmel", threads=0), "threads must be"),
        (lambda: nearfar.Detector(precision="half"), "precision 'half'"),
        (lambda: nearfar.Recipe(view="nearly"), "choose one of"),
        (lambda: nearfar.Recipe.from_json('{"viev": "n_f"}'), "view"),
        (lambda: nearfar.Recipe.from_json('{"pooling": "max"}'), "rdp_gem"),
    ],
)
def test_what_is_out_of_range_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


ENHANCED = {
    "soft": lambda n, f: enhance.soft_mask(n, f, alpha=0.3, floor=0.5, n_fft=1024, hop=256),
    **{
        f"{'w1w' if weighted else 'w1'}_{n_fft}": lambda n, f, s=n_fft, w=weighted: enhance.leakage_subtract(
            n, f, n_fft=s, weighted=w
        )
        for n_fft in (256, 1024, 4096)
        for weighted in (False, True)
    },
}


@pytest.mark.parametrize("name", ENHANCED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [4096, 4999, 5000])
def test_enhanced_waveforms_keep_length_type_and_level(name, dtype, length):
    f = FAR[:length].astype(dtype)
    n = (NEAR[:length] + 0.5 * FAR[:length]).astype(dtype)
    n[-1] = f[-1] = 0.9  # a click in the last, ragged frame
    out = ENHANCED[name](n, f)
    assert out.shape == n.shape and out.dtype == dtype
    assert np.isfinite(out).all() and np.abs(out).max() <= 2 * np.abs(n).max()
    for c in (1e-3, 64):
        np.testing.assert_allclose(ENHANCED[name](dtype(c) * n, dtype(c) * f), c * out, atol=1e-5 * c)
    np.testing.assert_allclose(ENHANCED[name](n, 0 * f), n, atol=1e-6)
    np.testing.assert_allclose(ENHANCED[name](n[None], f[None])[0], out, atol=1e-6)


def test_encoders_are_named_in_the_order_of_the_contract():
    eight = ["eat-large", "eat-as2m", "beats", "ced-base", "m2d-clap", "sslam", "openl3", "dasheng"]
    assert list(encoders.names()[:9]) == ["logmel", *eight] and "ced-tiny" in encoders.names()
    assert set(recipe.TABLE_3) == set(eight) and len(recipe.FUSION.parts) == 5
    assert list(inspect.signature(encoders.load).parameters)[:4] == ["name", "weights", "device", "threads"]
    encoder = encoders.load("logmel", weights=None, device="cpu", threads=1)
    assert encoder.sample_rate == 16_000 and encoder.dim and encoder.licence
    grid = encoder.grid(NEAR[None])
    batch, t, f, d = grid.shape
    assert grid.dtype == np.float32 and (batch, d) == (1, encoder.dim)
    for freq, shape in (("concat", (1, t, f * d)), ("mean", (1, t, d)), ("bands", (1, t, f, d))):
        assert encoder.frames(NEAR[None], freq=freq).shape == shape
    two = encoder.grid([NEAR, NEAR[:3000]])
    assert isinstance(two, list) and (two[0] == grid[0]).all() and (two[1] == encoder.grid(NEAR[None, :3000])[0]).all()


@pytest.mark.parametrize("system", [nearfar.Recipe(view="n_f", k=2), None], ids=["recipe", "default"])
def test_a_detector_is_a_folder_to_read_and_gives_the_same_again(system, tmp_path):
    clips = [hum(i) for i in range(12)]
    arrays = [(c.near, c.far, c.rate) for c in clips]
    made = nearfar.Detector(system)
    assert made.fit(clips, is_target=[False] * 9 + [True] * 3) is made
    scores = made.score([hum(50), hum(51, fault="hiss")])
    for score in scores:
        assert isinstance(score.value, float) and isinstance(score.threshold, float) and score.nearest
        assert score.anomalous == (score.value > score.threshold) and set(score.nearest) <= {c.name for c in clips}
    made.save(tmp_path / "model")
    kinds = {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert kinds <= {".json", ".safetensors", ".csv", ".md"}
    again = nearfar.load(tmp_path / "model").score([hum(51, fault="hiss")])
    assert again[0].value == scores[1].value, "alone, or with others"
    path = write_wav(tmp_path / "a.wav", hum(60), subtype="FLOAT")
    as_file, as_text = made.score([path])[0].value, made.score([str(path)])[0].value
    assert as_file == as_text and made.score(arrays[:1])[0].value == made.score(clips[:1])[0].value


def test_one_microphone_is_enough_where_far_is_not_asked_for():
    mono = [hum(i, far=False) for i in range(8)]
    assert np.isfinite(nearfar.Detector(nearfar.Recipe(view="near_only")).fit(mono).score(mono[:1])[0].value)
    with pytest.raises(ValueError, match="n_f"):
        nearfar.Detector(nearfar.Recipe(view="n_f")).fit(mono)


@pytest.mark.parametrize("name", ["logmel", "logmel-floor", "own"])
def test_evaluate_and_score_agree_to_the_last_digit(name, tmp_path):
    data = make_dataset(tmp_path / "data", machines=1, train=12, test=6, seconds=1.0)
    (machine,) = (p for p in data.iterdir() if p.is_dir())
    given = [name]
    if name == "own":
        given = [str(tmp_path / "own.json")]
        (tmp_path / "own.json").write_text('{"view": "sfsoft_a03f05", "pooling": "gem", "p": 3, "method": "dldn"}')

    def run(*arguments):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    csv = tmp_path / "scores.csv"
    json.loads(run("evaluate", data, "--recipe", *given, "--rounds", 1, "--csv", csv, "--json"))
    calibration = "clips" if name == "logmel" else "groups"  # the p-values of a watch are of the calibration
    run("fit", machine / "train", "-o", tmp_path / "model", "--recipe", *given, "--calibration", calibration)
    told = json.loads(run("score", tmp_path / "model", machine / "test", "--json"))
    rows = [line.split(",")[:2] for line in csv.read_text().splitlines()[1:]]
    assert {file.rpartition("/")[2]: float(score) for file, score in rows} == {
        row["file"].rpartition("/")[2]: row["score"] for row in told["scores"]
    }
