"""The store of grids: what is written is what is read, whatever happens to the process, the disk or the file."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import fields, replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open

from nearfar.audio import clip as clip_module
from nearfar.challenge.evaluate import evaluate
from nearfar.detector import Detector
from nearfar.embedding import store as store_module
from nearfar.embedding.store import DRAFTS, STALE_S, Key, Store
from nearfar.recipe import Recipe

KEY = Key("a" * 64, (0, 1), None, "enh_a03f05", "beats", "b" * 64)
GRID = np.random.default_rng(0).normal(0, 5, (62, 8, 96)).astype(np.float32)

text = st.text(max_size=8)
channels = st.lists(st.integers(0, 7), max_size=2).map(tuple)
windows = st.none() | st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 20))
keys = st.builds(Key, text, channels, windows, text, text, text, st.none() | st.integers(1, 24), text)


@given(keys, keys)
def test_two_keys_have_one_name_exactly_if_they_are_equal(a, b):
    assert (a.digest == b.digest) == (a == b)
    assert len(a.digest) == 64 and set(a.digest) <= set("0123456789abcdef")


@given(keys, st.sampled_from([f.name for f in fields(Key)]), st.data())
def test_everything_a_key_says_is_in_its_name(key, name, data):
    other = replace(key, **{name: getattr(data.draw(keys), name)})
    assert (other.digest == key.digest) == (getattr(other, name) == getattr(key, name))


def test_the_name_of_a_key_never_changes():
    assert KEY.digest.startswith("ac5b5a867b42dcc8"), "raise FORMAT if this is meant"


grids = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.floats(-6e4, 6e4, width=32)
)


@settings(max_examples=50, deadline=None)
@given(grids)
def test_float32_is_kept_to_the_last_bit_and_float16_within_what_is_said(tmp_path_factory, grid):
    for dtype in ("float32", "float16"):
        store = Store(tmp_path_factory.mktemp("store") / "s", dtype)
        written = store.write(KEY, grid)
        read = store.read(KEY)
        assert read.dtype == np.float32 and read.shape == grid.shape and np.array_equal(read, written)
        if dtype == "float32":
            assert np.array_equal(read, grid)
        assert (np.abs(read - grid) <= np.maximum(2.0**-11 * np.abs(grid), 3e-8)).all()


def test_what_float16_cannot_hold_is_kept_as_float32(tmp_path):
    store = Store(tmp_path / "s", "float16")
    large = GRID * 1e4
    assert np.array_equal(store.write(KEY, large), large) and np.array_equal(store.read(KEY), large)
    pooled = replace(KEY, pooled="{}")
    assert np.array_equal(store.write(pooled, GRID[0, 0]), GRID[0, 0])
    assert store.size() > GRID.nbytes
    with pytest.raises(ValueError, match="grid"):
        store.write(KEY, np.array([np.nan]))


def test_the_same_grid_under_the_same_key_is_the_same_file(tmp_path):
    code = f"""
