"""The reader's language: messages are written once, in English, and translated where they are shown.

    texts/LANGUAGE/format.json     how numbers and dates are written
    texts/LANGUAGE/messages.json   {English message with {places}: the message in this language}; not for English
    texts/LANGUAGE/reports.json    texts of the reports, by key
    texts/LANGUAGE/pages.json      texts of the pages, by key; the pages read them

A folder is a language. `translated` finds the template that fits a message, so a message that was stored last year is
read in any language today. What stands at a place is translated too, if it is a number, a date or a known phrase; a
text of several sentences, or a list, is translated piece by piece; what fits no template stays English.

A template fits as in a glob: each literal is found from left to right, so a text takes linear time, whatever is in it.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

TEXTS = Path(__file__).parent / "texts"
ENGLISH = "en"
COOKIE = "nearfar_language"
NAMES = frozenset({"name", "file", "path", "folder", "id", "who", "by"})  # places that stand for a name
LONGEST, PIECES, SPAN, DEPTH = 4000, 16, 6, 4  # characters, pieces of a text, of a message; places inside places
SEPARATOR = re.compile(r"(?<=[.?!])\s+|[;:] +|\n+")
GLUE = re.compile(r"(, | and | or )")
WORD = re.compile(r"[A-Za-z]+")
NUMBER = re.compile(r"[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+\-]\d+)?%?(?: ?[A-Za-z]{1,3})?")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WHEN = re.compile(rf"(?:({'|'.join(DAYS)}) ?)?(?:(\d{{4}})-(\d\d)-(\d\d) ?)?(\d\d:\d\d(?::\d\d)?|\d\d)?")

reader: ContextVar[str] = ContextVar("reader", default=ENGLISH)  # the language of the request that is being answered


@cache
def languages() -> tuple[str, ...]:
    """The languages that there are."""
    return tuple(sorted(folder.name for folder in TEXTS.iterdir() if folder.is_dir()))


def choose(cookie: str, accept_language: str, otherwise: str = ENGLISH) -> str:
    """The language of a reader: that of the cookie, else the best known one of an Accept-Language header."""
    if cookie in languages():
        return cookie
    wishes = []
    for wish in accept_language[:1000].lower().split(","):
        tag, _, weight = wish.strip().partition(";q=")
        try:
            wishes.append((float(weight or 1), tag.partition("-")[0].strip()))
        except ValueError:
            continue
    known = (tag for weight, tag in sorted(wishes, key=lambda w: -w[0]) if weight > 0 and tag in languages())
    return next(known, otherwise)


def asked_for(headers: Mapping[str, str], otherwise: str = ENGLISH) -> str:
    """The language of a request, by its headers in lower case."""
    cookie = re.search(rf"(?:^|; *){COOKIE}=([\w-]+)", headers.get("cookie", ""))
    return choose(cookie[1] if cookie else "", headers.get("accept-language", ""), otherwise)


def translated(text: str, language: str) -> str:
    """A message, number or date in a language; what is not known stays as it is."""
    if language == ENGLISH or not text or len(text) > LONGEST:
        return text
    return _messages(language).place("", text, 0)[0]


def date(language: str, year: str, month: str, day: str) -> str:
    """A date in the order of a language."""
    form: str = catalogue("format", language)["date"]
    return form.format(year=year, month=month, day=day)


def texts(kind: str, language: str) -> Callable[..., str]:
    """t(key, **values): the text of a key in a language, its values as `translated` gives them."""
    known = catalogue(kind, language)

    def t(key: str, **values: object) -> str:
        found: str = known[key]
        return found.format(**{name: translated(str(value), language) for name, value in values.items()})

    return t


@cache
def catalogue(kind: str, language: str) -> dict[str, Any]:
    """What texts/LANGUAGE/KIND.json holds."""
    read: dict[str, Any] = json.loads((TEXTS / language / f"{kind}.json").read_text(encoding="utf-8"))
    return read


@cache
def _messages(language: str) -> Messages:
    return Messages(catalogue("messages", language), catalogue("format", language))


@dataclass(frozen=True)
class Template:
    """A message with places: the literals around them, their names, and the message in the other language."""

    literals: tuple[str, ...]
    names: tuple[str, ...]
    other: str

    @staticmethod
    def of(message: str, other: str) -> Template:
        """The template of an entry of messages.json."""
        literals, names = [""], []
        for literal, name, _, _ in string.Formatter().parse(message):
            literals[-1] += literal
            if name is not None:
                names.append(name)
                literals.append("")
        return Template(tuple(literals), tuple(names), other)

    @property
    def size(self) -> int:
        """The number of characters that are given."""
        return sum(map(len, self.literals))

    def words(self) -> list[str]:
        """Whole words that every text that fits has."""
        inner = "\0".join(self.literals)  # a word beside a place may be part of a longer one
        return re.findall(r"(?<![A-Za-z\0])[A-Za-z]+(?![A-Za-z\0])", inner)

    def values(self, text: str) -> list[str] | None:
        """What stands at the places of a text that fits, or None."""
        first, last = self.literals[0], self.literals[-1]
        if not self.names:
            return [] if text == first else None
        at, end, found = len(first), len(text) - len(last), []
        if at > end or not text.startswith(first) or not text.endswith(last):
            return None
        for literal in self.literals[1:-1]:
            to = text.find(literal, at, end)
            if to < 0:
                return None
            found.append(text[at:to])
            at = to + len(literal)
        return [*found, text[at:end]]


class Messages:
    """The messages of one language. Methods return a text and how many letters of it stay English."""

    def __init__(self, entries: Mapping[str, str], form: Mapping[str, Any]) -> None:
        self.form = form
        templates = sorted((Template.of(*entry) for entry in entries.items()), key=lambda t: -t.size)
        common = Counter(word for template in templates for word in set(template.words()))
        self._with_word: dict[str, list[Template]] = defaultdict(list)  # by the rarest word of the template
        for template in templates:
            self._with_word[min(template.words(), key=lambda word: common[word], default="")].append(template)
        self.place = lru_cache(8192)(self._place)

    def _place(self, name: str, text: str, depth: int) -> tuple[str, int]:
        """What stands at a place: a name, a number, a date, a message, several of them, or a list of phrases."""
        if name in NAMES or not text or depth > DEPTH:
            return text, 0
        found = self._local(text) or self._fit(text, depth)
        if found is None and SEPARATOR.search(text):
            return self._pieces(text, depth)
        return found or self._listed(text, depth) or (text, 0)

    def _local(self, text: str) -> tuple[str, int] | None:
        """A number, with its unit, or a date."""
        if not (text[0].isdigit() or text[0] in "+-−" or text[:3] in DAYS):
            return None
        if NUMBER.fullmatch(text):
            swap = {",": self.form["thousands"], ".": self.form["decimal"], "%": self.form["percent"]}
            return "".join(swap.get(c, c) for c in text), 0
        found = WHEN.fullmatch(text)
        if found is None:
            return None
        day, year, month, date, clock = found.groups()
        parts = [
            day and self.form["days"][DAYS.index(day)],
            year and self.form["date"].format(year=year, month=month, day=date),
            clock,
        ]
        return " ".join(part for part in parts if part), 0

    def _fit(self, text: str, depth: int) -> tuple[str, int] | None:
        """A text that is one message, whether it begins with a capital and ends with a full stop or not."""
        swapped = text[0].swapcase() + text[1:] if text[:1].isalpha() else text
        for given in dict.fromkeys((text, swapped)):
            for stop in ("", ".") if given.endswith(".") else ("",):
                if found := self._message(given.removesuffix(stop), depth):
                    other, left = found[0] + stop, found[1]
                    if given is not text and other:
                        other = (other[0].upper() if text[0].isupper() else other[0].lower()) + other[1:]
                    return other, left
        return None

    def _message(self, text: str, depth: int) -> tuple[str, int] | None:
        best: tuple[str, int] | None = None
        found = (t for word in {"", *WORD.findall(text)} for t in self._with_word.get(word, ()))
        for template in sorted(found, key=lambda t: -t.size):
            values = template.values(text)
            if values is None:
                continue
            named = zip(template.names, values, strict=True)
            places = {name: self.place(name, value, depth + 1) for name, value in named}
            left = sum(letters for _, letters in places.values())
            if best is None or left < best[1]:
                best = template.other.format(**{name: value for name, (value, _) in places.items()}), left
            if not left:
                break
        return best

    def _pieces(self, text: str, depth: int) -> tuple[str, int]:
        """Several messages: those pieces together that leave the fewest letters English."""
        marks = [found.span() for found in SEPARATOR.finditer(text)][: PIECES - 1]
        starts, ends = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(text)]
        count = len(starts)
        best = [("", 0)] * (count + 1)
        for i in reversed(range(count)):
            options = []
            for j in range(min(count, i + SPAN), i, -1):
                piece, after = text[starts[i] : ends[j - 1]], text[ends[j - 1] : starts[j]] if j < count else ""
                found = self._local(piece) if piece else None
                found = found or self._fit(piece, depth)
                if found is None and j == i + 1:
                    found = piece, sum(c.isalpha() for c in piece)
                if found is not None:
                    options.append((found[0] + after + best[j][0], found[1] + best[j][1]))
            best[i] = min(options, key=lambda option: option[1])
        return best[0]

    def _listed(self, text: str, depth: int) -> tuple[str, int] | None:
        """Phrases and single words that are joined by commas, "and" and "or"."""
        parts = GLUE.split(text)
        if not 3 <= len(parts) < 99:
            return None
        for i, part in enumerate(parts):
            found = (self._local(part) or self._fit(part.strip(), depth)) if part.strip(" ,") else None
            if found is not None:
                parts[i] = f" {found[0]} " if i % 2 else found[0]
            elif not i % 2 and " " in part:
                return None
        return "".join(parts), 0
