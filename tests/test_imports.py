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

# Bottom layer first. A room is a folder or a file at the top level of the package. A room imports rooms of lower layers
# and, without circles, rooms of its own layer. A new room needs a place here.
LAYERS = [
    ["errors", "support"],
    ["audio"],
    [
        "enhance",
        "frames",
        "pooling",
        "views",
        "bank",
        "ldn",
        "gaussian",
        "backend",
        "fusion",
        "metrics",
        "approximate",
    ],
    ["score", "encoders"],
    ["recipe"],
    ["embedding"],
    ["explain"],
    ["detector", "demo"],
    ["doctor", "challenge", "live", "sklearn"],
    ["cli"],
    ["__main__"],
]
MOST_FILES_AT_THE_TOP = 16
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
)


def room(module: str) -> str:
    return module.split(".")[0]


def layer(module: str) -> int | None:
    return next((number for number, rooms in enumerate(LAYERS) if room(module) in rooms), None)


def source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> Iterator[tuple[str, int]]:
    """(module of nearfar, line) of every import, those inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(source(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: imports are written in full here"
            names = [node.module or ""]
            if is_package(names[0]):  # "from nearfar import bank" imports a module, "from nearfar import Clip" a name
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


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The nodes of a graph that are in a circle or lead into one; [] if there is no circle."""
    left = {node: set(others) - {node} for node, others in arrows.items()}
    while leaves := [node for node, others in left.items() if not others & left.keys()]:
        for node in leaves:
            del left[node]
    return sorted(left)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rooms_of_its_own_layer_or_of_lower_ones(module):
    mine = layer(module)
    assert mine is not None, f"{room(module)} is in no layer of LAYERS"
    for other, line in imports(module):
        assert other, f"{module}, line {line}, imports the package itself: import the module that has the name"
        above = layer(other)
        assert above is not None and above <= mine, (
            f"{module}, line {line}, imports {other}, which is in a higher layer"
        )
        assert other != "cli" or module == "__main__", f"{module}, line {line}: only __main__ imports cli"


def test_no_room_is_in_two_layers_and_every_layer_entry_exists():
    rooms = [name for names in LAYERS for name in names]
    assert len(rooms) == len(set(rooms)) and set(rooms) == {room(module) for module in MODULES}


def test_rooms_import_one_another_without_circles():
    arrows: dict[str, set[str]] = {}
    for module in MODULES:
        arrows.setdefault(room(module), set()).update(room(other) for other, _ in imports(module))
    assert circle(arrows) == []


def test_modules_import_one_another_without_circles():
    assert circle({module: {other for other, _ in imports(module)} for module in MODULES}) == []


def test_the_top_level_shows_the_report_and_little_else():
    files = sorted(path.name for path in ROOT.glob("*.py") if path.stem not in ("__init__", "__main__"))
    assert len(files) <= MOST_FILES_AT_THE_TOP, files


def test_heavy_libraries_wait_until_they_are_needed():
    low = [m for m in MODULES if room(m) != "encoders" and layer(m) <= layer("embedding")]
    modules = ["nearfar", "nearfar.encoders.logmel", *(f"nearfar.{m}" for m in low)]
    heavy = ["torch", "sklearn", "matplotlib", "typer", "rich", "scipy.stats", "soundfile", "soxr", "pandas"]
    code = f"import sys, {', '.join(modules)}; print(*[m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
