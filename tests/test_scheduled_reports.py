"""Reports that come by themselves: once for every day or week, whatever the clock and the process do meanwhile."""

import base64
import io
import sys
import time
from contextlib import closing
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers import wait_for
from nearfar.errors import ConfigError
from nearfar.live.build import build_plant, check
from nearfar.live.config import from_options
from nearfar.live.history.records import ScoreRecord
from nearfar.live.report.file import report_folder
from nearfar.live.report.schedule import SCHEDULED, Schedule, ScheduledReports
from nearfar.live.reports import report_of
from nearfar.live.sinks.messages import REPORT, ReportMessage, parse_message
from plants import Clock, plant_of
from servers import client_of
from test_notify import Receiver, add_channel

DAY, HOUR = 86_400.0, 3600.0
MONDAY = datetime(2026, 11, 23, 12).timestamp()  # at noon
SEVEN = clock_time(7)
REPORT_IN_FILE = from_options({"models": Path(), "report": {"channels": ["shift"]}}).report


@pytest.fixture
def berlin(monkeypatch):
    """The zone of Berlin, whose clocks change on 2026-03-29 and 2026-10-25."""
    if sys.platform == "win32":
        pytest.skip("Windows has no zone of one process")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def local(*moment: int) -> float:
    return datetime(*moment).timestamp()


def dates(times: list[float]) -> list[date]:
    return [datetime.fromtimestamp(t).date() for t in times]


def test_a_report_is_due_at_its_hour_and_on_its_day():
    assert Schedule(SEVEN).after(MONDAY) == datetime(2026, 11, 24, 7).timestamp()
    assert Schedule(SEVEN).after(MONDAY - 5 * HOUR) == datetime(2026, 11, 24, 7).timestamp()  # 07:00 itself is over
    assert Schedule(SEVEN).after(MONDAY - 5 * HOUR - 1) == MONDAY - 5 * HOUR
    assert Schedule(SEVEN, 0).after(MONDAY) == datetime(2026, 11, 30, 7).timestamp()
    assert Schedule(SEVEN, 6).between(MONDAY, MONDAY + 20 * DAY) == [
        datetime(2026, *day, 7).timestamp() for day in ((11, 29), (12, 6), (12, 13))
    ]


@pytest.mark.parametrize(
    ("hour", "spring", "autumn"),
    [
        (clock_time(7), (5, 0), (6, 0)),  # in UTC: 07:00 of Berlin before and after the change
        (clock_time(2, 30), (1, 30), (0, 30)),  # 02:30 is skipped, so 03:30; 02:30 comes twice, so the first
        (clock_time(3), (1, 0), (2, 0)),
    ],
)
def test_days_on_which_the_clocks_change_have_one_report(berlin, hour, spring, autumn):
    for day, expected in ((date(2026, 3, 29), spring), (date(2026, 10, 25), autumn)):
        noon = datetime.combine(day, clock_time(12))
        found = Schedule(hour).between((noon - timedelta(days=4)).timestamp(), (noon + timedelta(days=4)).timestamp())
        assert dates(found) == [day + timedelta(days=i) for i in range(-3, 5)]
        at = time.gmtime(found[3])
        assert (at.tm_hour, at.tm_min) == expected


@settings(deadline=None)
@given(
    st.floats(MONDAY - 400 * DAY, MONDAY),
    st.lists(st.floats(0, 60 * DAY), min_size=1, max_size=8),
    st.times(),
    st.none() | st.integers(0, 6),
)
def test_however_time_is_cut_every_day_has_its_report_and_none_has_two(start, steps, at, weekday):
    schedule, found, now = Schedule(at, weekday), [], start
    for step in steps:
        found += schedule.between(now, now + step)
        now += step
    assert found == schedule.between(start, now) == sorted(set(found))
    days = [datetime.fromtimestamp(start).date() + timedelta(days=i) for i in range(1, int((now - start) / DAY))]
    assert set(dates(found)) >= {day for day in days if weekday in (None, day.weekday())}
    assert schedule.after(now) > now


@pytest.fixture
def pump(pump_model, tmp_path):
    """(plant, clock, reports every day at seven, start again): the pump is heard every hour."""
    plant, _, clock = plant_of(pump_model, tmp_path / "history", clock=Clock(MONDAY))
    config = from_options({"models": tmp_path, "report": {"every": "day", "folder": tmp_path / "out"}}).report
    folder = report_folder(config.folder, plant.machines, plant.history, first_wait_s=0.01)
    plant.sinks.append(folder)
    yield plant, clock, lambda: ScheduledReports(config, "north", plant.machines, plant.reporter, clock)
    folder.close()
    plant.history.close()


def heard(plant, *times: float) -> None:
    for at in times:
        plant.history.record_score(ScoreRecord("pump", at, at + 10, 1.0, 6.0, False, 0.5, (), "", -30.0, -40.0))


def due(plant) -> list[float]:
    """What was sent, oldest first."""
    sent = plant.history.audit("", action=SCHEDULED, limit=1000)
    return [entry.detail["until"] for entry in reversed(sent) if "span" in entry.detail]


