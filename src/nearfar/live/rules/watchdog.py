"""Do the microphones work? A problem with a microphone is *health*, never "normal", whatever the score is.

    silent, stuck, saturated, clipped, gap, one_cable     found by `audio.checks` in a window
    exchanged, open, hum, missing_band, rate, codec       found there, beside the normals
    level          a channel is far louder or quieter than the normals, band by band

A fatal problem stands at once, another one after ON windows in a row; both end after OFF windows without it.
No clock is read: windows are counted. Whether windows come at all is the matter of `health`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearfar.audio import Clip, Problem
from nearfar.embedding.facts import BandLevels, log_mel_frames

ON, OFF = 2, 3
# The other warnings describe the set-up, which was the same for the normals.
WARNINGS = ("clipped", "gap", "one_cable", "exchanged", "open", "hum", "rate", "codec")
LEVEL_DB = 12.0  # median over bands of the shift beyond the spread of single frames of the normals
CHECK_EVERY = 12  # windows between two checks of the level: it changes slowly, and a check costs an encoder pass


class Watchdog:
    """The problems of a machine's microphones: `standing` {kind: text}, empty if there are none."""

    def __init__(self, band_levels: BandLevels) -> None:
        self.band_levels = band_levels
        self.standing: dict[str, str] = {}
        self._runs: dict[str, int] = {}
        self._count = 0

    def check(self, clip: Clip, problems: Sequence[Problem]) -> dict[str, str]:
        """Update and return `standing`, from one window and the problems that `audio.checks` found in it."""
        found = {p.kind: p for p in problems if p.fatal or p.kind in WARNINGS}
        if not any(p.fatal for p in problems):
            if self._count % CHECK_EVERY == 0:
                self._check_level(clip)
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

    def _check_level(self, clip: Clip) -> None:
        for channel in self.band_levels.sums:
            kind = f"level of {channel}"
            self.standing.pop(kind, None)
            if getattr(clip, channel) is None:
                continue
            usual, spread = self.band_levels.usual(channel)
            beyond = log_mel_frames(clip, channel).mean(axis=0) - usual
            shift = float(np.median(np.sign(beyond) * np.maximum(np.abs(beyond) - spread, 0)))
            if abs(shift) > LEVEL_DB:
                louder = "louder" if shift > 0 else "quieter"
                by = abs(float(np.median(beyond)))
                self.standing[kind] = (
                    f"the {channel} microphone picks up everything {by:.0f} dB {louder} than when it was fitted: "
                    "moved, covered, or its gain changed?"
                )
