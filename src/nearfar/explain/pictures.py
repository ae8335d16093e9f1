"""Pictures of the evidence as PNG bytes: spectrogram beside a normal's, deviation, trend of the scores.

Every picture exists in light and in dark with the same size. Its colours are safe for colour-blind readers and never
the only sign: spans have an outline, markers differ in shape, bars in hatching, lines have labels. Text is large enough
for a telephone. matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearfar.audio import Clip
from nearfar.embedding.vectors import waveform
from nearfar.encoders.logmel import BANDS, HOP, RATE, log_mel
from nearfar.explain.deviation import band_of
from nearfar.explain.evidence import recording
from nearfar.explain.wording import Explanation, Neighbour
from nearfar.score import Score

WIDTH, DPI = 4.7, 150  # inches; 705 pixels
TICKS_HZ = (100, 250, 500, 1000, 2000, 4000, 8000)
RANGE_DB = 60.0
CHANGES_DB = (10.0, 40.0)  # smallest and largest limit of the colour scale of changes
SHADES = 96
KIND = {"near": "the near microphone", "far": "the far microphone", "machine": "near without the far sound"}
Say = Callable[[str], str]


@dataclass(frozen=True)
class Look:
    """Colours of a page, light or dark."""

    paper: str
    ink: str
    faint: str
    normal: str
    odd: str
    line: str


LIGHT = Look("#ffffff", "#1b2530", "#c9d1d9", "#0072b2", "#d55e00", "#1b2530")
DARK = Look("#161b22", "#e6edf3", "#3d4650", "#56b4e9", "#e69f00", "#e6edf3")


def spectrogram_png(clip: Clip, explanation: Explanation, *, dark: bool = False, say: Say = str) -> bytes:
    """The clip with span and band outlined, and below it the most similar normal whose file can be read.

    `say` gives the words in the language of the reader.
    """
    e = explanation
    name, wave = (e.shown.sound, e.shown.wave) if e.shown else ("near", "near")
    level = e.shown.level if e.shown else log_mel(waveform(clip, wave, RATE))
    rows = [(say(f"This recording: {KIND[name]}"), level, e.offset_s)]
    normal = readable_neighbour(e)
    if normal is not None:
        rows.append((say("A similar normal recording"), log_mel(waveform(normal[1], wave, RATE)), 0.0))
    look, figure = look_of(dark), blank(2.25 * len(rows) + 0.5, dark)
    top = float(np.quantile(np.concatenate([r[1] for r in rows]), 0.998))
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, (title, x, offset) in zip(axes, rows, strict=True):
        image = _image(ax, x, offset, e.seconds, cmap="magma", vmin=top - RANGE_DB, vmax=top)
        ax.set_title(title, loc="left", fontsize=10.5, color=look.ink)
    if e.clear:
        _outline(axes[0], e)
    for ax in axes[:-1]:
        ax.tick_params(labelbottom=False)
    axes[-1].set_xlabel(say("seconds"))
    bar = figure.colorbar(image, ax=list(axes), pad=0.02, aspect=14 * len(rows), shrink=0.9)
    bar.set_label(say("dB (louder is brighter)"), color=look.ink)
    return as_png(figure, look, [*axes, bar.ax])


def deviation_png(explanation: Explanation, *, dark: bool = False, say: Say = str) -> bytes:
    """The deviation of each moment and pitch from usual, and below it the outlined band over time; `say`: as above."""
    e = explanation
    if e.shown is None:
        raise ValueError(f"{e.name}: there is no deviation to draw; {e.problem or 'the detector has no band levels'}")
    look, figure = look_of(dark), blank(5.0, dark)
    axes = figure.subplots(2, 1, sharex=True, height_ratios=[2.1, 1])
    reach = float(np.clip(5 * np.ceil(np.quantile(np.abs(e.shown.db), 0.98) / 5), *CHANGES_DB))
    image = _image(axes[0], e.shown.db, e.offset_s, e.seconds, cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes[0].set_title(say(f"Change: {KIND[e.shown.sound]}"), loc="left", fontsize=10.5, color=look.ink)
    bar = figure.colorbar(image, ax=list(axes), pad=0.02, aspect=26, shrink=0.9)
    bar.set_label(say("− quieter     dB     louder +"), color=look.ink)
    if e.clear:
        _outline(axes[0], e, "#000000", "#ffffff")
    t, v = np.array(e.timeline).T
    axes[1].axhline(0, color=look.ink, lw=1, ls=":")
    axes[1].plot(t, v, color=look.normal, lw=1.4)
    if e.clear and not e.throughout:
        axes[1].axvspan(e.start_s, e.end_s, facecolor=look.odd, alpha=0.25, edgecolor=look.odd, hatch="//", lw=0)
    axes[1].set_xlim(e.offset_s, e.offset_s + e.seconds)
    axes[1].set_ylabel(say("dB above usual"))
    title = "The outlined pitches over time" if e.clear else "Over time"
    axes[1].set_title(say(title), loc="left", fontsize=10.5, color=look.ink)
    axes[1].set_xlabel(say("seconds"))
    return as_png(figure, look, [*axes, bar.ax])


def readable_neighbour(e: Explanation) -> tuple[Neighbour, Clip] | None:
    """The most similar normal that can be read and has the channels that are shown, or None."""
    for neighbour in e.nearest:
        clip = recording(neighbour, e.channels)
        if clip is not None and (clip.far is not None or e.shown is None or e.shown.wave == "near"):
            return neighbour, clip
    return None


def trend_png(scores: Sequence[Score], is_anomaly: Sequence[bool | None] = (), *, dark: bool = False) -> bytes:
    """Scores in their order with the set-point; markers tell faults and clips that cannot be judged from normals."""
    look, figure = look_of(dark), blank(2.7, dark)
    ax = figure.subplots()
    value, kinds = _kinds(scores, is_anomaly)
    at = np.arange(1, len(value) + 1)
    styles = {
        "normal": ("o", look.normal, look.paper),
        "fault": ("^", look.odd, look.odd),
        "not labelled": ("o", look.normal, look.normal),
        "cannot judge": ("x", look.ink, look.ink),
    }
    for kind, (marker, edge, face) in styles.items():
        here = kinds == kind
        if here.any():
            colours = {"color": edge} if marker == "x" else {"facecolor": face, "edgecolor": edge}
            ax.scatter(at[here], value[here], s=22, marker=marker, linewidths=1.2, label=kind, zorder=3, **colours)
    point = scores[0].threshold
    ax.axhline(point, color=look.line, lw=1.3, ls="--", zorder=2, label=f"alarm above {point:.1f}")
    if max(abs(value.max()), abs(value.min())) >= 8 * max(abs(point), 2.0):
        ax.set_yscale("asinh", linear_width=max(abs(point), 1.0))  # else one large score presses the others into a line
    ax.set_xlim(0, len(value) + 1)
    ax.set_xlabel("recording, in order")
    ax.set_ylabel("score")
    legend(ax, look)
    return as_png(figure, look, [ax])


def look_of(dark: bool) -> Look:
    """The colours for a light or a dark page."""
    return DARK if dark else LIGHT


def blank(height: float, dark: bool) -> Any:
    """An empty figure of WIDTH x height inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib, an extra: pip install "nearfar[pictures]"') from None
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor=look_of(dark).paper)
    FigureCanvasAgg(figure)
    return figure


