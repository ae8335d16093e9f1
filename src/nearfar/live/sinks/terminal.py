"""A plant's messages for people, one line per event, or as JSON lines; and what has happened in all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from nearfar.live.records import EVENT, HEALTH, SCORE, Message
from nearfar.support.words import plural

RESULTS = {False: "normal", True: "anomalous", None: "cannot be judged"}


class Printer:
    """A sink that calls `say` with lines; `counts` holds windows by result and events by kind."""

    name, problem = "terminal", ""

    def __init__(self, say: Callable[[str], None], *, as_json: bool = False) -> None:
        self.say, self.as_json = say, as_json
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Count a message, and say it if it is one for people."""
        with self._lock:
            if message.kind == SCORE:
                self.counts[RESULTS[message.body["anomalous"]]] += 1
            elif message.kind == EVENT and message.body["what"] == "raised":
                self.counts[message.body["event"]["kind"]] += 1
            if self.as_json:
                self.say(message.to_json())
            elif message.kind == EVENT and (line := sentence(message)):
                self.say(line)

    def close(self) -> None:
        """Nothing waits."""

    @property
    def windows(self) -> int:
        """How many windows have been heard."""
        return sum(self.counts[result] for result in RESULTS.values())

    def summary(self) -> str:
        """What has been heard, in one line."""
        parts = [f"{self.counts[result]} {result}" for result in RESULTS.values() if self.counts[result]]
        heard = f"{plural(self.windows, 'window')} heard{': ' if parts else ''}{', '.join(parts)}"
        return f"{heard}; {plural(self.counts['alarm'], 'alarm')}, {self.counts[HEALTH]} of health"


def sentence(message: Message) -> str:
    """An event as a line: when, which machine, what; "" for what people did themselves."""
    what, event = message.body["what"], message.body["event"]
    at = datetime.fromtimestamp(message.at).strftime("%Y-%m-%d %H:%M:%S")
    start = f"{at}  {message.machine:<12}"
    if what == "raised" and event["kind"] == HEALTH:
        return f"{start}  HEALTH   {event['text']}  (event {event['id']})"
    if what == "raised":
        level = f"{event['peak_score']:.1f} standard deviations, set-point {event['threshold']:.1f}"
        return f"{start}  ALARM    {event['text']}: {level}  (event {event['id']})"
    if what == "cleared":
        lasted = _lasted(event)
        more = "" if event["kind"] == HEALTH else f", at most {event['peak_score']:.1f}"
        return f"{start}  cleared  {'well again' if event['kind'] == HEALTH else 'alarm'} after {lasted}{more}" + (
            f"  (event {event['id']})"
        )
    return ""


def _lasted(event: dict[str, Any]) -> str:
    seconds = event["ended"] - event["started"]
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
