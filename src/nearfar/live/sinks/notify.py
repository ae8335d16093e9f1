"""Messages to people: ntfy, Telegram, Slack, Teams, Discord, Pushover, e-mail and what else `apprise` reaches.

Each channel [notify.NAME] has an address, its rules (machines, kinds of events, quiet hours), a thread and a mailbox of
the outbox. A message that cannot be sent is tried again for GIVE_UP_S, by a steady clock; in quiet hours it waits. An
alarm carries a picture and SOUND_S of sound where the channel takes attachments; if that fails, it is sent alone.
"""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from nearfar.errors import NotFound
from nearfar.live.calendar import Span, end_of_all
from nearfar.live.history.archive import gain_db, peak_clip, wav
from nearfar.live.history.records import ALARM, HEALTH_EVENT, TREND, UNUSUAL, Event
from nearfar.live.language import ENGLISH, translated
from nearfar.live.report.file import asked_report
from nearfar.live.sinks.messages import EVENT, REPORT, EventMessage, Message, ReportMessage
from nearfar.live.sinks.retry import Later, RetryQueue
from nearfar.live.sinks.webhook import read_secret
from nearfar.support.times import local_time

if TYPE_CHECKING:
    from nearfar.live.config import NotifyConfig
    from nearfar.live.history.history import History
    from nearfar.live.machine import Machine

GIVE_UP_S = 86_400.0
SOUND_S = 10.0
NEEDS_APPRISE = 'messages to people need apprise: pip install "nearfar[notify]"'
TITLES = {ALARM: "Alarm", HEALTH_EVENT: "Microphone", TREND: "Slow rise", UNUSUAL: "Unusual"}
RAISED, CLEARED = "raised", "cleared"
Files = Sequence[tuple[str, bytes]]  # name and content of each attachment

_SENDING = threading.Lock()  # apprise sends in threads of its own, so its log is that of one message at a time


class Address:
    """Where messages go, from a URL of apprise. ValueError for another URL, ImportError without apprise."""

    def __init__(self, url: str) -> None:
        try:
            import apprise
        except ImportError:
            raise ImportError(NEEDS_APPRISE) from None
        logging.getLogger("apprise").propagate = False  # `send` takes what it says
        asset = apprise.AppriseAsset(app_id="nearfar", app_desc="nearfar", async_mode=False, secure_logging=True)
        made = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if made is None:
            scheme = url.partition(":")[0]
            raise ValueError(
                f"the {scheme}: address is none that apprise understands; see https://github.com/caronc/apprise, such "
                "as ntfy://ntfy.sh/my-topic or mailto://USER:PASSWORD@example.com"
            )
        self._target = apprise.Apprise(asset=asset)
        self._target.add(made)
        self.service, self.attaches = str(made.service_name), bool(made.attachment_support)

    def send(self, title: str, text: str, files: Files = ()) -> None:
        """Send a message. OSError says why it could not be sent."""
        log, said = logging.getLogger("apprise"), _Said(logging.WARNING)
        with _SENDING, tempfile.TemporaryDirectory(prefix="nearfar-") as folder:
            log.addHandler(said)
            try:
                paths = [Path(folder) / name for name, _ in files]
                for path, (_, content) in zip(paths, files, strict=True):
                    path.write_bytes(content)
                attach = [str(path) for path in paths] if self.attaches and paths else None
                if not self._target.notify(title=title, body=text, body_format="text", attach=attach):
                    raise OSError(f"{self.service} did not take the message ({said.text or 'it does not say why'})")
            finally:
                log.removeHandler(said)


