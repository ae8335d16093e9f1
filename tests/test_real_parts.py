"""Programs that a plant really has: mosquitto with TLS, passwords and an ACL; promtool; nginx; a generated client."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from brokers import Listener, Mosquitto, free_port, listens, wait_for
from conftest import hum, write_wav
from nearfar.live.config import MqttConfig
from nearfar.live.history.history import History
from nearfar.live.server.app import make_app
from nearfar.live.server.security import Token, access
from nearfar.live.sinks.mqtt import Mqtt
from nearfar.live.sinks.prometheus import Metrics
from servers import FAULTY, a_plant, listen, server_of
from test_sinks import FAN, PUMP, event, score

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
TOKEN = "a-token-that-is-long-enough"


def program(name: str, *places: Path) -> str:
    """The path of a program; the test is skipped without it."""
    found = (
        shutil.which(name) or shutil.which(name, path="/usr/sbin") or next((str(p) for p in places if p.exists()), "")
    )
    if not found:
        pytest.skip(f"{name} is not on this machine")
    return found


def certificates(folder: Path) -> None:
    """ca.crt, server.crt and server.key for localhost in `folder`, and another.crt of another authority."""
    openssl = program("openssl")

    def run(*words: object) -> None:
        subprocess.run([openssl, *map(str, words)], capture_output=True, check=True, cwd=folder)

    for name in ("ca", "another"):
        run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={name}", "-keyout",
            f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    run("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "san").write_text("subjectAltName=DNS:localhost")
    run("x509", "-req", "-days", 2, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-in", "server.csr", "-out",
        "server.crt", "-extfile", "san")  # fmt: skip


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A broker with TLS; nearfar may not write to discovery, all may do everything."""
    folder = tmp_path_factory.mktemp("broker")
    certificates(folder)
    (folder / "passwords").touch(0o600)
    for user in ("nearfar", "all"):
        made = [program("mosquitto_passwd"), "-b", str(folder / "passwords"), user, f"secret-of-{user}"]
        subprocess.run(made, check=True, capture_output=True)
    acl = "user nearfar\ntopic readwrite nearfar/#\ntopic read homeassistant/#\nuser all\ntopic readwrite #\n"
    (folder / "acl").write_text(acl)
    (folder / "acl").chmod(0o600)
    tls = [f"cafile {folder}/ca.crt", f"certfile {folder}/server.crt", f"keyfile {folder}/server.key", "user root"]
    locks = ["allow_anonymous false", f"password_file {folder}/passwords", f"acl_file {folder}/acl"]
    broker = Mosquitto(folder, *tls, *locks)
    broker.config.write_text(broker.config.read_text().replace("allow_anonymous true\n", ""))
    broker.start()
    yield broker, folder
    broker.stop()


def sink_of(closed, tmp_path, *machines, user="all", password=None, ca="ca.crt", host="localhost", **options):
    broker, folder = closed
    config = MqttConfig(host=host, port=broker.port, username=user, ca=folder / ca, tls=True, **options)
    given = f"secret-of-{user}" if password is None else password
    return Mqtt(config, machines or [PUMP], History(tmp_path), password=given, longest_wait_s=1)


def hears(closed, topic="#"):
    broker, folder = closed
    return Listener(broker.port, topic, user=("all", "secret-of-all"), host="localhost", ca_certs=f"{folder}/ca.crt")


def test_everything_arrives_over_tls_with_a_password(closed, tmp_path):
    listener = hears(closed)
    sink = sink_of(closed, tmp_path)
    assert wait_for(lambda: sink._connections["pump"].is_connected and not sink.problem)
    assert wait_for(lambda: len({topic for topic, _, _ in listener.heard if topic.endswith("/config")}) == 5)
    sink.put(event(7))
    sink.put(score(4.5))
    assert wait_for(lambda: listener.of("pump/event") and listener.of("pump/score"))
    sink.close()
    assert wait_for(lambda: json.loads(listener.of("pump/health")[-1])["health"] == "offline")
    listener.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ca": "another.crt"}, "the certificate of localhost is not trusted"),
        ({"host": "127.0.0.1"}, "the certificate of 127.0.0.1 is for another name"),
        ({"password": "wrong"}, "refuses user 'all' (Not authorized): check username and password_file"),
        ({"user": "nobody"}, "refuses user 'nobody' (Not authorized)"),
        ({"version": 3, "password": "wrong"}, "refuses user 'all' (Not authorized)"),
    ],
)
def test_what_is_wrong_is_said_and_stays_said(closed, tmp_path, options, said):
    sink = sink_of(closed, tmp_path, **options)
    assert wait_for(lambda: said in sink.problem)
    time.sleep(1.5)  # the connection is tried again
    assert said in sink.problem
    sink.close()


