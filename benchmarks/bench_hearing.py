"""What is heard: the default beside the scikit-learn floor and its own parts, on demo machines of several seeds.

Official score (harmonic mean of both AUCs and pAUC, percent) per kind of machine, and overall. Nothing was chosen on
these machines' labels by the default; the parts show which step is worth what.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from measure import report
from nearfar.challenge.evaluate import evaluate
from nearfar.demo import make_dataset
from nearfar.recipe import FLOOR, Recipe

GAUSS = {"method": "mahalanobis", "shrinkage": 0.1, "standardize": True, "normalize": False}
SYSTEMS = {
    "floor: near, mean + std, Ledoit-Wolf Gaussian": FLOOR,
    "near, quantile": Recipe(pooling="quantile", **GAUSS),
    "w1_1024, mean + std, Ledoit-Wolf Gaussian": Recipe(
        view="w1_1024", pooling="mean_std", method="mahalanobis", normalize=False
    ),
    "w1w_16384, mean + std, Ledoit-Wolf Gaussian": Recipe(
        view="w1w_16384", pooling="mean_std", method="mahalanobis", normalize=False
    ),
    "w1w_16384, quantile": Recipe(view="w1w_16384", pooling="quantile", **GAUSS),
    "w1w_16384, peak": Recipe(view="w1w_16384", pooling="peak", **GAUSS),
    "the default": None,
}


def main(seeds: int) -> None:
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in SYSTEMS}
    for seed in range(100, 100 + seeds):
        with tempfile.TemporaryDirectory() as folder:
            data = make_dataset(Path(folder) / "data", machines=3, train=100, test=80, seconds=10.0, seed=seed)
            for name, system in SYSTEMS.items():
                for machine in evaluate(data, system, rounds=1).machines:
                    assert machine.result is not None
                    scores[name].setdefault(machine.name, []).append(machine.result.omega)
    machines = list(next(iter(scores.values())))
    rows = []
    for name, by_machine in scores.items():
        everything = [omega for omegas in by_machine.values() for omega in omegas]
        rows.append(
            [name, *(f"{100 * np.mean(by_machine[m]):.1f}" for m in machines), f"{100 * np.mean(everything):.1f}"]
        )
    report("hearing", ["system", *machines, "mean"], rows, [f"{seeds} seeds, 100 normals and 80 test clips a machine."])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
