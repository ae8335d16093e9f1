"""What the history remembers. Times are seconds since 1970 (UTC), levels dB of full scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALARM, HEALTH = "alarm", "health"
FINE, FAULT = "fine", "fault"


@dataclass(frozen=True)
class Scored:
    """One window; `anomalous` is None where it cannot be judged, and `problem` says why."""

    machine: str
    t0: float
    t1: float
    value: float
    threshold: float
    anomalous: bool | None
    p: float
    heard: str = ""
    problem: str = ""
    level_near_dbfs: float | None = None
    level_far_dbfs: float | None = None


@dataclass(frozen=True)
class Event:
    """An alarm, or trouble with a microphone ("health"), from `started` to `ended` (None: it still stands).

    `audio` is a file below the history's `audio` folder or "", and starts at `audio_t0`; `verdict` is what people said:
    "", "fine" or "fault".
    """

    id: int
    machine: str
    kind: str
    started: float
    ended: float | None = None
    peak_value: float = 0.0
    peak_t0: float = 0.0
    threshold: float = 0.0
    heard: str = ""
    text: str = ""
    audio: str = ""
    acknowledged: float | None = None
    acknowledged_by: str = ""
    verdict: str = ""
    verdict_by: str = ""
    audio_t0: float = 0.0


@dataclass(frozen=True)
class Audit:
    """Who did what to which machine: feedback, shelving, set-points, changes of the bank."""

    id: int
    at: float
    who: str
    machine: str
    action: str
    detail: dict[str, Any] = field(default_factory=dict)
