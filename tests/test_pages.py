"""Pictures and pages: that they are whole, safe, self-contained and small. What they look like was looked at."""

import builtins
import errno
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jinja2 import UndefinedError

from nearfar import Clip, Detector, Recipe
from nearfar.explain import pages, pictures, render
from nearfar.metrics import Interval
from nearfar.score import Score
from nearfar.support import files

RATE = 16_000
PNG = b"\x89PNG\r\n\x1a\n"


def clip(seed, seconds=3.0, burst=0.0, name=None):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    far = 0.01 * rng.normal(size=len(t))
    near = far + 0.01 * rng.normal(size=len(t)) + burst * np.sin(2 * np.pi * 3000 * t) * ((t > 1) & (t < 1.5))
    return Clip(near.astype("f4"), far.astype("f4"), RATE, name or f"c{seed}.wav")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("normals")
    for i in range(6):
        c = clip(i)
        soundfile.write(root / f"normal <{i}> & co.wav", np.stack([c.near, c.far], axis=1), RATE)
    return root


@pytest.fixture(scope="module")
def detector(folder):
    recipe = Recipe(pooling="mean_std", method="mahalanobis", normalize=False)
    return Detector(recipe, threads=1).fit(sorted(folder.glob("*.wav")))


@pytest.fixture(scope="module")
def explained(detector):
    return detector.explain(clip(50, burst=0.2, name='<script>alert("x")</script>.wav'))


@pytest.fixture(scope="module")
def page(explained):
    return pages.explanation_page(explained)


