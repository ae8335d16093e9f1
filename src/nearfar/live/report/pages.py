"""A report as one HTML page: nothing is fetched and nothing runs; light, dark, and A4 on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from nearfar.explain.render import NONE, render
from nearfar.live.history.records import ALARM, FAULT, FINE, HEALTH_EVENT, Event, ScoreRecord
from nearfar.live.language import ENGLISH, texts, translated
from nearfar.live.report.gather import DetectorReport, MachineReport, PlantReport
from nearfar.live.rules.rhythm import DAY_S
from nearfar.support.times import local_time

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 200, 40, 8, 14, 24
EDGE = 24  # half of a label of the axis
FEWEST_GAPS = 90  # a gap longer than 1 in this many of the span is no line
KINDS = {
    "Alarm": ("alarm", "▲"),
    "Had alarms": ("alarm", "△"),
    "Unusual": ("odd", "◆"),
    "Fine": ("fine", "●"),
}  # the others: mute
SAID = {FINE: "It was fine", FAULT: "Real fault", "": "No answer yet"}
EVENT_KINDS = {ALARM: "Alarm", HEALTH_EVENT: "Microphone", "trend": "Slow rise", "unusual": "Unusual for a time"}
ACTIONS = {
    "fine": "said that it was fine",
    "fault": "said that it was a fault",
    "acknowledge": "saw the alarm",
    "shelve": "shelved the alarm",
    "unshelve": "ended the shelving",
    "set-point": "changed the set-point",
    "add": "added normal recordings",
    "undo": "undid a change",
    "reload": "changed the model from the command line",
    "maintenance": "marked maintenance",
    "no maintenance": "removed maintenance",
    "note": "noted",
    "remove": "took recordings out of the normals",
    "tag": "named a session",
    "score": "scored a recording",
    "machine added": "added the machine",
    "machine replaced": "fitted or changed the machine",
    "machine removed": "removed the machine",
}


@dataclass(frozen=True)
class Trend:
    """Scores over time as parts of an SVG picture of WIDTH x HEIGHT."""

    line: str
    points: tuple[tuple[float, float], ...]  # windows without a neighbour
    limit: str
    dots: tuple[tuple[float, float], ...]  # peaks of alarms
    spans: tuple[tuple[float, float], ...]  # alarms: x and width
    gaps: tuple[tuple[float, float], ...]  # windows that cannot be judged
    times: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]


def report_page(
    report: PlantReport | DetectorReport, *, link: tuple[str, str] | None = None, language: str = ENGLISH
) -> str:
    """The page (HTML) of a report in a language; `link` (address, words) stands at its end."""
    t, w = texts("reports", language), partial(translated, language=language)
    shared = {"t": t, "w": w, "language": language, "r": report}
    if isinstance(report, DetectorReport):
        title = t("title of a detector", title=report.title)
        return render("detector.html.j2", "nearfar.live.report", title=title, **shared)
    return render(
        "plant.html.j2",
        "nearfar.live.report",
        title=t("title", title=report.title, span=span_text(report)),
        **shared,
        link=link,
        trends={m.id: trend(m, report.since, report.until) for m in report.machines},
        size=(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
        kinds=KINDS,
        said=SAID,
        event_kinds=EVENT_KINDS,
        actions=ACTIONS,
        clock=clock_text,
        lasted=lasted_text,
        hours=hours_text,
        level=level_text,
        zone=local_time(report.until).astimezone().strftime("UTC%z"),
    )


def span_text(report: PlantReport) -> str:
    """The span of a report, in the time zone of this computer."""
    return f"{clock_text(report.since)} to {clock_text(report.until)}"


def clock_text(at: float | None) -> str:
    """A time in the time zone of this computer: "Fri 2026-11-27 14:05"."""
    return NONE if at is None else f"{local_time(at):%a %Y-%m-%d %H:%M}"


def lasted_text(event: Event, until: float) -> str:
    """How long an event lasted, or that it still stands."""
    if event.ended is None:
        return f"stands since {hours_text(until - event.started)}"
    return hours_text(event.ended - event.started) + (" (then the monitor stopped)" if event.interrupted else "")


def hours_text(seconds: float) -> str:
    """A length of time in a readable unit."""
    if seconds >= 2 * DAY_S:
        return f"{seconds / DAY_S:.3g} days"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def level_text(dbfs: float | None) -> str:
    """A level in words of the unit."""
    return "not recorded" if dbfs is None else f"{dbfs:.0f} dB of full scale".replace("-", "−")


def trend(machine: MachineReport, since: float, until: float) -> Trend | None:
    """The picture of a machine's scores; None without a window."""
    rows = machine.trend
    if not rows:
        return None
    judged = [row for row in rows if row.anomalous is not None]
    limits = [row.threshold for row in rows]
    high = 1.1 * max([*(row.score for row in judged), *limits, 1.0])
    low = min([*(row.score for row in judged), 0.0])

    def x(t: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (min(max(t, since), until) - since) / (until - since), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    apart = max((until - since) / FEWEST_GAPS, *(6 * (row.t1 - row.t0) for row in rows))
    runs = _runs(judged, apart)
    line = " ".join(
        " ".join(f"{'L' if i else 'M'}{x(p.t0)} {y(p.score)}" for i, p in enumerate(run)) for run in runs if run[1:]
    )
    steps = [
        f"M{LEFT} {y(limits[0])}",
        *(f"H{x(b.t0)}V{y(b.threshold)}" for a, b in pairwise(rows) if a.threshold != b.threshold),
    ]
    unjudged = _runs([row for row in rows if row.anomalous is None], apart)
    spans = [(x(e.started), x(until if e.ended is None else e.ended)) for e in machine.alarms]
    return Trend(
        line=line,
        points=tuple((x(run[0].t0), y(run[0].score)) for run in runs if not run[1:]),
        limit=f"{''.join(steps)}H{WIDTH - RIGHT}",
        dots=tuple((x(e.peak_t0), y(min(e.peak_score, high))) for e in machine.alarms if e.peak_t0 >= since),
        spans=tuple((a, max(2.0, round(b - a, 1))) for a, b in spans),
        gaps=tuple((x(run[0].t0), max(2.0, round(x(run[-1].t1) - x(run[0].t0), 1))) for run in unjudged),
        times=tuple((x(t), text) for t, text in _times(since, until) if x(t) < WIDTH - EDGE),
        marks=tuple((y(v), f"{v:g}") for v in _marks(low, high)),
    )


def _runs(rows: Sequence[ScoreRecord], apart: float) -> list[list[ScoreRecord]]:
    """Rows of which neighbours begin at most `apart` s after each other."""
    runs: list[list[ScoreRecord]] = []
    for row in rows:
        if runs and row.t0 - runs[-1][-1].t0 <= apart:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _times(since: float, until: float) -> Iterator[tuple[float, str]]:
    """Labels of the axis: hours of a day, else days, in the time zone of this computer."""
    step, form = (4 * 3600.0, "%H:%M") if until - since <= 1.5 * DAY_S else (DAY_S, "%a %d")
    offset = local_time(since).astimezone().utcoffset()
    zone = offset.total_seconds() if offset else 0.0
    at = -(-(since + zone) // step) * step - zone
    while at < until:
        yield at, local_time(at).strftime(form)
        at += step


def _marks(low: float, high: float) -> list[float]:
    """Three to seven round numbers in [low, high]."""
    step = next(s * 10.0**e for e in range(-2, 9) for s in (1, 2, 5) if (high - low) / (s * 10.0**e) <= 6)
    return [i * step for i in range(int(-(-low // step)), int(high // step) + 1)]
