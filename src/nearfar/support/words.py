"""How messages are put together: a sentence ends once, a number agrees with its noun."""

from __future__ import annotations

from collections.abc import Iterable


def as_sentence(text: str) -> str:
    """A sentence with its full stop, unless it has an end already."""
    return text if text.endswith(("?", ".", "!")) else f"{text}."


def join_sentences(texts: Iterable[str]) -> str:
    """Several remarks in a row: "a; b", or "a? B" where the first is a question."""
    said = ""
    for text in texts:
        said += f" {text[:1].upper()}{text[1:]}" if said.endswith(("?", ".", "!")) else f"; {text}" if said else text
    return said


def plural(n: int, noun: str) -> str:
    """ "1 recording", "1,000 recordings"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
