"""Commands for the networks: weights, encoders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli.options import DefaultCommand, Json, command, group, subcommand
from nearfar.cli.terminal import echo, echo_json, echo_table, progress_bar, warn

Folder = Annotated[Path | None, typer.Option(help="Folder of weights [$NEARFAR_WEIGHTS, or the user's cache folder].")]
CLIP_S, RUNS = 10, 3  # of --bench

weights = group(
    "nearfar weights ced-tiny --pull",
    """Show where each encoder's weights are published, under which licence, and whether they are here. Nothing is
    downloaded unless --pull asks for it. Without a sub-command, `show` runs.

    \b
    nearfar weights                           the table of all
    nearfar weights beats                     one, in full
    nearfar weights beats --pull              download it
    nearfar weights beats --from FILE         use a file that you downloaded
    nearfar weights convert FILE              write it as safetensors, which load faster
    nearfar weights export NAME -o NET.onnx   a network that runs without torch

    --pull uses the proxy in HTTPS_PROXY. NEARFAR_MIRROR=https://mirror/files replaces https:// (the host's name becomes
    the first folder), and HF_ENDPOINT names another server with the protocol of https://huggingface.co.""",
    "Show, download, convert and export the weights of encoders.",
    cls=DefaultCommand,
)


@subcommand(weights, "show")
def show(
    name: Annotated[str | None, typer.Argument(help="An encoder; all without it.")] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Download the weights of NAME.")] = False,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Use this file as the weights of NAME.")
    ] = None,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Example: nearfar weights ced-tiny --pull

    Show where weights are published and whether they are here; download them, or use a file as them.
    """
    if (pull or source) and (name is None or (pull and source)):
        raise ValueError("--pull and --from each need the name of one encoder, and are one or the other")
    if name is None or not (pull or source):
        _show(name, folder, json)
    else:
        _print(_take(name, source, folder) if source else _pull(name, folder), json)


@subcommand(weights, "convert")
def convert(
    file: Annotated[Path, typer.Argument(help="A published weights file.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder of the weights, if several would fit.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")] = None,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Example: nearfar weights convert BEATs_iter3_plus_AS2M.pt

    Write a published weights file as safetensors, which load faster.
    """
    from nearfar.encoders import weights as library

    name = encoder or library.guess(file)
    target = output or library.folder_of(folder) / f"{name}.safetensors"
    library.convert(name, file, target)
    _print({"encoder": name, "file": str(target), "text": f"{file} holds {name}; written to {target}"}, json)


