"""What the plant tells the world, and what a sink is.

score    every window              {value, threshold, t0, t1, anomalous, state, ...}
state    when it changes           {state}                      the words of `alarm`
event    alarm or health event     {what, event}                raised, cleared, acknowledged, verdict
health   when it changes           {health, text}               ok | problem | offline
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

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
