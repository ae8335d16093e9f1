"""Event audio: FLAC files (24 bits) in one folder under a cap on their size, oldest out first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from nearfar.support import files
from nearfar.support.check import Array

SUFFIX = ".flac"


def write_flac(path: Path, samples: Array, rate: int) -> None:
    """Samples (C, N) in [-1, 1] as FLAC of 24 bits, whole or not at all; 16-bit recordings come back exactly."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1).T, rate, format="FLAC", subtype="PCM_24")
    files.atomic_write(path, file.getvalue())


class Tape:
    """The audio of events in `folder`, together at most `most_bytes`. Names sort by age: they begin with a time."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder, self.most_bytes = folder, most_bytes

    def put(self, name: str, samples: Array, rate: int) -> None:
        """Keep samples (C, N) as `name`; the oldest go if all are too many bytes. OSError if the disk is full."""
        write_flac(self.folder / name, samples, rate)
        files = sorted(self.folder.glob(f"*{SUFFIX}"))
        sizes = [file.stat().st_size for file in files]
        total = sum(sizes)
        for file, size in zip(files[:-1], sizes, strict=False):  # the newest stays, however large it is
            if total <= self.most_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size

    def path(self, name: str) -> Path | None:
        """The file of an event, or None if it has none or it had to go."""
        path = self.folder / name
        return path if name and path.name == name and path.is_file() else None
