"""Sinks: real brokers, servers and clients; what is promised arrives, in order, and nobody waits for a dead one."""

import contextlib
import csv
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from brokers import Listener, Mosquitto, free_port, wait_for
from nearfar.live.config import MqttConfig, OpcUaConfig
from nearfar.live.history.history import History
from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.language import translated
from nearfar.live.rules.alarm import STATES
from nearfar.live.sinks import lines
from nearfar.live.sinks.home_assistant import ENTITIES
from nearfar.live.sinks.messages import (
    EVENT,
    HEALTH,
    EventMessage,
    HealthMessage,
    Message,
    ScoreMessage,
    StateMessage,
    parse_message,
)
from nearfar.live.sinks.mqtt import Mqtt
from nearfar.live.sinks.prometheus import Metrics
from nearfar.live.sinks.retry import RetryQueue
from nearfar.live.sinks.webhook import Webhook, read_secret

PUMP = SimpleNamespace(
    id="pump",
    name="Pump 3",
    site="north",
    model=Path("pump3"),
    detector=SimpleNamespace(threshold=SimpleNamespace(value=3.0), window_s=10.0),
    source_health=SimpleNamespace(silence_s=30.0),
)
FAN = SimpleNamespace(**{**vars(PUMP), "id": "fan"})


def score(
    value: float = 1.5,
    machine: str = "pump",
    anomalous: bool | None = False,
    t0: float = 100.0,
    unusual: bool | None = None,
) -> ScoreMessage:
    row = ScoreRecord(machine, t0, t0 + 10, value, 3.0, anomalous, 0.5, level_near_dbfs=-30.0, unusual=unusual)
    words = ("normal", "pump3", "logmel/near_only")
    return ScoreMessage(machine, "north", t0 + 10, row, *words, unusual_stands=bool(unusual))


def event(number: int, what: str = "raised") -> EventMessage:
    return EventMessage("pump", "north", 100.0, what, Event(number, "pump", "alarm", 0.0))


def health(health: str, text: str = "") -> HealthMessage:
    return HealthMessage("pump", "north", 100.0, health, text)


def state(state: str) -> StateMessage:
    return StateMessage("pump", "north", 1.0, state)


def test_the_json_of_each_kind_stays_what_receivers_parse():
    body = {"model": "pump3", "recipe": "logmel/near_only", "score": 1.5, "threshold": 3.0, "t0": 100.0, "t1": 110.0}
    more = {"anomalous": False, "p": 0.5, "triggered_by": [], "problem": "", "state": "normal", "near_dbfs": -30.0}
    more |= {"unusual": None, "unusual_stands": False, "trend": None, "file": ""}
    at = {"at": 100.0, "at_iso": "1970-01-01T00:01:40.000+00:00"}
    head = {"machine": "pump", "site": "north"}
    then = {"at": 110.0, "at_iso": "1970-01-01T00:01:50.000+00:00"}
    assert json.loads(score().json()) == {
        "kind": "score", **head, **then, **body, **more, "far_dbfs": None, "warnings": []
    }  # fmt: skip
    assert json.loads(state("shelved").json()) == {
        "kind": "state", **head, "at": 1.0, "at_iso": "1970-01-01T00:00:01.000+00:00", "state": "shelved",
        "unusual_stands": False, "trend": None,
    }  # fmt: skip
    assert json.loads(health("problem", "dead").json()) == {
        "kind": "health", **head, **at, "health": "problem", "text": "dead"
    }  # fmt: skip
    raised = json.loads(event(7).json())
    assert raised.pop("event") == vars(Event(7, "pump", "alarm", 0.0)) | {"triggered_by": []}
    assert raised == {"kind": "event", **head, **at, "what": "raised", "url": ""}
    with pytest.raises(ValueError, match="'score'"):
        parse_message(score().json())


@pytest.mark.parametrize("word", STATES)
def test_an_alarm_stands_in_two_states(word):
    metrics = Metrics()
    metrics.put(state(word))
    stands = word in ("unacknowledged alarm", "acknowledged alarm")
    assert f'nearfar_alarm{{machine="pump"}} {float(stands)}' in metrics.text().decode()


def test_a_dead_sink_holds_nobody_up_and_its_queue_is_bounded():
    stuck = threading.Event()
    queue = RetryQueue("dead", lambda message: stuck.wait(600) and None, limit=50)
    for i in range(5000):
        queue.put(event(i))
    assert queue.dropped == 4950
    stuck.set()
    queue.close()


def test_a_queue_tries_again_in_order_and_gives_up_on_what_never_works():
    got, fail = [], [3]

    def deliver(message: Message) -> None:
        number = message.event.id
        if number == 2:
            raise ValueError("never")
        if number == 1 and fail[0]:
            fail[0] -= 1
            raise OSError("not now")
        got.append(number)

    queue = RetryQueue("flaky", deliver, first_wait_s=0.01)
    for i in range(5):
        queue.put(event(i))
    assert wait_for(lambda: got == [0, 1, 3, 4])
    queue.close()
    assert queue.dropped == 1 and queue.problem == ""


