"""Home Assistant's discovery over MQTT: a machine as a device with its entities (`mqtt` publishes them, retained)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.live.machine import Machine

DISCOVERY = "homeassistant"
COMMAND = "command"
SHELVED_H = 8  # by the switch
ENTITIES = {
    "Score": "sensor",
    "Set-point": "sensor",
    "Alarm": "binary_sensor",
    "Unusual": "binary_sensor",
    "Microphones": "binary_sensor",
}
COMMANDING = {"Acknowledge": "button", "Shelved": "switch", "Alarm above": "number"}  # with `commands`


def _unique_id(site: str, machine: str, name: str) -> str:
    return f"nearfar_{site}_{machine}_{name.lower().replace('-', '_').replace(' ', '_')}"


def discovery_topics(site: str, machine: str, entities: Mapping[str, str] = ENTITIES) -> list[str]:
    """The topics of Home Assistant's discovery for a machine, one for each of `entities`."""
    return [f"{DISCOVERY}/{kind}/{_unique_id(site, machine, name)}/config" for name, kind in entities.items()]


def discovery(
    machine: Machine, prefix: str, url: str = "", *, commands: bool = False, say: Callable[[str], str] = str
) -> list[tuple[str, dict[str, Any]]]:
    """(topic, configuration) of the entities of a machine in Home Assistant: ENTITIES, with `commands` COMMANDING too.

    `say` gives their names in the language of the plant. All but the microphones are available while the microphones
    work, and expire when no window comes.
    """
    base, version = f"{prefix}/{machine.site}/{machine.id}", version_of("nearfar")
    score, health = f"{base}/score", f"{base}/health"
    device = {
        "identifiers": [f"nearfar_{machine.site}_{machine.id}"],
        "name": machine.name,
        "manufacturer": "nearfar",
        "model": machine.model.name,
        "sw_version": version,
        **({"configuration_url": f"{url.rstrip('/')}/machine/{machine.id}"} if url.startswith("http") else {}),
    }
    shared = {"device": device, "origin": {"name": "nearfar", "sw_version": version}}

    def available(words: str) -> dict[str, Any]:
        template = f"{{{{ 'online' if value_json.health in [{words}] else 'offline' }}}}"
        return {"availability": [{"topic": health, "value_template": template}]}

    alarm = "{{ 'ON' if value_json.state in ['unacknowledged alarm', 'acknowledged alarm'] else 'OFF' }}"
    unusual = "{{ 'ON' if value_json.unusual_stands else 'OFF' }}"
    trouble = "{{ 'ON' if value_json.health == 'problem' else 'OFF' }}"
    measured = {"unit_of_measurement": "σ", "state_class": "measurement", "suggested_display_precision": 1}
    heard = available("'ok'")
    if math.isfinite(machine.source_health.silence_s):  # a folder may stay empty for days
        heard["expire_after"] = math.ceil(machine.source_health.silence_s + machine.detector.window_s)
    problem = {"device_class": "problem"}
    parts: dict[str, tuple[str, str, dict[str, Any]]] = {
        "Score": (score, "{{ value_json.score if value_json.anomalous is not none else none }}", {**measured, **heard}),
        "Set-point": (score, "{{ value_json.threshold }}", {**measured, **heard}),
        "Alarm": (score, alarm, {**problem, **heard}),
        "Unusual": (score, unusual, {"icon": "mdi:ear-hearing", **heard}),
        "Microphones": (
            health,
            trouble,
            {**problem, "entity_category": "diagnostic", **available("'ok', 'problem', 'waiting'")},
        ),
    }
    found: dict[str, dict[str, Any]] = {
        name: {"state_topic": topic, "value_template": template, **more}
        for name, (topic, template, more) in parts.items()
    }
    found |= _commands(base, available("'ok', 'problem', 'waiting'"))
    entities = {**ENTITIES, **(COMMANDING if commands else {})}
    return [
        (at, {"name": say(name), "unique_id": _unique_id(machine.site, machine.id, name), **found[name], **shared})
        for name, at in zip(entities, discovery_topics(machine.site, machine.id, entities), strict=True)
    ]


def _commands(base: str, available: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of the entities of COMMANDING."""
    to = f"{base}/{COMMAND}"
    acknowledge = {"command_topic": f"{to}/acknowledge", "payload_press": '{"who": "Home Assistant"}'}
    shelve = {
        "command_topic": f"{to}/shelve",
        "payload_on": json.dumps({"hours": SHELVED_H, "who": "Home Assistant"}),
        "payload_off": '{"hours": 0, "who": "Home Assistant"}',
        "state_topic": f"{base}/state",
        "value_template": "{{ 'ON' if value_json.state == 'shelved' else 'OFF' }}",
        "state_on": "ON",
        "state_off": "OFF",
    }
    set_point = {
        "command_topic": f"{to}/set-point",
        "command_template": '{"value": {{ value }}, "who": "Home Assistant"}',
        "state_topic": f"{base}/score",
        "value_template": "{{ value_json.threshold }}",
        "unit_of_measurement": "σ",
        "min": 0,
        "max": 1000,
        "step": 0.1,
        "mode": "box",
    }
    found: dict[str, dict[str, Any]] = {"Acknowledge": acknowledge, "Shelved": shelve, "Alarm above": set_point}
    return {name: {**entity, **available} for name, entity in found.items()}
