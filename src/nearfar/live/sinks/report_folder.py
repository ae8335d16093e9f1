"""A folder into which reports are written, each a file that appears whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nearfar.live.history.history import History
from nearfar.live.language import ENGLISH
from nearfar.live.machine import Machine
from nearfar.live.report.file import asked_report
from nearfar.live.sinks.messages import REPORT, Message, ReportMessage
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.files import atomic_write


def report_folder(
    folder: Path,
    machines: Mapping[str, Machine],
    history: History,
    *,
    language: str = ENGLISH,
    first_wait_s: float = 1.0,
) -> RetryQueue:
    """A sink that writes the reports of [report] to `folder`; while that fails, it tries again."""

    def deliver(message: Message) -> None:
        assert isinstance(message, ReportMessage)
        _, name, content = asked_report(message, history, machines, language)
        atomic_write(folder / name, content)

    return RetryQueue("reports", deliver, history.outbox.mailbox("reports", (REPORT,)), first_wait_s=first_wait_s)
