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


class ReportFolder(RetryQueue):
    """A sink that writes the reports of [report] to `folder`; while that fails, it tries again."""

    def __init__(
        self,
        folder: Path,
        machines: Mapping[str, Machine],
        history: History,
        *,
        language: str = ENGLISH,
        first_wait_s: float = 1.0,
    ) -> None:
        self.folder, self.machines, self.history, self.language = folder, machines, history, language
        box = history.outbox.mailbox("reports", (REPORT,))
        super().__init__("reports", self._deliver, box, first_wait_s=first_wait_s)

    def _deliver(self, message: Message) -> None:
        assert isinstance(message, ReportMessage)
        _, name, content = asked_report(message, self.history, self.machines, self.language)
        atomic_write(self.folder / name, content)
