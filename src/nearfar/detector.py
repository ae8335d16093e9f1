"""The detector: normal recordings in, then a score, a set-point and evidence for every new one.

One scoring path: the command line, evaluation and everything else go through `Detector.score`, and every clip is
embedded and scored alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nearfar import audio, default, model, threshold
from nearfar.backend import Backend, fit
from nearfar.check import Array, number, one_of
from nearfar.combine import Fitted, build
from nearfar.embed import Grids
from nearfar.encoders import Encoder
from nearfar.encoders import load as load_encoder
from nearfar.explain import evidence
from nearfar.explain.evidence import Explanation
from nearfar.fusion import EPS, statistics
from nearfar.hear import Ear, Heard, Progress, Skip
from nearfar.model import Normal
from nearfar.profile import Profile
from nearfar.recipe import Recipe, System, Watch, by_name, leaves
from nearfar.score import Score
from nearfar.threshold import Tail, Threshold

RATE = 0.05  # the default false-alarm rate, or what fewer than 19 normals can back: 1 / (N + 1)
SAMPLE = 48  # normals that the default looks at before it chooses
NEAREST = 3
AND = " and "


class Detector:
    """fit on normal clips, score new ones. `system` is a Recipe, Fusion, Watch, a recipe's name, or None: the default.

    `near` and `far` are channel numbers of the files; `weights` is the encoder's file, or {encoder name: file};
    `false_alarm_rate` is the share of normal clips that may alarm (None: 0.05, or 1 / (N + 1) with fewer than 19
    normals), `method` how the set-point is found (`threshold`).
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
    ) -> None:
        self.system = by_name(system) if isinstance(system, str) else system
        self.near, self.far, self.weights, self.device, self.threads = near, far, weights, device, threads
        self.false_alarm_rate = false_alarm_rate
        if false_alarm_rate is not None:
            number("false_alarm_rate", false_alarm_rate, above=0, below=1)
        self.method = one_of("threshold method", method, threshold.METHODS)
        self.by_default = self.system is None
        self.why = "" if self.by_default else "the recipe that was asked for"
        self.window_s = audio.WINDOW_S
        self.normals: list[Normal] = []
        self.is_target = np.zeros(0, bool)
        self.backends: list[Backend] = []
        self.profile = Profile()

    def fit(
        self,
        clips: Sequence[Any],
        is_target: ArrayLike | None = None,
        *,
        skip: Skip | None = None,
        progress: Progress | None = None,
    ) -> Detector:
        """Fit on normal clips (paths, `Clip`s or (near, far, rate)), with domains `is_target` (N,) or None.

        A clip that cannot be used raises; with `skip(name, error)` it is reported there and left out instead.
        """
        flags = _flags(is_target, len(clips))
        self.normals, self.backends, self.is_target, self.profile = [], [], np.zeros(0, bool), Profile()
        if self.by_default:
            self.system, self.why = default.choose(self._sample(clips), count=len(clips))
        heard, flags = self._normals(clips, flags, skip, progress, known=set())
        return self.hold(heard, flags)

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
        flags = np.full(len(clips), is_target) if isinstance(is_target, bool) else _flags(is_target, len(clips))
        heard, flags = self._normals(clips, flags, skip, progress, known)
        if not heard:
            raise ValueError("there is nothing to add: none of the recordings is usable and new")
        return self.hold(heard, flags)

    def hold(self, heard: Sequence[Heard], is_target: ArrayLike | None = None) -> Detector:
        """Put clips that have been heard into the bank, beside those that are there, and fit on all of them."""
        if len(self.normals) + len(heard) < 2:
            raise ValueError(f"a detector needs at least 2 usable normal recordings, and there are {len(heard)}")
        vectors = [np.stack([h.vectors[i] for h in heard]) for i in range(len(self.recipes))]
        if self.backends:
            vectors = [np.concatenate([b.z, v]) for b, v in zip(self.backends, vectors, strict=True)]
        else:
            self.window_s = float(np.median([h.origin.seconds for h in heard]))
        self.is_target = np.concatenate([self.is_target, _flags(is_target, len(heard))])
        self.normals = self.normals + [h.origin for h in heard]
        self.profile = Profile.total([self.profile, *(h.profile for h in heard)])
        self.backends = [fit(z, self.is_target, **vars(r.switches)) for z, r in zip(vectors, self.recipes, strict=True)]
        self._align()
        self.set_threshold()
        return self

    def score(self, clips: Sequence[Any], *, skip: Skip | None = None, progress: Progress | None = None) -> list[Score]:
        """A `Score` for each clip, in order; a file longer than `audio.LONG_S` gives one for each of its windows.

        A clip that cannot be read raises; with `skip(name, error)` it is reported there and left out instead.
        """
        return [score for scores in self.each(clips, skip=skip, progress=progress) for score in scores]

    def each(
        self, clips: Sequence[Any], *, skip: Skip | None = None, progress: Progress | None = None
    ) -> Iterator[list[Score]]:
        """The scores of each source as they are ready: one, several for a long file, none if it was skipped."""
        for heard in self.fitted.ear.hear(clips, skip, progress):
            yield [self.judge(clip) for clip in heard]

    def judge(self, clip: Heard) -> Score:
        """The score of a clip that has been heard."""
        value, parts = self._values(clip.vectors)
        said = {name: float(s[0]) for name, s in parts.items()}
        heard = self._heard(said) if isinstance(self.system, Watch) else ""
        leaf = self.leaf_of(heard)
        _, nearest = self.backends[leaf].nearest(clip.vectors[leaf][None], NEAREST)
        return Score(
            name=clip.origin.name,
            value=value,
            threshold=self.threshold.value,
            anomalous=None if clip.fatal else value > self.threshold.value,
            nearest=[self.normals[i].name for i in nearest[0]],
            p=float(np.exp(self.tail.log_p([value])[0])),
            heard=heard,
            parts=said,
            problem=clip.fatal,
            warnings=[p.text for p in clip.problems if not p.fatal],
        )

    def explain(self, source: Any) -> Explanation:
        """Where and why a clip differs from the normals; of a long file, its most unusual window. See `evidence`."""
        heard = next(self.fitted.ear.hear([source], None, None))
        scores = [self.judge(h) for h in heard]
        worst = max(range(len(scores)), key=lambda i: (scores[i].anomalous is not None, scores[i].value))
        mute = [s.problem for s in scores if s.problem and not scores[worst].problem]
        notes = [f"{len(mute)} of {len(scores)} windows cannot be judged: {mute[0]}"] if mute else []
        clip = next(islice(self.ear.clips(source), worst, None))
        grids = Grids(clip, self.recipes, self.encoders)
        leaf = self.leaf_of(scores[worst].heard)
        distances, rows = self.backends[leaf].nearest(heard[worst].vectors[leaf][None], NEAREST)
        return evidence.explain(
            clip,
            replace(scores[worst], warnings=[*scores[worst].warnings, *notes]),
            leave_out=lambda span: self._values(grids.vectors(span))[0],
            profile=self.profile,
            leaves=[(recipe, b.z) for recipe, b in zip(self.recipes, self.backends, strict=True)],
            nearest=evidence.neighbours(distances[0], [self.normals[i] for i in rows[0]]),
            offset_s=worst * round(self.window_s * clip.rate) / clip.rate,
            channels=(self.near, self.far),
        )

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
            self.threshold = Threshold(value, p, "by hand")
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
        state = model.State(
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
        )
        return model.write(folder, state, self.train_values)

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
        """The encoders that the recipes need, by name; loaded on first use."""
        shared = None if isinstance(self.weights, Mapping) else self.weights
        given = self.weights if isinstance(self.weights, Mapping) else {}
        names = sorted({recipe.encoder for recipe in self.recipes})
        return {n: load_encoder(n, given.get(n, shared), device=self.device, threads=self.threads) for n in names}

    @property
    def ear(self) -> Ear:
        """How this detector reads and embeds clips."""
        return Ear(self.near, self.far, self.window_s, self.recipes, self.encoders, self.threads)

    def leaf_of(self, heard: str = "") -> int:
        """Number of the leaf to look at: the first of the part that was heard, or the one with the largest weight."""
        if isinstance(self.system, Recipe) or self.system is None:
            return self.recipes.index(max(self.recipes, key=lambda r: r.view == "near_only"))
        counts = [len(list(leaves(part[-1]))) for part in self.system.parts]
        if isinstance(self.system, Watch):
            best = [name for name, _, _ in self.system.parts].index(heard.split(AND)[0]) if heard else 0
        else:
            best = int(np.argmax([weight for weight, _ in self.system.parts]))
        return sum(counts[:best])

    def _heard(self, said: Mapping[str, float]) -> str:
        limit = (self.threshold.value * self.sigma + self.mu) / np.log(10)  # the parts' unit
        order = sorted(said, key=lambda name: -said[name])
        return AND.join([name for name in order if said[name] > limit] or order[:1])

    def _align(self) -> None:
        assert self.system is not None
        self.combined: Fitted = build(self.system, iter(self.backends))
        self.mu, self.sigma = statistics(self.combined.train)
        self.train_values = self._in_sigmas(self.combined.train)
        self.tail = Tail(self.train_values)

    def _values(self, vectors: Sequence[Array]) -> tuple[float, dict[str, Array]]:
        raw, parts = self.combined.score(iter([v[None] for v in vectors]))
        return float(self._in_sigmas(raw)[0]), parts

    def _in_sigmas(self, raw: Array) -> Array:
        values: Array = (np.asarray(raw, np.float64) - self.mu) / (self.sigma + EPS * max(1.0, abs(self.mu)))
        return values

    def _normals(
        self, clips: Sequence[Any], flags: Array, skip: Skip | None, progress: Progress | None, known: set[str]
    ) -> tuple[list[Heard], Array]:
        kept, targets = [], []
        for flag, heard in zip(flags, self.ear.hear(clips, skip, progress), strict=True):
            for clip in heard:
                why = "it is in the bank already" if clip.origin.sha256 in known else clip.fatal
                if why:
                    error = audio.AudioError(f"{clip.origin.name}: cannot serve as a normal: {why}")
                    if skip is None:
                        raise error
                    skip(clip.origin.name, error)
                else:
                    kept.append(clip)
                    targets.append(flag)
        return kept, np.array(targets, bool)

    def _sample(self, clips: Sequence[Any]) -> list[audio.Clip]:
        ear = Ear(self.near, self.far, self.window_s, [], {})
        sample = []
        for i in np.unique(np.linspace(0, len(clips) - 1, min(SAMPLE, len(clips))).astype(int)):
            try:
                sample.append(next(ear.clips(clips[int(i)])))
            except (ValueError, OSError):
                continue  # reported when its turn comes
        if not sample:
            raise ValueError("none of the recordings can be read, so there is nothing to fit on")
        return sample


