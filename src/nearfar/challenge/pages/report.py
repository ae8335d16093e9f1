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
from nearfar.challenge.data.layout import RULES, made_up
from nearfar.challenge.evaluate import Evaluation, MachineEvaluation
from nearfar.challenge.pages import pictures, published
from nearfar.challenge.pages.pictures import Bar
from nearfar.challenge.pages.tables import Cell, Reproduction, Table
from nearfar.explain import pages
from nearfar.explain.pictures import trend_png
from nearfar.metrics import harmonic_mean
from nearfar.recipe import Fusion, Recipe, System, leaves
from nearfar.support.check import Array
from nearfar.support.words import as_sentence

METRICS = {"auc_source": "AUC source", "auc_target": "AUC target", "pauc": "pAUC", "omega": "harmonic mean"}
BESIDE = {published.MSE: "MSE", published.MAHALA: "MAHALA", published.OURS: "report"}
LISTENED = 12  # normals whose coherence is measured
SEGMENT, SEGMENTS, LOWEST_HZ = 1024, 8, 50.0  # samples at most, how many at least


def bench_page(evaluation: Evaluation, title: str) -> str:
    """The page of an evaluation; machines without labels have histograms and the most unusual recording alone."""
    judged = [m for m in evaluation.machines if m.result is not None]
    parts = [f"<p>{escape(note)}</p>" for note in [*_headline(evaluation), *evaluation.notes]]
    if judged:
        bars = [_bar(m) for m in judged]
        words = "; ".join(f"{b.name} {b.value:.1f}" for b in bars)
        marks = (
            ". MSE and MAHALA are the official baselines, report is its fusion." if any(b.others for b in bars) else "."
        )
        caption = f"Each machine's harmonic mean with its 95 % bootstrap interval{marks}"
        alt = f"Harmonic mean of each machine in percent: {words}"
        parts.append(f'<div class="pair">{pages.figure(pages.twice(pictures.bars_png, bars), alt, caption)}</div>')
    parts.append(_metrics_table(evaluation))
    if any(b.others for b in map(_bar, judged)):
        parts.append(_known())
    same = len({_method(m) for m in evaluation.machines if m.detector.why}) == 1
    parts += [_machine(m, method=not same) for m in evaluation.machines]
    return pages.whole_page(title, "".join(parts))


def tables_page(done: Reproduction, title: str) -> str:
    """The page of `reproduce`: every table, what is missing and why, and where the report contradicts itself."""
    parts = [f"<p>{escape(as_sentence(note[0].upper() + note[1:]))}</p>" for note in done.notes]
    parts += [_beside_table(table) for table in done.tables]
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in published.REMARKS)
    parts.append(f"<section><h2>Where the report's tables disagree with themselves</h2><ul>{remarks}</ul></section>")
    return pages.whole_page(title, "".join(parts) + _known())


def coherence(clips: Sequence[audio.Clip]) -> tuple[Array, Array]:
    """(middle (B,) in Hz of third-octave bands, coherence (N, B)) of near and far: magnitude squared, Welch's method.

    Clips of one channel, or of another rate than the first, are left out; (0,) and (0, 0) if there are no others.
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
    held = [i for i, band in enumerate(bands) if band.any()]
    return middle[held], np.stack([[row[bands[i]].mean() for i in held] for row in rows])


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
    """The method in a sentence: why the default is what it is, or what the recipe says."""
    system = m.detector.system
    if m.detector.by_default or system is None:
        return m.detector.why.rstrip(".") + "."
    if isinstance(system, Recipe):
        return _recipe(system) + "."
    if isinstance(system, Fusion):
        return "; ".join(f"{weight:g} of {_recipe(part)}" for weight, part in system.parts) + "."
    return "; ".join(_recipe(recipe) for recipe in leaves(system)) + "."


def _recipe(system: System) -> str:
    if not isinstance(system, Recipe):
        return " and ".join(_recipe(leaf) for leaf in leaves(system))
    pooling = {"gem": f" (p={system.p:g})", "rdp": f" (alpha={system.alpha:g})"}
    both = f" (alpha={system.alpha:g}, p={system.p:g})" if system.pooling == "rdp_gem" else ""
    density = f", density_k={system.density_k}" if system.density_k else ""
    how = f"{system.method}, {system.metric}, k={system.k}{density}"
    return f"{system.encoder}, {system.view}, {system.pooling}{pooling.get(system.pooling, both)}, {how}"


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


def _machine(m: MachineEvaluation, method: bool) -> str:
    parts = [f"<section><h2>{escape(m.name)}</h2>"]
    if m.error:
        return parts[0] + f"<p>Could not be evaluated: {escape(as_sentence(m.error))}</p></section>"
    if not m.scores:
        return parts[0] + "<p>No recording of this machine was scored.</p></section>"
    parts.append(f"<p>{escape(pages.plural(m.scores, [r.is_anomaly for r in m.recordings]))}</p>")
    parts += [f"<p>Method: {escape(_method(m))}</p>"] if method else []
    parts += [f"<p>Left out: {escape(as_sentence(error))}</p>" for _, error in m.failures]
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
    known = [] if m.result is None else labels
    drawn = pages.twice(trend_png, m.scores, known)
    figures.append(pages.figure(drawn, f"Scores of {m.name} in order", "Scores in the order of the files."))
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
        for head, text in zip(table.heads[1:], row.heads[1:], strict=True):
            words.append(f'<td class="words" data-is="{head}">{escape(text)}</td>')
        for metric, cell in zip(table.metrics, row.cells, strict=True):
            words.append(f'<td data-is="{metric}">{_cell(cell)}</td>')
        rows.append("".join(words))
    caption = "In bold what was computed here, below it the report's number and the difference to it. Percent."
    notes = [*table.notes, *(f"{', '.join(names)}: {as_sentence(reason)}" for reason, names in table.reasons.items())]
    under = "".join(f'<p class="small">{escape(note)}</p>' for note in notes)
    made = _table((*table.heads, *table.metrics), rows, caption, words=len(table.heads))
    return f"<section><h2>{escape(table.title)}</h2>{made}{under}</section>"


def _cell(cell: Cell) -> str:
    here = "" if cell.here is None else f"<b>{cell.here:.2f}</b>"
    if cell.report is None:
        return here
    difference = "" if cell.difference is None else f", {cell.difference:+.2f}"
    return f"{here}<small>report {cell.report:.2f}{difference}</small>"


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


def _table(heads: Sequence[str], rows: Sequence[str], caption: str, foot: str = "", words: int = 1) -> str:
    """A table; its first `words` columns hold words, and so does one called "source"."""
    kinds = ['class="words" ' if i < words or h == "source" else "" for i, h in enumerate(heads)]
    head = "".join(f'<th {kind}scope="col">{escape(h)}</th>' for kind, h in zip(kinds, heads, strict=True))
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
