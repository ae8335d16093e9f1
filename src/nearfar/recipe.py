"""Recipes: everything that changes a score, as data (report sections 2.3-2.8, Table 3).

    Recipe   one system: encoder, view, frame preprocessing, pooling, back end
    Fusion   a weighted average of systems, aligned by the scores of their normals                  eq. 17-18
    Watch    systems for different kinds of faults under one set-point; an alarm names the system that found it

`TABLE_3` holds the report's eight best single systems, `FUSION` its five-system fusion, `SPACE` its search space.

Conventions
    All three are frozen, go to JSON and back, and compare by value. An unknown key or value is a ValueError that names
    the choices.
    Where the report leaves a choice open: "k = 3 LDN" is query k = 1 with density_k = 3; only the two EAT systems have
    frame preprocessing; s_stereo of eq. 13 is `n_f`; the three parts of eq. 13 share pooling and back end.

>>> TABLE_3["beats"].view, TABLE_3["beats"].pooling, TABLE_3["beats"].density_k
('n_0.5f', 'rdp', 3)
>>> Recipe.from_json('{"view": "n_f", "k": 3}') == Recipe(view="n_f", k=3)
True
>>> Recipe(view="sfsoft_a05f07").parsed_view.waveforms
('near', 'enh_a05f07', 'far')
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, cached_property
from typing import Any

from nearfar import backend, pooling, views
from nearfar.backend import COUNTS, BackendConfig
from nearfar.encoders import CLS, FREQS, TABLE, Layer, name_of_encoder, names
from nearfar.encoders.plugins import PLUGINS as ENCODER_PLUGINS
from nearfar.enhance import LONGEST, MASK_STFT, SHORTEST
from nearfar.fusion import check_weights
from nearfar.pooling import POOLINGS
from nearfar.support.check import choose, integer, number, one_of, switch
from nearfar.support.plugins import Plugins
from nearfar.views import FAMILIES, VIEWS, is_view, needs_far

AVERAGE, FUSE = "average", "fuse"  # how several layers become one system
BEAM = "beam"  # each frequency row is pooled, composed and scored by itself; the score is the mean over the rows
RAREST, ROOT_SUM = "rarest", "root_sum"  # how a watch combines its parts, see `Watch`
WHOLE = (*COUNTS, "layer")  # the fields of a recipe that are whole numbers
SOFT_MASKS = {"a03f05": (0.3, 0.5), "a05f07": (0.5, 0.7)}  # alpha, floor
WINDOWS = [1 << n for n in range(SHORTEST.bit_length() - 1, LONGEST.bit_length())]
SUBTRACTIONS = ("w1", "w1w", "w1i", "noise")
WAVE_VIEWS = (
    [f"sfsoft_{m}" for m in SOFT_MASKS]
    + [f"enh_{m}" for m in SOFT_MASKS]
    + [f"{kind}_{n}" for kind in SUBTRACTIONS for n in WINDOWS]
)
# The first digit of alpha and floor stands before the point; n<n_fft>h<hop> may follow, in samples at 16 kHz.
MASK = re.compile(r"(?:sfsoft|enh)_a(\d{2,5})f(\d{2,5})(?:n(\d{3,5})h(\d{1,5}))?")
MASK_VIEWS = ("sfsoft_a<alpha>f<floor>", "enh_a<alpha>f<floor>", "sfsoft_a<alpha>f<floor>n<n_fft>h<hop>")
COMPOSITE = (("near_only", 0.6), ("enh", 0.2), ("n_f", 0.2))  # eq. 13: near, enhanced, stereo


@dataclass(frozen=True)
class View:
    """A recipe's view, parsed: which waveforms are encoded and how their pooled embeddings are composed.

    name        as in the recipe: "n_0.5f", "enh_a03f05", "w1i_16384", "sfsoft_a05f07" ...
    kind        "plain" (as recorded), "enh" (soft mask), "w1", "w1w", "w1i" (leakage subtraction: plain, weighted, and
                weighted without the ends of the clip), "noise" (what the weighted subtraction takes out of near) or
                "sfsoft" (the fusion of eq. 13)
    waveform    name of the waveform at near's place: "near", or `name` for an enhanced one
    pooled      view of the pooled embeddings, see `views.compose`
    waveforms   names of the waveforms that are encoded, in the order in which `views.compose` takes their embeddings
    needs_far   True if the clip needs a far channel
    alpha, floor   of the soft mask ("enh" and "sfsoft"), else None
    n_fft       window of the leakage subtraction in samples at 16 kHz (`SUBTRACTIONS`), else None
    stft        n_fft and hop of the soft mask in samples at 16 kHz, else None
    """

    name: str
    kind: str
    waveform: str
    pooled: str
    waveforms: tuple[str, ...]
    needs_far: bool
    alpha: float | None = None
    floor: float | None = None
    n_fft: int | None = None
    stft: tuple[int, int] | None = None


@cache
def parse_view(name: str) -> View:
    """The view called `name`; the name of a waveform ("near", "far", "enh_a03f05") is the view of it alone."""
    if name in ("near", "far"):
        return View(name, "plain", name, "near_only", (name,), needs_far=name == "far")
    if is_view(name):
        far = needs_far(name)
        return View(name, "plain", "near", name, ("near", "far") if far else ("near",), needs_far=far)
    mask = MASK.fullmatch(name) if isinstance(name, str) else None
    if name in (*FAMILIES, *MASK_VIEWS):
        raise ValueError(f"the view {name!r} needs its numbers, such as n_0.25f or sfsoft_a07f03")
    if mask is None:
        one_of("view", name, [*VIEWS, *FAMILIES, *WAVE_VIEWS, *MASK_VIEWS])
    kind, _, setting = name.partition("_")
    if mask is None:
        return View(name, kind, name, "near_only", (name,), needs_far=True, n_fft=int(setting))
    alpha, floor = (
        number(f"{what} of view {name!r}", int(digits) / 10 ** (len(digits) - 1), low=0, high=1)
        for what, digits in zip(("alpha", "floor"), mask.groups()[:2], strict=True)
    )
    n_fft, hop = (int(digits) if digits else usual for digits, usual in zip(mask.groups()[2:], MASK_STFT, strict=True))
    integer(f"n_fft of view {name!r}", n_fft, low=SHORTEST, high=LONGEST)
    integer(f"hop of view {name!r}", hop, high=n_fft // 2)
    waveforms = ("near", f"enh_{setting}", "far") if kind == "sfsoft" else (name,)
    return View(name, kind, name, "near_only", waveforms, True, alpha, floor, stft=(n_fft, hop))


PLUGINS: dict[str, Plugins[Any]] = {  # by field of a recipe
    "encoder": ENCODER_PLUGINS,
    "view": views.PLUGINS,
    "pooling": pooling.PLUGINS,
    "method": backend.PLUGINS,
}
NAMES: dict[str, Callable[[Any], str]] = {  # the name of a plug-in that is given itself
    **{field: plugins.name_of for field, plugins in PLUGINS.items()},
    "encoder": name_of_encoder,
}


class TakesPlugins(type):
    """Makes a recipe hold the name of an encoder, view, pooling or back end where the thing itself is given."""

    def __call__(cls, **values: Any) -> Any:
        return super().__call__(**{key: NAMES[key](v) if key in NAMES else v for key, v in values.items()})


class AsJson:
    """What a recipe, fusion and watch share: they go to JSON and back."""

    def to_json(self) -> str:
        """The system as JSON text; numpy's numbers as Python's."""
        return json.dumps(as_data(self), indent=2, default=lambda number: number.item())  # type: ignore[arg-type]

    @staticmethod
    def from_json(text: str) -> System:
        """A recipe, fusion or watch from JSON text; unknown keys or values are ValueErrors that name the choices."""
        return from_json(text)


@dataclass(frozen=True, kw_only=True)
class Recipe(AsJson, BackendConfig, metaclass=TakesPlugins):
    """One system, from waveform to score.

        encoder      name of `encoders.names()`, or an encoder of your own as `encoders.plugins` describes it. An
                     object, and a function for view, pooling or method, is registered: the recipe holds its name
        layer        of the network, counted from 1; None: the final one. Several layers, a tuple, give one system
        layer_rule   "average": the grids of several layers are averaged; "fuse": the layers are systems of their own,
                     and their scores are fused with equal weights (eq. 17-18)
        view         of `views.compose`, or a waveform made of both channels: sfsoft_a03f05 (alpha 0.3, floor 0.5),
                     enh_a03f05, w1_1024, noise_16384 ...
        low, spike   thresholds of `frames.suppress`, or None
        pooling, alpha, p   as in `pooling.pool`
        freq         how the frequency rows of the encoder's grid become frames: "concat" or "mean"; "bands": each row
                     is pooled with its own weights and the vectors are concatenated; "beam": each row is scored by
                     itself and the scores are averaged; "cls": no row is used, but the network's class tokens
        normalize    whether the clip's vector is scaled to length 1 (the report); False for features in decibels
        plus         recipes whose vectors are appended to this one's before the back end; theirs are not used

    `method`, `metric`, `k`, `density_k`, `banks` and the others are those of `backend.fit`; attributes come from the
    names of the normals, or from attributes_00.csv beside them.
    """

    encoder: str = "logmel"
    layer: int | tuple[int, ...] | None = None
    layer_rule: str = AVERAGE
    view: str = "near_only"
    low: float | None = None
    spike: float | None = None
    pooling: str = "mean"
    alpha: float = 1.0
    p: float = 3.0
    freq: str = "concat"
    normalize: bool = True
    plus: tuple[Recipe, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("encoder", self.encoder, names())
        one_of("layer_rule", self.layer_rule, (AVERAGE, FUSE))
        for layer in self.layers:
            if layer is None and self.layer is None:
                continue
            if not isinstance(layer, int):
                raise ValueError(f"layer must be a whole number >= 1, or a tuple of them, not {self.layer!r}")
            integer("layer", layer)
            if not TABLE[self.encoder].has_layers:
                raise ValueError(f"encoder {self.encoder!r} has no layers to choose from, so leave layer at None")
        if len(set(self.layers)) < max(1, len(self.layers)):
            raise ValueError(f"layer must hold different layers, not {self.layer!r}")
        parse_view(self.view)
        one_of("pooling", self.pooling, POOLINGS)
        one_of("freq", self.freq, [*FREQS, BEAM, CLS])
        if self.freq == CLS and not TABLE[self.encoder].class_tokens:
            those = ", ".join(name for name, entry in TABLE.items() if entry.class_tokens)
            raise ValueError(f"encoder {self.encoder!r} has no class tokens for freq 'cls'; those that have: {those}")
        number("p", self.p, above=0)
        number("alpha", self.alpha, low=0)
        for name in ("low", "spike"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name))
        if self.low is not None and self.spike is not None:
            number("spike", self.spike, above=self.low)
        switch("normalize", self.normalize)
        if not all(isinstance(part, Recipe) and not part.plus for part in self.plus):
            raise ValueError("plus must hold recipes that have no plus of their own")
        if self.plus and (self.freq == BEAM or self.parsed_view.kind == "sfsoft" or self.layer_rule == FUSE):
            raise ValueError("plus does not go with freq 'beam', layer_rule 'fuse' or a fusion of waveforms (sfsoft)")

    @property
    def backend(self) -> BackendConfig:
        """The back end's part of the recipe."""
        return BackendConfig(**{f.name: getattr(self, f.name) for f in fields(BackendConfig)})

    @property
    def layers(self) -> tuple[int | None, ...]:
        """The layers that the system takes."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    @property
    def outputs(self) -> tuple[Layer, ...]:
        """What the encoder is asked for, layer by layer; the average of several is used."""
        return outputs(self.layers, self.freq)

    @property
    def parsed_view(self) -> View:
        """The parts of `view`."""
        return parse_view(self.view)

    @cached_property
    def parts(self) -> tuple[Recipe, ...]:
        """The recipes whose vectors are concatenated: this one without `plus`, then those of `plus`."""
        return (replace(self, plus=()), *self.plus) if self.plus else (self,)

    @property
    def needs_far(self) -> bool:
        """True if the recipe needs the far microphone."""
        return any(part.parsed_view.needs_far for part in self.parts)

    def expand(self) -> System:
        """The recipe itself, or the fusion of layers, or the one of eq. 13 that an `sfsoft_*` view stands for."""
        if self.layer_rule == FUSE and len(self.layers) > 1:
            layers = self.layers
            return Fusion(tuple((1 / len(layers), replace(self, layer=n, layer_rule=AVERAGE)) for n in layers))
        if self.parsed_view.kind != "sfsoft":
            return self
        _, enhanced, _ = self.parsed_view.waveforms
        views = [(enhanced if view == "enh" else view, weight) for view, weight in COMPOSITE]
        return Fusion(tuple((weight, replace(self, view=view)) for view, weight in views))


@dataclass(frozen=True)
class Fusion(AsJson):
    """Weighted average of systems, aligned by their training normals (eq. 17-18).

    `parts` are (weight, system); the weights are >= 0 and sum to 1.
    """

    parts: tuple[tuple[float, System], ...]

    def __post_init__(self) -> None:
        check_weights([weight for weight, _ in self.parts], len(self.parts))


@dataclass(frozen=True)
class Watch(AsJson):
    """Systems that each watch for one kind of change.

    parts     (name, weight, system); names differ, weights are > 0
    combine   how the p-values p_j of the parts, by the normals' own scores, become one score:
              "rarest"    max_j (log w_j - log p_j): the parts share one false-alarm budget, and the weights sum to 1
              "root_sum"  sqrt(sum_j (w_j log p_j)^2): parts that deviate a little together count too
    """

    parts: tuple[tuple[str, float, System], ...]
    combine: str = RAREST

    def __post_init__(self) -> None:
        one_of("combine", self.combine, (RAREST, ROOT_SUM))
        weights = [number("the weight of a part", weight, above=0) for _, weight, _ in self.parts]
        if self.combine == RAREST:
            check_weights(weights, len(self.parts))
        names = [name for name, _, _ in self.parts]
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"every part of a watch needs a name of its own; they are {', '.join(map(repr, names))}")


System = Recipe | Fusion | Watch


def outputs(layers: Iterable[int | None], freq: str) -> tuple[Layer, ...]:
    """What an encoder is asked for: the grids of these layers, or their class tokens."""
    return tuple(f"{CLS}{'' if n is None else n}" if freq == CLS else n for n in layers)


def is_parametric(view: str) -> bool:
    """Whether a view has a number that a person chooses: n_0.25f, absdif_2, sfsoft_a07f03."""
    return views.parameter(view) is not None or MASK.fullmatch(view) is not None


def leaves(system: System) -> Iterator[Recipe]:
    """The recipes that a system consists of; an `sfsoft` view counts as the three recipes of eq. 13."""
    if isinstance(system, Recipe):
        expanded = system.expand()
        if expanded is system:
            yield system
        else:
            yield from leaves(expanded)
    else:
        for part in system.parts:
            yield from leaves(part[-1])


def plugins_of(system: System) -> dict[str, dict[str, str]]:
    """The plug-ins that a system needs: {field of a recipe: {name: import path}}."""
    found: dict[str, dict[str, str]] = {}
    for recipe in (part for leaf in leaves(system) for part in leaf.parts):
        for field, plugins in PLUGINS.items():
            name = getattr(recipe, field)
            if name in plugins.paths:
                found.setdefault(field, {})[name] = plugins.paths[name]
    return found


def plugin_versions(recipes: Iterable[Recipe]) -> dict[str, dict[str, str]]:
    """{field: {name: version}} of the views, poolings and back ends of the user that recipes name."""
    parts = [part for recipe in recipes for part in recipe.parts]
    named = {field: {getattr(part, field) for part in parts} & each.paths.keys() for field, each in PLUGINS.items()}
    return {
        field: {name: PLUGINS[field].version(name) for name in sorted(names)}
        for field, names in named.items()
        if names and field != "encoder"
    }


def require_plugins(needed: Any) -> None:
    """MissingPlugin, with the way out, if a plug-in that `plugins_of` a saved system named is not registered."""
    for field, paths in dict(needed).items():
        for name, path in dict(paths).items():
            choose("kind of plug-in", field, PLUGINS).require(str(name), str(path))


def dominant_recipe(system: System, part_scores: Mapping[str, float]) -> int:
    """Index, in the order of `leaves`, of the recipe that decides a score.

    Of a watch, the first recipe of the part with the highest of `part_scores`; of a fusion, that of the largest weight.
    """
    if isinstance(system, Recipe):
        recipes = list(leaves(system))
        return recipes.index(max(recipes, key=lambda r: r.view == "near_only"))
    counts = [len(list(leaves(each[-1]))) for each in system.parts]
    if isinstance(system, Watch):
        best = [name for name, _, _ in system.parts].index(max(part_scores, key=lambda name: part_scores[name]))
    else:
        weights = [weight for weight, _ in system.parts]
        best = weights.index(max(weights))
    return sum(counts[:best])


def as_data(system: System) -> dict[str, Any]:
    """A system as plain data for JSON, with a version."""
    if isinstance(system, Recipe):
        plain = {"recipe": 1, **asdict(system)}
        plus = plain.pop("plus")
        return {**plain, "plus": list(plus)} if plus else plain
    if isinstance(system, Fusion):
        return {"fusion": 1, "parts": [{"weight": w, "system": as_data(s)} for w, s in system.parts]}
    parts = [{"name": n, "weight": w, "system": as_data(s)} for n, w, s in system.parts]
    return {"watch": 1, "combine": system.combine, "parts": parts}


def from_data(data: Any) -> System:
    """The system of `as_data`'s data; a recipe may lack the version. ValueError for anything else."""
    if not isinstance(data, dict):
        raise ValueError(f"a recipe is a JSON object, not {type(data).__name__}")
    if data and not {"recipe", "fusion", "watch", "parts"} & data.keys():
        data = {"recipe": 1, **data}  # a person need not write the version
    kinds = [kind for kind in ("recipe", "fusion", "watch") if data.get(kind) == 1]
    if len(kinds) != 1:
        raise ValueError("not a version-1 recipe: exactly one of the keys 'recipe', 'fusion', 'watch' must be 1")
    kind = kinds[0]
    data = {key: value for key, value in data.items() if key != kind}
    try:
        if kind == "recipe":
            known = [f.name for f in fields(Recipe)]
            _only(data, known)
            plus = tuple(from_data(part) for part in data.pop("plus", ()))
            values = {key: _without_point(value) if key in WHOLE else value for key, value in data.items()}
            if isinstance(values.get("layer"), list):
                values["layer"] = tuple(map(_without_point, values["layer"]))
            return Recipe(**values, plus=plus)  # type: ignore[arg-type]
        _only(data, ["parts", "combine"] if kind == "watch" else ["parts"])
        if kind == "fusion":
            _each_only(data["parts"], ["weight", "system"])
            return Fusion(tuple((p["weight"], from_data(p["system"])) for p in data["parts"]))
        parts = [{"weight" if key == "share" else key: value for key, value in p.items()} for p in data["parts"]]
        _each_only(parts, ["name", "weight", "system"])
        each = tuple((str(p["name"]), p["weight"], from_data(p["system"])) for p in parts)
        return Watch(each, data.get("combine", RAREST))
    except (TypeError, KeyError) as error:
        raise ValueError(f"the {kind} is damaged: {error}") from None


