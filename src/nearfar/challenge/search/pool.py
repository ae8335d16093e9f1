"""Grids of recordings -> pooled vectors for many settings at once (report sections 2.5 and 2.6).

    grid      (T, F, D)                 of one clip and waveform, read once for a group of settings
    vectors   S times (D',) float32     of that grid, unit length, one per setting; (F, D') for "beam", every frequency
                                        row of unit length; D' depends on the setting's pooling
    pooled    {waveform: S times (n, D')}   of n clips

For each preprocessing the deviations of eq. 15 are computed once for all alphas, and the powers x^p once for all
weights. RDP, GeM and RDP+GeM are then products of weights (alphas, T) with powers (T, D'). x^9 is safe in float32
because every feature is first scaled to a maximum of 1; what would fall below 1e-30 is set to 0, as denormal numbers
are slow. The vectors equal those of `embedding.vectors.pool` to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from os import PathLike
from typing import Protocol

import numpy as np

from nearfar import pooling
from nearfar.audio.recordings import Recording
from nearfar.challenge.search.space import Setting
from nearfar.encoders import as_frames
from nearfar.recipe import BEAM
from nearfar.support.check import Array, finite
from nearfar.support.progress import Progress
from nearfar.support.threads import map_in_order
from nearfar.views import unit

LEAST = 1e-30  # a smaller power vanishes in a float32 sum beside the largest, which is 1


def pool_many(grid: Array, settings: Sequence[Setting]) -> list[Array]:
    """Unit vectors (D',) of a clip's grid (T, F, D), one per setting, all with one `freq`.

    Neighbours in the list that have the same preprocessing share its work.
    """
    grid = finite("grid", grid, ndim=3).astype(np.float32, copy=False)
    freq = settings[0].freq
    join = np.stack if freq == BEAM else np.concatenate
    frames = np.moveaxis(grid, -2, 0) if freq in ("bands", BEAM) else as_frames(grid, freq)[None]  # (F or 1, T, D')
    out: list[Array] = []
    for (low, spike), same in groupby(settings, key=lambda s: (s.low, s.spike)):
        group = list(same)
        bands = [_poolings(_suppress(band, low, spike), group) for band in frames]
        out += [unit(join(rows)) for rows in zip(*bands, strict=True)]
    return out


def _suppress(frames: Array, low: float | None, spike: float | None) -> Array:
    # As `frames.suppress`, but tanh of all values: it is quicker than picking the few that need it.
    out = frames
    if spike is not None:
        out = np.where(frames > np.float32(spike), np.tanh(frames), frames)
    if low is not None:
        out = np.where(frames < np.float32(low), np.float32(0), out)
    return out


def _poolings(x: Array, settings: Sequence[Setting]) -> list[Array]:  # (T, D) -> S times (D',)
    alphas = sorted({s.alpha for s in settings if "rdp" in s.pooling})
    weights = np.full((1 + len(alphas), len(x)), 1 / len(x), np.float32)
    if alphas:
        deviations = pooling.deviations(x)
        for row, alpha in enumerate(alphas):
            weights[1 + row] = pooling.emphasis(deviations, alpha)
    row_of = {alpha: 1 + row for row, alpha in enumerate(alphas)}
    powers = _power_means(x, weights, sorted({s.p for s in settings if "gem" in s.pooling}))
    weighted = weights @ x if any(s.pooling == "rdp" for s in settings) else x[:0]

    def vector(s: Setting) -> Array:
        if s.pooling == "rdp":
            return weighted[row_of[s.alpha]]
        if s.pooling in ("gem", "rdp_gem"):
            return powers[s.p][row_of[s.alpha] if s.pooling == "rdp_gem" else 0]
        return pooling.pool(x, s.pooling, p=s.p, alpha=s.alpha)

    return [vector(s) for s in settings]


def _power_means(x: Array, weights: Array, powers: Sequence[float]) -> dict[float, Array]:  # {p: (A, D)}
    if not powers:
        return {}
    ratio = np.maximum(x, 0)
    top = ratio.max(axis=0)
    ratio *= 1 / np.where(top > 0, top, 1)
    out = {}
    for p in powers:
        sums = np.minimum(weights @ _power(ratio, p), 1)
        out[p] = (sums if p == 1 else np.cbrt(sums) if p == 3 else sums ** np.float32(1 / p)) * top
    return out


def _power(ratio: Array, p: float) -> Array:
    if p == 1:
        return ratio
    seen = ratio * (ratio > LEAST ** (1 / p))
    if p in (3, 9):
        cube = seen * seen * seen
        return cube if p == 3 else cube * cube * cube
    power: Array = seen ** np.float32(p)
    return power


class GridSource(Protocol):
    """Where the grids of recordings come from: a cache of embeddings, or arrays in memory."""

    def grids(
        self, path: str | PathLike[str], waveforms: Iterable[str], layer: int | None = None
    ) -> Mapping[str, Array]:
        """(T, F, D) of each waveform of a recording, by layer (None: the final one); ValueError if it has none."""
        ...


def pool_clips(
    clips: Sequence[Recording],
    source: GridSource,
    settings: Sequence[Setting],
    waveforms: Sequence[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, list[Array]], dict[str, str]]:
    """({waveform: S times (n, D')}, {file: why}) of the n clips whose grids can be had, and of the files of the others.

    Every grid is read once; the S settings have one layer and one `freq`. Raises ValueError if grids of different
    shapes give vectors of different lengths.
    """
    layer = settings[0].layer
    pooled: dict[str, list[Array]] = {}
    usable = np.ones(len(clips), bool)
    failures: dict[str, str] = {}

    def vectors_of(clip: Recording) -> dict[str, list[Array]] | str:
        try:
            grids = source.grids(clip.path, waveforms, layer)
            return {name: pool_many(grid, settings) for name, grid in grids.items()}
        except (ValueError, OSError) as error:
            return str(error)

    for at, vectors in enumerate(map_in_order(vectors_of, clips, threads)):
        if isinstance(vectors, str):
            usable[at], failures[str(clips[at].path)] = False, vectors
        else:
            for name, x in vectors.items():
                if name not in pooled:
                    pooled[name] = [np.empty((len(clips), *vector.shape), np.float32) for vector in x]
                for rows, vector in zip(pooled[name], x, strict=True):
                    if rows.shape[1:] != vector.shape:
                        raise ValueError(f"{clips[at].path}: its grid has another shape than those of the other clips")
                    rows[at] = vector
        if progress:
            progress(at + 1, len(clips))
    if failures:
        pooled = {name: [rows[usable] for rows in x] for name, x in pooled.items()}
    return pooled, failures


def first_shape(clips: Sequence[Recording], source: GridSource, waveform: str, layer: int | None) -> tuple[int, int]:
    """(F, D) of the first grid that can be had; (1, 1) if none can."""
    for clip in clips:
        try:
            _, rows, width = source.grids(clip.path, [waveform], layer)[waveform].shape
            return rows, width
        except (ValueError, OSError):
            continue
    return 1, 1


def groups(
    settings: Sequence[Setting], shape: tuple[int, int], vectors: int, memory: int
) -> Iterator[Sequence[Setting]]:
    """Settings that are pooled in one read: of one layer and `freq`, `vectors` of each, below `memory` bytes.

    A setting that alone needs more is a group by itself.
    """
    group: list[Setting] = []
    used = 0
    for setting in settings:
        rows, width = (1, shape[1]) if setting.freq == "mean" else shape
        rows, width = (rows, width) if setting.freq in ("bands", BEAM) else (1, rows * width)
        need = 4 * vectors * rows * pooling.length(setting.pooling, width)
        if group and (used + need > memory or (setting.freq, setting.layer) != (group[0].freq, group[0].layer)):
            yield group
            group, used = [], 0
        group, used = [*group, setting], used + need
    if group:
        yield group
