"""Commands of the researcher's bench: evaluate, reproduce, submit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.cli.options import (
    Data,
    Far,
    Json,
    Machines,
    Near,
    Page,
    Precision,
    RecipeName,
    Rounds,
    StoreFolder,
    Threads,
    Truth,
    Weights,
    channel,
    encoders_of,
    opened,
    system,
    weights_for,
)
from nearfar.cli.output import as_csv, say_evaluation, say_reproduction
from nearfar.cli.terminal import (
    BAD_INPUT,
    DONE,
    complain,
    errors_for_people,
    left_out,
    progress_bar,
    say,
    say_json,
    say_table,
)
from nearfar.support.files import atomic_write
from nearfar.support.words import plural

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation
    from nearfar.challenge.submission import Finding
    from nearfar.recipe import System

BASELINE_RATE = 0.1  # the official baseline's gamma quantile of 0.9


def evaluate(
    data: Data,
    recipe: RecipeName = None,
    weights: Weights = None,
    truth: Truth = None,
    machine: Machines = None,
    near: Near = 0,
    far: Far = 1,
    rounds: Rounds = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    page: Page = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write every test clip's score to this file.")] = None,
    store: StoreFolder = None,
    threads: Threads = None,
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Example: nearfar evaluate data/ --recipe logmel

    The challenge's metrics per machine, with bootstrap intervals. Evaluation files without labels are scored; give
    their labels with --truth, or write the challenge's files with `nearfar submit`.
    """
    from nearfar.challenge import evaluate as bench

    with errors_for_people():
        wanted = system(recipe)
        with progress_bar() as tell:
            evaluation = bench.evaluate(
                data,
                wanted,
                weights_for(weights, encoders_of(wanted)),
                truth=truth,
                only=machine or (),
                near=near,
                far=channel(far),
                threads=threads,
                precision=precision,
                store=opened(store),
                rounds=rounds,
                seed=seed,
                progress=tell,
            )
        if json:
            say_json(evaluation.to_dict())
        else:
            say_evaluation(evaluation)
        if csv_file:
            atomic_write(csv_file, as_csv([(f"{m.name}/{s.name}", s) for m in evaluation.machines for s in m.scores]))
        if page:
            from nearfar.challenge.pages.report import bench_page

            atomic_write(page, bench_page(evaluation, f"nearfar evaluate {data}"))
        raise typer.Exit(BAD_INPUT if evaluation.failed else DONE)


