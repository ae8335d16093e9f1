"""Recordings: a file or arrays -> `Clip`, near and far microphone at one rate (report section 2.3).

Channel 0 is near and channel 1 is far unless said otherwise, as in the challenge's data. Files are read by libsndfile
(WAV with 8 to 32 bits or float, FLAC, OGG, MP3), and resampled by soxr (HQ). A long file is read a window at a time,
never whole.

`Limits()` is for files given by path: a rate or a number of channels that no microphone has is a damaged header, and
would cost minutes. The server adds a length and a number of samples, because its senders are strangers.

`missing_s` says whether a file is whole: it compares the bytes or pages that the header promises with those of the
file, container by container (WAV: RIFF, RIFX, RF64, BW64; W64, CAF, AIFF, AU, VOC, NIST, OGG, MP3). A FLAC file is
measured by its decoder.

Conventions
    near, far (N,)   float32, full scale = 1; far is None for a mono recording         rate   Hz
    What is wrong with a clip as a recording, `checks` says. What cannot be read is an AudioError that names the file.

>>> clip = Clip(np.zeros(16_000), None, 8_000)
>>> clip.seconds, clip.at(16_000).near.shape
(2.0, (32000,))

References: EBU Tech 3306 (RF64), Apple's AIFF-C draft, RFC 3533 (OGG), Vorbis I, 4.3.9 (order of channels), ISO 11172-3
(MP3 frames), the Xing and LAME tags.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from nearfar.errors import AudioError
from nearfar.support.check import Array, finite, number
from nearfar.support.words import shown

CHANNELS = ("near", "far")  # waveforms as recorded; all others are made of the pair
SHORTEST_S = 0.1  # a shorter clip is an error
LOUDEST = 1e10  # floats in the scale of 32-bit integers reach 2.1e9; the square of a larger sample may overflow
LONG_S = 30.0  # a longer file is read as windows of WINDOW_S
WINDOW_S = 10.0
RATES_HZ = (1_000, 384_000)  # of a recording
BLOCK = 1 << 19  # samples read at a time
EDGE = 1 << 16  # bytes
UNKNOWN = 1 << 35  # a header with more samples than this does not know its length
UNKNOWN_S = float("inf")  # the end of a file is missing, and how much it is cannot be told
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "VOC", "NIST", "FLAC", "OGG", "MPEG", "MP3")
MAY_FAIL = ("FLAC", "OGG", "MPEG", "MP3")  # formats whose decoders fail where the file is cut short
WITHOUT_LOSS = ("PCM", "FLOAT", "DOUBLE", "ALAC", "DWVW", "DPCM_16")  # how the names of such codecs begin
PCM = "PCM"  # stands for all of them
WAS = "nearfar: written anew, was "  # begins the comment of a FLAC file; the codec follows
OGG_ORDER = {  # where OGG files of so many channels have those of WAV; ffmpeg puts them in order, libsndfile does not
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
CODECS = {"MPEG_LAYER_III": "MP3", "MPEG_LAYER_II": "MP2", "MPEG_LAYER_I": "MP1", "VORBIS": "Vorbis", "OPUS": "Opus"}


@dataclass(frozen=True)
class Limits:
    """The largest recording: `seconds`, `channels`, and `samples` of all channels that are used together.

    Both checks raise AudioError with the kind "rate", "channel" or "too_long".
    """

    seconds: float = math.inf
    channels: int = 256
    samples: float = math.inf

    def check(self, name: str, rate: int, channels: int) -> None:
        """AudioError if the file called `name` cannot be a recording by its `rate` in Hz and its `channels`."""
        if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
            check_rate(name, rate)
        if channels > self.channels:
            what = f"has {channels} channels, and at most {self.channels} are allowed: is its header damaged?"
            raise AudioError(f"{shown(name)}: {what}", "channel")

    def check_length(self, name: str, seconds: float, samples: float) -> None:
        """AudioError if the recording called `name` is too long, by its header or by what was read so far."""
        if seconds > self.seconds and math.isfinite(seconds):
            what = f"lasts longer than {self.seconds / 60:g} min, which is the limit; send it in parts"
            raise AudioError(f"{shown(name)}: {what}", "too_long")
        if samples > self.samples and math.isfinite(samples):
            what = f"holds more than {self.samples / 1e6:g} million samples, which is the limit; send it in parts"
            raise AudioError(f"{shown(name)}: {what}", "too_long")


def whole_rate(name: str, rate: float) -> int:
    """`rate` in Hz as an int; ValueError if it is no whole number above 0."""
    if number(f"the rate of {name!r}", rate, above=0) != int(rate):
        raise ValueError(f"the rate of {name!r} must be a whole number of Hz, not {rate!r}")
    return int(rate)


def check_rate(name: str, rate: float) -> int:
    """`whole_rate`; AudioError out of `RATES_HZ`."""
    rate = whole_rate(name, rate)
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        allowed = f"{RATES_HZ[0]:,} to {RATES_HZ[1]:,} Hz are allowed"
        raise AudioError(f"{shown(name)}: a rate of {rate:,} Hz is out of range; {allowed}", "rate")
    return rate


PLAUSIBLE = Limits()  # of a file that is given by path


@dataclass(eq=False)
class Clip:
    """One recording: `near` (N,) and optionally `far` (N,) float32 at `rate` Hz. Raises ValueError if they differ.

    `window`: (first sample, most samples) where this is a piece of a longer file. `missing_s`: seconds that the file's
    header promises and the file lacks, infinite if the number is unknown, below 0 if the file holds more; of several
    windows, the first has it. `codec`: PCM, or the name of one with loss; "" if not known.
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

    @property
    def samples(self) -> Array:
        """(C, N): near, and far if there is one."""
        return np.stack([self.near] if self.far is None else [self.near, self.far])

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
        PLAUSIBLE.check(path.name, file.samplerate, file.channels)
        if start:
            file.seek(start)
        return _clip(path, file, frames, _channels(path.name, file, near, far))


