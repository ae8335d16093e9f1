"""A folder -> its recordings: labels from own names or a manifest, the DCASE layout of all years, clear errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import shared
from nearfar.audio.recordings import find, leave_out, machines, parse
from nearfar.support.words import shown


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


WORDS = st.text("abcXYZ0189", min_size=1, max_size=5)


@given(
    domain=st.sampled_from(["source", "target"]),
    split=st.sampled_from(["train", "test"]),
    label=st.sampled_from(["normal", "anomaly"]),
    number=st.integers(0, 9999),
    attributes=st.lists(WORDS, max_size=6).map("_".join),
    suffix=st.sampled_from(["wav", "WAV", "flac", "aiff"]),
    folder=st.sampled_from(["", "normal_sounds/", "anomaly/test/", "C:\\target\\"]),
)
def test_a_dcase_name_says_what_was_put_in(
    domain: str, split: str, label: str, number: int, attributes: str, suffix: str, folder: str
) -> None:
    said = parse(f"{folder}section_00_{domain}_{split}_{label}_{number:04d}_{attributes}.{suffix}")
    assert (said.split, said.is_target, said.is_anomaly) == (split, domain == "target", label == "anomaly")
    assert said.attributes == attributes


@given(st.text(max_size=40))
def test_any_name_at_all_is_parsed(name: str) -> None:
    parse(name)


@pytest.mark.parametrize(
    ("name", "split", "target", "anomaly", "attributes"),
    [
        ("section_00_source_train_normal_0000_.wav", "train", False, False, ""),
        ("section_00_source_train_normal_0000.wav", "train", False, False, ""),
        ("section_00_target_test_anomaly_0199_noAttribute.wav", "test", True, True, ""),
        (
            "section_00_source_train_normal_0003_car_D2_spd_5_mic_2_mic_1.wav",
            "train",
            False,
            False,
            "car_D2_spd_5_mic_2_mic_1",
        ),
        ("section_00_0007.wav", "", None, None, ""),
        ("section_00_test_0007.wav", "test", None, None, ""),
        ("section_03_source_test_0012.wav", "test", False, None, ""),  # 2021, evaluation
        ("section_05_target_train_normal_0002_strength_1_ambient.wav", "train", True, False, "strength_1_ambient"),
        ("normal_id_00_00000000.wav", "", None, False, "id_00"),  # 2020
        ("anomaly_id_02_00000003.wav", "", None, True, "id_02"),
        ("id_06_00000003.wav", "", None, None, "id_06"),
        ("fan_anomaly_00000969.flac", "", None, True, ""),  # MIMII, flattened
        ("pump3_monday.wav", "", None, None, ""),
        ("no_anomaly_0001.wav", "", None, None, ""),
        ("test_of_normal_pump.wav", "", None, None, ""),
    ],
)
def test_the_forms_of_all_years(
    name: str, split: str, target: bool | None, anomaly: bool | None, attributes: str
) -> None:
    said = parse(name)
    assert (said.split, said.is_target, said.is_anomaly, said.attributes) == (split, target, anomaly, attributes)


def test_a_plain_folder_holds_what_ends_like_audio_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "b.WAV", "a.wav", "deep/er/c.Flac", "d.ogg", "e.AIFF", "f.aif", "g.mp3", "h.opus")
    touch(tmp_path, "._a.wav", ".cache/x.wav", "__MACOSX/a.wav", "notes.txt", "photo.jpg", "deep/wav")
    (tmp_path / "folder.wav").mkdir()
    found = find(tmp_path)
    assert [r.name for r in found] == [
        "a.wav",
        "b.WAV",
        "d.ogg",
        "deep/er/c.Flac",
        "e.AIFF",
        "f.aif",
        "g.mp3",
        "h.opus",
    ]
    assert {(r.machine, r.split, r.is_target, r.is_anomaly) for r in found} == {("", "", None, None)}
    assert found[0].path == tmp_path / "a.wav"


def test_sound_that_cannot_be_read_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "phone.m4a", "night/more.M4A", "notes.txt")
    with pytest.warns(UserWarning, match=r"2 \.m4a files passed over; nearfar reads .*convert it to WAV first") as said:
        assert [r.name for r in find(tmp_path)] == ["a.wav"]
    assert len(said) == 1 and ".txt" not in str(said[0].message)


@pytest.mark.parametrize("parent", ["normal_sounds", "anomaly", "target", "fan_anomaly_0001", "abnormal"])
def test_no_label_comes_from_a_folder(tmp_path: Path, parent: str) -> None:
    touch(tmp_path, f"{parent}/a.wav", f"{parent}/section_00_source_train_normal_0000_x_1.wav")
    plain, dcase = find(tmp_path)
    assert plain.is_anomaly is None and plain.is_target is None
    assert dcase.is_anomaly is False and dcase.is_target is False
    assert find(tmp_path / parent)[0].is_anomaly is None


def test_files_may_be_given_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "today/a.wav", "today/b.wav", "old/a.wav", "x.mp4")
    assert [r.name for r in find(tmp_path / "today" / "a.wav")] == ["a.wav"]
    both = find([tmp_path / "today", tmp_path / "old" / "a.wav", tmp_path / "today" / "a.wav"])
    assert [r.name for r in both] == ["old/a.wav", "today/a.wav", "today/b.wav"]
    monkeypatch.chdir(tmp_path)
    assert [r.name for r in find(["today/b.wav", "today/a.wav"])] == ["a.wav", "b.wav"]
    with pytest.raises(ValueError, match=r"x\.mp4 is not a recording.*WAV, W64, FLAC, .* and VOC: convert"):
        find([tmp_path / "x.mp4"])
    with pytest.raises(FileNotFoundError, match=r"yesterday.*exists up to"):
        find(tmp_path / "yesterday" / "a.wav")
    with pytest.raises(ValueError, match="no folder and no files"):
        find([])


def test_a_folder_without_recordings_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is empty"):
        find(tmp_path)
    touch(tmp_path, *(f"{i}.mp4" for i in range(12)), "a.TXT")
    with pytest.raises(
        ValueError,
        match=r"it holds 12 \.mp4 files, 1 \.txt file; nearfar reads WAV, W64, FLAC, .* and VOC: convert",
    ):
        find(tmp_path)


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.wav", "elsewhere/b.wav")
    try:
        (tmp_path / "data" / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
        (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "data" / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "data" / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
        (tmp_path / "data" / "self.wav").symlink_to(tmp_path / "data" / "self.wav")
    except OSError:
        pytest.skip("this system makes no links for this user")
    with pytest.warns(
        UserWarning, match=r"broken\.wav \(and 1 more\) is passed over: a link to a file that is not there"
    ):
        assert [r.name for r in find(tmp_path / "data")] == ["a.wav", "again/b.wav"]


def test_recordings_of_every_container_are_found_and_others_are_named(tmp_path: Path) -> None:
    kinds = "wav wave bwf rf64 w64 flac ogg oga opus mp3 aiff aif aifc au snd caf voc sph"
    heard = [f"a.{kind}" for kind in kinds.split()]
    touch(tmp_path, *heard, "b.m4a", "c.wv", "notes.txt")
    with pytest.warns(UserWarning, match=r"1 \.m4a file, 1 \.wv file passed over; nearfar reads"):
        assert [r.name for r in find(tmp_path)] == sorted(heard)


def test_a_name_that_is_no_utf_8_is_shown_escaped(tmp_path: Path) -> None:
    try:
        touch(tmp_path, os.fsdecode(b"Pr\xfcf\xc3\xbc.wav"))
    except (OSError, UnicodeError):
        pytest.skip("this system takes UTF-8 names alone")
    (found,) = find(tmp_path)
    assert found.name == "Pr\\xfcfü.wav" and found.path.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_manifest_says_what_names_do_not(tmp_path: Path, encoding: str, separator: str) -> None:
    touch(tmp_path, "Prüfstand/a.wav", "b.wav", "c.wav")
    rows = [
        ["File", "domain", "label", " machine"],
        ["Prüfstand\\a.wav", "Target", "anomaly", "pump"],
        ["b.wav", "source", "normal", ""],
    ]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n"
    (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
    for found in (find(tmp_path), find(tmp_path, tmp_path / "manifest.csv")):
        assert [(r.name, r.is_target, r.is_anomaly, r.machine) for r in found] == [
            ("Prüfstand/a.wav", True, True, "pump"),
            ("b.wav", False, False, ""),
            ("c.wav", None, None, ""),
        ]


def test_a_manifest_may_lack_columns_and_lie_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.wav", "data/fan_anomaly_0001.wav")
    (tmp_path / "list.csv").write_text(
        'sep=;\nlabel;note;file\nnormal;ok;a.wav\nnormal;"was;fixed";data/fan_anomaly_0001.wav\n'
    )
    assert [r.is_anomaly for r in find(tmp_path / "data", tmp_path / "list.csv")] == [False, False]
    (tmp_path / "list.csv").write_text("file\na.wav\n")
    assert [r.is_anomaly for r in find(tmp_path / "data", tmp_path / "list.csv")] == [None, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.wav,normal\nlost.wav,normal\n", r"row 3: there is no recording 'lost.wav'"),
        ("file,label\na.wav,bad\n", r"row 2: label 'bad' is not one of normal, anomaly"),
        ("file,domain\na.wav,night\n", r"row 2: domain 'night' is not one of source, target"),
        ("file,label\na.wav,normal\n./a.wav,anomaly\n", r"row 3: './a.wav' is already in row 2"),
        ("name,label\na.wav,normal\n", "must name the columns"),
        ("file,label\n,normal\n", "row 2: names no file"),
        ("", "must name the columns"),
    ],
)
def test_a_wrong_manifest_is_refused_by_row(tmp_path: Path, text: str, words: str) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        find(tmp_path, tmp_path / "other.csv")


LAYOUT = (
    "fan/train/section_00_source_train_normal_0000_spd_1.wav",
    "fan/test/section_00_target_test_anomaly_0001_spd_2.wav",
)


@pytest.mark.parametrize("above", ["", "raw/", "dcase2026t2/dev_data/raw/"])
def test_machines_are_found_from_any_folder_above_them(tmp_path: Path, above: str) -> None:
    touch(
        tmp_path,
        *(above + name for name in LAYOUT),
        above + "valve/train/own_name.wav",
        above + "fan/attributes_00.csv",
    )
    found = machines(tmp_path)
    assert {machine: [(r.split, r.is_target, r.is_anomaly) for r in rs] for machine, rs in found.items()} == {
        "fan": [("test", True, True), ("train", False, False)],
        "valve": [("train", None, None)],
    }
    assert {r.machine for r in found["valve"]} == {"valve"}
    assert list(machines(tmp_path / above / "fan")) == ["fan"]
    assert {r.machine for r in find(tmp_path / above / "fan" / "train")} == {"fan"}


def test_relabelled_test_files_stand_for_the_test_folder(tmp_path: Path) -> None:
    touch(
        tmp_path, LAYOUT[0], "fan/test/section_00_0000.wav", "fan/test_rename/section_00_source_test_anomaly_0000_x.wav"
    )
    assert [(r.split, r.is_anomaly) for r in machines(tmp_path)["fan"]] == [("test", True), ("train", False)]
    assert len(find(tmp_path / "fan")) == 2 and len(find(tmp_path)) == 2
    assert find(tmp_path / "fan" / "test")[0].is_anomaly is None
    (tmp_path / "fan/test_rename/section_00_source_test_anomaly_0000_x.wav").unlink()
    assert [r.split for r in machines(tmp_path)["fan"]] == ["test", "train"]


def test_the_layout_of_2021_has_a_test_folder_per_domain(tmp_path: Path) -> None:
    touch(tmp_path, "fan/train/section_00_source_train_normal_0000_x.wav")
    touch(tmp_path, *(f"fan/{d}_test/section_00_{d}_test_normal_0000.wav" for d in ("source", "target")))
    assert sorted(r.split for r in machines(tmp_path)["fan"]) == ["test", "test", "train"]


def test_what_is_not_the_layout_is_told_what_the_layout_is(tmp_path: Path) -> None:
    touch(tmp_path, "plain/a.wav", "plain/b.wav", *LAYOUT, "copy/" + LAYOUT[0])
    with pytest.raises(ValueError, match=r"2 recordings \(a.wav, ...\).*expected DATA/<machine>/train"):
        machines(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"give the machine's folder, .*fan"):
        machines(tmp_path / "fan" / "train")
    with pytest.raises(ValueError, match="'fan' is there twice"):
        machines(tmp_path)


def test_a_large_folder_takes_no_time(tmp_path: Path) -> None:
    touch(tmp_path, *(f"fan/train/section_00_source_train_normal_{i:04d}_x_{i % 3}.wav" for i in range(3000)))
    assert len(machines(tmp_path)["fan"]) == 3000


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may open any folder"
)
def test_a_closed_folder_is_passed_over_and_named_if_it_was_all(tmp_path: Path) -> None:
    touch(tmp_path, "closed/a.wav")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(ValueError, match="may not be opened"):
            find(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_the_real_folders_are_read_as_they_are() -> None:
    bldc = machines(shared("data", "dcase2026-form").parent)["bldcMotor"]
    train = [r for r in bldc if r.split == "train"]
    assert len(bldc) == 105 and len(train) == 30 and not any(r.is_anomaly for r in train)
    assert all(r.attributes.startswith("thr_") for r in bldc)
    assert [r.is_anomaly for r in find(shared("data", "mimii-8ch"))].count(True) == 4


def test_files_are_left_out_by_path_or_name(tmp_path: Path) -> None:
    root = touch(tmp_path, "day 1/a.wav", "day 1/b.wav", "day 2/a.wav", "c.wav")
    recordings = find(root)
    assert [r.name for r in leave_out(recordings, ["day 1/a.wav", "b.wav"])] == ["c.wav", "day 2/a.wav"]
    assert len(leave_out(recordings, [str(root / "day 2" / "a.wav"), "c.wav", "c.wav"])) == 2
    with pytest.raises(ValueError, match=r"--without a.wav: 2 recordings have this name: give the folder too"):
        leave_out(recordings, ["a.wav"])
    with pytest.raises(ValueError, match=r"none of the 4 recordings; similar names: day 1/b.wav"):
        leave_out(recordings, ["day 1/bb.wav"])


@pytest.mark.parametrize(
    "name, text",
    [("a b.wav", "a b.wav"), ("ümläut.wav", "ümläut.wav"), ("new\nline.wav", r"new\nline.wav")]
    + [
        ("\x1b[31m.wav", r"\x1b[31m.wav"),
        ("a\u202ewav.exe", r"a\u202ewav.exe"),
        (os.fsdecode(b"n\xff.wav"), r"n\xff.wav"),
    ],
)
def test_a_name_is_shown_on_one_line_and_steers_no_terminal(name: str, text: str) -> None:
    assert shown(name) == text


@pytest.mark.parametrize("text", ["file,label\n" + 200_000 * "[", 200_000 * "[" + "\na.wav"])
def test_a_table_that_is_none_is_a_sentence_that_names_it(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=r"list\.csv: cannot be read as a table"):
        find(tmp_path, tmp_path / "list.csv")


def test_letters_of_one_character_or_of_two_name_the_same_file(tmp_path: Path) -> None:
    one, two = "fr\u00fch.wav", "fru\u0308h.wav"
    touch(tmp_path, two, "b.wav")
    (tmp_path / "manifest.csv").write_text(f"file,label\n{one},anomaly\n", encoding="utf-8")
    found = find(tmp_path)
    assert [r.name for r in found if r.is_anomaly] == [two]
    assert [r.name for r in leave_out(found, [one])] == ["b.wav"]
