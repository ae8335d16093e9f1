"""Machines recorded in sessions: normals from some days, test clips from other days with other noise.

    machine    one of KINDS: its orders, resonances and spectra, and the size and reverberation of its room
    session    one day: both microphones are put up again, the machine's body, speed and load are a little different,
               the recorder has another gain, and all noise sources, their places, and the diffuse tails are new
    recording  RECORDING_S at one operating point with noise levels of its own, cut into clips of CLIP_S
    pair       "room": far stands in the room as `demo.room.furnish` puts it; "head": HEAD_M beside near

Fan, gearbox and valve are those of `demo.synth`. Two more:

    pump       tones of shaft and vanes, flow noise; cavitation: bubbles collapse at random in the rhythm of the vanes
    clock      ticks and tocks over a faint hum; missing: one beat of every clip is not there

Fan, gearbox and pump also have "knock": one to three impacts a clip at random times. `GROUPS` tells steady faults,
knocks and disturbed rhythms apart. Levels are decibels relative to the machine at near. All of it is textbook physics,
not measured; it says how systems differ under changed sessions, not what they reach on a real machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import fft

from nearfar.audio import Clip
from nearfar.demo import synth, waves
from nearfar.demo.room import Point, spectrum
from nearfar.demo.synth import Machine, Part, Run
from nearfar.demo.waves import RATE
from nearfar.support.check import Array

CLIP_S, CLIPS = 4.0, 3
RECORDING_S = CLIP_S * CLIPS
HEAD_M = 0.17
SAMPLES = round(CLIP_S * RATE)
LEAD, TAIL = int(0.75 * RATE), 512  # samples that take what the circular convolutions wrap around
LENGTH = fft.next_fast_len(LEAD + CLIPS * SAMPLES + TAIL, real=True)
SENSOR_DB, LEVEL_DB = -45.0, -38.0
VERSION = 1  # of the cache: raise it when a sound changes

FAULTS = {
    "fan": ("imbalance", "bearing", "knock"),
    "gearbox": ("tooth", "bearing", "knock"),
    "valve": ("leak", "sticking"),
    "pump": ("cavitation", "bearing", "knock"),
    "clock": ("missing",),
}
KINDS = tuple(FAULTS)
GROUPS = {
    "steady": ("imbalance", "bearing", "tooth", "leak", "cavitation"),
    "knocks": ("knock",),
    "rhythm": ("sticking", "missing"),
}
BASE = {"pump": "fan", "clock": "valve"}  # the kinds of `demo.synth` that lend their rooms, spectra and orders
MOST_SEVERE = {"sticking": 0.5}  # severities are drawn from 0 to this or to SEVERE
SEVERE = 0.8
KNOCK_DB = (-10.0, 8.0)  # energy of a knock relative to 50 ms of the machine, at severity 0 and 1
CAVITATION_DB = (-20.0, 2.0)
STEADY_NOISES, OTHER_NOISES = ("ventilation", "machine", "machine"), ("speech", "hammer", "traffic")
NOISE_DB = {  # mean and spread over sessions; recordings differ by RECORDING_DB more
    "ventilation": (-14.0, 3.0),
    "machine": (-7.0, 4.0),
    "speech": (-13.0, 4.0),
    "hammer": (-15.0, 4.0),
    "traffic": (-9.0, 4.0),
}
RECORDING_DB, ABSENT = 3.0, 0.3  # share of recordings without a given noise; the ventilation always runs
BODY_DB, MOVED_M = 0.25, (0.005, 0.05)  # spread over sessions: of the machine's spectra, of the places of near and far


@dataclass(frozen=True)
class Row:
    """What is known of a clip: its split, session and recording, and its fault ("": none) with its severity."""

    split: str
    session: int
    recording: int
    fault: str
    severity: float


@dataclass(frozen=True)
class Noise:
    """A noise source of a session: its kind, level in dB, spectrum, and the frequency of its hum or voice in Hz."""

    kind: str
    db: float
    curve: waves.Curve
    hz: float


@dataclass(frozen=True)
class Session:
    """One day: the machine as it is, its usual speed and load, noise, the recorder's gain in dB, and all paths."""

    machine: Machine
    speed: float
    load: float
    noises: tuple[Noise, ...]
    gain: float
    paths: tuple[Array, ...]  # (2, bins): from the machine, then from each noise, to near and far


