"""The report that comes by itself, as it is set while the plant runs: `report.json` of the history keeps it.

[report] in plant.toml counts if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.errors import BadInput, ConfigError, Conflict, NotFound
from nearfar.live.channels import Channels, check_machines
from nearfar.live.config import PlantConfig, ReportConfig, read_report
from nearfar.live.plant import Plant
from nearfar.live.report.schedule import ScheduledReports
from nearfar.support.files import read_json, write_json

SET = "report.json"


def report_of(config: PlantConfig) -> ReportConfig | None:
    """The report of a configuration, else the one that was set in its plant, or None."""
    return config.report or _read(config.history.folder)


class Reports:
    """The report of a running plant: set, changed, and taken back."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    @property
    def is_set(self) -> bool:
        """Whether the report was set here, and can be changed; else it is that of plant.toml, or there is none."""
        return self.plant.reports is not None and self.plant.reports.config == _read(self.plant.history.folder)

    def put(self, table: Mapping[str, Any], who: str) -> ScheduledReports:
        """Set the report, from now on. BadInput for a wrong table, Conflict if plant.toml has one."""
        plant = self.plant
        if plant.reports is not None and not self.is_set:
            raise Conflict("the report stands in plant.toml: change it there")
        check_machines(plant, table.get("machines", ()))
        try:
            for name in table.get("channels", ()):
                Channels(plant).get(name)
            config = read_report(table)
        except (ConfigError, NotFound) as error:
            raise BadInput(str(error)) from None
        assert config is not None
        write_json(plant.history.folder / SET, dict(table))
        plant.reports = ScheduledReports(config, plant.site, plant.machines, plant.reporter, plant.clock)
        plant.reports.begin()
        plant.operator.audit(who, "", "report set", every=config.every, at=config.at, channels=list(config.channels))
        return plant.reports

    def remove(self, who: str) -> ScheduledReports:
        """Take back the report that was set here. NotFound without one, Conflict for the one of plant.toml."""
        reports = self.plant.reports
        if reports is None:
            raise NotFound("no report comes by itself")
        if not self.is_set:
            raise Conflict("the report stands in plant.toml: remove it there")
        (self.plant.history.folder / SET).unlink(missing_ok=True)
        self.plant.reports = None
        self.plant.operator.audit(who, "", "report ended")
        return reports


def _read(folder: Path) -> ReportConfig | None:
    return read_json(folder / SET, read_report, None, "the report is that of plant.toml")
