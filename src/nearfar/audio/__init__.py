"""Files -> clips: reading, windows, resampling; recordings of a folder; whether the microphones work."""

from nearfar.audio.clip import (
    INCOMPLETE,
    LONG_S,
    SHORTEST_S,
    WINDOW_S,
    Clip,
    Header,
    Problem,
    as_clip,
    count_windows,
    cut,
    header,
    incomplete,
    problems,
    read,
    resample,
    seconds,
    windows,
)
from nearfar.audio.extent import Limits

__all__ = [
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
