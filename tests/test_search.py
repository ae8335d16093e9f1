"""The search against the detector: any configuration's scores are the same, whatever was shared on the way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import hum, write_wav
from fake_encoders import write_ced_tiny
from nearfar.audio.recordings import Recording
from nearfar.backend import fit
from nearfar.challenge.evaluate import evaluate
from nearfar.challenge.search import distances, pool, records, run, score, space
from nearfar.challenge.search.score import score_all
from nearfar.detector import Detector
from nearfar.detector.system import build
from nearfar.embedding import vectors
from nearfar.embedding.cache import CachedEncoders
from nearfar.embedding.store import Store
from nearfar.encoders import load
from nearfar.recipe import Recipe, leaves
from nearfar.views import compose

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
N, TARGETS, M = 30, 6, 12
SPEEDS = [f"spd_{i % 4}" if i % 7 else "" for i in range(N)]  # attributes of the normals
SPACE = space.space(extended=True)
SETTINGS = list(SPACE.plan)


class Memory:
    """Grids that are there already."""

    def __init__(self, arrays):
        self.arrays = arrays

    def grids(self, path, waveforms, layer=None):
        return {name: self.arrays[str(path), name] for name in waveforms}


def toy_grids(waveforms, count=N + M, shape=(9, 2, 5), seed=0, duplicates=True, silent=False):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(len(waveforms), 1, *shape))
    x = (base + 0.3 * rng.normal(size=(len(waveforms), count, *shape))).astype(np.float32)
    if duplicates:
        x[:, 1], x[:, N] = x[:, 0], x[:, 2]  # of a normal among the normals, and among the queries
    if silent:
        x[0, 3] = -np.abs(x[0, 3])  # GeM of it is a zero vector, as far from every clip as from any other
    return {(str(i), name): x[w, i] for w, name in enumerate(waveforms) for i in range(count)}


def slow(recipe, grids, is_target):
    """Composed, fitted and scored one configuration at a time by the detector's own parts."""
    embedded = []
    for leaf in leaves(recipe):
        view = leaf.parsed_view.pooled
        each = [
            compose(view, *vectors.pool([grids[str(i), w] for w in leaf.parsed_view.waveforms], leaf))
            for i in range(N + M)
        ]
        embedded.append(np.stack(each).astype(np.float32))
    backends = [
        fit(z[:N], is_target, attributes=SPEEDS, **vars(r.backend))
        for z, r in zip(embedded, leaves(recipe), strict=True)
    ]
    train = [backend.train_scores for backend in backends]
    system = build(recipe, iter(train), iter(train))
    scores = [backend.score(z[N:]) for backend, z in zip(backends, embedded, strict=True)]
    return system.own, system.combine(iter(scores))[0]


def close(found, expected, recipe):
    for mine, theirs in zip(found, expected, strict=True):
        rtol, spread = 1e-5, np.std(theirs)
        if recipe.method in ("varmin", "domain_z"):  # a difference of rounded distances, which are larger than it
            spread = np.ptp(theirs) + 1e-3
        if recipe.method == "domain_z":  # a small sigma is rounded too, and it makes all scores large
            rtol = rtol * max(1, np.abs(theirs).max() / 10)
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=1e-5 * spread, err_msg=str(recipe))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_scores_of_any_configuration_are_the_detectors(data):
    seed = data.draw(st.integers(0, 5))
    setting = data.draw(st.sampled_from(SETTINGS))
    view = data.draw(st.sampled_from(list(SPACE.plan[setting])))
    switches = data.draw(st.sampled_from(SPACE.plan[setting][view]))
    recipe = Recipe(view=view, **vars(setting), **vars(switches))
    waveforms = sorted({w for leaf in leaves(recipe) for w in leaf.parsed_view.waveforms})
    silent = recipe.method != "varmin" and data.draw(st.booleans())  # VarMin asks which of them is the nearest
    grids = toy_grids(waveforms, seed=seed, duplicates=data.draw(st.booleans()), silent=silent)
    is_target = np.arange(N) >= N - data.draw(st.sampled_from([0, 1, 3, TARGETS]))
    pooled = {w: np.stack([pool.pool_many(grids[str(i), w], [setting])[0] for i in range(N + M)]) for w in waveforms}
    close(score_all([recipe], pooled, is_target, np.array(SPEEDS))[0][0], slow(recipe, grids, is_target), recipe)


