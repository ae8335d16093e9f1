"""A folder -> the recordings in it, and what their own names say (plain folders and the DCASE Task 2 layout).

    plain folder   any file names, any depth; a CSV manifest (file, domain, label, machine) adds facts
    DCASE layout   DATA/<machine>/{train,test}/section_00_source_train_normal_0000_<attributes>.wav, years 2020 to 2026

Labels and domains come from a file's own name or from the manifest, never from the folders above it: a folder called
"normal_sounds" proves nothing. Hidden files and files that are not audio are ignored; audio in a format that is not
read, links that lead nowhere and folders that may not be opened give a Python warning. Empty files count as recordings,
so that reading them reports an error.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from nearfar.support.cells import unescaped
from nearfar.support.files import file_fingerprint
from nearfar.support.words import plural, shown

SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist"),
)
READS = "WAV, W64, FLAC, OGG, OPUS, MP3, AIFF, AU, CAF and VOC"
UNREAD = (  # sound, as phones, recorders and players write it
    *(".m4a", ".m4b", ".mp4", ".aac", ".wma", ".amr", ".3gp", ".mov", ".webm", ".mka", ".mkv", ".avi", ".ac3"),
    *(".ape", ".wv", ".tta", ".dsf", ".dff", ".mp2", ".ra", ".raw", ".pcm", ".gsm", ".dss", ".ds2", ".adts"),
)
CONVERT = f"nearfar reads {READS}: convert it to WAV first, as ffmpeg -i IN OUT.wav does"
RENAMED = "test_rename"  # test files with labels in their names, published after the challenge; replaces `test`
SPLITS = {"train": "train", "test": "test", RENAMED: "test", "source_test": "test", "target_test": "test"}
MANIFEST = "manifest.csv"
DOMAINS = {"source": False, "target": True, "": None}
LABELS = {"normal": False, "anomaly": True, "anomalous": True, "": None}
LAYOUT = "DATA/<machine>/train/*.wav and DATA/<machine>/test/*.wav"

_DCASE = re.compile(
    r"section_(?P<section>\d+)_(?:(?P<domain>source|target)_)?(?:(?P<split>train|test)_)?"
    r"(?:(?P<label>normal|anomaly)_)?\d+(?:_(?P<attributes>.*))?"
)
_DCASE_2020 = re.compile(r"(?:(?P<label>normal|anomaly)_)?(?P<attributes>id_(?P<section>\d+))_\d+")
_MIMII = re.compile(r"(?!(?:no|non|not)_)[A-Za-z0-9-]+_(?P<label>normal|anomaly)_\d+")

Files = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Recording:
    """One file. `name` is its path below the folder it was found in, as `shown`; None and "" where nothing is known."""

    path: Path
    name: str
    machine: str = ""
    split: str = ""  # "train" | "test" | ""
    is_target: bool | None = None
    is_anomaly: bool | None = None
    attributes: str = ""
    section: str = ""  # "00"; the machine's id in names of 2020

    @property
    def domain(self) -> str:
        """ "source", "target", or "" if it is unknown."""
        return {None: "", False: "source", True: "target"}[self.is_target]

    @property
    def label(self) -> str:
        """ "normal", "anomaly", or "" if it is unknown."""
        return {None: "", False: "normal", True: "anomaly"}[self.is_anomaly]


@dataclass(frozen=True)
class NameFacts:
    """The facts in a file's own name; `form` is "dcase", "dcase2020" or "" for any other name."""

    split: str = ""
    is_target: bool | None = None
    is_anomaly: bool | None = None
    attributes: str = ""
    section: str = ""
    form: str = ""


def parse(name: str) -> NameFacts:
    """The facts in a file name; the folders in front of it are ignored."""
    stem = re.split(r"[\\/]", name)[-1].rsplit(".", 1)[0]
    if match := _DCASE.fullmatch(stem):
        attributes = match["attributes"] or ""
        attributes = "" if attributes == "noAttribute" else attributes
        domain, label = DOMAINS[match["domain"] or ""], LABELS[match["label"] or ""]
        return NameFacts(match["split"] or "", domain, label, attributes, match["section"], "dcase")
    if match := _DCASE_2020.fullmatch(stem):
        return NameFacts("", None, LABELS[match["label"] or ""], match["attributes"], match["section"], "dcase2020")
    if match := _MIMII.fullmatch(stem):
        return NameFacts("", None, LABELS[match["label"]])
    return NameFacts()


