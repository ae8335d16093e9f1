"""Commands that make or download data in the challenge's layout: demo, data pull."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.cli.options import Json, Machines, RecipeChoice, command, group, subcommand
from nearfar.cli.output import NO_PICTURES, has_pictures, print_evaluation
from nearfar.cli.terminal import echo, echo_json, progress_bar, warn
from nearfar.support.files import atomic_write
from nearfar.support.progress import Progress, titled
from nearfar.support.words import quoted

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation, MachineEvaluation
    from nearfar.detector import Detector
    from nearfar.live.report.gather import PlantReport

DAY_S = 25 * 3600.0  # of the demo: from a day on it is known how often a machine is heard


@command
def demo(
    choice: RecipeChoice,
    folder: Annotated[Path, typer.Argument(help="Folder for data, detectors and report.")] = Path("nearfar-demo"),
    machine_count: Annotated[int, typer.Option("--machines", help="How many machines.")] = 3,
    train: Annotated[int, typer.Option(help="Normal recordings per machine.")] = 60,
    test: Annotated[int, typer.Option(help="Test recordings per machine, half of them faulty.")] = 40,
    seconds: Annotated[float, typer.Option(help="Length of a recording.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Seed of the machines and recordings.")] = 0,
    json: Json = False,
) -> None:
    """Example: nearfar demo

    Make a small two-microphone data set, fit, score and evaluate detectors, and write a report page. Nothing is
    downloaded.
    """
    from nearfar.challenge import evaluate as bench
    from nearfar.challenge.pages.report import bench_page
    from nearfar.demo import make_dataset

    with progress_bar() as progress:
        data = make_dataset(
            folder / "data",
            machines=machine_count,
            train=train,
            test=test,
            seconds=seconds,
            seed=seed,
            progress=titled(progress, "recording the demo machines"),
        )
        evaluation = bench.evaluate(data, choice.system(), progress=progress)
        floor = None if choice.recipe else bench.evaluate(data, "logmel-floor", rounds=1, progress=progress)
        detectors = {m.name: _detector_of(m, choice, folder, progress) for m in evaluation.machines}
    first = evaluation.machines[0]
    scored = zip(first.scores, first.recordings, strict=True)
    shown = max((r.is_anomaly, s.score, r.path) for s, r in scored)[-1]  # the fault that is heard best
    history = _a_day(evaluation, detectors, folder / "history")
    day = _report_of(history, detectors)
    page = None
    if has_pictures():
        from nearfar.explain.pictures import deviation_png
        from nearfar.live.report.pages import report_page

        researcher = folder / "researcher.html"
        atomic_write(researcher, bench_page(evaluation, f"nearfar demo, seed {seed}"))
        link = researcher.name, "The same detectors in figures for researchers"
        page = atomic_write(folder / "report.html", report_page(day, link=link))
        atomic_write(folder / "picture.png", deviation_png(detectors[first.name][1].explain(shown)))
    if json:
        echo_json(evaluation.to_dict() | {"data": data, "report": page})
        return
    print_evaluation(evaluation)
    if floor is not None:
        echo(f"Log-mel mean and standard deviation with a plain Gaussian, for comparison: {100 * floor.overall:.2f}")
    echo(f"\nA day of it   {day.summary}")
    echo(f"Report page   {page or NO_PICTURES}")
    echo(f"Data          {data}")
    models = [quoted(str(path)) for path, _ in detectors.values()]
    echo(f"Try           nearfar explain {models[0]} {quoted(str(shown))}")
    echo(f"In a browser  nearfar serve {' '.join(models)} --history {quoted(str(history))}")


def _detector_of(
    machine: MachineEvaluation, choice: RecipeChoice, folder: Path, progress: Progress
) -> tuple[Path, Detector]:
    """The detector that a plant would use: like the one that was evaluated, with a set-point for new sessions."""
    from nearfar.detector import Detector

    normals = machine.detector.normals
    detector = Detector(choice.system())
    found = titled(progress, f"{machine.name}: set-point for new sessions")
    detector.fit([n.path for n in normals], machine.detector.is_target, progress=found, copies=True)
    return detector.save(folder / "models" / machine.name), detector


def _a_day(evaluation: Evaluation, detectors: Mapping[str, tuple[Path, Detector]], folder: Path) -> Path:
    """A history of a day in which each machine is heard healthy, then with its faults, the plainest last; until now."""
    from nearfar.live.history.history import History
    from nearfar.live.setup.rehearsal import rehearse

    shutil.rmtree(folder, ignore_errors=True)
    recordings = {}
    for m in evaluation.machines:
        heard = zip(m.recordings, m.scores, strict=True)
        order = sorted(heard, key=lambda pair: (bool(pair[0].is_anomaly), pair[1].score * bool(pair[0].is_anomaly)))
        recordings[m.name] = [Path(r.path) for r, _ in order]
    with closing(History(folder)) as history:
        rehearse(history, detectors, recordings, until=time.time(), span_s=DAY_S)
    return folder


def _report_of(folder: Path, detectors: Mapping[str, tuple[Path, Detector]]) -> PlantReport:
    """The report of that day."""
    from nearfar.cli.report import expected_of
    from nearfar.live.history.history import History
    from nearfar.live.report.gather import SPANS, plant_report

    with closing(History(folder)) as history:
        expected = {name: expected_of(history, name, d, d.threshold.rate) for name, (_, d) in detectors.items()}
        return plant_report(history, time.time(), SPANS["day"], title="Demo plant", expected=expected)


data = group("nearfar data pull dcase2026-dev", "Data sets of the challenge.")


@subcommand(data, "pull")
def pull(
    name: Annotated[str, typer.Argument(help="dcase2026-dev, dcase2026-add, dcase2026-eval; also 2023 to 2025.")],
    machine: Machines = None,
    to: Annotated[Path, typer.Option(help="Folder for data sets.")] = Path("data"),
    mirror: Annotated[
        str | None, typer.Option(help="Download from MIRROR/zenodo.org/... instead of https://zenodo.org/...")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives after they are unpacked.")] = False,
    json: Json = False,
) -> None:
    """Example: nearfar data pull dcase2026-dev --machine fan

    Download a data set of the challenge from Zenodo, check it and unpack it; an interrupted download is resumed.
    dev is the development set; add and eval are the train and the test clips of the evaluation machines.
    """
    from nearfar.challenge.data import download as source

    mirrors = {"https://": mirror} if mirror else None
    found = source.listing(name, mirrors)
    chosen = [a for a in found.archives if not machine or a.machine in machine]
    (warn if json else echo)(f"{found.title}\nLicence       {found.licence}")
    (warn if json else echo)(
        f"Archives      {len(chosen)} of {len(found.archives)} machines, {sum(a.size for a in chosen) / 1e9:.2f} GB"
    )
    with progress_bar() as progress:
        folders = source.pull(found, to, machine or (), mirrors=mirrors, keep=keep, progress=progress)
    raw = Path(to) / found.record.raw
    if json:
        echo_json({"data": raw, "licence": found.licence, "machines": folders})
        return
    echo(f"Data          {raw}: {', '.join(folders)}")
    other = {"add": "eval", "eval": "add"}.get(found.record.part)
    if other:
        echo(f"Other part    nearfar data pull {name.rpartition('-')[0]}-{other} --to {quoted(str(to))}")
    echo(f"Next          nearfar evaluate {quoted(str(raw))}")
