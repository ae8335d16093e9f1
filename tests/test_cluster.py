"""Extraction on a local Ray cluster of two processors: the same bytes, also where a worker is killed in the middle."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from conftest import hum, write_wav
from fake_encoders import write_ced_tiny
from nearfar.embedding.fill import Order, embed_shard

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
    store, killed, told = tmp_path / "s", [], []

    def kill_one():
        until = time.monotonic() + 60
        while len(list(store.glob("??/*.safetensors"))) < 8 and time.monotonic() < until:
            time.sleep(0.005)
        for worker in workers_of_ray():
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    killer = threading.Thread(target=kill_one)
    if kill:
        killer.start()
    order = Order(str(store), ("ced-tiny", "logmel"), ("near", "far"), weights=weights)
    done = embed_on_ray(paths, order, actors=1, progress=lambda i, n: told.append((i, n)))
    if kill:
        killer.join()
        assert killed, "no encoder actor was found while there was work left"
    assert (done.recordings, [Path(file).name for file, _ in done.failed]) == (COUNT, ["broken.wav"])
    assert contents(store) == want
    assert told[-1] == (COUNT + 1, COUNT + 1)
    again = embed_on_ray(paths, order, actors=1)
    assert (again.recordings, again.there) == (COUNT, COUNT)
