"""A detector asked about one recording: it is scored as always, then scored again without each piece of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from nearfar.check import Array
from nearfar.embed import vectors
from nearfar.explain import evidence
from nearfar.explain.evidence import Explanation

if TYPE_CHECKING:
    from nearfar.detector import Detector


def explain(detector: Detector, source: Any, value_of: Callable[[Sequence[Array]], float]) -> Explanation:
    """Where and why a clip differs from a detector's normals; of a long file, its most unusual window.

    `value_of` gives the detector's score for one vector (D,) per recipe.
    """
    heard = next(detector.ear.hear([source], None, None))
    scores = [detector.judge(h) for h in heard]
    worst = max(range(len(scores)), key=lambda i: (scores[i].anomalous is not None, scores[i].value))
    mute = [s.problem for s in scores if s.problem and not scores[worst].problem]
    notes = [f"{len(mute)} of {len(scores)} windows cannot be judged: {mute[0]}"] if mute else []
    clip = next(islice(detector.ear.clips(source), worst, None))
    grids = detector.ear.grids(clip, heard[worst].origin)
    distances, rows = detector.nearest(heard[worst], scores[worst].parts)
    return evidence.explain(
        clip,
        replace(scores[worst], warnings=[*scores[worst].warnings, *notes]),
        leave_out=lambda span: value_of(vectors(detector.recipes, grids, span)),
        profile=detector.profile,
        leaves=[(recipe, b.z) for recipe, b in zip(detector.recipes, detector.backends, strict=True)],
        nearest=evidence.neighbours(distances.tolist(), [detector.normals[i] for i in rows]),
        offset_s=worst * round(detector.window_s * clip.rate) / clip.rate,
        channels=(detector.near, detector.far),
    )
