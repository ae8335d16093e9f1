"""Machines that come, change and go while the plant runs: by the API, by the configuration, by a new model.

    put      open the new machine, stop the source of the old one, put the new one in its place
    remove   stop its source, end its events; scores, events and audit stay
    check    every second: read the configuration again if that was asked for, and open machines anew whose model
             needs another source

A change by the API outlives a restart: `machines.json` of the history keeps it until the machine's table in the
configuration file changes, and then the file counts. A change that fails leaves the machine as it was.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nearfar.errors import BadInput, Conflict
from nearfar.live.config import MachineConfig, PlantConfig, read, read_machine
from nearfar.live.history.records import Audit
from nearfar.live.machine import Machine, Shared, check_name, open_machine
from nearfar.live.monitor import Monitor, Warn
from nearfar.live.plant import Plant
from nearfar.live.sources.devices import FORMATS as DEVICES
from nearfar.live.sources.open import Source
from nearfar.live.sources.streams import hide
from nearfar.support.files import read_json, write_json

CHANGED = "machines.json"  # of the history
SCHEMES = ("rtsp", "rtsps", "http", "https", "srt", "rtp", "udp")  # of sources that the API may open
ADDED, REPLACED, REMOVED = "machine added", "machine replaced", "machine removed"  # actions of the audit
BY_FILE, BY_MODEL = "the configuration", "another command"  # who does it, for the audit


@runtime_checkable
class FollowsMachines(Protocol):
    """A sink that keeps something for each machine."""

    def add_machine(self, machine: Machine, at: float) -> None:
        """A machine is new, or takes the place of the one with its id."""

    def remove_machine(self, id: str) -> None:
        """A machine has gone."""


@dataclass(frozen=True)
class Change:
    """What the API made of a machine (None: removed), and the digest of the table that the file had then."""

    table: Mapping[str, Any] | None
    instead_of: str


class Roster:
    """The machines of a running plant; `configs` {id: table} are those that it has now.

    `open_source(machine, table)` opens the source of a machine. `check` is to be called every second.
    """

    def __init__(
        self,
        config: PlantConfig,
        plant: Plant,
        monitor: Monitor,
        shared: Shared,
        open_source: Callable[[Machine, MachineConfig], Source],
        warn: Warn,
    ) -> None:
        self.plant, self.monitor, self.shared, self.open_source, self.warn = plant, monitor, shared, open_source, warn
        self.config, self.configs = config, {id: current(config)[id] for id in plant.machines}
        self._reread: Path | None = None
        self._changes, self._unwritten = read_changes(config.history.folder), False
        self._lock = threading.RLock()

    def put(self, id: str, table: Mapping[str, Any], who: str, *, here: bool = False) -> Audit:
        """Add or replace a machine for the API. BadInput for a table that is wrong, or that the API may not give.

        `here`: it is asked for at this computer, whose user may give paths.
        """
        with self._lock:
            old = self.configs.get(id)
            try:
                check_name("machine id", id, self.configs)
                config = read_machine(id, table)
                if not here:
                    self._check_allowed(config)
                if old is not None:  # what the API cannot give stays
                    config = config.model_copy(update={"weights": old.weights, "ffmpeg": old.ffmpeg})
                audit = self._put(id, config, who)
            except (ValueError, ImportError, OSError) as error:
                raise BadInput(str(error)) from None
            self._remember(id, config)
            return audit

    def remove(self, id: str, who: str) -> Audit:
        """Remove a machine for the API. Conflict if it is the last one."""
        with self._lock:
            audit = self._remove(id, who)
            self._remember(id, None)
            return audit

    def reread(self, file: Path) -> None:
        """Follow the configuration in a file at the next check; safe in a signal handler."""
        self._reread = file

    def check(self) -> None:
        """See the module."""
        if self._unwritten:
            with self._lock, suppress(OSError):
                self._write()
        if file := self._reread:
            self._reread = None
            try:
                self.follow(read(file))
            except (ValueError, OSError) as error:
                self.warn(f"the configuration of before goes on: {error}")
        self.plant.follow_models()
        for machine in self.plant.machines.values():
            if machine.outdated:
                with self._lock:
                    self._try(self._put, machine.id, self.configs[machine.id], BY_MODEL)
                machine.outdated = False  # if it could not be opened, until the folder changes again

    def follow(self, config: PlantConfig) -> None:
        """Make the machines those of a configuration that has been read again; says what needs a restart."""
        with self._lock:
            wanted = current(config)
            others = [
                name
                for name in PlantConfig.model_fields
                if name != "machines" and getattr(config, name) != getattr(self.config, name)
            ]
            self.config = config.model_copy(update={name: getattr(self.config, name) for name in others})
            if others:
                self.warn(f"changed in the configuration, and used after a restart: {', '.join(others)}")
            for id, table in wanted.items():
                if self.configs.get(id) != table:
                    self._try(self._put, id, table, BY_FILE)
            for id in self.configs.keys() - wanted.keys():
                self._try(self._remove, id, BY_FILE)
            kept = {id: c for id, c in self._changes.items() if c.instead_of == digest(config.machines.get(id))}
            if kept != self._changes:
                self._changes = kept
                self._save()

    def _try(self, change: Callable[..., Audit], id: str, *arguments: Any) -> None:
        try:
            self.warn(f"{id}: {change(id, *arguments).action}")
        except (ValueError, ImportError, OSError) as error:
            self.warn(f"{id}: cannot be changed, and goes on as before: {error}")

    def _put(self, id: str, config: MachineConfig, who: str) -> Audit:
        machine = open_machine(id, config, site=self.config.site, shared=self.shared)
        old = self.plant.machines.get(id)
        self.monitor.remove(id)  # first: both may read the same folder or device
        try:
            source = self.open_source(machine, config) if config.source else None
        except BaseException:
            if old is not None and self.configs[id].source:
                self.monitor.add(id, self.open_source(old, self.configs[id]))
            raise
        self.plant.put(machine)
        self.configs[id] = config
        for sink in self.plant.sinks:
            if isinstance(sink, FollowsMachines):
                sink.add_machine(machine, self.plant.clock())
        self.plant.recorders[id].end_interrupted(self.plant.clock())
        if source is not None:
            self.monitor.add(id, source)
        self._forget_encoders()
        about = {"model": str(config.model), "source": [hide(name) for name in config.source]}
        return self.plant.operator.audit(who, id, ADDED if old is None else REPLACED, **about)

    def _remove(self, id: str, who: str) -> Audit:
        machine = self.plant.machines[id]
        if len(self.plant.machines) == 1 and self.config.models is None:
            raise Conflict(f"{machine.name} is the only machine, and a plant has at least one: add another one first")
        self.monitor.remove(id)
        self.plant.remove(id)
        del self.configs[id]
        for sink in self.plant.sinks:
            if isinstance(sink, FollowsMachines):
                sink.remove_machine(id)
        self._forget_encoders()
        return self.plant.operator.audit(who, id, REMOVED)

    def _forget_encoders(self) -> None:
        """Drop the encoders that no machine needs any more."""
        used = {id(e) for machine in self.plant.machines.values() for e in machine.detector.encoders.values()}
        for key in [key for key, encoder in self.shared.items() if id(encoder) not in used]:
            del self.shared[key]

    def _check_allowed(self, config: MachineConfig) -> None:
        """BadInput for what the API may not open: other folders of models, paths, further options of ffmpeg."""
        homes = [self.config.models] if self.config.models else []
        places = sorted({str(place.resolve()) for place in [*homes, *(c.model.parent for c in self.configs.values())]})
        if str(config.model.resolve().parent) not in places:
            raise BadInput(f"{config.model} must lie beside the models of the plant, in {' or '.join(places)}")
        known = {name for c in self.configs.values() for name in c.source}
        check_sources(name for name in config.source if name not in known)

    def _remember(self, id: str, config: MachineConfig | None) -> None:
        table = None if config is None else config.model_dump(mode="json", exclude_defaults=True)
        self._changes[id] = Change(table, digest(self.config.machines.get(id)))
        self._save()

    def _save(self) -> None:
        """Write the changes; while the disk does not allow it, `check` tries again."""
        self._unwritten = True
        try:
            self._write()
        except OSError as error:
            self.warn(f"changes of machines count, and a restart would forget them: {error}")

    def _write(self) -> None:
        plain = {id: {"table": c.table, "instead_of": c.instead_of} for id, c in self._changes.items()}
        write_json(self.config.history.folder / CHANGED, plain)
        self._unwritten = False


def check_sources(names: Iterable[str]) -> None:
    """BadInput for a source that the API may not open: it may open microphones and URLs, no paths."""
    for name in names:
        scheme, colon, _ = name.partition("://")
        if not (colon and scheme.lower() in SCHEMES) and name.partition(":")[0] not in ("mic", *DEVICES):
            raise BadInput(
                f"source {hide(name)!r} must be a microphone or a URL ({', '.join(SCHEMES)}); "
                "a path is given in plant.toml"
            )


def current(config: PlantConfig) -> dict[str, MachineConfig]:
    """The machines of a configuration with the changes by the API that its file has not overtaken."""
    machines = dict(config.machines)
    for id, change in read_changes(config.history.folder).items():
        if change.instead_of == digest(config.machines.get(id)):
            machines.pop(id, None)
            if change.table is not None:
                machines[id] = read_machine(id, change.table)
    return machines


def read_changes(folder: Path) -> dict[str, Change]:
    """The changes by the API that the history in `folder` keeps. ValueError if the file is damaged."""
    return read_json(folder / CHANGED, _parsed, {}, "machines are those of the configuration")


def _parsed(changes: Any) -> dict[str, Change]:
    return {id: Change(**change) for id, change in changes.items()}


def digest(table: MachineConfig | None) -> str:
    """A digest of a machine's table, "" for none; the table itself may have passwords."""
    return "" if table is None else hashlib.sha256(table.model_dump_json().encode()).hexdigest()
