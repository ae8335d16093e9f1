"""What the commands share: options that mean the same everywhere, and how paths and names are read."""

from __future__ import annotations

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
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights file of the recipe's encoder, a folder of weights, or NAME=FILE for each of several encoders.",
    ),
]
Threads = Annotated[int | None, typer.Option(help="Recordings heard side by side; as many as there are processors.")]
Machines = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine; may be repeated.")]
Truth = Annotated[Path | None, typer.Option(help="Ground-truth CSVs of evaluation files: a folder, or one file.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Folder of what networks gave: read if it is there, else kept for later.")
]
Precision = Annotated[
    str, typer.Option(help="float32, or bf16: networks in about 0.6 of the time, grids 0.3 % apart on average.")
]
Model = Annotated[Path, typer.Argument(help="Detector folder, as `nearfar fit` made it.")]


def system(recipe: str | None) -> System | None:
    """A system by its name or from a JSON file; None is the default that the normals decide."""
    from nearfar.recipe import by_name, from_json

    if recipe is None:
        return None
    if recipe.endswith(".json") or Path(recipe).is_file():
        try:
            return from_json(Path(recipe).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{recipe}: {error}") from None
    return by_name(recipe)


def opened(store: Path | None) -> Store | None:
    """The store in a folder, or None without one."""
    from nearfar.store import Store

    return None if store is None else Store(store)


def weights_of(given: list[str] | None) -> Any:
    """What `Detector(weights=...)` takes: None, a file or folder, or {encoder: file}."""
    from nearfar.check import one_of
    from nearfar.encoders import names

    if not given:
        return None
    if len(given) == 1 and (Path(given[0]).exists() or "=" not in given[0]):
        return _there(given[0])
    pairs: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals:
            raise ValueError(f"--weights {text}: of several, each is NAME=FILE, such as eat-large=model.safetensors")
        if one_of("encoder", name, names()) in pairs:
            raise ValueError(f"--weights names {name} twice")
        pairs[name] = _there(file)
    return pairs


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"--weights: there is no file or folder {path}")
    return Path(path)


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