def test_what_a_queue_forgets_is_not_delivered():
    begun, go_on, got = threading.Event(), threading.Event(), []

    def deliver(message: Message) -> None:
        begun.set()
        assert go_on.wait(60)
        got.append((message.machine, queue.is_wanted(message)))

    queue = RetryQueue("slow", deliver)
    queue.put(score(machine="fan"))
    assert begun.wait(60)
    queue.put(score(machine="fan"))
    queue.put(score())
    queue.forget("fan")
    go_on.set()
    assert wait_for(lambda: len(got) == 2)
    queue.close()
    assert got == [("fan", False), ("pump", True)]


def test_json_lines_and_csv(tmp_path):
    one, two = lines.json_lines(tmp_path / "a.jsonl"), lines.csv_lines(tmp_path / "b.csv")
    for message in (score(1.5, unusual=True), event(1), score(2.5, anomalous=None), health("ok")):
        one.put(message)
        two.put(message)
    one.close()
    two.close()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert kinds == ["score", "event", "score", "health"]
    rows = list(csv.DictReader((tmp_path / "b.csv").open()))
    assert [r["score"] for r in rows] == ["1.5", "2.5"] and [r["anomalous"] for r in rows] == ["0", ""]
    assert [r["unusual"] for r in rows] == ["1", ""]
    assert rows[0]["time"] == "1970-01-01T00:01:40.000+00:00"


FULL = """
import resource, signal, sys
from pathlib import Path
from nearfar.live.sinks.lines import append
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
path, failed = Path(sys.argv[1]), 0
for i in range(30):
    try:
        append(path, f"{i:099d}\\n")
    except OSError:
        failed += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
append(path, "room again\\n")
print(failed)
"""


def test_a_file_that_may_not_grow_holds_whole_lines_only(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("50 bytes are here already, so the last does not fit\n"[:50] + "\n")
    said = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True).stdout
    got = path.read_text().splitlines()
    assert int(said) == 21 and len(got) == 11 and got[-1] == "room again" and all(len(x) == 99 for x in got[1:-1])


