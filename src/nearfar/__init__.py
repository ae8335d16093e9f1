"""Detect when a machine sounds wrong, from recordings of it sounding right.

    import nearfar
    detector = nearfar.Detector().fit(["normal_01.wav", ...])
    detector.score(["today.wav"])

The public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.audio import Clip
    from nearfar.backend import register_backend
    from nearfar.detector import Detector, load
    from nearfar.encoders import register_encoder
    from nearfar.errors import AudioError, ConfigError, DamagedHistory, DownloadError, NearfarError, StoreError
    from nearfar.pooling import register_pooling
    from nearfar.recipe import Fusion, Recipe, Watch
    from nearfar.score import Score
    from nearfar.views import register_view

    __version__: str

_WHERE = {
    "AudioError": "errors",
    "Clip": "audio",
    "ConfigError": "errors",
    "DamagedHistory": "errors",
    "Detector": "detector",
    "DownloadError": "errors",
    "Fusion": "recipe",
    "NearfarError": "errors",
    "Recipe": "recipe",
    "Score": "score",
    "StoreError": "errors",
    "Watch": "recipe",
    "load": "detector",
    "register_backend": "backend",
    "register_encoder": "encoders",
    "register_pooling": "pooling",
    "register_view": "views",
}
__all__ = [
    "AudioError",
    "Clip",
    "ConfigError",
    "DamagedHistory",
    "Detector",
    "DownloadError",
    "Fusion",
    "NearfarError",
    "Recipe",
    "Score",
    "StoreError",
    "Watch",
    "__version__",
    "load",
    "register_backend",
    "register_encoder",
    "register_pooling",
    "register_view",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("nearfar")
    if name in _WHERE:
        return getattr(import_module(f"nearfar.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
