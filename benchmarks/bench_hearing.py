"""What is heard, and whether the promised false alarms come: the default, its parts and what was shipped before.

Sessions: machines of `sessions.py`. All test clips are of days, places and noise that the normals do not know. Every
machine is fitted on 10 to 200 normals from 1, 3 or 10 sessions. "false alarms" are the share of healthy test clips
above the set-point for 1, 5 and 10 %, "worst" the machine with the most at 5 %, "hits" the share of faulty ones above
the set-point for 5 %, "oracle" the hits of the set-point that has the same rate of false alarms on the test clips.
Unrelated: machines of the demo, one room, every clip drawn anew: nothing changes between normals and test clips.

Demo: three machines of each seed, 100 normals and 80 test clips of 10 s; the column is the official number (harmonic
mean of both AUCs and pAUC). Motor: ../shared/data/dcase2026-form, where it is there. Factory: ../shared/data/mimii-8ch,
microphones 0 and 4, cut into windows of 2 s: AUC of the anomalous recording against each normal one in turn, fitted on
the other normal ones, mean over four machines (13 recordings: a hint, no more).

"X alone" is the default itself on machines of which X is no part.

All numbers are percent; a chance AUC is 50. Nothing is chosen by labels. `--quick` takes fewer machines (4 minutes).
The results are written anew after every machine and table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import sessions
from measure import Table, report_tables
from nearfar.audio import Clip, windows
from nearfar.audio.recordings import machines
from nearfar.demo import STRATA, draw_machine, make_clip, names, plan
from nearfar.detector import Detector
from nearfar.detector.default import NEAR_BESIDE_CLEAN, choose_system
from nearfar.detector.default import features as choose_features
from nearfar.embedding.embedder import ClipEmbedder, EmbeddedClip
from nearfar.encoders import load
from nearfar.metrics import auc, machine
from nearfar.recipe import BASELINE, Recipe, System, Watch, leaves
from nearfar.support.check import Array

SHARED = Path(__file__).parents[2] / "shared" / "data"
RATE = 16_000
TRAIN, TEST, SECONDS = (98, 2), 20, 10.0  # demo: source and target normals; test clips a domain and label
RATES = (0.01, 0.05, 0.10)
COUNTS, SESSIONS = (10, 20, 40, 60, 200), (1, 3, 10)
OF_SESSION = (200, 67, 67, *[20] * 7)  # normals of each training session: enough for every pair of the two lists above
TESTS = 10  # test sessions
SHORT = [("fan", "room", 0), ("clock", "room", 0), ("gearbox", "head", 0)]  # machines of a quick run
UNRELATED = (120, 200)  # normals and healthy test clips of a demo machine in which nothing changes


GAUSSIAN: dict[str, Any] = {"method": "mahalanobis", "standardize": True, "ignore_domains": True, "normalize": False}


@dataclass(frozen=True)
class Named:
    """A system under test.

    change       makes it of the default system
    everywhere   whether it is measured with fewer normals and sessions too
    calibration  of the detector
    told         whether the names of the files tell the sessions
    """

    name: str
    change: Callable[[Watch], System]
    everywhere: bool = False
    calibration: str = "groups"
    told: bool = False


def shipped(default: Watch) -> System:
    """The default of version 0.2.0 for normals of 4 s and more, fewer than 256."""
    subtract = any(name == "clean" for name, _, _ in default.parts)
    view = "w1i_8192" if subtract else "near_only"
    steady = Recipe(view=view, pooling="quantile", shrinkage=0.03, **GAUSSIAN)
    transient = Recipe(view=view, pooling="peak", shrinkage=0.1, **GAUSSIAN)
    return Watch((("steady", 0.5, steady), ("transient", 0.5, transient)))


def alone(name: str) -> Named:
    return Named(f"{name} alone", lambda default: next((s for n, _, s in default.parts if n == name), default))


def without(name: str) -> Named:
    def change(default: Watch) -> System:
        return replace(default, parts=tuple(part for part in default.parts if part[0] != name))

    return Named(f"without {name}", change)


def each_part(change: Callable[[str, Any], Recipe]) -> Callable[[Watch], Watch]:
    return lambda default: replace(default, parts=tuple((n, w, change(n, s)) for n, w, s in default.parts))


def unmodulated(default: Watch) -> Watch:
    """The default of fewer normals."""
    parts = [part for part in default.parts if part[0] != "modulation"]
    near = NEAR_BESIDE_CLEAN if any(name == "clean" for name, _, _ in parts) else 1.0
    return replace(default, parts=tuple((n, near if n == "near" else 1.0, s) for n, _, s in parts))


def near_only(default: Watch) -> Watch:
    """The default of one microphone."""
    own = replace(
        default, parts=tuple((n, 1.0 if w == NEAR_BESIDE_CLEAN else w, s) for n, w, s in default.parts if n != "clean")
    )
    return each_part(lambda _, recipe: replace(recipe, view="near_only"))(own)


def mean_always(default: Watch) -> System:
    def change(name: str, recipe: Recipe) -> Recipe:
        return (
            replace(recipe, plus=(Recipe(view=recipe.view, pooling="power", normalize=False),))
            if name == "clean"
            else recipe
        )

    return each_part(change)(default)


def shrunk(share: float) -> Named:
    def change(name: str, recipe: Recipe) -> Recipe:
        return recipe if name == "rhythm" else replace(recipe, shrinkage=share)

    return Named(f"shrinkage {share} in every part", each_part(change))


SYSTEMS = (
    Named("the default", lambda default: default, everywhere=True),
    Named("the default, file names tell the sessions", lambda default: default, everywhere=True, told=True),
    Named("shipped at 0.2.0", shipped, everywhere=True, calibration="clips"),
    Named("floor: near, mean + std, Ledoit-Wolf Gaussian", lambda default: BASELINE, calibration="clips"),
    *(alone(name) for name in ("clean", "near", "burst", "modulation")),
    *(without(name) for name in ("clean", "near", "burst", "rhythm")),
    Named("the mean power always joins the clean part", mean_always),
    *(shrunk(share) for share in (0.03, 0.3)),
    Named("leave-one-out calibration", lambda default: default, calibration="clips"),
    Named("near's own parts only", near_only),
    Named("without modulation", unmodulated, everywhere=True),
    Named("near's own parts only, without modulation", lambda default: near_only(unmodulated(default))),
)


class Heard:
    """Clips, embedded once for all systems; the first `count` of them are normals."""

    def __init__(self, clips: Sequence[Clip], count: int, places: Sequence[str] | None = None) -> None:
        self.features, self.why = choose_features(clips[: count : max(1, count // 48)])
        default = Watch(tuple((name, 1.0, recipe) for name, recipe in self.features.items()), "root_sum")
        if "quiet" in self.features:
            default = replace(default, parts=(*default.parts, ("clean", 1.0, self.features["quiet"])))
        asked = [leaf for named in SYSTEMS for leaf in leaves(named.change(default))]
        every = [each for leaf in [*self.features.values(), *asked] for each in (leaf, *leaf.plus)]
        self.recipes = list({_input(recipe): replace(recipe, plus=()) for recipe in reversed(every)}.values())
        encoders = {name: load(name) for name in sorted({recipe.encoder for recipe in self.recipes})}
        embedder = ClipEmbedder(0, 1, clips[0].seconds, self.recipes, encoders, threads=1, groups=True)
        self.clips = [one[0] for one in embedder.embed_many(clips, as_normals=True)]
        self.places = places

    def system(self, named: Named, chosen: Sequence[int]) -> System:
        """The system that the chosen normals give."""
        normals = [replace(clip, vectors=self.vectors(clip, self.features.values())) for clip in self.of(chosen)]
        return named.change(choose_system(self.features, normals, self.why)[0])

    def of(self, chosen: Sequence[int]) -> list[EmbeddedClip]:
        return [self.clips[i] for i in chosen]

    def vectors(self, clip: EmbeddedClip, recipes: Iterable[Recipe]) -> list[Array]:
        place = {_input(recipe): i for i, recipe in enumerate(self.recipes)}
        found = [[clip.vectors[place[_input(each)]] for each in (recipe, *recipe.plus)] for recipe in recipes]
        return [np.concatenate(each) for each in found]

    def fit(self, named: Named, chosen: Sequence[int], targets: Sequence[bool] | None = None) -> Detector:
        system = self.system(named, chosen)
        normals = [replace(self.clips[i], vectors=self.vectors(self.clips[i], leaves(system))) for i in chosen]
        if named.told and self.places:
            normals = [
                replace(clip, origin=replace(clip.origin, path=self.places[i]))
                for i, clip in zip(chosen, normals, strict=True)
            ]
        return Detector(system, calibration=named.calibration).fit_embedded(normals, targets)

    def scores(self, detector: Detector, chosen: Sequence[int]) -> Array:
        recipes = detector.recipes
        clips = [replace(clip, vectors=self.vectors(clip, recipes)) for clip in self.of(chosen)]
        return np.array([detector.score_embedded(clip).score for clip in clips])


def _input(recipe: Recipe) -> tuple[str, str, str]:
    """What a vector depends on."""
    return recipe.encoder, recipe.view, recipe.pooling


# ---- sessions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One system on one machine: false alarms, hits and the oracle's hits (3,) at RATES, the AUC of each fault."""

    kind: str
    pair: str
    system: str
    sessions: int
    normals: int
    alarms: Array
    hits: Array
    oracle: Array
    aucs: dict[str, float]


