"""Microphones of the server's computer, for a machine that is set up: levels, a test, and guided recording.

    levels      about twice a second, of near and far
    test        one recording, which is kept as the machine's last test
    recording   `count` recordings, one per `every_s`; see `setup.recording`

One session at a time for each machine, and MOST in all. A session ends with its last recording, when it is stopped, or
when SILENT_S pass without sound.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from nearfar.errors import Conflict
from nearfar.live.setup.recording import SILENT_S, Taken, check, record
from nearfar.live.sources.open import Source, open_source
from nearfar.live.sources.windows import SourceOptions, Window, Windower

METER_S = 0.5
RATE = 48_000
MOST = 4
LEVELS_S = 600.0  # after which a session that records nothing ends: nobody looks at it any more
LISTENING, RECORDING, ENDED, FAILED = "listening", "recording", "ended", "failed"


@dataclass(frozen=True)
class Session:
    """One use of the microphones; `levels` in dB of full scale, `taken` of `count` recordings were kept."""

    machine: str
    state: str
    count: int
    levels: tuple[float, ...] = ()
    taken: int = 0
    last: Taken | None = None
    problem: str = ""


class Microphones:
    """The sessions of all machines; `changed(session)` is called with each new state, from any thread."""

    def __init__(self, clock: Callable[[], float], changed: Callable[[Session], None]) -> None:
        self.clock, self.changed = clock, changed
        self._sessions: dict[str, Session] = {}
        self._running: dict[str, tuple[threading.Event, threading.Thread]] = {}
        self._lock = threading.Lock()

    def session(self, machine: str) -> Session | None:
        """The newest session of a machine, or None."""
        return self._sessions.get(machine)

    def start(
        self,
        machine: str,
        names: Sequence[str],
        folder: Path,
        *,
        mono: bool,
        seconds: float,
        count: int = 0,
        every_s: float = 0.0,
        test: Path | None = None,
    ) -> Session:
        """Begin a session: levels alone with `count` 0; with `test` one recording, kept as that file.

        Conflict if too many run; raises as `open_source` does for a source that cannot be opened.
        """
        self.stop(machine)
        options = SourceOptions(METER_S, METER_S, RATE, self.clock, lambda *_: None, far=None if mono else 1)
        source = Metered(
            open_source(names, options), seconds, lambda levels: self._change(machine, levels=levels, problem="")
        )
        stop = threading.Event()
        takes: Iterator[Taken | None] = source.levels(stop)
        if test:
            takes = _tested(source, test, stop)
        elif count:
            takes = record(source, folder, stop, count=count, every_s=every_s)
        with self._lock:
            if machine in self._running or len(self._running) >= MOST:
                raise Conflict(f"the microphones of {MOST} machines are in use: stop one of them first")
            session = self._sessions[machine] = Session(machine, RECORDING if count or test else LISTENING, count)
            work = (machine, source, takes, stop)
            thread = threading.Thread(target=self._run, args=work, name=f"microphone-{machine}", daemon=True)
            self._running[machine] = stop, thread
            thread.start()
        return session

    def stop(self, machine: str) -> Session | None:
        """End the session of a machine; what was recorded stays."""
        with self._lock:
            stop, thread = self._running.get(machine, (None, None))
        if stop is not None and thread is not None:
            stop.set()
            thread.join(5.0)
        return self.session(machine)

    def close(self) -> None:
        """End all sessions."""
        for machine in list(self._running):
            self.stop(machine)

    def _run(self, machine: str, source: Metered, takes: Iterator[Taken | None], stop: threading.Event) -> None:
        state, problem = ENDED, ""
        try:
            for taken in takes:
                if monotonic() - source.heard > SILENT_S:
                    why = source.problem or "is it the right one?"
                    raise ValueError(f"no sound came for {SILENT_S:.0f} s: {why}")
                if taken is not None:
                    self._change(machine, last=taken, taken=self._sessions[machine].taken + bool(taken.file))
        except (ValueError, OSError, ImportError) as error:
            state, problem = FAILED, str(error)
        with self._lock:
            if self._running.get(machine, (None,))[0] is stop:
                del self._running[machine]
        self._change(machine, state=state, levels=(), problem=problem)

    def _change(self, machine: str, **changes: object) -> None:
        session = self._sessions[machine] = replace(self._sessions[machine], **changes)  # type: ignore[arg-type]
        self.changed(session)


class Metered:
    """A source whose short windows go to `meter` as levels, and are given as windows of `seconds`."""

    live = True

    def __init__(self, source: Source, seconds: float, meter: Callable[[tuple[float, ...]], None]) -> None:
        self.source, self.meter, self.heard = source, meter, monotonic()
        self._windower = Windower(seconds, seconds)

    @property
    def finite(self) -> bool:
        return self.source.finite

    @property
    def problem(self) -> str:
        return self.source.problem

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        for window in self._metered(stop):
            yield from [None] if window is None else self._windower.put(window)

    def levels(self, stop: threading.Event) -> Iterator[None]:
        """Meter until `stop`, the end, or LEVELS_S have passed; None at least every few seconds."""
        began = monotonic()
        for _ in self._metered(stop):
            yield None
            if monotonic() - began > LEVELS_S:
                return

    def _metered(self, stop: threading.Event) -> Iterator[Window | None]:
        for window in self.source.windows(stop):
            if window is not None:
                self.heard = monotonic()
                self.meter(check(window)[0].levels)
            yield window


def _tested(source: Metered, file: Path, stop: threading.Event) -> Iterator[Taken | None]:
    """One recording, kept as `file`."""
    with tempfile.TemporaryDirectory() as room:
        for taken in record(source, Path(room), stop, count=1):
            if taken is not None and taken.file:
                shutil.copyfile(taken.file, file)
                taken = replace(taken, file=file)
            yield taken
            if taken is not None:
                return
