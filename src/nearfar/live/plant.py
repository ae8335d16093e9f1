"""The plant: scores the windows of all machines, and passes each score on.

    window -> score, unless there is maintenance -> history, alarm, watchdog -> events with audio -> sinks
    source -> hearing, quiet, stale, ended, failed (`health`) -> the same health event

A window has the same score here as on the command line, to the last bit. Each machine has a lock of its own, so
machines do not wait for each other. A window carries its own time; `clock` dates what people do (`operator`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from nearfar import audio
from nearfar.detector import Detector
from nearfar.live.calendar import MAINTENANCE, Calendar, Maintenance
from nearfar.live.events import SOURCE, EventRecorder, Reporter
from nearfar.live.history.archive import sent_name
from nearfar.live.history.history import History
from nearfar.live.history.recordings import file_of
from nearfar.live.history.records import ALARM, UNUSUAL, ScoreRecord
from nearfar.live.language import ENGLISH
from nearfar.live.machine import Machine, Machines
from nearfar.live.operator import Operator
from nearfar.live.report.schedule import ScheduledReports
from nearfar.live.rules.alarm import NORMAL
from nearfar.live.rules.health import ENDED, QUIET
from nearfar.live.rules.loudness import LOUD
from nearfar.live.rules.trend import HOUR_S, HOURS
from nearfar.live.sinks.messages import ScoreMessage, Sink
from nearfar.live.sources.windows import Window
from nearfar.score import Score

if TYPE_CHECKING:
    from nearfar.live.config import ReportConfig


class Plant:
    """All machines of one process; `close` leaves the history open.

    `clock()` is the time in s since 1970, `steady()` that of a clock that is never set: it measures silence. `url` is
    the address of the dashboard, or "". `language` is that of texts that leave for nobody in particular.
    `reports` come by themselves, in the name of `site`.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        history: History,
        sinks: Sequence[Sink] = (),
        *,
        clock: Callable[[], float],
        steady: Callable[[], float] = monotonic,
        maintenance: Sequence[Maintenance] = (),
        url: str = "",
        language: str = ENGLISH,
        site: str = "plant",
        reports: ReportConfig | None = None,
    ) -> None:
        self.machines = Machines()
        self.history, self.sinks, self.clock, self.steady = history, list(sinks), clock, steady
        self.language, self.site = language, site
        self.reporter = Reporter(history, self.sinks, url)
        self.calendar = Calendar(maintenance, history.folder)
        self.recorders: dict[str, EventRecorder] = {}
        self.operator = Operator(self.machines, self.recorders, history, clock)
        for machine in machines:
            if machine.id in self.machines:
                raise ValueError(f"two machines have the same id: {', '.join(m.id for m in machines)}")
            self.put(machine)
        self.reports: ScheduledReports | None = None
        if reports is not None:
            self.reports = ScheduledReports(reports, site, self.machines, self.reporter, clock)

    def put(self, machine: Machine) -> None:
        """Add or replace a machine, with its state from the history; the events of the replaced one end."""
        if (old := self.recorders.get(machine.id)) is not None:
            with old.machine.lock:
                old.end(self.clock())
        history = self.history
        history.record_alarm_settings(machine.id, machine.alarm)
        machine.heard(history.listening(machine.id))
        _restore_alarm(machine, history)
        for score, at in history.healthy_scores(machine.id, HOURS * HOUR_S):
            machine.trend.update(score, at)
        self.recorders[machine.id] = EventRecorder(machine, history, self.reporter)
        self.machines[machine.id] = machine

    def remove(self, id: str) -> None:
        """Remove a machine whose source has stopped. Its events end; what is recorded stays."""
        machine = self.machines[id]
        with machine.lock:
            self.recorders[id].end(self.clock())
            del self.machines[id]
            del self.recorders[id]

    def process_window(self, machine_id: str, window: Window) -> ScoreRecord:
        """Score the next window of a machine, keep the score, and update its alarm, watchdog, events and the sinks."""
        machine = self.machines[machine_id]
        with machine.lock:
            return self._take(machine, window, *score_window(machine.detector, window))

    def hear(self, machine_id: str, clips: Iterable[audio.Clip], seconds: float, *, name: str) -> Iterator[Score]:
        """Score the clips of a recording of `seconds` that was sent. A machine without a source hears it, as of now.

        Each window is then kept with its sound, and counts for the alarm, as one from a source would.
        """
        machine, t0, begun = self.machines[machine_id], 0.0, False
        for clip in clips:
            embedded = machine.detector.embed_clip(clip)
            score = machine.detector.score_embedded(embedded)
            if not machine.streamed:
                with machine.lock:
                    if not begun:
                        t0 = machine.starts.of(name, self.clock(), seconds, machine.detector.window_s)
                    window = Window(t0, clip.samples, clip.rate, not begun, name, missing_s=clip.missing_s)
                    self._take(machine, window, score, clip, embedded.problems)
                    t0, begun = window.t1, True
                with suppress(OSError):  # a full disk must not stop the scoring
                    self.history.sent_audio.save(sent_name(machine_id, window.t0), window.samples, clip.rate)
            yield score

    def _take(
        self,
        machine: Machine,
        window: Window,
        scored: Score,
        clip: audio.Clip | None,
        problems: Sequence[audio.Problem],
    ) -> ScoreRecord:
        """Record a window with its score and update the machine, which the caller has locked."""
        machine_id, recorder = machine.id, self.recorders[machine.id]
        score = _record(machine_id, window, scored)
        if why := self.calendar.why(machine_id, window.t0):
            score, clip = replace(score, anomalous=None, unusual=None, problem=why), None
        loud = clip is not None and machine.loudness.is_over(clip, score.level_near_dbfs)
        if loud:
            score = replace(score, triggered_by=(*score.triggered_by, LOUD))
        machine.last = score
        self.history.record_score(score)
        machine.buffer.add(window)
        if score.anomalous is False:
            with suppress(OSError):  # a full disk must not stop the scoring
                self.history.samples.keep(machine_id, score.t0, window.samples, window.rate)
        change = machine.alarm.update(
            None if score.anomalous is None else score.score, score.t1, score.p, score.triggered_by, loud
        )
        if not machine.alarm.standing and not machine.alarm.suppressed(score.t1):
            machine.lamp.update(score.unusual)
        warnings = tuple(problem.text for problem in problems if not problem.fatal)
        recorder.on_score(score, change, warnings)
        healthy = score.anomalous is False and not machine.alarm.standing
        if healthy and machine.trend.update(score.score, score.t1):
            recorder.update_trend(machine.trend.ramp(machine.alarm.on), score.t1)
        self.reporter.report(
            ScoreMessage(
                machine_id,
                machine.site,
                score.t1,
                score,
                machine.alarm.state(score.t1),
                machine.model.name,
                machine.recipe,
                warnings,
                machine.lamp.lit,
                machine.ramp,
            )
        )
        if clip is not None:
            machine.watchdog.check(clip, problems)
        recorder.update_health(unreadable="" if clip is not None or why else score.problem, at=score.t1)
        return score

    def state(self, machine_id: str) -> str:
        """The state of a machine as people see it: that of its alarm; if that is normal, why no sound is judged, or
        "unusual"."""
        machine, now = self.machines[machine_id], self.clock()
        state, last, source = machine.alarm.state(now), machine.last, machine.source_health
        if state != NORMAL:
            return state
        if self.calendar.why(machine_id, now):
            return MAINTENANCE
        if any(kind.startswith(SOURCE) for kind in machine.health) or (last is not None and last.anomalous is None):
            return "no sound"
        sound = source.state(self.steady())
        if sound == ENDED or (sound == QUIET and last is not None and math.isinf(source.silence_s)):
            return sound  # a file that is over; a folder without a new file for a day
        if last is None:
            return "waiting"
        return UNUSUAL if machine.lamp.lit else state

    def check_source(self, machine_id: str) -> None:
        """Raise or end the health event of a machine's source."""
        machine, recorder = self.machines[machine_id], self.recorders[machine_id]
        with machine.lock:
            at, now = self.clock(), self.steady()
            recorder.save_late_audio(at)
            recorder.update_source(machine.source_health.problem(now), at, now)

    def add_maintenance(self, when: str, machines: Sequence[str], why: str, who: str) -> Maintenance:
        """Mark a time in which machines (() are all) are not judged. BadInput if `when` is not a span; audited."""
        concerned = [self.machines[id].id for id in machines] or list(self.machines)
        entry = self.calendar.add(when, machines, why)
        self._audit_maintenance("maintenance", entry, concerned, who)
        return entry

    def remove_maintenance(self, id: int, who: str) -> Maintenance:
        """Remove a time that was added by `add_maintenance`; NotFound for another number; audited."""
        entry = self.calendar.remove(id)
        self._audit_maintenance("no maintenance", entry, entry.machines or list(self.machines), who)
        return entry

    def _audit_maintenance(self, action: str, entry: Maintenance, machines: Sequence[str], who: str) -> None:
        for machine in machines:
            self.operator.audit(who, machine, action, when=entry.when, why=entry.why)

    def follow_models(self) -> None:
        """Take over the model folders that others have changed; reads nothing if none has changed.

        A machine whose new model needs another source is `outdated` from then on.
        """
        for machine in self.machines.values():
            self.operator.follow(machine)

    def end_interrupted_events(self) -> None:
        """End the events that a killed process left open, before the first window."""
        for recorder in list(self.recorders.values()):
            recorder.end_interrupted(self.clock())

    def close(self) -> None:
        """Save the audio of events whose recording is not complete."""
        for recorder in list(self.recorders.values()):
            with recorder.machine.lock:
                recorder.close()


