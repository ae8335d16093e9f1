"""The report's search space as one computation: every step that configurations share is done once (report 2.3-2.7).

    plan        the configurations of a space that are not recorded yet                          `plan`
    grids       of every clip and waveform, from the cache; they are read once per group
    vectors     a read of a grid serves all preprocessings and poolings of a group of settings   `pool`
    distances   a product of vectors serves every view that is a sum of its parts                `distances`
    scores      a sorted list of neighbours serves every metric, k, density and domain-aware method; the composites
                of eq. 13 are fused from scores that are there already                           `score`
    records     one file per setting, written when it is scored                                  `records`

Memory: the vectors of a group stay below `memory` bytes (settings x waveforms x clips x D x 4); a setting that alone
needs more is a group by itself. Each thread also needs about 9 matrices of 4 n N bytes (n clips, N of them normals)
and one clip's frames. Scores equal those of `Detector` with the same recipe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import recordings
from nearfar.audio.recordings import Recording
from nearfar.challenge.search.pool import GridSource, first_shape, groups, pool_clips
from nearfar.challenge.search.records import Recorder, Records, TestSet, read
from nearfar.challenge.search.score import score_setting
from nearfar.challenge.search.space import Setting, Space, space_of
from nearfar.embedding.cache import CachedEncoders
from nearfar.embedding.store import Store
from nearfar.encoders import TABLE, names
from nearfar.encoders.loading import load_encoders, weights_in
from nearfar.recipe import Recipe
from nearfar.support.check import Array, one_of
from nearfar.support.files import file_fingerprint
from nearfar.support.progress import Progress, titled
from nearfar.support.threads import map_in_order

MEMORY = 2 << 30
GRIDS = "grids"  # store below the records, for a network without another one
PSEUDO = 64  # other machines' normals that stand for anomalies where no labels are used


@dataclass(frozen=True)
class Machine:
    """The recordings of a machine; `pseudo` are other machines' normals, which are anomalies to this one.

    `how` describes what else its grids depend on: channels, weights, rounding, the files themselves.
    """

    name: str
    train: Sequence[Recording]
    test: Sequence[Recording]
    pseudo: Sequence[Recording] = ()
    how: str = ""

    @property
    def clips(self) -> list[Recording]:
        """All recordings in the order of their vectors: normals, test clips, pseudo-anomalies."""
        return [*self.train, *self.test, *self.pseudo]

    @property
    def test_set(self) -> TestSet:
        """The files as the records name them."""
        return TestSet(
            [r.path.name for r in self.train],
            [r.path.name for r in self.test],
            [r.is_anomaly for r in self.test],
            [r.is_target for r in self.test],
            self.how,
        )

    def without(self, failures: Mapping[str, str]) -> Machine:
        """The machine without files that cannot be used; ValueError if too few are left to fit and score."""
        left = [[r for r in each if str(r.path) not in failures] for each in (self.train, self.test, self.pseudo)]
        train, test, pseudo = left
        if len(train) < 2 or not test:
            why = f": {_first(failures)}" if failures else ""
            raise ValueError(f"machine {self.name!r} has {len(train)} usable normals and {len(test)} test clips{why}")
        return replace(self, train=train, test=test, pseudo=pseudo)


@dataclass(frozen=True)
class Plan:
    """The configurations of a space on one machine: all by setting, and those settings that are not all recorded."""

    machine: Machine
    encoder: str
    recorder: Recorder
    waveforms: Sequence[str]
    configurations: Mapping[Setting, Sequence[Recipe]]
    settings: Sequence[Setting]


def plan(machine: Machine, space: Space, encoder: str, folder: str | os.PathLike[str]) -> Plan:
    """The plan for a machine: the space without the settings that are recorded for all of its clips.

    Raises ValueError for a machine with fewer than 2 normals or no test clip, and for an impossible configuration.
    """
    machine = machine.without({})
    configurations = {setting: list(space.configurations(encoder, [setting])) for setting in space.plan}
    recorder = Recorder(Path(folder) / encoder / machine.name, machine.test_set)
    settings = [setting for setting, recipes in configurations.items() if recorder.missing(setting, recipes)]
    return Plan(machine, encoder, recorder, space.waveforms(), configurations, settings)


def search_machine(
    plan: Plan,
    source: GridSource,
    *,
    memory: int = MEMORY,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Score the configurations of a plan and record them; returns {file: why it could not be used}.

    Raises ValueError if fewer than 2 normals or no test clip is usable.
    """
    if not plan.settings:
        return {}
    machine, recorder, failures = plan.machine, plan.recorder, dict[str, str]()
    label, done = f"{plan.encoder} {machine.name}", len(plan.configurations) - len(plan.settings)
    shape = first_shape(machine.clips, source, plan.waveforms[0], plan.settings[0].layer)
    for group in groups(plan.settings, shape, len(machine.clips) * len(plan.waveforms), memory):
        done += len(group)
        group = [setting for setting in group if recorder.missing(setting, plan.configurations[setting])]
        done -= len(group)
        if not group:  # all are recorded for the clips that are left
            continue
        reading = titled(progress, f"{label}: grids")
        pooled, failed = pool_clips(machine.clips, source, group, plan.waveforms, threads=threads, progress=reading)
        if failed and recorder.begun:
            raise ValueError(
                f"machine {machine.name!r}: {_first(failed)}"
            )  # other results were recorded with that file
        if failed:
            machine, failures = machine.without(failed), failed
            recorder = Recorder(recorder.folder, machine.test_set)
        recorder.begin()
        is_target = np.array([r.is_target for r in machine.train], bool)
        score = partial(_score_and_record, plan, recorder, group, pooled, is_target)
        for _ in map_in_order(score, range(len(group)), threads):
            done += 1
            if progress:
                progress(done, len(plan.configurations), f"{label}: settings")
    return failures


