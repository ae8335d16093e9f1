"""Access to the server: tokens, sessions, host names and origins."""

import os
import stat

import pytest

from nearfar.live.server import security
from nearfar.live.server.security import COOKIE, SESSION_S, Access, Token, access, is_local, local_path, read_tokens

TOKEN = "a-token-that-is-long-enough"
NOW = 1_800_000_000.0
CLOSED = Access((Token(TOKEN),), frozenset({"localhost", "plant.example"}))


def asked(rules=CLOSED, method="GET", path="/v1/machines", now=NOW, **headers):
    """The code of the error, or None."""
    given = {"host": "plant.example:8080"} | {k.replace("_", "-"): v for k, v in headers.items()}
    found = rules.check(method, path, given, now)
    return found and found.code


def session(now=NOW, rules=CLOSED):
    return rules.cookie(rules.tokens[0], now, secure=False).partition(";")[0]


def test_the_token_opens_and_nothing_else_does():
    assert asked() == "no_token"
    assert asked(authorization=f"Bearer {TOKEN}") is None
    assert asked(authorization=f"bearer  {TOKEN} ") is None
    for wrong in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", TOKEN):
        assert asked(authorization=wrong) == "no_token", wrong
    assert Access().token("") is None  # no token is no password


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
    assert asked(cookie=session(rules=Access((Token("another-token-of-some-length"),)))) == "no_token"


def test_the_cookie_is_kept_from_scripts_and_other_sites():
    cookie = CLOSED.cookie(CLOSED.tokens[0], NOW, secure=True)
    assert cookie.startswith(COOKIE + "=") and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Secure"} <= set(cookie.split("; "))
    assert "Secure" not in CLOSED.cookie(CLOSED.tokens[0], NOW, secure=False)


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
        assert access(host, ()).tokens == ()
    else:
        with pytest.raises(ValueError, match="--token-file"):
            access(host, ())


def test_names_that_are_allowed_are_answered_to():
    rules = access("0.0.0.0", [Token(TOKEN)], ["Nearfar.Plant."])
    assert asked(rules, host="nearfar.plant", authorization=f"Bearer {TOKEN}") is None
    assert asked(rules, host="other.plant", authorization=f"Bearer {TOKEN}") == "wrong_host"


def test_a_token_file_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    old = os.umask(0)
    try:
        (token,) = read_tokens(path)
    finally:
        os.umask(old)
    assert len(token.secret) >= 40 and not token.read_only and read_tokens(path) == (token,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        read_tokens(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ValueError, match="5 characters"):
        read_tokens(path)


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


def test_a_file_holds_named_tokens_and_some_only_read(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# tokens of hall 2\n{TOKEN}\n\nanna {TOKEN}-anna\nprometheus read {TOKEN}-reads\n")
    path.chmod(0o600)
    one, anna, reads = read_tokens(path)
    assert (one.name, anna.name, reads.name) == ("", "anna", "prometheus") and reads.read_only and not anna.read_only
    rules = access("0.0.0.0", [one, anna, reads], ["plant.example"])
    assert rules.token(f"{TOKEN}-anna") == anna and rules.token("") is None
    assert asked(rules, authorization=f"Bearer {reads.secret}") is None
    assert asked(rules, "POST", authorization=f"Bearer {reads.secret}") == "read_only"
    cookie = rules.cookie(reads, NOW, secure=False).partition(";")[0]
    assert asked(rules, cookie=cookie) is None and asked(rules, "PUT", cookie=cookie) == "read_only"
    for wrong, said in (
        ("anna write x" + TOKEN, "NAME read SECRET"),
        ("a b c " + TOKEN, "line 1"),
        ("# no", "no token"),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=said):
            read_tokens(path)


@pytest.mark.parametrize(
    ("peer", "stated", "client"),
    [
        ("10.0.0.5", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.5", "6.6.6.6, 192.0.2.7", "192.0.2.7"),  # the left one may be made up
        ("10.0.0.5", "192.0.2.7, 10.0.0.9", "192.0.2.7"),
        ("10.0.0.5", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.5", "", "10.0.0.5"),
        ("10.0.0.5", "unknown", "10.0.0.5"),
        ("10.0.0.5", "192.0.2.7, evil", "10.0.0.5"),
        ("192.0.2.1", "192.0.2.7", "192.0.2.1"),
    ],
)
def test_only_a_trusted_proxy_may_state_an_address(peer, stated, client):
    rules = access("0.0.0.0", [Token(TOKEN)], proxies=["10.0.0.0/24"])
    headers = {"x-forwarded-for": stated, "x-forwarded-proto": "https"}
    assert rules.client(peer, headers) == (client, "https" if peer.startswith("10.") else "")
    assert rules.client("10.0.0.5", {"x-forwarded-proto": "javascript"}) == ("10.0.0.5", "")


def test_a_proxy_needs_a_token_an_address_and_a_path():
    with pytest.raises(ValueError, match="a token is needed"):
        access("127.0.0.1", (), proxies=["10.0.0.5"])
    with pytest.raises(ValueError, match="--trusted-proxy must be an address"):
        access("127.0.0.1", [Token(TOKEN)], proxies=["plant.example"])
    for wrong in ("hall2", "/hall2?x", "/a b", "//x", '/"'):
        with pytest.raises(ValueError, match="--root-path"):
            access("127.0.0.1", (), root=wrong)
    assert access("127.0.0.1", (), root="/a/b/").root == "/a/b" and access("127.0.0.1", (), root="/").root == ""
    assert local_path("/event/1", "/hall2") == "/hall2/" and local_path("/hall2/event/1", "/hall2") == "/hall2/event/1"


def test_tokens_that_change_on_the_disk_count_at_once_and_wrong_ones_never(tmp_path):
    file = tmp_path / "token"
    old, new = "the-old-token-of-the-plant", "the-new-token-of-the-plant"
    file.write_text(old)
    file.chmod(0o600)
    rules = access("0.0.0.0", read_tokens(file), file=file)
    assert rules.reread() == "" and rules.token(old)
    cookie = rules.cookie(rules.tokens[0], 0.0, secure=False).partition(";")[0]
    file.write_text(f"{new}\nwall read {'x' * 30}")
    assert "2 tokens from now on" in rules.reread() and rules.reread() == ""
    assert rules.token(old) is None and rules.token(new) and rules.token("x" * 30).read_only
    assert rules.token_of({"cookie": cookie}, 1.0) is None, "a session of the old token is over"
    for wrong in ("short", "", "# nothing", "a b c d-that-is-long-enough"):
        file.write_text(wrong)
        assert "the tokens of before go on" in rules.reread() and rules.reread() == "" and rules.token(new)
    file.write_text(old)
    file.chmod(0o644)
    assert "can be read by other users" in rules.reread() and rules.token(new)
    file.unlink()
    assert "has gone" in rules.reread() and rules.token(new) and not file.exists()
    file.write_text(old)
    file.chmod(0o600)
    assert "1 token from now on" in rules.reread() and rules.token(old)
