"""The folder of weights on this machine: find an encoder's file, download it, or add one that a person has brought.

    FOLDER/NAME.safetensors        converted file; used first, as it loads faster
    FOLDER/NAME/<published file>   as it was published; M2D keeps the directory whose name states its configuration
    FOLDER/lock.json               hashes of files at their first use

FOLDER is the argument `folder`, else $NEARFAR_WEIGHTS, else the user's cache. Only `pull` downloads.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from nearfar.encoders.sources import SOURCES, Source
from nearfar.encoders.table import TABLE, needing_torch
from nearfar.errors import DownloadError
from nearfar.support.check import choose
from nearfar.support.download import Expected, fetch, hub_file, one_process_at
from nearfar.support.files import atomic_file, atomic_write, sha256_of, user_home
from nearfar.support.progress import Progress
from nearfar.support.words import as_sentence, listed, plural

LOCK = "lock.json"
SUFFIXES = (".safetensors", ".pt", ".pth", ".tar")
LARGEST_MEMBER = 8 << 30  # bytes; the largest published file has 4.5 GB
Folder = str | os.PathLike[str] | None


def folder_of(folder: Folder = None) -> Path:
    """The weights folder: `folder`, else $NEARFAR_WEIGHTS, else the user's cache folder of this system."""
    if folder is not None:
        return Path(folder)
    if given := os.environ.get("NEARFAR_WEIGHTS"):
        return Path(given)
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA", user_home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        cache = user_home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or user_home() / ".cache")
    return cache / "nearfar" / "weights"


def find(name: str, folder: Folder = None) -> Path:
    """The weights file of encoder `name`. Raises FileNotFoundError that says how to get it."""
    found = present(name, folder)
    if found is None:
        raise FileNotFoundError(_how_to_get(name, folder_of(folder)))
    return found


def present(name: str, folder: Folder = None) -> Path | None:
    """The weights file of encoder `name`, the converted one first, or None. ValueError if there are several."""
    source, here = choose("encoder with weights", name, SOURCES), folder_of(folder)
    # openl3 and its long name, and one file at several sampling rates
    names = [name, *(n for n, other in SOURCES.items() if n != name and other == source)]
    for converted in (here / f"{n}.safetensors" for n in names):
        if converted.is_file():
            return converted
    for own in (*(here / n for n in names), *(here for n in names if n == here.name)):
        files = sorted(f for f in own.rglob("*") if f.suffix in SUFFIXES and f.is_file()) if own.is_dir() else []
        published = [f for f in files if f.name in (source.file, PurePosixPath(source.member).name)]
        files = published if len(published) == 1 else files
        if len(files) > 1:
            raise ValueError(f"{own} holds {len(files)} weights files ({', '.join(f.name for f in files)}): keep one")
        if files:
            return files[0]
    loose = here / source.file
    return loose if loose.is_file() and loose.suffix in SUFFIXES and source.file != "model.safetensors" else None


def pull(name: str, folder: Folder = None, *, progress: Progress | None = None, **options: Any) -> Path:
    """Download the weights of encoder `name`; `options` are those of `download.fetch`.

    Raises DownloadError with the page to fetch the file from by hand.
    """
    source, here = choose("encoder with weights", name, SOURCES), folder_of(folder)
    by_hand = f"Fetch {source.file} by hand from {source.page}, then: nearfar weights {name} --from FILE"
    if not source.url:
        raise DownloadError(f"{name}: its publisher gives the file to browsers alone. {by_hand}")
    target, lock = here / name / source.file, here / LOCK
    if source.member and (found := present(name, here)):
        return found  # unpacked before, and the zip was removed
    url, expected, headers = source.url, _expected(source, lock), dict[str, str]()
    try:
        if source.repository and not target.exists() and not os.environ.get("NEARFAR_MIRROR"):
            url, current, headers = hub_file(source.repository, source.file)
            expected = expected if expected.has_hash else current
        fetch(url, target, expected, headers=headers, progress=progress, **options)
        _remember(lock, source.url, target)
    except DownloadError as error:
        raise DownloadError(f"{name}: {as_sentence(str(error))} {by_hand}") from None
    if source.member:
        zipped, target = target, unzip(target, target.parent)
        zipped.unlink()
    check(name, target)
    return _check_found_first(name, here, target)


def _expected(source: Source, lock: Path) -> Expected:
    """Size and hash of a published file: the published ones, else those of its first use here."""
    first = {} if source.sha256 else _read_lock(lock).get(source.url, {})
    if not first:
        return Expected(source.sha256, size=source.size)
    return Expected(first["sha256"], size=first["size"], origin=f"at its first use it was (says {lock})")


def _read_lock(lock: Path) -> dict[str, dict[str, Any]]:
    """{URL or path in the folder: {"sha256", "size"}} of files at their first use."""
    if not lock.exists():
        return {}
    try:
        recorded = json.loads(lock.read_text(encoding="utf-8"))
        return {str(url): {"sha256": str(e["sha256"]), "size": int(e["size"])} for url, e in recorded.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{lock} is damaged ({error}); it holds the hashes of files at their first use") from None


def _remember(lock: Path, key: str, path: Path) -> None:
    """Write the hash of the file at `path` into the lock file, under `key`."""
    with one_process_at(lock):
        entry = {"sha256": sha256_of(path), "size": path.stat().st_size}
        atomic_write(lock, json.dumps(_read_lock(lock) | {key: entry}, indent=2, sort_keys=True) + "\n")


def add(name: str, file: str | os.PathLike[str], folder: Folder = None) -> Path:
    """Add `file` as the weights of encoder `name`: it is loaded strictly, then linked or copied into the folder.

    Raises ValueError if it is not that encoder, or if its hash is not the published one.
    """
    source, here, file = choose("encoder with weights", name, SOURCES), folder_of(folder), Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no weights file {file}")
    with _unpacked(file) as (weights, inner):
        check(name, weights)
        fault = Expected(source.sha256).fault_of(weights)
        if fault and weights.name == source.file:
            raise ValueError(f"{file} is not the published {source.file}: {fault}")
        target = here / name / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.exists() and target.samefile(weights)):
            _place(weights, target)
    _remember(here / LOCK, f"{name}/{inner.as_posix()}", target)
    return _check_found_first(name, here, target)


