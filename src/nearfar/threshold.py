"""A threshold from normal recordings alone: how rarely does a healthy clip score this high?

`PValue` turns a score into p, the share of normal clips expected at or above it. Within the normals' scores, p is the
conformal p-value (1 + number of normals with a higher score) / (N + 1), interpolated. Above the (N-k)-th score it is

    p(u + x) = (k + 1) / (N + 1) * (1 + x / (k b))^-k    u: the (N-k)-th score, b: mean of the k excesses over u

the predictive distribution of a further exponential excess, given k of them. It is exact for every k, so few normals
give a cautious threshold. The other methods are "gamma", the official baseline's (gamma fit, 0.9), and "quantile".

Conventions
    scores (N,)   leave-one-out scores of the normals, N >= 2; higher is more anomalous
    rate, p       shares of normal clips, between 0 and 1
    An alarm is raised for score > threshold. "Set-point" is the plant's word for the threshold.

>>> threshold = from_normals(np.arange(99.0), rate=0.05)
>>> round(threshold.value, 1), threshold.false_alarms_per_day(clip_seconds=10)
(92.5, 432.0)
>>> PValue(np.arange(99.0)).log_p([50]).round(2).tolist()  # 48 of the 99 normals score higher: log(49 / 100)
[-0.71]

References: Vovk et al. 2005 (conformal p-values); DCASE Task 2 baseline (gamma, 0.9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, number, one_of

METHODS = ("conformal", "gamma", "quantile")
BY_HAND = "by hand"  # the method of a threshold that a person chose
SECONDS_PER_DAY = 86_400.0
SAFETY = 2.0  # clips of a new session that exceed a score, for each related normal that does so without its relatives


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
class Backing:
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


def backing(scores: ArrayLike, threshold: Threshold, method: str = "conformal") -> Backing:
    """What normals with these leave-one-out scores (N,), N >= 2, can show of a set-point."""
    s = _scores(scores)
    lowest = 1 / (len(s) + 1)
    return Backing(threshold, len(s), float(s.max()), lowest, from_normals(s, lowest, method).value)


def rate_of(false_alarms_per_day: float, clip_seconds: float) -> float:
    """The share of normal clips that gives `false_alarms_per_day` if a day is recorded in clips of `clip_seconds`."""
    most = SECONDS_PER_DAY / number("clip_seconds", clip_seconds, above=0)
    number("false alarms per day", false_alarms_per_day, above=0, below=most)
    return false_alarms_per_day / most


def share(promised: float, normals: int, safety: float = SAFETY) -> float:
    """The share of the normals' scores, each without its relatives, at which the set-point is read.

    The promised share divided by `safety`, because so many more clips of a new session exceed it than the groups tell,
    but for that reason never below 1 / (normals + 1), the rarest share that these normals show by counting.

    >>> share(0.05, 200), share(0.05, 30) == 1 / 31, share(0.01, 30)
    (0.025, True, 0.01)
    """
    number("the promised share", promised, above=0, below=1)
    return min(promised, max(promised / safety, 1 / (normals + 1)))


def promised(read: float, normals: int, safety: float = SAFETY) -> float:
    """The promised share whose set-point is read at `read`; the smallest, where `share` gives several the same.

    >>> promised(share(0.05, 200), 200), promised(0.01, 30)
    (0.05, 0.01)
    """
    return read if read <= 1 / (normals + 1) else min(1.0, safety * read)


def from_normals(scores: ArrayLike, rate: float, method: str = "conformal") -> Threshold:
    """The threshold that a share `rate` of normal clips exceeds.

    Parameters
    ----------
    scores : (N,)
        Leave-one-out scores of the normals, N >= 2.
    rate : float in (0, 1)
        Share of normal clips that may alarm.
    method : "conformal" | "gamma" | "quantile"
        The p-value of the module, a gamma fit with free location, or the empirical quantile.
    """
    one_of("threshold method", method, METHODS)
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
