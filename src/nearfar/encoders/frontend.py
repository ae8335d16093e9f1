"""Spectrograms that the networks were trained on: waveforms (..., N) -> (..., frames, bands), in torch.

    kaldi_fbank      log mel of Kaldi: EAT, SSLAM (window "hanning"), BEATs ("povey")
    mel_db           HTK mel in decibels, floor 120 dB below the clip's own maximum: CED, Dasheng
    log_mel          Slaney mel, natural logarithm: M2D
    window_db        decibels below the maximum of each one-second window: OpenL3

All bases are computed in float64 and used in float32. Leading axes are independent of each other: the maximum that
sets a floor is that of one clip, never of a batch. Source: the published front ends named at each function.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.check import Array

RATE = 16_000
KALDI_FRAME, HOP = 400, 160  # samples: 25 ms and 10 ms
LOG_FLOOR = float(np.finfo(np.float32).eps)


def kaldi_fbank(wave: Tensor, window: str) -> Tensor:
    """(..., N) -> (..., 1 + (N - 400) // 160, 128) log mel energies; `window` is "hanning" or "povey".

    Per frame: mean removed, pre-emphasis 0.97, window, 512-point power spectrum, triangles in mel space from 20 Hz.
    Source: Kaldi's compute-fbank-feats without dither and energy.
    """
    frames = wave.unfold(-1, KALDI_FRAME, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    shape, bank = _kaldi(window, wave.device)
    power = _power(torch.fft.rfft((frames - 0.97 * before) * shape, 512))
    return (power @ bank).clamp_min_(LOG_FLOOR).log_()


def mel_db(wave: Tensor) -> Tensor:
    """(..., N) -> (..., 1 + N // 160, 64) decibels: n_fft 512, HTK mel to 8 kHz, floor 120 dB below the peak.

    Source: MelSpectrogram and AmplitudeToDB(top_db=120) of torchaudio with the maximum taken per clip.
    """
    power = _power(torch.fft.rfft(_centred(wave, 512) * _hann(512, wave.device)))
    db = 10 * (power @ _mel("htk", 512, 64, wave.device)).clamp_min_(1e-10).log10_()
    return torch.maximum(db, db.amax((-2, -1), keepdim=True) - 120)


def log_mel(wave: Tensor) -> Tensor:
    """(..., N) -> (..., 1 + N // 160, 80) natural log of mel energies: n_fft 400, Slaney mel and area, 50 Hz to 8 kHz.

    Source: nnAudio's MelSpectrogram as M2D uses it.
    """
    power = _power(torch.fft.rfft(_centred(wave, 400) * _hann(400, wave.device)))
    return (power @ _mel("slaney", 400, 80, wave.device)).add_(LOG_FLOOR).log_()


def window_db(windows: Tensor, basis: Tensor | None) -> Tensor:
    """One-second windows (..., 48000) -> (..., frames, bands) decibels below each window's maximum, at most 80.

    `basis` (1025, bands) is the mel filterbank: 199 frames of 2048 samples every 242, zeros around. None is OpenL3's
    "linear": 197 frames of 512 samples, 257 bins of magnitude. Source: kapre 0.1.4, as OpenL3 was trained.
    """
    n_fft = 512 if basis is None else 2048
    if basis is not None:
        windows = pad(windows, (982, 982))
    power = _power(torch.fft.rfft(windows.unfold(-1, n_fft, 242) * _hann(n_fft, windows.device)))
    magnitude = (power if basis is None else power @ basis).sqrt_()
    db = 10 * magnitude.clamp_min_(1e-10).log10_()
    return (db - db.amax((-2, -1), keepdim=True)).clamp_min_(-80)


def mel_bank(kind: str, rate: int, n_fft: int, bands: int, low: float = 0.0) -> Array:
    """(1 + n_fft // 2, bands) triangles from `low` Hz to rate / 2, float64.

    "htk": HTK mel, peak 1. "htk-area": HTK mel, area 1. "slaney": Slaney mel, area 1. "kaldi": triangles drawn in
    mel space (mel = 1127 ln(1 + f / 700)), nothing at the Nyquist bin.
    """
    to_mel, to_hz = (_slaney_mel, _slaney_hz) if kind == "slaney" else (_htk_mel, _htk_hz)
    mels = np.linspace(to_mel(np.array(low)), to_mel(np.array(rate / 2)), bands + 2)
    at = np.linspace(0, rate / 2, n_fft // 2 + 1)[:, None]
    edges, at = (mels, _htk_mel(at)) if kind == "kaldi" else (to_hz(mels), at)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bank = np.maximum(0, np.minimum((at - left) / (centre - left), (right - at) / (right - centre)))
    if kind == "kaldi":
        bank[-1] = 0
    return bank * 2 / (right - left) if kind in ("slaney", "htk-area") else bank


def _htk_mel(hz: Array) -> Array:
    return 2595 * np.log10(1 + hz / 700)


def _htk_hz(mel: Array) -> Array:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney_mel(hz: Array) -> Array:  # linear below 1 kHz, logarithmic above
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def _slaney_hz(mel: Array) -> Array:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _centred(wave: Tensor, n_fft: int) -> Tensor:  # (..., N) -> (..., 1 + N // 160, n_fft), edges mirrored
    flat = wave.reshape(-1, wave.shape[-1])
    mirrored = pad(flat, (n_fft // 2, n_fft // 2), mode="reflect")
    return mirrored.unfold(-1, n_fft, HOP).reshape(*wave.shape[:-1], -1, n_fft)


@lru_cache(maxsize=8)
def _kaldi(window: str, device: torch.device) -> tuple[Tensor, Tensor]:
    shape = np.hanning(KALDI_FRAME) ** {"hanning": 1.0, "povey": 0.85}[window]
    return _float32(shape, device), _float32(mel_bank("kaldi", RATE, 512, 128, low=20), device)


@lru_cache(maxsize=8)
def _hann(size: int, device: torch.device) -> Tensor:
    return _float32(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size), device)  # periodic


@lru_cache(maxsize=8)
def _mel(kind: str, n_fft: int, bands: int, device: torch.device) -> Tensor:
    return _float32(mel_bank(kind, RATE, n_fft, bands, low=50 if kind == "slaney" else 0), device)


def _float32(values: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
