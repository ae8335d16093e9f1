"""Feeds damaged recordings to the server's decoder and damaged folders to `nearfar.load`: fuzz.py [MINUTES] [SEED].

Allowed: a result, or an error of the kind that the function promises. Anything else is printed with its seed, and the
exit code is 1. At the end: inputs tried, longest time, largest memory of this process and of the decoder's.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

import nearfar
from nearfar.errors import AudioError
from nearfar.live.server.decode import Decoder

RATE = 16_000
KINDS = """WAV PCM_16, WAV MS_ADPCM, WAVEX FLOAT, RF64 PCM_24, W64 PCM_16, AIFF PCM_16, AU PCM_16, CAF ALAC_16,
VOC PCM_16, NIST PCM_16, FLAC PCM_16, OGG VORBIS, OGG OPUS, MP3 MPEG_LAYER_III"""
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bytes changed, mostly in its header, cut, repeated or extended."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(out), rng.choice((64, 512, len(out))))) if out else 0
        match rng.randrange(6):
            case 0 if out:
                out[at] = rng.choice((rng.randrange(256), *EDGES))
            case 1 if out:
                out[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", rng.randbytes(4)))
            case 2:
                del out[at : at + rng.randrange(1, 64)]
            case 3:
                del out[rng.randrange(len(out) + 1) :]
            case 4:
                out[at:at] = out[at : at + rng.randrange(1, 256)]
            case _:
                out += rng.randbytes(rng.randrange(1, 256))
    return bytes(out)


def peak_mib(process: str = "self") -> float:
    """Largest memory so far of a process, in MiB (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(minutes: float, seed: int) -> int:
    """Fuzz for so many minutes; 1 if an error was of another kind than promised."""
    rng, room, decoder = random.Random(seed), Path(tempfile.mkdtemp(prefix="nearfar-fuzz-")), Decoder(workers=1)
    noise = 0.1 * np.random.default_rng(seed).standard_normal((12, RATE, 2)).astype(np.float32)
    recordings = []
    for kind, subtype in map(str.split, KINDS.split(",")):
        soundfile.write(room / "a", noise[0], RATE, format=kind, subtype=subtype)
        recordings.append((room / "a").read_bytes())
    clips = [nearfar.Clip(x[:, 0].copy(), x[:, 1].copy(), RATE, f"{i}.wav") for i, x in enumerate(noise)]
    model, damaged = nearfar.Detector().fit(clips).save(room / "model"), room / "damaged"
    outcomes: Counter[str] = Counter()
    worst = {"recording": (0.0, 0), "folder": (0.0, 0)}
    bad, number, end = 0, 0, time.monotonic() + 60 * minutes
    largest = 0.0
    while time.monotonic() < end:
        number += 1
        rng.seed(f"{seed} {number}")
        what = "folder" if number % 3 == 0 else "recording"
        if what == "folder":
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(model, damaged)
            file = rng.choice(sorted(damaged.iterdir()))
            file.write_bytes(mutated(file.read_bytes(), rng))
        else:
            (room / "x").write_bytes(mutated(rng.choice(recordings), rng))
        start = time.monotonic()
        try:
            if what == "folder":
                nearfar.load(damaged).score(clips[:1])
            else:
                for _ in decoder.clips(room / "x", "x", near=0, far=1, window_s=10.0):
                    pass
            outcomes[f"{what}: taken"] += 1
        except Exception as error:
            if isinstance(error, AudioError if what == "recording" else (ValueError, OSError)):
                outcomes[f"{what}: refused"] += 1
            else:
                bad += 1
                print(f"seed {seed} input {number} ({what}): {type(error).__name__}: {error}", flush=True)
        worst[what] = max(worst[what], (time.monotonic() - start, number))
        for worker in decoder._idle.queue:
            largest = max(largest, peak_mib(str(worker.process.pid)) if worker is not None and worker.alive else 0.0)
    decoder.close()
    shutil.rmtree(room)
    print(f"{number:,} inputs in {minutes:g} min: {dict(outcomes)}, {bad} wrong errors")
    print("longest: " + ", ".join(f"{what} {seconds:.2f} s (input {at})" for what, (seconds, at) in worst.items()))
    print(f"largest memory: {peak_mib():.0f} MiB, decoder {largest:.0f} MiB; decoders replaced: {decoder.replaced}")
    return int(bad > 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(float(given[0]) if given else 10.0, int(given[1]) if len(given) > 1 else 0))
