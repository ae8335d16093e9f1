"""One accelerator: every encoder of the report at full size, the search of one machine, exactness.

    python benchmarks/bench_gpu.py [--device cuda] [--quick]      without a GPU: --device cpu, torch on the processor

A machine without a network needs the packages beside the checkout: pip install --target .packages array-api-compat
scipy soundfile soxr safetensors threadpoolctl typer rich; there, PYTHONPATH=src:.packages.

    encoders    random numbers at the published size, clips of 10 s, in each precision: clips a second as `embed`
                computes them, copies included; operations a second, beside those of a large product; memory
    search      990 + 10 normals, 200 test clips, 64 of other machines, grids of 63 x 8 x 768 for four waveforms: a part
                of the settings, pooled and scored on the device; beside numpy at a small size
    exactness   golden arrays of ../shared/golden on the device, for the encoders that have them
    the whole   the report's 7 x 1,200 clips x 4 waveforms x 8 encoders, and 7 x 8 x 26,208 configurations: extrapolated

Every section ends when its share of `--minutes` is spent; the table says what was left out. The results file of a GPU
is results/gpu.md, that of a processor results/gpu-cpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench_search import WHOLE, Case, Synthetic, chosen, machine
from measure import Table, report_tables
from nearfar import encoders
from nearfar.challenge.search import pool, records, run, score, space
from nearfar.encoders import beats, openl3, transformers
from nearfar.encoders.frozen import FrozenEncoder, rounded_factors, torch_device
from nearfar.encoders.table import TABLE
from nearfar.encoders.vit import Trunk
from nearfar.support.arrays import place
from nearfar.support.threads import single_threaded_blas
from nearfar.views import unit

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
REPORT = ("eat-large", "eat-as2m", "beats", "ced-base", "m2d-clap", "sslam", "openl3", "dasheng")
SEEDS = {"10s": 1, "12s": 2, "3s": 3}  # of the golden waves
NOMINAL = {"H100": (67, 494, 989), "H200": (67, 494, 989)}  # TFLOP/s of the SXM cards: float32, tf32, bf16, dense
HERE = torch.device("cpu")
SECONDS = 10
CLIPS, MACHINES, WAVEFORMS, GRID = 1200, 7, 4, 26_208  # of the report


class Clock:
    """What is left of the time, and of a section's part of it."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    def share(self, part: float) -> float:
        """When a section that may take a part of what is left must end."""
        return time.perf_counter() + part * (self.end - time.perf_counter())


def network(name: str, device: torch.device) -> Any:
    """The network of an encoder at its published size, with random numbers."""
    torch.manual_seed(0)
    with torch.device(device), torch.no_grad():
        if name == "beats":
            made: Any = beats.BeatsNetwork(beats.Beats(beats.Config()))
        elif name == "openl3":
            made = openl3.OpenL3Network(openl3.OpenL3("mel128", 512), 512)
        else:
            family_name, shape = transformers.NETWORKS[name]
            family = transformers.FAMILIES[family_name]
            made = transformers.Transformer(family, Trunk(shape), family.chunk)
        for key, parameter in made.module.named_parameters():
            parameter.uniform_(-0.05, 0.05)
            if "norm" in key and key.endswith("weight"):
                parameter.fill_(1)
            elif key == "basis":  # of OpenL3: the logarithm of its products is taken
                parameter.abs_()
    return made


def operations(name: str) -> int:
    """Floating-point operations of the products and convolutions for one clip, counted without computing them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    nowhere = torch.device("meta")
    made, wave = network(name, nowhere), torch.zeros(1, SECONDS * TABLE[name].sample_rate, device=nowhere)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        made.grids(wave, [made.depth])
    return int(counter.get_total_flops())


def product_rate(device: torch.device, precision: str, size: int) -> float:
    """Operations a second of a large product on the device."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    with rounded_factors(precision == "tf32"):
        return 2 * size**3 / seconds_of(lambda: a @ b, device, runs=5)


