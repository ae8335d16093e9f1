"""The method on tensors of torch: the same numbers as with numpy, to 1e-4 of a standard deviation of the normals."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar import enhance, frames, pooling, views
from nearfar.challenge.search import pool, records, run, space
from nearfar.challenge.search.score import score_all
from nearfar.embedding.cache import CachedEncoders
from nearfar.embedding.embedder import GPU_WAVES, batch_of
from nearfar.embedding.vectors import EncoderInput
from nearfar.encoders import load
from nearfar.recipe import Recipe, leaves
from nearfar.support.check import finite

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HERE = torch.device("cpu")
SIGMA = 1e-4
SPACE = space.space(extended=True)
SETTINGS = list(SPACE.plan)


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x))


def same(found, wanted, atol):
    """A tensor with the numbers and the type of an array."""
    assert isinstance(found, torch.Tensor) and found.numpy().dtype == wanted.dtype
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=atol)


def pair(seed, length, dtype=np.float32):
    rng = np.random.default_rng(seed)
    far = rng.normal(size=(2, length))
    near = rng.normal(size=(2, length)) + np.roll(far, 3, axis=-1)
    return near.astype(dtype), far.astype(dtype)


@pytest.mark.parametrize(
    "way",
    [
        lambda near, far: enhance.soft_mask(near, far, alpha=0.5, floor=0.7),
        lambda near, far: enhance.soft_mask(near, far, alpha=1, floor=0, n_fft=512, hop=100),
        lambda near, far: enhance.leakage_subtract(near, far),
        lambda near, far: enhance.leakage_subtract(near, far, n_fft=2048, weighted=True),
    ],
)
@pytest.mark.parametrize("length", [1, 300, 5000, 16_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tensor_is_enhanced_as_an_array_is(way, length, dtype):
    near, far = pair(length, length, dtype)
    far[1] = 0  # a silent far channel
    same(way(tensor(near), tensor(far)), way(near, far), SIGMA * near.std())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 9),
    shape=st.sampled_from([(1, 3), (2, 8), (9, 7), (40, 128)]),
    low=st.sampled_from([None, 0.15]),
    spike=st.sampled_from([None, 0.3]),
    reading=st.fixed_dictionaries({"symmetric": st.booleans(), "continuous": st.booleans()}),
)
def test_frames_of_a_tensor_are_suppressed_and_pooled_as_those_of_an_array(seed, shape, low, spike, reading):
    x = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    same(frames.suppress(tensor(x), low, spike, **reading), frames.suppress(x, low, spike, **reading), 1e-6)
    for kind in pooling.POOLINGS:
        decibels = kind in ("quiet", "power", "burst", "quantile", "peak", "mean_std")
        given = 20 * x + 60 if decibels else x
        found, wanted = pooling.pool(tensor(given), kind, p=9, alpha=20), pooling.pool(given, kind, p=9, alpha=20)
        same(found, wanted, SIGMA * wanted.std() + 1e-5)


@pytest.mark.parametrize("view", [*views.VIEWS, "n_0.25f", "absdif_2"])
def test_a_view_of_tensors_is_that_of_arrays(view):
    near, far = pair(0, 12)
    near[1] = 0  # stays zero
    near[0, 0] = 1e-25  # far below what a square can hold
    same(views.compose(view, tensor(near), tensor(far)), views.compose(view, near, far), 1e-6)


def test_a_tensor_with_nan_is_refused_by_its_place():
    x = torch.zeros(3, 2)
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"frames holds nan at index \(2, 1\)"):
        finite("frames", x)
    with pytest.raises(ValueError, match="must have 1 axes, not 2"):
        finite("z", torch.zeros(3, 2), ndim=1)
    huge = torch.full((4,), 3e38)
    assert finite("z", huge) is huge and finite("z", torch.zeros(1, dtype=torch.float16)).dtype == torch.float32


def grids(waveforms, count, seed, silent):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(len(waveforms), 1, 9, 2, 5))
    x = (base + 0.3 * rng.normal(size=(len(waveforms), count, 9, 2, 5))).astype(np.float32)
    x[:, 1], x[:, 30] = x[:, 0], x[:, 2]  # duplicates
    if silent:
        x[0, 3] = -np.abs(x[0, 3])  # GeM of it is a zero vector
    return dict(zip(waveforms, x, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_scores_on_a_device_are_those_of_numpy(data):
    setting = data.draw(st.sampled_from(SETTINGS))
    view = data.draw(st.sampled_from(list(SPACE.plan[setting])))
    config = data.draw(st.sampled_from(SPACE.plan[setting][view]))
    recipe = Recipe(view=view, **vars(setting), **vars(config))
    waveforms = sorted({w for leaf in leaves(recipe) for w in leaf.parsed_view.waveforms})
    silent = recipe.method != "varmin" and data.draw(st.booleans())
    given = grids(waveforms, 42, data.draw(st.integers(0, 5)), silent)
    is_target = np.arange(30) >= 30 - data.draw(st.sampled_from([0, 1, 3, 6]))
    both = []
    for convert, join in ((lambda x: x, np.stack), (tensor, torch.stack)):
        pooled = {w: join([pool.pool_many(convert(g), [setting])[0] for g in x]) for w, x in given.items()}
        both.append(score_all([recipe], pooled, is_target, np.array([f"spd_{i % 3}" for i in range(30)])))
    (((own, new),), stable), (((tensor_own, tensor_new),), tensor_stable) = both
    # domain_z divides by the spread of a few rounded distances
    scale = max(own.std(), np.abs(new).max() * 1e-2 if recipe.method == "domain_z" else 0, 1e-3 * np.abs(own).max())
    for found, wanted in ((tensor_own, own), (tensor_new, new)):
        assert isinstance(found, np.ndarray) and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=SIGMA * scale, err_msg=str(recipe))
    assert tensor_stable[view] == pytest.approx(stable[view], abs=0.1), "ranks of nearly equal distances may change"


def test_a_search_of_the_demo_on_a_device_finds_the_same_best_recipe(demo_set, tmp_path):
    wanted = space.space(views=["near_only", "n_f", "absdif_0.5", "sfsoft_a05f07"])
    few = space.Space({s: wanted.plan[s] for s in [s for s in wanted.plan if s.low is s.spike is None][::6]})
    machines, _ = run._machines(demo_set, None, [], 0)
    found = []
    for device, folder in (("cpu", tmp_path / "numpy"), (HERE, tmp_path / "torch")):
        cached = CachedEncoders({"logmel": load("logmel")})
        for machine in machines:
            run.search_machine(run.plan(machine, few, "logmel", folder), cached, device=device)
        found.append(records.read(folder))
    ours, theirs = found
    assert len(ours) == len(few) and ours.recipes == theirs.recipes
    order = [np.argsort(-each.overall, kind="stable") for each in found]
    assert ours.recipes[order[0][0]] == theirs.recipes[order[1][0]]
    for machine in ours.machines:
        a, b = (each.aligned(range(len(ours)), machine) for each in found)  # in standard deviations of the normals
        np.testing.assert_allclose(b, a, rtol=SIGMA, atol=SIGMA)
        assert np.median(np.abs(a - b)) < SIGMA / 20


class Copied:
    """`Copies` without a GPU, that remembers the order of what was done."""

    def __init__(self, need=1, free=0):
        self.done, self.memory = [], (need, free)

    def send(self, values):
        self.done.append(f"send {len(values)}")
        return tensor(values)

    def fetch(self, values):
        def wait():
            self.done.append(f"wait {len(values)}")
            return values.numpy()

        return wait

    def memory_of(self, work):
        work()
        return self.memory


@pytest.mark.parametrize("batch", [None, 2])
def test_batches_overlap_and_give_each_wave_its_own_grid(ced_tiny_weights, batch):
    encoder = load("ced-tiny", ced_tiny_weights, batch=batch)
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=n).astype(np.float32) for n in (16_000, 8000, 16_000, 16_000, 8000, 16_000, 16_000)]
    copies = Copied(need=10, free=30)  # two waves fit into 0.7 of the memory
    found = encoder._in_batches(waves, [3, 12], copies)
    for layer, at in ((3, 0), (12, 1)):
        for (mine, is_finite), wanted in zip(found, encoder.grid(waves, layer=layer), strict=True):
            assert is_finite
            np.testing.assert_allclose(mine[at], wanted, rtol=0, atol=1e-4 * wanted.std())
    order = [step for step in copies.done if step != "send 1" or batch]
    assert order[:3] == ["send 2", "send 2", "wait 2"], "the second batch is on its way before the first is waited for"
    assert order.count("wait 2") == 9 and copies.done[-1] == "wait 1", "two layers and a flag of three batches of two"
    waves[2] = np.full(16_000, 1e38, np.float32)
    assert [is_finite for _, is_finite in encoder._in_batches(waves, [12], copies)].index(False) == 2


def test_a_batch_takes_what_fits_and_a_gpu_gets_many_clips():
    from nearfar.encoders.frozen import MOST, waves_that_fit

    assert [waves_that_fit(need, 1000) for need in (1, 7, 350, 700, 5000, 0)] == [MOST, 100, 2, 1, 1, MOST]
    inputs = [EncoderInput(name, "e") for name in ("near", "far")]

    class On:
        sample_rate, weights_hash = 16_000, ""

        def __init__(self, device):
            self.device = device

    assert batch_of(inputs, 3, {"e": On("cpu")}) == 6 and batch_of(inputs, 3, {"e": On("cuda:0")}) == GPU_WAVES // 2


def test_tf32_is_off_unless_it_is_asked_for(ced_tiny_weights):
    from nearfar.encoders.frozen import rounded_factors

    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in flags]
    for allowed in (False, True):
        with rounded_factors(allowed):
            assert [each.allow_tf32 for each in flags] == [allowed, allowed]
    assert [each.allow_tf32 for each in flags] == before
    with pytest.raises(ValueError, match="a mode of NVIDIA GPUs, and the device is 'cpu': give --device cuda"):
        load("ced-tiny", ced_tiny_weights, precision="tf32")
    with pytest.raises(ValueError, match="changes nothing in it"):
        load("logmel", precision="tf32")


def test_enhancement_runs_where_the_encoder_does(monkeypatch):
    from conftest import hum
    from nearfar.embedding import vectors

    seen = []

    class Elsewhere:
        sample_rate, weights_hash, device = 16_000, "", HERE

    plain = enhance.soft_masks
    monkeypatch.setattr(vectors.enhance, "soft_masks", lambda n, f, s, **k: seen.append(type(n)) or plain(n, f, s, **k))
    inputs = [EncoderInput("enh_a05f07", name) for name in ("logmel", "e")]
    made = vectors.waveforms_for(hum(0), inputs, {"logmel": load("logmel"), "e": Elsewhere()})
    assert seen == [np.ndarray, torch.Tensor] and list(made) == inputs
    np.testing.assert_allclose(made[inputs[1]], made[inputs[0]], atol=1e-6)


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_processor(capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    bench = import_module("bench_gpu")
    bench.main(HERE, quick=True, minutes=5)
    lines = capsys.readouterr().out.splitlines()
    assert "encoders: 2 rows" in lines and "search of one machine: 2 rows" in lines
    apart = float(next(line for line in lines if line.startswith("numpy")).split(" | ")[-1])
    assert apart < SIGMA
    assert [row[0] for row in bench.queue_rows()] == ["pooling", "distances and scores"]
    assert bench.operations("ced-tiny") == pytest.approx(2 * 5.4e6 * 248, rel=0.3), "two for each weight and token"
