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
from typing import Any

from nearfar import audio
from nearfar.audio import Clip
from nearfar.embedding.store import Key, Store
from nearfar.embedding.vectors import EncoderInput, run, waves_of
from nearfar.encoders import TABLE, Described, Encoder
from nearfar.encoders.loading import weights_of
from nearfar.errors import StoreError
from nearfar.support.check import Array
from nearfar.support.files import sha256_of
from nearfar.support.threads import single_threaded_blas


@dataclass(frozen=True)
class PendingClip:
    """A clip on its way: what was found, the waveforms of what was not, and the grids of encoders that need no batch.

    `source`: SHA-256 of the file, or "" for arrays, which no store keeps.
    """

    source: str
    window: tuple[int, int] | None
    found: Mapping[EncoderInput, Array]
    waves: Mapping[EncoderInput, Array]
    done: Mapping[EncoderInput, Array] = field(default_factory=dict)


class CacheReader:
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

    def has(self, source: str, window: tuple[int, int] | None, passes: Iterable[EncoderInput]) -> bool:
        """Whether the store holds all of the passes."""
        return self.store is not None and all(self.store.has(self.key(source, window, each)) for each in passes)

    def begin(self, clip: Clip, source: str, passes: Sequence[EncoderInput]) -> PendingClip:
        """Look for what is wanted of a clip, a pooled pass's grid if its vector is not there, and prepare the rest."""
        found = self._look(source, clip.window, dict.fromkeys(passes))
        grids = dict.fromkeys(p.grid for p in passes if p not in found)
        found |= self._look(source, clip.window, [p for p in grids if p not in passes])
        return PendingClip(
            source, clip.window, found, waves_of(clip, [p for p in grids if p not in found], self.described)
        )

    def keep(self, request: PendingClip, new: Mapping[EncoderInput, Array]) -> dict[EncoderInput, Array]:
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

    def key(self, source: str, window: tuple[int, int] | None, each: EncoderInput) -> Key:
        """The store's key of a pass."""
        pair = {"near": (self.near,), "far": (self.far,)}.get(each.waveform, (self.near, self.far))
        channels = tuple(channel for channel in pair if channel is not None)
        weights = weights_of(self.described[each.encoder])
        if not weights and TABLE[each.encoder].has_weights:
            raise ValueError(
                f"encoder {each.encoder!r} does not say which weights it has, so no store can keep its grids"
            )
        return Key(source, channels, window, each.waveform, each.encoder, weights, each.layer, each.pooled)

    def _look(
        self, source: str, window: tuple[int, int] | None, passes: Iterable[EncoderInput]
    ) -> dict[EncoderInput, Array]:
        """Those of the passes that the store holds; nothing for arrays, whose `source` is ""."""
        store = self.store
        if store is None or not source:
            return {}
        read = {each: store.read(self.key(source, window, each)) for each in passes}
        return {each: grid for each, grid in read.items() if grid is not None}


class EmbeddingCache(CacheReader):
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
        wanted = EncoderInput(waveform, encoder or next(iter(self.encoders)), layer)
        source = sha256_of(path)
        found = self._look(source, None, [wanted])
        if not found:
            clip = next(audio.windows(path, near=self.near, far=self.far))
            if clip.window is not None:
                raise ValueError(f"{path}: lasts more than {audio.LONG_S:g} s and has no grid as a whole; cut it first")
            together = [wanted._replace(layer=layer) for layer in self.layers if self.store is not None]
            found = self.grids(clip, source, list(dict.fromkeys([wanted, *together])))
        return found[wanted]

    def grids(self, clip: Clip, source: str, passes: Sequence[EncoderInput]) -> dict[EncoderInput, Array]:
        """All three steps for one clip."""
        with single_threaded_blas():  # as everywhere: a product's last bit depends on the threads
            request = self.begin(clip, source, passes)
            return self.keep(request, self.run([request])[0])

    def begin(self, clip: Clip, source: str, passes: Sequence[EncoderInput]) -> PendingClip:
        """As `Shelf.begin`; encoders without threads of their own are done with the clip here."""
        request = super().begin(clip, source, passes)
        alone = {p: wave for p, wave in request.waves.items() if not self.encoders[p.encoder].batches}
        waves = {p: wave for p, wave in request.waves.items() if p not in alone}
        # A network spreads a batch over the processors by itself; log-mel is one worker's job.
        return replace(request, waves=waves, done=run([alone], self.encoders)[0])

    def run(self, requests: Sequence[PendingClip]) -> list[dict[EncoderInput, Array]]:
        """The grids that the store lacks, of each request: one call of each network."""
        grids = run([request.waves for request in requests], self.encoders)
        return [{**request.done, **new} for request, new in zip(requests, grids, strict=True)]
