"""A server on this machine that serves a file badly, in the ways in which servers and networks do."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Faults:
    """What the server does. `answers` are statuses to give first; `cut` is how many bytes each answer holds at most.

    `commit`: it is laid out like the Hugging Face Hub, with `body` as the file of every address of that commit.
    `asked` records (path, Range header or "", bytes sent) of every GET, `looked_up` (path, User-Agent) of every HEAD,
    `signed_in` the paths of requests with a sign-in.
    """

    body: bytes
    answers: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    conditional: bool = True  # whether If-Range counts
    tagged: bool = True
    claim: int | None = None  # Content-Length, whatever the body has
    chunked: bool = False
    kind: str = "application/octet-stream"
    redirect: str = ""
    commit: str = ""
    digest: str = ""  # what the Hub says of the file, whatever the body is
    looked_up: list[tuple[str, str]] = field(default_factory=list)
    signed_in: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    url: str = ""

    @property
    def tag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'

    @property
    def sent(self) -> int:
        return sum(count for _, _, count in self.asked)


class _Handler(http.server.BaseHTTPRequestHandler):
    faults: Faults

    def do_HEAD(self):
        faults = self.faults
        faults.looked_up.append((self.path, self.headers.get("User-Agent", "")))
        self._note_sign_in()
        if faults.answers:
            self._send(faults.answers.pop(0), {"Content-Length": "0"})
        elif not faults.commit:
            self._send(200, {"Content-Length": str(len(faults.body))})
        else:
            digest = faults.digest or hashlib.sha256(faults.body).hexdigest()
            linked = {"X-Linked-Size": str(len(faults.body)), "X-Linked-ETag": f'"{digest}"'}
            self._send(302, {"X-Repo-Commit": faults.commit, "Location": self._storage(), **linked})

    def _storage(self):
        """Where the Hub keeps large files: another host, which must not see the user's sign-in."""
        return self.faults.url.replace("127.0.0.1", "localhost").replace("file.bin", "storage")

    def _note_sign_in(self):
        if self.headers.get("Authorization"):
            self.faults.signed_in.append(self.path)

    def do_GET(self):
        faults, asked = self.faults, self.headers.get("Range", "")
        self._note_sign_in()
        if faults.commit and self.path != "/storage":
            found = f"/resolve/{faults.commit}/" in self.path
            self._head(302 if found else 404, {"Location": self._storage(), "Content-Length": "0"})
        elif faults.redirect and self.path != "/moved":
            self._head(302, {"Location": faults.redirect, "Content-Length": "0"})
        elif faults.answers:
            self._head(faults.answers.pop(0), {"Content-Length": "0", "Retry-After": "0"})
        else:
            self._body(asked)

    def _body(self, asked):
        faults, start, status = self.faults, 0, 200
        body, headers = faults.body, {"Content-Type": faults.kind}
        if faults.tagged:
            headers["ETag"] = faults.tag
        same = not faults.conditional or self.headers.get("If-Range", faults.tag) == faults.tag
        if asked and faults.ranges and same:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(body):
                self._head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        if not faults.chunked:
            headers["Content-Length"] = str(len(rest) if faults.claim is None else faults.claim - start)
        rest = rest[: faults.cut.pop(0)] if faults.cut else rest
        self._head(status, headers, sent=len(rest))
        with contextlib.suppress(OSError):
            self.wfile.write(rest)
        self.close_connection = True

    def _head(self, status, headers, sent=0):
        self.faults.asked.append((self.path, self.headers.get("Range", ""), sent))
        self._send(status, headers)

    def _send(self, status, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(**faults) -> Iterator[Faults]:
    """Serve `Faults(**faults)` on a port that the system chooses."""
    state = Faults(**faults)
    handler = type("Handler", (_Handler,), {"faults": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/file.bin"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
