"""The channels to people, each with a test."""

from __future__ import annotations

from fastapi import APIRouter

from nearfar.errors import NotFound
from nearfar.live.server import schemas
from nearfar.live.server.service import ERRORS, ServiceDep
from nearfar.live.sinks.notify import Channel

router = APIRouter(prefix="/v1/channels", tags=["channels"], responses=ERRORS)


@router.get("", operation_id="listChannels")
def channels(service: ServiceDep) -> schemas.Channels:
    """The channels to people, without their addresses, which may hold secrets."""
    now = service.clock()
    return schemas.Channels(
        channels=[
            schemas.PeopleChannel(
                name=channel.label,
                service=channel.address.service,
                attaches=channel.address.attaches,
                machines=list(channel.rules.machines),
                events=list(channel.rules.events),
                quiet=list(channel.rules.quiet),
                quiet_until=channel.quiet_until(now),
                problem=channel.problem,
                dropped=channel.dropped,
            )
            for channel in _channels(service).values()
        ]
    )


@router.post("/{name}/test", operation_id="testChannel")
def test(service: ServiceDep, name: str) -> schemas.Tested:
    """Send a test message at once, and say what came of it; quiet hours do not hold it back."""
    known = _channels(service)
    if name not in known:
        raise NotFound(f"there is no channel {name!r}; there are: {', '.join(known) or 'none'}")
    try:
        known[name].test()
    except OSError as error:
        return schemas.Tested(ok=False, message=f"{error}.")
    return schemas.Tested(ok=True, message=f"{known[name].address.service} took the message. Has it arrived?")


def _channels(service: ServiceDep) -> dict[str, Channel]:
    return {sink.label: sink for sink in service.plant.sinks if isinstance(sink, Channel)}
