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
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nearfar.errors import DownloadError, TryAgainError
from nearfar.support.files import atomic_write, hash_file
from nearfar.support.progress import Progress
from nearfar.support.words import as_sentence

# One HTTP request for the rest of a file: what has come is kept, what cannot be the file is refused.
#
# An attempt returns when the whole body is there. It raises TryAgainError for what may pass (a broken connection, a
# busy
# server, a file that changed) and DownloadError for what will not (no such file, a web page, another size).
#

BLOCK = 1 << 20
TIMEOUT = (15.0, 60.0)  # seconds to connect, and between two packets
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that another try may better
REASONS = {
    401: "it wants a sign-in",
    403: "it refuses access: is a sign-in or a licence to accept needed, or does a proxy block it?",
    404: "there is no such file: it was moved or withdrawn, or a mirror does not have it",
    410: "the file was withdrawn",
}
WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head)", re.IGNORECASE)
BROKEN = re.compile(r"IncompleteRead\(\d+ bytes read, (\d+) more expected")
UNREACHED = re.compile(
    r"Connection refused|timed out|Name or service not known|Temporary failure in name resolution|"
    r"Connection reset by peer|Remote end closed|Tunnel connection failed: [\w ]+"
)


@dataclass(frozen=True)
class Part:
    """What has come so far of a file: its bytes at `path`, and a note beside them of what they are a part."""

    path: Path

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def note(self) -> Path:
        """The file that says of which version these bytes are."""
        return self.path.with_name(self.path.name + ".json")

    def version(self, url: str) -> str | None:
        """ETag or date of the file that the bytes are a part of, "" if its server states none, None if unknown."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            said = json.loads(self.note.read_text(encoding="utf-8"))
            if said.get("url") == url:
                return str(said.get("version", ""))
        return None

    def drop(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def attempt(url: str, part: Part, size: int | None, *, hashed: bool, progress: Progress | None) -> None:
    """One request, from where the part ends. `size` is what the file should have, `hashed` whether its hash is known.

    Without a hash a part is resumed only if the server can say that its file is still the same.
    """
    start, version = part.size, part.version(url)
    if version is None or not (version or hashed):
        start = 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    with _answer(url, headers) as answer:
        if start and answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{start}":
            return  # it was whole already
        _check_status(answer, url, part)
        start = _agreed_start(answer, start, version, part)
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        _check_offer(answer, url, part.path, start, total, size)
        atomic_write(part.note, json.dumps({"url": url, "version": _version(answer)}))
        _receive(answer, url, part, start, total or size, progress)
    if total is not None and part.size < total:
        raise TryAgainError(f"the connection ended after {part.size:,} of {total:,} bytes")


def _receive(answer: Any, url: str, part: Part, start: int, total: int | None, progress: Progress | None) -> None:
    """Write the body behind the first `start` bytes of the part."""
    done = start
    with part.path.open("ab" if start else "wb") as file:
        while block := answer.raw.read1(BLOCK, decode_content=False):  # what there is: a break loses none of it
            if done == 0 and WEB_PAGE.match(block):
                raise DownloadError(_page(url))
            done += len(block)
            if total is not None and done > total:
                part.drop()
                raise DownloadError(f"{url} sends more than the {total:,} bytes that were expected: not the same file?")
            file.write(block)
            if progress:
                progress(done, total)


@contextlib.contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """The answer to one request; whatever breaks while it is read is told as passing or as final."""
    try:
        import requests
        import urllib3
    except ImportError:
        raise DownloadError(f"{url}: downloading needs requests: pip install 'nearfar[pull]'") from None
    broken = requests.exceptions
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if url.startswith("https:") and not answer.url.startswith("https:"):
                raise DownloadError(f"{url} leads to {answer.url}, which is not encrypted: refused")
            yield answer
    except broken.SSLError as error:
        raise DownloadError(
            f"{url}: the certificate cannot be verified ({error}). Behind a proxy that reads along, set "
            "REQUESTS_CA_BUNDLE to its certificate"
        ) from None
    except (broken.InvalidSchema, broken.InvalidURL, broken.MissingSchema) as error:
        raise DownloadError(f"{url} leads to what is no http or https address: refused ({error})") from None
    except broken.TooManyRedirects:
        raise DownloadError(f"{url} is redirected in circles: does it want a sign-in? Open it in a browser") from None
    except (broken.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TryAgainError(_in_short(error)) from None


def _in_short(error: Exception) -> str:
    """What broke, without the names of the libraries that noticed."""
    if cut := BROKEN.search(str(error)):
        return f"the connection broke with {int(cut[1]):,} bytes still to come"
    reason = UNREACHED.search(str(error))
    return f"no connection ({reason[0] if reason else type(error).__name__})"


def _check_status(answer: Any, url: str, part: Part) -> None:
    """Return for an answer with a body to keep."""
    status = answer.status_code
    if status in (200, 206):
        return
    if status == 416:  # beyond the end: the part is of another file
        part.drop()
        raise TryAgainError("the file is shorter than what came of it before, so it starts again")
    if status in PASSING:
        after = answer.headers.get("Retry-After", "")
        raise TryAgainError(f"the server answered {status} {answer.reason}", float(after) if after.isdigit() else 0.0)
    raise DownloadError(f"{url}: the server answered {status}: {REASONS.get(status, answer.reason)}")


def _agreed_start(answer: Any, start: int, version: str | None, part: Part) -> int:
    """From which byte on the answer goes: `start`, or 0 where the server gives the whole file again."""
    if answer.status_code == 200 or start == 0:
        part.drop()  # before its note changes, or a crash would leave old bytes under a new name
        return 0
    said = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if said is None or int(said[1]) != start or (version and _version(answer) not in ("", version)):
        part.drop()
        raise TryAgainError("the file changed while it was fetched, so it starts again")
    return start


def _version(answer: Any) -> str:
    """A strong ETag, or the date of the last change; "" if the server states neither."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _check_offer(answer: Any, url: str, path: Path, start: int, total: int | None, size: int | None) -> None:
    """Refuse before it comes what cannot be the file, or cannot be kept."""
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise DownloadError(_page(url))
    if total is None:
        return
    if size is not None and total != size:
        raise DownloadError(
            f"{url} offers {total:,} bytes, but {size:,} are expected: cut short, or replaced by its publisher. "
            "Nothing was fetched"
        )
    free = shutil.disk_usage(path.parent).free
    if total - start > free:
        raise DownloadError(f"{url} needs {total - start:,} bytes more, and {path.parent} has {free:,} left")


def _page(url: str) -> str:
    return (
        f"{url} answered with a web page instead of the file: it wants a sign-in or a click, or a proxy stepped in. "
        "Open it in a browser, and give what you save there by hand"
    )


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
        if self.md5 and (found := hash_file(path, "md5")) != self.md5.lower():
            return f"its MD5 is {found}, the published one is {self.md5}"
        if self.sha256 and (found := hash_file(path)) != self.sha256.lower():
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
        entry = {"sha256": hash_file(path), "size": path.stat().st_size}
        atomic_write(lock, json.dumps(read_lock(lock) | {url: entry}, indent=2, sort_keys=True) + "\n")


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
                    f"{url} could not be fetched, {tries} tries brought nothing: {as_sentence(str(error))} {kept}"
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