def test_a_broker_without_tls_is_no_silent_one(tmp_path):
    broker = Mosquitto(tmp_path)
    broker.start()
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port, tls=True), [PUMP], History(tmp_path / "h"))
    assert wait_for(lambda: f"no TLS with 127.0.0.1 port {broker.port}" in sink.problem)
    sink.close()
    broker.stop()
    gone = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP], History(tmp_path / "i"))
    assert wait_for(lambda: "does not answer (Connection refused)" in gone.problem)
    gone.close()


def test_a_topic_that_is_denied_is_named(closed, tmp_path):
    sink = sink_of(closed, tmp_path, user="nearfar")
    said = "does not allow nearfar to publish to homeassistant/binary_sensor/nearfar_north_pump_alarm/config and 4 more"
    assert wait_for(lambda: said in sink.problem)
    listener = hears(closed, "nearfar/#")
    sink.put(event(8))  # what is allowed goes on
    assert wait_for(lambda: listener.of("pump/event"))
    sink.close()
    assert wait_for(lambda: b"offline" in listener.of("pump/health")[-1])
    quiet = sink_of(closed, tmp_path, user="nearfar", discovery=False)
    assert wait_for(lambda: b"waiting" in listener.of("pump/health")[-1]) and quiet.problem == ""
    quiet.close()
    listener.close()


def test_what_a_machine_left_behind_is_deleted_when_it_goes(closed, tmp_path):
    sink = sink_of(closed, tmp_path, PUMP, FAN)
    watcher = hears(closed)
    assert wait_for(lambda: len({topic for topic, _, _ in watcher.heard if "config" in topic}) == 10)
    sink.close()
    sink = sink_of(closed, tmp_path, PUMP)
    assert wait_for(lambda: watcher.of("fan/health")[-1] == b"" and watcher.of("/config").count(b"") == 5)
    sink.close()
    late = hears(closed)
    assert wait_for(lambda: len(late.of("/config")) == 5)
    kept = [topic for topic, _, retained in late.heard if retained]
    assert not [topic for topic in kept if "fan" in topic] and len([t for t in kept if "pump" in t]) == 6
    late.close()
    watcher.close()


def promtool(*words: str, given: str | None = None) -> str:
    done = subprocess.run([program("promtool"), *words], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


RULES = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'nearfar_alarm{machine="pump"}', values: '0 0 1 1 1 0'}
      - {series: 'nearfar_last_audio_timestamp_seconds{machine="fan"}', values: '0 0 0 0 0 0'}
      - {series: 'nearfar_sink_problem{sink="mqtt"}', values: '1 1 1 1 1 1 1'}
      - {series: 'up{job="nearfar"}', values: '1 1 1 1 1 1'}
    alert_rule_test:
      - {eval_time: 2m, alertname: NearfarAlarm, exp_alerts: [exp_labels: {severity: warning, machine: pump}]}
      - {eval_time: 2m, alertname: NearfarStaleAudio, exp_alerts: []}
      - {eval_time: 5m, alertname: NearfarStaleAudio, exp_alerts: [exp_labels: {severity: critical, machine: fan}]}
      - {eval_time: 5m, alertname: NearfarSink, exp_alerts: [exp_labels: {severity: warning, sink: mqtt}]}
      - {eval_time: 5m, alertname: NearfarDown, exp_alerts: []}
"""


def test_prometheus_takes_the_rules_and_they_fire(tmp_path):
    rules = ROOT / "packaging" / "alerts.yml"
    assert "SUCCESS" in promtool("check", "rules", str(rules))
    plain = re.sub(r"\n        annotations:(\n          .*)+", "", rules.read_text())
    (tmp_path / "rules.yml").write_text(plain)  # without annotations, so that the labels alone are compared
    (tmp_path / "test.yml").write_text(RULES)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))


def test_prometheus_finds_nothing_to_complain_about_in_the_metrics(tmp_path):
    metrics = Metrics(["pump"], ["pump"], 1.0)
    metrics.watch(History(tmp_path), [])
    metrics.put(score(4.5))
    assert promtool("check", "metrics", given=metrics.text().decode()) == ""


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto https;
    location /hall2/ {{ proxy_pass {server}; }}
    location /short/ {{ proxy_pass {server}/; }}
  }}
}}
"""


