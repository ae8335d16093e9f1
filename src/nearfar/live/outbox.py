"""What a sink must be told for sure: kept in the history, in the transaction of its event, until the sink has taken it.

    outbox    sink, id of the message, its time, the message

At least once, in order, also after `kill -9`: a message that was taken just before its sink's word for it came is sent
again at the next start, with the time and the id that it had. What nobody takes goes with the scores of its days.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nearfar.live.message import Message

if TYPE_CHECKING:
    from nearfar.live.history import History, Statement


class Outbox:
    """The messages of `kinds` that `sink` has not taken yet; from now on `history` keeps them."""

    def __init__(self, history: History, sink: str, kinds: Sequence[str]) -> None:
        self.history, self.sink, self.kinds = history, sink, kinds
        history.outboxes.append(self)

    def waiting(self) -> list[Message]:
        """What has not been taken, oldest first."""
        rows = self.history._read("SELECT message FROM outbox WHERE sink = ? ORDER BY rowid", [self.sink])
        return [Message.from_json(text) for (text,) in rows]

    def keep(self, message: Message) -> list[Statement]:
        """What writes a message down, if it is one of ours."""
        if message.kind not in self.kinds:
            return []
        values = [self.sink, message.id, message.at, message.to_json()]
        return [("INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?)", values)]

    def taken(self, message: Message) -> None:
        """The sink has it, or will never have it."""
        with self.history._lock:
            self.history._write(("DELETE FROM outbox WHERE sink = ? AND id = ?", [self.sink, message.id]))


def promise(history: History, message: Message) -> None:
    """Keep a message that belongs to no event."""
    if statements := history.promised(message):
        with history._lock:
            history._write(*statements)
