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
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from nearfar.live.language import ENGLISH, translated
from nearfar.live.sinks import commands
from nearfar.live.sinks.home_assistant import COMMAND, COMMANDING, DISCOVERY, discovery, discovery_topics
from nearfar.live.sinks.messages import CLOSE_S, EVENT, HEALTH, OFFLINE, OK, SCORE, WAITING, Message, spoken
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
ANNOUNCED = "mqtt-announced.json"  # of the history: what is retained, see `Mqtt._announcements`
ANSWER = "answer"


class Mqtt:
    """A sink for `machines` at a broker; needs paho-mqtt 2. Connects in the background, as soon as it can.

    `url` is the address of the dashboard, or ""; `operator` carries out commands; `language` is that of texts and
    names. `password` belongs to the user name of `broker`; TLS is on if the broker asks for it or a CA is given.
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
        operator: Operator | None = None,
        longest_wait_s: int = 60,
    ) -> None:
        try:
            from paho.mqtt import client as paho
        except ImportError:
            raise ImportError('MQTT needs paho-mqtt: pip install "nearfar[live]"') from None
        self.paho: Any = paho
        self.broker, self.url, self.operator, self.longest_wait_s = broker, url, operator, longest_wait_s
        self.password, self.say = password, partial(translated, language=language)
        self.commands = ThreadPoolExecutor(1, "mqtt-commands")
        self._connections = {m.id: _Connection(self, m) for m in machines}
        self._announced = history.folder / ANNOUNCED
        self._gone = self._note_announced()
        self._events = RetryQueue(self.name, self._deliver, history.outbox.mailbox(self.name, (EVENT,)))
        for connection in self._connections.values():
            connection.open()

    @property
    def problem(self) -> str:
        """Why the broker cannot be reached, or does not take messages, or ""."""
        connections, host = list(self._connections.values()), self.broker.host
        problems = sorted({f"mqtt: {c.problem}" for c in connections if c.problem})
        if denied := sorted({topic for c in connections for topic in tuple(c.denied)}):
            more = f" and {len(denied) - 1} more topics" if denied[1:] else ""
            user = self.broker.username or "a client without a user name"
            problems.append(f"mqtt: {host} does not allow {user} to publish to {denied[0]}{more}: see its ACL")
        if deaf := [c.deaf for c in connections if c.deaf]:
            problems.append(f"mqtt: {host} does not allow commands, at {deaf[0]}: see its ACL")
        return "; ".join(problems) or self._events.problem

    def add_machine(self, machine: Machine, at: float) -> None:
        """Connect for a machine that is new, or takes the place of the one with its id."""
        old, new = self._connections.get(machine.id), _Connection(self, machine)
        self._connections = {**self._connections, machine.id: new}
        self._gone = [entry for entry in self._gone if entry not in self._announcements]
        self._write_announced(self._gone)
        new.open()
        if old is not None:
            old.close()

    def remove_machine(self, id: str) -> None:
        """Delete what is retained for a machine, now or after the next connection, and disconnect."""
        gone = self._connections[id]
        self._connections = {other: c for other, c in self._connections.items() if other != id}
        entry = [self.broker.prefix, gone.machine.site, id]
        self._gone += [entry, *([[*entry, COMMAND]] if self.broker.commands else [])]
        self._write_announced(self._gone)
        gone.close()  # first: nothing is retained for the machine from here on
        if connected := [c for c in self._connections.values() if c.is_connected]:
            self.forget_gone(connected[0])

    def put(self, message: Message) -> None:
        """Publish; never waits."""
        if message.kind == EVENT:
            self._events.put(message)
        elif connection := self._connections.get(message.machine):  # else the machine has gone
            connection.put(message)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Publish "offline" and disconnect; events that could not be delivered are sent after the next start."""
        self.commands.shutdown(wait=False, cancel_futures=True)
        self._events.close(wait_s / 2)
        connections, until = list(self._connections.values()), time.monotonic() + wait_s / 4
        for sent in [c.publish(c.topic(HEALTH), OFFLINE_TEXT, retain=True) for c in connections if c.is_connected]:
            sent.wait_for_publish(max(0.01, until - time.monotonic()))
        for connection in connections:
            connection.client.disconnect()
        for connection in connections:
            connection.client.loop_stop()

    def connected(self, connection: _Connection) -> None:
        """The broker has taken a connection."""
        self.forget_gone(connection)
        connection.announce()
        self._events.retry_now()

    def obey(self, connection: _Connection, name: str, payload: bytes, retained: bool) -> None:
        """Carry out a command, and publish what came of it; may wait for a window to be scored."""
        ok, said = False, "this plant is not ready yet"
        try:
            if retained:  # it would be carried out again after each connection
                raise ValueError("a retained command is not carried out: publish it without retain")
            if self.operator is not None:
                ok, said = True, commands.carry_out(self.operator, connection.machine.id, name, payload)
        except (ValueError, LookupError, OSError) as error:
            ok, said = False, str(error)
        connection.publish(connection.topic(ANSWER), json.dumps({"command": name, "ok": ok, "message": self.say(said)}))

    def _deliver(self, message: Message) -> None:
        """Publish an event and wait for the broker to confirm it."""
        first = next(iter(self._connections.values()))
        connection = self._connections.get(message.machine, first)  # the machine may have left the configuration
        host = self.broker.host
        if not connection.is_connected:
            raise OSError(f"{host} is not connected")
        topic = f"{self.broker.prefix}/{message.site}/{message.machine}/{EVENT}"
        sent = connection.publish(topic, _payload(message, self.say))
        if sent.rc == 0:
            sent.wait_for_publish(CONFIRM_S)
        if sent.rc or not sent.is_published():
            raise OSError(f"{host} does not confirm messages")
        if topic in connection.denied:
            raise OSError(f"{host} does not allow this client to publish to {topic}")

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
        """[prefix, site, machine] of what is retained, and [..., COMMAND] of the entities of COMMANDING."""
        made = [[self.broker.prefix, c.machine.site, id] for id, c in self._connections.items()]
        return made + [[*entry, COMMAND] for entry in made if self.broker.commands]

    def _write_announced(self, gone: list[list[str]]) -> None:
        with suppress(OSError):  # a full disk: what is retained then stays on the broker
            atomic_write(self._announced, json.dumps(self._announcements + gone), mode=0o600)

    def forget_gone(self, connection: _Connection) -> None:
        """Delete what is retained for machines that have left the configuration."""
        gone, self._gone = self._gone, []
        for prefix, site, id, *what in gone:
            all_of_it = (f"{prefix}/{site}/{id}/{HEALTH}", *discovery_topics(site, id))
            for topic in discovery_topics(site, id, COMMANDING) if what else all_of_it:
                connection.publish(topic, "", retain=True)
        if gone:
            self._write_announced([])


