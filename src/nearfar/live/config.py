"""The configuration of a plant: a TOML file with its machines, its history and its sinks.

    site = "north"

    [history]
    folder = "/var/lib/nearfar"

    [machines.pump]
    model = "/var/lib/nearfar/models/pump3"
    source = "rtsp://camera:${CAMERA_PASSWORD}@10.0.0.7/stream"      # or a folder, "mic", ["near", "far"]

    [machines.pump.alarm]
    false_alarms_per_week = 1

    [mqtt]
    host = "broker.plant"
    password_file = "/etc/nearfar/mqtt-password"

`${NAME}` in a string is replaced by the environment variable NAME, so that secrets can stay out of the file; passwords
of sinks are read from files of their own. No message shows a secret. Relative paths start at the folder of the file.
Every mistake is a `ConfigError` that names file, line, key, the value as written and what was expected.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from nearfar.encoders.table import DEVICE
from nearfar.errors import ConfigError
from nearfar.live.calendar import DAYS, Span
from nearfar.live.history.records import ALARM, HEALTH_EVENT, KINDS
from nearfar.live.language import ENGLISH, languages
from nearfar.live.sinks.webhook import hook_url
from nearfar.live.sources.streams import FORMATS
from nearfar.support.check import one_of
from nearfar.support.files import expanded

try:
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        ValidationError,
        ValidationInfo,
        model_validator,
    )
    from pydantic_core import PydanticCustomError
except ImportError:
    raise ImportError('this needs pydantic, an extra: pip install "nearfar[live]"') from None
if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

VARIABLE = re.compile(r"\$\{(\w+)\}")
EXPECTED = {  # by pydantic's name of an error; its context fills the braces
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "is_instance_of": "must be a path in quotes",
    "tuple_type": "must be a text in quotes, or a list of such texts",
    "model_type": "must be a table",
    "dict_type": "must be tables, such as [machines.pump]",
    "finite_number": "must be a finite number",
    "string_too_short": "must be a name or an address",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than_equal": "must be <= {le:g}",
    "literal_error": "must be {expected}",
}


def _path(value: Any, info: ValidationInfo) -> Any:
    """A string as a path; in a file, a relative path starts at the folder of the file."""
    if isinstance(value, str):
        return (info.context or Path()) / expanded(value)
    return value


def _weights(value: Any, info: ValidationInfo) -> Any:
    """A path, or a path for each encoder by its name."""
    if isinstance(value, Mapping):
        return {name: _weights(file, info) for name, file in value.items()}
    path = _path(value, info)
    if not isinstance(path, Path | None):
        raise PydanticCustomError("is_instance_of", "no path")
    return path


def _strings(value: Any) -> Any:
    """A string, or a list of strings, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _sources(value: Any, info: ValidationInfo) -> Any:
    """A source, or a list of sources, as a tuple; a relative path that exists starts at the folder of the file."""
    values, folder = _strings(value), info.context
    if folder is None or not isinstance(values, tuple):
        return values
    return tuple(str(folder / s) if isinstance(s, str) and (folder / s).exists() else s for s in values)


def _matching(pattern: str, expected: str) -> AfterValidator:
    """The check that a text matches a pattern as a whole; else the message says what was `expected`."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("pattern", "{expected}", {"expected": expected})
        return value

    return AfterValidator(check)


Topic = Annotated[
    str, _matching(r"[^/+#\0](?:[^+#\0]*[^/+#\0])?", "must be a topic without + and #, and without / at its ends")
]
NetworkDevice = Annotated[str, _matching(DEVICE.pattern, "must be cpu, cuda or cuda:N")]
Url = Annotated[
    str, _matching(r"https?://.*", "must be the address of the dashboard, such as https://plant.example/hall2")
]
Endpoint = Annotated[str, _matching(r"opc\.tcp://.*", "must be opc.tcp://HOST:PORT/")]
Hour = Annotated[str, _matching(r"([01]\d|2[0-3]):[0-5]\d", "must be an hour such as 07:00")]
When = Annotated[str, AfterValidator(lambda value: Span.parse(value).text)]
EventKind = Annotated[str, AfterValidator(lambda value: one_of("kind of event", value, KINDS))]
Texts = Annotated[tuple[str, ...], BeforeValidator(_strings)]
FilePath = Annotated[Path, BeforeValidator(_path)]
SampleFormat = Annotated[str, AfterValidator(lambda value: one_of("sample format", value, FORMATS))]
Port = Annotated[int, Field(ge=0, le=65_535)]


class ConfigTable(BaseModel):
    """The base of all tables: types are strict, and an unknown key is an error that lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    known = sorted(cls.model_fields)
                    raise PydanticCustomError("unknown_key", "{key} is not known", {"key": key, "known": known})
        return data


