"""A source by its name -> windows: what is written after `nearfar monitor --source`.

    /path/to/folder               files as they are completed (`folder`)
    mic, mic:2, mic:USB           a microphone by number or name (`feeds.Microphone`)
    -                             raw PCM on stdin (`feeds.Pcm`)
    rtsp://..., http://..., file  whatever ffmpeg opens (`feeds.Ffmpeg`)
    two of those                  near and far from a stream each (`pair`)

A source gives windows of one machine, None while nothing comes, and ends when it is exhausted or told to stop. `live`
says whether sound is lost that nobody takes: a folder and a file wait for us, so nothing of them is ever dropped.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nearfar.live.sources.aligned import AlignedPair
from nearfar.live.sources.folder import Folder, Report
from nearfar.live.sources.streams import Ffmpeg, Microphone, Pcm, SampleStream, hide
from nearfar.live.sources.windows import Block, SampleClock, Window, Windower


class Source(Protocol):
    """Windows of one machine; see the module."""

    @property
    def live(self) -> bool:
        """Whether sound is lost that nobody takes."""
        ...

    @property
    def problem(self) -> str:
        """Why nothing comes, or ""."""
        ...

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        """Windows as they are complete, None at least every few seconds without."""
        ...


class Stream:
    """The windows of a feed; a file waits for us as a folder does."""

    def __init__(self, feed: SampleStream, window_s: float, hop_s: float, clock: Callable[[], float]) -> None:
        self.feed = feed
        self.live = not (isinstance(feed, Ffmpeg) and feed.finite)
        self.cutter = Windower(window_s, hop_s)
        self._timeline = SampleClock(clock, feed.rate)

    @property
    def problem(self) -> str:
        """What is wrong with the feed, or ""."""
        return self.feed.problem

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        """See `Source`."""
        for chunk in self.feed.chunks(stop):
            if chunk is None:
                yield None
                continue
            samples, gap = chunk
            start = self._timeline.stamp(samples.shape[1], gap=gap)
            yield from self.cutter.put(Block(start, samples, self.feed.rate, gap))


@dataclass(frozen=True)
class Listening:
    """How a machine's sources are listened to; the window is the detector's."""

    window_s: float
    hop_s: float
    rate: int
    clock: Callable[[], float]
    report: Report
    near: int = 0
    far: int | None = 1
    ledger: Path | None = None
    once: bool = False
    channels: int = 2  # of raw PCM: 2 are near and far, 1 is near alone
    form: str = "f32le"  # of raw PCM
    options: tuple[str, ...] = ()  # for ffmpeg, before -i
    poll_s: float = 2.0
    settle_s: float = 3.0


def open_source(names: Sequence[str], how: Listening) -> Source:
    """The source with this name, or near and far of two. ValueError or FileNotFoundError if there can be none."""
    if len(names) == 2:
        near, far = (_feed(name, how, channels=1) for name in names)
        return Stream(AlignedPair(near, far), how.window_s, how.hop_s, how.clock)
    if len(names) != 1:
        raise ValueError(f"a machine has one source, or two (near and far), not {len(names)}")
    if Path(names[0]).is_dir():
        return Folder(
            Path(names[0]),
            how.window_s,
            clock=how.clock,
            report=how.report,
            ledger=how.ledger,
            near=how.near,
            far=how.far,
            poll_s=how.poll_s,
            settle_s=how.settle_s,
            once=how.once,
        )
    return Stream(_feed(names[0], how, channels=2), how.window_s, how.hop_s, how.clock)


def is_folder(names: Sequence[str]) -> bool:
    """Whether this source is a folder of files."""
    return len(names) == 1 and Path(names[0]).is_dir()


def _feed(name: str, how: Listening, channels: int) -> SampleStream:
    if name == "-":
        return Pcm(sys.stdin.buffer, how.rate, min(channels, how.channels), how.form)
    kind, _, device = name.partition(":")
    if kind == "mic":
        far = how.far if channels == 2 else None
        return Microphone(int(device) if device.isdecimal() else device or None, how.rate, near=how.near, far=far)
    if "://" not in name and not Path(name).exists() and not how.options:
        raise FileNotFoundError(f"no such source: {hide(name)} is no folder, file or URL, nor mic or - (stdin)")
    return Ffmpeg(name, how.rate, channels=channels, near=how.near, far=how.far, options=how.options)
