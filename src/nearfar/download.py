"""Fetch one file over HTTP so that what arrives is the whole file, the right file, or an error that says why.

    URL -> TARGET.part (resumed with Range and If-Range) -> size and hash checked -> TARGET (renamed in one step)

The bytes are checked against a published SHA-256 or MD5. Where none is published the first download is trusted and its
hash recorded in a lock file; any later one must be the same. Proxies are those of the environment (HTTPS_PROXY,
REQUESTS_CA_BUNDLE). Mirrors: NEARFAR_MIRROR=https://mirror/files makes https://zenodo.org/x into
https://mirror/files/zenodo.org/x, and HF_ENDPOINT stands for https://huggingface.co; both are read at each call.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nearfar.atomic import write
from nearfar.hashes import of_file
from nearfar.transfer import DownloadError, Part, Progress, TryAgainError, attempt
from nearfar.words import ended

HUB = "https://huggingface.co"
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it comes; a SHA-256 is published, or was recorded at the `first` use."""

    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    first: Path | None = None

    @property
    def hashed(self) -> bool:
        """Whether a hash is known."""
        return bool(self.sha256 or self.md5)

    def fault_of(self, path: Path) -> str:
        """What is wrong with the file at `path`, or ""."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size:,} bytes, and {self.size:,} were expected"
        if self.md5 and (found := of_file(path, "md5")) != self.md5.lower():
            return f"its MD5 is {found}, the published one is {self.md5}"
        if self.sha256 and (found := of_file(path)) != self.sha256.lower():
            known = f"at its first use it was (says {self.first})" if self.first else "the published one is"
            return f"its SHA-256 is {found}, {known} {self.sha256}"
        return ""


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
    mirrors: Mapping[str, str] | None = None,
    lock: str | os.PathLike[str] | None = None,
    tries: int = 4,
    pause_s: float = 1.0,
) -> Path:
    """Fetch `url` to `target`, or check the file that is there already; safe for two processes at once.

    `progress(bytes, total or None)` is called as they come; `mirrors` maps starts of URLs to others (None: those of the
    environment); `lock` is the JSON file for hashes of first use; `tries` counts attempts in a row that bring nothing
    new, with `pause_s` after the first and twice as long after each.
    Raises DownloadError, an OSError. A part that has come stays beside the target as .part and is resumed.
    """
    target = Path(target)
    asked = mirrored(url, mirrors)
    if urlsplit(asked).scheme not in ("http", "https"):
        raise DownloadError(f"{asked} cannot be fetched: only http and https addresses are")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        expected = _expected(url, Expected(sha256, md5, size), None if lock is None else Path(lock))
        if not target.exists():
            _fetch(asked, target, expected, progress, tries, pause_s)
        elif fault := expected.fault_of(target):
            raise DownloadError(f"{target} is there, but is not {url}: {fault}. Move it away, then fetch it again")
        if lock is not None:
            record(Path(lock), url, target)
    return target


def mirrored(url: str, mirrors: Mapping[str, str] | None = None) -> str:
    """The address to ask for `url`: by `mirrors` (start of a URL -> another), or by the environment's if None."""
    if mirrors is None:
        hub, mirror = os.environ.get("HF_ENDPOINT"), os.environ.get("NEARFAR_MIRROR")
        mirrors = {"https://": mirror} if mirror else {HUB: hub} if hub else {}
    for start, other in mirrors.items():
        if url.startswith(start):
            return f"{other.rstrip('/')}/{url.removeprefix(start).lstrip('/')}"
    return url


def read_lock(lock: Path) -> dict[str, dict[str, Any]]:
    """What a lock file records, {URL: {"sha256", "size"}}; empty if there is none. ValueError if it is damaged."""
    if not lock.exists():
        return {}
    try:
        recorded = json.loads(lock.read_text(encoding="utf-8"))
        return {str(url): {"sha256": str(e["sha256"]), "size": int(e["size"])} for url, e in recorded.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{lock} is damaged ({error}); it holds the hashes of files at their first use") from None


def record(lock: Path, url: str, path: Path) -> None:
    """Put the hash of the file at `path` into the lock file, under `url`."""
    with _alone(lock):
        entry = {"sha256": of_file(path), "size": path.stat().st_size}
        write(lock, json.dumps(read_lock(lock) | {url: entry}, indent=2, sort_keys=True) + "\n")


def _fetch(url: str, target: Path, expected: Expected, progress: Progress | None, tries: int, pause_s: float) -> None:
    part = Part(target.with_name(target.name + ".part"))
    resumed = part.size > 0
    while True:
        _until_whole(url, part, expected, progress, tries, pause_s)
        fault = expected.fault_of(part.path)
        if not fault:
            break
        part.drop()
        if not resumed:
            raise DownloadError(
                f"{url} is not the file that was expected: {fault}. It was changed on its way, or replaced by its "
                "publisher. Nothing of it was kept"
            )
        resumed = False  # perhaps what was there was of another file: once more from the start
    with part.path.open("rb+") as file:
        os.fsync(file.fileno())
    part.path.replace(target)
    part.drop()


def _until_whole(
    url: str, part: Part, expected: Expected, progress: Progress | None, tries: int, pause_s: float
) -> None:
    """Attempts until the whole file is there; DownloadError after `tries` in a row that bring nothing new."""
    most, failed = part.size, 0
    while True:
        try:
            return attempt(url, part, expected.size, hashed=expected.hashed, progress=progress)
        except TryAgainError as error:
            failed = 0 if part.size > most else failed + 1
            most = max(most, part.size)
            if failed >= tries:
                kept = f"{part.size:,} bytes are kept and will be resumed. " if part.size else ""
                raise DownloadError(
                    f"{url} could not be fetched, {tries} tries brought nothing: {ended(str(error))} {kept}"
                    "A proxy is set by HTTPS_PROXY, a mirror by NEARFAR_MIRROR or HF_ENDPOINT"
                ) from None
            time.sleep(min(max(error.wait, pause_s * 2.0 ** max(0, failed - 1)), LONGEST_PAUSE_S))


def _expected(url: str, given: Expected, lock: Path | None) -> Expected:
    """What is known of the file, with the hash of its first use where none is published."""
    entry = read_lock(lock).get(url) if lock and not given.hashed else None
    return given if entry is None else Expected(entry["sha256"], None, given.size or entry["size"], first=lock)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time for this file; the others wait, and find it done."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        raise DownloadError("downloading needs filelock: pip install 'nearfar[pull]'") from None
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warnings.warn(f"another process is at {path}: waiting for it", stacklevel=2)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
