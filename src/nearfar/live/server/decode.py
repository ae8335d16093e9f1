"""Decodes recordings from outside in separate processes with limited memory and time.

    body    a WAV, FLAC, OGG or MP3 file, or raw PCM with its rate and channels (a WAV header is put before it)
    out     the same clips that `audio.windows` makes of the file, so the same scores, bit for bit

A decoder that reads hostile bytes can loop, use up the memory or crash. Then its process is killed, the sender gets an
error, and the next recording gets a new process. The length is checked by the header before anything is decoded, and
again while decoding, because a header may be wrong. A sender's file name is never used as a path, only shown. Parent
and worker exchange JSON and samples, never pickles.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.errors import AudioError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PCM = {"s16le": (1, 2), "f32le": (3, 4)}  # name -> WAV format code, bytes a sample
RATES_HZ = (1_000, 384_000)
MOST_CHANNELS = 16
HEADER = 44  # bytes of the WAV header that is put before raw PCM
START_S = 60.0  # time for a worker to start on a busy machine
NAME = 120  # characters of a sender's file name that are kept
ANSWER = 1 << 20  # the most bytes of a worker's answer, without the samples
CRASHED = "decoding it crashed the decoder; is the file damaged?"


@dataclass(frozen=True)
class Bounds:
    """The limits for one recording: its length, the time to decode it, and memory beyond that of an idle worker."""

    seconds: float = 600.0
    wall_s: float = 30.0
    memory_bytes: int = 768 << 20


class Decoder:
    """Decodes files into clips, at most `workers` at a time; further callers wait. Thread-safe."""

    def __init__(self, bounds: Bounds | None = None, workers: int = 2) -> None:
        self.bounds, self.workers = bounds or Bounds(), workers
        self.replaced = 0  # workers that were killed or crashed
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)  # started on first use

    def clips(self, path: Path, name: str, *, near: int, far: int | None, window_s: float) -> list[Clip]:
        """The clips of the file at `path`, which the sender calls `name`; AudioError if it cannot be used."""
        name = display_name(name)
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive:
                worker = _Worker(self.bounds)
            order = {"path": str(path), "near": near, "far": far, "window_s": window_s, "seconds": self.bounds.seconds}
            return worker.clips(order, name)
        except _WorkerLost as lost:
            self.replaced += 1
            if worker is not None:
                worker.kill()
            worker = None
            raise AudioError(f"{name}: {lost}") from None
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Stop the idle workers; busy ones stop after their recording."""
        with contextlib.suppress(queue.Empty):
            while True:
                worker = self._idle.get_nowait()
                if worker is not None:
                    worker.kill()


def wav_header(kind: str, rate: int, channels: int, size: int) -> bytes:
    """The HEADER bytes that turn `size` bytes of PCM into a WAV file; AudioError if the size does not fit."""
    code, width = PCM[kind]
    block = width * channels
    if not size or size % block:
        what = f"{size} bytes are no whole number of samples of {channels} x {width} bytes"
        raise AudioError(f"the recording's {what}; are ?pcm= and ?channels= right?")
    sizes = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, code, channels, rate, rate * block,
                        block, 8 * width)  # fmt: skip
    return sizes + struct.pack("<4sI", b"data", size)


def display_name(name: str) -> str:
    """The last part of a sender's file name, with printable characters only and at most NAME of them."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable())[-NAME:].strip() or "recording"


class _WorkerLost(Exception):
    """A worker crashed or must be killed; the message is for the sender."""


class _Worker:
    def __init__(self, bounds: Bounds) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.bounds = bounds
        self.process = context.Process(target=_work, args=(theirs, bounds.memory_bytes), daemon=True)
        self.process.start()
        theirs.close()
        self._receive(16, START_S)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def clips(self, order: dict[str, Any], name: str) -> list[Clip]:
        try:
            self.pipe.send_bytes(json.dumps(order).encode())
            answer = json.loads(self._receive(ANSWER, self.bounds.wall_s))
            if "error" not in answer:
                return [self._clip(name, *head) for head in answer["clips"]]
            error, kind = str(answer["error"]), str(answer["kind"])
        except (ValueError, KeyError, TypeError, OSError):  # a decoder that was taken over may answer anything
            raise _WorkerLost(CRASHED) from None
        raise AudioError(f"{name}: {error.removeprefix(Path(order['path']).name + ': ')}", kind)

    def _clip(self, name: str, start: str | None, channels: int, rate: int, missing_s: float) -> Clip:
        samples = np.frombuffer(self._receive(self.bounds.memory_bytes, self.bounds.wall_s), np.float32)
        samples = samples.reshape(channels, -1)
        label = name if start is None else f"{name}@{start}"
        far = samples[1] if channels > 1 else None
        return Clip(samples[0], far, rate, label, missing_s=float(missing_s))

    def _receive(self, most: int, seconds: float) -> bytes:
        if not self.pipe.poll(seconds):
            raise _WorkerLost(f"decoding it took more than {seconds:g} s, which is the limit; is the file damaged?")
        try:
            return self.pipe.recv_bytes(most)
        except (EOFError, OSError):
            raise _WorkerLost(CRASHED) from None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, memory_bytes: int) -> None:
    """The worker: reads orders and sends clips, until the pipe closes."""
    import signal

    import soundfile  # noqa: F401  loaded before memory is limited

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers
    _limit_memory(memory_bytes)
    pipe.send_bytes(b"ready")
    with contextlib.suppress(EOFError, OSError):
        while True:
            order = json.loads(pipe.recv_bytes())
            try:
                clips = list(_clips(**order))
            except MemoryError:
                _refuse(pipe, "needs more memory than the limit; is its header damaged?", "unreadable")
            except (ValueError, OSError) as error:
                _refuse(pipe, str(error), getattr(error, "kind", "unreadable"))
            else:
                pipe.send_bytes(json.dumps({"clips": [head for head, _ in clips]}).encode())
                for _, samples in clips:
                    pipe.send_bytes(samples.data)
            clips = []


def _clips(path: str, near: int, far: int | None, window_s: float, seconds: float) -> Iterator[tuple[list[Any], Any]]:
    """([start, channels, rate, missing_s], samples (channels, N)) of each clip of the file."""
    header = audio.header(path)
    if not RATES_HZ[0] <= header.rate <= RATES_HZ[1]:
        allowed = f"{RATES_HZ[0]:,} to {RATES_HZ[1]:,} Hz are allowed"
        raise AudioError(f"a rate of {header.rate:,} Hz is out of range; {allowed}")
    if header.channels > MOST_CHANNELS:
        raise AudioError(f"has {header.channels} channels, and at most {MOST_CHANNELS} are allowed")
    too_long = f"lasts longer than {seconds / 60:g} min, which is the limit; send it in parts"
    if np.isfinite(header.seconds) and header.seconds > seconds:
        raise AudioError(too_long, "too_long")
    total = 0.0
    for clip in audio.windows(path, near=near, far=far, length_s=window_s):
        total += clip.seconds
        if total > seconds:
            raise AudioError(too_long, "too_long")
        start = clip.name.rpartition("@")[2] if "@" in clip.name else None
        channels = [clip.near] if clip.far is None else [clip.near, clip.far]
        yield [start, len(channels), clip.rate, clip.missing_s], np.stack(channels)


def _refuse(pipe: Connection, text: str, kind: str) -> None:
    pipe.send_bytes(json.dumps({"error": text, "kind": kind}).encode())


def _limit_memory(more: int) -> None:
    """Limit the memory of this process to `more` bytes beyond its present use, if the system supports that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    statm = Path("/proc/self/statm")
    now = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 4 << 30
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