import numpy as np
from nearfar.embedding.store import Key, Store
store, key = Store({str(tmp_path / "s")!r}), Key("a", (0,), None, "near", "beats", "")
store.write(key, np.ones((2, 2, 2)))
print(store.path(key).read_bytes().hex())
"""
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(runs) == 1


def test_a_store_knows_its_dtype_and_refuses_another(tmp_path):
    Store(tmp_path / "s", "float32").write(KEY, GRID)
    again = Store(tmp_path / "s")
    assert again.dtype == "float32" and np.array_equal(again.read(KEY), GRID)
    with pytest.raises(ValueError, match="keeps float32, not float16"):
        Store(tmp_path / "s", "float16")
    with pytest.raises(ValueError, match="choose one of: float32, float16"):
        Store(tmp_path / "s", "int8")
    assert Store(tmp_path / "new").dtype == "float32"


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not a store"):
        Store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "store.json").write_text('{"format": 99, "dtype": "float16"}')
    with pytest.raises(ValueError, match="format is 99"):
        Store(tmp_path / "s")


def test_a_folder_where_another_process_is_making_the_store_or_was_killed_at_it_is_no_other_thing(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".store.json.x7").write_text('{"format": 1, ')
    assert Store(tmp_path / "s").write(KEY, GRID).shape == GRID.shape


def test_a_key_that_was_never_written_is_absent(tmp_path):
    store = Store(tmp_path / "s")
    assert not store.has(KEY) and store.read(KEY) is None
    store.write(KEY, GRID)
    assert store.has(KEY) and not store.has(replace(KEY, layer=3))
    with safe_open(store.path(KEY), "np") as file:  # a file says for people what is in it
        assert json.loads(file.metadata()["nearfar"])["waveform"] == "enh_a03f05"


@pytest.mark.parametrize("harm", ["cut", "empty", "bit", "text", "header"])
def test_a_damaged_file_counts_as_absent_and_is_written_again(tmp_path, harm):
    store = Store(tmp_path / "s")
    store.write(KEY, GRID)
    path = store.path(KEY)
    data = bytearray(path.read_bytes())
    if harm == "bit":
        data[-1000] ^= 4
    if harm == "header":
        data[30] ^= 1
    path.write_bytes({"cut": data[:-1], "empty": b"", "text": b"<html>not this</html>"}.get(harm, bytes(data)))
    with pytest.warns(UserWarning, match="damaged"):
        assert store.read(KEY) is None
    if harm in ("cut", "empty", "text"):
        assert not store.has(KEY)
    written = store.write(KEY, GRID)
    assert store.has(KEY) and np.array_equal(store.read(KEY), written)


def test_verify_removes_the_damaged_and_nothing_else(tmp_path):
    store = Store(tmp_path / "s")
    for layer in range(1, 6):
        store.write(replace(KEY, layer=layer), GRID)
    path = store.path(replace(KEY, layer=3))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert store.verify() == [path] and store.verify() == []
    assert [store.has(replace(KEY, layer=n)) for n in range(1, 6)] == [True, True, False, True, True]


def _write_forever(folder, ready):
    store = Store(folder)
    ready.set()
    while True:
        for layer in range(1, 9):
            store.write(replace(KEY, layer=layer), GRID * layer)


def test_two_writers_killed_at_any_moment_leave_whole_files_alone(tmp_path):
    context = multiprocessing.get_context("fork")
    want = {n: GRID * np.float32(n) for n in range(1, 9)}
    for delay in (0.0, 0.013, 0.05, 0.11):
        ready = [context.Event(), context.Event()]
        writers = [context.Process(target=_write_forever, args=(tmp_path / "s", r), daemon=True) for r in ready]
        for writer, event in zip(writers, ready, strict=True):
            writer.start()
            assert event.wait(60)
        time.sleep(delay)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        store = Store(tmp_path / "s")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for n, grid in want.items():
                read = store.read(replace(KEY, layer=n))
                assert read is None or np.array_equal(read, grid)
    assert any(store.has(replace(KEY, layer=n)) for n in want)
    drafts = list((tmp_path / "s" / DRAFTS).iterdir())
    for draft in drafts:
        os.utime(draft, (0, 0))
    Store(tmp_path / "s")
    assert STALE_S > 60 and not list((tmp_path / "s" / DRAFTS).iterdir())


def test_a_disk_that_is_full_leaves_the_store_as_it_was(tmp_path):
    code = f"""
import resource, numpy as np
from nearfar.embedding.store import Key, Store
store = Store({str(tmp_path / "s")!r}, "float32")
key = Key("a", (0,), None, "near", "beats", "")
store.write(key, np.ones((2, 2, 2)))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.write(key, np.zeros((100, 8, 100)))
except OSError as error:
    print(error.errno)
