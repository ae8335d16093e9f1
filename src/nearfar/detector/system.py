"""The scores of back ends -> one score, its p-value and the set-point (report section 2.8; set-points are ours).

A fitted system holds the back ends of a Recipe, Fusion or Watch and combines their scores. A watch turns each part's
score into the share p of normals that reach it, and combines these as `recipe.Watch` says; the part with the smallest p
names the change. The result is expressed in standard deviations of the normals.

`PValue` turns a score into p, the share of normal clips expected at or above it. Within the normals' scores, p is the
conformal p-value (1 + number of normals with a higher score) / (N + 1), interpolated. Above the (N-k)-th score it is

    p(u + x) = (k + 1) / (N + 1) * (1 + x / (k b))^-k    u: the (N-k)-th score, b: mean of the k excesses over u

the predictive distribution of a further exponential excess, given k of them. It is exact for every k, so few normals
give a cautious threshold. The other methods for a threshold are "gamma", the official baseline's (gamma fit, 0.9), and
"quantile".

Conventions
    scores        one (M,) array per leaf of the system, in the order of `recipe.leaves`; higher is more anomalous
    lone (N,)     leave-one-out scores of the normals: the unit of a score, and the alignment of a fusion
    own (N,)      scores of the normals without their relatives (`detector.calibration`), or `lone`: all p-values
    rate, p       shares of normal clips, between 0 and 1
    An alarm is raised for score > threshold. "Set-point" is the plant's word for the threshold.
    The scores that p and the statistics of a fusion are taken from include each normal's own: normals and new clips go
    through the same function, so a set-point from the normals holds for new clips (docs/decisions.md).

>>> threshold = from_normals(np.arange(99.0), rate=0.05)
>>> round(threshold.value, 1), threshold.false_alarms_per_day(clip_seconds=10)
(92.5, 432.0)
>>> PValue(np.arange(99.0)).log_p([50]).round(2).tolist()  # 48 of the 99 normals score higher: log(49 / 100)
[-0.71]

References: Vovk et al. 2005 (conformal p-values); DCASE Task 2 baseline (gamma, 0.9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from nearfar.backend import Backend, fit
from nearfar.fusion import divisor, in_sigmas, statistics, weighted_sum
from nearfar.recipe import RAREST, Recipe, System, Watch, dominant_recipe, leaves
from nearfar.support.check import Array, finite, number, one_of

NEAREST = 3  # normals that are named beside a score
ROUNDING = 1e-6  # scores that differ by less than this share of the highest are equal
OF_COPIES = 1e-3  # standard deviation where all normals are at distance 0 from each other
THRESHOLD_METHODS = ("conformal", "gamma", "quantile")
BY_HAND = "by hand"  # the method of a threshold that a person chose
SECONDS_PER_DAY = 86_400.0
Combined = tuple[Array, dict[str, Array]]  # combined scores (M,), those of the parts by name
SAFETY = 2.0  # how much more often clips of a new session exceed a score than normals do without their relatives


@dataclass(frozen=True)
class Scored:
    """What a fitted system finds for one clip.

    value        standard deviations of the normals' scores above their mean
    p            share of normal clips expected to reach the value
    part_scores  of a fusion or watch, by name
    distances    (3,) to the nearest normals, by the leaf that counts most in the value
    nearest      (3,) their indices
    blank        whether a vector of the clip is zero throughout
    """

    value: float
    p: float
    part_scores: Mapping[str, float]
    distances: Array
    nearest: Array
    blank: bool = False


class FittedSystem:
    """The back ends of a system, combined and aligned by the scores of the normals.

    own, lone      (N,) per leaf, see the module
    groups         (N, 2) of the normals if `own` was measured without relatives, else (0, 2)
    safety         how much more often clips of a new session exceed a score than the normals' `own` scores do
    train_values   (N,) the normals' combined `own` scores in standard deviations
    lone_values    (N,) their combined `lone` scores in standard deviations
    """

    def __init__(
        self,
        system: System,
        backends: Sequence[Backend],
        own: Sequence[Array],
        lone: Sequence[Array],
        groups: Array,
        safety: float,
    ) -> None:
        self.system, self.backends, self.own, self.lone = system, backends, own, lone
        self.groups, self.safety = groups, safety
        self.combined = build(system, iter(own), iter(lone))
        self.mu, self.sigma = unit_of(self.combined.lone)
        self.train_values = in_sigmas(self.combined.own, self.mu, self.sigma)
        self.lone_values = in_sigmas(self.combined.lone, self.mu, self.sigma)
        self._divisor = float(divisor(self.mu, self.sigma))
        self.tail = PValue(self.train_values)
        self._leaf = None if isinstance(system, Watch) else dominant_recipe(system, {})  # of a watch, the clip decides

    def score(self, vectors: Sequence[Array]) -> Scored:
        """The score of one clip from a vector (D,) per leaf."""
        leaves = [b.score_with_nearest(v[None], NEAREST) for b, v in zip(self.backends, vectors, strict=True)]
        combined, parts = self.combined.combine(iter([scores for scores, _, _ in leaves]))
        value = (float(combined[0]) - self.mu) / self._divisor
        part_scores = {name: float(part[0]) for name, part in parts.items()}
        leaf = dominant_recipe(self.system, part_scores) if self._leaf is None else self._leaf
        _, distances, nearest = leaves[leaf]
        blank = any(not vector.any() for vector in vectors)
        return Scored(value, self.rate_at(value), part_scores, distances[0], nearest[0], blank)

    def threshold_for(self, rate: float, method: str) -> Threshold:
        """The set-point above which a share `rate` of normal clips is expected, with groups also in a new session."""
        read = read_share(rate, len(self.train_values), self.safety)
        return replace(from_normals(self.train_values, read, method), rate=rate)

    def rate_at(self, value: float) -> float:
        """The share of normal clips expected above a score; the inverse of `threshold_for`."""
        p = float(np.exp(self.tail.log_p_unchecked(np.array([value]))[0]))
        return promised_share(p, len(self.train_values), self.safety)

    def triggers(self, part_scores: Mapping[str, float], threshold: float) -> tuple[str, ...]:
        """The parts of a watch whose score exceeds the `threshold`, rarest first; if none does, the rarest."""
        if not isinstance(self.system, Watch):
            return ()
        limit = (threshold * self.sigma + self.mu) / np.log(10)  # the unit of the part scores
        order = sorted(part_scores, key=lambda name: -part_scores[name])
        return tuple([name for name in order if part_scores[name] > limit] or order[:1])


def fit_system(
    system: System,
    banks: Sequence[Array],
    is_target: Array,
    attributes: Sequence[str],
    groups: Array,
    related: Array | None,
    safety: float = 1.0,
) -> FittedSystem:
    """A system fitted on a bank (N, D) of normals per leaf.

    `is_target` (N,) and `attributes` (N,) are those of the normals. `related` (N, N) says which normals are left out
    together; None: each normal alone. `groups` (N, 2) and `safety` are kept.
    """
    pairs = zip(banks, leaves(system), strict=True)
    backends = [fit(z, is_target, attributes=attributes, **vars(recipe.backend)) for z, recipe in pairs]
    if related is None:
        scores = [b.train_scores for b in backends]
        return FittedSystem(system, backends, scores, scores, groups, safety)
    alone = np.eye(len(related), dtype=bool)
    # A Gaussian of standardized features keeps the scale of all normals in both, so that the two compare.
    lone = [b.scores_excluding(alone) if b.config.standardize else b.train_scores for b in backends]
    return FittedSystem(system, backends, [b.scores_excluding(related) for b in backends], lone, groups, safety)


def unit_of(lone: Array) -> tuple[float, float]:
    """Mean and standard deviation of the normals' leave-one-out scores (N,), the latter at least `least_spread`.

    Where all scores are 0, as those of copies are, the standard deviation is `OF_COPIES`.
    """
    mu, sigma = statistics(lone)
    return mu, max(sigma, least_spread(lone)) or OF_COPIES


def least_spread(lone: Array) -> float:
    """The smallest standard deviation that N leave-one-out scores can show: |mean| / (N - 1)^2, of equal ones |mean|.

    The scores of two normals are always equal, and those of three or four may be by chance (docs/decisions.md).
    """
    mean, highest = abs(float(lone.mean())), float(np.abs(lone).max())
    return mean if np.ptp(lone) <= ROUNDING * highest else mean / (len(lone) - 1) ** 2


@dataclass(frozen=True)
class Fitted:
    """A recipe, fusion or watch on fitted back ends; `own` and `lone` (N,) are its normals' combined scores."""

    own: Array
    lone: Array
    together: Callable[[Sequence[Array]], Combined] | None = None  # combines the scores of the children; None: a recipe
    children: Sequence[Fitted] = ()

    def combine(self, scores: Iterator[Array]) -> Combined:
        """Scores (M,) by leaf -> combined scores (M,), and those of the parts by name."""
        if self.together is None:
            return next(scores), {}
        return self.together([child.combine(scores)[0] for child in self.children])


