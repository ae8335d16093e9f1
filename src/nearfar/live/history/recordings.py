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
from nearfar.live.sources.windows import APART_S
from nearfar.score import WORST, runs

IN_A_ROW = 3
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
    """The recordings of these windows, which come newest first, as they are; those that ended last come first.

    Recordings may overlap: files that were copied together have one time.
    """
    begun: list[list[ScoreRecord]] = []  # windows of each recording whose first one may be still to come
    longest = 0.0
    for row in newest_first:
        longest = max(longest, row.t1 - row.t0)
        while begun and begun[0][-1].t0 > row.t0 + 2 * longest:
            yield recording_of(begun.pop(0)[::-1])
        run = next((r for r in begun if r[-1].file == row.file and abs(r[-1].t0 - row.t1) < APART_S / 2), None)
        if run is not None:
            run.append(row)
        else:
            begun.append([row])
            begun.sort(key=lambda run: -run[0].t1)
    yield from (recording_of(run[::-1]) for run in begun)
