"""Data sets from a server on this machine that is laid out like Zenodo, and breaks off, lies and reaches outside."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("requests")
pytest.importorskip("filelock")

from commands import nearfar
from datasets import dev_2022, evaluation_set, tree
from nearfar.challenge.data import download as source
from nearfar.challenge.data.download import RECORDS, listing, pull, unpack
from nearfar.challenge.data.layout import read
from nearfar.errors import DownloadError


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NEARFAR_MIRROR", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


class Zenodo:
    """Records of archives; `cut` maps a file's name to how many bytes its next answers may hold."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, list[int]] = {}
        self.md5: dict[str, str] = {}
        self.asked: list[str] = []
        self.url = ""

    def add(self, number: int, name: str, content: bytes) -> None:
        self.files[f"/zenodo.org/records/{number}/files/{name}"] = content
        here = f"/zenodo.org/records/{number}/files/"
        listed = [
            {
                "key": path.removeprefix(here),
                "size": len(body),
                "checksum": "md5:" + self.md5.get(path.removeprefix(here), hashlib.md5(body).hexdigest()),
                "links": {"self": f"https://zenodo.org/api/records/{number}/files/{path.removeprefix(here)}/content"},
            }
            for path, body in self.files.items()
            if path.startswith(here)
        ]
        about = {"title": f"Data set {number}", "license": {"id": "cc-by-nc-sa-4.0"}}
        record = {"id": number, "metadata": about, "files": listed}
        self.files[f"/zenodo.org/api/records/{number}"] = json.dumps(record).encode()

    @property
    def mirrors(self) -> dict[str, str]:
        return {"https://": self.url}

    def fetched(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.asked if "/files/" in path]


@pytest.fixture
def zenodo() -> Iterator[Zenodo]:
    site = Zenodo()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            body = site.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            cut = site.cut.get(self.path.rpartition("/")[2], [])
            with contextlib.suppress(OSError):
                self.wfile.write(body[start:][: cut.pop(0)] if cut else body[start:])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield site
    server.shutdown()
    server.server_close()


