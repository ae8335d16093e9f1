"""What the commands share: options with one meaning, groups of them, and the decorator of every command."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from nearfar.cli.terminal import handle_errors, warn

if TYPE_CHECKING:
    from nearfar.embedding.store import Store
    from nearfar.recipe import System


def spare(path: Path | None) -> Path | None:
    """The file that a command is to write, unless it is a recording or a detector's: those would be lost."""
    from nearfar.audio.recordings import SUFFIXES

    if path is not None and (target := path.resolve()).is_file():
        is_detector = (target.parent / "detector.json").is_file()
        if is_detector or target.suffix.lower() in SUFFIXES:
            what = "a file of a detector" if is_detector else "a recording"
            raise typer.BadParameter(f"{path} is {what}, which would be lost: give another name")
    return path


Data = Annotated[Path, typer.Argument(help="DATA/<machine>/{train,test}, or a parent in the challenge's layout.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Manifest = Annotated[
    Path | None, typer.Option(help="CSV with the columns file, domain, label, machine (all but file are optional).")
]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", help="Name of a recipe, such as beats, or a JSON file [default: chosen by the normals]."),
]
RecipeSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, such as k=3 or view=n_0.25f; may be repeated."),
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
    int | None, typer.Option(min=1, help="Recordings that are processed at the same time [one per processor].")
]
Machines = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine; may be repeated.")]
Truth = Annotated[Path | None, typer.Option(help="Ground-truth CSV of the evaluation files, or a folder of them.")]
Rounds = Annotated[int, typer.Option(help="Bootstrap rounds of the intervals.")]
Tables = Annotated[
    Path | None,
    typer.Option("--tables", help="Folder for a paper: tables as LaTeX, Markdown and CSV, figures as PDF and SVG."),
]
Page = Annotated[Path | None, typer.Option(help="HTML page to write.", callback=spare)]
Calibration = Annotated[
    str,
    typer.Option(
        help="groups: false alarms are counted as in a new session; clips: each recording alone, as in the report."
    ),
]
FalseAlarmRate = Annotated[
    float | None, typer.Option(help="Share of healthy recordings that may alarm [0.05, more with few normals].")
]
Rate = Annotated[
    float | None,
    typer.Option("--false-alarm-rate", "--rate", help="Share of healthy recordings that may alarm, such as 0.05."),
]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="Folder that keeps the outputs of networks, so that each recording is computed once."),
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32; bf16: networks need about 0.6 of the time and differ by 0.3 %; tf32: NVIDIA GPUs only."
    ),
]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, or cuda:N for one of several.")]
Batch = Annotated[
    int | None, typer.Option(min=1, help="Waveforms that a GPU computes together [as many as its free memory holds].")
]
Engine = Annotated[str, typer.Option(help="local, or ray (a cluster; needs nearfar[ray]).")]
Model = Annotated[Path, typer.Argument(help="Detector folder that `nearfar fit` wrote.")]


@dataclass(frozen=True)
class Channels:
    """Options: the channels of the two microphones in every recording."""

    near: Annotated[int, typer.Option(help="Channel of the near microphone, counted from 0.")] = 0
    far: Annotated[int, typer.Option(help="Channel of the far microphone; -1 if there is none.")] = 1

    def settings(self) -> dict[str, Any]:
        """Arguments `near` and `far` of the library; far is None if there is no far microphone."""
        return {"near": self.near, "far": None if self.far < 0 else self.far}


@dataclass(frozen=True)
class RecipeChoice:
    """Options: the recipe, and changes of it."""

    recipe: RecipeName = None
    settings: RecipeSettings = None

    def system(self) -> System | None:
        """The system that was asked for; None if the normals decide."""
        return load_recipe(self.recipe, self.settings or ())


@dataclass(frozen=True)
class Networks:
    """Options: weights of the encoders, and how the encoders run."""

    weights: Weights = None
    threads: Threads = None
    precision: Precision = "float32"
    device: Device = "cpu"
    batch: Batch = None

    def settings(self) -> dict[str, Any]:
        """Arguments `threads`, `precision`, `device` and `batch` of the library."""
        return {name: getattr(self, name) for name in ("threads", "precision", "device", "batch")}

    def weights_of(self, *systems: System | None) -> Any:
        """Argument `weights` of the library, checked against the encoders of `systems`."""
        return weights_for(self.weights, encoders_of(*systems))


