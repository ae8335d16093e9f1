"""`nearfar serve` as a user starts and stops it."""

import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from brokers import wait_for
from conftest import hum, write_wav
from nearfar.cli import app

COMMAND = [sys.executable, "-m", "nearfar", "serve"]


@pytest.fixture
def model(pump3):
    return pump3


class Running:
    """The command in a process of its own; `url` is what it printed."""

    def __init__(self, folder, *arguments, before=()):
        self.err = (folder / "err").open("w+")
        self.process = subprocess.Popen(
            [*before, *COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=self.err, cwd=folder, text=True
        )
        self.line = self.process.stdout.readline()
        found = re.search(r"http://\S+/", self.line)
        assert found, self.said()
        self.url = found[0]

    def said(self):
        self.err.seek(0)
        return self.err.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.err.close()


def test_it_prints_its_address_serves_and_stops_when_asked(model, tmp_path):
    write_wav(tmp_path / "in" / "a.wav", hum(800))
    body = write_wav(tmp_path / "x.wav", hum(801, fault="hiss")).read_bytes()
    fan = shutil.copytree(model, tmp_path / "fan 7")
    with Running(tmp_path, model, fan, "--port", 0, "--source", f"pump3={tmp_path / 'in'}") as server:
        assert "2 machines at http://127.0.0.1:" in server.line
        with httpx.Client(base_url=server.url, timeout=60) as client:
            answer = client.post("/v1/machines/fan-7/score", files={"file": ("x.wav", body)})
            assert answer.json()["anomalous"] is True and "server" not in answer.headers
            heard = 'nearfar_windows_total{machine="pump3",result="normal"} 1.0'
            wait_for(lambda: heard in client.get("/metrics").text)  # the folder is listened to
            assert client.get("/v1/machines/pump3").json()["last_heard"]
            assert client.get("/readyz").status_code == 200
            with client.stream("GET", "/v1/stream") as stream:  # a page that looks on does not keep it from stopping
                next(stream.iter_bytes())
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(60) == 0
        assert "fan-7: scores what is sent to it" in server.said() and "Traceback" not in server.said()
    assert (tmp_path / "nearfar-history" / "history.db").is_file()


def test_a_token_opens_it(model, tmp_path):
    with Running(tmp_path, model, "--port", 0, "--token-file", "secret") as server:
        file = tmp_path / "secret"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert client.get("/v1/machines").status_code == 401 and client.get("/healthz").status_code == 200
            headers = {"authorization": f"Bearer {file.read_text().strip()}"}
            assert client.get("/v1/machines", headers=headers).status_code == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        assert file.read_text().strip() not in server.said() + server.line


def test_a_plant_from_a_file(model, tmp_path):
    text = f'[history]\nfolder = "kept"\n[machines.m1]\nmodel = {json.dumps(str(model))}\nname = "Pump 1"\n'
    (tmp_path / "plant.toml").write_text(text)
    with Running(tmp_path, "--config", "plant.toml", "--port", 0) as server:
        (machine,) = httpx.get(server.url + "v1/machines", timeout=60).json()["machines"]
        assert machine["id"] == "m1" and machine["name"] == "Pump 1" and (tmp_path / "kept").is_dir()


HALF = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


@pytest.mark.slow
def test_half_sent_headers_close_no_door_and_fill_no_log(model, tmp_path):
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not on this machine")
    write_wav(tmp_path / "in" / "a.wav", hum(800))
    source = f"pump3={tmp_path / 'in'}"
    limited = ["prlimit", "--nofile=256"]
    with Running(tmp_path, model, "--port", 0, "--source", source, before=limited) as server:
        at = ("127.0.0.1", int(server.url.rsplit(":")[-1].strip("/")))
        clients = []
        try:
            for i in range(400):
                clients.append(client := socket.create_connection(at, timeout=60))
                client.sendall(HALF)
                if i % 50 == 49:
                    assert httpx.get(server.url + "healthz", timeout=60).status_code == 200
            handles = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
            write_wav(tmp_path / "in" / "b.wav", hum(801))  # a source opens files meanwhile
            heard = 'nearfar_windows_total{machine="pump3",result="normal"} 2.0'
            wait_for(lambda: heard in httpx.get(server.url + "metrics", timeout=60).text)
        finally:
            for client in clients:
                client.close()
        assert handles < 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert len(server.said()) < 5000 and "Traceback" not in server.said()


def test_the_log_can_be_json(model, tmp_path):
    with Running(tmp_path, model, "--port", 0, "--log-format", "json") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        lines = [json.loads(line) for line in server.said().splitlines()]
        assert lines[-1]["message"] == "stopped" and all(line["time"] and line["level"] == "info" for line in lines)


def serve(*arguments):
    """The command in this process: for what ends before it serves."""
    return CliRunner().invoke(app, ["serve", "--port", "0", *map(str, arguments)])


def test_bad_usage_is_one_line_and_exit_2(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            ([model, "--port", port], f"cannot listen at 127.0.0.1 port {port}: Address already in use"),
            ([], "what is to be served?"),
            ([tmp_path / "nothing"], "is not a detector"),
            ([model, model], "two models are called 'pump3'"),
            ([model, "--source", "fan=rtsp://x", "--config", "x.toml"], "give it without MODEL"),
            ([model, "--tls-cert", "none.pem"], "no such file: none.pem"),
            ([model, "--tls-cert", __file__], f"no https with {__file__} alone: give a certificate and its key"),
            ([model, "--tls-key", __file__], "needs its certificate"),
            ([model, "--log-format", "xml"], "text, json"),
            (
                [model, "--weights", __file__],
                "test_serve_cli.py would not be used: this recipe has no network with weights",
            ),
            (
                [model, "--weights", f"beats={__file__}"],
                "beats would not be used: this recipe has no network with weights",
            ),
        ):
            done = serve(*arguments)
            assert done.exit_code == 2 and said in done.stderr, done.stderr


def test_a_token_file_that_others_can_read_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("a-token-that-is-long-enough")
    (tmp_path / "secret").chmod(0o644)
    monkeypatch.chdir(tmp_path)
    done = serve(model, "--token-file", "secret")
    assert done.exit_code == 2 and "chmod 600" in done.stderr


def test_without_its_extra_it_asks_for_all_of_it_at_once(model, monkeypatch):
    monkeypatch.setattr(sys.modules["nearfar.cli.serve"], "find_spec", lambda name: None)
    done = serve(model)
    assert done.exit_code == 2 and 'pip install "nearfar[serve]"' in done.stderr
