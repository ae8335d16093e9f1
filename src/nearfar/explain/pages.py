"""The page of one recording: what differs in words, pictures, and players for it and the most similar normals."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearfar.audio import Clip
from nearfar.explain import pictures, wording
from nearfar.explain.evidence import recording
from nearfar.explain.render import Figure, figure, render
from nearfar.explain.wording import Explanation
from nearfar.score import Score
from nearfar.support.check import Array

PLAY_S, PLAY_RATE, PLAY_PEAK = 12.0, 24_000, 0.7


@dataclass(frozen=True)
class Player:
    """A sound to play: its label and its samples as a WAV file."""

    label: str
    wav: bytes


def explanation_page(e: Explanation) -> str:
    """The page (HTML) of one recording."""
    players, playing = _players(e, e.clip) if e.clip is not None else ([], "")
    return render(
        "recording.html.j2",
        title=e.name,
        e=e,
        difference=wording.difference(e),
        lines=[*wording.details(e), *wording.notes(e)],
        players=players,
        playing=playing,
        pictures=evidence_figures(e),
        facts=_facts(e),
    )


def evidence_figures(e: Explanation) -> list[Figure]:
    """The change against usual, and the spectrogram beside a normal's; [] without the sound."""
    if e.clip is None:
        return []
    normal = pictures.readable_neighbour(e)
    below = f" Below, to compare: {normal[0].name}." if normal else ""
    box = " The outlined part is what differs." if e.clear else ""
    difference, figures = wording.difference(e), []
    if e.shown is not None:
        alt = f"Change against usual over time and pitch. {difference}"
        caption = "Red is louder than usual, blue is quieter."
        figures.append(figure(pictures.deviation_png, e, alt=alt, caption=caption))
    alt = f"Spectrogram of {e.name}, with the most similar normal recording below. {difference}"
    caption = f"Pitch over time.{box}{below}"
    figures.append(figure(pictures.spectrogram_png, e.clip, e, alt=alt, caption=caption))
    return figures


def alarm_counts(scores: Sequence[Score], is_anomaly: Sequence[bool | None]) -> str:
    """How many recordings of each kind alarm, in words."""
    alarms = [bool(s.anomalous) for s in scores]
    mute = sum(s.anomalous is None for s in scores)
    counts = []
    for label, kind in ((True, "recordings of faults"), (False, "normal recordings"), (None, "recordings")):
        mine = [alarm for alarm, a in zip(alarms, is_anomaly, strict=True) if a is label or a == label]
        if mine:
            counts.append(f"{sum(mine)} of {len(mine)} {kind} alarm")
    return ", ".join(counts) + (f"; {mute} cannot be judged." if mute else ".")


def _players(e: Explanation, clip: Clip) -> tuple[list[Player], str]:
    """Players of one gain for the recording and its nearest normals, and a remark on what is played."""
    start = 0.0
    if clip.seconds > PLAY_S:  # the part with the moment in its middle
        middle = (e.start_s + e.end_s) / 2 - e.offset_s
        start = min(max(0.0, middle - PLAY_S / 2), clip.seconds - PLAY_S)
    sounds = [("This recording, near" if clip.far is not None else "This recording", _excerpt(clip, "near", start))]
    if clip.far is not None:
        sounds.append(("This recording, far", _excerpt(clip, "far", start)))
    missing = 0
    for neighbour in e.nearest:
        normal = recording(neighbour, e.channels)
        if normal is None:
            missing += 1
        else:
            begin = min(start, max(0, normal.seconds - PLAY_S))
            sounds.append((f"Normal: {neighbour.name}", _excerpt(normal, "near", begin)))
    peak = max(float(np.abs(samples).max()) for _, (samples, _) in sounds)
    gain = PLAY_PEAK / peak if peak > 0 else 1.0
    change = 20 * math.log10(gain)
    remark = f"All are played {abs(change):.0f} dB {'louder' if change >= 0 else 'quieter'}, and so can be compared."
    if clip.seconds > PLAY_S:
        remark += f" You hear {PLAY_S:.0f} of {clip.seconds:.0f} s, from {e.offset_s + start:.1f} s."
    if missing:
        remark += f" {missing} of the {len(e.nearest)} most similar normal recordings are no longer where they were."
    return [Player(label, _wav(samples * gain, rate)) for label, (samples, rate) in sounds], remark


def _excerpt(clip: Clip, channel: str, start: float) -> tuple[Array, int]:
    clip = clip if clip.rate <= PLAY_RATE else clip.at(PLAY_RATE)
    wave: Array = getattr(clip, channel)
    first = round(start * clip.rate)
    return wave[first : first + round(PLAY_S * clip.rate)], clip.rate


def _wav(samples: Array, rate: int) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -1, 1), rate, subtype="PCM_16", format="WAV")
    return out.getvalue()


def _facts(e: Explanation) -> list[tuple[str, str]]:
    facts = [
        ("Score", f"{e.score:.2f} standard deviations above the normal recordings"),
        ("Alarm above", f"{e.threshold:.2f}"),
    ]
    if e.triggered_by:
        facts.append(("Noticed in", wording.noticed(e.triggered_by)))
    if e.microphone:
        facts.append(("When", wording.when(e)))
        facts.append(("Pitch", f"{wording.hertz(e.low_hz)} to {wording.hertz(e.high_hz)}"))
        facts.append(("Change, near", f"{e.near_db:+.1f} dB" if e.near_db is not None else "not known"))
        if e.far_db is not None:
            facts.append(("Change, far", f"{e.far_db:+.1f} dB"))
    return facts + [("Similar normal", n.name) for n in e.nearest]