def load(
    folder: str | os.PathLike[str], weights: Any = None, *, device: str = "cpu", threads: int | None = None
) -> Detector:
    """The detector in `folder`, ready to score. ValueError or FileNotFoundError if it is no sound detector folder."""
    state = model.read(folder)
    detector = Detector(
        state.system,
        weights,
        near=state.near,
        far=state.far,
        false_alarm_rate=state.false_alarm_rate,
        method=state.method,
        device=device,
        threads=threads,
    )
    detector.why, detector.window_s, detector.profile = state.why, state.window_s, state.profile
    detector.normals, detector.is_target = state.normals, state.is_target
    for recipe, z, train in zip(detector.recipes, state.banks, state.train, strict=True):
        backend = fit(z, state.is_target, **vars(recipe.switches))
        backend.__dict__["train_scores"] = train  # as they were measured: exact leave-one-out takes its time
        detector.backends.append(backend)
    detector._align()
    detector.threshold = state.threshold
    return detector


def _flags(is_target: ArrayLike | None, count: int) -> Array:
    flags = np.zeros(count, bool) if is_target is None else np.asarray(is_target)
    if flags.shape != (count,):
        raise ValueError(f"is_target has shape {flags.shape}; give one flag for each of the {count} clips")
    return flags.astype(bool)
