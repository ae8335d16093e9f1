"""Small networks of every family against slow ones in float64, from the same published tensors."""

import dataclasses

import numpy as np
import pytest

import network_oracles as oracles

torch = pytest.importorskip("torch")

from nearfar.encoders import beats, checkpoint, layouts, openl3  # noqa: E402
from nearfar.encoders.frozen import FrozenEncoder  # noqa: E402
from nearfar.encoders.mel import mel_bank  # noqa: E402
from nearfar.encoders.transformers import CED, DASHENG, EAT, FAMILIES, M2D, NETWORKS, Transformer  # noqa: E402
from nearfar.encoders.vit import Trunk  # noqa: E402

RNG = np.random.default_rng(0)


def fake(shapes):
    """Published tensors of these shapes: statistics far from their initial values, which would hide faults."""
    out = {}
    for key, shape in shapes.items():
        if key.endswith(("running_var", "weight_g", "grep_a")):
            value = RNG.uniform(0.5, 1.5, shape)
        elif len(shape) == 1 and key.endswith("weight"):
            value = RNG.uniform(0.8, 1.2, shape)
        else:
            value = RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 4)
        out[key] = value.astype(np.float32)
    return out


def tensors(arrays):
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def small(shape, rows):
    return dataclasses.replace(shape, width=32, depth=2, heads=4, rows=rows)


def transformer(family, shape, arrays, chunk):
    with torch.device("meta"):
        trunk = Trunk(shape)
    checkpoint.fill(trunk, FAMILIES[family].layout.trunk(shape, tensors(arrays)))
    return Transformer(FAMILIES[family], trunk, chunk)


def close(found, wanted):
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


def wave(seconds, rate=16_000):
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * t) + RNG.normal(0, 0.1, t.size)).astype(np.float32)[None]


def grids(network, waves, layer=None):
    with torch.inference_mode():
        return network.grids(torch.from_numpy(waves), [layer or network.depth])[0][0].numpy()


