"""Every encoder at its published size: exactness, seconds a clip beside plain sgemm, memory, time to load.

    python benchmarks/bench_encoders.py [--only NAME ...]      names of ../shared/golden/manifests

"of sgemm" is the time of a pass, front end included, over the time that `torch.mm` needs for the same floating-point
operations on the same processors: 1 is a network that costs nothing beyond its products. The two take turns; the median
of the turns counts, of wall time and of processor time (which other load on the machine hardly moves). Limits, of
batches of 8: 1.10 for the large and base transformers, 1.25 for BEATs; of one clip 1.3 for OpenL3, 2.5 for CED-tiny.
Weights are reproducible numbers in the published form, in a temporary folder, one network at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from measure import in_fresh_process, report

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
NAMES = [
    *("eat-large", "eat-as2m", "beats", "ced-base", "m2d-clap", "sslam", "openl3", "dasheng", "ced-tiny"),
    *("fisher-tiny", "fisher-mini", "fisher-small", "echo-small", "openbeats-base"),
]
SEEDS = {"10s": 1, "12s": 2, "3s": 3, "24s": 6}  # of the golden waves at the encoder's rate
BATCHES = (1, 8)
BUDGET_S, TURNS = 10.0, (3, 9)  # for one network and batch: as many turns as fit, within these
SGEMM = 2e10  # operations of a turn's products, at least
MANY = 500  # clips, after which memory must be what it was
COLUMNS = (
    "encoder",
    "max",
    "mean",
    "parameters",
    *(text for batch in BATCHES for text in (f"s a clip, batch {batch}", "of sgemm", "of sgemm, processor time")),
    "peak MiB",
    "s to load",
    "converted",
)
NOTES = (
    "max, mean: difference from the reference implementation over its standard deviation. A clip is 10 s. Peak: of a "
    "process that loads the published file and hears one clip. To load: until every number has been read once, torch "
    "imported before.",
)


def main(names: list[str]) -> None:
    sys.path.insert(0, str(GOLDEN))
    from fake_weights import fake_checkpoint
    from write_checkpoint import write_checkpoint

    rows, notes = [], list(NOTES)
    for name in names:
        manifest = json.loads((GOLDEN / "manifests" / f"{name}.json").read_text())
        encoder = manifest["encoder"]
        with tempfile.TemporaryDirectory() as folder:
            published = str(write_checkpoint(manifest, fake_checkpoint(manifest, seed=1), folder))
            converted = str(Path(folder) / "converted.safetensors")
            in_fresh_process(convert, encoder, published, converted)
            loads = [in_fresh_process(seconds_to_load, encoder, file)[0] for file in (published, converted)]
            peak = in_fresh_process(hear, encoder, published)[2]
            row = in_fresh_process(measured, name, published)[0]
            if name == "ced-tiny":
                notes.append(in_fresh_process(growth, encoder, published)[0])
        rows.append([name, *row, f"{peak:.0f}", *(f"{seconds:.2f}" for seconds in loads)])
        print(*rows[-1], sep=" | ", flush=True)
    if len(rows) == len(NAMES):
        report("encoders", COLUMNS, rows, notes)


def convert(encoder: str, published: str, converted: str) -> None:
    from nearfar.encoders import checkpoint

    checkpoint.convert(encoder, published, converted)


def seconds_to_load(encoder: str, path: str) -> float:
    import torch  # noqa: F401 - its import is not counted

    from nearfar import encoders

    start = time.perf_counter()
    for parameter in loaded(encoders.load, encoder, path).network.module.parameters():
        parameter.sum()
    return time.perf_counter() - start


def hear(encoder: str, path: str) -> None:
    from nearfar import encoders

    network = loaded(encoders.load, encoder, path)
    network.grid(noise(1, 10, network.sample_rate))


def growth(encoder: str, path: str) -> str:
    """What memory did between the hundredth clip and the last."""
    from nearfar import encoders

    network = loaded(encoders.load, encoder, path)
    waves = noise(10, 2, network.sample_rate)
    held = []
    for turn in range(1, MANY // len(waves) + 1):
        network.grid(waves)
        if turn * len(waves) in (100, MANY):
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return f"Memory of {encoder} after {MANY} clips of 2 s: {held[1]:.0f} MiB; after 100 it was {held[0]:.0f} MiB."


def measured(name: str, path: str) -> list[str]:
    """Largest and mean difference, parameters; then seconds and both ratios for every batch."""
    sys.path.insert(0, str(GOLDEN))
    from fake_weights import fake_wave

    from nearfar import encoders

    manifest = json.loads((GOLDEN / "manifests" / f"{name}.json").read_text())
    encoder, rate = loaded(encoders.load, manifest["encoder"], path), manifest["sample_rate"]
    golden, worst, means = np.load(GOLDEN / f"{name}.npz"), 0.0, list[float]()
    for length in (length for length in SEEDS if f"grid_{length}" in golden.files):
        wanted = golden[f"grid_{length}"]
        found = encoder.grid(fake_wave(float(length[:-1]), rate, seed=SEEDS[length])[None])[0][..., ::8]
        apart = np.abs(found - wanted) / wanted.std()
        worst, means = max(worst, float(apart.max())), [*means, float(apart.mean())]
    row = [f"{worst:.1e}", f"{max(means):.1e}", f"{encoders.TABLE[manifest['encoder']].parameters:,}"]
    clip = noise(1, 10, rate)
    operations, plain = count_operations(encoder, clip), sgemm(encoder)
    for batch in BATCHES:
        waves = np.repeat(clip, batch, axis=0)
        wall, ratio, processor = turns(partial(encoder.grid, waves), operations * batch, *plain)
        row += [f"{wall / batch:.3f}", f"{ratio:.2f}", f"{processor:.2f}"]
    return row


def loaded(load: Callable[..., Any], encoder: str, path: str) -> Any:
    """The encoder; what its licence makes it say is not for this table."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(encoder, path)


