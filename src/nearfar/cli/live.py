"""Commands for the plant: monitor and config."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.options import Json, Weights, weights_of
from nearfar.cli.terminal import (
    ALARM,
    BAD_INPUT,
    DONE,
    Failures,
    complain,
    complain_left_out,
    errors_for_people,
    say,
    say_json,
)

if TYPE_CHECKING:
    from nearfar.live.build import Assembly
    from nearfar.live.config import PlantConfig
    from nearfar.live.machine import Machine
    from nearfar.live.sinks.terminal import Printer


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
            "weights": weights_of(weights),
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
    from nearfar.live.build import check
    from nearfar.live.config import read
    from nearfar.support.check import one_of

    with errors_for_people():
        one_of("action", action, ("check",))
        facts = check(read(file))
        if json:
            say_json({"file": str(file), "ok": True, "plant": facts})
            return
        for fact in facts:
            say(fact)
        say(f"{file} is sound")


def _listen(plant: PlantConfig, once: bool, as_json: bool, fail_on_alarm: bool) -> None:
    from nearfar.live.build import build_plant
    from nearfar.live.sinks.terminal import Printer

    printer, failures = Printer(say, as_json=as_json), Failures()
    report = failures if once else complain_left_out
    assembly = build_plant(plant, clock=time.time, warn=complain, report=report, sinks=[printer], once=once)
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
) -> PlantConfig:
    """The configuration from a file, or of one machine from the command line."""
    from nearfar.live import config as c

    if config is not None:
        if model is not None or machine["source"] or options:
            raise ValueError("--config describes the whole plant: give it alone, or MODEL and --source without it")
        return c.read(config)
    if model is None or not machine["source"]:
        raise ValueError("what is to be listened to? Give MODEL and --source, or --config FILE")
    id = re.sub(r"[^A-Za-z0-9_-]+", "-", name or model.resolve().name).strip("-_") or "machine"
    history = {"folder": Path(f"{model.resolve().name}-history")}
    described = {"model": model, "name": name or "", "alarm": alarm, **machine}
    return c.of_options({"machines": {id: described}, "site": site, "history": history, **options})


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
    folder = assembly.plant.history.folder
    for machine in assembly.plant.machines.values():
        introduce(machine, folder)
    complain(f"history in {folder}; stop with Ctrl-C")


def introduce(machine: Machine, history: Path) -> None:
    """Say how a machine will be listened to, when it alarms, and what that promises."""
    from nearfar.live.setpoint import MORE

    complain(f"{machine.id}: windows of {machine.detector.window_s:g} s every {machine.hop_s:g} s")
    for line in machine.expected_alarms():
        complain(f"{machine.id}: {line}")
    complain(f"{machine.id}: {MORE} {history}")


def _end(printer: Printer, assembly: Assembly, failures: Failures, once: bool, fail_on_alarm: bool) -> None:
    complain(printer.summary())
    if once and not printer.windows:
        from nearfar.audio.recordings import READS

        heard = assembly.plant.history.folder / "heard"
        complain(f"nothing new: nearfar reads {READS}, and hears a file once (remove {heard} to hear all again)")
    if assembly.monitor.dropped:
        complain(f"{assembly.monitor.dropped} windows were dropped: this computer is too slow for that many machines")
    if fail_on_alarm and printer.counts["alarm"] + printer.counts["health"]:
        raise typer.Exit(ALARM)
    raise typer.Exit(BAD_INPUT if once and failures.files else DONE)
