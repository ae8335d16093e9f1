"""The command `record`: guided recording of normal sound."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.cli.live import stopped_by_signals
from nearfar.cli.options import command
from nearfar.cli.terminal import echo, echo_wrapped, warn

if TYPE_CHECKING:
    from nearfar.live.sources.open import Source

SILENT_S = 30.0  # without any sound, after which recording ends with an error
MOST_REFUSED = 3  # unusable recordings in a row that end it
DEVICE = "A microphone as `--devices` lists it, mic, mic:2, or what `nearfar monitor --source` takes"


@command
def record(
    near: Annotated[str | None, typer.Option(metavar="DEVICE", help=f"{DEVICE} [mic].")] = None,
    far: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="The far microphone, if it is a device of its own.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the recordings.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Recordings of this session.")] = 20,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of a recording.")] = 10.0,
    every: Annotated[float, typer.Option(min=0, help="Seconds between the starts of two [one after the other].")] = 0.0,
    mono: Annotated[bool, typer.Option("--mono", help="There is no far microphone.")] = False,
    rate: Annotated[int, typer.Option(min=8000, help="Sample rate in Hz.")] = 48_000,
    devices: Annotated[bool, typer.Option("--devices", help="List the microphones of this computer.")] = False,
) -> None:
    """Example: nearfar record --near alsa:hw:1 -o normals/ --every 600

    Record normal sound, with a check of the microphones; stop with Ctrl-C, and run it again on another day to continue.
    """
    if devices:
        _list_devices()
        return
    from nearfar.live.record import backing, stock
    from nearfar.live.sources.open import open_source
    from nearfar.live.sources.options import SourceOptions

    if output is None:
        raise ValueError("where to? Give a folder: nearfar record -o normals/")
    names = [near or "mic", *([far] if far else [])]
    settings = SourceOptions(seconds, seconds, rate, time.time, lambda *_: None, far=None if mono else 1)
    source = open_source(names, settings)
    before = stock(output)
    if before.recordings:
        echo(f"Continued     {output}: {backing(before)}")
    echo_wrapped("Record        with the machine running as it should. Ctrl-C keeps what is there.")
    taken = _record(source, output, count, every)
    if taken == 0 and source.problem:
        raise ValueError(f"nothing was recorded: {source.problem}")
    after = stock(output)
    echo(f"Recorded      {taken}; in {output} now: {backing(after)}")
    echo_wrapped(f"Next          {after.missing or f'nearfar doctor {output}, then nearfar fit {output} -o MODEL'}")


def _record(source: Source, folder: Path, count: int, every: float) -> int:
    """Record until `count`, the end of the source or Ctrl-C; returns how many recordings were written."""
    from nearfar.live.record import record as recordings

    stop, written, told, silent, refused = stopped_by_signals(), 0, "", time.monotonic(), 0
    for taken in recordings(source, folder, stop, count=count, every_s=every):
        if taken is None:
            if time.monotonic() - silent > SILENT_S and not written:
                _end(stop, source.problem)
            continue
        silent = time.monotonic()
        written += taken.file is not None
        name = taken.file.name if taken.file else "not kept"
        echo(f"{written:>4} of {count:<6} {name}  {taken.text()}")
        if (said := "; ".join(taken.problems)) != told:
            told = said
            if said:
                warn(f"              {said}")
        refused = 0 if taken.file else refused + 1
        if refused == MOST_REFUSED:
            raise ValueError(f"{refused} recordings in a row could not be used: {said}")
    return written


def _end(stop: threading.Event, problem: str) -> None:
    stop.set()
    raise ValueError(f"no sound came for {SILENT_S:.0f} s: {problem or 'is the right microphone chosen?'} "
                     "(nearfar record --devices lists them)")  # fmt: skip


def _list_devices() -> None:
    from nearfar.live.sources.devices import devices

    found = devices()
    for device in found:
        echo(f"{device.source}  {device.label}")
    if not found:
        warn("no microphone was found: is one plugged in, and may this user use it?")
