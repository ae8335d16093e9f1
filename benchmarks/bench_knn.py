"""Exact nearest neighbours (k = 1 and 5, 768 wide) beside scikit-learn's brute force and the machine's sgemm rate.

"of sgemm": the time of the same product of queries and bank by plain numpy, divided by ours; 1 would mean that finding
neighbours costs nothing beyond the product. Limits: 0.7 in batch, and never slower than scikit-learn.
"""

from functools import partial
from itertools import product

import numpy as np
from sklearn.neighbors import NearestNeighbors

from measure import interleaved_seconds, report
from nearfar.bank import METRICS, Bank

KS, WIDTH, QUERIES = (1, 5), 768, 1000  # all eight systems of the report's Table 3 take k = 1
RUNS = {1_000: 101, 10_000: 21, 100_000: 5}


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for count in RUNS:
        z = rng.normal(size=(count, WIDTH)).astype(np.float32)
        for metric in METRICS:
            bank = Bank(z, metric)
            theirs = NearestNeighbors(algorithm="brute", metric=metric).fit(z)
            for k, batch in product(KS, (QUERIES, 1)):
                q = rng.normal(size=(batch, WIDTH)).astype(np.float32)
                sgemm, ours, sklearn = interleaved_seconds(
                    partial(np.matmul, q, z.T),
                    partial(bank.nearest, q, k),
                    partial(theirs.kneighbors, q, k),
                    runs=RUNS[count],
                    rest=0.1,
                )
                times = f"{1e3 * ours / batch:.3f}", f"{sgemm / ours:.2f}", f"{sklearn / ours:.2f}"
                rows.append([f"{count:,}", metric, k, batch, *times])
    report("knn", ["bank", "metric", "k", "batch", "ms a query", "of sgemm", "times faster than scikit-learn"], rows)


if __name__ == "__main__":
    main()
