"""The detector as a whole: what it hears, that nothing but the clip decides its score, and what it survives."""

import json
import os
import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nearfar
from conftest import hum, write_wav
from nearfar import audio, recipe
from nearfar.audio import Clip
from nearfar.detector.folder import COLUMNS
from nearfar.embedding.embedder import ClipEmbedder
from nearfar.errors import AudioError
from nearfar.recipe import Fusion, Recipe, Watch

GAUSS = {"normalize": False, "method": "mahalanobis", "shrinkage": 0.1, "standardize": True}
WATCH = Watch(
    (
        ("steady", 0.5, Recipe(view="w1w_1024", pooling="quantile", **GAUSS)),
        ("transient", 0.5, Recipe(view="w1w_1024", pooling="peak", **GAUSS)),
    )
)
FUSION = Fusion(((0.7, recipe.BASELINE), (0.3, Recipe(view="n_f", pooling="rdp", alpha=9, method="ldn", density_k=4))))
SYSTEMS = {
    "floor": recipe.BASELINE,
    "watch": WATCH,
    "fusion": FUSION,
    "composite": Recipe(view="sfsoft_a05f07", pooling="rdp_gem", alpha=9, method="ldn", density_k=3),
    "dldn": Recipe(view="absdif_0.5", pooling="gem", method="dldn"),
}


def values(detector, clips):
    return [s.value for s in detector.score(clips)]


@pytest.mark.parametrize("fault", ["hiss", "knock"])
def test_the_default_hears_steady_and_transient_faults(normals, fresh, fault):
    detector = nearfar.Detector().fit(normals)
    faulty = [hum(i, fault=fault) for i in range(10)]
    assert min(values(detector, faulty)) > max(values(detector, fresh))
    assert all(s.anomalous for s in detector.score(faulty))


def test_a_watch_says_what_it_heard(normals):
    detector = nearfar.Detector(WATCH).fit(normals)
    hiss, knock = detector.score([hum(1, fault="hiss"), hum(1, fault="knock")])
    assert hiss.triggered_by == ("steady",) and "transient" in knock.triggered_by
    assert hiss.part_scores["transient"] < 1 < 3 < knock.part_scores["transient"]


def test_a_part_of_a_watch_may_have_any_name(normals):
    names = ("hiss and tone", "knocks and clicks")
    watch = Watch(tuple((name, *part[1:]) for name, part in zip(names, WATCH.parts, strict=True)))
    score = nearfar.Detector(watch).fit(normals).score([hum(1, fault="knock")])[0]
    assert "knocks and clicks" in score.triggered_by and len(score.nearest) == 3


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_score_depends_on_nothing_but_the_clip_and_the_detector(normals, fresh, name):
    target = np.arange(30) >= 26
    detector = nearfar.Detector(SYSTEMS[name]).fit(normals, target)
    together = values(detector, fresh)
    assert together == [values(detector, [c])[0] for c in fresh]
    assert together[::-1] == values(detector, fresh[::-1])
    assert together == values(nearfar.Detector(SYSTEMS[name], threads=1).fit(normals, target), fresh)


@pytest.mark.parametrize("name", SYSTEMS)
def test_saved_and_loaded_it_gives_the_same_scores_to_the_last_digit(normals, fresh, tmp_path, name):
    detector = nearfar.Detector(SYSTEMS[name]).fit(normals, np.arange(30) >= 26)
    folder = detector.save(tmp_path / "model")
    again = nearfar.load(folder)
    assert values(again, fresh) == values(detector, fresh)
    assert again.threshold == detector.threshold
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors", ".csv", ".md"}
    assert "are they really normal" in (folder / "card.md").read_text()


def test_eq_13_is_the_weighted_sum_of_its_aligned_components(normals, fresh):
    whole = nearfar.Detector(SYSTEMS["composite"]).fit(normals)
    parts = [nearfar.Detector(r).fit(normals) for r in recipe.leaves(SYSTEMS["composite"])]
    assert [r.view for r in recipe.leaves(SYSTEMS["composite"])] == ["near_only", "enh_a05f07", "n_f"]
    z = np.stack([values(p, fresh) for p in parts])  # a single recipe's value is its aligned score
    expected = np.array([0.6, 0.2, 0.2]) @ z
    got = np.array(values(whole, fresh)) * whole.fitted.sigma + whole.fitted.mu
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_adding_normals_equals_fitting_on_all_of_them(normals, fresh):
    added = nearfar.Detector(WATCH).fit(normals[:20]).add(normals[20:], is_target=True)
    fitted = nearfar.Detector(WATCH).fit(normals, np.arange(30) >= 20)
    assert values(added, fresh) == values(fitted, fresh)
    assert np.array_equal(added.is_target, fitted.is_target)


