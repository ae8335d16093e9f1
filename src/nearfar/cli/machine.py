"""Commands for one machine: doctor, fit, score, explain, add, threshold."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli import options as opt
from nearfar.cli import output as results
from nearfar.cli.history import machine_of, open_history
from nearfar.cli.terminal import ALARM, BAD_INPUT, DONE, Failures, echo, echo_json, echo_wrapped, progress_bar, warn
from nearfar.support.files import atomic_write
from nearfar.support.progress import titled
from nearfar.support.words import shown

if TYPE_CHECKING:
    from nearfar.detector import Detector
    from nearfar.score import Score

Recordings = Annotated[list[Path], typer.Argument(help="Folder or files.")]
SHARES = (0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)  # of healthy recordings that alarm, in the table of `threshold`


@opt.command
def doctor(folder: Recordings, channels: opt.Channels, manifest: opt.Manifest = None, json: opt.Json = False) -> None:
    """Example: nearfar doctor normals/

    Check recordings before a detector is fitted on them.
    """
    from nearfar.doctor import check_recordings

    with progress_bar() as progress:
        report = check_recordings(
            opt.one_or_many(folder), manifest=manifest, progress=titled(progress, "checking"), **channels.settings()
        )
    if json:
        echo_json(report.to_dict())
    else:
        echo_wrapped(str(report))
    raise typer.Exit(DONE if report.ok else BAD_INPUT)


@opt.command
def fit(
    folder: Annotated[list[Path], typer.Argument(help="Folder or files of normal recordings.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Detector folder to write.")],
    channels: opt.Channels,
    networks: opt.Networks,
    choice: opt.RecipeChoice,
    manifest: opt.Manifest = None,
    false_alarm_rate: opt.FalseAlarmRate = None,
    calibration: opt.Calibration = "groups",
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="FILE", help="Leave this recording out; may be repeated.")
    ] = None,
    store: opt.StoreFolder = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a detector that is there; it is kept beside the new one.")
    ] = False,
    json: opt.Json = False,
) -> None:
    """Example: nearfar fit normals/ -o pump3

    Fit a detector on normal recordings and write its folder.
    """
    from nearfar.audio.recordings import find, leave_out
    from nearfar.detector import Detector
    from nearfar.detector.folder import check_place, keep_old

    replaces = check_place(output).is_dir() and any(output.iterdir())
    if replaces and not force:
        raise FileExistsError(
            f"{output} holds a detector already: name another folder, or give --force, which keeps the old beside it"
        )
    failures, system = Failures(), choice.system()
    detector = Detector(
        system,
        networks.weights_of(system),
        false_alarm_rate=false_alarm_rate,
        calibration=calibration,
        store=opt.open_store(store),
        **channels.settings(),
        **networks.settings(),
    )
    recordings = leave_out(opt.normals_of(find(opt.one_or_many(folder), manifest)), without or [])
    with progress_bar() as progress:
        detector.fit(
            [r.path for r in recordings],
            [bool(r.is_target) for r in recordings],
            skip=failures,
            progress=titled(progress, "listening to the normals"),
        )
    if replaces:
        warn(f"note: the detector that was there is kept as {keep_old(output)}")
    detector.save(output)
    _print_fitted(detector, output, failures, json)


@opt.command
def score(
    model: opt.Model,
    files: Recordings,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write one row per recording to this file.", callback=opt.spare)
    ] = None,
    fail_on_alarm: Annotated[
        bool, typer.Option("--fail-on-alarm", help="Exit 1 if any recording is anomalous or cannot be judged.")
    ] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="One row per window of a long recording, not its worst window alone.")
    ] = False,
    weights: opt.Weights = None,
    store: opt.StoreFolder = None,
    threads: opt.Threads = None,
    device: opt.Device = "cpu",
    json: opt.Json = False,
) -> None:
    """Example: nearfar score pump3 today/

    Print one row per recording: score, threshold, verdict (normal, unusual: rare even for a session like those of the
    normals, or ANOMALOUS: rare in a new session, too), nearest normal recording. A recording that is more
    than 1.5 times as long as the normals is heard in windows of their length, and its row is that of its worst window.
    """
    from nearfar.audio.recordings import find
    from nearfar.score import worst_window

    detector = _load(model, weights, threads=threads, device=device, store=opt.open_store(store))
    recordings = find(opt.one_or_many(files))
    failures = Failures()
    rows: list[tuple[str, Score]] = []
    with progress_bar() as progress:
        each = detector.iter_scores([r.path for r in recordings], skip=failures, progress=titled(progress, "scoring"))
        for recording, scores in zip(recordings, each, strict=True):
            if windows:
                rows += [(recording.name + s.name.removeprefix(shown(recording.path.name)), s) for s in scores]
            elif scores:
                rows.append((recording.name, worst_window(scores, recording.name)))
    if json:
        echo_json({"scores": [results.as_row(name, s) for name, s in rows], "failures": failures.to_list()})
    else:
        results.print_scores(rows, failures, str(model))
    if csv_file:
        atomic_write(csv_file, results.as_csv(rows))
    if fail_on_alarm and any(s.anomalous is not False for _, s in rows):
        raise typer.Exit(ALARM)
    raise typer.Exit(BAD_INPUT if failures.files else DONE)


@opt.command
def explain(
    model: opt.Model,
    file: Annotated[Path, typer.Argument(help="The recording to explain.")],
    page: Annotated[
        Path | None, typer.Option(help="HTML page to write [RECORDING.explained.html].", callback=opt.spare)
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG file to write.", callback=opt.spare)] = None,
    weights: opt.Weights = None,
    device: opt.Device = "cpu",
    json: opt.Json = False,
) -> None:
    """Example: nearfar explain pump3 today/0815.wav

    Show where and why a recording differs from the normals, with a page to look at and listen to.
    """
    explanation = _load(model, weights, device=device).explain(file)
    if json:
        echo_json(explanation.to_dict())
    else:
        echo_wrapped("\n".join(explanation.lines()))
    if picture and explanation.clip:
        from nearfar.explain.pictures import spectrogram_png

        atomic_write(picture, spectrogram_png(explanation.clip, explanation))
    if page is None and not json and results.has_pictures():
        page = Path(f"{file.stem}.explained.html")
    if page:
        from nearfar.explain.pages import explanation_page

        atomic_write(page, explanation_page(explanation))
    if not json:
        echo(f"\nPage          {page or results.NO_PICTURES}")


@opt.command
def add(
    model: opt.Model,
    folder: Annotated[list[Path], typer.Argument(help="Folder or files of further normal recordings.")],
    domain: Annotated[
        str, typer.Option(help="source: conditions as before; target: another operating point or place.")
    ] = "source",
    keep: Annotated[
        int | None,
        typer.Option(help="Most normals that stay: all of the target domain, and of the source those that cover it."),
    ] = None,
    weights: opt.Weights = None,
    device: opt.Device = "cpu",
    json: opt.Json = False,
) -> None:
    """Example: nearfar add pump3 night-shift/ --domain target

    Add normal recordings to a detector, without reading the earlier ones again.
    """
    from nearfar.audio.recordings import find
    from nearfar.detector.folder import check_place
    from nearfar.support.check import one_of

    one_of("domain", domain, ("source", "target"))
    check_place(model)
    detector = _load(model, weights, device=device)
    before, failures = len(detector.normals), Failures()
    points = {key: results.set_point(detector)[key] for _, key in results.LAMPS}
    paths = [r.path for r in opt.normals_of(find(opt.one_or_many(folder)))]
    with progress_bar() as progress:
        detector.add(paths, domain == "target", skip=failures, progress=titled(progress, "listening"), keep=keep)
    detector.save(model)
    _print_fitted(detector, model, failures, json, added=len(detector.normals) - before, before=points)


@opt.command
def threshold(
    model: opt.Model,
    false_alarms_per_day: Annotated[
        float | None, typer.Option(help="False alarms per day that are allowed, at the machine's own rhythm.")
    ] = None,
    rate: opt.Rate = None,
    value: Annotated[float | None, typer.Option(help="The set-point itself, as a score.")] = None,
    method: Annotated[str | None, typer.Option(help="conformal, gamma (the challenge's baseline) or quantile.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="Folder of a history: gives the rhythm, and the price of a change.")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="The machine in the history [the only one].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be.")] = False,
    json: opt.Json = False,
) -> None:
    """Example: nearfar threshold pump3 --false-alarms-per-day 1 --history pump3-history

    Show or change the set-point of a detector, without fitting it again.
    """
    from nearfar.live.rules.price import price_of
    from nearfar.live.rules.rhythm import all_day

    if sum(x is not None for x in (false_alarms_per_day, rate, value)) > 1:
        raise ValueError("give one of --false-alarms-per-day, --false-alarm-rate and --value")
    detector = _load(model)
    changed = any(x is not None for x in (false_alarms_per_day, rate, value, method))
    with open_history(history) if history else nullcontext() as records:
        rhythm, price = all_day(detector.window_s), None
        if records:
            machine = machine_of(records, machine or "", model.resolve().name)
            rhythm = records.rhythm(machine, detector.window_s)
        if false_alarms_per_day is not None:
            rate = rhythm.rate_for(7 * false_alarms_per_day)
        if changed:
            detector.set_threshold(rate=rate, value=value, method=method)
        if records and machine:
            price = price_of(records, machine, detector.threshold.value, records.alarm_settings(machine))
    if changed and not dry_run:
        detector.save(model)
    choices = [(share, detector.threshold_for(share).value) for share in SHARES]
    per_day = rhythm.occasions_per_day
    facts = results.set_point(detector, rhythm) | {"price": price and {**vars(price), "text": price.text()}}
    if json:
        table = [{"rate": r, "false_alarms_per_day": r * per_day, "value": v} for r, v in choices]
        echo_json(facts | {"choices": table})
        return
    results.print_set_point(facts, "Would be" if dry_run else "Set-point changed" if changed else "Set-point")
    if price is not None:
        echo_wrapped(f"On what was heard: {price.text()}.")
    results.print_live(detector)
    echo()
    results.print_choices(choices, per_day, len(detector.normals))


def _load(model: Path, weights: list[str] | None = None, **settings: Any) -> Detector:
    """The detector in a folder, with the weights that its networks need."""
    from nearfar.detector import load

    detector = load(model, **settings)
    detector.weights = opt.weights_for(weights, (recipe.encoder for recipe in detector.recipes))
    return detector


def _print_fitted(detector: Detector, model: Path, failures: Failures, as_json: bool, **more: Any) -> None:
    facts = results.summary(detector) | {"model": str(model), "left_out": failures.to_list(), **more}
    (echo_json if as_json else results.print_summary)(facts)
