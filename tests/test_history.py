"""The history: nothing recorded is lost, extremes survive thinning, disks that are full or damaged are survived."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import DamagedHistory, NotFound
from nearfar.live.history.archive import RESERVE
from nearfar.live.history.database import SCHEMA, lock_folder, rescue
from nearfar.live.history.history import DAY_S, History
from nearfar.live.history.records import Audit, Event, ScoreRecord
from nearfar.live.rules.alarm import Alarm
from nearfar.live.rules.setpoint import measure
from nearfar.live.sinks.messages import EventMessage


def scored(t0: float, value: float = 0.0, machine: str = "pump", anomalous: bool | None = False) -> ScoreRecord:
    return ScoreRecord(machine, t0, t0 + 10, value, 3.0, anomalous, 0.5)


def event(started: float = 0.0, machine: str = "pump", kind: str = "alarm") -> Event:
    return Event(0, machine, kind, started)


@pytest.fixture
def history(tmp_path: Path):
    made = History(tmp_path / "h")
    yield made
    made.close()


def test_rows_come_back_as_they_were(history):
    names = ("steady", "knocks and clicks")
    row = ScoreRecord("pump", 1.5, 11.5, 4.25, 3.0, None, 0.125, names, "silent", -40.5, None)
    history.record_score(row)
    kept = history.record_event(Event(0, "pump", "alarm", 5.0, None, 7.5, 4.0, 3.0, names, "text", "a.flac"))
    audit = history.record_audit(Audit(0, 9.0, "anna", "pump", "fine", {"event": 1, "files": ["x"]}))
    assert history.scores("pump", 0, 10) == [row]
    assert history.event(kept.id) == kept == history.events()[0]
    assert history.audit() == [audit] and history.audit(id=audit.id) == [audit]


def test_changes_of_an_event_touch_nothing_else(history):
    kept = history.record_event(event())
    history.change_event(kept.id, acknowledged=3.0, acknowledged_by="anna")
    assert history.change_event(kept.id, ended=9.0).acknowledged_by == "anna"
    with pytest.raises(NotFound, match="no event 77"):
        history.change_event(77, ended=1.0)


def test_events_are_found_by_machine_time_kind_and_page(history):
    for i in range(10):
        kept = history.record_event(event(float(i), "pump" if i % 2 else "fan", "health" if i % 5 == 0 else "alarm"))
        history.change_event(kept.id, ended=i + 0.5)
    assert [e.started for e in history.events("pump")] == [9, 7, 5, 3, 1]
    assert [e.started for e in history.events(kind="health")] == [5, 0]
    assert [e.started for e in history.events(since=8.0)] == [9, 8]
    assert [e.started for e in history.events(until=2.0)] == [1, 0]
    page = history.events(limit=4)
    assert [e.started for e in history.events(limit=4, before_id=page[-1].id)] == [5, 4, 3, 2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 50), st.booleans()), min_size=1, max_size=200), st.integers(4, 60))
def test_thinning_keeps_every_extreme_and_what_cannot_be_judged(tmp_path_factory, values, points):
    history = History(tmp_path_factory.mktemp("h"))
    for i, (value, judged) in enumerate(values):
        history.record_score(scored(float(i), value, anomalous=value > 3 if judged else None))
    every, few = history.scores("pump", 0, 1e9), history.scores("pump", 0, 1e9, points)
    assert len(every) == len(values) and len(few) <= max(points, 1)
    assert max(s.score for s in few) == max(s.score for s in every)
    assert min(s.score for s in few) == min(s.score for s in every)
    assert any(s.anomalous is None for s in few) == any(s.anomalous is None for s in every)
    assert set(few) <= set(every) and few == sorted(few, key=lambda s: s.t0)
    history.close()


def test_old_scores_go_events_stay(tmp_path):
    history = History(tmp_path, keep_days=2.5)
    history.record_event(event())
    for day in range(5):
        for machine in ("fan", "pump"):
            history.record_score(scored(day * DAY_S, machine=machine))
    for machine in ("fan", "pump"):
        assert [s.t0 / DAY_S for s in history.scores(machine, 0, 1e9)] == [2, 3, 4]
    assert len(history.events()) == 1


def test_old_scores_go_on_going_after_a_clock_was_a_day_ahead(tmp_path):
    history = History(tmp_path, keep_days=0.5)
    for t in (DAY_S, 0.0, 0.2 * DAY_S, 0.4 * DAY_S, 0.6 * DAY_S):
        history.record_score(scored(t))
    assert [s.t0 / DAY_S for s in history.scores("pump", 0, 1e9)] == [0.2, 0.4, 0.6, 1]


def test_months_of_scores_are_looked_at_a_few_at_a_time(history):
    columns = vars(scored(0.0)) | {"triggered_by": "[]"}
    rows = ([*{**columns, "t0": t0, "t1": t0 + 10.0}.values()] for t0 in range(0, 40 * int(DAY_S), 240))
    history.database.writer.execute("BEGIN")
    history.database.writer.executemany(f"INSERT INTO scores VALUES ({', '.join('?' * len(columns))})", rows)
    history.database.writer.execute("COMMIT")
    tracemalloc.start()
    assert [(count, middle) for _, middle, count in history.daily_medians("pump", 0, 1e12)] == [(360, 0.0)] * 40
    found = measure(history.iter_scores("pump", 0, 1e12), [], 1000.0, Alarm(3.0))
    assert found.weeks == pytest.approx(40 * 360 * 10 / 604_800) and found.value == 0.0
    assert tracemalloc.get_traced_memory()[1] < 0.6e6
    tracemalloc.stop()


def test_one_process_at_a_time_may_listen(tmp_path):
    child = (
        "from nearfar.live.history.database import *; import sys; "
        "h = lock_folder(Path(sys.argv[1])); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", child, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline()
        with pytest.raises(ValueError, match="in use by a running `nearfar serve` or `nearfar monitor`"):
            lock_folder(tmp_path)
        History(tmp_path).close()  # who looks into it need not wait
        with pytest.raises(ValueError, match="is in use by"):
            rescue(tmp_path)
        other.kill()
    lock_folder(tmp_path).close()
    lock_folder(tmp_path).close()


def test_audio_stays_below_its_cap_oldest_out_first(tmp_path):
    history = History(tmp_path, audio_bytes=200_000)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))
    for i in range(6):
        history.event_audio.save(f"2026010{i}T000000Z-pump-{i}.flac", samples, 16_000)
    left = sorted(p.name[:8] for p in history.event_audio.folder.iterdir())
    assert left[-1] == "20260105" and 1 < len(left) < 6 and left == [f"2026010{i}" for i in range(6 - len(left), 6)]
    assert sum(p.stat().st_size for p in history.event_audio.folder.iterdir()) <= 200_000
    assert history.event_audio.path("20260100T000000Z-pump-0.flac") is None
    assert history.event_audio.path("../history.db") is None


def test_a_disk_that_is_nearly_full_is_left_to_scores_and_not_to_old_sound(tmp_path, monkeypatch):
    history, samples = History(tmp_path), np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))
    for i in range(3):
        history.event_audio.save(f"2026010{i}T000000Z-pump-{i}.flac", samples, 16_000)
    size = (history.event_audio.folder / "20260100T000000Z-pump-0.flac").stat().st_size
    left = SimpleNamespace(free=RESERVE - size)
    monkeypatch.setattr("nearfar.live.history.archive.shutil", SimpleNamespace(disk_usage=lambda _: left))
    history.event_audio.save("20260103T000000Z-pump-3.flac", samples, 16_000)
    kept = sorted(p.name[7:8] for p in history.event_audio.folder.iterdir())
    assert kept in (["1", "2", "3"], ["2", "3"])
    left.free = 0  # whoever has filled the disk: the sound takes no more, and is not all deleted
    history.event_audio.save("20260104T000000Z-pump-4.flac", samples, 16_000)
    assert sorted(p.name[7:8] for p in history.event_audio.folder.iterdir()) in (["2", "3", "4"], ["3", "4"])


def test_audio_of_16_bits_comes_back_exactly(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32767, (2, 5000)) / 32768
    History(tmp_path).event_audio.save("a.flac", samples, 16_000)
    back, rate = soundfile.read(tmp_path / "audio" / "a.flac", dtype="float32")
    assert rate == 16_000 and np.array_equal(back.T, samples.astype(np.float32))


CHILD = """
import sys
from nearfar.live.history.history import History
from nearfar.live.history.records import Event, ScoreRecord
history = History(sys.argv[1])
n = 0
while True:
    history.record_score(ScoreRecord("pump", float(n), n + 1.0, 0.0, 3.0, False, 0.5))
    kept = history.record_event(Event(0, "pump", "alarm", float(n)))
    print(kept.id, flush=True)
    n += 1
