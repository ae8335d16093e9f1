"""Long work that is asked for in the browser: one job after the other, with progress; it survives the server.

    waiting -> working -> done | failed | cancelled
    interrupted: the server stopped during the job. It begins again when the server does, once; then people decide.

A job's work is a function of it: nothing that the function makes counts before it returns. The jobs are kept in a file,
so that the next start knows them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from nearfar.errors import Conflict, NotFound
from nearfar.support.files import write_json
from nearfar.support.progress import Progress
from nearfar.support.words import plural

WAITING, WORKING, DONE, FAILED, CANCELLED = "waiting", "working", "done", "failed", "cancelled"
INTERRUPTED = "interrupted"
ENDED = (DONE, FAILED, CANCELLED, INTERRUPTED)
KEPT = 50  # newest jobs that are remembered
MOST_WAITING = 8
STARTS = 2  # of one job after restarts: a job that crashes the server is not started a third time
TOLD_S = 0.3  # between two reports of progress
STOPPED = "the server stopped meanwhile; nothing half-made was kept"


@dataclass(frozen=True)
class Job:
    """Work of a kind on a machine; `what` is the present step or the result, `notes` what the user should know."""

    id: int
    kind: str
    machine: str
    name: str
    who: str
    state: str = WAITING
    done: int = 0
    total: int | None = None
    what: str = ""
    notes: tuple[str, ...] = ()
    starts: int = 0


Work = Callable[[Job, Progress], list[str]]  # returns the notes


class Jobs:
    """The jobs that `file` knows, done by `works` {kind: work}; `changed(job)` is called after each change."""

    def __init__(self, file: Path, works: Mapping[str, Work], changed: Callable[[Job], None]) -> None:
        self.file, self.works, self.changed = file, works, changed
        self._lock = threading.RLock()
        self._jobs = {job.id: job for job in _read(file)}
        self._cancelled: dict[int, threading.Event] = {}
        self._closing = False
        self._worker = ThreadPoolExecutor(1, "nearfar-job")

    def begin(self) -> None:
        """Go on with the jobs that the last server left behind."""
        for job in list(self._jobs.values()):
            if job.state in (WAITING, WORKING):
                self._change(job.id, state=INTERRUPTED, what=STOPPED)
                if job.starts < STARTS:
                    self.resume(job.id)

    def start(self, kind: str, machine: str, name: str, who: str) -> Job:
        """Begin work on a machine. Conflict if there is work on it, or too many jobs wait; OSError for a full disk."""
        with self._lock:
            waiting = [job for job in self._jobs.values() if job.state not in ENDED]
            if any(job.machine == machine for job in waiting):
                raise Conflict(f"nearfar works on {name} already: wait until it is done, or cancel that")
            if len(waiting) >= MOST_WAITING:
                raise Conflict(f"{plural(len(waiting), 'job')} wait already: try again when one is done")
            job = Job(max(self._jobs, default=0) + 1, kind, machine, name, who)
            kept = [j for j in self._jobs.values() if j.state not in ENDED or j.id > job.id - KEPT]
            self._write([*kept, job])
            self._jobs = {j.id: j for j in [*kept, job]}
            self._cancelled[job.id] = threading.Event()
        self.changed(job)
        self._submit(job.id)
        return job

    def job(self, id: int) -> Job:
        """A job as it is now; NotFound if there is none."""
        with self._lock:
            if id not in self._jobs:
                raise NotFound(f"there is no job {id}")
            return self._jobs[id]

    def all(self) -> list[Job]:
        """The jobs that are remembered, newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: -job.id)

    def of(self, machine: str) -> Job | None:
        """The newest job of a machine."""
        return next((job for job in self.all() if job.machine == machine), None)

    def cancel(self, id: int) -> Job:
        """Stop a job before its result counts; Conflict if it has ended."""
        with self._lock:
            job = self.job(id)
            if job.state == INTERRUPTED:
                return self._change(id, state=CANCELLED, what="cancelled; nothing was kept")
            if job.state in ENDED:
                raise Conflict(f"job {id} has ended: {job.state}")
            self._cancelled[id].set()
            return job

    def resume(self, id: int) -> Job:
        """Begin an interrupted or failed job again; Conflict for another one."""
        with self._lock:
            job = self.job(id)
            if job.state not in (INTERRUPTED, FAILED, CANCELLED):
                raise Conflict(f"job {id} is {job.state}: only one that was interrupted can go on")
            job = self._change(id, state=WAITING, what="begins again", done=0, total=None, notes=())
            self._cancelled[id] = threading.Event()
        self._submit(id)
        return job

    def close(self) -> None:
        """Stop the present job, which then begins again with the next server; wait for it to stop."""
        self._closing = True
        for event in list(self._cancelled.values()):
            event.set()
        self._worker.shutdown(cancel_futures=True)

    def _submit(self, id: int) -> None:
        with suppress(RuntimeError):  # the server closes: the job waits for the next one
            self._worker.submit(self._run, id, self._cancelled[id])

    def _run(self, id: int, cancelled: threading.Event) -> None:
        told = [monotonic()]

        def progress(done: int, total: int | None, what: str = "", /) -> None:
            if cancelled.is_set():
                raise _Stop
            self._change(id, keep=False, tell=monotonic() - told[0] > TOLD_S, done=done, total=total, what=what)
            told[0] = monotonic() if monotonic() - told[0] > TOLD_S else told[0]

        try:
            job = self.job(id)
            job = self._change(id, state=WORKING, starts=job.starts + 1)
            progress(0, None, "looking for recordings")
            notes = self.works[job.kind](job, progress)
        except _Stop:
            if self._closing:
                self._change(id, state=WAITING, what=STOPPED, starts=job.starts - 1)
            else:
                self._change(id, state=CANCELLED, what="cancelled; nothing was kept")
        except (ValueError, OSError, ImportError, LookupError, MemoryError) as error:
            self._change(id, state=FAILED, what=str(error) or "the memory of this computer is too small for this")
        except Exception as error:
            self._change(id, state=FAILED, what=f"nearfar itself failed: {error}")
            raise
        else:
            self._change(id, state=DONE, what="done", notes=tuple(notes))
        finally:
            with self._lock:
                if self._cancelled.get(id) is cancelled:  # else it has been resumed
                    del self._cancelled[id]

    def _change(self, id: int, *, keep: bool = True, tell: bool = True, **changes: Any) -> Job:
        with self._lock:
            job = self._jobs[id] = replace(self._jobs[id], **changes)
            if keep:
                with suppress(OSError):  # a full disk: after a restart the job is as it was before
                    self._write(list(self._jobs.values()))
        if tell:
            self.changed(job)
        return job

    def _write(self, jobs: list[Job]) -> None:
        write_json(self.file, [asdict(job) for job in jobs])


class _Stop(Exception):
    """Raised inside the work of a job that is to stop."""


def _read(file: Path) -> list[Job]:
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        return [Job(**{**job, "notes": tuple(job["notes"])}) for job in plain]
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none yet, or written by another version
        return []
