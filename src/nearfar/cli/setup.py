"""The command `setup`: what the browser's page "New machine" does, in a terminal or in a script.

Its state is that of the page: the collection of the machine and its jobs. So both go on with what the other has begun.
"""

from __future__ import annotations

import getpass
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.live import machine_id, stopped_by_signals
from nearfar.cli.log import LOG, log_left_out
from nearfar.cli.options import command
from nearfar.cli.record import Takes, list_devices, record_from
from nearfar.cli.serve import ADDRESS, home_folder, read_home, running_at
from nearfar.cli.terminal import echo, echo_wrapped, progress_bar, warn
from nearfar.support.words import as_sentence, plural, quoted

if TYPE_CHECKING:
    from nearfar.live.setup.collection import Collection
    from nearfar.live.setup.jobs import Job
    from nearfar.live.setup.preparation import Preparation

LOOK_S = 0.2  # between two looks at a job
NAMED = 3  # recordings of a group that are named


@command
def setup(
    takes: Takes,
    machine: Annotated[
        str | None, typer.Argument(help="Name of a new machine, or of one that is being set up.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of its normal recordings.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="What it listens to, as in `nearfar monitor`; twice for near and far."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Throw this recording out; FILE may have * and ?.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Keep this recording, whatever is found in it.")
    ] = None,
    session: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Name the session of recordings, such as a speed.")
    ] = None,
    fit: Annotated[
        bool | None, typer.Option("--fit/--no-fit", help="Fit it (again), or stop before that [ask; yes if it is new].")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; what only people can decide ends it.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of the plant [plant.toml of ~/nearfar].")] = None,
) -> None:
    """Example: nearfar setup "Pump 3" --source mic

    Set up a machine step by step: record or collect normals, listen to the odd ones, fit, and watch it from then on.
    Run it again to go on: on another day, or after an error.
    """
    asks = not yes and is_terminal()
    with _preparation(config) as made:
        chosen = _chosen(made, machine, asks)
        go_on = f"nearfar setup {quoted(chosen.name)}"
        _say_where_from(made, chosen, folder, source or [], takes.mono, asks)
        if not _collect(made, chosen.id, takes, asks):
            echo_wrapped(f"Paused        what was recorded stays. Go on: {go_on}")
            return
        _mark(made, chosen.id, without or [], keep or [], session or [])
        _listen(made, chosen.id, go_on, asks)
        live = chosen.id in made.roster.plant.machines
        if fit is None:
            what = "It is live already. Fit it again" if live else "Fit it, and watch it from then on"
            fit = _confirmed(f"{what}?", asks, default=not live)
        if not fit:
            echo_wrapped(f"Next          {go_on} --fit")
            return
        job = _run(made, chosen.id, "fit")
        promises = made.roster.plant.machines[chosen.id].expected_alarms()
        for title, lines in (("Fitted", job.notes), ("Promise", promises)):
            for i, line in enumerate(lines):
                echo_wrapped(f"{'' if i else title:<14}{as_sentence(line)}")
        start = f"nearfar serve --config {quoted(str(config))}" if config else "nearfar"
        heard = made.collections.get(chosen.id).source
        does = "is watched" if heard else "scores what is sent to it or dropped on its page"
        echo_wrapped(f"Live          {chosen.name} {does} while this runs: {start}")


def is_terminal() -> bool:
    """Whether somebody can type answers."""
    return sys.stdin.isatty()


def _confirmed(question: str, asks: bool, *, default: bool) -> bool:
    return typer.confirm(question, default) if asks else default


def _prompted(question: str, default: str = "") -> str:
    return str(typer.prompt(question, default, show_default=bool(default))).strip()


@contextmanager
def _preparation(config: Path | None) -> Iterator[Preparation]:
    """What sets up machines in a plant that does not run; ValueError if it does."""
    from nearfar.live.build import build_plant
    from nearfar.live.config import read
    from nearfar.live.setup.preparation import Preparation
    from nearfar.support.threads import single_threaded_blas

    if config is None and (url := running_at(home_folder() / ADDRESS)):
        raise ValueError(f"nearfar runs at {url}: set the machine up there, at {url}setup, or stop it first")
    plant = read_home() if config is None else read(config)
    built = build_plant(plant, clock=time.time, warn=LOG.warning, report=log_left_out, idle=True, deliver=False)
    with closing(built), single_threaded_blas():
        unheard = {"on_job": lambda _: None, "on_session": lambda _: None, "live": lambda _: None}
        with closing(Preparation(built.roster, here=True, **unheard)) as made:
            yield made


