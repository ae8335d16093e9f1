"""The detector: normal recordings in, then a score, a set-point and evidence for every new one.

One scoring path: the command line, evaluation and everything else go through `Detector.score`, and every clip is
embedded and scored alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nearfar import audio, threshold
from nearfar.backend import Backend, fit
from nearfar.detector import default
from nearfar.detector import folder as saved
from nearfar.detector.system import Fitted, build
from nearfar.embedding.band_levels import BandLevels
from nearfar.embedding.embedder import ClipEmbedder, EmbeddedClip, Origin, Skip
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import vectors
from nearfar.encoders import PRECISIONS, Encoder
from nearfar.encoders.loading import load_encoders, weights_of
from nearfar.explain import evidence
from nearfar.explain.wording import Explanation
from nearfar.fusion import in_sigmas, statistics
from nearfar.recipe import Recipe, System, Watch, by_name, dominant_recipe, leaves
from nearfar.score import Score
from nearfar.support.check import Array, flags, number, one_of
from nearfar.support.progress import Progress
from nearfar.threshold import PValue, Threshold

# A detector asked about one recording: it is scored as always, then scored again without each piece of it.


def explain(detector: Detector, source: Any, value_of: Callable[[Sequence[Array]], float]) -> Explanation:
    """Where and why a clip differs from a detector's normals; of a long file, its most unusual window.

    `value_of` gives the detector's score for one vector (D,) per recipe.
    """
    heard = next(detector.ear.hear([source], None, None))
    scores = [detector.score_embedded(h) for h in heard]
    worst = max(range(len(scores)), key=lambda i: (scores[i].anomalous is not None, scores[i].score))
    mute = [s.problem for s in scores if s.problem and not scores[worst].problem]
    notes = [f"{len(mute)} of {len(scores)} windows cannot be judged: {mute[0]}"] if mute else []
    clip = next(islice(detector.ear.clips(source), worst, None))
    grids = detector.ear.grids(clip, heard[worst].origin)
    distances, rows = detector.nearest(heard[worst], scores[worst].part_scores)
    return evidence.explain(
        clip,
        replace(scores[worst], warnings=[*scores[worst].warnings, *notes]),
        score_without=lambda span: value_of(vectors(detector.recipes, grids, span)),
        profile=detector.profile,
        leaves=[(recipe, b.z) for recipe, b in zip(detector.recipes, detector.backends, strict=True)],
        nearest=evidence.neighbours(distances.tolist(), [detector.normals[i] for i in rows]),
        offset_s=worst * round(detector.window_s * clip.rate) / clip.rate,
        channels=(detector.near, detector.far),
    )


RATE = 0.05  # the default false-alarm rate, or what fewer than 19 normals can back: 1 / (N + 1)
SAMPLE = 48  # normals that the default looks at before it chooses
NEAREST = 3


class Detector:
    """fit on normal clips, score new ones. `system` is a Recipe, Fusion, Watch, a recipe's name, or None: the default.

    `near` and `far` are channel numbers of the files; `weights` is the encoder's file, or {encoder name: file};
    `false_alarm_rate` is the share of normal clips that may alarm (None: 0.05, or 1 / (N + 1) with fewer than 19
    normals), `method` how the set-point is found (`threshold`); `store` keeps what networks give for files.
    """

    def __init__(
        self,
        system: System | str | None = None,
        weights: Any = None,
        *,
        near: int = 0,
        far: int | None = 1,
        false_alarm_rate: float | None = None,
        method: str = "conformal",
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "float32",
        store: Store | None = None,
    ) -> None:
        self.system = by_name(system) if isinstance(system, str) else system
        self.near, self.far, self.weights, self.device, self.threads = near, far, weights, device, threads
        self.precision, self.store = one_of("precision", precision, PRECISIONS), store
        self.false_alarm_rate = false_alarm_rate
        if false_alarm_rate is not None:
            number("false_alarm_rate", false_alarm_rate, above=0, below=1)
        self.method = one_of("threshold method", method, threshold.METHODS)
        self.by_default = self.system is None
        self.why = "" if self.by_default else "the recipe that was asked for"
        self.window_s = audio.WINDOW_S
        self.normals: list[Origin] = []
        self.is_target = np.zeros(0, bool)
        self.backends: list[Backend] = []
        self.profile = BandLevels()
        self.weights_known: Mapping[str, str] = {}  # hash of the weights that the bank was made with, by encoder

    def fit(
        self,
        clips: Sequence[Any],
        is_target: ArrayLike | None = None,
        *,
        skip: Skip | None = None,
        progress: Progress | None = None,
        copies: bool = True,
    ) -> Detector:
        """Fit on normal clips (paths, `Clip`s or (near, far, rate)), with domains `is_target` (N,) or None.

        A clip that cannot be used raises; with `skip(name, error)` it is reported there and left out instead. Without
        `copies`, one that is the same as another is such a clip.
        """
        targets = _flags(is_target, len(clips))
        self.normals, self.backends, self.is_target, self.profile = [], [], np.zeros(0, bool), BandLevels()
        self.weights_known, self.window_s = {}, audio.WINDOW_S
        if self.by_default:
            ear = ClipEmbedder(self.near, self.far, self.window_s, [], {})
            self.system, self.why = default.choose(*ear.sample(clips, SAMPLE))
        return self.fit_embedded(*self.ear.normals(clips, targets, set(), skip, progress, copies=copies))

    def add(
        self,
        clips: Sequence[Any],
        is_target: ArrayLike | bool = False,
        *,
        skip: Skip | None = None,
        progress: Progress | None = None,
    ) -> Detector:
        """Put more normals into the bank; the others' embeddings stay. One that is in it already is an error."""
        known = {n.sha256 for n in self.fitted.normals}
        targets = np.full(len(clips), is_target) if isinstance(is_target, bool) else _flags(is_target, len(clips))
        heard, targets = self.ear.normals(clips, targets, known, skip, progress)
        if not heard:
            raise ValueError("there is nothing to add: none of the recordings is usable and new")
        return self.fit_embedded(heard, targets)

    def fit_embedded(self, heard: Sequence[EmbeddedClip], is_target: ArrayLike | None = None) -> Detector:
        """Put clips that have been heard into the bank and fit on all of it; a set-point given by hand stays."""
        if len(self.normals) + len(heard) < 2:
            raise ValueError(f"a detector needs at least 2 usable normal recordings, not {len(heard)}")
        vectors = [np.stack([h.vectors[i] for h in heard]) for i in range(len(self.recipes))]
        by_hand = None
        if self.backends:
            vectors = [np.concatenate([b.z, v]) for b, v in zip(self.backends, vectors, strict=True)]
            by_hand = self.threshold.value if self.threshold.method == threshold.BY_HAND else None
        else:
            self.window_s = float(np.median([h.origin.seconds for h in heard]))
        self.is_target = np.concatenate([self.is_target, _flags(is_target, len(heard))])
        self.normals = self.normals + [h.origin for h in heard]
        self.profile = BandLevels.total([self.profile, *(h.profile for h in heard)])
        self.backends = [fit(z, self.is_target, **vars(r.backend)) for z, r in zip(vectors, self.recipes, strict=True)]
        self.weights_known = {name: weights_of(encoder) for name, encoder in self.encoders.items()}
        self._align()
        self.set_threshold(value=by_hand)
        return self

    def score(self, clips: Sequence[Any], *, skip: Skip | None = None, progress: Progress | None = None) -> list[Score]:
        """A `Score` for each clip, in order; a file longer than `audio.LONG_S` gives one for each of its windows.

        A clip that cannot be read raises; with `skip(name, error)` it is reported there and left out instead.
        """
        return [score for scores in self.iter_scores(clips, skip=skip, progress=progress) for score in scores]

    def iter_scores(
        self, clips: Sequence[Any], *, skip: Skip | None = None, progress: Progress | None = None
    ) -> Iterator[list[Score]]:
        """The scores of each source as they are ready: one, several for a long file, none if it was skipped."""
        for heard in self.fitted.ear.hear(clips, skip, progress):
            yield [self.score_embedded(clip) for clip in heard]

    def score_embedded(self, clip: EmbeddedClip) -> Score:
        """The score of a clip that has been heard."""
        value, parts = self._values(clip.vectors)
        part_scores = {name: float(s[0]) for name, s in parts.items()}
        _, nearest = self.nearest(clip, part_scores)
        highest = max(encoder.sample_rate for encoder in self.encoders.values())
        return Score(
            name=clip.origin.name,
            score=value,
            threshold=self.threshold.value,
            anomalous=None if clip.fatal else value > self.threshold.value,
            nearest=[self.normals[i].name for i in nearest],
            p=float(np.exp(self.tail.log_p([value])[0])),
            triggered_by=self._triggers(part_scores) if isinstance(self.system, Watch) else (),
            part_scores=part_scores,
            problem=clip.fatal,
            warnings=[p.text for p in clip.problems if not p.fatal] + self.profile.another_rate(clip.profile, highest),
        )

    def nearest(self, clip: EmbeddedClip, part_scores: Mapping[str, float]) -> tuple[Array, Array]:
        """Distances and indices (3,) of the normals nearest to a clip, by the leaf that counts most in its score."""
        assert self.system is not None
        leaf = dominant_recipe(self.system, part_scores)
        distances, rows = self.backends[leaf].nearest(clip.vectors[leaf][None], NEAREST)
        return distances[0], rows[0]

    def explain(self, source: Any) -> Explanation:
        """Where and why a clip differs from the normals; of a long file, its most unusual window. See `evidence`."""
        return explain(self.fitted, source, lambda vectors: self._values(vectors)[0])

    def set_threshold(
        self,
        *,
        rate: float | None = None,
        false_alarms_per_day: float | None = None,
        value: float | None = None,
        method: str | None = None,
    ) -> Threshold:
        """Change the set-point without refitting: a share of normal clips, false alarms per day, or a value by hand."""
        if value is not None:
            p = float(np.exp(self.fitted.tail.log_p([number("the threshold", value)])[0]))
            self.threshold = Threshold(value, p, threshold.BY_HAND)
            return self.threshold
        if false_alarms_per_day is not None:
            rate = threshold.rate_of(false_alarms_per_day, self.window_s)
        self.false_alarm_rate = self.false_alarm_rate if rate is None else number("rate", rate, above=0, below=1)
        self.method = self.method if method is None else one_of("threshold method", method, threshold.METHODS)
        promised = self.false_alarm_rate or max(RATE, 1 / (1 + len(self.normals)))
        self.threshold = threshold.from_normals(self.train_values, promised, self.method)
        return self.threshold

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the detector to a readable folder (see `model`), replacing a detector that is there."""
        assert self.fitted.system is not None
        state = saved.DetectorState(
            system=self.system,  # type: ignore[arg-type]
            near=self.near,
            far=self.far,
            window_s=self.window_s,
            why=self.why,
            threshold=self.threshold,
            method=self.method,
            false_alarm_rate=self.false_alarm_rate,
            normals=self.normals,
            is_target=self.is_target,
            banks=[b.z for b in self.backends],
            train=[b.train_scores for b in self.backends],
            profile=self.profile,
            weights=self.weights_known,
        )
        return saved.write(folder, state, self.train_values)

    @property
    def fitted(self) -> Detector:
        """Self, or a ValueError if there is no bank yet."""
        if not self.backends:
            raise ValueError("this detector has not been fitted: call fit(clips) or nearfar.load(folder) first")
        return self

    @property
    def recipes(self) -> list[Recipe]:
        """The leaves of the system, in the order of vectors and back ends."""
        assert self.system is not None
        return list(leaves(self.system))

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders that the recipes need, by name; loaded on first use. ValueError for other weights."""
        names = sorted({recipe.encoder for recipe in self.recipes})
        settings = {"device": self.device, "threads": self.threads, "precision": self.precision}
        return load_encoders(names, self.weights, self.weights_known, **settings)  # type: ignore[arg-type]

    @property
    def ear(self) -> ClipEmbedder:
        """How this detector reads and embeds clips."""
        return ClipEmbedder(self.near, self.far, self.window_s, self.recipes, self.encoders, self.threads, self.store)

    def _triggers(self, part_scores: Mapping[str, float]) -> tuple[str, ...]:
        limit = (self.threshold.value * self.sigma + self.mu) / np.log(10)  # the parts' unit
        order = sorted(part_scores, key=lambda name: -part_scores[name])
        return tuple([name for name in order if part_scores[name] > limit] or order[:1])

    def _align(self) -> None:
        assert self.system is not None
        self.combined: Fitted = build(self.system, iter(self.backends))
        self.mu, self.sigma = statistics(self.combined.train)
        self.train_values = in_sigmas(self.combined.train, self.mu, self.sigma)
        self.tail = PValue(self.train_values)

    def _values(self, vectors: Sequence[Array]) -> tuple[float, dict[str, Array]]:
        raw, parts = self.combined.score(iter([v[None] for v in vectors]))
        return float(in_sigmas(raw, self.mu, self.sigma)[0]), parts


def load(
    folder: str | os.PathLike[str],
    weights: Any = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    store: Store | None = None,
) -> Detector:
    """The detector in `folder`, ready to score. ValueError or FileNotFoundError if it is no sound detector folder."""
    state = saved.read(folder)
    detector = Detector(
        state.system,
        weights,
        near=state.near,
        far=state.far,
        false_alarm_rate=state.false_alarm_rate,
        method=state.method,
        device=device,
        threads=threads,
        store=store,
    )
    detector.weights_known = state.weights
    detector.why, detector.window_s, detector.profile = state.why, state.window_s, state.profile
    detector.normals, detector.is_target = state.normals, state.is_target
    for recipe, z, train in zip(detector.recipes, state.banks, state.train, strict=True):
        detector.backends.append(fit(z, state.is_target, train_scores=train, **vars(recipe.backend)))
    detector._align()
    detector.threshold = state.threshold
    if state.format < saved.FORMAT and state.threshold.method in threshold.METHODS:
        detector.set_threshold()
    return detector


def _flags(is_target: ArrayLike | None, count: int) -> Array:
    return np.zeros(count, bool) if is_target is None else flags("is_target", is_target, count)
