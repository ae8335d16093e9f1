"""The search space of the report as an ordered list of configurations (report 2.3, 2.5-2.7 and Table 2).

    Setting        what turns a clip's grid into a vector: layer, preprocessing, pooling, the frequency axis
    Space          for every setting the views, and for every view the back ends
    configuration  a `Recipe`; their order is settings, then views, then back ends

`REPORT` is the report's grid, 7 x 6 x 24 x 26 = 26,208 configurations; `EXTENDED` has views, back ends and frequency
modes that the report leaves out. Both are tables of parts; a space is the union of its parts, so a configuration that
two parts have is tried once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product
from typing import Any

from nearfar.backend import ALTERED_BANKS, ATTRIBUTE, BackendConfig
from nearfar.embedding.vectors import POOLED, layer_of
from nearfar.encoders import CLS, FREQS, Layers
from nearfar.ldn import AUTO
from nearfar.recipe import (
    BEAM,
    FUSE,
    NAMES,
    PLUGINS,
    SPACE,
    Recipe,
    is_parametric,
    leaves,
    outputs,
    parse_view,
    with_settings,
)
from nearfar.support.check import one_of

K, METRICS = SPACE["k"], SPACE["metric"]
PREPROCESSINGS, NONE = SPACE["preprocessing"], ((None, None),)
POOLINGS = (
    ("mean", 1.0, 3.0),
    *(("gem", 1.0, float(p)) for p in SPACE["p"]),
    *(("rdp", float(alpha), 3.0) for alpha in SPACE["alpha"]),
    *(("rdp_gem", float(alpha), float(p)) for alpha in SPACE["alpha"] for p in SPACE["p"]),
)  # kind, alpha, p
FEW_POOLINGS = (("mean", 1.0, 3.0), ("gem", 1.0, 3.0), ("rdp", 9.0, 3.0), ("rdp_gem", 1.0, 3.0))
BEAM_POOLINGS = (*FEW_POOLINGS[:1], *(("rdp", alpha, 3.0) for alpha in (4.0, 8.0)), *FEW_POOLINGS[3:])  # NA-SSL: RDP
DECIBEL_POOLINGS = tuple((kind, 1.0, 3.0) for kind in ("quiet", "power", "burst"))
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {  # Table 2; "k = 3 LDN" is density_k = 3
    "raw": tuple({"method": "raw", "metric": m, "k": k} for m in METRICS for k in K),
    "ldn": tuple({"method": "ldn", "metric": m, "density_k": k} for m in METRICS for k in K),
    **{method: tuple({"method": method, "metric": m} for m in METRICS) for method in SPACE["domain_aware"]},
    "varmin": tuple({"method": "varmin", "metric": m, "density_k": k} for m in METRICS for k in (1, 4)),
    "exponent": tuple(  # d / rho^lambda between raw and LDN
        {"method": "ldn", "metric": m, "density_k": k, "exponent": e}
        for m in METRICS for k in (1, 4, 16) for e in (0.25, 0.5, 0.75)
    ),
    "mahalanobis": ({"method": "mahalanobis"}, {"method": "mahalanobis", "ignore_domains": True}),
    "auto": tuple({"method": each, "metric": m, "density_k": AUTO} for each in ("ldn", "varmin") for m in METRICS),
    "pca": tuple({"method": "pca", "components": share} for share in (0.8, 0.95)),
    "zmin": ({"method": "zmin"},),
    "altered": tuple({"method": method} for method in ALTERED_BANKS),
    "ldn_k": tuple(
        {"method": "ldn", "metric": m, "k": k, "density_k": d} for m in METRICS for k in (3, 5) for d in (1, 4, 16)
    ),
    "weight": tuple({"method": "dbldn", "metric": m, "weight": w} for m in METRICS for w in (0.1, 0.25, 0.75, 0.9)),
    "attribute": (
        *({"method": "ldn", "metric": m, "density_k": k, "banks": ATTRIBUTE} for m in METRICS for k in (1, 16)),
        *({"method": "domain_z", "metric": m, "banks": ATTRIBUTE} for m in METRICS),
        {"method": "mahalanobis", "banks": ATTRIBUTE},
    ),
    "whitened": ({"method": "raw", "metric": "cosine", "whiten": True},),
}  # fmt: skip
BACKENDS = {name: tuple(BackendConfig(**each) for each in options) for name, options in OPTIONS.items()}
SEVERAL = "altered"  # the group of BACKENDS with several methods
IN_REPORT = ("raw", "ldn", *SPACE["domain_aware"])
LEAKAGE = tuple(f"{kind}_{1 << n}" for kind in ("w1", "w1w") for n in range(10, 15))  # windows of 1,024 to 16,384


@dataclass(frozen=True)
class Combinations:
    """All combinations of views, (low, spike), (pooling, alpha, p) and back ends by name."""

    views: tuple[str, ...]
    preprocessings: tuple[tuple[float | None, float | None], ...]
    poolings: tuple[tuple[str, float, float], ...]
    backends: tuple[str, ...]
    freqs: tuple[str, ...] = ()  # (): the caller's


REPORT = (Combinations(SPACE["view"], PREPROCESSINGS, POOLINGS, IN_REPORT),)
EXTENDED = (
    Combinations((*LEAKAGE, "far_only", "residual_0.5"), NONE, POOLINGS, IN_REPORT),
    Combinations(("near_only", "n_f", *LEAKAGE), NONE, FEW_POOLINGS, ("varmin", "exponent", "mahalanobis")),
    Combinations(("near_only", "n_f", *LEAKAGE), NONE, FEW_POOLINGS, ("auto", "pca")),
    Combinations(("near_only", "n_f", *LEAKAGE), NONE, FEW_POOLINGS, ("ldn_k", "weight", "attribute")),
    Combinations(("near_only",), NONE, FEW_POOLINGS[:1], ("whitened", "zmin", "altered")),
    Combinations(("near_only", "n_f", *LEAKAGE), NONE, DECIBEL_POOLINGS, ("raw", "ldn", "mahalanobis")),
    Combinations(("near_only", "n_f", *LEAKAGE), NONE, FEW_POOLINGS, ("raw", "ldn", "varmin"), ("bands",)),
    Combinations(("near_only", "n_f", *LEAKAGE), NONE, BEAM_POOLINGS, ("raw", "ldn", "varmin"), (BEAM,)),
)


@dataclass(frozen=True)
class Setting:
    """What turns a clip's grid into a vector."""

    low: float | None = None
    spike: float | None = None
    pooling: str = "mean"
    alpha: float = 1.0
    p: float = 3.0
    freq: str = "concat"
    layer: int | tuple[int, ...] | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Setting:
        """The setting of a configuration."""
        return cls(**{f.name: getattr(recipe, f.name) for f in fields(cls)})

    @property
    def output(self) -> Layers:
        """What the encoder is asked for; of a tuple the average."""
        return layer_of(outputs(self.layers, self.freq))

    @property
    def layers(self) -> tuple[int | None, ...]:
        """The layers that are taken."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    @property
    def name(self) -> str:
        """Readable, and fit for a file name: "low0.15-spike0.3-rdp_gem-alpha1-p3-concat-layer7"."""
        parts = [f"low{self.low:g}"] if self.low is not None else []
        parts += [f"spike{self.spike:g}"] if self.spike is not None else []
        parts += [self.pooling]
        parts += [f"alpha{self.alpha:g}"] if "rdp" in self.pooling else []
        parts += [f"p{self.p:g}"] if "gem" in self.pooling else []
        parts += [self.freq]
        parts += [f"layer{'+'.join(map(str, self.layers))}"] if self.layer is not None else []
        return "-".join(parts)


Plan = dict[Setting, dict[str, tuple[BackendConfig, ...]]]


@dataclass(frozen=True)
class Space:
    """The configurations of a search: {setting: {view: back ends}}."""

    plan: Plan

    def __len__(self) -> int:
        return sum(len(backends) for views in self.plan.values() for backends in views.values())

    def configurations(self, encoder: str, settings: Sequence[Setting] | None = None) -> Iterator[Recipe]:
        """The configurations in order, of all settings or of some."""
        for setting in self.plan if settings is None else settings:
            for view, backends in self.plan[setting].items():
                for backend in backends:
                    yield Recipe(encoder=encoder, view=view, **vars(setting), **vars(backend))

    def names(self) -> dict[str, set[str]]:
        """The views, poolings and methods of the configurations, by field of a recipe."""
        return {
            "view": {view for views in self.plan.values() for view in views},
            "pooling": {setting.pooling for setting in self.plan},
            "method": {b.method for views in self.plan.values() for backends in views.values() for b in backends},
        }

    def waveforms(self) -> tuple[str, ...]:
        """Names of the waveforms of a clip that are encoded."""
        views = dict.fromkeys(view for views in self.plan.values() for view in views)
        return tuple(dict.fromkeys(w for view in views for v in parts_of(view) for w in parse_view(v).waveforms))

    def changed(self, encoder: str, values: Mapping[str, Any]) -> Space:
        """The space with other values for some fields of all configurations. ValueError names a wrong key or value."""
        if "encoder" in values:
            raise ValueError("a search has its encoder from --encoder; set another key")
        recipes = dict.fromkeys(with_settings(recipe, values) for recipe in self.configurations(encoder))
        return space_of([recipe for recipe in recipes if isinstance(recipe, Recipe)])

    def without(self, left_out: Callable[[BackendConfig], bool]) -> Space:
        """The space without some back ends."""
        left = {
            s: {v: tuple(b for b in backends if not left_out(b)) for v, backends in views.items()}
            for s, views in self.plan.items()
        }
        return Space({s: {v: b for v, b in views.items() if b} for s, views in left.items() if any(views.values())})

    def without_far(self) -> Space:
        """The part of the space that needs the near channel alone."""
        return Space({s: {v: b for v, b in views.items() if v == "near_only"} for s, views in self.plan.items()})


def space(
    *,
    extended: bool = False,
    freqs: Sequence[str] = ("concat",),
    layers: Sequence[int | tuple[int, ...] | None] = (None,),
    views: Sequence[str | Callable[..., Any]] = (),
    poolings: Sequence[str | Callable[..., Any]] = (),
    methods: Sequence[str | Callable[..., Any]] = (),
) -> Space:
    """The report's space, with EXTENDED if `extended`, at each of the `layers`.

    A layer of None is the final one, a tuple the average of several. `views`, `poolings` and `methods` restrict the
    space by name. Plug-ins, by name or as they are, and views with a number such as n_0.25f are tried where they are
    given. Raises ValueError with the choices for an unknown name.
    """
    views, poolings, methods = (
        [str(NAMES[field](each)) for each in given]
        for field, given in (("view", views), ("pooling", poolings), ("method", methods))
    )
    parts = (*REPORT, *EXTENDED) if extended else REPORT
    parts = (*parts, *_of_plugins(views, poolings, methods))
    _check_names("freq", freqs, {*FREQS, BEAM, CLS})
    for what, names, words in (
        ("view", views, lambda part: part.views),
        ("pooling", poolings, lambda part: [kind for kind, _, _ in part.poolings]),
        ("method", methods, lambda part: [word for name in part.backends for word in _words(name)]),
    ):
        known = {word for part in parts for word in words(part)}
        if later := {word for part in EXTENDED for word in words(part)}.intersection(names) - known:
            raise ValueError(f"{what} {min(later)!r} belongs to the extended search: --extended, or extended=True")
        _check_names(what, names, known)
    plan: dict[Setting, dict[str, dict[BackendConfig, None]]] = {}
    for part in parts:
        chosen = [view for view in part.views if not views or view in views]
        backends = [
            each
            for name in part.backends
            for each in _options(name)
            if not methods or name in methods or (each.method in methods and name == SEVERAL)
        ]
        if chosen and backends:
            for setting in _settings(part, part.freqs or freqs, layers, poolings):
                for view in chosen:
                    plan.setdefault(setting, {}).setdefault(view, {}).update(dict.fromkeys(backends))
    if not plan:
        raise ValueError("nothing of the search space is left: no part of it has all that was asked for")
    return _ordered({s: {view: tuple(backends) for view, backends in views.items()} for s, views in plan.items()})


def _ordered(plan: Plan) -> Space:
    """A space in which settings that share the frames of a clip are neighbours."""
    by_frames = sorted(plan, key=lambda s: (s.freq, [n or 0 for n in s.layers], s.low or 0, s.spike or 0))
    return Space({setting: plan[setting] for setting in by_frames})


def _of_plugins(views: Sequence[str], poolings: Sequence[str], methods: Sequence[str]) -> Iterator[Combinations]:
    """Parts for views with a number and for plug-ins, which are searched where they are asked for by name."""
    own_views = tuple(v for v in views if is_parametric(v) or v in PLUGINS["view"].paths)
    own_poolings = tuple((name, 1.0, 3.0) for name in poolings if name in PLUGINS["pooling"].paths)
    own_methods = tuple(name for name in methods if name in PLUGINS["method"].paths)
    if own_views:
        yield Combinations(own_views, PREPROCESSINGS, POOLINGS, IN_REPORT)
    if own_poolings or own_methods:
        each_view = (*SPACE["view"], *own_views)
        yield Combinations(each_view, NONE, (*POOLINGS, *own_poolings), (*IN_REPORT, *own_methods))


def _options(method: str) -> tuple[BackendConfig, ...]:
    """The back ends of a method, see `BACKENDS`; of a plug-in, with each metric."""
    return BACKENDS.get(method) or tuple(BackendConfig(method=method, metric=metric) for metric in METRICS)


def _words(name: str) -> tuple[str, ...]:
    """What chooses a group of back ends: its name, and of several methods also the name of each."""
    return (name, *ALTERED_BANKS) if name == SEVERAL else (name,)


def _check_names(what: str, names: Sequence[str], choices: set[str]) -> None:
    for name in names:
        one_of(f"{what} of the search", name, sorted(choices))


def space_of(recipes: Sequence[Recipe]) -> Space:
    """The space of these configurations of one encoder; ValueError for a recipe that a search cannot score."""
    plan: Plan = {}
    for recipe in recipes:
        if not recipe.normalize:
            raise ValueError(
                "only recipes with normalised embeddings can be searched or fused, and normalize is false in that of "
                f"{recipe.encoder}, {recipe.view}, {recipe.pooling}, {recipe.method}"
            )
        if recipe.layer_rule == FUSE:
            raise ValueError(
                f"a search scores single systems, and {recipe.encoder} fuses layers: fuse its rows instead"
            )
        if recipe.plus:
            raise ValueError(f"a search scores recipes of one vector, and that of {recipe.encoder} has plus")
        views = plan.setdefault(Setting.of(recipe), {})
        views[recipe.view] = (*views.get(recipe.view, ()), recipe.backend)
    return _ordered(plan)


@lru_cache
def parts_of(view: str) -> tuple[str, ...]:
    """The views whose scores are combined to the score of a view: itself, or the three of eq. 13."""
    return tuple(leaf.view for leaf in leaves(Recipe(view=view)))


def as_row(recipe: Recipe) -> dict[str, Any]:
    """A configuration as data: fields that differ from their defaults, and always encoder, view, pooling, back end."""
    always = ("encoder", "view", *POOLED, "method", "metric", "k", "density_k")
    return {
        f.name: getattr(recipe, f.name)
        for f in fields(Recipe)
        if f.name in always or getattr(recipe, f.name) != f.default
    }


def _settings(
    part: Combinations, freqs: Sequence[str], layers: Sequence[int | tuple[int, ...] | None], poolings: Sequence[str]
) -> Iterator[Setting]:
    for freq, layer in product(freqs, layers):
        for low, spike in part.preprocessings:
            for kind, alpha, p in part.poolings:
                if not poolings or kind in poolings:
                    yield Setting(low, spike, kind, alpha, p, freq, layer)
