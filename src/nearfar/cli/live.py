"""Commands for a plant: monitor, config check."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.log import LOG, LogFormat, log_left_out, log_to_stderr
from nearfar.cli.options import Device, Json, Weights, command, group, spare, subcommand, weights_of
from nearfar.cli.terminal import ALARM, BAD_INPUT, DONE, Failures, echo, echo_json

if TYPE_CHECKING:
    from nearfar.live.build import Assembly
    from nearfar.live.config import PlantConfig
    from nearfar.live.machine import Machine
    from nearfar.live.roster import Roster
    from nearfar.live.sinks.terminal import Printer


@dataclass(frozen=True)
class Stream:
    """Options: the sound of the machine."""

    source: Annotated[
        list[str] | None,
        typer.Option(help="A folder, a URL or file for ffmpeg, mic, mic:2, or - for raw samples; twice: near and far."),
    ] = None
    rate: Annotated[int | None, typer.Option(help="Sample rate of streams in Hz [what the model needs].")] = None
    form: Annotated[str, typer.Option("--format", help="Of raw samples: f32le, s16le or s32le.")] = "f32le"
    channels: Annotated[int, typer.Option(help="Of raw samples: 2, near and far, or 1.")] = 2

    def table(self) -> dict[str, Any]:
        """The keys of a machine's table in a configuration."""
        source = tuple(self.source or ())
        return {"source": source, "rate": self.rate, "format": self.form, "channels": self.channels}


@dataclass(frozen=True)
class Sinks:
    """Options: where scores and events go."""

    history: Annotated[Path | None, typer.Option(help="Folder of the history [MODEL-history].")] = None
    mqtt: Annotated[str | None, typer.Option(help="MQTT broker, HOST or HOST:PORT.")] = None
    metrics: Annotated[str | None, typer.Option(help="Prometheus metrics at [ADDRESS]:PORT, such as :9108.")] = None
    webhook: Annotated[str | None, typer.Option(help="URL that events are posted to.")] = None
    webhook_secret: Annotated[Path | None, typer.Option(help="File with the secret that signs them.")] = None
    opcua: Annotated[str | None, typer.Option(help="OPC-UA endpoint, opc.tcp://HOST:PORT/.")] = None
    jsonl: Annotated[Path | None, typer.Option(help="Append every message to this file.", callback=spare)] = None
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Append every score to this file.", callback=spare)] = (
        None
    )

    def tables(self) -> dict[str, Any]:
        """The tables of a configuration, for the sinks that are asked for."""
        tables = {
            "history": self.history and {"folder": self.history},
            "mqtt": self.mqtt and _host(self.mqtt),
            "metrics": self.metrics and _address(self.metrics),
            "webhook": self.webhook and {"url": self.webhook, "secret_file": self.webhook_secret},
            "opcua": self.opcua and {"endpoint": self.opcua},
            "jsonl": self.jsonl and {"file": self.jsonl},
            "csv": self.csv_file and {"file": self.csv_file},
        }
        return {name: table for name, table in tables.items() if table}


@command
def monitor(
    stream: Stream,
    sinks: Sinks,
    model: Annotated[Path | None, typer.Argument(help="Detector folder that `nearfar fit` wrote.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of a whole plant, instead of MODEL.")] = None,
    name: Annotated[str | None, typer.Option(help="The machine's name in messages [the model's].")] = None,
    site: Annotated[str, typer.Option(help="The site's name in MQTT topics.")] = "plant",
    once: Annotated[bool, typer.Option("--once", help="Process the files that a folder holds now, and stop.")] = False,
    false_alarms_per_week: Annotated[
        float | None, typer.Option(help="False alarms per week that are allowed; sets the set-point.")
    ] = None,
    on_delay: Annotated[int, typer.Option(help="Windows above the set-point that raise an alarm.")] = 3,
    within: Annotated[int, typer.Option(help="They are among this many last windows [0: in a row].")] = 0,
    evidence: Annotated[bool, typer.Option(help="Alarm for faint changes that last, too.")] = True,
    weights: Weights = None,
    device: Device = "cpu",
    fail_on_alarm: Annotated[bool, typer.Option("--fail-on-alarm", help="Exit 1 if there was an alarm.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print every message as a line of JSON on stdout.")] = False,
    log_format: LogFormat = "text",
) -> None:
    """Example: nearfar monitor pump3 --source rtsp://10.0.0.7/audio --mqtt broker --metrics :9108

    Listen to live sound or to a folder and print one line per alarm event, until Ctrl-C.
    """
    if config is None:
        rate = false_alarms_per_week
        alarm = {"false_alarms_per_week": rate, "on_delay": on_delay, "within": within, "evidence": evidence}
        networks = {"weights": weights_of(weights), "device": device}
        machine = {**stream.table(), **networks, "alarm": alarm, "name": name or ""}
        plant = _plant_of(model, machine, site, sinks.tables())
    elif model is not None or stream.source or sinks.tables():
        raise ValueError("--config describes the whole plant: give it alone, or MODEL and --source without it")
    else:
        from nearfar.live.config import read

        plant = read(config)
    with log_to_stderr(log_format):
        _listen(plant, config, once, json, fail_on_alarm)


