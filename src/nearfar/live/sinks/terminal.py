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

LINES = {  # of an event `e`, by what has happened to it and its kind
    (RAISED, ALARM): "ALARM    {e.text}: {e.peak_score:.1f} standard deviations, set-point {e.threshold:.1f}",
    (RAISED, HEALTH_EVENT): "HEALTH   {e.text}",
    (RAISED, TREND): "RISING   {e.text}",
    (RAISED, UNUSUAL): "UNUSUAL  {e.text}",
    (CLEARED, ALARM): "cleared  the alarm lasted {lasted}; highest score {e.peak_score:.1f}",
    (CLEARED, HEALTH_EVENT): "cleared  working again after {lasted}",
    (CLEARED, TREND): "cleared  no longer rising",
    (CLEARED, UNUSUAL): "cleared  no longer unusual, after {lasted}",
}
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
    said = LINES.get((message.what, event.kind), "").format(e=event, lasted=_duration(event))
    return said and f"{at}  {message.machine:<12}  {said}  (event {event.id})"


def _duration(event: Event) -> str:
    seconds = (event.ended or event.started) - event.started
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
