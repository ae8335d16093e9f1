"""What a plant reports to the outside: a message class per kind, and the protocol of the sinks that take them.

score    every window                  ScoreMessage
state    when the alarm's state changes    StateMessage      one of `alarm.STATES`, and the lamp "unusual"
event    alarm, health, trend, unusual EventMessage      raised, cleared, acknowledged, verdict
health   when it changes               HealthMessage     waiting | ok | problem | offline
report   when it is due (`schedule`)   ReportMessage     to the channels and the folder of [report] alone
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol

from nearfar.live.history.records import Event, ScoreRecord, iso_time, trigger_names
from nearfar.live.rules.trend import Ramp

SCORE, STATE, EVENT, HEALTH, REPORT = "score", "state", "event", "health", "report"
OK, PROBLEM, OFFLINE, WAITING = "ok", "problem", "offline", "waiting"
CLOSE_S = 3.0  # for a sink to deliver what waits, when it is closed


@dataclass(frozen=True)
class Message:
    """One thing that happened to one machine, at a time (s since 1970, UTC)."""

    kind: ClassVar[str]
    machine: str
    site: str
    at: float

    def body(self) -> dict[str, Any]:
        """The fields of this kind, as plain data."""
        own = [field.name for field in fields(self) if field.name not in Message.__match_args__]
        return {name: _plain(getattr(self, name)) for name in own}

    def when(self) -> dict[str, Any]:
        """The time, in seconds and in ISO 8601."""
        return {"at": self.at, "at_iso": iso_time(self.at)}

    def json(self, say: Callable[[str], str] = str) -> str:
        """One line of JSON without NaN, its texts for people as `say` gives them."""
        body = spoken(self.body(), say)
        plain = {"kind": self.kind, "machine": self.machine, "site": self.site, **self.when(), **body}
        return json.dumps(plain, allow_nan=False, separators=(",", ":"))

    @property
    def id(self) -> str:
        """The same whenever the message is sent, so that a receiver can recognise a repetition."""
        return hashlib.sha256(self.json().encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ScoreMessage(Message):
    """A window was scored; `state` is the alarm's state after it, `warnings` are problems that do not spoil it.

    `unusual_stands`: whether the lamp "unusual" of the machine is lit (`lamp`); the window's own flag is `unusual`.
    `trend` is the slow rise of the healthy score that is plain, or None.
    """

    kind = SCORE
    record: ScoreRecord
    state: str
    model: str = ""
    recipe: str = ""
    warnings: tuple[str, ...] = ()
    unusual_stands: bool = False
    trend: Ramp | None = None

    def body(self) -> dict[str, Any]:
        row = asdict(self.record)
        levels = {f"{channel}_dbfs": row.pop(f"level_{channel}_dbfs") for channel in ("near", "far")}
        del row["machine"]
        facts = {"model": self.model, "recipe": self.recipe, "state": self.state, "unusual_stands": self.unusual_stands}
        return {**facts, **row, **levels, "warnings": list(self.warnings), "trend": _plain(self.trend)}


@dataclass(frozen=True)
class StateMessage(Message):
    """The alarm's state has changed, the lamp "unusual" (`lamp`) is lit or out, or a slow rise is plain or over."""

    kind = STATE
    state: str
    unusual_stands: bool = False
    trend: Ramp | None = None


@dataclass(frozen=True)
class EventMessage(Message):
    """An event was raised, cleared or acknowledged, or got a verdict: `what`.

    `url` is the page of the event, "" without a dashboard.
    """

    kind = EVENT
    what: str
    event: Event
    url: str = ""

    def body(self) -> dict[str, Any]:
        return {"what": self.what, "url": self.url, "event": asdict(self.event)}


@dataclass(frozen=True)
class HealthMessage(Message):
    """The microphones of a machine work ("ok"), or `text` says what is wrong with them."""

    kind = HEALTH
    health: str
    text: str = ""


@dataclass(frozen=True)
class ReportMessage(Message):
    """The report of the `span` before `at` is due, as a file of `form`; `machines` () are all, `machine` is "".

    It goes to `channels`, and to the folder if there is one; `url` is its address on the server, or "".
    """

    kind = REPORT
    span: str
    form: str
    machines: tuple[str, ...]
    channels: tuple[str, ...]
    url: str = ""


def spoken(body: Mapping[str, Any], say: Callable[[str], str]) -> dict[str, Any]:
    """The fields of a message, the texts for people among them as `say` gives them."""
    said = dict(body)
    for name, value in body.items():
        if isinstance(value, dict):
            said[name] = spoken(value, say)
        elif name in ("text", "problem"):
            said[name] = say(value)
        elif name == "warnings":
            said[name] = [say(text) for text in value]
    return said


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, Ramp) else value


def parse_message(text: str) -> Message:
    """The event, health or report message with this JSON; the other kinds are never kept."""
    fields = json.loads(text)
    kind, head = fields["kind"], (fields["machine"], fields["site"], fields["at"])
    if kind == EVENT:
        renamed = {"peak_value": "peak_score", "heard": "triggered_by"}  # in messages of earlier versions
        event = {renamed.get(name, name): value for name, value in fields["event"].items()}
        event["triggered_by"] = trigger_names(event["triggered_by"])
        return EventMessage(*head, fields["what"], Event(**event), fields.get("url", ""))
    if kind == HEALTH:
        return HealthMessage(*head, fields["health"], fields["text"])
    if kind == REPORT:
        who = tuple(fields["machines"]), tuple(fields["channels"])
        return ReportMessage(*head, fields["span"], fields["form"], *who, fields["url"])
    raise ValueError(f"messages of kind {kind!r} are not kept")


class Sink(Protocol):
    """Takes messages and delivers them elsewhere: `put` neither waits nor raises."""

    name: str

    @property
    def problem(self) -> str:
        """Why messages are not delivered, or ""."""

    def put(self, message: Message) -> None:
        """Take a message."""

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Deliver what can be delivered in `wait_s`, and stop."""
