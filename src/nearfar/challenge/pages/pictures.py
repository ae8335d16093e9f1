"""Pictures of a test set for the researcher: bars, ROC, histograms, coherence, maps.

A function draws, light or dark, and `png` and `vectors` make files of its drawing. Colours and sizes are those of
`explain.pictures`; matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearfar.explain.pictures import TICKS_HZ, Look, as_png, as_vectors, blank, legend, look_of
from nearfar.metrics import MAX_FPR, Interval, auc, partial_auc, roc_points
from nearfar.support.check import Array

MARKS = ("D", "v", "o", "s")  # shapes of the marks beside the bars
BINS = 24  # of a histogram
Drawing = tuple[Any, Look, list[Any]]  # matplotlib's figure, its colours, its axes
MAP_KINDS = {  # kinds of clips on a map: mark, and whether it is filled
    "source normal": ("o", True),
    "target normal": ("D", True),
    "normal test clip": ("o", False),
    "anomaly": ("^", False),
    "not labelled": ("s", False),
}


@dataclass(frozen=True)
class Bar:
    """A machine's bar: value in percent, interval in [0, 1], and the values of other systems in percent by name."""

    name: str
    value: float
    interval: Interval | None = None
    others: Mapping[str, float] = field(default_factory=dict)


def png(draw: Callable[..., Drawing], *values: object, dark: bool = False) -> bytes:
    """A drawing of `values` as PNG."""
    return as_png(*draw(*values, dark=dark))


def vectors(draw: Callable[..., Drawing], *values: object) -> dict[str, bytes]:
    """A drawing of `values` as vector figures, by kind: {"pdf": ..., "svg": ...}."""
    return as_vectors(*draw(*values))


def bars(bars: Sequence[Bar], *, dark: bool = False) -> Drawing:
    """The harmonic mean of each machine with its interval, and marks for other systems."""
    look, figure = look_of(dark), blank(1.3 + 0.36 * len(bars), dark)
    ax = figure.subplots()
    at = np.arange(len(bars))[::-1]
    ax.barh(at, [b.value for b in bars], height=0.56, color=look.normal, alpha=0.85, label="here")
    _whiskers(ax, at, bars, look)
    names = list(dict.fromkeys(name for b in bars for name in b.others))
    for mark, name in zip(MARKS, names, strict=False):
        points = [(b.others[name], y) for y, b in zip(at, bars, strict=True) if name in b.others]
        open_marks(ax, look, mark, points, s=40, label=name, zorder=4)
    ax.axvline(50, color=look.line, lw=1, ls=":", label="chance")
    ax.set_yticks(at, [b.name for b in bars])
    ax.set_xlim(0, 100)
    ax.set_xlabel("harmonic mean of the three metrics, percent")
    drawn, labels = ax.get_legend_handles_labels()
    handles = dict(zip(labels, drawn, strict=True))
    order = sorted(handles, key=lambda label: label not in ("here", "95 % interval"))  # these two first
    legend(ax, look, 3, {label: handles[label] for label in order})
    return figure, look, [ax]


def open_marks(ax: Any, look: Look, mark: str, points: Iterable[tuple[float, float]], **style: Any) -> None:
    """Draw marks that are not filled at `points`, (x, y) each."""
    x, y = zip(*points, strict=True)
    ax.scatter(x, y, marker=mark, facecolor=look.paper, edgecolor=look.odd, lw=1.5, **style)


def _whiskers(ax: Any, at: Array, bars: Sequence[Bar], look: Look) -> None:
    known = [(y, b.value, b.interval) for y, b in zip(at, bars, strict=True) if b.interval is not None]
    if known:
        y, value, intervals = zip(*known, strict=True)
        spans = [[v - 100 * i.low, 100 * i.high - v] for v, i in zip(value, intervals, strict=True)]
        style: dict[str, Any] = {"fmt": "none", "ecolor": look.ink, "capsize": 3, "lw": 1.3}
        ax.errorbar(value, y, xerr=np.maximum(np.transpose(spans), 0), label="95 % interval", **style)


def roc(
    values: Sequence[float], is_anomaly: Sequence[bool], is_target: Sequence[bool | None], *, dark: bool = False
) -> Drawing:
    """ROC of all clips and of each domain's normals against all anomalies; the part that pAUC measures is shaded."""
    look, figure = look_of(dark), blank(4.3, dark)
    ax = figure.subplots()
    s, a = np.asarray(values, float), np.asarray(is_anomaly, bool)
    t = np.array([bool(x) for x in is_target])
    fpr, tpr = roc_points(s, a)
    part = f"pAUC {100 * partial_auc(s, a):.1f}, up to {MAX_FPR:g}"
    ax.fill_between(*up_to(fpr, tpr, MAX_FPR), facecolor="none", edgecolor=look.normal, hatch="////", lw=0, label=part)
    ax.axvline(MAX_FPR, color=look.faint, lw=1)
    ax.plot(fpr, tpr, color=look.ink, lw=2, label="all clips")
    for domain, style, colour in ((False, "--", look.normal), (True, "-.", look.odd)):
        normal = ~a & (t == domain)
        if normal.any() and t[~a].any():
            name, area = "target" if domain else "source", auc(s[normal | a], a[normal | a])
            curve = roc_points(s[normal | a], a[normal | a])
            ax.plot(*curve, style, color=colour, lw=1.6, label=f"{name} normals, AUC {100 * area:.1f}")
    ax.plot([0, 1], [0, 1], ":", color=look.line, lw=1)
    ax.set_xlim(-0.01, 1.01)  # a perfect curve runs along the frame
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("share of normal clips above the set-point")
    ax.set_ylabel("share of anomalous clips above it")
    ax.legend(loc="lower right", fontsize=9, labelcolor=look.ink, facecolor=look.paper, edgecolor=look.faint)
    return figure, look, [ax]


