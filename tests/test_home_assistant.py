"""Discovery against what Home Assistant's documentation of MQTT allows, with its templates rendered by Jinja2."""

import json
import math
from types import SimpleNamespace

import jinja2
import pytest

from nearfar.live.sinks.home_assistant import discovery, discovery_topics
from test_sinks import PUMP, health, score

SHARED = {
    "name": str, "unique_id": str, "state_topic": str, "value_template": str, "availability": list, "device": dict,
    "origin": dict, "device_class": str, "entity_category": str, "expire_after": int, "icon": str,
}  # fmt: skip
KEYS = {
    "sensor": {**SHARED, "unit_of_measurement": str, "state_class": str, "suggested_display_precision": int},
    "binary_sensor": SHARED,
}
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version", "configuration_url"}
ORIGIN = {"name", "sw_version", "support_url"}


def render(template, body):
    """A value template as Home Assistant renders it."""
    return jinja2.Environment().from_string(template).render(value_json=body)


def configs(machine=PUMP, url=""):
    return {config["name"]: config for _, config in discovery(machine, "nearfar", url)}


@pytest.mark.parametrize("url", ["", "https://plant.example/hall2/"])
def test_every_entity_is_one_that_home_assistant_knows(url):
    for topic, config in discovery(PUMP, "nearfar", url):
        root, kind, name, end = topic.split("/")
        assert (root, end) == ("homeassistant", "config") and name == config["unique_id"]
        for key, value in config.items():
            assert isinstance(value, KEYS[kind][key]), key
        assert {"name", "unique_id", "state_topic"} <= config.keys()
        assert config.get("device_class") in (None, "problem")
        assert config.get("entity_category") in (None, "diagnostic") and config.get("expire_after", 1) > 0
        assert config.get("state_class") in (None, "measurement")
        assert config["device"].keys() <= DEVICE and config["device"]["identifiers"]
        assert config["origin"].keys() <= ORIGIN and config["origin"]["name"] == "nearfar"
        for place in config["availability"]:
            assert place.keys() <= {"topic", "value_template", "payload_available", "payload_not_available"}
        expected = f"{url}machine/pump" if url else None
        assert config["device"].get("configuration_url") == expected
    assert [topic for topic, _ in discovery(PUMP, "nearfar")] == discovery_topics("north", "pump")


def test_a_score_that_cannot_be_relied_on_is_not_available():
    found = configs()
    for word, reliable in (("ok", True), ("problem", False), ("offline", False), ("waiting", False)):
        body = json.loads(health(word).json())
        for name in ("Score", "Set-point", "Alarm", "Unusual"):
            (place,) = found[name]["availability"]
            assert (render(place["value_template"], body) == "online") is reliable, (name, word)
        (place,) = found["Microphones"]["availability"]
        assert (render(place["value_template"], body) == "online") is (word != "offline")
        assert render(found["Microphones"]["value_template"], body) == ("ON" if word == "problem" else "OFF")


def test_the_numbers_are_those_of_the_message():
    found, body = configs(), json.loads(score(4.5).json())
    assert render(found["Score"]["value_template"], body) == "4.5"
    assert render(found["Set-point"]["value_template"], body) == "3.0"
    assert render(found["Alarm"]["value_template"], body) == "OFF"
    assert render(found["Alarm"]["value_template"], {**body, "state": "acknowledged alarm"}) == "ON"
    assert render(found["Score"]["value_template"], json.loads(score(anomalous=None).json())) == "None"  # unknown
    assert render(found["Unusual"]["value_template"], body) == "OFF"
    assert render(found["Unusual"]["value_template"], json.loads(score(unusual=True).json())) == "ON"


def test_values_expire_when_a_stream_falls_silent_and_a_folder_may_stay_empty():
    assert configs()["Score"]["expire_after"] == configs()["Alarm"]["expire_after"] == 40
    assert "expire_after" not in configs()["Microphones"]
    folder = SimpleNamespace(**{**vars(PUMP), "source_health": SimpleNamespace(silence_s=math.inf)})
    assert all("expire_after" not in config for config in configs(folder).values())
