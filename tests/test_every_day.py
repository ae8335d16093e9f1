"""What people do every day, over the API: listen at one loudness, say what it was, look after the normals."""

import io

import numpy as np
import pytest
import soundfile

from servers import FAULTY, a_plant, client_of, listen


@pytest.fixture
def client(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    listen(plant, FAULTY)
    with client_of(plant, clock) as client:
        client.plant = plant
        yield client
    plant.close()
    plant.history.close()


def level_db(client, path, gain):
    answer = client.get(path, params={"gain_db": gain})
    assert answer.status_code == 200
    samples, _ = soundfile.read(io.BytesIO(answer.content))
    assert np.abs(samples).max() < 1.0
    return 20 * np.log10(np.std(samples))


def test_an_event_and_its_normals_are_played_as_loud_as_each_other(client):
    found = client.get("/v1/events/1/explanation").json()
    event = level_db(client, "/v1/events/1/audio/near", found["gain_db"])
    assert found["nearest"] and any(n["gain_db"] != found["gain_db"] for n in found["nearest"])
    for place, normal in enumerate(found["nearest"], 1):
        other = level_db(client, f"/v1/events/1/nearest/{place}/near", normal["gain_db"])
        assert other == pytest.approx(event, abs=0.6)  # gains are whole dB


def test_the_change_is_a_picture_light_and_dark(client):
    light, dark = (client.get(f"/v1/events/1/change.png?dark={flag}") for flag in ("false", "true"))
    assert light.status_code == dark.status_code == 200 and light.content[:4] == b"\x89PNG" != dark.content
    assert client.get("/v1/events/9/change.png").status_code == 404


def test_the_kind_of_a_fault_and_a_remark_are_kept_with_who_and_when(client):
    body = {"verdict": "fault", "who": "Anna", "fault": "bearing", "said": "screeches when cold"}
    assert client.post("/v1/events/1/feedback", json=body).status_code == 200
    (entry,) = client.get("/v1/events/1").json()["audit"]
    assert (entry["who"], entry["action"], entry["text"]) == ("Anna", "fault", "bearing; screeches when cold")
    assert client.post("/v1/events/1/feedback", json={**body, "fault": "x" * 61}).status_code == 422


def test_normals_are_listed_most_unusual_first_taken_out_and_named(client):
    detector = client.plant.machines["pump"].detector
    found = client.get("/v1/machines/pump/normals").json()
    scores = [n["score"] for n in found["normals"]]
    assert found["total"] == 30 and scores == sorted(detector.train_values.tolist(), reverse=True)
    assert all(n["playable"] for n in found["normals"]) and found["channels"] == ["near", "far"]
    assert len(client.get("/v1/machines/pump/normals?limit=5").json()["normals"]) == 5
    keys = [n["key"] for n in found["normals"]]
    done = client.put("/v1/machines/pump/normals", json={"keys": keys[:2], "remove": True, "who": "Anna"}).json()
    assert done["message"].startswith("2 recordings taken out of the normals.")
    left = client.get("/v1/machines/pump/normals").json()
    assert left["total"] == 28 and not {n["name"] for n in left["normals"]} & {n["name"] for n in found["normals"][:2]}
    gone = client.put("/v1/machines/pump/normals", json={"keys": keys[1:3], "remove": True})
    assert gone.status_code == 404 and "load the page again" in gone.json()["message"]
    keys = [n["key"] for n in left["normals"]]
    body = {"keys": keys[:3], "session": " half load ", "who": "Ben"}
    assert client.put("/v1/machines/pump/normals", json=body).status_code == 200
    named = {n["name"]: n["session"] for n in client.get("/v1/machines/pump/normals").json()["normals"]}
    assert [named[n["name"]] for n in left["normals"][:4]] == ["half load"] * 3 + [""]
    texts = [a["text"] for a in client.get("/v1/audit?machine=pump").json()["audit"]]
    assert texts == ["3 recordings, session half load", "2 recordings"]
    assert client.post(f"/v1/audit/{done['audit_id']}/undo", json={}).status_code == 409  # the newest first
    for wrong in ({"keys": keys[:1]}, {"keys": keys[:1], "remove": True, "session": "x"}, {"keys": []}):
        assert client.put("/v1/machines/pump/normals", json=wrong).status_code == 422
    assert client.put("/v1/machines/pump/normals", json={"keys": keys[1:], "remove": True}).status_code == 409
