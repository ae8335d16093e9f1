"""Tables 3, 4 and 5 of the report, computed on the data at hand and set beside the report's own numbers.

    Table 3   official score of the best single system of each encoder
    Table 4   arithmetic means over machines of AUC source, AUC target and pAUC, and the official (harmonic) score
    Table 5   AUC source, AUC target and pAUC of each machine

Every cell holds the report's number, the one computed here and, if the machines are the report's, the difference. A
cell of a system that could not run holds no number of same_machines; its row says why. Numbers are in percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np

from nearfar.challenge.data.layout import RULES, DataSet, Unit, made_up
from nearfar.challenge.evaluate import ScoreCache, UnitScores, fuse_units
from nearfar.challenge.pages import published
from nearfar.challenge.pages.words import columns_of
from nearfar.metrics import Interval, MachineResult, bootstrap, machine, overall
from nearfar.recipe import FUSION, TABLE_3, System

FUSED = "fusion"
NOT_OURS = "a trained network of the organisers, no part of nearfar"
NO_WEIGHTS = "the weights are not here (see: nearfar weights)"
METRICS = ("AUC source", "AUC target", "pAUC")
ROUNDS = 300  # of the bootstrap of a system's score


@dataclass(frozen=True)
class Cell:
    """A number of the report and the one computed here (None: there is none); `comparable` if of the same machines.

    `interval` is the 95 % bootstrap interval of an official score computed here, in [0, 1].
    """

    report: float | None = None
    here: float | None = None
    comparable: bool = True
    interval: Interval | None = None

    @property
    def difference(self) -> float | None:
        """Here minus report, or None."""
        if self.report is None or self.here is None or not self.comparable:
            return None
        return self.here - self.report


@dataclass(frozen=True)
class Row:
    """A row: its words `heads`, its numbers, and the reason for missing numbers."""

    heads: tuple[str, ...]
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report; `heads` name the columns of words, `metrics` the columns of numbers."""

    title: str
    heads: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    named_by: int = 0  # index of the head that names the system of a row

    @property
    def reasons(self) -> dict[str, list[str]]:
        """{reason for missing numbers: systems}."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            names = found.setdefault(row.note, [])
            if row.heads[self.named_by] not in names:
                names.append(row.heads[self.named_by])
        found.pop("", None)
        return found


@dataclass(frozen=True)
class Run:
    """The results of one system per machine (in [0, 1]) with the interval of its score, or why it could not run.

    `words`: its input, pooling and back end, for a system that the report lacks.
    """

    title: str
    results: Mapping[str, MachineResult] = field(default_factory=dict)
    why_not: str = ""
    failures: Sequence[tuple[str, str]] = ()
    interval: Interval | None = None
    words: tuple[str, str, str] = ("", "", "")

    @property
    def score(self) -> float | None:
        """The official score in percent, or None."""
        return 100 * overall(self.results) if self.results else None

    def mean(self, metric: str) -> float | None:
        """The arithmetic mean over machines in percent, or None."""
        values = np.array([getattr(r, metric) for r in self.results.values()], float)
        return float(100 * np.nanmean(values)) if len(values) and not np.isnan(values).all() else None


@dataclass(frozen=True)
class Reproduction:
    """The three tables, and every system's run by name."""

    tables: Sequence[Table]
    runs: Mapping[str, Run]
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """The tables and runs for JSON, in percent."""
        return {
            "tables": [_table_dict(table) for table in self.tables],
            "systems": {
                name: {
                    "title": run.title,
                    "score": run.score,
                    "interval": [100 * end for end in astuple(run.interval)] if run.interval else None,
                    "why_not": run.why_not,
                    "machines": {m: _percent(r) for m, r in run.results.items()},
                    "failures": [{"file": f, "error": e} for f, e in run.failures],
                }
                for name, run in self.runs.items()
            },
            "notes": list(self.notes),
        }


