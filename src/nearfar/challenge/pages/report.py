"""Pages for the researcher, each one HTML file (`explain.render`).

bench_page    an evaluation: bars beside the baselines, metrics; per machine ROC, histograms, coherence, evidence
tables_page   the report's tables beside the numbers computed here
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.challenge.data.layout import RULES, made_up
from nearfar.challenge.evaluate import Evaluation, MachineEvaluation
from nearfar.challenge.pages import pictures, published
from nearfar.challenge.pages.pictures import Bar
from nearfar.challenge.pages.tables import Cell, Reproduction, Table
from nearfar.challenge.pages.words import describe
from nearfar.explain.pages import alarm_counts, evidence_figures
from nearfar.explain.pictures import trend_png
from nearfar.explain.render import NONE, Figure, Value, figure, percent, percent_cell, render
from nearfar.metrics import harmonic_mean
from nearfar.recipe import Fusion, Recipe, System, leaves
from nearfar.support.check import Array
from nearfar.support.words import as_sentence

METRICS = {"auc_source": "AUC source", "auc_target": "AUC target", "pauc": "pAUC", "omega": "harmonic mean"}
BESIDE = {published.MSE: "MSE", published.MAHALA: "MAHALA", published.OURS: "report"}
PACKAGE = "nearfar.challenge.pages"
NORMALS = 12  # normals of a machine whose coherence is measured
SEGMENT, SEGMENTS = 1024, 8  # Welch's method: most samples of a segment, fewest segments of a clip
LOWEST_HZ = 50.0


def bench_page(evaluation: Evaluation, title: str) -> str:
    """The page of an evaluation; a machine without labels has histograms and its most unusual recording only."""
    bars = [_bar(m) for m in evaluation.machines if m.result is not None]
    compared = any(bar.others for bar in bars)
    same_method = len({_method(m) for m in evaluation.machines if m.detector.why}) == 1
    official = ("official score", percent_cell(evaluation.overall, evaluation.interval))
    return render(
        "bench.html.j2",
        PACKAGE,
        title=title,
        headline=[*_headline(evaluation), *evaluation.notes],
        bars=[_bars_figure(bars, compared)] if bars else [],
        heads=("machine", "test clips", *METRICS.values()),
        rows=[_metrics_row(m) for m in evaluation.machines],
        official=official if evaluation.interval is not None else None,
        published=_published() if compared else [],
        machines=[_machine(m, with_method=not same_method) for m in evaluation.machines],
    )


def tables_page(done: Reproduction, title: str) -> str:
    """The page of `reproduce`: every table, which numbers are missing and why, and where the report is inconsistent."""
    return render(
        "tables.html.j2",
        PACKAGE,
        title=title,
        notes=[as_sentence(note[0].upper() + note[1:]) for note in done.notes],
        tables=[_table(table) for table in done.tables],
        remarks=published.REMARKS,
        published=_published(),
    )


def coherence(clips: Sequence[audio.Clip]) -> tuple[Array, Array]:
    """Magnitude-squared coherence of near and far by Welch's method -> centres (B,) in Hz, coherence (N, B).

    B third-octave bands. Clips with one channel, or with another rate than the first, are left out; without any other
    clips the shapes are (0,) and (0, 0).
    """
    from scipy.signal import coherence as welch

    pairs = [clip for clip in clips if clip.far is not None and clip.rate == clips[0].rate]
    if not pairs:
        return np.zeros(0), np.zeros((0, 0))
    size = min(SEGMENT, *(len(clip.near) // SEGMENTS for clip in pairs))
    rows = []
    for clip in pairs:
        with np.errstate(invalid="ignore", divide="ignore"):  # a bin without any power has no coherence
            frequency, row = welch(clip.near, clip.far, clip.rate, nperseg=size)
        rows.append(np.nan_to_num(row))
    middle = LOWEST_HZ * 2 ** (np.arange(int(3 * np.log2(pairs[0].rate / 2 / LOWEST_HZ))) / 3)
    bands = [(frequency >= m * 2 ** (-1 / 6)) & (frequency < m * 2 ** (1 / 6)) for m in middle]
    filled = [i for i, band in enumerate(bands) if band.any()]
    return middle[filled], np.stack([[row[bands[i]].mean() for i in filled] for row in rows])


def _headline(evaluation: Evaluation) -> list[str]:
    lines = []
    if evaluation.interval is not None:
        low, high = 100 * evaluation.interval.low, 100 * evaluation.interval.high
        mean = "arithmetic" if evaluation.rules == "2020" else "harmonic"
        lines.append(
            f"Official score {100 * evaluation.overall:.2f} ({low:.1f} to {high:.1f}), {mean} mean; chance is 50."
        )
        lines.append(f"Rules: {RULES[evaluation.rules]}.")
    methods = {_method(m) for m in evaluation.machines if m.detector.why}
    return lines + ([f"Method: {methods.pop()}"] if len(methods) == 1 else [])


def _method(m: MachineEvaluation) -> str:
    """The method in a sentence: the reason of the default, or the recipe."""
    system = m.detector.system
    if m.detector.by_default or system is None:
        return m.detector.why.rstrip(".") + "."
    if isinstance(system, Fusion):
        return "; ".join(f"{weight:g} of {_describe(part)}" for weight, part in system.parts) + "."
    return _describe(system, "; ") + "."


def _describe(system: System, separator: str = " and ") -> str:
    recipes = [system] if isinstance(system, Recipe) else leaves(system)
    return separator.join(describe(recipe) for recipe in recipes)


def _bar(m: MachineEvaluation) -> Bar:
    assert m.result is not None
    rows = published.TABLE_5.get(m.name, {})
    others = {} if made_up(m.recordings[0]) else {BESIDE[s]: harmonic_mean(rows[s]) for s in BESIDE if s in rows}
    return Bar(m.name, 100 * m.result.omega, m.intervals.get("omega"), others)


def _bars_figure(bars: Sequence[Bar], compared: bool) -> Figure:
    marks = ". MSE and MAHALA are the official baselines, report is its fusion." if compared else "."
    return figure(
        pictures.png,
        pictures.bars,
        bars,
        alt=f"Harmonic mean of each machine in percent: {'; '.join(f'{b.name} {b.value:.1f}' for b in bars)}",
        caption=f"Each machine's harmonic mean with its 95 % bootstrap interval{marks}",
    )


def _metrics_row(m: MachineEvaluation) -> list[Value | str]:
    cells: list[Value | str] = [m.name, str(len(m.scores))]
    if m.result is None:
        return cells + ["failed" if m.error else NONE if m.labelled else "no labels"] * len(METRICS)
    return cells + [percent_cell(float(getattr(m.result, key)), m.intervals.get(key)) for key in METRICS]


def _machine(m: MachineEvaluation, with_method: bool) -> dict[str, Any]:
    """A machine's section: `lines` of text, `curves`, and the most `unusual` recording with its `evidence`."""
    shown: dict[str, Any] = {"name": m.name, "curves": [], "unusual": None, "evidence": []}
    if m.error:
        return shown | {"lines": [f"Could not be evaluated: {as_sentence(m.error)}"]}
    if not m.scores:
        return shown | {"lines": ["No recording of this machine was scored."]}
    lines = [alarm_counts(m.scores, [r.is_anomaly for r in m.recordings])]
    lines += [f"Method: {_method(m)}"] if with_method else []
    lines += [f"Left out: {as_sentence(error)}" for _, error in m.failures]
    shown |= {"lines": lines, "curves": _curves(m)}
    suspects = [(s.score, r.path) for s, r in zip(m.scores, m.recordings, strict=True) if r.is_anomaly is not False]
    if suspects:
        explanation = m.detector.explain(max(suspects)[1])
        shown |= {"unusual": explanation, "evidence": evidence_figures(explanation)}
    return shown