def seconds_of(work: Any, device: torch.device, runs: int) -> float:
    """Mean seconds of a work after one warm-up run."""
    work()
    wait(device)
    start = time.perf_counter()
    for _ in range(runs):
        work()
    wait(device)
    return (time.perf_counter() - start) / runs


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_gib(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else ""


def encoder_rows(
    device: torch.device, counts: dict[str, int], clips: int, product: int, until: float
) -> Iterator[tuple[list[str], str, str, float]]:
    """(row, encoder, precision, seconds a clip) of each encoder and precision."""
    precisions = ("float32", "tf32", "bf16") if device.type == "cuda" else ("float32", "bf16")
    on_gpu = device.type == "cuda"  # a processor that does other work too gives no rate to compare with
    rates = {precision: product_rate(device, precision, product) if on_gpu else 0.0 for precision in precisions}
    rng = np.random.default_rng(0)
    for name in counts:
        rate, count = TABLE[name].sample_rate, counts[name]
        waves = list(rng.normal(0, 0.1, (clips, SECONDS * rate)).astype(np.float32))
        for precision in precisions:
            if time.perf_counter() > until or precision not in TABLE[name].precisions:
                continue
            encoder = FrozenEncoder(name, network(name, device), "random", device=str(device), precision=precision)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            encoder.grid(waves[: max(1, clips // 4)])  # finds the batch, picks the kernels
            start = time.perf_counter()
            encoder.grid(waves)
            seconds = (time.perf_counter() - start) / clips
            batch = str(next(iter(encoder._fits.values()), 1))
            speed = count / seconds
            share = f"{100 * speed / rates[precision]:.0f} %" if on_gpu else ""
            nominal = next((peaks for card, peaks in NOMINAL.items() if card in described(device)), None)
            if nominal:
                share += f" ({100 * speed / 1e12 / nominal[('float32', 'tf32', 'bf16').index(precision)]:.0f} %)"
            row = [name, precision, batch, f"{seconds * 1e3:.2f}", f"{1 / seconds:.1f}", f"{count / 1e9:.0f}"]
            yield [*row, f"{speed / 1e12:.3g}", share, peak_gib(device)], name, precision, seconds


def search_rows(device: torch.device, case: Case, until: float) -> Iterator[tuple[list[str], float]]:
    """(row, seconds a configuration) for the device, then for numpy where the case is small."""
    for on in (device, "cpu") if case.train < 500 or device.type == "cpu" else (device,):
        if time.perf_counter() > until:
            return
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        some = chosen(case)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run.search_machine(run.plan(machine(case), some, "beats", folder), Synthetic(case.width), device=on)
            wait(device)
            seconds = time.perf_counter() - start
            scores = records.read(folder).aligned(range(len(some)), "m")
        if on is device:
            mine = scores
        apart = f"{(np.abs(scores - mine) / np.maximum(1, np.abs(mine))).max():.1e}" if on == "cpu" else ""
        where = "numpy" if on == "cpu" else f"torch, {device.type}"
        row = [where, f"{case.train:,} + {case.train // 5:,}", f"{case.dimensions:,}", f"{len(some):,}"]
        minutes = seconds * WHOLE / case.poolings / 60
        yield [*row, f"{seconds:.1f}", f"{minutes:.2f}", peak_gib(device), apart], seconds / len(some)


def golden_rows(device: torch.device, names: tuple[str, ...], folder_of: Path, until: float) -> Iterator[list[str]]:
    """The largest difference from the golden arrays, in their standard deviations, in each precision."""
    sys.path.insert(0, str(folder_of))
    from fake_weights import fake_checkpoint, fake_wave
    from write_checkpoint import write_checkpoint

    for name in names:
        manifest_file = folder_of / "manifests" / f"{name}.json"
        if time.perf_counter() > until or not manifest_file.exists():
            continue
        manifest = json.loads(manifest_file.read_text())
        golden, row = np.load(folder_of / f"{name}.npz"), [name]
        with tempfile.TemporaryDirectory() as folder:
            path = write_checkpoint(manifest, fake_checkpoint(manifest, seed=1), folder)
            for precision in ("float32", "tf32") if device.type == "cuda" else ("float32",):
                encoder = encoders.load(manifest["encoder"], path, device=str(device), precision=precision)
                worst = 0.0
                for length in (key.removeprefix("grid_") for key in golden.files if key.startswith("grid_")):
                    wanted = golden[f"grid_{length}"]
                    wave = fake_wave(float(length[:-1]), manifest["sample_rate"], seed=SEEDS[length])
                    found = encoder.grid(wave[None])[0][..., ::8]
                    worst = max(worst, float((np.abs(found - wanted) / wanted.std()).max()))
                row.append(f"{worst:.1e}")
        yield row


class Queued(TorchDispatchMode):
    """Counts the operations that torch queues, and the processor time of this thread without them."""

    count, spent = 0, 0.0

    def __enter__(self) -> Any:
        self.start = time.thread_time()
        return super().__enter__()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        start = time.thread_time()
        out = function(*args, **(kwargs or {}))
        self.spent += time.thread_time() - start
        return out

    def host_s(self) -> float:
        """Seconds since it was entered that no operation took."""
        return time.thread_time() - self.start - self.spent


def queue_rows() -> list[list[str]]:
    """How many operations a device gets for the whole grid on one machine, and what the host does beside them."""
    grid, settings, rng = space.space(), list(space.space().plan), np.random.default_rng(0)
    with Queued() as pooled:
        pool.pool_many(place(rng.normal(size=(pool.TOGETHER, 9, 2, 8)).astype(np.float32), HERE), settings)
    names = ("near", "far", "enh_a03f05", "enh_a05f07")
    x = {name: place(unit(rng.normal(size=(1264, 16)).astype(np.float32)), HERE) for name in names}
    recipes = list(grid.configurations("beats", settings[:1]))
    score.score_all(recipes, x, np.arange(1000) >= 990)
    with single_threaded_blas(), Queued() as scored:
        score.score_all(recipes, x, np.arange(1000) >= 990)
        host = scored.host_s()
    clips = 1200 + 64
    pieces = -(-clips // pool.TOGETHER) * len(names)
    return [
        ["pooling", f"{pieces} pieces of {pool.TOGETHER} clips and a waveform", f"{pieces * pooled.count:,}", ""],
        [
            "distances and scores",
            f"{len(settings)} settings of {len(recipes)}",
            f"{len(settings) * scored.count:,}",
            f"{len(settings) * host:.0f}",
        ],
    ]


def whole(
    per_clip: dict[str, dict[str, float]], per_configuration: float, searched: str, counts: dict[str, int]
) -> list[list[str]]:
    """The report's work, extrapolated: rows (what, minutes)."""
    clips, total = CLIPS * MACHINES * WAVEFORMS, sum(counts.values())
    rows = [
        [
            f"networks, {total * clips / 1e15:,.0f} PFLOP at 40 % of an H100's nominal {precision} peak, not measured",
            f"{total * clips / (0.4e12 * peak) / 60:,.1f}",
        ]
        for precision, peak in zip(("float32", "tf32"), NOMINAL["H100"], strict=False)
        if len(counts) == len(REPORT)
    ]
    for precision in ("float32", "tf32", "bf16"):
        seconds = [times.get(precision, times["float32"]) for times in per_clip.values()]
        if len(seconds) == len(REPORT) and any(precision in times for times in per_clip.values()):
            rows.append([f"networks, {precision} where there is such", f"{sum(seconds) * clips / 60:,.1f}"])
    if per_configuration:
        count = GRID * MACHINES * len(REPORT)
        rows.append([f"search, {count:,} configurations, {searched}", f"{per_configuration * count / 60:,.1f}"])
    return rows


def described(device: torch.device) -> str:
    """What the numbers were measured on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} processors, no GPU"


def main(device: torch.device, quick: bool, minutes: float, golden: Path = GOLDEN) -> None:
    clock, on_gpu = Clock(minutes), device.type == "cuda"
    names = ("ced-tiny",) if quick else REPORT
    clips, product = (2, 512) if quick else (512, 8192) if on_gpu else (2, 1024)
    case = Case("mean", 60, 24, 2) if quick else Case("concat", 1000, 768, 24 if on_gpu else 2)
    notes = [
        f"Measured on: {described(device)}, torch {torch.__version__}.",
        "Weights are random numbers. Share: of the rate of a large product in the same precision on the same device; "
        "in brackets, of the card's nominal peak. Apart: the largest difference from the other row's scores, in "
        "standard deviations of the normals or, where a score is above 1, as a share of it.",
    ]
    if not on_gpu:
        notes.append(
            "No GPU was at hand: this is the same code of torch on the processor. It shows that the device path runs "
            "and agrees with numpy; its times, beside other work on the machine, say nothing about a GPU. For a GPU "
            "there are the operations of the networks and those that a search queues. Exactness on a processor: "
            "encoders.md."
        )
    per_clip: dict[str, dict[str, float]] = {}
    encoded = []
    counts = {name: operations(name) for name in names}
    for row, name, precision, seconds in encoder_rows(device, counts, clips, product, clock.share(0.6)):
        encoded.append(row)
        per_clip.setdefault(name, {})[precision] = seconds
        print(*row, sep=" | ", flush=True)
    searches, per_configuration = [], 0.0
    for each in [case] if quick else [Case("mean", 100, 48, 4), case]:
        for row, seconds in search_rows(device, each, clock.share(0.6)):
            searches.append(row)
            per_configuration = seconds if row[0] != "numpy" else per_configuration
            print(*row, sep=" | ", flush=True)
    exact = list(golden_rows(device, names, golden, clock.share(0.8))) if golden.exists() else []
    tables = [
        Table(
            "encoders",
            (
                "encoder",
                "precision",
                "batch",
                "ms a clip",
                "clips a second",
                "GFLOP a clip",
                "TFLOP/s",
                "share",
                "peak GiB",
            ),
            encoded,
        ),
        Table(
            "search of one machine",
            ("where", "clips", "dimensions", "configurations", "s", "whole grid, min", "peak GiB", "apart"),
            searches,
        ),
    ]
    if exact:
        columns = ("encoder", *(f"max, {p}" for p in ("float32", "tf32")[: len(exact[0]) - 1]))
        tables.append(
            Table("exactness: difference from the golden arrays in their standard deviations", columns, exact)
        )
    if not quick:
        columns = ("what", "how often", "operations queued for a device", "s of one processor beside them")
        tables.append(Table("the whole grid on one machine", columns, queue_rows()))
        if not on_gpu:
            per_clip, per_configuration = {}, 0.0
        rows = whole(per_clip, per_configuration, f"from {searches[-1][3]} of them" if searches else "", counts)
        tables.append(Table("the whole report, extrapolated", ("what", "minutes"), rows))
    if quick:
        print(*(f"{t.title}: {len(t.rows)} rows" for t in tables), sep="\n")
    else:
        report_tables("gpu" if on_gpu else "gpu-cpu", tables, notes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, no results file")
    parser.add_argument("--minutes", type=float, default=7.5, help="when to end, at the latest")
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="folder of the golden arrays")
    given = parser.parse_args()
    main(torch_device(given.device), given.quick, given.minutes, given.golden)