def reproduce(found: DataSet, cache: ScoreCache, others: Mapping[str, System | None] | None = None) -> Reproduction:
    """Run every system whose weights are present on a data set.

    others   further systems by name; None as a system is the default detector

    Raises ValueError for data sets of 2020 and 2021, whose rules give other numbers, and if a name of `others` is one
    of the report's.
    """
    if taken := sorted(set(others or {}) & {*TABLE_3, FUSED}):
        raise ValueError(f"{', '.join(taken)} is a name of the report's own systems: give the recipe another")
    if found.rules in ("2020", "2021"):
        raise ValueError(f"the report's tables follow other rules than those of {found.rules}: {RULES['2022']}")
    done: dict[str, Run] = {}
    scores: dict[str, dict[str, UnitScores]] = {}
    for name, system in {**TABLE_3, **(others or {})}.items():
        title = published.TABLE_3[name].title if name in published.TABLE_3 else name
        run, scores[name] = _run(title, name, system, found.units, cache)
        done[name] = replace(run, words=columns_of(system))
    done[FUSED] = _fusion(found.units, done, scores)
    machines = {unit.name for unit in found.units if _labelled(unit)}
    real = not any(made_up(unit.test[0]) for unit in found.units)
    same_machines = real and machines == set(published.TABLE_5)
    tables = [table_3(done, same_machines), table_4(done, same_machines), table_5(done, sorted(machines), real)]
    return Reproduction(tables, done, [*found.notes, *_comparison_notes(machines, same_machines, real)])


def table_3(runs: Mapping[str, Run], comparable: bool = True) -> Table:
    """The best single system per encoder, followed by the systems that the report does not have."""
    rows = []
    for name, run in runs.items():
        printed = published.TABLE_3.get(name)
        if name != FUSED:
            words = (printed.title, printed.view, printed.pooling, printed.backend) if printed else (name, *run.words)
            cell = Cell(printed.score if printed else None, run.score, comparable, run.interval)
            rows.append(Row(words, (cell,), run.why_not))
    return Table(
        "Table 3: best single system per encoder (official score: harmonic mean)",
        ("encoder", "input", "pooling", "back end"),
        ("score",),
        rows,
        ["k = 3 LDN is read as density k = 3 and query k = 1."],
    )


def table_4(runs: Mapping[str, Run], comparable: bool = True) -> Table:
    """Means over machines: arithmetic for the metrics, harmonic for the score; systems the report lacks come last."""
    rows = []
    others = [name for name, run in runs.items() if run.results and name not in (*published.TABLE_4, FUSED)]
    for name in (*published.TABLE_4, *others):
        run, average = _run_of(runs, name), published.TABLE_4.get(name)
        here = [run.mean(metric) for metric in ("auc_source", "auc_target", "pauc")] + [run.score]
        printed = astuple(average) if average else (None,) * 4
        cells = [Cell(p, h, comparable) for p, h in zip(printed, here, strict=True)]
        cells[-1] = replace(cells[-1], interval=run.interval)
        rows.append(Row((_title(name) if average else run.title,), tuple(cells), run.why_not))
    notes = [
        f"{_title(s)}: the report's Score is {published.TABLE_4[s].score:.2f}; its own Table 5 gives "
        f"{published.official(s):.2f}, as the organisers published."
        for s in (published.MSE, published.MAHALA)
    ]
    metrics = (*(f"{m} (arithmetic)" for m in METRICS), "score (harmonic)")
    return Table("Table 4: averages over machines", ("method",), metrics, rows, notes)


def table_5(runs: Mapping[str, Run], machines: Sequence[str], comparable: bool = True) -> Table:
    """Per machine: the report's rows, then the other systems; machines that the report lacks come last."""
    rows = []
    for name in dict.fromkeys([*published.TABLE_5, *machines]):
        for system, printed in published.TABLE_5.get(name, {}).items():
            run = _run_of(runs, system)
            rows.append(Row((name, system), _cells(printed, run.results.get(name), comparable), run.why_not))
        for system, run in runs.items():
            if name in run.results and (name not in published.TABLE_5 or system != FUSED):
                rows.append(Row((name, run.title), _cells(None, run.results[name])))
    return Table("Table 5: per machine", ("machine", "system"), METRICS, rows, named_by=1)


