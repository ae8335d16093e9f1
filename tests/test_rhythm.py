"""The rhythm encoder: right values on clips with known beats, and an oracle written from its definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar import Detector, backend
from nearfar.audio import Clip
from nearfar.embedding.vectors import embed
from nearfar.encoders import load, names
from nearfar.encoders.rhythm import rhythm, weakest_stroke
from nearfar.recipe import Recipe

RATE = 16_000
RECIPE = Recipe(encoder="rhythm", method="as_is", metric="euclidean", normalize=False)


def ticking(period_s, seconds, *, seed=0, silent=None, quieter=1.0, level=0.01):
    """Equal ticks in noise; tick number `silent` is `quieter` times its amplitude lower."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    x = level * rng.normal(size=n)
    tick = 0.3 * np.exp(-np.arange(400) / 60) * rng.normal(size=400)
    for k, start in enumerate(np.arange(0.1, seconds - 0.05, period_s)):
        at = int(start * RATE)
        x[at : at + 400] += (1 - quieter if k == silent else 1) * tick[: n - at]
    return x.astype(np.float32)


def oracle(x):
    """[S, miss] step by step as the module states them, float64."""
    half = 256
    x = np.pad(np.asarray(x, np.float64), half, mode="reflect")
    count = 1 + (len(x) - 512) // 80
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 511)
    power = np.array([np.abs(np.fft.rfft(x[80 * t : 80 * t + 512] * window)) ** 2 for t in range(count)])
    edges = [round(4 * 64 ** (k / 24)) for k in range(25)]
    edges[-1] = 257
    bands = np.stack([power[:, a:b].mean(axis=1) for a, b in pairwise(edges)], axis=1)
    level = 10 * np.log10(bands + 1e-3 * bands.mean(axis=0) + 1e-12)
    rise = np.zeros_like(level)
    for t in range(2, count - 2):
        rise[t] = np.maximum(level[t + 2] - level[t - 2], 0)
    onset = rise.mean(axis=1)

    def correlated(kernel):
        z = np.convolve(onset, kernel, "same")
        z = z - z.mean()
        return np.array([z[: count - lag] @ z[lag:] for lag in range(count)])

    r = correlated(np.hanning(11) / np.hanning(11).sum())
    r = r / (r[0] + 1e-12) * count / (count - np.arange(count))
    lags = range(25, min(320, count // 3) - 1)
    tops = [lag for lag in lags if r[lag] >= r[lag - 1] and r[lag] > r[lag + 1]]
    if not tops or max(r[lag] for lag in tops) <= 0:
        return 0.0, 0.0
    lag = next(lag for lag in tops if r[lag] > 0.8 * max(r[i] for i in tops))
    period, fine = lag, correlated(np.hanning(7) / 3)
    for k in (2, 4, 8):
        centre, width = round(period * k), max(2, int(0.04 * period))
        if centre + width >= 0.7 * count:
            break
        period = (centre - width + np.argmax(fine[centre - width : centre + width + 1])) / k

    def beats(o):
        reach, half = max(1, int(0.03 * period)), max(2, int(0.08 * period))
        padded = np.pad(o, reach, mode="symmetric")
        wide = np.array([padded[i : i + 2 * reach + 1].max() for i in range(count)])
        comb = [period * i for i in range(int((count - 1) // period))]
        starts = [np.mean([wide[min(count - 1, round(s + c))] for c in comb]) for s in range(round(period))]
        due, values, at = float(np.argmax(starts)), [], []
        while due < count - half - 1:
            first = max(0, round(due) - half)
            i = first + int(np.argmax(o[first : round(due) + half + 1]))
            values.append(o[i])
            at.append(i)
            if len(values) > 1 and values[-1] > 0.6 * np.median(values):
                due += 0.3 * (i - due)
            due += period
        return np.array(values), at

    strengths, at = beats(onset)
    if len(strengths) < 5:
        return r[lag], 0.0
    template = np.median([[rise[min(max(i + k, 0), count - 1)] for k in range(-2, 5)] for i in at], axis=0)
    padded = np.pad(rise, ((2, 4), (0, 0)))
    match = np.array([(padded[t : t + 7] * template).sum() for t in range(count)]) / ((template**2).sum() + 1e-9)
    strengths, _ = beats(match)
    strengths = strengths[1:-1] if len(strengths) > 5 else strengths
    middle = np.median(strengths)
    return r[lag], (middle - strengths.min()) / (middle - np.median(match) + 1e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(1, 5), st.floats(0.14, 1.2), st.sampled_from([None, 2, 3]))
def test_it_is_its_definition(seed, seconds, period_s, silent):
    x = ticking(period_s, seconds, seed=seed, silent=silent)
    np.testing.assert_allclose(rhythm(x), oracle(x), atol=1e-4)
    noise = np.random.default_rng(seed).normal(size=int(seconds * RATE)).astype(np.float32)
    np.testing.assert_allclose(rhythm(noise), oracle(noise), atol=1e-4)


@pytest.mark.parametrize("period_s", [0.2, 0.5, 1.0])
def test_a_missing_beat_is_missed_and_a_quiet_one_is_missed_in_part(period_s):
    whole, quiet, missing = (rhythm(ticking(period_s, 8, silent=4, quieter=q, level=0.003)) for q in (0, 0.9, 1))
    assert min(whole[0], quiet[0], missing[0]) > 0.6, "all three tick"
    assert whole[1] < 0.25 < quiet[1] < 0.9 < missing[1] + 0.05, (whole, quiet, missing)


def test_the_weakest_stroke_is_where_one_is_missing():
    for silent, quieter in ((3, 1.0), (6, 0.8)):
        x = ticking(0.5, 5, silent=silent, quieter=quieter, level=0.003)
        found = weakest_stroke(x)
        assert found is not None
        assert found.at_s == pytest.approx(0.1 + 0.5 * silent, abs=0.04)
        assert found.every_s == pytest.approx(0.5, abs=0.005)
        assert found.strength == pytest.approx(max(0, 1 - rhythm(x)[1]))
    assert weakest_stroke(np.zeros(RATE, np.float32)) is None


def test_an_explanation_tells_which_stroke_is_missing():
    clips = [Clip(ticking(0.5, 4, seed=i), None, RATE, str(i)) for i in range(12)]
    detector = Detector().fit(clips)
    missing = Clip(np.concatenate([clips[3].near, ticking(0.5, 4, seed=20, silent=4)]), None, RATE, "missing")
    found = detector.explain(missing)
    assert found.anomalous and "rhythm" in found.triggered_by
    assert found.stroke is not None and found.stroke.at_s == pytest.approx(4 + 2.1, abs=0.04)
    assert found.sentence().startswith("A stroke is missing at 6.1 s; one was due there, as every 0.50 s.")
    assert found.to_dict()["stroke"]["every_s"] == found.stroke.every_s
    healthy = detector.explain(clips[3])
    assert healthy.stroke is None and not healthy.anomalous


@pytest.mark.parametrize(("silent", "want"), [(None, (0.97435, 0.03154)), (6, (0.85398, 0.96694))])
def test_eleven_ticks_with_and_without_the_seventh_give_the_values_of_other_code(silent, want):
    assert rhythm(ticking(0.5, 5.6, silent=silent)) == pytest.approx(want, abs=1e-5)


def test_noise_hardly_ticks():
    strengths = [rhythm(np.random.default_rng(i).normal(size=10 * RATE).astype(np.float32))[0] for i in range(5)]
    assert max(strengths) < 0.4


@pytest.mark.parametrize("n", [1, 2, 79, 80, 400, 1000, 5000, 6480, 8000, 3 * RATE])
def test_clips_without_a_period_give_zero_and_nothing_but_numbers(n):
    for wave in (np.zeros(n, np.float32), np.full(n, 0.3, np.float32)):
        assert rhythm(wave) == (0, 0)
    noise = np.random.default_rng(n).normal(size=n).astype(np.float32)
    assert np.isfinite(rhythm(noise)).all()
    assert n > 6000 or rhythm(noise) == (0, 0), "a third of the clip is shorter than the shortest period"


def test_it_is_an_encoder_of_two_numbers_a_clip():
    encoder = load("rhythm")
    assert (encoder.sample_rate, encoder.dim) == (RATE, 2) and "rhythm" in names()[9:]
    x = ticking(0.5, 4)
    grid = encoder.grid(x[None])
    assert grid.shape == (1, 1, 1, 2) and grid.dtype == np.float32
    np.testing.assert_allclose(grid[0, 0, 0], rhythm(x), rtol=1e-6)
    assert [g.shape for g in encoder.grid([x, x[:300]])] == [(1, 1, 2)] * 2
    assert encoder.frames(x[None]).shape == (1, 1, 2) and encoder.batches is False
    for wrong in ({"weights": "file"}, {"threads": 0}):
        with pytest.raises(ValueError, match=r"weights|threads"):
            load("rhythm", **wrong)
    with pytest.raises(ValueError, match="no layers"):
        encoder.grid([x], layer=1)
    with pytest.raises(ValueError, match="no samples"):
        encoder.grid([np.zeros(0)])


def test_a_recipe_of_rhythm_scores_the_missing_beat_itself_at_any_rate():
    encoders = {"rhythm": load("rhythm")}
    clips = [Clip(ticking(0.5, 4, seed=i), None, RATE, str(i)) for i in range(6)]
    z = np.stack([embed(clip, [RECIPE], encoders)[0] for clip in clips])
    assert z.shape == (6, 2)
    fitted = backend.fit(z, **vars(RECIPE.backend))
    np.testing.assert_array_equal(fitted.train_scores, z[:, 1])
    missing = ticking(0.5, 4, seed=9, silent=4)
    at_48k = np.repeat(missing, 3)  # crude, and the ticks stay where they are
    for clip in (Clip(missing, None, RATE, "16"), Clip(at_48k, None, 3 * RATE, "48")):
        score = fitted.score(embed(clip, [RECIPE], encoders)[0][None])[0]
        assert score > 0.7 > fitted.train_scores.max()