def test_a_set_point_by_hand_stays_when_normals_are_added_and_any_other_follows_them(normals):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals[:20])
    followed = detector.threshold
    assert detector.add(normals[20:25]).threshold != followed
    chosen = detector.set_threshold(value=4.5)
    added = detector.add(normals[25:]).threshold
    assert (added.value, added.method) == (4.5, chosen.method) and added.rate != chosen.rate


def test_fitted_again_it_is_as_if_new(normals, tmp_path):
    path = write_wav(tmp_path / "long.wav", Clip(np.concatenate([hum(i).near for i in range(20)]), name="long"))
    again = nearfar.Detector(recipe.BASELINE).fit(normals).fit([path])
    assert [n.name for n in again.normals] == [n.name for n in nearfar.Detector(recipe.BASELINE).fit([path]).normals]


def test_a_source_is_a_folder_a_file_an_iterable_or_a_generator(normals_folder, normals):
    paths = sorted(normals_folder.glob("*.wav"))
    by_path = nearfar.Detector(recipe.BASELINE).fit(paths)
    for source in (normals_folder, str(normals_folder), (path for path in paths)):
        made = nearfar.Detector(recipe.BASELINE).fit(source)
        assert np.array_equal(made.train_values, by_path.train_values)
    first = by_path.score(paths[0])
    assert first == by_path.score(str(paths[0])) == by_path.score(paths[:1]) == by_path.score(iter(paths[:1]))
    assert first == by_path.score(normals_folder)[:1]
    clip = normals[0]
    triple = (clip.near, clip.far, clip.rate)
    assert by_path.score(triple)[0].score == by_path.score(clip)[0].score == by_path.score([triple])[0].score


def test_copies_are_left_out_unless_they_are_asked_for(normals):
    twice = [*normals[:5], *normals[:5]]
    with pytest.warns(UserWarning, match="normal_0.wav is left out: it is the same recording"):
        assert len(nearfar.Detector(recipe.BASELINE).fit(twice).normals) == 5
    assert len(nearfar.Detector(recipe.BASELINE).fit(twice, copies=True).normals) == 10


def test_a_loaded_default_chooses_again_when_it_is_fitted(normals, tmp_path):
    loaded = nearfar.load(nearfar.Detector().fit(normals).save(tmp_path / "model"))
    assert loaded.by_default and nearfar.load(tmp_path / "model").fit([replace(c, far=None) for c in normals])


def test_a_clip_that_is_in_the_bank_already_is_not_added_twice(normals):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals[:10])
    with pytest.raises(AudioError, match="in the bank already"):
        detector.add(normals[:1])
    with pytest.raises(ValueError, match="nothing to add"):
        detector.add(normals[:1], skip=lambda name, error: None)


def test_an_exact_duplicate_of_a_normal_is_its_own_nearest(normals):
    detector = nearfar.Detector(Recipe(view="n_f")).fit(normals)
    score = detector.score([normals[7]])[0]
    assert score.nearest[0] == normals[7].name and len(score.nearest) == 3
    raw = score.value * detector.fitted.sigma + detector.fitted.mu
    assert abs(raw) < 1e-6


def test_the_threshold_can_be_changed_without_refitting(normals):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals)
    assert detector.threshold.rate == 0.05
    few = nearfar.Detector(recipe.BASELINE).fit(normals[:9])
    assert few.threshold.rate == pytest.approx(1 / 10)  # what nine normals can back
    before = detector.threshold.value
    point = detector.set_threshold(false_alarms_per_day=432)  # clips of 2 s: 1 in 100
    assert point.rate == pytest.approx(0.01) and point.value > before
    assert detector.set_threshold(rate=0.5).value < before
    by_hand = detector.set_threshold(value=before)
    assert by_hand.value == before and by_hand.rate == pytest.approx(0.05)
    assert detector.set_threshold(rate=0.1, method="gamma").method == "gamma"
    with pytest.raises(ValueError, match="unknown threshold method"):
        detector.set_threshold(method="f1")


def test_a_dead_microphone_is_never_normal(normals):
    detector = nearfar.Detector(WATCH).fit(normals)
    good = hum(5)
    silent_near = Clip(np.zeros(32_000), good.far, name="dead near")
    silent_far = Clip(good.near, np.zeros(32_000), name="dead far")
    for score in detector.score([silent_near, silent_far]):
        assert score.anomalous is None and score.status == "cannot judge" and "silent" in score.problem
        assert np.isfinite(score.value)


