"""Clips and recordings -> vectors: a clip is checked and embedded alone, several recordings side by side.

Order in, order out, with a bounded number of recordings under way, so memory does not grow with their number. A
recording that cannot be used raises, or is reported to `skip` and gives nothing; the others go through either way.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.audio.checks import SETUP_KINDS, RecordingChecks, UsualSetup
from nearfar.embedding.batches import EXPECTED, map_batched
from nearfar.embedding.cache import CachedEncoders, PendingClip
from nearfar.embedding.facts import BandLevels, ClipFacts, GroupFeatures
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import EncoderInput, check_channels, embed, grids_of, inputs_of, vectors
from nearfar.encoders import Encoder, EncoderDescription
from nearfar.errors import AudioError
from nearfar.recipe import Recipe
from nearfar.support.check import Array
from nearfar.support.files import sha256_of
from nearfar.support.progress import Progress
from nearfar.support.threads import map_in_order, single_threaded_blas
from nearfar.support.words import join_sentences, plural, shown

WAVES = 4  # waveforms per worker that go to a network together: all processors are busy, and memory stays small
GPU_WAVES = 512  # waveforms that go to a GPU together: several batches, so that copies and products overlap
REMARKED = (audio.INCOMPLETE, *SETUP_KINDS)  # problems of a new normal that are said, though it is taken
NO_ROW: Array = np.zeros(0, np.float32)

Skip = Callable[[str, Exception], None]


@dataclass(frozen=True)
class Origin:
    """A recording: its name, its path or "", the SHA-256 of its bytes or "" if it was not computed, its length.

    `attributes` say how the machine ran; "" where that is unknown or plays no part.
    """

    name: str
    path: str
    sha256: str
    seconds: float
    attributes: str = ""


@dataclass(frozen=True)
class EmbeddedClip:
    """One clip, embedded.

    vectors    one (D,) per recipe
    problems   what is wrong with the recording
    rate       Hz at which it was recorded
    codec      as of `Clip`
    levels     its band levels; empty unless it was embedded as a normal
    setup      (audio.checks.ROW,) how it was recorded; empty unless it was embedded as a normal
    features   what its relatives are found by; None unless it was embedded as a normal of a detector with groups
    """

    origin: Origin
    vectors: list[Array]
    problems: list[audio.Problem]
    rate: int
    codec: str = ""
    levels: BandLevels = field(default_factory=BandLevels)
    setup: Array = field(default_factory=lambda: NO_ROW)
    features: GroupFeatures | None = None

    @property
    def fatal(self) -> str:
        """Why the clip cannot be judged, or ""."""
        return join_sentences(p.text for p in self.problems if p.fatal)


class ClipEmbedder:
    """Reads, checks and embeds recordings for a list of recipes.

    near, far   channel numbers of the files
    window_s    length of the windows of a long recording
    whole_s     a recording up to this length is one clip
    encoders    by name, those of the recipes
    threads     recordings embedded side by side; None: one per processor
    store       keeps what the encoders give for files
    groups      whether normals get `GroupFeatures`
    setup       how the normals were recorded, with which every clip is compared
    """

    def __init__(
        self,
        near: int,
        far: int | None,
        window_s: float,
        recipes: Sequence[Recipe],
        encoders: Mapping[str, Encoder],
        threads: int | None = None,
        store: Store | None = None,
        *,
        whole_s: float = audio.LONG_S,
        groups: bool = False,
        setup: UsualSetup | None = None,
    ) -> None:
        self.near, self.far, self.window_s, self.recipes, self.threads = near, far, window_s, recipes, threads
        self.whole_s, self.encoders, self.groups = whole_s, encoders, groups
        self.grids = CachedEncoders(encoders, store, near=near, far=far)
        self.inputs = list(dict.fromkeys(i for recipe in recipes for i in inputs_of(recipe)))
        self.grid_inputs = list(dict.fromkeys(i for recipe in recipes for i in grids_of(recipe)))
        self.needs_far = any(recipe.needs_far for recipe in recipes)
        highest_rate = max((encoder.sample_rate for encoder in encoders.values()), default=0)
        self.checks = RecordingChecks(setup or UsualSetup(), window_s, highest_rate, self.needs_far)
        self.in_batches = any(encoders[i.encoder].batches for i in self.inputs)

    def clips(self, source: Any, *, first: int = 0) -> Iterator[Clip]:
        """The clips of a source from the `first` on: a file (windows, if it is long), a `Clip`, arrays with a rate."""
        if isinstance(source, (str, os.PathLike)):
            return audio.windows(
                source, near=self.near, far=self.far, length_s=self.window_s, whole_s=self.whole_s, first=first
            )
        return audio.cut(audio.as_clip(source), self.window_s, self.whole_s)

    def embed_clip(self, clip: Clip) -> EmbeddedClip:
        """A clip in memory, checked and embedded in the calling thread."""
        problems = self.checks.problems(clip)
        z = embed(clip, self.recipes, self.encoders)
        return EmbeddedClip(Origin(clip.name, "", "", clip.seconds), z, problems, clip.rate, clip.codec)

    def embed_many(
        self,
        sources: Iterable[Any],
        skip: Skip | None = None,
        progress: Progress | None = None,
        *,
        as_normals: bool = False,
    ) -> Iterator[list[EmbeddedClip]]:
        """For each source, in order, the clips that it holds (none if it was skipped).

        `as_normals` adds what only normals need: the hash of the recording and the levels of its bands.
        """
        total = len(sources) if isinstance(sources, Sized) else None
        outcomes = self._batched(sources, as_normals) if self.in_batches else self._one_by_one(sources, as_normals)
        with closing(outcomes):
            for done, (source, outcome) in enumerate(outcomes, start=1):
                if isinstance(outcome, Exception):
                    if skip is None:
                        raise outcome
                    skip(source_name(source), outcome)
                if progress:
                    progress(done, total)
                yield [] if isinstance(outcome, Exception) else outcome

    def embed_normals(
        self,
        sources: Sequence[Any],
        is_target: Array,
        in_bank: set[str | bytes],
        skip: Skip | None,
        progress: Progress | None,
        *,
        copies: bool = False,
    ) -> tuple[list[EmbeddedClip], Array]:
        """The clips of the sources that can serve as normals, and their domains.

        A clip whose SHA-256 or set-up row is `in_bank`, or that cannot be judged, raises or is reported to `skip`.
        Without `copies`, a recording that sounds the same as an earlier one, in whatever container, is left out,
        reported to `skip` or with a Python warning: a duplicate makes leave-one-out useless, as its twin is still in
        the bank, at distance 0. Files that are cut short, or recorded otherwise than the normals of before, stay, with
        a Python warning.
        """
        kept, targets, odd, twins = [], [], [], []
        first: dict[bytes, tuple[int, str]] = {}  # set-up row -> number and name of the source that had it first
        each = self.embed_many(sources, skip, progress, as_normals=True)
        for i, (flag, clips) in enumerate(zip(is_target, each, strict=True)):
            for clip in clips:
                row = clip.setup.tobytes()
                by, twin = first.setdefault(row, (i, clip.origin.name))
                is_copy = by != i and not copies
                why = "it is in the bank already" if in_bank & {clip.origin.sha256, row} else clip.fatal
                if is_copy:
                    why = why or f"it is the same recording as {twin}"
                if not why:
                    kept.append(clip)
                    targets.append(flag)
                    odd += [f"{clip.origin.name}: {p.text}" for p in clip.problems if p.kind in REMARKED]
                    continue
                error = AudioError(f"{clip.origin.name}: cannot serve as a normal: {why}")
                if skip:
                    skip(clip.origin.name, error)
                elif is_copy:
                    twins.append(f"{clip.origin.name} is left out: it is the same recording as {twin}")
                else:
                    raise error
        if twins:
            more = f" ({plural(len(twins) - 1, 'more duplicate')} left out)" if twins[1:] else ""
            warnings.warn(f"{twins[0]}{more}", stacklevel=3)
        if odd:
            more = f" ({plural(len(odd) - 1, 'more remark')} of this kind: see nearfar doctor)" if odd[1:] else ""
            warnings.warn(f"{odd[0]}{more}", stacklevel=2)
        return kept, np.array(targets, bool)

    def sample(self, sources: Sequence[Any], count: int) -> list[Clip]:
        """About `count` clips, evenly from all that the sources hold. ValueError if none of them can be read."""
        sample, why = [], ""
        counts = [self._count(source) for source in sources]
        ends = np.cumsum(counts)
        total = int(sum(counts))
        for at in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)):
            i = int(np.searchsorted(ends, at, "right"))
            try:
                sample.append(next(self.clips(sources[i], first=int(at - ends[i]) + counts[i])))
            except (ValueError, OSError) as error:
                why = why or f": {error}"  # `embed_many` reports the others
        if not sample:
            raise ValueError(f"none of the recordings can be read, so there is nothing to fit on{why}")
        return sample

    def _count(self, source: Any) -> int:
        """How many clips a source holds; 1 if it cannot be read, which `embed_many` reports."""
        try:
            if not isinstance(source, (str, os.PathLike)):
                return 1
            return audio.count_windows(source, length_s=self.window_s, whole_s=self.whole_s)
        except (ValueError, OSError):
            return 1

    def _one_by_one(
        self, sources: Iterable[Any], as_normals: bool
    ) -> Generator[tuple[Any, list[EmbeddedClip] | Exception]]:
        """Each source with its clips, or the error that ended it; a thread works on one source."""

        def work(source: Any) -> tuple[Any, list[EmbeddedClip] | Exception]:
            try:
                checked = self._checked(source, as_normals)
                return source, [replace(clip, vectors=self._vectors(raw, sha256)) for clip, raw, sha256 in checked]
            except EXPECTED as error:
                return source, error

        return map_in_order(work, sources, self.threads, ahead=4)

    def _batched(
        self, sources: Iterable[Any], as_normals: bool
    ) -> Generator[tuple[Any, list[EmbeddedClip] | Exception]]:
        """As `_one_by_one`; the networks take clips of several sources at once."""
        workers = self.threads or os.cpu_count() or 1

        def prepare(source: Any) -> Iterator[tuple[EmbeddedClip, PendingClip]]:
            for clip, raw, sha256 in self._checked(source, as_normals):
                yield clip, raw if isinstance(raw, PendingClip) else self.grids.prepare(raw, sha256, self.inputs)

        def finish(piece: tuple[EmbeddedClip, PendingClip], grids: Mapping[EncoderInput, Array]) -> EmbeddedClip:
            return replace(piece[0], vectors=vectors(self.recipes, self.grids.keep(piece[1], grids)))

        with single_threaded_blas():
            yield from map_batched(
                sources,
                prepare,
                lambda pieces: self.grids.encode([pending for _, pending in pieces]),
                finish,
                workers=workers,
                batch=batch_of(self.inputs, workers, self.encoders),
            )

    def _vectors(self, raw: Clip | PendingClip, sha256: str) -> list[Array]:
        if isinstance(raw, PendingClip):
            return vectors(self.recipes, raw.found)
        if sha256 and self.grids.store is not None:
            return vectors(self.recipes, self.grids.arrays(raw, sha256, self.inputs))
        return embed(raw, self.recipes, self.encoders)

    def _checked(self, source: Any, as_normals: bool) -> Iterator[tuple[EmbeddedClip, Clip | PendingClip, str]]:
        """The clips of a source before they are embedded: what is known of each, the clip, the SHA-256 of its file.

        A recording of which the store has facts and arrays is not read: its arrays take the place of the clip.
        """
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        store = self.grids.store
        hash_of = store.hash_of if store is not None else sha256_of
        of_file = hash_of(path) if (store or as_normals) and path and path.is_file() else ""
        what = {"as_normal": as_normals, "grouped": as_normals and self.groups, "with_far": self.needs_far}
        if path and of_file and (stored := self._stored(of_file, what)):
            facts, pending = stored
            yield self._described(facts, shown(path.name), path, of_file, as_normals), pending, of_file
            return
        for clip in self.clips(source):
            if clip.far is None and self.needs_far:
                check_channels(clip, self.recipes)
            facts = ClipFacts.of(clip, **what)
            if of_file and clip.window is None:
                self.grids.keep_facts(of_file, str(what), facts.to_json())
            sha256 = of_file or (_hash_samples(clip) if as_normals else "")
            yield self._described(facts, clip.name, path, sha256, as_normals), clip, of_file

    def _described(self, facts: ClipFacts, name: str, path: Path | None, sha256: str, as_normal: bool) -> EmbeddedClip:
        origin = Origin(name, str(path.resolve()) if path else "", sha256, facts.seconds)
        row = facts.row if as_normal else NO_ROW
        problems = self.checks.relevant(
            facts.problems, facts.seconds, facts.rate, facts.codec, facts.has_far, lambda: facts.row
        )
        return EmbeddedClip(origin, [], problems, facts.rate, facts.codec, facts.levels, row, facts.features)

    def _stored(self, sha256: str, what: Mapping[str, bool]) -> tuple[ClipFacts, PendingClip] | None:
        """Facts and arrays of a recording that is one clip, if the store has all of them."""
        cache = self.grids
        facts = cache.facts(sha256, str(what))
        if facts is None or facts.seconds > self.whole_s or (self.needs_far and not facts.has_far):
            return None
        found = cache.read(sha256, None, self.inputs)
        grids = [i.grid for i in self.inputs if i not in found]
        found |= cache.read(sha256, None, grids)
        return (facts, PendingClip(sha256, None, found, {})) if all(grid in found for grid in grids) else None


def batch_of(inputs: Sequence[EncoderInput], workers: int, encoders: Mapping[str, EncoderDescription]) -> int:
    """How many clips go to a network together, if each has these inputs."""
    waves = WAVES * workers if all(encoders[i.encoder].device == "cpu" for i in inputs) else GPU_WAVES
    return max(1, waves // max(1, len({i.waveform for i in inputs})))


def source_name(source: Any) -> str:
    """The name of a source in a message."""
    return str(source) if isinstance(source, (str, os.PathLike)) else str(getattr(source, "name", "clip"))


def _hash_samples(clip: Clip) -> str:
    digest = hashlib.sha256(clip.near.tobytes())
    digest.update(b"" if clip.far is None else clip.far.tobytes())
    return digest.hexdigest()
