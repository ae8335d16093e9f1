"""Times of the week and single spans, in the time zone of this computer: quiet hours, and maintenance.

22:00-06:00                          every night
Sat-Sun    Mon,Wed                   whole days
Fri 22:00-06:00                      the night that begins on Friday
2026-12-24T06:00/2026-12-26T18:00    once
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from nearfar.errors import BadInput, NotFound
from nearfar.support.files import read_json, write_json
from nearfar.support.times import local_time

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS = re.compile(r"(?:(?P<days>[A-Za-z,-]+) )?(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)|(?P<only>[A-Za-z,-]+)")
WRITTEN = "22:00-06:00, Sat-Sun, Fri 22:00-06:00 or 2026-12-24T06:00/2026-12-26T18:00"
MAINTENANCE = "maintenance"
ADDED = "maintenance.json"  # of the history: what the API has added


@dataclass(frozen=True)
class Span:
    """A span of every week (`days`, from `start` to `end`, which may be on the next day), or a single one (`once`)."""

    text: str
    days: frozenset[int] = frozenset()
    start: time = time()
    end: time = time()
    once: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> Span:
        """The span that a text describes, as above. ValueError for another text."""
        if "/" in text:
            start, end = map(_moment, text.split("/", 1))
            if end <= start:
                raise ValueError(f"{text!r} ends before it begins")
            return cls(text, once=(start, end))
        found = HOURS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no span of time: write {WRITTEN}")
        named = found["days"] or found["only"]
        days = _days(named) if named else frozenset(range(7))
        if found["only"]:
            return cls(text, days)
        try:
            return cls(text, days, time.fromisoformat(found["start"]), time.fromisoformat(found["end"]))
        except ValueError:
            raise ValueError(f"{text!r} has an hour that no day has") from None

    def end_of(self, at: float) -> float | None:
        """The end of the span that holds a time (s since 1970, UTC), or None."""
        if self.once is not None:
            return self.once[1] if self.once[0] <= at < self.once[1] else None
        now = local_time(at)
        for day in (now.date(), now.date() - timedelta(days=1)):
            start, end = _on(day, self.start), _on(day + timedelta(days=self.end <= self.start), self.end)
            if day.weekday() in self.days and start <= at < end:
                return end
        return None


def end_of_all(spans: Iterable[Span], at: float) -> float | None:
    """The end of those of `spans` that hold a time and follow one another, or None."""
    found = None
    for _ in range(100):  # spans of every day follow one another without end
        ends = [end for span in spans if (end := span.end_of(at)) is not None]
        if not ends:
            break
        found = at = max(ends)
    return found


@dataclass(frozen=True)
class Maintenance:
    """A time in which machines are not judged; `machines` () are all. `id` 0: it stands in the configuration."""

    when: str
    machines: tuple[str, ...] = ()
    why: str = ""
    id: int = 0


class Calendar:
    """The maintenance of a plant: what the configuration lists, and what was added since, kept in `folder`."""

    def __init__(self, configured: Sequence[Maintenance], folder: Path) -> None:
        self.path = folder / ADDED
        self._configured = tuple(configured)
        self._added: tuple[Maintenance, ...] = read_json(self.path, _parsed, (), "the entries of plant.toml remain")
        self._spans = {entry: Span.parse(entry.when) for entry in self.entries}

    @property
    def entries(self) -> tuple[Maintenance, ...]:
        """All entries."""
        return (*self._configured, *self._added)

    def why(self, machine: str, at: float) -> str:
        """Why a machine is not judged at a time, "maintenance: ...", or ""."""
        for entry, span in self._spans.items():
            if (not entry.machines or machine in entry.machines) and span.end_of(at) is not None:
                return f"{MAINTENANCE}: {entry.why or entry.when}"
        return ""

    def add(self, when: str, machines: Sequence[str], why: str) -> Maintenance:
        """Add an entry. BadInput if `when` is not a span of time."""
        try:
            Span.parse(when)
        except ValueError as error:
            raise BadInput(str(error)) from None
        entry = Maintenance(when, tuple(machines), why, 1 + max((e.id for e in self._added), default=0))
        self._change((*self._added, entry))
        return entry

    def remove(self, id: int) -> Maintenance:
        """Remove an entry that was added. NotFound if there is none."""
        for entry in self._added:
            if entry.id == id:
                self._change(tuple(e for e in self._added if e != entry))
                return entry
        raise NotFound(f"no maintenance with the number {id} was added; those of plant.toml are changed there")

    def _change(self, added: tuple[Maintenance, ...]) -> None:
        write_json(self.path, [asdict(entry) for entry in added])
        self._added = added
        self._spans = {entry: Span.parse(entry.when) for entry in self.entries}


def _parsed(rows: Any) -> tuple[Maintenance, ...]:
    return tuple(Maintenance(**{**row, "machines": tuple(row["machines"])}) for row in rows)


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise ValueError(f"{text!r} is no time: write it as 2026-12-24T06:00") from None


def _days(text: str) -> frozenset[int]:
    """Numbers of the days in "Mon,Wed" or "Sat-Mon", Monday is 0."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            a, b = (DAYS.index(name.capitalize()) for name in (first, last or first))
        except ValueError:
            raise ValueError(f"{part!r} is no day: write {', '.join(DAYS)}") from None
        found |= {i % 7 for i in range(a, b + 1 if b >= a else b + 8)}
    return frozenset(found)


def _on(day: date, at: time) -> float:
    return datetime.combine(day, at).timestamp()
