"""Extraction: what is in the store is what the networks give, once, whatever happens in between."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import wait_for
from conftest import hum, shared, write_wav
from fake_encoders import write_ced_tiny
from nearfar import audio, encoders, recipe
from nearfar.audio import Clip
from nearfar.detector import Detector
from nearfar.embedding import fill
from nearfar.embedding.cache import CachedEncoders
from nearfar.embedding.fill import REPORT, Order, embed_shard, forecast, in_shard
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import EncoderInput, inputs_of, pool, waveform
from nearfar.encoders.loading import load_encoders
from nearfar.recipe import Recipe
from nearfar.support.files import sha256_of
from nearfar.support.threads import single_threaded_blas

COMMAND = [sys.executable, "-m", "nearfar"]
COMPOSITE = Recipe(view="sfsoft_a05f07", pooling="rdp_gem", alpha=9, method="ldn", density_k=3)


class Counted:
    """An encoder that counts the waveforms it is given."""

    def __init__(self, encoder):
        self.encoder, self.heard = encoder, 0
        for name in ("sample_rate", "dim", "licence", "batches", "weights_hash", "device"):
            if hasattr(encoder, name):
                setattr(self, name, getattr(encoder, name))

    def grid(self, waves, **layer):
        self.heard += len(waves)
        return self.encoder.grid(waves, **layer)


@pytest.fixture(scope="module")
def weights(ced_tiny_weights):
    pytest.importorskip("torch")
    return ced_tiny_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for i in range(8):
        write_wav(folder / f"{i}.wav", hum(i, seconds=1 + 0.2 * (i % 3)))
    return folder


def counted(order, source=None):
    """Grids of encoders that count what they are given, and the first of them."""
    source = source or order.cached_encoders()
    source.encoders = {name: Counted(encoder) for name, encoder in source.encoders.items()}
    return source, next(iter(source.encoders.values()))


def grid(library, path, waveform, layer=None):
    return library.grids(path, [waveform], layer)[waveform]


def nearfar(*arguments, **settings):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **settings)


def files(store):
    """{file: (bytes, time of writing)} of a store."""
    return {p.relative_to(store): (p.read_bytes(), p.stat().st_mtime_ns) for p in Path(store).glob("??/*.safetensors")}


def contents(store):
    return {name: data for name, (data, _) in files(store).items()}


@pytest.mark.parametrize("name", ["logmel", "ced-tiny"])
def test_the_store_holds_what_the_encoder_gives_for_each_waveform_alone(folder, weights, tmp_path, name):
    paths = sorted(folder.glob("*.wav"))
    layers = (None, 3, 7) if name == "ced-tiny" else (None,)
    order = Order(str(tmp_path / "s"), (name,), layers=layers, weights={"ced-tiny": weights}, dtype="float32")
    library, counter = counted(order)
    done = embed_shard(paths, order, grids=library)
    assert (done.recordings, done.there, done.failed) == (8, 0, [])
    assert counter.heard == 8 * 4, "each waveform goes through the network once, whatever the layers"
    encoder = encoders.load(name, weights if name == "ced-tiny" else None)
    for path in paths[::3]:
        for wave in REPORT:
            samples = waveform(audio.read(path), wave, encoder.sample_rate)
            for layer in layers:
                with single_threaded_blas():
                    want = encoder.grid([samples], **({"layer": layer} if layer else {}))[0]
                assert np.array_equal(grid(library, path, wave, layer=layer), want)
    assert counter.heard == 8 * 4
    again = embed_shard(paths, order, grids=library)
    assert (again.recordings, again.there, counter.heard) == (8, 8, 8 * 4)


def test_the_library_computes_what_is_not_there_and_keeps_it(folder, tmp_path):
    path = next(folder.glob("*.wav"))
    library, counter = counted(None, CachedEncoders(load_encoders(["logmel"]), Store(tmp_path / "s", "float32")))
    first = grid(library, path, "enh_a03f05")
    assert np.array_equal(first, grid(library, path, "enh_a03f05")) and counter.heard == 1
    assert np.array_equal(first, grid(CachedEncoders(load_encoders(["logmel"])), path, "enh_a03f05"))
    same = shutil.copy(path, tmp_path / "renamed.wav")
    assert np.array_equal(first, grid(library, same, "enh_a03f05")) and counter.heard == 1
    with pytest.raises(ValueError, match="near and far"):
        grid(library, write_wav(tmp_path / "mono.wav", hum(1, far=False)), "far")
    with pytest.raises(FileNotFoundError):
        grid(library, tmp_path / "none.wav", "near")
    long = write_wav(tmp_path / "long.wav", Clip(np.tile(hum(1).near, 20), None))
    with pytest.raises(ValueError, match="cut it first"):
        grid(library, long, "near")


def test_channels_are_part_of_what_is_kept(folder, tmp_path):
    path = next(folder.glob("*.wav"))
    store = Store(tmp_path / "s", "float32")
    plain, swapped = (CachedEncoders(load_encoders(["logmel"]), store, near=n, far=1 - n) for n in (0, 1))
    for wave in ("near", "enh_a05f07"):
        assert not np.array_equal(grid(plain, path, wave), grid(swapped, path, wave))
    assert np.array_equal(grid(swapped, path, "far"), grid(plain, path, "near"))


@pytest.mark.parametrize("system", [None, recipe.BASELINE, COMPOSITE, replace(COMPOSITE, encoder="ced-tiny", layer=5)])
def test_with_a_store_of_float32_a_detector_is_the_same_to_the_last_bit(folder, weights, tmp_path, system):
    paths, given_ = sorted(folder.glob("*.wav")), {"ced-tiny": weights}
    plain = Detector(system, given_).fit(paths[:6])
    for turn in ("fresh", "filled"):
        kept = Detector(system, given_, store=Store(tmp_path / "s", "float32")).fit(paths[:6])
        if turn == "filled":
            kept.encoders.update({n: Refusing(e) for n, e in kept.encoders.items()})
        assert all(np.array_equal(a.z, b.z) for a, b in zip(plain.backends, kept.backends, strict=True))
        known = paths[:6] if turn == "filled" else paths
        assert [s.value for s in kept.score(known)] == [s.value for s in plain.score(known)]


class Refusing(Counted):
    """An encoder that must not be asked."""

    def grid(self, waves, **layer):
        assert not len(waves), "everything was in the store"
        return []


def test_with_float16_scores_are_the_same_before_and_after_and_near_the_exact_ones(folder, weights, tmp_path):
    paths = sorted(folder.glob("*.wav"))
    system = replace(COMPOSITE, encoder="ced-tiny")
    exact = Detector(system, weights).fit(paths[:6])
    kept = Detector(system, weights, store=Store(tmp_path / "s", "float16"))
    first = [s.value for s in kept.fit(paths[:6]).score(paths)]
    assert first == [s.value for s in kept.score(paths)]
    for a, b in zip(exact.backends, kept.backends, strict=True):
        assert np.abs(a.z - b.z).max() < 5e-4 and not np.array_equal(a.z, b.z)
    np.testing.assert_allclose(first, [s.value for s in exact.score(paths)], rtol=0.02, atol=0.02)


def test_pooled_vectors_alone_serve_a_detector_to_the_last_bit(folder, weights, tmp_path):
    paths = sorted(folder.glob("*.wav"))
    system = replace(COMPOSITE, encoder="ced-tiny")
    leaves = tuple(recipe.leaves(system))
    order = Order(str(tmp_path / "s"), pooled=leaves, weights=weights)
    library, counter = counted(order)
    embed_shard(paths, order, grids=library)
    assert counter.heard == 3 * len(paths)  # near, far, enhanced
    assert library.store.size() < 3 * len(paths) * 8_000
    encoder = encoders.load("ced-tiny", weights)
    (vector,) = pool(encoder.grid([audio.read(paths[0]).near]), leaves[0])
    key = library.key(sha256_of(paths[0]), None, inputs_of(leaves[0])[0])
    assert np.array_equal(library.store.read(key), vector)
    kept = Detector(system, weights, store=library.store)
    kept.encoders.update({n: Refusing(e) for n, e in kept.encoders.items()})
    plain = Detector(system, weights).fit(paths[:6])
    assert [s.value for s in kept.fit(paths[:6]).score(paths)] == [s.value for s in plain.score(paths)]
    assert embed_shard(paths, order, grids=library).there == 8 and counter.heard == 3 * len(paths)


def test_a_long_file_is_kept_window_by_window(tmp_path):
    near, far = (np.concatenate([getattr(hum(i), c) for i in range(18)]) for c in ("near", "far"))
    path = write_wav(tmp_path / "long.wav", Clip(near, far))
    order = Order(str(tmp_path / "s"), ("logmel",), ("near",), dtype="float32")
    library, counter = counted(order)
    assert embed_shard([path], order, grids=library).recordings == 1
    assert counter.heard == len(files(tmp_path / "s")) == 4  # 10 + 10 + 10 + 6 s
    assert embed_shard([path], order, grids=library).there == 1 and counter.heard == 4
    kept = Detector(Recipe(), store=library.store)
    kept.encoders.update({n: Refusing(e) for n, e in kept.encoders.items()})
    assert len(kept.fit([path]).normals) == 4


def test_what_cannot_be_read_is_said_and_the_others_go_through(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    (data / "broken.wav").write_bytes(b"RIFF nonsense")
    (data / "empty.wav").touch()
    write_wav(data / "mono.wav", hum(1, far=False))
    done = nearfar("embed", data, "--encoder", "logmel", "--store", tmp_path / "s", "--json")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    facts = json.loads(done.stdout)
    assert (facts["recordings"], facts["were_there"]) == (8, 0)
    with Path(facts["failed_csv"]).open() as table:
        rows = {Path(r["file"]).name: r["error"] for r in csv.DictReader(table)}
    assert set(rows) == {"broken.wav", "empty.wav", "mono.wav"} and "0 bytes" in rows["empty.wav"]
    for i, name in enumerate(rows):
        write_wav(data / name, hum(99 + i))
    done = nearfar("embed", data, "--encoder", "logmel", "--store", tmp_path / "s", "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 0 and (facts["recordings"], facts["were_there"]) == (11, 8)
    assert facts["failed_csv"] is None and not (tmp_path / "s" / "failed.csv").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for i in range(24):
        write_wav(folder / f"{i}.wav", hum(i, seconds=4))
    return folder


@pytest.fixture(scope="module")
def whole(many, weights, tmp_path_factory):
    """The store of `many` as one run makes it."""
    store = tmp_path_factory.mktemp("whole") / "s"
    embed_shard(sorted(many.glob("*.wav")), Order(str(store), ("ced-tiny",), ("near", "far"), weights=weights))
    assert len(files(store)) == 48
    return contents(store)


# The command, which stands still once eight recordings are through the network.
HELD = """
import time
from nearfar.cli import main
from nearfar.embedding.cache import CachedEncoders
encode, done = CachedEncoders.encode, []
def held(self, pieces):
    if len(done) >= 8:
        time.sleep(600)
    done.extend(pieces)
    return encode(self, pieces)