def _curves(m: MachineEvaluation) -> list[Figure]:
    values = [s.score for s in m.scores]
    labels, domains = [r.is_anomaly for r in m.recordings], [r.is_target for r in m.recordings]
    figures = []
    if m.result is not None:
        numbers = ", ".join(f"{head} {percent(float(getattr(m.result, key)))}" for key, head in METRICS.items())
        alt, caption = f"ROC of {m.name}: {numbers}", "ROC; pAUC uses the shaded part."
        figures.append(
            figure(pictures.png, pictures.roc, values, [bool(x) for x in labels], domains, alt=alt, caption=caption)
        )
    point = m.scores[0].threshold
    alt = f"Histogram of the scores of {m.name}; set-point {point:.2f}"
    caption = "How often each score occurs, with a panel for each domain."
    figures.append(figure(pictures.png, pictures.domains, values, labels, domains, point, alt=alt, caption=caption))
    alt, caption = f"Scores of {m.name} in order", "Scores in the order of the files."
    figures.append(figure(trend_png, m.scores, [] if m.result is None else labels, alt=alt, caption=caption))
    frequency, rows = coherence(_normals(m))
    if len(rows):
        alt = f"Coherence of near and far of {m.name}, {float(np.median(rows)):.2f} at the median"
        caption = f"How much near and far have in common, in {len(rows)} normal clips: 1 is everything, 0 is nothing."
        figures.append(figure(pictures.png, pictures.coherence, frequency, rows, alt=alt, caption=caption))
    return figures


def _normals(m: MachineEvaluation) -> list[audio.Clip]:
    """At most NORMALS normals of the machine, evenly through the list, if they have two channels."""
    if m.detector.far is None or not m.detector.normals:
        return []
    paths = list(dict.fromkeys(n.path for n in m.detector.normals if n.path))
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(NORMALS, len(paths))).astype(int))]
    return [next(audio.windows(path, near=m.detector.near, far=m.detector.far)) for path in chosen]


def _table(table: Table) -> dict[str, Any]:
    reasons = [f"{', '.join(names)}: {as_sentence(reason)}" for reason, names in table.reasons.items()]
    return {
        "title": table.title,
        "heads": (*table.heads, *table.metrics),
        "rows": [(*row.heads, *map(_cell, row.cells)) for row in table.rows],
        "words": range(len(table.heads)),
        "notes": [*table.notes, *reasons],
    }


def _cell(cell: Cell) -> Value:
    difference = "" if cell.difference is None else f", {cell.difference:+.2f}"
    return Value(
        bold="" if cell.here is None else f"{cell.here:.2f}",
        small="" if cell.report is None else f"report {cell.report:.2f}{difference}",
    )


def _published() -> list[tuple[str, ...]]:
    """Rows of what others have published."""
    scores = [[NONE if score is None else f"{score:.2f}" for score in (s.dev, s.eval)] for s in published.SYSTEMS]
    return [
        (s.name, *pair, "yes" if s.trained else "no", s.source)
        for s, pair in zip(published.SYSTEMS, scores, strict=True)
    ]
