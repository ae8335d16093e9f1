"""Parts of messages: full stops, joined sentences, plurals, names of files."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence

HINT = re.compile(r" \(nearfar [^)]*\)")


def as_sentence(text: str) -> str:
    """`text` with a full stop, unless it ends with a mark already."""
    return text if text.endswith(("?", ".", "!")) else f"{text}."


def without_commands(text: str) -> str:
    """A message for a page: without its hints for the command line, such as " (nearfar fit --far -1)"."""
    return HINT.sub("", text)


def join_sentences(texts: Iterable[str]) -> str:
    """Texts joined as "a; b", or as "a? B" after a question."""
    joined = ""
    for text in texts:
        ended = joined.endswith(("?", ".", "!"))
        joined += f" {text[:1].upper()}{text[1:]}" if ended else f"; {text}" if joined else text
    return joined


def shown(name: str | os.PathLike[str]) -> str:
    r"""The name of a file as text that can be printed and sent: on one line, without codes that steer a terminal.

    Bytes that are not UTF-8 and characters that cannot be printed are escaped: pump\xe4.wav, new\nline.wav.
    """
    text = os.fspath(name)
    if text.isascii() and text.isprintable():
        return text
    known = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


def listed(names: Sequence[str], most: int = 3) -> str:
    """ "a, b, c and 2 more": names, at most `most` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def plural(n: int, noun: str) -> str:
    """ "1 recording", "1,000 recordings"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def install_command(apt: str, brew: str, winget: str) -> str:
    """The command that installs a program on this system, by its name in each package manager."""
    return {"win32": f"winget install {winget}", "darwin": f"brew install {brew}"}.get(
        sys.platform, f"apt install {apt}"
    )


def quoted(argument: str) -> str:
    """An argument of a command as it is typed in the shell of this system."""
    if sys.platform != "win32":
        return shlex.quote(argument)
    return f'"{argument}"' if not argument or set(argument) & set(" &()^;,'") else argument
