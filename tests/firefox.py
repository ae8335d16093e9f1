"""Firefox, driven by its own remote protocol (Marionette): WebDriver commands as JSON over a socket."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
START_S, WAIT_S, REDRAWN = 120.0, 60.0, 3
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element, in WebDriver
PREFERENCES = {
    "marionette.port": 0,
    "media.autoplay.default": 0,  # sounds may play without a click
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,  # a microphone that hums
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "app.update.enabled": False,
}


class Firefox:
    """A browser with one page."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT_S + 10)
        self._file, self._number = self.socket.makefile("rb"), 0
        self._read()
        self.call("WebDriver:NewSession", capabilities={})

    def call(self, command: str, **parameters: Any) -> Any:
        """The answer to a command; AssertionError if it fails."""
        self._number += 1
        text = json.dumps([0, self._number, command, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(text), text))
        _, _, error, answer = self._read()
        assert error is None, f"{command} {parameters}: {error['message']}"
        return answer

    def open(self, url: str) -> None:
        """Open a page, and wait until it is drawn."""
        self.call("WebDriver:Navigate", url=url)
        self.wait("return document.querySelector('main')?.getAttribute('aria-busy') !== 'true'")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.call("WebDriver:ExecuteScript", script=script, args=list(arguments))["value"]

    def wait(self, script: str, *arguments: Any, seconds: float = WAIT_S) -> Any:
        """What a script returns, once that is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script, *arguments)):
            assert time.monotonic() < end, f"{script} {arguments}: {self.run('return document.body.innerText')}"
            time.sleep(0.1)
        return found

    def find(self, css: str, text: str = "") -> dict[str, str]:
        """The first element that is shown, of a selector and with a text, once there is one."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].find("
            "e => e.getClientRects().length && e.textContent.includes(arguments[1]))"
        )
        return {ELEMENT: self.wait(script, css, text)[ELEMENT]}

    def click(self, css: str, text: str = "") -> None:
        """Click on an element, as with a mouse; on its successor if the page is drawn anew just then."""
        for left in reversed(range(REDRAWN)):
            try:
                self.call("WebDriver:ElementClick", id=self.find(css, text)[ELEMENT])
                return
            except AssertionError as error:
                if "stale" not in str(error) or not left:
                    raise

    def type(self, css: str, text: str) -> None:
        """Type into a field, in place of what it holds."""
        field = self.find(css)[ELEMENT]
        self.call("WebDriver:ElementClear", id=field)
        self.call("WebDriver:ElementSendKeys", id=field, text=text)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.call("WebDriver:TakeScreenshot", full=True, hash=False)["value"])

    def _read(self) -> Any:
        size = b""
        while (byte := self._file.read(1)) != b":":
            assert byte, "Firefox has gone"
            size += byte
        return json.loads(self._file.read(int(size)))


@contextmanager
def firefox(width: int = 1200, height: int = 900, *, dark: bool = False) -> Iterator[Firefox]:
    """A new Firefox without a window, with a profile of its own."""
    assert FIREFOX is not None
    with tempfile.TemporaryDirectory() as folder:
        wanted = PREFERENCES | {"layout.css.prefers-color-scheme.content-override": 0 if dark else 1}
        lines = (f'user_pref("{name}", {json.dumps(value)});' for name, value in wanted.items())
        Path(folder, "user.js").write_text("\n".join(lines))
        size = [f"--width={width}", f"--height={height}"]
        command = [FIREFOX, "--marionette", "--headless", "--no-remote", "--profile", folder, *size]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Firefox(_port(Path(folder, "MarionetteActivePort"), process))
        finally:
            process.terminate()
            process.wait(60)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + START_S
    while not file.is_file() or not file.read_text():
        assert process.poll() is None and time.monotonic() < end, "Firefox does not start"
        time.sleep(0.1)
    return int(file.read_text())
