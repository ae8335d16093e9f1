"""Official metrics of a system on a data set: fit on each machine's train clips, score its test clips (report 3).

Nothing of the test set enters a score: every clip goes through the detector alone, and its recording with the labels
travels beside its score. Sections of a machine (2020 to 2022) have a detector each; the overall score is taken by the
rules of the data set's year (`layout.RULES`).
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
from nearfar.challenge.data.layout import LATEST, RULES, Unit, read
from nearfar.detector import Detector
from nearfar.embedding.store import Store
from nearfar.encoders import PRECISIONS, Encoder
from nearfar.encoders.loading import hashes_of, load_encoders
from nearfar.fusion import align, check_weights
from nearfar.metrics import Interval, MachineResult, bootstrap, machine, overall
from nearfar.recipe import System, as_data, leaves
from nearfar.score import Score
from nearfar.support.check import integer, one_of
from nearfar.support.files import atomic_write, file_fingerprint
from nearfar.support.progress import Progress, titled


@dataclass(frozen=True)
class MachineEvaluation:
    """One machine: its fitted detector, one score per test clip, and (None without labels) the official numbers.

    `name` says the section too where the machine has several, and in 2021 the domain; `error` is why the machine could
    not be evaluated at all.
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
            done.append(run(unit, with_encoders_of(done[-1].detector if done else None, detector), progress))
        except (ValueError, OSError) as error:
            errors.append(error)
            nothing = MachineEvaluation(unit.name, detector, [], [], [], None, {}, unit.machine, unit.section)
            why = str(error).removeprefix(f"{unit.name}: ")
            done.append(replace(nothing, unscored=[r.name for r in unit.test], error=why))
    if len(errors) == len(done):
        raise errors[0]
    return judged(done, found.rules, rounds=rounds, seed=seed, notes=found.notes)


def with_encoders_of(other: Detector | None, detector: Detector) -> Detector:
    """The detector, with the networks that another of the same system has loaded."""
    if other is not None and "encoders" in vars(other) and not other.by_default:
        detector.encoders = other.encoders
    return detector


