"""The exceptions of the package; wrong arguments are plain ValueErrors that name the argument and its choices.

    NearfarError
     +-- AudioError (ValueError)        a recording cannot be used
     +-- BadInput (ValueError)          a value that was sent to the plant is wrong
     +-- ConfigError (ValueError)       a plant's configuration cannot be used
     +-- Conflict (ValueError)          a request contradicts the state of the plant
     +-- DamagedHistory (ValueError)    a plant's history cannot be read
     +-- DownloadError (OSError)        a file could not be fetched
     +-- MissingPlugin (ValueError)     a saved detector needs a plug-in that is not registered
     +-- NotFound (LookupError)         there is no such machine, event, recording or audit entry
     +-- StoreError (OSError)           the store of embeddings cannot be written
     +-- TryAgainError                  one attempt of a download failed and another may succeed; never leaves `support`

The second base class, in brackets, is the built-in class that a caller may catch instead. `code_of` gives the stable
code of any error, for programs; the message is for people and may change.
"""

from __future__ import annotations


class NearfarError(Exception):
    """Base class of the exceptions of this package; `code` names the kind of error for programs."""

    code = "failed"


class AudioError(NearfarError, ValueError):
    """A recording that cannot be used; the message names the file, what was found and the likely cause.

    `kind`, which is its code, is one of unreadable, disk, empty, too_short, too_long, nan, level, channel, rate.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = self.code = kind


class BadInput(NearfarError, ValueError):
    """A value that was sent to the plant and cannot be right; the message names it and the allowed values."""

    code = "invalid"


class ConfigError(NearfarError, ValueError):
    """A configuration that cannot be used; the message names the place and the allowed values."""

    code = "config"


class Conflict(NearfarError, ValueError):
    """A request that contradicts the state of the plant, such as a second verdict; the message says what to do."""

    code = "conflict"


class DamagedHistory(NearfarError, ValueError):
    """The database of a history cannot be read; the message names the command that saves what is readable."""

    code = "damaged_history"


class DownloadError(NearfarError, OSError):
    """A file that could not be fetched; the message names what was expected, the likely cause and what to do."""

    code = "download"


class MissingPlugin(NearfarError, ValueError):
    """A saved detector needs a plug-in that is not registered; the message names its import path and what to do."""

    code = "missing_plugin"


class NotFound(NearfarError, LookupError):
    """There is no machine, event, recording or audit entry of that name or number."""

    code = "not_found"


class StoreError(NearfarError, OSError):
    """The store cannot be written, mostly because the disk is full; what was written before is kept."""

    code = "store"


class TryAgainError(NearfarError):
    """A download attempt failed for a passing reason. `wait`: seconds to wait, as the server asked."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


CODES: tuple[tuple[type[BaseException], str], ...] = (  # of built-in errors, the first that fits
    (FileNotFoundError, "no_such_file"),
    (PermissionError, "not_allowed"),
    (FileExistsError, "exists"),
    (OSError, "disk"),
    (MemoryError, "memory"),
    (RecursionError, "nested"),
    (ImportError, "not_installed"),
    (ValueError, "invalid"),
)


def code_of(error: BaseException) -> str:
    """The stable code of an error: that of this package's own, else by its built-in class; "failed" for a fault."""
    if isinstance(error, NearfarError):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), "failed")
