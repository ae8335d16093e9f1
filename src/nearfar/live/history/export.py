"""The history as Parquet files for a data warehouse: a file each of scores, events and audits."""

from __future__ import annotations

from pathlib import Path

from nearfar.live.history.database import TABLES, connect
from nearfar.support.files import atomic_file

CHUNK = 100_000


def to_parquet(folder: Path, out: Path) -> dict[str, int]:
    """Write the history in `folder` to out/{scores,events,audits}.parquet; returns rows per table. Needs pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ImportError('Parquet needs pyarrow: pip install "nearfar[parquet]"') from None
    if not (folder / "history.db").is_file():
        raise FileNotFoundError(f"there is no history in {folder}: history.db is missing")
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
                while chunk := rows.fetchmany(CHUNK):
                    data = dict(zip(schema.names, map(list, zip(*chunk, strict=True)), strict=True))
                    writer.write_table(pyarrow.table(data, schema))
                    counts[table] += len(chunk)
    finally:
        connection.close()
    return counts