def attributes_of(path: Path) -> str:
    """How the machine ran, "spd_1_load_2", by the file's name, else by attributes_NN.csv beside its folder; or ""."""
    folder = path.absolute().parent
    if known := parse(path.name).attributes:
        return known
    tables = tuple((table, *file_fingerprint(table)) for table in sorted(folder.parent.glob("attributes_*.csv")))
    return _listed(tables).get((folder.name, path.name), "")


@lru_cache(maxsize=64)
def _listed(tables: tuple[tuple[Path, int, int], ...]) -> dict[tuple[str, str], str]:
    """{(split folder, file name): attributes} of tables with the columns file_name, d1p, d1v, d2p, d2v, ..."""
    found = {}
    for _, row in (each for table, *_ in tables for each in rows(table)):
        file = Path(row["file"].replace("\\", "/"))
        values = [value for column, value in row.items() if re.fullmatch(r"d\d+[pv]", column) and value]
        found[file.parent.name, file.name] = "_".join(values)
    return found


def find(folder_or_files: Files, manifest: str | os.PathLike[str] | None = None) -> list[Recording]:
    """The recordings in a folder (any depth), a file, or several of either, sorted by name.

    `manifest`: a CSV file; without one, a manifest.csv at the top of the folder is used if it is there.
    Raises FileNotFoundError or ValueError naming the folder, what was expected and the likely cause.
    """
    given = (
        [Path(folder_or_files)] if isinstance(folder_or_files, (str, os.PathLike)) else [*map(Path, folder_or_files)]
    )
    if not given:
        raise ValueError("no folder and no files were given")
    walk = _Walk()
    paths = [path for item in given for path in _recordings_at(item, walk)]
    top = given[0] if given[0].is_dir() else given[0].parent
    if len(given) > 1:
        top = Path(os.path.commonpath([item.absolute() if item.is_dir() else item.absolute().parent for item in given]))
        paths = list({path.absolute(): path.absolute() for path in paths})
    if not paths:
        raise ValueError(_nothing_in(given[0], walk.others, walk.closed))
    if unread := [(suffix, n) for suffix, n in walk.others.most_common() if suffix in UNREAD]:
        warnings.warn(f"{shown(given[0])}: {_kinds(unread)} passed over; {CONVERT}", stacklevel=2)
    for passed_over, why in (
        (walk.closed, "this user may not open the folder"),
        (walk.broken, "a link to a file that is not there"),
    ):
        if passed_over:
            more = f" (and {len(passed_over) - 1:,} more)" if passed_over[1:] else ""
            warnings.warn(f"{shown(passed_over[0])}{more} is passed over: {why}", stacklevel=2)
    found = sorted((_recording(path, top) for path in paths), key=lambda r: r.name)
    if manifest is None and (top / MANIFEST).is_file():
        manifest = top / MANIFEST
    return found if manifest is None else _with_manifest(found, Path(manifest), top)


def machines(data: str | os.PathLike[str]) -> dict[str, list[Recording]]:
    """{machine: its recordings} of DATA in the DCASE layout, any of its parents, or one machine's own folder.

    Raises ValueError saying what the layout looks like if this is not it, or if a machine occurs twice.
    """
    data = Path(data)
    found: dict[str, list[Recording]] = defaultdict(list)
    homes: dict[str, Path] = {}
    everything = find(data)
    for recording in everything:
        split = recording.path.absolute().parent
        if split.name not in SPLITS:
            continue
        home = split.parent
        if homes.setdefault(home.name, home) != home:
            raise ValueError(
                f"machine {home.name!r} is there twice, in {homes[home.name]} and {home}: give one of them"
            )
        found[home.name].append(replace(recording, machine=home.name, split=SPLITS[split.name]))
    if data.absolute().name in SPLITS and found:
        raise ValueError(
            f"{data} is one part of a machine's recordings: give the machine's folder, {data.absolute().parent}"
        )
    if not found:
        raise ValueError(
            f"{data} holds {plural(len(everything), 'recording')} ({everything[0].name}, ...) but no machine's "
            f"folder: expected {LAYOUT}"
        )
    return dict(sorted(found.items()))