def build(system: System, own: Iterator[Array], lone: Iterator[Array]) -> Fitted:
    """The fitted form of `system`; `own` and `lone` come by its leaves, in the order of `recipe.leaves`."""
    if isinstance(system, Recipe):
        expanded = system.expand()
        return Fitted(next(own), next(lone)) if expanded is system else build(expanded, own, lone)
    children = [build(part[-1], own, lone) for part in system.parts]
    lones = [child.lone for child in children]
    together: Fusing | Watching
    if isinstance(system, Watch):
        tails = [PValue(child.own, least_spread(child.lone) or None) for child in children]
        together = Watching(system, tails)
    else:
        together = Fusing([weight for weight, _ in system.parts], [unit_of(each) for each in lones])
    return Fitted(together([child.own for child in children])[0], together(lones)[0], together, children)


@dataclass(frozen=True)
class Fusing:
    """Aligns and averages parts (eq. 17-18); a part is reported in standard deviations of its normals."""

    weights: Sequence[float]
    units: Sequence[tuple[float, float]]

    def __call__(self, scores: Sequence[Array]) -> Combined:
        aligned = [in_sigmas(s, *unit) for s, unit in zip(scores, self.units, strict=True)]
        return weighted_sum(aligned, self.weights), {str(i): part for i, part in enumerate(aligned, start=1)}


