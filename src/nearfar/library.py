"""Where grids come from: read from the store if they are there, else computed, and kept.

One place for the detector, the search and extraction, so that all of them hear the same. A clip goes through in three
steps, because each has its own place in a pipeline:

    begin   by a worker: look into the store, make the waveforms of what it lacks
    run     the networks, for several clips at once
    keep    by a worker: write their grids to the store
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from nearfar import audio
from nearfar.audio import Clip
from nearfar.blas import one_thread
from nearfar.check import Array, one_of
from nearfar.embed import Pass, run, waves_of
from nearfar.encoders import PRECISIONS, TABLE, Described, Encoder, hash_of, load
from nearfar.hashes import of_file
from nearfar.store import Key, Store


class StoreError(OSError):
    """The store cannot be written: a full disk, as a rule. What was written before is kept."""


@dataclass(frozen=True)
class Request:
    """A clip on its way: what was found, the waveforms of what was not, and the grids of encoders that need no batch.

    `source`: SHA-256 of the file, or "" for arrays, which no store keeps.
    """

    source: str
    window: tuple[int, int] | None
    found: Mapping[Pass, Array]
    waves: Mapping[Pass, Array]
    done: Mapping[Pass, Array] = field(default_factory=dict)


class Shelf:
    """A store as passes see it, and what goes in for those that it lacks: all that needs no network.

    `near` and `far` are channel numbers of the files. Without `must_keep`, a store that cannot be written is a warning,
    and the work goes on without it.
    """

    def __init__(
        self,
        described: Mapping[str, Described],
        store: Store | None = None,
        *,
        near: int = 0,
        far: int | None = 1,
        must_keep: bool = False,
    ) -> None:
        self.described, self.store, self.near, self.far, self.must_keep = described, store, near, far, must_keep

    def has(self, source: str, window: tuple[int, int] | None, passes: Iterable[Pass]) -> bool:
        """Whether the store holds all of the passes."""
        return self.store is not None and all(self.store.has(self.key(source, window, each)) for each in passes)

    def begin(self, clip: Clip, source: str, passes: Sequence[Pass]) -> Request:
        """Look for what is wanted of a clip, a pooled pass's grid if its vector is not there, and prepare the rest."""
        found = self._look(source, clip.window, dict.fromkeys(passes))
        grids = dict.fromkeys(p.grid for p in passes if p not in found)
        found |= self._look(source, clip.window, [p for p in grids if p not in passes])
        return Request(source, clip.window, found, waves_of(clip, [p for p in grids if p not in found], self.described))

    def keep(self, request: Request, new: Mapping[Pass, Array]) -> dict[Pass, Array]:
        """Write new grids or pooled vectors of a clip; all of its passes, as the store gives them back."""
        store = self.store
        if store is None or not request.source:
            return {**request.found, **new}
        try:
            kept = {p: store.write(self.key(request.source, request.window, p), x) for p, x in new.items()}
            return {**request.found, **kept}
        except OSError as error:
            why = f"{store.folder} cannot be written: {error.strerror or error}"
            if self.must_keep:
                raise StoreError(f"{why}. What is done is kept: make room and run the same command again") from error
            warnings.warn(f"{why}; going on without a store", stacklevel=2)
            self.store = None
            return {**request.found, **new}

    def key(self, source: str, window: tuple[int, int] | None, each: Pass) -> Key:
        """The store's key of a pass."""
        pair = {"near": (self.near,), "far": (self.far,)}.get(each.waveform, (self.near, self.far))
        channels = tuple(channel for channel in pair if channel is not None)
        weights = weights_of(self.described[each.encoder])
        if not weights and TABLE[each.encoder].has_weights:
            raise ValueError(
                f"encoder {each.encoder!r} does not say which weights it has, so no store can keep its grids"
            )
        return Key(source, channels, window, each.waveform, each.encoder, weights, each.layer, each.pooled)

    def _look(self, source: str, window: tuple[int, int] | None, passes: Iterable[Pass]) -> dict[Pass, Array]:
        """Those of the passes that the store holds; nothing for arrays, whose `source` is ""."""
        store = self.store
        if store is None or not source:
            return {}
        read = {each: store.read(self.key(source, window, each)) for each in passes}
        return {each: grid for each, grid in read.items() if grid is not None}


