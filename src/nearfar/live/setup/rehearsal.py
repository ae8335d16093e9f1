"""A day that recordings make: each is heard by its machine as if it had just been recorded, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nearfar import audio
from nearfar.detector import Detector
from nearfar.live.history.history import History
from nearfar.live.machine import Machine
from nearfar.live.plant import Plant
from nearfar.live.rules.alarm import Alarm
from nearfar.live.sources.windows import Window


def rehearse(
    history: History,
    detectors: Mapping[str, tuple[Path, Detector]],
    recordings: Mapping[str, Sequence[Path]],
    *,
    until: float,
    span_s: float,
) -> None:
    """Write the `span_s` before `until` into a history: the `recordings` of each machine, evenly spaced.

    `detectors` holds the folder and the detector of each machine. Each recording alone may alarm: it is an occasion
    of its own.
    """
    machines = []
    for id, (folder, detector) in detectors.items():
        alarm = Alarm(detector.threshold.value, on_delay=1, off_delay=1)
        machines.append(Machine(id, id, folder, detector, alarm, hop_s=detector.window_s))
    plant = Plant(machines, history, clock=lambda: until)
    for machine in machines:
        files = recordings[machine.id]
        for i, file in enumerate(files, 1):
            clip = audio.read(file, near=machine.detector.near, far=machine.detector.far)
            start = until - span_s * (1 - i / len(files)) - clip.seconds
            plant.process_window(machine.id, Window(start, clip.samples, clip.rate, name=file.name))
    plant.close()