def from_json(text: str) -> System:
    """The system of a JSON text. ValueError names the wrong key or value and the choices."""
    try:
        return from_data(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"a recipe must be JSON: {error}") from None
    except RecursionError:
        raise ValueError(
            "a recipe is nested too deeply to be read: at most some hundred systems in each other"
        ) from None


def by_name(name: str) -> System | None:
    """The system called `name` in `NAMED`, or that of the encoder of this name; None if the normals decide.

    ValueError lists the names.
    """
    if name in NAMED:
        return NAMED[name]
    if name not in names():
        known = ", ".join(dict.fromkeys([*NAMED, *names()]))
        raise ValueError(
            f"unknown recipe {name!r}; choose one of: {known}. For one of an encoder of your own: nearfar --plugin "
            "MODULE ..."
        )
    return of_encoder(name)


def of_encoder(name: str) -> Recipe:
    """A recipe for an encoder: its row of Table 3, else the row of its family, else plain nearest neighbours.

    The log-mel encoders have the baseline's Gaussian; `rhythm` measures the distance itself.
    """
    if name == "rhythm":
        return Recipe(encoder=name, method="as_is", normalize=False)
    if name.startswith("logmel"):
        return replace(BASELINE, encoder=name)
    if name in TABLE_3:
        return TABLE_3[name]
    family = max((f for f in FAMILY if name.startswith(f)), key=len, default="")
    return replace(TABLE_3[FAMILY[family]], encoder=name) if family else Recipe(encoder=name)


