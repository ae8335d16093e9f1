"""Work on a local Ray cluster of two processors gives the same bytes: filling a store, also where a worker is killed in
the middle, and searching; encoders, poolings and back ends of the user travel along."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from brokers import wait_for
from conftest import hum, write_wav
from fake_encoders import write_ced_tiny
from nearfar import backend, pooling
from nearfar.challenge.search import records, run, space
from nearfar.embedding.fill import Order, embed_shard
from nearfar.encoders import plugins
from nearfar.support.files import SETTLED_NS

pytest.importorskip("torch")
ray = pytest.importorskip("ray", reason="the extra ray is not installed")
psutil = pytest.importorskip("psutil")  # Ray brings it along

COUNT = 16


@pytest.fixture(scope="module")
def cluster():
    paths = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).resolve().parents[1] / "src")
    ray.init(
        num_cpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{here}:{paths}" if paths else here}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """(recordings, weights, files of the store as one machine makes it)."""
    folder = tmp_path_factory.mktemp("ray")
    weights = write_ced_tiny(folder)
    paths = [write_wav(folder / f"{i:02}.wav", hum(i, seconds=6)) for i in range(COUNT)]
    broken = folder / "broken.wav"
    broken.write_bytes(b"RIFF nonsense")
    embed_shard(paths, Order(str(folder / "local"), ("ced-tiny", "logmel"), ("near", "far"), weights=weights))
    return [*paths, broken], weights, contents(folder / "local")


def contents(store):
    return {p.relative_to(store): p.read_bytes() for p in store.glob("??/*.safetensors")}


def workers_of_ray():
    """The processes of encoder actors that this test's own cluster has started."""
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if any("MapWorker(MapBatches(Embedder))" in part for part in p.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
def test_the_cluster_gives_the_same_bytes_also_if_a_worker_is_killed(cluster, setting, tmp_path, kill):
    from nearfar.challenge.cluster import embed_on_ray

    paths, weights, want = setting
    killed: list[int] = []

    def kill_one(store):
        wait_for(lambda: len(list(store.glob("??/*.safetensors"))) >= 8)
        for worker in workers_of_ray():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.pid)

    for attempt in range(5):  # a killer that comes late finds no worker left
        store, told = tmp_path / str(attempt), []
        killer = threading.Thread(target=kill_one, args=(store,))
        if kill:
            killer.start()
        order = Order(str(store), ("ced-tiny", "logmel"), ("near", "far"), weights=weights)
        done = embed_on_ray(paths, order, actors=1, progress=lambda i, n, told=told: told.append((i, n)))
        if kill:
            killer.join()
        if killed or not kill:
            break
    assert bool(killed) == kill
    assert (done.recordings, [Path(file).name for file, _ in done.failed]) == (COUNT, ["broken.wav"])
    assert contents(store) == want
    assert told[-1] == (COUNT + 1, COUNT + 1)
    again = embed_on_ray(paths, order, actors=1)
    assert (again.recordings, again.there) == (COUNT, COUNT)


