"""Data sets of every year as trees of small files: units, rules, ground truth, and official scores by those rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import hum, write_wav
from datasets import DEV_TEST, TRAIN, dev_2020, dev_2021, dev_2022, evaluation_set, train_since_2021, tree
from nearfar.audio.recordings import attributes_of
from nearfar.challenge.data.layout import read
from nearfar.challenge.evaluate import evaluate
from nearfar.metrics import auc, harmonic_mean, partial_auc
from nearfar.recipe import BASELINE


@pytest.fixture(scope="module")
def evaluation_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("eval"), evaluation_set("Sander") + evaluation_set("ToyDrone"))


def test_2020_has_ids_no_domains_and_plain_means(tmp_path: Path) -> None:
    tree(tmp_path, dev_2020("fan") + dev_2020("pump", "4"), far=False)
    found = read(tmp_path)
    assert [u.name for u in found.units] == ["fan id 00", "fan id 02", "pump"] and found.rules == "2020"
    assert [(u.machine, u.section) for u in found.units] == [("fan", "00"), ("fan", "02"), ("pump", "04")]
    result = evaluate(tmp_path, BASELINE, rounds=20)
    want = []
    for m in result.machines:
        assert len(m.detector.normals) == TRAIN, "a machine's other ids are not its normals"
        values, labels = [s.value for s in m.scores], [r.is_anomaly for r in m.recordings]
        assert m.result is not None and np.isnan(m.result.auc_target)
        want += [auc(values, labels), partial_auc(values, labels)]
    assert result.overall == pytest.approx(np.mean(want), abs=1e-12)
    assert result.interval is not None and result.interval.low <= result.overall <= result.interval.high
    assert result.to_dict()["machines"]["pump"]["result"]["auc_target"] is None


def test_2021_judges_each_domain_of_each_section_by_itself(tmp_path: Path) -> None:
    tree(tmp_path, dev_2021("fan", "00") + dev_2021("fan", "01"), far=False)
    assert read(tmp_path).rules == "2021"
    result = evaluate(tmp_path, BASELINE, rounds=20)
    assert [m.name for m in result.machines] == [f"fan section 0{s} {d}" for s in (0, 1) for d in ("source", "target")]
    want = []
    for m in result.machines:
        values, labels = [s.value for s in m.scores], [r.is_anomaly for r in m.recordings]
        assert len(values) == 2 * DEV_TEST and len({r.is_target for r in m.recordings}) == 1
        want += [auc(values, labels), partial_auc(values, labels)]
    assert result.overall == pytest.approx(harmonic_mean(want), abs=1e-12)


def test_2022_pools_the_domains_anomalies_and_keeps_the_sections(tmp_path: Path) -> None:
    tree(tmp_path, dev_2022("fan", "00") + dev_2022("fan", "03"), far=False)
    found = read(tmp_path)
    assert found.rules == "2022" and [u.name for u in found.units] == ["fan section 00", "fan section 03"]
    assert [len(u.train) for u in found.units] == [TRAIN, TRAIN]
    result = evaluate(tmp_path, BASELINE, rounds=20)
    want = []
    for m in result.machines:
        rows = list(zip([s.value for s in m.scores], m.recordings, strict=True))
        for domain in (False, True):
            keep = [(v, r.is_anomaly) for v, r in rows if r.is_anomaly or r.is_target is domain]
            want.append(auc(*zip(*keep, strict=True)))
        want.append(partial_auc([v for v, _ in rows], [r.is_anomaly for _, r in rows]))
    assert result.overall == pytest.approx(harmonic_mean(want), abs=1e-12)


@pytest.mark.parametrize("attribute", ["_car_D2_spd_5_mic_2_mic_1", "_noAttribute", "_", ""])
def test_one_section_since_2023_is_the_machine_itself(tmp_path: Path, attribute: str) -> None:
    tree(tmp_path, dev_2022("ToyCarEmu", attribute=attribute))
    (unit,) = read(tmp_path / "ToyCarEmu").units
    assert (unit.name, unit.machine, unit.section) == ("ToyCarEmu", "ToyCarEmu", "00")
    assert {r.attributes for r in unit.recordings} == {attribute.strip("_").removeprefix("noAttribute")}


def test_attributes_come_from_the_table_where_the_names_have_none(tmp_path: Path) -> None:
    names = dev_2022("fan", attribute="_noAttribute")
    tree(tmp_path / "raw", names)
    table = ["file_name,d1p,d1v,d2p,d2v", *(f"fan/{n.split('/', 1)[1]},spd,{i},load,2" for i, n in enumerate(names))]
    table[3] = table[3].split(",")[0] + ",spd,7,,"
    (tmp_path / "raw/fan/attributes_00.csv").write_text("\n".join(table))
    (unit,) = read(tmp_path).units
    assert sorted(r.attributes for r in unit.recordings)[-1] == "spd_9_load_2"
    assert "spd_7" in {r.attributes for r in unit.recordings}
    assert attributes_of(tmp_path / "raw" / names[9]) == "spd_9_load_2"
    (tmp_path / "raw/fan/attributes_00.csv").write_text("\n".join(row.replace("spd,9", "spd,8") for row in table))
    assert attributes_of(tmp_path / "raw" / names[9]) == "spd_8_load_2", "a table that has changed is read again"


def test_development_and_evaluation_trees_side_by_side(tmp_path: Path) -> None:
    tree(tmp_path / "dcase2026t2/dev_data/raw", dev_2022("fan"))
    tree(tmp_path / "dcase2026t2/eval_data/raw", evaluation_set("Sander", "section_00_test_{:04d}.wav"))
    result = evaluate(tmp_path, BASELINE, rounds=20)
    fan, sander = sorted(result.machines, key=lambda m: m.name == "Sander")
    assert fan.result is not None and sander.result is None and len(sander.scores) == 6
    assert result.overall == pytest.approx(fan.result.omega), "the unlabelled machine has no part in the score"
    again = evaluate(tmp_path, BASELINE, only=["Sander"], rounds=20)
    assert [m.name for m in again.machines] == ["Sander"] and np.isnan(again.overall)
    with pytest.raises(ValueError, match=r"no machine Sandra in .*; it has Sander, fan"):
        read(tmp_path, only=["Sandra"])


def truth_of(folder: Path, machine: str, labels: list[int], domains: list[int] | None = None) -> Path:
    name = f"ground_truth_{machine}_section_00_test.csv"
    for about, values in (("ground_truth_data", labels), ("ground_truth_domain", domains)):
        if values is not None:
            (folder / about).mkdir(parents=True, exist_ok=True)
            rows = [f"section_00_{n:04d}.wav,{v}" for n, v in enumerate(values)]
            (folder / about / name).write_bytes(("\r\n".join(reversed(rows)) + "\r\n").encode("utf-8-sig"))
    return folder


LABELS, SIDES = [1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 1, 0]


def test_ground_truth_is_joined_by_name_whatever_its_order(evaluation_tree: Path, tmp_path: Path) -> None:
    truth_of(tmp_path, "Sander", LABELS, SIDES)
    truth_of(tmp_path, "ToyDrone", LABELS)
    truth_of(tmp_path, "BlowerDustCollector", LABELS)
    (tmp_path / "anomaly_score_Sander_section_00_test.csv").write_text("section_00_0000.wav,3.5\n")
    found = read(evaluation_tree, tmp_path)
    sander, drone = found.units
    assert [int(r.is_anomaly) for r in sander.test] == LABELS and [int(r.is_target) for r in sander.test] == SIDES
    assert [r.is_target for r in drone.test] == [None] * 6 and len(drone.train) == TRAIN
    assert any("ToyDrone: the ground truth names no domains" in note for note in found.notes)
    assert any("BlowerDustCollector" in note for note in found.notes)
    result = evaluate(evaluation_tree, BASELINE, truth=tmp_path, only=["Sander"], rounds=20)
    assert result.machines[0].result is not None and not np.isnan(result.overall)


def test_ground_truth_may_be_words_or_the_labelled_names(evaluation_tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "ground_truth_Sander_section_00_test.csv"
    side, label = ("source", "target"), ("normal", "anomaly")
    file.write_text(
        "".join(
            f"section_00_{n:04d}.wav,section_00_{side[s]}_test_{label[a]}_{n:04d}_x.wav\n"
            for n, (a, s) in enumerate(zip(LABELS, SIDES, strict=True))
        )
    )
    one = read(evaluation_tree, file, only=["Sander"]).units[0]
    words = "".join(
        f"section_00_{n:04d}.wav,{side[s].title()},{label[a]}\n"
        for n, (a, s) in enumerate(zip(LABELS, SIDES, strict=True))
    )
    file.write_text(words)
    other = read(evaluation_tree, file, only=["Sander"]).units[0]
    assert [r.is_anomaly for r in one.test] == [r.is_anomaly for r in other.test] == [bool(a) for a in LABELS]
    assert [r.is_target for r in one.test] == [r.is_target for r in other.test] == [bool(s) for s in SIDES]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], r"1 test files without a row: section_00_0005.wav\. Is it the truth"),
        (lambda rows: [*rows, "section_00_0006.wav,1"], r"1 rows without a test file: section_00_0006.wav"),
        (lambda rows: [*rows, rows[0]], r"row 7: section_00_0000.wav is already in row 1"),
        (lambda rows: ["section_00_0000.wav,maybe", *rows[1:]], r"row 1: 'section_00_0000.wav,maybe' is no row"),
        (lambda rows: [r.replace("section_00", "section_01") for r in rows], r"6 rows without a test file"),
    ],
)
def test_ground_truth_that_does_not_fit_is_refused(evaluation_tree: Path, tmp_path: Path, change, words: str) -> None:
    rows = [f"section_00_{n:04d}.wav,{v}" for n, v in enumerate(LABELS)]
    file = tmp_path / "ground_truth_Sander_section_00_test.csv"
    file.write_text("\n".join(change(rows)))
    with pytest.raises(ValueError, match=words):
        read(evaluation_tree, tmp_path)


def test_ground_truth_elsewhere_or_against_the_names_is_refused(evaluation_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such ground truth"):
        read(evaluation_tree, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no ground truth for Sander, ToyDrone: expected CSV files named like"):
        read(evaluation_tree, tmp_path)
    tree(tmp_path / "data", dev_2022("fan", attribute=""))
    names = [p.name for p in (tmp_path / "data/fan/test").iterdir()]
    (tmp_path / "ground_truth_fan_section_00_test.csv").write_text("".join(f"{n},1\n" for n in names))
    with pytest.raises(ValueError, match="contradicts the name of"):
        read(tmp_path / "data", tmp_path / "ground_truth_fan_section_00_test.csv")


def test_what_lacks_its_other_half_is_left_out_with_a_note(tmp_path: Path) -> None:
    tree(tmp_path, dev_2022("fan") + train_since_2021("fan", "01") + train_since_2021("pump"))
    found = read(tmp_path)
    assert [u.name for u in found.units] == ["fan section 00"]
    assert found.notes == [
        "fan section 01 has 4 normal train clips and 0 test clips: left out",
        "pump has 4 normal train clips and 0 test clips: left out",
    ]
    with pytest.raises(
        ValueError, match=r"pump has 4 normal train clips and 0 test clips; 2 and 1 .*Is the other part"
    ):
        read(tmp_path, only=["pump"])


def test_one_normal_is_too_few_and_no_part_of_the_data_set_is_missing(tmp_path: Path) -> None:
    tree(tmp_path, dev_2022("fan"))
    for path in sorted(tmp_path.rglob("train/*.wav"))[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"fan has 1 normal train clip and \d+ test clips; 2 and 1 .* evaluated\.$"):
        read(tmp_path)


def test_years_are_not_mixed(tmp_path: Path) -> None:
    tree(tmp_path, dev_2020("fan") + dev_2022("pump"))
    with pytest.raises(ValueError, match=r"different years.*2020: fan.*2022: pump"):
        read(tmp_path)
    write_wav(tmp_path / "pump/train/own_name.wav", hum(1))
    tree(tmp_path, train_since_2021("pump", "05"))
    with pytest.raises(ValueError, match=r"'pump' has sections 00, 05, but the name of .*own_name.wav says none"):
        read(tmp_path, only=["pump"])


def test_a_machine_that_cannot_be_evaluated_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    tree(tmp_path, dev_2022("fan") + dev_2022("pump"))
    for file in (tmp_path / "pump/train").iterdir():
        file.write_bytes(b"nothing to hear")
    result = evaluate(tmp_path, BASELINE, rounds=20)
    fan, pump = result.machines
    assert fan.result is not None and pump.error and result.failed
    assert not pump.error.startswith("pump")  # which stands before it wherever it is said
    assert result.overall == pytest.approx(fan.result.omega)
    for system in (BASELINE, None):
        with pytest.raises(ValueError, match=r"pump: .*\.wav.*cannot be read as audio"):
            evaluate(tmp_path, system, only=["pump"])
    with pytest.raises(ValueError, match="rounds"):
        evaluate(tmp_path / "not looked at", BASELINE, rounds=0)


def test_test_clips_of_one_kind_have_no_auc(tmp_path: Path) -> None:
    tree(tmp_path, [n for n in dev_2022("fan") if "anomaly" not in n] + dev_2022("pump"))
    result = evaluate(tmp_path, BASELINE, rounds=20)
    assert [m.result is None for m in result.machines] == [True, False]
    assert any("fan: its test clips are all normal" in note for note in result.notes)


def test_ground_truth_is_read_in_any_encoding_and_what_is_no_table_is_named(evaluation_tree: Path, tmp_path: Path):
    truth_of(tmp_path / "a", "Sander", LABELS, SIDES)
    file = tmp_path / "a" / "ground_truth_data" / "ground_truth_Sander_section_00_test.csv"
    file.write_bytes(file.read_bytes().decode("utf-8-sig").encode("utf-16"))
    (sander,) = read(evaluation_tree, tmp_path / "a", ["Sander"]).units
    assert [int(r.is_anomaly) for r in sander.test] == LABELS
    file.write_text(200_000 * "[")
    with pytest.raises(ValueError, match=r"Sander_section_00_test\.csv: cannot be read as a table"):
        read(evaluation_tree, tmp_path / "a", ["Sander"])
