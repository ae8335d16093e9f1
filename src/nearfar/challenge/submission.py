"""Submissions in the challenge's form (since 2022): writing one, and checking any folder against it.

    anomaly_score_<machine>_section_00_test.csv      NAME.wav,SCORE     no header; higher is more anomalous
    decision_result_<machine>_section_00_test.csv    NAME.wav,0 or 1    no header; 1 = anomaly: score > set-point
    LABEL.meta.yaml, LABEL.zip                       the organisers' questions about the system; all files packed

Rows are sorted by file name, lines end with one LF, and scores have all the digits that a float64 needs. The official
evaluator pairs its rows with those of a submission by position, so one missing, extra or misplaced row shifts all rows
after it. `check` looks at every file by itself (name, bytes, rows, values), compares the two files of a machine, and
compares the rows with the test files of the data set, joined by name.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.audio.recordings import machines
from nearfar.encoders import TABLE
from nearfar.metrics import METRICS
from nearfar.recipe import Fusion, Recipe, System, Watch, leaves
from nearfar.support.files import atomic_write
from nearfar.support.words import listed

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation, MachineEvaluation

LABEL = "Lastname_Institute_task2_1"
KINDS = ("anomaly_score", "decision_result")
PARTNER = dict(zip(KINDS, reversed(KINDS), strict=True))  # the other file of a machine
NAME = re.compile(rf"({'|'.join(KINDS)})_(.+)_section_(\d\d)_test\.csv")
SHOWN = 3  # findings of a kind


@dataclass(frozen=True)
class Finding:
    """An error in a file of a submission; `line` counts from 1, and 0 is the file as a whole."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.what}"


@dataclass
class _Table:
    """A CSV file as it was read: {file name: line} in the order of the file, and its errors."""

    file: str
    kind: str
    rows: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, line: int, what: str) -> None:
        self.findings.append(Finding(self.file, line, what))


def submit(
    folder: str | os.PathLike[str],
    evaluation: Evaluation,
    data: str | os.PathLike[str],
    label: str = LABEL,
    only: Sequence[str] = (),
) -> list[Finding]:
    """Write the submission of an evaluation to `folder` and return the findings of `check` with DATA.

    `only` names the machines that were evaluated, if not all.

    Raises ValueError for an evaluation by older rules or with failed clips (a submission has a row for every clip) and
    for a label of another form, FileExistsError if the folder holds other CSV files.
    """
    if evaluation.rules in ("2020", "2021"):
        raise ValueError(
            f"submissions are written in the form of 2022 and later; this data set is of {evaluation.rules}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", label):
        raise ValueError(f"label {label!r} is not of the form {LABEL}: letters, digits, - and _ only")
    _check_complete(evaluation)
    folder = Path(folder)
    files = {name: text for m in evaluation.machines for name, text in tables(m).items()}
    others = sorted({p.name for p in folder.glob("*.csv")} - set(files)) if folder.is_dir() else []
    if others:
        raise FileExistsError(f"{folder} holds other CSV files ({others[0]}, ...): choose an empty folder")
    about = folder / f"{label}.meta.yaml"  # an old one may have been filled in by hand: it stays
    files[about.name] = about.read_text("utf-8") if about.is_file() else metadata(evaluation, label)
    for name, text in files.items():
        atomic_write(folder / name, text)
    atomic_write(folder / f"{label}.zip", packed(files, label))
    return check(folder, data, only=list(only))


def tables(m: MachineEvaluation) -> dict[str, str]:
    """{file name: text} of the two CSVs of a machine; the decision is score > set-point."""
    rows = sorted((r.path.name, s.score, s.score > s.threshold) for r, s in zip(m.recordings, m.scores, strict=True))
    return {
        name_of("anomaly_score", m.machine, m.section): "".join(f"{name},{value!r}\n" for name, value, _ in rows),
        name_of("decision_result", m.machine, m.section): "".join(f"{name},{int(alarm)}\n" for name, _, alarm in rows),
    }


