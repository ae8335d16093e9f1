"""Views: the pooled embeddings of the near and the far microphone -> one vector (report section 2.3, eq. 2-5).

    near_only      near                                                              eq. 2
    n_f, n_0.5f, n_<beta>f   [near, beta far]; n_f has beta = 1                      eq. 3
    absdif_1, absdif_0.5, absdif_<gamma>   [near, far, gamma unit(|near - far|)]     eq. 4, 5
    far_only       far: the control
    residual_0.5, residual_<beta>   near - beta far: the view of Turtle et al.'s DCASE 2026 system

A number is decimal, such as n_0.25f. `register` adds views of your own.

Method 4 changes the waveform before the encoder: see `enhance`.

Conventions
    near, far (..., D)   pooled embeddings of any length, arrays or tensors; they are scaled to length 1 first
    The result (..., D') has length 1; D' is D, 2 D or 3 D. A zero vector stays zero.

>>> compose("n_f", [3.0, 0], [0, 0.1]).round(2).tolist()
[0.71, 0.0, 0.0, 0.71]
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.arrays import like, namespace, on_host
from nearfar.support.check import Array, finite, one_of
from nearfar.support.plugins import Plugins

Rule = Callable[[Array, Array], Array]
NUMBER = r"\d{1,3}(?:\.\d{1,9})?"


def unit(z: Array) -> Array:
    """Vectors (..., D) at length 1, the L2 norm of eq. 3; a zero vector stays zero."""
    xp = namespace(z)
    with np.errstate(over="ignore"):
        squares = xp.einsum("...d,...d->...", z, z)[..., None]
    usual = (squares > 1e-20) & (squares < 1e30)
    if not usual.all():  # scale the other vectors to peak 1, so that their squares neither overflow nor vanish
        peak = xp.amax(abs(z), axis=-1, keepdims=True)
        z = z / xp.where(usual | (peak == 0), 1, peak)
        squares = xp.where(usual, squares, xp.einsum("...d,...d->...", z, z)[..., None])
    scaled: Array = z / xp.where(squares > 0, xp.sqrt(squares), 1)
    return scaled


def _concat(beta: float) -> Rule:  # eq. 3, before its L2 norm
    return lambda near, far: namespace(near).concatenate([near, beta * far], axis=-1)


def _absdif(gamma: float) -> Rule:  # eq. 4 and 5, before the last L2 norm
    return lambda near, far: namespace(near).concatenate([near, far, gamma * unit(abs(near - far))], axis=-1)


def _residual(beta: float) -> Rule:
    return lambda near, far: near - beta * far


VIEWS: dict[str, Rule] = {
    "near_only": lambda near, far: near,  # eq. 2
    "n_0.5f": _concat(0.5),
    "n_f": _concat(1.0),
    "absdif_1": _absdif(1.0),
    "absdif_0.5": _absdif(0.5),
    "far_only": lambda near, far: far,
    "residual_0.5": _residual(0.5),
}
FAMILIES: dict[str, Callable[[float], Rule]] = {
    "n_<beta>f": _concat,
    "absdif_<gamma>": _absdif,
    "residual_<beta>": _residual,
}


def register_view(name: str, view: Rule) -> None:
    """Add a view to recipes: `view(near, far)` makes a vector (D',) of pooled embeddings (D,) of length 1.

    The result is scaled to length 1. ValueError for the name of a view of nearfar, or of a waveform.
    """
    if name in ("near", "far"):
        raise ValueError(f"{name!r} is a waveform of nearfar: register your view under another name")
    PLUGINS.register(name, view)


def _rowwise(view: Rule) -> Rule:
    """A view of single vectors as a view of (..., D)."""

    def rule(near: Array, far: Array) -> Array:
        rows = [on_host(x).reshape(-1, x.shape[-1]) for x in (near, far)]
        each = [finite("the result of a view", view(*pair), ndim=1) for pair in zip(*rows, strict=True)]
        made = np.stack([on_host(vector) for vector in each])
        out: Array = like(near, made.reshape(*near.shape[:-1], -1))
        return out

    return rule


PLUGINS = Plugins("view", "nearfar.register_view", VIEWS, _rowwise)


def parameter(view: str) -> tuple[str, float] | None:
    """(family of `FAMILIES`, its number) of a view such as "n_0.25f"; None for one that is in no family."""
    for family in FAMILIES:
        before, after = re.split("<.*>", family)
        if found := re.fullmatch(rf"{before}({NUMBER}){after}", "n_1f" if view == "n_f" else view):
            return family, float(found[1])
    return None


def is_view(view: str) -> bool:
    """Whether `view` names a view of pooled embeddings."""
    return isinstance(view, str) and (view in VIEWS or parameter(view) is not None)


def _rule(view: str) -> Rule:
    """The rule of a view. ValueError naming the choices."""
    if view in VIEWS:
        return VIEWS[view]
    found = parameter(view) if isinstance(view, str) else None
    if found is None:
        one_of("view", view, [*VIEWS, *FAMILIES])
        raise ValueError(f"the view {view!r} needs a number, such as n_0.25f")
    family, value = found
    return FAMILIES[family](value)


def composed(view: str, near: Array, far: Array | None, *, normalize: bool) -> Array:
    """`compose` for arrays that are checked already; `far` is None for a view without far."""
    rule = _rule(view)
    if not normalize:
        return rule(near, near if far is None else far)
    near = unit(near)
    return unit(rule(near, near if far is None else unit(far)))


def needs_far(view: str) -> bool:
    """True if `view` uses the far microphone's embedding."""
    _rule(view)
    return view != "near_only"


def compose(view: str, near: ArrayLike, far: ArrayLike | None = None, *, normalize: bool = True) -> Array:
    """One vector from the two microphones' pooled embeddings. Source: eq. 2-5.

        view        near_only, n_0.5f, n_f, absdif_1, absdif_0.5, far_only, residual_0.5 ...; see the module
        near        (..., D) pooled embeddings of the near channel
        far         (..., D) of the far channel; None is a ValueError for a view that needs them
        normalize   whether both inputs and the result are scaled to length 1; False for features in decibels, whose
                    size matters

    Returns the composed vector (..., D').
    """
    _rule(view)
    near = finite("near", near)
    if far is None and needs_far(view):
        raise ValueError(f"view {view!r} needs the far channel, but far is None. Did you mean view='near_only'?")
    far = None if far is None else finite("far", far)
    if far is not None and far.shape != near.shape:
        raise ValueError(f"near and far must have the same shape, not {near.shape} and {far.shape}")
    return composed(view, near, far, normalize=normalize)
