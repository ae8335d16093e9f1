"""One machine of the plant: its detector, alarm, watchdog and last minute of sound, under one lock.

Machines of one process share encoders: each network is loaded once.
"""

from __future__ import annotations

import math
import re
import threading
from collections import UserDict
from collections.abc import Iterable, ValuesView
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.detector import Detector, load
from nearfar.detector.folder import Version, version
from nearfar.encoders import Encoder
from nearfar.encoders.loading import files_of, load_encoders
from nearfar.errors import NotFound
from nearfar.live.history.records import ScoreRecord
from nearfar.live.rules.alarm import Alarm
from nearfar.live.rules.evidence import FEWEST_SESSIONS, PER_SESSION, design
from nearfar.live.rules.health import SourceHealth
from nearfar.live.rules.lamp import FILES, HOUR_S, Lamp
from nearfar.live.rules.loudness import Loudness
from nearfar.live.rules.rhythm import Listening, Rhythm, all_day
from nearfar.live.rules.setpoint import MOST_RATE, PER_WEEK, expected_alarms, set_point
from nearfar.live.rules.trend import Ramp, Trend
from nearfar.live.rules.watchdog import Watchdog
from nearfar.live.sources.open import is_folder
from nearfar.live.sources.windows import RingBuffer, Starts
from nearfar.support.check import number

if TYPE_CHECKING:
    from nearfar.live.config import MachineConfig

SILENCE_S, SILENCE_HOPS = 30.0, 3  # a stream is silent after the longer of both
FOLDER_QUIET_S = 86_400.0  # a folder without a new file for a day is shown as quiet
EVIDENCE_SHARE = 10  # of the promised false alarms one in this many may come from faint changes that last
BUFFER_S = 60.0  # of sound in memory, for the audio of events
MISSED = 3  # looks at a model folder that is not there, before it is called gone
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10))}
Shared = dict[tuple[str, ...], Encoder]  # loaded encoders by name, file and expected hash of the weights