@pytest.mark.parametrize("freq", ["concat", "beam"])
def test_what_configurations_share_changes_none_of_them(freq):
    grids = toy_grids(["near", "far"], silent=True)
    setting = space.Setting(freq=freq)
    clips = [{w: pool.pool_many(grids[str(i), w], [setting])[0] for w in ("near", "far")} for i in range(N + M)]
    vectors = {w: np.stack([clip[w] for clip in clips]) for w in ("near", "far")}
    every = dict.fromkeys(s for views in SPACE.plan.values() for backends in views.values() for s in backends)
    recipes = [Recipe(view=view, **vars(setting), **vars(s)) for view in ("near_only", "n_f") for s in every]
    is_target = np.arange(N) >= N - TARGETS
    together, _ = score_all(recipes, vectors, is_target, np.array(SPEEDS))
    for recipe, found in zip(recipes, together, strict=True):
        alone = score_all([recipe], vectors, is_target, np.array(SPEEDS))[0][0]
        for mine, theirs in zip(found, alone, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=str(recipe))


def test_settings_that_share_a_read_pool_as_they_would_alone():
    grid = np.random.default_rng(0).normal(size=(13, 3, 7)).astype(np.float32)
    for freq in ("concat", "mean", "bands"):
        chosen = [replace(s, freq=freq) for s in SETTINGS if s.freq == "concat"]
        for s, vector in zip(chosen, pool.pool_many(grid, chosen), strict=True):
            expected = vectors.pool([grid], Recipe(**vars(s)))[0]
            np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=3e-6, atol=1e-7)


def test_a_power_of_nine_neither_vanishes_nor_overflows():
    for scale in (1e-30, 1e-5, 1e5, 1e30):
        grid = scale * np.random.default_rng(0).uniform(0.1, 1, size=(6, 1, 4)).astype(np.float32)
        s = space.Setting(pooling="gem", p=9.0)
        expected = vectors.pool([grid], Recipe(pooling="gem", p=9.0))[0].astype(np.float64)
        np.testing.assert_allclose(pool.pool_many(grid, [s])[0], expected / np.linalg.norm(expected), rtol=1e-5)


def test_of_beam_every_frequency_row_is_a_unit_vector():
    grid = np.random.default_rng(0).normal(size=(13, 3, 7)).astype(np.float32)
    chosen = [replace(s, freq="beam") for s in SETTINGS if s.freq == "concat"]
    for s, vector in zip(chosen, pool.pool_many(grid, chosen), strict=True):
        expected = vectors.pool([grid], Recipe(**vars(s)))[0]
        assert expected.shape == (3, 2 if s.pooling == "burst" else 7)
        length = np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(vector, expected / np.where(length, length, 1), rtol=3e-6, atol=1e-7)


def test_halves_are_every_other_clip_of_each_domain():
    rng = np.random.default_rng(0)
    squared = rng.uniform(size=(9, 9))
    np.fill_diagonal(squared, np.inf)
    is_target = np.arange(9) >= 6
    first, second = score.to_halves(squared, is_target)
    np.testing.assert_array_equal(first, np.sqrt(squared[:, [0, 2, 4, 6, 8]].min(axis=1)))
    np.testing.assert_array_equal(second, np.sqrt(squared[:, [1, 3, 5, 7]].min(axis=1)))


def test_a_bank_whose_halves_agree_is_stable():
    rng = np.random.default_rng(1)
    far = rng.uniform(0.01, 0.3, size=(42, 1))  # some clips are far from all of the others, whichever half these are in
    grid = rng.normal(size=(42, 30))
    vectors = {"near": np.eye(30)[0] + far * grid, "far": rng.normal(size=(42, 30))}
    unit = {name: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for name, x in vectors.items()}
    clips = records.TestSet([], ["0", "1"], [None] * 2, [None] * 2)
    found = [
        score.score_setting([Recipe(view=view)], unit, np.zeros(40, bool), clips).statistics[0, -1]
        for view in ("near_only", "far_only")
    ]
    assert found[0] > 0.6 > found[1]


