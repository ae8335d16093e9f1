"""Self-contained pages: one HTML file with its pictures and sounds inside, nothing fetched, nothing that runs.

    explanation_page   one recording: the words, the pictures, players for it and the three most similar normals
    unusual            the same, as a part of a larger page (`challenge.report`)

Every text is escaped. Light and dark follow the reader's system; on paper and on a telephone the columns fold.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files

import numpy as np

from nearfar.audio import Clip
from nearfar.explain import pictures, wording
from nearfar.explain.evidence import Explanation, recording
from nearfar.metrics import Interval
from nearfar.score import Score
from nearfar.support.check import Array

PLAY_S, PLAY_RATE, PLAY_PEAK = 12.0, 24_000, 0.7


def explanation_page(e: Explanation) -> str:
    """The page of one recording."""
    parts = [_verdict(e), f'<p class="lead">{escape(wording.what(e))}</p>' if not e.problem else ""]
    rest = [line for line in e.lines() if line not in (wording.verdict(e), wording.what(e))]
    parts.append("".join(f"<p>{escape(line)}</p>" for line in rest if not line.startswith("Most similar")))
    if e.clip is not None:
        parts.append(_players(e, e.clip))
        parts.append(_evidence(e, e.clip))
    parts.append(_facts(e))
    return whole_page(e.name, "".join(parts))


def unusual(e: Explanation) -> str:
    """The part of a page about a machine's most unusual recording."""
    parts = [f"<h3>The most unusual recording: {escape(e.name)}</h3>{_verdict(e)}"]
    parts += [f"<p>{escape(line)}</p>" for line in e.lines()[1:]]
    if e.clip is not None:
        parts.append(_evidence(e, e.clip))
    return "".join(parts)


def plural(scores: Sequence[Score], is_anomaly: Sequence[bool | None]) -> str:
    """How many recordings of each kind alarm, in words."""
    alarms = [bool(s.anomalous) for s in scores]
    mute = sum(s.anomalous is None for s in scores)
    said = []
    for label, word in ((True, "recordings of faults"), (False, "normal recordings"), (None, "recordings")):
        mine = [alarm for alarm, a in zip(alarms, is_anomaly, strict=True) if a is label or a == label]
        if mine:
            said.append(f"{sum(mine)} of {len(mine)} {word} alarm")
    return ", ".join(said) + (f"; {mute} cannot be judged." if mute else ".")


def number(value: float | None, interval: Interval | None = None) -> str:
    """A number of a table in percent, its interval below it."""
    if value is None or math.isnan(value):
        return "–"
    text = f"<b>{100 * value:.1f}</b>"
    if interval is None or math.isnan(interval.low):
        return text
    return f"{text}<small>{100 * interval.low:.1f} to {100 * interval.high:.1f}</small>"


def _verdict(e: Explanation) -> str:
    kind, sign = {True: ("alarm", "▲"), False: ("fine", "●"), None: ("mute", "✕")}[e.anomalous]
    return f'<p class="verdict {kind}"><span aria-hidden="true">{sign}</span> {escape(wording.verdict(e))}</p>'


def _evidence(e: Explanation, clip: Clip) -> str:
    normal = pictures.beside(e)
    below = f" Below, to compare: {normal[0].name}." if normal else ""
    box = " The outlined part is what differs." if e.clear else ""
    shown = twice(pictures.spectrogram_png, clip, e)
    alt = f"Spectrogram of {e.name}, with the most similar normal recording below. {wording.what(e)}"
    parts = ['<div class="pair">', figure(shown, alt, f"Pitch over time.{box}{below}")]
    if e.shown is not None:
        alt = f"Change against usual over time and pitch. {wording.what(e)}"
        parts.append(figure(twice(pictures.deviation_png, e), alt, "Red is louder than usual, blue is quieter."))
    return "".join(parts) + "</div>"


