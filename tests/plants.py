"""A small plant to test with: a humming machine in windows of two seconds, its detector, and a sink that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import monotonic

import numpy as np

from conftest import RATE, hum
from nearfar.detector import Detector
from nearfar.live.config import AlarmConfig, MachineConfig
from nearfar.live.history.history import History
from nearfar.live.machine import Machine, open_machine
from nearfar.live.plant import Plant
from nearfar.live.rules.alarm import RAISED, Alarm
from nearfar.live.sinks.messages import Message
from nearfar.live.sources.windows import Window

T0 = 1_800_000_000.0


class Remember:
    """A sink that keeps its messages."""

    name, problem = "memory", ""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def put(self, message: Message) -> None:
        self.messages.append(message)

    def close(self, wait_s: float = 0.0) -> None:
        pass

    def values(self, kind: str, key: str) -> list[object]:
        """A field of all messages of a kind."""
        return [m.body()[key] for m in self.messages if m.kind == kind]


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def fitted(folder: Path, clips: Sequence[object]) -> Path:
    """A detector folder fitted on clips, with a set-point well above them (faults of `hum` score 15 to 30)."""
    detector = Detector(threads=1).fit(clips)
    detector.set_threshold(value=6.0)
    return detector.save(folder)


def configured(
    model: Path, *, streamed: bool = False, false_alarms_per_week: float | None = None, **options: object
) -> MachineConfig:
    """The configuration of a machine; `streamed`: with a source that is never opened."""
    alarm = AlarmConfig(false_alarms_per_week=false_alarms_per_week)
    return MachineConfig(model=model, source=("-",) if streamed else (), alarm=alarm, **options)


def plant_of(
    model: Path,
    folder: Path,
    *ids: str,
    clock: Callable[[], float] | None = None,
    steady: Callable[[], float] = monotonic,
    **options: object,
) -> tuple[Plant, Remember, Clock]:
    """A plant of machines that all have one model, with a sink and its clock."""
    shared: dict[tuple[str, str], object] = {}
    machines: list[Machine] = [open_machine(i, configured(model, **options), shared=shared) for i in ids or ("pump",)]
    sink, clock = Remember(), clock or Clock()
    return Plant(machines, History(folder), [sink], clock=clock, steady=steady), sink, clock


def sound(seed: int, fault: str = "", seconds: float = 2.0) -> np.ndarray:
    """(2, N) of a humming machine."""
    clip = hum(seed, fault=fault, seconds=seconds)
    return np.stack([clip.near, clip.far])


def windows(faults: Sequence[str], start: float = T0, seconds: float = 2.0, seed: int = 5000) -> list[Window]:
    """One window after the other, each healthy ("") or with a fault; "dead" is a silent microphone."""
    out = []
    for i, fault in enumerate(faults):
        samples = np.zeros((2, int(seconds * RATE))) if fault == "dead" else sound(seed + i, fault, seconds)
        out.append(Window(start + i * seconds, samples.astype(np.float32), RATE))
    return out


def count_alarms(values: Iterable[float], on: float, alarm: Alarm) -> tuple[int, int]:
    """(alarms, windows in alarm) of scores, one after the other, with the deadband and delays of `alarm`."""
    fresh, raised, windows = alarm.fresh(on), 0, 0
    for value in values:
        raised += fresh.update(value, 0.0) == RAISED
        windows += fresh.standing
    return raised, windows