def _run(
    title: str, name: str, system: System | None, units: Sequence[Unit], cache: ScoreCache
) -> tuple[Run, dict[str, UnitScores]]:
    """The run of a system and its scores per machine; neither has content if its networks cannot be loaded."""
    try:
        scored = {unit.name: each for unit, each in cache.scores(name, system, units)}
    except FileNotFoundError:
        return Run(title, why_not=NO_WEIGHTS), {}
    except (ValueError, OSError, ImportError) as error:
        return Run(title, why_not=" ".join(str(error).split())), {}
    return _run_with_results(title, units, scored), scored


def _fusion(units: Sequence[Unit], done: Mapping[str, Run], scored: Mapping[str, Mapping[str, UnitScores]]) -> Run:
    names = [next(name for name, row in TABLE_3.items() if row == system) for _, system in FUSION.parts]
    lacking = [done[name].title for name in names if not done[name].results and done[name].why_not]
    if lacking:
        return Run("best fusion", why_not=f"needs {', '.join(lacking)}")
    weights = [weight for weight, _ in FUSION.parts]
    combined = {}
    for unit in units:
        parts = [scored[name][unit.name] for name in names]
        if all(part.test for part in parts):
            combined[unit.name] = fuse_units(list(zip(weights, parts, strict=True)))
    return _run_with_results("best fusion", units, combined)


def _run_with_results(title: str, units: Sequence[Unit], scored: Mapping[str, UnitScores]) -> Run:
    results, clips = {}, {}
    for unit in units:
        test = [r for r in unit.test if r.path.name in scored.get(unit.name, UnitScores({}, {})).test]
        labels = [bool(r.is_anomaly) for r in test]
        if _labelled(unit) and len(set(labels)) == 2:
            values = [scored[unit.name].test[r.path.name] for r in test]
            clips[unit.name] = values, labels, [bool(r.is_target) for r in test]
            results[unit.name] = machine(*clips[unit.name])
    failures = [failure for s in scored.values() for failure in s.failures]
    why = "" if results else failures[0][1] if failures else "no machine has labels"
    interval = bootstrap(clips, rounds=ROUNDS)[1] if clips else None
    return Run(title, results, why, failures, interval)


def _labelled(unit: Unit) -> bool:
    return all(r.is_anomaly is not None for r in unit.test)


def _run_of(runs: Mapping[str, Run], name: str) -> Run:
    if name == published.OURS:
        return runs[FUSED]
    return runs[name] if name in runs else Run(_title(name), why_not=NOT_OURS)


def _title(name: str) -> str:
    return published.TITLES.get(name) or f"{published.TABLE_3[name].title} (best single)"


def _cells(
    printed: tuple[float, float, float] | None, result: MachineResult | None, comparable: bool = True
) -> tuple[Cell, ...]:
    here = [None, None, None] if result is None else [None if np.isnan(v) else 100 * v for v in result]
    return tuple(Cell(p, h, comparable) for p, h in zip(printed or (None, None, None), here, strict=True))


def _comparison_notes(machines: set[str], same_machines: bool, real: bool) -> list[str]:
    if same_machines:
        return []
    if not real:
        return ["these are the made-up machines of nearfar demo: nothing here compares with the report's numbers"]
    lacking = ", ".join(sorted(set(published.TABLE_5) - machines))
    return [
        f"without {lacking}, averages and scores do not compare with the report's"
        if lacking
        else "with other machines beside the report's, averages and scores do not compare"
    ]


def _table_dict(table: Table) -> dict[str, Any]:
    rows = [
        {
            **dict(zip(table.heads, row.heads, strict=True)),
            **{
                metric: {"report": cell.report, "here": cell.here, "difference": cell.difference}
                for metric, cell in zip(table.metrics, row.cells, strict=True)
            },
            "note": row.note,
        }
        for row in table.rows
    ]
    return {"title": table.title, "rows": rows, "notes": list(table.notes)}


def _percent(result: MachineResult) -> dict[str, float | None]:
    return {name: None if value is None else 100 * value for name, value in result.to_dict().items()}
