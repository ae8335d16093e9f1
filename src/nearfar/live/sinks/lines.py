"""Messages as lines of a file: JSON lines of everything, or CSV of scores. Whole lines only, also on a full disk.

The file is opened anew for each line, so it may be renamed (logrotate) at any time.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from nearfar.live.history.records import ScoreRecord, iso_time
from nearfar.live.sinks.messages import Message, ScoreMessage
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.cells import escaped

COLUMNS = (
    *("time", "machine", "score", "threshold", "anomalous", "p", "triggered_by", "problem"),
    *("near_dbfs", "far_dbfs", "unusual"),
)


def json_lines(path: Path) -> RetryQueue:
    """A sink that appends each message to `path` as a line of JSON."""
    return RetryQueue(f"json lines {path}", lambda message: append(path, message.json() + "\n"))


def csv_lines(path: Path) -> RetryQueue:
    """A sink that appends each score to `path` as a row of CSV; the first row names the columns."""

    def deliver(message: Message) -> None:
        if isinstance(message, ScoreMessage):
            new = not path.exists() or not path.stat().st_size
            append(path, (_csv(COLUMNS) if new else "") + _csv(_row(message.record)))

    return RetryQueue(f"csv {path}", deliver)


def append(path: Path, text: str) -> None:
    """Append the whole text, or raise OSError and append nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END) if path.is_file() else 0
        try:
            if (written := file.write(data)) != len(data):
                raise OSError(28, f"only {written} of {len(data)} bytes could be written", str(path))
        except OSError:
            if path.is_file():
                file.truncate(before)
            raise


def _row(s: ScoreRecord) -> list[object]:
    anomalous, unusual = ("" if flag is None else int(flag) for flag in (s.anomalous, s.unusual))
    said = " and ".join(s.triggered_by), s.problem
    levels = s.level_near_dbfs, s.level_far_dbfs
    return [iso_time(s.t0), s.machine, s.score, s.threshold, anomalous, s.p, *said, *levels, unusual]


def _csv(row: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(escaped(row))
    return out.getvalue()
