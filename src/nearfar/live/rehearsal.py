"""A day that recordings make: each is heard by its machine as if it had just been recorded, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nearfar import audio
from nearfar.detector import Detector
from nearfar.live.alarm import Alarm
from nearfar.live.history.history import History
from nearfar.live.machine import Machine
from nearfar.live.plant import Plant
from nearfar.live.sources.windows import Window


def rehearse(
    history: History,
    detectors: Mapping[str, tuple[Path, Detector]],
    recordings: Mapping[str, Sequence[Path]],
    *,
    until: float,
    every_s: float,
) -> None:
    """Write the day before `until` into a history: the `recordings` of each machine, one every `every_s`.

    `detectors` holds the folder and the detector of each machine.
    """
    machines = [
        Machine(id, id, folder, detector, Alarm(detector.threshold.value), hop_s=detector.window_s)
        for id, (folder, detector) in detectors.items()
    ]
    plant = Plant(machines, history, clock=lambda: until)
    for machine in machines:
        machine.use_detector(machine.detector)
        files = recordings[machine.id]
        for i, file in enumerate(files):
            clip = audio.read(file, near=machine.detector.near, far=machine.detector.far)
            samples = np.stack([clip.near] if clip.far is None else [clip.near, clip.far])
            start = until - every_s * (len(files) - i) + every_s - samples.shape[1] / clip.rate
            plant.process_window(machine.id, Window(start, samples, clip.rate, name=file.name))
    plant.close()
