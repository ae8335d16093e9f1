"""Banks by attribute: against brute force, in detectors, on disk, in the commands and in the search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nearfar
import oracles
from commands import nearfar as run
from conftest import hum, write_wav
from nearfar import backend
from nearfar.challenge import evaluate as bench
from nearfar.challenge.search import run as searching
from nearfar.challenge.search.score import score_all
from nearfar.challenge.search.space import space
from nearfar.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:method .* compares two domains", "ignore:all normals have the attr")

CASES = {
    "raw": {"method": "raw"},
    "raw k3": {"method": "raw", "k": 3, "metric": "euclidean"},
    "ldn": {"method": "ldn", "density_k": 2, "metric": "euclidean"},
    "ldn auto": {"method": "ldn", "density_k": "auto"},
    "varmin": {"method": "varmin", "metric": "euclidean"},
    "domain_z": {"method": "domain_z", "metric": "euclidean"},
    "dldn": {"method": "dldn"},
    "mahalanobis": {"method": "mahalanobis"},
    "pca": {"method": "pca"},
    "zmin": {"method": "zmin"},
    "kmeans": {"method": "kmeans", "clusters": 2},
    "ldn whitened": {"method": "ldn", "whiten": True, "metric": "euclidean"},
}
# How many normals each attribute has; "" has none.
COUNTS = {
    "three large": {"a": 7, "b": 6, "c": 8},
    "a rare one joins the next rare": {"a": 7, "b": 1, "c": 5},
    "rare ones share": {"a": 8, "b": 2, "c": 1, "d": 2},
    "just enough": {"a": 4, "b": 3, "c": 5, "d": 2},
    "some without": {"": 5, "a": 6, "b": 2},
    "one without": {"": 1, "a": 6, "b": 6},
    "only rare ones": {"a": 1, "b": 1, "c": 2, "d": 1},
    "one": {"a": 6},
}


def normals(counts: dict[str, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    attributes = rng.permutation([name for name, count in counts.items() for _ in range(count)])
    centres = {name: 4 * rng.normal(size=4) for name in counts}
    z = np.stack([centres[name] + rng.normal(size=4) for name in attributes]) + 5
    return z, rng.random(len(z)) < 0.3, attributes.tolist()


def fewest(method: str = "raw", whiten: bool = False, **_: object) -> int:
    return 4 if whiten else {"ldn": 3, "dldn": 3, "domain_z": 4, "mahalanobis": 4, "zmin": 4}.get(method, 2)


def oracle(q, z, is_target, attributes, *, whiten=False, **case) -> float:
    """The smallest score by the banks of the attributes, each made by brute force."""
    if whiten:
        q, z = oracles.whiten(q, z)[0], oracles.whiten(z, z)
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(attributes):
        groups.setdefault(name, []).append(i)
    least = fewest(whiten=whiten, **case)
    shared = groups.pop("", [])
    for name in [n for n, rows in groups.items() if len(rows) < least]:
        shared = shared + groups.pop(name)
    if shared and len(shared) < least and groups:
        shared = shared + groups.pop(min(sorted(groups), key=lambda n: len(groups[n])))
    banks = [sorted(rows) for rows in [shared, *groups.values()] if rows]
    return min(oracles.score(q, z[rows], is_target[rows], **case) for rows in banks)


def leave_one_out(z, is_target, attributes, **case) -> list[float]:
    out = []
    for i in range(len(z)):
        rest = [j for j in range(len(z)) if j != i]
        out.append(oracle(z[i], z[rest], is_target[rest], [attributes[j] for j in rest], **case))
    return out


def agree(got, want) -> None:
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=5e-5, atol=5e-6 * max(1e-3, float(np.median(np.abs(want)))))


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("case", CASES)
def test_scores_and_leave_one_out_are_those_of_the_definition(case: str, counts: str) -> None:
    z, is_target, attributes = normals(COUNTS[counts])
    fitted = backend.fit(z, is_target, attributes=attributes, banks="attribute", **CASES[case])
    q = np.concatenate([z[:2] + 0.3, np.random.default_rng(5).normal(size=(3, 4)) * 6 + 5])
    agree(fitted.score(q), [oracle(x, z, is_target, attributes, **CASES[case]) for x in q])
    agree(fitted.train_scores, leave_one_out(z, is_target, attributes, **CASES[case]))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["raw k3", "ldn", "domain_z", "mahalanobis"]),
    st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=6, max_size=16).filter(lambda names: set(names) != {""}),
    st.integers(0, 99),
)
def test_any_attributes_give_exact_leave_one_out_whatever_the_order(case: str, names: list[str], seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(len(names), 3)) + 2
    options = {"banks": "attribute", **CASES[case]}
    own = backend.fit(z, attributes=names, **options).train_scores
    none = np.zeros(len(z), bool)
    agree(own, leave_one_out(z, none, names, **CASES[case]))
    order = np.random.default_rng(seed).permutation(len(z))
    moved = backend.fit(z[order], attributes=[names[i] for i in order], **options)
    np.testing.assert_allclose(moved.train_scores, own[order], rtol=1e-5, atol=1e-6)


def test_with_the_nearest_normal_alone_the_banks_are_one_and_bands_are_averaged() -> None:
    z, is_target, attributes = normals(COUNTS["three large"])
    q = z[:5] + 0.2
    by_attribute = backend.fit(z, attributes=attributes, banks="attribute")
    np.testing.assert_allclose(by_attribute.score(q), backend.fit(z).score(q), rtol=1e-6)
    np.testing.assert_allclose(by_attribute.train_scores, backend.fit(z).train_scores, rtol=1e-6)
    scores, _, index = by_attribute.score_with_nearest(q.astype(np.float32), 2)
    np.testing.assert_array_equal(scores, by_attribute.score(q.astype(np.float32)))
    np.testing.assert_array_equal(index, by_attribute.nearest(q.astype(np.float32), 2)[1])
    options = {"attributes": attributes, "banks": "attribute", "method": "ldn", "density_k": 2}
    beam = backend.fit(z.reshape(len(z), 2, 2), is_target, **options)
    bands = [backend.fit(z[:, f : f + 2], is_target, **options) for f in (0, 2)]
    np.testing.assert_allclose(beam.train_scores, np.mean([b.train_scores for b in bands], axis=0), rtol=1e-6)


def test_relatives_are_left_out_of_their_banks() -> None:
    z, is_target, attributes = normals(COUNTS["just enough"])
    options = {"banks": "attribute", "method": "ldn", "density_k": 2, "metric": "euclidean"}
    related = np.eye(len(z), dtype=bool)
    related[:3, :3] = True
    rest = np.arange(3, len(z))
    names = [attributes[i] for i in rest]
    want = [oracle(x, z[rest], is_target[rest], names, method="ldn", density_k=2, metric="euclidean") for x in z[:3]]
    fitted = backend.fit(z, is_target, attributes=attributes, **options)
    agree(fitted.scores_excluding(related)[:3], want)
    np.testing.assert_array_equal(fitted.scores_excluding(related)[3:], fitted.train_scores[3:])


def test_attributes_are_needed_and_counted() -> None:
    z = normals({"a": 6})[0]
    for none in (None, [""] * 6):
        with pytest.raises(ValueError, match=r"none of these 6 has one: file names such as .*_spd_1\.wav"):
            backend.fit(z, attributes=none, banks="attribute")
    with pytest.raises(ValueError, match="attributes holds 2 texts for 6 normals"):
        backend.fit(z, attributes=["a", "b"])
    with pytest.warns(UserWarning, match="all normals have the attribute 'a'"):
        backend.fit(z, attributes=["a"] * 6, banks="attribute")
    with pytest.raises(ValueError, match="unknown banks 'speed'"):
        Recipe(banks="speed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fan that runs at two speeds, and a pump without attributes whose test clips are of the same kinds."""
    top = tmp_path_factory.mktemp("attributes") / "data"
    for machine in ("fan", "pump"):
        for i in range(12):
            domain, speed = "target" if i > 9 else "source", f"spd_{1 + i % 2}" if machine == "fan" else "noAttribute"
            clip = hum(i, seconds=0.5)
            clip = replace(clip, near=clip.near * (1 + i % 2))
            write_wav(top / f"{machine}/train/section_00_{domain}_train_normal_{i:04d}_{speed}.wav", clip)
        for i, label in enumerate(["normal", "anomaly"] * 4):
            domain = "source" if i < 4 else "target"
            clip = hum(50 + i, fault="hiss" if label == "anomaly" else "", seconds=0.5)
            write_wav(top / f"{machine}/test/section_00_{domain}_test_{label}_{i:04d}.wav", clip)
    return top


