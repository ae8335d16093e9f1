"""The report's search space as one computation: every step that configurations share is done once (report 2.3-2.7).

    plan        find the configurations of a space that are not recorded yet                      `plan`
    grids       read the grid of every clip and waveform from the cache, once per group of settings
    vectors     pool a grid by all preprocessings and poolings of the group                       `pool`
    distances   compute one product of vectors for every view that is a sum of its parts          `distances`
    scores      search one sorted list of neighbours for every metric, k, density and domain-aware method; fuse the
                composites of eq. 13 from the scores of their parts                               `score`
    records     write one file per setting as soon as it is scored                                `records`

Memory: the vectors of a group stay below `memory` bytes (settings x waveforms x clips x D x 4); a setting that alone
needs more is a group by itself. Each thread also needs about 9 matrices of 4 n N bytes (n clips, N of them normals)
and one clip's frames. Scores equal those of `Detector` with the same recipe.

On a GPU the store is filled first, many clips at a time; grids then go there, and vectors and matrices stay there.
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
from nearfar.audio.recordings import Recording
from nearfar.backend import ATTRIBUTE
from nearfar.challenge.data import layout
from nearfar.challenge.search.pool import GridSource, first_shape, groups, pool_clips
from nearfar.challenge.search.records import CLIPS, Recorder, Records, TestSet, read, refusals
from nearfar.challenge.search.records import TABLE as TABLE_FILE
from nearfar.challenge.search.score import flat_views, score_setting
from nearfar.challenge.search.space import Setting, Space, parts_of, space_of
from nearfar.detector.detector import LONGER
from nearfar.embedding.cache import CachedEncoders
from nearfar.embedding.fill import Order, embed_shard
from nearfar.embedding.store import Store
from nearfar.encoders import Layers, device_class
from nearfar.encoders.loading import full_paths, identity, is_nameless, load_encoders, weights_in
from nearfar.recipe import Recipe
from nearfar.support.arrays import Place
from nearfar.support.check import Array, one_of
from nearfar.support.files import file_fingerprint
from nearfar.support.progress import Progress, titled
from nearfar.support.threads import map_in_order

MEMORY = 2 << 30
GPU_SHARE = 0.5  # of a GPU's free memory, for pooled vectors
GRIDS = "grids"  # folder of the store below the records, if the caller gives no store
MOST_FOR_ZMIN = 200  # normals: leave-one-out of zmin fits all its parts once per normal
PSEUDO = 64  # most normals of other machines that stand for anomalies in the rules without labels


@dataclass(frozen=True)
class Searched:
    """The result of a search.

    records    all that are in the folder for these encoders and machines
    notes      on configurations that were left out
    failures   {file: why it could not be used}
    """

    records: Records
    notes: Sequence[str]
    failures: Mapping[str, str]


@dataclass(frozen=True)
class MachineClips:
    """The recordings of a machine; `pseudo` are other machines' normals, which are anomalies to this one.

    `how` describes what else the grids depend on: channels, weights, rounding, versions of the files.
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

    def without(self, failures: Mapping[str, str]) -> MachineClips:
        """The machine without the files in `failures`; ValueError if fewer than 2 normals or no test clip are left."""
        left = [[r for r in each if str(r.path) not in failures] for each in (self.train, self.test, self.pseudo)]
        train, test, pseudo = left
        if len(train) < 2 or not test:
            why = f": {next(iter(failures.values()))}" if failures else ""
            raise ValueError(f"machine {self.name!r} has {len(train)} usable normals and {len(test)} test clips{why}")
        return replace(self, train=train, test=test, pseudo=pseudo)


@dataclass(frozen=True)
class Plan:
    """The configurations of a space on one machine.

    configurations   all of them, by setting
    settings         those with at least one configuration that is not recorded
    """

    machine: MachineClips
    encoder: str
    recorder: Recorder
    waveforms: Sequence[str]
    configurations: Mapping[Setting, Sequence[Recipe]]
    settings: Sequence[Setting]


