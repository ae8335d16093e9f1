"""The command `record`: guided recording of normal sound."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli.live import stopped_by_signals
from nearfar.cli.options import command
from nearfar.cli.terminal import echo, echo_wrapped, warn

DEVICE = "A microphone as `--devices` lists it, mic, mic:2, or what `nearfar monitor --source` takes"


@dataclass(frozen=True)
class Takes:
    """Options: the recordings of a session."""

    count: Annotated[int | None, typer.Option(min=0, help="Recordings of this session [20].")] = None
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of a recording.")] = 10.0
    every: Annotated[float, typer.Option(min=0, help="Seconds between the starts of two [one after the other].")] = 0.0
    mono: Annotated[bool, typer.Option("--mono", help="There is no far microphone.")] = False
    rate: Annotated[int, typer.Option(min=8000, help="Sample rate in Hz.")] = 48_000


@command
def record(
    takes: Takes,
    near: Annotated[str | None, typer.Option(metavar="DEVICE", help=f"{DEVICE} [mic].")] = None,
    far: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="The far microphone, if it is a device of its own.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the recordings.")] = None,
    devices: Annotated[bool, typer.Option("--devices", help="List the microphones of this computer.")] = False,
) -> None:
    """Example: nearfar record --near alsa:hw:1 -o normals/ --every 600

    Record normal sound, with a check of the microphones; stop with Ctrl-C, and run it again on another day to continue.
    """
    if devices:
        list_devices()
        return
    from nearfar.live.setup.recording import ENOUGH, backing, stock

    if output is None:
        raise ValueError("where to? Give a folder: nearfar record -o normals/")
    names = [near or "mic", *([far] if far else [])]
    before = stock(output)
    if before.recordings:
        echo(f"Continued     {output}: {backing(before)}")
    count = ENOUGH if takes.count is None else takes.count
    taken = record_from(names, output, takes, count, stopped_by_signals(), mono=takes.mono)
    after = stock(output)
    echo(f"Recorded      {taken}; in {output} now: {backing(after)}")
    echo_wrapped(f"Next          {after.missing or f'nearfar doctor {output}, then nearfar fit {output} -o MODEL'}")


def record_from(
    names: Sequence[str], folder: Path, takes: Takes, count: int, stop: threading.Event, *, mono: bool
) -> int:
    """Record until `count`, the end of the source or `stop`; returns how many recordings were written.

    ValueError if no sound comes, or none that can be used.
    """
    from nearfar.live.setup.recording import SILENT_S
    from nearfar.live.setup.recording import record as recordings
    from nearfar.live.sources.open import open_source
    from nearfar.live.sources.windows import SourceOptions

    length, far = takes.seconds, None if mono else 1
    source = open_source(names, SourceOptions(length, length, takes.rate, time.time, lambda *_: None, far=far))
    echo_wrapped("Record        with the machine running as it should. Ctrl-C keeps what is there.")
    written, told, silent = 0, "", time.monotonic()
    for taken in recordings(source, folder, stop, count=count, every_s=takes.every):
        if taken is None:
            if time.monotonic() - silent > SILENT_S and not written:
                stop.set()
                why = source.problem or "is the right microphone chosen?"
                raise ValueError(f"no sound came for {SILENT_S:.0f} s: {why} (nearfar record --devices lists them)")
            continue
        silent = time.monotonic()
        written += taken.file is not None
        name = taken.file.name if taken.file else "not kept"
        echo(f"{written:>4} of {count:<6} {name}  {taken.text()}")
        if (said := "; ".join(taken.problems)) != told:
            told = said
            if said:
                warn(f"              {said}")
    if written == 0 and source.problem:
        raise ValueError(f"nothing was recorded: {source.problem}")
    return written


def list_devices() -> None:
    """Print the microphones of this computer, as names of sources."""
    from nearfar.live.sources.devices import devices

    found = devices()
    for device in found:
        echo(f"{device.source}  {device.label}")
    if not found:
        warn("no microphone was found: is one plugged in, and may this user use it?")
