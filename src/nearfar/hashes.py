"""Content hashes: a file is known by its bytes, wherever it lies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def of_file(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """SHA-256 (or the MD5 that some publishers state) of a file's bytes, in hexadecimal."""
    digest = hashlib.new(kind)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of the last change of a file: much quicker than its hash, and nearly as telling."""
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns
