"""The report that people forward: it counts what the history holds, and opens as a page and as a workbook."""

import io
import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

import commands
from nearfar.detector import load
from nearfar.errors import BadInput
from nearfar.live.history.history import History
from nearfar.live.history.records import Audit, Event, ScoreRecord
from nearfar.live.report.gather import (
    SPANS,
    Expected,
    MachineReport,
    detector_report,
    most_by_chance,
    newest_record,
    plant_report,
)
from nearfar.live.report.pages import report_page, trend
from nearfar.live.report.workbook import report_workbook
from plants import T0
from servers import FAULTY, a_plant, client_of, listen

DAY, WEEK = SPANS["day"], SPANS["week"]
HOSTILE = "=cmd|' /C calc'!A0<script>alert(1)</script>\x07"


def write(history: History, machine: str = "pump", hours: int = 24) -> None:
    """A window of 10 s every 10 minutes before T0; from hour 10 before the end three of them above the set-point."""
    for i in range(6 * hours):
        t0 = T0 - 3600 * hours + 600 * i
        high = T0 - 36_000 <= t0 < T0 - 36_000 + 1800
        history.record_score(
            ScoreRecord(machine, t0, t0 + 10, 8.0 if high else 1.0, 4.0, high, 0.01, ("steady",), "", -30.0, -40.0)
        )
    raised = Event(0, machine, "alarm", T0 - 36_000, None, 8.0, T0 - 35_400, 4.0, ("steady",), HOSTILE)
    event = history.record_event(raised)
    history.change_event(event.id, ended=T0 - 34_200, verdict="fine", verdict_by="Anna")


@pytest.fixture
def history(tmp_path):
    made = History(tmp_path / "hall")
    yield made
    made.close()


def machine(report, id="pump") -> MachineReport:
    return next(m for m in report.machines if m.id == id)


def test_a_report_counts_what_the_history_holds(history):
    write(history)
    history.record_audit(Audit(0, T0 - 60, "Anna", "pump", "fine", {}))
    found = machine(plant_report(history, T0, DAY))
    assert (found.windows, found.heard_s, found.unjudged) == (144, 1440.0, 0)
    assert (found.highest, found.set_point, found.near_dbfs, found.far_dbfs) == (8.0, 4.0, -30.0, -40.0)
    assert found.came == "1 alarm: 1 fine" and found.word == "Had alarms" and found.last_heard == T0 - 590
    assert [a.who for a in found.audit] == ["Anna"]
    later = machine(plant_report(history, T0 + 7200, DAY))  # 12 gaps of 10 minutes without sound
    assert later.word == "No new sound" and machine(plant_report(history, T0 + 3000, DAY)).word == "Had alarms"
    half = machine(plant_report(history, T0, DAY / 4))
    assert (half.windows, half.came, half.word) == (36, "no alarm", "Fine")
    history.record_event(Event(0, "pump", "unusual", T0 - 3600, text="many"))
    assert machine(plant_report(history, T0, DAY)).word == "Unusual"
    record = ScoreRecord("pump", T0 - 20, T0 - 10, 0.0, 4.0, None, 0.5, (), "maintenance: cleaning")
    history.record_score(record)
    assert machine(plant_report(history, T0, DAY)).word == "Maintenance"


def test_windows_that_overlap_are_heard_once_and_reasons_are_counted(history):
    for i in range(20):
        problem = "" if i < 15 else "near: silence" if i < 18 else "far: clipped"
        history.record_score(
            ScoreRecord("pump", T0 + 5 * i, T0 + 5 * i + 10, 0.0, 4.0, None if problem else False, 0.5, (), problem)
        )
    found = machine(plant_report(history, T0 + 200, DAY))
    assert found.heard_s == 19 * 5 + 10 and found.unjudged == 5 and found.word == "Cannot judge"
    assert found.problems == (("near: silence", 3), ("far: clipped", 2))


