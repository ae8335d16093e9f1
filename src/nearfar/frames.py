"""Frame preprocessing: low values to zero, spikes through tanh (report section 2.5).

    value -> 0             where value < low
    value -> tanh(value)   where value > spike

Conventions
    frames (..., T, D)   frames of an encoder, array or tensor; the result has the same shape and dtype
    This is the report's wording, read literally: the comparison is signed, so with `low` every negative value becomes
    0, and a value just above `spike` becomes smaller than one just below it. `symmetric` and `continuous` are the other
    readings. The thresholds apply to raw activations: they fit one encoder, checkpoint and layer.

>>> suppress([[-1.0, 0.1, 0.2, 2.0]], low=0.15, spike=0.3).round(2).tolist()
[[0.0, 0.0, 0.2, 0.96]]

References: report section 2.5; Wilkinghoff et al. 2026 (arXiv 2603.04605), preprocessing of EAT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.arrays import namespace
from nearfar.support.check import Array, finite, number


def suppress(
    frames: ArrayLike,
    low: float | None = None,
    spike: float | None = None,
    *,
    symmetric: bool = False,
    continuous: bool = False,
) -> Array:
    """Set low values to 0 and pass spikes through tanh. Source: report 2.5.

        frames       (..., T, D) of an encoder
        low          values below it become 0; None keeps them
        spike        values above it become tanh(value); None keeps them. It must be above `low`
        symmetric    whether |value| is compared with the thresholds
        continuous   whether a spike becomes spike + tanh(value - spike), which does not jump at the threshold

    Returns the preprocessed frames (..., T, D).
    """
    x = finite("frames", frames)
    if low is not None:
        number("low", low)
    if spike is not None:
        number("spike", spike, above=low if low is not None else -np.inf)
    xp, size, out = namespace(x), abs(x) if symmetric else x, 1 * x
    if spike is not None:  # tanh of all values: it is quicker than to pick the few that need it
        edge = xp.where(x < 0, 0 * x - spike, 0 * x + spike) if continuous else 0
        out = xp.where(size > spike, edge + xp.tanh(x - edge), x)
    if low is not None:
        out = xp.where(size < low, 0, out)
    return out
