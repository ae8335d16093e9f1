"""Commands of the researcher's bench: submit, reproduce, data."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.atomic import write
from nearfar.cli.options import (
    Far,
    Json,
    Machines,
    Near,
    RecipeName,
    StoreFolder,
    Threads,
    Truth,
    Weights,
    channel,
    encoders_of,
    opened,
    system,
    weights_for,
    weights_of,
)
from nearfar.cli.results import say_reproduction
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
from nearfar.words import counted

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation
    from nearfar.challenge.validate import Finding
    from nearfar.recipe import System

BASELINE_RATE = 0.1  # the official baseline's gamma quantile of 0.9


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
    store: StoreFolder = None,
    json: Json = False,
) -> None:
    """Example: nearfar submit eval_data/raw --recipe eat-large -o out/

    Scores, decisions and metadata as the challenge wants them, checked and packed. Check any folder of CSV files:
    nearfar submit --check out/ eval_data/raw
    """
    from nearfar.challenge import evaluate as bench
    from nearfar.challenge import submission, validate

    with errors_for_people():
        if check is not None:
            if output is not None or recipe is not None:
                raise ValueError("--check reads a submission; give it without --recipe and -o")
            found = validate.check(check, data, only=machine)
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
                "anomalous": sum(s.value > s.threshold for s in m.scores),
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
                str(sum(s.value > s.threshold for s in m.scores)),
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
        say(f"Checked {against}: {counted(len(found), 'thing')} to put right")
        for finding in found:
            say(f"  {finding}")
    else:
        say(f"Checked {against}: nothing to put right")


def reproduce(
    data: Annotated[Path, typer.Argument(help="The development set, or any other in the challenge's layout.")],
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
    page: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar reproduce data/dcase2026t2/dev_data/raw

    Tables 3, 4 and 5 of the report, computed here and set beside its own numbers. Encoders without weights are left
    out and say why; the default without weights always runs.
    """
    from nearfar.challenge import layout, tables
    from nearfar.challenge.scored import Runs
    from nearfar.recipe import TABLE_3

    with errors_for_people():
        found = layout.read(data, truth, machine or ())
        theirs = (*TABLE_3, tables.FUSED)  # those run in any case
        others: dict[str, System | None] = {"logmel": None}
        for name in dict.fromkeys(recipe or ()):
            if name not in (*theirs, *others):
                titles = Path(name).stem, Path(name).name, f"{Path(name).stem}-{len(others)}"
                others[next(t for t in titles if t not in (*theirs, *others))] = system(name)
        with progress_bar() as tell:
            runs = Runs(
                results,
                weights_of(weights),
                opened(store),
                near=near,
                far=channel(far),
                threads=threads,
                progress=tell,
            )
            done = tables.reproduce(found, runs, others)
        if page:
            from nearfar.challenge.report import tables_page

            write(page, tables_page(done, f"nearfar reproduce {data}"))
        failed = any(run.failures for run in done.runs.values())
        if json:
            say_json(done.to_dict())
        else:
            say_reproduction(done)
        raise typer.Exit(BAD_INPUT if failed else DONE)


data = typer.Typer(
    no_args_is_help=True,
    help="Example: nearfar data pull dcase2026-dev\n\nData sets of the challenge.",
    short_help="Data sets of the challenge.",
    rich_markup_mode=None,
)


@data.command("pull", short_help="Fetch a data set of the challenge from Zenodo.")
def pull(
    name: Annotated[str, typer.Argument(help="dcase2026-dev, dcase2026-add, dcase2026-eval; also 2023 to 2025.")],
    machine: Machines = None,
    to: Annotated[Path, typer.Option(help="Folder for data sets.")] = Path("data"),
    mirror: Annotated[
        str | None, typer.Option(help="Ask MIRROR/zenodo.org/... instead of https://zenodo.org/...")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives after they are unpacked.")] = False,
    json: Json = False,
) -> None:
    """Example: nearfar data pull dcase2026-dev --machine fan

    Fetch a data set of the challenge from Zenodo: checked, resumed where it was broken off, unpacked.
    dev is the development set; add and eval are the train and the test clips of the evaluation machines.
    """
    from nearfar.challenge import pull as source

    with errors_for_people():
        mirrors = {"https://": mirror} if mirror else None
        found = source.listing(name, mirrors)
        chosen = [a for a in found.archives if not machine or a.machine in machine]
        (complain if json else say)(f"{found.title}\nLicence       {found.licence}")
        (complain if json else say)(
            f"Archives      {len(chosen)} of {len(found.archives)} machines, {sum(a.size for a in chosen) / 1e9:.2f} GB"
        )
        with progress_bar() as tell:
            folders = source.pull(found, to, machine or (), mirrors=mirrors, keep=keep, progress=tell)
        raw = Path(to) / found.record.raw
        if json:
            say_json({"data": raw, "licence": found.licence, "machines": folders})
            return
        say(f"Data          {raw}: {', '.join(folders)}")
        other = {"add": "eval", "eval": "add"}.get(found.record.part)
        if other:
            say(f"The rest      nearfar data pull {name.rpartition('-')[0]}-{other} --to {quote(str(to))}")
        say(f"Next          nearfar evaluate {quote(str(raw))}")
