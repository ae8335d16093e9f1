"""MQTT: one connection per machine, so that the last will names the machine that is no longer monitored.

    nearfar/<site>/<machine>/score    every window, while the broker is connected
    nearfar/<site>/<machine>/state    when it changes            {"state": "normal" | "unacknowledged alarm" | ...,
                                                                  "unusual_stands": true | false}
    nearfar/<site>/<machine>/event    raised, cleared, acknowledged, verdict: never lost
    nearfar/<site>/<machine>/health   {"health": "waiting" | "ok" | "problem" | "offline"}; "offline" is the last will
    nearfar/<site>/<machine>/command/acknowledge | shelve | set-point    taken, with `commands`: see `commands`
    nearfar/<site>/<machine>/answer   what came of a command  {"command": ..., "ok": true | false, "message": ...}

JSON, QoS 1. Only health and Home Assistant's discovery are retained: a retained score or state would look current long
after it was true. While the broker is unreachable, events, state and health wait (up to MOST_WAITING); scores are
dropped. MQTT 5, in which a broker says what it denies; `version = 3` in [mqtt] for an older broker. What was retained
for machines that have left the configuration is deleted; a file of the history remembers their topics. Who may
command is a matter of the broker's ACL: it names who may publish to `.../command/#`.
"""

from __future__ import annotations

import json
import math
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from nearfar.live.language import ENGLISH, translated
from nearfar.live.sinks import commands
from nearfar.live.sinks.messages import CLOSE_S, EVENT, HEALTH, OFFLINE, OK, SCORE, WAITING, Message
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.files import atomic_write
from nearfar.support.threads import all_within

if TYPE_CHECKING:
    from nearfar.live.config import MqttConfig
    from nearfar.live.history.history import History
    from nearfar.live.machine import Machine
    from nearfar.live.operator import Operator

MOST_WAITING = 5000
CONFIRM_S = 5.0  # for a connected broker to confirm an event
ANNOUNCED = (
    "mqtt-announced.json"  # of the history: [prefix, site, machine(, COMMAND for COMMANDING)] of what is retained
)
DISCOVERY = "homeassistant"
COMMAND, ANSWER = "command", "answer"
SHELVED_H = 8  # by the switch in Home Assistant
_OFFLINE = json.dumps({"health": OFFLINE})


