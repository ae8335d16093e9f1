"""The normals in the bank of a detector, beside their vectors: recordings, domains, sessions, and how they resemble."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nearfar.audio.checks import DELAY, ROW
from nearfar.audio.recordings import attributes_of, parse
from nearfar.audio.sessions import extended
from nearfar.detector import calibration
from nearfar.detector.stretches import stretches
from nearfar.detector.system import SAFETY
from nearfar.embedding.embedder import EmbeddedClip, Origin
from nearfar.embedding.facts import GroupFeatures
from nearfar.support.check import Array

NO_ROWS: Array = np.zeros((0, ROW), np.float32)


@dataclass(frozen=True, eq=False)
class Members:
    """The normals in a bank.

    origins         (N,) recordings
    is_target       (N,) bool, domains
    sessions        (N,) that file names, folders and times tell; "" where they tell none
    group_features  (N,) what relatives are found by, or [] without groups
    setup_rows      (N, ROW) how they were recorded, or (0, ROW) where that is not known of all
    """

    origins: list[Origin] = field(default_factory=list)
    is_target: Array = field(default_factory=lambda: np.zeros(0, bool))
    sessions: list[str] = field(default_factory=list)
    group_features: list[GroupFeatures] = field(default_factory=list)
    setup_rows: Array = field(default_factory=lambda: NO_ROWS)

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, rows: Sequence[int] | Array) -> Members:
        """Some of them, by their numbers (M,)."""
        return Members(
            [self.origins[i] for i in rows],
            self.is_target[rows],
            [self.sessions[i] for i in rows],
            [self.group_features[i] for i in rows] if self.group_features else [],
            self.setup_rows[rows] if len(self.setup_rows) else self.setup_rows,
        )

    def joined(self, clips: Sequence[EmbeddedClip], is_target: Array, *, by_attribute: bool) -> Members:
        """These and embedded clips with the domains `is_target` (M,); `by_attribute` looks up how the machine ran."""
        new = [clip.origin for clip in clips]
        if by_attribute:
            new = [replace(origin, attributes=_attributes(origin)) for origin in new]
        known = len(self.setup_rows) == len(self) and all(clip.setup.size for clip in clips)
        return Members(
            self.origins + new,
            np.concatenate([self.is_target, is_target]),
            extended([n.path for n in self.origins], self.sessions, [n.path for n in new]),
            self.group_features + [clip.features for clip in clips if clip.features is not None],
            np.concatenate([self.setup_rows, *(clip.setup[None] for clip in clips)]) if known else NO_ROWS,
        )

    @property
    def keys(self) -> set[str | bytes]:
        """What tells that a recording is among them: the hashes of files, and the bytes of set-up rows."""
        return {*(origin.sha256 for origin in self.origins), *(row.tobytes() for row in self.setup_rows)}

    @property
    def backing(self) -> calibration.Backing:
        """How many recordings and sessions stand behind them."""
        files = {origin.path or origin.sha256 for origin in self.origins}
        return calibration.Backing(len(self), len(files), len(set(self.sessions) - {""}))

    def grouped(self) -> tuple[Array, Array, float]:
        """Their groups (N, 2), which of them are related (N, N), and the `safety` of a set-point.

        Where no session is known, `stretches` are left out like sessions, in the order of the names.
        """
        machine, noise = (np.stack([getattr(f, name) for f in self.group_features]) for name in ("machine", "noise"))
        groups = calibration.groups(machine, noise if noise.size else None)
        files = [origin.path or origin.sha256 for origin in self.origins]
        sessions = self.sessions if any(self.sessions) else self._stretches()
        related = calibration.related(groups, recordings=files, sessions=[s or None for s in sessions])
        return groups, related, SAFETY if calibration.are_related(machine) else 1.0

    def _stretches(self) -> list[int]:
        """The stretch of each, 0 for all where nothing tells them."""
        labels = np.zeros(len(self), int)
        if len(self.setup_rows) == len(self):
            order = sorted(range(len(self)), key=lambda i: _counted(self.origins[i].path))
            labels[order] = stretches(self.setup_rows[order, :DELAY])
        return labels.tolist()


def _counted(path: str) -> list[str | int]:
    """A key by which clip 9 comes before clip 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)]


def _attributes(origin: Origin) -> str:
    return attributes_of(Path(origin.path)) if origin.path else parse(origin.name).attributes