class Receiver(http.server.ThreadingHTTPServer):
    """Takes posts, after answering with `answers` first."""

    def __init__(self, *answers: int, port: int = 0) -> None:
        self.answers, self.taken, self.attempts = list(answers), [], 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.server.attempts += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = self.server.answers.pop(0) if self.server.answers else 204
                if code < 300:
                    self.server.taken.append((dict(self.headers), body))
                self.send_response(code)
                self.send_header("Location", "/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def ids(self) -> list[int]:
        return [json.loads(body)["event"]["id"] for _, body in self.taken]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def test_webhooks_are_signed_tried_again_and_arrive_in_order(tmp_path):
    server, history = Receiver(500, 408, 425, 429, 503), History(tmp_path)
    url = f"http://127.0.0.1:{server.server_port}/alarm"
    hook = Webhook(url, history, clock=lambda: 1234.5, secret="s3cret", first_wait_s=0.01)
    for i in range(4):
        history.outbox.enqueue(event(i))
        hook.put(event(i))
        hook.put(score())
    assert wait_for(lambda: len(server.taken) == 4)
    assert wait_for(lambda: not history.outbox.mailbox("webhook", ()).waiting())
    hook.close()
    server.close()
    assert server.ids == [0, 1, 2, 3] and server.attempts == 9
    headers, body = server.taken[0]
    seconds, _, digest = headers["X-Nearfar-Signature"].partition(",v1=")
    assert seconds == "t=1234" and digest == hmac.new(b"s3cret", b"1234." + body, hashlib.sha256).hexdigest()


def test_a_webhook_speaks_the_language_of_the_plant_and_its_codes_and_ids_stay(tmp_path):
    server, history = Receiver(), History(tmp_path)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/", history, clock=time.time, language="de")
    sent = health("problem", "near and far carry the same signal: one microphone on both channels?")
    history.outbox.enqueue(sent)
    hook.put(sent)
    assert wait_for(lambda: len(server.taken) == 1)
    hook.close()
    server.close()
    headers, body = server.taken[0]
    assert json.loads(body) == {**json.loads(sent.json()), "text": translated(sent.text, "de")}
    assert b"dasselbe Signal" in body and headers["X-Nearfar-Id"] == sent.id


def test_a_full_disk_keeps_no_event_from_its_webhook_and_what_it_could_not_keep_is_kept_later(tmp_path):
    server, history = Receiver(503), History(tmp_path)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/", history, clock=time.time, first_wait_s=0.05)
    history.database.writer.execute("PRAGMA query_only = 1")
    for i in range(2):
        history.record_event(Event(0, "pump", "alarm", 0.0), lambda kept, i=i: event(i))
        hook.put(event(i))
    assert wait_for(lambda: len(server.taken) == 2) and history.problem
    wait_for(lambda: not hook._waiting)
    history.database.writer.execute("PRAGMA query_only = 0")
    history.record_event(Event(0, "pump", "alarm", 0.0), lambda kept: event(2))
    hook.close()
    server.close()
    assert server.ids == [0, 1] and [m.event.id for m in history.outbox.mailbox("webhook", ()).waiting()] == [2]


def test_what_is_kept_comes_back_as_it_was_goes_with_its_days_and_is_for_its_sink_alone(tmp_path):
    history = History(tmp_path, keep_days=10)
    box, other = history.outbox.mailbox("mqtt", (EVENT,)), history.outbox.mailbox("webhook", (EVENT, HEALTH))
    kept = history.record_event(Event(0, "pump", "alarm", 7.5), lambda kept: event(kept.id))
    history.change_event(kept.id, lambda kept: event(kept.id, "cleared"), ended=9.0)
    history.outbox.enqueue(health("problem", "dead"))
    assert box.waiting() == [event(1), event(1, "cleared")] and len(other.waiting()) == 3
    box.forget(event(1))
    assert [m.what for m in box.waiting()] == ["cleared"] and len(other.waiting()) == 3
    assert event(1).id == parse_message(event(1).json()).id != event(1, "cleared").id
    for at in (10 * 86_400.0, 11 * 86_400.0):  # the first could be of a clock that has jumped
        history.record_score(ScoreRecord("pump", at, at + 10, 0.0, 3.0, False, 0.5))
    assert box.waiting() == other.waiting() == []
    history.close()


def test_a_queue_gives_up_the_oldest_of_too_many_on_disk_too(tmp_path):
    history, stuck = History(tmp_path), threading.Event()
    box = history.outbox.mailbox("slow", (EVENT,))
    queue = RetryQueue("slow", lambda message: stuck.wait(600) and None, box, limit=5)
    for i in range(20):
        history.outbox.enqueue(event(i))
        queue.put(event(i))
    assert queue.dropped == 15 and [m.event.id for m in box.waiting()] == list(range(15, 20))
    stuck.set()
    assert wait_for(lambda: not box.waiting())
    queue.close()


def test_a_webhook_that_has_moved_is_said_and_not_asked_with_get(tmp_path):
    server = Receiver(301)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/", History(tmp_path), clock=time.time, first_wait_s=0.01)
    hook.put(event(0))
    assert wait_for(lambda: hook.dropped) and "answered 301" in hook.problem and server.attempts == 1
    hook.close()
    server.close()


def test_what_is_refused_for_good_does_not_hold_up_the_rest(tmp_path):
    server = Receiver(400)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/", History(tmp_path), clock=time.time, first_wait_s=0.01)
    hook.put(event(0))
    hook.put(event(1))
    assert wait_for(lambda: server.taken)
    hook.close()
    server.close()
    assert server.ids == [1] and hook.dropped == 1


CHILD = """
import sys, time
from nearfar.live.rules.alarm import STATES
from nearfar.live.history.history import History
from nearfar.live.sinks.messages import EventMessage
from nearfar.live.history.records import Event
from nearfar.live.sinks.webhook import Webhook
history = History(sys.argv[2])
hook = Webhook(sys.argv[1], history, clock=time.time)
for i in range(10):
    history.outbox.enqueue(EventMessage("pump", "north", 0.0, "raised", Event(i, "pump", "alarm", 0.0)))
print("put", flush=True)
time.sleep(60)
"""


def test_what_was_promised_to_a_webhook_survives_kill_9(tmp_path):
    url = f"http://127.0.0.1:{(port := free_port())}/"
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "put\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    server = Receiver(port=port)
    hook = Webhook(url, History(tmp_path), clock=time.time, first_wait_s=0.01)
    hook.put(event(10))
    assert wait_for(lambda: len(server.taken) == 11)
    hook.close()
    server.close()
    assert server.ids == list(range(11))


def test_a_receiver_that_is_away_is_named_and_takes_no_password(tmp_path):
    with pytest.raises(ValueError, match="no user and password"):
        Webhook("http://anna:s3cret@127.0.0.1/", History(tmp_path), clock=time.time)
    hook = Webhook(f"http://127.0.0.1:{free_port()}/", History(tmp_path), clock=time.time)
    hook.put(event(0))
    assert wait_for(lambda: hook.problem)
    hook.close()
    assert hook.problem == "webhook: 127.0.0.1 does not answer (Connection refused)"


def test_secrets_come_from_files(tmp_path):
    (tmp_path / "s").write_text("abc\n")
    assert read_secret(tmp_path / "s") == "abc"
    (tmp_path / "s").write_text("\n")
    with pytest.raises(ValueError, match="no secret"):
        read_secret(tmp_path / "s")
    with pytest.raises(ValueError, match="http"):
        Webhook("ftp://x", History(tmp_path), clock=time.time)


@pytest.fixture
def broker(tmp_path):
    made = Mosquitto(tmp_path)
    made.start()
    yield made
    made.stop()


def test_mqtt_topics_and_what_is_retained(broker, tmp_path):
    listener = Listener(broker.port)
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP, FAN], History(tmp_path))
    assert wait_for(lambda: len(listener.of("/health")) == 2)
    sink.put(score(4.5, anomalous=True, unusual=True))
    sink.put(StateMessage("pump", "north", 1.0, "unacknowledged alarm", unusual_stands=True))
    sink.put(event(7))
    sink.put(health("problem", "dead"))
    assert wait_for(lambda: b"problem" in b"".join(listener.of("pump/health")) and listener.of("/event"))
    told = [json.loads(payload)["health"] for payload in listener.of("pump/health")]
    assert told == ["waiting", "ok", "problem"]  # nothing is "ok" before it has been heard
    (payload,) = listener.of("nearfar/north/pump/score")
    body = json.loads(payload)
    assert {"model", "recipe", "score", "threshold", "t0", "t1"} <= set(body) and body["score"] == 4.5
    assert json.loads(listener.of("nearfar/north/pump/state")[0])["state"] == "unacknowledged alarm"
    assert json.loads(listener.of("nearfar/north/pump/event")[0])["event"]["id"] == 7
    late = Listener(broker.port)
    assert wait_for(lambda: len(late.heard) >= 10)
    kept = {topic for topic, _, retained in late.heard if retained}
    assert all(topic.endswith(("/health", "/config")) for topic in kept)
    assert json.loads(late.of("pump/health")[0])["health"] == "problem"
    sink.close()
    assert wait_for(lambda: json.loads(late.of("pump/health")[-1])["health"] == "offline")
    late.close()
    listener.close()


