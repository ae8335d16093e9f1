"""A real mosquitto for tests: on a free port of this machine, stopped and started at will."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

_PORTS = (20_000 + port % 12_000 for port in itertools.count(97 * os.getpid()))


def free_port() -> int:
    """A port that nothing uses, below those that the system gives: nobody is given it before the test listens there."""
    for port in _PORTS:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def wait_for(test, seconds: float = 60.0):
    """What `test()` returns, once that is true; a LookupError says that something is not there yet."""
    end = time.monotonic() + seconds
    while True:
        late, found = time.monotonic() > end, None
        with contextlib.suppress(LookupError):
            found = test()
        if found:
            return found
        assert not late, f"not so after {seconds:g} s: {inspect.getsource(test).strip()}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mosquitto:
    """A broker without memory, unless `lines` give it one: what it should know after a restart has to be told again."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(self.binary).exists():
            pytest.skip("mosquitto is not on this machine")
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        plain = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", *(lines or ["persistence false"])]
        self.config.write_text("\n".join(plain))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([self.binary, "-c", str(self.config)], stdout=quiet, stderr=quiet)
        assert wait_for(lambda: listens(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


class Listener:
    """Everything that a broker says on some topics: (topic, payload, retained)."""

    def __init__(
        self,
        port: int,
        topic: str = "#",
        session: str = "",
        *,
        user: tuple[str, str] | None = None,
        host: str = "127.0.0.1",
        **tls: str,
    ) -> None:
        from paho.mqtt import client as paho

        self.heard: list[tuple[str, bytes, bool]] = []
        self.ready = threading.Event()
        version = paho.CallbackAPIVersion.VERSION2  # with a session, the broker keeps what comes meanwhile
        self.client = paho.Client(version, client_id=session, clean_session=not session)
        if user:
            self.client.username_pw_set(*user)
        if tls:
            self.client.tls_set(**tls)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda c, u, m: self.heard.append((m.topic, m.payload, m.retain))
        self.client.connect(host, port)
        self.client.loop_start()
        assert self.ready.wait(60)

    def of(self, ending: str) -> list[bytes]:
        return [payload for topic, payload, _ in self.heard if topic.endswith(ending)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
