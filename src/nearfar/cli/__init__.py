"""The command line: each command parses its options, calls one public function and prints the result.

Exit codes: 0 done, 1 `--fail-on-alarm` hit, 2 bad usage or a recording that could not be used, 70 an
error in nearfar itself, 130 Ctrl-C.
"""

from __future__ import annotations

from typing import Annotated

import typer

from nearfar.cli import bench, data, live, machine, search, weights
from nearfar.cli.embed import embed
from nearfar.cli.history import history
from nearfar.cli.options import register
from nearfar.cli.serve import serve
from nearfar.cli.terminal import BUG, DONE, echo

COMMANDS = (
    data.demo,
    machine.doctor,
    machine.fit,
    machine.score,
    machine.explain,
    machine.add,
    machine.threshold,
    live.monitor,
    serve,
    embed,
    bench.evaluate,
    search.search,
    search.fuse,
    bench.reproduce,
    bench.submit,
    weights.encoders,
)
GROUPS = {"config": live.config, "history": history, "weights": weights.weights, "data": data.data}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Detects when a machine sounds wrong, from recordings of it sounding right.\n\n\b\n"
    "nearfar doctor normals/              are the recordings sound?\n"
    "nearfar fit normals/ -o pump3        normal recordings in, a detector folder out\n"
    "nearfar score pump3 today/           which of these sound wrong?\n"
    "nearfar COMMAND --help               opens with an example",
)
for command in COMMANDS:
    register(app, command)
for name, commands in GROUPS.items():
    app.add_typer(commands, name=name)


@app.callback()
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        echo(f"nearfar {version_of('nearfar')}")
        raise typer.Exit(DONE)


def main() -> None:
    """The `nearfar` command; an error in nearfar itself prints its traceback and exits with 70, since 1 means alarm."""
    try:
        app()
    except Exception:
        import traceback

        traceback.print_exc()
        raise SystemExit(BUG) from None
