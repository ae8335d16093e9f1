"""Main effects of a search: how view, preprocessing, pooling and back end change the official score.

    recipes   the configurations
    scores    (n,) their official scores in percent

For every choice the configurations are grouped by its values, whatever their other choices: median, middle half and
best of each group. `share` is the part of the scores' variance that lies between the groups of a choice: 1 if the
choice decides the score, 0 if it does not matter. Shares of different choices need not add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar.challenge.pages.pictures import Drawing, open_marks, png, vectors
from nearfar.challenge.pages.words import CHOICES
from nearfar.explain.pictures import blank, legend, look_of
from nearfar.explain.render import Figure, figure, render
from nearfar.recipe import Recipe
from nearfar.support.check import Array

TextTable = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # heading, column names, rows
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


def effects(recipes: Sequence[Recipe], scores: ArrayLike) -> list[Effect]:
    """The effect of every choice that was varied, the one with the largest share first."""
    s = np.asarray(scores, np.float64)
    if len(s) != len(recipes) or not len(s):
        raise ValueError(
            f"there are {len(recipes)} configurations and {len(s)} scores; give one score each, and at least one"
        )
    found = []
    for choice, value_of in CHOICES.items():
        names = np.array([value_of(recipe) for recipe in recipes])
        groups = [_group(value, s[names == value]) for value in np.unique(names)]
        if len(groups) > 1:
            between = sum(g.count * (s[names == g.value].mean() - s.mean()) ** 2 for g in groups)
            total = float(((s - s.mean()) ** 2).sum())
            ordered = sorted(groups, key=lambda g: (-g.median, -g.best))
            found.append(Effect(choice, ordered, float(between / total) if total > 0 else 0.0))
    return sorted(found, key=lambda effect: -effect.share)


def draw_effect(effect: Effect, span: tuple[float, float], *, dark: bool = False) -> Drawing:
    """A row per group of a choice, on an axis of scores from span[0] to span[1]: middle half, median and best."""
    groups = effect.groups[:MOST]
    look, figure = look_of(dark), blank(1.1 + 0.3 * len(groups), dark)
    ax = figure.subplots()
    at = np.arange(len(groups))[::-1]
    ax.hlines(
        at, [g.low for g in groups], [g.high for g in groups], color=look.normal, lw=7, alpha=0.45, label="middle half"
    )
    ax.scatter([g.median for g in groups], at, marker="|", s=130, lw=2.2, color=look.ink, label="median", zorder=3)
    open_marks(ax, look, "^", zip([g.best for g in groups], at, strict=True), s=34, label="best", zorder=3)
    ax.set_yticks(at, [g.value for g in groups])
    ax.set_xlim(*span)
    ax.set_ylim(-0.7, len(groups) - 0.3)
    ax.set_xlabel("official score, percent")
    legend(ax, look)
    return figure, look, [ax]


def effect_vectors(recipes: Sequence[Recipe], scores: Array) -> dict[str, dict[str, bytes]]:
    """{choice: vector figures of its effect, by kind}; `recipes` and `scores` are those of `search_page`."""
    rows = np.flatnonzero(~np.isnan(scores)).tolist()
    found = effects([recipes[row] for row in rows], 100 * scores[rows]) if rows else []
    return {each.choice: vectors(draw_effect, each, _span(found)) for each in found}


def search_page(recipes: Sequence[Recipe], scores: Array, title: str, tables: Sequence[TextTable] = ()) -> str:
    """The page of a search: `tables` about its best configuration, and the effects of its choices.

    `scores` (n,) are the official scores of the recipes in [0, 1]; a recipe with NaN is left out. Without any score
    (test clips without labels) the page holds the tables alone; raises ValueError if there are none.
    """
    rows = np.flatnonzero(~np.isnan(scores)).tolist()
    if not rows and not tables:
        raise ValueError(NO_SCORES)
    summary, figures = NO_SCORES, list[Figure]()
    if rows:
        percents = 100 * scores[rows]
        summary = f"{len(rows):,} configurations, {percents.min():.1f} to {percents.max():.1f} percent."
        figures = effect_figures([recipes[row] for row in rows], percents)
    return render("search.html.j2", PACKAGE, title=title, tables=tables, summary=summary, effects=figures)


def effect_figures(recipes: Sequence[Recipe], scores: ArrayLike) -> list[Figure]:
    """A figure for every choice that was varied, all on one scale."""
    found, figures = effects(recipes, scores), []
    span = _span(found)
    for effect in found:
        first = effect.groups[0]
        caption = f"{effect.choice}: {100 * effect.share:.0f} % of the variance of the scores lies between its values."
        if len(effect.groups) > MOST:
            caption += f" The best {MOST} of {len(effect.groups)} are shown."
        alt = f"{effect.choice}: best median {first.median:.1f} percent with {first.value}"
        figures.append(figure(png, draw_effect, effect, span, alt=alt, caption=caption))
    return figures


def _span(found: Sequence[Effect]) -> tuple[float, float]:
    """The axis of scores that holds all groups that are shown."""
    shown = [group for effect in found for group in effect.groups[:MOST]]
    low, high = min((g.low for g in shown), default=0), max((g.best for g in shown), default=1)
    return low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3


def _group(value: str, scores: Array) -> Group:
    low, median, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return Group(str(value), float(low), float(median), float(high), float(scores.max()), len(scores))
