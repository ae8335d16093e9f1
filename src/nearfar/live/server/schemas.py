"""The JSON of the API: a class for each body that the server sends, and one for each that it accepts.

Many bodies show a record of another room, a dataclass: `Window.of(record)` takes the fields that both have. A class
lists them again, as its JSON is a promise that records are not.

Conventions: times are seconds since 1970 (UTC); beside them, a field that ends in `_iso` has the same as ISO 8601.
Scores are in standard deviations of the machine's normal recordings. Levels are in dB of full scale. Every field has
an example, which /openapi.json shows.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from nearfar.live.config import AlarmConfig
from nearfar.live.history.records import ScoreRecord, iso_time
from nearfar.live.language import reader, translated
from nearfar.live.setup.collection import Kind
from nearfar.live.sources.streams import hide
from nearfar.support.words import shown

Channel = Literal["near", "far"]
EventKind = Literal["alarm", "health", "trend", "unusual"]
Text = Annotated[  # for people: JSON has it in the language of the reader
    str, PlainSerializer(lambda text: translated(text, reader.get()), return_type=str, when_used="json")
]
Person = Annotated[  # a name, or "somebody at this computer", which is a text
    str,
    PlainSerializer(
        lambda who: translated(who, reader.get()) if who.startswith("somebody at ") else who,
        return_type=str,
        when_used="json",
    ),
]
Level = Annotated[float, BeforeValidator(lambda level: round(max(level, QUIETEST_DB), 1))]  # JSON has no infinity
FileName = Annotated[str, BeforeValidator(lambda file: shown(file.name) if isinstance(file, Path) else file or "")]
SourceName = Annotated[str, BeforeValidator(hide)]  # without passwords
QUIETEST_DB = -200.0
T0 = 1_790_000_000.0  # the time in the examples
SCORED = asdict(ScoreRecord("pump3", T0, T0 + 10, 1.2, 3.42, False, 0.1, (), "", -38.2, -44.0, False))
EXAMPLE_NOTE = (
    "of 1 of these, 1 would be an alarm (up to 24.1): a way to run that was not heard before, or another machine?"
)
WHERE = "Between 3.2 and 4.1 s near hears 14 dB more than usual between 2 and 3 kHz."
ISO = "2026-09-21T12:53:20.000+00:00"
SCORED |= {"t0_iso": ISO, "t1_iso": "2026-09-21T12:53:30.000+00:00"}
Body = TypeVar("Body", bound="Schema")


def _with_example(schema: dict[str, Any], model: type[Schema]) -> None:
    schema["example"] = model.example()


class Schema(BaseModel):
    """The base of all bodies: an unknown field is an error, and the example is made of those of the fields."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_with_example)

    @classmethod
    def of(cls: type[Body], record: object, **more: Any) -> Body:
        """The body that shows a record: its fields, `more` of them, and times `NAME` as `NAME_iso` too."""
        return cls(**cls._fields(record, more))

    @model_validator(mode="before")
    @classmethod
    def _of_record(cls, given: Any) -> Any:
        """A record inside a record becomes a body, too."""
        return cls._fields(given, {}) if is_dataclass(given) else given

    @classmethod
    def _fields(cls, record: object, more: dict[str, Any]) -> dict[str, Any]:
        for name in cls.model_fields.keys() - more.keys():
            base = name.removesuffix("_iso")
            value = getattr(record, base)
            more[name] = value if base == name or value is None else iso_time(value)
        return more

    @classmethod
    def example(cls) -> dict[str, Any]:
        """The first example of each field; a field without one is a schema, or a list of schemas, with its own."""
        found: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            kind: Any = field.annotation
            if field.examples:
                found[name] = field.examples[0]
            else:
                found[name] = [get_args(kind)[0].example()] if get_origin(kind) is list else kind.example()
        return found


class Job(Schema):
    """Work of `kind` doctor or fit. `state`: waiting, working, done, failed, cancelled or interrupted."""

    id: int = Field(examples=[1])
    kind: str = Field(examples=["fit"])
    machine: str = Field(examples=["pump4"])
    name: str = Field(examples=["Pump 4"])
    who: Person = Field(examples=["Anna"])
    state: str = Field(examples=["working"])
    done: int = Field(examples=[12])
    total: int | None = Field(examples=[40])
    what: Text = Field(examples=["listening to the normal recordings"])
    notes: list[Text] = Field(examples=[["Behind it: 40 recordings, of 3 sessions"]])


