"""The folder of weights and its commands: found, fetched, brought, converted; what is wrong is said."""

import hashlib
import json
import os
import zipfile

import numpy as np
import pytest

import commands
from fake_encoders import write_ced_tiny
from fault_server import serving
from nearfar import encoders
from nearfar.cli.options import weights_for, weights_of
from nearfar.demo import make_dataset
from nearfar.encoders import TABLE, weights
from nearfar.encoders.sources import SOURCES
from nearfar.errors import DownloadError

pytest.importorskip("torch")
pytest.importorskip("requests")
pytest.importorskip("huggingface_hub")


@pytest.fixture
def published(ced_tiny_weights):
    return ced_tiny_weights


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT", "NEARFAR_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEARFAR_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def nearfar(*arguments, **environment):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return commands.nearfar(*arguments)


def test_every_network_has_a_source_and_whom_to_name():
    assert set(SOURCES) == {name for name, entry in TABLE.items() if entry.parameters}
    for name, source in SOURCES.items():
        assert source.credit and source.page.startswith("https://") and (not source.url or source.url[:8] == "https://")
        assert source.sha256 is None or len(source.sha256) == 64
        assert source.rough_size is None or source.rough_size > 4 * TABLE[name].parameters * 0.95


def test_missing_weights_are_an_error_that_says_how_to_get_them(here):
    with pytest.raises(FileNotFoundError) as caught:
        encoders.load("ced-tiny")
    for words in ("ced-tiny --pull", "ced-tiny --from FILE", str(here), "Apache-2.0", "~22 MB"):
        assert words in str(caught.value)
    with pytest.raises(FileNotFoundError, match="by hand from https"):
        encoders.load("beats-iter3")
    assert not here.exists()


def test_a_file_that_is_brought_is_checked_and_found(here, published):
    path = weights.add("ced-tiny", published)
    assert path == here / "ced-tiny" / "model.safetensors" == weights.find("ced-tiny")
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert json.loads((here / "lock.json").read_text())["ced-tiny/model.safetensors"]["sha256"] == digest
    assert encoders.load("ced-tiny").dim == 192 == encoders.load("ced-tiny", here).dim
    assert weights.add("ced-tiny", path) == path  # again, from where it is
    with pytest.raises(ValueError, match=r"ced-small has 12 blocks of width 384, but .* is it ced-tiny"):
        weights.add("ced-small", published)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        weights.add("ced-tiny", here / "none.pt")
    (here / "ced-tiny" / "other.pt").write_bytes(b"")
    assert weights.find("ced-tiny") == path
    path.rename(path.with_name("mine.safetensors"))
    with pytest.raises(ValueError, match="holds 2 weights files"):
        weights.find("ced-tiny")


