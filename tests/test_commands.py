"""Commands by MQTT: what they do, who is in the audit, and what is refused."""

import json
import shutil

import jinja2
import pytest

from brokers import Listener, Mosquitto, wait_for
from nearfar.errors import BadInput, Conflict
from nearfar.live.build import build_plant
from nearfar.live.config import MqttConfig, from_options
from nearfar.live.history.history import History
from nearfar.live.sinks.commands import carry_out
from nearfar.live.sinks.home_assistant import COMMANDING, ENTITIES, discovery
from nearfar.live.sinks.mqtt import Mqtt
from plants import T0, plant_of, windows
from test_notify import Receiver
from test_sinks import FAN, PUMP

FAULTY = ["", "", "", *["hiss"] * 4, *[""] * 8]


@pytest.fixture
def plant(pump_model, tmp_path):
    model = shutil.copytree(pump_model, tmp_path / "pump")
    made, _, _ = plant_of(model, tmp_path / "history")
    yield made
    made.history.close()


def test_a_command_does_what_a_person_does_and_names_who(plant):
    for window in windows(FAULTY):
        plant.process_window("pump", window)
    do = plant.operator
    assert carry_out(do, "pump", "acknowledge", b'{"who": "Anna"}') == "event 1 is acknowledged"
    assert plant.history.event(1).acknowledged_by == "Anna (MQTT)"
    with pytest.raises(Conflict, match="no alarm of pump waits"):
        carry_out(do, "pump", "acknowledge", b"")
    assert carry_out(do, "pump", "shelve", b"8") == "shelved for 8 h"
    assert plant.machines["pump"].alarm.state(plant.clock()) == "shelved"
    assert carry_out(do, "pump", "shelve", b'{"hours": 0}') == "alarms are raised again"
    assert plant.machines["pump"].alarm.state(plant.clock()) == "normal"
    assert carry_out(do, "pump", "set-point", b"4.5") == "alarm above 4.50, before 6.00"
    assert plant.machines["pump"].alarm.on == 4.5
    actions = [(a.action, a.who) for a in plant.history.audit()]
    nobody = "somebody at MQTT"
    assert actions == [("set-point", nobody), ("unshelve", nobody), ("shelve", nobody), ("acknowledge", "Anna (MQTT)")]


@pytest.mark.parametrize(
    ("name", "payload", "says"),
    [
        ("reboot", b"", "there is no command 'reboot'"),
        ("shelve", b"", "takes hours"),
        ("shelve", b"-1", "more than 0"),
        ("shelve", b"true", "not b'true'"),
        ("shelve", b'{"hours": "8"}', "hours"),
        ("shelve", b'{"hours": 8, "value": 3}', "value"),
        ("set-point", b'{"value": 3, "false_alarms_per_week": 1}', "one of them"),
        ("set-point", b"NaN", "value"),
        ("acknowledge", b"7", "not b'7'"),
        ("acknowledge", b"\xff", "a JSON object"),
        ("acknowledge", b"[" * 5000, "a JSON object"),
    ],
)
def test_a_wrong_command_changes_nothing_and_says_what_is_right(plant, name, payload, says):
    with pytest.raises(BadInput, match=says):
        carry_out(plant.operator, "pump", name, payload)
    assert plant.history.audit() == []


def test_a_broker_carries_commands_and_answers(plant, tmp_path):
    broker = Mosquitto(tmp_path)
    broker.start()
    config = MqttConfig(host="127.0.0.1", port=broker.port, commands=True)
    early = Listener(broker.port)
    early.client.publish("nearfar/plant/pump/command/shelve", "3", qos=1, retain=True)
    assert wait_for(lambda: early.of("command/shelve"))
    sink = Mqtt(config, list(plant.machines.values()), plant.history, operator=plant.operator)
    plant.sinks.append(sink)
    assert wait_for(lambda: early.of("/answer"))
    assert json.loads(early.of("/answer")[0])["ok"] is False and plant.history.audit() == []  # retained
    early.client.publish("nearfar/plant/pump/command/shelve", '{"hours": 2, "who": "Home Assistant"}', qos=1)
    assert wait_for(lambda: len(early.of("/answer")) == 2)
    assert json.loads(early.of("/answer")[1]) == {"command": "shelve", "ok": True, "message": "shelved for 2 h"}
    assert wait_for(lambda: json.loads(early.of("/state")[-1])["state"] == "shelved")
    assert plant.history.audit()[0].who == "Home Assistant (MQTT)" and not sink.problem
    sink.close()
    early.close()
    broker.stop()


