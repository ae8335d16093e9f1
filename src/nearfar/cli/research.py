"""Commands for a data set in the challenge's form: demo, evaluate."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from nearfar.atomic import write
from nearfar.cli.options import (
    Far,
    Json,
    Machines,
    Near,
    Precision,
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
)
from nearfar.cli.results import NO_PICTURES, as_csv, has_matplotlib, say_evaluation
from nearfar.cli.terminal import BAD_INPUT, DONE, errors_for_people, progress_bar, say, say_json


def demo(
    folder: Annotated[Path, typer.Argument(help="Where data, detectors and report go.")] = Path("nearfar-demo"),
    machine_count: Annotated[int, typer.Option("--machines", help="How many machines.")] = 3,
    train: Annotated[int, typer.Option(help="Normal recordings per machine.")] = 60,
    test: Annotated[int, typer.Option(help="Test recordings per machine, half of them faulty.")] = 40,
    seconds: Annotated[float, typer.Option(help="Length of a recording.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Another seed, another factory.")] = 0,
    recipe: RecipeName = None,
    json: Json = False,
) -> None:
    """Example: nearfar demo

    Make a small factory, fit, score, evaluate, and write a report page. No download, no weights.
    """
    from nearfar.challenge import evaluate as bench
    from nearfar.challenge.report import bench_page
    from nearfar.demo import make_dataset

    with errors_for_people():
        with progress_bar() as tell:
            data = make_dataset(
                folder / "data",
                machines=machine_count,
                train=train,
                test=test,
                seconds=seconds,
                seed=seed,
                progress=lambda done, total: tell("recording the demo machines", done, total),
            )
            evaluation = bench.evaluate(data, system(recipe), progress=tell)
            floor = None if recipe else bench.evaluate(data, "logmel-floor", rounds=1, progress=tell)
        for machine in evaluation.machines:
            machine.detector.save(folder / "models" / machine.name)
        page = None
        if has_matplotlib():
            page = write(folder / "report.html", bench_page(evaluation, f"nearfar demo, seed {seed}"))
        if json:
            say_json(evaluation.to_dict() | {"data": data, "report": page})
            return
        say_evaluation(evaluation)
        if floor is not None:
            say(f"Log-mel mean and standard deviation with a plain Gaussian, for comparison: {100 * floor.overall:.2f}")
        first = evaluation.machines[0]
        heard = max(first.scores, key=lambda s: s.value)
        worst = next(r for r, s in zip(first.recordings, first.scores, strict=True) if s is heard)
        say(f"\nReport page   {page or NO_PICTURES}")
        say(f"Data          {data}")
        say(f"Try           nearfar explain {quote(str(folder / 'models' / first.name))} {quote(str(worst.path))}")


def evaluate(
    data: Annotated[Path, typer.Argument(help="DATA/<machine>/{train,test}, or a parent in the challenge's layout.")],
    recipe: RecipeName = None,
    weights: Weights = None,
    truth: Truth = None,
    machine: Machines = None,
    near: Near = 0,
    far: Far = 1,
    rounds: Annotated[int, typer.Option(help="Bootstrap rounds of the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    page: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
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
            write(csv_file, as_csv([(f"{m.name}/{s.name}", s) for m in evaluation.machines for s in m.scores]))
        if page:
            from nearfar.challenge.report import bench_page

            write(page, bench_page(evaluation, f"nearfar evaluate {data}"))
        raise typer.Exit(BAD_INPUT if evaluation.failed else DONE)