def packed(files: Mapping[str, str], label: str) -> bytes:
    """The zip archive of a submission, task2/LABEL/...; the same files give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(f"task2/{label}/{name}")  # dated 1980, the earliest date of the format
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def metadata(evaluation: Evaluation, label: str) -> str:
    """The metadata file in YAML; values that nearfar does not know are `!!null`, to be filled in by hand."""
    detector = next(m.detector for m in evaluation.machines if m.detector.system is not None)
    system, point = detector.system, detector.threshold
    assert system is not None
    recipes = list(leaves(system))
    encoders = list(dict.fromkeys(r.encoder for r in recipes))
    networks = any(TABLE[name].has_weights for name in encoders)
    parameters = [TABLE[name].parameters for name in encoders]
    total = None if None in parameters else sum(p for p in parameters if p is not None)
    about = {
        "input_sampling_rate": f"{max(detector.encoders[name].sample_rate for name in encoders) / 1000:g}kHz",
        "data_augmentation": None,
        "front_end": ", ".join(dict.fromkeys(r.view for r in recipes)),
        "acoustic_features": "embeddings of frozen networks" if networks else "log-mel energies",
        "embeddings": ", ".join(encoders),
        "machine_learning_method": ", ".join(dict.fromkeys(r.method for r in recipes)),
        "aggregation_method": _aggregation(system),
        "domain_adaptation_method": None,
        "domain_generalization_method": None,
        "ensemble_method_subsystem_count": len(recipes) if len(recipes) > 1 else None,
        "decision_making": f"{point.method}, {100 * point.rate:g} % of normal clips",
        "attribute_usage": None,
        "external_data_usage": "pre-trained model" if networks else None,
        "development_data_usage": "development",
    }
    lines = ["# Submission information", "submission:", f"  label: {_yaml(label)}", *_SUBMITTER]
    lines += ["# System information", "system:", "  description:", *(f"    {k}: {_yaml(v)}" for k, v in about.items())]
    lines += ["  complexity:", f"    total_parameters: {_yaml(total)}", "    MACS: !!null", "  source_code: !!null"]
    lines += ["# System results, in percent", "results:", *_results(evaluation.machines)]
    return "\n".join(lines) + "\n"


_SUBMITTER = (
    "  name: !!null  # fill in",
    "  abbreviation: !!null  # fill in, at most 10 characters",
    "  authors:",
    "    - firstname: !!null  # fill in",
    "      lastname: !!null  # fill in",
    "      email: !!null  # fill in",
    "      corresponding: true",
    "      affiliation:",
    "        institution: !!null  # fill in",
    "        department: !!null",
    "        location: !!null",
)


def _results(machines: Sequence[MachineEvaluation]) -> list[str]:
    with_labels = [m for m in machines if m.result is not None]
    if not with_labels:
        return ["  development_dataset: !!null  # fill in: nearfar evaluate DEVELOPMENT_DATA"]
    lines = ["  development_dataset:"]
    for m in with_labels:
        lines.append(f"    {_yaml(m.name)}:")
        for key in METRICS:
            value = float(getattr(m.result, key))
            lines.append(f"      {key}: {_yaml(None if value != value else round(100 * value, 2))}")
    return lines


def _aggregation(system: System) -> str | None:
    if isinstance(system, Watch):
        return "rarest part"
    expanded = system.expand() if isinstance(system, Recipe) else system
    return "weighted average of aligned scores" if isinstance(expanded, Fusion) else None


def _check_complete(evaluation: Evaluation) -> None:
    failed = [f"{m.name}: {m.error}" for m in evaluation.machines if m.error]
    failed += [f"{m.name}: {name}" for m in evaluation.machines for name in m.unscored]
    if failed:
        raise ValueError(
            f"a submission has a row for every test clip, and {len(failed)} could not be scored; the first: {failed[0]}"
        )


def _yaml(value: object) -> str:
    """A value as YAML: JSON is YAML too."""
    return "!!null" if value is None else json.dumps(value, ensure_ascii=False)


def name_of(kind: str, machine: str, section: str = "00") -> str:
    """Name of a submission's file: kind "anomaly_score" or "decision_result"."""
    return f"{kind}_{machine}_section_{section}_test.csv"


