"""The report's search space at the size of a DCASE machine, beside the same configurations one by one.

One machine: 990 + 10 normals, 200 test clips, 64 normals of other machines, grids of T = 63, F = 8, D = 768 for four
waveforms. Ours: one preprocessing of six with the stated poolings, all views and back ends, recorded to disk; every
preprocessing costs the same, so the full grid is the settings' share of that. Plain: pool every clip, compose, fit,
score and leave one out, configuration by configuration, on a random sample of those that ours did, by the same library.
Limits: 300 times faster for mean, 100 for concat, under 8 GB.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from measure import in_fresh_process, report
from nearfar.backend import fit
from nearfar.challenge import search, space
from nearfar.embed import pool, waveform_of, waveforms_of
from nearfar.recipe import leaves
from nearfar.recordings import Recording
from nearfar.views import compose

TRAIN, TARGETS, TEST, PSEUDO = 1000, 10, 200, 64
T, F, D, TILES = 63, 8, 768, 16
WAVES = ("near", "far", "enh_a03f05", "enh_a05f07")


class Synthetic:
    """Grids that cost next to nothing: rolled tiles of noise around a common sound."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        sound = rng.normal(size=(1, F, D)).astype(np.float32)
        self.tiles = 0.3 * sound + 0.3 * rng.normal(size=(TILES, T, F, D)).astype(np.float32)

    def grid(self, path: str, waveform: str) -> np.ndarray:
        number = 4 * int(path) + WAVES.index(waveform)
        return np.roll(self.tiles[number % TILES], number // TILES, axis=-1)


def machine() -> search.Machine:
    def clips(start: int, count: int, split: str) -> list[Recording]:
        faulty = [split == "test" and i % 2 == 0 for i in range(count)]
        return [
            Recording(
                Path(str(start + i)), str(i), "m", split, i >= count - TARGETS if split == "train" else i % 4 < 2, f
            )
            for i, f in enumerate(faulty)
        ]

    return search.Machine(
        "m", clips(0, TRAIN, "train"), clips(TRAIN, TEST, "test"), clips(TRAIN + TEST, PSEUDO, "train")
    )


def chosen(freq: str, poolings: int) -> space.Space:
    whole = space.space(freqs=(freq,))
    settings = [s for s in whole.plan if (s.low, s.spike) == (0.15, 0.3)]
    settings = settings[:: len(settings) // poolings][:poolings]
    return space.Space({s: whole.plan[s] for s in settings})


def ours(freq: str, poolings: int) -> float:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        search.search_machine(machine(), Frames(Synthetic()), chosen(freq, poolings), "beats", folder)
    return time.perf_counter() - start


class Frames:
    """`search` asks by path."""

    def __init__(self, source: Synthetic) -> None:
        self.source = source

    def grid(self, path: Path, waveform: str, *, layer: int | None = None) -> np.ndarray:
        return self.source.grid(str(path), waveform)


def plain(freq: str, poolings: int, sample: int) -> float:
    every = list(chosen(freq, poolings).configurations("beats"))
    frames, is_target = Synthetic(), np.arange(TRAIN) >= TRAIN - TARGETS
    start = time.perf_counter()
    for at in np.random.default_rng(0).choice(len(every), sample, replace=False):
        for leaf in leaves(every[at]):
            _, view = waveform_of(leaf.view)
            z = np.stack(
                [
                    compose(view, *(pool(frames.grid(str(i), w), leaf) for w in waveforms_of(leaf.view)))
                    for i in range(TRAIN + TEST)
                ]
            )
            backend = fit(z[:TRAIN], is_target, **vars(leaf.switches))
            _ = backend.train_scores, backend.score(z[TRAIN:])
    return (time.perf_counter() - start) / sample


def main(cases: list[tuple[str, int, int]]) -> None:
    rows = []
    for freq, poolings, sample in cases:
        done = len(chosen(freq, poolings))
        seconds, _, memory = in_fresh_process(ours, freq, poolings)
        slow, _, _ = in_fresh_process(plain, freq, poolings, sample)
        whole = seconds * 144 / poolings
        rows.append(
            [freq, D if freq == "mean" else F * D, f"{done:,}", f"{seconds:.0f}", f"{done / seconds:.0f}"]
            + [f"{whole / 60:.1f}", f"{memory:.0f}", f"{slow:.2f} ({sample})", f"{slow * done / seconds:.0f}"]
        )
    columns = ["freq", "dimensions", "configurations", "seconds", "a second", "whole grid (26,208), min", "peak MiB"]
    notes = ["1,000 + 200 clips, four waveforms, T = 63, F = 8, D = 768; one preprocessing of six, extrapolated."]
    report("search", [*columns, "plain, s each (sample)", "ratio"], rows, notes)


if __name__ == "__main__":
    main([("mean", 24, 2), ("concat", 4, 1)] if len(sys.argv) < 2 else [("mean", 4, 2), ("concat", 2, 1)])
