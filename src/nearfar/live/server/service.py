"""What the parts of the API share: the plant, its limits, who asks, and the way from an error to an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from nearfar.errors import AudioError
from nearfar.live.drift import Drift, look
from nearfar.live.machine import Machine
from nearfar.live.plant import Plant
from nearfar.live.records import Audit, Event
from nearfar.live.server import schemas
from nearfar.live.server.decode import Decoder
from nearfar.live.server.limits import Limits, Refused, UploadSlots
from nearfar.live.server.playback import ExplanationCache
from nearfar.live.server.security import Access, Refusal, is_local
from nearfar.live.server.serializers import entry, state
from nearfar.live.server.stream import Stream

MINUTE_S, HOUR_S = 60.0, 3600.0
Found = TypeVar("Found")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": text}
    for status, text in {
        400: "The request cannot be read.",
        401: "No token, or a wrong one.",
        403: "A page of another site asked for it.",
        404: "There is no such machine, event, recording or entry.",
        405: "This cannot be done with that.",
        408: "The body did not arrive in time.",
        409: "It does not fit what is there: the message says why.",
        413: "The request is larger than the limit.",
        415: "Not a kind of body that is taken.",
        421: "The Host header is no name of this server.",
        422: "A value is wrong, or the recording cannot be used: the message says which and why.",
        429: "Too many requests from this address; see Retry-After.",
        501: "The server lacks an extra that is needed for this.",
        503: "Busy, or not ready; see Retry-After.",
    }.items()
}


@dataclass(eq=False)
class Service:
    """One server: the plant, the rules, and what it counts."""

    plant: Plant
    access: Access
    limits: Limits
    decoder: Decoder
    stream: Stream
    clock: Callable[[], float]
    metrics: Callable[[], bytes] | None = None
    dropped: Callable[[], int] = lambda: 0
    troubles: Callable[[], list[str]] = list
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.door = UploadSlots(self.limits.at_once, self.limits.waiting)
        self.workers = ThreadPoolExecutor(self.decoder.workers, "upload")
        self.stream.describe = lambda id: state(self.plant, id).model_dump()
        self.looks = ExplanationCache(self.plant)
        self._known: dict[str, tuple[float, object]] = {}
        self.plant.sinks.append(self.stream)

    def machine(self, id: str) -> Machine:
        """The machine, or 404."""
        with answers():
            return self.plant.machines[id]

    def event(self, id: int) -> Event:
        """The event, or 404."""
        with answers():
            return self.plant.history.event(id)

    def watched(self, id: int) -> Event:
        """An event of a machine that is watched now, or 404."""
        event = self.event(id)
        self.machine(event.machine)
        return event

    def drift(self, id: str) -> Drift:
        """Whether a machine's normal score creeps; looked at once an hour, since weeks are read."""
        return self._now_and_then(
            f"drift {id}", HOUR_S, lambda: look(self.plant.history.daily_medians(id, 0.0, math.inf))
        )

    def disk(self) -> tuple[int, int]:
        """(bytes that the history holds, bytes free there), of the last minute."""
        return self._now_and_then("disk", MINUTE_S, lambda: _disk(self.plant.history.folder))

    def told(self, audit: Audit) -> Audit:
        """Tell the pages that look on what somebody did."""
        self.stream.tell("audit", entry(audit).model_dump())
        self.stream.tell("state", state(self.plant, audit.machine).model_dump())
        return audit

    def _now_and_then(self, what: str, every_s: float, work: Callable[[], Found]) -> Found:
        at, found = self._known.get(what, (-math.inf, None))
        if self.clock() - at >= every_s:
            found = work()
            self._known[what] = self.clock(), found
        return found  # type: ignore[return-value]

    def close(self) -> None:
        """Stop decoding and streaming."""
        self.stream.close()
        self.workers.shutdown(cancel_futures=True)
        self.decoder.close()


def of(request: Request) -> Service:
    """The service of a request's app."""
    service: Service = request.app.state.service
    return service


def name_of(request: Request, who: str) -> str:
    """Who does something: the name given, and the address where it is another computer's."""
    address = request.client.host if request.client else ""
    name = "".join(c for c in who if c.isprintable()).strip()
    if is_local(address) or not address:
        return name or "somebody at this computer"
    return f"{name} ({address})" if name else f"somebody at {address}"


Here = Annotated[Service, Depends(of)]


@contextmanager
def answers(value_error: int = 409) -> Iterator[None]:
    """What the plant raises becomes an answer: KeyError 404, an unusable recording 422, ValueError as given."""
    try:
        yield
    except KeyError as error:
        raise Refused(Refusal(404, "not_found", str(error.args[0]))) from None
    except AudioError as error:
        raise Refused(Refusal(422, error.kind, str(error))) from None
    except ValueError as error:
        raise Refused(Refusal(value_error, "conflict" if value_error == 409 else "invalid", str(error))) from None
    except FileNotFoundError as error:
        raise Refused(Refusal(404, "not_found", str(error))) from None
    except OSError as error:
        raise Refused(Refusal(503, "disk", f"the disk does not play along: {error}", 60.0)) from None


def _disk(folder: Path) -> tuple[int, int]:
    """(bytes that a folder holds, bytes free there)."""
    import shutil

    held = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # drafts and old sounds go at any time
            held += file.stat().st_size
    return held, shutil.disk_usage(folder).free