class Jobs(Schema):
    """The newest first."""

    jobs: list[Job]


class Taken(Schema):
    """A recording that was made: its file ("" if it was refused), levels of near and far in dB, what is wrong."""

    file: FileName = Field(examples=["2026-09-21_12-53-20.flac"])
    levels: list[Level] = Field(examples=[[-31.0, -44.5]])
    problems: list[Text] = Field(examples=[["near is too quiet (-74 dB of full scale): raise its gain"]])


class Session(Schema):
    """A use of the microphones. `state`: listening (levels alone), recording, ended or failed."""

    machine: str = Field(examples=["pump4"])
    state: str = Field(examples=["recording"])
    count: int = Field(examples=[20])
    taken: int = Field(examples=[3])
    levels: list[Level] = Field(examples=[[-31.0, -44.5]])
    last: Taken | None = Field(examples=[None])
    problem: Annotated[Text, BeforeValidator(hide)] = Field(examples=[""])


class Device(Schema):
    """A microphone of the server's computer: its name as a source, and what the system calls it."""

    source: str = Field(examples=["alsa:hw:1"])
    label: str = Field(examples=["UMC202HD"])


class Microphones(Schema):
    """The microphones of the server's computer, or why they cannot be listed."""

    devices: list[Device]
    problem: Text = Field(examples=[""])


class FileFindings(Schema):
    """What doctor says of a recording; `deaf`: with it among the normals the detector would not hear such a fault."""

    file: str = Field(examples=["monday_07.wav"])
    usable: bool = Field(examples=[True])
    deaf: bool = Field(examples=[False])
    texts: list[Text] = Field(examples=[["unlike the others, 8.2 standard deviations out"]])


class FileGroups(Schema):
    """Two groups of recordings that may not belong together, by `kind`: rate, channels, length or sound."""

    kind: str = Field(examples=["sound"])
    values: list[Text] = Field(examples=[["", ""]])
    files: list[list[str]] = Field(examples=[[["monday_07.wav"], ["friday_01.wav"]]])


class Findings(Schema):
    """What doctor found. `verdict`: ready, few, unusable, exchanged, deaf or groups; `stale`: they are others now."""

    recordings: int = Field(examples=[40])
    usable: int = Field(examples=[40])
    seconds: float = Field(examples=[400.0])
    verdict: str = Field(examples=["ready"])
    files: list[FileFindings]
    groups: list[FileGroups]
    notes: list[Text] = Field(examples=[[]])
    stale: bool = Field(examples=[False])


class Recording(Schema):
    """A recording of a collection; who threw it out, and who kept it although doctor named it, "" if nobody did."""

    file: str = Field(examples=["monday_07.wav"])
    session: str = Field(examples=["2026-03-01 14h"])
    left_out_by: Person = Field(examples=[""])
    kept_by: Person = Field(examples=[""])


class CollectionBrief(Schema):
    """The recordings of a machine that is set up: how many count, of how many sessions, and what is missing."""

    id: str = Field(examples=["pump4"])
    name: str = Field(examples=["Pump 4"])
    kind: Kind = Field(examples=["microphone"])
    source: list[SourceName] = Field(examples=[["alsa:hw:1"]])
    live: bool = Field(examples=[False])
    recordings: int = Field(examples=[12])
    sessions: int = Field(examples=[1])
    missing: Text = Field(examples=["Still missing: 8 more recordings and 2 more sessions, each on another day."])
    left_out: int = Field(examples=[0])


class Collection(CollectionBrief):
    """The recordings of a machine that is set up, and what is under way."""

    folder: str = Field(examples=["/home/anna/nearfar/recordings/pump4/normals"])
    mono: bool = Field(examples=[False])
    files: list[Recording]
    findings: Findings | None = Field(examples=[None])
    job: Job | None = Field(examples=[None])
    microphone: Session | None = Field(examples=[None])
    tested: bool = Field(examples=[False])


class Collections(Schema):
    """The machines that are set up. `possible`: this server can; `here`: its users may name its folders."""

    possible: bool = Field(examples=[True])
    here: bool = Field(examples=[True])
    collections: list[CollectionBrief]


class Error(Schema):
    """Every error: a code for programs, a sentence for people, and the HTTP status."""

    code: str = Field(examples=["not_found"])
    message: Text = Field(examples=["there is no machine 'pump9'; there are: pump3"])
    status: int = Field(examples=[404])


# ---- What the server sends ------------------------------------------------------------------------------------------


