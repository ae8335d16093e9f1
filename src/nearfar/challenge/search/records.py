"""What a search found, on disk: every configuration, resumable, readable without audio.

    OUT/<encoder>/<machine>/clips.json              files of the machine, and what is known of the test clips
    OUT/<encoder>/<machine>/<setting>.safetensors   one setting: its configurations and their results
    OUT/configurations.parquet or .csv              the table: one row per configuration, written at the end

Columns of the table: the fields of the recipe (`encoder`, `view`, `low`, `spike`, `pooling`, `alpha`, `p`, `freq`,
`method`, `metric`, `k`, `density_k`, and those that differ from their defaults), `overall` (official score, in [0, 1]),
then for each machine `MACHINE.NAME` with NAME one of `auc_source`, `auc_target`, `pauc`, `omega` and of `STATISTICS`:

    mean, sd, q05 ... q99       exact leave-one-out scores of the training normals
    source_mean, target_mean    the same by domain (NaN without that domain)
    pseudo_auc                  AUC of the normals' leave-one-out scores against other machines' normals
    tail                        (q99 - q50) / (q50 - q05): how far the highest normals stand out
    stable                      rank correlation of the normals' distances to two halves of the bank

Parquet needs pyarrow; without it the table is CSV. A part is written whole or not at all, so a search that was stopped
goes on where it was.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.challenge.search.batch_metrics import harmonic
from nearfar.challenge.search.space import Setting, as_row
from nearfar.fusion import in_sigmas
from nearfar.recipe import Recipe
from nearfar.support.check import Array
from nearfar.support.files import atomic_write

NUMBERS = ("auc_source", "auc_target", "pauc")
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
STATISTICS = ("mean", "sd", *QUANTILES, "source_mean", "target_mean", "pseudo_auc", "tail", "stable")
CLIPS, TABLE = "clips.json", "configurations"


@dataclass(frozen=True)
class Part:
    """Results of some configurations on one machine: (C, 3), (C, len(STATISTICS)) and scores of its M test clips."""

    recipes: Sequence[Recipe]
    numbers: Array
    statistics: Array
    scores: Array

    def __add__(self, other: Part) -> Part:
        return Part(
            [*self.recipes, *other.recipes],
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.statistics, other.statistics]),
            np.concatenate([self.scores, other.scores]),
        )

    def take(self, rows: Sequence[int]) -> Part:
        """Some of the configurations."""
        at = np.asarray(rows, int)
        return Part([self.recipes[i] for i in rows], self.numbers[at], self.statistics[at], self.scores[at])


@dataclass(frozen=True)
class Clips:
    """Which files a machine's results are of, and `how` they were heard; labels and domains are None where unknown."""

    train: Sequence[str]
    test: Sequence[str]
    is_anomaly: Sequence[bool | None]
    is_target: Sequence[bool | None]
    how: str = ""

    @property
    def labelled(self) -> bool:
        """Whether the official metrics can be taken."""
        known = None not in self.is_anomaly and None not in self.is_target
        return known and any(self.is_anomaly) and not all(self.is_anomaly)

    @property
    def digest(self) -> str:
        """A hash of all of it and of what is recorded: results of other files or weights do not belong here."""
        return sha256(json.dumps([vars(self), STATISTICS]).encode()).hexdigest()