"""


def test_kill_9_loses_no_recorded_event(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    said = [child.stdout.readline() for _ in range(60)]
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.readlines()
    child.wait()
    ids = {int(line) for line in said if line.endswith("\n") and line.strip()}
    history = History(tmp_path)
    found = {e.id for e in history.events(limit=100_000)}
    assert len(ids) >= 60 and ids <= found
    assert len(history.scores("pump", 0, 1e9)) >= len(ids)
    assert history.record_event(event()).id == max(found) + 1


def test_readers_and_writers_do_not_wait_for_each_other(history):
    errors, stop = [], threading.Event()

    def read():
        try:
            while not stop.is_set():
                seen = history.scores("pump", 0, 1e9)
                assert [s.t0 for s in seen] == sorted(s.t0 for s in seen)
                history.events()
        except Exception as error:
            errors.append(error)

    def write(machine: str):
        try:
            for i in range(150):
                history.record_score(scored(float(i), machine=machine))
                history.record_event(event(float(i), machine))
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(m,)) for m in ("pump", "fan", "valve")]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not errors
    ids = [e.id for e in history.events(limit=1000)]
    assert len(ids) == len(set(ids)) == 450 and len(history.scores("fan", 0, 1e9)) == 150


def test_a_full_disk_is_said_survived_and_caught_up_with(history):
    for i in range(50):
        history.record_score(scored(float(i)))
    pages = history.database.writer.execute("PRAGMA page_count").fetchone()[0]
    history.database.writer.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "database or disk is full"
    for i in range(50, 600):
        history.record_score(scored(float(i)))
    assert "full" in history.problem
    waiting = history.record_event(event(600.0))
    history.change_event(waiting.id, ended=601.0)
    assert history.event(waiting.id).ended == 601.0 == history.events()[0].ended
    history.database.writer.execute("PRAGMA max_page_count = 1000000")
    history.record_score(scored(600.0))
    assert history.problem == "" and len(history.scores("pump", 0, 1e9)) == 601 and history.database.dropped_scores == 0
    assert sqlite3.connect(history.folder / "history.db").execute("SELECT id, ended FROM events").fetchall() == [
        (waiting.id, 601.0)
    ]


class Gone:
    """A connection whose share has gone."""

    in_transaction = True

    def execute(self, *_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    def close(self) -> None:
        raise sqlite3.OperationalError("disk I/O error")


def test_a_share_that_was_away_is_said_survived_and_opened_anew(history):
    history.record_score(scored(1.0))
    history.database.writer, database = Gone(), history.folder / "history.db"
    history.database._idle_readers[:] = [Gone()]
    with pytest.raises(OSError, match="cannot be read"):
        history.scores("pump", 0, 1e9)
    database.rename(history.folder / "away")
    history.record_score(scored(2.0))
    assert history.problem.startswith("history: disk I/O error (has its disk or network share gone")
    kept = history.record_event(event(3.0))
    assert not database.exists() and history.event(kept.id) == kept  # no second history is begun
    (history.folder / "away").rename(database)
    history.retry()
    assert history.problem == "" and [s.t0 for s in history.scores("pump", 0, 1e9)] == [1.0, 2.0]
    assert sqlite3.connect(database).execute("SELECT id FROM events").fetchall() == [(kept.id,)]


def test_what_waits_in_memory_is_bounded_and_events_are_not_forgotten(history, monkeypatch):
    monkeypatch.setattr("nearfar.live.history.database.WAITING", 100)
    history.database.writer.execute("PRAGMA query_only = 1")
    first = history.record_event(event())
    for i in range(500):
        history.record_score(scored(float(i)))
    assert len(history.database._waiting) <= 102 and history.database.dropped_scores >= 400
    assert f"({history.database.dropped_scores} scores dropped)" in history.problem
    history.database.writer.execute("PRAGMA query_only = 0")
    history.record_score(scored(500.0))
    assert history.problem == "" and [e.id for e in history.events()] == [first.id]
    assert max(s.t0 for s in history.scores("pump", 0, 1e9)) == 500


def _damage(folder: Path) -> None:
    history = History(folder)
    for i in range(4000):
        history.record_score(scored(float(i)))
    kept = [history.record_event(event(float(i))) for i in range(20)]
    history.close()
    assert kept
    file = folder / "history.db"
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    file.write_bytes(content)


def test_a_damaged_database_says_so_and_what_can_be_read_is_rescued(tmp_path):
    _damage(tmp_path)
    with pytest.raises(DamagedHistory, match="nearfar history rescue"):
        History(tmp_path).scores("pump", 0, 1e9)
    kept, rows = rescue(tmp_path)
    assert kept.is_file() and rows["events"] == 20 and rows["scores"] > 1000
    again = History(tmp_path)
    assert len(again.events()) == 20 and again.record_event(event()).id == 21
    again.close()


def test_a_file_that_is_no_database_is_refused_with_a_way_out(tmp_path):
    (tmp_path / "history.db").write_text("not a database at all, " * 100)
    with pytest.raises(DamagedHistory, match=r"is damaged .* rescue"):
        History(tmp_path)
    rescue(tmp_path)
    assert History(tmp_path).events() == []


def test_a_newer_database_is_refused(tmp_path):
    History(tmp_path).close()
    sqlite3.connect(tmp_path / "history.db").execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="version 99"):
        History(tmp_path)


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path):
    old = sqlite3.connect(tmp_path / "history.db")
    old.executescript(SCHEMA[0])
    old.executescript(
        """
        INSERT INTO scores VALUES ('pump', 0, 10, 4.5, 3, 1, 0.01, 'transient and steady', '', NULL, NULL);
        INSERT INTO events VALUES
            (1, 'pump', 'alarm', 10, NULL, 4.5, 0, 3, 'steady', 'text', '', NULL, '', '', '', 0);
        PRAGMA user_version = 1;
        """
    )
    old.close()
    again = History(tmp_path)
    (row,), (kept,) = again.scores("pump", 0, 10), again.events()
    assert (row.score, row.triggered_by, row.unusual) == (4.5, ("transient", "steady"), None)
    again.record_score(replace(row, t0=1.0, unusual=True))
    assert [r.unusual for r in again.scores("pump", 0, 10)] == [None, True]
    assert (kept.peak_score, kept.triggered_by, kept.interrupted) == (4.5, ("steady",), False)
    assert again.outbox.mailbox("mqtt", ()).waiting() == []
    again.close()


def test_a_message_that_an_earlier_version_kept_is_delivered_once(tmp_path):
    history = History(tmp_path)
    event = {"id": 1, "machine": "pump", "kind": "alarm", "started": 5.0, "peak_value": 4.5, "heard": "steady"}
    text = json.dumps({"kind": "event", "machine": "pump", "site": "a", "at": 5.0, "what": "raised", "event": event})
    history.database.write(("INSERT INTO outbox VALUES ('webhook', 'an-id', 5.0, ?)", [text]))
    box = history.outbox.mailbox("webhook", ("event",))
    (message,) = box.waiting()
    assert (message.event.peak_score, message.event.triggered_by) == (4.5, ("steady",))
    box.forget(message)
    assert box.waiting() == []
    history.close()


def test_what_waits_for_a_sink_is_rescued_too(tmp_path):
    history = History(tmp_path)
    boxes = [history.outbox.mailbox(name, ("event",)) for name in ("mqtt", "webhook")]
    for i in range(3):
        history.record_event(event(float(i)), lambda e: EventMessage("pump", "north", e.started, "raised", e))
    history.close()
    assert rescue(tmp_path)[1] == {"scores": 0, "events": 3, "audits": 0}
    again = History(tmp_path)
    for box in boxes:
        assert [m.event.id for m in again.outbox.mailbox(box.sink, ()).waiting()] == [1, 2, 3]
    again.close()


def test_the_settings_of_an_alarm_are_remembered_by_machine(history):
    assert history.alarm_settings("pump") == Alarm(0.0)
    history.record_alarm_settings("pump", Alarm(3.0, 0.25, 2, 4))
    history.record_alarm_settings("pump", Alarm(5.0, 0.75, 2, 4))
    assert history.alarm_settings("pump") == Alarm(0.0, 0.75, 2, 4) and history.alarm_settings("fan") == Alarm(0.0)


def test_medians_are_of_what_was_judged_normal_by_day(history):
    for day, values in enumerate(([1, 2, 3], [5, 6, 7, 8])):
        for i, value in enumerate(values):
            history.record_score(scored(day * DAY_S + i, value))
        history.record_score(scored(day * DAY_S + 50, 99.0, anomalous=True))
        history.record_score(scored(day * DAY_S + 60, -99.0, anomalous=None))
    assert history.daily_medians("pump", 0, 1e9) == [(0.0, 2, 3), (DAY_S, 6.5, 4)]


def test_what_changes_while_the_disk_is_full_is_seen_at_once(history):
    event = history.record_event(Event(0, "pump", "alarm", 100.0))
    history.database.writer.execute("PRAGMA query_only = 1")
    history.change_event(event.id, ended=200.0)
    assert history.problem and history.event(event.id).ended == 200.0
    assert history.events() == [history.event(event.id)] and not history.events(since=300.0)
    history.database.writer.execute("PRAGMA query_only = 0")
    history.change_event(event.id, text="seen")
    assert not history.problem and history.events()[0].ended == 200.0


@pytest.mark.parametrize("wrong", ["\ud800", float("nan"), 2**70])
def test_a_row_that_no_disk_could_take_keeps_no_other_from_the_disk(history, wrong):
    with pytest.raises((UnicodeError, sqlite3.IntegrityError, OverflowError)):
        history.record_audit(Audit(0, wrong if isinstance(wrong, float) else 1.0, str(wrong)[:1], "pump", wrong))
    history.record_score(scored(1.0))
    assert history.problem == "" and [s.t0 for s in history.scores("pump", 0, 1e9)] == [1.0]


def test_a_row_that_no_disk_could_take_is_left_out_of_those_that_have_waited(history, caplog):
    history.database.writer.execute("PRAGMA query_only = 1")
    for at, who in enumerate(("anna", "\ud800", "ben")):
        history.record_audit(Audit(0, float(at), who, "pump", "shelve"))
    history.database.writer.execute("PRAGMA query_only = 0")
    history.record_score(scored(1.0))
    assert history.problem == "" and [a.who for a in history.audit()] == ["ben", "anna"]
    assert "can never be written" in caplog.text


def test_a_clock_that_is_years_ahead_deletes_no_scores(tmp_path):
    history = History(tmp_path, keep_days=2)
    for hour in range(20):
        history.record_score(scored(3600.0 * hour))
    wrong = 70 * 365 * DAY_S
    for hour in range(20):
        history.record_score(scored(wrong + 3600.0 * hour))
    history.close()
    history = History(tmp_path, keep_days=2)  # a restart before the clock is set right
    history.record_score(scored(wrong + 3600.0 * 21))
    for hour in range(20, 30):
        history.record_score(scored(3600.0 * hour))
    assert [s.t0 / 3600 for s in history.scores("pump", 0, wrong)] == list(range(30))
    for hour in range(30, 100):  # once the clock has been right for a day, old scores go again
        history.record_score(scored(3600.0 * hour))
    assert 49 <= history.scores("pump", 0, wrong)[0].t0 / 3600 <= 52
    history.close()
