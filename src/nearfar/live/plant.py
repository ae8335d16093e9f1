"""The plant: machines under watch, one scoring path, and what follows from a score.

    window -> score -> history, alarm, watchdog -> events with audio -> sinks

`process_window` takes the two steps of `Detector.score` on one clip, so a window has the same score here as on the
command line, to the last bit. One lock per machine: machines do not wait for each other. A window carries its own time;
`clock` dates what people do (`operator`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nearfar import audio
from nearfar.detector import Detector
from nearfar.live.events import EventRecorder, Reporter, utc
from nearfar.live.history.event_audio import write_flac
from nearfar.live.history.history import History
from nearfar.live.machine import Machine, Machines
from nearfar.live.messages import ScoreMessage, Sink
from nearfar.live.operator import Operator
from nearfar.live.records import ALARM, ScoreRecord
from nearfar.live.sources.windows import Window

SAMPLES = 48  # normal windows that are kept of each machine, one an hour


class Plant:
    """All machines of one process. `clock()` is the time in s since 1970; `close` leaves the history open."""

    def __init__(
        self, machines: Sequence[Machine], history: History, sinks: Sequence[Sink] = (), *, clock: Callable[[], float]
    ) -> None:
        self.machines = Machines({machine.id: machine for machine in machines})
        if len(self.machines) < len(machines):
            raise ValueError(f"two machines have the same id: {', '.join(m.id for m in machines)}")
        self.history, self.sinks, self.clock = history, list(sinks), clock
        self.reporter = Reporter(history, self.sinks)
        self.recorders = {machine.id: EventRecorder(machine, history, self.reporter) for machine in machines}
        self.operator = Operator(self.machines, self.recorders, history, clock)
        self._sampled: dict[str, int] = {}  # the hour of each machine's last sample
        for machine in machines:
            history.record_alarm(machine.id, machine.alarm)
            _restore_alarm(machine, history)

    def process_window(self, machine_id: str, window: Window) -> ScoreRecord:
        """Score the next window of a machine's stream, keep the score, and update alarm, events and sinks."""
        machine, recorder = self.machines[machine_id], self.recorders[machine_id]
        with machine.lock:
            score, clip, problems = score_window(machine.detector, machine_id, window)
            machine.last = score
            self.history.record_score(score)
            machine.buffer.add(window)
            self._keep_sample(machine, score, window)
            change = machine.alarm.update(None if score.anomalous is None else score.score, score.t1)
            recorder.on_score(score, change)
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
                )
            )
            if clip is not None:
                health = machine.watchdog.check(clip, problems)
            else:
                health = {**machine.watchdog.standing, "unreadable": score.problem}
            recorder.update_health(health, score.t1)
            return score

    def on_silence(self, machine_id: str, now: float, seconds: float) -> None:
        """A machine's source has given nothing for `seconds`."""
        machine, recorder = self.machines[machine_id], self.recorders[machine_id]
        with machine.lock:
            recorder.on_silence(now)
            recorder.update_health(machine.watchdog.on_silence(seconds), now)

    def end_interrupted_events(self) -> None:
        """End the events that a killed process left open, before the first window."""
        for recorder in self.recorders.values():
            recorder.end_interrupted()

    def close(self) -> None:
        """Save the audio of events whose recording is not complete."""
        for id, recorder in self.recorders.items():
            with self.machines[id].lock:
                recorder.close()

    def _keep_sample(self, machine: Machine, score: ScoreRecord, window: Window) -> None:
        """Keep one normal window an hour, the newest SAMPLES: `drift` proposes to add them."""
        hour = int(score.t0 // 3600)
        if score.anomalous is not False or hour <= self._sampled.get(machine.id, -1):
            return
        self._sampled[machine.id] = hour
        folder = self.history.folder / "samples" / machine.id
        try:
            write_flac(folder / f"{utc(score.t0)}.flac", window.samples, window.rate)
            for old in sorted(folder.glob("*.flac"))[:-SAMPLES]:
                old.unlink()
        except OSError:
            return  # samples are a convenience: a full disk must not stop the scoring


def score_window(
    detector: Detector, machine: str, window: Window
) -> tuple[ScoreRecord, audio.Clip | None, list[audio.Problem]]:
    """The score of a window, its clip (None if the samples are unusable), and the problems of its channels."""
    levels = window.level_dbfs(0), window.level_dbfs(1)
    try:
        clip = window.clip
        embedded = detector.embed_clip(clip)
        s = detector.score_embedded(embedded)
    except ValueError as error:
        threshold = detector.threshold.value
        unusable = ScoreRecord(machine, window.t0, window.t1, 0.0, threshold, None, 1.0, (), str(error), *levels)
        return unusable, None, []
    score = ScoreRecord(
        machine, window.t0, window.t1, s.score, s.threshold, s.anomalous, s.p, s.triggered_by, s.problem, *levels
    )
    return score, clip, embedded.problems


def _restore_alarm(machine: Machine, history: History) -> None:
    """After a restart: an unanswered alarm is still unanswered, and a shelved machine is still shelved."""
    shelving = [a for a in history.audit(machine.id, limit=10_000) if a.action in ("shelve", "unshelve")]
    newest = history.events(machine.id, kind=ALARM, limit=1)
    unanswered = [e for e in newest if e.acknowledged is None and not any(a.at >= e.started for a in shelving)]
    machine.alarm.acknowledged = not unanswered
    if shelving and shelving[0].action == "shelve":
        machine.alarm.shelve(shelving[0].at + 3600 * shelving[0].detail["hours"])
