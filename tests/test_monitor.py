"""The monitor: bounded, fair, in order, and alive whatever fails; and a week of it in memory that stays flat."""

import gc
import io
import itertools
import math
import multiprocessing
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brokers import wait_for
from conftest import RATE, hum
from nearfar.detector import Detector
from nearfar.live.build import Assembly
from nearfar.live.monitor import Monitor
from nearfar.live.server.serializers import machine_state
from nearfar.live.sinks.prometheus import Metrics
from nearfar.live.sources.open import StreamSource
from nearfar.live.sources.streams import Pcm
from nearfar.live.sources.windows import RingBuffer, Window
from nearfar.recipe import Recipe
from plants import T0, Clock, plant_of, windows

DAY = 24 * 12  # windows


class Array:
    """A source from a list of windows."""

    problem = ""

    def __init__(self, given, live=True, fail=None, finite=True):
        self.given, self.live, self.fail, self.finite = given, live, fail, finite

    def windows(self, stop):
        yield None
        yield from self.given
        if self.fail:
            raise self.fail


@pytest.fixture(scope="module")
def model(pump_model):
    return pump_model


def monitor_of(plant, sources, **options):
    said: list[str] = []
    made = Monitor(plant, sources, warn=said.append, tick_s=0.05, **options)
    return made, said


def run(made, seconds=60.0, stop=None):
    stop = stop or threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


def test_all_machines_are_heard_in_order_side_by_side(model, tmp_path):
    plant, sink, _ = plant_of(model, tmp_path / "h", "a", "b", "c")
    sources = {m: Array(windows([""] * 12, seed=100 * i), live=False) for i, m in enumerate("abc")}
    made, said = monitor_of(plant, sources)
    run(made)
    assert made.dropped == made.failed == 0 and not said
    for machine in "abc":
        times = [m.record.t0 for m in sink.messages if m.kind == "score" and m.machine == machine]
        assert times == [T0 + 2 * i for i in range(12)]


def test_the_oldest_windows_are_dropped_counted_and_leave_a_gap(model, tmp_path):
    plant, _, _ = plant_of(model, tmp_path / "h")
    taken, take = [], plant.process_window
    busy, over = threading.Event(), threading.Event()

    def slow(machine, window):
        taken.append(window)
        busy.set()
        assert over.wait(60)
        return take(machine, window)

    class Burst(Array):
        def windows(self, stop):
            yield self.given[0]
            assert busy.wait(60)
            yield from self.given[1:]  # all of them during the first
            over.set()

    plant.process_window = slow
    metrics = Metrics()
    made, _ = monitor_of(plant, {"pump": Burst(windows([""] * 30))}, queue=4, meters=(metrics,))
    run(made)
    assert made.dropped == 25 == 30 - len(taken)
    assert f"nearfar_windows_dropped_total {made.dropped:.1f}" in metrics.text().decode()
    times = [w.t0 for w in taken]
    assert any(w.gap for w in taken) and times == sorted(times) and times[-1] == T0 + 58
    for before, after in itertools.pairwise(taken):
        assert after.gap == (after.t0 > before.t1 + 0.01)


def test_a_source_that_fails_is_said_and_becomes_health_while_the_others_go_on(model, tmp_path):
    steady = Clock(0.0)
    plant, _, clock = plant_of(model, tmp_path / "h", "a", "b", steady=steady, silence_s=30.0)
    over = threading.Event()

    class Waiting(Array):
        def windows(self, stop):
            yield from self.given
            while not (plant.history.events("a") and len(plant.history.scores("b", 0, 1e12)) == 6):
                steady.now += 20
                clock.now -= 3600  # set back, again and again: it does not say how long nothing came
                time.sleep(0.05)
                yield None
            over.set()

    sources = {"a": Array([], fail=RuntimeError("unplugged")), "b": Waiting(windows([""] * 6))}
    made, said = monitor_of(plant, sources)
    run(made, stop=over)
    assert "a: its source has failed: unplugged" in said
    assert made.problems() == ["machine a: its source has failed: unplugged"]
    (event,) = plant.history.events("a", kind="health")
    assert "as its source fails: unplugged; it is tried again" in event.text
    assert machine_state(plant, "a").source == "failed" and machine_state(plant, "a").state == "no sound"
    assert len(plant.history.scores("b", 0, 1e12)) == 6


def test_a_source_that_fails_is_opened_again_and_is_well(model, tmp_path, monkeypatch):
    monkeypatch.setattr("nearfar.live.rules.health.FIRST_WAIT_S", 0.01)
    plant, _, _ = plant_of(model, tmp_path / "h")
    opened = []

    class Failing(Array):
        def windows(self, stop):
            opened.append(len(opened))
            if len(opened) < 4:
                raise OSError(24, "Too many open files")
            yield from self.given

    made, said = monitor_of(plant, {"pump": Failing(windows([""] * 3))})
    run(made)
    assert len(opened) == 4 and len(plant.history.scores("pump", 0, 1e12)) == 3 and not made.problems()
    assert said[0] == "pump: its source has failed: [Errno 24] Too many open files"


