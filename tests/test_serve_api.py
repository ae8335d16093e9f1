"""The API on real detectors: what is answered, that uploads score as the command line does, and what is refused."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import socket
import stat
import sys
import tempfile
import threading
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import nearfar
from brokers import wait_for
from conftest import RATE, hum, write_wav
from nearfar.cli import app as command_line
from nearfar.live import operator
from nearfar.live.server import schemas
from nearfar.live.server.app import make_app
from nearfar.live.server.limits import Limits
from nearfar.live.server.security import Token, access
from nearfar.live.sinks.messages import parse_message
from nearfar.live.sinks.prometheus import Metrics
from plants import T0
from servers import FAULTY, HOSTILE, a_plant, client_of, listen

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def plant(pump3, tmp_path):
    made, clock = a_plant(pump3, tmp_path, "pump", "fan")
    clock.now = T0 + 40
    yield made, clock
    made.close()
    made.history.close()


@pytest.fixture
def client(plant):
    with client_of(*plant) as made:
        yield made


@pytest.fixture
def alarmed(plant, client):
    """The client, after an alarm of the pump: event 1."""
    listen(plant[0], FAULTY)
    return client


def wav(clip, subtype="PCM_16"):
    out = io.BytesIO()
    channels = [clip.near] if clip.far is None else [clip.near, clip.far]
    soundfile.write(out, np.stack(channels, axis=1), clip.rate, format="WAV", subtype=subtype)
    return out.getvalue()


def send(client, body, path="/v1/machines/pump/score", **options):
    return client.post(path, files={"file": ("a.wav", body)}, **options)


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_an_upload_scores_as_the_command_line_does_bit_for_bit(client, plant, tmp_path):
    files = [
        write_wav(tmp_path / "up" / f"{i}.wav", hum(700 + i, fault=f)) for i, f in enumerate(["", "hiss", "knock"])
    ]
    files.append(write_wav(tmp_path / "up" / "long.wav", hum(710, seconds=41)))
    folder = plant[0].machines["pump"].model
    done = CliRunner().invoke(command_line, ["score", str(folder), str(tmp_path / "up"), "--windows", "--json"])
    rows = json.loads(done.stdout)["scores"]
    said = {row["file"].rsplit("/")[-1]: row for row in rows}
    for file in files:
        answer = client.post("/v1/machines/pump/score", files={"file": (file.name, file.read_bytes())}).json()
        for window in answer["windows"]:
            row = said.pop(window["file"])
            for key in ("score", "threshold", "anomalous", "p", "triggered_by", "status", "problem", "unusual"):
                assert window[key] == row[key], key
            assert window["nearest"][0] == row["nearest"]
    assert not said
    assert len(answer["windows"]) > 4 and answer["score"] == max(w["score"] for w in answer["windows"])


def test_a_body_a_form_and_raw_samples_score_alike(client):
    body = wav(hum(720, fault="hiss"))
    form = send(client, body).json()
    plain = client.post(
        "/v1/machines/pump/score?name=a.wav", content=body, headers={"content-type": "audio/wav"}
    ).json()
    assert form == plain and form["anomalous"] is True
    for kind, dtype in (("s16le", "<i2"), ("f32le", "<f4")):
        samples = soundfile.read(io.BytesIO(body), dtype="int16" if dtype == "<i2" else "float32")[0].astype(dtype)
        url = f"/v1/machines/pump/score?pcm={kind}&rate={RATE}&channels=2&name=a.wav"
        raw = client.post(url, content=samples.tobytes(), headers={"content-type": "application/octet-stream"})
        assert raw.json() == form


def test_what_cannot_be_judged_is_said_and_is_not_normal(client):
    silent = send(client, wav(nearfar.Clip(np.zeros(32_000), np.zeros(32_000)))).json()
    assert silent["anomalous"] is None and silent["status"] == "cannot judge" and "silent" in silent["problem"]


def test_a_recording_that_is_cut_short_is_scored_and_said(client):
    cut = wav(hum(721))[:-32_000]
    said = ["the file lacks its last 0.5 s: was the recording, or the copying of it, cut off?"]
    told = send(client, cut).json()
    assert told["anomalous"] is False and told["warnings"] == said
    assert send(client, cut, "/v1/machines/pump/explain").json()["warnings"] == said
    assert send(client, cut, "/v1/machines/pump/add").json()["note"] == said[0]


def test_unusable_recordings_are_errors_with_the_sender_s_name(client):
    for body, code in ((b"hello", "unreadable"), (b"", "empty"), (wav(hum(1))[:40], None)):
        answer = client.post("/v1/machines/pump/score", files={"file": ("../../x<b>.wav", body)})
        said = answer.json()
        assert answer.status_code == 422 and said["message"].startswith("x<b>.wav: ") and said["status"] == 422
        assert code is None or said["code"] == code
    long = client.post("/v1/machines/pump/score?pcm=s16le&rate=1000&channels=1", content=b"\1\0" * 601_000)
    assert long.status_code == 422 and long.json()["code"] == "too_long"
    odd = client.post("/v1/machines/pump/score?pcm=f32le", content=b"123")
    assert odd.status_code == 422 and "whole number" in odd.json()["message"]


def test_an_explanation_names_the_band_and_the_normals(client):
    told = send(client, wav(hum(730, fault="hiss")), "/v1/machines/pump/explain").json()
    assert told["clear"] and told["low_hz"] < 3500 and told["high_hz"] > 4500 and told["microphone"] == "near"
    assert len(told["nearest"]) == 3 and all(n["playable"] for n in told["nearest"]) and told["gain_db"] > 0
    assert "kHz" in told["what"] and "channels" in told


def test_added_normals_change_the_model_and_undo_brings_it_back(client, plant):
    folder = plant[0].machines["pump"].model
    before = digests(folder)
    strange = hum(740, fault="hiss")
    first = send(client, wav(strange)).json()["score"]
    added = send(client, wav(strange), "/v1/machines/pump/add?domain=target&who=Anna").json()
    assert added["added"] == 1 and added["normals"] == 31 and digests(folder) != before
    assert send(client, wav(strange)).json()["score"] < first / 2
    again = send(client, wav(strange), "/v1/machines/pump/add")
    assert again.status_code in (409, 422) and "already" in again.json()["message"]
    entry = client.get("/v1/audit").json()["audit"][0]
    assert (
        entry["action"] == "add" and entry["who"] == "Anna" and entry["can_undo"] and entry["id"] == added["audit_id"]
    )
    assert client.post(f"/v1/audit/{entry['id']}/undo", json={"who": "Ben"}).status_code == 200
    assert digests(folder) == before and send(client, wav(strange)).json()["score"] == first
    assert client.post(f"/v1/audit/{entry['id']}/undo", json={}).status_code == 409
    assert client.post("/v1/audit/999/undo", json={}).status_code == 404


def test_what_sounds_like_another_machine_is_added_with_a_note(client):
    said = "a way to run that was not heard before, or another machine?"
    usual = send(client, wav(hum(741)), "/v1/machines/pump/add").json()
    assert usual["note"] == ""
    strange = send(client, wav(hum(742, fault="hiss")), "/v1/machines/pump/add").json()
    assert strange["note"].startswith("of 1 of these, 1 would be an alarm (up to ") and strange["note"].endswith(said)
    trail = client.get("/v1/machines/pump/model").json()["audit"]
    assert [a["note"] for a in trail] == [strange["note"], ""]


def test_what_was_fine_has_a_note_only_far_beyond_all_normals(alarmed, plant, monkeypatch):
    highest = float(plant[0].machines["pump"].detector.train_values.max())
    far = alarmed.post("/v1/events/1/feedback", json={"verdict": "fine"}).json()
    assert (
        "4 would be an alarm" in far["note"] and alarmed.get("/v1/events/1").json()["audit"][0]["note"] == far["note"]
    )
    alarmed.post(f"/v1/audit/{far['audit_id']}/undo", json={})
    assert not any(entry["note"] for entry in alarmed.get("/v1/events/1").json()["audit"])
    peak = alarmed.get("/v1/events/1").json()["peak_score"]
    monkeypatch.setattr(operator, "BEYOND", 1.5 * peak / highest)
    assert alarmed.post("/v1/events/1/feedback", json={"verdict": "fine"}).json()["note"] == ""


def test_a_name_of_any_length_and_script_can_be_added(client):
    url = "/v1/machines/pump/add"
    added = client.post(url, files={"file": ("\u6f22" * 200 + "/../x.wav", wav(hum(760)))})
    assert added.status_code == 200
    added = client.post(url, files={"file": ("\u6f22" * 200, wav(hum(761)))}).json()
    assert client.get(f"/v1/machines/pump/normals/{added['normals'] - 1}/near").status_code == 200


def test_two_normals_of_one_name_keep_their_own_sounds(client, plant):
    clock, numbers = plant[1], []
    for seed in (750, 751):
        clock.now += 1
        numbers.append(send(client, wav(hum(seed)), "/v1/machines/pump/add").json()["normals"] - 1)
    sounds = [client.get(f"/v1/machines/pump/normals/{i}/near") for i in numbers]
    assert [s.status_code for s in sounds] == [200, 200] and sounds[0].content != sounds[1].content


def test_machines_and_their_states(alarmed, plant):
    found = {m["id"]: m for m in alarmed.get("/v1/machines").json()["machines"]}
    assert found["pump"]["state"] == "returned unacknowledged" and found["pump"]["last_heard"] == T0 + 30
    assert found["fan"]["state"] == "waiting" and found["fan"]["score"] is None
    listen(plant[0], ["dead"] * 3, machine="fan")
    fan = alarmed.get("/v1/machines/fan").json()
    assert fan["state"] == "no sound" and "silent" in fan["health"][0] and fan["window"]["anomalous"] is None
    assert alarmed.get("/v1/machines/nope").status_code == 404


def test_scores_of_a_time_and_thinned(alarmed):
    rows = alarmed.get(f"/v1/machines/pump/scores?since={T0}&until={T0 + 100}").json()["scores"]
    assert len(rows) == len(FAULTY) and rows[0]["t0"] == T0
    few = alarmed.get(f"/v1/machines/pump/scores?since={T0}&until={T0 + 100}&points=10").json()["scores"]
    assert len(few) <= 10 and max(r["score"] for r in few) == max(r["score"] for r in rows)
    assert len(alarmed.get("/v1/machines/pump/scores?hours=1").json()["scores"]) == len(FAULTY)


def test_an_event_with_its_sound_picture_and_normals(alarmed):
    (event,) = alarmed.get("/v1/events?machine=pump").json()["events"]
    assert event["kind"] == "alarm" and event["has_audio"] and event["name"].endswith(HOSTILE)
    url = f"/v1/events/{event['id']}"
    told = alarmed.get(f"{url}/explanation").json()
    assert told["score"] == pytest.approx(event["peak_score"], abs=1e-3)
    near = soundfile.read(io.BytesIO(alarmed.get(f"{url}/audio/near").content))[0]
    loud = soundfile.read(io.BytesIO(alarmed.get(f"{url}/audio/near?gain_db=6").content))[0]
    far = soundfile.read(io.BytesIO(alarmed.get(f"{url}/audio/far").content))[0]
    whole = soundfile.read(io.BytesIO(alarmed.get(f"{url}/audio/near?whole=true").content))[0]
    assert len(near) == 2 * RATE < len(whole) and not np.array_equal(near, far)
    assert np.abs(loud / 10 ** (6 / 20) - near).max() < 1e-4
    flac = alarmed.get(f"{url}/audio/both.flac")
    assert (
        soundfile.info(io.BytesIO(flac.content)).channels == 2 and "attachment" in flac.headers["content-disposition"]
    )
    for place in (1, 2, 3):
        normal = soundfile.read(io.BytesIO(alarmed.get(f"{url}/nearest/{place}/far").content))[0]
        name = told["nearest"][place - 1]["name"]
        assert np.abs(normal - hum(int(name[7:9])).far).max() < 1e-3
    light, dark = (alarmed.get(f"{url}/spectrogram.png?dark={d}").content for d in ("false", "true"))
    assert light[:8] == dark[:8] == b"\x89PNG\r\n\x1a\n" and light != dark


def test_a_part_of_a_sound(alarmed):
    url = "/v1/events/1/audio/near"
    whole = alarmed.get(url).content
    part = alarmed.get(url, headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    assert alarmed.get(url, headers={"range": "bytes=44-"}).content == whole[44:]
    assert alarmed.get(url, headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    assert alarmed.get(url, headers={"range": "lines=1-2"}).content == whole


def test_without_matplotlib_the_picture_says_what_to_install(alarmed, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [m for m in sys.modules if m.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    answer = alarmed.get("/v1/events/1/spectrogram.png")
    assert answer.status_code == 501 and "nearfar[pictures]" in answer.json()["message"]


def test_a_normal_is_played_only_if_it_is_still_that_recording(client, plant, tmp_path):
    detector = plant[0].machines["pump"].detector
    import dataclasses

    secret = write_wav(tmp_path / "secret.wav", hum(900))
    first = detector.normals[0]
    assert client.get("/v1/machines/pump/normals/0/near").status_code == 200
    detector.normals[0] = dataclasses.replace(first, path=str(secret))
    assert client.get("/v1/machines/pump/normals/0/near").status_code == 404
    detector.normals[0] = first
    assert client.get("/v1/machines/pump/normals/30/near").status_code == 404


def test_acknowledge_fine_and_undo(alarmed, plant):
    folder = plant[0].machines["pump"].model
    before, strange = digests(folder), wav(hum(5004, fault="hiss"))  # a window of the alarm itself
    score = send(alarmed, strange).json()["score"]
    event = alarmed.post("/v1/events/1/acknowledge", json={"who": "Anna"}).json()
    assert event["acknowledged"] == T0 + 40 and event["acknowledged_by"] == "Anna"
    assert alarmed.get("/v1/machines/pump").json()["state"] == "normal"
    done = alarmed.post("/v1/events/1/feedback", json={"verdict": "fine", "who": "Anna"}).json()
    assert "4 recordings" in done["message"] and digests(folder) != before
    assert send(alarmed, strange).json()["score"] < score / 2
    assert alarmed.post("/v1/events/1/feedback", json={"verdict": "fine"}).status_code == 409
    event = alarmed.get("/v1/events/1").json()
    assert event["verdict"] == "fine" and [a["action"] for a in event["audit"]] == ["fine", "acknowledge"]
    assert [a["can_undo"] for a in event["audit"]] == [True, False]
    assert alarmed.post(f"/v1/audit/{done['audit_id']}/undo", json={"who": "Ben"}).status_code == 200
    assert digests(folder) == before and alarmed.get("/v1/events/1").json()["verdict"] == ""
    assert [a["action"] for a in alarmed.get("/v1/events/1").json()["audit"]] == ["undo", "fine", "acknowledge"]
    assert alarmed.post("/v1/events/1/feedback", json={"verdict": "fault", "who": "Ben"}).status_code == 200
    assert alarmed.get("/v1/events/1").json()["verdict_by"] == "Ben"


def test_shelving_and_the_set_point(client, plant):
    assert client.post("/v1/machines/pump/shelve", json={"hours": 8, "who": "Anna"}).status_code == 200
    pump = client.get("/v1/machines/pump").json()
    assert pump["state"] == "shelved" and pump["shelved_until"] == T0 + 40 + 8 * 3600
    assert client.delete("/v1/machines/pump/shelve?who=Anna").status_code == 200
    assert client.get("/v1/machines/pump").json()["state"] == "waiting"
    model = client.get("/v1/machines/pump/model").json()
    detector = plant[0].machines["pump"].detector
    assert model["backing"] == str(detector.backing) and model["remarks"] == detector.doubts != []
    wish = {"false_alarms_per_week": 100, "who": "Anna"}
    dry = client.put("/v1/machines/pump/threshold", json=wish | {"dry_run": True}).json()
    assert dry["price"]["text"] and client.get("/v1/machines/pump/model").json() == model  # nothing has changed
    assert dry["beyond_normals"] and dry["promise"][-1].startswith("the lowest rate that they can show is 1 in ")
    point = client.put("/v1/machines/pump/threshold", json={"false_alarms_per_week": 100, "who": "Anna"}).json()
    assert {**dry, "price": None} == {**point, "price": None}
    assert point["rate"] * point["occasions_per_day"] * 7 == pytest.approx(100)
    near = min(model["curve"], key=lambda p: abs(p["false_alarms_per_week"] - 100))
    assert point["false_alarms_per_week"] == pytest.approx(100) and abs(point["value"] - near["value"]) < 1
    rates = [p["false_alarms_per_week"] for p in model["curve"]]
    assert rates == sorted(rates, reverse=True) and len(model["odd_ones_out"]) == 3
    assert client.get("/v1/machines/pump").json()["threshold"] == point["value"]
    for wrong in (
        {},
        {"false_alarms_per_week": 5, "value": 1},
        {"false_alarms_per_week": 0},
        {"vlaue": 3},
        {"false_alarms_per_week": 1e6},
    ):
        assert client.put("/v1/machines/pump/threshold", json=wrong).status_code == 422, wrong
    actions = [a["action"] for a in client.get("/v1/audit?machine=pump").json()["audit"]]
    assert actions == ["set-point", "unshelve", "shelve"]


def test_people_from_other_computers_are_noted_with_their_address(plant):
    app = make_app(plant[0], access("0.0.0.0", [Token(TOKEN)]), clock=plant[1])
    from fastapi.testclient import TestClient

    with TestClient(app, base_url="http://10.0.0.1", client=("10.0.0.7", 1)) as client:
        headers = {"authorization": f"Bearer {TOKEN}"}
        client.post("/v1/machines/pump/shelve", json={"hours": 1, "who": "Anna\n"}, headers=headers)
        assert client.get("/v1/audit", headers=headers).json()["audit"][0]["who"] == "Anna (10.0.0.7)"


def test_a_server_with_a_token(plant):
    app = make_app(plant[0], access("0.0.0.0", [Token(TOKEN)]), clock=plant[1])
    from fastapi.testclient import TestClient

    with TestClient(app, base_url="http://10.0.0.1", client=("10.0.0.7", 1), follow_redirects=False) as client:
        page = {"accept": "text/html"}
        for path in ("/", "/event/1", "/v1/machines", "/v1/stream", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 401, path
        assert client.get("/", headers=page).headers["location"] == "/login"
        assert client.get("/healthz").json() == {"status": "ok"} == client.get("/readyz").json()
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        login = client.post(
            "/login", data={"token": TOKEN, "next": "//evil.example"}, headers={"origin": "http://10.0.0.1"}
        )
        assert (
            login.status_code == 303 and login.headers["location"] == "/" and "HttpOnly" in login.headers["set-cookie"]
        )
        assert client.get("/v1/machines").status_code == 200 and 'data-session="1"' in client.get("/").text
        forged = client.post("/v1/machines/pump/shelve", json={"hours": 1}, headers={"origin": "http://evil.example"})
        assert forged.status_code == 403 and forged.json()["code"] == "wrong_origin"
        assert client.get("/v1/machines", headers={"host": "evil.example"}).status_code == 421
        client.post("/logout")
        assert client.get("/v1/machines").status_code == 401
        hostile = client.get('/login?next=/"><script>alert(1)</script>').text
        assert "<script>" not in hostile


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/js/..%2f..%2fapp.py",
     "/v1/events/../../etc/passwd", "/v1/events/1/audio/..%2f..%2fhistory.db", "/v1/machines/..%2f..%2f/model",
     "/v1/machines/pump/normals/..%2f0/near", "/v1/events/1/nearest/9/near"],
)  # fmt: skip
def test_no_path_leads_out(alarmed, path):
    answer = alarmed.get(path)
    assert answer.status_code in (404, 422) and b"def " not in answer.content and b"root:" not in answer.content


def test_pages_are_the_shell_and_say_who_may_run_what(client):
    for path in ("/", "/machine/x", "/event/1", "/model/x", "/health"):
        answer = client.get(path)
        assert answer.status_code == 200 and "script-src 'self'" in answer.headers["content-security-policy"]
        markup, catalogues = re.subn('<script type="application/json" id="texts">[^<]*</script>', "", answer.text)
        assert catalogues == 1
        assert "<script>" not in markup and "style=" not in markup and "http://" not in markup
    assert client.get("/nothing", headers={"accept": "text/html"}).status_code == 404
    assert client.get("/nothing").json()["code"] == "not_found"
    assert client.get("/static/js/app.js").headers["content-type"].startswith("text/javascript")


def test_a_body_that_grows_beyond_its_limit_is_cut_off_and_the_server_goes_on(plant):
    def endless():
        for _ in range(400):
            yield b"x" * 10_000

    with client_of(*plant, limits=Limits(upload_bytes=200_000)) as client:
        kinds = {"content-type": "audio/wav"}, {"content-type": "multipart/form-data; boundary=a"}
        for headers in kinds:
            answer = client.post("/v1/machines/pump/score", content=endless(), headers=headers)
            assert answer.status_code == 413 and answer.json()["code"] == "too_large"
        answer = client.post(
            "/v1/machines/pump/shelve", content=endless(), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 413 and answer.json()["code"] == "too_large"
        assert client.post("/v1/machines/pump/score", content=b"x" * 300_000, headers=kinds[0]).status_code == 413
        assert send(client, wav(hum(1))).status_code == 200 and client.app.state.service.slots.in_use == 0


@pytest.mark.parametrize("limits", [Limits(at_once=1, body_s=0.5), Limits(at_once=1, idle_s=0.5)])
def test_a_body_that_does_not_come_gives_its_place_to_others(plant, limits):
    from servers import server_of

    app = make_app(plant[0], clock=plant[1], limits=limits)
    with server_of(app) as address, socket.create_connection(("127.0.0.1", int(address.rsplit(":")[-1]))) as slow:
        slow.sendall(b"POST /v1/machines/pump/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: audio/wav\r\n"
                     b"Content-Length: 1000\r\n\r\nRIFF")  # fmt: skip

        def is_scored():
            with contextlib.suppress(httpx.TransportError):  # one that stands still amid its body is sent away too
                sent = {"file": ("a.wav", wav(hum(1)))}
                return httpx.post(f"{address}/v1/machines/pump/score", files=sent, timeout=60).status_code == 200

        assert wait_for(is_scored)
        slow.settimeout(60)
        assert b" 408 " in slow.recv(200)


def test_a_small_body_has_to_arrive_in_time_too(plant):
    from servers import server_of

    app = make_app(plant[0], clock=plant[1], limits=Limits(body_s=0.5))
    with server_of(app) as address, socket.create_connection(("127.0.0.1", int(address.rsplit(":")[-1]))) as slow:
        slow.sendall(b"POST /v1/machines/pump/shelve HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 20\r\n\r\n{")  # fmt: skip
        slow.settimeout(60)
        assert b" 408 " in slow.recv(200)


def test_a_bug_is_a_500_and_a_line_of_the_log_that_names_the_request(client, plant, monkeypatch, caplog):
    monkeypatch.setattr(plant[0].machines["pump"].detector, "embed_clip", lambda *_: {}["a secret"])
    answer = send(client, wav(hum(1)))
    body, number = answer.json(), answer.headers["x-request-id"]
    assert answer.status_code == 500 and body.keys() == {"code", "message", "status"} and "secret" not in answer.text
    assert body["code"] == "failed" and body["status"] == 500 and number in body["message"]
    (record,) = [r for r in caplog.records if r.name == "nearfar.server"]
    assert record.message == f"request {number} failed: POST '/v1/machines/pump/score'"
    assert record.levelname == "ERROR" and record.exc_info[0] is KeyError
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.app.state.service.slots.in_use == 0


def test_a_number_is_a_number(client):
    for wrong in ({"value": True}, {"value": "3"}, {"false_alarms_per_week": True}):
        assert client.put("/v1/machines/pump/threshold", json=wrong).status_code == 422, wrong
    for wrong in (True, "8"):
        assert client.post("/v1/machines/pump/shelve", json={"hours": wrong}).status_code == 422
    assert client.put("/v1/machines/pump/threshold", json={"value": 3}).json()["value"] == 3.0


@pytest.mark.parametrize("action", ["score", "explain", "add"])
@pytest.mark.parametrize("loud", [3e38, 1e19, np.inf, np.nan])
def test_samples_beyond_all_bounds_are_the_sender_s_mistake(client, action, loud):
    samples = np.stack([hum(770).near, hum(770).far], axis=1).astype("<f4")
    samples[500, 0] = loud
    url = f"/v1/machines/pump/{action}?pcm=f32le&rate={RATE}&channels=2"
    answer = client.post(url, content=samples.tobytes(), headers={"content-type": "application/octet-stream"})
    assert answer.status_code == 422 and answer.json()["code"] == ("level" if np.isfinite(loud) else "nan")


@pytest.mark.parametrize("action", ["add", "explain"])
@pytest.mark.parametrize("bug", [KeyError("a secret"), ValueError("a secret")])
def test_a_bug_is_no_conflict_and_nothing_that_is_missing(client, plant, monkeypatch, caplog, action, bug):
    def fail(*_):
        raise bug

    monkeypatch.setattr(nearfar.Detector, "fit_embedded" if action == "add" else "explain", fail)
    answer = send(client, wav(hum(901)), f"/v1/machines/pump/{action}")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert any(answer.headers["x-request-id"] in record.message for record in caplog.records)
    assert not list((plant[0].history.folder / "normals").glob("pump/*"))


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_what_people_near_a_machine_said_is_for_the_owner_alone(alarmed, plant):
    send(alarmed, wav(hum(901)), "/v1/machines/pump/add")
    alarmed.post("/v1/events/1/feedback", json={"verdict": "fine"})
    folder = plant[0].history.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("audio", "samples/pump", "normals/pump"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700, name
        assert list((folder / name).glob("*.flac"))
    for file in (*folder.glob("history.db*"), *folder.rglob("*.flac")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_full_house_sends_uploads_away_with_a_time_and_loses_none(plant):
    limits = Limits(at_once=1, waiting=2)
    body = wav(hum(760))
    with client_of(*plant, limits=limits) as client:
        codes, lock = [], threading.Lock()

        def one():
            answer = send(client, body)
            with lock:
                codes.append((answer.status_code, answer.headers.get("retry-after")))

        threads = [threading.Thread(target=one) for _ in range(12)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert {c for c, _ in codes} <= {200, 503} and len(codes) == 12
        assert all((wait is not None) == (code == 503) for code, wait in codes)
        assert sum(c == 200 for c, _ in codes) >= 3 and send(client, body).status_code == 200
        assert client.app.state.service.slots.in_use == 0


def form(*parts, end="--b--\r\n"):
    """A multipart form of (disposition, body)."""
    head = "--b\r\nContent-Disposition: form-data; "
    return b"".join(f"{head}{how}\r\n\r\n".encode() + body + b"\r\n" for how, body in parts) + end.encode()


def test_a_form_is_read_to_its_end_whatever_else_is_in_it(client):
    body, url = wav(hum(1)), "/v1/machines/pump/score"
    file = 'name="file"; filename="a.wav"'
    expected = send(client, body).json()

    def post(content, boundary="b"):
        chunks = (content[i : i + 997] for i in range(0, len(content), 997))
        return client.post(url, content=chunks, headers={"content-type": f"multipart/form-data; boundary={boundary}"})

    assert (
        post(form(('name="note"', b"x" * 3000), (file, body), ('name="more"; filename="b"', b"y"))).json() == expected
    )
    for sent, status, code in (
        (form((file, body), end=""), 400, "bad_form"),
        (form((file, body), (file, body)), 400, "bad_form"),
        (form(('name="other"; filename="a.wav"', body)), 422, "no_file"),
        (form(('name="file"', b"no file name")), 422, "no_file"),
        (b"", 400, "bad_form"),
        (form(*[('name="a"', b"")] * 101, (file, body)), 400, "bad_form"),
        (form((f'name="{"a" * 9000}"', b""), (file, body)), 400, "bad_form"),
    ):
        answer = post(sent)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert post(form((file, body)), "").status_code == 400
    assert client.app.state.service.slots.in_use == 0


def test_nothing_that_was_sent_stays(client, plant, tmp_path, monkeypatch):
    place = tmp_path / "sent"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))  # after the start: systems clean up what rests there
    detector = plant[0].machines["pump"].detector
    seen, embed = [], detector.embed_clip

    def looked_at(*given):
        seen.extend(p.stat().st_mode & 0o077 for p in place.iterdir())
        return embed(*given)

    monkeypatch.setattr(detector, "embed_clip", looked_at)
    assert send(client, wav(hum(1))).status_code == 200 and seen == [0]
    assert send(client, b"broken").status_code == 422
    assert list(place.iterdir()) == []


def test_a_sender_that_goes_away_is_no_failure_of_the_server(client):
    app, sent, said = client.app, [], iter([{"type": "http.request", "body": b"RIFF", "more_body": True}])

    async def receive():
        return next(said, {"type": "http.disconnect"})

    async def answer(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"audio/wav")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/machines/pump/score"}
    asyncio.run(app({**scope, "query_string": b"", "headers": headers, "client": ("1.2.3.4", 1)}, receive, answer))
    assert sent[0]["status"] == 400 and app.state.service.slots.in_use == 0


def test_a_history_that_cannot_be_written_is_not_ready(client, plant):
    plant[0].history.database.problem = "history: disk full"
    answer = client.get("/readyz")
    body = {"code": "not_ready", "message": "scores cannot be recorded; /v1/health says why", "status": 503}
    assert answer.status_code == 503 and answer.json() == body and answer.headers["retry-after"] == "5"
    assert client.get("/healthz").status_code == 200
    problems = ["pump: rtsp://x: refused; trying again"]
    client.app.state.service.monitor = SimpleNamespace(problems=lambda: problems, dropped=0)
    assert client.get("/v1/health").json()["problems"] == [
        "history: disk full",
        "pump: rtsp://x: refused; trying again",
    ]


def test_metrics_are_what_the_registry_says(plant):
    metrics = Metrics(["pump"])
    with client_of(*plant, metrics=metrics) as client:
        answer = client.get("/metrics")
        assert answer.content == metrics.text() and "nearfar_score" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")


def test_every_schema_has_an_example_that_fits_it(client):
    classes = {n: c for n, c in vars(schemas).items() if isinstance(c, type) and issubclass(c, schemas.Schema)}
    classes.pop("Schema")
    document = client.get("/openapi.json").json()
    shown = document["components"]["schemas"]
    assert len(set(classes) & set(shown)) > 20
    for name, schema in classes.items():
        example = schema.example()
        schema.model_validate(example)
        assert set(example) == set(schema.model_fields), name
        assert name not in shown or shown[name]["example"], name
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            assert "4XX" in call["responses"] or "422" in call["responses"], (path, method)
            for status, response in call["responses"].items():
                if status.startswith(("4", "5")):
                    assert response["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


@contextlib.contextmanager
def behind(plant, peer, rules, **options):
    """A client whose requests reach the server from `peer`."""
    from fastapi.testclient import TestClient

    app = make_app(plant[0], rules, clock=plant[1], **options)
    given = {"base_url": "http://plant.example", "client": (peer, 1), "follow_redirects": False}
    with TestClient(app, **given, raise_server_exceptions=False) as client:
        yield client


READ = Token("a-token-that-only-reads", "prometheus", True)
PROXIED = access(
    "127.0.0.1",
    [Token(TOKEN, "anna"), READ],
    ["plant.example"],
    root="/hall2/",
    proxies=["10.0.0.0/24", "127.0.0.1"],
)


def test_behind_a_trusted_proxy_the_client_its_scheme_and_the_prefix_are_right(plant):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    far = {"x-forwarded-for": "6.6.6.6, 192.0.2.7, 10.0.0.9", "x-forwarded-proto": "https"}
    with behind(plant, "127.0.0.1", PROXIED) as client:
        for path in ("/v1/machines", "/hall2/v1/machines"):  # the proxy takes the prefix away, or does not
            assert client.get(path, headers=bearer).status_code == 200
        shelved = client.post("/v1/machines/pump/shelve", json={"hours": 1}, headers=bearer | far)
        assert shelved.status_code == 200
        who = client.get("/v1/audit", headers=bearer).json()["audit"][0]["who"]
        assert who == "anna (192.0.2.7)"  # the last address that is no proxy of ours
        assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/hall2/login"
        form = {"token": TOKEN, "next": "/hall2/event/1"}
        login = client.post("/login", data=form, headers=far | {"origin": "https://plant.example"})
        assert login.headers["location"] == "/hall2/event/1"
        assert {"Secure", "Path=/hall2/"} <= set(login.headers["set-cookie"].split("; "))
        page = client.get("/hall2/", headers=bearer).text
        assert 'data-root="/hall2"' in page and 'src="/hall2/static/js/app.js"' in page and '="/static' not in page
        assert client.get("/hall2/static/js/app.js").status_code == client.get("/static/style.css").status_code == 200
        document = client.get("/openapi.json", headers=bearer).json()
        assert document["servers"] == [{"url": "/hall2"}] and document["security"] == [{"token": []}]
        assert client.get("/hall2", headers=bearer).status_code == 200
    with behind(plant, "192.0.2.1", PROXIED) as client:  # nobody's proxy: what it states does not count
        client.post("/v1/machines/pump/shelve", json={"hours": 1, "who": "Ben"}, headers=bearer | far)
        assert client.get("/v1/audit", headers=bearer).json()["audit"][0]["who"] == "Ben, token anna (192.0.2.1)"
        assert "Secure" not in client.post("/login", data=form, headers=far).headers["set-cookie"]


def test_every_client_behind_a_proxy_has_logins_of_its_own(plant):
    with behind(plant, "127.0.0.1", PROXIED) as client:
        for _ in range(12):
            last = client.post("/login", data={"token": "no"}, headers={"x-forwarded-for": "192.0.2.7"})
        other = client.post("/login", data={"token": TOKEN}, headers={"x-forwarded-for": "192.0.2.8"})
        assert last.status_code == 429 and other.status_code == 303


def test_a_token_that_only_reads_changes_nothing(plant):
    reader = {"authorization": f"Bearer {READ.secret}"}
    with behind(plant, "192.0.2.1", PROXIED, metrics=Metrics()) as client:
        assert client.get("/metrics", headers=reader).status_code == 200
        for answer in (
            client.post("/v1/machines/pump/shelve", json={"hours": 1}, headers=reader),
            client.put("/v1/machines/pump/threshold", json={"value": 3}, headers=reader),
            client.delete("/v1/machines/pump/shelve", headers=reader),
            send(client, wav(hum(1)), headers=reader),
        ):
            assert answer.status_code == 403 and answer.json()["code"] == "read_only"
        assert client.post("/login", data={"token": READ.secret}).status_code == 303
        assert client.get("/hall2/v1/machines").status_code == 200  # a wall display: its session only reads too
        assert client.post("/hall2/v1/machines/pump/shelve", json={"hours": 1}).json()["code"] == "read_only"
        assert client.post("/hall2/logout").status_code == 303


def test_refused_logins_are_counted_and_logged_a_few_times(plant, caplog):
    with behind(plant, "192.0.2.1", PROXIED) as client:
        for _ in range(30):
            client.get("/v1/machines", headers={"authorization": "Bearer wrong-wrong-wrong-wrong"})
        client.post("/login", data={"token": "secret-of-nobody"})
        client.get("/v1/machines")  # nothing was tried
        assert client.app.state.service.refusals.count == 31
    lines = [r.getMessage() for r in caplog.records if "refused a login" in r.message]
    assert len(lines) == 5 and lines[0].startswith("refused a login from 192.0.2.1: wrong token")
    assert "wrong-wrong" not in caplog.text and "secret-of-nobody" not in caplog.text


def test_head_is_get_without_a_body(alarmed):
    for path in ("/v1/machines", "/v1/events/1/audio/near", "/healthz", "/", "/static/style.css", "/v1/nothing"):
        whole, head = alarmed.get(path), alarmed.head(path)
        assert head.status_code == whole.status_code and head.content == b"", path
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert alarmed.head("/v1/events/1/audio/near").headers["content-length"] == str(32_044 * 2 - 44)


def test_text_is_compressed_and_sounds_are_not(alarmed):
    for path, small in (("/openapi.json", True), ("/static/style.css", True), ("/v1/events/1/audio/near", False)):
        plain = alarmed.get(path, headers={"accept-encoding": "identity"})
        packed = alarmed.get(path, headers={"accept-encoding": "gzip"})
        assert packed.content == plain.content and "content-encoding" not in plain.headers
        assert (packed.headers.get("content-encoding") == "gzip") is small, path
        if small:
            assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert "content-encoding" not in alarmed.get("/healthz", headers={"accept-encoding": "gzip"}).headers
    part = alarmed.get("/static/style.css", headers={"accept-encoding": "gzip", "range": "bytes=0-1999"})
    assert part.status_code == 206 and "content-encoding" not in part.headers and len(part.content) == 2000


def test_the_document_names_the_token_and_every_call(client):
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert document["security"] == [{}, {"token": []}] and document["paths"]["/healthz"]["get"]["security"] == []
    names = [call["operationId"] for calls in document["paths"].values() for call in calls.values()]
    assert len(set(names)) == len(names) >= 28 and all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)
    lost = client.get("/v1/nothing").json()
    assert lost["code"] == "not_found" and "/openapi.json" in lost["message"]


def test_the_score_of_a_machine_is_a_number(alarmed, plant):
    pump = alarmed.get("/v1/machines/pump").json()
    assert pump["score"] == pump["window"]["score"]
    assert alarmed.get("/v1/machines/fan").json()["score"] is None
    listen(plant[0], ["dead"], machine="fan")
    fan = alarmed.get("/v1/machines/fan").json()
    assert fan["score"] is None and fan["window"]["problem"]


def test_what_has_only_optional_fields_needs_no_body(alarmed):
    assert alarmed.post("/v1/events/1/acknowledge").json()["acknowledged_by"] == "somebody at this computer"


def test_times_go_in_and_come_out_as_iso_8601(alarmed):
    """T0 is 2027-01-15T08:00:00Z."""
    event = alarmed.get("/v1/events/1").json()
    assert event["started_iso"] == "2027-01-15T08:00:12.000+00:00" and event["ended_iso"].startswith(
        "2027-01-15T08:00:2"
    )
    assert event["acknowledged_iso"] is None
    url = "/v1/machines/pump/scores"
    plain = alarmed.get(f"{url}?since={T0 + 4}&until={T0 + 10}").json()
    for since in (
        "2027-01-15T08:00:04Z",
        "2027-01-15T08:00:04",
        "2027-01-15T13:30:04+05:30",
        "2027-01-15T13:30:04%2B05:30",
    ):
        assert alarmed.get(f"{url}?since={since}&until=2027-01-15T08:00:10.000%2B00:00").json() == plain, since
    assert [row["t0_iso"][17:19] for row in plain["scores"]] == ["04", "06", "08"]
    for wrong in ("2027-13-45T08:00:00Z", "yesterday", "1900-01-01T00:00:00Z", "-5", "9999-01-01T00:00:00Z"):
        assert alarmed.get(f"{url}?since={wrong}").status_code == 422, wrong
    assert alarmed.get("/v1/events?since=2027-01-16T00:00:00Z").json()["events"] == []
    assert alarmed.get("/v1/machines/pump").json()["last_heard_iso"] == "2027-01-15T08:00:30.000+00:00"


def test_pages_follow_each_other_until_the_last(alarmed, plant):
    def follow(url, key):
        found = []
        while url:
            page = alarmed.get(url).json()
            found += page[key]
            url = page["next"]
        return found

    for n in range(5):
        alarmed.post("/v1/machines/pump/shelve", json={"hours": 1 + n})
        alarmed.delete("/v1/machines/pump/shelve")
    whole = alarmed.get("/v1/audit?machine=pump").json()
    assert whole["next"] is None and len(whole["audit"]) == 10
    assert follow("/v1/audit?machine=pump&limit=3", "audit") == whole["audit"]
    listen(plant[0], FAULTY, T0 + 100)
    events = alarmed.get("/v1/events").json()["events"]
    assert len(events) == 2 and follow("/v1/events?limit=1&machine=pump", "events") == events
    span = f"since={T0}&until={T0 + 1000}"
    rows = alarmed.get(f"/v1/machines/pump/scores?{span}").json()["scores"]
    assert len(rows) == 2 * len(FAULTY) and follow(f"/v1/machines/pump/scores?{span}&limit=7", "scores") == rows


def test_messages_about_events_link_to_their_page(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    plant.reporter.url = "https://plant.example/hall2/"
    listen(plant, FAULTY)
    told = [m for m in plant.sinks[0].messages if m.kind == "event"]
    assert told and all(m.body()["url"] == "https://plant.example/hall2/event/1" for m in told)
    assert parse_message(told[0].json()) == told[0]
    with client_of(plant, clock) as client:
        assert client.get("/v1/events/1").json()["url"] == "https://plant.example/hall2/event/1"
    plant.close()
    plant.history.close()


def test_a_wrong_method_names_all_that_are_allowed(alarmed):
    for path, allowed in (
        ("/v1/machines", "GET, HEAD, POST"),
        ("/v1/machines/pump", "DELETE, GET, HEAD, PUT"),
        ("/v1/machines/pump/score", "POST"),
        ("/healthz", "GET, HEAD"),
    ):
        answer = alarmed.request("OPTIONS", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/plain"}, "wrong_kind"),
        ({}, "wrong_kind"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, "encoded"),
        ({"content-type": "audio/wav", "content-encoding": "br"}, "encoded"),
    ],
)
def test_a_body_of_another_kind_is_told_which_is_wanted(alarmed, headers, code):
    answer = alarmed.post("/v1/machines/pump/shelve", content=b'{"hours": 1}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, code)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip;q=0", False), ("GZIP", True), ("br, gzip;q=0.5", True), ("gzip;q=0.000, br", False), ("xgzip", False)],
)
def test_text_is_compressed_for_those_who_take_it(alarmed, accepted, packed):
    answer = alarmed.get("/openapi.json", headers={"accept-encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is packed