def test_a_converted_file_is_preferred(here, published):
    weights.add("ced-tiny", published)
    converted = weights.convert("ced-tiny", published, here / "ced-tiny.safetensors")
    assert weights.find("ced-tiny") == converted
    assert weights.guess(published) == "ced-tiny" == weights.guess(converted)
    weights.add("ced-tiny", published)  # the same weights once more
    other = write_ced_tiny(here.parent / "other", seed=1)
    with pytest.raises(ValueError, match="of other weights, is used before it: remove one"):
        weights.add("ced-tiny", other)
    with pytest.raises(ValueError, match="holds ced-tiny, not beats"):
        weights.add("beats", converted)
    broken = here / "broken.safetensors"
    broken.write_bytes(published.read_bytes()[:5000])
    with pytest.raises(ValueError, match="none of the encoders"):
        weights.guess(broken)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_pull_is_fetched_checked_and_remembered(here, published, monkeypatch):
    seen = []
    with serving(body=published.read_bytes(), cut=[5_000_000], commit=COMMIT) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file.bin"))
        path = weights.pull("ced-tiny", progress=lambda *at: seen.append(at), pause_s=0.01)
        assert [path for path, _ in server.looked_up] == ["/mispeech/ced-tiny/resolve/main/model.safetensors"]
        assert all("torch" not in agent for _, agent in server.looked_up), "no telemetry"
        assert {path for path, _, _ in server.asked} == {
            f"/mispeech/ced-tiny/resolve/{COMMIT}/model.safetensors",
            "/storage",
        }
        assert server.sent == len(server.body) and seen[-1] == (22, 22, "fetching model.safetensors (MB)")
        assert path.read_bytes() == server.body and weights.find("ced-tiny") == path and not path.is_symlink()
        left = [p.name for p in here.rglob("*") if not p.name.endswith(".lock")]
        assert sorted(left) == ["ced-tiny", "lock.json", "model.safetensors"], "nothing of the Hub's own"
        asked = len(server.asked)
        assert weights.pull("ced-tiny") == path and len(server.asked) == asked and len(server.looked_up) == 1
        (lock,) = json.loads((here / "lock.json").read_text()).items()
        assert lock == (
            SOURCES["ced-tiny"].url,
            {"sha256": hashlib.sha256(server.body).hexdigest(), "size": len(server.body)},
        )
        path.unlink()
        server.body = server.body[:-1] + b"\x01"
        with pytest.raises(DownloadError, match=r"at its first use it was .*lock\.json"):
            weights.pull("ced-tiny")
        with pytest.raises(DownloadError, match=r"offers .* but 361,499,833 are expected.*--from FILE"):
            weights.pull("beats")
        (here / "lock.json").write_text("{")
        with pytest.raises(ValueError, match=r"lock\.json is damaged"):
            weights.pull("ced-tiny")


def test_a_mirror_of_plain_files_is_not_asked_as_the_hub_is(here, published, monkeypatch):
    with serving(body=published.read_bytes()) as server:
        monkeypatch.setenv("NEARFAR_MIRROR", server.url.removesuffix("/file.bin"))
        path = weights.pull("ced-tiny")
        assert [path for path, _, _ in server.asked] == [
            "/huggingface.co/mispeech/ced-tiny/resolve/main/model.safetensors"
        ]
        assert not server.looked_up
        path.write_bytes(server.body[:-1] + b"\x01")
        with pytest.raises(DownloadError, match=r"is there, but is not https://hugging.*at its first use it was"):
            weights.pull("ced-tiny")


def test_no_network_gives_the_page_and_the_mirrors(here, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError) as caught:
        weights.pull("ced-tiny")
    for words in (
        "NEARFAR_MIRROR",
        "https://huggingface.co/mispeech/ced-tiny, then: nearfar weights ced-tiny --from FILE",
    ):
        assert words in str(caught.value)


def test_a_pull_of_another_network_is_an_error(here, published, monkeypatch):
    with serving(body=published.read_bytes()) as server:
        monkeypatch.setenv("NEARFAR_MIRROR", server.url.removesuffix("/file.bin"))
        with pytest.raises(ValueError, match="ced-small has 12 blocks of width 384"):
            weights.pull("ced-small")


def zipped(path, *names, content=b"weights"):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def test_a_zip_gives_its_file_with_the_directory_that_states_its_configuration(tmp_path):
    inside = SOURCES["m2d-clap"].member
    path = weights.unzip(zipped(tmp_path / "a.zip", "m2d/README.md", f"m2d/{inside}"), tmp_path / "out")
    assert path == tmp_path / "out" / inside and path.read_bytes() == b"weights"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("../../x.pth",), "names its file"),
        (("a/../x.pth",), "names its file"),
        (("..\\x.pth",), "names its file"),
        (("C:/x.pth",), "names its file"),
        (("/x.pth",), "names its file"),
        (("x.pth",), "names its file"),
        (("a/x.pth", "a/y.pth"), "holds 2 .pth files"),
        ((), "holds 0 .pth files"),
    ],
)
def test_a_hostile_zip_writes_nothing(tmp_path, names, words):
    with pytest.raises(ValueError, match=words):
        weights.unzip(zipped(tmp_path / "a.zip", *names), tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]


def test_a_zip_that_was_cut_is_an_error(tmp_path):
    path = zipped(tmp_path / "a.zip", "a/x.pth", content=os.urandom(10_000))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged or cut short"):
        weights.unzip(path, tmp_path)


