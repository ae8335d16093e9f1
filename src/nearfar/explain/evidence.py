"""Evidence: where and why a clip differs from the normals.

    span        the moment without which the score falls, narrowed to where its band stands out; or throughout
    band        the pitches that are louder or quieter, and by how many dB
    microphone  near, far or both: the same region of both maps, each against its own normals
    stroke      the weakest one, if a part that follows the rhythm was heard
    nearest     the most similar normal recordings

The moment is found by leaving out: the detector scores the clip again without each piece of it. So the moment belongs
to this score, for every encoder, fusion and watch. The band comes from `deviation`, the words from `wording`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.embedding.embedder import Origin
from nearfar.embedding.facts import BandLevels
from nearfar.embedding.vectors import waveform
from nearfar.encoders import rhythm
from nearfar.encoders.logmel import HOP, RATE
from nearfar.explain import deviation
from nearfar.explain.deviation import DeviationMap, Region
from nearfar.explain.wording import Explanation, Neighbour
from nearfar.recipe import Recipe, System, Watch
from nearfar.recipe import leaves as leaves_of
from nearfar.score import Score
from nearfar.support.check import Array

PIECE_S, MOST_PIECES, FEWEST_PIECES = 0.4, 32, 5
EXPLAINS = 0.4  # least share of the score that disappears without the moment
LONGEST = 0.6  # longest moment, as a share of the clip
CLEAR_MOMENT, CLEAR_WHOLE = 2.0, 0.7  # least strength of a clear region, in standard deviations of single frames
BOTH = 0.5  # the change is at both microphones if the smaller one is at least this share of the larger one, in dB
LOUDNESS_DB = 12.0  # largest change of the loudness as a whole that is subtracted
POINTS = 200  # most points of a timeline


def explain(
    clip: Clip,
    score: Score,
    *,
    system: System,
    score_without: Callable[[tuple[float, float]], float],
    band_levels: BandLevels,
    leaves: Sequence[tuple[Recipe, Array]],
    nearest: Sequence[Neighbour] = (),
    offset_s: float = 0.0,
    channels: tuple[int, int | None] = (0, 1),
) -> Explanation:
    """Explain the `score` of a clip.

    system                  the detector's
    score_without((a, b))   the score without the frames from a to b, as shares of the clip
    leaves                  the detector's recipes with the vectors (N, D) of their normals
    offset_s                where in its file the clip begins
    """
    without_region = Explanation(
        name=score.name,
        score=score.score,
        threshold=score.threshold,
        anomalous=score.anomalous,
        p=score.p,
        seconds=clip.seconds,
        unusual=score.unusual,
        triggered_by=score.triggered_by,
        problem=score.problem,
        warnings=tuple(score.warnings),
        start_s=offset_s,
        end_s=offset_s + clip.seconds,
        nearest=() if score.problem else tuple(nearest),
        offset_s=offset_s,
        channels=channels,
        clip=clip,
    )
    maps = {} if score.problem else {each.sound: each for each in deviation.maps(clip, band_levels, leaves)}
    if not maps:
        return without_region
    count = len(next(iter(maps.values())).z)
    moment = find_span(score.score, clip.seconds, score_without)
    within = None if moment is None else _frames(moment, count)
    waves = {name for recipe, _ in leaves for name in recipe.parsed_view.waveforms}
    chosen, region = choose_map(maps, waves, within)
    start, end = deviation.seconds_of(region.start, region.stop, clip.seconds)
    whole = region.whole or end - start > 0.9 * clip.seconds
    low, high = deviation.hz_of(region.low, region.high)
    explained = replace(
        without_region,
        clear=region.strength >= (CLEAR_WHOLE if region.whole and region.times == 1 else CLEAR_MOMENT),
        start_s=offset_s + (0.0 if whole else start),
        end_s=offset_s + (clip.seconds if whole else end),
        throughout=whole,
        times=region.times,
        low_hz=low,
        high_hz=high,
        level_db=chosen.level_db,
        without=None if whole else score_without((start / clip.seconds, end / clip.seconds)),
        timeline=_timeline(chosen, region, offset_s),
        shown=chosen,
        **_microphones(maps, chosen, region),
    )
    stroke = _stroke(clip, score, system)
    return explained if stroke is None else _with_stroke(explained, stroke)


def find_span(
    value: float, seconds: float, score_without: Callable[[tuple[float, float]], float]
) -> tuple[float, float] | None:
    """The part of a clip, as shares, without which its score falls by EXPLAINS or more; None if no part does so."""
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
    span = float(edges[first]), float(edges[last + 1])
    if span[1] - span[0] > LONGEST or value - score_without(span) < EXPLAINS * value:
        return None
    return span


def choose_map(
    maps: dict[str, DeviationMap], waves: set[str], within: tuple[int, int] | None
) -> tuple[DeviationMap, Region]:
    """The map to show and its region: of the detector's waveforms `waves`, unless another map differs twice as much.

    The loudness as a whole is subtracted from a map, unless the loudness is the larger difference. A region is never
    called louder if it is in fact quieter than usual: at most the region's own change is subtracted.
    """
    maps = dict(maps)
    found = {}
    for sound, plain in maps.items():
        levelled = plain.levelled()
        found[sound] = deviation.find_region(levelled.z, levelled.db, within)
        allowed_db = min(LOUDNESS_DB, abs(found[sound].mean(levelled.db)))
        if abs(levelled.level_db) <= allowed_db and found[sound].strength >= abs(plain.shift):
            maps[sound] = levelled
        else:
            found[sound] = deviation.find_region(plain.z, plain.db, within)
    own = [sound for sound in found if sound in waves or (sound == "machine" and waves - {"near", "far"})]
    best = max(own or found, key=lambda sound: found[sound].strength)
    rival = max(found, key=lambda sound: found[sound].strength)
    sound = rival if found[rival].strength > 2 * found[best].strength else best
    return maps[sound], found[sound]


def _stroke(clip: Clip, score: Score, system: System) -> rhythm.Stroke | None:
    """The weakest stroke of a clip, if a part that follows the rhythm was heard."""
    if not (score.anomalous or score.unusual):
        return None
    parts: list[System] = [system] if isinstance(system, Recipe) else []
    if isinstance(system, Watch):
        parts = [part for name, _, part in system.parts if name in score.triggered_by]
    for recipe in (recipe for part in parts for recipe in leaves_of(part) if recipe.encoder == "rhythm"):
        return rhythm.weakest_stroke(waveform(clip, recipe.parsed_view.waveform, RATE))
    return None


def _with_stroke(e: Explanation, stroke: rhythm.Stroke) -> Explanation:
    """The explanation with a weak stroke of its clip; if nothing else was heard, the span is where it was due."""
    e = replace(e, stroke=replace(stroke, at_s=e.offset_s + stroke.at_s))
    if len(e.triggered_by) > 1:
        return e
    start, end = (
        e.offset_s + min(max(stroke.at_s + half, 0.0), e.seconds) for half in (-stroke.every_s / 2, stroke.every_s / 2)
    )
    return replace(e, clear=False, throughout=False, times=1, start_s=start, end_s=end)


def neighbours(distances: Sequence[float], normals: Sequence[Origin]) -> list[Neighbour]:
    """The nearest normals, each once; a window of a long file has the name file@start."""
    found: dict[str, Neighbour] = {}
    for distance, normal in zip(distances, normals, strict=True):
        _, at, start = normal.name.rpartition("@")
        start_s = float(start[:-1]) if at and start[:-1].replace(".", "", 1).isdigit() and start.endswith("s") else 0.0
        found.setdefault(
            normal.sha256 + normal.name, Neighbour(normal.name, float(distance), normal.path, start_s, normal.seconds)
        )
    return list(found.values())


def recording(neighbour: Neighbour, channels: tuple[int, int | None]) -> Clip | None:
    """The sound of a neighbour, or None if its file is gone or cannot be read as before."""
    near, far = channels
    if not neighbour.path:
        return None
    try:
        rate = audio.header(neighbour.path).rate
        start, frames = round(neighbour.start_s * rate), round(neighbour.seconds * rate)
        return audio.read(neighbour.path, near=near, far=far, start=start, frames=frames)
    except (ValueError, OSError):
        return None


def _microphones(maps: dict[str, DeviationMap], chosen: DeviationMap, region: Region) -> dict[str, Any]:
    """The fields of an Explanation about the region's change at each microphone."""
    if chosen.level_db:
        maps = {sound: each.levelled() for sound, each in maps.items()}
    change = {sound: region.mean(each.db) for sound, each in maps.items()}
    near, far = change.get("near"), change.get("far")
    out: dict[str, Any] = {"near_db": near, "far_db": far, "isolated": False}
    signed = {sound: region.sign * change[sound] for sound in ("near", "far") if sound in change}
    largest = max(signed, key=lambda sound: signed[sound])
    if chosen.sound == "machine" and signed[largest] < BOTH * region.sign * change["machine"]:
        return out | {"microphone": "near", "isolated": True, "change_db": change["machine"]}
    shared = [sound for sound in signed if signed[sound] >= max(BOTH * signed[largest], 1.0)]
    return out | {"microphone": "both" if len(shared) == 2 else largest, "change_db": change[largest]}


def _timeline(shown: DeviationMap, region: Region, offset_s: float) -> tuple[tuple[float, float], ...]:
    """(seconds, change in dB of the region's band) of at most POINTS groups of frames."""
    change = shown.db[:, region.low : region.high].mean(axis=1)
    step = max(1, -(-len(change) // POINTS))
    times = [offset_s + (i + (min(step, len(change) - i) - 1) / 2) * HOP / RATE for i in range(0, len(change), step)]
    return tuple((t, float(change[i * step : (i + 1) * step].mean())) for i, t in enumerate(times))


def _frames(moment: tuple[float, float], count: int) -> tuple[int, int]:
    start = min(int(moment[0] * count), count - 1)
    return start, max(start + 1, int(np.ceil(moment[1] * count)))