def command(run: Callable[..., None]) -> Callable[..., None]:
    """Make a command: an error of the user becomes one line and exit code 2; a dataclass is a group of options."""
    signature = inspect.signature(run, eval_str=True)
    annotations = {p.name: p.annotation for p in signature.parameters.values()}
    groups = {name: kind for name, kind in annotations.items() if isinstance(kind, type) and is_dataclass(kind)}
    options: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = groups.get(parameter.name)
        inside = inspect.signature(group, eval_str=True).parameters.values() if group else [parameter]
        options += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inside]

    @functools.wraps(run)
    def grouped(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        with handle_errors():
            run(**given)

    grouped.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    grouped.__annotations__ = {p.name: p.annotation for p in options}
    return grouped


class DefaultCommand(typer.core.TyperGroup):
    """A group whose first command runs when its name is left out: `nearfar weights beats` is `weights show beats`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command before arguments that name no command."""
        if not args or args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


def group(
    example: str, does: str, short: str = "", cls: type[typer.core.TyperGroup] = typer.core.TyperGroup
) -> typer.Typer:
    """An app for the sub-commands of one command; its help opens with `example`; `short` stands in lists."""
    return typer.Typer(
        cls=cls,
        no_args_is_help=True,
        help=f"Example: {example}\n\n{inspect.cleandoc(does)}",
        short_help=short or does,
        rich_markup_mode=None,
    )


def register(app: typer.Typer, run: Callable[..., None], name: str | None = None) -> None:
    """Add a command to an app; its line in lists is the first sentence below the example in its docstring."""
    does = " ".join((inspect.getdoc(run) or "").split("\n\n")[1].split())
    app.command(name, short_help=re.split(r"(?<=[.]) ", does)[0])(run)


def subcommand(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The decorator `command` for a command of a group."""

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        made = command(run)
        register(app, made, name)
        return made

    return decorate


def load_recipe(recipe: str | None, settings: Sequence[str] = ()) -> System | None:
    """A system by its name or from a JSON file, with `settings` KEY=VALUE; None is the default, by the normals."""
    from nearfar.recipe import by_name, from_json

    if recipe is not None and (recipe.endswith(".json") or Path(recipe).is_file()):
        try:
            system: System | None = from_json(Path(recipe).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{recipe}: {error}") from None
    else:
        system = None if recipe is None else by_name(recipe)
    return changed(system, settings)


def changed(system: System | None, settings: Sequence[str]) -> System | None:
    """A system with settings KEY=VALUE. ValueError names a wrong one."""
    from nearfar.recipe import with_settings

    values = parsed(settings)
    if values and system is None:
        raise ValueError(
            "--set changes a recipe, and the default is chosen by the normals: name another with --recipe, such as "
            "logmel-floor, or a file made by: nearfar recipe logmel-floor > my.json"
        )
    return system if system is None or not values else with_settings(system, values)


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """Settings KEY=VALUE as data; a value is JSON, or else text."""
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: give KEY=VALUE, such as k=3")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def import_plugin(name: str) -> None:
    """Import a module of the user by its name, as seen from this folder, or by its file."""
    import importlib
    import sys

    file = Path(name)
    folder, module = (file.parent, file.stem) if file.suffix == ".py" else (Path(), name)
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ValueError(f"--plugin {name}: there is no such module in {place}, nor installed") from None
    finally:
        sys.path.remove(place)


def open_store(store: Path | None) -> Store | None:
    """The store in a folder; None without a folder."""
    from nearfar.embedding.store import Store

    return None if store is None else Store(store)


def encoders_of(*systems: System | None) -> list[str]:
    """The encoders of systems; None is the default system, which needs no weights."""
    from nearfar.recipe import leaves

    return [leaf.encoder for system in systems if system is not None for leaf in leaves(system)]


def weights_for(given: list[str] | None, encoders: Iterable[str]) -> Any:
    """`weights_of(given)`; ValueError if `encoders` would not use a file, or if one file is given for several."""
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
    """The argument of `Detector(weights=...)`: None, a file or folder, or {encoder: file}."""
    from nearfar.encoders import names
    from nearfar.support.check import one_of

    if not given:
        return None
    if len(given) == 1 and (Path(given[0]).exists() or "=" not in given[0]):
        return _existing(given[0])
    pairs: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals:
            raise ValueError(f"--weights {text}: give several as NAME=FILE, such as eat-large=model.safetensors")
        if one_of("encoder", name, names()) in pairs:
            raise ValueError(f"--weights names {name} twice")
        pairs[name] = _existing(file)
    return pairs


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"--weights: there is no file or folder {path}")
    return Path(path)


def one_or_many(paths: list[Path]) -> Any:
    """A single path as itself, several as the list."""
    return paths[0] if len(paths) == 1 else paths


def normals_of(recordings: list[Any]) -> list[Any]:
    """The recordings to fit on, see `select_normals`; its notes go to stderr."""
    from nearfar.audio.recordings import select_normals

    kept, notes = select_normals(recordings)
    for note in notes:
        warn(f"note: {note}")
    return kept
