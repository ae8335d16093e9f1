"""Official metrics of a system on a data set: fit on each machine's train clips, score its test clips (report 3).

No score depends on the rest of the test set: the detector scores each clip alone, and the labels stay with the
recording. Every section of a machine (2020 to 2022) has a detector of its own; the overall score follows the rules of
the data set's year (`layout.RULES`).

`ScoreCache` keeps the scores of a system on disk, so that no clip is scored twice:

    FOLDER/<system>-<unit>-<first digits of the key>.json    {"train": {file: score}, "test": {...}, "failures": [...]}

The key is a hash of all that a score depends on: version, recipe, hash of the weights, channels, rounding of the store,
and name, size and time of every recording. Train scores are exact leave-one-out, so the scores of a fusion follow from
those of its systems: in standard deviations of the normals each, weighted, and aligned once more (eq. 17-18).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.audio.recordings import Recording
from nearfar.challenge.data.layout import LATEST, RULES, DataSet, Unit, read
from nearfar.detector import Detector
from nearfar.embedding.store import Store
from nearfar.encoders import PRECISIONS, Encoder
from nearfar.encoders.loading import load_encoders, weights_in
from nearfar.fusion import align, check_weights
from nearfar.metrics import Interval, MachineResult, bootstrap, machine, overall
from nearfar.recipe import System, as_data, leaves
from nearfar.score import Score
from nearfar.support.check import integer, one_of
from nearfar.support.files import atomic_write, file_fingerprint
from nearfar.support.progress import Progress, titled

FORMAT = 1  # of a file of `ScoreCache`


@dataclass(frozen=True)
class MachineEvaluation:
    """One machine: its fitted detector, one score per test clip, and the official numbers (None without labels).

    `name` includes the section where the machine has several, and the domain in 2021. `error` is the reason why the
    machine could not be evaluated, else "".
    """

    name: str
    detector: Detector
    recordings: Sequence[Recording]
    scores: Sequence[Score]
    failures: Sequence[tuple[str, str]]
    result: MachineResult | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    machine: str = ""
    section: str = "00"
    unscored: Sequence[str] = ()  # names of the test clips that could not be used
    error: str = ""

    @property
    def labelled(self) -> bool:
        """True if every test clip is known to be normal or anomalous."""
        return bool(self.recordings) and all(r.is_anomaly is not None for r in self.recordings)


@dataclass(frozen=True)
class Evaluation:
    """All machines of a data set, and the official score of those with labels (NaN if there are none)."""

    machines: Sequence[MachineEvaluation]
    overall: float
    interval: Interval | None
    rules: str = LATEST
    notes: Sequence[str] = ()

    @property
    def failed(self) -> bool:
        """True if a recording or a whole machine could not be used."""
        return any(m.failures or m.error for m in self.machines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; every number in [0, 1]."""
        return {
            "overall": None if np.isnan(self.overall) else self.overall,
            "interval": vars(self.interval) if self.interval else None,
            "rules": RULES[self.rules],
            "notes": list(self.notes),
            "machines": {m.name: _machine_dict(m) for m in self.machines},
        }


