"""Progress of long work, reported to a function of the caller."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on: `done` of `total` units (None: not known) of the work named `what`."""

    def __call__(self, done: int, total: int | None, what: str = "", /) -> None: ...


def titled(progress: Progress | None, title: str) -> Progress | None:
    """The same function with `title` before `what`; None stays None."""
    if progress is None:
        return None

    def report(done: int, total: int | None, what: str = "", /) -> None:
        progress(done, total, f"{title} {what}".rstrip())

    return report