def written(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_month_in_seconds_has_a_report_a_day_over_restarts(pump, tmp_path):
    plant, clock, start = pump
    reports = start()
    for hour in range(30 * 24):
        clock.now = MONDAY + hour * HOUR
        heard(plant, clock.now - 60)
        if hour % 50 == 0:
            reports = start()
        reports.check()
        reports.check()
    assert due(plant) == [datetime(2026, 11, 24, 7).timestamp() + day * DAY for day in range(30)][: len(due(plant))]
    assert len(due(plant)) == 30 and reports.next == due(plant)[-1] + DAY
    assert wait_for(lambda: len(written(tmp_path / "out")) == 30)
    page = (tmp_path / "out" / "nearfar-plant-day-2026-12-01.html").read_text()
    assert "north" in page and "Mon 2026-11-30 07:00 to Tue 2026-12-01 07:00" in page


def test_what_was_due_while_the_computer_slept_comes_and_empty_days_do_not(pump):
    plant, clock, start = pump
    reports = start()
    heard(plant, MONDAY + HOUR, MONDAY + 3 * DAY)  # the reports of Tuesday and Friday; nothing in between
    clock.now = MONDAY + 20 * DAY
    reports.check()
    seven = datetime(2026, 11, 24, 7).timestamp()
    assert due(plant) == [seven, seven + 3 * DAY, seven + 19 * DAY]  # and the newest, which says that nothing came
    reports.check()
    start().check()
    assert len(due(plant)) == 3


def test_the_first_report_is_not_lost_if_the_process_is_down_when_it_is_due(pump):
    plant, clock, start = pump
    start()
    clock.now = MONDAY + DAY
    start().check()
    assert due(plant) == [datetime(2026, 11, 24, 7).timestamp()]


def test_a_clock_that_is_set_sends_nothing_twice_and_does_not_stop_the_reports(pump):
    plant, clock, start = pump
    reports = start()
    clock.now = MONDAY + DAY
    reports.check()
    clock.now -= 8 * HOUR  # set back over the hour of the report
    reports.check()
    clock.now += 8 * HOUR
    reports.check()
    assert len(due(plant)) == 1
    clock.now = MONDAY + 4000 * DAY  # a wrong year
    reports.check()
    clock.now = MONDAY + 2 * DAY
    reports.check()
    clock.now = MONDAY + 3 * DAY
    reports.check()
    assert due(plant)[-1] == datetime(2026, 11, 26, 7).timestamp()


def test_the_report_is_set_in_the_browser_counts_from_then_on_and_is_kept(pump_model, tmp_path):
    config = from_options({"models": tmp_path / "models", "history": {"folder": tmp_path / "history"}})
    plant, _, clock = plant_of(pump_model, config.history.folder, clock=Clock(MONDAY))
    add_channel(plant, clock, "ntfy://127.0.0.1:1/x", "shift")
    heard(plant, MONDAY - HOUR)
    with client_of(plant, clock) as client:
        at = "/v1/report/schedule"
        body = {"every": "week", "on": "Tue", "at": "06:30", "channels": ["shift"], "who": "Anna"}
        assert client.delete(at).status_code == 404 and client.get("/v1/health").json()["report"] is None
        for change in ({"channels": []}, {"channels": ["saw"]}, {"machines": ["saw"]}, {"at": "25:00"}, {"on": "Day"}):
            assert client.put(at, json={**body, **change}).status_code == 422, change
        assert report_of(config) is None
        made = client.put(at, json=body).json()
        assert made == client.get("/v1/health").json()["report"]
        assert made["next"] == datetime(2026, 11, 24, 6, 30).timestamp()
        assert made["to"] == ["shift"] and made["set_here"]
        clock.now = MONDAY + DAY
        plant.reports.check()
        assert due(plant) == [made["next"]]
        clock.now = MONDAY + 5 * DAY
        daily = client.put(at, json={**body, "every": "day"}).json()
        plant.reports.check()
        assert len(due(plant)) == 1 and daily["next"] == datetime(2026, 11, 29, 6, 30).timestamp()  # none of the past
        kept = report_of(config)  # after a restart
        assert (kept.every, kept.at, kept.channels) == ("day", "06:30", ("shift",))
        again = build_plant(config, clock=clock, warn=print, report=print, idle=True)
        assert again.plant.reports.config == kept and again.plant.reports.next == daily["next"]
        again.close()
        assert client.delete(at, params={"who": "Anna"}).json()["set_here"] is False
        assert client.get("/v1/health").json()["report"] is None and report_of(config) is None
        audit = [e["action"] for e in client.get("/v1/audit").json()["audit"] if e["who"] == "Anna"]
        assert audit == ["report ended", "report set", "report set"]
        plant.reports = ScheduledReports(REPORT_IN_FILE, "north", plant.machines, plant.reporter, clock)
        assert client.put(at, json=body).status_code == client.delete(at).status_code == 409  # it stands in plant.toml
    for sink in plant.sinks:
        sink.close()
    plant.history.close()


def test_a_folder_that_cannot_be_written_is_a_problem_until_it_can(pump, tmp_path):
    plant, clock, start = pump
    (tmp_path / "out").write_text("a file is in the way")
    reports = start()
    clock.now = MONDAY + DAY
    reports.check()
    sink = plant.sinks[-1]
    assert wait_for(lambda: "out" in sink.problem)
    (tmp_path / "out").unlink()
    assert wait_for(lambda: written(tmp_path / "out") == ["nearfar-plant-day-2026-11-24.html"])
    assert wait_for(lambda: not sink.problem)  # which goes once the file is whole
    assert wait_for(lambda: not plant.history.outbox.mailbox("reports", ()).waiting())


def test_a_report_waits_in_the_history_of_a_process_that_is_killed(pump, tmp_path):
    plant, clock, start = pump
    sink = plant.sinks.pop()
    sink.close()
    plant.history.outbox.mailbox("reports", (REPORT,))
    clock.now = MONDAY + DAY
    start()
    clock.now += DAY
    reports = start()
    reports.check()
    (message,) = plant.history.outbox.mailbox("reports", (REPORT,)).waiting()
    assert isinstance(message, ReportMessage) and parse_message(message.json()) == message
    again = report_folder(tmp_path / "later", plant.machines, plant.history)
    assert wait_for(lambda: written(tmp_path / "later") == ["nearfar-plant-day-2026-11-25.html"])
    again.close()


def test_a_channel_carries_the_report_and_other_channels_do_not(pump_model, tmp_path):
    plant, _, clock = plant_of(pump_model, tmp_path / "history", clock=Clock(MONDAY))
    plant.reporter.url = "https://plant.example/"
    one, other = Receiver(), Receiver()
    shift = add_channel(plant, clock, f"json://127.0.0.1:{one.server_port}/")
    add_channel(plant, clock, f"json://127.0.0.1:{other.server_port}/", "boss")
    table = {"every": "week", "channels": ["shift"], "machines": ["pump"], "format": "xlsx"}
    reports = ScheduledReports(
        from_options({"models": tmp_path, "report": table}).report, "north", plant.machines, plant.reporter, clock
    )
    assert reports.next == datetime(2026, 11, 30, 7).timestamp() and reports.places == ["shift"]
    heard(plant, MONDAY)
    clock.now = reports.next
    reports.check()
    assert wait_for(lambda: one.messages)
    (message,) = one.messages
    assert message["title"] == "Report of the week: north" and message["message"].startswith("1 machine, no alarm.")
    assert message["message"].endswith(f"https://plant.example/v1/report?span=week&until={clock.now:.0f}")
    (file,) = message["attachments"]
    assert file["filename"] == "nearfar-pump-week-2026-11-30.xlsx"
    book = openpyxl.load_workbook(io.BytesIO(base64.b64decode(file["base64"])))
    assert book["Machines"]["A2"].value == "pump"
    assert wait_for(lambda: not plant.history.outbox.mailbox("notify.boss", ()).waiting())
    for sink in plant.sinks[-2:]:
        sink.close()
    assert not other.taken and not shift.problem
    plant.history.close()
    one.close()
    other.close()


def test_a_plant_is_built_with_its_report_and_says_when_it_comes(pump3, tmp_path):
    table = {"folder": tmp_path / "out", "channels": ["gone"], "on": "sat"}
    tables = {"machines": {"pump": {"model": pump3}}, "history": {"folder": tmp_path / "history"}, "report": table}
    config, said = from_options(tables), []
    lines = check(config)
    assert f"report: every week on Sat at 07:00, of all machines, to gone and {tmp_path / 'out'}" in lines
    assert "report: there is no channel 'gone'" in lines
    clock = Clock(MONDAY)
    with (
        closing(build_plant(config, clock=clock, warn=said.append, report=print, idle=True)) as built,
        client_of(built.plant, clock, roster=built.roster) as client,
    ):
        assert said == ["report: there is no channel 'gone'"]
        found = client.get("/v1/health").json()["report"]
        saturday = datetime(2026, 11, 28, 7).timestamp()
        assert (found["next"], found["span"], found["to"]) == (saturday, "week", ["gone", str(tmp_path / "out")])
        assert found["on"] == "Sat" and not found["set_here"]
        clock.now = saturday + 60
        built.monitor._check()  # as every second
        assert wait_for(lambda: written(tmp_path / "out") == ["nearfar-plant-week-2026-11-28.html"])
        assert client.get("/v1/health").json()["report"]["next"] == saturday + 7 * DAY


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "a report goes to channels"),
        ({"folder": "x", "every": "month"}, "report.every must be 'day' or 'week', not 'month'"),
        ({"folder": "x", "at": "7"}, "report.at must be an hour such as 07:00, not '7'"),
        ({"folder": "x", "on": "Mo"}, "Mon"),
    ],
)
def test_a_wrong_table_is_refused(table, says):
    with pytest.raises(ConfigError, match=says):
        from_options({"models": "m", "report": table})
