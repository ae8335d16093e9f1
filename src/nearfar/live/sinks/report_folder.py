"""A folder into which reports are written, each a file that appears whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nearfar.live.history.history import History
from nearfar.live.language import ENGLISH
from nearfar.live.machine import Machine
from nearfar.live.report.file import report_file
from nearfar.live.sinks.messages import REPORT, Message, ReportMessage
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.files import atomic_write


class ReportFolder(RetryQueue):
    """A sink that writes the reports of [report] to `folder`; while that fails, it tries again."""

    def __init__(
        self,
        folder: Path,
        machines: Sequence[Machine],
        history: History,
        *,
        language: str = ENGLISH,
        first_wait_s: float = 1.0,
    ) -> None:
        self.folder, self.history, self.language = folder, history, language
        self.machines = {machine.id: machine for machine in machines}
        box = history.outbox.mailbox("reports", (REPORT,))
        super().__init__("reports", self._deliver, box, first_wait_s=first_wait_s)

    def add_machine(self, machine: Machine, at: float) -> None:
        """A machine is new, or takes the place of the one with its id."""
        self.machines = {**self.machines, machine.id: machine}

    def remove_machine(self, id: str) -> None:
        """A machine has gone."""
        self.machines = {other: machine for other, machine in self.machines.items() if other != id}

    def _deliver(self, message: Message) -> None:
        assert isinstance(message, ReportMessage)
        m = message
        _, name, content = report_file(
            self.history,
            self.machines.values(),
            m.at,
            m.span,
            m.form,
            title=m.site,
            only=m.machines,
            language=self.language,
        )
        atomic_write(self.folder / name, content)
