"""Commands over the report's search space: search, fuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.atomic import write
from nearfar.cli.options import Far, Json, Near, StoreFolder, Threads, Weights, channel, opened, system, weights_of
from nearfar.cli.terminal import BAD_INPUT, DONE, complain, errors_for_people, progress_bar, say, say_json, say_table

if TYPE_CHECKING:
    from nearfar.challenge.records import Records
    from nearfar.challenge.select import Selection
    from nearfar.recipe import Recipe

Data = Annotated[Path, typer.Argument(help="DATA/<machine>/{train,test}, or a parent in the challenge's layout.")]
Machines = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine; may be repeated.")]
Memory = Annotated[float, typer.Option(help="Bound on the pooled vectors held at a time, in GB.")]
Seed = Annotated[int, typer.Option(help="Seed of bootstrap draws and of the clips borrowed from other machines.")]
USES_LABELS = "chosen with the labels of these very test clips: expect the nested score on others"
WORTH, WORTH_HEADS = "What the best one is worth", ("", "percent", "which is")
RULE_HEADS = ("rule", "picks", "score", "rank correlation", "regret")


def search(
    data: Data,
    encoder: Annotated[list[str], typer.Option("--encoder", help="Encoder to search with; may be repeated.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the records.")] = Path("search"),
    extended: Annotated[bool, typer.Option("--extended", help="Also what the report's space lacks.")] = False,
    freq: Annotated[list[str] | None, typer.Option(help="concat (default), mean or bands; may be repeated.")] = None,
    views: Annotated[list[str] | None, typer.Option(help="Only this input method; may be repeated.")] = None,
    poolings: Annotated[list[str] | None, typer.Option(help="Only this pooling; may be repeated.")] = None,
    methods: Annotated[list[str] | None, typer.Option(help="Only this back end; may be repeated.")] = None,
    select: Annotated[str, typer.Option(help="labels, or label-free: rules that see normals alone.")] = "labels",
    top: Annotated[int, typer.Option(help="Rows to show.")] = 10,
    rounds: Annotated[int, typer.Option(help="Bootstrap rounds of the intervals.")] = 200,
    weights: Weights = None,
    machine: Machines = None,
    near: Near = 0,
    far: Far = 1,
    store: StoreFolder = None,
    memory: Memory = 2.0,
    seed: Seed = 0,
    page: Annotated[Path | None, typer.Option(help="HTML page to write: which choice matters.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar search data/ --encoder logmel -o search/

    Try the report's search space, record every configuration, and say what the best one is worth. Stopped, it goes on
    where it was when it is started again.
    """
    from nearfar.challenge import records as recorded
    from nearfar.challenge import search as bench
    from nearfar.challenge import select as choice
    from nearfar.challenge.space import space
    from nearfar.check import number, one_of

    with errors_for_people():
        one_of("way to select", select, ("labels", "label-free"))
        number("memory", memory, above=0)
        chosen = space(
            extended=extended,
            freqs=freq or ("concat",),
            views=views or (),
            poolings=poolings or (),
            methods=methods or (),
        )
        with progress_bar() as tell:
            found = bench.search(
                data,
                encoder,
                out,
                chosen,
                weights_of(weights),
                only=machine or (),
                store=opened(store),
                near=near,
                far=channel(far),
                memory=int(memory * (1 << 30)),
                threads=threads,
                seed=seed,
                progress=tell,
            )
        for note in found.notes:
            complain(f"note: {note}")
        for file, why in found.failures.items():
            complain(f"left out: {file}: {why}")
        records = found.records
        table = recorded.write_table(records, out)
        by_labels = records.labelled and select == "labels"
        if not records.labelled and select == "labels":
            complain("note: not every test clip is labelled, so configurations are ranked label-free")
        selection = choice.select(records, rounds=rounds, seed=seed) if by_labels else None
        rules = selection.rules if selection else choice.label_free(records)
        marks = records.overall if by_labels else choice.marks(records)
        order = [int(row) for row in (-marks).argsort(kind="stable")[:top]]
        pick = selection.row if selection else order[0]
        write(out / "best.json", records.recipes[pick].to_json() + "\n")
        if json:
            say_json(_search_dict(records, order, selection, rules, table, found.failures))
        else:
            _say_search(records, order, selection, rules, table, out)
        if page:
            from nearfar.challenge.landscape import Table, search_page

            tables: list[Table] = [(WORTH, WORTH_HEADS, _worth(records, selection))] if selection else []
            tables += [("What rules without labels pick", RULE_HEADS, _rule_rows(records, rules))] if rules else []
            write(page, search_page(out, f"nearfar search {data}", tables))
        raise typer.Exit(BAD_INPUT if found.failures else DONE)


