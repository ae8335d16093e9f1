"""The rows of the history: a table has the fields of its record as columns, in their order.

Times are seconds since 1970 (UTC), levels dB of full scale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nearfar.score import status
from nearfar.support.times import utc_time

KINDS = ALARM, HEALTH_EVENT, TREND, UNUSUAL = "alarm", "health", "trend", "unusual"  # of events
FINE, FAULT = "fine", "fault"  # verdicts
NOTE = "note"  # the action of the audit that writes, changes and deletes notes
Record = TypeVar("Record", "ScoreRecord", "Event", "Audit")


@dataclass(frozen=True)
class ScoreRecord:
    """The score of one window; `anomalous` is None where the window cannot be judged, and `problem` says why.

    `triggered_by` names the watches that crossed their set-point; `p` is the share of healthy windows
    that score as high. `unusual` is None, too, in rows of versions that did not know it. `file` is the recording that
    the window is of, as its folder or its sender names it, "" for a stream.
    """

    machine: str
    t0: float
    t1: float
    score: float
    threshold: float
    anomalous: bool | None
    p: float
    triggered_by: tuple[str, ...] = ()
    problem: str = ""
    level_near_dbfs: float | None = None
    level_far_dbfs: float | None = None
    unusual: bool | None = None
    file: str = ""

    @property
    def status(self) -> str:
        """ "normal", "unusual", "ANOMALOUS" or "cannot judge"."""
        return status(self.anomalous, self.unusual)


@dataclass(frozen=True)
class Event:
    """An alarm, a health problem, a slow rise ("trend") or a time of many unusual windows ("unusual", see `lamp`).

    It lasts from `started` to `ended` (None: it still stands). `audio` is a file below the history's `audio` folder or
    "", and starts at `audio_t0`. `threshold` is the set-point of the alarm, or of unusual windows. `verdict` is what
    people answered: "", "fine" or "fault". `interrupted`: the monitor stopped while the event stood, so `ended` is the
    end of its last window. `on_top_of`: the alarm event that stood already when this one was raised anew.
    """

    id: int
    machine: str
    kind: str
    started: float
    ended: float | None = None
    peak_score: float = 0.0
    peak_t0: float = 0.0
    threshold: float = 0.0
    triggered_by: tuple[str, ...] = ()
    text: str = ""
    audio: str = ""
    acknowledged: float | None = None
    acknowledged_by: str = ""
    verdict: str = ""
    verdict_by: str = ""
    audio_t0: float = 0.0
    interrupted: bool = False
    on_top_of: int | None = None


@dataclass(frozen=True)
class Audit:
    """Who did what to which machine: verdicts, shelving, set-points, changes of the bank."""

    id: int
    at: float
    who: str
    machine: str
    action: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """What people wrote on the time line of a machine, at a time; of an `event` it is what they call it.

    `id` is that of the audit entry that it began with; a later entry may have changed the text.
    """

    id: int
    machine: str
    at: float
    text: str
    who: str
    event: int | None = None


def iso_time(seconds: float) -> str:
    """A time as ISO 8601 in UTC, to the millisecond."""
    return utc_time(seconds).isoformat(timespec="milliseconds")


def trigger_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """`triggered_by` as it was written: a list, the same as JSON, or in rows of version 2 names joined by " and "."""
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else [name for name in value.split(" and ") if name]
    return tuple(value)


def as_column(value: Any) -> Any:
    """A field as SQLite keeps it: a dict or tuple as JSON."""
    return json.dumps(value) if isinstance(value, dict | tuple) else value


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


READ: dict[str, Callable[[Any], Any]] = {  # how the values of a column become those of the field
    **dict.fromkeys(("anomalous", "unusual", "interrupted"), _flag),
    "triggered_by": trigger_names,
    "detail": json.loads,
}


def of_row(kind: type[Record], row: Sequence[Any]) -> Record:
    """The record of a row of its table."""
    values = zip(kind.__match_args__, row, strict=True)
    return kind(*[READ[name](value) if name in READ else value for name, value in values])
