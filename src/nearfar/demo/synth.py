"""Synthetic machines in synthetic rooms: the signals of a near and a far microphone, healthy or with a fault.

    fan      blade passing at B f and harmonics + flow noise that swells with the blades; power grows as speed^4 to 5
             bearing: impacts at r f through a resonance, 1 % slip, loaded once a turn
             imbalance: a tone at f and 2 f, everything modulated at f, the mount rattling once a turn
    gearbox  mesh tones at k Z f with sidebands at +-f and +-f Z / Z2 (amplitude and phase modulated) + rolling noise
             tooth: one impact a turn of one shaft through a resonance, its sidebands grow; bearing: as above
    valve    two strokes a cycle: a click (impact through a resonance) and a puff of air, + supply hiss and coil hum
             leak: hiss that does not stop; sticking: strokes late, weak, or doubled

f is the shaft's (valve: the cycle's) frequency in Hz. Speed and load wander within a clip. Each machine stands in its
own `Room` with a ventilation, two noisy neighbours (one in each domain), clanks and voices; every source reaches both
microphones through that room. Levels are decibels relative to the machine's nominal level at the near microphone.
`render` is a pure function: the same `rng` gives the same clip, and with `fault` the same clip with that fault. Faults
are signatures from the textbook, not measurements.

Reference: Randall, Vibration-based Condition Monitoring (2011), chapters 2 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, signal

from nearfar.demo import waves
from nearfar.demo.room import Point, Room, furnish, spectrum
from nearfar.demo.waves import RATE, Curve
from nearfar.support.check import Array, number, one_of

FAULTS = {"fan": ("bearing", "imbalance"), "gearbox": ("tooth", "bearing"), "valve": ("leak", "sticking")}
KINDS = tuple(FAULTS)
SPEEDS = {"source": (0.94, 1.0, 1.06), "target": (0.97, 1.1)}  # relative to the nominal speed
LOADS = (0.8, 1.0, 1.25)
SENSOR_DB = -45.0
GAIN = {"fan": 1.0, "gearbox": 1.0, "valve": 3.5}  # RMS of the machine at near; a valve is loud in short moments
# Level of a fault at severity 0 and at 1, in dB relative to the machine; sticking changes the strokes instead.
FAULT_DB = {
    "bearing": (-22.0, 0.0),
    "imbalance": (-14.0, 6.0),
    "rattle": (-22.0, 0.0),
    "tooth": (-20.0, 2.0),
    "leak": (-19.0, 5.0),
}
# Background of each domain: (source of noise, mean level in dB, half range in dB).
BACKGROUND = {
    "source": (("ventilation", -14.0, 3.0), ("neighbour_a", 2.0, 6.0), ("clanks", -14.0, 5.0)),
    "target": (("ventilation", -12.0, 3.0), ("neighbour_b", 2.0, 6.0), ("voices", -14.0, 5.0)),
}
MOUNT_DB = (-30, -24, -16, -8, -2, 0, 0, -4, -10)  # spectrum of a rattling mount
RATTLE = 3.2  # 1 / RMS of max(cos, 0)^8
JET_DB = (-30, -24, -18, -12, -8, -4, -1, 0, 0)  # spectrum of air through a leak
PLACES = ("machine", "ventilation", "neighbour_a", "neighbour_b", "clanks", "voices")

Part = tuple[Array, Array]  # a wave (n,) and the spectral shape (n // 2 + 1,) that filters it


@dataclass(frozen=True)
class Machine:
    """One machine in its room: all that its clips share."""

    kind: str
    hz: float  # shaft or cycle frequency at nominal speed
    teeth: tuple[int, int]  # blades; teeth of both wheels
    harmonics: tuple[complex, ...]
    body_db: Curve
    noise_db: Curve
    resonance: tuple[float, float]  # Hz, decay time in s
    defect: float  # frequency of the bearing defect, relative to the shaft's
    neighbours: tuple[tuple[float, Curve], tuple[float, Curve]]  # hum in Hz, spectrum
    room: Room
    mics: tuple[Point, Point]  # near, far
    places: tuple[Point, ...]  # as PLACES
    seed: int  # of the diffuse tails of the room


def machine(kind: str, rng: np.random.Generator) -> Machine:
    """Draw a machine of `kind` ("fan", "gearbox" or "valve"), its room and its neighbours."""
    one_of("machine kind", kind, KINDS)
    low, high = {"fan": (20, 28), "gearbox": (17, 24), "valve": (1.1, 1.6)}[kind]
    pinion = int(rng.integers(17, 25))
    decline = 10 ** (-rng.uniform(2, 5) * np.arange(6) / 20)
    harmonics = decline * 10 ** (rng.normal(0, 3, 6) / 20) * np.exp(2j * np.pi * rng.random(6))
    harmonics /= np.sqrt((np.abs(harmonics) ** 2).sum() / 2)
    room, mics, places = furnish(rng, len(PLACES) - 1)
    return Machine(
        kind=kind,
        hz=float(rng.uniform(low, high)),
        teeth=(int(rng.integers(5, 10)), 0) if kind == "fan" else (pinion, pinion + int(rng.integers(5, 30))),
        harmonics=tuple(harmonics.tolist()),
        body_db=waves.draw_curve(rng, -1.0, 3.0),
        noise_db=waves.draw_curve(rng, {"fan": -4.0, "gearbox": -2.5, "valve": 0.0}[kind], 2.0),
        resonance=(float(rng.uniform(1800, 4500)), float(rng.uniform(1.5e-3, 4e-3))),
        defect=float(rng.uniform(3.1, 5.4)),
        neighbours=(
            (float(rng.uniform(40, 60)), waves.draw_curve(rng, -2.0, 3.0)),
            (float(rng.uniform(60, 95)), waves.draw_curve(rng, -3.0, 3.0)),
        ),
        room=room,
        mics=mics,
        places=places,
        seed=int(rng.integers(2**31)),
    )


def render(
    machine: Machine,
    rng: np.random.Generator,
    seconds: float,
    *,
    domain: str = "source",
    speed: float = 1.0,
    load: float = 1.0,
    fault: str | None = None,
    severity: float = 0.5,
) -> tuple[Array, Array]:
    """Near and far (N,) float32 at 16 kHz; the machine alone has an RMS of about GAIN[kind] at near.

    seconds       length, 0.5 to 600
    speed, load   relative to the nominal ones, 0.5 to 2
    fault         None or one of FAULTS[kind]
    severity      0 (hardly audible) to 1 (obvious)

    Raises ValueError for anything else.
    """
    number("seconds", seconds, low=0.5, high=600)
    number("severity", severity, low=0, high=1)
    for name, value in (("speed", speed), ("load", load)):
        number(name, value, low=0.5, high=2)
    one_of("domain", domain, BACKGROUND)
    if fault is not None:
        one_of(f"fault of a {machine.kind}", fault, FAULTS[machine.kind])
    samples = round(seconds * RATE)
    # The FFTs convolve circularly: a lead as long as the reverberation and a short tail take what wraps around.
    lead, tail = int(max(machine.room.t60_low, machine.room.t60_high) * RATE), 512
    n = fft.next_fast_len(lead + samples + tail, real=True)
    paths = _paths(machine, n)  # {place: (2, bins)}
    spectra = np.zeros((2, n // 2 + 1), np.complex64)  # near, far
    own, background, broken = rng.spawn(3)  # so that a fault does not change the other draws
    parts = SOUNDS[machine.kind](machine, Run(n, machine.hz * speed, load, fault, severity), own, broken)
    spectra += total_spectrum(parts) * (
        paths["machine"] * np.float32(GAIN[machine.kind] * speed ** (2 if machine.kind == "fan" else 1))
    )
    for source, level, spread in BACKGROUND[domain]:
        db = level + background.uniform(-spread, spread)
        spectra += total_spectrum(_noise(machine, source, background, n)) * (
            paths[source] * np.float32(10 ** (db / 20))
        )
    pair = fft.irfft(spectra, n)[:, lead : lead + samples]
    pair += np.float32(10 ** (SENSOR_DB / 20)) * background.standard_normal(pair.shape, np.float32)
    return pair[0], pair[1]


@dataclass(frozen=True)
class Run:
    """What is rendered: samples, frequency of the shaft or cycle in Hz, load, fault and severity."""

    n: int
    hz: float
    load: float
    fault: str | None
    severity: float


def _fan(m: Machine, run: Run, rng: np.random.Generator, broken: np.random.Generator) -> list[Part]:
    n, hz, load, fault, severity = run.n, run.hz, run.load, run.fault, run.severity
    turns = waves.turning(rng, n, hz, 0.004)
    push = load * waves.wander(rng, n, 0.05)
    blades = waves.harmonics(turns, m.teeth[0], m.harmonics)
    flow = waves.white(rng, n) * (1 + 0.3 * waves.harmonics(turns, m.teeth[0], (1,)))
    swell: Array | float = 1.0
    extra: list[Part] = []
    if fault == "imbalance":
        swell = 1 + np.float32(0.4 * severity) * waves.harmonics(turns, 1, (1,))
        one = _level("imbalance", severity) * waves.harmonics(turns, 1, (np.sqrt(2), 0.3))
        beat = np.maximum(waves.harmonics(turns, 1, (1,)), 0) ** 8  # the mount rattles when the force is largest
        rattle = _level("rattle", severity) * np.float32(RATTLE) * waves.white(broken, n) * beat
        extra = [(one, np.ones(n // 2 + 1, np.float32)), (rattle, waves.shape(MOUNT_DB, n))]
    elif fault == "bearing":
        extra = [bearing(m, broken, turns, severity)]
    body, noise = waves.shape(m.body_db, n), waves.shape(m.noise_db, n)
    return [(0.6 * push * blades * swell, body), (0.8 * np.sqrt(push) * flow * swell, noise), *extra]


def _gearbox(m: Machine, run: Run, rng: np.random.Generator, broken: np.random.Generator) -> list[Part]:
    n, hz, load, fault, severity = run.n, run.hz, run.load, run.fault, run.severity
    turns = waves.turning(rng, n, hz, 0.003)
    push = load * waves.wander(rng, n, 0.08)
    other = turns * (m.teeth[0] / m.teeth[1])
    depth, extra = [0.15, 0.1], []
    if fault == "tooth":
        shaft = int(broken.integers(2))
        depth[shaft] += 0.5 * severity
        times = waves.crossings((turns, other)[shaft] + broken.random(), 1.0, 0.0, broken)
        extra = [impacts(n, times, broken.normal(1, 0.15, len(times)), m.resonance, _level("tooth", severity))]
    elif fault == "bearing":
        extra = [bearing(m, broken, turns, severity)]
    one, two = waves.harmonics(turns, 1, (1,)), waves.harmonics(other, 1, (1,))
    mesh = waves.harmonics(turns + (0.1 * depth[0] * one + 0.1 * depth[1] * two) / m.teeth[0], m.teeth[0], m.harmonics)
    mesh *= 1 + depth[0] * one + depth[1] * two
    body, noise = waves.shape(m.body_db, n), waves.shape(m.noise_db, n)
    return [(0.8 * push * mesh, body), (0.6 * np.sqrt(push) * waves.white(rng, n), noise), *extra]


def _valve(m: Machine, run: Run, rng: np.random.Generator, broken: np.random.Generator) -> list[Part]:
    n, hz, load, fault, severity = run.n, run.hz, run.load, run.fault, run.severity
    cycles = waves.turning(rng, n, hz, 0.01)
    opening, closing = (waves.crossings(cycles + shift, 1.0, 0.0, rng) for shift in (0.0, 0.6))
    times = np.r_[opening, closing] + rng.normal(0, 0.002 * RATE, len(opening) + len(closing))
    force = np.r_[np.ones(len(opening)), np.full(len(closing), 0.7)] * load
    force *= 10 ** (rng.normal(0, 1.0, len(force)) / 20)
    hiss, puff = waves.white(rng, n), waves.white(rng, n)
    extra: list[Part] = []
    if fault == "leak":
        extra = [(_level("leak", severity) * waves.white(broken, n), waves.shape(JET_DB, n))]
    elif fault == "sticking":
        times, force = _stick(times, force, severity, broken)
    typical = np.sqrt(1.5 * hz / RATE)  # strokes of force 1 and 0.7 have an RMS of 1
    click = waves.impulses(n, times, force / typical)
    decay = np.exp(-1 / (0.04 * RATE))
    air = signal.lfilter([np.sqrt(1 - decay**2)], [1, -decay], click).astype(np.float32)
    hum = waves.harmonics(waves.turning(rng, n, 50, 0.0005), 2, (0.8, 0.4, 0.3))
    noise, ring = waves.shape(m.noise_db, n), waves.resonance(m.resonance, n)
    return [
        (0.8 * click, ring),
        (0.6 * air * puff, noise),
        (0.25 * hiss, noise),
        (0.15 * hum, waves.shape(m.body_db, n)),
        *extra,
    ]


SOUNDS = {"fan": _fan, "gearbox": _gearbox, "valve": _valve}


def bearing(m: Machine, rng: np.random.Generator, turns: Array, severity: float) -> Part:
    """Impacts of a damaged bearing: a few a turn, stronger in the load zone."""
    times = waves.crossings(turns, m.defect, 0.01, rng)
    position = np.interp(times, np.arange(len(turns)), turns)
    strength = (1 + 0.5 * np.cos(2 * np.pi * position)) * rng.lognormal(0, 0.2, len(times))  # through the load zone
    return impacts(len(turns), times, strength, m.resonance, _level("bearing", severity))


def _stick(times: Array, force: Array, severity: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Strokes of a sticking valve: some are weaker and up to 0.2 s late; a second one follows some of these."""
    stuck = rng.random(len(times)) < 0.4 + 0.6 * severity
    late = times + stuck * rng.uniform(0.02, 0.2, len(times)) * severity * RATE
    weak = force * np.where(stuck, 1 - severity * rng.uniform(0.5, 1, len(force)), 1)
    twice = stuck & (rng.random(len(times)) < 0.5 * severity)
    second = late[twice] + rng.uniform(0.03, 0.1, int(twice.sum())) * RATE
    return np.r_[late, second], np.r_[weak, 0.8 * weak[twice]]


