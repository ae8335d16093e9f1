"""The plant: machines that are listened to, one scoring path, and everything that follows from a score.

    window -> score -> history, alarm, watchdog -> events with audio -> sinks

`take` is the only way in for live sound and `score` for anything else; both are `Detector.score` of one clip, so a
window has the same score here as on the command line, to the last bit. One lock per machine: machines do not wait for
each other. The clock is passed in and tells when people act; a window tells its own time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from nearfar import audio
from nearfar.detector import Detector
from nearfar.explain.wording import Explanation
from nearfar.live.alarm import CLEARED, RAISED
from nearfar.live.history.event_audio import write_flac
from nearfar.live.history.history import History, last_heard
from nearfar.live.machine import Machine
from nearfar.live.operator import Operator
from nearfar.live.records import ALARM, HEALTH, OK, PROBLEM, SCORE, Audit, Event, Scored, Sink
from nearfar.live.records import HEALTH as HEALTH_EVENT
from nearfar.live.sources.windows import Window
from nearfar.score import Score
from nearfar.support.threads import single_threaded_blas

BEFORE_S, AFTER_S = 30.0, 15.0  # of audio around the peak of an event
SAMPLES = 48


class Plant(Operator):
    """All machines of one process. `clock()` is the time in s since 1970; `close` ends it (the history stays open)."""

    def __init__(
        self, machines: Sequence[Machine], history: History, sinks: Sequence[Sink] = (), *, clock: Callable[[], float]
    ) -> None:
        super().__init__(machines, history, sinks, clock)
        self._one_thread = single_threaded_blas()  # until `close`: machines are scored side by side
        self._one_thread.__enter__()
        for machine in machines:  # over a restart an alarm waits for its answer, and the shelf holds what is on it
            shelving = [a for a in history.audit(machine.id, limit=10_000) if a.action in ("shelve", "unshelve")]
            newest = history.events(machine.id, kind=ALARM, limit=1)
            unanswered = [e for e in newest if e.acknowledged is None and not any(a.at >= e.started for a in shelving)]
            machine.alarm.acknowledged = not unanswered
            if shelving and shelving[0].action == "shelve":
                machine.alarm.shelve(shelving[0].at + 3600 * shelving[0].detail["hours"])

    def score(self, machine_id: str, clip: Any) -> Score:
        """The score of a clip (anything that `Detector.score` takes); nothing else happens."""
        return self.machines[machine_id].detector.score([clip])[0]

    def explain(self, machine_id: str, clip: Any) -> Explanation:
        """Where and why a clip differs from the machine's normals."""
        return self.machines[machine_id].detector.explain(clip)

    def add(self, machine_id: str, clips: Sequence[Any], domain: str, who: str) -> Audit:
        """More normals into the bank; `domain` is "source" or "target". Undone like every change."""
        from nearfar.support.check import one_of

        one_of("domain", domain, ("source", "target"))
        machine = self.machines[machine_id]
        with machine.lock:
            return self._grow(machine, clips, domain == "target", who, "add", domain=domain)

    def take(self, machine_id: str, window: Window) -> Scored:
        """The next window of a machine's stream: scored, recorded, and followed by whatever follows from it."""
        machine = self.machines[machine_id]
        with machine.lock:
            scored, clip, problems = _judge(machine.detector, machine_id, window)
            machine.last = scored
            self.history.record(scored)
            machine.roll.add(window)
            self._sample(machine, scored, window)
            self._alarm(machine, scored)
            said = [problem.text for problem in problems if not problem.fatal]
            self._tell(SCORE, machine, scored.t1, **self._body(machine, scored), warnings=said)
            if clip is not None:
                self._health(machine, machine.watchdog.hear(clip, problems), scored.t1)
            else:
                self._health(machine, {**machine.watchdog.standing, "unreadable": scored.problem}, scored.t1)
            return scored

    def silent(self, machine_id: str, now: float, seconds: float) -> None:
        """Nothing has come from a machine for so long."""
        machine = self.machines[machine_id]
        with machine.lock:
            if machine.taping is not None and now >= machine.tape_due:
                self._tape(machine)
            self._health(machine, machine.watchdog.silent(seconds), now)

    def state(self, machine_id: str) -> dict[str, Any]:
        """How a machine is, as plain data."""
        machine, now = self.machines[machine_id], self.clock()
        alarm, last = machine.alarm, machine.last
        return {
            "state": alarm.state(now),
            "score": None if last is None else last.score,
            "threshold": machine.detector.threshold.value,
            "last_heard": None if last is None else last.t1,
            "health": PROBLEM if machine.watchdog.standing else OK,
            "shelved_until": alarm.shelved_until if now < alarm.shelved_until else None,
            "event": None if machine.event is None else machine.event.id,
            "false_alarms_per_week": machine.false_alarms_per_week,
            "window_s": machine.detector.window_s,
            "normals": len(machine.detector.normals),
        }

    def close(self) -> None:
        """End what stands open: the audio of events is saved as far as it goes."""
        for machine in self.machines.values():
            with machine.lock:
                if machine.taping is not None:
                    self._tape(machine)
        self._one_thread.__exit__(None, None, None)

    def _body(self, machine: Machine, s: Scored) -> dict[str, Any]:
        return {
            "model": machine.model.name,
            "recipe": machine.recipe,
            "score": s.score,
            "threshold": s.threshold,
            "t0": s.t0,
            "t1": s.t1,
            "anomalous": s.anomalous,
            "p": s.p,
            "triggered_by": s.triggered_by,
            "problem": s.problem,
            "state": machine.alarm.state(s.t1),
            "near_dbfs": s.level_near_dbfs,
            "far_dbfs": s.level_far_dbfs,
        }

    def _alarm(self, machine: Machine, s: Scored) -> None:
        alarm, value = machine.alarm, None if s.anomalous is None else s.score
        change = alarm.update(value, s.t1)
        if value is not None and value > alarm.on:
            machine.top = s if machine.top is None or value > machine.top.score else machine.top
        elif machine.event is None and alarm.run == 0 and value is not None:
            machine.top = None
        if change == RAISED:
            top = machine.top or s
            triggers = f" ({' and '.join(s.triggered_by)})" if s.triggered_by else ""
            text = f"sounds unlike its normals{triggers}"
            event = Event(0, machine.id, ALARM, s.t1, None, top.score, top.t0, s.threshold, top.triggered_by, text)
            machine.event, message = self._recorded(RAISED, event, s.t1)
            machine.taping = machine.event
            self._tape(machine, again=s.t1 + AFTER_S)
            self._send(message)
        elif machine.event is not None and value is not None and value > machine.event.peak_score:
            peak: dict[str, Any] = {"peak_score": value, "peak_t0": s.t0, "triggered_by": s.triggered_by}
            machine.event = machine.taping = self.history.change(machine.event.id, **peak)
            self._tape(machine, again=s.t1 + AFTER_S)  # at once: whoever looks now is shown this peak
        if change == CLEARED and machine.event is not None:
            ended = self._happened(CLEARED, machine.event, s.t1, ended=s.t1)
            machine.event = machine.top = None
            machine.taping = ended if machine.taping is not None else None
        if machine.taping is not None and s.t1 >= machine.tape_due:
            complete = machine.taping.peak_t0 + machine.detector.window_s + AFTER_S
            self._tape(machine, again=complete if complete > s.t1 else math.inf)
        self._say_state(machine, s.t1)

    def _sample(self, machine: Machine, s: Scored, window: Window) -> None:
        """Once an hour a window that was normal is kept, the newest SAMPLES: what `drift` proposes to add is there."""
        hour = int(s.t0 // 3600)
        if s.anomalous is not False or hour <= machine.sampled:
            return
        machine.sampled = hour
        folder = self.history.folder / "samples" / machine.id
        try:
            write_flac(folder / f"{_utc(s.t0)}.flac", window.samples, window.rate)
            for old in sorted(folder.glob("*.flac"))[:-SAMPLES]:
                old.unlink()
        except OSError:
            return  # a convenience: on a full disk there is none

    def _tape(self, machine: Machine, again: float = math.inf) -> None:
        """Save the audio around the peak of the event; once more at `again`, when what comes after it is there."""
        assert machine.taping is not None
        event, machine.tape_due = machine.taping, again
        block = machine.roll.cut(event.peak_t0, BEFORE_S, machine.detector.window_s + AFTER_S)
        if block is not None:
            name = f"{_utc(event.started)}-{machine.id}-{event.id}.flac"
            try:
                self.history.tape.put(name, block.samples, block.rate)
            except OSError:  # a full disk: as long as it is remembered, once more
                machine.tape_due = min(again, block.t1 + AFTER_S)
                return
            event = self.history.change(event.id, audio=name, audio_t0=block.t0)
            if machine.event is not None:
                machine.event = event
        machine.taping = event if math.isfinite(again) else None

    def _health(self, machine: Machine, standing: dict[str, str], at: float) -> None:
        text = "; ".join(standing.values())
        if standing and machine.trouble is None:
            machine.trouble = self._happened(RAISED, Event(0, machine.id, HEALTH_EVENT, at, text=text), at)
        elif standing and machine.trouble is not None and standing.keys() != machine.ailments:
            machine.trouble = self.history.change(machine.trouble.id, text=text)
        elif not standing and machine.trouble is not None:
            self._happened(CLEARED, machine.trouble, at, ended=at)
            machine.trouble = None
        if standing.keys() != machine.ailments:
            machine.ailments = set(standing)
            self._tell(HEALTH, machine, at, health=PROBLEM if standing else OK, text=text)


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y%m%dT%H%M%SZ}"


