"""Messages that sinks must receive: a transactional outbox in the database of the history.

    table outbox    sink, id of the message, time of the message, the message as JSON

A message about an event is written in the event's own transaction, and deleted once its sink has delivered it.
At least once, in order, also after `kill -9`: a message delivered but not yet deleted here is sent again after a
restart, with the same time and id. Undelivered messages are pruned with the scores of the same age.
"""

from __future__ import annotations

from collections.abc import Sequence

from nearfar.live.history.database import Database, Statement
from nearfar.live.sinks.messages import Message, parse_message


class Outbox:
    """All undelivered messages; each sink that needs them has a mailbox."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._mailboxes: list[Mailbox] = []

    def mailbox(self, sink: str, kinds: Sequence[str]) -> Mailbox:
        """Keep messages of these kinds for a sink from now on."""
        box = Mailbox(self.database, sink, kinds)
        self._mailboxes = [*(other for other in self._mailboxes if other.sink != sink), box]
        return box

    def remove(self, sink: str) -> None:
        """Keep no messages for a sink any more, and delete those that wait."""
        self._mailboxes = [box for box in self._mailboxes if box.sink != sink]
        self.database.write(("DELETE FROM outbox WHERE sink = ?", [sink]))

    def inserts(self, message: Message) -> list[Statement]:
        """The statements that keep a message for every sink that needs it."""
        if not (boxes := [box for box in self._mailboxes if message.kind in box.kinds]):
            return []
        row = [message.id, message.at, message.json()]
        return [("INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?)", [box.sink, *row]) for box in boxes]

    def enqueue(self, message: Message) -> None:
        """Keep a message that belongs to no event."""
        if statements := self.inserts(message):
            self.database.write(*statements)


class Mailbox:
    """The undelivered messages of one sink."""

    def __init__(self, database: Database, sink: str, kinds: Sequence[str]) -> None:
        self.database, self.sink, self.kinds = database, sink, kinds
        self._ids: dict[Message, str] = {}  # the ids of messages that an earlier version wrote with fewer fields

    def waiting(self) -> list[Message]:
        """Undelivered messages, oldest first."""
        rows = self.database.read("SELECT id, message FROM outbox WHERE sink = ? ORDER BY rowid", [self.sink])
        found = {parse_message(text): id for id, text in rows}
        self._ids = {message: id for message, id in found.items() if id != message.id}
        return list(found)

    def forget(self, message: Message) -> None:
        """Delete a message that the sink has delivered, or never will."""
        id = self._ids.pop(message, message.id)
        self.database.write(("DELETE FROM outbox WHERE sink = ? AND id = ?", [self.sink, id]))
