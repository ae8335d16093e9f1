"""Run the commands of the tutorials and write their outputs where they stand.

    python tools/run_tutorials.py                  rewrite the outputs in README.md, how-it-works.md and tutorials/*.md
    python tools/run_tutorials.py --check FILE...  run them and fail where an output is another (numbers may differ)

A fenced block `console` holds lines `$ command` and what each printed. A fenced block `python` is run, all blocks of a
page in one namespace; a block `text` that follows holds what it printed. Comments of the page, which a reader does not
see, prepare what the commands need:

    <!-- setup: COMMAND -->          run before what follows
    <!-- start: COMMAND | URL -->    run in the background until the page ends; wait until URL answers

Each page runs in a new folder. A command ends with `# exit N` if it is meant to exit with N other than 0.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "how-it-works.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
PIECE = re.compile(
    r"<!-- (?P<comment>setup|start): (?P<what>.*?) -->"
    r"|```(?P<kind>console|python)\n(?P<body>.*?)```(?P<answer>\n\n```text\n.*?```)?",
    re.DOTALL,
)
EXIT = re.compile(r"\s+# exit (\d+)$")
PROGRESS = re.compile(r": \d+ of \d+$")  # a terminal shows one line that changes
NUMBER = re.compile(r"[-+]?\d[\d.,:]*")
WAIT_S = 60.0


class Runner:
    """Runs what one page says, in `folder`; background commands end with `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started, self.names = folder, [], {}  # type: ignore[var-annotated]
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }

    def shell(self, line: str) -> str:
        """What a command prints, stderr among it. RuntimeError for an exit code that is not meant."""
        meant = int(found[1]) if (found := EXIT.search(line)) else 0
        done = subprocess.run(
            ["bash", "-c", EXIT.sub("", line)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != meant:
            raise RuntimeError(f"$ {line}\nexits with {done.returncode}, not {meant}:\n{done.stdout}")
        rows = (row.rstrip() for row in done.stdout.rstrip().split("\n"))
        return "\n".join(row for row in rows if not PROGRESS.search(row))

    def start(self, line: str, url: str) -> None:
        """Start a command in the background and wait until `url` answers."""
        self.started.append(subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment))
        end = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{line}: {url} does not answer")
            time.sleep(0.2)

    def python(self, code: str) -> str:
        """What a block of Python prints."""
        out, there = io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(out):
                exec(compile(code, "<page>", "exec"), self.names)
        finally:
            os.chdir(there)
        return out.getvalue().rstrip()

    def close(self) -> None:
        """End what runs in the background."""
        for process in self.started:
            process.terminate()
            process.wait(30)


def run(page: Path, folder: Path) -> str:
    """The page's text with the outputs that its commands give now."""
    runner = Runner(folder)

    def replaced(piece: re.Match[str]) -> str:
        if piece["comment"] == "setup":
            runner.shell(piece["what"])
            return piece[0]
        if piece["comment"] == "start":
            runner.start(*(part.strip() for part in piece["what"].split(" | ")))
            return piece[0]
        if piece["kind"] == "python":
            printed = runner.python(piece["body"])
            return f"```python\n{piece['body']}```" + (f"\n\n```text\n{printed}\n```" if piece["answer"] else "")
        commands = [line[2:] for line in piece["body"].split("\n") if line.startswith("$ ")]
        blocks = [f"$ {line}\n{runner.shell(line)}".rstrip() for line in commands]
        return "```console\n" + "\n".join(blocks) + "\n```"

    try:
        return PIECE.sub(replaced, page.read_text(encoding="utf-8"))
    finally:
        runner.close()


def differences(old: str, new: str) -> str:
    """A diff of two pages whose numbers are masked: times and last digits are not what a page promises."""
    before, after = (NUMBER.sub("#", text).splitlines() for text in (old, new))
    return "\n".join(difflib.unified_diff(before, after, "written", "printed now", lineterm="", n=1))


def main() -> int:
    """Exit code 0, or 1 if `--check` found an output that is another."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES)
    given = parser.parse_args()
    failed = False
    for page in given.pages:
        print(page.name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            text = run(page.resolve(), Path(folder))
        if not given.check:
            page.write_text(text, encoding="utf-8")
        elif found := differences(page.read_text(encoding="utf-8"), text):
            print(found)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