def _noise(m: Machine, source: str, rng: np.random.Generator, n: int) -> list[Part]:
    """The parts of one source of background noise; their sum has an RMS of about 1."""
    if source == "ventilation":
        return [(waves.white(rng, n), waves.shape((0, -1, -4, -8, -12, -17, -22, -28, -34), n))]
    if source == "voices":  # speech-shaped noise with the rhythm of syllables
        rhythm = np.abs(waves.wander(rng, n, 1.2, hz=8.0) * waves.wander(rng, n, 0.8, hz=1.0))
        return [(waves.white(rng, n) * rhythm / 1.9, waves.shape((-30, -20, -6, 0, 0, -6, -11, -17, -24), n))]
    if source == "clanks":
        count = rng.poisson(0.5 * n / RATE)
        wave = waves.impulses(n, rng.uniform(0, n, count), rng.lognormal(0, 0.6, count) * np.sqrt(2 * RATE))
        return [(wave, waves.resonance((float(rng.uniform(600, 4000)), float(rng.uniform(0.01, 0.05))), n))]
    hz, curve = m.neighbours[("neighbour_a", "neighbour_b").index(source)]
    hum = waves.harmonics(waves.turning(rng, n, hz * rng.uniform(0.9, 1.1), 0.004), 1, 0.6 ** np.arange(8) * (1 + 0j))
    tilted = np.asarray(curve) + rng.normal(0, 1.5, len(curve))
    rumble = waves.white(rng, n) * waves.wander(rng, n, 0.2)
    return [(0.5 * hum, waves.shape((0,) * 9, n)), (0.85 * rumble, waves.shape(tuple(tilted.tolist()), n))]