@subcommand(weights, "export")
def export(
    name: Annotated[str, typer.Argument(help="An encoder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="ONNX file to write; its manifest goes beside it.")],
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Example: nearfar weights export ced-tiny -o ced-tiny.onnx

    Write an encoder as a network that runs without torch.
    """
    from nearfar.encoders import export as library
    from nearfar.encoders.weights import find

    manifest = library.export(name, find(name, folder), output)
    text = f"{output} and {manifest}\nUse it: encoder 'exported' in a recipe, with --weights {manifest}"
    _print({"encoder": name, "file": str(output), "manifest": str(manifest), "text": text}, json)


@command
def encoders(
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure seconds per clip of 10 s, for the encoders that are here.")
    ] = False,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Example: nearfar encoders --bench

    List the networks that a recipe can name: size, operations, speed, licence, and which are here.
    """
    from nearfar.encoders import TABLE

    rows = [_facts(name, folder) for name in TABLE]
    if bench:
        with progress_bar() as progress:
            for done, row in enumerate(rows, start=1):
                row["seconds_per_clip"] = _seconds(row)
                progress(done, len(rows), "measuring")
    if json:
        echo_json(rows)
        return
    columns = ["encoder", "dimension", "frames/s", "parameters", "GFLOP", "installed", "weights here"]
    columns += ["s per 10 s clip"] if bench else []
    echo_table([*columns, "licence"], [_encoder_row(row, bench) for row in rows])
    _warn_of(rows)
    echo("\nGFLOP: operations of a network for a clip of 10 s, in billions; seconds: --bench.")
    echo("Weights: nearfar weights. A network of your own: encoder 'exported' with --weights MANIFEST.json,")
    echo("or 'huggingface' with --weights FOLDER.")


def _encoder_row(row: dict[str, Any], bench: bool) -> list[str]:
    here = "not needed" if row["parameters"] == 0 else "yours" if row["parameters"] is None else _here(row)
    own = row["parameters"] is None
    cells = [
        row["encoder"],
        "of the file" if own else str(row["dimension"]),
        "" if own else f"{row['frames_per_s']:g}",
        f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "",
        f"{row['gflop_per_clip']:,g}" if row["gflop_per_clip"] else "",
        _yes(row["installed"]),
        here,
    ]
    if bench:
        cells.append(f"{row['seconds_per_clip']:.3f}" if row["seconds_per_clip"] else "")
    return [*cells, _short(row["licence"])]


def _facts(name: str, folder: Path | None) -> dict[str, Any]:
    from importlib.util import find_spec

    from nearfar.encoders import GFLOP, TABLE

    entry = TABLE[name]
    needs = {"none": (), "plug-in": (), "own": ("onnxruntime",), "folder": ("transformers",)}.get(
        entry.weights, ("torch",)
    )
    path, problem = _look(name, folder) if entry.weights == "published" else (None, None)
    return {
        "encoder": name,
        "dimension": entry.dim or None,
        "frames_per_s": entry.frames_per_s or None,
        "parameters": entry.parameters,
        "gflop_per_clip": GFLOP.get(name),
        "licence": entry.licence,
        "sample_rate": entry.sample_rate if entry.dim else None,
        "installed": all(find_spec(module) for module in needs),
        "here": path,
        "problem": problem,
    }


def _look(name: str, folder: Path | None) -> tuple[str | None, str | None]:
    """(weights file that is here or None, why the file is ambiguous or None) of an encoder."""
    from nearfar.encoders.weights import present

    try:
        path = present(name, folder)
    except ValueError as error:
        return None, str(error)
    return None if path is None else str(path), None


def _seconds(row: dict[str, Any]) -> float | None:
    """Median seconds for one clip of 10 s, or None for an encoder that cannot run here."""
    import numpy as np

    from nearfar.encoders import load

    if not row["installed"] or (row["here"] is None and row["parameters"] != 0):
        return None
    encoder = load(row["encoder"], row["here"])
    wave = np.random.default_rng(0).normal(0, 0.1, (1, CLIP_S * encoder.sample_rate)).astype(np.float32)
    encoder.grid(wave)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        encoder.grid(wave)
        times.append(time.perf_counter() - start)
    return sorted(times)[RUNS // 2]


def _show(name: str | None, folder: Path | None, json: bool) -> None:
    from nearfar.encoders.sources import SOURCES
    from nearfar.encoders.weights import folder_of
    from nearfar.support.check import one_of

    rows = [_published(n, folder) for n in ([one_of("encoder with weights", name, SOURCES)] if name else SOURCES)]
    if json:
        echo_json(rows[0] if name else {"folder": str(folder_of(folder)), "encoders": rows})
    elif name:
        for key, value in rows[0].items():
            echo(f"{key.replace('_', ' '):<14}{'-' if value is None else value}")
        if not (rows[0]["here"] or rows[0]["problem"]):
            echo(f"\nTo get it: nearfar weights {name} {'--pull, or ' if rows[0]['url'] else ''}--from FILE")
    else:
        echo_table(
            ["encoder", "size", "hash", "here", "published at", "licence"],
            [
                [r["encoder"], r["size"], "known" if r["sha256"] else "first use", _here(r)]
                + [r["where"], _short(r["licence"])]
                for r in rows
            ],
        )
        _warn_of(rows)
        echo(
            f"\nFolder {folder_of(folder)}. One in full: nearfar weights NAME; download it: nearfar weights NAME --pull"
        )


def _published(name: str, folder: Path | None) -> dict[str, Any]:
    from nearfar.encoders import TABLE
    from nearfar.encoders.sources import SOURCES

    source, (path, problem) = SOURCES[name], _look(name, folder)
    return {
        "encoder": name,
        "file": source.file,
        "size": source.megabytes,
        "bytes": source.size,
        "url": source.url or None,
        "where": source.where,
        "page": source.page,
        "licence": TABLE[name].licence,
        "credit": source.credit,
        "sha256": source.sha256,
        "here": path,
        "problem": problem,
    }


def _pull(name: str, folder: Path | None) -> dict[str, Any]:
    from nearfar.encoders import EVALUATION_ONLY, TABLE
    from nearfar.encoders.sources import SOURCES
    from nearfar.encoders.weights import pull
    from nearfar.support.check import one_of

    source = SOURCES[one_of("encoder with weights", name, SOURCES)]
    warn(f"Licence: {TABLE[name].licence}")
    if TABLE[name].licence == EVALUATION_ONLY:
        warn("For evaluation only: do not use it in production and do not pass it on")
    warn(f"By: {source.credit}")
    if source.url:
        warn(f"{source.file} from {source.where}, size: {source.megabytes}")
    with progress_bar() as progress:
        path = pull(name, folder, progress=progress)
    return {"encoder": name, "file": str(path), "text": f"{name} is here: {path}"}


def _take(name: str, source: Path, folder: Path | None) -> dict[str, Any]:
    from nearfar.encoders.weights import add

    path = add(name, source, folder)
    return {"encoder": name, "file": str(path), "text": f"{source} is {name}; it is now {path}"}


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
    else:
        echo(facts["text"])


def _short(licence: str) -> str:
    return licence.split(":")[0]


def _warn_of(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["problem"]:
            warn(f"{row['encoder']}: {row['problem']}")


def _here(row: dict[str, Any]) -> str:
    return "unclear" if row["problem"] else _yes(row["here"])


def _yes(value: Any) -> str:
    return "yes" if value else "no"