class AlarmConfig(ConfigTable):
    """The alarm of a machine. Without `false_alarms_per_week` it uses the model's set-point if somebody chose one,
    else the one that the normal recordings can confirm. It is raised by `on_delay` of the last `within` windows (0: in
    a row), or with `evidence` by a faint change that lasts. `loud_db`: see `loudness`."""

    false_alarms_per_week: float | None = Field(default=None, gt=0)
    deadband: float = Field(default=0.5, ge=0)
    on_delay: int = Field(default=3, ge=1)
    off_delay: int = Field(default=5, ge=1)
    within: int = Field(default=0, ge=0)
    evidence: bool = True
    loud_db: float = Field(default=10.0, ge=0)

    @model_validator(mode="after")
    def _within_holds_the_delay(self) -> AlarmConfig:
        if self.within and self.within < self.on_delay:
            raise ValueError(
                f"within = {self.within} windows must be 0 (in a row) or at least on_delay = {self.on_delay}"
            )
        return self


class MachineConfig(ConfigTable):
    """One machine. `hop_s` is half a window by default; `silence_s` 30 s for a stream, and no limit for a folder."""

    model: FilePath
    source: Annotated[tuple[str, ...], BeforeValidator(_sources)] = ()
    name: str = ""
    weights: Annotated[Path | Mapping[str, Path] | None, PlainValidator(_weights)] = None
    device: NetworkDevice = "cpu"
    rate: int | None = Field(default=None, ge=1)
    hop_s: float | None = Field(default=None, gt=0)
    silence_s: float | None = Field(default=None, gt=0)
    format: SampleFormat = "f32le"
    channels: int = Field(default=2, ge=1, le=2)
    ffmpeg: Annotated[tuple[str, ...], BeforeValidator(_strings)] = ()
    alarm: AlarmConfig = AlarmConfig()


class HistoryConfig(ConfigTable):
    """The folder of the history, and how much of it is kept."""

    folder: FilePath = Path("nearfar-history")
    keep_days: float = Field(default=90.0, gt=0)
    audio_gb: float = Field(default=10.0, ge=0)


class MqttConfig(ConfigTable):
    """An MQTT broker; see `sinks.mqtt`."""

    host: str = Field(min_length=1)
    port: Port = 0
    username: str = ""
    password_file: FilePath | None = None
    tls: bool = False
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    version: Literal[3, 5] = 5
    prefix: Topic = "nearfar"
    discovery: bool = True
    commands: bool = False


class WebhookConfig(ConfigTable):
    """The URL that events are posted to; see `sinks.webhook`."""

    url: Annotated[str, AfterValidator(hook_url)]
    secret_file: FilePath | None = None


