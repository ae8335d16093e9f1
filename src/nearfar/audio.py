"""Recordings: a file or arrays -> `Clip`, near and far microphone at one rate (report section 2.3).

    near, far   (N,) float32, full scale = 1; far is None for a mono recording
    rate        Hz

Channel 0 is near and channel 1 is far unless said otherwise, as in the challenge's data. Read by libsndfile (WAV with
8 to 32 bits or float, FLAC, OGG, ...), resampled by soxr (HQ). Long files are read a window at a time, never whole.
`problems` says what is wrong with a clip as a recording: a dead microphone must never pass for a normal machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.check import Array, finite, number

SHORTEST_S = 0.1  # below this there is nothing to hear
LONG_S = 30.0  # files longer than this are taken as windows of WINDOW_S
WINDOW_S = 10.0
SILENT_RMS = 2e-5  # -94 dB of full scale: below one step of 16 bits
SATURATED = 0.2  # share of samples at the extremes above which a clip cannot be judged
CLIPPED = 1e-4  # share at full scale above which clipping is worth a warning


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file, what was found and the likely cause."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording: `near` (N,) and optionally `far` (N,) float32 at `rate` Hz. Raises ValueError if they don't fit."""

    near: Array
    far: Array | None = None
    rate: int = 16_000
    name: str = "clip"

    def __post_init__(self) -> None:
        number(f"the rate of {self.name!r}", self.rate, above=0)
        for channel in ("near", "far"):
            if getattr(self, channel) is not None:
                x = finite(f"the {channel} channel of {self.name!r}", getattr(self, channel), ndim=1)
                object.__setattr__(self, channel, x.astype(np.float32, copy=False))
        if self.far is not None and self.far.shape != self.near.shape:
            raise ValueError(f"{self.name!r}: near has {len(self.near)} samples and far {len(self.far)}; they must agree")
        if self.seconds < SHORTEST_S:
            raise AudioError(f"{self.name!r} lasts {self.seconds:.3f} s; at least {SHORTEST_S} s are needed")

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.near) / self.rate

    def at(self, rate: int) -> Clip:
        """The same clip resampled to `rate` Hz."""
        if rate == self.rate:
            return self
        far = None if self.far is None else resample(self.far, self.rate, rate)
        return replace(self, near=resample(self.near, self.rate, rate), far=far, rate=rate)


def resample(x: Array, rate: int, to: int) -> Array:
    """(N,) at `rate` Hz -> (N',) float32 at `to` Hz; soxr, quality HQ."""
    import soxr

    return x if rate == to else np.asarray(soxr.resample(x, rate, to, quality="HQ"), np.float32)


def read(
    path: str | os.PathLike[str], *, near: int = 0, far: int | None = 1, start: int = 0, frames: int = -1
) -> Clip:
    """A clip from a file, or `frames` samples of it from `start`; `near` and `far` are channel numbers.

    A file with one channel has no far. Raises AudioError naming the file if it cannot be read, is empty, too short,
    holds NaN, or lacks the channel asked for; FileNotFoundError if there is none.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such recording: {path}")
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(start)
            samples = file.read(frames, dtype="float32", always_2d=True)
            rate, channels = file.samplerate, file.channels
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise AudioError(_unreadable(path, error)) from None
    if not len(samples):
        raise AudioError(f"{path.name}: holds no samples; was the recording stopped before it began?")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path.name}: holds NaN or infinite samples; the file is damaged or was written by a faulty tool")
    return _pick(samples, channels, rate, path.name, near, far)


def seconds(path: str | os.PathLike[str]) -> float:
    """Length of a file by its header. Raises AudioError if it cannot be read."""
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise AudioError(_unreadable(Path(path), error)) from None
    return float(info.frames / info.samplerate)


def windows(path: str | os.PathLike[str], *, near: int = 0, far: int | None = 1, length_s: float = WINDOW_S) -> Iterator[Clip]:
    """The clips of a file: the whole of it up to LONG_S, else windows of `length_s` named file@start, one at a time.

    Only one window is in memory. A last window of less than half the length is left out. Raises as `read` does.
    """
    import soundfile

    total = seconds(path)
    if total <= LONG_S:
        yield read(path, near=near, far=far)
        return
    rate = soundfile.info(str(path)).samplerate
    step = round(length_s * rate)
    for start in range(0, int(total * rate) - step // 2, step):
        clip = read(path, near=near, far=far, start=start, frames=step)
        yield replace(clip, name=f"{clip.name}@{start / rate:g}s")


def as_clip(source: Any, *, near: int = 0, far: int | None = 1) -> Clip:
    """A clip from a path, a `Clip`, or arrays with a rate: (near, far, rate), (near, rate) or ((near, far), rate)."""
    if isinstance(source, Clip):
        return source
    if isinstance(source, (str, os.PathLike)):
        return read(source, near=near, far=far)
    if isinstance(source, Sequence) and len(source) in (2, 3) and np.ndim(source[-1]) == 0:
        *waves, rate = source
        if len(waves) == 1:
            pair = waves[0]
            waves = list(pair) if isinstance(pair, (tuple, list)) or np.ndim(pair) == 2 else [pair]
        if 1 <= len(waves) <= 2:
            return Clip(np.asarray(waves[0]), None if len(waves) == 1 or waves[1] is None else np.asarray(waves[1]), int(rate))
    raise ValueError(f"a clip is a path, a nearfar.Clip or (near, far, rate), not {type(source).__name__}")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a recording. `fatal`: the clip cannot be judged; else it is a warning."""

    kind: str
    text: str
    fatal: bool = False


