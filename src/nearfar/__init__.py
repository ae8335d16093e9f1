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
    from nearfar.audio import Clip as Clip
    from nearfar.backend import register_backend as register_backend
    from nearfar.detector import Detector as Detector
    from nearfar.detector import load as load
    from nearfar.encoders import register_encoder as register_encoder
    from nearfar.errors import AudioError as AudioError
    from nearfar.errors import ConfigError as ConfigError
    from nearfar.errors import DamagedHistory as DamagedHistory
    from nearfar.errors import DownloadError as DownloadError
    from nearfar.errors import NearfarError as NearfarError
    from nearfar.errors import StoreError as StoreError
    from nearfar.pooling import register_pooling as register_pooling
    from nearfar.recipe import Fusion as Fusion
    from nearfar.recipe import Recipe as Recipe
    from nearfar.recipe import Watch as Watch
    from nearfar.score import Score as Score
    from nearfar.views import register_view as register_view

    __version__: str

_MODULES = {
    "audio": ["Clip"],
    "backend": ["register_backend"],
    "detector": ["Detector", "load"],
    "encoders": ["register_encoder"],
    "errors": ["AudioError", "ConfigError", "DamagedHistory", "DownloadError", "NearfarError", "StoreError"],
    "pooling": ["register_pooling"],
    "recipe": ["Fusion", "Recipe", "Watch"],
    "score": ["Score"],
    "views": ["register_view"],
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("nearfar")
    if name in _WHERE:
        return getattr(import_module(f"nearfar.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
