"""What people do to a machine by messages: the payload is empty, a number, or a JSON object with `who`.

acknowledge                                                    its newest alarm
shelve        8   {"hours": 8, "who": "Anna"}                  for some hours; 0 ends it
set-point     4.2   {"value": 4.2}   {"false_alarms_per_week": 1}
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nearfar.errors import BadInput

if TYPE_CHECKING:
    from nearfar.live.operator import Operator

NUMBER = {"acknowledge": "", "shelve": "hours", "set-point": "value"}  # what a bare number is
LONGEST = 1000  # bytes


def carry_out(operator: Operator, machine: str, name: str, payload: bytes) -> str:
    """Carry out a command, and say what was done. Raises what `operator` raises, and BadInput for a wrong payload."""
    if name not in NUMBER:
        raise BadInput(f"there is no command {name!r}; there are: {', '.join(NUMBER)}")
    given = _read(payload, NUMBER[name])
    who = "".join(c for c in str(given.pop("who", "")) if c.isprintable())[:40]
    who = f"{who} (MQTT)" if who else "somebody at MQTT"
    allowed = {"shelve": {"hours"}, "set-point": {"value", "false_alarms_per_week"}}.get(name, set())
    wrong = [key for key, value in given.items() if key not in allowed or not _is_number(value)]
    if wrong:
        raise BadInput(f"{wrong[0]}: {name} takes {' or '.join(sorted(allowed)) or 'nothing'}, as a number, and who")
    if name == "acknowledge":
        return f"event {operator.acknowledge_newest(machine, who).id} is acknowledged"
    if name == "shelve":
        if "hours" not in given:
            raise BadInput('shelve takes hours: 8, or {"hours": 8}')
        if given["hours"] == 0:
            operator.unshelve(machine, who)
            return "alarms are raised again"
        operator.shelve(machine, given["hours"], who)
        return f"shelved for {given['hours']:g} h"
    audit = operator.change_set_point(machine, who=who, **given)
    return f"alarm above {audit.detail['value']:.2f}, before {audit.detail['was']:.2f}"


def _read(payload: bytes, number: str) -> dict[str, Any]:
    try:
        found = json.loads(payload[: LONGEST + 1]) if payload.strip() else {}
    except (ValueError, RecursionError):
        raise BadInput(f"a payload is empty, a number or a JSON object, not {payload[:40]!r}") from None
    if number and _is_number(found):
        return {number: found}
    if not isinstance(found, dict):
        raise BadInput(f"a payload is empty, a number or a JSON object, not {payload[:40]!r}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
