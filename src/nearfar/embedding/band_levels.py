"""Levels of the normals, band by band: mean and spread of their log-mel frames, near and far; and their rates.

    frames  (T, 128) dB of `encoders.logmel`, at 16 kHz

Kept beside the bank so that an alarm can name the band and the microphone that differ, whatever the encoder. No score
uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nearfar.audio import Clip
from nearfar.encoders.logmel import BANDS, RATE, log_mel
from nearfar.support.check import Array

CHANNELS = ("near", "far")


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
                x = frames(clip, channel).astype(np.float64)
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


def frames(clip: Clip, channel: str) -> Array:
    """Log-mel frames (T, 128) of a channel."""
    return log_mel(getattr(clip.at(RATE), channel))