@dataclass(frozen=True)
class Job:
    """Plans of one encoder and how it runs, as plain data that travels to other processes.

    networks   the keyword arguments of `load_encoders`
    """

    plans: Sequence[Plan]
    weights: Any
    store: Store | None
    layers: Sequence[Layers]
    near: int
    far: int | None
    memory: int | None
    networks: Mapping[str, Any]

    def run(self, progress: Progress | None = None) -> dict[str, str]:
        """Score the configurations of the plans and record them; {file: why it could not be used}."""
        encoder, failures = self.plans[0].encoder, dict[str, str]()
        loaded = load_encoders([encoder], self.weights, **self.networks)
        cached = CachedEncoders(loaded, self.store, near=self.near, far=self.far, layers=self.layers)
        for each in self.plans:
            if loaded[encoder].device != "cpu" and self.store:
                self._fill(self.store, each, cached, titled(progress, f"{encoder} {each.machine.name}: networks"))
            failures |= search_machine(
                each,
                cached,
                memory=self.memory,
                threads=self.networks["threads"],
                device=self.networks["device"],
                progress=progress,
            )
        return failures

    def _fill(self, store: Store, each: Plan, cached: CachedEncoders, progress: Progress | None) -> None:
        """Put the grids of all clips into the store, many clips at a time."""
        order = Order(
            str(store.folder),
            (each.encoder,),
            tuple(each.waveforms),
            tuple(self.layers),
            near=self.near,
            far=self.far,
            **self.networks,
        )
        embed_shard([r.path for r in each.machine.clips], order, grids=cached, progress=progress)


def search(
    data: str | os.PathLike[str],
    encoders: Sequence[str],
    folder: str | os.PathLike[str],
    space: Space,
    weights: Any = None,
    *,
    truth: str | os.PathLike[str] | None = None,
    only: Sequence[str] = (),
    store: Store | None = None,
    near: int = 0,
    far: int | None = 1,
    memory: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
    device: str = "cpu",
    batch: int | None = None,
    engine: str = "local",
    seed: int = 0,
    progress: Progress | None = None,
) -> Searched:
    """Score the configurations of a space with each encoder on DATA/<machine>/{train,test}; record them in `folder`.

    truth    ground truth of evaluation files, a CSV or a folder of them
    only     names of the machines; () for all
    store    of the grids; None: networks get one below `folder`, so no clip is encoded twice
    memory   bytes of pooled vectors at a time; None: MEMORY, or half of a GPU's free memory
    device   of the networks, and of pooling and distances
    engine   "local", or "ray": a task for each machine and encoder on a cluster with a shared disk
    seed     draws the normals of other machines that stand for anomalies

    A machine with sections is searched section by section, as `evaluate` scores it. The records are those of all
    encoders that `folder` holds for these machines: searches of several encoders stand side by side in it.

    Raises ValueError for unknown encoders and machines, for a machine that has too few usable clips, for data of a year
    with other rules, and FileExistsError if `folder` holds a search of other machines or clips.
    """
    encoders = [Recipe(encoder=given).encoder for given in encoders]  # ValueError for an unknown name
    if one_of("engine", engine, ("local", "ray")) == "ray":  # the workers' current folders are others
        data, folder, weights = Path(data).resolve(), Path(folder).resolve(), full_paths(weights)
        store = Store(store.folder.resolve()) if store else None
    machines, left_out = _machines(data, truth, only, seed)
    _check_folder(Path(folder), machines)
    space, far, notes = _usable(space, machines, near, far)
    notes = [*left_out, *notes]
    layers = list(dict.fromkeys(setting.output for setting in space.plan))
    networks = {"device": device, "threads": threads, "precision": precision, "batch": batch}
    jobs: list[Job] = []
    failures = {file: why for m in machines for file, why in _too_long(m).items()}
    machines = [machine.without(failures) for machine in machines]
    for encoder in encoders:
        weights_id = weights_in([encoder], weights, precision, device)[encoder]
        grids = store or (Store(Path(folder) / GRIDS) if weights_id.sha256 else None)
        if is_nameless(encoder, weights_id):
            grids = None
            notes.append(
                f"{encoder} has no weights_hash, which would tell whether its outputs are those of an earlier run: all "
                "of it is computed anew"
            )
        dtype = grids.dtype if grids else "float32"
        how = f"channels {near} and {far}, weights {identity(encoder, weights_id)}, grids in {dtype}"
        plans = [plan(replace(m, how=f"{how}, files {_files_hash(m)}"), space, encoder, folder) for m in machines]
        plans = [each for each in plans if each.settings]
        if plans:  # otherwise no network is loaded
            jobs.append(Job(plans, weights, grids, layers, near, far, memory, networks))
    if engine == "ray":
        from nearfar.challenge.cluster import map_on_ray

        tasks = [
            replace(job, plans=[plan], networks=networks | {"threads": threads or 1})
            for job in jobs
            for plan in job.plans
        ]
        failed = map_on_ray(
            [task.run for task in tasks],
            {"encoder": encoders, **space.names()},
            on_gpu=device != "cpu",
            progress=titled(progress, "searching"),
        )
    else:
        failed = [job.run(progress) for job in jobs]
    failures |= {file: why for each in failed for file, why in each.items()}
    records = read(folder, (), [machine.name for machine in machines])
    return Searched(records, [*notes, *refusals(records.refused)], failures)


