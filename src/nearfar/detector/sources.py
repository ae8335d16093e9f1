"""The `source` argument of a detector -> its recordings; a source is a path, a folder, or an iterable of either."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence, Sized
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.audio import Clip
from nearfar.audio.recordings import find, select_normals


def is_one_clip(source: Any) -> bool:
    """Whether `source` is one recording: a path, a `Clip`, or arrays with a rate."""
    if isinstance(source, (str, os.PathLike, Clip, np.ndarray)):
        return not (isinstance(source, np.ndarray) and source.dtype.kind in "OU")  # an array of paths
    if not (isinstance(source, Sequence) and len(source) in (2, 3)):
        return False
    last = source[-1]
    return isinstance(last, Real) or (isinstance(last, np.ndarray) and isinstance(source[0], np.ndarray))


def recordings_in(source: Any) -> Iterable[Any]:
    """The recordings of a source, in order; a folder stands for those in it, and a generator is not read ahead."""
    if is_one_clip(source):
        source = [source]
    if not isinstance(source, Iterable) or isinstance(source, bytes):
        takes = "a path, a folder, or an iterable of paths, Clips or (near, far, rate)"
        raise ValueError(f"recordings are {takes}, not {type(source).__name__}")
    each = (recording for item in source for recording in _inside(item))
    return list(each) if isinstance(source, Sized) else each


def _inside(item: Any) -> Iterable[Any]:
    """The recordings in a folder, or the recording itself."""
    if _is_folder(item):
        return [recording.path for recording in find(item)]
    return [item]


def _is_folder(item: Any) -> bool:
    """Whether the item is the path of a folder; ValueError for "", which would be the current one."""
    if isinstance(item, str) and not item:
        raise ValueError('recordings are in "", which names nothing: is a variable not set? The current folder is "."')
    return isinstance(item, (str, os.PathLike)) and Path(item).is_dir()


def normals_in(source: Any) -> tuple[list[Any], list[bool] | None]:
    """The recordings of a source that can be fitted on, and their domains if it is a folder (True for target).

    A Python warning names what is left out of a folder.
    """
    if not _is_folder(source):
        return list(recordings_in(source)), None
    recordings, notes = select_normals(find(source))
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return [r.path for r in recordings], [bool(r.is_target) for r in recordings]
