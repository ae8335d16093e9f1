"""Events and health by HTTP POST, signed, and never lost: each waits as a file in a spool until it has been taken.

    POST url        body: one message as JSON
    X-Nearfar-Id         the same for every attempt: whoever receives twice can tell
    X-Nearfar-Signature  t=<seconds>,v1=<hex HMAC-SHA256 of "<seconds>." + body with the shared secret>

2xx is taken. No answer, 408, 425, 429 and 5xx are tried again after 1, 2, 4 ... 300 s, in order, also after a restart;
any other answer will not get better, so the message is dropped and counted. At most `limit` messages wait, the oldest
go first.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from nearfar import atomic
from nearfar.live.message import EVENT, HEALTH, Message

LIMIT = 10_000
LONGEST_WAIT_S = 300.0
AGAIN = (408, 425, 429)


def signature(secret: str, seconds: int, body: bytes) -> str:
    """The value of X-Nearfar-Signature; receivers compute it again, compare, and refuse old times."""
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


class Webhook:
    """A sink that posts events to `url`; `spool` is a folder of its own, `clock` gives the time that is signed."""

    def __init__(
        self,
        url: str,
        spool: Path,
        *,
        clock: Callable[[], float],
        secret: str = "",
        limit: int = LIMIT,
        timeout_s: float = 10.0,
        first_wait_s: float = 1.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a webhook is an http:// or https:// URL, not {url!r}")
        self.url, self.spool, self.clock, self.secret = url, spool, clock, secret
        self.limit, self.timeout_s, self.first_wait_s = limit, timeout_s, first_wait_s
        self.name, self.problem, self.dropped, self.sent = "webhook", "", 0, 0
        spool.mkdir(parents=True, exist_ok=True)
        waiting = self._waiting()
        self._next = int(waiting[-1].stem) + 1 if waiting else 1
        self._unsaved: list[bytes] = []  # the disk is full: in memory until there is room
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Take a message; events and health are kept, the others are not for here."""
        if message.kind not in (EVENT, HEALTH):
            return
        with self._change:
            self._unsaved.append(message.to_json().encode())
            self._save()
            self._change.notify_all()

    def close(self, wait_s: float = 5.0) -> None:
        """Stop; what has not been taken waits in the spool for the next time."""
        with self._change:
            self._save()
            self._closing = True
            self._change.notify_all()
        self._thread.join(wait_s)

    def _waiting(self) -> list[Path]:
        return sorted(p for p in self.spool.glob("*.json") if p.stem.isdecimal())

    def _save(self) -> bool:
        """What is in memory into the spool; whether there was room."""
        try:
            while self._unsaved:
                atomic.write(self.spool / f"{self._next:012d}.json", self._unsaved[0])
                self._unsaved.pop(0)
                self._next += 1
        except OSError as error:
            self.problem = f"webhook spool {self.spool}: {error.strerror or error}"
            return False
        for old in (self._waiting() if self._next % 100 == 0 else [])[: -self.limit]:
            old.unlink(missing_ok=True)
            self.dropped += 1
        return True

    def _run(self) -> None:
        wait = self.first_wait_s
        while not self._closing:
            with self._change:  # looked up inside, or a message that is put in between would not wake it
                waiting = self._waiting()
                if not waiting:
                    if not self._unsaved:
                        self._change.wait(timeout=LONGEST_WAIT_S)
                    elif not self._save():
                        self._change.wait(timeout=wait)
                    continue
            trouble = self._post(waiting[0])
            self.problem = trouble
            if not trouble:
                wait = self.first_wait_s
                continue
            with self._change:
                self._change.wait_for(lambda: self._closing, timeout=wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _post(self, file: Path) -> str:
        """Send one message; "" if it is done with, else why it has to wait."""
        try:
            body = file.read_bytes()
            headers = {"Content-Type": "application/json", "X-Nearfar-Id": file.stem, "User-Agent": "nearfar"}
            if self.secret:
                headers["X-Nearfar-Signature"] = signature(self.secret, int(self.clock()), body)
            request = urllib.request.Request(self.url, body, headers, method="POST")
            with urllib.request.urlopen(request, timeout=self.timeout_s):
                self.sent += 1
        except FileNotFoundError:
            return ""
        except urllib.error.HTTPError as error:
            if error.code >= 500 or error.code in AGAIN:
                return f"webhook: answered {error.code} {error.reason}"
            self.dropped += 1
        except (OSError, ValueError) as error:  # ValueError: an answer that is no HTTP
            return f"webhook: {getattr(error, 'reason', error)}"
        file.unlink(missing_ok=True)
        return ""


def read_secret(path: str | os.PathLike[str]) -> str:
    """A secret from a file, without the line's end. ValueError if it is empty."""
    text = Path(path).read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError(f"{path} holds no secret")
    return text
