"""What the commands share: options that mean the same everywhere, and how paths and names are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nearfar.recipe import System
    from nearfar.store import Store

Near = Annotated[int, typer.Option(help="Channel of the near microphone, counted from 0.")]
Far = Annotated[int, typer.Option(help="Channel of the far microphone; -1 if there is none.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Manifest = Annotated[
    Path | None, typer.Option(help="CSV with columns file, domain, label, machine (all but file optional).")
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="A recipe's name or JSON file; without it, the default.")
]
Weights = Annotated[Path | None, typer.Option(help="Weights file of the recipe's encoder.")]
Threads = Annotated[int | None, typer.Option(help="Recordings heard side by side; as many as there are processors.")]
Machines = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine; may be repeated.")]
Truth = Annotated[Path | None, typer.Option(help="Ground-truth CSVs of evaluation files: a folder, or one file.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Folder of what networks gave: read if it is there, else kept for later.")
]
Model = Annotated[Path, typer.Argument(help="Detector folder, as `nearfar fit` made it.")]


def system(recipe: str | None) -> System | None:
    """A system by its name or from a JSON file; None is the default that the normals decide."""
    from nearfar.recipe import by_name, from_json

    if recipe is None:
        return None
    if recipe.endswith(".json") or Path(recipe).is_file():
        return from_json(Path(recipe).read_text(encoding="utf-8"))
    return by_name(recipe)


def weights_by_name(given: Sequence[str]) -> dict[str, Path]:
    """{encoder: file} of options NAME=FILE."""
    from nearfar.check import choose
    from nearfar.encoders import TABLE

    files = {}
    for option in given:
        name, separator, file = option.partition("=")
        if not separator:
            raise ValueError(f"--weights {option!r}: say whose they are, NAME=FILE")
        choose("encoder", name, TABLE)
        files[name] = Path(file)
    return files


def opened(store: Path | None) -> Store | None:
    """The store in a folder, or None without one."""
    from nearfar.store import Store

    return None if store is None else Store(store)


def channel(far: int) -> int | None:
    return None if far < 0 else far


def one_or_many(paths: list[Path]) -> Any:
    return paths[0] if len(paths) == 1 else paths


def normals_of(recordings: list[Any]) -> tuple[list[Any], list[str]]:
    """The recordings to fit on: the train split if there is one, without those that their own names call anomalous."""
    notes = []
    train = [r for r in recordings if r.split == "train"]
    if train and len(train) < len(recordings):
        notes.append(
            f"fitting on the {len(train)} train recordings alone, not on the {len(recordings) - len(train)} others"
        )
        recordings = train
    machines = sorted({r.machine for r in recordings if r.machine})
    if len(machines) > 1:
        raise ValueError(f"these are recordings of {len(machines)} machines ({', '.join(machines)}): fit one at a time")
    faulty = [r for r in recordings if r.is_anomaly]
    if faulty:
        notes.append(f"{len(faulty)} recordings are named or listed as anomalous, {faulty[0].name} first: left out")
    return [r for r in recordings if not r.is_anomaly], notes