def end_left_open(plant: Plant) -> None:
    """End the events of a process that was killed, at the last window it heard; for whoever listens next."""
    for machine in plant.machines:
        for event in plant.history.events(machine, since=math.inf, limit=1000):
            ended = last_heard(plant.history, machine, event.started) or event.started
            text = f"{event.text} (then nobody was listening)"
            plant._happened(CLEARED, event, ended, ended=ended, text=text)


def _judge(detector: Detector, machine: str, window: Window) -> tuple[Scored, audio.Clip | None, list[audio.Problem]]:
    """The score of a window as a row, its clip (None if it is no recording at all), and what is wrong with it.

    The two steps of `Detector.score`, taken one by one: between them stands what the microphones did.
    """
    levels = window.level_dbfs(0), window.level_dbfs(1)
    try:
        clip = window.clip
        ((heard,),) = detector.fitted.ear.hear([clip], None, None)
        s = detector.score_embedded(heard)
    except ValueError as error:
        row = Scored(machine, window.t0, window.t1, 0.0, detector.threshold.value, None, 1.0, (), str(error), *levels)
        return row, None, []
    row = Scored(
        machine, window.t0, window.t1, s.score, s.threshold, s.anomalous, s.p, s.triggered_by, s.problem, *levels
    )
    return row, clip, heard.problems
