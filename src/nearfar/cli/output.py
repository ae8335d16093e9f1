"""What the commands print: results as data for JSON, as CSV, and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.cli.terminal import Failures, echo, echo_json, echo_table, echo_wrapped, left_out, warn
from nearfar.support.cells import csv_text
from nearfar.support.words import plural, quoted

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation, MachineEvaluation
    from nearfar.challenge.pages.effects import TextTable
    from nearfar.challenge.pages.tables import Reproduction
    from nearfar.challenge.search.fuse import Fused
    from nearfar.challenge.search.records import Records
    from nearfar.challenge.search.run import Searched
    from nearfar.challenge.search.select import Rule, Selection
    from nearfar.detector import Detector
    from nearfar.live.rules.rhythm import Rhythm
    from nearfar.metrics import Interval
    from nearfar.recipe import Recipe
    from nearfar.score import Score

Named = tuple[str, "Score"]
UNUSUAL, UNUSUAL_SHARE = 3, 0.1  # recordings, and more than this share of those judged: a known session has fewer
ORDER = ("ANOMALOUS", "unusual", "cannot judge", "normal")  # of the rows of scores
MANY = 5  # recordings, all anomalous: from this number on, warn that the cause may not be a fault
NO_PICTURES = 'needs matplotlib: pip install "nearfar[pictures]"'
CHOSEN = "chosen with the labels of these very test clips"
NOT_NESTED = "not possible with one machine"
USES_LABELS = f"{CHOSEN}: expect the nested score on others"
MACHINE_HEADS = ("machine", "AUC source", "AUC target", "pAUC", "harmonic mean")
WORTH_HEADS = ("", "percent", "which is")
RULE_HEADS = ("rule", "picks", "score", "rank correlation", "regret")


def set_point(detector: Detector, rhythm: Rhythm | None = None) -> dict[str, Any]:
    """A detector's set-point and the false alarms to expect, by default of a day of clips end to end."""
    from nearfar.detector.system import resolution_of
    from nearfar.live.rules.rhythm import all_day
    from nearfar.live.rules.setpoint import consequences, unusual_text

    rhythm = rhythm or all_day(detector.window_s)
    point = detector.threshold
    shown = resolution_of(detector.train_values, point, detector.method)
    return {
        "threshold": point.value,
        "unusual_threshold": detector.unusual_threshold,
        "unusual": unusual_text(detector),
        "method": point.method,
        "rate": point.rate,
        "false_alarms_per_day": rhythm.per_week(point.rate) / 7,
        "clip_seconds": detector.window_s,
        "rhythm": rhythm.text(),
        "normals": shown.normals,
        "backed_by_normals": not shown.beyond,
        "loudest_normal": shown.loudest,
        "times_loudest": shown.times_loudest,
        "lowest": {
            "rate": shown.lowest_rate,
            "false_alarms_per_day": rhythm.per_week(shown.lowest_rate) / 7,
            "value": shown.lowest_value,
        },
        "consequences": consequences(shown, rhythm),
    }


def print_set_point(point: dict[str, Any], title: str = "Set-point") -> None:
    """Print a set-point as text."""
    echo_wrapped(
        f"{title:<13} {point['threshold']:.2f} standard deviations of the normals ({point['method']}); expected:"
    )
    often = f"1 false alarm in {1 / max(point['rate'], 1e-12):.4g} healthy recordings"
    echo_wrapped(f"              {often}, {point['false_alarms_per_day']:.4g} a day ({point['rhythm']})")
    for sentence in [*point["consequences"], point["unusual"]]:
        echo_wrapped(f"              {sentence[0].upper()}{sentence[1:]}.")


def print_choices(choices: Sequence[tuple[float, float]], per_day: float, normals: int) -> None:
    """Print (share of healthy recordings, set-point) as a table; a day has `per_day` recordings."""
    columns = ["one false alarm in", "a day of listening", "set-point", ""]
    beyond = "beyond the normals"
    rows = [
        [f"{1 / r:.0f} recordings", f"{r * per_day:.4g}", f"{v:.2f}", "" if r >= 1 / (normals + 1) else beyond]
        for r, v in choices
    ]
    echo_table(columns, rows)


