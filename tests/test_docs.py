"""README and docs hold commands and code that exist and run.

Every `nearfar` command line in a fenced or indented block is parsed by the real command line, without being run. The
code of a page that needs no recordings is run; a page with setup comments is run as `tools/run_tutorials.py` does.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from nearfar.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
GENERATED = ROOT / "docs" / "cli.md"
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}[^\n]*\n)+")
SETUP = re.compile(r"<!-- (?:setup|start): (.*?) -->", re.DOTALL)
SHELLS = ("", "bash", "sh", "console", "shell")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)(#[^)\s]+)?\)|src=\"(?!https?:|data:)([^\"]+)\"")
END = ("|", "||", "&&", ";", "&")
REDIRECTED = re.compile(r"\s(\d?>>?|<)\s*\S+|\s2>&1")


def tool(name: str) -> Any:
    """A module of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_text(text: str) -> Iterator[str]:
    """Blocks of a page that a reader may type."""
    for kind, body in FENCED.findall(text):
        if kind in SHELLS:
            answers = kind == "console"
            yield "\n".join(
                line.removeprefix("$ ") for line in body.split("\n") if not answers or line.startswith("$ ")
            )
    yield from (block for block in INDENTED.findall(FENCED.sub("", text)))
    yield from SETUP.findall(text)


def command_lines(text: str) -> Iterator[list[str]]:
    """Arguments of each `nearfar` command in the blocks of a page."""
    for block in shell_text(text):
        for line in block.replace("\\\n", " ").split("\n"):
            if not re.match(r"\s*(?:\w+=\S+ +)*nearfar\s|.*(?:&&|;|\||^) *nearfar\s", line):
                continue
            lexer = shlex.shlex(REDIRECTED.sub("", line), posix=True, punctuation_chars=";&|")
            lexer.whitespace_split = True
            words: list[str] | None = None
            for word in [*lexer, ";"]:
                if word in END:
                    if words:
                        yield words
                    words = None
                elif words is not None:
                    words.append(word)
                elif word == "nearfar":
                    words = []


def without_bodies(command: Any) -> Any:
    """The command and all below it, which parse their arguments and do nothing."""
    command.callback = lambda **_: None
    for below in getattr(command, "commands", {}).values():
        without_bodies(below)
    return command


def example_texts() -> dict[str, list[list[str]]]:
    """Page -> its commands; the commands of every help text come as a page of their own."""
    pages = {str(p.relative_to(ROOT)): list(command_lines(p.read_text(encoding="utf-8"))) for p in PAGES}
    examples = re.findall(r"^(?:Example: )?(nearfar .*)$", "\n".join(help_texts(get_command(app))), re.MULTILINE)
    block = "\n".join(re.sub(r" {2,}.*", "", line) for line in examples)
    return {name: lines for name, lines in pages.items() if lines} | {
        "help texts": list(command_lines(f"```\n{block}\n```"))
    }


def help_texts(command: Any) -> Iterator[str]:
    yield command.help or ""
    for below in getattr(command, "commands", {}).values():
        yield from help_texts(below)


EXAMPLES = example_texts()


def test_the_parser_of_pages_finds_commands_and_leaves_the_rest():
    page = (
        "text nearfar none\n\n    nearfar fit 'a b' -o m   # a comment\n    nearfarm\n\n"
        "```console\n$ A=1 nearfar score m x | head\nnearfar output\n```\n"
        "```bash\nnearfar submit d -o out && nearfar submit --check \\\n  out\n```\n```python\nnearfar.load()\n```\n"
        "<!-- setup: nearfar demo f 2>/dev/null -->\n"
    )
    assert sorted(command_lines(page)) == [
        ["demo", "f"],
        ["fit", "a b", "-o", "m"],
        ["score", "m", "x"],
        ["submit", "--check", "out"],
        ["submit", "d", "-o", "out"],
    ]


@pytest.mark.parametrize("page", EXAMPLES)
def test_every_command_line_is_one_that_the_command_line_takes(page, capsys):
    command = without_bodies(get_command(app))
    for words in EXAMPLES[page]:
        if words[0].isupper():  # a placeholder
            continue
        with pytest.raises(SystemExit) as ended:
            command.main([word for word in words if word not in ("...", "[...]")], prog_name="nearfar")
        assert not ended.value.code, f"nearfar {shlex.join(words)}\n{capsys.readouterr().err}"


def test_the_page_of_commands_is_what_their_help_says():
    text, now = GENERATED.read_text(encoding="utf-8"), tool("cli_reference").page()
    if f"typer {version('typer')}" not in text:
        pytest.skip("another version of typer lays out its help in another way")
    assert text == now, "run python tools/cli_reference.py"


def runs(page: Path) -> bool:
    return bool(tool("run_tutorials").PIECE.search(page.read_text(encoding="utf-8")))


def parameters() -> Iterator[Any]:
    for page in PAGES:
        if runs(page):
            slow = [pytest.mark.slow] if SETUP.search(page.read_text(encoding="utf-8")) else []
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=slow)


@pytest.mark.parametrize("page", list(parameters()))
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path):
    tutorials = tool("run_tutorials")
    changed = tutorials.differences(page.read_text(encoding="utf-8"), tutorials.run(page, tmp_path))
    assert not changed, f"run python tools/run_tutorials.py\n{changed}"


def test_the_runner_of_pages_sees_another_output_and_another_exit_code(tmp_path):
    tutorials = tool("run_tutorials")
    page = tmp_path / "page.md"
    console, python = "```console\n$ echo one; exit 3  # exit 3\ntwo\n```", "```python\nprint(1 + 1)\n```"
    page.write_text(f"{console}\n\n{python}\n\n```text\n0\n```\n")
    new = tutorials.run(page, tmp_path)
    assert "\none\n```" in new and "```text\n2\n```" in new
    assert "-two" in tutorials.differences(page.read_text(), new)
    page.write_text("```console\n$ exit 2\n```\n")
    with pytest.raises(RuntimeError, match="exits with 2, not 0"):
        tutorials.run(page, tmp_path)


def test_the_http_page_is_that_of_the_server():
    pytest.importorskip("fastapi")
    reference = tool("http_reference")
    written = reference.PAGE.read_text(encoding="utf-8")
    assert written == reference.page(reference.document()), "run python tools/http_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    for target, _, source in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / (target or source)).exists(), f"{page.name}: {target or source}"


def test_the_pictures_of_microphones_are_those_of_their_script():
    script = tool("microphone_pictures")
    for name, content in script.pictures().items():
        for folder in script.FOLDERS:
            text = (folder / name).read_text(encoding="utf-8")
            assert text == content, "run: python tools/microphone_pictures.py"
