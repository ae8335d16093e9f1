"""Download one file: the right file arrives whole, or a DownloadError names the reason and what to do.

    fetch      URL -> TARGET.part -> size and hash checked -> TARGET, renamed in one step
    hub_file   a file of the Hugging Face Hub -> its address at the current commit, size and SHA-256

TARGET.part stays where a download breaks off, and the next one resumes it (Range, If-Range). Its note, TARGET.part.txt,
holds the URL and the ETag of the file that it is a part of.

Proxies: HTTPS_PROXY and REQUESTS_CA_BUNDLE. Mirrors: NEARFAR_MIRROR=https://mirror/files turns https://zenodo.org/x
into https://mirror/files/zenodo.org/x; HF_ENDPOINT is another server that speaks the protocol of the Hub.
"""

from __future__ import annotations

import contextlib
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
from nearfar.support.files import atomic_write, hash_file, replace
from nearfar.support.progress import Progress
from nearfar.support.words import as_sentence

BLOCK = 1 << 20  # bytes
MEGABYTE = 1_000_000  # the unit of progress
CONNECT_S = 15.0
SILENCE_S = 60.0  # longest wait between two packets
LONGEST_PAUSE_S = 60.0
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes that another try may avoid
REASONS = {
    401: "it wants a sign-in",
    403: "it refuses access: is a sign-in or a licence to accept needed, or does a proxy block it?",
    404: "there is no such file: it was moved or withdrawn, or a mirror does not have it",
    410: "the file was withdrawn",
}
WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head)", re.IGNORECASE)
HELP = "A proxy is set by HTTPS_PROXY, a mirror by NEARFAR_MIRROR or HF_ENDPOINT"
EXTRA = 'pip install "nearfar[pull]"'


@dataclass(frozen=True)
class Expected:
    """Hashes and size that a file must have; `origin` says in an error where the SHA-256 comes from."""

    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    origin: str = "the published one is"

    @property
    def has_hash(self) -> bool:
        """Whether the content can be checked."""
        return bool(self.sha256 or self.md5)

    def fault_of(self, path: Path) -> str:
        """The difference between the file at `path` and what is expected, or ""."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size:,} bytes, and {self.size:,} were expected"
        if self.md5 and (found := hash_file(path, "md5")) != self.md5.lower():
            return f"its MD5 is {found}, the published one is {self.md5}"
        if self.sha256 and (found := hash_file(path)) != self.sha256.lower():
            return f"its SHA-256 is {found}, {self.origin} {self.sha256}"
        return ""


def hub_file(repository: str, name: str) -> tuple[str, Expected, dict[str, str]]:
    """Look up a file on the Hub: its address at the current commit, what to expect, and headers for `fetch`.

    The Hub states a SHA-256 for files in its large-file storage. The headers hold the user's sign-in, if there is one.
    """
    try:
        from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_url
    except ImportError:
        raise DownloadError(f"{repository}/{name}: downloading needs huggingface_hub: {EXTRA}") from None
    constants.HF_HUB_DISABLE_TELEMETRY = True  # its variable is read only when huggingface_hub is first imported
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    url, token = hf_hub_url(repository, name, endpoint=endpoint), get_token()
    try:
        found = get_hf_file_metadata(url, token=token or False)
    except Exception as error:  # huggingface_hub and the HTTP library below it share no base class
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = f"the server answered {status}: {REASONS.get(status, 'try again later')}" if status else _cause(error)
        raise DownloadError(f"{url} could not be looked up: {as_sentence(reason)} {HELP}") from None
    if found.commit_hash is None:
        raise DownloadError(f"{url}: the answer names no commit, so this is not the Hub. Is HF_ENDPOINT right?")
    digest = found.etag if re.fullmatch(r"[0-9a-f]{64}", found.etag or "") else None
    pinned = hf_hub_url(repository, name, revision=found.commit_hash, endpoint=endpoint)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return pinned, Expected(digest, size=found.size, origin="the Hub's is"), headers


def fetch(
    url: str,
    target: str | os.PathLike[str],
    expected: Expected = Expected(),
    *,
    progress: Progress | None = None,
    mirrors: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    tries: int = 4,
    pause_s: float = 1.0,
) -> Path:
    """Download `url` to `target`, or check the file that is there; safe for several processes at once.

    progress   called in whole megabytes, once the size is known
    mirrors    start of a URL -> its replacement; None: those of the environment
    headers    sent to the host of `url` alone
    tries      attempts in a row that add no byte before it gives up
    pause_s    pause after the first of them; every further one is twice as long
    """
    target, asked = Path(target), mirrored(url, mirrors)
    if urlsplit(asked).scheme not in ("http", "https"):
        raise DownloadError(f"{asked} cannot be fetched: only http and https addresses are")
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_process_at(target):
        if not target.exists():
            _Download(asked, target, expected, headers or {}, progress).run(tries, pause_s)
        elif fault := expected.fault_of(target):
            raise DownloadError(f"{target} is there, but is not {url}: {fault}. Move it away, then fetch it again")
    return target


def mirrored(url: str, mirrors: Mapping[str, str] | None = None) -> str:
    """The address to ask for `url`, by `mirrors` (start of a URL -> its replacement); None: NEARFAR_MIRROR."""
    if mirrors is None:
        mirror = os.environ.get("NEARFAR_MIRROR")
        mirrors = {"https://": mirror} if mirror else {}
    for start, other in mirrors.items():
        if url.startswith(start):
            return f"{other.rstrip('/')}/{url.removeprefix(start).lstrip('/')}"
    return url


@contextlib.contextmanager
def one_process_at(path: Path) -> Iterator[None]:
    """Lock `path` against other processes: they wait, and then find it done."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        raise DownloadError(f"downloading needs filelock: {EXTRA}") from None
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


