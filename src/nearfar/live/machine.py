"""One machine of the plant: its detector, alarm, watchdog and last minute of sound, under one lock.

Machines of one process share encoders: a network is loaded once, whoever needs it.
"""

from __future__ import annotations

import math
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfar.detector import Detector, load
from nearfar.embedding.band_levels import BandLevels
from nearfar.encoders import Encoder
from nearfar.encoders.loading import files_of, load_encoders
from nearfar.live.alarm import NORMAL, Alarm, per_week, rate_for
from nearfar.live.records import Event, Scored
from nearfar.live.setpoint import in_words, set_point
from nearfar.live.sources.windows import RingBuffer
from nearfar.live.watchdog import Watchdog
from nearfar.support.check import number
from nearfar.threshold import from_normals

ROLL_S = 60.0  # of sound that is remembered, so that an event has its audio
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Shared = dict[tuple[str, ...], Encoder]  # by name, file, and what a detector knows of the weights


@dataclass(eq=False)
class Machine:
    """A machine that is listened to; `open` makes one from a detector folder. The second half changes while it runs."""

    id: str
    name: str
    model: Path
    detector: Detector
    alarm: Alarm
    site: str = "plant"
    hop_s: float = 0.0
    weights: Any = None
    shared: Shared = field(default_factory=dict, repr=False)
    streamed: bool = False  # heard all the time: alarms are to be rare
    asked_per_week: float | None = None  # false alarms, at most, whatever the model says
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(BandLevels()))
    roll: RingBuffer = field(default_factory=RingBuffer, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    last: Scored | None = None
    top: Scored | None = None  # the highest score since the last window that did not cross
    event: Event | None = None  # the alarm that stands
    taping: Event | None = None  # the event whose audio is not complete, and when it will be
    tape_due: float = math.inf
    trouble: Event | None = None  # the health event that stands
    ailments: set[str] = field(default_factory=set)  # the kinds of trouble that were told last
    sampled: int = -1  # the hour of the last sample
    said: str = NORMAL  # the state that was told last
    recipe: str = ""  # what hears, in short

    def use_detector(self, detector: Detector) -> None:
        """Listen with this detector from now on, sharing the encoders that are loaded."""
        share(detector, self.weights, self.shared)
        self.detector = detector
        self.watchdog.profile = detector.profile
        if self.asked_per_week is not None:  # here alone, as the next: the folder's own set-point stays what it is
            rate = rate_for(self.asked_per_week, self.hop_s, self.alarm.on_delay)
            detector.threshold = from_normals(detector.train_values, rate, detector.method)
        elif self.streamed:
            detector.threshold = set_point(detector, self.hop_s, self.alarm.on_delay)
        self.alarm.on = detector.threshold.value
        self.recipe = "+".join(sorted({f"{r.encoder}/{r.view}" for r in detector.recipes}))

    @property
    def false_alarms_per_week(self) -> float:
        """At most so many, by the set-point as it is."""
        return per_week(self.detector.threshold.rate, self.hop_s, self.alarm.on_delay)

    def promise(self) -> list[str]:
        """The set-point in words, and what to expect of it."""
        return in_words(self.detector, self.detector.threshold, self.hop_s, self.alarm.on_delay)


class Machines(dict[str, Machine]):
    """Machines by their ids; KeyError naming those that there are."""

    def __missing__(self, id: str) -> Machine:
        raise KeyError(f"there is no machine {id!r}; there are: {', '.join(self)}")


def open_machine(
    id: str,
    model: str | os.PathLike[str],
    *,
    name: str = "",
    site: str = "plant",
    weights: Any = None,
    hop_s: float | None = None,
    deadband: float = 0.5,
    on_delay: int = 3,
    off_delay: int = 5,
    false_alarms_per_week: float | None = None,
    streamed: bool = False,
    shared: Shared | None = None,
) -> Machine:
    """A machine that listens with the detector in the folder `model`; `shared` holds encoders that are loaded already.

    The set-point is the model's own, or with `false_alarms_per_week` the one that makes at most so many; `streamed`
    replaces one that nobody chose by what is right for a machine that is heard all the time (`promise`). Raises
    ValueError for an id that is no plain name, and what `nearfar.load` raises.
    """
    for what, word in (("machine id", id), ("site", site)):
        if not NAME.fullmatch(word):
            raise ValueError(f"{what} {word!r} must be letters, digits, - and _ (it becomes a topic and a file name)")
    detector = load(model, weights, threads=1)  # machines are heard side by side, not the windows of one
    if hop_s is not None:
        number("hop_s", hop_s, above=0, high=detector.window_s)  # what lies between windows would not be heard
    hop_s = hop_s or detector.window_s / 2
    machine = Machine(
        id=id,
        name=name or id,
        model=Path(model),
        detector=detector,
        alarm=Alarm(detector.threshold.value, deadband, on_delay, off_delay),
        site=site,
        hop_s=hop_s,
        weights=weights,
        shared={} if shared is None else shared,
        streamed=streamed,
        asked_per_week=false_alarms_per_week,
        watchdog=Watchdog(detector.profile),
        roll=RingBuffer(max(ROLL_S, 2 * detector.window_s)),
    )
    machine.use_detector(detector)
    return machine


def share(detector: Detector, weights: Any, shared: Shared) -> None:
    """Give a detector encoders from `shared`, loading those that are not there yet."""
    encoders = {}
    names = sorted({recipe.encoder for recipe in detector.recipes})
    files = files_of(names, weights)
    for name in names:
        file = files.get(name)
        known = {n: digest for n, digest in detector.weights_known.items() if n == name}
        key = (name, str(file), *known.values())
        if key not in shared:
            one = load_encoders([name], {name: file}, known, device=detector.device, threads=detector.threads)
            shared[key] = one[name]
        encoders[name] = shared[key]
    detector.__dict__["encoders"] = encoders  # the cached property
