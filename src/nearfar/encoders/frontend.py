"""Spectrograms that the networks were trained on: waveforms (..., N) -> (..., frames, bands), in torch.

    kaldi_fbank      log mel of Kaldi: EAT, SSLAM (window "hanning"), BEATs ("povey")
    mel_db           HTK mel in decibels, floor 120 dB below the clip's own maximum: CED, Dasheng
    log_mel          Slaney mel, natural logarithm: M2D
    log_spectrum     natural logarithm of the magnitudes, at any rate: FISHER, ECHO
    window_db        decibels below the maximum of each one-second window: OpenL3

Windows and filterbanks are computed in float64 and used in float32. Leading axes are independent: the maximum that sets
a floor is that of one clip, never of a batch. Each function names the published front end that it follows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.encoders.mel import mel_bank
from nearfar.support.check import Array

RATE = 16_000
HOP = 160  # samples, 10 ms
KALDI_FRAME = 400  # samples, 25 ms
OPENL3_HOP = 242  # samples at 48 kHz
OPENL3_EDGE = 982  # zeros on each side of a window, for frames of 2048 samples
LOG_FLOOR = float(np.finfo(np.float32).eps)


def kaldi_fbank(wave: Tensor, window: str) -> Tensor:
    """(..., N) -> (..., 1 + (N - 400) // 160, 128) log mel energies; `window` is "hanning" or "povey".

    Per frame: mean removed, pre-emphasis 0.97, window, 512-point power spectrum, triangles in mel space from 20 Hz.
    Source: Kaldi's compute-fbank-feats without dither and energy.
    """
    spectrum = kaldi_spectrum(wave.unfold(-1, KALDI_FRAME, HOP), window)
    return floored_log(_power(spectrum) @ mel("kaldi", 512, 128, wave.device))


def kaldi_spectrum(frames: Tensor, window: str) -> Tensor:
    """(..., 400) -> (..., 257) complex: the linear steps of `kaldi_fbank` for each frame."""
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    return torch.fft.rfft((frames - 0.97 * before) * _kaldi_window(window, frames.device), 512)


def mel_db(wave: Tensor) -> Tensor:
    """(..., N) -> (..., 1 + N // 160, 64) decibels: n_fft 512, HTK mel to 8 kHz, floor 120 dB below the peak.

    Source: MelSpectrogram and AmplitudeToDB(top_db=120) of torchaudio with the maximum taken per clip.
    """
    power = _power(hann_spectrum(_centred(wave, 512)))
    return floored_db(power @ mel("htk", 512, 64, wave.device))


def log_mel(wave: Tensor) -> Tensor:
    """(..., N) -> (..., 1 + N // 160, 80) natural log of mel energies: n_fft 400, Slaney mel and area, 50 Hz to 8 kHz.

    Source: nnAudio's MelSpectrogram as M2D uses it.
    """
    power = _power(hann_spectrum(_centred(wave, 400)))
    return (power @ mel("slaney", 400, 80, wave.device)).add_(LOG_FLOOR).log_()


def log_spectrum(wave: Tensor, rate: int, eps: float) -> Tensor:
    """(..., N) -> (..., frames, bins) log of magnitude plus `eps`: windows of 25 ms every 10 ms, not padded.

    frames = 1 + (N - n) // hop with n = 25 rate // 1000 and hop = 10 rate // 1000; bins = n // 2 + 1.
    Source: the inference code of FISHER and of ECHO.
    """
    frames = without_mean(wave).unfold(-1, 25 * rate // 1000, 10 * rate // 1000)
    return hann_spectrum(frames).abs().add_(eps).log_()


def without_mean(wave: Tensor) -> Tensor:
    """(..., N) minus its mean, which in float32 would depend on the number of threads."""
    return wave - wave.mean(-1, keepdim=True, dtype=torch.float64).float()


def window_db(windows: Tensor, basis: Tensor | None) -> Tensor:
    """One-second windows (..., 48000) -> (..., frames, bands) decibels below each window's maximum, at most 80.

    basis    mel filterbank (1025, bands) for 199 frames of 2048 samples; None: the magnitudes (257 bins) of 197 frames
             of 512 samples, OpenL3's "linear"

    Source: kapre 0.1.4, with which OpenL3 was trained.
    """
    n_fft = 512 if basis is None else 2048
    if basis is not None:
        windows = pad(windows, (OPENL3_EDGE, OPENL3_EDGE))
    power = _power(hann_spectrum(windows.unfold(-1, n_fft, OPENL3_HOP)))
    return below_peak_db(power if basis is None else power @ basis)


def hann_spectrum(frames: Tensor) -> Tensor:
    """(..., n) -> (..., 1 + n // 2) complex, through a periodic Hann window."""
    return torch.fft.rfft(frames * _hann(frames.shape[-1], frames.device))


def floored_log(energies: Tensor) -> Tensor:
    """Natural logarithm of `energies` with Kaldi's floor; overwrites `energies`."""
    return energies.clamp_min_(LOG_FLOOR).log_()


def floored_db(power: Tensor) -> Tensor:
    """Decibels of `power` (..., frames, bands), at least the clip's maximum minus 120; overwrites `power`."""
    db = 10 * power.clamp_min_(1e-10).log10_()
    return torch.maximum(db, db.amax((-2, -1), keepdim=True) - 120)


def below_peak_db(power: Tensor) -> Tensor:
    """10 log10 of the root of `power` (..., frames, bands) minus its maximum, from -80 to 0; overwrites `power`."""
    db = 10 * power.sqrt_().clamp_min_(1e-10).log10_()
    return (db - db.amax((-2, -1), keepdim=True)).clamp_min_(-80)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _centred(wave: Tensor, n_fft: int) -> Tensor:  # (..., N) -> (..., 1 + N // 160, n_fft), edges mirrored
    flat = wave.reshape(-1, wave.shape[-1])
    mirrored = pad(flat, (n_fft // 2, n_fft // 2), mode="reflect")
    return mirrored.unfold(-1, n_fft, HOP).reshape(*wave.shape[:-1], -1, n_fft)


@lru_cache(maxsize=8)
def mel(kind: str, n_fft: int, bands: int, device: torch.device) -> Tensor:
    """The float32 `mel_bank` of a front end at 16 kHz."""
    return _float32(mel_bank(kind, RATE, n_fft, bands), device)


@lru_cache(maxsize=8)
def _kaldi_window(window: str, device: torch.device) -> Tensor:
    return _float32(np.hanning(KALDI_FRAME) ** {"hanning": 1.0, "povey": 0.85}[window], device)


@lru_cache(maxsize=8)
def _hann(size: int, device: torch.device) -> Tensor:
    return _float32(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size), device)  # periodic


def _float32(values: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
