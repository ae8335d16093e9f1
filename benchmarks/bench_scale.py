"""Fit and score at DCASE size and beyond: wall time and peak memory of a process of its own.

First one machine with 100, 1,000 and 10,000 normal recordings of 4 s (the 10,000 are 1,000 linked ten times over), 200
scored; then seven machines with 1,000 and 200 recordings of 10 s each; then one file of an hour at 48 kHz.
The clips are made below a folder given as argument (7 GB), or a temporary one.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from measure import in_fresh_process, report
from nearfar.demo import make_dataset

GROWTH_S, SECONDS, TRAIN, TEST = 4.0, 10.0, 1_000, 200
HOUR_RATE = 48_000


def fit(files: list[str], folder: str) -> int:
    from nearfar import Detector

    detector = Detector().fit(files)
    detector.save(folder)
    return len(detector.normals)


def score(folder: str, files: list[str]) -> int:
    from nearfar import load

    return len(load(folder).score(files))


def seven(data: str) -> float:
    from nearfar.challenge.evaluate import evaluate

    return evaluate(data, rounds=100).overall


def main(folder: Path) -> None:
    workers = os.cpu_count() or 1
    one = make_dataset(folder / "one", machines=1, train=TRAIN, test=TEST, seconds=GROWTH_S, workers=workers)
    data = make_dataset(folder / "seven", machines=7, train=TRAIN, test=TEST, seconds=SECONDS, workers=workers)
    train = sorted(str(p) for p in (one / "fan" / "train").glob("*.wav"))
    test = sorted(str(p) for p in (one / "fan" / "test").glob("*.wav"))
    rows = []
    for count in (100, 1_000, 10_000):
        files = train[:count]
        if count > TRAIN:
            links = folder / "links"
            links.mkdir(exist_ok=True)
            files = [str(links / f"{i:05d}.wav") for i in range(count)]
            for i, link in enumerate(files):
                if not Path(link).exists():
                    os.link(train[i % TRAIN], link)
        model = str(folder / f"model-{count}")
        _, seconds, memory = in_fresh_process(fit, files, model)
        rows.append(
            [
                f"fit on {count:,} recordings of {GROWTH_S:g} s",
                f"{seconds:.1f}",
                f"{1e3 * seconds / count:.1f}",
                f"{memory:.0f}",
            ]
        )
        _, seconds, memory = in_fresh_process(score, model, test)
        rows.append([f"... score {TEST}", f"{seconds:.1f}", f"{1e3 * seconds / TEST:.1f}", f"{memory:.0f}"])
    _, seconds, memory = in_fresh_process(seven, str(data))
    clips = 7 * (TRAIN + TEST)
    work = f"evaluate 7 machines, {clips:,} recordings of {SECONDS:g} s"
    rows.append([work, f"{seconds:.1f}", f"{1e3 * seconds / clips:.1f}", f"{memory:.0f}"])
    hour = folder / "hour.wav"
    if not hour.exists():
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(hour, "w", HOUR_RATE, 2) as file:
            for _ in range(360):
                file.write(0.05 * rng.normal(size=(10 * HOUR_RATE, 2)))
    windows, seconds, memory = in_fresh_process(score, str(folder / "model-100"), [str(hour)])
    work = f"score an hour at 48 kHz stereo ({windows} windows)"
    rows.append([work, f"{seconds:.1f}", f"{1e3 * seconds / windows:.1f}", f"{memory:.0f}"])
    report("scale", ["work", "seconds", "ms a recording", "peak MiB"], rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
