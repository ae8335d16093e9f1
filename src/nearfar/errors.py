"""The exceptions of the package; wrong arguments are plain ValueErrors that name the argument and its choices.

    NearfarError
     +-- AudioError (ValueError)        a recording cannot be used
     +-- BadInput (ValueError)          a value that was sent to the plant is wrong
     +-- ConfigError (ValueError)       a plant's configuration cannot be used
     +-- Conflict (ValueError)          a request contradicts the state of the plant
     +-- DamagedHistory (ValueError)    a plant's history cannot be read
     +-- DownloadError (OSError)        a file could not be fetched
     +-- NotFound (LookupError)         there is no such machine, event, recording or audit entry
     +-- StoreError (OSError)           the store of embeddings cannot be written
     +-- TryAgainError                  one attempt of a download failed and another may succeed; never leaves `support`

The second base class, in brackets, is the built-in class that a caller may catch instead.
"""

from __future__ import annotations


class NearfarError(Exception):
    """Base class of the exceptions of this package."""


class AudioError(NearfarError, ValueError):
    """A recording that cannot be used; the message names the file, what was found and the likely cause.

    `kind` is one of unreadable, empty, too_short, too_long, nan, level, channel.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


class BadInput(NearfarError, ValueError):
    """A value that was sent to the plant and cannot be right; the message names it and the allowed values."""


class ConfigError(NearfarError, ValueError):
    """A configuration that cannot be used; the message names the place and the allowed values."""


class Conflict(NearfarError, ValueError):
    """A request that contradicts the state of the plant, such as a second verdict; the message says what to do."""


class DamagedHistory(NearfarError, ValueError):
    """The database of a history cannot be read; the message names the command that saves what is readable."""


class DownloadError(NearfarError, OSError):
    """A file that could not be fetched; the message names what was expected, the likely cause and what to do."""


class NotFound(NearfarError, LookupError):
    """There is no machine, event, recording or audit entry of that name or number."""


class StoreError(NearfarError, OSError):
    """The store cannot be written, mostly because the disk is full; what was written before is kept."""


class TryAgainError(NearfarError):
    """A download attempt failed for a passing reason. `wait`: seconds to wait, as the server asked."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait
