"""What differs on Windows and macOS, simulated: shortcuts, files that are open elsewhere, signals, clocks, messages."""

import configparser
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import types
from datetime import datetime
from pathlib import Path

import pytest

from commands import nearfar
from conftest import RATE, hum, write_wav
from nearfar.cli import shortcut
from nearfar.cli.live import stopped_by_signals
from nearfar.cli.terminal import echo
from nearfar.live.machine import open_machine
from nearfar.live.sources.folder import FolderSource
from nearfar.live.sources.windows import SourceOptions
from nearfar.support import files, times
from nearfar.support.words import install_command, quoted
from plants import configured

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="simulates Windows elsewhere")


def test_linux_gets_an_entry_among_its_applications(tmp_path):
    path = shortcut.install("linux", tmp_path, '/opt/my "venv"/$x/python')
    assert path == tmp_path / ".local/share/applications/nearfar.desktop"
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(path.read_text())
    entry = parser["Desktop Entry"]
    assert entry["Type"] == "Application" and entry["Terminal"] == "true"
    assert entry["Exec"] == '"/opt/my \\\\"venv\\\\"/\\\\$x/python" -m nearfar'  # quoted, then escaped as a string
    assert Path(entry["Icon"]).is_file()


@needs_posix
def test_macos_gets_a_command_file_that_runs(tmp_path):
    fake = tmp_path / "it's a python"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    path = shortcut.install("darwin", tmp_path, str(fake))
    assert path == tmp_path / "Desktop" / "nearfar.command" and stat.S_IMODE(path.stat().st_mode) == 0o755
    assert subprocess.run([str(path)], capture_output=True, text=True, check=True).stdout == "-m nearfar\n"