CachedEncoders.encode = held
main()
"""


def start(many, weights, store, command=COMMAND):
    return subprocess.Popen(
        [*command, "embed", many, "--encoder", "ced-tiny", "--weights", weights, "--store", store]
        + ["--waveform", "near", "--waveform", "far"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_or_killed_it_goes_on_where_it_was_with_nothing_lost_or_done_again(
    many, weights, whole, tmp_path, stop, code
):
    store = tmp_path / "s"
    process = start(many, weights, store, [sys.executable, "-c", HELD])
    assert wait_for(lambda: len(list(store.glob("??/*.safetensors"))) >= 12)
    process.send_signal(stop)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code and "Traceback" not in err
    before = files(store)
    assert 12 <= len(before) < 48
    order = Order(str(store), ("ced-tiny",), ("near", "far"), weights=weights)
    library, counter = counted(order)
    embed_shard(sorted(many.glob("*.wav")), order, grids=library)
    after = files(store)
    assert contents(store) == whole
    assert counter.heard == 48 - len(before), "what was lacking and nothing else"
    assert all(after[name] == kept for name, kept in before.items())


@pytest.mark.slow
def test_two_at_once_write_one_whole_store(many, weights, whole, tmp_path):
    processes = [start(many, weights, tmp_path / "s") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert contents(tmp_path / "s") == whole


@given(st.lists(st.text(max_size=12), unique=True, max_size=50), st.integers(1, 9), st.text(max_size=12))
def test_shards_are_disjoint_complete_and_do_not_depend_on_other_recordings(names, n, other):
    shards = [{name for name in names if in_shard(name, (i, n))} for i in range(1, n + 1)]
    assert sorted(name for shard in shards for name in shard) == sorted(names)
    with_other = [{name for name in {*names, other} if in_shard(name, (i, n))} for i in range(1, n + 1)]
    assert all(shard <= more for shard, more in zip(shards, with_other, strict=True))


@pytest.mark.slow
def test_shards_of_the_command_make_the_whole_together(folder, tmp_path):
    counts = []
    for i in (1, 2, 3):
        done = nearfar("embed", folder, "--encoder", "logmel", "--store", tmp_path / "s", "--shard", f"{i}/3", "--json")
        counts.append(json.loads(done.stdout)["recordings"])
    assert sum(counts) == 8 and max(counts) < 8
    order = Order(str(tmp_path / "s"), ("logmel",))
    assert embed_shard(sorted(folder.glob("*.wav")), order).there == 8
    for wrong in ("0/3", "4/3", "a/b", "2"):
        done = nearfar("embed", folder, "--encoder", "logmel", "--store", tmp_path / "s", "--shard", wrong)
        assert done.returncode == 2 and "such as 2/8" in done.stderr


def test_a_damaged_file_is_found_and_made_again(folder, tmp_path):
    paths = sorted(folder.glob("*.wav"))
    order = Order(str(tmp_path / "s"), ("logmel",), ("near",), dtype="float32")
    embed_shard(paths, order)
    good = contents(tmp_path / "s")
    cut, flipped = (tmp_path / "s" / name for name in sorted(good)[:2])
    cut.write_bytes(cut.read_bytes()[:-7])
    data = bytearray(flipped.read_bytes())
    data[-9] ^= 16
    flipped.write_bytes(data)
    detector = Detector(Recipe(), store=Store(tmp_path / "s"))
    with pytest.warns(UserWarning, match="is damaged"):
        detector.fit(paths)
    assert contents(tmp_path / "s") == good
    flipped.write_bytes(data)
    done = nearfar("embed", folder, "--encoder", "logmel", "--waveform", "near", "--store", tmp_path / "s", "--verify")
    assert done.returncode == 0 and "removed from" in done.stderr and contents(tmp_path / "s") == good


def limit_file_size(size):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_a_full_disk_stops_extraction_and_no_detector(folder, weights, tmp_path):
    command = ["embed", folder, "--encoder", "ced-tiny", "--weights", weights, "--dtype", "float32"]
    done = nearfar(*command, "--store", tmp_path / "s", preexec_fn=lambda: limit_file_size(10_000))
    assert done.returncode == 2 and "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert "run the same command again" in done.stderr and not files(tmp_path / "s")
    assert not list((tmp_path / "s" / "drafts").iterdir())
    assert nearfar(*command, "--store", tmp_path / "s").returncode == 0 and len(files(tmp_path / "s")) == 32
    store, paths = Store(tmp_path / "full"), sorted(folder.glob("*.wav"))
    store.write = lambda key, grid: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.warns(UserWarning, match="No space left on device; going on without"):
        kept = Detector(COMPOSITE, store=store).fit(paths)
        scores = [s.value for s in kept.score(paths)]
    assert scores == [s.value for s in Detector(COMPOSITE).fit(paths).score(paths)]


def test_it_says_how_much_it_will_write_and_refuses_what_does_not_fit(many, tmp_path, monkeypatch):
    paths = sorted(many.glob("*.wav"))
    order = Order(str(tmp_path / "s"), ("logmel",), dtype="float32")
    library = order.cached_encoders()
    expected = forecast(paths, order, library)
    assert expected.shapes == ((126, 1, 128),) and expected.made == 1 and expected.fits
    assert abs(expected.bytes / (23 * 4 * 126 * 128 * 4) - 1) < 0.1
    embed_shard(paths[:12], order, grids=library)
    assert abs(forecast(paths, order, library).bytes / expected.bytes - 0.5) < 0.1
    monkeypatch.setattr(fill.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 10**6))
    assert not forecast(paths, order, library).fits
    from typer.testing import CliRunner

    from nearfar.cli import app

    result = CliRunner().invoke(app, ["embed", str(many), "--encoder", "logmel", "--store", str(tmp_path / "s")])
    assert result.exit_code == 2
    assert all(way in result.output for way in ("does not fit", "--dtype float16", "--waveform", "--pooled"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "logmel", "--layer", "3"], "has no layers"),
        (["--encoder", "nonsense"], "choose one of"),
        (["--encoder", "logmel", "--waveform", "enh"], "choose one of"),
        (["--encoder", "logmel", "--pooled", "logmel-floor"], "or recipes"),
        ([], "give the encoders"),
        (["--encoder", "logmel", "nonsense"], "unknown encoder 'nonsense'"),  # the second of --encoder
        (["--pooled", "logmel"], "depends on the normals"),
        (["--encoder", "logmel", "--engine", "spark"], "choose one of: local, ray"),
    ],
)
def test_what_cannot_be_ordered_is_exit_2_with_a_reason(folder, tmp_path, arguments, message):
    done = nearfar("embed", folder, "--store", tmp_path / "s", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_network_that_does_not_say_which_weights_it_has_is_kept_nowhere(folder, tmp_path):
    class Nameless(Counted):
        weights_hash = ""

    library = CachedEncoders({"beats": Nameless(encoders.load("logmel"))}, Store(tmp_path / "s"))
    with pytest.raises(ValueError, match="does not say which weights"):
        grid(library, next(folder.glob("*.wav")), "near")


@pytest.mark.slow
def test_other_weights_are_refused_by_both_hashes(folder, weights, tmp_path):
    paths = sorted(folder.glob("*.wav"))
    system = Recipe(encoder="ced-tiny")
    model = Detector(system, weights).fit(paths).save(tmp_path / "model")
    other = write_ced_tiny(tmp_path / "other", seed=1)
    done = nearfar("score", model, paths[0], "--weights", other)
    assert done.returncode == 2 and sha256_of(weights) in done.stderr and sha256_of(other) in done.stderr
    done = nearfar("score", model, paths[0], "--weights", weights, "--store", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    settings = json.loads((model / "detector.json").read_text())
    assert settings["encoders"] == {"ced-tiny": {"weights_sha256": sha256_of(weights), "precision": "float32"}}


def test_the_command_serves_evaluate(tmp_path):
    data = shared("data", "dcase2026-form")
    clips = [*sorted(data.glob("bldcMotor/train/*"))[:6], *sorted(data.glob("bldcMotor/test/*"))[::12]]
    for clip in clips:
        target = tmp_path / "d" / "bldcMotor" / clip.parent.name / clip.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)
    (tmp_path / "r.json").write_text(COMPOSITE.to_json())
    command = ["evaluate", tmp_path / "d", "--recipe", tmp_path / "r.json", "--rounds", 10, "--json"]
    plain = nearfar(*command)
    done = nearfar("embed", tmp_path / "d", "--encoder", "logmel", "--dtype", "float32", "--store", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    before = files(tmp_path / "s")
    kept = nearfar(*command, "--store", tmp_path / "s")
    assert kept.stdout == plain.stdout and files(tmp_path / "s") == before


def test_an_order_is_plain_data():
    import pickle

    order = Order("s", pooled=tuple(recipe.leaves(COMPOSITE)))
    assert pickle.loads(pickle.dumps(order)) == order and EncoderInput("near", "logmel") not in order.inputs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert os.fspath(order.store) == "s"