def print_live(detector: Detector) -> None:
    """Print the set-point and false alarms of the detector in `monitor` and `serve`."""
    from nearfar.live.rules.alarm import Alarm
    from nearfar.live.rules.rhythm import all_day
    from nearfar.live.rules.setpoint import MORE, expected_alarms
    from nearfar.live.rules.setpoint import set_point as live_point

    hop_s = detector.window_s / 2
    rhythm = all_day(detector.window_s, hop_s, Alarm(0.0).on_delay)
    lines = expected_alarms(detector, live_point(detector, rhythm), rhythm)
    echo(f"Live          nearfar monitor, a window of {detector.window_s:g} s every {hop_s:g} s:")
    for line in [*lines, f"{MORE} HISTORY"]:
        echo_wrapped(f"              {line}")


def summary(detector: Detector) -> dict[str, Any]:
    """A fitted detector as data: its normals, its method and its set-point."""
    return {
        "normals": len(detector.normals),
        "minutes": sum(n.seconds for n in detector.normals) / 60,
        "source": int((~detector.is_target).sum()),
        "target": int(detector.is_target.sum()),
        "recordings": detector.backing.recordings,
        "sessions": detector.backing.sessions,
        "backing": str(detector.backing),
        "warning": detector.backing.warning if detector.grouped else "",
        "remarks": detector.remarks,
        "why": detector.why,
        "set_point": set_point(detector),
        "odd_ones_out": [
            {"file": detector.normals[n.index].name, "score": n.score, "robust_z": n.unlike, "reason": n.reason}
            for n in detector.odd_ones_out()
        ],
    }


def print_summary(facts: dict[str, Any]) -> None:
    """Print the summary of `fit` and `add`."""
    from nearfar.doctor.report import few

    domains = f" ({facts['source']} source, {facts['target']} target)" if facts["target"] else ""
    added = f", {facts['added']} of them new" if "added" in facts else ""
    echo(f"Fitted on     {facts['normals']} normal recordings{domains}, {facts['minutes']:.1f} minutes{added}")
    echo_wrapped(f"Behind them   {facts['backing']}")
    if facts["left_out"]:
        echo(f"Left out      {plural(len(facts['left_out']), 'recording')}; reasons above")
    echo_wrapped(f"Method        {facts['why']}")
    print_set_point(facts["set_point"])
    if before := facts.get("before"):
        changes = [f"{word} above {before[key]:.2f} before, {facts['set_point'][key]:.2f} now" for word, key in LAMPS]
        echo_wrapped(f"Changed       {'; '.join(changes)}")
    echo_wrapped(
        "Odd ones out  listen to these: are they really normal? The detector is deaf to a fault that is one of them."
    )
    for odd in facts["odd_ones_out"]:
        echo_wrapped(f"              {odd['file']}  ({odd['reason']})")
    echo("              To leave one out: nearfar fit ... --without FILE")
    for note in (few(facts["normals"], 60 * facts["minutes"]), facts["warning"]):
        if note and note not in facts["remarks"]:  # which are on stderr
            echo_wrapped(f"Note          {note}")
    echo(f"Detector      {facts['model']}")
    echo(f"Next          nearfar score {quoted(facts['model'])} RECORDINGS")


LAMPS = (("unusual", "unusual_threshold"), ("alarm", "threshold"))
COLUMNS = (
    *("file", "score", "threshold", "anomalous", "nearest", "status", "unusual", "unusual_threshold", "p"),
    *("triggered_by", "problem", "warnings", "codes"),
)


def as_row(name: str, score: Score) -> dict[str, Any]:
    """A score as plain data, by `COLUMNS`; `anomalous` is None where the recording cannot be judged."""
    lists = {column: list(getattr(score, column)) for column in ("triggered_by", "warnings", "codes")}
    found = {column: getattr(score, column) for column in COLUMNS[1:]}
    return {"file": name, **found, **lists, "nearest": score.nearest[0] if score.nearest else ""}


def as_csv(scores: Sequence[Named], facts: Sequence[Mapping[str, str]] = ()) -> str:
    """Scores as CSV, one row each, with `facts` of each in further columns; a flag is 1, 0 or empty."""
    marks, rows = {"triggered_by": " and ", "warnings": "; ", "codes": " "}, []
    for (name, score), more in zip(scores, facts or [{}] * len(scores), strict=True):
        row = as_row(name, score)
        row |= {flag: "" if row[flag] is None else int(row[flag]) for flag in ("anomalous", "unusual")}
        row |= {column: mark.join(row[column]) for column, mark in marks.items()}
        rows.append([*row.values(), *more.values()])
    return csv_text([[*COLUMNS, *(facts[0] if facts else ())], *rows])