config = group("nearfar config check plant.toml", "Check a plant's configuration file.")


@subcommand(config, "check")
def check_config(file: Annotated[Path, typer.Argument(help="The TOML file.")], json: Json = False) -> None:
    """Example: nearfar config check plant.toml

    Read a plant's configuration, load its models, and print what would run. Nothing is connected to.
    """
    from nearfar.live.build import check
    from nearfar.live.config import read

    facts = check(read(file))
    if json:
        echo_json({"file": str(file), "ok": True, "plant": facts})
    else:
        echo("\n".join([*facts, f"{file} is valid"]))


def _listen(plant: PlantConfig, config: Path | None, once: bool, as_json: bool, fail_on_alarm: bool) -> None:
    from nearfar.live.build import build_plant
    from nearfar.live.sinks.terminal import Printer

    printer, failures = Printer(echo, as_json=as_json), Failures()
    report = failures if once else log_left_out
    assembly = build_plant(plant, clock=time.time, warn=LOG.warning, report=report, sinks=[printer], once=once)
    if config is not None:
        reread_on_sighup(assembly.roster, config)
    folder = assembly.plant.history.folder
    for machine in assembly.plant.machines.values():
        introduce(machine, folder)
    LOG.info(f"history in {folder}; stop with Ctrl-C")
    assembly.run(stopped_by_signals())
    _end(printer, assembly, failures, once, fail_on_alarm)


def _plant_of(model: Path | None, machine: dict[str, Any], site: str, sinks: dict[str, Any]) -> PlantConfig:
    """The configuration of one machine from the command line."""
    from nearfar.live.config import from_options

    if model is None or not machine["source"]:
        raise ValueError("what is to be listened to? Give MODEL and --source, or --config FILE")
    id = machine_id(machine["name"] or model.resolve().name)
    history = {"folder": Path(f"{model.resolve().name}-history")}
    return from_options({"machines": {id: {"model": model, **machine}}, "site": site, "history": history, **sinks})


def _split(text: str) -> tuple[str, str]:
    """Host and port, "" where none is given, of HOST:PORT; the host of an IPv6 address may stand in brackets."""
    if found := re.fullmatch(r"\[(.+)\](?::(.*))?", text):
        return found[1], found[2] or ""
    host, _, port = (text, "", "") if text.count(":") > 1 else text.partition(":")
    return host, port


def _host(text: str) -> dict[str, Any]:
    host, port = _split(text)
    if not host or (port and not port.isdecimal()):
        raise ValueError(f"--mqtt takes HOST or HOST:PORT, not {text!r}")
    return {"host": host, "port": int(port or 0)}


def _address(text: str) -> dict[str, Any]:
    address, port = _split(text)
    if not port.isdecimal():
        raise ValueError(f"--metrics takes :PORT (this machine alone) or ADDRESS:PORT, not {text!r}")
    return {"address": address or "127.0.0.1", "port": int(port)}


def machine_id(name: str) -> str:
    """The key of a machine in a configuration, from its name or that of its model."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "machine"


def stopped_by_signals() -> threading.Event:
    """An event that SIGTERM, Ctrl-C and on Windows Ctrl-Break set; a second Ctrl-C ends the process."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, ask)  # what stops a service, or a process of another console
    return stop


def reread_on_sighup(roster: Roster, config: Path) -> None:
    """Read the configuration again on SIGHUP: machines come, change and go."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, lambda number, frame: roster.reread(config))


def introduce(machine: Machine, history: Path) -> None:
    """Print a machine's windows, when it alarms, and the false alarms to expect."""
    from nearfar.live.rules.setpoint import MORE

    LOG.info(f"{machine.id}: windows of {machine.detector.window_s:g} s every {machine.hop_s:g} s")
    for line in machine.expected_alarms():
        LOG.info(f"{machine.id}: {line}")
    LOG.info(f"{machine.id}: {MORE} {history}")


def _end(printer: Printer, assembly: Assembly, failures: Failures, once: bool, fail_on_alarm: bool) -> None:
    LOG.info(printer.summary())
    if once and not printer.windows:
        from nearfar.audio.recordings import READS

        done = assembly.plant.history.folder / "heard"
        LOG.warning(f"nothing new: nearfar reads {READS}, and each file once (remove {done} to read all again)")
    if assembly.monitor.dropped:
        dropped = assembly.monitor.dropped
        LOG.warning(f"{dropped} windows were dropped: this computer is too slow for that many machines")
    if fail_on_alarm and printer.counts["alarm"] + printer.counts["health"]:
        raise typer.Exit(ALARM)
    raise typer.Exit(BAD_INPUT if once and failures.files else DONE)
