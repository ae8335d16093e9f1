"""Self-contained pages for the researcher: one HTML file with its pictures inside, nothing fetched, nothing that runs.

bench_page    an evaluation: bars beside the baselines, metrics, and per machine ROC, histograms, coherence, evidence
tables_page   the report's tables beside what was computed here
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from nearfar import audio
from nearfar.challenge import pictures, published
from nearfar.challenge.evaluate import Evaluation, MachineEvaluation
from nearfar.challenge.layout import RULES, made_up
from nearfar.challenge.pictures import Bar
from nearfar.challenge.tables import Cell, Reproduction, Table
from nearfar.check import Array
from nearfar.explain import pages
from nearfar.metrics import harmonic_mean

METRICS = {"auc_source": "AUC source", "auc_target": "AUC target", "pauc": "pAUC", "omega": "harmonic mean"}
BESIDE = {published.MSE: "AE-MSE", published.MAHALA: "AE-MAHALA", published.OURS: "the report's fusion"}
LISTENED = 12  # normals whose coherence is measured
SEGMENT = 1024


def bench_page(evaluation: Evaluation, title: str) -> str:
    """The page of an evaluation; machines without labels have histograms and the most unusual recording alone."""
    judged = [m for m in evaluation.machines if m.result is not None]
    parts = [f"<p>{escape(note)}</p>" for note in [*_headline(evaluation), *evaluation.notes]]
    if judged:
        bars = [_bar(m) for m in judged]
        words = "; ".join(f"{b.name} {b.value:.1f}" for b in bars)
        parts.append(
            pages.figure(
                pages.twice(pictures.bars_png, bars),
                f"Harmonic mean of each machine in percent: {words}",
                "Each machine's harmonic mean with its 95 % bootstrap interval; marks are published systems.",
            )
        )
    parts.append(_metrics_table(evaluation))
    if any(b.others for b in map(_bar, judged)):
        parts.append(_known())
    parts += [_machine(m) for m in evaluation.machines]
    return pages.whole_page(title, "".join(parts))


def tables_page(done: Reproduction, title: str) -> str:
    """The page of `reproduce`: every table, what is missing and why, and where the report contradicts itself."""
    parts = [f"<p>{escape(note[0].upper() + note[1:])}.</p>" for note in done.notes]
    parts += [_beside_table(table) for table in done.tables]
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in published.REMARKS)
    parts.append(f"<section><h2>Where the report's tables disagree with themselves</h2><ul>{remarks}</ul></section>")
    return pages.whole_page(title, "".join(parts) + _known())


def coherence(clips: Sequence[audio.Clip]) -> tuple[Array, Array]:
    """(frequencies (F,) in Hz, coherence (N, F)) of near and far, magnitude squared, by Welch's method."""
    from scipy.signal import coherence as welch

    rows, frequency = [], np.zeros(0)
    for clip in clips:
        if clip.far is not None:
            size = min(SEGMENT, len(clip.near))
            with np.errstate(invalid="ignore", divide="ignore"):  # a band without any power has no coherence
                frequency, row = welch(clip.near, clip.far, clip.rate, nperseg=size)
            rows.append(np.nan_to_num(np.asarray(row, float)))
    return np.asarray(frequency), np.array([row for row in rows if len(row) == len(frequency)])


def _headline(evaluation: Evaluation) -> list[str]:
    lines = []
    if evaluation.interval is not None:
        low, high = 100 * evaluation.interval.low, 100 * evaluation.interval.high
        mean = "arithmetic" if evaluation.rules == "2020" else "harmonic"
        lines.append(
            f"Official score {100 * evaluation.overall:.2f} ({low:.1f} to {high:.1f}), {mean} mean; chance is 50."
        )
        lines.append(f"Rules: {RULES[evaluation.rules]}.")
    return lines + sorted({f"Method: {m.detector.why}." for m in evaluation.machines if m.detector.why})


def _bar(m: MachineEvaluation) -> Bar:
    assert m.result is not None
    rows = published.TABLE_5.get(m.name, {})
    others = {} if made_up(m.recordings[0]) else {BESIDE[s]: harmonic_mean(rows[s]) for s in BESIDE if s in rows}
    return Bar(m.name, 100 * m.result.omega, m.intervals.get("omega"), others)


def _metrics_table(evaluation: Evaluation) -> str:
    heads = ("machine", "test clips", *METRICS.values())
    rows = []
    for m in evaluation.machines:
        cells = [f'<th scope="row">{escape(m.name)}</th>', f'<td data-is="{heads[1]}">{len(m.scores)}</td>']
        for key, head in METRICS.items():
            text = "failed" if m.error else "no labels" if not m.labelled else "–"
            if m.result is not None:
                text = pages.number(float(getattr(m.result, key)), m.intervals.get(key))
            cells.append(f'<td data-is="{head}">{text}</td>')
        rows.append("".join(cells))
    foot = ""
    if evaluation.interval is not None:
        label = f'<th scope="row" colspan="{len(heads) - 1}">official score</th>'
        foot = f'{label}<td data-is="official score">{pages.number(evaluation.overall, evaluation.interval)}</td>'
    return _table(heads, rows, "Percent, with the 95 % interval below each number; 50 is chance, 100 is perfect.", foot)


