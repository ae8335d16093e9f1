"""What the routes share: the service of the application, their parameters, the errors that they document."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi import Path as PathParameter
from pydantic import BeforeValidator, WithJsonSchema

from nearfar.errors import Conflict
from nearfar.live.channels import Channels
from nearfar.live.history.records import Audit, Event
from nearfar.live.machine import Machine
from nearfar.live.monitor import Monitor
from nearfar.live.plant import Plant
from nearfar.live.reports import Reports
from nearfar.live.roster import Roster
from nearfar.live.rules.drift import Drift, find_drift
from nearfar.live.server import schemas
from nearfar.live.server.decode import Decoder
from nearfar.live.server.errors import HttpError
from nearfar.live.server.limits import Limits, Refusals, UploadSlots
from nearfar.live.server.playback import ExplanationCache
from nearfar.live.server.security import Access, is_local
from nearfar.live.server.serializers import audit_entry, machine_state
from nearfar.live.server.stream import Stream
from nearfar.live.setup.preparation import Preparation
from nearfar.live.sinks.prometheus import Metrics

MINUTE_S, HOUR_S = 60.0, 3600.0
NO_SETUP = "this server sets up no machines: start it as `nearfar`, or set models in its configuration"
Value = TypeVar("Value")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": text}
    for status, text in {
        400: "The request cannot be read.",
        401: "The token is missing or wrong.",
        403: "The request comes from a page of another site, or the token can only read.",
        404: "There is no such machine, event, recording or audit entry.",
        405: "The method is not allowed at this address.",
        408: "The body did not arrive in time.",
        409: "The request contradicts the present state; the message says why.",
        413: "The request is larger than the limit.",
        415: "The type of the body is not supported.",
        421: "The Host header is not a name of this server.",
        422: "A value is wrong, or the recording cannot be used; the message says which and why.",
        429: "Too many requests from this address; see Retry-After.",
        500: "The server failed; its log says why, under the number of the request in the message.",
        501: "An optional package is not installed on the server.",
        503: "The server is busy, not ready, or cannot use its disk; see Retry-After.",
    }.items()
}


def _seconds(value: object) -> object:
    """A time of a query: seconds since 1970, or ISO 8601, UTC unless it says otherwise."""
    if not isinstance(value, str) or "-" not in value[1:]:
        return value
    try:
        at = datetime.fromisoformat(value.replace(" ", "+").replace("Z", "+00:00"))
    except ValueError:
        return value  # which is no number either
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()


TIME_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]}
Time = Annotated[
    float | None,
    BeforeValidator(_seconds),
    WithJsonSchema(TIME_SCHEMA),
    Query(ge=0, le=1e11, description="Seconds since 1970 (UTC), or ISO 8601."),
]
Id = Annotated[int, PathParameter(ge=1, le=2**53)]
Before = Annotated[int | None, Query(ge=1, le=2**53, description="Only entries older than this id.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Name = Annotated[str | None, Query(max_length=100)]


class Service:
    """One server: its plant, its rules, and what it counts."""

    def __init__(
        self,
        plant: Plant,
        access: Access,
        limits: Limits,
        decoder: Decoder,
        *,
        clock: Callable[[], float],
        metrics: Metrics | None,
        monitor: Monitor | None,
        roster: Roster | None,
    ) -> None:
        self.plant, self.access, self.limits, self.decoder = plant, access, limits, decoder
        self.clock, self.metrics, self.monitor = clock, metrics, monitor
        self.started, self.channels, self.reports = clock(), Channels(plant), Reports(plant)
        self.refusals = Refusals(metrics.count_refused_login if metrics else lambda: None)
        self.stream = Stream(f"{self.started:.0f}", plant.state, lambda id: machine_state(plant, id))
        plant.sinks.append(self.stream)
        self._roster = roster
        self.preparation: Preparation | None = None
        if roster is not None and roster.config.models is not None:
            self.preparation = Preparation(
                roster,
                here=not access.tokens,
                on_job=lambda job: self.stream.send("job", schemas.Job.of(job)),
                on_session=lambda session: self.stream.send("microphone", schemas.Session.of(session)),
                live=lambda id: self.stream.send("state", machine_state(plant, id)),
            )
        self.slots = UploadSlots(limits.at_once, limits.waiting)
        self.explanations = ExplanationCache(plant)
        self._workers = ThreadPoolExecutor(decoder.workers, "upload")
        self._cache: dict[str, tuple[float, object]] = {}

    @property
    def roster(self) -> Roster:
        """What adds and removes machines; Conflict if this server cannot."""
        if self._roster is None:
            raise Conflict("the machines of this server cannot be changed")
        return self._roster

    @property
    def setup(self) -> Preparation:
        """What sets up machines; HttpError 403 if this server does not."""
        if self.preparation is None:
            raise HttpError(403, "no_setup", NO_SETUP)
        return self.preparation

    def drift(self, id: str) -> Drift:
        """Whether the normal scores of a machine creep; computed once an hour, because it reads weeks of scores."""
        return self._cached(
            f"drift {id}", HOUR_S, lambda: find_drift(self.plant.history.daily_medians(id, 0.0, math.inf))
        )

    def disk(self) -> tuple[int, int]:
        """(size of the history, free space of its disk) in bytes; computed once a minute."""
        return self._cached("disk", MINUTE_S, lambda: _disk(self.plant.history.folder))

    def broadcast(self, audit: Audit) -> None:
        """Send an audit entry, and the state of its machine, to all open pages."""
        self.stream.send("audit", audit_entry(audit))
        self.stream.send("state", machine_state(self.plant, audit.machine))

    def done(self, audit: Audit, message: str, note: str = "") -> schemas.Done:
        """The answer to a change that is done, after telling all open pages."""
        self.broadcast(audit)
        return schemas.Done(message=message, audit_id=audit.id, note=note)

    async def run(self, work: Callable[..., Value], *arguments: Any) -> Value:
        """`work(*arguments)` in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, work, *arguments)

    def close(self) -> None:
        """Stop jobs, microphones, decoding and streaming."""
        if self.preparation is not None:
            self.preparation.close()
        self.stream.close()
        self._workers.shutdown(cancel_futures=True)
        self.decoder.close()

    def _cached(self, key: str, seconds: float, compute: Callable[[], Value]) -> Value:
        """The value of `compute`, at most `seconds` old."""
        at, value = self._cache.get(key, (-math.inf, None))
        if monotonic() - at >= seconds:
            value = compute()
            self._cache[key] = monotonic(), value
        return value  # type: ignore[return-value]


