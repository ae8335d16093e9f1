"""Data sets of DCASE Task 2, 2020 to 2026: the units of an evaluation, the rules of the year, ground truth.

    unit     one section of one machine (2020: one machine id): a detector is fitted on its train clips alone and scores
             its test clips; since 2023 every machine has one section
    rules    "2020", "2021" or "2022" (unchanged since), recognised by names of files and folders, see `RULES`

    2020     fan/{train,test}/normal_id_00_00000000.wav; evaluation: id_01_00000000.wav
    2021     fan/{train,source_test,target_test}/section_00_source_train_normal_0000_<attributes>.wav
    2022 on  fan/{train,test}/section_00_source_test_anomaly_0000_<attributes>.wav; evaluation: section_00_0000.wav

Where a file name has no attributes, they come from `attributes_00.csv` beside the folders, if that has them. Evaluation
files get their labels from `test_rename` or from ground-truth CSVs, joined by file name.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from nearfar.audio.recordings import Recording, attributes_of, check_machines, decoded, machines, parse
from nearfar.support.words import plural

RULES = {
    "2020": "arithmetic mean of AUC and pAUC over machine ids; there are no domains",
    "2021": "harmonic mean of AUC and pAUC over sections and domains, each domain by its own anomalies",
    "2022": "harmonic mean of AUC source, AUC target and pAUC over machines and sections",
}
LATEST = "2022"
LABEL_WORDS: dict[str, tuple[str, bool]] = {
    "normal": ("is_anomaly", False),
    "anomaly": ("is_anomaly", True),
    "source": ("is_target", False),
    "target": ("is_target", True),
}
SCORES = ("anomaly_score", "decision_result")  # files of a submission, which evaluator folders hold beside the truth
SHOWN = 3  # file names in a message

Labels = dict[str, bool]  # {"is_anomaly": ..., "is_target": ...}, one or both
Truth = dict[tuple[str, str], Labels]  # {(section, file name): labels}


@dataclass(frozen=True)
class Unit:
    """One section of one machine; `name` is the machine's own where it has one section only."""

    machine: str
    section: str
    name: str
    recordings: Sequence[Recording]

    @property
    def train(self) -> list[Recording]:
        """The normal train clips."""
        return [r for r in self.recordings if r.split == "train" and not r.is_anomaly]

    @property
    def test(self) -> list[Recording]:
        """The test clips."""
        return [r for r in self.recordings if r.split == "test"]


@dataclass(frozen=True)
class DataSet:
    """The units of a data set, the rules of its evaluation, and notes for the reader."""

    units: Sequence[Unit]
    rules: str
    notes: Sequence[str] = ()


def read(
    data: str | os.PathLike[str], truth: str | os.PathLike[str] | None = None, only: Sequence[str] = ()
) -> DataSet:
    """The data set at DATA or below it; `truth` is a ground-truth CSV or a folder of them.

    `only` names the machines to keep. Raises ValueError for another layout, for an unknown machine and for ground truth
    that does not fit the files.
    """
    found = machines(data)
    check_machines(only, found, data)
    found = {name: recordings for name, recordings in found.items() if not only or name in only}
    notes: list[str] = []
    if truth is not None:
        found, notes = _with_truth(found, Path(truth))
    units = [
        unit
        for name, recordings in found.items()
        for unit in _units(name, [replace(r, attributes=attributes_of(r.path)) for r in recordings])
    ]
    units, left_out = _with_both_splits(units)
    return DataSet(units, _rules(units), notes + left_out)


def made_up(recording: Recording) -> bool:
    """True for a recording that `nearfar demo` made: its machine may have the name of a real one."""
    from nearfar.demo import MARK

    return (recording.path.absolute().parents[2] / MARK).is_file()


def _units(machine: str, recordings: list[Recording]) -> Iterator[Unit]:
    by_section = sorted(recordings, key=lambda r: r.section)
    groups = {section: list(group) for section, group in groupby(by_section, key=lambda r: r.section)}
    if len(set(groups) - {""}) <= 1:
        yield Unit(machine, next((s for s in groups if s), "00"), machine, recordings)
        return
    if "" in groups:
        raise ValueError(
            f"machine {machine!r} has sections {', '.join(sorted(set(groups) - {''}))}, but the name of "
            f"{groups[''][0].path} says none: does it belong to another data set?"
        )
    for section, group in groups.items():
        word = "id" if parse(group[0].path.name).form == "dcase2020" else "section"
        yield Unit(machine, section, f"{machine} {word} {section}", group)


def _with_both_splits(units: list[Unit]) -> tuple[list[Unit], list[str]]:
    """The units that can be fitted and scored, and notes on the others; ValueError if there are none."""
    whole = [unit for unit in units if len(unit.train) >= 2 and unit.test]
    lacks = [
        f"{unit.name} has {plural(len(unit.train), 'normal train clip')} and {plural(len(unit.test), 'test clip')}"
        for unit in units
        if unit not in whole
    ]
    if not whole:
        first = units[0]
        half = " Is the other part of the data set still to come (evaluation sets come as training and test archives)?"
        why = "" if first.train and first.test else half
        raise ValueError(f"{lacks[0]}; 2 and 1 are the fewest that can be evaluated.{why}")
    return whole, [f"{lack}: left out" for lack in lacks]


