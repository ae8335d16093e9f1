"""How many machines can one computer listen to, how late is it then, and how soon is it well again?

Windows of 10 s, log-mel default (near and far), the plant whole: scoring, alarm, watchdog, history on disk.

    rate        windows a second when there is always another waiting; one worker per processor
    lag         from the end of a window's sound to its score recorded, windows arriving at 80 % of that rate
    20 machines one process, windows of 10 s every 5 s, in real time: processor time and memory
    recovery    from the moment that broker, disk or stream are back until what waited has arrived
"""

from __future__ import annotations

import http.server
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from measure import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from brokers import Listener, Mosquitto, wait_for
from conftest import RATE, hum
from nearfar.detector import Detector
from nearfar.live.config import MachineConfig, MqttConfig
from nearfar.live.history.history import History
from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.machine import open_machine
from nearfar.live.monitor import Monitor
from nearfar.live.plant import Plant
from nearfar.live.sinks.messages import EventMessage
from nearfar.live.sinks.mqtt import Mqtt
from nearfar.live.sources.open import StreamSource
from nearfar.live.sources.streams import Ffmpeg
from nearfar.live.sources.windows import Window

SECONDS, NORMALS, MACHINES = 10.0, 40, 20
SOUNDS = [np.asarray([(c := hum(700 + i, seconds=SECONDS)).near, c.far], np.float32) for i in range(4)]


class Arriving:
    """A source whose windows come at given times (s from `start`); time 0 is the end of its first window's sound."""

    problem, finite = "", True

    def __init__(self, times: list[float], start: float, live: bool = True) -> None:
        self.times, self.start, self.live = times, start, live

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        for i, at in enumerate(self.times):
            if (wait := self.start + at - time.time()) > 0:
                stop.wait(wait)
            yield Window(self.start + at - SECONDS, SOUNDS[i % len(SOUNDS)], RATE, gap=True)


class Lags:
    """A meter that keeps every lag."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    def count_dropped(self, machine: str) -> None: ...
    def count_failed(self, machine: str) -> None: ...

    def observe(self, machine: str, seconds: float, lag_s: float) -> None:
        self.lags.append(lag_s)


def listen(model: Path, folder: Path, machines: int, times: list[list[float]], live: bool) -> tuple[Lags, float, int]:
    """(lags, seconds, dropped) of machines whose windows come at these times."""
    shared: dict = {}
    opened = [open_machine(f"m{i}", MachineConfig(model=model), shared=shared) for i in range(machines)]
    plant, meter, start = Plant(opened, History(folder), [], clock=time.time), Lags(), time.time() + 0.2
    sources = {f"m{i}": Arriving(times[i], start, live) for i in range(machines)}
    monitor = Monitor(plant, sources, warn=print, meters=(meter,))
    monitor.run(threading.Event())
    plant.close()
    plant.history.close()
    return meter, time.time() - start, monitor.dropped


def throughput(model: Path, folder: Path) -> float:
    """Windows a second, sustained."""
    each = 40
    meter, seconds, _ = listen(model, folder, 4, [[0.0] * each] * 4, live=False)
    assert len(meter.lags) == 4 * each
    return 4 * each / seconds


def lags_at(model: Path, folder: Path, rate: float, seconds: float = 25.0) -> tuple[np.ndarray, int]:
    """Lags when windows of eight machines come at random moments, `rate` a second in all."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, seconds, round(rate * seconds)))
    meter, _, dropped = listen(model, folder, 8, [times[i::8].tolist() for i in range(8)], live=True)
    return np.array(meter.lags), dropped


def twenty(model: Path, folder: Path, seconds: float = 30.0) -> tuple[np.ndarray, int, float, float]:
    """Lags, dropped, share of one processor and peak MiB of twenty machines in real time."""
    before = time.process_time()
    times = [[i * 5.0 / MACHINES + 5.0 * k for k in range(int(seconds / 5))] for i in range(MACHINES)]
    meter, took, dropped = listen(model, folder, MACHINES, times, live=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return np.array(meter.lags), dropped, (time.process_time() - before) / took, peak


def broker_back(folder: Path, model: Path) -> tuple[float, int]:
    """(seconds, lost) until 200 events that waited for a broker are with a subscriber."""
    machine, broker = open_machine("pump", MachineConfig(model=model)), Mosquitto(folder)
    history = History(folder)
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port, discovery=False), [machine], history, longest_wait_s=1)
    for i in range(200):
        message = EventMessage("pump", "plant", 0.0, "raised", Event(i, "pump", "alarm", 0.0))
        history.outbox.enqueue(message)
        sink.put(message)
    wait_for(lambda: sink.problem)
    broker.start()
    start = time.perf_counter()
    listener = Listener(broker.port, "nearfar/#")
    wait_for(lambda: len(listener.of("/event")) >= 200, 20)
    took, lost = time.perf_counter() - start, 200 - len(set(listener.of("/event")))
    sink.close()
    history.close()
    listener.close()
    broker.stop()
    return took, lost