def _players(e: Explanation, clip: Clip) -> str:
    start = 0.0
    if clip.seconds > PLAY_S:  # the part with the moment in its middle
        middle = (e.start_s + e.end_s) / 2 - e.offset_s
        start = min(max(0.0, middle - PLAY_S / 2), clip.seconds - PLAY_S)
    sounds = [("This recording, near" if clip.far is not None else "This recording", _played(clip, "near", start))]
    if clip.far is not None:
        sounds.append(("This recording, far", _played(clip, "far", start)))
    missing = 0
    for neighbour in e.nearest:
        normal = recording(neighbour, e.channels)
        if normal is None:
            missing += 1
        else:
            sounds.append(
                (f"Normal: {neighbour.name}", _played(normal, "near", min(start, max(0, normal.seconds - PLAY_S))))
            )
    peak = max(float(np.abs(x).max()) for _, (x, _) in sounds)
    gain = PLAY_PEAK / peak if peak > 0 else 1.0
    change = 20 * math.log10(gain)
    items = "".join(
        f'<li><span>{escape(label)}</span><audio controls preload="none" src="{_wav(x * gain, rate)}"></audio></li>'
        for label, (x, rate) in sounds
    )
    said = f"All are played {abs(change):.0f} dB {'louder' if change >= 0 else 'quieter'}, and so can be compared."
    if clip.seconds > PLAY_S:
        said += f" You hear {PLAY_S:.0f} of {clip.seconds:.0f} s, from {e.offset_s + start:.1f} s."
    if missing:
        said += f" {missing} of the {len(e.nearest)} most similar normal recordings are no longer where they were."
    return f'<section><h2>Listen</h2><ul class="players">{items}</ul><p class="small">{escape(said)}</p></section>'


def _played(clip: Clip, channel: str, start: float) -> tuple[Array, int]:
    clip = clip if clip.rate <= PLAY_RATE else clip.at(PLAY_RATE)
    wave: Array = getattr(clip, channel)
    first = round(start * clip.rate)
    return wave[first : first + round(PLAY_S * clip.rate)], clip.rate


def _wav(x: Array, rate: int) -> str:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(x, -1, 1), rate, subtype="PCM_16", format="WAV")
    return "data:audio/wav;base64," + base64.b64encode(out.getvalue()).decode()


def _facts(e: Explanation) -> str:
    rows = [
        ("Score", f"{e.value:.2f} standard deviations above the normal recordings"),
        ("Alarm above", f"{e.threshold:.2f}"),
    ]
    if e.heard:
        rows.append(("Noticed by", e.heard.replace("steady", "its steady sound").replace("transient", "its moments")))
    if e.microphone:
        rows.append(("When", wording.when(e)))
        rows.append(("Pitch", f"{wording.hertz(e.low_hz)} to {wording.hertz(e.high_hz)}"))
        rows.append(("Change, near", f"{e.near_db:+.1f} dB" if e.near_db is not None else "not known"))
        if e.far_db is not None:
            rows.append(("Change, far", f"{e.far_db:+.1f} dB"))
    rows += [("Similar normal", f"{n.name}") for n in e.nearest]
    body = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)
    return f"<section><h2>In figures</h2><dl>{body}</dl></section>"


def twice(draw: Callable[..., bytes], *what: object) -> tuple[bytes, bytes]:
    """A picture for light and for dark pages."""
    return draw(*what), draw(*what, dark=True)


def figure(light_and_dark: tuple[bytes, bytes], alt: str, caption: str) -> str:
    """A picture with its caption; the reader's system chooses light or dark."""
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in light_and_dark)
    return (
        f'<figure><picture><source srcset="{dark}" media="screen and (prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escape(alt)}" width="705"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def whole_page(title: str, body: str) -> str:
    """A page around its body (HTML); the title is escaped."""
    style = files("nearfar.explain").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; media-src data:; '
        "style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{style}</style></head>'
        f"<body><main><header><h1>{escape(title)}</h1></header>{body}</main></body></html>\n"
    )
