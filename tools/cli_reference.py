"""Write docs/cli.md from the help texts of the commands.

python tools/cli_reference.py           rewrite the page
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typer.main import get_command

from nearfar.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
WIDTH = 88  # characters of a help text's line
HEAD = """# Commands

What `nearfar COMMAND --help` prints; this page is made from it by `tools/cli_reference.py`.
<!-- laid out by typer {typer} -->

Results go to stdout, progress and warnings to stderr. `--json` prints one JSON document on stdout. Exit codes:

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | `--fail-on-alarm`, and there was an alarm |
| 2 | bad usage, or a recording that could not be used |
| 70 | an error in nearfar itself; its traceback is on stderr |
| 130 | stopped with Ctrl-C; nothing half-written is left |
"""


def commands(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any]]:
    """(full name, context) of a command and of all below it."""
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    yield context.command_path, context
    for below, child in getattr(command, "commands", {}).items():
        yield from commands(child, below, context)


def page() -> str:
    """The page as Markdown: a section per command."""
    (_, top), *others = commands(get_command(app), "nearfar")
    sections = [f"## `{name}`\n\n```text\n{context.get_help()}\n```\n" for name, context in others]
    return "\n".join([HEAD.format(typer=version("typer")), f"```text\n{top.get_help()}\n```\n", *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