def test_a_machine_that_was_not_heard_is_listed_and_an_alarm_that_stands_comes_first(history):
    write(history, "fan")
    history.record_event(Event(0, "pump", "alarm", T0 - 100, None, 9.0, T0 - 100, 4.0))
    history.record_score(ScoreRecord("pump", T0 - 100, T0 - 90, 9.0, 4.0, True, 0.0))
    expected = {"press": Expected("Press", 1.0)}
    report = plant_report(history, T0, DAY, expected=expected)
    assert [(m.name, m.word) for m in report.machines] == [
        ("pump", "Alarm"),
        ("fan", "Had alarms"),
        ("Press", "Not heard"),
    ]
    assert report.summary == (
        "3 machines, 2 alarms on pump and fan. The alarm on pump still stands. 1 alarm has no answer yet. "
        "Press: no usable sound at the end."
    )
    history.record_event(Event(0, "fan", "alarm", T0 - 50, None, 9.0, T0 - 50, 4.0))
    assert "The alarms on fan and pump still stand." in plant_report(history, T0, DAY).summary


@pytest.mark.parametrize(
    ("verdicts", "most", "says"),
    [
        ([], 1.0, "kept: 1 false alarm where at most 1 is expected"),
        (["fine"], 1.0, "not contradicted: 2 false alarms where at most 1 is expected; chance explains up to 3"),
        (["fault"] * 9, 1.0, "kept: 1 false alarm"),
        (["fine"] * 9, 1.0, "more than chance explains"),
        ([""] * 9, 1.0, "not decided: 1 false alarm where at most 1 is expected, and 9 alarms without an answer"),
        (["fine"] * 9, None, ""),
    ],
)
def test_the_promise_is_held_against_what_came(history, verdicts, most, says):
    write(history, "pump", 1)
    for i, verdict in enumerate(verdicts):
        event = history.record_event(Event(0, "pump", "alarm", T0 - 60 * i - 60, None, 9.0, T0, 4.0))
        history.change_event(event.id, ended=T0 - 60 * i, verdict=verdict)
    expected = {} if most is None else {"pump": Expected("pump", most)}
    found = machine(plant_report(history, T0, WEEK, expected=expected))
    known = [e for e in found.alarms if e.verdict]
    assert len(known) == 1 + sum(map(bool, verdicts)) and (says in found.kept if says else not found.kept)
    assert found.expected_alarms == most


@given(st.floats(0.001, 500))
def test_no_more_than_chance_explains(expected):
    most = most_by_chance(expected)
    assert poisson.sf(most, expected) <= 0.025 < poisson.sf(most - 1, expected)


def test_the_trend_stays_in_its_frame_and_shows_alarms_and_gaps(history):
    write(history)
    history.record_score(ScoreRecord("pump", T0 - 5, T0 + 5, 0.0, 4.0, None, 1.0, (), "near: silence"))
    report = plant_report(history, T0, DAY)
    shown = trend(machine(report), report.since, report.until)
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", shown.line)]
    assert min(xs) >= 40 and max(xs) <= 712 and xs == sorted(xs)
    assert len(shown.spans) == len(shown.dots) == len(shown.gaps) == 1
    start, width = shown.spans[0]  # an alarm of half an hour, ten hours before the end of a day, on 672 units
    assert start == pytest.approx(40 + 672 * 14 / 24, abs=0.1) and width == pytest.approx(672 * 0.5 / 24, abs=0.1)


def test_a_page_has_everything_inside_and_shows_hostile_text_as_text(history):
    history.record_audit(Audit(0, T0 - 60, "Anna", "pump", "shelve", {"hours": 8}))
    history.record_audit(Audit(0, T0 - 50, "Ben", "pump", "fault", {"said": "bearing <2>"}))
    write(history)
    page = report_page(plant_report(history, T0, WEEK, title=HOSTILE))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r'(src|href)="(?!#|data:)', page) and "http" not in page.split("</head>")[1]
    assert "@page { size: A4" in page and "prefers-color-scheme: dark" in page
    assert "bearing &lt;2&gt;" in page
    assert "It was fine" in page and "Anna" in page and "give its detector with --model" in page


