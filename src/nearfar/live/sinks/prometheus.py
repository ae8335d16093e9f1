"""Prometheus: what the plant measures, in a registry of its own, and a small server for it.

Labels are machine and channel alone (and the result of a window): never a file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nearfar.live.records import ALARM, EVENT, HEALTH, OK, SCORE, STATE, Message

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
RESULTS = {False: "normal", True: "anomalous", None: "cannot_judge"}


class Metrics:
    """A sink and a meter; `registry` is a `prometheus_client.CollectorRegistry`. Needs prometheus-client.

    What is counted of `machines` begins at 0: of a counter that appears with 1, Prometheus sees no increase.
    """

    name, problem = "prometheus", ""

    def __init__(self, machines: Iterable[str] = ()) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise ImportError("metrics need prometheus-client: pip install 'nearfar[live]'") from None
        self._prometheus = prometheus
        self.registry = registry = prometheus.CollectorRegistry()
        self._lags: dict[str, float] = {}
        self._servers: list[Any] = []

        def gauge(name: str, help: str, *labels: str) -> Any:
            return prometheus.Gauge(f"nearfar_{name}", help, labels, registry=registry)

        def counter(name: str, help: str, *labels: str) -> Any:
            return prometheus.Counter(f"nearfar_{name}", help, labels, registry=registry)

        self.score = gauge("score", "Standard deviations above the machine's normals", "machine")
        self.threshold = gauge("threshold", "Set-point, in the score's unit", "machine")
        self.alarm = gauge("alarm", "1 while an alarm stands", "machine")
        self.health = gauge("health_problem", "1 while a microphone or stream is in trouble", "machine")
        self.windows = counter("windows", "Windows heard, by result", "machine", "result")
        self.lost = counter("windows_dropped", "Windows that nobody had time for")
        self.events = counter("events", "Alarm and health events raised", "machine", "kind")
        self.inference = prometheus.Histogram(
            "nearfar_inference_seconds", "Time to hear one window", buckets=BUCKETS, registry=registry
        )
        self.lag = gauge("lag_seconds", "Age of the newest window when it had been heard, of the slowest machine")
        self.level = gauge("audio_level_dbfs", "Level of the newest window", "machine", "channel")
        self.last = gauge("last_audio_timestamp_seconds", "End of the newest window, Unix time", "machine")
        for machine in machines:
            for result in (*RESULTS.values(), "failed"):
                self.windows.labels(machine, result)
            for kind in (ALARM, HEALTH):
                self.events.labels(machine, kind)

    def put(self, message: Message) -> None:
        """Count and show a message."""
        machine, body = message.machine, message.body
        if message.kind == SCORE:
            self.windows.labels(machine, RESULTS[body["anomalous"]]).inc()
            self.threshold.labels(machine).set(body["threshold"])
            self.last.labels(machine).set(body["t1"])
            self.alarm.labels(machine).set("alarm" in body["state"])
            for channel in ("near", "far"):
                if body[f"{channel}_dbfs"] is not None:
                    self.level.labels(machine, channel).set(body[f"{channel}_dbfs"])
            if body["anomalous"] is not None:
                self.score.labels(machine).set(body["score"])
        elif message.kind == STATE:
            self.alarm.labels(machine).set("alarm" in body["state"])
        elif message.kind == HEALTH:
            self.health.labels(machine).set(body["health"] != OK)
        elif message.kind == EVENT and body["what"] == "raised":
            self.events.labels(machine, body["event"]["kind"]).inc()

    def dropped(self, machine: str) -> None:
        """A window was dropped."""
        self.lost.inc()

    def failed(self, machine: str) -> None:
        """A window could not be heard."""
        self.windows.labels(machine, "failed").inc()

    def took(self, machine: str, seconds: float, lag_s: float) -> None:
        """A window took so long to hear, and was so old then."""
        self.inference.observe(seconds)
        self._lags[machine] = lag_s
        self.lag.set(max(self._lags.values()))

    def serve(self, address: str, port: int) -> int:
        """Answer GET /metrics; returns the port (for port 0: the one that was free). OSError if it is taken."""
        try:
            server, _ = self._prometheus.start_http_server(port, address, registry=self.registry)
        except OSError as error:
            raise OSError(f"metrics cannot be served at {address}:{port}: {error.strerror or error}") from None
        self._servers.append(server)
        return int(server.server_port)

    def close(self) -> None:
        """Stop answering."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


def text_of(metrics: Metrics) -> bytes:
    """The metrics as Prometheus reads them."""
    from prometheus_client import generate_latest

    generate: Callable[[Any], bytes] = generate_latest
    return generate(metrics.registry)