def test_what_is_retained_for_a_machine_goes_with_it_and_a_new_one_is_announced(broker, tmp_path):
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP], History(tmp_path))
    first = Listener(broker.port)
    sink.add_machine(FAN, 0.0)
    assert wait_for(lambda: first.of("fan/health") and len(first.of("/config")) == 2 * len(ENTITIES))
    sink.put(health("ok"))
    assert wait_for(lambda: json.loads(first.of("pump/health")[-1])["health"] == "ok")
    sink.add_machine(PUMP, 0.0)  # another model: what Home Assistant knows stays
    assert wait_for(lambda: json.loads(first.of("pump/health")[-1])["health"] == "waiting")
    sink.remove_machine("fan")
    sink.put(score(machine="fan"))  # comes too late
    assert wait_for(lambda: first.of("fan/health")[-1] == b"" and first.of("/config").count(b"") == len(ENTITIES))
    late = Listener(broker.port)
    assert wait_for(lambda: len(late.heard) == 1 + len(ENTITIES))  # health and the entities of the pump
    assert not [topic for topic, _, _ in late.heard if "fan" in topic] and b"" not in first.of("pump/health")
    assert json.loads((tmp_path / "mqtt-announced.json").read_text()) == [["nearfar", PUMP.site, "pump"]]
    sink.close()
    first.close()
    late.close()


def test_what_is_retained_for_a_machine_that_goes_while_the_broker_is_away_goes_later(tmp_path, broker):
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP, FAN], History(tmp_path), longest_wait_s=1)
    assert wait_for(lambda: all(connection.is_connected for connection in sink._connections.values()))
    broker.stop()
    assert wait_for(lambda: not any(client.is_connected() for client in (c.client for c in sink._connections.values())))
    sink.remove_machine("fan")
    assert ["nearfar", FAN.site, "fan"] in json.loads((tmp_path / "mqtt-announced.json").read_text())
    broker.start()
    assert wait_for(
        lambda: ["nearfar", FAN.site, "fan"] not in json.loads((tmp_path / "mqtt-announced.json").read_text())
    )
    sink.close()


def test_home_assistant_finds_the_machine_and_again_when_it_starts(broker, tmp_path):
    listener = Listener(broker.port, "homeassistant/#")
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP], History(tmp_path))
    assert wait_for(lambda: len(listener.of("/config")) == 5)
    configs = [json.loads(p) for p in listener.of("/config")]
    assert len({c["unique_id"] for c in configs}) == 5 and {c["device"]["name"] for c in configs} == {"Pump 3"}
    for config in configs:
        assert config["state_topic"].startswith("nearfar/north/pump/") and "value_json" in config["value_template"]
        assert config["availability"][0]["topic"] == "nearfar/north/pump/health"
    listener.client.publish("homeassistant/status", "online", qos=1)
    assert wait_for(lambda: len(listener.of("/config")) == 10)
    sink.close()
    listener.close()


