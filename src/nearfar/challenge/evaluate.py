"""Official metrics of a system on a data set: fit on each machine's train clips, score its test clips (report 3).

Nothing of the test set enters a score: every clip goes through the detector alone, and its recording with the labels
travels beside its score.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearfar.detector import Detector
from nearfar.metrics import Interval, MachineResult, bootstrap, machine, overall
from nearfar.recipe import System
from nearfar.recordings import Recording, machines
from nearfar.score import Score
from nearfar.store import Store


@dataclass(frozen=True)
class MachineEvaluation:
    """One machine: its fitted detector, one score per test clip, and (None without labels) the official numbers."""

    name: str
    detector: Detector
    recordings: Sequence[Recording]
    scores: Sequence[Score]
    failures: Sequence[tuple[str, str]]
    result: MachineResult | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """True if every test clip is known to be normal or anomalous."""
        return all(r.is_anomaly is not None for r in self.recordings)


@dataclass(frozen=True)
class Evaluation:
    """All machines of a data set, and the official score of those with labels (NaN if there are none)."""

    machines: Sequence[MachineEvaluation]
    overall: float
    interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; every number in [0, 1]."""
        return {
            "overall": None if np.isnan(self.overall) else self.overall,
            "interval": vars(self.interval) if self.interval else None,
            "machines": {m.name: _machine_dict(m) for m in self.machines},
        }


def evaluate(
    data: str | os.PathLike[str],
    system: System | str | None = None,
    weights: Any = None,
    *,
    only: Sequence[str] = (),
    near: int = 0,
    far: int | None = 1,
    threads: int | None = None,
    store: Store | None = None,
    rounds: int = 1000,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a system (a recipe's name, or None for the default) on DATA/<machine>/{train,test}.

    `progress(what, done, total)` is told of every clip; `rounds` and `seed` are those of the bootstrap.
    """
    found = machines(data)
    unknown = sorted(set(only) - set(found))
    if unknown:
        raise ValueError(f"no machine {', '.join(unknown)} in {data}; it has {', '.join(found)}")
    done = [
        _machine(
            name, recordings, Detector(system, weights, near=near, far=far, threads=threads, store=store), progress
        )
        for name, recordings in found.items()
        if not only or name in only
    ]
    labelled = {m.name: _columns(m) for m in done if m.labelled}
    results = {name: machine(*columns) for name, columns in labelled.items()}
    intervals, total = bootstrap(labelled, rounds=rounds, seed=seed) if labelled else ({}, None)
    return Evaluation(
        [
            MachineEvaluation(
                m.name, m.detector, m.recordings, m.scores, m.failures, results.get(m.name), intervals.get(m.name, {})
            )
            for m in done
        ],
        overall(results) if results else float("nan"),
        total,
    )


def _machine(
    name: str,
    recordings: Sequence[Recording],
    detector: Detector,
    progress: Callable[[str, int, int], None] | None,
) -> MachineEvaluation:
    train = [r for r in recordings if r.split == "train" and not r.is_anomaly]
    test = [r for r in recordings if r.split == "test"]
    if len(train) < 2 or not test:
        raise ValueError(
            f"machine {name!r} has {len(train)} normal train clips and {len(test)} test clips; both are needed"
        )
    failures: list[tuple[str, str]] = []

    def tell(what: str) -> Callable[[int, int], None] | None:
        return (lambda i, n: progress(f"{name}: {what}", i, n)) if progress else None

    def skip(file: str, error: Exception) -> None:
        failures.append((file, str(error)))

    domains = [bool(r.is_target) for r in train] if any(r.is_target for r in train) else None
    detector.fit([r.path for r in train], domains, skip=skip, progress=tell("normals"))
    paths = [r.path for r in test]
    pairs = [  # the rarest window stands for a long file
        (recording, max(scores, key=lambda s: s.value))
        for recording, scores in zip(test, detector.each(paths, skip=skip, progress=tell("test clips")), strict=True)
        if scores
    ]
    return MachineEvaluation(name, detector, [r for r, _ in pairs], [s for _, s in pairs], failures)


def _columns(m: MachineEvaluation) -> tuple[list[float], list[bool], list[bool]]:
    scores = [s.value for s in m.scores]
    return scores, [bool(r.is_anomaly) for r in m.recordings], [bool(r.is_target) for r in m.recordings]


def _machine_dict(m: MachineEvaluation) -> dict[str, Any]:
    numbers = None
    if m.result is not None:
        values = {key: getattr(m.result, key) for key in ("auc_source", "auc_target", "pauc", "omega")}
        numbers = {key: None if np.isnan(value) else value for key, value in values.items()}
    return {
        "result": numbers,
        "intervals": {key: vars(value) for key, value in m.intervals.items()},
        "train": len(m.detector.normals),
        "test": len(m.scores),
        "failures": [{"file": file, "error": error} for file, error in m.failures],
        "why": m.detector.why,
    }
