"""OPC-UA: a server with an object per machine, which SCADA systems read.

    Objects/nearfar/<machine>/{Score, Threshold, Alarm, Health, LastUpdate}     Double Double Boolean String DateTime

Variables are read-only. No encryption and no users: bind it to a machine network, or to 127.0.0.1 (the default).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nearfar.live.alarm import IN_ALARM
from nearfar.live.messages import OK, HealthMessage, Message, ScoreMessage, StateMessage
from nearfar.live.sinks.retry import RetryQueue

if TYPE_CHECKING:
    from nearfar.live.machine import Machine

NAMESPACE = "urn:nearfar:plant"


class OpcUa:
    """A sink that is a server at `endpoint` (opc.tcp://host:port/); needs asyncua. OSError if the port is taken."""

    name = "opc-ua"

    def __init__(self, machines: Sequence[Machine], endpoint: str = "opc.tcp://127.0.0.1:4840/nearfar/") -> None:
        try:
            from asyncua import ua
            from asyncua.sync import Server
        except ImportError:
            raise ImportError("OPC-UA needs asyncua: pip install 'nearfar[opcua]'") from None
        self._server = Server()
        self._server.set_endpoint(endpoint)
        self._server.set_server_name("nearfar")
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = self._server.register_namespace(NAMESPACE)
        root = self._server.nodes.objects.add_object(space, "nearfar")
        never = datetime(1970, 1, 1, tzinfo=timezone.utc)
        self._nodes: dict[str, dict[str, Any]] = {}
        for machine in machines:
            node = root.add_object(space, machine.id)
            threshold = float(machine.detector.threshold.value)
            start = {"Score": 0.0, "Threshold": threshold, "Alarm": False, "Health": OK, "LastUpdate": never}
            self._nodes[machine.id] = {name: node.add_variable(space, name, value) for name, value in start.items()}
        try:
            self._server.start()
        except OSError as error:
            self._server.tloop.stop()
            raise OSError(f"OPC-UA cannot be served at {endpoint}: {error.strerror or error}") from None
        self._queue = RetryQueue(self.name, self._show)

    @property
    def problem(self) -> str:
        """Why values are not shown, or ""."""
        return self._queue.problem

    def put(self, message: Message) -> None:
        """Show a message."""
        self._queue.put(message)

    def close(self) -> None:
        """Stop the server."""
        self._queue.close()
        self._server.stop()

    def _show(self, message: Message) -> None:
        values: dict[str, Any] = {}
        if isinstance(message, ScoreMessage):
            s = message.record
            values = {"Threshold": float(s.threshold), "Alarm": message.state in IN_ALARM}
            values["LastUpdate"] = datetime.fromtimestamp(s.t1, timezone.utc)
            values |= {} if s.anomalous is None else {"Score": float(s.score)}
        elif isinstance(message, StateMessage):
            values = {"Alarm": message.state in IN_ALARM}
        elif isinstance(message, HealthMessage):
            values = {"Health": OK if message.health == OK else f"{message.health}: {message.text}"}
        for name, value in values.items():
            self._nodes[message.machine][name].write_value(value)
