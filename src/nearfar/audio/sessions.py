"""Sessions that are written down: days, times and folders that file names tell.

    folders   below the folder that all files share; not names of splits and labels, nor folders of one file each
    times     dates with or without a time in the file's name, or the date in a folder and the time in the name
    else      the times at which the files were written, unless the names are those of the challenge

More than GAP between two files starts a session. A copy is written without such gaps, so its times tell nothing. A
session's name is a folder, a start or both: "night shift", "2026-03-01 14h", "2026-03-01".

>>> sessions(["a/rec_20260301_140500.wav", "a/rec_20260301_141000.wav", "a/rec_20260302_090000.wav"])
['2026-03-01 14h', '2026-03-01 14h', '2026-03-02 09h']
>>> sessions(["monday/1.wav", "monday/2.wav", "friday/1.wav", ""])
['monday', 'monday', 'friday', '']
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

from nearfar.audio.recordings import DOMAINS, LABELS, SPLITS, parse

GAP = timedelta(hours=1)
NO_SESSIONS = {*SPLITS, *DOMAINS, *LABELS, "abnormal", "normals"}  # folders that name a part of the data
DEPTH = 4  # last parts of a path that may hold its date: 2026/03/01/name

_YEAR_FIRST = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<s>[-_./ ]?)(?P<month>\d\d)(?P=s)(?P<day>\d\d)(?!\d(?!\d{5}(?!\d)))"
)
_DAY_FIRST = re.compile(r"(?<!\d)(?P<day>\d\d)(?P<s>[-_.])(?P<month>\d\d)(?P=s)(?P<year>(?:19|20)\d\d)(?!\d)")
_SHORT = re.compile(r"(?<!\d)(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)(?=[-_]\d{6}(?!\d))")
_SECONDS = re.compile(r"(?<!\d)(1[2-9]\d{8})(?:\d{3})?(?!\d)")  # since 1970, or milliseconds
_NEXT = re.compile(r"(?:[ _T/.,-]|at){0,4}(\d\d)[-_.:h]?(\d\d)(?:[-_.:m]?(\d\d))?(?:\d{3})?(?!\d)")
_LATER = re.compile(r"(?<!\d)(\d\d)[-_.:h](\d\d)[-_.:m](\d\d)(?!\d)")


def sessions(paths: Sequence[str]) -> list[str]:
    """The session (N,) of each file, "" where nothing tells it; "" for all if they would be one session."""
    folders, stamps = _folders(paths), _stamps(paths)
    starts = _starts([None if s is None or s.clock is None else datetime.combine(s.day, s.clock) for s in stamps])
    days = ["" if s is None else f"{s.day:%Y-%m-%d}" for s in stamps]
    found = [
        " ".join(filter(None, (folder, start or day))) for folder, start, day in zip(folders, starts, days, strict=True)
    ]
    if len(set(found)) > 1:
        return found
    written = _starts([_written(path) for path in paths])
    return written if len(set(written)) > 1 else [""] * len(paths)


def extended(paths: Sequence[str], known: Sequence[str], new: Sequence[str]) -> list[str]:
    """The sessions (N + M) of files whose sessions are `known` (N,), and of M `new` files beside them.

    A file of a known session gets its name; a known "" gets a name if the new files tell one session from another.

    >>> extended(["a/20260301_140500.wav"], [""], ["a/20260301_143500.wav", "a/20260302_090000.wav"])
    ['2026-03-01 14h', '2026-03-01 14h', '2026-03-02 09h']
    """
    together = sessions([*paths, *new])
    names = {now: before for now, before in reversed(list(zip(together, known, strict=False))) if now and before}
    found = [names.get(now, now) for now in together]
    return [before or now for before, now in zip([*known, *([""] * len(new))], found, strict=True)]


@dataclass(frozen=True)
class _Stamp:
    """The day in a name, and the time of day; None where the name tells none."""

    day: datetime
    clock: time | None


def _folders(paths: Sequence[str]) -> list[str]:
    """The folder below the common one that each file lies in, "" for none."""
    parents = {path: str(Path(path).absolute().parent) for path in paths if path}
    if len(set(parents.values())) in (0, 1, len(parents)):
        return [""] * len(paths)
    common = os.path.commonpath(list(parents.values()))
    names = {}
    for path, parent in parents.items():
        parts = Path(os.path.relpath(parent, common)).parts
        names[path] = "/".join(p for p in parts if p.lower() not in NO_SESSIONS and not _dated(p))
    return [names.get(path, "") for path in paths]


def _dated(part: str) -> bool:
    """Whether a folder's name is a date, or the year, month or day of one."""
    return bool(re.fullmatch(r"\d{1,2}|(?:19|20)\d\d", part)) or _day(part) is not None


def _day(text: str) -> tuple[datetime, int] | None:
    """The first date in a text, and where it ends."""
    for form in (_YEAR_FIRST, _SHORT, _DAY_FIRST):
        for match in form.finditer(text):
            year, month, day = (int(match[name]) for name in ("year", "month", "day"))
            year += 2000 if year < 100 else 0
            for m, d in [(month, day)] if form is not _DAY_FIRST else [(month, day), (day, month)]:
                try:
                    return datetime(year, m, d), match.end()
                except ValueError:
                    continue
    return None


def _stamps(paths: Sequence[str]) -> list[_Stamp | None]:
    """What each name tells; no times at all if what looks like times are numbers."""
    stamps: list[_Stamp | None] = []
    numbers = False
    for path in paths:
        stem = Path(path).stem
        text = "/".join([*Path(path).parts[-DEPTH:-1], stem])
        seconds = _SECONDS.search(stem)
        found = _day(stem)
        if seconds and not found:
            at = datetime.fromtimestamp(int(seconds[1]))
            stamps.append(_Stamp(datetime.combine(at, time()), at.time()))
            continue
        text = stem if found else text
        found = found or _day(text)
        if found is None:
            stamps.append(None)
            continue
        day, end = found
        digits = _NEXT.match(text, end) or _LATER.search(text, end)
        clock = None
        if digits:
            try:
                hour, minute, second = (int(n or 0) for n in digits.groups())
                clock = time(hour, minute, second)
            except ValueError:
                numbers = True
        stamps.append(_Stamp(day, clock))
    clocks = [s.clock for s in stamps if s is not None and s.clock is not None]
    if numbers or all(clock.hour == 0 for clock in clocks):  # files that are counted: 0001, 0002, ... 0060
        return [None if s is None else _Stamp(s.day, None) for s in stamps]
    return stamps


def _written(path: str) -> datetime | None:
    """When a file was written; None if it does not exist, or if the challenge made it."""
    if not path or parse(Path(path).name).form:
        return None
    try:
        return datetime.fromtimestamp(Path(path).stat().st_mtime)
    except (OSError, OverflowError, ValueError):
        return None


def _starts(times: Sequence[datetime | None]) -> list[str]:
    """The day and hour at which the session of each time begins, "" for None."""
    starts: dict[datetime, datetime] = {}
    before = start = datetime.min
    for at in sorted({t for t in times if t is not None}):
        start = at if at - before > GAP else start
        starts[at], before = start, at
    return ["" if t is None else f"{starts[t]:%Y-%m-%d %H}h" for t in times]
