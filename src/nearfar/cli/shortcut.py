"""The command `install-shortcut`: a double click opens nearfar in the browser, as `nearfar` without a command does."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli.options import command
from nearfar.cli.terminal import echo
from nearfar.support.files import atomic_write, user_home

POWERSHELL_S = 60.0
NAME = "nearfar"


@command
def install_shortcut(remove: Annotated[bool, typer.Option("--remove", help="Remove it again.")] = False) -> None:
    """Example: nearfar install-shortcut

    Put a shortcut on the desktop (Windows, macOS) or among the applications (Linux) that opens nearfar in the browser.
    """
    home = user_home()
    if remove:
        gone = [path for path in places(sys.platform, home) if path.exists()]
        for path in gone:
            path.unlink()
        echo("\n".join(f"Removed       {path}" for path in gone) or "there was no shortcut")
        return
    echo(f"Shortcut      {install(sys.platform, home, sys.executable)}")


def places(system: str, home: Path) -> list[Path]:
    """Where the shortcut of a system (`sys.platform`) may be."""
    if system == "win32":
        desktops = (home / "Desktop", home / "OneDrive" / "Desktop")
        return [desktop / f"{NAME}{ending}" for desktop in desktops for ending in (".lnk", ".cmd")]
    if system == "darwin":
        return [home / "Desktop" / f"{NAME}.command"]
    return [home / ".local" / "share" / "applications" / f"{NAME}.desktop"]


def install(system: str, home: Path, python: str) -> Path:
    """Make the shortcut of a system, which runs nearfar with this Python; the path of the shortcut."""
    if system == "win32":
        return _windows(home, python)
    (path,) = places(system, home)
    text, mode = (command_file(python), 0o755) if system == "darwin" else (desktop_file(python), 0o644)
    return atomic_write(path, text, mode=mode)


def desktop_file(python: str) -> str:
    """A .desktop file, by the freedesktop.org specification. It keeps a terminal open: closing that stops nearfar."""
    quoted = "".join(f"\\\\{c}" if c in '"`$\\' else c for c in python).replace("%", "%%")
    entries = {
        "Type": "Application",
        "Name": NAME,
        "Comment": "Hears when a machine sounds wrong",
        "Exec": f'"{quoted}" -m nearfar',
        "Icon": str(files("nearfar.live") / "static" / "icon.svg"),
        "Terminal": "true",
        "Categories": "AudioVideo;Science;",
    }
    return "[Desktop Entry]\n" + "".join(f"{key}={value}\n" for key, value in entries.items())


def command_file(python: str) -> str:
    """A .command file, which the Finder of macOS runs in Terminal."""
    return f"#!/bin/sh\nexec {shlex.quote(python)} -m nearfar\n"


def powershell_script(python: str) -> str:
    """Makes the .lnk on the user's desktop, wherever that is, and prints its path."""
    quoted = python.replace("'", "''")
    return (
        "[Console]::OutputEncoding = [Text.Encoding]::UTF8; "
        f"$path = Join-Path ([Environment]::GetFolderPath('Desktop')) '{NAME}.lnk'; "
        "$link = (New-Object -ComObject WScript.Shell).CreateShortcut($path); "
        f"$link.TargetPath = '{quoted}'; $link.Arguments = '-m nearfar'; "
        "$link.Description = 'Hears when a machine sounds wrong'; $link.Save(); Write-Output $path"
    )


def cmd_file(python: str) -> str:
    """A .cmd file, for Windows where PowerShell is not allowed."""
    return f'@echo off\r\nchcp 65001 >nul\r\n"{python.replace("%", "%%")}" -m nearfar\r\nif errorlevel 1 pause\r\n'


def _windows(home: Path, python: str) -> Path:
    run = ["powershell", "-NoProfile", "-NonInteractive", "-Command", powershell_script(python)]
    try:
        done = subprocess.run(run, capture_output=True, timeout=POWERSHELL_S, check=True)
        return Path(done.stdout.decode("utf-8").strip())
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        desktops = [path for path in places("win32", home) if path.suffix == ".cmd"]
        path = next((path for path in desktops if path.parent.is_dir()), desktops[0])
        return atomic_write(path, cmd_file(python))
