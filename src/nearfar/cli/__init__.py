"""The command line: every command is one call of the library, with its results as text, table, CSV or JSON.

Exit codes: 0 done, 1 `--fail-on-alarm` hit, 2 bad usage or a recording that could not be used.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.results import (
    as_csv,
    as_row,
    has_matplotlib,
    say_evaluation,
    say_scores,
    say_set_point,
    say_summary,
    set_point,
    summary,
    write,
    write_report,
)
from nearfar.cli.terminal import (
    ALARM,
    BAD_INPUT,
    DONE,
    Failures,
    complain,
    errors_for_people,
    progress_bar,
    say,
    say_json,
    say_table,
)

if TYPE_CHECKING:
    from nearfar.detector import Score
    from nearfar.recipe import System

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Hears when a machine sounds wrong, having only ever heard it sound right.",
)

Near = Annotated[int, typer.Option(help="Channel of the near microphone, counted from 0.")]
Far = Annotated[int, typer.Option(help="Channel of the far microphone; -1 if there is none.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Manifest = Annotated[
    Path | None, typer.Option(help="CSV with columns file, domain, label, machine (all but file optional).")
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="A recipe's name or JSON file; without it, the default.")
]
Weights = Annotated[Path | None, typer.Option(help="Weights file of the recipe's encoder.")]
Threads = Annotated[int | None, typer.Option(help="Recordings heard side by side; as many as there are processors.")]
Model = Annotated[Path, typer.Argument(help="Detector folder, as `nearfar fit` made it.")]


@app.callback()
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from nearfar import __version__

        say(f"nearfar {__version__}")
        raise typer.Exit(DONE)


@app.command(short_help="Make a small factory, fit, score, evaluate, and write a report page.")
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
    from nearfar.challenge.evaluate import evaluate
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
            evaluation = evaluate(data, _system(recipe), progress=tell)
            floor = None if recipe else evaluate(data, "logmel-floor", rounds=1, progress=tell)
        for machine in evaluation.machines:
            machine.detector.save(folder / "models" / machine.name)
        page = write_report(evaluation, folder / "report.html", f"nearfar demo, seed {seed}")
        if json:
            say_json(evaluation.to_dict() | {"data": data, "report": page})
            return
        say_evaluation(evaluation)
        if floor is not None:
            say(f"Log-mel mean and standard deviation with a plain Gaussian, for comparison: {100 * floor.overall:.2f}")
        first = evaluation.machines[0]
        heard = max(first.scores, key=lambda s: s.value)
        worst = next(r for r, s in zip(first.recordings, first.scores, strict=True) if s is heard)
        say(f"\nReport page   {page or 'needs matplotlib: pip install nearfar[pictures]'}")
        say(f"Data          {data}")
        say(f"Try           nearfar explain {folder / 'models' / first.name} {worst.path}")


@app.command(short_help="Check recordings before anything is fitted.")
def doctor(
    folder: Annotated[list[Path], typer.Argument(help="Folder or files.")],
    near: Near = 0,
    far: Far = 1,
    manifest: Manifest = None,
    json: Json = False,
) -> None:
    """Example: nearfar doctor normals/

    Check recordings before anything is fitted.
    """
    from nearfar.doctor import examine

    with errors_for_people():
        with progress_bar() as tell:
            report = examine(
                _one_or_many(folder),
                near=near,
                far=_channel(far),
                manifest=manifest,
                progress=lambda done, total: tell("examining", done, total),
            )
        if json:
            say_json(report.to_dict())
        else:
            for line in report.lines():
                say(line)
        raise typer.Exit(DONE if report.ok else BAD_INPUT)


@app.command(short_help="Normal recordings in, a detector folder out.")
def fit(
    folder: Annotated[list[Path], typer.Argument(help="Folder or files of normal recordings.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Detector folder to write.")],
    recipe: RecipeName = None,
    weights: Weights = None,
    near: Near = 0,
    far: Far = 1,
    manifest: Manifest = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Share of healthy recordings that may alarm.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar fit normals/ -o pump3

    Normal recordings in, a detector folder out.
    """
    from nearfar.detector import Detector
    from nearfar.recordings import find

    with errors_for_people():
        failures = Failures()
        detector = Detector(
            _system(recipe), weights, near=near, far=_channel(far), false_alarm_rate=false_alarm_rate, threads=threads
        )
        recordings, notes = _normals_of(find(_one_or_many(folder), manifest))
        for note in notes:
            complain(f"note: {note}")
        with progress_bar() as tell:
            detector.fit(
                [r.path for r in recordings],
                [bool(r.is_target) for r in recordings] if any(r.is_target for r in recordings) else None,
                skip=failures,
                progress=lambda done, total: tell("listening to the normals", done, total),
            )
        detector.save(output)
        facts = summary(detector) | {"model": str(output), "left_out": failures.to_list()}
        if json:
            say_json(facts)
        else:
            say_summary(facts)


