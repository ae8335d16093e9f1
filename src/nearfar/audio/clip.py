"""Recordings: a file or arrays -> `Clip`, near and far microphone at one rate (report section 2.3).

    near, far   (N,) float32, full scale = 1; far is None for a mono recording
    rate        Hz

Channel 0 is near and channel 1 is far unless said otherwise, as in the challenge's data. Read by libsndfile (WAV with
8 to 32 bits or float, FLAC, OGG, MP3), resampled by soxr (HQ). Long files are read a window at a time, never whole.
`problems` says what is wrong with a clip as a recording; see `microphones`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.audio import microphones
from nearfar.audio.extent import UNKNOWN_S, Limits, check_rate, missing_s, whole_rate
from nearfar.audio.microphones import Problem as Problem
from nearfar.errors import AudioError
from nearfar.support.check import Array, finite
from nearfar.support.words import shown

SHORTEST_S = 0.1  # a shorter clip is an error
LOUDEST = 1e10  # floats in the scale of 32-bit integers reach 2.1e9; the square of a larger sample may overflow
LONG_S = 30.0  # a longer file is read as windows of WINDOW_S
WINDOW_S = 10.0
BLOCK = 1 << 19  # samples read at a time
MISSING_S = 0.05  # a file that lacks more than this of what its header promises is cut short
INCOMPLETE = "incomplete"
UNKNOWN = 1 << 35  # a header with more samples than this does not know its length
MAY_FAIL = ("FLAC", "OGG", "MPEG", "MP3")  # formats whose decoders fail where the file is cut short
WITHOUT_LOSS = ("PCM", "FLOAT", "DOUBLE", "ALAC", "DWVW", "DPCM_16")  # how the names of such codecs begin
PCM = "PCM"  # stands for all of them
CODECS = {"MPEG_LAYER_III": "MP3", "MPEG_LAYER_II": "MP2", "MPEG_LAYER_I": "MP1", "VORBIS": "Vorbis", "OPUS": "Opus"}
KEYBOARD = Limits()  # of a file that is given by path


@dataclass(eq=False)
class Clip:
    """One recording: `near` (N,) and optionally `far` (N,) float32 at `rate` Hz. Raises ValueError if they differ.

    `window`: (first sample, most samples) where this is a piece of a longer file. `missing_s`: seconds that the file's
    header promises and the file does not hold (infinite if nobody can tell, below 0 if the file holds more than its
    header says); of several windows, the first says so. `codec`: PCM, or the name of one with loss; "" if not known.
    """

    near: Array
    far: Array | None = None
    rate: int = 16_000
    name: str = "clip"
    window: tuple[int, int] | None = None
    missing_s: float = 0.0
    codec: str = ""

    def __post_init__(self) -> None:
        if type(self.rate) is not int or self.rate <= 0:
            whole_rate(self.name, self.rate)
        for channel in ("near", "far"):
            x = getattr(self, channel)
            is_float32 = isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim == 1
            if x is not None and not (is_float32 and np.isfinite(x).all()):
                what, given = f"the {channel} channel of {self.name!r}", np.asarray(x)
                if np.issubdtype(given.dtype, np.integer):
                    raise ValueError(f"{what} holds whole numbers ({given.dtype}), and full scale is 1: int16 / 32768?")
                x = finite(what, given, ndim=1)
                setattr(self, channel, x.astype(np.float32, copy=False))
        if self.far is not None and self.far.shape != self.near.shape:
            raise ValueError(
                f"{self.name!r}: near has {len(self.near)} samples and far {len(self.far)}; they must agree"
            )
        lasts = len(self.near) / self.rate
        if lasts < SHORTEST_S:
            raise AudioError(f"{self.name}: lasts {lasts:.3f} s; at least {SHORTEST_S} s are needed", "too_short")

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


def read(path: str | os.PathLike[str], *, near: int = 0, far: int | None = 1, start: int = 0, frames: int = -1) -> Clip:
    """A clip from a file, or `frames` samples of it from `start`; `near` and `far` are channel numbers.

    A file with one channel has no far. Raises AudioError naming the file if it cannot be read, is empty, too short,
    holds NaN, or lacks the channel asked for; FileNotFoundError if there is none.
    """
    if not frames:
        raise ValueError("frames is 0, and a clip needs samples: -1 reads all")
    path = Path(path)
    with _opened(path) as file:
        KEYBOARD.check(path.name, file.samplerate, file.channels)
        if start:
            file.seek(start)
        return _clip(path, file, frames, _channels(path.name, file.channels, near, far))


def windows(
    path: str | os.PathLike[str],
    *,
    near: int = 0,
    far: int | None = 1,
    length_s: float = WINDOW_S,
    whole_s: float = LONG_S,
    first: int = 0,
    limits: Limits = KEYBOARD,
) -> Iterator[Clip]:
    """The clips of a file: the whole of it up to `whole_s`, else windows of `length_s` named file@start, one at a time.

    Only one window is in memory. A last window of less than half the length is left out; those before the `first` are
    not read. Raises as `read` does, and AudioError for a file beyond the `limits`.
    """
    path = Path(path)
    with _opened(path) as file:
        rate, channels = file.samplerate, _channels(path.name, file.channels, near, far)
        limits.check(path.name, rate, file.channels)
        if file.frames < UNKNOWN:
            limits.check_length(path.name, file.frames / rate, file.frames * len(channels))
        if not _is_long(path, file, whole_s):
            clip = _clip(path, file, -1, channels)
            if file.frames >= UNKNOWN:
                limits.check_length(path.name, clip.seconds, len(clip.near) * len(channels))
            yield clip
            return
        step = round(length_s * rate)
        if first:
            file.seek(first * step)
        for start in range(first * step, file.frames, step):
            samples = _samples(file, step, *channels)
            if start and len(samples) < step / 2:
                return
            stop = start + len(samples)
            limits.check_length(path.name, stop / rate, stop * len(channels))
            clip = _as_recorded(path, file, samples, 0.0 if start else _missing_s(path, file))
            yield replace(clip, name=f"{clip.name}@{start / rate:g}s", window=(start, step))
            if len(samples) < step:
                return


def cut(clip: Clip, length_s: float, whole_s: float) -> Iterator[Clip]:
    """The windows of a clip in memory, as `windows` gives those of a file with the same samples."""
    if clip.seconds <= whole_s:
        yield clip
        return
    step = round(length_s * clip.rate)
    for start in range(0, len(clip.near), step):
        near = clip.near[start : start + step]
        if start and len(near) < step / 2:
            return
        far = None if clip.far is None else clip.far[start : start + step]
        name = f"{clip.name}@{start / clip.rate:g}s"
        yield Clip(near, far, clip.rate, name, (start, step), 0.0 if start else clip.missing_s, clip.codec)


def count_windows(path: str | os.PathLike[str], *, length_s: float = WINDOW_S, whole_s: float = LONG_S) -> int:
    """How many clips `windows` gives of a file, by its header: 1 if that does not know. Raises as `read` does."""
    lasts = seconds(path)
    return int(lasts / length_s + 0.5) if whole_s < lasts < float("inf") else 1


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    rate: int
    channels: int
    seconds: float  # infinite where the header does not know, as in a FLAC from a pipe


def header(path: str | os.PathLike[str]) -> Header:
    """The header of a recording; raises as `read` does."""
    path = Path(path)
    with _opened(path) as file:
        KEYBOARD.check(path.name, file.samplerate, file.channels)
        seconds = file.frames / file.samplerate if file.frames < UNKNOWN else float("inf")
        return Header(file.samplerate, file.channels, seconds)


def seconds(path: str | os.PathLike[str]) -> float:
    """Length of a file by its header. Raises as `read` does."""
    return header(path).seconds


def as_clip(source: Any, *, near: int = 0, far: int | None = 1) -> Clip:
    """A clip from a path, a `Clip`, or arrays with a rate: (near, far, rate), (near, rate) or ((near, far), rate)."""
    if isinstance(source, Clip):
        check_rate(source.name, source.rate)
        return source
    if isinstance(source, (str, os.PathLike)):
        return read(source, near=near, far=far)
    if isinstance(source, Sequence) and len(source) in (2, 3) and np.ndim(source[-1]) == 0:
        *waves, rate = source
        rate = rate.item() if isinstance(rate, np.ndarray) else rate
        if len(waves) == 1:
            pair = waves[0]
            if np.ndim(pair) == 2:
                pair = _as_channels(np.asarray(pair))
            waves = list(pair) if isinstance(pair, (tuple, list)) or np.ndim(pair) == 2 else [pair]
        if 1 <= len(waves) <= 2:
            second = None if len(waves) == 1 or waves[1] is None else np.asarray(waves[1])
            return Clip(np.asarray(waves[0]), second, check_rate("clip", rate))
    given = "an array without its rate" if isinstance(source, np.ndarray) else f"a {type(source).__name__} of this form"
    raise ValueError(f"a clip is a path, a nearfar.Clip, (near, far, rate), (near, rate) or (pair, rate), not {given}")


def _as_channels(pair: Array) -> Array:
    """(C, N) of an array (C, N) or (N, C) of one or two channels."""
    if len(pair) > 2 >= pair.shape[1]:
        pair = pair.T  # as soundfile reads it
    if not 1 <= len(pair) <= 2:
        raise ValueError(f"an array of shape {pair.shape} is no pair of near and far: give (2, N) or (N, 2)")
    return pair


def problems(clip: Clip) -> list[Problem]:
    """What is wrong with the clip as a recording, fatal problems first; empty if all is well."""
    found = microphones.problems(clip.near, clip.far, clip.rate)
    return [*found, *incomplete(clip)] if clip.missing_s else found


def incomplete(clip: Clip) -> list[Problem]:
    """That the file of the clip is cut short, or holds more than its header says, or nothing."""
    if abs(clip.missing_s) <= MISSING_S:
        return []
    if clip.missing_s < 0:
        less = f"the file's header says {-clip.missing_s:.3g} s less than the file holds, and these were not heard"
        return [Problem(INCOMPLETE, f"{less}: did the recorder stop before closing it?")]
    last = "end" if clip.missing_s == UNKNOWN_S else f"last {clip.missing_s:.3g} s"
    return [Problem(INCOMPLETE, f"the file lacks its {last}: was the recording, or the copying of it, cut off?")]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import soundfile

    if path.is_dir():
        raise ValueError(f"{shown(path)} is a folder, and one recording is expected here: give a file in it")
    if not path.is_file():
        if path.is_symlink():
            raise FileNotFoundError(f"{shown(path)} is a link to {shown(path.readlink())}, and there is no such file")
        raise FileNotFoundError(f"no such recording: {shown(path)}")
    try:
        # as bytes: a name need not be UTF-8
        with soundfile.SoundFile(os.fspath(path) if os.name == "nt" else os.fsencode(path)) as file:
            yield file
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise _unreadable(path, error) from None


def _is_long(path: Path, file: Any, whole_s: float) -> bool:
    """Whether a file lasts more than `whole_s`, by its header or, if that does not know, by what can be read."""
    longest = round(whole_s * file.samplerate)
    if file.frames < UNKNOWN:
        return bool(file.frames > longest)
    with _opened(path) as other:
        return len(_samples(other, longest + 1, 0)) > longest


def _clip(path: Path, file: Any, frames: int, channels: Sequence[int]) -> Clip:
    promised = file.frames - file.tell()
    samples = _samples(file, frames, *channels)
    lacks = 0.0
    if frames < 0:
        if file.frames < UNKNOWN:
            lacks = (promised - len(samples)) / file.samplerate
        lacks = lacks or missing_s(path, len(samples) / file.samplerate)
    return _as_recorded(path, file, samples, lacks)


def _as_recorded(path: Path, file: Any, samples: Array, missing_s: float) -> Clip:
    if not len(samples):
        what = "holds no samples; was the recording stopped before it began?"
        if (size := path.stat().st_size) > 4096:
            what = f"its header says 0 samples, yet it has {size:,} bytes: did the recorder stop before closing it?"
        raise AudioError(f"{shown(path.name)}: {what}", "empty")
    if not np.isfinite(samples).all():
        what = "holds NaN or infinite samples; the file is damaged or was written by a faulty tool"
        raise AudioError(f"{shown(path.name)}: {what}", "nan")
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        what = f"holds a sample of {peak:.2g}, and 1 is full scale: the file is damaged or was written by a faulty tool"
        raise AudioError(f"{shown(path.name)}: {what}", "level")
    channels = [np.ascontiguousarray(channel) for channel in samples.T]
    far = channels[1] if len(channels) > 1 else None
    codec = PCM if file.subtype.startswith(WITHOUT_LOSS) else CODECS.get(file.subtype, file.subtype)
    plain = path.name.isascii() and path.name.isprintable()
    name = path.name if plain else shown(path.name)
    return Clip(channels[0], far, file.samplerate, name, missing_s=missing_s, codec=codec)


def _channels(name: str, channels: int, near: int, far: int | None) -> list[int]:
    """The channels to take from a file: [near] or [near, far]; a mono file has no far."""
    if channels == 1 and near == 0:
        return [0]
    for label, channel in (("near", near), ("far", far)):
        if channel is not None and not 0 <= channel < channels:
            has = "one channel, 0" if channels == 1 else f"channels 0 to {channels - 1}"
            raise AudioError(f"{shown(name)}: has {has}, so --{label} {channel} does not exist", "channel")
    return [near] if far is None else [near, far]


def _samples(file: Any, frames: int, *channels: int) -> Array:  # (frames or fewer, len(channels))
    """Block by block: a header that promises terabytes must not reserve them, nor eight channels where two are used."""
    blocks: list[Array] = []
    left = file.frames - file.tell() if frames < 0 else frames
    while not blocks or left:
        size = min(left, BLOCK)
        block = _block(file, size)
        blocks.append(block[:, list(channels)])
        left = left - size if len(block) == size else 0
    return np.concatenate(blocks)


def _block(file: Any, size: int) -> Array:
    import soundfile

    if file.frames < UNKNOWN and file.format not in MAY_FAIL:
        return np.asarray(file.read(size, dtype="float32", always_2d=True))
    # A FLAC file without a length in its header fails at its end, as does any that is cut short, after filling what
    # there was to fill.
    out, at = np.full((size, file.channels), np.nan, np.float32), file.tell()
    try:
        return np.asarray(file.read(out=out))
    except soundfile.SoundFileError:
        decoded = out[~np.isnan(out[:, 0])]
        if not at and not len(decoded):
            raise
        return decoded


def _missing_s(path: Path, file: Any) -> float:
    """`Clip.missing_s` of a long file that is open, before it is read."""
    if file.format != "FLAC" or file.frames >= UNKNOWN:
        return missing_s(path, file.frames / file.samplerate)
    try:  # it has no index: the decoder looks for its last sample
        with _opened(path) as other:
            other.seek(file.frames - 1)
            return 0.0 if len(other.read(1)) else UNKNOWN_S
    except AudioError:
        return UNKNOWN_S


def _unreadable(path: Path, error: Exception) -> AudioError:
    name = shown(path.name)
    if not path.stat().st_size:
        return AudioError(f"{name}: the file is empty (0 bytes); was the recording stopped or the disk full?", "empty")
    if not os.access(path, os.R_OK):  # which libsndfile calls a system error
        return AudioError(f"{name}: may not be opened by this user; ask for the right to read it", "unreadable")
    if isinstance(error, OSError):
        return AudioError(f"{name}: cannot be opened ({error.strerror or error})", "unreadable")
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    what = f"cannot be read as audio ({reason}); is it a WAV, FLAC, OGG or MP3 file, and complete?"
    return AudioError(f"{name}: {what}", "unreadable")
