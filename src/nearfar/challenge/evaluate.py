"""Official metrics of a system on a data set: fit on each machine's train clips, score its test clips (report 3).

    evaluate     fit and score every unit of a data set, then compute the official metrics
    ScoreCache   the scores of several systems alone, kept on disk, so that no clip is scored twice
    fuse_units   the scores of a fusion from the cached scores of its systems (eq. 17-18)

A unit is one section of one machine and has a detector of its own. No score depends on the rest of the test set: the
detector scores each clip alone, and the labels stay with the recording. The official score follows the rules of the
data set's year (`layout.RULES`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.audio.recordings import Recording
from nearfar.challenge.data.layout import LATEST, RULES, DataSet, Unit, read
from nearfar.detector import Detector
from nearfar.detector.detector import DetectorOptions
from nearfar.encoders import PRECISIONS, Encoder
from nearfar.encoders.loading import identity, load_encoders, weights_in
from nearfar.encoders.table import NetworkOptions
from nearfar.fusion import align, check_weights
from nearfar.metrics import (
    Comparison,
    Decisions,
    Interval,
    MachineResult,
    bootstrap,
    compare,
    decisions,
    machine,
    overall,
)
from nearfar.recipe import System, as_data, leaves, plugin_versions
from nearfar.score import Score
from nearfar.support.check import integer, one_of
from nearfar.support.files import atomic_write, file_fingerprint
from nearfar.support.progress import Progress, titled

if TYPE_CHECKING:
    from typing_extensions import Unpack

FORMAT = 1  # of the files of `ScoreCache`


@dataclass(frozen=True)
class MachineEvaluation:
    """One unit: its detector, the test clips that were scored with their scores, and the official numbers.

    name       of the unit; in 2021 with the domain
    failures   (file, reason) of train and test clips that could not be used
    result     None without labels
    unscored   names of the test clips without a score
    error      the reason why the unit could not be evaluated, else ""
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
    unscored: Sequence[str] = ()
    error: str = ""

    @property
    def decisions(self) -> dict[str, Decisions]:
        """Precision, recall and F1 at the set-point by domain, if every test clip is labelled."""
        if not self.labelled:
            return {}
        _, is_anomaly, is_target = _columns(self)
        return decisions([bool(s.anomalous) for s in self.scores], is_anomaly, is_target)

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
            "interval": self.interval and self.interval.to_dict(),
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
    rounds: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Unpack[DetectorOptions],
) -> Evaluation:
    """Evaluate a system (a recipe's name, or None for the default) on DATA/<machine>/{train,test}.

    truth          ground-truth CSVs of evaluation files
    only           names of the machines; () for all
    rounds, seed   of the bootstrap

    The `options` are those of `Detector`. The result has the error of a unit that cannot be evaluated; if no
    unit can, the first error is raised.
    """
    integer("rounds", rounds)
    data_set = read(data, truth, only)
    evaluations: list[MachineEvaluation] = []
    errors: list[Exception] = []
    for unit in data_set.units:
        detector = Detector(system, weights, calibration="clips", **options)
        if evaluations:
            _share_encoders(evaluations[-1].detector, detector)
        try:
            evaluations.append(evaluate_unit(unit, detector, progress))
        except (ValueError, OSError) as error:
            errors.append(error)
            why, unscored = str(error).removeprefix(f"{unit.name}: "), [r.name for r in unit.test]
            evaluations.append(
                MachineEvaluation(
                    unit.name, detector, [], [], [],
                    machine=unit.machine, section=unit.section, unscored=unscored, error=why,
                )
            )  # fmt: skip
    if len(errors) == len(evaluations):
        raise errors[0]
    return _with_metrics(evaluations, data_set, rounds, seed)


def compare_evaluations(a: Evaluation, b: Evaluation, *, rounds: int = 1000, seed: int = 0) -> Comparison:
    """Paired bootstrap of two systems on the labelled clips that both have scored.

    Raises ValueError if there are none, or if the rules of the year are not those of 2022 and later.
    """
    if a.rules in ("2020", "2021"):
        raise ValueError(f"systems are compared by the rules of 2022 and later, not by those of {a.rules}")
    scores = {m.name: {r.name: s.score for r, s in zip(m.recordings, m.scores, strict=True)} for m in b.machines}
    pairs = {}
    for m in a.machines:
        other = scores.get(m.name, {})
        rows = [i for i, r in enumerate(m.recordings) if r.name in other]
        if m.result is not None and rows:
            mine, is_anomaly, is_target = ([column[i] for i in rows] for column in _columns(m))
            pairs[m.name] = mine, [other[m.recordings[i].name] for i in rows], is_anomaly, is_target
    if not pairs:
        raise ValueError("there is nothing to compare: the two systems share no machine whose test clips are labelled")
    return compare(pairs, rounds=rounds, seed=seed)


