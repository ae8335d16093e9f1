"""The SQLite file of a history: its schema, its connections, and transactions that wait while the disk is full.

WAL mode: readers never wait for the writer, and a committed transaction survives `kill -9`. Durable transactions
(events, audit, outbox) are committed with `synchronous = FULL`. The others (scores) are committed with NORMAL: a power
cut may lose the last few. One process at a time may write (`lock_folder`): two writers would give one number to two
events, and would both send the messages of the outbox.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nearfar.errors import DamagedHistory
from nearfar.support.files import atomic_file, private_folder

LOG = logging.getLogger("nearfar.history")
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
    """
ALTER TABLE events ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0;
CREATE TABLE alarms (
    machine TEXT PRIMARY KEY, deadband REAL NOT NULL, on_delay INTEGER NOT NULL, off_delay INTEGER NOT NULL);
""",
    """
ALTER TABLE alarms ADD COLUMN within INTEGER NOT NULL DEFAULT 0;
""",
    """
ALTER TABLE scores ADD COLUMN unusual INTEGER;
""",
    """
ALTER TABLE events ADD COLUMN on_top_of INTEGER;
""",
    """
ALTER TABLE scores ADD COLUMN file TEXT NOT NULL DEFAULT '';
""",
)
VERSION = len(SCHEMA)
TABLES = ("scores", "events", "audits")  # the tables for people; `outbox` is internal
WAITING = 100_000  # transactions kept in memory while the disk is full, before scores are dropped
EXPORTED = 100_000  # rows of a table that are written to Parquet together
CHUNK = 500  # waiting transactions that are committed together, once a single one has shown that there is room

GONE = "disk I/O error"  # SQLite's words for anything but a full disk
UNWRITABLE = (sqlite3.IntegrityError, sqlite3.DataError, UnicodeError, OverflowError)  # on any disk
Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class Transaction:
    """Statements that are committed together; only transactions that are not durable may be dropped."""

    statements: tuple[Statement, ...]
    durable: bool


class Database:
    """The database in `folder`, made if it is not there. May be used from any thread.

    `problem` says why transactions wait in memory, or ""; `dropped_scores` counts scores that were dropped from there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.writer = connect(folder)
        self.problem, self.dropped_scores = "", 0
        self._lost = False  # the disk or share may have gone, and its handles with it
        self._idle_readers: list[sqlite3.Connection] = []
        self._waiting: deque[Transaction] = deque()

    def write(self, *statements: Statement, durable: bool = True) -> bool:
        """Commit all waiting transactions in order, then `statements` as one transaction.

        Returns False if the disk did not allow it; everything then waits in memory for the next call. Values that no
        disk could take raise one of UNWRITABLE, and nothing waits behind them.
        """
        with self.lock:
            given = Transaction(statements, durable)
            if statements:
                self._waiting.append(given)
            try:
                if self._lost:
                    self._reopen()
                self._commit_all(given)
            except (sqlite3.Error, OSError, DamagedHistory) as error:
                if isinstance(error, UNWRITABLE):
                    raise
                with suppress(sqlite3.Error):
                    self._roll_back()
                self._drop_oldest_scores()
                self._lost = self._lost or GONE in str(error)
                why = " (has its disk or network share gone, or is a quota used up?)" if self._lost else ""
                dropped = f" ({self.dropped_scores} scores dropped)" if self.dropped_scores else ""
                self.problem = f"history: {error}{why}{dropped}"
                if is_damage(error):
                    self.problem = str(damaged(self.folder, error))
                return False
            return True

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        with self.reader() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for one query. DamagedHistory or OSError if the query fails."""
        with self.lock:
            idle = self._idle_readers
            connection = idle.pop() if idle else connect(self.folder, read_only=True)
        works = True
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            works = False
            if is_damage(error):
                raise damaged(self.folder, error) from None
            raise OSError(f"{self.folder}: the history cannot be read ({error})") from None
        finally:
            if works:
                with self.lock:
                    self._idle_readers.append(connection)
            else:
                with suppress(sqlite3.Error):
                    connection.close()

    def close(self) -> None:
        """Write the waiting transactions if that is possible, and close the files."""
        with self.lock:
            self.write()
            for connection in [self.writer, *self._idle_readers]:
                connection.close()
            self._idle_readers.clear()

    def _commit_all(self, given: Transaction) -> None:
        """Commit what waits; a transaction that can never be written is dropped, and raised if it is `given`."""
        at_once = 1 if self.problem else CHUNK
        while self._waiting:
            try:
                self._commit(list(islice(self._waiting, at_once)))
                at_once = CHUNK
            except UNWRITABLE as error:
                self._roll_back()
                if at_once > 1 and len(self._waiting) > 1:
                    at_once = 1  # finds which one it is
                    continue
                if (dropped := self._waiting.popleft()) is given:
                    raise
                LOG.error("a row of the history can never be written: %s: %s", error, dropped.statements)

    def _reopen(self) -> None:
        """Open the database anew, if it is there: handles from before a share was away stay dead."""
        if not (self.folder / NAME).is_file():  # where a share is not mounted, no new database is begun
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self.folder / NAME))
        old = [self.writer, *self._idle_readers]
        self.writer, self._lost = connect(self.folder), False
        self._idle_readers.clear()
        for connection in old:
            with suppress(sqlite3.Error):
                connection.close()

    def _roll_back(self) -> None:
        if self.writer.in_transaction:
            self.writer.execute("ROLLBACK")

    def _commit(self, transactions: Sequence[Transaction]) -> None:
        durable = any(transaction.durable for transaction in transactions)
        self.writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self.writer.execute("BEGIN IMMEDIATE")
        for transaction in transactions:
            for sql, values in transaction.statements:
                self.writer.execute(sql, values)
        self.writer.execute("COMMIT")
        self.problem = ""
        for _ in transactions:
            self._waiting.popleft()

    def _drop_oldest_scores(self) -> None:
        """Keep at most about WAITING transactions in memory; durable ones are never dropped."""
        excess = len(self._waiting) - WAITING
        if excess <= 0:
            return
        scores = (i for i, transaction in enumerate(self._waiting) if not transaction.durable)
        dropped = set(islice(scores, excess + WAITING // 100))
        self._waiting = deque(t for i, t in enumerate(self._waiting) if i not in dropped)
        self.dropped_scores += len(dropped)


def damaged(folder: Path, error: Exception) -> DamagedHistory:
    """The error that names the damaged file and the command that rescues it."""
    return DamagedHistory(
        f"{folder / NAME} is damaged ({error}): was the disk full, or the power cut? "
        f"Save the readable rows and start a new database with: nearfar history rescue {folder}"
    )


def is_damage(error: Exception) -> bool:
    """Whether the file itself is damaged; False for a full disk or a locked file."""
    return "malformed" in str(error) or "not a database" in str(error)


def lock_folder(folder: Path) -> sqlite3.Connection:
    """Keep other processes from writing to `folder` until the returned connection is closed or the process dies.

    ValueError if another process has the lock. Readers need no lock.
    """
    private_folder(folder)
    connection = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN EXCLUSIVE")  # SQLite's lock of an empty file: the same on every system
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" not in str(error):
            raise OSError(f"{folder / LOCK} cannot be opened ({error}): may this user write there?") from None
        raise ValueError(
            f"the history in {folder} is in use by a running `nearfar serve` or `nearfar monitor`: stop that process "
            "first, or give each process a history of its own (--history, or folder in [history])"
        ) from None
    return connection


def connect(folder: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the history in `folder`, made if it is not there; may be handed from thread to thread.

    Only this user may read the folder and its database.
    """
    if not read_only:
        private_folder(folder)
        with suppress(OSError):  # SQLite gives its other files the mode of the database
            (folder / NAME).touch(0o600)
            (folder / NAME).chmod(0o600)
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
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < VERSION:
        steps = "".join(SCHEMA[version:])
        connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version > VERSION:
        raise ValueError(f"{folder / NAME} has version {version} and this nearfar reads {VERSION}; upgrade nearfar")
    for table in (*TABLES, "outbox"):
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()


