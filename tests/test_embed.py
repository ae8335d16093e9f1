"""From a clip to one vector per recipe, with an encoder whose right answers are obvious."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from nearfar import enhance
from nearfar.audio import Clip
from nearfar.embedding.vectors import check_channels, embed, waveform, waveforms
from nearfar.encoders import load
from nearfar.enhance import leakage_subtract, soft_mask
from nearfar.errors import AudioError
from nearfar.recipe import Recipe, leaves

RATE = 16_000
rng = np.random.default_rng(0)
near, far = 0.1 * rng.normal(size=(2, RATE)).astype(np.float32)
clip = Clip(near, far, RATE, "pump 3")


class Loudness:
    """Tokens on a 10 x 2 grid: mean, deviation and maximum of a tenth of the clip, and ten times that."""

    dim, licence, batches, device = 3, "none", False, "cpu"

    def __init__(self, sample_rate=RATE):
        self.sample_rate, self.heard = sample_rate, []

    def grid(self, waves):
        self.heard += list(waves)
        return [np.stack([tokens(wave), 10 * tokens(wave)], axis=1) for wave in waves]


def tokens(wave):
    return np.array([[part.mean(), part.std(), np.abs(part).max()] for part in np.array_split(wave, 10)], np.float32)


def flat(wave):
    """Pooled by mean, `freq` concat."""
    return np.r_[tokens(wave).mean(axis=0), 10 * tokens(wave).mean(axis=0)]


def unit(v):
    return v / np.linalg.norm(v)


def one(recipe, clip=clip, encoder=None):
    encoder = encoder or Loudness()
    return embed(clip, [recipe], {recipe.encoder: encoder})[0]


def test_a_vector_is_waveform_encoder_pooling_and_view():
    np.testing.assert_allclose(one(Recipe()), unit(flat(near)), rtol=1e-5)
    np.testing.assert_allclose(one(Recipe(normalize=False)), flat(near), rtol=1e-5)
    np.testing.assert_allclose(one(Recipe(view="far_only")), unit(flat(far)), rtol=1e-5)
    want = unit(np.r_[unit(flat(near)), 0.5 * unit(flat(far))])
    np.testing.assert_allclose(one(Recipe(view="n_0.5f")), want, rtol=1e-5)
    assert one(Recipe()).dtype == np.float32


@pytest.mark.parametrize(
    ("view", "wave"),
    [
        ("enh_a03f05", soft_mask(near, far, alpha=0.3, floor=0.5)),
        ("enh_a05f07", soft_mask(near, far, alpha=0.5, floor=0.7)),
        ("w1_1024", leakage_subtract(near, far, n_fft=1024)),
        ("w1w_2048", leakage_subtract(near, far, n_fft=2048, weighted=True)),
        ("noise_2048", near - leakage_subtract(near, far, n_fft=2048, weighted=True)),
    ],
)
def test_a_waveform_view_is_the_near_only_vector_of_the_enhanced_waveform(view, wave):
    encoder = Loudness()
    np.testing.assert_allclose(one(Recipe(view=view), encoder=encoder), unit(flat(wave)), rtol=1e-4)
    np.testing.assert_allclose(encoder.heard[0], wave, atol=1e-7)
    assert len(encoder.heard) == 1  # the far microphone is only the reference


def test_what_is_left_and_what_is_taken_out_come_from_one_subtraction_and_sum_to_near(monkeypatch):
    calls, subtract = [], enhance.leakage_subtract
    monkeypatch.setattr(enhance, "leakage_subtract", lambda *a, **k: calls.append(k) or subtract(*a, **k))
    names = ("w1w_2048", "noise_2048", "w1i_2048", "w1_2048")
    waves = waveforms(clip, [(name, RATE) for name in names])
    np.testing.assert_allclose(waves["w1w_2048", RATE] + waves["noise_2048", RATE], near, atol=1e-7)
    assert sorted(k["weighted"] for k in calls) == [False, True]
    assert not waveform(Clip(near, 0 * far, RATE, "far is silent"), "noise_2048", RATE).any()


def test_the_inside_of_a_subtraction_has_its_own_neighbours_at_its_ends():
    wave, encoder = leakage_subtract(near, far, n_fft=1024, weighted=True), Loudness()
    one(Recipe(view="w1i_1024"), encoder=encoder)
    inside = encoder.heard[0]
    assert len(inside) == len(wave)
    np.testing.assert_array_equal(inside[256:-256], wave[256:-256])
    np.testing.assert_array_equal(inside[:256], wave[512:256:-1])
    one(Recipe(view="w1i_16384"), Clip(near[:1600], far[:1600], RATE, "short"), encoder)
    assert len(encoder.heard[1]) == 1600


def test_noise_that_is_subtracted_is_not_the_loudest_moment_at_the_ends():
    rng = np.random.default_rng(0)
    room = rng.standard_normal(4000) * np.exp(-np.arange(4000) / 800)
    noise = rng.standard_normal((10, 40_000))
    heard = fftconvolve(noise, room[None], axes=1)[:, 4000:36_000].astype(np.float32) / 30
    levels = {}
    for view in ("w1w_8192", "w1i_8192"):
        waves = [waveform(Clip(h, n.astype(np.float32), RATE, "x"), view, RATE)
                 for h, n in zip(heard, noise[:, 4000:36_000], strict=True)]  # fmt: skip
        power = np.mean(np.square(waves), axis=0).reshape(-1, 1000).mean(axis=1)
        levels[view] = 10 * np.log10(power[[0, -1]] / np.median(power))
    assert levels["w1w_8192"].max() > 3 and levels["w1i_8192"].max() < 2, levels


def test_frames_are_suppressed_before_they_are_pooled():
    recipe = Recipe(low=0.05, spike=0.2, normalize=False, pooling="gem", p=3)
    frames = np.concatenate([tokens(near), 10 * tokens(near)], axis=1)
    changed = np.where(frames > 0.2, np.tanh(frames), np.where(frames < 0.05, 0, frames))
    np.testing.assert_allclose(one(recipe), np.mean(changed**3, axis=0) ** (1 / 3), rtol=1e-4)


def test_the_frequency_rows_are_joined_averaged_or_pooled_each_by_its_own_weights():
    assert one(Recipe(freq="concat")).shape == (6,) and one(Recipe(freq="mean")).shape == (3,)
    settings = {"pooling": "rdp", "alpha": 9, "normalize": False}
    bands = one(Recipe(freq="bands", **settings))
    np.testing.assert_allclose(bands[3:], 10 * bands[:3], rtol=1e-4)
    np.testing.assert_array_equal(one(Recipe(freq="beam", **settings)).ravel(), bands)
    np.testing.assert_allclose(np.linalg.norm(one(Recipe(freq="beam", view="n_f")), axis=-1), [1, 1], rtol=1e-6)
    alone = one(Recipe(freq="bands", pooling="quantile", normalize=False))
    assert alone.shape == (2 * 2 * 3,)
    np.testing.assert_allclose(
        one(Recipe(freq="mean", pooling="mean", normalize=False)), 5.5 * tokens(near).mean(axis=0), rtol=1e-5
    )


def test_recipes_share_what_they_have_in_common(monkeypatch):
    enhanced = []

    def plural(work):
        return lambda *arguments, **settings: enhanced.append(work.__name__) or work(*arguments, **settings)

    for name in ("soft_masks", "leakage_subtract"):
        monkeypatch.setattr(enhance, name, plural(getattr(enhance, name)))
    a, b = Loudness(), Loudness(48_000)
    recipes = [
        Recipe(view="enh_a03f05"), Recipe(view="enh_a05f07"),
        Recipe(), Recipe(view="n_f", pooling="rdp"), Recipe(view="absdif_1"), Recipe(view="w1w_2048"),
        Recipe(encoder="beats", view="w1w_2048"), Recipe(encoder="beats"),
    ]  # fmt: skip
    vectors = embed(clip, recipes, {"logmel": a, "beats": b})
    assert (len(a.heard), len(b.heard)) == (5, 2)  # near, far, masked twice, cleaned; cleaned, near
    assert sorted(enhanced) == ["leakage_subtract", "soft_masks"]
    for recipe, vector in zip(recipes, vectors, strict=True):
        np.testing.assert_array_equal(
            vector, one(recipe, encoder=Loudness(48_000 if recipe.encoder == "beats" else RATE))
        )


def test_every_encoder_hears_its_own_rate_and_enhancement_runs_at_16_khz():
    slow = Clip(np.repeat(near, 3)[: 3 * RATE], np.repeat(far, 3)[: 3 * RATE], 48_000, "hum")
    for view in ("near_only", "w1_1024"):
        for rate in (16_000, 48_000):
            encoder = Loudness(rate)
            one(Recipe(view=view), slow, encoder)
            assert abs(len(encoder.heard[0]) - rate) <= 2
    encoder = Loudness()
    pair = slow.at(16_000)
    one(Recipe(view="w1_1024"), slow, encoder)
    np.testing.assert_allclose(encoder.heard[0], leakage_subtract(pair.near, pair.far), atol=1e-6)


def test_a_mono_clip_is_refused_by_name_of_clip_and_view_unless_near_is_enough():
    mono = Clip(near, None, RATE, "pump 4")
    np.testing.assert_array_equal(one(Recipe(), mono), one(Recipe()))
    for view in ("n_f", "far_only", "absdif_0.5", "residual_0.5", "enh_a05f07", "w1w_1024"):
        with pytest.raises(ValueError, match=f"pump 4: .*'{view}'"):
            one(Recipe(view=view), mono)


def test_the_clip_is_not_changed():
    a, b = near.copy(), far.copy()
    one(Recipe(view="w1w_1024")), one(Recipe(view="absdif_1", low=0.0, spike=0.1))
    np.testing.assert_array_equal(clip.near, a)
    np.testing.assert_array_equal(clip.far, b)


def test_the_real_front_end_gives_finite_vectors_for_every_view_and_pooling():
    encoders = {"logmel": load("logmel")}
    recipes = [
        Recipe(view=v, pooling=p)
        for v in ("near_only", "n_f", "w1w_1024")
        for p in ("mean", "rdp_gem", "quantile", "peak")
    ]
    for source in (clip, Clip(np.zeros(RATE), np.zeros(RATE), RATE), Clip(near[:1600], far[:1600], RATE)):
        for vector in embed(source, recipes, encoders):
            assert vector.ndim == 1 and np.isfinite(vector).all()


def test_one_channel_where_two_are_needed_is_a_recording_that_cannot_be_used() -> None:
    with pytest.raises(AudioError, match="has 1 channel, and both near and far are needed") as caught:
        check_channels(Clip(np.zeros(16_000, np.float32), None, 16_000, "a.wav"), [Recipe(view="w1_1024")])
    assert caught.value.kind == "channel" and "fit with --far -1" in str(caught.value)


def test_a_network_that_gives_nan_is_named_before_any_back_end_sees_it():
    broken = Loudness()
    broken.grid = lambda waves: [np.full((10, 2, 3), np.nan, np.float32) for _ in waves]
    with pytest.raises(ValueError, match="the grid of encoder 'logmel' holds nan"):
        one(Recipe(encoder="logmel"), encoder=broken)
    loud = Loudness()
    loud.grid = lambda waves: [np.array([3e38, -3e38] * 5, np.float32).reshape(10, 1, 1) for _ in waves]
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="the vector of encoder 'logmel' holds inf"):
        one(Recipe(encoder="logmel", pooling="mean_std", normalize=False), encoder=loud)


class Layers(Loudness):
    """As `Loudness`: block n gives n times the grid, and one class token, the number of the block."""

    def grid(self, waves, layer=None):
        grids = {}
        for each in layer or [None]:
            block = int(str(each or 12).removeprefix("cls") or 12)
            made = super().grid(waves)
            grids[each] = (
                [np.full((1, 1, 3), block, np.float32)] * len(waves)
                if "cls" in str(each)
                else [block * g for g in made]
            )
        return list(grids.values()) if layer else grids[None]


def layered(**settings):
    recipe = Recipe(encoder="eat-large", normalize=False, **settings)
    return embed(clip, [recipe], {"eat-large": Layers()})[0]


def test_several_layers_are_averaged_before_they_are_pooled():
    np.testing.assert_allclose(layered(layer=(6, 9, 12)), 9 * flat(near), rtol=1e-5)
    np.testing.assert_allclose(layered(layer=4), 4 * flat(near), rtol=1e-5)
    same = Recipe.from_json(Recipe(encoder="eat-large", layer=(6, 9)).to_json())
    assert same.layer == (6, 9) and hash(same) == hash(Recipe(encoder="eat-large", layer=(6, 9)))


def test_several_layers_are_fused_as_systems_of_equal_weight():
    fused = Recipe(encoder="eat-large", layer=(6, 12), layer_rule="fuse", view="sfsoft_a03f05").expand()
    assert [(weight, part.layer) for weight, part in fused.parts] == [(0.5, 6), (0.5, 12)]
    parts = list(leaves(fused))
    assert [part.view for part in parts] == ["near_only", "enh_a03f05", "n_f"] * 2 and parts[-1].layer == 12
    for wrong in ({"layer": (6, 6)}, {"layer": ()}, {"layer": (6, 2.5)}, {"layer": (6, None)}, {"layer_rule": "sum"}):
        with pytest.raises(ValueError, match="layer"):
            Recipe(encoder="eat-large", **wrong)


def test_class_tokens_are_pooled_in_place_of_the_grid():
    assert layered(freq="cls").tolist() == [12, 12, 12]
    assert layered(freq="cls", layer=(2, 4)).tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match=r"'ced-base' has no class tokens .* eat-large, .*fisher-tiny"):
        Recipe(encoder="ced-base", freq="cls")


def test_the_soft_mask_takes_the_window_and_the_step_of_the_view():
    wanted = soft_mask(near, far, alpha=0.3, floor=0.5, n_fft=2048, hop=128)
    np.testing.assert_array_equal(waveform(clip, "enh_a03f05n2048h128", RATE), wanted)
    np.testing.assert_array_equal(
        waveform(clip, "enh_a03f05n1024h256", RATE), soft_mask(near, far, alpha=0.3, floor=0.5)
    )
    for view, what in (("enh_a03f05n200h100", "n_fft of view"), ("sfsoft_a03f05n1024h513", "hop of view")):
        with pytest.raises(ValueError, match=what):
            Recipe(view=view)
