"""Sounds and explanations of events, and the sounds of normals. No path is ever taken from a request.

A normal is played only if its file still exists and still has the sha256 that it had when the detector was fitted, so
that a forged model folder cannot make the server send other files. Every sound is decoded and written anew as WAV.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from nearfar import audio
from nearfar.audio import Clip
from nearfar.detector import Detector
from nearfar.embedding.embedder import Origin
from nearfar.errors import NotFound
from nearfar.explain.evidence import neighbours, recording
from nearfar.explain.wording import Explanation
from nearfar.live.history.archive import peak_clip, sent_name
from nearfar.live.history.history import History
from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.language import translated
from nearfar.live.machine import Machine
from nearfar.live.operator import is_written_here
from nearfar.live.plant import Plant
from nearfar.support.files import hash_file

CACHED = 16  # explanations, and pictures, that are kept
Value = TypeVar("Value")
Key = tuple[object, ...]


def normal_clip(normal: Origin, detector: Detector) -> Clip | None:
    """The sound of a normal, or None if its file is gone or has changed."""
    if not is_unchanged(normal):
        return None
    channels = (0, 1) if is_written_here(normal) else (detector.near, detector.far)
    return recording(neighbours([0.0], [normal])[0], channels)


def is_unchanged(normal: Origin) -> bool:
    """Whether the file of a normal still exists and has the same content."""
    path = Path(normal.path)
    if not normal.path or not path.is_file():
        return False
    now = path.stat()
    return _hash(str(path), now.st_mtime_ns, now.st_size) == normal.sha256


def is_stream(machine: Machine) -> bool:
    """Whether a machine listens to a stream, whose windows are of no file."""
    return machine.streamed and machine.folder is None


def sound_path(history: History, machine: Machine, row: ScoreRecord) -> Path | None:
    """The file with the sound of a window: in the machine's folder, as it was sent, or a sample of a stream."""
    if machine.folder is not None and row.file:
        path = (machine.folder / row.file).resolve()
        return path if path.is_relative_to(machine.folder.resolve()) and path.is_file() else None
    sample = history.samples.path(machine.id, row.t0)
    return history.sent_audio.path(sent_name(machine.id, row.t0)) or (sample if sample.is_file() else None)


def heard_clip(path: Path, machine: Machine, at: float) -> Clip:
    """The sound of a window: of a file in the machine's folder, from `at` s on; else the file has it alone."""
    if machine.folder is None:
        return audio.read(path)
    detector, rate = machine.detector, audio.header(path).rate
    long = audio.seconds(path) > detector.whole_s
    size = round(detector.window_s * rate) if long else -1
    start = round(at * rate) if long else 0
    return audio.read(path, near=detector.near, far=detector.far, start=start, frames=size)


def nearest_normals(explained: Explanation, detector: Detector) -> list[Origin]:
    """The normals that an explanation names, most similar first."""
    normals = {(n.name, n.path): n for n in detector.normals}
    return [normals[n.name, n.path] for n in explained.nearest if (n.name, n.path) in normals]


def nearest_clips(explained: Explanation, detector: Detector) -> dict[str, Clip | None]:
    """The sounds of those normals by their names; None for one whose file is gone or has changed."""
    return {n.name: normal_clip(n, detector) for n in nearest_normals(explained, detector)}


class ExplanationCache:
    """Sounds, explanations and pictures of events; the newest explanations and pictures are kept. Thread-safe."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self._lock = threading.RLock()  # one at a time: an explanation is expensive, and pages request each one twice
        self._explanations: dict[Key, Explanation] = {}
        self._pictures: dict[Key, bytes] = {}

    def recording(self, event: Event) -> Path:
        """The file with the sound of an event; NotFound if it has been deleted."""
        path = self.plant.history.event_audio.path(event.audio)
        if path is None:
            raise NotFound(f"the sound of event {event.id} has been deleted, or was never recorded")
        return path

    def clip(self, event: Event, *, whole: bool = False) -> Clip:
        """The window at the peak of an event, or its whole recording; NotFound if it has been deleted."""
        path = self.recording(event)
        if whole:
            return audio.read(path)
        window_s = self.plant.machines[event.machine].detector.window_s
        return peak_clip(path, event.peak_t0 - event.audio_t0, window_s)

    def explanation(self, event: Event) -> Explanation:
        """Where and why the peak of an event differs from the normals that the machine has now."""
        detector = self.plant.machines[event.machine].detector
        with self._lock:
            return _cached(self._explanations, self._key(event), lambda: detector.explain(self.clip(event)))

    def picture(self, kind: str, event: Event, *, dark: bool, language: str) -> bytes:
        """A picture of an event, PNG, in a language. ImportError without matplotlib.

        `kind`: its "spectrogram" above that of a normal, or its "change" against usual over time and pitch.
        """
        from nearfar.explain.pictures import deviation_png, spectrogram_png

        def draw() -> bytes:
            explained, say = self.explanation(event), partial(translated, language=language)
            if kind == "change":
                return deviation_png(explained, dark=dark, say=say)
            assert explained.clip is not None
            return spectrogram_png(explained.clip, explained, dark=dark, say=say)

        with self._lock:
            return _cached(self._pictures, (*self._key(event), dark, language, kind), draw)

    def nearest(self, event: Event) -> list[Origin]:
        """The normals that are most similar to an event, most similar first."""
        return nearest_normals(self.explanation(event), self.plant.machines[event.machine].detector)

    def _key(self, event: Event) -> Key:
        return (event.id, event.peak_t0, event.audio, event.audio_t0, self.plant.machines[event.machine].detector)


def _cached(cache: dict[Key, Value], key: Key, compute: Callable[[], Value]) -> Value:
    """The value for `key`, computed if it is not in `cache`; the oldest of more than CACHED values is dropped."""
    if key not in cache:
        cache[key] = compute()
        if len(cache) > CACHED:
            del cache[next(iter(cache))]
    return cache[key]


@lru_cache(maxsize=4096)
def _hash(path: str, changed: int, size: int) -> str:
    return hash_file(path)
