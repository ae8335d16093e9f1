"""Check recordings before a detector is fitted: which are unusable, which look wrong, which sound unlike the others.

Every file is read once, a long one window by window, so memory does not grow with its length. A file is checked by its
own samples (`audio.problems`), then against the others: rate, channels, length, copies, and how it sounds. For the
last, `recipe.BASELINE` (near channel alone) is fitted to all recordings; each gets its exact leave-one-out score,
expressed in robust standard deviations above the median. Recordings that fall into two groups are told apart by
`detector.review`.

At last the default detector is fitted on the normals of each machine that are single clips, to say which would make it
deaf: faults among the normals (`Detector.deafening`).
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nearfar import audio, backend, encoders
from nearfar.audio import Clip
from nearfar.audio.checks import DELAY, DELAY_RATE, Problem, UsualSetup, balance_db, row_of
from nearfar.audio.recordings import Files, Recording, find
from nearfar.detector import Detector, review
from nearfar.detector.default import MAX_FAULTY
from nearfar.doctor.report import FEW_NORMALS, Deaf, FileReport, Outlier, Report, TwoGroups, brief, clock, few
from nearfar.embedding.facts import BandLevels
from nearfar.embedding.vectors import embed
from nearfar.errors import AudioError
from nearfar.recipe import BASELINE
from nearfar.support.check import Array
from nearfar.support.progress import Progress
from nearfar.support.words import plural

ENOUGH_TO_COMPARE = 8  # fewest recordings that are compared with each other
LISTEN_TO = 3  # outliers that are named for each machine
WEAKER_DB = 3.0  # near below far, at the median of all recordings
LENGTH_OFF = 0.05  # tolerance, as a share of the usual length

MACHINE = re.compile(r"(?!(?:no|non|not)_)([A-Za-z-]+)_normal_\d+\.")


@dataclass
class Heard:
    """A recording, its report, and what is known of its usable windows."""

    recording: Recording
    report: FileReport
    content: str = ""  # a digest of the decoded sound
    vectors: list[tuple[float | None, Array]] = field(default_factory=list)  # start in a long file (s), embedding
    levels: BandLevels = field(default_factory=BandLevels)
    setup: Array = field(default_factory=lambda: np.zeros(0))  # the median of `row_of`


def check_recordings(
    folder_or_files: Files,
    *,
    near: int = 0,
    far: int | None = 1,
    manifest: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check recordings; a damaged file is reported and the others are still checked.

    folder_or_files   a folder, or paths
    near, far         channel numbers from 0; far None: there is no far microphone
    manifest          CSV file with machine, domain and label, as `recordings.find` reads it
    progress          called after each file

    Raises ValueError or FileNotFoundError as `recordings.find` does, if there are no recordings.
    """
    found = find(folder_or_files, manifest)
    heard: list[Heard] = []
    first_with: dict[str, str] = {}
    encoder = {BASELINE.encoder: encoders.load(BASELINE.encoder)}
    for recording in found:
        heard.append(each := _check_file(recording, near, far, encoder))
        if each.report.usable and (twin := first_with.setdefault(each.content, recording.name)) != recording.name:
            each.report.copy_of, each.vectors = twin, []
            each.report.add("duplicate", f"the same sound as {twin}")
        if progress:
            progress(len(heard), len(found))
    apart: list[TwoGroups] = []
    for members in _groups(heard, lambda each: each.report.machine):
        of_machine = _two_groups(members)
        _compare([each.report for each in members], {groups.kind for groups in of_machine})
        _mark_exchanged([each for each in members if each.report.usable])
        apart += of_machine
    outliers, too_few = _outliers(heard)
    taken = {r.path for r in _normals(found)}
    for each in heard:
        if each.recording.path not in taken:
            each.report.left_out = "named as faults" if each.recording.is_anomaly else "of the test split"
    files = [each.report for each in heard]
    apart += _named_machines([f for f in files if not f.left_out])
    single = [each.recording for each in heard if len(each.vectors) == 1]
    return Report(files, [*_notes(files), *too_few], outliers, apart, _deaf(single, near, far))


