"""Commands for the plant: monitor, config, history."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.options import Json, Weights
from nearfar.cli.terminal import ALARM, BAD_INPUT, DONE, Failures, complain, errors_for_people, say, say_json

if TYPE_CHECKING:
    from nearfar.live.assemble import Assembly
    from nearfar.live.config import Config
    from nearfar.live.machine import Machine
    from nearfar.live.printer import Printer


def monitor(
    model: Annotated[Path | None, typer.Argument(help="Detector folder, as `nearfar fit` made it.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A folder, a URL or file for ffmpeg, mic, mic:2, or - for raw samples; twice: near and far."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A whole plant from a TOML file, instead of MODEL.")] = None,
    history: Annotated[Path | None, typer.Option(help="Folder of the history; MODEL-history by default.")] = None,
    name: Annotated[str | None, typer.Option(help="The machine's name in messages; the model's by default.")] = None,
    site: Annotated[str, typer.Option(help="The site's name in MQTT topics.")] = "plant",
    once: Annotated[bool, typer.Option("--once", help="Of a folder, hear what is there and stop.")] = False,
    false_alarms_per_week: Annotated[float | None, typer.Option(help="At most so many; sets the set-point.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="MQTT broker, HOST or HOST:PORT.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Prometheus metrics at [ADDRESS]:PORT, such as :9108.")] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that events are posted to.")] = None,
    webhook_secret: Annotated[Path | None, typer.Option(help="File with the secret that signs them.")] = None,
    opcua: Annotated[str | None, typer.Option(help="OPC-UA endpoint, opc.tcp://HOST:PORT/.")] = None,
    jsonl: Annotated[Path | None, typer.Option(help="Append every message to this file.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Append every score to this file.")] = None,
    rate: Annotated[
        int | None, typer.Option(help="Samples a second of streams; what the model needs by default.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Of raw samples: f32le, s16le or s32le.")] = "f32le",
    channels: Annotated[int, typer.Option(help="Of raw samples: 2, near and far, or 1.")] = 2,
    weights: Weights = None,
    fail_on_alarm: Annotated[bool, typer.Option("--fail-on-alarm", help="Exit 1 if there was an alarm.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Every message as a line of JSON on stdout.")] = False,
) -> None:
    """Example: nearfar monitor pump3 --source rtsp://10.0.0.7/audio --mqtt broker --metrics :9108

    Live sound or a folder to alarm events: one line each, until it is stopped (Ctrl-C).
    """
    with errors_for_people():
        machine = {
            "source": tuple(source or ()),
            "rate": rate,
            "format": form,
            "channels": channels,
            "weights": weights,
        }
        alarm = {"false_alarms_per_week": false_alarms_per_week}
        sinks = _sinks(history, mqtt, metrics, webhook, webhook_secret, opcua, jsonl, csv_file)
        _listen(_plant(model, config, name, site, machine, alarm, sinks), once, json, fail_on_alarm)


def config(
    action: Annotated[str, typer.Argument(help="check")],
    file: Annotated[Path, typer.Argument(help="The TOML file.")],
    json: Json = False,
) -> None:
    """Example: nearfar config check plant.toml

    Read a plant's configuration, open its models, and say what would happen; nothing is connected to.
    """
    from nearfar.check import one_of
    from nearfar.live.assemble import check
    from nearfar.live.config import read

    with errors_for_people():
        one_of("action", action, ("check",))
        facts = check(read(file))
        if json:
            say_json({"file": str(file), "ok": True, "plant": facts})
            return
        for fact in facts:
            say(fact)
        say(f"{file} is sound")


def history(
    action: Annotated[str, typer.Argument(help="set-point, drift, export or rescue")],
    folder: Annotated[Path, typer.Argument(help="Folder of the history.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for exported files.")] = None,
    false_alarms_per_week: Annotated[float, typer.Option(help="What a set-point is to promise, at most.")] = 1.0,
    on_delay: Annotated[int, typer.Option(help="Windows in a row above it that make an alarm.")] = 3,
    json: Json = False,
) -> None:
    """Example: nearfar history set-point pump3-history --false-alarms-per-week 1

    set-point: the lowest one that would have kept the promise on the days that were heard. drift: is the median normal
    score of each day creeping, and what to do about it. export: Parquet files of everything. rescue: begin anew with
    what a damaged history still holds.
    """
    from nearfar.check import one_of

    with errors_for_people():
        one_of("action", action, ACTIONS)
        if not (folder / "history.db").is_file():
            raise FileNotFoundError(f"there is no history in {folder}: history.db is missing")
        facts, lines = ACTIONS[action](folder, output, false_alarms_per_week, on_delay)
        if json:
            say_json(facts)
        else:
            for line in lines:
                say(line)


def _export(folder: Path, output: Path | None, *_: float) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.export import to_parquet

    output = output or folder / "parquet"
    rows = to_parquet(folder, output)
    return {"folder": str(output), "rows": rows}, [
        f"{n} {table} in {output / table}.parquet" for table, n in rows.items()
    ]


def _rescue(folder: Path, *_: Any) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.database import rescue

    kept, rows = rescue(folder)
    said = ", ".join(f"{n} {table}" for table, n in rows.items())
    return {"kept": str(kept), "rows": rows}, [f"{said} rescued; the damaged file is kept as {kept}"]


def _drift(folder: Path, *_: Any) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.drift import look
    from nearfar.live.history import History, machines_of, medians

    opened = History(folder)
    facts, lines = {}, []
    for machine in machines_of(opened):
        drift = look(medians(opened, machine, 0, float("inf")))
        text = drift.text("MODEL", str(folder / "samples" / machine))
        facts[machine] = {"days": drift.days, "baseline": drift.baseline, "now": drift.now, "creeping": drift.creeping}
        lines.append(f"{machine}: {text}")
    opened.close()
    return facts, lines or ["nothing has been heard yet"]


def _set_point(folder: Path, _: Any, per_week: float, on_delay: int) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.alarm import Alarm
    from nearfar.live.history import History, machines_of
    from nearfar.live.setpoint import measure

    opened = History(folder)
    facts, lines = {}, []
    for machine in machines_of(opened):
        scores, events = opened.scores(machine, 0, float("inf")), opened.events(machine, limit=100_000)
        found = measure(scores, events, per_week, Alarm(0.0, on_delay=on_delay))
        facts[machine] = vars(found)
        heard = f"{machine}: {7 * found.weeks:.2g} days were heard"
        if found.value is None:
            lines.append(f"{heard}; {7 * found.needed_weeks:.2g} are needed to promise {per_week:g} a week")
        else:
            made = f"with set-point {found.value:.2f} they made {found.alarms} alarms"
            lines.append(f"{heard}; {made}. To use it: nearfar threshold MODEL --value {found.value:.2f}")
    opened.close()
    return facts, lines or ["nothing has been heard yet"]


ACTIONS = {"set-point": _set_point, "drift": _drift, "export": _export, "rescue": _rescue}


def _listen(plant: Config, once: bool, as_json: bool, fail_on_alarm: bool) -> None:
    from nearfar.live.assemble import assemble
    from nearfar.live.printer import Printer

    printer, failures = Printer(say, as_json=as_json), Failures()
    assembly = assemble(plant, clock=time.time, complain=complain, report=failures, sinks=[printer], once=once)
    _introduce(assembly)
    assembly.run(stopped_by_signals())
    _end(printer, assembly, failures, once, fail_on_alarm)


def _sinks(
    history: Path | None,
    mqtt: str | None,
    metrics: str | None,
    webhook: str | None,
    webhook_secret: Path | None,
    opcua: str | None,
    jsonl: Path | None,
    csv_file: Path | None,
) -> dict[str, Any]:
    """The tables of a configuration that the command line asks for."""
    tables = {
        "history": history and {"folder": history},
        "mqtt": mqtt and _host(mqtt),
        "metrics": metrics and _address(metrics),
        "webhook": webhook and {"url": webhook, "secret_file": webhook_secret},
        "opcua": opcua and {"endpoint": opcua},
        "jsonl": jsonl and {"file": jsonl},
        "csv": csv_file and {"file": csv_file},
    }
    return {name: table for name, table in tables.items() if table}


def _plant(
    model: Path | None,
    config: Path | None,
    name: str | None,
    site: str,
    machine: dict[str, Any],
    alarm: dict[str, Any],
    options: dict[str, Any],
) -> Config:
    """The configuration from a file, or of one machine from the command line."""
    from nearfar.live import config as c

    if config is not None:
        if model is not None or machine["source"] or options:
            raise ValueError("--config describes the whole plant: give it alone, or MODEL and --source without it")
        return c.read(config)
    if model is None or not machine["source"]:
        raise ValueError("what is to be listened to? Give MODEL and --source, or --config FILE")
    id = re.sub(r"[^A-Za-z0-9_-]+", "-", name or model.resolve().name).strip("-_") or "machine"
    kinds = {
        "mqtt": c.MqttConfig,
        "metrics": c.MetricsConfig,
        "webhook": c.WebhookConfig,
        "opcua": c.OpcUaConfig,
        "jsonl": c.FileConfig,
        "csv": c.FileConfig,
        "history": c.HistoryConfig,
    }
    options = {"history": {"folder": Path(f"{model.resolve().name}-history")}, **options}
    made = {key: kinds[key](**value) for key, value in options.items()}
    described = c.MachineConfig(model, name=name or "", alarm=c.AlarmConfig(**alarm), **machine)
    return c.Config({id: described}, site=site, **made)


def _host(text: str) -> dict[str, Any]:
    host, _, port = text.partition(":")
    if not host or (port and not port.isdecimal()):
        raise ValueError(f"--mqtt takes HOST or HOST:PORT, not {text!r}")
    return {"host": host, "port": int(port or 0)}


def _address(text: str) -> dict[str, Any]:
    address, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"--metrics takes :PORT (this machine alone) or ADDRESS:PORT, not {text!r}")
    return {"address": address or "127.0.0.1", "port": int(port)}


def stopped_by_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop


def _introduce(assembly: Assembly) -> None:
    for machine in assembly.plant.machines.values():
        complain(introduction(machine))
    complain(f"history in {assembly.plant.history.folder}; stop with Ctrl-C")


def introduction(machine: Machine) -> str:
    """How a machine will be listened to, in one line."""
    alarm, often = machine.alarm, machine.false_alarms_per_week
    often_said = f"{often:.3g} false alarms a week" if often >= 0.01 else "less than one false alarm in two years"
    return (
        f"{machine.id}: windows of {machine.detector.window_s:g} s every {machine.hop_s:g} s, "
        f"set-point {alarm.on:.1f} for {alarm.on_delay} windows in a row (at most {often_said})"
    )


def _end(printer: Printer, assembly: Assembly, failures: Failures, once: bool, fail_on_alarm: bool) -> None:
    complain(printer.summary())
    if once and not printer.windows:
        heard = assembly.plant.history.folder / "heard"
        complain(f"nothing new: a file is heard once (remove {heard} to hear all of them again)")
    if assembly.monitor.dropped:
        complain(f"{assembly.monitor.dropped} windows were dropped: this computer is too slow for that many machines")
    if fail_on_alarm and printer.counts["alarm"] + printer.counts["health"]:
        raise typer.Exit(ALARM)
    raise typer.Exit(BAD_INPUT if once and failures.files else DONE)
