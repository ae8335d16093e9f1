"""Commands that bring data in the challenge's form: demo, data pull."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from nearfar.cli.options import Json, Machines, RecipeName, system
from nearfar.cli.output import NO_PICTURES, has_matplotlib, say_evaluation
from nearfar.cli.terminal import complain, errors_for_people, progress_bar, say, say_json
from nearfar.support.files import atomic_write
from nearfar.support.progress import titled


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
    from nearfar.challenge.pages.report import bench_page
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
                progress=titled(tell, "recording the demo machines"),
            )
            evaluation = bench.evaluate(data, system(recipe), progress=tell)
            floor = None if recipe else bench.evaluate(data, "logmel-floor", rounds=1, progress=tell)
        for machine in evaluation.machines:
            machine.detector.save(folder / "models" / machine.name)
        page = None
        if has_matplotlib():
            page = atomic_write(folder / "report.html", bench_page(evaluation, f"nearfar demo, seed {seed}"))
        if json:
            say_json(evaluation.to_dict() | {"data": data, "report": page})
            return
        say_evaluation(evaluation)
        if floor is not None:
            say(f"Log-mel mean and standard deviation with a plain Gaussian, for comparison: {100 * floor.overall:.2f}")
        first = evaluation.machines[0]
        heard = max(first.scores, key=lambda s: s.score)
        worst = next(r for r, s in zip(first.recordings, first.scores, strict=True) if s is heard)
        say(f"\nReport page   {page or NO_PICTURES}")
        say(f"Data          {data}")
        say(f"Try           nearfar explain {quote(str(folder / 'models' / first.name))} {quote(str(worst.path))}")


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
    from nearfar.challenge.data import download as source

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
