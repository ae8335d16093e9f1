"""The command `notify test`: do messages reach people?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli.options import Json, group, subcommand
from nearfar.cli.serve import home_folder, read_home
from nearfar.cli.terminal import BAD_INPUT, echo, echo_json

notify = group("nearfar notify test plant.toml", "Send a test message through the channels to people.")


@subcommand(notify, "test")
def test(
    file: Annotated[Path | None, typer.Argument(help="The TOML file [plant.toml of ~/nearfar].")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only this channel; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Example: nearfar notify test plant.toml --channel shift

    Send a test message through each channel of a plant, in quiet hours too: those of its file and those added in the
    browser. Exit code 2 if one did not take it.
    """
    from nearfar.live.channels import channels
    from nearfar.live.config import read
    from nearfar.live.sinks.notify import open_address, trial
    from nearfar.support.check import one_of

    config = read_home() if file is None else read(file)
    known = channels(config)
    if not known:
        where = file or home_folder() / "plant.toml"
        raise ValueError(
            f'{where} has no channel: add one, such as [notify.shift] with url = "ntfy://ntfy.sh/MY-TOPIC"'
        )
    for name in channel or ():
        one_of("channel", name, tuple(known))
    facts: dict[str, str] = {}
    for name in channel or known:
        address = open_address(known[name])
        try:
            address.send(*trial(name))
            facts[name] = ""
        except OSError as error:
            facts[name] = str(error)
        if not json:
            echo(f"{name}: {facts[name] or f'{address.service} took the message. Has it arrived?'}")
    if json:
        echo_json({"channels": {name: {"ok": not why, "problem": why} for name, why in facts.items()}})
    if any(facts.values()):
        raise typer.Exit(BAD_INPUT)
