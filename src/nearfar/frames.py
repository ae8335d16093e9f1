"""Frame preprocessing: low values to zero, spikes through tanh (report section 2.5).

    frames   (..., T, D)   final-layer frames of an encoder
    returns  (..., T, D)

Read literally, as the report states it: the comparison is signed, so with `low` set every negative value becomes 0,
and tanh(value) just above `spike` is smaller than values just below it. The switches give the other readings.
The thresholds act on raw activations: they belong to one encoder, checkpoint and layer.

References: report section 2.5; Wilkinghoff et al. 2026 (arXiv 2603.04605), preprocessing of EAT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, number


def suppress(
    frames: ArrayLike,
    low: float | None = None,
    spike: float | None = None,
    *,
    symmetric: bool = False,
    continuous: bool = False,
) -> Array:
    """Set values < `low` to 0 and replace values > `spike` by tanh(value); (..., T, D) -> (..., T, D).

    `symmetric` compares |value| instead; `continuous` replaces a spike by spike + tanh(value - spike), which does not
    jump at the threshold. Raises ValueError on NaN, infinity, or spike <= low. Source: report 2.5.
    """
    x = finite("frames", frames)
    if low is not None:
        number("low", low)
    if spike is not None:
        number("spike", spike, above=low if low is not None else -np.inf)
    size = np.abs(x) if symmetric else x
    out = x.copy()
    if spike is not None:
        high = size > spike
        over = x[high]
        edge = np.where(over < 0, -spike, spike)
        out[high] = edge + np.tanh(over - edge) if continuous else np.tanh(over)
    if low is not None:
        out[size < low] = 0
    return out
