"""Calibration by groups: finding the groups and scoring all normals without their relatives.

The back ends are those of the default without weights, and a local density normalisation of 768 dimensions beside them.
The plain way fits a back end on the rest for every set that is left out, on an even sample of the sets; its time is
scaled to all of them. Seconds are those of the processors, whatever else the machine does. Goal: 1,000 normals under
2 s in all, for the default; 10,000 bounded in time and memory.
"""

import sys
import time
from typing import Any

import numpy as np

from measure import in_fresh_process, report
from nearfar import backend
from nearfar.detector import calibration

GAUSSIAN = {"method": "mahalanobis", "standardize": True, "ignore_domains": True}
PARTS: dict[str, tuple[int, dict[str, Any]]] = {
    "clean": (256, {**GAUSSIAN, "shrinkage": 0.1}),
    "near": (128, {**GAUSSIAN, "shrinkage": 0.1}),
    "burst": (32, {**GAUSSIAN, "shrinkage": 0.3}),
    "local density": (768, {"method": "ldn"}),
}
REFITS, PIECES, LDN_TO = 8, 3, 1000


def clips(count: int, width: int, seed: int) -> np.ndarray:
    """Vectors (count, width) of 30 kinds of recordings, cut into three clips each, float32."""
    rng = np.random.default_rng(seed)
    of = np.arange(count) // PIECES
    kinds = rng.normal(size=(30, width))[rng.integers(30, size=of[-1] + 1)]
    return (kinds[of] + rng.normal(size=(of[-1] + 1, width))[of] + 0.5 * rng.normal(size=(count, width))).astype("f4")


def relatives(count: int) -> np.ndarray:
    found = calibration.groups(clips(count, 256, 1), clips(count, 128, 2))
    return calibration.related(found, recordings=(np.arange(count) // PIECES).tolist())


def groups(count: int) -> float:
    start = time.process_time()
    relatives(count)
    calibration.are_related(clips(count, 256, 1))
    return time.process_time() - start


def excluding(count: int, part: str) -> tuple[float, float]:
    """Seconds of the exact scores, and of plain refits."""
    width, settings = PARTS[part]
    z, related = clips(count, width, 3), relatives(count)
    domains = np.zeros(count, bool)
    fitted = backend.fit(z, domains, **settings)
    start = time.process_time()
    scores = fitted.scores_excluding(related)
    ours = time.process_time() - start
    sets, first = np.unique(related, axis=0, return_index=True)
    start = time.process_time()
    for i in np.linspace(0, len(sets) - 1, REFITS).astype(int):
        rest = backend.fit(z[~sets[i]], domains[~sets[i]], **settings)
        rest.score(z[first[i]][None])
    plain = (time.process_time() - start) / REFITS * len(sets)
    assert np.isfinite(scores).all()
    return ours, plain


def main(counts: list[int]) -> None:
    rows = []
    for count in counts:
        seconds, _, memory = in_fresh_process(groups, count)
        rows.append([f"{count:,}", "groups", f"{seconds:.2f}", "", f"{memory:.0f}"])
        for part in PARTS if count <= LDN_TO else list(PARTS)[:3]:
            (ours, plain), _, memory = in_fresh_process(excluding, count, part)
            rows.append([f"{count:,}", part, f"{ours:.2f}", f"{plain:.1f}", f"{memory:.0f}"])
    report("groups", ["normals", "work", "CPU seconds", "plain refits, CPU seconds", "peak MiB"], rows)


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or [150, 1000, 10_000])
