"""Connections of the server: a flood of half-sent requests closes no door and fills no log."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from brokers import wait_for
from nearfar.cli.log import BURST, FloodFilter, log_to_stderr
from nearfar.live.server import connections
from nearfar.live.server.connections import BoundedConfig, BoundedListener, most_connections

HALF = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = b"x" * (20_000_000 if scope["path"] == "/large" else 5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def bounded_server(app=hello, most=8, header_s=0.3):
    """(port, protocol connections) of a server with these bounds."""
    plain = socket.create_server(("127.0.0.1", 0))
    port = plain.getsockname()[1]
    config = BoundedConfig(app, most=most, header_s=header_s, log_level="error", lifespan="off")
    server, listener = uvicorn.Server(config), BoundedListener(plain, most)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield port, server.server_state.connections
    finally:
        server.should_exit = True
        thread.join(60)


def half_sent(port, text=HALF):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(text)
    return client


def answers(port):
    """Whether a request is answered; a client that stands still between connecting and asking is let go too."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 200


def is_closed(client, seconds=60.0):
    client.settimeout(seconds)
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("text", [b"", HALF, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" + HALF])
def test_a_client_that_does_not_finish_its_headers_is_let_go(text):
    with bounded_server() as (port, open_now), contextlib.closing(half_sent(port, text)) as slow:
        with contextlib.suppress(ConnectionError):
            while slow.recv(4096):  # the answer to a first whole request comes before
                pass
        assert wait_for(lambda: answers(port))
        assert len(open_now) <= 1


def test_dribbling_a_byte_now_and_then_does_not_help():
    with (
        bounded_server(header_s=0.5) as (port, _),
        contextlib.closing(half_sent(port)) as slow,
        pytest.raises(ConnectionError),
    ):
        for _ in range(600):
            slow.sendall(b"x")
            time.sleep(0.1)


def test_the_longest_waiting_connection_makes_room_for_a_new_one():
    with bounded_server(header_s=3600) as (port, open_now), contextlib.ExitStack() as clients:
        slow = []
        for _ in range(40):
            slow.append(clients.enter_context(contextlib.closing(half_sent(port))))
            with contextlib.closing(half_sent(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) as good:
                assert good.recv(12) == b"HTTP/1.1 200"
        assert len(open_now) <= 9 and is_closed(slow[0]) and not is_closed(slow[-1], 0.1)


def test_a_client_that_does_not_read_its_answer_is_let_go(monkeypatch):
    monkeypatch.setattr(connections, "STALLED_S", 0.3)
    asked = []

    async def noted(scope, receive, send):
        asked.append(scope["path"])
        await hello(scope, receive, send)

    text = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
    with bounded_server(noted, header_s=3600) as (port, open_now), contextlib.closing(half_sent(port, text)):
        assert wait_for(lambda: asked and not open_now)


def test_a_listener_closes_what_is_beyond_its_bound_and_counts_what_is_open():
    listener = BoundedListener(socket.create_server(("127.0.0.1", 0)), 4)
    with listener, contextlib.ExitStack() as opened:

        def come():
            opened.enter_context(socket.create_connection(listener.getsockname()))
            return listener.accept()[0]

        kept = [come() for _ in range(5)]
        with pytest.raises(ConnectionAbortedError):
            come()
        kept.pop().close()
        kept.append(come())
        for connection in kept:
            connection.close()


def test_connections_leave_half_of_the_file_handles():
    resource = pytest.importorskip("resource")
    handles = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 8 <= most_connections() <= min(1024, max(8, handles // 2))


def test_a_flood_of_one_line_is_counted_and_the_others_are_written():
    keep, log = FloodFilter(), logging.getLogger("flood")
    same = [keep.filter(log.makeRecord("flood", 40, "", 0, "cannot open %s", (str(i),), None)) for i in range(1000)]
    assert sum(same) == BURST
    assert keep.filter(log.makeRecord("flood", 40, "", 0, "another", (), None))


def test_after_a_flood_its_size_is_said(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nearfar.cli.log.time.monotonic", lambda: now[0])
    keep, log = FloodFilter(), logging.getLogger("flood")
    for _ in range(BURST + 7):
        keep.filter(log.makeRecord("flood", 40, "", 0, "same", (), None))
    now[0] = 3600.0
    record = log.makeRecord("flood", 40, "", 0, "same", (), None)
    assert keep.filter(record) and record.getMessage() == "same (7 more such lines before this one were left out)"


def test_lines_have_a_time_and_a_level_or_are_json(capsys):
    for form in ("text", "json"):
        with log_to_stderr(form):
            logging.getLogger("nearfar").warning("100 %% of %s", "it")
            try:
                raise OSError("no disk")
            except OSError:
                logging.getLogger("nearfar").exception("failed")
        text = capsys.readouterr().err
        if form == "text":
            first = text.splitlines()[0]
            assert first[10] == "T" and first.endswith("WARNING 100 % of it") and "OSError: no disk" in text
        else:
            one, two = map(json.loads, text.splitlines())
            assert one["level"] == "warning" and one["message"] == "100 % of it" and one["logger"] == "nearfar"
            assert two["level"] == "error" and "OSError: no disk" in two["exception"]
    logging.getLogger("nearfar").warning("nobody listens")
    with pytest.raises(ValueError, match="--log-format"), log_to_stderr("xml"):
        pass


def test_a_full_house_without_anybody_who_waits_turns_the_newest_away():
    asked, go_on = [], threading.Event()

    async def busy(scope, receive, send):
        asked.append(scope["path"])
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        await hello(scope, receive, send)

    whole = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    with (
        bounded_server(busy, most=2, header_s=3600) as (port, _),
        contextlib.closing(half_sent(port, whole)) as one,
        contextlib.closing(half_sent(port, whole)) as two,
    ):
        wait_for(lambda: len(asked) == 2)
        with contextlib.closing(half_sent(port, b"")) as third:
            assert is_closed(third)
        go_on.set()
        assert one.recv(12) == two.recv(12) == b"HTTP/1.1 200"
