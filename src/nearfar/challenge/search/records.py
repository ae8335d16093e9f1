"""Results of a search on disk: every configuration, resumable, readable without audio.

    OUT/<encoder>/<machine>/clips.json              files of the machine, labels and domains of the test clips
    OUT/<encoder>/<machine>/<setting>.safetensors   one setting: its configurations, their results, what was refused
    OUT/configurations.parquet or .csv              the table: one row per configuration, written at the end

Columns of the table: the fields of the recipe (`encoder`, `view`, `low`, `spike`, `pooling`, `alpha`, `p`, `freq`,
`method`, `metric`, `k`, `density_k`, and those that differ from their defaults), `overall` (official score, in [0, 1]),
then for each machine `MACHINE.NAME` with NAME one of `auc_source`, `auc_target`, `pauc`, `omega` and of `STATISTICS`:

    mean, sd, q05 ... q99       exact leave-one-out scores of the training normals
    source_mean, target_mean    the same by domain (NaN without that domain)
    pseudo_auc                  AUC of the normals' leave-one-out scores against other machines' normals
    tail                        (q99 - q50) / (q50 - q05): how far the highest normals stand out
    stable                      rank correlation of the normals' distances to two halves of the bank

A column with a word among its numbers ("auto", layers "6+9") is text. Parquet needs pyarrow; without it the table is
CSV. The file of a setting is written whole or not at all, so a search that was stopped continues with the first setting
that is not recorded.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.audio.recordings import check_machines
from nearfar.backend import COUNTS
from nearfar.challenge.search.space import Setting, as_row
from nearfar.encoders import TABLE as ENCODERS
from nearfar.fusion import in_sigmas
from nearfar.metrics import METRICS, harmonic_means
from nearfar.recipe import PLUGINS, Recipe, plugin_versions
from nearfar.support.cells import csv_text
from nearfar.support.check import Array
from nearfar.support.files import atomic_write
from nearfar.support.words import plural

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
STATISTICS = ("mean", "sd", *QUANTILES, "source_mean", "target_mean", "pseudo_auc", "tail", "stable")
CLIPS, TABLE = "clips.json", "configurations"
MIXED = ("layer", *COUNTS)  # columns of numbers where a word or several numbers may stand too
ABOUT = "nearfar"  # the entry of a file's metadata
USED = "plugins"  # in it, the plug-ins of the configurations and the versions of their code


@dataclass(frozen=True)
class Results:
    """Results of C configurations on one machine.

    numbers (C, 3), statistics (C, len(STATISTICS)) and scores (C, M) of the machine's M test clips.
    """

    recipes: Sequence[Recipe]
    numbers: Array
    statistics: Array
    scores: Array

    def __add__(self, other: Results) -> Results:
        both = zip(self._arrays(), other._arrays(), strict=True)
        return Results([*self.recipes, *other.recipes], *(np.concatenate(pair) for pair in both))

    def _arrays(self) -> tuple[Array, Array, Array]:
        return self.numbers, self.statistics, self.scores


@dataclass(frozen=True)
class TestSet:
    """The files that a machine's results belong to; a label or domain is None where it is unknown.

    `how` describes what else the results depend on: channels, weights, rounding of the grids, the files' versions.
    """

    __test__ = False  # not a class of tests

    train: Sequence[str]
    test: Sequence[str]
    is_anomaly: Sequence[bool | None]
    is_target: Sequence[bool | None]
    how: str = ""

    @property
    def labelled(self) -> bool:
        """Whether the official metrics can be computed."""
        known = None not in self.is_anomaly and None not in self.is_target
        return known and any(self.is_anomaly) and not all(self.is_anomaly)

    @property
    def labels(self) -> tuple[Array, Array]:
        """is_anomaly (M,) and is_target (M,) of the test clips, where all are known."""
        return np.array(self.is_anomaly, bool), np.array(self.is_target, bool)

    @property
    def digest(self) -> str:
        """Hash of all fields and of the list of statistics: results of other files or weights have another one."""
        return sha256(json.dumps([vars(self), STATISTICS]).encode()).hexdigest()


class Recorder:
    """Writes and finds the results of one encoder and machine in OUT/<encoder>/<machine>; looks once what is there."""

    def __init__(self, folder: Path, test_set: TestSet) -> None:
        self.folder, self.test_set, self._digest = folder, test_set, test_set.digest
        self._text = json.dumps(vars(test_set), indent=1) + "\n"
        clips = self.folder / CLIPS
        # whether the folder's results belong to these clips
        self.begun = clips.exists() and clips.read_text(encoding="utf-8") == self._text
        self._recorded: dict[Setting, tuple[Sequence[Recipe], Sequence[Recipe]]] = {}  # scored, refused

    def begin(self) -> None:
        """Write which clips the results of the folder belong to; results of other clips no longer count."""
        if not self.begun:
            atomic_write(self.folder / CLIPS, self._text)
            self.begun = True

    def missing(self, setting: Setting, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Those of the configurations of a setting that are not recorded for these clips, nor refused."""
        if setting not in self._recorded:
            path = self._path(setting)
            metadata = _metadata(path) if self.begun and path.exists() else {}
            known = metadata if metadata.get("clips") == self._digest else {}
            self._recorded[setting] = _recipes(known, "recipes"), _recipes(known, "refused")
        recorded = {recipe for recipes in self._recorded[setting] for recipe in recipes}
        return [recipe for recipe in recipes if recipe not in recorded]

    def keep(self, setting: Setting, results: Results, refused: Sequence[Recipe] = ()) -> None:
        """Record results of a setting, and what was refused, beside those that `missing` has found there."""
        from safetensors.numpy import save

        scored, before = self._recorded.get(setting, ((), ()))
        if scored:
            results = _read(self._path(setting)) + results
        refused = [*before, *refused]
        about = {"clips": self._digest, USED: json.dumps(plugin_versions([*results.recipes, *refused]))}
        about |= {
            name: json.dumps([as_row(recipe) for recipe in recipes])
            for name, recipes in (("recipes", results.recipes), ("refused", refused))
        }
        metadata = {ABOUT: json.dumps(about)}  # one entry: of several the order varies
        arrays = {
            "numbers": results.numbers,
            "statistics": results.statistics,
            "scores": results.scores.astype(np.float32),
        }
        atomic_write(self._path(setting), save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata))
        self._recorded[setting] = results.recipes, refused

    def _path(self, setting: Setting) -> Path:
        return self.folder / f"{setting.name}.safetensors"


