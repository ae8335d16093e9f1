"""Sound files of a history: of events, of recordings that were sent, and samples of normal sound; WAV to play them.

FLAC of 24 bits, readable by this user alone. Names begin with a time, so they sort by age; the oldest go first.
"""

from __future__ import annotations

import io
import math
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.audio.clip import PCM, WAS
from nearfar.support import files
from nearfar.support.check import Array
from nearfar.support.times import utc_time

SUFFIX = ".flac"
TIME = "%Y%m%dT%H%M%SZ"
SAMPLES = 48  # recent normal windows of each machine that are kept
PLAY_PEAK = 0.7
MOST_DB = 60
RESERVE = 200_000_000  # bytes of the disk that are left free for scores and events


def flac(samples: Array, rate: int, codec: str = PCM) -> bytes:
    """Samples (C, N) in [-1, 1] as FLAC of 24 bits; 16-bit recordings come back exactly. `codec`: see `Clip`."""
    import soundfile

    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate, len(samples), format="FLAC", subtype="PCM_24") as file:
        note_codec(file, codec)
        file.write(np.clip(samples, -1, 1).T)
    return content.getvalue()


def note_codec(file: Any, codec: str) -> None:
    """Note in a FLAC file that its sound was stored with loss before: what differs by a codec is asked about."""
    if codec not in ("", PCM):
        file.comment = f"{WAS}{codec}"


def write_flac(path: Path, samples: Array, rate: int, codec: str = PCM) -> None:
    """Write `flac(samples, rate, codec)`, whole or not at all.

    Only this user may read the file and its folder: people near the machine may be heard.
    """
    content = flac(samples, rate, codec)
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
    """The files in `folder`, together at most `most_bytes`; they take no more of a disk with less than RESERVE free."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._bytes: int | None = None  # of all files; None: not known yet
        self._lock = threading.Lock()

    def save(self, name: str, samples: Array, rate: int) -> None:
        """Keep samples (C, N) as `name`, and delete the oldest files above the cap. OSError if the disk is full."""
        path = self.folder / name
        write_flac(path, samples, rate)
        with self._lock:
            size = path.stat().st_size
            if self._bytes is not None:
                self._bytes += size
            lacking = min(size, max(0, RESERVE - shutil.disk_usage(self.folder).free))
            if self._bytes is None or self._bytes > self.most_bytes or lacking:
                self._bytes = self._trim(lacking)

    def _trim(self, lacking: int) -> int:
        """Delete the oldest files above the cap, and for so many `lacking` bytes; the newest stays. The bytes left."""
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        sizes = [path.stat().st_size for path in paths]
        total = sum(sizes)
        most = min(self.most_bytes, total - lacking)
        for path, size in zip(paths[:-1], sizes, strict=False):
            if total <= most:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    def path(self, name: str) -> Path | None:
        """The file `name`; None for "", or if it was deleted."""
        path = self.folder / name
        return path if name and path.name == name and path.is_file() else None


class Samples:
    """Normal windows of each machine in `folder`, at most one an hour: the normals to add if the scores drift."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hours: dict[str, int] = {}  # of each machine's newest sample

    def keep(self, machine: str, t0: float, samples: Array, rate: int) -> None:
        """Keep a window that begins at `t0`, unless there is one of its hour. OSError if the disk is full."""
        hour = int(t0 // 3600)
        if hour == self._hours.get(machine):  # == : a clock may be set back
            return
        self._hours[machine] = hour
        write_flac(self.path(machine, t0), samples, rate)
        for old in sorted((self.folder / machine).glob(f"*{SUFFIX}"))[:-SAMPLES]:
            old.unlink()

    def path(self, machine: str, t0: float) -> Path:
        """The file of the sample that begins at `t0`."""
        return self.folder / machine / f"{file_time(t0)}{SUFFIX}"

    def starts(self, machine: str) -> list[float]:
        """When the samples of a machine begin, to the second below; newest first."""
        found = []
        for path in (self.folder / machine).glob(f"*{SUFFIX}"):
            with suppress(ValueError):  # not a sample
                found.append(datetime.strptime(path.stem, TIME).replace(tzinfo=timezone.utc).timestamp())
        return sorted(found, reverse=True)


def sent_name(machine: str, t0: float) -> str:
    """The name of the sound of a window that was sent."""
    return f"{t0:014.3f}-{machine}{SUFFIX}"


def file_time(at: float) -> str:
    """A time (UTC) at the beginning of a file's name."""
    return f"{utc_time(at):{TIME}}"