class NotifyConfig(ConfigTable):
    """A channel to people, by its address (a URL of apprise), and what it is told; see `sinks.notify`.

    `machines` () are all. `events` are kinds of events, `over`: their ends too. In `quiet` hours (`calendar`) messages
    wait. `sound`: an alarm carries a picture and its sound, where the channel takes attachments.
    """

    url: str = ""
    url_file: FilePath | None = None
    machines: Texts = ()
    events: Annotated[tuple[EventKind, ...], BeforeValidator(_strings)] = (ALARM, HEALTH_EVENT)
    over: bool = True
    quiet: Annotated[tuple[When, ...], BeforeValidator(_strings)] = ()
    sound: bool = True

    @model_validator(mode="after")
    def _has_one_address(self) -> NotifyConfig:
        if bool(self.url) == (self.url_file is not None):
            raise ValueError("a channel has url, or url_file, the file that holds it")
        return self


class ReportConfig(ConfigTable):
    """The report that comes every day or every week (`on` a day), at an hour of this computer's zone.

    `machines` () are all. It goes to `channels` of [notify], to `folder`, or both; `format` is html or xlsx.
    """

    every: Literal["day", "week"] = "week"
    on: Annotated[str, AfterValidator(lambda value: one_of("day", value.capitalize(), DAYS))] = "Mon"
    at: Hour = "07:00"
    machines: Texts = ()
    channels: Texts = ()
    folder: FilePath | None = None
    format: Literal["html", "xlsx"] = "html"

    @model_validator(mode="after")
    def _goes_somewhere(self) -> ReportConfig:
        if not self.channels and self.folder is None:
            raise ValueError("a report goes to channels, the names of tables [notify.NAME], or to a folder")
        return self


class MaintenanceConfig(ConfigTable):
    """A time in which machines (() are all) are not judged; see `calendar`."""

    when: When
    machines: Texts = ()
    why: str = ""


class MetricsConfig(ConfigTable):
    """The address at which Prometheus reads the metrics."""

    port: Port
    address: str = "127.0.0.1"


class OpcUaConfig(ConfigTable):
    """The OPC-UA server: its address, its certificate (PEM) for encryption, and a file of NAME:PASSWORD lines."""

    endpoint: Endpoint = "opc.tcp://127.0.0.1:4840/nearfar/"
    certificate: FilePath | None = None
    key: FilePath | None = None
    users_file: FilePath | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> OpcUaConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both")
        if self.users_file is not None and self.certificate is None:
            raise ValueError("users_file needs certificate and key: without them passwords would be sent unencrypted")
        return self


class LinesConfig(ConfigTable):
    """A file to which lines are appended."""

    file: FilePath


class PlantConfig(ConfigTable):
    """The whole plant. `url` is the address at which people see its dashboard, for messages; `language` is theirs.

    `models` is the folder of detectors that are fitted in the browser; with it, a plant may begin without a machine.
    """

    machines: Mapping[str, MachineConfig] = Field(default_factory=dict)
    models: FilePath | None = None
    site: str = "plant"
    url: Url = ""
    language: Annotated[str, AfterValidator(lambda value: one_of("language", value, languages()))] = ENGLISH
    history: HistoryConfig = HistoryConfig()
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    metrics: MetricsConfig | None = None
    opcua: OpcUaConfig | None = None
    notify: Mapping[str, NotifyConfig] = Field(default_factory=dict)
    report: ReportConfig | None = None
    maintenance: Annotated[tuple[MaintenanceConfig, ...], BeforeValidator(_strings)] = ()
    jsonl: LinesConfig | None = None
    csv: LinesConfig | None = None

    @model_validator(mode="after")
    def _machines_exist(self) -> PlantConfig:
        if not self.machines and self.models is None:
            raise ValueError("there is no machine: at least one table such as [machines.pump] is needed")
        named = [("maintenance", m.machines) for m in self.maintenance]
        named += [(f"notify.{name}", channel.machines) for name, channel in self.notify.items()]
        named += [("report", self.report.machines)] if self.report else []
        for table, ids in named if self.models is None else ():
            if unknown := [id for id in ids if id not in self.machines]:
                raise ValueError(f"{table} names a machine {unknown[0]!r}; there are: {', '.join(self.machines)}")
        return self


