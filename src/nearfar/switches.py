"""Every choice of a back end, as data: the switches of `backend.fit` (report section 2.7; Table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nearfar.bank import METRICS
from nearfar.check import number, one_of, switch, whole

METHODS = ("raw", "ldn", "domain_z", "dldn", "dbldn", "varmin", "mahalanobis")
DOMAIN_AWARE = ("domain_z", "dldn", "dbldn")
DENSITY_K = {"ldn": 16, "dldn": 16, "dbldn": 16, "varmin": 4}  # used where density_k is None ([12]; VarMin: K = 4)
DENSITY_K_TARGET = 9  # [12]: all the other targets
CHOICES = {
    "density_agg": ("mean", "sum"),
    "neighbour_selection": ("normalized", "raw"),
    "form": ("ratio", "difference"),
    "z_sigma": ("target", "own"),
}


@dataclass(frozen=True)
class Switches:
    """Every choice of a back end; names and defaults as in `fit`."""

    method: str = "raw"
    metric: str = "cosine"
    k: int = 1
    density_k: int | None = None
    density_k_source: int | None = None
    density_k_target: int | None = None
    density_agg: str = "mean"
    neighbour_selection: str = "normalized"
    form: str = "ratio"
    exponent: float = 1.0
    z_sigma: str = "target"
    weight: float = 0.5
    shrinkage: float | str = "ledoit_wolf"
    standardize: bool = False
    whiten: bool = False
    ignore_domains: bool = False

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        one_of("metric", self.metric, METRICS)
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        number("weight", self.weight, low=0, high=1)
        number("exponent", self.exponent)
        if self.shrinkage != "ledoit_wolf":
            number("shrinkage", self.shrinkage, low=0, high=1)  # type: ignore[arg-type]
        for name in ("standardize", "whiten", "ignore_domains"):
            switch(name, getattr(self, name))
        for name in ("k", "density_k", "density_k_source", "density_k_target"):
            if name == "k" or getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name)))

    def density(self, domain: str = "") -> dict[str, Any]:
        """Keyword arguments of the `DensityBank` of a domain ("source", "target") or of all clips ("")."""
        own = {"source": self.density_k_source, "target": self.density_k_target}.get(domain)
        default = DENSITY_K_TARGET if domain == "target" else DENSITY_K.get(self.method, 1)
        return {
            "k": self.k,
            "density_k": own or self.density_k or default,
            "density_agg": self.density_agg,
            "neighbour_selection": self.neighbour_selection,
            "form": self.form,
            "exponent": self.exponent,
        }
