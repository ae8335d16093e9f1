"""Sources -> plant: a thread per source, a bounded queue per machine, shared workers, and a check every second.

    source --thread--> queue (`QUEUE` windows) --worker--> Plant.process_window

One machine's windows are processed in order, one at a time; machines share the workers. A full queue drops its oldest
window, counts it and marks a gap, except for sources that wait (folders, files, a pipe that is faster than real time).
A failure (of a stream, a disk, a sink, one window) is reported, and the monitor goes on; a source that fails is opened
again (`health`). `run` returns when `stop` is set, or all sources are exhausted, and the queues are empty.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter
from typing import Protocol

from nearfar.live.plant import Plant
from nearfar.live.rules.health import SourceHealth
from nearfar.live.sources.open import Source
from nearfar.live.sources.windows import Window
from nearfar.support.threads import single_threaded_blas
from nearfar.support.words import plural

QUEUE = 24
TICK_S = 1.0
LOOK_S = 0.2  # until `stop` is noticed
DRAIN_S = 30.0  # for the windows that wait when the sources have ended
STOP_S = 3.0  # for the same when `stop` is set, and for the sources to close
ALL_S = 5.0  # from `stop` to the end of the process: what the sources leave of it is for the sinks

Warn = Callable[[str], None]


class Meter(Protocol):
    """Counts and times windows; `sinks.prometheus.Metrics` is one."""

    def count_dropped(self, machine: str) -> None: ...
    def count_failed(self, machine: str) -> None: ...
    def observe(self, machine: str, seconds: float, lag_s: float) -> None: ...


@dataclass(eq=False)
class MachineQueue:
    """The windows that wait for one machine, and the thread that reads its source until `stop` is set."""

    source: Source
    health: SourceHealth
    waiting: deque[Window] = field(default_factory=deque)
    busy: bool = False
    ended: bool = False
    removed: bool = False  # its windows are not wanted any more
    failure: str = ""  # why the source failed, until a window comes
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why no windows come, or ""."""
        return self.failure or self.source.problem

    def is_done(self) -> bool:
        """Whether the source has ended and all its windows are processed."""
        return self.ended and not self.busy and not self.waiting


