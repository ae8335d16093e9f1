"""What the history remembers. Times are seconds since 1970 (UTC), levels dB of full scale."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

# What the plant tells the world, and what a sink is.
#
# score    every window              {score, threshold, t0, t1, anomalous, state, ...}
# state    when it changes           {state}                      the words of `alarm`
# event    alarm or health event     {what, event}                raised, cleared, acknowledged, verdict
# health   when it changes           {health, text}               ok | problem | offline
#

SCORE, STATE, EVENT, HEALTH = "score", "state", "event", "health"
OK, PROBLEM, OFFLINE = "ok", "problem", "offline"


@dataclass(frozen=True)
class Message:
    """One thing that happened to one machine, at a time (s since 1970, UTC)."""

    kind: str
    machine: str
    site: str
    at: float
    body: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON without NaN."""
        plain = {"kind": self.kind, "machine": self.machine, "site": self.site, "at": self.at, **self.body}
        return json.dumps(plain, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Message:
        """The message that `to_json` wrote."""
        body = json.loads(text)
        return cls(body.pop("kind"), body.pop("machine"), body.pop("site"), body.pop("at"), body)

    @property
    def id(self) -> str:
        """The same for the same message, whenever it is sent: whoever gets it twice can tell."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]


class Sink(Protocol):
    """Takes messages at once, whatever becomes of them: `put` neither waits nor raises."""

    name: str

    @property
    def problem(self) -> str:
        """Why it does not get through, or ""."""
        ...

    def put(self, message: Message) -> None:
        """Take a message."""
        ...

    def close(self) -> None:
        """Deliver what can be delivered soon, and stop."""
        ...


ALARM, HEALTH = "alarm", "health"
FINE, FAULT = "fine", "fault"


@dataclass(frozen=True)
class Scored:
    """One window; `anomalous` is None where it cannot be judged, and `problem` says why."""

    machine: str
    t0: float
    t1: float
    score: float
    threshold: float
    anomalous: bool | None
    p: float
    triggered_by: tuple[str, ...] = ()
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
    peak_score: float = 0.0
    peak_t0: float = 0.0
    threshold: float = 0.0
    triggered_by: tuple[str, ...] = ()
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