def test_events_survive_a_broker_that_restarts_and_its_will_speaks_for_the_dead(broker, tmp_path):
    listener = Listener(broker.port)
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP], History(tmp_path), longest_wait_s=1)
    assert wait_for(lambda: listener.of("/health"))
    sink.put(event(0))
    assert wait_for(lambda: listener.of("/event"))
    broker.stop()
    assert wait_for(lambda: sink.problem)
    for i in range(1, 6):  # a put that waited for the broker would wait for ever
        sink.put(event(i))
        sink.put(score())
    listener.ready.clear()
    broker.start()
    assert wait_for(lambda: not sink.problem and listener.ready.is_set())
    sink.put(event(6))
    assert wait_for(lambda: len({json.loads(p)["event"]["id"] for p in listener.of("/event")}) >= 2)
    late = Listener(broker.port, "nearfar/#")
    assert wait_for(lambda: late.of("/health"))  # told again to a broker that had forgotten
    for client in (c.client for c in sink._connections.values()):  # the process is killed
        client.loop_stop()  # first: it would connect again
        client._sock_close()
    assert wait_for(lambda: json.loads(late.of("/health")[-1])["health"] == "offline")
    late.close()
    listener.close()


def test_nothing_that_waits_for_a_broker_is_lost(tmp_path):
    """Events sent before there is a broker, and while it is away, reach a subscriber that the broker remembers."""
    broker = Mosquitto(tmp_path, "persistence true", f"persistence_location {tmp_path}/", "user root")
    broker.start()
    Listener(broker.port, topic := "nearfar/+/+/event", "scada").close()
    broker.stop()
    sink = Mqtt(
        MqttConfig(host="127.0.0.1", port=broker.port, discovery=False), [PUMP], History(tmp_path), longest_wait_s=1
    )
    for i in range(20):
        sink.put(event(i))
    assert wait_for(lambda: "does not answer" in sink.problem)
    broker.start()
    listener = Listener(broker.port, topic, "scada")

    def told():
        return [json.loads(payload)["event"]["id"] for payload in listener.of("/event")]

    assert wait_for(lambda: set(told()) == set(range(20)))
    assert list(dict.fromkeys(told())) == list(range(20))  # what was not confirmed in time comes twice
    sink.close()
    listener.close()
    broker.stop()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_mqtt_over_tls_with_a_password(tmp_path):
    for name, who in (("ca", "/CN=ca"), ("server", "/CN=localhost")):
        key = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{tmp_path}/{name}.key", "-subj", who]
        if name == "ca":
            subprocess.run([*key, "-x509", "-days", "2", "-out", f"{tmp_path}/ca.crt"], capture_output=True, check=True)
            continue
        subprocess.run([*key, "-out", f"{tmp_path}/server.csr"], capture_output=True, check=True)
        (tmp_path / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        sign = ["openssl", "x509", "-req", "-days", "2", "-CA", f"{tmp_path}/ca.crt", "-CAkey", f"{tmp_path}/ca.key"]
        files = ["-in", f"{tmp_path}/server.csr", "-out", f"{tmp_path}/server.crt", "-extfile", f"{tmp_path}/san"]
        subprocess.run([*sign, "-CAcreateserial", *files], capture_output=True, check=True)
    tls = [f"cafile {tmp_path}/ca.crt", f"certfile {tmp_path}/server.crt", f"keyfile {tmp_path}/server.key"]
    broker = Mosquitto(tmp_path, *tls, "user root")
    broker.start()
    ca = f"{tmp_path}/ca.crt"
    listener = Listener(broker.port, ca_certs=ca)
    sink = Mqtt(
        MqttConfig(host="127.0.0.1", port=broker.port, username="anna", ca=Path(ca)),
        [PUMP],
        History(tmp_path),
        password="x",
    )
    assert wait_for(lambda: listener.of("pump/health"))
    sink.close()
    listener.close()
    broker.stop()


def test_metrics_have_the_names_that_were_promised():
    metrics = Metrics()
    metrics.put(score(2.5, unusual=True))
    metrics.put(score(4.5, anomalous=True, unusual=True))
    metrics.put(score(anomalous=None))
    metrics.put(StateMessage("pump", "north", 1.0, "acknowledged alarm", unusual_stands=True))
    metrics.put(health("problem"))
    metrics.put(event(1))
    metrics.count_dropped("pump")
    metrics.count_failed("pump")
    metrics.observe("pump", 0.03, 4.0)
    metrics.observe("fan", 0.03, 1.0)
    text = metrics.text().decode()
    for line in (
        'nearfar_score{machine="pump"} 4.5',
        'nearfar_threshold{machine="pump"} 3.0',
        'nearfar_alarm{machine="pump"} 1.0',
        'nearfar_unusual{machine="pump"} 1.0',
        'nearfar_windows_total{machine="pump",result="unusual"} 1.0',
        'nearfar_windows_total{machine="pump",result="anomalous"} 1.0',
        'nearfar_windows_total{machine="pump",result="cannot_judge"} 1.0',
        "nearfar_windows_dropped_total 1.0",
        'nearfar_inference_seconds_bucket{le="0.05"} 2.0',
        "nearfar_lag_seconds 4.0",
        'nearfar_audio_level_dbfs{channel="near",machine="pump"} -30.0',
        'nearfar_last_audio_timestamp_seconds{machine="pump"} 110.0',
    ):
        assert line in text, line


def test_what_is_counted_begins_at_0_so_that_the_first_alarm_is_an_increase():
    text = Metrics(["pump"]).text().decode()
    assert 'nearfar_events_total{kind="alarm",machine="pump"} 0.0' in text
    assert 'nearfar_windows_total{machine="pump",result="failed"} 0.0' in text
    assert 'nearfar_health_problem{machine="pump"} 0.0' in text  # else panels of health lack every healthy machine
    assert "nearfar_alarm{" not in text  # nobody knows yet


def test_a_machine_that_is_never_heard_is_stale_from_the_start():
    text = Metrics(["pump", "fan"], listening=["pump"], started=1000.0).text().decode()
    assert 'nearfar_last_audio_timestamp_seconds{machine="pump"} 1000.0' in text and '{machine="fan"} 1000' not in text


def test_metrics_show_sinks_the_disk_the_history_and_the_build(tmp_path):
    metrics, history = Metrics(), History(tmp_path)
    broken = SimpleNamespace(name="mqtt", problem="")
    metrics.watch(history, [metrics, broken])
    text = metrics.text().decode()
    for line in (
        'nearfar_sink_problem{sink="mqtt"} 0.0',
        "nearfar_history_problem 0.0",
        'nearfar_build_info{python="3.',
    ):
        assert line in text, line
    assert 'sink="prometheus"' not in text and "nearfar_refused_logins_total 0.0" in text
    free = float(re.search(r"^nearfar_disk_free_bytes (\S+)$", text, re.MULTILINE)[1])
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    broken.problem = "mqtt: x does not answer"
    history.database.problem = "history: disk full"
    metrics.count_refused_login()
    text = metrics.text().decode()
    assert 'nearfar_sink_problem{sink="mqtt"} 1.0' in text and "nearfar_history_problem 1.0" in text
    assert "nearfar_refused_logins_total 1.0" in text


def test_metrics_are_served():
    import urllib.request

    metrics = Metrics()
    metrics.put(score(4.5))
    port = metrics.serve("127.0.0.1", 0)
    assert b"nearfar_score" in urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read()
    with pytest.raises(OSError, match=f"metrics cannot be served at 127.0.0.1:{port}: Address already in use"):
        Metrics().serve("127.0.0.1", port)
    metrics.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))


