"""nearfar hears when a machine sounds wrong, having only ever heard it sound right.

    import nearfar
    detector = nearfar.Detector().fit(["normal_01.wav", ...])
    detector.score(["today.wav"])

The public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.audio import AudioError, Clip
    from nearfar.detector import Detector, load
    from nearfar.recipe import Fusion, Recipe, Watch
    from nearfar.score import Score

__version__ = "0.1.0"
_WHERE = {
    "AudioError": "audio",
    "Clip": "audio",
    "Detector": "detector",
    "Fusion": "recipe",
    "Recipe": "recipe",
    "Score": "score",
    "Watch": "recipe",
    "load": "detector",
}
__all__ = ["AudioError", "Clip", "Detector", "Fusion", "Recipe", "Score", "Watch", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"nearfar.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