def packed(folder: Path, prefix: str = "", only: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and only in str(path):
                archive.write(path, prefix + path.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/._x.wav", "nothing")
    return out.getvalue()


@pytest.fixture
def fan(tmp_path: Path) -> bytes:
    return packed(tree(tmp_path / "made", dev_2022("fan")))


DEV = 19336329


def test_the_command_fetches_unpacks_and_says_the_licence(zenodo: Zenodo, fan: bytes, tmp_path: Path) -> None:
    zenodo.add(DEV, "dev_fan.zip", fan)
    zenodo.add(DEV, "dev_ToyCar.zip", b"the first, which was replaced")
    zenodo.add(DEV, "readme.md", b"words")
    arguments = ("data", "pull", "dcase2026-dev", "--machine", "fan", "--to", tmp_path / "d", "--mirror", zenodo.url)
    code, out, err = nearfar(*arguments)
    assert code == 0, err
    assert "CC BY-NC-SA 4.0" in out and "1 of 2 machines" in out and "Next          nearfar evaluate" in out
    raw = tmp_path / "d/dcase2026t2/dev_data/raw"
    assert {p.name for p in raw.iterdir() if not p.name.startswith(".")} == {"fan"}
    assert not any((raw / ".archives").glob("*.zip")), "an archive is removed once it is unpacked"
    assert [u.name for u in read(tmp_path / "d").units] == ["fan"] and len(read(tmp_path / "d").units[0].train) == 4
    assert zenodo.fetched() == ["dev_fan.zip"]
    code, out, err = nearfar(*arguments, "--json")
    assert code == 0 and json.loads(out)["machines"] == {"fan": str(raw / "fan")}, err
    assert zenodo.fetched() == ["dev_fan.zip"], "what is there is not fetched again"
    (raw / "fan/train").joinpath("section_00_source_train_normal_0001_spd_28V.wav").unlink()
    assert nearfar(*arguments)[0] == 0 and zenodo.fetched() == ["dev_fan.zip"] * 2
    assert len(read(raw).units[0].train) == 4


@pytest.mark.parametrize("name", ["dev_fan.zip", "dev_data_fan.zip", "dev_fan_r2.zip"])
@pytest.mark.parametrize("prefix", ["", "dev_data/raw/"])
def test_all_forms_of_names_and_of_folders_inside(zenodo, tmp_path, fan, name, prefix) -> None:
    zenodo.add(DEV, name, packed(tmp_path / "made", prefix))
    assert list(pull(listing("dcase2026-dev", zenodo.mirrors), tmp_path / "d", mirrors=zenodo.mirrors)) == ["fan"]
    assert len(read(tmp_path / "d/dcase2026t2/dev_data/raw").units[0].test) == 8


def test_an_archive_without_the_machine_s_folder_goes_there_all_the_same(zenodo, tmp_path, fan) -> None:
    zenodo.add(DEV, "dev_fan.zip", packed(tmp_path / "made/fan"))
    pull(listing("dcase2026-dev", zenodo.mirrors), tmp_path / "d", mirrors=zenodo.mirrors)
    assert [u.name for u in read(tmp_path / "d").units] == ["fan"]


def test_the_two_halves_of_an_evaluation_set_meet(zenodo, tmp_path) -> None:
    made = tree(tmp_path / "made", evaluation_set("Sander"))
    zenodo.add(20151556, "eval_data_Sander_train.zip", packed(made, only="/train/"))
    zenodo.add(20437238, "eval_data_Sander_test.zip", packed(made, only="/test/"))
    for name in ("dcase2026-add", "dcase2026-eval"):
        pull(listing(name, zenodo.mirrors), tmp_path / "d", mirrors=zenodo.mirrors)
    (unit,) = read(tmp_path / "d").units
    assert len(unit.train) == 4 and len(unit.test) == 6
    asked = len(zenodo.fetched())
    for name in ("dcase2026-add", "dcase2026-eval"):
        pull(listing(name, zenodo.mirrors), tmp_path / "d", mirrors=zenodo.mirrors)
    assert len(zenodo.fetched()) == asked, "each half knows what it brought"


def test_the_newest_revision_is_taken_and_its_known_md5_insisted_on(zenodo, fan, tmp_path) -> None:
    zenodo.md5["dev_ToyCar_r2.zip"] = source.MD5["dev_ToyCar_r2.zip"]
    for name in ("dev_ToyCar.zip", "dev_ToyCar_r2.zip"):
        zenodo.add(DEV, name, fan)
    (archive,) = listing("dcase2026-dev", zenodo.mirrors).archives
    assert archive.name == "dev_ToyCar_r2.zip" and archive.machine == "ToyCar"
    with pytest.raises(DownloadError, match="353201db217e25377a7e7eccf9c1c8a7"):
        pull(listing("dcase2026-dev", zenodo.mirrors), tmp_path, mirrors=zenodo.mirrors)
    zenodo.md5.clear()
    zenodo.add(DEV, "more.txt", b"")
    with pytest.raises(ValueError, match=r"dev_ToyCar_r2.zip has the MD5 .* and 353201"):
        listing("dcase2026-dev", zenodo.mirrors)


def test_a_broken_connection_is_resumed(zenodo, fan, tmp_path) -> None:
    zenodo.add(DEV, "dev_fan.zip", fan)
    zenodo.cut["dev_fan.zip"] = [len(fan) // 3]
    pull(listing("dcase2026-dev", zenodo.mirrors), tmp_path / "d", mirrors=zenodo.mirrors)
    assert zenodo.fetched() == ["dev_fan.zip"] * 2 and len(read(tmp_path / "d").units[0].train) == 4


def test_a_wrong_checksum_leaves_nothing(zenodo, fan, tmp_path) -> None:
    zenodo.md5["dev_fan.zip"] = "0" * 32
    zenodo.add(DEV, "dev_fan.zip", fan)
    code, out, err = nearfar("data", "pull", "dcase2026-dev", "--to", tmp_path / "d", "--mirror", zenodo.url)
    assert code == 2 and "its MD5 is" in err and "Traceback" not in err and "Next" not in out
    assert (
        f"Fetch dev_fan.zip by hand from https://zenodo.org/records/{DEV} and unpack to {tmp_path}/d/dcase2026t2/"
        in err
    )
    assert not list((tmp_path / "d").rglob("*.wav")) and not list((tmp_path / "d").rglob("*.zip"))


@pytest.mark.parametrize(
    "name",
    ["../evil.wav", "fan/../../evil.wav", "/etc/evil.wav", "\\evil.wav", "C:\\evil.wav", "fan\\..\\..\\..\\evil.wav"],
)
def test_an_archive_that_reaches_outside_is_refused_whole(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "dev_fan.zip", "w") as archive:
        archive.writestr("fan/train/good.wav", "good")
        archive.writestr(name, "evil")
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match="reaches outside its folder: nothing was unpacked"):
        unpack(tmp_path / "dev_fan.zip", tmp_path / "raw", "fan")
    assert not list((tmp_path / "raw").rglob("*")) and not (tmp_path / "evil.wav").exists()


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "dev_fan.zip", "w") as archive:
        link = zipfile.ZipInfo("fan/train/link.wav")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="reaches outside"):
        unpack(tmp_path / "dev_fan.zip", tmp_path / "raw", "fan")


