"""What happened, on disk: scores, events, audit (SQLite, WAL) and event audio beside them; all that a dashboard shows.

    folder/history.db        scores for `keep_days`; events and audit stay
    folder/audio/*.flac      at most `audio_bytes`, oldest out first

Safe from any thread and against `kill -9`: what `record` has returned is on disk, unless `problem` says otherwise. If
the disk is full, rows wait in memory (events and audit all of them, scores up to WAITING) and are written, in order, as
soon as there is room. Clocks are never read: ages count from the newest score. What an event tells the sinks that must
hear of it (`outbox`) is written in the event's own transaction.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, fields, replace
from itertools import chain, groupby, islice, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from nearfar.errors import DamagedHistory
from nearfar.live.history.event_audio import Tape
from nearfar.live.records import Audit, Event, Message, Scored
from nearfar.support.check import number

# The SQLite file below the history: schema, connections, and the way out if the file is damaged.
#
# WAL mode: readers never wait for the writer, and what has been committed survives `kill -9`. Scores are committed with
# `synchronous = NORMAL` (a power cut may lose the last few), events and audit with FULL. Who listens holds the folder:
# two processes would give one number to two events, and send twice what waits in the outbox.
#

NAME, LOCK = "history.db", "lock.db"
SCHEMA = (  # what each version added
    """
CREATE TABLE scores (
    machine TEXT NOT NULL, t0 REAL NOT NULL, t1 REAL NOT NULL, value REAL NOT NULL, threshold REAL NOT NULL,
    anomalous INTEGER, p REAL NOT NULL, heard TEXT NOT NULL, problem TEXT NOT NULL,
    level_near_dbfs REAL, level_far_dbfs REAL);
CREATE INDEX scores_by_time ON scores (machine, t0, value, anomalous);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, machine TEXT NOT NULL, kind TEXT NOT NULL, started REAL NOT NULL, ended REAL,
    peak_value REAL NOT NULL, peak_t0 REAL NOT NULL, threshold REAL NOT NULL, heard TEXT NOT NULL, text TEXT NOT NULL,
    audio TEXT NOT NULL, acknowledged REAL, acknowledged_by TEXT NOT NULL, verdict TEXT NOT NULL,
    verdict_by TEXT NOT NULL, audio_t0 REAL NOT NULL);
