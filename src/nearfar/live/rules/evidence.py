"""Evidence that adds up over windows: a faint fault that lasts, found although no single window is unusual enough.

    z = Phi^-1(1 - p)                                     p: the window's share of healthy clips that score as high
    S_d <- max(0, S_d + d (z - a) - d^2 / 2)              d: SHIFTS, in standard deviations of the normals
    evidence = max over d of S_d                          alarm while it is above `limit`

exp(d z - d^2 / 2) is an e-value of uniform p, and S_d the CUSUM of its logarithm (an e-detector). z is capped, so that
one loud window is no evidence of a lasting change, and S_d is capped at CAP limits, so that it falls again soon.

a      allowance: how much louder than the normals a healthy session may be. The means of S sessions of normals have the
       standard deviation s; a new session's is expected to exceed t s sqrt(1 + 1/S), t a quantile of Student's t with
       S - 1 degrees of freedom, in a share `per_session` of sessions only. At least ALLOWED_ERRORS standard errors of
       the mean of z.
limit  such that a healthy machine raises at most one alarm in `windows` windows: simulated with stretches of the
       normals within their sessions (block bootstrap) and windows that overlap, so that the windows depend on each
       other as they do, of sessions up to the allowance; beyond what is simulated the rate falls exponentially, at most
       as Ville's inequality says

Normals of fewer than FEWEST_SESSIONS sessions do not show how sessions differ: then there is no evidence.

Reference: Shin, Ramdas and Rinaldo 2024, "E-detectors"; Politis and Romano 1994 (stationary bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from nearfar.support.check import Array

SHIFTS = np.array([0.5, 1.0, 2.0])
LOWEST_Z, HIGHEST_Z = -4.0, 2.5
CAP = 1.25  # limits
ALLOWED_ERRORS = 2.5  # standard errors of the mean of the normals
CHAINS, STEPS, LEVELS = 200, 800, np.arange(2.0, 12.0, 1.0)
FEWEST_ALARMS = 20  # simulated, for a rate that counts
SLOWER = 0.8  # the rate is taken to fall this much slower than simulated
STRETCH = 10  # normals in a row, on average, in a simulated day
FEWEST_SESSIONS = 3
PER_SESSION = 0.05
FEWEST_NORMALS = 8  # fewer say too little of how the machine sounds
NORMAL = NormalDist()


@dataclass
class Evidence:
    """The evidence of one machine; see the module."""

    allowance: float
    limit: float
    sums: Array = field(default_factory=lambda: np.zeros(len(SHIFTS)))

    def fresh(self) -> Evidence:
        """The same without what has added up."""
        return Evidence(self.allowance, self.limit)

    def update(self, p: float) -> bool:
        """Take the p of a judged window; whether the evidence is now above the limit."""
        z = NORMAL.inv_cdf(min(max(1 - p, 1e-12), 1 - 1e-12))
        self.sums = np.minimum(_added(self.sums, min(max(z, LOWEST_Z), HIGHEST_Z) - self.allowance), CAP * self.limit)
        return self.value > self.limit

    @property
    def value(self) -> float:
        """What has added up, in the unit of the limit."""
        return float(self.sums.max())


def design(
    p: ArrayLike, sessions: Sequence[Hashable], overlap: float, windows: float, per_session: float = PER_SESSION
) -> Evidence | None:
    """The evidence of a machine whose normals have these p-values, or None if they show too little.

    Parameters
    ----------
    p : (N,)
        p-values of the normals without their relatives, in the order of recording within each session.
    sessions : (N,)
        The session of each normal; None or "" where it is not known.
    overlap : float
        Length of a window / hop; 1 if windows do not overlap.
    windows : float
        At least this many windows of a healthy machine for one false alarm.
    per_session : float
        Share of new healthy sessions that may be louder than allowed for.
    """
    from scipy.special import stdtrit

    names = list(dict.fromkeys(s for s in sessions if s))
    if len(names) < FEWEST_SESSIONS or len(sessions) < FEWEST_NORMALS:
        return None
    z = np.array([NORMAL.inv_cdf(min(max(1 - x, 1e-12), 1 - 1e-12)) for x in np.asarray(p, np.float64)])
    z = np.clip(z, LOWEST_Z, HIGHEST_Z)
    labels = np.array([names.index(s) if s else -1 for s in sessions])
    order = np.argsort(labels, kind="stable")
    z, labels = z[order], labels[order]
    means = np.array([z[labels == k].mean() for k in range(len(names))])
    apart = float(np.std(means, ddof=1)) * math.sqrt(1 + 1 / len(names))
    error = _standard_error(z)
    allowance = max(float(stdtrit(len(names) - 1, 1 - per_session)) * apart, ALLOWED_ERRORS * error)
    rates = _false_alarms(z, labels, max(apart, error), allowance, max(1, round(overlap)))
    known = np.flatnonzero(rates * CHAINS * STEPS >= FEWEST_ALARMS)
    if not len(known):
        return Evidence(allowance, max(float(LEVELS[0]), math.log(windows)))
    top = known[-1]
    low = known[max(0, len(known) - 4)]
    slope = math.log(rates[low] / rates[top]) / (LEVELS[top] - LEVELS[low]) if low < top else 0.5
    slope = min(max(SLOWER * slope, 0.1), 1.0)
    beyond = math.log(max(rates[top] * windows, 1.0)) / slope
    return Evidence(allowance, float(max(LEVELS[top] + beyond, math.log(windows))))


def _added(sums: Array, z: Array | float) -> Array:
    """The sums (..., S) after a window with this z (...,)."""
    return np.maximum(0.0, sums + SHIFTS * np.asarray(z)[..., None] - SHIFTS**2 / 2)


def _standard_error(z: Array) -> float:
    """The standard error of the mean of z (N,) whose neighbours may be alike: the larger of two estimates."""
    length = max(1, math.isqrt(len(z)))
    means = [part.mean() for part in np.array_split(z, max(2, len(z) // length))]
    by_stretches = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    centred = z - z.mean()
    memory = float(centred[1:] @ centred[:-1]) / max(float(centred @ centred), 1e-12) + 1 / math.sqrt(len(z))
    memory = min(max(memory, 0.0), 0.6)  # the highest correlation of neighbours that the normals do not exclude
    return max(by_stretches, math.sqrt((1 + memory) / (1 - memory) / len(z)))


def _false_alarms(z: Array, labels: Array, error: float, allowance: float, overlap: int) -> Array:
    """Simulated false alarms per window at each of LEVELS, of sessions that sound like the normals z (N,)."""
    rng = np.random.default_rng(0)
    shift = np.minimum(error * rng.normal(size=CHAINS), allowance)  # each chain is a session
    new = min(0.5, 2 / len(z))  # share of the variance that is new: N normals have no tail
    spread = np.exp(_standard_error(z) / math.sqrt(2) * rng.normal(size=CHAINS))
    centred = np.concatenate([z[labels == k] - z[labels == k].mean() for k in np.unique(labels)])
    last = np.append(labels[1:] != labels[:-1], True)  # the next normal is of another session
    clips = np.empty((CHAINS, STEPS // overlap + 2))
    at = rng.integers(len(z), size=CHAINS)
    for i in range(clips.shape[1]):
        jump = last[at] | (rng.random(CHAINS) < 1 / STRETCH)
        at = np.where(jump, rng.integers(len(z), size=CHAINS), (at + 1) % len(z))
        clips[:, i] = math.sqrt(1 - new) * centred[at] + math.sqrt(new) * rng.normal(size=CHAINS)
    sums, counts = np.zeros((len(LEVELS), CHAINS, len(SHIFTS))), np.zeros(len(LEVELS))
    for step in range(STEPS):
        clip, part = divmod(step, overlap)  # a window between two clips is taken as their mean, of the same spread
        w = part / overlap
        window = ((1 - w) * clips[:, clip] + w * clips[:, clip + 1]) / math.hypot(w, 1 - w)
        window = np.clip(z.mean() + shift + spread * window, LOWEST_Z, HIGHEST_Z) - allowance
        sums = _added(sums, np.broadcast_to(window, sums.shape[:2]))
        crossed = sums.max(axis=2) > LEVELS[:, None]
        counts += crossed.sum(axis=1)
        sums[crossed] = 0.0
    return counts / (CHAINS * STEPS)
