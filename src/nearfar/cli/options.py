"""What the commands share: options that mean the same everywhere, and how paths and names are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.terminal import complain
from nearfar.support.words import plural

if TYPE_CHECKING:
    from nearfar.embedding.store import Store
    from nearfar.recipe import System

Data = Annotated[Path, typer.Argument(help="DATA/<machine>/{train,test}, or a parent in the challenge's layout.")]
Near = Annotated[int, typer.Option(help="Channel of the near microphone, counted from 0.")]
Far = Annotated[int, typer.Option(help="Channel of the far microphone; -1 if there is none.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Manifest = Annotated[
    Path | None, typer.Option(help="CSV with columns file, domain, label, machine (all but file optional).")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A recipe's name, such as beats, or JSON file; without it, chosen by listening.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights file of the recipe's encoder, a folder of weights, or NAME=FILE for each of several encoders.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Recordings heard side by side; as many as there are processors.")
]
Machines = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine; may be repeated.")]
Truth = Annotated[Path | None, typer.Option(help="Ground-truth CSVs of evaluation files: a folder, or one file.")]
Rounds = Annotated[int, typer.Option(help="Bootstrap rounds of the intervals.")]
Page = Annotated[Path | None, typer.Option(help="HTML page to write.")]
FalseAlarmRate = Annotated[
    float | None, typer.Option(help="Share of healthy recordings that may alarm [0.05, with few normals more].")
]
Rate = Annotated[
    float | None,
    typer.Option("--false-alarm-rate", "--rate", help="Share of healthy recordings that may alarm, such as 0.05."),
]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="Folder that keeps what networks give, so that no recording goes through one twice."),
]
Precision = Annotated[
    str, typer.Option(help="float32, or bf16: networks take about 0.6 of the time, what they give differs by 0.3 %.")
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
    from nearfar.embedding.store import Store

    return None if store is None else Store(store)


def encoders_of(system: System | None) -> list[str]:
    """The encoders of a system; None is the default, which needs no weights."""
    from nearfar.recipe import leaves

    return [] if system is None else [leaf.encoder for leaf in leaves(system)]


def weights_for(given: list[str] | None, encoders: Iterable[str]) -> Any:
    """`weights_of`, if they are of `encoders`; ValueError for what would not be used, and for one file for several."""
    from nearfar.encoders.loading import unused, with_weights

    weights, needed = weights_of(given), with_weights(encoders)
    if why := unused(weights, needed):
        raise ValueError(f"--weights {why}")
    if len(needed) > 1 and isinstance(weights, Path) and weights.is_file():
        raise ValueError(
            f"--weights {weights} is one file, and there are several encoders here ({', '.join(needed)}): give "
            "NAME=FILE for each, or a folder of weights"
        )
    return weights


def weights_of(given: list[str] | None) -> Any:
    """What `Detector(weights=...)` takes: None, a file or folder, or {encoder: file}."""
    from nearfar.encoders import names
    from nearfar.support.check import one_of

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


def normals_of(recordings: list[Any]) -> list[Any]:
    """The recordings to fit on: the train split if there is one, without those that their own names call anomalous."""
    train = [r for r in recordings if r.split == "train"]
    if train and len(train) < len(recordings):
        others = len(recordings) - len(train)
        complain(f"note: the train split alone is taken: {plural(len(train), 'recording')}, not the {others:,} others")
        recordings = train
    machines = sorted({r.machine for r in recordings if r.machine})
    if len(machines) > 1:
        raise ValueError(f"these are recordings of {len(machines)} machines ({', '.join(machines)}): fit one at a time")
    faulty = [r for r in recordings if r.is_anomaly]
    if faulty:
        anomalous = plural(len(faulty), "recording")
        complain(f"note: left out: {anomalous} named or listed as anomalous, {faulty[0].name} first")
    return [r for r in recordings if not r.is_anomaly]