@dataclass(frozen=True)
class Records:
    """Configurations that are recorded for every machine.

    numbers (C, machines, 3), statistics (C, machines, len(STATISTICS)), scores {machine: (C, M)} of its test clips.
    refused {machine: configurations whose vectors are the same for all of its normals}, which `evaluate` refuses too.
    """

    recipes: Sequence[Recipe]
    test_sets: Mapping[str, TestSet]
    numbers: Array
    statistics: Array
    scores: Mapping[str, Array]
    refused: Mapping[str, Sequence[Recipe]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.recipes)

    @property
    def machines(self) -> list[str]:
        """Names, in the order of the axes."""
        return list(self.test_sets)

    @property
    def labelled(self) -> bool:
        """Whether every machine's test clips are labelled."""
        return all(test_set.labelled for test_set in self.test_sets.values())

    @cached_property
    def overall(self) -> Array:
        """The official score (C,) in [0, 1], NaN without labels."""
        return harmonic_means(self.numbers.reshape(len(self), -1), axis=1)

    def statistic(self, name: str) -> Array:
        """One of `STATISTICS`, (C, machines)."""
        values: Array = self.statistics[:, :, STATISTICS.index(name)]
        return values

    def aligned(self, rows: Sequence[int], machine: str) -> Array:
        """Test scores (len(rows), M) in standard deviations of the training normals (eq. 17)."""
        at, m = np.asarray(rows, int), self.machines.index(machine)
        mean, sd = (self.statistic(name)[at, m, None] for name in ("mean", "sd"))
        return in_sigmas(self.scores[machine][at], mean, sd)

    def rows(self) -> list[dict[str, Any]]:
        """The table: one row of plain values per configuration."""
        omega = harmonic_means(self.numbers, axis=2)
        out = []
        for i, recipe in enumerate(self.recipes):
            row = as_row(recipe) | {"overall": float(self.overall[i])}
            for m, machine in enumerate(self.machines):
                named = dict(zip(METRICS, self.numbers[i, m], strict=True)) | {"omega": omega[i, m]}
                named |= dict(zip(STATISTICS, self.statistics[i, m], strict=True))
                row |= {f"{machine}.{name}": float(value) for name, value in named.items()}
            out.append(row)
        return out


def read(folder: str | os.PathLike[str], encoders: Sequence[str] = (), machines: Sequence[str] = ()) -> Records:
    """The records of a search in `folder`, of all encoders and machines or of some.

    Raises FileNotFoundError if it is no search's folder, ValueError if no configuration is recorded for every machine.
    """
    folders = [p.parent for p in sorted(Path(folder).glob(f"*/*/{CLIPS}"))]  # <encoder>/<machine>
    folders = [each for each in folders if not encoders or each.parent.name in encoders]
    names = sorted({each.name for each in folders})
    if names:
        check_machines(machines, names, f"the search {folder}")
    test_sets: dict[str, TestSet] = {}
    results: dict[str, dict[Recipe, tuple[Results, int]]] = {}  # of each recipe, and the row in them
    refused: dict[str, list[Recipe]] = {}
    lost = {each.parent.name for each in folders if each.parent.name not in ENCODERS}
    for each in folders:
        machine = each.name
        if (machines and machine not in machines) or each.parent.name in lost:
            continue
        test_set = TestSet(**json.loads((each / CLIPS).read_text(encoding="utf-8")))
        if test_sets.setdefault(machine, test_set).test != test_set.test:
            raise ValueError(
                f"{each / CLIPS}: another encoder's results for {machine} belong to other test clips; search anew"
            )
        own, digest = results.setdefault(machine, {}), test_set.digest
        for path in sorted(each.glob("*.safetensors")):
            if (about := _metadata(path)).get("clips") == digest:
                found = _read(path)
                own |= {recipe: (found, row) for row, recipe in enumerate(found.recipes)}
                refused.setdefault(machine, []).extend(_recipes(about, "refused"))
                lost |= {name for _, name in _changed(about)}
    if lost:
        warnings.warn(
            f"{folder}: the results of {', '.join(sorted(lost))} are left out: plug-ins that are not registered here "
            "(nearfar --plugin MODULE ...), or whose code has changed since",
            stacklevel=2,
        )
    if not test_sets and lost:
        raise ValueError(f"{folder} holds no results beside those of plug-ins: register {', '.join(sorted(lost))}")
    if not test_sets:
        raise FileNotFoundError(f"{folder} holds no records of a search (`nearfar search DATA -o {folder}` makes them)")
    return _joined(folder, test_sets, results, {machine: each for machine, each in refused.items() if each})