def rendered(kind: str, pair: str, seed: int, sessions: Sequence[int], tests: int) -> tuple[list[Row], list[Clip]]:
    """Clips of one machine: sessions[i] normals of session i, then `tests` sessions of test clips.

    A test session has four recordings of normals and two of each fault. The clips are kept in a folder for temporary
    files; their names do not tell what they are.
    """
    folder = Path(tempfile.gettempdir()) / "nearfar-sessions"
    folder.mkdir(exist_ok=True)
    path = folder / f"{VERSION}-{kind}-{pair}-{seed}-{'-'.join(map(str, sessions))}-{tests}.npy"
    rows = [row for row in plan(kind, seed, sessions, tests) for _ in range(CLIPS)]
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file:
            np.save(file, np.concatenate(list(recordings(kind, pair, seed, sessions, tests))))
        part.replace(path)
    samples = np.load(path, mmap_mode="r").reshape(len(rows), SAMPLES, 2)
    clips = []
    for i, wave in enumerate(samples):
        near, far = (wave[:, c].astype(np.float32) / 32768 for c in (0, 1))
        clips.append(Clip(near, far, RATE, f"clip {i:04d}"))
    return rows, clips


def plan(kind: str, seed: int, sessions: Sequence[int], tests: int) -> list[Row]:
    """One row a recording, in the order in which they are rendered."""
    rng = np.random.default_rng([seed, KINDS.index(kind), 1])
    rows = [Row("train", s, i, "", 0.0) for s, count in enumerate(sessions) for i in range(-(-count // CLIPS))]
    for s in range(len(sessions), len(sessions) + tests):
        for i, fault in enumerate([""] * 4 + 2 * list(FAULTS[kind])):
            severity = rng.uniform(0, MOST_SEVERE.get(fault, SEVERE)) if fault else 0.0
            rows.append(Row("test", s, i, fault, float(severity)))
    return rows


def recordings(kind: str, pair: str, seed: int, sessions: Sequence[int], tests: int) -> Iterator[Array]:
    """Recordings (CLIPS * SAMPLES, 2) int16, one for each row of the plan."""
    number, day = -1, None
    subject = machine(kind, seed)
    for row in plan(kind, seed, sessions, tests):
        if day is None or row.session != number:
            number = row.session
            day = session(subject, pair, np.random.default_rng([seed, KINDS.index(kind), 2, number]))
        yield record(day, row, np.random.default_rng([seed, KINDS.index(kind), 3, number, row.recording]))


def machine(kind: str, seed: int) -> Machine:
    """The machine of this kind and seed in its room."""
    rng = np.random.default_rng([seed, KINDS.index(kind), 0])
    drawn = synth.machine(BASE.get(kind, kind), rng)
    return replace(drawn, kind=kind, hz=float(rng.uniform(1.6, 3.0)) if kind == "clock" else drawn.hz)


def session(m: Machine, pair: str, rng: np.random.Generator) -> Session:
    """One day of a machine: what differs from other days is drawn here."""
    near = _moved(m.mics[0], MOVED_M[0], rng)
    if pair == "head":
        angle = rng.uniform(0, 2 * np.pi)
        far = (near[0] + HEAD_M * float(np.cos(angle)), near[1] + HEAD_M * float(np.sin(angle)), near[2])
    else:
        far = _moved(m.mics[1], MOVED_M[1], rng)

    def nearly(curve: waves.Curve) -> waves.Curve:
        return tuple((np.asarray(curve) + rng.normal(0, BODY_DB, len(curve))).tolist())

    today = replace(
        m,
        hz=m.hz * float(rng.uniform(0.99, 1.01)),
        harmonics=tuple(a * 10 ** (rng.normal(0, BODY_DB) / 20) for a in m.harmonics),
        body_db=nearly(m.body_db),
        noise_db=nearly(m.noise_db),
    )
    noises = []
    for kind in (*STEADY_NOISES, str(rng.choice(OTHER_NOISES))):
        slope, hz = rng.uniform(-5, -1), rng.uniform(40, 130)
        level = float(rng.normal(*NOISE_DB[kind]))
        noises.append(Noise(kind, level, waves.draw_curve(rng, slope, 3.0), float(hz)))
    places = [m.places[0], *(_free(m, rng) for _ in noises)]
    paths = []
    for place in places:
        both = np.stack([spectrum(m.room, place, mic, rng, rate=RATE, n=LENGTH) for mic in (near, far)])
        paths.append(both / np.sqrt((np.abs(both[0]) ** 2).mean()))
    speed, load, gain = (rng.uniform(0.98, 1.02), rng.uniform(0.9, 1.1), rng.normal(LEVEL_DB, 3))
    return Session(today, float(speed), float(load), tuple(noises), float(gain), tuple(paths))


def record(day: Session, row: Row, rng: np.random.Generator) -> Array:
    """One recording (CLIPS * SAMPLES, 2) int16: column 0 near, column 1 far."""
    m, kind = day.machine, day.machine.kind
    own, background, broken = rng.spawn(3)  # so that a fault does not change the other draws
    speed, load = day.speed * own.uniform(0.96, 1.04), day.load * own.uniform(0.85, 1.15)
    fault = row.fault or None
    at_synth = fault if fault in synth.FAULTS.get(kind, ()) else None
    run = Run(LENGTH, m.hz * speed, load, at_synth, row.severity)
    if kind == "pump":
        parts = _pump(m, run, fault, row.severity, own, broken)
    elif kind == "clock":
        parts = _clock(m, run, fault, own, broken)
    else:
        parts = synth.SOUNDS[kind](m, run, own, broken)
    if fault == "knock":
        parts = [*parts, _knocks(m, row.severity, broken)]
    spectra = synth.total_spectrum(parts) * (day.paths[0] * np.float32(synth.GAIN.get(BASE.get(kind, kind), 1.0)))
    for noise, path in zip(day.noises, day.paths[1:], strict=True):
        db = noise.db + background.normal(0, RECORDING_DB)
        if noise.kind == "ventilation" or background.random() >= ABSENT:
            spectra += synth.total_spectrum([_noise(noise, background)]) * (path * np.float32(10 ** (db / 20)))
    both = fft.irfft(spectra, LENGTH)[:, LEAD : LEAD + CLIPS * SAMPLES]
    both += np.float32(10 ** (SENSOR_DB / 20)) * background.standard_normal(both.shape, np.float32)
    both *= np.float32(10 ** (day.gain / 20))
    both *= min(1, 0.99 / float(np.abs(both).max()))
    return np.round(both.T * 32767).astype(np.int16)


def _moved(place: Point, spread: float, rng: np.random.Generator) -> Point:
    x, y, z = (float(p + rng.normal(0, spread)) for p in place)
    return x, y, max(z, 0.2)


def _free(m: Machine, rng: np.random.Generator) -> Point:
    """A place in the room at least 1.5 m from the microphones and the machine."""
    candidates = rng.uniform(0.4, np.array(m.room.size) - 0.4, (1000, 3))
    taken = np.array([*m.mics, m.places[0]])
    gap = np.linalg.norm(candidates[:, None] - taken, axis=2).min(axis=1)
    x, y, z = candidates[int(np.argmax(gap > 1.5))]
    return float(x), float(y), float(z)


def _pump(
    m: Machine, run: Run, fault: str | None, severity: float, rng: np.random.Generator, broken: np.random.Generator
) -> list[Part]:
    turns = waves.turning(rng, run.n, run.hz, 0.003)
    push = run.load * waves.wander(rng, run.n, 0.06)
    vanes = waves.harmonics(turns, m.teeth[0], m.harmonics)
    swell = 1 + 0.4 * waves.harmonics(turns, m.teeth[0], (1,))
    body, noise = waves.shape(m.body_db, run.n), waves.shape(m.noise_db, run.n)
    parts = [
        (0.6 * push * vanes, body),
        (0.3 * waves.harmonics(turns, 1, (1, 0.5)), body),
        (0.7 * np.sqrt(push) * swell * waves.white(rng, run.n), noise),
    ]
    if fault == "bearing":
        parts.append(synth.bearing(m, broken, turns, severity))
    elif fault == "cavitation":
        chance = np.maximum(waves.harmonics(turns + broken.random(), m.teeth[0], (1,)), 0)
        count = int(broken.poisson(400 * run.n / RATE))
        times = broken.uniform(0, run.n - 1, 4 * count)
        times = times[broken.random(len(times)) < chance[times.astype(int)]]
        level = _between(CAVITATION_DB, severity)
        parts.append(synth.impacts(run.n, times, broken.lognormal(0, 0.8, len(times)), (5200.0, 4e-4), level))
    return parts


def _clock(
    m: Machine, run: Run, fault: str | None, rng: np.random.Generator, broken: np.random.Generator
) -> list[Part]:
    turns = waves.turning(rng, run.n, run.hz, 0.001)  # two beats a turn
    times = waves.crossings(turns, 2.0, 0.0, rng) + rng.normal(0, 2e-4 * RATE)
    force = np.where(np.arange(len(times)) % 2, 1.0, 0.8) * 10 ** (rng.normal(0, 0.5, len(times)) / 20)
    if fault == "missing":
        for k in range(CLIPS):
            first = LEAD + k * SAMPLES
            inside = np.flatnonzero((times > first + SAMPLES / 6) & (times < first + SAMPLES * 5 / 6))
            force[broken.choice(inside)] = 0.0
    hum = waves.harmonics(waves.turning(rng, run.n, 50, 0.0005), 2, (0.8, 0.4, 0.3))
    return [
        synth.impacts(run.n, times, force, m.resonance, np.float32(0.9)),
        synth.impacts(run.n, times + 0.004 * RATE, 0.5 * force, (m.resonance[0] / 4, 0.01), np.float32(0.3)),
        (0.2 * hum, waves.shape(m.body_db, run.n)),
    ]


def _knocks(m: Machine, severity: float, rng: np.random.Generator) -> Part:
    """One to three impacts in every clip, through a resonance of the machine's body."""
    times, strengths = [], []
    for k in range(CLIPS):
        count = int(rng.integers(1, 4))
        first = LEAD + k * SAMPLES
        times.append(rng.uniform(first + 0.3 * RATE, first + SAMPLES - 0.3 * RATE, count))
        strengths.append(10 ** (rng.normal(0, 2, count) / 20))
    mode = m.resonance[0] / 3, 0.012
    energy = 0.05 * RATE * 10 ** ((KNOCK_DB[0] + (KNOCK_DB[1] - KNOCK_DB[0]) * severity) / 10)
    wave = waves.impulses(LENGTH, np.concatenate(times), np.concatenate(strengths) * np.sqrt(energy))
    return wave, waves.resonance(mode, LENGTH)


def _noise(noise: Noise, rng: np.random.Generator) -> Part:
    """A noise source; its wave has an RMS of about 1."""
    n, shape = LENGTH, waves.shape(noise.curve, LENGTH)
    white = waves.white(rng, n)
    if noise.kind == "machine":
        turns = waves.turning(rng, n, noise.hz * rng.uniform(0.99, 1.01), 0.003)
        hum = waves.harmonics(turns, 1, 0.75 ** np.arange(12) * (1 + 0j))
        return (0.45 * hum + 0.8 * white * waves.wander(rng, n, 0.1)) / np.float32(1.1), shape
    if noise.kind == "speech":  # phrases and pauses, syllables, voiced and unvoiced
        phrases = np.clip(waves.wander(rng, n, 1.5, hz=0.7), 0, 1)
        syllables = np.abs(waves.wander(rng, n, 1.2, hz=8.0))
        voice = waves.harmonics(waves.turning(rng, n, noise.hz + 60, 0.08), 1, 0.85 ** np.arange(24) * (1 + 0j))
        voiced = np.clip(waves.wander(rng, n, 1.0, hz=5.0), 0, 1)
        wave = phrases * syllables * (0.6 * voiced * voice + 0.7 * (1 - voiced) * white)
        return wave / max(float(np.sqrt(np.mean(wave**2))), 0.1), waves.shape((-30, -20, -6, 0, 0, -4, -9, -15, -22), n)
    if noise.kind == "hammer":
        count = int(rng.poisson(0.8 * n / RATE))
        wave = waves.impulses(n, rng.uniform(0, n, count), rng.lognormal(0, 0.7, count) * np.sqrt(RATE / 1.3))
        return wave, waves.resonance((12 * noise.hz, 0.02), n)
    if noise.kind == "traffic":
        passing = np.clip(waves.wander(rng, n, 0.8, hz=0.4), 0.1, 3)
        return white * passing / np.float32(1.2), waves.shape((0, 0, -3, -8, -12, -16, -20, -26, -34), n)
    return white, shape


def _between(db: tuple[float, float], severity: float) -> np.float32:
    return np.float32(10 ** ((db[0] + (db[1] - db[0]) * severity) / 20))
