"""The result of scoring one clip.

score      standard deviations of the normals' own leave-one-out scores above their mean; higher is more anomalous
p          share of normal clips expected to score as high
anomalous  score > threshold, or None where the recording itself cannot be judged (dead microphone, saturated)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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
    problem: str = ""  # why the clip cannot be judged
    warnings: Sequence[str] = ()

    @property
    def value(self) -> float:
        """Another name of `score`."""
        return self.score

    @property
    def status(self) -> str:
        """ "normal", "ANOMALOUS" or "cannot judge"."""
        return {None: "cannot judge", True: "ANOMALOUS", False: "normal"}[self.anomalous]


def domain_shift_warning(scores: Sequence[Score], beyond: float = -math.inf) -> str:
    """A warning about recordings that are to become normals: most would alarm, one above `beyond`; else ""."""
    strange = sum(bool(s.anomalous) for s in scores)
    if 2 * strange <= len(scores) or (worst := max(s.score for s in scores)) <= beyond:
        return ""
    return (
        f"of {len(scores)} of these, {strange} would be an alarm (up to {worst:.1f}): a way to run that was not heard "
        "before, or another machine?"
    )