@pytest.fixture
def opcua():
    """Makes sinks that are closed whatever happens: their threads would keep the process."""
    from nearfar.live.sinks.opcua import OpcUa

    with contextlib.ExitStack() as made:
        yield lambda *given, **more: made.enter_context(contextlib.closing(OpcUa(*given, **more)))


@pytest.mark.slow
def test_a_port_that_is_taken_is_named_by_opc_ua():
    from nearfar.live.sinks.opcua import OpcUa

    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"opc.tcp://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(OSError, match=f"OPC-UA cannot be served at {endpoint}: .*in use"):
            OpcUa([], OpcUaConfig(endpoint=endpoint))


def test_opc_ua_shows_each_machine_to_a_client(opcua):
    from asyncua.sync import Client

    from nearfar.live.sinks.opcua import NAMESPACE

    endpoint = f"opc.tcp://127.0.0.1:{free_port()}/nearfar/"
    sink = opcua([PUMP, FAN], OpcUaConfig(endpoint=endpoint), language="de")
    sink.put(score(4.5, anomalous=True, unusual=True))
    sink.put(StateMessage("pump", "north", 1.0, "unacknowledged alarm", unusual_stands=True))
    same = "near and far carry the same signal: one microphone on both channels?"
    sink.put(health("problem", same))
    with Client(endpoint, timeout=60) as client:
        space = client.get_namespace_index(NAMESPACE)

        def read(machine: str, name: str):
            path = [f"{space}:{part}" for part in ("nearfar", machine, name)]
            return client.nodes.objects.get_child(path).read_data_value(raise_on_bad_status=False).Value.Value

        assert wait_for(lambda: read("pump", "Health") == f"problem: {translated(same, 'de')}")
        assert read("pump", "Score") == 4.5 and read("pump", "Threshold") == 3.0 and read("pump", "Alarm") is True
        assert read("pump", "Unusual") is True
        assert read("pump", "LastUpdate").timestamp() == 110.0 or read("pump", "LastUpdate").second == 50
        assert read("fan", "Health") == "ok"
        node = client.nodes.objects.get_child([f"{space}:{p}" for p in ("nearfar", "pump", "Score")])
        with pytest.raises(Exception, match=r"(?i)user|access|writ"):
            node.write_value(0.0)


