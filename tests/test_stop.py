"""One deadline for the end of a plant: what the sources take of it, the sinks do not get."""

from __future__ import annotations

import threading
import time

import pytest

from brokers import wait_for
from nearfar.live import build, monitor
from nearfar.live.build import build_plant
from nearfar.live.config import from_options
from plants import Remember


class Hangs(Remember):
    """A sink whose broker does not answer; it notes how long it may wait."""

    def __init__(self):
        super().__init__()
        self.may_wait, self.released = None, threading.Event()

    def close(self, wait_s=0.0):
        self.may_wait = wait_s
        self.released.wait(600)


@pytest.mark.parametrize(("taken", "left"), [(0.0, 0.3), (60.4, 0.1), (61.0, 0.05)])
def test_sinks_get_what_the_sources_leave_of_the_deadline(taken, left, pump_model, tmp_path, monkeypatch):
    now = [1000.0]  # the source takes its time of this clock
    for module in (monitor, build):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(monitor, "STOP_S", 60.0)
    monkeypatch.setattr(monitor, "ALL_S", 60.5)
    monkeypatch.setattr(build, "CLOSE_S", 0.3)
    monkeypatch.setattr(build, "LEAST_S", 0.05)
    (tmp_path / "in").mkdir()
    tables = {"pump": {"model": pump_model, "source": (str(tmp_path / "in"),)}}
    config = from_options({"machines": tables, "history": {"folder": tmp_path / "history"}})
    sink, stop, reads = Hangs(), threading.Event(), threading.Event()
    plant = build_plant(config, clock=time.time, warn=lambda _: None, report=lambda *_: None, sinks=[sink])
    source = plant.monitor.queues["pump"].source

    def windows(ended):
        reads.set()
        ended.wait()
        now[0] += taken
        yield from ()

    monkeypatch.setattr(source, "windows", windows)
    runs = threading.Thread(target=plant.run, args=(stop,), daemon=True)
    runs.start()
    assert reads.wait(60)
    stop.set()
    runs.join(60)
    assert not runs.is_alive()  # although the sink hangs
    wait_for(lambda: sink.may_wait is not None)
    sink.released.set()
    assert sink.may_wait == pytest.approx(left)
