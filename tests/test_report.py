"""The researcher's pages and pictures: whole in one file, true to the numbers, and there for every kind of data set."""

from __future__ import annotations

import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from PIL import Image

from conftest import hum
from datasets import dev_2021, dev_2022, evaluation_set, tree
from nearfar.audio import Clip
from nearfar.challenge.data.layout import read
from nearfar.challenge.evaluate import ScoreCache, evaluate
from nearfar.challenge.pages import pictures, published
from nearfar.challenge.pages.pictures import Bar, up_to
from nearfar.challenge.pages.report import bench_page, coherence, tables_page
from nearfar.challenge.pages.tables import reproduce
from nearfar.demo import make_dataset
from nearfar.metrics import Interval, auc, partial_auc, roc_points
from nearfar.recipe import BASELINE, Recipe
from test_cli import nearfar

LABELLED = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(LABELLED)
def test_the_curve_and_its_shaded_part_have_the_areas_that_are_printed(rows):
    s, a = np.array([v for v, _ in rows], float), np.array([label for _, label in rows])
    fpr, tpr = roc_points(s, a)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert area(fpr, tpr) == pytest.approx(auc(s, a), abs=1e-12)
    part = area(*up_to(fpr, tpr, 0.1))
    assert (1 + (part - 0.005) / (0.1 - 0.005)) / 2 == pytest.approx(partial_auc(s, a), abs=1e-12)


def area(x, y):
    return float(np.diff(x) @ (y[1:] + y[:-1]) / 2)


def test_coherence_is_one_for_the_same_sound_low_for_others_and_none_without_two_channels():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64_000)).astype(np.float32) * 0.1
    clips = [Clip(x, x, 16_000, "same"), Clip(x, y, 16_000, "other"), Clip(x, np.zeros_like(x), 16_000, "silent")]
    frequency, rows = coherence(clips)
    assert rows.shape == (3, len(frequency)) and frequency[0] >= 50 and frequency[-1] <= 8000
    assert np.all(np.diff(frequency) > 0) and rows[0] == pytest.approx(np.ones(len(frequency)))
    assert rows[1].max() < 0.2 and np.all(rows[2] == 0)
    assert coherence([hum(1, far=False)])[1].size == 0 and coherence([])[0].size == 0
    assert coherence([hum(1, seconds=0.1)])[1].shape[0] == 1


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_every_picture_comes_light_and_dark_in_one_size():
    rng = np.random.default_rng(1)
    values = rng.normal(size=40).tolist()
    labels, targets = (rng.random(40) < 0.5).tolist(), (rng.random(40) < 0.5).tolist()
    bars = [Bar("fan", 60, Interval(0.5, 0.7), {"MSE": 53.2, "report": 55}), Bar("valve", 48.0)]
    frequency, rows = coherence([hum(i) for i in range(3)])
    for draw, what in (
        (pictures.bars, (bars,)),
        (pictures.roc, (values, labels, targets)),
        (pictures.domains, (values, labels, targets, 1.0)),
        (pictures.coherence, (frequency, rows)),
    ):
        light, dark = (pixels(pictures.png(draw, *what, dark=dark)) for dark in (False, True))
        assert light.shape == dark.shape and light.shape[1] == 705
        assert light.mean() > 180 and dark.mean() < 90, draw.__name__


def test_histograms_have_a_panel_a_domain_and_one_far_score_does_not_flatten_the_rest():
    one = pixels(pictures.png(pictures.domains, [0.0, 1.0, 2.0], [None] * 3, [None] * 3, 1.0))
    two = pixels(pictures.png(pictures.domains, [0.0, 1.0, 2.0], [False, True, False], [True, True, False], 1.0))
    assert two.shape[0] > 1.4 * one.shape[0]
    values = [*np.linspace(0, 3, 40), 1e6]
    ink = pixels(pictures.png(pictures.domains, values, [False] * 40 + [True], [False] * 41, 2.0))
    blue = (abs(ink - np.array([0, 114, 178])).sum(axis=2) < 160).any(axis=0)
    assert blue.mean() > 0.5, "the bars spread over the picture"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    data = tree(root, dev_2022("fan") + dev_2022("valve & <b>") + evaluation_set("Sander"))
    (data / "fan/train/section_00_source_train_normal_0009_spd_28V.wav").write_bytes(b"nothing to hear")
    return evaluate(data, BASELINE, rounds=20)