def reproduce(
    data: Data,
    weights: Weights = None,
    store: StoreFolder = None,
    results: Annotated[Path, typer.Option(help="Folder to keep scores in; a second run goes on from there.")] = Path(
        "nearfar-results"
    ),
    recipe: Annotated[
        list[str] | None, typer.Option(help="A further recipe, by name or JSON file; may be repeated.")
    ] = None,
    truth: Truth = None,
    machine: Machines = None,
    near: Near = 0,
    far: Far = 1,
    page: Page = None,
    threads: Threads = None,
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Example: nearfar reproduce data/dcase2026t2/dev_data/raw

    Tables 3, 4 and 5 of the report, computed here and set beside its own numbers. Encoders without weights are left
    out and say why; the default without weights always runs.
    """
    from nearfar.challenge.data import layout
    from nearfar.challenge.evaluate import ScoreCache
    from nearfar.challenge.pages import tables
    from nearfar.recipe import TABLE_3

    with errors_for_people():
        found = layout.read(data, truth, machine or ())
        theirs = (*TABLE_3, tables.FUSED)  # those run in any case
        others: dict[str, System | None] = {"logmel": None}
        for name in dict.fromkeys(recipe or ()):
            if name not in (*theirs, *others):
                titles = Path(name).stem, Path(name).name, f"{Path(name).stem}-{len(others)}"
                others[next(t for t in titles if t not in (*theirs, *others))] = system(name)
        systems = {**TABLE_3, **others}.values()
        given = weights_for(weights, [name for each in systems for name in encoders_of(each)])
        with progress_bar() as tell:
            runs = ScoreCache(
                results,
                given,
                opened(store),
                near=near,
                far=channel(far),
                threads=threads,
                precision=precision,
                progress=tell,
            )
            done = tables.reproduce(found, runs, others)
        if page:
            from nearfar.challenge.pages.report import tables_page

            atomic_write(page, tables_page(done, f"nearfar reproduce {data}"))
        failed = any(run.failures for run in done.runs.values())
        if json:
            say_json(done.to_dict())
        else:
            say_reproduction(done)
        raise typer.Exit(BAD_INPUT if failed else DONE)


def submit(
    data: Annotated[
        Path | None, typer.Argument(help="The data set; with --check, the files that must have rows.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the submission.")] = None,
    recipe: RecipeName = None,
    weights: Weights = None,
    check: Annotated[Path | None, typer.Option(help="Check this folder of CSV files instead of writing one.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of the submission: Lastname_Institute_task2_1.")] = None,
    set_point: Annotated[
        str, typer.Option(help="gamma (as the official baseline), conformal (nearfar's own) or quantile.")
    ] = "gamma",
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of normal clips that may be called anomalous [gamma: 0.1, else 0.05].")
    ] = None,
    machine: Machines = None,
    near: Near = 0,
    far: Far = 1,
    threads: Threads = None,
    precision: Precision = "float32",
    store: StoreFolder = None,
    json: Json = False,
) -> None:
    """Example: nearfar submit eval_data/raw --recipe eat-large -o out/

    Scores, decisions and metadata as the challenge wants them, checked and packed. Check any folder of CSV files:
    nearfar submit --check out/ eval_data/raw
    """
    from nearfar.challenge import evaluate as bench
    from nearfar.challenge import submission

    with errors_for_people():
        if check is not None:
            if output is not None or recipe is not None:
                raise ValueError("--check reads a submission; give it without --recipe and -o")
            found = submission.check(check, data, only=machine)
            _say_findings(found, check, data, json)
            raise typer.Exit(BAD_INPUT if found else DONE)
        if data is None or output is None:
            raise ValueError("give the data set and -o FOLDER, or --check FOLDER")
        wanted = system(recipe)
        rate = BASELINE_RATE if false_alarm_rate is None and set_point == "gamma" else false_alarm_rate
        with progress_bar() as tell:
            evaluation = bench.evaluate(
                data,
                wanted,
                weights_for(weights, encoders_of(wanted)),
                only=machine or (),
                near=near,
                far=channel(far),
                false_alarm_rate=rate,
                method=set_point,
                threads=threads,
                precision=precision,
                store=opened(store),
                progress=tell,
            )
        label = label or submission.LABEL
        found = submission.submit(output, evaluation, data, label, machine or ())
        if json:
            say_json(_submitted(evaluation) | {"folder": output, "label": label, "findings": [str(f) for f in found]})
        else:
            _say_submitted(evaluation, output, label)
            _say_findings(found, output, data, json=False)
        raise typer.Exit(BAD_INPUT if found else DONE)


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


def _say_submitted(evaluation: Evaluation, folder: Path, label: str) -> None:
    say_table(
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
    say(f"\nDecisions     score > set-point: {point.method}, {100 * point.rate:g} % of normal clips")
    for note in evaluation.notes:
        complain(f"note: {note}")
    for m in evaluation.machines:
        for file, error in m.failures:
            complain(f"{m.name}: {left_out(file, error)}")
    say(f"Submission    {folder}, packed in {folder / label}.zip")
    say(f"To fill in    name and authors in {folder / label}.meta.yaml; a second run packs what stands there")


def _say_findings(found: list[Finding], folder: Path, data: Path | None, json: bool) -> None:
    if json:
        say_json({"folder": folder, "data": data, "findings": [vars(f) for f in found], "ok": not found})
        return
    against = f"against {data}" if data else "by itself; give the data set to check that no row is missing"
    if found:
        say(f"Checked {against}: {plural(len(found), 'thing')} to put right")
        for finding in found:
            say(f"  {finding}")
    else:
        say(f"Checked {against}: nothing to put right")
