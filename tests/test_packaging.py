"""What is shipped for the plant: every metric in dashboards and alert rules exists, and the example is understood."""

import configparser
import importlib.util
import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from nearfar.cli import app
from nearfar.live.config import read
from nearfar.live.server.connections import MOST
from nearfar.live.sinks.prometheus import Metrics

PACKAGING = Path(__file__).parents[1] / "packaging"
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


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
    config = read(PACKAGING / "plant.toml", {"CAMERA_PASSWORD": "x", "NTFY_TOPIC": "y"})
    assert len(config.machines) == 3 and config.machines["fan1"].silence_s == 60
    assert all(getattr(config, table) is not None for table in type(config).model_fields if table != "models")
    text = (PACKAGING / "plant.toml").read_text()
    tables = [type(config.machines["pump3"]), type(config.machines["pump3"].alarm)]
    tables += [type(config.notify["shift"]), type(config.maintenance[0])]
    tables += [
        type(getattr(config, name))
        for name in type(config).model_fields
        if name not in ("machines", "site", "url", "language", "models", "notify", "maintenance")
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


def instructions(file: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest) of a container file."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def command_of(arguments: list[str]) -> None:
    """Parse arguments of `nearfar`, without running them; an error if they are wrong."""
    command = get_command(app).commands[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]))