def _check_found_first(name: str, here: Path, target: Path) -> Path:
    """`target`, if `find` gives the same weights; ValueError if it gives a file of other weights."""
    from safetensors import safe_open

    first = present(name, here)
    if first is not None and first != target:
        with safe_open(first, "numpy") as file:
            source = (file.metadata() or {}).get("source_sha256")
        if source != sha256_of(target):
            raise ValueError(f"{target} is in its place, but {first}, of other weights, is used before it: remove one")
    return target


def check(name: str, path: Path) -> None:
    """Load a file strictly as encoder `name`; ValueError if it holds another network.

    A Python warning names tensors that are zero throughout, as in a file whose end was never written.
    """
    with needing_torch(f"checking {path}"):
        from nearfar.encoders import checkpoint

        import_module(TABLE[name].module).read(name, path)
        empty, count = checkpoint.zero_tensors(path)
    if empty:
        warnings.warn(
            f"{path.name}: {len(empty):,} of {plural(count, 'tensor')} hold nothing but zeros ({listed(empty)}): was "
            f"it cut off or damaged? Compare its size and hash with the published file: nearfar weights {name}",
            stacklevel=3,
        )


def convert(name: str, file: Path, target: Path) -> Path:
    """`checkpoint.convert`, with an ImportError that names the package to install."""
    with needing_torch(f"converting {file}"):
        from nearfar.encoders import checkpoint

        return checkpoint.convert(name, file, target)


def guess(file: str | os.PathLike[str]) -> str:
    """The encoder whose weights a file holds. Raises ValueError if no encoder fits, or several do."""
    fits, why = [], {}
    for name in SOURCES:
        try:
            check(name, Path(file))
            fits.append(name)
        except ValueError as error:
            why[name] = str(error)
    named = [name for name in fits if SOURCES[name].file == Path(file).name != "model.safetensors"] or fits
    named = [name for name in named if name != "openl3"] if len(named) > 1 else named
    if named and all(SOURCES[name] == SOURCES[named[0]] for name in named):  # one file at several sampling rates
        return named[0]
    if named:
        raise ValueError(f"{file} could be {', '.join(named)}: say which with --encoder NAME")
    raise ValueError(f"{file} is none of the encoders. As {next(iter(why))}: {next(iter(why.values()))}")


def unzip(archive: Path, folder: Path) -> Path:
    """The one .pth of a zip, written below `folder` with the directory that it lies in; ValueError if there is none."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [m for m in file.infolist() if m.filename.endswith(".pth") and not m.is_dir()]
            if len(members) != 1:
                raise ValueError(f"{archive} holds {len(members)} .pth files, expected was 1")
            parts = PurePosixPath(members[0].filename.replace("\\", "/")).parts[-2:]
            if len(parts) != 2 or any(part in ("..", ".", "/") or ":" in part for part in parts):
                raise ValueError(f"{archive} names its file {members[0].filename!r}, not <configuration>/<file>.pth")
            if members[0].file_size > LARGEST_MEMBER:
                raise ValueError(
                    f"{archive} says that it holds {members[0].file_size:,} bytes: no weights are that big"
                )
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(target) as draft, file.open(members[0]) as inner, draft.open("wb") as out:
                shutil.copyfileobj(inner, out, 1 << 20)
            target.chmod(0o644)
            return target
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} is damaged or cut short: {error}") from None


@contextlib.contextmanager
def _unpacked(file: Path) -> Iterator[tuple[Path, Path]]:
    """(weights file, its place below the encoder's folder): from a zip, or the file itself."""
    if not zipfile.is_zipfile(file) or file.suffix != ".zip":
        keep = file.parent.name if re.search(r"-80x\d+p16", file.parent.name) else ""
        yield file, Path(keep) / file.name
        return
    with tempfile.TemporaryDirectory(prefix="nearfar-") as scratch:
        weights = unzip(file, Path(scratch))
        yield weights, weights.relative_to(scratch)


def _place(source: Path, target: Path) -> None:
    """Link or copy `source` to `target`, whole or not at all."""
    with atomic_file(target) as draft:
        draft.unlink()
        try:
            draft.hardlink_to(source)
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(source, draft)
            draft.chmod(0o644)


def _how_to_get(name: str, here: Path) -> str:
    source: Source = SOURCES[name]
    by_hand = f"fetch {source.file} by hand from {source.page}, then"
    return (
        f"the weights of encoder {name!r} are not in {here} (size: {source.megabytes}; licence: {TABLE[name].licence}; "
        f"published at {source.page})."
        f" Bring them with\n  {f'nearfar weights {name} --pull' if source.url else by_hand}\n"
        f"  nearfar weights {name} --from FILE\nor name a file: --weights FILE, weights=FILE"
    )