def legend(ax: Any, look: Look, columns: int = 4, handles: dict[str, Any] | None = None) -> None:
    """A legend above the axes, of the axes' own entries or of `handles` {label: artist}."""
    ax.legend(
        **({"handles": list(handles.values()), "labels": list(handles)} if handles else {}),
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        fontsize=9,
        frameon=False,
        labelcolor=look.ink,
        handletextpad=0.4,
        columnspacing=1.0,
        handlelength=1.6,
        borderpad=0.1,
    )


def as_png(figure: Any, look: Look, axes: Sequence[Any]) -> bytes:
    """The figure as PNG, its axes in the colours of the look."""
    from PIL import Image  # a dependency of matplotlib

    _dress(look, axes)
    figure.canvas.draw()
    out = io.BytesIO()
    whole = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    whole.quantize(colors=256, dither=Image.Dither.NONE).save(out, format="png", optimize=True)  # a third of the size
    return out.getvalue()


def as_vectors(figure: Any, look: Look, axes: Sequence[Any]) -> dict[str, bytes]:
    """The figure as {"pdf": ..., "svg": ...}, without a date: the same scores give the same bytes."""
    from matplotlib import rc_context

    _dress(look, axes)
    found = {}
    with rc_context({"svg.hashsalt": "nearfar"}):
        for kind, date in (("pdf", "CreationDate"), ("svg", "Date")):
            out = io.BytesIO()
            figure.savefig(out, format=kind, metadata={date: None})
            found[kind] = out.getvalue()
    return found


def _dress(look: Look, axes: Sequence[Any]) -> None:
    for ax in axes:
        ax.set_facecolor(look.paper)
        ax.tick_params(colors=look.ink, labelsize=9)
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set_color(look.ink)
            label.set_fontsize(9.5)
        for spine in ax.spines.values():
            spine.set_color(look.faint)


def _kinds(scores: Sequence[Score], is_anomaly: Sequence[bool | None]) -> tuple[Any, Any]:
    if not scores:
        raise ValueError("there are no scores to draw")
    if is_anomaly and len(is_anomaly) != len(scores):
        raise ValueError(f"is_anomaly has {len(is_anomaly)} labels for {len(scores)} scores; give one for each")
    labels = {None: "not labelled", True: "fault", False: "normal"}
    labelled: Sequence[bool | None] = is_anomaly or [None] * len(scores)
    kinds = [
        "cannot judge" if s.anomalous is None else labels[None if a is None else bool(a)]
        for s, a in zip(scores, labelled, strict=True)
    ]
    return np.array([s.score for s in scores]), np.array(kinds)


def _image(ax: Any, x: Any, offset: float, seconds: float, **colours: Any) -> Any:
    import matplotlib

    end = offset + (len(x) - 1) * HOP / RATE
    colours["cmap"] = matplotlib.colormaps[colours["cmap"]].resampled(SHADES)
    image = ax.imshow(
        x.T, origin="lower", aspect="auto", extent=(offset, end, 0, BANDS), interpolation="nearest", **colours
    )
    ax.set_xlim(offset, offset + seconds)
    ax.set_yticks([band_of(f) for f in TICKS_HZ], [f"{f / 1000:g}" for f in TICKS_HZ])
    ax.set_ylabel("kHz")
    return image


def _outline(ax: Any, e: Explanation, inner: str = "#ffffff", outer: str = "#000000") -> None:
    from matplotlib.patches import Rectangle

    low, high = band_of(e.low_hz), band_of(e.high_hz)
    pad_t, pad_b = 0.004 * e.seconds, 0.8
    start, end = max(e.start_s - pad_t, e.offset_s + pad_t), min(e.end_s + pad_t, e.offset_s + e.seconds - pad_t)
    low, high = max(low - pad_b, pad_b), min(high + pad_b, BANDS - pad_b)
    for colour, width in ((outer, 4.0), (inner, 1.8)):
        ax.add_patch(Rectangle((start, low), end - start, high - low, fill=False, edgecolor=colour, lw=width, zorder=5))
