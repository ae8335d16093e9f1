"""What the normals sound like, band by band: mean and spread of their log-mel frames, near and far; and their rates.

    frames  (T, 128) dB of `encoders.logmel`, at 16 kHz

Kept beside the bank so that an alarm can say which band and microphone differ, whatever the encoder. Never used for
a score.
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
    """Sums over normal frames: `sums` {channel: (3, 128)} holds count, sum and sum of squares per band.

    `rates` in Hz are those that the normals were recorded at; none if that is not known.
    """

    sums: dict[str, Array] = field(default_factory=dict)
    rates: frozenset[int] = frozenset()

    @classmethod
    def of(cls, clip: Clip) -> BandLevels:
        """The profile of one clip."""
        sums = {}
        for channel in CHANNELS:
            if getattr(clip, channel) is not None:
                x = frames(clip, channel).astype(np.float64)
                sums[channel] = np.stack([np.full(BANDS, float(len(x))), x.sum(axis=0), (x**2).sum(axis=0)])
        return cls(sums, frozenset([clip.rate]))

    @classmethod
    def total(cls, profiles: Sequence[BandLevels]) -> BandLevels:
        """The profile of all clips together."""
        keys = {key for profile in profiles for key in profile.sums}
        sums = {k: np.sum([p.sums[k] for p in profiles if k in p.sums], axis=0) for k in sorted(keys)}
        return cls(sums, frozenset().union(*(p.rates for p in profiles)))

    def another_rate(self, clip: BandLevels, highest: int) -> list[str]:
        """A remark if a clip was recorded at a rate that no normal has, which its highest band shows.

        Rates above `highest`, the rate of the encoder in Hz, are all alike: they come down to it.
        """
        alike = any(r == usual or min(r, usual) > highest for r in clip.rates for usual in self.rates)
        if alike or not clip.rates or not self.rates:
            return []
        usual = " and ".join(f"{rate:,}" for rate in sorted(self.rates))
        return [f"recorded at {min(clip.rates):,} Hz, the normals at {usual} Hz: that alone can raise a score"]

    def usual(self, channel: str) -> tuple[Array, Array]:
        """Mean and standard deviation (128,) of the normal frames of a channel, in dB."""
        count, total, squares = self.sums[channel]
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def frames(clip: Clip, channel: str) -> Array:
    """Log-mel frames (T, 128) of a channel."""
    return log_mel(getattr(clip.at(RATE), channel))
