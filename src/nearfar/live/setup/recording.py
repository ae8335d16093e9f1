"""Recordings of normal sound from a source: checked one by one, written whole, continued over days.

The folder is the state: each recording is a file named by its time, so a session of another day only adds files.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearfar import audio
from nearfar.audio.recordings import SUFFIXES
from nearfar.audio.sessions import sessions
from nearfar.detector.calibration import FEW_SESSIONS, Backing
from nearfar.live.history.archive import flac
from nearfar.live.sources.open import Source
from nearfar.live.sources.windows import Window
from nearfar.support.files import atomic_write
from nearfar.support.times import local_time
from nearfar.support.words import plural

SILENT_S = 30.0  # without sound, after which recording ends with an error
MOST_REFUSED = 3  # unusable recordings in a row that end it
ENOUGH = 20  # recordings that an alarm can be trusted with
QUIET_DBFS, LOUD_PEAK = -60.0, 0.7  # the level below which gain is missing; the peak above which a knock would clip


@dataclass(frozen=True)
class Taken:
    """A recording: its file (None: refused), the levels of its channels in dB of full scale, and what is wrong."""

    file: Path | None
    levels: tuple[float, ...]
    problems: tuple[str, ...]

    def text(self) -> str:
        """ "near −31 dB, far −44 dB"."""
        named = zip(audio.CHANNELS, self.levels, strict=False)
        return ", ".join(f"{name} {level:.0f} dB" for name, level in named).replace("-", "−")


@dataclass(frozen=True)
class Stock:
    """The recordings in a folder; those of one session alone have no name."""

    recordings: int
    sessions: int

    @classmethod
    def of(cls, sessions: Sequence[str]) -> Stock:
        """The stock of recordings with these sessions, "" where nothing tells it."""
        return cls(len(sessions), len(set(sessions) - {""}) or min(1, len(sessions)))

    @property
    def missing(self) -> str:
        """What is still missing for an alarm that can be trusted, as a sentence; "" if nothing is."""
        more, days = ENOUGH - self.recordings, FEW_SESSIONS - self.sessions
        parts = [plural(more, "more recording")] if more > 0 else []
        parts += [f"{plural(days, 'more session')}, each on another day"] if days > 0 else []
        if not parts:
            return ""
        return f"Still missing: {' and '.join(parts)}, at every speed and load that the machine runs at."


def stock(folder: Path) -> Stock:
    """The recordings that are in a folder, and their sessions."""
    paths = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return Stock.of(sessions(paths) if paths else [])


def check(window: Window) -> tuple[Taken, bool]:
    """The levels of a window and what is wrong with the microphones (`file` is None); whether it can be used."""
    known = (window.level_dbfs(channel) for channel in range(len(window.samples)))
    levels = tuple(-math.inf if level is None else level for level in known)
    try:
        clip = window.clip
    except ValueError as error:
        return Taken(None, levels, (str(error),)), False
    found = audio.problems(clip)
    texts = [p.text for p in found]
    for side, level, samples in zip(audio.CHANNELS, levels, window.samples, strict=False):
        peak = float(np.abs(samples).max())
        if any(p.channel == side for p in found):
            continue
        if level < QUIET_DBFS:
            texts.append(f"{side} is too quiet ({level:.0f} dB of full scale): raise its gain, or move it closer")
        elif peak > LOUD_PEAK:
            texts.append(f"{side} comes close to clipping (peak {peak:.0%}): lower its gain")
    return Taken(None, levels, tuple(texts)), not any(p.fatal for p in found)


def record(
    source: Source, folder: Path, stop: threading.Event, *, count: int, every_s: float = 0.0
) -> Iterator[Taken | None]:
    """Write the usable windows of a source as recordings, at most `count`, one per `every_s`; None while none comes.

    Each file is on the disk, whole, when its `Taken` is given. An unusable window is given without a file;
    MOST_REFUSED of them in a row are a ValueError.
    """
    written, refused, due = 0, 0, -math.inf
    for window in source.windows(stop):
        if written >= count or stop.is_set():
            return
        if window is None:
            yield None
            continue
        if window.t0 < due:
            continue
        taken, usable = check(window)
        if usable:
            path = _free(folder, window.t0)
            atomic_write(path, flac(window.samples, window.rate))
            taken = Taken(path, taken.levels, taken.problems)
            written, due = written + 1, window.t0 + every_s - 1e-3
        refused = 0 if usable else refused + 1
        yield taken
        if refused == MOST_REFUSED:
            raise ValueError(f"{refused} recordings in a row could not be used: {'; '.join(taken.problems)}")
        if written >= count:
            return


def backing(found: Stock) -> str:
    """What stands behind the recordings, in words."""
    return str(Backing(found.recordings, found.recordings, found.sessions))


def _free(folder: Path, t0: float) -> Path:
    """A file name by the time of this computer's zone that is not taken."""
    name = f"{local_time(t0):%Y-%m-%d_%H-%M-%S}"
    taken = (folder / f"{name}{f'_{n}' if n else ''}.flac" for n in range(10_000))
    return next(path for path in taken if not path.exists())