class Library(Shelf):
    """Grids of recordings by these encoders (by name).

    `layers` of a network that `grid` keeps as soon as it needs one of them: all come out of one pass through it.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        store: Store | None = None,
        *,
        layers: Sequence[int | None] = (),
        **how: Any,
    ) -> None:
        super().__init__(encoders, store, **how)
        self.encoders, self.layers = encoders, layers

    def grid(
        self, path: str | PathLike[str], waveform: str, encoder: str | None = None, layer: int | None = None
    ) -> Array:
        """(T, F, D) float32 of a whole recording; `encoder` may be left out if there is one alone.

        Raises ValueError for a recording longer than `audio.LONG_S`, which is heard in windows, and as reading does.
        """
        if encoder is None and len(self.encoders) != 1:
            raise ValueError(f"name the encoder, one of: {', '.join(self.encoders)}")
        wanted = Pass(waveform, encoder or next(iter(self.encoders)), layer)
        source = of_file(path)
        found = self._look(source, None, [wanted])
        if not found:
            clip = next(audio.windows(path, near=self.near, far=self.far))
            if clip.window is not None:
                raise ValueError(f"{path}: lasts more than {audio.LONG_S:g} s and has no grid as a whole; cut it first")
            together = [wanted._replace(layer=layer) for layer in self.layers if self.store is not None]
            found = self.grids(clip, source, list(dict.fromkeys([wanted, *together])))
        return found[wanted]

    def grids(self, clip: Clip, source: str, passes: Sequence[Pass]) -> dict[Pass, Array]:
        """All three steps for one clip."""
        with one_thread():  # as everywhere: a product's last bit depends on the threads
            request = self.begin(clip, source, passes)
            return self.keep(request, self.run([request])[0])

    def begin(self, clip: Clip, source: str, passes: Sequence[Pass]) -> Request:
        """As `Shelf.begin`; encoders without threads of their own are done with the clip here."""
        request = super().begin(clip, source, passes)
        alone = {p: wave for p, wave in request.waves.items() if not hasattr(self.encoders[p.encoder], "threads")}
        waves = {p: wave for p, wave in request.waves.items() if p not in alone}
        # A network spreads a batch over the processors by itself; log-mel is one worker's job.
        return replace(request, waves=waves, done=run([alone], self.encoders)[0])

    def run(self, requests: Sequence[Request]) -> list[dict[Pass, Array]]:
        """The grids that the store lacks, of each request: one call of each network."""
        grids = run([request.waves for request in requests], self.encoders)
        return [{**request.done, **new} for request, new in zip(requests, grids, strict=True)]


def load_encoders(
    names: Iterable[str],
    weights: Any = None,
    known: Mapping[str, str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
) -> dict[str, Encoder]:
    """Encoders by name; `weights` is a file for those that need one, or {name: file}; `known`: hashes to insist on.

    `precision` is that of the networks that have one, where a known hash does not say another.
    Raises ValueError naming both hashes if a file holds other weights than are known.
    """
    given, known = files_of(names, weights), known or {}
    encoders = {}
    for name in names:
        of = _precision_of(name, precision)
        if of != precision and TABLE[name].has_weights:
            warnings.warn(f"{name} has no linear layers that could run in {precision}: it stays as it is", stacklevel=2)
        of = ("bf16" if known[name].endswith(":bf16") else "float32") if name in known else of
        encoders[name] = load(name, given.get(name), device=device, threads=threads, precision=of)
    for name, digest in known.items():
        found = weights_of(encoders[name]) if name in encoders else digest
        if found != digest:
            raise ValueError(
                f"this detector was fitted with other weights of {name}: SHA-256 {digest}, and the file that was given "
                f"now has {found}. Give the first file, or fit again"
            )
    return encoders


def hashes_of(names: Iterable[str], weights: Any = None, precision: str = "float32") -> dict[str, str]:
    """What `weights_of` each encoder will say, told from the files: nothing is loaded. Raises as `load` does."""
    given = files_of(names, weights)
    suffix = {name: "" if _precision_of(name, precision) == "float32" else f":{precision}" for name in names}
    return {name: hash_of(name, given.get(name)) + suffix[name] for name in names}


def weights_of(encoder: Described) -> str:
    """What an encoder's numbers come from: the hash of its weights file, HASH:bf16 in that precision, or ""."""
    weights: str = getattr(encoder, "weights_hash", "")
    return weights


def _precision_of(name: str, asked: str) -> str:
    one_of("precision", asked, PRECISIONS)
    return asked if TABLE[name].has_precision else "float32"


def with_weights(encoders: Iterable[str]) -> list[str]:
    """Those of `encoders` that need weights, each once, in order of name."""
    return sorted({name for name in encoders if name not in TABLE or TABLE[name].has_weights})


def unused(weights: Any, encoders: Iterable[str]) -> str:
    """What of `weights` (a file, a folder or {name: file}) none of `encoders` would use, and what they need, or ""."""
    needed = with_weights(encoders)
    spare = sorted(weights.keys() - needed) if isinstance(weights, Mapping) else []
    if not needed and isinstance(weights, PathLike) and not Path(weights).is_dir():
        spare = [str(weights)]
    if not spare:
        return ""
    what = f"the weights of {', '.join(needed)} are" if needed else "log-mel has no weights, so none are"
    return f"{', '.join(spare)} would not be used: {what} needed here"


def files_of(names: Iterable[str], weights: Any) -> Mapping[str, Any]:
    """{name: file or folder} of weights that may be one for all encoders that have any."""
    return weights if isinstance(weights, Mapping) else {n: weights for n in names if TABLE[n].has_weights}
