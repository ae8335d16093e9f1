"""A synthetic two-microphone data set in the form of DCASE 2026 (report section 3): no download, no licence.

    folder/demo.json                                             what made the set; marks the folder as ours
    folder/<machine>/attributes_00.csv                           file_name,d1p,d1v,...; paths relative to the folder
    folder/<machine>/{train,test}/section_00_{source|target}_{train|test}_{normal|anomaly}_NNNN_spd_S_load_L.wav

16 kHz, 16 bits, channel 0 = near, channel 1 = far. All training clips are normal; 1 in 100 of them (at least 2) belong
to the target domain. Half of the test clips belong to each domain, and half of each are anomalous, to one clip.

The level tells nothing: the RMS of near is LEVEL_DB +- LEVEL_RANGE_DB of full scale for every label, set after
rendering with one factor for both channels. Within a label and domain the levels and the severities run evenly through
their ranges (golden-ratio sequence from a random start), so that a small set is balanced too. Clip NNNN of a label and
domain depends on the seed, the machine's number and NNNN, not on the number of clips.

`synth` holds the physics and decides how hard the faults are, so scores on this set say nothing about real machines.
"""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearfar.demo.synth import FAULTS, KINDS, LOADS, SPEEDS, Machine, machine, render
from nearfar.demo.waves import RATE
from nearfar.support.cells import csv_text
from nearfar.support.check import Array, integer, number
from nearfar.support.files import atomic_write
from nearfar.support.progress import Progress
from nearfar.support.threads import map_in_order

LEVEL_DB, LEVEL_RANGE_DB = -38.0, 4.0
PEAK = 0.99  # of full scale; a clip whose peak would be larger gets a lower level
GOLDEN = (5**0.5 - 1) / 2
MARK = "demo.json"
STRATA = (  # split, domain, label; the position is part of each clip's seed
    ("train", "source", "normal"),
    ("train", "target", "normal"),
    ("test", "source", "normal"),
    ("test", "source", "anomaly"),
    ("test", "target", "normal"),
    ("test", "target", "anomaly"),
)
DRAFT = re.compile(r"(^|/)\.([^/]+)\.\w{8}$")  # what a killed run leaves of a file
OURS = re.compile(
    rf"({'|'.join(KINDS)})\d*/("
    r"attributes_00\.csv|(train|test)/section_00_(source|target)_(train|test)_(normal|anomaly)_\d{4,}_spd_\d_load_\d\.wav)"
)


@dataclass(frozen=True)
class Plan:
    """One clip before it is rendered: stratum, number, operating point, and the fault with its severity in [0, 1]."""

    stratum: int
    number: int
    speed: int  # index into the SPEEDS of both domains, source first
    load: int  # index into LOADS
    fault: str | None
    severity: float
    level_db: float  # RMS of near, relative to full scale

    @property
    def domain(self) -> str:
        """The domain, "source" or "target"."""
        return STRATA[self.stratum][1]

    @property
    def path(self) -> str:
        """The clip's path inside its machine's folder."""
        split, domain, label = STRATA[self.stratum]
        name = f"section_00_{domain}_{split}_{label}_{self.number:04d}_spd_{self.speed + 1}_load_{self.load + 1}.wav"
        return f"{split}/{name}"


