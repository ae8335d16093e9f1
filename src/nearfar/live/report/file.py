"""A report of the plant as a file: its name and its content, a page or a workbook; and the folder for such files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nearfar.live.history.history import History
from nearfar.live.language import ENGLISH, translated
from nearfar.live.machine import Machine
from nearfar.live.report.gather import SPANS, Expected, PlantReport, plant_report
from nearfar.live.report.pages import report_page
from nearfar.live.report.workbook import report_workbook
from nearfar.live.sinks.messages import REPORT, Message, ReportMessage
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.files import atomic_write
from nearfar.support.times import local_time


def report_file(
    history: History,
    machines: Iterable[Machine],
    until: float,
    span: str,
    form: str,
    *,
    title: str = "",
    only: Sequence[str] = (),
    language: str = ENGLISH,
) -> tuple[PlantReport, str, bytes]:
    """The report of the `span` (of SPANS) before `until`, the name of its file, and its content.

    `form` is html or xlsx; `only`: the ids of the machines that are wanted, none for all. Raises as `plant_report`
    does, ImportError without the extra `xlsx`.
    """
    expected = {m.id: Expected(m.name, m.false_alarms_per_week) for m in machines}
    title = title or translated("Plant", language)
    report = plant_report(history, until, SPANS[span], title=title, expected=expected, only=only)
    name = f"nearfar-{'-'.join(only) if len(only) == 1 else 'plant'}-{span}-{local_time(until):%Y-%m-%d}.{form}"
    if form == "html":
        return report, name, report_page(report, language=language).encode()
    return report, name, report_workbook(report, language=language)


def asked_report(
    m: ReportMessage, history: History, machines: Mapping[str, Machine], language: str
) -> tuple[PlantReport, str, bytes]:
    """The report that a message asks for; see `report_file`."""
    known = machines.values()
    return report_file(history, known, m.at, m.span, m.form, title=m.site, only=m.machines, language=language)


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
