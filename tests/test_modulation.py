"""The modulation encoder: right values for known swings, and an oracle written from its definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.audio import Clip
from nearfar.embedding.vectors import embed
from nearfar.encoders import load, names
from nearfar.encoders.modulation import FLOOR_DB, modulation
from nearfar.recipe import Recipe

RATE = 16_000
RECIPE = Recipe(encoder="modulation", method="mahalanobis", standardize=True, normalize=False)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(size=int(seconds * RATE)).astype(np.float32)


def swelling(hz, depth, seconds=3.0, carrier=1_000.0):
    """A tone in the band from 870 Hz to 1.25 kHz whose amplitude swings by `depth` at `hz`."""
    t = np.arange(int(seconds * RATE)) / RATE
    return ((1 + depth * np.cos(2 * np.pi * hz * t)) * np.sin(2 * np.pi * carrier * t)).astype(np.float32)


def oracle(x):
    """(12, 8) step by step as the module states it, float64 and loops."""
    x = np.pad(np.asarray(x, np.float64), 128, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    power = np.array([np.abs(np.fft.rfft(x[s : s + 256] * window)) ** 2 for s in range(0, len(x) - 255, 32)])
    edges = [round(3 * (128 / 3) ** (k / 12)) for k in range(12)] + [129]
    bands = np.stack([power[:, a:b].sum(axis=1) for a, b in pairwise(edges)], axis=1)
    level = np.log(bands / bands.mean(axis=0) + 1e-3)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(500) / 499)
    parts = [level[start : start + 500] for start in range(0, len(level) - 499, 250)]
    components = [np.fft.rfft((part - part.mean(axis=0)) * hann[:, None], axis=0) * 2 / hann.sum() for part in parts]
    swing = np.mean([np.abs(c) ** 2 for c in components], axis=0)
    rows = []
    for k in range(8):
        low, high = 2 * 100 ** (k / 8), 2 * 100 ** ((k + 1) / 8)
        bins = [i for i in range(251) if np.floor(low + 1e-9) <= i < np.ceil(high - 1e-9)]
        rows.append(10 * np.log10(swing[bins].max(axis=0)) - FLOOR_DB)
    return np.array(rows).T


def test_the_grid_is_that_of_the_definition():
    x = noise(2.3) * (1 + 0.5 * np.sin(2 * np.pi * 31 * np.arange(int(2.3 * RATE)) / RATE)).astype(np.float32)
    np.testing.assert_allclose(modulation(x), oracle(x), atol=0.02)


@pytest.mark.parametrize("hz, band", [(20, 4), (50, 5), (100, 6)])
def test_a_known_swing_has_its_amplitude_in_its_band(hz, band):
    # ln (1 + m cos a)^2 = constant + 4 r cos a - ..., r = (1 - sqrt(1 - m^2)) / m
    depth = 0.3
    r = (1 - np.sqrt(1 - depth**2)) / depth
    # The squared window of 16 ms smooths the power.
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)) ** 2
    smoothed = abs((hann * np.exp(-2j * np.pi * hz * np.arange(256) / RATE)).sum()) / hann.sum()
    value = modulation(swelling(hz, depth))[5] + FLOOR_DB
    assert value.argmax() == band
    assert value.max() == pytest.approx(20 * np.log10(4 * r * smoothed), abs=0.6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(-60, 60))
def test_the_gain_has_no_effect(seed, db):
    x = noise(1.2, seed)
    np.testing.assert_allclose(modulation(x * np.float32(10 ** (db / 20))), modulation(x), atol=0.05)


def test_silence_and_a_short_clip_have_finite_values():
    assert (modulation(np.zeros(RATE, np.float32)) == 0).all()
    for samples in (1, 2, 500, RATE // 2):
        grid = modulation(noise(1)[:samples])
        assert grid.shape == (12, 8)
        assert np.isfinite(grid).all() and (grid >= 0).all()


def test_it_is_an_encoder_and_a_recipe_hears_a_bearing_by_it():
    assert "modulation" in names()
    encoder = load("modulation")
    assert encoder.name == "modulation"
    waves = np.stack([noise(2, 1), noise(2, 2)])
    assert encoder.grid(waves).shape == (2, 1, 12, 8)
    np.testing.assert_array_equal(encoder.grid(list(waves))[1], encoder.grid(waves)[1])
    assert encoder.frames(waves).shape == (2, 1, 96)
    with pytest.raises(ValueError, match="no layers"):
        encoder.grid(waves, layer=2)
    with pytest.raises(ValueError, match="no weights"):
        load("modulation", "file")
    normal, faulty = noise(4, 3), noise(4, 4)
    faulty = faulty * (1 + 0.6 * np.cos(2 * np.pi * 87 * np.arange(len(faulty)) / RATE)).astype(np.float32)
    vectors = [embed(Clip(x, None, RATE, "clip"), [RECIPE], {"modulation": encoder})[0] for x in (normal, faulty)]
    change = (vectors[1] - vectors[0]).reshape(12, 8)
    assert change[:, 6].min() > 5  # 63 to 113 Hz, in every band
    assert np.abs(change[:, :5]).mean() < 2
