"""Microphones of this computer, as names of sources: `alsa:hw:1`, `dshow:audio=NAME`, `avfoundation::0`, `mic:2`.

ffmpeg opens the first three on Linux, Windows and macOS; `mic:` needs `sounddevice`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

from nearfar.support.words import install_command

FORMATS = ("alsa", "pulse", "dshow", "avfoundation")  # of ffmpeg, in front of the name of a device
INSTALL_FFMPEG = install_command("ffmpeg", "ffmpeg", "Gyan.FFmpeg")
QUIET = ["ffmpeg", "-hide_banner", "-nostdin"]
COMMANDS = {
    "linux": [[*QUIET, "-sources", "alsa"], [*QUIET, "-sources", "pulse"]],
    "win32": [[*QUIET, "-list_devices", "true", "-f", "dshow", "-i", "dummy"]],
    "darwin": [[*QUIET, "-f", "avfoundation", "-list_devices", "true", "-i", ""]],
}
SOURCE = re.compile(r"^[* ] (\S+) \[(.*?)\](?: \((.*)\))?$")
DSHOW = re.compile(r'^\[.*?\] +"(.+)" \(.*audio.*\)$')
AVFOUNDATION = re.compile(r"^\[.*?\] \[(\d+)\] (.+)$")
LISTING_S = 10.0


@dataclass(frozen=True)
class Device:
    """A microphone: its name as a source, and what the system calls it."""

    source: str
    label: str


def devices() -> list[Device]:
    """The microphones that ffmpeg and sounddevice know here; FileNotFoundError if neither is installed."""
    found, sounddevice = [], _of_sounddevice()
    for command in COMMANDS.get(sys.platform, COMMANDS["linux"]):
        try:
            listed = subprocess.run(command, capture_output=True, timeout=LISTING_S, check=False)
        except FileNotFoundError:
            if sounddevice is None:
                raise FileNotFoundError(
                    "microphones are listed by ffmpeg or by sounddevice, and neither is installed: "
                    f'{INSTALL_FFMPEG}, or pip install "nearfar[mic]"'
                ) from None
            break
        except subprocess.TimeoutExpired:
            continue
        found += parse((listed.stdout + listed.stderr).decode(errors="replace"), command)
    return [*found, *(sounddevice or [])]


def parse(text: str, command: list[str]) -> list[Device]:
    """The microphones in what one of COMMANDS printed."""
    lines = text.splitlines()
    if "dshow" in command:
        return [Device(f"dshow:audio={m[1]}", m[1]) for m in map(DSHOW.match, lines) if m]
    if "avfoundation" in command:
        start = next((i for i, line in enumerate(lines) if "audio devices" in line), len(lines))
        return [Device(f"avfoundation::{m[1]}", m[2]) for m in map(AVFOUNDATION.match, lines[start:]) if m]
    matches = [m for m in map(SOURCE.match, lines) if m and not m[1].endswith(".monitor")]
    if command[-1] == "alsa":  # the others are plug-ins, such as converters of the rate
        matches = [m for m in matches if ":" in m[1] or m[1] == "default"]
    return [Device(f"{command[-1]}:{m[1]}", m[2]) for m in matches]


def _of_sounddevice() -> list[Device] | None:
    try:
        import sounddevice
    except (ImportError, OSError):  # OSError: PortAudio itself is missing
        return None
    every = enumerate(sounddevice.query_devices())
    return [Device(f"mic:{i}", d["name"]) for i, d in every if d["max_input_channels"] > 0]
