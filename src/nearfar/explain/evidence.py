"""Where and why a clip differs from the normals, in the words of someone who knows the machine.

    span        when: the moment without which the score falls, narrowed to where its band stands out; or throughout
    band        which pitch, louder or quieter, by how many dB
    microphone  near, far or both: the same patch on both, against what each usually hears
    nearest     the normal recordings to play beside it

The moment is found by leaving out: the clip is scored again without each piece of it, by the same path as always, so
the evidence is of what made this score, whatever the encoder, fusion or watch. The band comes from `deviation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.embedding.band_levels import BandLevels
from nearfar.embedding.embedder import Origin
from nearfar.embedding.vectors import waveforms_of
from nearfar.encoders.logmel import HOP, RATE
from nearfar.explain import deviation
from nearfar.explain.deviation import DeviationMap, Region
from nearfar.explain.wording import Explanation, Neighbour
from nearfar.recipe import Recipe
from nearfar.score import Score
from nearfar.support.check import Array

PIECE_S, MOST_PIECES, FEWEST_PIECES = 0.4, 32, 5
EXPLAINS = 0.4  # share of the score that has to go with the moment
LONGEST = 0.6  # share of the clip above which a moment is not one
CLEAR_MOMENT, CLEAR_WHOLE = 2.0, 0.7  # standard deviations of single frames, below which nothing stands out
BOTH = 0.5  # the other microphone hears it too if its change in dB is at least this share
LOUDNESS_DB = 12.0  # most that is allowed for; and nothing is called louder that is in fact quieter than usual
POINTS = 200
OF_THE_SCORE = ("name", "score", "threshold", "anomalous", "p", "triggered_by", "problem")  # fields of Score and Explanation


def explain(
    clip: Clip,
    score: Score,
    *,
    score_without: Callable[[tuple[float, float]], float],
    profile: BandLevels,
    leaves: Sequence[tuple[Recipe, Array]],
    nearest: Sequence[Neighbour] = (),
    offset_s: float = 0.0,
    channels: tuple[int, int | None] = (0, 1),
) -> Explanation:
    """Explain the `score` of a clip.

    score_without((a, b))   the score without the frames from a to b, as shares of the clip
    leaves                  the detector's recipes with the vectors (N, D) of their normals
    offset_s                where in its file the clip begins
    """
    known: dict[str, Any] = {name: getattr(score, name) for name in OF_THE_SCORE} | {
        "warnings": tuple(score.warnings),
        "seconds": clip.seconds,
        "offset_s": offset_s,
        "start_s": offset_s,
        "end_s": offset_s + clip.seconds,
        "channels": channels,
        "clip": clip,
    }
    maps = {} if score.problem else {m.of: m for m in deviation.maps(clip, profile, leaves)}
    if not maps:
        return Explanation(**known, nearest=() if score.problem else tuple(nearest))
    count = len(next(iter(maps.values())).z)
    moment = find_span(score.score, clip.seconds, score_without)
    within = None if moment is None else _frames(moment, count)
    heard = {name for recipe, _ in leaves for name in waveforms_of(recipe.view)}
    chosen, patch = choose(maps, heard, within)
    start, end = deviation.seconds_of(patch.start, patch.stop, clip.seconds)
    whole = patch.whole or end - start > 0.9 * clip.seconds
    low, high = deviation.hz_of(patch.low, patch.high)
    return Explanation(
        **known
        | {
            "clear": patch.strength >= (CLEAR_WHOLE if patch.whole and patch.times == 1 else CLEAR_MOMENT),
            "start_s": offset_s + (0.0 if whole else start),
            "end_s": offset_s + (clip.seconds if whole else end),
        },
        throughout=whole,
        times=patch.times,
        low_hz=low,
        high_hz=high,
        **_microphones(maps, chosen, patch),
        without=None if whole else score_without((start / clip.seconds, end / clip.seconds)),
        nearest=tuple(nearest),
        timeline=_timeline(chosen, patch, offset_s),
        shown=chosen,
        level_db=chosen.level_db,
    )


def find_span(
    value: float, seconds: float, score_without: Callable[[tuple[float, float]], float]
) -> tuple[float, float] | None:
    """The part of a clip (shares) without which its score falls by EXPLAINS or more, or None if there is none."""
    if value <= 1:
        return None
    count = min(MOST_PIECES, max(FEWEST_PIECES, round(seconds / PIECE_S)))
    edges = np.linspace(0, 1, count + 1)
    falls = np.array([value - score_without((float(a), float(b))) for a, b in pairwise(edges)])
    best = int(falls.argmax())
    first = last = best
    while first > 0 and falls[first - 1] >= falls[best] / 2:
        first -= 1
    while last < count - 1 and falls[last + 1] >= falls[best] / 2:
        last += 1
    moment = float(edges[first]), float(edges[last + 1])
    if moment[1] - moment[0] > LONGEST or value - score_without(moment) < EXPLAINS * value:
        return None
    return moment


def choose(
    maps: dict[str, DeviationMap], heard: set[str], within: tuple[int, int] | None
) -> tuple[DeviationMap, Region]:
    """The map to show and its patch: of what the detector heard, unless something else differs twice as much."""
    maps = dict(maps)
    found = {}
    for of, m in maps.items():
        level = m.levelled()
        found[of] = deviation.find(level.z, level.db, within)
        allowed = min(LOUDNESS_DB, abs(found[of].mean(level.db)))
        if abs(level.level_db) <= allowed and found[of].strength >= abs(m.shift):
            maps[of] = level
        else:  # the loudness itself is what differs
            found[of] = deviation.find(m.z, m.db, within)
    mine = [of for of in found if of in heard or (of == "machine" and heard - {"near", "far"})] or list(found)
    best = max(mine, key=lambda of: found[of].strength)
    rival = max(found, key=lambda of: found[of].strength)
    of = rival if found[rival].strength > 2 * found[best].strength else best
    return maps[of], found[of]


def neighbours(distances: Sequence[float], normals: Sequence[Origin]) -> list[Neighbour]:
    """The nearest normals, each once; a window of a long file is named file@start."""
    found: dict[str, Neighbour] = {}
    for distance, normal in zip(distances, normals, strict=True):
        _, at, start = normal.name.rpartition("@")
        start_s = float(start[:-1]) if at and start[:-1].replace(".", "", 1).isdigit() and start.endswith("s") else 0.0
        found.setdefault(
            normal.sha256 + normal.name,
            Neighbour(normal.name, float(distance), normal.path, start_s, normal.seconds),
        )
    return list(found.values())


def recording(neighbour: Neighbour, channels: tuple[int, int | None]) -> Clip | None:
    """The sound of a neighbour, or None if its file is gone or is not what it was."""
    near, far = channels
    if not neighbour.path:
        return None
    try:
        rate = audio.header(neighbour.path).rate
        start, frames = round(neighbour.start_s * rate), round(neighbour.seconds * rate)
        return audio.read(neighbour.path, near=near, far=far, start=start, frames=frames)
    except (ValueError, OSError):
        return None


def _microphones(maps: dict[str, DeviationMap], chosen: DeviationMap, patch: Region) -> dict[str, Any]:
    if chosen.level_db:
        maps = {of: m.levelled() for of, m in maps.items()}
    change = {of: patch.mean(m.db) for of, m in maps.items()}
    near, far = change.get("near"), change.get("far")
    out: dict[str, Any] = {"near_db": near, "far_db": far, "isolated": False}
    heard = {of: patch.sign * change[of] for of in ("near", "far") if of in change}
    loudest = max(heard, key=lambda of: heard[of])
    if chosen.of == "machine" and heard[loudest] < BOTH * patch.sign * change["machine"]:
        return out | {"microphone": "near", "isolated": True, "change_db": change["machine"]}
    also = [of for of in heard if heard[of] >= max(BOTH * heard[loudest], 1.0)]
    return out | {"microphone": "both" if len(also) == 2 else loudest, "change_db": change[loudest]}


def _timeline(shown: DeviationMap, patch: Region, offset_s: float) -> tuple[tuple[float, float], ...]:
    course = shown.db[:, patch.low : patch.high].mean(axis=1)
    step = max(1, -(-len(course) // POINTS))
    times = [offset_s + (i + (min(step, len(course) - i) - 1) / 2) * HOP / RATE for i in range(0, len(course), step)]
    return tuple((t, float(course[i * step : (i + 1) * step].mean())) for i, t in enumerate(times))


def _frames(moment: tuple[float, float], count: int) -> tuple[int, int]:
    start = min(int(moment[0] * count), count - 1)
    return start, max(start + 1, int(np.ceil(moment[1] * count)))
