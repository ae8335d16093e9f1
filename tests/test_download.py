"""Downloads from a server that breaks, lies and changes its mind: the file arrives, or an error that says why."""

import contextlib
import hashlib
import multiprocessing
import sys
import warnings

import numpy as np
import pytest

from fault_server import serving

pytest.importorskip("requests")
pytest.importorskip("filelock")
pytest.importorskip("huggingface_hub")

from nearfar.challenge.data.download import listing
from nearfar.encoders.weights import pull
from nearfar.errors import DownloadError
from nearfar.support import download
from nearfar.support.download import Expected

BODY = np.random.default_rng(0).bytes(1_500_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NEARFAR_MIRROR", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights" / "file.bin"


def fetch(url, target, *, sha256=None, md5=None, size=None, **options):
    return download.fetch(url, target, Expected(sha256, md5, size), **{"pause_s": 0.01, **options})


def whole(target):
    assert target.read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir() if not p.name.startswith(".")] == [target.name]


def refused(server, target, *words, **options):
    """The message of a download that must fail; nothing may be left under the file's name."""
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, target, **options)
    assert not target.exists()
    message = str(caught.value)
    for word in (server.url, *words):
        assert word in message
    return message


def test_a_file_comes_whole_with_progress(target, monkeypatch):
    seen = []
    monkeypatch.setattr(download, "MEGABYTE", 100_000)
    monkeypatch.setattr(download, "BLOCK", 100_000)  # however fast the connection is
    with serving(body=BODY) as server:
        assert fetch(server.url, target, sha256=SHA256, size=len(BODY), progress=lambda *at: seen.append(at)) == target
    whole(target)
    assert seen[-1] == (15, 15, "fetching file.bin (MB)") and len(seen) > 3 and seen == sorted(seen)


def test_a_broken_connection_is_resumed_and_nothing_comes_twice(target):
    with serving(body=BODY, cut=[400_000, 0, 500_000]) as server:
        fetch(server.url, target)
        assert server.sent == len(BODY)
        assert [asked for _, asked, _ in server.asked] == ["", "bytes=400000-", "bytes=400000-", "bytes=900000-"]
    whole(target)


def test_a_download_that_gave_up_is_resumed_by_the_next_one(target):
    with serving(body=BODY, cut=[700_000, 0, 0]) as server:
        message = refused(server, target, "700,000 bytes are kept", "800,000 bytes still to come", tries=2)
        assert "IncompleteRead" not in message
        fetch(server.url, target)
        assert server.asked[-1] == ("/file.bin", "bytes=700000-", 800_000)
    whole(target)


def test_a_server_that_knows_no_ranges_starts_again(target):
    with serving(body=BODY, cut=[600_000], ranges=False) as server:
        fetch(server.url, target)
        assert [count for _, _, count in server.asked] == [600_000, len(BODY)]
    whole(target)


@pytest.mark.parametrize(("sha256", "resumes"), [(None, False), (SHA256, True)])
def test_without_a_tag_a_part_is_used_only_if_the_hash_is_known(target, sha256, resumes):
    with serving(body=BODY, cut=[600_000], tagged=False) as server:
        fetch(server.url, target, sha256=sha256)
        assert server.asked[1][1] == ("bytes=600000-" if resumes else "")
    whole(target)


@pytest.mark.parametrize("conditional", [True, False])
def test_a_file_that_changes_between_attempts_is_never_a_mixture(target, monkeypatch, conditional):
    with serving(body=BODY[::-1], cut=[600_000], conditional=conditional) as server:
        monkeypatch.setattr(download.time, "sleep", lambda _: setattr(server, "body", BODY))
        fetch(server.url, target)
        assert server.asked[1][1]  # it asked to resume
    whole(target)


def test_a_wrong_hash_is_refused_and_nothing_is_kept(target):
    wrong = hashlib.sha256(b"other").hexdigest()
    with serving(body=BODY) as server:
        refused(server, target, SHA256, wrong, "the published one is", "Nothing of it was kept", sha256=wrong)
        refused(server, target, hashlib.md5(BODY).hexdigest(), "MD5", md5="0" * 32)
        assert not [p for p in target.parent.iterdir() if not p.name.startswith(".")]
        fetch(server.url, target, md5=hashlib.md5(BODY).hexdigest().upper())
    whole(target)