class Recorder:
    """Writes and finds the parts of one encoder and machine below `folder`."""

    def __init__(self, folder: str | os.PathLike[str], encoder: str, machine: str, clips: Clips) -> None:
        self.folder, self.clips = Path(folder) / encoder / machine, clips
        self._text = json.dumps(vars(clips), indent=1) + "\n"

    @property
    def begun(self) -> bool:
        """Whether the folder says that it is about these clips."""
        path = self.folder / CLIPS
        return path.exists() and path.read_text(encoding="utf-8") == self._text

    def begin(self) -> None:
        """Say which clips the folder is about."""
        atomic_write(self.folder / CLIPS, self._text)

    def missing(self, setting: Setting, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Those of the configurations of a setting that are not recorded for these clips."""
        done = set(self._done(setting))
        return [recipe for recipe in recipes if recipe not in done]

    def keep(self, setting: Setting, part: Part) -> None:
        """Record results of a setting, beside those that are there."""
        from safetensors.numpy import save

        if self._done(setting):
            part = _read(self._path(setting)) + part
        about = {
            "clips": self.clips.digest,
            "recipes": json.dumps([as_row(recipe) for recipe in part.recipes]),
        }
        arrays = {"numbers": part.numbers, "statistics": part.statistics, "scores": part.scores.astype(np.float32)}
        atomic_write(self._path(setting), save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, about))

    def _done(self, setting: Setting) -> Sequence[Recipe]:
        path = self._path(setting)
        return _recipes(path) if path.exists() and _about(path)["clips"] == self.clips.digest else ()

    def _path(self, setting: Setting) -> Path:
        return self.folder / f"{setting.name}.safetensors"


@dataclass(frozen=True)
class Records:
    """Configurations that are recorded for every machine: numbers (C, machines, 3), statistics, scores per machine."""

    recipes: Sequence[Recipe]
    clips: Mapping[str, Clips]
    numbers: Array
    statistics: Array
    scores: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.recipes)

    @property
    def machines(self) -> list[str]:
        """Names, in the order of the axes."""
        return list(self.clips)

    @property
    def labelled(self) -> bool:
        """Whether every machine's test clips are labelled."""
        return all(clips.labelled for clips in self.clips.values())

    @cached_property
    def overall(self) -> Array:
        """The official score (C,) in [0, 1], NaN without labels."""
        return harmonic(self.numbers)

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
        """The table."""
        omega = np.stack([harmonic(self.numbers[:, m]) for m in range(len(self.machines))], axis=1)
        out = []
        for i, recipe in enumerate(self.recipes):
            row = as_row(recipe) | {"overall": float(self.overall[i])}
            for m, machine in enumerate(self.machines):
                named = dict(zip(NUMBERS, self.numbers[i, m], strict=True)) | {"omega": omega[i, m]}
                named |= dict(zip(STATISTICS, self.statistics[i, m], strict=True))
                row |= {f"{machine}.{name}": float(value) for name, value in named.items()}
            out.append(row)
        return out


def read(folder: str | os.PathLike[str], encoders: Sequence[str] = (), machines: Sequence[str] = ()) -> Records:
    """What a search left in `folder`, of all encoders and machines or of some.

    Raises FileNotFoundError if it is no search's folder, ValueError if no configuration is recorded for every machine.
    """
    found: dict[str, dict[Recipe, tuple[Part, int]]] = {}
    clips: dict[str, Clips] = {}
    for path in sorted(Path(folder).glob(f"*/*/{CLIPS}")):
        encoder, machine = path.parent.parent.name, path.parent.name
        if (encoders and encoder not in encoders) or (machines and machine not in machines):
            continue
        mine = Clips(**json.loads(path.read_text(encoding="utf-8")))
        if clips.setdefault(machine, mine).test != mine.test:
            raise ValueError(f"{path}: another encoder's results for {machine} are of other test clips; search anew")
        for file in sorted(path.parent.glob("*.safetensors")):
            if _about(file)["clips"] == mine.digest:
                part = _read(file)
                found.setdefault(machine, {}).update((r, (part, i)) for i, r in enumerate(part.recipes))
    if machines and (lacking := sorted(set(machines) - set(clips))) and (there := _machines(folder, encoders)):
        raise ValueError(f"no machine {', '.join(lacking)} in the search {folder}; it has {', '.join(there)}")
    if not clips:
        raise FileNotFoundError(f"{folder} holds no records of a search (`nearfar search DATA -o {folder}` makes them)")
    first = found.get(next(iter(clips)), {})
    recipes = [r for r in first if all(r in found.get(machine, {}) for machine in clips)]
    if not recipes:
        raise ValueError(f"{folder}: no configuration is recorded for all of {', '.join(clips)}; finish the search")
    each = {m: [found[m][r] for r in recipes] for m in clips}
    return Records(
        recipes,
        clips,
        np.stack([[part.numbers[i] for part, i in each[m]] for m in clips], axis=1),
        np.stack([[part.statistics[i] for part, i in each[m]] for m in clips], axis=1),
        {m: np.stack([part.scores[i] for part, i in each[m]]) for m in clips},
    )


def _machines(folder: str | os.PathLike[str], encoders: Sequence[str]) -> list[str]:
    files = Path(folder).glob(f"*/*/{CLIPS}")
    return sorted({p.parent.name for p in files if not encoders or p.parent.parent.name in encoders})


def write_table(records: Records, folder: str | os.PathLike[str]) -> Path:
    """The table of all configurations, as Parquet if pyarrow is installed, else as CSV; returns its path."""
    rows = records.rows()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return atomic_write(Path(folder) / f"{TABLE}.csv", text.getvalue())
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({c: [row.get(c) for row in rows] for c in columns}), sink)
    return atomic_write(Path(folder) / f"{TABLE}.parquet", sink.getvalue().to_pybytes())


def _about(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        about: dict[str, str] = file.metadata()
    return about


def _recipes(path: Path) -> Sequence[Recipe]:
    return _parsed(_about(path)["recipes"])


def _read(path: Path) -> Part:
    from safetensors.numpy import load_file

    x = load_file(path)
    return Part(_recipes(path), x["numbers"], x["statistics"], x["scores"])


@lru_cache(maxsize=512)
def _parsed(text: str) -> tuple[Recipe, ...]:
    return tuple(Recipe(**row) for row in json.loads(text))
