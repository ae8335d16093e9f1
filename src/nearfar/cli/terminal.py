"""Terminal output: results on stdout, progress and warnings on stderr, exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from nearfar.errors import code_of
from nearfar.support.progress import Progress
from nearfar.support.words import shown

DONE, ALARM, BAD_INPUT, BUG, STOPPED = 0, 1, 2, 70, 130
LABEL = re.compile(r"(\S[\w -]{0,12} {2,})?\s*")  # "Method        ", or the space before a line


def echo(text: str = "") -> None:
    """Print a line on stdout; a closed pipe (`| head`) changes neither the work nor the exit code."""
    try:
        typer.echo(text)
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and (sys.platform != "win32" or error.errno != errno.EINVAL):
            raise  # EINVAL is what Windows says of a closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def echo_wrapped(text: str) -> None:
    """Print prose; on a terminal it is wrapped between words and indented to the right of its label."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for line in text.split("\n"):
        label = LABEL.match(line)
        beside = " " * (label.end() if label else 0)
        echo(textwrap.fill(line, width, subsequent_indent=beside, break_long_words=False, break_on_hyphens=False))


def warn(text: str, colour: str = typer.colors.YELLOW) -> None:
    """Print a line about a problem on stderr."""
    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    typer.secho(text, err=True, fg=None if plain else colour)


def echo_json(data: Any) -> None:
    """Print one JSON document; NaN is a ValueError."""
    echo(json.dumps(data, indent=2, allow_nan=False, default=str))


def echo_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", words: int = 1) -> None:
    """Print a table as wide as its cells need; the first `words` columns are left-aligned, the others right-aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, style="bold red" if cell == "ANOMALOUS" else "") for cell in row))
    console = Console(highlight=False)
    needed = Console(width=10_000).measure(table).maximum
    console.width = max(console.width, needed)  # rich would cut file names
    with console.capture() as text:
        console.print(table)
    echo(text.get().rstrip("\n"))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """`progress(done, total, what)` moves a bar on stderr; without a terminal it writes a line at every tenth."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int | None, what: str = "", /) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, visible=done != total)
            if done == total:  # work with the same name may start again
                del tasks[what]

        yield report


class _Lines:
    """Progress as lines, with the remaining time estimated from the rate so far."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}

    def __call__(self, done: int, total: int | None, what: str = "", /) -> None:
        passed = time.monotonic() - self.started.setdefault(what, time.monotonic())
        if done == total:  # work with the same name may start again
            del self.started[what]
        if total is None or total < 20 or (done % max(1, total // 10) and done != total):
            return
        left = passed / max(1, done) * (total - done)
        typer.echo(f"{what}: {done} of {total}{_left(left) if done < total else ''}", err=True)


def _left(seconds: float) -> str:
    if seconds < 10:
        return ""
    return f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"


def left_out(file: str, error: str) -> str:
    """A line about a recording that could not be used; it names the recording once."""
    name = Path(file).name
    return f"left out: {error if name in error else f'{name}: {error}'}"


class Failures:
    """Recordings that could not be used: each is reported on stderr at once and kept for the summary."""

    def __init__(self) -> None:
        self.files: list[tuple[str, str]] = []
        self.codes: list[str] = []

    def __call__(self, name: str, error: Exception) -> None:
        self.files.append((shown(name), str(error)))
        self.codes.append(code_of(error))
        warn(left_out(name, str(error)))

    def to_list(self) -> list[dict[str, str]]:
        """The recordings as data for JSON."""
        each = zip(self.files, self.codes, strict=True)
        return [{"file": file, "error": error, "code": code} for (file, error), code in each]


@contextmanager
def handle_errors() -> Iterator[None]:
    """Turn what a user can cause, and Ctrl-C, into one line on stderr and an exit code; never `ALARM`."""
    import warnings

    def short(message: Warning | str, *_: Any, **__: Any) -> None:
        warn(f"note: {message}")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = short
            yield
    except (ValueError, OSError, ImportError, MemoryError, RecursionError) as error:
        warn(f"nearfar: {_text_of(error)}", typer.colors.RED)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        warn("stopped; nothing half-written was left behind")
        raise typer.Exit(STOPPED) from None


def _text_of(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "the memory of this computer is too small for this: fewer --threads, or shorter recordings?"
    if isinstance(error, RecursionError):
        return "a file that was given is nested too deeply to be read: was it written by a faulty tool?"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{shown(error.filename)}: {error.strerror}"
    return str(error)
