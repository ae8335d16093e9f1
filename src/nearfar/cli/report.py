"""The command `report`: what a person forwards, as a page or a workbook."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.cli.history import open_history
from nearfar.cli.live import machine_id
from nearfar.cli.options import command, spare
from nearfar.cli.terminal import echo

if TYPE_CHECKING:
    from nearfar.detector import Detector
    from nearfar.live.history.history import History
    from nearfar.live.report.gather import DetectorReport, Expected, PlantReport


@command
def report(
    source: Annotated[Path, typer.Argument(metavar="MODEL_OR_HISTORY", help="Folder of a detector or of a history.")],
    week: Annotated[bool, typer.Option("--week", help="The last 7 days instead of the last 24 hours.")] = False,
    until: Annotated[datetime | None, typer.Option(help="End of the span, in this computer's time zone [now].")] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="Detector of a machine of the history, for what is promised; repeatable.")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine of the history, by its id.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the report: en, de [that of this computer].")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write, .html or .xlsx.", callback=spare)
    ] = Path("report.html"),
) -> None:
    """Example: nearfar report pump3-history --week -o week.html

    Write what alarmed, what people said of it, the trend and the microphones' health; or what a detector was fitted on.
    """
    from nearfar.live.language import languages, of_system
    from nearfar.live.report.pages import report_page
    from nearfar.live.report.workbook import report_workbook
    from nearfar.support.check import one_of
    from nearfar.support.files import atomic_write

    language = one_of("language", language or of_system(), languages())
    ending = one_of("the ending of -o", output.suffix.lower(), (".html", ".xlsx"))
    if (source / "history.db").is_file():
        with open_history(source) as history:
            made: PlantReport | DetectorReport = _of_history(history, week, until, model or [], machine)
    else:
        made = _of_detector(source, bool(week or until or model or machine))
    make = report_page if ending == ".html" else report_workbook
    atomic_write(output, make(made, language=language))
    echo(f"Report        {output}")


def _of_history(
    history: History, week: bool, until: datetime | None, models: list[Path], only: str | None
) -> PlantReport:
    from nearfar.live.report.gather import SPANS, newest_record, plant_report
    from nearfar.live.report.pages import clock_text
    from nearfar.support.check import one_of

    end = time.time() if until is None else until.timestamp()
    name = history.folder.resolve().name
    if only is not None:
        one_of("machine", only, tuple(history.machines()))
    span, expected = SPANS["week" if week else "day"], _expected(history, models)
    made = plant_report(history, end, span, title=only or name, expected=expected, only=[only] if only else ())
    newest = newest_record(history)
    if newest is not None and newest < made.since and not any(m.alarms for m in made.machines):
        at = datetime.fromtimestamp(newest + 60)
        raise ValueError(
            f"nothing was heard from {clock_text(made.since)} to {clock_text(end)}; the newest sound is of "
            f"{clock_text(newest)}. For its report: nearfar report {history.folder} --until {at:%Y-%m-%dT%H:%M:%S}"
        )
    return made


def _of_detector(folder: Path, asks_for_a_span: bool) -> DetectorReport:
    from nearfar.detector import load
    from nearfar.live.report.gather import detector_report

    if asks_for_a_span:
        raise ValueError(
            f"{folder} holds no history.db: --week, --until, --model and --machine are for the folder of a history"
        )
    return detector_report(load(folder), folder.resolve().name)


def _expected(history: History, models: list[Path]) -> dict[str, Expected]:
    """What the detectors promise, by the machine of the history that each one scores."""
    from nearfar.detector import load

    machines = history.machines()
    found = {_machine_of(folder, machines): load(folder) for folder in models}
    return {id: expected_of(history, id, detector) for id, detector in found.items()}


def expected_of(history: History, id: str, detector: Detector, rate: float | None = None) -> Expected:
    """What a detector promises of a machine in the rhythm of its history; `rate` above the set-point [as monitored]."""
    from nearfar.live.report.gather import Expected
    from nearfar.live.rules.setpoint import set_point

    rhythm = history.rhythm(id, detector.window_s, detector.window_s / 2)
    return Expected(id, rhythm.per_week(set_point(detector, rhythm).rate if rate is None else rate))


def _machine_of(model: Path, machines: list[str]) -> str:
    """The machine of a history that a detector scores: the one with its name, or the only one."""
    id = machine_id(model.resolve().name)
    if id in machines or len(machines) == 1:
        return id if id in machines else machines[0]
    raise ValueError(f"--model {model}: no machine of the history is called {id!r}; there are: {', '.join(machines)}")
