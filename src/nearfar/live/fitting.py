"""New machines from a folder of normal recordings, fitted while the plant runs: jobs, one after the other.

    waiting -> listening -> done | failed | cancelled

A detector is written whole to the plant's folder of models, and only then the machine becomes live. A job that fails,
is cancelled or dies with the process leaves nothing behind.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from nearfar.audio.recordings import find, select_normals
from nearfar.detector import Detector
from nearfar.errors import BadInput, Conflict, NotFound
from nearfar.live.machine import NAME
from nearfar.live.roster import Roster
from nearfar.support.words import plural, shown

WAITING, LISTENING, DONE, FAILED, CANCELLED = "waiting", "listening", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
KEPT = 50  # newest jobs that are remembered
MOST_WAITING = 8


@dataclass(frozen=True)
class FitJob:
    """A machine that is being fitted; `what` is the present work or the result, `notes` what the user should know."""

    id: int
    machine: str
    name: str
    folder: Path
    source: str
    who: str
    state: str = WAITING
    done: int = 0
    total: int | None = None
    what: str = ""
    notes: tuple[str, ...] = ()
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)


class Fitting:
    """The jobs of a plant; `fitted(id)` is called for each machine that became live."""

    def __init__(self, roster: Roster, fitted: Callable[[str], None]) -> None:
        self.roster, self.fitted = roster, fitted
        self._jobs: dict[int, FitJob] = {}
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "nearfar-fit")

    def start(self, machine: str, folder: Path, who: str, *, name: str = "", source: str = "") -> FitJob:
        """Begin to fit a machine on the recordings in `folder`; `source` is what it listens to then, "" for nothing.

        BadInput for a wrong id or folder, Conflict if there is such a machine or model, or too many jobs wait.
        """
        models = self.roster.config.models
        if models is None:
            raise Conflict("this server fits no machines: start it as `nearfar`, or set models in its configuration")
        if not NAME.fullmatch(machine):
            raise BadInput(f"the machine {machine!r} must be letters, digits, - and _")
        if not folder.is_dir():
            raise BadInput(f"there is no folder {shown(folder)} on the computer that runs nearfar")
        with self._lock:
            waiting = [job for job in self._jobs.values() if job.state not in ENDED]
            if machine in self.roster.plant.machines or any(job.machine == machine for job in waiting):
                raise Conflict(f"there is a machine {machine!r} already: choose another name")
            if (models / machine).exists():
                raise Conflict(f"{models / machine} is there already: choose another name, or move that folder away")
            if len(waiting) >= MOST_WAITING:
                raise Conflict(f"{plural(len(waiting), 'machine')} wait to be fitted: try again when one is done")
            job = FitJob(max(self._jobs, default=0) + 1, machine, name or machine, folder, source, who)
            self._jobs[job.id] = job
            for old in [id for id, j in self._jobs.items() if j.state in ENDED][:-KEPT]:
                del self._jobs[old]
        self._worker.submit(self._run, job.id)
        return job

    def job(self, id: int) -> FitJob:
        """A job as it is now; NotFound if there is none."""
        with self._lock:
            if id not in self._jobs:
                raise NotFound(f"there is no job {id}")
            return self._jobs[id]

    def jobs(self) -> list[FitJob]:
        """All jobs that are remembered, newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: -job.id)

    def cancel(self, id: int) -> FitJob:
        """Stop a job before its machine is live; Conflict if it has ended."""
        job = self.job(id)
        if job.state in ENDED:
            raise Conflict(f"job {id} has ended: {job.state}")
        job.cancelled.set()
        return job

    def close(self) -> None:
        """Cancel all jobs, and wait for the present one to stop."""
        for job in self.jobs():
            job.cancelled.set()
        self._worker.shutdown(cancel_futures=True)

    def _change(self, id: int, **changes: object) -> None:
        with self._lock:
            self._jobs[id] = replace(self._jobs[id], **changes)  # type: ignore[arg-type]

    def _run(self, id: int) -> None:
        job = self.job(id)
        try:
            self._change(id, state=LISTENING, what="looking for recordings")
            notes = self._fit(job)
        except _Cancelled:
            self._change(id, state=CANCELLED, what="cancelled; nothing was kept")
        except (ValueError, OSError, ImportError, LookupError, MemoryError) as error:
            self._change(id, state=FAILED, what=str(error) or "the memory of this computer is too small for this")
        except Exception as error:
            self._change(id, state=FAILED, what=f"nearfar itself failed: {error}")
            raise
        else:
            self._change(id, state=DONE, what="it is live", notes=tuple(notes))
            self.fitted(job.machine)

    def _fit(self, job: FitJob) -> list[str]:
        """Fit, save and put the machine into the plant; returns notes for the user."""

        def progress(done: int, total: int | None, what: str = "", /) -> None:
            if job.cancelled.is_set():
                raise _Cancelled
            self._change(job.id, done=done, total=total, what=f"listening to the normals {what}".rstrip())

        left_out: list[str] = []
        recordings, notes = select_normals(find(job.folder))
        progress(0, len(recordings))
        detector = Detector(threads=1)
        targets = [bool(r.is_target) for r in recordings]
        detector.fit(
            [r.path for r in recordings],
            targets,
            skip=lambda name, error: left_out.append(str(error)),
            progress=progress,
        )
        progress(len(recordings), len(recordings))
        assert self.roster.config.models is not None
        model = self.roster.config.models / job.machine
        detector.save(model)
        source = [job.source] if job.source else []
        table = {"model": model, "name": job.name, "source": source}
        try:
            self.roster.put(job.machine, table, job.who, here=True)
        except BaseException:
            shutil.rmtree(model, ignore_errors=True)
            raise
        unlike = [
            f"{detector.normals[i].name} sounds unlike all others: listen to it"
            for i, _ in detector.unlike_the_others()
        ]
        backing = f"Behind it: {detector.backing}"
        return [backing, detector.why, *detector.doubts, *unlike, *(f"left out: {text}" for text in left_out), *notes]


class _Cancelled(Exception):
    """Raised inside the work of a job that is to stop."""
