"""A server to test with: a plant of humming machines behind the real application, as a client or on a real port."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi.testclient import TestClient

from nearfar.live.plant import Plant
from nearfar.live.server.app import make_app
from nearfar.support.threads import single_threaded_blas
from plants import T0, Clock, plant_of, windows

BASE = "http://127.0.0.1"
FAULTY = ["", "", ""] + ["hiss"] * 4 + [""] * 8
HOSTILE = '<img src=x onerror="alert(1)">&amp;\u2028'


def a_plant(model: Path, folder: Path, *ids: str, **options: object) -> tuple[Plant, Clock]:
    """A plant with models and a history of its own in `folder`; its machines have hostile names."""
    shutil.copytree(model, folder / model.name)
    plant, _, clock = plant_of(folder / model.name, folder / "history", *ids, **options)
    for machine in plant.machines.values():
        machine.name = f"{machine.id} {HOSTILE}"
    return plant, clock


def listen(plant: Plant, faults: list[str], start: float = T0, machine: str = "pump") -> None:
    """Let a machine be heard, one window of two seconds after the other."""
    for window in windows(faults, start):
        plant.process_window(machine, window)


@contextlib.contextmanager
def client_of(plant: Plant, clock: Clock, **options: object) -> Iterator[TestClient]:
    """The application in this process, asked from this computer."""
    app = make_app(plant, clock=clock, **options)
    local = {"base_url": BASE, "client": ("127.0.0.1", 50_000)}
    with single_threaded_blas(), TestClient(app, **local, raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def server_of(app: object) -> Iterator[str]:
    """The application on a port of 127.0.0.1 that the system chooses; its address."""
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield f"{BASE}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        app.state.service.stream.close()
        server.should_exit = True
        thread.join(60)