class Monitor:
    """Feeds a plant from `sources` {machine id: source}; `warn` is called with problems, and with their ends."""

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
    ) -> None:
        self.plant, self.warn, self.meters, self.limit, self.tick_s = plant, warn, meters, queue, tick_s
        self.queues: dict[str, MachineQueue] = {}
        self.dropped = self.failed = 0
        self.until = math.inf  # by when all must be closed, on a steady clock, once `stop` is set
        self._warned: dict[str, str] = {}  # the last warning about each subject
        self._workers = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="nearfar-score")
        self._change = threading.Condition()
        self._running = False
        for id, source in sources.items():
            self.add(id, source)

    def add(self, machine: str, source: Source) -> None:
        """Listen to the source of a machine of the plant, from the start of `run` or from now on."""
        queue = MachineQueue(source, self.plant.machines[machine].source_health)
        with self._change:
            self.queues[machine] = queue
            if self._running:
                self._start(machine)

    def remove(self, machine: str) -> None:
        """Stop the source of a machine, if it has one, and process the windows that wait, for STOP_S at most."""
        with self._change:
            queue = self.queues.pop(machine, None)
        if queue is None:
            return
        until = monotonic() + STOP_S
        queue.stop.set()
        with self._change:
            self._change.notify_all()
        if queue.thread is not None:
            queue.thread.join(STOP_S)
            with self._change:
                self._change.wait_for(queue.is_done, timeout=max(0.0, until - monotonic()))
                queue.removed = True
                queue.waiting.clear()
                self._change.wait_for(lambda: not queue.busy, timeout=STOP_S)
        self._warned.pop(f"the source of {machine}", None)

    def run(self, stop: threading.Event, check: Callable[[], None] = lambda: None, *, stay: bool = False) -> None:
        """Process windows until every source has ended or `stop` is set; `stay`: only `stop` ends it.

        `check()` is called every `tick_s`.
        """
        self.plant.end_interrupted_events()
        with single_threaded_blas():  # machines are scored in parallel; OpenBLAS obeys the main thread only
            with self._change:
                self._running = True
                for machine in self.queues:
                    self._start(machine)
            checked = -math.inf
            while not stop.is_set() and (stay or not self._all(lambda queue: queue.ended)):
                with self._change:
                    self._change.wait(min(self.tick_s, LOOK_S))
                if (now := monotonic()) - checked >= self.tick_s:
                    checked = now
                    check()
                    self._check()
            if stop.is_set():
                self.until = monotonic() + ALL_S
            self._finish(STOP_S if stop.is_set() else DRAIN_S)

    def problems(self) -> list[str]:
        """Why no windows come from sources and why changed models are not used, one line each."""
        lines = [f"machine {id}: {queue.problem}" for id, queue in list(self.queues.items()) if queue.problem]
        return lines + [f"machine {m.id}: {m.model_problem}" for m in self.plant.machines.values() if m.model_problem]

    def _all(self, test: Callable[[MachineQueue], bool]) -> bool:
        return all(test(queue) for queue in list(self.queues.values()))

    def _start(self, machine: str) -> None:
        """Read the source of a machine in a thread."""
        queue = self.queues[machine]
        queue.health.start(self.plant.steady(), may_end=queue.source.finite)
        queue.thread = threading.Thread(target=self._read, args=(machine, queue), name=machine, daemon=True)
        queue.thread.start()

    def _finish(self, wait_s: float) -> None:
        """Close the sources and process the windows that wait, both for `wait_s` at most."""
        until = monotonic() + wait_s
        with self._change:
            self._running, queues = False, list(self.queues.values())
        for queue in queues:
            queue.stop.set()
        for queue in queues:
            if queue.thread is not None:
                queue.thread.join(max(0.0, until - monotonic()))
        with self._change:
            self._change.wait_for(lambda: self._all(MachineQueue.is_done), timeout=max(0.0, until - monotonic()))
        if left := sum(len(queue.waiting) for queue in queues):
            self.warn(f"{plural(left, 'window')} that had come could not be scored in time")
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _read(self, machine: str, queue: MachineQueue) -> None:
        """Put the windows of a source into the queue; open a source that fails again, until it is to stop."""
        wait_s = 0.0
        while not queue.stop.wait(wait_s):
            try:
                for window in queue.source.windows(queue.stop):
                    if window is not None:
                        self._put(machine, queue, window)
                break
            except Exception as error:  # the other sources go on
                wait_s = queue.health.on_failure(self.plant.steady(), str(error))
                queue.failure = f"its source has failed: {error}"
                self._warn_source(machine, queue)
        with self._change:
            if not queue.stop.is_set():
                queue.health.on_end()
            queue.ended = True
            self._change.notify_all()

    def _put(self, machine: str, queue: MachineQueue, window: Window) -> None:
        queue.failure = ""
        queue.health.on_window(self.plant.steady())
        with self._change:
            if not queue.source.live:
                self._change.wait_for(lambda: queue.stop.is_set() or not (queue.busy or queue.waiting))
            if queue.removed:
                return
            if len(queue.waiting) >= self.limit:
                queue.waiting.popleft()
                if queue.waiting:
                    queue.waiting[0] = replace(queue.waiting[0], gap=True)
                self.dropped += 1
                for meter in self.meters:
                    meter.count_dropped(machine)
            queue.waiting.append(window)
            if not queue.busy:
                queue.busy = True
                self._workers.submit(self._process, machine, queue)

    def _process(self, machine: str, queue: MachineQueue) -> None:
        """Process one window; the machine's next window then queues up behind the other machines'."""
        with self._change:
            if not queue.waiting:  # the machine has been removed
                queue.busy = False
                self._change.notify_all()
                return
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
        if self.plant.reports is not None:
            self.plant.reports.check()
        for m in self.plant.machines.values():
            self._warn_once(f"the model of {m.id}", m.model_problem and f"{m.id}: {m.model_problem}")
        for machine, queue in list(self.queues.items()):
            self.plant.check_source(machine)
            self._warn_source(machine, queue)
        self.plant.history.retry()
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
