"""Many poolings of a clip's frames in one read: what the settings of a search share is done once (report 2.5, 2.6).

    grid      (T, F, D)   of one clip and waveform
    returns   (S, D')     float32, unit length, one row per setting: as `embed.pool` and `unit` would give them
              (S, F, D)   for "beam", every frequency row of unit length

For each preprocessing: the deviations of eq. 15 once for all alphas, the powers x^p once for all weights. RDP, GeM and
RDP+GeM are then products of weights (alphas, T) with powers (T, D'). x^9 is safe in float32 because every feature is
scaled to a maximum of 1 first, and what would fall below 1e-30 is dropped before it is slow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from nearfar import pooling
from nearfar.audio.recordings import Recording
from nearfar.challenge.search.space import Setting
from nearfar.encoders import as_frames
from nearfar.recipe import BEAM
from nearfar.support.check import Array, finite, unit
from nearfar.support.progress import Progress
from nearfar.support.threads import map_in_order

LEAST = 1e-30  # a power below this cannot be seen beside the largest, which is 1
SHARED = ("mean", "gem", "rdp", "rdp_gem")


def pool_many(grid: Array, settings: Sequence[Setting]) -> Array:
    """Unit vectors (S, D') of a clip's grid (T, F, D), one per setting; neighbours in the list share their work.

    The settings have one `freq`: another makes vectors of another length.
    """
    grid = finite("grid", grid, ndim=3).astype(np.float32, copy=False)
    freq = settings[0].freq
    join = np.stack if freq == BEAM else np.concatenate
    frames = np.moveaxis(grid, -2, 0) if freq in ("bands", BEAM) else as_frames(grid, freq)[None]  # (F or 1, T, D')
    rows: list[Array] = []
    for (low, spike), alike in groupby(settings, key=lambda s: (s.low, s.spike)):
        group = list(alike)
        rows += list(join([_poolings(_suppress(band, low, spike), group) for band in frames], axis=1))
    return unit(np.stack(rows))


def _suppress(frames: Array, low: float | None, spike: float | None) -> Array:
    # `frames.suppress` without a mask's detour: tanh of everything is quicker than of what a mask picks out.
    out = frames
    if spike is not None:
        out = np.where(frames > np.float32(spike), np.tanh(frames), frames)
    if low is not None:
        out = np.where(frames < np.float32(low), np.float32(0), out)
    return out


def _poolings(x: Array, settings: Sequence[Setting]) -> Array:  # (T, D) -> (S, D)
    alphas = sorted({s.alpha for s in settings if "rdp" in s.pooling})
    weights = np.full((1 + len(alphas), len(x)), 1 / len(x), np.float32)
    if alphas:
        apart = pooling.deviations(x)
        for row, alpha in enumerate(alphas):
            weights[1 + row] = pooling.emphasis(apart, alpha)
    row_of = {alpha: 1 + row for row, alpha in enumerate(alphas)}
    powers = _power_means(x, weights, sorted({s.p for s in settings if "gem" in s.pooling}))
    weighted = weights @ x if any(s.pooling == "rdp" for s in settings) else x[:0]
    out = np.empty((len(settings), x.shape[1]), np.float32)
    for row, s in enumerate(settings):
        if s.pooling == "mean":
            out[row] = x.mean(axis=0, dtype=np.float64)
        elif s.pooling == "rdp":
            out[row] = weighted[row_of[s.alpha]]
        elif s.pooling in SHARED:
            out[row] = powers[s.p][row_of[s.alpha] if s.pooling == "rdp_gem" else 0]
        else:
            out[row] = pooling.pool(x, s.pooling, p=s.p, alpha=s.alpha)
    return out


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


# Grids of recordings -> pooled vectors for many settings at once, clip by clip in threads.
#
#     clips    n recordings            waveforms   W names ("near", "far", "enh_a03f05", ...)
#     returns  {waveform: (settings, n, D) float32}, for "beam" (settings, n, F, D)
#
# A grid is read once for a group of settings; a group's vectors stay below a bound in bytes, so that memory does not
# grow
# with how many settings there are.
#


class Frames(Protocol):
    """Where the grids of recordings come from."""

    def grid(self, path: Any, waveform: str, *, layer: int | None = None) -> Array:
        """(T, F, D) of a recording's waveform and layer (None: the final one); ValueError if there is none."""
        ...


def pool_clips(
    clips: Sequence[Recording],
    frames: Frames,
    settings: Sequence[Setting],
    waveforms: Sequence[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> dict[str, Array]:
    """Unit vectors of each waveform, one read of every grid; the settings have one layer and one `freq`."""
    out: dict[str, Array] = {}
    layer = settings[0].layer

    def one(at: int) -> tuple[int, dict[str, Array]]:
        return at, {w: pool_many(frames.grid(clips[at].path, w, layer=layer), settings) for w in waveforms}

    for done, (at, vectors) in enumerate(map_in_order(one, range(len(clips)), threads)):
        for waveform, x in vectors.items():
            if waveform not in out:
                out[waveform] = np.empty((len(settings), len(clips), *x.shape[1:]), np.float32)
            out[waveform][:, at] = x
        if progress:
            progress(done + 1, len(clips), f"{name}: frames")
    return out


def usable(
    clips: Sequence[Recording],
    frames: Frames,
    waveforms: Sequence[str],
    layer: int | None,
    threads: int | None,
    progress: Progress | None,
    name: str,
) -> tuple[set[Any], tuple[int, int], dict[str, str]]:
    """Paths of the clips that have all waveforms, (F, D) of their grids, and why the others cannot be used."""
    shapes: dict[Any, tuple[int, int]] = {}
    failures: dict[str, str] = {}

    def one(clip: Recording) -> tuple[Recording, tuple[int, int] | None, str]:
        try:
            grids = [frames.grid(clip.path, waveform, layer=layer) for waveform in waveforms]
            return clip, (grids[0].shape[1], grids[0].shape[2]), ""
        except (ValueError, OSError) as error:
            return clip, None, str(error)

    for done, (clip, shape, why) in enumerate(map_in_order(one, clips, threads)):
        if shape is None:
            failures[str(clip.path)] = why
        else:
            shapes[clip.path] = shape
        if progress:
            progress(done + 1, len(clips), f"{name}: listening")
    if len(set(shapes.values())) > 1:
        raise ValueError(f"machine {name!r}: the clips' grids have different shapes {sorted(set(shapes.values()))}")
    return set(shapes), next(iter(shapes.values()), (1, 1)), failures


def groups(
    settings: Sequence[Setting], shape: tuple[int, int], vectors: int, memory: int
) -> Iterator[Sequence[Setting]]:
    """Settings that are pooled in one read: of one layer and `freq`, `vectors` of each, below `memory` bytes."""
    group: list[Setting] = []
    used = 0
    for setting in settings:
        need = 4 * vectors * (shape[1] if setting.freq == "mean" else shape[0] * shape[1])
        if group and (used + need > memory or (setting.freq, setting.layer) != (group[0].freq, group[0].layer)):
            yield group
            group, used = [], 0
        group, used = [*group, setting], used + need
    if group:
        yield group
