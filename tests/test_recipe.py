"""Recipes: the report's systems as data, JSON there and back, and answers to wrong keys and values."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar import backend, bank
from nearfar.encoders import FREQS, names
from nearfar.pooling import POOLINGS, pool
from nearfar.recipe import (
    BASELINE,
    BEAM,
    FUSION,
    NAMED,
    SOFT_MASKS,
    SPACE,
    TABLE_3,
    WAVE_VIEWS,
    Fusion,
    Recipe,
    Watch,
    by_name,
    from_json,
    leaves,
    parse_view,
)
from nearfar.views import VIEWS

counts, rates = st.integers(1, 50), st.floats(0, 1)
recipes = st.builds(
    Recipe,
    encoder=st.sampled_from(names()),
    view=st.sampled_from([*VIEWS, *WAVE_VIEWS]),
    low=st.none() | st.floats(-1, 0.2),
    spike=st.none() | st.floats(0.3, 2),
    pooling=st.sampled_from(sorted(POOLINGS)),
    alpha=st.floats(0, 30) | counts,
    p=st.floats(0.1, 10),
    freq=st.sampled_from([*FREQS, BEAM]),
    normalize=st.booleans(),
    method=st.sampled_from(sorted(backend.METHODS)),
    metric=st.sampled_from(bank.METRICS),
    k=counts,
    density_k=st.none() | counts,
    density_k_source=st.none() | counts,
    density_k_target=st.none() | counts,
    density_agg=st.sampled_from(["mean", "sum"]),
    neighbour_selection=st.sampled_from(["normalized", "raw"]),
    form=st.sampled_from(["ratio", "difference"]),
    exponent=rates,
    z_sigma=st.sampled_from(["target", "own"]),
    weight=rates,
    shrinkage=st.just("ledoit_wolf") | rates,
    standardize=st.booleans(),
    whiten=st.booleans(),
)
systems = st.recursive(
    recipes,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Fusion(tuple((1 / len(parts), s) for s in parts)))
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda parts: Watch(tuple((f"part {i}", 1 / len(parts), s) for i, s in enumerate(parts)))
        )
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(systems)
def test_every_system_goes_to_json_and_back(system):
    text = system.to_json()
    assert from_json(text) == system
    assert Recipe.from_json(text) == Fusion.from_json(text) == Watch.from_json(text) == system
    assert from_json(text).to_json() == text


def broken(**changes):
    return json.dumps({**json.loads(Recipe().to_json()), **changes})


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"encodr": "beats"}, "known: .*encoder.*view"),
        ({"encoder": "vggish"}, "choose one of: logmel, eat-large"),
        ({"view": "both"}, "choose one of: near_only"),
        ({"pooling": "max"}, "choose one of: mean, gem, rdp, rdp_gem"),
        ({"freq": "all"}, "choose one of: concat, mean, bands, beam"),
        ({"method": "lof"}, "choose one of: raw, ldn"),
        ({"metric": "manhattan"}, "choose one of: cosine, euclidean"),
        ({"form": "product"}, "choose one of: ratio, difference"),
        ({"density_agg": "max"}, "choose one of: mean, sum"),
        ({"neighbour_selection": "all"}, "choose one of: normalized, raw"),
        ({"z_sigma": "source"}, "choose one of: target, own"),
        ({"metric": ["cosine"]}, "choose one of: cosine, euclidean"),
        ({"metric": None}, "choose one of: cosine, euclidean"),
        ({"k": 0}, "k must be a whole number >= 1"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"k": "3"}, "k must be a whole number"),
        ({"k": None}, "k must be a whole number"),
        ({"k": float("inf")}, "k must be a whole number"),
        ({"k": 10**400}, "k must be a whole number"),
        ({"density_k": -1}, "density_k must be a whole number"),
        ({"p": 0}, "p must be > 0"),
        ({"p": float("nan")}, "p must be a finite number"),
        ({"p": [3]}, "p must be a finite number"),
        ({"alpha": -1}, "alpha must be >= 0"),
        ({"weight": 1.5}, "weight must be >= 0 and <= 1"),
        ({"exponent": "1"}, "exponent must be a finite number"),
        ({"shrinkage": "oas"}, "shrinkage must be"),
        ({"shrinkage": 2}, "shrinkage must be >= 0 and <= 1"),
        ({"low": 0.3, "spike": 0.2}, "spike must be > 0.3"),
        ({"low": "a"}, "low must be a finite number"),
        ({"normalize": "no"}, "normalize must be True or False"),
        ({"whiten": 1}, "whiten must be True or False"),
        ({"standardize": None}, "standardize must be True or False"),
        ({"recipe": 2}, "version-1"),
        ({"fusion": 1}, "exactly one of the keys"),
    ],
)
def test_a_wrong_key_or_value_is_answered_with_what_is_right(changes, answer):
    with pytest.raises(ValueError, match=answer):
        Recipe.from_json(broken(**changes))


def test_a_recipe_written_by_hand_needs_no_version():
    assert from_json('{"view": "n_f", "k": 3}') == Recipe(view="n_f", k=3)
    with pytest.raises(ValueError, match=r"unknown recipe keys \['vew'\]; known: .*view"):
        from_json('{"vew": "n_f"}')
    with pytest.raises(ValueError, match="version-1"):
        from_json('{"parts": []}')


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "3", "[]", '"raw"', "{}",
        '{"fusion": 1}', '{"fusion": 1, "parts": []}', '{"fusion": 1, "parts": 3}',
        '{"fusion": 1, "parts": [3]}', '{"fusion": 1, "parts": [{"weight": 1}]}', '{"fusion": 1, "parts": null}',
        '{"fusion": 1, "parts": [{"weight": 0.5, "system": {"recipe": 1}}]}',
        '{"fusion": 1, "parts": [{"weight": NaN, "system": {"recipe": 1}}]}',
        '{"fusion": 1, "parts": [{"weight": "all", "system": {"recipe": 1}}]}',
        '{"fusion": 1, "parts": [{"weight": 1, "system": {"recipe": 1}, "share": 1}]}',
        '{"fusion": 1, "parts": [{"weight": 1, "system": {"recipe": 1, "K": 1}}]}',
        '{"watch": 1, "parts": [{"name": "a", "share": 2, "system": {"recipe": 1}}]}',
        '{"watch": 1, "parts": [{"name": "a", "share": 0, "system": {"recipe": 1}}, '
        '{"name": "b", "share": 1, "system": {"recipe": 1}}]}',
    ],
)  # fmt: skip
def test_damaged_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        from_json(text)


def test_a_short_recipe_takes_the_defaults_and_whole_numbers_may_be_written_as_floats():
    assert from_json('{"recipe": 1}') == Recipe()
    assert from_json('{"recipe": 1, "method": "domain_z", "k": 3.0}').k == 3
    read = from_json('{"recipe": 1, "encoder": "beats", "layer": 7.0, "k": 3.0}')
    assert isinstance(read.k, int) and isinstance(read.layer, int)


def test_table_3_holds_the_report_s_eight_rows():
    rows = {  # encoder: view, pooling, alpha, p, metric, table's k, calibration (Table 3); low, spike (section 4.4)
        "eat-large": ("near_only", "rdp_gem", 1, 3, "cosine", 1, "raw", 0.15, 0.3),
        "dasheng": ("sfsoft_a05f07", "rdp", 20, None, "euclidean", 3, "ldn", None, None),
        "openl3": ("sfsoft_a03f05", "gem", None, 9, "cosine", 3, "ldn", None, None),
        "eat-as2m": ("near_only", "rdp_gem", 1, 3, "euclidean", 1, "raw", 0.15, 0.3),
        "sslam": ("absdif_0.5", "rdp_gem", 9, 3, "cosine", 5, "ldn", None, None),
        "ced-base": ("sfsoft_a05f07", "rdp_gem", 9, 3, "cosine", 20, "ldn", None, None),
        "m2d-clap": ("sfsoft_a05f07", "rdp_gem", 9, 3, "cosine", 20, "ldn", None, None),
        "beats": ("n_0.5f", "rdp", 19, None, "cosine", 3, "ldn", None, None),
    }
    assert list(TABLE_3) == list(rows)
    for name, (view, pooling, alpha, p, metric, k, method, low, spike) in rows.items():
        r = TABLE_3[name]
        assert (r.encoder, r.view, r.pooling, r.metric, r.method, r.low, r.spike) == (
            name, view, pooling, metric, method, low, spike
        )  # fmt: skip
        assert alpha is None or r.alpha == alpha
        assert p is None or r.p == p
        assert r.k == 1 and (method == "raw" or r.density_k == k)  # "k = 3 LDN" is density_k = 3
        assert not r.whiten and r.normalize and r.form == "ratio" and r.neighbour_selection == "normalized"
        assert by_name(name) is r


def test_the_fusion_is_the_report_s():
    assert [(s.encoder, w) for w, s in FUSION.parts] == [
        ("eat-large", 0.55), ("dasheng", 0.20), ("sslam", 0.05), ("eat-as2m", 0.05), ("openl3", 0.15)
    ]  # fmt: skip
    assert all(system is TABLE_3[system.encoder] for _, system in FUSION.parts)
    assert by_name("fusion") is FUSION


def test_the_search_space_is_the_report_s():
    assert len(SPACE["view"]) == 7 and set(SPACE["view"]) <= {*VIEWS, *WAVE_VIEWS}
    assert len(SPACE["preprocessing"]) == 6
    a, p = len(SPACE["alpha"]), len(SPACE["p"])
    assert [{"mean": 1, "gem": p, "rdp": a, "rdp_gem": a * p}[kind] for kind in SPACE["pooling"]] == [1, 3, 5, 15]
    assert len(SPACE["metric"]) * len(SPACE["k"]) * len(SPACE["method"]) == 2 * 5 * 2
    assert SPACE["k"] == (1, 3, 5, 10, 20) and SPACE["domain_aware"] == ("domain_z", "dldn", "dbldn")
    for row in TABLE_3.values():
        assert row.view in SPACE["view"] and (row.low, row.spike) in SPACE["preprocessing"]
        assert row.pooling in SPACE["pooling"] and row.metric in SPACE["metric"] and row.method in SPACE["method"]
        assert row.method == "raw" or row.density_k in SPACE["k"]
        assert "rdp" not in row.pooling or row.alpha in SPACE["alpha"]
        assert "gem" not in row.pooling or row.p in SPACE["p"]


def test_an_sfsoft_view_stands_for_the_fusion_of_equation_13():
    for mask in SOFT_MASKS:
        recipe = Recipe(view=f"sfsoft_{mask}", method="ldn", density_k=3, pooling="rdp", alpha=20)
        assert [(w, s.view) for w, s in recipe.expand().parts] == [
            (0.6, "near_only"),
            (0.2, f"enh_{mask}"),
            (0.2, "n_f"),
        ]
        for _, part in recipe.expand().parts:  # all three share pooling and back end
            assert (part.pooling, part.alpha, part.backend) == ("rdp", 20, recipe.backend)
    assert SOFT_MASKS == {"a03f05": (0.3, 0.5), "a05f07": (0.5, 0.7)}
    assert len(list(leaves(FUSION))) == 3 + 1 + 1 + 1 + 3
    single = Recipe()
    assert single.expand() is single and list(leaves(single)) == [single]


def test_a_recipe_knows_whether_it_can_do_without_the_far_microphone():
    alone = [view for view in (*VIEWS, *WAVE_VIEWS) if not Recipe(view=view).needs_far]
    assert alone == ["near_only"]


def test_the_views_of_the_contract_are_there():
    for view in ("sfsoft_a03f05", "enh_a05f07", "w1_1024", "w1_16384", "w1w_16384", "n_f", "residual_0.5"):
        Recipe(view=view)


def test_the_back_end_s_part_of_a_recipe_is_its_switches():
    recipe = Recipe(method="dldn", density_k_target=5, k=2, weight=0.3)
    assert {f.name for f in fields(backend.BackendConfig)} <= {f.name for f in fields(Recipe)}
    assert recipe.backend == backend.BackendConfig(method="dldn", density_k_target=5, k=2, weight=0.3)


def test_every_named_system_is_complete_and_an_unknown_name_is_answered_with_the_names():
    for name, system in NAMED.items():
        if system is not None:
            assert from_json(system.to_json()) == system, name
    assert by_name("logmel-floor") is BASELINE
    with pytest.raises(ValueError, match=r"choose one of: .*eat-large"):
        by_name("eat_large")


def test_weights_and_shares_must_sum_to_one():
    for bad in ([0.5, 0.4], [1.5, -0.5], []):
        with pytest.raises(ValueError, match="weight"):
            Fusion(tuple((w, Recipe()) for w in bad))
        with pytest.raises(ValueError, match="weight"):
            Watch(tuple((str(i), w, Recipe()) for i, w in enumerate(bad)))


@pytest.mark.parametrize("names", [("a", "a"), ("", "b")])
def test_every_part_of_a_watch_has_a_name_of_its_own(names):
    with pytest.raises(ValueError, match="a name of its own"):
        Watch(tuple((name, 0.5, Recipe()) for name in names))


def test_every_pooling_a_recipe_can_name_pools():
    frames = np.random.default_rng(0).normal(size=(5, 4))
    for kind in POOLINGS:
        recipe = Recipe(pooling=kind)
        assert np.isfinite(pool(frames, recipe.pooling, p=recipe.p, alpha=recipe.alpha)).all()


def test_a_view_is_parsed_into_its_waveforms_and_the_view_of_their_embeddings():
    def parts(name):
        view = parse_view(name)
        return view.kind, view.waveform, view.pooled, view.waveforms, view.needs_far, view.alpha, view.floor, view.n_fft

    none = (None, None, None)
    assert parts("near_only") == ("plain", "near", "near_only", ("near",), False, *none)
    assert parts("far_only") == ("plain", "near", "far_only", ("near", "far"), True, *none)
    assert parts("n_0.5f") == ("plain", "near", "n_0.5f", ("near", "far"), True, *none)
    assert parts("enh_a03f05") == ("enh", "enh_a03f05", "near_only", ("enh_a03f05",), True, 0.3, 0.5, None)
    assert parts("w1i_16384") == ("w1i", "w1i_16384", "near_only", ("w1i_16384",), True, None, None, 16384)
    assert parts("noise_4096") == ("noise", "noise_4096", "near_only", ("noise_4096",), True, None, None, 4096)
    assert parts("sfsoft_a05f07")[3:] == (("near", "enh_a05f07", "far"), True, 0.5, 0.7, None)
    assert parts("near")[3:5] == (("near",), False) and parts("far")[3:5] == (("far",), True), "waveforms as recorded"


@pytest.mark.parametrize("view", [*VIEWS, *WAVE_VIEWS])
def test_a_recipe_encodes_the_waveforms_of_its_leaves(view):
    recipe = Recipe(view=view)
    assert recipe.parsed_view is parse_view(view) and recipe.parsed_view.name == view
    assert set(recipe.parsed_view.waveforms) == {w for leaf in leaves(recipe) for w in leaf.parsed_view.waveforms}
    for waveform in recipe.parsed_view.waveforms:
        assert parse_view(waveform).waveforms == (waveform,)


def test_an_unknown_view_names_the_choices():
    with pytest.raises(ValueError, match="unknown view 'enh_a1f1'; choose one of: near_only"):
        parse_view("enh_a1f1")