def _check_file(recording: Recording, near: int, far: int | None, encoder: dict[str, encoders.Encoder]) -> Heard:
    """One file and its problems by its own samples."""
    heard = Heard(recording, file_report := FileReport(recording.name, recording.machine))
    digest, at = hashlib.sha256(), 0.0
    balances: list[float] = []
    setups: list[Array] = []
    levels: list[BandLevels] = []
    problems: dict[str, list[tuple[float, Problem]]] = defaultdict(list)
    try:
        header = audio.header(recording.path)
        file_report.rate, file_report.channels = header.rate, header.channels
        for clip in audio.windows(recording.path, near=near, far=far):
            file_report.codec = clip.codec
            found = audio.problems(clip)
            for problem in found:
                problems[problem.kind].append((at, problem))
            if not any(problem.fatal for problem in found):
                (vector,) = embed(clip, [BASELINE], encoder)
                heard.vectors.append((at if header.seconds > audio.LONG_S else None, vector))
                levels.append(BandLevels.of(clip))
                setups.append(row_of(clip))
                if clip.far is not None:
                    balances.append(balance_db(clip.near, clip.far, clip.rate))
            _update_digest(digest, clip)
            at += clip.seconds
    except (ValueError, OSError) as error:
        kind = error.kind if isinstance(error, AudioError) else "unreadable"
        file_report.add(kind, str(error).removeprefix(f"{recording.path.name}: "), fatal=True)
        return Heard(recording, file_report)
    file_report.seconds = header.seconds if np.isfinite(header.seconds) else at
    file_report.near_minus_far_db = round(float(np.median(balances)), 1) if balances else None
    heard.setup = np.median(setups, axis=0) if setups else heard.setup
    file_report.near_later_ms = round(1000 * float(heard.setup[DELAY]) / DELAY_RATE, 2) if balances else None
    file_report.clips = max(1, len(heard.vectors))
    for hits in problems.values():
        _merge(file_report, hits, alive=bool(heard.vectors))
    heard.content = f"{file_report.rate} {file_report.seconds} {digest.hexdigest()}"
    heard.levels = BandLevels.total(levels)
    return heard


def _update_digest(digest: Any, clip: Clip) -> None:
    for channel in (clip.near, clip.far):
        if channel is not None:
            digest.update(channel.tobytes())


def _merge(file_report: FileReport, hits: list[tuple[float, Problem]], alive: bool) -> None:
    """Add one entry for a problem of several windows or both channels; fatal only if no window is usable."""
    first = hits[0][0]
    texts = [problem.text for at, problem in hits if at == first]
    if texts[1:] == [texts[0].replace("the near", "the far")]:
        texts = [texts[0].replace("the near", "each")]
    text = ", ".join([*map(brief, texts[:-1]), texts[-1]])
    if file_report.seconds > audio.LONG_S and hits[0][1].kind != audio.INCOMPLETE:
        windows = len({at for at, _ in hits})
        what, _, cause = text.partition(": ")
        of = f"{file_report.seconds / audio.WINDOW_S:.0f} windows of {audio.WINDOW_S:g} s"
        text = f"{what} in {windows} of {of}, from {clock(first)}: {cause}"
    channels = {problem.channel for _, problem in hits}
    file_report.add(hits[0][1].kind, text, hits[0][1].fatal and not alive, channels.pop() if len(channels) == 1 else "")


def _two_groups(members: list[Heard]) -> list[TwoGroups]:
    """The groups that the usable normals of one machine fall into, unless these are its two domains."""
    normal = [h for h in members if h.report.usable and not h.report.copy_of and not h.recording.is_anomaly]
    fitted = [each for each in normal if each.recording.split != "test"] or normal
    if not fitted:
        return []
    files, targets = [each.report for each in fitted], np.array([bool(each.recording.is_target) for each in fitted])
    near_means, far_means = review.band_means([each.levels for each in fitted])
    facts = [f.rate for f in files], [f.channels for f in files], [f.seconds for f in files]
    splits = review.splits(*facts, near_means, far_means, [f.codec for f in files])
    apart = [split for split in splits if not split.is_same(targets)]
    names = [f.file for f in files]
    return [TwoGroups(split.kind, files[0].machine, split.values, split.files(names)) for split in apart]


def _named_machines(files: list[FileReport]) -> list[TwoGroups]:
    """The files whose names begin with the usual machine, and with others, as in fan_normal_0001.wav."""
    named = [(f.file, match[1]) for f in files if not f.machine and (match := MACHINE.match(f.file.rpartition("/")[2]))]
    usual, *others = [name for name, _ in Counter(name for _, name in named).most_common()] or [""]
    if not others:
        return []
    parts = [file for file, name in named if name == usual], [file for file, name in named if name != usual]
    return [TwoGroups("name", "", (usual, " or ".join(sorted(others))), parts)]


def _compare(files: list[FileReport], split: set[str]) -> None:
    """Compare rate, number of channels and length of the files of one machine; not by the kinds of `split`."""
    readable = [f for f in files if f.rate and f.seconds]
    whole = [f for f in readable if not any(p.kind == audio.INCOMPLETE for p in f.problems)]
    if "rate" not in split:
        _mark_minority("odd_rate", readable, [f.rate for f in readable], "{:,} Hz", 0)
    if "channels" not in split:
        _mark_minority("odd_channels", readable, [f.channels for f in readable], "{} channels", 0)
    if "length" not in split:
        _mark_minority("odd_length", whole, [round(f.seconds, 1) for f in whole], "{:g} s", LENGTH_OFF)


def _mark_exchanged(usable: list[Heard]) -> None:
    """Mark usable files whose near and far are the reverse of most, by their set-up."""
    if len(usable) < ENOUGH_TO_COMPARE:
        return
    usual = UsualSetup.of(np.stack([each.setup for each in usable]), (), ())
    for each in usable:
        if text := usual.exchanged(each.setup):
            each.report.problems = [p for p in each.report.problems if p.kind != "swapped"]  # which guesses
            each.report.add("exchanged", text.replace("the normals", "most recordings"))


def _mark_minority(kind: str, files: list[FileReport], values: list[Any], form: str, tolerance: float) -> None:
    """Mark files whose value differs from the one that more than half of them share."""
    usual, votes = Counter(values).most_common(1)[0] if values else (0, 0)
    if votes <= max(len(files) / 2, 1):
        return
    for f, value in zip(files, values, strict=True):
        if abs(value - usual) > tolerance * usual:
            f.add(kind, f"{form.format(value)}, most have {form.format(usual)}".replace("1 channels", "1 channel"))


def _notes(files: list[FileReport]) -> list[str]:
    """Advice about all recordings together."""
    notes = []
    balances = [f.near_minus_far_db for f in files if f.near_minus_far_db is not None]
    if balances and np.median(balances) < -WEAKER_DB:
        weaker = f"{sum(b < 0 for b in balances):,} of {plural(len(balances), 'recording')}"
        notes.append(
            f"Near is weaker than far in {weaker}, by {-np.median(balances):.0f} dB at the median. Near should be the "
            "microphone at the machine: if they are swapped, exchange their plugs, or their channels "
            "(nearfar fit --near 1 --far 0)."
        )
        for f in files:
            f.problems = [p for p in f.problems if p.kind != "swapped"]
    lost = [f for f in files if not f.usable and all(p.channel == "far" for p in f.problems if p.fatal)]
    if len(lost) > MAX_FAULTY * len(files):
        notes.append(
            f"The far microphone is dead in {len(lost):,} of {plural(len(files), 'recording')}, and near is not. If "
            "there is none, or while it is being repaired, use near alone (nearfar fit --far -1)."
        )
    taken = [f for f in files if f.usable and not f.left_out]
    clips = sum(f.clips for f in taken)
    if clips > 1 and (note := few(clips, sum(f.seconds for f in taken))):
        notes.append(note)
    return notes


def _outliers(heard: list[Heard]) -> tuple[list[Outlier], list[str]]:
    """The recordings of each machine that sound least like its others, without labelled faults; and notes."""
    outliers: list[Outlier] = []
    notes = []
    normal = [each for each in heard if not each.recording.is_anomaly]
    for group in _groups(normal, lambda each: each.recording.machine):
        fitted = [each for each in group if each.recording.split != "test"] or group
        parts = [(each.recording, at, z) for each in fitted for at, z in each.vectors]
        if len(parts) < ENOUGH_TO_COMPARE:
            of = f" of {machine}" if (machine := group[0].recording.machine) else ""
            notes.append(
                f"Too few recordings{of} to say which sound unlike the others: {len(parts)} can be compared, "
                f"and {ENOUGH_TO_COMPARE} are needed."
            )
            continue
        scores = backend.fit(np.stack([z for _, _, z in parts]), **asdict(BASELINE.backend)).train_scores
        z = _robust_z(scores, np.array([bool(r.is_target) for r, _, _ in parts]))
        for i in np.argsort(-z, kind="stable")[:LISTEN_TO]:
            r, at, _ = parts[i]
            outliers.append(Outlier(r.name, r.machine, at, round(float(z[i]), 1), len(parts)))
    return outliers, notes


def _deaf(found: list[Recording], near: int, far: int | None) -> list[Deaf]:
    """The recordings of each machine that would make the default detector deaf, as it is fitted on all of them.

    `found` are recordings of one clip each. Fewer than FEW_NORMALS do not tell what is usual.
    """
    deaf = []
    for group in _groups(_normals(found), lambda r: r.machine):
        if len(group) < FEW_NORMALS:
            continue
        names = {str(r.path.resolve()): r.name for r in group}
        detector = Detector(near=near, far=far)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is wrong with the files has been reported
                detector.fit([r.path for r in group], [bool(r.is_target) for r in group], skip=lambda *_: None)
        except (ValueError, OSError):
            continue
        if (heard := detector.deafening()) is not None:
            files = [names[detector.normals[i].path] for i in heard.indices]
            points = heard.threshold, heard.threshold_without
            deaf.append(Deaf(group[0].machine, files, [round(score, 1) for score in heard.scores], *points))
    return deaf


def _normals(found: list[Recording]) -> list[Recording]:
    """The recordings that a fit would take: no labelled faults, and no test split where a machine has another."""
    normals = [r for r in found if not r.is_anomaly]
    trained = {r.machine for r in normals if r.split != "test"}
    return [r for r in normals if r.split != "test" or r.machine not in trained]


def _robust_z(scores: Array, is_target: Array) -> Array:
    """Scores (N,) -> (score - median) / (1.4826 MAD), per domain if both have enough recordings."""
    z = np.empty(len(scores))
    two = min(is_target.sum(), (~is_target).sum()) >= ENOUGH_TO_COMPARE
    for rows in (is_target, ~is_target) if two else (np.ones(len(scores), bool),):
        above = scores[rows] - np.median(scores[rows])
        sigma = 1.4826 * np.median(np.abs(above))
        z[rows] = above / max(sigma, 1e-3 * np.abs(scores[rows]).max(), 1e-12)
    return z


def _groups(items: Iterable[Any], key: Callable[[Any], str]) -> list[list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
