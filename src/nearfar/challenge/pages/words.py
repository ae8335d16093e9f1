"""A recipe in words, as in Table 2 of the report: each choice for itself, or all in one line."""

from __future__ import annotations

from collections.abc import Callable

from nearfar.backend import ATTRIBUTE
from nearfar.recipe import Recipe, System


def describe(recipe: Recipe) -> str:
    """The choices of a recipe in one line, without the usual ones: final layer, concatenated rows, no thresholds."""
    words = {choice: words_of(recipe) for choice, words_of in CHOICES.items()}
    return ", ".join(text for choice, text in words.items() if USUAL.get(choice) != text)


def columns_of(system: System | None) -> tuple[str, str, str]:
    """Input, pooling and back end of a system, as the columns of Table 3; None: the normals choose."""
    if not isinstance(system, Recipe):
        return "chosen by the normals" if system is None else f"{len(system.parts)} systems", "", ""
    choices = {name: words_of(system) for name, words_of in CHOICES.items() if USUAL.get(name) != words_of(system)}
    inputs = [choices[name] for name in ("view", "layer", "frequency rows", "preprocessing") if name in choices]
    return ", ".join(inputs), choices["pooling"], choices["back end"]


def _preprocessing(r: Recipe) -> str:
    thresholds = (("low", r.low), ("spike", r.spike))
    return ", ".join(f"{name} {value:g}" for name, value in thresholds if value is not None) or "none"


def _pooling(r: Recipe) -> str:
    parameters = {"gem": f" p={r.p:g}", "rdp": f" alpha={r.alpha:g}", "rdp_gem": f" alpha={r.alpha:g} p={r.p:g}"}
    return f"{r.pooling}{parameters.get(r.pooling, '')}"


def _back_end(r: Recipe) -> str:
    """The method with its metric, its k (of LDN: density_k, as in Table 2) and the options that are not the default."""
    parts = [r.method] if r.method in ("mahalanobis", "pca", "as_is") else [r.method, r.metric]
    parts += [f"k={r.density_k or r.k}"] if r.density_k or r.method == "raw" else []
    parts += [f"query k={r.k}"] if r.method != "raw" and r.k > 1 else []
    parts += [f"components {r.components:g}"] if r.method == "pca" else []
    parts += [f"{r.clusters} clusters"] if r.method == "kmeans" else []
    parts += [f"exponent {r.exponent:g}"] if r.exponent != 1 else []
    parts += [f"weight {r.weight:g}"] if r.method == "dbldn" and r.weight != 0.5 else []
    parts += ["banks by attribute"] if r.banks == ATTRIBUTE else []
    return ", ".join(parts + [name for name in ("whiten", "ignore_domains") if getattr(r, name)])


CHOICES: dict[str, Callable[[Recipe], str]] = {
    "encoder": lambda r: r.encoder,
    "layer": lambda r: f"layer {'+'.join(map(str, r.layers))}" if r.layer else "final",
    "view": lambda r: r.view,
    "frequency rows": lambda r: r.freq,
    "preprocessing": _preprocessing,
    "pooling": _pooling,
    "back end": _back_end,
}
USUAL = {"layer": "final", "frequency rows": "concat", "preprocessing": "none"}
