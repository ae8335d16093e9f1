"""Machines that are fitted from the browser: a job, and nothing half-made is ever live."""

import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest

import commands
from brokers import wait_for
from conftest import hum, write_wav
from nearfar.detector import Detector, load
from nearfar.live.build import build_plant
from nearfar.live.config import from_options
from nearfar.live.server.security import Access, Token
from servers import client_of


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normals")
    for i in range(12):
        write_wav(folder / f"{i:02d}.wav", hum(i, seconds=1.0))
    return folder


@contextmanager
def server(folder, **options):
    """(client, assembly) of a server that begins without a machine."""
    config = from_options({"models": folder / "models", "history": {"folder": folder / "history"}, **options})
    with (
        closing(build_plant(config, clock=time.time, warn=print, report=print, idle=True)) as assembly,
        client_of(assembly.plant, time.time, roster=assembly.roster) as client,
    ):
        yield client, assembly


def ended(client, id=1):
    wait_for(lambda: client.get(f"/v1/jobs/{id}").json()["state"] in ("done", "failed", "cancelled"), 60)
    return client.get(f"/v1/jobs/{id}").json()


def test_a_folder_becomes_a_machine_that_is_there_after_a_restart(normals, tmp_path):
    with server(tmp_path) as (client, _):
        assert client.get("/v1/machines").json() == {"machines": []} and client.get("/v1/jobs").json()["possible"]
        asked = client.post("/v1/machines", json={"id": "pump", "name": "Pump 3 (Süd)", "folder": str(normals)})
        assert asked.status_code == 202 and asked.json()["machine"] == "pump"
        job = ended(client)
        assert (job["state"], job["done"], job["total"]) == ("done", 12, 12) and "12 recordings" in job["notes"][0]
        assert client.get("/v1/machines/pump").json()["name"] == "Pump 3 (Süd)"
        again = client.post("/v1/machines", json={"id": "pump", "folder": str(normals)})
        assert again.status_code == 409 and "already" in again.json()["message"]
    fitted = load(tmp_path / "models" / "pump")
    by_hand = Detector(threads=1).fit(normals)
    assert fitted.threshold == by_hand.threshold and (fitted.train_values == by_hand.train_values).all()
    with server(tmp_path) as (client, _):
        assert [m["id"] for m in client.get("/v1/machines").json()["machines"]] == ["pump"]
        assert client.delete("/v1/machines/pump").status_code == 200  # even the last one


def test_a_job_that_fails_or_is_cancelled_leaves_nothing(normals, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    begun, go = threading.Event(), threading.Event()
    fit = Detector.fit

    def held(self, *arguments, **options):
        begun.set()
        assert go.wait(60)
        return fit(self, *arguments, **options)

    with server(tmp_path) as (client, assembly):
        client.post("/v1/machines", json={"id": "a", "folder": str(tmp_path / "empty")})
        failed = ended(client)
        assert failed["state"] == "failed" and str(tmp_path / "empty") in failed["what"]
        monkeypatch.setattr(Detector, "fit", held)
        client.post("/v1/machines", json={"id": "b", "folder": str(normals)})
        assert begun.wait(60) and client.delete("/v1/jobs/2").status_code == 200
        go.set()
        assert ended(client, 2)["state"] == "cancelled" and client.delete("/v1/jobs/2").status_code == 409
        monkeypatch.setattr(Detector, "fit", fit)

        def refuse(*_, **__):
            raise OSError("the disk is full")

        monkeypatch.setattr(assembly.roster, "put", refuse)
        client.post("/v1/machines", json={"id": "c", "folder": str(normals)})
        assert ended(client, 3)["what"] == "the disk is full"
        assert client.get("/v1/machines").json() == {"machines": []}
        assert not list((tmp_path / "models").glob("*")) and client.get("/v1/jobs/9").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [({"id": "a/b", "folder": "/"}, 422), ({"id": "a", "folder": "/no/such"}, 422), ({"id": "a"}, 422)],
)
def test_wrong_requests_are_refused(body, status, tmp_path):
    with server(tmp_path) as (client, _):
        assert client.post("/v1/machines", json=body).status_code == status


def test_only_users_of_this_computer_may_name_folders(normals, tmp_path):
    config = from_options({"models": tmp_path / "models", "history": {"folder": tmp_path / "history"}})
    token = "a-token-that-is-long-enough"
    with closing(build_plant(config, clock=time.time, warn=print, report=print, idle=True)) as assembly:
        rules = Access((Token(token),), frozenset({"127.0.0.1"}))
        with client_of(assembly.plant, time.time, roster=assembly.roster, access=rules) as client:
            headers = {"authorization": f"Bearer {token}"}
            answer = client.post("/v1/machines", json={"id": "a", "folder": str(normals)}, headers=headers)
            assert answer.status_code == 403 and answer.json()["code"] == "not_here"
            assert client.get("/v1/jobs", headers=headers).json() == {"possible": False, "jobs": []}


def test_without_a_command_the_first_page_is_opened(monkeypatch, tmp_path):
    serve, opened = sys.modules["nearfar.cli.serve"], []
    stop = threading.Event()
    monkeypatch.setenv("NEARFAR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(serve, "stopped_by_signals", lambda: stop)

    def browser(url):
        opened.append(url)
        if len(opened) == 1:  # started again while it runs, it opens the same page
            code, out, _ = commands.nearfar()
            assert code == 0 and out == f"nearfar runs already, at {url}\n" and opened == [url, url]
            stop.set()

    monkeypatch.setattr(serve.webbrowser, "open", browser)
    monkeypatch.setenv("DISPLAY", ":0")
    code, out, _ = commands.nearfar()
    assert code == 0 and opened[0].startswith("http://127.0.0.1:") and f"serves 0 machines at {opened[0]}" in out
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    stop.set()
    code, out, _ = commands.nearfar()  # without a display the address is printed
    assert code == 0 and len(opened) == 2 and "at http://127.0.0.1:" in out
    assert "Usage" in commands.nearfar("--help")[1] and len(opened) == 2
