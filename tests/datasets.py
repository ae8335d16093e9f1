"""Small data sets in the forms of all years, to test the bench with."""

from __future__ import annotations

from pathlib import Path

from conftest import hum, write_wav

TRAIN, DEV_TEST = 4, 2
KINDS = [(d, a) for d in ("source", "target") for a in ("normal", "anomaly")]


def tree(root: Path, names: list[str], *, far: bool = True) -> Path:
    """Short recordings under these names; the anomalies among the test clips hiss, but for every fourth clip the
    other way round, so that no score is perfect."""
    for i, name in enumerate(names):
        odd = "anomaly" in name or ("normal" not in name and i % 3 == 0)
        fault = "hiss" if "train" not in name and odd != (i % 4 == 1) else ""
        write_wav(root / name, hum(i, fault=fault, seconds=0.5, far=far))
    return root


def dev_2020(machine: str, ids: str = "02") -> list[str]:
    train = [f"{machine}/train/normal_id_0{i}_{n:08d}.wav" for i in ids for n in range(TRAIN)]
    return train + [
        f"{machine}/test/{label}_id_0{i}_{n:08d}.wav"
        for i in ids
        for label in ("normal", "anomaly")
        for n in range(DEV_TEST)
    ]


def train_since_2021(machine: str, section: str = "00", attribute: str = "_str_1_amb_2") -> list[str]:
    domains = ["source"] * (TRAIN - 1) + ["target"]
    return [f"{machine}/train/section_{section}_{d}_train_normal_{n:04d}{attribute}.wav" for n, d in enumerate(domains)]


def dev_2021(machine: str, section: str) -> list[str]:
    return train_since_2021(machine, section) + [
        f"{machine}/{d}_test/section_{section}_{d}_test_{a}_{n:04d}.wav" for d, a in KINDS for n in range(DEV_TEST)
    ]


def dev_2022(machine: str, section: str = "00", attribute: str = "_spd_28V") -> list[str]:
    return train_since_2021(machine, section, attribute) + [
        f"{machine}/test/section_{section}_{d}_test_{a}_{n:04d}{attribute}.wav"
        for d, a in KINDS
        for n in range(DEV_TEST)
    ]


def evaluation_set(machine: str, form: str = "section_00_{:04d}.wav") -> list[str]:
    return train_since_2021(machine, attribute="_noAttribute") + [f"{machine}/test/{form.format(n)}" for n in range(6)]