@pytest.fixture(scope="module")
def mixed_page(mixed):
    return bench_page(mixed, "nearfar evaluate <data>")


def whole(page: str) -> str:
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert not re.search(r"<script|javascript:|https?://(?!www\.w3\.org)", page.replace("http-equiv", ""))
    assert set(re.findall(r'(?:src|srcset)="(\w+:)', page)) <= {"data:"}
    assert all(alt for alt in re.findall(r'<img[^>]* alt="([^"]*)"', page))
    return page


def test_the_page_of_an_evaluation_says_all_that_was_found(mixed, mixed_page):
    page = whole(mixed_page)
    assert "nearfar evaluate &lt;data&gt;" in page and "valve &amp; &lt;b&gt;" in page and "<b>alve" not in page
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    assert f"Official score {100 * mixed.overall:.2f}" in text and "no labels" in text
    assert "Left out:" in text and "logmel, near_only, mean_std, mahalanobis" in text
    fan = next(m for m in mixed.machines if m.name == "fan")
    assert f"{100 * fan.result.auc_source:.1f}" in text
    assert page.count("ROC of") == 2 and page.count("Histogram of the scores of") == 3
    assert page.count("Coherence of near and far of") == 3 and text.count("The most unusual recording") == 3
    assert "What others have published" in text and "67.48" in text, "fan is a machine of the report"


@pytest.mark.slow
def test_published_numbers_stand_beside_real_machines_alone(mixed_page, tmp_path):
    assert "official baselines" in mixed_page
    made = make_dataset(tmp_path / "demo", machines=1, train=8, test=8, seconds=1)
    (tmp_path / "r.json").write_text(Recipe(view="sfsoft_a05f07").to_json())
    arguments = ("--recipe", tmp_path / "r.json", "--rounds", 5, "--page", tmp_path / "e.html")
    code, _, err = nearfar("evaluate", made, *arguments)
    page = whole((tmp_path / "e.html").read_text())
    assert "Method: logmel, sfsoft_a05f07, mean, raw, cosine, k=1.<" in page, "as the recipe calls it, not its parts"
    assert code == 0 and "ROC of fan" in page, err
    assert "official baselines" not in page and "What others have published" not in page


@pytest.mark.slow
def test_pages_of_failures_of_other_years_and_of_one_microphone(mixed, tmp_path):
    broken = replace(
        mixed, machines=[replace(m, error="it <broke>", result=None) for m in mixed.machines], interval=None
    )
    assert "it &lt;broke&gt;.</p>" in whole(bench_page(broken, "x"))
    empty = replace(mixed, machines=[replace(m, scores=[], recordings=[], result=None) for m in mixed.machines])
    assert "No recording of this machine was scored" in whole(bench_page(empty, "x"))
    old = evaluate(tree(tmp_path / "2021", dev_2021("fan", "00"), far=False), BASELINE, rounds=5)
    page = whole(bench_page(old, "x"))
    assert "fan target" in page or "fan section 00 target" in page
    assert "each domain by its own anomalies" in page and "Coherence" not in page


def test_the_page_of_the_tables_holds_every_number_of_the_report(tmp_path):
    data = tree(tmp_path / "d", dev_2022("fan"))
    page = whole(
        tables_page(reproduce(read(data), ScoreCache(tmp_path / "kept", tmp_path), {"logmel": None}), "reproduce")
    )
    for rows in published.TABLE_5.values():
        for values in rows.values():
            assert all(f"report {v:.2f}" in page for v in values)
    for remark in published.REMARKS:
        assert remark in html.unescape(page)
    assert "(arithmetic)" in page and "(harmonic)" in page and "weights are not here" in page


def test_reproduce_writes_its_page(tmp_path):
    data = tree(tmp_path / "d", dev_2022("fan"))
    code, _, err = nearfar("reproduce", data, "--results", tmp_path / "r", "--page", tmp_path / "r.html")
    assert code == 0 and "Table 5" in (tmp_path / "r.html").read_text(), err
