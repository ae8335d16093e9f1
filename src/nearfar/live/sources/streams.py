"""Streams of samples: ffmpeg (any URL or file), raw PCM on a pipe, a microphone. Each is a `SampleStream`.

    chunks(stop)   iterator of ((C, N) float32, gap), or None while no samples come (at least once a second)

A thread waits for the samples, so that the reader never blocks. `ffmpeg` is a process of its own: if it ends, or gives
no sound for `stall_s`, it is restarted after 1, 2, 4 ... 60 s; its last messages are in `problem`.
"""

from __future__ import annotations

import math
import queue
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import IO, Any, Protocol

import numpy as np

from nearfar.live.sources.devices import INSTALL_FFMPEG
from nearfar.support.check import Array, integer, one_of

CHUNK_S, POLL_S = 0.25, 0.5
AU_HEADER = 24  # bytes: magic, where the samples begin, their size, encoding, rate, channels
AHEAD = 64  # chunks that wait to be read
AHEAD_S, LATEST_S = 5.0, 60.0  # a stream this far before its time is no live one; how far behind it is still known
LONGEST_WAIT_S = 60.0
FORMATS = {"f32le": ("<f4", 1.0), "s16le": ("<i2", 32768.0), "s32le": ("<i4", 2147483648.0)}
ADDRESS = re.compile(r"\[\w+ @ 0x[0-9a-f]+\] ")  # differs on each start, so that the same message would look new
SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)")

Chunk = tuple[Array, bool]


class SampleStream(Protocol):
    """A stream of samples at `rate` Hz."""

    @property
    def rate(self) -> int:
        """Samples a second."""

    @property
    def problem(self) -> str:
        """Why no samples come, or ""."""

    @property
    def finite(self) -> bool:
        """Whether the stream is a file, whose end is no problem."""

    @property
    def is_ahead(self) -> bool:
        """Whether the samples come faster than real time, so that they can wait to be read."""

    def chunks(self, stop: threading.Event) -> Iterator[Chunk | None]:
        """Samples (C, N) with whether samples are missing before them; None while no samples come."""


class Pace:
    """Tells a recording that is read as fast as it can be from a live stream, which gives a second of sound a second.

    The lead over real time grows by the length of each block and shrinks with time, a hundredth faster: two clocks
    differ. A live stream catches up after it was held up, but is never AHEAD_S before its time.
    """

    def __init__(self) -> None:
        self._lead_s, self._at = 0.0, math.nan
        self._ahead = False

    def is_ahead(self, seconds: float, now: float) -> bool:
        """Take a block of `seconds` that came at `now` (s of a steady clock)."""
        passed = 0.0 if math.isnan(self._at) else now - self._at
        self._lead_s, self._at = max(-LATEST_S, self._lead_s + seconds - 1.01 * passed), now
        self._ahead = self._ahead or self._lead_s > AHEAD_S
        return self._ahead