RECIPE = Recipe(encoder="logmel", pooling="mean", method="ldn", density_k=2, banks="attribute")


def test_a_detector_reads_the_attributes_of_its_normals_and_keeps_them(data: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning):
        detector = nearfar.Detector(RECIPE, calibration="clips").fit(data / "fan", copies=True)
    assert [n.attributes for n in detector.normals] == ["spd_1", "spd_2"] * 6
    (fitted,) = detector.backends
    want = leave_one_out(fitted.z, detector.is_target, list(fitted.attributes), method="ldn", density_k=2)
    agree(fitted.train_scores, want)
    test = sorted((data / "fan/test").iterdir())
    before = [s.score for s in detector.score(test)]
    detector.save(tmp_path / "model")
    assert (tmp_path / "model/normals.csv").read_text().splitlines()[1].endswith(",spd_1")
    again = nearfar.load(tmp_path / "model")
    assert [s.score for s in again.score(test)] == before
    assert [n.attributes for n in again.select(range(1, 12)).normals][:2] == ["spd_2", "spd_1"]
    more = write_wav(tmp_path / "section_00_source_train_normal_0099_spd_3.wav", hum(99, seconds=0.5))
    assert again.add([more]).normals[-1].attributes == "spd_3"
    joint = nearfar.Detector(replace(RECIPE, banks="joint"), calibration="clips").fit(data / "fan", copies=True)
    assert [s.score for s in joint.score(test)] != before
    joint.save(tmp_path / "joint")
    assert "attributes" not in (tmp_path / "joint/normals.csv").read_text().splitlines()[0]


