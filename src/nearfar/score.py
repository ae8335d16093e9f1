"""What a detector says of one clip.

value      standard deviations of the normals' own leave-one-out scores above their mean; higher is more anomalous
p          share of normal clips expected to score as high
anomalous  value > threshold, or None where the recording itself cannot be judged (dead microphone, saturated)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AND = " and "  # between the parts of a watch that were heard


@dataclass(frozen=True)
class Score:
    """What the detector says of one clip; see the module for units."""

    name: str
    value: float
    threshold: float
    anomalous: bool | None
    nearest: list[str]
    p: float
    heard: str = ""  # parts of a watch beyond the set-point, rarest first ("transient and steady"), else the rarest
    parts: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""  # why the clip cannot be judged
    warnings: Sequence[str] = ()

    @property
    def status(self) -> str:
        """ "normal", "ANOMALOUS" or "cannot judge"."""
        return {None: "cannot judge", True: "ANOMALOUS", False: "normal"}[self.anomalous]


def domain_shift_warning(scores: Sequence[Score], beyond: float = -math.inf) -> str:
    """A word about recordings that are to become normals, if most would alarm and one lies `beyond`; "" otherwise."""
    strange = sum(bool(s.anomalous) for s in scores)
    if 2 * strange <= len(scores) or (worst := max(s.value for s in scores)) <= beyond:
        return ""
    return (
        f"of {len(scores)} of these, {strange} would be an alarm (up to {worst:.1f}): a way to run that was not heard "
        "before, or another machine?"
    )
