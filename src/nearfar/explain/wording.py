"""An explanation in plain words: what a plant engineer reads first. No arithmetic here, only what to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nearfar.support.words import as_sentence

if TYPE_CHECKING:
    from nearfar.explain.evidence import Explanation

SHORT_S = 0.3
NARROW = 0.25  # octaves


def sentence(e: Explanation) -> str:
    """What differs, where, by how much, and which normals are most alike."""
    return " ".join([what(e), *([alike(e)] if e.nearest else [])])


def lines(e: Explanation) -> list[str]:
    """One thing a line: verdict, what differs, where to look, what the moment does to the score, normals, warnings."""
    if e.problem:
        return [what(e), *warned(e)]
    said = [verdict(e), what(e), where_to_look(e), loudness(e), left_out(e), alike(e) if e.nearest else "", *warned(e)]
    return [line for line in said if line]


def verdict(e: Explanation) -> str:
    """The score beside the set-point."""
    if e.anomalous is None:
        return f"Cannot be judged: {as_sentence(e.problem or 'the recording is not usable')}"
    word = "ANOMALOUS" if e.anomalous else "normal"
    return f"{word}: {e.value:.1f}, alarm above {e.threshold:.1f}. {rarity(e.p)}"


def rarity(p: float) -> str:
    """How often a healthy machine sounds as unusual."""
    if p > 0.4:
        return "Healthy recordings often sound like this."
    if p < 1e-6:
        return "Fewer than 1 healthy recording in a million sounds as unusual."
    often = 1 / p
    digits = 10 ** max(0, int(np.log10(often)) - 1)
    return f"About 1 healthy recording in {round(often / digits) * digits:,.0f} sounds as unusual."


def what(e: Explanation) -> str:
    """The difference itself: when, which microphone, how much, which pitch."""
    if e.problem or e.anomalous is None:
        return f"This recording cannot be judged: {as_sentence(e.problem or 'it is not usable')}"
    start = "" if e.anomalous else "Sounds like the normal recordings. "
    if not e.clear:
        rest = ": many small things differ at once." if e.anomalous else "."
        return f"{start}No single moment or pitch stands out{rest}"
    if start:
        start += "The largest difference: "
    more = f"{abs(e.change_db):.0f} dB {'more' if e.change_db > 0 else 'less'} than usual"
    more += " for its loudness" if allowed(e) else ""
    isolated = ", with the sound at the far one taken away," if e.isolated else ""
    verb = "hear" if e.microphone == "both" else "hears"
    said = f"{when(e)} {microphone(e)}{isolated} {verb} {more} {band(e)}{likeness(e)}."
    return start + (said[0].lower() + said[1:] if start else said)


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
    """The band in words."""
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
    """A frequency as people write it."""
    return f"{f / 1000:.1f} kHz" if f >= 995 else f"{round(f / 10) * 10:.0f} Hz"


def octaves(e: Explanation) -> float:
    """Width of the band."""
    return float(np.log2(e.high_hz / max(e.low_hz, 30.0)))


def microphone(e: Explanation) -> str:
    """Who hears it."""
    if e.far_db is None:
        return "the microphone"
    return "both microphones" if e.microphone == "both" else f"the {e.microphone} microphone"


def likeness(e: Explanation) -> str:
    """What such a sound is like, where that is safe to say."""
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
    """What the two microphones say about where the sound comes from."""
    if not e.clear or e.near_db is None or e.far_db is None or e.isolated:
        return ""
    both = f"{e.near_db:+.0f} dB near, {e.far_db:+.0f} dB far"
    if e.change_db < 0:
        gone = "something that is usually heard is quiet or gone"
        if e.microphone == "far":
            gone += "; look around the machine, and at that microphone, first"
        who = "Both microphones miss" if e.microphone == "both" else f"The {e.microphone} microphone alone misses"
        return f"{who} it ({both}): {gone}."
    if e.microphone == "near":
        return f"It is at the machine and hardly at the far microphone ({both})."
    if e.microphone == "far":
        return f"It is at the far microphone and hardly at the machine ({both}): look around the machine first."
    if abs(e.far_db) > 0.8 * abs(e.near_db):
        return f"Both microphones hear it about equally ({both}): it may come from around the machine."
    return f"It is stronger near the machine ({both})."


def loudness(e: Explanation) -> str:
    """What has been allowed for."""
    if not allowed(e):
        return ""
    return (
        f"The recording as a whole is {abs(e.level_db):.0f} dB {'louder' if e.level_db > 0 else 'quieter'} than usual; "
        "that is allowed for."
    )


def allowed(e: Explanation) -> bool:
    """True if the recording's loudness as a whole changes what the numbers mean."""
    return e.clear and abs(e.level_db) >= 2


def left_out(e: Explanation) -> str:
    """What the score would be without the moment."""
    if e.without is None or not e.anomalous or not e.clear:
        return ""
    if e.without <= e.threshold:
        return f"Without this moment the recording would score {e.without:.1f}, which is normal."
    return f"Without this moment it would still score {e.without:.1f}: something else differs as well."


def alike(e: Explanation) -> str:
    """The normals to listen to."""
    names = ", ".join(n.name for n in e.nearest)
    return f"Most similar normal recording{'s' if len(e.nearest) > 1 else ''}: {names}."


def warned(e: Explanation) -> list[str]:
    """Warnings about the recording."""
    return [f"Note: {as_sentence(warning)}" for warning in e.warnings]