def trials(kind: str, pair: str, seed: int, grid: Sequence[tuple[int, int]]) -> Iterator[Trial]:
    rows, clips = sessions.rendered(kind, pair, seed, OF_SESSION, TESTS)
    full = chosen_normals(rows, max(SESSIONS), max(COUNTS))
    test = [i for i, row in enumerate(rows) if row.split == "test"]
    order = [*full, *(i for i in range(len(rows)) if i not in set(full))]
    places = [f"session {rows[i].session:02d}/{i:04d}.wav" for i in order]
    heard = Heard([clips[i] for i in order], len(full), places)
    place = {i: k for k, i in enumerate(order)}
    faults = [rows[i].fault for i in test]
    for many, count in grid:
        train = [place[i] for i in chosen_normals(rows, many, count)]
        for named in SYSTEMS:
            if named.everywhere or (many, count) == (max(SESSIONS), max(COUNTS)):
                detector = heard.fit(named, train)
                scores = heard.scores(detector, [place[i] for i in test])
                lines = np.array([detector.set_threshold(rate=rate).value for rate in RATES])
                yield Trial(kind, pair, named.name, many, count, *judged(scores, faults, lines))


def by_machine(subjects: Sequence[tuple[str, str, int]], processes: int) -> Iterator[list[Trial]]:
    """All trials of each machine, in the order in which the machines are done."""
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_one_thread) as pool:
        yield from pool.imap_unordered(_listed, subjects)


