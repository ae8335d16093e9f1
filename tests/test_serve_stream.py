"""Live events: in order, from where a page left off, with bounded memory, and never in the plant's way."""

import asyncio
import json
import threading

import httpx
import pytest

from brokers import wait_for
from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.server import stream as module
from nearfar.live.server.app import make_app
from nearfar.live.server.limits import Limits
from nearfar.live.server.schemas import MachineState
from nearfar.live.server.stream import RING, Stream
from nearfar.live.sinks.messages import EventMessage, ScoreMessage, StateMessage
from plants import T0
from servers import FAULTY, a_plant, listen, server_of


def state_of(machine):
    return MachineState(**{**MachineState.example(), "id": machine, "window": None})


def read(parts):
    """(id, event, data) of each message."""
    out = []
    for block in b"".join(parts).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            out.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return out


async def take(stream, last_id=None, *, count=1):
    """The parts that come before nothing more does, and then `count` waits."""
    parts = []
    async for part in stream.listen(last_id):
        parts.append(part)
        if len(read(parts)) >= count:
            break
    return read(parts)


def test_a_page_that_comes_back_gets_what_it_missed_and_nothing_twice():
    async def run():
        stream = Stream("7", lambda machine: "normal", state_of)
        for i in range(5):
            stream.send("state", {"i": i})
        first = await take(stream, "7-2", count=3)
        assert [d["i"] for _, _, d in first] == [2, 3, 4] and first[-1][0] == "7-5"
        stream.send("state", {"i": 5})
        assert [d["i"] for _, _, d in await take(stream, "7-5")] == [5]

    asyncio.run(run())


@pytest.mark.parametrize("last", ["6-2005", "7-9999", "x", "7-", "-1", "7-1"])
def test_who_cannot_be_told_what_was_missed_is_told_to_ask_anew(last):
    async def run():
        stream = Stream("7", lambda machine: "normal", state_of)
        for i in range(RING + 10):
            stream.send("state", {"i": i})
        ((_, kind, _),) = await take(stream, last)
        assert kind == "resync"

    asyncio.run(run())


def test_a_reader_that_does_not_read_costs_nothing_and_is_told_so():
    async def run():
        stream = Stream("7", lambda machine: "normal", state_of)
        slow = stream.listen(None)
        assert b"retry" in await slow.__anext__()
        for i in range(5 * RING):
            stream.send("score", {"i": i})
        assert len(stream._ring) == RING
        assert read([await slow.__anext__()])[0][1] == "resync"
        await slow.aclose()

    asyncio.run(run())


def test_quiet_is_bridged_and_closing_lets_everybody_go(monkeypatch):
    monkeypatch.setattr(module, "QUIET_S", 0.01)

    async def run():
        stream = Stream("7", lambda machine: "normal", state_of)
        reader = stream.listen(None)
        await reader.__anext__()
        assert (await reader.__anext__()).startswith(b":")
        stream.close()
        assert [part async for part in reader if not part.startswith(b":")] == []

    asyncio.run(run())


def test_messages_of_the_plant_from_any_thread():
    async def run():
        stream = Stream("7", lambda machine: "normal", state_of)
        score = ScoreMessage(
            "a", "s", 2.0, ScoreRecord("a", 1.0, 2.0, 3.0, 4.0, None, 1.0, (), "", -3.0), "normal", "m"
        )
        event = EventMessage("a", "s", 2.0, "raised", Event(1, "a", "alarm", 1.0, audio="secret.flac"))
        messages = [score, score, StateMessage("a", "s", 2.0, "x"), event]
        taking = asyncio.create_task(take(stream, count=5))
        while not stream._wakeups:
            await asyncio.sleep(0)
        for message in messages:
            await asyncio.to_thread(stream.put, message)
        got = await asyncio.wait_for(taking, 60)
        # the first score makes a machine that waited one that is heard; the second changes nothing
        assert [kind for _, kind, _ in got] == ["score", "state", "score", "state", "event"]
        assert got[0][2]["level_near_dbfs"] == -3.0 and "model" not in got[0][2] and stream.windows == 2
        assert "secret" not in json.dumps(got[4][2])

    asyncio.run(run())


@pytest.fixture(scope="module")
def plant(pump3, tmp_path_factory):
    plant, clock = a_plant(pump3, tmp_path_factory.mktemp("stream"))
    yield plant, clock
    plant.close()
    plant.history.close()


def test_an_alarm_reaches_a_page_over_http_and_a_second_connection_goes_on(plant):
    app = make_app(plant[0], clock=plant[1], limits=Limits(listeners=1))
    with server_of(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("GET", "/v1/stream") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            parts, lines = [], answer.iter_bytes()
            parts.append(next(lines))
            assert client.get("/v1/stream").status_code == 503
            heard = threading.Thread(target=listen, args=(plant[0], FAULTY))
            heard.start()
            while not any(kind == "event" for _, kind, _ in read(parts)):
                parts.append(next(lines))
        heard.join()
        got = read(parts)
        assert {"score", "state", "event"} >= {kind for _, kind, _ in got}
        raised = next(d for _, kind, d in got if kind == "event")
        assert raised["what"] == "raised" and raised["machine"] == "pump" and raised["started"] == T0 + 12
        assert wait_for(lambda: not app.state.service.stream.listeners)  # the first connection is seen to have ended
        with client.stream("GET", "/v1/stream", headers={"last-event-id": got[-1][0]}) as answer:
            parts = []
            for part in answer.iter_bytes():
                parts.append(part)
                if read(parts):
                    break
        numbers = [int(i.split("-")[1]) for i, _, _ in got + read(parts)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_no_more_pages_follow_than_are_allowed_when_all_ask_at_once(plant):
    app = make_app(plant[0], clock=plant[1], limits=Limits(listeners=5))
    stream = app.state.service.stream
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/stream",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
    }

    async def run():
        gone, answered, statuses = asyncio.Event(), asyncio.Event(), []

        async def follow():
            asked = False

            async def receive():
                nonlocal asked
                if asked:
                    await gone.wait()
                    return {"type": "http.disconnect"}
                asked = True
                return {"type": "http.request", "body": b""}

            async def send(message):
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                    if len(statuses) == 12:
                        answered.set()

            await app(dict(scope), receive, send)

        pages = [asyncio.create_task(follow()) for _ in range(12)]
        await asyncio.wait_for(answered.wait(), 60)
        assert sorted(statuses) == [200] * 5 + [503] * 7 and stream.listeners == 5
        gone.set()
        await asyncio.wait_for(asyncio.gather(*pages), 60)
        assert stream.listeners == 0

    asyncio.run(run())


def test_head_of_the_stream_keeps_no_place(plant):
    app = make_app(plant[0], clock=plant[1], limits=Limits(listeners=1))
    with server_of(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.head("/v1/stream").headers["content-type"].startswith("text/event-stream")
        assert wait_for(lambda: app.state.service.stream.listeners == 0)
