"""Event audio: FLAC files (24 bits) in one folder under a cap on their size, oldest deleted first; WAV to play them."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.support import files
from nearfar.support.check import Array

SUFFIX = ".flac"
PLAY_PEAK = 0.7
MOST_DB = 60


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


def gain_db(clips: Sequence[Clip | None]) -> int:
    """The largest gain, in whole dB, with which all of these clips can be played without clipping."""
    peaks = [float(np.abs(x).max()) for c in clips if c for x in (c.near, c.far) if x is not None]
    peak = max(peaks, default=0.0)
    return min(MOST_DB, math.floor(20 * math.log10(PLAY_PEAK / peak))) if peak > 0 else 0


def alike_db(gain: int, clip: Clip | None, other: Clip | None) -> int:
    """The gain in dB that makes near of `other` as loud as that of `clip` is with `gain`."""
    if clip is None or other is None:
        return gain
    power, of_other = (max(float(np.var(c.near, dtype=np.float64)), 1e-14) for c in (clip, other))
    return gain + max(-MOST_DB, min(MOST_DB, round(10 * math.log10(power / of_other))))


def wav(wave: Array, rate: int, gain: float) -> bytes:
    """A channel (N,) as a WAV file, `gain` dB louder."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(wave * np.float32(10 ** (gain / 20)), -1, 1), rate, subtype="PCM_16", format="WAV")
    return out.getvalue()


def peak_clip(path: Path, peak_s: float, window_s: float, seconds: float = 0.0) -> Clip:
    """The window that begins at `peak_s` of a file, with as much around it as makes `seconds`."""
    rate, seconds = audio.header(path).rate, max(seconds, window_s)
    size, length = round(seconds * rate), round(audio.seconds(path) * rate)
    start = round((peak_s - (seconds - window_s) / 2) * rate)
    return audio.read(path, start=min(max(0, start), max(0, length - size)), frames=size)


class AudioArchive:
    """The audio of events in `folder`, together at most `most_bytes`. Names begin with a time, so they sort by age."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._bytes: int | None = None  # of all files; None: not known yet
        self._lock = threading.Lock()

    def save(self, name: str, samples: Array, rate: int) -> None:
        """Keep samples (C, N) as `name`, and delete the oldest files above the cap. OSError if the disk is full."""
        path = self.folder / name
        write_flac(path, samples, rate)
        with self._lock:
            if self._bytes is not None:
                self._bytes += path.stat().st_size
            if self._bytes is None or self._bytes > self.most_bytes:
                self._bytes = self._trim()

    def _trim(self) -> int:
        """Delete the oldest files above the cap, but not the newest, however large it is; the bytes that are left."""
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        sizes = [path.stat().st_size for path in paths]
        total = sum(sizes)
        for path, size in zip(paths[:-1], sizes, strict=False):
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    def path(self, name: str) -> Path | None:
        """The audio file of an event; None if the event has none, or if it was deleted."""
        path = self.folder / name
        return path if name and path.name == name and path.is_file() else None
