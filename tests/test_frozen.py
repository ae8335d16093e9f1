"""A network as an encoder: a clip's grid depends on the clip alone; what cannot be heard is refused in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar import encoders

torch = pytest.importorskip("torch")


from nearfar.encoders.vit import Linear  # noqa: E402

RATE = 16_000


@pytest.fixture(scope="module")
def encoder(ced_tiny_weights):
    return encoders.load("ced-tiny", ced_tiny_weights)


def noise(seconds, seed=0, level=0.1):
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0.1, 0.13, 0.3, 1.0, 1.01]), min_size=2, max_size=5),
    levels=st.lists(st.sampled_from([1e-6, 1e-3, 0.1, 10.0]), min_size=5, max_size=5),
)
def test_a_clip_gets_the_same_bits_in_any_company(encoder, lengths, levels):
    waves = [noise(s, i, level) for i, (s, level) in enumerate(zip(lengths, levels, strict=False))]
    together = encoder.grid(waves)
    for wave, grid in zip(waves, together, strict=True):
        assert np.array_equal(grid, encoder.grid([wave])[0])
        assert np.array_equal(grid, encoder.grid(wave[None])[0])
    backwards = encoder.grid(waves[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(together, backwards[::-1], strict=True))


def test_the_number_of_threads_does_not_change_a_bit(encoder):
    alone = encoders.load("ced-tiny", encoder.weights_path, threads=1)
    waves = [noise(1.5, 1), noise(2.5, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(encoder.grid(waves), alone.grid(waves), strict=True))


LONG = pytest.param(30, 187, marks=pytest.mark.slow)


@pytest.mark.parametrize(("seconds", "rows"), [(0.1, 1), (0.17, 1), (1, 6), (10, 62), (10.2, 63), (12, 74), LONG])
def test_rows_of_any_length(encoder, seconds, rows):
    grid = encoder.grid(noise(seconds)[None])
    assert grid.shape == (1, rows, 4, 192) and grid.dtype == np.float32 and np.isfinite(grid).all()


def test_silence_and_noise_of_any_level_stay_finite(encoder):
    for level in (0, 1e-30, 1e-6, 1, 1e4):
        assert np.isfinite(encoder.grid(noise(1, level=level)[None])).all()


def test_layers(encoder):
    waves = [noise(1), noise(2)]
    last = encoder.grid(waves)
    first, final = encoder.grid(waves, layer=[1, 12])
    assert all(np.array_equal(a, b) for a, b in zip(last, final, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(last, encoder.grid(waves, layer=-1), strict=True))
    assert not np.allclose(first[0], final[0], atol=0.1)
    assert encoder.grid(noise(1)[None], layer=[3, 5])[1].shape == (1, 6, 4, 192)
    for wrong in (0, 13, -2, 1.5):
        with pytest.raises(ValueError, match="layers 1 to 12"):
            encoder.grid(waves, layer=wrong)


def test_frames_are_the_grid_by_frequency(encoder):
    wave = noise(1)[None]
    grid = encoder.grid(wave)
    assert np.array_equal(encoder.frames(wave), grid.reshape(1, 6, 768))
    assert np.array_equal(encoder.frames(wave, freq="bands"), grid)
    np.testing.assert_allclose(encoder.frames(wave, freq="mean"), grid.mean(2), atol=1e-6)
    assert [f.shape for f in encoder.frames([wave[0]], freq="mean")] == [(6, 192)]


def test_numbers_of_any_kind_and_layout(encoder):
    wave = noise(1).astype(np.float64)
    whole = encoder.grid(wave.astype(np.float32)[None])
    assert np.array_equal(encoder.grid(wave[None]), whole)
    assert np.array_equal(encoder.grid([np.stack([wave, wave], axis=1)[:, 0]])[0], whole[0])
    assert encoder.grid([]) == []


@pytest.mark.parametrize(
    ("waves", "words"),
    [
        ([np.array([0.1, np.nan] * 4000)], r"waves\[0\]"),
        ([noise(1), noise(0.09)], r"waves\[1\] holds 1440 samples"),
        (noise(1), r"\(B, N\)"),
        ([noise(1)[None]], r"waves\[0\]"),
    ],
)
def test_what_cannot_be_heard_is_refused(encoder, waves, words):
    with pytest.raises(ValueError, match=words):
        encoder.grid(waves)


def test_what_the_network_makes_nan_of_is_said(encoder):
    with pytest.raises(
        ValueError, match=r"ced-tiny makes NaN or infinity of waves\[1\], whose largest sample is .*e\+3"
    ):
        encoder.grid([noise(1), noise(1, level=1e30)])


def test_nothing_is_changed_in_place(encoder):
    wave = noise(1)
    before = wave.copy()
    encoder.grid([wave])
    assert np.array_equal(wave, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_said(encoder):
    with pytest.raises(ValueError, match="cuda"):
        encoders.load("ced-tiny", encoder.weights_path, device="cuda")
    with pytest.raises(ValueError, match="toaster"):
        encoders.load("ced-tiny", encoder.weights_path, device="toaster")


def test_bf16_is_near_and_says_that_it_is_another(encoder):
    waves = [noise(1.5, 1), noise(2.5, 2)]
    half = encoders.load("ced-tiny", encoder.weights_path, precision="bf16")
    alone = encoders.load("ced-tiny", encoder.weights_path, threads=1, precision="bf16")
    for exact, found, again in zip(encoder.grid(waves), half.grid(waves), alone.grid(waves), strict=True):
        assert found.dtype == np.float32 and np.array_equal(found, again)
        assert 1e-4 < np.abs(found - exact).mean() / exact.std() < 0.02
    assert half.weights_hash != encoder.weights_hash and half.weights_hash.startswith(encoder.weights_hash)


def test_an_encoder_without_linear_layers_has_no_bf16():
    with pytest.raises(ValueError, match="bf16"):
        encoders.load("logmel", precision="bf16")
    with pytest.raises(ValueError, match="precision"):
        encoders.load("logmel", precision="int7")


def test_a_linear_layer_computes_in_the_type_of_its_weights():
    torch.manual_seed(0)
    x, layer = torch.randn(2, 7, 48), Linear(48, 64).requires_grad_(False)
    plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), plain)
    half = layer.bfloat16()(x)
    assert half.dtype == torch.float32 and torch.equal(half, half.bfloat16().float())
    assert 0 < (half - plain).abs().max() < 0.05
