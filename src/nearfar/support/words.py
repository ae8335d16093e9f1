"""Parts of messages: full stops, joined sentences, plurals."""

from __future__ import annotations

from collections.abc import Iterable


def as_sentence(text: str) -> str:
    """`text` with a full stop, unless it ends with a mark already."""
    return text if text.endswith(("?", ".", "!")) else f"{text}."


def join_sentences(texts: Iterable[str]) -> str:
    """Texts joined as "a; b", or as "a? B" after a question."""
    joined = ""
    for text in texts:
        ended = joined.endswith(("?", ".", "!"))
        joined += f" {text[:1].upper()}{text[1:]}" if ended else f"; {text}" if joined else text
    return joined


def plural(n: int, noun: str) -> str:
    """ "1 recording", "1,000 recordings"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