@pytest.mark.parametrize("seconds", [0.1, 1.0, 10.3])
def test_eat(seconds):
    shape = small(EAT, rows=80)
    p = fake(layouts.EAT.keys(shape))
    network = transformer("eat", shape, p, 12_288)
    waves = wave(seconds)
    fbank = FAMILIES["eat"].front_end(torch.from_numpy(waves))[0].numpy().astype(np.float64)
    frames = 1 + (waves.shape[1] - 400) // 160
    assert fbank.shape == (frames, 128)
    padded = 1024 if frames <= 1024 else -(-frames // 16) * 16
    wanted = oracles.eat(p, np.pad(fbank, ((0, padded - frames), (0, 0))), shape.heads)
    close(grids(network, waves), wanted[: -(-frames // 16)])


@pytest.mark.parametrize(("family", "shape", "chunk"), [("ced", small(CED, 4), 70), ("dasheng", small(DASHENG, 9), 36)])
def test_ced_and_dasheng_hear_in_chunks(family, shape, chunk):
    p = fake(layouts.CED.keys(shape))
    network = transformer(family, shape, p, chunk)
    waves = wave(1.3)  # 131 frames: one chunk and a rest
    decibels = FAMILIES[family].front_end(torch.from_numpy(waves))[0].numpy().astype(np.float64)
    pieces = [decibels[at : at + chunk] for at in range(0, len(decibels), chunk)]
    kept = [piece for piece in pieces if len(piece) >= shape.patch[0]]
    close(grids(network, waves), np.concatenate([oracles.ced(p, piece, shape.heads) for piece in kept]))


def test_a_rest_below_a_patch_is_dropped():
    shape = small(CED, 4)
    network = transformer("ced", shape, fake(layouts.CED.keys(shape)), 64)
    assert len(grids(network, wave(0.64))) == 4  # 65 frames: 64 and one that is nobody's
    assert len(grids(network, wave(0.79))) == 5


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0, 1.3])
def test_m2d_pads_the_end_after_the_normalisation(seconds):
    shape = small(M2D, 6)
    p = fake(layouts.M2D.keys(shape)) | {"norm_stats": np.array([-6.0, 3.5], np.float32)}
    network = transformer("m2d", shape, p, 101)
    waves = wave(seconds)
    log_mel = FAMILIES["m2d"].front_end(torch.from_numpy(waves))[0].numpy().astype(np.float64)
    whole = np.pad((log_mel + 6.0) / 3.5, ((0, (16 - len(log_mel) % 101 % 16) % 16), (0, 0)))
    pieces = [whole[at : at + 101] for at in range(0, len(whole), 101)]
    kept = [piece for piece in pieces if len(piece) >= 16]
    close(grids(network, waves), np.concatenate([oracles.m2d(p, piece, shape.heads) for piece in kept]))


def test_every_layer_passes_the_final_norm_if_there_is_one():
    shape = small(M2D, 6)
    p = fake(layouts.M2D.keys(shape))
    shallow = {key: value for key, value in p.items() if not key.startswith("blocks.1.")}
    whole = transformer("m2d", shape, p, 101)
    first = transformer("m2d", dataclasses.replace(shape, depth=1), shallow, 101)
    waves = wave(0.7)
    assert np.array_equal(grids(whole, waves, layer=1), grids(first, waves))
    assert not np.allclose(grids(whole, waves), grids(first, waves), atol=0.1)


@pytest.mark.parametrize("seconds", [0.1, 0.2, 2.7])
def test_beats(seconds):
    config = beats.Config(2, 32, 64, 4, 16, conv_pos=8, conv_pos_groups=2, num_buckets=20, max_distance=60)
    p = fake(beats.published_keys(config))
    with torch.device("meta"):
        module = beats.Beats(config)
    checkpoint.fill(module, beats.canonical(config, tensors(p)))
    network = beats.BeatsNetwork(module)
    waves = wave(seconds)
    fbank = network.spectrogram(torch.from_numpy(waves))[0].numpy().astype(np.float64)
    wanted = oracles.beats(p, fbank, heads=4, buckets=20, farthest=60, groups=2)
    assert len(wanted) == max(1, (1 + (waves.shape[1] - 400) // 160) // 16)
    close(grids(network, waves), wanted)


@pytest.mark.parametrize(("family", "shape"), [("eat", EAT), ("m2d", M2D), ("dasheng", DASHENG)])
def test_a_clip_of_a_moment_gets_the_same_bits_alone_and_in_company(family, shape):
    shape = small(shape, 80)
    p = fake(FAMILIES[family].layout.keys(shape)) | {"norm_stats": np.array([-6.0, 3.5], np.float32)}
    encoder = FrozenEncoder(
        next(n for n, (of, _) in NETWORKS.items() if of == family),
        transformer(family, shape, p, 1280),
        "",
        device="cpu",
        threads=2,
    )
    waves = [wave(seconds)[0] for seconds in (0.1, 0.11, 0.12, 0.13)]
    for alone, grid in zip(waves, encoder.grid(waves), strict=True):
        assert np.array_equal(grid, encoder.grid([alone])[0])


def test_beats_is_built_without_drawing_numbers_for_its_table(monkeypatch):
    monkeypatch.setattr(torch.nn.init, "normal_", lambda *_: pytest.fail("drawn, and torch has imported its compiler"))
    with torch.device("meta"):
        assert beats.Beats(beats.Config()).distance.weight.shape == (320, 12)


def test_beats_buckets_are_those_of_the_published_table():
    config = beats.Config(1, 32, 64, 4, 16)
    with torch.device("meta"):
        module = beats.Beats(config)
    module.distance = torch.nn.Embedding(320, 4)
    found = module.buckets(900).numpy()
    wanted = [oracles.relative_bucket(key, 320, 800) for key in range(900)]
    assert np.array_equal(found[0], wanted)
    assert found[899, 0] == 159 and found[0, 899] == 319  # the farthest of each side


@pytest.mark.parametrize(
    ("representation", "dim"),
    [
        ("mel128", 512),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("mel128", 6144), ("mel256", 512), ("linear", 6144))
        ),
    ],
)
def test_openl3(representation, dim):
    p = fake(openl3.published_keys(representation))
    p["batch_normalization_1.running_mean"] -= 19
    with torch.device("meta"):
        module = openl3.OpenL3(representation, dim)
    if representation != "linear":
        bank = mel_bank("htk-area", 48_000, 2048, openl3.REPRESENTATIONS[representation])
        p["speclayer.mel_basis"] = bank.T.astype(np.float32)
    checkpoint.fill(module, openl3.canonical(tensors(p)))
    network = openl3.OpenL3Network(module, dim)
    waves = wave(0.61, 48_000)
    windows = network.windows(torch.from_numpy(waves))
    decibels = network.spectrogram(windows)[0].numpy().astype(np.float64)
    assert decibels.shape[1:] == ((197, 257) if representation == "linear" else (199, len(p["speclayer.mel_basis"])))
    found = grids(network, waves)
    assert found.shape == (len(decibels), 1, dim)
    close(found[-1, 0], oracles.openl3(p, decibels[-1], openl3.LAST_POOL[representation, dim]))


@pytest.mark.parametrize(("samples", "count"), [(480_000, 96), (144_000, 26), (576_000, 116), (4_800, 1), (24_001, 2)])
def test_openl3_windows_start_half_a_second_early_and_reach_the_end(samples, count):
    network = openl3.OpenL3Network(openl3.OpenL3("linear", 512), 512)
    sound = torch.arange(1, samples + 1, dtype=torch.float32)[None]
    windows = network.windows(sound)[0]
    assert windows.shape == (count, 48_000)
    assert (windows[0, :24_000] == 0).all() and windows[0, 24_000] == 1
    assert (windows == samples).any()  # the last sample is heard