def windows(
    path: str | os.PathLike[str],
    *,
    near: int = 0,
    far: int | None = 1,
    length_s: float = WINDOW_S,
    whole_s: float = LONG_S,
    first: int = 0,
    limits: Limits = PLAUSIBLE,
) -> Iterator[Clip]:
    """The clips of a file: the whole of it up to `whole_s`, else windows of `length_s` named file@start, one at a time.

    Only one window is in memory. A last window of less than half the length is left out; those before the `first` are
    not read. Raises as `read` does, and AudioError for a file beyond the `limits`.
    """
    path = Path(path)
    with _opened(path) as file:
        rate, channels = file.samplerate, _channels(path.name, file, near, far)
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
            if len(samples) < step and stop < file.frames < UNKNOWN:
                _check_disk(path)
            limits.check_length(path.name, stop / rate, stop * len(channels))
            clip = _as_recorded(path, file, samples, 0.0 if start else _missing_of_long(path, file))
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
        PLAUSIBLE.check(path.name, file.samplerate, file.channels)
        seconds = file.frames / file.samplerate if file.frames < UNKNOWN else float("inf")
        return Header(file.samplerate, file.channels, seconds)


def seconds(path: str | os.PathLike[str]) -> float:
    """Length of a file by its header. Raises as `read` does."""
    return header(path).seconds


def as_clip(source: Any) -> Clip:
    """A clip from a path, a `Clip`, or arrays with a rate: (near, far, rate), (near, rate) or ((near, far), rate)."""
    if isinstance(source, Clip):
        check_rate(source.name, source.rate)
        return source
    if isinstance(source, (str, os.PathLike)):
        return read(source)
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
            if file.format not in FORMATS:
                what = f"holds {file.format}, of which nobody can tell whether it is whole: convert it to WAV first"
                raise AudioError(f"{shown(path.name)}: {what}", "unreadable")
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
        if lacks:
            _check_disk(path)
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
    if file.format == "FLAC" and file.comment.startswith(WAS):  # written anew by nearfar
        codec = file.comment.removeprefix(WAS)[:32]
    plain = path.name.isascii() and path.name.isprintable()
    name = path.name if plain else shown(path.name)
    return Clip(channels[0], far, file.samplerate, name, missing_s=missing_s, codec=codec)


def _channels(name: str, file: Any, near: int, far: int | None) -> list[int]:
    """The channels to take from a file that is open: [near] or [near, far]; a mono file has no far."""
    channels = file.channels
    if channels == 1 and near == 0:
        return [0]
    for label, channel in (("near", near), ("far", far)):
        if channel is not None and not 0 <= channel < channels:
            has = "one channel, 0" if channels == 1 else f"channels 0 to {channels - 1}"
            raise AudioError(f"{shown(name)}: has {has}, so --{label} {channel} does not exist", "channel")
    order = OGG_ORDER.get(channels) if file.format == "OGG" else None
    return [channel if order is None else order[channel] for channel in (near, far) if channel is not None]


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