class _Said(logging.Handler):
    """The last warning of apprise."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage().rstrip(".")


class Channel(RetryQueue):
    """One channel to people, a sink that writes in a language; `machines` are those of the plant."""

    def __init__(
        self,
        name: str,
        rules: NotifyConfig,
        machines: Mapping[str, Machine],
        history: History,
        *,
        clock: Callable[[], float],
        language: str = ENGLISH,
        steady: Callable[[], float] = monotonic,
        first_wait_s: float = 1.0,
    ) -> None:
        self.rules, self.clock, self.steady, self.history = rules, clock, steady, history
        self.language, self.say = language, partial(translated, language=language)
        self.machines = machines
        self.address = open_address(rules)
        self._quiet = [Span.parse(text) for text in rules.quiet]
        self._plain: Message | None = None  # could not be sent with attachments
        self._failing_since = 0.0  # that message, by a clock that is never set
        self._over: set[int] = set()  # events whose end was told with their beginning
        own = f"notify.{name}"
        mailbox = history.outbox.mailbox(own, (EVENT, REPORT))
        super().__init__(own, self._deliver, mailbox, label=name, first_wait_s=first_wait_s)

    def test(self) -> None:
        """Send a message at once, quiet hours or not. OSError says why it could not be sent."""
        title, text, files = trial(self.label)
        self.address.send(self.say(title), self.say(text), files)

    def quiet_until(self, at: float) -> float | None:
        """The end of the quiet hours that hold a time, or None."""
        return end_of_all(self._quiet, at)

    def _deliver(self, message: Message) -> None:
        now = self.clock()
        if not self._is_wanted(message):
            return
        if (end := self.quiet_until(now)) is not None:
            raise Later(end - now)
        title, text, files = self._report(message) if isinstance(message, ReportMessage) else self._event(message)
        try:
            self.address.send(self.say(title), self.say(text), files)
        except OSError as error:
            if message is not self._plain:
                self._plain, self._failing_since = message, self.steady()
            if self.steady() - self._failing_since > GIVE_UP_S:
                raise ValueError(f"{error}, for {GIVE_UP_S / 3600:.0f} h") from None
            raise

    def _report(self, m: ReportMessage) -> tuple[str, str, Files]:
        """Title, text and attachment of a report."""
        report, name, content = asked_report(m, self.history, self.machines, self.language)
        files = [(name, content)] if self.address.attaches and m is not self._plain else []
        title = f"Report of the {'day' if m.span == 'day' else 'week'}: {m.site}"
        return title, "\n".join(filter(None, [report.summary, m.url])), files

    def _event(self, message: Message) -> tuple[str, str, Files]:
        """Title, text and attachments of a message about an event."""
        assert isinstance(message, EventMessage)
        event = message.event
        machine, why = self.machines.get(event.machine), ""
        files: Files = ()
        if message.what == RAISED:
            with suppress(NotFound):
                event = self.history.event(event.id)  # it may be over: the message has waited
            if event.ended is not None:
                self._over.add(event.id)
            if self.rules.sound and self.address.attaches and message is not self._plain and machine is not None:
                why, files = evidence(machine, self.history.event_audio.path(event.audio), event, self.say)
        return *words(event, machine.name if machine else event.machine, message.url, why), files

    def _is_wanted(self, message: Message) -> bool:
        if isinstance(message, ReportMessage):
            return self.label in message.channels
        assert isinstance(message, EventMessage)
        event, rules = message.event, self.rules
        if event.kind not in rules.events or (rules.machines and event.machine not in rules.machines):
            return False
        return message.what == RAISED or (message.what == CLEARED and rules.over and event.id not in self._over)


def open_address(rules: NotifyConfig) -> Address:
    """The address of a channel."""
    return Address(read_secret(rules.url_file) if rules.url_file else rules.url)


def trial(name: str) -> tuple[str, str, Files]:
    """Title, text and attachment of a test message."""
    tone = np.sin(np.arange(16_000) * (2 * np.pi * 440 / 16_000)).astype(np.float32)
    text = f"This is a test of the channel {name!r}. If it takes attachments, a tone of one second comes with it."
    return "nearfar: a test", text, [("test.wav", wav(tone, 16_000, -10.0))]


def words(event: Event, name: str, url: str, why: str = "") -> tuple[str, str]:
    """Title and text of the message about an event; `why` says what differs."""
    since = _clock(event.started)
    over = "" if event.ended is None else f"It is over since {_clock(event.ended)}."
    if event.kind in (ALARM, UNUSUAL):
        limit = "alarm" if event.kind == ALARM else "unusual"
        sound = "wrong" if event.kind == ALARM else "unusual"
        first = f"Sounds {sound} since {since}: score {event.peak_score:.1f}, {limit} above {event.threshold:.1f}."
    else:
        first = f"Since {since}."
    said = event.text[:1].upper() + event.text[1:]
    lines = [f"{first} {over}".rstrip(), said and f"{said}." if not said.endswith((".", "?")) else said, why, url]
    title = f"{TITLES[event.kind]}: {name}"
    return f"{TITLES[event.kind]}: {name}, over" if over else title, "\n".join(filter(None, lines))


def evidence(machine: Machine, path: Path | None, event: Event, say: Callable[[str], str] = str) -> tuple[str, Files]:
    """What differs at the peak of an event in words, a picture of it and SOUND_S of its sound, as far as they exist."""
    if path is None:
        return "", []
    detector, why = machine.detector, ""
    files: Files = ()
    with suppress(OSError, ValueError):  # the sound has been deleted meanwhile: the message matters more
        peak_s = event.peak_t0 - event.audio_t0
        heard = peak_clip(path, peak_s, detector.window_s, SOUND_S)
        files = [("sound.wav", wav(heard.near, heard.rate, gain_db([heard])))]
        explained = detector.explain(peak_clip(path, peak_s, detector.window_s))
        why = explained.sentence()
        with suppress(ImportError):
            from nearfar.explain.pictures import deviation_png

            files = [("change.png", deviation_png(explained, say=say)), *files]
    return why, files


def _clock(at: float) -> str:
    return f"{local_time(at):%a %H:%M}" if math.isfinite(at) else "?"