@dataclass(frozen=True)
class Watching:
    """Combines parts by their p-values; a part is reported as -log10 of its p, weighted as in the combination."""

    watch: Watch
    tails: Sequence[PValue]

    def __call__(self, scores: Sequence[Array]) -> Combined:
        rarity = np.stack([-tail.log_p(s) for tail, s in zip(self.tails, scores, strict=True)])  # (parts, M)
        weights, rarest = np.array([[weight] for _, weight, _ in self.watch.parts]), self.watch.combine == RAREST
        rarity = rarity + np.log(weights) if rarest else weights * rarity
        combined = rarity.max(axis=0) if rarest else np.sqrt((rarity**2).sum(axis=0))
        names = [name for name, _, _ in self.watch.parts]
        return combined, dict(zip(names, rarity / np.log(10), strict=True))


class PValue:
    """p-values of scores, from the normals' own scores (N,), N >= 2; see the module for the formula.

    The mean excess is at least `least`; None: above 0, of N equal scores 1 / (N - 1)^2.
    """

    def __init__(self, scores: ArrayLike, least: float | None = None) -> None:
        s = np.sort(_scores(scores))
        n = len(s)
        self.k = min(max(n // 10, min(n // 2, 10)), n - 1)
        self.scores, self.start = s, s[n - self.k - 1]
        equal = s[0] == s[-1]  # then s.std() is 0 or rounding
        spread = (least or (n - 1) ** -2) if equal else float(s.std())
        self.excess = max(float((s[n - self.k :] - self.start).mean()), least or 0) or spread
        body = s[: n - self.k]
        self._x, first = np.unique(body, return_index=True)
        last = np.r_[first[1:], len(body)]  # index after the last of equal scores: n - last scores are higher
        self._log_p = np.log((n - last + 1) / (n + 1))
        self._spread = spread

    def log_p(self, scores: ArrayLike) -> Array:
        """Natural logarithm of p (M,) of scores (M,); it falls strictly with the score."""
        return self.log_p_unchecked(finite("scores", scores, ndim=1).astype(np.float64))

    def log_p_unchecked(self, s: Array) -> Array:
        """`log_p` of scores (M,) float64 that are known to be finite."""
        below = self._log_p[0] / (1 + np.maximum(self._x[0] - s, 0) / self._spread)
        body = np.where(s < self._x[0], below, np.interp(s, self._x, self._log_p))
        over = np.maximum(s - self.start, 0) / (self.k * self.excess)
        return np.where(s > self.start, self._log_p[-1] - self.k * np.log1p(over), body)

    def score_at(self, p: float) -> float:
        """The score that a share `p` of normal clips reaches; 0 < p < 1."""
        log_p = float(np.log(number("p", p, above=0, below=1)))
        if log_p < self._log_p[-1]:
            return float(self.start + self.k * self.excess * np.expm1((self._log_p[-1] - log_p) / self.k))
        if log_p > self._log_p[0]:
            return float(self._x[0] - self._spread * (self._log_p[0] / log_p - 1))
        return float(np.interp(-log_p, -self._log_p, self._x))


@dataclass(frozen=True)
class Threshold:
    """Alarm when score > `value`; `rate` is the share of normal clips expected above it, `method` how it was found."""

    value: float
    rate: float
    method: str

    def false_alarms_per_day(self, clip_seconds: float) -> float:
        """Expected false alarms of a day that is recorded without gaps, in clips of `clip_seconds`."""
        return self.rate * SECONDS_PER_DAY / number("clip_seconds", clip_seconds, above=0)


@dataclass(frozen=True)
class Resolution:
    """A set-point beside what N normals can show.

    loudest       the highest of the normals' own scores
    lowest_rate   1 / (N + 1): a rarer share cannot be counted with N normals
    lowest_value  the set-point of that share
    """

    threshold: Threshold
    normals: int
    loudest: float
    lowest_rate: float
    lowest_value: float

    @property
    def beyond(self) -> bool:
        """Whether the set-point is for a share that is rarer than the normals can show."""
        return self.threshold.rate < 0.999 * self.lowest_rate

    @property
    def times_loudest(self) -> float | None:
        """The set-point as a multiple of the loudest normal's score; None if that is not above 0."""
        return self.threshold.value / self.loudest if self.loudest > 0 else None


def resolution_of(scores: ArrayLike, threshold: Threshold, method: str = "conformal") -> Resolution:
    """What normals with these leave-one-out scores (N,), N >= 2, can show of a set-point."""
    s = _scores(scores)
    lowest = 1 / (len(s) + 1)
    return Resolution(threshold, len(s), float(s.max()), lowest, from_normals(s, lowest, method).value)


def rate_of(false_alarms_per_day: float, clip_seconds: float) -> float:
    """The share of normal clips that gives `false_alarms_per_day` if a day is recorded in clips of `clip_seconds`."""
    most = SECONDS_PER_DAY / number("clip_seconds", clip_seconds, above=0)
    number("false alarms per day", false_alarms_per_day, above=0, below=most)
    return false_alarms_per_day / most


def read_share(promised: float, normals: int, safety: float = SAFETY) -> float:
    """The share of the normals' scores, each without its relatives, at which the set-point is read.

    The promised share divided by `safety`, because clips of a new session exceed a score more often than normals
    do without their relatives, by this factor. It is not divided below 1 / (normals + 1),
    the rarest share that these normals show.

    >>> read_share(0.05, 200), read_share(0.05, 30) == 1 / 31, read_share(0.01, 30)
    (0.025, True, 0.01)
    """
    number("the promised share", promised, above=0, below=1)
    return min(promised, max(promised / safety, 1 / (normals + 1)))


def promised_share(read: float, normals: int, safety: float = SAFETY) -> float:
    """The promised share whose set-point is read at `read`; the smallest, where `read_share` gives several the same.

    >>> promised_share(read_share(0.05, 200), 200), promised_share(0.01, 30)
    (0.05, 0.01)
    """
    return read if read <= 1 / (normals + 1) else min(1.0, safety * read)


def from_normals(scores: ArrayLike, rate: float, method: str = "conformal") -> Threshold:
    """The threshold that a share `rate` of normal clips exceeds.

    scores   (N,) leave-one-out scores of the normals, N >= 2
    rate     in (0, 1): share of normal clips that may alarm
    method   "conformal": the p-value of the module; "gamma": a gamma fit with free location; "quantile": the empirical
    """
    one_of("threshold method", method, THRESHOLD_METHODS)
    s = _scores(scores)
    number("rate", rate, above=0, below=1)
    if method == "conformal":
        return Threshold(PValue(s).score_at(rate), rate, method)
    if method == "quantile":
        return Threshold(float(np.quantile(s, 1 - rate)), rate, method)
    return Threshold(_gamma_quantile(s, 1 - rate), rate, method)


def _scores(scores: ArrayLike) -> Array:
    s = finite("scores", scores, ndim=1).astype(np.float64)
    if len(s) < 2:
        raise ValueError(f"a set-point needs the scores of at least 2 normals, not {len(s)}")
    return s


def _gamma_quantile(s: Array, level: float) -> float:
    from scipy import stats

    if s.min() == s.max():
        return float(s[0])
    spread = float(s.std())
    try:
        shape, location, scale = stats.gamma.fit(s)
        value = float(stats.gamma.ppf(level, shape, location, scale))
    except (ValueError, RuntimeError, FloatingPointError):  # with a free location the likelihood may have no maximum
        value = float("nan")
    inside = s.min() <= value <= s.max() + 3 * spread
    if not inside:  # the fit diverged: fix the location just below the smallest score and fit the rest
        shape, location, scale = stats.gamma.fit(s, floc=float(s.min()) - 0.1 * spread)
        value = float(stats.gamma.ppf(level, shape, location, scale))
    return value