class ClipScore(Schema):
    """The score of a recording of up to 30 s, or of one window of a longer one.

    `anomalous` and `unusual` are null if the clip cannot be judged; `problem` then gives the reason. `unusual`: above
    `unusual_threshold`, so rare even for a session like those of the normal recordings; true for every alarm. `codes`
    are those of `problem` and `warnings`.
    """

    file: str = Field(examples=["0815.wav"])
    score: float = Field(examples=[7.31])
    threshold: float = Field(examples=[3.42])
    anomalous: bool | None = Field(examples=[True])
    unusual: bool | None = Field(examples=[True])
    unusual_threshold: float = Field(examples=[1.68])
    status: str = Field(examples=["ANOMALOUS"])
    p: float = Field(examples=[0.0012])
    triggered_by: tuple[str, ...] = Field(examples=[["steady"]])
    nearest: list[str] = Field(examples=[["normal_12.wav", "normal_03.wav", "normal_27.wav"]])
    problem: Text = Field(examples=[""])
    warnings: list[Text] = Field(examples=[[]])
    codes: list[str] = Field(examples=[[]])


class RecordingScore(ClipScore):
    """The score of the most unusual window of a recording, and those of all its windows."""

    machine: str = Field(examples=["pump3"])
    windows: list[ClipScore]


class Window(Schema):
    """The score of one window; `anomalous` is null where it cannot be judged, and `problem` says why.

    `unusual`: rare even for a session like those of the normal recordings; null, too, for windows of versions that did
    not know it.
    """

    machine: str = Field(examples=["pump3"])
    t0: float = Field(examples=[T0])
    t0_iso: str = Field(examples=[ISO])
    t1: float = Field(examples=[T0 + 10])
    t1_iso: str = Field(examples=["2026-09-21T12:53:30.000+00:00"])
    score: float = Field(examples=[1.2])
    threshold: float = Field(examples=[3.42])
    anomalous: bool | None = Field(examples=[False])
    p: float = Field(examples=[0.1])
    triggered_by: tuple[str, ...] = Field(examples=[[]])
    problem: Text = Field(examples=[""])
    level_near_dbfs: float | None = Field(examples=[-38.2])
    level_far_dbfs: float | None = Field(examples=[-44.0])
    unusual: bool | None = Field(examples=[False])
    file: str = Field(examples=["0815.wav"])


class Span(Schema):
    """Unusual windows in a row, in s from the start of their recording, and the highest score in them."""

    start_s: float = Field(examples=[2000.0])
    end_s: float = Field(examples=[2040.0])
    score: float = Field(examples=[14.4])
    windows: int = Field(examples=[4])


class HeardRecording(Schema):
    """A recording that a machine has heard, or a sample of a stream (`file` is ""): its highest score, its worst spans.

    `status`: normal, unusual, wrong or cannot judge. `expected`: windows that are unusual by chance. `playable`: its
    sound can be asked for.
    """

    file: str = Field(examples=["0815.wav"])
    t0: float = Field(examples=[T0])
    t0_iso: str = Field(examples=[ISO])
    t1: float = Field(examples=[T0 + 3600])
    score: float = Field(examples=[14.4])
    threshold: float = Field(examples=[3.42])
    worst_t0: float = Field(examples=[T0 + 2000])
    windows: int = Field(examples=[360])
    judged: int = Field(examples=[360])
    unusual: int = Field(examples=[25])
    anomalous: int = Field(examples=[4])
    expected: float = Field(examples=[18.0])
    status: str = Field(examples=["wrong"])
    problem: Text = Field(examples=[""])
    spans: list[Span]
    playable: bool = Field(examples=[True])


class HeardRecordings(Schema):
    """Recordings, the newest first; `next` is the address of older ones, null after the last."""

    recordings: list[HeardRecording]
    next: str | None = Field(examples=[None])


class SlowRise(Schema):
    """A plain slow rise of the healthy score: since how many hours, how steep, and when it reaches the set-point."""

    hours: int = Field(examples=[48])
    per_day: float = Field(examples=[0.6])
    alarm_at: float = Field(examples=[T0 + 300_000])
    alarm_at_iso: str = Field(examples=["2026-09-25T00:13:20.000+00:00"])
    text: Text = Field(examples=["the healthy score has been rising for 48 h"])


