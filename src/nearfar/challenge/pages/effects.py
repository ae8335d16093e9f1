"""Main effects of a search: how view, preprocessing, pooling and back end change the official score.

    records   one per configuration: a recipe's fields by name
    scores    official scores in percent

For every choice the configurations are grouped by its values, whatever their other choices: median, middle half and
best of each group. `share` is the part of the scores' variance that lies between the groups of a choice: 1 if the
choice decides the score, 0 if it does not matter. Shares of different choices need not add up to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearfar.explain.pictures import as_png, blank, legend, look_of
from nearfar.explain.render import Figure, figure, render
from nearfar.support.check import Array

Record = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # heading, column names, rows
PACKAGE = "nearfar.challenge.pages"
MOST = 14  # most values of a choice that a picture shows
NO_SCORES = "There are no official scores: the test clips that were searched on have no labels."


@dataclass(frozen=True)
class Group:
    """The configurations with one value of a choice: quartiles and best of their scores, and their number."""

    value: str
    low: float
    median: float
    high: float
    best: float
    count: int


@dataclass(frozen=True)
class Effect:
    """A choice: its groups, best median first, and the share of the variance between them."""

    choice: str
    groups: Sequence[Group]
    share: float


def effects(records: Sequence[Record], scores: Sequence[float]) -> list[Effect]:
    """The effect of every choice that was varied, the one with the largest share first."""
    s = np.asarray(scores, np.float64)
    if len(s) != len(records) or not len(s):
        raise ValueError(
            f"there are {len(records)} configurations and {len(s)} scores; give one score each, and at least one"
        )
    found = []
    for choice, value_of in CHOICES.items():
        names = np.array([value_of(record) for record in records])
        groups = [_group(value, s[names == value]) for value in np.unique(names)]
        if len(groups) > 1:
            between = sum(g.count * (s[names == g.value].mean() - s.mean()) ** 2 for g in groups)
            total = float(((s - s.mean()) ** 2).sum())
            ordered = sorted(groups, key=lambda g: (-g.median, -g.best))
            found.append(Effect(choice, ordered, float(between / total) if total > 0 else 0.0))
    return sorted(found, key=lambda effect: -effect.share)


def effect_png(effect: Effect, span: tuple[float, float], *, dark: bool = False) -> bytes:
    """A row per group of a choice, on an axis of scores from span[0] to span[1]: middle half, median and best."""
    groups = effect.groups[:MOST]
    look, figure = look_of(dark), blank(1.1 + 0.3 * len(groups), dark)
    ax = figure.subplots()
    at = np.arange(len(groups))[::-1]
    ax.hlines(
        at, [g.low for g in groups], [g.high for g in groups], color=look.normal, lw=7, alpha=0.45, label="middle half"
    )
    ax.scatter([g.median for g in groups], at, marker="|", s=130, lw=2.2, color=look.ink, label="median", zorder=3)
    ax.scatter(
        [g.best for g in groups],
        at,
        marker="^",
        s=34,
        facecolor=look.paper,
        edgecolor=look.odd,
        lw=1.5,
        label="best",
        zorder=3,
    )
    ax.set_yticks(at, [g.value for g in groups])
    ax.set_xlim(*span)
    ax.set_ylim(-0.7, len(groups) - 0.3)
    ax.set_xlabel("official score, percent")
    legend(ax, look)
    return as_png(figure, look, [ax])


def search_page(rows: Sequence[Record], title: str, tables: Sequence[Table] = ()) -> str:
    """The page of a search: `tables` about its best configuration, and the effects of its choices.

    `rows` are the configurations with their score `overall` in [0, 1]; those without a score are left out. Without any
    score (test clips without labels) the page holds the tables alone; raises ValueError if there are none.
    """
    scored = [row for row in rows if row["overall"] == row["overall"]]
    if not scored and not tables:
        raise ValueError(NO_SCORES)
    scores = [100 * float(row["overall"]) for row in scored]
    summary = (
        f"{len(scored):,} configurations, {min(scores):.1f} to {max(scores):.1f} percent." if scored else NO_SCORES
    )
    figures = effect_figures(scored, scores) if scored else []
    return render("search.html.j2", PACKAGE, title=title, tables=tables, summary=summary, effects=figures)


def effect_figures(records: Sequence[Record], scores: Sequence[float]) -> list[Figure]:
    """A figure for every choice that was varied, all on one scale."""
    found = effects(records, scores)
    shown = [group for effect in found for group in effect.groups[:MOST]]
    low, high = min((g.low for g in shown), default=0), max((g.best for g in shown), default=1)
    span = (low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3)
    figures = []
    for effect in found:
        first = effect.groups[0]
        caption = f"{effect.choice}: {100 * effect.share:.0f} % of the variance of the scores lies between its values."
        if len(effect.groups) > MOST:
            caption += f" The best {MOST} of {len(effect.groups)} are shown."
        alt = f"{effect.choice}: best median {first.median:.1f} percent with {first.value}"
        figures.append(figure(effect_png, effect, span, alt=alt, caption=caption))
    return figures


def _group(value: str, scores: Array) -> Group:
    low, median, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return Group(str(value), float(low), float(median), float(high), float(scores.max()), len(scores))


def _preprocessing(r: Record) -> str:
    return ", ".join(f"{key} {r[key]:g}" for key in ("low", "spike") if r.get(key) is not None) or "none"


def _pooling(r: Record) -> str:
    kind = str(r.get("pooling", ""))
    alpha, p = (f"{r.get(key) or 0:g}" for key in ("alpha", "p"))
    return {"gem": f"gem p={p}", "rdp": f"rdp α={alpha}", "rdp_gem": f"rdp_gem α={alpha} p={p}"}.get(kind, kind)


def _back_end(r: Record) -> str:
    """The method with its metric, its k (of LDN: density_k, as in Table 2) and the options that are not the default."""
    method, density = str(r.get("method", "")), r.get("density_k")
    parts = [method, str(r.get("metric", ""))] if method != "mahalanobis" else [method]
    if density or method == "raw":
        parts.append(f"k={density or r.get('k') or 1}")
    parts += [f"exponent {r['exponent']:g}"] if r.get("exponent") not in (None, 1) else []
    parts += [name for name in ("whiten", "ignore_domains") if r.get(name)]
    return ", ".join(parts)


CHOICES: dict[str, Callable[[Record], str]] = {
    "encoder": lambda r: str(r.get("encoder", "")),
    "layer": lambda r: str(r.get("layer") or "final"),
    "view": lambda r: str(r.get("view", "")),
    "frequency rows": lambda r: str(r.get("freq", "")),
    "preprocessing": _preprocessing,
    "pooling": _pooling,
    "back end": _back_end,
}
