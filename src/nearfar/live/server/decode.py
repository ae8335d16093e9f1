"""Decodes recordings from outside in separate processes with limited memory and time.

    body    a WAV, FLAC, OGG or MP3 file, or raw PCM with its rate and channels (a WAV header is put before it)
    out     the same clips that `audio.windows` makes of the file, so the same scores, bit for bit; one at a time

A decoder that reads hostile bytes can loop, use up the memory or crash. Then its process is killed, the sender gets an
error, and the next recording gets a new process. Length and samples are checked by the header before anything is
decoded, and again while decoding, because a header may be wrong. Only one window is in memory on either side. A
sender's file name is never used as a path, only shown. Parent and worker exchange JSON and samples, never pickles.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip, Limits
from nearfar.errors import AudioError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PCM = {"s16le": (1, 2), "f32le": (3, 4)}  # name -> WAV format code, bytes a sample
MOST_CHANNELS = 16
HEADER = 44  # bytes of the WAV header that is put before raw PCM
START_S = 60.0  # time for a worker to start on a busy machine
NAME = 120  # characters of a sender's file name that are kept
ANSWER = 1 << 20  # the most bytes of a worker's answer, without the samples
CRASHED = "decoding it crashed the decoder; is the file damaged?"


@dataclass(frozen=True)
class Bounds:
    """The limits for one recording.

    seconds        its length
    samples        of the channels that are used: 5 min of two channels at 48 kHz, 10 min at 24 kHz
    wall_s         the time to decode it
    memory_bytes   beyond that of an idle worker
    """

    seconds: float = 600.0
    samples: int = 28_800_000
    wall_s: float = 30.0
    memory_bytes: int = 512 << 20


class Decoder:
    """Decodes files into clips, at most `workers` at a time; further callers wait. Thread-safe."""

    def __init__(self, bounds: Bounds | None = None, workers: int = 2) -> None:
        self.bounds, self.workers = bounds or Bounds(), workers
        self.replaced = 0  # workers that were killed or crashed
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)  # started on first use

    def clips(
        self, path: Path, name: str, *, near: int, far: int | None, window_s: float, whole_s: float = audio.LONG_S
    ) -> Iterator[Clip]:
        """The clips of the file at `path`, which the sender calls `name`; AudioError if it cannot be used.

        A worker is busy with the file until its last clip is taken.
        """
        name = display_name(name)
        worker, is_ready = self._idle.get(), False
        try:
            if worker is None or not worker.alive:
                worker = _Worker(self.bounds)
            order = {"path": str(path), "near": near, "far": far, "window_s": window_s, "whole_s": whole_s}
            order |= {"seconds": self.bounds.seconds, "samples": self.bounds.samples}
            yield from worker.clips(order, name)
            is_ready = True
        except AudioError:  # the worker's own answer
            is_ready = True
            raise
        except _WorkerLost as lost:
            self.replaced += 1
            raise AudioError(f"{name}: {lost}") from None
        finally:
            if worker is not None and not is_ready:
                worker.kill()
            self._idle.put(worker if is_ready else None)

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
        self.bounds, self.left_s = bounds, bounds.wall_s  # seconds left for the present recording
        self.process = context.Process(target=_work, args=(theirs, bounds.memory_bytes), daemon=True)
        self.process.start()
        theirs.close()
        self._receive(16, START_S)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def clips(self, order: dict[str, Any], name: str) -> Iterator[Clip]:
        self.left_s = self.bounds.wall_s
        while True:
            try:
                if self.left_s == self.bounds.wall_s:
                    self.pipe.send_bytes(json.dumps(order).encode())
                answer = json.loads(self._receive(ANSWER, self.left_s))
                clip = self._clip(name, *answer["clip"]) if "clip" in answer else None
                error, kind = str(answer.get("error", "")), str(answer.get("kind", ""))
            except (ValueError, KeyError, TypeError, AttributeError, OSError):  # a decoder that was taken over may
                raise _WorkerLost(CRASHED) from None  # answer anything
            if error:
                raise AudioError(f"{name}: {error.removeprefix(Path(order['path']).name + ': ')}", kind)
            if clip is None:
                return
            yield clip

    def _clip(self, name: str, start: str | None, channels: int, rate: int, missing_s: float, codec: str) -> Clip:
        samples = np.frombuffer(self._receive(self.bounds.memory_bytes, self.left_s), np.float32)
        samples = samples.reshape(channels, -1)
        label = name if start is None else f"{name}@{start}"
        far = samples[1] if channels > 1 else None
        return Clip(samples[0], far, rate, label, missing_s=float(missing_s), codec=str(codec))

    def _receive(self, most: int, seconds: float) -> bytes:
        start = monotonic()
        if not self.pipe.poll(seconds):
            limit = f"{self.bounds.wall_s:g} s, which is the limit"
            raise _WorkerLost(f"decoding it took more than {limit}; is the file damaged?")
        self.left_s = max(0.001, self.left_s - (monotonic() - start))
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
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    _limit_memory(memory_bytes)
    pipe.send_bytes(b"ready")
    with contextlib.suppress(EOFError, OSError):
        while True:
            order = json.loads(pipe.recv_bytes())
            try:
                for head, samples in _clips(**order):
                    pipe.send_bytes(json.dumps({"clip": head}).encode())
                    pipe.send_bytes(samples.data)
                pipe.send_bytes(b"{}")
            except MemoryError:
                _refuse(pipe, "needs more memory than the limit; is its header damaged?", "unreadable")
            except BrokenPipeError:
                raise
            except (ValueError, OSError) as error:
                _refuse(pipe, str(error), getattr(error, "kind", "unreadable"))


def _clips(
    path: str, near: int, far: int | None, window_s: float, whole_s: float, seconds: float, samples: int
) -> Iterator[tuple[list[Any], Any]]:
    """([start, channels, rate, missing_s, codec], samples (channels, N)) of each clip of the file."""
    limits = Limits(seconds, MOST_CHANNELS, samples)
    for clip in audio.windows(path, near=near, far=far, length_s=window_s, whole_s=whole_s, limits=limits):
        start = clip.name.rpartition("@")[2] if "@" in clip.name else None
        sound = clip.samples
        yield [start, len(sound), clip.rate, clip.missing_s, clip.codec], sound


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
