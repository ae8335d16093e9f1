"""Recordings -> vectors: each source is read, checked and embedded alone, several side by side.

Order in, order out, with a bounded number of sources under way, so memory does not grow with how many there are. A
source that cannot be used raises, or is reported to `skip` and gives nothing; the others go through either way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar import audio
from nearfar.audio import Clip
from nearfar.blas import one_thread
from nearfar.check import Array
from nearfar.embed import embed
from nearfar.encoders import Encoder
from nearfar.model import Normal
from nearfar.profile import Profile
from nearfar.recipe import Recipe

AHEAD = 4  # sources under way per worker

Progress = Callable[[int, int], None]
Skip = Callable[[str, Exception], None]


@dataclass(frozen=True)
class Heard:
    """One clip: where it came from, one vector (D,) per recipe, what is wrong with the recording, its profile."""

    origin: Normal
    vectors: list[Array]
    problems: list[audio.Problem]
    profile: Profile

    @property
    def fatal(self) -> str:
        """Why the clip cannot be judged, or ""."""
        return "; ".join(p.text for p in self.problems if p.fatal)


@dataclass(frozen=True)
class Ear:
    """How a detector hears: channels of files, length of windows, recipes and their encoders."""

    near: int
    far: int | None
    window_s: float
    recipes: Sequence[Recipe]
    encoders: Mapping[str, Encoder]
    threads: int | None = None

    def hear(self, sources: Sequence[Any], skip: Skip | None, progress: Progress | None) -> Iterator[list[Heard]]:
        """For each source, in order, the clips it holds (none if it was skipped)."""
        workers = self.threads or os.cpu_count() or 1
        with one_thread(), ThreadPoolExecutor(workers) as pool:
            waiting = [pool.submit(self._one, source) for source in sources[: AHEAD * workers]]
            try:
                for done, source in enumerate(sources):
                    future = waiting.pop(0)
                    if done + AHEAD * workers < len(sources):
                        waiting.append(pool.submit(self._one, sources[done + AHEAD * workers]))
                    heard: list[Heard] = []
                    try:
                        heard = future.result()
                    except (ValueError, OSError) as error:
                        if skip is None:
                            raise
                        skip(source_name(source), error)
                    if progress:
                        progress(done + 1, len(sources))
                    yield heard
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def clips(self, source: Any) -> Iterator[Clip]:
        """The clips of a source: a file (windows, if it is long), a `Clip`, or arrays with a rate."""
        if isinstance(source, (str, os.PathLike)):
            return audio.windows(source, near=self.near, far=self.far, length_s=self.window_s)
        return iter([audio.as_clip(source)])

    def _one(self, source: Any) -> list[Heard]:
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        digest = _of_file(path) if path and path.is_file() else None
        needs_far = any(recipe.needs_far for recipe in self.recipes)
        out = []
        for clip in self.clips(source):
            origin = Normal(clip.name, str(path.resolve()) if path else "", digest or _of_samples(clip), clip.seconds)
            found = [p for p in audio.problems(clip) if needs_far or p.channel == "near"]
            out.append(Heard(origin, embed(clip, self.recipes, self.encoders), found, Profile.of(clip)))
        return out


def source_name(source: Any) -> str:
    """What to call a source in a message."""
    return str(source) if isinstance(source, (str, os.PathLike)) else str(getattr(source, "name", "clip"))


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _of_samples(clip: Clip) -> str:
    digest = hashlib.sha256(clip.near.tobytes())
    digest.update(b"" if clip.far is None else clip.far.tobytes())
    return digest.hexdigest()
