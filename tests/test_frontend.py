"""The networks' spectrograms against slow ones in float64, one frame and one triangle at a time."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nearfar.encoders import frontend  # noqa: E402
from nearfar.encoders.mel import mel_bank  # noqa: E402

RNG = np.random.default_rng(0)


def sound(seconds=0.5, rate=16_000, level=0.1):
    t = np.arange(round(seconds * rate)) / rate
    return (level * (np.sin(2 * np.pi * 700 * t) + RNG.normal(size=t.size) + 0.3)).astype(np.float32)


def triangle(at, left, centre, right):
    return max(0.0, min((at - left) / (centre - left), (right - at) / (right - centre)))


def power(frame, n_fft):
    return np.abs(np.fft.rfft(frame, n_fft)) ** 2


def hann(n):
    return np.array([0.5 - 0.5 * np.cos(2 * np.pi * i / n) for i in range(n)])


def kaldi(wave, exponent):
    def mel(hz):
        return 1127 * np.log(1 + hz / 700)

    edges = np.linspace(mel(20), mel(8000), 130)
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * i / 399) for i in range(400)]) ** exponent
    rows = []
    for start in range(0, len(wave) - 399, 160):
        x = wave[start : start + 400].astype(np.float64)
        x = x - x.mean()
        x = np.array([x[i] - 0.97 * x[max(0, i - 1)] for i in range(400)]) * window
        p = power(x, 512)
        bands = [
            sum(p[k] * triangle(mel(k * 31.25), *edges[b : b + 3]) for k in range(256)) for b in range(128)
        ]  # the Nyquist bin counts for nothing
        rows.append(np.log(np.maximum(bands, 1.1920929e-07)))
    return np.array(rows)


def centred(wave, n_fft):
    mirrored = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    return [mirrored[s : s + n_fft] * hann(n_fft) for s in range(0, len(wave) + 1, 160)]


def htk(hz):
    return 2595 * np.log10(1 + hz / 700)


def htk_hz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


def mel_db(wave):
    edges = [htk_hz(m) for m in np.linspace(0, htk(8000), 66)]
    rows = []
    for frame in centred(wave, 512):
        p = power(frame, 512)
        bands = [sum(p[k] * triangle(k * 31.25, *edges[b : b + 3]) for k in range(257)) for b in range(64)]
        rows.append(10 * np.log10(np.maximum(bands, 1e-10)))
    return np.maximum(rows, np.max(rows) - 120)


def slaney(hz):
    return hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) / (np.log(6.4) / 27)


def slaney_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def log_mel(wave):
    edges = [slaney_hz(m) for m in np.linspace(slaney(50.0), slaney(8000.0), 82)]
    rows = []
    for frame in centred(wave, 400):
        p = power(frame, 400)
        bands = [
            sum(p[k] * triangle(k * 40.0, *edges[b : b + 3]) for k in range(201)) * 2 / (edges[b + 2] - edges[b])
            for b in range(80)
        ]
        rows.append(np.log(np.array(bands) + np.finfo(np.float32).eps))
    return np.array(rows)


def window_db(window, bands):
    x = np.pad(window.astype(np.float64), 982)
    edges = [htk_hz(m) for m in np.linspace(0, htk(24_000), bands + 2)]
    rows = []
    for start in range(0, len(x) - 2047, 242):
        p = power(x[start : start + 2048] * hann(2048), 2048)
        energy = [
            sum(p[k] * triangle(k * 24_000 / 1024, *edges[b : b + 3]) for k in range(1025))
            * 2
            / (edges[b + 2] - edges[b])
            for b in range(0, bands, 16)
        ]
        rows.append(10 * np.log10(np.maximum(np.sqrt(energy), 1e-10)))
    return np.array(rows)


def ours(function, wave, *arguments):
    return function(torch.from_numpy(wave)[None], *arguments)[0].numpy()


@pytest.mark.parametrize(("window", "exponent"), [("hanning", 1.0), ("povey", 0.85)])
def test_kaldi_fbank(window, exponent):
    wave = sound(0.06)
    np.testing.assert_allclose(ours(frontend.kaldi_fbank, wave, window), kaldi(wave, exponent), atol=5e-4)


def test_mel_db():
    wave = sound(0.05)
    np.testing.assert_allclose(ours(frontend.mel_db, wave), mel_db(wave), atol=1e-3)


def test_log_mel():
    wave = sound(0.05)
    np.testing.assert_allclose(ours(frontend.log_mel, wave), log_mel(wave), atol=1e-4)


def test_window_db():
    wave = np.zeros(48_000, np.float32)
    wave[20_000:22_000] = sound(2000 / 48_000, 48_000)
    basis = torch.from_numpy(mel_bank("htk-area", 48_000, 2048, 128).astype(np.float32))
    found = ours(frontend.window_db, wave, basis)
    wanted = window_db(wave, 128)
    assert found.shape == (199, 128) and found.max() == 0 and found.min() == -80
    loud = found[:, ::16] > -70
    shift = (found[:, ::16] - wanted)[loud]  # the maximum of the window, over all bands
    assert loud.sum() > 50 and np.ptp(shift) < 1e-3


@pytest.mark.parametrize(("function", "frames"), [(frontend.mel_db, lambda n: 1 + n // 160)])
@pytest.mark.parametrize("samples", [4000, 16_000, 16_159, 16_160])
def test_frames_of_a_centred_front_end(function, frames, samples):
    wave = RNG.normal(size=samples).astype(np.float32)
    assert len(ours(function, wave)) == len(ours(frontend.log_mel, wave)) == frames(samples)
    assert len(ours(frontend.kaldi_fbank, wave, "povey")) == 1 + (samples - 400) // 160


def test_the_floor_of_a_quiet_clip_is_its_own():
    """Of a batch with a loud clip a floor below the batch's maximum would eat the quiet one."""
    loud, quiet = sound(level=0.9), sound(level=1e-5)
    quiet[:4000] = 0
    together = frontend.mel_db(torch.from_numpy(np.stack([loud, quiet])))[1].numpy()
    assert np.array_equal(together, ours(frontend.mel_db, quiet))


def test_a_factor_of_the_wave_is_a_shift_of_the_logarithm():
    wave = sound()
    for function, arguments, shift in (
        (frontend.kaldi_fbank, ("povey",), np.log(100)),
        (frontend.mel_db, (), 20),
    ):
        soft, loud = ours(function, wave, *arguments), ours(function, 10 * wave, *arguments)
        heard = soft > soft.min() + 1  # some triangles of Kaldi hold no bin at all
        assert heard.mean() > 0.9
        np.testing.assert_allclose(loud[heard], soft[heard] + shift, atol=2e-3)


def test_a_constant_is_silence_to_kaldi():
    assert np.array_equal(
        ours(frontend.kaldi_fbank, np.full(4000, 0.5, np.float32), "hanning"),
        ours(frontend.kaldi_fbank, np.zeros(4000, np.float32), "hanning"),
    )
