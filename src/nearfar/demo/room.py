"""A rectangular room: impulse responses from points to points by the image-source method (Allen and Berkley 1979).

    h(t) = sum over images of  beta^reflections / d * delta(t - d / c)        up to EARLY_S
    beta = exp(-0.161 V / (2 S T60))                                          Eyring: all six walls alike
    after EARLY_S: Gaussian noise, independent for every pair of points, decaying by 60 dB in T60

Two bands, each with its own T60, meet at CROSSOVER_HZ. Metres, seconds, Hz. Fractional delays are windowed sincs.
Not modelled: furniture, directivity, scattering before EARLY_S.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearfar.support.check import Array

SPEED_OF_SOUND = 343.0  # m/s
EARLY_S = 0.06
CROSSOVER_HZ = 1000.0
LOWEST_HZ = 15.0  # corner frequency of the microphones' high-pass
TAPS = 32

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Room:
    """Length, width and height in metres; T60 in seconds below and above CROSSOVER_HZ."""

    size: Point
    t60_low: float
    t60_high: float


def spectrum(room: Room, source: Point, mic: Point, rng: np.random.Generator, *, rate: int, n: int) -> Array:
    """Transfer function (n // 2 + 1,) complex64 from `source` to `mic` on the grid of an n-point FFT at `rate` Hz.

    The response is cut after the longer T60 or n samples; `rng` draws the diffuse tail.
    """
    distance, reflections = _images(room, source, mic, EARLY_S * SPEED_OF_SOUND)
    length = min(n, int(max(room.t60_low, room.t60_high) * rate))
    noise = rng.standard_normal(length)  # one tail for both bands
    hz = np.fft.rfftfreq(n, 1 / rate)
    low = 1 / (1 + (hz / CROSSOVER_HZ) ** 2)
    total = np.zeros(len(hz), np.complex128)
    for t60, band in ((room.t60_low, low), (room.t60_high, 1 - low)):
        gain = reflection(room, t60) ** reflections / distance
        h = _pulses(distance / SPEED_OF_SOUND * rate, gain, length)
        start = min(length, int(EARLY_S * rate))
        recent = gain[distance > 2 / 3 * EARLY_S * SPEED_OF_SOUND]  # the last third gives the tail's power
        power = (recent**2).sum() / (EARLY_S / 3 * rate)
        since = np.arange(start, length) / rate - EARLY_S * 5 / 6
        h[start:] = np.sqrt(power) * 10 ** (-3 * since / t60) * noise[start:]
        total += band * np.fft.rfft(h, n)
    return np.asarray(total * (hz / np.hypot(hz, LOWEST_HZ)) ** 2, np.complex64)


def furnish(rng: np.random.Generator, noises: int) -> tuple[Room, tuple[Point, Point], tuple[Point, ...]]:
    """Draw a room, the microphones (near, far), and the places of the machine and of `noises` other sources.

    near is 0.5 to 0.8 m from the machine and far 2.5 to 4 m; all other distances are at least 1.5 m.
    """
    size = np.array([rng.uniform(8, 14), rng.uniform(7, 10), rng.uniform(3.5, 6)])
    t60 = float(rng.uniform(0.35, 0.7))
    room = Room(tuple(size.tolist()), t60, max(0.3, float(rng.uniform(0.6, 0.9)) * t60))
    spot = np.array([*rng.uniform(1.5, size[:2] - 1.5), 1.0])
    angle, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.8)
    towards = np.array([np.cos(angle) * np.cos(rise), np.sin(angle) * np.cos(rise), np.sin(rise)])
    taken = [spot, spot + rng.uniform(0.5, 0.8) * towards]

    def free(least: float, most: float) -> Array:
        candidates = rng.uniform(0.4, size - 0.4, (1000, 3))
        gap = np.linalg.norm(candidates[:, None] - np.array(taken), axis=2)
        return np.asarray(candidates[np.argmax((gap.min(axis=1) > least) & (gap[:, 0] < most))])

    taken.append(free(2.5, 4.0))
    others = [free(1.5, np.inf) for _ in range(noises)]
    points: list[Point] = [(float(x), float(y), float(z)) for x, y, z in (spot, *others)]
    near, far = (tuple(p.tolist()) for p in taken[1:])
    return room, (near, far), tuple(points)


def reflection(room: Room, t60: float) -> float:
    """Reflection factor beta of the walls that gives `t60` seconds (Eyring)."""
    x, y, z = room.size
    return float(np.exp(-0.161 * x * y * z / (4 * (x * y + y * z + z * x) * t60)))


def _images(room: Room, source: Point, mic: Point, reach: float) -> tuple[Array, Array]:
    """Distances (I,) and numbers of reflections (I,) of the images of `source` within `reach` metres of `mic`."""
    offsets, counts = [], []
    for size, s, m in zip(room.size, source, mic, strict=True):
        k = np.arange(-int(reach / (2 * size)) - 1, int(reach / (2 * size)) + 2)
        offsets.append(np.r_[2 * k * size + s, 2 * k * size - s] - m)
        counts.append(np.r_[2 * np.abs(k), np.abs(2 * k - 1)])
    dx, dy, dz = np.meshgrid(*offsets, indexing="ij")
    nx, ny, nz = np.meshgrid(*counts, indexing="ij")
    distance, reflections = np.sqrt(dx**2 + dy**2 + dz**2), nx + ny + nz
    near = distance < reach
    return distance[near], reflections[near]


def _pulses(delays: Array, gains: Array, length: int) -> Array:
    """Pulses of `gains` (I,) at fractional `delays` (I,) in samples -> (length,); Hann-windowed sinc, TAPS long."""
    first = np.ceil(delays).astype(int) - TAPS // 2
    at = first[:, None] + np.arange(TAPS)  # (I, TAPS)
    x = at - delays[:, None]
    taps = gains[:, None] * np.sinc(x) * np.cos(np.pi * x / (TAPS + 2)) ** 2
    inside = (at >= 0) & (at < length)
    wave: Array = np.bincount(at[inside], taps[inside], length)[:length]
    return wave
