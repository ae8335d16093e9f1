"""Messages for people: a line per event, or all messages as JSON lines; and a summary at the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from nearfar.live.history.records import ALARM, HEALTH_EVENT, TREND, UNUSUAL, Event
from nearfar.live.rules.alarm import CLEARED, RAISED
from nearfar.live.sinks.messages import CLOSE_S, EventMessage, Message, ScoreMessage
from nearfar.support.times import local_time
from nearfar.support.words import plural

RESULTS = {"normal": "normal", "unusual": "unusual", "ANOMALOUS": "anomalous", "cannot judge": "cannot be judged"}


class Printer:
    """A sink that calls `echo` with lines; `counts` holds windows by result and events by kind."""

    name, problem = "terminal", ""

    def __init__(self, echo: Callable[[str], None], *, as_json: bool = False) -> None:
        self.echo, self.as_json = echo, as_json
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Count a message, and print it if it is for people."""
        with self._lock:
            if isinstance(message, ScoreMessage):
                self.counts[RESULTS[message.record.status]] += 1
            elif isinstance(message, EventMessage) and message.what == RAISED:
                self.counts[message.event.kind] += 1
            if self.as_json:
                self.echo(message.json())
            elif isinstance(message, EventMessage) and (line := sentence(message)):
                self.echo(line)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Nothing is left to print."""

    @property
    def windows(self) -> int:
        """How many windows were scored."""
        return sum(self.counts[result] for result in RESULTS.values())

    def summary(self) -> str:
        """What was scored and raised, in one line."""
        parts = [f"{self.counts[result]} {result}" for result in RESULTS.values() if self.counts[result]]
        scored = f"{plural(self.windows, 'window')} scored{': ' if parts else ''}{', '.join(parts)}"
        return f"{scored}; {plural(self.counts[ALARM], 'alarm')}, {plural(self.counts[HEALTH_EVENT], 'health event')}"


def sentence(message: EventMessage) -> str:
    """An event as a line: when, which machine, what; "" for what people did themselves."""
    event, at = message.event, local_time(message.at).strftime("%Y-%m-%d %H:%M:%S")
    start, number = f"{at}  {message.machine:<12}", f"(event {event.id})"
    if message.what == RAISED and event.kind == HEALTH_EVENT:
        return f"{start}  HEALTH   {event.text}  {number}"
    if message.what == RAISED and event.kind == TREND:
        return f"{start}  RISING   {event.text}  {number}"
    if message.what == RAISED and event.kind == UNUSUAL:
        return f"{start}  UNUSUAL  {event.text}  {number}"
    if message.what == CLEARED and event.kind == UNUSUAL:
        return f"{start}  cleared  no longer unusual, after {_duration(event)}  {number}"
    if message.what == CLEARED and event.kind == TREND:
        return f"{start}  cleared  no longer rising  {number}"
    if message.what == RAISED:
        level = f"{event.peak_score:.1f} standard deviations, set-point {event.threshold:.1f}"
        return f"{start}  ALARM    {event.text}: {level}  {number}"
    if message.what == CLEARED and event.kind == HEALTH_EVENT:
        return f"{start}  cleared  working again after {_duration(event)}  {number}"
    if message.what == CLEARED:
        return f"{start}  cleared  the alarm lasted {_duration(event)}; highest score {event.peak_score:.1f}  {number}"
    return ""


def _duration(event: Event) -> str:
    seconds = (event.ended or event.started) - event.started
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
