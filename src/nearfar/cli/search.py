"""Commands that search the report's space of configurations: search, fuse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli import options as opt
from nearfar.cli.output import (
    best_table,
    fused_tables,
    has_pictures,
    print_fused,
    print_search,
    rank,
    search_json,
    tables,
)
from nearfar.cli.terminal import BAD_INPUT, DONE, echo, echo_json, left_out, progress_bar, warn
from nearfar.support.files import atomic_write

if TYPE_CHECKING:
    from nearfar.challenge.search.records import Records
    from nearfar.challenge.search.run import Searched
    from nearfar.recipe import Recipe

Memory = Annotated[
    float | None, typer.Option(help="Memory for pooled vectors, in GB [2; on a GPU half of what is free].")
]
Seed = Annotated[int, typer.Option(help="Seed of bootstrap draws and of the clips borrowed from other machines.")]


@opt.command
def search(
    data: opt.Data,
    encoder: Annotated[list[str], typer.Option("--encoder", help="Encoder to search with; may be repeated.")],
    channels: opt.Channels,
    networks: opt.Networks,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the records.")] = Path("search"),
    extended: Annotated[bool, typer.Option("--extended", help="Also configurations beyond the report.")] = False,
    freq: Annotated[list[str] | None, typer.Option(help="concat (default), mean, bands, beam; repeatable.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A network's: 1, 2, ..., final (default), or 6+9 for an average; repeatable."),
    ] = None,
    views: Annotated[list[str] | None, typer.Option(help="Only this input method; may be repeated.")] = None,
    poolings: Annotated[list[str] | None, typer.Option(help="Only this pooling; may be repeated.")] = None,
    methods: Annotated[list[str] | None, typer.Option(help="Only this back end; may be repeated.")] = None,
    settings: opt.RecipeSettings = None,
    select: Annotated[str, typer.Option(help="labels, or label-free: rules that use only normals.")] = "labels",
    top: Annotated[int, typer.Option(help="Rows to show.")] = 10,
    rounds: opt.Rounds = 200,
    truth: opt.Truth = None,
    machine: opt.Machines = None,
    store: opt.StoreFolder = None,
    memory: Memory = None,
    engine: opt.Engine = "local",
    seed: Seed = 0,
    page: opt.Page = None,
    tables_folder: opt.Tables = None,
    json: opt.Json = False,
) -> None:
    """Example: nearfar search data/ --encoder logmel -o search/

    Score every configuration of the report's search space, record them all, and estimate what the best one is worth on
    new data. An interrupted search continues when the command is started again.
    """
    from nearfar.challenge.search import records as recorded
    from nearfar.challenge.search import run as bench
    from nearfar.challenge.search.space import space
    from nearfar.support.check import number, one_of

    one_of("way to select", select, ("labels", "label-free"))
    restricted = {"views": views or (), "poolings": poolings or (), "methods": methods or ()}
    chosen = space(extended=extended, freqs=freq or ("concat",), layers=_layers(layer), **restricted)
    if settings:
        chosen = chosen.changed(encoder[0], opt.parsed(settings))
    _say_licences(encoder)
    bytes_of_memory = None if memory is None else int(number("memory", memory, above=0) * (1 << 30))
    with progress_bar() as progress:
        found = bench.search(
            data, encoder, out, chosen, opt.weights_for(networks.weights, encoder), truth=truth, only=machine or (),
            store=opt.open_store(store), memory=bytes_of_memory, engine=engine, seed=seed,
            progress=progress,
            **channels.settings(), **networks.settings(),
        )  # fmt: skip
    ranked = rank(found.records, labels=_by_labels(found, select), rounds=rounds, seed=seed)
    table = recorded.write_table(found.records, out)
    atomic_write(out / "best.json", ranked.recipes[0].to_json() + "\n")
    if json:
        search_json(ranked, top, table, found)
    else:
        print_search(ranked, top, table, out)
    if tables_folder:
        from nearfar.challenge.pages import paper

        paper.write_tables(tables_folder, [best_table(ranked, top), *tables(ranked)])
        if has_pictures():
            paper.write_effects(tables_folder, found.records.recipes, found.records.overall)
    if page:
        from nearfar.challenge.pages.effects import search_page

        html = search_page(found.records.recipes, found.records.overall, f"nearfar search {data}", tables(ranked))
        atomic_write(page, html)
    raise typer.Exit(BAD_INPUT if found.failures else DONE)


@opt.command
def recipe(
    name: Annotated[str, typer.Argument(help="Name of a recipe or of an encoder, or a JSON file.")],
    settings: opt.RecipeSettings = None,
) -> None:
    """Example: nearfar recipe beats --set view=n_0.25f > my.json

    Print a recipe as JSON, for --recipe. Every encoder has one.
    """
    from nearfar.recipe import leaves, of_encoder

    system = opt.load_recipe(name)
    if system is None:
        warn(f"note: --recipe {name} lets the normals choose; this is a recipe for the encoder logmel alone")
        system = of_encoder("logmel")
    found = opt.changed(system, settings or ())
    assert found is not None
    _say_licences(part.encoder for leaf in leaves(found) for part in leaf.parts)
    echo(found.to_json())


@opt.command
def vectors(
    data: opt.Data,
    out: Annotated[Path, typer.Option("-o", "--output", help="The npz file to write.")],
    channels: opt.Channels,
    networks: opt.Networks,
    choice: opt.RecipeChoice,
    truth: opt.Truth = None,
    machine: opt.Machines = None,
    store: opt.StoreFolder = None,
    page: opt.Page = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for maps of the vectors, as PDF and SVG.")] = None,
) -> None:
    """Example: nearfar vectors data/ --recipe beats -o beats.npz --page map.html

    Write the vectors of all recordings, with names, domains, labels and the normals' leave-one-out scores, for numpy.
    --page and --figures draw them: PCA of normals, targets and anomalies, and UMAP with the extra nearfar[umap].
    """
    from nearfar.challenge import vectors as bench

    system = choice.system()
    if system is None:
        raise ValueError("vectors need a recipe that does not depend on the normals: name one with --recipe")
    with progress_bar() as progress:
        arrays = bench.vectors(
            data, system, networks.weights_of(system), truth=truth, only=machine or (), store=opt.open_store(store),
            progress=progress, **channels.settings(), **networks.settings(),
        )  # fmt: skip
    bench.write(out, arrays)
    if page or figures:
        from nearfar.challenge.pages.map import map_page, write_maps

        if page:
            atomic_write(page, map_page(arrays, f"nearfar vectors {data}"))
        if figures:
            write_maps(figures, arrays)
    shapes = ", ".join(f"{name} {' x '.join(map(str, x.shape))}" for name, x in arrays.items() if x.dtype.kind == "f")
    echo(f"Vectors       {out}: {shapes}")


@opt.command
def fuse(
    data: opt.Data,
    channels: opt.Channels,
    networks: opt.Networks,
    systems: Annotated[
        list[str] | None,
        typer.Option("--systems", help="Recipe name, JSON file, or a folder of `nearfar search`; may be repeated."),
    ] = None,
    recipe_settings: opt.RecipeSettings = None,
    more: Annotated[list[str] | None, typer.Argument(help="More of --systems.", metavar="[SYSTEM]...")] = None,
    from_search: Annotated[Path | None, typer.Option(help="Folder of `nearfar search` to take systems from.")] = None,
    top: Annotated[int, typer.Option(help="How many systems of a search to fuse.")] = 6,
    layers: Annotated[
        bool, typer.Option("--layers", help="Fuse one configuration's layers, chosen label-free.")
    ] = False,
    equal: Annotated[bool, typer.Option("--equal", help="Equal weights: no labels are used.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the fusion, a recipe.")] = None,
    truth: opt.Truth = None,
    machine: opt.Machines = None,
    store: opt.StoreFolder = None,
    tables_folder: opt.Tables = None,
    json: opt.Json = False,
) -> None:
    """Example: nearfar fuse data/ --systems search/ -o fusion.json

    Search the weights of a fusion of systems. Systems that a search has recorded need no audio.
    """
    from nearfar.challenge.search import fuse as bench
    from nearfar.challenge.search.records import read

    names = [*(systems or []), *(more or []), *([str(from_search)] if from_search else [])]
    folder = next((name for name in names if Path(name).is_dir()), None)
    if not names or (folder and len(names) > 1):
        raise ValueError("give --systems one folder of a search, or recipes by name or JSON file")
    if layers and not folder:
        raise ValueError("--layers chooses from a search: give --systems the folder of one")
    if folder and recipe_settings:
        raise ValueError(
            f"--set changes recipes, and {folder} holds what a search has scored: give --set to that search"
        )
    if folder and truth:
        raise ValueError(f"{folder} holds the labels that its search was given: give --truth to nearfar search")
    if folder:
        records = read(folder, machines=machine or ())
        rows = bench.layers(records) if layers else bench.candidates(records, top)
    else:
        settings = {**channels.settings(), **networks.settings(), "store": opt.open_store(store)}
        wanted = [leaf for name in names for leaf in _recipes(name, recipe_settings or ())]
        records, rows = _scored(data, wanted, networks, truth=truth, only=machine or (), **settings)
    fused = bench.fuse(records, rows, search=not equal)
    if out:
        atomic_write(out, fused.system.to_json() + "\n")
    if tables_folder:
        from nearfar.challenge.pages.paper import write_tables

        write_tables(tables_folder, fused_tables(fused))
    if json:
        echo_json(fused.to_dict())
    else:
        print_fused(fused, out, chosen_by_labels=bool(folder) and records.labelled and not layers)


def _say_licences(encoders: Iterable[str]) -> None:
    """Write to stderr under which licence the weights of networks are."""
    from nearfar.encoders import TABLE

    for name in dict.fromkeys(encoders):
        if name in TABLE and TABLE[name].weights == "published":
            warn(f"Licence of the weights of {name}: {TABLE[name].licence}")


def _layers(named: list[str] | None) -> list[int | tuple[int, ...] | None]:
    """Layers by number, or several that are averaged; None is the final one."""
    from nearfar.support.check import integer

    try:
        each = [() if name == "final" else [integer("layer", int(n)) for n in name.split("+")] for name in named or ()]
    except ValueError:
        what = "a number from 1, several such as 6+9, or final"
        raise ValueError(f"--layer takes {what}, not {', '.join(named or ())}") from None
    return [tuple(several) if several[1:] else next(iter(several), None) for several in each] or [None]


def _by_labels(found: Searched, select: str) -> bool:
    """Whether to rank by labels; warns about recordings left out and about missing labels."""
    for note in found.notes:
        warn(f"note: {note}")
    for file, why in found.failures.items():
        warn(left_out(file, why))
    if select == "labels" and not found.records.labelled:
        warn("note: not every test clip is labelled, so configurations are ranked label-free")
    return select == "labels" and found.records.labelled


def _scored(data: Path, wanted: list[Recipe], networks: opt.Networks, **settings: Any) -> tuple[Records, list[int]]:
    """Score recipes: their records, and the row of each."""
    import tempfile

    from nearfar.challenge.search import run

    with progress_bar() as progress, tempfile.TemporaryDirectory() as scratch:
        records = run.search_recipes(data, wanted, scratch, networks.weights_of(*wanted), progress=progress, **settings)
    return records, [list(records.recipes).index(recipe) for recipe in dict.fromkeys(wanted)]


def _recipes(name: str, settings: Sequence[str]) -> list[Recipe]:
    from nearfar.recipe import Fusion, Recipe

    found = opt.load_recipe(name, settings)
    parts = [part for _, part in found.parts] if isinstance(found, Fusion) else [found]
    for part in parts:
        if not isinstance(part, Recipe):
            why = "lets the normals choose" if found is None else "is not a recipe or a fusion of recipes"
            raise ValueError(f"{name} {why}, so it cannot be a part of a fusion")
    return [part for part in parts if isinstance(part, Recipe)]
