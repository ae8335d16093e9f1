"""Which choice of a search matters: the effect of view, preprocessing, pooling and back end on the official score.

    records   one per configuration: a recipe's fields by name, and its score in percent

For every choice the configurations are grouped by its values, whatever else they have: median, middle half and best of
each group. `share` is the part of the scores' variance that lies between the groups of a choice: 1 if the choice
decides everything, 0 if it does not matter. Shares of different choices need not add up to 1.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.explain import pages
from nearfar.explain.pictures import as_png, blank, legend, look_of
from nearfar.support.check import Array

Record = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # heading, heads of the columns, rows
TABLE = "configurations"
CELL = '<td class="words" data-is="{}">{}</td>'
MOST = 14  # values of a choice that a picture shows, the best ones


@dataclass(frozen=True)
class Group:
    """The configurations with one value of a choice: quartiles, best, and how many there are."""

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


def read(folder: str | PathLike[str]) -> tuple[list[Record], list[float]]:
    """(records, official scores in percent) of the table that a search wrote to `folder`, those with a score alone.

    Raises FileNotFoundError if there is no table, ValueError if it holds no scores (a search without labels).
    """
    table = next((path for end in ("csv", "parquet") if (path := Path(folder) / f"{TABLE}.{end}").is_file()), None)
    if table is None:
        raise FileNotFoundError(f"{folder} holds no {TABLE}.csv or .parquet: has the search come to its end?")
    rows: list[dict[str, Any]]
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        try:
            from pyarrow.parquet import read_table
        except ImportError:
            raise ImportError(f"reading {table} needs pyarrow: pip install 'nearfar[ray]'") from None
        rows = read_table(table).to_pylist()
    scores = [float(row.get("overall") or "nan") for row in rows]
    scored = [(row, 100 * score) for row, score in zip(rows, scores, strict=True) if score == score]
    if not scored:
        raise ValueError(f"{table} holds no official scores: the test clips that were searched on have no labels")
    return [row for row, _ in scored], [score for _, score in scored]


def effects(records: Sequence[Record], scores: Sequence[float]) -> list[Effect]:
    """The effect of every choice that was varied, the one with the largest share first."""
    s = np.asarray(scores, np.float64)
    if len(s) != len(records) or not len(s):
        raise ValueError(
            f"there are {len(records)} configurations and {len(s)} scores; each needs one, and one is least"
        )
    found = []
    for choice, said in CHOICES.items():
        names = np.array([said(record) for record in records])
        groups = [_group(value, s[names == value]) for value in np.unique(names)]
        if len(groups) > 1:
            between = sum(g.count * (s[names == g.value].mean() - s.mean()) ** 2 for g in groups)
            total = float(((s - s.mean()) ** 2).sum())
            ordered = sorted(groups, key=lambda g: (-g.median, -g.best))
            found.append(Effect(choice, ordered, float(between / total) if total > 0 else 0.0))
    return sorted(found, key=lambda effect: -effect.share)


def effect_png(effect: Effect, span: tuple[float, float], *, dark: bool = False) -> bytes:
    """The groups of a choice one below the other, scores from span[0] to span[1]: middle half, median and best."""
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


def search_page(folder: str | PathLike[str], title: str, tables: Sequence[Table] = ()) -> str:
    """The page of a search: `tables` of what its best is worth, and the landscape of what it wrote to `folder`.

    Raises as `read` does; without labels, the tables are all there is.
    """
    worth = "".join(map(_section, tables))
    try:
        return pages.whole_page(title, worth + landscape(*read(folder)))
    except ValueError as error:
        if not tables:
            raise
        return pages.whole_page(title, f"{worth}<p>{escape(str(error))}</p>")


def _section(table: Table) -> str:
    heading, heads, rows = table
    head = "".join(f'<th class="words" scope="col">{escape(h)}</th>' for h in heads)
    body = ""
    for row in rows:
        cells = zip(heads, row, strict=True)
        body += f"<tr>{''.join(CELL.format(escape(h), escape(c)) for h, c in cells)}</tr>"
    return (
        f'<section><h2>{escape(heading)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def landscape(records: Sequence[Record], scores: Sequence[float]) -> str:
    """The section of a page (HTML) about the search: a picture for every choice that was varied."""
    found = effects(records, scores)
    figures = []
    shown = [g for effect in found for g in effect.groups[:MOST]]
    low, high = min((g.low for g in shown), default=0), max((g.best for g in shown), default=1)
    span = (low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3)  # one scale, to compare choices
    for effect in found:
        first = effect.groups[0]
        caption = f"{effect.choice}: {100 * effect.share:.0f} % of the variance of the scores lies between its values."
        if len(effect.groups) > MOST:
            caption += f" The best {MOST} of {len(effect.groups)} are shown."
        alt = f"{effect.choice}: best median {first.median:.1f} percent with {first.value}"
        figures.append(pages.figure(pages.twice(effect_png, effect, span), alt, caption))
    said = f"{len(records):,} configurations, {min(scores):.1f} to {max(scores):.1f} percent."
    drawn = f'<div class="pair">{"".join(figures)}</div>'
    return f"<section><h2>Which choice matters</h2><p>{escape(said)}</p>{drawn}</section>"


def _group(value: str, scores: Array) -> Group:
    low, median, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return Group(str(value), float(low), float(median), float(high), float(scores.max()), len(scores))


def _preprocessing(r: Record) -> str:
    said = [f"{key} {float(r[key]):g}" for key in ("low", "spike") if r.get(key) not in (None, "")]
    return ", ".join(said) or "none"


def _pooling(r: Record) -> str:
    kind = str(r.get("pooling", ""))
    alpha, p = (f"{float(r.get(key) or 0):g}" for key in ("alpha", "p"))
    return {"gem": f"gem p={p}", "rdp": f"rdp α={alpha}", "rdp_gem": f"rdp_gem α={alpha} p={p}"}.get(kind, kind)


def _back_end(r: Record) -> str:
    """The method with its metric, its k (of LDN: density_k, as in Table 2) and what is not usual."""
    method, density = str(r.get("method", "")), r.get("density_k")
    said = [method, str(r.get("metric", ""))] if method != "mahalanobis" else [method]
    if density or method == "raw":
        said.append(f"k={int(float(density or r.get('k') or 1))}")
    said += [f"exponent {float(r['exponent']):g}"] if r.get("exponent") not in (None, "", 1, "1.0") else []
    said += [name for name in ("whiten", "ignore_domains") if r.get(name) in (True, "True")]
    return ", ".join(said)


CHOICES: dict[str, Callable[[Record], str]] = {
    "encoder": lambda r: str(r.get("encoder", "")),
    "layer": lambda r: str(r.get("layer") or "final"),
    "view": lambda r: str(r.get("view", "")),
    "frequency rows": lambda r: str(r.get("freq", "")),
    "preprocessing": _preprocessing,
    "pooling": _pooling,
    "back end": _back_end,
}