def known_facts(evaluation: Evaluation) -> list[dict[str, str]]:
    """What is known of each test clip that has a score, in their order; "" where a value is unknown."""
    return [
        {"machine": m.machine, "section": m.section, "domain": r.domain, "label": r.label, "attributes": r.attributes}
        for m in evaluation.machines
        for r in m.recordings
    ]


def _share_encoders(fitted: Detector, detector: Detector) -> None:
    """Let a detector use the networks that `fitted`, of the same system, has loaded."""
    if fitted.loaded_encoders is not None and not fitted.by_default:
        detector.use_encoders(fitted.loaded_encoders)


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
        if len(failures) == len(train) and len({why for _, why in failures}) == 1:
            raise ValueError(f"{unit.name}: none of its normals can be used: {failures[0][1]}") from None
        why = f"; the first that was left out: {failures[0][1]}" if failures else ""
        raise ValueError(f"{unit.name}: {error}{why}") from None
    reading = titled(progress, f"{unit.name}: test clips")
    windows = detector.iter_scores([r.path for r in test], skip=skip, progress=reading)  # a list of scores per file
    scores = {r: max(each, key=lambda s: s.score) for r, each in zip(test, windows, strict=True) if each}
    return MachineEvaluation(
        unit.name,
        detector,
        list(scores),
        list(scores.values()),
        failures,
        machine=unit.machine,
        section=unit.section,
        unscored=sorted({r.name for r in test} - {r.name for r in scores}),
    )


def _with_metrics(evaluations: Sequence[MachineEvaluation], data_set: DataSet, rounds: int, seed: int) -> Evaluation:
    """The units with their official numbers and intervals, and the official score by the rules of the year."""
    if data_set.rules == "2021":
        evaluations = [part for m in evaluations for part in _by_domain(m)]
    labelled = {m.name: _columns(m) for m in evaluations if m.labelled}
    one_kind = [name for name, (_, is_anomaly, _) in labelled.items() if len(set(is_anomaly)) < 2]
    notes = [
        *data_set.notes,
        *(f"{name}: its test clips are all normal or all anomalous, so there is no AUC" for name in one_kind),
    ]
    labelled = {name: columns for name, columns in labelled.items() if name not in one_kind}
    results = {name: machine(*columns) for name, columns in labelled.items()}
    arithmetic = data_set.rules == "2020"
    intervals, interval = (
        bootstrap(labelled, rounds=rounds, seed=seed, arithmetic=arithmetic) if labelled else ({}, None)
    )
    return Evaluation(
        [replace(m, result=results.get(m.name), intervals=intervals.get(m.name, {})) for m in evaluations],
        overall(results, arithmetic=arithmetic) if results else float("nan"),
        interval,
        data_set.rules,
        notes,
    )


def _by_domain(m: MachineEvaluation) -> Iterator[MachineEvaluation]:
    """An evaluation for each domain with test clips; failures and an error stay with the first one."""
    for domain, is_target in (("source", False), ("target", True)):
        mine = [(r, s) for r, s in zip(m.recordings, m.scores, strict=True) if bool(r.is_target) is is_target]
        if mine or (m.error and not is_target):
            recordings, scores = [r for r, _ in mine], [s for _, s in mine]
            failures = [] if is_target else m.failures
            yield replace(m, name=f"{m.name} {domain}", recordings=recordings, scores=scores, failures=failures)


def _columns(m: MachineEvaluation) -> tuple[list[float], list[bool], list[bool]]:
    """Scores, is_anomaly, is_target, as `metrics.machine` takes them."""
    scores = [s.score for s in m.scores]
    return scores, [bool(r.is_anomaly) for r in m.recordings], [bool(r.is_target) for r in m.recordings]


def _machine_dict(m: MachineEvaluation) -> dict[str, Any]:
    return {
        "result": m.result and m.result.to_dict(),
        "decisions": {domain: vars(each) for domain, each in m.decisions.items()},
        "intervals": {key: interval.to_dict() for key, interval in m.intervals.items()},
        "train": len(m.detector.normals),
        "test": len(m.scores),
        "failures": [{"file": file, "error": error} for file, error in m.failures],
        "error": m.error,
        "why": m.detector.why,
    }


@dataclass(frozen=True)
class UnitScores:
    """Scores of a unit by file name: `train` leave-one-out, `test`; (file, reason) of those that could not be used."""

    train: Mapping[str, float]
    test: Mapping[str, float]
    failures: Sequence[tuple[str, str]] = ()