def _score_and_record(
    plan: Plan,
    recorder: Recorder,
    group: Sequence[Setting],
    pooled: Mapping[str, Array],
    is_target: Array,
    at: int,
) -> None:
    """Score what is missing of the setting `group[at]`, from its vectors."""
    setting = group[at]
    if missing := recorder.missing(setting, plan.configurations[setting]):
        vectors = {name: x[at] for name, x in pooled.items()}
        recorder.keep(setting, score_setting(missing, vectors, is_target, recorder.test_set))


def _first(failures: Mapping[str, str]) -> str:
    """The reason of the first failure, "" if there is none."""
    return next(iter(failures.values()), "")


def search(
    data: str | os.PathLike[str],
    encoders: Sequence[str],
    folder: str | os.PathLike[str],
    chosen: Space,
    weights: Any = None,
    *,
    only: Sequence[str] = (),
    store: Store | None = None,
    near: int = 0,
    far: int | None = 1,
    memory: int = MEMORY,
    threads: int | None = None,
    precision: str = "float32",
    seed: int = 0,
    progress: Progress | None = None,
) -> Searched:
    """Try the configurations of `chosen` for each encoder on DATA/<machine>/{train,test}, recorded below `folder`.

    Raises ValueError for unknown encoders and machines, and for a machine that has too few usable clips.
    """
    encoders = [one_of("encoder", name, names()) for name in encoders]
    machines = _machines(data, only, seed)
    chosen, far, notes = _possible(chosen, machines, near, far)
    layers = list(dict.fromkeys(setting.layer for setting in chosen.plan))
    failures: dict[str, str] = {}
    for encoder in encoders:
        kept = store or (Store(Path(folder) / GRIDS) if TABLE[encoder].has_weights else None)  # never encoded twice
        digest, rounded = weights_in([encoder], weights, precision)[encoder], kept.dtype if kept else "float32"
        how = f"channels {near} and {far}, weights {digest}, grids in {rounded}"
        plans = [plan(replace(m, how=f"{how}, files {_files(m)}"), chosen, encoder, folder) for m in machines]
        plans = [each for each in plans if each.settings]
        if plans:  # only then are networks loaded
            loaded = load_encoders([encoder], weights, threads=threads, precision=precision)
            cached = CachedEncoders(loaded, kept, near=near, far=far, layers=layers)
            for each in plans:
                failures |= search_machine(each, cached, memory=memory, threads=threads, progress=progress)
    return Searched(read(folder, encoders, [machine.name for machine in machines]), notes, failures)


def _files(machine: Machine) -> str:
    """A hash of names, sizes and times of the recordings: a new file under an old name changes it."""
    files = [(r.split, r.path.name, *file_fingerprint(r.path)) for r in [*machine.train, *machine.test]]
    return sha256(json.dumps(files).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Searched:
    """All records of the folder, notes on configurations that were left out, and why files could not be used."""

    records: Records
    notes: Sequence[str]
    failures: Mapping[str, str]


def _machines(data: str | os.PathLike[str], only: Sequence[str], seed: int) -> list[Machine]:
    found = recordings.machines(data)
    unknown = sorted(set(only) - set(found))
    if unknown:
        raise ValueError(f"no machine {', '.join(unknown)} in {data}; it has {', '.join(found)}")
    train = {n: [r for r in rs if r.split == "train" and not r.is_anomaly] for n, rs in found.items()}
    out = []
    for name, everything in found.items():
        if only and name not in only:
            continue
        others = [r for other, rs in train.items() if other != name for r in rs]
        rng = np.random.default_rng(seed)
        some = sorted(rng.choice(len(others), min(PSEUDO, len(others)), replace=False)) if others else []
        test = [r for r in everything if r.split == "test"]
        out.append(Machine(name, train[name], test, [others[i] for i in some]))
    return out


def _possible(
    chosen: Space, machines: Sequence[Machine], near: int, far: int | None
) -> tuple[Space, int | None, list[str]]:
    """The part of a space that the recordings allow, the far channel if they have one, and notes on what they lack."""
    notes = []
    if far is None or not all(_has_far(m.train[0].path, near, far) for m in machines if m.train):
        left = chosen.without_far()
        if lost := len(chosen) - len(left):
            notes.append(f"no far microphone: {lost:,} configurations of two-channel views are skipped")
        chosen, far = left, None
    if not any(r.is_target for m in machines for r in m.train):
        notes.append("no target domain among the normals: the domain-aware methods work as one bank")
    return chosen, far, notes


def _has_far(path: Path, near: int, far: int) -> bool:
    try:
        return audio.read(path, near=near, far=far, frames=8192).far is not None
    except (ValueError, OSError):
        return True  # a file that cannot be read is reported with the others, when its grid is computed


def recipes(
    data: str | os.PathLike[str], wanted: Sequence[Recipe], folder: str | os.PathLike[str], weights: Any, **options: Any
) -> Records:
    """Records of some recipes alone, on all machines; `options` are those of `search`. ValueError for what failed."""
    names = dict.fromkeys(recipe.encoder for recipe in wanted)
    spaces = {name: space_of([recipe for recipe in wanted if recipe.encoder == name]) for name in names}
    for name, chosen in spaces.items():  # all are checked before the first is embedded
        found = search(data, [name], folder, chosen, weights, **options)
        if found.failures:
            file, why = next(iter(found.failures.items()))
            raise ValueError(f"{file}: {why}")
    return read(folder)
