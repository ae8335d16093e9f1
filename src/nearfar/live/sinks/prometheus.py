"""Prometheus: counters and gauges of the plant in a registry of their own, and a small server for them.

The only labels are the machine, the channel, the kind of an event, the result of a window and the sink: few series.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from nearfar.live.history.records import KINDS, TREND
from nearfar.live.rules.alarm import IN_ALARM, RAISED
from nearfar.live.sinks.messages import (
    CLOSE_S,
    OK,
    EventMessage,
    HealthMessage,
    Message,
    ScoreMessage,
    Sink,
    StateMessage,
)

if TYPE_CHECKING:
    from nearfar.live.history.history import History
    from nearfar.live.machine import Machine

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
RESULTS = {"normal": "normal", "unusual": "unusual", "ANOMALOUS": "anomalous", "cannot judge": "cannot_judge"}


class Metrics:
    """A sink and a meter; `registry` is a `prometheus_client.CollectorRegistry`. Needs prometheus-client.

    The counters of `machines` start at 0: Prometheus sees no increase in a counter that appears with 1. Those that are
    `listening` count as heard at `started`, so that a machine which is never heard is noticed.
    """

    name, problem = "prometheus", ""

    def __init__(self, machines: Iterable[str] = (), listening: Iterable[str] = (), started: float = 0.0) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise ImportError('metrics need prometheus-client: pip install "nearfar[live]"') from None
        self._prometheus = prometheus
        self.registry = registry = prometheus.CollectorRegistry()
        self._lags: dict[str, float] = {}
        self._servers: list[Any] = []

        self._by_machine: list[tuple[Any, tuple[str, ...]]] = []  # metrics with a series for each machine, their labels

        def made(kind: Any, name: str, help: str, labels: tuple[str, ...]) -> Any:
            metric = kind(f"nearfar_{name}", help, labels, registry=registry)
            if "machine" in labels:
                self._by_machine.append((metric, labels))
            return metric

        def gauge(name: str, help: str, *labels: str) -> Any:
            return made(prometheus.Gauge, name, help, labels)

        def counter(name: str, help: str, *labels: str) -> Any:
            return made(prometheus.Counter, name, help, labels)

        self.score = gauge("score", "Standard deviations above the machine's normals", "machine")
        self.threshold = gauge("threshold", "Set-point, in the score's unit", "machine")
        self.alarm = gauge("alarm", "1 while an alarm stands", "machine")
        self.unusual = gauge("unusual", "1 while more windows are unusual than a known session explains", "machine")
        self.rising = gauge("rising", "1 while a slow rise of the healthy score is plain", "machine")
        self.health = gauge("health_problem", "1 while a microphone or stream has a problem", "machine")
        self.windows = counter("windows", "Windows processed, by result", "machine", "result")
        self.dropped = counter("windows_dropped", "Windows dropped because scoring was too slow")
        self.events = counter("events", "Alarm and health events raised", "machine", "kind")
        self.inference = prometheus.Histogram(
            "nearfar_inference_seconds", "Time to process one window", buckets=BUCKETS, registry=registry
        )
        self.lag = gauge("lag_seconds", "Age of the newest window once processed, of the slowest machine")
        self.level = gauge("audio_level_dbfs", "Level of the newest window", "machine", "channel")
        self.last = gauge(
            "last_audio_timestamp_seconds", "End of the newest window, before the first the start, Unix time", "machine"
        )
        self.refused_logins = counter("refused_logins", "Wrong tokens and passwords, and attempts beyond the limit")
        self.sink_problem = gauge("sink_problem", "1 while a sink does not deliver messages", "sink")
        self.history_problem = gauge("history_problem", "1 while the history cannot be written")
        self.disk_free = gauge("disk_free_bytes", "Free space on the disk of the history")
        build = prometheus.Info("nearfar_build", "Version of nearfar", registry=registry)
        build.info({"version": version_of("nearfar"), "python": platform.python_version()})
        for machine in listening:
            self.last.labels(machine).set(started)
        for machine in machines:
            self._begin(machine)

    def _begin(self, machine: str) -> None:
        """Start the series of a machine that are there before its first window."""
        self.health.labels(machine)
        self.rising.labels(machine)
        self.unusual.labels(machine)
        for result in (*RESULTS.values(), "failed"):
            self.windows.labels(machine, result)
        for kind in KINDS:
            self.events.labels(machine, kind)

    def add_machine(self, machine: Machine, at: float) -> None:
        """Start the series of a machine that is new; one that takes the place of another continues them."""
        self._begin(machine.id)
        if machine.streamed:
            self.last.labels(machine.id).set(at)

    def remove_machine(self, id: str) -> None:
        """Remove the series of a machine."""
        for metric, labels in self._by_machine:
            samples = [sample.labels for family in metric.collect() for sample in family.samples]
            for values in {tuple(found[name] for name in labels) for found in samples if found["machine"] == id}:
                metric.remove(*values)
        self._lags.pop(id, None)

    def put(self, message: Message) -> None:
        """Count and show a message."""
        machine = message.machine
        if isinstance(message, ScoreMessage | StateMessage):
            self.alarm.labels(machine).set(message.state in IN_ALARM)
            self.unusual.labels(machine).set(message.unusual_stands)
        if isinstance(message, ScoreMessage):
            s = message.record
            self.windows.labels(machine, RESULTS[s.status]).inc()
            self.threshold.labels(machine).set(s.threshold)
            self.last.labels(machine).set(s.t1)
            for channel, level in (("near", s.level_near_dbfs), ("far", s.level_far_dbfs)):
                if level is not None:
                    self.level.labels(machine, channel).set(level)
            if s.anomalous is not None:
                self.score.labels(machine).set(s.score)
        elif isinstance(message, HealthMessage):
            self.health.labels(machine).set(message.health != OK)
        elif isinstance(message, EventMessage):
            if message.what == RAISED:
                self.events.labels(machine, message.event.kind).inc()
            if message.event.kind == TREND:
                self.rising.labels(machine).set(message.event.ended is None)

    def watch(self, history: History, sinks: Iterable[Sink]) -> None:
        """Show whether the history and the sinks work, and the free space, whenever the metrics are read."""
        folder = history.folder
        self.history_problem.set_function(lambda: bool(history.problem))
        self.disk_free.set_function(lambda: shutil.disk_usage(folder).free)
        for sink in sinks:
            if sink is not self:
                self.sink_problem.labels(sink.name).set_function(partial(_has_problem, sink))

    def count_refused_login(self) -> None:
        """Somebody gave a wrong token."""
        self.refused_logins.inc()

    def count_dropped(self, machine: str) -> None:
        """A window was dropped."""
        self.dropped.inc()

    def count_failed(self, machine: str) -> None:
        """A window could not be scored."""
        self.windows.labels(machine, "failed").inc()

    def observe(self, machine: str, seconds: float, lag_s: float) -> None:
        """A window was processed in `seconds`, and ended `lag_s` ago."""
        self.inference.observe(seconds)
        self._lags[machine] = lag_s
        self.lag.set(max(list(self._lags.values())))

    def text(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        text: bytes = self._prometheus.generate_latest(self.registry)
        return text

    def serve(self, address: str, port: int) -> int:
        """Answer GET /metrics; returns the port (a free one for port 0). OSError if the port is in use."""
        try:
            server, _ = self._prometheus.start_http_server(port, address, registry=self.registry)
        except OSError as error:
            raise OSError(f"metrics cannot be served at {address}:{port}: {error.strerror or error}") from None
        self._servers.append(server)
        return int(server.server_port)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Stop answering."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


def _has_problem(sink: Sink) -> bool:
    return bool(sink.problem)