def rescue(folder: Path) -> tuple[Path, dict[str, int]]:
    """Move a damaged database aside and start a new one with its readable rows; (moved file, rows per table)."""
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"there is no history in {folder}: {NAME} is missing")
    with closing(lock_folder(folder)):
        kept = next(p for n in range(1, 10_000) if not (p := folder / f"damaged-{n}.db").exists())
        for suffix in ("-wal", "-shm", ""):
            if (part := folder / (NAME + suffix)).exists():
                part.replace(kept.with_name(kept.name + suffix))
        with closing(connect(folder)) as new, closing(sqlite3.connect(kept)) as old:
            counts = {table: _copy(old, new, table) for table in (*TABLES, "outbox")}
    return kept, {table: counts[table] for table in TABLES}


def to_parquet(folder: Path, out: Path) -> dict[str, int]:
    """Write the history in `folder` to out/{scores,events,audits}.parquet; returns rows per table. Needs pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ImportError('Parquet needs pyarrow: pip install "nearfar[parquet]"') from None
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"there is no history in {folder}: {NAME} is missing")
    types = {"INTEGER": pyarrow.int64(), "REAL": pyarrow.float64(), "TEXT": pyarrow.string()}
    connection = connect(folder, read_only=True)
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    try:
        for table in TABLES:
            columns = [(row[1], types[row[2]]) for row in connection.execute(f"PRAGMA table_info({table})")]
            schema = pyarrow.schema(columns)
            rows = connection.execute(f"SELECT * FROM {table}")
            counts[table] = 0
            with atomic_file(out / f"{table}.parquet") as draft, parquet.ParquetWriter(draft, schema) as writer:
                while chunk := rows.fetchmany(EXPORTED):
                    data = dict(zip(schema.names, map(list, zip(*chunk, strict=True)), strict=True))
                    writer.write_table(pyarrow.table(data, schema))
                    counts[table] += len(chunk)
    finally:
        connection.close()
    return counts


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    """Copy the readable rows of a table, which may lack the columns of later versions; returns how many."""
    rows = _readable(old, table)
    new.execute("BEGIN")
    if rows:
        names = [row[1] for row in new.execute(f"PRAGMA table_info({table})")][: len(next(iter(rows.values())))]
        marks = ",".join("?" * len(names))
        new.executemany(f"INSERT OR IGNORE INTO {table} ({','.join(names)}) VALUES ({marks})", rows.values())
    new.execute("COMMIT")
    return len(rows)


def _readable(old: sqlite3.Connection, table: str) -> dict[int, tuple[object, ...]]:
    """Rows by their rowid, read from both ends up to the damage."""
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
