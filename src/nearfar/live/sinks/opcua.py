"""OPC-UA: a server with an object per machine, which SCADA systems read.

    Objects/nearfar/<machine>/{Score, Threshold, Alarm, Unusual, Health, LastUpdate}
                               Double Double Boolean Boolean String DateTime

Nobody can write, add or delete a node, or call a method. Score, Alarm and Unusual are `BadWaitingForInitialData`
before the first window, and `UncertainLastUsableValue` while the machine has a health problem, or its newest window
could not be judged.
An alarm event of the history is an event of type OffNormalAlarmType of the machine's object (ActiveState, AckedState,
Severity, Message): it is reported, not acknowledged here.

Without a certificate there are no users and no encryption: bind it to a machine network, or to 127.0.0.1 (the default).
With one, clients must sign and encrypt, and with users they must log in.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.live.history.records import ALARM
from nearfar.live.language import ENGLISH, translated
from nearfar.live.rules.alarm import CLEARED, IN_ALARM, NORMAL
from nearfar.live.sinks.messages import CLOSE_S, OK, EventMessage, HealthMessage, Message, ScoreMessage, StateMessage
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.times import EPOCH, utc_time

if TYPE_CHECKING:
    from nearfar.live.config import OpcUaConfig
    from nearfar.live.machine import Machine

NAMESPACE = "urn:nearfar:plant"
NOTHING = {"Score": 0.0, "Alarm": False, "Unusual": False}  # variables whose status says whether they can be trusted
SEVERITY_STANDING, SEVERITY_OVER = 700, 100  # of 1000


@dataclass
class _Machine:
    """The object of a machine: its variables, what emits its alarm events, and the values of those in NOTHING."""

    node: Any
    nodes: dict[str, Any]
    alarms: Any
    values: dict[str, Any] = field(default_factory=lambda: dict(NOTHING))
    status: Any = None  # of these values
    is_well: bool = True  # there is no health problem


class OpcUa:
    """A sink that is a server for `machines`; needs asyncua. OSError if the port is taken.

    `users` {name: password} may read if there is a certificate; {}: everybody may.
    """

    name = "opc-ua"

    def __init__(
        self,
        machines: Sequence[Machine],
        config: OpcUaConfig,
        users: Mapping[str, str] | None = None,
        *,
        language: str = ENGLISH,
    ) -> None:
        try:
            from asyncua import ua
            from asyncua.sync import Server
        except ImportError:
            raise ImportError('OPC-UA needs asyncua: pip install "nearfar[opcua]"') from None
        self._ua: Any = ua
        self.config, self.say = config, partial(translated, language=language)
        self._server = Server()
        try:
            self._build(machines, users or {})
            self._server.start()
        except BaseException as error:
            self._server.tloop.stop()
            if isinstance(error, OSError):
                raise OSError(f"OPC-UA cannot be served at {config.endpoint}: {error.strerror or error}") from None
            raise
        self._lock = threading.Lock()
        self._queue = RetryQueue(self.name, self._show_locked)

    @property
    def problem(self) -> str:
        """Why values are not shown, or ""."""
        return self._queue.problem

    def put(self, message: Message) -> None:
        """Show a message."""
        self._queue.put(message)

    def add_machine(self, machine: Machine, at: float) -> None:
        """Add the object of a machine that is new; one that takes the place of another keeps its object."""
        ua, threshold = self._ua, float(machine.detector.threshold.value)
        with self._lock:
            self._queue.forget(machine.id)  # what waits is of the machine of before
            shown = self._machines.get(machine.id)
            if shown is None:
                self._add(machine.id, machine.name, threshold)
                return
            shown.nodes["Threshold"].write_value(threshold)
            shown.nodes["Health"].write_value(OK)
            shown.is_well, shown.values = True, dict(NOTHING)
            self._write_measured(shown, ua.StatusCodes.BadWaitingForInitialData)

    def remove_machine(self, id: str) -> None:
        """Delete the object of a machine."""
        with self._lock:
            self._queue.forget(id)
            self._machines.pop(id).node.delete(recursive=True)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Stop the server."""
        self._queue.close(wait_s)
        self._server.stop()

    def _build(self, machines: Sequence[Machine], users: Mapping[str, str]) -> None:
        """The endpoints of the server, and its nodes."""
        self._server.set_endpoint(self.config.endpoint)
        self._server.set_server_name("nearfar")
        self._server.set_application_uri("urn:nearfar:server")
        self._secure(users)
        self._space = self._server.register_namespace(NAMESPACE)
        self._root = self._server.nodes.objects.add_object(self._space, "nearfar")
        self._machines: dict[str, _Machine] = {}
        for machine in machines:
            self._add(machine.id, machine.name, float(machine.detector.threshold.value))

    def _secure(self, users: Mapping[str, str]) -> None:
        """Offer the endpoints that the configuration allows, to read only."""
        ua = self._ua
        policies = [ua.SecurityPolicyType.NoSecurity]
        if self.config.certificate is not None:
            assert self.config.key is not None
            self._server.load_certificate(str(self.config.certificate), "pem")
            self._server.load_private_key(str(self.config.key), None, "pem")
            kinds = ua.SecurityPolicyType
            policies = [kinds.Basic256Sha256_SignAndEncrypt, kinds.Aes256Sha256RsaPss_SignAndEncrypt]
        self._server.set_security_policy(policies, permission_ruleset=_read_only())
        inner = self._server.aio_obj
        inner.set_identity_tokens([ua.UserNameIdentityToken] if users else [ua.AnonymousIdentityToken])
        inner.allow_remote_admin(False)
        inner.iserver.set_user_manager(_Users(users))

    def _add(self, id: str, name: str, threshold: float) -> None:
        """Add the object of a machine."""
        node = self._root.add_object(self._space, id)
        start = {**NOTHING, "Threshold": threshold, "Health": OK, "LastUpdate": EPOCH}
        nodes = {key: node.add_variable(self._space, key, value) for key, value in start.items()}
        alarms = self._server.get_event_generator(self._ua.ObjectIds.OffNormalAlarmType, node)
        alarms.event.ConditionName, alarms.event.SourceName = "sound", name
        self._machines[id] = shown = _Machine(node, nodes, alarms)
        self._write_measured(shown, self._ua.StatusCodes.BadWaitingForInitialData)

    def _show_locked(self, message: Message) -> None:
        with self._lock:
            if self._queue.is_wanted(message):
                self._show(message)

    def _show(self, message: Message) -> None:
        shown, ua = self._machines.get(message.machine), self._ua
        if shown is None:
            return
        nodes, values, status = shown.nodes, shown.values, shown.status
        good, uncertain = ua.StatusCodes.Good, ua.StatusCodes.UncertainLastUsableValue
        if isinstance(message, ScoreMessage):
            s = message.record
            nodes["Threshold"].write_value(float(s.threshold))
            nodes["LastUpdate"].write_value(utc_time(s.t1))
            values["Alarm"], values["Unusual"] = message.state in IN_ALARM, message.unusual_stands
            if s.anomalous is not None:
                values["Score"] = float(s.score)
            if s.anomalous is not None or status != ua.StatusCodes.BadWaitingForInitialData:
                status = good if shown.is_well and s.anomalous is not None else uncertain
        elif isinstance(message, StateMessage):
            values["Alarm"], values["Unusual"] = message.state in IN_ALARM, message.unusual_stands
        elif isinstance(message, HealthMessage):
            shown.is_well = message.health == OK
            nodes["Health"].write_value(OK if message.health == OK else f"{message.health}: {self.say(message.text)}")
            if not shown.is_well and status == good:
                status = uncertain
        elif isinstance(message, EventMessage) and message.event.kind == ALARM:
            self._trigger(shown, message)
            return
        self._write_measured(shown, status)

    def _write_measured(self, shown: _Machine, status: Any) -> None:
        """Write Score, Alarm and Unusual with their status."""
        ua = self._ua
        shown.status = status
        for key, value in shown.values.items():
            kind = ua.VariantType.Double if key == "Score" else ua.VariantType.Boolean
            shown.nodes[key].write_value(ua.DataValue(ua.Variant(value, kind), ua.StatusCode(status)))

    def _trigger(self, shown: _Machine, message: EventMessage) -> None:
        """Emit the state of an alarm event."""
        ua, event, emitted = self._ua, message.event, shown.alarms.event
        active, acknowledged = event.ended is None, event.acknowledged is not None
        emitted.ActiveState = ua.LocalizedText("Active" if active else "Inactive")
        setattr(emitted, "ActiveState/Id", active)
        emitted.AckedState = ua.LocalizedText("Acknowledged" if acknowledged else "Unacknowledged")
        setattr(emitted, "AckedState/Id", acknowledged)
        emitted.Severity = SEVERITY_STANDING if active else SEVERITY_OVER
        emitted.Time = utc_time(message.at)
        name, state = message.machine, NORMAL if message.what == CLEARED else message.what
        shown.alarms.trigger(message=self.say(f"{name}: {event.text} (event {event.id}, {state})"))


