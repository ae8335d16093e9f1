"""One deadline for the end of a plant: what the sources take of it, the sinks do not get."""

from __future__ import annotations

import threading
import time

import pytest

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
        self.released.wait(30)


@pytest.mark.parametrize(("taken", "left"), [(0.0, 0.3), (0.4, 0.1)])
def test_sinks_get_what_the_sources_leave_of_the_deadline(taken, left, pump_model, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "STOP_S", 0.4)
    monkeypatch.setattr(monitor, "ALL_S", 0.5)
    monkeypatch.setattr(build, "CLOSE_S", 0.3)
    monkeypatch.setattr(build, "LEAST_S", 0.05)
    (tmp_path / "in").mkdir()
    tables = {"pump": {"model": pump_model, "source": (str(tmp_path / "in"),)}}
    config = from_options({"machines": tables, "history": {"folder": tmp_path / "history"}})
    sink, stop, hung = Hangs(), threading.Event(), threading.Event()
    plant = build_plant(config, clock=time.time, warn=lambda _: None, report=lambda *_: None, sinks=[sink])
    source = plant.monitor.queues["pump"].source

    def windows(ended):
        ended.wait()
        hung.wait(taken)
        yield from ()

    monkeypatch.setattr(source, "windows", windows)
    runs = threading.Thread(target=plant.run, args=(stop,))
    runs.start()
    time.sleep(0.05)
    stop.set()
    runs.join(10)
    sink.released.set()
    assert not runs.is_alive() and 0.05 <= sink.may_wait <= left + 0.01  # a busy machine leaves less