def total_spectrum(parts: list[Part]) -> Array:
    """The sum (bins,) complex64 of the parts, each filtered by its shape."""
    total = fft.rfft(parts[0][0].astype(np.float32, copy=False)) * parts[0][1]
    for wave, shape in parts[1:]:
        total += fft.rfft(wave.astype(np.float32, copy=False)) * shape
    return np.asarray(total)


def _level(fault: str, severity: float) -> np.float32:
    low, high = FAULT_DB[fault]
    return np.float32(10 ** ((low + (high - low) * severity) / 20))


def impacts(n: int, times: Array, strengths: Array, resonance: tuple[float, float], level: np.float32) -> Part:
    """Impulses at `times` through a resonance, scaled to the RMS `level`."""
    power = max(float((strengths**2).sum()) / n, 1e-12)
    return waves.impulses(n, times, strengths / np.sqrt(power)) * level, waves.resonance(resonance, n)


@lru_cache(maxsize=2)
def _paths(m: Machine, n: int) -> dict[str, Array]:
    """Transfer functions (2, bins) from every place to near and far, with a mean square of 1 at near."""
    paths = {}
    for i, (source, place) in enumerate(zip(PLACES, m.places, strict=True)):
        both = np.stack(
            [
                spectrum(m.room, place, mic, np.random.default_rng([m.seed, i, j]), rate=RATE, n=n)
                for j, mic in enumerate(m.mics)
            ]
        )
        paths[source] = both / np.sqrt((np.abs(both[0]) ** 2).mean())
    return paths