def print_scores(scores: Sequence[Named], failures: Failures, model: str) -> None:
    """Print scores as a table, alarms first, then how many alarm, cannot be judged or read, and what to do."""
    if scores:
        alarms_first = sorted(scores, key=lambda pair: ORDER.index(pair[1].status))
        columns = ["file", "score", "threshold", "verdict", "triggered by", "nearest normal"]
        echo_table(columns, [_score_row(*pair) for pair in alarms_first])
        echo()
    remarks: dict[str, list[str]] = {}
    for name, s in scores:
        for text in filter(None, [s.problem, *s.warnings]):
            remarks.setdefault(text, []).append(name)
    for text, names in remarks.items():
        others = f" and {plural(len(names) - 1, 'other')}" if len(names) > 1 else ""
        warn(f"{names[0]}{others}: {text}")
    dead = sum(s.anomalous is None for _, s in scores)
    alarms = sum(bool(s.anomalous) for _, s in scores)
    if alarms >= MANY and alarms + dead == len(scores):
        warn(
            f"note: all {alarms} that can be judged are anomalous: a permanent fault, an operating condition "
            "that is not among the normals, swapped microphones, or another machine?"
        )
    unusual = sum(s.status == "unusual" for _, s in scores)
    parts = [f"{len(scores)} scored", f"{alarms} anomalous"]
    parts += [f"{unusual} unusual"] if unusual else []
    parts += [f"{dead} cannot be judged"] if dead else []
    parts += [f"{len(failures.files)} could not be used"] if failures.files else []
    echo(f"{', '.join(parts)}; score and threshold are in standard deviations of the normals")
    if unusual >= UNUSUAL and unusual > UNUSUAL_SHARE * (len(scores) - dead):
        echo_wrapped(
            f"{unusual} recordings are unusual: another session, or the beginning of a fault? Listen; those that are "
            f"fine: nearfar add {quoted(model)} FILES"
        )


def _score_row(name: str, s: Score) -> list[str]:
    why = ", ".join(s.triggered_by) if s.anomalous else ""
    return [name, f"{s.score:.2f}", f"{s.threshold:.2f}", s.status, why, s.nearest[0]]


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the official metrics in percent, with their intervals."""
    from nearfar.challenge.data.layout import LATEST, RULES

    echo_table(
        ["machine", "AUC source", "AUC target", "pAUC", "Omega"],
        [_metrics_row(m) for m in evaluation.machines],
        title="Percent, with 95 % bootstrap intervals",
    )
    if evaluation.interval:
        echo()
        between = f"[{100 * evaluation.interval.low:.1f}, {100 * evaluation.interval.high:.1f}]"
        mean = "arithmetic" if evaluation.rules == "2020" else "harmonic"
        judged = sum(m.result is not None for m in evaluation.machines)
        of = "" if judged == len(evaluation.machines) else f", {judged} of {len(evaluation.machines)} rows"
        echo(f"Official score {100 * evaluation.overall:.2f} {between} ({mean} mean{of}; chance is 50)")
    if evaluation.rules != LATEST:
        echo(f"Rules of {evaluation.rules}: {RULES[evaluation.rules]}")
    unlabelled = [m.name for m in evaluation.machines if m.scores and not m.labelled]
    if unlabelled:
        echo(
            f"No labels for {', '.join(unlabelled)}: give them with --truth, or by names of the challenge's "
            "form, such as section_00_source_test_anomaly_0001.wav; or write a submission with nearfar submit"
        )
    for note in evaluation.notes:
        warn(f"note: {note}")
    for m in evaluation.machines:
        if m.error:
            warn(f"{m.name}: could not be evaluated: {m.error}")
        for file, error in m.failures:
            warn(f"{m.name}: {left_out(file, error)}")
    explained = [m for m in evaluation.machines if m.detector.why]
    same = len({m.detector.why for m in explained}) == 1
    for m in explained[:1] if same else explained:
        echo_wrapped(f"Method{'' if same else f' of {m.name}'}: {m.detector.why}")


def _metrics_row(m: MachineEvaluation) -> list[str]:
    if m.result is None:
        return [m.name, "failed" if m.error else "no labels" if not m.labelled else "one kind", "", "", ""]
    cells = [m.name]
    for key in ("auc_source", "auc_target", "pauc", "omega"):
        value, interval = getattr(m.result, key), m.intervals[key]
        between = f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
        cells.append("-" if math.isnan(value) else f"{100 * value:.2f} {between}")
    return cells


def print_reproduction(done: Reproduction) -> None:
    """Print the report's tables beside the numbers computed here; below each, why numbers are missing."""
    echo("In percent: the report's number, what was computed here, and the difference where the two compare.\n")
    for table in done.tables:
        compared = any(cell.difference is not None for row in table.rows for cell in row.cells)
        rows = []
        for row in table.rows:
            numbers = [_beside(cell.report, cell.here, cell.difference)[: 2 + compared] for cell in row.cells]
            rows.append([*row.heads, *(text for texts in numbers for text in texts)])
        beside = [(metric.replace(" (", "\n("), "here", "+/-")[: 2 + compared] for metric in table.metrics]
        columns = [*table.heads, *(column for each in beside for column in each)]
        echo_table(columns, rows, title=table.title, words=len(table.heads))
        for note in table.notes:
            echo(f"  {note}")
        for reason, names in table.reasons.items():
            echo(f"  {', '.join(names)}: {reason}")
        echo()
    for note in done.notes:
        warn(f"note: {note}")
    for name, run in done.runs.items():
        for file, error in run.failures:
            warn(f"{name}: {left_out(file, error)}")


