"""Grids of recordings -> pooled vectors for many settings at once (report sections 2.5 and 2.6).

    grid      (T, F, D)                 of one clip and waveform, read once for a group of settings
    vectors   S times (D',) float32     of that grid, unit length, one per setting; (F, D') for "beam", every frequency
                                        row of unit length; D' depends on the setting's pooling
    pooled    {waveform: S times (n, D')}   of n clips

A grid is an array, or a tensor: pooling is then done on its device, where the vectors stay.

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
from nearfar.embedding.vectors import FRAMES
from nearfar.encoders import Layers
from nearfar.frames import suppress
from nearfar.recipe import BEAM
from nearfar.support.arrays import Place, namespace, new, place, take
from nearfar.support.check import Array, finite
from nearfar.support.progress import Progress
from nearfar.support.threads import map_in_order
from nearfar.views import unit

LEAST = 1e-30  # a smaller power vanishes in a float32 sum beside the largest, which is 1
TOGETHER = 16  # clips that a device pools at a time


def pool_many(grid: Array, settings: Sequence[Setting]) -> list[Array]:
    """Unit vectors (..., D') of grids (..., T, F, D), one per setting, all with one `freq`.

    Neighbours in the list that have the same preprocessing share its work.
    """
    xp, freq = namespace(grid), settings[0].freq
    grid = xp.asarray(finite("grid", grid), dtype=xp.float32)
    bands = xp.moveaxis(grid, -2, 0) if freq in ("bands", BEAM) else FRAMES[freq](grid)[None]  # (F or 1, ..., T, D')
    out: list[Array] = []
    for (low, spike), same in groupby(settings, key=lambda s: (s.low, s.spike)):
        group = list(same)
        each = [_poolings(suppress(band, low, spike), group) for band in bands]
        rows = zip(*each, strict=True)
        out += [unit(xp.stack(r, axis=-2) if freq == BEAM else xp.concatenate(r, axis=-1)) for r in rows]
    return out


def _poolings(x: Array, settings: Sequence[Setting]) -> list[Array]:  # (..., T, D) -> S times (..., D')
    alphas = sorted({s.alpha for s in settings if "rdp" in s.pooling})
    weights = new(x, (*x.shape[:-2], 1 + len(alphas), x.shape[-2]), 1 / x.shape[-2])
    if alphas:
        deviations = pooling.deviations(x)
        for row, alpha in enumerate(alphas):
            weights[..., 1 + row, :] = pooling.emphasis(deviations, alpha)
    row_of = {alpha: 1 + row for row, alpha in enumerate(alphas)}
    powers = _power_means(x, weights, sorted({s.p for s in settings if "gem" in s.pooling}))
    weighted = weights @ x if any(s.pooling == "rdp" for s in settings) else x

    def vector(s: Setting) -> Array:
        if s.pooling == "rdp":
            return weighted[..., row_of[s.alpha], :]
        if s.pooling in ("gem", "rdp_gem"):
            return powers[s.p][..., row_of[s.alpha] if s.pooling == "rdp_gem" else 0, :]
        return pooling.pool(x, s.pooling, p=s.p, alpha=s.alpha)

    return [vector(s) for s in settings]


def _power_means(x: Array, weights: Array, powers: Sequence[float]) -> dict[float, Array]:  # {p: (..., A, D)}
    if not powers:
        return {}
    xp = namespace(x)
    ratio = xp.clip(x, 0, None)
    top = xp.amax(ratio, axis=-2, keepdims=True)
    ratio *= 1 / xp.where(top > 0, top, 1)
    return {p: xp.clip(weights @ _power(ratio, p), None, 1) ** (1 / p) * top for p in powers}


def _power(ratio: Array, p: float) -> Array:
    if p == 1:
        return ratio
    seen = ratio * (ratio > LEAST ** (1 / p))
    if p in (3, 9):
        cube = seen * seen * seen
        return cube if p == 3 else cube * cube * cube
    power: Array = seen**p
    return power


class GridSource(Protocol):
    """Where the grids of recordings come from: a cache of embeddings, or arrays in memory."""

    def grids(self, path: str | PathLike[str], waveforms: Iterable[str], layer: Layers = None) -> Mapping[str, Array]:
        """(T, F, D) of each waveform of a recording, by layer (None: the final one); ValueError if it has none."""
        ...


def pool_clips(
    clips: Sequence[Recording],
    source: GridSource,
    settings: Sequence[Setting],
    waveforms: Sequence[str],
    *,
    threads: int | None = None,
    device: Place = "cpu",
    progress: Progress | None = None,
) -> tuple[dict[str, list[Array]], dict[str, str]]:
    """({waveform: S times (n, D')}, {file: why}) of the n clips whose grids can be had, and of the files of the others.

    Every grid is read once; the S settings have one layer and one `freq`. The vectors are arrays, or tensors on the
    `device`. Raises ValueError if grids of different shapes give vectors of different lengths.
    """
    layer, step = settings[0].output, 1 if device == "cpu" else TOGETHER
    pooled: dict[str, list[Array]] = {}
    usable = np.ones(len(clips), bool)
    failures: dict[str, str] = {}

    def vectors_of(some: range) -> tuple[dict[int, str], list[tuple[list[int], dict[str, list[Array]]]]]:
        """{clip: why it has no grid}, and the vectors of the other clips, those with grids of one shape together."""
        read: dict[int, dict[str, Array]] = {}
        bad: dict[int, str] = {}
        for at in some:
            try:
                grids = source.grids(clips[at].path, waveforms, layer)
                read[at] = {name: finite("grid", grids[name], ndim=3) for name in waveforms}
            except (ValueError, OSError) as error:
                bad[at] = str(error)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for at, found in read.items():
            by_shape.setdefault(tuple(n for grid in found.values() for n in grid.shape), []).append(at)
        out = []
        for same in by_shape.values():
            try:
                stacked = {name: np.stack([read[at][name] for at in same]) for name in waveforms}
                out.append((same, {name: pool_many(place(x, device), settings) for name, x in stacked.items()}))
            except ValueError as error:
                bad |= dict.fromkeys(same, str(error))
        return bad, out

    pieces = [range(at, min(at + step, len(clips))) for at in range(0, len(clips), step)]
    for piece, (bad, found) in zip(pieces, map_in_order(vectors_of, pieces, threads), strict=True):
        for at, why in bad.items():
            usable[at], failures[str(clips[at].path)] = False, why
        for same, vectors in found:
            for name, x in vectors.items():
                if name not in pooled:
                    pooled[name] = [new(vector, (len(clips), *vector.shape[1:])) for vector in x]
                for rows, vector in zip(pooled[name], x, strict=True):
                    if rows.shape[1:] != vector.shape[1:]:
                        raise ValueError(
                            f"{clips[same[0]].path}: its grid has another shape than those of the other clips"
                        )
                    rows[same] = vector
        if progress:
            progress(piece.stop, len(clips))
    if failures:
        kept = np.flatnonzero(usable)
        pooled = {name: [take(rows, kept, 0) for rows in x] for name, x in pooled.items()}
    return pooled, failures


def first_shape(clips: Sequence[Recording], source: GridSource, waveform: str, layer: Layers) -> tuple[int, int]:
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