def test_a_dead_far_microphone_does_not_matter_to_a_detector_that_does_not_use_it(normals):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals)
    score = detector.score([Clip(hum(5).near, np.zeros(32_000), name="dead far")])[0]
    assert score.anomalous is False and not score.problem


def test_a_dead_recording_cannot_serve_as_a_normal(normals):
    left_out = []
    dead = Clip(np.zeros(32_000), np.zeros(32_000), name="dead.wav")
    with pytest.raises(AudioError, match=r"dead\.wav: cannot serve as a normal"):
        nearfar.Detector(recipe.BASELINE).fit([*normals, dead])
    detector = nearfar.Detector(recipe.BASELINE).fit([*normals, dead], skip=lambda name, error: left_out.append(name))
    assert len(detector.normals) == 30 and left_out == ["dead.wav"]


def test_mono_is_enough_where_the_view_needs_near_alone(normals):
    mono = [hum(i, far=False) for i in range(12)]
    assert nearfar.Detector().fit(mono).score(mono[:1])
    with pytest.raises(ValueError, match=r"has 1 channel.* both near and far are needed \(view 'n_f'\)"):
        nearfar.Detector(Recipe(view="n_f")).fit(mono)


def test_paths_arrays_and_clips_give_the_same_score(normals, normals_folder):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals)
    clip = nearfar.audio.read(normals_folder / "normal_3.wav")
    path_score, clip_score, array_score = detector.score(
        [normals_folder / "normal_3.wav", clip, (clip.near, clip.far, clip.rate)]
    )
    assert path_score.value == clip_score.value == array_score.value


def test_a_long_file_is_scored_in_windows(normals, tmp_path):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals)
    near = np.concatenate([hum(i).near for i in range(20)])
    far = np.concatenate([hum(i).far for i in range(20)])
    path = write_wav(tmp_path / "long.wav", Clip(near, far, name="long"))
    scores = detector.score([path])
    assert [s.name for s in scores] == [f"long.wav@{2 * i}s" for i in range(20)]


def test_unreadable_files_are_reported_and_the_rest_goes_through(normals, normals_folder, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nonsense")
    detector = nearfar.Detector(recipe.BASELINE).fit(normals)
    reported = []
    scores = detector.score(
        [normals_folder / "normal_1.wav", broken, normals_folder / "normal_2.wav"],
        skip=lambda name, error: reported.append((name, str(error))),
    )
    assert [s.name for s in scores] == ["normal_1.wav", "normal_2.wav"]
    assert reported[0][0] == str(broken) and "broken.wav" in reported[0][1]
    with pytest.raises(AudioError, match=r"broken\.wav"):
        detector.score([broken])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("detector.json", "{", r"detector\.json cannot be read \(Expecting property name"),
        ("detector.json", '{"format": 99}', "upgrade nearfar"),
        ("detector.json", "[]", "damaged"),
        ("recipe.json", '{"recipe": 1, "encoder": "os.system"}', "unknown encoder"),
        ("recipe.json", '{"recipe": 1, "__class__": "x"}', "unknown recipe keys"),
        ("bank.safetensors", "cPickle\nloads", "cannot be read"),
        ("normals.csv", "a,b\n1,2\n", "expected"),
        (
            "normals.csv",
            f"{','.join(COLUMNS)}\nx,source,0,1,,,1,1\n",
            "do not list the same normals",
        ),
    ],
)
def test_a_damaged_or_hostile_folder_is_a_clear_error(normals, tmp_path, name, content, message):
    folder = nearfar.Detector(recipe.BASELINE).fit(normals[:8]).save(tmp_path / "model")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        nearfar.load(folder)


def test_a_folder_without_a_detector_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no detector\.json\. The folder that nearfar fit made comes first"):
        nearfar.load(tmp_path)
    for name in ("detector.json", "recipe.json", "bank.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"it lacks normals\.csv\. Was it copied in part"):
        nearfar.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="it is a file"):
        nearfar.load(tmp_path / "recipe.json")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        nearfar.load(tmp_path / "nowhere")


def test_on_a_full_disk_the_detector_that_was_there_stays(normals, fresh, small_disk):
    folder = small_disk / "model"
    before = nearfar.Detector(recipe.BASELINE).fit(normals[:4])
    before.save(folder)
    with pytest.raises(OSError, match="No space left") as error:
        nearfar.Detector(recipe.BASELINE).fit(normals).save(folder)
    assert error.value.filename == str(folder)
    assert values(nearfar.load(folder), fresh) == values(before, fresh)
    assert [path.name for path in small_disk.iterdir()] == ["model"]