def up_to(fpr: Array, tpr: Array, limit: float) -> tuple[Array, Array]:
    """The part of a ROC from 0 to a false-alarm rate of `limit`, its end interpolated."""
    n = int((fpr <= limit).sum())
    end = np.interp(limit, fpr[n - 1 :], tpr[n - 1 :])
    return np.r_[fpr[:n], limit], np.r_[tpr[:n], end]


def domains(
    values: Sequence[float],
    is_anomaly: Sequence[bool | None],
    is_target: Sequence[bool | None],
    set_point: float,
    *,
    dark: bool = False,
) -> Drawing:
    """Histograms of the scores with the set-point, a panel for each domain, all on one scale."""
    s = np.asarray(values, float)
    target = np.array([x is True for x in is_target])
    panels = (
        [("source", ~target), ("target", target)]
        if target.any() and not target.all()
        else [("", np.ones(len(s), bool))]
    )
    look, figure = look_of(dark), blank(0.7 + 1.8 * len(panels), dark)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    low, high = np.quantile(s, [0, 1])
    most = float(np.quantile(s, 0.95))
    top = max(set_point, min(high, most + (most - low) / 2 + 1e-9))
    edges = np.linspace(min(low, set_point), top, BINS + 1)  # larger scores count in the last bin
    kinds = np.array(["unknown" if x is None else "anomalous" if x else "normal" for x in is_anomaly])
    for ax, (title, here) in zip(axes, panels, strict=True):
        for kind in ("normal", "unknown", "anomalous"):
            mine = np.minimum(s[here & (kinds == kind)], edges[-1])
            if len(mine):
                ax.hist(mine, bins=edges, label=kind if kind != "unknown" else "not labelled", **_style(kind, look))
        ax.axvline(set_point, color=look.line, lw=1.3, ls="--", label=f"set-point {set_point:.1f}")
        ax.set_ylabel(f"{title} clips".strip())
        ax.yaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("score, standard deviations of the normals" + (" (last bin: and above)" if high > top else ""))
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    legend(axes[0], look, handles=handles)
    return figure, look, list(axes)


def coherence(frequency: Array, rows: Array, *, dark: bool = False) -> Drawing:
    """Coherence of near and far in bands `frequency` (F,) Hz: median and middle half of the clips `rows` (N, F)."""
    look, figure = look_of(dark), blank(2.7, dark)
    ax = figure.subplots()
    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.fill_between(frequency, low, high, color=look.normal, alpha=0.3, lw=0, label="middle half of the clips")
    ax.plot(frequency, middle, color=look.normal, lw=1.8, label="median")
    ax.set_xscale("log")
    ticks = [f for f in TICKS_HZ if frequency[0] <= f <= frequency[-1]]
    ax.set_xticks(ticks, [f"{f / 1000:g}" for f in ticks], minor=False)
    ax.minorticks_off()
    ax.set_xlim(frequency[0], frequency[-1])
    ax.set_ylim(0, 1)
    ax.set_xlabel("kHz")
    ax.set_ylabel("coherence")
    legend(ax, look)
    return figure, look, [ax]


def clip_map(points: Array, kinds: Sequence[str], *, dark: bool = False) -> Drawing:
    """Clips as points (n, 2), with a colour and a mark for each of `MAP_KINDS`."""
    look, figure = look_of(dark), blank(4.3, dark)
    ax = figure.subplots()
    for kind, (mark, filled) in MAP_KINDS.items():
        mine = points[[each == kind for each in kinds]]
        if len(mine):
            colour = look.odd if kind == "anomaly" else look.ink if kind == "not labelled" else look.normal
            face = colour if filled else "none"
            ax.scatter(*mine.T, marker=mark, s=26, facecolor=face, edgecolor=colour, lw=1.2, alpha=0.85, label=kind)
    ax.set_xticks([])
    ax.set_yticks([])
    legend(ax, look, 3)
    return figure, look, [ax]


def _style(kind: str, look: Look) -> dict[str, Any]:
    if kind == "anomalous":
        return {"facecolor": "none", "edgecolor": look.odd, "hatch": "////", "linewidth": 1.1}
    return {"facecolor": look.normal, "edgecolor": look.paper, "alpha": 0.85, "linewidth": 1.1}
