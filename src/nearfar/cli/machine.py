"""Commands for a machine to watch: doctor, fit, score, explain, add, threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.options import (
    FalseAlarmRate,
    Far,
    Json,
    Manifest,
    Model,
    Near,
    Precision,
    Rate,
    RecipeName,
    StoreFolder,
    Threads,
    Weights,
    channel,
    encoders_of,
    normals_of,
    one_or_many,
    opened,
    system,
    weights_for,
)
from nearfar.cli.output import (
    NO_PICTURES,
    as_csv,
    as_row,
    has_matplotlib,
    say_choices,
    say_live,
    say_scores,
    say_set_point,
    say_summary,
    set_point,
    summary,
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
    say_words,
)
from nearfar.support.files import atomic_write
from nearfar.support.progress import titled

if TYPE_CHECKING:
    from nearfar.detector import Detector
    from nearfar.score import Score


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
    from nearfar.doctor import check_recordings

    with errors_for_people():
        with progress_bar() as tell:
            report = check_recordings(
                one_or_many(folder),
                near=near,
                far=channel(far),
                manifest=manifest,
                progress=titled(tell, "checking"),
            )
        if json:
            say_json(report.to_dict())
        else:
            say_words(str(report))
        raise typer.Exit(DONE if report.ok else BAD_INPUT)


def fit(
    folder: Annotated[list[Path], typer.Argument(help="Folder or files of normal recordings.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Detector folder to write.")],
    recipe: RecipeName = None,
    weights: Weights = None,
    near: Near = 0,
    far: Far = 1,
    manifest: Manifest = None,
    false_alarm_rate: FalseAlarmRate = None,
    store: StoreFolder = None,
    threads: Threads = None,
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Example: nearfar fit normals/ -o pump3

    Normal recordings in, a detector folder out.
    """
    from nearfar.audio.recordings import find
    from nearfar.detector import Detector
    from nearfar.detector.folder import check_place

    with errors_for_people():
        check_place(output)
        failures, wanted = Failures(), system(recipe)
        detector = Detector(
            wanted,
            weights_for(weights, encoders_of(wanted)),
            near=near,
            far=channel(far),
            false_alarm_rate=false_alarm_rate,
            threads=threads,
            precision=precision,
            store=opened(store),
        )
        recordings = normals_of(find(one_or_many(folder), manifest))
        with progress_bar() as tell:
            detector.fit(
                [r.path for r in recordings],
                [bool(r.is_target) for r in recordings],
                skip=failures,
                progress=titled(tell, "listening to the normals"),
                copies=False,
            )
        detector.save(output)
        facts = summary(detector) | {"model": str(output), "left_out": failures.to_list()}
        if json:
            say_json(facts)
        else:
            say_summary(facts)


def score(
    model: Model,
    files: Annotated[list[Path], typer.Argument(help="Folder or files.")],
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write one row per recording to this file.")] = None,
    fail_on_alarm: Annotated[
        bool, typer.Option("--fail-on-alarm", help="Exit 1 if any recording is anomalous or cannot be judged.")
    ] = False,
    weights: Weights = None,
    store: StoreFolder = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar score pump3 today/

    One row per recording: score, threshold, anomalous, nearest normal.
    """
    from nearfar.audio.recordings import find

    with errors_for_people():
        detector = _opened(model, weights, threads=threads, store=opened(store))
        recordings = find(one_or_many(files))
        failures = Failures()
        rows: list[tuple[str, Score]] = []
        with progress_bar() as tell:
            each = detector.iter_scores(
                [r.path for r in recordings],
                skip=failures,
                progress=titled(tell, "scoring"),
            )
            for recording, scores in zip(recordings, each, strict=True):
                rows += [(recording.name + s.name.removeprefix(recording.path.name), s) for s in scores]
        if json:
            say_json({"scores": [as_row(name, s) for name, s in rows], "failures": failures.to_list()})
        else:
            say_scores(rows, failures)
        if csv_file:
            atomic_write(csv_file, as_csv(rows))
        if fail_on_alarm and any(s.anomalous is not False for _, s in rows):
            raise typer.Exit(ALARM)
        raise typer.Exit(BAD_INPUT if failures.files else DONE)


def explain(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The recording to explain.")],
    page: Annotated[Path | None, typer.Option(help="HTML page to write [RECORDING.explained.html].")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG file to write.")] = None,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Example: nearfar explain pump3 today/0815.wav

    Where and why it differs, with a page to look at and listen to.
    """
    with errors_for_people():
        detector = _opened(model, weights)
        explanation = detector.explain(file)
        if json:
            say_json(explanation.to_dict())
        else:
            say_words("\n".join(explanation.lines()))
        if picture and explanation.clip:
            from nearfar.explain.pictures import spectrogram_png

            atomic_write(picture, spectrogram_png(explanation.clip, explanation))
        if page is None and not json and has_matplotlib():
            page = Path(f"{file.stem}.explained.html")
        if page:
            from nearfar.explain.pages import explanation_page

            atomic_write(page, explanation_page(explanation))
        if not json:
            say(f"\nPage          {page or NO_PICTURES}")


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
    from nearfar.audio.recordings import find
    from nearfar.detector.folder import check_place
    from nearfar.score import domain_shift_warning
    from nearfar.support.check import one_of

    with errors_for_people():
        one_of("domain", domain, ("source", "target"))
        check_place(model)
        detector = _opened(model, weights)
        before, failures = len(detector.normals), Failures()
        paths = [r.path for r in normals_of(find(one_or_many(folder)))]
        if note := domain_shift_warning(detector.score(paths[:: max(1, len(paths) // 10)], skip=lambda *_: None)):
            complain(f"note: {note}")
        with progress_bar() as tell:
            detector.add(paths, domain == "target", skip=failures, progress=titled(tell, "listening"))
        detector.save(model)
        facts = summary(detector) | {"model": str(model), "left_out": failures.to_list()}
        facts["added"] = len(detector.normals) - before
        if json:
            say_json(facts)
        else:
            say_summary(facts)


def threshold(
    model: Model,
    false_alarms_per_day: Annotated[
        float | None, typer.Option(help="Expected false alarms a day, heard all day.")
    ] = None,
    rate: Rate = None,
    value: Annotated[float | None, typer.Option(help="The set-point itself, by hand.")] = None,
    method: Annotated[str | None, typer.Option(help="conformal, gamma (the challenge's baseline) or quantile.")] = None,
    json: Json = False,
) -> None:
    """Example: nearfar threshold pump3 --false-alarms-per-day 1

    Show or change the set-point, without fitting again.
    """
    with errors_for_people():
        if sum(x is not None for x in (false_alarms_per_day, rate, value)) > 1:
            raise ValueError("give one of --false-alarms-per-day, --false-alarm-rate and --value")
        detector = _opened(model)
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
        say_live(detector)
        say()
        say_choices(choices, per_day, len(detector.normals))


def _opened(model: Path, weights: list[str] | None = None, **settings: Any) -> Detector:
    """The detector in a folder, with the weights that its networks need."""
    from nearfar.detector import load

    detector = load(model, **settings)
    detector.weights = weights_for(weights, (recipe.encoder for recipe in detector.recipes))
    return detector