class MachineState(Schema):
    """A machine now. `state` is the alarm state of ISA-18.2, but instead of `normal` it is

    `no sound`, `waiting` before the first window, `ended` after the last of a file, `quiet` if a folder has had no
    new file for a day, `maintenance`, or `unusual`. `source` is `none`, `hearing`, `quiet`, `stale`, `ended` or
    `failed`. `score` is that of the newest `window`, null if it cannot be judged. `health` lists what is wrong with the
    microphones and the source. `unusual_stands`: more of the last windows are above `unusual_threshold` than a session
    that is known explains; `unusual_text` says how many, and `unusual_event_id` is the event.
    """

    id: str = Field(examples=["pump3"])
    name: str = Field(examples=["Pump 3"])
    site: str = Field(examples=["hall-2"])
    state: str = Field(examples=["normal"])
    source: str = Field(examples=["hearing"])
    score: float | None = Field(examples=[1.2])
    window: Window | None = Field(examples=[SCORED])
    last_heard: float | None = Field(examples=[T0 + 10])
    last_heard_iso: str | None = Field(examples=["2026-09-21T12:53:30.000+00:00"])
    health: list[Text] = Field(examples=[[]])
    shelved_until: float | None = Field(examples=[None])
    event_id: int | None = Field(examples=[None])
    unusual_stands: bool = Field(examples=[False])
    unusual_text: Text = Field(examples=[""])
    unusual_event_id: int | None = Field(examples=[None])
    unusual_threshold: float = Field(examples=[1.68])
    trend: SlowRise | None = Field(examples=[None])
    threshold: float = Field(examples=[3.42])
    false_alarms_per_week: float = Field(examples=[1.0])
    clip_seconds: float = Field(examples=[10.0])
    normals: int = Field(examples=[240])


class Machines(Schema):
    """All machines of this server."""

    machines: list[MachineState]


class Scores(Schema):
    """Windows of a machine, oldest first. Where there are too many, some are left out, but never an extreme.

    With `limit` none is left out, and `next` is the address of the following windows, null after the last.
    """

    machine: str = Field(examples=["pump3"])
    since: float = Field(examples=[T0])
    until: float = Field(examples=[T0 + 3600])
    scores: list[Window]
    next: str | None = Field(examples=[None])


class Day(Schema):
    """A UTC day: the median score of its windows that were judged normal, and their number."""

    start: float = Field(examples=[1_789_948_800.0])
    median: float = Field(examples=[0.05])
    windows: int = Field(examples=[17_020])


class Drift(Schema):
    """Whether the normal scores of a machine creep from week to week: the days compared, and advice in `text`."""

    creeping: bool = Field(examples=[False])
    text: Text = Field(examples=["No trend: the median normal score was +0.02 and is +0.05."])
    days: list[Day]


class Domain(Schema):
    """How many normal recordings a domain has."""

    name: str = Field(examples=["source"])
    normals: int = Field(examples=[230])


class Price(Schema):
    """What a set-point means for what was heard: of the `alarms` of the last week `kept` would be raised, and `added`
    others; of the confirmed `faults` of all time `heard` would alarm."""

    value: float = Field(examples=[3.42])
    alarms: int = Field(examples=[59])
    kept: int = Field(examples=[4])
    added: int = Field(examples=[0])
    faults: int = Field(examples=[3])
    heard: int = Field(examples=[3])
    text: Text = Field(examples=["of your 59 alarms of last week 4 would alarm; of 3 confirmed faults 3 would"])


class SetPoint(Schema):
    """The score above which there is an alarm, the expected false alarms, and both in words (`promise`).

    `rate` is the share of healthy clips expected above it, `occasions_per_day` the number of clips a day, as the
    history of the machine shows (`rhythm`). `beyond_normals`: the normal recordings cannot show so few false alarms;
    the fewest are `lowest_per_week`, with the set-point `lowest_value`. `times_loudest` is the set-point as a multiple
    of the highest score of a normal recording. `unusual_value` is the score above which a recording is unusual, and
    `unusual_promise` says how many are. `price` is given where the set-point changes.
    """

    value: float = Field(examples=[3.42])
    method: str = Field(examples=["conformal"])
    rate: float = Field(examples=[1.7e-5])
    false_alarms_per_week: float = Field(examples=[1.0])
    independent_per_week: float = Field(examples=[1.9e-9])
    occasions_per_day: float = Field(examples=[8640.0])
    rhythm: Text = Field(examples=["8,640 clips of 10 s a day, if it is heard all day"])
    beyond_normals: bool = Field(examples=[True])
    times_loudest: float | None = Field(examples=[2.1])
    lowest_value: float = Field(examples=[2.4])
    lowest_per_week: float = Field(examples=[251.0])
    promise: list[Text] = Field(examples=[["alarm when 3 windows in a row each score above 3.4"]])
    unusual_value: float = Field(examples=[1.68])
    unusual_promise: Text = Field(examples=["unusual above 1.68: about 5 of 100 healthy recordings"])
    price: Price | None = Field(examples=[None])