def test_near_duplicates_are_measured_directly_and_duplicates_are_at_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 50))
    x[1] = x[0] + 1e-6 * rng.normal(size=50)
    x[5] = x[2]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    d = distances.squared_distances(x, 5)
    exact = ((x[:, None].astype(np.float64) - x[None, :5]) ** 2).sum(axis=-1)
    assert d[5, 2] == 0 and np.isinf(d[np.arange(5), np.arange(5)]).all()
    np.testing.assert_allclose(d[~np.isinf(d)], exact[~np.isinf(d)], rtol=1e-6)


@pytest.mark.slow
def test_the_reports_grid_is_the_size_that_it_has():
    assert len(space.space()) == 7 * 6 * 24 * 26 == 26_208
    assert len(space.space(freqs=("mean", "concat"))) == 2 * 26_208
    some = space.space(views=["near_only"], poolings=["mean"], methods=["raw"])
    assert {(r.view, r.pooling, r.method) for r in some.configurations("logmel")} == {("near_only", "mean", "raw")}
    with pytest.raises(ValueError, match=r"choose one of: .*near_only"):
        space.space(views=["near"])
    every = list(space.space(extended=True).configurations("logmel"))
    assert len(every) == len(set(every)) and set(space.space().configurations("logmel")) <= set(every)


def recordings(tmp_path, count, prefix, **kinds):
    out = []
    for i in range(count):
        clip = hum(1000 * len(prefix) + i, fault=kinds.get("fault", ""), seconds=1.0)
        path = write_wav(tmp_path / f"{prefix}_{i}.wav", clip)
        out.append(Recording(path, path.name, "m", kinds["split"], i >= count - 3, bool(kinds.get("fault"))))
    return out


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    train = recordings(folder, 14, "train", split="train")
    normal, knock = (
        recordings(folder, 5, "n", split="test"),
        recordings(folder, 5, "knock", split="test", fault="knock"),
    )
    return run.MachineClips("m", train, [*normal, *knock])