def test_weights_option(here, published, tmp_path):
    assert weights_of(None) is None
    assert weights_of([str(published)]) == published
    assert weights_of([str(tmp_path)]) == tmp_path
    both = weights_of([f"ced-tiny={published}", f"ced-base={published}"])
    assert both == {"ced-tiny": published, "ced-base": published}
    for given, words in (
        ([f"ced={published}"], "unknown encoder 'ced'"),
        (["ced-tiny=nowhere.pt"], "no file or folder nowhere.pt"),
        (["nowhere.pt"], "no file or folder nowhere.pt"),
        ([str(published), str(published)], "NAME=FILE"),
        ([f"ced-tiny={published}"] * 2, "twice"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            weights_of(given)


def test_weights_that_nobody_would_use_are_refused(published, tmp_path):
    assert weights_for([f"ced-tiny={published}"], ["logmel", "ced-tiny"]) == {"ced-tiny": published}
    assert weights_for([str(published)], ["ced-base"]) == published
    assert weights_for([str(tmp_path)], ["logmel"]) == tmp_path  # a place to look
    for given, needed, words in (
        (
            [f"ced-tiny={published}"],
            ["beats", "logmel", "ced-base"],
            "ced-tiny .*the weights of beats, ced-base are needed",
        ),
        ([f"ced-tiny={published}"], ["logmel"], "so none are needed"),
        ([str(published)], [], "model.safetensors would not be used: this recipe has no network with weights"),
        ([str(published)], ["beats", "ced-base"], "is one file, and there are several encoders here .beats, ced-base."),
    ):
        with pytest.raises(ValueError, match=words):
            weights_for(given, needed)
    code, _, err = nearfar("fit", tmp_path, "-o", tmp_path / "m", "--weights", published)
    assert code == 2 and "so none are needed here" in err
    data = make_dataset(tmp_path / "d", machines=1, train=4, test=4, seconds=1.0)
    for given, words in ((f"ced-tiny={published}", "ced-tiny would not be used"), (published, "is one file")):
        code, out, err = nearfar("reproduce", data, "--weights", given)
        assert code == 2 and not out and words in err


def test_the_commands(here, published, tmp_path):
    code, out, _ = nearfar("weights", "--json")
    table = json.loads(out)
    assert code == 0 and table["folder"] == str(here)
    assert {row["encoder"]: row["here"] for row in table["encoders"]} == dict.fromkeys(SOURCES)
    code, out, _ = nearfar("weights", "m2d-clap")
    assert code == 0 and "evaluation only" in out and "-2025.zip" in out
    code, _, err = nearfar("weights", "ced-small", "--from", published)
    assert code == 2 and "is it ced-tiny" in err and not (here / "ced-small").exists()
    code, out, err = nearfar("weights", "ced-tiny", "--from", published)
    assert code == 0 and str(here) in out, err
    code, out, err = nearfar("weights", "convert", published)
    assert code == 0 and (here / "ced-tiny.safetensors").is_file(), err
    code, out, err = nearfar("encoders", "--bench", "--json")
    rows = {row["encoder"]: row for row in json.loads(out)}
    assert code == 0 and rows["ced-tiny"]["seconds_per_clip"] > 0 and rows["logmel"]["seconds_per_clip"] > 0
    assert rows["beats"]["seconds_per_clip"] is None and rows["beats"]["here"] is None
    for command in ("weights", "encoders"):
        code, out, _ = nearfar(command, "--help")
        assert code == 0 and out.split("\n\n", 1)[1].strip().startswith(f"Example: nearfar {command}")
    for wrong in (["convert"], ["--pull"], ["beats-iter3", "--pull"]):
        code, out, err = nearfar("weights", *wrong)
        assert code == 2 and not out and err.startswith(("nearfar: ", "Licence", "Usage: ")), wrong


def test_pull_shows_the_licence_first_and_says_what_it_does(here, published):
    with serving(body=published.read_bytes()) as server:
        mirror = server.url.removesuffix("/file.bin")
        code, out, err = nearfar("weights", "ced-tiny", "--pull", NEARFAR_MIRROR=mirror)
        assert code == 0 and out == f"ced-tiny is here: {here / 'ced-tiny' / 'model.safetensors'}\n", err
        assert err.startswith("Licence: Apache-2.0\nBy: CED") and "22 of 22" in err
        server.answers = [404]
        code, out, err = nearfar("weights", "m2d-clap", "--pull", NEARFAR_MIRROR=mirror)
        assert code == 2 and "For evaluation only" in err and "no such file" in err and "--from FILE" in err
        server.answers = [403]
        code, out, err = nearfar("weights", "m2d-clap", "--pull", NEARFAR_MIRROR=mirror)
        assert code == 2 and "does a proxy block it? Fetch m2d_clap" in err


def test_the_folder_of_one_encoder_will_do(tmp_path):
    (tmp_path / "ced-tiny").mkdir()
    file = tmp_path / "ced-tiny" / "model.safetensors"
    file.touch()
    assert weights.present("ced-tiny", tmp_path) == weights.present("ced-tiny", tmp_path / "ced-tiny") == file
    assert weights.present("ced-mini", tmp_path / "ced-tiny") is None


def test_one_folder_with_two_files_does_not_spoil_the_table(here):
    for name in ("a.pt", "b.pt"):
        (here / "beats-iter3").mkdir(parents=True, exist_ok=True)
        (here / "beats-iter3" / name).touch()
    for command in ("weights", "encoders"):
        code, out, err = nearfar(command)
        (row,) = (line for line in out.splitlines() if line.startswith("beats-iter3 "))
        assert code == 0 and "unclear" in row and "ced-tiny" in out
        assert err == f"beats-iter3: {here / 'beats-iter3'} holds 2 weights files (a.pt, b.pt): keep one\n"
    code, out, _ = nearfar("weights", "beats-iter3", "--json")
    assert code == 0 and json.loads(out)["problem"].endswith("keep one") and json.loads(out)["here"] is None


def test_tensors_that_are_zero_throughout_are_named(published, here, tmp_path, recwarn):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(published)
    keys = sorted(tensors)
    half = [key for key in keys[len(keys) // 2 :] if tensors[key].size > 1]
    cut = tmp_path / "model.safetensors"
    save_file(tensors | {key: 0 * tensors[key] for key in half}, cut)
    weights.check("ced-tiny", published)
    assert not recwarn.list
    with pytest.warns(
        UserWarning, match=f"{len(half)} of .* tensors hold nothing but zeros .* and {len(half) - 3} more"
    ):
        weights.check("ced-tiny", cut)


def test_a_detector_is_not_fitted_on_weights_that_hear_nothing(published, tmp_path):
    from safetensors.numpy import load_file, save_file

    from conftest import hum
    from nearfar import Detector
    from nearfar.recipe import Recipe

    cut = tmp_path / "model.safetensors"
    tensors = load_file(published)
    save_file({key: np.where(key.startswith("encoder.norm"), 0 * x, x) for key, x in tensors.items()}, cut)
    detector = Detector(Recipe(encoder="ced-tiny"), cut)
    with pytest.raises(ValueError, match="ced-tiny gives a vector of zeros for all 3 recordings, though they differ"):
        detector.fit([hum(i, seconds=1.0) for i in range(3)])


def test_licences_stand_in_every_table_and_where_a_network_is_chosen():
    for command in (("weights",), ("encoders",), ("weights", "echo-small")):
        _, out, _ = nearfar(*command)
        assert next(line for line in out.splitlines() if "echo-small" in line or "licence" in line)
        assert " MIT" in out
    code, out, err = nearfar("recipe", "fisher-mini")
    assert code == 0 and json.loads(out)["encoder"] == "fisher-mini" and "weights of fisher-mini: MIT" in err
    _, _, err = nearfar("search", "nowhere", "--encoder", "openbeats-base", "--encoder", "logmel")
    assert "weights of openbeats-base: CC-BY-4.0" in err and "of logmel" not in err
