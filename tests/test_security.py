"""Access to the server: tokens, sessions, host names and origins."""

import os
import stat

import pytest

from nearfar.live.server import security
from nearfar.live.server.security import COOKIE, SESSION_S, Access, access, is_local, local_path, read_token

TOKEN = "a-token-that-is-long-enough"
NOW = 1_800_000_000.0
CLOSED = Access(TOKEN, frozenset({"localhost", "plant.example"}))


def asked(rules=CLOSED, method="GET", path="/v1/machines", now=NOW, **headers):
    """The code of the error, or None."""
    given = {"host": "plant.example:8080"} | {k.replace("_", "-"): v for k, v in headers.items()}
    found = rules.check(method, path, given, now)
    return found and found.code


def session(now=NOW, rules=CLOSED):
    return rules.cookie(now, secure=False).partition(";")[0]


def test_the_token_opens_and_nothing_else_does():
    assert asked() == "no_token"
    assert asked(authorization=f"Bearer {TOKEN}") is None
    assert asked(authorization=f"bearer  {TOKEN} ") is None
    for wrong in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", TOKEN):
        assert asked(authorization=wrong) == "no_token", wrong
    assert not Access("").is_token("")  # no token is no password


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/login", "/static/style.css"])
def test_open_paths_need_no_token(path):
    assert asked(path=path) is None


@pytest.mark.parametrize("path", ["/", "/metrics", "/v1/events", "/healthz/x", "/login2", "/static", "/openapi.json"])
def test_everything_else_does(path):
    assert asked(path=path) == "no_token"


def test_a_session_lasts_a_shift_and_cannot_be_made_up():
    cookie = session()
    assert asked(cookie=cookie) is None and asked(cookie=f"other=1; {cookie}") is None
    assert asked(cookie=cookie, now=NOW + SESSION_S - 1) is None
    assert asked(cookie=cookie, now=NOW + SESSION_S + 1) == "no_token"
    name, value = cookie.split("=")
    expiry, mac = value.split(".")
    for forged in (
        f"{int(expiry) + 1}.{mac}",
        f"{expiry}.{mac[:-1]}0",
        f"{expiry}.",
        ".",
        "",
        f"9999999999999999999.{mac}",
    ):
        assert asked(cookie=f"{name}={forged}") == "no_token", forged
    assert asked(cookie=session(rules=Access("another-token-of-some-length"))) == "no_token"


def test_the_cookie_is_kept_from_scripts_and_other_sites():
    cookie = CLOSED.cookie(NOW, secure=True)
    assert cookie.startswith(COOKIE + "=") and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Secure"} <= set(cookie.split("; "))
    assert "Secure" not in CLOSED.cookie(NOW, secure=False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "[::1]:8080", "192.168.1.4", "localhost:1", "plant.example", "PLANT.example."]
)
def test_our_names_and_bare_addresses_are_hosts(host):
    assert asked(host=host, authorization=f"Bearer {TOKEN}") is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1",
        "a b",
        "plant.example@evil.example",
    ],
)
def test_a_name_that_is_not_ours_is_refused_even_with_the_token(host):
    assert asked(host=host, authorization=f"Bearer {TOKEN}") == "wrong_host"
    assert asked(Access(), host=host) == "wrong_host"


def test_what_changes_something_comes_from_our_own_pages_or_from_programs():
    cookie, local = session(), Access()
    good = {"origin": "http://plant.example:8080", "sec_fetch_site": "same-origin"}
    assert asked(method="POST", cookie=cookie, **good) is None
    assert asked(local, "POST", host="127.0.0.1:8080") is None  # curl
    assert asked(local, "POST", host="127.0.0.1:8080", origin="http://127.0.0.1:8080") is None
    for evil in ("http://evil.example", "null", "http://plant.example:9090", "http://plant.example.evil.example:8080"):
        assert asked(method="POST", cookie=cookie, origin=evil) == "wrong_origin", evil
        assert asked(local, "DELETE", host="127.0.0.1:8080", origin=evil) == "wrong_origin", evil
    for site in ("cross-site", "same-site"):
        assert asked(method="PUT", cookie=cookie, sec_fetch_site=site) == "wrong_origin"
    assert asked(method="GET", cookie=cookie, origin="http://evil.example") is None  # cannot be read there


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.0.2", False),
        ("plant.example", False),
        ("", False),
    ],
)
def test_only_this_computer_can_do_without_a_token(host, local):
    assert is_local(host) is local
    if local:
        assert access(host, "").token == ""
    else:
        with pytest.raises(ValueError, match="--token-file"):
            access(host, "")


def test_names_that_are_allowed_are_answered_to():
    rules = access("0.0.0.0", TOKEN, ["Nearfar.Plant."])
    assert asked(rules, host="nearfar.plant", authorization=f"Bearer {TOKEN}") is None
    assert asked(rules, host="other.plant", authorization=f"Bearer {TOKEN}") == "wrong_host"


def test_a_token_file_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    old = os.umask(0)
    try:
        token = read_token(path)
    finally:
        os.umask(old)
    assert len(token) >= 40 and read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ValueError, match="5 characters"):
        read_token(path)


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/\n/x", "javascript:alert(1)"]
)
def test_a_login_leads_nowhere_else(path):
    assert local_path(path) == "/"
    assert local_path("/machine/pump%203?x=1") == "/machine/pump%203?x=1"


def test_no_script_or_style_may_be_inline_and_nobody_may_frame_us():
    rules = dict(part.split(" ", 1) for part in security.POLICY.split("; "))
    assert rules["default-src"] == "'none'" and rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in security.POLICY and "*" not in security.POLICY and "http" not in security.POLICY