def test_a_part_of_another_file_is_thrown_away_and_the_file_fetched_whole(target):
    with serving(body=BODY, cut=[600_000, 0]) as server:
        refused(server, target, tries=1)
        part = target.with_name("file.bin.part")
        part.write_bytes(bytes(600_000))
        fetch(server.url, target, sha256=SHA256)
    whole(target)


def test_a_truncated_file_is_seen_before_it_comes(target):
    with serving(body=BODY[:1000]) as server:
        refused(server, target, "offers 1,000 bytes", "1,500,000 are expected", "Nothing was fetched", size=len(BODY))
        assert len(server.asked) == 1


def test_a_truncated_file_of_unknown_length_is_seen_when_it_is_there(target):
    with serving(body=BODY[:1000], chunked=True) as server:
        refused(server, target, "it has 1,000 bytes", "1,500,000 were expected", size=len(BODY))


def test_a_body_that_is_longer_than_it_may_be_is_stopped(target):
    with serving(body=BODY * 4, chunked=True) as server:
        refused(server, target, "more than the 1,500,000 bytes", size=len(BODY))
        assert not target.with_name("file.bin.part").exists()


def test_a_length_that_is_too_large_is_found_out_by_asking_for_the_rest(target):
    with serving(body=BODY, claim=len(BODY) + 500) as server:
        fetch(server.url, target, sha256=SHA256)
        assert server.sent == len(BODY)
    whole(target)


def test_a_length_that_is_too_small_gives_a_file_that_is_refused(target):
    with serving(body=BODY, claim=1000) as server:
        refused(server, target, "offers 1,000 bytes", size=len(BODY))
        refused(server, target, "its SHA-256 is", sha256=SHA256)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_no_file(target, kind):
    with serving(body=b"\n<!DOCTYPE html><html><body>Sign in</body></html>", kind=kind) as server:
        refused(server, target, "web page instead of the file", "sign-in", "in a browser")
        assert len(server.asked) == 1


def test_what_may_pass_is_tried_again(target):
    with serving(body=BODY, answers=[500, 503, 429]) as server:
        fetch(server.url, target)
        assert len(server.asked) == 4
    whole(target)


def test_what_stays_busy_is_given_up_with_its_reason(target):
    with serving(body=BODY, answers=[503] * 9) as server:
        refused(server, target, "3 tries brought nothing", "503 Service Unavailable", tries=3)
        assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "licence"), (401, "sign-in")])
def test_what_will_not_pass_is_not_tried_again(target, status, words):
    with serving(body=BODY, answers=[status]) as server:
        refused(server, target, str(status), words)
        assert len(server.asked) == 1


