"""A configuration -> the plant that it describes: machines that share encoders, sources, sinks, and the monitor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from sqlite3 import Connection
from time import monotonic

from nearfar.encoders.loading import unused
from nearfar.live.calendar import Maintenance
from nearfar.live.channels import channels
from nearfar.live.config import MachineConfig, MqttConfig, OpcUaConfig, PlantConfig, ReportConfig
from nearfar.live.history.database import lock_folder
from nearfar.live.history.history import History
from nearfar.live.machine import Machine, Shared, open_machine
from nearfar.live.monitor import Monitor, Warn
from nearfar.live.plant import Plant
from nearfar.live.report.file import report_folder
from nearfar.live.report.workbook import NEEDS_OPENPYXL
from nearfar.live.reports import report_of
from nearfar.live.roster import Roster, current
from nearfar.live.sinks.lines import csv_lines, json_lines
from nearfar.live.sinks.messages import CLOSE_S, Sink
from nearfar.live.sinks.notify import Channel, open_address
from nearfar.live.sinks.prometheus import Metrics
from nearfar.live.sinks.webhook import Webhook, read_secret
from nearfar.live.sources.open import Source, open_source
from nearfar.live.sources.windows import Report, SourceOptions
from nearfar.support.threads import all_within

LEAST_S = 1.0  # for the sinks to close, however long the sources took


@dataclass(frozen=True)
class Assembly:
    """A plant with its monitor and roster; `folder_lock` keeps other processes from writing to the history."""

    plant: Plant
    monitor: Monitor
    roster: Roster
    metrics: Metrics | None
    folder_lock: Connection

    def run(self, stop: threading.Event) -> None:
        """Monitor until the sources end or `stop` is set, then close everything."""
        try:
            self.monitor.run(stop, self.roster.check)
        finally:
            self.close()

    def close(self) -> None:
        """Close everything; the sinks first, since they write to the history."""
        self.plant.close()
        wait_s = min(CLOSE_S, max(LEAST_S, self.monitor.until - monotonic()))
        all_within(wait_s, [partial(sink.close, wait_s) for sink in self.plant.sinks])
        self.plant.history.close()
        self.folder_lock.close()


def build_plant(
    config: PlantConfig,
    *,
    clock: Callable[[], float],
    warn: Warn,
    report: Report,
    sinks: Sequence[Sink] = (),
    metrics: bool = False,
    url: str = "",
    once: bool = False,
    idle: bool = False,
    deliver: bool = True,
) -> Assembly:
    """Build what `config` describes, with further `sinks`; ValueError, OSError or ImportError if that cannot be.

    One process at a time may write to a history. `metrics`: count for Prometheus, although nobody serves the numbers
    yet. `url`: of the dashboard, unless the configuration names it. `idle` allows a plant without sources; `deliver`
    opens the sinks of `config`.
    """
    shared: Shared = {}
    configs = current(config)
    machines = open_machines(config, configs, shared)

    def open_one(machine: Machine, table: MachineConfig) -> Source:
        return _source(machine, table, config.history.folder, clock, report, once)

    sources = {m.id: open_one(m, configs[m.id]) for m in machines if configs[m.id].source}
    if not sources and not idle:
        raise ValueError("no machine has a source")
    h = config.history
    with ExitStack() as undo:  # closes what is open if the rest cannot be opened
        folder_lock = undo.enter_context(closing(lock_folder(h.folder)))
        history = History(h.folder, keep_days=h.keep_days, audio_bytes=h.audio_gb * 1e9)
        undo.callback(history.close)
        for sink in sinks:
            undo.callback(sink.close)
        plant = Plant(
            machines,
            history,
            sinks,
            clock=clock,
            maintenance=maintenance(config),
            url=config.url or url,
            language=config.language,
            site=config.site,
            reports=report_of(config) if deliver else None,
        )
        counted = open_sinks(config, plant, metrics=metrics) if deliver else None
        undo.pop_all()
    if (scheduled := report_of(config)) and deliver:
        for problem in _lacks(config, scheduled):
            warn(problem)
    monitor = Monitor(plant, sources, warn=warn, meters=(counted,) if counted else ())
    return Assembly(plant, monitor, Roster(config, plant, monitor, shared, open_one, warn), counted, folder_lock)


def open_machines(config: PlantConfig, configs: Mapping[str, MachineConfig], shared: Shared) -> list[Machine]:
    """The machines of `configs`; those that need the same encoder share it, in `shared`."""
    machines = [open_machine(id, c, site=config.site, shared=shared) for id, c in configs.items()]
    for weights in {str(m.weights): m.weights for m in machines}.values():  # each must be used by its machines
        encoders = [r.encoder for m in machines if m.weights == weights for r in m.detector.recipes]
        if why := unused(weights, encoders):
            raise ValueError(f"weights {why}")
    return machines


def open_sinks(config: PlantConfig, plant: Plant, *, metrics: bool = False) -> Metrics | None:
    """Open the sinks of a configuration for a plant; if one cannot be opened, the others are closed.

    Returns the numbers for Prometheus, if they are asked for by `metrics` or by the configuration.
    """
    machines, history, clock = list(plant.machines.values()), plant.history, plant.clock
    given, counted = len(plant.sinks), None
    try:
        if config.jsonl:
            plant.sinks.append(json_lines(config.jsonl.file))
        if config.csv:
            plant.sinks.append(csv_lines(config.csv.file))
        if config.webhook:
            secret = read_secret(config.webhook.secret_file) if config.webhook.secret_file else ""
            hook = Webhook(config.webhook.url, history, clock=clock, secret=secret, language=config.language)
            plant.sinks.append(hook)
        for name, rules in channels(config).items():
            plant.sinks.append(Channel(name, rules, plant.machines, history, clock=clock, language=config.language))
        if config.report and config.report.folder:
            plant.sinks.append(report_folder(config.report.folder, plant.machines, history, language=config.language))
        if config.opcua:
            plant.sinks.append(_opcua(config.opcua, machines, config.language))
        if config.mqtt:
            plant.sinks.append(_mqtt(config.mqtt, plant, config.url))
        if config.metrics or metrics:
            streamed = [m.id for m in machines if m.streamed]
            counted = Metrics(plant.machines, streamed, clock())
            counted.watch(history, plant.sinks)
            plant.sinks.append(counted)
        if config.metrics and counted:
            counted.serve(config.metrics.address, config.metrics.port)
    except BaseException:
        for sink in plant.sinks[given:]:
            sink.close()
        raise
    return counted


def maintenance(config: PlantConfig) -> list[Maintenance]:
    """The times of a configuration in which machines are not judged."""
    return [Maintenance(m.when, m.machines, m.why) for m in config.maintenance]


def _lacks(config: PlantConfig, report: ReportConfig) -> list[str]:
    """What a report needs and the plant has not: channels, which may be removed in the browser, and openpyxl."""
    known = channels(config)
    lacks = [f"report: there is no channel {name!r}" for name in report.channels if name not in known]
    if report.format == "xlsx" and find_spec("openpyxl") is None:
        lacks.append(f"report: {NEEDS_OPENPYXL}")
    return lacks


def _mqtt(broker: MqttConfig, plant: Plant, url: str) -> Sink:
    from nearfar.live.sinks.mqtt import Mqtt

    _check_files(broker.ca, broker.cert, broker.key)
    password = read_secret(broker.password_file) if broker.password_file else ""
    return Mqtt(
        broker,
        list(plant.machines.values()),
        plant.history,
        password=password,
        url=url,
        language=plant.language,
        operator=plant.operator,
    )


def _opcua(server: OpcUaConfig, machines: Sequence[Machine], language: str) -> Sink:
    from nearfar.live.sinks.opcua import OpcUa, read_users

    _check_files(server.certificate, server.key, server.users_file)
    users = read_users(server.users_file) if server.users_file else {}
    return OpcUa(machines, server, users, language=language)


def _check_files(*paths: Path | None) -> None:
    """FileNotFoundError that names the missing file, as TLS would not."""
    for file in paths:
        if file and not file.is_file():
            raise FileNotFoundError(f"no such file: {file}")


def _source(
    machine: Machine, c: MachineConfig, history: Path, clock: Callable[[], float], report: Report, once: bool
) -> Source:
    detector = machine.detector
    rates = [encoder.sample_rate for encoder in detector.encoders.values()]
    return open_source(
        c.source,
        SourceOptions(
            window_s=detector.window_s,
            whole_s=detector.whole_s,
            hop_s=machine.hop_s,
            rate=c.rate or max(rates),
            clock=clock,
            report=report,
            near=detector.near,
            far=detector.far,
            ledger=history / "heard" / f"{machine.id}.tsv",
            once=once,
            channels=c.channels,
            form=c.format,
            options=c.ffmpeg,
        ),
    )


def check(config: PlantConfig) -> list[str]:
    """What a configuration does, in lines, after opening its models; raises as `build_plant` does."""
    from nearfar.live.sources.streams import hide

    lines = []
    configs = current(config)
    for machine in open_machines(config, configs, {}):
        c = configs[machine.id]
        if not c.source:
            lines.append(f"machine {machine.id}: {machine.model} scores recordings that are sent to `nearfar serve`")
            continue
        lines.append(f"machine {machine.id}: {machine.model} listens to {hide(' and '.join(c.source))}")
        lines += [f"machine {machine.id}: {line}" for line in machine.expected_alarms()]
    h = config.history
    lines.append(f"history: {h.folder}, scores for {h.keep_days:g} days, audio up to {h.audio_gb:g} GB")
    if m := config.mqtt:
        _check_files(m.ca, m.cert, m.key)
        lines.append(
            f"mqtt: {m.host} as {m.username or 'a client without a user name'}, topics {m.prefix}/{config.site}/..."
            + (", takes commands" if m.commands else "")
        )
    if config.webhook:
        lines.append(f"webhook: {hide(config.webhook.url)}, {'signed' if config.webhook.secret_file else 'NOT signed'}")
    for name, rules in channels(config).items():
        whom = " and ".join(rules.machines) or "all machines"
        lines.append(f"notify {name}: {open_address(rules).service}, {' and '.join(rules.events)} of {whom}")
    if r := report_of(config):
        when = f"every {f'week on {r.on}' if r.every == 'week' else 'day'} at {r.at}"
        to = [*r.channels, *([str(r.folder)] if r.folder else [])]
        lines.append(f"report: {when}, of {' and '.join(r.machines) or 'all machines'}, to {' and '.join(to)}")
        lines += _lacks(config, r)
    for entry in config.maintenance:
        lines.append(f"maintenance: {entry.when}, {' and '.join(entry.machines) or 'all machines'} are not judged")
    if config.metrics:
        lines.append(f"metrics: http://{config.metrics.address}:{config.metrics.port}/metrics")
    if config.opcua:
        o = config.opcua
        _check_files(o.certificate, o.key, o.users_file)
        who = "users that log in" if o.users_file else "everybody"
        lines.append(f"opc-ua: {o.endpoint}, {'encrypted' if o.certificate else 'NOT encrypted'}, {who} may read")
    for kind, c_file in (("jsonl", config.jsonl), ("csv", config.csv)):
        if c_file:
            lines.append(f"{kind}: {c_file.file}")
    for secret in (config.mqtt and config.mqtt.password_file, config.webhook and config.webhook.secret_file):
        if secret:
            read_secret(secret)
    return lines