def _missing_of_long(path: Path, file: Any) -> float:
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
    _check_disk(path)
    if not path.stat().st_size:
        return AudioError(f"{name}: the file is empty (0 bytes); was the recording stopped or the disk full?", "empty")
    if isinstance(error, OSError):
        return AudioError(f"{name}: cannot be opened ({error.strerror or error})", "unreadable")
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    what = f"cannot be read as audio ({reason}); is it a WAV, FLAC, OGG or MP3 file, and complete?"
    return AudioError(f"{name}: {what}", "unreadable")


def _check_disk(path: Path) -> None:
    """AudioError if the system cannot give the ends of a file, as on a share that has gone: libsndfile does not say."""
    try:
        with path.open("rb") as file:
            file.read(EDGE)
            file.seek(-min(EDGE, path.stat().st_size), os.SEEK_END)
            file.read(EDGE)
    except PermissionError:
        what = "may not be opened by this user; ask for the right to read it"
        raise AudioError(f"{shown(path.name)}: {what}", "disk") from None
    except OSError as error:
        what = f"cannot be read ({error.strerror or error}): has its disk, or the network share, gone?"
        raise AudioError(f"{shown(path.name)}: {what}", "disk") from None


# Whether a file is whole. An extent is the number of bytes of sound that the header promises, and that the file holds.