def score(value, anomalous=None, name="c.wav"):
    return Score(name, value, 3.0, value > 3 if anomalous is None else anomalous, [], 0.01)


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open, self.addresses = [], "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)
        self.addresses += [attrs[k] for k in ("src", "srcset", "href") if k in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check(page):
    reader = Reader(page)
    assert reader.open == [] and all(a.startswith("data:") for a in reader.addresses)
    assert {"script", "a", "link", "iframe"}.isdisjoint(tag for tag, _ in reader.tags)
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    images = [attrs for tag, attrs in reader.tags if tag == "img"]
    assert all(len(i["alt"]) > 20 for i in images)
    assert len(page) < 5e6
    return reader


def test_the_page_of_a_recording(explained, page):
    reader = check(page)
    sounds = [attrs for tag, attrs in reader.tags if tag == "audio"]
    assert len(sounds) == 5  # near, far and three normals
    assert explained.name in reader.text and "normal <" in reader.text  # as text, not as a tag
    assert explained.sentence().split(".")[0] in reader.text
    assert sum(tag == "img" for tag, _ in reader.tags) == 2


def test_the_sounds_can_be_played_and_share_one_gain(page):
    import base64

    waves = re.findall(r"data:audio/wav;base64,([A-Za-z0-9+/=]+)", page)
    peaks = []
    for text in waves:
        x, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
        assert rate == RATE and len(x) == 3 * RATE
        peaks.append(np.abs(x).max())
    assert max(peaks) == pytest.approx(0.7, abs=0.01) and min(peaks) < 0.4


def test_long_sounds_at_high_rates_are_cut_around_the_moment(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "evidence_figures", lambda e: [])
    for i in range(6):  # so long that the recording is scored whole, not in windows
        c = clip(i, seconds=20.0)
        soundfile.write(tmp_path / f"{i}.wav", np.stack([c.near, c.far], axis=1), RATE)
    detector = Detector(detector.system, threads=1).fit(sorted(tmp_path.glob("*.wav")))
    long = clip(51, seconds=25.0, burst=0.2)
    page = pages.explanation_page(detector.explain(Clip(long.near, long.far, 48_000, "long.wav")))
    reader = check(page)
    assert sum(tag == "audio" for tag, _ in reader.tags) == 5
    long = replace(long, near=np.roll(long.near, 18 * RATE))
    page = pages.explanation_page(detector.explain(long))
    assert "You hear 12 of 25 s, from 13" in check(page).text


def test_normals_that_are_gone_are_not_played(explained, monkeypatch):
    monkeypatch.setattr(pages, "evidence_figures", lambda e: [])
    gone = tuple(replace(n, path="/nowhere/x.wav") for n in explained.nearest)
    reader = check(pages.explanation_page(replace(explained, nearest=gone)))
    assert sum(tag == "audio" for tag, _ in reader.tags) == 2 and "no longer where they were" in reader.text


def test_a_page_without_the_sound_has_the_words(explained):
    reader = check(pages.explanation_page(replace(explained, clip=None)))
    assert "Change, near" in reader.text and not any(tag in ("audio", "img") for tag, _ in reader.tags)


def test_a_recording_that_cannot_be_judged(detector):
    dead = replace(clip(1), near=np.zeros(3 * RATE, "f4"), name="dead.wav")
    e = detector.explain(dead)
    text = check(pages.explanation_page(e)).text
    assert "Cannot be judged" in text and "silent" in text
    with pytest.raises(ValueError, match="no deviation to draw"):
        pictures.deviation_png(e)


def labelled():
    rng = np.random.default_rng(0)
    scores = [score(float(v)) for v in [*rng.normal(size=20), *(rng.normal(size=20) + 4)]] + [score(0.0)]
    scores[-1] = replace(scores[-1], anomalous=None, problem="silent")
    labels = [False] * 20 + [True] * 20 + [None]
    return scores, labels


def test_alarms_are_counted_by_kind():
    said = pages.alarm_counts(*labelled())
    assert "20 recordings of faults alarm" in said and said.endswith("; 1 cannot be judged.")


def test_pictures_are_png_and_leave_no_state(explained):
    import sys

    sys.modules.pop("matplotlib.pyplot", None)
    scores, labels = labelled()
    for png in (
        pictures.spectrogram_png(explained.clip, explained),
        pictures.deviation_png(explained, dark=True),
        pictures.trend_png(scores, labels, dark=True),
    ):
        assert png.startswith(PNG) and len(png) < 250_000
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("values", [[2.0, 2.0], [-3.0, -2.0, 1e6], list(range(3000))])
def test_scores_of_any_size_can_be_drawn(values):
    scores = [score(float(v)) for v in values]
    assert pictures.trend_png(scores).startswith(PNG)


def test_the_outline_is_where_the_explanation_says(explained):
    """White pixels of the outline enclose the burst, and nothing is outlined where nothing stands out."""
    from PIL import Image

    def white(e):
        image = np.asarray(Image.open(io.BytesIO(pictures.spectrogram_png(e.clip, e))).convert("RGB"))
        axes = image[40:300, 80:520]
        return (axes == 255).all(axis=2).sum()

    assert white(explained) > white(replace(explained, clear=False)) + 100


def test_no_scores_and_wrong_labels_are_errors():
    with pytest.raises(ValueError, match="no scores"):
        pictures.trend_png([])
    with pytest.raises(ValueError, match="1 labels for 2 scores"):
        pictures.trend_png([score(1.0), score(2.0)], [True])


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_without_a_library_of_the_extra_the_error_says_what_to_install(monkeypatch, explained, library):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith(library):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    render._environment.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "nearfar\[pictures\]"'):
        pages.explanation_page(explained)


def test_a_template_escapes_every_value_and_misses_none(explained):
    page = render.render("base.html.j2", title="</title><script>")
    assert "&lt;/title&gt;&lt;script&gt;" in page and "<script" not in page
    with pytest.raises(UndefinedError):
        render.render("base.html.j2")


def test_the_templates_are_part_of_the_package():
    for package in ("nearfar.explain", "nearfar.challenge.pages"):
        assert [f.name for f in resources.files(package).joinpath("templates").iterdir() if f.name.endswith(".j2")]


def test_shares_are_written_in_percent():
    assert [render.percent(v) for v in (0.6093, 1.0, None, float("nan"))] == ["60.9", "100.0", "–", "–"]
    assert render.percent_cell(0.5, Interval(0.4, 0.6)) == render.Value("50.0", "40.0 to 60.0")
    assert render.percent_cell(0.5, Interval(float("nan"), float("nan"))) == render.Value("50.0")


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    target = files.atomic_write(tmp_path / "new" / "page.html", "first")
    with monkeypatch.context() as full:
        full.setattr(
            Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        with pytest.raises(OSError, match="No space left"):
            files.atomic_write(target, "second")
    with pytest.raises(TypeError), files.atomic_file(target) as draft:
        draft.write_text("half of it")
        raise TypeError
    assert target.read_text() == "first" and [p.name for p in target.parent.iterdir()] == ["page.html"]
    files.atomic_write(target, "a name \ud800")  # of a file that is not UTF-8: shown, rather than no page
    assert target.read_text() == "a name \\ud800"
