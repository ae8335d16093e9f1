"""The recordings that a machine has heard, a row each, with their worst spans: an hour is one row, not 360.

A recording is a run of windows of one file. A span is a run of its windows that are unusual; the worst are those with
the highest scores. A recording of several windows sounds wrong if IN_A_ROW of them in a row are anomalous, as an alarm
wants it by default: of 360 windows some are above the set-point by chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nearfar.live.history.records import ScoreRecord
from nearfar.score import WORST, runs

IN_A_ROW = 3
APART_S = 0.01  # between the windows of two recordings; those of one follow each other without a gap
SET_BACK_S = 86_400.0  # before the last window: the clock has been set back
WINDOW = re.compile(r"@\d+(?:\.\d+)?(?:e\+?\d+)?s$")  # behind the name of a file, for a window of a long one


@dataclass(frozen=True)
class Span:
    """Unusual windows in a row, in s from the start of the recording, and the highest score in them."""

    start_s: float
    end_s: float
    score: float
    windows: int


@dataclass(frozen=True)
class HeardRecording:
    """A recording: its windows, those that were judged, unusual and anomalous, the highest score and where it is.

    `status` is normal, unusual, wrong or cannot judge; `problem` is why some windows cannot be judged.
    """

    file: str
    t0: float
    t1: float
    score: float
    threshold: float
    worst_t0: float
    windows: int
    judged: int
    unusual: int
    anomalous: int
    status: str
    problem: str
    spans: tuple[Span, ...]


def begin_after(last: ScoreRecord | None, t0: float) -> float:
    """When a recording begins that is to begin at `t0`: after the beginning of the last window, and not at its end.

    Recordings may be sent faster than they were made, so they may overlap.
    """
    if last is None or last.t0 > t0 + SET_BACK_S:
        return t0
    t0 = max(t0, last.t0 + APART_S)
    return last.t1 + APART_S if abs(t0 - last.t1) < APART_S else t0


def file_of(name: str) -> str:
    """The file that a window is of, by the window's name."""
    return WINDOW.sub("", name)


def recording_of(rows: Sequence[ScoreRecord]) -> HeardRecording:
    """One recording, from its windows in the order of time."""
    judged = [row for row in rows if row.anomalous is not None]
    worst = max(judged, key=lambda row: row.score, default=rows[0])
    unusual, anomalous = (sum(bool(getattr(row, name)) for row in judged) for name in ("unusual", "anomalous"))
    in_a_row = max((len(run) for run in runs(rows, "anomalous")), default=0)
    status = "unusual" if unusual else "normal"
    if not judged:
        status = "cannot judge"
    elif in_a_row >= min(IN_A_ROW, len(judged)):
        status = "wrong"
    spans = [
        Span(run[0].t0 - rows[0].t0, run[-1].t1 - rows[0].t0, max(row.score for row in run), len(run))
        for run in runs(rows, "unusual")
    ]
    return HeardRecording(
        rows[0].file,
        rows[0].t0,
        rows[-1].t1,
        worst.score,
        worst.threshold,
        worst.t0,
        len(rows),
        len(judged),
        unusual,
        anomalous,
        status,
        next((row.problem for row in rows if row.anomalous is None), ""),
        tuple(sorted(spans, key=lambda span: -span.score)[:WORST]),
    )


def recordings(newest_first: Iterable[ScoreRecord]) -> Iterator[HeardRecording]:
    """The recordings of these windows, which come newest first."""
    run: list[ScoreRecord] = []
    for row in newest_first:
        if run and (row.file != run[-1].file or abs(run[-1].t0 - row.t1) >= APART_S / 2):
            yield recording_of(run[::-1])
            run = []
        run.append(row)
    if run:
        yield recording_of(run[::-1])
