"""The log of a process that runs for years, on stderr: time, level and text, or JSON. Floods are counted."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer

from nearfar.cli.terminal import left_out
from nearfar.support.buckets import Buckets

LOG = logging.getLogger("nearfar")
FORMATS = ("text", "json")
LogFormat = Annotated[str, typer.Option(help="Of the log on stderr: text or json.")]
BURST, PER_S = 20, 1 / 30  # lines of one kind at once, and from then on


@contextmanager
def log_to_stderr(form: str) -> Iterator[None]:
    """Write the log of this process to stderr, as `text` or `json`; ValueError for another `form`."""
    from nearfar.support.check import one_of  # imports numpy, which help does without

    handler, root = logging.StreamHandler(sys.stderr), logging.getLogger()
    handler.setFormatter(_Json() if one_of("--log-format", form, FORMATS) == "json" else _Text())
    handler.addFilter(FloodFilter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def log_left_out(name: str, error: Exception) -> None:
    """Log that a recording could not be used."""
    LOG.warning(left_out(name, str(error)))


class FloodFilter(logging.Filter):
    """Lets BURST lines of one kind through, then PER_S; the next line says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._buckets = Buckets(PER_S, BURST)
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        kind = f"{record.name} {record.levelno} {record.msg}"
        if self._buckets.take(kind, time.monotonic()):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        if more := self._left_out.pop(kind, 0):
            record.msg = f"{record.msg} ({more} more such lines before this one were left out)"
        return True


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
