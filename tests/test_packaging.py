"""What is shipped for the plant: every metric in dashboards and alert rules exists, and the example is understood."""

import configparser
import json
import re
from pathlib import Path

import pytest

from nearfar.live.config import read
from nearfar.live.server.connections import MOST
from nearfar.live.sinks.prometheus import Metrics

PACKAGING = Path(__file__).parents[1] / "packaging"


def exported() -> set[str]:
    """The names of all series that the registry gives."""
    names = set()
    for family in Metrics().registry.collect():
        names |= {family.name, *(f"{family.name}{ending}" for ending in SERIES[family.type])}
        names -= {family.name} if family.type != "gauge" else set()
    return names


SERIES = {"gauge": [""], "counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}


@pytest.mark.parametrize("file", ["grafana/nearfar.json", "alerts.yml"])
def test_every_metric_that_is_shown_or_watched_exists(file):
    text = (PACKAGING / file).read_text()
    if file.endswith("json"):
        dashboard = json.loads(text)
        expressions = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
        expressions += [v["query"] for v in dashboard["templating"]["list"]]
    else:
        expressions = re.findall(r"expr: (.*)", text)
    used = {name for e in expressions for name in re.findall(r"\bnearfar_\w+", e)}
    assert len(used) >= 4 and used <= exported(), used - exported()


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    panels = json.loads((PACKAGING / "grafana/nearfar.json").read_text())["panels"]
    cells = [
        (x, y)
        for p in panels
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({p["id"] for p in panels}) == len(panels)


def test_the_example_names_every_key_and_is_understood():
    config = read(PACKAGING / "plant.toml", {"CAMERA_PASSWORD": "x"})
    assert len(config.machines) == 3 and config.machines["fan1"].silence_s == 60
    assert all(getattr(config, table) is not None for table in type(config).model_fields if table != "models")
    text = (PACKAGING / "plant.toml").read_text()
    tables = [type(config.machines["pump3"]), type(config.machines["pump3"].alarm)]
    tables += [
        type(getattr(config, name))
        for name in type(config).model_fields
        if name not in ("machines", "site", "url", "models")
    ]
    for table in tables:
        for key in table.model_fields:
            assert re.search(rf"^(# )?{key} = |\.{key}\]", text, re.MULTILINE), f"{table.__name__}.{key}"


def test_the_unit_runs_what_exists_and_may_write_to_one_place_only():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string((PACKAGING / "nearfar.service").read_text())
    service = unit["Service"]
    assert service["ExecStart"].endswith("nearfar monitor --config /etc/nearfar/plant.toml")
    assert service["ProtectSystem"] == "strict" and service["StateDirectory"] == "nearfar"
    assert int(service["LimitNOFILE"]) >= 4 * MOST
    assert "ReadWritePaths" not in service and service["NoNewPrivileges"] == "yes"
    container = (PACKAGING / "Containerfile").read_text()
    assert "USER 10001" in container and '"monitor", "--config", "/etc/nearfar/plant.toml"' in container