def _beside(report: float | None, here: float | None, difference: float | None) -> list[str]:
    return [
        "-" if report is None else f"{report:.2f}",
        "-" if here is None else f"{here:.2f}",
        "" if difference is None else f"{difference:+.2f}",
    ]


def has_pictures() -> bool:
    """True if the extra `pictures` is installed."""
    return all(find_spec(name) is not None for name in ("matplotlib", "jinja2"))


@dataclass(frozen=True)
class Ranked:
    """Records with their rows in order, best first; `selection` is None if the labels are not used."""

    records: Records
    rows: list[int]
    selection: Selection | None
    rules: Any

    @property
    def recipes(self) -> list[Recipe]:
        """The configurations, best first."""
        return [self.records.recipes[row] for row in self.rows]


def rank(records: Records, *, labels: bool, rounds: int, seed: int) -> Ranked:
    """Sort configurations by their official score, or by the label-free rules."""
    from nearfar.challenge.search import select

    selection = select.select(records, rounds=rounds, seed=seed) if labels else None
    score = records.overall if labels else select.label_free_score(records)
    rules = selection.rules if selection else select.label_free(records)
    return Ranked(records, [int(row) for row in (-score).argsort(kind="stable")], selection, rules)


def print_search(ranked: Ranked, top: int, table: Path, out: Path) -> None:
    """Print the best configurations, the estimate for new data, and the picks of the rules."""
    records = ranked.records
    _, heads, rows = best_table(ranked, top)
    echo_table(heads, rows)
    echo(f"\nConfigurations tried   {len(records):,} on {plural(len(records.machines), 'machine')}")
    for name, number, note in _worth(ranked):
        echo(f"{name:<22} {number}  {note}")
    if ranked.rules:
        echo("\nWithout labels:")
        echo_table(RULE_HEADS, _rule_rows(ranked), words=2)
    echo(f"\nAll configurations     {table}\nBest as a recipe       {out / 'best.json'}")


def best_table(ranked: Ranked, top: int) -> TextTable:
    """The best configurations with their scores."""
    records = ranked.records
    rows = [[_label(records.recipes[row]), _percent(records.overall[row])] for row in ranked.rows[:top]]
    return "Best configurations", ("configuration", "score"), rows


def tables(ranked: Ranked) -> list[TextTable]:
    """The estimate for new data and the picks of the rules, as tables of a page."""
    found: list[TextTable] = [("What the best one is worth", WORTH_HEADS, _worth(ranked))] if ranked.selection else []
    found += [_by_machine(ranked.records, ranked.rows[0])] if ranked.records.labelled else []
    return [*found, ("What rules without labels pick", RULE_HEADS, _rule_rows(ranked))] if ranked.rules else found


def _by_machine(records: Records, row: int) -> TextTable:
    """The official numbers of a configuration on each machine, or section."""
    from nearfar.metrics import harmonic_mean

    numbers = zip(records.machines, records.numbers[row], strict=True)
    rows = [[name, *map(_percent, each), _percent(harmonic_mean(each))] for name, each in numbers]
    return f"By machine: {_label(records.recipes[row])}", MACHINE_HEADS, rows


