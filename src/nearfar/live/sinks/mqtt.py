"""MQTT: one connection per machine, so that the last will names the machine that is no longer monitored.

    nearfar/<site>/<machine>/score    every window, while the broker is connected
    nearfar/<site>/<machine>/state    when it changes            normal | unacknowledged alarm | ...
    nearfar/<site>/<machine>/event    raised, cleared, acknowledged, verdict: never lost
    nearfar/<site>/<machine>/health   {"health": "ok" | "problem" | "offline"}; "offline" is the last will

JSON, QoS 1. Only health and Home Assistant's discovery are retained: a retained score or state would look current long
after it was true. While the broker is unreachable, events, state and health wait (up to WAITING); scores are dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nearfar.live.messages import EVENT, HEALTH, OFFLINE, OK, SCORE, Message
from nearfar.live.sinks.retry import RetryQueue

if TYPE_CHECKING:
    from nearfar.live.config import MqttConfig
    from nearfar.live.history.history import History
    from nearfar.live.machine import Machine

WAITING = 5000
CONFIRM_S = 5.0  # for a connected broker to confirm an event
DISCOVERY = "homeassistant"
_OFFLINE = json.dumps({"health": OFFLINE})


class Mqtt:
    """A sink for `machines` at a broker; needs paho-mqtt 2. Connects in the background, as soon as it can.

    `password` belongs to the user name of `broker`; TLS is on if the broker asks for it or a CA is given.
    """

    name = "mqtt"

    def __init__(
        self,
        broker: MqttConfig,
        machines: Sequence[Machine],
        history: History,
        *,
        password: str = "",
        longest_wait_s: int = 60,
    ) -> None:
        try:
            from paho.mqtt import client as paho
        except ImportError:
            raise ImportError("MQTT needs paho-mqtt: pip install 'nearfar[live]'") from None
        self.broker, self.machines = broker, {m.id: m for m in machines}
        self.encrypted = broker.tls or broker.ca is not None
        self._problems: dict[str, str] = {}
        self._health = {m.id: json.dumps({"health": OK}) for m in machines}  # published again after each connection
        self._clients = {m.id: self._client(paho, m, password, longest_wait_s) for m in machines}
        self._events = RetryQueue(self.name, self._deliver, history.outbox.mailbox(self.name, (EVENT,)))
        for client in self._clients.values():
            client.connect_async(broker.host, broker.port or (8883 if self.encrypted else 1883), keepalive=30)
            client.loop_start()

    @property
    def problem(self) -> str:
        """Why the broker cannot be reached, or ""."""
        return "; ".join(sorted(set(self._problems.values()))) or self._events.problem

    def put(self, message: Message) -> None:
        """Publish; never waits."""
        if message.kind == EVENT:
            self._events.put(message)
            return
        client, payload = self._clients[message.machine], _payload(message)
        if message.kind == HEALTH:
            self._health[message.machine] = payload
        if message.kind == SCORE and not client.is_connected():
            return
        topic = self._topic(message.site, message.machine, message.kind)
        client.publish(topic, payload, qos=1, retain=message.kind == HEALTH)

    def close(self) -> None:
        """Publish "offline" and disconnect; events that could not be delivered are sent after the next start."""
        self._events.close()
        for id, client in self._clients.items():
            if client.is_connected():
                topic = self._topic(self.machines[id].site, id, HEALTH)
                client.publish(topic, _OFFLINE, qos=1, retain=True).wait_for_publish(2.0)
            client.disconnect()
        for client in self._clients.values():
            client.loop_stop()

    def _deliver(self, message: Message) -> None:
        """Publish an event and wait for the broker to confirm it."""
        first = next(iter(self._clients.values()))
        client = self._clients.get(message.machine, first)  # the machine may have left the configuration
        if not client.is_connected():
            raise OSError(f"{self.broker.host} is not connected")
        sent = client.publish(self._topic(message.site, message.machine, EVENT), _payload(message), qos=1)
        if sent.rc == 0:
            sent.wait_for_publish(CONFIRM_S)
        if sent.rc or not sent.is_published():
            raise OSError(f"{self.broker.host} does not confirm messages")

    def _client(self, paho: Any, machine: Machine, password: str, longest_wait_s: int) -> Any:
        broker = self.broker
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"nearfar-{machine.site}-{machine.id}")
        if broker.username:
            client.username_pw_set(broker.username, password or None)
        if self.encrypted:
            client.tls_set(ca_certs=broker.ca, certfile=broker.cert, keyfile=broker.key)
        client.will_set(self._topic(machine.site, machine.id, HEALTH), _OFFLINE, qos=1, retain=True)
        client.max_queued_messages_set(WAITING)
        client.reconnect_delay_set(1, longest_wait_s)
        client.on_connect = self._on_connect(machine)
        client.on_disconnect = self._on_disconnect(machine)
        client.on_connect_fail = lambda *_: self._problems.update({machine.id: f"mqtt: {broker.host} does not answer"})
        client.on_message = lambda client, *_: self._announce(client, machine)  # Home Assistant has started
        return client

    def _on_connect(self, machine: Machine) -> Callable[..., None]:
        def connected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                self._problems[machine.id] = f"mqtt: {self.broker.host} refuses the connection: {reason}"
                return
            self._problems.pop(machine.id, None)
            if self.broker.discovery:
                client.subscribe(f"{DISCOVERY}/status", qos=1)
            self._announce(client, machine)
            self._events.retry_now()

        return connected

    def _on_disconnect(self, machine: Machine) -> Callable[..., None]:
        def disconnected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            self._problems[machine.id] = f"mqtt: the connection to {self.broker.host} was lost ({reason}); trying again"

        return disconnected

    def _announce(self, client: Any, machine: Machine) -> None:
        """Publish the retained topics after a connection: health, and Home Assistant's discovery."""
        topic = self._topic(machine.site, machine.id, HEALTH)
        client.publish(topic, self._health[machine.id], qos=1, retain=True)
        if self.broker.discovery:
            for topic, config in discovery(machine, self.broker.prefix):
                client.publish(topic, json.dumps(config), qos=1, retain=True)

    def _topic(self, site: str, machine: str, kind: str) -> str:
        return f"{self.broker.prefix}/{site}/{machine}/{kind}"


def _payload(message: Message) -> str:
    return json.dumps({"machine": message.machine, **message.when(), **message.body()}, allow_nan=False)


def discovery(machine: Machine, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    """(topic, configuration) of the entities of a machine in Home Assistant: score, set-point, alarm, microphones."""
    base, uid = f"{prefix}/{machine.site}/{machine.id}", f"nearfar_{machine.site}_{machine.id}"
    device = {"identifiers": [uid], "name": machine.name, "manufacturer": "nearfar", "model": machine.model.name}
    offline = "{{ 'offline' if value_json.health == 'offline' else 'online' }}"
    shared = {"device": device, "availability": [{"topic": f"{base}/health", "value_template": offline}]}
    score, health = f"{base}/score", f"{base}/health"
    alarm = "{{ 'ON' if value_json.state in ['unacknowledged alarm', 'acknowledged alarm'] else 'OFF' }}"
    trouble = "{{ 'ON' if value_json.health == 'problem' else 'OFF' }}"
    measured = {"state_class": "measurement", "suggested_display_precision": 1}
    parts: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("sensor", "Score", score, "{{ value_json.score }}", {"unit_of_measurement": "σ", **measured}),
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
