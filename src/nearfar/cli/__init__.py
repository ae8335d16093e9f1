"""The command line: every command is one call of the library, with its results as text, table, CSV or JSON.

Exit codes: 0 done, 1 `--fail-on-alarm` hit, 2 bad usage or a recording that could not be used.
"""

from __future__ import annotations

from typing import Annotated

import typer

from nearfar.cli import bench, data, live, machine, search, weights
from nearfar.cli.embed import embed
from nearfar.cli.history import history
from nearfar.cli.serve import serve
from nearfar.cli.terminal import DONE, say

COMMANDS = (
    (data.demo, "Make a small factory, fit, score, evaluate, and write a report page."),
    (machine.doctor, "Check recordings before anything is fitted."),
    (machine.fit, "Normal recordings in, a detector folder out."),
    (machine.score, "Score recordings: one row each."),
    (machine.explain, "Where and why a recording differs."),
    (machine.add, "More normals into the bank."),
    (machine.threshold, "Show or change the set-point."),
    (live.monitor, "Live sound or a folder to alarm events."),
    (serve, "REST, dashboard and metrics."),
    (live.config, "Check a plant's configuration file."),
    (history, "A measured set-point, drift, export or rescue of what was heard."),
    (embed, "What encoders give for recordings, into a store; resumable."),
    (bench.evaluate, "The challenge's metrics, per machine and overall."),
    (search.search, "The report's search space, every configuration recorded."),
    (search.fuse, "Weights of a fusion of systems."),
    (bench.reproduce, "Tables 3, 4 and 5 of the report beside its own numbers."),
    (bench.submit, "The challenge's files, written and checked."),
    (weights.weights, "Where each encoder's weights come from, and whether they are here."),
    (weights.encoders, "The networks that a recipe can name."),
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Hears when a machine sounds wrong, having only ever heard it sound right.\n\n\b\n"
    "nearfar doctor normals/              are the recordings sound?\n"
    "nearfar fit normals/ -o pump3        normal recordings in, a detector folder out\n"
    "nearfar score pump3 today/           which of these sound wrong?\n"
    "nearfar COMMAND --help               opens with an example",
)
for command, does in COMMANDS:
    app.command(short_help=does)(command)
app.add_typer(data.data, name="data")


@app.callback()
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        say(f"nearfar {version_of('nearfar')}")
        raise typer.Exit(DONE)


def main() -> None:
    """The `nearfar` command."""
    app()
