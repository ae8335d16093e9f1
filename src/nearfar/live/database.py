"""The SQLite file below the history: schema, connections, and the way out if the file is damaged.

WAL mode: readers never wait for the writer, and what has been committed survives `kill -9`. Scores are committed with
`synchronous = NORMAL` (a power cut may lose the last few), events and audit with FULL. Who listens holds the folder:
two processes would give one number to two events, and send twice what waits in the outbox.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

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
)
VERSION = len(SCHEMA)
TABLES = ("scores", "events", "audits")  # for people; in `outbox` messages wait for sinks


class DamagedHistory(ValueError):
    """The database cannot be read; the message says what to do."""


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