def noise(count: int, seconds: int, rate: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (count, seconds * rate)).astype(np.float32)


def count_operations(encoder: Any, clip: np.ndarray) -> int:
    """Floating-point operations of the products and convolutions for one clip."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Attention and linear layers as plain products: the counter does not know the fused ones of a CPU.
    plain = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain[0], plain[1]:
        encoder.network.grids(torch.from_numpy(clip), [encoder.network.depth])
    return int(counter.get_total_flops())


def sgemm(encoder: Any) -> tuple[Callable[[], Any], float]:
    """Plain products of the network's typical shape, and how many operations they are."""
    import torch

    if encoder.name.startswith("openl3"):  # a 3 x 3 convolution of 256 channels as one product
        rows, inner, columns = 2048, 9 * 256, 256
    else:  # the tokens of 10 s, into the perceptron
        rows, inner, columns = 500, encoder.dim, 4 * encoder.dim
    a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    once = 2 * rows * inner * columns
    repeats = max(1, round(SGEMM / once))
    return lambda: [torch.mm(a, b, out=out) for _ in range(repeats)], repeats * once


def turns(work: Callable[[], Any], operations: float, plain: Callable[[], Any], of_plain: float) -> tuple[float, ...]:
    """Median seconds of the work; medians, over the turns, of its time per operation over plain's: wall, processor."""
    first, _ = taken(work)
    taken(plain)
    fewest, most = TURNS
    pairs = []
    for _ in range(min(most, max(fewest, round(BUDGET_S / first)))):
        ours, theirs = taken(work), taken(plain)
        pairs.append((ours[0], *(a / operations / (b / of_plain) for a, b in zip(ours, theirs, strict=True))))
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))


def taken(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=list(NAMES), metavar="NAME", help="these networks, no results file"
    )
    main(parser.parse_args().only)
