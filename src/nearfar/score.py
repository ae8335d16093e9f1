"""The result of scoring one clip, and of a recording from those of its windows.

Conventions
    score      standard deviations of the normals' own leave-one-out scores above their mean; higher is more anomalous
    p          share of normal clips expected to score as high, with calibration by groups also in a new session
    anomalous  score > threshold, or None where the recording itself cannot be judged (dead microphone, saturated)
    unusual    score > unusual_threshold: rare even for a session like those of the normals; True for every alarm,
               None as `anomalous`

>>> windows = [Score("a.wav@0s", 1.0, 3.0, False, [], 0.4), Score("a.wav@10s", 4.5, 3.0, True, [], 0.01)]
>>> worst = worst_window(windows, "a.wav")
>>> worst.score, worst.status, worst.warnings
(4.5, 'ANOMALOUS', ['the highest of 2 windows, 10s from the start', '1 of them is anomalous'])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeVar

WORST = 4  # spans of a long recording that are named
Flagged = TypeVar("Flagged")


@dataclass(frozen=True)
class Score:
    """The result of scoring one clip; see the module for units."""

    name: str
    score: float
    threshold: float
    anomalous: bool | None
    nearest: list[str]
    p: float
    triggered_by: tuple[str, ...] = ()  # parts of a watch above the set-point, rarest first; if none is, the rarest
    part_scores: Mapping[str, float] = field(default_factory=dict)
    unusual: bool | None = None
    unusual_threshold: float = math.inf
    problem: str = ""  # why the clip cannot be judged
    warnings: Sequence[str] = ()
    codes: Sequence[str] = ()  # kinds of the problem and the warnings, for programs: see `audio.checks`

    @property
    def value(self) -> float:
        """Another name of `score`."""
        return self.score

    @property
    def status(self) -> str:
        """ "normal", "unusual", "ANOMALOUS" or "cannot judge"."""
        return status(self.anomalous, self.unusual)


def worst_window(scores: Sequence[Score], name: str) -> Score:
    """The score of a recording `name` from those of its windows: the highest that could be judged, with a note."""
    if len(scores) == 1:
        return replace(scores[0], name=name)
    worst = max(scores, key=severity)
    notes = [f"the highest of {len(scores)} windows, {worst.name.rpartition('@')[2]} from the start"]
    if anomalous := sum(bool(s.anomalous) for s in scores):
        notes.append(f"{anomalous} of them {'is' if anomalous == 1 else 'are'} anomalous")
    if len(unusual_runs := runs(scores, "unusual")) > 1:
        spans = sorted(unusual_runs, key=lambda run: -max(s.score for s in run))[:WORST]
        notes.append(f"unusual {'; '.join(map(_span, spans))}")
    codes = [*worst.codes]
    if mute := [s for s in scores if s.problem and not worst.problem]:
        notes.append(f"{len(mute)} of them cannot be judged: {mute[0].problem}")
        codes = list(dict.fromkeys([*codes, *(code for s in mute for code in s.codes)]))
    return replace(worst, name=name, warnings=[*worst.warnings, *notes], codes=codes)


def runs(windows: Sequence[Flagged], flag: str) -> list[list[Flagged]]:
    """The runs of neighbouring windows whose flag, "unusual" or "anomalous", is set."""
    return [list(run) for is_set, run in groupby(windows, lambda window: bool(getattr(window, flag))) if is_set]


def _span(run: Sequence[Score]) -> str:
    """ "at 500s (4.5)", "from 2000s, 4 windows (14.4)"."""
    start, peak = run[0].name.rpartition("@")[2], max(s.score for s in run)
    return f"at {start} ({peak:.1f})" if len(run) == 1 else f"from {start}, {len(run)} windows ({peak:.1f})"


def status(anomalous: bool | None, unusual: bool | None) -> str:
    """ "normal", "unusual", "ANOMALOUS" or "cannot judge": the word for a score."""
    if anomalous is None:
        return "cannot judge"
    return "ANOMALOUS" if anomalous else "unusual" if unusual else "normal"


def severity(score: Score) -> tuple[bool, float]:
    """A key that sorts scores, the most unusual last; one that cannot be judged comes first."""
    return score.anomalous is not None, score.score


def domain_shift_warning(scores: Sequence[Score], beyond: float = -math.inf) -> str:
    """A warning about recordings that are to become normals: most would alarm, one above `beyond`; else ""."""
    strange = sum(bool(s.anomalous) for s in scores)
    if 2 * strange <= len(scores) or (worst := max(s.score for s in scores)) <= beyond:
        return ""
    return (
        f"of {len(scores)} of these, {strange} would be an alarm (up to {worst:.1f}): a way to run that was not heard "
        "before, or another machine?"
    )
