"""The name of a source, as in `nearfar monitor --source`, -> its windows.

    /path/to/folder               files as they are completed (`FolderSource`)
    mic, mic:2, mic:USB           a microphone by number or name (`Microphone`)
    -                             raw PCM on stdin (`Pcm`)
    alsa:hw:1, dshow:audio=NAME   a microphone that ffmpeg opens, as `devices` lists it
    rtsp://..., http://..., file  whatever ffmpeg opens (`Ffmpeg`)
    two of those                  near and far from a stream each (`AlignedPair`)

A source gives the windows of one machine, None while no sound comes, and ends when it is exhausted or stopped. After
an error it may be read again. The sound of a `live` source is lost if it is not read in time. A folder, a file and a
pipe that is faster than real time wait, so none of their windows is ever dropped. Only a `finite` source should end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from nearfar.live.sources.aligned import AlignedPair
from nearfar.live.sources.devices import FORMATS
from nearfar.live.sources.folder import FolderSource
from nearfar.live.sources.streams import Ffmpeg, Microphone, Pcm, SampleStream, hide
from nearfar.live.sources.windows import SampleBlock, SampleClock, SourceOptions, Window, Windower


class Source(Protocol):
    """Windows of one machine; see the module."""

    @property
    def live(self) -> bool:
        """Whether sound is lost if it is not read in time."""

    @property
    def finite(self) -> bool:
        """Whether the end of the source is no problem."""

    @property
    def problem(self) -> str:
        """Why no windows come, or ""."""

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        """Windows as they are completed, and None at least every few seconds."""


class StreamSource:
    """The windows of a stream of samples."""

    def __init__(self, stream: SampleStream, window_s: float, hop_s: float, clock: Callable[[], float]) -> None:
        self.stream = stream
        self._windower = Windower(window_s, hop_s)
        self._clock = SampleClock(clock, stream.rate)
        self._again = False  # the stream was read before, and failed

    @property
    def live(self) -> bool:
        return not (self.stream.finite or self.stream.is_ahead)

    @property
    def finite(self) -> bool:
        return self.stream.finite

    @property
    def problem(self) -> str:
        """Why no samples come, or ""."""
        return self.stream.problem

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        self._again = self._windower.begun
        for chunk in self.stream.chunks(stop):
            if chunk is None:
                yield None
                continue
            samples, gap = chunk[0], chunk[1] or self._again
            self._again = False
            start = self._clock.stamp(samples.shape[1], gap=gap)
            yield from self._windower.put(SampleBlock(start, samples, self.stream.rate, gap))


def open_source(names: Sequence[str], options: SourceOptions) -> Source:
    """The source with this name, or near and far from two; ValueError or FileNotFoundError for a wrong name."""
    if len(names) == 2:
        near, far = (_stream(name, options, channels=1) for name in names)
        return StreamSource(AlignedPair(near, far), options.window_s, options.hop_s, options.clock)
    if len(names) != 1:
        raise ValueError(f"a machine has one source, or two (near and far), not {len(names)}")
    if Path(names[0]).is_dir():
        return FolderSource(Path(names[0]), options)
    return StreamSource(_stream(names[0], options, channels=2), options.window_s, options.hop_s, options.clock)


def is_folder(names: Sequence[str]) -> bool:
    """Whether the source is a folder of files."""
    return len(names) == 1 and Path(names[0]).is_dir()


def _stream(name: str, options: SourceOptions, channels: int) -> SampleStream:
    if name == "-":
        return Pcm(sys.stdin.buffer, options.rate, min(channels, options.channels), options.form)
    kind, _, device = name.partition(":")
    if kind == "mic":
        far = options.far if channels == 2 else None
        return Microphone(
            int(device) if device.isdecimal() else device or None, options.rate, near=options.near, far=far
        )
    if kind in FORMATS:
        options = replace(options, options=("-f", kind, *options.options))
        name = device
    if "://" not in name and not Path(name).exists() and not options.options:
        raise FileNotFoundError(f"no such source: {hide(name)} is not a folder, a file, a URL, mic or - (stdin)")
    return Ffmpeg(name, options.rate, channels=channels, near=options.near, far=options.far, options=options.options)