@dataclass(eq=False)
class Machine:
    """A machine under watch, made by `open_machine`; `lock` guards the fields that change while it runs."""

    id: str
    name: str
    model: Path
    detector: Detector
    alarm: Alarm
    site: str = "plant"
    hop_s: float = 0.0
    weights: Any = None
    device: str = "cpu"  # of its networks
    shared: Shared = field(default_factory=dict, repr=False)
    folder: Path | None = None  # that it listens to
    streamed: bool = False  # the machine is scored all the time, so its set-point allows few false alarms
    adds_up: bool = False  # faint changes that last raise alarms
    configured_per_week: float | None = None  # most false alarms a week; overrides the set-point of the model
    loud_db: float = 0.0  # above the normals, for the alarm of `loudness`
    source_health: SourceHealth = field(default_factory=SourceHealth)
    health: dict[str, str] = field(default_factory=dict)  # {kind: text} of the problems that stand, as last reported
    buffer: RingBuffer = field(default_factory=RingBuffer, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    starts: Starts = field(default_factory=Starts, repr=False)  # of recordings that are sent
    last: ScoreRecord | None = None
    lamp: Lamp = field(default_factory=lambda: Lamp(FILES))
    trend: Trend = field(default_factory=Trend, repr=False)
    ramp: Ramp | None = None  # the slow rise that is plain now
    outdated: bool = False  # the model folder needs another source, so that the machine is to be opened anew
    _refused: Version = ()  # of the model folder that cannot be used
    _missed: int = 0  # looks at the model folder in a row that found none
    recipe: str = ""  # encoder/view of each recipe of the detector
    model_problem: str = ""  # why the model folder, which has changed, cannot be used; the detector stays
    listening: Listening | None = None  # how the windows of the last days came

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.detector.band_levels)
        self.use_detector(self.detector)

    @property
    def rhythm(self) -> Rhythm:
        """How often the machine is heard: as its history shows, else without a gap."""
        known = self.listening and self.listening.rhythm(self.detector.window_s, self.alarm.on_delay)
        return known or all_day(self.detector.window_s, self.hop_s, self.alarm.on_delay)

    def heard(self, listening: Listening | None) -> None:
        """Take the rhythm of the last days, which moves the set-point unless somebody chose it."""
        self.listening = listening
        self.use_detector(self.detector)

    def use_detector(self, detector: Detector) -> None:
        """Score with this detector from now on, sharing the encoders that are loaded."""
        share_encoders(detector, self.weights, self.shared)
        before = self.detector.unusual_threshold, self.detector.normals
        self.detector = detector
        self.watchdog.band_levels = detector.band_levels
        self.loudness = Loudness(detector.band_levels, self.loud_db)
        if self.configured_per_week is not None:  # the set-point in the model folder does not change
            rate = min(self.configured_per_week / self.rhythm.per_week(1.0), MOST_RATE)
            detector.threshold = detector.threshold_for(rate)
        elif self.streamed:
            detector.threshold = set_point(detector, self.rhythm)
        self.alarm.on = detector.threshold.value
        if self.adds_up and self.streamed:
            p, rhythm = np.exp(detector.tail.log_p(detector.train_values)), self.rhythm
            often = min(self.false_alarms_per_week, PER_WEEK) / EVIDENCE_SHARE
            overlap = rhythm.windows_per_day / rhythm.clips_per_day
            per_session = min(often / 14, PER_SESSION)  # with a session a day, half of the alarms that may come
            self.alarm.evidence = design(p, detector.sessions, overlap, 7 * rhythm.windows_per_day / often, per_session)
        if (detector.unusual_threshold, detector.normals) != before:
            self.lamp = self.lamp.fresh()  # it counts windows that other normals called unusual
        self.lamp.share = detector.unusual_rate
        self.recipe = "+".join(sorted({f"{r.encoder}/{r.view}" for r in detector.recipes}))

    def reload(self) -> bool:
        """Use the detector in the model folder if another process has written it; returns whether that was so.

        A detector that needs other windows, channels or sample rates is not used: the machine is then `outdated`.
        """
        found = version(self.model)
        known = None if self.detector.saved is None else self.detector.saved[1]
        self._missed = 0 if found else self._missed + 1  # once: the folder is being replaced
        if self._missed >= MISSED:
            self._refused = ()
            self.model_problem = f"{self.model} has gone, or lacks a file: its detector goes on until a restart"
        elif found == known:
            self.model_problem = ""
        if not found or found in (known, self._refused):
            return False
        try:
            detector = load(self.model, self.weights, device=self.device, threads=1)
        except (ValueError, OSError) as error:
            self._refused = found
            self.model_problem = f"the detector of before is used, as {self.model} cannot be: {error}"
            return False
        self.model_problem = ""
        self.outdated = source_needs(detector) != source_needs(self.detector)
        if self.outdated:
            return False
        self.use_detector(detector)
        return True

    @property
    def false_alarms_per_week(self) -> float:
        """The most false alarms a week that the set-point allows."""
        return self.rhythm.per_week(self.detector.threshold.rate)

    def expected_alarms(self) -> list[str]:
        """The set-point in words, and the false alarms to expect."""
        lines = expected_alarms(self.detector, self.detector.threshold, self.rhythm, self.alarm)
        if self.adds_up and self.streamed and self.alarm.evidence is None:
            lines.append(
                "faint changes that last raise no alarm yet: that needs normals of "
                f"{FEWEST_SESSIONS} sessions or more, told by file names, folders or times"
            )
        return lines


class Machines(UserDict[str, Machine]):
    """Machines by their ids; a missing id is a NotFound that lists the ids.

    A change replaces the whole table, so that other threads may iterate meanwhile.
    """

    def __missing__(self, id: str) -> Machine:
        raise NotFound(f"there is no machine {id!r}; there are: {', '.join(self)}")

    def __setitem__(self, id: str, machine: Machine) -> None:
        self.data = {**self.data, id: machine}

    def __delitem__(self, id: str) -> None:
        self.data = {other: machine for other, machine in self.data.items() if other != id}

    def get(self, id: str, default: Any = None) -> Any:
        """The machine with this id, or `default`."""
        return self.data.get(id, default)

    def values(self) -> ValuesView[Machine]:
        """The machines as they are now."""
        return self.data.values()