def test_a_power_cut_leaves_no_detector_of_empty_files(normals, tmp_path, monkeypatch):
    on_disk, sync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (on_disk.add(os.fstat(handle).st_ino), sync(handle)))
    folder = nearfar.Detector(recipe.BASELINE).fit(normals[:4]).save(tmp_path / "model")
    assert {path.stat().st_ino for path in folder.iterdir()} <= on_disk


def test_saving_never_touches_a_folder_that_holds_other_things(normals, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    detector = nearfar.Detector(recipe.BASELINE).fit(normals[:8])
    with pytest.raises(FileExistsError, match="is not a detector"):
        detector.save(tmp_path)
    detector.save(tmp_path / "model")
    detector.save(tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis.txt"]


@pytest.mark.parametrize("format", [1, 2])
def test_a_detector_of_an_older_format_still_loads(tmp_path, format):
    golden = Path(__file__).parent / "golden"
    detector = nearfar.load(shutil.copytree(golden / f"detector-{format}", tmp_path / "model"))
    expected = json.loads((golden / "detector-2.scores.json").read_text())
    got = values(detector, [hum(i, fault=f) for i, f in enumerate(["", "hiss", "knock"])])
    assert np.allclose(got, expected, rtol=1e-3)
    assert detector.threshold == nearfar.load(golden / "detector-2").threshold  # that of 1 is found anew


def test_a_rate_that_no_normal_has_is_said_where_it_can_be_heard(normals, tmp_path):
    def at(rate):
        return Clip(audio.resample(hum(99).near, 16_000, rate), None, rate, "x")

    mono = [Clip(c.near, None, c.rate, c.name) for c in normals[:8]]
    detector = nearfar.load(nearfar.Detector(recipe.BASELINE).fit(mono).save(tmp_path / "model"))
    said = "recorded at 48,000 Hz, the normals at 16,000 Hz: that alone can raise a score"
    assert [s.warnings for s in detector.score([at(16_000), at(48_000)])] == [[], [said]]
    high = nearfar.Detector(recipe.BASELINE).fit([at(48_000)] * 4, copies=True)
    assert [bool(s.warnings) for s in high.score([at(48_000), at(40_000), at(8_000)])] == [False, False, True]


def test_an_unfitted_detector_says_so(fresh):
    with pytest.raises(ValueError, match="has not been fitted"):
        nearfar.Detector(recipe.BASELINE).score(fresh)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_normals_are_an_error(normals, count):
    with pytest.raises(ValueError, match=r"at least 2|nothing to fit on"):
        nearfar.Detector().fit(normals[:count])


def test_the_default_listens_to_all_of_a_long_file_and_counts_its_windows(normals, tmp_path):
    path = write_wav(tmp_path / "long.wav", Clip(np.concatenate([hum(i).near for i in range(38)]), name="long"))
    reader = ClipEmbedder(0, 1, 10.0, [], {})
    sample = reader.sample([normals[0], path, tmp_path / "none.wav"], 4)
    assert [c.name for c in sample] == [normals[0].name, "long.wav@20s", "long.wav@50s"]
    assert reader.sample(normals, 48) == normals


def test_the_default_needs_no_domain_labels(normals, fresh):
    labelled = nearfar.Detector().fit(normals, np.arange(30) >= 26)
    assert values(labelled, fresh) == values(nearfar.Detector().fit(normals), fresh)


def test_a_recording_without_a_band_that_all_normals_have_cannot_be_judged(normals):
    detector = nearfar.Detector(Recipe()).fit(normals)
    clip = hum(1)
    (low,) = detector.score([clip.at(8_000)])
    assert low.anomalous is None and low.status == "cannot judge"
    assert low.problem.startswith("recorded at 8,000 Hz, so it lacks 4 to 8 kHz, which all normals have")
    (odd,) = detector.score([clip.at(11_025)])
    assert odd.anomalous is None and "5.5125 to 8 kHz" in odd.problem
    (high,) = detector.score([clip.at(48_000)])
    assert high.anomalous is not None and not high.problem and "that alone can raise a score" in high.warnings[0]
    narrow = nearfar.Detector(Recipe()).fit([c.at(8_000) for c in normals])
    assert narrow.score([clip.at(8_000)])[0].problem == "" == narrow.score([clip])[0].problem


def test_whole_numbers_stored_as_floats_are_remarked(normals):
    detector = nearfar.Detector(Recipe()).fit(normals)
    clip = hum(1)
    (score,) = detector.score([replace(clip, near=clip.near * 32768, far=clip.far * 32768)])
    assert any("times full scale: are these whole numbers stored as floats?" in text for text in score.warnings)
    (score,) = detector.score([replace(clip, near=clip.near * 2, far=clip.far * 2)])
    assert not any("full scale: are" in text for text in score.warnings)


@pytest.mark.parametrize("system", [None, Recipe(view="n_f", method="ldn")])
def test_a_detector_can_be_sent_to_another_process(normals, fresh, system):
    detector = nearfar.Detector(system).fit(normals)
    sent = pickle.loads(pickle.dumps(detector))
    assert values(sent, fresh) == values(detector, fresh) and sent.threshold == detector.threshold


@pytest.mark.parametrize("nothing", ["", [""]])
def test_an_empty_path_is_not_the_current_folder(nothing):
    with pytest.raises(ValueError, match="is a variable not set"):
        nearfar.Detector(Recipe()).fit(nothing)


def test_any_iterable_one_path_and_folders_are_recordings(normals_folder):
    paths = sorted(normals_folder.glob("*.wav"))
    detector = nearfar.Detector(Recipe()).fit(p for p in paths)
    wanted = [s.score for s in detector.score(paths)]
    for source in (iter(paths), normals_folder, str(normals_folder), [normals_folder], map(str, paths), tuple(paths)):
        assert [s.score for s in detector.score(source)] == wanted
    assert [s.score for s in detector.score(paths[0])] == wanted[:1]
    clip = audio.read(paths[0])
    for pair in (np.stack([clip.near, clip.far]), np.stack([clip.near, clip.far], axis=1)):
        assert [s.score for s in detector.score((pair, clip.rate))] == wanted[:1]
    for wrong, said in ((5, "not int"), (b"a.wav", "not bytes"), (clip.near, "without its rate")):
        with pytest.raises(ValueError, match=said):
            detector.score(wrong)
    with pytest.raises(ValueError, match=r"shape \(16000, 3\) is no pair"):
        detector.score((np.zeros((16_000, 3), np.float32), 16_000))


def test_a_detector_of_some_normals_is_as_if_fitted_without_the_others(normals, fresh):
    whole = nearfar.Detector(WATCH).fit(normals)
    rows = [i for i in range(len(normals)) if i % 3]
    some, fitted = whole.select(rows), nearfar.Detector(WATCH).fit([normals[i] for i in rows])
    assert [n.name for n in some.normals] == [normals[i].name for i in rows]
    assert (some.train_values == fitted.train_values).all() and some.threshold == fitted.threshold
    assert values(some, fresh) == values(fitted, fresh) and len(whole.normals) == len(normals)
    whole.set_threshold(value=9.0)
    assert whole.select(rows).threshold.value == 9.0
    named = whole.select(range(len(normals)), ["a", "b"] * (len(normals) // 2))
    assert named.sessions[:2] == ["a", "b"] and (named.train_values != whole.train_values).any()
    with pytest.raises(ValueError, match="at least"):
        whole.select([0])


def test_added_over_years_a_bank_stays_as_large_as_it_may_and_keeps_what_covers_it(normals, tmp_path):
    detector = nearfar.Detector(recipe.BASELINE).fit(normals[:4], np.arange(4) == 2)
    for at in range(4, 30, 2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            detector.add(normals[at : at + 2], keep=8)
        assert len(detector.normals) == min(8, at + 2) == len(detector.is_target) == len(detector.sessions)
        assert sum("normals stay" in str(w.message) for w in said) == (at >= 8)
    assert [n.name for n, target in zip(detector.normals, detector.is_target, strict=True) if target] == [
        normals[2].name
    ]
    assert any(text.startswith("8 of 10 normals stay. One that is left out differs") for text in detector.remarks)
    fitted = nearfar.Detector(recipe.BASELINE).fit(
        [next(c for c in normals if c.name == n.name) for n in detector.normals], detector.is_target
    )
    assert np.allclose(detector.train_values, fitted.train_values)
    assert len(nearfar.load(detector.save(tmp_path / "model")).normals) == 8
    with pytest.raises(ValueError, match=r"keep, with 1 normals of the target domain, must be .*4"):
        nearfar.Detector(recipe.BASELINE).fit(normals[:9], np.arange(9) == 2).add(normals[9:10], keep=2)