def problems(clip: Clip) -> list[Problem]:
    """What is wrong with the clip as a recording, fatal problems first; empty if all is well."""
    found = _channel_problems("near", clip.near)
    if clip.far is not None:
        found += _channel_problems("far", clip.far)
        found += _pair_problems(clip.near.astype(np.float64), clip.far.astype(np.float64))
    return sorted(found, key=lambda p: not p.fatal)


def _channel_problems(name: str, x: Array) -> list[Problem]:
    x = x.astype(np.float64)
    offset = x.mean()
    rms, peak = float(np.sqrt(np.mean((x - offset) ** 2))), float(np.abs(x).max())
    if rms < SILENT_RMS:
        return [Problem("silent", f"the {name} microphone is silent ({_db(rms):.0f} dB): dead, muted or unplugged?", True)]
    stuck = float(np.mean(np.diff(x) == 0)) if len(x) > 1 else 0.0
    if stuck > 0.9:
        return [Problem("stuck", f"the {name} microphone holds one value for {stuck:.0%} of the time: cable or driver?", True)]
    found = []
    extreme = float(np.mean(np.abs(x - offset) >= 0.998 * np.abs(x - offset).max()))
    full = float(np.mean(np.abs(x) >= 0.999))
    if extreme > SATURATED:
        found.append(Problem("saturated", f"the {name} microphone is saturated ({extreme:.0%} of samples): lower its gain", True))
    elif full > CLIPPED:
        found.append(Problem("clipped", f"the {name} microphone clips ({full:.2%} of samples at full scale): lower its gain"))
    if abs(offset) > max(0.02 * peak, 1e-3) and abs(offset) > 0.2 * rms:
        found.append(Problem("offset", f"the {name} channel has a constant offset of {offset:+.3f}: sound card fault?"))
    return found


def _pair_problems(near: Array, far: Array) -> list[Problem]:
    near, far = near - near.mean(), far - far.mean()
    power_near, power_far = float(near @ near), float(far @ far)
    if not power_near or not power_far:
        return []
    gain = float(near @ far) / power_far
    rest = float(((near - gain * far) ** 2).sum()) / power_near
    if rest < 1e-4:
        return [Problem("one_cable", "near and far carry the same signal: one microphone on both channels?")]
    if power_near < power_far / 2:
        db = 10 * np.log10(power_far / power_near)
        return [Problem("swapped", f"near is {db:.0f} dB weaker than far: are the microphones swapped?")]
    return []


def _pick(samples: Array, channels: int, rate: int, name: str, near: int, far: int | None) -> Clip:
    if channels == 1 and near == 0:
        return Clip(samples[:, 0], None, rate, name)
    for label, channel in (("near", near), ("far", far)):
        if channel is not None and not 0 <= channel < channels:
            raise AudioError(f"{name}: has channels 0 to {channels - 1}, so --{label} {channel} does not exist")
    return Clip(
        np.ascontiguousarray(samples[:, near]),
        None if far is None else np.ascontiguousarray(samples[:, far]),
        rate,
        name,
    )


def _unreadable(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        return f"{path.name}: the file is empty (0 bytes); was the recording stopped or the disk full?"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return f"{path.name}: cannot be read as audio ({reason}); is it a WAV, FLAC or OGG file, and complete?"


def _db(rms: float) -> float:
    return float(20 * np.log10(max(rms, 1e-10)))
