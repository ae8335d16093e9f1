"""Large banks of 768 numbers a normal: build, query, LDN, memory; the engines beside the exact search.

    python benchmarks/bench_bank.py [--most 1000000]

The vectors have 8 directions of their own and a little noise in all others, as embeddings of one machine have. Half of
the queries are moved, as anomalies are. Every engine runs in a process of its own. Needs 12 GB of memory and 6 GB of
room for temporary files at a million.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from measure import Table, in_fresh_process, report_tables
from nearfar.approximate import ivf, ivf_pq
from nearfar.backend import fit
from nearfar.bank import LARGE, Bank, MappedBank, bank_of_vectors, coreset
from nearfar.metrics import auc
from nearfar.support.check import Array

WIDTH, INNER = 768, 8
QUERIES, SINGLE, K = 400, 5, 10
SIZES = (10_000, 100_000, 300_000, 1_000_000)
LDN_SIZES = (5_000, 10_000, 20_000)
ENGINES = ("exact", "mapped", "ivf", "ivf_pq", "coreset")
SHARE = 0.01  # of the bank that the coreset keeps
BEYOND = (1_000_000, 3_000_000, 10_000_000, 100_000_000)


def normals(count: int) -> Array:
    """Vectors (count, WIDTH) float32."""
    rng = np.random.default_rng(0)
    onto = rng.normal(size=(INNER, WIDTH)).astype(np.float32)
    z = rng.standard_normal((count, WIDTH), np.float32)
    z *= 0.3
    for start in range(0, count, 1 << 16):
        part = z[start : start + (1 << 16)]
        part += rng.standard_normal((len(part), INNER), np.float32) @ onto
    return z


def queries() -> tuple[Array, Array]:
    """(QUERIES, WIDTH) of the same machine, and which of them are moved."""
    rng = np.random.default_rng(1)
    onto = np.random.default_rng(0).normal(size=(INNER, WIDTH)).astype(np.float32)
    q = rng.standard_normal((QUERIES, INNER)) @ onto + 0.3 * rng.standard_normal((QUERIES, WIDTH))
    moved = np.arange(QUERIES) % 2 == 1
    q[moved] += 0.8 * rng.standard_normal((moved.sum(), WIDTH))
    return q.astype(np.float32), moved


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def searched(engine: str, count: int) -> dict[str, Any]:
    """Seconds to build, ms a query alone and in a batch, neighbours and scores of the queries."""
    z, (q, _) = normals(count), queries()
    kept = ""
    if engine == "coreset":
        chosen, to_choose = timed(lambda: coreset(z, int(SHARE * count)))
        bank, to_build = timed(lambda: bank_of_vectors(z[chosen.kept], "cosine"))
        to_build += to_choose
        apart = f"{chosen.mean:.3f} from the nearest that stays, at most {chosen.radius:.3f}"
        kept = f"{len(chosen.kept):,}: a normal left out is {apart}"
        search = bank.nearest
    elif engine in ("ivf", "ivf_pq"):
        index, to_build = timed(lambda: {"ivf": ivf, "ivf_pq": ivf_pq}[engine](z, np.zeros(count, bool)))
        search = index.search
    else:
        bank, to_build = timed(lambda: (MappedBank if engine == "mapped" else Bank)(z, "cosine"))
        search = bank.nearest
    search(q[:2], K)
    (distances, members), in_batch = timed(lambda: search(q, K))
    alone = [timed(partial(search, q[i : i + 1], K))[1] for i in range(SINGLE)]
    return {
        "build": to_build,
        "alone": 1e3 * float(np.median(alone)),
        "batch": 1e3 * in_batch / len(q),
        "scores": distances[:, 0],
        "members": members,
        "kept": kept,
    }


def calibrated(count: int) -> float:
    """Seconds to fit LDN and score the queries."""
    z = normals(count)

    def work() -> None:
        fit(z, method="ldn").score(queries()[0])

    return timed(work)[1]


def main(most: int) -> None:
    _, moved = queries()
    rows, measured = [], {}
    for count in (size for size in SIZES if size <= most):
        for engine in ENGINES[count > LARGE :] if count >= LARGE else ENGINES[:1]:
            found, _, peak = in_fresh_process(searched, engine, count)
            measured[engine, count] = found
            exact = measured.get(("mapped", count)) or measured["exact", count]
            at = {
                k: np.mean(
                    [np.isin(a[:k], b[:k]).mean() for a, b in zip(exact["members"], found["members"], strict=True)]
                )
                for k in (1, K)
            }
            apart = auc(found["scores"], moved) - auc(exact["scores"], moved)
            recall = ["-"] * 2 if engine == "coreset" else [f"{at[1]:.3f}", f"{at[K]:.3f}"]
            rows.append(
                [
                    f"{count:,}",
                    engine,
                    f"{found['build']:.1f}",
                    f"{found['alone']:.1f}",
                    f"{found['batch']:.2f}",
                    f"{peak:,.0f}",
                    *recall,
                    f"{auc(found['scores'], moved):.4f}",
                    f"{apart:+.4f}",
                ]
            )
            print(*rows[-1], sep=" | ", flush=True)
    ldn = [[f"{count:,}", f"{in_fresh_process(calibrated, count)[0]:.1f}", "measured"] for count in LDN_SIZES]
    per_pair = float(ldn[-1][1]) / LDN_SIZES[-1] ** 2
    ldn += [[f"{count:,}", f"{per_pair * count**2:,.0f}", "extrapolated: grows with N^2"] for count in (100_000, most)]
    beyond = []
    for count in (size for size in BEYOND if size > most):
        for engine in (each for each, size in measured if size == most and each != "exact"):
            one, times = measured[engine, most], count / most
            grows = times**0.5 if engine.startswith("ivf") else times
            beyond.append(
                [
                    f"{count:,}",
                    engine,
                    f"{one['build'] * times * (grows if 'ivf' in engine else 1) / 60:,.0f}",
                    f"{one['alone'] * grows:,.0f}",
                    disk(engine, count),
                ]
            )
    report_tables(
        "bank",
        [
            Table(
                "Measured",
                (
                    "normals",
                    "engine",
                    "s to build",
                    "ms a query alone",
                    "ms in a batch",
                    "peak MiB",
                    "recall@1",
                    f"recall@{K}",
                    "AUC",
                    "AUC - exact",
                ),
                rows,
            ),
            Table("LDN: fit and score 400", ("normals", "seconds", ""), ldn),
            Table(
                f"Extrapolated from {most:,}", ("normals", "engine", "min to build", "ms a query alone", "size"), beyond
            ),
        ],
        ["The peak holds the benchmark's own vectors. exact and mapped give the same neighbours to the last bit."]
        + [f"coreset of {c:,}: keeps {m['kept']} (cosine)." for (e, c), m in measured.items() if e == "coreset"],
    )


def disk(engine: str, count: int) -> str:
    """What the engine keeps: vectors in float32, and its own copy."""
    number = {"mapped": 6, "ivf": 8, "ivf_pq": 4 + 1 / 8, "coreset": SHARE * 8}[engine]
    return f"{count * WIDTH * number / 1e9:,.0f} GB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest bank")
    main(parser.parse_args().most)
