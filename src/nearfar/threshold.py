"""A set-point from normal recordings alone: how rarely does a healthy clip score this high?

    scores (N,)   leave-one-out scores of the normals       p   share of normal clips expected at or above a score

`PValue` turns a score into p. Within the normals it is the conformal p-value, (1 + how many score higher) / (N + 1),
interpolated. Above the (N-k)-th it is the predictive tail of an exponential with the k largest excesses:

    p(u + x) = (k + 1) / (N + 1) * (1 + x / (k b))^-k      u: the (N-k)-th score, b: mean excess over u

which is what a further exponential excess does given k of them: exact for every k, so few normals give a cautious
set-point instead of a bold one. `gamma` is the official baseline's rule (gamma fit, 0.9), `quantile` the plain one.

References: Vovk et al. 2005 (conformal p-values); DCASE Task 2 baseline (gamma, 0.9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array, finite, number, one_of

METHODS = ("conformal", "gamma", "quantile")
BY_HAND = "by hand"  # the method of a set-point that a person gave
SECONDS_PER_DAY = 86_400.0


class PValue:
    """p-values of scores by the normals' own scores (N,), N >= 2; see the module for the formula."""

    def __init__(self, scores: ArrayLike) -> None:
        s = np.sort(_scores(scores))
        n = len(s)
        self.k = min(max(n // 10, min(n // 2, 10)), n - 1)
        self.scores, self.start = s, s[n - self.k - 1]
        alike = s[0] == s[-1]  # then any step up is far; their deviation need not be 0 but for rounding
        spread = max(abs(float(s[0])), 1.0) * 1e-6 if alike else float(s.std())
        self.excess = float((s[n - self.k :] - self.start).mean()) or spread
        body = s[: n - self.k]
        self._x, first = np.unique(body, return_index=True)
        last = np.r_[first[1:], len(body)]  # of equal scores the last counts: just above it so many are higher
        self._log_p = np.log((n - last + 1) / (n + 1))
        self._spread = spread

    def log_p(self, scores: ArrayLike) -> Array:
        """Natural logarithm of p (M,), strictly falling in the score."""
        s = finite("scores", scores, ndim=1).astype(np.float64)
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
    """A set-point: alarm when score > `value`; `rate` is the share of normal clips expected to do so."""

    value: float
    rate: float
    method: str

    def false_alarms_per_day(self, clip_seconds: float) -> float:
        """Expected false alarms if the machine is heard all day, one clip of `clip_seconds` after the other."""
        return self.rate * SECONDS_PER_DAY / number("clip_seconds", clip_seconds, above=0)


def rate_of(false_alarms_per_day: float, clip_seconds: float) -> float:
    """The share of normal clips that makes so many false alarms in a day of clips of `clip_seconds`."""
    most = SECONDS_PER_DAY / number("clip_seconds", clip_seconds, above=0)
    number("false alarms per day", false_alarms_per_day, above=0, below=most)
    return false_alarms_per_day / most


def from_normals(scores: ArrayLike, rate: float, method: str = "conformal") -> Threshold:
    """The set-point that a share `rate` of normal clips exceeds, from leave-one-out scores (N,) of normals.

    method  "conformal" (see `PValue`) | "gamma" (baseline: gamma fit with free location) | "quantile" (empirical).
    Raises ValueError for rate outside (0, 1).
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
    except (ValueError, RuntimeError, FloatingPointError):  # the likelihood of a free location need not have a maximum
        value = float("nan")
    inside = s.min() <= value <= s.max() + 3 * spread
    if not inside:  # the fit ran away: place the location just under the smallest score and fit the rest
        shape, location, scale = stats.gamma.fit(s, floc=float(s.min()) - 0.1 * spread)
        value = float(stats.gamma.ppf(level, shape, location, scale))
    return value
