"""Files -> clips: reading, windows, resampling; what is wrong with a recording; the recordings of a folder."""

from nearfar.audio.checks import INCOMPLETE, Problem, incomplete, problems
from nearfar.audio.clip import (
    CHANNELS,
    LONG_S,
    SHORTEST_S,
    WINDOW_S,
    Clip,
    Header,
    Limits,
    as_clip,
    count_windows,
    cut,
    header,
    read,
    resample,
    seconds,
    windows,
)

__all__ = [
    "CHANNELS",
    "INCOMPLETE",
    "LONG_S",
    "SHORTEST_S",
    "WINDOW_S",
    "Clip",
    "Header",
    "Limits",
    "Problem",
    "as_clip",
    "count_windows",
    "cut",
    "header",
    "incomplete",
    "problems",
    "read",
    "resample",
    "seconds",
    "windows",
]