def test_a_plant_of_a_configuration_obeys_and_tells_people(pump_model, tmp_path):
    broker, receiver = Mosquitto(tmp_path), Receiver()
    broker.start()
    model = shutil.copytree(pump_model, tmp_path / "pump")
    (tmp_path / "in").mkdir()
    config = from_options(
        {
            "machines": {"pump": {"model": model, "source": str(tmp_path / "in")}},
            "history": {"folder": tmp_path / "history"},
            "mqtt": {"host": "127.0.0.1", "port": broker.port, "commands": True},
            "notify": {"shift": {"url": f"json://127.0.0.1:{receiver.server_port}/", "sound": False}},
            "maintenance": [{"when": "2026-12-24T06:00/2026-12-24T07:00", "why": "cleaning"}],
        }
    )
    made = build_plant(config, clock=lambda: T0, warn=print, report=print)
    listener = Listener(broker.port)
    for window in windows(FAULTY[:7]):
        made.plant.process_window("pump", window)
    assert wait_for(lambda: receiver.titles == ["Alarm: pump"])
    assert wait_for(lambda: listener.of("pump/health"))  # sent once commands are taken
    assert not made.plant.sinks[-1].problem
    assert wait_for(lambda: listener.client.publish("nearfar/plant/pump/command/acknowledge", "", qos=1).rc == 0)
    assert wait_for(lambda: listener.of("/answer"))
    assert json.loads(listener.of("/answer")[0])["ok"] and made.plant.history.events()[0].acknowledged is not None
    assert made.plant.calendar.entries[0].why == "cleaning"
    made.close()
    listener.close()
    receiver.close()
    broker.stop()


def test_without_commands_nothing_is_taken_and_entities_of_before_are_deleted(tmp_path):
    broker = Mosquitto(tmp_path)
    broker.start()
    history = History(tmp_path / "history")
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    first = Mqtt(config.model_copy(update={"commands": True}), [PUMP, FAN], history)
    watcher = Listener(broker.port, "homeassistant/#")
    assert wait_for(lambda: len(watcher.of("/config")) >= 2 * len(ENTITIES | COMMANDING))
    first.close()
    second = Mqtt(config, [PUMP, FAN], history)
    assert wait_for(lambda: watcher.of("/config").count(b"") == 2 * len(COMMANDING))
    late = Listener(broker.port, "homeassistant/#")
    assert wait_for(lambda: len(late.of("/config")) == 2 * len(ENTITIES))
    second.close()
    late.close()
    watcher.close()
    broker.stop()


def test_home_assistant_gets_a_button_a_switch_and_a_number():
    found = {config["name"]: config for _, config in discovery(PUMP, "nearfar", commands=True)}
    assert found.keys() == ENTITIES.keys() | COMMANDING.keys()
    shared = {"name", "unique_id", "command_topic", "availability", "device", "origin"}
    allowed = {
        "Acknowledge": shared | {"payload_press"},
        "Shelved": shared | {"payload_on", "payload_off", "state_on", "state_off", "state_topic", "value_template"},
        "Alarm above": shared
        | {"command_template", "state_topic", "value_template", "unit_of_measurement", "min", "max", "step", "mode"},
    }
    for name, keys in allowed.items():
        assert set(found[name]) == keys
        assert found[name]["command_topic"].startswith("nearfar/north/pump/command/")
    assert json.loads(found["Shelved"]["payload_on"]) == {"hours": 8, "who": "Home Assistant"}
    rendered = jinja2.Environment().from_string(found["Alarm above"]["command_template"]).render(value=4.2)
    assert json.loads(rendered) == {"value": 4.2, "who": "Home Assistant"}
    shown = jinja2.Environment().from_string(found["Shelved"]["value_template"])
    assert (
        shown.render(value_json={"state": "shelved"}) == "ON" and shown.render(value_json={"state": "normal"}) == "OFF"
    )