def test_opc_ua_has_the_machines_of_now(opcua):
    pytest.importorskip("asyncua")
    from asyncua.sync import Client

    from nearfar.live.sinks.opcua import NAMESPACE

    endpoint = f"opc.tcp://127.0.0.1:{free_port()}/nearfar/"
    sink = opcua([PUMP], OpcUaConfig(endpoint=endpoint))
    with Client(endpoint, timeout=60) as client:
        space = client.get_namespace_index(NAMESPACE)
        root = client.nodes.objects.get_child(f"{space}:nearfar")

        def names():
            return [node.read_browse_name().Name for node in root.get_children()]

        sink.add_machine(FAN, 0.0)
        assert names() == ["pump", "fan"]
        sink.put(score(4.5, machine="fan"))
        assert wait_for(
            lambda: root.get_child([f"{space}:fan", f"{space}:Score"]).read_data_value(False).Value.Value == 4.5
        )
        sink.add_machine(FAN, 0.0)  # replaced: what was shown is of the machine of before
        for name in ("Score", "Alarm", "Unusual"):
            shown = root.get_child([f"{space}:fan", f"{space}:{name}"]).read_data_value(False)
            assert not shown.StatusCode.is_good()
        sink.remove_machine("fan")
        sink.put(score(machine="fan"))
        assert names() == ["pump"] and not sink.problem
        sink.add_machine(FAN, 0.0)
        assert names() == ["pump", "fan"]
        score_of = root.get_child([f"{space}:fan", f"{space}:Score"])
        assert not score_of.read_data_value(False).StatusCode.is_good()


def test_opc_ua_lets_nobody_write_whatever_the_name(opcua, tmp_path):
    from asyncua import ua
    from asyncua.sync import Client

    from nearfar.live.sinks.opcua import NAMESPACE

    endpoint = f"opc.tcp://127.0.0.1:{free_port()}/nearfar/"
    sink = opcua([PUMP], OpcUaConfig(endpoint=endpoint))
    sink.put(score(4.5))
    admin = Client(endpoint, timeout=60)
    admin.set_user("admin")
    admin.set_password("anything")
    with pytest.raises(ua.UaStatusCodeError):
        admin.connect()
    with contextlib.suppress(RuntimeError):
        admin.tloop.stop()
    with Client(endpoint, timeout=60) as client:
        space = client.get_namespace_index(NAMESPACE)
        node = client.nodes.objects.get_child([f"{space}:{p}" for p in ("nearfar", "pump", "Score")])
        assert wait_for(lambda: node.read_data_value(False).Value.Value == 4.5)
        tries = (
            lambda: node.write_value(0.0),
            lambda: node.set_writable(),
            lambda: client.nodes.objects.add_object(space, "evil"),
            lambda: client.delete_nodes([node]),
            lambda: client.nodes.server.call_method("0:GetMonitoredItems", 1),
        )
        for attempt in tries:
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                attempt()
        assert node.read_value() == 4.5 and client.get_endpoints()[0].Server.ApplicationUri == "urn:nearfar:server"


