"""The options of a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nearfar.audio import LONG_S

Report = Callable[[str, Exception], None]  # called with the name of a file that cannot be read, and why


@dataclass(frozen=True)
class SourceOptions:
    """How the sources of a machine are read."""

    window_s: float
    hop_s: float
    rate: int
    clock: Callable[[], float]
    report: Report
    whole_s: float = LONG_S  # of a folder: a file up to this length is one window
    near: int = 0
    far: int | None = 1
    ledger: Path | None = None  # of a folder: the file that lists the processed files
    once: bool = False  # of a folder: process the present files, then stop
    channels: int = 2  # of raw PCM: 2 are near and far, 1 is near alone
    form: str = "f32le"  # of raw PCM
    options: tuple[str, ...] = ()  # for ffmpeg, before -i
    poll_s: float = 2.0
    settle_s: float = 3.0
