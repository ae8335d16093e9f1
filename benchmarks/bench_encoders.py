"""Every encoder at its published size: exactness, seconds a clip, distance from plain sgemm, memory, time to load.

    python benchmarks/bench_encoders.py [NAME ...]      names of ../shared/golden/manifests

The ratio compares a clip's time, front end included, with the time that the same floating-point operations take as
`torch.mm` on both processors. The two sides take turns in one process; of each the fastest turn counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measure import in_fresh_process, report

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
NAMES = ("eat-large", "eat-as2m", "beats", "ced-base", "m2d-clap", "sslam", "openl3", "dasheng", "ced-tiny")
TURNS, BATCHES = 5, (1, 8)
MANY = 500  # clips of one second, after which memory must be what it was


def main(names: list[str]) -> None:
    sys.path.insert(0, str(GOLDEN))
    from fake_weights import fake_checkpoint
    from write_checkpoint import write_checkpoint

    rows = []
    for name in names or NAMES:
        manifest = json.loads((GOLDEN / "manifests" / f"{name}.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            path = str(write_checkpoint(manifest, fake_checkpoint(manifest, seed=1), folder))
            converted = str(Path(folder) / "converted.safetensors")
            in_fresh_process(convert, manifest["encoder"], path, converted)
            loads = [in_fresh_process(load_seconds, manifest["encoder"], file)[0] for file in (path, converted)]
            peak = in_fresh_process(one_clip, manifest["encoder"], path)[2]
            worst, mean, per_clip = in_fresh_process(measured, name, path)[0]
            rows.append([name, worst, mean, parameters(manifest["encoder"]), *per_clip, *loads, f"{peak:.0f}"])
            if name == "ced-tiny":
                growth = in_fresh_process(grown, manifest["encoder"], path)[0]
                print(f"ced-tiny: {growth:.1f} MiB more after {MANY} clips")
                rows[-1][0] += f" ({growth:+.1f} MiB after {MANY} clips)"
    timed = [text for batch in BATCHES for text in (f"s a clip, batch {batch}", f"to sgemm, batch {batch}")]
    loaded = ["s to load, published", "s to load, converted"]
    report("encoders", ["encoder", "max", "mean", "parameters", *timed, *loaded, "peak MiB"], rows, NOTES)


NOTES = (
    "max, mean: difference from the reference over its standard deviation. A clip is 10 s. Peak: of a process that "
    "loads the network and hears one clip.",
)


def parameters(encoder: str) -> str:
    from nearfar.encoders import TABLE

    return f"{TABLE[encoder].parameters:,}"


def convert(encoder: str, path: str, target: str) -> None:
    from nearfar.encoders import checkpoint

    checkpoint.convert(encoder, path, target)


def load_seconds(encoder: str, path: str) -> str:
    import torch  # noqa: F401 - its own import is not the loader's

    from nearfar.encoders import load

    load(encoder, path)  # imports, and the file into memory
    start = time.perf_counter()
    load(encoder, path)
    return f"{time.perf_counter() - start:.2f}"


def one_clip(encoder: str, path: str) -> None:
    from nearfar.encoders import load

    network = load(encoder, path)
    network.grid(np.random.default_rng(0).normal(0, 0.1, (1, 10 * network.sample_rate)))


def grown(encoder: str, path: str) -> float:
    """MiB that the process holds more after many clips than after a few."""
    from nearfar.encoders import load

    network = load(encoder, path)
    wave = np.random.default_rng(0).normal(0, 0.1, (10, network.sample_rate))
    held = []
    for turn in range(MANY // 10):
        network.grid(wave)
        if turn in (4, MANY // 10 - 1):
            held.append(resident())
    return held[1] - held[0]


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256


def measured(name: str, path: str) -> tuple[str, str, list[str]]:
    """Largest and mean difference from the golden, then seconds and ratio for every batch."""
    sys.path.insert(0, str(GOLDEN))
    from fake_weights import fake_wave

    from nearfar.encoders import load

    manifest = json.loads((GOLDEN / "manifests" / f"{name}.json").read_text())
    encoder, rate = load(manifest["encoder"], path), manifest["sample_rate"]
    golden, length = np.load(GOLDEN / f"{name}.npz"), "3s" if rate == 48_000 else "10s"
    seconds, seed = (3.0, 3) if length == "3s" else (10.0, 1)
    wanted = golden[f"grid_{length}"]
    apart = np.abs(encoder.grid(fake_wave(seconds, rate, seed=seed)[None])[0][..., ::8] - wanted) / wanted.std()
    clip, out = fake_wave(10.0, rate, seed=1), []
    operations = count_operations(encoder, clip)
    for batch in BATCHES if length == "10s" else BATCHES[:1]:  # OpenL3's clip is a batch of windows already
        waves = np.stack([clip] * batch)
        ours, plain = take_turns(lambda waves=waves: encoder.grid(waves), sgemm(encoder.dim))
        out += [f"{ours / batch:.3f}", f"{ours / batch / (plain * operations):.2f}"]
    return f"{apart.max():.1e}", f"{apart.mean():.1e}", out + ["-"] * (2 * len(BATCHES) - len(out))


def count_operations(encoder: Any, clip: np.ndarray) -> int:
    """Floating-point operations of the network's products and convolutions for one clip, without the front end."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.network.grids(torch.from_numpy(clip)[None], [encoder.network.depth])
    return sum(counter.get_flop_counts()[type(encoder.network.module).__name__].values())


def sgemm(width: int) -> tuple[Callable[[], Any], int]:
    """Products of the network's typical shape, and how many operations they are."""
    import torch

    rows, repeats = 512, max(1, round(2e10 / (8 * 512 * width**2)))
    a, b, out = torch.randn(rows, width), torch.randn(width, 4 * width), torch.empty(rows, 4 * width)
    return lambda: [torch.mm(a, b, out=out) for _ in range(repeats)], repeats * 8 * rows * width**2


def take_turns(work: Callable[[], Any], reference: tuple[Callable[[], Any], int]) -> tuple[float, float]:
    """Fastest seconds of the work, and of the reference per operation."""
    plain, operations = reference
    best = [float("inf"), float("inf")]
    for turn in range(TURNS + 1):  # the first warms up
        for side, run in enumerate((work, plain)):
            start = time.perf_counter()
            run()
            best[side] = min(best[side], time.perf_counter() - start) if turn else best[side]
    return best[0], best[1] / operations


if __name__ == "__main__":
    main(sys.argv[1:])
