"""The command that fills a store: embed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.options import Channels, Engine, Json, Networks, RecipeSettings, command, load_recipe, weights_for
from nearfar.cli.terminal import BAD_INPUT, DONE, Failures, echo, echo_json, progress_bar, warn
from nearfar.support.cells import csv_text
from nearfar.support.files import atomic_write
from nearfar.support.progress import titled

if TYPE_CHECKING:
    from nearfar.embedding.cache import CachedEncoders
    from nearfar.embedding.fill import Done, Order
    from nearfar.recipe import Recipe


@command
def embed(
    data: Annotated[Path, typer.Argument(help="Folder of recordings, or a file.")],
    channels: Channels,
    networks: Networks,
    encoder: Annotated[list[str] | None, typer.Option(help="Encoder whose grids are kept; may be repeated.")] = None,
    more: Annotated[list[str] | None, typer.Argument(help="More of --encoder.", metavar="[NAME]...")] = None,
    waveform: Annotated[
        list[str] | None,
        typer.Option(help="near, far, enh_a03f05, w1_1024, ...; may be repeated. By default the report's four."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("nearfar-store"),
    layer: Annotated[list[int] | None, typer.Option(help="Layer of a network, from 1; may be repeated.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a new store: float16 (errors below 0.05 %) or float32.")] = None,
    pooled: Annotated[
        list[str] | None, typer.Option(help="Keep only this recipe's pooled vectors, no grids; may be repeated.")
    ] = None,
    settings: RecipeSettings = None,
    shard: Annotated[str | None, typer.Option(help="Part i/n of the recordings, for one of n jobs.")] = None,
    engine: Engine = "local",
    verify: Annotated[
        bool, typer.Option("--verify", help="First read the whole store and remove damaged files.")
    ] = False,
    json: Json = False,
) -> None:
    """Example: nearfar embed data/ --encoder beats --weights BEATs_iter3.pt

    Compute the encoders' outputs for recordings and keep them in a store. An interrupted run continues when the command
    is started again.
    """
    from nearfar.audio.recordings import find
    from nearfar.embedding.fill import Order, in_shard
    from nearfar.support.check import one_of

    one_of("engine", engine, ("local", "ray"))
    part = _part(shard)
    paths = [r.path for r in find(data) if in_shard(r.name, part)]
    encoders = (*(encoder or ()), *(more or ()))
    if settings and not pooled:
        raise ValueError("--set changes the recipes of --pooled, and none is given")
    recipes = tuple(leaf for name in pooled or () for leaf in _leaves(name, settings or ()))
    order = Order(
        store=str(store),
        encoders=encoders,
        waveforms=tuple(waveform or _waveforms(paths, channels.settings()["far"])),
        layers=tuple(layer or (None,)),
        pooled=recipes,
        weights=weights_for(networks.weights, [*encoders, *(recipe.encoder for recipe in recipes)]),
        dtype=dtype,
        **channels.settings(),
        **networks.settings(),
    )
    grids = order.cached_encoders()
    assert grids.store is not None
    if verify:
        warn(f"note: damaged files that were removed from {store}: {len(grids.store.verify())}")
    computed = _check_room(paths, order, grids)
    done, failures = _run(paths, order, grids, engine)
    table = _write_failed(store, part, done.failed)
    facts = {
        "recordings": done.recordings,
        "were_there": done.there - computed,
        "failures": failures.to_list(),
        "failed_csv": table,
        "store": store,
        "bytes": grids.store.size(),
    }
    if json:
        echo_json(facts)
    else:
        _print(facts)
    raise typer.Exit(BAD_INPUT if done.failed else DONE)


def _run(paths: list[Path], order: Order, grids: CachedEncoders, engine: str) -> tuple[Done, Failures]:
    from nearfar.embedding.fill import embed_shard

    fill: Callable[..., Done] = embed_shard
    if engine == "ray":
        from nearfar.challenge.cluster import embed_on_ray

        fill = embed_on_ray
    failures = Failures()
    with progress_bar() as progress:
        return fill(paths, order, grids=grids, skip=failures, progress=titled(progress, "embedding")), failures


def _part(shard: str | None) -> tuple[int, int]:
    """(i, n) of "i/n"."""
    if shard is None:
        return 1, 1
    i, _, n = shard.partition("/")
    if not (i.isdigit() and n.isdigit()) or not 1 <= int(i) <= int(n):
        raise ValueError(f"--shard {shard!r} is not i/n with i from 1 to n, such as 2/8")
    return int(i), int(n)


def _waveforms(paths: list[Path], far: int | None) -> tuple[str, ...]:
    """The report's four, or near alone where the first recording that can be read has one channel."""
    from nearfar import audio
    from nearfar.embedding.fill import REPORT

    for path in paths if far is not None else []:
        try:
            return REPORT if audio.header(path).channels > 1 else ("near",)
        except (ValueError, OSError):
            continue
    return ("near",)


def _leaves(name: str, settings: Sequence[str]) -> Iterator[Recipe]:
    from nearfar.recipe import leaves

    found = load_recipe(name, settings)
    if found is None:
        raise ValueError(f"--pooled {name}: the default recipe depends on the normals: name another recipe")
    return leaves(found)


def _check_room(paths: list[Path], order: Order, grids: CachedEncoders) -> int:
    """Print how much will be written; ValueError if the disk is too small. Returns how many recordings it computed."""
    from nearfar.embedding.fill import forecast

    expected = forecast(paths, order, grids)
    if expected is None:
        return 0
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in expected.shapes)
    what = f"{len(paths):,} recordings, {len(order.inputs)} of {shapes} each: about {_size(expected.bytes)} to write"
    warn(f"{what}, {_size(expected.free)} free in {order.store}")
    if not expected.fits:
        ways = ["fewer --waveform"] if len(order.waveforms) > 1 and not order.pooled else []
        ways += ["--dtype float16 (half, in a new --store)"] if grids.store and grids.store.dtype == "float32" else []
        ways += ["--pooled RECIPE (vectors only)"] if not order.pooled else []
        ways += ["a --store on a larger disk"]
        raise ValueError(f"that does not fit: {what}, and {_size(expected.free)} are free. Try {', '.join(ways)}")
    return expected.made


def _write_failed(store: Path, part: tuple[int, int], failed: Sequence[tuple[str, str]]) -> Path | None:
    """Replace the table of recordings that could not be used; None if every recording could."""
    path = store / ("failed.csv" if part[1] == 1 else f"failed-{part[0]}of{part[1]}.csv")
    path.unlink(missing_ok=True)
    if not failed:
        return None
    return atomic_write(path, csv_text([("file", "error"), *failed]))


def _print(facts: dict[str, Any]) -> None:
    echo(f"Embedded      {facts['recordings']:,} recordings, {facts['were_there']:,} of which the store had already")
    if facts["failed_csv"]:
        echo(f"Left out      {len(facts['failures']):,} recordings, listed in {facts['failed_csv']}")
    echo(f"Store         {facts['store']}, {_size(facts['bytes'])}")
    echo(f"Next          nearfar evaluate DATA --recipe RECIPE --store {facts['store']}")


def _size(count: float) -> str:
    """Bytes, readable."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