CREATE INDEX events_by_machine ON events (machine, id);
CREATE TABLE audits (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, machine TEXT NOT NULL, action TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE INDEX audits_by_machine ON audits (machine, id);
""",
    """
CREATE TABLE outbox (sink TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL, message TEXT NOT NULL, UNIQUE (sink, id));
""",
    """
ALTER TABLE scores RENAME COLUMN value TO score;
ALTER TABLE scores RENAME COLUMN heard TO triggered_by;
ALTER TABLE events RENAME COLUMN peak_value TO peak_score;
ALTER TABLE events RENAME COLUMN heard TO triggered_by;
""",
)
VERSION = len(SCHEMA)
TABLES = ("scores", "events", "audits")  # for people; in `outbox` messages wait for sinks


def damaged(folder: Path, error: Exception) -> DamagedHistory:
    """The error for people."""
    return DamagedHistory(
        f"{folder / NAME} is damaged ({error}): was the disk full, or the power cut? "
        f"Save what can be read, and begin anew, with: nearfar history rescue {folder}"
    )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, not the disk or another process."""
    return "malformed" in str(error) or "not a database" in str(error)


def hold(folder: Path) -> sqlite3.Connection:
    """Keep `folder` from every other process that would write there, until this is closed or the process dies.

    ValueError if another holds it. Who only reads need not ask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN EXCLUSIVE")  # SQLite's lock of an empty file: the same on every system
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" not in str(error):
            raise OSError(f"{folder / LOCK} cannot be opened ({error}): may this user write there?") from None
        raise ValueError(
            f"the history in {folder} belongs to a `nearfar serve` or `nearfar monitor` that is running: stop that one "
            "first, or give each a history of its own (--history, or folder in [history])"
        ) from None
    return connection


def connect(folder: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the history in `folder`, made if it is not there; may be handed from thread to thread."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / NAME, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        if read_only:
            connection.execute("PRAGMA query_only = 1")
            return connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _upgrade(folder, connection)
    except sqlite3.Error as error:
        connection.close()
        if is_damage(error):
            raise damaged(folder, error) from None
        raise OSError(
            f"{folder / NAME} cannot be opened ({error}): may this user write there, is the disk full?"
        ) from None
    except ValueError:
        connection.close()
        raise
    return connection


def _upgrade(folder: Path, connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found < VERSION:
        steps = "".join(SCHEMA[found:])
        connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
    elif found > VERSION:
        raise ValueError(f"{folder / NAME} has version {found} and this nearfar reads {VERSION}; upgrade nearfar")
    for table in (*TABLES, "outbox"):
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()


def rescue(folder: Path) -> tuple[Path, dict[str, int]]:
    """Put a damaged database aside and begin a new one with the rows that can be read; (where, rows per table)."""
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"there is no history in {folder}: {NAME} is missing")
    with closing(hold(folder)):
        kept = next(p for n in range(1, 10_000) if not (p := folder / f"damaged-{n}.db").exists())
        for suffix in ("-wal", "-shm", ""):
            if (part := folder / (NAME + suffix)).exists():
                part.replace(kept.with_name(kept.name + suffix))
        with closing(connect(folder)) as new, closing(sqlite3.connect(kept)) as old:
            counts = {table: _copy(old, new, table) for table in (*TABLES, "outbox")}
    return kept, {table: counts[table] for table in TABLES}


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    """What can be read of a table into another database; rows."""
    rows = _readable(old, table)
    new.execute("BEGIN")
    if rows:
        marks = ",".join("?" * len(next(iter(rows.values()))))
        new.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows.values())
    new.execute("COMMIT")
    return len(rows)


def _readable(old: sqlite3.Connection, table: str) -> dict[int, tuple[object, ...]]:
    """Rows by number, read from both ends up to the damage."""
    rows: dict[int, tuple[object, ...]] = {}
    for order in ("ASC", "DESC"):
        try:
            for number, *row in old.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid {order}"):
                if number in rows:
                    break
                rows[number] = tuple(row)
        except sqlite3.DatabaseError:
            continue
    return dict(sorted(rows.items()))


# What a sink must be told for sure: kept in the history, in the transaction of its event, until the sink has taken it.
#
#     outbox    sink, id of the message, its time, the message
#
# At least once, in order, also after `kill -9`: a message that was taken just before its sink's word for it came is
# sent
# again at the next start, with the time and the id that it had. What nobody takes goes with the scores of its days.
#

if TYPE_CHECKING:
    pass


class Outbox:
    """The messages of `kinds` that `sink` has not taken yet; from now on `history` keeps them."""

    def __init__(self, history: History, sink: str, kinds: Sequence[str]) -> None:
        self.history, self.sink, self.kinds = history, sink, kinds
        history.outboxes.append(self)

    def waiting(self) -> list[Message]:
        """What has not been taken, oldest first."""
        rows = self.history._read("SELECT message FROM outbox WHERE sink = ? ORDER BY rowid", [self.sink])
        return [Message.from_json(text) for (text,) in rows]

    def keep(self, message: Message) -> list[Statement]:
        """What writes a message down, if it is one of ours."""
        if message.kind not in self.kinds:
            return []
        values = [self.sink, message.id, message.at, message.to_json()]
        return [("INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?)", values)]

    def taken(self, message: Message) -> None:
        """The sink has it, or will never have it."""
        with self.history._lock:
            self.history._write(("DELETE FROM outbox WHERE sink = ? AND id = ?", [self.sink, message.id]))


def promise(history: History, message: Message) -> None:
    """Keep a message that belongs to no event."""
    if statements := history.promised(message):
        with history._lock:
            history._write(*statements)


if TYPE_CHECKING:
    pass

WAITING = 100_000  # scores kept in memory while they cannot be written
CHUNK = 500  # statements in a transaction, once one alone has shown that there is room
DAY_S = 86_400.0
PRUNE_S = 3600.0
TABLE = {Scored: "scores", Event: "events", Audit: "audits"}
SPAN = "WHERE machine = ? AND t0 >= ? AND t0 < ?"
SCORED = ", ".join(f.name for f in fields(Scored))

Row = TypeVar("Row", Scored, Event, Audit)
Statement = tuple[str, Sequence[Any]]
Tell = Callable[[Event], Message]


class History:
    """The history in `folder`, made if it is not there. DamagedHistory if it cannot be read; see the module."""

    def __init__(self, folder: str | os.PathLike[str], *, keep_days: float = 90, audio_bytes: float = 10e9) -> None:
        self.folder = Path(folder)
        self.keep_s = number("keep_days", keep_days, above=0) * DAY_S
        self.tape = Tape(self.folder / "audio", number("audio_bytes", audio_bytes, low=0))
        self.problem = ""  # why rows wait in memory, or ""
        self.lost = 0  # scores that had to be forgotten while the disk was full
        self._lock = threading.RLock()
        self._writer = connect(self.folder)
        self._readers: list[sqlite3.Connection] = []
        self.outboxes: list[Outbox] = []
        self._waiting: deque[tuple[Statement, ...]] = deque()  # each whole in one transaction
        self._unsaved: dict[int, Event] = {}
        self._last_id = {Event: 0, Audit: 0}
        self._pruned = -float("inf")

    def record(self, row: Row, tell: Tell | None = None) -> Row:
        """Keep a row, and what `tell` says of an event; an Event or Audit gets its number. Returns the row as kept."""
        with self._lock:
            if not isinstance(row, Scored):
                row = replace(row, id=self._next_id(type(row)))
            values = [_as_column(value) for value in astuple(row)]
            marks = ", ".join("?" * len(values))
            if isinstance(row, Event):
                self._unsaved[row.id] = row
            told = self.promised(tell(row)) if tell and isinstance(row, Event) else []
            self._write((f"INSERT INTO {TABLE[type(row)]} VALUES ({marks})", values), *told)
            if isinstance(row, Scored) and abs(row.t1 - self._pruned) > PRUNE_S:  # a clock may be set back
                self._prune(row.t1)
            return row

    def change(self, event_id: int, tell: Tell | None = None, **changes: Any) -> Event:
        """Set fields of an event, the others stay, and keep what `tell` says of it. KeyError if there is none."""
        with self._lock:
            event = replace(self.event(event_id), **changes)
            if event_id in self._unsaved:
                self._unsaved[event_id] = event
            names = ", ".join(f"{name} = ?" for name in changes)
            told = self.promised(tell(event)) if tell else []
            self._write(
                (f"UPDATE events SET {names} WHERE id = ?", [*map(_as_column, changes.values()), event_id]), *told
            )
            return event

    def scores(self, machine: str, since: float, until: float, points: int | None = None) -> list[Scored]:
        """Windows that begin in [since, until), oldest first; at most `points` of them, with every extreme kept."""
        if points is None:
            return list(self.each(machine, since, until))
        given = [machine, since, until]
        count, first, last = self._read(f"SELECT count(*), min(t0), max(t0) FROM scores {SPAN}", given)[0]
        if count <= points:
            return self.scores(machine, since, until)
        rows = sorted(self._extremes(machine, first, last, max(1, points // 4)))
        marks = ", ".join("?" * len(rows))
        query = f"SELECT {SCORED} FROM scores WHERE rowid IN ({marks}) ORDER BY t0"
        return [_scored(row) for row in self._read(query, rows)]

    def each(self, machine: str, since: float, until: float) -> Iterator[Scored]:
        """Windows that begin in [since, until), oldest first, one at a time: months of them are a million."""
        with self._reader() as connection:
            for row in connection.execute(f"SELECT {SCORED} FROM scores {SPAN} ORDER BY t0", [machine, since, until]):
                yield _scored(row)

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
        """Events, newest first: those that stand or ended after `since`, started before `until`."""
        tests = {
            "machine = ?": machine,
            "(ended IS NULL OR ended >= ?)": since,
            "started < ?": until,
            "kind = ?": kind,
            "id < ?": before_id,
        }
        query, given = _where("SELECT * FROM events", tests, limit)
        found = {row[0]: _event(row) for row in self._read(query, given)}
        with self._lock:  # and what waits for the disk
            found |= {e.id: e for e in self._unsaved.values() if _passes(e, machine, since, until, kind, before_id)}
        return [found[i] for i in sorted(found, reverse=True)[:limit]]

    def event(self, event_id: int) -> Event:
        """One event; KeyError if there is none."""
        with self._lock:
            if event_id in self._unsaved:
                return self._unsaved[event_id]
        rows = self._read("SELECT * FROM events WHERE id = ?", [event_id])
        if not rows:
            raise KeyError(f"there is no event {event_id}")
        return _event(rows[0])

    def audit(
        self, machine: str | None = None, *, limit: int = 100, before_id: int | None = None, id: int | None = None
    ) -> list[Audit]:
        """What people did, newest first."""
        tests = {"machine = ?": machine, "id < ?": before_id, "id = ?": id}
        query, given = _where("SELECT * FROM audits", tests, limit)
        return [_audit(row) for row in self._read(query, given)]

    def close(self) -> None:
        """Write what waits, if that is possible, and close the files."""
        with self._lock:
            self._write()
            for connection in [self._writer, *self._readers]:
                connection.close()
            self._readers.clear()

    def _extremes(self, machine: str, first: float, last: float, stretches: int) -> set[int]:
        """Numbers of the rows with the highest and the lowest score of each stretch of time, judged or not.

        A query per stretch: they come in the order of the index, so nothing is sorted and no row is read.
        """
        edges = [first + (last - first) * i / stretches for i in range(stretches)] + [math.inf]
        ends = [
            f"SELECT rowid, {extreme}(score) FROM scores {SPAN} AND anomalous IS {judged} NULL"
            for extreme in ("max", "min")
            for judged in ("NOT", "")
        ]
        with self._reader() as connection:
            return {
                row[0]
                for a, b in pairwise(edges)
                for query in ends
                for row in connection.execute(query, [machine, a, b])
                if row[0] is not None
            }

    def promised(self, message: Message) -> list[Statement]:
        """What the outboxes write down of a message."""
        return [statement for box in self.outboxes for statement in box.keep(message)]

    def _write(self, *statements: Statement) -> None:
        """All that waits, in order, then `statements` in one transaction; what cannot be written waits."""
        self._waiting += [statements] if statements else []
        try:
            while self._waiting:
                chunk = list(islice(self._waiting, 1 if self.problem else CHUNK))
                careful = any("scores" not in sql for sql, _ in chain.from_iterable(chunk))
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if careful else 'NORMAL'}")
                self._writer.execute("BEGIN IMMEDIATE")
                for sql, values in chain.from_iterable(chunk):
                    self._writer.execute(sql, values)
                self._writer.execute("COMMIT")
                self.problem = ""
                for _ in chunk:
                    self._waiting.popleft()
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._forget()
            given_up = f" ({self.lost} scores given up)" if self.lost else ""
            self.problem = str(damaged(self.folder, error)) if is_damage(error) else f"history: {error}{given_up}"
            return
        self._unsaved.clear()

    def _forget(self) -> None:
        """Too much waits: the oldest scores go, nothing else does."""
        excess = len(self._waiting) - WAITING
        if excess <= 0:
            return
        scores = (i for i, group in enumerate(self._waiting) if "scores" in group[0][0])
        gone = set(islice(scores, excess + WAITING // 100))
        self._waiting = deque(s for i, s in enumerate(self._waiting) if i not in gone)
        self.lost += len(gone)

    def _next_id(self, kind: type[Event] | type[Audit]) -> int:
        try:
            newest = self._writer.execute(f"SELECT max(id) FROM {TABLE[kind]}").fetchone()[0] or 0
        except sqlite3.Error:  # unreadable for now: numbers go on from the last
            newest = 0
        self._last_id[kind] = max(self._last_id[kind], newest) + 1
        return self._last_id[kind]

    def _prune(self, now: float) -> None:
        self._pruned = now
        for machine in machines_of(self):
            self._write(("DELETE FROM scores WHERE machine = ? AND t0 < ?", [machine, now - self.keep_s]))
        self._write(("DELETE FROM outbox WHERE at < ?", [now - self.keep_s]))

    def _read(self, query: str, given: Sequence[Any]) -> list[Any]:
        with self._reader() as connection:
            return connection.execute(query, given).fetchall()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for one query: readers wait for nobody, and threads come and go."""
        with self._lock:
            connection = self._readers.pop() if self._readers else connect(self.folder, read_only=True)
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise damaged(self.folder, error) from None
            raise OSError(f"{self.folder}: the history cannot be read ({error})") from None
        finally:
            with self._lock:
                self._readers.append(connection)


def machines_of(history: History) -> list[str]:
    """The machines that have scores; a walk along the index, not through millions of rows."""
    next_one = "SELECT (SELECT min(machine) FROM scores WHERE machine > x) FROM m WHERE x IS NOT NULL"
    names = f"WITH RECURSIVE m(x) AS (SELECT min(machine) FROM scores UNION ALL {next_one})"
    return [machine for (machine,) in history._read(f"{names} SELECT x FROM m WHERE x IS NOT NULL", [])]


def last_heard(history: History, machine: str, since: float) -> float | None:
    """The end of the last window of a machine that began at `since` or later."""
    query = "SELECT t1 FROM scores WHERE machine = ? AND t0 >= ? ORDER BY t0 DESC LIMIT 1"
    return next((float(t1) for (t1,) in history._read(query, [machine, since])), None)


def medians(history: History, machine: str, since: float, until: float) -> list[tuple[float, float, int]]:
    """(start of the day, median score, windows) of each UTC day, of windows that were judged normal."""
    query = f"SELECT t0, score FROM scores {SPAN} AND anomalous = 0 ORDER BY t0"
    with history._reader() as connection:
        days = groupby(connection.execute(query, [machine, since, until]), lambda row: row[0] // DAY_S * DAY_S)
        found = ((day, [value for _, value in rows]) for day, rows in days)  # a day at a time, for the memory
        return [(day, median(values), len(values)) for day, values in found]


def _where(query: str, tests: dict[str, Any], limit: int) -> Statement:
    used = {test: value for test, value in tests.items() if value is not None}
    where = f" WHERE {' AND '.join(used)}" if used else ""
    return f"{query}{where} ORDER BY id DESC LIMIT ?", [*used.values(), limit]


def _passes(
    e: Event, machine: str | None, since: float | None, until: float | None, kind: str | None, before_id: int | None
) -> bool:
    """The tests of `events`, of an event in memory."""
    in_time = (since is None or e.ended is None or e.ended >= since) and (until is None or e.started < until)
    return (
        in_time and machine in (None, e.machine) and kind in (None, e.kind) and (before_id is None or e.id < before_id)
    )


def _audit(row: Sequence[Any]) -> Audit:
    id, at, who, machine, action, detail = row
    return Audit(id, at, who, machine, action, json.loads(detail))


def _scored(row: Sequence[Any]) -> Scored:
    scored = Scored(*row)
    anomalous = None if scored.anomalous is None else bool(scored.anomalous)
    return replace(scored, anomalous=anomalous, triggered_by=_names(str(scored.triggered_by)))


def _event(row: Sequence[Any]) -> Event:
    event = Event(*row)
    return replace(event, triggered_by=_names(str(event.triggered_by)))


def _as_column(value: Any) -> Any:
    """A field as SQLite keeps it: a dict or tuple as JSON."""
    return json.dumps(value) if isinstance(value, (dict, tuple)) else value


def _names(text: str) -> tuple[str, ...]:
    """The names of a `triggered_by` column: a JSON list, or in rows of version 2 names joined by " and "."""
    return tuple(json.loads(text)) if text.startswith("[") else tuple(filter(None, text.split(" and ")))
