"""Small machines to test with: a hum with noise, heard by two microphones, and what goes wrong with it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings

from fake_encoders import write_ced_tiny
from nearfar.audio import Clip

os.umask(0o022)  # tests of modes of files count on it
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may pause
settings.load_profile("patient")
SHARED = Path(__file__).resolve().parents[2] / "shared"
RATE = 16_000


def shared(*parts: str) -> Path:
    """A path below the folder of shared recordings; the test is skipped where there is none."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the recordings {'/'.join(parts)} are not on this machine")
    return path


def hum(seed: int, *, fault: str = "", seconds: float = 2.0, far: bool = True, level: float = 0.1) -> Clip:
    """A humming machine at near, room noise at both microphones; fault "hiss" (steady) or "knock" (transient)."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    pitch = 100 * (1 + 0.02 * rng.normal())
    machine = sum(np.sin(2 * np.pi * k * pitch * t + rng.uniform(0, 6)) / k for k in range(1, 12))
    machine = machine + 0.2 * rng.normal(size=n)
    if fault == "hiss":
        spectrum = np.fft.rfft(rng.normal(size=n))
        f = np.fft.rfftfreq(n, 1 / RATE)
        machine = machine + 1.5 * np.fft.irfft(spectrum * ((f > 3000) & (f < 5000)), n)
    if fault == "knock":
        for start in rng.uniform(0.1, seconds - 0.2, 2):
            after = np.maximum(t - start, 0)
            machine = machine + 3 * (t > start) * np.exp(-after * 60) * np.sin(2 * np.pi * 2200 * after)
    room = rng.normal(size=n)
    near = level * (machine + 0.3 * room) + 1e-3 * rng.normal(size=n)
    heard_far = level * (0.1 * machine + room) + 1e-3 * rng.normal(size=n)
    return Clip(near * 0.2, heard_far * 0.2 if far else None, RATE, f"{fault or 'normal'}_{seed}.wav")


def write_wav(path: Path, clip: Clip, subtype: str = "PCM_16") -> Path:
    """The clip as a WAV file, which is there whole or not at all: a folder may be watched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = [clip.near] if clip.far is None else [clip.near, clip.far]
    draft = path.with_name(f".{path.name}")
    soundfile.write(draft, np.stack(channels, axis=1), clip.rate, subtype=subtype)
    return draft.replace(path)


@pytest.fixture(scope="session")
def normals() -> list[Clip]:
    return [hum(i) for i in range(30)]


@pytest.fixture(scope="session")
def fresh() -> list[Clip]:
    return [hum(1000 + i) for i in range(10)]


@pytest.fixture(scope="session")
def normals_folder(tmp_path_factory: pytest.TempPathFactory, normals: list[Clip]) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    for clip in normals:
        write_wav(folder / clip.name, clip)
    return folder


@pytest.fixture(scope="session")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve hums of one second, 00.wav to 11.wav; read only."""
    folder = tmp_path_factory.mktemp("dozen")
    for i in range(12):
        write_wav(folder / f"{i:02d}.wav", hum(i, seconds=1.0))
    return folder


@pytest.fixture(scope="session")
def ced_tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of CED-tiny at full size, with random numbers. Tests must not change it."""
    return write_ced_tiny(tmp_path_factory.mktemp("ced-tiny"))


@pytest.fixture(scope="session")
def pump_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a detector fitted on 20 hums, with a set-point of 6; read only."""
    from plants import fitted

    return fitted(tmp_path_factory.mktemp("fitted") / "pump3", [hum(i) for i in range(20)])


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo data set of two machines with 16 train and 12 test clips of 1 s each; read only."""
    from nearfar.demo import make_dataset

    return make_dataset(tmp_path_factory.mktemp("demo"), machines=2, train=16, test=12, seconds=1.0)


@pytest.fixture(scope="session")
def pump3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a detector fitted on the files normal_00.wav to normal_29.wav, which can be played; read only."""
    from plants import fitted

    folder = tmp_path_factory.mktemp("pump3")
    return fitted(folder / "pump3", [write_wav(folder / f"normal_{i:02d}.wav", hum(i)) for i in range(30)])


@pytest.fixture
def forget_plugins() -> Iterator[None]:
    """Plug-ins that a test registers are gone after it; those of other files stay."""
    from nearfar.encoders import plugins
    from nearfar.recipe import PLUGINS

    known = {kind: set(each.paths) for kind, each in PLUGINS.items()}
    yield
    for kind, each in PLUGINS.items():
        for name in set(each.paths) - known[kind]:
            del each.table[name], each.paths[name], each._given[name]
    plugins.LOADS.clear()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB; the test is skipped where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
        ).returncode:
            pytest.skip("a small disk cannot be mounted here")
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # a thread may close its file later
