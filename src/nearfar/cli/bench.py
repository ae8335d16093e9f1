"""Commands for the challenge's numbers and files: evaluate, reproduce, submit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli import options as opt
from nearfar.cli.output import as_csv, has_pictures, print_evaluation, print_reproduction
from nearfar.cli.terminal import BAD_INPUT, DONE, echo, echo_json, echo_table, left_out, progress_bar, warn
from nearfar.support.files import atomic_write
from nearfar.support.words import plural

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation
    from nearfar.challenge.submission import Finding
    from nearfar.recipe import System

BASELINE_RATE = 0.1  # the official baseline's gamma quantile of 0.9


@opt.command
def evaluate(
    data: opt.Data,
    channels: opt.Channels,
    networks: opt.Networks,
    choice: opt.RecipeChoice,
    truth: opt.Truth = None,
    machine: opt.Machines = None,
    rounds: opt.Rounds = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    page: opt.Page = None,
    against: Annotated[
        str | None, typer.Option(help="Another recipe: a paired bootstrap says which of the two is better.")
    ] = None,
    tables_folder: opt.Tables = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every test clip's score to this file.", callback=opt.spare)
    ] = None,
    store: opt.StoreFolder = None,
    json: opt.Json = False,
) -> None:
    """Example: nearfar evaluate data/ --recipe default

    Compute the challenge's metrics per machine, with bootstrap intervals. Evaluation files without labels are scored;
    give their labels with --truth, or write the challenge's files with `nearfar submit`.
    """
    from nearfar.challenge import evaluate as bench

    system, other = choice.system(), opt.load_recipe(against)
    with progress_bar() as progress:
        settings: dict[str, Any] = {
            "truth": truth,
            "only": machine or (),
            "store": opt.open_store(store),
            "seed": seed,
            "progress": progress,
            **channels.settings(),
            **networks.settings(),
        }
        evaluation = bench.evaluate(data, system, networks.weights_of(system), rounds=rounds, **settings)
        comparison = None
        if against:
            rival = bench.evaluate(data, other, networks.weights_of(other), rounds=1, **settings)
            comparison = bench.compare_evaluations(evaluation, rival, rounds=rounds, seed=seed)
    if json:
        echo_json({**evaluation.to_dict(), "against": asdict(comparison) if comparison else None})
    else:
        print_evaluation(evaluation)
        if comparison:
            low, high = (100 * end for end in (comparison.interval.low, comparison.interval.high))
            echo(
                f"Against {against}: {100 * comparison.difference:+.2f} points [{low:.1f}, {high:.1f}], better in "
                f"{100 * comparison.a_better:.0f} % of the draws (paired bootstrap)"
            )
    if tables_folder:
        from nearfar.challenge.pages import paper

        paper.write_tables(tables_folder, paper.evaluation_tables(evaluation, comparison, against or ""))
        if has_pictures():
            paper.write_figures(tables_folder, evaluation.machines)
    if csv_file:
        named = [(f"{m.name}/{s.name}", s) for m in evaluation.machines for s in m.scores]
        atomic_write(csv_file, as_csv(named, bench.known_facts(evaluation)))
    if page:
        from nearfar.challenge.pages.report import bench_page

        atomic_write(page, bench_page(evaluation, f"nearfar evaluate {data}"))
    raise typer.Exit(BAD_INPUT if evaluation.failed else DONE)


@opt.command
def reproduce(
    data: opt.Data,
    channels: opt.Channels,
    networks: opt.Networks,
    store: opt.StoreFolder = None,
    results: Annotated[Path, typer.Option(help="Folder for the scores; a second run continues from it.")] = Path(
        "nearfar-results"
    ),
    recipe: Annotated[
        list[str] | None, typer.Option(help="A further recipe, by name or JSON file; may be repeated.")
    ] = None,
    settings: opt.RecipeSettings = None,
    truth: opt.Truth = None,
    machine: opt.Machines = None,
    page: opt.Page = None,
    tables_folder: opt.Tables = None,
    json: opt.Json = False,
) -> None:
    """Example: nearfar reproduce data/dcase2026t2/dev_data/raw

    Compute Tables 3, 4 and 5 of the report beside the numbers it prints. An encoder whose weights are missing is left
    out with the reason; the default recipe, which needs no weights, always runs.
    """
    from nearfar.challenge.data import layout
    from nearfar.challenge.evaluate import ScoreCache
    from nearfar.challenge.pages import tables
    from nearfar.recipe import TABLE_3

    found = layout.read(data, truth, machine or ())
    others = _further_systems(recipe or (), settings or ())
    with progress_bar() as progress:
        runs = ScoreCache(
            results,
            networks.weights_of(*TABLE_3.values(), *others.values()),
            progress,
            store=opt.open_store(store),
            **channels.settings(),
            **networks.settings(),
        )
        done = tables.reproduce(found, runs, others)
    if page:
        from nearfar.challenge.pages.report import tables_page

        atomic_write(page, tables_page(done, f"nearfar reproduce {data}"))
    if tables_folder:
        from nearfar.challenge.pages.paper import reproduction_tables, write_tables

        write_tables(tables_folder, reproduction_tables(done))
    failed = any(run.failures for run in done.runs.values())
    if json:
        echo_json(done.to_dict())
    else:
        print_reproduction(done)
    raise typer.Exit(BAD_INPUT if failed else DONE)


@opt.command
def submit(
    channels: opt.Channels,
    networks: opt.Networks,
    choice: opt.RecipeChoice,
    data: Annotated[
        Path | None, typer.Argument(help="The data set; with --check, the files that must have rows.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the submission.")] = None,
    check: Annotated[Path | None, typer.Option(help="Check this folder of CSV files instead of writing one.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of the submission: Lastname_Institute_task2_1.")] = None,
    set_point: Annotated[
        str, typer.Option(help="Set-point: gamma (the official baseline's), conformal (nearfar's) or quantile.")
    ] = "gamma",
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of normal clips that may be called anomalous [gamma: 0.1, else 0.05].")
    ] = None,
    machine: opt.Machines = None,
    store: opt.StoreFolder = None,
    json: opt.Json = False,
) -> None:
    """Example: nearfar submit eval_data/raw --recipe eat-large -o out/

    Write the scores, decisions and metadata of a submission, checked and packed. To check any folder of CSV files:
    nearfar submit --check out/ eval_data/raw
    """
    from nearfar.challenge import evaluate as bench
    from nearfar.challenge import submission

    if check is not None:
        if output is not None or choice.recipe is not None:
            raise ValueError("--check reads a submission: give it without --recipe and -o")
        found = submission.check(check, data, only=machine)
        _print_findings(found, check, data, json)
        raise typer.Exit(BAD_INPUT if found else DONE)
    if data is None or output is None:
        raise ValueError("give the data set and -o FOLDER, or --check FOLDER")
    system = choice.system()
    rate = BASELINE_RATE if false_alarm_rate is None and set_point == "gamma" else false_alarm_rate
    with progress_bar() as progress:
        evaluation = bench.evaluate(
            data,
            system,
            networks.weights_of(system),
            only=machine or (),
            false_alarm_rate=rate,
            method=set_point,
            store=opt.open_store(store),
            progress=progress,
            **channels.settings(),
            **networks.settings(),
        )
    label = label or submission.LABEL
    found = submission.submit(output, evaluation, data, label, machine or ())
    if json:
        echo_json(_submitted(evaluation) | {"folder": output, "label": label, "findings": [str(f) for f in found]})
    else:
        _print_submitted(evaluation, output, label)
        _print_findings(found, output, data, json=False)
    raise typer.Exit(BAD_INPUT if found else DONE)


def _further_systems(names: Iterable[str], settings: Sequence[str]) -> dict[str, System | None]:
    """Systems to run beside those of the report, by a title that is not taken; the default system first."""
    from nearfar.challenge.pages import tables
    from nearfar.recipe import TABLE_3

    reported = (*TABLE_3, tables.FUSED)
    others: dict[str, System | None] = {"logmel": None}
    for name in dict.fromkeys(names):
        if name not in (*reported, *others):
            titles = Path(name).stem, Path(name).name, f"{Path(name).stem}-{len(others)}"
            others[next(t for t in titles if t not in (*reported, *others))] = opt.load_recipe(name, settings)
    return others


def _submitted(evaluation: Evaluation) -> dict[str, object]:
    return {
        "machines": {
            m.name: {
                "clips": len(m.scores),
                "anomalous": sum(s.score > s.threshold for s in m.scores),
                "set_point": m.detector.threshold.value,
            }
            for m in evaluation.machines
        }
    }


def _print_submitted(evaluation: Evaluation, folder: Path, label: str) -> None:
    echo_table(
        ["machine", "test clips", "called anomalous", "set-point", "labels"],
        [
            [
                m.name,
                str(len(m.scores)),
                str(sum(s.score > s.threshold for s in m.scores)),
                f"{m.detector.threshold.value:.2f}",
                "known" if m.labelled else "none",
            ]
            for m in evaluation.machines
        ],
    )
    point = evaluation.machines[0].detector.threshold
    echo(f"\nDecisions     score > set-point: {point.method}, {100 * point.rate:g} % of normal clips")
    for note in evaluation.notes:
        warn(f"note: {note}")
    for m in evaluation.machines:
        for file, error in m.failures:
            warn(f"{m.name}: {left_out(file, error)}")
    echo(f"Submission    {folder}, packed in {folder / label}.zip")
    echo(f"To fill in    name and authors in {folder / label}.meta.yaml; run the command again to pack them")


def _print_findings(found: list[Finding], folder: Path, data: Path | None, json: bool) -> None:
    if json:
        echo_json({"folder": folder, "data": data, "findings": [vars(f) for f in found], "ok": not found})
        return
    against = f"against {data}" if data else "by itself; give the data set to check that no row is missing"
    if found:
        echo(f"Checked {against}: {plural(len(found), 'thing')} to put right")
        for finding in found:
            echo(f"  {finding}")
    else:
        echo(f"Checked {against}: nothing to put right")