@pytest.fixture
def proxied(pump3, tmp_path):
    """(address of nginx, address behind it, plant)."""
    nginx, port = program("nginx"), free_port()
    plant, clock = a_plant(pump3, tmp_path, "pump")
    listen(plant, FAULTY)
    rules = access("127.0.0.1", [Token(TOKEN, "anna")], root="/hall2", proxies=["127.0.0.1"])
    with server_of(make_app(plant, rules, clock=clock)) as server:
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, port=port, server=server))
        process = subprocess.Popen([nginx, "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: listens(port))
            yield f"http://127.0.0.1:{port}", server, plant
        finally:
            process.terminate()
            process.wait(60)
    plant.close()
    plant.history.close()


def test_nginx_serves_it_below_a_prefix(proxied):
    address, _, plant = proxied
    with httpx.Client(base_url=address, headers={"accept": "text/html"}, timeout=60) as client:
        assert wait_for(lambda: client.get("/hall2/healthz").status_code == 200)
        login = client.get("/hall2/")
        assert login.status_code == 303 and login.headers["location"] == "/hall2/login"
        form = {"token": TOKEN, "next": "/hall2/"}
        entered = client.post("/hall2/login", data=form, headers={"origin": address})
        assert entered.headers["location"] == "/hall2/" and "Secure" in entered.headers["set-cookie"]
        cookie = {"cookie": entered.headers["set-cookie"].partition(";")[0]}
        page = client.get("/hall2/", headers=cookie)
        parts = set(links(page.text))
        assert parts and all(part.startswith("/hall2/") for part in parts)
        for part in parts:
            assert client.get(part, headers=cookie, follow_redirects=True).status_code == 200, part
        for prefix in ("/hall2", "/short"):  # with the prefix passed on, or taken away
            answer = client.post(f"{prefix}/v1/machines/pump/shelve", json={"hours": 1}, headers=cookie)
            assert answer.status_code == 200, answer.text
        forwarded = {**cookie, "x-forwarded-for": "192.0.2.7"}  # what a proxy before nginx would state
        client.post("/hall2/v1/machines/pump/shelve", json={"hours": 2}, headers=forwarded)
        newest = plant.history.audit("pump", limit=3)
        assert [entry.who for entry in newest] == ["anna (192.0.2.7)", "anna", "anna"]


def links(text):
    return re.findall(r'(?:href|src)="(/[^"#]*)"', text)


def test_nginx_holds_no_event_back(proxied):
    address = proxied[0]
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
        assert wait_for(lambda: client.get("/hall2/healthz").status_code == 200)
        with client.stream("GET", "/hall2/v1/stream") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            next(lines)
            for hours in (1, 2, 3):  # each comes before the next is sent
                client.post("/hall2/v1/machines/pump/shelve", json={"hours": hours}).raise_for_status()
                assert next(line for line in lines if line.startswith("event: audit"))


CLIENT = """
import sys
from nearfar_client import AuthenticatedClient
from nearfar_client.api.machines import list_machines, list_scores, set_threshold
from nearfar_client.api.recordings import score_recording
from nearfar_client.models import NewSetPoint, ScoreRecordingFilesBody
from nearfar_client.types import File
address, token, path = sys.argv[1:]
client = AuthenticatedClient(address, token=token, raise_on_unexpected_status=True)
found = list_machines.sync(client=client)
print([machine.id for machine in found.machines], found.machines[0].window is not None)
print(len(list_scores.sync("pump", client=client, limit=3, since="2020-01-01T00:00:00Z").scores))
with open(path, "rb") as file:
    scored = score_recording.sync("pump", client=client, body=ScoreRecordingFilesBody(file=File(file, "x.wav")))
print(scored.file, scored.anomalous, round(scored.score, 4))
print(set_threshold.sync("pump", client=client, body=NewSetPoint(value=5.0, who="Anna")).value)
print(score_recording.sync("nope", client=client, body=ScoreRecordingFilesBody(file=File(b"", "x.wav"))).code)
"""


def test_a_client_that_is_generated_from_the_document_works(pump3, tmp_path):
    tool = program("openapi-python-client", ROOT / ".venv" / "openapi" / "bin" / "openapi-python-client")
    plant, clock = a_plant(pump3, tmp_path, "pump")
    listen(plant, FAULTY)
    rules = access("127.0.0.1", [Token(TOKEN)])
    path = write_wav(tmp_path / "x.wav", hum(1, fault="hiss"))
    with server_of(make_app(plant, rules, clock=clock)) as server:
        headers = {"authorization": f"Bearer {TOKEN}"}
        (tmp_path / "openapi.json").write_text(httpx.get(f"{server}/openapi.json", headers=headers, timeout=60).text)
        (tmp_path / "config.yml").write_text("package_name_override: nearfar_client\nproject_name_override: client\n")
        made = [tool, "generate", "--path", "openapi.json", "--config", "config.yml", "--output-path", "client"]
        done = subprocess.run([*made, "--meta", "none"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.move(tmp_path / "client", tmp_path / "nearfar_client")
        (tmp_path / "use.py").write_text(CLIENT)
        python = Path(tool).resolve().parent / "python"
        given = [str(python if python.exists() else sys.executable), "use.py", server, TOKEN, str(path)]
        used = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
        score = httpx.post(
            f"{server}/v1/machines/pump/score", files={"file": path.read_bytes()}, headers=headers, timeout=60
        ).json()
    plant.close()
    plant.history.close()
    assert used.returncode == 0, used.stderr
    machines, count, scored, point, code = used.stdout.splitlines()
    assert machines == "['pump'] True" and count == "3" and point == "5.0" and code == "not_found"
    assert scored == f"x.wav True {round(score['score'], 4)}"
