"""What is known of a recording beside its vectors: kept in the store, so that it need not be read again.

A detector needs of a clip its length, how it was recorded, what is wrong with it, and of a normal also the levels of
its bands and what its relatives are found by. A store keeps all of it for recordings that are one clip.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.audio import Clip
from nearfar.audio.checks import row_of
from nearfar.embedding.band_levels import BandLevels
from nearfar.embedding.group_features import GroupFeatures
from nearfar.support.check import Array

FORMAT = 1  # raise it when what is said of a clip changes


@dataclass(frozen=True)
class ClipFacts:
    """Of a clip: seconds, rate (Hz), codec and problems as of `Clip`, and `audio.checks`'s row.

    levels are empty unless it was read as a normal; features are None unless its relatives are to be found.
    """

    seconds: float
    rate: int
    codec: str
    has_far: bool
    problems: list[audio.Problem]
    row: Array
    levels: BandLevels
    features: GroupFeatures | None = None

    @classmethod
    def of(cls, clip: Clip, *, as_normal: bool = False, grouped: bool = False, with_far: bool = False) -> ClipFacts:
        """The facts of a clip; `with_far` cleans near by far for the features."""
        return cls(
            clip.seconds,
            clip.rate,
            clip.codec,
            clip.far is not None,
            audio.problems(clip),
            row_of(clip),
            BandLevels.of(clip) if as_normal else BandLevels(),
            GroupFeatures.of(clip, with_far=with_far) if grouped else None,
        )

    def to_json(self) -> str:
        """The facts as text; the numbers come back to the last bit."""
        plain = asdict(self)
        plain["levels"] = {"sums": {k: v.tolist() for k, v in self.levels.sums.items()}, "rates": [*self.levels.rates]}
        plain["features"] = self.features and {k: v.tolist() for k, v in vars(self.features).items()}
        return json.dumps({**plain, "row": self.row.tolist()})

    @classmethod
    def from_json(cls, text: str) -> ClipFacts:
        """The facts of `to_json`'s text."""
        plain: dict[str, Any] = json.loads(text)
        levels, features = plain["levels"], plain["features"]
        return cls(
            plain["seconds"],
            plain["rate"],
            plain["codec"],
            plain["has_far"],
            [audio.Problem(**problem) for problem in plain["problems"]],
            np.array(plain["row"], np.float32),
            BandLevels({k: np.array(v) for k, v in levels["sums"].items()}, frozenset(levels["rates"])),
            features and GroupFeatures(**{k: np.array(v, np.float32) for k, v in features.items()}),
        )
