"""Grids and pooled embeddings of files: read from the store if they are there, else computed, and kept.

The detector, the search and the extraction share this one way, so all of them get the same numbers. It has three
steps, because each has its own place when many clips are embedded at once:

    prepare   look into the store, make the waveforms of what it lacks          a worker thread, or another process
    encode    run the encoders, on one clip or on several                       where the networks are
    keep      write the new arrays to the store                                 a worker thread
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any

from nearfar import audio
from nearfar.audio import Clip
from nearfar.embedding.facts import FORMAT, ClipFacts
from nearfar.embedding.store import Key, Store
from nearfar.embedding.vectors import EncoderInput, encode, waveforms_for
from nearfar.encoders import TABLE, Encoder, EncoderDescription, Layers
from nearfar.encoders.loading import is_nameless, weights_of
from nearfar.errors import StoreError
from nearfar.support.check import Array
from nearfar.support.threads import single_threaded_blas


@dataclass(frozen=True)
class PendingClip:
    """A clip between `prepare` and `keep`.

    source   SHA-256 of the file, or "" for arrays, which no store keeps
    window   (first sample, most samples) of a long file, None for the whole
    found    arrays that the store holds, by input
    waves    waveforms (N,) of the inputs that still have to be encoded
    """

    source: str
    window: tuple[int, int] | None
    found: Mapping[EncoderInput, Array]
    waves: Mapping[EncoderInput, Array]


class EmbeddingCache:
    """Reads and writes the grids and pooled embeddings of encoder inputs; without a store it finds and keeps nothing.

    described    {name: encoder}; only rate and weights are used
    near, far    channel numbers of the files
    must_keep    a store that cannot be written is a StoreError; else it is a warning, and work goes on without a store
    """

    def __init__(
        self,
        described: Mapping[str, EncoderDescription],
        store: Store | None = None,
        *,
        near: int = 0,
        far: int | None = 1,
        must_keep: bool = False,
    ) -> None:
        self.described, self.store, self.near, self.far, self.must_keep = described, store, near, far, must_keep

    def has(self, source: str, window: tuple[int, int] | None, inputs: Iterable[EncoderInput]) -> bool:
        """Whether the store holds all of the inputs."""
        return self.store is not None and all(self.store.has(self.key(source, window, each)) for each in inputs)

    def prepare(self, clip: Clip, source: str, inputs: Sequence[EncoderInput]) -> PendingClip:
        """Read the inputs of a clip, or the grid of a pooled input, from the store; make the waveforms of the rest."""
        found = self.read(source, clip.window, dict.fromkeys(inputs))
        grids = dict.fromkeys(i.grid for i in inputs if i not in found)
        found |= self.read(source, clip.window, [i for i in grids if i not in inputs])
        missing = [i for i in grids if i not in found]
        return PendingClip(source, clip.window, found, waveforms_for(clip, missing, self.described))

    def keep(self, pending: PendingClip, new: Mapping[EncoderInput, Array]) -> dict[EncoderInput, Array]:
        """Write new grids or pooled embeddings of a clip; returns all of its arrays, as the store will give them."""
        store = self.store
        if store is None or not pending.source:
            return {**pending.found, **new}
        try:
            kept = {
                i: store.write(self.key(pending.source, pending.window, i), x) for i, x in new.items() if self._keeps(i)
            }
            return {**pending.found, **new, **kept}
        except OSError as error:
            why = f"{store.folder} cannot be written: {error.strerror or error}"
            if self.must_keep:
                raise StoreError(f"{why}. What is done is kept: make room and run the same command again") from error
            warnings.warn(f"{why}; going on without a store", stacklevel=2)
            self.store = None
            return {**pending.found, **new}

    def facts(self, source: str, what: str) -> ClipFacts | None:
        """The facts of a recording that is one clip, if the store holds them; `what` says which they are."""
        text = self.store.read_note(self._facts_key(source, what)) if self.store is not None else None
        return None if text is None else ClipFacts.from_json(text)

    def keep_facts(self, source: str, what: str, text: str) -> None:
        """Keep the facts of a recording, as JSON; `keep` reports a full disk."""
        if self.store is not None:
            with suppress(OSError):
                self.store.write_note(self._facts_key(source, what), text)

    def _facts_key(self, source: str, what: str) -> Key:
        channels = tuple(channel for channel in (self.near, self.far) if channel is not None)
        return Key(source, channels, None, f"facts {FORMAT}", "", "", None, what)

    def key(self, source: str, window: tuple[int, int] | None, each: EncoderInput) -> Key:
        """The store's key of an input."""
        pair = {"near": (self.near,), "far": (self.far,)}.get(each.waveform, (self.near, self.far))
        channels = tuple(channel for channel in pair if channel is not None)
        weights = str(weights_of(self.described[each.encoder]))
        if not weights and TABLE[each.encoder].has_weights:
            raise ValueError(
                f"encoder {each.encoder!r} does not say which weights it has, so no store can keep its grids: give it "
                "the attribute weights_hash, text that changes whenever its outputs do"
            )
        return Key(source, channels, window, each.waveform, each.encoder, weights, each.layer, each.pooled)

    def _keeps(self, each: EncoderInput) -> bool:
        """Whether a store keeps an input: not that of a plug-in without a `weights_hash`, unless that is an error."""
        return self.must_keep or not is_nameless(each.encoder, weights_of(self.described[each.encoder]))

    def read(
        self, source: str, window: tuple[int, int] | None, inputs: Iterable[EncoderInput]
    ) -> dict[EncoderInput, Array]:
        """Those of the inputs that the store holds; none for arrays, whose `source` is ""."""
        store = self.store
        if store is None or not source:
            return {}
        arrays = {each: store.read(self.key(source, window, each)) for each in inputs if self._keeps(each)}
        return {each: array for each, array in arrays.items() if array is not None}


