"""Tables and figures for a paper: each table as LaTeX (booktabs), Markdown and CSV; figures as PDF and SVG.

    evaluation_tables     results with intervals, decisions by domain, a comparison of two systems
    reproduction_tables   Tables 3, 4 and 5 of the report beside the numbers computed here
    write_tables          writes any tables into a folder

Numbers are in percent; [low, high] is a 95 % bootstrap interval.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from nearfar.challenge.evaluate import Evaluation, MachineEvaluation
from nearfar.challenge.pages.effects import TextTable, effect_vectors
from nearfar.challenge.pages.tables import Cell, Reproduction
from nearfar.metrics import METRICS, Comparison, Interval, harmonic_mean
from nearfar.recipe import Recipe
from nearfar.support.cells import escaped
from nearfar.support.check import Array
from nearfar.support.files import atomic_write

SPECIAL = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "α": r"$\alpha$",  # pdflatex knows no Greek letters outside of formulas
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
NUMBER = re.compile(r"[-+]?[\d.]+( \[[-\d., ]+\])?")  # with its interval
HEADS = ("machine", "AUC source", "AUC target", "pAUC", "Omega")
DECIDED = ("source", "target")  # domains of decisions


def evaluation_tables(
    evaluation: Evaluation, comparison: Comparison | None = None, against: str = ""
) -> list[TextTable]:
    """The official numbers, the decisions at the set-point, and the paired comparison with a system `against`."""
    judged = [m for m in evaluation.machines if m.result is not None]
    rows = [[m.name, *(_number(getattr(m.result, k), m.intervals[k]) for k in (*METRICS, "omega"))] for m in judged]
    if judged:
        rows.append(["official score", "", "", "", _number(evaluation.overall, evaluation.interval)])
    decided = [
        [m.name, domain, *(_number(v) for v in (d.precision, d.recall, d.f1))]
        for m in judged
        for domain, d in m.decisions.items()
    ]
    for name, mean in (("arithmetic mean", np.mean), ("harmonic mean", harmonic_mean)) if len(judged) > 1 else ():
        for domain in DECIDED:
            each = [astuple(m.decisions[domain]) for m in judged if domain in m.decisions]
            decided += [[name, domain, *(_number(float(mean(v))) for v in zip(*each, strict=True))]] if each else []
    tables: list[TextTable] = [
        ("Results: official metrics in percent, with 95 % bootstrap intervals", HEADS, rows),
        (
            "Decisions: precision, recall and F1 at the set-point, in percent",
            ("machine", "domain", "precision", "recall", "F1"),
            decided,
        ),
    ]
    if comparison:
        heads = ("against", "difference of the official scores", "draws in which it is better")
        row = [against, _number(comparison.difference, comparison.interval), _number(comparison.a_better)]
        tables.append(("Comparison: paired bootstrap of the official score, in percent", heads, [row]))
    return tables


def reproduction_tables(done: Reproduction) -> list[TextTable]:
    """The report's tables; each number's columns are the report's, the one computed here and the difference."""
    tables: list[TextTable] = []
    for table in done.tables:
        heads = [*table.heads, *(f"{m}, {what}" for m in table.metrics for what in ("report", "here", "difference"))]
        rows = []
        for row in table.rows:
            rows.append([*row.heads, *(text for cell in row.cells for text in _cell(cell))])
        tables.append((table.title, heads, rows))
    return tables


def write_tables(folder: Path, tables: Sequence[TextTable]) -> None:
    """Write FOLDER/NAME.tex, .md and .csv of each table with rows; NAME is the heading up to a colon."""
    for heading, heads, rows in tables:
        if rows:
            name = re.sub(r"[^a-z0-9]+", "-", heading.partition(":")[0].lower()).strip("-")
            for suffix, text in (("tex", latex), ("md", markdown), ("csv", as_csv)):
                atomic_write(folder / f"{name}.{suffix}", text((heading, heads, rows)))


def write_figures(folder: Path, machines: Sequence[MachineEvaluation]) -> None:
    """Write roc-MACHINE of every machine with labels of both kinds, and their results, as .pdf and .svg into FOLDER.

    Needs matplotlib.
    """
    from nearfar.challenge.pages.pictures import Bar, bars, roc, vectors

    machine_bars = [
        Bar(m.name, 100 * m.result.omega, m.intervals.get("omega")) for m in machines if m.result is not None
    ]
    if machine_bars:
        write_figure(folder, "results", vectors(bars, machine_bars))
    for m in machines:
        if m.result is not None:
            labels, domains = [bool(r.is_anomaly) for r in m.recordings], [r.is_target for r in m.recordings]
            write_figure(folder, f"roc {m.name}", vectors(roc, [s.score for s in m.scores], labels, domains))


def write_effects(folder: Path, recipes: Sequence[Recipe], scores: Array) -> None:
    """Write effect-CHOICE.pdf and .svg of every choice of a search into FOLDER; needs matplotlib."""
    for choice, figures in effect_vectors(recipes, scores).items():
        write_figure(folder, f"effect {choice}", figures)


def write_figure(folder: Path, name: str, figure: Mapping[str, bytes]) -> None:
    """Write a vector figure as FOLDER/NAME.KIND for each of its kinds."""
    for kind, content in figure.items():
        atomic_write(folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.{kind}", content)


def latex(table: TextTable) -> str:
    """A table environment with booktabs' rules; columns of numbers are set flush right."""
    heading, heads, rows = table
    columns = zip(*rows, strict=True)
    align = "".join("r" if all(re.match(r"[-+\d]|$", cell) for cell in column) else "l" for column in columns)
    lines = [" & ".join(_escape(cell) for cell in row) + r" \\" for row in (heads, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{_escape(heading)}}}\n\\begin{{tabular}}{{{align}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def markdown(table: TextTable) -> str:
    """A table of GitHub's Markdown."""
    _, heads, rows = table
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (heads, *rows)]
    return "\n".join(f"| {line} |" for line in (lines[0], " | ".join(["---"] * len(heads)), *lines[1:])) + "\n"


def as_csv(table: TextTable) -> str:
    """Comma-separated values with a row of heads."""
    _, heads, rows = table
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(heads)
    out.writerows([cell if NUMBER.fullmatch(cell) else escaped([cell])[0] for cell in row] for row in rows)
    return text.getvalue()


def _escape(text: str) -> str:
    return "".join(SPECIAL.get(mark, mark) for mark in text)


def _cell(cell: Cell) -> list[str]:
    texts = ["" if number is None else f"{number:.2f}" for number in (cell.report, cell.here, cell.difference)]
    if cell.here is not None and cell.interval:
        texts[1] = _number(cell.here / 100, cell.interval)
    return texts


def _number(value: float, interval: Interval | None = None) -> str:
    if np.isnan(value):
        return ""
    return f"{100 * value:.2f}" + (f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]" if interval else "")
