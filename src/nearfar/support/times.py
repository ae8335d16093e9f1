"""Times in s since 1970 as dates; before 1970 too, which a recorder without a clock gives and Windows refuses."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def utc_time(seconds: float) -> datetime:
    """The time in UTC."""
    return EPOCH + timedelta(seconds=seconds)


def local_time(seconds: float) -> datetime:
    """The time in the zone of this computer, without the zone; in UTC where the system cannot tell."""
    try:
        return datetime.fromtimestamp(seconds)
    except OSError:
        return utc_time(seconds).replace(tzinfo=None)
