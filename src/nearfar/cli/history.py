"""The command `history`: what to learn from the days that were heard, and how to take them elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli.options import Json
from nearfar.cli.terminal import errors_for_people, say, say_json


def history(
    action: Annotated[str, typer.Argument(help="set-point, drift, export or rescue")],
    folder: Annotated[Path, typer.Argument(help="Folder of the history.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for exported files.")] = None,
    false_alarms_per_week: Annotated[float, typer.Option(help="What a set-point is to promise, at most.")] = 1.0,
    on_delay: Annotated[int | None, typer.Option(help="Windows in a row that make an alarm [as monitored].")] = None,
    json: Json = False,
) -> None:
    """Example: nearfar history set-point pump3-history --false-alarms-per-week 1

    set-point: the lowest one that would have kept the promise on the days that were heard. drift: is the median normal
    score of each day creeping, and what to do about it. export: Parquet files of everything. rescue: begin anew with
    what a damaged history still holds.
    """
    from nearfar.support.check import one_of

    with errors_for_people():
        one_of("action", action, ACTIONS)
        if not (folder / "history.db").is_file():
            raise FileNotFoundError(f"there is no history in {folder}: history.db is missing")
        facts, lines = ACTIONS[action](folder, output, false_alarms_per_week, on_delay)
        if json:
            say_json(facts)
        else:
            for line in lines:
                say(line)


def _export(folder: Path, output: Path | None, *_: Any) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.history.export import to_parquet

    output = output or folder / "parquet"
    rows = to_parquet(folder, output)
    return {"folder": str(output), "rows": rows}, [
        f"{_counted(n, table)} in {output / table}.parquet" for table, n in rows.items()
    ]


def _rescue(folder: Path, *_: Any) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.history.database import rescue

    kept, rows = rescue(folder)
    said = ", ".join(_counted(n, table) for table, n in rows.items())
    return {"kept": str(kept), "rows": rows}, [f"{said} rescued; the damaged file is kept as {kept}"]


def _drift(folder: Path, *_: Any) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.drift import find_drift
    from nearfar.live.history.history import History

    opened = History(folder)
    facts, lines = {}, []
    for machine in opened.machines():
        drift = find_drift(opened.daily_medians(machine, 0, float("inf")))
        text = drift.text("MODEL", str(folder / "samples" / machine))
        facts[machine] = {"days": drift.days, "baseline": drift.baseline, "now": drift.now, "creeping": drift.creeping}
        lines.append(f"{machine}: {text}")
    opened.close()
    return facts, lines or ["nothing has been heard yet"]


def _set_point(folder: Path, _: Any, per_week: float, on_delay: int | None) -> tuple[dict[str, Any], list[str]]:
    from nearfar.live.alarm import WEEK_S
    from nearfar.live.history.history import History
    from nearfar.live.setpoint import measure

    opened = History(folder)
    facts, lines = {}, []
    for machine in opened.machines():
        scores, events = opened.iter_scores(machine, 0, float("inf")), opened.events(machine, limit=100_000)
        alarm = opened.alarm(machine)
        alarm = replace(alarm, on_delay=on_delay or alarm.on_delay)
        found = measure(scores, events, per_week, alarm)
        facts[machine] = vars(found)
        heard = f"{machine}: {_long(found.weeks * WEEK_S)} of sound was judged"
        if found.value is None:
            lines.append(f"{heard}; {_long(found.needed_weeks * WEEK_S)} are needed to promise {per_week:g} a week")
        else:
            made = f"with set-point {found.value:.2f} they made {found.alarms} alarms, {found.in_alarm:.2%} of the time"
            lines.append(f"{heard}; {made}. To use it: nearfar threshold MODEL --value {found.value:.2f}")
    opened.close()
    return facts, lines or ["nothing has been heard yet"]


def _counted(rows: int, table: str) -> str:
    """ "1 event", "2 events"."""
    return f"{rows} {table.removesuffix('s') if rows == 1 else table}"


def _long(seconds: float) -> str:
    """How long, in the largest unit that fits."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} seconds"


ACTIONS = {"set-point": _set_point, "drift": _drift, "export": _export, "rescue": _rescue}