def get_service(request: Request) -> Service:
    """The service of the application that a request came to."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


async def machine_of_path(service: ServiceDep, id: str) -> Machine:
    """The machine of a path; NotFound if there is none."""
    return service.plant.machines[id]


MachineDep = Annotated[Machine, Depends(machine_of_path)]


def event_of_path(service: ServiceDep, id: Id) -> Event:
    """The event of a path; NotFound if there is none, or the plant no longer has its machine."""
    event = service.plant.history.event(id)
    service.plant.machines[event.machine]  # raises NotFound
    return event


EventDep = Annotated[Event, Depends(event_of_path)]


def caller_name(request: Request, who: str) -> str:
    """The name for the audit: `who` and the name of the token, with the address unless that is this computer's."""
    address = request.client.host if request.client else ""
    name, token = "".join(c for c in who if c.isprintable()).strip(), request.scope.get("token", "")
    if token and token != name:
        name = f"{name}, token {token}" if name else token
    if is_local(address) or not address:
        return name or "somebody at this computer"
    return f"{name} ({address})" if name else f"somebody at {address}"


async def names_caller(request: Request) -> Callable[[str], str]:
    """Makes the name for the audit of what a body says."""
    return partial(caller_name, request)


By = Annotated[Callable[[str], str], Depends(names_caller)]


async def caller_of_query(request: Request, who: schemas.Who = "") -> str:
    """The name for the audit, of a request whose query says who."""
    return caller_name(request, who)


CallerDep = Annotated[str, Depends(caller_of_query)]


def _disk(folder: Path) -> tuple[int, int]:
    """(size of a folder, free space of its disk) in bytes."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # temporary files and old recordings are deleted at any time
            size += file.stat().st_size
    return size, shutil.disk_usage(folder).free