def check_machines(only: Iterable[str], found: Iterable[str], where: object) -> None:
    """ValueError for a name in `only` that is not among the machines `found` at `where`."""
    if unknown := sorted(set(only) - set(found)):
        raise ValueError(f"no machine {', '.join(unknown)} in {where}; it has {', '.join(found)}")


def select_normals(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """The recordings to fit on, and notes about those that are left out.

    The train split alone if there is one, without recordings that their names or a manifest call anomalous. ValueError
    if they are of several machines.
    """
    notes = []
    kept = [r for r in recordings if r.split == "train"] or list(recordings)
    if others := len(recordings) - len(kept):
        notes.append(f"only the train split is used: {plural(len(kept), 'recording')}; {others:,} others are not")
    machines = sorted({r.machine for r in kept if r.machine})
    if len(machines) > 1:
        raise ValueError(f"these are recordings of {len(machines)} machines ({', '.join(machines)}): fit one at a time")
    if faulty := [r for r in kept if r.is_anomaly]:
        anomalous = plural(len(faulty), "recording")
        notes.append(f"left out: {anomalous} named or listed as anomalous, {faulty[0].name} first")
    return [r for r in kept if not r.is_anomaly], notes


def leave_out(recordings: Sequence[Recording], files: Sequence[str]) -> list[Recording]:
    """The recordings without `files`: paths, names below the folder, or file names.

    ValueError for a file that is none of the recordings, and for a file name that several have.
    """
    left_out: set[Path] = set()
    for file in files:
        name = _composed(file)
        exact = [r.path for r in recordings if name == _composed(r.name) or Path(file).absolute() == r.path.absolute()]
        found = exact or [r.path for r in recordings if _composed(r.path.name) == name]
        if len(found) > 1:
            raise ValueError(f"--without {file}: {len(found)} recordings have this name: give the folder too")
        if not found:
            near = get_close_matches(file, [r.name for r in recordings])
            guess = f"; similar names: {', '.join(near)}" if near else ""
            raise ValueError(f"--without {file}: it is none of the {plural(len(recordings), 'recording')}{guess}")
        left_out.update(found)
    return [r for r in recordings if r.path not in left_out]


@dataclass
class _Walk:
    """The state of a walk through folders; each folder is visited once, however many links lead to it."""

    seen: set[tuple[int, int]] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)  # files that are not audio, by suffix
    closed: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)  # links that lead nowhere

    def below(self, folder: Path) -> Iterator[Path]:
        folders = [folder]
        while folders:
            here = folders.pop()
            status = here.stat()
            if (status.st_dev, status.st_ino) in self.seen:
                continue
            self.seen.add((status.st_dev, status.st_ino))
            try:
                entries = sorted(os.scandir(here), key=lambda e: (e.is_symlink(), e.name))
            except OSError:
                self.closed.append(here)
                continue
            inside = []
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                path = here / entry.name
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError:  # a link that leads back to itself
                    is_folder = is_file = False
                if is_folder:
                    inside.append(path)
                elif path.suffix.lower() in SUFFIXES and is_file:
                    yield path
                elif entry.is_symlink() and not path.exists():
                    self.broken.append(path)
                else:
                    self.others[path.suffix.lower() or "no extension"] += 1
            if {"test", RENAMED} <= {path.name for path in inside} and any(_Walk().below(here / RENAMED)):
                inside = [path for path in inside if path.name != "test"]
            folders += reversed(inside)


def _recordings_at(item: Path, walk: _Walk) -> Iterator[Path]:
    if item.is_dir():
        yield from walk.below(item)
    elif not item.exists() and not item.is_symlink():
        where = next((p for p in item.absolute().parents if p.exists()), None)
        raise FileNotFoundError(f"no such folder or recording: {shown(item)} (the path exists up to {where})")
    elif (suffix := item.suffix.lower()) not in SUFFIXES:
        hint = CONVERT if suffix in UNREAD else f"nearfar reads {READS}"
        raise ValueError(f"{shown(item)} is not a recording that can be read; {hint}")
    else:
        yield item