def test_a_table_beside_the_folders_gives_the_attributes_that_names_lack(data: Path, tmp_path: Path) -> None:
    for i in range(8):
        write_wav(tmp_path / f"fan/train/section_00_source_train_normal_{i:04d}.wav", hum(i, seconds=0.5))
    rows = [f"fan/train/section_00_source_train_normal_{i:04d}.wav,spd,{i % 2}" for i in range(8)]
    (tmp_path / "fan/attributes_00.csv").write_text("\n".join(["file_name,d1p,d1v", *rows]))
    detector = nearfar.Detector(RECIPE).fit(tmp_path / "fan/train")
    assert [n.attributes for n in detector.normals] == ["spd_0", "spd_1"] * 4
    assert len(detector.groups) == 8, "normals are measured without their relatives, as with one bank"


def test_the_commands_take_banks_by_attribute_and_say_where_a_machine_has_none(data: Path, tmp_path: Path) -> None:
    options = ["--recipe", "logmel-floor", "--set", "method=ldn", "--set", "banks=attribute", "--json"]
    code, out, err = run("evaluate", data, *options, "--rounds", 1)
    found = json.loads(out)["machines"]
    assert code == 2 and found["fan"]["result"] and not found["fan"]["error"]
    assert "none of these 12 has one" in found["pump"]["error"], err
    code, out, err = run("vectors", data / "fan", *options[:-1], "-o", tmp_path / "x.npz")
    assert code == 0, err
    x = np.load(tmp_path / "x.npz")
    train = x["splits"] == "train"
    assert list(x["attributes"][train]) == ["spd_1", "spd_2"] * 6
    want = leave_one_out(
        x["vectors"][train], x["domains"][train] == "target", list(x["attributes"][train]), method="ldn"
    )
    agree(x["train_scores"][train], want)


def test_the_search_scores_banks_by_attribute_as_a_detector_does(data: Path, tmp_path: Path) -> None:
    few = space(extended=True, views=("near_only",), poolings=("mean",), methods=("attribute", "raw"))
    found = searching.search(data / "fan", ["logmel"], tmp_path / "fan", few)
    names = [r.attributes for r in sorted(bench.read(data / "fan").units[0].train, key=lambda r: r.name)]
    assert names == ["spd_1", "spd_2"] * 6
    rows = [i for i, r in enumerate(found.records.recipes) if r.banks == "attribute" and r.low is r.spike is None]
    assert {found.records.recipes[i].method for i in rows} == {"ldn", "domain_z", "mahalanobis"}
    for i in rows:
        result = bench.evaluate(data / "fan", found.records.recipes[i], rounds=1)
        want = [s.score for s in result.machines[0].scores]
        np.testing.assert_allclose(found.records.aligned([i], "fan")[0], want, rtol=1e-3, atol=1e-3)
    both = searching.search(data, ["logmel"], tmp_path / "both", few)
    assert all(r.banks == "joint" for r in both.records.recipes)
    assert any(note.startswith("pump: the names of the normals have no attributes") for note in both.notes)
    pair = [replace(RECIPE, banks="joint"), RECIPE]
    with pytest.raises(ValueError, match="pump: the names of the normals have no attributes"):
        searching.search_recipes(data, pair, tmp_path / "pair", None)
    records = searching.search_recipes(data / "fan", pair, tmp_path / "pair of fan", None)
    assert set(records.recipes) == set(pair)
    with pytest.raises(ValueError, match="nothing of the search space is left: pump: the names"):
        searching.search_recipes(data, [replace(RECIPE, normalize=True)], tmp_path / "own", None)


def test_the_search_s_distances_give_the_scores_of_the_definition() -> None:
    z, is_target, attributes = normals(COUNTS["just enough"], seed=3)
    unit = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    q = unit[:4] + np.float32(0.05)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    names = [case for case in CASES if case not in ("ldn auto", "kmeans", "zmin")]
    recipes = [Recipe(view="near_only", banks="attribute", **CASES[case]) for case in names]
    scores, _ = score_all(recipes, {"near": np.concatenate([unit, q])}, is_target, np.array(attributes))
    for case, (own, new) in zip(names, scores, strict=True):
        np.testing.assert_allclose(own, leave_one_out(unit, is_target, attributes, **CASES[case]), rtol=2e-3, atol=2e-4)
        want = [oracle(x, unit, is_target, attributes, **CASES[case]) for x in q]
        np.testing.assert_allclose(new, want, rtol=2e-3, atol=2e-4)
