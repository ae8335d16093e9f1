"""What a report says: counts, events and words, read from a history in one pass, or from a detector.

Times are seconds since 1970 (UTC), levels dB of full scale. Scores are in standard deviations of the normals.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from nearfar.detector.system import resolution_of
from nearfar.errors import BadInput, NotFound
from nearfar.live.calendar import MAINTENANCE
from nearfar.live.history.records import ALARM, FAULT, FINE, HEALTH_EVENT, UNUSUAL, Audit, Event, ScoreRecord
from nearfar.live.rules.alarm import WEEK_S
from nearfar.live.rules.rhythm import DAY_S, all_day, count_text
from nearfar.live.rules.setpoint import expected_alarms, how_often
from nearfar.support.words import plural

if TYPE_CHECKING:
    from nearfar.detector import Detector
    from nearfar.live.history.history import History

SPANS = {"day": DAY_S, "week": WEEK_S}
POINTS = 600  # of a trend
MOST = 1000  # events and audit entries of a machine
SHARES = (0.1, 0.05, 0.02, 0.01, 0.005)
SILENT_S, SILENT_GAPS = 3600.0, 6  # a machine is silent after the longer of an hour and SILENT_GAPS of its mean gaps


@dataclass(frozen=True)
class Expected:
    """What a set-point promises of a machine: at most this many false alarms a week."""

    name: str
    false_alarms_per_week: float


@dataclass(frozen=True)
class MachineReport:
    """One machine in a span. `unjudged` windows cannot be judged; `problems` counts the most frequent reasons.

    `set_point` is that of the newest window, `expected_alarms` the most false alarms promised for the span (None: not
    known).
    """

    id: str
    name: str
    windows: int
    heard_s: float
    last_heard: float | None
    last_anomalous: bool | None
    in_maintenance: bool  # at the end of the span
    silent: bool  # at the end of the span, for longer than the machine's rhythm explains
    set_point: float | None
    highest: float | None
    unjudged: int
    problems: tuple[tuple[str, int], ...]
    near_dbfs: float | None
    far_dbfs: float | None
    trend: tuple[ScoreRecord, ...] = field(repr=False)
    alarms: tuple[Event, ...]
    health: tuple[Event, ...]
    other: tuple[Event, ...]
    audit: tuple[Audit, ...]
    expected_alarms: float | None
    promised: str

    @property
    def word(self) -> str:
        """The state at the end of the span in one word or two."""
        if any(e.ended is None for e in self.alarms):
            return "Alarm"
        if not self.windows:
            return "Not heard"
        if self.silent:
            return "No new sound"
        if self.last_anomalous is None:
            return "Maintenance" if self.in_maintenance else "Cannot judge"
        if any(e.kind == UNUSUAL and e.ended is None for e in self.other):
            return "Unusual"
        return "Had alarms" if self.alarms else "Fine"

    @property
    def answers(self) -> dict[str, int]:
        """How many alarms were called a fault, fine, or nothing ("")."""
        counts = Counter(e.verdict for e in self.alarms)
        return {verdict: counts[verdict] for verdict in (FAULT, FINE, "")}

    @property
    def came(self) -> str:
        """The alarms of the span and what people said of them."""
        if not self.alarms:
            return "no alarm"
        said = self.answers
        words = {FAULT: f"{said[FAULT]} a fault", FINE: f"{said[FINE]} fine", "": f"{said['']} without an answer"}
        parts = [text for verdict, text in words.items() if said[verdict]]
        return f"{plural(len(self.alarms), 'alarm')}: {', '.join(parts)}"

    @property
    def kept(self) -> str:
        """Whether the promise about false alarms was kept, as far as people have answered; "" if none is known."""
        if self.expected_alarms is None or not self.windows:
            return ""
        false, unanswered, most = self.answers[FINE], self.answers[""], self.expected_alarms
        chance = most_by_chance(most)
        where = (
            f"{plural(false, 'false alarm')} where at most {count_text(most)} {'is' if most <= 1 else 'are'} expected"
        )
        if false > chance:
            return f"not kept: {where}, more than chance explains"
        if false + unanswered > chance:
            return f"not decided: {where}, and {plural(unanswered, 'alarm')} without an answer"
        return f"kept: {where}" if false <= most else f"not contradicted: {where}; chance explains up to {chance:.0f}"


@dataclass(frozen=True)
class PlantReport:
    """All machines of a plant in [since, until)."""

    title: str
    since: float
    until: float
    machines: tuple[MachineReport, ...]

    @property
    def summary(self) -> str:
        """What happened, in two sentences."""
        alarms = [e for m in self.machines for e in m.alarms]
        names = _listed([m.name for m in self.machines if m.alarms])
        said = [f"{plural(len(self.machines), 'machine')}, no alarm."]
        if alarms:
            said = [f"{plural(len(self.machines), 'machine')}, {plural(len(alarms), 'alarm')} on {names}."]
        if standing := [m.name for m in self.machines if m.word == "Alarm"]:
            names = _listed(standing)
            said.append(
                f"The alarms on {names} still stand." if standing[1:] else f"The alarm on {names} still stands."
            )
        if count := sum(not e.verdict for e in alarms):
            unanswered = plural(count, "alarm")
            said.append(f"{unanswered} {'has' if count == 1 else 'have'} no answer yet.")
        if mute := [m.name for m in self.machines if m.word in ("Not heard", "No new sound", "Cannot judge")]:
            names = _listed(mute)
            said.append(f"{names}: no usable sound at the end.")
        return " ".join(said)


@dataclass(frozen=True)
class Normal:
    """A normal recording and its score among the others."""

    name: str
    score: float
    seconds: float
    session: str


@dataclass(frozen=True)
class DetectorReport:
    """What a detector was fitted on, and what its set-point promises."""

    title: str
    normals: tuple[Normal, ...]  # most unusual first
    minutes: float
    backing: str
    warning: str
    why: str
    microphones: str
    window_s: float
    set_point: float
    expected: tuple[str, ...]
    choices: tuple[tuple[float, float, str, bool], ...]  # share, set-point, how often, beyond the normals
    unlike: tuple[tuple[str, float], ...]


def most_by_chance(expected: float) -> float:
    """Counts up to this one are no surprise (1 in 40) where `expected` false alarms are the most: Poisson."""
    from scipy.stats import poisson

    return float(poisson.ppf(0.975, expected))


def plant_report(
    history: History,
    until: float,
    span_s: float,
    *,
    title: str = "Plant",
    expected: Mapping[str, Expected] | None = None,
    only: Sequence[str] = (),
) -> PlantReport:
    """The machines of a history in the `span_s` before `until`; those in `expected` are listed though not heard.

    `only` are the ids of the machines that are wanted, () for all.

    BadInput if there is neither a record nor an expected machine, NotFound if one of `only` is unknown.
    """
    known = dict(expected or {})
    ids = sorted({*history.machines(), *known})
    if unknown := set(only) - set(ids):
        raise NotFound(f"there is no machine {min(unknown)!r} in {history.folder}; there are: {', '.join(ids)}")
    if not ids:
        raise BadInput(f"{history.folder} holds no scores yet, so there is nothing to report")
    since = until - span_s
    machines = [_machine_report(history, id, since, until, known.get(id)) for id in only or ids]
    order = ("Alarm", "Unusual", "Had alarms", "Cannot judge", "Not heard", "No new sound", "Maintenance", "Fine")
    return PlantReport(title, since, until, tuple(sorted(machines, key=lambda m: (order.index(m.word), m.name))))


def newest_record(history: History) -> float | None:
    """The end of the newest window of all machines, or None."""
    ends = [history.last_window_end(id, 0.0) for id in history.machines()]
    return max((end for end in ends if end is not None), default=None)


def detector_report(detector: Detector, title: str) -> DetectorReport:
    """What a fitted detector was fitted on, and what its set-point promises."""
    point, rhythm = detector.threshold, all_day(detector.window_s)
    lowest = resolution_of(detector.train_values, point, detector.method).lowest_rate
    sessions = detector.sessions or [""] * len(detector.normals)
    rows = zip(detector.normals, detector.train_values, sessions, strict=True)
    normals = [Normal(n.name, float(score), n.seconds, session) for n, score, session in rows]
    far = f"near in channel {detector.near}, " + (
        "no far microphone" if detector.far is None else f"far in channel {detector.far}"
    )
    return DetectorReport(
        title=title,
        normals=tuple(sorted(normals, key=lambda n: -n.score)),
        minutes=sum(n.seconds for n in normals) / 60,
        backing=str(detector.backing),
        warning=detector.backing.warning if detector.grouped else "",
        why=detector.why,
        microphones=far,
        window_s=detector.window_s,
        set_point=point.value,
        expected=tuple(expected_alarms(detector, point, rhythm)),
        choices=tuple(
            (share, detector.threshold_for(share).value, how_often(rhythm.per_week(share)), share < 0.999 * lowest)
            for share in SHARES
        ),
        unlike=tuple((detector.normals[i].name, z) for i, z in detector.unlike_the_others()),
    )


def _machine_report(history: History, id: str, since: float, until: float, expected: Expected | None) -> MachineReport:
    windows, heard_s, first, end, highest = 0, 0.0, since, -math.inf, None
    problems: Counter[str] = Counter()
    levels = array("f"), array("f")
    last: ScoreRecord | None = None
    for last in history.iter_scores(id, since, until):
        windows += 1
        first = last.t0 if windows == 1 else first
        heard_s += max(0.0, last.t1 - max(last.t0, end))
        end = max(end, last.t1)
        if last.anomalous is None:
            problems[last.problem or "no usable sound"] += 1
        elif highest is None or last.score > highest:
            highest = last.score
        for kept, level in zip(levels, (last.level_near_dbfs, last.level_far_dbfs), strict=True):
            if level is not None and math.isfinite(level):
                kept.append(level)
    near, far = (float(median(kept)) if kept else None for kept in levels)
    events = history.events(id, since=since, until=until, limit=MOST)
    known = (ALARM, HEALTH_EVENT)
    per_week = None if expected is None else expected.false_alarms_per_week
    return MachineReport(
        id=id,
        name=expected.name if expected else id,
        windows=windows,
        heard_s=heard_s,
        last_heard=end if windows else _before(history.last_window_end(id, 0.0), since),
        last_anomalous=last.anomalous if last else None,
        in_maintenance=last is not None and last.problem.startswith(MAINTENANCE),
        silent=until - end > max(SILENT_S, SILENT_GAPS * (end - first) / max(windows, 1)),
        set_point=last.threshold if last else None,
        highest=highest,
        unjudged=problems.total(),
        problems=tuple(problems.most_common(5)),
        near_dbfs=near,
        far_dbfs=far,
        trend=tuple(history.scores(id, since, until, POINTS)),
        alarms=tuple(e for e in events if e.kind == ALARM),
        health=tuple(e for e in events if e.kind == HEALTH_EVENT),
        other=tuple(e for e in events if e.kind not in known),
        audit=tuple(a for a in history.audit(id, limit=MOST) if since <= a.at < until),
        expected_alarms=None if per_week is None else per_week * (until - since) / WEEK_S,
        promised="not known" if per_week is None else f"at most {how_often(per_week)}",
    )


def _before(at: float | None, limit: float) -> float | None:
    return at if at is not None and at < limit else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