def certificate(folder: Path, name: str, uri: str) -> tuple[Path, Path]:
    """A self-signed certificate for OPC-UA and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    names = f"subjectAltName=URI:{uri},DNS:localhost"
    subject = ["-subj", f"/CN={name}", "-addext", names, "-days", "2", "-out", str(cert), "-keyout", str(key)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_opc_ua_with_a_certificate_is_for_users_who_encrypt_and_log_in(opcua, tmp_path):
    from asyncua import ua
    from asyncua.sync import Client

    from nearfar.live.sinks.opcua import NAMESPACE, read_users

    endpoint = f"opc.tcp://127.0.0.1:{free_port()}/nearfar/"
    cert, key = certificate(tmp_path, "server", "urn:nearfar:server")
    own = certificate(tmp_path, "client", "urn:scada")
    (tmp_path / "users").write_text("scada:a secret\n")
    config = OpcUaConfig(endpoint=endpoint, certificate=cert, key=key, users_file=tmp_path / "users")
    sink = opcua([PUMP], config, read_users(config.users_file))
    sink.put(score(4.5))

    def read(user: str, password: str, encrypted: bool = True) -> float:
        client = Client(endpoint, timeout=60)
        client.application_uri = "urn:scada"
        try:
            if encrypted:
                client.set_security_string(f"Basic256Sha256,SignAndEncrypt,{own[0]},{own[1]}")
            if user:
                client.set_user(user)
                client.set_password(password)
            client.connect()
            try:
                space = client.get_namespace_index(NAMESPACE)
                node = client.nodes.objects.get_child([f"{space}:{p}" for p in ("nearfar", "pump", "Score")])
                with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                    node.write_value(0.0)
                return node.read_value()
            finally:
                client.disconnect()
        finally:
            with contextlib.suppress(RuntimeError):  # it has stopped with the connection
                client.tloop.stop()

    assert wait_for(lambda: read("scada", "a secret") == 4.5)
    for user, password, encrypted in (
        ("scada", "wrong", True),
        ("admin", "anything", True),
        ("", "", True),
        ("scada", "a secret", False),
    ):
        with pytest.raises(Exception):  # noqa: B017  refused by the server, or no endpoint is found
            read(user, password, encrypted)


@pytest.mark.parametrize("text, says", [("", "holds no user"), ("anna\n", "line 1: a user is written NAME:PASSWORD")])
def test_a_file_of_users_that_cannot_be_used_is_named(tmp_path, text, says):
    from nearfar.live.sinks.opcua import read_users

    (tmp_path / "users").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_users(tmp_path / "users")


@pytest.mark.slow
def test_opc_ua_says_whether_a_value_can_be_trusted_and_emits_alarms(opcua):
    from asyncua.sync import Client

    from nearfar.live.sinks.opcua import NAMESPACE

    endpoint = f"opc.tcp://127.0.0.1:{free_port()}/nearfar/"
    sink = opcua([PUMP], OpcUaConfig(endpoint=endpoint))
    emitted = []

    class Handler:
        def event_notification(self, event):
            emitted.append(event)

    with Client(endpoint, timeout=60) as client:
        space = client.get_namespace_index(NAMESPACE)
        machine = client.nodes.objects.get_child([f"{space}:{p}" for p in ("nearfar", "pump")])

        def status(name: str) -> str:
            return machine.get_child(f"{space}:{name}").read_data_value(raise_on_bad_status=False).StatusCode.name

        def becomes(wanted: str) -> bool:
            return wait_for(lambda: {status("Score"), status("Alarm")} == {wanted})

        assert becomes("BadWaitingForInitialData")
        for messages, wanted in (
            ([health("problem", "no sound has come")], "BadWaitingForInitialData"),
            ([score(1.0, anomalous=None)], "BadWaitingForInitialData"),
            ([score(1.5)], "UncertainLastUsableValue"),
            ([health("ok", "")], "UncertainLastUsableValue"),
            ([score(1.5)], "Good"),
            ([score(9.0, anomalous=None)], "UncertainLastUsableValue"),
            ([score(1.6)], "Good"),
            ([health("problem", "no sound has come")], "UncertainLastUsableValue"),
            ([health("ok", ""), score(1.7)], "Good"),
        ):
            for message in messages:
                sink.put(message)
            assert becomes(wanted), wanted
        assert status("Threshold") == status("Health") == "Good"
        subscription = client.create_subscription(50, Handler())
        subscription.subscribe_events(machine)
        sink.put(event(7))
        assert wait_for(lambda: emitted)
        assert emitted[0].Severity == 700 and "event 7" in emitted[0].Message.Text
        subscription.delete()


def test_two_monitors_of_one_machine_do_not_evict_each_other(tmp_path):
    broker = Mosquitto(tmp_path)
    broker.start()
    histories = [History(tmp_path / name) for name in ("one", "two")]
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    sinks = [Mqtt(config, [PUMP], history, longest_wait_s=1) for history in histories]
    assert wait_for(lambda: all(sink._connections["pump"].is_connected for sink in sinks))
    time.sleep(0.3)  # one that is evicted notices at once
    assert all(sink._connections["pump"].is_connected and not sink.problem for sink in sinks)
    for sink in sinks:
        sink.close()
    for history in histories:
        history.close()
    broker.stop()


def test_a_broker_that_hangs_holds_nobody_up_at_the_end(tmp_path):
    broker, history = Mosquitto(tmp_path), History(tmp_path / "h")
    broker.start()
    sink = Mqtt(MqttConfig(host="127.0.0.1", port=broker.port), [PUMP, FAN], history)
    assert wait_for(lambda: all(client.is_connected() for client in (c.client for c in sink._connections.values())))
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        sink.put(event(1))
        closing = threading.Thread(target=sink.close, args=(2.0,), daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)
    history.close()
    broker.stop()


@pytest.mark.parametrize(
    "missing, make",
    [
        ("paho.mqtt", lambda: Mqtt(MqttConfig(host="x"), [], None)),
        ("prometheus_client", Metrics),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, missing, make):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "nearfar\[live\]"'):
        make()


def test_a_receiver_that_answers_byte_by_byte_is_said_and_gets_what_waits_when_it_is_well(tmp_path):
    taken, drips = [], [True]

    class Drips(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            while drips[0]:
                self.wfile.write(b"H")
                self.wfile.flush()
                time.sleep(0.05)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drips)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    history = History(tmp_path)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/", history, clock=time.time, timeout_s=60, first_wait_s=0.01)
    hook._attempt_s = 0.6
    hook.put(event(1))
    assert wait_for(lambda: "no whole answer within 0.6 s" in hook.problem)
    wait_for(lambda: taken)
    time.sleep(0.5)
    assert len(taken) == 1  # no second attempt beside the first
    drips[0] = False
    assert wait_for(lambda: len(taken) > 1 and hook.problem == "")
    hook.close()
    server.shutdown()
    server.server_close()
    history.close()
