"""Scores of a system on a unit of a data set, kept on disk: what was scored once is not scored again.

    FOLDER/<unit>-<first digits of the key>.json    {"train": {file: score}, "test": {file: score}, "failures": [...]}

The key is a hash of all that a score depends on: version, recipe, hash of the weights, channels, rounding of the store,
and name, size and time of every recording. Train scores are exact leave-one-out, so a fusion of systems follows from
what is kept: in standard deviations of the normals each, weighted, and aligned once more (eq. 17-18).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import __version__
from nearfar.atomic import write
from nearfar.challenge.evaluate import run
from nearfar.challenge.layout import Unit
from nearfar.check import one_of
from nearfar.detector import Detector
from nearfar.encoders import PRECISIONS, Encoder
from nearfar.fusion import align, check_weights
from nearfar.hashes import stamp
from nearfar.library import hashes_of, load_encoders
from nearfar.recipe import System, as_data, leaves
from nearfar.store import Store

FORMAT = 1
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scored:
    """Scores by file name: `train` leave-one-out, `test`; and the files that could not be used, with the reasons."""

    train: Mapping[str, float]
    test: Mapping[str, float]
    failures: Sequence[tuple[str, str]] = ()


@dataclass
class Runs:
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
                write(path, json.dumps(asdict(known), indent=1))
            yield unit, known

    def _detector(self, system: System | None, encoders: dict[str, Encoder]) -> Detector:
        detector = Detector(system, near=self.near, far=self.far, threads=self.threads, store=self.store)
        if system is not None:
            detector.encoders = encoders
        return detector

    def _run(self, unit: Unit, detector: Detector, name: str) -> Scored:
        tell = self.progress
        done = run(unit, detector, (lambda what, i, n: tell(f"{name}, {what}", i, n)) if tell else None)
        names = [normal.name for normal in detector.normals]
        train = {n: float(v) for n, v in zip(names, detector.train_values, strict=True)}
        return Scored(
            train, {r.path.name: s.value for r, s in zip(done.recordings, done.scores, strict=True)}, done.failures
        )

    def _key(self, system: System | None, hashes: Mapping[str, str], unit: Unit) -> str:
        files = sorted((r.split, r.path.name, *stamp(r.path)) for r in [*unit.train, *unit.test])
        recipe = None if system is None else as_data(system)
        rounded = self.store.dtype if self.store else "float32"
        parts = [FORMAT, __version__, recipe, sorted(hashes.items()), self.near, self.far, rounded, files]
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
