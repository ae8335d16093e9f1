"""What the API takes, beside recordings: who does something, and what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nearfar.live.api.shapes import Shape

Who = Annotated[str, Field(max_length=40, description="Who does it; noted in the audit.")]


class ByWhom(Shape):
    """Who does it."""

    who: Who = ""


class Feedback(ByWhom):
    """What an event was: "fine" adds its sound to the normals, "fault" notes a real fault."""

    verdict: Literal["fine", "fault"]


class Shelving(ByWhom):
    """For how long nothing is raised."""

    hours: Annotated[float, Field(gt=0, le=744)]


class NewSetPoint(ByWhom):
    """Another set-point: at most so many false alarms a week, or a value by hand; one of them."""

    false_alarms_per_week: Annotated[float | None, Field(gt=0, le=1e6)] = None
    value: Annotated[float | None, Field(ge=-1e6, le=1e6)] = None
