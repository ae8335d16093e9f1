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

from nearfar.explain.wording import noticed
from nearfar.live.history.archive import file_time
from nearfar.live.history.history import Describe, History
from nearfar.live.history.records import ALARM, HEALTH_EVENT, KINDS, TREND, UNUSUAL, Event, ScoreRecord
from nearfar.live.machine import Machine
from nearfar.live.rules.alarm import ANEW, CLEARED, NORMAL, RAISED
from nearfar.live.rules.health import STALE
from nearfar.live.rules.loudness import LOUD
from nearfar.live.rules.trend import HOUR_S, Ramp
from nearfar.live.sinks.messages import OK, PROBLEM, EventMessage, HealthMessage, Message, Sink, StateMessage
from nearfar.support.words import join_sentences

SOURCE = "source "  # the kind of a problem of a source is this and the state of the source
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
    """The events of `machine`. Callers hold the machine's lock, except of `standing` and `newest`."""

    def __init__(self, machine: Machine, history: History, reporter: Reporter) -> None:
        self.machine, self.history, self.reporter = machine, history, reporter
        self._standing: dict[int, Event] = {}  # by id, oldest first; replaced as a whole
        self._recording: Event | None = None  # its audio is incomplete
        self._save_at = math.inf  # when that audio is to be saved again
        self._peak: ScoreRecord | None = None  # the highest score since the last window below the set-point
        self._unreadable = self._no_sound = ""  # why the last window could not be read, and why no sound comes
        self._no_sound_at = -math.inf, -math.inf  # when sound stopped, by `plant.clock` and by the source's clock
        self._ramp_at = -math.inf  # when a slow rise was plain last
        self._reported_state = ((NORMAL, False), False)

    def standing(self, kind: str) -> list[Event]:
        """The events of a kind that stand, oldest first; several alarms if one was raised anew."""
        return [event for event in self._standing.values() if event.kind == kind]

    def newest(self, kind: str) -> Event | None:
        """The newest event of a kind that stands."""
        return next(iter(reversed(self.standing(kind))), None)

    def on_score(self, score: ScoreRecord, change: str, remarks: Sequence[str] = ()) -> None:
        """Take the score of a window, `change`: what `Alarm.update` returned for it, and remarks on its recording."""
        alarm, event, judged = self.machine.alarm, self.newest(ALARM), score.anomalous is not None
        if judged and score.score > alarm.on:
            if self._peak is None or score.score > self._peak.score:
                self._peak = score
        elif judged and event is None and not alarm.pending:
            self._peak = None
        if change == RAISED:
            self._raise_alarm(self._peak or score, score.t1, remarks)
        elif change == ANEW:
            self._raise_anew(score)
        elif event is not None and judged and score.score > event.peak_score:
            peak: dict[str, Any] = {"peak_score": score.score, "peak_t0": score.t0, "triggered_by": score.triggered_by}
            self._recording = self._amend(event, **peak)
            self._save_audio(again_at=score.t1 + AFTER_S)
        if change == CLEARED:
            self._clear(ALARM, score.t1)
            self._peak = None
        self._follow_lamp(score)
        if self._recording is not None and score.t1 >= self._save_at:
            complete = self._recording.peak_t0 + self.machine.detector.window_s + AFTER_S
            self._save_audio(again_at=complete if complete > score.t1 else math.inf)
        self.report_state(score.t1)

    def update_trend(self, ramp: Ramp | None, at: float) -> None:
        """Take the slow rise that is plain now: raise its event, or clear it once it is gone for PLAIN_H hours."""
        self.machine.ramp, event = ramp, self.newest(TREND)
        if ramp is not None:
            self._ramp_at = at
            if event is None:
                self.change(Event(0, self.machine.id, TREND, at, text=ramp.text()), RAISED, at)
            else:
                self._amend(event, text=ramp.text())
        elif at >= self._ramp_at + PLAIN_H * HOUR_S:
            self._clear(TREND, at)
        self.report_state(at)

    def save_late_audio(self, now: float) -> None:
        """Save the audio that the buffer holds if it is time for that: no more sound may come."""
        if self._recording is not None and now >= self._save_at:
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
        machine, event = self.machine, self.newest(HEALTH_EVENT)
        problems = dict(machine.watchdog.standing)
        if self._unreadable:
            problems["unreadable"] = self._unreadable
        if self._no_sound:
            problems[f"{SOURCE}{machine.source_health.over or STALE}"] = self._no_sound
        if problems.keys() == machine.health.keys():
            return
        text, machine.health = join_sentences(problems.values()), problems
        if event is None:
            self.change(Event(0, machine.id, HEALTH_EVENT, at, text=text), RAISED, at)
        else:
            at = max(at, event.started)
            if problems:
                self._amend(event, text=text)
            else:
                self._clear(HEALTH_EVENT, at)
        self.reporter.report(HealthMessage(machine.id, machine.site, at, PROBLEM if problems else OK, text))

    def report_state(self, at: float) -> None:
        """Report the alarm's state, the lamp and the slow rise if one of them has changed since the last report."""
        machine = self.machine
        state, rises = (machine.alarm.state(at), machine.lamp.lit), self.newest(TREND) is not None
        if (state, rises) != self._reported_state:
            self._reported_state = state, rises
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
        for kind in KINDS:
            self._clear(kind, at)

    def close(self) -> None:
        """Save the audio that the buffer holds."""
        if self._recording is not None:
            self._save_audio()

    def _clear(self, kind: str, at: float) -> None:
        """End the events of a kind that stand, the newest first."""
        for event in reversed(self.standing(kind)):
            ended = max(at, event.started)  # the clock may have been set back
            self.change(event, CLEARED, ended, ended=ended)

    def _follow_lamp(self, score: ScoreRecord) -> None:
        """Raise the event of the lamp "unusual" when it is lit, and clear the event when it is out."""
        lamp, stands = self.machine.lamp, self.newest(UNUSUAL) is not None
        if lamp.lit and not stands:
            limit = self.machine.detector.unusual_threshold
            peak = (score.score, score.t0, limit)
            self._raise_with_audio(Event(0, self.machine.id, UNUSUAL, score.t1, None, *peak, text=lamp.text()))
        elif stands and not lamp.lit:
            self._clear(UNUSUAL, score.t1)

    def _raise_alarm(self, peak: ScoreRecord, at: float, remarks: Sequence[str]) -> None:
        heard = f", noticed in {noticed(peak.triggered_by)}" if peak.triggered_by else ""
        text = f"sounds unlike its normals{heard}"
        if LOUD in peak.triggered_by and peak.score <= peak.threshold:
            text = f"far louder than all its normals: near is at {peak.level_near_dbfs:.0f} dB of full scale"
        elif self.machine.alarm.faint:
            text = f"faintly unlike its normals for a while: window after window a little above them{heard}"
        self._begin_alarm(peak, at, join_sentences([text, *(f"check first: {remark}" for remark in remarks)]))

    def _raise_anew(self, score: ScoreRecord) -> None:
        """Begin the event of a fault that has come on top of the alarm that stands."""
        if not (earlier := self.standing(ALARM)):
            return
        self.close()
        first, others = earlier[0], sorted(self.machine.alarm.new_kinds)
        how = f"in another way too, noticed in {noticed(others)}" if others else "twice as much as before"
        text = f"sounds unlike its normals {how}, while event {first.id} stands"
        self._begin_alarm(score, score.t1, text, on_top_of=first.id)

    def _begin_alarm(self, peak: ScoreRecord, at: float, text: str, on_top_of: int | None = None) -> None:
        of_peak = (peak.score, peak.t0, peak.threshold, peak.triggered_by)
        self._raise_with_audio(Event(0, self.machine.id, ALARM, at, None, *of_peak, text, on_top_of=on_top_of))

    def _raise_with_audio(self, event: Event) -> None:
        """Keep an event that begins and its audio, then report it: its receiver may request the audio at once."""
        self._recording, message = self._keep(event, RAISED, event.started)
        self._save_audio(again_at=event.started + AFTER_S)
        self.reporter.send(message)

    def _keep(self, event: Event, what: str, at: float, **changes: Any) -> tuple[Event, Message]:
        """Write an event, and in the same transaction the message about it, which is still to be sent."""

        def describe(event: Event) -> EventMessage:
            return EventMessage(event.machine, self.machine.site, at, what, event, self.reporter.link(event))

        if event.id:
            kept = self._amend(event, describe, **changes)
        else:
            kept = self.history.record_event(event, describe)
            self._standing = {**self._standing, kept.id: kept}
        return kept, describe(kept)

    def _amend(self, event: Event, describe: Describe | None = None, **changes: Any) -> Event:
        """Change an event in the history and among those that stand."""
        kept = self.history.change_event(event.id, describe, **changes)
        found = {id: kept if id == kept.id else other for id, other in self._standing.items()}
        self._standing = {id: event for id, event in found.items() if event.ended is None}
        return kept

    def _save_audio(self, again_at: float = math.inf) -> None:
        """Save the audio around the peak of the event; infinite `again_at`: for the last time."""
        assert self._recording is not None
        event, self._save_at = self._recording, again_at
        span = self.machine.buffer.cut(event.peak_t0, BEFORE_S, self.machine.detector.window_s + AFTER_S)
        if span is not None:
            name = f"{file_time(event.started)}-{self.machine.id}-{event.id}.flac"
            try:
                self.history.event_audio.save(name, span.samples, span.rate)
            except OSError:  # a full disk: try again as long as the buffer holds the sound
                self._save_at = min(again_at, span.t1 + AFTER_S)
                return
            self._amend(event, audio=name, audio_t0=span.t0)
        if math.isinf(again_at):
            self._recording = None
