"""A folder into which a recorder writes files: each is heard once it is complete, and once only, also across restarts.

A file is complete when its size and time have not changed for `settle_s`; polling, because network shares tell nothing.
What has been heard is a line (time, size, name) in the ledger; a file that is written again is heard again. A file
gives the clips that `nearfar score` takes from it, so the same scores. Its sound ends when it was last written to; a
recorder whose clock is ahead writes now.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import numpy as np

from nearfar import audio
from nearfar.audio.recordings import CONVERT, SUFFIXES, UNREAD
from nearfar.live.sources.windows import Window
from nearfar.support import files

Report = Callable[[str, Exception], None]
Stamp = tuple[str, int, int]  # name below the folder, bytes, ns
MANY = 10_000  # files that have been heard and are gone, before they are forgotten


class Folder:
    """Windows from the files in `folder`; `once`: those that are there, then stop. `ledger` is a file or None."""

    live = False

    def __init__(
        self,
        folder: Path,
        window_s: float,
        *,
        clock: Callable[[], float],
        report: Report,
        ledger: Path | None = None,
        near: int = 0,
        far: int | None = 1,
        poll_s: float = 2.0,
        settle_s: float = 3.0,
        once: bool = False,
    ) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder to watch: {folder}")
        self.folder, self.window_s, self.clock, self.report, self.ledger = folder, window_s, clock, report, ledger
        self.near, self.far, self.poll_s, self.settle_s, self.once = near, far, poll_s, settle_s, once
        self.problem = ""
        self._done: set[Stamp] = set(_read(ledger)) if ledger else set()
        self._seen: dict[Stamp, float] = {}  # since when a file has looked like this

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        """The windows of each complete file, oldest first; None while there is nothing new."""
        while not stop.is_set():
            for stamp in self._complete():
                for window in self._file(stamp):
                    if stop.is_set():  # a file that was not heard to its end is heard again
                        return
                    yield window
                self._finish(stamp)
                if stop.is_set():
                    return
            if self.once:
                return
            yield None
            stop.wait(self.poll_s)

    def _complete(self) -> list[Stamp]:
        """Files that have not been heard and have not changed for a while, oldest first."""
        now, found = monotonic(), []  # how long a file has been so, whatever becomes of the clock
        unread = ""
        try:
            next(self.folder.iterdir(), None)  # rglob finds nothing in a folder that is gone, and says nothing
            for path in self.folder.rglob("*"):
                if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
                    with contextlib.suppress(FileNotFoundError):  # the recorder has just taken it away
                        info = path.stat()
                        found.append((path.relative_to(self.folder).as_posix(), info.st_size, info.st_mtime_ns))
                elif path.suffix.lower() in UNREAD:
                    unread = path.name
            self.problem = f"{unread} is passed over; {CONVERT}" if unread else ""
        except OSError as error:  # a share that is away for a while
            self.problem = f"{self.folder}: {error.strerror or error}"
            return []
        if found and len(self._done) > len(found) + MANY:  # the recorder cleans up: what is gone need not be remembered
            self._forget(self._done - set(found))
        self._seen = {stamp: self._seen.get(stamp, now) for stamp in found if stamp not in self._done}
        ready = [s for s, since in self._seen.items() if self.once or now - since >= self.settle_s]
        return sorted(ready, key=lambda s: (s[2], s[0]))

    def _file(self, stamp: Stamp) -> Iterator[Window]:
        name, _, changed_ns = stamp
        path = self.folder / name
        try:
            end = min(changed_ns / 1e9, self.clock())
            start = end - audio.seconds(path)
            start = start if math.isfinite(start) else end
            at = 0.0
            for clip in audio.windows(path, near=self.near, far=self.far, length_s=self.window_s):
                samples = np.stack([clip.near] if clip.far is None else [clip.near, clip.far])
                for problem in audio.incomplete(clip):
                    warnings.warn(f"{name}: {problem.text}", stacklevel=2)
                gap = at == 0.0
                yield Window(start + at, samples, clip.rate, gap, clip.name, missing_s=clip.missing_s)
                at += clip.seconds
        except (ValueError, OSError) as error:
            self.report(name, error)

    def _forget(self, gone: set[Stamp]) -> None:
        self._done -= gone
        if gone and self.ledger is not None:
            with contextlib.suppress(OSError):
                files.atomic_write(self.ledger, b"".join(map(_line, sorted(self._done))))

    def _finish(self, stamp: Stamp) -> None:
        self._done.add(stamp)
        self._seen.pop(stamp, None)
        if self.ledger is None:
            return
        try:
            self.ledger.parent.mkdir(parents=True, exist_ok=True)
            with self.ledger.open("ab") as file:
                file.write(_line(stamp))
        except OSError as error:  # then it will be heard again after a restart: better than not at all
            self.problem = f"{self.ledger}: {error.strerror or error}"


def _line(stamp: Stamp) -> bytes:
    return os.fsencode("\t".join(map(str, stamp[::-1])) + "\n")  # a name may be no UTF-8


def _read(ledger: Path) -> Iterator[Stamp]:
    if not ledger.is_file():
        return
    for line in os.fsdecode(ledger.read_bytes()).split("\n"):
        changed, size, name = (line.split("\t", 2) + ["", ""])[:3]
        if changed.isdecimal() and size.isdecimal():  # the last line may be half a line
            yield name, int(size), int(changed)
