"""What the benchmarks share: medians, peak memory of a fresh process, and a results file."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def median_seconds(work: Callable[[], Any], runs: int = 5) -> float:
    """Median wall time of `work` after one warm-up run."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interleaved_seconds(*works: Callable[[], Any], runs: int = 5, rest: float = 0.0) -> list[float]:
    """Median wall time of each work after one warm-up run; they take turns, so that other load meets all of them.

    `rest` seconds before each let the threads of the work before it (BLAS, OpenMP) stop waiting on a processor.
    """
    times: list[list[float]] = [[] for _ in works]
    for turn in range(runs + 1):
        for work, taken in zip(works, times, strict=True):
            time.sleep(rest)
            start = time.perf_counter()
            work()
            if turn:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """(result, wall seconds, peak resident MiB) of `work` in a process of its own; on Linux."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, float, float]:
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start, _peak_mib()


def _peak_mib() -> float:
    """Peak of this process since it began; `ru_maxrss` would begin at the size of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@dataclass(frozen=True)
class Table:
    """A Markdown table; the title is "" where the page has one table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def report(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()) -> None:
    """Print a Markdown table and write it to results/NAME.md."""
    report_tables(name, [Table("", columns, rows)], notes)


def report_tables(name: str, tables: Sequence[Table], notes: Sequence[str] = ()) -> None:
    """Print Markdown tables and write them to results/NAME.md."""
    lines = [f"# {name}", "", *(f"{note}\n" for note in notes)]
    for table in tables:
        lines += [f"## {table.title}", ""] if table.title else []
        lines += ["| " + " | ".join(table.columns) + " |", "| " + " | ".join("---" for _ in table.columns) + " |"]
        lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in table.rows] + [""]
    lines += [f"{os.cpu_count()} processors, {platform.machine()}, numpy {np.__version__}.", ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