def search_recipes(
    data: str | os.PathLike[str],
    recipes: Sequence[Recipe],
    folder: str | os.PathLike[str],
    weights: Any,
    **options: Any,
) -> Records:
    """Records of these recipes on all machines; `options` are those of `search`.

    ValueError for a file that failed, and for a recipe that is refused or that the recordings do not allow.
    """
    encoders = dict.fromkeys(recipe.encoder for recipe in recipes)
    spaces = {name: space_of([recipe for recipe in recipes if recipe.encoder == name]) for name in encoders}
    for name, space in spaces.items():  # all spaces are checked before the first clip is encoded
        found = search(data, [name], folder, space, weights, **options)
        if found.failures:
            file, why = next(iter(found.failures.items()))
            raise ValueError(f"{file}: {why}")
        if not set(spaces[name].configurations(name)) <= set(found.records.recipes):
            raise ValueError("; ".join(found.notes))
    return read(folder)


def plan(machine: MachineClips, space: Space, encoder: str, folder: str | os.PathLike[str]) -> Plan:
    """The plan for a machine: the space, and its settings that are not recorded for all clips of the machine.

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
    memory: int | None = None,
    threads: int | None = None,
    device: Place = "cpu",
    progress: Progress | None = None,
) -> dict[str, str]:
    """Score the configurations of a plan and record them; returns {file: why it could not be used}.

    Vectors and distances are computed by numpy where `device` is "cpu", else by torch on the device.
    A file that cannot be read is left out of all results of the machine. Raises ValueError if results with that file
    are recorded already, and if fewer than 2 normals or no test clip is usable.
    """
    if not plan.settings:
        return {}
    machine, recorder, failures = plan.machine, plan.recorder, dict[str, str]()
    memory = memory or _memory_of(device)
    label, done = f"{plan.encoder} {machine.name}", len(plan.configurations) - len(plan.settings)
    shape = first_shape(machine.clips, source, plan.waveforms[0], plan.settings[0].output)
    for group in groups(plan.settings, shape, len(machine.clips) * len(plan.waveforms), memory):
        missing = [setting for setting in group if recorder.missing(setting, plan.configurations[setting])]
        done += len(group) - len(missing)
        if not missing:  # an earlier search recorded all for the clips that are usable
            continue
        reading = titled(progress, f"{label}: grids")
        pooled, failed = pool_clips(
            machine.clips, source, missing, plan.waveforms, threads=threads, device=device, progress=reading
        )
        if failed:
            if recorder.begun:
                raise ValueError(f"machine {machine.name!r}: {next(iter(failed.values()))}")
            machine, failures = machine.without(failed), failed
            recorder = Recorder(recorder.folder, machine.test_set)
        recorder.begin()
        score = partial(_score_and_record, plan, recorder, missing, pooled, machine.train)
        for _ in map_in_order(score, range(len(missing)), threads):
            done += 1
            if progress:
                progress(done, len(plan.configurations), f"{label}: settings")
    return failures


def _score_and_record(
    plan: Plan,
    recorder: Recorder,
    settings: Sequence[Setting],
    pooled: Mapping[str, Sequence[Array]],
    normals: Sequence[Recording],
    index: int,
) -> None:
    """Score and record the configurations of `settings[index]` that are missing, from its vectors in `pooled`."""
    setting = settings[index]
    if missing := recorder.missing(setting, plan.configurations[setting]):
        vectors = {name: x[index] for name, x in pooled.items()}
        is_target = np.array([r.is_target for r in normals], bool)
        attributes = np.array([r.attributes for r in normals])
        deaf = flat_views(missing, vectors, len(normals))
        refused = [r for r in missing if r.method != "as_is" and deaf.intersection(parts_of(r.view))]
        heard = [r for r in missing if r not in refused]
        recorder.keep(setting, score_setting(heard, vectors, is_target, recorder.test_set, attributes), refused)


def _memory_of(device: Place) -> int:
    """Bytes of pooled vectors at a time on a device."""
    if device_class(str(device)) == "cpu":
        return MEMORY
    from nearfar.encoders.frozen import free_memory, torch_device

    return int(GPU_SHARE * free_memory(torch_device(str(device))))


def _machines(
    data: str | os.PathLike[str], truth: str | os.PathLike[str] | None, only: Sequence[str], seed: int
) -> tuple[list[MachineClips], list[str]]:
    """The units of the data set (a machine, or each of its sections), and notes. ValueError for other rules."""
    found = layout.read(data, truth, only)
    if found.rules != layout.LATEST:
        raise ValueError(
            f"{data} follows the rules of {found.rules} ({layout.RULES[found.rules]}), and a search ranks by those of "
            f"{layout.LATEST} and later: nearfar evaluate applies the rules of every year"
        )
    everything = layout.read(data).units if only else found.units
    out = []
    for unit in found.units:
        others = [r for other in everything if other.machine != unit.machine for r in other.train]
        rng = np.random.default_rng(seed)
        drawn = sorted(rng.choice(len(others), min(PSEUDO, len(others)), replace=False)) if others else []
        out.append(MachineClips(unit.name, unit.train, unit.test, [others[i] for i in drawn]))
    return out, list(found.notes)


def _check_folder(folder: Path, machines: Sequence[MachineClips]) -> None:
    """FileExistsError if a finished search in `folder` has machines or clips that this one has not."""
    if not any(folder.glob(f"{TABLE_FILE}.*")):
        return
    by_name = {machine.name: {r.path.name for r in machine.test} for machine in machines}
    for clips in sorted(folder.glob(f"*/*/{CLIPS}")):
        machine, test = clips.parent.name, set(json.loads(clips.read_text(encoding="utf-8"))["test"])
        if machine not in by_name or not test & by_name[machine]:
            what = "on other clips" if machine in by_name else "too"
            raise FileExistsError(
                f"{folder} holds a search of {machine} {what}, and its table and best.json would be replaced by those "
                f"of {', '.join(by_name)} alone: name another folder with -o"
            )


def _files_hash(machine: MachineClips) -> str:
    """A hash of names, sizes and times of the recordings: a new file under an old name changes it."""
    files = [(r.split, r.path.name, *file_fingerprint(r.path)) for r in [*machine.train, *machine.test]]
    return sha256(json.dumps(files).encode()).hexdigest()[:16]


def _too_long(machine: MachineClips) -> dict[str, str]:
    """{file: why} of the test clips that a detector would score in windows, by the rule of `Detector.whole_s`."""
    lasts = {str(r.path): _seconds(r.path) for r in [*machine.train, *machine.test]}
    usual = float(np.median([lasts[str(r.path)] for r in machine.train] or [0.0]))
    whole_s = min(audio.LONG_S, LONGER * usual)
    rule = (
        f"and the normals {usual:.3g} s: from {LONGER:g} times that on a clip is scored in windows, and a search "
        "scores whole clips alone; cut it first, or use nearfar evaluate"
    )
    test = {str(r.path): lasts[str(r.path)] for r in machine.test}
    return {file: f"lasts {seconds:.3g} s, {rule}" for file, seconds in test.items() if seconds > whole_s > 0}


def _seconds(path: Path) -> float:
    """Length of a file by its header; 0 if that does not know, or the file cannot be read, which is reported later."""
    try:
        seconds = audio.seconds(path)
    except (ValueError, OSError):
        return 0.0
    return seconds if np.isfinite(seconds) else 0.0


def _usable(
    space: Space, machines: Sequence[MachineClips], near: int, far: int | None
) -> tuple[Space, int | None, list[str]]:
    """The part of a space that the recordings allow, the far channel or None, and notes on what was left out."""
    notes = []
    if far is None or not all(_has_far(m.train[0].path, near, far) for m in machines if m.train):
        near_only = space.without_far()
        if skipped := len(space) - len(near_only):
            notes.append(f"no far microphone: {skipped:,} configurations of two-channel views are skipped")
        space, far = near_only, None
    largest = max(len(m.train) for m in machines)
    if largest > MOST_FOR_ZMIN and len(space) > len(without := space.without(lambda b: b.method == "zmin")):
        notes.append(f"zmin is skipped: its leave-one-out scores of {largest:,} normals would take too long")
        space = without
    smallest = min(machines, key=lambda m: len(m.train))
    if skipped := len(space) - len(without := space.without(lambda b: b.fewest > len(smallest.train))):
        notes.append(
            f"{smallest.name} has {len(smallest.train)} normals: {skipped:,} configurations of methods that need more, "
            "in `nearfar evaluate` too, are skipped"
        )
        space = without
    bare = [m.name for m in machines if not any(r.attributes for r in m.train)]
    if bare and (skipped := len(space) - len(without := space.without(lambda b: b.banks == ATTRIBUTE))):
        notes.append(
            f"{', '.join(bare)}: the names of the normals have no attributes and there is no attributes_00.csv: "
            f"{skipped:,} configurations with banks by attribute are skipped"
        )
        space = without
    if not len(space):
        raise ValueError(f"nothing of the search space is left: {'; '.join(notes)}")
    if not any(r.is_target for m in machines for r in m.train):
        notes.append("no target domain among the normals: the domain-aware methods work as one bank")
    return space, far, notes


def _has_far(path: Path, near: int, far: int) -> bool:
    try:
        return audio.read(path, near=near, far=far, frames=8192).far is not None
    except (ValueError, OSError):
        return True  # the file is reported with the other failures, when its grid is computed
