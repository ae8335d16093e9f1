"""MQTT: one connection per machine, so that a broker can say which machine nobody listens to any more.

    nearfar/<site>/<machine>/score    every window, while the broker is there
    nearfar/<site>/<machine>/state    when it changes            normal | unacknowledged alarm | ...
    nearfar/<site>/<machine>/event    raised, cleared, acknowledged, verdict
    nearfar/<site>/<machine>/health   {"health": "ok" | "problem" | "offline"}; "offline" is the last will

JSON, QoS 1. Retained are health and Home Assistant's discovery alone: a retained score or state would be believed long
after it was true. While the broker is away, events, state and health wait (up to WAITING), scores do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nearfar.live.message import HEALTH, OFFLINE, OK, SCORE, Message

if TYPE_CHECKING:
    from nearfar.live.machine import Machine

WAITING = 5000
DISCOVERY = "homeassistant"


@dataclass(frozen=True)
class Broker:
    """Where the broker is and how to get in; `ca`, `cert` and `key` are files, and `tls` is on if `ca` is given."""

    host: str
    port: int = 0  # 0: 8883 with TLS, else 1883
    username: str = ""
    password: str = ""
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    prefix: str = "nearfar"
    discovery: bool = True


class Mqtt:
    """A sink for `machines` at a broker; needs paho-mqtt 2. Returns at once, and connects when the broker is there."""

    name = "mqtt"

    def __init__(self, broker: Broker, machines: Sequence[Machine], *, longest_wait_s: int = 60) -> None:
        try:
            from paho.mqtt import client as paho
        except ImportError:
            raise ImportError("MQTT needs paho-mqtt: pip install 'nearfar[live]'") from None
        self.broker, self.machines = broker, {m.id: m for m in machines}
        self.dropped = 0
        self._trouble: dict[str, str] = {}
        self._health = {m.id: json.dumps({"health": OK}) for m in machines}
        self._clients = {m.id: self._connect(paho, m, longest_wait_s) for m in machines}

    @property
    def problem(self) -> str:
        """Why the broker cannot be reached, or ""."""
        return "; ".join(sorted(set(self._trouble.values())))

    def put(self, message: Message) -> None:
        """Publish; never waits."""
        client, machine = self._clients[message.machine], self.machines[message.machine]
        payload = json.dumps({"machine": message.machine, "at": message.at, **message.body}, allow_nan=False)
        if message.kind == HEALTH:
            self._health[machine.id] = payload
        if message.kind == SCORE and not client.is_connected():
            return
        sent = client.publish(self._topic(machine, message.kind), payload, qos=1, retain=message.kind == HEALTH)
        if sent.rc == 15:  # MQTT_ERR_QUEUE_SIZE
            self.dropped += 1

    def close(self) -> None:
        """Say "offline" and leave; what waits for a broker that is away is lost here (the history has it)."""
        offline = json.dumps({"health": OFFLINE})
        for id, client in self._clients.items():
            if client.is_connected():
                client.publish(self._topic(self.machines[id], HEALTH), offline, qos=1, retain=True).wait_for_publish(
                    2.0
                )
            client.disconnect()
        for client in self._clients.values():
            client.loop_stop()

    def _connect(self, paho: Any, machine: Machine, longest_wait_s: int) -> Any:
        broker = self.broker
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"nearfar-{machine.site}-{machine.id}")
        if broker.username:
            client.username_pw_set(broker.username, broker.password or None)
        if tls := broker.tls or broker.ca is not None:
            client.tls_set(ca_certs=broker.ca, certfile=broker.cert, keyfile=broker.key)
        client.will_set(self._topic(machine, HEALTH), json.dumps({"health": OFFLINE}), qos=1, retain=True)
        client.max_queued_messages_set(WAITING)
        client.reconnect_delay_set(1, longest_wait_s)
        client.on_connect = self._connected(machine)
        client.on_disconnect = self._left(machine)
        client.on_connect_fail = lambda *_: self._trouble.update({machine.id: f"mqtt: {broker.host} does not answer"})
        client.on_message = lambda client, *_: self._greet(client, machine)  # Home Assistant has started
        client.connect_async(broker.host, broker.port or (8883 if tls else 1883), keepalive=30)
        client.loop_start()
        return client

    def _connected(self, machine: Machine) -> Callable[..., None]:
        def connected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                self._trouble[machine.id] = f"mqtt: {self.broker.host} refuses: {reason}"
                return
            self._trouble.pop(machine.id, None)
            if self.broker.discovery:
                client.subscribe(f"{DISCOVERY}/status", qos=1)
            self._greet(client, machine)

        return connected

    def _left(self, machine: Machine) -> Callable[..., None]:
        def left(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            self._trouble[machine.id] = f"mqtt: {self.broker.host} has gone ({reason}); trying again"

        return left

    def _greet(self, client: Any, machine: Machine) -> None:
        """What a broker has to know after a connection: how the machine is, and for Home Assistant what it is."""
        client.publish(self._topic(machine, HEALTH), self._health[machine.id], qos=1, retain=True)
        if self.broker.discovery:
            for topic, config in discovery(machine, self.broker.prefix):
                client.publish(topic, json.dumps(config), qos=1, retain=True)

    def _topic(self, machine: Machine, kind: str) -> str:
        return f"{self.broker.prefix}/{machine.site}/{machine.id}/{kind}"


def discovery(machine: Machine, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    """(topic, configuration) of what Home Assistant shows of a machine: score, set-point, alarm, microphones."""
    base, uid = f"{prefix}/{machine.site}/{machine.id}", f"nearfar_{machine.site}_{machine.id}"
    device = {"identifiers": [uid], "name": machine.name, "manufacturer": "nearfar", "model": machine.model.name}
    offline = "{{ 'offline' if value_json.health == 'offline' else 'online' }}"
    shared = {"device": device, "availability": [{"topic": f"{base}/health", "value_template": offline}]}
    score, health = f"{base}/score", f"{base}/health"
    alarm = "{{ 'ON' if value_json.state in ['unacknowledged alarm', 'acknowledged alarm'] else 'OFF' }}"
    trouble = "{{ 'ON' if value_json.health == 'problem' else 'OFF' }}"
    measured = {"state_class": "measurement", "suggested_display_precision": 1}
    parts: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("sensor", "Score", score, "{{ value_json.value }}", {"unit_of_measurement": "σ", **measured}),
        ("sensor", "Set-point", score, "{{ value_json.threshold }}", {"unit_of_measurement": "σ", **measured}),
        ("binary_sensor", "Alarm", score, alarm, {"device_class": "problem"}),
        ("binary_sensor", "Microphones", health, trouble, {"device_class": "problem", "entity_category": "diagnostic"}),
    ]
    out = []
    for kind, name, topic, template, more in parts:
        id = f"{uid}_{name.lower().replace('-', '_')}"
        config = {"name": name, "unique_id": id, "state_topic": topic, "value_template": template, **more, **shared}
        out.append((f"{DISCOVERY}/{kind}/{id}/config", config))
    return out
