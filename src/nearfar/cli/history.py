"""Commands for the history of a plant: history set-point, drift, export, rescue."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.options import Json, group, subcommand
from nearfar.cli.terminal import echo, echo_json

if TYPE_CHECKING:
    from nearfar.live.history.history import History

Folder = Annotated[Path, typer.Argument(help="Folder of the history.")]
NOTHING = "no scores are recorded yet"

history = group(
    "nearfar history set-point pump3-history --false-alarms-per-week 1",
    "Measured set-points, drift, export and rescue of the recorded scores and events.",
)


@subcommand(history, "set-point")
def set_point(
    folder: Folder,
    false_alarms_per_week: Annotated[float, typer.Option(help="False alarms per week that are allowed.")] = 1.0,
    on_delay: Annotated[int | None, typer.Option(help="Windows in a row that raise an alarm [as monitored].")] = None,
    json: Json = False,
) -> None:
    """Example: nearfar history set-point pump3-history --false-alarms-per-week 1

    Find the lowest set-point that would have kept the number of false alarms on the recorded days.
    """
    from nearfar.live.rules.alarm import WEEK_S
    from nearfar.live.rules.price import price_of
    from nearfar.live.rules.setpoint import measure

    facts, lines = {}, []
    with open_history(folder) as records:
        for machine in records.machines():
            scores, events = records.iter_scores(machine, 0, float("inf")), records.events(machine, limit=100_000)
            alarm = records.alarm_settings(machine)
            alarm = replace(alarm, on_delay=on_delay or alarm.on_delay)
            found = measure(scores, events, false_alarms_per_week, alarm)
            facts[machine] = vars(found) | {"price": None}
            judged = f"{machine}: {_duration(found.weeks * WEEK_S)} of sound was judged"
            if found.value is None:
                needed = _duration(found.needed_weeks * WEEK_S)
                lines.append(f"{judged}; {needed} are needed to promise {false_alarms_per_week:g} a week")
            else:
                price = price_of(records, machine, found.value, alarm)
                facts[machine]["price"] = vars(price)
                alarms = f"{found.alarms} alarms, {found.in_alarm:.2%} of the time"
                made = f"with set-point {found.value:.2f} they made {alarms}"
                use = f"To use it: nearfar threshold MODEL --value {found.value:.2f}"
                lines.append(f"{judged}; {made}. With it, {price.text()}. {use}")
    _print(facts, lines or [NOTHING], json)


@subcommand(history, "drift")
def drift(folder: Folder, json: Json = False) -> None:
    """Example: nearfar history drift pump3-history

    Test whether the median normal score of each day rises, and advise what to do.
    """
    from nearfar.live.rules.drift import find_drift

    facts, lines = {}, []
    with open_history(folder) as records:
        for machine in records.machines():
            found = find_drift(records.daily_medians(machine, 0, float("inf")))
            facts[machine] = vars(found)
            lines.append(f"{machine}: {found.text('MODEL', str(folder / 'samples' / machine))}")
    _print(facts, lines or [NOTHING], json)


@subcommand(history, "export")
def export(
    folder: Folder,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write [HISTORY/parquet].")] = None,
    json: Json = False,
) -> None:
    """Example: nearfar history export pump3-history -o warehouse/

    Write scores, events and audits as Parquet files.
    """
    from nearfar.live.history.database import to_parquet

    _check(folder)
    output = output or folder / "parquet"
    rows = to_parquet(folder, output)
    lines = [f"{_count(n, table)} in {output / table}.parquet" for table, n in rows.items()]
    _print({"folder": str(output), "rows": rows}, lines, json)


@subcommand(history, "rescue")
def rescue(folder: Folder, json: Json = False) -> None:
    """Example: nearfar history rescue pump3-history

    Copy what can still be read of a damaged history into a new one; the damaged file is kept.
    """
    from nearfar.live.history import database

    _check(folder)
    kept, rows = database.rescue(folder)
    counts = ", ".join(_count(n, table) for table, n in rows.items())
    _print({"kept": str(kept), "rows": rows}, [f"{counts} rescued; the damaged file is kept as {kept}"], json)


def _check(folder: Path) -> None:
    if not (folder / "history.db").is_file():
        raise FileNotFoundError(f"there is no history in {folder}: history.db is missing")


def open_history(folder: Path) -> closing[History]:
    """The history in a folder, closed at the end of a `with`; FileNotFoundError if there is none."""
    from nearfar.live.history.history import History

    _check(folder)
    return closing(History(folder))


def machine_of(history: History, asked: str, model: str) -> str:
    """The machine in a history that was `asked` for, else the one with the name of the model, else the only one."""
    machines = history.machines()
    if asked and asked not in machines:
        raise ValueError(f"there is no machine {asked!r} in the history; there are: {', '.join(machines) or 'none'}")
    if not machines:
        raise ValueError(f"no scores are recorded yet in {history.folder}")
    found = asked or (model if model in machines else machines[0] if len(machines) == 1 else "")
    if not found:
        raise ValueError(f"the history has several machines: choose one with --machine: {', '.join(machines)}")
    return found


def _print(facts: dict[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
    else:
        echo("\n".join(lines))


def _count(rows: int, table: str) -> str:
    """ "1 event", "2 events"; `table` is the plural."""
    return f"{rows} {table.removesuffix('s') if rows == 1 else table}"


def _duration(seconds: float) -> str:
    """A duration in the largest unit of which there are two or more."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} seconds"