def _chosen(made: Preparation, name: str | None, asks: bool) -> Collection:
    """The collection with this name or id, begun if there is none; without a name the only one under way."""
    from nearfar.errors import NotFound

    going = [c for c in made.collections.all() if c.id not in made.roster.plant.machines]
    if name is None and len(going) == 1:
        name = going[0].id
    if name is None and asks:
        for each in going:
            echo(f"Under way     {each.name}")
        name = _prompted("Name of the machine")
    if not name:
        known = f" Under way: {', '.join(c.name for c in going)}." if going else ""
        raise ValueError(f"which machine? Give its name: nearfar setup NAME.{known}")
    try:
        found = made.collections.get(machine_id(name))
    except NotFound:
        return made.create(machine_id(name), name.strip())
    echo_wrapped(f"Continued     {found.name}")
    return found


def _say_where_from(
    made: Preparation, chosen: Collection, folder: Path | None, source: Sequence[str], mono: bool, asks: bool
) -> None:
    """Keep where the recordings come from; ValueError if nobody has said it."""
    from nearfar.live.sources.devices import FORMATS
    from nearfar.live.sources.open import is_folder

    known = chosen.folder or chosen.source or made.collections.recordings(chosen.id)
    if not folder and not source and not known:
        if not asks:
            raise ValueError(
                f"where does the sound of {chosen.name} come from? Give --folder FOLDER, --source mic, another "
                "microphone (nearfar record --devices lists them) or the URL of a stream"
            )
        folder, source, mono = _asked_where()
    changes: dict[str, Any] = {"mono": True} if mono else {}
    if folder:
        changes |= {"kind": "folder", "folder": str(folder.expanduser().resolve())}
    if source:
        if is_folder(source) and not (folder or chosen.folder):
            raise ValueError(f"{source[0]} is a folder: name the one of its normals too, --folder {source[0]}")
        changes["source"] = tuple(str(Path(s).resolve()) if Path(s).exists() else s for s in source)
        device = source[0].partition(":")[0] in ("mic", *FORMATS)
        changes.setdefault("kind", "folder" if chosen.folder else "microphone" if device else "stream")
    if changes:
        made.collections.change(chosen.id, **changes)


def _asked_where() -> tuple[Path | None, list[str], bool]:
    """(folder, sources, whether there is no far microphone), as somebody types them."""
    echo_wrapped("Where does its sound come from? The microphones of this computer:")
    try:
        list_devices()
    except FileNotFoundError as error:
        warn(str(error))
    echo_wrapped("Or type a folder of recordings, or the URL of a stream, such as rtsp://camera/audio.")
    near = _prompted("Near microphone, folder or URL")
    if Path(near).expanduser().is_dir():
        watched = _prompted("Folder to listen to from then on (Enter: none)")
        return Path(near), [watched] if watched else [], False
    far = _prompted("Far microphone (Enter: the second channel of near; -: there is none)")
    return None, [near, far] if far not in ("", "-") else [near], far == "-"


def _collect(made: Preparation, id: str, takes: Takes, asks: bool) -> bool:
    """Record what is missing, if its source can be recorded; returns False if that was stopped."""
    from nearfar.live.setup.recording import ENOUGH, backing

    chosen, found = made.collections.get(id), made.collections.stock(id)
    echo_wrapped(f"Recordings    {backing(found)}, in {made.collections.folder(id)}")
    count = max(0, ENOUGH - found.recordings) if takes.count is None else takes.count
    wanted = chosen.source and chosen.kind != "folder" and count
    if wanted and _confirmed(f"Record {count} of {takes.seconds:g} s now, one after the other?", asks, default=True):
        with _stopped() as stop:
            record_from(chosen.source, made.collections.folder(id), takes, count, stop, mono=chosen.mono)
        found = made.collections.stock(id)
        if stop.is_set():
            return False
        echo_wrapped(f"Recordings    {backing(found)}")
    if not found.missing:
        return True
    echo_wrapped(f"              {found.missing}")
    return _confirmed("Go on with what is there?", asks, default=True)


@contextmanager
def _stopped() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; afterwards Ctrl-C does what it did before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield stopped_by_signals()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _mark(made: Preparation, id: str, without: list[str], keep: list[str], sessions: list[str]) -> None:
    """Throw recordings out, keep them, name their sessions, as the options say."""
    names = [r.name for r in made.collections.recordings(id)]

    def matching(pattern: str) -> list[str]:
        found = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(f"no recording is called {pattern!r}; there are: {_named(names)}")
        return found

    for keeps, patterns in ((False, without), (True, keep)):
        for pattern in patterns:
            made.collections.mark(id, matching(pattern), _who(), keep=keeps, session=None)
    for text in sessions:
        session, equals, pattern = text.partition("=")
        if not equals or not session:
            raise ValueError(f"--session {text}: give NAME=FILE, such as half-load='2026-11-27*'")
        made.collections.mark(id, matching(pattern), _who(), keep=None, session=session)