def evaluate(
    data: str | os.PathLike[str],
    system: System | str | None = None,
    weights: Any = None,
    *,
    truth: str | os.PathLike[str] | None = None,
    only: Sequence[str] = (),
    near: int = 0,
    far: int | None = 1,
    false_alarm_rate: float | None = None,
    method: str = "conformal",
    threads: int | None = None,
    precision: str = "float32",
    store: Store | None = None,
    rounds: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a system (a recipe's name, or None for the default) on DATA/<machine>/{train,test}.

    `truth` holds ground-truth CSVs of evaluation files; `progress` is called after every clip; `rounds` and
    `seed` are those of the bootstrap; set-points and `store` as in `Detector`. A machine that cannot be evaluated is
    reported beside the others; if none can, its error is raised.
    """
    integer("rounds", rounds)
    found = read(data, truth, only)
    done: list[MachineEvaluation] = []
    errors: list[Exception] = []
    for unit in found.units:
        detector = Detector(
            system,
            weights,
            near=near,
            far=far,
            false_alarm_rate=false_alarm_rate,
            method=method,
            threads=threads,
            precision=precision,
            store=store,
        )
        try:
            done.append(evaluate_unit(unit, _with_encoders_of(done[-1].detector if done else None, detector), progress))
        except (ValueError, OSError) as error:
            errors.append(error)
            unscored, why = [r.name for r in unit.test], str(error).removeprefix(f"{unit.name}: ")
            nothing = MachineEvaluation(unit.name, detector, [], [], [], machine=unit.machine, section=unit.section)
            done.append(replace(nothing, unscored=unscored, error=why))
    if len(errors) == len(done):
        raise errors[0]
    return _with_metrics(done, found, rounds, seed)


def _with_encoders_of(other: Detector | None, detector: Detector) -> Detector:
    """The detector, with the networks that another detector of the same system has loaded."""
    if other is not None and other.loaded_encoders is not None and not other.by_default:
        detector.use_encoders(other.loaded_encoders)
    return detector


def evaluate_unit(unit: Unit, detector: Detector, progress: Progress | None = None) -> MachineEvaluation:
    """Fit the detector on the unit's train clips and score its test clips."""
    failures: list[tuple[str, str]] = []

    def skip(file: str, error: Exception) -> None:
        failures.append((file, str(error)))

    train, test = unit.train, unit.test
    domains = [bool(r.is_target) for r in train] if any(r.is_target for r in train) else None
    try:
        detector.fit(
            [r.path for r in train], domains, skip=skip, progress=titled(progress, f"{unit.name}: normals"), copies=True
        )
    except ValueError as error:
        why = f"; the first that was left out: {failures[0][1]}" if failures else ""
        raise ValueError(f"{unit.name}: {error}{why}") from None
    paths = [r.path for r in test]
    pairs = [  # a long file has a score per window: the highest counts
        (recording, max(scores, key=lambda s: s.score))
        for recording, scores in zip(
            test,
            detector.iter_scores(paths, skip=skip, progress=titled(progress, f"{unit.name}: test clips")),
            strict=True,
        )
        if scores
    ]
    recordings, scored = [r for r, _ in pairs], [s for _, s in pairs]
    unscored = sorted({r.name for r in test} - {r.name for r in recordings})
    return MachineEvaluation(
        unit.name, detector, recordings, scored, failures, None, {}, unit.machine, unit.section, unscored
    )


def _with_metrics(done: Sequence[MachineEvaluation], found: DataSet, rounds: int, seed: int) -> Evaluation:
    """The machines with their official numbers and intervals, and the official score by the rules of the year."""
    if found.rules == "2021":
        done = [part for m in done for part in _by_domain(m)]
    labelled = {m.name: _columns(m) for m in done if m.labelled}
    one_kind = [name for name, (_, is_anomaly, _) in labelled.items() if len(set(is_anomaly)) < 2]
    notes = [
        *found.notes,
        *(f"{name}: its test clips are all normal or all anomalous, so there is no AUC" for name in one_kind),
    ]
    labelled = {name: columns for name, columns in labelled.items() if name not in one_kind}
    results = {name: machine(*columns) for name, columns in labelled.items()}
    arithmetic = found.rules == "2020"
    intervals, total = bootstrap(labelled, rounds=rounds, seed=seed, arithmetic=arithmetic) if labelled else ({}, None)
    return Evaluation(
        [replace(m, result=results.get(m.name), intervals=intervals.get(m.name, {})) for m in done],
        overall(results, arithmetic=arithmetic) if results else float("nan"),
        total,
        found.rules,
        notes,
    )


def _by_domain(m: MachineEvaluation) -> Iterator[MachineEvaluation]:
    """The rules of 2021: the test clips of each domain by themselves."""
    for domain, is_target in (("source", False), ("target", True)):
        mine = [(r, s) for r, s in zip(m.recordings, m.scores, strict=True) if bool(r.is_target) is is_target]
        if mine or (m.error and not is_target):
            recordings, scores = [r for r, _ in mine], [s for _, s in mine]
            failures = [] if is_target else m.failures  # reported once
            yield replace(m, name=f"{m.name} {domain}", recordings=recordings, scores=scores, failures=failures)


def _columns(m: MachineEvaluation) -> tuple[list[float], list[bool], list[bool]]:
    scores = [s.score for s in m.scores]
    return scores, [bool(r.is_anomaly) for r in m.recordings], [bool(r.is_target) for r in m.recordings]


def _machine_dict(m: MachineEvaluation) -> dict[str, Any]:
    numbers = None
    if m.result is not None:
        values = {key: getattr(m.result, key) for key in ("auc_source", "auc_target", "pauc", "omega")}
        numbers = {key: None if np.isnan(value) else value for key, value in values.items()}
    return {
        "result": numbers,
        "intervals": {key: _between(value) for key, value in m.intervals.items()},
        "train": len(m.detector.normals),
        "test": len(m.scores),
        "failures": [{"file": file, "error": error} for file, error in m.failures],
        "error": m.error,
        "why": m.detector.why,
    }


def _between(interval: Interval) -> dict[str, float | None]:
    return {key: None if np.isnan(value) else value for key, value in vars(interval).items()}


@dataclass(frozen=True)
class Scored:
    """Scores by file name, leave-one-out (`train`) and `test`; the files that could not be used, with the reasons."""

    train: Mapping[str, float]
    test: Mapping[str, float]
    failures: Sequence[tuple[str, str]] = ()


@dataclass
class ScoreCache:
    """Scores systems on units and keeps the scores in `folder`; the other fields are those of `Detector`.

    `weights`: a folder, {encoder name: file}, or None for the user's own folder.
    """

    folder: Path
    weights: Any = None
    store: Store | None = None
    near: int = 0
    far: int | None = 1
    threads: int | None = None
    precision: str = "float32"
    progress: Progress | None = None

    def __post_init__(self) -> None:
        one_of("precision", self.precision, PRECISIONS)

    def each(self, name: str, system: System | None, units: Sequence[Unit]) -> Iterator[tuple[Unit, Scored]]:
        """The scores of a system (None: the default) on every unit, from the folder where they are kept.

        The networks are loaded when the first score is missing. Raises FileNotFoundError, which says how to get them,
        for missing weights; otherwise as `encoders.load` does.
        """
        names = sorted({leaf.encoder for leaf in leaves(system)}) if system is not None else []
        hashes = {n: str(known) for n, known in weights_in(names, self.weights, self.precision).items()}
        encoders: dict[str, Encoder] | None = None
        for unit in units:
            path = self.folder / f"{name}-{unit.name.replace(' ', '-')}-{self._key(system, hashes, unit)}.json"
            scored = _read(path)
            if scored is None:
                if encoders is None:
                    encoders = load_encoders(hashes, self.weights, threads=self.threads, precision=self.precision)
                try:
                    scored = self._score(unit, self._detector(system, encoders), name)
                except (ValueError, OSError) as error:  # of this machine alone: the others are scored
                    yield unit, Scored({}, {}, [(unit.name, str(error))])
                    continue
                atomic_write(path, json.dumps(asdict(scored), indent=1))
            yield unit, scored

    def _detector(self, system: System | None, encoders: dict[str, Encoder]) -> Detector:
        detector = Detector(system, near=self.near, far=self.far, threads=self.threads, store=self.store)
        if system is not None:
            detector.use_encoders(encoders)
        return detector

    def _score(self, unit: Unit, detector: Detector, name: str) -> Scored:
        done = evaluate_unit(unit, detector, titled(self.progress, f"{name},"))
        names = [normal.name for normal in detector.normals]
        train = {n: float(v) for n, v in zip(names, detector.train_values, strict=True)}
        test = {r.path.name: s.score for r, s in zip(done.recordings, done.scores, strict=True)}
        return Scored(train, test, done.failures)

    def _key(self, system: System | None, hashes: Mapping[str, str], unit: Unit) -> str:
        files = sorted((r.split, r.path.name, *file_fingerprint(r.path)) for r in [*unit.train, *unit.test])
        recipe = None if system is None else as_data(system)
        rounded = self.store.dtype if self.store else "float32"
        parts = [FORMAT, version("nearfar"), recipe, sorted(hashes.items()), self.near, self.far, rounded, files]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def fused(parts: Sequence[tuple[float, Scored]]) -> Scored:
    """The scores of a fusion on one unit, from (weight, scores) of its systems, for the clips that all could use."""
    weights = check_weights([weight for weight, _ in parts], len(parts))
    columns = []
    for split in ("train", "test"):
        names = [n for n in getattr(parts[0][1], split) if all(n in getattr(s, split) for _, s in parts)]
        # the scores are aligned already: this changes digits only where a clip is missing from one of the systems
        aligned = [align(list(s.train.values()), [getattr(s, split)[n] for n in names]) for _, s in parts]
        columns.append((names, np.tensordot(weights, np.stack(aligned), axes=1)))
    (train_names, train), (test_names, test) = columns
    failures = list(dict.fromkeys(f for _, s in parts for f in s.failures))
    return Scored(
        dict(zip(train_names, align(train, train).tolist(), strict=True)),
        dict(zip(test_names, align(train, test).tolist(), strict=True)),
        failures,
    )


def _read(path: Path) -> Scored | None:
    """The scores in the file at `path`; None if there is no file, or a damaged one."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        train, test = ({str(n): float(v) for n, v in kept[split].items()} for split in ("train", "test"))
        return Scored(train, test, [(str(f), str(e)) for f, e in kept["failures"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
