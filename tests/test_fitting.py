"""Machines that are fitted from the browser: a job, and nothing half-made is ever live."""

import json
import shutil
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest

import commands
from brokers import wait_for
from nearfar.detector import Detector, load
from nearfar.live.build import build_plant
from nearfar.live.config import from_options
from nearfar.live.server.security import Access, Token
from servers import client_of


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
    states = ("done", "failed", "cancelled", "interrupted")
    wait_for(lambda: client.get(f"/v1/jobs/{id}").json()["state"] in states)
    return client.get(f"/v1/jobs/{id}").json()


def created(client, id, folder, name=""):
    """Begin to set up a machine whose recordings are in a folder."""
    assert client.post("/v1/machines", json={"id": id, "name": name}).status_code == 201
    body = {"kind": "folder", "folder": str(folder)}
    assert client.put(f"/v1/machines/{id}/recordings", json=body).status_code == 200


def test_a_folder_becomes_a_machine_that_is_there_after_a_restart(dozen, tmp_path):
    with server(tmp_path) as (client, _):
        assert client.get("/v1/machines").json() == {"machines": []}
        assert client.get("/v1/collections").json()["possible"]
        created(client, "pump", dozen, "Pump 3 (Süd)")
        before = client.get("/v1/machines/pump/recordings").json()
        assert before["recordings"] == 12 and not before["live"] and len(before["files"]) == 12
        asked = client.post("/v1/machines/pump/fit", json={})
        assert asked.status_code == 202 and asked.json()["machine"] == "pump"
        job = ended(client)
        assert (job["state"], job["done"], job["total"]) == ("done", 12, 12) and "12 recordings" in job["notes"][0]
        assert client.get("/v1/machines/pump").json()["name"] == "Pump 3 (Süd)"
        assert client.get("/v1/machines/pump/recordings").json()["live"]
        again = client.post("/v1/machines", json={"id": "pump"})
        assert again.status_code == 409 and "already" in again.json()["message"]
    fitted = load(tmp_path / "models" / "pump")
    by_hand = Detector(threads=1).fit(dozen)
    assert fitted.threshold == by_hand.threshold and (fitted.train_values == by_hand.train_values).all()
    with server(tmp_path) as (client, _):
        assert [m["id"] for m in client.get("/v1/machines").json()["machines"]] == ["pump"]
        assert client.delete("/v1/machines/pump").status_code == 200  # even the last one


def held_fit(monkeypatch):
    """(begun, go): a fit waits until `go` is set."""
    begun, go, fit = threading.Event(), threading.Event(), Detector.fit

    def held(self, *arguments, **options):
        begun.set()
        assert go.wait(60)
        return fit(self, *arguments, **options)

    monkeypatch.setattr(Detector, "fit", held)
    return begun, go