def _one_thread() -> None:
    threadpool_limits(1)


def _listed(subject: tuple[str, str, int]) -> list[Trial]:
    return list(trials(*subject, [(many, count) for many in SESSIONS for count in COUNTS]))


def chosen_normals(rows: Sequence[sessions.Row], many: int, count: int) -> list[int]:
    """Indices of `count` normals, equally many of each of the first `many` sessions, in the order of recording."""
    out: list[int] = []
    for s in range(many):
        of_session = [i for i, row in enumerate(rows) if row.split == "train" and row.session == s]
        out += of_session[: count * (s + 1) // many - count * s // many]
    return out


def judged(scores: Array, faults: Sequence[str], lines: Array) -> tuple[Array, Array, Array, dict[str, float]]:
    healthy = np.array([not fault for fault in faults])
    normal, faulty = scores[healthy], scores[~healthy]
    alarms = (normal[:, None] > lines).mean(axis=0)
    hits = (faulty[:, None] > lines).mean(axis=0)
    oracle = (faulty[:, None] > np.quantile(normal, 1 - alarms)).mean(axis=0)
    aucs = {}
    for fault in sorted({fault for fault in faults if fault}):
        chosen = healthy | (np.array(faults) == fault)
        aucs[fault] = auc(scores[chosen], ~healthy[chosen])
    return alarms, hits, oracle, aucs


def by_system(found: Sequence[Trial]) -> Table:
    """One row a system: AUCs by group of faults, then false alarms and hits, at the most normals and sessions."""
    rows = []
    for named in SYSTEMS:
        mine = [t for t in found if (t.system, t.sessions, t.normals) == (named.name, max(SESSIONS), max(COUNTS))]
        cells = []
        for pair in ("room", "head"):
            for faults in sessions.GROUPS.values():
                aucs = [value for t in mine if t.pair == pair for fault, value in t.aucs.items() if fault in faults]
                cells.append(f"{100 * np.mean(aucs):.1f}" if aucs else "-")
        rows.append([named.name, *cells, *_rates(mine)])
    groups = [f"{group}, {pair}" for pair in ("room", "head") for group in sessions.GROUPS]
    return Table(
        "New sessions: 10 sessions and 200 normals",
        ["system", *groups, "false alarms at 1 / 5 / 10 %", "worst at 5 %", "hits at 5 %", "oracle"],
        rows,
    )


def by_normals(found: Sequence[Trial]) -> Table:
    cells: dict[tuple[str, int, int], list[Trial]] = defaultdict(list)
    everywhere = [named.name for named in SYSTEMS if named.everywhere]
    for t in found:
        if t.system in everywhere:
            cells[t.system, t.sessions, t.normals].append(t)
    rows = [
        [*key, f"{100 * np.mean([np.mean(list(t.aucs.values())) for t in mine]):.1f}", *_rates(mine)]
        for key, mine in sorted(cells.items(), key=lambda item: (everywhere.index(item[0][0]), *item[0][1:]))
    ]
    columns = ["system", "sessions", "normals", "AUC"]
    return Table(
        "New sessions: how many sessions and normals",
        [*columns, "false alarms at 1 / 5 / 10 %", "worst at 5 %", "hits at 5 %", "oracle"],
        rows,
    )


def _rates(found: Sequence[Trial]) -> list[str]:
    alarms = np.mean([t.alarms for t in found], axis=0)
    hits, oracle = (
        100 * np.mean([a[1] for a in each]) for each in ([t.hits for t in found], [t.oracle for t in found])
    )
    worst = 100 * max(t.alarms[1] for t in found)
    return [" / ".join(f"{100 * a:.1f}" for a in alarms), f"{worst:.0f}", f"{hits:.0f}", f"{oracle:.0f}"]


# ---- nothing changes ----------------------------------------------------------------------------------------------


def unrelated(seeds: int, kinds: int) -> Table:
    """False alarms where every clip is drawn anew in the one room that the normals know."""
    alarms = defaultdict(list)
    for seed in range(200, 200 + seeds):
        for index in range(kinds):
            subject = draw_machine(index, seed=seed)
            clips = []
            for i in range(sum(UNRELATED)):
                wave = make_clip(subject, plan(index, 0, i, seed=seed), index, sessions.CLIP_S, seed=seed)
                near, far = wave.T.astype(np.float32) / 32768
                clips.append(Clip(near, far, RATE, f"clip {i:04d}"))
            heard = Heard(clips, UNRELATED[0])
            for named in [named for named in SYSTEMS if named.everywhere and not named.told]:
                for count in (20, 60, UNRELATED[0]):
                    detector = heard.fit(named, range(count))
                    scores = heard.scores(detector, range(UNRELATED[0], sum(UNRELATED)))
                    lines = [detector.set_threshold(rate=rate).value for rate in RATES]
                    alarms[named.name, count].append([float((scores > line).mean()) for line in lines])
    rows = [
        [*key, " / ".join(f"{100 * a:.1f}" for a in np.mean(found, axis=0)), f"{100 * np.max(found, axis=0)[1]:.0f}"]
        for key, found in sorted(alarms.items())
    ]
    title = "Nothing changes, clips are unrelated"
    return Table(title, ["system", "normals", "false alarms at 1 / 5 / 10 %", "worst at 5 %"], rows)


# ---- demo, motor, factory -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Test:
    """What is known of a demo's test clip."""

    is_anomaly: bool
    is_target: bool
    fault: str = ""


def scores(train: Sequence[Clip], test: Sequence[Clip], targets: Sequence[bool]) -> dict[str, tuple[Array, float]]:
    """Scores (M,) of the test clips by every system, and its set-point for 5 %; each clip is heard once for all."""
    heard = Heard([*train, *test], len(train))
    normals, rest = range(len(train)), range(len(train), len(train) + len(test))
    detectors = {named.name: heard.fit(named, normals, targets) for named in SYSTEMS}
    return {name: (heard.scores(d, rest), d.set_threshold(rate=0.05).value) for name, d in detectors.items()}


def demo(index: int, seed: int) -> tuple[dict[str, tuple[Array, float]], list[Test]]:
    """Scores of one demo machine, and what its test clips are."""
    subject = draw_machine(index, seed=seed)
    plans = [plan(index, s, i, seed=seed) for s in range(len(STRATA)) for i in range(TRAIN[s] if s < 2 else TEST)]
    clips = []
    for p in plans:
        wave = make_clip(subject, p, index, SECONDS, seed=seed).astype(np.float32) / 32768
        clips.append(Clip(wave[:, 0], wave[:, 1], RATE, p.path))
    train = sum(TRAIN)
    truth = [Test(p.fault is not None, p.domain == "target", p.fault or "") for p in plans[train:]]
    return scores(clips[:train], clips[train:], [p.domain == "target" for p in plans[:train]]), truth


def motor() -> dict[str, list[str]]:
    """Of every system on the real motor: the official number, and the faulty and healthy clips that alarm at 5 %."""
    found = next(iter(machines(SHARED / "dcase2026-form").values()))
    train = [r for r in found if r.split == "train"]
    test = [r for r in found if r.split == "test"]
    heard = scores(_read(train), _read(test), [bool(r.is_target) for r in train])
    labels = [bool(r.is_anomaly) for r in test], [bool(r.is_target) for r in test]
    faulty = np.array(labels[0])
    out = {}
    for name, (values, line) in heard.items():
        alarms = [f"{(values[of] > line).sum()} of {of.sum()}" for of in (faulty, ~faulty)]
        out[name] = [_percent(machine(values, *labels).omega), ", ".join(alarms)]
    return out


def factory() -> dict[str, list[str]]:
    """AUC of every system on windows of the factory recordings, mean over machines."""
    found: dict[str, list[float]] = defaultdict(list)
    for kind in ("fan", "pump", "slider", "valve"):
        normals = [_cut(path) for path in sorted((SHARED / "mimii-8ch").glob(f"{kind}_normal_*"))]
        broken = [clip for path in (SHARED / "mimii-8ch").glob(f"{kind}_anomaly_*") for clip in _cut(path)]
        for held in range(len(normals)):
            train = [clip for i, clips in enumerate(normals) for clip in clips if i != held]
            labels = [False] * len(normals[held]) + [True] * len(broken)
            for name, (values, _) in scores(train, normals[held] + broken, [False] * len(train)).items():
                found[name].append(auc(values, labels))
    return {name: [_percent(float(np.mean(values)))] for name, values in found.items()}


def _read(recordings: Sequence) -> list[Clip]:
    return [next(windows(r.path, near=0, far=1, length_s=SECONDS)) for r in recordings]


def _cut(path: Path) -> list[Clip]:
    clip = next(windows(path, near=0, far=4, length_s=SECONDS))
    step = 2 * clip.rate
    assert clip.far is not None
    starts = range(0, len(clip.near) - step + 1, step)
    return [Clip(clip.near[s : s + step], clip.far[s : s + step], clip.rate, f"{path.stem} {s}") for s in starts]


def unchanged(seeds: int) -> Table:
    """The official number on demo machines, and the real recordings."""
    heard = {(kind, seed): demo(index, seed) for seed in range(100, 100 + seeds) for index, kind in enumerate(names(3))}
    real = [work() for work in (motor, factory)] if SHARED.exists() else []
    rows = []
    for name in (named.name for named in SYSTEMS):
        kinds = []
        for kind in names(3):
            found = [(scores[name][0], truth) for (k, _), (scores, truth) in heard.items() if k == kind]
            kinds.append(np.mean([_omega(values, truth) for values, truth in found]))
        rows.append([name, *map(_percent, [*kinds, np.mean(kinds)]), *(cell for each in real for cell in each[name])])
    columns = ["system", *names(3), "mean", *(("motor", "its alarms: faulty, healthy", "factory") if real else ())]
    return Table(f"Demo machines of {seeds} seeds, and real recordings", columns, rows)


def _omega(values: Array, truth: list[Test]) -> float:
    return machine(values, [t.is_anomaly for t in truth], [t.is_target for t in truth]).omega


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What is heard, and whether the promised false alarms come.")
    parser.add_argument("--quick", action="store_true", help="fewer machines: 4 minutes")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="machines in sessions at a time")
    asked = parser.parse_args()
    subjects = [(kind, pair, 0) for pair in ("room", "head") for kind in sessions.KINDS]
    subjects = SHORT if asked.quick else subjects
    seeds = 1 if asked.quick else 2
    found: list[Trial] = []
    tables: list[Table] = []

    def write() -> None:
        done = len({(t.kind, t.pair) for t in found})
        note = f"{done} machines in sessions. Percent; `bench_hearing.py` says what is what."
        report_tables("hearing", tables, [f"{note} docs/decisions.md has what was tried and failed."])

    for of_machine in by_machine(subjects, asked.processes):
        found += of_machine
        tables = [by_system(found), by_normals(found)]
        write()
    for more in (lambda: unrelated(seeds, 1 if asked.quick else 3), lambda: unchanged(seeds)):
        tables.append(more())
        write()


if __name__ == "__main__":
    main()