def disk_back(folder: Path) -> tuple[float, int]:
    """(seconds, lost) until 50,000 scores that waited in memory for a full disk are written."""
    history = History(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for i in range(50_000):
        history.record_score(ScoreRecord("pump", float(i), i + 5.0, 0.0, 3.0, False, 0.5))
    assert history.problem
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    start = time.perf_counter()
    history.record_score(ScoreRecord("pump", 50_000.0, 50_005.0, 0.0, 3.0, False, 0.5))
    took = time.perf_counter() - start
    lost = 50_001 - len(history.scores("pump", 0, 1e9))
    history.close()
    return took, lost


def stream_back(folder: Path) -> float:
    """Seconds from a dead HTTP stream's return to its first whole window (2 s of it are the window's own length)."""
    import soundfile

    soundfile.write(folder / "x.wav", SOUNDS[0].T, RATE, subtype="PCM_16")
    content, back = (folder / "x.wav").read_bytes(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not back.is_set():
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        feed, stop, start = Ffmpeg(f"http://127.0.0.1:{server.server_port}/x.wav", RATE), threading.Event(), 0.0
        took = 0.0
        for window in StreamSource(feed, 2.0, 1.0, time.time).windows(stop):
            if feed.restarts == 3 and not start:  # it has been away for a while, and waits longer each time
                back.set()
                start = time.perf_counter()
            if window is not None:
                took = time.perf_counter() - start
                stop.set()
        server.shutdown()
    return took


def trend(folder: Path) -> float:
    """Seconds to draw 30 days of one machine (518,400 windows) in 1,000 points."""
    history = History(folder)
    rng = np.random.default_rng(0)
    record = ScoreRecord("pump", 0.0, 10.0, 0.0, 3.0, False, 0.5, level_near_dbfs=-30.0, level_far_dbfs=-40.0)
    row = {**vars(record), "triggered_by": ""}
    rows = [row | {"t0": 5.0 * i, "t1": 5.0 * i + 10, "score": v} for i, v in enumerate(rng.normal(size=518_400))]
    history.database.writer.execute("BEGIN")
    into = f"INSERT INTO scores ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"
    history.database.writer.executemany(into, rows)
    history.database.writer.execute("COMMIT")
    start = time.perf_counter()
    points = history.scores("pump", 0, 1e9, points=1000)
    took = time.perf_counter() - start
    assert 0 < len(points) <= 1000
    history.close()
    return took


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Detector().fit([hum(i, seconds=SECONDS) for i in range(NORMALS)]).save(folder / "model")
        rate = float(np.median([throughput(model, folder / f"h{i}") for i in range(3)]))
        lags, dropped = lags_at(model, folder / "lags", 0.8 * rate)
        many, many_dropped, share, peak = twenty(model, folder / "twenty")
        mqtt_s, mqtt_lost = broker_back(folder, model)
        disk_s, disk_lost = disk_back(folder / "disk")
        rows = [
            ("windows a second, sustained", f"{rate:.0f}"),
            ("which is so many machines, a window of 10 s every 5 s", f"{5 * rate:.0f}"),
            (f"lag at 80 % of that ({len(lags)} windows): median, 95 %, 99 %, worst", _quantiles(lags)),
            ("dropped at 80 %", dropped),
            ("20 machines in real time: lag median, 95 %, 99 %, worst", _quantiles(many)),
            ("20 machines: dropped", many_dropped),
            ("20 machines: share of one processor", f"{share:.0%}"),
            ("20 machines: peak memory of the process", f"{peak:.0f} MiB"),
            ("broker back: until 200 waiting events have arrived; lost", f"{mqtt_s:.1f} s; {mqtt_lost}"),
            ("disk has room: until 50,000 waiting scores are written; lost", f"{disk_s:.1f} s; {disk_lost}"),
            ("stream back after three attempts: until the first window", f"{stream_back(folder):.1f} s"),
            ("30 days of a machine's trend (518,400 windows) in 1,000 points", f"{trend(folder / 'trend'):.2f} s"),
        ]
        report("live", ["what", "measured"], rows, [__doc__.split("\n\n")[1]])


def _quantiles(lags: np.ndarray) -> str:
    return ", ".join(f"{q:.2f}" for q in [*np.quantile(lags, [0.5, 0.95, 0.99]), lags.max()]) + " s"


if __name__ == "__main__":
    main()
