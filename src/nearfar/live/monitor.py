"""Sources -> plant: a thread per source, a bounded queue per machine, shared workers, and a check every second.

    source --thread--> queue (`QUEUE` windows) --worker--> Plant.process_window

One machine's windows are processed in order, one at a time; machines share the workers. A full queue drops its oldest
window, counts it and marks a gap, except for sources that wait (folders, files). A failure (of a stream, a disk, a
sink, one window) is reported, and the monitor goes on. `run` returns when all sources are exhausted or `stop` is set,
and the queues are empty.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter
from typing import Protocol

from nearfar.live.plant import Plant
from nearfar.live.sources.open import Source
from nearfar.live.sources.windows import Window
from nearfar.support.threads import single_threaded_blas

QUEUE = 24
TICK_S = 1.0
DRAIN_S = 30.0

Warn = Callable[[str], None]


class Meter(Protocol):
    """Counts and times windows; `sinks.prometheus.Metrics` is one."""

    def count_dropped(self, machine: str) -> None: ...
    def count_failed(self, machine: str) -> None: ...
    def observe(self, machine: str, seconds: float, lag_s: float) -> None: ...


@dataclass(eq=False)
class MachineQueue:
    """The windows that wait for one machine."""

    source: Source
    waiting: deque[Window] = field(default_factory=deque)
    busy: bool = False
    ended: bool = False
    failure: str = ""  # why the source ended, "" if it was exhausted
    last: float = 0.0  # when the newest window came

    @property
    def problem(self) -> str:
        """Why no windows come, or ""."""
        return self.failure or self.source.problem

    def is_done(self) -> bool:
        """Whether the source has ended and all its windows are processed."""
        return self.ended and not self.busy and not self.waiting


class Monitor:
    """Feeds a plant from `sources` {machine id: source}; `warn` is called with problems, and with their ends.

    `steady` is a clock that is never set, unlike the plant's: it measures how long no window came.
    """

    def __init__(
        self,
        plant: Plant,
        sources: Mapping[str, Source],
        *,
        warn: Warn,
        meters: tuple[Meter, ...] = (),
        workers: int | None = None,
        queue: int = QUEUE,
        tick_s: float = TICK_S,
        steady: Callable[[], float] = monotonic,
    ) -> None:
        self.plant, self.warn, self.meters, self.limit, self.tick_s = plant, warn, meters, queue, tick_s
        self.steady = steady
        self.queues = {machine: MachineQueue(source) for machine, source in sources.items()}
        self.dropped = self.failed = 0
        self._warned: dict[str, str] = {}  # the last warning about each subject
        self._workers = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="nearfar-score")
        self._change = threading.Condition()

    def run(self, stop: threading.Event) -> None:
        """Process windows until every source has ended or `stop` is set."""
        self.plant.end_interrupted_events()
        with single_threaded_blas():  # machines are scored in parallel; OpenBLAS obeys the main thread only
            for machine, queue in self.queues.items():
                queue.last = self.steady()
                threading.Thread(target=self._read, args=(machine, queue, stop), name=machine, daemon=True).start()
            while not stop.is_set() and not self._all(lambda queue: queue.ended):
                with self._change:
                    self._change.wait(self.tick_s)
                self._check()
            with self._change:
                self._change.wait_for(lambda: self._all(MachineQueue.is_done), timeout=DRAIN_S)
            self._workers.shutdown(wait=True, cancel_futures=True)

    def problems(self) -> list[str]:
        """Why no windows come from sources and why changed models are not used, one line each."""
        lines = [f"machine {machine}: {queue.problem}" for machine, queue in self.queues.items() if queue.problem]
        return lines + [f"machine {m.id}: {m.model_problem}" for m in self.plant.machines.values() if m.model_problem]

    def _all(self, test: Callable[[MachineQueue], bool]) -> bool:
        return all(test(queue) for queue in self.queues.values())

    def _read(self, machine: str, queue: MachineQueue, stop: threading.Event) -> None:
        try:
            for window in queue.source.windows(stop):
                if window is not None:
                    self._put(machine, queue, window)
        except Exception as error:  # the other sources go on
            queue.failure = f"its source has failed: {error}"
            self._warn_source(machine, queue)
        finally:
            with self._change:
                queue.ended = True
                self._change.notify_all()

    def _put(self, machine: str, queue: MachineQueue, window: Window) -> None:
        with self._change:
            if not queue.source.live:
                self._change.wait_for(lambda: not queue.busy and not queue.waiting)
            if len(queue.waiting) >= self.limit:
                queue.waiting.popleft()
                if queue.waiting:
                    queue.waiting[0] = replace(queue.waiting[0], gap=True)
                self.dropped += 1
                for meter in self.meters:
                    meter.count_dropped(machine)
            queue.waiting.append(window)
            queue.last = self.steady()
            if not queue.busy:
                queue.busy = True
                self._workers.submit(self._process, machine, queue)

    def _process(self, machine: str, queue: MachineQueue) -> None:
        """Process one window; the machine's next window then queues up behind the other machines'."""
        with self._change:
            window = queue.waiting.popleft()
        start = perf_counter()
        try:
            self.plant.process_window(machine, window)
            seconds = perf_counter() - start
            for meter in self.meters:
                meter.observe(machine, seconds, self.plant.clock() - window.t1)
        except Exception as error:  # one window must not end the watch
            self.failed += 1
            for meter in self.meters:
                meter.count_failed(machine)
            self._warn_once(machine, f"{machine}: a window could not be scored: {type(error).__name__}: {error}")
        with self._change:
            queue.busy = bool(queue.waiting)
            if queue.busy:
                self._workers.submit(self._process, machine, queue)
            self._change.notify_all()

    def _check(self) -> None:
        self.plant.follow_models()
        for m in self.plant.machines.values():
            self._warn_once(f"the model of {m.id}", m.model_problem and f"{m.id}: {m.model_problem}")
        for machine, queue in self.queues.items():
            silent_s = self.steady() - queue.last
            if (queue.failure or not queue.ended) and silent_s > self.tick_s:
                self.plant.on_silence(machine, self.plant.clock(), silent_s)
            self._warn_source(machine, queue)
        self._warn_once("history", self.plant.history.problem)
        for sink in self.plant.sinks:
            self._warn_once(sink.name, sink.problem)

    def _warn_source(self, machine: str, queue: MachineQueue) -> None:
        self._warn_once(f"the source of {machine}", f"{machine}: {queue.problem}" if queue.problem else "")

    def _warn_once(self, subject: str, text: str) -> None:
        """Warn when a problem begins or changes, and say when it is over."""
        if text != self._warned.get(subject, ""):
            self._warned[subject] = text
            self.warn(text or f"{subject} works again")
