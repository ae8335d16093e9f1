"""Errors as answers. Every error has one body: {"code": word, "message": sentence, "status": number}.

PLANT_ERRORS     raised where they arise, in the plant: the status beside each
HttpError        raised by the server itself: any status
anything else    500, logged with the request (`limits.RequestGuard`)
"""

from __future__ import annotations

import math
from typing import Any

from nearfar.errors import AudioError, BadInput, Conflict, NotFound, code_of
from nearfar.live.language import reader, translated

COME_BACK_S = 5.0
DISK_S = 60.0


class HttpError(Exception):
    """An error with its HTTP status, a code for programs, a sentence for people, and when to try again."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer, in the language of its reader."""
        return {"code": self.code, "message": translated(self.message, reader.get()), "status": self.status}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the status."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def http_error(error: Exception) -> HttpError:
    """The answer to one of PLANT_ERRORS."""
    if isinstance(error, OSError):
        return HttpError(503, "disk", f"The server cannot read or write its disk: {error}", DISK_S)
    status = next(status for kind, status in PLANT_ERRORS.items() if isinstance(error, kind))
    return HttpError(status, code_of(error), str(error))


PLANT_ERRORS = {NotFound: 404, Conflict: 409, BadInput: 422, AudioError: 422, OSError: 503}
