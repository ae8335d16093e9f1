"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path


def fsync_folder(folder: Path) -> None:
    """Have the files of a folder on the disk itself: what is renamed into place next survives a power cut."""
    for file in folder.iterdir():
        with file.open("rb+") as written:
            os.fsync(written.fileno())


def write(path: str | os.PathLike[str], content: str | bytes, *, drafts: Path | None = None) -> Path:
    """Write text (UTF-8) or bytes to `path` through a file beside it; a full disk or Ctrl-C leaves what was there.

    `drafts`: a folder on the same disk for the unfinished file, so that what a killed process leaves is in one place.
    Raises the OSError that stopped it, in the name of `path`.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        for folder in (path.parent, drafts or path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=drafts or path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(draft).chmod(0o644)
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is a file, not a folder", str(path)) from error
    except OSError as error:  # it names the draft, or nothing
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


# Content hashes: a file is known by its bytes, wherever it lies.


def hash_file(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """SHA-256 (or the MD5 that some publishers state) of a file's bytes, in hexadecimal."""
    digest = hashlib.new(kind)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_fingerprint(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of the last change of a file: much quicker than its hash, and nearly as telling."""
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns
