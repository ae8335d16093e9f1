"""Recordings looked over before anything is fitted: what cannot be used, what looks wrong, which sound unlike the rest.

Every file is heard once, a long one window by window, so memory does not grow with its length. Files are judged by
their own samples (`audio.problems`), then against each other: rate, channels, length, copies, and how odd they sound.
Odd is what the floor of this project says (`recipe.BASELINE`, near channel alone): each recording is scored by a fit to
the others; its score is counted in robust standard deviations of all scores above their middle.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from nearfar import audio, backend, encoders
from nearfar.audio import Clip
from nearfar.audio.microphones import Problem, balance_db
from nearfar.audio.recordings import Files, Recording, find
from nearfar.detector.default import FAULTY, sharpest
from nearfar.doctor.checkup import FileReport, Outlier, Report, brief, clock, few
from nearfar.embedding.vectors import ENHANCE_RATE, embed
from nearfar.errors import AudioError
from nearfar.recipe import BASELINE
from nearfar.support.check import Array
from nearfar.support.progress import Progress
from nearfar.support.words import plural

ENOUGH_TO_COMPARE = 8  # recordings below which nothing can be called odd
LISTEN_TO = 3
WEAKER_DB = 3.0  # near below far, in the middle of all recordings
AHEAD_MS, EXACT_MS = 1.0, 0.3  # between the microphones; as exactly as a recording repeats another
LENGTH_OFF = 0.05  # of the usual length

Vectors = list[tuple[float | None, Array]]  # where in a long file (s), embedding


def examine(
    folder_or_files: Files,
    *,
    near: int = 0,
    far: int | None = 1,
    manifest: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look over recordings; damaged files are reported and the rest go through. `progress(done, total)` after each.

    Raises ValueError or FileNotFoundError as `recordings.find` does, where there is nothing to look at.
    """
    found = find(folder_or_files, manifest)
    files: list[FileReport] = []
    heard: list[Vectors] = []
    first_with: dict[str, str] = {}
    encoder = {BASELINE.encoder: encoders.load(BASELINE.encoder)}
    for recording in found:
        checked, content, vectors = _listen(recording, near, far, encoder)
        if checked.usable and (twin := first_with.setdefault(content, recording.name)) != recording.name:
            checked.copy_of, vectors = twin, []
            checked.add("duplicate", f"the same sound as {twin}")
        files.append(checked)
        heard.append(vectors if checked.usable else [])
        if progress:
            progress(len(files), len(found))
    for group in _groups(files, lambda f: f.machine):
        _compare(group)
    odd, too_few = _odd_ones(found, heard)
    return Report(files, [*_in_general(files), *too_few], odd)


def _listen(
    recording: Recording, near: int, far: int | None, encoder: dict[str, encoders.Encoder]
) -> tuple[FileReport, str, Vectors]:
    """One file -> what was found, a digest of its decoded sound, and a vector for each window that can be judged."""
    checked = FileReport(recording.name, recording.machine)
    digest, at = hashlib.sha256(), 0.0
    vectors: Vectors = []
    balances: list[float] = []
    later: list[float] = []
    problems: dict[str, list[tuple[float, Problem]]] = defaultdict(list)
    try:
        header = audio.header(recording.path)
        checked.rate, checked.channels = header.rate, header.channels
        for clip in audio.windows(recording.path, near=near, far=far):
            found = audio.problems(clip)
            for problem in found:
                problems[problem.kind].append((at, problem))
            if not any(problem.fatal for problem in found):
                vectors.append((at if header.seconds > audio.LONG_S else None, embed(clip, [BASELINE], encoder)[0]))
                if clip.far is not None:
                    balances.append(balance_db(clip.near, clip.far, clip.rate))
                    later.append(_later_ms(clip))
            _digest(digest, clip)
            at += clip.seconds
    except (ValueError, OSError) as error:
        kind = error.kind if isinstance(error, AudioError) else "unreadable"
        checked.add(kind, str(error).removeprefix(f"{recording.path.name}: "), fatal=True)
        return checked, "", []
    checked.seconds = header.seconds if np.isfinite(header.seconds) else at
    checked.near_minus_far_db = round(float(np.median(balances)), 1) if balances else None
    checked.near_later_ms = round(float(np.median(later)), 2) if later else None
    checked.clips = max(1, len(vectors))
    for hits in problems.values():
        _merge(checked, hits, alive=bool(vectors))
    return checked, f"{checked.rate} {checked.seconds} {digest.hexdigest()}", vectors


def _later_ms(clip: Clip) -> float:
    """How much later near hears the sharpest sound that both microphones hear."""
    pair = clip.at(ENHANCE_RATE)
    assert pair.far is not None
    return 1000 * sharpest(pair.near, pair.far)[1] / ENHANCE_RATE


def _digest(digest: Any, clip: Clip) -> None:
    for channel in (clip.near, clip.far):
        if channel is not None:
            digest.update(channel.tobytes())


def _merge(checked: FileReport, hits: list[tuple[float, Problem]], alive: bool) -> None:
    """One entry for a problem of several windows or both channels; fatal only if nothing is left to judge."""
    first = hits[0][0]
    texts = [problem.text for at, problem in hits if at == first]
    if texts[1:] == [texts[0].replace("the near", "the far")]:
        texts = [texts[0].replace("the near", "each")]
    text = ", ".join([*map(brief, texts[:-1]), texts[-1]])
    if checked.seconds > audio.LONG_S and hits[0][1].kind != audio.INCOMPLETE:
        windows = len({at for at, _ in hits})
        seen, _, cause = text.partition(": ")
        text = f"{seen} in {windows} of {checked.seconds / audio.WINDOW_S:.0f} windows of {audio.WINDOW_S:g} s"
        text += f", from {clock(first)}: {cause}"
    channels = {problem.channel for _, problem in hits}
    checked.add(hits[0][1].kind, text, hits[0][1].fatal and not alive, channels.pop() if len(channels) == 1 else "")


def _compare(files: list[FileReport]) -> None:
    """Rate, number of channels and length beside what more than half of the files of a machine have."""
    known = [f for f in files if f.rate and f.seconds]
    _outvoted("odd_rate", known, [f.rate for f in known], "{:,} Hz", 0)
    _outvoted("odd_channels", known, [f.channels for f in known], "{} channels", 0)
    whole = [f for f in known if not any(p.kind == audio.INCOMPLETE for p in f.problems)]
    _outvoted("odd_length", whole, [round(f.seconds, 1) for f in whole], "{:g} s", LENGTH_OFF)
    _exchanged([f for f in files if f.near_later_ms is not None])


def _exchanged(files: list[FileReport]) -> None:
    """Recordings in which far is ahead by as much as near is in most, or the other way round."""
    later = np.array([f.near_later_ms for f in files])
    usual = float(np.median(later)) if len(files) >= ENOUGH_TO_COMPARE else 0.0
    alike = np.abs(later - usual) < EXACT_MS
    if abs(usual) < AHEAD_MS or alike.sum() <= len(files) / 2:
        return
    first, other = ("near", "far") if usual < 0 else ("far", "near")
    for f, mirrored in zip(files, np.abs(later + usual) < EXACT_MS, strict=True):
        if mirrored:
            f.add(
                "exchanged",
                f"{other} hears the same sound {abs(usual):.1f} ms before {first}, in most {first} is first",
            )


def _outvoted(kind: str, files: list[FileReport], values: list[Any], form: str, tolerance: float) -> None:
    usual, votes = Counter(values).most_common(1)[0] if values else (0, 0)
    if votes <= max(len(files) / 2, 1):
        return
    for f, value in zip(files, values, strict=True):
        if abs(value - usual) > tolerance * usual:
            f.add(kind, f"{form.format(value)}, most have {form.format(usual)}".replace("1 channels", "1 channel"))


def _in_general(files: list[FileReport]) -> list[str]:
    notes = []
    balances = [f.near_minus_far_db for f in files if f.near_minus_far_db is not None]
    if balances and np.median(balances) < -WEAKER_DB:
        weaker = f"{sum(b < 0 for b in balances):,} of {plural(len(balances), 'recording')}"
        notes.append(
            f"Near is weaker than far in {weaker}, by {-np.median(balances):.0f} dB in the middle. Near should be the "
            "microphone at the machine: if they are swapped, exchange the numbers of --near and --far."
        )
        for f in files:
            f.problems = [p for p in f.problems if p.kind != "swapped"]
    lost = [f for f in files if not f.usable and all(p.channel == "far" for p in f.problems if p.fatal)]
    if len(lost) > FAULTY * len(files):
        notes.append(
            f"The far microphone is dead in {len(lost):,} of {plural(len(files), 'recording')}, and near is not. If "
            "there is none, or while it is being repaired, listen to near alone: --far -1, here and in nearfar fit."
        )
    clips = sum(f.clips for f in files if f.usable)
    if clips > 1 and (note := few(clips, sum(f.seconds for f in files))):
        notes.append(note)
    return notes


def _odd_ones(found: list[Recording], heard: list[Vectors]) -> tuple[list[Outlier], list[str]]:
    """The recordings of each machine that sound least like its others; those known to be faulty are left out."""
    odd: list[Outlier] = []
    notes = []
    normal = [(r, vectors) for r, vectors in zip(found, heard, strict=True) if not r.is_anomaly]
    for group in _groups(normal, lambda pair: pair[0].machine):
        fitted = [pair for pair in group if pair[0].split != "test"] or group
        parts = [(r, at, z) for r, vectors in fitted for at, z in vectors]
        if len(parts) < ENOUGH_TO_COMPARE:
            of = f" of {group[0][0].machine}" if group[0][0].machine else ""
            notes.append(
                f"Too few recordings{of} to say which sound unlike the others: {len(parts)} can be compared, "
                f"and {ENOUGH_TO_COMPARE} are needed."
            )
            continue
        scores = backend.fit(np.stack([z for _, _, z in parts]), **asdict(BASELINE.switches)).train_scores
        spreads = _spreads(scores, np.array([bool(r.is_target) for r, _, _ in parts]))
        for i in np.argsort(-spreads, kind="stable")[:LISTEN_TO]:
            r, at, _ = parts[i]
            odd.append(Outlier(r.name, r.machine, at, round(float(spreads[i]), 1), len(parts)))
    return odd, notes


def _spreads(scores: Array, is_target: Array) -> Array:
    """Scores (N,) in robust standard deviations above the middle, of each domain by itself if both are large enough."""
    out = np.empty(len(scores))
    two = min(is_target.sum(), (~is_target).sum()) >= ENOUGH_TO_COMPARE
    for rows in (is_target, ~is_target) if two else (np.ones(len(scores), bool),):
        off = scores[rows] - np.median(scores[rows])
        spread = 1.4826 * np.median(np.abs(off))
        out[rows] = off / max(spread, 1e-3 * np.abs(scores[rows]).max(), 1e-12)
    return out


def _groups(items: Iterable[Any], key: Callable[[Any], str]) -> list[list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
