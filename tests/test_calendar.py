"""Quiet hours and maintenance: which times a span holds, until when, and what that does to a plant."""

import sys
import time
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.errors import BadInput, NotFound
from nearfar.live.calendar import Calendar, Maintenance, Span, end_of_all
from plants import T0, plant_of, windows
from servers import client_of

MONDAY = datetime(2026, 11, 23)


def at(text: str, day: int = 0) -> float:
    """A time of the week that begins on MONDAY."""
    hour, minute = map(int, text.split(":"))
    return (MONDAY + timedelta(days=day, hours=hour, minutes=minute)).timestamp()


@pytest.mark.parametrize(
    ("text", "inside", "end", "outside"),
    [
        ("22:00-06:00", [at("22:00"), at("05:59", 1), at("00:00")], at("06:00", 1), [at("21:59"), at("06:00")]),
        ("08:00-10:30", [at("08:00"), at("10:29")], at("10:30"), [at("07:59"), at("10:30")]),
        ("Sat-Sun", [at("00:00", 5), at("23:59", 6)], at("00:00", 6), [at("23:59", 4), at("00:00", 7)]),
        ("Mon,Wed", [at("12:00"), at("12:00", 2)], at("00:00", 1), [at("12:00", 1), at("12:00", 3)]),
        ("Fri 22:00-06:00", [at("23:00", 4), at("05:00", 5)], at("06:00", 5), [at("05:00", 4), at("23:00", 5)]),
        ("Sat-Mon", [at("12:00", 5), at("12:00", 6), at("12:00", 0)], at("00:00", 6), [at("12:00", 1)]),
        ("2026-11-24T06:00/2026-11-25T18:00", [at("06:00", 1), at("17:59", 2)], at("18:00", 2), [at("05:59", 1)]),
    ],
)  # fmt: skip
def test_a_span_holds_its_times_until_its_end(text, inside, end, outside):
    span = Span.parse(text)
    assert span.end_of(inside[0]) == end
    assert all(span.end_of(moment) is not None for moment in inside)
    assert all(span.end_of(moment) is None for moment in outside)


@given(st.floats(at("00:00", -400), at("00:00", 400)), st.integers(0, 1439), st.integers(0, 1439))
def test_a_span_of_every_day_holds_the_minutes_between_its_ends(moment, start, end):
    span = Span.parse(f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}")
    now = datetime.fromtimestamp(moment)
    minute = now.hour * 60 + now.minute
    held = start <= minute < end if start < end else minute >= start or minute < end
    found = span.end_of(moment)
    assert (found is not None) == held
    assert found is None or 0 < found - moment <= 25 * 3600


@pytest.mark.parametrize("text", ["", "22-06", "25:00-06:00", "Someday", "Mon 9", "2026-12-24/2026-12-23", "a/b"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match=r"write|hour|before"):
        Span.parse(text)


def test_quiet_nights_and_weekends_are_one_quiet_time():
    spans = [Span.parse("22:00-06:00"), Span.parse("Sat-Sun")]
    assert end_of_all(spans, at("23:00", 4)) == at("06:00", 7)  # from Friday night to Monday morning
    assert end_of_all(spans, at("12:00", 4)) is None


def test_what_is_added_is_kept_and_what_is_configured_stays(tmp_path):
    calendar = Calendar([Maintenance("Sun 06:00-10:00", why="cleaning")], tmp_path)
    added = calendar.add("2026-11-24T06:00/2026-11-25T18:00", ["pump"], "bearing")
    assert calendar.why("pump", at("12:00", 1)) == "maintenance: bearing" and not calendar.why("fan", at("12:00", 1))
    assert calendar.why("fan", at("07:00", 6)) == "maintenance: cleaning"
    again = Calendar([], tmp_path)
    assert again.entries == (added,) and added.id == 1
    again.remove(1)
    assert Calendar([], tmp_path).entries == ()
    with pytest.raises(NotFound, match=r"plant\.toml"):
        calendar.remove(0)
    with pytest.raises(BadInput):
        calendar.add("noon", [], "")
    (tmp_path / "maintenance.json").write_text("[{}]")
    with pytest.raises(ValueError, match=r"maintenance.json is damaged"):
        Calendar([], tmp_path)


def test_windows_in_maintenance_are_kept_and_not_judged(pump_model, tmp_path):
    plant, _, clock = plant_of(pump_model, tmp_path)
    once = f"{datetime.fromtimestamp(T0 + 6):%Y-%m-%dT%H:%M:%S}/{datetime.fromtimestamp(T0 + 18):%Y-%m-%dT%H:%M:%S}"
    with client_of(plant, clock) as client:
        made = client.post("/v1/maintenance", json={"when": once, "why": "bearing", "who": "Anna"})
        assert made.status_code == 200 and made.json()["id"] == 1
        for window in windows(["", "", "", *["hiss"] * 6, "", ""]):
            plant.process_window("pump", window)
        clock.now = T0 + 8
        assert client.get("/v1/machines/pump").json()["state"] == "maintenance"
        clock.now = T0 + 20
        assert client.get("/v1/machines/pump").json()["state"] == "normal"
        rows = plant.history.scores("pump", 0, 2 * T0)
        marked = [row.problem for row in rows]
        assert marked == [""] * 3 + ["maintenance: bearing"] * 6 + [""] * 2
        assert all((row.anomalous is None) == bool(row.problem) for row in rows) and rows[4].score > 6
        assert plant.history.events() == []
        assert client.get("/v1/maintenance").json()["maintenance"][0]["why"] == "bearing"
        assert client.delete("/v1/maintenance/1", params={"who": "Anna"}).status_code == 200
        assert client.post("/v1/maintenance", json={"when": "noon"}).status_code == 422
        assert client.post("/v1/maintenance", json={"when": "Sun", "machines": ["x"]}).status_code == 404
        entries = client.get("/v1/audit").json()["audit"]
    assert [(e["action"], e["who"], e["text"]) for e in entries] == [
        ("no maintenance", "Anna", f"{once}, bearing"), ("maintenance", "Anna", f"{once}, bearing")
    ]  # fmt: skip
    plant.history.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot change its zone there")
def test_the_zone_of_this_computer_counts(monkeypatch):
    span = Span.parse("22:00-06:00")
    for zone, held in (("UTC", False), ("Asia/Tokyo", True)):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert (span.end_of(datetime.fromisoformat("2026-11-23T14:00:00+00:00").timestamp()) is not None) == held
    monkeypatch.undo()
    time.tzset()