class CurvePoint(Schema):
    """A set-point and the false alarms that it is expected to cause."""

    value: float = Field(examples=[3.42])
    false_alarms_per_week: float = Field(examples=[1.0])


class OddNormal(Schema):
    """One of the normal recordings that are most unlike the others; `index` is its position among the normals."""

    index: int = Field(examples=[17])
    name: str = Field(examples=["normal_17.wav"])
    score: float = Field(examples=[2.9])
    playable: bool = Field(examples=[True])
    channels: list[Channel] = Field(examples=[["near", "far"]])


class Normal(Schema):
    """A normal recording of a model; `key` names it in requests, and `score` is its own, without its relatives."""

    key: str = Field(examples=["0f343b093155-0"])
    index: int = Field(examples=[17])
    name: str = Field(examples=["normal_17.wav"])
    session: str = Field(examples=["2026-03-01 14h"])
    domain: str = Field(examples=["source"])
    seconds: float = Field(examples=[10.0])
    score: float = Field(examples=[0.4])
    unlike: bool = Field(examples=[False])
    playable: bool = Field(examples=[True])


class Normals(Schema):
    """The normal recordings of a model, the most unusual first; `total` is how many there are."""

    normals: list[Normal]
    channels: list[Channel] = Field(examples=[["near", "far"]])
    total: int = Field(examples=[240])


class AuditEntry(Schema):
    """One action of a person. `can_undo` is true for the newest change of a model; `note` is a warning about it."""

    id: int = Field(examples=[12])
    at: float = Field(examples=[T0 + 300])
    at_iso: str = Field(examples=[ISO])
    who: Person = Field(examples=["Anna"])
    machine: str = Field(examples=["pump3"])
    action: str = Field(examples=["fine"])
    text: Text = Field(examples=["2 recordings"])
    event_id: int | None = Field(examples=[7])
    note: Text = Field(examples=[""])
    can_undo: bool = Field(examples=[True])


class Audits(Schema):
    """Audit entries, newest first; `next` is the address of older ones, null after the last."""

    audit: list[AuditEntry]
    next: str | None = Field(examples=["/v1/audit?before_id=12"])


class Model(Schema):
    """The model of a machine: its normal recordings and its set-point.

    `backing` says how many recordings and sessions stand behind it, `remarks` what is doubtful about them;
    `backed_per_week` is the smallest rate of false alarms that the normal recordings can confirm.
    """

    id: str = Field(examples=["pump3"])
    name: str = Field(examples=["Pump 3"])
    normals: int = Field(examples=[240])
    minutes: float = Field(examples=[40.0])
    domains: list[Domain]
    near: int = Field(examples=[0])
    far: int | None = Field(examples=[1])
    clip_seconds: float = Field(examples=[10.0])
    why: Text = Field(examples=["the far microphone explains most of the room, so it is taken out of near"])
    backing: Text = Field(examples=["240 recordings, of 6 sessions"])
    remarks: list[Text] = Field(examples=[[]])
    card: Text = Field(examples=["# What this detector is"])
    set_point: SetPoint
    curve: list[CurvePoint]
    backed_per_week: float = Field(examples=[167.0])
    odd_ones_out: list[OddNormal]
    gain_db: int = Field(examples=[18])
    audit: list[AuditEntry]


