"""What the API gives: a class for each shape, errors among them; `Scored` is the row. What it takes is in `asks`.

Times are seconds since 1970 (UTC), scores standard deviations of the normals, levels dB of full scale.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nearfar.live.records import Scored
from nearfar.live.server.examples import EXAMPLES

Channel = Literal["near", "far"]


def _example(schema: dict[str, Any], shape: type[BaseModel]) -> None:
    schema["example"] = EXAMPLES[shape.__name__]


class Shape(BaseModel):
    """What all have in common: fields that are not known are errors, and the schema shows an example."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_example)


class Error(Shape):
    """Every error, whatever the call: a code for programs, a sentence for people, and the status once more."""

    error: str
    message: str
    status: int


class Window(Shape):
    """The score of one window. `anomalous` is null where it cannot be judged, and `problem` says why."""

    file: str
    score: float
    threshold: float
    anomalous: bool | None
    status: str
    p: float
    heard: str
    nearest: list[str]
    problem: str
    warnings: list[str]


class ScoreAnswer(Window):
    """The most unusual window of a recording, and all of them; one window if it is no longer than 30 s."""

    machine: str
    windows: list[Window]


class MachineState(Shape):
    """How a machine is now. `state` is the alarm's (ISA-18.2), or `no sound` or `waiting`: never normal unheard.

    `health` says what is wrong with its microphones.
    """

    id: str
    name: str
    site: str
    state: str
    score: Scored | None
    last_heard: float | None
    health: list[str]
    shelved_until: float | None
    event_id: int | None
    threshold: float
    false_alarms_per_week: float
    clip_seconds: float
    normals: int


class Machines(Shape):
    """All machines of this server."""

    machines: list[MachineState]


class Scores(Shape):
    """Windows of a machine, oldest first, thinned so that every extreme stays."""

    machine: str
    since: float
    until: float
    scores: list[Scored]


class Day(Shape):
    """The median score of the windows of a UTC day that were judged normal."""

    start: float
    median: float
    windows: int


class Drift(Shape):
    """Is the machine, or what is around it, changing slowly? Days that count, and what to do in a sentence."""

    creeping: bool
    text: str
    days: list[Day]


class Domain(Shape):
    """How many normals of a domain there are."""

    name: str
    normals: int


class SetPoint(Shape):
    """Alarm above `value`; a healthy machine is expected to alarm at most so often. `promise`: all that in words."""

    value: float
    method: str
    false_alarms_per_week: float
    independent_per_week: float
    promise: list[str]


class CurvePoint(Shape):
    """What a set-point is expected to cost."""

    value: float
    false_alarms_per_week: float


class OddOne(Shape):
    """A normal that is unlike the others; `index` is its place among them."""

    index: int
    name: str
    score: float
    playable: bool
    channels: list[Channel]


class AuditEntry(Shape):
    """Who did what. `can_undo`: it is the newest change of the model that stands; `note`: what to think about."""

    id: int
    at: float
    who: str
    machine: str
    action: str
    text: str
    event_id: int | None
    note: str
    can_undo: bool


class Audits(Shape):
    """Audit entries, newest first."""

    audit: list[AuditEntry]


class Model(Shape):
    """What a machine's model was fitted on, and its set-point; `backed_per_week` is the rarest the normals can show."""

    id: str
    name: str
    normals: int
    minutes: float
    domains: list[Domain]
    near: int
    far: int | None
    clip_seconds: float
    why: str
    card: str
    set_point: SetPoint
    curve: list[CurvePoint]
    backed_per_week: float
    odd_ones_out: list[OddOne]
    gain_db: int
    audit: list[AuditEntry]


class Event(Shape):
    """An alarm or trouble with a microphone; `ended` is null while it stands, `verdict` what people said it was."""

    id: int
    machine: str
    name: str
    kind: Literal["alarm", "health"]
    started: float
    ended: float | None
    peak_value: float
    peak_t0: float
    threshold: float
    heard: str
    text: str
    has_audio: bool
    acknowledged: float | None
    acknowledged_by: str
    verdict: Literal["", "fine", "fault"]
    verdict_by: str
    audit: list[AuditEntry]


class Events(Shape):
    """Events, newest first; for more, ask again with `before_id` = the last one's id."""

    events: list[Event]


class Neighbour(Shape):
    """A normal recording to play beside; `playable` if it is still on disk."""

    name: str
    distance: float
    playable: bool


class Explanation(Shape):
    """Where and why a recording differs: in words (`what`, `lines`), and as numbers. Times are from its start."""

    machine: str
    file: str
    value: float
    threshold: float
    anomalous: bool | None
    p: float
    what: str
    sentence: str
    lines: list[str]
    clear: bool
    throughout: bool
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
    change_db: float
    microphone: str
    problem: str
    warnings: list[str]
    nearest: list[Neighbour]
    channels: list[Channel]
    gain_db: int


class ServerHealth(Shape):
    """The server and its microphones."""

    version: str
    started: float
    problems: list[str]
    machines: list[MachineState]
    windows: int
    dropped: int
    history_bytes: int
    free_bytes: int
    uploads_now: int
    decoders_replaced: int
    listeners: int


class Ready(Shape):
    """Alive, or ready: nothing more is said without a token."""

    status: str


class Added(Shape):
    """What went into the normals; `note` if it sounds unlike this machine."""

    added: int
    normals: int
    audit_id: int
    message: str
    note: str


class Done(Shape):
    """What was done, in a sentence, with the number of its audit entry; `note` is what to think about."""

    message: str
    audit_id: int
    note: str = ""


# What the API takes, beside recordings: who does something, and what.

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