def _recording(path: Path, top: Path) -> Recording:
    facts = parse(path.name)
    above = path.absolute().parent
    split = SPLITS.get(above.name, facts.split)
    machine = above.parent.name if facts.form and above.name in SPLITS else ""
    name = shown(Path(os.path.relpath(path, top)).as_posix())
    return Recording(path, name, machine, split, facts.is_target, facts.is_anomaly, facts.attributes, facts.section)


def _with_manifest(found: list[Recording], manifest: Path, top: Path) -> list[Recording]:
    """The recordings with the facts of the manifest; facts that it leaves open stay."""
    by_name = {recording.name: recording for recording in found}
    by_letters = {_composed(recording.name): recording.name for recording in found}
    by_path = {Path(os.path.realpath(recording.path)): recording.name for recording in found}
    seen: dict[str, int] = {}
    for line, row in rows(manifest):
        file = row["file"].replace("\\", "/")
        name = file.removeprefix("./")
        if name not in by_name:
            name = by_path.get(Path(os.path.realpath(manifest.parent / file))) or by_letters.get(_composed(name), "")
        where = f"{manifest}, row {line}"
        if not name:
            raise ValueError(f"{where}: there is no recording {row['file']!r} in {top}; is the path relative to it?")
        if name in seen:
            raise ValueError(f"{where}: {row['file']!r} is already in row {seen[name]}")
        seen[name] = line
        old = by_name[name]
        is_target, is_anomaly = (
            _value(where, column, row.get(column, ""), choices)
            for column, choices in (("domain", DOMAINS), ("label", LABELS))
        )
        by_name[name] = replace(
            old,
            machine=row.get("machine", "") or old.machine,
            is_target=old.is_target if is_target is None else is_target,
            is_anomaly=old.is_anomaly if is_anomaly is None else is_anomaly,
        )
    return list(by_name.values())


def _composed(name: str) -> str:
    """A name whose letters are one character each: macOS writes ü as two."""
    return unicodedata.normalize("NFC", name)


def _value(where: str, column: str, value: str, choices: dict[str, bool | None]) -> bool | None:
    if value.lower() not in choices:
        raise ValueError(
            f"{where}: {column} {value!r} is not one of {', '.join(filter(None, choices))} (or left empty)"
        )
    return choices[value.lower()]


def rows(manifest: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, {column: value}) of a CSV file as Excel writes it: comma, semicolon or tab, any usual encoding."""
    if not manifest.is_file():
        raise FileNotFoundError(f"no such manifest: {manifest}")
    lines = decoded(manifest.read_bytes()).splitlines()
    first = 1 if lines and lines[0].lower().startswith("sep=") else 0  # Excel's own first line
    header = lines[first] if len(lines) > first else ""
    reader = csv.reader(io.StringIO("\n".join(lines[first:])), delimiter=max(",;\t", key=header.count))
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        columns = ["file" if column in ("file_name", "filename") else column for column in columns]
        if "file" not in columns:
            raise ValueError(
                f"{manifest}: its first row must name the columns: file and any of domain, label, machine; it is "
                f"{header!r}"
            )
        for cells in reader:
            row = dict(zip(columns, (unescaped(cell.strip()) for cell in cells), strict=False))
            if row.get("file"):
                yield reader.line_num + first, row
            elif any(row.values()):
                raise ValueError(f"{manifest}, row {reader.line_num + first}: names no file")
    except csv.Error as error:
        raise ValueError(f"{manifest}: cannot be read as a table ({error})") from None


def decoded(data: bytes) -> str:
    """The text of a file in any encoding that Excel writes."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _nothing_in(folder: Path, others: Counter[str], closed: list[Path]) -> str:
    why = "it is empty"
    if others:
        why = f"it holds {_kinds(others.most_common(3))}{' and others' * (len(others) > 3)}"
    elif closed:
        why = f"{closed[0]} may not be opened by this user"
    hint = CONVERT if others.keys() & set(UNREAD) else f"nearfar reads {READS}"
    return f"no recordings in {folder}: {why}; {hint}"


def _kinds(files: Iterable[tuple[str, int]]) -> str:
    return ", ".join(plural(n, f"{suffix} file") for suffix, n in files)
