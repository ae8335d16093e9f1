"""Reports that come by themselves: every day or every week at an hour of this computer's zone.

A report that is due becomes a message to the channels and the folder of [report], in one transaction with the entry of
the audit that says so: no restart sends it again. What was due while the computer slept is made up for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

from nearfar.errors import DamagedHistory
from nearfar.live.calendar import DAYS
from nearfar.live.events import Reporter
from nearfar.live.history.records import Audit
from nearfar.live.report.gather import SPANS
from nearfar.live.sinks.messages import REPORT, ReportMessage
from nearfar.live.sinks.retry import RetryQueue
from nearfar.support.times import local_time

if TYPE_CHECKING:
    from nearfar.live.config import ReportConfig
    from nearfar.live.machine import Machine

SCHEDULED = "report"  # the action of the audit


@dataclass(frozen=True)
class Schedule:
    """Once a day at `at`, or once a week on `weekday` (0: Monday).

    An hour that the change to summer time skips comes an hour later on that day; one that the change back repeats comes
    once, the first time.
    """

    at: time
    weekday: int | None = None

    def after(self, moment: float) -> float:
        """The first time (s since 1970, UTC) after `moment` at which a report is due."""
        day = local_time(moment).date()
        days = (day + timedelta(days=ahead) for ahead in range(-1, 9))
        times = (datetime.combine(d, self.at).timestamp() for d in days if self.weekday in (None, d.weekday()))
        return min(t for t in times if t > moment)

    def between(self, since: float, until: float) -> list[float]:
        """The times in (since, until] at which a report is due."""
        found = []
        while (since := self.after(since)) <= until:
            found.append(since)
        return found


class ScheduledReports:
    """The reports of a running plant; `check` is called every second. Its sinks and its history are the reporter's."""

    def __init__(
        self,
        config: ReportConfig,
        site: str,
        machines: Mapping[str, Machine],
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self.config, self.site, self.machines, self.reporter, self.clock = config, site, machines, reporter, clock
        self.history, self.span_s = reporter.history, SPANS[config.every]
        weekday = DAYS.index(config.on.capitalize()) if config.every == "week" else None
        self.schedule = Schedule(time.fromisoformat(config.at), weekday)
        newest = self.history.audit("", action=SCHEDULED, limit=1)
        self.done = float(newest[0].detail["until"]) if newest else self.begin()

    @property
    def next(self) -> float:
        """When the next report is due."""
        return self.schedule.after(max(self.done, self.clock()))

    @property
    def places(self) -> list[str]:
        """Where reports go: channels, and the folder."""
        folder = [] if self.config.folder is None else [str(self.config.folder)]
        return [*self.config.channels, *folder]

    def check(self) -> None:
        """Send what is due; the newest in any case, older ones if something was heard in their span."""
        now = self.clock()
        if self.done > now + 2 * self.span_s:  # the clock was wrong
            self.begin()
        due = self.schedule.between(max(self.done, now - self.history.keep_s), now)
        with suppress(OSError, DamagedHistory):  # the history cannot be read now: again in a second
            for at in due:
                if (at == due[-1] and self.machines) or self._heard(at):
                    self._send(at)
                self.done = at

    def begin(self) -> float:
        """Reports are due from now on; returns the time, which the audit keeps."""
        self.done = self.clock()
        self.history.record_audit(Audit(0, self.done, "nearfar", "", SCHEDULED, {"until": self.done}))
        return self.done

    def _heard(self, until: float) -> bool:
        ids = self.config.machines or self.history.machines()
        return any(True for id in ids for _ in self.history.iter_scores(id, until - self.span_s, until))

    def _send(self, at: float) -> None:
        c, url = self.config, self.reporter.url.rstrip("/")
        link = url and f"{url}/v1/report?span={c.every}&until={at:.0f}"
        message = ReportMessage("", self.site, at, c.every, c.format, c.machines, c.channels, link)
        audit = Audit(0, self.clock(), "nearfar", "", SCHEDULED, {"until": at, "span": c.every})
        self.history.record_audit(audit, message)
        for sink in tuple(self.reporter.sinks):
            if isinstance(sink, RetryQueue) and sink.keeps(REPORT):
                sink.put(message)
