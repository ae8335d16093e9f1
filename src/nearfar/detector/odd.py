"""Odd normals: those to listen to, because a fault may have come in among the healthy recordings.

    unlike       its leave-one-out score by a part of the system is more than UNLIKE robust standard deviations above
                 the median of the normals'
    far out      more than DEAFENING by the same measure, with or without its relatives, or more than STANDS_OUT in a
                 single feature: it may hide faults that sound like it
    deafening    far out, and a detector of all normals that are not far out alarms on it

A robust standard deviation is 1.4826 times the median distance from the median. Two faults of one kind hide each other
from leave-one-out; `deafening` finds them. At most one normal in NAMED is named, or one. Recipes of the method `as_is`
play no part, because they measure a clip by itself.

>>> unlike_the_others([np.array([1.0, 1.1, 0.9, 1.0, 1.2, 9.0])])[0][0]
5
>>> [n.index for n in odd_ones_out(np.array([0.1, 2.0, 0.3, -1.0, 0.2]), {3: 4.0})]
[1, 2, 4, 3]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from nearfar.detector.system import FittedSystem, Threshold
from nearfar.recipe import leaves
from nearfar.support.check import Array

UNLIKE = 3.5  # robust standard deviations from which on a normal is unlike the others
DEAFENING = 5.0  # from which on it makes a detector deaf: healthy recordings stay below
STANDS_OUT = 10.0  # the same in a single feature, of the largest of hundreds
NAMED = 10  # one normal of every 10 may be named, and at least one
ODD = 3  # normals with the highest scores, which are among the odd ones out


@dataclass(frozen=True)
class OddNormal:
    """A normal to listen to.

    index    its number among the normals
    score    its own, in standard deviations of the normals
    unlike   robust standard deviations from all others, or None if it is not unlike them
    """

    index: int
    score: float
    unlike: float | None = None

    @property
    def reason(self) -> str:
        """Why to listen to it."""
        if self.unlike is None:
            return f"score {self.score:+.1f}"
        return f"score {self.score:+.1f}; unlike all others, {self.unlike:.1f} standard deviations from them"


@dataclass(frozen=True)
class Deafening:
    """Normals that a detector fitted on the others would alarm on: their indices, and their scores by that detector.

    `threshold` is its set-point with them among the normals, `threshold_without` that of the others.
    """

    indices: list[int]
    scores: list[float]
    threshold: float
    threshold_without: float


def odd_ones_out(scores: Array, unlike: Mapping[int, float]) -> list[OddNormal]:
    """The normals that are `unlike` all others, and those with the ODD highest scores (N,); highest first."""
    highest = np.argsort(-scores, kind="stable")
    named = {*highest[:ODD].tolist(), *unlike}
    return [OddNormal(i, float(scores[i]), unlike.get(i)) for i in highest.tolist() if i in named]


def unlike_the_others(scores: Sequence[Array]) -> list[tuple[int, float]]:
    """The normals to listen to, farthest first: index and robust standard deviations above the median.

    `scores` (N,) are the normals' leave-one-out scores by each part of a system; the largest excess of any part counts,
    on a logarithmic scale where all scores of the part are positive. At most a tenth of the normals, or one, are named.
    """
    if not scores:
        return []
    excess = np.full(len(scores[0]), -np.inf)
    for each in scores:
        x = np.log(each) if (each > 0).all() else each
        above = x - np.median(x)
        scatter = 1.4826 * np.median(np.abs(above))
        excess = np.maximum(excess, above / max(scatter, 1e-3 * np.abs(x).max(), 1e-12))
    found = np.flatnonzero(excess > UNLIKE)
    farthest = found[np.argsort(-excess[found], kind="stable")][: max(1, len(excess) // NAMED)]
    return [(int(i), float(excess[i])) for i in farthest]


def standing_out(x: Array) -> Array:
    """Robust standard deviations (N,) above the median of the feature of x (N, D) in which each clip is farthest.

    A whistle in two of thirty clips widens the scatter of its band so far that a Gaussian finds neither of them.
    """
    above = x - np.median(x, axis=0)
    scatter = 1.4826 * np.median(np.abs(above), axis=0)
    return np.asarray((above / np.maximum(scatter, max(0.25 * float(np.median(scatter)), 1e-12))).max(axis=1))


def far_out(fitted: FittedSystem) -> dict[int, float]:
    """The normals that are far out, and by how many robust standard deviations."""
    far = unlike_the_others(comparing(fitted, [*fitted.lone, *fitted.own]))
    found = {i: robust_z for i, robust_z in far if robust_z > DEAFENING}
    for backend, recipe in zip(fitted.backends, leaves(fitted.system), strict=True):
        if recipe.method == "as_is" or recipe.pooling == "burst":  # extremes differ between healthy clips, too
            continue
        out = standing_out(backend.z.reshape(len(backend.z), -1))
        first = np.argsort(-out, kind="stable")[: max(1, len(out) // NAMED)]
        found |= {int(i): max(found.get(int(i), 0.0), float(out[i])) for i in first if out[i] > STANDS_OUT}
    return found


def deafening(
    fitted: FittedSystem, threshold: float, far: Iterable[int], refit: Callable[[Array], tuple[FittedSystem, Threshold]]
) -> Deafening | None:
    """Of the normals that are `far` out, those that deafen a system with this `threshold`; None if none does.

    `refit(rows)` is the system of the normals `rows` alone, with its own set-point.
    """
    odd = sorted(far)
    rest = np.delete(np.arange(len(fitted.train_values)), odd)
    if not odd or len(rest) < 2:
        return None
    others, limit = refit(rest)
    scores = [others.score([b.z[i] for b in fitted.backends]).value for i in odd]
    heard = [(i, score) for i, score in zip(odd, scores, strict=True) if score > limit.value]
    return Deafening([i for i, _ in heard], [s for _, s in heard], threshold, limit.value) if heard else None


def comparing(fitted: FittedSystem, scores: Sequence[Array]) -> list[Array]:
    """Of `scores` by recipe, once or twice, those of the recipes that compare a clip with the normals."""
    return [x for x, r in zip(scores, cycle(leaves(fitted.system)), strict=False) if r.method != "as_is"]