class ScoreCache:
    """Scores systems on units and keeps the scores in `folder`; the `options` are those of `Detector`.

        FOLDER/<system>-<unit>-<key>.json    {"train": {file: score}, "test": {file: score}, "failures": [...]}

    The key is a hash of all that a score depends on: version, recipe, weights, code of plug-ins, channels, rounding of
    the store, and name, size and time of every recording.
    """

    def __init__(
        self, folder: Path, weights: Any = None, progress: Progress | None = None, **options: Unpack[DetectorOptions]
    ) -> None:
        self.folder, self.weights, self.progress, self.options = folder, weights, progress, options
        self.networks: NetworkOptions = {
            "device": options.get("device", "cpu"),
            "threads": options.get("threads"),
            "precision": one_of("precision", options.get("precision", "float32"), PRECISIONS),
            "batch": options.get("batch"),
        }

    def scores(self, name: str, system: System | None, units: Sequence[Unit]) -> Iterator[tuple[Unit, UnitScores]]:
        """The scores of a system (None: the default) on every unit, read from the folder or computed and kept there.

        A unit that cannot be scored has no scores and its error as the only failure. The networks are loaded when the
        first file is missing; raises as `encoders.load` does, so FileNotFoundError for missing weights.
        """
        names = sorted({leaf.encoder for leaf in leaves(system)}) if system is not None else []
        found = weights_in(names, self.weights, self.networks["precision"], self.networks["device"])
        hashes = {encoder: identity(encoder, weights) for encoder, weights in found.items()}
        encoders: dict[str, Encoder] = {}
        for unit in units:
            path = self.folder / f"{name}-{unit.name.replace(' ', '-')}-{self._key(system, hashes, unit)}.json"
            scores = _read(path)
            if scores is None:
                encoders = encoders or load_encoders(names, self.weights, **self.networks)
                detector = Detector(system, calibration="clips", **self.options)
                if system is not None:
                    detector.use_encoders(encoders)
                try:
                    scores = _unit_scores(evaluate_unit(unit, detector, titled(self.progress, f"{name},")))
                except (ValueError, OSError) as error:
                    yield unit, UnitScores({}, {}, [(unit.name, str(error))])
                    continue
                atomic_write(path, json.dumps(asdict(scores), indent=1))
            yield unit, scores

    def _key(self, system: System | None, hashes: Mapping[str, str], unit: Unit) -> str:
        files = sorted((r.split, r.path.name, *file_fingerprint(r.path)) for r in [*unit.train, *unit.test])
        recipe = None if system is None else as_data(system)
        store, near, far = self.options.get("store"), self.options.get("near", 0), self.options.get("far", 1)
        dtype = store.dtype if store else "float32"
        plugins = {} if system is None else plugin_versions(leaves(system))
        parts = [FORMAT, version("nearfar"), recipe, sorted(hashes.items()), near, far, dtype, files, plugins]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _unit_scores(m: MachineEvaluation) -> UnitScores:
    names = [normal.name for normal in m.detector.normals]
    train = {name: float(value) for name, value in zip(names, m.detector.train_values, strict=True)}
    test = {r.path.name: s.score for r, s in zip(m.recordings, m.scores, strict=True)}
    return UnitScores(train, test, m.failures)


def fuse_units(parts: Sequence[tuple[float, UnitScores]]) -> UnitScores:
    """The scores of a fusion on one unit, from (weight, scores) of its systems, for the clips that all have scored.

    Train scores are exact leave-one-out, so the fusion's follow: the systems' scores in standard deviations of their
    normals, weighted, and the sum aligned once more (eq. 17-18).
    """
    weights = check_weights([weight for weight, _ in parts], len(parts))
    columns = []
    for split in ("train", "test"):
        names = [n for n in getattr(parts[0][1], split) if all(n in getattr(s, split) for _, s in parts)]
        # a system's scores are aligned already: this changes them only where another system lacks a clip
        aligned = [align(list(s.train.values()), [getattr(s, split)[n] for n in names]) for _, s in parts]
        columns.append((names, np.tensordot(weights, np.stack(aligned), axes=1)))
    (train_names, train), (test_names, test) = columns
    failures = list(dict.fromkeys(f for _, s in parts for f in s.failures))
    return UnitScores(
        dict(zip(train_names, align(train, train).tolist(), strict=True)),
        dict(zip(test_names, align(train, test).tolist(), strict=True)),
        failures,
    )


def _read(path: Path) -> UnitScores | None:
    """The scores in the file at `path`; None if there is no file, or a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        train, test = ({str(n): float(v) for n, v in content[split].items()} for split in ("train", "test"))
        return UnitScores(train, test, [(str(f), str(e)) for f, e in content["failures"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
