"""Evidence that adds up: false alarms of healthy days against the promise, and how soon a faint fault is found.

Simulated machines whose sound has a memory from one half of a window to the next, windows of 10 s every 5 s. N normals
are heard one after the other; then DAYS healthy days, and faults that shift every score by 0.5, 1 or 2 standard
deviations. The evidence is designed for one alarm in ten days, a tenth of the one a day that a first set-point allows,
because N normals tell only roughly how loud a machine is: what comes is to stay below that one a day.
"""

import sys

import numpy as np

from measure import report
from nearfar.live.evidence import design
from nearfar.threshold import PValue

WINDOWS = 17_280  # a day
SHIFTS = (0.5, 1.0, 2.0)
LONGEST = 2000  # windows after which a fault counts as not found
NOTES = [
    "A single machine may have drawn normals that are quieter than it is: its alarms come in a row until they are "
    "marked as fine. Memory 0.5: one clip and the next correlate by 0.25 of their sound.",
]


def machine(rng: np.random.Generator, n: int, memory: float, shift: float = 0.0) -> np.ndarray:
    half, e = np.zeros(n + 1), rng.normal(size=n + 1)
    for i in range(1, n + 1):
        half[i] = memory * half[i - 1] + np.sqrt(1 - memory**2) * e[i]
    return (half[:-1] + half[1:]) / np.sqrt(2 + 2 * memory) + shift


def main(machines: int, days: int = 1) -> None:
    rows = []
    for normals in (10, 30, 100):
        for memory in (0.0, 0.5):
            rng = np.random.default_rng([normals, int(10 * memory)])
            alarms, delays = [], {shift: [] for shift in SHIFTS}
            for _ in range(machines):
                scores = machine(rng, 2 * normals, memory)[::2]
                tail = PValue(scores)
                evidence = design(np.exp(tail.log_p(scores)), 2.0, 10.0 * WINDOWS)
                count, watch = 0, evidence.fresh()
                for p in np.exp(tail.log_p(machine(rng, days * WINDOWS, memory))):
                    if watch.update(p):
                        count, watch = count + 1, evidence.fresh()
                alarms.append(count / days)
                for shift in SHIFTS:
                    watch, faulty = evidence.fresh(), np.exp(tail.log_p(machine(rng, LONGEST, memory, shift)))
                    found = (i for i, p in enumerate(faulty, 1) if watch.update(p))
                    delays[shift].append(next(found, LONGEST + 1))
            medians = [float(np.median(delays[shift])) for shift in SHIFTS]
            rows.append(
                [normals, memory, "0.1", f"{np.mean(alarms):.2f}", f"{sum(a > 0 for a in alarms)} of {machines}"]
                + [f"{m * 5 / 60:.1f} min" if m <= LONGEST else "not in 2.8 h" for m in medians]
            )
    columns = ["normals", "memory", "designed for, a day", "came a day", "machines with an alarm"]
    report("evidence", [*columns, *(f"found at {s:g} sigma" for s in SHIFTS)], rows, NOTES)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