def _machine(m: MachineEvaluation) -> str:
    parts = [f"<section><h2>{escape(m.name)}</h2>"]
    if m.error:
        return parts[0] + f"<p>Could not be evaluated: {escape(m.error)}</p></section>"
    if not m.scores:
        return parts[0] + "<p>No recording of this machine was scored.</p></section>"
    report = pages.MachineReport(m.name, m.scores, [r.is_anomaly for r in m.recordings], [])
    parts.append(f"<p>{escape(pages.counted(report))}</p>")
    parts += [f"<p>Left out: {escape(error)}</p>" for _, error in m.failures]
    parts.append(f'<div class="pair">{_curves(m)}</div>')
    suspects = [(s.value, r.path) for s, r in zip(m.scores, m.recordings, strict=True) if r.is_anomaly is not False]
    if suspects:
        parts.append(pages.unusual(m.detector.explain(max(suspects)[1])))
    return "".join(parts) + "</section>"


def _curves(m: MachineEvaluation) -> str:
    values = [s.value for s in m.scores]
    labels, domains = [r.is_anomaly for r in m.recordings], [r.is_target for r in m.recordings]
    figures = []
    if m.result is not None:
        drawn = pages.twice(pictures.roc_png, values, [bool(x) for x in labels], domains)
        said = ", ".join(f"{head} {_said(getattr(m.result, key))}" for key, head in METRICS.items())
        figures.append(pages.figure(drawn, f"ROC of {m.name}: {said}", "ROC; pAUC looks at the shaded part."))
    point = m.scores[0].threshold
    drawn = pages.twice(pictures.domains_png, values, labels, domains, point)
    caption = "How often each score occurs, a panel for each domain that is known."
    figures.append(pages.figure(drawn, f"Histogram of the scores of {m.name}; set-point {point:.2f}", caption))
    frequency, rows = coherence(_normals(m))
    if len(rows):
        drawn = pages.twice(pictures.coherence_png, frequency, rows)
        mean = f"Coherence of near and far of {m.name}, {float(np.median(rows)):.2f} at the median"
        caption = f"What near and far share, in {len(rows)} normal clips: 1 is all of it, 0 nothing."
        figures.append(pages.figure(drawn, mean, caption))
    return "".join(figures)


def _normals(m: MachineEvaluation) -> list[audio.Clip]:
    """A few of the machine's normals, evenly through the list, if they have two channels."""
    if m.detector.far is None or not m.detector.normals:
        return []
    paths = list(dict.fromkeys(n.path for n in m.detector.normals if n.path))
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(LISTENED, len(paths))).astype(int))]
    return [next(audio.windows(path, near=m.detector.near, far=m.detector.far)) for path in chosen]


def _beside_table(table: Table) -> str:
    rows = []
    for row in table.rows:
        words = [f'<th scope="row">{escape(row.heads[0])}</th>']
        words += [
            f'<td class="words" data-is="{h}">{escape(t)}</td>'
            for h, t in zip(table.heads[1:], row.heads[1:], strict=True)
        ]
        numbers = [
            f'<td data-is="{metric}">{_cell(cell)}</td>' for metric, cell in zip(table.metrics, row.cells, strict=True)
        ]
        note = f'<td class="words small" data-is="missing, because">{escape(row.note)}</td>'
        rows.append("".join([*words, *numbers, note]))
    heads = (*table.heads, *table.metrics, "missing, because")
    caption = " ".join(
        ["In bold what was computed here, below it the report's number and the difference.", *table.notes]
    )
    return f"<section><h2>{escape(table.title)}</h2>{_table(heads, rows, caption)}</section>"


def _cell(cell: Cell) -> str:
    here = "–" if cell.here is None else f"<b>{cell.here:.2f}</b>"
    if cell.report is None:
        return here
    difference = "" if cell.difference is None else f", {cell.difference:+.2f}"
    return f"{here}<small>{cell.report:.2f}{difference}</small>"


def _known() -> str:
    """What others have published."""
    rows = [
        f'<th scope="row">{escape(s.name)}</th><td data-is="development">{_plain(s.dev)}</td>'
        f'<td data-is="evaluation">{_plain(s.eval)}</td><td data-is="trained">{"yes" if s.trained else "no"}</td>'
        f'<td class="words small" data-is="source">{escape(s.source)}</td>'
        for s in published.SYSTEMS
    ]
    heads = ("system", "development", "evaluation", "trained", "source")
    table = _table(heads, rows, "Official scores on DCASE 2026 Task 2, percent.")
    return f"<details><summary>What others have published</summary>{table}</details>"


def _table(heads: Sequence[str], rows: Sequence[str], caption: str, foot: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    below = f"<tfoot><tr>{foot}</tr></tfoot>" if foot else ""
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody>{below}</table></div>"
    )


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _said(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{100 * value:.1f}"
