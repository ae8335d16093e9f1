"""Sounds and pictures for the pages: events, and the normals to play beside them. No path is ever taken from a request.

A normal is played if the file that it was fitted from is still there and is still that recording, by its sha256: a
model folder cannot make the server read other files aloud. Everything is decoded and written anew as WAV.
"""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.detector import Detector
from nearfar.embedding.embedder import Origin
from nearfar.explain.evidence import neighbours, recording
from nearfar.explain.wording import Explanation
from nearfar.live.operator import is_written_here
from nearfar.live.plant import Plant
from nearfar.live.records import Event
from nearfar.support.check import Array
from nearfar.support.files import sha256_of

PLAY_PEAK = 0.7
MOST_DB = 60
Kept = TypeVar("Kept")
REMEMBERED = 16  # explanations, with their pictures


def normal_clip(normal: Origin, detector: Detector) -> Clip | None:
    """The sound of a normal, or None if its file is gone or is another."""
    if not is_still_there(normal):
        return None
    channels = (0, 1) if is_written_here(normal) else (detector.near, detector.far)
    return recording(neighbours([0.0], [normal])[0], channels)


def is_still_there(normal: Origin) -> bool:
    """Is the file of a normal on disk, and the recording that it was?"""
    path = Path(normal.path)
    if not normal.path or not path.is_file():
        return False
    return sha256_of(path) == normal.sha256


def gain_db(clips: Sequence[Clip | None]) -> int:
    """How much louder, in whole dB, these can be played together without clipping."""
    peaks = [float(np.abs(x).max()) for c in clips if c for x in (c.near, c.far) if x is not None]
    peak = max(peaks, default=0.0)
    return min(MOST_DB, math.floor(20 * math.log10(PLAY_PEAK / peak))) if peak > 0 else 0


def wav(wave: Array, rate: int, gain: float) -> bytes:
    """A channel (N,) as a WAV file, `gain` dB louder."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(wave * np.float32(10 ** (gain / 20)), -1, 1), rate, subtype="PCM_16", format="WAV")
    return out.getvalue()


class ExplanationCache:
    """What an event sounds like and why it alarmed; the last few are remembered. Thread-safe."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self._lock = threading.Lock()  # one explanation at a time: they are heavy, and pages ask for the same one twice
        self._kept: OrderedDict[tuple[object, ...], Explanation] = OrderedDict()
        self._drawn: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def clip(self, event: Event, *, whole: bool = False) -> Clip:
        """The window at the event's peak, or all that was kept. FileNotFoundError if it is not kept any more."""
        path = self.plant.history.event_audio.path(event.audio)
        if path is None:
            raise FileNotFoundError(f"the sound of event {event.id} is not kept (any more)")
        if whole:
            return audio.read(path)
        rate = audio.header(path).rate
        size = round(self.plant.machines[event.machine].detector.window_s * rate)
        length = round(audio.seconds(path) * rate)
        start = min(max(0, round((event.peak_t0 - event.audio_t0) * rate)), max(0, length - size))
        return audio.read(path, start=start, frames=size)

    def explanation(self, event: Event) -> Explanation:
        """Where and why the event's peak differs from the normals as they are now."""
        with self._lock:
            return self._explanation(event)

    def picture(self, event: Event, *, dark: bool) -> bytes:
        """The spectrogram beside a normal's, PNG. ImportError without matplotlib."""
        from nearfar.explain.pictures import spectrogram_png

        with self._lock:
            key = (*self._key(event), dark)
            if key not in self._drawn:
                found = self._explanation(event)
                assert found.clip is not None
                _keep(self._drawn, key, spectrogram_png(found.clip, found, dark=dark))
            return self._drawn[key]

    def nearest(self, event: Event) -> list[Origin]:
        """The normals to play beside an event, most alike first."""
        detector, found = self.plant.machines[event.machine].detector, self.explanation(event)
        places = {(n.name, n.path): n for n in detector.normals}
        return [places[n.name, n.path] for n in found.nearest if (n.name, n.path) in places]

    def _explanation(self, event: Event) -> Explanation:
        key = self._key(event)
        if key not in self._kept:
            _keep(self._kept, key, self.plant.machines[event.machine].detector.explain(self.clip(event)))
        return self._kept[key]

    def _key(self, event: Event) -> tuple[object, ...]:
        return (event.id, event.peak_t0, event.audio, event.audio_t0, self.plant.machines[event.machine].detector)


def _keep(kept: OrderedDict[tuple[object, ...], Kept], key: tuple[object, ...], value: Kept) -> None:
    kept[key] = value
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)
