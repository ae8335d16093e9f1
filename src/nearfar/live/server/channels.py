"""The channels to people: listed, tested, added and removed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from nearfar.live.server import schemas
from nearfar.live.server.service import ERRORS, By, CallerDep, Service, ServiceDep
from nearfar.live.sinks.notify import Channel

router = APIRouter(prefix="/v1/channels", tags=["channels"], responses=ERRORS)
Name = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@router.get("", operation_id="listChannels")
def channels(service: ServiceDep) -> schemas.Channels:
    """The channels to people, without their addresses, which may hold secrets."""
    return schemas.Channels(channels=[_shown(service, channel) for channel in service.channels.all.values()])


@router.put("/{name}", operation_id="putChannel")
def put(service: ServiceDep, by: By, name: Name, body: schemas.NewChannel) -> schemas.PeopleChannel:
    """Add a channel, or replace one that was added; audited."""
    who = by(body.who)
    return _shown(service, service.channels.put(name, body.model_dump(exclude={"who"}), who))


@router.delete("/{name}", operation_id="deleteChannel")
def delete(service: ServiceDep, name: Name, who: CallerDep) -> schemas.Channels:
    """Remove a channel that was added, with its undelivered messages; audited. The others are the answer."""
    service.channels.remove(name, who)
    return channels(service)


@router.post("/{name}/test", operation_id="testChannel")
def test(service: ServiceDep, name: Name) -> schemas.Tested:
    """Send a test message at once, and say what came of it; quiet hours do not hold it back."""
    channel = service.channels.get(name)
    try:
        channel.test()
    except OSError as error:
        return schemas.Tested(ok=False, message=f"{error}.")
    return schemas.Tested(ok=True, message=f"{channel.address.service} took the message. Has it arrived?")


def _shown(service: Service, channel: Channel) -> schemas.PeopleChannel:
    return schemas.PeopleChannel.of(
        channel.rules,
        name=channel.label,
        service=channel.address.service,
        attaches=channel.address.attaches,
        quiet_until=channel.quiet_until(service.clock()),
        problem=channel.problem,
        dropped=channel.dropped,
        added=channel.label in service.channels.added,
    )
