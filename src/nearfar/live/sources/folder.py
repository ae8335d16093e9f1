"""A folder into which a recorder writes files: each file is processed once it is complete, and only once.

A file is complete when its size and time have not changed for `settle_s`. One that its disk or network share does not
give, or that this user may not read, waits. The folder is polled, because network shares
send no notifications. The ledger keeps a line (time, size, name) of each processed file across restarts; a file that is
written again is processed again. A file gives the clips that `nearfar score` takes from it, so the same scores. Its
last sample is dated by the file's time, or by the clock if that is earlier.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

from nearfar import audio
from nearfar.audio.recordings import CONVERT, SUFFIXES, UNREAD
from nearfar.errors import AudioError
from nearfar.live.sources.windows import SourceOptions, Starts, Window
from nearfar.support import files
from nearfar.support.words import shown

Stamp = tuple[str, int, int]  # name below the folder, bytes, ns
MANY = 10_000  # processed files that are gone, before the ledger forgets them


class FolderSource:
    """Windows from the files in `folder`."""

    live = False

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        self.finite = options.once
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder to watch: {folder}")
        self.folder, self.options, self.ledger = folder, options, options.ledger
        self.problem, self._starts = "", Starts()
        self._unread = ""  # why the disk does not give a file
        self._done: set[Stamp] = set(_read(self.ledger)) if self.ledger else set()
        self._seen: dict[Stamp, float] = {}  # since when a file has not changed

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        """The windows of each complete file, oldest first; None while there is no new file."""
        while not stop.is_set():
            ready, self._unread = self._complete(), ""
            for stamp in ready:
                try:
                    for window in self._file(stamp):
                        if stop.is_set():  # a file that was not processed to its end is processed again
                            return
                        yield window
                except (ValueError, OSError) as error:
                    waits = _is_of_the_disk(error)
                    if waits and not self.options.once:
                        self.problem = self._unread = str(error)
                    else:
                        self.options.report(shown(stamp[0]), error)
                    if waits:
                        continue
                self._finish(stamp)
                if stop.is_set():
                    return
            if self.options.once:
                return
            yield None
            stop.wait(self.options.poll_s)

    def _complete(self) -> list[Stamp]:
        """New files that have not changed for `settle_s`, oldest first."""
        now, found = monotonic(), []  # monotonic: the clock may be set
        skipped = self._unread
        try:
            next(self.folder.iterdir(), None)  # raises if the folder is gone, as rglob does not
            for path in self.folder.rglob("*"):
                below = str(path)[len(str(self.folder)) :]
                if f"{os.sep}." in below or "__MACOSX" in below:  # as `recordings.find` does
                    continue
                if path.suffix.lower() in SUFFIXES and not path.is_dir():
                    try:
                        info = path.stat()
                        if stat.S_ISREG(info.st_mode):
                            stamp = path.relative_to(self.folder).as_posix(), info.st_size, info.st_mtime_ns
                            if stamp not in self._done:
                                path.open("rb").close()  # on Windows refused while its recorder has it for itself
                            found.append(stamp)
                    except PermissionError as error:
                        skipped = f"{shown(path.name)} waits: {error.strerror}; does its recorder still write it?"
                    except OSError as error:
                        if not path.is_symlink() and not isinstance(error, FileNotFoundError):
                            raise
                        if path.is_symlink():  # else it was deleted meanwhile
                            skipped = f"{shown(path.name)} is skipped: it is a link to a file that is not there"
                elif path.suffix.lower() in UNREAD:
                    skipped = f"{shown(path.name)} is skipped; {CONVERT}"
                elif path.is_symlink() and path.is_dir():  # it may lead to the whole disk
                    skipped = f"{shown(path.name)} is skipped: links to folders are not watched"
            self.problem = skipped
        except OSError as error:  # a share may be unreachable for a while
            self.problem = f"{shown(self.folder)}: {error.strerror or error}"
            return []
        if found and len(self._done) > len(found) + MANY:  # the recorder deletes old files
            self._forget(self._done - set(found))
        self._seen = {stamp: self._seen.get(stamp, now) for stamp in found if stamp not in self._done}
        ready = [s for s, since in self._seen.items() if self.options.once or now - since >= self.options.settle_s]
        return sorted(ready, key=lambda s: (s[2], s[0]))

    def _file(self, stamp: Stamp) -> Iterator[Window]:
        """The windows of a file; raises as `audio.windows` does."""
        name, _, changed_ns = stamp
        path, options, at = self.folder / name, self.options, 0.0
        end, seconds = min(changed_ns / 1e9, options.clock()), audio.seconds(path)
        start = self._starts.of(name, end, seconds if math.isfinite(seconds) else 0.0, options.window_s)
        for clip in audio.windows(
            path, near=options.near, far=options.far, length_s=options.window_s, whole_s=options.whole_s
        ):
            for problem in audio.incomplete(clip):
                warnings.warn(f"{shown(name)}: {problem.text}", stacklevel=2)
            of = shown(name) + clip.name.removeprefix(shown(path.name))
            window = Window(start + at, clip.samples, clip.rate, at == 0.0, of)
            yield replace(window, missing_s=clip.missing_s, codec=clip.codec)
            at += clip.seconds

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
        except OSError as error:  # the file is processed again after a restart
            self.problem = f"{self.ledger}: {error.strerror or error}"


def _is_of_the_disk(error: Exception) -> bool:
    """Whether a file may be read later, when its disk or network share is back."""
    if isinstance(error, AudioError):
        return error.kind == "disk"
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def _line(stamp: Stamp) -> bytes:
    name, size, changed = stamp
    name = name.replace("\n", "\0")  # which no name has
    return os.fsencode(f"{changed}\t{size}\t{name}\n")  # a name may not be UTF-8


def _read(ledger: Path) -> Iterator[Stamp]:
    if not ledger.is_file():
        return
    for line in os.fsdecode(ledger.read_bytes()).split("\n"):
        changed, size, name = (line.split("\t", 2) + ["", ""])[:3]
        if changed.isdecimal() and size.isdecimal():  # the last line may be incomplete
            yield name.replace("\0", "\n"), int(size), int(changed)