def _listen(made: Preparation, id: str, go_on: str, asks: bool) -> None:
    """Check the recordings until nothing is left that people have to decide; ValueError if nobody can be asked."""
    while True:
        found = made.collections.findings(id)
        if found is None or found["stale"]:
            _run(made, id, "doctor")
            found = made.collections.findings(id)
            assert found is not None
        files, groups = _undecided(made.collections.get(id), found, asks)
        echo_wrapped(f"Checked       {found['usable']} of {plural(found['recordings'], 'recording')} can be used")
        for each in found["files"]:
            echo_wrapped(f"              {each['file']}: {'; '.join(each['texts'])}")
        for note in found["notes"]:
            echo_wrapped(f"              {note}")
        if found["verdict"] == "few":
            raise ValueError(f"too few recordings can be used: two are needed, and 20 are good. Then: {go_on}")
        if not files and not groups:
            return
        if not asks:
            raise ValueError(_decision(files, groups, go_on))
        _decide(made, id, files, groups)


def _undecided(chosen: Collection, found: dict[str, Any], asks: bool) -> tuple[list[str], list[dict[str, Any]]]:
    """Recordings that may be faults or have exchanged microphones, and groups that may not belong together.

    Somebody who is asked hears of the others that were found, too.
    """
    known = {*chosen.kept, *chosen.left_out}
    doubted = [f for f in found["files"] if f["usable"] and (asks or f["deaf"] or found["verdict"] == "exchanged")]
    named = known | set(chosen.sessions)
    groups = [g for g in found["groups"] if not all(name in named for part in g["files"] for name in part)]
    return [f["file"] for f in doubted if f["file"] not in known], groups


def _decision(files: Sequence[str], groups: Sequence[dict[str, Any]], go_on: str) -> str:
    """What people have to decide, and the options that say it."""
    if files:
        return (
            f"listen first: {_named(files)}. Throw out what is not normal, {go_on} --without FILE, or keep it, "
            "--keep FILE"
        )
    first, second = groups[0]["files"]
    return (
        f"two groups by {groups[0]['kind']}: {_named(first)}, and {_named(second)}. Do they belong together, as two "
        f"speeds or days do? Then name them, {go_on} --session NAME=FILE. Else throw one out, --without FILE"
    )


def _decide(made: Preparation, id: str, files: Sequence[str], groups: Sequence[dict[str, Any]]) -> None:
    """Ask what is to be done with recordings and groups."""
    if files:
        for number, name in enumerate(files, 1):
            echo(f"  {number}  {made.collections.folder(id) / name}")
        known, words = {str(number) for number in range(1, len(files) + 1)}, {""}
        while not words <= known:
            answer = _prompted("Listen to these. Which are not normal? Numbers, such as 1 3 (Enter: all are normal)")
            words = set(answer.replace(",", " ").split())
        for number, name in enumerate(files, 1):
            made.collections.mark(id, [name], _who(), keep=str(number) not in words, session=None)
    for group in groups:
        kind = group["kind"]
        echo_wrapped(f"Two groups by {kind}. Two speeds, or two days? Name both. Another machine? Throw one out.")
        for value, part in zip(group["values"], group["files"], strict=True):
            which = f"{_named(part)}{value and f' ({value})'}"
            name = _prompted(f"{which}: a name, or - to throw them out", "both the same")
            keep = False if name == "-" else True if name == "both the same" else None
            made.collections.mark(id, part, _who(), keep=keep, session=name if keep is None else None)


def _run(made: Preparation, id: str, kind: str) -> Job:
    """Do a job to its end, after one that an earlier run left behind; ValueError if it fails."""
    from nearfar.live.setup.jobs import ENDED

    old = made.jobs.of(id)
    if old is not None and old.state not in ENDED:
        done = _waited(made, old.id)
        if done.kind == kind:
            return done
    return _waited(made, made.start(kind, id, _who()).id)


def _waited(made: Preparation, number: int) -> Job:
    from nearfar.errors import Conflict
    from nearfar.live.setup.jobs import DONE, ENDED

    told = None
    with progress_bar() as progress:
        try:
            while (job := made.jobs.job(number)).state not in ENDED:
                if job.total and told != (job.done, job.what):
                    told = job.done, job.what
                    progress(job.done, job.total, job.what)
                time.sleep(LOOK_S)
        except KeyboardInterrupt:
            with suppress(Conflict):
                made.jobs.cancel(number)
            while made.jobs.job(number).state not in ENDED:
                time.sleep(LOOK_S)
            raise
    if job.state != DONE:
        raise ValueError(job.what)
    return job


def _named(files: Sequence[str]) -> str:
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return f"{', '.join(files[:NAMED])}{more}"


def _who() -> str:
    """The name of this user, for what is recorded with a decision."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return "somebody at this computer"
