"""Grids of recordings -> pooled vectors for many settings at once, clip by clip in threads.

    clips    n recordings            waveforms   W names ("near", "far", "enh_a03f05", ...)
    returns  {waveform: (settings, n, D) float32}, for "beam" (settings, n, F, D)

A grid is read once for a group of settings; a group's vectors stay below a bound in bytes, so that memory does not grow
with how many settings there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from nearfar.blas import one_thread
from nearfar.challenge.pooled import pool_many
from nearfar.challenge.space import Setting
from nearfar.check import Array
from nearfar.recordings import Recording

Progress = Callable[[str, int, int], None]


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

    for done, (at, vectors) in enumerate(in_threads(one, range(len(clips)), threads)):
        for waveform, x in vectors.items():
            if waveform not in out:
                out[waveform] = np.empty((len(settings), len(clips), *x.shape[1:]), np.float32)
            out[waveform][:, at] = x
        if progress:
            progress(f"{name}: frames", done + 1, len(clips))
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

    for done, (clip, shape, why) in enumerate(in_threads(one, clips, threads)):
        if shape is None:
            failures[str(clip.path)] = why
        else:
            shapes[clip.path] = shape
        if progress:
            progress(f"{name}: listening", done + 1, len(clips))
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


def in_threads(work: Callable[[Any], Any], items: Sequence[Any], threads: int | None) -> Iterator[Any]:
    """`map(work, items)` in threads, a few ahead of what is taken, so that memory stays bounded and Ctrl-C works."""
    workers = min(threads or os.cpu_count() or 1, max(len(items), 1))
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(work, item) for item in items[: 2 * workers]]
        try:
            for at in range(len(items)):
                future = ahead.pop(0)
                if at + 2 * workers < len(items):
                    ahead.append(pool.submit(work, items[at + 2 * workers]))
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