class CachedEncoders(EmbeddingCache):
    """A cache beside its encoders (by name), which compute what it lacks; the `settings` are those of `EmbeddingCache`.

    `layers` of a network are kept together as soon as one of them is needed: all come out of one pass through it.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        store: Store | None = None,
        *,
        layers: Sequence[Layers] = (),
        **settings: Any,
    ) -> None:
        super().__init__(encoders, store, **settings)
        self.encoders, self.layers = encoders, layers

    def grids(self, path: str | PathLike[str], waveforms: Iterable[str], layer: Layers = None) -> dict[str, Array]:
        """(T, F, D) float32 of each waveform of a whole recording, by the only encoder; the file is read once.

        Raises ValueError for a recording longer than `audio.LONG_S`, which has grids of its windows only, and as
        reading does.
        """
        (encoder,) = self.encoders
        wanted = {name: EncoderInput(name, encoder, layer) for name in waveforms}
        source = self.store.hash_of(path) if self.store is not None else ""
        found = self.read(source, None, wanted.values())
        if missing := [each for each in wanted.values() if each not in found]:
            clip = next(audio.windows(path, near=self.near, far=self.far))
            if clip.window is not None:
                raise ValueError(f"{path}: lasts more than {audio.LONG_S:g} s and has no grid as a whole; cut it first")
            layers = self.layers if self.store is not None else ()
            together = [each._replace(layer=number) for each in missing for number in (layer, *layers)]
            with single_threaded_blas():  # the last bit of a product depends on the number of BLAS threads
                found |= self.arrays(clip, source, list(dict.fromkeys(together)))
        return {name: found[each] for name, each in wanted.items()}

    def arrays(self, clip: Clip, source: str, inputs: Sequence[EncoderInput]) -> dict[EncoderInput, Array]:
        """The arrays of one clip's inputs, read or computed in this thread: stored pooled embeddings, else grids."""
        pending = self.prepare(clip, source, inputs)
        return self.keep(pending, encode([pending.waves], self.encoders)[0])

    def encode(self, clips: Sequence[PendingClip]) -> list[dict[EncoderInput, Array]]:
        """The grids that the store lacks, of each clip: one call of each encoder for all."""
        return encode([clip.waves for clip in clips], self.encoders)
