"""The command line: each command parses its options, calls one public function and prints the result.

Exit codes: 0 done, 1 `--fail-on-alarm` hit, 2 bad usage or a recording that could not be used, 70 an
error in nearfar itself, 130 Ctrl-C.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nearfar.cli import bench, data, live, machine, search, weights
from nearfar.cli.embed import embed
from nearfar.cli.history import history
from nearfar.cli.notify import notify
from nearfar.cli.options import import_plugin, register
from nearfar.cli.record import record
from nearfar.cli.report import report
from nearfar.cli.serve import open_in_browser, serve
from nearfar.cli.setup import setup
from nearfar.cli.shortcut import install_shortcut
from nearfar.cli.terminal import BAD_INPUT, BUG, DONE, STOPPED, echo, handle_errors

COMMANDS = (
    data.demo,
    setup,
    record,
    machine.doctor,
    machine.fit,
    machine.score,
    machine.explain,
    machine.add,
    machine.threshold,
    live.monitor,
    serve,
    install_shortcut,
    report,
    embed,
    bench.evaluate,
    search.recipe,
    search.search,
    search.fuse,
    bench.reproduce,
    bench.submit,
    search.vectors,
    weights.encoders,
)
GROUPS = {"config": live.config, "history": history, "notify": notify, "weights": weights.weights, "data": data.data}

UsageError: Any = typer.BadParameter.__base__  # which typer, unlike click, does not export

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Detects when a machine sounds wrong, from recordings of it sounding right.\n\n\b\n"
    "nearfar                              opens it in the browser of this computer\n"
    "nearfar doctor normals/              are the recordings sound?\n"
    "nearfar fit normals/ -o pump3        normal recordings in, a detector folder out\n"
    "nearfar score pump3 today/           which of these sound wrong?\n"
    "nearfar COMMAND --help               opens with an example",
)
for command in COMMANDS:
    register(app, command)
for name, commands in GROUPS.items():
    app.add_typer(commands, name=name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as version_of

        echo(f"nearfar {version_of('nearfar')}")
        raise typer.Exit(DONE)


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE", help="Module or .py file of yours that registers encoders or back ends; may be repeated."
        ),
    ] = None,
) -> None:
    """The options of `nearfar` itself, which is described above; without a command it opens the first page."""
    with handle_errors():
        for name in plugin or ():
            import_plugin(name)
        if context.invoked_subcommand is None:
            open_in_browser()


def main() -> None:
    """The `nearfar` command. An error in nearfar itself prints its traceback and exits with 70.

    click would exit with 1 where a pipe is closed, and 1 means alarm: its exits are chosen here.
    """
    import gc
    import io
    import sys

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that lacks a letter shows ? in its place
    try:
        raise SystemExit(app(standalone_mode=False) or DONE)
    except (typer.Abort, KeyboardInterrupt):
        raise SystemExit(STOPPED) from None
    except Exception as error:
        if isinstance(error, UsageError):
            error.show()
            raise SystemExit(BAD_INPUT) from None
        import traceback

        traceback.print_exc()
        raise SystemExit(BUG) from None
    finally:
        gc.freeze()  # else Python looks for garbage once more, for seconds where many libraries are loaded