Extent = tuple[int, int]
STREAMED = 0x7FFF_0000  # 32-bit data sizes from here on are what tools write that cannot go back to the header
MP3_KBIT = {  # bit rates by (MPEG 1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits


def missing_s(path: Path, seconds: float) -> float:
    """Seconds of sound that the header promises and the file lacks; `seconds` is the length that can be read.

    Below 0: the file holds more than its header says. `UNKNOWN_S`: its end is missing, and how much that is is unknown.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(12)
        if start[:4] in CHUNKS:
            extent = _chunks(file, CHUNKS[start[:4]], size)
        elif start[:4] in (b".snd", b"dns."):
            extent = _au(start, size)
        elif start[:4] == b"Crea":
            extent = _voc(file, size)
        elif start[:7] == b"NIST_1A":
            extent = _nist(file, size)
        elif start[:4] == b"OggS":
            return 0.0 if _ogg_ends(file, size) else UNKNOWN_S
        elif start[:3] == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] >= 0xE0):
            return 0.0 if _mp3_ends(file, start, size) else UNKNOWN_S
        else:
            return 0.0
    if extent is None or not (heard := min(extent)):
        return 0.0
    return (extent[0] - extent[1]) / heard * seconds


@dataclass(frozen=True)
class Layout:
    """How a container lays out its chunks: a name, a size, the content.

    first    where the first chunk begins
    name     bytes of a name
    head     bytes of name and size
    order    of the bytes of the size
    pad      contents are padded to a multiple of this number of bytes
    whole    the size counts the head too
    data     name of the chunk of sound
    """

    first: int
    name: int
    head: int
    order: Literal["big", "little"]
    pad: int
    whole: bool = False
    data: bytes = b"data"

    def length(self, head: bytes) -> int:
        """Bytes of the content of the chunk that begins with `head`."""
        size = int.from_bytes(head[self.name :], self.order)
        return max(0, size - self.head) if self.whole else size

    def end(self, at: int, length: int) -> int:
        """Where a content of `length` bytes at `at` ends, with its padding."""
        return at + length + -length % self.pad


CHUNKS = {
    b"RIFF": Layout(12, 4, 8, "little", 2),
    b"RF64": Layout(12, 4, 8, "little", 2),
    b"BW64": Layout(12, 4, 8, "little", 2),
    b"RIFX": Layout(12, 4, 8, "big", 2),
    b"FORM": Layout(12, 4, 8, "big", 2, data=b"SSND"),
    b"caff": Layout(8, 4, 12, "big", 1),
    b"riff": Layout(40, 16, 24, "little", 8, whole=True),
}


def _chunks(file: IO[bytes], layout: Layout, size: int) -> Extent | None:
    """The extent of the chunk of sound; what follows it is sound too, unless it is chunks."""
    at, long_data = layout.first, 0
    while at < size:  # a damaged length points anywhere
        file.seek(at)
        head = file.read(layout.head)
        if len(head) < layout.head:
            return None
        at += layout.head
        length = layout.length(head)
        if head[:4] == b"ds64":  # the 64-bit sizes of an RF64
            long_data = int.from_bytes(file.read(16)[8:], "little")
        if head[:4] == layout.data:
            break
        at = layout.end(at, length)
    else:
        return None
    if layout.head == 8 and length >= STREAMED:
        length = long_data
    if not length or length >= 1 << 62:
        return None
    end = layout.end(at, length)
    held = length if _are_chunks(file, layout, end, size) else size - at
    return length, min(held, length) if layout.whole else held  # libsndfile reads a W64 to the end of the file


def _are_chunks(file: IO[bytes], layout: Layout, at: int, size: int) -> bool:
    """Whether the file ends at `at`, or holds whole chunks from there on."""
    last = at
    while at < size:
        file.seek(at)
        head = file.read(layout.head)
        if len(head) < layout.head or not (head[:4].isascii() and head[:4].decode().isprintable()):
            return size - at < layout.head and at != last
        at = layout.end(at + layout.head, layout.length(head))
    return at - size < layout.pad


def _au(start: bytes, size: int) -> Extent | None:
    order: Literal["big", "little"] = "big" if start[:4] == b".snd" else "little"
    offset, length = (int.from_bytes(start[at : at + 4], order) for at in (4, 8))
    return None if length >= STREAMED else (length, max(0, size - offset))


def _voc(file: IO[bytes], size: int) -> Extent:
    """Blocks: a kind, a size of 24 bits, the content; kind 0 ends the file."""
    file.seek(20)
    at, promised, held = int.from_bytes(file.read(2), "little"), 0, 0
    while at < size:
        file.seek(at)
        head = file.read(4)
        length = int.from_bytes(head[1:], "little")
        if not head[0]:
            break
        at += 4
        promised, held = promised + length, held + min(length, size - at)
        at += length
    return promised, held


def _nist(file: IO[bytes], size: int) -> Extent | None:
    """A header of lines such as "sample_count -i 80000", as long as its second line says."""
    file.seek(8)
    length = file.readline().strip()
    if not length.isdigit():
        return None
    lines = [line.split() for line in file.read(max(0, int(length) - file.tell())).splitlines()]
    facts = {line[0]: int(line[2]) for line in lines if len(line) == 3 and line[1] == b"-i" and line[2].isdigit()}
    block = facts.get(b"sample_n_bytes", 0) * facts.get(b"channel_count", 0)
    return (facts.get(b"sample_count", 0) * block, size - int(length)) if block else None


def _ogg_ends(file: IO[bytes], size: int) -> bool:
    """Whether the last page is whole and says that it is the last of its stream."""
    file.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 or len(tail) < at + 27 + tail[at + 26]:
        return False
    length = 27 + tail[at + 26] + sum(tail[at + 27 : at + 27 + tail[at + 26]])
    return bool(tail[at + 5] & 4) and len(tail) >= at + length


def _mp3_ends(file: IO[bytes], start: bytes, size: int) -> bool:
    """Whether the last frame is whole, and whether the file has the bytes that its Xing or Info tag promises."""
    at = 0
    if start[:3] == b"ID3":  # the size is in seven bits of each of four bytes
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    first = True
    while at + 4 <= size:
        file.seek(at)
        head = file.read(200 if first else 4)
        length = _mp3_frame(head)
        if not length:  # a tag, or what no decoder reads
            return True
        if first and (tag := max(head.find(b"Xing"), head.find(b"Info"))) > 0 and head[tag + 7] & 2:
            after = tag + 8 + 4 * (head[tag + 7] & 1)
            if at + int.from_bytes(head[after : after + 4], "big") > size:
                return False
        at, first = at + length, False
    return at <= size


def _mp3_frame(head: bytes) -> int:
    """Bytes of the frame that begins with `head`, 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3
    kbit = head[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or not 0 < kbit < 15:
        return 0
    bits, hz, pad = 1000 * MP3_KBIT[version == 3, layer][kbit], MP3_HZ[version][rate], head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hz + pad) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hz + pad
