"""The report's search space as one computation: every step that configurations share is done once (report 2.3-2.7).

    a read of a clip's grid       serves all preprocessings and poolings of a group (`pooled`)
    a product of pooled vectors   serves every view that is a sum of its parts (`distances`)
    a sorted list of neighbours   serves every metric, k, density and domain-aware method
    eq. 13 composites             are fused from scores that are there already

Memory: the pooled vectors of a group of settings stay below `memory` bytes (settings x waveforms x clips x D x 4); if
one setting alone needs more, groups are of one. Beside it each thread holds about 9 matrices of 4 n N bytes (n clips, N
of them normals) and one clip's frames. Frames are read again for every group.

Grids come from anything with `grid(path, waveform, layer=None) -> (T, F, D)`: `library.Library`, arrays in memory.
Results go to `records`; scores equal those of `Detector` with the same recipe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import recordings
from nearfar.audio.recordings import Recording
from nearfar.challenge.search.pool import Frames, groups, pool_clips, usable
from nearfar.challenge.search.records import Recorder, Records, TestSet, read
from nearfar.challenge.search.score import score_setting
from nearfar.challenge.search.space import Setting, Space, space_of
from nearfar.embedding.cache import EmbeddingCache
from nearfar.embedding.store import Store
from nearfar.encoders import TABLE, names
from nearfar.encoders.loading import hashes_of, load_encoders
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
    """What a search needs to know of a machine; `pseudo` are other machines' normals, anomalies to this one.

    `how` says what else its grids depend on: channels, weights, rounding, the files themselves.
    """

    name: str
    train: Sequence[Recording]
    test: Sequence[Recording]
    pseudo: Sequence[Recording] = ()
    how: str = ""


def search_machine(
    machine: Machine,
    frames: Frames,
    space: Space,
    encoder: str,
    folder: str | os.PathLike[str],
    *,
    memory: int = MEMORY,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Try every configuration of `space` on a machine and record it below `folder`; returns {file: why it failed}.

    What is recorded already is not tried again. Raises ValueError if fewer than 2 normals or no test clip is usable.
    """
    if _recorded(machine, space, encoder, folder):
        return {}
    recipes = {s: list(space.configurations(encoder, [s])) for s in space.plan}  # ValueError for what cannot be
    kept, shape, failures = _kept(machine, frames, space, threads, progress)
    is_target = np.array([bool(r.is_target) for r in kept.train])
    recorder = Recorder(folder, encoder, machine.name, test_set_of(kept))
    recorder.begin()
    todo = {setting: recorder.missing(setting, wanted) for setting, wanted in recipes.items()}
    settings = [s for s in space.plan if todo[s]]
    done = len(space.plan) - len(settings)
    order, waveforms = [*kept.train, *kept.test, *kept.pseudo], space.waveforms()
    for group in groups(settings, shape, len(order) * len(waveforms), memory):
        vectors = pool_clips(order, frames, group, waveforms, threads=threads, progress=progress, name=machine.name)

        def one(at: int, group: Sequence[Setting] = group, vectors: Mapping[str, Array] = vectors) -> None:
            pooled = {name: x[at] for name, x in vectors.items()}
            recorder.keep(group[at], score_setting(todo[group[at]], pooled, is_target, recorder.test_set))

        for _ in map_in_order(one, range(len(group)), threads):
            done += 1
            if progress:
                progress(done, len(space.plan), f"{machine.name}: settings")
    return failures


def _kept(
    machine: Machine, frames: Frames, space: Space, threads: int | None, progress: Progress | None
) -> tuple[Machine, tuple[int, int], dict[str, str]]:
    """The machine with its usable clips, (F, D) of their grids, and why the others cannot be used."""
    sets = machine.train, machine.test, machine.pseudo
    clips, layer = [clip for each in sets for clip in each], next(iter(space.plan)).layer
    heard, shape, failures = usable(clips, frames, space.waveforms(), layer, threads, progress, machine.name)
    train, test, pseudo = ([r for r in rs if r.path in heard] for rs in sets)
    kept = replace(machine, train=train, test=test, pseudo=pseudo)
    if len(kept.train) < 2 or not kept.test:
        why = f": {next(iter(failures.values()))}" if failures else ""
        raise ValueError(
            f"machine {machine.name!r} has {len(kept.train)} usable normals and {len(kept.test)} test clips{why}"
        )
    return kept, shape, failures


def _recorded(machine: Machine, space: Space, encoder: str, folder: str | os.PathLike[str]) -> bool:
    """Whether all configurations are there for all clips: then there is nothing to listen to."""
    recorder = Recorder(folder, encoder, machine.name, test_set_of(machine))
    return recorder.begun and not any(recorder.missing(s, list(space.configurations(encoder, [s]))) for s in space.plan)


def test_set_of(machine: Machine) -> TestSet:
    """The files of a machine as its records name them."""
    test = machine.test
    return TestSet(
        [r.path.name for r in machine.train],
        [r.path.name for r in test],
        [r.is_anomaly for r in test],
        [r.is_target for r in test],
        machine.how,
    )


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
    failures: dict[str, str] = {}
    for encoder in encoders:
        kept = store or (Store(Path(folder) / GRIDS) if TABLE[encoder].has_weights else None)  # never encoded twice
        digest, rounded = hashes_of([encoder], weights, precision)[encoder], kept.dtype if kept else "float32"
        how = f"channels {near} and {far}, weights {digest}, grids in {rounded}"
        asked = [replace(machine, how=f"{how}, files {_files(machine)}") for machine in machines]
        todo = [machine for machine in asked if not _recorded(machine, chosen, encoder, folder)]
        if not todo:
            continue
        layers = list(dict.fromkeys(setting.layer for setting in chosen.plan))
        loaded = load_encoders([encoder], weights, threads=threads, precision=precision)
        library = EmbeddingCache(loaded, kept, near=near, far=far, layers=layers)
        for machine in todo:
            failures |= search_machine(
                machine,
                library,
                chosen,
                encoder,
                folder,
                memory=memory,
                threads=threads,
                progress=titled(progress, encoder),
            )
    return Searched(read(folder, encoders, [m.name for m in machines]), notes, failures)


def _files(machine: Machine) -> str:
    """A hash of size and time of the recordings: new ones under the old names are others."""
    files = [(r.split, r.path.name, *file_fingerprint(r.path)) for r in [*machine.train, *machine.test]]
    return sha256(json.dumps(files).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Searched:
    """What is recorded now, what was left out and why, and the files that could not be used."""

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
    """What of a space the recordings allow, the far channel if they have one, and notes on what they lack."""
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
        return True  # a file that cannot be read says so when its turn comes


def recipes(
    data: str | os.PathLike[str], wanted: Sequence[Recipe], folder: str | os.PathLike[str], weights: Any, **options: Any
) -> Records:
    """Records of some recipes alone, on all machines; `options` are those of `search`. ValueError for what failed."""
    names = dict.fromkeys(recipe.encoder for recipe in wanted)
    spaces = {name: space_of([recipe for recipe in wanted if recipe.encoder == name]) for name in names}
    for name, chosen in spaces.items():  # what cannot be is said before anything is heard
        found = search(data, [name], folder, chosen, weights, **options)
        if found.failures:
            file, why = next(iter(found.failures.items()))
            raise ValueError(f"{file}: {why}")
    return read(folder)
