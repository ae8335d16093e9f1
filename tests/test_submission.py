"""Submissions: files exactly as the challenge wants them, and a finding for every way to be wrong."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import dev_2020, dev_2022, evaluation_set, tree
from nearfar.audio.recordings import Recording
from nearfar.challenge.evaluate import MachineEvaluation, evaluate
from nearfar.challenge.submission import check, metadata, packed, submit, tables
from nearfar.recipe import BASELINE
from nearfar.score import Score
from test_cli import nearfar

SCORES, DECISIONS = "anomaly_score_Sander_section_00_test.csv", "decision_result_Sander_section_00_test.csv"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("data"), evaluation_set("Sander") + dev_2022("fan"))


@pytest.fixture(scope="module")
def evaluation(data: Path):
    return evaluate(data, BASELINE, false_alarm_rate=0.1, method="gamma", rounds=10)


@pytest.fixture(scope="module")
def submission(data: Path, evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("submission") / "out"
    assert submit(folder, evaluation, data, "Huang_CQUPT_task2_1") == []
    return folder


def test_every_machine_has_two_files_without_header_sorted_by_name(submission, evaluation):
    names = {p.name for p in submission.iterdir()}
    assert names == {
        *(f"{k}_{m}_section_00_test.csv" for k in ("anomaly_score", "decision_result") for m in ("Sander", "fan")),
        "Huang_CQUPT_task2_1.meta.yaml",
        "Huang_CQUPT_task2_1.zip",
    }
    for m in evaluation.machines:
        raw = (submission / f"anomaly_score_{m.name}_section_00_test.csv").read_bytes()
        assert b"\r" not in raw and raw.endswith(b"\n") and not raw.endswith(b"\n\n")
        rows = [line.split(",") for line in raw.decode().splitlines()]
        assert [name for name, _ in rows] == sorted(r.path.name for r in m.recordings)
        by_name = {r.path.name: s for r, s in zip(m.recordings, m.scores, strict=True)}
        assert {name: float(value) for name, value in rows} == {name: s.value for name, s in by_name.items()}
        decisions = (submission / f"decision_result_{m.name}_section_00_test.csv").read_text().splitlines()
        point = m.detector.threshold
        assert point.method == "gamma" and point.rate == 0.1
        assert decisions == [f"{name},{int(by_name[name].value > point.value)}" for name, _ in rows]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.data())
def test_scores_keep_every_digit_and_a_score_at_the_set_point_is_normal(values, draw):
    point = draw.draw(st.sampled_from(values))
    names = [f"section_00_{i:04d}.wav" for i in range(len(values))]
    m = MachineEvaluation(
        "fan",
        SimpleNamespace(),
        [Recording(Path(n), n) for n in names],
        [Score(n, v, point, v > point, [], 0.5) for n, v in zip(names, values, strict=True)],
        [],
        machine="fan",
    )
    scores, decisions = (text.splitlines() for text in tables(m).values())
    assert [float(row.split(",")[1]) for row in scores] == values
    assert [row.split(",")[1] for row in decisions] == [str(int(v > point)) for v in values]


def test_the_archive_holds_it_all_and_does_not_depend_on_the_day(submission):
    archive = submission / "Huang_CQUPT_task2_1.zip"
    with zipfile.ZipFile(archive) as packed_files:
        inside = {Path(i.filename): packed_files.read(i) for i in packed_files.infolist()}
    assert {p.parent for p in inside} == {Path("task2/Huang_CQUPT_task2_1")}
    assert {p.name: content for p, content in inside.items()} == {
        p.name: p.read_bytes() for p in submission.iterdir() if p != archive
    }
    texts = {p.name: p.read_text() for p in submission.iterdir() if p != archive}
    assert packed(texts, "Huang_CQUPT_task2_1") == archive.read_bytes()


def test_the_metadata_is_yaml_and_says_what_is_known(evaluation):
    yaml = pytest.importorskip("yaml")
    said = yaml.safe_load(metadata(evaluation, 'a "label": # {1}'))
    assert said["submission"]["label"] == 'a "label": # {1}' and said["submission"]["authors"][0]["lastname"] is None
    assert said["system"]["description"]["embeddings"] == "logmel"
    assert said["system"]["complexity"]["total_parameters"] == 0
    (fan,) = [m for m in evaluation.machines if m.name == "fan"]
    assert said["results"]["development_dataset"] == {
        "fan": {k: round(100 * getattr(fan.result, k), 2) for k in ("auc_source", "auc_target", "pauc")}
    }


def test_what_was_filled_in_by_hand_stays_and_is_packed(submission, evaluation, data, tmp_path):
    folder = Path(shutil.copytree(submission, tmp_path / "out"))
    (folder / "Huang_CQUPT_task2_1.meta.yaml").write_text("filled: in\n")
    assert submit(folder, evaluation, data, "Huang_CQUPT_task2_1") == []
    with zipfile.ZipFile(io.BytesIO((folder / "Huang_CQUPT_task2_1.zip").read_bytes())) as archive:
        assert archive.read("task2/Huang_CQUPT_task2_1/Huang_CQUPT_task2_1.meta.yaml") == b"filled: in\n"


def lines(change):
    def apply(path: Path) -> None:
        path.write_text("".join(f"{row}\n" for row in change(path.read_text().splitlines())))

    return apply


def raw(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (SCORES, lines(lambda r: r[:-1]), "lacks 1 of 6 test files: section_00_0005.wav"),
        (SCORES, lines(lambda r: r[:-1]), f"lacks section_00_0005.wav, which {DECISIONS} has"),
        (SCORES, lines(lambda r: [*r, "section_00_9999.wav,1.5"]), "line 7: 1 rows are no test files of Sander"),
        (SCORES, lines(lambda r: [*r, r[-1]]), "line 7: section_00_0005.wav is already in line 6"),
        (SCORES, lines(lambda r: [r[0].split(",")[0] + ",nan", *r[1:]]), "line 1: score 'nan' is not finite"),
        (SCORES, lines(lambda r: [*r[:-1], r[-1].split(",")[0] + ",-inf"]), "line 6: score '-inf' is not finite"),
        (SCORES, lines(lambda r: [r[0] + "x", *r[1:]]), "is not a number"),
        (SCORES, lines(lambda r: [r[0] + ",2", *r[1:]]), "has 3 columns"),
        (SCORES, lines(lambda r: ["test/" + r[0], *r[1:]]), "is not the plain name of a WAV file"),
        (SCORES, lines(lambda r: [*r[:2], "", *r[2:]]), "line 3: is empty"),
        (SCORES, lines(lambda r: ["file,score", *r]), "line 1: 'file,score' looks like a header"),
        (SCORES, lines(lambda r: r[::-1]), "rows are not sorted by file name"),
        (SCORES, raw(lambda b: b.replace(b"\n", b"\r\n")), "has Windows line ends"),
        (SCORES, raw(lambda b: b"\xef\xbb\xbf" + b), "begins with a byte-order mark"),
        (SCORES, raw(lambda b: b"\xff\xfe" + b), "is not UTF-8"),
        (SCORES, raw(lambda b: b""), "lacks 6 of 6 test files"),
        (SCORES, Path.unlink, f"{DECISIONS}: its other half is missing: {SCORES}"),
        (DECISIONS, Path.unlink, f"{SCORES}: its other half is missing: {DECISIONS}"),
        (DECISIONS, lines(lambda r: [r[0][:-1] + "2", *r[1:]]), "line 1: decision '2' is not 0 or 1"),
        (DECISIONS, lines(lambda r: [r[0] + ".0", *r[1:]]), "decision '0.0' is not 0 or 1"),
        (DECISIONS, lambda p: p.rename(p.with_name("decisions_Sander.csv")), "is no name that the challenge knows"),
        (SCORES, lambda p: p.rename(p.with_name(p.name.replace("Sander", "Sandra"))), "the data set has no Sandra"),
    ],
)
def test_every_fault_has_its_finding(submission, data, tmp_path, file, change, words):
    folder = Path(shutil.copytree(submission, tmp_path / "out"))
    change(folder / file)
    if "'0.0'" in words:
        words = (
            words.replace("'0.0'", "'1.0'")
            if (folder / file).read_text().startswith("section_00_0000.wav,1")
            else words
        )
    said = [str(f) for f in check(folder, data)]
    assert any(words in line for line in said), said
    assert all(
        line.startswith((SCORES, DECISIONS, "decisions_Sander", SCORES.replace("Sander", "Sandra"))) for line in said
    )


def test_a_machine_without_files_is_missed_and_only_with_the_data_set(submission, data, tmp_path):
    folder = Path(shutil.copytree(submission, tmp_path / "out"))
    (folder / SCORES).unlink()
    (folder / DECISIONS).unlink()
    assert check(folder) == [] and check(folder, data, only=["fan"]) == []
    assert {f.file for f in check(folder, data)} == {SCORES, DECISIONS}
    assert "6 test files have no row" in str(check(folder, data)[0])
    for path in folder.glob("*.csv"):
        path.unlink()
    assert "holds no CSV files" in str(check(folder)[0])
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "nowhere")


def test_a_machine_that_cannot_be_fitted_is_missed_in_the_submission(tmp_path):
    data = tree(tmp_path / "d", [n for n in evaluation_set("ToyDrone") if "/test/" in n] + evaluation_set("Sander"))
    found = submit(tmp_path / "out", evaluate(data, BASELINE, rounds=5), data)
    assert {f.file for f in found} == {SCORES.replace("Sander", "ToyDrone"), DECISIONS.replace("Sander", "ToyDrone")}


def test_many_faults_of_a_kind_are_counted(submission, tmp_path):
    folder = Path(shutil.copytree(submission, tmp_path / "out"))
    (folder / SCORES).write_text("".join(f"section_00_{i:04d}.wav,nan\n" for i in range(6)))
    said = [f for f in check(folder) if "not finite" in f.what]
    assert [f.line for f in said] == [1, 2, 3] and said[-1].what.endswith("(and 3 more lines like it)")


def test_nothing_is_written_over_other_tables_nor_without_a_clip_nor_in_old_forms(evaluation, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/shopping.csv").write_text("milk\n")
    with pytest.raises(FileExistsError, match=r"other CSV files \(shopping.csv"):
        submit(tmp_path / "out", evaluation, data)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["shopping.csv"]
    tree(tmp_path / "broken", evaluation_set("Sander"))
    (tmp_path / "broken/Sander/test/section_00_0003.wav").write_bytes(b"no sound")
    code, _, err = nearfar("submit", tmp_path / "broken", "--recipe", "logmel-floor", "-o", tmp_path / "new")
    assert code == 2 and "1 could not be scored" in err and "section_00_0003.wav" in err
    assert not (tmp_path / "new").exists()
    for label in ("../x", "a b", "", "x/y"):
        with pytest.raises(ValueError, match="is not of the form Lastname_Institute_task2_1"):
            submit(tmp_path / "new", evaluation, data, label)
    old = evaluate(tree(tmp_path / "2020", dev_2020("fan", "0")), BASELINE, rounds=5)
    with pytest.raises(ValueError, match="form of 2022 and later; this data set is of 2020"):
        submit(tmp_path / "new", old, tmp_path / "2020")


def test_the_command_writes_checks_and_says_what_it_decided(data, tmp_path):
    arguments = ("submit", data, "--recipe", "logmel-floor", "-o", tmp_path / "out")
    code, out, err = nearfar(*arguments)
    assert code == 0 and "nothing to put right" in out and "gamma, 10 % of normal clips" in out, err
    code, out, err = nearfar(*arguments, "--set-point", "conformal", "--json")
    said = json.loads(out)
    assert code == 0 and said["findings"] == [] and set(said["machines"]) == {"Sander", "fan"}, err
    assert nearfar("submit", "--check", tmp_path / "out", data)[0] == 0
    assert json.loads(nearfar("submit", "--check", tmp_path / "out", "--json")[1])["ok"] is True
    (tmp_path / "out" / SCORES).unlink()
    code, out, err = nearfar("submit", "--check", tmp_path / "out", data)
    assert code == 2 and f"its other half is missing: {SCORES}" in out and not err
    for wrong in (("submit",), ("submit", data), ("submit", "--check", tmp_path / "out", "-o", tmp_path)):
        code, out, err = nearfar(*wrong)
        assert code == 2 and not out and "Traceback" not in err
    code, _, err = nearfar(*arguments, "--set-point", "magic")
    assert code == 2 and "gamma" in err
