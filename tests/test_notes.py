"""Notes on the time line of a machine: written, changed and deleted, with a trace, and the names of events."""

import pytest

from plants import T0
from servers import FAULTY, a_plant, client_of, listen


@pytest.fixture
def pump(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path)
    listen(plant, FAULTY)
    clock.now = T0 + 100
    with client_of(plant, clock) as client:
        yield client, plant, clock
    plant.history.close()


def texts(client, query: str = "") -> list[str]:
    return [note["text"] for note in client.get(f"/v1/machines/pump/notes{query}").json()["notes"]]


def test_a_note_is_written_changed_and_deleted_and_the_audit_keeps_it_all(pump):
    client, *_ = pump
    first = client.post("/v1/machines/pump/notes", json={"text": " bearing changed ", "at": T0, "who": "Anna"})
    assert first.status_code == 201
    (note,) = first.json()["notes"]
    assert (note["text"], note["at"], note["who"], note["event"]) == ("bearing changed", T0, "Anna", None)
    client.post("/v1/machines/pump/notes", json={"text": "oil", "who": "Ben"})
    assert texts(client) == ["oil", "bearing changed"] and texts(client, f"?until={T0 + 1}") == ["bearing changed"]
    path = f"/v1/machines/pump/notes/{note['id']}"
    changed = client.put(path, json={"text": "outer ring", "who": "Ben"}).json()["notes"]
    assert [(n["id"], n["text"], n["at"], n["who"]) for n in changed if n["id"] == note["id"]] == [
        (note["id"], "outer ring", T0, "Ben")
    ]
    client.put(path, json={"text": "", "who": "Ben"})
    assert texts(client) == ["oil"] and client.put(path, json={"text": "x"}).status_code == 404
    audit = client.get("/v1/audit?machine=pump").json()["audit"]
    assert [(a["who"], a["text"]) for a in reversed(audit)] == [
        ("Anna", "bearing changed"), ("Ben", "oil"), ("Ben", "outer ring"), ("Ben", "")
    ]  # fmt: skip
    assert not any(a["can_undo"] for a in audit)
    assert client.post("/v1/machines/pump/notes", json={"text": "  "}).status_code == 422
    assert client.get("/v1/machines/saw/notes").status_code == 404


def test_an_event_has_a_name_in_lists_and_on_the_time_line(pump):
    client, plant, _ = pump
    event = plant.history.events()[0]
    path = f"/v1/events/{event.id}/label"
    assert client.put(path, json={"text": "belt slips", "who": "Anna"}).json()["label"] == "belt slips"
    renamed = client.put(path, json={"text": "belt slips at start"}).json()
    assert renamed["label"] == "belt slips at start" and len(renamed["audit"]) == 2
    assert [e["label"] for e in client.get("/v1/events").json()["events"]] == ["belt slips at start"]
    (note,) = client.get("/v1/machines/pump/notes").json()["notes"]
    assert (note["at"], note["event"], note["text"]) == (event.started, event.id, "belt slips at start")
    client.put(f"/v1/machines/pump/notes/{note['id']}", json={"text": ""})
    assert client.get(f"/v1/events/{event.id}").json()["label"] == "" and not texts(client)
    assert client.put(path, json={"text": "again"}).json()["label"] == "again"
    assert client.put("/v1/events/99/label", json={"text": "x"}).status_code == 404


def test_a_report_tells_what_was_noted(pump):
    client, _, clock = pump
    client.post("/v1/machines/pump/notes", json={"text": "<b>bearing</b>", "who": "Anna"})
    clock.now += 1
    page = client.get("/v1/report?span=day").text
    assert "Anna noted: &lt;b&gt;bearing&lt;/b&gt;" in page
