"""One TOML file for a plant: machines, history, sinks. Strict: what is not known is an error that says where.

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

`${NAME}` in a string is taken from the environment, so that no secret need stand in the file; files hold the others.
Neither is ever printed. Relative paths count from the file's folder.
"""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nearfar.errors import ConfigError
from nearfar.live.sinks.webhook import hook_url
from nearfar.support.check import number, whole

T = TypeVar("T")
TOPIC = re.compile(r"[^/+#\0](?:[^+#\0]*[^/+#\0])?")
VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class AlarmConfig:
    """A machine's alarm. `false_alarms_per_week` None: the model's set-point if somebody chose it, else `promise`'s."""

    false_alarms_per_week: float | None = None
    deadband: float = 0.5
    on_delay: int = 3
    off_delay: int = 5

    def __post_init__(self) -> None:
        number("deadband", self.deadband, low=0)
        whole("on_delay", self.on_delay)
        whole("off_delay", self.off_delay)


@dataclass(frozen=True)
class MachineConfig:
    """One machine. `hop_s` None: half a window; `silence_s` None: 30 s for a stream, never for a folder."""

    model: Path
    source: tuple[str, ...] = ()
    name: str = ""
    weights: Path | None = None
    rate: int | None = None
    hop_s: float | None = None
    silence_s: float | None = None
    format: str = "f32le"
    channels: int = 2
    ffmpeg: tuple[str, ...] = ()
    alarm: AlarmConfig = field(default_factory=AlarmConfig)

    def __post_init__(self) -> None:
        if self.rate is not None:
            whole("rate", self.rate)
        if self.silence_s is not None:
            number("silence_s", self.silence_s, above=0)
        number("channels", self.channels, low=1, high=2)


@dataclass(frozen=True)
class HistoryConfig:
    """Where the history is, and how much of it is kept."""

    folder: Path = Path("nearfar-history")
    keep_days: float = 90.0
    audio_gb: float = 10.0

    def __post_init__(self) -> None:
        number("keep_days", self.keep_days, above=0)
        number("audio_gb", self.audio_gb, low=0)


@dataclass(frozen=True)
class MqttConfig:
    """A broker; see `sinks.mqtt`."""

    host: str
    port: int = 0
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    prefix: str = "nearfar"
    discovery: bool = True

    def __post_init__(self) -> None:
        number("port", self.port, low=0, high=65_535)
        if not self.host:
            raise ValueError("host must be the broker's name or address, not ''")
        if not TOPIC.fullmatch(self.prefix):
            raise ValueError(f"prefix must be a topic without +, # and / at its ends, not {self.prefix!r}")


@dataclass(frozen=True)
class WebhookConfig:
    """Where events are posted; see `sinks.webhook`."""

    url: str
    secret_file: Path | None = None

    def __post_init__(self) -> None:
        hook_url(self.url)


@dataclass(frozen=True)
class MetricsConfig:
    """Where Prometheus may ask."""

    port: int
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        number("port", self.port, low=0, high=65_535)


@dataclass(frozen=True)
class OpcUaConfig:
    """The OPC-UA server."""

    endpoint: str = "opc.tcp://127.0.0.1:4840/nearfar/"

    def __post_init__(self) -> None:
        if not self.endpoint.startswith("opc.tcp://"):
            raise ValueError(f"endpoint must be opc.tcp://HOST:PORT/, not {self.endpoint!r}")


@dataclass(frozen=True)
class FileConfig:
    """A file of lines."""

    file: Path


@dataclass(frozen=True)
class Config:
    """The whole plant."""

    machines: Mapping[str, MachineConfig]
    site: str = "plant"
    history: HistoryConfig = field(default_factory=HistoryConfig)
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    metrics: MetricsConfig | None = None
    opcua: OpcUaConfig | None = None
    jsonl: FileConfig | None = None
    csv: FileConfig | None = None


def read(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in a TOML file. ConfigError naming line and choices; FileNotFoundError if there is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such configuration: {path}")
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is no TOML: {error}") from None
    reader = _Reader(path, text, os.environ if environment is None else environment)
    config: Config = reader.table(Config, data, "")
    if not config.machines:
        raise ConfigError(f"{path}: there is no machine: it needs at least one table such as [machines.pump]")
    here = path.parent
    machines = {
        id: replace(m, source=tuple(str(here / s) if (here / s).exists() else s for s in m.source))
        for id, m in config.machines.items()
    }
    return replace(config, machines=machines)


@dataclass(frozen=True)
class _Reader:
    path: Path
    text: str
    environment: Mapping[str, str]

    def table(self, kind: type[T], data: Any, where: str) -> T:
        """A table as a dataclass: every key known, none missing, every value of its type."""
        if not isinstance(data, dict):
            raise self.error(where, f"must be a table, not {data!r}")
        known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
        for key in data:
            if key not in known:
                raise self.error(f"{where}.{key}", f"is not known; choose one of: {', '.join(sorted(known))}")
        types_of = get_type_hints(kind)
        given = {key: self.value(types_of[key], value, f"{where}.{key}") for key, value in data.items()}
        try:
            return kind(**given)
        except TypeError as error:
            missing = ", ".join(re.findall(r"'(\w+)'", str(error)))
            raise self.error(where, f"lacks {missing}") from None
        except ConfigError:
            raise
        except ValueError as error:  # it begins with the key
            key, _, what = str(error).partition(" ")
            raise self.error(f"{where}.{key}", what) from None

    def value(self, kind: Any, value: Any, where: str) -> Any:
        """A value as its type says."""
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(k for k in get_args(kind) if k is not type(None))
        if is_dataclass(kind):
            return self.table(kind, value, where)  # type: ignore[arg-type]
        if get_origin(kind) is not None and get_args(kind)[0] is str and len(get_args(kind)) == 2:
            inner = get_args(kind)[1]
            if inner is ...:  # tuple[str, ...]: one string will do
                values = value if isinstance(value, list) else [value]
                return tuple(self.value(str, v, where) for v in values)
            if not isinstance(value, dict):
                raise self.error(where, "must be tables, such as [machines.pump]")
            return {name: self.table(inner, v, f"{where}.{name}") for name, v in value.items()}
        if kind is Path:
            return self.path.parent / Path(self.value(str, value, where)).expanduser()
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            word = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}[kind]
            raise self.error(where, f"must be {word}, not {value!r}")
        return VARIABLE.sub(lambda m: self.variable(m[1], where), value) if kind is str else value

    def variable(self, name: str, where: str) -> str:
        if name not in self.environment:
            raise self.error(where, f"needs the environment variable {name}, which is not set")
        return self.environment[name]

    def error(self, where: str, what: str) -> ConfigError:
        name = where.strip(".")
        return ConfigError(f"{self.path}{self.line(name)}: {name or 'the file'} {what}")

    def line(self, name: str) -> str:
        """The line on which a key or table stands, if it can be found."""
        table, _, key = name.rpartition(".")
        inside = ""
        for place, line in enumerate(self.text.splitlines(), 1):
            if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
                inside = header[1].replace('"', "").replace(" ", "")
                if inside == name or inside.startswith(f"{name}."):
                    return f", line {place}"
            elif inside == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""", line):
                return f", line {place}"
        return ""