def test_a_job_that_fails_or_is_cancelled_leaves_nothing(dozen, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with server(tmp_path) as (client, assembly):
        created(client, "a", tmp_path / "empty")
        refused = client.post("/v1/machines/a/fit", json={})
        assert refused.status_code == 409 and "no recordings yet" in refused.json()["message"]
        created(client, "b", dozen)
        with monkeypatch.context() as patched:
            begun, go = held_fit(patched)
            assert client.post("/v1/machines/b/fit", json={}).status_code == 202 and begun.wait(60)
            assert client.post("/v1/machines/b/doctor", json={}).status_code == 409
            assert client.delete("/v1/jobs/1").status_code == 200
            go.set()
            assert ended(client, 1)["state"] == "cancelled" and client.delete("/v1/jobs/1").status_code == 409

        def refuse(*_, **__):
            raise OSError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(assembly.roster, "put", refuse)
            client.post("/v1/machines/b/fit", json={})
            assert ended(client, 2)["what"] == "the disk is full"
        assert client.get("/v1/machines").json() == {"machines": []}
        assert not list((tmp_path / "models").glob("*")) and client.get("/v1/jobs/9").status_code == 404
        assert client.post("/v1/jobs/2/resume").status_code == 202
        assert ended(client, 2)["state"] == "done" and client.post("/v1/jobs/2/resume").status_code == 409


def test_a_job_goes_on_with_the_next_server_once(dozen, tmp_path, monkeypatch):
    journal = tmp_path / "history" / "jobs.json"
    with monkeypatch.context() as patched, server(tmp_path) as (client, _):
        created(client, "pump", dozen)
        begun, go = held_fit(patched)
        client.post("/v1/machines/pump/fit", json={"who": "Anna"})
        assert begun.wait(60)
        killed = journal.read_text()  # as a killed server leaves it
        go.set()
        assert ended(client)["state"] == "done"
        client.delete("/v1/machines/pump")
    shutil.rmtree(tmp_path / "models" / "pump")
    journal.write_text(killed)
    with server(tmp_path) as (client, _):
        assert ended(client)["state"] == "done" and client.get("/v1/jobs/1").json()["who"] == "Anna"
        assert client.get("/v1/machines/pump").status_code == 200
    journal.write_text(killed.replace('"starts": 1', '"starts": 2'))
    with server(tmp_path) as (client, _):
        job = client.get("/v1/jobs/1").json()
        assert job["state"] == "interrupted" and "nothing half-made" in job["what"]
        assert client.delete("/v1/jobs/1").json()["state"] == "cancelled"


def test_a_server_that_closes_leaves_the_job_to_the_next(dozen, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        with server(tmp_path) as (client, _):
            created(client, "pump", dozen)
            begun, go = held_fit(patched)
            client.post("/v1/machines/pump/fit", json={})
            assert begun.wait(60)
            told = client.app.state.service.setup.jobs._cancelled[1]
            threading.Thread(target=lambda: told.wait(60) and go.set()).start()  # once the server closes
        assert json.loads((tmp_path / "history" / "jobs.json").read_text())[0]["state"] == "waiting"
        assert not (tmp_path / "models" / "pump").exists()
    with server(tmp_path) as (client, _):
        assert ended(client)["state"] == "done"


def test_a_machine_that_is_fitted_again_keeps_its_old_detector(dozen, tmp_path):
    with server(tmp_path) as (client, _):
        created(client, "pump", dozen)
        client.post("/v1/machines/pump/fit", json={})
        ended(client)
        body = {"files": ["03.wav"], "keep": False, "who": "Anna"}
        after = client.put("/v1/machines/pump/recordings", json=body).json()
        assert after["left_out"] == 1 and after["files"][3]["left_out_by"] == "Anna" and after["recordings"] == 11
        client.post("/v1/machines/pump/fit", json={})
        assert "1 recording thrown out" in ended(client, 2)["notes"]
        assert client.get("/v1/machines/pump").json()["normals"] == 11
    assert len(load(tmp_path / "models" / "pump.old").normals) == 12 and (dozen / "03.wav").is_file()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "", {"id": "a/b"}, 422),
        ("POST", "", {"id": "a", "folder": "/"}, 422),
        ("PUT", "/pump/recordings", {"folder": "/no/such"}, 422),
        ("PUT", "/pump/recordings", {"kind": "tape"}, 422),
        ("PUT", "/pump/recordings", {"files": ["../x.wav"], "keep": False}, 404),
        ("PUT", "/nobody/recordings", {"kind": "files"}, 404),
        ("POST", "/pump/microphone", {"what": "levels"}, 422),
        ("DELETE", "/pump/microphone", None, 404),
        ("GET", "/pump/recordings/near?file=../../secret.wav", None, 404),
        ("GET", "/pump/test/near", None, 404),
        ("POST", "/pump/fit", {}, 409),
    ],
)
def test_wrong_requests_are_refused(method, path, body, status, tmp_path):
    with server(tmp_path) as (client, _):
        client.post("/v1/machines", json={"id": "pump"})
        assert client.request(method, f"/v1/machines{path}", json=body).status_code == status


def test_only_users_of_this_computer_may_name_folders(dozen, tmp_path):
    config = from_options({"models": tmp_path / "models", "history": {"folder": tmp_path / "history"}})
    token = "a-token-that-is-long-enough"
    with closing(build_plant(config, clock=time.time, warn=print, report=print, idle=True)) as assembly:
        rules = Access((Token(token),), frozenset({"127.0.0.1"}))
        with client_of(assembly.plant, time.time, roster=assembly.roster, access=rules) as client:
            headers = {"authorization": f"Bearer {token}"}
            client.post("/v1/machines", json={"id": "a"}, headers=headers)
            answer = client.put("/v1/machines/a/recordings", json={"folder": str(dozen)}, headers=headers)
            assert answer.status_code == 403 and answer.json()["code"] == "not_here"
            for source in ("/etc/passwd", "-", "file:///etc/passwd", "concat:/etc/passwd"):
                answer = client.put("/v1/machines/a/recordings", json={"source": [source]}, headers=headers)
                assert answer.status_code == 422 and "a path is given in plant.toml" in answer.json()["message"]
            found = client.get("/v1/collections", headers=headers).json()
            assert found["possible"] and not found["here"] and found["collections"][0]["recordings"] == 0
            for i in range(8):  # recordings that are sent need no folder
                content = (dozen / f"{i:02d}.wav").read_bytes()
                url = f"/v1/machines/a/recordings?name={i}.wav"
                sent = client.post(url, content=content, headers={**headers, "content-type": "audio/wav"})
                assert sent.status_code == 200 and sent.json()["file"] == f"{i}.flac"
            assert client.post("/v1/machines/a/fit", json={}, headers=headers).status_code == 202
            wait_for(lambda: client.get("/v1/jobs/1", headers=headers).json()["state"] == "done")


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
