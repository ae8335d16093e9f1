"""Events and health by HTTP POST, signed, and never lost: each is kept in the outbox until it is delivered.

    POST url        body: one message as JSON
    X-Nearfar-Id         the same for every attempt, so that a receiver can recognise a repetition
    X-Nearfar-Signature  t=<seconds>,v1=<hex HMAC-SHA256 of "<seconds>." + body with the shared secret>

2xx means delivered. After no answer, 408, 425, 429 and 5xx the message is tried again after 1, 2, 4 ... 60 s, in order,
also after a restart. After any other answer, a redirection too, the message is dropped and counted.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nearfar.live.history.history import History
from nearfar.live.language import ENGLISH, translated
from nearfar.live.sinks.messages import EVENT, HEALTH, Message
from nearfar.live.sinks.retry import RetryQueue

RETRY_STATUS = (408, 425, 429)
ATTEMPTS = 3  # times the time without a byte is the most that an attempt may take, byte by byte


def signature(secret: str, seconds: int, body: bytes) -> str:
    """The value of X-Nearfar-Signature; receivers compute it again, compare, and refuse old times."""
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def hook_url(url: str) -> str:
    """`url`, if messages can be posted there; ValueError if not."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url of a webhook must begin with http:// or https://, not {url!r}")
    if urlsplit(url).username is not None:
        raise ValueError("url of a webhook takes no user and password: messages are signed, see --webhook-secret")
    return url


class Webhook(RetryQueue):
    """A sink that posts events to `url`, their texts in `language`; undelivered ones are kept in `history`.

    `clock` gives the signed time.
    """

    def __init__(
        self,
        url: str,
        history: History,
        *,
        clock: Callable[[], float],
        secret: str = "",
        language: str = ENGLISH,
        timeout_s: float = 10.0,
        first_wait_s: float = 1.0,
    ) -> None:
        self.url, self.clock, self.secret, self.timeout_s = hook_url(url), clock, secret, timeout_s
        self.say = partial(translated, language=language)
        self._opener = urllib.request.build_opener(_NoRedirects)
        super().__init__(
            "webhook",
            self._post,
            history.outbox.mailbox("webhook", (EVENT, HEALTH)),
            first_wait_s=first_wait_s,
            attempt_s=ATTEMPTS * timeout_s,
        )

    def _post(self, message: Message) -> None:
        """Send one message; OSError if a retry may help, ValueError if it was refused."""
        body = message.json(self.say).encode()
        headers = {"Content-Type": "application/json", "X-Nearfar-Id": message.id, "User-Agent": "nearfar"}
        if self.secret:
            headers["X-Nearfar-Signature"] = signature(self.secret, int(self.clock()), body)
        request = urllib.request.Request(self.url, body, headers, method="POST")
        try:
            self._opener.open(request, timeout=self.timeout_s).close()
        except urllib.error.HTTPError as error:
            answered = f"answered {error.code} {error.reason}"
            raise (OSError if error.code >= 500 or error.code in RETRY_STATUS else ValueError)(answered) from None
        except urllib.error.URLError as error:
            why = getattr(error.reason, "strerror", None) or error.reason
            raise OSError(f"{urlsplit(self.url).hostname} does not answer ({why})") from None
        except http.client.HTTPException as error:
            raise OSError(f"the answer is no HTTP ({error})") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: urllib would repeat the request as a GET, without the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


def read_secret(path: str | os.PathLike[str]) -> str:
    """A secret from a file, stripped of white space. ValueError if it is empty."""
    text = Path(path).read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError(f"{path} holds no secret")
    return text
