"""Views: the pooled embeddings of the near and the far microphone -> one vector (report section 2.3, eq. 2-5).

    near_only      near                                                              eq. 2
    n_0.5f, n_f    [near, beta far], beta = 0.5 or 1                                 eq. 3
    absdif_1, absdif_0.5   [near, far, gamma unit(|near - far|)], gamma = 1 or 0.5   eq. 4, 5
    far_only       far: the control
    residual_0.5   near - 0.5 far: the view of Turtle et al.'s DCASE 2026 system

Method 4 changes the waveform before the encoder: see `enhance`.

Conventions
    near, far (..., D)   pooled embeddings of any length; they are scaled to length 1 first
    The result (..., D') has length 1; D' is D, 2 D or 3 D. A zero vector stays zero.

>>> compose("n_f", [3.0, 0], [0, 0.1]).round(2).tolist()
[0.71, 0.0, 0.0, 0.71]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, choose, finite


def unit(z: Array) -> Array:
    """Vectors (..., D) at length 1, the L2 norm of eq. 3; a zero vector stays zero."""
    with np.errstate(over="ignore"):
        squares = np.einsum("...d,...d->...", z, z)[..., None]
    usual = (squares > 1e-20) & (squares < 1e30)
    if not usual.all():  # scale the other vectors to peak 1, so that their squares neither overflow nor vanish
        peak = np.abs(z).max(axis=-1, keepdims=True, initial=0)
        z = z / np.where(usual | (peak == 0), 1, peak)
        squares = np.where(usual, squares, np.einsum("...d,...d->...", z, z)[..., None])
    return np.asarray(z / np.where(squares > 0, np.sqrt(squares), 1))


def _concat(beta: float) -> Callable[[Array, Array], Array]:  # eq. 3, before its L2 norm
    return lambda near, far: np.concatenate([near, beta * far], axis=-1)


def _absdif(gamma: float) -> Callable[[Array, Array], Array]:  # eq. 4 and 5, before the last L2 norm
    return lambda near, far: np.concatenate([near, far, gamma * unit(np.abs(near - far))], axis=-1)


VIEWS: dict[str, Callable[[Array, Array], Array]] = {
    "near_only": lambda near, far: near,  # eq. 2
    "n_0.5f": _concat(0.5),
    "n_f": _concat(1.0),
    "absdif_1": _absdif(1.0),
    "absdif_0.5": _absdif(0.5),
    "far_only": lambda near, far: far,
    "residual_0.5": lambda near, far: near - 0.5 * far,
}


def composed(view: str, near: Array, far: Array | None, *, normalize: bool) -> Array:
    """`compose` for arrays that are checked already; `far` is None for a view without far."""
    rule = VIEWS[view]
    if not normalize:
        return rule(near, near if far is None else far)
    near = unit(near)
    return unit(rule(near, near if far is None else unit(far)))


def needs_far(view: str) -> bool:
    """True if `view` uses the far microphone's embedding."""
    choose("view", view, VIEWS)
    return view != "near_only"


def compose(view: str, near: ArrayLike, far: ArrayLike | None = None, *, normalize: bool = True) -> Array:
    """One vector from the two microphones' pooled embeddings. Source: eq. 2-5.

    Parameters
    ----------
    view : "near_only" | "n_0.5f" | "n_f" | "absdif_1" | "absdif_0.5" | "far_only" | "residual_0.5"
        See the module.
    near : (..., D)
        Pooled embeddings of the near channel.
    far : (..., D), or None
        Pooled embeddings of the far channel. None is a ValueError for a view that needs them.
    normalize : bool
        Whether both inputs and the result are scaled to length 1. False for features in decibels, whose size matters.

    Returns
    -------
    (..., D')
        The composed vector.
    """
    choose("view", view, VIEWS)
    near = finite("near", near)
    if far is None and needs_far(view):
        raise ValueError(f"view {view!r} needs the far channel, but far is None. Did you mean view='near_only'?")
    far = None if far is None else finite("far", far)
    if far is not None and far.shape != near.shape:
        raise ValueError(f"near and far must have the same shape, not {near.shape} and {far.shape}")
    return composed(view, near, far, normalize=normalize)
