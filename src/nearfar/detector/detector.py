"""The detector: normal recordings in, then a score, a set-point and evidence for every new one.

`Detector.score_file` is the road of a recording, step by step. The command line, the evaluation, the server and the
monitor take the same steps, and every clip is embedded and scored alone.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nearfar import audio
from nearfar.audio import Clip
from nearfar.audio.checks import UsualSetup
from nearfar.backend import ATTRIBUTE, Backend, fit
from nearfar.bank import bank_of_vectors, coreset
from nearfar.detector import calibration, default, odd, review
from nearfar.detector import folder as saved
from nearfar.detector.members import Members
from nearfar.detector.sources import is_one_clip, normals_in, recordings_in
from nearfar.detector.system import (
    BY_HAND,
    THRESHOLD_METHODS,
    FittedSystem,
    PValue,
    Scored,
    Threshold,
    fit_system,
    from_normals,
    rate_of,
)
from nearfar.embedding.embedder import ClipEmbedder, EmbeddedClip, Origin, Skip
from nearfar.embedding.facts import BandLevels
from nearfar.embedding.store import Store
from nearfar.embedding.vectors import embed, vectors
from nearfar.encoders import PRECISIONS, Encoder, device_class
from nearfar.encoders.loading import WeightsId, load_encoders, weights_of, with_weights
from nearfar.encoders.table import NetworkOptions
from nearfar.explain import evidence
from nearfar.explain.wording import Explanation
from nearfar.recipe import Recipe, System, by_name, leaves
from nearfar.score import Score, domain_shift_warning, severity
from nearfar.support.check import Array, flags, integer, number, one_of
from nearfar.support.progress import Progress
from nearfar.support.threads import single_threaded_blas
from nearfar.support.words import join_sentences

RATE = 0.05  # the default false-alarm rate, if the normals can back it: 1 / (N + 1) with fewer than 19
LEAST_UNUSUAL = 0.01  # share of clips of a session that is known that may be called unusual, however few may alarm
BLANK = "nothing of it is left after preprocessing and pooling: it is as far from every normal as can be"
LONGER = 1.5  # a recording this many times as long as the normals is scored in windows of their length
GROUPS, CLIPS = CALIBRATIONS = ("groups", "clips")
SAMPLE = 48  # normals that the default looks at before it chooses a recipe


class DetectorOptions(NetworkOptions, total=False):
    """Keyword arguments of `Detector` that an evaluation passes on."""

    near: int
    far: int | None
    false_alarm_rate: float | None
    method: str
    store: Store | None


class Detector:
    """fit on normal clips, score new ones.

    system             a Recipe, Fusion, Watch, a recipe's name, or None: the default, chosen by the normals
    weights            the encoder's file, or {encoder name: file}
    near, far          channel numbers of the files; far is None for one microphone
    false_alarm_rate   share of normal clips that may alarm; None: 0.05, or 1 / (N + 1) with fewer than 19 normals
    calibration        "groups": the promise is meant for new sessions, and normals are measured without their
                       relatives (`detector.calibration`); "clips": exact leave-one-out, the report's
    method             how the set-point is found, see `detector.system`
    device, precision  of the networks
    batch              waves that a GPU computes together; None: as many as its free memory holds
    threads            recordings that are embedded side by side; None: one per processor
    store              keeps what the encoders give for files
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
        calibration: str = "groups",
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "float32",
        batch: int | None = None,
        store: Store | None = None,
    ) -> None:
        self.system = by_name(system) if isinstance(system, str) else system
        self.near, self.far, self.weights, self.device, self.threads = near, far, weights, device, threads
        device_class(device)
        self.batch = None if batch is None else integer("batch", batch)
        self.precision, self.store = one_of("precision", precision, PRECISIONS), store
        self.false_alarm_rate = false_alarm_rate
        if false_alarm_rate is not None:
            number("false_alarm_rate", false_alarm_rate, above=0, below=1)
        self.method = one_of("threshold method", method, THRESHOLD_METHODS)
        self.calibration = one_of("calibration", calibration, CALIBRATIONS)
        self.by_default = self.system is None
        self.why = "" if self.by_default else "the recipe that was asked for"
        self.loaded_encoders: Mapping[str, Encoder] | None = None
        self.saved: tuple[Path, saved.Version] | None = None  # the folder it was read from or written to last
        self._forget()

    def _forget(self) -> None:
        """The state of a detector that has no normals."""
        self.window_s = audio.WINDOW_S
        self.members = Members()
        self.band_levels = BandLevels()
        self.setup = UsualSetup()
        self.remarks: list[str] = []  # about the normals of the last `fit` or `add`
        self.weights_known: Mapping[str, WeightsId] = {}  # that the bank was made with, by encoder
        self._fitted: FittedSystem | None = None
        self._embedder: ClipEmbedder | None = None

    def fit(
        self,
        source: Any,
        is_target: ArrayLike | None = None,
        *,
        skip: Skip | None = None,
        progress: Progress | None = None,
        copies: bool = False,
    ) -> Detector:
        """Fit on normal recordings, and return this detector.

            source      folder, file, or iterable of files, `Clip`s or (near, far, rate). Of a folder, the train split
                        if it has one, without recordings whose names say that they are anomalous
            is_target   (N,) bool, domain of each recording; None: what the file names of a folder say, else source
            skip        gets (name, error) of recordings that cannot be used, which are left out; None: they raise

        Recordings that are the same as an earlier one are left out, with a Python warning or reported to `skip`, unless
        `copies` is true.
        """
        clips, domains = normals_in(source)
        is_target = domains if is_target is None else is_target
        targets = np.zeros(len(clips), bool) if is_target is None else flags("is_target", is_target, len(clips))
        self._forget()
        if not self.by_default:
            normals, targets = self.embedder.embed_normals(clips, targets, set(), skip, progress, copies=copies)
            return self.fit_embedded(normals, targets)
        reader = ClipEmbedder(self.near, self.far, self.window_s, [], {})
        features, why = default.features(reader.sample(clips, SAMPLE))
        encoders = load_encoders([recipe.encoder for recipe in features.values()])
        reader = self._reader(list(features.values()), encoders, groups=True)
        normals, targets = reader.embed_normals(clips, targets, set(), skip, progress, copies=copies)
        self.system, self.why, normals = default.choose_system(features, normals, why)
        return self.fit_embedded(normals, targets)

    def add(
        self,
        source: Any,
        is_target: ArrayLike | bool = False,
        *,
        skip: Skip | None = None,
        progress: Progress | None = None,
        copies: bool = False,
        keep: int | None = None,
    ) -> Detector:
        """Put more normals into the bank; the others' embeddings stay. A recording in the bank already is an error.

        `source`, `skip`, `progress` and `copies` as of `fit`; `is_target` is the domain of all, or (N,) of each. `keep`
        is the most normals that the bank may hold: all of the target domain stay, and of the source domain a
        `bank.coreset`. ValueError if `keep` leaves no room for the source domain.
        """
        in_bank = set() if copies else self._require_fit().members.keys
        clips, _ = normals_in(source)
        count = len(clips)
        targets = np.full(count, is_target) if isinstance(is_target, bool) else flags("is_target", is_target, count)
        new, targets = self.embedder.embed_normals(clips, targets, in_bank, skip, progress, copies=copies)
        if not new:
            raise ValueError("there is nothing to add: none of the recordings is usable and new")
        if keep is not None:
            of_target = int(self.is_target.sum() + targets.sum())
            fewest = max(recipe.backend.fewest for recipe in self.recipes)
            integer(f"keep, with {of_target} normals of the target domain,", keep, low=max(of_target + 1, fewest))
        unlike = domain_shift_warning([self.score_embedded(clip) for clip in new])
        self.fit_embedded(new, targets, keep)
        if unlike:
            self._remark(unlike)
        return self

    def fit_embedded(
        self, clips: Sequence[EmbeddedClip], is_target: ArrayLike | None = None, keep: int | None = None
    ) -> Detector:
        """Put embedded clips into the bank and fit on all of it, or on `keep`; a set-point given by hand stays."""
        count, hardest = len(self.normals) + len(clips), max(self.recipes, key=lambda recipe: recipe.backend.fewest)
        if count < (fewest := hardest.backend.fewest):
            what = f"method {hardest.method!r}{' with whiten' * hardest.whiten}" if fewest > 2 else "a detector"
            raise ValueError(f"{what} needs at least {fewest} usable normal recordings, not {count}")
        banks = [np.stack([clip.vectors[i] for clip in clips]) for i in range(len(self.recipes))]
        by_hand = None
        if self._fitted is not None:
            banks = [np.concatenate([b.z, new]) for b, new in zip(self.backends, banks, strict=True)]
            by_hand = self.threshold.value if self.threshold.method == BY_HAND else None
        review.check_vectors(self.recipes, banks, [self.band_levels, *(clip.levels for clip in clips)])
        if self._fitted is None:
            self.window_s = float(np.median([clip.origin.seconds for clip in clips]))
            networks = with_weights(recipe.encoder for recipe in self.recipes)
            if networks and self.store is not None and self.store.dtype == "float16":
                self.why += (
                    f" The store rounds what {', '.join(networks)} gives to float16, which moves a score a little."
                )
        targets = np.zeros(len(clips), bool) if is_target is None else flags("is_target", is_target, len(clips))
        by_attribute = any(recipe.banks == ATTRIBUTE for recipe in self.recipes)
        members = self.members.joined(clips, targets, by_attribute=by_attribute)
        known = self.setup.rates or not self.members
        rates = self.setup.rates | {clip.rate for clip in clips} if known else frozenset[int]()
        codecs = self.setup.codecs | {clip.codec for clip in clips if clip.codec}
        self.setup = UsualSetup.of(members.setup_rows, rates, codecs)
        self._review(clips, targets)
        self.members = members
        self.band_levels = BandLevels.total([self.band_levels, *(clip.levels for clip in clips)])
        if keep is not None and keep < len(members):
            banks = self._keep(banks, keep)
        self.weights_known = {name: weights_of(encoder) for name, encoder in self.encoders.items()}
        self._use(self._fit(banks, np.arange(len(self.members))))
        self.set_threshold(value=by_hand)
        return self

    def select(self, rows: Sequence[int], sessions: Sequence[str] | None = None) -> Detector:
        """A detector of the normals `rows` (M,), as if fitted without the others; a set-point given by hand stays.

        `sessions` (M,) are texts, "" where none is known; None: as they are. The usual levels of bands stay those of
        all normals.
        """
        rows, new = list(rows), copy.copy(self)
        fewest = max(recipe.backend.fewest for recipe in self.recipes)
        if len(rows) < fewest:
            raise ValueError(f"a detector of this kind needs at least {fewest} normal recordings, not {len(rows)}")
        new.members = self.members[rows]
        if sessions is not None:
            new.members = replace(new.members, sessions=list(sessions))
        new._use(new._fit([b.z[rows] for b in self.backends], np.arange(len(rows))))
        new.set_threshold(value=self.threshold.value if self.threshold.method == BY_HAND else None)
        return new

    def score_file(self, path: str | os.PathLike[str]) -> Iterator[Score]:
        """The scores of a recording, clip by clip: one, or one for each window of a file longer than `whole_s`."""
        system, embedder = self.fitted, self.embedder
        length_s, whole_s = self.window_s, embedder.whole_s
        for clip in audio.windows(path, near=self.near, far=self.far, length_s=length_s, whole_s=whole_s):  # read
            problems = embedder.checks.problems(clip)  # check
            with single_threaded_blas():
                z = embed(clip, embedder.recipes, embedder.encoders)  # waveforms -> grids -> pooled -> composed
                found = system.score(z)  # back ends, alignment, nearest normals
            yield self._score(system, found, clip.name, problems)

    def score_clip(self, clip: Clip) -> Score:
        """The score of a clip in memory, in the calling thread."""
        return self.score_embedded(self.embed_clip(clip))

    def embed_clip(self, clip: Clip) -> EmbeddedClip:
        """A clip in memory, checked and embedded in the calling thread; `score_embedded` scores it."""
        with single_threaded_blas():
            return self._require_fit().embedder.embed_clip(clip)

    def score(self, source: Any, *, skip: Skip | None = None, progress: Progress | None = None) -> list[Score]:
        """A `Score` for each clip, in order; a recording longer than `whole_s` gives one for each of its windows.

        `source` is a folder, a file, or an iterable of files, `Clip`s or (near, far, rate). `skip` gets (name, error)
        of recordings that cannot be read, which are left out; None: they raise.
        """
        return [score for scores in self.iter_scores(source, skip=skip, progress=progress) for score in scores]

    def iter_scores(
        self, source: Any, *, skip: Skip | None = None, progress: Progress | None = None
    ) -> Iterator[list[Score]]:
        """The scores of each recording as they are ready: one, several for a long file, none if it was skipped."""
        for clips in self._require_fit().embedder.embed_many(recordings_in(source), skip, progress):
            yield [self.score_embedded(clip) for clip in clips]

    def score_embedded(self, clip: EmbeddedClip) -> Score:
        """The score of an embedded clip."""
        system = self.fitted
        return self._score(system, system.score(clip.vectors), clip.origin.name, clip.problems)

    def explain(self, source: Any) -> Explanation:
        """Where and why a clip differs from the normals; of a long file, its most unusual window. See `evidence`.

        The clip is scored as always, then again without each piece of it.
        """
        sources = [source] if is_one_clip(source) else list(recordings_in(source))
        if len(sources) != 1:
            raise ValueError(f"explain takes one recording, and {len(sources)} were given: explain each by itself")
        (source,) = sources
        system, embedder = self.fitted, self.embedder
        clips = next(embedder.embed_many([source]))
        scored = [system.score(clip.vectors) for clip in clips]
        scores = [self._score(system, s, c.origin.name, c.problems) for s, c in zip(scored, clips, strict=True)]
        worst = max(range(len(scores)), key=lambda i: severity(scores[i]))
        mute = [s.problem for s in scores if s.problem and not scores[worst].problem]
        notes = [f"{len(mute)} of {len(scores)} windows cannot be judged: {mute[0]}"] if mute else []
        clip = next(islice(embedder.clips(source), worst, None))
        with single_threaded_blas():
            grids = embedder.grids.arrays(clip, clips[worst].origin.sha256, embedder.grid_inputs)
        found = scored[worst]
        return evidence.explain(
            clip,
            replace(scores[worst], warnings=[*scores[worst].warnings, *notes]),
            system=system.system,
            score_without=lambda span: system.score(vectors(self.recipes, grids, span)).value,
            band_levels=self.band_levels,
            leaves=[(recipe, b.z) for recipe, b in zip(self.recipes, self.backends, strict=True)],
            nearest=evidence.neighbours(found.distances.tolist(), [self.normals[i] for i in found.nearest]),
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
        if value is None:
            if false_alarms_per_day is not None:
                rate = rate_of(false_alarms_per_day, self.window_s)
            self.false_alarm_rate = self.false_alarm_rate if rate is None else number("rate", rate, above=0, below=1)
            self.method = self.method if method is None else one_of("threshold method", method, THRESHOLD_METHODS)
            self.threshold = self.threshold_for(self.promised)
            self._set_unusual_threshold()
        else:
            self.threshold = Threshold(number("the threshold", value), self.rate_at(value), BY_HAND)
        return self.threshold

    @property
    def promised(self) -> float:
        """The share of normal clips that may alarm."""
        return self._promised(len(self.normals))

    def _promised(self, normals: int) -> float:
        return self.false_alarm_rate or max(RATE, 1 / (1 + normals))

    def threshold_for(self, rate: float) -> Threshold:
        """The set-point above which a share `rate` of normal clips is expected, with groups also in a new session."""
        return self.fitted.threshold_for(rate, self.method)

    def rate_at(self, value: float) -> float:
        """The share of normal clips expected above a score; the inverse of `threshold_for`."""
        return self.fitted.rate_at(value)

    @property
    def groups(self) -> Array:
        """Machine group and noise group (N, 2) of each normal; (0, 2) if each was measured by itself."""
        return calibration.NO_GROUPS if self._fitted is None else self._fitted.groups

    @property
    def grouped(self) -> bool:
        """Whether the normals were measured without their relatives."""
        return len(self.groups) > 0

    @property
    def backing(self) -> calibration.Backing:
        """How many recordings and sessions stand behind the normals."""
        return self.members.backing

    @property
    def doubts(self) -> list[str]:
        """What is doubtful about the normals: the remarks, and too few recordings or sessions behind them."""
        few = self.backing.warning if self.grouped else ""
        return [*self.remarks, *([few] if few else [])]

    @property
    def unusual_rate(self) -> float:
        """The share of clips of a session that is known that may be unusual: as promised, but at least LEAST_UNUSUAL.

        Asking for fewer alarms than that changes the set-point alone.
        """
        return max(self.promised, LEAST_UNUSUAL)

    @property
    def unusual_threshold(self) -> float:
        """The score above which a clip is unusual even for a session that is known; at most the set-point."""
        return min(self.threshold.value, self._unusual_threshold)

    def odd_ones_out(self) -> list[odd.OddNormal]:
        """The normals to listen to: those unlike all others, and the highest scores; highest score first."""
        return odd.odd_ones_out(self.train_values, dict(self.unlike_the_others()))

    def unlike_the_others(self) -> list[tuple[int, float]]:
        """Normals that sound unlike all others, farthest first: index and robust standard deviations above the median.

        A fault among the normals is one of these. Those that are `deafening` are among them.
        """
        found = dict(odd.unlike_the_others(odd.comparing(self.fitted, self.fitted.lone)))
        far = odd.far_out(self.fitted)
        if (deaf := self._deafening(far)) is not None:
            found |= {i: max(found.get(i, 0.0), far[i]) for i in deaf.indices}
        return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))

    def deafening(self) -> odd.Deafening | None:
        """The normals that make the detector deaf to sounds like theirs, or None: a detector of the others alarms."""
        return self._deafening(odd.far_out(self.fitted))

    def _deafening(self, far: Iterable[int]) -> odd.Deafening | None:
        def refit(rows: Array) -> tuple[FittedSystem, Threshold]:
            system = self._fit([b.z for b in self.backends], rows)
            return system, system.threshold_for(self._promised(len(rows)), self.method)

        return odd.deafening(self.fitted, self.threshold.value, far, refit)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the detector to a readable folder (see `detector.folder`), replacing a detector that is there.

        Conflict (a ValueError) if it was loaded from this folder and somebody else has written to the folder since.
        """
        self._require_fit()
        assert self.system is not None
        place = Path(folder).absolute()
        state = saved.DetectorState(
            system=self.system,
            near=self.near,
            far=self.far,
            window_s=self.window_s,
            why=self.why,
            by_default=self.by_default,
            threshold=self.threshold,
            method=self.method,
            false_alarm_rate=self.false_alarm_rate,
            members=self.members,
            banks=[b.z for b in self.backends],
            own=self.fitted.own,
            lone=self.fitted.lone,
            calibration=self.calibration,
            groups=self.groups,
            safety=self.fitted.safety,
            band_levels=self.band_levels,
            setup=self.setup,
            weights=self.weights_known,
            backing=str(self.backing),
            remarks=self.remarks,
            version=self.saved[1] if self.saved is not None and self.saved[0] == place else (),
        )
        written = saved.write(folder, state, self.odd_ones_out())
        self.saved = place, saved.version(place)
        return written

    @property
    def fitted(self) -> FittedSystem:
        """The fitted back ends. ValueError if there are none yet."""
        if self._fitted is None:
            raise ValueError("this detector has not been fitted: call fit(clips) or nearfar.load(folder) first")
        return self._fitted

    @property
    def backends(self) -> Sequence[Backend]:
        """The back ends, one per recipe."""
        return self.fitted.backends

    @property
    def train_values(self) -> Array:
        """Scores (N,) of the normals in standard deviations, each without its relatives, or without itself alone."""
        return self.fitted.train_values

    @property
    def normals(self) -> list[Origin]:
        """The recordings of the normals."""
        return self.members.origins

    @property
    def is_target(self) -> Array:
        """Domains (N,) of the normals."""
        return self.members.is_target

    @property
    def sessions(self) -> list[str]:
        """The session of each normal, "" where nothing tells it."""
        return self.members.sessions

    @property
    def tail(self) -> PValue:
        """The share of normals that reach a score."""
        return self.fitted.tail

    @property
    def recipes(self) -> list[Recipe]:
        """The leaves of the system, in the order of vectors and back ends."""
        assert self.system is not None
        return list(leaves(self.system))

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The encoders that the recipes need, by name; loaded on first use. ValueError for other weights."""
        if self.loaded_encoders is None:
            names = sorted({recipe.encoder for recipe in self.recipes})
            self.loaded_encoders = load_encoders(
                names,
                self.weights,
                self.weights_known,
                device=self.device,
                threads=self.threads,
                precision=self.precision,
                batch=self.batch,
            )
        return self.loaded_encoders

    def use_encoders(self, encoders: Mapping[str, Encoder]) -> None:
        """Use encoders that are loaded already, by name."""
        self.loaded_encoders, self._embedder = encoders, None

    @property
    def embedder(self) -> ClipEmbedder:
        """Reads, checks and embeds clips for the recipes; made once for these channels and this window."""
        made, settings = self._embedder, (self.near, self.far, self.window_s, self.whole_s, self.setup)
        if made is None or (made.near, made.far, made.window_s, made.whole_s, made.checks.setup) != settings:
            self._embedder = made = self._reader(self.recipes, self.encoders)
        return made

    @property
    def whole_s(self) -> float:
        """A recording up to this length is scored whole, a longer one in windows of `window_s` seconds."""
        return audio.LONG_S if self._fitted is None else min(audio.LONG_S, LONGER * self.window_s)

    def _reader(
        self, recipes: Sequence[Recipe], encoders: Mapping[str, Encoder], *, groups: bool = False
    ) -> ClipEmbedder:
        return ClipEmbedder(
            self.near,
            self.far,
            self.window_s,
            recipes,
            encoders,
            self.threads,
            self.store,
            whole_s=self.whole_s,
            groups=groups or self.calibration == GROUPS,
            setup=self.setup,
        )

    def _score(self, system: FittedSystem, found: Scored, name: str, problems: Sequence[audio.Problem]) -> Score:
        fatal = join_sentences(p.text for p in problems if p.fatal) if problems else ""
        warnings = [p.text for p in problems if not p.fatal] + [BLANK] * found.blank
        unusual = self.unusual_threshold
        return Score(
            name=name,
            score=found.value,
            threshold=self.threshold.value,
            anomalous=None if fatal else found.value > self.threshold.value,
            unusual=None if fatal else found.value > unusual,
            unusual_threshold=unusual,
            nearest=[self.members.origins[i].name for i in found.nearest],
            p=found.p,
            triggered_by=system.triggers(found.part_scores, self.threshold.value) if found.part_scores else (),
            part_scores=found.part_scores,
            problem=fatal,
            warnings=warnings,
            codes=(*(p.kind for p in problems), *["blank"] * found.blank),
        )

    def _fit(self, banks: Sequence[Array], rows: Array) -> FittedSystem:
        """The system fitted on the normals `rows` of the banks (N, D), one bank per leaf."""
        assert self.system is not None
        members = self.members[rows]
        groups, related, safety = calibration.NO_GROUPS, None, 1.0
        if self.calibration == GROUPS and len(self.members.group_features) == len(self.members):
            groups, related, safety = members.grouped()
        selected, attributes = [z[rows] for z in banks], [origin.attributes for origin in members.origins]
        return fit_system(self.system, selected, members.is_target, attributes, groups, related, safety)

    def _use(self, fitted: FittedSystem) -> None:
        self._fitted = fitted
        self._set_unusual_threshold()

    def _set_unusual_threshold(self) -> None:
        self._unusual_threshold = from_normals(self.fitted.lone_values, self.unusual_rate, self.method).value

    def _review(self, new: Sequence[EmbeddedClip], is_target: Array) -> None:
        """Make the `remarks` about the normals that are to come in, which are Python warnings too."""
        few = review.too_few(len(self.normals) + len(new))
        self.remarks = []
        exchanged = [] if self.normals else review.exchanged(new, self.setup)  # of others, `embed_normals` has told
        for text in [*exchanged, *review.remarks(new, is_target), *([few] if few else [])]:
            self._remark(text)

    def _remark(self, text: str) -> None:
        self.remarks.append(text)
        warnings.warn(text, stacklevel=5)

    def _keep(self, banks: Sequence[Array], keep: int) -> list[Array]:
        """Forget normals of the source domain that others stand for; returns the banks (keep, D) of those that stay."""
        source, target = np.flatnonzero(~self.is_target), np.flatnonzero(self.is_target)
        flat = [bank.reshape(len(bank), -1) for bank in banks]
        spread = [float(np.sqrt(np.mean((x - x.mean(axis=0)) ** 2))) or 1.0 for x in flat]  # recipes count alike
        z = np.concatenate([x / scale for x, scale in zip(flat, spread, strict=True)], axis=1)[source]
        cover = coreset(z, keep - len(target), metric="euclidean")
        rows = np.sort(np.concatenate([source[cover.kept], target]))
        usual = float(np.median(bank_of_vectors(z, "euclidean").nearest(None, 1)[0])) or 1.0
        self._remark(
            f"{len(rows):,} of {len(self.normals):,} normals stay. One that is left out differs from the nearest that "
            f"stays {cover.mean / usual:.1f} times as much as neighbours usually differ, at most "
            f"{cover.radius / usual:.1f} times."
        )
        self.members = self.members[rows]
        return [bank[rows] for bank in banks]

    def _require_fit(self) -> Detector:
        """Self. ValueError if it has no normals."""
        assert self.fitted
        return self

    def _restore(self, state: saved.DetectorState) -> None:
        """Take over the state of a saved detector."""
        self.by_default, self.why, self.window_s = state.by_default, state.why, state.window_s
        self.remarks = list(state.remarks)
        self.members, self.band_levels = state.members, state.band_levels
        self.weights_known, self.calibration = state.weights, state.calibration
        self.setup = state.setup
        alone = [None] * len(state.own) if len(state.groups) else state.own  # exact leave-one-out takes its time
        attributes = [origin.attributes for origin in state.members.origins]
        backends = [
            fit(z, state.members.is_target, attributes=attributes, train_scores=train, **vars(recipe.backend))
            for recipe, z, train in zip(self.recipes, state.banks, alone, strict=True)
        ]
        assert self.system is not None
        self._use(FittedSystem(self.system, backends, state.own, state.lone, state.groups, state.safety))
        self.threshold = state.threshold
        if state.format < saved.FORMAT and state.threshold.method in THRESHOLD_METHODS:
            self.set_threshold()


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
    detector._restore(state)
    detector.saved = Path(folder).absolute(), state.version
    return detector
