"""Download the data sets of DCASE Task 2 from Zenodo to the folders that `layout` reads.

    TO/dcase2026t2/dev_data/raw/<machine>/{train,test}/*.wav, attributes_00.csv      "dcase2026-dev"
    TO/dcase2026t2/eval_data/raw/<machine>/{train,test}/*.wav                        "dcase2026-add", "dcase2026-eval"

Zenodo's listing of a record names its archives and their MD5. Of an archive with several revisions the newest is taken.
An archive is fetched (resumed after a break), checked, unpacked file by file, each whole or not at all, and removed. A
receipt in the machine's folder lists the files, so complete machines are not fetched again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from nearfar.audio.recordings import check_machines
from nearfar.errors import DownloadError
from nearfar.support.check import choose
from nearfar.support.download import Expected, fetch
from nearfar.support.files import atomic_file, atomic_write
from nearfar.support.progress import Progress
from nearfar.support.words import as_sentence

SITE = "https://zenodo.org"
LICENCE = "CC BY-NC-SA 4.0 (attribution, no commercial use, share alike)"
RECEIPT = ".pulled.json"
SPARE = 100 << 20  # bytes that stay free on the disk


@dataclass(frozen=True)
class Record:
    """A record of Zenodo: one part of one year's data set."""

    number: int
    year: int
    part: str  # "dev" | "add" (additional training clips of the evaluation machines) | "eval" (their test clips)

    @property
    def raw(self) -> PurePosixPath:
        """Folder of its machines, below the folder of all data sets."""
        return PurePosixPath(f"dcase{self.year}t2", "dev_data" if self.part == "dev" else "eval_data", "raw")


RECORDS = {
    f"dcase{year}-{part}": Record(number, year, part)
    for year, numbers in {
        2026: (19336329, 20151556, 20437238),
        2025: (15097779, 15392814, 15519362),
        2024: (10902294, 11259435, 11363076),
        2023: (7882613, 7830345, 7860847),
    }.items()
    for part, number in zip(("dev", "add", "eval"), numbers, strict=True)
}
FILE_PATTERNS = {"dev": "dev_*.zip", "add": "eval_*_train.zip", "eval": "eval_*_test.zip"}
ARCHIVES = {
    "dev": r"dev_(?:data_)?(?P<machine>.+?)(?:_r(?P<revision>\d+))?\.zip",
    "add": r"eval_(?:data_)?(?P<machine>.+?)_train(?:_r(?P<revision>\d+))?\.zip",
    "eval": r"eval_(?:data_)?(?P<machine>.+?)_test(?:_r(?P<revision>\d+))?\.zip",
}
MD5 = {"dev_ToyCar_r2.zip": "353201db217e25377a7e7eccf9c1c8a7"}  # replaced the first dev_ToyCar.zip in April 2026


@dataclass(frozen=True)
class Archive:
    """An archive of a record: the clips of one machine."""

    name: str
    machine: str
    url: str
    size: int
    md5: str


@dataclass(frozen=True)
class Listing:
    """Zenodo's description of a record."""

    record: Record
    title: str
    licence: str
    archives: Sequence[Archive]