@pytest.mark.parametrize("encoder", ["logmel", pytest.param("ced-tiny", marks=pytest.mark.slow)])
def test_recorded_scores_are_those_of_the_detector_on_the_files(machine, encoder, tmp_path):
    weights = None
    if encoder == "ced-tiny":
        pytest.importorskip("torch")
        weights = write_ced_tiny(tmp_path / "weights")
    few = space.space(poolings=["mean", "rdp_gem"], views=["near_only", "absdif_0.5", "sfsoft_a05f07"])
    few = space.Space({s: few.plan[s] for s in list(few.plan)[:: len(few.plan) // 4]})
    library = CachedEncoders({encoder: load(encoder, weights)})
    assert not run.search_machine(run.plan(machine, few, encoder, tmp_path / "out"), library)
    found = records.read(tmp_path / "out")
    refused = found.refused.get("m", [])
    assert len(found) + len(refused) == len(few) and found.labelled
    paths, domains = [r.path for r in machine.train], [bool(r.is_target) for r in machine.train]
    assert (np.ptp(found.aligned(range(len(found)), "m"), axis=1) > 0).all()
    rng = np.random.default_rng(0)
    for recipe in refused[:1]:
        with pytest.raises(ValueError, match="gives the same vector for all 14 recordings"):
            Detector(recipe, weights).fit(paths, domains)
    for row in rng.choice(len(found), 6, replace=False):
        detector = Detector(found.recipes[row], weights).fit(paths, domains)
        expected = [s.value for s in detector.score([r.path for r in machine.test])]
        np.testing.assert_allclose(found.aligned([row], "m")[0], expected, rtol=1e-5, atol=1e-5, err_msg=str(row))


def test_nobody_listens_again_when_all_is_recorded(machine, tmp_path):
    library = CachedEncoders({"logmel": load("logmel")})
    asked = []

    class Counting:
        def grids(self, path, waveforms, layer=None):
            asked.append(path)
            return library.grids(path, waveforms, layer)

    few = space.space(poolings=["mean"], views=["near_only"], methods=["raw"])
    run.search_machine(run.plan(machine, few, "logmel", tmp_path), Counting())
    assert asked
    asked.clear()
    assert not run.search_machine(run.plan(machine, few, "logmel", tmp_path), Counting())
    assert not asked
    more = space.space(poolings=["mean"], views=["near_only"], methods=["raw", "ldn"])
    run.search_machine(run.plan(machine, more, "logmel", tmp_path), Counting())
    found = records.read(tmp_path)
    assert asked and len(found) + len(found.refused["m"]) == len(more)


def test_every_grid_is_read_once_and_a_broken_file_is_left_out_then_and_later(machine, tmp_path, monkeypatch):
    cache, read, scored = CachedEncoders({"logmel": load("logmel")}), [], []
    broken = machine.test[0].path

    class Counting:
        def grids(self, path, waveforms, layer=None):
            read.extend((path, waveform) for waveform in waveforms)
            if path == broken:
                raise ValueError("it is broken")
            return cache.grids(path, waveforms, layer)

    plain = run.score_setting
    monkeypatch.setattr(run, "score_setting", lambda *arguments: scored.append(1) or plain(*arguments))
    few = space.space(poolings=["mean", "gem"], views=["n_f"], methods=["raw"])
    failures = run.search_machine(run.plan(machine, few, "logmel", tmp_path), Counting(), memory=1 << 30)
    assert failures == {str(broken): "it is broken"}
    others = {clip.path for clip in machine.clips} - {broken}
    assert {file for file, _ in read} == others | {broken}
    assert len(read) == 1 + 2 * len(others) + 2, "the first grid's shape, and two waveforms of each clip"
    found = records.read(tmp_path)
    assert len(found) + len(found.refused["m"]) == len(few) and found.scores["m"].shape[1] == len(machine.test) - 1
    scored.clear()
    assert run.search_machine(run.plan(machine, few, "logmel", tmp_path), Counting()) == failures
    assert not scored, "what is recorded for the clips that are left is not scored again"
    late = space.space(poolings=["mean"], views=["near_only"], methods=["raw"])
    run.search_machine(run.plan(machine, late, "logmel", tmp_path / "late"), cache)
    with pytest.raises(ValueError, match="machine 'm': it is broken"):  # other results were recorded with that clip
        run.search_machine(run.plan(machine, few, "logmel", tmp_path / "late"), Counting())


def test_a_machine_without_enough_clips_is_refused_before_a_grid_is_read(machine, tmp_path):
    few = space.space(poolings=["mean"], views=["near_only"], methods=["raw"])
    with pytest.raises(ValueError, match="1 usable normals and 10 test clips"):
        run.plan(replace(machine, train=machine.train[:1]), few, "logmel", tmp_path)
    shapes = toy_grids(["near"], count=2, duplicates=False)
    shapes["1", "near"] = shapes["1", "near"][..., :3]
    clips = [Recording(Path(str(i)), str(i)) for i in range(2)]
    with pytest.raises(ValueError, match="another shape"):
        pool.pool_clips(clips, Memory(shapes), [space.Setting()], ["near"])


@pytest.mark.slow
def test_layers_and_beam_are_recorded_as_the_detector_scores_them(machine, tmp_path):
    pytest.importorskip("torch")
    weights = write_ced_tiny(tmp_path / "weights")
    wanted = {"views": ["near_only", "n_f"], "poolings": ["rdp"], "methods": ["ldn", "varmin"]}
    few = space.space(extended=True, freqs=["concat", "beam"], layers=[3, None], **wanted)
    kept = [s for s in few.plan if s.low is s.spike is None and s.alpha in (8, 9) and s.freq != "bands"]
    chosen = space.Space({s: few.plan[s] for s in kept})
    assert {(s.freq, s.layer) for s in chosen.plan} == {(f, n) for f in ("concat", "beam") for n in (3, None)}
    encoder = load("ced-tiny", weights)
    passes = []
    grid = encoder.grid
    encoder.grid = lambda waves, **layers: passes.extend(waves) or grid(waves, **layers)
    library = CachedEncoders({"ced-tiny": encoder}, Store(tmp_path / "store", "float32"), layers=[3, None])
    run.search_machine(run.plan(machine, chosen, "ced-tiny", tmp_path / "out"), library)
    assert len(passes) == 2 * 24, "both layers come out of one pass of each waveform"
    found = records.read(tmp_path / "out")
    assert len(found) == len(chosen)
    paths, domains = [r.path for r in machine.train], [bool(r.is_target) for r in machine.train]
    rows = {(r.freq, r.layer, r.method): row for row, r in enumerate(found.recipes)}  # the last of each
    for row in rows.values():
        detector = Detector(found.recipes[row], weights).fit(paths, domains)
        expected = [s.value for s in detector.score([r.path for r in machine.test])]
        np.testing.assert_allclose(found.aligned([row], "m")[0], expected, rtol=1e-5, atol=1e-5, err_msg=str(row))


def test_zmin_is_left_out_where_its_leave_one_out_takes_too_long(demo_set, tmp_path, monkeypatch):
    wanted = space.space(extended=True, views=["near_only"], poolings=["mean"], methods=["zmin", "pca"])
    monkeypatch.setattr(run, "MOST_FOR_ZMIN", 10)
    found = run.search(demo_set, ["logmel"], tmp_path, wanted)
    assert {r.method for r in found.records.recipes} == {"pca"} and len(found.records) == len(wanted) - 1
    assert any("zmin is skipped" in note for note in found.notes)


def test_an_average_of_layers_is_searched_as_the_detector_scores_it(machine, tmp_path):
    pytest.importorskip("torch")
    weights = write_ced_tiny(tmp_path / "weights")
    recipe = Recipe(encoder="ced-tiny", layer=(3, 12), freq="mean", method="ldn")
    library = CachedEncoders({"ced-tiny": load("ced-tiny", weights)}, Store(tmp_path / "store"))
    run.search_machine(run.plan(machine, space.space_of([recipe]), "ced-tiny", tmp_path / "out"), library)
    found = records.read(tmp_path / "out")
    assert list(found.recipes) == [recipe]
    detector = Detector(recipe, weights, calibration="clips").fit(
        [r.path for r in machine.train], [bool(r.is_target) for r in machine.train]
    )
    expected = [s.value for s in detector.score([r.path for r in machine.test])]
    np.testing.assert_allclose(found.aligned([0], "m")[0], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="fuses layers"):
        space.space_of([replace(recipe, layer_rule="fuse")])


def test_configurations_without_a_difference_are_refused_as_by_evaluate(demo_set, tmp_path):
    flat, heard = Recipe(pooling="mean", low=1000.0), Recipe(pooling="mean")
    both = space.space_of([flat, heard])
    found = run.search(demo_set, ["logmel"], tmp_path / "both", both)
    assert list(found.records.recipes) == [heard]
    assert len(found.records.refused) == 2 and all(recipes == [flat] for recipes in found.records.refused.values())
    assert sum("1 configuration refused, as all normals have the same vector" in note for note in found.notes) == 2
    again = run.search(demo_set, ["logmel"], tmp_path / "both", both)
    assert again.records.refused == found.records.refused and list(again.records.recipes) == [heard]
    with pytest.raises(ValueError, match="a vector of zeros for all"):
        evaluate(demo_set, flat, rounds=1)
    for recipes in ([flat], [flat, heard]):
        with pytest.raises(ValueError, match="all normals have the same vector"):
            run.search_recipes(demo_set, recipes, tmp_path / str(len(recipes)), None)


def test_a_clip_that_a_detector_hears_in_windows_is_left_out(demo_set, tmp_path):
    from nearfar.challenge.data import layout

    data = tmp_path / "data"
    shutil.copytree(demo_set, data)
    test = layout.read(data).units[0].test[0].path
    x, rate = soundfile.read(test)
    soundfile.write(test, np.concatenate([x, x]), rate)
    few = space.space(views=["near_only"], poolings=["mean"], methods=["raw"])
    found = run.search(data, ["logmel"], tmp_path / "out", few)
    assert list(found.failures) == [str(test)]
    assert (
        "lasts 2 s, and the normals 1 s: from 1.5 times that on a clip is scored in windows"
        in found.failures[str(test)]
    )
    whole = Detector(Recipe()).fit([r.path for r in layout.read(data).units[0].train])
    assert len(whole.score([test])) == 2