@dataclass(frozen=True)
class _Download:
    """A file on its way: requests for the bytes after TARGET.part until the file is whole and right."""

    url: str
    target: Path
    expected: Expected
    headers: Mapping[str, str]
    progress: Progress | None

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:  # two lines: the URL and the ETag of the file that the part belongs to
        return self.target.with_name(self.target.name + ".part.txt")

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def run(self, tries: int, pause_s: float) -> None:
        most, failed = self.size, 0
        while True:
            try:
                self._request()
                break
            except TryAgainError as error:
                failed = 0 if self.size > most else failed + 1
                most = max(most, self.size)
                if failed >= tries:
                    kept = f"{self.size:,} bytes are kept and will be resumed. " if self.size else ""
                    reason = f"{tries} tries brought nothing: {as_sentence(str(error))}"
                    raise DownloadError(f"{self.url} could not be fetched, {reason} {kept}{HELP}") from None
                time.sleep(min(max(error.wait, pause_s * 2.0 ** max(0, failed - 1)), LONGEST_PAUSE_S))
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        replace(self.part, self.target)
        self.drop()

    def _request(self) -> None:
        """One request for the rest of the file. Raises TryAgainError for what may pass, else DownloadError."""
        version = self._noted_version()
        start = self.size if version or self.expected.has_hash else 0  # else a mixture of two files could pass
        asked = {**self.headers, "Accept-Encoding": "identity"}
        if start:
            asked |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
        with _answer(self.url, asked) as answer:
            if answer.status_code != 416:
                self._check_status(answer)
                self._receive(answer, start if answer.status_code == 206 else 0, version)
            elif answer.headers.get("Content-Range") != f"bytes */{start}":  # else the part is the whole file
                self.drop()
                raise TryAgainError("the file is shorter than its part here, so it starts again")
        if fault := self.expected.fault_of(self.part):
            self.drop()
            if start and answer.status_code != 200:  # the part may have been one of another file
                raise TryAgainError(fault)
            raise DownloadError(
                f"{self.url} is not the file that was expected: {fault}. It was changed on its way, or replaced by its "
                "publisher. Nothing of it was kept"
            )

    def _check_status(self, answer: Any) -> None:
        status, wait = answer.status_code, answer.headers.get("Retry-After", "")
        if status in TEMPORARY:
            raise TryAgainError(f"the server answered {status} {answer.reason}", float(wait) if wait.isdigit() else 0.0)
        if status not in (200, 206):
            raise DownloadError(f"{self.url}: the server answered {status}: {REASONS.get(status, answer.reason)}")
        if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise self._web_page()

    def _receive(self, answer: Any, start: int, version: str) -> None:
        """Write the body after the first `start` bytes of the part, if it is what is expected and the disk has room."""
        offset = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if start and (offset != str(start) or (version and _version(answer) not in ("", version))):
            self.drop()
            raise TryAgainError("the file changed while it was fetched, so it starts again")
        length, size = answer.headers.get("Content-Length", ""), self.expected.size
        total = start + int(length) if length.isdigit() else size
        if total is not None and size is not None and total != size:
            cause = "cut short, or replaced by its publisher. Nothing was fetched"
            raise DownloadError(f"{self.url} offers {total:,} bytes, but {size:,} are expected: {cause}")
        if total is not None and total - start > (free := shutil.disk_usage(self.part.parent).free):
            raise DownloadError(
                f"{self.url} needs {total - start:,} bytes more, and {self.part.parent} has {free:,} left"
            )
        if not start:
            self.drop()  # before the note changes: a crash must not leave old bytes under a new note
        atomic_write(self.note, f"{self.url}\n{_version(answer)}\n")
        done, reported = start, -1
        with self.part.open("ab" if start else "wb") as file:
            while block := answer.raw.read1(BLOCK, decode_content=False):  # read1: a broken connection loses no byte
                if done == 0 and WEB_PAGE.match(block):
                    raise self._web_page()
                done += len(block)
                if total is not None and done > total:
                    self.drop()
                    raise DownloadError(f"{self.url} sends more than the {total:,} bytes that were expected")
                file.write(block)
                if self.progress and total and (done // MEGABYTE > reported or done == total):
                    reported = done // MEGABYTE
                    self.progress(reported, total // MEGABYTE, f"fetching {self.target.name} (MB)")
        if length.isdigit() and done < start + int(length):
            raise TryAgainError(f"the connection ended after {done:,} of {total:,} bytes")

    def _web_page(self) -> DownloadError:
        return DownloadError(
            f"{self.url} answered with a web page instead of the file: it wants a sign-in or a click, or a proxy "
            "stepped in. Open it in a browser, and give what you save there by hand"
        )

    def _noted_version(self) -> str:
        """ETag or date of the file that the part belongs to, "" if unknown."""
        url, _, version = self.note.read_text(encoding="utf-8").partition("\n") if self.note.is_file() else ("", "", "")
        return version.strip() if url == self.url else ""


def _version(answer: Any) -> str:
    """A strong ETag, or the date of the last change, or ""."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


@contextlib.contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """The streamed answer to a request. Errors, also while it is read, become TryAgainError or DownloadError."""
    try:
        import requests
        from urllib3.exceptions import HTTPError
    except ImportError:
        raise DownloadError(f"{url}: downloading needs requests: {EXTRA}") from None
    broken = requests.exceptions
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S)) as answer:
            if url.startswith("https:") and not answer.url.startswith("https:"):
                raise DownloadError(f"{url} leads to {answer.url}, which is not encrypted: refused")
            yield answer
    except broken.SSLError as error:
        raise DownloadError(
            f"{url}: the certificate cannot be verified ({error}). Behind a proxy that decrypts traffic, set "
            "REQUESTS_CA_BUNDLE to its certificate"
        ) from None
    except (broken.InvalidSchema, broken.InvalidURL, broken.MissingSchema) as error:
        raise DownloadError(f"{url} leads to an address that is neither http nor https: refused ({error})") from None
    except broken.TooManyRedirects:
        raise DownloadError(f"{url} is redirected in circles: does it want a sign-in? Open it in a browser") from None
    except (broken.RequestException, HTTPError) as error:
        raise TryAgainError(_cause(error)) from None


def _cause(error: BaseException) -> str:
    """The innermost reason of a failed request, without the names of the libraries around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(missing := getattr(error, "expected", None), int):  # IncompleteRead
        return f"the connection broke with {missing:,} bytes still to come"
    text = str(getattr(error, "strerror", None) or error)
    return f"no connection ({(text or type(error).__name__).splitlines()[0]})"
