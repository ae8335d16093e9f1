"""The documentation: outputs are what the commands print, the HTTP page is the server's, links lead somewhere."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)(#[^)\s]+)?\)|src=\"(?!https?:|data:)([^\"]+)\"")


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", *(f"docs/tutorials/{p.name}" for p in ROOT.glob("docs/tutorials/*.md"))])
def test_a_page_prints_what_its_commands_print(page, tmp_path):
    pytest.importorskip("fastapi")
    runner = tool("run_tutorials")
    written = (ROOT / page).read_text(encoding="utf-8")
    assert runner.differences(written, runner.run(ROOT / page, tmp_path)) == "", "run python tools/run_tutorials.py"


def test_the_http_page_is_that_of_the_server():
    pytest.importorskip("fastapi")
    reference = tool("http_reference")
    written = reference.PAGE.read_text(encoding="utf-8")
    assert written == reference.page(reference.document()), "run python tools/http_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    for target, _, source in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / (target or source)).exists(), f"{page.name}: {target or source}"


def test_the_runner_sees_another_output_and_an_exit_code_that_is_not_meant(tmp_path):
    runner = tool("run_tutorials")
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ echo one; exit 3  # exit 3\ntwo\n```\n\n```python\nprint(1 + 1)\n```\n\n```text\n0\n```\n"
    )
    new = runner.run(page, tmp_path)
    assert "\none\n```" in new and "```text\n2\n```" in new
    assert "-two" in runner.differences(page.read_text(), new)
    page.write_text(f"```console\n$ {sys.executable} -c 'raise SystemExit(2)'\n```\n")
    with pytest.raises(RuntimeError, match="exits with 2, not 0"):
        runner.run(page, tmp_path)
