"""The command that fills a store: embed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.options import Far, Json, Near, Precision, Threads, Weights, channel, system, weights_for
from nearfar.cli.terminal import BAD_INPUT, DONE, Failures, complain, errors_for_people, progress_bar, say, say_json
from nearfar.support.files import atomic_write
from nearfar.support.progress import titled

if TYPE_CHECKING:
    from nearfar.embedding.cache import EmbeddingCache
    from nearfar.embedding.fill import Done, Order
    from nearfar.recipe import Recipe


def embed(
    data: Annotated[Path, typer.Argument(help="Folder of recordings, or a file.")],
    encoder: Annotated[list[str] | None, typer.Option(help="Encoder whose grids are kept; may be repeated.")] = None,
    more: Annotated[list[str] | None, typer.Argument(help="More of --encoder.", metavar="[NAME]...")] = None,
    waveform: Annotated[
        list[str] | None,
        typer.Option(help="near, far, enh_a03f05, w1_1024, ...; may be repeated. By default the report's four."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("nearfar-store"),
    weights: Weights = None,
    layer: Annotated[list[int] | None, typer.Option(help="Layer of a network, from 1; may be repeated.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a new store: float16 (errors below 0.05 %) or float32.")] = None,
    pooled: Annotated[
        list[str] | None, typer.Option(help="Keep this recipe's pooled vectors alone, no grids; may be repeated.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="Part i/n of the recordings, for one of n jobs.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (a cluster; needs nearfar[ray]).")] = "local",
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the whole store first and drop damaged files.")
    ] = False,
    near: Near = 0,
    far: Far = 1,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for the networks.")] = "cpu",
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Example: nearfar embed data/ --encoder beats --weights BEATs_iter3.pt

    Put into a store what encoders give for recordings, once; stop it or kill it, and run it again to go on.
    """
    from nearfar.audio.recordings import find
    from nearfar.embedding.fill import Order, in_shard
    from nearfar.support.check import one_of

    with errors_for_people():
        one_of("engine", engine, ("local", "ray"))
        part = _part(shard)
        paths = [r.path for r in find(data) if in_shard(r.name, part)]
        encoders = (*(encoder or ()), *(more or ()))
        recipes = tuple(leaf for name in pooled or () for leaf in _leaves(name))
        order = Order(
            store=str(store),
            encoders=encoders,
            waveforms=tuple(waveform or _waveforms(paths, channel(far))),
            layers=tuple(layer or (None,)),
            pooled=recipes,
            weights=weights_for(weights, [*encoders, *(recipe.encoder for recipe in recipes)]),
            near=near,
            far=channel(far),
            dtype=dtype,
            device=device,
            precision=precision,
            threads=threads,
        )
        library = order.library()
        assert library.store is not None
        if verify:
            complain(f"note: damaged files that were removed from {store}: {len(library.store.verify())}")
        made = _room_for(paths, order, library)
        done, failures = _run(paths, order, library, engine)
        table = _write_failed(store, part, done.failed)
        facts = {
            "recordings": done.recordings,
            "were_there": done.there - made,
            "failures": failures.to_list(),
            "failed_csv": table,
            "store": store,
            "bytes": library.store.size(),
        }
        if json:
            say_json(facts)
        else:
            _say(facts)
        raise typer.Exit(BAD_INPUT if done.failed else DONE)


def _run(paths: list[Path], order: Order, library: EmbeddingCache, engine: str) -> tuple[Done, Failures]:
    from nearfar.embedding.fill import embed_shard

    failures = Failures()
    with progress_bar() as tell:
        settings: dict[str, Any] = {
            "library": library,
            "skip": failures,
            "progress": titled(tell, "embedding"),
        }
        if engine == "local":
            return embed_shard(paths, order, **settings), failures
        from nearfar.challenge.cluster import embed_on_ray

        return embed_on_ray(paths, order, **settings), failures


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


def _leaves(name: str) -> Iterator[Recipe]:
    from nearfar.recipe import leaves

    found = system(name)
    if found is None:
        raise ValueError(f"--pooled {name}: what the default listens to is decided by the normals; name another recipe")
    return leaves(found)


def _room_for(paths: list[Path], order: Order, library: EmbeddingCache) -> int:
    """Tell how much will be written; ValueError with what to do if there is no room. How many were made to find out."""
    from nearfar.embedding.fill import forecast

    expected = forecast(paths, order, library)
    if expected is None:
        return 0
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in expected.shapes)
    what = f"{len(paths):,} recordings, {len(order.passes)} of {shapes} each: about {_size(expected.bytes)} to write"
    complain(f"{what}, {_size(expected.free)} free in {order.store}")
    if not expected.fits:
        ways = ["fewer --waveform"] if len(order.waveforms) > 1 and not order.pooled else []
        ways += (
            ["--dtype float16 (half, in a new --store)"] if library.store and library.store.dtype == "float32" else []
        )
        ways += ["--pooled RECIPE (vectors alone)"] if not order.pooled else []
        ways += ["a --store on a larger disk"]
        raise ValueError(f"that does not fit: {what}, and {_size(expected.free)} are free. Try {', '.join(ways)}")
    return expected.made


def _write_failed(store: Path, part: tuple[int, int], failed: Sequence[tuple[str, str]]) -> Path | None:
    """The table of what could not be used in this run, replacing that of the run before; None if there is nothing."""
    path = store / ("failed.csv" if part[1] == 1 else f"failed-{part[0]}of{part[1]}.csv")
    path.unlink(missing_ok=True)
    if not failed:
        return None
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerows([("file", "error"), *failed])
    return atomic_write(path, out.getvalue())


def _say(facts: dict[str, Any]) -> None:
    say(f"Embedded      {facts['recordings']:,} recordings, {facts['were_there']:,} of which were there already")
    if facts["failed_csv"]:
        say(f"Left out      {len(facts['failures']):,} recordings, listed in {facts['failed_csv']}")
    say(f"Store         {facts['store']}, {_size(facts['bytes'])}")
    say(f"Next          nearfar evaluate DATA --recipe RECIPE --store {facts['store']}")


def _size(count: float) -> str:
    """Bytes, readable."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
