"""What is heard: the default beside the scikit-learn floor and single steps, on demo machines and on real recordings.

Demo: three machines of each seed, 100 normals and 80 test clips of 10 s. A machine's column is its official number
(harmonic mean of both AUCs and pAUC, percent; 50 is chance), averaged over the seeds; "steady" and "knocks" are AUCs of
the clips with such a fault against all normal test clips. Motor: ../shared/data/dcase2026-form, where it is there.
Factory: ../shared/data/mimii-8ch, microphones 0 and 4, cut into windows of 2 s: AUC of the anomalous recording against
each normal one in turn, fitted on the other normal ones, mean over four machines (13 recordings: a hint, no more).
Nothing was chosen by labels here; the parts show which step is worth what.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from measure import report
from nearfar.audio import Clip, windows
from nearfar.audio.recordings import machines
from nearfar.demo import STRATA, draw_machine, make_clip, names, plan
from nearfar.detector import Detector
from nearfar.detector.default import choose_recipe
from nearfar.embedding.embedder import ClipEmbedder
from nearfar.encoders import load
from nearfar.metrics import auc, machine
from nearfar.recipe import BASELINE, Recipe, System, leaves

SHARED = Path(__file__).parents[2] / "shared" / "data"
TRAIN, TEST, SECONDS, RATE = (98, 2), 20, 10.0, 16_000  # source and target normals; test clips a domain and label
GAUSS = {"method": "mahalanobis", "shrinkage": 0.1, "standardize": True, "ignore_domains": True, "normalize": False}
PLAIN = {"pooling": "mean_std", "method": "mahalanobis", "ignore_domains": True, "normalize": False}
SYSTEMS: dict[str, System | None] = {
    "floor: near, mean + std, Ledoit-Wolf Gaussian": BASELINE,
    "w1_1024, same": Recipe(view="w1_1024", **PLAIN),
    "w1_16384, same": Recipe(view="w1_16384", **PLAIN),
    "w1w_16384 (weighted), same": Recipe(view="w1w_16384", **PLAIN),
    "near, quantile": Recipe(pooling="quantile", **GAUSS),
    "w1w_16384, quantile": Recipe(view="w1w_16384", pooling="quantile", **GAUSS),
    "near, peak": Recipe(pooling="peak", **GAUSS),
    "w1_1024, peak": Recipe(view="w1_1024", pooling="peak", **GAUSS),
    "w1w_8192, peak": Recipe(view="w1w_8192", pooling="peak", **GAUSS),
    "w1i_8192 (its inside), peak": Recipe(view="w1i_8192", pooling="peak", **GAUSS),
    "the default": None,
}
KNOCKS = ("bearing", "tooth", "sticking")


@dataclass(frozen=True)
class Test:
    """What is known of a test clip."""

    is_anomaly: bool
    is_target: bool
    fault: str = ""


def scores(train: Sequence[Clip], test: Sequence[Clip], targets: Sequence[bool]) -> dict[str, np.ndarray]:
    """Scores (M,) of the test clips by every system; each clip is heard once for all of them."""
    systems = {name: system or choose_recipe(train)[0] for name, system in SYSTEMS.items()}
    recipes = list(dict.fromkeys(leaf for system in systems.values() for leaf in leaves(system)))
    embedder = ClipEmbedder(0, 1, SECONDS, recipes, {"logmel": load("logmel")})
    heard = [one[0] for one in embedder.embed_many([*train, *test], as_normals=True)]
    out = {}
    for name, system in systems.items():
        mine = [recipes.index(leaf) for leaf in leaves(system)]
        own = [replace(h, vectors=[h.vectors[i] for i in mine]) for h in heard]
        detector = Detector(system).fit_embedded(own[: len(train)], targets)
        out[name] = np.array([detector.score_embedded(h).value for h in own[len(train) :]])
    return out


def demo(index: int, seed: int) -> tuple[dict[str, np.ndarray], list[Test]]:
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


def motor() -> dict[str, float]:
    """The official number of every system on the real motor."""
    found = next(iter(machines(SHARED / "dcase2026-form").values()))
    train = [r for r in found if r.split == "train"]
    test = [r for r in found if r.split == "test"]
    heard = scores(_read(train), _read(test), [bool(r.is_target) for r in train])
    labels = [bool(r.is_anomaly) for r in test], [bool(r.is_target) for r in test]
    return {name: machine(values, *labels).omega for name, values in heard.items()}


def factory() -> dict[str, float]:
    """AUC of every system on windows of the factory recordings, mean over machines."""
    found: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for kind in ("fan", "pump", "slider", "valve"):
        normals = [_cut(path) for path in sorted((SHARED / "mimii-8ch").glob(f"{kind}_normal_*"))]
        broken = [clip for path in (SHARED / "mimii-8ch").glob(f"{kind}_anomaly_*") for clip in _cut(path)]
        for held in range(len(normals)):
            train = [clip for i, clips in enumerate(normals) for clip in clips if i != held]
            labels = [False] * len(normals[held]) + [True] * len(broken)
            for name, values in scores(train, normals[held] + broken, [False] * len(train)).items():
                found[name].append(auc(values, labels))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _read(recordings: Sequence) -> list[Clip]:
    return [next(windows(r.path, near=0, far=1, length_s=SECONDS)) for r in recordings]


def _cut(path: Path) -> list[Clip]:
    clip = next(windows(path, near=0, far=4, length_s=SECONDS))
    step = 2 * clip.rate
    assert clip.far is not None
    starts = range(0, len(clip.near) - step + 1, step)
    return [Clip(clip.near[s : s + step], clip.far[s : s + step], clip.rate, f"{path.stem} {s}") for s in starts]


def rows(seeds: int) -> Iterator[list[str]]:
    heard = {(kind, seed): demo(index, seed) for seed in range(100, 100 + seeds) for index, kind in enumerate(names(3))}
    real = [
        work() for work, folder in ((motor, "dcase2026-form"), (factory, "mimii-8ch")) if (SHARED / folder).exists()
    ]
    for name in SYSTEMS:
        omegas = {kind: [_omega(*heard[kind, s], name) for k, s in heard if k == kind] for kind in names(3)}
        kinds = [np.mean(values) for values in omegas.values()]
        groups = [np.nanmean([_auc(*one, name, knocks=knocks) for one in heard.values()]) for knocks in (False, True)]
        yield [name, *(f"{100 * value:.1f}" for value in [*kinds, np.mean(kinds), *groups, *(r[name] for r in real)])]


def _omega(heard: dict[str, np.ndarray], truth: list[Test], name: str) -> float:
    return machine(heard[name], [t.is_anomaly for t in truth], [t.is_target for t in truth]).omega


def _auc(heard: dict[str, np.ndarray], truth: list[Test], name: str, *, knocks: bool) -> float:
    of_group = [not t.is_anomaly or (t.fault in KNOCKS) == knocks for t in truth]
    labels = np.array([t.is_anomaly for t in truth])[of_group]
    return auc(heard[name][of_group], labels) if labels.any() else np.nan


def main(seeds: int) -> None:
    table = list(rows(seeds))
    columns = ["system", *names(3), "mean", "steady", "knocks", "motor", "factory"][: len(table[0])]
    report(
        "hearing",
        columns,
        table,
        [f"Demo machines of {seeds} seeds. Percent; see `bench_hearing.py` for what is what."],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
