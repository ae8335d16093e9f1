"""Who may import whom: imports go down the layers, and heavy libraries wait until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nearfar

ROOT = Path(nearfar.__file__).parent

# From the bottom up. A module may import from its own layer and from those above it in this list, never from below,
# and only `__main__` from `cli`. A new module needs a place here. "encoders.*" stands for all modules of a package.
LAYERS = [
    ["check", "lazy", "words", "blas", "atomic", "hashes", "pipeline"],
    ["microphones", "store", "transfer"],
    ["download"],
    ["audio", "enhance", "frames", "pooling", "views", "bank", "metrics"],
    ["encoders", "encoders.*"],
    ["density", "gaussian", "switches"],
    ["methods"],
    ["backend", "fusion", "threshold"],
    ["recipe"],
    ["embed"],
    ["demo.room", "demo.waves", "library"],
    ["score", "recordings", "doctor.checkup", "combine", "default", "profile", "demo.synth"],
    ["model", "hear", "explain.deviation"],
    ["extract"],
    ["explain", "explain.evidence", "explain.wording", "explain.inquiry"],
    ["detector"],
    ["doctor", "demo", "explain.pictures"],
    ["live", "live.*", "live.sinks.*", "live.api", "live.api.*"],
    ["explain.pages"],
    ["challenge", "challenge.*"],
    ["cli.terminal", "cli.results", "cli.found", "cli.options"],
    ["cli.machine", "cli.data", "cli.bench", "cli.embed", "cli.weights", "cli.search", "cli.live", "cli.history"],
    ["cli.serve"],
    ["cli"],
    ["__main__"],
]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
)


def layer(module: str) -> int | None:
    package = module.rpartition(".")[0]
    for number, names in enumerate(LAYERS):
        if module in names or (package and f"{package}.*" in names):
            return number
    return None


def source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> Iterator[tuple[str, int]]:
    """(module of nearfar, line) of every import, inside functions too; those for the type checker do not count."""
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: imports are written in full here"
            names = [node.module or ""]
            if is_package(names[0]):  # "from nearfar import bank": the module, unless it is a name such as __version__
                names = [f"{names[0]}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "nearfar":
                inside = name.removeprefix("nearfar").removeprefix(".")
                while inside and inside not in MODULES:
                    inside = inside.rpartition(".")[0]
                yield inside, node.lineno


def is_package(name: str) -> bool:
    return name.split(".")[0] == "nearfar" and ROOT.joinpath(*name.split(".")[1:]).is_dir()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_layer_and_imports_only_from_it_or_from_lower_ones(module):
    mine = layer(module)
    assert mine is not None, f"{module} is in no layer: say in LAYERS what it stands on"
    for other, line in imports(module):
        if not other:
            continue  # a name of nearfar itself, such as __version__
        assert layer(other) is not None
        assert layer(other) <= mine, f"{module}, line {line}, imports {other}, which stands on it"
        assert other != "cli" or module == "__main__", f"{module}, line {line}: nothing but __main__ imports cli"


def test_no_module_is_in_two_layers():
    names = [name for names in LAYERS for name in names]
    assert len(names) == len(set(names))


def test_heavy_libraries_wait_until_they_are_needed():
    low = [m for m in MODULES if m.split(".")[0] != "encoders" and layer(m) <= layer("embed")]
    modules = ["nearfar", "nearfar.encoders.logmel", *(f"nearfar.{m}" for m in low)]
    heavy = ["torch", "sklearn", "matplotlib", "typer", "rich", "scipy.stats", "soundfile", "soxr", "pandas"]
    code = f"import sys, {', '.join(modules)}; print(*[m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
