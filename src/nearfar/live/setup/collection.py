"""The normal recordings of machines that are set up: where they come from, which are thrown out, their sessions.

    root/ID/collection.json   name, source, folder, files that are thrown out, sessions that people named
    root/ID/normals/          recordings that were uploaded or recorded, unless `folder` is a folder of the user
    root/ID/findings.json     what doctor found
    root/ID/test.flac         the last test of the microphones

The folder of recordings is the state: nothing is lost if the server is killed, and another day only adds files. No
recording is ever deleted: one that is thrown out is in a list.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nearfar.audio import Clip
from nearfar.audio.recordings import Recording, find
from nearfar.audio.sessions import sessions
from nearfar.errors import AudioError, BadInput, Conflict, NotFound
from nearfar.live.history.archive import note_codec
from nearfar.live.machine import NAME, RESERVED, check_name
from nearfar.live.setup.recording import Stock, Taken, check
from nearfar.live.sources.windows import Window
from nearfar.support.check import one_of
from nearfar.support.files import atomic_file, private_folder, write_json
from nearfar.support.words import shown

Kind = Literal["browser", "microphone", "folder", "stream", "files"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATE, NORMALS, FINDINGS, TEST = "collection.json", "normals", "findings.json", "test.flac"
BAD = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # in names of files, on some system
NAMED = 120  # bytes of a file's name that are kept


@dataclass(frozen=True)
class Collection:
    """The recordings of the machine `id`.

    kind      where they come from: KINDS
    source    what the machine listens to once it is live: names of sources, none for uploads and browsers
    folder    of the user, "" for a folder of our own
    mono      there is no far microphone
    left_out  {file: who threw it out}; files are named as `find` names them
    kept      {file: who kept it}, of those that doctor named
    sessions  {file: its session}, where people named one
    """

    id: str
    name: str
    kind: Kind = "browser"
    source: tuple[str, ...] = ()
    folder: str = ""
    mono: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    sessions: Mapping[str, str] = field(default_factory=dict)


class Collections:
    """All collections, in `root`. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._writing: set[Path] = set()

    def all(self) -> list[Collection]:
        """All collections by their ids, without those that are damaged."""
        found = []
        for path in sorted(self.root.glob(f"*/{STATE}")):
            with suppress(OSError):
                found.append(self.get(path.parent.name))
        return found

    def get(self, id: str) -> Collection:
        """A collection; NotFound if there is none."""
        try:
            plain = json.loads(self._path(id, STATE).read_text(encoding="utf-8"))
            return Collection(**{**plain, "source": tuple(plain["source"])})
        except FileNotFoundError:
            raise NotFound(f"there are no recordings of a machine {id!r}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise OSError(f"{self._path(id, STATE)} is damaged ({error}): move it away, and name its folder") from None

    def create(self, id: str, name: str, others: Iterable[str] = ()) -> Collection:
        """Begin a collection beside machines `others`. BadInput for a wrong id, Conflict if there is one with it."""
        with self._lock:
            try:
                check_name("machine id", id, [*others, *(path.parent.name for path in self.root.glob(f"*/{STATE}"))])
            except ValueError as error:
                raise BadInput(str(error)) from None
            if self._path(id, STATE).exists():
                raise Conflict(f"a machine {id!r} is being set up already: choose another name")
            private_folder(self.root / id)
            return self._write(Collection(id, name or id))

    def change(self, id: str, **changes: Any) -> Collection:
        """Change where the recordings come from. BadInput for a folder that is not there, or a wrong kind."""
        with self._lock:
            new = replace(self.get(id), **changes)
            one_of("kind", new.kind, KINDS)
            if new.folder and not _is_folder(new.folder):
                raise BadInput(f"there is no folder {shown(new.folder)} on the computer that runs nearfar")
            if len(new.source) > 2:
                raise BadInput(f"a machine has one source, or two (near and far), not {len(new.source)}")
            return self._write(new)

    def mark(self, id: str, files: Iterable[str], who: str, *, keep: bool | None, session: str | None) -> Collection:
        """Keep recordings or throw them out, and name their session ("": as names tell); NotFound for unknown ones."""
        with self._lock:
            old, files = self.get(id), list(files)
            if unknown := set(files) - {r.name for r in self.recordings(id)}:
                raise NotFound(f"{old.name} has no recording {min(unknown)!r}")
            others = {name: who for name, who in old.left_out.items() if name not in files}
            changes: dict[str, Any] = {}
            if keep is not None:
                by = dict.fromkeys(files, who)
                changes = {
                    "left_out": others if keep else others | by,
                    "kept": {**old.kept, **by} if keep else old.kept,
                }
            if session is not None:
                named = {name: known for name, known in old.sessions.items() if name not in files}
                changes["sessions"] = named | (dict.fromkeys(files, session) if session else {})
            return self._write(replace(old, **changes))

    def folder(self, id: str) -> Path:
        """The folder of a collection's recordings."""
        return Path(self.get(id).folder or self._path(id, NORMALS))

    def recordings(self, id: str) -> list[Recording]:
        """All recordings by name, those that are thrown out too."""
        folder = self.folder(id)
        try:
            return find(folder) if folder.is_dir() else []
        except ValueError:  # it is empty
            return []

    def normals(self, id: str) -> list[Recording]:
        """The recordings that are not thrown out."""
        out = self.get(id).left_out
        return [r for r in self.recordings(id) if r.name not in out]

    def sessions(self, id: str, recordings: Sequence[Recording]) -> list[str]:
        """The session of each recording: as people named it, else as names and times tell."""
        named = self.get(id).sessions
        found = sessions([str(r.path) for r in recordings]) if recordings else []
        return [named.get(r.name) or session for r, session in zip(recordings, found, strict=True)]

    def stock(self, id: str) -> Stock:
        """How many recordings and sessions there are, without those that are thrown out."""
        normals = self.normals(id)
        return Stock.of(self.sessions(id, normals))

    def add(self, id: str, name: str, clips: Iterable[Clip], *, test: bool = False) -> Taken:
        """Keep an uploaded recording, written anew as FLAC, if its microphones work; `test`: keep it as the last test.

        AudioError if its clips cannot be read.
        """
        collection = self.get(id)
        with self._place(self.test(id) if test else self.folder(id) / f"{_plain(name)}.flac", free=not test) as path:
            return replace(_written(path, name, clips, mono=collection.mono), file=path)

    def test(self, id: str) -> Path:
        """The file of the last test of the microphones."""
        return self._path(id, TEST)

    def findings(self, id: str) -> dict[str, Any] | None:
        """What doctor found last, or None; `stale` says whether the recordings are others now."""
        try:
            found: dict[str, Any] = json.loads(self._path(id, FINDINGS).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        of = found.pop("of", None)
        return found | {"stale": of != self.fingerprint(id)}

    def keep_findings(self, id: str, found: Mapping[str, Any]) -> None:
        """Keep what doctor found in the recordings as they are now."""
        write_json(self._path(id, FINDINGS), {**found, "of": self.fingerprint(id)})

    def fingerprint(self, id: str) -> str:
        """A digest of the names of the recordings that are not thrown out."""
        return hashlib.sha256("\n".join(r.name for r in self.normals(id)).encode()).hexdigest()[:16]

    @contextmanager
    def _place(self, path: Path, *, free: bool) -> Iterator[Path]:
        """`path`, or the same with a number if it is taken or somebody is writing it."""
        private_folder(path.parent)
        with self._lock:
            names = (path.with_stem(f"{path.stem}{f'_{n}' if n else ''}") for n in range(10_000))
            path = next(p for p in names if p not in self._writing and not p.exists()) if free else path
            self._writing.add(path)
        try:
            yield path
        finally:
            self._writing.discard(path)

    def _path(self, id: str, name: str) -> Path:
        if not NAME.fullmatch(id):  # it comes from an address
            raise NotFound(f"there are no recordings of a machine {id!r}")
        return self.root / id / name

    def _write(self, collection: Collection) -> Collection:
        write_json(self._path(collection.id, STATE), asdict(collection))
        return collection


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # the name is too long
        return False


def _plain(name: str) -> str:
    """The name of an uploaded file without its ending, as every system allows it."""
    stem = BAD.sub("_", name.rpartition(".")[0] or name).encode(errors="replace")[-NAMED:].decode(errors="ignore")
    stem = stem.strip(" .") or "recording"  # a name that begins with a dot is hidden
    return f"_{stem}" if stem.partition(".")[0].upper() in RESERVED else stem


def _written(path: Path, name: str, clips: Iterable[Clip], *, mono: bool) -> Taken:
    """Write the clips of a recording as one FLAC file; AudioError if none can be used, OSError for a full disk."""
    import soundfile

    found: list[tuple[Taken, bool]] = []
    with atomic_file(path, mode=0o600) as draft:
        try:
            with ExitStack() as opened:
                out = None
                for clip in clips:
                    samples = np.stack([clip.near] if clip.far is None or mono else [clip.near, clip.far])
                    if out is None:
                        form = {"format": "FLAC", "subtype": "PCM_24"}
                        out = opened.enter_context(soundfile.SoundFile(draft, "w", clip.rate, len(samples), **form))
                        note_codec(out, clip.codec)
                    out.write(np.clip(samples, -1, 1).T)
                    found.append(check(Window(0.0, samples, clip.rate)))
        except soundfile.LibsndfileError as error:  # of the writer: clips are read elsewhere
            raise OSError(errno.ENOSPC, f"it cannot be written, is the disk full? ({error})", str(path)) from None
        taken = _together([taken for taken, _ in found])
        if not any(usable for _, usable in found):
            raise AudioError(f"{name} cannot be used: {'; '.join(taken.problems)}", "dead")
    return taken


def _together(each: Sequence[Taken]) -> Taken:
    """The windows of one recording as one: mean power of each channel, every problem once."""
    if not each:
        return Taken(None, (), ("it holds no sound",))
    powers = np.array([[10 ** (level / 10) for level in taken.levels] for taken in each]).mean(axis=0)
    levels = tuple(float(10 * np.log10(max(power, 1e-14))) for power in powers)
    return Taken(None, levels, tuple(dict.fromkeys(text for taken in each for text in taken.problems)))