def refusals(refused: Mapping[str, Sequence[Recipe]]) -> list[str]:
    """Why configurations were refused, a sentence for each machine."""
    out = []
    for machine, recipes in refused.items():
        r = recipes[0]
        first = f"{r.encoder}, low {r.low}, spike {r.spike}, pooling {r.pooling}, view {r.view}"
        out.append(
            f"{machine}: {plural(len(recipes), 'configuration')} refused, as all normals have the same vector, so "
            f"every clip would be normal; the first: {first}"
        )
    return out


def _joined(
    folder: str | os.PathLike[str],
    test_sets: Mapping[str, TestSet],
    results: Mapping[str, Mapping[Recipe, tuple[Results, int]]],
    refused: Mapping[str, Sequence[Recipe]],
) -> Records:
    """The configurations that all machines have."""
    first, *others = results.values()
    recipes = [recipe for recipe in first if all(recipe in other for other in others)]
    if not recipes and refused:
        raise ValueError(f"{folder}: {refusals(refused)[0]}")
    if not recipes:
        raise ValueError(f"{folder}: no configuration is recorded for all of {', '.join(results)}; finish the search")
    rows = {machine: [found[recipe] for recipe in recipes] for machine, found in results.items()}
    return Records(
        recipes,
        test_sets,
        np.stack([[part.numbers[i] for part, i in each] for each in rows.values()], axis=1),
        np.stack([[part.statistics[i] for part, i in each] for each in rows.values()], axis=1),
        {machine: np.stack([part.scores[i] for part, i in each]) for machine, each in rows.items()},
        refused,
    )


def write_table(records: Records, folder: str | os.PathLike[str]) -> Path:
    """The table of all configurations, as Parquet if pyarrow is installed, else as CSV; returns its path."""
    rows = records.rows()
    for name in MIXED:  # a column of Parquet has values of one kind
        kinds = {type(row[name]) for row in rows if row.get(name) is not None}
        for row in rows if len(kinds) > 1 or tuple in kinds else ():
            row[name] = _as_text(row.get(name))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        table = csv_text([columns, *([row.get(column) for column in columns] for row in rows)])
        return atomic_write(Path(folder) / f"{TABLE}.csv", table)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({c: [row.get(c) for row in rows] for c in columns}), sink)
    return atomic_write(Path(folder) / f"{TABLE}.parquet", sink.getvalue().to_pybytes())


def _as_text(value: Any) -> str | None:
    """A number, a word, or several layers, "6+9"."""
    return value if value is None else "+".join(map(str, value if isinstance(value, tuple) else (value,)))


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        about: dict[str, str] = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    return about


def _read(path: Path) -> Results:
    from safetensors.numpy import load_file

    x, about = load_file(path), _metadata(path)
    found = _parsed(about["recipes"], _changed(about))
    rows = list(found)
    return Results(list(found.values()), x["numbers"][rows], x["statistics"][rows], x["scores"][rows])


def _changed(about: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """(field, name) of the plug-ins of a file that are not registered here, or whose code is another now."""
    recorded: dict[str, dict[str, str]] = json.loads(about.get(USED, "{}"))
    return frozenset((f, n) for f, names in recorded.items() for n, v in names.items() if PLUGINS[f].version(n) != v)


def _recipes(about: Mapping[str, str], which: str) -> list[Recipe]:
    """The "recipes" or "refused" of a file whose plug-ins have not changed."""
    return list(_parsed(about.get(which, "[]"), _changed(about)).values())


@lru_cache(maxsize=512)
def _parsed(text: str, changed: frozenset[tuple[str, str]]) -> dict[int, Recipe]:
    """The recipes of a file by their row, without those that name a plug-in that has changed."""
    rows: list[dict[str, Any]] = json.loads(text)
    for row in rows:
        if isinstance(row.get("layer"), list):  # JSON has no tuples
            row["layer"] = tuple(row["layer"])
    return {i: Recipe(**row) for i, row in enumerate(rows) if all(row.get(field) != name for field, name in changed)}