@pytest.mark.parametrize("finite", [False, True])
def test_a_live_source_that_ends_is_health_while_the_watch_goes_on(model, tmp_path, finite):
    steady, stop = Clock(0.0), threading.Event()
    plant, _, _ = plant_of(model, tmp_path / "h", steady=steady, silence_s=30.0)
    made, _ = monitor_of(plant, {"pump": Array(windows([""] * 3), finite=finite)})
    checks: list[None] = []
    thread = threading.Thread(
        target=made.run, args=(stop, lambda: checks.append(None)), kwargs={"stay": True}, daemon=True
    )
    thread.start()
    assert wait_for(lambda: made.queues["pump"].is_done() and len(plant.history.scores("pump", 0, 1e12)) == 3)
    assert not plant.machines["pump"].health
    steady.now = 31.0
    if finite:
        before = len(checks)
        assert wait_for(lambda: len(checks) > before + 2)  # it has looked since
        assert not plant.history.events() and machine_state(plant, "pump").state == "ended"
    else:
        assert wait_for(lambda: plant.history.events())
        assert "as its source has ended" in plant.history.events()[0].text
        assert machine_state(plant, "pump").state == "no sound"
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_a_pipe_that_is_faster_than_real_time_waits_and_loses_no_window(model, tmp_path, monkeypatch):
    monkeypatch.setattr("nearfar.live.sources.streams.monotonic", lambda: 0.0)  # however slow this machine is
    plant, sink, _ = plant_of(model, tmp_path / "h")
    take = plant.process_window

    def slow(machine, window):
        time.sleep(0.02)
        take(machine, window)

    plant.process_window = slow
    sound = np.tile(np.random.default_rng(0).normal(0, 0.1, (2, 2 * RATE)), 60).astype("<f4")  # two minutes
    pcm = Pcm(io.BytesIO(sound.T.tobytes()), RATE, 2)
    made, _ = monitor_of(plant, {"pump": StreamSource(pcm, 2.0, 2.0, plant.clock)}, queue=4)
    run(made)
    assert pcm.is_ahead and made.dropped == 0 and len(sink.values("score", "score")) == 60


def test_a_window_that_cannot_be_taken_does_not_end_the_watch(model, tmp_path):
    plant, sink, _ = plant_of(model, tmp_path / "h")

    class Bad:
        name, problem = "bad", ""

        def put(self, message):
            if message.kind == "score" and message.record.t0 == T0 + 4:
                raise RuntimeError("a sink with a fault")

    plant.sinks.append(Bad())
    made, said = monitor_of(plant, {"pump": Array(windows([""] * 6), live=False)})
    run(made)
    assert made.failed == 1 and "a sink with a fault" in said[0]
    assert len(sink.values("score", "score")) == 6


def test_it_stops_when_told_and_hears_what_has_come(model, tmp_path, monkeypatch):
    monkeypatch.setattr("nearfar.live.monitor.STOP_S", 60.0)
    plant, sink, _ = plant_of(model, tmp_path / "h")
    told = threading.Event()

    class Endless(Array):
        def windows(self, stop):
            yield from self.given
            told.set()
            while not stop.is_set():
                stop.wait(0.02)
                yield None

    made, _ = monitor_of(plant, {"pump": Endless(windows([""] * 8))})
    run(made, stop=told)
    assert len(sink.values("score", "score")) == 8


def toy(folder: Path) -> Path:
    """A detector of quarter seconds, as cheap as one can be."""
    detector = Detector(Recipe(), threads=1).fit([hum(i, seconds=0.25, far=False) for i in range(12)])
    detector.set_threshold(value=8.0)
    return detector.save(folder)


@pytest.mark.slow
def test_a_week_in_memory_that_stays_flat(tmp_path):
    """In a process of its own: what other tests have left running counts objects too."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        blocks, resident = pool.apply(live_through_a_week, (tmp_path,))
    assert max(blocks[2:]) - blocks[1] < 1000, blocks  # a leak of one object a window would be 1440
    assert max(resident[2:]) - resident[1] < 16e6, resident


def live_through_a_week(folder):
    """Seven days of one window in five minutes, a fault and a dead microphone a day; the clock is the windows' own.

    Returns allocated objects and resident bytes at the end of each day.
    """
    plant, sink, clock = plant_of(toy(folder / "toy"), folder / "h", "pump")
    plant.machines["pump"].buffer = RingBuffer(10.0)
    good = [hum(500 + i, seconds=0.25, far=False).near[None] for i in range(8)]
    bad = hum(1, fault="hiss", seconds=0.25, far=False).near[None]
    dead = np.zeros((1, RATE // 4), np.float32)
    blocks, resident = [], []
    for n in range(7 * DAY):
        of_day = n % DAY
        samples = bad if 100 <= of_day < 110 else dead if 200 <= of_day < 205 else good[n % 8]
        clock.now = T0 + 300 * n
        plant.process_window("pump", Window(clock.now, samples, RATE))
        sink.messages = sink.messages[-10:]
        if of_day == DAY - 1:
            gc.collect()
            blocks.append(sys.getallocatedblocks())
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    events = plant.history.events(limit=1000)
    assert [e.kind for e in events] == ["health", "alarm"] * 7
    assert all(e.ended is not None for e in events)
    assert len(plant.history.scores("pump", 0, 1e12)) == 7 * DAY
    plant.close()
    return blocks, resident


@pytest.mark.parametrize("left_s, wait_s", [(math.inf, 3.0), (4.0, 3.0), (2.0, 2.0), (-5.0, 1.0)])
def test_sinks_have_what_the_sources_leave_of_one_deadline(left_s, wait_s, monkeypatch):
    monkeypatch.setattr("nearfar.live.build.monotonic", lambda: 1000.0)
    given = []
    closed = SimpleNamespace(close=lambda: None)
    sink = SimpleNamespace(close=given.append)
    plant = SimpleNamespace(close=lambda: None, history=closed, sinks=[sink])
    monitor = SimpleNamespace(until=1000.0 + left_s)
    Assembly(plant, monitor, None, None, closed).close()
    assert wait_for(lambda: given) == [wait_s]