@pytest.mark.parametrize("file", ["Containerfile", "homeassistant/Dockerfile"])
def test_container_files_keep_the_rules_of_small_and_safe_images(file):
    found = instructions(PACKAGING / file)
    known = {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in found} <= known | {"CMD", "ENTRYPOINT"} and found[0][0] == "FROM"
    for name, rest in found:
        if name == "FROM":  # a registry and a version, and no name of a machine: the image is for all of them
            assert re.match(r"docker\.io/library/python:3\.\d+-slim", rest) and "--platform" not in rest
        if name == "RUN":
            shlex.split(rest)
            assert "sudo" not in rest and "curl" not in rest
            if "apt-get install" in rest:
                assert "--no-install-recommends -y" in rest and "rm -rf /var/lib/apt/lists/*" in rest
                assert rest.index("apt-get update") < rest.index("apt-get install")
            if "pip install" in rest:
                assert "--no-cache-dir" in rest
        if name in ("CMD", "ENTRYPOINT"):
            assert json.loads(rest)


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
@pytest.mark.parametrize("file", ["Containerfile", "homeassistant/Dockerfile"])
def test_hadolint_finds_nothing(file):
    done = subprocess.run([HADOLINT, str(PACKAGING / file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_serves_the_dashboard_as_a_user_without_rights():
    found = instructions(PACKAGING / "Containerfile")
    last = dict(found)
    names = [name for name, _ in found]
    assert last["USER"] == "10001" and names.index("USER") < names.index("CMD") and names.count("USER") == 1
    assert json.loads(last["ENTRYPOINT"]) == ["nearfar"] and last["EXPOSE"] == "8080"
    arguments = json.loads(last["CMD"])
    command_of(arguments)
    assert arguments[:3] == ["serve", "--config", "/etc/nearfar/plant.toml"]
    assert (
        "8080/healthz" in last["HEALTHCHECK"] and ("COPY", "packaging/container.toml /etc/nearfar/plant.toml") in found
    )
    config = read(PACKAGING / "container.toml")
    assert str(config.history.folder).startswith(last["VOLUME"]) and str(config.models).startswith(last["VOLUME"])
    ignored = (PACKAGING.parent / ".dockerignore").read_text().splitlines()
    assert ".git" in ignored and ".venv" in ignored and "packaging" not in ignored


def test_the_composition_names_what_exists_and_publishes_to_this_computer_alone():
    compose = yaml.safe_load((PACKAGING / "compose.yaml").read_text())
    assert compose.keys() == {"name", "services", "volumes"}
    services = compose["services"]
    assert set(services) == {"nearfar", "mosquitto", "prometheus", "grafana"}
    for service in services.values():
        assert service["cap_drop"] == ["ALL"] and service["restart"] == "unless-stopped"
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", []))
        assert all(other in services for other in service.get("depends_on", []))
        assert "build" in service or re.search(r":v?\d", service["image"])
        for mount in service["volumes"]:
            source, target, *mode = mount.split(":")
            if source.startswith("."):
                assert (PACKAGING / source).exists() and mode == ["ro"]
            else:
                assert source in compose["volumes"] and target.startswith("/")
    build = services["nearfar"]["build"]
    assert ((PACKAGING / build["context"]).resolve() / build["dockerfile"]).is_file()
    config = read(PACKAGING / "compose/plant.toml")
    assert config.mqtt.host in services and config.metrics.address == "0.0.0.0"
    scrape = yaml.safe_load((PACKAGING / "compose/prometheus.yml").read_text())
    assert scrape["scrape_configs"][0]["static_configs"][0]["targets"] == [f"nearfar:{config.metrics.port}"]
    assert scrape["scrape_configs"][0]["job_name"] in (PACKAGING / "alerts.yml").read_text()
    datasource = yaml.safe_load((PACKAGING / "compose/datasource.yml").read_text())["datasources"][0]
    assert datasource["type"] == "prometheus" and datasource["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((PACKAGING / "compose/dashboards.yml").read_text())["providers"][0]
    assert any(f":{provider['options']['path']}:" in mount for mount in services["grafana"]["volumes"])


def start_of_the_add_on():
    spec = importlib.util.spec_from_file_location("start", PACKAGING / "homeassistant/start.py")
    start = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(start)
    return start


def test_the_add_on_is_one_and_has_the_version_of_the_package():
    config = yaml.safe_load((PACKAGING / "homeassistant/config.yaml").read_text())
    assert {"name", "slug", "version", "description", "arch"} <= config.keys()
    assert config["version"] == version("nearfar") and set(config["arch"]) == {"amd64", "aarch64"}
    assert config["options"].keys() == config["schema"].keys()
    assert config["ports"].keys() == config["ports_description"].keys() == {"8080/tcp"}
    copied = dict(instructions(PACKAGING / "homeassistant/Dockerfile"))["COPY"].split()
    assert copied[0] == "start.py" and (PACKAGING / "homeassistant" / copied[0]).is_file()


def test_the_add_on_makes_a_plant_of_its_options_and_of_the_broker(tmp_path, monkeypatch):
    start, ran = start_of_the_add_on(), []
    monkeypatch.setattr(start, "DATA", tmp_path / "data")
    monkeypatch.setattr(start, "CONFIG", tmp_path / "config")
    monkeypatch.setattr(start.os, "execvp", lambda program, arguments: ran.append(arguments))
    mqtt = {"host": "core-mosquitto", "port": 1883, "username": "addons", "password": 'p"w', "ssl": False}
    monkeypatch.setattr(start, "broker", lambda: mqtt)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "options.json").write_text(
        json.dumps({"token": "s3cret-of-the-house-00000000", "commands": True})
    )
    start.main()
    config = read(tmp_path / "data" / "plant.toml")
    assert config.mqtt.host == "core-mosquitto" and config.mqtt.commands and config.mqtt.username == "addons"
    assert config.mqtt.password_file.read_text() == 'p"w\n' and config.models == tmp_path / "data" / "models"
    assert ran[0][0] == "nearfar" and (tmp_path / "data" / "token").read_text() == "s3cret-of-the-house-00000000\n"
    command_of(ran[0][1:])
    monkeypatch.setattr(start, "broker", dict)
    start.main()
    assert read(tmp_path / "data" / "plant.toml").mqtt is None
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "plant.toml").write_text('models = "/data/models"\n')
    start.main()
    assert str(tmp_path / "config" / "plant.toml") in ran[2]


def test_launchd_and_winsw_run_what_exists():
    with (PACKAGING / "macos/nearfar.plist").open("rb") as file:
        agent = plistlib.load(file)
    shell, option, line = agent["ProgramArguments"]
    words = shlex.split(line.replace("$HOME", "/Users/anna").replace("2>&1", ""), posix=True)
    at = next(i for i, word in enumerate(words) if word.endswith("/bin/nearfar"))
    assert (shell, option, agent["KeepAlive"]) == ("/bin/sh", "-c", True) and agent["Label"] in Path(
        file.name
    ).read_text()
    command_of([word for word in words[at + 1 :] if not word.startswith(">>")])
    service = ET.parse(PACKAGING / "windows/nearfar.xml").getroot()
    assert service.find("id").text == "nearfar" and service.find("executable").text.endswith("nearfar.exe")
    command_of(service.find("arguments").text.split())
