"""A map over sources whose middle step takes batches, for networks that run several clips at once.

    prepare   a source -> its pieces, one at a time, in a worker thread
    work      a batch of pieces, at most one of each source -> one outcome each, in the caller's thread
    finish    a piece and its outcome -> a result, in a worker thread

Order in, order out. A bounded number of sources is under way, so memory grows neither with their number nor with the
number of pieces of a source. Where no batch is needed, `support.threads.map_in_order` does. Knows nothing of audio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from nearfar.support.threads import pool_of_threads

Source = TypeVar("Source")
Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")
Result = TypeVar("Result")

AHEAD = 4  # sources under way per worker, beside those of a batch
EXPECTED = (ValueError, OSError)  # errors that end one source; any other stops the map


@dataclass
class _UnderWay(Generic[Source, Piece, Result]):
    """A source whose pieces are being made: `coming` will hold the next piece, or None after the last."""

    source: Source
    pieces: Iterator[Piece]
    coming: Future[Piece | None]
    results: list[Future[Result]] = field(default_factory=list)
    error: Exception | None = None
    ended: bool = False

    def take(self) -> Piece | None:
        """The next piece, or None after the last."""
        piece = None
        try:
            piece = self.coming.result()
        except EXPECTED as error:
            self.error = error
        self.ended = piece is None
        return piece

    @property
    def settled(self) -> bool:
        """Whether the outcome is ready."""
        return self.ended and (self.error is not None or all(result.done() for result in self.results))

    def outcome(self) -> tuple[Source, list[Result] | Exception]:
        """The source with all results, or with the error that ended it."""
        try:
            return self.source, self.error or [result.result() for result in self.results]
        except EXPECTED as error:
            return self.source, error


def map_batched(
    sources: Iterable[Source],
    prepare: Callable[[Source], Iterator[Piece]],
    work: Callable[[Sequence[Piece]], Sequence[Outcome]],
    finish: Callable[[Piece, Outcome], Result],
    *,
    workers: int,
    batch: int,
) -> Iterator[tuple[Source, list[Result] | Exception]]:
    """Each source, in order, with its results, or with the ValueError or OSError that ended it."""
    rest = iter(sources)
    under_way: deque[_UnderWay[Source, Piece, Result]] = deque()
    with pool_of_threads(workers) as pool:
        while True:
            for source in islice(rest, AHEAD * workers + 2 * batch - len(under_way)):
                pieces = prepare(source)
                under_way.append(_UnderWay(source, pieces, pool.submit(next, pieces, None)))
            if not under_way:
                return
            active = list(islice((s for s in under_way if not s.ended), batch))
            if not active:  # the rest is being finished
                yield under_way.popleft().outcome()
                continue
            taken = [(begun, piece) for begun in active if (piece := begun.take()) is not None]
            for begun, _ in taken:
                begun.coming = pool.submit(next, begun.pieces, None)
            for (begun, piece), outcome in zip(taken, run_batch(work, [p for _, p in taken]), strict=True):
                if isinstance(outcome, Exception):
                    begun.error, begun.ended = outcome, True
                else:
                    begun.results.append(pool.submit(finish, piece, outcome))
            while under_way and under_way[0].settled:
                yield under_way.popleft().outcome()


def run_batch(work: Callable[[Sequence[Any]], Sequence[Any]], pieces: Sequence[Any]) -> Sequence[Any]:
    """The outcome of each piece; if the batch fails, each piece is tried alone and gets its own error."""
    if not pieces:
        return []
    try:
        return work(pieces)
    except EXPECTED as error:
        return [error] if len(pieces) == 1 else [outcome for piece in pieces for outcome in run_batch(work, [piece])]