def test_a_workbook_opens_with_numbers_times_and_no_formula(history):
    openpyxl = pytest.importorskip("openpyxl")
    write(history)
    book = openpyxl.load_workbook(io.BytesIO(report_workbook(plant_report(history, T0, DAY, title=HOSTILE))))
    assert book.sheetnames == ["Machines", "Alarms", "Trend", "Microphones and more", "What people did", "About"]
    heads, row = book["Machines"].iter_rows(values_only=True)
    facts = dict(zip(heads, row, strict=True))
    assert (facts["machine"], facts["alarms"], facts["said: fine"], facts["heard, h"]) == ("pump", 1, 1, 0.4)
    scores = [row[2:4] for row in book["Trend"].iter_rows(min_row=2, values_only=True)]
    assert len(scores) == 144 and max(scores) == (8.0, 4.0)
    alarm = list(book["Alarms"][2])
    assert alarm[1].value == datetime.fromtimestamp(T0 - 36_000) and alarm[8].data_type == "s"
    assert alarm[8].value == HOSTILE.replace("\x07", "�")


def test_a_detector_report_says_what_stands_behind_it(pump3):
    detector = load(pump3)
    report = detector_report(detector, "pump3")
    assert len(report.normals) == 30 and report.minutes == pytest.approx(1.0)
    assert [n.score for n in report.normals] == sorted(detector.train_values, reverse=True)
    assert [beyond for *_, beyond in report.choices] == [False, False, True, True, True]  # 1/31 lies below 0.05
    page = report_page(report)
    assert "normal_07.wav" in page and "set-point is 6.00" in page
    if openpyxl := pytest.importorskip("openpyxl"):
        book = openpyxl.load_workbook(io.BytesIO(report_workbook(report)))
        assert book["Normals"].max_row == 31


def test_an_empty_history_has_nothing_to_report(history):
    assert newest_record(history) is None
    with pytest.raises(BadInput, match="holds no scores yet"):
        plant_report(history, T0, DAY)


def test_the_command_reports_a_span_of_a_history_in_use(history, pump3, tmp_path):
    write(history)
    end = f"{datetime.fromtimestamp(T0):%Y-%m-%dT%H:%M:%S}"
    code, out, _ = commands.nearfar(
        "report", tmp_path / "hall", "--until", end, "--model", pump3, "-o", "r.html", cwd=tmp_path
    )
    assert code == 0 and out == "Report        r.html\n"
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 machine, 1 alarm on pump." in page and "Promised: at most" in page
    code, _, err = commands.nearfar("report", tmp_path / "hall", "--until", "2027-03-01", "-o", tmp_path / "now.html")
    assert (
        code == 2 and "nothing was heard from" in err and "--until 20" in err and not (tmp_path / "now.html").exists()
    )
    code, _, err = commands.nearfar("report", tmp_path / "hall", "-o", tmp_path / "r.pdf")
    assert code == 2 and ".html, .xlsx" in err
    code, _, err = commands.nearfar("report", pump3, "--week", "-o", tmp_path / "r.html")
    assert code == 2 and "holds no history.db" in err


def test_the_server_gives_the_report_of_the_plant(pump_model, tmp_path):
    plant, clock = a_plant(pump_model, tmp_path, "pump", "fan")
    listen(plant, FAULTY)
    clock.now = T0 + 60
    with client_of(plant, clock) as client:
        page = client.get("/v1/report")
        assert page.status_code == 200 and "2 machines, 1 alarm on pump" in page.text and 'onerror="' not in page.text
        assert "style-src 'unsafe-inline'" in page.headers["content-security-policy"]
        assert "script-src" not in page.headers["content-security-policy"]
        assert "Promised: at most" in page.text and page.headers["content-disposition"].startswith("inline")
        assert client.get("/v1/report?span=year").status_code == 422
        only = client.get("/v1/report?machine=fan").text
        assert "1 machine, no alarm." in only and "pump" not in only
        assert client.get("/v1/report?machine=nobody").status_code == 404
        pytest.importorskip("openpyxl")
        book = client.get("/v1/report?span=week&format=xlsx")
        assert book.content[:2] == b"PK" and 'filename="nearfar-plant-week-' in book.headers["content-disposition"]
    plant.close()
    plant.history.close()
