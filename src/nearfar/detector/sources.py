"""The `source` argument of a detector -> its recordings; a source is a path, a folder, or an iterable of either."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from nearfar.audio import Clip
from nearfar.audio.recordings import find, select_normals


def is_one_clip(source: Any) -> bool:
    """Whether `source` is one recording: a path, a `Clip`, or arrays with a rate."""
    if isinstance(source, (str, os.PathLike, Clip)):
        return True
    return isinstance(source, Sequence) and len(source) in (2, 3) and isinstance(source[-1], Real)


def recordings_in(source: Any) -> Iterable[Any]:
    """The recordings of a source, in order; a generator is not read ahead."""
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        return [recording.path for recording in find(source)]
    return [source] if is_one_clip(source) else source


def normals_in(source: Any) -> tuple[list[Any], list[bool] | None]:
    """The recordings of a source that can be fitted on, and their domains if it is a folder (True for target).

    A Python warning names what is left out of a folder.
    """
    if not isinstance(source, (str, os.PathLike)) or not Path(source).is_dir():
        return list(recordings_in(source)), None
    recordings, notes = select_normals(find(source))
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return [r.path for r in recordings], [bool(r.is_target) for r in recordings]
