"""What another set-point would have meant for what was heard: its price in alarms and in confirmed faults.

The recorded windows are replayed through the alarm, with its deadband and delays:

    alarms   of the RECENT_DAYS before the newest window: how many of them would have been raised, and how many others
    faults   alarms and unusual sounds with the verdict "fault", of all recorded time: how many would have been raised
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearfar.live.history.records import ALARM, FAULT, UNUSUAL, Event, ScoreRecord
from nearfar.live.rules.alarm import RAISED, Alarm
from nearfar.live.rules.rhythm import DAY_S, RECENT_DAYS

if TYPE_CHECKING:
    from nearfar.live.history.history import History

EVENTS = 10_000  # newest alarms that are looked at
LEAD_S = 600.0  # of windows replayed before an event, so that its delays have run


@dataclass(frozen=True)
class Price:
    """A set-point on what was heard: `kept` of the `alarms` of the last week and `heard` of the confirmed `faults`."""

    value: float
    alarms: int
    kept: int
    added: int  # alarms of the last week that were not raised then
    faults: int
    heard: int

    def text(self) -> str:
        """The price in a sentence."""
        recent = f"of your {self.alarms} alarms of last week {self.kept} would alarm"
        if self.alarms == 1:
            recent = f"your one alarm of last week would {'' if self.kept else 'not '}alarm"
        if not self.alarms:
            recent = "there was no alarm last week"
        if self.added:
            recent += f", and {self.added} that were not raised"
        if not self.faults:
            return f"{recent}; no fault is confirmed yet"
        if self.faults == 1:
            return f"{recent}; the one confirmed fault would {'' if self.heard else 'not '}alarm"
        return f"{recent}; of {self.faults} confirmed faults {self.heard} would"


def price_of(history: History, machine: str, value: float, alarm: Alarm) -> Price:
    """The price of the set-point `value` for a machine, with the deadband and delays of `alarm`."""
    listening = history.listening(machine)
    since = 0.0 if listening is None else listening.last - RECENT_DAYS * DAY_S
    events = [e for e in history.events(machine, kind=ALARM, limit=EVENTS) if listening is not None]
    recent = [e for e in events if e.started >= since]
    spans = list(_alarms(history.iter_scores(machine, since - LEAD_S, float("inf")), alarm.fresh(value)))
    kept = sum(_overlaps(e, spans) for e in recent)
    added = sum(start >= since and not any(_overlaps(e, [(start, end)]) for e in recent) for start, end in spans)
    faults = [e for e in [*events, *history.events(machine, kind=UNUSUAL, limit=EVENTS)] if e.verdict == FAULT]
    earlier = [e for e in faults if e.started < since]
    heard = sum(_overlaps(e, spans) for e in faults if e.started >= since)
    heard += sum(_would_alarm(history, e, alarm.fresh(value)) for e in earlier)
    return Price(value, len(recent), kept, added, len(faults), heard)


def _alarms(scores: Iterable[ScoreRecord], alarm: Alarm) -> Iterator[tuple[float, float]]:
    """(start, end) of each alarm that `alarm` raises."""
    start, end = None, 0.0
    for s in scores:
        end = s.t1
        change = alarm.update(None if s.anomalous is None else s.score, s.t1, s.p)
        if change == RAISED:
            start = s.t1
        elif change and start is not None:
            yield start, s.t1
            start = None
    if start is not None:
        yield start, end


def _overlaps(event: Event, spans: Sequence[tuple[float, float]]) -> bool:
    ended = float("inf") if event.ended is None else event.ended
    return any(start <= ended and end >= event.started for start, end in spans)


def _would_alarm(history: History, event: Event, alarm: Alarm) -> bool:
    until = float("inf") if event.ended is None else event.ended
    scores = history.iter_scores(event.machine, event.started - LEAD_S, until)
    return _overlaps(event, list(_alarms(scores, alarm)))