def score_window(detector: Detector, window: Window) -> tuple[Score, audio.Clip | None, Sequence[audio.Problem]]:
    """The score of a window, its clip (None if the samples are unusable), and the problems of its channels."""
    try:
        clip = window.clip
        embedded = detector.embed_clip(clip)
        return detector.score_embedded(embedded), clip, embedded.problems
    except ValueError as error:
        return Score(window.name, 0.0, detector.threshold.value, None, [], 1.0, problem=str(error)), None, []


def _record(machine: str, window: Window, score: Score) -> ScoreRecord:
    judged = (score.score, score.threshold, score.anomalous, score.p, score.triggered_by, score.problem)
    levels = window.level_dbfs(0), window.level_dbfs(1)
    return ScoreRecord(
        machine, window.t0, window.t1, *judged, *levels, unusual=score.unusual, file=file_of(window.name)
    )


def _restore_alarm(machine: Machine, history: History) -> None:
    """After a restart: restore from the history whether the newest alarm is acknowledged, and the shelving."""
    shelving = [entry for entry in history.audit(machine.id, limit=10_000) if entry.action in ("shelve", "unshelve")]
    for event in history.events(machine.id, kind=ALARM, limit=1):
        shelved_since = any(entry.at >= event.started for entry in shelving)  # which acknowledges an alarm
        machine.alarm.acknowledged = event.acknowledged is not None or shelved_since
    if shelving and shelving[0].action == "shelve":
        machine.alarm.shelve(shelving[0].at + 3600 * shelving[0].detail["hours"])
