"""Is anybody listening? Trouble with a microphone is *health*, never "normal", whatever the score says.

    no samples     nothing came for `silence_s`                    each kind stands after ON windows in a row (fatal: at
    silent, stuck, saturated, clipped, gap, one_cable              once), and goes after OFF windows without it
    level          a channel is far louder or quieter than the normals were, band by band (`profile`), for a while

Pure: it counts windows and is told how long nothing came. What is wrong with a window is found by `microphones`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nearfar.audio import Clip
from nearfar.audio.microphones import Problem
from nearfar.embedding.band_levels import BandLevels, frames
from nearfar.support.check import number

ON, OFF = 2, 3
WARNINGS = ("clipped", "gap", "one_cable")  # the others are how a microphone is, and were so when it was fitted
LEVEL_DB = 12.0  # median over bands, beyond what single frames of the normals spread
CHECK_EVERY = 12  # windows between looks at the level: it creeps, and costs an encoder pass


class Watchdog:
    """What is wrong with a machine's microphones; `standing` {kind: text} is empty if all is well."""

    def __init__(self, profile: BandLevels, silence_s: float | None = 30.0) -> None:
        self.profile = profile
        self.silence_s = math.inf if silence_s is None else number("silence_s", silence_s, above=0)  # None: may rest
        self.standing: dict[str, str] = {}
        self._runs: dict[str, int] = {}
        self._count = 0

    def hear(self, clip: Clip, problems: Sequence[Problem]) -> dict[str, str]:
        """One window and what `microphones` finds in it; returns what stands."""
        self.standing.pop("no samples", None)
        found = {p.kind: p for p in problems if p.fatal or p.kind in WARNINGS}
        if not any(p.fatal for p in problems):
            if self._count % CHECK_EVERY == 0:
                self._level(clip)
            self._count += 1
        for kind, problem in found.items():
            self._runs[kind] = max(self._runs.get(kind, 0), 0) + 1
            if problem.fatal or self._runs[kind] >= ON or kind in self.standing:
                self.standing.setdefault(kind, problem.text)
        for kind in [k for k in self._runs if k not in found]:
            self._runs[kind] = min(self._runs[kind], 0) - 1
            if self._runs[kind] <= -OFF:
                self.standing.pop(kind, None)
                del self._runs[kind]
        return self.standing

    def silent(self, seconds: float) -> dict[str, str]:
        """Nothing came for so long; returns what stands."""
        if seconds >= self.silence_s:
            self.standing["no samples"] = f"no sound has come for {seconds:.0f} s: is the source, or the network, down?"
        return self.standing

    def _level(self, clip: Clip) -> None:
        for channel in self.profile.sums:
            kind = f"level of {channel}"
            self.standing.pop(kind, None)
            if getattr(clip, channel) is None:
                continue
            usual, spread = self.profile.usual(channel)
            beyond = frames(clip, channel).mean(axis=0) - usual
            shift = float(np.median(np.sign(beyond) * np.maximum(np.abs(beyond) - spread, 0)))
            if abs(shift) > LEVEL_DB:
                louder = "louder" if shift > 0 else "quieter"
                by = abs(float(np.median(beyond)))
                self.standing[kind] = (
                    f"the {channel} microphone hears everything {by:.0f} dB {louder} than when it was fitted: "
                    "moved, covered, or its gain changed?"
                )
