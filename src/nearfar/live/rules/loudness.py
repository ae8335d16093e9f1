"""A plain loudness alarm beside the model: near is far louder than all normals, whatever the model thinks of it.

limit = 10 lg sum_b 10^((mean_b + 2 spread_b) / 10) + over_db        over the bands b of `BandLevels`, dB

The bands of a sound hold at most MOST_DB more than its RMS in dB of full scale, so a window of low RMS is not analysed.
"""

from __future__ import annotations

import numpy as np

from nearfar.audio import Clip
from nearfar.embedding.facts import BandLevels, log_mel_frames
from nearfar.support.check import Array

SPREADS = 2.0  # standard deviations of single frames of the normals
MOST_DB = 137.5  # a tone of 30 Hz, where the bands are dense: 135; a burst at the middle of a frame: 1.3 more
LOUD = "loudness"  # among the names of what triggered an alarm


class Loudness:
    """How loud the normals are at near; `over_db` is how much louder an alarm is, 0 for no such alarm."""

    def __init__(self, band_levels: BandLevels, over_db: float) -> None:
        self.limit_db = np.inf
        if over_db and "near" in band_levels.sums:
            mean, spread = band_levels.usual("near")
            self.limit_db = _total_db(mean + SPREADS * spread) + over_db

    def is_over(self, clip: Clip, near_dbfs: float | None) -> bool:
        """Whether a clip, whose near has this RMS in dB of full scale, is louder than the limit."""
        if near_dbfs is None or near_dbfs + MOST_DB <= self.limit_db:
            return False
        return _total_db(log_mel_frames(clip, "near").mean(axis=0)) > self.limit_db


def _total_db(bands: Array) -> float:
    return float(10 * np.log10(np.sum(10 ** (bands / 10))))
