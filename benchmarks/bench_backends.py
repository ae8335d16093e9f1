"""What the back ends of the search are worth: by labels, nested, and without labels.

Two data sets, log-mel, the near channel alone: the machines of `nearfar demo`, and the real motor of ../shared/data if
it is there. For each back end, all of its configurations that the extended search has:

    best        highest official score, on the data that it was chosen on
    nested      each machine scored by what is best on the others; of one machine there is none
    halves      the best on one draw of the clips, scored on the clips left out: 95 % of the draws
    median      of the configurations, what an unlucky choice gives
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from measure import Table, report_tables
from nearfar.challenge.search import run, select, space
from nearfar.challenge.search.records import Records
from nearfar.demo import make_dataset
from nearfar.recipe import Recipe

MOTOR = Path(__file__).resolve().parents[2] / "shared" / "data" / "dcase2026-form"
MACHINES, NORMALS, TESTS, SECONDS = 3, 60, 40, 5.0
ROUNDS = 200
NAMES = {
    "raw": "raw",
    "ldn": "LDN",
    "ldn auto": "LDN, K by cluster exit",
    "ldn exponent": "LDN, exponent 0.25 to 0.75",
    "ldn k": "LDN, 3 and 5 neighbours of the query",
    "domain_z": "domain Z",
    "dldn": "DLDN",
    "dbldn": "DB-LDN",
    "dbldn weight": "DB-LDN, weight 0.1 to 0.9",
    "attribute": "a bank for each attribute: LDN, domain Z, Mahalanobis",
    "varmin": "VarMin",
    "varmin auto": "VarMin, K by cluster exit",
    "mahalanobis": "Mahalanobis",
    "pca": "principal subspace",
    "zmin": "Z-MIN",
    "kmeans": "k-means, 16 centres",
    "smote": "SMOTE",
    "memmixup": "MemMixup",
}


def group(recipe: Recipe) -> str:
    """The row that a configuration belongs to."""
    if recipe.banks == "attribute":
        return recipe.banks
    if recipe.density_k == "auto":
        return f"{recipe.method} auto"
    if recipe.method == "dbldn" and recipe.weight != 0.5:
        return "dbldn weight"
    if recipe.method == "ldn" and recipe.k > 1:
        return "ldn k"
    return f"{recipe.method} exponent" if recipe.exponent != 1 else recipe.method


def part(records: Records, rows: list[int]) -> Records:
    """Some of the configurations."""
    scores = {machine: each[rows] for machine, each in records.scores.items()}
    return replace(
        records,
        recipes=[records.recipes[row] for row in rows],
        numbers=records.numbers[rows],
        statistics=records.statistics[rows],
        scores=scores,
    )


def searched(data: Path, folder: Path) -> Records:
    """All back ends with mean and RDP pooling."""
    chosen = space.space(extended=True, views=("near_only",), poolings=("mean", "rdp"))
    plain = {s: views for s, views in chosen.plan.items() if s.low is s.spike is None and s.freq == "concat"}
    kept = {
        s: {view: tuple(b for b in backends if not b.whiten) for view, backends in views.items()}
        for s, views in plain.items()
    }
    return run.search(data, ["logmel"], folder, space.Space(kept)).records


def table(title: str, records: Records) -> Table:
    """A row for each back end, and one for all."""
    groups: dict[str, list[int]] = {name: [] for name in NAMES}
    for row, recipe in enumerate(records.recipes):
        groups[group(recipe)].append(row)
    groups["all"] = list(range(len(records)))
    out = []
    for name, rows in ((name, rows) for name, rows in groups.items() if rows):
        some = part(records, rows)
        worth = select.select(some, rounds=ROUNDS)
        halves = f"{100 * worth.procedure.low:.1f} to {100 * worth.procedure.high:.1f}"
        nested = "" if np.isnan(worth.nested) else f"{100 * worth.nested:.1f}"
        median = f"{100 * np.median(some.overall):.1f}"
        out.append([NAMES.get(name, "all of these"), len(rows), f"{100 * worth.best:.1f}", nested, halves, median])
    return Table(title, ("back end", "configurations", "best", "nested", "halves", "median"), out)


def without_labels(records: Records) -> str:
    """What the rules that use normals alone pick from all."""
    rules = select.label_free(records)
    picks = ", ".join(f"{name} {100 * rules[name].overall:.1f}" for name in ("together", "zmin") if name in rules)
    return f"rules without labels over all of these: {picks}."


def main() -> None:
    tables, notes = [], ["Official score in percent."]
    with tempfile.TemporaryDirectory() as folder:
        demo = make_dataset(Path(folder) / "demo", machines=MACHINES, train=NORMALS, test=TESTS, seconds=SECONDS)
        sets = {f"nearfar demo: {MACHINES} machines, {NORMALS} normals and {TESTS} test clips each": demo}
        if MOTOR.exists():
            sets["a real motor: 30 normals and 75 test clips, propeller on or off (no DCASE number)"] = MOTOR
        for number, (title, data) in enumerate(sets.items()):
            records = searched(data, Path(folder) / str(number))
            tables.append(table(title, records))
            notes.append(f"{title.partition(':')[0]}: {without_labels(records)}")
    report_tables("backends", tables, notes)


if __name__ == "__main__":
    main()
