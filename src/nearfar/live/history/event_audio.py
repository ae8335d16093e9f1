"""Event audio: FLAC files (24 bits) in one folder under a cap on their size, oldest deleted first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from nearfar.support import files
from nearfar.support.check import Array

SUFFIX = ".flac"


def flac(samples: Array, rate: int) -> bytes:
    """Samples (C, N) in [-1, 1] as FLAC of 24 bits; 16-bit recordings come back exactly."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1).T, rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def write_flac(path: Path, samples: Array, rate: int) -> None:
    """Write `flac(samples, rate)`, whole or not at all.

    Only this user may read the file and its folder: people near the machine may be heard.
    """
    content = flac(samples, rate)
    files.private_folder(path.parent)
    files.atomic_write(path, content, mode=0o600)


class AudioArchive:
    """The audio of events in `folder`, together at most `most_bytes`. Names begin with a time, so they sort by age."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder, self.most_bytes = folder, most_bytes

    def save(self, name: str, samples: Array, rate: int) -> None:
        """Keep samples (C, N) as `name`, and delete the oldest files above the cap. OSError if the disk is full."""
        write_flac(self.folder / name, samples, rate)
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        sizes = [path.stat().st_size for path in paths]
        total = sum(sizes)
        for path, size in zip(paths[:-1], sizes, strict=False):  # the newest stays, however large it is
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def path(self, name: str) -> Path | None:
        """The audio file of an event; None if the event has none, or if it was deleted."""
        path = self.folder / name
        return path if name and path.name == name and path.is_file() else None
