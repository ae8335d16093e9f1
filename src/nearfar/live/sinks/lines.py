"""Messages as lines of a file: JSON lines of everything, or CSV of scores. Whole lines only, also on a full disk.

The file is opened anew for each line, so it may be moved away (logrotate) at any time.
"""

from __future__ import annotations

import csv
import io
import os
from datetime import datetime, timezone
from pathlib import Path

from nearfar.live.records import SCORE, Message
from nearfar.live.sinks.retry import RetryQueue

COLUMNS = (
    "time",
    "machine",
    "score",
    "threshold",
    "anomalous",
    "p",
    "triggered_by",
    "problem",
    "near_dbfs",
    "far_dbfs",
)


def json_lines(path: Path) -> RetryQueue:
    """A sink that appends each message to `path` as a line of JSON."""
    return RetryQueue(f"json lines {path}", lambda message: append(path, message.to_json() + "\n"))


def csv_lines(path: Path) -> RetryQueue:
    """A sink that appends each score to `path` as a row of CSV; the first row names the columns."""

    def deliver(message: Message) -> None:
        if message.kind == SCORE:
            new = not path.exists() or not path.stat().st_size
            append(path, (_csv(COLUMNS) if new else "") + _csv(_row(message)))

    return RetryQueue(f"csv {path}", deliver)


def append(path: Path, text: str) -> None:
    """Append text, all of it or, with an OSError, nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if (written := file.write(data)) != len(data):
                raise OSError(28, f"only {written} of {len(data)} bytes could be written", str(path))
        except OSError:
            if path.is_file():
                file.truncate(before)
            raise


def _row(message: Message) -> list[object]:
    body = message.body
    time = datetime.fromtimestamp(body["t0"], timezone.utc).isoformat(timespec="milliseconds")
    flag = "" if body["anomalous"] is None else int(body["anomalous"])
    triggers = " and ".join(body["triggered_by"])
    facts = [body["p"], triggers, body["problem"], body["near_dbfs"], body["far_dbfs"]]
    return [time, message.machine, body["score"], body["threshold"], flag, *facts]


def _csv(row: object) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)  # type: ignore[arg-type]
    return out.getvalue()
