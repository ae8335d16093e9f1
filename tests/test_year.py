"""A year at a plant in virtual time, with every kind of failure in any order: what must hold all the time, holds.

Sources end, fail, flood and are replaced; the clock is set back and forth; the disk is full or read-only; the broker is
away; the process is killed. Only the scoring is simulated: history, alarm, health, events, outbox and sinks are real.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from brokers import wait_for
from nearfar.audio import Clip, Problem
from nearfar.live.history.history import History
from nearfar.live.history.records import HEALTH_EVENT
from nearfar.live.machine import open_machine
from nearfar.live.plant import Plant
from nearfar.live.server.serializers import machine_state
from nearfar.live.sinks.messages import EVENT
from nearfar.live.sinks.prometheus import Metrics
from nearfar.live.sinks.retry import RetryQueue
from nearfar.live.sources.windows import Window
from nearfar.score import Score
from plants import T0, Clock, Remember, configured

WINDOW_S, RATE, SILENCE_S, DAY_S = 10.0, 100, 30.0, 86_400.0
MACHINES = ("fan", "pump")
NORMAL, FAULT, DEAD, UNREADABLE = "normal", "fault", "dead", "unreadable"


def simulated(detector, window):
    """The score of a window that says by its name what it holds."""
    kind = window.name
    clip = Clip(window.samples[0], None, RATE)
    if kind == UNREADABLE:
        return Score("", 0.0, 6.0, None, [], 1.0, problem="samples hold nan"), None, []
    if kind == DEAD:
        dead = Problem("silent", "near", "the near channel is silent", True)
        return Score("", 0.0, 6.0, None, [], 1.0, problem=dead.text), clip, [dead]
    value = 20.0 if kind == FAULT else 0.5
    return Score("", value, 6.0, value > 6, [], 0.5), clip, []


class Year(RuleBasedStateMachine):
    """The plant, and what is known about it without asking it."""

    model: Path

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(prefix="year"))
        self.clock, self.steady = Clock(T0), Clock(1000.0)
        self.there, self.delivered, self.disk = True, [], ""
        self.windows = dict.fromkeys(MACHINES, 0)
        self.open()

    def open(self):
        machines = [open_machine(id, configured(self.model, silence_s=SILENCE_S)) for id in MACHINES]
        for machine in machines:
            machine.watchdog._check_level = lambda clip: None  # the level of a simulated window means nothing
        self.history = History(self.folder, keep_days=1e6, audio_bytes=1e5)
        self.broker = RetryQueue("broker", self.deliver, self.history.outbox.mailbox("broker", (EVENT,)))
        self.sink, self.metrics = Remember(), Metrics(MACHINES)
        sinks = [self.broker, self.sink, self.metrics]
        self.plant = Plant(machines, self.history, sinks, clock=self.clock, steady=self.steady)
        self.plant.end_interrupted_events()
        self.heard = {}
        for machine in machines:
            machine.source_health.start(self.steady.now)
            self.heard[machine.id] = self.steady.now

    def deliver(self, message):
        if not self.there:
            raise OSError("the broker is away")
        self.delivered.append(message.id)

    def look(self):
        for id in MACHINES:
            self.plant.check_source(id)

    @rule(days=st.floats(0.0, 14.0))
    def nothing_happens(self, days):
        self.clock.now += days * DAY_S
        self.steady.now += days * DAY_S
        self.look()

    @rule(id=st.sampled_from(MACHINES), kind=st.sampled_from([NORMAL, FAULT, DEAD, UNREADABLE]), many=st.integers(1, 8))
    def sound_comes(self, id, kind, many):
        for _ in range(many):
            self.clock.now += WINDOW_S
            self.steady.now += WINDOW_S
            self.hear(id, kind)

    @rule(id=st.sampled_from(MACHINES), many=st.integers(20, 60))
    def the_source_floods(self, id, many):
        for _ in range(many):  # what waited somewhere comes at once
            self.hear(id, NORMAL)

    def hear(self, id, kind):
        samples = np.zeros((1, round(WINDOW_S * RATE)), np.float32)
        self.plant.machines[id].source_health.on_window(self.steady.now)
        self.plant.process_window(id, Window(self.clock.now - WINDOW_S, samples, RATE, name=kind))
        self.windows[id] += 1
        self.heard[id] = self.steady.now
        self.look()

    @rule(id=st.sampled_from(MACHINES))
    def the_source_ends(self, id):
        self.plant.machines[id].source_health.on_end()

    @rule(id=st.sampled_from(MACHINES), times=st.integers(1, 9))
    def the_source_fails(self, id, times):
        for _ in range(times):
            wait_s = self.plant.machines[id].source_health.on_failure(self.steady.now, "unplugged")
            assert 1 <= wait_s <= 60
            self.clock.now += wait_s
            self.steady.now += wait_s
            self.look()

    @rule(id=st.sampled_from(MACHINES))
    def the_device_is_replaced(self, id):
        self.plant.machines[id].source_health.start(self.steady.now)
        self.heard[id] = self.steady.now
        self.look()

    @rule(hours=st.floats(-48.0, 48.0))
    def the_clock_is_set(self, hours):
        self.clock.now += hours * 3600
        self.look()

    @precondition(lambda self: not self.disk)
    @rule(kind=st.sampled_from(["full", "read-only"]))
    def the_disk_fails(self, kind):
        self.disk = kind
        pragma = "query_only = 1"
        if kind == "full":
            pages = self.history.database.writer.execute("PRAGMA page_count").fetchone()[0]
            pragma = f"max_page_count = {pages}"
        self.history.database.writer.execute(f"PRAGMA {pragma}")

    @precondition(lambda self: self.disk)
    @rule()
    def the_disk_works_again(self):
        self.disk = ""
        self.history.database.writer.execute("PRAGMA query_only = 0")
        self.history.database.writer.execute("PRAGMA max_page_count = 1073741823")
        assert self.history.database.write() and not self.history.problem

    @rule()
    def the_broker_leaves_or_comes(self):
        self.there = not self.there
        self.broker.retry_now()

    @precondition(lambda self: not self.disk)
    @rule()
    def the_process_is_killed(self):
        self.broker.close(0.5)
        self.history.close()
        self.open()

    @invariant()
    def no_state_is_normal_without_sound(self):
        for id in MACHINES:
            state = machine_state(self.plant, id)
            silent_s = self.steady.now - self.heard[id]
            assert state.state != "normal" or silent_s < SILENCE_S
            assert silent_s < SILENCE_S or state.source in ("stale", "ended", "failed")

    @invariant()
    def every_surface_says_the_same_of_health(self):
        text = self.metrics.text().decode()
        for id in MACHINES:
            machine = self.plant.machines[id]
            problem = bool(machine.health)
            assert f'nearfar_health_problem{{machine="{id}"}} {float(problem)}' in text
            said = [m.health for m in self.sink.messages if m.kind == "health" and m.machine == id]
            assert (said[-1] if said else "ok") == ("problem" if problem else "ok")
            assert machine_state(self.plant, id).health == list(machine.health.values())
            standing = self.plant.recorders[id].newest(HEALTH_EVENT)
            assert (standing is not None) == problem

    @invariant()
    def events_end_after_they_begin_and_one_of_a_kind_stands(self):
        events = self.history.events(limit=10_000)
        assert all(event.ended is None or event.ended >= event.started for event in events)
        open_ones = [(event.machine, event.kind) for event in events if event.ended is None]
        assert len(open_ones) == len(set(open_ones))

    @invariant()
    def what_was_heard_is_recorded_and_little_waits_in_memory(self):
        with self.history.database.lock:  # the broker's thread writes to the outbox meanwhile
            assert bool(self.history.problem) <= bool(self.disk)
            if not self.history.problem:
                rows = dict(self.history.database.read("SELECT machine, count(*) FROM scores GROUP BY machine"))
                assert rows == {id: count for id, count in self.windows.items() if count}
                assert not self.history.database._waiting
        for id in MACHINES:
            seconds = sum(piece.seconds for _, piece in self.plant.machines[id].buffer._pieces)
            assert seconds <= self.plant.machines[id].buffer.seconds + WINDOW_S

    def teardown(self):
        if self.disk:
            self.the_disk_works_again()
        self.there = True
        self.broker.retry_now()
        told = [m.id for m in self.sink.messages if m.kind == EVENT]
        wait_for(lambda: self.broker.retry_now() or set(told) <= set(self.delivered))
        first = list(dict.fromkeys(id for id in self.delivered if id in set(told)))
        assert first == list(dict.fromkeys(told))  # each event, in order, at least once
        self.plant.close()
        self.broker.close(1.0)
        self.history.close()


@pytest.mark.parametrize("examples", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_year_with_every_failure(pump_model, monkeypatch, examples):
    monkeypatch.setattr("nearfar.live.plant.score_window", simulated)
    monkeypatch.setattr(Year, "model", pump_model, raising=False)
    options = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Year, settings=options)
