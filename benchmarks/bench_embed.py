"""`nearfar embed` against the network alone: the same waveforms, in one run, side by side.

The network's own rate is `encoder.grid` on waveforms that lie in memory, in the batches that extraction uses.
Extraction hashes, decodes, enhances, runs the network, rounds and writes. Both sides take turns, a tenth of the
recordings at a time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from measure import in_fresh_process, report
from nearfar import audio, encoders
from nearfar.embedding.fill import REPORT, Order, embed_shard
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import EncoderInput, vectors, waveform
from nearfar.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import fake_encoders

RATE, SECONDS, BATCH = 16_000, 10, 8
SIZES = {"ced-tiny": (192, 200), "ced-small": (384, 24), "ced-base": (768, 12)}  # width, recordings


def record(folder: Path, count: int) -> list[Path]:
    """Stereo recordings of ten seconds: a hum in noise, heard by two microphones."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:03}.wav" for i in range(count)]
    for path in paths:
        t = np.arange(RATE * SECONDS) / RATE
        machine = np.sin(2 * np.pi * rng.uniform(50, 400) * t) + 0.3 * rng.normal(size=t.size)
        room = rng.normal(size=t.size)
        pair = np.stack([machine + 0.3 * room, 0.1 * machine + room], axis=1) * 0.05
        soundfile.write(path, pair, RATE, subtype="PCM_16")
    return paths


def weights(folder: Path, name: str) -> Path:
    """Random weights in the published form of a CED of this width."""
    fake_encoders.WIDTH = SIZES[name][0]
    return fake_encoders.write_ced_tiny(folder / name)


def compare(name: str, paths: list[Path], file: Path, waveforms: tuple[str, ...], store: Path) -> tuple[float, float]:
    """Seconds of the network alone, and of extraction, over all recordings."""
    order = Order(str(store), (name,), waveforms, weights={name: file})
    grids = order.cached_encoders()
    encoder = grids.encoders[name]
    network = extraction = 0.0
    embed_shard(paths[:1], replace(order, store=f"{store}-warm"))
    size = max(4, len(paths) // 10)
    for low in range(0, len(paths), size):
        part = paths[low : low + size]
        waves = [waveform(audio.read(p), w, encoder.sample_rate) for p in part for w in waveforms]
        start = time.perf_counter()
        for first in range(0, len(waves), BATCH):
            encoder.grid(waves[first : first + BATCH])
        network += time.perf_counter() - start
        start = time.perf_counter()
        embed_shard(part, order, grids=grids)
        extraction += time.perf_counter() - start
    return network, extraction


def extract(paths: list[Path], order: Order) -> None:
    """Extraction alone, for its memory."""
    embed_shard(paths, order)


def rounding(paths: list[Path], name: str, file: Path) -> list[list[str]]:
    """What float16 frames do to distances between clips, for poolings of Table 3."""
    encoder = encoders.load(name, file)
    grids = encoder.grid([audio.read(p).near for p in paths])
    rows = []
    for settings in ({}, {"pooling": "rdp_gem", "alpha": 9}, {"freq": "mean"}):
        recipe = Recipe(encoder=name, **settings)
        exact, rounded = (
            np.stack(
                [vectors([recipe], {EncoderInput("near", name): g.astype(kind).astype(np.float32)})[0] for g in grids]
            )
            for kind in (np.float32, np.float16)
        )
        a, b = (pairwise(z) for z in (exact, rounded))
        error = np.abs(a - b) / a
        rows.append([f"{recipe.pooling}, {recipe.freq}", f"{error.max():.1e}", f"{np.median(error):.1e}"])
    return rows


def pairwise(z: Any) -> Any:
    """Cosine distances between different clips."""
    d = 1 - z.astype(np.float64) @ z.T.astype(np.float64)
    return d[~np.eye(len(z), dtype=bool)]


def main(divide: int) -> None:
    """Measure and write results/embed.md; with a fraction of the recordings for a look."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = record(folder, max(count for _, count in SIZES.values()))
        rows = []
        for name, (_, count) in SIZES.items():
            count = max(8, count // divide)
            file = weights(folder, name)
            for waveforms in (("near", "far"), REPORT) if name == "ced-tiny" else (REPORT,):
                some = paths[: count if len(waveforms) == 4 else count // 2]
                label = f"{name}-{len(waveforms)}"
                network, extraction = compare(name, some, file, waveforms, folder / label)
                order = Order(str(folder / f"{label}-memory"), (name,), waveforms, weights={name: file})
                _, _, memory = in_fresh_process(extract, some[: max(12, count // 8)], order)
                each = 1000 * network / len(some) / len(waveforms)
                rows.append(
                    [name, len(some), len(waveforms), f"{each:.0f}", f"{network:.1f}", f"{extraction:.1f}"]
                    + [f"**{network / extraction:.2f}**", f"{memory:.0f}"]
                )
        size = Store(folder / "ced-base-4").size() / count / 4 / 1000
        error = rounding(paths[:12], "ced-base", weights(folder, "ced-base"))
    notes = [
        "Ten-second stereo recordings, random weights. The network alone takes waveforms from memory; `embed` hashes, "
        "decodes, enhances (near, far and the two soft masks), runs the network and writes float32 frames.",
        f"On disk: {size:.0f} kB a waveform (ced-base), half of it with --dtype float16, whose relative error of the "
        "cosine distances between clips is: "
        + "; ".join(f"{pooling}: at most {largest}, median {median}" for pooling, largest, median in error)
        + ".",
    ]
    columns = ["encoder", "recordings", "waveforms each", "network, ms a waveform", "network alone, s", "embed, s"]
    report("embed", [*columns, "share of the network's rate", "peak memory, MiB"], rows, notes)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
