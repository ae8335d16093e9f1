"""Evidence that adds up: healthy sessions that alarm against the promise, and how soon a faint fault is found.

Simulated machines whose sound has a memory from one half of a window to the next, windows of 10 s every 5 s. Each
session has a mean of its own, which differs from session to session by the standard deviation "apart". The normals are
EACH clips of every session; then NEW healthy sessions of four hours, and faults that shift every score by 1, 2 or 3
standard deviations. 5 % of the new sessions may be louder than allowed for, beside one alarm in ten days.
"""

import sys

import numpy as np

from measure import report
from nearfar.detector.system import PValue
from nearfar.live.rules.evidence import design

WINDOWS = 17_280  # a day
SESSION, NEW, EACH = 2880, 2, 20
MEMORY = 0.5
SHIFTS = (1.0, 2.0, 3.0)
LONGEST = 2000  # windows after which a fault counts as not found
NOTES = [
    "Normals of one session or two give no evidence: they do not show how sessions differ. Memory 0.5: one clip and "
    "the next correlate by 0.25 of their sound.",
]


def machine(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    half, e = np.zeros(n + 1), rng.normal(size=n + 1)
    for i in range(1, n + 1):
        half[i] = MEMORY * half[i - 1] + np.sqrt(1 - MEMORY**2) * e[i]
    return (half[:-1] + half[1:]) / np.sqrt(2 + 2 * MEMORY) + shift


def main(machines: int) -> None:
    rows = []
    for sessions in (3, 5, 10):
        for apart in (0.0, 0.5):
            rng = np.random.default_rng([sessions, int(10 * apart)])
            alarmed, delays = 0, {shift: list[int]() for shift in SHIFTS}
            for _ in range(machines):
                normals = [machine(rng, 2 * EACH, apart * rng.normal())[::2] for _ in range(sessions)]
                tail = PValue(np.concatenate(normals))
                p = np.exp(tail.log_p(np.concatenate(normals)))
                evidence = design(p, np.repeat(np.arange(1, sessions + 1), EACH).tolist(), 2.0, 10.0 * WINDOWS)
                assert evidence is not None
                for _ in range(NEW):
                    watch = evidence.fresh()
                    healthy = np.exp(tail.log_p(machine(rng, SESSION, apart * rng.normal())))
                    alarmed += any(watch.update(p) for p in healthy)
                for shift in SHIFTS:
                    watch, faulty = evidence.fresh(), np.exp(tail.log_p(machine(rng, LONGEST, shift)))
                    delays[shift].append(next((i for i, p in enumerate(faulty, 1) if watch.update(p)), LONGEST + 1))
            medians = [float(np.median(delays[shift])) for shift in SHIFTS]
            rows.append(
                [sessions, apart, f"{alarmed} of {NEW * machines}"]
                + [f"{m * 5 / 60:.1f} min" if m <= LONGEST else "not in 2.8 h" for m in medians]
            )
    columns = ["sessions of normals", "apart", "new healthy sessions that alarm"]
    report("evidence", [*columns, *(f"found at {s:g} sigma" for s in SHIFTS)], rows, NOTES)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
