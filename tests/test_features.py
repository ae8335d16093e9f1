"""The features of the default without weights, on a real motor: encoder, view and pooling together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import shared
from nearfar import audio
from nearfar.embedding.vectors import embed
from nearfar.encoders import load
from nearfar.encoders.logmel import FLOOR_DB
from nearfar.encoders.rhythm import rhythm
from nearfar.recipe import Recipe

# Computed once from the formulas by other code, in dB; of the first training normal, and the rhythm of all thirty.
EXPECTED = json.loads((Path(__file__).parent / "golden" / "features-bldc-motor.json").read_text(encoding="utf-8"))
FEATURES = {
    "quiet": Recipe(encoder="logmel-4096", view="w1w_16384", pooling="quiet", normalize=False),
    "loud": Recipe(encoder="logmel-4096", view="w1w_16384", pooling="power", normalize=False),
    "noise": Recipe(encoder="logmel-4096-4096", view="noise_16384", pooling="power", normalize=False),
    "mean": Recipe(encoder="logmel", view="w1w_16384", pooling="power", normalize=False),
    "quarter": Recipe(encoder="logmel", view="w1w_16384", pooling="quantile", normalize=False),
    "burst": Recipe(encoder="logmel", view="w1w_16384", pooling="burst", normalize=False),
}


@pytest.fixture(scope="module")
def normals():
    return sorted(shared("data", "dcase2026-form", "bldcMotor", "train").glob("*.wav"))


def test_the_vectors_of_a_real_clip_are_those_of_the_formulas(normals):
    clip = audio.read(normals[0])
    assert clip.name == EXPECTED["clip"]
    encoders = {name: load(name) for name in ("logmel", "logmel-4096", "logmel-4096-4096")}
    found = dict(zip(FEATURES, embed(clip, list(FEATURES.values()), encoders), strict=True))
    found["quarter"] = found["quarter"][:128]  # the mean power follows
    for name, vector in found.items():
        offset = 0 if name == "burst" else FLOOR_DB  # a burst is a difference of levels
        np.testing.assert_allclose(vector + offset, EXPECTED[name], atol=1e-4, err_msg=name)


def test_the_rhythm_of_real_clips_is_that_of_the_formulas(normals):
    found = [rhythm(audio.read(path).near) for path in normals]
    np.testing.assert_allclose(found, EXPECTED["rhythm"], atol=1e-5)
