"""The events of one machine: kept in the history, reported to the sinks, and given their audio.

    alarm event     none --raised--> standing --cleared--> none
    its audio       none --raised, or a higher peak--> incomplete --the sound after the peak is there--> complete

Incomplete audio is saved at once, so that people who look at the event now can hear its peak, and once more when it is
complete. An event may be cleared before its audio is complete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nearfar.live.history.history import History
from nearfar.live.history.records import ALARM, HEALTH_EVENT, TREND, UNUSUAL, Event, ScoreRecord
from nearfar.live.machine import Machine
from nearfar.live.rules.alarm import ANEW, CLEARED, NORMAL, RAISED
from nearfar.live.rules.health import STALE
from nearfar.live.rules.loudness import LOUD
from nearfar.live.rules.trend import HOUR_S, Ramp
from nearfar.live.sinks.messages import OK, PROBLEM, EventMessage, HealthMessage, Message, Sink, StateMessage
from nearfar.support.times import utc_time

SOURCE = "source "  # begins the kind of a problem of a source, and then comes its state
PLAIN_H = 12  # hours without a plain rise after which its event is over
BEFORE_S, AFTER_S = 30.0, 15.0  # audio kept around the peak of an event


class Reporter:
    """Sends messages to `sinks`; those that a sink must receive are kept in the outbox of `history`.

    `url` is the address of the dashboard, to which messages about events link, or "".
    """

    def __init__(self, history: History, sinks: Sequence[Sink], url: str = "") -> None:
        self.history, self.sinks, self.url = history, sinks, url

    def link(self, event: Event) -> str:
        """The address of the page of an event, "" without a dashboard."""
        return f"{self.url.rstrip('/')}/event/{event.id}" if self.url else ""

    def report(self, message: Message) -> None:
        """Keep a message that is not about an event, and send it."""
        self.history.outbox.enqueue(message)
        self.send(message)

    def send(self, message: Message) -> None:
        """Hand a message to all sinks."""
        for sink in tuple(self.sinks):  # channels to people come and go
            sink.put(message)


class EventRecorder:
    """The events of `machine`. Callers hold the machine's lock."""

    def __init__(self, machine: Machine, history: History, reporter: Reporter) -> None:
        self.machine, self.history, self.reporter = machine, history, reporter
        self.alarm_event: Event | None = None  # the alarm that stands, the newest if it was raised anew
        self.earlier_events: list[Event] = []  # those that it stands on top of
        self.health_event: Event | None = None  # the health event that stands
        self.unusual_event: Event | None = None  # begun when the lamp "unusual" was lit
        self._unreadable = self._no_sound = ""  # problems that no single window ends
        self._no_sound_at = -math.inf, -math.inf  # when sound stopped, by `plant.clock` and by the source's clock
        self.trend_event: Event | None = None  # the slow rise that stands
        self._ramp_at = -math.inf  # when it was plain last
        self.recording_event: Event | None = None  # the event whose audio is incomplete
        self.record_until = math.inf  # when its audio is to be saved again
        self._peak: ScoreRecord | None = None  # the highest score since the last window below the set-point
        self._reported_state = ((NORMAL, False), False)

    def on_score(self, score: ScoreRecord, change: str, remarks: Sequence[str] = ()) -> None:
        """Take the score of a window, `change`: what `Alarm.update` returned for it, and remarks on its recording."""
        alarm, judged = self.machine.alarm, score.anomalous is not None
        if judged and score.score > alarm.on:
            if self._peak is None or score.score > self._peak.score:
                self._peak = score
        elif judged and self.alarm_event is None and not alarm.pending:
            self._peak = None
        if change == RAISED:
            self._raise_alarm(self._peak or score, score.t1, remarks)
        elif change == ANEW:
            self._raise_anew(score)
        elif self.alarm_event is not None and judged and score.score > self.alarm_event.peak_score:
            peak: dict[str, Any] = {"peak_score": score.score, "peak_t0": score.t0, "triggered_by": score.triggered_by}
            self.alarm_event = self.recording_event = self.history.change_event(self.alarm_event.id, **peak)
            self._save_audio(again_at=score.t1 + AFTER_S)
        if change == CLEARED and self.alarm_event is not None:
            ended = max(score.t1, self.alarm_event.started)  # the clock may have been set back
            for event in (self.alarm_event, *self.earlier_events):
                self.change(event, CLEARED, ended, ended=ended)
            self.alarm_event = self._peak = None
            self.earlier_events = []
        self._follow_lamp(score)
        if self.recording_event is not None and score.t1 >= self.record_until:
            complete = self.recording_event.peak_t0 + self.machine.detector.window_s + AFTER_S
            self._save_audio(again_at=complete if complete > score.t1 else math.inf)
        self.report_state(score.t1)

    def update_trend(self, ramp: Ramp | None, at: float) -> None:
        """Take the slow rise that is plain now: raise its event, or clear it once it is gone for PLAIN_H hours."""
        self.machine.ramp = ramp
        if ramp is not None:
            self._ramp_at = at
            if self.trend_event is None:
                self.trend_event = self.change(Event(0, self.machine.id, TREND, at, text=ramp.text()), RAISED, at)
            else:
                self.trend_event = self.history.change_event(self.trend_event.id, text=ramp.text())
        elif self.trend_event is not None and at >= self._ramp_at + PLAIN_H * HOUR_S:
            self.change(self.trend_event, CLEARED, at, ended=at)
            self.trend_event = None
        self.report_state(at)

    def save_late_audio(self, now: float) -> None:
        """Save the audio that the buffer holds if it is time for that: no more sound may come."""
        if self.recording_event is not None and now >= self.record_until:
            self._save_audio()

    def update_source(self, problem: str, at: float, now: float) -> None:
        """Take why no sound comes ("": it comes); `at` is the time of an event, `now` that of the source's clock.

        An event ends no earlier than its beginning and its length by `now`: the clock may have been set back meanwhile.
        """
        if problem and not self._no_sound:
            self._no_sound_at = at, now
        elif self._no_sound and not problem:
            began, began_now = self._no_sound_at
            at = max(at, began + now - began_now)
        self._no_sound = problem
        self._report_health(at)

    def update_health(self, unreadable: str, at: float) -> None:
        """Take over the problems of the watchdog, and why the samples of a window are `unreadable`, or ""."""
        self._unreadable = unreadable
        self._report_health(at)

    def _report_health(self, at: float) -> None:
        """Raise, change or clear the health event, and report health if the kinds of problems have changed."""
        machine = self.machine
        problems = dict(machine.watchdog.standing)
        if self._unreadable:
            problems["unreadable"] = self._unreadable
        if self._no_sound:
            problems[f"{SOURCE}{machine.source_health.over or STALE}"] = self._no_sound
        changed = problems.keys() != machine.health.keys()
        if not changed:
            return
        text = "; ".join(problems.values())
        machine.health = problems
        if self.health_event is not None:
            at = max(at, self.health_event.started)
        if problems and self.health_event is None:
            event = Event(0, self.machine.id, HEALTH_EVENT, at, text=text)
            self.health_event = self.change(event, RAISED, at)
        elif problems and self.health_event is not None:
            self.health_event = self.history.change_event(self.health_event.id, text=text)
        elif not problems and self.health_event is not None:
            self.change(self.health_event, CLEARED, at, ended=at)
            self.health_event = None
        health = PROBLEM if problems else OK
        self.reporter.report(HealthMessage(machine.id, machine.site, at, health, text))

    def report_state(self, at: float) -> None:
        """Report the alarm's state, the lamp and the slow rise if one of them has changed since the last report."""
        machine = self.machine
        state = machine.alarm.state(at), machine.lamp.lit
        if (state, self.trend_event is not None) != self._reported_state:
            self._reported_state = state, self.trend_event is not None
            self.reporter.report(StateMessage(machine.id, machine.site, at, *state, machine.ramp))

    def change(self, event: Event, what: str, at: float, **changes: Any) -> Event:
        """Keep an event that begins (its id is 0) or changes, and report it."""
        event, message = self._keep(event, what, at, **changes)
        self.reporter.send(message)
        return event

    def end_interrupted(self, now: float) -> None:
        """End the events of a killed process at the end of its last window; a silence, if none came since, now."""
        for event in self.history.events(self.machine.id, since=math.inf, limit=1000):
            silent_until = now if event.kind == HEALTH_EVENT else event.started
            ended = max(self.history.last_window_end(self.machine.id, event.started) or silent_until, event.started)
            self.change(event, CLEARED, ended, ended=ended, interrupted=True)

    def end(self, at: float) -> None:
        """End the events that stand, as the machine goes, and save their audio."""
        self.close()
        standing = [self.alarm_event, *self.earlier_events, self.health_event, self.trend_event, self.unusual_event]
        for event in standing:
            if event is not None:
                ended = max(at, event.started)
                self.change(event, CLEARED, ended, ended=ended)
        self.alarm_event = self.health_event = self.trend_event = self.unusual_event = None
        self.earlier_events = []

    def close(self) -> None:
        """Save the audio that the buffer holds."""
        if self.recording_event is not None:
            self._save_audio()

    def _follow_lamp(self, score: ScoreRecord) -> None:
        """Raise the event of the lamp "unusual" when it is lit, and clear the event when it is out."""
        lamp = self.machine.lamp
        if lamp.lit and self.unusual_event is None:
            limit = self.machine.detector.unusual_threshold
            event = Event(0, self.machine.id, UNUSUAL, score.t1, None, score.score, score.t0, limit, text=lamp.text())
            self.unusual_event, message = self._keep(event, RAISED, score.t1)
            self.recording_event = self.unusual_event
            self._save_audio(again_at=score.t1 + AFTER_S)
            self.reporter.send(message)
        elif self.unusual_event is not None and not lamp.lit:
            ended = max(score.t1, self.unusual_event.started)
            self.change(self.unusual_event, CLEARED, ended, ended=ended)
            self.unusual_event = None

    def _raise_alarm(self, peak: ScoreRecord, at: float, remarks: Sequence[str]) -> None:
        triggers = f" ({' and '.join(peak.triggered_by)})" if peak.triggered_by else ""
        text = f"sounds unlike its normals{triggers}"
        if LOUD in peak.triggered_by and peak.score <= peak.threshold:
            text = f"far louder than all its normals: near is at {peak.level_near_dbfs:.0f} dB of full scale"
        elif self.machine.alarm.faint:
            text = f"faintly unlike its normals for a while: window after window a little above them{triggers}"
        self._begin_alarm(peak, at, "; ".join([text, *remarks]))

    def _begin_alarm(self, peak: ScoreRecord, at: float, text: str, on_top_of: int | None = None) -> None:
        """Begin the event of an alarm, with its audio, and report it."""
        of_peak = (peak.score, peak.t0, peak.threshold, peak.triggered_by)
        event = Event(0, self.machine.id, ALARM, at, None, *of_peak, text, on_top_of=on_top_of)
        self.alarm_event, message = self._keep(event, RAISED, at)
        self.recording_event = self.alarm_event
        self._save_audio(again_at=at + AFTER_S)  # before the message is sent: its receiver may request the audio
        self.reporter.send(message)

    def _raise_anew(self, score: ScoreRecord) -> None:
        """Begin the event of a fault that has come on top of the alarm that stands."""
        if self.alarm_event is None:
            return
        if self.recording_event is not None:
            self._save_audio()
        self.earlier_events.append(self.alarm_event)
        first, others = self.earlier_events[0], sorted(self.machine.alarm.new_kinds)
        how = f"in another way too ({' and '.join(others)})" if others else "twice as much as before"
        text = f"sounds unlike its normals {how}, while event {first.id} stands"
        self._begin_alarm(score, score.t1, text, on_top_of=first.id)

    def _keep(self, event: Event, what: str, at: float, **changes: Any) -> tuple[Event, Message]:
        """Write an event, and in the same transaction the message about it, which is still to be sent."""

        def describe(event: Event) -> EventMessage:
            return EventMessage(event.machine, self.machine.site, at, what, event, self.reporter.link(event))

        history = self.history
        kept = (
            history.change_event(event.id, describe, **changes) if event.id else history.record_event(event, describe)
        )
        self._replace(kept)
        return kept, describe(kept)

    def _replace(self, changed: Event) -> None:
        """Replace the event in each attribute that holds it."""
        if self.alarm_event is not None and self.alarm_event.id == changed.id:
            self.alarm_event = changed
        self.earlier_events = [changed if event.id == changed.id else event for event in self.earlier_events]
        if self.recording_event is not None and self.recording_event.id == changed.id:
            self.recording_event = changed
        if self.health_event is not None and self.health_event.id == changed.id:
            self.health_event = changed
        if self.unusual_event is not None and self.unusual_event.id == changed.id:
            self.unusual_event = changed
        if self.trend_event is not None and self.trend_event.id == changed.id:
            self.trend_event = changed

    def _save_audio(self, again_at: float = math.inf) -> None:
        """Save the audio around the peak of the event; infinite `again_at`: for the last time."""
        assert self.recording_event is not None
        event, self.record_until = self.recording_event, again_at
        span = self.machine.buffer.cut(event.peak_t0, BEFORE_S, self.machine.detector.window_s + AFTER_S)
        if span is not None:
            name = f"{file_time(event.started)}-{self.machine.id}-{event.id}.flac"
            try:
                self.history.event_audio.save(name, span.samples, span.rate)
            except OSError:  # a full disk: try again as long as the buffer holds the sound
                self.record_until = min(again_at, span.t1 + AFTER_S)
                return
            self._replace(self.history.change_event(event.id, audio=name, audio_t0=span.t0))
        if math.isinf(again_at):
            self.recording_event = None


def file_time(at: float) -> str:
    """A time (UTC) for a file name; such names sort by time."""
    return f"{utc_time(at):%Y%m%dT%H%M%SZ}"
