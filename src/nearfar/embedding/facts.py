"""What is known of a clip beside its vectors: length, problems, set-up, levels of its bands, features of relatives.

    BandLevels      mean and spread of the log-mel frames, band by band, near and far; and the rates. Kept beside the
                    bank so that an alarm can name the band and the microphone that differ, whatever the encoder
    GroupFeatures   two vectors by which relatives are found: what a normal and what its background sounds like
    ClipFacts       all of it, kept in the store for recordings that are one clip, so that they need not be read again

No score is taken from any of these.

Conventions
    frames (T, 128)   dB of `encoders.logmel`, at 16 kHz
    machine (256,)    25 % quantile over time and mean power of the bands of the machine's sound, dB: near after the
                      weighted leakage subtraction, or near itself with one microphone
    noise (128,)      mean power of the bands of what the cleaning takes out of near, dB; empty with one microphone
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import CHANNELS, Clip
from nearfar.audio.checks import row_of
from nearfar.encoders.logmel import BANDS, RATE, log_mel
from nearfar.enhance import leakage_subtract, longest_window
from nearfar.pooling import pool
from nearfar.support.check import Array

FORMAT = 1  # of what a store keeps: raise it when what is said of a clip changes
N_FFT = 4096  # samples of the noise's spectra, without overlap


@dataclass(frozen=True)
class BandLevels:
    """Sums over frames, from which mean and spread follow.

    sums    {channel: (3, 128)}: count, sum and sum of squares of the dB of each band
    rates   Hz at which the clips were recorded; empty if that is not known
    """

    sums: dict[str, Array] = field(default_factory=dict)
    rates: frozenset[int] = frozenset()

    @classmethod
    def of(cls, clip: Clip) -> BandLevels:
        """The levels of one clip."""
        sums = {}
        for channel in CHANNELS:
            if getattr(clip, channel) is not None:
                x = log_mel_frames(clip, channel).astype(np.float64)
                sums[channel] = np.stack([np.full(BANDS, float(len(x))), x.sum(axis=0), (x**2).sum(axis=0)])
        return cls(sums, frozenset([clip.rate]))

    @classmethod
    def total(cls, each: Sequence[BandLevels]) -> BandLevels:
        """The levels of all clips together."""
        keys = {key for levels in each for key in levels.sums}
        sums = {k: np.sum([levels.sums[k] for levels in each if k in levels.sums], axis=0) for k in sorted(keys)}
        return cls(sums, frozenset().union(*(levels.rates for levels in each)))

    def usual(self, channel: str) -> tuple[Array, Array]:
        """Mean and standard deviation (128,) of the normal frames of a channel, in dB."""
        count, total, squares = self.sums[channel]
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def log_mel_frames(clip: Clip, channel: str) -> Array:
    """Log-mel frames (T, 128) of a channel."""
    return log_mel(getattr(clip.at(RATE), channel))


@dataclass(frozen=True)
class GroupFeatures:
    """The two vectors of a clip, float32; see the module."""

    machine: Array
    noise: Array

    @classmethod
    def of(cls, clip: Clip, *, with_far: bool) -> GroupFeatures:
        """The vectors of a clip; `with_far` cleans near by far."""
        clip = clip.at(RATE)
        near, noise = clip.near, np.zeros(0, np.float32)
        if with_far and clip.far is not None:
            cleaned = leakage_subtract(near, clip.far, n_fft=longest_window(len(near)), weighted=True)
            noise = pool(log_mel(near - cleaned, n_fft=N_FFT, hop=N_FFT), "power")
            near = cleaned
        return cls(pool(log_mel(near), "quantile"), noise)


@dataclass(frozen=True)
class ClipFacts:
    """Of a clip: seconds, rate (Hz), codec and problems as of `Clip`, and `audio.checks`'s row.

    levels are empty unless it was read as a normal; features are None unless its relatives are to be found.
    """

    seconds: float
    rate: int
    codec: str
    has_far: bool
    problems: list[audio.Problem]
    row: Array
    levels: BandLevels
    features: GroupFeatures | None = None

    @classmethod
    def of(cls, clip: Clip, *, as_normal: bool = False, grouped: bool = False, with_far: bool = False) -> ClipFacts:
        """The facts of a clip; `with_far` cleans near by far for the features."""
        return cls(
            clip.seconds,
            clip.rate,
            clip.codec,
            clip.far is not None,
            audio.problems(clip),
            row_of(clip),
            BandLevels.of(clip) if as_normal else BandLevels(),
            GroupFeatures.of(clip, with_far=with_far) if grouped else None,
        )

    def to_json(self) -> str:
        """The facts as text; the numbers come back to the last bit."""
        plain = asdict(self)
        plain["levels"] = {"sums": {k: v.tolist() for k, v in self.levels.sums.items()}, "rates": [*self.levels.rates]}
        plain["features"] = self.features and {k: v.tolist() for k, v in vars(self.features).items()}
        return json.dumps({**plain, "row": self.row.tolist()})

    @classmethod
    def from_json(cls, text: str) -> ClipFacts:
        """The facts of `to_json`'s text."""
        plain: dict[str, Any] = json.loads(text)
        levels, features = plain["levels"], plain["features"]
        return cls(
            plain["seconds"],
            plain["rate"],
            plain["codec"],
            plain["has_far"],
            [audio.Problem(**problem) for problem in plain["problems"]],
            np.array(plain["row"], np.float32),
            BandLevels({k: np.array(v) for k, v in levels["sums"].items()}, frozenset(levels["rates"])),
            features and GroupFeatures(**{k: np.array(v, np.float32) for k, v in features.items()}),
        )
