"""Every encoder at its published size, from every published file format, against the reference implementations.

The files hold reproducible numbers in the published keys and shapes; `golden/` holds what the reference computes with
them. Limits: difference over the golden's standard deviation at most 5e-4, on average 5e-5. Of a front end 3e-3
decibels or log units: the reference itself is 2e-3 off where a band is nearly silent (ours 2e-5, against float64).
"""

import json
import math
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from conftest import SHARED, shared
from nearfar import encoders
from nearfar.encoders.sources import SOURCES

torch = pytest.importorskip("torch")

from nearfar.encoders import beats, openl3, subbands, transformers  # noqa: E402

FILES = {path.stem: json.loads(path.read_text()) for path in (SHARED / "golden" / "manifests").glob("*.json")}
# The folder may hold golden answers of networks that the table of encoders does not have.
MANIFESTS = sorted(name for name, m in FILES.items() if m["encoder"] in encoders.names()) or ["no manifests here"]
SEEDS = {"10s": 1, "12s": 2, "3s": 3, "24s": 6, "44k": 10, "6k": 8}
OTHER_RATES = {"44k": 44_100, "6k": 6_400}  # of clips of 4 s
PARAMETERS = {  # of the encoder itself: without classifier and what is fixed by a formula
    "eat-large": 302_575_616,
    "eat-as2m": 85_254_144,
    "sslam": 85_254_144,
    "beats": 90_311_792,
    "ced-tiny": 5_401_088,
    "ced-mini": 9_560_704,
    "ced-small": 21_418_880,
    "ced-base": 85_304_960,
    "m2d-clap": 85_254_144,
    "dasheng": 85_447_808,
    "openl3": 4_687_042,
    "fisher-tiny": 5_388_288,
    "fisher-mini": 9_543_680,
    "fisher-small": 21_393_408,
    "echo-small": 21_491_712,
    "openbeats-base": 90_311_792,
}


@pytest.fixture(scope="module", params=MANIFESTS)
def network(request, tmp_path_factory):
    with published(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@contextmanager
def published(name, home):
    """(manifest, encoder, golden arrays, `fake_wave`) of one published file, which is gone afterwards."""
    folder = shared("golden")
    sys.path.insert(0, str(folder))
    from fake_weights import fake_checkpoint, fake_wave
    from write_checkpoint import write_checkpoint

    manifest = FILES[name]
    path = Path(write_checkpoint(manifest, fake_checkpoint(manifest, seed=1), str(home)))
    yield (
        manifest,
        encoders.load(manifest["encoder"], weights=path),
        np.load(folder / f"{name}.npz"),
        fake_wave,
    )
    shutil.rmtree(home)
    sys.path.remove(str(folder))


def close(found, golden):
    apart = np.abs(found - golden) / golden.std()
    assert apart.max() <= 5e-4 and apart.mean() <= 5e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*evaluation.*")
def test_the_grid_is_the_reference_s(network):
    manifest, encoder, golden, fake_wave = network
    lengths = [key.removeprefix("grid_") for key in golden.files if key.startswith("grid_")]
    assert lengths
    for length in lengths:
        rate = OTHER_RATES.get(length, manifest["sample_rate"])
        wave = fake_wave(4.0 if length in OTHER_RATES else float(length[:-1]), rate, seed=SEEDS[length])
        if isinstance(encoder.network, subbands.SubBands):
            encoder.network.rate = rate
        grid = encoder.grid(wave[None])[0]
        assert grid.shape == tuple(golden[f"shape_{length}"]) and grid.shape[-1] == encoder.dim
        close(grid[..., ::8], golden[f"grid_{length}"])
        close(grid[[0, -1]], golden[f"rows_{length}"])
        check_front_end(encoder, wave, golden[f"feat_{length}"], golden[f"featshape_{length}"])


def check_front_end(encoder, wave, golden, shape):
    """What enters the network: for CED and Dasheng before the batch norm, for M2D before its end padding."""
    network, waves = encoder.network, torch.from_numpy(wave[None])
    with torch.inference_mode():
        if encoder.name.startswith("openl3"):
            found = network.spectrogram(network.windows(waves))[0].numpy()
            assert found.shape == tuple(shape)
            np.testing.assert_allclose(found[::8, ::8], golden, atol=3e-3)
            return
        if isinstance(network, subbands.SubBands):
            found = network.spectrum(waves)[0]
        elif isinstance(network, beats.BeatsNetwork):
            found = network.spectrogram(waves)[0]
        elif encoder.name.startswith(("ced", "dasheng")):
            found = network.family.front_end(waves)[0]
        else:
            found = torch.cat(network.chunks(network.family.front_end(waves)), dim=1)[0, : shape[0]]
    assert found.shape == tuple(shape)
    np.testing.assert_allclose(found[::8].numpy(), golden, atol=3e-3)


FIXED = ("running_", "fixed_positional_encoder.", "norm_stats")  # statistics and formulas: nobody trained them


def described(name):
    """(family, layout, shape) of a network of the trunk."""
    if name in subbands.SIZES:
        family = name.partition("-")[0]
        return family, subbands.FAMILIES[family].layout, subbands.SIZES[name]
    family, shape = transformers.NETWORKS[name]
    return family, transformers.FAMILIES[family].layout, shape


@pytest.mark.parametrize(("name", "published"), PARAMETERS.items())
def test_the_published_number_of_parameters(name, published):
    if name in ("beats", "openbeats-base"):
        keys = beats.published_keys(beats.Config())
    elif name == "openl3":
        keys = {key: shape for key, shape in openl3.published_keys("mel128").items() if "speclayer" not in key}
    else:
        family, layout, shape = described(name)
        fixed = ("pos_embed",) if family in ("m2d", "echo") else ()
        keys = {k: s for k, s in layout.keys(shape).items() if k not in fixed}
    count = sum(math.prod(shape) for key, shape in keys.items() if not any(part in key for part in FIXED))
    assert count == published == encoders.TABLE[name].parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fisher-tiny", "echo-small"])
def test_class_tokens_are_the_authors_embedding_of_a_clip(name, tmp_path):
    with published(name, tmp_path) as (manifest, encoder, golden, fake_wave):
        wave = fake_wave(10.0, manifest["sample_rate"], seed=SEEDS["10s"])
        found = encoder.grid(wave[None], layer="cls")[0]
        assert found.shape == (1, golden["clip_10s"].size // encoder.dim, encoder.dim)
        close(found.ravel(), golden["clip_10s"].ravel())


@pytest.mark.parametrize("name", ["ced-tiny", "fisher-tiny", "fisher-tiny-48k", "beats", "openl3"])
def test_gflop_in_the_table_are_counted_from_the_architecture(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    from gflop import gflop

    assert set(encoders.GFLOP) == set(SOURCES)
    assert encoders.GFLOP[name] == pytest.approx(gflop(name), rel=5e-3)
    if name == "ced-tiny":  # 62 x 4 tokens of 192: 12 blocks, patches, attention
        tokens, width = 248, 192
        block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
        assert gflop(name) == pytest.approx((12 * block + 2 * tokens * 256 * width) / 1e9, rel=0.02)
