"""Channels to people that come and go while the plant runs: `channels.json` of the history keeps those that were added.

Their addresses are those of SCHEMES only: whoever may change the plant shall not make it send to other servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nearfar.errors import BadInput, ConfigError, Conflict, NotFound
from nearfar.live.config import NotifyConfig, PlantConfig, read_channel
from nearfar.live.plant import Plant
from nearfar.live.sinks.notify import Channel, open_address
from nearfar.support.files import read_json, write_json

ADDED = "channels.json"
SCHEMES = ("ntfy", "ntfys", "tgram", "slack", "msteams", "workflows", "discord", "pover", "mailto", "mailtos")


def channels(config: PlantConfig) -> dict[str, NotifyConfig]:
    """The channels of a configuration, and those that were added to its plant."""
    return {
        **{name: read_channel(name, table) for name, table in _read(config.history.folder).items()},
        **config.notify,
    }


class Channels:
    """The channels of a running plant."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    @property
    def all(self) -> dict[str, Channel]:
        """All channels by their names."""
        return {sink.label: sink for sink in self.plant.sinks if isinstance(sink, Channel)}

    @property
    def added(self) -> frozenset[str]:
        """The names of those that were added, and can be removed."""
        return frozenset(_read(self.plant.history.folder))

    def get(self, name: str) -> Channel:
        """One channel; NotFound if there is none."""
        known = self.all
        if name not in known:
            raise NotFound(f"there is no channel {name!r}; there are: {', '.join(known) or 'none'}")
        return known[name]

    def put(self, name: str, table: Mapping[str, Any], who: str) -> Channel:
        """Add a channel, or replace one that was added. BadInput for a wrong table, Conflict for one of plant.toml."""
        plant, added = self.plant, _read(self.plant.history.folder)
        if name in self.all and name not in added:
            raise Conflict(f"the channel {name!r} stands in plant.toml: change it there")
        scheme = str(table.get("url", "")).partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise BadInput(f"an address begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
        check_machines(plant, table.get("machines", ()))
        try:
            rules = read_channel(name, table)
            open_address(rules)
        except (ConfigError, ImportError, ValueError) as error:
            raise BadInput(str(error)) from None
        write_json(plant.history.folder / ADDED, {**added, name: dict(table)})
        if (old := self.all.get(name)) is not None:
            self._close(old)
        made = Channel(name, rules, plant.machines, plant.history, clock=plant.clock, language=plant.language)
        plant.sinks.append(made)
        plant.operator.audit(who, "", "channel added", name=name)
        return made

    def remove(self, name: str, who: str) -> None:
        """Remove a channel that was added, with its undelivered messages."""
        channel, folder = self.get(name), self.plant.history.folder
        added = _read(folder)
        if name not in added:
            raise Conflict(f"the channel {name!r} stands in plant.toml: remove it there")
        write_json(folder / ADDED, {other: table for other, table in added.items() if other != name})
        self._close(channel)
        self.plant.history.outbox.remove(channel.name)
        self.plant.operator.audit(who, "", "channel removed", name=name)

    def _close(self, channel: Channel) -> None:
        self.plant.sinks.remove(channel)
        channel.close(0.0)


def check_machines(plant: Plant, ids: Iterable[str]) -> None:
    """BadInput for an id that no machine of the plant has."""
    if unknown := [id for id in ids if id not in plant.machines]:
        raise BadInput(f"there is no machine {unknown[0]!r}; there are: {', '.join(plant.machines)}")


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """{name: table} of the channels that were added. ValueError if the file is damaged."""
    return read_json(folder / ADDED, _parsed, {}, "channels are those of plant.toml")


def _parsed(found: Any) -> dict[str, dict[str, Any]]:
    return {str(name): dict(table) for name, table in found.items()}