def test_redirects_are_followed_within_http_only(target, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("not for you")
    with serving(body=BODY) as server:
        server.redirect = server.url.replace("file.bin", "moved")
        fetch(server.url, target)
        whole(target)
        target.unlink()
        server.redirect = server.url  # to itself
        refused(server, target, "redirected in circles")
        server.redirect = secret.as_uri()
        refused(server, target, "neither http nor https")
        with pytest.raises(DownloadError, match="only http and https"):
            fetch(secret.as_uri(), target)
        with pytest.raises(DownloadError, match="only http and https"):
            fetch(server.url, target, mirrors={"http://": tmp_path.as_uri()})


def test_nobody_is_there(target):
    with serving(body=BODY) as server:
        pass
    refused(server, target, "no connection (Connection refused)", "NEARFAR_MIRROR", tries=2)


def test_a_file_that_is_there_is_not_fetched_again(target):
    with serving(body=BODY) as server:
        fetch(server.url, target)
        fetch(server.url, target, sha256=SHA256)
        assert len(server.asked) == 1
        target.write_bytes(BODY[::-1])
        with pytest.raises(DownloadError, match="is there, but is not"):
            fetch(server.url, target, sha256=SHA256)


def test_a_full_disk_is_seen_before_it_is_full(target, monkeypatch):
    monkeypatch.setattr("nearfar.support.download.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with serving(body=BODY) as server:
        refused(server, target, "needs 1,500,000 bytes more", "has 1,000 left")


def test_stopping_keeps_the_part_and_nothing_under_the_file_s_name(target, monkeypatch):
    def stop(done, total, what):
        if done >= 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "MEGABYTE", 100_000)

    with serving(body=BODY) as server:
        with pytest.raises(KeyboardInterrupt):
            fetch(server.url, target, progress=stop)
        kept = target.with_name("file.bin.part").stat().st_size
        assert not target.exists() and kept >= 500_000
        fetch(server.url, target)
        assert server.asked[1][1] == f"bytes={kept}-"
    whole(target)


def _one_of_two(url, target, gate):
    gate.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fetch(url, target)


def test_two_processes_at_once_fetch_it_once(target):
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(2)
    with serving(body=BODY) as server:
        pair = [context.Process(target=_one_of_two, args=(server.url, target, gate)) for _ in "ab"]
        for process in pair:
            process.start()
        for process in pair:
            process.join(300)
        assert [process.exitcode for process in pair] == [0, 0]
        assert server.sent == len(BODY)
    whole(target)


@pytest.mark.parametrize("module", ["requests", "filelock", "huggingface_hub"])
def test_without_the_extra_it_says_what_to_install_and_how_to_do_without(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    extra = rf'needs {module}: pip install "nearfar\[pull\]"\. Fetch '
    zenodo = r"dev_\*\.zip by hand from https://zenodo\.org/records/19336329 and"
    if module != "huggingface_hub":
        with pytest.raises(DownloadError, match=extra + zenodo):
            listing("dcase2026-dev")
        monkeypatch.setenv("NEARFAR_MIRROR", "http://127.0.0.1:9")  # the Hub is not asked
    with pytest.raises(
        DownloadError, match=extra + r"model\.safetensors by hand from https://huggingface\.co/.*--from"
    ):
        pull("ced-tiny", tmp_path)


def test_mirrors_are_read_when_asked(monkeypatch, target):
    url = "https://github.com/nttcslab/m2d/releases/download/v0.5.0/m2d.zip"
    assert download.mirrored(url) == url
    monkeypatch.setenv("NEARFAR_MIRROR", "https://mirror.plant/files")
    assert download.mirrored(url) == "https://mirror.plant/files/" + url.removeprefix("https://")
    assert download.mirrored(url, {}) == url
    with serving(body=BODY) as server:
        monkeypatch.setenv("NEARFAR_MIRROR", server.url.removesuffix("/file.bin"))
        fetch(url, target)
        assert server.asked[0][0] == "/" + url.removeprefix("https://")
    whole(target)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def hub(monkeypatch, **faults):
    with serving(body=BODY, commit=COMMIT, **faults) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file.bin"))
        yield server


def test_the_hub_names_commit_size_and_hash_and_sees_no_more_than_it_has_to(monkeypatch, target):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    with hub(monkeypatch, cut=[400_000]) as server:
        url, expected, headers = download.hub_file("owner/name", "model.safetensors")
        assert url == server.url.replace("file.bin", f"owner/name/resolve/{COMMIT}/model.safetensors")
        assert (expected.sha256, expected.size) == (SHA256, len(BODY))
        download.fetch(url, target, expected, headers=headers, pause_s=0.01)
        assert [path for path, _ in server.looked_up] == ["/owner/name/resolve/main/model.safetensors"]
        assert server.sent == len(BODY) and server.asked[-1][:2] == ("/storage", "bytes=400000-")
        assert server.signed_in and "/storage" not in server.signed_in
    whole(target)


def test_a_file_of_the_hub_that_was_changed_on_its_way_is_refused(monkeypatch, target):
    with hub(monkeypatch, digest="0" * 64) as server:
        url, expected, _ = download.hub_file("owner/name", "model.safetensors")
        with pytest.raises(DownloadError, match=r"its SHA-256 is .*, the Hub's is 000"):
            download.fetch(url, target, expected)
        assert server.sent == len(BODY) and not target.exists()


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "licence"), (401, "sign-in")])
def test_what_the_hub_does_not_give_is_said(monkeypatch, status, words):
    with hub(monkeypatch, answers=[status] * 9), pytest.raises(DownloadError, match=rf"answered {status}.*{words}"):
        download.hub_file("owner/name", "model.safetensors")


def test_no_hub_and_a_server_that_is_none_are_said(monkeypatch):
    with serving(body=BODY) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file.bin"))
        with pytest.raises(DownloadError, match="Is HF_ENDPOINT right"):
            download.hub_file("owner/name", "model.safetensors")
    with pytest.raises(DownloadError, match=r"no connection \(.*refused.*NEARFAR_MIRROR or HF_ENDPOINT"):
        download.hub_file("owner/name", "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE.*NEARFAR_MIRROR or HF_ENDPOINT"):
        download.hub_file("owner/name", "model.safetensors")