def read(
    path: str | os.PathLike[str],
    environment: Mapping[str, str] | None = None,
    *,
    beside: Mapping[str, Any] | None = None,
) -> PlantConfig:
    """The configuration in a TOML file; FileNotFoundError if there is no such file, ConfigError for each mistake.

    `beside`: tables and values that count where the file has none.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such configuration: {path}")
    try:
        text = path.read_text(encoding="utf-8")
        written = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not TOML: {error}") from None

    def place(key: str) -> str:
        return f"{path}{_line(text, key)}: "

    data = _substituted(written, os.environ if environment is None else environment, place)
    return _validated({**(beside or {}), **data}, written, place, path.parent)


def from_options(tables: Mapping[str, Any]) -> PlantConfig:
    """The configuration that command line options describe, as the tables of a file; ConfigError for a bad value."""
    return _validated(tables, tables, lambda key: "", None)


def read_machine(id: str, table: Mapping[str, Any]) -> MachineConfig:
    """The machine of one table, with paths as they are; ConfigError for a bad value."""
    return from_options({"machines": {id: table}}).machines[id]


def read_channel(name: str, table: Mapping[str, Any]) -> NotifyConfig:
    """The channel of one table; ConfigError for a bad value."""
    return from_options({"models": Path(), "notify": {name: table}}).notify[name]


def read_report(table: Mapping[str, Any]) -> ReportConfig | None:
    """The report of a table [report]; ConfigError for a bad value."""
    return from_options({"models": Path(), "report": table}).report


Place = Callable[[str], str]  # the key of a mistake -> the file and the line before its message


def _validated(data: Mapping[str, Any], written: Mapping[str, Any], place: Place, folder: Path | None) -> PlantConfig:
    try:
        return PlantConfig.model_validate(data, context=folder)
    except ValidationError as error:
        mistakes = [_mistake(detail, written) for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join(place(key) + text for key, text in mistakes)) from None


def _mistake(error: ErrorDetails, written: Mapping[str, Any]) -> tuple[str, str]:
    """(the key of a mistake, the mistake in a sentence with the value as it is written in the file)."""
    context, kind = error.get("ctx", {}), error["type"]
    key = ".".join(str(part) for part in error["loc"])
    if kind == "unknown_key":
        key = ".".join([*key.split("."), context["key"]]).lstrip(".")
        close = get_close_matches(context["key"], context["known"], 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return key, f"{key} is not known{hint}; choose one of: {', '.join(context['known'])}"
    if kind == "missing":
        table, _, name = key.rpartition(".")
        return table, f"{table or 'the file'} lacks {name}"
    if kind == "value_error":
        return key, f"{key}: {context['error']}" if key else str(context["error"])
    value: Any = written
    for part in error["loc"]:
        value = value[part]
    what = EXPECTED[kind].format(**context) if kind in EXPECTED else error["msg"]
    return key, f"{key} {what}, not {value!r}"


def _substituted(value: Any, environment: Mapping[str, str], place: Place, key: str = "") -> Any:
    """`value` with every ${NAME} in its strings replaced."""
    if isinstance(value, dict):
        inside = f"{key}." if key else ""
        return {name: _substituted(v, environment, place, f"{inside}{name}") for name, v in value.items()}
    if isinstance(value, list):
        return [_substituted(v, environment, place, key) for v in value]
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise ConfigError(f"{place(key)}{key} needs the environment variable {found[1]}, which is not set")
        return environment[found[1]]

    return VARIABLE.sub(variable, value)


def _line(text: str, key: str) -> str:
    """ ", line N" for the line on which a key or a table stands, or "" if it cannot be found."""
    table, _, name = re.sub(r"\.\d+$", "", key).rpartition(".")  # an entry of a list stands on the line of the list
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            inside = header[1].replace('"', "").replace(" ", "")
            if inside == key or inside.startswith(f"{key}."):
                return f", line {number}"
        elif inside == table and re.match(rf"""\s*["']?{re.escape(name)}["']?\s*[.=]""", line):
            return f", line {number}"
    return ""
