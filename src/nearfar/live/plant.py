"""The plant: scores the windows of all machines, and passes each score on.

    window -> score, unless there is maintenance -> history, alarm, watchdog -> events with audio -> sinks
    source -> hearing, quiet, stale, ended, failed (`health`) -> the same health event

A window has the same score here as on the command line, to the last bit. Each machine has a lock of its own, so
machines do not wait for each other. A window carries its own time; `clock` dates what people do (`operator`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic

from nearfar import audio
from nearfar.detector import Detector
from nearfar.live.calendar import Calendar, Maintenance
from nearfar.live.events import EventRecorder, Reporter, file_time
from nearfar.live.history.event_audio import write_flac
from nearfar.live.history.history import History
from nearfar.live.loudness import LOUD
from nearfar.live.machine import Machine, Machines
from nearfar.live.messages import ScoreMessage, Sink
from nearfar.live.operator import Operator
from nearfar.live.records import ALARM, ScoreRecord
from nearfar.live.sources.windows import Window
from nearfar.live.trend import HOUR_S, HOURS

SAMPLES = 48  # recent normal windows of each machine that are kept as files, one an hour


class Plant:
    """All machines of one process; `close` leaves the history open.

    `clock()` is the time in s since 1970, `steady()` that of a clock that is never set: it measures silence.
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
    ) -> None:
        self.machines = Machines()
        self.history, self.sinks, self.clock, self.steady = history, list(sinks), clock, steady
        self.reporter = Reporter(history, self.sinks)
        self.calendar = Calendar(maintenance, history.folder)
        self.recorders: dict[str, EventRecorder] = {}
        self.operator = Operator(self.machines, self.recorders, history, clock)
        self._sampled: dict[str, int] = {}  # the hour of each machine's last sample
        for machine in machines:
            if machine.id in self.machines:
                raise ValueError(f"two machines have the same id: {', '.join(m.id for m in machines)}")
            self.put(machine)

    def put(self, machine: Machine) -> None:
        """Take a machine, with what the history knows of it; the events of the machine that it replaces end."""
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
        self.machines.put(machine)

    def remove(self, id: str) -> None:
        """Let a machine go, whose source has stopped: its events end, and what is recorded stays."""
        machine = self.machines[id]
        with machine.lock:
            self.recorders[id].end(self.clock())
            self.machines.remove(id)
            del self.recorders[id]

    def process_window(self, machine_id: str, window: Window) -> ScoreRecord:
        """Score the next window of a machine, keep the score, and update its alarm, watchdog, events and the sinks."""
        machine, recorder = self.machines[machine_id], self.recorders[machine_id]
        with machine.lock:
            score, clip, problems = score_window(machine.detector, machine_id, window)
            if why := self.calendar.why(machine_id, window.t0):
                score, clip = replace(score, anomalous=None, unusual=None, problem=why), None
            loud = clip is not None and machine.loudness.is_over(clip)
            if loud:
                score = replace(score, triggered_by=(*score.triggered_by, LOUD))
            machine.last = score
            self.history.record_score(score)
            machine.buffer.add(window)
            self._keep_sample(machine, score, window)
            change = machine.alarm.update(
                None if score.anomalous is None else score.score, score.t1, score.p, score.triggered_by, loud
            )
            if not machine.alarm.standing and not machine.alarm.suppressed(score.t1):
                machine.lamp.update(score.unusual)
            recorder.on_score(score, change)
            healthy = score.anomalous is False and not machine.alarm.standing
            if healthy and machine.trend.update(score.score, score.t1):
                recorder.update_trend(machine.trend.ramp(machine.alarm.on), score.t1)
            warnings = tuple(problem.text for problem in problems if not problem.fatal)
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

    def check_source(self, machine_id: str) -> None:
        """Raise or end the health event of a machine's source."""
        machine, recorder = self.machines[machine_id], self.recorders[machine_id]
        with machine.lock:
            at, now = self.clock(), self.steady()
            recorder.save_late_audio(at)
            recorder.update_source(machine.source_health.problem(now), at, now)

    def add_maintenance(self, when: str, machines: Sequence[str], why: str, who: str) -> Maintenance:
        """Mark a time in which machines (() are all) are not judged. BadInput for a time that is none; audited."""
        concerned = [self.machines[id].id for id in machines] or list(self.machines)
        entry = self.calendar.add(when, machines, why)
        self._audit_maintenance("maintenance", entry, concerned, who)
        return entry

    def remove_maintenance(self, id: int, who: str) -> Maintenance:
        """Remove such a time, if it was added. NotFound if there is none; audited."""
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

    def _keep_sample(self, machine: Machine, score: ScoreRecord, window: Window) -> None:
        """Keep one normal window an hour as a file: if the scores drift, `drift` proposes to add these files."""
        hour = int(score.t0 // 3600)
        if score.anomalous is not False or hour <= self._sampled.get(machine.id, -1):
            return
        self._sampled[machine.id] = hour
        folder = self.history.folder / "samples" / machine.id
        try:
            write_flac(folder / f"{file_time(score.t0)}.flac", window.samples, window.rate)
            for old in sorted(folder.glob("*.flac"))[:-SAMPLES]:
                old.unlink()
        except OSError:
            return  # a full disk must not stop the scoring


def score_window(
    detector: Detector, machine: str, window: Window
) -> tuple[ScoreRecord, audio.Clip | None, list[audio.Problem]]:
    """The score of a window, its clip (None if the samples are unusable), and the problems of its channels."""
    levels = window.level_dbfs(0), window.level_dbfs(1)
    try:
        clip = window.clip
        embedded = detector.embed_clip(clip)
        score = detector.score_embedded(embedded)
    except ValueError as error:
        threshold = detector.threshold.value
        unusable = ScoreRecord(machine, window.t0, window.t1, 0.0, threshold, None, 1.0, (), str(error), *levels)
        return unusable, None, []
    judged = (score.score, score.threshold, score.anomalous, score.p, score.triggered_by, score.problem)
    record = ScoreRecord(machine, window.t0, window.t1, *judged, *levels, unusual=score.unusual)
    return record, clip, embedded.problems


def _restore_alarm(machine: Machine, history: History) -> None:
    """After a restart: restore from the history whether the newest alarm is acknowledged, and the shelving."""
    shelving = [entry for entry in history.audit(machine.id, limit=10_000) if entry.action in ("shelve", "unshelve")]
    for event in history.events(machine.id, kind=ALARM, limit=1):
        shelved_since = any(entry.at >= event.started for entry in shelving)  # which acknowledges an alarm
        machine.alarm.acknowledged = event.acknowledged is not None or shelved_since
    if shelving and shelving[0].action == "shelve":
        machine.alarm.shelve(shelving[0].at + 3600 * shelving[0].detail["hours"])