print(store.read(key).sum(), sum(1 for _ in (store.folder / "drafts").iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["27", "8.0", "0"]


def test_what_no_network_made_is_kept_as_float32_in_every_store(tmp_path):
    decibels = np.random.default_rng(0).normal(90, 20, (30, 1, 128)).astype(np.float32)
    key = replace(KEY, encoder="logmel", weights="")
    for dtype in ("float32", "float16"):
        store = Store(tmp_path / dtype, dtype)
        assert np.array_equal(store.write(key, decibels), decibels) and np.array_equal(store.read(key), decibels)


@pytest.mark.parametrize("dtype", ["float32", "float16", None])
def test_a_store_changes_no_score_and_no_set_point(normals_folder, tmp_path, dtype):
    plain = Detector(Recipe(pooling="gem", method="ldn")).fit(normals_folder)
    for _ in range(2):  # the second time from the store
        kept = Detector(Recipe(pooling="gem", method="ldn"), store=Store(tmp_path / "s", dtype)).fit(normals_folder)
        assert kept.threshold == plain.threshold and np.array_equal(kept.train_values, plain.train_values)
        assert [s.score for s in kept.score(normals_folder)] == [s.score for s in plain.score(normals_folder)]
    assert list((tmp_path / "s").glob("*/*.safetensors"))


def test_evaluate_reads_no_recording_whose_vectors_are_there(demo_set, tmp_path, monkeypatch):
    opened = []
    read, hashed = clip_module._opened, store_module.hash_file
    monkeypatch.setattr(clip_module, "_opened", lambda path: opened.append(path) or read(path))
    monkeypatch.setattr(store_module, "hash_file", lambda path: opened.append(path) or hashed(path))
    monkeypatch.setattr(store_module, "SETTLED_NS", 0)  # the demo may be new
    recipe = Recipe(view="n_f", pooling="gem", method="ldn")

    def run(store):
        found = evaluate(demo_set, recipe, store=store, rounds=10)
        assert not any(m.failures or m.error for m in found.machines)
        detectors = [m.detector for m in found.machines]
        return [m.scores for m in found.machines], [
            (d.setup.to_dict(), d.band_levels.usual("far")[0].tolist(), d.remarks) for d in detectors
        ]

    plain = run(None)
    first = run(Store(tmp_path / "store"))
    assert first == plain and opened
    opened.clear()
    assert run(Store(tmp_path / "store")) == plain and not opened
    shorter = Store(tmp_path / "store")
    next(note for note in shorter._files(".json") if "seconds" in note.read_text()).write_text("damaged")
    assert run(shorter) == plain and len(opened) == 1
    for note in [note for note in shorter._files(".json") if "seconds" not in note.read_text()]:
        note.write_text("damaged")
    opened.clear()
    count = sum(1 for _ in demo_set.rglob("*.wav"))
    assert run(shorter) == plain and len(opened) == count, "each is hashed once, and none is decoded"


def test_the_hash_of_a_recording_is_that_of_its_bytes_whenever_it_is_asked_for(tmp_path, monkeypatch):
    path, store = tmp_path / "a.wav", Store(tmp_path / "store")

    def right():
        found = [store.hash_of(path), Store(tmp_path / "store").hash_of(path)]
        assert found == [sha256(path.read_bytes()).hexdigest()] * 2
        return found[0]

    path.write_bytes(b"one")
    first = right()
    assert not list(store._files(".json")), "it is too young: another change may keep its time"
    monkeypatch.setattr(store_module, "SETTLED_NS", 0)
    assert right() == first and len(list(store._files(".json"))) == 1
    status = path.stat()
    path.write_bytes(b"two")  # of the same size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # with the time of the first
    second = right()
    assert second != first
    other = tmp_path / "b.wav"
    other.write_bytes(b"six")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)  # another file in its place
    assert right() not in (first, second)
    next(store._files(".json")).write_text("damaged")
    assert right()
    monkeypatch.setattr(Store, "write_note", lambda *_: (_ for _ in ()).throw(OSError("full")))
    path.write_bytes(b"ten")
    assert right()