def check(
    folder: str | os.PathLike[str], data: str | os.PathLike[str] | None = None, only: list[str] | None = None
) -> list[Finding]:
    """All errors of the submission in `folder`.

    With DATA the rows must be its test files, of the machines `only` or of all. Raises FileNotFoundError if there is no
    such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        return [Finding(folder.name, 0, f"holds no CSV files: expected {name_of(KINDS[0], '<machine>')} and its like")]
    findings, tables = [], {}
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None:
            expected = f"expected {name_of(KINDS[0], '<machine>')} or {name_of(KINDS[1], '<machine>')}"
            findings.append(Finding(path.name, 0, f"is no name that the challenge knows: {expected}"))
            continue
        tables[match[1], match[2], match[3]] = _read(path, match[1])
    for table in tables.values():
        findings += _first_of_each_kind(table.findings)
    findings += _compare_halves(tables)
    if data is not None:
        findings += _compare_with_data(tables, _test_files(data, only))
    return findings


def _read(path: Path, kind: str) -> _Table:
    table = _Table(path.name, kind)
    raw = path.read_bytes()
    if raw[:3] == b"\xef\xbb\xbf":
        table.add(
            0, "begins with a byte-order mark, which becomes a part of the first file name: save it as plain UTF-8"
        )
        raw = raw[3:]
    if b"\r" in raw:
        table.add(0, "has Windows line ends (CR LF): save it with LF alone")
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        table.add(0, "is not UTF-8 text")
        return table
    for line, row in enumerate(text.removesuffix("\n").split("\n"), start=1):
        _row(table, line, row)
    misplaced = next((name for name, other in zip(table.rows, sorted(table.rows), strict=True) if name != other), None)
    if misplaced:
        table.add(table.rows[misplaced], "rows are not sorted by file name, and the evaluator pairs by position")
    return table


def _row(table: _Table, line: int, row: str) -> None:
    cells = row.split(",")
    name = cells[0].strip()
    if not row.strip():
        table.add(line, "is empty")
        return
    if line == 1 and not name.lower().endswith(".wav"):
        table.add(line, f"{row!r} looks like a header: the file must begin with its first row")
        return
    if len(cells) != 2:
        table.add(line, f"{row!r} has {len(cells)} columns: expected NAME.wav,VALUE")
        return
    if not name.endswith(".wav") or "/" in name or "\\" in name or name != cells[0]:
        table.add(line, f"{cells[0]!r} is not the plain name of a WAV file")
    if name in table.rows:
        table.add(line, f"{name} is already in line {table.rows[name]}")
    else:
        table.rows[name] = line
    if error := _error_of(table.kind, cells[1]):
        table.add(line, error)


def _error_of(kind: str, cell: str) -> str:
    """The error in a value, "" if it has none."""
    if kind == KINDS[1]:
        return "" if cell in ("0", "1") else f"decision {cell!r} is not 0 or 1"
    try:
        value = float(cell)
    except ValueError:
        return f"score {cell!r} is not a number"
    return "" if math.isfinite(value) else f"score {cell!r} is not finite"


def _compare_halves(tables: dict[tuple[str, str, str], _Table]) -> Iterator[Finding]:
    """Differences between the two files of a machine."""
    for (kind, machine, section), table in tables.items():
        other = tables.get((PARTNER[kind], machine, section))
        if other is None:
            yield Finding(table.file, 0, f"its other half is missing: {name_of(PARTNER[kind], machine, section)}")
        elif missing := sorted(set(other.rows) - set(table.rows)):
            yield Finding(table.file, 0, f"lacks {listed(missing)}, which {other.file} has")


def _compare_with_data(
    tables: dict[tuple[str, str, str], _Table], files: dict[tuple[str, str], set[str]]
) -> Iterator[Finding]:
    """Differences between the rows and the test files of the data set, then the machines without any file."""
    for (_, machine, section), table in tables.items():
        wanted = files.get((machine, section))
        if wanted is None:
            have = ", ".join(f"{m} section {s}" for m, s in sorted(files))
            yield Finding(table.file, 0, f"the data set has no {machine} section {section}; it has {have}")
            continue
        if missing := sorted(wanted - set(table.rows)):
            yield Finding(table.file, 0, f"lacks {len(missing)} of {len(wanted)} test files: {listed(missing)}")
        if extra := sorted(set(table.rows) - wanted):
            what = f"{len(extra)} rows are no test files of {machine}: {listed(extra)}"
            yield Finding(table.file, table.rows[extra[0]], what)
    for kind in KINDS:
        for machine, section in sorted(files):
            if (KINDS[0], machine, section) not in tables and (KINDS[1], machine, section) not in tables:
                what = f"is missing: {len(files[machine, section])} test files have no row"
                yield Finding(name_of(kind, machine, section), 0, what)


def _test_files(data: str | os.PathLike[str], only: list[str] | None) -> dict[tuple[str, str], set[str]]:
    """{(machine, section): names of its test files}."""
    files: dict[tuple[str, str], set[str]] = {}
    for machine, recordings in machines(data).items():
        for r in recordings:
            if r.split == "test" and (not only or machine in only):
                files.setdefault((machine, r.section or "00"), set()).add(r.path.name)
    return files


def _first_of_each_kind(findings: list[Finding]) -> list[Finding]:
    """At most SHOWN findings of each kind, by line; the last of a kind counts the others."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(re.sub(r"'[^']*'|\d+|\S+\.wav", "#", finding.what), []).append(finding)
    shown = []
    for same in kinds.values():
        shown += same[:SHOWN]
        if more := len(same[SHOWN:]):
            shown[-1] = replace(shown[-1], what=f"{shown[-1].what} (and {more} more lines like it)")
    return sorted(shown, key=lambda finding: finding.line)