class Bands:
    """An encoder of the user: loudness of 16 bands, a frame every 32 ms."""

    sample_rate, dim, weights_hash = 16_000, 16, "bands 1"

    def frames(self, waves):
        return [np.log1p(np.abs(np.fft.rfft(w[: len(w) // 512 * 512].reshape(-1, 512))))[:, 1:65:4] for w in waves]


def loudest(frames):
    """A pooling of the user."""
    return frames.max(axis=0)


class Nearest:
    """A back end of the user."""

    def __init__(self, z, is_target):
        self.z = z
        d = np.linalg.norm(z[:, None] - z, axis=-1)
        self.train_scores = np.sort(d, axis=1)[:, 1]

    def score(self, q):
        return np.linalg.norm(q[:, None] - self.z, axis=-1).min(axis=1)


@pytest.fixture
def registered(forget_plugins):
    plugins.register_encoder("bands", Bands)
    pooling.register_pooling("loudest", loudest)
    backend.register_backend("nearest", Nearest)


@pytest.mark.slow
def test_an_encoder_of_the_user_fills_the_same_store_on_the_cluster(cluster, setting, registered, tmp_path):
    from nearfar.challenge.cluster import embed_on_ray

    paths = setting[0][:4]
    embed_shard(paths, Order(str(tmp_path / "here"), ("bands",), ("near", "enh_a05f07")))
    done = embed_on_ray(paths, Order(str(tmp_path / "there"), ("bands",), ("near", "enh_a05f07")), actors=2)
    assert done.recordings == 4 and contents(tmp_path / "there") == contents(tmp_path / "here") != {}


@pytest.mark.slow
def test_a_search_on_the_cluster_records_the_same_bytes(cluster, demo_set, registered, tmp_path, monkeypatch):
    weights = {"ced-tiny": write_ced_tiny(tmp_path)}
    few = space.space(poolings=["mean", "loudest"], views=["near_only", "n_f"], methods=["raw", "nearest"])
    few = space.Space({s: few.plan[s] for s in few.plan if s.low is s.spike is None})
    found, told = {}, []
    newest = max(p.stat().st_ctime_ns for p in demo_set.rglob("*.wav"))
    wait_for(lambda: time.time_ns() - newest > SETTLED_NS)  # a store notes the hashes of older files alone
    monkeypatch.chdir(demo_set.parent)  # workers have another current folder
    for engine in ("local", "ray"):
        out = tmp_path / engine
        run.search(
            demo_set.name, ["ced-tiny", "bands"], out, few, weights, engine=engine, threads=1,
            progress=lambda i, n, what: told.append((i, n, what)),
        )  # fmt: skip
        found[engine] = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*") if p.is_file()}
    assert found["local"] == found["ray"] and len(found["ray"]) > 100
    assert told[-1] == (4, 4, "searching"), "a task for each of two machines and two encoders"
    both = records.read(tmp_path / "ray")
    assert {r.encoder for r in both.recipes} == {"ced-tiny", "bands"} and "nearest" in {r.method for r in both.recipes}
    with pytest.raises(ValueError, match="usable normals"):
        run.search(_without_tests(demo_set, tmp_path), ["logmel"], tmp_path / "bad", few, engine="ray")


def test_a_plug_in_that_no_import_path_leads_to_stays_at_home(registered):
    from nearfar.challenge.cluster import importables
    from nearfar.support.plugins import imported

    names = {"encoder": ["bands", "beats"], "pooling": ["loudest", "mean"], "method": ["nearest"]}
    used = importables(names)
    assert [(field, name, each.path) for field, name, each in used] == [
        ("encoder", "bands", "test_cluster:Bands"),
        ("pooling", "loudest", "test_cluster:loudest"),
        ("method", "nearest", "test_cluster:Nearest"),
    ]
    assert {each.folder for _, _, each in used} == {str(Path(__file__).resolve().parent)}
    assert used[1][2].load() is loudest is imported("test_cluster:loudest")
    pooling.register_pooling("numpys", np.max)
    assert importables({"pooling": ["numpys"]})[0][2].path == "numpy:max"
    for given in (lambda frames: frames.max(axis=0), type("Made", (), {"__call__": lambda self, x: x.max(axis=0)})()):
        name = pooling.PLUGINS.name_of(given)
        with pytest.raises(ValueError, match=rf"the pooling '{name}' cannot go to a cluster: .* module's own"):
            importables({"pooling": ["mean", name]})
    with pytest.raises(ValueError, match=r"encoder 'test_cluster.Bands' cannot go to a cluster"):
        importables({"encoder": [plugins.name_of_encoder(Bands())]})


def _without_tests(demo_set, tmp_path):
    """A machine whose test clips cannot be read."""
    folder = tmp_path / "broken" / "fan"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for i in range(3):
            name = f"section_00_source_{split}_normal_{i:04d}.wav"
            write_wav(folder / split / name, hum(i, seconds=1))
    for path in (folder / "test").glob("*.wav"):
        path.write_bytes(b"RIFF nonsense")
    return folder.parent