def source_needs(detector: Detector) -> tuple[object, ...]:
    """What the source of a detector depends on: windows, channels and the sample rate."""
    rates = [encoder.sample_rate for encoder in detector.encoders.values()]
    return detector.window_s, detector.whole_s, detector.near, detector.far, max(rates)


def check_name(what: str, word: str, others: Iterable[str] = ()) -> None:
    """ValueError if a name cannot be a topic and a file name on every system, beside those of the `others`."""
    if not NAME.fullmatch(word):
        raise ValueError(f"{what} {word!r} must be letters, digits, - and _ (it becomes a topic and a file name)")
    if word.upper() in RESERVED:
        raise ValueError(f"{what} {word!r} cannot be a file name on Windows: choose another one")
    if alike := [other for other in others if other != word and other.lower() == word.lower()]:
        raise ValueError(
            f"{what} {word!r} would share its files with {alike[0]!r} on a disk that ignores case: choose another one"
        )


def open_machine(id: str, config: MachineConfig, *, site: str = "plant", shared: Shared | None = None) -> Machine:
    """The machine that the detector in the folder `config.model` scores; `shared` are the encoders of other machines.

    The set-point is the model's own, or with `false_alarms_per_week` the one that makes at most this many. With a
    source, a set-point that nobody chose is replaced by one for a machine that is scored all the time (`setpoint`).
    ValueError if the id cannot be a file name; otherwise raises what `nearfar.load` raises.
    """
    check_name("machine id", id)
    check_name("site", site)
    # machines are scored in parallel, each one in order
    detector = load(config.model, config.weights, device=config.device, threads=1)
    if config.hop_s is not None:
        number("hop_s", config.hop_s, above=0, high=detector.window_s)  # above: sound between windows would be missed
    folder = is_folder(config.source)  # windows of files do not overlap, and a folder may stay empty
    hop_s = detector.window_s if folder else config.hop_s or detector.window_s / 2
    silence_s = math.inf if folder else max(SILENCE_S, SILENCE_HOPS * hop_s)
    settings = config.alarm
    return Machine(
        id=id,
        name=config.name or id,
        model=config.model,
        detector=detector,
        alarm=Alarm(
            detector.threshold.value, settings.deadband, settings.on_delay, settings.off_delay, settings.within
        ),
        site=site,
        hop_s=hop_s,
        weights=config.weights,
        device=config.device,
        shared={} if shared is None else shared,
        folder=Path(config.source[0]) if folder else None,
        streamed=bool(config.source),
        adds_up=settings.evidence,
        configured_per_week=settings.false_alarms_per_week,
        loud_db=settings.loud_db,
        source_health=SourceHealth(config.silence_s or silence_s, FOLDER_QUIET_S if folder else SILENCE_HOPS * hop_s),
        buffer=RingBuffer(max(BUFFER_S, 2 * detector.window_s)),
        lamp=Lamp(FILES if folder else math.ceil(HOUR_S / hop_s), detector.window_s / hop_s, settings.on_delay),
    )


def share_encoders(detector: Detector, weights: Any, shared: Shared) -> None:
    """Give a detector the encoders in `shared`, loading those that are missing."""
    encoders = {}
    names = sorted({recipe.encoder for recipe in detector.recipes})
    files = files_of(names, weights)
    for name in names:
        file = files.get(name)
        expected = {n: weights for n, weights in detector.weights_known.items() if n == name}
        key = (name, detector.device, str(file), *map(str, expected.values()))
        if key not in shared:
            loaded = load_encoders([name], {name: file}, expected, device=detector.device, threads=detector.threads)
            shared[key] = loaded[name]
        encoders[name] = shared[key]
    detector.use_encoders(encoders)
