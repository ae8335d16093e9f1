"""The report's search space at the size of a DCASE machine, beside the same configurations one by one; how it grows.

One machine: 990 + 10 normals, 200 test clips, 64 normals of other machines, grids of T = 63, F = 8, D = 768 for four
waveforms. Ours: one preprocessing of six with some of the 24 poolings, all views and back ends, recorded to disk; every
preprocessing costs the same, so the full grid is the settings' share of that. Plain: pool every clip, compose, fit,
score and leave one out, configuration by configuration, by the same library. The plain sample is drawn from what ours
did, by strata: how many grids a configuration pools (1, 2 or 4 waveforms) and how, more of those that cost little.
Pooling one clip takes no notice of the others, so a twelfth of the clips is pooled and the time taken twelve times;
back ends get as many vectors as there are. Limits: 300 times faster for mean, 100 for concat, under 8 GB.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from measure import in_fresh_process, report
from nearfar.audio.recordings import Recording
from nearfar.backend import fit
from nearfar.challenge.search import run, space
from nearfar.embedding.vectors import pool
from nearfar.encoders import Layers
from nearfar.recipe import Recipe, leaves
from nearfar.views import compose, unit

TARGETS, PSEUDO = 10, 64
T, F, TILES = 63, 8, 16
WAVES = ("near", "far", "enh_a03f05", "enh_a05f07")
WHOLE = 144  # settings of the report's grid
TWELFTH = 12


@dataclass(frozen=True)
class Case:
    """A machine of `train` normals, and a fifth of that to test; `sample`: the plain ones of a cheap stratum, or 0."""

    freq: str
    train: int
    width: int
    poolings: int
    sample: int = 0

    @property
    def clips(self) -> int:
        return self.train + self.train // 5

    @property
    def dimensions(self) -> int:
        return self.width * (F if self.freq == "concat" else 1)


class Synthetic:
    """Grids that cost next to nothing: rolled tiles of noise around a common sound."""

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(0)
        sound = rng.normal(size=(1, F, width)).astype(np.float32)
        self.tiles = 0.3 * sound + 0.3 * rng.normal(size=(TILES, T, F, width)).astype(np.float32)

    def grids(
        self, path: str | os.PathLike[str], waveforms: Iterable[str], layer: Layers = None
    ) -> dict[str, np.ndarray]:
        return {name: self._grid(4 * int(str(path)) + WAVES.index(name)) for name in waveforms}

    def _grid(self, number: int) -> np.ndarray:
        return np.roll(self.tiles[number % TILES], number // TILES, axis=-1)


def machine(case: Case) -> run.MachineClips:
    def clips(start: int, count: int, split: str) -> list[Recording]:
        faulty = [split == "test" and i % 2 == 0 for i in range(count)]
        return [
            Recording(
                Path(str(start + i)), str(i), "m", split, i >= count - TARGETS if split == "train" else i % 4 < 2, f
            )
            for i, f in enumerate(faulty)
        ]

    train, test = clips(0, case.train, "train"), clips(case.train, case.train // 5, "test")
    return run.MachineClips("m", train, test, clips(case.clips, PSEUDO, "train"))


def chosen(case: Case) -> space.Space:
    whole = space.space(freqs=(case.freq,))
    settings = [s for s in whole.plan if (s.low, s.spike) == (0.15, 0.3)]
    settings = settings[:: len(settings) // case.poolings][: case.poolings]
    return space.Space({s: whole.plan[s] for s in settings})


def ours(case: Case) -> float:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run.search_machine(run.plan(machine(case), chosen(case), "beats", folder), Synthetic(case.width))
    return time.perf_counter() - start


def plain(case: Case) -> tuple[float, float, int, list[float]]:
    """(seconds a configuration, its standard error, how many were taken, seconds of one in full and by its twelfth)."""
    rng, frames = np.random.default_rng(0), Synthetic(case.width)
    strata: dict[tuple[int, str], list[Recipe]] = {}
    for recipe in chosen(case).configurations("beats"):
        grids = sum(len(leaf.parsed_view.waveforms) for leaf in leaves(recipe))
        strata.setdefault((grids, recipe.pooling), []).append(recipe)
    whole, mean, variance, taken = len(chosen(case)), 0.0, 0.0, 0
    for (grids, _), recipes in strata.items():
        count = min(max(2, case.sample // grids), len(recipes))
        seconds = [alone(recipes[i], frames, case, rng) for i in rng.choice(len(recipes), count, replace=False)]
        share = len(recipes) / whole
        mean, taken = mean + share * float(np.mean(seconds)), taken + count
        variance += share**2 * float(np.var(seconds, ddof=1)) / count
    one = next(chosen(case).configurations("beats"))
    return float(mean), float(variance**0.5), taken, [alone(one, frames, case, rng, share) for share in (1, TWELFTH)]


def alone(recipe: Recipe, frames: Synthetic, case: Case, rng: np.random.Generator, share: int = TWELFTH) -> float:
    is_target = np.arange(case.train) >= case.train - TARGETS
    total = 0.0
    for leaf in leaves(recipe):
        start = time.perf_counter()
        some = np.stack([vector(leaf, frames, i) for i in range(0, case.clips, share)])
        total += (time.perf_counter() - start) * case.clips / len(some)
        z = unit(rng.normal(size=(case.clips, some.shape[1])).astype(np.float32))
        start = time.perf_counter()
        backend = fit(z[: case.train], is_target, **vars(leaf.backend))
        _ = backend.train_scores, backend.score(z[case.train :])
        total += time.perf_counter() - start
    return total


def vector(leaf: Recipe, frames: Synthetic, clip: int) -> np.ndarray:
    view = leaf.parsed_view.pooled
    return compose(view, *pool(list(frames.grids(Path(str(clip)), leaf.parsed_view.waveforms).values()), leaf))


def rows(cases: list[Case], notes: list[str]) -> Iterator[list[str]]:
    for case in cases:
        done = len(chosen(case))
        seconds, _, memory = in_fresh_process(ours, case)
        row = [f"{case.train:,} + {case.train // 5:,}", case.freq, f"{case.dimensions:,}", f"{done:,}"]
        row += [f"{seconds:.1f}", f"{done / seconds:.0f}", f"{seconds * WHOLE / case.poolings / 60:.1f}"]
        row += [f"{memory:.0f}"]
        if not case.sample:
            yield [*row, "", ""]
            continue
        (slow, error, taken, (full, part)), _, _ = in_fresh_process(plain, case)
        notes.append(f"Plain, {case.freq}: one in full takes {full:.2f} s, told from a twelfth {part:.2f} s.")
        yield [*row, f"{slow:.2f} ± {error:.2f} ({taken})", f"{slow * done / seconds:.0f}"]


FULL = [
    Case("mean", 1000, 768, 12, sample=8),
    Case("concat", 1000, 768, 4, sample=4),
    *(Case("mean", train, 768, 4) for train in (500, 1000, 2000)),
    *(Case("concat", 1000, width, 4) for width in (96, 384)),
]
SMALL = [Case("mean", 100, 48, 4, sample=4), Case("concat", 100, 48, 2, sample=2), Case("mean", 200, 48, 4)]


if __name__ == "__main__":
    columns = ["clips", "freq", "dimensions", "configurations", "seconds", "a second", "whole grid (26,208), min"]
    notes = [
        "Four waveforms, T = 63, F = 8, 64 clips of other machines; one preprocessing of six, extrapolated. The sample "
        "is stratified; ± is the standard error of its mean."
    ]
    found = list(rows(FULL if len(sys.argv) < 2 else SMALL, notes))
    report("search", [*columns, "peak MiB", "plain, s each (sample)", "ratio"], found, notes)
