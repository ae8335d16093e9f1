"""The limits of the server: requests, bytes, uploads at once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.live.server.errors import HttpError
from nearfar.live.server.limits import SMALL, Limits, RequestGuard, UploadSlots
from nearfar.live.server.security import Access
from nearfar.support.buckets import KEYS, Buckets


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(1, 9), st.floats(0.2, 9))
@settings(max_examples=100, deadline=None)
def test_a_bucket_gives_at_most_its_burst_and_what_has_flowed_in_since(gaps, burst, per_s):
    bucket, now, taken = Buckets(per_s, burst), 0.0, 0
    for gap in gaps:
        now += gap
        wait = bucket.take("a", now)
        taken += not wait
        assert taken <= burst + per_s * now + 1e-6
        if wait:
            assert bucket.take("a", now + wait + 1e-6) == 0
            now, taken = now + wait + 1e-6, taken + 1
    assert bucket.take("another", now) == 0


def test_addresses_are_forgotten_and_time_does_not_run_backwards():
    bucket = Buckets(1, 1)
    for i in range(KEYS + 50):
        bucket.take(str(i), 5.0)
    assert len(bucket.levels) == KEYS
    assert bucket.take("x", 10.0) == 0 and bucket.take("x", 2.0) > 0


def test_some_uploads_are_worked_on_some_wait_and_the_others_are_refused():
    async def run():
        slots, inside, most = UploadSlots(2, 3), 0, 0
        go = asyncio.Event()

        async def come():
            nonlocal inside, most
            async with slots.slot():
                inside += 1
                most = max(most, inside)
                await go.wait()
                inside -= 1

        tasks = [asyncio.create_task(come()) for _ in range(7)]
        await asyncio.sleep(0.01)
        assert most == 2 and slots.in_use == 5
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        turned = [d for d in done if isinstance(d, HttpError)]
        assert len(turned) == 2 and turned[0].status == 503 and turned[0].retry_after_s > 0
        assert slots.in_use == 0 and most == 2

    asyncio.run(run())


def ask(path="/v1/x", method="POST", body=(), headers=(), limits=None, times=1, steady=lambda: 0.0):
    """Status, headers and how many chunks of the body were read, of the last of `times` requests."""
    read, sent = 0, []

    async def app(scope, receive, send):
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = RequestGuard(app, Access(), limits or Limits(), steady=steady)

    async def run():
        nonlocal read
        for _ in range(times):
            chunks = list(body) or [b""]
            read = 0

            async def receive(chunks=chunks):
                nonlocal read
                read += 1
                return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "path": path, "method": method, "client": ("10.0.0.1", 1),
                     "headers": [(b"host", b"127.0.0.1"), *headers]}  # fmt: skip
            await guard(scope, receive, send)

    asyncio.run(run())
    start = [m for m in sent if m["type"] == "http.response.start"][-1]
    return start["status"], dict(start["headers"]), read


def test_a_body_that_is_announced_too_large_is_never_read():
    status, _, read = ask(headers=[(b"content-length", str(SMALL + 1).encode())])
    assert status == 413 and read == 0
    assert ask(headers=[(b"content-length", str(SMALL).encode())])[0] == 200
    assert ask("/v1/machines/a/score", headers=[(b"content-length", str(SMALL + 1).encode())])[0] == 200
    assert ask("/v1/machines/a/score", headers=[(b"content-length", b"70000000")])[0] == 413


def test_a_body_that_is_not_announced_is_counted():
    chunk = b"x" * 10_000
    status, _, read = ask(body=[chunk] * 50)
    assert status == 413 and read == 7  # 64 KiB and the piece that passes them


def test_too_many_requests_are_told_when_to_come_back():
    limits = Limits(per_s=0.5, burst=3)
    assert ask(limits=limits, times=3)[0] == 200
    status, headers, _ = ask(limits=limits, times=4)
    assert status == 429 and headers[b"retry-after"] == b"2"


def test_logins_are_few():
    assert ask("/login", times=10)[0] == 200
    assert ask("/login", times=11)[0] == 429


def test_every_answer_carries_the_headers():
    for headers in (ask()[1], ask(headers=[(b"content-length", b"99999999")])[1]):
        assert headers[b"x-content-type-options"] == b"nosniff" and headers[b"referrer-policy"] == b"no-referrer"
        assert b"default-src 'none'" in headers[b"content-security-policy"] and headers[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8::1", "2001:db8::ffff:0:1", True),
    ("2001:db8::1", "2001:db8:0:1::1", False),
    ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
    ("10.0.0.1", "10.0.0.2", False),
])  # fmt: skip
def test_the_addresses_of_one_network_of_ipv6_share_their_attempts_to_log_in(one, other, same):
    guard = RequestGuard(None, Access(), Limits(logins=1), clock=lambda: 0.0, steady=lambda: 0.0)

    def status(address):
        scope = {"client": (address, 1), "method": "POST"}
        return getattr(guard._check(scope, "/login", {"host": "127.0.0.1"}), "status", 200)

    assert status(one) == 200 and status(other) == (429 if same else 200)


def test_a_header_that_comes_twice_is_a_list_and_none_hides_the_other():
    good, evil = (b"origin", b"http://127.0.0.1"), (b"origin", b"http://evil.example")
    assert ask(headers=[good])[0] == 200
    assert ask(headers=[evil, good])[0] == ask(headers=[good, evil])[0] == 403
