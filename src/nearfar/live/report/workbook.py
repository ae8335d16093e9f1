"""A report as an Excel workbook: sheets of machines, alarms, scores, microphones and what people did; or of normals."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from nearfar.live.language import ENGLISH, date, translated
from nearfar.live.report.gather import DetectorReport, PlantReport
from nearfar.live.report.pages import ACTIONS, EVENT_KINDS, SAID, span_text
from nearfar.support.times import local_time

Sheet = tuple[str, Sequence[str], Iterable[Sequence[Any]]]
NEEDS_OPENPYXL = 'an Excel workbook needs openpyxl: pip install "nearfar[xlsx]", or write the report as .html'
WIDEST = 60  # characters of a column
NAMES = ("machine", "recording", "session", "report", "who", "by", "seen by")  # heads of columns that hold names


def report_workbook(report: PlantReport | DetectorReport, *, language: str = ENGLISH) -> bytes:
    """The workbook (.xlsx) of a report in a language; ImportError without the extra `xlsx`."""
    sheets = _detector_sheets(report) if isinstance(report, DetectorReport) else _plant_sheets(report)
    return _write(sheets, language)


def _plant_sheets(r: PlantReport) -> list[Sheet]:
    machines = [
        (m.name, m.word, len(m.alarms), m.answers["fault"], m.answers["fine"], m.answers[""], m.promised, m.kept,
         m.heard_s / 3600, m.unjudged, m.set_point, m.highest, m.near_dbfs, m.far_dbfs, _time(m.last_heard))
        for m in r.machines
    ]  # fmt: skip
    alarms = [
        (m.name, _time(e.started), _time(e.ended), e.peak_score, e.threshold, SAID[e.verdict], e.verdict_by,
         e.acknowledged_by, e.text)
        for m in r.machines for e in m.alarms
    ]  # fmt: skip
    other = [
        (m.name, EVENT_KINDS[e.kind], _time(e.started), _time(e.ended), e.text)
        for m in r.machines
        for e in (*m.health, *m.other)
    ]
    actions = [(m.name, _time(a.at), a.who, ACTIONS.get(a.action, a.action)) for m in r.machines for a in m.audit]
    trend = [
        (m.name, _time(w.t0), None if w.anomalous is None else w.score, w.threshold, w.status, w.problem)
        for m in r.machines
        for w in m.trend
    ]
    said = ("said: fault", "said: fine", "no answer", "promised false alarms", "kept")
    sound = ("heard, h", "not judged, windows", "set-point", "highest score", "near, dBFS", "far, dBFS", "last sound")
    heads = ("machine", "at the end", "alarms", *said, *sound)
    return [
        ("Machines", heads, machines),
        (
            "Alarms",
            ("machine", "began", "ended", "highest score", "set-point", "said", "by", "seen by", "what was heard"),
            alarms,
        ),
        ("Trend", ("machine", "time", "score", "set-point", "state", "why"), trend),
        ("Microphones and more", ("machine", "kind", "began", "ended", "what"), other),
        ("What people did", ("machine", "when", "who", "what"), actions),
        ("About", ("report", "span", "summary"), [(r.title, span_text(r), r.summary)]),
    ]


def _detector_sheets(r: DetectorReport) -> list[Sheet]:
    choices = [(1 / share, value, often, "no" if beyond else "yes") for share, value, often, beyond in r.choices]
    facts = [("backing", r.backing), ("method", r.why), ("microphones", r.microphones), ("set-point", r.set_point)]
    normals = [(n.name, n.score, n.seconds, n.session) for n in r.normals]
    shares = ("one false alarm in recordings", "set-point", "heard all day", "shown by the normals")
    return [
        ("Normals", ("recording", "score", "seconds", "session"), normals),
        ("Set-points", shares, choices),
        ("Unlike all others", ("recording", "standard deviations from the others"), r.unlike),
        ("About", ("what", "value"), [*facts, *(("promise", line) for line in r.expected)]),
    ]


def _time(at: float | None) -> datetime | None:
    """A time of this computer's zone, as Excel knows no zones."""
    return None if at is None else local_time(at).replace(microsecond=0)


def _write(sheets: Iterable[Sheet], language: str) -> bytes:
    try:
        from openpyxl import Workbook
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, Cell
        from openpyxl.styles import Font
        from openpyxl.utils import get_column_letter
    except ImportError:
        raise ImportError(NEEDS_OPENPYXL) from None

    book = Workbook()
    book.remove(book.active)
    dates = f"{date(language, 'yyyy', 'mm', 'dd')} hh:mm:ss"
    for name, heads, rows in sheets:
        sheet = book.create_sheet(translated(name, language))
        widths = [8] * len(heads)
        for i, row in enumerate([heads, *rows], 1):
            for j, value in enumerate(row, 1):
                if isinstance(value, str) and (i == 1 or heads[j - 1] not in NAMES):
                    value = translated(value, language)
                cell: Cell = sheet.cell(i, j)
                cell.value = ILLEGAL_CHARACTERS_RE.sub("�", value) if isinstance(value, str) else value
                if isinstance(value, str):
                    cell.data_type = "s"  # text that begins with = is no formula
                elif isinstance(value, float):
                    cell.number_format = "0.00"
                elif isinstance(value, datetime):
                    cell.number_format = dates
                size = 19 if isinstance(value, datetime) else 8 if isinstance(value, float) else len(str(value or ""))
                widths[j - 1] = min(WIDEST, max(widths[j - 1], size))
        for j, width in enumerate(widths, 1):
            sheet.cell(1, j).font = Font(bold=True)
            sheet.column_dimensions[get_column_letter(j)].width = width + 2
        sheet.freeze_panes = "A2"
        sheet.auto_filter.ref = sheet.dimensions
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()