def _rules(units: Sequence[Unit]) -> str:
    found: dict[str, str] = {}
    for recording in (r for unit in units for r in unit.test):
        form = parse(recording.path.name).form
        folder = recording.path.absolute().parent.name
        year = "2020" if form == "dcase2020" else "2021" if folder in ("source_test", "target_test") else LATEST
        found.setdefault(year, recording.name)
    if len(found) > 1:
        years = "; ".join(f"{year}: {name}" for year, name in sorted(found.items()))
        raise ValueError(f"these are data sets of different years, with different rules ({years}): give one of them")
    return next(iter(found))


def _with_truth(found: dict[str, list[Recording]], truth: Path) -> tuple[dict[str, list[Recording]], list[str]]:
    """The recordings with the labels and domains of ground-truth CSVs, and notes."""
    by_machine, notes = _truth(truth, list(found))
    if not by_machine:
        raise ValueError(
            f"{truth} holds no ground truth for {', '.join(found)}: expected CSV files named like "
            f"ground_truth_{next(iter(found))}_section_00_test.csv with rows NAME.wav,0 or NAME.wav,1"
        )
    out = dict(found)
    for machine, files in by_machine.items():
        sections = {section for section, _ in files}
        test = {r for r in found[machine] if r.split == "test" and (r.section or "00") in sections}
        names = {(r.section or "00", r.path.name) for r in test}
        labels = {key for key, values in files.items() if "is_anomaly" in values}
        _same_files(machine, truth, [n for _, n in sorted(names - labels)], [n for _, n in sorted(set(files) - names)])
        out[machine] = [_with_labels(r, files, truth) if r in test else r for r in found[machine]]
        if any(r.is_target is None for r in out[machine] if r.split == "test" and r.is_anomaly is not None):
            notes.append(f"{machine}: the ground truth names no domains, so every test clip counts as source")
    return out, notes


def _with_labels(recording: Recording, files: Truth, truth: Path) -> Recording:
    labels = files[recording.section or "00", recording.path.name]
    for key, value in labels.items():
        if getattr(recording, key) not in (None, value):
            raise ValueError(f"{truth} contradicts the name of {recording.path}: which of them is right?")
    return replace(recording, **labels)  # type: ignore[arg-type]


def _same_files(machine: str, truth: Path, missing: list[str], extra: list[str]) -> None:
    if missing or extra:
        differences = [
            f"{len(names)} {what}: {', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}"
            for what, names in (("test files without a row", missing), ("rows without a test file", extra))
            if names
        ]
        raise ValueError(
            f"{truth} does not fit the test files of {machine}: {'; '.join(differences)}. "
            "Is it the truth of this data set, and is the data set complete?"
        )


def _truth(truth: Path, machines: list[str]) -> tuple[dict[str, Truth], list[str]]:
    """The labels in the CSVs at `truth` by machine, and notes on files for other machines."""
    if not truth.exists():
        raise FileNotFoundError(f"no such ground truth: {truth}")
    by_machine: dict[str, Truth] = {}
    notes = []
    for path in [truth] if truth.is_file() else sorted(truth.rglob("*.csv")):
        match = re.search(r"_section_(\d+)", path.stem)
        if match is None or path.name.startswith(SCORES):
            continue
        before = path.stem[: match.start()]
        fits = [m for m in machines if before == m or before.endswith("_" + m)]
        if not fits:
            notes.append(f"{path.name} is of a machine that the data set does not have")
            continue
        files = by_machine.setdefault(max(fits, key=len), {})
        about = path.parent.name if truth.is_file() else str(path.relative_to(truth))
        for name, labels in _rows(path, "is_target" if "domain" in about.lower() else "is_anomaly"):
            files.setdefault((match[1], name), {}).update(labels)
    return by_machine, notes


def _rows(path: Path, column: str) -> Iterator[tuple[str, Labels]]:
    """(file name, labels) of a CSV's rows: 0 or 1 for `column`, words like "normal", or the file's labelled name."""
    seen: dict[str, int] = {}
    try:
        for line, cells in enumerate(csv.reader(io.StringIO(decoded(path.read_bytes()), newline="")), start=1):
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            name = Path(cells[0]).name
            if name in seen:
                raise ValueError(f"{path}, row {line}: {name} is already in row {seen[name]}")
            seen[name] = line
            labels: Labels = {}
            for cell in cells[1:]:
                labels.update(_labels(cell, column))
            if not labels and "attribut" not in str(path).lower():
                raise ValueError(f"{path}, row {line}: {','.join(cells)!r} is no row NAME.wav,0 or NAME.wav,1")
            yield name, labels
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as a table ({error})") from None


def _labels(cell: str, column: str) -> Labels:
    if cell in ("0", "1"):
        return {column: cell == "1"}
    if cell.lower() in LABEL_WORDS:
        key, value = LABEL_WORDS[cell.lower()]
        return {key: value}
    name = parse(cell)
    return {k: v for k, v in (("is_anomaly", name.is_anomaly), ("is_target", name.is_target)) if v is not None}