class _Users:
    """The users who may read and do nothing else."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users = users

    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        """The user with this name and password, or None, who is refused."""
        from asyncua.crypto.permission_rules import User, UserRole

        if self.users:
            text = password.decode("utf-8", "replace") if isinstance(password, bytes) else str(password)
            known = self.users.get(username, "")
            if not known or not hmac.compare_digest(known.encode(), text.encode()):
                return None
        return User(role=UserRole.User, name=username)


def _read_only() -> Any:
    """The rules of a server on which nobody may change or call anything."""
    from asyncua.crypto.permission_rules import USER_TYPES, PermissionRuleset
    from asyncua.ua import Int32, NodeId
    from asyncua.ua.object_ids import ObjectIds

    forbidden = {ObjectIds.WriteRequest_Encoding_DefaultBinary, ObjectIds.CallRequest_Encoding_DefaultBinary}
    allowed = {NodeId(Int32(kind)) for kind in USER_TYPES if kind not in forbidden}

    class ReadOnly(PermissionRuleset):
        """Allows requests that read."""

        def check_validity(self, user: Any, action_type: Any, body: Any) -> bool:
            """Whether a request is allowed."""
            return action_type in allowed

    return ReadOnly()


def read_users(path: str | os.PathLike[str]) -> dict[str, str]:
    """{name: password} from a file with a line NAME:PASSWORD for each user. ValueError if there is none."""
    users = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        name, colon, password = line.strip().partition(":")
        if line.strip() and not (name and colon and password):
            raise ValueError(f"{path}, line {number}: a user is written NAME:PASSWORD")
        if name:
            users[name] = password
    if not users:
        raise ValueError(f"{path} holds no user; each is a line NAME:PASSWORD")
    return users