class Mqtt:
    """A sink for `machines` at a broker; needs paho-mqtt 2. Connects in the background, as soon as it can.

    `url` is the address of the dashboard, or ""; `language` is that of texts and names. `password` belongs to the user
    name of `broker`; TLS is on if the broker asks for it or a CA is given.
    """

    name = "mqtt"

    def __init__(
        self,
        broker: MqttConfig,
        machines: Sequence[Machine],
        history: History,
        *,
        password: str = "",
        url: str = "",
        language: str = ENGLISH,
        longest_wait_s: int = 60,
    ) -> None:
        try:
            from paho.mqtt import client as paho
        except ImportError:
            raise ImportError('MQTT needs paho-mqtt: pip install "nearfar[live]"') from None
        self.broker, self.machines, self.url = broker, {m.id: m for m in machines}, url
        self.say = partial(translated, language=language)
        self.encrypted = broker.tls or broker.ca is not None
        self._problems: dict[str, str] = {}
        self._refused: set[str] = set()  # machines whose last connection the broker refused
        self._sent: dict[tuple[str, int], str] = {}  # the topics of messages that are not confirmed yet
        self._denied: set[str] = set()  # topics that the broker does not allow
        self._health = {m.id: json.dumps({"health": WAITING}) for m in machines}  # sent again after each connection
        self._unheard = set(self.machines)
        self._announced = history.folder / ANNOUNCED
        self._gone = self._note_announced()
        self._connect = partial(self._client, paho, password=password, longest_wait_s=longest_wait_s)
        self.operator: Operator | None = None
        self._commands = ThreadPoolExecutor(1, "mqtt-commands")  # a command may wait for a window to be scored
        self._deaf = ""  # the topic that the broker does not let this client subscribe to
        self._clients = {m.id: self._connect(m) for m in machines}
        self._events = RetryQueue(self.name, self._deliver, history.outbox.mailbox(self.name, (EVENT,)))
        for client in self._clients.values():
            self._begin(client)

    @property
    def problem(self) -> str:
        """Why the broker cannot be reached, or does not take messages, or ""."""
        problems = sorted(set(self._problems.values()))
        if denied := sorted(self._denied):
            more = f" and {len(denied) - 1} more topics" if denied[1:] else ""
            who = self.broker.username or "a client without a user name"
            problems.append(
                f"mqtt: {self.broker.host} does not allow {who} to publish to {denied[0]}{more}: see its ACL"
            )
        if self._deaf:
            problems.append(f"mqtt: {self.broker.host} does not allow commands, at {self._deaf}: see its ACL")
        return "; ".join(problems) or self._events.problem

    def add_machine(self, machine: Machine, at: float) -> None:
        """Connect for a machine that is new, or takes the place of the one with its id."""
        old = self._clients.get(machine.id)
        self.machines = {**self.machines, machine.id: machine}
        self._health[machine.id] = json.dumps({"health": WAITING})
        self._unheard.add(machine.id)
        self._gone = [entry for entry in self._gone if entry not in self._announcements]
        self._write_announced(self._gone)
        self._clients = {**self._clients, machine.id: self._connect(machine)}
        self._begin(self._clients[machine.id])
        if old is not None:
            self._end(old)

    def remove_machine(self, id: str) -> None:
        """Delete what is retained for a machine, now or after the next connection, and disconnect."""
        machine, client = self.machines[id], self._clients[id]
        self.machines = {other: m for other, m in self.machines.items() if other != id}
        self._clients = {other: c for other, c in self._clients.items() if other != id}
        for known in (self._problems, self._health):
            known.pop(id, None)
        self._unheard.discard(id)
        entry = [self.broker.prefix, machine.site, id]
        self._gone += [entry, *([[*entry, COMMAND]] if self.broker.commands else [])]
        self._write_announced(self._gone)
        connected = next((c for c in self._clients.values() if c.is_connected()), None)
        self._end(client)  # first: nothing is retained for the machine from here on
        if connected is not None:
            self._forget_gone(connected)

    def _begin(self, client: Any) -> None:
        """Connect in the background."""
        client.connect_async(self.broker.host, self.broker.port or (8883 if self.encrypted else 1883), keepalive=30)
        client.loop_start()

    def _end(self, client: Any) -> None:
        """Disconnect, and wait a little for what is under way: a broker may never answer."""
        client.on_disconnect = None
        client.disconnect()
        all_within(CLOSE_S, [client.loop_stop])

    def put(self, message: Message) -> None:
        """Publish; never waits."""
        if message.kind == EVENT:
            self._events.put(message)
            return
        client, payload = self._clients.get(message.machine), _payload(message, self.say)
        if client is None:  # the machine has gone
            return
        if message.kind == HEALTH:
            self._health[message.machine] = payload
            self._unheard.discard(message.machine)
        elif message.kind == SCORE and message.machine in self._unheard:
            self._unheard.discard(message.machine)
            self._health[message.machine] = json.dumps({"health": OK})
            topic = self._topic(message.site, message.machine, HEALTH)
            self._publish(client, message.machine, topic, self._health[message.machine], retain=True)
        if message.kind == SCORE and not client.is_connected():
            return
        topic = self._topic(message.site, message.machine, message.kind)
        self._publish(client, message.machine, topic, payload, retain=message.kind == HEALTH)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Publish "offline" and disconnect; events that could not be delivered are sent after the next start."""
        self._commands.shutdown(wait=False, cancel_futures=True)
        self._events.close(wait_s / 2)
        until, sent = time.monotonic() + wait_s / 4, []
        for id, client in self._clients.items():
            if client.is_connected():
                topic = self._topic(self.machines[id].site, id, HEALTH)
                sent.append(client.publish(topic, _OFFLINE, qos=1, retain=True))
        for message in sent:
            message.wait_for_publish(max(0.01, until - time.monotonic()))
        for client in self._clients.values():
            client.disconnect()
        for client in self._clients.values():
            client.loop_stop()

    def _deliver(self, message: Message) -> None:
        """Publish an event and wait for the broker to confirm it."""
        first = next(iter(self._clients.values()))
        client = self._clients.get(message.machine, first)  # the machine may have left the configuration
        if not client.is_connected():
            raise OSError(f"{self.broker.host} is not connected")
        topic = self._topic(message.site, message.machine, EVENT)
        sent = self._publish(client, message.machine, topic, _payload(message, self.say))
        if sent.rc == 0:
            sent.wait_for_publish(CONFIRM_S)
        if sent.rc or not sent.is_published():
            raise OSError(f"{self.broker.host} does not confirm messages")
        if topic in self._denied:
            raise OSError(f"{self.broker.host} does not allow this client to publish to {topic}")

    def _publish(self, client: Any, machine: str, topic: str, payload: str, *, retain: bool = False) -> Any:
        info = client.publish(topic, payload, qos=1, retain=retain)
        self._sent[machine, info.mid] = topic
        return info

    def _note_announced(self) -> list[list[str]]:
        """Write down what this process retains; returns what an earlier one did and this one does not."""
        try:
            before = json.loads(self._announced.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged
            before = []
        gone = [entry for entry in before if entry not in self._announcements]
        self._write_announced(gone)
        return gone

    @property
    def _announcements(self) -> list[list[str]]:
        made = [[self.broker.prefix, m.site, m.id] for m in self.machines.values()]
        return made + [[*entry, COMMAND] for entry in made if self.broker.commands]

    def _write_announced(self, gone: list[list[str]]) -> None:
        with suppress(OSError):  # a full disk: what is retained then stays on the broker
            atomic_write(self._announced, json.dumps(self._announcements + gone), mode=0o600)

    def _forget_gone(self, client: Any) -> None:
        """Delete what is retained for machines that have left the configuration."""
        gone, self._gone = self._gone, []
        for prefix, site, id, *what in gone:
            all_of_it = (f"{prefix}/{site}/{id}/{HEALTH}", *discovery_topics(site, id))
            for topic in discovery_topics(site, id, COMMANDING) if what else all_of_it:
                client.publish(topic, b"", qos=1, retain=True)
        if gone:
            self._write_announced([])

    def _client(self, paho: Any, machine: Machine, *, password: str, longest_wait_s: int) -> Any:
        broker = self.broker
        host, port = broker.host, broker.port or (8883 if self.encrypted else 1883)

        class Client(paho.Client):  # type: ignore[misc]
            """paho's client, which keeps why it could not connect: `on_connect_fail` is not told."""

            failure: OSError | None = None

            def reconnect(self) -> Any:
                try:
                    return super().reconnect()
                except OSError as error:
                    self.failure = error
                    raise

        def not_connected(client: Any, userdata: Any) -> None:
            self._problems[machine.id] = f"mqtt: {_why(client.failure, host, port, tls=self.encrypted)}"

        client = Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=f"nearfar-{machine.site}-{machine.id}-{secrets.token_hex(4)}",  # no two processes have one
            protocol=paho.MQTTv5 if broker.version == 5 else paho.MQTTv311,
        )
        if broker.username:
            client.username_pw_set(broker.username, password or None)
        if self.encrypted:
            client.tls_set(ca_certs=broker.ca, certfile=broker.cert, keyfile=broker.key)
        client.will_set(self._topic(machine.site, machine.id, HEALTH), _OFFLINE, qos=1, retain=True)
        client.max_queued_messages_set(MOST_WAITING)
        client.reconnect_delay_set(1, longest_wait_s)
        client.on_connect = self._on_connect(machine)
        client.on_disconnect = self._on_disconnect(machine)
        client.on_connect_fail = not_connected
        client.on_publish = self._on_publish(machine)
        client.on_message = self._on_message(machine)
        client.on_subscribe = self._on_subscribe(machine)
        return client

    def _on_connect(self, machine: Machine) -> Callable[..., None]:
        def connected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                self._refused.add(machine.id)
                self._problems[machine.id] = f"mqtt: {self.broker.host} refuses {self._refusal(str(reason))}"
                return
            self._refused.discard(machine.id)
            self._problems.pop(machine.id, None)
            self._denied.clear()
            self._deaf = ""
            if self.broker.discovery:
                client.subscribe(f"{DISCOVERY}/status", qos=1)
            if self.broker.commands:
                client.subscribe(self._topic(machine.site, machine.id, f"{COMMAND}/+"), qos=1)
            self._forget_gone(client)
            self._announce(client, machine)
            self._events.retry_now()

        return connected

    def _refusal(self, reason: str) -> str:
        """What the broker refuses, by its reason."""
        who = f"user {self.broker.username!r}" if self.broker.username else "a client without a user name"
        if reason in ("Not authorized", "Bad user name or password"):
            return f"{who} ({reason}): check username and password_file in [mqtt]"
        if reason == "Unsupported protocol version":
            return f"MQTT {self.broker.version} ({reason}): set version = {8 - self.broker.version} in [mqtt]"
        return f"the connection ({reason})"

    def _on_disconnect(self, machine: Machine) -> Callable[..., None]:
        def disconnected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if machine.id not in self._refused:
                why = f"the connection to {self.broker.host} was lost ({reason}); trying again"
                self._problems[machine.id] = f"mqtt: {why}"

        return disconnected

    def _on_publish(self, machine: Machine) -> Callable[..., None]:
        def published(client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
            topic = self._sent.pop((machine.id, mid), "")
            if topic and reason.is_failure:
                self._denied.add(topic)
            else:
                self._denied.discard(topic)

        return published

    def _on_subscribe(self, machine: Machine) -> Callable[..., None]:
        def subscribed(client: Any, userdata: Any, mid: int, reasons: Sequence[Any], properties: Any) -> None:
            topic = self._topic(machine.site, machine.id, COMMAND)
            if any(reason.is_failure for reason in reasons):
                self._deaf = f"{topic}/+"

        return subscribed

    def _on_message(self, machine: Machine) -> Callable[..., None]:
        def received(client: Any, userdata: Any, message: Any) -> None:
            if message.topic == f"{DISCOVERY}/status":  # Home Assistant has started
                self._announce(client, machine)
            else:
                name = message.topic.rpartition("/")[2]
                self._commands.submit(self._obey, client, machine, name, message.payload, message.retain)

        return received

    def _obey(self, client: Any, machine: Machine, name: str, payload: bytes, retained: bool) -> None:
        """Carry out a command, and publish what came of it."""
        ok, said = False, "this plant is not ready yet"
        try:
            if retained:  # it would be carried out again after each connection
                raise ValueError("a retained command is not carried out: publish it without retain")
            if self.operator is not None:
                ok, said = True, commands.carry_out(self.operator, machine.id, name, payload)
        except (ValueError, LookupError, OSError) as error:
            ok, said = False, str(error)
        answer = {"command": name, "ok": ok, "message": self.say(said)}
        self._publish(client, machine.id, self._topic(machine.site, machine.id, ANSWER), json.dumps(answer))

    def _announce(self, client: Any, machine: Machine) -> None:
        """Publish the retained topics after a connection: health, and Home Assistant's discovery."""
        topic = self._topic(machine.site, machine.id, HEALTH)
        self._publish(client, machine.id, topic, self._health[machine.id], retain=True)
        if self.broker.discovery:
            for topic, config in discovery(
                machine, self.broker.prefix, self.url, commands=self.broker.commands, say=self.say
            ):
                self._publish(client, machine.id, topic, json.dumps(config), retain=True)

    def _topic(self, site: str, machine: str, kind: str) -> str:
        return f"{self.broker.prefix}/{site}/{machine}/{kind}"


def _payload(message: Message, say: Callable[[str], str]) -> str:
    return json.dumps({"machine": message.machine, **message.when(), **_spoken(message.body(), say)}, allow_nan=False)


def _spoken(body: dict[str, Any], say: Callable[[str], str]) -> dict[str, Any]:
    """`body` with its texts for people as `say` gives them."""
    spoken = dict(body)
    for name, value in body.items():
        if isinstance(value, dict):
            spoken[name] = _spoken(value, say)
        elif name in ("text", "problem"):
            spoken[name] = say(value)
        elif name == "warnings":
            spoken[name] = [say(text) for text in value]
    return spoken


def _why(error: OSError | None, host: str, port: int, *, tls: bool) -> str:
    """Why there is no connection to a broker, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "ostname" in error.verify_message or "IP address" in error.verify_message:
            return f"the certificate of {host} is for another name ({error.verify_message}): use that name as host"
        return f"the certificate of {host} is not trusted ({error.verify_message}): give its CA as ca in [mqtt]"
    why = "" if error is None else f" ({error.strerror or error})"
    if tls and isinstance(error, ssl.SSLError | ConnectionResetError):
        return f"no TLS with {host} port {port}{why}: is this its port for TLS, and does it want a cert?"
    return f"{host} port {port} does not answer{why}"


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
    told = available("'ok', 'problem', 'waiting'")
    to = f"{base}/{COMMAND}"
    found["Acknowledge"] = {"command_topic": f"{to}/acknowledge", "payload_press": '{"who": "Home Assistant"}', **told}
    found["Shelved"] = {
        "command_topic": f"{to}/shelve",
        "payload_on": json.dumps({"hours": SHELVED_H, "who": "Home Assistant"}),
        "payload_off": '{"hours": 0, "who": "Home Assistant"}',
        "state_topic": f"{base}/state",
        "value_template": "{{ 'ON' if value_json.state == 'shelved' else 'OFF' }}",
        "state_on": "ON",
        "state_off": "OFF",
        **told,
    }
    found["Alarm above"] = {
        "command_topic": f"{to}/set-point",
        "command_template": '{"value": {{ value }}, "who": "Home Assistant"}',
        "state_topic": score,
        "value_template": "{{ value_json.threshold }}",
        "unit_of_measurement": "σ",
        "min": 0,
        "max": 1000,
        "step": 0.1,
        "mode": "box",
        **told,
    }
    entities = {**ENTITIES, **(COMMANDING if commands else {})}
    return [
        (at, {"name": say(name), "unique_id": _unique_id(machine.site, machine.id, name), **found[name], **shared})
        for name, at in zip(entities, discovery_topics(machine.site, machine.id, entities), strict=True)
    ]