def with_settings(system: System, settings: Mapping[str, Any]) -> System:
    """A system with other values for some fields of all of its recipes. ValueError names a wrong key or value."""
    if isinstance(system, Recipe):
        return from_data({**as_data(system), **settings})
    if isinstance(system, Fusion):
        return Fusion(tuple((weight, with_settings(part, settings)) for weight, part in system.parts))
    return replace(system, parts=tuple((name, w, with_settings(part, settings)) for name, w, part in system.parts))


def _without_point(value: Any) -> Any:  # 3.0 -> 3: JSON has one kind of number
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _only(data: dict[str, Any], known: list[str]) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"unknown recipe keys {unknown}; known: {', '.join(known)}")


def _each_only(parts: Any, known: list[str]) -> None:
    for part in parts:
        _only(part, known)


_EAT = {"low": 0.15, "spike": 0.3}  # report 4.4
_RDP_GEM_1, _RDP_GEM_9 = ({"pooling": "rdp_gem", "alpha": alpha, "p": 3} for alpha in (1, 9))
_TABLE_3: dict[str, dict[str, Any]] = {
    "eat-large": {"view": "near_only", **_RDP_GEM_1, "metric": "cosine", **_EAT},
    "dasheng": {"view": "sfsoft_a05f07", "pooling": "rdp", "alpha": 20, "metric": "euclidean", "density_k": 3},
    "openl3": {"view": "sfsoft_a03f05", "pooling": "gem", "p": 9, "metric": "cosine", "density_k": 3},
    "eat-as2m": {"view": "near_only", **_RDP_GEM_1, "metric": "euclidean", **_EAT},
    "sslam": {"view": "absdif_0.5", **_RDP_GEM_9, "metric": "cosine", "density_k": 5},
    "ced-base": {"view": "sfsoft_a05f07", **_RDP_GEM_9, "metric": "cosine", "density_k": 20},
    "m2d-clap": {"view": "sfsoft_a05f07", **_RDP_GEM_9, "metric": "cosine", "density_k": 20},
    "beats": {"view": "n_0.5f", "pooling": "rdp", "alpha": 19, "metric": "cosine", "density_k": 3},
}
TABLE_3 = {  # every row has k = 1; the rows with a density_k are LDN
    encoder: Recipe(encoder=encoder, method="ldn" if "density_k" in row else "raw", **row)
    for encoder, row in _TABLE_3.items()
}
_FUSION = {"eat-large": 0.55, "dasheng": 0.20, "sslam": 0.05, "eat-as2m": 0.05, "openl3": 0.15}  # report 4.1
FUSION = Fusion(tuple((weight, TABLE_3[name]) for name, weight in _FUSION.items()))
# What twenty lines of scikit-learn do, as a recipe: the least that a detector without weights must beat.
BASELINE = Recipe(pooling="mean_std", method="mahalanobis", ignore_domains=True, normalize=False)
FAMILY = {  # encoders of other sizes and training stages -> the row of Table 3 that they share
    "eat-": "eat-as2m",
    "eat-large": "eat-large",
    "sslam": "sslam",
    "beats": "beats",
    "openbeats": "beats",
    "ced": "ced-base",
    "dasheng": "dasheng",
    "openl3": "openl3",
}
NAMED: dict[str, System | None] = {  # None: the normals choose; no network is needed
    "default": None,
    "logmel": None,
    "logmel-floor": BASELINE,
    **TABLE_3,
    "fusion": FUSION,
}

SPACE: dict[str, tuple[Any, ...]] = {  # report 2.3 and 2.5-2.7, Table 2
    "view": ("near_only", "n_0.5f", "n_f", "absdif_1", "absdif_0.5", "sfsoft_a03f05", "sfsoft_a05f07"),
    "preprocessing": ((None, None), (None, 0.2), (None, 0.3), (None, 0.4), (0.10, 0.3), (0.15, 0.3)),
    "p": (1, 3, 9),
    "alpha": (1, 9, 16, 19, 20),
    "pooling": ("mean", "gem", "rdp", "rdp_gem"),
    "metric": ("euclidean", "cosine"),
    "k": (1, 3, 5, 10, 20),
    "method": ("raw", "ldn"),
    "domain_aware": ("domain_z", "dldn", "dbldn"),
}