class _Connection:
    """The connection of one machine; its `client` calls the methods `_on_...` in a thread of its own."""

    def __init__(self, sink: Mqtt, machine: Machine) -> None:
        self.sink, self.machine, broker, paho = sink, machine, sink.broker, sink.paho
        self.health = _health(WAITING)  # sent again after each connection
        self.problem = self.deaf = ""  # why there is no connection; the topic that may not be subscribed to
        self.denied: set[str] = set()  # topics that the broker does not allow
        self._refused = False  # by the broker
        self._heard = False  # health is known
        self._open: dict[int, str | bool] = {}  # of a message: its topic, or whether it was denied
        self.encrypted = broker.tls or broker.ca is not None
        self.port = broker.port or (8883 if self.encrypted else 1883)

        class Client(paho.Client):  # type: ignore[misc, name-defined]
            """paho's client, which keeps why it could not connect: `on_connect_fail` is not told."""

            failure: OSError | None = None

            def reconnect(self) -> Any:
                try:
                    return super().reconnect()
                except OSError as error:
                    self.failure = error
                    raise

        self.client = client = Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=f"nearfar-{machine.site}-{machine.id}-{secrets.token_hex(4)}",  # no two processes have one
            protocol=paho.MQTTv5 if broker.version == 5 else paho.MQTTv311,
        )
        if broker.username:
            client.username_pw_set(broker.username, sink.password or None)
        if self.encrypted:
            client.tls_set(ca_certs=broker.ca, certfile=broker.cert, keyfile=broker.key)
        client.will_set(self.topic(HEALTH), OFFLINE_TEXT, qos=1, retain=True)
        client.max_queued_messages_set(MOST_WAITING)
        client.reconnect_delay_set(1, sink.longest_wait_s)
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish
        client.on_message, client.on_subscribe = self._on_message, self._on_subscribe

    def topic(self, kind: str) -> str:
        """A topic of the machine."""
        return f"{self.sink.broker.prefix}/{self.machine.site}/{self.machine.id}/{kind}"

    @property
    def is_connected(self) -> bool:
        """Whether the broker is connected."""
        return bool(self.client.is_connected())

    def open(self) -> None:
        """Connect in the background."""
        self.client.connect_async(self.sink.broker.host, self.port, keepalive=30)
        self.client.loop_start()

    def close(self) -> None:
        """Disconnect without the last will, and wait a little for what is under way: a broker may never answer."""
        self.client.on_disconnect = None
        self.client.disconnect()
        all_within(CLOSE_S, [self.client.loop_stop])

    def put(self, message: Message) -> None:
        """Publish a message that is not an event."""
        payload = _payload(message, self.sink.say)
        if message.kind == HEALTH:
            self.health, self._heard = payload, True
        elif message.kind == SCORE and not self._heard:
            self.health, self._heard = _health(OK), True
            self.publish(self.topic(HEALTH), self.health, retain=True)
        if message.kind != SCORE or self.is_connected:
            self.publish(self.topic(message.kind), payload, retain=message.kind == HEALTH)

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> Any:
        """Hand a message to the client."""
        info = self.client.publish(topic, payload, qos=1, retain=retain)
        self._match(info.mid, topic)
        return info

    def _match(self, mid: int, half: str | bool) -> None:
        """Bring the topic of a message and the broker's answer together; the answer may be the first."""
        other = self._open.setdefault(mid, half)
        if isinstance(half, str) == isinstance(other, str):
            self._open[mid] = half
            return
        del self._open[mid]
        topic, is_denied = (half, other) if isinstance(half, str) else (other, half)
        (self.denied.add if is_denied else self.denied.discard)(str(topic))

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = reason.is_failure
        if reason.is_failure:
            self.problem = f"{self.sink.broker.host} refuses {_refusal(self.sink.broker, str(reason))}"
            return
        self.problem = self.deaf = ""
        self.denied.clear()
        if self.sink.broker.discovery:
            client.subscribe(f"{DISCOVERY}/status", qos=1)
        if self.sink.broker.commands:
            client.subscribe(self.topic(f"{COMMAND}/+"), qos=1)
        self.sink.connected(self)

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        self.problem = _why(client.failure, self.sink.broker.host, self.port, tls=self.encrypted)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._refused:
            self.problem = f"the connection to {self.sink.broker.host} was lost ({reason}); trying again"

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._match(mid, bool(reason.is_failure))

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Sequence[Any], properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self.deaf = self.topic(f"{COMMAND}/+")

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if message.topic == f"{DISCOVERY}/status":  # Home Assistant has started
            self.announce()
        else:
            name = message.topic.rpartition("/")[2]
            self.sink.commands.submit(self.sink.obey, self, name, message.payload, message.retain)

    def announce(self) -> None:
        """Publish the retained topics after a connection: health, and Home Assistant's discovery."""
        broker = self.sink.broker
        self.publish(self.topic(HEALTH), self.health, retain=True)
        if broker.discovery:
            found = discovery(self.machine, broker.prefix, self.sink.url, commands=broker.commands, say=self.sink.say)
            for topic, config in found:
                self.publish(topic, json.dumps(config), retain=True)


def _health(word: str) -> str:
    return json.dumps({"health": word})


OFFLINE_TEXT = _health(OFFLINE)


def _payload(message: Message, say: Callable[[str], str]) -> str:
    return json.dumps({"machine": message.machine, **message.when(), **spoken(message.body(), say)}, allow_nan=False)


def _refusal(broker: MqttConfig, reason: str) -> str:
    """What the broker refuses, by its reason."""
    user = f"user {broker.username!r}" if broker.username else "a client without a user name"
    if reason in ("Not authorized", "Bad user name or password"):
        return f"{user} ({reason}): check username and password_file in [mqtt]"
    if reason == "Unsupported protocol version":
        return f"MQTT {broker.version} ({reason}): set version = {8 - broker.version} in [mqtt]"
    return f"the connection ({reason})"


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
