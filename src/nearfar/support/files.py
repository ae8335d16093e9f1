"""Files and folders that are written whole or not at all, and hashes of files.

A full disk, Ctrl-C or a killed process leaves the old file or folder. Errors name the path that the caller gave.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

SETTLED_NS = 2_000_000_000  # coarsest time stamp of a file system (FAT): a younger file may change and keep its stamp
OPEN_TRIES, OPEN_WAIT_S = 40, 0.05  # two seconds for other programs on Windows to close a file
LOCK, LOCK_TRIES = ".nearfar-lock", 6
Value = TypeVar("Value")


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, drafts: Path | None = None, mode: int = 0o644) -> Iterator[Path]:
    """Yield an empty draft file; at the end of the block it replaces `path`, on an error it is removed.

    A link is followed, and the mode of a file that is there stays. A pipe or a device is written to, not replaced.
    `drafts`: a folder on the same disk for the draft, so that drafts of killed processes lie in one place. `mode`: who
    may read a new file, as far as the umask allows. Raises the OSError that stopped it, in the name of `path`.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryDirectory() as room:
            draft = Path(room) / "draft"
            draft.touch()
            yield draft
            with _in_the_name_of(path), draft.open("rb") as whole, path.open("wb") as out:
                shutil.copyfileobj(whole, out)
        return
    path = _followed(path)
    with _in_the_name_of(path):
        for folder in (path.parent, drafts or path.parent):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file, not a folder", str(path)) from None
        draft = (drafts or path.parent) / f"{_prefix(path)}{secrets.token_hex(8)}"
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))  # as the umask allows
            if path.is_file():
                shutil.copymode(path, draft)
            yield draft
            replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def atomic_write(
    path: str | os.PathLike[str], content: str | bytes, *, drafts: Path | None = None, mode: int = 0o644
) -> Path:
    """Write text (UTF-8) or bytes to `path`, as `atomic_file` does."""
    with atomic_file(path, drafts=drafts, mode=mode) as draft:
        draft.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
    return Path(path)


def write_json(path: Path, plain: Any) -> None:
    """Write plain data as a file that only this user may read, whole or not at all."""
    atomic_write(path, json.dumps(plain, indent=1), mode=0o600)


def read_json(path: Path, parse: Callable[[Any], Value], otherwise: Value, remains: str) -> Value:
    """What `parse` makes of the data in a file, or `otherwise` without one.

    ValueError if the file is damaged; `remains` says what counts once it is deleted.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return otherwise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and {remains}") from None


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty draft folder; at the end of the block its files are synced to the disk and it replaces `path`.

    The old folder is kept beside `path` until the new one has its place, which has its modes. A link to a folder is
    followed. Raises OSError in the name of `path`.
    """
    path = _followed(Path(path))
    with _in_the_name_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        draft, old = room / "new", room / "old"
        try:
            draft.mkdir()
            yield draft
            for file in draft.iterdir():  # so that the rename below survives a power cut
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            if path.exists():
                for new in (draft, *draft.iterdir()):
                    if (known := path / new.relative_to(draft)).exists():
                        shutil.copymode(known, new)
                replace(path, old)
            replace(draft, path)
        finally:
            if old.exists() and not path.exists():
                replace(old, path)
            shutil.rmtree(room, ignore_errors=True)


def replace(path: Path, target: Path) -> None:
    """Rename `path` to `target`, which it replaces. On Windows another program may have either open for a moment."""
    for attempt in range(OPEN_TRIES):
        try:
            path.replace(target)
            return
        except PermissionError as error:
            if sys.platform != "win32":
                raise
            if attempt == OPEN_TRIES - 1:
                why = "another program (Excel, a virus scanner) has it open, or this user may not write there"
                raise PermissionError(error.errno, why, str(target)) from error
            time.sleep(OPEN_WAIT_S)


def _prefix(path: Path) -> str:
    """How the names of drafts begin; a name may have 255 bytes in all."""
    return f".{path.name[:40]}."


def _followed(path: Path) -> Path:
    """The path that a link leads to, else `path`."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, after waiting for the thread or process that has it. On Windows it is a file in there."""
    with contextlib.ExitStack() as held:
        if sys.platform == "win32":
            import msvcrt

            file = held.enter_context((folder / LOCK).open("ab"))
            for _ in range(LOCK_TRIES):
                with contextlib.suppress(OSError):  # after ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            with contextlib.suppress(OSError):  # some network shares cannot lock
                handle = os.open(folder, os.O_RDONLY)
                held.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _in_the_name_of(path: Path) -> Iterator[None]:
    """An OSError that names a draft, a folder above `path` or nothing is raised again with the name of `path`."""
    try:
        yield
    except OSError as error:
        named = error.filename
        other = named is not None and _prefix(path) not in str(named) and Path(named) not in path.parents
        if error.errno is None or other:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def expanded(path: str) -> Path:
    """A path whose ~ stands for a home folder, as it is where the system knows no such folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def user_home() -> Path:
    """The home folder of this user; ValueError if the system knows none, as for users of containers."""
    try:
        return Path.home()
    except RuntimeError:
        raise ValueError("this user has no home folder here: set the environment variable HOME to a folder") from None


def copy_files(folder: Path, to: Path) -> None:
    """Copy the files of a folder, with modes and times, into another one."""
    for file in folder.iterdir():
        shutil.copy2(file, to)


def private_folder(folder: Path) -> None:
    """Make a folder that only this user may enter; one of another user stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):
        folder.chmod(0o700)


def file_fingerprint(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of the last change of a file: a cheap stand-in for its hash."""
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal; read again only when its inode, size or time of change is another."""
    status = Path(path).stat()
    if time.time_ns() - status.st_mtime_ns < SETTLED_NS:
        return hash_file(path)
    return _sha256(os.fspath(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _sha256(path: str, inode: int, size: int, changed_ns: int) -> str:
    return hash_file(path)


def hash_file(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """Hash of a file's bytes in hexadecimal, always read; `kind`: "sha256" or "md5"."""
    digest = hashlib.new(kind)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