class Event(Schema):
    """An alarm, a problem with a microphone, a slow rise, or a time of unusual windows.

    `ended` is null until it is over. `threshold` is the set-point of the alarm, or of unusual windows.

    `url` is its page, "" if the server does not know its own address. `interrupted`: the server stopped while it
    stood, so `ended` is the end of the last window before that. `on_top_of` is the alarm that stood already when
    this one was raised anew.
    """

    id: int = Field(examples=[7])
    machine: str = Field(examples=["pump3"])
    name: str = Field(examples=["Pump 3"])
    kind: EventKind = Field(examples=["alarm"])
    url: str = Field(examples=["https://plant.example/hall2/event/7"])
    started: float = Field(examples=[T0])
    started_iso: str = Field(examples=[ISO])
    ended: float | None = Field(examples=[T0 + 90])
    ended_iso: str | None = Field(examples=["2026-09-21T12:54:50.000+00:00"])
    peak_score: float = Field(examples=[7.3])
    peak_t0: float = Field(examples=[T0 + 20])
    threshold: float = Field(examples=[3.42])
    triggered_by: tuple[str, ...] = Field(examples=[["steady"]])
    text: Text = Field(examples=["sounds unlike its normals, noticed in its steady sound"])
    has_audio: bool = Field(examples=[True])
    file: str = Field(examples=["0815.wav"])
    label: str = Field(description="What people call it.", examples=["bearing, first signs"])
    acknowledged: float | None = Field(examples=[T0 + 200])
    acknowledged_iso: str | None = Field(examples=["2026-09-21T12:56:40.000+00:00"])
    acknowledged_by: Person = Field(examples=["Anna"])
    verdict: Literal["", "fine", "fault"] = Field(examples=["fine"])
    verdict_by: Person = Field(examples=["Anna"])
    interrupted: bool = Field(examples=[False])
    on_top_of: int | None = Field(examples=[None])
    audit: list[AuditEntry]


class Events(Schema):
    """Events, newest first; `next` is the address of older ones, null after the last."""

    events: list[Event]
    next: str | None = Field(examples=["/v1/events?machine=pump3&before_id=7"])


class Neighbour(Schema):
    """A similar normal recording; `playable` if its file still exists, with `gain_db` as loud as the recording."""

    name: str = Field(examples=["normal_12.wav"])
    distance: float = Field(examples=[0.31])
    playable: bool = Field(examples=[True])
    gain_db: int = Field(examples=[19])


class Explanation(Schema):
    """Where and why a recording differs from the normals, in words and numbers. Times count from its start."""

    machine: str = Field(examples=["pump3"])
    file: str = Field(examples=["0815.wav"])
    score: float = Field(examples=[7.31])
    threshold: float = Field(examples=[3.42])
    anomalous: bool | None = Field(examples=[True])
    unusual: bool | None = Field(examples=[True])
    p: float = Field(examples=[0.0012])
    what: Text = Field(examples=[WHERE])
    sentence: Text = Field(examples=[f"{WHERE} Most similar: normal_12.wav."])
    lines: list[Text] = Field(
        examples=[["It is at the machine and hardly at the far microphone (+14 dB near, +1 dB far)."]]
    )
    clear: bool = Field(examples=[True])
    throughout: bool = Field(examples=[False])
    start_s: float = Field(examples=[3.2])
    end_s: float = Field(examples=[4.1])
    low_hz: float = Field(examples=[2000.0])
    high_hz: float = Field(examples=[3000.0])
    change_db: float = Field(examples=[14.0])
    microphone: str = Field(examples=["near"])
    problem: Text = Field(examples=[""])
    warnings: list[Text] = Field(examples=[[]])
    nearest: list[Neighbour]
    channels: list[Channel] = Field(examples=[["near", "far"]])
    gain_db: int = Field(examples=[18])


class NextReport(Schema):
    """When the next report comes by itself, of which span and machines ([] are all), and to which channels and folder.

    `set_here`: it was set by the API, and can be changed there; else it stands in plant.toml.
    """

    next: float = Field(examples=[T0])
    span: Literal["day", "week"] = Field(examples=["week"])
    on: str = Field(examples=["Mon"])
    at: str = Field(examples=["07:00"])
    machines: list[str] = Field(examples=[[]])
    format: Literal["html", "xlsx"] = Field(examples=["html"])
    to: list[str] = Field(examples=[["shift", "/srv/reports"]])
    set_here: bool = Field(examples=[True])


class ServerHealth(Schema):
    """The server and its microphones."""

    version: str = Field(examples=["0.1.0"])
    started: float = Field(examples=[T0])
    problems: list[Text] = Field(examples=[[]])
    machines: list[MachineState]
    windows: int = Field(examples=[17_280])
    dropped: int = Field(examples=[0])
    history_bytes: int = Field(examples=[48_000_000])
    free_bytes: int = Field(examples=[90_000_000_000])
    uploads_now: int = Field(examples=[0])
    decoders_replaced: int = Field(examples=[0])
    listeners: int = Field(examples=[2])
    report: NextReport | None = Field(examples=[None])


class Ready(Schema):
    """Whether the process is alive, or ready; nothing more is given without a token."""

    status: str = Field(examples=["ok"])


