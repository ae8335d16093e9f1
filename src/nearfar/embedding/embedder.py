"""Recordings -> vectors: each source is read, checked and embedded alone, several side by side.

Order in, order out, with a bounded number of sources under way, so memory does not grow with how many there are. A
source that cannot be used raises, or is reported to `skip` and gives nothing; the others go through either way.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.embedding.band_levels import BandLevels
from nearfar.embedding.batches import stream
from nearfar.embedding.cache import EmbeddingCache, PendingClip
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import EncoderInput, check_channels, inputs_of, vectors
from nearfar.encoders import Encoder
from nearfar.errors import AudioError
from nearfar.recipe import Recipe
from nearfar.support.check import Array
from nearfar.support.files import sha256_of
from nearfar.support.progress import Progress
from nearfar.support.threads import single_threaded_blas
from nearfar.support.words import join_sentences, plural

WAVES = 4  # waveforms per worker that go to a network together: all processors are busy, and memory stays small

Skip = Callable[[str, Exception], None]


@dataclass(frozen=True)
class Origin:
    """A recording: its name, where it was (or ""), the hash of its file, its length."""

    name: str
    path: str
    sha256: str
    seconds: float


@dataclass(frozen=True)
class EmbeddedClip:
    """One clip: where it came from, one vector (D,) per recipe, what is wrong with the recording, its profile."""

    origin: Origin
    vectors: list[Array]
    problems: list[audio.Problem]
    profile: BandLevels

    @property
    def fatal(self) -> str:
        """Why the clip cannot be judged, or ""."""
        return join_sentences(p.text for p in self.problems if p.fatal)


@dataclass(frozen=True)
class ClipEmbedder:
    """How a detector hears: channels of files, length of windows, recipes and their encoders, a store of grids."""

    near: int
    far: int | None
    window_s: float
    recipes: Sequence[Recipe]
    encoders: Mapping[str, Encoder]
    threads: int | None = None
    store: Store | None = None

    def hear(
        self, sources: Sequence[Any], skip: Skip | None, progress: Progress | None
    ) -> Iterator[list[EmbeddedClip]]:
        """For each source, in order, the clips it holds (none if it was skipped)."""
        library = self._library()
        workers = self.threads or os.cpu_count() or 1
        with single_threaded_blas():
            outcomes = stream(
                sources,
                lambda source: self._begin(source, library),
                lambda begun: library.run([request for _, request in begun]),
                lambda begun, grids: self._finish(*begun, grids, library),
                workers=workers,
                batch=batch_of(self._passes(), workers),
            )
            for done, (source, outcome) in enumerate(zip(sources, outcomes, strict=True), start=1):
                if isinstance(outcome, Exception):
                    if skip is None:
                        raise outcome
                    skip(source_name(source), outcome)
                if progress:
                    progress(done, len(sources))
                yield [] if isinstance(outcome, Exception) else outcome

    def normals(
        self,
        sources: Sequence[Any],
        is_target: Array,
        known: set[str],
        skip: Skip | None,
        progress: Progress | None,
        *,
        copies: bool = False,
    ) -> tuple[list[EmbeddedClip], Array]:
        """The clips of sources that can serve as normals, and their domains; those whose hash is `known` cannot.

        Nor can, without `copies`, a copy of another source: beside it, leaving one out leaves nothing out. Files that
        are cut short can, with a Python warning.
        """
        kept, targets, cut = [], [], []
        first: dict[str, tuple[int, str]] = {}  # hash -> the source that brought it, and its name
        for i, (flag, heard) in enumerate(zip(is_target, self.hear(sources, skip, progress), strict=True)):
            for clip in heard:
                by, twin = first.setdefault(clip.origin.sha256, (i, clip.origin.name))
                copy = f"it is the same recording as {twin}" if by != i and not copies else ""
                why = "it is in the bank already" if clip.origin.sha256 in known else copy or clip.fatal
                if why:
                    error = AudioError(f"{clip.origin.name}: cannot serve as a normal: {why}")
                    if skip is None:
                        raise error
                    skip(clip.origin.name, error)
                else:
                    kept.append(clip)
                    targets.append(flag)
                    cut += [f"{clip.origin.name}: {p.text}" for p in clip.problems if p.kind == audio.INCOMPLETE]
        if cut:
            more = f" ({plural(len(cut) - 1, 'more file')} cut short: see nearfar doctor)" if cut[1:] else ""
            warnings.warn(f"{cut[0]}{more}", stacklevel=2)
        return kept, np.array(targets, bool)

    def sample(self, sources: Sequence[Any], count: int) -> tuple[list[Clip], int]:
        """About `count` clips, evenly from all that the sources hold, and how many that is by the files' headers.

        ValueError if none of them can be read.
        """
        sample, why = [], ""
        held = [self._count(source) for source in sources]
        ends = np.cumsum(held)
        total = int(sum(held))
        for at in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)):
            i = int(np.searchsorted(ends, at, "right"))
            try:
                sample.append(next(self.clips(sources[i], first=int(at - ends[i]) + held[i])))
            except (ValueError, OSError) as error:
                why = why or f": {error}"  # of the others when their turn comes
        if not sample:
            raise ValueError(f"none of the recordings can be read, so there is nothing to fit on{why}")
        return sample, total

    def clips(self, source: Any, *, first: int = 0) -> Iterator[Clip]:
        """The clips of a source from the `first` on: a file (windows, if it is long), a `Clip`, arrays with a rate."""
        if isinstance(source, (str, os.PathLike)):
            return audio.windows(source, near=self.near, far=self.far, length_s=self.window_s, first=first)
        return iter([audio.as_clip(source)])

    def _count(self, source: Any) -> int:
        """How many clips a source holds; 1 if it cannot be read, which is said when its turn comes."""
        try:
            return audio.count_windows(source, length_s=self.window_s) if isinstance(source, (str, os.PathLike)) else 1
        except (ValueError, OSError):
            return 1

    def grids(self, clip: Clip, origin: Origin) -> dict[EncoderInput, Array]:
        """All grids (T, F, D) that the recipes' vectors are pooled from."""
        passes = list(dict.fromkeys(p.grid for p in self._passes()))
        return self._library().grids(clip, origin.sha256 if origin.path else "", passes)

    def _begin(self, source: Any, library: EmbeddingCache) -> Iterator[tuple[EmbeddedClip, PendingClip]]:
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        digest = sha256_of(path) if path and path.is_file() else ""
        needs_far = any(recipe.needs_far for recipe in self.recipes)
        for clip in self.clips(source):
            check_channels(clip, self.recipes)
            origin = Origin(clip.name, str(path.resolve()) if path else "", digest or _of_samples(clip), clip.seconds)
            found = [p for p in audio.problems(clip) if needs_far or p.channel == "near" or p.kind == audio.INCOMPLETE]
            if clip.seconds < self.window_s / 2:
                lengths = f"it lasts {clip.seconds:.3g} s where the normals last {self.window_s:.3g} s"
                found.append(audio.Problem("short", f"{lengths}: too short to be compared?"))
            yield EmbeddedClip(origin, [], found, BandLevels.of(clip)), library.begin(clip, digest, self._passes())

    def _finish(
        self, heard: EmbeddedClip, request: PendingClip, grids: Mapping[EncoderInput, Array], library: EmbeddingCache
    ) -> EmbeddedClip:
        found = library.keep(request, grids)
        return EmbeddedClip(heard.origin, vectors(self.recipes, found), heard.problems, heard.profile)

    def _library(self) -> EmbeddingCache:
        return EmbeddingCache(self.encoders, self.store, near=self.near, far=self.far)

    def _passes(self) -> list[EncoderInput]:
        return [p for recipe in self.recipes for p in inputs_of(recipe, pooled=True)]


def batch_of(passes: Sequence[EncoderInput], workers: int) -> int:
    """How many clips go to a network together, if each has these passes."""
    return max(1, WAVES * workers // max(1, len({p.waveform for p in passes})))


def source_name(source: Any) -> str:
    """What to call a source in a message."""
    return str(source) if isinstance(source, (str, os.PathLike)) else str(getattr(source, "name", "clip"))


def _of_samples(clip: Clip) -> str:
    digest = hashlib.sha256(clip.near.tobytes())
    digest.update(b"" if clip.far is None else clip.far.tobytes())
    return digest.hexdigest()
