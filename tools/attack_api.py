"""Attack a server of its own: the largest uploads, then mutated requests; prints time, memory and answers.

python tools/attack_api.py MODEL [--seconds 300] [--seed 1]

MODEL is a detector folder; a copy of it is served on a free port of 127.0.0.1. Exit 1 if an answer was a 5xx, or the
server died.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

WORST = {  # seconds, rate in Hz, channels, what is expected
    "5 min, 48 kHz": (300, 48_000, 2, "accepted"),
    "10 min, 24 kHz": (600, 24_000, 2, "accepted"),
    "2.5 min, 96 kHz": (150, 96_000, 2, "accepted"),
    "5 min and 1 s, 48 kHz": (301, 48_000, 2, "refused"),
    "10 min, 96 kHz": (590, 96_000, 2, "refused"),
    "10 h, 8 kHz": (36_000, 8_000, 1, "refused"),
}
VALUES = ["", "0", "-1", "1e400", "nan", "9" * 400, "'; DROP TABLE scores;--", "%00", "../../../etc/passwd", "\u202e",
          "true", "null", "[]", "{}", "2026-13-45T99:99:99Z",
          "9999-12-31T23:59:59Z", "\U0001f600", "a" * 5000]  # fmt: skip


class Memory(threading.Thread):
    """Watches the resident memory of a process and its children, in bytes: `peak` since it was last reset."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0
        self.start()

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.02)

    def now(self) -> int:
        total, todo = 0, [self.pid]
        while todo:
            pid = todo.pop()
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    todo += map(int, children.read_text().split())
            except OSError:
                continue
        return total


def recording(seconds: int, rate: int, channels: int, kind: str = "FLAC", noise: bool = False) -> bytes:
    """A file of silence, which is small, or of noise."""
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(out, "w", rate, channels, format=kind) as file:
        for _ in range(seconds):
            file.write(rng.normal(0, 0.1, (rate, channels)) if noise else np.zeros((rate, channels)))
    return out.getvalue()


def worst(client: httpx.Client, memory: Memory) -> bool:
    """Send the largest recordings; whether each got its expected answer."""
    good = True
    for name, (seconds, rate, channels, expected) in WORST.items():
        body = recording(seconds, rate, channels)
        time.sleep(1)
        idle = memory.peak = memory.now()
        begin = time.monotonic()
        answer = client.post("/v1/machines/m/score", files={"file": ("x.flac", body)})
        took, more = time.monotonic() - begin, memory.peak - idle
        good &= answer.status_code == {"accepted": 200, "refused": 422}[expected]
        said = answer.json().get("message", "")[:60]
        print(f"{name:24} {len(body):>9,} bytes  {answer.status_code}  {took:5.1f} s  +{more >> 20:>4} MiB  {said}")
    return good


