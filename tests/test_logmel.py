"""The log-mel front end, and the table of encoders around it."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.encoders import FREQS, TABLE, as_frames, load, names
from nearfar.encoders.logmel import BANDS, FLOOR_DB, FRAMING, log_mel
from nearfar.recipe import Recipe

RATE = 16_000
rng = np.random.default_rng(0)
noise = (0.1 * rng.normal(size=RATE)).astype(np.float32)


def mel_bank(n_fft=1024):
    """Triangles on the HTK mel scale, 0 to 8 kHz, each at least one bin wide to either side, area 1 in bins."""

    def mel(hz):
        return 2595 * np.log10(1 + hz / 700)

    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, mel(8000), 130)]
    step = 16_000 / n_fft
    bank = np.zeros((n_fft // 2 + 1, 128))
    for band in range(128):
        left, centre, right = edges[band : band + 3]
        left, right = min(left, centre - step), max(right, centre + step)
        for i in range(n_fft // 2 + 1):
            hz = i * step
            bank[i, band] = max(0.0, min((hz - left) / (centre - left), (right - hz) / (right - centre)))
        bank[:, band] /= bank[:, band].sum()
    return bank


@pytest.mark.parametrize(
    ("name", "n_fft", "hop"), [("logmel", 1024, 512), ("logmel-4096", 4096, 2048), ("logmel-4096-4096", 4096, 4096)]
)
def test_it_is_the_documented_spectrum(name, n_fft, hop):
    padded = np.pad(noise.astype(np.float64), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    bank, got = mel_bank(n_fft), load(name).grid(noise[None])[0, :, 0]
    for t in (0, 1, len(got) // 2, len(got) - 1):
        power = np.abs(np.fft.rfft(padded[hop * t : hop * t + n_fft] * window) * 2 / window.sum()) ** 2
        np.testing.assert_allclose(got[t], 10 * np.log10(power @ bank) + 130, atol=1e-3)
    assert got.dtype == np.float32 and FLOOR_DB == -130
    assert TABLE[name].frames_per_s == RATE / hop


@pytest.mark.parametrize("name", FRAMING)
@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 1024, 5000, RATE])
def test_a_clip_of_any_length_has_one_frame_and_one_more_for_every_hop(name, length):
    grid = load(name).grid(noise[None, :length])
    assert grid.shape == (1, 1 + length // FRAMING[name][1], 1, BANDS) and np.isfinite(grid).all()


def test_levels_are_decibels_above_the_floor():
    sine = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    assert log_mel(sine)[3:-3].max() == pytest.approx(130, abs=4)  # a full-scale sine, spread over its bands
    np.testing.assert_array_equal(log_mel(np.zeros(RATE, np.float32)), 0)
    louder = log_mel(2 * noise) - log_mel(noise)
    np.testing.assert_allclose(louder, 20 * np.log10(2), atol=1e-3)
    assert (log_mel(1e-9 * noise) >= 0).all()


def test_a_tone_lights_the_band_that_holds_it():
    bank = mel_bank()
    for hz in (100, 440, 1000, 3000, 7000):
        tone = np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)
        assert abs(log_mel(tone)[10].argmax() - bank[round(hz / 15.625)].argmax()) <= 1


def test_a_batch_is_its_clips_one_by_one_and_a_list_may_mix_lengths():
    encoder = load("logmel")
    batch = noise[:12000].reshape(3, 4000)
    grid = encoder.grid(batch)
    assert grid.shape == (3, 8, 1, 128)
    mixed = encoder.grid([noise[:4000], noise[:700]])
    assert [g.shape for g in mixed] == [(8, 1, 128), (2, 1, 128)]
    np.testing.assert_array_equal(mixed[0], grid[0])
    for i in range(3):
        np.testing.assert_array_equal(encoder.grid(batch[i : i + 1])[0], grid[i])


def test_frames_by_concat_mean_and_bands():
    encoder, batch = load("logmel"), noise[:8000].reshape(2, 4000)
    assert [encoder.frames(batch, freq).shape for freq in FREQS] == [(2, 8, 128), (2, 8, 128), (2, 8, 1, 128)]
    grid = rng.normal(size=(2, 5, 3, 4))
    np.testing.assert_array_equal(as_frames(grid, "concat"), grid.reshape(2, 5, 12))
    np.testing.assert_array_equal(as_frames(grid, "mean"), grid.mean(axis=2))
    np.testing.assert_array_equal(as_frames([grid[0], grid[1]], "bands")[1], grid[1])
    with pytest.raises(ValueError, match="choose one of: concat, mean, bands"):
        encoder.frames(batch, "sum")


def test_waves_that_are_none_are_refused_by_their_number():
    encoder = load("logmel")
    for bad, answer in (
        (np.zeros(100), r"\(B, N\)"),
        (np.zeros((2, 3, 4)), r"\(B, N\)"),
        ([np.zeros(100), np.full(100, np.nan)], r"waves\[1\]"),
        ([np.zeros((2, 100))], r"waves\[0\] must have 1 axes"),
        ([np.zeros(0)], "no samples"),
    ):
        with pytest.raises(ValueError, match=answer):
            encoder.grid(bad)


def test_the_table_begins_with_logmel_and_then_follows_the_report():
    assert names()[:9] == (
        "logmel",
        "eat-large",
        "eat-as2m",
        "beats",
        "ced-base",
        "m2d-clap",
        "sslam",
        "openl3",
        "dasheng",
    )
    encoder = load("logmel")
    entry = TABLE["logmel"]
    assert (encoder.sample_rate, encoder.dim, encoder.licence) == (entry.sample_rate, entry.dim, entry.licence)
    with pytest.raises(ValueError, match="choose one of: logmel"):
        load("vggish")
    for name in FRAMING:
        with pytest.raises(ValueError, match="no weights"):
            load(name, weights="some.file")
        with pytest.raises(ValueError, match="has no layers"):
            Recipe(encoder=name, layer=1)
        assert Recipe(encoder=name).encoder in names()[9:] or name == "logmel"
