"""What a normal sounds like and what its background sounds like: two vectors by which relatives are found.

    machine  (256,) 25 % quantile over time and mean power of the log-mel bands of the machine's sound, dB
    noise    (128,) mean power of the bands of what the cleaning takes out of near, dB; empty with one microphone

The machine's sound is near after the weighted leakage subtraction, or near itself with one microphone. No score is
taken from these vectors: `detector.calibration` clusters them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearfar.audio import Clip
from nearfar.encoders.logmel import log_mel
from nearfar.enhance import leakage_subtract, longest_window
from nearfar.pooling import pool
from nearfar.support.check import Array

RATE = 16_000  # Hz of the waveforms
N_FFT = 4096  # samples of the noise's spectra, without overlap


@dataclass(frozen=True)
class GroupFeatures:
    """The two vectors of one clip, float32; see the module."""

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