def mutated(rng: random.Random, body: bytes) -> bytes:
    """A few changes of some bytes."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(data), rng.choice((64, 512, 1 << 30)))) if data else 0
        match rng.randrange(5):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
            case 2:
                del data[at : at + rng.randrange(1, 5000)]
            case 3:
                data[at:at] = data[rng.randrange(len(data) + 1) :][: rng.randrange(1, 3000)]
            case _:
                del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def requests(rng: random.Random, document: dict[str, Any], sounds: list[bytes]) -> Iterator[dict[str, Any]]:
    """Requests without end: those of the document with values of all sorts, and recordings with changed bytes."""
    calls = [(method, path, call) for path, each in document["paths"].items() for method, call in each.items()]
    calls = [call for call in calls if call[1] != "/v1/stream"]
    uploads = [call for call in calls if call[1].endswith(("/score", "/explain", "/add"))]
    schemas = document["components"]["schemas"]
    while True:
        method, path, call = rng.choice(uploads if rng.random() < 0.5 else calls)
        ids = {"id": "m" if "machines" in path else "1", "channel": "near", "place": "1", "index": "0"}
        query = {}
        for parameter in call.get("parameters", []):
            value = rng.choice([*VALUES, *map(str, (0, 1, 2, 1e9, 1_790_000_000))])
            if parameter["in"] == "query" and rng.random() < 0.5:
                query[parameter["name"]] = value
            elif parameter["in"] == "path" and (parameter["name"] not in ids or rng.random() < 0.15):
                ids[parameter["name"]] = value.replace("/", "%2f").replace("\0", "%00") or "x"
        request: dict[str, Any] = {"method": method.upper(), "params": query, "headers": {}}
        request["url"] = path.format_map(ids)
        content = call.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            schema = content["application/json"]["schema"]
            name = (schema.get("$ref") or schema.get("anyOf", [{}])[0].get("$ref", "")).rpartition("/")[2]
            example = dict(schemas.get(name, {}).get("example", {}))
            for key in example:
                if rng.random() < 0.4:
                    example[key] = rng.choice([*VALUES, True, None, -1, 0, 1e308, [], {}, [[[]]]])
            text = json.dumps(example).encode("utf-8", "replace")
            request["content"] = mutated(rng, text) if rng.random() < 0.3 else text
            request["headers"]["content-type"] = "application/json"
        elif content:
            body = mutated(rng, rng.choice(sounds))
            if rng.random() < 0.3:
                query |= {
                    "pcm": rng.choice(["s16le", "f32le"]),
                    "rate": "16000",
                    "channels": str(rng.choice([1, 2, 3])),
                }
            if rng.random() < 0.5:
                request["files"] = {"file": (rng.choice(["x.wav", *VALUES]) or "x", body)}
            else:
                request["content"] = body
                request["headers"]["content-type"] = rng.choice(["audio/wav", "audio/flac", "application/octet-stream"])
        if rng.random() < 0.1:
            header = rng.choice(["range", "accept-encoding", "cookie", "origin", "content-type", "x-forwarded-for"])
            request["headers"][header] = rng.choice(VALUES[:8])
        yield request


def fuzz(url: str, memory: Memory, seconds: float, seed: int) -> bool:
    """Send mutated requests for some time; whether no answer was a 5xx."""
    rng, statuses = random.Random(seed), Counter[str]()
    sounds = [recording(3, 16_000, 2, kind, noise=True) for kind in ("WAV", "FLAC", "OGG", "MP3")]
    slowest, failed = (0.0, ""), []
    memory.peak = idle = memory.now()
    with httpx.Client(base_url=url, timeout=60) as client:
        document = client.get("/openapi.json").json()
        end = time.monotonic() + seconds
        for request in requests(rng, document, sounds):
            if time.monotonic() > end:
                break
            begin = time.monotonic()
            if rng.random() < 0.1:
                status = raw(rng, url)
            else:
                try:
                    status = str(client.request(**request).status_code)
                except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
                    continue  # this client cannot send it; `raw` can
                except httpx.TransportError as error:
                    status = type(error).__name__
            slowest = max(slowest, (time.monotonic() - begin, f"{request['method']} {request['url'][:60]}"))
            statuses[status] += 1
            if status.startswith("5"):
                failed.append(f"{status} {str(request)[:300]}")
    print(f"{statuses.total()} requests in {seconds:g} s: {dict(sorted(statuses.items()))}")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}), memory {idle >> 20} MiB idle, {memory.peak >> 20} MiB at most")
    print(*failed[:20], sep="\n")
    return not failed


def raw(rng: random.Random, url: str) -> str:
    """The status of a request that is not quite HTTP, or "closed"."""
    host, port = url.removeprefix("http://").strip("/").split(":")
    text = (b"POST /v1/machines/m/shelve HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 11\r\n"
            b"Transfer-Encoding: identity\r\nCookie: nearfar=1.a\r\n\r\n{\"hours\":1}")  # fmt: skip
    with socket.create_connection((host, int(port)), timeout=3) as client:
        try:
            client.sendall(mutated(rng, text))
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(100)
        except OSError:
            return "closed"
    return answer.split(b" ")[1].decode("ascii", "replace") if answer.startswith(b"HTTP/") else "closed"


def main() -> None:
    """Serve a copy of the model, attack it, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(options.model, Path(folder) / "m")
        command = [sys.executable, "-m", "nearfar", "serve", "m", "--port", "0"]
        log = Path(folder) / "log"
        with log.open("w") as err, subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=err, text=True
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                url = re.findall(r"http://\S+", process.stdout.readline())[0]
                memory = Memory(process.pid)
                with httpx.Client(base_url=url, timeout=120) as client:
                    client.post("/v1/machines/m/score", files={"file": recording(3, 16_000, 2, noise=True)})  # warm
                    good = worst(client, memory)
                good &= fuzz(url, memory, options.seconds, options.seed)
                good &= process.poll() is None
            finally:
                process.terminate()
        said = log.read_text()
        print(f"the log has {len(said.splitlines())} lines; exit {process.returncode}")
        if not good:
            print(*re.findall(r".*request \w+ failed:(?:.*\n)(?:[^\d].*\n)*", said)[:5], sep="\n")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