def run(unit: Unit, detector: Detector, progress: Progress | None = None) -> MachineEvaluation:
    """Fit the detector on the unit's train clips and score its test clips."""
    failures: list[tuple[str, str]] = []

    def skip(file: str, error: Exception) -> None:
        failures.append((file, str(error)))

    train, test = unit.train, unit.test
    domains = [bool(r.is_target) for r in train] if any(r.is_target for r in train) else None
    try:
        detector.fit([r.path for r in train], domains, skip=skip, progress=titled(progress, f"{unit.name}: normals"))
    except ValueError as error:
        why = f"; the first that was left out: {failures[0][1]}" if failures else ""
        raise ValueError(f"{unit.name}: {error}{why}") from None
    paths = [r.path for r in test]
    pairs = [  # the rarest window stands for a long file
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


def judged(
    done: Sequence[MachineEvaluation],
    rules: str = LATEST,
    *,
    rounds: int = 1000,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Evaluation:
    """The machines with their official numbers and intervals, and the official score by the rules of the year."""
    if rules == "2021":
        done = [part for m in done for part in _by_domain(m)]
    labelled = {m.name: _columns(m) for m in done if m.labelled}
    alike = [name for name, (_, is_anomaly, _) in labelled.items() if len(set(is_anomaly)) < 2]
    notes = [*notes, *(f"{name}: its test clips are all normal or all anomalous, so there is no AUC" for name in alike)]
    labelled = {name: columns for name, columns in labelled.items() if name not in alike}
    results = {name: machine(*columns) for name, columns in labelled.items()}
    plain = rules == "2020"
    intervals, total = bootstrap(labelled, rounds=rounds, seed=seed, arithmetic=plain) if labelled else ({}, None)
    return Evaluation(
        [replace(m, result=results.get(m.name), intervals=intervals.get(m.name, {})) for m in done],
        overall(results, arithmetic=plain) if results else float("nan"),
        total,
        rules,
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


# Scores of a system on a unit of a data set, kept on disk: what was scored once is not scored again.
#
#     FOLDER/<unit>-<first digits of the key>.json    {"train": {file: score}, "test": {file: score}, "failures": [...]}
#
# The key is a hash of all that a score depends on: version, recipe, hash of the weights, channels, rounding of the
# store,
# and name, size and time of every recording. Train scores are exact leave-one-out, so a fusion of systems follows from
# what is kept: in standard deviations of the normals each, weighted, and aligned once more (eq. 17-18).
#

FORMAT = 1


@dataclass(frozen=True)
class Scored:
    """Scores by file name: `train` leave-one-out, `test`; and the files that could not be used, with the reasons."""

    train: Mapping[str, float]
    test: Mapping[str, float]
    failures: Sequence[tuple[str, str]] = ()


@dataclass
class ScoreCache:
    """Runs systems on units and keeps what they give in `folder`; the other fields are those of `Detector`.

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

    def hashes(self, system: System | None) -> dict[str, str]:
        """Hashes of the weights of a system's networks (None: the default, which has none) and precision, by name.

        Raises FileNotFoundError that says how to get the weights.
        """
        names = sorted({leaf.encoder for leaf in leaves(system)}) if system is not None else []
        return hashes_of(names, self.weights, self.precision)

    def each(
        self, name: str, system: System | None, hashes: Mapping[str, str], units: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Scored]]:
        """The scores of a system with these weights on every unit, from the folder where they are there.

        The networks are loaded when a score is wanted that is not there. Raises as `encoders.load` does.
        """
        encoders: dict[str, Encoder] | None = None
        for unit in units:
            path = self.folder / f"{name}-{unit.name.replace(' ', '-')}-{self._key(system, hashes, unit)}.json"
            known = _read(path)
            if known is None:
                if encoders is None:
                    encoders = load_encoders(hashes, self.weights, threads=self.threads, precision=self.precision)
                try:
                    known = self._run(unit, self._detector(system, encoders), name)
                except (ValueError, OSError) as error:  # this machine's own trouble; the others go through
                    yield unit, Scored({}, {}, [(unit.name, str(error))])
                    continue
                atomic_write(path, json.dumps(asdict(known), indent=1))
            yield unit, known

    def _detector(self, system: System | None, encoders: dict[str, Encoder]) -> Detector:
        detector = Detector(system, near=self.near, far=self.far, threads=self.threads, store=self.store)
        if system is not None:
            detector.encoders = encoders
        return detector

    def _run(self, unit: Unit, detector: Detector, name: str) -> Scored:
        done = run(unit, detector, titled(self.progress, f"{name},"))
        names = [normal.name for normal in detector.normals]
        train = {n: float(v) for n, v in zip(names, detector.train_values, strict=True)}
        return Scored(
            train, {r.path.name: s.score for r, s in zip(done.recordings, done.scores, strict=True)}, done.failures
        )

    def _key(self, system: System | None, hashes: Mapping[str, str], unit: Unit) -> str:
        files = sorted((r.split, r.path.name, *file_fingerprint(r.path)) for r in [*unit.train, *unit.test])
        recipe = None if system is None else as_data(system)
        rounded = self.store.dtype if self.store else "float32"
        parts = [FORMAT, version("nearfar"), recipe, sorted(hashes.items()), self.near, self.far, rounded, files]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def fused(parts: Sequence[tuple[float, Scored]]) -> Scored:
    """The fusion of systems on one unit, (weight, scores) each, over the clips that all of them could use."""
    weights = check_weights([weight for weight, _ in parts], len(parts))
    columns = []
    for split in ("train", "test"):
        names = [n for n in getattr(parts[0][1], split) if all(n in getattr(s, split) for _, s in parts)]
        aligned = [
            align(list(s.train.values()), [getattr(s, split)[n] for n in names]) for _, s in parts
        ]  # each is in standard deviations already, to rounding, if no clip fell out
        columns.append((names, np.tensordot(weights, np.stack(aligned), axes=1)))
    (train_names, train), (test_names, test) = columns
    failures = list(dict.fromkeys(f for _, s in parts for f in s.failures))
    return Scored(
        dict(zip(train_names, align(train, train).tolist(), strict=True)),
        dict(zip(test_names, align(train, test).tolist(), strict=True)),
        failures,
    )


def _read(path: Path) -> Scored | None:
    """What is kept at `path`; None if nothing is, or if it is damaged."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        train, test = ({str(n): float(v) for n, v in said[split].items()} for split in ("train", "test"))
        return Scored(train, test, [(str(f), str(e)) for f, e in said["failures"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
