"""The nearfar command in this process: it starts a hundred times faster than a new one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from typer.testing import CliRunner

from nearfar.cli import app


def nearfar(*arguments: object, cwd: Path | None = None, given: bytes | None = None) -> tuple[int, str, str]:
    """Run the command with `given` on stdin; (exit code, stdout, stderr). An error that is not handled is raised."""
    signals = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    here = Path.cwd()
    os.chdir(cwd or here)
    try:
        done = CliRunner().invoke(app, [str(a) for a in arguments], input=given)
    finally:
        os.chdir(here)
        for number, handler in signals:
            signal.signal(number, handler)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr
