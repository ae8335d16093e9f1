"""The record of a plant: scores, events and audit in a database, event audio beside it.

    folder/history.db        scores for `keep_days`; events and audit for ever
    folder/audio/*.flac      of events, at most `audio_bytes`, oldest deleted first
    folder/sent/*.flac       windows of recordings that were sent, the same with a fifth of that
    folder/samples/ID/*.flac a normal window an hour of each machine, the newest

Safe from any thread and against `kill -9`: a row is on disk when its `record_` method has returned, unless `problem`
says otherwise. While the disk is full, rows wait in memory (all events and audit entries, about WAITING scores) and are
written in order as soon as there is room. No clock is read: ages count from the newest score.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from nearfar.errors import NotFound
from nearfar.live.history.archive import AudioArchive, Samples
from nearfar.live.history.database import Database, Statement
from nearfar.live.history.outbox import Outbox
from nearfar.live.history.records import NOTE, Audit, Event, Note, ScoreRecord, as_column, of_row
from nearfar.live.rules.alarm import Alarm
from nearfar.live.rules.rhythm import DAY_S, RECENT_DAYS, Listening, Rhythm, all_day
from nearfar.live.sinks.messages import Message
from nearfar.support.check import number

SENT_SHARE = 5  # recordings that were sent may take a fifth of the space for the sound of events
SAME_S = 1e-3  # two times that differ by less are one
MOST_NOTES = 1000
PRUNE_S = 3600.0  # between deletions of old scores
RUN_S = 8 * DAY_S  # old scores go only if there are others a day old, but not older than this: a clock may jump
SPAN = "WHERE machine = ? AND t0 >= ? AND t0 < ?"
SCORE = f"SELECT {', '.join(ScoreRecord.__match_args__)} FROM scores"

Describe = Callable[[Event], Message]  # makes the message about an event that has its number


class History:
    """The history in `folder`, which is created if it is missing. DamagedHistory if it cannot be read."""

    def __init__(self, folder: str | os.PathLike[str], *, keep_days: float = 90, audio_bytes: float = 10e9) -> None:
        self.folder = Path(folder)
        self.keep_s = number("keep_days", keep_days, above=0) * DAY_S
        self.event_audio = AudioArchive(self.folder / "audio", number("audio_bytes", audio_bytes, low=0))
        self.sent_audio = AudioArchive(self.folder / "sent", self.event_audio.most_bytes / SENT_SHARE)
        self.samples = Samples(self.folder / "samples")
        self.database = Database(self.folder)
        self.outbox = Outbox(self.database)
        self._unsaved: dict[int, Event] = {}  # by id: events whose newest state may not be on disk yet
        self._last_id = {"events": 0, "audits": 0}
        self._pruned = -math.inf

    @property
    def problem(self) -> str:
        """Why rows wait in memory, or ""."""
        return self.database.problem

    def retry(self) -> None:
        """Try to write the rows that wait, if any do."""
        if self.problem:
            self.database.write()

    def record_score(self, score: ScoreRecord) -> None:
        """Keep the score of a window."""
        with self.database.lock:
            self.database.write(_insert("scores", astuple(score)), durable=False)
            if abs(score.t1 - self._pruned) > PRUNE_S and not self.problem:  # abs: a clock may be set back
                self._prune(score)

    def record_event(self, event: Event, describe: Describe | None = None) -> Event:
        """Keep an event, and in the same transaction the message about it; returns the event with its number."""
        with self.database.lock:
            event = replace(event, id=self._next_id("events"))
            self._unsaved[event.id] = event
            self._write_event(_insert("events", astuple(event)), event, describe)
            return event

    def change_event(self, event_id: int, describe: Describe | None = None, **changes: Any) -> Event:
        """Set some fields of an event, and keep the message about it. NotFound if there is no such event."""
        with self.database.lock:
            event = replace(self.event(event_id), **changes)
            self._unsaved[event_id] = event
            names = ", ".join(f"{name} = ?" for name in changes)
            update = f"UPDATE events SET {names} WHERE id = ?", [*map(as_column, changes.values()), event_id]
            self._write_event(update, event, describe)
            return event

    def record_audit(self, audit: Audit, *messages: Message) -> Audit:
        """Keep an audit entry, with the messages that it is about in one transaction; returns it with its number."""
        with self.database.lock:
            audit = replace(audit, id=self._next_id("audits"))
            kept = [statement for message in messages for statement in self.outbox.inserts(message)]
            self.database.write(_insert("audits", astuple(audit)), *kept)
            return audit

    def record_alarm_settings(self, machine: str, alarm: Alarm) -> None:
        """Keep the deadband and the delays of a machine's alarm."""
        settings = [machine, alarm.deadband, alarm.on_delay, alarm.off_delay, alarm.within]
        self.database.write(("INSERT OR REPLACE INTO alarms VALUES (?, ?, ?, ?, ?)", settings))

    def alarm_settings(self, machine: str) -> Alarm:
        """An `Alarm` with the machine's last deadband and delays, or with the default ones; its set-point is 0."""
        settings = self.database.read(
            "SELECT deadband, on_delay, off_delay, within FROM alarms WHERE machine = ?", [machine]
        )
        return Alarm(0.0, *settings[0]) if settings else Alarm(0.0)

    def scores(self, machine: str, since: float, until: float, points: int | None = None) -> list[ScoreRecord]:
        """Windows that begin in [since, until), oldest first; at most `points` of them, with every extreme kept."""
        if points is None:
            return list(self.iter_scores(machine, since, until))
        span = [machine, since, until]
        count, first, last = self.database.read(f"SELECT count(*), min(t0), max(t0) FROM scores {SPAN}", span)[0]
        if count <= points:
            return self.scores(machine, since, until)
        rows = sorted(self._extremes(machine, first, last, max(1, points // 4)))
        return list(self._scores(f"WHERE rowid IN ({_marks(rows)}) ORDER BY t0", rows))

    def iter_scores(self, machine: str, since: float, until: float) -> Iterator[ScoreRecord]:
        """Windows that begin in [since, until), oldest first, read one at a time: months hold a million windows."""
        return self._scores(f"{SPAN} ORDER BY t0", [machine, since, until])

    def scores_of_files(self, machine: str, since: float, until: float) -> Iterator[ScoreRecord]:
        """Windows of recordings that begin in [since, until), newest first, read one at a time."""
        return self._scores(f"{SPAN} AND file != '' ORDER BY t0 DESC", [machine, since, until])

    def score_at(self, machine: str, t0: float) -> ScoreRecord | None:
        """The window of a machine that begins at `t0`, or None."""
        found = list(self._scores(f"{SPAN} ORDER BY t0 LIMIT 1", [machine, t0 - SAME_S, t0 + SAME_S]))
        return found[0] if found else None

    def events(
        self,
        machine: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        kind: str | None = None,
        limit: int = 100,
        before_id: int | None = None,
    ) -> list[Event]:
        """Events that started before `until` and did not end before `since`; newest first."""
        conditions: list[tuple[str, Any, Callable[[Event, Any], bool]]] = [  # in the database, and in memory
            ("machine = ?", machine, lambda e, machine: e.machine == machine),
            ("(ended IS NULL OR ended >= ?)", since, lambda e, since: e.ended is None or e.ended >= since),
            ("started < ?", until, lambda e, until: e.started < until),
            ("kind = ?", kind, lambda e, kind: e.kind == kind),
            ("id < ?", before_id, lambda e, before_id: e.id < before_id),
        ]
        query, values = _select("events", {sql: value for sql, value, _ in conditions}, limit)
        found = {row[0]: of_row(Event, row) for row in self.database.read(query, values)}
        with self.database.lock:
            for e in self._unsaved.values():
                found.pop(e.id, None)
                if all(value is None or holds(e, value) for _, value, holds in conditions):
                    found[e.id] = e
        return [found[i] for i in sorted(found, reverse=True)[:limit]]

    def event(self, event_id: int) -> Event:
        """One event; NotFound if there is none."""
        with self.database.lock:
            if event_id in self._unsaved:
                return self._unsaved[event_id]
        rows = self.database.read("SELECT * FROM events WHERE id = ?", [event_id])
        if not rows:
            raise NotFound(f"there is no event {event_id}")
        return of_row(Event, rows[0])

    def audit(
        self,
        machine: str | None = None,
        *,
        limit: int = 100,
        before_id: int | None = None,
        id: int | None = None,
        action: str | None = None,
    ) -> list[Audit]:
        """Audit entries, newest first."""
        conditions = {"machine = ?": machine, "id < ?": before_id, "id = ?": id, "action = ?": action}
        query, values = _select("audits", conditions, limit)
        return [of_row(Audit, row) for row in self.database.read(query, values)]

    def notes(self, machine: str) -> list[Note]:
        """The notes on the time line of a machine, the last written first; at most the newest of MOST_NOTES entries."""
        newest: dict[int, Audit] = {}
        for entry in self.audit(machine, action=NOTE, limit=MOST_NOTES):
            newest.setdefault(entry.detail.get("of", entry.id), entry)
        return [
            Note(id, machine, e.detail["at"], e.detail["said"], e.who, e.detail.get("event"))
            for id, e in newest.items()
            if e.detail["said"]
        ]

    def standing_changes(self, machine: str, actions: Sequence[str]) -> list[int]:
        """Ids of the audit entries with one of `actions` that no entry "undo" has undone, newest first."""
        undone = "SELECT json_extract(detail, '$.of') FROM audits WHERE machine = ? AND action = 'undo'"
        query = f"SELECT id FROM audits WHERE machine = ? AND action IN ({_marks(actions)}) AND id NOT IN ({undone})"
        rows = self.database.read(f"{query} ORDER BY id DESC", [machine, *actions, machine])
        return [id for (id,) in rows]

    def machines(self) -> list[str]:
        """The ids of machines that have scores; reads one entry of the index for each, not millions of rows."""
        next_one = "SELECT (SELECT min(machine) FROM scores WHERE machine > x) FROM m WHERE x IS NOT NULL"
        names = f"WITH RECURSIVE m(x) AS (SELECT min(machine) FROM scores UNION ALL {next_one})"
        return [machine for (machine,) in self.database.read(f"{names} SELECT x FROM m WHERE x IS NOT NULL")]

    def last_window_end(self, machine: str, since: float) -> float | None:
        """The end of a machine's newest window, if that began at `since` or later; else None."""
        query = "SELECT t1 FROM scores WHERE machine = ? AND t0 >= ? ORDER BY t0 DESC LIMIT 1"
        return next((float(t1) for (t1,) in self.database.read(query, [machine, since])), None)

    def daily_medians(self, machine: str, since: float, until: float) -> list[tuple[float, float, int]]:
        """(start of the day, median score, windows) of each UTC day, over the windows that were judged normal."""
        query = f"SELECT t0, score FROM scores {SPAN} AND anomalous = 0 ORDER BY t0"
        with self.database.reader() as connection:
            days = groupby(connection.execute(query, [machine, since, until]), lambda row: row[0] // DAY_S * DAY_S)
            by_day = ((day, [value for _, value in rows]) for day, rows in days)  # one day at a time, to save memory
            return [(day, median(values), len(values)) for day, values in by_day]

    def healthy_scores(self, machine: str, seconds: float) -> Iterator[tuple[float, float]]:
        """(score, end) of the windows judged normal in the last `seconds` of a machine's record, oldest first."""
        newest = "SELECT max(t0) FROM scores WHERE machine = ?"
        query = f"SELECT score, t1 FROM scores WHERE machine = ? AND t0 > ({newest}) - ? AND anomalous = 0 ORDER BY t0"
        with self.database.reader() as connection:
            yield from connection.execute(query, [machine, machine, seconds])

    def listening(self, machine: str) -> Listening | None:
        """How the judged windows of a machine came in the last days before its newest one; None if there are none."""
        judged = "FROM scores WHERE machine = ? AND anomalous IS NOT NULL"
        newest = self.database.read(f"SELECT max(t0) {judged}", [machine])[0][0]
        if newest is None:
            return None
        window = "SELECT t0, t1, lag(t1, 1, t0) OVER (ORDER BY t0) AS before"
        covered = f"SELECT count(*), sum(t1 - max(t0, before)), min(t0) FROM ({window} {judged} AND t0 > ?)"
        since = newest - RECENT_DAYS * DAY_S
        count, sound_s, first = self.database.read(covered, [machine, since])[0]
        return Listening(count, sound_s, first, newest)

    def rhythm(self, machine: str, clip_seconds: float, hop_s: float | None = None) -> Rhythm:
        """How often a machine is heard: as its last days show, else without a gap."""
        on_delay, listening = self.alarm_settings(machine).on_delay, self.listening(machine)
        return (listening and listening.rhythm(clip_seconds, on_delay)) or all_day(clip_seconds, hop_s, on_delay)

    def close(self) -> None:
        """Write the waiting rows if that is possible, and close the files."""
        self.database.close()

    def _scores(self, where: str, values: Sequence[Any]) -> Iterator[ScoreRecord]:
        with self.database.reader() as connection:
            for row in connection.execute(f"{SCORE} {where}", values):
                yield of_row(ScoreRecord, row)

    def _write_event(self, statement: Statement, event: Event, describe: Describe | None) -> None:
        messages = self.outbox.inserts(describe(event)) if describe else []
        if self.database.write(statement, *messages):
            self._unsaved.clear()

    def _extremes(self, machine: str, first: float, last: float, stretches: int) -> set[int]:
        """Rowids of the highest and lowest score of each of `stretches` equal spans of time, judged or not.

        A query per stretch: the rows come in the order of the index, so nothing is sorted.
        """
        edges = [first + (last - first) * i / stretches for i in range(stretches)] + [math.inf]
        queries = [
            f"SELECT rowid, {extreme}(score) FROM scores {SPAN} AND anomalous IS {judged} NULL"
            for extreme in ("max", "min")
            for judged in ("NOT", "")
        ]
        with self.database.reader() as connection:
            return {
                row[0]
                for a, b in pairwise(edges)
                for query in queries
                for row in connection.execute(query, [machine, a, b])
                if row[0] is not None
            }

    def _next_id(self, table: str) -> int:
        """A number above all in the table, and above all given to rows that still wait for the disk."""
        try:
            newest = self.database.writer.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
        except sqlite3.Error:  # unreadable for now: continue from the last number
            newest = 0
        self._last_id[table] = max(self._last_id[table], newest) + 1
        return self._last_id[table]

    def _prune(self, score: ScoreRecord) -> None:
        """Delete what is too old beside a score, unless its time may be that of a clock that has jumped ahead."""
        self._pruned, oldest = score.t1, score.t1 - self.keep_s
        before = score.t1 - min(DAY_S, self.keep_s / 2)
        known = "SELECT 1 FROM scores WHERE machine = ? AND t0 > ? AND t0 <= ? LIMIT 1"
        if not self.database.read(known, [score.machine, before - RUN_S, before]):
            return
        scores = [("DELETE FROM scores WHERE machine = ? AND t0 < ?", [name, oldest]) for name in self.machines()]
        self.database.write(*scores, ("DELETE FROM outbox WHERE at < ?", [oldest]), durable=False)


def _marks(values: Sequence[object]) -> str:
    """A placeholder of SQL for each value."""
    return ", ".join("?" * len(values))


def _insert(table: str, values: Sequence[Any]) -> Statement:
    return f"INSERT INTO {table} VALUES ({_marks(values)})", [*map(as_column, values)]


def _select(table: str, conditions: dict[str, Any], limit: int) -> Statement:
    used = {condition: value for condition, value in conditions.items() if value is not None}
    where = f" WHERE {' AND '.join(used)}" if used else ""
    return f"SELECT * FROM {table}{where} ORDER BY id DESC LIMIT ?", [*used.values(), limit]