class Pcm:
    """Raw interleaved samples from a file object, until it ends; `form` is one of FORMATS."""

    def __init__(self, file: IO[bytes], rate: int, channels: int = 2, form: str = "f32le") -> None:
        self.file, self.rate, self.channels = file, integer("rate", rate), integer("channels", channels)
        self.form = one_of("sample format", form, FORMATS)
        self.finite, self.is_ahead, self.problem = False, False, ""
        self._pace = Pace()

    def chunks(self, stop: threading.Event) -> Iterator[Chunk | None]:
        kind, scale = FORMATS[self.form]
        frame = np.dtype(kind).itemsize * self.channels
        rest = b""
        for data in _read_blocks(self.file, round(CHUNK_S * self.rate) * frame, stop):
            if data is None:
                yield None
                continue
            rest += data
            whole_frames, rest = rest[: len(rest) // frame * frame], rest[len(rest) // frame * frame :]
            samples = np.frombuffer(whole_frames, kind).astype(np.float32) / np.float32(scale)
            if len(samples):
                self.is_ahead = self._pace.is_ahead(len(samples) / self.channels / self.rate, monotonic())
                yield np.ascontiguousarray(samples.reshape(-1, self.channels).T), False


class Ffmpeg:
    """The samples of anything that ffmpeg opens: rtsp://, http(s)://, a file, a device."""

    def __init__(
        self,
        url: str,
        rate: int,
        *,
        channels: int = 2,
        near: int = 0,
        far: int | None = 1,
        options: tuple[str, ...] = (),
        stall_s: float = 20.0,
        first_wait_s: float = 1.0,
    ) -> None:
        self.url, self.rate, self.channels = url, integer("rate", rate), integer("channels", channels)
        self.near, self.far, self.options = near, far, options
        self.stall_s, self.first_wait_s = stall_s, first_wait_s
        self.finite = Path(url).is_file()
        self.problem, self.restarts, self.is_ahead = "", 0, False
        self._messages: deque[str] = deque(maxlen=8)

    def chunks(self, stop: threading.Event) -> Iterator[Chunk | None]:
        """See `SampleStream`; ends at the end of a file, or when it is stopped."""
        wait, gap = 0.0, False
        while not stop.is_set():
            seconds = 0.0
            process, messages = self._start()
            try:
                for chunk in self._read(process, stop):
                    if chunk is not None:
                        seconds += chunk[0].shape[1] / self.rate
                        self.problem = ""
                        yield chunk[0], gap
                        gap = False
                    else:
                        yield None
            finally:
                _terminate(process)
            if stop.is_set() or (self.finite and process.returncode == 0):
                return
            messages.join(2.0)  # until what it said last is there
            gap = True
            self.restarts += 1
            self.problem = f"{hide(self.url)}: {self.last_messages() or 'the stream ended'}; trying again"
            wait = 0.0 if seconds > LONGEST_WAIT_S else min(max(self.first_wait_s, 2 * wait), LONGEST_WAIT_S)
            yield None
            for _ in range(round(wait / 0.5)):
                if stop.wait(0.5):
                    return
                yield None

    def last_messages(self) -> str:
        """The last messages of ffmpeg, without passwords."""
        return hide(" | ".join(list(self._messages)[-2:]))

    def command(self) -> list[str]:
        """The command line: all channels, as they are, as an AU file of 32-bit floats on stdout.

        The header of the AU file tells how many channels there are. With `-ac`, ffmpeg would mix them.
        """
        over_tcp = ["-rtsp_transport", "tcp"] if self.url.startswith("rtsp") else []
        quiet = ["-nostdin", "-hide_banner", "-loglevel", "warning"]
        form = ["-vn", "-f", "au", "-c:a", "pcm_f32be", "-ar", str(self.rate), "-"]
        return ["ffmpeg", *quiet, *over_tcp, *self.options, "-i", self.url, *form]

    def _picked(self, file: IO[bytes], stop: threading.Event) -> Iterator[Chunk | None]:
        """The near and far channel of an AU file, as a file of one channel gives near alone; see `SampleStream`."""
        rest, rows, channels, pace = b"", [0], 0, Pace()
        for data in _read_blocks(file, round(CHUNK_S * self.rate) * 8, stop):
            if data is None:
                yield None
                continue
            rest += data
            if not channels:
                start = int.from_bytes(rest[4:8], "big")
                if len(rest) < max(AU_HEADER, start):
                    continue
                channels, rest = int.from_bytes(rest[20:24], "big"), rest[start:]
                if channels > 1 or self.near:
                    rows = [self.near] if self.channels == 1 or self.far is None else [self.near, self.far]
                if max(rows) >= channels:
                    has = "one channel, 0" if channels == 1 else f"channels 0 to {channels - 1}"
                    self._messages.append(f"it has {has}, and channel {max(rows)} was asked for")
                    self.problem = f"{hide(self.url)}: {self._messages[-1]}"
                    return
            whole = len(rest) // (4 * channels) * 4 * channels
            samples, rest = np.frombuffer(rest[:whole], ">f4").reshape(-1, channels), rest[whole:]
            if len(samples):
                self.is_ahead = pace.is_ahead(len(samples) / self.rate, monotonic())
                yield np.ascontiguousarray(samples.T[rows], np.float32), False

    def _start(self) -> tuple[subprocess.Popen[bytes], threading.Thread]:
        """The process, and the thread that keeps its messages."""
        try:
            process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError:
            raise FileNotFoundError(
                f"ffmpeg is needed for URLs and is not installed: {INSTALL_FFMPEG} (or monitor a folder instead)"
            ) from None
        messages = threading.Thread(target=self._keep_messages, args=(process.stderr,), daemon=True)
        messages.start()
        return process, messages

    def _keep_messages(self, stderr: IO[bytes]) -> None:
        for line in stderr:
            self._messages.append(ADDRESS.sub("", line.decode(errors="replace")).strip()[:300])

    def _read(self, process: subprocess.Popen[bytes], stop: threading.Event) -> Iterator[Chunk | None]:
        assert process.stdout is not None
        silent_s = 0.0
        for chunk in self._picked(process.stdout, stop):
            silent_s = 0.0 if chunk is not None else silent_s + POLL_S
            if silent_s >= self.stall_s:
                self._messages.append(f"no sound for {silent_s:.0f} s")
                return
            yield chunk


class Microphone:
    """An input of a sound card by name or number (None: the default one); needs `sounddevice`."""

    def __init__(self, device: str | int | None, rate: int, *, near: int = 0, far: int | None = 1) -> None:
        try:
            import sounddevice
        except ImportError:
            raise ImportError('a microphone needs sounddevice: pip install "nearfar[mic]"') from None
        except OSError as error:  # the wheels for Windows and macOS bring PortAudio along
            repair = {"win32": "pip install --force-reinstall sounddevice", "darwin": "brew install portaudio"}
            install = repair.get(sys.platform, "apt install libportaudio2")
            raise ImportError(f"a microphone needs PortAudio ({error}): {install}") from None
        self.device, self.rate, self.near, self.far = device, integer("rate", rate), near, far
        self.finite, self.is_ahead, self.problem = False, False, ""
        self._sounddevice: Any = sounddevice

    def chunks(self, stop: threading.Event) -> Iterator[Chunk | None]:
        """See `SampleStream`; a device that fails is opened again after a while."""
        rows = [self.near] if self.far is None else [self.near, self.far]
        gap, dropped = False, threading.Event()  # dropped: a chunk before the next one was
        while not stop.is_set():
            waiting: queue.Queue[tuple[Array, bool]] = queue.Queue(AHEAD)

            def receive(data: Array, frames: int, time: Any, status: Any, waiting: Any = waiting) -> None:
                if waiting.full():  # not read in time: drop the oldest chunk
                    waiting.get_nowait()
                    dropped.set()
                waiting.put_nowait((data.T[rows].copy(), bool(status.input_overflow)))

            try:
                with self._sounddevice.InputStream(
                    device=self.device,
                    samplerate=self.rate,
                    channels=max(rows) + 1,
                    dtype="float32",
                    blocksize=round(CHUNK_S * self.rate),
                    callback=receive,
                ):
                    self.problem = ""
                    while not stop.is_set():
                        try:
                            samples, lost = waiting.get(timeout=POLL_S)
                        except queue.Empty:
                            yield None
                            continue
                        gap = gap or lost or dropped.is_set()
                        dropped.clear()
                        yield samples, gap
                        gap = False
            except (self._sounddevice.PortAudioError, ValueError) as error:
                self.problem, gap = f"microphone {self.device!r}: {error}; trying again", True
                for _ in range(10):
                    yield None
                    if stop.wait(POLL_S):
                        return


def _read_blocks(file: IO[bytes], size: int, stop: threading.Event) -> Iterator[bytes | None]:
    """Blocks of at most `size` bytes as they come, None every POLL_S without one; ends where the file does."""
    waiting: queue.Queue[bytes] = queue.Queue(AHEAD)
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)  # read1 returns what is there; read waits for all

    def wait() -> None:
        data = b"."
        while data and not stop.is_set():
            try:
                data = read(size)
            except (OSError, ValueError):  # closed meanwhile
                data = b""
            while not stop.is_set():
                try:
                    waiting.put(data, timeout=POLL_S)
                    break
                except queue.Full:
                    continue

    threading.Thread(target=wait, daemon=True).start()
    while not stop.is_set():
        try:
            data = waiting.get(timeout=POLL_S)
        except queue.Empty:
            yield None
            continue
        if not data:
            return
        yield data


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, kill it if that does not help, and close its pipe."""
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def hide(text: str) -> str:
    """`text` without the user names and passwords of URLs."""
    return SECRET.sub("***", text)
