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
        source = open_source(names, options)
        with self._lock:
            if machine in self._running or len(self._running) >= MOST:
                raise Conflict(f"the microphones of {MOST} machines are in use: stop one of them first")
            session = self._sessions[machine] = Session(machine, RECORDING if count or test else LISTENING, count)
            stop = threading.Event()
            work = (machine, source, folder, stop, seconds, count, every_s, test)
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

    def _run(
        self,
        machine: str,
        source: Source,
        folder: Path,
        stop: threading.Event,
        seconds: float,
        count: int,
        every_s: float,
        test: Path | None,
    ) -> None:
        heard, began = [monotonic()], monotonic()

        def meter(window: Window) -> None:
            heard[0] = monotonic()
            self._change(machine, levels=check(window)[0].levels, problem="")

        metered, keeps = Metered(source, seconds, meter), bool(count or test)
        state, problem = ENDED, ""
        try:
            with tempfile.TemporaryDirectory() as room:
                to, many = (Path(room), 1) if test else (folder, count)
                found = record(metered, to, stop, count=many, every_s=every_s) if keeps else metered.levels(stop)
                for taken in found:
                    if monotonic() - heard[0] > SILENT_S:
                        raise ValueError(
                            f"no sound came for {SILENT_S:.0f} s: {source.problem or 'is it the right one?'}"
                        )
                    if not keeps and monotonic() - began > LEVELS_S:
                        break
                    if taken is None:
                        continue
                    if test and taken.file:
                        shutil.copyfile(taken.file, test)
                        taken = replace(taken, file=test)
                    self._change(machine, last=taken, taken=self._sessions[machine].taken + bool(taken.file))
                    if test:
                        break
        except (ValueError, OSError, ImportError) as error:
            state, problem = FAILED, str(error)
        self._change(machine, state=state, levels=(), problem=problem)
        with self._lock:  # last: from here on the machine's next session may begin
            if self._running.get(machine, (None,))[0] is stop:
                del self._running[machine]

    def _change(self, machine: str, **changes: object) -> None:
        session = self._sessions[machine] = replace(self._sessions[machine], **changes)  # type: ignore[arg-type]
        self.changed(session)


class Metered:
    """A source whose short windows go to `meter`, and are given as windows of `seconds`."""

    live = True

    def __init__(self, source: Source, seconds: float, meter: Callable[[Window], None]) -> None:
        self.source, self.meter = source, meter
        self._windower = Windower(seconds, seconds)

    @property
    def finite(self) -> bool:
        return self.source.finite

    @property
    def problem(self) -> str:
        return self.source.problem

    def windows(self, stop: threading.Event) -> Iterator[Window | None]:
        for window in self.source.windows(stop):
            if window is None:
                yield None
                continue
            self.meter(window)
            yield from self._windower.put(window)

    def levels(self, stop: threading.Event) -> Iterator[None]:
        """Meter until `stop` or the end; None at least every few seconds."""
        for window in self.source.windows(stop):
            if window is not None:
                self.meter(window)
            yield None