class Done(Schema):
    """What was done, in a sentence, and the id of its audit entry; `note` is a warning about it."""

    message: Text = Field(examples=["Added to the normals of Pump 3: 2 recordings. It can be taken back."])
    audit_id: int = Field(examples=[12])
    note: Text = Field(default="", examples=[""])


class Added(Done):
    """The recordings that were added to the normals; `note` warns if they sound unlike this machine."""

    added: int = Field(examples=[1])
    normals: int = Field(examples=[241])
    message: Text = Field(examples=["1 recording added to the normals of Pump 3."])
    note: Text = Field(default="", examples=[EXAMPLE_NOTE])


class PeopleChannel(Schema):
    """A channel to people: what it is told (`machines` [] are all), and why messages do not get through, or "".

    `attaches`: alarms bring a picture and sound. `quiet_until`: messages wait until then, null if they do not. `added`:
    here and not in plant.toml, so that it can be changed.
    """

    name: str = Field(examples=["shift"])
    service: str = Field(examples=["ntfy"])
    attaches: bool = Field(examples=[True])
    machines: list[str] = Field(examples=[["pump3"]])
    events: list[str] = Field(examples=[["alarm", "health"]])
    quiet: list[str] = Field(examples=[["22:00-06:00"]])
    quiet_until: float | None = Field(examples=[None])
    problem: Text = Field(examples=[""])
    dropped: int = Field(examples=[0])
    added: bool = Field(examples=[False])


class Channels(Schema):
    """All channels to people."""

    channels: list[PeopleChannel]


class Tested(Schema):
    """Whether a test message was taken, and a sentence about it."""

    ok: bool = Field(examples=[True])
    message: Text = Field(examples=["ntfy took the message. Has it arrived?"])


class Maintenance(Schema):
    """A time in which machines ([] are all) are not judged, every week or once; id 0: it stands in plant.toml."""

    id: int = Field(examples=[1])
    when: str = Field(examples=["Sun 06:00-10:00"])
    machines: list[str] = Field(examples=[["pump3"]])
    why: str = Field(examples=["cleaning"])


class Note(Schema):
    """What somebody wrote on the time line of a machine; of an event it is what people call it."""

    id: int = Field(examples=[14])
    at: float = Field(examples=[T0])
    at_iso: str = Field(examples=[ISO])
    text: str = Field(examples=["bearing changed"])
    who: Person = Field(examples=["Anna"])
    event: int | None = Field(examples=[None])


class Notes(Schema):
    """The notes of a machine in the time asked for, the last written first."""

    notes: list[Note]


class MaintenanceList(Schema):
    """All times of maintenance."""

    maintenance: list[Maintenance]


# ---- What the server accepts, beside recordings ---------------------------------------------------------------------

Who = Annotated[str, Field(max_length=40, description="Who does it; kept in the audit.", examples=["Anna"])]


class ByWhom(Schema):
    """Who does it."""

    model_config = ConfigDict(strict=True)  # true is no number, and neither is "3"

    who: Who = ""


class Feedback(ByWhom):
    """What an event was: "fine" adds its sound to the normals, "fault" records a real fault."""

    verdict: Literal["fine", "fault"] = Field(examples=["fine"])
    fault: str = Field(default="", max_length=60, description="The kind of a fault.", examples=["bearing"])
    said: str = Field(default="", max_length=500, description="A remark.", examples=["screeches when cold"])


class NormalsChange(ByWhom):
    """What becomes of normal recordings, named by their keys: taken out, or of another session."""

    keys: list[str] = Field(min_length=1, max_length=10_000, examples=[["0f343b093155-0"]])
    remove: bool = Field(default=False, examples=[False])
    session: str | None = Field(default=None, max_length=60, examples=["Monday, full load"])


class Shelving(ByWhom):
    """How long no alarm is raised."""

    hours: float = Field(gt=0, le=744, examples=[8])


class NewSetPoint(ByWhom):
    """Another set-point: the most false alarms a week, or the score itself; give one of the two.

    With `dry_run` nothing changes: the answer says what the set-point would be, and its price.
    """

    false_alarms_per_week: float | None = Field(default=None, gt=0, le=1e6, examples=[0.5])
    value: float | None = Field(default=None, ge=-1e6, le=1e6, examples=[None])
    dry_run: bool = Field(default=False, examples=[False])


class NewCollection(ByWhom):
    """A machine that is to be set up."""

    id: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", examples=["pump4"])
    name: str = Field(default="", max_length=100, examples=["Pump 4"])


