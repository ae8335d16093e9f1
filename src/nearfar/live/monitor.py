"""Sources -> plant: a thread per source, a bounded queue per machine, a few workers, and a watch on all of them.

    source --thread--> queue (`QUEUE` windows; the oldest is dropped, counted, and leaves a gap) --worker--> Plant.take

One machine's windows are taken in order, one at a time; machines share the workers. Sources that wait for us (folders)
are never dropped from. Whatever fails (a stream, a disk, a sink, one window) is said and survived. `run` returns when
all sources are exhausted or `stop` is set; what is in the queues is still heard.
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

from nearfar.live.plant import Plant, end_left_open
from nearfar.live.sources.open import Source
from nearfar.live.sources.windows import Window

QUEUE = 24
TICK_S = 1.0
DRAIN_S = 30.0

Complain = Callable[[str], None]


class Meter(Protocol):
    """What the monitor counts and measures; `sinks.prometheus.Metrics` is one."""

    def dropped(self, machine: str) -> None: ...
    def failed(self, machine: str) -> None: ...
    def took(self, machine: str, seconds: float, lag_s: float) -> None: ...


@dataclass(eq=False)
class MachineQueue:
    """What waits for one machine."""

    source: Source
    waiting: deque[Window] = field(default_factory=deque)
    busy: bool = False
    ended: bool = False
    failed: str = ""  # why it ended, if not because it was exhausted
    last: float = 0.0  # when something came

    @property
    def trouble(self) -> str:
        """Why nothing comes, or ""."""
        return self.failed or self.source.problem

    def is_done(self) -> bool:
        """Whether nothing comes any more and all that came has been heard."""
        return self.ended and not self.busy and not self.waiting


class Monitor:
    """Listens to `sources` {machine id: source} for a plant; `clock` as the plant's, `complain` is told of trouble."""

    def __init__(
        self,
        plant: Plant,
        sources: Mapping[str, Source],
        *,
        complain: Complain,
        meters: tuple[Meter, ...] = (),
        workers: int | None = None,
        queue: int = QUEUE,
        tick_s: float = TICK_S,
        steady: Callable[[], float] = monotonic,
    ) -> None:
        self.plant, self.complain, self.meters, self.queue, self.tick_s = plant, complain, meters, queue, tick_s
        self.steady = steady  # how long nothing came: the plant's clock may be set
        self.lines = {machine: MachineQueue(source) for machine, source in sources.items()}
        self.dropped = self.failed = 0
        self._said: dict[str, str] = {}  # what was complained about last, by subject
        self._workers = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="nearfar-hear")
        self._change = threading.Condition()

    def run(self, stop: threading.Event) -> None:
        """Listen until every source has ended or `stop` is set."""
        end_left_open(self.plant)
        for machine, line in self.lines.items():
            line.last = self.steady()
            threading.Thread(target=self._listen, args=(machine, line, stop), name=machine, daemon=True).start()
        while not stop.is_set() and not self._all(lambda line: line.ended):
            with self._change:
                self._change.wait(self.tick_s)
            self._watch()
        with self._change:  # what has come is heard to its end
            self._change.wait_for(lambda: self._all(MachineQueue.is_done), timeout=DRAIN_S)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def troubles(self) -> list[str]:
        """Why nothing comes from sources, in words."""
        return [f"machine {machine}: {line.trouble}" for machine, line in self.lines.items() if line.trouble]

    def _all(self, test: Callable[[MachineQueue], bool]) -> bool:
        return all(test(line) for line in self.lines.values())

    def _listen(self, machine: str, line: MachineQueue, stop: threading.Event) -> None:
        try:
            for window in line.source.windows(stop):
                if window is not None:
                    self._put(machine, line, window)
        except Exception as error:  # a source that cannot go on: the others do
            line.failed = f"its source has failed: {error}"
            self._say_source(machine, line)
        finally:
            with self._change:
                line.ended = True
                self._change.notify_all()

    def _put(self, machine: str, line: MachineQueue, window: Window) -> None:
        with self._change:
            if not line.source.live:
                self._change.wait_for(lambda: not line.busy and not line.waiting)
            if len(line.waiting) >= self.queue:
                line.waiting.popleft()
                if line.waiting:
                    line.waiting[0] = replace(line.waiting[0], gap=True)
                self.dropped += 1
                for meter in self.meters:
                    meter.dropped(machine)
            line.waiting.append(window)
            line.last = self.steady()
            if not line.busy:
                line.busy = True
                self._workers.submit(self._work, machine, line)

    def _work(self, machine: str, line: MachineQueue) -> None:
        """One window, and then the next in line behind the other machines'."""
        with self._change:
            window = line.waiting.popleft()
        start = perf_counter()
        try:
            self.plant.take(machine, window)
            took = perf_counter() - start
            for meter in self.meters:
                meter.took(machine, took, self.plant.clock() - window.t1)
        except Exception as error:  # a window that cannot be taken must not end the watch
            self.failed += 1
            for meter in self.meters:
                meter.failed(machine)
            self._say(machine, f"{machine}: a window could not be heard: {type(error).__name__}: {error}")
        with self._change:
            line.busy = bool(line.waiting)
            if line.busy:
                self._workers.submit(self._work, machine, line)
            self._change.notify_all()

    def _watch(self) -> None:
        for machine, line in self.lines.items():
            silent_s = self.steady() - line.last
            if (line.failed or not line.ended) and silent_s > self.tick_s:
                self.plant.silent(machine, self.plant.clock(), silent_s)
            self._say_source(machine, line)
        self._say("history", self.plant.history.problem)
        for sink in self.plant.sinks:
            self._say(sink.name, sink.problem)

    def _say_source(self, machine: str, line: MachineQueue) -> None:
        self._say(f"the source of {machine}", f"{machine}: {line.trouble}" if line.trouble else "")

    def _say(self, about: str, text: str) -> None:
        """Complain once of each trouble, not every second, and say when it is over."""
        if text != self._said.get(about, ""):
            self._said[about] = text
            self.complain(text or f"{about} is well again")
