"""An explanation as data and in plain words: what a plant engineer reads first.

`Explanation` holds what `evidence` found; the functions below it only choose words and compute no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from nearfar.audio import Clip
from nearfar.encoders.rhythm import Stroke
from nearfar.explain.deviation import DeviationMap
from nearfar.score import status
from nearfar.support.words import as_sentence

SHORT_S = 0.3
SILENT = 0.25  # a stroke that has less than this share of the usual strength is missing
NARROW = 0.25  # octaves


@dataclass(frozen=True)
class Neighbour:
    """A normal recording to play beside the clip: `seconds` of the file `path` ("" if unknown) from `start_s`."""

    name: str
    distance: float
    path: str
    start_s: float
    seconds: float


TRIGGERS = {  # what the parts of the default and the plain alarms listen for
    "clean": "its sound without the room",
    "near": "its sound at the near microphone",
    "burst": "sudden knocks",
    "modulation": "how its level swings",
    "rhythm": "its rhythm",
    "steady": "its steady sound",
    "transient": "single moments",
    "loudness": "its loudness",
}


def noticed(names: Sequence[str]) -> str:
    """In what the parts of a detector with these names heard a difference, in words."""
    *others, last = (TRIGGERS.get(name, name) for name in names)
    return f"{', '.join(others)} and {last}" if others else last


@dataclass(frozen=True)
class Explanation:
    """Where and why a clip differs. Times in s from the start of the file, changes in dB above what is usual.

    `level_db` is how much louder the recording is as a whole; the other changes do not contain it.
    `clear` is False if nothing stands out; span and band are then those of the largest deviation.
    `isolated` is True if the change shows only once the far microphone's sound is taken away from near.
    `without` is the score of the clip without the span. `stroke` is the weakest one, if a missing stroke was heard.
    """

    name: str
    score: float
    threshold: float
    anomalous: bool | None
    p: float
    seconds: float
    unusual: bool | None = None
    triggered_by: tuple[str, ...] = ()
    problem: str = ""
    warnings: tuple[str, ...] = ()
    clear: bool = False
    start_s: float = 0.0
    end_s: float = 0.0
    throughout: bool = True
    times: int = 1
    low_hz: float = 0.0
    high_hz: float = 0.0
    change_db: float = 0.0
    near_db: float | None = None
    far_db: float | None = None
    microphone: str = ""
    isolated: bool = False
    level_db: float = 0.0
    without: float | None = None
    stroke: Stroke | None = None
    nearest: tuple[Neighbour, ...] = ()
    timeline: tuple[tuple[float, float], ...] = ()
    offset_s: float = 0.0
    channels: tuple[int, int | None] = (0, 1)
    clip: Clip | None = field(default=None, repr=False, compare=False)
    shown: DeviationMap | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the sound and the map, ready for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("clip", "shown", "nearest")}
        rounded = {k: round(v, 4) if isinstance(v, float) and k != "p" else v for k, v in plain.items()}
        return rounded | {
            "triggered_by": list(self.triggered_by),
            "warnings": list(self.warnings),
            "channels": list(self.channels),
            "stroke": None if self.stroke is None else asdict(self.stroke),
            "nearest": [asdict(n) for n in self.nearest],
            "timeline": [[round(t, 3), round(v, 2)] for t, v in self.timeline],
            "sentence": self.sentence(),
        }

    def verdict(self) -> str:
        """The score beside the set-point, and how rare such a score is."""
        if self.anomalous is None:
            return f"Cannot be judged: {as_sentence(self.problem or 'the recording is not usable')}"
        word = "Sounds wrong" if self.anomalous else status(self.anomalous, self.unusual)
        above = f"{self.score:.1f} standard deviations above normal, alarm above {self.threshold:.1f}"
        return f"{word}: {above}. {rarity(self.p)}"

    def sentence(self) -> str:
        """What differs, where, by how much, and which normals are most alike."""
        return " ".join([difference(self), *([most_similar(self)] if self.nearest else [])])

    def lines(self) -> list[str]:
        """One fact a line: verdict, what differs, `details`, the most similar normals, warnings."""
        if self.problem:
            return [difference(self), *notes(self)]
        similar = [most_similar(self)] if self.nearest else []
        return [self.verdict(), difference(self), *details(self), *similar, *notes(self)]


def details(e: Explanation) -> list[str]:
    """Where to look, the loudness as a whole, and the score without the moment; only what applies."""
    return [] if e.problem else [line for line in (where_to_look(e), loudness(e), without_moment(e)) if line]


def rarity(p: float) -> str:
    """How often a healthy machine sounds as unusual."""
    if p > 0.4:
        return "Healthy recordings often sound like this."
    if p < 1e-6:
        return "Fewer than 1 healthy recording in a million sounds as unusual."
    often = 1 / p
    digits = 10 ** max(0, int(np.log10(often)) - 1)
    return f"About 1 healthy recording in {round(often / digits) * digits:,.0f} sounds as unusual."


def difference(e: Explanation) -> str:
    """The difference itself: when, which microphone, how much, which pitch."""
    if e.problem or e.anomalous is None:
        return f"This recording cannot be judged: {as_sentence(e.problem or 'it is not usable')}"
    stroke = missing_stroke(e)
    if stroke and not e.clear:
        return stroke
    odd = e.anomalous or e.unusual
    start = f"{stroke} " if stroke else "" if odd else "Sounds like the normal recordings. "
    if not e.clear:
        rest = ": many small things differ at once." if odd else "."
        return f"{start}No single moment or pitch stands out{rest}"
    heard = (
        f"{abs(e.change_db):.0f} dB {'more' if e.change_db > 0 else 'less'} than usual"
        f"{' for its loudness' if allows_for_loudness(e) else ''} {band(e)}{likeness(e)}"
    )
    which = "microphone" if e.far_db is None else f"{e.microphone} microphone"
    text = f"{when(e)} the {which}{', with the sound at the far one taken away,' if e.isolated else ''} hears {heard}."
    if e.far_db is not None and e.microphone == "both":
        text = f"{when(e)} both microphones hear {heard}."
    return start + text if odd else f"{start}The largest difference: {text[0].lower()}{text[1:]}"


def missing_stroke(e: Explanation) -> str:
    """The weak stroke of a machine that ticks: when it was due, and how often one comes; "" if none was heard."""
    if e.stroke is None:
        return ""
    left = e.stroke.strength
    what = "is missing" if left < SILENT else f"has {left:.0%} of its usual strength"
    return f"A stroke {what} at {e.stroke.at_s:.1f} s; one was due there, as every {e.stroke.every_s:.2f} s."


def when(e: Explanation) -> str:
    """The span in words."""
    if e.times > 1:
        return f"Again and again ({e.times} times in {e.seconds:.0f} s)"
    if e.throughout:
        return f"Throughout the {e.seconds:.0f} s from {e.start_s:.0f} s" if e.offset_s else "Throughout the recording"
    if e.end_s - e.start_s < 0.15:
        return f"At {(e.start_s + e.end_s) / 2:.1f} s"
    return f"Between {e.start_s:.1f} and {e.end_s:.1f} s"


def band(e: Explanation) -> str:
    """The band of pitches in words."""
    if e.low_hz < 60 and e.high_hz > 7900:
        return "at all pitches"
    if e.low_hz < 60:
        return f"below {hertz(e.high_hz)}"
    if e.high_hz > 7900:
        return f"above {hertz(e.low_hz)}"
    if octaves(e) < NARROW / 2:
        return f"around {hertz((e.low_hz + e.high_hz) / 2)}"
    low, high = hertz(e.low_hz), hertz(e.high_hz)
    if low.split()[1] == high.split()[1]:
        low = low.split()[0]
    return f"between {low} and {high}"


def hertz(f: float) -> str:
    """A frequency in Hz or kHz, rounded."""
    return f"{f / 1000:.1f} kHz" if f >= 995 else f"{round(f / 10) * 10:.0f} Hz"


def octaves(e: Explanation) -> float:
    """Width of the band in octaves."""
    return float(np.log2(e.high_hz / max(e.low_hz, 30.0)))


def likeness(e: Explanation) -> str:
    """A familiar sound with this length and band, or "" where several would fit."""
    if e.change_db < 3:
        return ""
    short = not e.throughout and e.end_s - e.start_s < SHORT_S
    if e.times > 1 and octaves(e) > 1:
        return " (like knocking)"
    if short and octaves(e) > 1:
        return " (like a knock)"
    if not short and octaves(e) < NARROW:
        return " (like a tone or whistle)"
    if not short and e.low_hz > 1500 and octaves(e) > NARROW:
        return " (like a hiss)"
    if not short and e.high_hz < 500 and octaves(e) > NARROW:
        return " (like a hum or rumble)"
    return ""


def where_to_look(e: Explanation) -> str:
    """Where the sound comes from, by its change at the two microphones; "" if they do not tell."""
    if not e.clear or e.near_db is None or e.far_db is None or e.isolated:
        return ""
    both = f"{e.near_db:+.0f} dB near, {e.far_db:+.0f} dB far"
    if e.change_db < 0:
        gone = "something that is usually heard is quiet or gone"
        if e.microphone == "far":
            gone += "; look around the machine, and at that microphone, first"
        subject = "Both microphones miss" if e.microphone == "both" else f"The {e.microphone} microphone alone misses"
        return f"{subject} it ({both}): {gone}."
    if e.microphone == "near":
        return f"It is at the machine and hardly at the far microphone ({both})."
    if e.microphone == "far":
        return f"It is at the far microphone and hardly at the machine ({both}): look around the machine first."
    if abs(e.far_db) > 0.8 * abs(e.near_db):
        return f"Both microphones hear it about equally ({both}): it may come from around the machine."
    return f"It is stronger near the machine ({both})."


def loudness(e: Explanation) -> str:
    """The loudness of the recording as a whole, which the other numbers do not contain."""
    if not allows_for_loudness(e):
        return ""
    return (
        f"The recording as a whole is {abs(e.level_db):.0f} dB {'louder' if e.level_db > 0 else 'quieter'} than usual; "
        "that is allowed for."
    )


def allows_for_loudness(e: Explanation) -> bool:
    """True if the numbers do not contain a loudness of the recording as a whole that differs from usual."""
    return e.clear and abs(e.level_db) >= 2


def without_moment(e: Explanation) -> str:
    """The score without the moment, for anomalous recordings."""
    if e.without is None or not e.anomalous or not e.clear:
        return ""
    if e.without <= e.threshold:
        return f"Without this moment the recording would score {e.without:.1f}, which is normal."
    return f"Without this moment it would still score {e.without:.1f}: something else differs as well."


def most_similar(e: Explanation) -> str:
    """The names of the most similar normal recordings."""
    names = ", ".join(n.name for n in e.nearest)
    return f"Most similar normal recording{'s' if len(e.nearest) > 1 else ''}: {names}."


def notes(e: Explanation) -> list[str]:
    """The warnings about the recording, as sentences."""
    return [f"Note: {as_sentence(warning)}" for warning in e.warnings]
