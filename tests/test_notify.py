"""Messages to people: real servers on this machine take them, and what the rules promise holds."""

import base64
import email
import http.server
import io
import json
import threading
from datetime import datetime, timedelta
from email import policy
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import soundfile
from aiosmtpd.controller import Controller

from brokers import free_port, wait_for
from commands import nearfar
from nearfar.live.channels import channels
from nearfar.live.config import NotifyConfig, from_options
from nearfar.live.history.records import Event
from nearfar.live.sinks.notify import Address, Channel, words
from plants import T0, plant_of, windows
from servers import client_of

FAULTY = ["", "", "", *["hiss"] * 4, *[""] * 8]


class Receiver(http.server.ThreadingHTTPServer):
    """Takes posts and puts, answering with `answers` first and 200 then."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.taken, self.attempts = list(answers), [], 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.server.attempts += 1
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                code = self.server.answers.pop(0) if self.server.answers else 200
                if code < 300:
                    self.server.taken.append((self.path, dict(self.headers), body))
                self.send_response(code)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_PUT = do_POST

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def messages(self) -> list[dict]:
        return [json.loads(body) for _, _, body in self.taken]

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.messages]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def add_channel(plant, clock, url, name="shift", **rules):
    url += f"{'&' if '?' in url else '?'}cto=60&rto=60"  # apprise gives a server 4 s
    channel = Channel(
        name, NotifyConfig(url=url, **rules), plant.machines, plant.history, clock=clock,
        first_wait_s=0.01,
    )  # fmt: skip
    plant.sinks.append(channel)
    return channel


def listen(plant, faults=FAULTY, start=T0):
    for window in windows(faults, start):
        plant.process_window("pump", window)


def test_an_alarm_reaches_people_with_its_picture_and_sound(pump_model, tmp_path, receiver):
    plant, _, clock = plant_of(pump_model, tmp_path)
    plant.machines["pump"].name = "Pump 3"
    plant.reporter.url = "https://plant.example"
    channel = add_channel(plant, clock, f"json://127.0.0.1:{receiver.server_port}/")
    assert channel.address.attaches
    listen(plant, FAULTY[:7])
    assert wait_for(lambda: receiver.taken)
    listen(plant, FAULTY[7:], T0 + 14)
    assert wait_for(lambda: len(receiver.taken) == 2)
    first, last = receiver.messages
    event = plant.history.events()[0]
    assert receiver.titles == ["Alarm: Pump 3", "Alarm: Pump 3, over"]
    since = f"{datetime.fromtimestamp(event.started):%a %H:%M}"
    assert first["message"].startswith(f"Sounds wrong since {since}: score ") and "kHz" in first["message"]
    assert first["message"].endswith(f"https://plant.example/event/{event.id}")
    files = {a["filename"]: base64.b64decode(a["base64"]) for a in first["attachments"]}
    assert files["change.png"].startswith(b"\x89PNG")
    samples, rate = soundfile.read(io.BytesIO(files["sound.wav"]))
    assert rate == 16_000 and samples.ndim == 1 and 0.6 < np.abs(samples).max() < 0.72
    assert len(samples) == 10 * rate and not last["attachments"]
    assert wait_for(lambda: not plant.history.outbox.mailbox("notify.shift", ()).waiting())
    channel.close()
    plant.history.close()


def test_rules_choose_machines_kinds_and_ends(pump_model, tmp_path, receiver):
    plant, _, clock = plant_of(pump_model, tmp_path, "pump", "fan")
    url = f"json://127.0.0.1:{receiver.server_port}/"
    channels = [
        add_channel(plant, clock, url, "one", machines=("fan",)),
        add_channel(plant, clock, url, "two", events=("health",)),
        add_channel(plant, clock, url, "three", over=False, sound=False),
    ]
    listen(plant, FAULTY[:7])
    assert wait_for(lambda: receiver.taken)
    listen(plant, FAULTY[7:], T0 + 14)
    assert wait_for(lambda: not any(channel._waiting for channel in channels))
    assert receiver.titles == ["Alarm: pump"]
    for channel in channels:
        channel.close()
    plant.history.close()


def test_in_quiet_hours_messages_wait_and_a_test_does_not(pump_model, tmp_path, receiver):
    plant, _, clock = plant_of(pump_model, tmp_path)
    day = datetime.fromtimestamp(T0)
    quiet = f"{day - timedelta(minutes=1):%H:%M}-{day + timedelta(hours=1):%H:%M}"
    channel = add_channel(plant, clock, f"json://127.0.0.1:{receiver.server_port}/", quiet=(quiet,))
    with client_of(plant, clock) as client:
        listen(plant)
        (shown,) = client.get("/v1/channels").json()["channels"]
        assert T0 < shown["quiet_until"] <= T0 + 3601 and shown["problem"] == "" and "127.0.0.1" not in str(shown)
        assert client.post("/v1/channels/shift/test").json()["ok"] is True
        assert receiver.titles == ["nearfar: a test"] and client.post("/v1/channels/x/test").status_code == 404
    channel.close()  # as a restart: the mailbox keeps them
    clock.now = T0 + 7200
    again = add_channel(plant, clock, f"json://127.0.0.1:{receiver.server_port}/", quiet=(quiet,))
    assert wait_for(lambda: len(receiver.taken) == 2)
    assert wait_for(lambda: not again._waiting)
    assert receiver.titles[1:] == ["Alarm: pump, over"]  # its end is told with its beginning, and not once more
    again.close()
    plant.history.close()


def test_what_is_refused_is_said_and_sent_again_without_attachments(pump_model, tmp_path):
    server = Receiver(500)
    plant, _, clock = plant_of(pump_model, tmp_path)
    channel = add_channel(plant, clock, f"json://127.0.0.1:{server.server_port}/", over=False)
    listen(plant)
    assert wait_for(lambda: server.taken) and server.attempts == 2
    assert not server.messages[0]["attachments"]
    server.answers = [401] * 1000
    listen(plant, start=T0 + 3600)
    assert wait_for(lambda: "401" in channel.problem) and channel.problem.startswith("shift: ")
    with client_of(plant, clock) as client:
        done = client.post("/v1/channels/shift/test").json()
    assert done["ok"] is False and "did not take the message" in done["message"]
    clock.now = T0 + 200_000  # the clock is set: that is no reason to give up
    for _ in range(2):
        attempts = server.attempts
        channel.retry_now()
        assert wait_for(lambda: server.attempts > attempts)  # noqa: B023
    begun = channel._failing_since
    assert channel.dropped == 0
    channel.steady = lambda: begun + 86_401
    channel.retry_now()
    assert wait_for(lambda: channel.dropped == 1)  # given up after a day
    channel.close()
    server.close()
    plant.history.close()


@pytest.mark.slow
def test_ntfy_gets_text_and_files(pump_model, tmp_path, receiver):
    plant, _, clock = plant_of(pump_model, tmp_path)
    channel = add_channel(plant, clock, f"ntfy://127.0.0.1:{receiver.server_port}/north?mode=private", over=False)
    listen(plant)
    assert wait_for(lambda: not channel._waiting)
    bodies = b"".join(body for _, _, body in receiver.taken)
    first = parse_qs(urlsplit(receiver.taken[0][0]).query)
    assert not channel.problem and first["title"] == ["Alarm: pump"] and "Sounds wrong since" in first["message"][0]
    assert b"\x89PNG" in bodies and b"RIFF" in bodies
    channel.close()
    plant.history.close()


class Inbox:
    def __init__(self):
        self.letters = []

    async def handle_DATA(self, server, session, envelope):
        self.letters.append(email.message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


def test_an_alarm_by_mail_has_its_picture_and_sound(pump_model, tmp_path):
    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=free_port(), ready_timeout=60)
    server.start()
    plant, _, clock = plant_of(pump_model, tmp_path)
    url = f"mailto://127.0.0.1:{server.port}?from=nearfar@plant.example&to=shift@plant.example&mode=insecure"
    channel = add_channel(plant, clock, url, over=False)
    listen(plant)
    assert wait_for(lambda: inbox.letters) and not channel.problem
    (letter,) = inbox.letters
    assert letter["Subject"].startswith("Alarm: pump") and "shift@plant.example" in letter["To"]
    kinds = [part.get_content_type() for part in letter.walk()]
    assert "image/png" in kinds and any(kind.startswith("audio/") for kind in kinds)
    channel.close()
    server.stop()
    plant.history.close()


@pytest.mark.slow
def test_channels_are_added_and_removed_while_the_plant_runs(pump_model, tmp_path, receiver):
    config = from_options({"models": tmp_path / "models", "history": {"folder": tmp_path / "history"}})
    plant, _, clock = plant_of(pump_model, config.history.folder)
    add_channel(plant, clock, f"ntfy://127.0.0.1:{receiver.server_port}/x", "fixed")
    url = f"ntfy://127.0.0.1:{receiver.server_port}/north?mode=private"
    with client_of(plant, clock) as client:
        body = {"url": url, "machines": ["pump"], "quiet": ["03:00-03:01"], "sound": False, "who": "Anna"}
        made = client.put("/v1/channels/shift", json=body)
        assert made.status_code == 200 and made.json()["added"] and made.json()["service"] == "ntfy"
        assert client.put("/v1/channels/shift", json={**body, "over": False}).status_code == 200  # replaced
        assert [c["name"] for c in client.get("/v1/channels").json()["channels"]] == ["fixed", "shift"]
        for name, change, code in (
            ("fixed", {}, 409),
            ("other", {"url": "json://127.0.0.1/"}, 422),
            ("other", {"url": "file:///etc/passwd"}, 422),
            ("other", {"machines": ["saw"]}, 422),
            ("other", {"quiet": ["at night"]}, 422),
            ("other", {"events": ["fire"]}, 422),
            ("a%20b", {}, 422),
        ):
            assert client.put(f"/v1/channels/{name}", json={**body, **change}).status_code == code, (name, change)
        assert client.post("/v1/channels/shift/test").json()["ok"]
        listen(plant, FAULTY[:7])
        assert wait_for(lambda: any(b"Alarm: pump" in body and b"north" in body for _, _, body in receiver.taken))
        assert (config.history.folder / "channels.json").stat().st_mode & 0o077 == 0
        assert channels(config)["shift"].over is False  # after a restart
        assert client.delete("/v1/channels/fixed").status_code == 409
        assert client.delete("/v1/channels/shift", params={"who": "Anna"}).status_code == 200
        assert client.post("/v1/channels/shift/test").status_code == 404 and channels(config) == {}
        audit = [(e["action"], e["who"]) for e in client.get("/v1/audit").json()["audit"]]
    assert audit == [("channel removed", "Anna"), ("channel added", "Anna"), ("channel added", "Anna")]
    for sink in plant.sinks:
        sink.close()
    plant.history.close()


def test_the_command_tests_every_channel(tmp_path, receiver, pump_model):
    config = tmp_path / "plant.toml"
    config.write_text(
        f'[machines.pump]\nmodel = "{pump_model}"\n'
        f'[notify.good]\nurl = "json://127.0.0.1:{receiver.server_port}/"\n'
        f'[notify.gone]\nurl = "json://127.0.0.1:{free_port()}/"\n'
    )
    code, out, _ = nearfar("notify", "test", config, "--json")
    facts = json.loads(out)["channels"]
    assert code == 2 and facts["good"]["ok"] and not facts["gone"]["ok"]
    assert receiver.messages[0]["attachments"][0]["filename"] == "test.wav"
    assert nearfar("notify", "test", config, "--channel", "good")[0] == 0
    assert "choose one of" in nearfar("notify", "test", config, "--channel", "bad")[2]
    config.write_text(f'[machines.pump]\nmodel = "{pump_model}"\n')
    assert "has no channel" in nearfar("notify", "test", config)[2]


def test_addresses_that_are_none_are_refused_without_their_secrets(tmp_path):
    with pytest.raises(ValueError, match="none that apprise understands") as error:
        Address("carrier-pigeon://s3cret@roof")
    assert "s3cret" not in str(error.value)


def test_words_of_every_kind():
    alarm = Event(1, "pump", "alarm", T0, peak_score=9.26, threshold=5.0, text="sounds unlike its normals")
    title, text = words(alarm, "Pump 3", "")
    assert title == "Alarm: Pump 3" and "score 9.3, alarm above 5.0.\nSounds unlike its normals." in text
    dead = Event(2, "pump", "health", T0, ended=T0 + 60, text="the near microphone is silent: unplugged?")
    title, text = words(dead, "Pump 3", "https://x/event/2")
    assert title == "Microphone: Pump 3, over"
    assert (
        text.endswith("\nThe near microphone is silent: unplugged?\nhttps://x/event/2") and "It is over since" in text
    )
