"""What the server bears: 200 uploads at once, none lost; how long one takes, beside scoring itself; memory; pages.

A server in a process of its own (`nearfar serve`), recordings of 10 s, two channels, 16 kHz, 16 bits (640 kB) of a demo
machine. "Lost" is an upload with no answer or another than 200. Limit: a single upload below 1 s.
"""

import asyncio
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import soundfile

import nearfar
from measure import report
from nearfar.audio import Clip
from nearfar.demo import make_dataset

AT_ONCE, SINGLES = 200, 30


def seconds_of(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


async def all_at_once(url: str, bodies: list[bytes]) -> tuple[list[float], list[int], float]:
    """(seconds of each, statuses, wall seconds)."""
    taken, codes = [], []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def one(body: bytes) -> None:
            start = time.perf_counter()
            try:
                codes.append((await client.post("v1/machines/m/score", files={"file": ("a.wav", body)})).status_code)
            except httpx.HTTPError:
                codes.append(0)
            taken.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(one(bodies[i % len(bodies)]) for i in range(AT_ONCE)))
        return taken, codes, time.perf_counter() - start


def peak_mib(pid: int) -> float:
    """Peak resident memory of a process and of those that it started, together."""
    pids, total = [pid], 0
    while pids:
        p = pids.pop()
        pids += [int(c) for c in Path(f"/proc/{p}/task/{p}/children").read_text().split()]
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{p}/status").read_text())
        total += int(found[1]) if found else 0
    return total / 1024


def pages_kib() -> float:
    """All pages of the dashboard with their style and scripts, uncompressed."""
    static = Path(nearfar.__file__).parent / "live" / "static"
    return sum(file.stat().st_size for file in static.rglob("*") if file.is_file()) / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_dataset(root / "data", machines=1, train=60, test=8, workers=2)
        machine = next(p for p in (root / "data").iterdir() if p.is_dir())
        detector = nearfar.Detector().fit(sorted((machine / "train").glob("*.wav")))
        detector.save(root / "m")
        files = sorted((machine / "test").glob("*.wav"))
        bodies = [file.read_bytes() for file in files]
        pairs = [soundfile.read(io.BytesIO(body), dtype="float32")[0].T for body in bodies]
        clips = [Clip(near, far, 16_000) for near, far in pairs]
        command = [sys.executable, "-m", "nearfar", "serve", str(root / "m"), "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        try:
            assert server.stdout is not None
            url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            rows = measured(url, detector, bodies, clips, server.pid)
        finally:
            server.terminate()
            server.wait()
    rows.append(["the whole dashboard, uncompressed", f"{pages_kib():.0f} KiB", ""])
    report("serve", ["what", "measured", "limit"], rows)


def measured(url, detector, bodies, clips, pid) -> list[list[str]]:
    rows = []
    with httpx.Client(base_url=url, timeout=60) as client:
        said = [client.post("v1/machines/m/score", files={"file": ("a.wav", b)}).json()["score"] for b in bodies]
        assert said == [s.value for s in detector.score(clips)], "the server does not score as the library does"
        idle = peak_mib(pid)
        single, plain = [], []
        for i in range(SINGLES):  # side by side: the machine may be noisy
            body, clip = bodies[i % len(bodies)], clips[i % len(bodies)]
            single.append(seconds_of(lambda b=body: client.post("v1/machines/m/score", files={"file": ("a.wav", b)})))
            plain.append(seconds_of(lambda c=clip: detector.score([c])))
    one, alone = statistics.median(single), statistics.median(plain)
    rows.append(["a single upload, median", f"{1000 * one:.0f} ms", "1 s"])
    rows.append(
        ["... of which scoring itself (the library, same clip)", f"{1000 * alone:.0f} ms ({alone / one:.0%})", ""]
    )
    taken, codes, wall = asyncio.run(all_at_once(url, bodies))
    lost = sum(code != 200 for code in codes)
    percentiles = statistics.quantiles(taken, n=100)
    rows.append([f"{AT_ONCE} uploads at once: lost", f"{lost} of {len(codes)}", "0"])
    rows.append(["... p50, p99", f"{percentiles[49]:.1f} s, {percentiles[98]:.1f} s", ""])
    rows.append(
        [
            "... recordings a second",
            f"{AT_ONCE / wall:.0f} ({AT_ONCE / wall * alone:.2f} of the library's, one by one)",
            "",
        ]
    )
    rows.append(["peak memory of all processes, before and after", f"{idle:.0f} MiB, {peak_mib(pid):.0f} MiB", ""])
    return rows


if __name__ == "__main__":
    main()
