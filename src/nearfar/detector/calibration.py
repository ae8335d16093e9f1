"""Calibration by groups: which normals belong together, and are left out together when one of them is scored.

Pieces of one recording, clips over one background and clips of one session resemble each other. A normal that is
scored with such relatives in the bank tells how a known session scores, not how a new one will.

    machine group   Ward cluster of what the machine sounds like
    noise group     Ward cluster of the noise around it, each clip's mean over bands taken off
    related         same machine group, or same noise group, or pieces of one recording, or same known session

Clusters are made of the first principal components of the scaled features, at most COUNT of them and at most one for
PER_GROUP clips. Above MOST clips, they are those of an even sample, and each other clip joins the nearest one.
`are_related` tells clips of sessions from unrelated ones, which lie in no clusters.

Conventions
    machine (N, D)   dB, any features of the machine's sound     noise (N, F)   dB by band, or None: one microphone
    groups (N, 2)    int, labels from 1 of the machine group and the noise group; 0: not known
    related (N, N)   bool, symmetric, the diagonal is True: what `Gaussian.excluding` takes

>>> sound = np.array([[0.0, 0], [0.1, 0], [0, 0.1], [9, 9], [9, 9.1], [9.1, 9]])
>>> same = related(groups(sound))
>>> same.sum(axis=1).tolist()
[3, 3, 3, 3, 3, 3]
>>> related(groups(sound), recordings=["a", "b", "b", "a", "d", "e"])[0].tolist()
[True, True, True, True, False, False]
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nearfar.gaussian import scale_of
from nearfar.support.check import Array
from nearfar.support.words import plural

FEW_RECORDINGS, FEW_SESSIONS = 5, 3  # fewer show nothing of another day
ENOUGH_SESSIONS = 5  # fewer show little of it
ONE_DAY, FEW_DAYS = (27, 100), (0, 16)  # false alarms in percent at a promised 5: docs/decisions.md
NO_GROUPS = np.zeros((0, 2), int)  # of normals that are measured one by one
COUNT = 10  # most groups of either kind
PER_GROUP = 3  # clips for each group at least: two pieces of one recording would be a group of their own
FEWEST_LEFT = 2  # fewest clips that a clip may be compared with
MACHINE_AXES, NOISE_AXES = 20, 10  # principal components that are clustered
MOST = 2000  # clips that are clustered at once: the cost grows with their square
COMPARED, DRAWS, CLOSER = 200, 20, 1.0  # of `are_related`: clips, draws, standard deviations


@dataclass(frozen=True)
class Backing:
    """What stands behind a number of `clips`: the `recordings` they were cut from, and `sessions`, 0 if not known."""

    clips: int
    recordings: int
    sessions: int

    def __str__(self) -> str:
        clips, recordings = plural(self.clips, "clip"), plural(self.recordings, "recording")
        cut = recordings if self.clips == self.recordings else f"{clips} cut from {recordings}"
        if not self.sessions:
            return f"{cut}; no name, folder or time tells their sessions"
        return f"{cut}, of {plural(self.sessions, 'session')}"

    @property
    def warning(self) -> str:
        """Why the clips promise little or nothing for another day, or ""."""
        sessions, came = plural(self.sessions, "session"), ONE_DAY
        if self.recordings < FEW_RECORDINGS:
            what = f"{plural(self.recordings, 'recording')} cannot show"
        elif not self.sessions:
            what = "If all of this was recorded on one day, it does not show"
        elif self.sessions < FEW_SESSIONS:
            what = f"{sessions} cannot show"
        elif self.sessions < ENOUGH_SESSIONS:
            what, came = f"{sessions} hardly show", FEW_DAYS
        else:
            return ""
        least, most = came
        return (
            f"{what} how the machine sounds on another day: where 5 of 100 healthy recordings may alarm, {least} to "
            f"{most} did there on simulated machines. Record on {ENOUGH_SESSIONS} days or more."
        )


def groups(machine: Array, noise: Array | None = None) -> Array:
    """Machine group and noise group (N, 2) of each clip, from 1; without `noise` its group is 0."""
    count = _count(len(machine))
    labels = np.zeros((len(machine), 2), int)
    labels[:, 0] = clusters(machine, count, MACHINE_AXES)
    if noise is not None:
        labels[:, 1] = clusters(noise - noise.mean(axis=1, keepdims=True), count, NOISE_AXES)
    return labels


def clusters(x: Array, count: int, axes: int) -> Array:
    """Ward clusters (N,), labels from 1 to at most `count`, of the first `axes` principal components of x (N, D)."""
    sample = _even_sample(len(x), MOST)
    points = _coordinates(x, sample, axes)
    found = _ward(points[sample], count)
    if len(sample) == len(x):
        return found
    names = np.unique(found)
    centres = np.stack([points[sample[found == name]].mean(axis=0) for name in names])
    squared = (centres**2).sum(axis=1) - 2 * points @ centres.T  # less the clip's own square, the same for all centres
    labels = names[squared.argmin(axis=1)]
    labels[sample] = found
    return np.asarray(labels)


def are_related(machine: Array) -> bool:
    """Whether clips (N, D) lie in closer clusters than unrelated clips, of a Gaussian with the same variances, do.

    The share of the scatter that is left within clusters is compared with those of DRAWS draws of as many clips.
    """
    sample = _even_sample(len(machine), COMPARED)
    points, count = _coordinates(machine, sample, MACHINE_AXES)[sample], _count(len(sample))
    rng, deviations = np.random.default_rng(0), points.std(axis=0)
    drawn = [_within(rng.normal(size=points.shape) * deviations, count) for _ in range(DRAWS)]
    return bool(_within(points, count) <= np.mean(drawn) - CLOSER * np.std(drawn))


def related(
    groups: Array, recordings: Sequence[Hashable] | None = None, sessions: Sequence[Hashable] | None = None
) -> Array:
    """Which clips are left out together: (N, N) bool.

    groups       (N, 2) int, from `groups`
    recordings   (N,) the file that each clip is a piece of; None where it is not known
    sessions     (N,) the session of each clip; None where it is not known

    If this left some clip fewer than two others, only recordings and sessions count; if these do too, each clip is
    related to itself alone.
    """
    known = np.eye(len(groups), dtype=bool)
    for names in (recordings, sessions):
        if names is not None:
            _join(known, _numbered(names))
    joined = known.copy()
    for labels in groups.T:
        _join(joined, labels)
    for candidate in (joined, known):
        if len(groups) - candidate.sum(axis=1).max() >= FEWEST_LEFT:
            return candidate
    return np.eye(len(groups), dtype=bool)


def follows(x: Array, noise: Array) -> float:
    """How far the levels x (N, F) follow the noise (N, F), both dB: the median over bands of their correlation.

    The correlation is taken over the clips, after each clip's mean over bands; that of a band that does not vary is 0.
    """
    x, noise = (a - a.mean(axis=1, keepdims=True) for a in (x, noise))
    x, noise = x - x.mean(axis=0), noise - noise.mean(axis=0)
    lengths = np.sqrt((x**2).sum(axis=0) * (noise**2).sum(axis=0))
    return float(np.median((x * noise).sum(axis=0) / np.where(lengths > 0, lengths, 1)))


def _count(n: int) -> int:
    """The number of groups of n clips."""
    return max(2, min(COUNT, n // PER_GROUP))


def _coordinates(x: Array, sample: Array, axes: int) -> Array:
    """x (N, D), scaled, along the first principal components of those in the sample: (N, axes)."""
    mean, scale = x[sample].mean(axis=0), scale_of(x[sample].std(axis=0))
    _, _, directions = np.linalg.svd((x[sample] - mean) / scale, full_matrices=False)
    return np.asarray(((x - mean) / scale) @ directions[:axes].T)


def _ward(points: Array, count: int) -> Array:
    """Ward clusters (N,) of points, at most `count`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    return np.asarray(fcluster(linkage(pdist(points), "ward"), count, "maxclust"))


def _within(points: Array, count: int) -> float:
    """The share of the scatter of points (N, D) that is left within their clusters."""
    labels = _ward(points, count)
    left = sum(len(part) * part.var(axis=0).sum() for part in (points[labels == name] for name in np.unique(labels)))
    return float(left) / max(len(points) * float(points.var(axis=0).sum()), 1e-300)


def _even_sample(n: int, most: int) -> Array:
    """At most `most` indices below n, one from each of as many equal stretches, or all; the same ones every time."""
    if n <= most:
        return np.arange(n)
    edges = np.linspace(0, n, most + 1)
    return np.asarray((edges[:-1] + np.random.default_rng(0).random(most) * np.diff(edges)).astype(int))


def _numbered(names: Sequence[Hashable]) -> Array:
    """Labels (N,) from 1; 0 for None."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(n for n in names if n is not None), start=1)}
    return np.array([0 if name is None else numbers[name] for name in names])


def _join(related: Array, labels: Array) -> None:
    """Mark the clips of one label as related to each other, in place; label 0 joins nothing."""
    for label in np.unique(labels[labels > 0]):
        members = np.flatnonzero(labels == label)
        related[np.ix_(members, members)] = True