def fused_tables(fused: Fused) -> list[TextTable]:
    """The systems of a fusion with their weights, and what it is worth, as tables of a paper."""
    weights = [[_label(r), f"{w:.2f}"] for r, w in zip(fused.recipes, fused.weights, strict=True)]
    worth = [[what, _percent(value)] for what, value in _fused_worth(fused)]
    return [
        ("Weights of the fusion", ("system", "weight"), weights),
        (f"Worth of the fusion: {fused.tried:,} weightings tried", ("what", "score"), worth),
    ]


def _fused_worth(fused: Fused) -> list[tuple[str, float]]:
    return [
        ("Best system alone", fused.single),
        ("Equal weights", fused.equal),
        ("Fusion", fused.overall),
        ("Nested", fused.nested),
        ("Optimism", fused.overall - fused.nested),
    ]


def search_json(ranked: Ranked, top: int, table: Path, searched: Searched) -> None:
    """Print a search as one JSON document."""
    from nearfar.challenge.search.space import as_row

    records = ranked.records
    echo_json(
        {
            "tried": len(records),
            "machines": records.machines,
            "best": [
                as_row(records.recipes[row]) | {"overall": _or_none(records.overall[row])} for row in ranked.rows[:top]
            ],
            "uses_labels": ranked.selection is not None,
            "selection": _plain(ranked.selection.to_dict()) if ranked.selection else None,
            "rules": {n: _plain(vars(r)) | {"picks": as_row(records.recipes[r.row])} for n, r in ranked.rules.items()},
            "table": table,
            "failures": [{"file": file, "error": error} for file, error in searched.failures.items()],
            "notes": list(searched.notes),
        }
    )


def print_fused(fused: Fused, out: Path | None, *, chosen_by_labels: bool) -> None:
    """Print the weights of a fusion and its score beside the nested estimate and simpler systems."""
    (_, heads, rows), _ = fused_tables(fused)
    echo_table(heads, rows)
    echo(f"\nWeightings tried   {fused.tried:,}")
    for what, value in _fused_worth(fused):
        alone = what == "Nested" and math.isnan(value) and not math.isnan(fused.overall)
        why = f"  {NOT_NESTED}: the weights are chosen on the others" if alone else ""
        echo(f"{what:<18} {_percent(value)}{why}")
    if fused.tried > 1:
        echo(f"The weights are {CHOSEN if math.isnan(fused.nested) else USES_LABELS}.")
    if chosen_by_labels:
        echo("The systems were chosen with the labels of these test clips: the search's own optimism comes on top.")
    if out:
        echo(f"Fusion             {out}")


def _worth(ranked: Ranked) -> list[list[str]]:
    """Rows (name, percent, meaning): the best score and the estimates for new data; empty without labels."""
    records, selection = ranked.records, ranked.selection
    if selection is None:
        return []
    alone = len(records.machines) < 2
    way = "chosen on the other machines, scored on each"
    chosen = CHOSEN if alone else USES_LABELS
    equal = int((records.overall == selection.best).sum())
    shared = f"; {equal:,} configurations share it" if equal > 1 else ""
    return [
        ["Best", _percent(selection.best), f"[{_range(selection.interval)}], {chosen}{shared}"],
        ["Nested", _percent(selection.nested), f"{NOT_NESTED}: it is {way}" if alone else way],
        ["Optimism", _percent(selection.optimism), "unknown, as nested is" if alone else "best - nested"],
        ["Chosen and scored", _range(selection.procedure), "on different draws of the clips"],
    ]


def _rule_rows(ranked: Ranked) -> list[list[str]]:
    rows = [
        [name, _picked(ranked, r), _percent(r.overall), f"{r.spearman:+.2f}", _percent(r.regret)]
        for name, r in ranked.rules.items()
    ]
    return [[cell.replace("+nan", "-") for cell in row] for row in rows]


def _picked(ranked: Ranked, rule: Rule) -> str:
    label = _label(ranked.records.recipes[rule.row])
    return label if rule.parts == 1 else f"the smallest of {rule.parts} back ends, first: {label}"


def _label(recipe: Recipe) -> str:
    from nearfar.challenge.pages.words import describe

    return describe(recipe)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _range(interval: Interval) -> str:
    return f"{_percent(interval.low)} to {_percent(interval.high)}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if is_dataclass(data):
        return _plain(vars(data))
    return _or_none(data) if isinstance(data, float) else data