def listing(name: str, mirrors: Mapping[str, str] | None = None) -> Listing:
    """The archives of the data set `name`, a key of RECORDS, as Zenodo lists them now."""
    record = choose("data set", name, RECORDS)
    url = f"{SITE}/api/records/{record.number}"
    with tempfile.TemporaryDirectory() as folder, _or_by_hand(record, FILE_PATTERNS[record.part], "DATA" / record.raw):
        text = fetch(url, Path(folder) / "record.json", mirrors=mirrors).read_text(encoding="utf-8")
    try:
        return _parse_listing(record, json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{url} is not the listing of a record: {error!r}") from None


def pull(
    found: Listing,
    to: str | os.PathLike[str],
    machines: Sequence[str] = (),
    *,
    mirrors: Mapping[str, str] | None = None,
    keep: bool = False,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Fetch and unpack the archives of a listing below `to`, of all machines or these: {machine: its folder}.

    `keep` leaves the archives in place. Raises DownloadError (an OSError) or ValueError; partial downloads are kept.
    """
    check_machines(machines, [archive.machine for archive in found.archives], found.title)
    raw = Path(to) / found.record.raw
    out = {}
    for archive in found.archives:
        if machines and archive.machine not in machines:
            continue
        out[archive.machine] = raw / archive.machine
        if _is_here(raw, archive):
            continue
        file = raw / ".archives" / archive.name
        with _or_by_hand(found.record, archive.name, raw):
            fetch(archive.url, file, Expected(md5=archive.md5, size=archive.size), mirrors=mirrors, progress=progress)
        files = unpack(file, raw, archive.machine, progress)
        _write_receipt(raw, archive, files)
        if not keep:
            file.unlink()
    return out


def unpack(archive: Path, raw: Path, machine: str, progress: Progress | None = None) -> list[tuple[str, int]]:
    """Unpack one machine's archive to raw/<machine>: (path below it, size) of every file.

    Files with the right content stay. ValueError for a damaged archive, and for entries outside the machine's folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            plan = list(_plan(opened, archive.name, machine))
            _check_space(raw, sum(i.file_size for i, path in plan if not _has_size(raw / path, i.file_size)), archive)
            for done, (info, path) in enumerate(plan, start=1):
                if not _has_content(raw / path, info):
                    with atomic_file(raw / path) as draft, draft.open("wb") as out, opened.open(info) as entry:
                        shutil.copyfileobj(entry, out)
                if progress:
                    progress(done, len(plan), f"unpacking {archive.name}")
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive} is damaged ({error}): remove it and pull again") from None
    return [(PurePosixPath(path).relative_to(machine).as_posix(), info.file_size) for info, path in plan]


@contextlib.contextmanager
def _or_by_hand(record: Record, files: str, raw: PurePath) -> Iterator[None]:
    """Add to a DownloadError how to fetch the files by hand."""
    try:
        yield
    except DownloadError as error:
        page = f"{SITE}/records/{record.number}"
        raise DownloadError(
            f"{as_sentence(str(error))} Fetch {files} by hand from {page} and unpack to {raw}"
        ) from None


def _parse_listing(record: Record, answer: Any) -> Listing:
    newest: dict[str, tuple[int, Archive]] = {}
    for file in answer["files"]:
        name, (kind, _, digest) = str(file["key"]), str(file["checksum"]).partition(":")
        match = re.fullmatch(ARCHIVES[record.part], name)
        if match is None or kind != "md5" or "/" in match["machine"] or match["machine"].startswith("."):
            continue
        if MD5.get(name, digest) != digest:
            raise ValueError(f"{name} has the MD5 {digest} there, and {MD5[name]} is known")
        url = f"{SITE}/records/{record.number}/files/{name}"
        archive = Archive(name, match["machine"], url, int(file["size"]), digest)
        revision = int(match["revision"] or 1)
        if archive.machine not in newest or newest[archive.machine][0] < revision:
            newest[archive.machine] = (revision, archive)
    if not newest:
        raise ValueError("it holds no archive of a machine")
    about = answer.get("metadata", {})
    stated = about.get("license", {}).get("id", "")
    same = stated.lower() in ("", "cc-by-nc-sa-4.0")
    archives = [archive for _, archive in sorted(newest.values(), key=lambda pair: pair[1].machine)]
    return Listing(record, str(about.get("title", record.number)), LICENCE if same else stated, archives)


def _plan(opened: zipfile.ZipFile, name: str, machine: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """(entry, its path below raw) of every file; ValueError for an entry that would be written outside."""
    for info in opened.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        link = stat.S_ISLNK(info.external_attr >> 16)
        if link or ".." in parts or info.filename.startswith(("/", "\\")) or any(":" in p for p in parts):
            raise ValueError(f"{name} holds {info.filename!r}, which reaches outside its folder: nothing was unpacked")
        if info.is_dir() or "__MACOSX" in parts or parts[-1].startswith("."):
            continue
        inside = parts[parts.index(machine) + 1 :] if machine in parts[:-1] else parts
        yield info, "/".join((machine, *inside))


def _check_space(raw: Path, needed: int, archive: Path) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(raw).free
    if needed + SPARE > free:
        raise OSError(f"{archive.name} unpacks to {needed / 1e9:.1f} GB more, and {raw} has {free / 1e9:.1f} GB free")


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _has_content(path: Path, info: zipfile.ZipInfo) -> bool:
    return _has_size(path, info.file_size) and zlib.crc32(path.read_bytes()) == info.CRC


def _is_here(raw: Path, archive: Archive) -> bool:
    entry = _read_receipt(raw, archive.machine).get(archive.name, {})
    files = entry.get("files", [])
    home = raw / archive.machine
    return entry.get("md5") == archive.md5 and all(_has_size(home / name, size) for name, size in files)


def _write_receipt(raw: Path, archive: Archive, files: list[tuple[str, int]]) -> None:
    entries = _read_receipt(raw, archive.machine) | {archive.name: {"md5": archive.md5, "files": files}}
    atomic_write(raw / archive.machine / RECEIPT, json.dumps(entries, indent=1))


def _read_receipt(raw: Path, machine: str) -> dict[str, Any]:
    try:
        receipt = json.loads((raw / machine / RECEIPT).read_text(encoding="utf-8"))
        return receipt if isinstance(receipt, dict) else {}
    except (OSError, ValueError):
        return {}
