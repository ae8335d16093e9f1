"""Is the promise kept? False-alarm rates that the set-point promises, and those that come on fresh normals.

Nine demo machines (three kinds, three seeds), 600 normal clips of 4 s each, one tenth of them target domain. N are
drawn to fit on, all others are fresh, DRAWS times. The interval is the 95 % one of what N normals can promise: the
rate of a set-point from N exchangeable scores is itself beta distributed, and the fresh clips are counted binomially.
"""

import sys

import numpy as np
from scipy import stats

from measure import report
from nearfar.audio import Clip
from nearfar.demo import draw_machine, make_clip, plan
from nearfar.detector import Detector
from nearfar.detector.system import THRESHOLD_METHODS

POOL, SECONDS = 600, 4.0
DRAWS = {20: 40, 60: 20, 200: 8}
RATES = (0.1, 0.05, 0.01)
NOTES = [
    "A normal's own score comes from a fit on N - 1, a fresh clip's from one on N, which makes fresh clips look a "
    "little more usual: with few normals somewhat fewer alarms come than promised.",
]
SOURCE, TARGET = 0, 1  # strata of the demo: normal train clips


def clips(index: int, seed: int) -> list[Clip]:
    machine = draw_machine(index, seed=seed)
    out = []
    for i in range(POOL):
        p = plan(index, TARGET if i % 10 == 9 else SOURCE, i, seed=seed)
        wave = make_clip(machine, p, index, SECONDS, seed=seed).astype(np.float32) / 32768
        out.append(Clip(wave[:, 0], wave[:, 1], 16_000, f"{i}"))
    return out


def false_alarms(index: int, seed: int) -> dict[tuple[int, float, str], tuple[int, int]]:
    """{(N, promised rate, method): (alarms, fresh clips)} of one machine, over all draws."""
    pool = clips(index, seed)
    detector = Detector().fit(pool[:60])
    heard = [clips[0] for clips in detector.embedder.embed_many(pool, as_normals=True)]
    rng = np.random.default_rng([seed, index])
    counts: dict[tuple[int, float, str], tuple[int, int]] = {}
    for size in DRAWS:
        for _ in range(DRAWS[size]):
            order = rng.permutation(POOL)
            fitted = Detector(detector.system).fit_embedded([heard[i] for i in order[:size]])
            fresh = [np.stack([heard[i].vectors[leaf] for i in order[size:]]) for leaf in range(len(detector.recipes))]
            scores = [backend.score(z) for backend, z in zip(fitted.backends, fresh, strict=True)]
            values = (fitted.fitted.combined.combine(iter(scores))[0] - fitted.fitted.mu) / fitted.fitted.sigma
            for rate in RATES:
                for method in THRESHOLD_METHODS:
                    alarms = int((values > fitted.set_threshold(rate=rate, method=method).value).sum())
                    before = counts.get((size, rate, method), (0, 0))
                    counts[size, rate, method] = (before[0] + alarms, before[1] + len(values))
    return counts


def main(seeds: int) -> None:
    machines = [false_alarms(index, seed) for seed in range(seeds) for index in range(3)]
    rows = []
    for size in DRAWS:
        for rate in RATES:
            for method in THRESHOLD_METHODS:
                pairs = [m[size, rate, method] for m in machines]
                realised = [a / n for a, n in pairs]
                fresh = POOL - size
                low, high = _interval(rate, size, fresh)
                kept = sum(low <= r <= high for r in realised)
                rows.append(
                    [size, f"{100 * rate:g} %", method, f"{100 * np.mean(realised):.2f} %"]
                    + [
                        f"{100 * min(realised):.2f} to {100 * max(realised):.2f} %",
                        f"{100 * low:.2f} to {100 * high:.2f} %",
                    ]
                    + [f"{kept} of {len(machines)}"]
                )
    columns = ["normals", "promised", "set-point", "came, mean", "came, by machine", "95 % interval", "machines within"]
    report("promise", columns, rows, NOTES)


def _interval(rate: float, size: int, fresh: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    p = stats.beta.rvs(rate * (size + 1), (1 - rate) * (size + 1), size=(20_000, DRAWS[size]), random_state=rng)
    means = rng.binomial(fresh, p).mean(axis=1) / fresh
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