def test_windows_gets_a_link_by_powershell_or_a_cmd_file(tmp_path, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command)
        return types.SimpleNamespace(stdout="C:\\Users\\Zoë\\Desktop\\nearfar.lnk\r\n".encode())

    monkeypatch.setattr(shortcut.subprocess, "run", run)
    assert str(shortcut.install("win32", tmp_path, "C:\\O'Brien\\python.exe")).endswith("nearfar.lnk")
    assert asked[0][:2] == ["powershell", "-NoProfile"] and "TargetPath = 'C:\\O''Brien\\python.exe'" in asked[0][-1]
    (tmp_path / "OneDrive" / "Desktop").mkdir(parents=True)

    def refused(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(shortcut.subprocess, "run", refused)
    path = shortcut.install("win32", tmp_path, "C:\\100%\\python.exe")
    assert path == tmp_path / "OneDrive" / "Desktop" / "nearfar.cmd"
    assert b'"C:\\100%%\\python.exe" -m nearfar\r\n' in path.read_bytes()


def test_the_command_makes_and_removes_the_shortcut_of_this_system(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    code, out, _ = nearfar("install-shortcut")
    path = tmp_path / ".local/share/applications/nearfar.desktop"
    assert code == 0 and str(path) in out and path.exists()
    assert nearfar("install-shortcut", "--remove")[0] == 0 and not path.exists()
    assert "there was no shortcut" in nearfar("install-shortcut", "--remove")[1]


def held_open(monkeypatch, times_refused):
    """Simulate Windows, where another program has a file open for a while."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "OPEN_WAIT_S", 0.0)
    replace, left = Path.replace, [times_refused]

    def refusing(self, target):
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "in use", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refusing)


def test_a_file_that_is_open_elsewhere_for_a_moment_is_replaced(tmp_path, monkeypatch):
    held_open(monkeypatch, 5)
    assert files.atomic_write(tmp_path / "a.csv", "new").read_text() == "new"


def test_a_file_that_stays_open_elsewhere_keeps_its_content_and_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("old")
    held_open(monkeypatch, 1000)
    with pytest.raises(PermissionError, match="Excel") as error:
        files.atomic_write(tmp_path / "a.csv", "new")
    assert error.value.filename == str(tmp_path / "a.csv") and (tmp_path / "a.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_folder_that_is_open_elsewhere_keeps_its_content(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("old")
    held_open(monkeypatch, 1000)
    with pytest.raises(PermissionError), files.atomic_folder(folder) as draft:
        (draft / "a").write_text("new")
    assert (folder / "a").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["model"]


@needs_posix
def test_elsewhere_a_refusal_is_said_at_once(tmp_path, monkeypatch):
    held_open(monkeypatch, 1)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(PermissionError, match="in use"):
        files.atomic_write(tmp_path / "a", "new")


def test_the_lock_of_a_folder_is_a_file_on_windows(tmp_path, monkeypatch):
    asked = []

    def locking(handle, mode, size):
        asked.append((mode, size))
        if len(asked) == 1:
            raise OSError(errno.EDEADLOCK, "still locked")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(LK_LOCK=1, locking=locking))
    with files.folder_lock(tmp_path):
        assert asked == [(1, 1), (1, 1)] and (tmp_path / files.LOCK).exists()


def test_times_before_1970_are_shown_although_windows_refuses_them(monkeypatch):
    class Refusing(datetime):
        @classmethod
        def fromtimestamp(cls, *_):
            raise OSError(errno.EINVAL, "Invalid argument")

    assert times.local_time(1e9) == datetime.fromtimestamp(1e9)
    monkeypatch.setattr(times, "datetime", Refusing)
    assert times.local_time(-3600.0).isoformat() == "1969-12-31T23:00:00"
    assert times.utc_time(1_800_000_000.25).isoformat() == "2027-01-15T08:00:00.250000+00:00"


@needs_posix
def test_ctrl_break_stops_on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        stop = stopped_by_signals()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.wait(60)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_closed_pipe_of_windows_is_no_error(monkeypatch):
    def closed(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("typer.echo", closed)
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(fileno=lambda: 99))
    monkeypatch.setattr(os, "dup2", lambda a, b: None)
    monkeypatch.setattr(sys, "platform", "win32")
    echo("lost")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(OSError, match="Invalid argument"):
        echo("lost")


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("linux", "apt install ffmpeg"),
        ("darwin", "brew install ffmpeg"),
        ("win32", "winget install Gyan.FFmpeg"),
    ],
)
def test_messages_name_the_command_of_the_system(system, command, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    assert install_command("ffmpeg", "ffmpeg", "Gyan.FFmpeg") == command


@pytest.mark.parametrize(
    ("system", "argument", "typed"),
    [
        ("linux", "my pump", "'my pump'"),
        ("linux", "a\\b", "'a\\b'"),
        ("win32", "models\\fan", "models\\fan"),
        ("win32", "my pump\\x", '"my pump\\x"'),
        ("win32", "a&b", '"a&b"'),
        ("win32", "", '""'),
    ],
)
def test_commands_to_copy_are_quoted_for_the_shell_of_the_system(system, argument, typed, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    assert quoted(argument) == typed


def test_a_recording_that_its_recorder_has_for_itself_is_read_when_it_is_closed(tmp_path, monkeypatch):
    write_wav(tmp_path / "in" / "a.wav", hum(1))
    options = {"window_s": 2.0, "hop_s": 2.0, "rate": RATE, "clock": time.time, "report": lambda *_: None, "once": True}
    source = FolderSource(tmp_path / "in", SourceOptions(**options))
    opened, held = Path.open, [True]

    def refusing(self, *arguments, **more):
        if held[0] and self.suffix == ".wav":
            raise PermissionError(errno.EACCES, "the file is used by another process", str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refusing)
    assert list(source.windows(threading.Event())) == [] and "a.wav waits: the file is used" in source.problem
    held[0] = False
    assert len(list(source.windows(threading.Event()))) == 1 and source.problem == ""


@pytest.mark.parametrize("name", ["con", "COM1", "nul"])
def test_a_machine_cannot_have_a_name_that_no_file_can_have_on_windows(name, pump_model):
    with pytest.raises(ValueError, match="Windows"):
        open_machine(name, configured(pump_model))
