"""Parameters that several routes share: times, numbers of events and audit entries, names of machines."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

from fastapi import Path, Query
from pydantic import BeforeValidator, WithJsonSchema


def _seconds(value: object) -> object:
    """A time of a query: seconds since 1970, or ISO 8601, UTC unless it says otherwise."""
    if not isinstance(value, str) or "-" not in value[1:]:
        return value
    try:
        at = datetime.fromisoformat(value.replace(" ", "+").replace("Z", "+00:00"))
    except ValueError:
        return value  # which is no number either
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()


TIME_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]}
Time = Annotated[
    float | None,
    BeforeValidator(_seconds),
    WithJsonSchema(TIME_SCHEMA),
    Query(ge=0, le=1e11, description="Seconds since 1970 (UTC), or ISO 8601."),
]
Id = Annotated[int, Path(ge=1, le=2**53)]
Before = Annotated[int | None, Query(ge=1, le=2**53, description="Only entries older than this id.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Name = Annotated[str | None, Query(max_length=100)]