class CollectionChange(ByWhom):
    """What changes: where the recordings come from, or what `files` are: kept or thrown out, or of a session."""

    name: str | None = Field(default=None, min_length=1, max_length=100, examples=["Pump 4"])
    kind: Kind | None = Field(default=None, examples=["microphone"])
    source: list[str] | None = Field(default=None, max_length=2, examples=[["alsa:hw:1"]])
    folder: str | None = Field(default=None, max_length=4096, examples=[None])
    mono: bool | None = Field(default=None, examples=[False])
    files: list[str] | None = Field(default=None, max_length=10_000, examples=[["monday_07.wav"]])
    keep: bool | None = Field(default=None, examples=[False])
    session: str | None = Field(default=None, max_length=60, examples=[None])


class UseMicrophone(Schema):
    """Levels alone, a test, or `count` recordings of `seconds`, one per `every_s`."""

    what: Literal["levels", "test", "record"] = Field(examples=["record"])
    seconds: float = Field(default=10.0, ge=1, le=600, examples=[10.0])
    count: int = Field(default=20, ge=1, le=1000, examples=[20])
    every_s: float = Field(default=0.0, ge=0, le=86_400, examples=[0.0])


class NewMaintenance(ByWhom):
    """A time in which machines ([] are all) are not judged: `Sun 06:00-10:00`, `22:00-06:00`, `Sat-Sun`, or once as

    `2026-12-24T06:00/2026-12-26T18:00`; in the time zone of the server.
    """

    when: str = Field(min_length=1, max_length=100, examples=["2026-12-24T06:00/2026-12-26T18:00"])
    machines: list[str] = Field(default_factory=list, max_length=1000, examples=[["pump3"]])
    why: str = Field(default="", max_length=200, examples=["bearing change"])


class NewNote(ByWhom):
    """A note, at the present time unless `at` says another."""

    text: str = Field(min_length=1, max_length=200, examples=["bearing changed"])
    at: float | None = Field(default=None, ge=0, le=1e11, examples=[T0])


class NewText(ByWhom):
    """Another text of a note, or the name of an event; "" deletes it."""

    text: str = Field(max_length=200, examples=["bearing changed, outer ring"])


class NewChannel(ByWhom):
    """A channel to people, as its table [notify.NAME] in plant.toml."""

    url: str = Field(min_length=1, max_length=2000, examples=["ntfy://ntfy.sh/north-hall-7f3a"])
    machines: list[str] = Field(default_factory=list, max_length=1000, examples=[["pump3"]])
    events: list[EventKind] = Field(default=["alarm", "health"], examples=[["alarm", "health"]])
    over: bool = Field(default=True, examples=[True])
    quiet: list[str] = Field(default_factory=list, max_length=20, examples=[["22:00-06:00"]])
    sound: bool = Field(default=True, examples=[True])


class NewReport(ByWhom):
    """The report that comes by itself, as the table [report] in plant.toml; to channels, not to a folder."""

    every: Literal["day", "week"] = Field(default="week", examples=["week"])
    on: str = Field(default="Mon", max_length=3, description="The day of one that comes every week.", examples=["Mon"])
    at: str = Field(default="07:00", max_length=5, examples=["07:00"])
    machines: list[str] = Field(default_factory=list, max_length=1000, examples=[["pump3"]])
    channels: list[str] = Field(min_length=1, max_length=100, examples=[["shift"]])
    format: Literal["html", "xlsx"] = Field(default="html", examples=["html"])


class NewMachine(ByWhom):
    """A machine, as its table in plant.toml. `source` is `mic` or a URL, two of them for near and far, or none."""

    model: str = Field(min_length=1, max_length=4096, examples=["/var/lib/nearfar/models/pump3"])
    source: list[str] = Field(default_factory=list, max_length=2, examples=[["rtsp://10.0.0.7/audio"]])
    name: str = Field(default="", max_length=100, examples=["Pump 3"])
    rate: int | None = Field(default=None, ge=1, examples=[None])
    hop_s: float | None = Field(default=None, gt=0, examples=[None])
    silence_s: float | None = Field(default=None, gt=0, examples=[None])
    format: str = Field(default="f32le", examples=["f32le"])
    channels: int = Field(default=2, ge=1, le=2, examples=[2])
    alarm: AlarmConfig = Field(default=AlarmConfig(), examples=[{"false_alarms_per_week": 1.0, "on_delay": 3}])

    def table(self) -> dict[str, Any]:
        """The table of plant.toml."""
        return self.model_dump(exclude={"who"})