def test_unpacking_goes_on_where_it_stopped_and_mends_what_is_damaged(tmp_path: Path, fan: bytes) -> None:
    (tmp_path / "dev_fan.zip").write_bytes(fan)
    seen: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        seen.append(done)
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path / "dev_fan.zip", tmp_path / "raw", "fan", stop)
    there = sorted((tmp_path / "raw/fan").rglob("*.wav"))
    assert len(there) == 5 and not [p for p in (tmp_path / "raw").rglob("*") if p.name.startswith(".")]
    times = {p: p.stat().st_mtime_ns for p in there}
    there[0].write_bytes(b"x" * there[0].stat().st_size)
    files = unpack(tmp_path / "dev_fan.zip", tmp_path / "raw", "fan")
    assert len(files) == 12 and all(p.stat().st_mtime_ns == times[p] for p in there[1:])
    assert there[0].read_bytes() == (tmp_path / "made/fan" / there[0].relative_to(tmp_path / "raw/fan")).read_bytes()


def test_a_damaged_archive_and_a_full_disk_are_said(tmp_path, fan, monkeypatch) -> None:
    file = tmp_path / "dev_fan.zip"
    file.write_bytes(fan[: len(fan) // 2])
    with pytest.raises(ValueError, match=r"dev_fan.zip is damaged"):
        unpack(file, tmp_path / "raw", "fan")
    file.write_bytes(fan[:300] + bytes(300) + fan[600:])
    with pytest.raises(ValueError, match=r"damaged"):
        unpack(file, tmp_path / "raw", "fan")
    file.write_bytes(fan)
    monkeypatch.setattr(source, "SPARE", 1 << 60)
    with pytest.raises(OSError, match="GB free"):
        unpack(file, tmp_path / "other", "fan")


def test_unknown_names_and_answers_that_are_no_record(zenodo, fan, tmp_path) -> None:
    zenodo.add(DEV, "dev_fan.zip", fan)
    found = listing("dcase2026-dev", zenodo.mirrors)
    with pytest.raises(ValueError, match=r"no machine pump in Data set 19336329; it has fan"):
        pull(found, tmp_path, ["pump"], mirrors=zenodo.mirrors)
    with pytest.raises(ValueError, match="dcase2026-dev"):
        listing("dcase2099-dev", zenodo.mirrors)
    for answer in (
        b"[]",
        b"{}",
        b'{"files": []}',
        b'{"files": [{"key": "readme.md", "checksum": "md5:1", "size": 1}]}',
    ):
        zenodo.files[f"/zenodo.org/api/records/{DEV}"] = answer
        with pytest.raises(ValueError, match="not the listing of a record"):
            listing("dcase2026-dev", zenodo.mirrors)
    page = r"https://zenodo\.org/records/15097779"
    with pytest.raises(
        DownloadError, match=rf"not have it\. Fetch dev_\*\.zip by hand from {page} and unpack to DATA/"
    ):
        listing("dcase2025-dev", zenodo.mirrors)


def test_the_records_of_four_years_are_known() -> None:
    assert len({r.number for r in RECORDS.values()}) == len(RECORDS) == 12
    assert RECORDS["dcase2026-dev"].number == DEV and str(RECORDS["dcase2024-eval"].raw) == "dcase2024t2/eval_data/raw"


def test_help_opens_with_an_example() -> None:
    code, out, _ = nearfar("data", "pull", "--help")
    assert code == 0 and "Example: nearfar data pull dcase2026-dev --machine fan" in out
