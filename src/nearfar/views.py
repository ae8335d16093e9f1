"""Views: the pooled embeddings of the near and the far microphone -> one vector (report section 2.3, eq. 2-5).

    near, far  (..., D)    pooled embeddings of any length
    returns    (..., D')   L2-normalised; D' is D, 2 D or 3 D

`far_only` is the control; `residual_0.5` (near - 0.5 far) is the view of Turtle et al.'s DCASE 2026 system.
Method 4 changes the waveform before the encoder and so lives in `enhance`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, choose, finite, unit


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


def needs_far(view: str) -> bool:
    """True if `view` uses the far microphone's embedding."""
    choose("view", view, VIEWS)
    return view != "near_only"


def compose(view: str, near: ArrayLike, far: ArrayLike | None = None, *, normalize: bool = True) -> Array:
    """One vector of the two microphones' pooled embeddings, (..., D) -> (..., D'). Source: eq. 2-5.

    Both inputs and the result are scaled to unit length; `normalize=False` skips that, for features whose size carries
    meaning (decibels). Raises ValueError if the view needs `far` and it is None, or if shapes differ.
    """
    rule = choose("view", view, VIEWS)
    near = finite("near", near)
    if far is None:
        if needs_far(view):
            raise ValueError(f"view {view!r} needs the far channel, and there is none. Did you mean view='near_only'?")
        far = near
    far = finite("far", far)
    if far.shape != near.shape:
        raise ValueError(f"near and far must have the same shape, not {near.shape} and {far.shape}")
    if not normalize:
        return rule(near, far)
    return unit(rule(unit(near), unit(far)))