def make_dataset(
    folder: str | os.PathLike[str],
    *,
    machines: int = 3,
    train: int = 60,
    test: int = 40,
    seconds: float = 10.0,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write the set into `folder`, which is new, empty or an earlier demo set (replaced), and return its path.

    train, test   clips per machine, at least 4
    seconds       length of a clip, 1 to 600
    workers       threads; the clips do not depend on their number
    progress      called after each clip

    Raises ValueError for a number out of range and FileExistsError if the folder holds anything else.
    """
    counts = _counts(train, test)
    integer("machines", machines)
    integer("seed", seed, low=0)
    integer("workers", workers)
    number("seconds", seconds, low=1, high=600)
    root = Path(folder)
    _clear(root)
    settings = {"machines": machines, "train": train, "test": test, "seconds": seconds, "seed": seed}
    atomic_write(root / MARK, (json.dumps({"nearfar demo": 1, **settings}, indent=2) + "\n").encode())
    total, done = machines * (train + test), 0
    for index, name in enumerate(names(machines)):
        subject = draw_machine(index, seed=seed)
        plans = [plan(index, s, i, seed=seed) for s, count in enumerate(counts) for i in range(count)]

        def write(p: Plan, subject: Machine = subject, index: int = index, name: str = name) -> None:
            atomic_write(root / name / p.path, _wav(make_clip(subject, p, index, seconds, seed=seed)))

        for _ in map_in_order(write, plans, workers):
            done += 1
            if progress is not None:
                progress(done, total)
        atomic_write(root / name / "attributes_00.csv", _attributes(name, plans))
    return root


def names(machines: int) -> list[str]:
    """Names of the first `machines` machines: fan, gearbox, valve, fan2, gearbox2, ..."""
    return [KINDS[i % len(KINDS)] + (str(i // len(KINDS) + 1) if i >= len(KINDS) else "") for i in range(machines)]


def draw_machine(index: int, *, seed: int = 0) -> Machine:
    """Machine number `index` of the set with this seed."""
    return machine(KINDS[index % len(KINDS)], np.random.default_rng([seed, index]))


def plan(index: int, stratum: int, number: int, *, seed: int = 0) -> Plan:
    """The plan of clip `number` of STRATA[stratum] of machine `index`."""
    _, domain, label = STRATA[stratum]
    start = np.random.default_rng([seed, index, stratum]).random(2)
    rng = np.random.default_rng([seed, index, stratum, number, 0])
    first = 0 if domain == "source" else len(SPEEDS["source"])
    fault, severity = None, 0.0
    if label == "anomaly":
        faults = FAULTS[KINDS[index % len(KINDS)]]
        fault = faults[number % len(faults)]
        severity = (start[1] + number // len(faults) * GOLDEN) % 1
    return Plan(
        stratum=stratum,
        number=number,
        speed=first + int(rng.integers(len(SPEEDS[domain]))),
        load=int(rng.integers(len(LOADS))),
        fault=fault,
        severity=float(severity),
        level_db=LEVEL_DB + LEVEL_RANGE_DB * float(2 * ((start[0] + number * GOLDEN) % 1) - 1),
    )


def make_clip(subject: Machine, p: Plan, index: int, seconds: float, *, seed: int = 0) -> Array:
    """The planned clip, (N, 2) int16: column 0 near, column 1 far."""
    rng = np.random.default_rng([seed, index, p.stratum, p.number, 1])
    speed = (SPEEDS["source"] + SPEEDS["target"])[p.speed] * rng.uniform(0.98, 1.02)
    load = LOADS[p.load] * rng.uniform(0.95, 1.05)
    near, far = render(
        subject, rng, seconds, domain=p.domain, speed=speed, load=load, fault=p.fault, severity=p.severity
    )
    wave = np.stack([near, far], axis=1)
    wave *= np.float32(10 ** (p.level_db / 20) / np.sqrt(np.mean(near**2)))
    wave *= min(1, PEAK / float(np.abs(wave).max()))
    return np.round(wave * 32767).astype(np.int16)


def _counts(train: int, test: int) -> tuple[int, ...]:
    """Number of clips of each of STRATA."""
    integer("train", train, low=4)
    integer("test", test, low=4)
    target = max(2, round(train / 100))
    return (train - target, target, *((test + 3 - i) // 4 for i in range(4)))


def _clear(root: Path) -> None:
    """Make `root` and remove the files of an earlier demo set; refuse a folder that holds anything else."""
    if root.exists() and not root.is_dir():
        raise FileExistsError(f"{root} is a file; give a folder for the demo data set")
    root.mkdir(parents=True, exist_ok=True)
    files = [p for p in root.rglob("*") if not p.is_dir() or p.is_symlink()]
    if not files:
        return
    strange = [p for p in files if not _is_ours(p.relative_to(root).as_posix())]
    if strange or not _is_mark(root / MARK):
        what = f"{strange[0].relative_to(root)}" if strange else f"{len(files)} files but no {MARK}"
        raise FileExistsError(f"{root} holds {what}, not only a demo data set; give a new or an empty folder")
    for path in files:
        if path.name != MARK:  # removed last, so that an interrupted run can be repeated
            path.unlink()
    for path in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
        path.rmdir()


def _is_ours(path: str) -> bool:
    path = DRAFT.sub(r"\1\2", path)
    return path == MARK or OURS.fullmatch(path) is not None


def _is_mark(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text())["nearfar demo"] == 1)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _attributes(name: str, plans: list[Plan]) -> bytes:
    rows = ([f"{name}/{p.path}", "spd", p.speed + 1, "load", p.load + 1] for p in plans)
    return csv_text([["file_name", "d1p", "d1v", "d2p", "d2v"], *rows]).encode()


def _wav(samples: Array) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