@app.command(short_help="Score recordings: one row each.")
def score(
    model: Model,
    files: Annotated[list[Path], typer.Argument(help="Folder or files.")],
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write one row per recording to this file.")] = None,
    fail_on_alarm: Annotated[
        bool, typer.Option("--fail-on-alarm", help="Exit 1 if any recording is anomalous or cannot be judged.")
    ] = False,
    weights: Weights = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar score pump3 today/

    One row per recording: score, threshold, anomalous, nearest normal.
    """
    from nearfar.detector import load
    from nearfar.recordings import find

    with errors_for_people():
        detector = load(model, weights, threads=threads)
        recordings = find(_one_or_many(files))
        failures = Failures()
        rows: list[tuple[str, Score]] = []
        with progress_bar() as tell:
            each = detector.each(
                [r.path for r in recordings],
                skip=failures,
                progress=lambda done, total: tell("scoring", done, total),
            )
            for recording, scores in zip(recordings, each, strict=True):
                rows += [(recording.name + s.name.removeprefix(recording.path.name), s) for s in scores]
        if csv_file:
            write(csv_file, as_csv(rows))
        if json:
            say_json({"scores": [as_row(name, s) for name, s in rows], "failures": failures.to_list()})
        else:
            say_scores(rows, failures, csv_file)
        if fail_on_alarm and any(s.anomalous is not False for _, s in rows):
            raise typer.Exit(ALARM)
        raise typer.Exit(BAD_INPUT if failures.files else DONE)


@app.command(short_help="Where and why a recording differs.")
def explain(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The recording to explain.")],
    page: Annotated[Path | None, typer.Option(help="HTML page to write; beside the working folder by default.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG file to write.")] = None,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Example: nearfar explain pump3 today/0815.wav

    Where and why it differs, with a page to look at and listen to.
    """
    from nearfar.detector import load

    with errors_for_people():
        detector = load(model, weights)
        explanation = detector.explain(file)
        if picture and explanation.clip:
            from nearfar.explain.pictures import spectrogram_png

            write(picture, spectrogram_png(explanation.clip, explanation))
        if page is None and not json and has_matplotlib():
            page = Path(f"{file.stem}.explained.html")
        if page:
            from nearfar.explain.pages import explanation_page

            write(page, explanation_page(explanation))
        if json:
            say_json(explanation.to_dict())
            return
        for line in explanation.lines():
            say(line)
        say()
        say(f"Page          {page}" if page else "Page          needs matplotlib: pip install 'nearfar[pictures]'")


@app.command(short_help="More normals into the bank.")
def add(
    model: Model,
    folder: Annotated[list[Path], typer.Argument(help="Folder or files of further normal recordings.")],
    domain: Annotated[
        str, typer.Option(help="source: as before; target: another way to run, another place.")
    ] = "source",
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Example: nearfar add pump3 night-shift/ --domain target

    More normals into the bank, without fitting the others again.
    """
    from nearfar.check import one_of
    from nearfar.detector import load
    from nearfar.recordings import find

    with errors_for_people():
        one_of("domain", domain, ("source", "target"))
        detector = load(model, weights)
        before, failures = len(detector.normals), Failures()
        recordings, notes = _normals_of(find(_one_or_many(folder)))
        for note in notes:
            complain(f"note: {note}")
        with progress_bar() as tell:
            detector.add(
                [r.path for r in recordings],
                domain == "target",
                skip=failures,
                progress=lambda done, total: tell("listening", done, total),
            )
        detector.save(model)
        facts = summary(detector) | {
            "model": str(model),
            "added": len(detector.normals) - before,
            "left_out": failures.to_list(),
        }
        if json:
            say_json(facts)
        else:
            say_summary(facts)


@app.command(short_help="Show or change the set-point.")
def threshold(
    model: Model,
    false_alarms_per_day: Annotated[
        float | None, typer.Option(help="Expected false alarms a day, heard all day.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Share of healthy recordings that may alarm.")] = None,
    value: Annotated[float | None, typer.Option(help="The set-point itself, by hand.")] = None,
    method: Annotated[str | None, typer.Option(help="conformal, gamma (the challenge's baseline) or quantile.")] = None,
    json: Json = False,
) -> None:
    """Example: nearfar threshold pump3 --false-alarms-per-day 1

    Show or change the set-point, without fitting again.
    """
    from nearfar.detector import load

    with errors_for_people():
        if sum(x is not None for x in (false_alarms_per_day, rate, value)) > 1:
            raise ValueError("give one of --false-alarms-per-day, --rate and --value")
        detector = load(model)
        changed = any(x is not None for x in (false_alarms_per_day, rate, value, method))
        if changed:
            detector.set_threshold(rate=rate, false_alarms_per_day=false_alarms_per_day, value=value, method=method)
            detector.save(model)
        choices = [(r, detector.tail.score_at(r)) for r in (0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)]
        per_day = 86_400 / detector.window_s
        if json:
            table = [{"rate": r, "false_alarms_per_day": r * per_day, "value": v} for r, v in choices]
            say_json(set_point(detector) | {"choices": table})
            return
        say_set_point(set_point(detector), "Set-point changed" if changed else "Set-point")
        say()
        backed = 1 / (len(detector.normals) + 1)
        say_table(
            ["one false alarm in", "a day, heard all day", "set-point", ""],
            [
                [
                    f"{1 / r:.0f} recordings",
                    f"{r * per_day:.4g}",
                    f"{v:.2f}",
                    "" if r >= backed else "beyond the normals",
                ]
                for r, v in choices
            ],
        )


@app.command(name="evaluate", short_help="The challenge's metrics, per machine and overall.")
def evaluate_command(
    data: Annotated[Path, typer.Argument(help="DATA/<machine>/{train,test}, or a parent in the challenge's layout.")],
    recipe: RecipeName = None,
    weights: Weights = None,
    machine: Annotated[list[str] | None, typer.Option(help="Only this machine; may be repeated.")] = None,
    near: Near = 0,
    far: Far = 1,
    rounds: Annotated[int, typer.Option(help="Bootstrap rounds of the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    page: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write every test clip's score to this file.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar evaluate data/ --recipe logmel

    The challenge's metrics per machine, with bootstrap intervals.
    """
    from nearfar.challenge.evaluate import evaluate

    with errors_for_people():
        with progress_bar() as tell:
            evaluation = evaluate(
                data,
                _system(recipe),
                weights,
                only=machine or (),
                near=near,
                far=_channel(far),
                threads=threads,
                rounds=rounds,
                seed=seed,
                progress=tell,
            )
        if page:
            write_report(evaluation, page, f"nearfar evaluate {data}")
        if csv_file:
            write(csv_file, as_csv([(f"{m.name}/{s.name}", s) for m in evaluation.machines for s in m.scores]))
        if json:
            say_json(evaluation.to_dict())
        else:
            say_evaluation(evaluation)
        raise typer.Exit(BAD_INPUT if any(m.failures for m in evaluation.machines) else DONE)


def main() -> None:
    """The `nearfar` command."""
    try:
        app()
    except BrokenPipeError:  # the reader of our output has left: not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- what the commands share


def _system(recipe: str | None) -> System | None:
    """A system by its name or from a JSON file; None is the default that the normals decide."""
    from nearfar.recipe import by_name, from_json

    if recipe is None:
        return None
    if recipe.endswith(".json") or Path(recipe).is_file():
        return from_json(Path(recipe).read_text(encoding="utf-8"))
    return by_name(recipe)


def _channel(far: int) -> int | None:
    return None if far < 0 else far


def _one_or_many(paths: list[Path]) -> Any:
    return paths[0] if len(paths) == 1 else paths


def _normals_of(recordings: list[Any]) -> tuple[list[Any], list[str]]:
    """The recordings to fit on: the train split if there is one, without those that their own names call anomalous."""
    notes = []
    train = [r for r in recordings if r.split == "train"]
    if train and len(train) < len(recordings):
        notes.append(
            f"fitting on the {len(train)} train recordings alone, not on the {len(recordings) - len(train)} others"
        )
        recordings = train
    machines = sorted({r.machine for r in recordings if r.machine})
    if len(machines) > 1:
        raise ValueError(f"these are recordings of {len(machines)} machines ({', '.join(machines)}): fit one at a time")
    faulty = [r for r in recordings if r.is_anomaly]
    if faulty:
        notes.append(f"{len(faulty)} recordings are named or listed as anomalous, {faulty[0].name} first: left out")
    return [r for r in recordings if not r.is_anomaly], notes
