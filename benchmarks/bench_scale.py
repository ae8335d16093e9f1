"""Fit and score at DCASE size and beyond: wall time and peak memory of a process of its own.

First one machine with 100, 1,000 and 10,000 normal recordings of 10 s (the demo's clips; the 10,000 are the 1,000
linked ten times over), 200 recordings scored; then seven machines with 1,000 and 200 each; then one file of an hour.
The clips are made below a folder given as argument (6 GB for seven machines), or a temporary one.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from measure import in_fresh_process, report
from nearfar.demo import make_dataset

SECONDS, TRAIN, TEST = 10.0, 1_000, 200
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
    data = make_dataset(
        folder / "data", machines=7, train=TRAIN, test=TEST, seconds=SECONDS, workers=os.cpu_count() or 1
    )
    train = sorted(str(p) for p in (data / "fan" / "train").glob("*.wav"))
    test = sorted(str(p) for p in (data / "fan" / "test").glob("*.wav"))
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
        rows.append([f"fit on {count:,} recordings", f"{seconds:.1f}", f"{1e3 * seconds / count:.1f}", f"{memory:.0f}"])
        _, seconds, memory = in_fresh_process(score, model, test)
        rows.append([f"... score {TEST}", f"{seconds:.1f}", f"{1e3 * seconds / TEST:.1f}", f"{memory:.0f}"])
    _, seconds, memory = in_fresh_process(seven, str(data))
    clips = 7 * (TRAIN + TEST)
    work = f"evaluate 7 machines, {clips:,} recordings"
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