def fuse(
    data: Data,
    systems: Annotated[
        list[str] | None,
        typer.Option("--systems", help="Recipe name, JSON file, or a folder of `nearfar search`; may be repeated."),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(help="More of --systems.", metavar="[SYSTEM]...")] = None,
    from_search: Annotated[Path | None, typer.Option(help="Folder of `nearfar search` to take systems from.")] = None,
    top: Annotated[int, typer.Option(help="How many systems of a search to fuse.")] = 6,
    equal: Annotated[bool, typer.Option("--equal", help="Equal weights: no labels are used.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="JSON file for the fusion, a recipe.")] = None,
    weights: Weights = None,
    machine: Machines = None,
    near: Near = 0,
    far: Far = 1,
    store: StoreFolder = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Example: nearfar fuse data/ --systems search/ -o fusion.json

    Search the weights of a fusion of systems; needs no audio for those that a search has recorded.
    """
    import tempfile

    from nearfar.challenge import fuse as bench
    from nearfar.challenge import records as recorded
    from nearfar.challenge import search

    with errors_for_people():
        names = [*(systems or []), *(more or []), *([str(from_search)] if from_search else [])]
        folders = [name for name in names if Path(name).is_dir()]
        recipes = [leaf for name in names if name not in folders for leaf in _recipes(name)]
        if not names or (folders and recipes) or len(folders) > 1:
            raise ValueError("give --systems one folder of a search, or recipes by name or JSON file")
        with progress_bar() as tell, tempfile.TemporaryDirectory() as scratch:
            if folders:
                records = recorded.read(folders[0], machines=machine or ())
                rows = bench.candidates(records, top)
            else:
                records = search.recipes(
                    data, recipes, scratch, weights_of(weights), only=machine or (), store=opened(store),
                    near=near, far=channel(far), threads=threads, progress=tell,
                )  # fmt: skip
                rows = [list(records.recipes).index(recipe) for recipe in dict.fromkeys(recipes)]
        fused = bench.fuse(records, rows, search=not equal)
        if out:
            write(out, fused.system.to_json() + "\n")
        if json:
            say_json(fused.to_dict())
            return
        say_table(
            ["system", "weight"], [[_label(r), f"{w:.2f}"] for r, w in zip(fused.recipes, fused.weights, strict=True)]
        )
        say(f"\nWeightings tried   {fused.tried:,}")
        for what, value in (
            ("Best system alone", fused.single), ("Equal weights", fused.equal), ("Fusion", fused.overall),
            ("Nested", fused.nested), ("Optimism", fused.overall - fused.nested),
        ):  # fmt: skip
            say(f"{what:<18} {_percent(value)}")
        if fused.tried > 1:
            say(f"The weights are {USES_LABELS}.")
        if folders and records.labelled:
            say("The systems were chosen with the labels of these test clips: the search's own optimism comes on top.")
        if out:
            say(f"Fusion             {out}")


def _recipes(name: str) -> list[Recipe]:
    from nearfar.recipe import Fusion, Recipe

    found = system(name)
    parts = [part for _, part in found.parts] if isinstance(found, Fusion) else [found]
    for part in parts:
        if not isinstance(part, Recipe):
            raise ValueError(f"{name} is not a recipe or a fusion of recipes, so it cannot be a part of a fusion")
    return [part for part in parts if isinstance(part, Recipe)]


def _label(recipe: Recipe) -> str:
    from nearfar.challenge.space import Setting

    setting = Setting(recipe.low, recipe.spike, recipe.pooling, recipe.alpha, recipe.p, recipe.freq)
    backend = f"{recipe.method} k={recipe.k}" if recipe.method == "raw" else recipe.method
    backend += f" K={recipe.density_k}" if recipe.density_k else ""
    backend += f" exponent={recipe.exponent:g}" if recipe.exponent != 1 else ""
    backend += " whitened" if recipe.whiten else " one Gaussian" if recipe.ignore_domains else ""
    return f"{recipe.encoder}  {recipe.view}  {setting.name}  {recipe.metric} {backend}"


def _search_dict(
    records: Records, order: list[int], selection: Selection | None, rules: Any, table: Path, failures: Any
) -> dict[str, Any]:
    from nearfar.challenge.space import as_row

    return {
        "tried": len(records),
        "machines": records.machines,
        "best": [as_row(records.recipes[row]) | {"overall": _known(records.overall[row])} for row in order],
        "uses_labels": selection is not None,
        "selection": _plain(selection.to_dict()) if selection else None,
        "rules": {n: _plain(vars(r)) | {"picks": as_row(records.recipes[r.row])} for n, r in rules.items()},
        "table": table,
        "failures": [{"file": file, "error": error} for file, error in failures.items()],
    }


def _say_search(
    records: Records, order: list[int], selection: Selection | None, rules: Any, table: Path, out: Path
) -> None:
    say_table(
        ["configuration", "score"], [[_label(records.recipes[row]), _percent(records.overall[row])] for row in order]
    )
    say(f"\nConfigurations tried   {len(records):,} on {len(records.machines)} machine(s)")
    for name, number, note in _worth(records, selection) if selection else ():
        say(f"{name:<22} {number}  {note}".rstrip())
    if rules:
        say("\nWithout labels:")
        say_table(RULE_HEADS, _rule_rows(records, rules))
    say(f"\nAll configurations     {table}\nBest as a recipe       {out / 'best.json'}")


def _worth(records: Records, selection: Selection) -> list[list[str]]:
    """The honest table: what the best is, and what is to be expected of it."""
    alone = len(records.machines) < 2
    nested = "chosen on the other machines, scored on each"
    if alone:
        nested = "not possible with one machine: it is the choice on the other machines, scored on each"
    equal = int((records.overall == selection.best).sum())
    shared = f"; {equal:,} configurations share it" if equal > 1 else ""
    return [
        ["Best", _percent(selection.best), f"[{_range(selection.interval)}], {USES_LABELS}{shared}"],
        ["Nested", _percent(selection.nested), nested],
        ["Optimism", _percent(selection.optimism), "unknown, as nested is" if alone else "best - nested"],
        ["Chosen and scored", _range(selection.procedure), "on different draws of the clips"],
    ]


def _rule_rows(records: Records, rules: Any) -> list[list[str]]:
    rows = [
        [name, _label(records.recipes[r.row]), _percent(r.overall), f"{r.spearman:+.2f}", _percent(r.regret)]
        for name, r in rules.items()
    ]
    return [[cell.replace("+nan", "-") for cell in row] for row in rows]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _range(interval: tuple[float, float]) -> str:
    return f"{_percent(interval[0])} to {_percent(interval[1])}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if hasattr(data, "__dataclass_fields__"):
        return _plain(vars(data))
    return _known(data) if isinstance(data, float) else data
